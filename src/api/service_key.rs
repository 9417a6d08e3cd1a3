//! Service keys: `Authorization: Bearer sk_live_...`, stored as SHA-256 only.
//!
//! A key is looked up by its hash in an index. What a timing could tell is how far a hash agrees with one in the
//! index, and nobody can choose a key by its hash.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::header;
use http::request::Parts;
use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::params;
use sha2::Digest as _;
use sha2::Sha256;

use crate::api::problem::Problem;
use crate::domain::hex;

/// What every service key begins with; 48 hex digits follow.
pub const KEY_PREFIX: &str = "sk_live_";
/// Hex digits behind [`KEY_PREFIX`].
pub const KEY_DIGITS: usize = 48;
/// Longest bearer credential that is looked at, in bytes; owner tokens are longer than service keys.
const MAX_BEARER_BYTES: usize = 4096;
/// Keys whose last use waits to be written down; there are hardly more keys than that in use within a minute.
const MAX_USES: usize = 4096;

/// The service a request speaks for, proven by one of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedService {
    /// Which key.
    pub key_id: String,
    /// Which service.
    pub service_id: String,
    /// Its slug.
    pub slug: String,
    /// Its owner.
    pub owner_user_id: String,
    /// Its owner's namespace.
    pub owner_namespace: String,
}

/// Lower-case hex of a key's SHA-256, as it is stored.
pub fn key_hash(key: &str) -> String {
    hex::text(&Sha256::digest(key.as_bytes()))
}

/// The credential of `Authorization: Bearer`, where there is exactly one such header and it is not empty.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, credential) = value.to_str().ok()?.split_once(' ')?;
    let credential = credential.trim();
    let fits = !credential.is_empty() && credential.len() <= MAX_BEARER_BYTES;
    (scheme.eq_ignore_ascii_case("bearer") && fits).then_some(credential)
}

/// The service whose key hashes to `hash`; revoked keys are unknown.
pub fn find(db: &Connection, hash: &str) -> Result<Option<KeyedService>, rusqlite::Error> {
    let sql = "SELECT k.id, s.id, s.slug, u.id, u.namespace
               FROM service_api_keys k JOIN services s ON s.id = k.service_id JOIN users u ON u.id = s.owner_user_id
               WHERE k.key_hash = ?1 AND k.revoked_at_ms IS NULL";
    let mut statement = db.prepare_cached(sql)?;
    let row = |row: &rusqlite::Row<'_>| {
        Ok(KeyedService {
            key_id: row.get(0)?,
            service_id: row.get(1)?,
            slug: row.get(2)?,
            owner_user_id: row.get(3)?,
            owner_namespace: row.get(4)?,
        })
    };
    statement.query_row([hash], row).optional()
}

/// Whether a key has been neither revoked nor removed.
pub fn is_active(db: &Connection, key_id: &str) -> Result<bool, rusqlite::Error> {
    let mut statement = db.prepare_cached("SELECT 1 FROM service_api_keys WHERE id = ?1 AND revoked_at_ms IS NULL")?;
    statement.exists([key_id])
}

/// The service a request speaks for; 401 `UNAUTHORIZED` without a valid key. Only for paths that need a signature:
/// the key is looked up where the signature is.
#[derive(Debug, Clone)]
pub struct Keyed(pub KeyedService);

impl<S: Sync> FromRequestParts<S> for Keyed {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let service = parts.extensions.get::<KeyedService>().cloned();
        service.map(Self).ok_or_else(|| Problem::unauthorized("a valid service key is needed as bearer token"))
    }
}

/// Last uses of keys, gathered so that not every request writes.
#[derive(Debug, Default)]
pub struct KeyUses(Mutex<HashMap<String, i64>>);

impl KeyUses {
    /// Notes a use.
    pub fn note(&self, key_id: &str, now_ms: i64) {
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = uses.get_mut(key_id) {
            *known = now_ms;
        } else if uses.len() < MAX_USES {
            uses.insert(key_id.to_owned(), now_ms);
        }
    }

    /// Takes what was gathered.
    pub fn take(&self) -> HashMap<String, i64> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Writes gathered uses down.
pub fn write_uses(db: &Connection, uses: &HashMap<String, i64>) -> Result<(), rusqlite::Error> {
    let sql = "UPDATE service_api_keys SET last_used_at_ms = ?2 WHERE id = ?1";
    let mut statement = db.prepare_cached(sql)?;
    for (key_id, at_ms) in uses {
        statement.execute(params![key_id, at_ms])?;
    }
    Ok(())
}

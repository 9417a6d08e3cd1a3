//! Nonces that were used, in the database: a restart forgets none.
//!
//! A nonce is remembered once the signature around it has been verified, by its key: nobody can burn somebody
//! else's, and what one namespace is called by strangers costs it nothing.

use http::StatusCode;
use rusqlite::Connection;
use rusqlite::params;
use sha2::Digest as _;
use sha2::Sha256;

use crate::api::problem::Problem;

/// Nonces held at a time, about 60 bytes each. More is refused, never made room for: who is forgotten can be replayed.
const MAX_NONCES: i64 = 1_000_000;
/// Expired nonces that leave with each new one.
const PURGED_AT_ONCE: i64 = 4;
/// Seconds after which a full table is worth another try.
const RETRY_SECONDS: u32 = 5;

/// What a nonce is counted under, and the nonce.
#[derive(Debug, Clone, Copy)]
pub enum Nonce<'a> {
    /// Of a signature: the signer's namespace and raw key.
    Signature(&'a str, &'a [u8; 32], &'a str),
    /// Of a claim's body: the service's id.
    Claim(&'a str, &'a str),
    /// No nonce, but counted in the same way: a refused key asks again, by service id, namespace and key, which time.
    Ask(&'a str, &'a str, &'a str, u8),
}

impl Nonce<'_> {
    /// Each part with its length in front, so that no two nonces read the same.
    fn hash(self) -> [u8; 32] {
        let time: [u8; 1];
        let parts: [&[u8]; 5] = match self {
            Self::Signature(namespace, key, nonce) => [b"signature", namespace.as_bytes(), key, nonce.as_bytes(), b""],
            Self::Claim(service, nonce) => [b"claim", service.as_bytes(), b"", nonce.as_bytes(), b""],
            Self::Ask(service, namespace, key, which) => {
                time = [which];
                [b"ask", service.as_bytes(), namespace.as_bytes(), key.as_bytes(), &time]
            }
        };
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

/// Remembers a nonce until `expires_at_ms`. `false`: it was used before.
pub fn admit(db: &Connection, nonce: Nonce<'_>, now_ms: i64, expires_at_ms: i64) -> Result<bool, Problem> {
    let sql = "DELETE FROM nonces WHERE hash IN (SELECT hash FROM nonces WHERE expires_at_ms < ?1 LIMIT ?2)";
    db.prepare_cached(sql)?.execute(params![now_ms, PURGED_AT_ONCE])?;
    let held: i64 = db.prepare_cached("SELECT held FROM nonce_count")?.query_row([], |row| row.get(0))?;
    if held >= MAX_NONCES {
        let text = "too many requests within a few minutes: no room to remember another nonce";
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "NONCE_STORE_UNAVAILABLE", text);
        return Err(problem.retry_after(RETRY_SECONDS));
    }
    // One that has expired and not left yet is as good as gone.
    let sql = "INSERT INTO nonces (hash, expires_at_ms) VALUES (?1, ?2)
               ON CONFLICT DO UPDATE SET expires_at_ms = excluded.expires_at_ms WHERE expires_at_ms < ?3";
    Ok(db.prepare_cached(sql)?.execute(params![nonce.hash(), expires_at_ms, now_ms])? == 1)
}

/// Removes what has expired; at start, when more may have than leave one by one.
pub fn purge(db: &Connection, now_ms: i64) -> Result<(), rusqlite::Error> {
    db.execute("DELETE FROM nonces WHERE expires_at_ms < ?1", [now_ms])?;
    Ok(())
}

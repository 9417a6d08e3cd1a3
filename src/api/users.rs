//! Owners in the database: rows of users, what makes a token worthless, and what is left of those who went.

use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::Row;
use rusqlite::params;

use crate::api::token::Owner;
use crate::api::token::VerifiedToken;
use crate::domain::hex;
use crate::domain::ids::Namespace;

/// Milliseconds a revoked token is remembered after it has expired: longer than clocks may disagree.
const REVOKED_LONGER_MS: i64 = 60_000;

/// An owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// `user_local_<namespace>` or what a sign-in gave.
    pub id: String,
    /// Their e-mail address.
    pub email: String,
    /// What they own.
    pub namespace: String,
    /// A JSON object.
    pub settings: String,
    /// When the row was made.
    pub created_at_ms: i64,
    /// When it was last changed.
    pub updated_at_ms: i64,
    tokens_valid_after_ms: i64,
}

/// What the database says of a token that is right by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It speaks for this owner.
    Owner(User),
    /// It was revoked, or all tokens of its user were.
    Revoked,
    /// Its namespace is another user's, or its user owns another namespace.
    Foreign,
    /// Nobody of that id.
    Unknown,
}

/// Judges a token by what is known here.
pub fn standing(db: &Connection, token: &VerifiedToken) -> Result<Standing, rusqlite::Error> {
    let owner = token.owner();
    if db.prepare_cached("SELECT 1 FROM revoked_tokens WHERE token_hash = ?1")?.exists([hash(token)])? {
        return Ok(Standing::Revoked);
    }
    let found = find(db, &owner.sub)?;
    let valid_after_ms = match &found {
        Some(user) => user.tokens_valid_after_ms,
        None => left_at(db, &owner.sub)?.unwrap_or(0),
    };
    // `iat` counts whole seconds: one of the very second of the revocation may be older than it.
    if valid_after_ms > 0 && ms(token.issued_at().0) <= valid_after_ms {
        return Ok(Standing::Revoked);
    }
    match found {
        Some(user) if user.namespace == owner.namespace.as_str() => Ok(Standing::Owner(user)),
        Some(_) => Ok(Standing::Foreign),
        None if is_registered(db, owner.namespace.as_str())? => Ok(Standing::Foreign),
        None => Ok(Standing::Unknown),
    }
}

/// The user of an id.
pub fn find(db: &Connection, id: &str) -> Result<Option<User>, rusqlite::Error> {
    one(
        db,
        "SELECT id, email, namespace, settings, created_at_ms, updated_at_ms, tokens_valid_after_ms
             FROM users WHERE id = ?1",
        id,
    )
}

/// The owner of a namespace.
pub fn find_by_namespace(db: &Connection, namespace: &str) -> Result<Option<User>, rusqlite::Error> {
    one(
        db,
        "SELECT id, email, namespace, settings, created_at_ms, updated_at_ms, tokens_valid_after_ms
             FROM users WHERE namespace = ?1",
        namespace,
    )
}

/// Adds an owner. Whoever left under this id and comes back keeps the old tokens worthless.
pub fn insert(db: &Connection, owner: &Owner, now_ms: i64) -> Result<User, rusqlite::Error> {
    let tokens_valid_after_ms = left_at(db, &owner.sub)?.unwrap_or(0);
    let sql = "INSERT INTO users (id, email, namespace, plan, settings, created_at_ms, updated_at_ms,
                                  tokens_valid_after_ms)
               VALUES (?1, ?2, ?3, 'free', '{}', ?4, ?4, ?5)";
    let namespace = owner.namespace.as_str();
    db.prepare_cached(sql)?.execute(params![owner.sub, owner.email, namespace, now_ms, tokens_valid_after_ms])?;
    Ok(User {
        id: owner.sub.clone(),
        email: owner.email.clone(),
        namespace: namespace.to_owned(),
        settings: "{}".to_owned(),
        created_at_ms: now_ms,
        updated_at_ms: now_ms,
        tokens_valid_after_ms,
    })
}

/// Replaces an owner's settings.
pub fn set_settings(db: &Connection, id: &str, settings: &str, now_ms: i64) -> Result<(), rusqlite::Error> {
    let sql = "UPDATE users SET settings = ?2, updated_at_ms = ?3 WHERE id = ?1";
    db.prepare_cached(sql)?.execute(params![id, settings, now_ms])?;
    Ok(())
}

/// Removes an owner with everything of theirs: services with their keys and claims, the claims and the usage of
/// their namespace. Tokens issued until now stay worthless, and resolvers are told that the namespace has ended.
pub fn remove(db: &Connection, user: &User, now_ms: i64) -> Result<(), rusqlite::Error> {
    let sql = "INSERT INTO departed_users (id, namespace, at_ms) VALUES (?1, ?2, ?3)
               ON CONFLICT (id) DO UPDATE SET namespace = excluded.namespace, at_ms = excluded.at_ms";
    db.execute(sql, params![user.id, user.namespace, now_ms])?;
    db.execute("DELETE FROM authorizations WHERE namespace = ?1", [&user.namespace])?;
    let sql = "DELETE FROM usage_events WHERE namespace = ?1
               OR service_id IN (SELECT id FROM services WHERE owner_user_id = ?2)";
    db.execute(sql, [&user.namespace, &user.id])?;
    db.execute("DELETE FROM users WHERE id = ?1", [&user.id])?;
    Ok(())
}

/// Makes a token worthless from now on.
pub fn revoke_token(db: &Connection, token: &VerifiedToken, now_ms: i64) -> Result<(), rusqlite::Error> {
    // What has expired needs no row; with this the table stays as small as the number of living tokens.
    db.execute("DELETE FROM revoked_tokens WHERE expires_at_ms < ?1", [now_ms])?;
    let expires_at_ms = ms(token.expires_at().0).saturating_add(REVOKED_LONGER_MS);
    let sql = "INSERT INTO revoked_tokens (token_hash, expires_at_ms) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    db.execute(sql, params![hash(token), expires_at_ms])?;
    Ok(())
}

/// Whether somebody who owned the namespace has left.
pub fn was_left(db: &Connection, namespace: &Namespace) -> Result<bool, rusqlite::Error> {
    db.prepare_cached("SELECT 1 FROM departed_users WHERE namespace = ?1")?.exists([namespace.as_str()])
}

fn left_at(db: &Connection, id: &str) -> Result<Option<i64>, rusqlite::Error> {
    let mut statement = db.prepare_cached("SELECT at_ms FROM departed_users WHERE id = ?1")?;
    statement.query_row([id], |row| row.get(0)).optional()
}

fn is_registered(db: &Connection, namespace: &str) -> Result<bool, rusqlite::Error> {
    db.prepare_cached("SELECT 1 FROM users WHERE namespace = ?1")?.exists([namespace])
}

fn one(db: &Connection, sql: &str, key: &str) -> Result<Option<User>, rusqlite::Error> {
    let read = |row: &Row<'_>| {
        Ok(User {
            id: row.get(0)?,
            email: row.get(1)?,
            namespace: row.get(2)?,
            settings: row.get(3)?,
            created_at_ms: row.get(4)?,
            updated_at_ms: row.get(5)?,
            tokens_valid_after_ms: row.get(6)?,
        })
    };
    db.prepare_cached(sql)?.query_row([key], read).optional()
}

fn hash(token: &VerifiedToken) -> String {
    hex::text(token.hash())
}

fn ms(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000)
}

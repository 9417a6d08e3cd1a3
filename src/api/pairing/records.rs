//! Pair sessions in the database: neither pair code nor reconnect secret, and nothing of what is relayed.

use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::Row;
use rusqlite::params;

/// How long an ended session is still known, so that its bridge and its owner are told what became of it.
const KEPT_MS: i64 = 600_000;

/// Why a session has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its time was over.
    Expired,
    /// Too many wrong pair codes were tried before a bridge had joined.
    WrongCodes,
    /// Its owner said so.
    ByOwner,
}

impl Ended {
    /// As it is stored and shown.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::WrongCodes => "wrong_codes",
            Self::ByOwner => "by_owner",
        }
    }
}

/// One session. Moments are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    /// A UUID.
    pub(super) id: String,
    pub(super) owner_user_id: String,
    pub(super) namespace: String,
    /// See [`super::code`].
    pub(super) code_hash: Vec<u8>,
    pub(super) created_at_ms: i64,
    pub(super) expires_at_ms: i64,
    pub(super) last_connected_at_ms: Option<i64>,
    /// Of the secret that the last bridge which joined with the code was given.
    pub(super) reconnect_hash: Option<Vec<u8>>,
    /// Wrong codes that were tried before a bridge joined.
    pub(super) wrong_codes: u32,
    /// Why before its time.
    ended: Option<String>,
    /// What its owner calls the gateway.
    pub(super) name: Option<String>,
}

impl Session {
    /// Why it is over, where it is.
    pub(super) fn ended(&self, now_ms: i64) -> Option<Ended> {
        match self.ended.as_deref() {
            Some("wrong_codes") => Some(Ended::WrongCodes),
            Some("by_owner") => Some(Ended::ByOwner),
            Some(_) => Some(Ended::Expired),
            None => (self.expires_at_ms <= now_ms).then_some(Ended::Expired),
        }
    }
}

const COLUMNS: &str = "id, owner_user_id, namespace, code_hash, created_at_ms, expires_at_ms, last_connected_at_ms, \
                       reconnect_hash, ended, wrong_codes, name";

fn session(row: &Row<'_>) -> Result<Session, rusqlite::Error> {
    Ok(Session {
        id: row.get(0)?,
        owner_user_id: row.get(1)?,
        namespace: row.get(2)?,
        code_hash: row.get(3)?,
        created_at_ms: row.get(4)?,
        expires_at_ms: row.get(5)?,
        last_connected_at_ms: row.get(6)?,
        reconnect_hash: row.get(7)?,
        ended: row.get(8)?,
        wrong_codes: row.get(9)?,
        name: row.get(10)?,
    })
}

/// A session that has just been started.
pub(super) fn insert(db: &Connection, new: &Session) -> Result<(), rusqlite::Error> {
    let sql = "INSERT INTO pairing_sessions (id, owner_user_id, namespace, code_hash, created_at_ms, expires_at_ms)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let values = params![new.id, new.owner_user_id, new.namespace, new.code_hash, new.created_at_ms, new.expires_at_ms];
    db.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// A session as it begins.
pub(super) fn fresh(
    id: String,
    (owner_user_id, namespace): (String, String),
    code_hash: Vec<u8>,
    (created_at_ms, expires_at_ms): (i64, i64),
) -> Session {
    Session {
        id,
        owner_user_id,
        namespace,
        code_hash,
        created_at_ms,
        expires_at_ms,
        last_connected_at_ms: None,
        reconnect_hash: None,
        wrong_codes: 0,
        ended: None,
        name: None,
    }
}

/// Sets what its owner calls it.
pub(super) fn rename(db: &Connection, id: &str, name: Option<&str>) -> Result<(), rusqlite::Error> {
    let sql = "UPDATE pairing_sessions SET name = ?2 WHERE id = ?1";
    db.prepare_cached(sql)?.execute(params![id, name])?;
    Ok(())
}

/// The session of an id.
pub(super) fn find(db: &Connection, id: &str) -> Result<Option<Session>, rusqlite::Error> {
    let sql = format!("SELECT {COLUMNS} FROM pairing_sessions WHERE id = ?1");
    db.prepare_cached(&sql)?.query_row([id], session).optional()
}

/// The ids of all sessions, also of those that ended a while ago.
pub(super) fn ids(db: &Connection) -> Result<Vec<String>, rusqlite::Error> {
    let mut statement = db.prepare_cached("SELECT id FROM pairing_sessions")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    rows.collect()
}

/// The sessions of an owner that are not over, newest first.
pub(super) fn live(db: &Connection, owner_user_id: &str, now_ms: i64) -> Result<Vec<Session>, rusqlite::Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM pairing_sessions WHERE owner_user_id = ?1 AND ended IS NULL AND expires_at_ms > ?2
         ORDER BY created_at_ms DESC, id"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(params![owner_user_id, now_ms], session)?;
    rows.collect()
}

/// The ids of an owner's sessions, also of those that ended a while ago.
pub(super) fn of_owner(db: &Connection, owner_user_id: &str) -> Result<Vec<String>, rusqlite::Error> {
    let mut statement = db.prepare_cached("SELECT id FROM pairing_sessions WHERE owner_user_id = ?1")?;
    let rows = statement.query_map([owner_user_id], |row| row.get(0))?;
    rows.collect()
}

/// Notes that a bridge has joined, and the hash of the reconnect secret it was given, where it was given one; `false` where
/// the session is over.
pub(super) fn connected(
    db: &Connection,
    id: &str,
    now_ms: i64,
    reconnect_hash: Option<&[u8]>,
) -> Result<bool, rusqlite::Error> {
    let sql = "UPDATE pairing_sessions SET last_connected_at_ms = ?2, reconnect_hash = coalesce(?3, reconnect_hash)
               WHERE id = ?1 AND ended IS NULL AND expires_at_ms > ?2";
    Ok(db.prepare_cached(sql)?.execute(params![id, now_ms, reconnect_hash])? == 1)
}

/// Counts a wrong code of a session that no bridge has joined: a restart gives nobody more of them.
pub(super) fn count_wrong(db: &Connection, id: &str) -> Result<(), rusqlite::Error> {
    let sql = "UPDATE pairing_sessions SET wrong_codes = wrong_codes + 1 WHERE id = ?1";
    db.prepare_cached(sql)?.execute([id])?;
    Ok(())
}

/// Extends a session's time; `false` where it is over.
pub(super) fn extend(db: &Connection, id: &str, until_ms: i64, now_ms: i64) -> Result<bool, rusqlite::Error> {
    let sql = "UPDATE pairing_sessions SET expires_at_ms = ?2
               WHERE id = ?1 AND ended IS NULL AND expires_at_ms > ?3";
    Ok(db.prepare_cached(sql)?.execute(params![id, until_ms, now_ms])? == 1)
}

/// Ends a session before its time. Too many wrong codes end only one that no bridge has joined.
pub(super) fn end(db: &Connection, id: &str, why: Ended, now_ms: i64) -> Result<bool, rusqlite::Error> {
    let sql = "UPDATE pairing_sessions SET ended = ?2, expires_at_ms = ?3
               WHERE id = ?1 AND ended IS NULL AND expires_at_ms > ?3 AND (last_connected_at_ms IS NULL OR NOT ?4)";
    let values = params![id, why.text(), now_ms, why == Ended::WrongCodes];
    Ok(db.prepare_cached(sql)?.execute(values)? == 1)
}

/// Forgets sessions that ended a while ago.
pub(super) fn forget(db: &Connection, now_ms: i64) -> Result<usize, rusqlite::Error> {
    let before_ms = now_ms.saturating_sub(KEPT_MS);
    db.prepare_cached("DELETE FROM pairing_sessions WHERE expires_at_ms < ?1")?.execute([before_ms])
}

/// Which of these sessions are not there any more.
pub(super) fn missing(db: &Connection, ids: Vec<String>) -> Result<Vec<String>, rusqlite::Error> {
    let mut statement = db.prepare_cached("SELECT 1 FROM pairing_sessions WHERE id = ?1")?;
    let mut missing = Vec::new();
    for id in ids {
        if !statement.exists([&id])? {
            missing.push(id);
        }
    }
    Ok(missing)
}

//! The claims' table: who asked for which service with which key, and what became of it.
//!
//! The statements that change a claim's status are here and nowhere else. What each means for the readers of the
//! feed is written down by the database itself (see `migrate`).

use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::Row;
use rusqlite::params;

use crate::api::policy::Policy;
use crate::sys::random;
use crate::sys::random::RandomError;

/// Claims of a namespace that are neither pending nor approved; beyond, the oldest are forgotten.
const MAX_ENDED: i64 = 1000;
/// Namespaces with overdue claims that are read at a time, and about how many claims end in one transaction.
const AT_ONCE: usize = 500;

/// What has become of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named after its text")]
pub enum Status {
    Pending,
    Approved,
    Rejected,
    Revoked,
    Expired,
}

impl Status {
    /// As it is stored and sent.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }

    /// Reads [`Status::text`].
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Pending, Self::Approved, Self::Rejected, Self::Revoked, Self::Expired];
        all.into_iter().find(|status| status.text() == text)
    }
}

/// One claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// `cl_` and 24 hex digits.
    pub claim_id: String,
    /// The service's id.
    pub service_id: String,
    /// The service's slug.
    pub service: String,
    /// The agent's namespace, whose owner decides.
    pub namespace: String,
    /// `ed25519:` and base64.
    pub public_key: String,
    /// What has become of it.
    pub status: Status,
    /// The agent's address as reported.
    pub agent_ip: String,
    /// Who the agent acts for.
    pub subject: Option<String>,
    /// Which agent.
    pub agent_id: Option<String>,
    /// Its name for people.
    pub agent_name: Option<String>,
    /// When it was asked for, the last time.
    pub created_at_ms: i64,
    /// When it was approved.
    pub approved_at_ms: Option<i64>,
    /// When the approval ends by itself.
    pub expires_at_ms: Option<i64>,
    /// When it was rejected, revoked or expired.
    pub ended_at_ms: Option<i64>,
}

/// The columns [`claim`] reads, of `authorizations a JOIN services s`.
pub const COLUMNS: &str = "a.claim_id, a.service_id, s.slug, a.namespace, a.public_key, a.status, a.agent_ip, \
                           a.subject, a.agent_id, a.agent_name, a.created_at_ms, a.approved_at_ms, \
                           a.expires_at_ms, a.ended_at_ms";

/// Reads a row of [`COLUMNS`].
pub fn claim(row: &Row<'_>) -> Result<Claim, rusqlite::Error> {
    let status: String = row.get(5)?;
    Ok(Claim {
        claim_id: row.get(0)?,
        service_id: row.get(1)?,
        service: row.get(2)?,
        namespace: row.get(3)?,
        public_key: row.get(4)?,
        // The table's own check leaves no other text.
        status: Status::parse(&status).unwrap_or(Status::Expired),
        agent_ip: row.get(6)?,
        subject: row.get(7)?,
        agent_id: row.get(8)?,
        agent_name: row.get(9)?,
        created_at_ms: row.get(10)?,
        approved_at_ms: row.get(11)?,
        expires_at_ms: row.get(12)?,
        ended_at_ms: row.get(13)?,
    })
}

/// The claim of a key.
pub fn find(
    db: &Connection,
    service_id: &str,
    namespace: &str,
    public_key: &str,
) -> Result<Option<Claim>, rusqlite::Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM authorizations a JOIN services s ON s.id = a.service_id
         WHERE a.service_id = ?1 AND a.namespace = ?2 AND a.public_key = ?3"
    );
    db.prepare_cached(&sql)?.query_row(params![service_id, namespace, public_key], claim).optional()
}

/// The claim of an id.
pub fn by_id(db: &Connection, claim_id: &str) -> Result<Option<Claim>, rusqlite::Error> {
    let sql =
        format!("SELECT {COLUMNS} FROM authorizations a JOIN services s ON s.id = a.service_id WHERE a.claim_id = ?1");
    db.prepare_cached(&sql)?.query_row([claim_id], claim).optional()
}

/// An id for a new claim.
pub fn new_id() -> Result<String, RandomError> {
    Ok(format!("cl_{}", random::hex::<12>()?))
}

/// How much of a namespace's room is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Services it has approved keys for.
    pub services: i64,
    /// Whether the service in question is one of them.
    pub connected: bool,
    /// Approved keys for that service.
    pub agents: i64,
    /// Pending claims for services of the namespace's own owner, or for those of others, as the service in question
    /// is: whoever has a service can ask in any namespace, and must not fill the room of its own ones.
    pub pending: i64,
}

/// How much of a namespace's room is taken, with a service in mind. To be asked in the transaction that fills it.
pub fn taken(db: &Connection, service_id: &str, namespace: &str) -> Result<Taken, rusqlite::Error> {
    let one = |sql: &str| -> Result<i64, rusqlite::Error> {
        db.prepare_cached(sql)?.query_row(params![namespace, service_id], |row| row.get(0))
    };
    let agents = one("SELECT count(*) FROM authorizations
                      WHERE namespace = ?1 AND service_id = ?2 AND status = 'approved'")?;
    let services = "SELECT count(DISTINCT service_id) FROM authorizations WHERE namespace = ?1 AND status = 'approved'";
    let services = db.prepare_cached(services)?.query_row([namespace], |row| row.get(0))?;
    let pending = one("SELECT count(*) FROM authorizations a JOIN services s ON s.id = a.service_id
                       JOIN users u ON u.id = s.owner_user_id
                       WHERE a.namespace = ?1 AND a.status = 'pending' AND (u.namespace = ?1) =
                           (SELECT o.namespace = ?1 FROM services t JOIN users o ON o.id = t.owner_user_id
                            WHERE t.id = ?2)")?;
    Ok(Taken { services, connected: agents > 0, agents, pending })
}

/// Writes a claim down, over an ended one of the same key where there is one; that one was rejected or revoked is kept with
/// it.
pub fn put(db: &Connection, claim: &Claim) -> Result<(), rusqlite::Error> {
    let sql = "INSERT INTO authorizations (service_id, namespace, public_key, claim_id, status, agent_ip, subject,
                   agent_id, agent_name, created_at_ms, approved_at_ms, expires_at_ms, ended_at_ms)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
               ON CONFLICT (service_id, namespace, public_key) DO UPDATE SET
                   claim_id = excluded.claim_id, status = excluded.status, agent_ip = excluded.agent_ip,
                   subject = excluded.subject, agent_id = excluded.agent_id, agent_name = excluded.agent_name,
                   created_at_ms = excluded.created_at_ms, approved_at_ms = excluded.approved_at_ms,
                   expires_at_ms = excluded.expires_at_ms, ended_at_ms = excluded.ended_at_ms,
                   earlier_status = CASE WHEN authorizations.status IN ('rejected', 'revoked')
                       THEN authorizations.status ELSE authorizations.earlier_status END,
                   earlier_ended_at_ms = CASE WHEN authorizations.status IN ('rejected', 'revoked')
                       THEN authorizations.ended_at_ms ELSE authorizations.earlier_ended_at_ms END";
    db.prepare_cached(sql)?.execute(params![
        claim.service_id,
        claim.namespace,
        claim.public_key,
        claim.claim_id,
        claim.status.text(),
        claim.agent_ip,
        claim.subject,
        claim.agent_id,
        claim.agent_name,
        claim.created_at_ms,
        claim.approved_at_ms,
        claim.expires_at_ms,
        claim.ended_at_ms,
    ])?;
    Ok(())
}

/// Approves a pending claim; `false` where it is not pending.
pub fn approve(
    db: &Connection,
    claim_id: &str,
    now_ms: i64,
    expires_at_ms: Option<i64>,
) -> Result<bool, rusqlite::Error> {
    let sql = "UPDATE authorizations SET status = 'approved', approved_at_ms = ?2, expires_at_ms = ?3
               WHERE claim_id = ?1 AND status = 'pending'";
    Ok(db.prepare_cached(sql)?.execute(params![claim_id, now_ms, expires_at_ms])? == 1)
}

/// Sets when an approval ends by itself.
pub fn set_end(db: &Connection, claim_id: &str, expires_at_ms: i64) -> Result<(), rusqlite::Error> {
    let sql = "UPDATE authorizations SET expires_at_ms = ?2 WHERE claim_id = ?1 AND status = 'approved'";
    db.prepare_cached(sql)?.execute(params![claim_id, expires_at_ms])?;
    Ok(())
}

/// Ends a claim that has status `from`; `false` where it has another.
pub fn end(db: &Connection, claim_id: &str, from: Status, into: Status, now_ms: i64) -> Result<bool, rusqlite::Error> {
    let sql = "UPDATE authorizations SET status = ?3, ended_at_ms = ?4 WHERE claim_id = ?1 AND status = ?2";
    Ok(db.prepare_cached(sql)?.execute(params![claim_id, from.text(), into.text(), now_ms])? == 1)
}

/// Ends approvals whose time is over. To be called before approvals are read: nobody is shown one that has ended.
pub fn expire_approved(db: &Connection, now_ms: i64) -> Result<usize, rusqlite::Error> {
    let sql = "UPDATE authorizations SET status = 'expired', ended_at_ms = ?1
               WHERE status = 'approved' AND expires_at_ms IS NOT NULL AND expires_at_ms <= ?1";
    db.prepare_cached(sql)?.execute([now_ms])
}

/// Whether [`expire_approved`] has something to do.
pub fn has_expired(db: &Connection, now_ms: i64) -> Result<bool, rusqlite::Error> {
    let sql = "SELECT 1 FROM authorizations
               WHERE status = 'approved' AND expires_at_ms IS NOT NULL AND expires_at_ms <= ?1 LIMIT 1";
    db.prepare_cached(sql)?.exists([now_ms])
}

/// Ends pending claims made before `before_ms`, except where the namespace's owner lets them wait. Where there are
/// many, only some of them: what is left is for the next call.
pub fn expire_pending(db: &Connection, before_ms: i64, now_ms: i64) -> Result<usize, rusqlite::Error> {
    // The signs keep the planner from walking through all claims by namespace: few are pending.
    let sql = "SELECT DISTINCT a.namespace, COALESCE(u.settings, '{}')
               FROM authorizations a LEFT JOIN users u ON u.namespace = a.namespace
               WHERE a.status = 'pending' AND a.created_at_ms < ?1 AND +a.namespace > ?2
               ORDER BY +a.namespace LIMIT ?3";
    let mut overdue = db.prepare_cached(sql)?;
    let sql = "UPDATE authorizations SET status = 'expired', ended_at_ms = ?3
               WHERE namespace = ?1 AND status = 'pending' AND created_at_ms < ?2";
    let mut expire = db.prepare_cached(sql)?;
    let most = i64::try_from(AT_ONCE).unwrap_or(i64::MAX);
    let (mut expired, mut last) = (0_usize, String::new());
    // Page by page, not the first page alone: claims that are let wait would keep the others' from their end.
    loop {
        let rows = overdue.query_map(params![before_ms, last, most], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let rows = rows.collect::<Result<Vec<(String, String)>, _>>()?;
        let is_last = rows.len() < AT_ONCE;
        for (namespace, settings) in rows {
            if Policy::of(&settings).auto_expire {
                expired = expired.saturating_add(expire.execute(params![namespace, before_ms, now_ms])?);
            }
            last = namespace;
        }
        if is_last || expired >= AT_ONCE {
            return Ok(expired);
        }
    }
}

/// Forgets the oldest ended claims of a namespace beyond a bound: strangers could otherwise fill the disk with them.
pub fn forget_ended(db: &Connection, namespace: &str) -> Result<(), rusqlite::Error> {
    let ended = "namespace = ?1 AND status IN ('rejected', 'revoked', 'expired')";
    let sql = format!("SELECT count(*) FROM authorizations WHERE {ended}");
    let held: i64 = db.prepare_cached(&sql)?.query_row([namespace], |row| row.get(0))?;
    if held > MAX_ENDED {
        let sql = format!(
            "DELETE FROM authorizations WHERE rowid IN
                 (SELECT rowid FROM authorizations WHERE {ended} ORDER BY created_at_ms, claim_id LIMIT ?2)"
        );
        db.prepare_cached(&sql)?.execute(params![namespace, held.saturating_sub(MAX_ENDED)])?;
    }
    Ok(())
}

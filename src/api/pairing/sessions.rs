//! What can be done with pair sessions: start, look, command, end, join.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;

use crate::api::account;
use crate::api::db::Db;
use crate::api::moment;
use crate::api::pairing::code;
use crate::api::pairing::code::CodeKey;
use crate::api::pairing::code::Kind;
use crate::api::pairing::hub::Hub;
use crate::api::pairing::line::Goodbye;
use crate::api::pairing::line::failed;
use crate::api::pairing::records;
use crate::api::pairing::records::Ended;
use crate::api::pairing::records::Session;
use crate::api::pairing::socket::Arrival;
use crate::api::pairing::socket::Arrivals;
use crate::api::pairing::tries::Verdict;
use crate::api::problem::Problem;
use crate::api::users;
use crate::api::users::User;
use crate::domain::secret::Secret;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::random;
use crate::wire::pairing::Command;
use crate::wire::pairing::Relayed;
use crate::wire::pairing::Terminal;
use crate::wire::pairing::ToBridge;

/// Longest name of a gateway, in characters.
const MAX_NAME: usize = 60;
/// Sessions of one owner at a time: one for each gateway, and some that were started and not used.
const MAX_SESSIONS_OF_OWNER: usize = 64;
/// Answers that are held back at a time; further ones are given at once.
const MAX_HELD: usize = 64;
/// Sockets that have been upgraded and wait to be taken up.
const ARRIVALS: usize = 64;
/// How long a session waits for its bridge to come back: a laptop's lid may be shut for an hour. From each extension on,
/// within the life of a session.
const EXTENSION_MS: i64 = 7_200_000;
/// A session with less than this left is extended when its bridge is heard, which writes every ten minutes.
const NEARLY_OVER_MS: i64 = EXTENSION_MS - 600_000;
/// How long a bridge may take to show that it is alive, when another wants its place.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
/// Seconds after which a bridge whose code was not looked at may try again.
const RETRY_SECONDS: u32 = 30;

/// What bounds pairings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairingLimits {
    /// `PAIRING_MAX_HOURS`: life of a session, however often it is extended.
    pub max_life: Duration,
    /// After so long without a word a bridge is asked whether it is there.
    pub heartbeat: Duration,
    /// After so long without a word it counts as gone; longer than `heartbeat`.
    pub silence: Duration,
    /// How long an answer to a handshake is held back that a bridge could take for the end of its session.
    pub held: Duration,
}

impl Default for PairingLimits {
    fn default() -> Self {
        Self {
            max_life: Duration::from_hours(24),
            // Bridges beat every 30 s by themselves, so that ours is heard by routers on the way in between.
            heartbeat: Duration::from_secs(25),
            silence: Duration::from_secs(60),
            // Bridges that cannot see a refusal's status count attempts of at most 5 s.
            held: Duration::from_millis(5500),
        }
    }
}

/// Sessions and live sockets.
#[derive(Debug)]
pub struct Pairings {
    pub(super) db: Db,
    pub(super) clock: SystemClock,
    pub(super) hub: Hub,
    /// Room for answers that are held back.
    pub(super) held: Semaphore,
    pub(super) limits: PairingLimits,
    pub(super) arrivals: mpsc::Sender<Arrival>,
    key: CodeKey,
}

/// A session that was started.
#[derive(Debug)]
pub struct Started {
    /// A UUID.
    pub session_id: String,
    /// Its owner's.
    pub namespace: String,
    /// Eight characters; shown this once.
    pub pair_code: Secret,
    /// Unix milliseconds; later where a bridge keeps it alive.
    pub expires_at_ms: i64,
}

/// How a session stands. Moments are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// A UUID.
    pub session_id: String,
    /// Its owner's.
    pub namespace: String,
    /// Whether a bridge is there now.
    pub connected: bool,
    /// When it was started.
    pub created_at_ms: i64,
    /// When it ends, unless it is extended; where it has ended, when that was.
    pub expires_at_ms: i64,
    /// When a bridge joined it last.
    pub last_connected_at_ms: Option<i64>,
    /// Why it is over, where it is.
    pub ended: Option<Ended>,
    /// What its owner calls the gateway.
    pub name: Option<String>,
}

/// What is to be asked of a gateway.
pub struct Order {
    /// Which session.
    pub session_id: String,
    /// HTTP method, upper case.
    pub method: String,
    /// Begins with `/`; the bridge judges it.
    pub path: String,
    /// The bridge lets some through.
    pub headers: BTreeMap<String, String>,
    /// May hold a secret.
    pub body: Option<Secret>,
    /// How long the answer may take.
    pub timeout: Duration,
}

impl fmt::Debug for Order {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Order");
        shown.field("session_id", &self.session_id).field("method", &self.method).field("path", &self.path);
        shown.finish_non_exhaustive()
    }
}

/// What a bridge says of itself when it wants to join.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) session_id: String,
    pub(super) namespace: String,
    pub(super) code: Secret,
    /// What it was given when it joined before.
    pub(super) reconnect: Option<Secret>,
}

/// A bridge whose handshake is right.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) session: Session,
    /// What it is to come back with: where it showed the code, and nothing better.
    pub(super) reconnect: Option<Secret>,
    /// The hash of that, to be kept once it has joined.
    pub(super) reconnect_hash: Option<Vec<u8>>,
    /// Number of the dead socket whose place it takes.
    pub(super) instead_of: Option<u64>,
    pub(super) address: IpAddr,
}

impl Pairings {
    /// None live yet; `secret` is that of the owner tokens, and `sockets` is for how many the process has room. What is
    /// returned besides must be kept by [`super::keep`], or no bridge is served.
    pub fn new(db: Db, secret: &Secret, limits: PairingLimits, sockets: usize) -> (Arc<Self>, Arrivals) {
        let (sender, arrivals) = mpsc::channel(ARRIVALS);
        let key = CodeKey::new(secret);
        let (clock, hub) = (SystemClock, Hub::new(sockets));
        let held = Semaphore::new(MAX_HELD);
        let pairings = Self { db, clock, hub, held, limits, arrivals: sender, key };
        (Arc::new(pairings), Arrivals(arrivals))
    }

    /// Knows the sessions of the database; to be called before the first bridge is served. What is started later is
    /// known from its start.
    pub async fn recall(&self) -> Result<(), Problem> {
        self.hub.note(self.db.read(|db| Ok(records::ids(db)?)).await?);
        Ok(())
    }

    /// Starts a session of an owner that lives `ttl` unless a bridge joins; 403 `PAIRING_LIMIT_REACHED`.
    pub async fn start(&self, owner: &User, ttl: Duration) -> Result<Started, Problem> {
        let (session_id, pair_code, now_ms) = (random::uuid()?, code::new()?, moment::now_ms(self.clock));
        let expires_at_ms = now_ms.saturating_add(ms(ttl.min(self.limits.max_life)));
        let hash = self.key.hash(Kind::Code, &session_id, &pair_code);
        let of = (owner.id.clone(), owner.namespace.clone());
        let new = records::fresh(session_id.clone(), of, hash, (now_ms, expires_at_ms));
        let insert = move |db: &rusqlite::Transaction<'_>| {
            users::find(db, &new.owner_user_id)?.ok_or_else(account::gone)?;
            let live = records::live(db, &new.owner_user_id, now_ms)?.len();
            if live >= MAX_SESSIONS_OF_OWNER {
                let text = format!("an owner has at most {MAX_SESSIONS_OF_OWNER} pairings at a time; end one first");
                let problem = Problem::new(StatusCode::FORBIDDEN, "PAIRING_LIMIT_REACHED", text);
                return Err(problem.details(json!({"pairing_limit": MAX_SESSIONS_OF_OWNER, "pairings": live})));
            }
            Ok(records::insert(db, &new)?)
        };
        self.db.write(insert).await?;
        // Not before it is in the database: `tidy` would forget it.
        self.hub.note([session_id.clone()]);
        Ok(Started { session_id, namespace: owner.namespace.clone(), pair_code, expires_at_ms })
    }

    /// One session; 404 `NOT_FOUND`, 403 `FORBIDDEN` where it is another owner's.
    pub async fn standing(&self, owner: &User, session_id: &str) -> Result<Standing, Problem> {
        let session = self.owned(owner, session_id).await?;
        Ok(self.stands(session))
    }

    /// The sessions of an owner that are not over, newest first.
    pub async fn live(&self, owner: &User) -> Result<Vec<Standing>, Problem> {
        let (id, now_ms) = (owner.id.clone(), moment::now_ms(self.clock));
        let sessions = self.db.read(move |db| Ok(records::live(db, &id, now_ms)?)).await?;
        Ok(sessions.into_iter().map(|session| self.stands(session)).collect())
    }

    /// Asks something of the gateway and waits for what comes of it: 404 `NOT_FOUND`, 403 `FORBIDDEN` where the
    /// session is another owner's, 503 `GATEWAY_NOT_CONNECTED`, 429 `RATE_LIMITED` where too many commands wait, and
    /// `GATEWAY_RELAY_FAILED` with 410 (the session is over), 502 (not sent, or the answer is too large) or 504 (no
    /// answer in time, or the gateway left).
    pub async fn command(&self, owner: &User, order: Order) -> Result<Relayed, Problem> {
        let session = self.owned(owner, &order.session_id).await?;
        if session.ended(moment::now_ms(self.clock)).is_some() {
            return Err(failed(StatusCode::GONE, Terminal::Expired.wire().1));
        }
        let line = self.hub.line(&session.id).ok_or_else(|| {
            let text = "no gateway is connected to this pair session now";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "GATEWAY_NOT_CONNECTED", text)
        })?;
        let Order { session_id: _, method, path, headers, body, timeout } = order;
        let request_id = random::uuid()?;
        let command = Command { request_id: request_id.clone(), method, path, headers, body };
        let frame = ToBridge::Command(command).write(self.clock.now().wall);
        line.command(&request_id, frame, timeout).await
    }

    /// Ends a session and its socket; 404 `NOT_FOUND`, 403 `FORBIDDEN` where it is another owner's. One that is over
    /// stays as it is.
    pub async fn end(&self, owner: &User, session_id: &str) -> Result<(), Problem> {
        let Session { id, .. } = self.owned(owner, session_id).await?;
        let (ended, now_ms) = (id.clone(), moment::now_ms(self.clock));
        self.db.write(move |db| Ok(records::end(db, &ended, Ended::ByOwner, now_ms)?)).await?;
        if let Some(line) = self.hub.line(&id) {
            line.end(Goodbye::Ended);
        }
        Ok(())
    }

    /// Calls the gateway of a session by a name; an empty one takes it away. 400 `VALIDATION_ERROR`, 404 `NOT_FOUND`, 403
    /// `FORBIDDEN` where it is another owner's.
    pub async fn rename(&self, owner: &User, session_id: &str, name: &str) -> Result<(), Problem> {
        let name = name.trim().to_owned();
        if name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(Problem::invalid("name", format!("must be one line of at most {MAX_NAME} characters")));
        }
        let Session { id, .. } = self.owned(owner, session_id).await?;
        let set = move |db: &rusqlite::Transaction<'_>| {
            Ok(records::rename(db, &id, Some(name.as_str()).filter(|name| !name.is_empty()))?)
        };
        self.db.write(set).await
    }

    /// The ids of an owner's sessions, to be read where the owner is removed, and given to [`Pairings::forget`] once that is
    /// done.
    pub fn of_owner(db: &rusqlite::Connection, owner: &User) -> Result<Vec<String>, rusqlite::Error> {
        records::of_owner(db, &owner.id)
    }

    /// Ends the sockets of sessions that are no more. A bridge that joins meanwhile finds no session in the database.
    pub fn forget(&self, ids: &[String]) {
        for id in ids {
            self.hub.forget(id);
        }
    }

    /// Forgets sessions that ended a while ago, and ends sockets whose session is no more.
    pub async fn tidy(&self) -> Result<(), Problem> {
        let now_ms = moment::now_ms(self.clock);
        // Asked for before the database is: what is started meanwhile is not missed in it.
        let known = self.hub.known();
        let missing = self.db.write(move |db| {
            records::forget(db, now_ms)?;
            Ok(records::missing(db, known)?)
        });
        self.forget(&missing.await?);
        Ok(())
    }

    /// Judges a handshake: the refusals of [`Terminal`] in their order, 409 `GATEWAY_ALREADY_CONNECTED`, 429
    /// `RATE_LIMITED` where too many wrong codes were tried.
    pub(super) async fn admit(&self, claimed: &Claimed, address: IpAddr) -> Result<Admitted, Problem> {
        let id = claimed.session_id.clone();
        let found = self.db.read(move |db| Ok(records::find(db, &id)?)).await?;
        let session = found.ok_or_else(|| refusal(Terminal::NotFound))?;
        let now = self.clock.now();
        let ended = session.ended(moment::now_ms(self.clock));
        match ended {
            Some(Ended::Expired) => return Err(refusal(Terminal::Expired)),
            Some(Ended::ByOwner) => return Err(refusal(Terminal::Ended)),
            Some(Ended::WrongCodes) | None => {}
        }
        if session.namespace != claimed.namespace {
            return Err(refusal(Terminal::Namespace));
        }
        if ended.is_some() {
            return Err(refusal(Terminal::Code));
        }
        let joined = session.last_connected_at_ms.is_some();
        if !joined {
            // Also those before a restart.
            self.hub.recall(&session.id, session.wrong_codes);
        }
        let opens = |kind, secret: &Secret, hash: &[u8]| self.key.matches(kind, &session.id, secret, hash);
        let shown = claimed.reconnect.as_ref().zip(session.reconnect_hash.as_deref());
        let has_secret = shown.is_some_and(|(secret, hash)| opens(Kind::Reconnect, secret, hash));
        // Codes have capitals only: one that was typed small is meant.
        let code = Secret::new(claimed.code.expose().to_ascii_uppercase());
        let is_right = || opens(Kind::Code, &code, &session.code_hash);
        match self.hub.judge(&session.id, address, (joined, has_secret), now.monotonic, is_right) {
            Verdict::Right => {}
            Verdict::Wrong if !joined => {
                let id = session.id;
                self.db.write(move |db| Ok(records::count_wrong(db, &id)?)).await?;
                return Err(refusal(Terminal::Code));
            }
            Verdict::Wrong | Verdict::Over => return Err(refusal(Terminal::Code)),
            Verdict::Later => return Err(Problem::rate_limited(RETRY_SECONDS)),
            Verdict::Last => {
                let (id, now_ms) = (session.id, moment::now_ms(self.clock));
                tracing::warn!(session = %id, "a pair session has ended: too many wrong pair codes");
                self.db.write(move |db| Ok(records::end(db, &id, Ended::WrongCodes, now_ms)?)).await?;
                return Err(refusal(Terminal::Code));
            }
        }
        let instead_of = match self.hub.line(&session.id) {
            None => None,
            Some(line) => {
                if line.answers(ToBridge::Ping.write(now.wall), PROBE_PATIENCE).await {
                    let text = "another bridge is connected to this pair session";
                    return Err(Problem::new(StatusCode::CONFLICT, "GATEWAY_ALREADY_CONNECTED", text));
                }
                Some(line.number)
            }
        };
        let reconnect = if has_secret { None } else { Some(code::reconnect()?) };
        let reconnect_hash = reconnect.as_ref().map(|secret| self.key.hash(Kind::Reconnect, &session.id, secret));
        Ok(Admitted { session, reconnect, reconnect_hash, instead_of, address })
    }

    /// Whether there is a session of this id, without asking the database: strangers may ask for as many as they like.
    pub(super) fn is_known(&self, session_id: &str) -> bool {
        self.hub.is_known(session_id)
    }

    /// Until when a session is to be extended whose bridge was heard; `None` where it is not.
    pub(super) fn extended(&self, created_at_ms: i64, expires_at_ms: i64, now_ms: i64) -> Option<i64> {
        if expires_at_ms.saturating_sub(now_ms) > NEARLY_OVER_MS {
            return None;
        }
        let last_ms = created_at_ms.saturating_add(ms(self.limits.max_life));
        Some(now_ms.saturating_add(EXTENSION_MS).min(last_ms)).filter(|until_ms| *until_ms > expires_at_ms)
    }

    async fn owned(&self, owner: &User, session_id: &str) -> Result<Session, Problem> {
        let id = session_id.to_owned();
        let session = self.db.read(move |db| Ok(records::find(db, &id)?)).await?.ok_or_else(Problem::not_found)?;
        if session.owner_user_id != owner.id {
            return Err(Problem::forbidden("this pair session is not yours"));
        }
        Ok(session)
    }

    fn stands(&self, session: Session) -> Standing {
        let ended = session.ended(moment::now_ms(self.clock));
        Standing {
            connected: ended.is_none() && self.hub.line(&session.id).is_some(),
            session_id: session.id,
            namespace: session.namespace,
            created_at_ms: session.created_at_ms,
            expires_at_ms: session.expires_at_ms,
            last_connected_at_ms: session.last_connected_at_ms,
            ended,
            name: session.name,
        }
    }
}

/// A handshake that is refused for good.
fn refusal(terminal: Terminal) -> Problem {
    let (status, text) = terminal.wire();
    let code = match terminal {
        Terminal::NotFound => "NOT_FOUND",
        Terminal::Ended => "PAIR_SESSION_ENDED",
        Terminal::Expired => "PAIR_SESSION_EXPIRED",
        Terminal::Namespace => "NAMESPACE_MISMATCH",
        Terminal::Code => "INVALID_PAIR_CODE",
    };
    Problem::new(StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN), code, text)
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;

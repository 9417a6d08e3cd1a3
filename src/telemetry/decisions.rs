//! One event per decision, and the counters behind the metrics.
//!
//! Envoy's access log has one line per request, with the decision's id, connection, caller and
//! reason. What is written here adds why a refusal was refused; allowed requests only where asked for.
//! Namespace and subject appear as fingerprints, addresses masked, and no query, header or body at all.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use sha2::Digest as _;
use sha2::Sha256;

use crate::domain::decision::Caller;
use crate::domain::decision::Denial;
use crate::domain::decision::DenyReason;
use crate::domain::hex;
use crate::domain::ids::PublicKey;
use crate::domain::log_redaction::LogRedactor;
use crate::domain::registration::Registration;
use crate::domain::registration::Submission;
use crate::domain::time::UnixMillis;
use crate::domain::time::UnixSeconds;
use crate::sys::random;
use crate::sys::random::RandomError;
use crate::sys::tasks::Stop;
use crate::telemetry::log_cleaning;

/// Refusals written per second, and as many warnings; a flood is counted, not described.
const MAX_PER_SECOND: u64 = 200;
/// Bytes waiting to be written. More means that standard error is stuck: further events are dropped.
const MAX_WAITING: usize = 1 << 20;
/// How often what waits is written.
const WRITE_EVERY: Duration = Duration::from_millis(100);
/// Longest path in an event, in bytes.
const MAX_PATH: usize = 256;
/// Longest word of the control plane in an event, in bytes.
const MAX_WORD: usize = 64;

/// What is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Nothing; the counters count.
    Off,
    /// Refusals.
    Denied,
    /// Every decision.
    All,
}

/// Makes an id per decision: unlike any other of this or another process, and cheap.
#[derive(Debug)]
pub struct DecisionIds {
    prefix: u64,
    next: AtomicU64,
}

impl DecisionIds {
    /// Draws the part that tells processes apart.
    pub fn new() -> Result<Self, RandomError> {
        Ok(Self { prefix: u64::from_be_bytes(random::bytes()?), next: AtomicU64::new(0) })
    }

    /// The next id, in the form of a UUID of version 8 (RFC 9562 section 5.8).
    pub fn next(&self) -> String {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let (first, second, third) = (self.prefix >> 32, self.prefix >> 16 & 0xffff, self.prefix & 0xfff);
        // Fourteen bits of variant and count, then the other 48: unique for 2^62 decisions.
        let (fourth, fifth) = (0x8000 | count >> 48 & 0x3fff, count & 0xffff_ffff_ffff);
        format!("{first:08x}-{second:04x}-8{third:03x}-{fourth:04x}-{fifth:012x}")
    }
}

/// What happened to one request.
#[derive(Debug, Clone, Copy)]
pub struct Decided<'a> {
    /// See [`DecisionIds`].
    pub decision_id: &'a str,
    /// When.
    pub at: UnixMillis,
    /// `head` or `body`.
    pub stage: &'static str,
    /// Envoy's id of the request.
    pub request_id: &'a str,
    /// As sent, at most a few letters.
    pub method: &'a [u8],
    /// The request target without query.
    pub path: &'a [u8],
    /// The client.
    pub client: Option<IpAddr>,
    /// The outcome.
    pub outcome: Outcome<'a>,
}

/// How it ended.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    /// Sent on, for this connection and caller.
    Allowed(&'a str, &'a Caller),
    /// Refused.
    Denied(&'a Denial),
}

/// What became of registering one refused caller with the control plane.
#[derive(Debug, Clone, Copy)]
pub struct ClaimSubmit<'a> {
    /// Of the refusal that began it.
    pub decision_id: &'a str,
    /// When it ended.
    pub at: UnixMillis,
    /// Connection id.
    pub connection: &'a str,
    /// The caller's.
    pub namespace: &'a str,
    /// The caller's.
    pub key: &'a PublicKey,
    /// How it ended.
    pub outcome: &'a Registration,
}

#[derive(Serialize)]
struct ClaimEvent<'a> {
    timestamp: String,
    level: &'static str,
    component: &'static str,
    kind: &'static str,
    event: &'static str,
    decision_id: &'a str,
    connection: &'a str,
    namespace: String,
    agent_key: String,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim_id: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    claim_status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<String>,
}

#[derive(Serialize)]
struct Event<'a> {
    timestamp: String,
    level: &'static str,
    component: &'static str,
    kind: &'static str,
    event: &'static str,
    decision: &'static str,
    decision_id: &'a str,
    /// Before or with the body.
    phase: &'static str,
    /// Which step of the authorization refused; absent where it was none of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature_code: Option<&'static str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    request_id: String,
    method: String,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_ip: Option<String>,
}

#[derive(Serialize)]
struct RotationEvent<'a> {
    timestamp: String,
    level: &'static str,
    component: &'static str,
    kind: &'static str,
    event: &'static str,
    decision_id: &'a str,
    connection: &'a str,
    next_rotation_due_at: String,
}

/// How many events of a kind a second has room for. Approximate between threads, which is enough.
#[derive(Debug, Default)]
struct Allowance {
    second: AtomicU64,
    taken: AtomicU64,
}

impl Allowance {
    fn take(&self, at: UnixMillis) -> bool {
        let second = at.0 / 1000;
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.taken.store(0, Ordering::Relaxed);
        }
        self.taken.fetch_add(1, Ordering::Relaxed) < MAX_PER_SECOND
    }
}

/// Counts decisions and writes them down.
#[derive(Debug)]
pub struct Decisions {
    level: Level,
    started_at: UnixMillis,
    allowed: AtomicU64,
    denied: Mutex<BTreeMap<&'static str, u64>>,
    refusals: Allowance,
    warnings: Allowance,
    dropped: AtomicU64,
    waiting: Mutex<Vec<u8>>,
    cleaner: Option<Arc<LogRedactor>>,
}

/// The counters, cumulative since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// When counting began.
    pub started_at: UnixMillis,
    /// Requests sent on.
    pub allowed: u64,
    /// Refusals by [`DenyReason::label`].
    pub denied: BTreeMap<&'static str, u64>,
}

impl Decisions {
    /// Counts from now on.
    pub fn new(level: Level, started_at: UnixMillis) -> Self {
        Self {
            level,
            started_at,
            allowed: AtomicU64::new(0),
            denied: Mutex::default(),
            refusals: Allowance::default(),
            warnings: Allowance::default(),
            dropped: AtomicU64::new(0),
            waiting: Mutex::default(),
            cleaner: None,
        }
    }

    /// The same, with events that are cleaned when they are written.
    #[must_use]
    pub fn cleaned_by(self, cleaner: Option<Arc<LogRedactor>>) -> Self {
        Self { cleaner, ..self }
    }

    /// Counts one decision, and keeps its event for the writer.
    pub fn record(&self, decided: &Decided<'_>) {
        self.count(decided.outcome);
        let wanted = match decided.outcome {
            Outcome::Allowed(..) => self.level == Level::All,
            Outcome::Denied(_) => self.level != Level::Off && self.admits(&self.refusals, decided.at),
        };
        if wanted {
            self.keep(&event(decided));
        }
    }

    /// Counts one decision that nobody needs to read of.
    pub fn count(&self, outcome: Outcome<'_>) {
        match outcome {
            Outcome::Allowed(..) => {
                self.allowed.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Denied(denial) => {
                let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
                let count = denied.entry(denial.reason.label()).or_default();
                *count = count.saturating_add(1);
            }
        }
    }

    /// The counters.
    pub fn counts(&self) -> Counts {
        Counts {
            started_at: self.started_at,
            allowed: self.allowed.load(Ordering::Relaxed),
            denied: self.denied.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Whether this second has room for another event of a kind.
    fn admits(&self, kind: &Allowance, at: UnixMillis) -> bool {
        let room = kind.take(at);
        if !room {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        room
    }

    /// Keeps the event of a request that was sent on although its connection's secret is overdue. Refusals have a
    /// bound of their own: that one connection is overdue must not hide them.
    pub fn record_rotation_warning(&self, decision_id: &str, at: UnixMillis, connection: &str, due: UnixSeconds) {
        if self.level != Level::Off && self.admits(&self.warnings, at) {
            self.keep(&RotationEvent {
                timestamp: at.rfc3339(),
                level: "WARN",
                component: "gateway",
                kind: "decision",
                event: "rotation_warning",
                decision_id,
                connection,
                next_rotation_due_at: due.rfc3339(),
            });
        }
    }

    /// Keeps the event of one registration, under the same bound as refusals.
    pub fn record_claim_submit(&self, submit: &ClaimSubmit<'_>) {
        if self.level != Level::Off && self.admits(&self.refusals, submit.at) {
            self.keep(&claim_event(submit));
        }
    }

    fn keep(&self, event: &impl Serialize) {
        let Ok(mut line) = serde_json::to_vec(event) else { return };
        line.push(b'\n');
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len().saturating_add(line.len()) > MAX_WAITING {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.extend_from_slice(&line);
    }

    /// Writes what waits to standard error until told to stop, and then the rest.
    pub async fn write(self: std::sync::Arc<Self>, mut stop: Stop) {
        loop {
            let stopped = tokio::select! {
                () = stop.wait() => true,
                () = tokio::time::sleep(WRITE_EVERY) => false,
            };
            let lines = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if !lines.is_empty() {
                // Standard error may be a pipe that nobody reads: not on a thread that decides.
                // Where it is closed there is nobody left to tell.
                let cleaner = self.cleaner.clone();
                let write = move || {
                    let lines = match cleaner {
                        Some(cleaner) => log_cleaning::lines(&cleaner, &lines),
                        None => lines,
                    };
                    std::io::stderr().lock().write_all(&lines)
                };
                let _ = tokio::task::spawn_blocking(write).await;
            }
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                tracing::warn!(dropped, "decision events were dropped; the counters have them");
            }
            if stopped {
                return;
            }
        }
    }
}

fn event<'a>(decided: &Decided<'a>) -> Event<'a> {
    let (decision, name, caller, connection, reason) = match decided.outcome {
        Outcome::Allowed(connection, caller) => ("allow", "request_allowed", Some(caller), Some(connection), None),
        Outcome::Denied(denial) => (
            "deny",
            if auth_stage(denial.reason).is_some() { "proxy_auth_denied" } else { "request_denied" },
            denial.caller.as_ref(),
            denial.connection.as_ref().map(|connection| connection.as_str()),
            Some(denial.reason),
        ),
    };
    Event {
        timestamp: decided.at.rfc3339(),
        level: "INFO",
        component: "gateway",
        kind: "decision",
        event: name,
        decision,
        decision_id: decided.decision_id,
        phase: decided.stage,
        stage: reason.and_then(auth_stage),
        reason_code: reason.map(DenyReason::label),
        signature_code: match reason {
            Some(DenyReason::SignatureInvalid(fault)) => Some(fault.code()),
            Some(_) | None => None,
        },
        request_id: shorten(decided.request_id.as_bytes(), MAX_PATH),
        method: shorten(decided.method, 16),
        path: shorten(decided.path, MAX_PATH),
        connection,
        namespace: caller.map(|caller| fingerprint(caller.namespace.as_str())),
        subject: caller.map(|caller| fingerprint(&caller.subject)),
        agent_key: caller.map(|caller| caller.key.fingerprint()),
        remote_ip: decided.client.map(mask),
    }
}

/// Which step of the authorization a reason belongs to, by the names the seed's log has for them.
const fn auth_stage(reason: DenyReason) -> Option<&'static str> {
    Some(match reason {
        DenyReason::HeadersInvalid | DenyReason::AuthorityNotAccepted => "header_validation",
        DenyReason::SignatureInvalid(_) | DenyReason::RateLimited => "signature_verification",
        DenyReason::SignedComponentsInvalid | DenyReason::BodyNotVisible => "component_validation",
        DenyReason::IdentityInvalid => "identity_extraction",
        DenyReason::NonceInvalid => "nonce_validation",
        DenyReason::ReplayDetected
        | DenyReason::ReplayWindowFull
        | DenyReason::ReplayWindowStarting
        | DenyReason::ReplayStoreUnavailable => "replay_detection",
        DenyReason::ClaimsLookupFailed => "claims_lookup",
        DenyReason::ClaimRequired | DenyReason::ClaimSubmitRateLimited => "claims_authorization",
        DenyReason::NotReady
        | DenyReason::MethodOrPathForbidden
        | DenyReason::Draining
        | DenyReason::RotationRequired
        | DenyReason::MethodNotAllowed
        | DenyReason::NotFound
        | DenyReason::PathInvalid
        | DenyReason::ConnectionUnknown
        | DenyReason::ConnectionDisabled
        | DenyReason::ConnectionUnusable
        | DenyReason::SecretsLost
        | DenyReason::ProtocolMismatch
        | DenyReason::BodyTooLarge
        | DenyReason::HeadersTooLarge
        | DenyReason::Unavailable => return None,
    })
}

fn claim_event<'a>(submit: &ClaimSubmit<'a>) -> ClaimEvent<'a> {
    let outcome = submit.outcome;
    let reason = match outcome.submission {
        Submission::Recorded => None,
        Submission::RateLimited => Some(DenyReason::ClaimSubmitRateLimited.label().to_owned()),
        Submission::ApiRejected if !outcome.code.is_empty() => Some(shorten(outcome.code.as_bytes(), MAX_WORD)),
        Submission::ApiRejected
        | Submission::NoResponse
        | Submission::FailedBeforeResponse
        | Submission::ForeignNamespace => Some("CLAIM_SUBMIT_FAILED".to_owned()),
    };
    ClaimEvent {
        timestamp: submit.at.rfc3339(),
        level: "INFO",
        component: "gateway",
        kind: "decision",
        event: "proxy_claim_submit",
        decision_id: submit.decision_id,
        connection: submit.connection,
        namespace: fingerprint(submit.namespace),
        agent_key: submit.key.fingerprint(),
        result: outcome.submission.word(),
        claim_id: (!outcome.claim_id.is_empty()).then(|| fingerprint(&outcome.claim_id)),
        claim_status: shorten(outcome.claim_status.as_bytes(), MAX_WORD),
        http_status: outcome.http_status,
        reason_code: reason,
    }
}

fn shorten(bytes: &[u8], limit: usize) -> String {
    let cut = bytes.get(..limit).unwrap_or(bytes);
    let mut text = String::from_utf8_lossy(cut).into_owned();
    if cut.len() < bytes.len() {
        text.push_str("...(truncated)");
    }
    text
}

/// `sha256:` and the first six bytes in hex: enough to tell names apart and to find a known one.
pub fn fingerprint(text: &str) -> String {
    format!("sha256:{}", hex::begin(&Sha256::digest(text.as_bytes()), 6))
}

/// The network an address is in: /24 for IPv4, /64 for IPv6.
pub fn mask(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [one, two, three, _] = address.octets();
            format!("{one}.{two}.{three}.0/24")
        }
        IpAddr::V6(address) => {
            let [one, two, three, four, ..] = address.segments();
            format!("{}/64", std::net::Ipv6Addr::new(one, two, three, four, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

    use std::collections::HashSet;

    use super::*;
    use crate::domain::decision::SignatureFault;
    use crate::domain::ids::Namespace;

    fn decided<'a>(outcome: Outcome<'a>, path: &'a [u8]) -> Decided<'a> {
        Decided {
            decision_id: "dec-1",
            at: UnixMillis(1_700_000_000_000),
            stage: "body",
            request_id: "req-1",
            method: b"POST",
            path,
            client: Some("192.0.2.77".parse().unwrap()),
            outcome,
        }
    }

    fn lines(decisions: &Decisions) -> Vec<serde_json::Value> {
        let waiting = decisions.waiting.lock().unwrap().clone();
        waiting
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    #[test]
    fn ids_differ_within_and_between_processes() {
        let (one, two) = (DecisionIds::new().unwrap(), DecisionIds::new().unwrap());
        let ids: HashSet<_> = (0..100).flat_map(|_| [one.next(), two.next()]).collect();
        assert_eq!(ids.len(), 200);
        assert!(ids.iter().all(|id| id.len() == 36 && id.as_bytes()[14] == b'8'), "{ids:?}");
    }

    #[test]
    fn an_event_names_callers_by_fingerprint_only() {
        let caller = Caller {
            namespace: Namespace::parse("acme-corp").unwrap(),
            subject: "alice@example.com".to_owned(),
            key: PublicKey::new([7; 32]),
            agent_id: None,
        };
        let decisions = Decisions::new(Level::All, UnixMillis(0));
        decisions.record(&decided(Outcome::Allowed("svc-one", &caller), b"/proxy/svc-one/a\"b\xff"));
        let shown = lines(&decisions).remove(0);
        assert_eq!(shown["decision"], "allow");
        assert_eq!(shown["connection"], "svc-one");
        assert_eq!(shown["namespace"], fingerprint("acme-corp"));
        assert_eq!(shown["remote_ip"], "192.0.2.0/24");
        let text = shown.to_string();
        assert!(!text.contains("acme") && !text.contains("alice"), "{text}");
    }

    #[test]
    fn refusals_say_why_and_are_counted() {
        let decisions = Decisions::new(Level::Denied, UnixMillis(5));
        let denial = Denial::from(DenyReason::SignatureInvalid(SignatureFault::KeyMismatch));
        let long = [b'a'; 1000];
        decisions.record(&decided(Outcome::Denied(&denial), &long));
        let shown = lines(&decisions).remove(0);
        assert_eq!(shown["reason_code"], "AUTH_SIGNATURE_INVALID");
        assert_eq!((&shown["event"], &shown["stage"]), (&"proxy_auth_denied".into(), &"signature_verification".into()));
        assert_eq!(shown["phase"], "body");
        assert_eq!(shown["signature_code"], "SIG_KEY_MISMATCH");
        assert_eq!(shown["path"].as_str().unwrap().len(), MAX_PATH + "...(truncated)".len());
        let counts = decisions.counts();
        assert_eq!((counts.allowed, counts.denied["AUTH_SIGNATURE_INVALID"]), (0, 1));
    }

    #[test]
    fn a_refusal_that_is_none_of_the_authorization_has_no_stage() {
        let decisions = Decisions::new(Level::Denied, UnixMillis(5));
        decisions.record(&decided(Outcome::Denied(&Denial::from(DenyReason::ConnectionUnknown)), b"/proxy/x/"));
        let shown = lines(&decisions).remove(0);
        assert_eq!((&shown["event"], shown.get("stage")), (&"request_denied".into(), None));
    }

    #[test]
    fn nothing_that_names_somebody_stands_in_any_event() {
        const CANARY: &str = "canary-3fa9";
        let caller = Caller {
            namespace: Namespace::parse(CANARY).unwrap(),
            subject: format!("{CANARY}@example.com"),
            key: PublicKey::new([7; 32]),
            agent_id: Some(CANARY.to_owned()),
        };
        let decisions = Decisions::new(Level::All, UnixMillis(0));
        let base = decided(Outcome::Allowed("svc-one", &caller), b"/proxy/svc-one/");
        let long = "i".repeat(1000);
        decisions.record(&Decided { request_id: &long, method: long.as_bytes(), ..base });
        let denial = Denial { caller: Some(caller.clone()), ..Denial::from(DenyReason::ClaimRequired) };
        let client = Some("2001:db8:1:2:3:4:5:6".parse().unwrap());
        decisions.record(&Decided { outcome: Outcome::Denied(&denial), client, ..base });
        let outcome = Registration {
            claim_id: CANARY.to_owned(),
            message: CANARY.to_owned(),
            ..Registration::unsent(Submission::Recorded, CANARY)
        };
        let namespace = caller.namespace.as_str();
        let (decision_id, at, connection, key) = ("dec-1", UnixMillis(5), "svc-one", &caller.key);
        decisions.record_claim_submit(&ClaimSubmit { decision_id, at, connection, namespace, key, outcome: &outcome });
        let shown = lines(&decisions);
        assert_eq!(shown.len(), 3);
        for event in &shown {
            let text = event.to_string();
            assert!(!text.contains(CANARY) && !text.contains(&caller.key.text()), "{text}");
            assert!(!text.contains("192.0.2.77") && !text.contains("2001:db8:1:2:3"), "{text}");
        }
        assert_eq!(shown[0]["request_id"].as_str().unwrap().len(), MAX_PATH + "...(truncated)".len());
        assert_eq!(
            (&shown[1]["remote_ip"], &shown[1]["stage"]),
            (&"2001:db8:1:2::/64".into(), &"claims_authorization".into())
        );
    }

    #[test]
    fn a_registration_is_told_without_naming_anybody() {
        let decisions = Decisions::new(Level::Denied, UnixMillis(0));
        let key = PublicKey::new([7; 32]);
        let told = |outcome: Registration| {
            let submit = ClaimSubmit {
                decision_id: "dec-1",
                at: UnixMillis(5),
                connection: "svc-one",
                namespace: "acme-corp",
                key: &key,
                outcome: &outcome,
            };
            decisions.record_claim_submit(&submit);
            lines(&decisions).pop().unwrap()
        };
        let recorded = Registration {
            http_status: Some(201),
            claim_id: "cl_secret".to_owned(),
            claim_status: "pending".to_owned(),
            message: "about acme-corp".to_owned(),
            ..Registration::unsent(Submission::Recorded, "")
        };
        let shown = told(recorded.clone());
        assert_eq!((&shown["event"], &shown["result"]), (&"proxy_claim_submit".into(), &"recorded".into()));
        assert_eq!((&shown["claim_status"], &shown["http_status"]), (&"pending".into(), &201.into()));
        assert_eq!(shown["claim_id"], fingerprint("cl_secret"));
        assert!(!shown.to_string().contains("acme") && !shown.to_string().contains("cl_secret"), "{shown}");
        assert!(shown.get("reason_code").is_none());
        let failed = Registration::unsent(Submission::FailedBeforeResponse, "no key");
        assert_eq!(told(failed)["reason_code"], "CLAIM_SUBMIT_FAILED");
        let limited = Registration::unsent(Submission::RateLimited, "");
        assert_eq!(told(limited)["reason_code"], "AUTH_CLAIM_SUBMIT_RATE_LIMITED");
        let refused = Registration { submission: Submission::ApiRejected, code: "FORBIDDEN".to_owned(), ..recorded };
        assert_eq!(told(refused)["reason_code"], "FORBIDDEN");
        let silent = Decisions::new(Level::Off, UnixMillis(0));
        let outcome = Registration::foreign();
        silent.record_claim_submit(&ClaimSubmit {
            decision_id: "dec-1",
            at: UnixMillis(5),
            connection: "svc-one",
            namespace: "acme-corp",
            key: &key,
            outcome: &outcome,
        });
        assert!(lines(&silent).is_empty());
    }

    #[test]
    fn an_overdue_secret_is_told_with_its_connection_and_hides_no_refusal() {
        let decisions = Decisions::new(Level::Denied, UnixMillis(0));
        for _ in 0..1000 {
            decisions.record_rotation_warning("dec-1", UnixMillis(5), "svc-one", UnixSeconds(1_700_000_000));
        }
        assert_eq!(lines(&decisions).len(), 200);
        let shown = lines(&decisions).remove(0);
        assert_eq!((&shown["event"], &shown["connection"]), (&"rotation_warning".into(), &"svc-one".into()));
        assert_eq!(shown["next_rotation_due_at"], "2023-11-14T22:13:20Z");
        let denial = Denial::from(DenyReason::RateLimited);
        decisions.record(&Decided { at: UnixMillis(5), ..decided(Outcome::Denied(&denial), b"/") });
        assert_eq!(lines(&decisions).len(), 201);
        let silent = Decisions::new(Level::Off, UnixMillis(0));
        silent.record_rotation_warning("dec-1", UnixMillis(5), "svc-one", UnixSeconds(0));
        assert!(lines(&silent).is_empty());
    }

    #[test]
    fn a_flood_is_counted_and_not_described() {
        let decisions = Decisions::new(Level::Denied, UnixMillis(0));
        let denial = Denial::from(DenyReason::RateLimited);
        for _ in 0..1000 {
            decisions.record(&decided(Outcome::Denied(&denial), b"/"));
        }
        assert_eq!(lines(&decisions).len(), 200);
        assert_eq!(decisions.counts().denied["AUTH_RATE_LIMITED"], 1000);
    }

    #[test]
    fn addresses_are_masked() {
        assert_eq!(mask("10.1.2.3".parse().unwrap()), "10.1.2.0/24");
        assert_eq!(mask("2001:db8:1:2:3:4:5:6".parse().unwrap()), "2001:db8:1:2::/64");
    }
}

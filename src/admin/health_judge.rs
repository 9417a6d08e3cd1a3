//! Readiness, judged: from what was found out to conditions with a reason each. No IO and no clock in here.
//!
//! A condition that cannot be asked about is unknown and keeps nobody from anything: the one that is the cause says why. So a
//! part that dies turns its own condition and no other.

use std::time::Duration;

use crate::admin::health_authz;
use crate::claims::overview;
use crate::store::unlock::KeyStanding;
use crate::sys::database::Hindrance;
use crate::telemetry::data_plane::Condition;
use crate::telemetry::data_plane::IN_SYNC;
use crate::wire::health::ConditionBody;
use crate::wire::health::ConditionKind;
use crate::wire::health::DRAINING;
use crate::wire::health::Requirement;
use crate::wire::health::Status;

/// How long an authz may take to apply what was published: each change of an approval is a version of its own, and the moment
/// between publishing and applying it is no reason to be taken out of service.
const APPLY_PATIENCE: Duration = Duration::from_secs(5);
/// A clock this far from the API's should be looked at, in seconds.
const SKEW_NOTED: u64 = 60;
/// A clock this far from the API's makes signatures too old or too new, in seconds: what a signature's age may be.
const SKEW_REFUSED: u64 = 300;
/// Below this the data folder is nearly full: the write-ahead log of a busy store and a day of logs fit in it.
const LOW_BYTES: u64 = 200 * 1024 * 1024;
/// Bytes of a MiB.
const MIB: u64 = 1024 * 1024;

/// The reason of `AuthzReachable` where nobody decides.
pub(super) const UNDECIDED: &str = "Unreachable";

/// What was found out about the gateway.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Whether the lock of the data folder still keeps others out.
    pub locked: bool,
    /// The store.
    pub store: StoreFact,
    /// How it stands with the master key; `None`: the store did not say.
    pub key: Option<KeyStanding>,
    /// The secrets of the configuration file.
    pub secrets: SecretsFact,
    /// The data plane.
    pub envoy: EnvoyFact,
    /// The authz processes.
    pub authz: AuthzFact,
    /// What became of an unsigned request.
    pub canary: CanaryFact,
    /// Until when a lease of a drain is held (RFC 3339); `None`: none is.
    pub draining: Option<String>,
    /// What Envoy was given, and the certificate of agents' connections.
    pub data_plane: Vec<Condition>,
    /// The claims; `None`: they have no source.
    pub claims: Option<overview::Condition>,
    /// Whether nothing passes any more for want of claims, and nothing is declared.
    pub nothing_holds: bool,
    /// The Sigilum API; `None`: it is not asked.
    pub api: Option<ApiFact>,
    /// Bytes free in the data folder; `None`: the system did not say.
    pub free_bytes: Option<u64>,
    /// The bridge.
    pub bridge: BridgeFact,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreFact {
    /// It answers, and nothing is known to keep changes from it.
    Well,
    /// It answers, and a change could not be written.
    Unwritable(Hindrance),
    /// It does not answer; why.
    Silent(String),
}

impl StoreFact {
    /// Whether it can be read.
    pub const fn answers(&self) -> bool {
        match self {
            Self::Well | Self::Unwritable(_) => true,
            Self::Silent(_) => false,
        }
    }
}

/// The secrets of the configuration file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SecretsFact {
    /// References in use.
    pub active: usize,
    /// References that were not resolved the last time.
    pub unresolved: usize,
    /// Number of the secrets in use.
    pub generation: u64,
    /// Whether those are not the newest.
    pub degraded: bool,
    /// Whether some are too old to be used.
    pub too_old: bool,
    /// Seconds since all were resolved.
    pub age: u64,
}

/// The data plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvoyFact {
    /// It is run by somebody else, and not asked.
    Elsewhere,
    /// It does not answer.
    Down {
        /// Whether it was live since this process began.
        was_live: bool,
        /// What was said instead.
        why: String,
    },
    /// It answers.
    Answers {
        /// `LIVE`, `DRAINING`, `PRE_INITIALIZING` or `INITIALIZING`.
        state: String,
        /// Its version, such as `1.40.0`.
        version: String,
    },
}

impl EnvoyFact {
    /// Whether it serves.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Answers { state, .. } if state == "LIVE")
    }
}

/// The authz processes whose word readiness goes by, as the state stream tells; and what is only told of others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthzFact {
    /// How many are connected.
    pub connected: usize,
    /// How many of them have applied what is published.
    pub current: usize,
    /// How many of those would decide a request signed now.
    pub ready: usize,
    /// Whether one was current since this process began.
    pub ever_current: bool,
    /// For how long none has been current, while one was connected.
    pub behind_for: Duration,
    /// Why one would not have what it was sent.
    pub refused: Option<String>,
    /// One that cannot write admissions down.
    pub failing: Option<String>,
    /// It is for want of room on its volume.
    pub volume_full: bool,
    /// Whether what was signed before they began is refused.
    pub starting: bool,
    /// Whether the window that replicas share cannot be asked.
    pub store_failing: bool,
    /// Why one was refused for having another replay window than one that decides for the same connection.
    pub window_conflict: Option<String>,
    /// Whether the replay window is full.
    pub full: bool,
    /// Whether one has told how it stands.
    pub reported: bool,
    /// How many of other hosts are connected, counted above or not.
    pub remote: usize,
    /// Of those the ones that say of themselves that something is wrong.
    pub troubles: Vec<Trouble>,
    /// Whether one of another host is connected, or was until its certificate ended.
    pub certified: bool,
    /// Of those the ones whose certificates near their end, or are past it.
    pub endings: Vec<Ending>,
}

/// What an authz of another host says is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The authz.
    pub node: String,
    /// One word for programs.
    pub reason: &'static str,
    /// The same for people, after its name.
    pub said: String,
}

/// A certificate that somebody should look after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The authz that shows it.
    pub node: String,
    /// How its end stands to now: `ends in 3 days (…)`.
    pub said: String,
    /// Whether it has ended, and the authz is without admin for it.
    pub cut_off: bool,
}

/// What became of an unsigned request through Envoy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CanaryFact {
    /// Envoy is elsewhere.
    Elsewhere,
    /// There is no Envoy to send it through.
    NoEnvoy,
    /// It was refused by authz, as it should be, within so many milliseconds.
    Refused(u64),
    /// It was not sent, because agents need a certificate there; Envoy says that authz is healthy.
    Healthy,
    /// Nobody decided in time.
    Undecided(String),
    /// It was let through.
    LetThrough(String),
}

/// The Sigilum API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiFact {
    /// It was not asked yet.
    Asking,
    /// It answers; the seconds our clock is ahead of its, where it said the time.
    Answers(Option<i64>),
    /// Nobody answers.
    Unreachable(String),
    /// Certificates.
    Tls(String),
    /// Something else answers: a page for people, a redirect.
    NotTheApi(String),
}

/// The bridge of a pairing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BridgeFact {
    /// None is in use.
    Off,
    /// It is connected.
    Connected,
    /// It tries to connect.
    Connecting,
    /// Its session is over.
    Terminal,
    /// Its process ended without a word.
    Gone,
}

/// All conditions, in a fixed order.
pub fn judge(facts: &Facts) -> Vec<ConditionBody> {
    let mut all = vec![
        lock(facts.locked),
        store(&facts.store),
        master_key(facts),
        secrets(facts.secrets),
        envoy(&facts.envoy, facts.draining.is_some()),
        stream(&facts.authz),
    ];
    all.extend(facts.data_plane.iter().filter(|found| found.kind == IN_SYNC).map(told));
    all.extend([
        authz(&facts.canary, facts.draining.as_deref()),
        nonces(&facts.authz),
        replay_shared(&facts.authz),
        claims(facts.claims.as_ref(), facts.nothing_holds),
        api(facts.api.as_ref()),
        clock(facts.api.as_ref()),
        disk(facts.free_bytes),
        bridge(&facts.bridge),
    ]);
    all.extend(facts.data_plane.iter().filter(|found| found.kind != IN_SYNC).map(told));
    all.extend(health_authz::state_certificates(&facts.authz));
    all.extend(health_authz::remote_authz(&facts.authz));
    all
}

pub(super) fn condition(
    kind: ConditionKind,
    subject: &str,
    (status, requirement): (Status, Requirement),
    reason: &str,
    message: impl Into<String>,
) -> ConditionBody {
    ConditionBody {
        kind: kind.name().to_owned(),
        subject_ref: subject.to_owned(),
        status,
        requirement,
        reason: reason.to_owned(),
        message: message.into(),
    }
}

const HOLDS: (Status, Requirement) = (Status::True, Requirement::Required);
const FAILS: (Status, Requirement) = (Status::False, Requirement::Required);
pub(super) const WELL: (Status, Requirement) = (Status::True, Requirement::Advisory);
pub(super) const NOTED: (Status, Requirement) = (Status::False, Requirement::Advisory);
const UNKNOWN: (Status, Requirement) = (Status::Unknown, Requirement::Advisory);

fn lock(locked: bool) -> ConditionBody {
    let kind = ConditionKind::StateLock;
    if locked {
        return condition(kind, "store", HOLDS, "Held", "this process alone uses the data folder");
    }
    let message = "the lock file of the data folder was removed or replaced: another gateway could use the same store";
    condition(kind, "store", FAILS, "LockHeldElsewhere", message)
}

fn store(store: &StoreFact) -> ConditionBody {
    let kind = ConditionKind::Store;
    match store {
        StoreFact::Well => condition(kind, "store", HOLDS, "Open", "the store answers"),
        // No request of an agent needs a change.
        StoreFact::Unwritable(Hindrance::Full) => {
            let message = "the disk of the store is full: changes are refused, requests of agents go on";
            condition(kind, "store", NOTED, "DiskFull", message)
        }
        StoreFact::Unwritable(Hindrance::Other) => {
            let message =
                "the store cannot be written: changes are refused, requests of agents go on; see the log of admin";
            condition(kind, "store", NOTED, "ReadOnly", message)
        }
        StoreFact::Silent(why) => condition(kind, "store", FAILS, "StoreUnavailable", why.clone()),
    }
}

fn master_key(facts: &Facts) -> ConditionBody {
    let kind = ConditionKind::MasterKey;
    match facts.key {
        None => condition(kind, "store", UNKNOWN, "StoreUnavailable", "the store does not say"),
        Some(KeyStanding::Opens) => condition(kind, "store", HOLDS, "Opens", "the master key opens the store"),
        Some(KeyStanding::Mismatch) => {
            let message = "the store's proof of the master key does not open with the key in use: put the key back the \
                           store was sealed with, or restore a backup";
            condition(kind, "store", FAILS, "KeyMismatch", message)
        }
        // Nothing that is in use is lost yet, so nobody is turned away for it.
        Some(KeyStanding::FileMissing) => {
            let message =
                "the file of the master key is gone: the gateway serves on, and will not start again without it";
            condition(kind, "store", NOTED, "KeyMissing", message)
        }
    }
}

/// The last good secrets serve on, so this makes nobody unready.
fn secrets(told: SecretsFact) -> ConditionBody {
    let kind = ConditionKind::SecretsSnapshot;
    let SecretsFact { active, unresolved, generation, degraded, too_old, age } = told;
    if active == 0 {
        return condition(kind, "secrets", WELL, "Resolved", "the configuration file refers to no secret");
    }
    match (degraded, too_old) {
        (false, _) => condition(kind, "secrets", WELL, "Resolved", format!("generation {generation}, {age} s old")),
        (true, false) => {
            let message = format!("{unresolved} references cannot be resolved; secrets of {age} s ago are in use");
            condition(kind, "secrets", WELL, "Degraded", message)
        }
        (true, true) => {
            let message =
                format!("{unresolved} references cannot be resolved for {age} s; their connections are closed");
            condition(kind, "secrets", NOTED, "TooStale", message)
        }
    }
}

fn envoy(fact: &EnvoyFact, draining: bool) -> ConditionBody {
    let kind = ConditionKind::EnvoyLive;
    match fact {
        EnvoyFact::Elsewhere => condition(
            kind,
            "envoy",
            UNKNOWN,
            "Elsewhere",
            "Envoy is not run by this gateway; ask it at /health on its port",
        ),
        EnvoyFact::Answers { version, .. } if fact.is_live() => {
            condition(kind, "envoy", HOLDS, "Live", format!("Envoy {version} is live"))
        }
        EnvoyFact::Answers { state, .. } if state == "DRAINING" => {
            // Where a lease is held, authz says so, and until when.
            let status = if draining { HOLDS } else { FAILS };
            condition(kind, "envoy", status, "Draining", "Envoy finishes what is open and takes nothing new")
        }
        EnvoyFact::Answers { state, .. } => {
            condition(kind, "envoy", FAILS, "NotStarted", format!("Envoy starts ({state})"))
        }
        EnvoyFact::Down { was_live: true, why } => {
            condition(kind, "envoy", FAILS, "Crashed", format!("envoy not live: {why}; see the log of envoy"))
        }
        EnvoyFact::Down { was_live: false, why } => {
            condition(kind, "envoy", FAILS, "NotStarted", format!("envoy not live: {why}"))
        }
    }
}

fn stream(fact: &AuthzFact) -> ConditionBody {
    let kind = ConditionKind::XdsInSync;
    if fact.connected == 0 {
        return condition(kind, "authz", FAILS, "NotConnected", "no authz process is connected");
    }
    if let Some(why) = fact.refused.as_ref().filter(|_| fact.current == 0) {
        return condition(kind, "authz", FAILS, "Nack", format!("an authz would not have what it was sent: {why}"));
    }
    if fact.current == 0 && !fact.ever_current {
        let message = "no authz process has applied the current state yet";
        return condition(kind, "authz", FAILS, "NotApplied", message);
    }
    if fact.current == 0 && fact.behind_for >= APPLY_PATIENCE {
        return condition(
            kind,
            "authz",
            FAILS,
            "AckTimeout",
            format!("no authz process has applied the current state for {} s", fact.behind_for.as_secs()),
        );
    }
    // Why else it is not ready is said of its nonces.
    if fact.current > 0 && fact.reported && fact.ready == 0 && !fact.starting && fact.failing.is_none() {
        return condition(kind, "authz", FAILS, "NotReady", "no authz process is ready yet");
    }
    condition(kind, "authz", HOLDS, "InSync", format!("{} of {} authz are current", fact.current, fact.connected))
}

fn told(found: &Condition) -> ConditionBody {
    // An Envoy that goes on with the configuration or the certificate it had serves.
    ConditionBody {
        kind: found.kind.to_owned(),
        subject_ref: "envoy".to_owned(),
        status: if found.holds { Status::True } else { Status::False },
        requirement: Requirement::Advisory,
        reason: found.reason.to_owned(),
        message: found.message.clone(),
    }
}

fn authz(fact: &CanaryFact, draining: Option<&str>) -> ConditionBody {
    let kind = ConditionKind::AuthzReachable;
    if let (Some(until), false) = (draining, matches!(fact, CanaryFact::LetThrough(_))) {
        let message =
            format!("draining until {until}: new requests are refused; `sigilum gateway undrain --all` ends it");
        // Where Envoy is elsewhere, readiness says whether admin serves the authz of other hosts, which it does.
        let status = if *fact == CanaryFact::Elsewhere { NOTED } else { FAILS };
        return condition(kind, "authz", status, DRAINING, message);
    }
    match fact {
        CanaryFact::Elsewhere => condition(kind, "authz", UNKNOWN, "Elsewhere", "Envoy is not run by this gateway"),
        CanaryFact::NoEnvoy => condition(kind, "authz", UNKNOWN, "NoEnvoy", "there is no live Envoy to ask through"),
        CanaryFact::Refused(ms) => {
            condition(kind, "authz", HOLDS, "FailsClosed", format!("an unsigned request was refused within {ms} ms"))
        }
        CanaryFact::Healthy => {
            let message = "Envoy says that authz is healthy; agents need a certificate, so no request was tried";
            condition(kind, "authz", HOLDS, "Healthy", message)
        }
        CanaryFact::Undecided(why) => {
            condition(kind, "authz", FAILS, UNDECIDED, format!("authz unreachable (failing closed): {why}"))
        }
        CanaryFact::LetThrough(what) => {
            let message = format!(
                "an unsigned request was let through ({what}): stop the gateway now, and look at what answers on its port"
            );
            condition(kind, "authz", FAILS, "FailedOpen", message)
        }
    }
}

fn nonces(fact: &AuthzFact) -> ConditionBody {
    let kind = ConditionKind::NonceStore;
    if !fact.reported {
        return condition(kind, "authz", UNKNOWN, "NotReported", "no authz has told how it stands");
    }
    if fact.store_failing {
        let message = "the replay window that replicas share cannot be asked: signed requests are refused; see the log of \
                       authz, and replay.shared.url";
        return condition(kind, "authz", FAILS, "StoreUnreachable", message);
    }
    if let Some(node) = &fact.failing {
        // Another that is ready serves on, and wants an admin that is.
        let status = if fact.ready > 0 { NOTED } else { FAILS };
        let (reason, why) = if fact.volume_full {
            ("VolumeFull", "the volume of its run folder is full")
        } else {
            ("ReadOnly", "look at its run folder and its log")
        };
        let message = format!("{node} cannot write admissions down, and refuses every signed request: {why}");
        return condition(kind, "authz", status, reason, message);
    }
    if fact.full {
        let message =
            "the replay window is full: signed requests are refused until entries expire; see replay.capacity";
        return condition(kind, "authz", FAILS, "Full", message);
    }
    if fact.starting {
        let message =
            "without a journal of an earlier authz, what was signed before this one began is refused for some seconds";
        return condition(kind, "authz", FAILS, "Starting", message);
    }
    condition(kind, "authz", HOLDS, "Writable", "admissions are written down, and there is room")
}

/// Whoever was refused is not ready itself; the others serve on.
fn replay_shared(fact: &AuthzFact) -> ConditionBody {
    let kind = ConditionKind::ReplayShared;
    match &fact.window_conflict {
        Some(why) => condition(kind, "authz", NOTED, "SeveralWindows", why.clone()),
        None => condition(
            kind,
            "authz",
            WELL,
            "One",
            "every authz that decides for the same connection has one replay window",
        ),
    }
}

/// Stale claims do not make the gateway unready while anything passes: declared approvals go on, each request is judged by its
/// own, and taking the gateway out of service would turn away those too. Where nothing passes it serves nobody.
fn claims(fact: Option<&overview::Condition>, nothing_holds: bool) -> ConditionBody {
    let kind = ConditionKind::ClaimsFresh;
    match fact {
        None => condition(kind, "claims", UNKNOWN, "NotAsked", "approvals come from the configuration file alone"),
        Some(judged) if judged.fresh => condition(kind, "claims", WELL, judged.reason, judged.message.clone()),
        Some(judged) if nothing_holds => {
            let message = format!("no request passes any more: {}", judged.message);
            condition(kind, "claims", FAILS, judged.reason, message)
        }
        Some(judged) => condition(kind, "claims", NOTED, judged.reason, judged.message.clone()),
    }
}

/// Whether the Sigilum API answers; `None`: it is not asked.
pub fn api(fact: Option<&ApiFact>) -> ConditionBody {
    let kind = ConditionKind::ApiReachable;
    let bad = |reason: &str, message: String| condition(kind, "api", NOTED, reason, message);
    match fact {
        None => condition(kind, "api", UNKNOWN, "NotAsked", "this gateway does not ask the Sigilum API"),
        Some(ApiFact::Asking) => condition(kind, "api", UNKNOWN, "NotAsked", "it has not been asked yet"),
        Some(ApiFact::Answers(_)) => condition(kind, "api", WELL, "Answers", "the Sigilum API answers"),
        Some(ApiFact::Unreachable(why)) => bad("Unreachable", format!("the Sigilum API cannot be reached: {why}")),
        Some(ApiFact::Tls(why)) => bad("TlsError", format!("the Sigilum API's certificate is not believed: {why}")),
        Some(ApiFact::NotTheApi(what)) => {
            bad("HtmlInsteadOfApi", format!("what answers is no Sigilum API ({what}); check SIGILUM_API_URL"))
        }
    }
}

/// Whether the clock agrees with the API's.
pub fn clock(fact: Option<&ApiFact>) -> ConditionBody {
    let kind = ConditionKind::ClockSane;
    let Some(ApiFact::Answers(Some(ahead))) = fact else {
        return condition(kind, "host", UNKNOWN, "NotMeasured", "the Sigilum API has not said what time it is");
    };
    let (off, way) = (ahead.unsigned_abs(), if *ahead < 0 { "behind" } else { "ahead of" });
    if off <= SKEW_NOTED {
        return condition(kind, "host", WELL, "InSync", format!("the clock is within {off} s of the Sigilum API's"));
    }
    let message = format!("clock skew {off} s: this machine is {way} the Sigilum API; let NTP set the clock");
    condition(kind, "host", if off > SKEW_REFUSED { FAILS } else { NOTED }, "Skewed", message)
}

/// Whether there is room in the data folder, by the bytes that are free; `None`: the system does not say.
pub fn disk(free: Option<u64>) -> ConditionBody {
    let kind = ConditionKind::DiskSpace;
    match free {
        None => condition(kind, "host", UNKNOWN, "NotMeasured", "the system does not say how much room is left"),
        Some(free) if free < LOW_BYTES => {
            let message = format!("only {} MiB are left in the data folder", free / MIB);
            condition(kind, "host", NOTED, "Low", message)
        }
        Some(free) => {
            condition(kind, "host", WELL, "Enough", format!("{} MiB are left in the data folder", free / MIB))
        }
    }
}

/// Whether the bridge of a pairing is connected.
pub fn bridge(fact: &BridgeFact) -> ConditionBody {
    let kind = ConditionKind::PairBridge;
    match fact {
        BridgeFact::Off => condition(kind, "bridge", UNKNOWN, "Off", "no pairing is in use"),
        BridgeFact::Connected => condition(kind, "bridge", WELL, "Connected", "the bridge is connected"),
        BridgeFact::Connecting => {
            condition(kind, "bridge", NOTED, "Connecting", "the bridge tries to reach the Sigilum API")
        }
        BridgeFact::Terminal => {
            let message = "pair session expired: start another pairing in the dashboard and run its command";
            condition(kind, "bridge", NOTED, "Terminal", message)
        }
        BridgeFact::Gone => {
            let message = "the bridge's process has ended; run `sigilum gateway pair` again";
            condition(kind, "bridge", NOTED, "Connecting", message)
        }
    }
}

#[cfg(test)]
#[path = "health_judge_tests.rs"]
mod tests;

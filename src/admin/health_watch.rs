//! Finds out at a fixed pace how it stands with the gateway, and keeps the answer: whoever asks for readiness is told what
//! was found last, which costs nothing.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::Request;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admin::Admin;
use crate::admin::health_api::ApiWatch;
use crate::admin::health_authz;
use crate::admin::health_authz::Counted;
use crate::admin::health_canary;
use crate::admin::health_canary::Canaries;
use crate::admin::health_judge;
use crate::admin::health_judge::AuthzFact;
use crate::admin::health_judge::BridgeFact;
use crate::admin::health_judge::CanaryFact;
use crate::admin::health_judge::Ending;
use crate::admin::health_judge::EnvoyFact;
use crate::admin::health_judge::Facts;
use crate::admin::health_judge::SecretsFact;
use crate::admin::health_judge::StoreFact;
use crate::claims::overview;
use crate::claims::overview::Holding;
use crate::config::parts::IngressTls;
use crate::domain::time::MonotonicMillis;
use crate::domain::time::UnixSeconds;
use crate::domain::validity::Validity;
use crate::state::PeerState;
use crate::store::StoreError;
use crate::store::unlock::KeyStanding;
use crate::store::vault::Vault;
use crate::sys::clock::Clock as _;
use crate::sys::files;
use crate::sys::files::LockWatch;
use crate::sys::local_http::Endpoint;
use crate::sys::local_http::exchange;
use crate::sys::process::ProcessIdentity;
use crate::sys::tasks::Stop;
use crate::wire::health::ConditionBody;
use crate::wire::health::ConditionKind;
use crate::wire::health::DetailsBody;
use crate::wire::status::BRIDGE_FILE;
use crate::wire::status::BridgeNote;

/// Between two looks: an Envoy that was killed is away for at least as long as its restart waits, so each of its deaths is
/// seen.
const PACE: Duration = Duration::from_millis(500);
/// The same until the gateway is ready for the first time: somebody waits for it.
const FIRST_PACE: Duration = Duration::from_millis(50);
/// For how long the first pace is kept.
const FIRST_MINUTE: u64 = 60_000;
/// Between two canaries, while they are refused and Envoy says that authz is healthy.
const CANARY_EVERY: Duration = Duration::from_secs(10);
/// How long the store may take to say that it is there.
const STORE_PATIENCE: Duration = Duration::from_secs(2);
/// How long Envoy may take to say how it stands.
const ENVOY_PATIENCE: Duration = Duration::from_millis(500);
/// How long the Sigilum API may take where somebody asks for a fresh look.
const API_PATIENCE: Duration = Duration::from_secs(2);
/// How long a fresh look may take in all.
const FRESH_PATIENCE: Duration = Duration::from_secs(8);
/// What was found longer ago than this is not told: whoever should look does not.
const STALE_MS: u64 = 10_000;
/// Where Envoy's admin interface says how many of its one authz are healthy (`cluster.authz.membership_healthy`).
pub const AUTHZ_HEALTHY: &str = "/stats?filter=%5Ecluster%5C.authz%5C.membership_healthy%24";
/// How that answer ends where it is.
pub const ONE_HEALTHY: &[u8] = b": 1\n";
/// How long a session that is over is told of, in seconds: whoever has not paired again by then does not want to.
const TERMINAL_SECONDS: u64 = 24 * 3600;
/// Longest note of a bridge, in bytes.
const MAX_NOTE: u64 = 4096;

/// Where the parts are that are looked at.
#[derive(Debug)]
pub struct Places {
    /// The lock of the data folder.
    pub lock: LockWatch,
    /// The data folder.
    pub data_dir: PathBuf,
    /// Where a bridge writes down how it stands.
    pub run_dir: PathBuf,
    /// Whether this gateway runs its Envoy; else nobody asks it.
    pub own_envoy: bool,
    /// The Sigilum API; `None`: it is not asked.
    pub api: Option<String>,
}

/// What was found last, and how to have it found again.
#[derive(Debug)]
pub struct Health {
    /// Names this life of the process.
    pub instance_id: String,
    /// TLS on the port of agents, as Envoy has it now.
    pub ingress_tls: ArcSwapOption<IngressTls>,
    places: Places,
    canaries: Arc<Canaries>,
    api: ApiWatch,
    began: MonotonicMillis,
    asked: AtomicU64,
    ask: Notify,
    latest: watch::Sender<Option<Arc<Evaluated>>>,
}

/// One look at everything.
#[derive(Debug)]
pub struct Evaluated {
    /// The conditions.
    pub details: DetailsBody,
    /// What they were judged from.
    pub facts: Facts,
    /// How often Envoy was seen to have started anew.
    pub envoy_restarts: u64,
    at: MonotonicMillis,
    /// The last question this is an answer to.
    answers: u64,
}

/// How far two calculations of the second in which Envoy began may lie apart.
const ROUNDING: u64 = 1;

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
struct Memory {
    /// When Envoy began, in seconds of our monotonic clock, by the uptime it told last; `None`: it was never live.
    began: Option<u64>,
    restarts: u64,
    ever_current: bool,
    current_at: Option<Instant>,
    canary: Option<(Instant, CanaryFact)>,
    was_ready: bool,
    /// Since when no request passes, because no claims hold and nothing is declared.
    unheld_since: Option<MonotonicMillis>,
    /// The conditions as the log knows them.
    said: Vec<ConditionBody>,
}

/// What is read of Envoy's `/server_info`.
#[derive(Debug, Deserialize)]
struct ServerInfo {
    /// `hash/1.40.0/Clean/RELEASE/BoringSSL`.
    version: String,
    /// `LIVE`, `DRAINING`, …
    state: String,
    /// `12s`.
    uptime_current_epoch: String,
}

impl Health {
    /// Nothing is known yet.
    pub fn new(places: Places, canaries: Arc<Canaries>, instance_id: String, began: MonotonicMillis) -> Self {
        let api = ApiWatch::new(places.api.as_deref());
        let (ingress_tls, ask) = (ArcSwapOption::empty(), Notify::new());
        let latest = watch::channel(None).0;
        Self { instance_id, ingress_tls, places, canaries, api, began, asked: AtomicU64::new(0), ask, latest }
    }

    /// How long this process has been running, in milliseconds.
    pub fn uptime_ms(&self, now: MonotonicMillis) -> u64 {
        now.since(self.began)
    }

    /// Whether this gateway runs its Envoy.
    pub const fn own_envoy(&self) -> bool {
        self.places.own_envoy
    }

    /// What was found last; `None` where nothing was yet, or not lately.
    pub fn latest(&self, now: MonotonicMillis) -> Option<Arc<Evaluated>> {
        let latest = self.latest.borrow().clone();
        latest.filter(|found| now.since(found.at) < STALE_MS)
    }

    /// Has it looked at what is cheap to look at now and not in a moment: something was changed.
    pub fn look_soon(&self) {
        self.ask.notify_one();
    }

    /// Has everything looked at anew, and returns what was found then; `None` where that took too long.
    pub async fn fresh(&self) -> Option<Arc<Evaluated>> {
        let mut latest = self.latest.subscribe();
        let question = self.asked.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        self.ask.notify_one();
        let answered = |found: &Option<Arc<Evaluated>>| found.as_ref().is_some_and(|found| found.answers >= question);
        let found = tokio::time::timeout(FRESH_PATIENCE, latest.wait_for(answered)).await.ok()?.ok()?;
        found.clone()
    }
}

/// Looks until told to stop.
pub async fn run(admin: Arc<Admin>, mut stop: Stop) {
    let looks = async {
        let mut memory = Memory::default();
        loop {
            look(&admin, &mut memory).await;
            let early = admin.health.uptime_ms(admin.clock.now().monotonic) < FIRST_MINUTE;
            let pace = if early && !memory.was_ready { FIRST_PACE } else { PACE };
            tokio::select! {
                () = tokio::time::sleep(pace) => {}
                () = admin.health.ask.notified() => {}
            }
        }
    };
    tokio::select! {
        () = stop.wait() => {}
        () = looks => {}
        () = admin.health.api.run() => {}
    }
}

async fn look(admin: &Admin, memory: &mut Memory) {
    let health = &admin.health;
    let question = health.asked.load(Ordering::SeqCst);
    let thorough = health.latest.borrow().as_ref().is_none_or(|found| found.answers < question);
    if thorough && question > 0 {
        memory.canary = None;
        health.api.refresh(API_PATIENCE).await;
    }
    let (store, (envoy, canary), disk) = tokio::join!(store(admin), data_plane(admin, memory), on_disk(admin));
    let ((store, key), (locked, free_bytes, bridge)) = (store, disk);
    let told = admin.reload.secrets();
    let (generation, degraded, too_old, age) = admin.reload.snapshot();
    let facts = Facts {
        locked,
        store,
        key,
        secrets: SecretsFact {
            active: told.refs.active,
            unresolved: told.unresolved.len(),
            generation,
            degraded,
            too_old,
            age,
        },
        envoy,
        authz: authz(admin, memory),
        canary,
        draining: admin.drain.until(admin.clock.now().wall),
        data_plane: admin.metrics.data_plane().conditions(),
        claims: admin
            .claims
            .as_ref()
            .map(|claims| claims.overview.judge(&admin.publisher.claims_ages(), claims.late_ms())),
        nothing_holds: nothing_holds(admin, memory),
        api: health.api.fact(),
        free_bytes,
        bridge,
    };
    let now = admin.clock.now();
    let uptime = health.uptime_ms(now.monotonic);
    let details = DetailsBody::of(health_judge::judge(&facts), now.wall.rfc3339(), uptime);
    // A start is no news; one that does not come to an end is.
    let starting = !memory.was_ready && uptime < FIRST_MINUTE;
    memory.was_ready |= details.is_ready();
    if !starting {
        say_what_changed(&memory.said, &details.conditions);
        memory.said.clone_from(&details.conditions);
    }
    let envoy_restarts = memory.restarts;
    let found = Evaluated { details, facts, envoy_restarts, at: now.monotonic, answers: question };
    health.latest.send_replace(Some(Arc::new(found)));
}

/// What is said of a condition that has no words of its own.
const FAILS: &str = "a condition of readiness fails";
/// The same of one that keeps nobody from anything.
const HOLDS_NOT: &str = "a condition does not hold";

/// The words by which a line about this reason is found ([`crate::domain::symptom`]).
fn named(condition: &ConditionBody) -> Option<&'static str> {
    let is = |kind: ConditionKind, reason| condition.kind == kind.name() && condition.reason == reason;
    if is(ConditionKind::AuthzReachable, health_judge::UNDECIDED) {
        Some("authz failing closed")
    } else if is(ConditionKind::ClaimsFresh, overview::STALE) {
        Some("claims stale")
    } else {
        None
    }
}

/// One line for each condition that turned, with the reason as its code.
fn say_what_changed(before: &[ConditionBody], now: &[ConditionBody]) {
    for condition in now {
        let same = |other: &&ConditionBody| other.kind == condition.kind && other.subject_ref == condition.subject_ref;
        let known = before.iter().find(same);
        if known.is_some_and(|known| known.status == condition.status && known.reason == condition.reason) {
            continue;
        }
        let (kind, code, message) = (&condition.kind, &condition.reason, &condition.message);
        if condition.is_failure() {
            tracing::error!(condition = kind, code, detail = message, "{}", named(condition).unwrap_or(FAILS));
        } else if condition.is_advisory() {
            tracing::warn!(condition = kind, code, detail = message, "{}", named(condition).unwrap_or(HOLDS_NOT));
        } else if known.is_some_and(|known| known.is_failure() || known.is_advisory()) {
            tracing::info!(condition = kind, code, detail = message, "a condition holds again");
        }
    }
}

async fn store(admin: &Admin) -> (StoreFact, Option<KeyStanding>) {
    let asked = async {
        let read = |vault: &Vault| {
            vault.ping()?;
            vault.key_standing()
        };
        let key = admin.store.read(read).await?;
        Ok::<_, StoreError>((key, admin.store.hindrance().await))
    };
    match tokio::time::timeout(STORE_PATIENCE, asked).await {
        Ok(Ok((key, None))) => (StoreFact::Well, Some(key)),
        Ok(Ok((key, Some(hindrance)))) => (StoreFact::Unwritable(hindrance), Some(key)),
        Ok(Err(error)) => (StoreFact::Silent(format!("the store does not answer: {error}")), None),
        Err(_) => (StoreFact::Silent("the store does not answer in time".to_owned()), None),
    }
}

/// Lock, free bytes, bridge: files, which a slow disk may keep from us.
async fn on_disk(admin: &Admin) -> (bool, Option<u64>, BridgeFact) {
    let places = &admin.health.places;
    let (lock, data_dir, run_dir) = (places.lock.clone(), places.data_dir.clone(), places.run_dir.clone());
    let now = admin.clock.now().seconds();
    let looked = tokio::task::spawn_blocking(move || {
        (lock.is_in_place(), files::free_bytes(&data_dir).ok(), bridge(&run_dir, now))
    });
    looked.await.unwrap_or((false, None, BridgeFact::Off))
}

/// What a bridge wrote down of itself in the run folder.
pub fn bridge(run_dir: &Path, now: UnixSeconds) -> BridgeFact {
    let Ok(text) = files::read_text(&run_dir.join(BRIDGE_FILE), MAX_NOTE) else { return BridgeFact::Off };
    let Ok(note) = serde_json::from_str::<BridgeNote>(&text) else { return BridgeFact::Off };
    let lives = ProcessIdentity { pid: note.pid, started: note.started }.is_alive();
    match note.state.as_str() {
        "terminal" if now.0.saturating_sub(note.since) > TERMINAL_SECONDS => BridgeFact::Off,
        "terminal" => BridgeFact::Terminal,
        "ended" => BridgeFact::Off,
        _ if !lives => BridgeFact::Gone,
        "connected" => BridgeFact::Connected,
        _ => BridgeFact::Connecting,
    }
}

async fn data_plane(admin: &Admin, memory: &mut Memory) -> (EnvoyFact, CanaryFact) {
    if !admin.health.places.own_envoy {
        return (EnvoyFact::Elsewhere, CanaryFact::Elsewhere);
    }
    let envoy = envoy(admin, memory).await;
    if !envoy.is_live() {
        memory.canary = None;
        return (envoy, CanaryFact::NoEnvoy);
    }
    let address = admin.ingress.load().first().copied();
    let tls = admin.health.ingress_tls.load_full();
    let door = address.and_then(|address| health_canary::door(address, tls.as_deref()));
    let healthy = authz_is_healthy(admin).await;
    let known = memory.canary.take();
    let due = |at: &Instant| at.elapsed() >= CANARY_EVERY;
    let kept = known.filter(|(at, found)| healthy && matches!(found, CanaryFact::Refused(_)) && !due(at));
    let (at, found) = match (kept, door) {
        (Some(kept), _) => kept,
        (None, Some(door)) => (Instant::now(), health_canary::send(&door, &admin.health.canaries).await),
        (None, None) => (Instant::now(), CanaryFact::Healthy),
    };
    let found = if found == CanaryFact::Healthy && !healthy {
        CanaryFact::Undecided("Envoy says that authz is not healthy".to_owned())
    } else {
        found
    };
    memory.canary = Some((at, found.clone()));
    (envoy, found)
}

/// Whether nothing passes for want of claims: those of all services are too old, or for as long as they would hold none was
/// read, and no connection has a declared approval.
fn nothing_holds(admin: &Admin, memory: &mut Memory) -> bool {
    let (Some(claims), false) = (&admin.claims, admin.publisher.declares_approvals()) else {
        memory.unheld_since = None;
        return false;
    };
    let (now, hold) = (admin.clock.now().monotonic, admin.publisher.claims_hold_ms());
    let holding = claims.overview.holding(&admin.publisher.claims_ages(), hold);
    if holding == Holding::Some {
        memory.unheld_since = None;
        return false;
    }
    let since = *memory.unheld_since.get_or_insert(now);
    holding == Holding::None || now.since(since) > hold
}

async fn envoy(admin: &Admin, memory: &mut Memory) -> EnvoyFact {
    let endpoint = Endpoint::Unix(admin.envoy_socket.clone());
    let answer = exchange(&endpoint, Request::get("/server_info"), Bytes::new(), ENVOY_PATIENCE).await;
    let info = answer.map_err(|error| format!("its admin interface {error}")).and_then(|answer| {
        let info: Result<ServerInfo, _> = serde_json::from_slice(&answer.body);
        info.map_err(|_| format!("its admin interface answers {}", answer.status))
    });
    let was_live = memory.began.is_some();
    match info {
        Ok(info) => {
            let uptime = info.uptime_current_epoch.trim_end_matches('s').parse::<u64>().unwrap_or_default();
            let state = info.state;
            if state == "LIVE" {
                // Also one that came back between two looks; and not one that only said nothing for a while.
                let began = (admin.clock.now().monotonic.0 / 1000).saturating_sub(uptime);
                let anew = memory.began.is_some_and(|before| began > before.saturating_add(ROUNDING));
                memory.restarts = memory.restarts.saturating_add(u64::from(anew));
                memory.began = Some(began);
            }
            EnvoyFact::Answers { state, version: info.version.split('/').nth(1).unwrap_or_default().to_owned() }
        }
        Err(why) => EnvoyFact::Down { was_live, why },
    }
}

/// What Envoy's own check of authz says; it asks every second.
async fn authz_is_healthy(admin: &Admin) -> bool {
    let endpoint = Endpoint::Unix(admin.envoy_socket.clone());
    let answer = exchange(&endpoint, Request::get(AUTHZ_HEALTHY), Bytes::new(), ENVOY_PATIENCE).await;
    answer.is_ok_and(|answer| answer.status == 200 && answer.body.ends_with(ONE_HEALTHY))
}

fn authz(admin: &Admin, memory: &mut Memory) -> AuthzFact {
    let (peers, cut_off) = (admin.publisher.peers(), admin.publisher.cut_off());
    let counted = Counted::of(admin, &peers);
    let (connected, current) = (counted.peers.len(), counted.current());
    let now = Instant::now();
    if current > 0 || connected == 0 {
        memory.current_at = Some(now);
    }
    memory.ever_current |= current > 0;
    let remote = peers.iter().filter(|peer| peer.remote).count();
    let failing = counted.failing();
    AuthzFact {
        connected,
        current,
        ready: counted.ready(),
        ever_current: memory.ever_current,
        behind_for: memory.current_at.map_or(Duration::ZERO, |at| now.duration_since(at)),
        refused: counted.refused(),
        failing: failing.map(|(node, _)| node.to_owned()),
        volume_full: failing.is_some_and(|(_, report)| report.replay_volume_full),
        starting: counted.say(|report| report.replay_starting),
        store_failing: counted.say(|report| report.replay_store_failing),
        window_conflict: admin.publisher.window_conflict(),
        full: counted.say(health_authz::is_full),
        reported: counted.reported(),
        remote,
        troubles: health_authz::troubles(&peers),
        certified: !cut_off.is_empty() || remote > 0,
        endings: endings(&peers, &cut_off, admin.clock.now().seconds()),
    }
}

/// The certificates that near their end, or are past it.
fn endings(peers: &[PeerState], cut_off: &[(String, Validity)], now: UnixSeconds) -> Vec<Ending> {
    let soon = peers.iter().filter_map(|peer| Some((&peer.node, peer.certificate?, false)));
    let soon = soon.filter(|(_, certificate, _)| certificate.ends_soon(now));
    let gone = cut_off.iter().map(|(node, certificate)| (node, *certificate, true));
    let ending = |(node, certificate, cut_off): (&String, Validity, bool)| Ending {
        node: node.clone(),
        said: certificate.said(now),
        cut_off,
    };
    soon.chain(gone).map(ending).collect()
}

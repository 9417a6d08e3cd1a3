//! Drains: while somebody holds a lease the gateway takes no new requests, and what is in flight goes on.
//!
//! Authz is told until when through the state stream and refuses by its own clock, so that a lease ends also where admin is
//! away. Envoy is told to fail its health check, so that whoever balances turns elsewhere. Leases lie in a file of the run
//! folder and outlive this process.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::Request;
use axum::extract::State;
use bytes::Bytes;
use http::Response;
use http::StatusCode;
use serde::Deserialize;
use serde::Serialize;
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::admin::input::Id;
use crate::admin::input::Name;
use crate::admin::input::Shared;
use crate::admin::input::finish;
use crate::admin::input::json_body;
use crate::admin::metrics;
use crate::admin::respond::Problem;
use crate::admin::respond::empty;
use crate::admin::respond::json;
use crate::domain::time::UnixMillis;
use crate::state::Change;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::files;
use crate::sys::local_http::Endpoint;
use crate::sys::local_http::exchange;
use crate::sys::random;
use crate::sys::tasks::Stop;
use crate::wire::admin::decode;
use crate::wire::drain::DrainBody;
use crate::wire::drain::DrainStatusBody;
use crate::wire::drain::LeaseBody;
use crate::wire::envelope::ErrorBody;

/// Name of the file in the run folder.
pub const LEASES_FILE: &str = "drain.json";
/// It has some hundred bytes.
const MAX_BYTES: u64 = 64 * 1024;
/// Leases at a time: people who look after one gateway.
const MAX_LEASES: usize = 16;
/// How often it is looked whether one has ended, and Envoy is told anew.
const LOOK: Duration = Duration::from_secs(1);
/// How often requests in flight are counted while somebody waits.
const COUNT: Duration = Duration::from_millis(100);
/// How long Envoy may take to answer.
const ENVOY_PATIENCE: Duration = Duration::from_secs(1);

/// One lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    id: String,
    until_ms: u64,
}

/// Who drains, and until when.
#[derive(Debug)]
pub struct DrainDesk {
    file: PathBuf,
    leases: Mutex<Vec<Lease>>,
    /// What authz was told last, in Unix milliseconds; 0: that nobody drains.
    told: Mutex<u64>,
    /// Whether Envoy was told to fail its health check, as far as it has acknowledged it; `None`: what it goes by is not known.
    /// Held while it is told, so that it hears one thing after the other.
    envoy: tokio::sync::Mutex<Option<bool>>,
}

impl DrainDesk {
    /// What an earlier process left. A file that cannot be read drains nobody, which is said.
    pub fn open(run_dir: &Path, now: UnixMillis) -> Self {
        let file = run_dir.join(LEASES_FILE);
        let mut leases: Vec<Lease> = match files::read_text(&file, MAX_BYTES) {
            Ok(text) => serde_json::from_str(&text).unwrap_or_else(|error| {
                tracing::error!(%error, "the leases of drains cannot be read; nobody drains");
                Vec::new()
            }),
            Err(_) => Vec::new(),
        };
        leases.retain(|lease| lease.until_ms > now.0);
        let told = latest(&leases);
        Self { file, leases: Mutex::new(leases), told: Mutex::new(told), envoy: tokio::sync::Mutex::new(None) }
    }

    /// Until when new requests are refused, in Unix milliseconds; 0: they are not.
    pub fn until_ms(&self) -> u64 {
        latest(&self.held())
    }

    /// The same in RFC 3339; `None`: nobody drains.
    pub fn until(&self, now: UnixMillis) -> Option<String> {
        let until = self.until_ms();
        (until > now.0).then(|| UnixMillis(until).rfc3339())
    }

    fn held(&self) -> MutexGuard<'_, Vec<Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, seconds: u64, now: UnixMillis) -> Result<Lease, Problem> {
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(%error, "a drain cannot begin");
            Problem::internal()
        };
        let id = random::hex::<16>().map_err(|error| failed(&error))?;
        let lease = Lease { id: format!("drain-{id}"), until_ms: now.0.saturating_add(seconds.saturating_mul(1000)) };
        let mut leases = self.held();
        leases.retain(|lease| lease.until_ms > now.0);
        if leases.len() >= MAX_LEASES {
            let text = "as many leases are held as one gateway knows";
            return Err(Problem::new(StatusCode::CONFLICT, "DRAIN_LEASES_EXHAUSTED", text));
        }
        leases.push(lease.clone());
        if let Err(error) = self.keep(&leases) {
            // Who is told that it has failed holds nothing.
            leases.pop();
            tracing::error!(%error, "a drain cannot begin");
            return Err(Problem::unwritten(&error, "the lease cannot be written down; the gateway's log says why"));
        }
        Ok(lease)
    }

    /// Ends a lease; `false` where nobody holds it.
    fn end(&self, id: &str, now: UnixMillis) -> bool {
        self.end_those(|lease| lease.id == id, now)
    }

    /// Ends all leases.
    fn end_all(&self, now: UnixMillis) {
        self.end_those(|_| true, now);
    }

    fn end_those(&self, which: impl Fn(&Lease) -> bool, now: UnixMillis) -> bool {
        let mut leases = self.held();
        leases.retain(|lease| lease.until_ms > now.0);
        let before = leases.len();
        leases.retain(|lease| !which(lease));
        let ended = leases.len() < before;
        if ended && let Err(error) = self.keep(&leases) {
            // After a restart it would hold on until it expires.
            tracing::error!(%error, "the end of a drain could not be written down");
        }
        ended
    }

    fn keep(&self, leases: &[Lease]) -> std::io::Result<()> {
        if leases.is_empty() {
            return match std::fs::remove_file(&self.file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            };
        }
        files::write_private(&self.file, &serde_json::to_vec(leases)?)
    }

    /// Whether there is something to tell authz. Forgets what has expired.
    fn has_news(&self, now: UnixMillis) -> bool {
        let until = self.current(now);
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) != until
    }

    /// What authz is told now: until when, in milliseconds, and whether that is something else than before. What this returns is
    /// to be published.
    fn tell(&self, now: UnixMillis) -> (u64, bool) {
        let until = self.current(now);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        (until, std::mem::replace(&mut *told, until) != until)
    }

    /// Until when new requests are refused, without what has expired.
    fn current(&self, now: UnixMillis) -> u64 {
        let mut leases = self.held();
        let before = leases.len();
        leases.retain(|lease| lease.until_ms > now.0);
        if leases.len() < before
            && let Err(error) = self.keep(&leases)
        {
            tracing::error!(%error, "the end of a drain could not be written down");
        }
        latest(&leases)
    }
}

fn latest(leases: &[Lease]) -> u64 {
    leases.iter().map(|lease| lease.until_ms).max().unwrap_or_default()
}

/// A lease of somebody who was not told of it yet. Where that does not come about (the client has left, or was told that it has
/// failed) nobody could end it, so it ends by itself; authz is told with the next look.
struct Untold {
    desk: Arc<DrainDesk>,
    clock: SystemClock,
    lease: Option<Lease>,
}

impl Untold {
    fn of(desk: &Arc<DrainDesk>, clock: SystemClock, seconds: u64) -> Result<Self, Problem> {
        let lease = desk.begin(seconds, clock.now().wall)?;
        Ok(Self { desk: Arc::clone(desk), clock, lease: Some(lease) })
    }

    /// What it is told.
    fn told(mut self) -> Lease {
        self.lease.take().unwrap_or(Lease { id: String::new(), until_ms: 0 })
    }
}

impl Drop for Untold {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.desk.end(&lease.id, self.clock.now().wall);
        }
    }
}

/// Tells authz and Envoy what has changed.
async fn tell(admin: &Admin) -> Result<(), Problem> {
    if admin.drain.has_news(admin.clock.now().wall) {
        let (publisher, desk, clock) = (admin.publisher.clone(), Arc::clone(&admin.drain), admin.clock);
        // Asked on the store's thread, so that of two changes the one that is published last is the later one.
        let publish = move |version| {
            let (until_ms, changed) = desk.tell(clock.now().wall);
            publisher.publish(version, Change::Drain { until_ms });
            if changed {
                log(until_ms);
            }
        };
        admin.store.advance(publish).await?;
        admin.health.look_soon();
    }
    tell_envoy(admin).await;
    Ok(())
}

fn log(until_ms: u64) {
    if until_ms == 0 {
        tracing::info!(event = "gateway.undrain", "the gateway takes new requests again");
    } else {
        let until = UnixMillis(until_ms).rfc3339();
        tracing::warn!(event = "gateway.drain", until, "the gateway takes no new requests");
    }
}

/// Tells Envoy what it goes by. That its health check fails is said at each look, since an Envoy that was started meanwhile does
/// not know it; that it does not, until Envoy has heard it, also for a drain that ended while admin was away. Where there is no
/// Envoy, or it is another's, nobody hears it.
async fn tell_envoy(admin: &Admin) {
    let mut told = admin.drain.envoy.lock().await;
    let draining = admin.drain.until_ms() > admin.clock.now().wall.0;
    if *told == Some(false) && !draining {
        return;
    }
    // Whoever is not waited for may have been heard all the same.
    *told = None;
    let path = if draining { "/healthcheck/fail" } else { "/healthcheck/ok" };
    let endpoint = Endpoint::Unix(admin.envoy_socket.clone());
    match exchange(&endpoint, http::Request::post(path), Bytes::new(), ENVOY_PATIENCE).await {
        Ok(answer) if answer.status == 200 => *told = Some(draining),
        Ok(answer) => tracing::debug!(status = answer.status, path, "Envoy could not be told"),
        Err(error) => tracing::debug!(%error, path, "Envoy could not be told"),
    }
}

/// Ends what has expired, and tells an Envoy that was started meanwhile, or that did not hear.
pub async fn look_after(admin: Arc<Admin>, mut stop: Stop) {
    let looks = async {
        loop {
            if let Err(problem) = tell(&admin).await {
                tracing::error!(?problem, "the end of a drain could not be published");
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = stop.wait() => {}
        () = looks => {}
    }
}

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new().routes(routes!(begin, status, end_all)).routes(routes!(end))
}

/// Takes no new requests (503 `GATEWAY_DRAINING`, `Retry-After`) until the lease ends; what is in flight goes on. Envoy's
/// health check fails meanwhile.
#[utoipa::path(post, path = "/api/v1/drain", operation_id = "drain", tag = "service", request_body = DrainBody, responses(
    (status = 201, description = "The lease", body = LeaseBody),
    (status = 409, description = "`DRAIN_LEASES_EXHAUSTED`: as many are held as one gateway knows", body = ErrorBody),
))]
async fn begin(State(admin): Shared, Extension(id): Id, request: Request) -> Response<Body> {
    let work = async {
        let body = json_body(request).await?;
        let body: DrainBody = if body.is_empty() { DrainBody::default() } else { decode(&body)? };
        let (wait, seconds) = body.into_seconds().map_err(Problem::invalid)?;
        let lease = Untold::of(&admin.drain, admin.clock, seconds)?;
        tell(&admin).await?;
        let in_flight = emptied(&admin, Duration::from_secs(wait)).await;
        let Lease { id, until_ms } = lease.told();
        json(StatusCode::CREATED, &LeaseBody { lease_id: id, expires_at: UnixMillis(until_ms).rfc3339(), in_flight })
    };
    finish(&id, work.await)
}

/// Whether new requests are refused, and what is still in flight.
#[utoipa::path(get, path = "/api/v1/drain", operation_id = "drainStatus", tag = "service", responses(
    (status = 200, description = "How it stands", body = DrainStatusBody),
))]
async fn status(State(admin): Shared, Extension(id): Id) -> Response<Body> {
    let work = async {
        let now = admin.clock.now().wall;
        let (leases, until) = {
            let held = admin.drain.held();
            (held.iter().filter(|lease| lease.until_ms > now.0).count(), latest(&held))
        };
        let draining = until > now.0;
        let expires_at = draining.then(|| UnixMillis(until).rfc3339());
        let in_flight = count(&admin).await;
        json(StatusCode::OK, &DrainStatusBody { draining, expires_at, leases, in_flight })
    };
    finish(&id, work.await)
}

/// Ends a lease; with the last one new requests are taken again.
#[utoipa::path(delete, path = "/api/v1/drain/{id}", operation_id = "undrain", tag = "service",
    params(("id" = String, Path, description = "The lease")), responses(
    (status = 204, description = "It has ended"),
    (status = 404, description = "`DRAIN_LEASE_UNKNOWN`: nobody holds it, or it has ended", body = ErrorBody),
))]
async fn end(State(admin): Shared, Extension(id): Id, name: Name) -> Response<Body> {
    let work = async {
        let lease = name.0.unwrap_or_default();
        if !admin.drain.end(&lease, admin.clock.now().wall) {
            let text = "nobody holds this lease, or it has ended";
            return Err(Problem::new(StatusCode::NOT_FOUND, "DRAIN_LEASE_UNKNOWN", text));
        }
        tell(&admin).await?;
        Ok(empty(StatusCode::NO_CONTENT))
    };
    finish(&id, work.await)
}

/// Ends all leases, whoever holds them: new requests are taken again.
#[utoipa::path(delete, path = "/api/v1/drain", operation_id = "undrainAll", tag = "service", responses(
    (status = 204, description = "None is held"),
))]
async fn end_all(State(admin): Shared, Extension(id): Id) -> Response<Body> {
    let work = async {
        admin.drain.end_all(admin.clock.now().wall);
        tell(&admin).await?;
        Ok(empty(StatusCode::NO_CONTENT))
    };
    finish(&id, work.await)
}

/// Waits until nothing is in flight, and says what is.
async fn emptied(admin: &Admin, wait: Duration) -> Option<u64> {
    let deadline = Instant::now() + wait;
    loop {
        let left = count(admin).await;
        if left == Some(0) || left.is_none() || Instant::now() >= deadline {
            return left;
        }
        tokio::time::sleep(COUNT).await;
    }
}

async fn count(admin: &Admin) -> Option<u64> {
    // A gauge of whole requests.
    metrics::in_flight(admin).await.map(|gauge| gauge as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn later(seconds: u64) -> UnixMillis {
        UnixMillis(NOW.0 + seconds * 1000)
    }

    #[test]
    fn the_longest_lease_counts_until_it_ends_or_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let desk = DrainDesk::open(folder.path(), NOW);
        assert_eq!((desk.until_ms(), desk.has_news(NOW)), (0, false));
        let long = desk.begin(60, NOW).unwrap();
        let short = desk.begin(10, NOW).unwrap();
        assert_ne!(long.id, short.id);
        assert!(desk.has_news(NOW) && desk.has_news(NOW), "until it is told");
        assert_eq!(desk.tell(NOW), (later(60).0, true));
        assert_eq!((desk.has_news(NOW), desk.tell(NOW)), (false, (later(60).0, false)));
        assert!(!desk.end("drain-other", NOW));
        assert!(desk.end(&long.id, NOW) && !desk.end(&long.id, NOW));
        assert_eq!(desk.tell(NOW), (later(10).0, true));
        assert_eq!(desk.tell(later(11)), (0, true), "the other has expired");
        assert!(!desk.end(&short.id, later(11)));
        assert!(!folder.path().join(LEASES_FILE).exists());
    }

    #[test]
    fn all_leases_end_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let desk = DrainDesk::open(folder.path(), NOW);
        desk.begin(60, NOW).unwrap();
        desk.begin(10, NOW).unwrap();
        desk.end_all(NOW);
        assert_eq!(desk.tell(NOW), (0, false));
        assert!(!folder.path().join(LEASES_FILE).exists());
    }

    #[test]
    fn a_lease_that_cannot_be_written_down_is_not_held() {
        let folder = tempfile::tempdir().unwrap();
        let desk = DrainDesk::open(&folder.path().join("gone"), NOW);
        assert_eq!(desk.begin(60, NOW).unwrap_err().code(), Problem::internal().code());
        assert_eq!(desk.until_ms(), 0);
    }

    #[test]
    fn leases_outlive_the_process_and_not_their_time() {
        let folder = tempfile::tempdir().unwrap();
        let lease = DrainDesk::open(folder.path(), NOW).begin(60, NOW).unwrap();
        let desk = DrainDesk::open(folder.path(), later(30));
        assert_eq!((desk.until_ms(), desk.has_news(later(30))), (lease.until_ms, false), "the first state tells it");
        assert!(desk.end(&lease.id, later(30)));
        let lease = desk.begin(60, later(30)).unwrap();
        assert_eq!(DrainDesk::open(folder.path(), later(91)).until_ms(), 0);
        std::fs::remove_file(folder.path().join(LEASES_FILE)).unwrap();
        files::write_private(&folder.path().join(LEASES_FILE), b"{").unwrap();
        assert_eq!(DrainDesk::open(folder.path(), NOW).until_ms(), 0, "{lease:?}");
    }

    #[test]
    fn a_lease_nobody_was_told_of_ends_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let desk = Arc::new(DrainDesk::open(folder.path(), SystemClock.now().wall));
        drop(Untold::of(&desk, SystemClock, 60).unwrap());
        assert_eq!(desk.until_ms(), 0);
        let lease = Untold::of(&desk, SystemClock, 60).unwrap().told();
        assert_eq!((desk.until_ms(), lease.until_ms), (lease.until_ms, desk.until_ms()));
        assert!(desk.until_ms() > 0);
    }

    #[test]
    fn leases_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let desk = DrainDesk::open(folder.path(), NOW);
        for _ in 0..MAX_LEASES {
            desk.begin(60, NOW).unwrap();
        }
        assert_eq!(desk.begin(60, NOW).unwrap_err().code(), "DRAIN_LEASES_EXHAUSTED");
        desk.begin(60, later(61)).unwrap();
    }
}

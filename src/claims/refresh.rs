//! Keeps what authz knows of approvals in step with the control plane: one task per connection, owned by no request.
//!
//! A task reads the feed, publishes what differs and says how old that is; then it follows the stream of changes where
//! the API has one, else it reads again after the interval. What cannot be read is not guessed: the last complete
//! list stays, and ages. Only services that have a connection are asked for.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::Id;
use tokio::task::JoinSet;

use crate::claims::attendant::Attendant;
use crate::claims::client::ApiClient;
use crate::claims::keys::KeyPlaces;
use crate::claims::keys::service_key;
use crate::claims::overview::Overview;
use crate::config::parts::ClaimsOptions;
use crate::state::Change;
use crate::state::Publisher;
use crate::sys::tasks::Stop;
use crate::sys::tasks::StopHandle;
use crate::sys::tasks::stop_pair;
use crate::telemetry::metrics::Metrics;
use crate::wire::state::proto;

/// Feeds read at a time: a slow API is not asked for everything at once.
const READS: usize = 8;
/// Change streams at a time; services beyond them are polled.
const STREAMS: usize = 256;
/// How long changes of the published state gather before the connections are looked at again.
const GATHER: Duration = Duration::from_millis(250);
/// Pokes that wait; a service that finds no room is read at its own time.
const POKES: usize = 64;
/// How long a service whose task broke down is left alone.
const BROKEN_PAUSE: Duration = Duration::from_secs(5);
/// Claims without confirmation for two intervals and this have missed one.
const LATE: Duration = Duration::from_secs(5);

/// Runs on the store's thread with the version it makes.
pub type Work = Box<dyn FnOnce(u64) + Send>;
/// Makes a new version of the state and runs the work with it; an error is a text for the log.
pub type Advance = Box<dyn Fn(Work) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// Asks for a service's approvals to be read soon; by its name.
pub type Poke = mpsc::Sender<String>;

/// What claims are read with.
#[derive(Debug)]
pub struct ClaimsConfig {
    /// Whom to ask.
    pub client: Arc<ApiClient>,
    /// Where the service keys are.
    pub keys: Arc<KeyPlaces>,
    /// Whether every connection is to be approved by the API; else only those that have a service key.
    pub every_service: bool,
    /// How often, and how much.
    pub pace: watch::Receiver<ClaimsPace>,
}

impl ClaimsConfig {
    /// Time between two readings, as it is now.
    pub(super) fn refresh(&self) -> Duration {
        self.pace.borrow().refresh
    }

    /// Most approvals of one service, as it is now.
    pub(super) fn max_approvals(&self) -> usize {
        self.pace.borrow().max_approvals
    }
}

/// What may change while claims are read and submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimsPace {
    /// Time between two readings.
    pub refresh: Duration,
    /// Most approvals of one service.
    pub max_approvals: usize,
    /// Submissions in any minute, all together; 0 = no limit.
    pub registrations_per_minute: u32,
}

impl ClaimsPace {
    /// As the configuration says.
    pub const fn of(options: &ClaimsOptions) -> Self {
        Self {
            refresh: options.refresh,
            max_approvals: options.max_approvals,
            registrations_per_minute: options.registrations_per_minute,
        }
    }

    /// Age from which on claims have missed a confirmation, in milliseconds.
    pub fn late_ms(&self) -> u64 {
        let late = self.refresh.saturating_mul(2).saturating_add(LATE);
        u64::try_from(late.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The reader of claims.
#[derive(Debug)]
pub struct Claims {
    shared: Arc<Shared>,
    poke: Poke,
    poked: mpsc::Receiver<String>,
}

/// What all tasks work with.
pub(super) struct Shared {
    pub(super) config: ClaimsConfig,
    pub(super) publisher: Publisher,
    pub(super) advance: Advance,
    pub(super) overview: Arc<Overview>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) reads: Semaphore,
    pub(super) streams: Semaphore,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Shared {
    /// Publishes one change as a version of its own; `false`: the store could not, which is logged.
    pub(super) async fn publish(&self, change: Change) -> bool {
        let publisher = self.publisher.clone();
        self.advance(Box::new(move |version| publisher.publish(version, change))).await
    }

    /// Publishes that a service whose connection is gone has no claims source. One whose connection was made again
    /// meanwhile keeps what is known of it, or whoever was served by it already would be refused until it is read anew;
    /// `false` then.
    pub(super) async fn end_with_connection(&self, service: &str) -> bool {
        let (publisher, id) = (self.publisher.clone(), service.to_owned());
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        // Only where versions are made it is certain that no connection comes in between.
        let work = move |version| {
            let is_gone = !publisher.has_connection(&id);
            let change = is_gone.then(|| publisher.end_claims(&id)).flatten();
            publisher.publish(version, change.unwrap_or_else(|| Change::Together(Vec::new())));
            told.store(is_gone, Ordering::Relaxed);
        };
        self.advance(Box::new(work)).await && ended.load(Ordering::Relaxed)
    }

    async fn advance(&self, work: Work) -> bool {
        let published = (self.advance)(work).await;
        if let Err(error) = &published {
            tracing::error!(%error, "a change of approvals cannot be published");
        }
        published.is_ok()
    }

    /// Says that the API confirmed what is published of a service, this long ago.
    pub(super) fn confirm(&self, service: &str, age_ms: u64) {
        self.publisher.confirm(vec![proto::ServiceAge { service: service.to_owned(), age_ms }]);
    }
}

impl Claims {
    /// Nothing is asked before [`Claims::run`].
    pub fn new(config: ClaimsConfig, publisher: Publisher, advance: Advance, metrics: Arc<Metrics>) -> Self {
        // Nothing is served yet. An authz that comes back after a restart of ours goes on with what it holds of
        // these, until they are read.
        let has_source = |service: &String| config.every_service || service_key(service, &config.keys).is_some();
        publisher.expect_claims(publisher.connection_ids().into_iter().filter(has_source).collect());
        let overview = Arc::default();
        let (reads, streams) = (Semaphore::new(READS), Semaphore::new(STREAMS));
        let (poke, poked) = mpsc::channel(POKES);
        Self { shared: Arc::new(Shared { config, publisher, advance, overview, metrics, reads, streams }), poke, poked }
    }

    /// Has a service's approvals read sooner than at their own time.
    pub fn poke(&self) -> Poke {
        self.poke.clone()
    }

    /// How it stands with each service.
    pub fn overview(&self) -> Arc<Overview> {
        Arc::clone(&self.shared.overview)
    }

    /// How often they are read.
    pub fn pace(&self) -> watch::Receiver<ClaimsPace> {
        self.shared.config.pace.clone()
    }

    /// Reads until told to stop. What is published stays.
    pub async fn run(mut self, mut stop: Stop) {
        let mut changes = self.shared.publisher.changes();
        let mut crew = Crew::default();
        loop {
            crew.man(&self.shared, &stop);
            let ended = tokio::select! {
                () = stop.wait() => break,
                changed = changes.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    None
                }
                Some(ended) = crew.tasks.join_next_with_id() => Some(ended),
                Some(service) = self.poked.recv() => {
                    crew.poke(&service);
                    continue;
                }
            };
            match ended {
                Some(Ok((id, ()))) => crew.ended(id),
                Some(Err(error)) => {
                    tracing::error!(%error, "the reader of a service's approvals broke down; it is started again");
                    pause(BROKEN_PAUSE, &mut stop).await;
                    crew.ended(error.id());
                }
                None => {
                    // A new connection has its source at once: until then strangers and approved agents look alike.
                    crew.man(&self.shared, &stop);
                    pause(GATHER, &mut stop).await;
                }
            }
        }
        // Each has heard the same stop.
        while crew.tasks.join_next().await.is_some() {}
    }
}

async fn pause(duration: Duration, stop: &mut Stop) {
    let _ = tokio::time::timeout(duration, stop.wait()).await;
}

/// The tasks, at most one per service: what it reads and what it publishes have one order.
#[derive(Debug, Default)]
struct Crew {
    tasks: JoinSet<()>,
    names: HashMap<Id, String>,
    gone: BTreeMap<String, (StopHandle, Arc<Notify>)>,
}

impl Crew {
    /// A task for every connection, and none for others.
    fn man(&mut self, shared: &Arc<Shared>, stop: &Stop) {
        let wanted = shared.publisher.connection_ids();
        for (service, (gone, _)) in &self.gone {
            if wanted.binary_search(service).is_err() {
                gone.stop();
            }
        }
        for service in wanted {
            // One that was told to go, and whose connection is there again, is started anew when it has ended.
            if self.gone.contains_key(&service) {
                continue;
            }
            let (handle, gone) = stop_pair();
            let poke = Arc::default();
            let attendant = Attendant::new(Arc::clone(shared), service.clone(), stop.clone(), gone, Arc::clone(&poke));
            let task = self.tasks.spawn(attendant.run());
            self.names.insert(task.id(), service.clone());
            self.gone.insert(service, (handle, poke));
        }
    }

    fn poke(&self, service: &str) {
        if let Some((_, poke)) = self.gone.get(service) {
            poke.notify_one();
        }
    }

    fn ended(&mut self, id: Id) {
        if let Some(service) = self.names.remove(&id) {
            self.gone.remove(&service);
        }
    }
}

#[cfg(test)]
#[path = "refresh_tests.rs"]
mod tests;

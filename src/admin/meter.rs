//! Keeps the metrics fed, once a second: authz reports and Envoy's access log. Keeps the log itself in bounds:
//! puts it aside when it is long, and removes what all its readers are done with.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;

use crate::admin::health_canary::Canaries;
use crate::admin::refusals::Refusals;
use crate::admin::uses::Uses;
use crate::state::Publisher;
use crate::store::last_use::LastUse;
use crate::store::worker::Store;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::local_http::Endpoint;
use crate::sys::local_http::exchange;
use crate::sys::tasks::Stop;
use crate::telemetry::access_log::AccessEntry;
use crate::telemetry::decision_times::AllTimes;
use crate::telemetry::metrics::AuthzCounters;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::segments;
use crate::telemetry::tail::Line;
use crate::telemetry::tail::Tail;
use crate::wire::state::proto::Report;

/// How often everything is read.
const INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of the log read in one turn, so that a long backlog does not hold up a stop.
const TURN_BYTES: usize = 32 * 1024 * 1024;
/// A log longer than this is put aside.
pub const ROTATE_BYTES: u64 = 64 * 1024 * 1024;
/// How long Envoy may take to open its log anew.
const ENVOY_PATIENCE: Duration = Duration::from_secs(2);

/// Name of the access log in the run folder.
pub use crate::telemetry::log_reader::ACCESS_LOG;
/// Name of the file that remembers how far it was read.
const POSITION_FILE: &str = "access.position";

/// Reads and counts.
#[derive(Debug)]
pub struct Meter {
    publisher: Publisher,
    metrics: Arc<Metrics>,
    tail: Option<(Tail, Uses)>,
    refusals: Arc<Refusals>,
    store: Store,
    log: PathBuf,
    /// Position files of all readers of the log, ours first.
    positions: Vec<PathBuf>,
    envoy_socket: PathBuf,
    canaries: Arc<Canaries>,
}

impl Meter {
    /// Goes on where the last one of this run folder ended.
    pub fn new(publisher: Publisher, metrics: Arc<Metrics>, store: Store, run_dir: &Path, envoy_socket: &Path) -> Self {
        let log = run_dir.join(ACCESS_LOG);
        let position = run_dir.join(POSITION_FILE);
        let tail = Some((Tail::new(&log, &position), Uses::default()));
        let positions = vec![position];
        let refusals = Arc::new(Refusals::new(SystemClock.now().wall));
        let (envoy_socket, canaries) = (envoy_socket.to_owned(), Arc::default());
        Self { publisher, metrics, tail, refusals, store, log, positions, envoy_socket, canaries }
    }

    /// The gateway's own requests, which count for nothing.
    pub fn canaries(&self) -> Arc<Canaries> {
        Arc::clone(&self.canaries)
    }

    /// The refusals it reads of.
    pub fn refusals(&self) -> Arc<Refusals> {
        Arc::clone(&self.refusals)
    }

    /// Another reader's position file: what it is not done with is kept.
    #[must_use]
    pub fn also_read(mut self, position: PathBuf) -> Self {
        self.positions.push(position);
        self
    }

    /// Reads once a second until told to stop, and once more then.
    pub async fn run(mut self, mut stop: Stop) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let stopped = tokio::select! {
                _ = interval.tick() => false,
                () = stop.wait() => true,
            };
            self.turn(stopped).await;
            if stopped {
                return;
            }
        }
    }

    /// Reads everything that is new, and writes down who used what when it is time, or on the last turn.
    pub async fn turn(&mut self, last: bool) {
        self.metrics.record_authz(&self.counters());
        let Some((mut tail, mut uses)) = self.tail.take() else { return };
        let (metrics, refusals) = (Arc::clone(&self.metrics), Arc::clone(&self.refusals));
        let canaries = Arc::clone(&self.canaries);
        let read = tokio::task::spawn_blocking(move || {
            let result = read(&mut tail, &metrics, &mut uses, &refusals, &canaries);
            (tail, uses, result)
        });
        match read.await {
            Ok((tail, mut uses, result)) => {
                if let Err(error) = result {
                    tracing::warn!(%error, "the access log cannot be read");
                }
                let due = uses.take_due(SystemClock.now().monotonic, last);
                self.tail = Some((tail, uses));
                self.tend_store(due).await;
                self.keep_in_bounds().await;
            }
            Err(error) => tracing::error!(%error, "the reader of the access log is gone"),
        }
    }

    /// Writes uses down, and has the store do what nobody should wait for.
    async fn tend_store(&self, due: Vec<(String, LastUse)>) {
        let work = self.store.keep(move |vault| {
            vault.tidy();
            if due.is_empty() { Ok(()) } else { vault.note_uses(&due) }
        });
        if let Err(error) = work.await {
            tracing::warn!(%error, "who used which connection could not be written down");
        }
    }

    fn counters(&self) -> Vec<AuthzCounters> {
        let counters = self.publisher.peers().into_iter().filter_map(|peer| {
            let report = peer.report?;
            let times = times(&report);
            Some(AuthzCounters {
                node: peer.node,
                started_at_ms: report.started_at_ms,
                allowed: report.allowed,
                denied: report.denied.into_iter().collect(),
                replay_entries: report.replay_entries,
                replay_capacity: report.replay_capacity,
                ready: report.ready,
                times,
                replay_share_refused: report.replay_share_refused,
                spans: report.spans.into_iter().collect(),
            })
        });
        counters.collect()
    }

    async fn keep_in_bounds(&self) {
        let (log, positions) = (self.log.clone(), self.positions.clone());
        let looked = tokio::task::spawn_blocking(move || {
            segments::remove_read(&log, &positions)?;
            let segments = segments::list(&log)?;
            Ok::<_, std::io::Error>(
                segments.last().is_some_and(|last| last.number.is_none() && last.length > ROTATE_BYTES),
            )
        });
        match looked.await {
            Ok(Ok(true)) => self.rotate().await,
            Ok(Ok(false)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the files of the access log cannot be kept in bounds"),
            Err(error) => tracing::error!(%error, "the files of the access log cannot be kept in bounds"),
        }
    }

    /// Puts the log aside and has Envoy open a new one. Where Envoy does not answer the log goes back.
    async fn rotate(&self) {
        let aside = match segments::put_aside(&self.log, &self.positions) {
            Ok(aside) => aside,
            Err(error) => {
                tracing::warn!(%error, "the access log cannot be put aside");
                return;
            }
        };
        let endpoint = Endpoint::Unix(self.envoy_socket.clone());
        let asked = exchange(&endpoint, Request::post("/reopen_logs"), Bytes::new(), ENVOY_PATIENCE).await;
        match asked {
            Ok(answer) if answer.status == 200 => tracing::info!("the access log was put aside"),
            Ok(_) | Err(_) => {
                tracing::warn!("Envoy does not open its access log anew; it goes on with the old one");
                if let Err(error) = segments::put_back(&self.log, &aside) {
                    tracing::warn!(%error, "the access log cannot be put back");
                }
            }
        }
    }
}

fn read(
    tail: &mut Tail,
    metrics: &Metrics,
    uses: &mut Uses,
    refusals: &Refusals,
    canaries: &Canaries,
) -> std::io::Result<()> {
    let mut bytes = 0;
    while bytes < TURN_BYTES
        && let Some(line) = tail.next_line()?
    {
        match line {
            Line::Whole(line) => {
                bytes += line.len();
                match AccessEntry::parse(line) {
                    Some(entry) if canaries.is_one(&entry.request_id) => {}
                    Some(entry) => {
                        metrics.record_access(&entry);
                        uses.note(&entry);
                        refusals.note(&entry);
                    }
                    None => metrics.record_unreadable(),
                }
            }
            Line::TooLong => metrics.record_unreadable(),
        }
    }
    tail.store(&tail.position())
}

/// How long the decisions of a report took.
pub(in crate::admin) fn times(report: &Report) -> AllTimes {
    let mut times = AllTimes::default();
    for kind in &report.decision_times {
        times.set(&kind.stage, &kind.outcome, &kind.counts, kind.sum_ns);
    }
    times
}

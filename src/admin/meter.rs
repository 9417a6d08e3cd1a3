//! Keeps the metrics fed: authz reports and Envoy's access log, once a second.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;

use crate::state::Publisher;
use crate::sys::local_http::Endpoint;
use crate::sys::local_http::exchange;
use crate::sys::tasks::Stop;
use crate::telemetry::access_log::AccessEntry;
use crate::telemetry::access_log::Tail;
use crate::telemetry::access_log::put_aside;
use crate::telemetry::metrics::AuthzCounters;
use crate::telemetry::metrics::Metrics;

/// How often everything is read.
const INTERVAL: Duration = Duration::from_secs(1);
/// Chunks of the log read in one turn, so that a long backlog does not hold up a stop.
const CHUNKS: usize = 8;
/// How long Envoy may take to open its log anew.
const ENVOY_PATIENCE: Duration = Duration::from_secs(2);

/// Name of the access log in the run folder.
pub const ACCESS_LOG: &str = "access.log";
/// Name of the file that remembers how far it was read.
const POSITION_FILE: &str = "access.position";

/// Reads and counts.
#[derive(Debug)]
pub struct Meter {
    publisher: Publisher,
    metrics: Arc<Metrics>,
    tail: Option<Tail>,
    log: PathBuf,
    envoy_socket: PathBuf,
}

impl Meter {
    /// Goes on where the last one of this run folder ended.
    pub fn new(publisher: Publisher, metrics: Arc<Metrics>, run_dir: &Path, envoy_socket: &Path) -> Self {
        let log = run_dir.join(ACCESS_LOG);
        let tail = Some(Tail::new(&log, &run_dir.join(POSITION_FILE)));
        Self { publisher, metrics, tail, log, envoy_socket: envoy_socket.to_owned() }
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
            self.turn().await;
            if stopped {
                return;
            }
        }
    }

    /// Reads everything that is new.
    pub async fn turn(&mut self) {
        self.metrics.record_authz(&self.counters());
        let Some(mut tail) = self.tail.take() else { return };
        let metrics = Arc::clone(&self.metrics);
        let read = tokio::task::spawn_blocking(move || {
            let result = read(&mut tail, &metrics);
            (tail, result)
        });
        match read.await {
            Ok((tail, result)) => {
                if let Err(error) = result {
                    tracing::warn!(%error, "the access log cannot be read");
                }
                if tail.wants_rotation() {
                    self.rotate().await;
                }
                self.tail = Some(tail);
            }
            Err(error) => tracing::error!(%error, "the reader of the access log is gone"),
        }
    }

    fn counters(&self) -> Vec<AuthzCounters> {
        let counters = self.publisher.peers().into_iter().filter_map(|peer| {
            let report = peer.report?;
            Some(AuthzCounters {
                node: peer.node,
                started_at_ms: report.started_at_ms,
                allowed: report.allowed,
                denied: report.denied.into_iter().collect(),
                replay_entries: report.replay_entries,
                replay_capacity: report.replay_capacity,
                ready: report.ready,
            })
        });
        counters.collect()
    }

    /// Puts the log aside and has Envoy open a new one. Where Envoy does not answer the log goes back.
    async fn rotate(&self) {
        let aside = put_aside(&self.log);
        if let Err(error) = std::fs::rename(&self.log, &aside) {
            tracing::warn!(%error, "the access log cannot be put aside");
            return;
        }
        let endpoint = Endpoint::Unix(self.envoy_socket.clone());
        let asked = exchange(&endpoint, Request::post("/reopen_logs"), Bytes::new(), ENVOY_PATIENCE).await;
        match asked {
            Ok(answer) if answer.status == 200 => tracing::info!("the access log was put aside"),
            Ok(_) | Err(_) => {
                tracing::warn!("Envoy does not open its access log anew; it goes on with the old one");
                if let Err(error) = std::fs::rename(&aside, &self.log) {
                    tracing::warn!(%error, "the access log cannot be put back");
                }
            }
        }
    }
}

fn read(tail: &mut Tail, metrics: &Metrics) -> std::io::Result<()> {
    for _ in 0..CHUNKS {
        let more = tail.read(|line| match line.and_then(AccessEntry::parse) {
            Some(entry) => metrics.record_access(&entry),
            None => metrics.record_unreadable(),
        })?;
        if !more {
            break;
        }
    }
    tail.store_position()
}

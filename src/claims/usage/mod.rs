//! Usage events for the control plane: one per forwarded request, and one per request that an overdue rotation
//! stopped.
//!
//! The access log is the queue. Events are read from it at a position of their own, which moves on only behind
//! events that the control plane has or will never take. So a crash, a stop or an outage loses none; what is sent twice
//! it counts once, because an event's id is the id of its decision. While the control plane does not answer, nothing
//! is read and the log grows, up to a bound; beyond it the oldest file of the log is given up, and said so.
//! Nothing of this is on the way of a request.

mod delivery;
mod event;
mod verdict;

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::time::Instant;

use crate::claims::client::ApiClient;
use crate::claims::keys::KeyPlaces;
use crate::claims::usage::delivery::Delivery;
pub use crate::claims::usage::delivery::Pace;
use crate::claims::usage::delivery::Pending;
use crate::claims::usage::event::Found;
use crate::domain::ids::Namespace;
use crate::domain::time::UnixSeconds;
use crate::sys::tasks::Stop;
use crate::sys::tasks::stop_pair;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::segments;
use crate::telemetry::segments::Position;
use crate::telemetry::tail::Line;
use crate::telemetry::tail::Tail;

/// Most events that are read and not settled.
const WINDOW_EVENTS: usize = 2000;
/// Most bytes of the log read for them, so that a log of refusals does not keep a thread busy for long.
const WINDOW_BYTES: usize = 16 * 1024 * 1024;
/// Most events that wait for a key that is refused, of all services: some megabytes. The oldest are given up.
const MAX_HELD: usize = 10_000;
/// Name of the file that remembers how far events are settled.
const POSITION_FILE: &str = "usage.position";

/// Where the position file is. It lies beside the log: neither means anything without the other.
pub fn position_file(run_dir: &Path) -> PathBuf {
    run_dir.join(POSITION_FILE)
}

/// Forgets how far events are settled: what is in the log when usage is switched on later is not reported then.
pub fn forget(run_dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(position_file(run_dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What usage needs.
#[derive(Debug)]
pub struct UsageConfig {
    /// The access log.
    pub log: PathBuf,
    /// See [`position_file`].
    pub position: PathBuf,
    /// Bytes of the log that may wait.
    pub max_backlog_bytes: u64,
    /// Sends, as the gateway's identity; events of its namespace only are reported.
    pub client: Arc<ApiClient>,
    /// Where service keys are; services without one are not reported.
    pub keys: Arc<KeyPlaces>,
    /// Counted there.
    pub metrics: Arc<Metrics>,
    /// How long things take.
    pub pace: Pace,
}

/// Reads and sends.
#[derive(Debug)]
pub struct Usage {
    /// `None` while a thread reads, and where the next one begins at the stored position.
    reader: Option<Reader>,
    namespace: Namespace,
    log: PathBuf,
    position: PathBuf,
    max_backlog_bytes: u64,
    /// Up to where everything is settled.
    committed: Position,
    /// What of that is written down, and since when.
    stored: Position,
    stored_at: Instant,
    delivery: Delivery,
    /// Events of services whose key is refused: read, and not settled. Those behind them go on.
    held: Vec<Pending>,
    metrics: Arc<Metrics>,
    pace: Pace,
}

#[derive(Debug)]
struct Reader {
    tail: Tail,
    namespace: Namespace,
    metrics: Arc<Metrics>,
}

/// A stretch of the log.
#[derive(Debug, Default)]
struct Window {
    events: Vec<Pending>,
    /// Behind its last line.
    end: Position,
    /// Whether the log goes on.
    more: bool,
}

/// How the delivery of a window ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Everything in it is settled.
    Settled,
    /// The same but for what waits for another key.
    Held,
    /// The stop was called.
    Stopped,
    /// Too much waits behind it.
    Overflow,
}

impl Usage {
    /// Goes on where the last one of this log ended. The first one leaves out what is in the log already. Reads the
    /// disk.
    pub fn build(config: UsageConfig) -> io::Result<Self> {
        let UsageConfig { log, position, max_backlog_bytes, client, keys, metrics, pace } = config;
        let namespace = client.namespace().clone();
        let tail = Tail::from_now(&log, &position)?;
        let committed = tail.stored();
        let reader = Some(Reader { tail, namespace: namespace.clone(), metrics: Arc::clone(&metrics) });
        let delivery = Delivery::new(client, keys, Arc::clone(&metrics), pace);
        let (stored, stored_at) = (committed.clone(), Instant::now());
        Ok(Self {
            stored,
            stored_at,
            reader,
            namespace,
            log,
            position,
            max_backlog_bytes,
            committed,
            delivery,
            held: Vec::new(),
            metrics,
            pace,
        })
    }

    /// Reads and sends until told to stop; then sends what is left, once, as far as there is time.
    pub async fn run(mut self, mut stop: Stop) {
        loop {
            let last = stop.is_called();
            let window = self.read().await;
            let mut events = std::mem::take(&mut self.held);
            events.extend(window.events);
            let ended = self.deliver(&events, &stop).await;
            match ended {
                Ended::Settled => self.commit(&window.end, !window.more || last).await,
                Ended::Held => {
                    self.commit_settled(&events).await;
                    if is_overflowing(&self.log, &self.committed, self.max_backlog_bytes, &self.metrics).await {
                        self.give_up_oldest(&events).await;
                    } else {
                        self.hold(events);
                    }
                }
                Ended::Overflow => self.give_up_oldest(&events).await,
                Ended::Stopped => {
                    self.commit_settled(&events).await;
                    return;
                }
            }
            self.record_lag().await;
            if window.more {
                continue;
            }
            if last {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(self.pace.poll) => {}
                () = stop.wait() => {}
            }
        }
    }

    /// Keeps what is not settled for the next attempt.
    fn hold(&mut self, events: Vec<Pending>) {
        self.held = events;
        self.held.retain(|event| !event.is_settled());
        let over = self.held.len().saturating_sub(MAX_HELD);
        if over > 0 {
            let given_up: Vec<_> = self.held.drain(..over).collect();
            self.delivery.give_up_waiting(&given_up);
        }
        self.record_waiting(&self.held);
    }

    /// Sends until everything is settled or something is in the way.
    async fn deliver(&mut self, events: &[Pending], stop: &Stop) -> Ended {
        if events.is_empty() {
            return Ended::Settled;
        }
        let (halt, halted) = stop_pair();
        let mut stop = stop.clone();
        let mut overflow = false;
        let mut deadline: Option<Instant> = None;
        let is_settled = || events.iter().all(Pending::is_settled);
        // Apart from `self`, which the looks in between need.
        let delivery = self.delivery.deliver(events, &halted);
        tokio::pin!(delivery);
        let mut committed = self.committed.clone();
        loop {
            let late = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut delivery => break,
                () = late => break,
                () = stop.wait(), if deadline.is_none() => {
                    halt.stop();
                    deadline = Some(Instant::now() + self.pace.flush);
                }
                () = tokio::time::sleep(self.pace.poll), if !overflow => {
                    self.record_waiting(events);
                    if let Some(settled) = settled_up_to(events) && settled != committed {
                        store(&self.position, &settled).await;
                        committed = settled;
                    }
                    if is_overflowing(&self.log, &committed, self.max_backlog_bytes, &self.metrics).await {
                        overflow = true;
                        halt.stop();
                    }
                }
            }
        }
        if self.committed != committed {
            (self.stored, self.committed) = (committed.clone(), committed);
        }
        match (is_settled(), deadline.is_some()) {
            (true, _) => Ended::Settled,
            (false, true) => Ended::Stopped,
            (false, false) if overflow => Ended::Overflow,
            (false, false) => Ended::Held,
        }
    }

    /// The next stretch of the log.
    async fn read(&mut self) -> Window {
        if self.reader.is_none() {
            // It begins at the stored position, before them.
            self.held.clear();
        }
        let mut reader = self.reader.take().unwrap_or_else(|| Reader {
            tail: Tail::new(&self.log, &self.position),
            namespace: self.namespace.clone(),
            metrics: Arc::clone(&self.metrics),
        });
        let read = tokio::task::spawn_blocking(move || reader.window().map(|window| (reader, window))).await;
        match read.map_err(io::Error::other).flatten() {
            Ok((reader, window)) => {
                self.reader = Some(reader);
                window
            }
            // What it had read by then is read again.
            Err(error) => {
                tracing::warn!(%error, "the access log cannot be read for usage events");
                Window { end: self.committed.clone(), ..Window::default() }
            }
        }
    }

    /// Gives up the window, and whole files until the rest is within its bound again.
    async fn give_up_oldest(&mut self, events: &[Pending]) {
        let unsettled = events.iter().filter(|event| !event.is_settled()).count();
        let Some(mut reader) = self.reader.take() else { return };
        let (log, bound) = (self.log.clone(), self.max_backlog_bytes);
        let left = tokio::task::spawn_blocking(move || {
            let left = reader.leave(&log, bound);
            (reader, left)
        });
        let Ok((reader, left)) = left.await else { return };
        let end = reader.tail.position();
        self.reader = Some(reader);
        let in_files = left.unwrap_or_else(|error| {
            tracing::warn!(%error, "the access log cannot be read for usage events");
            0
        });
        let dropped = in_files.saturating_add(unsettled as u64);
        self.metrics.usage().record_dropped(dropped);
        tracing::error!(
            dropped,
            max_backlog_bytes = self.max_backlog_bytes,
            "usage events are lost: the control plane has not taken them for so long that their backlog is full"
        );
        self.commit(&end, true).await;
    }

    /// Everything up to here is settled. Written down at once, or, while there is more to be done at once, now and
    /// then: what is behind the written position is only sent again.
    async fn commit(&mut self, position: &Position, at_once: bool) {
        self.record_waiting(&[]);
        self.committed = position.clone();
        let due = at_once || self.stored_at.elapsed() >= self.pace.poll;
        if due && self.stored != *position {
            store(&self.position, position).await;
            self.stored = position.clone();
            self.stored_at = Instant::now();
        }
    }

    async fn commit_settled(&mut self, events: &[Pending]) {
        let position = settled_up_to(events).unwrap_or_else(|| self.committed.clone());
        self.commit(&position, true).await;
    }

    /// Says how many of these events wait, and since when.
    fn record_waiting(&self, events: &[Pending]) {
        let waiting = events.iter().filter(|event| !event.is_settled());
        let oldest = waiting.clone().next().and_then(|event| event.event.occurred_at.as_deref());
        self.metrics.usage().record_oldest(oldest.and_then(UnixSeconds::parse_rfc3339));
        self.metrics.usage().record_pending(waiting.count());
    }

    async fn record_lag(&self) {
        is_overflowing(&self.log, &self.committed, u64::MAX, &self.metrics).await;
    }
}

impl Reader {
    fn window(&mut self) -> io::Result<Window> {
        let mut window = Window { more: true, ..Window::default() };
        let mut bytes = 0;
        while window.events.len() < WINDOW_EVENTS && bytes < WINDOW_BYTES {
            let Some(line) = self.tail.next_line()? else {
                window.more = false;
                break;
            };
            // The meter counts lines that are not understood.
            let Line::Whole(line) = line else { continue };
            bytes += line.len();
            match event::read(line, &self.namespace) {
                Found::Event(event) => window.events.push(Pending::new(*event, self.tail.position())),
                Found::Skipped(reason) => self.metrics.usage().record_skipped(reason, 1),
                Found::Nothing => {}
            }
        }
        window.end = self.tail.position();
        Ok(window)
    }

    /// Leaves files, oldest first, until at most `bound` bytes are behind; says how many events they held.
    fn leave(&mut self, log: &Path, bound: u64) -> io::Result<u64> {
        let mut events = 0_u64;
        let Self { tail, namespace, .. } = self;
        let mut count = |line: Line<'_>| {
            if let Line::Whole(line) = line
                && matches!(event::read(line, namespace), Found::Event(_))
            {
                events = events.saturating_add(1);
            }
        };
        while segments::bytes_behind(log, &tail.position())? > bound && tail.leave_file(&mut count)? {}
        Ok(events)
    }
}

/// Behind the last event before which all are settled.
fn settled_up_to(events: &[Pending]) -> Option<Position> {
    events.iter().take_while(|event| event.is_settled()).last().map(|event| event.behind.clone())
}

async fn store(path: &Path, position: &Position) {
    let (path, position) = (path.to_owned(), position.clone());
    let stored = tokio::task::spawn_blocking(move || position.store(&path)).await.map_err(io::Error::other);
    if let Err(error) = stored.flatten() {
        tracing::warn!(%error, "the position of usage events cannot be stored; after a restart some are sent again");
    }
}

/// Records how much waits. Whether it is too much, and the oldest of it is in a file that can be given up.
async fn is_overflowing(log: &Path, committed: &Position, bound: u64, metrics: &Metrics) -> bool {
    let (log, committed) = (log.to_owned(), committed.clone());
    let looked = tokio::task::spawn_blocking(move || {
        let behind = segments::bytes_behind(&log, &committed)?;
        let over = behind > bound && segments::is_followed(&log, &committed)?;
        Ok::<_, io::Error>((behind, over))
    });
    match looked.await {
        Ok(Ok((behind, over))) => {
            metrics.usage().record_lag(behind);
            over
        }
        Ok(Err(_)) | Err(_) => false,
    }
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;

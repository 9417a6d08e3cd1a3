//! One live socket as the rest sees it: commands in, answers out, whether it is alive, how it is to end.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;

use crate::api::problem::Problem;
use crate::domain::secret::Secret;
use crate::wire::pairing::MAX_COMMANDS;
use crate::wire::pairing::REPLACED;
use crate::wire::pairing::Relayed;
use crate::wire::pairing::Terminal;

/// Commands of a session that wait for their answers at a time: as many as the bridge takes to its gateway.
pub(super) const MAX_PENDING: usize = MAX_COMMANDS;
/// Messages that wait to be written: every pending command, and a few beats.
pub(super) const QUEUE: usize = MAX_PENDING + 8;
/// Seconds after which a command that found no room may come again.
const RETRY_SECONDS: u32 = 1;

/// How we end a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goodbye {
    /// Another bridge has the session now.
    Replaced,
    /// The session's time is over.
    Expired,
    /// Its owner has ended it.
    Ended,
    /// The session is no more.
    NotFound,
    /// The API stops.
    Stopping,
    /// A message was too large to be read.
    TooLarge,
    /// Nothing is heard, or the other end is gone: nobody to tell.
    Gone,
}

impl Goodbye {
    /// Code and reason of the closing frame (RFC 6455 section 7.4.1).
    pub(super) const fn wire(self) -> (u16, &'static str) {
        match self {
            Self::Replaced => (1000, REPLACED),
            Self::Expired => (1000, Terminal::Expired.wire().1),
            Self::Ended => (1000, Terminal::Ended.wire().1),
            Self::NotFound => (1000, Terminal::NotFound.wire().1),
            Self::Stopping => (1001, "the API stops"),
            Self::TooLarge => (1009, "message too large"),
            Self::Gone => (1000, ""),
        }
    }
}

/// Why a command stays without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// The socket ended.
    Disconnected,
    /// Some answer was larger than what is read; the socket ended with it.
    TooLarge,
}

impl From<Lost> for Problem {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Disconnected => failed(StatusCode::GATEWAY_TIMEOUT, "the gateway disconnected before it answered"),
            Lost::TooLarge => failed(StatusCode::BAD_GATEWAY, "an answer of the gateway was too large to be relayed"),
        }
    }
}

/// `GATEWAY_RELAY_FAILED`.
pub(super) fn failed(status: StatusCode, text: &'static str) -> Problem {
    Problem::new(status, "GATEWAY_RELAY_FAILED", text)
}

/// Whoever waits for an answer.
type Waiter = oneshot::Sender<Result<Relayed, Lost>>;

/// One live socket.
pub(super) struct Line {
    /// Tells it from every other of this process.
    pub(super) number: u64,
    outbound: mpsc::Sender<Secret>,
    /// By request id; `None` once the socket has ended.
    waiting: Mutex<Option<HashMap<String, Waiter>>>,
    heard: watch::Sender<()>,
    goodbye: watch::Sender<Option<Goodbye>>,
    expires_at_ms: AtomicI64,
}

impl fmt::Debug for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Line").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Line {
    /// A line whose messages are written by whoever holds the other end of `outbound`.
    pub(super) fn new(number: u64, outbound: mpsc::Sender<Secret>, expires_at_ms: i64) -> Self {
        Self {
            number,
            outbound,
            waiting: Mutex::new(Some(HashMap::new())),
            heard: watch::channel(()).0,
            goodbye: watch::channel(None).0,
            expires_at_ms: AtomicI64::new(expires_at_ms),
        }
    }

    /// Sends a command and waits for its answer.
    pub(super) async fn command(&self, request_id: &str, frame: Secret, timeout: Duration) -> Result<Relayed, Problem> {
        let (waiter, answered) = oneshot::channel();
        let _place = self.expect(request_id, waiter)?;
        let exchange = async {
            self.outbound.send(frame).await.map_err(|_| failed(StatusCode::BAD_GATEWAY, NOT_SENT))?;
            answered.await.unwrap_or(Err(Lost::Disconnected)).map_err(Problem::from)
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(failed(StatusCode::GATEWAY_TIMEOUT, "the gateway did not answer in time")),
        }
    }

    /// A place for one answer; given back when dropped.
    fn expect(&self, request_id: &str, waiter: Waiter) -> Result<Place<'_>, Problem> {
        let mut waiting = self.waiting();
        let waiting = waiting.as_mut().ok_or_else(|| failed(StatusCode::BAD_GATEWAY, NOT_SENT))?;
        if waiting.len() >= MAX_PENDING {
            return Err(Problem::rate_limited(RETRY_SECONDS));
        }
        waiting.insert(request_id.to_owned(), waiter);
        Ok(Place { line: self, request_id: request_id.to_owned() })
    }

    /// Hands an answer to whoever waits for it; nobody does for an id that is unknown or whose time is over.
    pub(super) fn answer(&self, relayed: Relayed) {
        let waiter = self.waiting().as_mut().and_then(|waiting| waiting.remove(&relayed.request_id));
        if let Some(waiter) = waiter {
            let _ = waiter.send(Ok(relayed));
        }
    }

    /// Queues a message that may as well be lost: where the queue is full the other end does not read.
    pub(super) fn mention(&self, frame: Secret) {
        let _ = self.outbound.try_send(frame);
    }

    /// Something has come from the other end.
    pub(super) fn note_heard(&self) {
        self.heard.send_replace(());
    }

    /// Whether anything is heard within `patience` of now.
    pub(super) async fn is_heard(&self, patience: Duration) -> bool {
        self.is_heard_after(patience, || {}).await
    }

    /// The same, where the other end is asked for a sign of life.
    pub(super) async fn answers(&self, question: Secret, patience: Duration) -> bool {
        self.is_heard_after(patience, || self.mention(question)).await
    }

    async fn is_heard_after(&self, patience: Duration, ask: impl FnOnce()) -> bool {
        // Listening first: the answer may come before we are back.
        let mut heard = self.heard.subscribe();
        ask();
        matches!(tokio::time::timeout(patience, heard.changed()).await, Ok(Ok(())))
    }

    /// Tells the socket to end. What it was told first counts.
    pub(super) fn end(&self, goodbye: Goodbye) {
        self.goodbye.send_if_modified(|told| {
            let first = told.is_none();
            if first {
                *told = Some(goodbye);
            }
            first
        });
    }

    /// Returns what the socket is to end with.
    pub(super) async fn told_to_end(&self) -> Goodbye {
        let mut told = self.goodbye.subscribe();
        match told.wait_for(Option::is_some).await {
            Ok(goodbye) => goodbye.unwrap_or(Goodbye::Gone),
            // We hold the other end ourselves.
            Err(_) => Goodbye::Gone,
        }
    }

    /// Nothing more is written or read: whoever waits, waits no longer.
    pub(super) fn close(&self, lost: Lost) {
        let waiting = self.waiting().take();
        for (_, waiter) in waiting.into_iter().flatten() {
            let _ = waiter.send(Err(lost));
        }
    }

    /// When its session ends, in Unix milliseconds.
    pub(super) fn expires_at_ms(&self) -> i64 {
        self.expires_at_ms.load(Ordering::Relaxed)
    }

    /// Sets [`Line::expires_at_ms`].
    pub(super) fn set_expiry(&self, at_ms: i64) {
        self.expires_at_ms.store(at_ms, Ordering::Relaxed);
    }

    fn waiting(&self) -> MutexGuard<'_, Option<HashMap<String, Waiter>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const NOT_SENT: &str = "the command could not be sent to the gateway";

/// A place among those who wait for answers.
struct Place<'a> {
    line: &'a Line,
    request_id: String,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.line.waiting().as_mut() {
            waiting.remove(&self.request_id);
        }
    }
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;

//! Which agents a service's owner has approved, read from the control plane by the service itself.
//!
//! One task reads; requests only look. A read happens every ten seconds, and at once when somebody asks who
//! is not among the approved: all who ask meanwhile share one read, and there is at most one per second, so
//! strangers cost the control plane nothing that counts. After half a minute without a read nothing holds.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::decision::Caller;
use crate::domain::ids::Namespace;
use crate::domain::ids::PublicKey;
use crate::domain::time::UnixSeconds;
use crate::sys::tasks::Stop;

/// How the reads are spread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Time between the beginnings of two reads when nobody asks.
    refresh: Duration,
    /// Least time between the beginnings of two reads.
    breath: Duration,
    /// How long approvals hold after the read that found them began.
    hold: Duration,
    /// How long a request waits for the read it caused.
    patience: Duration,
}

/// The pace of the demo; the hold is the gateway's.
pub(super) const PACE: Pace = Pace {
    refresh: Duration::from_secs(10),
    breath: Duration::from_secs(1),
    hold: Duration::from_secs(30),
    patience: Duration::from_secs(5),
};

/// One service's approved agents: namespace and key, and the second after which the approval is over
/// (`None`: no end).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Approved(HashMap<(Namespace, PublicKey), Option<UnixSeconds>>);

impl Approved {
    /// Adds one.
    pub fn insert(&mut self, namespace: Namespace, key: PublicKey, expires_at: Option<UnixSeconds>) {
        self.0.insert((namespace, key), expires_at);
    }

    fn contains(&self, caller: &Caller, now: UnixSeconds) -> bool {
        let entry = self.0.get(&(caller.namespace.clone(), caller.key));
        entry.is_some_and(|end| end.is_none_or(|end| now < end))
    }
}

/// What is known of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The owner approved this key for this service.
    Approved,
    /// Nobody did.
    Unapproved,
    /// The approvals cannot be read.
    Unknown,
}

/// What has been read.
#[derive(Debug, Default)]
struct Held {
    /// Reads begun so far.
    begun: u64,
    /// The number of the last read that ended.
    ended: u64,
    /// The approved, and when the read that found them began.
    found: Option<(Arc<Approved>, Instant)>,
}

/// Where requests look.
#[derive(Debug, Clone)]
pub(super) struct Approvals {
    pace: Pace,
    held: watch::Receiver<Held>,
    wanted: mpsc::Sender<()>,
}

/// Where reads are published.
#[derive(Debug)]
pub(super) struct Reader {
    pace: Pace,
    held: watch::Sender<Held>,
    wanted: mpsc::Receiver<()>,
}

/// Both ends; nothing is read yet.
pub(super) fn approvals(pace: Pace) -> (Approvals, Reader) {
    let (sender, held) = watch::channel(Held::default());
    // One wish is as good as many.
    let (wanted, wishes) = mpsc::channel(1);
    (Approvals { pace, held, wanted }, Reader { pace, held: sender, wanted: wishes })
}

impl Approvals {
    /// Whether this caller is approved; who is not known causes a read, and is judged by what it finds.
    pub(super) async fn judge(&self, caller: &Caller, now: UnixSeconds) -> Standing {
        let begun = match self.look(caller, now) {
            (Standing::Approved, _) => return Standing::Approved,
            (Standing::Unapproved | Standing::Unknown, begun) => begun,
        };
        // Where a wish is waiting already it is as good as ours.
        let _ = self.wanted.try_send(());
        // One that is under way may have missed the approval that matters here: only a later one counts.
        let mut held = self.held.clone();
        let later = held.wait_for(|held| held.ended > begun);
        // Late or never: judged by what is there.
        let _ = tokio::time::timeout(self.pace.patience, later).await;
        self.look(caller, now).0
    }

    fn look(&self, caller: &Caller, now: UnixSeconds) -> (Standing, u64) {
        let held = self.held.borrow();
        let standing = match &held.found {
            Some((approved, began)) if began.elapsed() <= self.pace.hold => {
                if approved.contains(caller, now) {
                    Standing::Approved
                } else {
                    Standing::Unapproved
                }
            }
            Some(_) | None => Standing::Unknown,
        };
        (standing, held.begun)
    }
}

impl Reader {
    /// Reads until the stop. A read that fails changes nothing but the age of what is held.
    pub(super) async fn run<F, E>(mut self, mut read: impl FnMut() -> F, mut stop: Stop)
    where
        F: Future<Output = Result<Approved, E>>,
        E: std::fmt::Display,
    {
        loop {
            let began = Instant::now();
            // Wishes up to here are met by this read; what comes while it runs is met by the next.
            while self.wanted.try_recv().is_ok() {}
            self.held.send_modify(|held| held.begun = held.begun.saturating_add(1));
            let found = tokio::select! {
                () = stop.wait() => return,
                found = read() => found,
            };
            if let Err(error) = &found {
                tracing::warn!(%error, "the approvals of the demo service cannot be read");
            }
            self.held.send_modify(|held| {
                held.ended = held.begun;
                if let Ok(found) = found {
                    held.found = Some((Arc::new(found), began));
                }
            });
            tokio::select! {
                () = stop.wait() => return,
                () = tokio::time::sleep_until(began + self.pace.refresh) => {}
                wish = self.wanted.recv() => {
                    // Nobody can wish any more: nobody looks either.
                    if wish.is_none() {
                        return;
                    }
                    tokio::select! {
                        () = stop.wait() => return,
                        () = tokio::time::sleep_until(began + self.pace.breath) => {}
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "approvals_tests.rs"]
mod tests;

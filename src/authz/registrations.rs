//! Registering refused callers with the control plane, off the way of every other request.
//!
//! A refusal asks [`Registrations::ask`] and is told what is known, after at most [`WAIT`]; the asking itself is done
//! by [`Registrar`], the one task that owns it. Promises: one registration under way per (key, namespace, service);
//! at most [`MAX_WAITING`] refusals wait, each for its own answer only; no lock is held while anything waits;
//! what is remembered is bounded; nothing here approves anybody.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::watch;

use crate::domain::approval::Approval;
use crate::domain::decision::Caller;
use crate::domain::ids::ConnectionId;
use crate::domain::ids::Namespace;
use crate::domain::ids::PublicKey;
use crate::domain::registration::Registration;
use crate::domain::registration::Submission;
use crate::domain::snapshot::Snapshot;
use crate::domain::time::MonotonicMillis;
use crate::domain::time::Now;
use crate::sys::clock::Clock;
use crate::sys::tasks::Stop;
use crate::telemetry::decisions::ClaimSubmit;
use crate::telemetry::decisions::Decisions;
use crate::wire::registration;
use crate::wire::state;
use crate::wire::state::proto;

/// How long a refusal waits for its registration, at most. Our Envoy gives a check 500 ms.
pub(super) const WAIT: Duration = Duration::from_millis(300);
/// Refusals that wait at a time; further ones are told at once what is known.
const MAX_WAITING: usize = 32;
/// Registrations under way at a time; further callers are registered when they come again.
const MAX_PENDING: usize = 64;
/// Outcomes remembered. One holds at most about 1 kB of text.
const MAX_KNOWN: usize = 4096;
/// How long the control plane's answer stands before it is asked again, in milliseconds.
const ASK_AGAIN_MS: u64 = 30_000;
/// The same where there was no answer: whatever was in the way may be gone soon.
const TRY_AGAIN_MS: u64 = 5_000;
/// How long an outcome is the last that is known, in milliseconds.
const FORGET_MS: u64 = 600_000;
/// How long admin may take for one. It gives up earlier by itself.
const MAX_CALL: Duration = Duration::from_secs(20);
/// How often outcomes that no longer count are dropped.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A refused request, as far as its registration needs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused<'a> {
    /// Who signed it.
    pub(super) caller: &'a Caller,
    /// For which connection, which must be one there is.
    pub(super) service: &'a ConnectionId,
    /// The client.
    pub(super) address: Option<IpAddr>,
    /// Ties the log line to the refusal's.
    pub(super) decision_id: &'a str,
    /// How long it may wait.
    pub(super) wait: Duration,
}

/// The refusals' end; cheap to clone.
#[derive(Debug, Clone)]
pub struct Registrations {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    waiting: Semaphore,
}

/// What an approval is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    key: PublicKey,
    namespace: Namespace,
    service: ConnectionId,
}

/// One outcome.
#[derive(Debug, Clone)]
struct Known {
    outcome: Arc<Registration>,
    /// From when on the control plane is asked again.
    stale: MonotonicMillis,
    /// From when on it is not worth telling.
    over: MonotonicMillis,
}

/// Where the outcome of one that is under way will stand; an error where it never will.
type Outcome = watch::Receiver<Option<Arc<Registration>>>;

/// What is under way and what is known. Outcomes live in two generations, so that a full table forgets the older half
/// at once instead of looking for the oldest.
#[derive(Debug, Default)]
struct Table {
    pending: HashMap<Place, Outcome>,
    recent: HashMap<Place, Known>,
    older: HashMap<Place, Known>,
}

/// One registration on its way.
#[derive(Debug)]
struct Job {
    place: Place,
    message: proto::Register,
    decision_id: String,
    outcome: watch::Sender<Option<Arc<Registration>>>,
}

/// What a refusal found.
enum Begun {
    /// Known well enough; nothing to wait for.
    Known(Arc<Registration>),
    /// Under way, by this refusal or by another; and what was known before.
    Pending(Outcome, Option<Arc<Registration>>),
    /// Not under way for want of room; and what was known before.
    Full(Option<Arc<Registration>>),
}

impl Registrations {
    /// The two ends. Without the registrar at work every refusal is told what is known, which is nothing.
    pub fn new() -> (Self, Registrar) {
        let (queue, jobs) = mpsc::channel(MAX_PENDING);
        let shared = Arc::new(Shared { table: Mutex::default(), waiting: Semaphore::new(MAX_WAITING) });
        (Self { shared: Arc::clone(&shared), queue }, Registrar { shared, jobs })
    }

    /// Registers the caller where that is due, and says what is known of it by the end of the wait.
    pub(super) async fn ask(&self, refused: Refused<'_>, now: Now) -> Option<Arc<Registration>> {
        let (mut outcome, last) = match self.begin(refused, now.monotonic) {
            Begun::Known(outcome) => return Some(outcome),
            Begun::Full(last) => return last,
            Begun::Pending(outcome, last) => (outcome, last),
        };
        let Ok(_place) = self.shared.waiting.try_acquire() else { return last };
        let told = tokio::time::timeout(refused.wait, outcome.wait_for(Option::is_some)).await;
        told.ok().and_then(Result::ok).and_then(|told| told.clone()).or(last)
    }

    /// Forgets what was told of claims that were decided since: their agents are registered anew, or told what came of it.
    pub fn forget(&self, ended: &[proto::Approval]) {
        let places = ended.iter().filter_map(state::decode_approval).filter_map(|(key, grant)| {
            let namespace = Namespace::parse(grant.namespace).ok()?;
            Some(Place { key, namespace, service: ConnectionId::parse(grant.service).ok()? })
        });
        let mut table = self.shared.table();
        for place in places {
            table.recent.remove(&place);
            table.older.remove(&place);
        }
    }

    fn begin(&self, refused: Refused<'_>, now: MonotonicMillis) -> Begun {
        let Refused { caller, service, address, decision_id, wait: _ } = refused;
        let place = Place { key: caller.key, namespace: caller.namespace.clone(), service: service.clone() };
        let mut table = self.shared.table();
        let known = table.known(&place).filter(|known| now < known.over);
        let last = match known {
            Some(known) if now < known.stale => return Begun::Known(Arc::clone(&known.outcome)),
            known => known.map(|known| Arc::clone(&known.outcome)),
        };
        if let Some(outcome) = table.pending.get(&place) {
            return Begun::Pending(outcome.clone(), last);
        }
        // As many places as the queue has: whoever finds one here finds one there, unless the registrar has ended.
        if table.pending.len() >= MAX_PENDING {
            return Begun::Full(last);
        }
        let (sender, outcome) = watch::channel(None);
        let message = registration::encode(caller, service, address);
        let job = Job { place: place.clone(), message, decision_id: decision_id.to_owned(), outcome: sender };
        if self.queue.try_send(job).is_err() {
            return Begun::Full(last);
        }
        table.pending.insert(place, outcome.clone());
        Begun::Pending(outcome, last)
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change of it is one step: nobody leaves it half done.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an outcome down and tells those who wait.
    fn finish(
        &self,
        place: Place,
        outcome: Arc<Registration>,
        tell: &watch::Sender<Option<Arc<Registration>>>,
        now: Now,
    ) {
        let at = now.monotonic;
        let mut table = self.table();
        table.pending.remove(&place);
        let pause = if outcome.submission.is_answered() { ASK_AGAIN_MS } else { TRY_AGAIN_MS };
        let stale = MonotonicMillis(at.0.saturating_add(pause));
        let held = table.known(&place).filter(|known| at < known.over && known.outcome.submission.is_answered());
        let known = match held {
            // Not asked, so nothing is newer than what was answered before.
            Some(held) if outcome.submission == Submission::RateLimited => Known { stale, ..held.clone() },
            Some(_) | None => Known { outcome, stale, over: MonotonicMillis(at.0.saturating_add(FORGET_MS)) },
        };
        let told = Arc::clone(&known.outcome);
        table.remember(place, known);
        drop(table);
        tell.send_replace(Some(told));
    }

    /// Forgets what is over, and who has been approved since: should that end, it is asked anew.
    fn sweep(&self, snapshot: Option<&Snapshot>, now: Now) {
        let counts = |place: &Place, known: &Known| now.monotonic < known.over && !is_approved(place, snapshot, now);
        let mut table = self.table();
        table.recent.retain(|place, known| counts(place, known));
        table.older.retain(|place, known| counts(place, known));
    }
}

impl Table {
    fn known(&self, place: &Place) -> Option<&Known> {
        self.recent.get(place).or_else(|| self.older.get(place))
    }

    fn remember(&mut self, place: Place, known: Known) {
        self.older.remove(&place);
        if self.recent.len() >= MAX_KNOWN / 2 && !self.recent.contains_key(&place) {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(place, known);
    }
}

fn is_approved(place: &Place, snapshot: Option<&Snapshot>, now: Now) -> bool {
    snapshot.is_some_and(|snapshot| {
        let hold = u64::try_from(snapshot.settings.claims_hold.as_millis()).unwrap_or(u64::MAX);
        let (namespace, service) = (place.namespace.as_str(), place.service.as_str());
        snapshot.approvals.judge(&place.key, namespace, service, now, hold) == Approval::Approved
    })
}

/// The registering end: one task.
#[derive(Debug)]
pub struct Registrar {
    shared: Arc<Shared>,
    jobs: mpsc::Receiver<Job>,
}

impl Registrar {
    /// Registers until told to stop. `register` asks admin and answers `None` where admin is away; `state` is where
    /// the newest snapshot is found.
    pub async fn run<C, F, A>(
        mut self,
        register: F,
        state: Arc<ArcSwapOption<Snapshot>>,
        decisions: Arc<Decisions>,
        clock: C,
        mut stop: Stop,
    ) where
        C: Clock,
        F: Fn(proto::Register) -> A,
        A: Future<Output = Option<proto::Registered>> + Send,
    {
        let mut calls = FuturesUnordered::new();
        let mut ticks = tokio::time::interval(SWEEP_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.wait() => return,
                Some(job) = self.jobs.recv() => calls.push(call(&register, job)),
                Some((job, answer)) = calls.next() => {
                    let now = clock.now();
                    let outcome = Arc::new(read(answer.as_ref()));
                    decisions.record_claim_submit(&ClaimSubmit {
                        decision_id: &job.decision_id,
                        at: now.wall,
                        connection: job.place.service.as_str(),
                        namespace: job.place.namespace.as_str(),
                        key: &job.place.key,
                        outcome: &outcome,
                    });
                    self.shared.finish(job.place, outcome, &job.outcome, now);
                }
                _ = ticks.tick() => self.shared.sweep(state.load().as_deref(), clock.now()),
            }
        }
    }
}

async fn call<F, A>(register: &F, job: Job) -> (Job, Option<proto::Registered>)
where
    F: Fn(proto::Register) -> A,
    A: Future<Output = Option<proto::Registered>>,
{
    let asked = register(job.message.clone());
    let answer = tokio::time::timeout(MAX_CALL, asked).await.ok().flatten();
    (job, answer)
}

fn read(answer: Option<&proto::Registered>) -> Registration {
    let silent = || {
        let error = "the gateway's control process did not answer; it may be restarting";
        Registration::unsent(Submission::FailedBeforeResponse, error)
    };
    answer.map_or_else(silent, registration::decode)
}

#[cfg(test)]
#[path = "registrations_tests.rs"]
mod tests;

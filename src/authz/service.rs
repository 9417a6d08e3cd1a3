//! The answer to a check: decode, ask the gate, admit, encode.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use envoy_types::pb::envoy::service::auth::v3::authorization_server::Authorization;
use tonic::Request;
use tonic::Response;
use tonic::Status;

use crate::authz::admission::Admissions;
use crate::authz::journal::Failing;
use crate::authz::registrations::Refused;
use crate::authz::registrations::Registrations;
use crate::authz::registrations::WAIT;
use crate::authz::shared::SharedWindow;
use crate::authz::traces::Traces;
use crate::domain::canary;
use crate::domain::decision::Admission;
use crate::domain::decision::Denial;
use crate::domain::decision::DenyReason;
use crate::domain::decision::Passed;
use crate::domain::decision::Plan;
use crate::domain::decision::Verdict;
use crate::domain::registration::Registering;
use crate::domain::registration::Registration;
use crate::domain::registration::Submission;
use crate::domain::request::RequestView as _;
use crate::domain::request::Stage;
use crate::domain::snapshot::Snapshot;
use crate::domain::time::Now;
use crate::domain::time::UnixMillis;
use crate::domain::trace::TraceContext;
use crate::gate::Gate;
use crate::gate::Scratch;
use crate::sys::clock;
use crate::sys::clock::Clock;
use crate::sys::clock::Stopwatch;
use crate::sys::own_use;
use crate::sys::random;
use crate::telemetry::decision_times::DecisionTimes;
use crate::telemetry::decision_times::Times;
use crate::telemetry::decisions::Decided;
use crate::telemetry::decisions::DecisionIds;
use crate::telemetry::decisions::Decisions;
use crate::telemetry::decisions::Outcome;
use crate::wire::answer;
use crate::wire::answer::Answering;
use crate::wire::answer::CheckResponse;
use crate::wire::envoy;
use crate::wire::envoy::Check;
use crate::wire::envoy::CheckRequest;
use crate::wire::envoy::Unreadable;
use crate::wire::otlp;
use crate::wire::otlp::DecisionSpan;
use crate::wire::state::proto;

thread_local! {
    /// Buffers of the gate; a decision never waits, so it never shares its thread.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Everything a decision needs, shared by all requests.
#[derive(Debug)]
pub struct Authz<C> {
    gate: Gate,
    state: Arc<ArcSwapOption<Snapshot>>,
    admissions: Admissions,
    shared: Option<Arc<SharedWindow>>,
    decisions: Arc<Decisions>,
    ids: DecisionIds,
    registrations: Registrations,
    clock: C,
    draining: AtomicBool,
    times: DecisionTimes,
    traces: Traces,
}

/// Where it is told what was decided.
#[derive(Debug)]
pub struct Told {
    /// Log and counters.
    pub decisions: Arc<Decisions>,
    /// What each decision is called there.
    pub ids: DecisionIds,
    /// Spans.
    pub traces: Traces,
}

/// How an authz stands, whoever signed a request: found in one look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// Checks are decided at all: there is a state, admissions can be written down, and this process does not drain.
    /// Whatever else may be against a request, the answer to its check says so.
    pub decides: bool,
    /// A request signed now would be decided: also the replay window is not too young, and can be asked.
    pub ready: bool,
    /// Why admissions cannot be written down; `None`: they can.
    pub failing: Option<Failing>,
    /// The window that replicas share cannot be asked.
    pub store_failing: bool,
    /// What was signed before the window began is refused, and so is what is signed now.
    pub starting: bool,
    /// Why it is not ready, in a few words of ASCII; `None`: it is.
    pub why: Option<&'static str>,
}

/// What a refusal leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nothing: another reason, or nothing there to register.
    Nothing,
    /// Nothing: this gateway registers nobody.
    Disabled,
    /// Nothing: this gateway does not register agents of other namespaces.
    Foreign,
    /// The control plane is asked for an approval.
    Register,
}

/// A refusal on its way out. It is written down when it is dropped: a client that leaves while its registration is
/// waited for was refused all the same.
struct Refusal<'a, C: Clock> {
    authz: &'a Authz<C>,
    stage: Stage,
    check: &'a Check<'a>,
    decision_id: &'a str,
    now: Now,
    denial: Box<Denial>,
}

impl<C: Clock> Drop for Refusal<'_, C> {
    fn drop(&mut self) {
        let outcome = Outcome::Denied(&self.denial);
        self.authz.record(self.stage, self.check, self.decision_id, self.now, outcome);
    }
}

/// What Envoy is to do.
enum Ruling {
    /// Head stage: ask again with the body.
    Proceed,
    /// The nonce is admitted and written down.
    Allow(Box<Plan>),
    /// The same here; the window that all replicas share is to be asked as well.
    Ask(Box<Asking>),
}

/// What is against a request, and what that leads to.
type Against = (Box<Denial>, Next);

/// What all replicas are to be asked.
struct Asking {
    plan: Box<Plan>,
    admission: Admission,
    /// How old a signature may be.
    max_age: Duration,
}

impl<C: Clock> Authz<C> {
    /// Puts the parts together. `state` is where the subscriber leaves the newest snapshot.
    pub fn new(
        gate: Gate,
        state: Arc<ArcSwapOption<Snapshot>>,
        admissions: Admissions,
        shared: Option<Arc<SharedWindow>>,
        told: Told,
        registrations: Registrations,
        clock: C,
    ) -> Self {
        let Told { decisions, ids, traces } = told;
        let (draining, times) = (AtomicBool::new(false), DecisionTimes::default());
        Self { gate, state, admissions, shared, decisions, ids, registrations, clock, draining, times, traces }
    }

    /// From now on every check is answered with `GATEWAY_DRAINING`.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Where spans go.
    pub const fn traces(&self) -> &Traces {
        &self.traces
    }

    /// Admits nothing any more, so that another process may ([`Admissions::seal`]).
    pub fn seal(&self) {
        self.admissions.seal();
    }

    /// How it stands now; asking changes nothing.
    pub fn standing(&self) -> Standing {
        let (state, now) = (self.state.load(), self.clock.now());
        let max_age = state.as_ref().map(|state| state.settings.max_age);
        let of_shared = |shared: &Arc<SharedWindow>| shared.is_starting(now.seconds(), max_age.unwrap_or_default());
        let failing = self.admissions.failing();
        let store_failing = self.shared.as_ref().is_some_and(|shared| !shared.is_usable());
        let new_here = state.as_ref().is_some_and(|state| state.is_starting(now));
        let starting = self.admissions.is_starting(now) || self.shared.as_ref().is_some_and(of_shared) || new_here;
        let draining = self.draining.load(Ordering::Relaxed);
        let why = [
            (draining, "it drains"),
            // Before the next one, which it leads to: admin is not asked before the window has a name.
            (
                self.shared.as_ref().is_some_and(|shared| shared.is_apart()),
                "its clock and that of the replay window that replicas share are too far apart",
            ),
            (state.is_none(), "it has no state: admin has sent it none, or does not let it decide"),
            (
                failing == Some(Failing::Full),
                "the volume of its run folder is full, so admissions cannot be written down",
            ),
            (failing == Some(Failing::Otherwise), "admissions cannot be written down in its run folder"),
            (store_failing, "the replay window that replicas share cannot be asked"),
            (starting, "its replay window has just begun"),
        ];
        let why = why.into_iter().find_map(|(holds, why)| holds.then_some(why));
        let decides = state.is_some() && !draining && failing.is_none();
        Standing { decides, ready: why.is_none(), failing, store_failing, starting, why }
    }

    /// What is to be done from time to time, whether somebody asks or not.
    pub fn tend(&self) {
        let max_age = self.state.load().as_ref().map(|state| state.settings.max_age);
        if let (Some(shared), Some(max_age)) = (&self.shared, max_age) {
            // Before the first request that relies on it.
            shared.want(max_age);
        }
        self.admissions.tend(max_age.unwrap_or_default(), self.clock.now());
    }

    /// The counters for admin.
    pub fn report(&self) -> proto::Report {
        let counts = self.decisions.counts();
        let (entries, capacity) = self.admissions.fill();
        let standing = self.standing();
        proto::Report {
            started_at_ms: counts.started_at.0,
            allowed: counts.allowed,
            denied: counts.denied.into_iter().map(|(code, count)| (code.to_owned(), count)).collect(),
            replay_entries: u64::try_from(entries).unwrap_or(u64::MAX),
            replay_capacity: u64::try_from(capacity).unwrap_or(u64::MAX),
            ready: standing.ready,
            decision_times: self.times.totals().iter().map(encode_times).collect(),
            replay_share_refused: self.admissions.share_refusals(),
            process: own_use::look().map(|uses| proto::ProcessUse {
                resident_bytes: uses.resident_bytes,
                open_files: uses.open_files,
                max_open_files: uses.max_open_files,
            }),
            spans: self.traces.counts().map(|(result, count)| (result.to_owned(), count)).collect(),
            replay_failing: standing.failing.is_some(),
            replay_volume_full: standing.failing == Some(Failing::Full),
            replay_store_failing: standing.store_failing,
            replay_starting: standing.starting,
        }
    }

    /// Answers one check. Every outcome is an answer; what cannot be decided is refused.
    ///
    /// Does not wait, but where an approval is missing that may be registered, and where replicas share a replay window.
    /// `timeout` is how long Envoy waits, where
    /// it said so; `context` is that of the trace the request belongs to.
    pub async fn answer(
        &self,
        stage: Result<Stage, Unreadable>,
        timeout: Option<Duration>,
        context: Option<TraceContext>,
        request: &CheckRequest,
    ) -> CheckResponse {
        let watch = Stopwatch::start();
        let now = self.clock.now();
        let id = self.ids.next();
        let check = stage.and_then(|stage| Check::read(request).map(|check| (stage, check)));
        let readable = check.as_ref().ok().map(|(_, check)| check);
        let answering = Answering { check: readable, decision_id: &id, at: now.wall };
        let (stage, check) = match &check {
            Ok((stage, check)) => (*stage, check),
            Err(unreadable) => {
                tracing::error!(reason = %unreadable, "a check could not be read");
                return answering.deny(&Denial::from(DenyReason::Unavailable), Registering::Untold);
            }
        };
        let ruled = match self.rule(stage, check, now) {
            // Apart for the same reason as below.
            Ok(Ruling::Ask(asking)) => Box::pin(self.ask(*asking, now)).await,
            ruled => ruled,
        };
        let decided = ruled.and_then(|ruling| self.conclude(ruling, stage, check, &answering, now));
        let took = watch.elapsed();
        self.times.record(stage, decided.is_ok(), took);
        let canary = decided.as_ref().err().is_some_and(|(denial, _)| is_canary(check, denial));
        let traced = context.filter(|context| context.sampled && !canary && self.traces.are_wanted());
        if let Some(context) = traced {
            self.trace(context, stage, &id, &decided, took, now);
        }
        let (denial, next) = match decided {
            Ok(response) => return response,
            Err(refused) => refused,
        };
        let mut refusal = Refusal { authz: self, stage, check, decision_id: &id, now, denial };
        let told = match next {
            // Apart, so that a request that waits for nothing carries no room for a wait.
            Next::Register => Box::pin(self.register(&refusal, timeout)).await,
            Next::Foreign => Some(Arc::new(Registration::foreign())),
            Next::Disabled | Next::Nothing => None,
        };
        if told.as_ref().is_some_and(|told| told.submission == Submission::RateLimited) {
            refusal.denial.reason = DenyReason::ClaimSubmitRateLimited;
        }
        let registering = match (&told, next) {
            (Some(told), _) => Registering::Told(told),
            (None, Next::Disabled) => Registering::Disabled,
            (None, Next::Nothing | Next::Foreign | Next::Register) => Registering::Untold,
        };
        answering.deny(&refusal.denial, registering)
    }

    /// The decision as far as it needs nobody else, or what is against the request and what that leads to.
    fn rule(&self, stage: Stage, check: &Check<'_>, now: Now) -> Result<Ruling, Against> {
        let state = self.state.load();
        let snapshot = state.as_deref();
        self.judge(stage, check, snapshot, now).map_err(|denial| {
            let next = next(&denial, snapshot);
            (denial, next)
        })
    }

    /// Asks the window that all replicas share.
    async fn ask(&self, asking: Asking, now: Now) -> Result<Ruling, Against> {
        let Asking { plan, admission, max_age } = asking;
        let admitted = match &self.shared {
            Some(shared) => shared.admit(&admission, max_age, now, &self.clock).await,
            None => Err(DenyReason::ReplayStoreUnavailable),
        };
        match admitted {
            Ok(()) => Ok(Ruling::Allow(plan)),
            Err(reason) => Err((refuse(reason, &plan), Next::Nothing)),
        }
    }

    /// The answer to a request that nothing is against.
    fn conclude(
        &self,
        ruling: Ruling,
        stage: Stage,
        check: &Check<'_>,
        answering: &Answering<'_>,
        now: Now,
    ) -> Result<CheckResponse, Against> {
        match ruling {
            Ruling::Proceed => Ok(answer::proceed()),
            // It was asked before; an answer that was not waited for is none.
            Ruling::Ask(asking) => Err((refuse(DenyReason::Unavailable, &asking.plan), Next::Nothing)),
            Ruling::Allow(plan) => {
                let response = answering.allow(&plan).map_err(|reason| (refuse(reason, &plan), Next::Nothing))?;
                let connection = plan.connection.settings.id.as_str();
                self.record(stage, check, answering.decision_id, now, Outcome::Allowed(connection, &plan.caller));
                if let Some(due) = plan.rotation_overdue {
                    self.decisions.record_rotation_warning(answering.decision_id, now.wall, connection, due);
                }
                Ok(response)
            }
        }
    }

    /// Keeps the span of a decision.
    fn trace(
        &self,
        context: TraceContext,
        stage: Stage,
        decision_id: &str,
        decided: &Result<CheckResponse, Against>,
        took: Duration,
        now: Now,
    ) {
        // Without randomness nothing could be told apart.
        let Ok(span_id) = random::bytes() else { return };
        let ended = clock::wall_nanos();
        let (connection, reason) = match decided {
            Ok(response) => (answer::connection(response), None),
            Err((denial, _)) => {
                (denial.connection.as_ref().map(|connection| connection.as_str()), Some(denial.reason.label()))
            }
        };
        let span = DecisionSpan {
            context,
            span_id,
            stage: stage_name(stage),
            began: ended.saturating_sub(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)),
            ended,
            decision_id,
            connection,
            reason,
        };
        self.traces.record(&span, now.monotonic);
    }

    async fn register(&self, refusal: &Refusal<'_, C>, timeout: Option<Duration>) -> Option<Arc<Registration>> {
        let Refusal { check, decision_id, now, .. } = *refusal;
        let (caller, service) = (refusal.denial.caller.as_ref()?, refusal.denial.connection.as_ref()?);
        let refused =
            Refused { caller, service, address: check.client_address(), decision_id, wait: patience(timeout) };
        self.registrations.ask(refused, now).await
    }

    /// The decision: state at hand, nothing against it, nonce admitted.
    fn judge(
        &self,
        stage: Stage,
        check: &Check<'_>,
        state: Option<&Snapshot>,
        now: Now,
    ) -> Result<Ruling, Box<Denial>> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Box::new(Denial::from(DenyReason::Draining)));
        }
        let Some(snapshot) = state else { return Err(Box::new(Denial::from(DenyReason::NotReady))) };
        if now.wall < snapshot.settings.draining_until {
            return Err(Box::new(Denial::from(DenyReason::Draining)));
        }
        let verdict = SCRATCH.with_borrow_mut(|scratch| self.gate.decide(stage, check, snapshot, now, scratch));
        match (verdict, stage) {
            (Verdict::Deny(denial), _) => Err(denial),
            // The head stage never allows: it uses no nonce and tells no credential. Whoever repeats a request
            // that was seen gets no body read, though.
            (Verdict::Continue(passed), Stage::Head) if self.admissions.is_used(&passed.admission, now) => {
                let Passed { connection, caller, .. } = *passed;
                let reason = DenyReason::ReplayDetected;
                Err(Box::new(Denial { reason, connection: Some(connection), caller: Some(caller) }))
            }
            // What was used at another replay window is not known here, and nobody's nonce is used for finding that out.
            (Verdict::Continue(passed), Stage::Head)
                if snapshot.is_before_floor(passed.connection.as_str(), passed.admission.created, now) =>
            {
                let Passed { connection, caller, .. } = *passed;
                let reason = DenyReason::ReplayWindowStarting;
                Err(Box::new(Denial { reason, connection: Some(connection), caller: Some(caller) }))
            }
            (Verdict::Continue(_) | Verdict::Admit(..), Stage::Head) => Ok(Ruling::Proceed),
            (Verdict::Continue(_), Stage::Body) => Err(Box::new(Denial::from(DenyReason::Unavailable))),
            (Verdict::Admit(plan, admission), Stage::Body)
                if snapshot.is_before_floor(plan.connection.settings.id.as_str(), admission.created, now) =>
            {
                Err(refuse(DenyReason::ReplayWindowStarting, &plan))
            }
            // What Envoy could not write would be refused there, with its nonce used.
            (Verdict::Admit(plan, _), Stage::Body) if !answer::fits(check, &plan) => {
                Err(refuse(DenyReason::HeadersTooLarge, &plan))
            }
            (Verdict::Admit(plan, admission), Stage::Body) => {
                let max_age = snapshot.settings.max_age;
                match (self.admissions.admit(&admission, max_age, now), &self.shared) {
                    (Ok(()), None) => Ok(Ruling::Allow(plan)),
                    (Ok(()), Some(_)) => Ok(Ruling::Ask(Box::new(Asking { plan, admission, max_age }))),
                    (Err(reason), _) => Err(refuse(reason, &plan)),
                }
            }
        }
    }

    fn record(&self, stage: Stage, check: &Check<'_>, id: &str, now: Now, outcome: Outcome<'_>) {
        if let Outcome::Denied(denial) = outcome
            && is_canary(check, denial)
        {
            // It comes every ten seconds, and is as it should be.
            self.decisions.count(outcome);
            tracing::debug!(decision_id = id, code = denial.reason.label(), "the canary was refused");
            return;
        }
        self.decisions.record(&Decided {
            decision_id: id,
            at: now.wall,
            stage: stage_name(stage),
            request_id: check.request_id(),
            method: check.method(),
            path: check.path(),
            client: check.client_address(),
            outcome,
        });
    }
}

/// Whether a refused request is the canary of readiness, or one that cannot be told from it: of this machine, to a path
/// where nothing is, by nobody who has proven anything.
fn is_canary(check: &Check<'_>, denial: &Denial) -> bool {
    denial.caller.is_none()
        && check.path() == canary::PATH.as_bytes()
        && check.client_address().is_some_and(|client| client.to_canonical().is_loopback())
}

const fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Head => "head",
        Stage::Body => "body",
    }
}

fn encode_times((stage, outcome, times): (&str, &str, &Times)) -> proto::DecisionTimes {
    proto::DecisionTimes {
        stage: stage.to_owned(),
        outcome: outcome.to_owned(),
        counts: times.counts.to_vec(),
        sum_ns: times.sum_nanos,
    }
}

/// What admin is told by an authz that has nothing to decide with yet.
pub fn report_of_none(started_at: UnixMillis) -> proto::Report {
    proto::Report { started_at_ms: started_at.0, ..proto::Report::default() }
}

/// How long a refusal may wait. An answer that comes too late is none, and somebody else's Envoy may give a check less
/// time than ours does; a quarter is for the way there and back.
fn patience(timeout: Option<Duration>) -> Duration {
    timeout.map_or(WAIT, |timeout| WAIT.min(timeout.saturating_mul(3) / 4))
}

/// Whether a refusal is registered. Only for connections that exist: a stranger must not choose the names the
/// control plane hears of. To a caller of another namespace nothing tells which connections there are.
fn next(denial: &Denial, snapshot: Option<&Snapshot>) -> Next {
    let Some(snapshot) = snapshot.filter(|_| denial.reason == DenyReason::ClaimRequired) else { return Next::Nothing };
    let settings = &*snapshot.settings;
    if !settings.auto_register {
        return Next::Disabled;
    }
    match (&denial.caller, &denial.connection) {
        (Some(caller), _) if caller.namespace.as_str() != settings.gateway_namespace => Next::Foreign,
        (Some(_), Some(id)) if snapshot.connection(id.as_str()).is_some() => Next::Register,
        (Some(_) | None, _) => Next::Nothing,
    }
}

/// A refusal of a request whose caller and connection are known.
fn refuse(reason: DenyReason, plan: &Plan) -> Box<Denial> {
    let connection = Some(plan.connection.settings.id.clone());
    Box::new(Denial { reason, connection, caller: Some(plan.caller.clone()) })
}

#[tonic::async_trait]
impl<C: Clock> Authorization for Authz<C> {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let said = |name| request.metadata().get(name).map(|value| value.as_bytes());
        let stage = envoy::decode_stage(said(envoy::STAGE_METADATA));
        let timeout = envoy::decode_timeout(said(envoy::TIMEOUT_METADATA));
        let context = said(otlp::CONTEXT_METADATA).and_then(TraceContext::parse);
        Ok(Response::new(self.answer(stage, timeout, context, request.get_ref()).await))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_answered_after_their_envoy_gave_up() {
        assert_eq!(patience(None), WAIT);
        assert_eq!(patience(Some(Duration::from_millis(500))), WAIT);
        assert_eq!(patience(Some(Duration::from_millis(200))), Duration::from_millis(150));
        assert_eq!(patience(Some(Duration::ZERO)), Duration::ZERO);
        assert_eq!(patience(Some(Duration::from_secs(99_999_999 * 3600))), WAIT);
    }
}

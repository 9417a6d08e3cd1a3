//! The answer to a check: decode, ask the gate, admit, encode.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwapOption;
use envoy_types::pb::envoy::service::auth::v3::authorization_server::Authorization;
use tonic::Request;
use tonic::Response;
use tonic::Status;

use crate::authz::admission::Admissions;
use crate::domain::decision::Denial;
use crate::domain::decision::DenyReason;
use crate::domain::decision::Passed;
use crate::domain::decision::Plan;
use crate::domain::decision::Verdict;
use crate::domain::request::RequestView as _;
use crate::domain::request::Stage;
use crate::domain::snapshot::Snapshot;
use crate::domain::time::Now;
use crate::gate::Gate;
use crate::gate::Scratch;
use crate::sys::clock::Clock;
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
    decisions: Arc<Decisions>,
    ids: DecisionIds,
    clock: C,
    draining: AtomicBool,
}

/// What Envoy is to do.
enum Ruling {
    /// Head stage: ask again with the body.
    Proceed,
    /// The nonce is admitted and written down.
    Allow(Box<Plan>),
}

impl<C: Clock> Authz<C> {
    /// Puts the parts together. `state` is where the subscriber leaves the newest snapshot.
    pub fn new(
        gate: Gate,
        state: Arc<ArcSwapOption<Snapshot>>,
        admissions: Admissions,
        decisions: Arc<Decisions>,
        ids: DecisionIds,
        clock: C,
    ) -> Self {
        Self { gate, state, admissions, decisions, ids, clock, draining: AtomicBool::new(false) }
    }

    /// From now on every check is answered with `GATEWAY_DRAINING`.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// The counters for admin. Ready means that a request signed now would be decided.
    pub fn report(&self) -> proto::Report {
        let draining = self.draining.load(Ordering::Relaxed);
        let counts = self.decisions.counts();
        let (entries, capacity) = self.admissions.fill();
        proto::Report {
            started_at_ms: counts.started_at.0,
            allowed: counts.allowed,
            denied: counts.denied.into_iter().map(|(code, count)| (code.to_owned(), count)).collect(),
            replay_entries: u64::try_from(entries).unwrap_or(u64::MAX),
            replay_capacity: u64::try_from(capacity).unwrap_or(u64::MAX),
            ready: self.state.load().is_some() && !draining && !self.admissions.is_starting(self.clock.now()),
        }
    }

    /// Answers one check. Every outcome is an answer; what cannot be decided is refused.
    pub fn answer(&self, stage: Result<Stage, Unreadable>, request: &CheckRequest) -> CheckResponse {
        let now = self.clock.now();
        let id = self.ids.next();
        let state = self.state.load();
        let check = stage.and_then(|stage| Check::read(request).map(|check| (stage, check)));
        let auto_register = state.as_ref().is_some_and(|snapshot| snapshot.settings.auto_register);
        let readable = check.as_ref().ok().map(|(_, check)| check);
        let answering = Answering { check: readable, decision_id: &id, at: now.wall, auto_register };
        let response = match &check {
            Ok((stage, check)) => self.rule(*stage, check, state.as_deref(), now).and_then(|ruling| match ruling {
                Ruling::Proceed => Ok(answer::proceed()),
                Ruling::Allow(plan) => {
                    let response = answering.allow(&plan).map_err(|reason| refuse(reason, &plan))?;
                    let connection = plan.connection.settings.id.as_str();
                    self.record(*stage, check, &id, now, Outcome::Allowed(connection, &plan.caller));
                    Ok(response)
                }
            }),
            Err(unreadable) => {
                tracing::error!(reason = %unreadable, "a check could not be read");
                Err(Box::new(Denial::from(DenyReason::Unavailable)))
            }
        };
        response.unwrap_or_else(|denial| {
            if let Ok((stage, check)) = &check {
                self.record(*stage, check, &id, now, Outcome::Denied(&denial));
            }
            answering.deny(&denial)
        })
    }

    /// The decision: state at hand, nothing against it, nonce admitted.
    fn rule(&self, stage: Stage, check: &Check<'_>, state: Option<&Snapshot>, now: Now) -> Result<Ruling, Box<Denial>> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Box::new(Denial::from(DenyReason::Draining)));
        }
        let Some(snapshot) = state else { return Err(Box::new(Denial::from(DenyReason::NotReady))) };
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
            (Verdict::Continue(_) | Verdict::Admit(..), Stage::Head) => Ok(Ruling::Proceed),
            (Verdict::Continue(_), Stage::Body) => Err(Box::new(Denial::from(DenyReason::Unavailable))),
            (Verdict::Admit(plan, admission), Stage::Body) => {
                match self.admissions.admit(&admission, snapshot.settings.max_age, now) {
                    Ok(()) => Ok(Ruling::Allow(plan)),
                    Err(reason) => Err(refuse(reason, &plan)),
                }
            }
        }
    }

    fn record(&self, stage: Stage, check: &Check<'_>, id: &str, now: Now, outcome: Outcome<'_>) {
        self.decisions.record(&Decided {
            decision_id: id,
            at: now.wall,
            stage: match stage {
                Stage::Head => "head",
                Stage::Body => "body",
            },
            request_id: check.request_id(),
            method: check.method(),
            path: check.path(),
            client: check.client_address(),
            outcome,
        });
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
        let stage = envoy::decode_stage(request.metadata().get(envoy::STAGE_METADATA).map(|value| value.as_bytes()));
        Ok(Response::new(self.answer(stage, request.get_ref())))
    }
}

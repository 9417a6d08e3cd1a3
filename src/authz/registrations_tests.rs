#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::*;
use crate::domain::approval::Approvals;
use crate::domain::approval::Grant;
use crate::domain::approval::Source;
use crate::domain::snapshot::Settings;
use crate::domain::snapshot::StateVersion;
use crate::domain::time::UnixMillis;
use crate::sys::tasks::StopHandle;
use crate::sys::tasks::Tasks;
use crate::telemetry::decisions::Level;

/// Longer than any test: nothing here depends on how fast the machine is.
const LONG: Duration = Duration::from_secs(60);
/// A wait that is meant to run out.
const SHORT: Duration = Duration::from_millis(20);

#[derive(Debug, Clone)]
struct TestClock(Arc<AtomicU64>);

impl TestClock {
    fn advance(&self, millis: u64) {
        self.0.fetch_add(millis, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Now {
        let millis = self.0.load(Ordering::Relaxed);
        Now { wall: UnixMillis(1_700_000_000_000 + millis), monotonic: MonotonicMillis((1 << 40) + millis) }
    }
}

type Answer = oneshot::Sender<Option<proto::Registered>>;

/// Refusals' end, registrar and an admin that answers when the test says so.
struct Bench {
    registrations: Registrations,
    clock: TestClock,
    wait: Duration,
    state: Arc<ArcSwapOption<Snapshot>>,
    asked: mpsc::UnboundedReceiver<(proto::Register, Answer)>,
    stop: StopHandle,
    tasks: Tasks,
}

impl Bench {
    fn start(wait: Duration) -> Self {
        let (registrations, registrar) = Registrations::new();
        let clock = TestClock(Arc::default());
        let state = Arc::new(ArcSwapOption::empty());
        let (sender, asked) = mpsc::unbounded_channel();
        let register = move |message: proto::Register| {
            let (answer, answered) = oneshot::channel();
            sender.send((message, answer)).unwrap();
            async move { answered.await.ok().flatten() }
        };
        let decisions = Arc::new(Decisions::new(Level::All, UnixMillis(0)));
        let mut tasks = Tasks::default();
        let (seen, ticking) = (Arc::clone(&state), clock.clone());
        tasks.spawn("registrations", |stop| registrar.run(register, seen, decisions, ticking, stop));
        Self { registrations, clock, wait, state, asked, stop: tasks.stop_handle(), tasks }
    }

    async fn ask(&self, key: u8) -> Option<Arc<Registration>> {
        ask(self.registrations.clone(), self.clock.clone(), self.wait, u32::from(key)).await
    }

    /// The next registration admin is asked for.
    async fn asked(&mut self) -> (proto::Register, Answer) {
        tokio::time::timeout(LONG, self.asked.recv()).await.unwrap().unwrap()
    }

    /// Waits until something of the table holds.
    async fn until(&self, holds: impl Fn(&Shared) -> bool) {
        let wait = async {
            while !holds(&self.registrations.shared) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, wait).await.unwrap();
    }

    async fn until_settled(&self) {
        self.until(|shared| shared.table().pending.is_empty()).await;
    }

    /// Registers a key that nothing is known of, and has it answered.
    async fn settle(&mut self, key: u8, answer: Option<proto::Registered>) -> Option<Arc<Registration>> {
        let (registrations, clock) = (self.registrations.clone(), self.clock.clone());
        let asking = ask(registrations, clock, self.wait, u32::from(key));
        let answering = async {
            let (_, tell) = self.asked().await;
            tell.send(answer).unwrap();
        };
        tokio::join!(asking, answering).0
    }
}

fn caller(key: u32) -> Caller {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&key.to_be_bytes());
    Caller {
        namespace: Namespace::parse("acme").unwrap(),
        subject: "alice".to_owned(),
        key: PublicKey::new(bytes),
        agent_id: None,
    }
}

fn service() -> ConnectionId {
    ConnectionId::parse("svc-one").unwrap()
}

fn place(key: u32) -> Place {
    let caller = caller(key);
    Place { key: caller.key, namespace: caller.namespace, service: service() }
}

async fn ask(registrations: Registrations, clock: TestClock, wait: Duration, key: u32) -> Option<Arc<Registration>> {
    let (caller, service) = (caller(key), service());
    let refused = Refused { caller: &caller, service: &service, address: None, decision_id: "dec-1", wait };
    registrations.ask(refused, clock.now()).await
}

fn recorded(status: &str) -> Option<proto::Registered> {
    Some(proto::Registered {
        result: proto::RegisterResult::Recorded.into(),
        http_status: 201,
        claim_id: "cl_1".to_owned(),
        claim_status: status.to_owned(),
        ..proto::Registered::default()
    })
}

fn limited() -> Option<proto::Registered> {
    Some(proto::Registered { result: proto::RegisterResult::RateLimited.into(), ..proto::Registered::default() })
}

#[tokio::test]
async fn an_outcome_in_time_is_told_and_remembered() {
    let mut bench = Bench::start(LONG);
    let (caller, service) = (caller(1), service());
    let address = Some("192.0.2.7".parse().unwrap());
    let refused = Refused { caller: &caller, service: &service, address, decision_id: "dec-1", wait: LONG };
    let registrations = bench.registrations.clone();
    let asking = registrations.ask(refused, bench.clock.now());
    let answering = async {
        let (message, tell) = bench.asked().await;
        tell.send(recorded("pending")).unwrap();
        message
    };
    let (told, message) = tokio::join!(asking, answering);
    assert_eq!(message, registration::encode(&caller, &service, address));
    assert_eq!(told.unwrap().claim_status, "pending");
    // An agent that polls is told the same without admin being asked.
    bench.clock.advance(ASK_AGAIN_MS - 1);
    assert_eq!(bench.ask(1).await.unwrap().claim_id, "cl_1");
    assert!(bench.asked.try_recv().is_err());
    // Then it is asked anew.
    bench.clock.advance(1);
    assert_eq!(bench.settle(1, recorded("rejected")).await.unwrap().claim_status, "rejected");
    assert_eq!(bench.ask(1).await.unwrap().claim_status, "rejected");
}

#[tokio::test]
async fn many_refusals_of_one_key_are_one_registration() {
    let mut bench = Bench::start(LONG);
    let mut asking = JoinSet::new();
    for _ in 0..20 {
        asking.spawn(ask(bench.registrations.clone(), bench.clock.clone(), bench.wait, 1));
    }
    bench.until(|shared| shared.waiting.available_permits() == MAX_WAITING - 20).await;
    let (_, tell) = bench.asked().await;
    assert!(bench.asked.try_recv().is_err());
    tell.send(recorded("pending")).unwrap();
    let told = asking.join_all().await;
    assert!(told.iter().all(|told| told.as_ref().unwrap().claim_status == "pending"));
    assert_eq!(bench.registrations.shared.waiting.available_permits(), MAX_WAITING);
    // Another service, another namespace and another key are registrations of their own.
    assert_eq!(place(1), place(1));
    let other = |change: fn(&mut Place)| {
        let mut place = place(1);
        change(&mut place);
        place
    };
    assert_ne!(other(|place| place.service = ConnectionId::parse("svc-two").unwrap()), place(1));
    assert_ne!(other(|place| place.namespace = Namespace::parse("other").unwrap()), place(1));
    assert_ne!(place(2), place(1));
}

#[tokio::test]
async fn a_wait_that_runs_out_leaves_the_registration_under_way() {
    let mut bench = Bench::start(SHORT);
    assert_eq!(bench.ask(1).await, None);
    let (_, tell) = bench.asked().await;
    assert_eq!(bench.ask(1).await, None);
    assert!(bench.asked.try_recv().is_err(), "it is under way still");
    tell.send(recorded("pending")).unwrap();
    bench.until_settled().await;
    assert_eq!(bench.ask(1).await.unwrap().claim_status, "pending");
    // Asked again later and not answered in time: the last that is known.
    bench.clock.advance(ASK_AGAIN_MS);
    assert_eq!(bench.ask(1).await.unwrap().claim_status, "pending");
    let (_, tell) = bench.asked().await;
    tell.send(recorded("approved")).unwrap();
    bench.until_settled().await;
    assert_eq!(bench.ask(1).await.unwrap().claim_status, "approved");
}

#[tokio::test]
async fn only_so_many_wait_and_the_rest_is_answered_at_once() {
    let mut bench = Bench::start(LONG);
    let mut waiting = JoinSet::new();
    for key in 0..MAX_WAITING {
        waiting.spawn(ask(bench.registrations.clone(), bench.clock.clone(), bench.wait, u32::try_from(key).unwrap()));
    }
    bench.until(|shared| shared.waiting.available_permits() == 0).await;
    // With LONG as the wait these two would not come back: one more of a key under way, and one of another key.
    assert_eq!(bench.ask(0).await, None);
    assert_eq!(bench.ask(200).await, None);
    // The latter is registered all the same, and so is every other.
    let mut answers = Vec::new();
    for _ in 0..=MAX_WAITING {
        answers.push(bench.asked().await.1);
    }
    assert!(bench.asked.try_recv().is_err());
    for tell in answers {
        tell.send(recorded("pending")).unwrap();
    }
    assert!(waiting.join_all().await.iter().all(Option::is_some));
    bench.until_settled().await;
    assert_eq!(bench.ask(200).await.unwrap().claim_status, "pending");
}

#[tokio::test]
async fn registrations_under_way_are_bounded() {
    let mut bench = Bench::start(SHORT);
    let mut asking = JoinSet::new();
    for key in 0..=MAX_PENDING {
        asking.spawn(ask(bench.registrations.clone(), bench.clock.clone(), bench.wait, u32::try_from(key).unwrap()));
    }
    assert!(asking.join_all().await.iter().all(Option::is_none));
    assert_eq!(bench.registrations.shared.table().pending.len(), MAX_PENDING);
    let mut answers = Vec::new();
    for _ in 0..MAX_PENDING {
        answers.push(bench.asked().await.1);
    }
    assert!(bench.asked.try_recv().is_err(), "one found no room");
    for tell in answers {
        tell.send(recorded("pending")).unwrap();
    }
    bench.until_settled().await;
    assert_eq!(bench.registrations.shared.table().recent.len(), MAX_PENDING);
}

#[tokio::test]
async fn without_an_answer_it_is_tried_again_soon() {
    let mut bench = Bench::start(LONG);
    let told = bench.settle(1, None).await.unwrap();
    assert_eq!(told.submission, Submission::FailedBeforeResponse);
    assert!(!told.error.is_empty());
    bench.clock.advance(TRY_AGAIN_MS - 1);
    assert_eq!(bench.ask(1).await.unwrap().submission, Submission::FailedBeforeResponse);
    bench.clock.advance(1);
    assert_eq!(bench.settle(1, recorded("pending")).await.unwrap().submission, Submission::Recorded);
}

#[tokio::test]
async fn a_limit_hides_nothing_that_was_answered_before() {
    let mut bench = Bench::start(LONG);
    assert_eq!(bench.settle(1, limited()).await.unwrap().submission, Submission::RateLimited);
    bench.clock.advance(TRY_AGAIN_MS);
    assert_eq!(bench.settle(1, recorded("pending")).await.unwrap().claim_status, "pending");
    bench.clock.advance(ASK_AGAIN_MS);
    assert_eq!(bench.settle(1, limited()).await.unwrap().claim_status, "pending");
    bench.clock.advance(TRY_AGAIN_MS - 1);
    assert_eq!(bench.ask(1).await.unwrap().claim_status, "pending");
    // But not for ever: the claim may have ended long since.
    bench.clock.advance(FORGET_MS);
    assert_eq!(bench.settle(1, limited()).await.unwrap().submission, Submission::RateLimited);
}

#[tokio::test]
async fn an_approval_ends_what_is_remembered() {
    let mut bench = Bench::start(LONG);
    assert_eq!(bench.settle(1, recorded("approved")).await.unwrap().claim_status, "approved");
    bench.settle(2, recorded("pending")).await.unwrap();
    let mut approvals = Approvals::default();
    let grant = Grant { service: "svc-one", namespace: "acme", source: Source::Declared, expires_at: None };
    approvals.add(caller(1).key, grant);
    bench.state.store(Some(Arc::new(Snapshot {
        version: StateVersion { epoch: "e".to_owned(), version: 1, ..StateVersion::default() },
        settings: Arc::new(Settings::default()),
        connections: HashMap::new().into(),
        approvals,
        given: Arc::default(),
    })));
    bench.until(|shared| shared.table().known(&place(1)).is_none()).await;
    assert!(bench.registrations.shared.table().known(&place(2)).is_some());
    bench.clock.advance(FORGET_MS);
    bench.until(|shared| shared.table().known(&place(2)).is_none()).await;
}

#[tokio::test]
async fn a_decision_ends_what_is_remembered_of_its_claim_alone() {
    let mut bench = Bench::start(LONG);
    for key in [1, 2] {
        bench.settle(key, recorded("pending")).await.unwrap();
    }
    let grant = Grant { service: "svc-one", namespace: "acme", source: Source::Claims, expires_at: None };
    bench.registrations.forget(&[state::encode_approval(&caller(1).key, &grant)]);
    assert_eq!(bench.settle(1, recorded("rejected")).await.unwrap().claim_status, "rejected");
    assert_eq!(bench.ask(2).await.unwrap().claim_status, "pending");
    assert!(bench.asked.try_recv().is_err(), "the other claim was asked for anew");
}

#[tokio::test]
async fn a_registrar_that_has_ended_keeps_nobody_waiting() {
    let mut bench = Bench::start(LONG);
    let waiting =
        tokio::task::JoinSet::from_iter([ask(bench.registrations.clone(), bench.clock.clone(), bench.wait, 1)]);
    let _open = bench.asked().await;
    bench.stop.stop();
    bench.tasks.supervise(LONG).await;
    assert_eq!(waiting.join_all().await, [None]);
    assert_eq!(ask(bench.registrations.clone(), bench.clock.clone(), bench.wait, 1).await, None);
    assert_eq!(ask(bench.registrations, bench.clock, LONG, 2).await, None);
}

#[test]
fn memory_is_bounded_and_the_newest_are_kept() {
    let (registrations, _registrar) = Registrations::new();
    let (tell, _) = watch::channel(None);
    let now = TestClock(Arc::default()).now();
    let outcome = Arc::new(Registration::unsent(Submission::NoResponse, ""));
    let last = u32::try_from(3 * MAX_KNOWN).unwrap();
    for key in 0..last {
        registrations.shared.finish(place(key), Arc::clone(&outcome), &tell, now);
        let table = registrations.shared.table();
        assert!(table.recent.len() + table.older.len() <= MAX_KNOWN);
    }
    let table = registrations.shared.table();
    let newest = last - u32::try_from(MAX_KNOWN / 2).unwrap();
    assert!((newest..last).all(|key| table.known(&place(key)).is_some()));
    assert!(table.known(&place(0)).is_none());
}

//! Another authz, with a replay window of its own, decides from now on: what was used before passes there no more.

#![allow(clippy::disallowed_methods, reason = "test code may read clocks and write files")]

use super::*;

const STARTING: &str = "REPLAY_WINDOW_STARTING";
const REPLAYED: &str = "AUTH_REPLAY_DETECTED";

fn request(service: &str, nonce: &str, clock: &TestClock) -> CheckRequest {
    signed(&format!("/proxy/{service}/v1/pay"), b"12 USD", nonce, clock.seconds())
}

async fn told(channel: &Channel, request: &CheckRequest) -> String {
    outcome(&ask(channel, "body", request.clone()).await)
}

/// Uses a request, which a thief has seen.
async fn used(channel: &Channel, service: &str, clock: &TestClock) -> CheckRequest {
    let request = request(service, "seen-by-a-thief", clock);
    assert!(told(channel, &request).await.starts_with("Bearer canary"));
    assert_eq!(told(channel, &request).await, REPLAYED);
    request
}

/// An admin with two connections, both made since it began.
async fn admin(ours: &Authority, workloads: Vec<Workload>) -> Remote {
    let state = PublishedState { connections: Vec::new(), ..two_connections() };
    let admin = Remote::serve(&ours.issue("admin.test"), state).await;
    admin.publisher.set_workloads(workloads);
    for (version, connection) in (2..).zip(two_connections().connections) {
        admin.publisher.publish(version, Change::Upsert(Box::new(connection)));
    }
    admin
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_at_one_that_died_is_refused_at_the_one_that_follows() {
    let root = tempfile::tempdir().unwrap();
    let (ours, clock) = (Authority::new(root.path(), "ours"), clock());
    let admin = admin(&ours, vec![workload("billing", &["svc-one"])]).await;
    let files = ours.issue("billing.test");
    let first = remote_authz(root.path(), files.clone(), admin.address, &clock).await;
    let one = first.channel().await;
    serving(&one).await;
    let second = remote_authz(root.path(), files, admin.address, &clock).await;
    let two = second.channel().await;
    clock.set(START + 20);
    let seen = used(&one, "svc-one", &clock).await;
    assert_eq!(told(&two, &seen).await, NOT_READY, "as long as the first lives");
    first.end().await;
    until(&two, &clock, "svc-one", STARTING).await;
    assert_eq!(told(&two, &seen).await, STARTING);
    assert_eq!(outcome(&ask(&two, "head", seen.clone()).await), STARTING, "and its body is not read");
    // All it decides for is that, so that it is not ready.
    until_health(&two, "", NOT_SERVING).await;
    until_health(&two, ENVOYS, SERVING).await;
    clock.set(START + 31);
    until_health(&two, "", SERVING).await;
    until(&two, &clock, "svc-one", "Bearer canary-one").await;
    assert_eq!(told(&two, &seen).await, STARTING);
    // With its journal, which does not know either, it is told again.
    let folder = second.folder.clone();
    second.end().await;
    let address = admin.address.to_string();
    let state = StateFrom::Tcp { address, tls: Some((ours.issue("billing.test"), "admin.test".to_owned())) };
    let again = Gateway::start_with(&folder, AuthzConfig { state, ..config(&folder) }, clock.clone()).await;
    let two = again.channel().await;
    serving(&two).await;
    assert_eq!(told(&two, &seen).await, STARTING);
    again.end().await;
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_where_a_connection_was_taken_away_is_refused_where_it_is_now() {
    let root = tempfile::tempdir().unwrap();
    let (ours, clock) = (Authority::new(root.path(), "ours"), clock());
    let admin = admin(&ours, vec![workload("billing", &["svc-one"]), workload("mail", &["svc-two"])]).await;
    let billing = remote_authz(root.path(), ours.issue("billing.test"), admin.address, &clock).await;
    let mail = remote_authz(root.path(), ours.issue("mail.test"), admin.address, &clock).await;
    let (one, two) = (billing.channel().await, mail.channel().await);
    serving(&one).await;
    serving(&two).await;
    clock.set(START + 20);
    let seen = used(&one, "svc-one", &clock).await;
    admin.publisher.set_workloads(vec![workload("billing", &[]), workload("mail", &["svc-one", "svc-two"])]);
    until(&two, &clock, "svc-one", STARTING).await;
    assert_eq!(told(&two, &seen).await, STARTING);
    // The others go on.
    assert_eq!(told(&two, &request("svc-two", "n-others", &clock)).await, "Bearer canary-two");
    until_health(&two, "", SERVING).await;
    clock.set(START + 31);
    until(&two, &clock, "svc-one", "Bearer canary-one").await;
    assert_eq!(told(&two, &seen).await, STARTING);
    for gateway in [billing, mail] {
        gateway.end().await;
    }
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_at_one_that_is_displaced_is_refused_at_the_one_with_more() {
    let root = tempfile::tempdir().unwrap();
    let (ours, clock) = (Authority::new(root.path(), "ours"), clock());
    let all = Workload { reach: Reach::Everything, ..workload("all", &[]) };
    let admin = admin(&ours, vec![workload("billing", &["svc-one"]), all]).await;
    let billing = remote_authz(root.path(), ours.issue("billing.test"), admin.address, &clock).await;
    let one = billing.channel().await;
    serving(&one).await;
    clock.set(START + 20);
    let seen = used(&one, "svc-one", &clock).await;
    let everything = remote_authz(root.path(), ours.issue("all.test"), admin.address, &clock).await;
    let two = everything.channel().await;
    serving(&two).await;
    // By now what its own process cannot know of is past.
    clock.set(START + 27);
    assert_eq!(told(&two, &seen).await, STARTING);
    until(&two, &clock, "svc-one", STARTING).await;
    until(&two, &clock, "svc-two", "Bearer canary-two").await;
    clock.set(START + 31);
    until(&two, &clock, "svc-one", "Bearer canary-one").await;
    assert_eq!(told(&two, &seen).await, STARTING);
    for gateway in [billing, everything] {
        gateway.end().await;
    }
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_admin_whoever_decides_goes_on_and_who_is_new_waits() {
    let root = tempfile::tempdir().unwrap();
    let (ours, clock) = (Authority::new(root.path(), "ours"), clock());
    let before = admin(&ours, vec![workload("billing", &["svc-one"])]).await;
    let billing = remote_authz(root.path(), ours.issue("billing.test"), before.address, &clock).await;
    let one = billing.channel().await;
    serving(&one).await;
    clock.set(START + 20);
    let seen = used(&one, "svc-one", &clock).await;
    let (_, address) = before.end().await;
    until_health(&one, FED, NOT_SERVING).await;
    let publisher =
        Publisher::new(PublishedState { incarnation: "the next".to_owned(), version: 9, ..two_connections() });
    // Somebody else may have decided for the second one until now.
    publisher.set_workloads(vec![workload("billing", &["svc-one", "svc-two"])]);
    let tls = ServerTls::load_unnamed(&ours.issue("admin.test")).unwrap();
    let mut after = Remote { publisher, address, tls, tasks: Tasks::default() };
    after.serve_on(TcpListener::bind(address).await.unwrap());
    until(&one, &clock, "svc-two", STARTING).await;
    assert_eq!(told(&one, &request("svc-one", "n-goes-on", &clock)).await, "Bearer canary-one");
    assert_eq!(told(&one, &seen).await, REPLAYED);
    until_health(&one, "", SERVING).await;
    // One that was not there before, in place of it.
    billing.end().await;
    clock.set(START + 40);
    let fresh = remote_authz(root.path(), ours.issue("billing.test"), address, &clock).await;
    let two = fresh.channel().await;
    serving(&two).await;
    clock.set(START + 47);
    until(&two, &clock, "svc-one", STARTING).await;
    clock.set(START + 51);
    until(&two, &clock, "svc-one", "Bearer canary-one").await;
    fresh.end().await;
    after.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_one_with_its_journal_and_a_connection_that_is_new_wait_for_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (ours, clock) = (Authority::new(root.path(), "ours"), clock());
    let admin = admin(&ours, vec![Workload { reach: Reach::Everything, ..workload("all", &[]) }]).await;
    let files = ours.issue("all.test");
    let first = remote_authz(root.path(), files.clone(), admin.address, &clock).await;
    let one = first.channel().await;
    serving(&one).await;
    clock.set(START + 20);
    let seen = used(&one, "svc-one", &clock).await;
    admin.publisher.publish(4, Change::Upsert(Box::new(connection("svc-new", "canary-new"))));
    let approvals = proto::ServiceApprovals { service: "svc-new".to_owned(), ..approvals() };
    admin.publisher.publish(5, Change::ReplaceApprovals(approvals));
    applied(&admin.publisher).await;
    assert_eq!(told(&one, &request("svc-new", "n-new", &clock)).await, "Bearer canary-new");
    let folder = first.folder.clone();
    first.end().await;
    let state = StateFrom::Tcp { address: admin.address.to_string(), tls: Some((files, "admin.test".to_owned())) };
    let again = Gateway::start_with(&folder, AuthzConfig { state, ..config(&folder) }, clock.clone()).await;
    let two = again.channel().await;
    serving(&two).await;
    assert_eq!(told(&two, &request("svc-one", "n-again", &clock)).await, "Bearer canary-one");
    assert_eq!(told(&two, &seen).await, REPLAYED);
    again.end().await;
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_share_a_window_are_told_of_nobody_before_them() {
    let root = tempfile::tempdir().unwrap();
    let ours = Authority::new(root.path(), "ours");
    let admin = Remote::serve(&ours.issue("admin.test"), two_connections()).await;
    admin.publisher.set_workloads(vec![workload("billing", &["svc-one"])]);
    let billing = ours.issue("billing.test");
    let given = async |window: &str| {
        let (heard, _) = stream(admin.address, &billing, vec![hello(window)], |_| true).await;
        let full = heard.into_iter().find_map(|response| {
            let Some(proto::state_response::Message::Full(full)) = response.message else { return None };
            Some(full)
        });
        full.unwrap().connections.pop().unwrap().given_ms_ago
    };
    assert_eq!(given("shared:one").await, None);
    assert_eq!(given("shared:one").await, None, "the next replica");
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_refused_hears_no_names_of_others() {
    let root = tempfile::tempdir().unwrap();
    let ours = Authority::new(root.path(), "ours");
    let admin = Remote::serve(&ours.issue("admin.test"), two_connections()).await;
    admin.publisher.set_workloads(vec![workload("billing", &["svc-one"]), workload("mail", &["svc-one"])]);
    let (billing, mail) = (ours.issue("billing.test"), ours.issue("mail.test"));
    let first = stream(admin.address, &billing, vec![hello("local:one")], |_| false);
    let second = async {
        while admin.publisher.peers().iter().all(|peer| peer.node.is_empty()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stream(admin.address, &mail, vec![hello("local:two")], |_| false).await.1.unwrap()
    };
    let status = tokio::select! {
        _ = first => panic!("the first ended"),
        status = second => status,
    };
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    let told = status.message();
    assert!(told.contains("another replay window") && !told.contains("billing"), "{told}");
    let ours = admin.publisher.window_conflict().unwrap();
    assert!(ours.contains("billing.test") && ours.contains("mail.test"), "{ours}");
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_refuses_what_it_is_sent_gets_one_full_state_a_second() {
    let root = tempfile::tempdir().unwrap();
    let ours = Authority::new(root.path(), "ours");
    let admin = Remote::serve(&ours.issue("admin.test"), two_connections()).await;
    admin.publisher.set_workloads(vec![workload("billing", &["svc-one"])]);
    let version = || Some(proto::StateVersion { version: u64::MAX, ..proto::StateVersion::default() });
    let rejected = || Message::Rejected(proto::Rejected { version: version(), reason: "no".to_owned() });
    let applied = || Message::Applied(proto::StateVersion::default());
    // An acknowledgement before each, so that it is not given up.
    let words = (0..8).flat_map(|_| [applied(), rejected()]);
    let words = std::iter::once(hello("local:b")).chain(words).collect();
    let times = std::sync::Mutex::new(Vec::new());
    let third = |_: &proto::StateResponse| {
        let mut times = times.lock().unwrap();
        times.push(std::time::Instant::now());
        times.len() == 3
    };
    let billing = ours.issue("billing.test");
    let heard = stream(admin.address, &billing, words, third);
    // What is not answered any more is not sent either.
    drop(tokio::time::timeout(Duration::from_secs(3), heard).await);
    let times = times.into_inner().unwrap();
    assert!(!times.is_empty());
    if let [first, _, third] = times[..] {
        assert!(third - first >= Duration::from_millis(1000), "{:?}", third - first);
    }
    admin.end().await;
}

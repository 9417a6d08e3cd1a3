//! A store whose clock is wrong, or that was another for a while.

use super::*;
use crate::app::authz_health::AuthzTold;

/// The mark of the memory, in the words of the store.
const MARK: &str = "'sigilum1:memory:' .. redis.call('info', 'server'):match('run_id:(%w+)')";

fn mark(store: &Store) -> String {
    store.eval(&format!("return redis.call('get', {MARK})")).lines().nth(1).unwrap_or_default().to_owned()
}

fn set_mark(store: &Store, text: &str) {
    store.eval(&format!("return redis.call('set', {MARK}, '{text}')"));
}

/// Waits until a replica is not ready and says that it is for the clocks.
async fn until_apart(gateway: &Gateway) {
    let door = AuthzDoor::unix(&gateway.folder.join("authz.sock"));
    let apart = async {
        loop {
            let AuthzTold { health, why, .. } = door.health(TIMEOUT).await.unwrap();
            if health == AuthzHealth::NotServing && why.is_some_and(|why| why.contains("too far apart")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, apart).await.unwrap();
}

/// Two that serve, with a memory that is old enough.
async fn two(root: &Path, clock: &TestClock, store: &Store) -> [(Gateway, Channel); 2] {
    let one = serving_replica(root, "one", clock, Some(store.settings())).await;
    let two = serving_replica(root, "two", clock, Some(store.settings())).await;
    clock.set(START + 20);
    until(&one.1, clock, ALLOWED).await;
    until(&two.1, clock, ALLOWED).await;
    [one, two]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_clock_leaps_lets_no_replay_through_and_is_not_asked_until_it_is_right() {
    let (root, clock) = (tempfile::tempdir().unwrap(), clock());
    let store = Store::start(&clock, &[]);
    let admin = Admin::serve(root.path(), published());
    let [(one, first), (two, second)] = two(root.path(), &clock, &store).await;
    let used = request("used", &clock);
    assert_eq!(told(&first, &used).await, ALLOWED);
    // It has forgotten the nonce, and knows nothing of that.
    store.leap(START + 20 + 320);
    assert_eq!(told(&second, &used).await, UNAVAILABLE);
    until_health(&second, "", NOT_SERVING).await;
    until_apart(&two).await;
    until_apart(&one).await;
    store.leap(START + 20);
    until(&second, &clock, STARTING).await;
    until(&first, &clock, STARTING).await;
    assert_eq!(told(&second, &signed(TARGET, b"ping", "late", UnixSeconds(START + 20))).await, STARTING);
    for channel in [&first, &second] {
        open_again(channel, &clock, START + 40).await;
        assert_ne!(told(channel, &used).await, ALLOWED);
    }
    one.end().await;
    two.end().await;
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_and_a_replica_that_leap_together_begin_a_memory_anew() {
    let (root, clock) = (tempfile::tempdir().unwrap(), clock());
    let store = Store::start(&clock, &[]);
    let admin = Admin::serve(root.path(), published());
    let (gateway, channel) = serving_replica(root.path(), "one", &clock, Some(store.settings())).await;
    clock.set(START + 20);
    until(&channel, &clock, ALLOWED).await;
    clock.leap(START + 400);
    store.leap(START + 400);
    until(&channel, &clock, STARTING).await;
    open_again(&channel, &clock, START + 420).await;
    gateway.end().await;
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_clock_is_behind_decides_nothing_and_begins_no_memory() {
    let (root, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut store = Store::start(&clock, &[]);
    let admin = Admin::serve(root.path(), published());
    let (one, first) = serving_replica(root.path(), "one", &clock, Some(store.settings())).await;
    clock.set(START + 20);
    until(&first, &clock, ALLOWED).await;
    let used = request("used", &clock);
    assert_eq!(told(&first, &used).await, ALLOWED);
    let slow = TestClock::at(START);
    let two = replica(root.path(), "two", &slow, Some(store.settings())).await;
    let second = two.channel().await;
    until_apart(&two).await;
    assert_eq!(told(&second, &request("slow", &slow)).await, "NOT_READY");
    // Whoever comes first after a restart writes the mark.
    store.restart();
    until(&first, &clock, STARTING).await;
    let (three, third) = serving_replica(root.path(), "three", &clock, Some(store.settings())).await;
    assert_eq!(told(&third, &used).await, STARTING);
    assert!(mark(&store).starts_with(&format!("{}:", START + 20)), "{}", mark(&store));
    assert_eq!(told(&second, &request("slower", &slow)).await, "NOT_READY");
    for gateway in [one, two, three] {
        gateway.end().await;
    }
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_cannot_be_is_not_replaced_and_nothing_is_decided_by_it() {
    let (root, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut store = Store::start(&clock, &[]);
    set_mark(&store, "99999999999:ffff:300");
    let admin = Admin::serve(root.path(), published());
    let gateway = replica(root.path(), "one", &clock, Some(store.settings())).await;
    let channel = gateway.channel().await;
    assert_eq!(told(&channel, &request("early", &clock)).await, "NOT_READY");
    assert_eq!(mark(&store), "99999999999:ffff:300");
    store.restart();
    serving(&channel).await;
    clock.set(START + 20);
    until(&channel, &clock, ALLOWED).await;
    // The same while it runs.
    set_mark(&store, "99999999999:ffff:300");
    until(&channel, &clock, UNAVAILABLE).await;
    assert_eq!(mark(&store), "99999999999:ffff:300");
    store.say("FLUSHALL");
    until(&channel, &clock, STARTING).await;
    gateway.end().await;
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_of_an_earlier_version_goes_on_without_a_pause() {
    let (root, clock) = (tempfile::tempdir().unwrap(), clock());
    let store = Store::start(&clock, &[]);
    let began = START - 100;
    set_mark(&store, &format!("{began}:0123456789abcdef:300"));
    let admin = Admin::serve(root.path(), published());
    let (gateway, channel) = serving_replica(root.path(), "one", &clock, Some(store.settings())).await;
    assert_eq!(told(&channel, &request("new", &clock)).await, ALLOWED);
    let now = mark(&store);
    assert!(
        now.starts_with(&format!("{began}:0123456789abcdef")) && now.len() > format!("{began}").len() + 30,
        "{now}"
    );
    gateway.end().await;
    admin.end().await;
}

/// Waits until a store follows another and has all it has.
async fn following(store: &Store) {
    let up = async {
        while !store.say("INFO replication").contains("master_link_status:up") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, up).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_demoted_and_promoted_again_lets_no_replay_through() {
    let (root, clock) = (tempfile::tempdir().unwrap(), clock());
    // Its delay goes by the wall clock.
    let words = ["--repl-diskless-sync", "no"];
    let (main, spare) = (Store::start(&clock, &words), Store::start(&clock, &words));
    spare.say(&format!("REPLICAOF 127.0.0.1 {}", main.port));
    following(&spare).await;
    let admin = Admin::serve(root.path(), published());
    let [(one, first), (two, second)] = two(root.path(), &clock, &main).await;
    // The other is promoted while this one is cut off, and cannot know of what is used here.
    spare.say("REPLICAOF NO ONE");
    let used = request("used", &clock);
    assert_eq!(told(&first, &used).await, ALLOWED);
    main.say(&format!("REPLICAOF 127.0.0.1 {}", spare.port));
    following(&main).await;
    until_health(&second, "", NOT_SERVING).await;
    main.say("REPLICAOF NO ONE");
    until(&second, &clock, STARTING).await;
    until(&first, &clock, STARTING).await;
    assert_eq!(told(&second, &used).await, STARTING);
    open_again(&second, &clock, START + 40).await;
    // The window of this replica has seen it now, too.
    assert_ne!(told(&second, &used).await, ALLOWED);
    one.end().await;
    two.end().await;
    admin.end().await;
}

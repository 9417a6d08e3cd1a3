#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::panic,
    reason = "test code may panic, and its tasks end with the test"
)]

use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::claims::fake_api::Asked;
use crate::claims::fake_api::FakeApi;
use crate::claims::fake_api::Reply;
use crate::claims::fake_api::json;
use crate::claims::fake_api::page;
use crate::claims::fake_api::row;
use crate::claims::fake_api::stream;
use crate::claims::overview::Condition;
use crate::claims::overview::NO_SERVICE_KEY;
use crate::domain::ids::PublicKey;
use crate::domain::secret::Secret;
use crate::state::ClaimList;
use crate::state::PublishedState;

const PATIENCE: Duration = Duration::from_secs(60);
const REFRESH: Duration = Duration::from_millis(400);

/// A reader at work, between a fake API and a real publisher.
struct Rig {
    publisher: Publisher,
    version: Arc<Mutex<u64>>,
    /// Whoever holds it keeps the reader from publishing.
    gate: Arc<tokio::sync::Mutex<()>>,
    /// What it wants to publish and has not.
    waiting: Arc<AtomicUsize>,
    overview: Arc<Overview>,
    metrics: Arc<Metrics>,
    late_ms: u64,
    stop: StopHandle,
    running: JoinHandle<()>,
}

#[derive(Clone)]
struct Plan {
    services: Vec<&'static str>,
    every_service: bool,
    variables: Vec<(&'static str, &'static str)>,
    folders: Vec<PathBuf>,
    max_approvals: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            services: vec!["linear"],
            every_service: true,
            variables: vec![("SIGILUM_SERVICE_API_KEY", "sk_test")],
            folders: Vec::new(),
            max_approvals: 1000,
        }
    }
}

fn connection(id: &str) -> proto::Connection {
    proto::Connection { id: id.to_owned(), ..proto::Connection::default() }
}

impl Rig {
    fn start(api: &FakeApi, plan: Plan) -> Self {
        let connections = plan.services.iter().map(|id| connection(id)).collect();
        let publisher = Publisher::new(PublishedState { version: 1, connections, ..PublishedState::default() });
        let version = Arc::new(Mutex::new(1));
        let (gate, waiting) = (Arc::new(tokio::sync::Mutex::new(())), Arc::new(AtomicUsize::new(0)));
        let held = (Arc::clone(&version), Arc::clone(&gate), Arc::clone(&waiting));
        let advance: Advance = Box::new(move |work| {
            let (version, gate, waiting) = held.clone();
            Box::pin(async move {
                waiting.fetch_add(1, Ordering::SeqCst);
                let _open = gate.lock().await;
                let mut version = version.lock().unwrap();
                *version += 1;
                work(*version);
                waiting.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            })
        });
        let variables = plan.variables.iter().map(|(name, key)| ((*name).to_owned(), Secret::new((*key).to_owned())));
        let config = ClaimsConfig {
            client: Arc::new(api.client()),
            keys: Arc::new(KeyPlaces::new(variables, plan.folders)),
            every_service: plan.every_service,
            pace: watch::channel(ClaimsPace {
                refresh: REFRESH,
                max_approvals: plan.max_approvals,
                registrations_per_minute: 0,
            })
            .1,
        };
        let metrics = Arc::new(Metrics::new().unwrap());
        let claims = Claims::new(config, publisher.clone(), advance, Arc::clone(&metrics));
        let (overview, late_ms) = (claims.overview(), claims.pace().borrow().late_ms());
        let (stop, stopped) = stop_pair();
        let running = tokio::spawn(claims.run(stopped));
        Self { publisher, version, gate, waiting, overview, metrics, late_ms, stop, running }
    }

    fn publish(&self, change: Change) {
        let mut version = self.version.lock().unwrap();
        *version += 1;
        self.publisher.publish(*version, change);
    }

    /// Whether exactly these rows are published.
    fn holds(&self, service: &str, rows: &[u32]) -> bool {
        let mut list = ClaimList::new();
        for number in rows {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            list.push(&format!("team-{}", number % 7), PublicKey::new(bytes), None);
        }
        let read = self.age(service).is_some_and(|age| age.is_some());
        read && self.publisher.claims_difference(service, list).is_empty()
    }

    /// `None`: no source. `Some(None)`: not read.
    fn age(&self, service: &str) -> Option<Option<u64>> {
        self.publisher.claims_ages().into_iter().find(|(known, ..)| known == service).map(|(_, age, _)| age)
    }

    fn condition(&self) -> Condition {
        self.overview.judge(&self.publisher.claims_ages(), self.late_ms)
    }

    async fn end(self) {
        self.stop.stop();
        tokio::time::timeout(PATIENCE, self.running).await.unwrap().unwrap();
    }
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{what}");
}

type Rows = Arc<Mutex<Vec<u32>>>;

fn rows(list: &[u32]) -> Rows {
    Arc::new(Mutex::new(list.to_vec()))
}

fn whole(asked: &Asked, rows: &Rows) -> Reply {
    json("200 OK", "", &page(asked, &rows.lock().unwrap(), 2000))
}

#[tokio::test]
async fn what_the_api_lists_is_published_and_what_it_no_longer_lists_ends() {
    let list = rows(&[1, 2, 3]);
    let shared = Arc::clone(&list);
    let api = FakeApi::start(move |asked| whole(asked, &shared)).await;
    let rig = Rig::start(&api, Plan::default());
    until("the first list", || rig.holds("linear", &[1, 2, 3])).await;
    until("they are fresh", || rig.condition().fresh).await;
    *list.lock().unwrap() = vec![4, 2, 3];
    until("the second list", || rig.holds("linear", &[4, 2, 3])).await;
    let version = *rig.version.lock().unwrap();
    let asked = api.asked().len();
    until("it is read again", || api.asked().len() > asked + 1).await;
    assert_eq!(*rig.version.lock().unwrap(), version, "what does not differ is not published");
    assert!(api.asked().iter().all(|asked| asked.query("service") == Some("linear")));
    rig.end().await;
}

#[tokio::test]
async fn an_unchanged_feed_confirms_without_rows() {
    let api = FakeApi::start(|asked| match asked.header("if-none-match") {
        Some("\"1\"") => Reply::Raw(b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec()),
        _ => json("200 OK", "etag: \"1\"\r\n", &page(asked, &[1], 2000)),
    })
    .await;
    let rig = Rig::start(&api, Plan::default());
    until("it is read three times", || api.asked().len() >= 3).await;
    until("it is confirmed", || rig.metrics.render().unwrap().contains("refresh_total{result=\"unchanged\"} 2")).await;
    assert!(rig.holds("linear", &[1]) && rig.condition().fresh);
    assert!(rig.age("linear").unwrap().unwrap() < 2 * rig.late_ms);
    rig.end().await;
}

#[tokio::test]
async fn a_failing_api_loses_nothing_and_its_recovery_is_noticed() {
    let (list, down) = (rows(&[1, 2]), Arc::new(AtomicBool::new(false)));
    let (shared, fails) = (Arc::clone(&list), Arc::clone(&down));
    let api = FakeApi::start(move |asked| match fails.load(Ordering::SeqCst) {
        true => json("503 Service Unavailable", "", r#"{"error":"down"}"#),
        false => whole(asked, &shared),
    })
    .await;
    let rig = Rig::start(&api, Plan::default());
    until("the first list", || rig.holds("linear", &[1, 2])).await;
    down.store(true, Ordering::SeqCst);
    until("the first missed confirmation shows", || !rig.condition().fresh).await;
    assert!(rig.holds("linear", &[1, 2]), "the last complete list stays");
    assert!(rig.condition().message.contains("ServerError 1"), "{:?}", rig.condition());
    *list.lock().unwrap() = vec![2];
    down.store(false, Ordering::SeqCst);
    until("the list after it", || rig.holds("linear", &[2])).await;
    until("all is well", || rig.condition().fresh).await;
    rig.end().await;
}

#[tokio::test]
async fn a_service_without_a_key_is_unknown_where_the_api_is_set_and_nobody_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let list = rows(&[5]);
    let api = FakeApi::start(move |asked| whole(asked, &list)).await;
    let plan = Plan { variables: Vec::new(), folders: vec![folder.path().to_owned()], ..Plan::default() };
    let rig = Rig::start(&api, plan);
    until("it has a source", || rig.age("linear") == Some(None)).await;
    until("it says why", || rig.condition().reason == NO_SERVICE_KEY).await;
    assert!(api.asked().is_empty());
    write(&folder.path().join("service-api-key-linear"), "sk_from_file\n");
    until("the key is found", || rig.holds("linear", &[5])).await;
    assert_eq!(api.asked()[0].header("authorization"), Some("Bearer sk_from_file"));
    rig.end().await;
}

#[tokio::test]
async fn where_the_api_is_not_set_only_a_key_makes_a_source() {
    let folder = tempfile::tempdir().unwrap();
    let list = rows(&[5]);
    let api = FakeApi::start(move |asked| whole(asked, &list)).await;
    let plan = Plan {
        every_service: false,
        services: vec!["github", "linear"],
        variables: vec![("SIGILUM_SERVICE_API_KEY_GITHUB", "sk_github")],
        folders: vec![folder.path().to_owned()],
        ..Plan::default()
    };
    let rig = Rig::start(&api, plan);
    until("the one with a key is asked for", || rig.age("github").is_some()).await;
    assert_eq!(rig.age("linear"), None);
    let file = folder.path().join("service-api-key-linear");
    write(&file, "sk");
    until("the key is found", || rig.holds("linear", &[5])).await;
    std::fs::remove_file(&file).unwrap();
    until("without a key the source ends", || rig.age("linear").is_none()).await;
    assert!(rig.age("github").is_some());
    rig.end().await;
}

#[tokio::test]
async fn a_key_that_is_replaced_begins_a_new_conversation() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("service-api-key-linear");
    write(&file, "sk_one");
    let api = FakeApi::start(|asked| {
        let one = asked.header("authorization") == Some("Bearer sk_one");
        match (one, asked.header("if-none-match")) {
            (_, Some(_)) if one => Reply::Raw(b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec()),
            (_, Some(_)) => json("500 Internal Server Error", "", r#"{"error":"another's tag"}"#),
            (true, None) => json("200 OK", "etag: \"1\"\r\n", &page(asked, &[1], 2000)),
            (false, None) => json("200 OK", "", &page(asked, &[2], 2000)),
        }
    })
    .await;
    let plan = Plan { variables: Vec::new(), folders: vec![folder.path().to_owned()], ..Plan::default() };
    let rig = Rig::start(&api, plan);
    until("the list of the first key", || rig.holds("linear", &[1])).await;
    write(&file, "sk_two");
    until("the list of the second", || rig.holds("linear", &[2])).await;
    assert!(rig.condition().fresh);
    rig.end().await;
}

#[tokio::test]
async fn connections_come_and_go() {
    let api = FakeApi::start(|asked| {
        let number = if asked.query("service") == Some("github") { 2 } else { 1 };
        let body = page(asked, &[number], 2000);
        json("200 OK", "", &body.replace("\"linear\"", &format!("\"{}\"", asked.query("service").unwrap())))
    })
    .await;
    let rig = Rig::start(&api, Plan::default());
    until("the first", || rig.holds("linear", &[1])).await;
    rig.publish(Change::Upsert(Box::new(connection("github"))));
    until("the second", || rig.holds("github", &[2])).await;
    rig.publish(Change::Delete("linear".to_owned()));
    until("the first is forgotten", || rig.age("linear").is_none()).await;
    let count = |service: &str| api.asked().iter().filter(|asked| asked.query("service") == Some(service)).count();
    let (linear, github) = (count("linear"), count("github"));
    until("the second is read on", || count("github") > github + 2).await;
    assert_eq!(count("linear"), linear, "nobody asks for what has no connection");
    rig.publish(Change::Upsert(Box::new(connection("linear"))));
    until("the first again", || rig.holds("linear", &[1])).await;
    rig.end().await;
}

#[tokio::test]
async fn a_connection_that_is_made_again_at_once_keeps_its_approvals() {
    let list = rows(&[1, 2]);
    let shared = Arc::clone(&list);
    let api = FakeApi::start(move |asked| whole(asked, &shared)).await;
    let rig = Rig::start(&api, Plan::default());
    until("the approvals", || rig.holds("linear", &[1, 2])).await;
    let shut = rig.gate.lock().await;
    rig.publish(Change::Delete("linear".to_owned()));
    until("its reader is about to forget them", || rig.waiting.load(Ordering::SeqCst) == 1).await;
    rig.publish(Change::Upsert(Box::new(connection("linear"))));
    drop(shut);
    until("it has said what it had to", || rig.waiting.load(Ordering::SeqCst) == 0).await;
    assert!(rig.holds("linear", &[1, 2]), "whoever was served already is refused");
    list.lock().unwrap().pop();
    until("they are read on", || rig.holds("linear", &[1])).await;
    rig.end().await;
}

#[tokio::test]
async fn too_many_approvals_leave_the_last_list_standing() {
    let list = rows(&[1, 2, 3]);
    let shared = Arc::clone(&list);
    let api = FakeApi::start(move |asked| whole(asked, &shared)).await;
    let rig = Rig::start(&api, Plan { max_approvals: 3, ..Plan::default() });
    until("what fits", || rig.holds("linear", &[1, 2, 3])).await;
    list.lock().unwrap().push(4);
    until("it is said", || rig.condition().message.contains("TooManyApprovals 1")).await;
    assert!(rig.holds("linear", &[1, 2, 3]));
    rig.end().await;
}

/// An API with a stream of changes: the feed as it is, and one channel for each stream that is opened.
struct Streaming {
    api: FakeApi,
    list: Rows,
    opened: mpsc::UnboundedReceiver<(String, mpsc::UnboundedSender<String>)>,
}

async fn streaming(list: &[u32]) -> Streaming {
    let list = rows(list);
    let (sender, opened) = mpsc::unbounded_channel();
    let shared = Arc::clone(&list);
    let api = FakeApi::start(move |asked| {
        if asked.target.starts_with("/v1/namespaces/claims/changes") {
            let (events, receiver) = mpsc::unbounded_channel();
            sender.send((asked.query("after").unwrap().to_owned(), events)).unwrap();
            return stream(receiver);
        }
        let rows = shared.lock().unwrap();
        let cursor = format!("sigilum-claims-cursor: e.{}\r\n", rows.len());
        json("200 OK", &cursor, &page(asked, &rows, 2000))
    })
    .await;
    Streaming { api, list, opened }
}

fn event(name: &str, id: &str, data: &str) -> String {
    format!("event: {name}\nid: {id}\ndata: {data}\n\n")
}

#[tokio::test]
async fn changes_of_the_stream_are_published_at_once() {
    let mut fake = streaming(&[1, 2]).await;
    let rig = Rig::start(&fake.api, Plan::default());
    let (after, events) = fake.opened.recv().await.unwrap();
    assert_eq!(after, "e.2");
    until("the list", || rig.holds("linear", &[1, 2])).await;
    events.send(event("alive", "e.2", "")).unwrap();
    let two = event("approved", "e.3", &row(3)) + &event("approved", "e.4", &row(4));
    events.send(two + &event("ended", "e.5", &row(1))).unwrap();
    until("what the stream said", || rig.holds("linear", &[2, 3, 4])).await;
    // The last word counts, also where it comes with the first.
    events.send(event("ended", "e.6", &row(4)) + &event("approved", "e.7", &row(4))).unwrap();
    events.send(event("approved", "e.8", &row(9)) + &event("ended", "e.9", &row(9))).unwrap();
    events.send(event("unheard-of", "e.10", "{}") + &event("ended", "e.11", &row(2))).unwrap();
    until("the last words", || rig.holds("linear", &[3, 4])).await;
    assert_eq!(rig.overview.streams(), 1);
    let read = fake.api.asked().iter().filter(|asked| asked.query("offset").is_some()).count();
    assert_eq!(read, 1, "nothing is polled while the stream lives");
    // Signs of life confirm.
    let aged = || rig.age("linear").unwrap().unwrap();
    until("it ages", || aged() > 300).await;
    events.send(event("alive", "e.11", "")).unwrap();
    until("it is young again", || aged() < 200).await;
    // The end of the stream: everything is read, then it is opened where the reading stands.
    *fake.list.lock().unwrap() = vec![3, 4, 5];
    drop(events);
    let (after, _events) = fake.opened.recv().await.unwrap();
    assert_eq!(after, "e.3");
    until("the new list", || rig.holds("linear", &[3, 4, 5])).await;
    rig.end().await;
}

#[tokio::test]
async fn a_stream_that_falls_silent_or_talks_nonsense_is_left() {
    let mut fake = streaming(&[1]).await;
    let rig = Rig::start(&fake.api, Plan::default());
    let (_, events) = fake.opened.recv().await.unwrap();
    until("the list", || rig.holds("linear", &[1])).await;
    *fake.list.lock().unwrap() = vec![1, 2];
    events.send(event("ended", "e.9", "{\"half\":")).unwrap();
    until("it is read again", || rig.holds("linear", &[1, 2])).await;
    let (after, events) = fake.opened.recv().await.unwrap();
    assert_eq!(after, "e.2", "what was not understood moves no cursor");
    *fake.list.lock().unwrap() = vec![1, 2, 3];
    // Comments are no sign of life.
    let began = std::time::Instant::now();
    while !rig.holds("linear", &[1, 2, 3]) {
        let _ = events.send(": still here\n\n".to_owned());
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(began.elapsed() < PATIENCE);
    }
    rig.end().await;
}

#[tokio::test]
async fn an_api_without_the_stream_is_polled() {
    let list = rows(&[1]);
    let shared = Arc::clone(&list);
    let api = FakeApi::start(move |asked| {
        if asked.target.starts_with("/v1/namespaces/claims/changes") {
            return json("404 Not Found", "", r#"{"error":"no such path","code":"NOT_FOUND"}"#);
        }
        json("200 OK", "sigilum-claims-cursor: e.1\r\n", &page(asked, &shared.lock().unwrap(), 2000))
    })
    .await;
    let rig = Rig::start(&api, Plan::default());
    until("the list", || rig.holds("linear", &[1])).await;
    *list.lock().unwrap() = vec![2];
    until("the new list", || rig.holds("linear", &[2])).await;
    let asked = api.asked();
    let streams = asked.iter().filter(|asked| asked.target.contains("changes")).count();
    assert_eq!(streams, 1, "it is not asked for again");
    assert!(rig.condition().fresh);
    rig.end().await;
}

#[tokio::test]
async fn a_cursor_that_is_gone_is_replaced_by_a_reading() {
    let (sender, mut opened) = mpsc::unbounded_channel();
    let api = FakeApi::start(move |asked| {
        if asked.target.starts_with("/v1/namespaces/claims/changes") {
            if asked.query("after") == Some("old.1") {
                return json("410 Gone", "", r#"{"error":"gone","code":"CURSOR_GONE"}"#);
            }
            let (events, receiver) = mpsc::unbounded_channel();
            sender.send(events).unwrap();
            return stream(receiver);
        }
        static READ: AtomicBool = AtomicBool::new(false);
        assert!(asked.header("if-none-match").is_none(), "the old tag is forgotten too");
        let cursor = if READ.swap(true, Ordering::SeqCst) { "new.1" } else { "old.1" };
        json("200 OK", &format!("etag: \"{cursor}\"\r\nsigilum-claims-cursor: {cursor}\r\n"), &page(asked, &[1], 2000))
    })
    .await;
    let rig = Rig::start(&api, Plan::default());
    let events = opened.recv().await.unwrap();
    events.send(event("ended", "new.2", &row(1))).unwrap();
    until("the new stream is followed", || rig.holds("linear", &[])).await;
    rig.end().await;
}

#[tokio::test]
async fn a_stream_that_ends_at_once_again_and_again_is_not_hammered() {
    let mut fake = streaming(&[1]).await;
    let rig = Rig::start(&fake.api, Plan::default());
    let began = std::time::Instant::now();
    let mut streams = 0;
    while began.elapsed() < Duration::from_secs(2) {
        if let Ok(Some((_, events))) = tokio::time::timeout(Duration::from_millis(100), fake.opened.recv()).await {
            streams += 1;
            drop(events);
        }
    }
    assert!((2..12).contains(&streams), "{streams}");
    assert!(rig.condition().fresh);
    rig.end().await;
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

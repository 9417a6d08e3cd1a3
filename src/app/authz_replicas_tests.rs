//! Several authz processes for the same connections: the window they share on a real server, and none without.

#![allow(clippy::disallowed_methods, reason = "test code may read clocks and write files")]

use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use rustix::process::Pid;
use rustix::process::Signal;

use super::*;
use crate::config::fleet::SharedReplay;
use crate::domain::secret::Secret;
use crate::sys::clock::Stopwatch;

const TARGET: &str = "/proxy/svc-one/v1/ping";
const ALLOWED: &str = "Bearer canary-one";
const REPLAYED: &str = "AUTH_REPLAY_DETECTED";
const UNAVAILABLE: &str = "AUTHZ_UNAVAILABLE";
const STARTING: &str = "REPLAY_WINDOW_STARTING";

/// The wall clock of a process whose environment has `TEST_CLOCK`: the second that stands in that file. Everything else about time
/// is the system's.
const CLOCK_OF_A_FILE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static volatile long *shown;
static long seconds(void) {
    if (!shown) {
        int file = open(getenv("TEST_CLOCK"), O_RDONLY);
        shown = mmap(0, sizeof *shown, PROT_READ, MAP_SHARED, file, 0);
        close(file);
    }
    return *shown;
}
int clock_gettime(clockid_t clock, struct timespec *time) {
    if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE) return syscall(SYS_clock_gettime, clock, time);
    *time = (struct timespec) { seconds(), 0 };
    return 0;
}
int gettimeofday(struct timeval *time, void *zone) {
    *time = (struct timeval) { seconds(), 0 };
    return 0;
}
time_t time(time_t *told) {
    time_t now = seconds();
    if (told) *told = now;
    return now;
}
"#;

/// Where that is as a library.
fn clock_of_a_file() -> &'static Path {
    static LIBRARY: std::sync::OnceLock<(tempfile::TempDir, PathBuf)> = std::sync::OnceLock::new();
    let (_, path) = LIBRARY.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let (source, library) = (folder.path().join("clock.c"), folder.path().join("clock.so"));
        std::fs::write(&source, CLOCK_OF_A_FILE).unwrap();
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).status();
        assert!(built.unwrap().success());
        (folder, library)
    });
    path
}

/// A server of Debian's package `redis-server`, as long as it lives.
struct Store {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
    more: Vec<String>,
}

impl Store {
    /// One that goes by this clock.
    fn start(clock: &TestClock, more: &[&str]) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let more: Vec<String> = more.iter().map(|word| (*word).to_owned()).collect();
        std::fs::write(folder.path().join("clock"), []).unwrap();
        clock.follow(&folder.path().join("clock"));
        let child = Self::launch(port, folder.path(), &more);
        Self { child, port, folder, more }
    }

    /// Its clock steps, and no other.
    fn leap(&self, seconds: u64) {
        turn(&self.folder.path().join("clock"), seconds);
    }

    fn launch(port: u16, folder: &Path, more: &[String]) -> Child {
        let tls = more.iter().any(|word| word == "--tls-port");
        let plain = if tls { "0".to_owned() } else { port.to_string() };
        let (number, port) = (port, port.to_string());
        let more = more.iter().map(|word| if word == "PORT" { &port } else { word });
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &plain, "--save", "", "--appendonly", "no"])
            .args(more)
            .env("LD_PRELOAD", clock_of_a_file())
            .env("TEST_CLOCK", folder.join("clock"))
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = child
            .unwrap_or_else(|error| panic!("these tests need redis-server (apt-get install redis-server): {error}"));
        while std::net::TcpStream::connect(("127.0.0.1", number)).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }

    fn restart(&mut self) {
        self.kill();
        self.child = Self::launch(self.port, self.folder.path(), &self.more);
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Says something to it in its own words.
    fn say(&self, command: &str) -> String {
        use std::io::Read as _;
        use std::io::Write as _;
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).unwrap();
        let mut told = String::new();
        stream.read_to_string(&mut told).unwrap();
        told
    }

    /// Runs a program in it, without quotation marks.
    fn eval(&self, program: &str) -> String {
        self.say(&format!("EVAL \"{program}\" 0"))
    }

    fn settings(&self) -> SharedReplay {
        SharedReplay {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            database: 0,
            tls: false,
            ca_file: None,
            username: None,
            password: None,
            password_file: None,
            // The machine of the tests may be busy; only the test of the deadline is about it.
            timeout: Duration::from_millis(400),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An authz of its own folder beside others that one admin feeds.
async fn replica(root: &Path, name: &str, clock: &TestClock, shared: Option<SharedReplay>) -> Gateway {
    let folder = root.join(name);
    std::fs::create_dir(&folder).unwrap();
    let state = StateFrom::Unix(root.join("state.sock"));
    let config = AuthzConfig { state, shared_replay: shared.map(Arc::new), ..config(&folder) };
    Gateway::start_with(&folder, config, clock.clone()).await
}

/// The same, and a connection to it, when it has its state.
async fn serving_replica(
    root: &Path,
    name: &str,
    clock: &TestClock,
    shared: Option<SharedReplay>,
) -> (Gateway, Channel) {
    let gateway = replica(root, name, clock, shared).await;
    let channel = gateway.channel().await;
    serving(&channel).await;
    (gateway, channel)
}

fn request(nonce: &str, clock: &TestClock) -> CheckRequest {
    signed(TARGET, b"ping", nonce, clock.seconds())
}

async fn told(channel: &Channel, request: &CheckRequest) -> String {
    outcome(&ask(channel, "body", request.clone()).await)
}

/// Asks with new requests until one gets this answer.
async fn until(channel: &Channel, clock: &TestClock, wanted: &str) {
    let mut last = String::new();
    let asking = async {
        for number in 0_u64.. {
            last = told(channel, &request(&format!("until-{wanted}-{number}"), clock)).await;
            if last == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(TIMEOUT, asking).await;
    assert!(found.is_ok(), "never {wanted}, but {last}");
}

/// Time passes, up to this second and on, until new requests pass. To admin another memory is another window, which it gives the
/// connection by its own clock: that word may come after the clock here was set.
async fn open_again(channel: &Channel, clock: &TestClock, seconds: u64) {
    clock.set(clock.seconds().0.max(seconds));
    let mut last = String::new();
    let opening = async {
        loop {
            last = told(channel, &request(&format!("opening-{}", clock.seconds().0), clock)).await;
            if last == ALLOWED {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            clock.set(clock.seconds().0 + 1);
        }
    };
    let opened = tokio::time::timeout(TIMEOUT, opening).await;
    assert!(opened.is_ok(), "it stays {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_sent_to_two_replicas_at_once_are_accepted_a_thousand_times() {
    let (root, clock) = (tempfile::tempdir().unwrap(), clock());
    let store = Store::start(&clock, &[]);
    let admin = Admin::serve(root.path(), published());
    let one = replica(root.path(), "one", &clock, Some(store.settings())).await;
    let two = replica(root.path(), "two", &clock, Some(store.settings())).await;
    let (first, second) = (one.channel().await, two.channel().await);
    serving(&first).await;
    serving(&second).await;
    // The store's memory has just begun: nobody knows what was used before.
    assert_eq!(told(&first, &request("early", &clock)).await, STARTING);
    clock.set(START + 20);
    for number in 0..1000 {
        let request = request(&format!("n-{number}"), &clock);
        let (one, two) = tokio::join!(told(&first, &request), told(&second, &request));
        let mut both = [one, two];
        both.sort();
        assert_eq!(both, [REPLAYED.to_owned(), ALLOWED.to_owned()], "request {number}");
    }
    one.end().await;
    two.end().await;
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_replica_serves_at_once_because_the_store_remembers() {
    let (root, clock) = (tempfile::tempdir().unwrap(), clock());
    let store = Store::start(&clock, &[]);
    let admin = Admin::serve(root.path(), published());
    let (one, first) = serving_replica(root.path(), "one", &clock, Some(store.settings())).await;
    clock.set(START + 20);
    let used = request("used", &clock);
    assert_eq!(told(&first, &used).await, ALLOWED);
    let (two, second) = serving_replica(root.path(), "two", &clock, Some(store.settings())).await;
    assert_eq!(told(&second, &used).await, REPLAYED);
    assert_eq!(told(&second, &request("new", &clock)).await, ALLOWED);
    one.end().await;
    two.end().await;
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_ready_while_its_window_can_be_asked_and_old_enough() {
    let (root, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut store = Store::start(&clock, &[]);
    let admin = Admin::serve(root.path(), published());
    let gateway = replica(root.path(), "one", &clock, Some(store.settings())).await;
    let channel = gateway.channel().await;
    // The store's memory has just begun.
    serving(&channel).await;
    until_health(&channel, "", NOT_SERVING).await;
    clock.set(START + 20);
    until_health(&channel, "", SERVING).await;
    store.kill();
    until_health(&channel, "", NOT_SERVING).await;
    // Envoy's stays: the answer to a check says what is the matter.
    assert_eq!(health(&channel).await, SERVING);
    store.restart();
    until(&channel, &clock, STARTING).await;
    clock.set(START + 40);
    until_ready(&gateway).await;
    until_health(&channel, "", SERVING).await;
    gateway.end().await;
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_store_everything_is_refused_until_it_is_back() {
    let (root, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut store = Store::start(&clock, &[]);
    let admin = Admin::serve(root.path(), published());
    let (gateway, channel) = serving_replica(root.path(), "one", &clock, Some(store.settings())).await;
    clock.set(START + 20);
    let used = request("used", &clock);
    assert_eq!(told(&channel, &used).await, ALLOWED);
    store.kill();
    let began = Stopwatch::start();
    assert_eq!(told(&channel, &request("down", &clock)).await, UNAVAILABLE);
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    refused(&admin.publisher, "REPLAY_STORE_UNAVAILABLE", 1).await;
    store.restart();
    until(&channel, &clock, STARTING).await;
    open_again(&channel, &clock, START + 40).await;
    gateway.end().await;
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_costs_no_request_more_than_its_deadline() {
    let (root, clock) = (tempfile::tempdir().unwrap(), clock());
    let store = Store::start(&clock, &[]);
    let admin = Admin::serve(root.path(), published());
    let settings = SharedReplay { timeout: Duration::from_millis(50), ..store.settings() };
    let (gateway, channel) = serving_replica(root.path(), "one", &clock, Some(settings)).await;
    clock.set(START + 20);
    until(&channel, &clock, ALLOWED).await;
    store.signal(Signal::STOP);
    for number in 0..5 {
        let began = Stopwatch::start();
        assert_eq!(told(&channel, &request(&format!("hang-{number}"), &clock)).await, UNAVAILABLE);
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    }
    store.signal(Signal::CONT);
    until(&channel, &clock, ALLOWED).await;
    gateway.end().await;
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_emptied_lets_no_replay_through() {
    let (root, clock) = (tempfile::tempdir().unwrap(), clock());
    let store = Store::start(&clock, &[]);
    let admin = Admin::serve(root.path(), published());
    let one = replica(root.path(), "one", &clock, Some(store.settings())).await;
    let two = replica(root.path(), "two", &clock, Some(store.settings())).await;
    let (first, second) = (one.channel().await, two.channel().await);
    serving(&first).await;
    serving(&second).await;
    clock.set(START + 20);
    let used = request("used", &clock);
    assert_eq!(told(&first, &used).await, ALLOWED);
    store.say("FLUSHALL");
    assert_eq!(told(&second, &used).await, UNAVAILABLE, "it has forgotten");
    // Whoever was asked before is asked again: the memory has begun anew by then.
    until(&second, &clock, STARTING).await;
    open_again(&second, &clock, START + 40).await;
    let old = signed(TARGET, b"ping", "used-later", UnixSeconds(START + 20));
    assert_eq!(told(&second, &old).await, STARTING);
    one.end().await;
    two.end().await;
    admin.end().await;
}

/// Everything of ours in the store but the mark, as `keys`.
const NONCES: &str = "local keys = {} for _, key in ipairs(redis.call('keys', 'sigilum1:*')) do \
                      if not key:find(':memory:') then table.insert(keys, key) end end ";

async fn accept_up_to(admin: &Admin, version: u64, seconds: u64) {
    let settings = Settings { max_age: Duration::from_secs(seconds), ..Settings::default() };
    admin.publisher.publish(version, Change::Settings(state::encode_settings(&settings)));
    applied(&admin.publisher).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raised_age_brings_no_used_request_back_not_even_at_a_replica_that_did_not_see_it_raised() {
    let (root, clock) = (tempfile::tempdir().unwrap(), clock());
    let store = Store::start(&clock, &[]);
    let admin = Admin::serve(root.path(), published());
    let (one, first) = serving_replica(root.path(), "one", &clock, Some(store.settings())).await;
    clock.set(START + 20);
    let used = request("used", &clock);
    assert_eq!(told(&first, &used).await, ALLOWED);
    // Its time in the store has passed.
    clock.set(START + 400);
    accept_up_to(&admin, 2, 900).await;
    let (two, second) = serving_replica(root.path(), "two", &clock, Some(store.settings())).await;
    assert_eq!(told(&second, &used).await, STARTING);
    // What is signed now goes on, and so it does where the shorter age was known.
    until(&second, &clock, ALLOWED).await;
    until(&first, &clock, ALLOWED).await;
    one.end().await;
    two.end().await;
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_is_kept_for_the_longest_age_that_the_memory_was_asked_for() {
    let (root, clock) = (tempfile::tempdir().unwrap(), clock());
    let store = Store::start(&clock, &[]);
    let admin = Admin::serve(root.path(), published());
    let (gateway, channel) = serving_replica(root.path(), "one", &clock, Some(store.settings())).await;
    clock.set(START + 20);
    for (version, seconds, at_least) in [(2, 60, 300), (3, 900, 900), (4, 10, 900)] {
        accept_up_to(&admin, version, seconds).await;
        until(&channel, &clock, ALLOWED).await;
        clock.set(clock.seconds().0 + 1);
        store.eval(&format!("{NONCES} return redis.call('del', unpack(keys))"));
        assert_eq!(told(&channel, &request(&format!("kept-{version}"), &clock)).await, ALLOWED);
        let left = store.eval(&format!("{NONCES} return redis.call('pttl', keys[1])"));
        let left: u64 = left.lines().next().unwrap().trim_start_matches(':').trim().parse().unwrap();
        assert!(left > at_least * 1000 && left < (at_least + 20) * 1000, "{seconds}: {left} ms");
    }
    gateway.end().await;
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_may_evict_is_not_used() {
    let (root, clock) = (tempfile::tempdir().unwrap(), clock());
    let store = Store::start(&clock, &["--maxmemory-policy", "volatile-ttl"]);
    let admin = Admin::serve(root.path(), published());
    let gateway = replica(root.path(), "one", &clock, Some(store.settings())).await;
    let channel = gateway.channel().await;
    // Nothing is known of its memory, so admin is not asked either.
    assert_eq!(told(&channel, &request("n", &clock)).await, "NOT_READY");
    store.say("CONFIG SET maxmemory-policy noeviction");
    serving(&channel).await;
    clock.set(START + 20);
    until(&channel, &clock, ALLOWED).await;
    store.say("CONFIG SET maxmemory-policy allkeys-lru");
    until(&channel, &clock, UNAVAILABLE).await;
    gateway.end().await;
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_proves_its_name_and_wants_its_password() {
    let root = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new(root.path(), "ours"), Authority::new(root.path(), "theirs"));
    let files = ours.issue("localhost");
    let text = |path: &Path| path.display().to_string();
    let (certificate, key, authorities) = (text(&files.certificate), text(&files.key), text(&files.authorities));
    let clock = clock();
    let store = Store::start(
        &clock,
        &[
            "--tls-port",
            "PORT",
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &authorities,
            "--tls-auth-clients",
            "no",
            "--requirepass",
            "canary-password",
        ],
    );
    let admin = Admin::serve(root.path(), published());
    let password_file = root.path().join("password");
    files::write_private(&password_file, b"canary-password\n").unwrap();
    let settings = |host: &str, ca: &TlsFiles| SharedReplay {
        host: host.to_owned(),
        tls: true,
        ca_file: Some(ca.authorities.clone()),
        password_file: Some(password_file.clone()),
        ..store.settings()
    };
    let (right, channel) = serving_replica(root.path(), "right", &clock, Some(settings("localhost", &files))).await;
    clock.set(START + 20);
    until(&channel, &clock, ALLOWED).await;
    right.end().await;
    let stranger = settings("localhost", &theirs.issue("x.test"));
    let wrong_name = settings("127.0.0.1", &files);
    let wrong_password = SharedReplay {
        password_file: None,
        password: Some(Secret::new("canary-wrong".to_owned())),
        ..settings("localhost", &files)
    };
    for shared in [stranger, wrong_name, wrong_password] {
        let window = Window::of(Some(&shared), None);
        let shared = window.shared.unwrap();
        let error = shared.attempt(&clock).await.unwrap_err().to_string();
        assert!(!error.contains("canary"), "{error}");
    }
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_of_the_manifest_may_remember_nonces_and_nothing_else() {
    let manifest = std::fs::read_to_string("deploy/k8s/shared/replay.yaml").unwrap();
    let rule = |name: &str| manifest.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap().to_owned();
    let secret = "\">$(cat /run/secrets/sigilum-replay/password)\"";
    let ours = rule("user sigilum ").replace(secret, ">canary-password");
    let mut words = vec!["--user", "default"];
    let default = rule("user default ");
    words.extend(default.split(' '));
    words.extend(["--user", "sigilum"]);
    words.extend(ours.split(' '));
    let clock = clock();
    let store = Store::start(&clock, &words);
    let root = tempfile::tempdir().unwrap();
    let admin = Admin::serve(root.path(), published());
    let settings = SharedReplay {
        username: Some("sigilum".to_owned()),
        password: Some(Secret::new("canary-password".to_owned())),
        ..store.settings()
    };
    let (gateway, channel) = serving_replica(root.path(), "one", &clock, Some(settings)).await;
    clock.set(START + 20);
    until(&channel, &clock, ALLOWED).await;
    // It also raises the mark's age, which writes over it.
    accept_up_to(&admin, 2, 900).await;
    until(&channel, &clock, ALLOWED).await;
    for command in
        ["KEYS *", "DEL sigilum1:x", "FLUSHALL", "CONFIG GET maxmemory", "SET other 1", "PEXPIRE sigilum1:x 1"]
    {
        let told = store.say(&format!("AUTH sigilum canary-password\r\n{command}"));
        assert!(told.contains("NOPERM"), "{command}: {told}");
    }
    assert!(store.say("INFO server").contains("NOAUTH"));
    gateway.end().await;
    admin.end().await;
}

/// Whoever may use it can let requests of everybody be sent again.
#[test]
fn a_sidecar_has_no_part_in_the_window_of_the_data_plane() {
    let read = |folder: &str| {
        let files =
            std::fs::read_dir(folder).unwrap().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
        files.collect::<String>()
    };
    let shares = |text: &str| ["GATEWAY_REPLAY_", "sigilum-replay"].iter().any(|word| text.contains(word));
    assert!(shares(&std::fs::read_to_string("deploy/k8s/shared/data-plane.yaml").unwrap()));
    assert!(!shares(&read("deploy/k8s/sidecar")));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_windows_do_not_decide_for_one_connection() {
    let root = tempfile::tempdir().unwrap();
    let admin = Admin::serve(root.path(), published());
    let clock = clock();
    let (one, first) = serving_replica(root.path(), "one", &clock, None).await;
    let two = replica(root.path(), "two", &clock, None).await;
    let second = two.channel().await;
    clock.set(START + 20);
    let refused = async {
        while admin.publisher.window_conflict().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, refused).await.unwrap();
    let text = admin.publisher.window_conflict().unwrap();
    assert!(text.contains("another replay window") && text.contains("replay.shared.url"), "{text}");
    assert_eq!(told(&second, &request("two", &clock)).await, "NOT_READY");
    let seen = request("one", &clock);
    assert_eq!(told(&first, &seen).await, ALLOWED);
    one.end().await;
    // With the first gone the other may, but for what was used there.
    serving(&second).await;
    assert_eq!(told(&second, &seen).await, "REPLAY_WINDOW_STARTING");
    clock.set(START + 40);
    assert_eq!(told(&second, &seen).await, "REPLAY_WINDOW_STARTING");
    until(&second, &clock, ALLOWED).await;
    two.end().await;
    admin.end().await;
}

/// Those that decide, as an Envoy that asks for health keeps them.
type Pool = Arc<std::sync::Mutex<Vec<(usize, Channel)>>>;

async fn keep(pool: Pool, number: usize, channel: Channel) {
    let request = HealthCheckRequest { service: "envoy.service.auth.v3.Authorization".to_owned() };
    let mut statuses = HealthClient::new(channel.clone()).watch(request).await.unwrap().into_inner();
    while let Ok(Some(status)) = statuses.message().await {
        let mut pool = pool.lock().unwrap();
        pool.retain(|(other, _)| *other != number);
        if status.status == 1 {
            pool.push((number, channel.clone()));
        }
    }
    pool.lock().unwrap().retain(|(other, _)| *other != number);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_replaced_one_after_the_other_under_load_without_a_failed_request() {
    let (root, clock) = (tempfile::tempdir().unwrap(), clock());
    let store = Store::start(&clock, &[]);
    let admin = Admin::serve(root.path(), published());
    let pool = Pool::default();
    let mut balancer = Tasks::default();
    // Long enough for whoever asks for health to turn elsewhere.
    let drain_pause = Duration::from_millis(300);
    let mut start = async |number: usize| {
        let folder = root.path().join(format!("replica-{number}"));
        std::fs::create_dir(&folder).unwrap();
        let (state, shared) = (StateFrom::Unix(root.path().join("state.sock")), store.settings());
        let config = AuthzConfig { state, shared_replay: Some(Arc::new(shared)), drain_pause, ..config(&folder) };
        let gateway = Gateway::start_with(&folder, config, clock.clone()).await;
        let channel = gateway.channel().await;
        serving(&channel).await;
        let kept = Arc::clone(&pool);
        balancer.spawn("balancer", |_| keep(kept, number, channel));
        let joined = async {
            while !pool.lock().unwrap().iter().any(|(known, _)| *known == number) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(TIMEOUT, joined).await.unwrap();
        gateway
    };
    let (one, two) = (start(1).await, start(2).await);
    clock.set(START + 20);
    let (ended, mut load) = (Arc::new(std::sync::atomic::AtomicBool::new(false)), Tasks::default());
    let failures: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let asked = Arc::new(AtomicU64::new(0));
    for worker in 0..2 {
        let (pool, ended, failures) = (Arc::clone(&pool), Arc::clone(&ended), Arc::clone(&failures));
        let (asked, clock) = (Arc::clone(&asked), clock.clone());
        load.spawn("load", |_| async move {
            let mut number = 0_usize;
            while !ended.load(Ordering::Relaxed) {
                number += 1;
                let channel = {
                    let pool = pool.lock().unwrap();
                    pool.get(number % pool.len().max(1)).map(|(_, channel)| channel.clone())
                };
                let Some(channel) = channel else {
                    failures.lock().unwrap().push("nobody serves".to_owned());
                    return;
                };
                let told = told(&channel, &request(&format!("load-{worker}-{number}"), &clock)).await;
                if told != ALLOWED {
                    failures.lock().unwrap().push(told);
                }
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let settle = async |more: u64| {
        let until = asked.load(Ordering::Relaxed) + more;
        let wait = async {
            while asked.load(Ordering::Relaxed) < until {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(TIMEOUT, wait).await.unwrap();
    };
    settle(100).await;
    let three = start(3).await;
    one.end().await;
    settle(100).await;
    let four = start(4).await;
    two.end().await;
    settle(100).await;
    ended.store(true, Ordering::Relaxed);
    load.supervise(TIMEOUT).await;
    assert_eq!(failures.lock().unwrap().as_slice(), &[] as &[String]);
    for gateway in [three, four] {
        gateway.end().await;
    }
    drop(balancer);
    admin.end().await;
}

#[path = "authz_store_clock_tests.rs"]
mod store_clock;

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "test code may panic"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::LazyLock;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::sync::mpsc;
use tokio::sync::watch;

use super::*;
use crate::app::admin::STATE_SOCKET;
use crate::app::gateway::ask::Command;
use crate::app::gateway::ask::Restart;
use crate::app::gateway::command::CommandError;
use crate::app::gateway::command::Conversation;
use crate::app::gateway::config::LAST_GOOD_FILE;
use crate::app::gateway::config::Loader;
use crate::app::gateway::control::CONTROL_SOCKET;
use crate::app::gateway::error::Class;
use crate::app::gateway::record::LastShutdown;
use crate::app::gateway::restart::Patience;
use crate::config::guard::Unguarded;
use crate::config::parts::LogBounds;
use crate::domain::secret::Secret;
use crate::envoy::binary::Search;
use crate::sys::signal::StopSignals;
use crate::sys::supervision;
use crate::sys::tasks::Tasks;

/// Signals reach every test of this process; those that listen take turns.
static TURN: LazyLock<Mutex<()>> = LazyLock::new(Mutex::default);
const LIMIT: Duration = Duration::from_secs(30);

struct Fake {
    root: TempDir,
    ready: std::sync::Mutex<Option<watch::Receiver<bool>>>,
}

impl Fake {
    fn new() -> Self {
        let fake = Self { root: tempfile::tempdir().unwrap(), ready: std::sync::Mutex::default() };
        fs::create_dir_all(fake.run_dir()).unwrap();
        fs::write(fake.root.path().join("role.py"), include_str!("fake_role.py")).unwrap();
        fake.script("role", &format!("exec python3 '{}' \"$@\"", fake.root.path().join("role.py").display()));
        fake.script("envoy", "exec echo 'envoy  version: abc/1.40.0/Clean/RELEASE/BoringSSL'");
        fake
    }

    /// Copied by another process: a file that a fork of ours still holds open for writing cannot be run.
    fn script(&self, name: &str, body: &str) {
        let draft = self.root.path().join("draft");
        fs::write(&draft, format!("#!/bin/sh\nPATH=/usr/local/bin:/usr/bin:/bin\nexport PATH\n{body}\n")).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
        let target = self.root.path().join(name);
        let _ = fs::remove_file(&target);
        assert!(std::process::Command::new("cp").arg(&draft).arg(target).status().unwrap().success());
    }

    fn run_dir(&self) -> PathBuf {
        self.root.path().join("run")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.run_dir().join(name), text).unwrap();
    }

    fn config(&self) -> GatewayConfig {
        GatewayConfig {
            admin_trust: None,
            admin_unguarded: None,
            admin_secret_file: PathBuf::from("admin-token"),
            admin: vec!["127.0.0.1:0".parse().unwrap()],
            ingress: vec!["127.0.0.1:0".parse().unwrap()],
            envoy_admin: vec!["127.0.0.1:0".parse().unwrap()],
            data_dir: self.root.path().join("data"),
            run_behind: None,
            run_dir: self.run_dir(),
            home: self.root.path().join("home"),
            config_file: None,
            file_text: None,
            held_back: None,
            envoy: Search { flag: Some(self.root.path().join("envoy")), ..Search::default() },
            concurrency: None,
            max_body_bytes: 1024,
            trusted_hops: 0,
            tls: None,
            traces: None,
            drain: LIMIT,
            patience: Patience { longest: Duration::from_millis(200), most: 5, ..Patience::default() },
            program: Some(self.root.path().join("role")),
            typed: Vec::new(),
            admin_environment: vec![("FOR_ADMIN".to_owned(), "1".to_owned())],
            admin_secrets: vec![("GATEWAY_MASTER_KEY".to_owned(), Secret::new("canary".to_owned()))],
            logs: LogBounds::default(),
            log_style: None,
            verbose: false,
            beside: Vec::new(),
            environment: vec![("FOR_AUTHZ".to_owned(), "1".to_owned())],
        }
    }

    fn events(&self) -> Vec<String> {
        let text = fs::read_to_string(self.run_dir().join("events")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn at(&self, event: &str) -> usize {
        let events = self.events();
        events.iter().position(|line| line.starts_with(event)).unwrap_or_else(|| panic!("no {event:?} in {events:#?}"))
    }

    /// Waits for the next life: admin has another process, and all three are there.
    async fn next_life(&self, before: i32) {
        let ready = self.ready.lock().unwrap().clone().unwrap();
        until("another life", || {
            Instance::read(&self.run_dir()).is_some_and(|now| {
                let admin = now.children.iter().find(|child| child.role == Role::Admin);
                *ready.borrow() && admin.is_some_and(|admin| admin.process.pid != before)
            })
        })
        .await;
    }

    fn pid(&self, role: Role) -> i32 {
        let instance = Instance::read(&self.run_dir()).unwrap();
        instance.children.iter().find(|child| child.role == role).unwrap().process.pid
    }
}

/// Nothing is read again.
fn none() -> Loader {
    Loader::new(|| Err("nobody asked".to_owned()))
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(LIMIT, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what} takes too long"));
}

fn kill(pid: i32, signal: Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Runs a gateway, `script` once it is ready, then the stop. Answers how it ended and what it reported.
async fn live<F: Future<Output = ()>>(
    fake: &Fake,
    script: impl FnOnce() -> F,
) -> (Result<(), GatewayError>, Vec<Progress>) {
    live_with(fake, fake.config(), none(), script).await
}

/// The same from these settings, which `loader` reads again.
async fn live_with<F: Future<Output = ()>>(
    fake: &Fake,
    config: GatewayConfig,
    loader: Loader,
    script: impl FnOnce() -> F,
) -> (Result<(), GatewayError>, Vec<Progress>) {
    let tasks = Tasks::default();
    let mut stops = Stops::new(StopSignals::install().unwrap(), tasks.stop_signal());
    let (progress, mut reported) = mpsc::channel(1000);
    let bound = Bound::build(config, loader, progress).await.unwrap();
    let mut ready = bound.ready();
    *fake.ready.lock().unwrap() = Some(ready.clone());
    let play = async {
        if ready.wait_for(|ready| *ready).await.is_ok() {
            drop(ready);
            script().await;
            tasks.stop_handle().stop();
        }
        // The end of the gateway ends the play.
        std::future::pending::<()>().await;
    };
    let whole = async {
        tokio::select! {
            ended = bound.run(&mut stops) => ended,
            () = play => unreachable!("the play has no end"),
        }
    };
    let ended = tokio::time::timeout(LIMIT * 2, whole).await.unwrap();
    let mut all = Vec::new();
    while let Some(event) = reported.recv().await {
        all.push(event);
    }
    (ended, all)
}

#[tokio::test]
async fn a_life_in_order() {
    let _turn = TURN.lock().await;
    let fake = Fake::new();
    fake.write("in-flight", "1");
    let (ended, reported) = live(&fake, || async {
        let (authz, envoy) = (fake.pid(Role::Authz), fake.pid(Role::Envoy));
        until("who may connect", || {
            fake.events().contains(&format!("admin told peer {authz}"))
                && fake.events().contains(&format!("authz told peer {envoy}"))
        })
        .await;
        // The stop waits for the request in flight.
        let run_dir = fake.run_dir();
        std::thread::spawn(move || {
            let seen = || fs::read_to_string(run_dir.join("events")).unwrap().contains("asked /drain_listeners");
            while !seen() {
                std::thread::sleep(Duration::from_millis(10));
            }
            fs::write(run_dir.join("in-flight"), "0").unwrap();
        });
    })
    .await;
    ended.unwrap();
    assert!(matches!(reported[0], Progress::Ready(_)) && reported.contains(&Progress::Draining), "{reported:?}");

    // Each earned the start of the next.
    assert!(fake.at("admin start") < fake.at("authz start") && fake.at("authz start") < fake.at("envoy start"));
    let start = |role: &str| fake.events()[fake.at(&format!("{role} start"))].clone();
    for role in ["admin", "authz", "envoy"] {
        assert!(start(role).contains("group=True"), "{}", start(role));
    }
    assert!(start("admin").contains("FOR_ADMIN") && !start("admin").contains("FOR_AUTHZ"));
    assert!(!start("authz").contains("FOR_ADMIN") && start("authz").contains("FOR_AUTHZ"));
    assert!(!start("envoy").contains("FOR_"));
    // The secret went through the pipe, to admin alone.
    assert!(fake.at("admin told secret GATEWAY_MASTER_KEY") < fake.at("admin told go"));
    assert!(!fake.events().iter().any(|line| line.starts_with("authz told secret") || line.contains("canary")));
    // Envoy drained and ended, then authz, then admin.
    assert!(fake.at("envoy asked /healthcheck/fail") < fake.at("envoy asked /drain_listeners"));
    assert!(fake.at("envoy asked /drain_listeners") < fake.at("envoy term"));
    assert!(fake.at("envoy term") < fake.at("authz term") && fake.at("authz term") < fake.at("admin term"));
    assert!(Instance::read(&fake.run_dir()).is_none());
}

#[tokio::test]
async fn what_ends_is_started_again_and_the_others_hear_of_it() {
    let _turn = TURN.lock().await;
    let fake = Fake::new();
    let (ended, reported) = live(&fake, || async {
        for role in [Role::Authz, Role::Admin, Role::Envoy] {
            let before = fake.pid(role);
            kill(before, Signal::KILL);
            until("a new process", || {
                Instance::read(&fake.run_dir()).is_some_and(|now| {
                    now.children.iter().any(|child| child.role == role && child.process.pid != before)
                })
            })
            .await;
        }
        let (authz, envoy) = (fake.pid(Role::Authz), fake.pid(Role::Envoy));
        until("the new ones are known", || {
            let events = fake.events();
            let told = |line: String| events.iter().filter(|event| **event == line).count();
            // The first admin was told of the new authz, and so was the second.
            told(format!("admin told peer {authz}")) == 2 && told(format!("authz told peer {envoy}")) == 1
        })
        .await;
        assert_eq!(fake.events().iter().filter(|line| line.starts_with("admin told secret")).count(), 2);
    })
    .await;
    ended.unwrap();
    let restarts = reported.iter().filter(|event| matches!(event, Progress::Restarting { .. })).count();
    assert_eq!(restarts, 3, "{reported:?}");
}

#[tokio::test]
async fn a_process_that_cannot_start_ends_the_start() {
    let _turn = TURN.lock().await;
    let fake = Fake::new();
    fake.write("exit-authz", "78");
    let (ended, reported) = live(&fake, || async {}).await;
    let error = ended.unwrap_err();
    assert_eq!(error.class(), Class::Config, "{error}");
    assert!(error.to_string().starts_with("authz ended before it was ready (exit status: 78)"), "{error}");
    assert!(reported.contains(&Progress::Note("authz: this is why".to_owned())), "{reported:?}");
    // The one that had started was ended in order.
    fake.at("admin term");
}

#[tokio::test]
async fn a_process_that_ends_again_and_again_ends_the_gateway() {
    let _turn = TURN.lock().await;
    let fake = Fake::new();
    let (ended, _) = live(&fake, || async {
        fake.write("exit-authz", "3");
        kill(fake.pid(Role::Authz), Signal::KILL);
        // The gateway gives up before the stop comes.
        std::future::pending().await
    })
    .await;
    let error = ended.unwrap_err();
    assert!(matches!(error, GatewayError::GaveUp { role: Role::Authz, .. }), "{error}");
    assert_eq!(error.class(), Class::Failed);
    fake.at("envoy term");
    fake.at("admin term");
}

#[tokio::test]
async fn a_second_signal_does_not_wait() {
    let _turn = TURN.lock().await;
    let fake = Fake::new();
    fake.write("in-flight", "1");
    let own = i32::try_from(std::process::id()).unwrap();
    let (ended, _) = live(&fake, || async {
        let run_dir = fake.run_dir();
        std::thread::spawn(move || {
            let seen = || fs::read_to_string(run_dir.join("events")).unwrap().contains("asked /drain_listeners");
            while !seen() {
                std::thread::sleep(Duration::from_millis(10));
            }
            kill(own, Signal::TERM);
        });
    })
    .await;
    ended.unwrap();
    assert!(!fake.events().iter().any(|line| line.contains(" term")), "{:?}", fake.events());
}

#[tokio::test]
async fn a_second_gateway_names_the_first() {
    let fake = Fake::new();
    let (progress, _reported) = mpsc::channel(10);
    let first = Bound::build(fake.config(), none(), progress.clone()).await.unwrap();
    let error = Bound::build(fake.config(), none(), progress.clone()).await.unwrap_err();
    assert_eq!(error.class(), Class::Config);
    let text = error.to_string();
    assert!(text.starts_with("another gateway instance is already listening"), "{text}");
    assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
    // On another data folder it is the port that is taken.
    let elsewhere = Fake::new();
    let config = GatewayConfig { ingress: first.addresses().ingress.clone(), ..elsewhere.config() };
    let error = Bound::build(config, none(), progress).await.unwrap_err();
    assert_eq!(error.class(), Class::Config, "{error}");
    assert!(error.to_string().contains(&first.addresses().ingress[0].to_string()), "{error}");
}

#[tokio::test]
async fn what_a_killed_gateway_left_is_ended_first() {
    let fake = Fake::new();
    let mut orphan = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let process = ProcessIdentity::of(i32::try_from(orphan.id()).unwrap()).unwrap();
    let dead = ProcessIdentity { pid: process.pid, started: "earlier".to_owned() };
    let addresses =
        Addresses { ingress: vec![], ingress_tls: false, admin: vec![], admin_tls: false, envoy_admin: vec![] };
    let children = vec![ChildIdentity { role: Role::Envoy, process }];
    Instance { supervisor: dead, children, addresses, beside: Vec::new() }.write(&fake.run_dir()).unwrap();
    let reaped = std::thread::spawn(move || orphan.wait().unwrap());
    let (progress, mut reported) = mpsc::channel(10);
    Bound::build(fake.config(), none(), progress).await.unwrap();
    assert!(!reaped.join().unwrap().success());
    assert!(matches!(reported.recv().await, Some(Progress::Note(note)) if note.starts_with("envoy of a gateway")));
}

#[tokio::test]
async fn an_admin_api_that_asks_nobody_is_not_opened_to_a_network() {
    let fake = Fake::new();
    let port = std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let admin = vec![std::net::SocketAddr::from(([0, 0, 0, 0], port))];
    let config = GatewayConfig { admin, admin_unguarded: Some(Unguarded::NoneMode), ..fake.config() };
    let (progress, _reported) = mpsc::channel(10);
    let error = Bound::build(config, none(), progress).await.unwrap_err();
    assert_eq!(error.class(), Class::Config);
    let text = error.to_string();
    assert!(text.starts_with(&format!("refusing to bind gateway to 0.0.0.0:{port} without auth")), "{text}");
}

#[tokio::test]
async fn a_socket_path_that_is_too_long_is_said_with_its_length() {
    let fake = Fake::new();
    let config = GatewayConfig { run_dir: fake.root.path().join("r".repeat(100)), ..fake.config() };
    let lengths = [launch::AUTHZ_SOCKET, STATE_SOCKET, launch::ADMIN_SOCKET]
        .map(|socket| format!(" has {} bytes", config.run_dir.join(socket).as_os_str().len()));
    let (progress, _reported) = mpsc::channel(10);
    let error = Bound::build(config, none(), progress).await.unwrap_err();
    assert_eq!(error.class(), Class::Config);
    assert!(error.to_string().contains("107"), "{error}");
    assert!(lengths.iter().any(|length| error.to_string().contains(length)), "{error}");
    assert!(error.hint().unwrap().contains("--data-dir"));
}

fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn admin_can_have_everything_started_anew() {
    let _turn = TURN.lock().await;
    let fake = Fake::new();
    fake.write("in-flight", "0");
    let new = free_port();
    let (config, next) = (fake.config(), GatewayConfig { admin: vec![new], ..fake.config() });
    let (first, next) = (config.admin.clone(), std::sync::Mutex::new(Some(next)));
    let loader = Loader::new(move || next.lock().unwrap().take().ok_or_else(|| "read twice".to_owned()));
    let (ended, reported) = live_with(&fake, config, loader, || async {
        let (admin, before) = (fake.pid(Role::Admin), Instance::read(&fake.run_dir()).unwrap());
        assert_ne!(before.addresses.admin, first);
        fake.write("leave-admin", &supervision::EXIT_ANEW.to_string());
        fake.next_life(admin).await;
        let now = Instance::read(&fake.run_dir()).unwrap();
        assert_eq!(now.addresses.admin, [new]);
        assert_eq!(now.addresses.ingress, before.addresses.ingress, "what was not asked for stays");
        assert_eq!(now.supervisor, before.supervisor);
    })
    .await;
    ended.unwrap();
    let kinds: Vec<_> = reported.iter().filter(|event| !matches!(event, Progress::Note(_))).collect();
    assert!(
        matches!(kinds[..], [Progress::Ready(_), Progress::Anew, Progress::Ready(_), Progress::Draining]),
        "{reported:?}"
    );
    // Envoy was drained, and everything of the first life ended before the second began.
    assert!(fake.at("envoy asked /drain_listeners") < fake.at("envoy term"));
    let starts: Vec<_> = fake
        .events()
        .iter()
        .enumerate()
        .filter(|(_, line)| line.starts_with("admin start"))
        .map(|(at, _)| at)
        .collect();
    assert!(starts.len() == 2 && fake.at("authz term") < starts[1], "{:?}", fake.events());
    assert!(!fake.run_dir().join(LAST_GOOD_FILE).exists());
}

/// Starts anew with what `loader` reads; answers why that did not go, and that the life before went on.
async fn held_back(fake: &Fake, loader: Loader) -> String {
    let text = Some(Secret::new("# as it was\n".to_owned()));
    let config = GatewayConfig { file_text: text, ..fake.config() };
    let (ended, reported) = live_with(fake, config, loader, || async {
        let (admin, before) = (fake.pid(Role::Admin), Instance::read(&fake.run_dir()).unwrap());
        fake.write("leave-admin", &supervision::EXIT_ANEW.to_string());
        fake.next_life(admin).await;
        assert_eq!(Instance::read(&fake.run_dir()).unwrap().addresses, before.addresses);
        assert_eq!(fs::read_to_string(fake.run_dir().join(LAST_GOOD_FILE)).unwrap(), "# as it was\n");
        until("admin says that it started", || {
            fake.events().iter().filter(|line| line.starts_with("admin start")).count() > 1
        })
        .await;
        let told = fake.events().iter().rfind(|line| line.starts_with("admin start")).unwrap().clone();
        assert!(told.ends_with("held_back=True"), "{told}");
    })
    .await;
    ended.unwrap();
    let found =
        reported.iter().find_map(|event| if let Progress::HeldBack(why) = event { Some(why.clone()) } else { None });
    found.unwrap_or_else(|| panic!("{reported:?}"))
}

#[tokio::test]
async fn settings_that_cannot_be_read_are_held_back() {
    let _turn = TURN.lock().await;
    let fake = Fake::new();
    let why = held_back(&fake, Loader::new(|| Err("gateway.yaml:2:1: no such key".to_owned()))).await;
    assert_eq!(why, "gateway.yaml:2:1: no such key");
}

#[tokio::test]
async fn settings_whose_file_was_emptied_while_they_drained_are_held_back() {
    let _turn = TURN.lock().await;
    for (text, said) in [(None, "the file is gone"), (Some(" \n"), "the file is empty")] {
        let fake = Fake::new();
        let file_text = text.map(|text| Secret::new(text.to_owned()));
        let next = std::sync::Mutex::new(Some(GatewayConfig { file_text, ..fake.config() }));
        let why = held_back(&fake, Loader::new(move || next.lock().unwrap().take().ok_or_else(String::new))).await;
        assert!(why.starts_with(said), "{why}");
    }
}

#[tokio::test]
async fn settings_that_cannot_be_bound_are_held_back() {
    let _turn = TURN.lock().await;
    let fake = Fake::new();
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let file_text = Some(Secret::new("# other".to_owned()));
    let next = GatewayConfig { envoy_admin: vec![address], file_text, ..fake.config() };
    let next = std::sync::Mutex::new(Some(next));
    let why = held_back(&fake, Loader::new(move || next.lock().unwrap().take().ok_or_else(String::new))).await;
    assert!(why.contains(&address.to_string()), "{why}");
}

#[tokio::test]
async fn settings_with_which_nothing_comes_up_are_held_back() {
    let _turn = TURN.lock().await;
    let fake = Fake::new();
    let file_text = Some(Secret::new("# other".to_owned()));
    let next = std::sync::Mutex::new(Some(GatewayConfig { file_text, ..fake.config() }));
    let once = fake.run_dir().join("exit-once-authz");
    let loader = Loader::new(move || {
        fs::write(&once, "78").unwrap();
        next.lock().unwrap().take().ok_or_else(String::new)
    });
    let why = held_back(&fake, loader).await;
    assert!(why.starts_with("authz ended before it was ready"), "{why}");
}

/// Asks the supervisor of `fake` for a restart; everything it answers.
async fn asked(fake: &Fake, restart: Restart) -> Vec<Event> {
    let mut conversation = Conversation::begin(&fake.run_dir(), Command::Restart(restart)).await.unwrap();
    let mut heard = Vec::new();
    while let Some(event) = conversation.next().await.unwrap() {
        heard.push(event);
    }
    heard
}

/// The lines of the restart log.
fn restart_lines(fake: &Fake) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(fake.config().log_dir().join("gateway-restart.log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_restart_that_is_asked_for_drains_starts_and_says_how_it_went() {
    let _turn = TURN.lock().await;
    let fake = Fake::new();
    let (config, again) = (fake.config(), std::sync::Mutex::new(Some(fake.config())));
    let loader = Loader::new(move || again.lock().unwrap().take().ok_or_else(|| "read twice".to_owned()));
    let (ended, reported) = live_with(&fake, config, loader, || async {
        let before = Instance::read(&fake.run_dir()).unwrap();
        let heard = asked(&fake, Restart::Standard).await;
        let own = std::process::id();
        assert_eq!(heard[..2], [Event::Accepted { pid: own }, Event::Draining { seconds: Some(LIMIT.as_secs()) }]);
        assert!(
            matches!(heard[2..], [Event::Drained { cut: 0, .. }, Event::Starting, Event::Healthy { .. }]),
            "{heard:?}"
        );
        let now = Instance::read(&fake.run_dir()).unwrap();
        assert_eq!((now.supervisor, now.addresses), (before.supervisor, before.addresses));
        assert!(now.children.iter().all(|child| !before.children.contains(child)), "all are new");
    })
    .await;
    ended.unwrap();
    assert!(reported.contains(&Progress::Again), "{reported:?}");
    let lines = restart_lines(&fake);
    assert_eq!(lines.len(), 1);
    assert_eq!((lines[0]["outcome"].as_str(), lines[0]["mode"].as_str()), (Some("healthy"), Some("standard")));
    assert_eq!(lines[0]["by"], format!("pid {}", std::process::id()));
}

#[tokio::test]
async fn requests_that_take_longer_than_they_have_are_cut_off_and_counted() {
    let _turn = TURN.lock().await;
    let fake = Fake::new();
    fake.write("in-flight", "3");
    let (config, again) =
        (GatewayConfig { drain: Duration::ZERO, ..fake.config() }, std::sync::Mutex::new(Some(fake.config())));
    let loader = Loader::new(move || again.lock().unwrap().take().ok_or_else(|| "read twice".to_owned()));
    let (ended, _) = live_with(&fake, config, loader, || async {
        let heard = asked(&fake, Restart::Wait { seconds: 1 }).await;
        assert!(heard.contains(&Event::Draining { seconds: Some(1) }), "{heard:?}");
        assert!(heard.iter().any(|event| matches!(event, Event::Drained { cut: 3, took_ms: 1000.. })), "{heard:?}");
        fake.write("in-flight", "0");
    })
    .await;
    ended.unwrap();
    let outcomes: Vec<_> = restart_lines(&fake).iter().map(|line| line["outcome"].clone()).collect();
    assert_eq!(outcomes, ["drain_timeout", "healthy"]);
}

#[tokio::test]
async fn the_first_signal_while_a_restart_drains_makes_it_a_stop_that_drains() {
    let _turn = TURN.lock().await;
    let fake = Fake::new();
    fake.write("in-flight", "3");
    let own = i32::try_from(std::process::id()).unwrap();
    let (ended, _) = live(&fake, || async {
        let run_dir = fake.run_dir();
        let wait = Command::Restart(Restart::Wait { seconds: 0 });
        let mut conversation = Conversation::begin(&run_dir, wait).await.unwrap();
        let drains = || fake.events().iter().filter(|line| line.contains("asked /drain_listeners")).count();
        until("the drain", || drains() == 1).await;
        kill(own, Signal::TERM);
        until("the drain of a stop", || drains() == 2).await;
        assert!(!fake.events().iter().any(|line| line == "envoy term"), "{:?}", fake.events());
        fake.write("in-flight", "0");
        let mut last = None;
        while let Ok(Some(event)) = conversation.next().await {
            last = Some(event);
        }
        assert!(matches!(last, Some(Event::Refused { ref code, .. }) if code == "stopping"), "{last:?}");
        // The gateway ends by itself.
        std::future::pending().await
    })
    .await;
    ended.unwrap();
    fake.at("envoy term");
    assert_eq!(fake.events().iter().filter(|line| line.starts_with("admin start")).count(), 1, "nothing starts anew");
    assert_eq!(restart_lines(&fake)[0]["outcome"], "stopped");
    assert_eq!(LastShutdown::read(&fake.config().data_dir).unwrap().reason, "SIGTERM");
}

#[tokio::test]
async fn a_forced_restart_does_not_ask_envoy_to_drain() {
    let _turn = TURN.lock().await;
    let fake = Fake::new();
    fake.write("in-flight", "3");
    let again = std::sync::Mutex::new(Some(fake.config()));
    let loader = Loader::new(move || again.lock().unwrap().take().ok_or_else(|| "read twice".to_owned()));
    let (ended, _) = live_with(&fake, fake.config(), loader, || async {
        let heard = asked(&fake, Restart::Force).await;
        let said = [heard.get(1), heard.get(2)];
        assert!(matches!(said, [Some(Event::Drained { cut: 3, .. }), Some(Event::Starting)]), "{heard:?}");
        assert!(!fake.events().iter().any(|line| line.contains("/drain_listeners")));
        fake.write("in-flight", "0");
    })
    .await;
    ended.unwrap();
}

#[tokio::test]
async fn a_restart_after_which_nothing_comes_up_is_a_failure() {
    let _turn = TURN.lock().await;
    let fake = Fake::new();
    let loader = Loader::new({
        let once = fake.run_dir().join("exit-authz");
        move || {
            fs::write(&once, "78").unwrap();
            Err("no settings".to_owned())
        }
    });
    let (ended, _) = live_with(&fake, fake.config(), loader, || async {
        let heard = asked(&fake, Restart::Standard).await;
        assert!(heard.contains(&Event::HeldBack { message: "no settings".to_owned() }), "{heard:?}");
        let Some(Event::Failed { message, .. }) = heard.last() else { panic!("{heard:?}") };
        assert!(message.starts_with("authz ended before it was ready"), "{message}");
        // The gateway ends by itself.
        std::future::pending().await
    })
    .await;
    assert_eq!(ended.unwrap_err().class(), Class::Config);
    assert_eq!(restart_lines(&fake)[0]["outcome"], "restart-health-failed");
    let last = LastShutdown::read(&fake.config().data_dir).unwrap();
    assert!(last.reason == "failure" && last.error.unwrap().starts_with("authz ended"));
}

#[tokio::test]
async fn who_asks_is_told_how_it_stands_and_that_a_word_is_none() {
    let _turn = TURN.lock().await;
    let fake = Fake::new();
    let (ended, _) = live(&fake, || async {
        let mut conversation = Conversation::begin(&fake.run_dir(), Command::Status).await.unwrap();
        let Some(Event::Status(status)) = conversation.next().await.unwrap() else { panic!("no status") };
        assert_eq!((status.pid, status.phase), (std::process::id(), Phase::Running));
        assert_eq!(status.processes.len(), 3);
        assert!(conversation.next().await.unwrap().is_none());
        let socket = fake.run_dir().join(CONTROL_SOCKET);
        assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        for bad in [b"{\"command\":\"dance\"}\n".to_vec(), [b"x".repeat(64 * 1024), b"\n".to_vec()].concat()] {
            let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &bad).await;
            let mut answer = String::new();
            let _ = tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await;
            assert!(answer.is_empty() || answer.contains("bad-command"), "{answer}");
        }
    })
    .await;
    ended.unwrap();
    let last = LastShutdown::read(&fake.config().data_dir).unwrap();
    assert_eq!((last.reason.as_str(), last.error), ("stop", None));
    assert!(!fake.run_dir().join(CONTROL_SOCKET).exists());
}

#[tokio::test]
async fn a_stop_leaves_no_socket_of_a_process_behind() {
    let _turn = TURN.lock().await;
    let fake = Fake::new();
    let (ended, _) = live(&fake, || async {
        for name in [launch::AUTHZ_SOCKET, STATE_SOCKET, launch::ADMIN_SOCKET] {
            let socket = fake.run_dir().join(name);
            if !socket.exists() {
                drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
            }
        }
    })
    .await;
    ended.unwrap();
    let names = fs::read_dir(fake.run_dir()).unwrap().flatten().map(|entry| entry.file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().ends_with(".sock")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn whoever_listens_in_the_place_of_the_supervisor_is_asked_nothing() {
    let fake = Fake::new();
    let mut other = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let supervisor = ProcessIdentity::of(i32::try_from(other.id()).unwrap()).unwrap();
    let addresses =
        Addresses { ingress: vec![], ingress_tls: false, admin: vec![], admin_tls: false, envoy_admin: vec![] };
    Instance { supervisor, children: Vec::new(), addresses, beside: Vec::new() }.write(&fake.run_dir()).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(fake.run_dir().join(CONTROL_SOCKET)).unwrap();
    let refused = Conversation::begin(&fake.run_dir(), Command::Status).await.unwrap_err();
    assert!(matches!(refused, CommandError::Stranger(_)), "{refused}");
    other.kill().unwrap();
    other.wait().unwrap();
    let gone = Conversation::begin(&fake.run_dir(), Command::Status).await.unwrap_err();
    assert!(matches!(gone, CommandError::NotRunning), "{gone}");
}

#[tokio::test]
async fn a_hand_off_replaces_authz_when_its_successor_stands_and_then_admin() {
    let _turn = TURN.lock().await;
    let fake = Fake::new();
    let (ended, reported) = live(&fake, || async {
        let before = [Role::Admin, Role::Authz, Role::Envoy].map(|role| fake.pid(role));
        let heard = asked(&fake, Restart::Handoff).await;
        let now = [Role::Admin, Role::Authz, Role::Envoy].map(|role| fake.pid(role));
        let replaced: Vec<_> =
            heard
                .iter()
                .filter_map(|event| {
                    if let Event::Replaced { role, pid, .. } = event { Some((role.as_str(), *pid)) } else { None }
                })
                .collect();
        assert_eq!(replaced, [("authz", now[1]), ("admin", now[0])], "{heard:?}");
        assert!(matches!(heard.last(), Some(Event::Healthy { .. })), "{heard:?}");
        assert!(now[0] != before[0] && now[1] != before[1] && now[2] == before[2], "{before:?} {now:?}");
        // Admin may be asked by both, then by the successor alone; Envoy is who may ask the successor.
        let both = fake.at(&format!("admin told peer {} {}", before[1], now[1]));
        assert!(both < fake.at("authz told leave") && fake.at("authz told leave") < fake.at("admin term"));
        fake.at(&format!("authz told peer {}", now[2]));
        assert!(!fake.events().iter().any(|line| line.contains("/drain_listeners") || line == "envoy term"));
        assert!(fake.run_dir().join("authz.sock").exists() && !fake.run_dir().join("authz.sock.next").exists());
    })
    .await;
    ended.unwrap();
    assert!(reported.contains(&Progress::HandedOff(Ok(()))), "{reported:?}");
    assert!(!reported.iter().any(|event| matches!(event, Progress::Restarting { .. })), "{reported:?}");
    assert_eq!(restart_lines(&fake)[0]["outcome"], "healthy");
}

#[tokio::test]
async fn a_successor_that_cannot_start_leaves_everything_as_it_was() {
    let _turn = TURN.lock().await;
    let fake = Fake::new();
    let (ended, reported) = live(&fake, || async {
        let before = Instance::read(&fake.run_dir()).unwrap();
        fake.write("exit-once-authz", "78");
        let heard = asked(&fake, Restart::Handoff).await;
        let Some(Event::Failed { message, unchanged: true }) = heard.last() else { panic!("{heard:?}") };
        assert!(message.contains("exit status: 78"), "{message}");
        assert_eq!(Instance::read(&fake.run_dir()).unwrap(), before);
        assert!(!fake.events().iter().any(|line| line == "authz told leave"), "{:?}", fake.events());
        // And it can be asked for again.
        let heard = asked(&fake, Restart::Handoff).await;
        assert!(matches!(heard.last(), Some(Event::Healthy { .. })), "{heard:?}");
    })
    .await;
    ended.unwrap();
    assert!(!reported.iter().any(|event| matches!(event, Progress::Restarting { .. })), "{reported:?}");
    assert_eq!(restart_lines(&fake)[0]["outcome"], "kept");
}

#[tokio::test]
async fn an_authz_that_dies_while_its_successor_gets_ready_is_started_again_as_always() {
    let _turn = TURN.lock().await;
    let fake = Fake::new();
    let (ended, _) = live(&fake, || async {
        fake.write("never-stand", "");
        let before = fake.pid(Role::Authz);
        let (heard, ()) = tokio::join!(asked(&fake, Restart::Handoff), async {
            until("the successor", || fake.events().iter().filter(|line| line.starts_with("authz start")).count() == 2)
                .await;
            kill(before, Signal::KILL);
        });
        let Some(Event::Failed { unchanged: false, .. }) = heard.last() else { panic!("{heard:?}") };
        until("a new one", || {
            Instance::read(&fake.run_dir()).is_some_and(|now| {
                now.children.iter().any(|child| child.role == Role::Authz && child.process.pid != before)
            })
        })
        .await;
    })
    .await;
    ended.unwrap();
}

#[tokio::test]
async fn a_stop_during_a_hand_off_leaves_nothing() {
    let _turn = TURN.lock().await;
    let fake = Fake::new();
    let (ended, _) = live(&fake, || async {
        fake.write("never-stand", "");
        let run_dir = fake.run_dir();
        let conversation = Conversation::begin(&run_dir, Command::Restart(Restart::Handoff)).await.unwrap();
        until("the successor", || fake.events().iter().filter(|line| line.starts_with("authz start")).count() == 2)
            .await;
        drop(conversation);
    })
    .await;
    ended.unwrap();
    let left = std::process::Command::new("pgrep").arg("-f").arg(fake.root.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "", "processes of this test are left");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_start_at_once_one_wins_each_time() {
    let mut rounds = JoinSet::new();
    for _ in 0..100 {
        rounds.spawn(async {
            let fake = Fake::new();
            let (progress, _reported) = mpsc::channel(10);
            let start = || Bound::build(fake.config(), none(), progress.clone());
            let (one, other) = tokio::join!(start(), start());
            let lost = match (one, other) {
                (Ok(_), Err(lost)) | (Err(lost), Ok(_)) => lost,
                both => panic!("{both:?}"),
            };
            assert!(matches!(lost, GatewayError::AlreadyRunning { .. }), "{lost}");
            assert!(lost.to_string().contains(&format!("pid {}", std::process::id())), "{lost}");
        });
    }
    let mut done = 0;
    while let Some(round) = rounds.join_next().await {
        round.unwrap();
        done += 1;
    }
    assert_eq!(done, 100);
}

#[tokio::test]
async fn two_data_folders_do_not_share_a_run_folder() {
    let _turn = TURN.lock().await;
    let fake = Fake::new();
    let (ended, _) = live(&fake, || async {
        let before = [Role::Admin, Role::Authz, Role::Envoy].map(|role| fake.pid(role));
        let elsewhere = Fake::new();
        let config = GatewayConfig { run_dir: fake.run_dir(), ..elsewhere.config() };
        let (progress, _reported) = mpsc::channel(10);
        let error = Bound::build(config, none(), progress).await.unwrap_err();
        assert!(matches!(error, GatewayError::AlreadyRunning { .. }), "{error}");
        assert!(error.to_string().contains("gateway.lock"), "{error}");
        // Its processes are none that a killed gateway left.
        assert_eq!([Role::Admin, Role::Authz, Role::Envoy].map(|role| fake.pid(role)), before);
    })
    .await;
    ended.unwrap();
    assert!(!fake.events().iter().any(|line| line == "authz end of input"), "{:?}", fake.events());
}

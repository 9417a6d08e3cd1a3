//! What a service manager hears of a gateway, and the signals it sends: a notify socket of the test's in its place.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;

use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Setup;
use crate::support::process;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// How often a sign of life is due, in the environment's microseconds: a sixth of it is half a second.
const WATCHDOG_USEC: &str = "3000000";

/// A manager that listens.
struct Manager(UnixDatagram);

impl Manager {
    fn of(setup: Setup) -> (Self, Setup) {
        let path = setup.root.path().join("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        let setup = setup.env("NOTIFY_SOCKET", &path.display().to_string()).env("WATCHDOG_USEC", WATCHDOG_USEC);
        (Self(socket), setup)
    }

    /// The next message; `None` where none comes in time.
    fn hear(&self, within: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(within)).unwrap();
        let mut buffer = [0_u8; 4096];
        let length = self.0.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// Waits for a message that holds this line; what came before is passed over.
    fn wait_for(&self, line: &str) {
        let start = Instant::now();
        while start.elapsed() < LIMIT {
            if self.hear(Duration::from_secs(1)).is_some_and(|said| said.lines().any(|found| found == line)) {
                return;
            }
        }
        panic!("{line} is not said within {LIMIT:?}");
    }

    /// Forgets what was said so far.
    fn forget(&self) {
        while self.hear(Duration::from_millis(1)).is_some() {}
    }
}

#[test]
fn a_manager_hears_of_readiness_and_of_the_end() {
    let (manager, setup) = Manager::of(Setup::new());
    setup.begin_journal();
    let (ingress, admin) = (setup.ingress, setup.admin);
    setup.write_yaml();
    let running = crate::support::gateway::Running::spawn(setup.command(&["gateway", "start"]));
    manager.wait_for("READY=1");
    // Not before everything answers.
    for address in [ingress, admin] {
        let request = crate::support::client::Request::new("GET", &address.to_string(), "/health/ready");
        assert_eq!(crate::support::client::send(address, &request).status, 200, "{address}");
    }
    running.signal(Signal::TERM);
    manager.wait_for("STOPPING=1");
    let mut running = running;
    assert!(running.wait(LIMIT).success(), "{}", running.said());
}

#[test]
fn signs_of_life_stop_while_admin_hangs_and_come_again() {
    let (manager, setup) = Manager::of(Setup::new());
    let gateway = setup.start();
    manager.wait_for("WATCHDOG=1");
    let admin = gateway.role("admin");
    process::freeze(admin);
    // One may be on its way, and one question may have been answered before.
    manager.hear(Duration::from_millis(1500));
    manager.forget();
    assert_eq!(manager.hear(Duration::from_secs(4)), None, "nobody says that it lives");
    process::signal(admin, Signal::CONT);
    manager.wait_for("WATCHDOG=1");
    assert!(gateway.child("admin").is_some_and(|now| now == admin), "it was left alone");
}

#[test]
fn sigusr2_restarts_everything_in_the_same_supervisor() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let before = ["admin", "authz", "envoy"].map(|role| gateway.role(role));
    gateway.running().signal(Signal::USR2);
    let ready = || gateway.said().lines().filter(|line| line.starts_with("ready:")).count();
    wait_until("it is ready again", LIMIT, || ready() == 2);
    let now = ["admin", "authz", "envoy"].map(|role| gateway.role(role));
    assert!(now.iter().zip(before).all(|(now, before)| *now != before), "{before:?} {now:?}");
    assert!(gateway.running().ended().is_none());
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
}

#[test]
fn sighup_has_the_settings_read_again() {
    let gateway = Gateway::start();
    gateway.running().signal(Signal::HUP);
    wait_until("the log says so", LIMIT, || gateway.logs().contains("SIGHUP"));
    assert!(gateway.running().ended().is_none());
}

//! The volume of the replay journal is full, as that of a pod may be: nobody is let through, everybody is told, nothing is
//! forgotten, and it mends itself.

use rustix::process::Signal;
use serde_json::Value;
use serde_json::json;
use sigilum::authz::Journal;
use sigilum::domain::time::UnixSeconds;

use crate::support::agent::now;
use crate::support::client;
use crate::support::client::Request;
use crate::support::client::Response;
use crate::support::gateway::Connection;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::parts::Names;
use crate::support::parts::start_admin;
use crate::support::parts::start_envoy;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;
use crate::support::volume::Volume;

/// How a request is refused that cannot be written down.
fn unavailable() -> (u16, String) {
    (503, "AUTHZ_UNAVAILABLE".to_owned())
}

fn replayed() -> (u16, String) {
    (403, "AUTH_REPLAY_DETECTED".to_owned())
}

/// The containers of a pod whose authz has a volume of its own.
struct Pod {
    gateway: Gateway,
    authz: Running,
    upstream: Upstream,
    connection: Connection,
    _envoy: Running,
    volume: Volume,
}

fn socket(setup: &Setup, name: &str) -> String {
    format!("unix:{}", setup.run_dir().join(name).display())
}

fn start_authz(setup: &Setup, volume: &Volume) -> Running {
    let (listen, state) = (socket(setup, "authz.sock"), socket(setup, "state.sock"));
    let words = ["gateway", "authz", "--listen", &listen, "--state", &state, "--run-dir"];
    let mut command = setup.command(&words);
    command.arg(&volume.folder);
    Running::spawn(volume.within(&command))
}

impl Pod {
    fn start() -> Option<Self> {
        let setup = Setup::new();
        setup.begin_journal();
        let volume = Volume::at(setup.root.path().join("journal"), "64k")?;
        Journal::open(&volume.seen(), 1000, UnixSeconds(now() - 30)).unwrap();
        setup.write_yaml();
        let admin = start_admin(&setup, &[]);
        let authz = start_authz(&setup, &volume);
        let envoy = start_envoy(&setup, &Names::start());
        let gateway = Gateway::of(setup, admin);
        wait_until("the pod is ready", LIMIT, || gateway.healthy() && gateway.admin_ready());
        let upstream = Upstream::start();
        let connection = gateway.connect(&upstream, json!({}));
        Some(Self { gateway, authz, upstream, connection, _envoy: envoy, volume })
    }

    fn fresh(&self) -> Request {
        self.gateway.agent().get(&self.gateway.authority(), &self.connection.at("/v1"))
    }

    fn send(&self, request: &Request) -> (u16, String) {
        let response: Response = self.gateway.send(request);
        (response.status, if response.status == 200 { String::new() } else { response.code() })
    }

    /// Fills the volume and sends until one is not let through: what was written of a page has its room already. Returns
    /// what was let through.
    fn fill_up(&self) -> Vec<Request> {
        self.volume.fill();
        let mut used = Vec::new();
        loop {
            let request = self.fresh();
            match self.send(&request) {
                (200, _) => used.push(request),
                refused => {
                    assert_eq!(refused, unavailable());
                    return used;
                }
            }
            assert!(used.len() < 500, "a page holds 128 admissions");
        }
    }

    /// What a probe of authz prints.
    fn told(&self) -> String {
        let at = socket(&self.gateway.setup, "authz.sock");
        let output = self.gateway.setup.command(&["health", "--authz", &at]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The exit code of a probe of authz.
    fn probe(&self, more: &[&str]) -> Option<i32> {
        let at = socket(&self.gateway.setup, "authz.sock");
        let words = [["health", "--authz", &at].as_slice(), more].concat();
        self.gateway.setup.command(&words).output().unwrap().status.code()
    }

    fn conditions(&self) -> Value {
        let request = Request::new("GET", &self.gateway.setup.admin.to_string(), "/health/ready?fresh")
            .header("authorization", &format!("Bearer {}", self.gateway.token()));
        client::send(self.gateway.setup.admin, &request).json()
    }

    /// The condition of its nonces.
    fn standing(&self) -> Value {
        let told = self.conditions();
        told["conditions"].as_array().unwrap().iter().find(|one| one["type"] == "NonceStore").unwrap().clone()
    }

    fn count(&self, words: &str) -> usize {
        self.authz.said().matches(words).count()
    }

    fn wait_ready(&self) {
        wait_until("the pod is ready again", LIMIT, || {
            self.probe(&[]) == Some(0) && self.gateway.healthy() && self.gateway.admin_ready()
        });
    }
}

#[test]
fn a_full_volume_refuses_takes_authz_out_and_mends_itself_when_there_is_room() {
    let Some(pod) = Pod::start() else { return };
    let mut used = vec![pod.fresh()];
    assert_eq!(pod.send(&used[0]).0, 200);
    used.extend(pod.fill_up());

    wait_until("a probe hears of it", LIMIT, || pod.probe(&[]) == Some(1));
    assert!(pod.told().starts_with("not ready: the volume of its run folder is full"), "{}", pod.told());
    assert_eq!(pod.probe(&["--live"]), Some(0), "a restart would help nobody");
    wait_until("Envoy hears of it, and so do those who ask it", LIMIT, || !pod.gateway.healthy());
    wait_until("admin hears of it", LIMIT, || pod.conditions()["failures"] == json!(["NonceStore"]));
    assert_eq!(pod.standing()["reason"], "VolumeFull");
    let again = pod.fresh();
    for _ in 0..5 {
        assert_eq!(pod.send(&again), unavailable());
    }
    assert_eq!(pod.count("the replay journal cannot be written to"), 1, "{}", pod.authz.said());

    pod.volume.make_room();
    pod.wait_ready();
    assert_eq!(pod.count("the replay journal can be written to again"), 1, "{}", pod.authz.said());
    assert_eq!(pod.count("the replay journal cannot be written to"), 1, "{}", pod.authz.said());
    assert_eq!(pod.send(&again).0, 200, "what was not let through was not used");
    for request in used.iter().chain([&again]) {
        assert_eq!(pod.send(request), replayed());
    }
    assert_eq!(pod.upstream.count(), used.len() + 1);
}

#[test]
fn nothing_is_accepted_again_of_an_authz_that_was_killed_while_its_volume_was_full() {
    let Some(mut pod) = Pod::start() else { return };
    let mut used = vec![pod.fresh()];
    assert_eq!(pod.send(&used[0]).0, 200);
    used.extend(pod.fill_up());
    pod.authz.signal(Signal::KILL);
    pod.authz.wait(LIMIT);

    pod.authz = start_authz(&pod.gateway.setup, &pod.volume);
    wait_until("it lives, without room", LIMIT, || pod.probe(&["--live"]) == Some(0));
    wait_until("it has its state, and says so", LIMIT, || pod.standing()["reason"] == "VolumeFull");
    assert_eq!(pod.probe(&[]), Some(1), "{}", pod.authz.said());
    assert_eq!(pod.count("the replay journal cannot be written to"), 1, "{}", pod.authz.said());
    assert_ne!(pod.send(&pod.fresh()).0, 200);

    pod.volume.make_room();
    pod.wait_ready();
    for request in &used {
        assert_eq!(pod.send(request), replayed());
    }
    assert_eq!(pod.send(&pod.fresh()).0, 200);
    assert_eq!(pod.upstream.count(), used.len() + 1);
}

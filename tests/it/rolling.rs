//! A data plane of two replicas behind a balancer is replaced one replica after the other, as `deploy/k8s/shared` does it, and no
//! request fails.

use std::fs;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;
use serde::Deserialize as _;
use serde_json::json;
use serde_yaml::Value;

use crate::support::client::Broken;
use crate::support::client::Exchange;
use crate::support::client::Request;
use crate::support::client::Response;
use crate::support::client::try_send;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::gateway::free_port;
use crate::support::parts::run_envoy;
use crate::support::parts::start_admin;
use crate::support::process::StopAtEnd;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// The shipped manifest: its probe says when a replica gets requests, its hook what happens before one ends.
const MANIFEST: &str = include_str!("../../deploy/k8s/shared/data-plane.yaml");
/// Where the sockets are in it.
const RUN: &str = "/run/sigilum/envoy";
/// Between two requests of one sender.
const EVERY: Duration = Duration::from_millis(60);
/// Senders: half of them keep their connection, half make one for each request.
const SENDERS: usize = 4;

/// What the manifest says of the replicas.
fn deployment() -> Value {
    let mut documents = serde_yaml::Deserializer::from_str(MANIFEST).map(|one| Value::deserialize(one).unwrap());
    documents.find(|one| one["kind"] == "Deployment").unwrap()
}

/// A container of their pods.
fn container(name: &str) -> Value {
    let deployment = deployment();
    let lists = ["initContainers", "containers"];
    let all = lists.iter().flat_map(|list| deployment["spec"]["template"]["spec"][*list].as_sequence().unwrap());
    all.into_iter().find(|container| container["name"] == name).unwrap().clone()
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Where a replica is found, whichever pod is there now.
struct Place {
    ingress: SocketAddr,
    probe: SocketAddr,
    face: SocketAddr,
}

impl Place {
    fn new() -> Self {
        let [ingress, probe, face] = std::array::from_fn(|_| local(free_port()));
        Self { ingress, probe, face }
    }

    fn is_ready(&self) -> bool {
        let path = container("envoy")["readinessProbe"]["httpGet"]["path"].as_str().unwrap().to_owned();
        let asked = Request::new("GET", &self.probe.to_string(), &path);
        try_send(self.probe, &asked).is_ok_and(|answer| answer.status == 200)
    }

    /// Requests its Envoy has answered with 2xx since it began.
    fn served(&self) -> u64 {
        let path = "/stats?filter=%5Ehttp%5C.ingress%5C.downstream_rq_2xx%24";
        let told = try_send(self.face, &Request::new("GET", &self.face.to_string(), path)).unwrap().text();
        told.trim().rsplit_once(": ").map_or(0, |(_, count)| count.parse().unwrap())
    }
}

/// Envoy and authz of one pod.
struct Replica {
    run: PathBuf,
    authz: Running,
    envoy: Running,
}

impl Replica {
    /// With folders of its own, as a new pod has them.
    fn start(setup: &Setup, place: &Place, name: &str) -> Self {
        let run = setup.root.path().join(name);
        fs::create_dir(&run).unwrap();
        fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).unwrap();
        let mut print = setup.command(&["gateway", "envoy-config", "--probe-addr", &place.probe.to_string()]);
        print.env("GATEWAY_INGRESS_ADDR", place.ingress.to_string());
        print.env("GATEWAY_ENVOY_ADMIN_ADDR", place.face.to_string());
        let printed = print.output().unwrap();
        assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
        let file = run.join("envoy.yaml");
        fs::write(&file, printed.stdout).unwrap();
        let envoy = run_envoy(&file, &run);
        let listen = format!("unix:{}", run.join("authz.sock").display());
        let state = format!("unix:{}", setup.run_dir().join("state.sock").display());
        let journal = run.join("journal").display().to_string();
        let arguments = ["gateway", "authz", "--listen", &listen, "--state", &state, "--run-dir", &journal];
        let authz = Running::spawn(setup.command(&arguments));
        wait_until("the replica is ready", LIMIT, || place.is_ready());
        Self { run, authz, envoy }
    }

    /// What a kubelet does: the hook, then the end of authz, then that of its sidecar.
    fn end(mut self, setup: &Setup) {
        let hook = container("authz")["lifecycle"]["preStop"]["exec"]["command"].clone();
        let words = hook.as_sequence().unwrap().iter().skip(1);
        let words: Vec<_> =
            words.map(|word| word.as_str().unwrap().replace(RUN, &self.run.display().to_string())).collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let drained = setup.command(&words).output().unwrap();
        let said = String::from_utf8_lossy(&drained.stderr).into_owned();
        assert_eq!((drained.status.code(), drained.stdout), (Some(0), b"in flight: 0\n".to_vec()), "{said}");
        // It began without a journal, in front of a window that knows.
        let said = self.authz.said();
        assert!(!said.contains("requests signed before this start are refused"), "{said}");
        for part in [&mut self.authz, &mut self.envoy] {
            part.signal(Signal::TERM);
            assert!(part.wait(LIMIT).success(), "{}", part.said());
        }
    }
}

/// An Envoy that knows of the replicas what their probes say. It tries nothing again, and sends nothing where nobody is ready.
fn balance(setup: &Setup, places: &[Place]) -> Running {
    let address = |at: SocketAddr| json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}});
    let probe = container("envoy")["readinessProbe"].clone();
    let seconds = |name: &str| format!("{}s", probe[name].as_u64().unwrap());
    let endpoint = |place: &Place| {
        json!({"endpoint": {
            "address": address(place.ingress),
            "health_check_config": {"port_value": place.probe.port()},
        }})
    };
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "replicas"}}]);
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "balancer",
        "route_config": {"virtual_hosts": [{"name": "replicas", "domains": ["*"], "routes": routes}]},
        "http_filters": [{
            "name": "router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    });
    let config = json!({"static_resources": {
        "listeners": [{
            "name": "agents",
            "address": address(setup.ingress),
            "filter_chains": [{"filters": [{"name": "manager", "typed_config": manager}]}],
        }],
        "clusters": [{
            "name": "replicas",
            "type": "STATIC",
            "connect_timeout": "1s",
            "lb_policy": "ROUND_ROBIN",
            "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
            "load_assignment": {
                "cluster_name": "replicas",
                "endpoints": [{"lb_endpoints": places.iter().map(endpoint).collect::<Vec<_>>()}],
            },
            "health_checks": [{
                "timeout": seconds("timeoutSeconds"),
                "interval": seconds("periodSeconds"),
                // Else the second look of a balancer that has just begun comes after a minute.
                "no_traffic_interval": seconds("periodSeconds"),
                "unhealthy_threshold": probe["failureThreshold"].as_u64().unwrap(),
                "healthy_threshold": 1,
                "http_health_check": {"path": probe["httpGet"]["path"].as_str().unwrap()},
            }],
        }],
    }});
    let file = setup.root.path().join("balancer.json");
    fs::write(&file, config.to_string()).unwrap();
    run_envoy(&file, setup.root.path())
}

/// The store of the window that both replicas share, as long as it lives.
fn start_store(setup: &Setup, port: u16) -> Running {
    let mut store = Command::new("redis-server");
    store
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"])
        .current_dir(setup.root.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let store = Running::spawn(store);
    wait_until("the store of the window listens", LIMIT, || std::net::TcpStream::connect(local(port)).is_ok());
    store
}

/// Agents that send at a steady rate.
struct Load<'a> {
    gateway: &'a Gateway,
    path: &'a str,
    stop: &'a AtomicBool,
    sent: &'a AtomicUsize,
    failed: &'a Mutex<Vec<String>>,
}

impl Load<'_> {
    fn send(&self, keeps: bool) {
        let (mut line, begun) = (None, Instant::now());
        for number in 1_u32.. {
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            thread::sleep((EVERY * number).saturating_sub(begun.elapsed()));
            let request = self.gateway.agent().get(&self.gateway.authority(), self.path);
            let failed = match self.exchange(&request, &mut line) {
                Ok(answer) if answer.status == 200 => None,
                Ok(answer) => Some(format!("{} {}", answer.status, answer.text())),
                Err(broken) => Some(broken.0),
            };
            if failed.is_some() || !keeps {
                line = None;
            }
            self.failed.lock().unwrap().extend(failed);
            self.sent.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn exchange(&self, request: &Request, line: &mut Option<Exchange>) -> Result<Response, Broken> {
        if line.is_none() {
            *line = Some(Exchange::open(self.gateway.setup.ingress)?);
        }
        line.as_mut().unwrap().send(request)
    }
}

#[test]
fn two_replicas_behind_a_balancer_are_replaced_one_after_the_other_and_no_request_fails() {
    let store = free_port();
    // The machine of the tests may be busy, and the deadline of the store has tests of its own.
    let setup = Setup::new()
        .env("GATEWAY_REPLAY_URL", &format!("redis://127.0.0.1:{store}"))
        .env("GATEWAY_REPLAY_TIMEOUT_MS", "400");
    setup.write_yaml();
    let _store = start_store(&setup, store);
    let admin = start_admin(&setup, &[]);
    let places = [Place::new(), Place::new()];
    let mut replicas = vec![Replica::start(&setup, &places[0], "a0"), Replica::start(&setup, &places[1], "b0")];
    let _balancer = balance(&setup, &places);
    let (gateway, upstream) = (Gateway::of(setup, admin), Upstream::start());
    let connection = gateway.next_id();
    let created = gateway.create(&connection, &upstream.base_url(), "canary-rolling", json!({}));
    assert_eq!(created.status, 201, "{}", created.text());
    let path = format!("/proxy/{connection}/v1");
    // What was signed before the store began is refused for some seconds, and the balancer has to find both.
    wait_until("both replicas serve", LIMIT, || {
        let _ = try_send(gateway.setup.ingress, &gateway.agent().get(&gateway.authority(), &path));
        places.iter().all(|place| place.served() > 1)
    });

    let (stop, sent, failed) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::default());
    let warm = upstream.count();
    let load = Load { gateway: &gateway, path: &path, stop: &stop, sent: &sent, failed: &failed };
    thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        for sender in 0..SENDERS {
            let load = &load;
            scope.spawn(move || load.send(sender % 2 == 0));
        }
        wait_until("requests pass", LIMIT, || sent.load(Ordering::Acquire) > 50);
        for (place, name) in places.iter().zip(["a1", "b1"]) {
            let before = sent.load(Ordering::Acquire);
            replicas.remove(0).end(&gateway.setup);
            assert!(sent.load(Ordering::Acquire) > before + 50, "requests were sent meanwhile");
            replicas.push(Replica::start(&gateway.setup, place, name));
            // So long the controller of a Deployment waits before it goes on to the next.
            let (ready, least) = (Instant::now(), deployment()["spec"]["minReadySeconds"].as_u64().unwrap());
            wait_until("it is available", LIMIT, || {
                assert!(place.is_ready());
                ready.elapsed() >= Duration::from_secs(least)
            });
        }
        // Counted from their new beginning.
        wait_until("both new replicas serve", LIMIT, || places.iter().all(|place| place.served() > 20));
    });
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "{} of {}: {:?}",
        failed.len(),
        sent.load(Ordering::Acquire),
        &failed[..failed.len().min(5)]
    );
    assert_eq!(upstream.count() - warm, sent.load(Ordering::Acquire), "each arrived once");
}

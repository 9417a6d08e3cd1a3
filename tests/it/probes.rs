//! What a container platform asks and orders: probes of Envoy, of authz and of admin, and the drain of one Envoy before its
//! pod ends. Each process is a child of the test, as each has a container of its own there.

use std::fs;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Output;
use std::process::Stdio;

use bytes::Bytes;
use rustix::process::Signal;
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::client::Exchange;
use crate::support::client::Request;
use crate::support::client::Response;
use crate::support::client::send;
use crate::support::client::try_send;
use crate::support::gateway::Connection;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::gateway::free_port;
use crate::support::parts::run_envoy;
use crate::support::parts::start_admin;
use crate::support::parts::start_authz;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// The containers of a pod.
struct Pod {
    gateway: Gateway,
    authz: Running,
    probe: SocketAddr,
    stats: SocketAddr,
    _envoy: Running,
}

impl Pod {
    /// A stream through the pod that has begun: its head is read.
    fn begin_stream(&self, connection: &Connection, feed: &mpsc::Sender<Bytes>) -> Exchange {
        let mut stream = Exchange::open(self.gateway.setup.ingress).unwrap();
        let request = self.gateway.agent().get(&self.gateway.authority(), &connection.at("/stream"));
        assert!(stream.write(&request.bytes()));
        feed.blocking_send("first".into()).unwrap();
        assert_eq!(stream.read_head("GET").unwrap().status, 200);
        stream
    }

    fn start() -> Self {
        let setup = Setup::new();
        setup.begin_journal();
        setup.write_yaml();
        let [probe, stats] = std::array::from_fn(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        let admin = start_admin(&setup, &[]);
        let authz = start_authz(&setup);
        let listeners = [probe, stats].map(|address| address.to_string());
        let words = ["gateway", "envoy-config", "--probe-addr", &listeners[0], "--stats-addr", &listeners[1]];
        let printed = setup.command(&words).output().unwrap();
        assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
        let file = setup.run_dir().join("envoy-pod.yaml");
        std::fs::write(&file, printed.stdout).unwrap();
        let envoy = run_envoy(&file, &setup.run_dir());
        let gateway = Gateway::of(setup, admin);
        wait_until("the pod is ready", LIMIT, || gateway.healthy() && gateway.admin_ready());
        Self { gateway, authz, probe, stats, _envoy: envoy }
    }

    fn ask(&self, path: &str) -> Option<Response> {
        // As a kubelet does: by the address of the pod, without a name.
        try_send(self.probe, &Request::new("GET", &self.probe.to_string(), path)).ok()
    }

    fn status(&self, path: &str) -> u16 {
        self.ask(path).map_or(0, |response| response.status)
    }

    fn socket(&self, name: &str) -> String {
        let path: PathBuf = self.gateway.setup.run_dir().join(name);
        format!("unix:{}", path.display())
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.gateway.setup.command(arguments).output().unwrap()
    }

    fn exit(&self, arguments: &[&str]) -> Option<i32> {
        self.run(arguments).status.code()
    }
}

#[test]
fn the_probe_listener_tells_a_live_envoy_from_one_that_can_have_requests_decided() {
    let mut pod = Pod::start();
    wait_until("the probes hold", LIMIT, || pod.status("/ready") == 200 && pod.status("/healthz") == 200);
    assert_eq!(pod.status("/stats"), 404, "it reads nothing else of Envoy's admin interface");
    let asked = pod.exit(&["health", "--authz", &pod.socket("authz.sock")]);
    assert_eq!(asked, Some(0));
    pod.authz.signal(Signal::KILL);
    pod.authz.wait(LIMIT);
    wait_until("readiness is withdrawn", LIMIT, || pod.status("/healthz") == 503);
    assert_eq!(pod.status("/ready"), 200, "Envoy is not to be restarted for it");
    assert_eq!(pod.exit(&["health", "--authz", &pod.socket("authz.sock")]), Some(5));
    pod.authz = start_authz(&pod.gateway.setup);
    wait_until("it is ready again", LIMIT, || pod.status("/healthz") == 200);
}

#[test]
fn admin_is_asked_whether_it_lives_without_its_token() {
    let pod = Pod::start();
    let token = pod.gateway.setup.data().join("admin-token");
    std::fs::rename(&token, token.with_extension("away")).unwrap();
    assert_eq!(pod.exit(&["health", "--live"]), Some(0));
    pod.gateway.running().signal(Signal::KILL);
    pod.gateway.running().wait(LIMIT);
    assert_eq!(pod.exit(&["health", "--live"]), Some(5));
}

#[test]
fn an_authz_without_any_state_lives_and_is_not_ready() {
    let setup = Setup::new();
    setup.begin_journal();
    let authz = start_authz(&setup);
    let at = format!("unix:{}", setup.run_dir().join("authz.sock").display());
    let exit = |arguments: &[&str]| setup.command(arguments).output().unwrap().status.code();
    wait_until("it listens", LIMIT, || exit(&["health", "--live", "--authz", &at]) == Some(0));
    assert_eq!(exit(&["health", "--authz", &at]), Some(1), "{}", authz.said());
}

#[test]
fn a_first_start_beside_a_new_admin_says_what_it_waits_for_and_nothing_that_is_wrong() {
    let setup = Setup::new();
    for folder in [setup.data(), setup.run_dir()] {
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    }
    setup.write_yaml();
    let authz = start_authz(&setup);
    wait_until("it says that nobody is there", LIMIT, || authz.said().contains("and nothing was received"));
    let admin = start_admin(&setup, &[]);
    let gateway = Gateway::of(setup, admin);
    wait_until("it has its state", LIMIT, || gateway.admin_started());
    let said = authz.said();
    assert!(!said.contains("stays in force"), "nothing was received: {said}");
    assert!(!said.contains("no usable replay journal"), "there never was one: {said}");
    assert!(said.contains("a new replay journal: requests signed before this start are refused"), "{said}");
}

#[test]
fn an_authz_whose_admin_has_left_says_that_it_goes_on() {
    let pod = Pod::start();
    pod.gateway.running().signal(Signal::KILL);
    pod.gateway.running().wait(LIMIT);
    wait_until("it says so", LIMIT, || pod.authz.said().contains("what was received stays in force"));
}

#[test]
fn a_drain_before_the_end_of_a_pod_lets_a_running_stream_finish_and_refuses_nobody_meanwhile() {
    let (pod, upstream) = (Pod::start(), Upstream::start());
    let connection = pod.gateway.connect(&upstream, json!({}));
    let feed = upstream.feed();
    let mut stream = pod.begin_stream(&connection, &feed);
    assert_eq!(stream.read_piece().unwrap().as_deref(), Some(b"first".as_slice()));

    let envoy = pod.socket("envoy-admin.sock");
    let mut drain = pod.gateway.setup.command(&["gateway", "drain", "--envoy", &envoy, "--wait", "60s"]);
    let mut drain = Running::spawn({
        drain.stdin(Stdio::null());
        drain
    });
    wait_until("the balancer is told", LIMIT, || pod.status("/healthz") == 503);
    let late = pod.gateway.send(&pod.gateway.agent().get(&pod.gateway.authority(), &connection.at("/late")));
    assert_eq!(late.status, 200, "who has not heard of it yet is served");
    assert_eq!(late.header("connection"), Some("close"), "and comes elsewhere next time");
    assert!(drain.ended().is_none(), "it waits for the stream: {}", drain.said());

    feed.blocking_send("last".into()).unwrap();
    assert_eq!(stream.read_piece().unwrap().as_deref(), Some(b"last".as_slice()));
    drop(feed);
    assert_eq!(stream.read_piece().unwrap(), None, "the stream ended by itself");
    assert_eq!(drain.wait(LIMIT).code(), Some(0), "{}", drain.said());
}

#[test]
fn a_drain_says_where_a_stream_outlives_it() {
    let (pod, upstream) = (Pod::start(), Upstream::start());
    let connection = pod.gateway.connect(&upstream, json!({}));
    let feed = upstream.feed();
    let _stream = pod.begin_stream(&connection, &feed);
    let envoy = pod.socket("envoy-admin.sock");
    let drained = pod.run(&["gateway", "drain", "--envoy", &envoy, "--wait", "1s"]);
    assert_eq!(drained.status.code(), Some(1));
    assert_eq!(drained.stdout, b"in flight: 1\n");
    let said = String::from_utf8_lossy(&drained.stderr);
    assert!(said.contains("1 request is still in flight after 1 s") && said.contains("max_stream_seconds"), "{said}");
}

#[test]
fn the_probe_listener_turns_away_more_connections_than_probes_need() {
    let pod = Pod::start();
    wait_until("the probes hold", LIMIT, || pod.status("/ready") == 200);
    let held: Vec<_> = (0..256).map(|_| std::net::TcpStream::connect(pod.probe).unwrap()).collect();
    wait_until("one more is closed", LIMIT, || pod.status("/ready") == 0);
    drop(held);
    wait_until("there is room again", LIMIT, || pod.status("/ready") == 200);
}

#[test]
fn the_listener_of_statistics_reads_them_and_nothing_else_of_envoys_admin_interface() {
    let pod = Pod::start();
    let ask = |method: &str, path: &str| send(pod.stats, &Request::new(method, &pod.stats.to_string(), path));
    let read = ask("GET", "/stats/prometheus");
    assert!(read.status == 200 && read.text().contains("envoy_http_downstream_rq_total"), "{}", read.text());
    for path in
        ["/", "/stats", "/stats/", "/stats/prometheus/", "/stats/recentlookups", "/config_dump", "/certs", "/ready"]
    {
        assert_eq!(ask("GET", path).status, 404, "{path}");
    }
    for (method, path) in [("POST", "/stats/prometheus"), ("POST", "/healthcheck/fail"), ("POST", "/quitquitquit")] {
        assert_eq!(ask(method, path).status, 404, "{method} {path}");
    }
    // Where agents come there is no such path.
    let of_agents = pod.gateway.send(&Request::new("GET", &pod.gateway.authority(), "/stats/prometheus"));
    assert_eq!((of_agents.status, of_agents.code().as_str()), (404, "NOT_FOUND"));
    assert_eq!(pod.status("/stats/prometheus"), 404, "nor where the platform probes");
}

#[test]
fn an_admin_that_ends_in_order_leaves_no_socket_behind() {
    let setup = Setup::new();
    setup.begin_journal();
    setup.write_yaml();
    let mut admin = start_admin(&setup, &[]);
    let socket = setup.run_dir().join("state.sock");
    assert!(socket.exists());
    admin.signal(Signal::TERM);
    assert!(admin.wait(LIMIT).success(), "{}", admin.said());
    assert!(!socket.exists());
}

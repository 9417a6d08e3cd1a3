//! What size costs: the same requests with few and with many approvals, connections and nonces, and the
//! memory each of them takes. Envoy and authz are the product's; the state comes from the product's
//! publisher, filled here, because ten thousand connections by the admin API would take minutes.

use std::collections::HashMap;
use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use sigilum::authz::Journal;
use sigilum::domain::ids::PublicKey;
use sigilum::domain::time::MonotonicMillis;
use sigilum::domain::time::Now;
use sigilum::domain::time::UnixMillis;
use sigilum::domain::time::UnixSeconds;
use sigilum::envoy::launch;
use sigilum::state::PublishedState;
use sigilum::state::Publisher;
use sigilum::sys::peer::PeerRule;
use sigilum::sys::peer::bind_private;
use sigilum::sys::tasks::StopHandle;
use sigilum::sys::tasks::stop_pair;
use sigilum::wire::state::proto;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::CONNECTIONS;
use crate::accounting::Counted;
use crate::accounting::Reading;
use crate::accounting::memory_kib;
use crate::load;
use crate::report::Row;
use crate::report::verdict;
use crate::stacks::Ground;
use crate::stacks::Stack;
use crate::stacks::local;
use crate::support::agent::Agent;
use crate::support::agent::now;
use crate::support::client::Request;
use crate::support::gateway::Running;
use crate::support::gateway::binary;
use crate::support::process::wait_until;
use crate::support::upstream::runtime as background;

/// Agents that send; connection c is approved for agent c modulo this.
const AGENTS: usize = 10;
/// One approval, connection or nonce more may not show: this much between few and many.
const RATIO: f64 = 1.2;
/// Until a stack of any size answers.
const START: Duration = Duration::from_secs(120);
/// Age a signature may have, as the product's default.
const MAX_AGE: Duration = Duration::from_secs(300);

/// How much a stack holds.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    approvals: usize,
    connections: usize,
    nonces: usize,
}

/// The small end of every comparison.
const FEW: Size = Size { approvals: 100, connections: 10, nonces: 1000 };

/// A stack of some size.
struct World {
    size: Size,
    stack: Stack,
    agents: Vec<Agent>,
    authz: i32,
    envoy: i32,
    _state: StopHandle,
}

fn connection_id(at: usize) -> String {
    format!("conn-{at:05}")
}

/// An address of loopback's own for each connection: as many origins as connections.
fn origin(at: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + u32::try_from(at).unwrap())
}

/// Everything authz is told.
fn state(size: Size, agents: &[Agent], port: u16) -> PublishedState {
    let connections = (0..size.connections).map(|at| proto::Connection {
        id: connection_id(at),
        name: connection_id(at),
        protocol: "http".into(),
        base_url: format!("http://{}:{port}", origin(at)),
        auth_mode: proto::AuthMode::Bearer.into(),
        auth_name: "Authorization".into(),
        auth_prefix: "Bearer ".into(),
        secret: "0123456789abcdef0123456789abcdef".into(),
        active: true,
        response_timeout_ms: 120_000,
        max_stream_seconds: 3600,
        secret_version: 1,
        ..proto::Connection::default()
    });
    let mut approvals: HashMap<usize, Vec<proto::Grant>> = HashMap::new();
    for at in 0..size.approvals.max(size.connections) {
        let connection = at % size.connections;
        // The first of each connection is the agent that will ask; the others are keys nobody has.
        let key = if at < size.connections {
            agents[connection % AGENTS].key.verifying_key().to_bytes().to_vec()
        } else {
            let mut key = vec![0_u8; 32];
            getrandom::fill(&mut key).unwrap();
            key
        };
        let grant = proto::Grant { namespace: "alice".into(), public_key: key, expires_at: None };
        approvals.entry(connection).or_default().push(grant);
    }
    let approvals = approvals.into_iter().map(|(connection, grants)| proto::ServiceApprovals {
        service: connection_id(connection),
        source: proto::ApprovalSource::Declared.into(),
        grants,
        age_ms: None,
    });
    PublishedState {
        epoch: "bench".into(),
        incarnation: String::new(),
        version: 1,
        settings: proto::Settings {
            max_age_seconds: MAX_AGE.as_secs(),
            max_body_bytes: 2 * 1024 * 1024,
            allow_loopback: true,
            rotation: proto::Rotation::Warn.into(),
            claims_hold_ms: 30_000,
            stranger_rate_per_second: 200,
            ..proto::Settings::default()
        },
        connections: connections.collect(),
        approvals: approvals.collect(),
    }
}

/// Writes live nonces down the way an earlier authz would have, for the next one to read back.
fn remember(folder: &std::path::Path, nonces: usize) {
    // Begun a little earlier: a journal without a past refuses what was signed before it.
    let at = UnixSeconds(now());
    let (mut journal, mut window, _) = Journal::open(folder, 2_000_000, UnixSeconds(at.0 - 10)).unwrap();
    for number in 0..nonces {
        // A thousand keys, so that none holds more than its share of the window.
        let mut key = [1_u8; 32];
        key[..8].copy_from_slice(&(number as u64 % 1000).to_le_bytes());
        let now = Now { wall: UnixMillis(at.0 * 1000), monotonic: MonotonicMillis(0) };
        let entry = window.admit(&PublicKey::new(key), &format!("nonce-{number}"), at, MAX_AGE, now).unwrap();
        journal.append(&entry, MAX_AGE, at).unwrap();
    }
}

impl World {
    fn start(ground: &Ground, size: Size) -> Self {
        let folder: TempDir = tempfile::Builder::new().prefix("sgb").tempdir_in("/tmp").unwrap();
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let agents: Vec<_> = (0..AGENTS).map(|_| Agent::new("alice")).collect();
        remember(folder.path(), size.nonces);

        let publisher = Publisher::new(state(size, &agents, ground.provider.port()));
        let (stopper, stop) = stop_pair();
        let socket = folder.path().join("state.sock");
        let listener = background().block_on(bind_private(&socket)).unwrap();
        let (_, peers) = watch::channel(Some(PeerRule::same_user()));
        background().spawn(publisher.serve_unix(listener, peers, stop));

        let authz_socket = folder.path().join(launch::AUTHZ_SOCKET);
        let mut command = Command::new(binary());
        command
            .args(["gateway", "authz", "--listen", &format!("unix:{}", authz_socket.display())])
            .args(["--state", &format!("unix:{}", socket.display())])
            .args(["--run-dir", folder.path().to_str().unwrap()])
            .env_clear()
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let authz = Running::spawn(command);
        wait_until("authz listens", START, || authz_socket.exists());

        let address = local();
        let config = ground.rendered(address);
        // One worker: with more, each has its own connection to each origin, and files to open run out.
        let envoy = ground.envoy(folder.path(), &config, Some(1));
        let processes = vec![Counted { name: "envoy", pid: envoy.pid() }, Counted { name: "authz", pid: authz.pid() }];
        let world = Self {
            size,
            agents,
            authz: authz.pid(),
            envoy: envoy.pid(),
            stack: ground.stack(address, processes, vec![envoy, authz], folder),
            _state: stopper,
        };
        world.stack.wait_ready(|| world.request(0));
        world
    }

    /// A request for the `at`-th connection.
    fn request(&self, at: usize) -> Request {
        let target = format!("/proxy/{}/v1/ping", connection_id(at % self.size.connections));
        self.agents[at % self.size.connections % AGENTS].get("127.0.0.1:38000", &target)
    }

    /// `count` requests over all connections in turn, from the `from`-th on.
    fn requests(&self, from: usize, count: usize) -> Vec<Vec<u8>> {
        (from..from + count).map(|at| self.request(at).bytes()).collect()
    }

    fn authz_kib(&self) -> f64 {
        memory_kib(self.authz, "VmRSS") as f64
    }

    fn envoy_kib(&self) -> f64 {
        memory_kib(self.envoy, "VmRSS") as f64
    }
}

/// Sends the same number of requests to both in turns and compares what one costs.
fn compare(runtime: &Runtime, what: &str, few: &World, many: &World, rounds: usize, burst: usize) {
    let mut rows = [Row::new("few", "", &few.stack), Row::new("many", "", &many.stack)];
    // Every connection once, so that no first use is counted.
    for world in [few, many] {
        let warm = world.size.connections.max(burst);
        runtime.block_on(load::send_all(world.stack.address, world.requests(0, warm), CONNECTIONS));
    }
    for round in 0..rounds {
        let mut turn = [(few, 0), (many, 1)];
        turn.rotate_left(round % 2);
        for (world, row) in turn {
            let requests = world.requests(round * burst, burst);
            let before = Reading::take(&world.stack.processes);
            let sent = runtime.block_on(load::send_all(world.stack.address, requests, CONNECTIONS));
            rows[row].add(sent, &Reading::take(&world.stack.processes).since(&before));
        }
    }
    let [few, many] = [rows[0].take().finish(&few.stack), rows[1].take().finish(&many.stack)];
    println!(
        "{what}: total {:.1} → {:.1} µs, authz {:.1} → {:.1} µs, p50 {:.2} → {:.2} ms",
        few.total(),
        many.total(),
        few.micros("authz"),
        many.micros("authz"),
        few.percentile(0.50),
        many.percentile(0.50),
    );
    verdict(&format!("CPU per request, {what}"), many.total() / few.total(), RATIO, "×", true);
    verdict(&format!("authz CPU per request, {what}"), many.micros("authz") / few.micros("authz"), RATIO, "×", true);
}

/// All comparisons and the memory of each thing.
pub fn run(runtime: &Runtime, ground: &Ground, rounds: usize, burst: usize) {
    println!("\nSize");
    let few = World::start(ground, FEW);
    let base = few.authz_kib();

    let many = World::start(ground, Size { approvals: 1_000_000, ..FEW });
    let approval = (many.authz_kib() - base) * 1024.0 / 999_900.0;
    compare(runtime, "10^2 → 10^6 approvals", &few, &many, rounds, burst);
    drop(many);

    let many = World::start(ground, Size { nonces: 1_000_000, ..FEW });
    let nonce = (many.authz_kib() - base) * 1024.0 / 999_000.0;
    compare(runtime, "10^3 → 10^6 live nonces", &few, &many, rounds, burst);
    drop(many);

    let many = World::start(ground, Size { connections: 10_000, ..FEW });
    let connection = (many.authz_kib() - base - 9_900.0 * approval / 1024.0) * 1024.0 / 9_990.0;
    let envoy = many.envoy_kib();
    compare(runtime, "10 → 10,000 connections of as many origins", &few, &many, rounds, burst);
    let origin = (many.envoy_kib() - envoy) * 1024.0 / 9_990.0;
    drop(many);

    let usual = World::start(ground, Size { approvals: 10_000, connections: 1_000, nonces: 0 });
    runtime.block_on(load::send_all(usual.stack.address, usual.requests(0, burst), CONNECTIONS));
    let peak = memory_kib(usual.authz, "VmHWM") as f64 / 1024.0;
    println!("\nMemory");
    println!(
        "per approval {approval:.0} bytes, per connection {connection:.0} bytes, per nonce {nonce:.1} bytes (authz)"
    );
    println!("per upstream host {:.1} kB, its connection included (Envoy)", origin / 1024.0);
    verdict("one nonce", nonce, 32.0, "bytes", true);
    verdict("authz with 10,000 approvals and 1,000 connections, peak", peak, 40.0, "MB", true);
}

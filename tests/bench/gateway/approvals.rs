//! Approvals of a control plane: from a decision to the first request it is enforced on, against the product's own
//! API; what a hundred thousand take in memory, and what reading them again does to requests, against a feed held in
//! memory by another process, as a hosted API is one. All of the gateway is the product's, started as its users do.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;
use sigilum::app::api::issue_local_token;
use sigilum::app::api::local_jwt_secret;
use sigilum::app::owner_api::NewService;
use sigilum::app::owner_api::OwnerApi;
use sigilum::app::owner_api::Submission;
use sigilum::app::owner_api::mint_service_key;
use sigilum::app::owner_api::submit_claim;
use sigilum::domain::ids::Namespace;
use sigilum::domain::secret::Secret;
use sigilum::domain::time::UnixSeconds;
use sigilum::identity::Identity;
use tokio::runtime::Runtime;

use crate::CONNECTIONS;
use crate::accounting::cpu_nanos;
use crate::accounting::memory_kib;
use crate::feed::CHANGED;
use crate::feed::SERVICE;
use crate::load;
use crate::report::verdict;
use crate::stacks::Ground;
use crate::stacks::TARGET;
use crate::stacks::local;
use crate::stacks::role;
use crate::support::agent::Agent;
use crate::support::agent::now;
use crate::support::agent::random_hex;
use crate::support::client;
use crate::support::client::Body;
use crate::support::client::Request;
use crate::support::gateway::Gateway;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::process::wait_until;
use crate::support::upstream::runtime as background;

/// Approvals of everything below.
const APPROVALS: usize = 100_000;
/// Approvals of one call of the test seed.
const SEEDED: usize = 500;
/// Decisions that are timed.
const DECISIONS: usize = 200;
/// Pairs of a burst in peace and one during a reading.
const PAIRS: usize = 12;
/// Readings after which memory counts.
const REPEATED: usize = 3;
/// Part of what the machine can do that the paced requests ask for.
const LOAD: f64 = 0.5;
/// Longest reading, and so the longest burst.
const BURST: Duration = Duration::from_secs(8);
/// Between two looks at whether a decision is enforced.
const LOOK: Duration = Duration::from_millis(1);
/// Until anything has come to pass.
const LIMIT: Duration = Duration::from_secs(120);
/// Memory that has not changed for so long has settled.
const SETTLED: Duration = Duration::from_secs(4);
/// How far two readings of memory that has settled may be apart, in KiB.
const STILL: u64 = 128;

/// What a gateway needs to ask an API about [`SERVICE`]: its address and a service key in its file.
fn setup(ground: &Ground, api: SocketAddr, key: &str) -> Setup {
    let mut setup =
        Setup::new().env("ENVOY_BIN", ground.envoy.to_str().unwrap()).env("SIGILUM_API_URL", &format!("http://{api}"));
    setup.agent = ground.agent.clone();
    fs::write(setup.home().join(format!("service-api-key-{SERVICE}")), key).unwrap();
    setup
}

/// Starts a gateway with one connection.
fn start(ground: &Ground, setup: Setup) -> Gateway {
    let gateway = setup.start();
    let created = gateway.create(SERVICE, &format!("http://{}", ground.provider), "0123456789abcdef", json!({}));
    assert_eq!(created.status, 201, "{}", created.text());
    gateway.wait_in_force(SERVICE);
    gateway
}

fn asks(gateway: &Gateway, agent: &Agent) -> u16 {
    gateway.send(&agent.get(&gateway.authority(), TARGET)).status
}

fn wait_approved(gateway: &Gateway, agent: &Agent) {
    wait_until("the whole list is enforced", LIMIT, || asks(gateway, agent) == 200);
}

/// How soon decisions are enforced.
pub fn time_decisions(ground: &Ground, quick: bool) {
    println!("\nDecisions at a control plane");
    let (filled, rounds) = if quick { (APPROVALS / 20, 20) } else { (APPROVALS, DECISIONS) };
    decisions(ground, filled, rounds);
}

/// What many approvals take, and what reading them again does.
pub fn measure_lists(runtime: &Runtime, ground: &Ground, quick: bool) {
    println!("\nApprovals of a control plane");
    let pairs = if quick { 2 } else { PAIRS };
    for namespaces in [10, APPROVALS] {
        size_and_refresh(runtime, ground, namespaces, pairs);
    }
}

pub fn part(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() as f64 * part) as usize).min(sorted.len() - 1)]
}

// ---- decisions -------------------------------------------------------------------------------------------------

/// The product's API, filled.
struct Api {
    address: SocketAddr,
    running: Running,
    key: Secret,
    owner: OwnerApi,
}

impl Api {
    fn start(probe: &Agent, filled: usize) -> (Self, Setup) {
        let setup = Setup::new();
        let address = local();
        let (data, seed) = (setup.root.path().join("api"), random_hex(16));
        let mut command = setup.command(&["api"]);
        command
            .env("API_PORT", address.port().to_string())
            .env("API_DATA_DIR", &data)
            .env("ENABLE_TEST_SEED_ENDPOINT", "true")
            .env("SIGILUM_TEST_SEED_TOKEN", &seed);
        let running = Running::spawn(command);
        // It is bound before its folder is made.
        wait_until("the API listens", LIMIT, || running.said().contains("listening"));
        let secret = local_jwt_secret(&data).unwrap().unwrap();
        let owner = |namespace: &str| {
            let namespace = Namespace::parse(namespace).unwrap();
            let token = issue_local_token(&secret, &namespace, None, Duration::from_secs(3600)).unwrap();
            OwnerApi::new(&format!("http://{address}"), &token).unwrap()
        };
        let key = background().block_on(async {
            // A namespace is there from the first use of its owner's token on.
            owner("alice").services().await.unwrap();
            let operator = owner("operator");
            let new = NewService { name: "Bench", slug: SERVICE, domain: "localhost", description: "A bench." };
            let (service, _) = operator.ensure_service(&new).await.unwrap();
            operator.import_key(&service, "bench", &mint_service_key().unwrap()).await.unwrap()
        });
        let api = Self { address, running, key, owner: owner("alice") };
        api.fill(&seed, probe, filled);
        (api, setup)
    }

    /// Approves so many keys, ten in each namespace, and the probe last.
    fn fill(&self, seed: &str, probe: &Agent, filled: usize) {
        let row = |at: usize| {
            if at + 1 == filled {
                return json!({ "namespace": "alice", "service": SERVICE, "public_key": probe.public_key });
            }
            let mut key = [0_u8; 32];
            getrandom::fill(&mut key).unwrap();
            let key = sigilum::domain::ids::PublicKey::new(key).text();
            json!({ "namespace": format!("team-{:06}", at / 10), "service": SERVICE, "public_key": key })
        };
        for from in (0..filled).step_by(SEEDED) {
            let upserts: Vec<Value> = (from..from + SEEDED).map(row).collect();
            let request = Request::new("POST", &self.address.to_string(), "/v1/test/seed")
                .header("x-sigilum-test-seed-token", seed)
                .header("content-type", "application/json")
                .with_body(Body::Sized(json!({ "upserts": upserts }).to_string().into_bytes()));
            let answer = client::send(self.address, &request);
            assert_eq!(answer.status, 200, "{} {}", answer.text(), self.running.said());
        }
    }
}

/// Approves and revokes agents and waits for the first request that is treated so. The agents are approved for
/// something else in `gateway.yaml`: no budget for strangers slows the waiting.
fn decisions(ground: &Ground, filled: usize, rounds: usize) {
    let probe = Agent::new("alice");
    let (api, _folder) = Api::start(&probe, filled);
    let mut setup = setup(ground, api.address, api.key.expose());
    let agents: Vec<([u8; 32], Agent)> = (0..rounds)
        .map(|_| {
            let mut seed = [0_u8; 32];
            getrandom::fill(&mut seed).unwrap();
            (seed, Agent::from_seed("alice", &seed))
        })
        .collect();
    for (_, agent) in &agents {
        setup.approvals.push((agent.namespace.clone(), agent.public_key.clone(), "another".to_owned()));
    }
    let gateway = start(ground, setup);
    wait_approved(&gateway, &probe);
    let base = format!("http://{}", api.address);
    let (mut approved, mut revoked) = (Vec::new(), Vec::new());
    for (seed, agent) in &agents {
        let identity = Identity::from_seed(Namespace::parse("alice").unwrap(), seed, UnixSeconds(now()));
        let submission = Submission { service: SERVICE, agent_ip: "127.0.0.1", agent_id: None, agent_name: None };
        let claim = background().block_on(submit_claim(&base, &identity, &api.key, &submission)).unwrap();
        assert_eq!(claim.status, "pending");
        until(&gateway, agent, 403);
        background().block_on(api.owner.approve(&claim.claim_id, None)).unwrap();
        approved.push(until(&gateway, agent, 200));
        background().block_on(api.owner.revoke(&claim.claim_id)).unwrap();
        revoked.push(until(&gateway, agent, 403));
    }
    println!("our API with {filled} approvals of one service; {rounds} decisions, from the API's answer");
    for (what, mut times) in [("approve", approved), ("revoke", revoked)] {
        times.sort_by(f64::total_cmp);
        println!(
            "{what:<8} p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
            part(&times, 0.5),
            part(&times, 0.99),
            part(&times, 1.0)
        );
        verdict(&format!("{what} → first enforced request, p99"), part(&times, 0.99), 1000.0, "ms", true);
    }
}

/// Milliseconds until a request is answered with `status`.
fn until(gateway: &Gateway, agent: &Agent, status: u16) -> f64 {
    let start = Instant::now();
    while asks(gateway, agent) != status {
        assert!(start.elapsed() < LIMIT, "a decision is not enforced");
        std::thread::sleep(LOOK);
    }
    start.elapsed().as_secs_f64() * 1000.0
}

// ---- memory and reading again ----------------------------------------------------------------------------------

/// The feed in another process.
struct Feed {
    address: SocketAddr,
    running: Running,
}

impl Feed {
    fn start() -> Self {
        let address = local();
        let running = role(&["feed", &address.to_string()]);
        wait_until("the feed listens", LIMIT, || std::net::TcpStream::connect(address).is_ok());
        Self { address, running }
    }

    fn tell(&self, what: &str) -> Value {
        let request = Request::new("GET", &self.address.to_string(), &format!("/bench/{what}"));
        client::send(self.address, &request).json()
    }

    fn reading(&self) -> bool {
        self.tell("state")["reading"] == true
    }

    fn reads(&self) -> u64 {
        self.tell("state")["reads"].as_u64().unwrap()
    }
}

/// Resident memory in KiB once it stands still: all of it, and what lies in no file, which is not the program.
pub fn settled(pid: i32) -> [f64; 2] {
    let start = Instant::now();
    let (mut held, mut since) = (memory_kib(pid, "VmRSS"), Instant::now());
    while since.elapsed() < SETTLED && start.elapsed() < LIMIT {
        std::thread::sleep(Duration::from_millis(100));
        let now = memory_kib(pid, "VmRSS");
        if now.abs_diff(held) > STILL {
            (held, since) = (now, Instant::now());
        }
    }
    ["VmRSS", "RssAnon"].map(|field| memory_kib(pid, field) as f64 / 1024.0)
}

/// What the requests of one kind of burst showed.
#[derive(Default)]
struct Side {
    latencies: Vec<u32>,
    /// Milliseconds, one per burst.
    p99: Vec<f64>,
}

impl Side {
    fn add(&mut self, mut latencies: Vec<u32>) {
        latencies.sort_unstable();
        self.p99.push(at(&latencies, 0.99));
        self.latencies.extend(latencies);
    }
}

/// Milliseconds within which a part of sorted latencies lies.
pub fn at(latencies: &[u32], part: f64) -> f64 {
    f64::from(latencies[((latencies.len() as f64 * part) as usize).min(latencies.len() - 1)]) / 1000.0
}

fn size_and_refresh(runtime: &Runtime, ground: &Ground, namespaces: usize, pairs: usize) {
    let feed = Feed::start();
    let gateway = start(ground, setup(ground, feed.address, "sk_live_bench"));
    let probe = Agent::new("alice");
    let requests = |count: usize| -> Vec<Vec<u8>> {
        (0..count).map(|_| ground.agent.get("127.0.0.1:38000", TARGET).bytes()).collect()
    };
    let address = gateway.setup.ingress;
    let (admin, authz) = (gateway.role("admin"), gateway.role("authz"));
    // What requests take in memory, and what an empty list does, is no approval's.
    wait_until("the empty list is read", LIMIT, || feed.reads() > 0);
    let burst = runtime.block_on(load::send_all(address, requests(4000), CONNECTIONS));
    let rate = (LOAD * burst.latencies.len() as f64 / burst.elapsed.as_secs_f64()).round();
    let before = [settled(admin), settled(authz)];

    println!("\n{APPROVALS} approvals in {namespaces} namespaces, a feed that can only be polled");
    let began = Instant::now();
    let probe_key = probe.public_key.trim_start_matches("ed25519:");
    feed.tell(&format!("fill?count={APPROVALS}&namespaces={namespaces}&probe={probe_key}"));
    wait_approved(&gateway, &probe);
    println!(
        "first read and enforced after {:.1} s, waiting for the next look included",
        began.elapsed().as_secs_f64()
    );
    let memory = |what: &str| {
        let now = [settled(admin), settled(authz)];
        let [admin, authz] = [0, 1].map(|at| [now[at][0] - before[at][0], now[at][1] - before[at][1]]);
        println!(
            "memory {what}: admin {:+.1} MB, authz {:+.1} MB; without what lies in files {:+.1} MB, {:+.1} MB",
            admin[0], authz[0], admin[1], authz[1]
        );
        admin[0] + authz[0]
    };
    memory("after the first reading");
    for _ in 0..REPEATED {
        let reads = feed.reads();
        feed.tell("change");
        wait_until("the list is read again", LIMIT, || feed.reads() > reads && !feed.reading());
    }
    let total = memory(&format!("after {REPEATED} more"));
    verdict(&format!("admin and authz, {APPROVALS} approvals in {namespaces} namespaces"), total, 25.0, "MB", true);

    let (mut idle, mut refresh) = (Side::default(), Side::default());
    let mut spent = [0.0; 3];
    let processes = [admin, authz, feed.running.pid()];
    let mut lasted = Vec::new();
    for pair in 0..pairs {
        // The two in turns: what disturbs the machine for a while disturbs both alike.
        for reading in [pair % 2 == 0, pair % 2 == 1] {
            let requests = requests((rate * BURST.as_secs_f64()) as usize);
            let done = Arc::new(AtomicBool::new(false));
            let length = Duration::from_secs_f64(lasted.last().copied().unwrap_or(2.5));
            if reading {
                feed.tell("change");
                wait_until("the list is read again", LIMIT, || feed.reading());
            }
            let cpu = processes.map(cpu_nanos);
            let start = Instant::now();
            let took = std::thread::scope(|scope| {
                let watcher = scope.spawn(|| {
                    while if reading { feed.reading() } else { start.elapsed() < length } {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    done.store(true, Ordering::Relaxed);
                    start.elapsed()
                });
                let burst = runtime.block_on(load::send_paced(address, requests, CONNECTIONS, rate, Arc::clone(&done)));
                let side = if reading { &mut refresh } else { &mut idle };
                side.add(burst.latencies);
                watcher.join().unwrap()
            });
            if reading {
                for (spent, (now, before)) in spent.iter_mut().zip(processes.map(cpu_nanos).into_iter().zip(cpu)) {
                    *spent += (now - before) as f64 / 1e6;
                }
                lasted.push(took.as_secs_f64());
            }
        }
    }
    let [admin_ms, authz_ms, feed_ms] = spent.map(|spent| spent / pairs as f64);
    println!(
        "{rate:.0} requests/s, half of what it can do; {pairs} readings of {:.1} s with {CHANGED} approvals replaced: \
         admin {admin_ms:.0} ms of CPU, authz with its requests {authz_ms:.0} ms, the feed {feed_ms:.0} ms",
        lasted.iter().sum::<f64>() / lasted.len() as f64
    );
    let mut ratios: Vec<f64> = refresh.p99.iter().zip(&idle.p99).map(|(refresh, idle)| refresh / idle).collect();
    ratios.sort_by(f64::total_cmp);
    for side in [&mut idle, &mut refresh] {
        side.latencies.sort_unstable();
    }
    for (what, side) in [("idle", &idle), ("reading", &refresh)] {
        let latencies = &side.latencies;
        println!(
            "{what:<8} p50 {:.2} ms, p99 {:.2} ms of {}",
            at(latencies, 0.5),
            at(latencies, 0.99),
            latencies.len()
        );
    }
    println!(
        "p99 of each pair: quartiles {:.2} {:.2} {:.2}",
        part(&ratios, 0.25),
        part(&ratios, 0.5),
        part(&ratios, 0.75)
    );
    verdict("p99 during a reading ÷ in peace, median of the pairs", part(&ratios, 0.5), 1.2, "×", true);
    memory("after all requests, with what those left");
}

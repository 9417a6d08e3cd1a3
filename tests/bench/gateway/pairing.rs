//! Pairing: what a call of the admin API takes directly and through API and bridge, all of them the product's, as
//! processes of their own; then a thousand gateways at one API, in memory and in the time a command takes, one after
//! the other and many at a time. There the bridges are simulated, in this process, which answers at once.

use std::time::Duration;
use std::time::Instant;

use futures_util::StreamExt as _;
use serde_json::Value;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::accounting::cpu_nanos;
use crate::accounting::memory_kib;
use crate::load;
use crate::load::Burst;
use crate::stacks::Ground;
use crate::support::api::Api;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::pair_bridge;
use crate::support::pair_bridge::Paired;
use crate::support::process::wait_until;

/// Gateways at one API.
const GATEWAYS: usize = 1000;
/// Sessions of one owner, which is as many as one may have.
const OF_AN_OWNER: usize = 64;
/// Bridges that join at a time.
const AT_ONCE: usize = 32;
/// Commands of each row.
const COMMANDS: usize = 10_000;
/// Commands in flight where there are many.
const IN_FLIGHT: usize = 64;
/// After which memory that was needed to join has been given back.
const SETTLE: Duration = Duration::from_secs(3);

/// Calls in a row, directly or relayed, before the other way has its turn.
const TURN: usize = 100;
/// Until anything has come to pass.
const LIMIT: Duration = Duration::from_secs(60);

/// What relaying adds to a call of the admin API.
pub fn measure_relay(runtime: &Runtime, ground: &Ground, quick: bool) {
    println!("\nA call of the admin API, directly and relayed");
    let turns = if quick { 5 } else { 50 };
    let gateway = Setup::new().env("ENVOY_BIN", ground.envoy.to_str().unwrap()).start();
    let api = Api::start();
    let paired = Paired::start(&api, "operator");
    let mut command = gateway.setup.command(&["gateway", "pair", "--session-id", &paired.id]);
    command
        .args(["--namespace", &paired.namespace, "--api-url", &api.url()])
        .args(["--gateway-admin-url", &format!("http://{}", gateway.setup.admin)])
        .env("SIGILUM_PAIR_CODE", &paired.code);
    let bridge = Running::spawn(command);
    wait_until("the bridge has joined", LIMIT, || paired.is_connected(&api));
    let list = json!({"session_id": paired.id, "method": "GET", "path": "/api/admin/connections"});
    let relayed = api.owner("operator", "POST", "/v1/gateway/pairing/command", Some(&list));
    assert_eq!(relayed["status"], 200, "{relayed}");
    let direct = format!(
        "GET /api/admin/connections HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\r\n",
        gateway.setup.admin,
        gateway.token()
    );
    let processes = [("API", api.pid()), ("bridge", bridge.pid()), ("admin", gateway.role("admin"))];
    let (mut straight, mut around) = (Burst::default(), Burst::default());
    let before = processes.map(|(_, pid)| cpu_nanos(pid));
    for _ in 0..turns {
        let requests = vec![direct.clone().into_bytes(); TURN];
        add(&mut straight, runtime.block_on(load::send_all(gateway.setup.admin, requests, 1)));
        let requests = vec![posted(&api, &paired, &list); TURN];
        add(&mut around, runtime.block_on(load::send_all(api.address, requests, 1)));
    }
    report("direct", straight);
    report("relayed", around);
    for ((name, pid), before) in processes.into_iter().zip(before) {
        let each = (cpu_nanos(pid) - before) as f64 / 1000.0 / (turns * TURN) as f64;
        println!("  {name}: {each:.0} µs of processor time for each pair of them");
    }
}

fn add(all: &mut Burst, one: Burst) {
    all.elapsed += one.elapsed;
    all.latencies.extend(one.latencies);
}

/// What a thousand paired gateways take.
pub fn measure_many(runtime: &Runtime, quick: bool) {
    let (gateways, commands) = if quick { (GATEWAYS / 10, COMMANDS / 10) } else { (GATEWAYS, COMMANDS) };
    println!("\nGateways paired with one API");
    let api = Api::start();
    let sessions: Vec<Paired> =
        (0..gateways).map(|number| Paired::start(&api, &format!("team-{}", number / OF_AN_OWNER))).collect();
    let memory = || memory_kib(api.pid(), "VmRSS");
    let (before, start) = (memory(), Instant::now());
    let mut bridges = JoinSet::new();
    let sockets = runtime.block_on(async {
        let joining = sessions.iter().map(|paired| pair_bridge::join(api.address, paired));
        futures_util::stream::iter(joining).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await
    });
    let joined = start.elapsed();
    runtime.block_on(async {
        for socket in sockets {
            bridges.spawn(pair_bridge::answer(socket));
        }
        // Nothing is asked of them meanwhile; beats are answered.
        tokio::time::sleep(SETTLE).await;
    });
    assert!(sessions.iter().all(|paired| paired.is_connected(&api)), "every bridge is there");
    let after = memory();
    println!("  {gateways} bridges joined in {:.2} s, {AT_ONCE} at a time", joined.as_secs_f64());
    println!(
        "  memory (VmRSS): {:.1} MiB before, {:.1} MiB after, {:.1} KiB each",
        mib(before),
        mib(after),
        (after.saturating_sub(before)) as f64 / gateways as f64
    );
    for in_flight in [1, IN_FLIGHT] {
        let requests = (0..commands).map(|number| request(&api, &sessions[number * 7 % sessions.len()])).collect();
        let busy = cpu_nanos(api.pid());
        let burst = runtime.block_on(load::send_all(api.address, requests, in_flight));
        report(&format!("{in_flight} in flight"), burst);
        let each = (cpu_nanos(api.pid()) - busy) as f64 / 1000.0 / commands as f64;
        println!("  {each:.0} µs of the API's processor time each");
    }
    println!("  memory (VmRSS) after {} commands: {:.1} MiB", 2 * commands, mib(memory()));
    assert!(sessions.iter().all(|paired| paired.is_connected(&api)), "and none was lost");
    runtime.block_on(bridges.shutdown());
}

/// A command as an HTTP request of the session's owner.
fn request(api: &Api, paired: &Paired) -> Vec<u8> {
    posted(api, paired, &paired.command("/api/admin/connections", r#"{"name":"one"}"#))
}

fn posted(api: &Api, paired: &Paired, command: &Value) -> Vec<u8> {
    let body = command.to_string();
    let token = api.token(&paired.namespace);
    format!(
        "POST /v1/gateway/pairing/command HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        api.address,
        body.len()
    )
    .into_bytes()
}

fn report(name: &str, mut burst: Burst) {
    burst.latencies.sort_unstable();
    let count = burst.latencies.len();
    let at = |part: f64| f64::from(burst.latencies[((count as f64 * part) as usize).min(count - 1)]) / 1000.0;
    println!(
        "  {name}: {count} calls, p50 {:.2} ms, p99 {:.2} ms, {:.0}/s",
        at(0.5),
        at(0.99),
        count as f64 / burst.elapsed.as_secs_f64()
    );
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

//! Pairing: a thousand gateways at one API, in memory and in the time a command takes, one after the other and many at
//! a time. The API is the product's, in a process of its own; the bridges are simulated, in this one, which answers
//! at once.

use std::time::Duration;
use std::time::Instant;

use futures_util::StreamExt as _;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::accounting::cpu_nanos;
use crate::accounting::memory_kib;
use crate::load;
use crate::load::Burst;
use crate::support::api::Api;
use crate::support::pair_bridge;
use crate::support::pair_bridge::Paired;

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
        report(in_flight, burst, cpu_nanos(api.pid()) - busy);
    }
    println!("  memory (VmRSS) after {} commands: {:.1} MiB", 2 * commands, mib(memory()));
    assert!(sessions.iter().all(|paired| paired.is_connected(&api)), "and none was lost");
    runtime.block_on(bridges.shutdown());
}

/// A command as an HTTP request of the session's owner.
fn request(api: &Api, paired: &Paired) -> Vec<u8> {
    let body = paired.command("/api/admin/connections", r#"{"name":"one"}"#).to_string();
    let token = api.token(&paired.namespace);
    format!(
        "POST /v1/gateway/pairing/command HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        api.address,
        body.len()
    )
    .into_bytes()
}

fn report(in_flight: usize, mut burst: Burst, nanos: u64) {
    burst.latencies.sort_unstable();
    let count = burst.latencies.len();
    let at = |part: f64| f64::from(burst.latencies[((count as f64 * part) as usize).min(count - 1)]) / 1000.0;
    println!(
        "  {count} commands, {in_flight} in flight: p50 {:.2} ms, p99 {:.2} ms, {:.0}/s, {:.0} µs of the API's processor each",
        at(0.5),
        at(0.99),
        count as f64 / burst.elapsed.as_secs_f64(),
        nanos as f64 / 1000.0 / count as f64
    );
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

//! Connections as operators change them: from a change to the first request that is served by it, with few and with
//! many; what each takes in memory; and ten thousand of `gateway.yaml` read anew under load. All of the gateway is the
//! product's, started as its users do.

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;
use tokio::runtime::Runtime;

use crate::CONNECTIONS;
use crate::approvals::at;
use crate::approvals::part;
use crate::approvals::settled;
use crate::load;
use crate::report::verdict;
use crate::stacks::Ground;
use crate::support::agent::Agent;
use crate::support::gateway::Gateway;
use crate::support::gateway::Setup;

/// Many connections.
const MANY: usize = 10_000;
/// Changes that are timed, of each kind.
const CHANGES: usize = 200;
/// Connections made one after the other: as many as the agent is approved for in advance, less those in use.
const CREATIONS: usize = 150;
/// Edits of the file that are timed, of each kind.
const EDITS: usize = 12;
/// Requests per second on a connection that no edit touches.
const RATE: f64 = 500.0;
/// Longest edit, and so the longest load.
const LONGEST: Duration = Duration::from_secs(60);
/// Between two looks at whether a change counts.
const LOOK: Duration = Duration::from_millis(1);

/// All of it.
pub fn measure(runtime: &Runtime, ground: &Ground, quick: bool) {
    println!("\nConnections");
    let (many, rounds) = if quick { (MANY / 10, 20) } else { (MANY, CHANGES) };
    for count in [10, many] {
        changes(ground, count, rounds);
    }
    reload(runtime, ground, many, if quick { 2 } else { EDITS });
}

fn start(ground: &Ground, setup: Setup) -> Gateway {
    setup.env("ENVOY_BIN", ground.envoy.to_str().unwrap()).start()
}

/// Milliseconds until a request to `target` is answered with `status`.
fn until(gateway: &Gateway, agent: &Agent, target: &str, status: u16) -> f64 {
    let start = Instant::now();
    loop {
        let answer = gateway.send(&agent.get(&gateway.authority(), target));
        if answer.status == status {
            return start.elapsed().as_secs_f64() * 1000.0;
        }
        assert!(start.elapsed() < LONGEST, "a change does not count: {} {}", answer.status, answer.text());
        std::thread::sleep(LOOK);
    }
}

/// What the roles hold once they stand still, in MB.
fn memory(gateway: &Gateway) -> [f64; 2] {
    ["admin", "authz"].map(|role| settled(gateway.role(role))[0])
}

fn show_memory(what: &str, count: usize, before: [f64; 2], after: [f64; 2]) {
    let each = |at: usize| (after[at] - before[at]) * 1024.0 * 1024.0 / count as f64;
    println!(
        "memory of {count} {what}: admin {:+.1} MB ({:.0} bytes each), authz {:+.1} MB ({:.0} bytes each)",
        after[0] - before[0],
        each(0),
        after[1] - before[1],
        each(1)
    );
}

fn show_times(what: &str, times: &mut [f64], limit: f64) {
    times.sort_by(f64::total_cmp);
    println!(
        "{what}: p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms of {}",
        part(times, 0.5),
        part(times, 0.99),
        part(times, 1.0),
        times.len()
    );
    verdict(&format!("{what}, p99"), part(times, 0.99), limit, "ms", true);
}

/// Changes through the admin API, from its answer to the first request they count for.
fn changes(ground: &Ground, count: usize, rounds: usize) {
    let mut setup = Setup::new();
    setup.agent = ground.agent.clone();
    let gateway = start(ground, setup);
    let provider = format!("http://{}", ground.provider);
    let secret = "0123456789abcdef0123456789abcdef";
    let create = |id: &str| {
        let created = gateway.create(id, &provider, secret, json!({}));
        assert_eq!(created.status, 201, "{}", created.text());
    };
    create("conn-000");
    until(&gateway, gateway.agent(), "/proxy/conn-000/v1/ping", 200);
    let before = memory(&gateway);
    let began = Instant::now();
    (1..count).for_each(|at| create(&format!("fill-{at:05}")));
    println!("\n{count} connections; made one by one in {:.1} s", began.elapsed().as_secs_f64());
    if count > 1000 {
        show_memory("connections of the store", count - 1, before, memory(&gateway));
    }
    let (mut changed, mut made) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for (status, expected) in [("disabled", 400), ("active", 200)] {
            let answer = gateway.admin("PATCH", "/connections/conn-000", Some(&json!({ "status": status })));
            assert_eq!(answer.status, 200, "{}", answer.text());
            changed.push(until(&gateway, gateway.agent(), "/proxy/conn-000/v1/ping", expected));
        }
    }
    for at in 1..=rounds.min(CREATIONS) {
        create(&Setup::connection_id(at));
        let target = format!("/proxy/{}/v1/ping", Setup::connection_id(at));
        made.push(until(&gateway, gateway.agent(), &target, 200));
    }
    show_times(&format!("change → first request, {count} connections"), &mut changed, 250.0);
    show_times(&format!("creation → first request, {count} connections"), &mut made, 250.0);
}

/// The connections of `gateway.yaml`; `version` changes all but the first, `disabled` the last.
fn declared(ground: &Ground, count: usize, keys: &str, version: usize, disabled: bool) -> String {
    let mut yaml = format!(
        "secrets:\n  resolution: {{ max_refs_per_provider: {} }}\n  providers:\n    keys: {{ source: file, path: {keys} }}\n\
         connections:\n",
        count
    );
    for at in 0..count {
        let prefix = if at == 0 { String::new() } else { format!(", path_prefix: /v{version}") };
        let status = if at + 1 == count && disabled { "disabled" } else { "active" };
        writeln!(
            yaml,
            "  - {{ id: decl-{at:05}, base_url: 'http://{}'{prefix}, status: {status}, secrets: {{ api_key: {{ source: file, \
             provider: keys, id: /k{at} }} }} }}",
            ground.provider
        )
        .unwrap();
    }
    yaml
}

/// Edits of a file with many connections, while requests on one that no edit touches go on.
fn reload(runtime: &Runtime, ground: &Ground, count: usize, edits: usize) {
    let mut setup = Setup::new();
    setup.agent = ground.agent.clone();
    let keys = setup.root.path().join("keys.json");
    let values: serde_json::Map<_, _> =
        (0..count).map(|at| (format!("k{at}"), json!(format!("0123456789abcdef-{at:08}")))).collect();
    fs::write(&keys, serde_json::Value::Object(values).to_string()).unwrap();
    fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let keys = keys.to_str().unwrap().to_owned();
    let last = format!("decl-{:05}", count - 1);
    for service in ["decl-00000", &last] {
        setup.approvals.push((setup.agent.namespace.clone(), setup.agent.public_key.clone(), service.to_owned()));
    }
    let gateway = &start(ground, setup);
    let before = memory(gateway);
    let write = |version: usize, disabled: bool| {
        let yaml = gateway.setup.yaml_of(&declared(ground, count, &keys, version, disabled));
        // Whole or not at all, as editors do.
        let file = gateway.setup.home().join("gateway.yaml");
        let aside = file.with_extension("new");
        fs::write(&aside, yaml).unwrap();
        fs::rename(&aside, &file).unwrap();
    };
    let target = format!("/proxy/{last}/v1/ping");
    let began = Instant::now();
    write(0, false);
    until(gateway, &ground.agent, &target, 200);
    println!("\n{count} connections of gateway.yaml; the first time in {:.2} s", began.elapsed().as_secs_f64());
    show_memory("connections of gateway.yaml", count, before, memory(gateway));
    let address = gateway.setup.ingress;

    for (what, all) in [("one of them", false), ("all but one of them", true)] {
        let (mut times, mut latencies) = (Vec::new(), Vec::new());
        for edit in 0..edits {
            let (disabled, expected) = if edit % 2 == 0 { (true, 400) } else { (false, 200) };
            let requests = (0..(RATE * LONGEST.as_secs_f64() / 6.0) as usize)
                .map(|_| ground.agent.get("127.0.0.1:38000", "/proxy/decl-00000/v1/ping").bytes())
                .collect();
            let done = Arc::new(AtomicBool::new(false));
            std::thread::scope(|scope| {
                let load = scope.spawn({
                    let done = Arc::clone(&done);
                    move || runtime.block_on(load::send_paced(address, requests, CONNECTIONS, RATE, done))
                });
                let began = Instant::now();
                write(if all { edit + 1 } else { 0 }, disabled);
                until(gateway, &ground.agent, &target, expected);
                times.push(began.elapsed().as_secs_f64() * 1000.0);
                done.store(true, Ordering::Relaxed);
                // Any answer but 200 has ended the bench by now.
                latencies.extend(load.join().unwrap().latencies);
            });
        }
        latencies.sort_unstable();
        show_times(&format!("edit of {what} → first request, {count} declared"), &mut times, 2000.0);
        println!(
            "meanwhile on an unchanged one, {RATE:.0} requests a second: {} requests, none failed, p99 {:.1} ms",
            latencies.len(),
            at(&latencies, 0.99)
        );
    }
}

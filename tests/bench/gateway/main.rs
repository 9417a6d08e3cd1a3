//! `cargo bench --bench gateway`: what the gateway costs, beside Envoy without it.
//!
//! (a) Envoy alone, (b) the same Envoy file as the product's with a check that always allows, (c) the
//! gateway, (c') the gateway with a body of 4 KiB, (b') the same with the check that allows, (d) Envoy's
//! own `jwt_authn` with `credential_injector`, (e) one verification and one base in isolation. All rows
//! are taken in turns within one run on one machine, so that what disturbs one disturbs all. (b) and (c)
//! receive the same requests. Processor time is what the kernel counted for each process.
//!
//! Then what size costs: approvals, connections, nonces, and the memory of each. Then connections that are changed
//! through the admin API and in `gateway.yaml`. Then the approvals of a control
//! plane: how soon a decision is enforced, what a hundred thousand take, and what reading them again does to requests.
//! Then what it costs to be seen: access log, metrics and traces, each with and without.
//! Then many subscribers of the state: how soon a change is everywhere, and what a pair of Envoy and authz holds.
//! Then what an operator waits for: the commands that look, a start, a restart.
//! Then paired gateways: what a thousand take at one API, and how long a relayed command takes.
//!
//! `--quick` takes fewer rounds; `--rows a,b,size,connections,decisions,approvals,telemetry,fleet,operations,pairing` takes
//! some rows only.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a bench may end by a panic, reads clocks and prints its table"
)]
#![allow(unreachable_pub, missing_docs, reason = "a bench has no outside")]

mod accounting;
mod approvals;
mod connections;
mod feed;
mod fleet;
mod load;
mod operations;
mod pairing;
mod report;
mod roles;
mod scale;
mod stacks;
#[path = "../../it/support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod support;
mod telemetry;
mod verification;

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::Signer as _;

use crate::accounting::Reading;
use crate::report::Row;
use crate::stacks::Ground;
use crate::stacks::Stack;
use crate::stacks::TARGET;
use crate::support::agent::Agent;
use crate::support::agent::now;
use crate::support::agent::random_hex;
use crate::support::client::Request;

/// Connections of the generator: enough that nobody waits for it, few enough that queues stay short.
const CONNECTIONS: usize = 16;
/// Requests of one burst.
const BURST: usize = 4000;
/// Bursts of each row.
const ROUNDS: usize = 12;
/// Batches of the isolated steps, per round.
const BATCHES: usize = 20;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["role", rest @ ..] = words.as_slice() {
        return run_role(rest);
    }
    let quick = words.contains(&"--quick");
    let rows = words.iter().position(|word| *word == "--rows").and_then(|at| words.get(at + 1));
    let wanted = |row: &str| rows.is_none_or(|rows| rows.split(',').any(|name| name == row));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ground = Ground::lay(envoy());
    bench(&runtime, &ground, &wanted, quick);
    if wanted("size") {
        let (rounds, burst) = if quick { (2, BURST / 4) } else { (ROUNDS, BURST) };
        scale::run(&runtime, &ground, rounds, burst);
    }
    if wanted("connections") {
        connections::measure(&runtime, &ground, quick);
    }
    if wanted("decisions") {
        approvals::time_decisions(&ground, quick);
    }
    if wanted("approvals") {
        approvals::measure_lists(&runtime, &ground, quick);
    }
    if wanted("telemetry") {
        telemetry::run(&runtime, &ground, quick);
    }
    if wanted("fleet") {
        fleet::run(&runtime, &ground, quick);
    }
    if wanted("operations") {
        operations::run_all(&ground, quick);
    }
    if wanted("pairing") {
        pairing::measure_relay(&runtime, &ground, quick);
        pairing::measure_many(&runtime, quick);
    }
}

/// The provider, the check that allows or the feed, as another process.
fn run_role(arguments: &[&str]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match arguments {
        ["provider", address] => runtime.block_on(roles::provider(address.parse().unwrap())),
        ["feed", address] => runtime.block_on(feed::serve(address.parse().unwrap())),
        ["allow", socket, authority, path] => {
            runtime.block_on(roles::allow(&PathBuf::from(socket), authority, path));
        }
        other => panic!("no such role: {other:?}"),
    }
}

/// Envoy as the product finds it.
fn envoy() -> PathBuf {
    match std::env::var_os("ENVOY_BIN") {
        Some(path) => PathBuf::from(path),
        None => support::parts::envoy_binary(),
    }
}

/// How one row's requests are made.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Get,
    Post,
    Token,
}

fn make(kind: Kind, agent: &Agent, ground: &Ground, authority: &str) -> Request {
    match kind {
        Kind::Get => agent.get(authority, TARGET),
        Kind::Post => agent.post(authority, TARGET, &[b'x'; 4096]),
        Kind::Token => {
            let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"k","typ":"JWT"}"#);
            let claims = format!(
                r#"{{"iss":"bench","sub":"alice","iat":{},"exp":{},"jti":"{}"}}"#,
                now(),
                now() + 300,
                random_hex(16)
            );
            let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
            let signature = URL_SAFE_NO_PAD.encode(ground.token_key.sign(signed.as_bytes()).to_bytes());
            Request::new("GET", authority, TARGET).header("authorization", &format!("Bearer {signed}.{signature}"))
        }
    }
}

fn bench(runtime: &tokio::runtime::Runtime, ground: &Ground, wanted: &dyn Fn(&str) -> bool, quick: bool) {
    let authority = "127.0.0.1:38000";
    let gateway = (wanted("c") || wanted("c'")).then(|| ground.gateway());
    let allowing = (wanted("b") || wanted("b'")).then(|| ground.allowing());
    let alone = wanted("a").then(|| ground.alone());
    let token = wanted("d").then(|| ground.token());
    let plan: [(&str, &str, Option<&Stack>, Kind); 6] = [
        ("a", "Envoy alone", alone.as_ref(), Kind::Get),
        ("b", "Envoy, a check that allows", allowing.as_ref(), Kind::Get),
        ("c", "the gateway", gateway.as_ref(), Kind::Get),
        ("b'", "(b) with a body of 4 KiB", allowing.as_ref(), Kind::Post),
        ("c'", "(c) with a body of 4 KiB", gateway.as_ref(), Kind::Post),
        ("d", "jwt_authn, credential_injector", token.as_ref(), Kind::Token),
    ];
    let mut rows: Vec<(Row, &Stack, Kind)> = plan
        .into_iter()
        .filter(|(name, ..)| wanted(name))
        .filter_map(|(name, what, stack, kind)| stack.map(|stack| (Row::new(name, what, stack), stack, kind)))
        .collect();

    let (rounds, burst) = if quick { (2, BURST / 4) } else { (ROUNDS, BURST) };
    let mut isolated = Vec::new();
    for (_, stack, kind) in &rows {
        stack.wait_ready(|| make(*kind, &ground.agent, ground, authority));
        let requests = (0..burst / 4).map(|_| make(*kind, &ground.agent, ground, authority).bytes()).collect();
        runtime.block_on(load::send_all(stack.address, requests, CONNECTIONS));
    }
    for round in 0..rounds {
        // (b) and (c) get the same bytes: each set is made once a round and sent to both.
        let get: Vec<Vec<u8>> = (0..burst).map(|_| make(Kind::Get, &ground.agent, ground, authority).bytes()).collect();
        let post: Vec<Vec<u8>> =
            (0..burst).map(|_| make(Kind::Post, &ground.agent, ground, authority).bytes()).collect();
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.rotate_left(round % rows.len().max(1));
        for at in order {
            let (row, stack, kind) = &mut rows[at];
            let requests = match kind {
                Kind::Get => get.clone(),
                Kind::Post => post.clone(),
                Kind::Token => {
                    (0..burst).map(|_| make(Kind::Token, &ground.agent, ground, authority).bytes()).collect()
                }
            };
            let before = Reading::take(&stack.processes);
            let sent = runtime.block_on(load::send_all(stack.address, requests, CONNECTIONS));
            row.add(sent, &Reading::take(&stack.processes).since(&before));
        }
        if wanted("e") {
            let request = make(Kind::Get, &ground.agent, ground, authority);
            isolated.push(verification::measure(&request, &ground.agent.public_key, BATCHES));
        }
    }
    let rows: Vec<Row> = rows.into_iter().map(|(row, stack, _)| row.finish(stack)).collect();
    if !rows.is_empty() || !isolated.is_empty() {
        report::print(&rows, &isolated);
    }
    drop((gateway, allowing, alone, token));
}

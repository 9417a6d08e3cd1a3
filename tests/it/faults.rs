//! The gate under faults: an authz that stands still, and one that answers nonsense. Nothing passes that would not otherwise.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::config::core::v3::HeaderValueOption;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use envoy_types::pb::envoy::service::auth::v3::DeniedHttpResponse;
use envoy_types::pb::envoy::service::auth::v3::OkHttpResponse;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::google::protobuf::Struct;
use envoy_types::pb::google::protobuf::Value;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::rpc::Status;
use prost::Message as _;
use rustix::process::Signal;
use serde_json::json;

use crate::support::agent::Agent;
use crate::support::client::Exchange;
use crate::support::client::Request;
use crate::support::client::Response;
use crate::support::client::try_send;
use crate::support::fake_authz::FakeAuthz;
use crate::support::fake_authz::Reply;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::parts;
use crate::support::process::StopAtEnd;
use crate::support::process::freeze;
use crate::support::process::signal;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// Connections that send while authz stands still.
const SENDERS: usize = 3;
/// Requests of each kind that are sent before and afterwards, at the least.
const AROUND: usize = 200;
/// The same while it stands still: each takes half a second, which is what Envoy gives authz.
const MEANWHILE: usize = 30;
/// Answers of nonsense.
const NONSENSE: usize = 1500;

/// One connection that is opened again where it breaks.
struct Line<'a> {
    gateway: &'a Gateway,
    exchange: Option<Exchange>,
}

impl<'a> Line<'a> {
    fn of(gateway: &'a Gateway) -> Self {
        Self { gateway, exchange: None }
    }

    fn send(&mut self, request: &Request) -> Response {
        let mut exchange = self.exchange.take().unwrap_or_else(|| Exchange::open(self.gateway.setup.ingress).unwrap());
        let answer = exchange.send(request).unwrap();
        // Envoy closes where it does not go on reading.
        if answer.header("connection") != Some("close") {
            self.exchange = Some(exchange);
        }
        answer
    }
}

#[test]
fn an_authz_that_stands_still_under_load_lets_nothing_through() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let stranger = Agent::new("mallory");
    let stop = AtomicBool::new(false);
    let [passed, refused, strangers] = [(); 3].map(|()| AtomicUsize::new(0));
    let odd: Mutex<Vec<String>> = Mutex::default();
    let authz = gateway.role("authz");
    thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| {
                let mut line = Line::of(&gateway);
                let mut admitted: Option<Request> = None;
                while !stop.load(Ordering::Acquire) {
                    let request = gateway.agent().get(&gateway.authority(), &connection.at("/may"));
                    let answer = line.send(&request);
                    match (answer.status, answer.code().as_str()) {
                        (200, _) => {
                            passed.fetch_add(1, Ordering::AcqRel);
                            admitted = Some(request);
                        }
                        (503, "AUTHZ_UNAVAILABLE") => _ = refused.fetch_add(1, Ordering::AcqRel),
                        other => odd.lock().unwrap().push(format!("an approved agent is answered {other:?}")),
                    }
                    if let Some(again) = &admitted {
                        let answer = line.send(again);
                        let known = matches!(
                            (answer.status, answer.code().as_str()),
                            (403, "AUTH_REPLAY_DETECTED") | (503, "AUTHZ_UNAVAILABLE")
                        );
                        if !known {
                            odd.lock().unwrap().push(format!(
                                "a replay is answered {} {}",
                                answer.status,
                                answer.code()
                            ));
                        }
                    }
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        scope.spawn(|| {
            let mut line = Line::of(&gateway);
            while !stop.load(Ordering::Acquire) {
                let target = connection.at("/must-not");
                let unsigned = Request::new("GET", &gateway.authority(), &target);
                let unapproved = stranger.get(&gateway.authority(), &target);
                let forged = gateway.agent().get(&gateway.authority(), &target);
                let forged = forged.replace("sigilum-subject", |_| "mallory".into());
                for request in [unsigned, unapproved, forged] {
                    let answer = line.send(&request);
                    strangers.fetch_add(1, Ordering::AcqRel);
                    if !matches!((answer.status, answer.code().as_str()), (401 | 403, _) | (503, "AUTHZ_UNAVAILABLE")) {
                        odd.lock().unwrap().push(format!("a stranger is answered {} {}", answer.status, answer.code()));
                    }
                }
                thread::sleep(Duration::from_millis(2));
            }
        });
        let _stop = StopAtEnd(&stop);
        let count = |of: &AtomicUsize| of.load(Ordering::Acquire);
        wait_until("requests pass", LIMIT, || count(&passed) > AROUND && count(&strangers) > AROUND);
        freeze(authz);
        wait_until("requests are refused", LIMIT, || count(&refused) > 0);
        let (before, tried) = (count(&passed), count(&strangers));
        wait_until("load goes on", LIMIT, || count(&refused) > MEANWHILE && count(&strangers) > tried + MEANWHILE);
        // At most what had been decided when it was stopped, on each connection.
        assert!(count(&passed) <= before + SENDERS, "{} passed without a decision", count(&passed) - before);
        signal(authz, Signal::CONT);
        let back = count(&passed);
        wait_until("requests pass again", LIMIT, || count(&passed) > back + AROUND);
    });
    let odd = odd.into_inner().unwrap();
    assert!(odd.is_empty(), "{odd:#?}");
    let seen = upstream.seen();
    assert!(!seen.iter().any(|request| request.target.contains("must-not")), "an unauthenticated request has arrived");
    assert_eq!(seen.len(), passed.into_inner(), "what was answered 200 arrived, and nothing else");
    assert_eq!(gateway.role("authz"), authz, "the same one goes on");
}

/// Envoy as the product runs it, with an authz of the test's, and a provider to be kept from.
struct Gate {
    gateway: Gateway,
    upstream: Upstream,
    authz: FakeAuthz,
}

impl Gate {
    fn start(script: impl FnOnce(&Upstream) -> Box<dyn Fn() -> Reply + Send + Sync>) -> Self {
        let (setup, upstream) = (Setup::new(), Upstream::start());
        setup.begin_journal();
        let script = script(&upstream);
        let authz = FakeAuthz::start(&setup.run_dir().join("authz.sock"), script);
        let envoy: Running = parts::start_envoy(&setup, &parts::Names::start());
        let gateway = Gateway::of(setup, envoy);
        wait_until("Envoy calls authz healthy", LIMIT, || gateway.healthy());
        Self { gateway, upstream, authz }
    }

    /// A signed request that also says itself where it wants to go, in every word authz would use.
    fn request(&self) -> Request {
        let target = "/proxy/conn-000/v1/ping";
        let request = self.gateway.agent().get(&self.upstream.address.to_string(), target);
        let request = request.header("x-sigilum-cluster", "upstream_http").header("x-sigilum-stage", "head");
        let request = request.header("x-envoy-original-dst-host", &self.upstream.address.to_string());
        request.header("x-forwarded-host", &self.upstream.address.to_string())
    }
}

fn set(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), value: value.to_owned(), ..HeaderValue::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    }
}

/// What authz answers where a request may pass to `upstream`.
fn genuine(upstream: &Upstream) -> CheckResponse {
    let flag = |value: bool| Value { kind: Some(Kind::BoolValue(value)) };
    let fields: HashMap<String, Value> =
        [("allow_private", true), ("allow_loopback", true)].map(|(name, value)| (name.to_owned(), flag(value))).into();
    CheckResponse {
        status: Some(Status::default()),
        dynamic_metadata: Some(Struct { fields }),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
            headers: vec![
                set(":path", "/v1/ping"),
                set(":authority", &upstream.address.to_string()),
                set("x-sigilum-cluster", "upstream_http"),
            ],
            ..OkHttpResponse::default()
        })),
    }
}

/// What it answers where a request may not.
fn denial() -> CheckResponse {
    CheckResponse {
        status: Some(Status { code: 7, ..Status::default() }),
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            body: "no".repeat(20),
            headers: vec![set("content-type", "text/plain")],
            ..DeniedHttpResponse::default()
        })),
        ..CheckResponse::default()
    }
}

/// A sequence that looks random and is the same again from the same seed (SplitMix64's steps).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    fn bytes(&mut self, bound: usize) -> Vec<u8> {
        let length = self.below(bound);
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// An answer that says nothing of where a request goes, in one of the ways an answer can be wrong.
fn nonsense(dice: &mut Dice) -> Reply {
    let grpc = || vec![("content-type", "application/grpc".to_owned())];
    match dice.below(12) {
        // Bytes in a frame, and bytes without one.
        0 => Reply::message(&dice.bytes(300)),
        1 => Reply::grpc(dice.bytes(300), "0"),
        // A refusal in which bits are turned.
        2 => {
            let mut message = denial().encode_to_vec();
            for _ in 0..=dice.below(4) {
                let at = dice.below(message.len());
                message[at] ^= 1 << dice.below(8);
            }
            Reply::message(&message)
        }
        // One that ends too early, and one that is announced longer than it is.
        3 => {
            let message = denial().encode_to_vec();
            Reply::message(&message[..dice.below(message.len())])
        }
        4 => Reply::grpc([&[0, 0, 0, 255, 255][..], &denial().encode_to_vec()].concat(), "0"),
        // Compressed, as it says.
        5 => Reply::grpc([&[1, 0, 0, 0, 8][..], &dice.next().to_le_bytes()].concat(), "0"),
        // A message without anything, no message at all, two of them: the first says that all is well.
        6 => Reply::message(&[]),
        7 => Reply::grpc(Vec::new(), "0"),
        8 => Reply::grpc([&[0; 10][..], &dice.bytes(40)].concat(), "0"),
        // A status of gRPC that says no, or that there is none of.
        9 => Reply::grpc(dice.bytes(50), &(1 + dice.below(40)).to_string()),
        // Not gRPC: another status, another type, no trailers.
        10 => {
            let status = [200, 204, 302, 404, 500, 503][dice.below(6)];
            let headers = if dice.below(2) == 0 { grpc() } else { vec![("content-type", "text/html".to_owned())] };
            Reply::Raw { status, headers, body: dice.bytes(100), trailers: None }
        }
        _ => Reply::Reset,
    }
}

#[test]
fn a_genuine_answer_of_the_scripted_authz_leads_to_the_provider() {
    let gate = Gate::start(|upstream| {
        let message = genuine(upstream).encode_to_vec();
        Box::new(move || Reply::message(&message))
    });
    let answer = gate.gateway.send(&gate.request());
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(gate.upstream.count() == 1 && gate.authz.asked() > 0);
}

#[test]
fn whatever_an_authz_answers_besides_a_decision_nothing_reaches_the_provider() {
    let seed = u64::from_str_radix(&crate::support::agent::random_hex(8), 16).unwrap();
    println!("seed {seed}");
    let gate = Gate::start(|_| {
        let dice = Mutex::new(Dice(seed));
        Box::new(move || nonsense(&mut dice.lock().unwrap()))
    });
    let mut answers = HashMap::<(u16, String), usize>::new();
    for number in 0..NONSENSE {
        match try_send(gate.gateway.setup.ingress, &gate.request()) {
            Ok(answer) => {
                // Where the answer says that all is well and nothing else, there is nowhere to go.
                let text = answer.text();
                assert!(answer.status >= 400, "seed {seed}, {number}: {} {text}", answer.status);
                *answers.entry((answer.status, answer.code())).or_default() += 1;
            }
            Err(broken) => *answers.entry((0, broken.0)).or_default() += 1,
        }
        assert!(gate.upstream.untouched(), "seed {seed}: request {number} has arrived");
    }
    println!("{answers:?}; asked {} times", gate.authz.asked());
    assert!(gate.authz.asked() >= NONSENSE / 2, "asked {} times only", gate.authz.asked());
    assert!(answers.contains_key(&(503, "AUTHZ_UNAVAILABLE".to_owned())), "{answers:?}");
    assert!(gate.gateway.running().ended().is_none(), "Envoy goes on");
}

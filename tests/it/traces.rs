//! One trace per request: from the client over Envoy and the decision to the provider.

use std::fs;
use std::net::TcpListener;

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::Value;
use serde_json::json;

use crate::support::agent::random_hex;
use crate::support::client::Request;
use crate::support::client::Response;
use crate::support::collector::Collector;
use crate::support::collector::Span;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Setup;
use crate::support::plane;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

fn traced(collector: &Collector) -> Setup {
    Setup::new().env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint())
}

/// A client's `traceparent` with its trace id and its own span id.
fn context(flags: &str) -> (String, String, String) {
    let (trace, span) = (random_hex(16), random_hex(8));
    (format!("00-{trace}-{span}-{flags}"), trace, span)
}

fn get(gateway: &Gateway, target: &str, traceparent: &str) -> Response {
    gateway.send(&gateway.agent().get(&gateway.authority(), target).header("traceparent", traceparent))
}

fn decision_id(response: &Response) -> String {
    response.header("x-sigilum-decision-id").unwrap().to_owned()
}

/// The only span of this kind made by `scope`.
fn only<'s>(spans: &'s [Span], scope: &str, kind: SpanKind) -> &'s Span {
    let found: Vec<_> = spans.iter().filter(|span| span.scope == scope && span.kind == kind).collect();
    assert_eq!(found.len(), 1, "{scope} {kind:?} in {spans:#?}");
    found[0]
}

fn child_of<'s>(spans: &'s [Span], parent: &Span) -> Vec<&'s Span> {
    spans.iter().filter(|span| span.parent == parent.id).collect()
}

#[test]
fn one_request_is_one_trace_from_the_client_to_the_provider() {
    let (collector, upstream) = (Collector::start(), Upstream::start());
    let gateway = traced(&collector).start();
    let connection = gateway.connect(&upstream, json!({ "forward_trace": true }));
    let (traceparent, trace, client) = context("01");
    let response = get(&gateway, &connection.at("/v1?page=2"), &traceparent);
    assert_eq!(response.status, 200);
    let id = decision_id(&response);
    let spans = collector.trace_of(&id, 4);
    assert!(spans.iter().all(|span| span.trace == trace && span.service == "sigilum-gateway"), "{spans:#?}");

    let server = only(&spans, "envoy", SpanKind::Server);
    assert_eq!(server.parent, client);
    assert_eq!(server.attributes["sigilum.decision_id"], id);
    assert_eq!(server.attributes["sigilum.connection"], connection.id);
    assert_eq!(server.attributes["sigilum.path"], connection.at("/v1"));
    // Envoy asks as a client of its own span, and the decision answers that.
    let decision = only(&spans, "sigilum.authz", SpanKind::Server);
    let asked = child_of(&spans, server).into_iter().find(|span| span.id == decision.parent).unwrap();
    assert_eq!(asked.kind, SpanKind::Client);
    assert_eq!(decision.attributes["sigilum.outcome"], "allow");
    assert_eq!(decision.attributes["sigilum.connection"], connection.id);
    assert!(decision.nanos > 0 && decision.nanos <= asked.nanos, "{} of {}", decision.nanos, asked.nanos);
    // The other child went to the provider, which was told of it.
    let sent = upstream.seen().last().unwrap().header("traceparent").unwrap().to_owned();
    let upstream_span =
        child_of(&spans, server).into_iter().find(|span| sent == format!("00-{trace}-{}-01", span.id)).unwrap();
    assert_eq!((upstream_span.kind, upstream_span.attributes["http.status_code"].as_str()), (SpanKind::Client, "200"));
}

#[test]
fn a_provider_is_told_of_no_trace_where_the_connection_does_not_say_so() {
    let (collector, upstream) = (Collector::start(), Upstream::start());
    let gateway = traced(&collector).start();
    let connection = gateway.connect(&upstream, json!({}));
    let (traceparent, ..) = context("01");
    let request = gateway.agent().get(&gateway.authority(), &connection.at("/v1"));
    let request = request.header("traceparent", &traceparent).header("tracestate", "a=b").header("baggage", "c=d");
    let response = gateway.send(&request);
    assert_eq!(response.status, 200);
    // It was traced all the same.
    collector.trace_of(&decision_id(&response), 4);
    let seen = upstream.only();
    for name in ["traceparent", "tracestate", "baggage"] {
        assert_eq!(seen.header(name), None, "{seen:#?}");
    }
}

#[test]
fn a_refused_request_is_traced_with_its_reason() {
    let (collector, upstream) = (Collector::start(), Upstream::start());
    let gateway = traced(&collector).start();
    let connection = gateway.connect(&upstream, json!({}));
    let request = gateway.agent().post(&gateway.authority(), &connection.at("/v1"), b"{}");
    assert_eq!(gateway.send(&request).status, 200);
    let refused = gateway.send(&request);
    assert_eq!(refused.code(), "AUTH_REPLAY_DETECTED");
    let spans = collector.trace_of(&decision_id(&refused), 3);
    // A replay is noticed before its body is read.
    let decision = only(&spans, "sigilum.authz", SpanKind::Server);
    assert_eq!(decision.attributes["sigilum.stage"], "head");
    assert_eq!(decision.attributes["sigilum.reason"], "AUTH_REPLAY_DETECTED");
    assert_eq!(only(&spans, "envoy", SpanKind::Server).attributes["sigilum.decision_id"], decision_id(&refused));
}

#[test]
fn strangers_do_not_fill_the_collector() {
    let (collector, upstream) = (Collector::start(), Upstream::start());
    let gateway = traced(&collector).start();
    let connection = gateway.connect(&upstream, json!({}));
    // One trace id for all of them is no way around.
    let (traceparent, trace, _) = context("01");
    let begun = std::time::Instant::now();
    for _ in 0..400 {
        let unsigned = Request::new("GET", &gateway.authority(), &connection.at("/v1"));
        assert!(gateway.send(&unsigned.header("traceparent", &traceparent)).status >= 400);
    }
    let (later, ..) = context("01");
    let passed = get(&gateway, &connection.at("/v1"), &later);
    // What came before is there, as far as it ever will be.
    collector.trace_of(&decision_id(&passed), 4);
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    let of = |scope: &str| collector.spans().iter().filter(|span| span.trace == trace && span.scope == scope).count();
    let (decisions, envoy) = (of("sigilum.authz"), of("envoy"));
    assert!((100..=100 + 10 * seconds).contains(&decisions), "{decisions} in {seconds} s");
    assert!(envoy <= 2 * decisions, "{envoy} of Envoy's for {decisions}");
}

#[test]
fn who_does_not_sample_is_not_traced() {
    let (collector, upstream) = (Collector::start(), Upstream::start());
    let gateway = traced(&collector).start();
    let connection = gateway.connect(&upstream, json!({}));
    let (unsampled, trace, _) = context("00");
    assert_eq!(get(&gateway, &connection.at("/v1"), &unsampled).status, 200);
    // What comes later is there, so what came before would be.
    let (sampled, ..) = context("01");
    let later = get(&gateway, &connection.at("/v1"), &sampled);
    collector.trace_of(&decision_id(&later), 4);
    assert!(collector.spans().iter().all(|span| span.trace != trace));
}

#[test]
fn with_a_ratio_of_zero_only_those_who_sample_are_traced() {
    let (collector, upstream) = (Collector::start(), Upstream::start());
    let gateway = traced(&collector).yaml("telemetry:\n  sample_ratio: 0\n  service_name: edge\n").start();
    let connection = gateway.connect(&upstream, json!({}));
    for _ in 0..5 {
        assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
    }
    let (sampled, trace, _) = context("01");
    let traced = get(&gateway, &connection.at("/v1"), &sampled);
    let spans = collector.trace_of(&decision_id(&traced), 4);
    assert!(spans.iter().all(|span| span.service == "edge"), "{spans:#?}");
    assert!(collector.spans().iter().all(|span| span.trace == trace), "{:#?}", collector.spans());
}

#[test]
fn no_span_holds_a_secret_a_query_or_a_header() {
    let (collector, upstream) = (Collector::start(), Upstream::start());
    let key = format!("canary-{}", random_hex(12));
    let gateway = traced(&collector).env("GATEWAY_OTLP_HEADERS", &format!("authorization=Bearer%20{key}")).start();
    let connection = gateway.connect(&upstream, json!({ "auth_mode": "query_param", "auth_header_name": "key" }));
    let request = gateway.agent().get(&gateway.authority(), &connection.at("/v1?page=canary-query"));
    let request = request
        .header("user-agent", "canary-agent")
        .header("tracestate", "vendor=canary-state")
        .header("baggage", "user=canary-baggage")
        .header("x-request-id", "canary-id");
    let response = gateway.send(&request);
    assert_eq!(response.status, 200);
    assert!(upstream.only().target.contains(&connection.secret));
    collector.trace_of(&decision_id(&response), 4);
    let raw = collector.raw();
    for secret in [connection.secret.as_str(), "canary-", gateway.agent().certificate.as_str()] {
        assert!(!raw.contains(secret), "{secret} in {raw}");
    }
    // The collector's own key went to the collector, and Envoy never had it.
    assert_eq!(collector.authorizations().pop().unwrap(), format!("Bearer {key}"));
    let run = gateway.setup.run_dir();
    let files = fs::read_dir(&run).unwrap().flatten().filter(|entry| entry.file_type().unwrap().is_file());
    for file in files {
        let content = fs::read(file.path()).unwrap();
        assert!(!String::from_utf8_lossy(&content).contains(&key), "{}", file.path().display());
    }
    for role in ["admin", "authz", "envoy"] {
        let pid = gateway.role(role);
        assert!(!String::from_utf8_lossy(&crate::support::process::environment(pid)).contains(&key), "{role}");
    }
    assert!(!gateway.logs().contains(&key));
}

#[test]
fn a_collector_that_is_away_costs_nobody_anything() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let upstream = Upstream::start();
    let gateway = Setup::new().env("GATEWAY_OTLP_ENDPOINT", &format!("http://{closed}")).start();
    let connection = gateway.connect(&upstream, json!({}));
    for _ in 0..20 {
        assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
    }
    wait_until("the spans are counted as failed", LIMIT, || {
        plane::metric(&gateway, "trace_spans_total{result=\"failed\"}").is_some_and(|count| count >= 1.0)
    });
    assert_eq!(plane::metric(&gateway, "trace_spans_total{result=\"exported\"}"), Some(0.0));
}

#[test]
fn a_decision_is_found_by_its_id_everywhere() {
    let (collector, upstream) = (Collector::start(), Upstream::start());
    let gateway = traced(&collector).start();
    let connection = gateway.connect(&upstream, json!({}));
    let allowed = gateway.get(&connection.at("/v1"));
    let refused = gateway.get(&format!("/proxy/{}/../v1", connection.id));
    assert_eq!((allowed.status, refused.status), (200, 400));
    let (yes, no) = (decision_id(&allowed), decision_id(&refused));
    assert_ne!(yes, no);
    let lines = |file: &str, id: &str| -> Vec<Value> {
        let folder = if file == "access.log" { gateway.setup.run_dir() } else { gateway.setup.data().join("logs") };
        let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
        let parsed = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.filter(|line| line["decision_id"] == id).collect()
    };
    for (id, status, decision) in [(&yes, json!(200), "allow"), (&no, json!(400), "deny")] {
        wait_until("access log and decision log have it", LIMIT, || {
            !lines("access.log", id).is_empty() && !lines("decision.jsonl", id).is_empty()
        });
        assert_eq!(lines("access.log", id)[0]["status"], status);
        assert_eq!(lines("decision.jsonl", id)[0]["decision"], decision);
        let server =
            collector.trace_of(id, 3).into_iter().find(|span| span.scope == "envoy" && span.kind == SpanKind::Server);
        assert_eq!(server.unwrap().attributes["sigilum.decision_id"], *id);
    }
}

#[test]
fn an_answer_of_envoys_own_after_a_decision_names_it_too() {
    let (collector, upstream) = (Collector::start(), Upstream::start());
    let gateway = traced(&collector).start();
    let connection = gateway.connect(&upstream, json!({}));
    let address = upstream.address;
    drop(upstream);
    wait_until("the port is closed", LIMIT, || std::net::TcpStream::connect(address).is_err());
    let response = gateway.get(&connection.at("/v1"));
    assert_eq!(response.code(), "UPSTREAM_ERROR");
    collector.trace_of(&decision_id(&response), 4);
}

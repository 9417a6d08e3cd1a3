#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

use proptest::prelude::*;
use prost::Message as _;

use super::*;

fn span(kind: SpanKind, attributes: Vec<KeyValue>) -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        parent_span_id: vec![3; 8],
        name: "ingress".to_owned(),
        kind: kind.into(),
        attributes,
        ..Span::default()
    }
}

fn told(span: Span) -> Vec<Span> {
    let scope = ScopeSpans { spans: vec![span], ..ScopeSpans::default() };
    let resource = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
    of_envoy(ExportTraceServiceRequest { resource_spans: vec![resource] }, |_| true)
}

#[test]
fn what_is_not_listed_is_not_told() {
    let mut secret = span(
        SpanKind::Server,
        vec![
            attribute(DECISION_ID, "d"),
            attribute("user_agent", "canary"),
            attribute("http.url", "http://h/?key=canary"),
            attribute("peer.address", "canary"),
            attribute("http.status_code", "200"),
        ],
    );
    secret.trace_state = "vendor=canary".to_owned();
    secret.status = Some(Status { code: 2, message: "canary".to_owned() });
    secret.events =
        vec![opentelemetry_proto::tonic::trace::v1::span::Event { name: "canary".to_owned(), ..Default::default() }];
    let told = told(secret);
    assert!(!format!("{told:?}").contains("canary"), "{told:?}");
    let keys: Vec<_> = told[0].attributes.iter().map(|attribute| attribute.key.as_str()).collect();
    assert_eq!(keys, [DECISION_ID, "http.status_code"]);
    assert_eq!(told[0].status.as_ref().unwrap().code, 2);
}

#[test]
fn a_request_without_a_decision_is_not_told() {
    assert_eq!(told(span(SpanKind::Server, Vec::new())), Vec::new());
    // Its children are: they do not know of it.
    assert_eq!(told(span(SpanKind::Client, Vec::new())).len(), 1);
}

#[test]
fn ids_that_are_none_are_not_told() {
    let good = || span(SpanKind::Client, Vec::new());
    for bad in [
        Span { trace_id: vec![1; 15], ..good() },
        Span { trace_id: vec![0; 16], ..good() },
        Span { span_id: Vec::new(), ..good() },
    ] {
        assert_eq!(told(bad), Vec::new());
    }
    assert_eq!(told(Span { parent_span_id: vec![1; 9], ..good() })[0].parent_span_id, Vec::<u8>::new());
}

#[test]
fn a_decision_is_a_child_of_who_asked() {
    let context = TraceContext { trace_id: [7; 16], parent: [8; 8], sampled: true };
    let decision = DecisionSpan {
        context,
        span_id: [9; 8],
        stage: "body",
        began: 1,
        ended: 2,
        decision_id: "d",
        connection: Some("linear"),
        reason: Some("AUTH_REPLAY_DETECTED"),
    };
    let span = decision.encode();
    assert_eq!((span.trace_id, span.parent_span_id, span.span_id), (vec![7; 16], vec![8; 8], vec![9; 8]));
    let told: Vec<_> = span.attributes.iter().map(|one| (one.key.as_str(), one.value.clone().unwrap())).collect();
    assert!(told.contains(&("sigilum.outcome", attribute("", "deny").value.unwrap())), "{told:?}");
    assert!(told.contains(&("sigilum.reason", attribute("", "AUTH_REPLAY_DETECTED").value.unwrap())), "{told:?}");
}

#[test]
fn spans_stand_under_who_made_them() {
    let spans =
        vec![(Origin::Authz, span(SpanKind::Server, Vec::new())), (Origin::Envoy, span(SpanKind::Client, Vec::new()))];
    let request = request("edge", "1.2.3", spans);
    let [resource] = request.resource_spans.as_slice() else { unreachable!("one resource") };
    assert_eq!(resource.resource.as_ref().unwrap().attributes[0], attribute("service.name", "edge"));
    let scopes: Vec<_> = resource
        .scope_spans
        .iter()
        .map(|scope| (scope.scope.as_ref().unwrap().name.as_str(), scope.spans.len()))
        .collect();
    assert_eq!(scopes, [("envoy", 1), ("sigilum.authz", 1)]);
}

#[test]
fn what_a_span_is_about_says_whether_it_is_wanted() {
    let request = span(SpanKind::Server, vec![attribute(DECISION_ID, "one")]);
    assert_eq!(about(&request), About::Request("one"));
    let mut check = span(SpanKind::Client, Vec::new());
    "async envoy.service.auth.v3.Authorization.Check egress".clone_into(&mut check.name);
    assert_eq!(about(&check), About::Check([2; 8]));
    assert_eq!(about(&span(SpanKind::Client, Vec::new())), About::Try);
    let scope = ScopeSpans { spans: vec![request, check], ..ScopeSpans::default() };
    let resource = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
    let all = ExportTraceServiceRequest { resource_spans: vec![resource] };
    assert_eq!(of_envoy(all, |about| matches!(about, About::Request(_))).len(), 1);
}

proptest! {
    #[test]
    fn whatever_envoy_says_is_listed_and_short(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let Ok(request) = ExportTraceServiceRequest::decode(bytes.as_slice()) else { return Ok(()) };
        for span in of_envoy(request, |_| true) {
            prop_assert!(span.name.len() <= MAX_NAME && span.trace_id.len() == 16 && span.span_id.len() == 8);
            prop_assert!(span.attributes.iter().all(|one| PASSED.contains(&one.key.as_str())));
        }
    }

    #[test]
    fn long_values_are_cut(text in "[a-zü]{0,2000}", name in "\\PC{0,300}") {
        let mut long = span(SpanKind::Client, vec![attribute("sigilum.path", &text)]);
        long.name = name;
        let told = told(long);
        prop_assert!(told[0].name.len() <= MAX_NAME && told[0].encoded_len() < MAX_VALUE + MAX_NAME + 100);
    }
}

//! Spans of traces on their way to a collector (OTLP): the decision's own, and Envoy's as far as they may be told.
//!
//! Envoy's spans are made of requests: their attributes hold header values, and a path that was sent to a provider may
//! hold a key. So nothing of them is passed on that is not listed here, and no value that is longer than it should be.

pub use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
pub use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
pub use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
pub use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceService;
pub use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceServiceServer;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use opentelemetry_proto::tonic::trace::v1::ScopeSpans;
pub use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::Status;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::domain::trace::TraceContext;

/// gRPC metadata in which the context of a request comes (W3C Trace Context).
pub const CONTEXT_METADATA: &str = "traceparent";
/// Attribute that ties a span to answer, log and usage.
const DECISION_ID: &str = "sigilum.decision_id";
/// What Envoy calls the spans of its questions to authz, in part.
const CHECK: &str = "envoy.service.auth.v3.Authorization";
/// Attributes of Envoy's spans that are passed on: none of them holds a header, a query or an address of a client.
const PASSED: [&str; 13] = [
    DECISION_ID,
    "sigilum.connection",
    "sigilum.path",
    "component",
    "error",
    "guid:x-request-id",
    "http.protocol",
    "http.status_code",
    "grpc.status_code",
    "request_size",
    "response_flags",
    "response_size",
    "upstream_cluster.name",
];
/// Longest value, in bytes; a path is cut to it before it gets here.
const MAX_VALUE: usize = 1024;
/// Longest name of a span, in bytes.
const MAX_NAME: usize = 128;
/// In the flags of a span: its parent is known to be, or not to be, of another process. It is not known here.
const FLAG_SAMPLED: u32 = 1;

/// Who made a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The proxy.
    Envoy,
    /// The decision.
    Authz,
}

/// A decision, as its span tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecisionSpan<'a> {
    /// The context it came with.
    pub context: TraceContext,
    /// Its own id; not all zero.
    pub span_id: [u8; 8],
    /// `head` or `body`.
    pub stage: &'a str,
    /// Nanoseconds since 1970.
    pub began: u64,
    /// Nanoseconds since 1970.
    pub ended: u64,
    /// Ties it to answer, log and usage.
    pub decision_id: &'a str,
    /// Connection id, where it is known.
    pub connection: Option<&'a str>,
    /// Why it was refused; `None`: it was not.
    pub reason: Option<&'a str>,
}

impl DecisionSpan<'_> {
    /// The span.
    pub fn encode(&self) -> Span {
        let outcome = if self.reason.is_some() { "deny" } else { "allow" };
        let mut attributes = vec![
            attribute(DECISION_ID, self.decision_id),
            attribute("sigilum.stage", self.stage),
            attribute("sigilum.outcome", outcome),
        ];
        attributes.extend(self.connection.map(|connection| attribute("sigilum.connection", connection)));
        attributes.extend(self.reason.map(|reason| attribute("sigilum.reason", reason)));
        Span {
            trace_id: self.context.trace_id.to_vec(),
            span_id: self.span_id.to_vec(),
            parent_span_id: self.context.parent.to_vec(),
            flags: FLAG_SAMPLED,
            name: format!("decision {}", self.stage),
            kind: SpanKind::Server.into(),
            start_time_unix_nano: self.began,
            end_time_unix_nano: self.ended,
            attributes,
            ..Span::default()
        }
    }
}

/// What a span of Envoy's is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About<'a> {
    /// A request of an agent, by the id of its decision.
    Request(&'a str),
    /// A question to authz, by the span's own id.
    Check([u8; 8]),
    /// A try at a provider: nothing that was refused gets so far.
    Try,
}

/// The spans Envoy wants to tell, as far as they may be told and `wanted` says so. Requests no decision was made of, health
/// checks for instance, are left out.
pub fn of_envoy(request: ExportTraceServiceRequest, wanted: impl Fn(About<'_>) -> bool) -> Vec<Span> {
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).filter(|span| wanted(about(span))).filter_map(pass).collect()
}

fn about(span: &Span) -> About<'_> {
    if span.kind == i32::from(SpanKind::Server) {
        let decision = span.attributes.iter().find(|attribute| attribute.key == DECISION_ID);
        let id = decision.and_then(|found| match found.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => Some(text.as_str()),
            Value::BoolValue(_)
            | Value::IntValue(_)
            | Value::DoubleValue(_)
            | Value::ArrayValue(_)
            | Value::KvlistValue(_)
            | Value::BytesValue(_)
            | Value::StringValueStrindex(_) => None,
        });
        return About::Request(id.unwrap_or_default());
    }
    if span.name.contains(CHECK) {
        return About::Check(span.span_id.as_slice().try_into().unwrap_or_default());
    }
    About::Try
}

fn pass(span: Span) -> Option<Span> {
    let is_id = |id: &[u8], length| id.len() == length && id.iter().any(|byte| *byte != 0);
    if !is_id(&span.trace_id, 16) || !is_id(&span.span_id, 8) {
        return None;
    }
    let listed = span.attributes.into_iter().filter(|attribute| PASSED.contains(&attribute.key.as_str()));
    let attributes: Vec<_> = listed.filter_map(shorten).collect();
    let decided = attributes.iter().any(|attribute| attribute.key == DECISION_ID);
    if span.kind == i32::from(SpanKind::Server) && !decided {
        return None;
    }
    Some(Span {
        trace_id: span.trace_id,
        span_id: span.span_id,
        parent_span_id: if is_id(&span.parent_span_id, 8) { span.parent_span_id } else { Vec::new() },
        flags: span.flags,
        name: cut(span.name, MAX_NAME),
        kind: span.kind,
        start_time_unix_nano: span.start_time_unix_nano,
        end_time_unix_nano: span.end_time_unix_nano,
        attributes,
        // The code alone: its text may be anything.
        status: span.status.map(|status| Status { code: status.code, message: String::new() }),
        // What the client sent along, events and links.
        ..Span::default()
    })
}

/// A text, number or truth value, cut; nothing else.
fn shorten(attribute: KeyValue) -> Option<KeyValue> {
    let value = match attribute.value?.value? {
        Value::StringValue(text) => Value::StringValue(cut(text, MAX_VALUE)),
        plain @ (Value::BoolValue(_) | Value::IntValue(_) | Value::DoubleValue(_)) => plain,
        Value::ArrayValue(_) | Value::KvlistValue(_) | Value::BytesValue(_) | Value::StringValueStrindex(_) => {
            return None;
        }
    };
    Some(KeyValue { key: attribute.key, value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() })
}

/// What a collector is sent.
pub fn request(service_name: &str, version: &str, spans: Vec<(Origin, Span)>) -> ExportTraceServiceRequest {
    let (envoy, authz): (Vec<_>, Vec<_>) = spans.into_iter().partition(|(origin, _)| *origin == Origin::Envoy);
    let scope = |name: &str, spans: Vec<(Origin, Span)>| ScopeSpans {
        scope: Some(InstrumentationScope { name: name.to_owned(), ..InstrumentationScope::default() }),
        spans: spans.into_iter().map(|(_, span)| span).collect(),
        ..ScopeSpans::default()
    };
    let mut scopes = vec![scope("envoy", envoy), scope("sigilum.authz", authz)];
    scopes.retain(|scope| !scope.spans.is_empty());
    let attributes = vec![attribute("service.name", service_name), attribute("service.version", version)];
    let resource = Some(Resource { attributes, ..Resource::default() });
    let all = ResourceSpans { resource, scope_spans: scopes, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![all] }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// At most `limit` bytes, cut between two characters.
fn cut(mut text: String, limit: usize) -> String {
    text.truncate(text.floor_char_boundary(limit));
    text
}

#[cfg(test)]
#[path = "otlp_tests.rs"]
mod tests;

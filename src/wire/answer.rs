//! What Envoy is told: a plan, a refusal or "go on", as an ext_authz v3 `CheckResponse`.
//!
//! An answer that allows holds the credential; it goes to Envoy and nowhere else.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::config::core::v3::HeaderValueOption;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
pub use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use envoy_types::pb::envoy::service::auth::v3::DeniedHttpResponse;
use envoy_types::pb::envoy::service::auth::v3::OkHttpResponse;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::Struct;
use envoy_types::pb::google::protobuf::Value;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::rpc::Status;

use crate::domain::connection::Connection;
use crate::domain::connection::Credential;
use crate::domain::connection::Upstream;
use crate::domain::decision::Caller;
use crate::domain::decision::Denial;
use crate::domain::decision::DenyReason;
use crate::domain::decision::Plan;
use crate::domain::registration::Registering;
use crate::domain::request::HeaderSize;
use crate::domain::request::RequestView as _;
use crate::domain::request::read_as;
use crate::domain::time::UnixMillis;
use crate::wire::envelope;
use crate::wire::envelope::Envelope;
use crate::wire::envoy::Check;
use crate::wire::markdown;
use crate::wire::markdown::ClaimRequired;

/// `google.rpc.Code`: let the request go on.
const OK: i32 = 0;
/// `google.rpc.Code`: answer it with what is given.
const PERMISSION_DENIED: i32 = 7;
/// Longest path, namespace or subject in the metadata, in bytes: Envoy's log line repeats them.
const MAX_TEXT: usize = 1024;

/// How long Envoy waits for the provider's response headers, in milliseconds.
const TRY_TIMEOUT: &str = "x-envoy-upstream-rq-per-try-timeout-ms";
/// How long a whole stream may take, in milliseconds.
const STREAM_DURATION: &str = "x-envoy-upstream-stream-duration-ms";
/// How often Envoy tries again, whatever its route says.
const MAX_RETRIES: &str = "x-envoy-max-retries";
/// Digits of the longest of both times: a week.
const MAX_DIGITS: usize = 9;

/// Headers of the proof and of the trust between agent and gateway, besides those with our prefixes.
const PROOF: [&str; 3] = ["signature", "signature-input", "content-digest"];
/// Prefixes of headers that are between agent and gateway.
const OURS: [&str; 2] = ["sigilum-", "x-sigilum-"];
/// What an agent may send its gateway and must not send through it: credentials of its own, and what
/// describes or steers the hop between the two (RFC 9110 section 7.6.1, RFC 7239).
const PRIVATE: [&str; 10] = [
    "authorization",
    "cookie",
    "cookie2",
    "proxy-authorization",
    "proxy-connection",
    "keep-alive",
    "forwarded",
    "via",
    "te",
    "connection",
];
/// Ask frameworks behind a provider's front to take the request for another path or host than was signed and
/// judged. Proxies in front of us may add them, so they are removed and not refused.
const OVERRIDES: [&str; 6] =
    ["x-original-url", "x-original-uri", "x-rewrite-url", "x-original-host", "x-host", "x-http-host-override"];
/// What our own Envoy takes from agents or removes before a provider, and somebody else's may let through: an agent that counts as
/// internal there steers retries and hedging with such fields, and one signed request becomes several.
const BETWEEN_PROXIES: [&str; 2] = ["x-envoy-", "x-forwarded-"];
/// Fields of the same kind without a common prefix.
const CLIENT: [&str; 4] = ["x-real-ip", "x-client-ip", "x-client-cert", "x-ssl-client-cert"];
/// Stays: the router of Envoy refuses a request without it.
const SCHEME: &str = "x-forwarded-proto";
/// Trace context, which tells a provider who else was called.
const TRACE: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// What every answer says about its request.
#[derive(Debug, Clone, Copy)]
pub struct Answering<'a> {
    /// The request, where it could be read.
    pub check: Option<&'a Check<'a>>,
    /// Unique; ties answer, log and usage together.
    pub decision_id: &'a str,
    /// Timestamp of an error body.
    pub at: UnixMillis,
}

/// Head stage: nothing against it so far.
pub fn proceed() -> CheckResponse {
    CheckResponse {
        status: Some(Status { code: OK, ..Status::default() }),
        dynamic_metadata: None,
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse::default())),
    }
}

/// Whether Envoy can write this plan into the request. It counts what is replaced and removed as well: Envoy need not do
/// either first. Judged before a nonce is used: whoever is refused by Envoy afterwards has lost it.
pub fn fits(check: &Check<'_>, plan: &Plan) -> bool {
    check.held().and(added(check, plan)).is_within(check.most())
}

/// What [`Answering::allow`] sets.
fn added(check: &Check<'_>, plan: &Plan) -> HeaderSize {
    let settings = &plan.connection.settings;
    let guest = check.assigned_connection().is_some();
    let mut size = HeaderSize::default();
    if !guest || matches!(plan.connection.credential, Ok(Credential::Query { .. })) {
        size = size.with(":path", plan.path.len());
    }
    if guest {
        size = size.with(MAX_RETRIES, 1);
    } else {
        size = size
            .with(":authority", settings.upstream.authority.len())
            .with("x-sigilum-cluster", cluster(&settings.upstream).len())
            .with(TRY_TIMEOUT, MAX_DIGITS)
            .with(STREAM_DURATION, MAX_DIGITS);
    }
    for (name, value) in &settings.extra_headers {
        size = size.with(name, value.len());
    }
    match &plan.connection.credential {
        Ok(Credential::Header { name, value }) => size.with(name.as_str(), value.expose().len()),
        Ok(Credential::Query { .. }) | Err(_) => size,
    }
}

/// The connection an answer that allows is about.
pub fn connection(response: &CheckResponse) -> Option<&str> {
    match response.dynamic_metadata.as_ref()?.fields.get("connection")?.kind.as_ref()? {
        Kind::StringValue(connection) => Some(connection),
        Kind::NullValue(_) | Kind::NumberValue(_) | Kind::BoolValue(_) | Kind::StructValue(_) | Kind::ListValue(_) => {
            None
        }
    }
}

impl Answering<'_> {
    /// The plan, as changes Envoy makes to the request.
    ///
    /// # Errors
    /// Where the plan cannot be written into a request; then nothing must be allowed.
    pub fn allow(&self, plan: &Plan) -> Result<CheckResponse, DenyReason> {
        let check = self.check.ok_or(DenyReason::Unavailable)?;
        let connection = &*plan.connection;
        let set = self.headers(check, plan)?;
        let ok = OkHttpResponse {
            headers_to_remove: removals(check, connection, &set),
            headers: set,
            response_headers_to_add: self.response_headers(plan),
            ..OkHttpResponse::default()
        };
        Ok(CheckResponse {
            status: Some(Status { code: OK, ..Status::default() }),
            dynamic_metadata: Some(self.plan_metadata(plan)),
            http_response: Some(HttpResponse::OkResponse(ok)),
        })
    }

    /// A refusal, with the body and headers of its code. `registering` is told where an approval is missing.
    pub fn deny(&self, denial: &Denial, registering: Registering<'_>) -> CheckResponse {
        let (code, status) = denial.reason.wire();
        let request_id = self.request_id();
        let (content_type, body) = match (denial.reason, &denial.caller) {
            (DenyReason::ClaimRequired, Some(_)) => (markdown::CONTENT_TYPE, self.claim_required(denial, registering)),
            (reason, _) => {
                let envelope = Envelope { code, status, message: reason.message() };
                (envelope::CONTENT_TYPE, envelope.json(request_id, self.at))
            }
        };
        let mut headers = Vec::with_capacity(6);
        headers.push(set("content-type", content_type));
        if !code.is_empty() {
            headers.push(set("x-sigilum-code", code));
        }
        headers.push(set("cache-control", "no-store"));
        headers.push(set("x-sigilum-decision-id", self.decision_id));
        if !request_id.is_empty() {
            headers.push(set("x-request-id", request_id));
        }
        if let Some(seconds) = denial.reason.retry_after() {
            headers.push(set("retry-after", seconds.to_string()));
        }
        let mut fields = self.fields();
        fields.insert("reason".to_owned(), text(denial.reason.label()));
        if let Some(connection) = &denial.connection {
            fields.insert("connection".to_owned(), text(connection.as_str()));
        }
        if let Some(caller) = &denial.caller {
            identify(&mut fields, caller);
        }
        CheckResponse {
            status: Some(Status { code: PERMISSION_DENIED, ..Status::default() }),
            dynamic_metadata: Some(Struct { fields }),
            http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
                status: Some(HttpStatus { code: i32::from(status) }),
                headers,
                body,
            })),
        }
    }

    fn claim_required(&self, denial: &Denial, registering: Registering<'_>) -> String {
        let key = denial.caller.as_ref().map(|caller| caller.key.text()).unwrap_or_default();
        let address = self.check.and_then(|check| check.client_address()).map(|address| address.to_string());
        ClaimRequired {
            namespace: denial.caller.as_ref().map_or("", |caller| caller.namespace.as_str()),
            subject: denial.caller.as_ref().map_or("", |caller| &caller.subject),
            service: denial.connection.as_ref().map_or("", |connection| connection.as_str()),
            agent_key: &key,
            remote_address: address.as_deref().unwrap_or_default(),
            registering,
        }
        .markdown()
    }

    fn request_id(&self) -> &str {
        self.check.map_or("", Check::request_id)
    }

    fn headers(&self, check: &Check<'_>, plan: &Plan) -> Result<Vec<HeaderValueOption>, DenyReason> {
        let settings = &plan.connection.settings;
        let credential = plan.connection.credential.as_ref().map_err(|_| DenyReason::ConnectionUnusable)?;
        let mut out = Vec::with_capacity(settings.extra_headers.len().saturating_add(6));
        // Somebody else's Envoy routes by its own configuration; only the credential is ours to add.
        let guest = check.assigned_connection().is_some();
        if !guest || matches!(credential, Credential::Query { .. }) {
            let path = std::str::from_utf8(&plan.path).map_err(|_| DenyReason::PathInvalid)?;
            out.push(set(":path", path));
        }
        if !guest {
            out.push(set(":authority", settings.upstream.authority.as_str()));
            out.push(set("x-sigilum-cluster", cluster(&settings.upstream)));
            let response = settings.response_timeout.as_millis();
            out.push(set(TRY_TIMEOUT, response.to_string()));
            let stream = settings.max_stream.as_millis();
            out.push(set(STREAM_DURATION, stream.to_string()));
        } else {
            // Whatever its route says: the nonce was used once, so the request is sent once.
            out.push(set(MAX_RETRIES, "0"));
        }
        for (name, value) in &settings.extra_headers {
            out.push(set(name.as_str(), value.as_str()));
        }
        // Last, so that no extra header takes its place.
        if let Credential::Header { name, value } = credential {
            out.push(set(name.as_str(), value.expose()));
        }
        Ok(out)
    }

    fn response_headers(&self, plan: &Plan) -> Vec<HeaderValueOption> {
        let mut out = vec![set("x-sigilum-decision-id", self.decision_id)];
        if !self.request_id().is_empty() {
            out.push(set("x-request-id", self.request_id()));
        }
        if let Some(due) = plan.rotation_overdue {
            let id = &plan.connection.settings.id;
            let warning = format!("the credential of connection {id} was due for rotation at {}", due.rfc3339());
            out.push(set("x-sigilum-rotation-warning", warning));
        }
        out
    }

    /// What Envoy's log says of every decision.
    fn fields(&self) -> HashMap<String, Value> {
        let mut fields = HashMap::with_capacity(16);
        fields.insert("decision_id".to_owned(), text(self.decision_id));
        if let Some(check) = self.check {
            fields.insert("path".to_owned(), text(cut(&String::from_utf8_lossy(check.path()))));
        }
        fields
    }

    fn plan_metadata(&self, plan: &Plan) -> Struct {
        let settings = &plan.connection.settings;
        let mut fields = self.fields();
        fields.insert("connection".to_owned(), text(settings.id.as_str()));
        identify(&mut fields, &plan.caller);
        for (name, value) in [
            ("allow_private", plan.allow_private),
            ("allow_loopback", plan.allow_loopback),
            ("allow_set_cookie", settings.allow_set_cookie),
            ("forward_trace", settings.forward_trace),
        ] {
            fields.insert(name.to_owned(), Value { kind: Some(Kind::BoolValue(value)) });
        }
        if let Ok(Credential::Query { name, .. }) = &plan.connection.credential {
            fields.insert("query_param".to_owned(), text(name));
        }
        Struct { fields }
    }
}

/// Which of Envoy's clusters for providers reaches this one (`envoy/envoy.yaml`): TLS to anything, or in
/// clear to an address, or in clear to a name.
fn cluster(upstream: &Upstream) -> &'static str {
    if upstream.tls {
        "upstream_https"
    } else if upstream.host().parse::<IpAddr>().is_ok() {
        "upstream_http"
    } else {
        "upstream_names"
    }
}

fn identify(fields: &mut HashMap<String, Value>, caller: &Caller) {
    fields.insert("namespace".to_owned(), text(caller.namespace.as_str()));
    fields.insert("subject".to_owned(), text(cut(&caller.subject)));
    fields.insert("agent_key".to_owned(), text(&caller.key.fingerprint()));
    fields.insert("public_key".to_owned(), text(&caller.key.text()));
    if let Some(agent_id) = &caller.agent_id {
        fields.insert("agent_id".to_owned(), text(cut(agent_id)));
    }
}

/// The fields that must not reach the provider. What is set is never removed: Envoy removes last.
fn removals(check: &Check<'_>, connection: &Connection, set: &[HeaderValueOption]) -> Vec<String> {
    let is_set = |name: &str| set.iter().any(|option| option.header.as_ref().is_some_and(|header| header.key == name));
    let guest = check.assigned_connection().is_some();
    let mut upgrade = false;
    let mut out: Vec<String> = Vec::with_capacity(12);
    for (name, _) in check.fields() {
        upgrade |= name == "upgrade";
        let taken_for = if guest { read_as(name) } else { Cow::Borrowed(name) };
        let between = || {
            BETWEEN_PROXIES.iter().any(|prefix| taken_for.starts_with(prefix)) && taken_for != SCHEME
                || CLIENT.contains(&&*taken_for)
                // One that only looks like the scheme is the agent's.
                || taken_for == SCHEME && name != SCHEME
                // And so is one that only looks like what is injected.
                || name.contains('_') && is_set(&taken_for)
        };
        let private = PROOF.contains(&&*taken_for)
            || OURS.iter().any(|prefix| taken_for.starts_with(prefix))
            || PRIVATE.contains(&&*taken_for)
            || OVERRIDES.contains(&&*taken_for)
            || TRACE.contains(&&*taken_for) && !connection.settings.forward_trace
            || guest && between();
        if private && !is_set(name) && !out.iter().any(|listed| listed == name) {
            out.push(name.to_owned());
        }
    }
    if upgrade {
        // Envoy needs it to upgrade; the policy has allowed the upgrade.
        out.retain(|name| name != "connection");
    }
    out
}

/// A header that replaces all of its name.
fn set(name: impl Into<String>, value: impl Into<String>) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.into(), value: value.into(), raw_value: Vec::new() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    }
}

fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.to_owned())) }
}

/// At most [`MAX_TEXT`] bytes, cut between two characters.
fn cut(value: &str) -> &str {
    let end = (0..=MAX_TEXT).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
    if value.len() <= MAX_TEXT { value } else { value.get(..end).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn the_cluster_follows_scheme_and_form_of_the_host() {
        for (url, wanted) in [
            ("https://api.example.com", "upstream_https"),
            ("https://192.0.2.1:8443", "upstream_https"),
            ("http://192.0.2.1:8080", "upstream_http"),
            ("http://[2001:db8::1]:8080", "upstream_http"),
            ("http://api.example.com", "upstream_names"),
            ("http://localhost:11100", "upstream_names"),
        ] {
            assert_eq!(cluster(&Upstream::parse(url).unwrap()), wanted, "{url}");
        }
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "ü".repeat(MAX_TEXT);
        assert_eq!(cut(&long).len(), MAX_TEXT);
        assert_eq!(cut(&format!("a{long}")).len(), MAX_TEXT - 1);
    }
}

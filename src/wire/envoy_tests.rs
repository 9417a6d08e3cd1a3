use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Address as AddressMessage;
use envoy_types::pb::envoy::config::core::v3::HeaderMap;
use envoy_types::pb::envoy::config::core::v3::SocketAddress;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::Peer;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::Request;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::google::protobuf::value::Kind;
use proptest::prelude::*;

use super::*;
use crate::domain::connection::Connection;
use crate::domain::decision::Caller;
use crate::domain::decision::Denial;
use crate::domain::decision::DenyReason;
use crate::domain::decision::Plan;
use crate::domain::decision::SignatureFault;
use crate::domain::ids::ConnectionId;
use crate::domain::ids::Namespace;
use crate::domain::ids::PublicKey;
use crate::domain::registration::Registering;
use crate::domain::registration::Registration;
use crate::domain::time::UnixMillis;
use crate::domain::time::UnixSeconds;
use crate::wire::answer;
use crate::wire::answer::Answering;
use crate::wire::answer::CheckResponse;
use crate::wire::state;
use crate::wire::state::proto;

fn header(name: &str, value: &str) -> HeaderValue {
    HeaderValue { key: name.to_owned(), value: String::new(), raw_value: value.as_bytes().to_vec() }
}

fn request(headers: &[(&str, &str)], body: &[u8]) -> CheckRequest {
    let mut all = vec![
        header(":authority", "127.0.0.1:38000"),
        header(":path", "/proxy/svc-one/a%2Fb?token=agents-own"),
        header(":method", "POST"),
        header(":scheme", "https"),
        header("x-forwarded-proto", "http"),
        header("x-request-id", "req-1"),
    ];
    all.extend(headers.iter().map(|(name, value)| header(name, value)));
    let http = HttpRequest {
        method: "POST".to_owned(),
        path: "/sanitised".to_owned(),
        host: "sanitised".to_owned(),
        protocol: "HTTP/1.1".to_owned(),
        raw_body: body.to_vec(),
        header_map: Some(HeaderMap { headers: all }),
        ..HttpRequest::default()
    };
    let socket = SocketAddress { address: "192.0.2.7".to_owned(), ..SocketAddress::default() };
    let address = AddressMessage { address: Some(Address::SocketAddress(socket)) };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer { address: Some(address), ..Peer::default() }),
            request: Some(Request { time: None, http: Some(http) }),
            ..AttributeContext::default()
        }),
    }
}

fn http(request: &mut CheckRequest) -> &mut HttpRequest {
    request.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap()
}

fn guest(request: &mut CheckRequest, extensions: &[(&str, &str)]) {
    let pairs = extensions.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    request.attributes.as_mut().unwrap().context_extensions = pairs.collect();
}

#[test]
fn the_request_is_the_one_on_the_wire() {
    let mut message = request(&[("a", "1"), ("a", "2"), ("content-length", "4")], b"ping");
    let check = Check::read(&message).unwrap();
    assert_eq!((check.method(), check.scheme()), (&b"POST"[..], &b"http"[..]));
    assert_eq!(
        (check.authority(), check.target()),
        (&b"127.0.0.1:38000"[..], &b"/proxy/svc-one/a%2Fb?token=agents-own"[..])
    );
    assert_eq!(check.path(), b"/proxy/svc-one/a%2Fb");
    assert_eq!(check.body(), BodyView::Whole(b"ping"));
    assert_eq!(check.client_address(), Some("192.0.2.7".parse().unwrap()));
    assert_eq!(check.request_id(), "req-1");
    assert_eq!(RequestView::headers(&check).filter(|(name, _)| *name == "a").count(), 2);
    http(&mut message).header_map = None;
    assert_eq!(Check::read(&message).unwrap_err(), Unreadable::NoHeaderMap);
    assert_eq!(Check::read(&CheckRequest::default()).unwrap_err(), Unreadable::NoRequest);
}

#[test]
fn a_body_that_may_be_longer_than_seen_is_hidden() {
    let seen = |headers: &[(&str, &str)], body: &[u8]| {
        Check::read(&request(headers, body)).unwrap().body() == BodyView::Hidden
    };
    assert!(!seen(&[], b""));
    assert!(!seen(&[], b"chunked"));
    assert!(!seen(&[("content-length", "0")], b""));
    assert!(seen(&[("content-length", "5")], b"ping"));
    assert!(seen(&[("content-length", "5")], b""));
    assert!(seen(&[("content-length", "4"), ("content-length", "4")], b"ping"));
    assert!(seen(&[("content-length", "x")], b"ping"));
    assert!(seen(&[("x-envoy-auth-partial-body", "true"), ("content-length", "4")], b"ping"));
    assert!(seen(&[("x-envoy-auth-partial-body", "true")], b"ping"));
    assert!(!seen(&[("x-envoy-auth-partial-body", "false")], b"ping"));
}

#[test]
fn a_guest_that_buffers_nothing_shows_only_what_cannot_be_missing() {
    let hidden = |headers: &[(&str, &str)], protocol: &str, extensions: &[(&str, &str)]| {
        let mut message = request(headers, b"");
        http(&mut message).protocol = protocol.to_owned();
        guest(&mut message, extensions);
        Check::read(&message).unwrap().body() == BodyView::Hidden
    };
    let none = [("connection", "svc-one"), ("body", "none")];
    assert!(!hidden(&[], "HTTP/1.1", &none));
    assert!(!hidden(&[("content-length", "0")], "HTTP/2", &none));
    assert!(hidden(&[], "HTTP/2", &none));
    assert!(hidden(&[("transfer-encoding", "chunked")], "HTTP/1.1", &none));
    assert!(hidden(&[("content-length", "9")], "HTTP/1.1", &none));
    assert!(hidden(&[], "HTTP/2", &[("connection", "svc-one")]));
    assert!(!hidden(&[], "HTTP/2", &[("connection", "svc-one"), ("body", "buffered")]));
}

#[test]
fn the_client_is_who_our_envoy_counted_and_a_guests_header_is_not_believed() {
    let mut message = request(&[("x-envoy-external-address", "203.0.113.9")], b"");
    assert_eq!(Check::read(&message).unwrap().client_address(), Some("203.0.113.9".parse().unwrap()));
    guest(&mut message, &[("connection", "svc-one")]);
    let check = Check::read(&message).unwrap();
    assert_eq!(check.client_address(), Some("192.0.2.7".parse().unwrap()));
    assert_eq!(check.assigned_connection(), Some("svc-one"));
}

#[test]
fn a_doubled_scheme_is_none_and_an_odd_request_id_is_not_repeated() {
    let message = request(&[("x-forwarded-proto", "https"), ("x-request-id", "a b")], b"");
    let check = Check::read(&message).unwrap();
    assert_eq!(check.scheme(), b"");
    assert_eq!(check.request_id(), "");
    let long = "x".repeat(500);
    let message = request(&[("x-request-id", &long)], b"");
    assert_eq!(Check::read(&message).unwrap().request_id().len(), 128);
}

#[test]
fn the_scheme_is_the_first_that_was_forwarded() {
    for (forwarded, scheme) in [
        ("https", "https"),
        ("HTTPS", "https"),
        ("https,http", "https"),
        (" hTTps , http", "https"),
        ("http", "http"),
        ("http, https", "http"),
        ("ftp", "http"),
        ("", "http"),
        (",https", "http"),
        ("https2", "http"),
        ("https http", "http"),
    ] {
        let mut message = request(&[], b"");
        for header in &mut http(&mut message).header_map.as_mut().unwrap().headers {
            if header.key == "x-forwarded-proto" {
                header.raw_value = forwarded.as_bytes().to_vec();
            }
        }
        assert_eq!(Check::read(&message).unwrap().scheme(), scheme.as_bytes(), "{forwarded:?}");
    }
}

#[test]
fn the_stage_is_named_or_it_is_the_decision() {
    assert_eq!(decode_stage(None), Ok(Stage::Body));
    assert_eq!(decode_stage(Some(b"body")), Ok(Stage::Body));
    assert_eq!(decode_stage(Some(b"head")), Ok(Stage::Head));
    assert_eq!(decode_stage(Some(b"HEAD")), Err(Unreadable::Stage));
}

#[test]
fn the_time_envoy_waits_is_read_in_grpcs_form_only() {
    for (text, wanted) in [
        ("500m", Duration::from_millis(500)),
        ("2S", Duration::from_secs(2)),
        ("3M", Duration::from_secs(180)),
        ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ("7u", Duration::from_micros(7)),
        ("0n", Duration::ZERO),
    ] {
        assert_eq!(decode_timeout(Some(text.as_bytes())), Some(wanted), "{text}");
    }
    for text in ["", "m", "500", "500 m", "+500m", "-1m", "1.5S", "123456789m", "500ms"] {
        assert_eq!(decode_timeout(Some(text.as_bytes())), None, "{text}");
    }
    assert_eq!(decode_timeout(None), None);
}

proptest! {
    #[test]
    fn stray_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = decode(&bytes) {
            let _ = Check::read(&message).map(|check| check.body() == BodyView::Hidden);
        }
    }
}

fn connection(mode: proto::AuthMode, name: &str) -> Arc<Connection> {
    state::decode_connection(proto::Connection {
        id: "svc-one".to_owned(),
        protocol: "http".to_owned(),
        base_url: "https://api.example.com".to_owned(),
        auth_mode: mode.into(),
        auth_name: name.to_owned(),
        secret: "canary".to_owned(),
        active: true,
        extra_headers: [("x-version".to_owned(), "7".to_owned())].into(),
        ..proto::Connection::default()
    })
    .unwrap()
}

fn caller() -> Caller {
    Caller {
        namespace: Namespace::parse("acme").unwrap(),
        subject: "alice".to_owned(),
        key: PublicKey::new([7; 32]),
        agent_id: None,
    }
}

fn plan(connection: Arc<Connection>) -> Plan {
    Plan {
        connection,
        caller: caller(),
        path: b"/v1/a%2Fb?q&api_key=canary".to_vec().into(),
        rotation_overdue: Some(UnixSeconds(1_700_000_000)),
        allow_private: false,
        allow_loopback: true,
    }
}

fn answering<'a>(check: &'a Check<'a>) -> Answering<'a> {
    Answering { check: Some(check), decision_id: "dec-1", at: UnixMillis(1_700_000_000_000) }
}

fn sets(response: &CheckResponse) -> HashMap<String, String> {
    let Some(HttpResponse::OkResponse(ok)) = &response.http_response else { return HashMap::new() };
    ok.headers
        .iter()
        .map(|option| {
            assert_eq!(option.append_action, 2, "every header replaces");
            let header = option.header.clone().unwrap();
            assert!(header.raw_value.is_empty(), "Envoy ignores raw_value");
            (header.key, header.value)
        })
        .collect()
}

fn removed(response: &CheckResponse) -> Vec<String> {
    let Some(HttpResponse::OkResponse(ok)) = &response.http_response else { return Vec::new() };
    let mut names = ok.headers_to_remove.clone();
    names.sort();
    names
}

fn metadata(response: &CheckResponse) -> HashMap<String, Kind> {
    let fields = response.dynamic_metadata.clone().unwrap().fields;
    fields.into_iter().map(|(name, value)| (name, value.kind.unwrap())).collect()
}

#[test]
fn a_plan_sets_the_whole_upstream_request_and_strips_the_proof() {
    let private = [
        ("signature", "s"),
        ("signature-input", "i"),
        ("content-digest", "d"),
        ("sigilum-agent-cert", "c"),
        ("sigilum-something-new", "c"),
        ("x-sigilum-admin-token", "t"),
        ("authorization", "Bearer agents-own"),
        ("cookie", "a=b"),
        ("cookie", "c=d"),
        ("forwarded", "for=1.2.3.4"),
        ("connection", "authorization"),
        ("traceparent", "00-1"),
        ("x-original-url", "/admin"),
        ("x-original-uri", "/admin"),
        ("x-rewrite-url", "/admin"),
        ("x-original-host", "internal"),
        ("x-host", "internal"),
        ("x-http-host-override", "internal"),
        ("accept", "*/*"),
        ("x-forwarded-for", "1.2.3.4"),
    ];
    let message = request(&private, b"");
    let check = Check::read(&message).unwrap();
    let response = answering(&check).allow(&plan(connection(proto::AuthMode::HeaderKey, "X-Key"))).unwrap();
    let set = sets(&response);
    assert_eq!(set[":path"], "/v1/a%2Fb?q&api_key=canary");
    assert_eq!(set[":authority"], "api.example.com");
    assert_eq!(set["x-sigilum-cluster"], "upstream_https");
    assert_eq!(set["x-key"], "canary");
    assert_eq!(set["x-version"], "7");
    assert_eq!(set["x-envoy-upstream-rq-per-try-timeout-ms"], "120000");
    assert_eq!(set["x-envoy-upstream-stream-duration-ms"], "3600000");
    assert_eq!(
        removed(&response),
        [
            "authorization",
            "connection",
            "content-digest",
            "cookie",
            "forwarded",
            "sigilum-agent-cert",
            "sigilum-something-new",
            "signature",
            "signature-input",
            "traceparent",
            "x-host",
            "x-http-host-override",
            "x-original-host",
            "x-original-uri",
            "x-original-url",
            "x-rewrite-url",
            "x-sigilum-admin-token",
        ]
    );
    let fields = metadata(&response);
    assert_eq!(fields["path"], Kind::StringValue("/proxy/svc-one/a%2Fb".to_owned()));
    assert_eq!(fields["decision_id"], Kind::StringValue("dec-1".to_owned()));
    assert_eq!(fields["connection"], Kind::StringValue("svc-one".to_owned()));
    assert_eq!(fields["namespace"], Kind::StringValue("acme".to_owned()));
    assert_eq!(fields["agent_key"], Kind::StringValue(PublicKey::new([7; 32]).fingerprint()));
    assert_eq!(fields["public_key"], Kind::StringValue(PublicKey::new([7; 32]).text()));
    assert!(!fields.contains_key("agent_id"), "none was signed");
    assert_eq!(fields["allow_loopback"], Kind::BoolValue(true));
    assert_eq!(fields["allow_private"], Kind::BoolValue(false));
    assert!(!fields.contains_key("query_param"));
    assert!(!format!("{fields:?}").contains("canary") && !format!("{fields:?}").contains("agents-own"));
    let Some(HttpResponse::OkResponse(ok)) = &response.http_response else { return };
    let back: Vec<_> = ok.response_headers_to_add.iter().map(|option| option.header.clone().unwrap().key).collect();
    assert_eq!(back, ["x-sigilum-decision-id", "x-request-id", "x-sigilum-rotation-warning"]);
}

#[test]
fn a_signed_agent_id_is_in_the_metadata_and_bounded() {
    let message = request(&[], b"");
    let check = Check::read(&message).unwrap();
    let mut named = plan(connection(proto::AuthMode::Bearer, "Authorization"));
    named.caller.agent_id = Some("x".repeat(4000));
    let response = answering(&check).allow(&named).unwrap();
    assert_eq!(metadata(&response)["agent_id"], Kind::StringValue("x".repeat(1024)));
    let (reason, caller) =
        (DenyReason::RotationRequired, Some(Caller { agent_id: Some("bot".to_owned()), ..caller() }));
    let response = answering(&check).deny(&Denial { reason, connection: None, caller }, Registering::Disabled);
    assert_eq!(metadata(&response)["agent_id"], Kind::StringValue("bot".to_owned()));
}

/// Names and values of what an answer sets.
fn set_size(response: &CheckResponse) -> HeaderSize {
    let Some(HttpResponse::OkResponse(ok)) = &response.http_response else { return HeaderSize::default() };
    let headers = ok.headers.iter().filter_map(|option| option.header.as_ref());
    headers.fold(HeaderSize::default(), |size, header| size.with(&header.key, header.value.len()))
}

#[test]
fn a_plan_fits_where_envoy_could_write_it_and_nowhere_else() {
    let modes = [(proto::AuthMode::Bearer, "Authorization"), (proto::AuthMode::QueryParam, "api_key")];
    for (mode, name) in modes {
        for extensions in [&[][..], &[("connection", "svc-one"), ("body", "buffered")][..]] {
            let mut plan = plan(connection(mode, name));
            let of_length = |length: usize| {
                let filler = "x".repeat(length);
                let mut message = request(&[("x-filler", &filler)], b"");
                guest(&mut message, extensions);
                message
            };
            let message = of_length(0);
            let check = Check::read(&message).unwrap();
            let answered = check.held().and(set_size(&answering(&check).allow(&plan).unwrap()));
            // The two times have as many digits as they may have, which these have not.
            let room = check.most().bytes - answered.bytes - if extensions.is_empty() { 2 * 9 - 6 - 7 } else { 0 };
            for (length, fits) in [(room, true), (room + 1, false)] {
                let message = of_length(length);
                assert_eq!(answer::fits(&Check::read(&message).unwrap(), &plan), fits, "{mode:?} {extensions:?}");
            }
            let count = check.most().fields - answered.fields;
            for (more, fits) in [(count, true), (count + 1, false)] {
                let fields: Vec<_> = (0..=more).map(|_| ("x", "")).collect();
                let mut message = request(&fields, b"");
                guest(&mut message, extensions);
                assert_eq!(answer::fits(&Check::read(&message).unwrap(), &plan), fits, "{mode:?} {extensions:?}");
            }
            plan.path = vec![b'/'; check.most().bytes].into();
            let path_is_set = extensions.is_empty() || mode == proto::AuthMode::QueryParam;
            assert_eq!(answer::fits(&check, &plan), !path_is_set, "{mode:?} {extensions:?}");
        }
    }
}

#[test]
fn a_guest_may_say_what_its_envoy_has_room_for() {
    let most = |extensions: &[(&str, &str)]| {
        let mut message = request(&[], b"");
        guest(&mut message, extensions);
        let most = Check::read(&message).unwrap().most();
        (most.fields, most.bytes)
    };
    let named = ("connection", "svc-one");
    assert_eq!(most(&[named]), (100, 60 * 1024));
    assert_eq!(most(&[named, ("max_headers_count", "300"), ("max_request_headers_kb", "96")]), (300, 96 * 1024));
    assert_eq!(most(&[named, ("max_headers_count", "many"), ("max_request_headers_kb", "")]), (100, 60 * 1024));
    assert_eq!(most(&[("max_headers_count", "300")]), (200, 160 * 1024), "that is no guest");
}

#[test]
fn what_envoy_adds_is_not_the_clients() {
    let sent = |headers: &[(&str, &str)]| Check::read(&request(headers, b"")).unwrap().sent();
    let plain = sent(&[]);
    assert_eq!((plain.fields, plain.bytes), (1, ":authority127.0.0.1:38000".len()));
    let added =
        [("x-forwarded-for", "192.0.2.7"), ("x-envoy-external-address", "192.0.2.7"), (":protocol", "websocket")];
    assert_eq!(sent(&added), plain);
    assert_eq!(
        sent(&[("x-forwarded-host", "a"), ("a", ""), ("a", "b")]),
        plain.with("x-forwarded-host", 1).with("a", 0).with("a", 1)
    );
}

#[test]
fn an_injected_authorization_is_set_and_not_removed() {
    let message = request(&[("authorization", "Bearer agents-own")], b"");
    let check = Check::read(&message).unwrap();
    let response = answering(&check).allow(&plan(connection(proto::AuthMode::Bearer, "Authorization"))).unwrap();
    assert_eq!(sets(&response)["authorization"], "canary");
    assert!(removed(&response).is_empty());
}

#[test]
fn a_guest_keeps_its_route_and_gets_the_credential() {
    let mut message = request(&[], b"");
    guest(&mut message, &[("connection", "svc-one"), ("body", "buffered")]);
    let check = Check::read(&message).unwrap();
    let response = answering(&check).allow(&plan(connection(proto::AuthMode::HeaderKey, "X-Key"))).unwrap();
    let mut names: Vec<_> = sets(&response).into_keys().collect();
    names.sort();
    assert_eq!(names, ["x-envoy-max-retries", "x-key", "x-version"]);
    assert_eq!(sets(&response)["x-envoy-max-retries"], "0", "what was signed once is sent once");
    let response = answering(&check).allow(&plan(connection(proto::AuthMode::QueryParam, "api_key"))).unwrap();
    assert_eq!(sets(&response)[":path"], "/v1/a%2Fb?q&api_key=canary");
    assert_eq!(metadata(&response)["query_param"], Kind::StringValue("api_key".to_owned()));
}

#[test]
fn a_guest_passes_nothing_on_that_steers_it_or_speaks_of_the_agents_hop() {
    let kept = [("x-forwarded-proto", "https"), ("x-mine", "1"), ("x_mine", "1")];
    let taken = [
        ("x-envoy-retry-on", "5xx"),
        ("x-envoy-hedge-on-per-try-timeout", "true"),
        ("x-forwarded-host", "evil"),
        ("x-forwarded-prefix", "/a"),
        ("x-real-ip", "10.0.0.1"),
        ("x_forwarded_host", "evil"),
        ("x_forwarded_proto", "http"),
        ("x_original_url", "/admin"),
        ("signature_input", "sig1=()"),
        ("x_key", "mine"),
    ];
    let mut message = request(&[&kept[..], &taken[..], &[("x-envoy-max-retries", "5")]].concat(), b"");
    guest(&mut message, &[("connection", "svc-one"), ("body", "buffered")]);
    let check = Check::read(&message).unwrap();
    let response = answering(&check).allow(&plan(connection(proto::AuthMode::HeaderKey, "X-Key"))).unwrap();
    let mut names = taken.map(|(name, _)| name);
    names.sort_unstable();
    assert_eq!(removed(&response), names);
}

#[test]
fn an_unusable_credential_allows_nothing() {
    let message = request(&[], b"");
    let check = Check::read(&message).unwrap();
    let mut broken = plan(connection(proto::AuthMode::Unspecified, ""));
    assert_eq!(answering(&check).allow(&broken).unwrap_err(), DenyReason::ConnectionUnusable);
    broken = plan(connection(proto::AuthMode::QueryParam, "k"));
    broken.path = vec![b'/', 0xff].into();
    assert_eq!(answering(&check).allow(&broken).unwrap_err(), DenyReason::PathInvalid);
}

fn denied(response: &CheckResponse) -> (i32, HashMap<String, String>, String) {
    let Some(HttpResponse::DeniedResponse(denied)) = &response.http_response else { return Default::default() };
    assert_eq!(response.status.as_ref().unwrap().code, 7);
    let headers = denied.headers.iter().map(|option| option.header.clone().unwrap());
    (
        denied.status.as_ref().unwrap().code,
        headers.map(|header| (header.key, header.value)).collect(),
        denied.body.clone(),
    )
}

#[test]
fn a_refusal_carries_status_code_and_envelope() {
    let message = request(&[], b"");
    let check = Check::read(&message).unwrap();
    let reason = DenyReason::SignatureInvalid(SignatureFault::KeyMismatch);
    let (status, headers, body) = denied(&answering(&check).deny(&Denial::from(reason), Registering::Disabled));
    assert_eq!(status, 403);
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["x-sigilum-code"], "AUTH_SIGNATURE_INVALID");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-request-id"], "req-1");
    assert!(body.contains("\"code\":\"AUTH_SIGNATURE_INVALID\",\"request_id\":\"req-1\""));
    let (status, headers, _) =
        denied(&answering(&check).deny(&Denial::from(DenyReason::ReplayWindowFull), Registering::Disabled));
    assert_eq!((status, headers["retry-after"].as_str()), (503, "5"));
    let (status, headers, body) =
        denied(&answering(&check).deny(&Denial::from(DenyReason::PathInvalid), Registering::Disabled));
    assert_eq!((status, headers.contains_key("x-sigilum-code"), body.contains("\"code\"")), (400, false, false));
}

#[test]
fn an_unapproved_caller_is_answered_in_markdown() {
    let message = request(&[], b"");
    let check = Check::read(&message).unwrap();
    let denial = Denial {
        reason: DenyReason::ClaimRequired,
        connection: Some(ConnectionId::parse("svc-one").unwrap()),
        caller: Some(caller()),
    };
    let response = answering(&check).deny(&denial, Registering::Disabled);
    let (status, headers, body) = denied(&response);
    assert_eq!((status, headers["content-type"].as_str()), (403, "text/markdown; charset=utf-8"));
    assert_eq!(headers["x-sigilum-code"], "AUTH_CLAIM_REQUIRED");
    assert!(body.contains("- Remote IP: 192.0.2.7") && body.contains("- Service: svc-one"));
    assert_eq!(metadata(&response)["reason"], Kind::StringValue("AUTH_CLAIM_REQUIRED".to_owned()));
    assert_eq!(metadata(&response)["subject"], Kind::StringValue("alice".to_owned()));
    let foreign = Registration::foreign();
    let (_, _, told) = denied(&answering(&check).deny(&denial, Registering::Told(&foreign)));
    assert!(told.contains("- Claim submit result: `failed-before-response`") && !body.contains("Claim submit result"));
    // Too many registrations: for programs, and with a time to come back.
    let limited = Denial { reason: DenyReason::ClaimSubmitRateLimited, ..denial };
    let (status, headers, body) = denied(&answering(&check).deny(&limited, Registering::Untold));
    assert_eq!(
        (status, headers["content-type"].as_str(), headers["retry-after"].as_str()),
        (429, "application/json", "60")
    );
    assert!(body.contains("\"code\":\"AUTH_CLAIM_SUBMIT_RATE_LIMITED\""));
}

#[test]
fn going_on_changes_nothing() {
    let response = answer::proceed();
    assert_eq!(response.status.as_ref().unwrap().code, 0);
    assert!(sets(&response).is_empty() && removed(&response).is_empty());
}

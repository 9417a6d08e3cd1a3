//! `envoy/envoy.yaml` says what the gateway relies upon. Each test holds one line of it in its place; that
//! Envoy then does it is what the other tests show.

use std::sync::LazyLock;

use serde_yaml::Value;
use sigilum::wire::envoy::MOST_OF_OURS;

/// The file as text and as a tree.
static TEXT: &str = include_str!("../../envoy/envoy.yaml");
static TREE: LazyLock<Value> = LazyLock::new(|| serde_yaml::from_str(TEXT).unwrap());

/// Every value below `value` that stands under `key`.
fn all<'v>(value: &'v Value, key: &str) -> Vec<&'v Value> {
    let mut found = Vec::new();
    let mut left = vec![value];
    while let Some(value) = left.pop() {
        if let Some(map) = value.as_mapping() {
            for (name, inner) in map {
                if name.as_str() == Some(key) {
                    found.push(inner);
                }
                left.push(inner);
            }
        }
        left.extend(value.as_sequence().into_iter().flatten());
    }
    found
}

/// The texts under `key` anywhere below `value`.
fn texts<'v>(value: &'v Value, key: &str) -> Vec<&'v str> {
    all(value, key).into_iter().filter_map(Value::as_str).collect()
}

/// The entry of this name in a list.
fn named<'v>(list: &'v Value, name: &str) -> &'v Value {
    let mut entries = list.as_sequence().unwrap().iter();
    entries.find(|entry| entry["name"] == name).unwrap_or_else(|| panic!("nothing is called {name}"))
}

fn listener(name: &str) -> &'static Value {
    named(&TREE["static_resources"]["listeners"], name)
}

fn manager(listener_name: &str) -> &'static Value {
    // The last of the network filters: before it may stand a limit of connections.
    &listener(listener_name)["filter_chains"][0]["filters"].as_sequence().unwrap().last().unwrap()["typed_config"]
}

fn cluster(name: &str) -> &'static Value {
    named(&TREE["static_resources"]["clusters"], name)
}

fn filter(name: &str) -> &'static Value {
    &named(&manager("ingress")["http_filters"], name)["typed_config"]
}

fn routes() -> &'static [Value] {
    let hosts = manager("ingress")["route_config"]["virtual_hosts"].as_sequence().unwrap();
    assert_eq!(hosts.len(), 1);
    hosts[0]["routes"].as_sequence().unwrap()
}

/// The two checks.
const CHECKS: [(&str, &str); 2] = [("authz_head", "head"), ("authz_body", "body")];

#[test]
fn nothing_fails_open() {
    assert_eq!(all(&TREE, "failure_mode_allow"), [&Value::Bool(false), &Value::Bool(false)]);
    assert!(all(&TREE, "failure_mode_allow_header_add").is_empty());
    assert!(!TEXT.contains("allow_partial_message: true"));
    for (name, _) in CHECKS {
        let check = filter(name);
        assert_eq!(check["status_on_error"]["code"], "ServiceUnavailable", "{name}");
        assert_eq!(check["validate_mutations"], true, "{name}");
        assert_eq!(check["encode_raw_headers"], true, "{name}");
        assert_eq!(check["grpc_service"]["timeout"], "0.5s", "{name}");
        // A header that is not sent cannot be checked.
        for key in ["allowed_headers", "disallowed_headers", "filter_enabled", "skip_check"] {
            assert!(all(check, key).is_empty(), "{name}: {key}");
        }
    }
}

#[test]
fn the_filters_stand_in_order() {
    let names: Vec<_> = manager("ingress")["http_filters"]
        .as_sequence()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    let at = |name: &str| names.iter().position(|held| *held == name).unwrap_or_else(|| panic!("{name} is missing"));
    assert!(at("body_size_limit") < at("authz_head"));
    assert_eq!(at("authz_head") + 1, at("authz_body"));
    assert!(at("authz_body") < at("resolve"));
    assert_eq!(at("router") + 1, names.len());
    // Nothing behind the decision touches what the route is chosen by; reading it is no harm.
    for filter in &manager("ingress")["http_filters"].as_sequence().unwrap()[at("authz_body") + 1..at("router")] {
        assert!(all(filter, "clear_route_cache").is_empty());
        for mutations in all(filter, "request_mutations") {
            let touched = texts(mutations, "remove").into_iter().chain(texts(mutations, "key"));
            for header in touched {
                assert!(!header.starts_with(':') && !header.starts_with("x-sigilum"), "{header} behind the decision");
            }
        }
    }
}

#[test]
fn the_stages_are_told_apart_and_only_the_second_sees_a_body() {
    for (name, stage) in CHECKS {
        let metadata = &filter(name)["grpc_service"]["initial_metadata"];
        assert_eq!(metadata[0]["key"], "x-sigilum-stage");
        assert_eq!(metadata[0]["value"], stage);
    }
    assert!(filter("authz_head")["with_request_body"].is_null());
    assert!(filter("authz_head")["clear_route_cache"].is_null());
    let body = &filter("authz_body")["with_request_body"];
    assert_eq!(body["pack_as_bytes"], true);
    assert_eq!(body["allow_partial_message"], false);
    let limit = filter("body_size_limit");
    let limit = all(limit, "max_request_bytes")[0].as_u64().unwrap();
    assert_eq!(limit, 2 * 1024 * 1024);
    assert!(body["max_request_bytes"].as_u64().unwrap() >= limit, "whatever passes the limit must fit into the check");
    assert_eq!(filter("authz_body")["clear_route_cache"], true);
}

#[test]
fn the_decision_routes_and_nothing_else_does() {
    let led: Vec<_> = routes().iter().filter(|route| !route["route"].is_null()).collect();
    assert_eq!(led.len(), 1);
    assert_eq!(led[0]["route"]["cluster_header"], "x-sigilum-cluster");
    assert_eq!(led[0]["match"]["headers"][0]["name"], "x-sigilum-cluster");
    for route in routes().iter().filter(|route| route["route"].is_null()) {
        assert_eq!(route["direct_response"]["status"], 404);
    }
    // The header is the decision's: a client's is gone before anything reads it.
    let removed = texts(&manager("ingress")["early_header_mutation_extensions"], "prefix");
    assert!(removed.contains(&"x-sigilum-") && removed.contains(&"x-envoy-"), "{removed:?}");
    assert!(texts(&manager("ingress")["route_config"], "cluster").is_empty());
}

#[test]
fn no_route_switches_the_decision_off() {
    for route in routes() {
        let own = &route["typed_per_filter_config"];
        assert_ne!(own["authz_body"]["disabled"], true, "{route:?}");
        if own["authz_head"]["disabled"] == true {
            let method = &route["match"]["headers"][0];
            assert_eq!(method["name"], ":method");
            assert_eq!(method["string_match"]["safe_regex"]["regex"], "GET|HEAD");
            let small = own["authz_body"]["check_settings"]["with_request_body"]["max_request_bytes"].as_u64().unwrap();
            assert!(small <= 65_536, "a body that no check has seen before it: {small} bytes");
        }
    }
}

#[test]
fn checks_are_not_retried() {
    let authz = cluster("authz");
    assert!(all(authz, "retry_policy").is_empty());
    for (name, _) in CHECKS {
        assert!(all(filter(name), "retry_policy").is_empty(), "{name}");
    }
    assert_eq!(all(authz, "max_requests"), [&Value::from(65_536)]);
    assert_eq!(all(authz, "grpc_health_check").len(), 1);
    assert_eq!(texts(authz, "path"), ["authz.sock"]);
}

#[test]
fn providers_are_retried_once_and_only_before_anything_was_sent() {
    let policy = &routes().iter().find(|route| !route["route"].is_null()).unwrap()["route"];
    assert_eq!(policy["retry_policy"]["retry_on"], "connect-failure,refused-stream");
    assert_eq!(policy["retry_policy"]["num_retries"], 1);
    assert_eq!(policy["timeout"], "0s");
    assert_eq!(policy["idle_timeout"], "300s");
    assert!(!TEXT.contains("x-envoy-upstream-rq-timeout-ms"));
}

#[test]
fn providers_prove_their_name() {
    for name in ["upstream_http", "upstream_https"] {
        assert_eq!(all(cluster(name), "auto_sni"), [&Value::Bool(true)], "{name}");
        assert_eq!(all(cluster(name), "auto_san_validation"), [&Value::Bool(true)], "{name}");
        assert_eq!(cluster(name)["cluster_type"]["name"], "envoy.clusters.dynamic_forward_proxy");
    }
    let tls = &cluster("upstream_https")["transport_socket"];
    assert!(texts(tls, "@type").iter().any(|kind| kind.ends_with("UpstreamTlsContext")));
    assert_eq!(texts(tls, "filename").len(), 1);
    assert!(!TEXT.contains("ACCEPT_UNTRUSTED") && !TEXT.contains("allow_expired_certificate"));
    assert_eq!(manager("ingress")["scheme_header_transformation"]["match_upstream"], true);
}

#[test]
fn the_path_stays_as_it_was_signed() {
    let manager = manager("ingress");
    assert_eq!(manager["normalize_path"], false);
    assert_eq!(manager["merge_slashes"], false);
    assert_eq!(manager["path_with_escaped_slashes_action"], "KEEP_UNCHANGED");
    for key in ["prefix_rewrite", "regex_rewrite", "path_rewrite_policy", "host_rewrite_literal", "auto_host_rewrite"] {
        assert!(all(&TREE, key).is_empty(), "{key}");
    }
}

#[test]
fn clients_do_not_say_who_they_are() {
    let manager = manager("ingress");
    assert_eq!(manager["use_remote_address"], true);
    assert_eq!(manager["xff_num_trusted_hops"], 0);
    assert!(manager["internal_address_config"].is_null());
    assert_eq!(manager["preserve_external_request_id"], false);
    assert_eq!(manager["common_http_protocol_options"]["headers_with_underscores_action"], "REJECT_REQUEST");
}

#[test]
fn every_forbidden_address_is_denied_where_it_is_used() {
    let router = named(&manager("ingress")["http_filters"], "router");
    let rules = all(router, "policies");
    assert_eq!(rules.len(), 1, "the addresses are judged in one place");
    assert_eq!(texts(router, "action"), ["DENY"]);
    let prefixes = |policy: &str| -> Vec<String> {
        all(&rules[0][policy], "upstream_ip")
            .into_iter()
            .map(|range| {
                let bits = range["prefix_len"].as_u64().unwrap();
                format!("{}/{bits}", range["address_prefix"].as_str().unwrap())
            })
            .collect()
    };
    let holds = |policy: &str, wanted: &[&str]| {
        let held = prefixes(policy);
        for range in wanted {
            assert!(held.iter().any(|one| one == range), "{range} is missing in {policy}: {held:?}");
        }
    };
    holds("never", &["0.0.0.0/8", "169.254.0.0/16", "fe80::/10", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48"]);
    holds("private", &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"]);
    holds("loopback", &["127.0.0.0/8", "::1/128"]);
    let mut ports: Vec<_> = all(&rules[0]["own_listeners"], "start").into_iter().filter_map(Value::as_u64).collect();
    ports.sort_unstable();
    assert_eq!(ports, [38_000, 38_100, 38_200]);
    // What the decision may allow is named by its metadata, and by nothing a client sends.
    for (policy, key) in [("private", "allow_private"), ("loopback", "allow_loopback")] {
        assert!(texts(&rules[0][policy], "key").contains(&key), "{policy}");
        assert!(texts(&rules[0][policy], "filter").contains(&"envoy.filters.http.ext_authz"), "{policy}");
    }
}

#[test]
fn no_log_and_no_trace_names_the_path_that_leaves() {
    // Whatever names the path after the decision may name a credential.
    for format in ["REQ(:path", "REQ(:PATH", "%PATH(", "REQ_WITHOUT_QUERY", "X-ENVOY-ORIGINAL-PATH", "UPSTREAM_HEADER"]
    {
        assert!(!TEXT.contains(format), "{format}");
    }
    assert!(!TEXT.contains("grpc.v3") && !TEXT.contains("open_telemetry.v3"), "an access log whose path cannot be set");
    let logs = all(&TREE, "access_log");
    assert_eq!(logs.len(), 1);
    let mut paths = texts(logs[0], "path");
    paths.sort_unstable();
    assert_eq!(paths, ["%DYNAMIC_METADATA(envoy.filters.http.ext_authz:path)%", "access.log"]);
    let tracing = &manager("ingress")["tracing"];
    assert_eq!(tracing["max_path_tag_length"], 0);
}

#[test]
fn what_is_ours_does_not_leave_and_what_is_theirs_does_not_come_back() {
    let router = named(&manager("ingress")["http_filters"], "router");
    let mutations = named(&router["typed_config"]["upstream_http_filters"], "headers");
    let requests = &mutations["typed_config"]["mutations"]["request_mutations"];
    let prefixes = texts(requests, "prefix");
    for prefix in ["x-sigilum-", "x-envoy-", "x-forwarded-"] {
        assert!(prefixes.contains(&prefix), "{prefix} leaves");
    }
    for header in ["x-request-id", "forwarded"] {
        assert!(texts(requests, "remove").contains(&header), "{header} leaves");
    }
    let responses = &mutations["typed_config"]["mutations"]["response_mutations"];
    for header in ["alt-svc", "strict-transport-security", "clear-site-data"] {
        assert!(texts(responses, "remove").contains(&header), "{header} comes back");
    }
    assert!(texts(responses, "prefix").contains(&"x-envoy-"));
    assert!(texts(filter("cookies"), "remove").contains(&"set-cookie"));
}

#[test]
fn envoys_own_answers_wear_the_envelope() {
    let codes = texts(&manager("ingress")["local_reply_config"], "value");
    for code in [
        "AUTHZ_UNAVAILABLE",
        "NOT_READY",
        "METHOD_NOT_ALLOWED",
        "REQUEST_BODY_TOO_LARGE",
        "REQUEST_HEADERS_TOO_LARGE",
        "NOT_FOUND",
        "UPSTREAM_ADDRESS_REFUSED",
        "UPSTREAM_ERROR",
    ] {
        assert!(codes.contains(&code), "{code}");
    }
    let bodies = texts(&manager("ingress")["local_reply_config"], "inline_string");
    let envelopes: Vec<_> = bodies.iter().filter(|body| body.starts_with("{\"error\"")).collect();
    assert!(envelopes.len() >= 4);
    for body in envelopes {
        // What Envoy knows of a failure may hold an address or a URL with a credential.
        assert!(!body.contains("DETAILS") && !body.contains("UPSTREAM"), "{body}");
        assert!(body.ends_with("}\n"), "{body}");
    }
}

#[test]
fn two_gateways_do_not_share_a_port() {
    for name in ["ingress", "admin_face"] {
        assert_eq!(listener(name)["enable_reuse_port"], false, "{name}");
        assert_eq!(listener(name)["address"]["socket_address"]["address"], "127.0.0.1", "{name}");
    }
}

#[test]
fn envoys_admin_is_a_private_socket_with_a_face_that_reads() {
    let pipe = &TREE["admin"]["address"]["pipe"];
    assert_eq!(pipe["path"], "envoy-admin.sock");
    assert_eq!(pipe["mode"].as_u64(), Some(0o600));
    let face = manager("admin_face")["route_config"]["virtual_hosts"][0]["routes"].as_sequence().unwrap();
    let (last, reading) = face.split_last().unwrap();
    assert_eq!(last["direct_response"]["status"], 404);
    let paths: Vec<_> = reading.iter().map(|route| route["match"]["path"].as_str().unwrap()).collect();
    let wanted = ["/ready", "/stats", "/stats/prometheus", "/clusters", "/server_info", "/config_dump", "/certs"];
    assert_eq!(paths, wanted);
    for route in reading {
        assert_eq!(route["match"]["headers"][0]["string_match"]["exact"], "GET");
    }
}

#[test]
fn memory_and_connections_are_bounded() {
    let monitors = &TREE["overload_manager"]["resource_monitors"];
    assert!(named(monitors, "envoy.resource_monitors.fixed_heap")["typed_config"]["max_heap_size_bytes"].is_u64());
    let connections = named(monitors, "envoy.resource_monitors.global_downstream_max_connections");
    assert!(connections["typed_config"]["max_active_downstream_connections"].is_u64());
    assert!(listener("ingress")["per_connection_buffer_limit_bytes"].as_u64().unwrap() <= 4 * 1024 * 1024);
    let (kib, fields) = (MOST_OF_OURS.bytes / 1024, MOST_OF_OURS.fields);
    assert_eq!(manager("ingress")["max_request_headers_kb"].as_u64(), u64::try_from(kib).ok());
    let protocol = &manager("ingress")["common_http_protocol_options"];
    assert_eq!(protocol["max_headers_count"].as_u64(), u64::try_from(fields).ok());
    assert!(!all(&TREE, "max_hosts").is_empty(), "the DNS cache has no bound");
}

#[test]
fn nothing_secret_is_in_it() {
    for key in ["secrets", "generic_secret", "private_key", "password", "google_grpc"] {
        assert!(all(&TREE, key).is_empty(), "{key}");
    }
}

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "test code may panic"
)]

use serde_yaml::Value;

use super::*;
use crate::envoy::binary;

fn settings() -> Rendering {
    Rendering {
        ingress: vec!["127.0.0.1:38000".parse().unwrap(), "[::1]:38000".parse().unwrap()],
        admin_face: vec!["127.0.0.1:38200".parse().unwrap()],
        admin: vec!["127.0.0.1:38100".parse().unwrap()],
        max_body_bytes: 2 * 1024 * 1024,
        trusted_hops: 0,
        tls: None,
        traces: None,
        ca_file: PathBuf::from(CA_FILES[0]),
    }
}

fn parsed(settings: &Rendering) -> Value {
    serde_yaml::from_str(&render(settings).unwrap()).unwrap()
}

fn http_filter<'v>(listener: &'v Value, name: &str) -> &'v Value {
    let filters = &listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
    filters.as_sequence().unwrap().iter().find(|filter| filter["name"] == name).unwrap()
}

/// The first value under `key`, wherever it stands.
fn find<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    if let Value::Mapping(map) = value {
        return map.get(key).or_else(|| map.values().find_map(|value| find(value, key)));
    }
    value.as_sequence()?.iter().find_map(|value| find(value, key))
}

fn own_listener_rules(config: &Value) -> (Vec<u64>, Vec<Value>) {
    let policy = find(config, "own_listeners").unwrap();
    let rules = &policy["permissions"][0]["and_rules"]["rules"];
    let each = |value: &Value| value["or_rules"]["rules"].as_sequence().unwrap().clone();
    let ports = each(&rules[0]);
    let range = |rule: &Value| {
        let range = &rule["matcher"]["typed_config"]["upstream_port_range"];
        assert_eq!(range["end"], range["start"]);
        assert!(rule["matcher"]["typed_config"]["@type"].as_str().unwrap().ends_with("UpstreamIpPortMatcher"));
        range["start"].as_u64().unwrap()
    };
    (ports.iter().map(range).collect(), each(&rules[1]))
}

#[test]
fn without_the_face_everything_else_is_there() {
    let with: Value = serde_yaml::from_str(STATIC).unwrap();
    let mut without: Value = serde_yaml::from_str(&without_face(STATIC).unwrap()).unwrap();
    let listeners = |file: &Value| file["static_resources"]["listeners"].as_sequence().unwrap().clone();
    let (mut all, left) = (listeners(&with), listeners(&without));
    all.retain(|listener| listener["name"] != "admin_face");
    assert_eq!(left, all);
    without["static_resources"]["listeners"] = with["static_resources"]["listeners"].clone();
    assert_eq!(without, with);
}

#[test]
fn any_mixture_of_default_and_other_ports_is_excluded() {
    let choices = [[38000, 38100, 38200], [38100, 38200, 38000], [38200, 38000, 38100], [45678, 38100, 38200]];
    for [ingress, admin, face] in choices.into_iter().chain([[1, 38000, 38200], [38000, 1, 2], [38200, 65535, 38100]]) {
        let at = |port: u16| vec![std::net::SocketAddr::from(([127, 0, 0, 1], port))];
        let config = parsed(&Rendering {
            ingress: at(ingress),
            admin_face: at(face),
            admin: at(admin),
            max_body_bytes: 10_000,
            trusted_hops: 0,
            tls: None,
            traces: None,
            ca_file: PathBuf::from("/ca.pem"),
        });
        let (mut ports, _) = own_listener_rules(&config);
        ports.sort_unstable();
        let mut wanted = [ingress, admin, face].map(u64::from);
        wanted.sort_unstable();
        assert_eq!(ports, wanted);
    }
}

#[test]
fn any_body_limit_can_be_set() {
    for limit in [1, 16_384, 65_536, 2_031_616, 2_097_152, 2_162_688, MAX_BODY_BYTES] {
        let at = |port: u16| vec![std::net::SocketAddr::from(([127, 0, 0, 1], port))];
        let text = render(&Rendering {
            ingress: at(38000),
            admin_face: at(38200),
            admin: at(38100),
            max_body_bytes: limit,
            trusted_hops: 0,
            tls: None,
            traces: None,
            ca_file: PathBuf::from("/ca.pem"),
        });
        assert!(text.unwrap().contains(&format!("max_request_bytes: {limit}")), "{limit}");
    }
}

#[test]
fn every_setting_gets_into_place() {
    let config = parsed(&Rendering {
        ingress: vec!["127.0.0.2:1800".parse().unwrap(), "[::1]:1801".parse().unwrap()],
        admin_face: vec!["127.0.0.1:1900".parse().unwrap()],
        admin: vec!["127.0.0.1:1700".parse().unwrap(), "[::1]:1700".parse().unwrap()],
        max_body_bytes: 10_000,
        trusted_hops: 2,
        tls: None,
        traces: None,
        ca_file: PathBuf::from("/tmp/a \"quoted\" name"),
    });
    let ingress = &config["static_resources"]["listeners"][0];
    let face = &config["static_resources"]["listeners"][1];
    assert_eq!(ingress["address"]["socket_address"]["address"], "127.0.0.2");
    assert_eq!(ingress["address"]["socket_address"]["port_value"], 1800);
    assert_eq!(ingress["additional_addresses"][0]["address"]["socket_address"]["address"], "::1");
    assert_eq!(ingress["additional_addresses"][0]["address"]["socket_address"]["port_value"], 1801);
    assert_eq!(face["address"]["socket_address"]["port_value"], 1900);
    assert!(face.get("additional_addresses").is_none());
    let hcm = &ingress["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(hcm["xff_num_trusted_hops"], 2);
    for (filter, bytes) in [("body_size_limit", 10_000), ("authz_body", 10_000 + CHECK_MARGIN)] {
        assert_eq!(find(http_filter(ingress, filter), "max_request_bytes").unwrap(), bytes, "{filter}");
    }
    let (ports, hosts) = own_listener_rules(&config);
    assert_eq!(ports, [1700, 1800, 1801, 1900]);
    assert_eq!(hosts.len(), 2, "127.0.0.0/8 and ::1");
    let ca = &find(&config, "trusted_ca").unwrap()["filename"];
    assert_eq!(ca, "/tmp/a \"quoted\" name");
}

#[test]
fn the_defaults_change_nothing() {
    let plain = Rendering { ingress: vec!["127.0.0.1:38000".parse().unwrap()], ..settings() };
    let original: Value = serde_yaml::from_str(STATIC).unwrap();
    assert_eq!(parsed(&plain), original);
}

#[test]
fn where_traces_are_wanted_envoy_leaves_its_spans_with_authz() {
    let traces = TraceOptions { service_name: "edge".to_owned(), sampled: 105 };
    let config = parsed(&Rendering { traces: Some(traces), ..settings() });
    let tracing = find(&config, "tracing").unwrap();
    let provider = &tracing["provider"]["typed_config"];
    assert_eq!(find(provider, "cluster_name").unwrap(), "authz");
    assert_eq!(provider["service_name"], "edge");
    // Of those who come without a context; the others go by theirs.
    assert!(provider["sampler"]["name"].as_str().unwrap().ends_with("parent_based"));
    assert_eq!(find(&provider["sampler"], "numerator").unwrap(), 105);
    // What stands in the file without a provider stays.
    assert_eq!(tracing["max_path_tag_length"], 0);
    assert!(tracing["custom_tags"].as_sequence().unwrap().len() >= 3);
}

#[test]
fn a_gateway_that_listens_elsewhere_is_no_upstream_there() {
    let one = Rendering { ingress: vec!["10.1.2.3:38000".parse().unwrap()], ..settings() };
    let (_, hosts) = own_listener_rules(&parsed(&one));
    assert_eq!(hosts.len(), 3);
    assert_eq!(hosts[2]["matcher"]["typed_config"]["upstream_ip"]["address_prefix"], "10.1.2.3");
    let all = Rendering { ingress: vec!["0.0.0.0:38000".parse().unwrap()], ..settings() };
    let (_, hosts) = own_listener_rules(&parsed(&all));
    assert_eq!(hosts[2]["any"], true);
}

#[test]
fn the_access_log_on_stdout_is_the_same_one() {
    let logger = |text: &str| {
        let document: Value = serde_yaml::from_str(text).unwrap();
        find(&document, "access_log").unwrap()[0].clone()
    };
    let (file, stdout) = (logger(STATIC), logger(&with_access_log_on_stdout(STATIC).unwrap()));
    assert_eq!(stdout["filter"], file["filter"]);
    assert_eq!(stdout["typed_config"]["log_format"], file["typed_config"]["log_format"]);
    assert!(stdout["typed_config"]["@type"].as_str().unwrap().ends_with("stream.v3.StdoutAccessLog"));
    assert!(stdout["typed_config"]["path"].is_null());
}

#[test]
fn what_cannot_be_rendered_is_said() {
    let none = Rendering { ingress: Vec::new(), ..settings() };
    assert_eq!(render(&none), Err(RenderError::NoAddress("ingress")));
    let huge = Rendering { max_body_bytes: MAX_BODY_BYTES + 1, ..settings() };
    assert_eq!(render(&huge), Err(RenderError::BodyLimit(MAX_BODY_BYTES + 1)));
}

/// With the real Envoy: what it refuses to start with must not get through here.
#[tokio::test]
async fn envoy_accepts_both_forms() {
    let envoy = binary::find(&binary::Search::standard(None), &mut |_| {}).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let odd = Rendering {
        ingress: vec!["0.0.0.0:65535".parse().unwrap(), "[::]:65535".parse().unwrap()],
        admin_face: vec!["[::1]:1".parse().unwrap()],
        max_body_bytes: 1,
        trusted_hops: 3,
        ..settings()
    };
    let elsewhere = Rendering { ingress: vec!["192.0.2.1:38000".parse().unwrap()], ..settings() };
    let traces = Some(TraceOptions { service_name: "edge".to_owned(), sampled: 1 });
    let traced = Rendering { traces, ..settings() };
    let rendered = [&settings(), &odd, &elsewhere, &traced].map(|form| render(form).unwrap());
    let spoken = with_access_log_on_stdout(STATIC).unwrap();
    let forms: Vec<_> = [STATIC.to_owned(), spoken].into_iter().chain(rendered).collect();
    for (number, form) in forms.iter().enumerate() {
        let file = folder.path().join(format!("{number}.yaml"));
        std::fs::write(&file, form).unwrap();
        let output = tokio::process::Command::new(&envoy.path)
            .args(["--mode", "validate", "--disable-hot-restart", "--log-level", "warning", "--config-path"])
            .arg(&file)
            .current_dir(folder.path())
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "form {number}: {said}");
        assert!(!said.contains("[warning]"), "form {number}: {said}");
    }
}

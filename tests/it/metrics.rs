//! The metrics of a whole gateway, and the dashboard and the alerts that are made of them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::LazyLock;

use serde_json::Value;
use serde_json::json;

use crate::support::agent::Agent;
use crate::support::api::Api;
use crate::support::client;
use crate::support::client::Request;
use crate::support::exposition;
use crate::support::exposition::Family;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::plane;
use crate::support::plane::OWN;
use crate::support::plane::SERVICE;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

const DASHBOARD: &str = include_str!("../../deploy/grafana/sigilum-gateway.json");
const RULES: &str = include_str!("../../deploy/prometheus/sigilum-gateway.rules.yaml");

/// What Prometheus adds to every series.
const ADDED: [&str; 2] = ["instance", "job"];
/// What stands in a query and is neither a metric nor a label.
const WORDS: [&str; 8] = ["by", "histogram_quantile", "increase", "label_values", "max", "min", "rate", "sum"];

fn text(gateway: &Gateway) -> String {
    let request = Request::new("GET", &gateway.setup.admin.to_string(), "/metrics")
        .header("authorization", &format!("Bearer {}", gateway.token()));
    let answer = client::send(gateway.setup.admin, &request);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

fn families(gateway: &Gateway) -> Vec<Family> {
    let text = text(gateway);
    exposition::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn value(families: &[Family], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    families.iter().find(|family| family.name == format!("sigilum_gateway_{name}"))?.value(labels)
}

/// The metrics of a gateway that asks a control plane and has decided some requests.
static USED: LazyLock<Vec<Family>> = LazyLock::new(|| {
    let (api, upstream) = (Api::start(), Upstream::start());
    let gateway = plane::setup(&api.url(), &api.service(OWN, SERVICE)).start();
    let connection = gateway.connect(&upstream, json!({}));
    plane::until_read(&gateway, SERVICE);
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
    assert_eq!(gateway.post(&connection.at("/v1"), b"{}").status, 200);
    let stranger = Agent::new("bob").get(&gateway.authority(), &connection.at("/v1"));
    assert_eq!(gateway.send(&stranger).status, 403);
    let mut found = Vec::new();
    wait_until("authz has reported and the access log is read", LIMIT, || {
        found = families(&gateway);
        let count = |kind: &[(&str, &str)]| {
            let family = found.iter().find(|family| family.name == "sigilum_gateway_decision_seconds");
            let name = "sigilum_gateway_decision_seconds_count";
            let labels = kind.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let has = |sample: &&exposition::Sample| sample.name == name && sample.labels == labels;
            family.and_then(|family| family.samples.iter().find(has)).map_or(0.0, |sample| sample.value)
        };
        let requests = value(&found, "upstream_requests_total", &[("protocol", "http"), ("outcome", "success")]);
        // The refusal and the two that were let through; the look at the connection before them was refused, too.
        count(&[("stage", "body"), ("outcome", "allow")]) >= 2.0
            && count(&[("stage", "body"), ("outcome", "deny")]) >= 1.0
            && count(&[("stage", "head"), ("outcome", "allow")]) >= 1.0
            && requests.is_some_and(|requests| requests >= 2.0)
    });
    found
});

#[test]
fn the_text_passes_where_promtool_is_strict() {
    assert!(USED.len() > 50, "{} families", USED.len());
    assert!(USED.iter().all(|family| family.name.starts_with("sigilum_gateway_")));
}

#[test]
fn authz_has_the_published_state_and_says_what_it_uses() {
    let (families, own) = (&*USED, |name: &str| value(&USED, name, &[]).unwrap());
    let lag = families.iter().find(|family| family.name == "sigilum_gateway_authz_lag_versions").unwrap();
    assert_eq!(lag.samples.len(), 1, "{lag:?}");
    assert_eq!(lag.samples[0].value, 0.0);
    let node = lag.samples[0].labels["node"].clone();
    let acknowledged = value(families, "authz_acknowledged_version", &[("node", &node)]).unwrap();
    assert_eq!(acknowledged, own("state_version"));
    for process in ["admin", &node] {
        let of = |name: &str| value(families, name, &[("process", process)]).unwrap();
        assert!(of("process_resident_memory_bytes") > 1e6);
        assert!(of("process_open_fds") > 3.0 && of("process_open_fds") < of("process_max_fds"));
        let age = crate::support::agent::now() as f64 - of("process_start_time_seconds");
        assert!((0.0..600.0).contains(&age), "{process}: {age}");
    }
}

#[test]
fn the_store_is_measured() {
    let own = |name: &str| value(&USED, name, &[]).unwrap();
    assert!(own("store_database_bytes") > 0.0 && own("store_wal_bytes") > 0.0);
    // The connection that was made is audited.
    assert!(own("store_audit_entries") >= 1.0 && own("store_audit_oldest_age_seconds") >= 0.0);
}

/// The queries of the dashboard, by the title of their panel.
fn dashboard() -> Vec<(String, String)> {
    let board: Value = serde_json::from_str(DASHBOARD).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut queries = Vec::new();
    for panel in board["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
            queries.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    for variable in board["templating"]["list"].as_array().unwrap() {
        if variable["type"] == "query" {
            queries.push((text(&variable["name"]), text(&variable["query"]["query"])));
        }
    }
    queries
}

/// The alerts, each with its query.
fn rules() -> Vec<(String, String)> {
    let file: serde_yaml::Value = serde_yaml::from_str(RULES).unwrap();
    let rules = file["groups"].as_sequence().unwrap().iter().flat_map(|group| group["rules"].as_sequence().unwrap());
    let text = |value: &serde_yaml::Value| value.as_str().unwrap().to_owned();
    rules
        .map(|rule| {
            assert!(rule["annotations"]["runbook"].as_str().is_some_and(|line| line.len() > 20), "{rule:?}");
            (text(&rule["alert"]), text(&rule["expr"]))
        })
        .collect()
}

/// The words of a query, without texts, numbers, spans and Grafana's variables.
fn words(query: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut texts = query.split('"');
    while let Some(code) = texts.next() {
        let code = code.replace("$__rate_interval", "5m").replace("$instance", "");
        let part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let found =
            code.split(|letter| !part(letter)).filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
        words.extend(found.map(str::to_owned));
        // The text itself.
        texts.next();
    }
    words
}

/// What a query names that no gateway has.
fn unknown(query: &str) -> BTreeSet<String> {
    let labels: HashMap<String, HashSet<String>> =
        USED.iter().flat_map(|family| family.names().into_iter().map(|name| (name, family.labels()))).collect();
    let words = words(query);
    let named: Vec<_> = words.iter().filter_map(|word| labels.get(word)).collect();
    let known = |word: &String| {
        labels.contains_key(word)
            || WORDS.contains(&word.as_str())
            || ADDED.contains(&word.as_str())
            || word == "time" && query.contains("time()")
            // A label must be one of every metric of the query, or nothing is found.
            || !named.is_empty() && named.iter().all(|labels| labels.contains(word))
    };
    words.iter().filter(|word| !known(word)).cloned().collect()
}

#[test]
fn the_dashboard_asks_only_for_what_there_is() {
    let queries = dashboard();
    assert!(queries.len() > 40, "{}", queries.len());
    for (title, query) in queries {
        assert_eq!(unknown(&query), BTreeSet::new(), "{title}: {query}");
    }
}

#[test]
fn the_alerts_ask_only_for_what_there_is() {
    let rules = rules();
    assert!(rules.len() > 8, "{}", rules.len());
    for (alert, query) in rules {
        assert_eq!(unknown(&query), BTreeSet::new(), "{alert}: {query}");
    }
}

/// One alert is for all of them.
#[test]
fn every_condition_without_which_a_gateway_is_not_ready_is_shown_as_such() {
    let family = USED.iter().find(|family| family.name == "sigilum_gateway_condition").unwrap();
    for kind in ["StateLock", "Store", "MasterKey", "EnvoyLive", "XdsInSync", "AuthzReachable", "NonceStore"] {
        let is_shown =
            |labels: &BTreeMap<String, String>| labels["condition"] == kind && labels["requirement"] == "required";
        assert!(family.samples.iter().any(|sample| is_shown(&sample.labels)), "{kind}: {family:?}");
    }
    assert!(rules().iter().any(|(_, query)| query.contains("{requirement=\"required\"}") && query.ends_with("== 0")));
}

#[test]
fn what_no_gateway_has_is_noticed() {
    for (query, missing) in [
        ("rate(sigilum_gateway_nothing_total[5m])", "sigilum_gateway_nothing_total"),
        ("sum by (color) (sigilum_gateway_authz_ready)", "color"),
        ("sigilum_gateway_auth_reject_total{code=\"x\"}", "code"),
        ("sigilum_gateway_decision_seconds", "sigilum_gateway_decision_seconds"),
    ] {
        assert!(unknown(query).contains(missing), "{query}");
    }
}

#[test]
fn the_dashboard_shows_every_subject() {
    let asked: HashSet<String> = dashboard().iter().flat_map(|(_, query)| words(query)).collect();
    // Of these it is enough that they can be asked for.
    let plain = [
        "access_log_unreadable_total",
        "authz_replay_used_ratio",
        "condition",
        "config_generation",
        "config_pending_changes",
        "envoy_config_version",
        "ingress_certificate_updates_total",
        "secrets_age_seconds",
        "secrets_degraded",
        "secrets_generation",
        "shutdown_drain_seconds",
        "state_info",
        "usage_duplicate_total",
        "usage_refused_total",
        "usage_skipped_total",
    ];
    let missing: Vec<_> = USED
        .iter()
        .filter(|family| !family.names().iter().any(|name| asked.contains(name)))
        .map(|family| family.name.trim_start_matches("sigilum_gateway_").to_owned())
        .filter(|name| !plain.contains(&name.as_str()))
        .collect();
    assert_eq!(missing, Vec::<String>::new());
}

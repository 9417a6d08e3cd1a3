//! Listeners for a container platform, added to the printed file: who probes or collects there asks at the pod's address, where
//! nothing else of ours answers.

use std::net::SocketAddr;

use crate::envoy::render;
use crate::envoy::render::OPERATORS;
use crate::envoy::render::RenderError;

/// What tells one of them from another.
struct Listener<'a> {
    /// What stands above it.
    title: &'a str,
    name: &'a str,
    /// Why it is not counted among the connections of agents.
    reason: &'a str,
    /// Filters before the router, whole lines.
    filters: &'a str,
    /// The one path of Envoy's admin interface that is read, and how long that may take, in seconds.
    reads: (&'a str, u32),
}

const PROBE: Listener<'_> = Listener {
    title: "probes of the platform: two answers, no detail",
    name: "probe",
    reason: "a busy gateway is not a dead one",
    filters: "          - name: health
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
              pass_through_mode: false
              cluster_min_healthy_percentages: { authz: { value: 100 } }
              headers:
              - { name: \":method\", string_match: { exact: GET } }
              - { name: \":path\", string_match: { exact: /healthz } }
",
    reads: ("/ready", 5),
};

const STATS: Listener<'_> = Listener {
    title: "Prometheus: counters, nothing else of Envoy's admin",
    name: "stats",
    reason: "to be readable when it matters",
    filters: "",
    reads: ("/stats/prometheus", 30),
};

/// Adds the one of probes to a rendered file. It answers two paths and forwards nothing else: `/ready` says that Envoy is live,
/// `/healthz` that its authz is healthy as well.
pub fn add_probe(rendered: &str, address: SocketAddr) -> Result<String, RenderError> {
    add(rendered, &PROBE, address)
}

/// Adds the one of statistics. It answers `GET /stats/prometheus` and nothing else.
pub fn add_stats(rendered: &str, address: SocketAddr) -> Result<String, RenderError> {
    add(rendered, &STATS, address)
}

fn add(rendered: &str, listener: &Listener<'_>, address: SocketAddr) -> Result<String, RenderError> {
    let Listener { title, name, reason, filters, reads: (path, seconds) } = listener;
    let address = render::socket_address(&address);
    let text = format!(
        "  # ---------------------------------------------------------------- {title}
  - name: {name}
    address: {address}
    enable_reuse_port: false
    ignore_global_conn_limit: true                # {reason}
    filter_chains:
    - filters:
      - name: envoy.filters.network.connection_limit   # of its own, as it does not count among the others
        typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit, stat_prefix: {name}, max_connections: 256 }}
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {name}
          common_http_protocol_options: {{ idle_timeout: 5s, max_connection_duration: 15s }}   # who says nothing makes room
          request_headers_timeout: 10s
          request_timeout: 10s
          local_reply_config: *replies
          http_filters:
{filters}          - name: router
            typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, suppress_envoy_headers: true }}
          route_config:
            name: {name}
            virtual_hosts:
            - name: {name}
              domains: [\"*\"]
              routes:
              - {{ match: {{ path: {path}, headers: [{{ name: \":method\", string_match: {{ exact: GET }} }}] }}, route: {{ cluster: envoy_admin, timeout: {seconds}s }} }}
              - {{ match: {{ prefix: / }}, direct_response: {{ status: 404 }} }}

"
    );
    render::replace(rendered, OPERATORS, 1, &format!("{text}{OPERATORS}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn the_static_file_takes_them_and_keeps_the_rest() {
        let with = add_probe(render::STATIC, "0.0.0.0:38300".parse().unwrap()).unwrap();
        let with = add_stats(&with, "0.0.0.0:38301".parse().unwrap()).unwrap();
        let (with, plain): (serde_yaml::Value, serde_yaml::Value) =
            (serde_yaml::from_str(&with).unwrap(), serde_yaml::from_str(render::STATIC).unwrap());
        let names = |document: &serde_yaml::Value| -> Vec<String> {
            let listeners = document.get("static_resources").unwrap().get("listeners").unwrap().as_sequence().unwrap();
            listeners.iter().map(|one| one.get("name").unwrap().as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&with), ["ingress", "probe", "stats", "admin_face"]);
        assert_eq!(names(&plain), ["ingress", "admin_face"]);
    }
}

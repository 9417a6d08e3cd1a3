//! A listener for the probes of a container platform, added to the printed file: a kubelet asks at the pod's address, where
//! nothing else of ours answers.

use std::net::SocketAddr;

use crate::envoy::render;
use crate::envoy::render::OPERATORS;
use crate::envoy::render::RenderError;

/// Adds it to a rendered file. It answers two paths and forwards nothing else: `/ready` says that Envoy is live, `/healthz`
/// that its authz is healthy as well.
pub fn add(rendered: &str, address: SocketAddr) -> Result<String, RenderError> {
    let address = render::socket_address(&address);
    let listener = format!(
        "  # ---------------------------------------------------------------- probes of the platform: two answers, no detail
  - name: probe
    address: {address}
    enable_reuse_port: false
    ignore_global_conn_limit: true                # a busy gateway is not a dead one
    filter_chains:
    - filters:
      - name: envoy.filters.network.connection_limit   # of its own, as it does not count among the others
        typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit, stat_prefix: probe, max_connections: 64 }}
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: probe
          request_headers_timeout: 10s
          request_timeout: 10s
          local_reply_config: *replies
          http_filters:
          - name: health
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
              pass_through_mode: false
              cluster_min_healthy_percentages: {{ authz: {{ value: 100 }} }}
              headers:
              - {{ name: \":method\", string_match: {{ exact: GET }} }}
              - {{ name: \":path\", string_match: {{ exact: /healthz }} }}
          - name: router
            typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, suppress_envoy_headers: true }}
          route_config:
            name: probe
            virtual_hosts:
            - name: probe
              domains: [\"*\"]
              routes:
              - {{ match: {{ path: /ready, headers: [{{ name: \":method\", string_match: {{ exact: GET }} }}] }}, route: {{ cluster: envoy_admin, timeout: 5s }} }}
              - {{ match: {{ prefix: / }}, direct_response: {{ status: 404 }} }}

"
    );
    render::replace(rendered, OPERATORS, 1, &format!("{listener}{OPERATORS}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn the_static_file_takes_it_and_keeps_the_rest() {
        let with = add(render::STATIC, "0.0.0.0:38300".parse().unwrap()).unwrap();
        let (with, plain): (serde_yaml::Value, serde_yaml::Value) =
            (serde_yaml::from_str(&with).unwrap(), serde_yaml::from_str(render::STATIC).unwrap());
        let names = |document: &serde_yaml::Value| -> Vec<String> {
            let listeners = document.get("static_resources").unwrap().get("listeners").unwrap().as_sequence().unwrap();
            listeners.iter().map(|one| one.get("name").unwrap().as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&with), ["ingress", "probe", "admin_face"]);
        assert_eq!(names(&plain), ["ingress", "admin_face"]);
    }
}

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "test code may panic")]

use serde_yaml::Value;

use super::*;
use crate::envoy::render::Rendering;

fn tls(folder: &str, client_ca: Option<&str>) -> IngressTls {
    let file = |name: &str| format!("{folder}/{name}").into();
    IngressTls { cert_file: file("tls.crt"), key_file: file("tls.key"), client_ca_file: client_ca.map(Into::into) }
}

fn rendered(tls: &IngressTls) -> String {
    let at = |port: u16| vec![std::net::SocketAddr::from(([127, 0, 0, 1], port))];
    render::render(&Rendering {
        ingress: at(38000),
        admin_face: at(38200),
        admin: at(38100),
        max_body_bytes: 1 << 20,
        trusted_hops: 0,
        tls: Some(tls.clone()),
        traces: None,
        ca_file: "/etc/ssl/certs/ca-certificates.crt".into(),
    })
    .unwrap()
}

#[test]
fn envoys_file_names_the_resources_and_the_resources_name_the_files() {
    let tls = tls("/agents-tls", Some("/authorities/ca.crt"));
    let text = refer(&rendered(&tls), &tls, Path::new("/etc/envoy/a \"b\".yaml")).unwrap();
    assert!(!text.contains("/agents-tls") && !text.contains("/authorities"), "they would be read once");
    let file: Value = serde_yaml::from_str(&text).unwrap();
    assert_eq!(file["node"]["id"], NODE);
    let socket = &file["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"]["typed_config"];
    assert_eq!(socket["require_client_certificate"], true);
    let context = &socket["common_tls_context"];
    let sources = [&context["tls_certificate_sds_secret_configs"][0], &context["validation_context_sds_secret_config"]];
    for source in sources {
        assert_eq!(source["sds_config"]["path_config_source"]["path"], "/etc/envoy/a \"b\".yaml");
    }
    let resources: Value = serde_yaml::from_str(&resources(&tls).unwrap()).unwrap();
    let list = resources["resources"].as_sequence().unwrap();
    assert_eq!(list.len(), 2);
    for (resource, source) in list.iter().zip(sources) {
        assert_eq!(resource["name"], source["name"]);
    }
    assert_eq!(list[0]["tls_certificate"]["certificate_chain"]["filename"], "/agents-tls/tls.crt");
    assert_eq!(list[0]["tls_certificate"]["private_key"]["filename"], "/agents-tls/tls.key");
    assert_eq!(list[0]["tls_certificate"]["watched_directory"]["path"], "/agents-tls");
    assert_eq!(list[1]["validation_context"]["trusted_ca"]["filename"], "/authorities/ca.crt");
    assert_eq!(list[1]["validation_context"]["watched_directory"]["path"], "/authorities");
}

#[test]
fn where_agents_show_nothing_no_authorities_are_asked_for() {
    let tls = tls("/agents-tls", None);
    let text = refer(&rendered(&tls), &tls, Path::new("/sds.yaml")).unwrap();
    assert!(!text.contains(CLIENT_CA));
    assert!(!resources(&tls).unwrap().contains(CLIENT_CA));
}

#[test]
fn a_certificate_and_a_key_of_two_folders_are_refused_because_one_of_them_would_not_be_watched() {
    let apart = IngressTls { key_file: "/keys/tls.key".into(), ..tls("/agents-tls", None) };
    let error = resources(&apart).unwrap_err().to_string();
    assert!(error.contains("/agents-tls/tls.crt") && error.contains("/keys/tls.key"), "{error}");
}

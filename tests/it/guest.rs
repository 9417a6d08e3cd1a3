//! An Envoy of somebody else's that asks our authz, as `deploy/envoy/envoy.yaml` has it: over mutual TLS, with the connection
//! named by its routes. The file is the shipped one; only addresses and files are the test's.

use std::fs;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::SanType;
use serde_json::json;

use crate::support::agent::Agent;
use crate::support::client::Request;
use crate::support::client::Response;
use crate::support::client::send;
use crate::support::client::try_send;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::gateway::free_port;
use crate::support::parts::run_envoy;
use crate::support::parts::start_admin;
use crate::support::upstream::Upstream;

/// The shipped file.
const SHIPPED: &str = include_str!("../../deploy/envoy/envoy.yaml");
/// The connection its route names.
const CONNECTION: &str = "example";

/// An authority and what it signs, as PEM files in one folder.
struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(folder: PathBuf) -> Self {
        fs::create_dir(&folder).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Envoy takes a certificate for self-signed whose name is its authority's, which rcgen's default makes it.
        params.distinguished_name.push(DnType::CommonName, "authority");
        let key = KeyPair::generate().unwrap();
        fs::write(folder.join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key of one name.
    fn put(&self, name: &str) -> [PathBuf; 2] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
        params.distinguished_name.push(DnType::CommonName, name);
        let paths = ["crt", "key"].map(|end| self.folder.join(format!("{name}.{end}")));
        for (path, text) in paths.iter().zip([params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem()])
        {
            fs::write(path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        paths
    }

    fn ca(&self) -> String {
        shown(&self.folder.join("ca.crt"))
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Replaces text that must stand there once.
fn replace(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from}");
    text.replace(from, to)
}

/// Admin, authz on TCP, and the guest's Envoy with a provider behind it.
struct Guest {
    gateway: Gateway,
    upstream: Upstream,
    /// Where agents come.
    address: SocketAddr,
    /// Where authz listens.
    authz: SocketAddr,
    tls: Authority,
    decides: Running,
    _envoy: Running,
}

fn shared() -> &'static Guest {
    static SHARED: LazyLock<Guest> = LazyLock::new(Guest::start);
    &SHARED
}

impl Guest {
    fn start() -> Self {
        let setup = Setup::new();
        let agent = Agent::new("alice");
        let setup = Setup { agent, ..setup };
        let (namespace, key) = (setup.agent.namespace.clone(), setup.agent.public_key.clone());
        let mut setup = setup;
        setup.approvals.push((namespace, key, CONNECTION.to_owned()));
        setup.begin_journal();
        setup.write_yaml();
        let tls = Authority::new(setup.root.path().join("tls"));
        let ([certificate, key], client) = (tls.put("sigilum-authz"), tls.put("envoy.example.com"));
        tls.put("stranger.example.com");

        let admin = start_admin(&setup, &["--addr", &setup.admin.to_string()]);

        let (address, authz) = (local(free_port()), local(free_port()));
        let run = setup.run_dir();
        let decides = Running::spawn(setup.command(&[
            "gateway",
            "authz",
            &format!("--listen=tcp:{authz}"),
            &format!("--state=unix:{}", run.join("state.sock").display()),
            &format!("--run-dir={}", run.display()),
            &format!("--tls-cert={}", certificate.display()),
            &format!("--tls-key={}", key.display()),
            &format!("--tls-ca={}", tls.ca()),
            "--client-name=envoy.example.com",
        ]));
        let upstream = Upstream::start();
        let envoy = envoy(&setup, address, authz, upstream.address, &tls, &client);
        let gateway = Gateway::of(setup, admin);
        let guest = Self { gateway, upstream, address, authz, tls, decides, _envoy: envoy };
        let fields = json!({ "auth_mode": "bearer" });
        let created = guest.gateway.create(CONNECTION, &guest.upstream.base_url(), "canary-guest", fields);
        assert_eq!(created.status, 201, "{}", created.text());
        let mut last = String::new();
        let deadline = Instant::now() + LIMIT;
        while last != "200" {
            assert!(Instant::now() < deadline, "no signed request passes: {last}; {}", guest.decides.said());
            let request = guest.gateway.agent().get(&guest.address.to_string(), "/example/warm");
            last = match try_send(guest.address, &request) {
                Ok(response) => format!("{} {}", response.status, response.code()).trim_end().to_owned(),
                Err(broken) => broken.0,
            };
            thread::sleep(Duration::from_millis(50));
        }
        guest
    }

    fn authority(&self) -> String {
        self.address.to_string()
    }

    fn send(&self, request: &Request) -> Response {
        send(self.address, request)
    }

    /// What the provider has seen at this path.
    fn seen(&self, target: &str) -> Vec<crate::support::upstream::Seen> {
        self.upstream.seen().into_iter().filter(|seen| seen.target == target).collect()
    }

    /// `sigilum health --authz` with the certificate of `name`.
    fn health(&self, name: &str) -> std::process::Output {
        let file = |end: &str| shown(&self.tls.folder.join(format!("{name}.{end}")));
        let arguments = [
            "health",
            "--authz",
            &format!("tcp:{}", self.authz),
            "--authz-name",
            "sigilum-authz",
            "--tls-cert",
            &file("crt"),
            "--tls-key",
            &file("key"),
            "--tls-ca",
            &self.tls.ca(),
        ];
        self.gateway.setup.command(&arguments).output().unwrap()
    }
}

/// Starts the shipped file with the test's addresses; the provider speaks plain HTTP here.
fn envoy(
    setup: &Setup,
    address: SocketAddr,
    authz: SocketAddr,
    provider: SocketAddr,
    tls: &Authority,
    [certificate, key]: &[PathBuf; 2],
) -> Running {
    let at = |address: SocketAddr| format!("address: {}, port_value: {}", address.ip(), address.port());
    let text = replace(SHIPPED, "address: 127.0.0.1, port_value: 10000", &at(address));
    let text = replace(&text, "address: sigilum-authz, port_value: 38001", &at(authz));
    let text = replace(&text, "address: api.example.com, port_value: 443", &at(provider));
    let text = replace(&text, "/etc/envoy/tls/tls.crt", &shown(certificate));
    let text = replace(&text, "/etc/envoy/tls/tls.key", &shown(key));
    let text = replace(&text, "/etc/envoy/tls/ca.crt", &tls.ca());
    let mut config: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    let clusters = config["static_resources"]["clusters"].as_sequence_mut().unwrap();
    let provider = clusters.iter_mut().find(|cluster| cluster["name"] == CONNECTION).unwrap();
    assert!(provider.as_mapping_mut().unwrap().remove("transport_socket").is_some());
    let file = setup.root.path().join("guest.json");
    fs::write(&file, serde_json::to_string(&config).unwrap()).unwrap();
    run_envoy(&file, setup.root.path())
}

#[test]
fn an_approved_request_reaches_the_guests_provider_with_the_credential_and_on_the_guests_path() {
    let guest = shared();
    let response = guest.send(&guest.gateway.agent().post(&guest.authority(), "/example/approved?q=1", b"\"ping\""));
    assert_eq!(response.status, 200, "{}", response.text());
    let seen = guest.seen("/v1/approved?q=1");
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].header("authorization"), Some("Bearer canary-guest"));
    assert_eq!(seen[0].header("host"), Some("api.example.com"), "the route's own rewriting");
    assert_eq!(seen[0].body, b"\"ping\"");
}

#[test]
fn none_of_the_proof_and_of_the_agents_own_credentials_reaches_the_guests_provider() {
    let guest = shared();
    let request = guest
        .gateway
        .agent()
        .post(&guest.authority(), "/example/proof", b"{}")
        .header("cookie", "session=agent")
        .header("authorization", "Bearer of-the-agent");
    assert_eq!(guest.send(&request).status, 200);
    let seen = guest.seen("/v1/proof");
    for name in seen[0].names() {
        assert!(!name.starts_with("x-envoy-") && name != "x-forwarded-for", "{name} reached the provider");
        let proof = ["signature", "signature-input", "content-digest", "cookie"].contains(&name);
        assert!(
            !proof && !name.starts_with("sigilum-") && !name.starts_with("x-sigilum-"),
            "{name} reached the provider"
        );
    }
    assert_eq!(seen[0].header("authorization"), Some("Bearer canary-guest"));
}

#[test]
fn an_unsigned_request_is_refused_by_the_guest() {
    let guest = shared();
    let response = guest.send(&Request::new("GET", &guest.authority(), "/example/unsigned"));
    assert_eq!((response.status, response.code().as_str()), (403, "AUTH_SIGNATURE_INVALID"));
    assert!(guest.seen("/v1/unsigned").is_empty());
}

#[test]
fn an_agent_nobody_approved_is_refused_by_the_guest() {
    let guest = shared();
    let response = guest.send(&Agent::new("mallory").get(&guest.authority(), "/example/unapproved"));
    assert_eq!((response.status, response.code().as_str()), (403, "AUTH_CLAIM_REQUIRED"));
    assert!(guest.seen("/v1/unapproved").is_empty());
}

#[test]
fn every_count_of_fields_is_decided_by_the_guest_or_refused_with_its_nonce_unused() {
    let guest = shared();
    for count in [80, 88, 90, 92, 94, 96, 98, 100, 101, 150, 250] {
        let signed = guest.gateway.agent().get(&guest.authority(), "/example/fields");
        let mut request = signed.clone();
        for number in signed.headers.len()..count {
            request = request.header(&format!("x-f{number}"), "1");
        }
        let response = guest.send(&request);
        assert_eq!(response.status, if count <= 100 { 200 } else { 431 }, "{count}: {}", response.text());
        let again = guest.send(&signed).status;
        assert_eq!(again, if count <= 100 { 403 } else { 200 }, "{count}: the same signature with fewer fields");
    }
}

#[test]
fn a_request_is_accepted_once_by_the_guest() {
    let guest = shared();
    let request = guest.gateway.agent().get(&guest.authority(), "/example/once");
    assert_eq!(guest.send(&request).status, 200);
    let again = guest.send(&request);
    assert_eq!((again.status, again.code().as_str()), (403, "AUTH_REPLAY_DETECTED"));
    assert_eq!(guest.seen("/v1/once").len(), 1);
}

#[test]
fn a_body_that_was_changed_on_the_way_is_refused_by_the_guest() {
    let guest = shared();
    let signed = guest.gateway.agent().post(&guest.authority(), "/example/changed", b"{\"amount\":1}");
    let changed = signed.with_body(crate::support::client::Body::Sized(b"{\"amount\":9}".to_vec()));
    assert_eq!(guest.send(&changed).status, 403);
    assert!(guest.seen("/v1/changed").is_empty());
}

#[test]
fn a_route_of_the_guest_that_names_no_connection_is_refused() {
    let guest = shared();
    // Read as one of our own Envoy's paths this would be a connection the agent is approved for.
    let response = guest.send(&guest.gateway.agent().get(&guest.authority(), "/proxy/example/v1/ping"));
    assert_eq!((response.status, response.code().as_str()), (403, "AUTH_CLAIM_REQUIRED"));
}

#[test]
fn an_authz_on_tcp_is_found_healthy_with_a_certificate_of_its_list() {
    let output = shared().health("envoy.example.com");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"ready\n");
}

#[test]
fn an_authz_on_tcp_answers_nobody_whose_name_is_not_on_its_list() {
    let output = shared().health("stranger.example.com");
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty());
}

//! Agents over TLS: they sign `https://` URLs, speak HTTP/1.1 or HTTP/2, and do not notice when the certificate changes.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::client::Request;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;
use crate::support::upstream::runtime;

/// A certificate of 127.0.0.1 with its key.
pub(crate) struct Pair {
    pub(crate) made: rcgen::CertifiedKey<rcgen::KeyPair>,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self { made: rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap() }
    }

    /// Put in place as a careful tool does: beside it, then renamed, certificate first.
    fn put(&self, files: &[PathBuf; 2]) {
        for (file, text) in files.iter().zip([self.made.cert.pem(), self.made.signing_key.serialize_pem()]) {
            let draft = file.with_extension("draft");
            fs::write(&draft, text).unwrap();
            fs::rename(&draft, file).unwrap();
        }
    }

    fn der(&self) -> CertificateDer<'static> {
        self.made.cert.der().clone()
    }
}

fn files(setup: &Setup) -> [PathBuf; 2] {
    ["tls.crt", "tls.key"].map(|name| setup.root.path().join(name))
}

/// A gateway that shows this certificate.
fn start(pair: &Pair, more: &str) -> Gateway {
    let setup = Setup::new();
    let files = files(&setup);
    pair.put(&files);
    let [certificate, key] = files.map(|file| file.display().to_string());
    let tls = format!("gateway:\n  tls:\n    cert_file: {certificate}\n    key_file: {key}\n{more}");
    let setup = setup.yaml(&tls);
    setup.begin_journal();
    setup.write_yaml();
    let running = Running::spawn_in(setup.command(&["gateway", "start"]), Some(setup.root.path()));
    let gateway = Gateway::of(setup, running);
    wait_until("the gateway says that it is ready", LIMIT, || {
        let ended = gateway.running().ended();
        assert!(ended.is_none(), "{ended:?}: {}", gateway.said());
        gateway.said().lines().any(|line| line.starts_with("ready:     https://"))
    });
    gateway
}

/// Connects, trusting `trusted` alone, showing `own`.
pub(crate) async fn connect(
    address: SocketAddr,
    trusted: &Pair,
    own: Option<&Pair>,
    protocol: &str,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        Some(pair) => {
            let key = PrivateKeyDer::try_from(pair.made.signing_key.serialize_der()).unwrap();
            config.with_client_auth_cert(vec![pair.der()], key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// One request over HTTP/1.1: the whole answer.
async fn exchange(address: SocketAddr, trusted: &Pair, own: Option<&Pair>, request: Request) -> io::Result<String> {
    let mut stream = connect(address, trusted, own, "http/1.1").await?;
    stream.write_all(&request.header("connection", "close").bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Signed as an agent does that types `https://`.
fn signed(gateway: &Gateway, target: &str) -> Request {
    let (authority, agent) = (gateway.authority(), gateway.agent());
    let uri = format!("https://{authority}{target}");
    agent.prepare("GET", &authority, target).with(|draft| draft.signed_uri = Some(uri)).sign()
}

/// A connection that is in force.
fn connection(gateway: &Gateway, upstream: &Upstream, trusted: &Pair, own: Option<&Pair>) -> String {
    let id = Setup::connection_id(0);
    assert_eq!(gateway.create(&id, &upstream.base_url(), "secret-of-it", json!({})).status, 201);
    let target = format!("/proxy/{id}/v1/ping");
    wait_until("the connection is in force", LIMIT, || {
        let request = signed(gateway, &target);
        let answer = runtime().block_on(exchange(gateway.setup.ingress, trusted, own, request)).unwrap();
        answer.starts_with("HTTP/1.1 200")
    });
    target
}

#[test]
fn a_signed_https_request_is_served_over_both_versions_of_http() {
    let pair = Pair::new();
    let (gateway, upstream) = (start(&pair, ""), Upstream::start());
    let target = connection(&gateway, &upstream, &pair, None);
    // Whatever a client says of its scheme, what it signed is what counts.
    let spoofed = signed(&gateway, &target).header("x-forwarded-proto", "http");
    let answer = runtime().block_on(exchange(gateway.setup.ingress, &pair, None, spoofed)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let request = signed(&gateway, &target);
    let status = runtime().block_on(async {
        let stream = connect(gateway.setup.ingress, &pair, None, "h2").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut wanted = http::Request::get(format!("https://{}{target}", gateway.authority()));
        for (name, value) in request.headers.iter().filter(|(name, _)| name != "host") {
            wanted = wanted.header(name, value);
        }
        let answer = sender.send_request(wanted.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
        let status = answer.status();
        answer.into_body().collect().await.unwrap();
        status
    });
    assert_eq!(status, 200);
    let seen = upstream.seen();
    assert!(seen.iter().all(|one| one.header("x-forwarded-proto").is_none()), "nothing of the proxy leaves");
    // In plain nobody is served.
    let plain = Request::new("GET", &gateway.authority(), "/health");
    assert!(crate::support::client::try_send(gateway.setup.ingress, &plain).is_err());
}

#[test]
fn a_renewed_certificate_is_shown_and_a_broken_one_shows_in_readiness() {
    let (first, second) = (Pair::new(), Pair::new());
    let gateway = start(&first, "");
    let files = files(&gateway.setup);
    let is_shown = |pair: &Pair| runtime().block_on(connect(gateway.setup.ingress, pair, None, "h2")).is_ok();
    assert!(is_shown(&first) && !is_shown(&second));
    second.put(&files);
    wait_until("the second certificate is shown", LIMIT, || is_shown(&second));
    let condition = || {
        let request = Request::new("GET", &gateway.setup.admin.to_string(), "/health/ready")
            .header("authorization", &format!("Bearer {}", gateway.token()));
        let conditions = crate::support::client::send(gateway.setup.admin, &request).json()["conditions"].clone();
        let found = conditions.as_array().unwrap().iter().find(|one| one["type"] == "IngressCertificate").cloned();
        found.unwrap()
    };
    wait_until("readiness says so", LIMIT, || condition()["status"] == "True");
    fs::write(&files[0], &second.made.cert.pem()[..200]).unwrap();
    wait_until("readiness says that it is broken", LIMIT, || condition()["status"] == "False");
    assert_eq!(condition()["reason"], "Refused");
    assert!(is_shown(&second), "the one before is served");
    let text = gateway.logs();
    assert!(text.contains("ingress certificate refused"), "{text}");
    let key = second.made.signing_key.serialize_pem();
    assert!(!text.contains(key.lines().nth(1).unwrap()));
}

#[test]
fn agents_without_a_certificate_stay_outside_where_one_is_wanted() {
    let (pair, agent) = (Pair::new(), Pair::new());
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, agent.made.cert.pem()).unwrap();
    let more = format!("    client_ca_file: {}\n", ca.display());
    let (gateway, upstream) = (start(&pair, &more), Upstream::start());
    let target = connection(&gateway, &upstream, &pair, Some(&agent));
    for own in [None, Some(&pair)] {
        let refused = runtime().block_on(exchange(gateway.setup.ingress, &pair, own, signed(&gateway, &target)));
        assert!(refused.is_err(), "{refused:?}");
    }
    // The certificate lets in, the signature decides.
    let unsigned = Request::new("GET", &gateway.authority(), &target);
    let answer = runtime().block_on(exchange(gateway.setup.ingress, &pair, Some(&agent), unsigned)).unwrap();
    assert!(answer.contains("AUTH_SIGNATURE_INVALID"), "{answer}");
}

#[test]
fn certificates_that_cannot_be_used_stop_the_start_and_are_named() {
    let (pair, other) = (Pair::new(), Pair::new());
    for broken in ["no key", "another key", "half"] {
        let setup = Setup::new();
        let files = files(&setup);
        pair.put(&files);
        match broken {
            "no key" => fs::remove_file(&files[1]).unwrap(),
            "another key" => fs::write(&files[1], other.made.signing_key.serialize_pem()).unwrap(),
            _ => fs::write(&files[0], &pair.made.cert.pem()[..200]).unwrap(),
        }
        let [certificate, key] = files.map(|file| file.display().to_string());
        let setup = setup.env("GATEWAY_TLS_CERT_FILE", &certificate).env("GATEWAY_TLS_KEY_FILE", &key);
        setup.write_yaml();
        let refused = setup.start_refused();
        assert_eq!(refused.code, Some(78), "{broken}: {}", refused.said);
        let named = if broken == "half" { &certificate } else { &key };
        assert!(refused.said.contains(named.as_str()), "{broken}: {}", refused.said);
    }
    let setup = Setup::new().env("GATEWAY_TLS_CERT_FILE", "relative.pem");
    setup.write_yaml();
    let refused = setup.start_refused();
    assert_eq!(refused.code, Some(78), "{}", refused.said);
    for word in ["GATEWAY_TLS_CERT_FILE", "absolute path", "gateway.tls.key_file"] {
        assert!(refused.said.contains(word), "{word}: {}", refused.said);
    }
}

#[test]
fn tls_written_into_the_file_is_taken_while_the_gateway_runs() {
    let pair = Pair::new();
    let gateway = Gateway::start();
    let files = files(&gateway.setup);
    pair.put(&files);
    let envoy = gateway.role("envoy");
    let [certificate, key] = files.map(|file| file.display().to_string());
    let tls = format!("gateway:\n  tls:\n    cert_file: {certificate}\n    key_file: {key}\n");
    fs::write(gateway.setup.home().join("gateway.yaml"), gateway.setup.yaml_of(&tls)).unwrap();
    let is_shown = || runtime().block_on(connect(gateway.setup.ingress, &pair, None, "h2")).is_ok();
    wait_until("the certificate is shown", LIMIT, is_shown);
    assert_eq!(gateway.role("envoy"), envoy, "by the same Envoy");
    // A certificate that is not there leaves it as it is, and shows.
    let missing = tls.replace(&certificate, "/nowhere.crt");
    fs::write(gateway.setup.home().join("gateway.yaml"), gateway.setup.yaml_of(&missing)).unwrap();
    let ready = || {
        let request = Request::new("GET", &gateway.setup.admin.to_string(), "/health/ready")
            .header("authorization", &format!("Bearer {}", gateway.token()));
        crate::support::client::send(gateway.setup.admin, &request).text()
    };
    wait_until("readiness says why", LIMIT, || ready().contains("/nowhere.crt"));
    assert!(ready().contains("\"InvalidSettings\"") && is_shown(), "{}", ready());
    wait_until("the log says so", LIMIT, || gateway.logs().contains("xds rejected"));
}

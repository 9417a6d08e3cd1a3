//! Where a connection may lead. A name is judged by what it resolves to when it is used, by the real
//! Envoy, with a name server of the test's own.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::TcpListener;

use serde_json::json;

use crate::support::gateway::Setup;
use crate::support::gateway::shared;
use crate::support::parts;
use crate::support::upstream::Upstream;

/// Sends one request to a provider called `name`, which resolves to `address`.
fn ask(name: &str, address: &str, port: u16, fields: serde_json::Value) -> (u16, String) {
    let parts = parts::shared();
    parts.names.set(name, address.parse().unwrap());
    let target = parts.connect_to(&format!("http://{name}:{port}"), fields);
    let response = parts.get(&target);
    (response.status, response.code())
}

fn refused() -> (u16, String) {
    (403, "UPSTREAM_ADDRESS_REFUSED".to_owned())
}

#[test]
fn a_name_that_resolves_to_loopback_is_used() {
    // Loopback is allowed where the gateway itself listens on loopback only. It also shows that the
    // names of the other tests really are looked up.
    let upstream = Upstream::start();
    let (status, code) = ask("provider.test", "127.0.0.1", upstream.address.port(), json!({}));
    assert_eq!((status, code.as_str()), (200, ""));
    let seen = upstream.only();
    assert_eq!(seen.header("host"), Some(format!("provider.test:{}", upstream.address.port()).as_str()));
}

#[test]
fn a_name_that_resolves_to_a_private_address_is_refused() {
    for (number, address) in
        ["10.1.2.3", "172.16.0.1", "172.31.255.254", "192.168.1.1", "100.64.0.1", "fd00::1"].into_iter().enumerate()
    {
        assert_eq!(ask(&format!("private-{number}.test"), address, 80, json!({})), refused(), "{address}");
    }
}

#[test]
fn a_private_address_is_used_where_the_connection_allows_it() {
    // Whatever answers there, or nothing: that it was reached for is what shows that it was allowed.
    let answer = ask("allowed.test", "10.255.255.1", 9, json!({ "allow_private": true }));
    assert_ne!(answer, refused());
}

#[test]
fn a_name_that_resolves_to_a_link_local_address_is_refused() {
    for (number, address) in ["169.254.0.1", "169.254.169.254", "fe80::1", "fd00:ec2::254"].into_iter().enumerate() {
        let name = format!("link-{number}.test");
        assert_eq!(ask(&name, address, 80, json!({ "allow_private": true })), refused(), "{address}");
    }
}

#[test]
fn a_name_that_resolves_to_no_ones_address_is_refused() {
    for (number, address) in
        ["0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "255.255.255.255", "ff02::1"].into_iter().enumerate()
    {
        let name = format!("nobody-{number}.test");
        assert_eq!(ask(&name, address, 80, json!({ "allow_private": true })), refused(), "{address}");
    }
}

#[test]
fn an_address_hidden_in_another_is_refused() {
    let upstream = Upstream::start();
    let port = upstream.address.port();
    for (number, address) in
        ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1"].into_iter().enumerate()
    {
        let name = format!("hidden-{number}.test");
        assert_eq!(ask(&name, address, port, json!({ "allow_private": true })), refused(), "{address}");
    }
    assert!(upstream.untouched());
}

#[test]
fn a_name_that_resolves_to_our_own_listeners_is_refused() {
    let parts = parts::shared();
    for (number, port) in
        [parts.setup.ingress, parts.setup.admin, parts.setup.face].map(|address| address.port()).into_iter().enumerate()
    {
        for (way, address) in ["127.0.0.1", "127.9.9.9", "::1"].into_iter().enumerate() {
            let name = format!("own-{number}-{way}.test");
            assert_eq!(ask(&name, address, port, json!({ "allow_private": true })), refused(), "{address}:{port}");
        }
    }
}

#[test]
fn a_refused_address_is_not_connected_to() {
    // The listener is on loopback, which is allowed; the name moves to an address of ours that is not.
    let parts = parts::shared();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mapped = ask("moved.test", "::ffff:127.0.0.1", port, json!({}));
    assert_eq!(mapped, refused());
    // The answer came after Envoy was done with the request: a connection would be waiting here.
    let waiting = listener.accept();
    assert!(waiting.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "a connection was made");
    assert!(parts.healthy());
}

#[test]
fn a_name_without_an_address_is_an_upstream_error() {
    let parts = parts::shared();
    let target = parts.connect_to("http://nowhere.test", json!({}));
    let response = parts.get(&target);
    assert_eq!((response.status, response.code().as_str()), (502, "UPSTREAM_ERROR"), "{}", response.text());
}

#[test]
fn a_connection_to_a_forbidden_address_is_not_saved() {
    let gateway = shared();
    for address in [
        "http://169.254.169.254",
        "http://[fe80::1]",
        "http://0.0.0.0",
        "http://[::ffff:127.0.0.1]",
        "http://10.0.0.1",
        "http://2130706433",
        "http://0x7f000001",
        "http://224.0.0.1",
        &format!("http://{}", gateway.setup.admin),
        &format!("http://{}", gateway.setup.ingress),
        "ftp://example.com",
        "https://user:password@example.com",
        "/relative",
    ] {
        let response = gateway.create(&gateway.next_id(), address, "s3cret", json!({}));
        assert_eq!(response.status, 400, "{address}: {}", response.text());
    }
}

#[test]
fn a_provider_with_a_certificate_nobody_vouches_for_gets_nothing() {
    let provider = TlsProvider::start("localhost");
    let gateway = shared();
    let id = gateway.next_id();
    let created = gateway.create(&id, &format!("https://localhost:{}", provider.port), "canary-tls", json!({}));
    assert_eq!(created.status, 201, "{}", created.text());
    gateway.wait_in_force(&id);
    let response = gateway.get(&format!("/proxy/{id}/v1"));
    assert_eq!((response.status, response.code().as_str()), (502, "UPSTREAM_ERROR"), "{}", response.text());
    let received = provider.finish();
    assert!(received.is_empty(), "sent in spite of the certificate: {:?}", String::from_utf8_lossy(&received));
}

#[test]
fn a_provider_over_tls_gets_the_credential_only_if_its_certificate_names_it() {
    let (named, other) = (TlsProvider::start("localhost"), TlsProvider::start("other.example"));
    let mut setup = Setup::new();
    let bundle = setup.home().join("authorities.pem");
    std::fs::create_dir_all(setup.home()).unwrap();
    std::fs::write(&bundle, format!("{}{}", named.certificate, other.certificate)).unwrap();
    setup = setup.env("SSL_CERT_FILE", bundle.to_str().unwrap());
    let gateway = setup.start();
    let ask = |provider: &TlsProvider| {
        let id = gateway.next_id();
        let created = gateway.create(&id, &format!("https://localhost:{}", provider.port), "canary-tls", json!({}));
        assert_eq!(created.status, 201, "{}", created.text());
        gateway.wait_in_force(&id);
        gateway.get(&format!("/proxy/{id}/v1"))
    };
    let refused = ask(&other);
    assert_eq!((refused.status, refused.code().as_str()), (502, "UPSTREAM_ERROR"), "{}", refused.text());
    let received = other.finish();
    assert!(received.is_empty(), "sent to another name: {:?}", String::from_utf8_lossy(&received));
    let answered = ask(&named);
    assert_eq!((answered.status, answered.text().as_str()), (200, "over TLS"));
    let received = String::from_utf8(named.finish()).unwrap();
    assert!(received.contains("canary-tls") && !received.contains("sigilum"), "{received}");
}

/// A TLS server with a self-signed certificate that keeps what it can decrypt, and answers each request.
struct TlsProvider {
    port: u16,
    /// PEM.
    certificate: String,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: std::thread::JoinHandle<(usize, Vec<u8>)>,
}

impl TlsProvider {
    fn start(name: &str) -> Self {
        use std::io::Read as _;
        use std::io::Write as _;
        use std::sync::Arc;
        use std::sync::atomic::AtomicBool;
        use std::sync::atomic::Ordering;
        let signed = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let certificate = signed.cert.pem();
        let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key)
            .unwrap();
        let (config, stop) = (Arc::new(config), Arc::new(AtomicBool::new(false)));
        let listener = TcpListener::bind((IpAddr::from(Ipv4Addr::LOCALHOST), 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut handshakes, mut received) = (0, Vec::new());
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                if stopping.load(Ordering::SeqCst) {
                    return (handshakes, received);
                }
                handshakes += 1;
                stream.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
                let mut tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                // Where the certificate is refused the client hangs up in the middle of the handshake.
                let mut clear = rustls::Stream::new(&mut tls, &mut stream);
                let (mut request, mut part) = (Vec::new(), [0_u8; 4096]);
                while let Ok(read @ 1..) = clear.read(&mut part) {
                    request.extend_from_slice(&part[..read]);
                    if request.ends_with(b"\r\n\r\n") {
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\nconnection: close\r\n\r\nover TLS";
                        clear.write_all(answer).unwrap();
                        tls.send_close_notify();
                        let _ = tls.write_tls(&mut stream);
                        break;
                    }
                }
                received.extend_from_slice(&request);
            }
        });
        Self { port, certificate, stop, thread }
    }

    /// What was received in clear. Nobody having called at all fails the test.
    fn finish(self) -> Vec<u8> {
        self.stop.store(true, std::sync::atomic::Ordering::SeqCst);
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        let (handshakes, received) = self.thread.join().unwrap();
        assert!(handshakes > 0, "Envoy never called: the certificate was not judged");
        received
    }
}

//! Commands for a gateway that runs elsewhere believe the certificate whose fingerprint was named, and send the token to no
//! other.

use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use rcgen::CertifiedKey;
use rustls::ServerConfig;
use rustls::ServerConnection;
use rustls::StreamOwned;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use sha2::Digest as _;
use sha2::Sha256;

use crate::support::gateway::LIMIT;
use crate::support::gateway::Setup;

/// The token named for the remote gateway.
const TOKEN: &str = "named-for-the-remote-one-0123";

/// Somebody who answers over TLS as an admin API without connections would.
struct Remote {
    address: SocketAddr,
    /// SHA-256 of its certificate, in hex.
    fingerprint: String,
    /// Of each connection: the head of its request, or that there was no handshake.
    heard: mpsc::Receiver<Result<String, ()>>,
}

impl Remote {
    fn start() -> Self {
        // For a name that nobody asks for, by an authority that nobody knows.
        let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["gw.example".to_owned()]).unwrap();
        let digits: Vec<_> = Sha256::digest(cert.der()).iter().map(|byte| format!("{byte:02X}")).collect();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::Pkcs8(signing_key.serialize_der().into()))
            .unwrap();
        let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
        let (address, (tell, heard)) = (listener.local_addr().unwrap(), mpsc::channel());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut session = ServerConnection::new(Arc::clone(&config)).unwrap();
                while session.is_handshaking() {
                    if session.complete_io(&mut stream).is_err() {
                        break;
                    }
                }
                if session.is_handshaking() {
                    let _ = tell.send(Err(()));
                    continue;
                }
                let mut reader = BufReader::new(StreamOwned::new(session, stream));
                let (mut head, mut line) = (String::new(), String::new());
                while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
                    head.push_str(&std::mem::take(&mut line));
                }
                let body = r#"{"connections":[]}"#;
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = reader.get_mut().write_all(answer.as_bytes());
                reader.get_mut().conn.send_close_notify();
                let _ = reader.get_mut().flush();
                let _ = tell.send(Ok(head));
            }
        });
        Self { address, fingerprint: digits.join(":"), heard }
    }

    /// What the connection before this heard.
    fn heard(&self) -> Result<String, ()> {
        self.heard.recv_timeout(LIMIT).expect("somebody connects")
    }
}

/// A machine whose settings say that the gateway runs at `remote`, known by this fingerprint.
fn machine(remote: &Remote, fingerprint: Option<&str>) -> Setup {
    let setup = Setup::new();
    let token = setup.root.path().join("token");
    fs::write(&token, TOKEN).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let pin = fingerprint.map(|pin| format!(", tls_fingerprint: '{pin}'")).unwrap_or_default();
    let text = format!(
        "gateway: {{mode: remote, remote: {{url: 'https://{}', token_file: '{}'{pin}}}}}\n",
        remote.address,
        token.display()
    );
    fs::write(setup.home().join("gateway.yaml"), text).unwrap();
    setup
}

#[test]
fn a_certificate_with_the_named_fingerprint_is_sent_the_token() {
    let remote = Remote::start();
    let setup = machine(&remote, Some(&remote.fingerprint));
    let output = setup.command(&["connection", "list", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(remote.heard().unwrap().contains(TOKEN));
}

#[test]
fn a_certificate_with_another_fingerprint_is_sent_nothing() {
    let (remote, other) = (Remote::start(), Remote::start());
    for pin in [Some(other.fingerprint.as_str()), None] {
        let setup = machine(&remote, pin);
        for (arguments, code) in [
            (&["connection", "list"][..], 5),
            (&["health"], 5),
            (&["gateway", "status", "--require-rpc"], 5),
            (&["gateway", "probe"], 1),
        ] {
            let output = setup.command(arguments).output().unwrap();
            assert_eq!(output.status.code(), Some(code), "{pin:?} {arguments:?}: {output:?}");
            assert_eq!(remote.heard(), Err(()), "{pin:?} {arguments:?}");
        }
        // Those that asked more than once were told nothing else.
        assert!(remote.heard.try_iter().all(|heard| heard.is_err()));
    }
}

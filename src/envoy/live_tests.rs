#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "test code may panic"
)]
//! With the real Envoy, which alone knows what it takes.

use std::net::TcpListener;
use std::process::Stdio;

use bytes::Bytes;
use http::Request;
use rcgen::CertifiedKey;
use rcgen::KeyPair;
use rustls::DigitallySignedStruct;
use rustls::SignatureScheme;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Child;
use tokio::process::Command;

use super::*;
use crate::envoy::binary;
use crate::envoy::render;
use crate::sys::local_http::exchange;
use crate::telemetry::metrics::Metrics;

const LIMIT: Duration = Duration::from_secs(60);

/// Any certificate will do: what is served is what is looked at.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A certificate and its key as files.
struct Pair {
    made: CertifiedKey<KeyPair>,
}

impl Pair {
    fn new() -> Self {
        Self { made: rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap() }
    }

    fn write(&self, files: &IngressTls) {
        std::fs::write(&files.cert_file, self.made.cert.pem()).unwrap();
        std::fs::write(&files.key_file, self.made.signing_key.serialize_pem()).unwrap();
    }
}

fn files(folder: &Path) -> IngressTls {
    IngressTls { cert_file: folder.join("tls.crt"), key_file: folder.join("tls.key"), client_ca_file: None }
}

/// Handshakes, asks for /health and answers with the certificate that was shown, as DER.
async fn shown(address: SocketAddr, own: Option<&Pair>) -> io::Result<Vec<u8>> {
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match own {
        Some(pair) => {
            let key = PrivateKeyDer::try_from(pair.made.signing_key.serialize_der()).unwrap();
            config.with_client_auth_cert(vec![pair.made.cert.der().clone()], key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = tokio::net::TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    if !answer.starts_with(b"HTTP/1.1 503") {
        return Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned()));
    }
    Ok(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec())
}

struct Running {
    folder: TempDir,
    metrics: Metrics,
    live: Live,
    _envoy: Child,
}

fn free(count: usize) -> Vec<SocketAddr> {
    let held: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

fn settings() -> Rendering {
    let [ingress, face, admin] = free(3)[..] else { panic!("three were asked for") };
    Rendering {
        ingress: vec![ingress],
        admin_face: vec![face],
        admin: vec![admin],
        max_body_bytes: 2 * 1024 * 1024,
        trusted_hops: 0,
        tls: None,
        traces: None,
        ca_file: PathBuf::from(render::CA_FILES[0]),
    }
}

async fn start(settings: &Rendering) -> Running {
    let folder = tempfile::Builder::new().prefix("sgl").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    prepare(folder.path(), settings).unwrap();
    let found = binary::find(&binary::Search::standard(None), &mut |_| {}).await.unwrap();
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let envoy = Command::new(&found.path)
        .args(launch::arguments(Some(1)))
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let metrics = Metrics::new().unwrap();
    let live = Live::open(folder.path(), Arc::clone(metrics.data_plane())).unwrap();
    let running = Running { folder, metrics, live, _envoy: envoy };
    let up = async {
        while !(answers(settings.ingress[0]).await || shown(settings.ingress[0], None).await.is_ok()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let up = tokio::time::timeout(LIMIT, up).await;
    assert!(up.is_ok(), "{}", std::fs::read_to_string(running.folder.path().join("log")).unwrap());
    running
}

/// Whether Envoy answers there, whatever it says.
async fn answers(address: SocketAddr) -> bool {
    exchange(&Endpoint::Tcp(address), Request::get("/health"), Bytes::new(), LIMIT).await.is_ok()
}

impl Running {
    async fn stat(&self, name: &str) -> String {
        let path = format!("/stats?filter=%5E{name}%24");
        let answer = exchange(&self.live.envoy, Request::get(path), Bytes::new(), LIMIT).await.unwrap();
        String::from_utf8_lossy(&answer.body).trim().rsplit(": ").next().unwrap_or_default().to_owned()
    }

    fn condition(&self) -> Condition {
        self.condition_of(IN_SYNC).unwrap()
    }

    fn condition_of(&self, kind: &str) -> Option<Condition> {
        self.metrics.data_plane().conditions().into_iter().find(|found| found.kind == kind)
    }

    /// Lets it look until what changed has been judged.
    async fn judge(&self) {
        let mut before = String::new();
        self.live.look(&mut before).await;
        self.live.look(&mut before).await;
    }

    fn metric(&self, name: &str) -> String {
        let text = self.metrics.render().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("sigilum_gateway_{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
    }
}

#[tokio::test]
async fn filters_are_changed_in_place() {
    let before = settings();
    let running = start(&before).await;
    assert!(answers(before.admin_face[0]).await, "readers find Envoy's admin interface");
    let wanted = Rendering { trusted_hops: 3, max_body_bytes: 4321, ..before.clone() };
    let applied = running.live.apply(wanted.clone()).await.unwrap();
    assert_eq!((applied.version, applied.changed, &applied.ingress), (2, true, &before.ingress));
    assert_eq!(running.stat("listener_manager.listener_in_place_updated").await, "1", "the face has not changed");
    assert_eq!(running.stat("listener_manager.total_listeners_draining").await, "0");
    assert_eq!(running.live.settings().await, wanted);
    assert_eq!((running.condition().holds, running.metric("envoy_config_version")), (true, "2".to_owned()));
    // Whoever opens it anew finds what runs.
    let again = Live::open(running.folder.path(), Arc::clone(running.metrics.data_plane())).unwrap();
    assert_eq!(again.settings().await, wanted);
    let applied = again.apply(wanted).await.unwrap();
    assert_eq!((applied.version, applied.changed), (2, false));
}

#[tokio::test]
async fn another_address_opens_before_the_old_one_closes() {
    let before = settings();
    let running = start(&before).await;
    let new = free(1)[0];
    let applied = running.live.apply(Rendering { ingress: vec![new], ..before.clone() }).await.unwrap();
    assert_eq!((applied.version, &applied.ingress), (3, &vec![new]));
    assert!(answers(new).await);
    let gone = async {
        while answers(before.ingress[0]).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.unwrap();
    // And back, to all addresses of that port: the narrower one has to be closed first.
    let all = SocketAddr::from(([0, 0, 0, 0], new.port()));
    running.live.apply(Rendering { ingress: vec![all], ..before.clone() }).await.unwrap();
    assert!(answers(SocketAddr::from(([127, 0, 0, 9], new.port()))).await);
}

#[tokio::test]
async fn what_envoy_refuses_is_taken_back_and_shows() {
    let before = settings();
    let mut running = start(&before).await;
    running.live.patience = LIMIT;
    // Certificates that are not there change what Envoy starts with; so the refusal is made in a listener.
    let mut kept = running.live.kept.lock().await;
    let mut parts = split::split(&before).unwrap();
    parts.listeners[0].body["filter_chains"][0]["filters"][0]["typed_config"]["stream_idle_timeout"] = "never".into();
    let broken: Vec<_> = parts.listeners.iter().collect();
    let refusal = running.live.offer(&mut kept.version, &broken).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Nack(_)), "{refusal}");
    parts = split::split(&before).unwrap();
    parts.listeners[0].body["filter_chains"][0]["filters"][0]["typed_config"]["xff_num_trusted_hops"] = 1.into();
    parts.listeners[0].body["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0]["domains"] =
        serde_json::json!(["*", "*"]);
    let broken: Vec<_> = parts.listeners.iter().collect();
    let refusal = running.live.offer(&mut kept.version, &broken).await.unwrap_err();
    assert!(refusal.to_string().contains("ingress/") && refusal.to_string().contains("wildcard"), "{refusal}");
    let good = split::split(&before).unwrap();
    running.live.offer(&mut kept.version, &good.listeners.iter().collect::<Vec<_>>()).await.unwrap();
    assert!(answers(before.ingress[0]).await);
}

#[tokio::test]
async fn a_port_of_somebody_else_is_refused_with_its_holder() {
    let before = settings();
    let running = start(&before).await;
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let wanted = Rendering { ingress: vec![before.ingress[0], address], trusted_hops: 1, ..before.clone() };
    let rejected = running.live.apply(wanted).await.unwrap_err();
    assert_eq!((rejected.reason, rejected.restored), (Reason::Port, true));
    assert!(rejected.message.contains(&format!("port {} ({address}) is in use", address.port())), "{rejected}");
    assert!(rejected.message.contains(&std::process::id().to_string()), "{rejected}");
    assert_eq!(running.live.settings().await, before);
    let shown = running.condition();
    assert_eq!((shown.kind, shown.holds, shown.reason), ("XdsInSync", false, "PortNotAvailable"));
    assert_eq!(running.metric("envoy_config_rejected_total"), "1");
    // Once the change is taken out of the file, all is well again.
    running.live.apply(before).await.unwrap();
    assert!(running.condition().holds);
}

#[tokio::test]
async fn an_envoy_that_is_away_is_waited_for_and_then_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let before = settings();
    prepare(folder.path(), &before).unwrap();
    let metrics = Metrics::new().unwrap();
    let mut live = Live::open(folder.path(), Arc::clone(metrics.data_plane())).unwrap();
    live.patience = Duration::from_millis(50);
    let rejected = live.apply(Rendering { trusted_hops: 1, ..before.clone() }).await.unwrap_err();
    assert_eq!((rejected.reason, rejected.restored), (Reason::AckTimeout, false), "{rejected}");
    assert_eq!(live.settings().await, before);
    let text = files::read_text(&folder.path().join("xds/listeners.json"), MAX_LISTENERS).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(file, split::listeners_file(3, &split::split(&before).unwrap().listeners));
}

#[test]
fn a_change_that_was_cut_off_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let before = settings();
    prepare(folder.path(), &before).unwrap();
    let changed = split::split(&Rendering { trusted_hops: 9, ..before.clone() }).unwrap();
    let path = folder.path().join("xds/listeners.json");
    put(&path, &split::listeners_file(2, &changed.listeners)).unwrap();
    let metrics = Metrics::new().unwrap();
    Live::open(folder.path(), Arc::clone(metrics.data_plane())).unwrap();
    let file: Value = serde_json::from_str(&files::read_text(&path, MAX_LISTENERS).unwrap()).unwrap();
    assert_eq!(file, split::listeners_file(3, &split::split(&before).unwrap().listeners));
    assert_eq!(read_kept(folder.path()).unwrap(), Kept { version: 3, ..Kept::of(before) });
}

#[test]
fn what_needs_a_new_envoy_is_not_tried() {
    let folder = tempfile::tempdir().unwrap();
    let before = settings();
    prepare(folder.path(), &before).unwrap();
    let metrics = Metrics::new().unwrap();
    let live = Live::open(folder.path(), Arc::clone(metrics.data_plane())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let wanted = Rendering { ca_file: PathBuf::from("/other.pem"), ..before };
    let rejected = runtime.block_on(live.apply(wanted)).unwrap_err();
    assert_eq!(rejected.reason, Reason::Settings);
}

#[test]
fn a_port_that_was_left_open_stays_the_one_it_is() {
    let ours = ["127.0.0.1:5000".parse().unwrap(), "[::1]:5000".parse().unwrap()];
    let wanted: [SocketAddr; 3] =
        ["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap(), "0.0.0.0:5000".parse().unwrap()];
    let found = addresses(&wanted, &ours).unwrap();
    assert_eq!(found, [ours[0], ours[1], wanted[2]]);
    assert!(matches!(addresses(&[], &ours), Err(PortError::NoAddress)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_without_a_failed_handshake() {
    let place = tempfile::tempdir().unwrap();
    let (tls, pairs) = (files(place.path()), [Pair::new(), Pair::new()]);
    pairs[0].write(&tls);
    let before = Rendering { tls: Some(tls.clone()), ..settings() };
    let running = start(&before).await;
    let address = before.ingress[0];
    assert!(!answers(address).await, "not in plain");
    assert_eq!(shown(address, None).await.unwrap(), pairs[0].made.cert.der().to_vec());

    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                let (mut done, mut failed) = (0, Vec::new());
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    match shown(address, None).await {
                        Ok(_) => done += 1,
                        Err(error) => failed.push(error.to_string()),
                    }
                }
                (done, failed)
            })
        })
        .collect();
    for turn in 0..10 {
        let pair = &pairs[(turn + 1) % 2];
        // In place: nothing Envoy would notice by itself.
        pair.write(&tls);
        running.judge().await;
        assert_eq!(shown(address, None).await.unwrap(), pair.made.cert.der().to_vec(), "turn {turn}");
    }
    // Half a file, and a key of another certificate.
    let whole = pairs[0].made.cert.pem();
    for broken in [&whole[..whole.len() / 2], pairs[1].made.cert.pem().as_str()] {
        std::fs::write(&tls.cert_file, broken).unwrap();
        running.judge().await;
        assert_eq!(shown(address, None).await.unwrap(), pairs[0].made.cert.der().to_vec());
        let said = running.condition_of(CERTIFICATE_SERVED).unwrap();
        assert_eq!((said.holds, said.reason), (false, "Refused"), "{said:?}");
        assert!(said.message.contains("tls.crt"), "{said:?}");
    }
    pairs[1].write(&tls);
    running.judge().await;
    assert_eq!(shown(address, None).await.unwrap(), pairs[1].made.cert.der().to_vec());
    assert!(running.condition_of(CERTIFICATE_SERVED).unwrap().holds);
    assert_eq!(running.metric("ingress_certificate_updates_total{result=\"taken\"}"), "11");
    assert_eq!(running.metric("ingress_certificate_updates_total{result=\"refused\"}"), "2");

    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut done = 0;
    for task in load {
        let (more, failed) = task.await.unwrap();
        assert!(failed.is_empty(), "{failed:?}");
        done += more;
    }
    assert!(done > 20, "{done} handshakes are no load");

    // The key is nowhere but in its own file.
    let key = pairs[1].made.signing_key.serialize_pem();
    let secret = key.lines().nth(1).unwrap();
    for path in ["/config_dump?include_eds", "/certs"] {
        let answer = exchange(&running.live.envoy, Request::get(path), Bytes::new(), LIMIT).await.unwrap();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(!text.contains(secret) && !text.contains("PRIVATE KEY"), "{path}");
    }
    for entry in std::fs::read_dir(running.folder.path().join("xds")).unwrap().flatten() {
        if entry.path().is_file() {
            assert!(!std::fs::read_to_string(entry.path()).unwrap().contains(secret), "{entry:?}");
        }
    }
    assert_eq!(std::fs::read_dir(running.folder.path().join("xds/tls")).unwrap().count(), 2, "old links are gone");
}

#[tokio::test]
async fn tls_comes_and_goes_while_envoy_runs() {
    let place = tempfile::tempdir().unwrap();
    let (tls, pair) = (files(place.path()), Pair::new());
    pair.write(&tls);
    let before = settings();
    let address = before.ingress[0];
    let mut running = start(&before).await;
    running.live.patience = LIMIT;
    let with = |tls: IngressTls| Rendering { tls: Some(tls), ..before.clone() };
    let applied = running.live.apply(with(tls.clone())).await.unwrap();
    assert!(applied.changed && !answers(address).await);
    assert_eq!(shown(address, None).await.unwrap(), pair.made.cert.der().to_vec());

    // Others must show a certificate of this authority.
    std::fs::write(place.path().join("ca.pem"), pair.made.cert.pem()).unwrap();
    let closed = IngressTls { client_ca_file: Some(place.path().join("ca.pem")), ..tls.clone() };
    running.live.apply(with(closed)).await.unwrap();
    assert!(shown(address, None).await.is_err());
    assert!(shown(address, Some(&Pair::new())).await.is_err());
    assert_eq!(shown(address, Some(&pair)).await.unwrap(), pair.made.cert.der().to_vec());

    // Other files; files that are not there.
    std::fs::create_dir(place.path().join("other")).unwrap();
    let (other, second) = (files(&place.path().join("other")), Pair::new());
    let rejected = running.live.apply(with(other.clone())).await.unwrap_err();
    assert_eq!(rejected.reason, Reason::Settings, "{rejected}");
    assert!(rejected.message.contains("other/tls.crt"), "{rejected}");
    second.write(&other);
    running.live.apply(with(other)).await.unwrap();
    assert_eq!(shown(address, None).await.unwrap(), second.made.cert.der().to_vec());

    running.live.apply(before.clone()).await.unwrap();
    assert!(answers(address).await);
    assert!(running.condition_of(CERTIFICATE_SERVED).is_none());
    assert!(!running.folder.path().join("xds/ingress_certificate.json").exists());
}

#[tokio::test]
async fn a_certificate_that_envoy_refuses_is_waited_for_no_longer() {
    let place = tempfile::tempdir().unwrap();
    let (tls, pair) = (files(place.path()), Pair::new());
    pair.write(&tls);
    let before = Rendering { tls: Some(tls.clone()), ..settings() };
    let running = start(&before).await;
    // Past our own check, which knows what Envoy does not take.
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let made = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(&tls.cert_file, made.pem()).unwrap();
    std::fs::write(&tls.key_file, key.serialize_pem()).unwrap();
    assert!(secrets::check(&tls).unwrap_err().to_string().contains("Ed25519"));
    let parts = split::split(&before).unwrap();
    let refusal = running.live.show(&mut 1, &parts.secrets, &parts.secrets).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Nack(_)), "{refusal}");
    assert_eq!(shown(before.ingress[0], None).await.unwrap(), pair.made.cert.der().to_vec());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_do_not_notice_a_change() {
    let before = settings();
    let running = start(&before).await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let load: Vec<_> = [before.ingress[0], before.ingress[0], before.admin_face[0]]
        .map(|address| {
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                let (mut done, mut failed) = (0, 0);
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    if answers(address).await { done += 1 } else { failed += 1 }
                }
                (done, failed)
            })
        })
        .into();
    let mut times = Vec::new();
    for turn in 1..=20 {
        let wanted = Rendering { trusted_hops: turn % 7, max_body_bytes: u64::from(turn), ..before.clone() };
        times.push(running.live.apply(wanted).await.unwrap().took);
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    for task in load {
        let (done, failed) = task.await.unwrap();
        assert!(done > 20 && failed == 0, "{done} answered, {failed} failed");
    }
    times.sort_unstable();
    assert!(times[times.len() / 2] < Duration::from_secs(1), "{times:?}");
}

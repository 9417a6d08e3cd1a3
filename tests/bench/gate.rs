//! What a decision costs, and that its cost does not grow with approvals, connections or live nonces.
//!
//! `cargo bench --bench gate`. The requests are signed beforehand. `decide` runs with everything it
//! would find in service: the certificate known, the signature not. Subtract `verification` to see
//! what the gate itself adds.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark may panic, print and read the clock; criterion's macros make undocumented items"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::Criterion;
use criterion::criterion_group;
use criterion::criterion_main;
use ed25519_dalek::Signer as _;
use ed25519_dalek::SigningKey;

use sigilum::domain::approval::Approvals;
use sigilum::domain::approval::Grant;
use sigilum::domain::approval::Source;
use sigilum::domain::connection::AuthMode;
use sigilum::domain::connection::Connection;
use sigilum::domain::connection::ConnectionSettings;
use sigilum::domain::connection::DEFAULT_MAX_STREAM;
use sigilum::domain::connection::DEFAULT_RESPONSE_TIMEOUT;
use sigilum::domain::connection::Protocol;
use sigilum::domain::connection::Upstream;
use sigilum::domain::decision::Verdict;
use sigilum::domain::ids::ConnectionId;
use sigilum::domain::ids::Namespace;
use sigilum::domain::ids::PublicKey;
use sigilum::domain::replay::ReplayWindow;
use sigilum::domain::request::BodyView;
use sigilum::domain::request::RequestView;
use sigilum::domain::request::Stage;
use sigilum::domain::secret::Secret;
use sigilum::domain::signature::CertificateBody;
use sigilum::domain::signature::ProofBody;
use sigilum::domain::signature::content_digest;
use sigilum::domain::snapshot::Settings;
use sigilum::domain::snapshot::Snapshot;
use sigilum::domain::snapshot::StateVersion;
use sigilum::domain::time::MonotonicMillis;
use sigilum::domain::time::Now;
use sigilum::domain::time::UnixMillis;
use sigilum::domain::time::UnixSeconds;
use sigilum::gate::Gate;
use sigilum::gate::Scratch;

const START: u64 = 1_700_000_000;
const MAX_AGE: Duration = Duration::from_secs(300);
/// Maximum age + skew: how long a nonce lives.
const LIFETIME: u64 = 305;

struct Request {
    method: &'static str,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    hidden: bool,
}

impl RequestView for Request {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }
    fn scheme(&self) -> &[u8] {
        b"http"
    }
    fn authority(&self) -> &[u8] {
        b"127.0.0.1:38000"
    }
    fn target(&self) -> &[u8] {
        self.target.as_bytes()
    }
    fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (*name, value.as_bytes()))
    }
    fn body(&self) -> BodyView<'_> {
        if self.hidden { BodyView::Hidden } else { BodyView::Whole(&self.body) }
    }
    fn client_address(&self) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, 1]))
    }
}

/// Signs by the letter of the profile; returns the signed text as well.
fn sign(key: &SigningKey, method: &'static str, target: &str, body: Vec<u8>, nonce: &str) -> (Request, String) {
    let namespace = Namespace::parse("alice").unwrap();
    let public = PublicKey::new(key.verifying_key().to_bytes());
    let mut certificate = CertificateBody {
        version: 1,
        namespace: "alice".to_owned(),
        did: namespace.did(),
        key_id: public.key_id(&namespace),
        public_key: public.text(),
        issued_at: "2026-01-01T00:00:00Z".to_owned(),
        expires_at: None,
        proof: ProofBody { alg: "ed25519".to_owned(), sig: String::new() },
    };
    certificate.proof.sig = URL_SAFE_NO_PAD.encode(key.sign(certificate.payload().as_bytes()).to_bytes());

    let mut fields =
        vec![("@method", method.to_lowercase()), ("@target-uri", format!("http://127.0.0.1:38000{target}"))];
    if !body.is_empty() {
        fields.push(("content-digest", String::from_utf8(content_digest(&body).to_vec()).unwrap()));
    }
    fields.push(("sigilum-namespace", "alice".to_owned()));
    fields.push(("sigilum-subject", "customer-12345".to_owned()));
    fields.push(("sigilum-agent-key", public.text()));
    fields.push(("sigilum-agent-cert", certificate.header()));
    let names: Vec<_> = fields.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let params = format!(
        "({});created={START};keyid=\"{}\";alg=\"ed25519\";nonce=\"{nonce}\"",
        names.join(" "),
        certificate.key_id
    );
    let mut lines: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    lines.push(format!("\"@signature-params\": {params}"));
    let base = lines.join("\n");
    let signature = STANDARD.encode(key.sign(base.as_bytes()).to_bytes());

    // What Envoy adds to a real request, so that the search through the headers is a real one.
    let mut headers: Vec<(&'static str, String)> = [
        (":authority", "127.0.0.1:38000"),
        (":path", target),
        (":method", method),
        (":scheme", "http"),
        ("user-agent", "bench/1.0"),
        ("accept", "*/*"),
        ("content-type", "application/json"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-proto", "http"),
        ("x-request-id", "123e4567-e89b-12d3-a456-426614174000"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into();
    headers.push(("signature-input", format!("sig1={params}")));
    headers.push(("signature", format!("sig1=:{signature}:")));
    headers.extend(fields.into_iter().filter(|(name, _)| !name.starts_with('@')));
    (Request { method, target: target.to_owned(), headers, body, hidden: false }, base)
}

fn id(number: usize) -> String {
    format!("connection-{number}")
}

/// A state with so many approvals and connections; `key` is approved for the last connection.
fn state(approvals: usize, connections: usize, key: &SigningKey) -> Snapshot {
    let mut snapshot = Snapshot {
        version: StateVersion { epoch: "bench".to_owned(), version: 1, ..StateVersion::default() },
        settings: Arc::new(Settings::default()),
        connections: Arc::default(),
        approvals: Approvals::default(),
        given: Arc::default(),
    };
    let services: Vec<String> = (0..connections).map(id).collect();
    let grant = |service: usize| Grant {
        service: &services[service],
        namespace: "alice",
        source: Source::Declared,
        expires_at: None,
    };
    for number in 1..approvals {
        let mut bytes = [0_u8; 32];
        let spread = u64::try_from(number).unwrap().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bytes[..8].copy_from_slice(&spread.to_be_bytes());
        bytes[8..16].copy_from_slice(&number.to_le_bytes());
        snapshot.approvals.add(PublicKey::new(bytes), grant(number % connections));
    }
    snapshot.approvals.add(PublicKey::new(key.verifying_key().to_bytes()), grant(connections - 1));
    for number in 0..connections {
        let settings = ConnectionSettings {
            id: ConnectionId::parse(&id(number)).unwrap(),
            name: id(number),
            protocol: Protocol::Http,
            upstream: Upstream::parse(&format!("https://api-{number}.example.com/base")).unwrap(),
            path_prefix: "/v1".to_owned(),
            auth_mode: AuthMode::Bearer,
            auth_target: "Authorization".to_owned(),
            auth_prefix: "Bearer ".to_owned(),
            active: true,
            allow_private: false,
            allowed_methods: Vec::new(),
            allowed_paths: Vec::new(),
            upgrades: Vec::new(),
            response_timeout: DEFAULT_RESPONSE_TIMEOUT,
            max_stream: DEFAULT_MAX_STREAM,
            extra_headers: BTreeMap::new(),
            allow_set_cookie: false,
            forward_trace: false,
            next_rotation_due_at: None,
            secret_version: 1,
        };
        let connection = Connection::new(settings, Ok(&Secret::new("secret".to_owned())));
        Arc::make_mut(&mut snapshot.connections).insert(connection.settings.id.clone(), connection);
    }
    snapshot
}

fn now() -> Now {
    Now { wall: UnixMillis(START * 1000), monotonic: MonotonicMillis(0) }
}

/// A window with so many live nonces, kept at that number: time passes with each admission.
struct Traffic {
    window: ReplayWindow,
    live: u64,
    admitted: u64,
}

impl Traffic {
    fn new(live: u64) -> Self {
        let mut traffic = Self { window: ReplayWindow::new(2_000_000, [3; 16]), live, admitted: 0 };
        for _ in 0..live {
            traffic.admit();
        }
        traffic
    }

    fn admit(&mut self) {
        self.admitted += 1;
        let second = UnixSeconds(START + self.admitted * LIFETIME / self.live);
        let mut key = [0_u8; 32];
        key[..8].copy_from_slice(&(self.admitted % 1000).to_le_bytes());
        let nonce = format!("123e4567-e89b-12d3-a456-{:012x}", self.admitted);
        let (wall, monotonic) = (UnixMillis(second.0 * 1000), MonotonicMillis(second.0 * 1000));
        self.window.admit(&PublicKey::new(key), &nonce, second, MAX_AGE, Now { wall, monotonic }).unwrap();
    }
}

fn decisions(criterion: &mut Criterion) {
    let key = SigningKey::from_bytes(&[5; 32]);
    let mut group = criterion.benchmark_group("decide");
    for (approvals, connections) in [(100, 10), (1_000_000, 10), (100, 10_000), (1_000_000, 10_000)] {
        let snapshot = state(approvals, connections, &key);
        let target = format!("/proxy/{}/chat/completions?stream=true", id(connections - 1));
        let (request, _) = sign(&key, "GET", &target, Vec::new(), "123e4567-e89b-12d3-a456-426614174000");
        let (gate, mut scratch) = (Gate::new([1; 16]), Scratch::default());
        group.bench_function(format!("{approvals} approvals, {connections} connections"), |bencher| {
            bencher.iter(|| {
                let verdict = gate.decide(Stage::Body, &request, &snapshot, now(), &mut scratch);
                assert!(matches!(verdict, Verdict::Admit(..)));
                verdict
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("stages");
    let snapshot = state(100, 10, &key);
    let target = format!("/proxy/{}/chat/completions", id(9));
    let (gate, mut scratch) = (Gate::new([1; 16]), Scratch::default());
    let post = |hidden: bool| {
        let (request, base) = sign(&key, "POST", &target, vec![b'x'; 4096], "123e4567-e89b-12d3-a456-426614174000");
        (Request { hidden, ..request }, base)
    };
    let ((head, _), (body, _)) = (post(true), post(false));
    group.bench_function("head and body, 4 KiB", |bencher| {
        bencher.iter(|| {
            assert!(matches!(gate.decide(Stage::Head, &head, &snapshot, now(), &mut scratch), Verdict::Continue(_)));
            gate.decide(Stage::Body, &body, &snapshot, now(), &mut scratch)
        });
    });
    assert!(matches!(gate.decide(Stage::Head, &head, &snapshot, now(), &mut scratch), Verdict::Continue(_)));
    group.bench_function("head that was verified: the gate without the curve", |bencher| {
        bencher.iter(|| gate.decide(Stage::Head, &head, &snapshot, now(), &mut scratch));
    });
    let unsigned = Request { headers: Vec::new(), hidden: true, ..post(true).0 };
    group.bench_function("unsigned", |bencher| {
        bencher.iter(|| gate.decide(Stage::Head, &unsigned, &snapshot, now(), &mut scratch));
    });
    group.finish();

    let (_, base) = post(false);
    let signature = key.sign(base.as_bytes()).to_bytes();
    let public = PublicKey::new(key.verifying_key().to_bytes());
    criterion.bench_function("verification", |bencher| {
        bencher.iter(|| sigilum::domain::signature::verify(black_box(&public), base.as_bytes(), &signature).unwrap());
    });
}

fn replay(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("admit");
    for live in [1_000, 1_000_000] {
        let before = resident_bytes();
        let mut traffic = Traffic::new(live);
        let used = resident_bytes().saturating_sub(before);
        println!(
            "{live} live nonces: {} bytes each by its own account, {} by the system's",
            traffic.window.memory_bytes() / traffic.window.len(),
            used / traffic.window.len()
        );
        group.bench_function(format!("{live} live nonces"), |bencher| {
            bencher.iter(|| traffic.admit());
        });
    }
    group.finish();

    // What a single admission takes while a million come and go; a preemption counts as well, so the
    // maximum says more about the machine than about the window.
    let mut traffic = Traffic::new(1_000_000);
    let mut pauses: Vec<Duration> = (0..1_000_000)
        .map(|_| {
            let start = Instant::now();
            traffic.admit();
            start.elapsed()
        })
        .collect();
    pauses.sort_unstable();
    println!(
        "one of a million admissions: p50 {:?}, p99.9 {:?}, max {:?}",
        pauses[500_000], pauses[999_000], pauses[999_999]
    );
}

fn whole(criterion: &mut Criterion) {
    let key = SigningKey::from_bytes(&[5; 32]);
    let mut group = criterion.benchmark_group("decide and admit");
    for (approvals, connections, live) in [(100, 10, 1_000), (1_000_000, 10_000, 1_000_000)] {
        let snapshot = state(approvals, connections, &key);
        let target = format!("/proxy/{}/chat/completions?stream=true", id(connections - 1));
        let (request, _) = sign(&key, "GET", &target, Vec::new(), "123e4567-e89b-12d3-a456-426614174000");
        let (gate, mut scratch, mut traffic) = (Gate::new([1; 16]), Scratch::default(), Traffic::new(live));
        group.bench_function(format!("{approvals} approvals, {connections} connections, {live} nonces"), |bencher| {
            bencher.iter(|| {
                traffic.admit();
                gate.decide(Stage::Body, &request, &snapshot, now(), &mut scratch)
            });
        });
    }
    group.finish();
}

/// Resident memory of this process, in bytes (`/proc/self/statm`, pages of 4 KiB).
fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

// The window first: afterwards the allocator holds memory the system counts as used already.
criterion_group!(benches, replay, decisions, whole);
criterion_main!(benches);

//! How soon a change is everywhere: one publisher, and 2 or 50 subscribers over mutual TLS, each with certificate, thread
//! of execution and replica of its own, in one process on one machine. And what one pair of Envoy and authz holds, idle
//! and under load.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use sigilum::config::fleet::Reach;
use sigilum::config::fleet::Workload;
use sigilum::domain::snapshot::Settings;
use sigilum::state::Change;
use sigilum::state::PublishedState;
use sigilum::state::Publisher;
use sigilum::state::StateSource;
use sigilum::state::Subscriber;
use sigilum::sys::clock::SystemClock;
use sigilum::sys::tasks::Tasks;
use sigilum::sys::tls::ClientTls;
use sigilum::sys::tls::ServerTls;
use sigilum::sys::tls::TlsFiles;
use sigilum::wire::state::encode_settings;
use sigilum::wire::state::proto;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::accounting::memory_kib;
use crate::approvals::settled;
use crate::load;
use crate::stacks::Ground;
use crate::stacks::TARGET;

/// Connections there are before anything changes.
const CONNECTIONS: usize = 1000;
/// Changes that are timed.
const CHANGES: usize = 200;

/// Requests a second a pair is loaded with.
const RATE: f64 = 1000.0;
/// How long it is.
const LOADED: Duration = Duration::from_secs(60);
/// Connections of the generator.
const CLIENTS: usize = 16;

/// Prints the tables.
pub fn run(runtime: &Runtime, ground: &Ground, quick: bool) {
    propagation(quick);
    memory(runtime, ground, if quick { LOADED / 10 } else { LOADED });
}

/// What each process of a gateway holds before a request came, after a minute of load, and at most.
fn memory(runtime: &Runtime, ground: &Ground, loaded: Duration) {
    let stack = ground.gateway();
    let get = || ground.agent.get("127.0.0.1:38000", TARGET);
    stack.wait_ready(get);
    let held = |kind: &str| -> Vec<f64> {
        stack.processes.iter().map(|process| memory_kib(process.pid, kind) as f64 / 1024.0).collect()
    };
    let idle: Vec<f64> = stack.processes.iter().map(|process| settled(process.pid)[0]).collect();
    let count = (RATE * loaded.as_secs_f64()) as usize;
    let requests = (0..count).map(|_| get().bytes()).collect();
    let burst = runtime.block_on(load::send_paced(stack.address, requests, CLIENTS, RATE, Arc::default()));
    let mut latencies = burst.latencies;
    latencies.sort_unstable();
    let at = |part: usize| f64::from(latencies[(latencies.len() * part / 100).min(latencies.len() - 1)]) / 1000.0;
    println!(
        "\nMemory in MiB, idle and after {:.0} s at {:.0} requests a second (p50 {:.2} ms, p99 {:.2} ms, none failed):",
        loaded.as_secs_f64(),
        latencies.len() as f64 / burst.elapsed.as_secs_f64(),
        at(50),
        at(99)
    );
    println!("{:<14} {:>10} {:>10} {:>10}", "process", "idle", "loaded", "at most");
    let (after, most) = (held("VmRSS"), held("VmHWM"));
    for (index, process) in stack.processes.iter().enumerate() {
        // The provider and the generator are ours.
        if !["provider", "generator"].contains(&process.name) {
            println!("{:<14} {:>10.1} {:>10.1} {:>10.1}", process.name, idle[index], after[index], most[index]);
        }
    }
}

/// Prints how long a change takes.
fn propagation(quick: bool) {
    let changes = if quick { CHANGES / 10 } else { CHANGES };
    println!(
        "\nA change of a connection, from its publishing to the last subscriber that decides by it ({CONNECTIONS} connections):"
    );
    println!("{:<14} {:>10} {:>10} {:>10}", "subscribers", "p50 ms", "p99 ms", "max ms");
    for subscribers in [2, 50] {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut times = runtime.block_on(measure(subscribers, changes));
        times.sort();
        let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)].as_secs_f64() * 1000.0;
        println!("{subscribers:<14} {:>10.2} {:>10.2} {:>10.2}", at(50), at(99), at(100));
    }
}

async fn measure(subscribers: usize, changes: usize) -> Vec<Duration> {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let state = PublishedState {
        epoch: "bench".to_owned(),
        version: 1,
        settings: encode_settings(&Settings::default()),
        connections: (0..CONNECTIONS).map(|number| connection(number, "s")).collect(),
        approvals: Vec::new(),
        ..PublishedState::default()
    };
    let publisher = Publisher::new(state);
    publisher.set_workloads(vec![Workload {
        name: "all".to_owned(),
        sans: vec!["authz.test".to_owned()],
        reach: Reach::Everything,
    }]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tls = ServerTls::load_unnamed(&issue(folder.path(), "admin.test", &authority)).unwrap();
    let mut tasks = Tasks::default();
    let server = publisher.clone();
    tasks.spawn("state", |stop| server.serve_tls(listener, tls, stop));
    let client = ClientTls::load(&issue(folder.path(), "authz.test", &authority), "admin.test").unwrap();
    let mut held = Vec::new();
    for _ in 0..subscribers {
        let subscriber = Subscriber::new();
        held.push((subscriber.current(), subscriber.arrived()));
        let source = StateSource::Tls(address.clone(), client.clone());
        let window = watch::channel(Some("shared:bench".to_owned())).1;
        tasks.spawn("subscriber", |stop| {
            subscriber.run(source, "bench".to_owned(), window, SystemClock, proto::Report::default, stop)
        });
    }
    for (_, arrived) in &mut held {
        arrived.wait_for(|arrived| *arrived).await.unwrap();
    }
    let mut times = Vec::new();
    for change in 0..changes {
        let version = change as u64 + 2;
        let began = Instant::now();
        let record = connection(change % CONNECTIONS, &format!("secret-{change}"));
        publisher.publish(version, Change::Upsert(Box::new(record)));
        for (current, _) in &held {
            while current.load().as_ref().is_none_or(|state| state.version.version < version) {
                // What is measured is true to this; looking all the time would take a thread from the subscribers.
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        }
        times.push(began.elapsed());
    }
    tasks.stop_handle().stop();
    tasks.supervise(Duration::from_secs(10)).await;
    times
}

fn connection(number: usize, secret: &str) -> proto::Connection {
    proto::Connection {
        id: format!("conn-{number:04}"),
        protocol: "http".to_owned(),
        base_url: "https://api.example.com".to_owned(),
        auth_mode: proto::AuthMode::Bearer.into(),
        secret: secret.to_owned(),
        active: true,
        ..proto::Connection::default()
    }
}

struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: rcgen::Issuer::new(params, key) }
    }
}

fn issue(folder: &Path, name: &str, authority: &Authority) -> TlsFiles {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority.issuer).unwrap();
    let file = |kind: &str, text: String| {
        let path = folder.join(format!("{name}.{kind}"));
        sigilum::sys::files::write_private(&path, text.as_bytes()).unwrap();
        path
    };
    TlsFiles {
        certificate: file("crt", certificate.pem()),
        key: file("key", key.serialize_pem()),
        authorities: file("ca", authority.certificate.pem()),
    }
}

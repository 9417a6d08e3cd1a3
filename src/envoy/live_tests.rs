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
use tempfile::TempDir;
use tokio::process::Child;
use tokio::process::Command;

use super::*;
use crate::envoy::binary;
use crate::envoy::render;
use crate::sys::local_http::exchange;
use crate::telemetry::metrics::Metrics;

const LIMIT: Duration = Duration::from_secs(60);

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
        while !answers(settings.ingress[0]).await {
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
        self.metrics.data_plane().conditions().remove(0)
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
    assert_eq!(read_kept(folder.path()).unwrap(), Kept { version: 3, settings: before });
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

//! Processes on different hosts, as far as one machine has them: admin and authz by mutual TLS, from settings and options.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use sigilum::state::StateSource;
use sigilum::sys::tls::ClientTls;
use sigilum::sys::tls::TlsFiles;
use sigilum::wire::state::proto;
use sigilum::wire::state::proto::state_request::Message;
use sigilum::wire::state::proto::state_service_client::StateServiceClient;
use time::OffsetDateTime;

use crate::support::agent::random_hex;
use crate::support::client::Request;
use crate::support::client::send;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::gateway::free_port;
use crate::support::gateway::refused;
use crate::support::parts::start_admin;
use crate::support::process::wait_until;

/// An authority, and what it issued, as files.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    folder: PathBuf,
}

impl Authority {
    fn new(folder: &Path) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        fs::write(folder.join("ca.crt"), certificate.pem()).unwrap();
        Self { issuer: rcgen::Issuer::new(params, key), folder: folder.to_owned() }
    }

    fn issue(&self, name: &str, year: i32) {
        self.issue_for(name, rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(year, 1, 1));
    }

    /// One that holds from the first of these moments to the second.
    fn issue_for(&self, name: &str, from: OffsetDateTime, until: OffsetDateTime) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (from, until);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.file(name, "crt"), certificate.pem()).unwrap();
        fs::write(self.file(name, "key"), key.serialize_pem()).unwrap();
        fs::set_permissions(self.file(name, "key"), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn file(&self, name: &str, kind: &str) -> String {
        self.folder.join(format!("{name}.{kind}")).display().to_string()
    }
}

/// An admin that streams to other hosts; `years` of its certificate's end.
fn fleet(year: i32) -> (Setup, Authority, u16) {
    let (mut setup, port) = (Setup::new().env("GATEWAY_MASTER_KEY", &random_hex(32)), free_port());
    let authority = Authority::new(setup.root.path());
    authority.issue("admin.test", year);
    setup.settings = format!(
        "state:\n  addr: 127.0.0.1:{port}\n  tls: {{cert_file: {}, key_file: {}, client_ca_file: {}}}\n\
         workloads:\n  - {{name: all, sans: [authz.test], connections: ['*']}}\n",
        authority.file("admin.test", "crt"),
        authority.file("admin.test", "key"),
        authority.folder.join("ca.crt").display(),
    );
    setup.write_yaml();
    (setup, authority, port)
}

fn authz(setup: &Setup, authority: &Authority, port: u16, name: &str) -> Running {
    let run = setup.root.path().join(name);
    let (listen, state) = (format!("unix:{}/a.sock", run.display()), format!("tcp:127.0.0.1:{port}"));
    let (certificate, key) = (authority.file("authz.test", "crt"), authority.file("authz.test", "key"));
    let (ca, run) = (authority.folder.join("ca.crt").display().to_string(), run.display().to_string());
    Running::spawn(setup.command(&[
        "gateway",
        "authz",
        "--listen",
        &listen,
        "--state",
        &state,
        "--state-name",
        "admin.test",
        "--tls-cert",
        &certificate,
        "--tls-key",
        &key,
        "--tls-ca",
        &ca,
        "--run-dir",
        &run,
    ]))
}

/// What admin says of its readiness to whoever has its token, as it is now.
fn readiness(setup: &Setup) -> (u16, Value) {
    let token = fs::read_to_string(setup.data().join("admin-token")).unwrap();
    let request = Request::new("GET", &setup.admin.to_string(), "/health/ready?fresh");
    let told = send(setup.admin, &request.header("authorization", &format!("Bearer {}", token.trim())));
    (told.status, told.json())
}

fn condition(readiness: &Value, kind: &str) -> Value {
    let all = readiness["conditions"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|one| one["type"] == kind).unwrap_or_default()
}

#[test]
fn an_authz_elsewhere_is_fed_and_a_second_window_is_refused_in_one_line() {
    let (setup, authority, port) = fleet(2100);
    authority.issue("authz.test", 2100);
    let admin = Running::spawn_in(setup.command(&["gateway", "admin"]), Some(setup.root.path()));
    wait_until("admin listens", LIMIT, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let first = authz(&setup, &authority, port, "one");
    let is_ready = |one: &Running| one.said().contains("ready: requests are decided");
    wait_until("the first is ready", LIMIT, || is_ready(&first));
    let second = authz(&setup, &authority, port, "two");
    let told = |one: &Running| one.said().lines().any(|line| line.contains("with another replay window, decides"));
    let named = |one: &Running| one.said().lines().any(|line| line.contains("has another replay window than"));
    wait_until("the second is refused", LIMIT, || told(&second) && named(&admin));
    assert!(!named(&second), "{}", second.said());
    assert!(!is_ready(&second), "{}", second.said());
    drop(first);
    wait_until("the second is ready", LIMIT, || is_ready(&second));
}

#[test]
fn an_expired_certificate_is_one_line_and_exit_78() {
    let (setup, _authority, _) = fleet(2002);
    let refused = refused(setup.command(&["gateway", "admin"]));
    assert_eq!(refused.code, Some(78), "{}", refused.said);
    let lines: Vec<&str> = refused.said.lines().filter(|line| line.contains("expired")).collect();
    assert!(lines.len() == 1 && lines[0].contains("admin.test.crt"), "{}", refused.said);
}

#[test]
fn the_end_of_an_authzs_certificate_is_told_of_before_and_after_by_its_own_health_and_by_admin() {
    let (setup, authority, port) = fleet(2100);
    // Of its ten minutes the last thirty seconds, of which the window takes ten: it has no journal.
    let now = OffsetDateTime::now_utc();
    authority.issue_for("authz.test", now - Duration::from_secs(570), now + Duration::from_secs(30));
    let admin = start_admin(&setup, &[]);
    let authz = authz(&setup, &authority, port, "one");
    wait_until("it is ready", LIMIT, || authz.said().contains("ready: requests are decided"));
    let health = || {
        let at = format!("unix:{}", setup.root.path().join("one/a.sock").display());
        let asked = setup.command(&["health", "--authz", &at]).output().unwrap();
        (asked.status.code(), String::from_utf8(asked.stdout).unwrap())
    };
    let condition = || condition(&readiness(&setup).1, "StateCertificates");
    let (code, line) = health();
    assert_eq!(code, Some(0));
    assert!(line.starts_with("ready; the certificate it shows admin ends in "), "{line}");
    let told = condition();
    assert_eq!((&told["reason"], &told["status"]), (&json!("EndsSoon"), &json!("False")), "{told}");
    let message = told["message"].as_str().unwrap();
    assert!(message.starts_with("the certificate of authz.test (authz-") && message.contains(" ends in "), "{message}");
    wait_until("its log says so", LIMIT, || authz.said().contains("and no other is in its place yet"));

    wait_until("the certificate has ended", LIMIT, || health().1.contains("it shows admin ended at "));
    wait_until("it is without admin", LIMIT, || health().1.starts_with("ready, without admin: the certificate "));
    assert_eq!(health().0, Some(0), "it goes on with what it had");
    wait_until("admin says so", LIMIT, || condition()["reason"] == "Ended");
    let told = condition();
    assert_eq!(told["requirement"], "advisory");
    assert!(told["message"].as_str().unwrap().contains("authz.test (authz-"), "{told}");

    authority.issue("authz.test", 2100);
    wait_until("the next one mends it", LIMIT, || health().1 == "ready\n" && condition()["reason"] == "Valid");
    drop(admin);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sidecar_says_against_itself_is_told_by_its_name_and_makes_nobody_else_unready() {
    let (mut setup, authority, port) = fleet(2100);
    // Two windows do not decide for one connection.
    setup.settings = setup.settings.replace("['*']", "[svc-one]");
    setup.settings.push_str("  - {name: billing, sans: [billing.test], connections: [svc-billing]}\n");
    setup.write_yaml();
    for name in ["authz.test", "billing.test"] {
        authority.issue(name, 2100);
    }
    let _admin = start_admin(&setup, &[]);
    let honest = authz(&setup, &authority, port, "one");
    wait_until("the honest one is ready", LIMIT, || honest.said().contains("ready: requests are decided"));
    wait_until("admin is ready", LIMIT, || readiness(&setup).0 == 200);

    // Whoever took a sidecar over says what no sidecar of ours would.
    let [certificate, key] = ["crt", "key"].map(|kind| authority.file("billing.test", kind).into());
    let files = TlsFiles { certificate, key, authorities: authority.folder.join("ca.crt") };
    let source = StateSource::Tls(format!("127.0.0.1:{port}"), ClientTls::load(&files, "admin.test").unwrap());
    let (words, said) = tokio::sync::mpsc::channel(8);
    let say = |message| proto::StateRequest { message: Some(message) };
    let hello = proto::Hello { replay_window: "local:billing".to_owned(), ..proto::Hello::default() };
    words.send(say(Message::Hello(hello))).await.unwrap();
    let channel = sigilum::state::connect(&source).await.unwrap();
    let stream = StateServiceClient::new(channel).stream(tokio_stream::wrappers::ReceiverStream::new(said)).await;
    let mut responses = stream.unwrap().into_inner();
    let version = responses.message().await.unwrap().unwrap().version.unwrap();
    words.send(say(Message::Applied(version))).await.unwrap();
    let report = proto::Report {
        replay_entries: u64::MAX,
        replay_capacity: u64::MAX,
        replay_failing: true,
        replay_starting: true,
        replay_store_failing: true,
        ..proto::Report::default()
    };
    words.send(say(Message::Report(report))).await.unwrap();
    let told = || readiness(&setup);
    wait_until("it is named", LIMIT, || condition(&told().1, "RemoteAuthz")["status"] == "False");
    let (status, body) = told();
    assert_eq!((status, &body["ready"], &body["failures"]), (200, &json!(true), &json!([])), "{body}");
    let found = condition(&body, "RemoteAuthz");
    assert_eq!((&found["reason"], &found["requirement"]), (&json!("StoreUnreachable"), &json!("advisory")), "{found}");
    assert!(found["message"].as_str().unwrap().starts_with("billing.test ("), "{found}");
    drop((words, responses));
    wait_until("it is gone", LIMIT, || condition(&told().1, "RemoteAuthz")["status"] == "True");
    // That the one which decides has gone is no word of anybody.
    drop(honest);
    wait_until("nobody decides", LIMIT, || told().0 == 503);
}

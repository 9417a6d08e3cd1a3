//! `gateway pair` and `gateway connect` as a person and a script meet them: against a control plane that does what a
//! test says and a small gateway, over real sockets. systemd is a script on PATH that keeps what it is told.

use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::WebSocket;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;

const SESSION: &str = "0b5c2a4e-7f57-4a3c-9c7e-0d3a8f6f2b11";
const CODE: &str = "CANARYCD";
const TOKEN: &str = "canary-admin-token-0123456789";
const LIMIT: Duration = Duration::from_secs(60);

/// What the control plane does with who wants a socket.
#[derive(Debug, Clone, Copy)]
enum Manner {
    Open,
    /// It opens, and gives this to come back with.
    Give(&'static str),
    Refuse(u16, &'static str),
    /// It opens, and closes with this reason.
    Close(&'static str),
    /// Every answer is a page for people.
    Page,
}

/// Both ends of a bridge.
struct Ends {
    api: SocketAddr,
    gateway: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    /// The heads of the requests that wanted a socket.
    handshakes: Arc<Mutex<Vec<String>>>,
}

fn head(stream: &mut impl std::io::Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn page(stream: &mut impl std::io::Write, status: u16, kind: &str, body: &str) {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} x\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close");
    let _ = stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes());
}

fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, serve) = (listener.local_addr().unwrap(), Arc::new(serve));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    address
}

impl Ends {
    fn start(manner: Manner) -> Self {
        let (manner, handshakes) = (Arc::new(Mutex::new(manner)), Arc::new(Mutex::new(Vec::new())));
        let (shared, seen) = (Arc::clone(&manner), Arc::clone(&handshakes));
        let api = listen(move |stream| {
            // One socket must not hold up the next.
            let manner = *shared.lock().unwrap();
            control_plane(stream, manner, &seen);
        });
        let gateway = listen(|mut stream| {
            let head = head(&mut stream);
            match head.split_whitespace().nth(1).unwrap_or_default() {
                "/health" => page(&mut stream, 200, "application/json", "{}"),
                _ if !head.contains(&format!("x-sigilum-admin-token: {TOKEN}\r\n")) => {
                    page(&mut stream, 403, "application/json", "{}");
                }
                "/api/admin/sealing-key" => {
                    page(&mut stream, 200, "application/json", r#"{"fingerprint":"ab12-cd34"}"#);
                }
                _ => page(&mut stream, 404, "application/json", "{}"),
            }
        });
        Self { api, gateway, manner, handshakes }
    }

    /// A second door to the same control plane: with TLS, under a certificate of this name. Its address, and the
    /// certificate as PEM.
    fn with_tls(&self, name: &str) -> (SocketAddr, String) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let (config, shared, seen) = (Arc::new(config), Arc::clone(&self.manner), Arc::clone(&self.handshakes));
        let address = listen(move |stream| {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let manner = *shared.lock().unwrap();
            control_plane(rustls::StreamOwned::new(session, stream), manner, &seen);
        });
        (address, made.cert.pem())
    }

    fn be(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    fn api(&self) -> String {
        format!("http://{}", self.api)
    }

    fn gateway(&self) -> String {
        format!("http://{}", self.gateway)
    }
}

fn control_plane(mut stream: impl std::io::Read + std::io::Write, manner: Manner, seen: &Mutex<Vec<String>>) {
    let head = head(&mut stream);
    if let Manner::Page = manner {
        return page(&mut stream, 200, "text/html", "<!doctype html><title>x</title>");
    }
    if !head.to_ascii_lowercase().contains("upgrade: websocket") {
        let status = if head.contains("/connect") { 400 } else { 200 };
        return page(&mut stream, status, "application/json", "{}");
    }
    seen.lock().unwrap().push(head.clone());
    if let Manner::Refuse(status, text) = manner {
        return page(&mut stream, status, "application/json", &json!({ "error": text }).to_string());
    }
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
    let accept = derive_accept_key(key.as_bytes());
    let more = match manner {
        Manner::Give(secret) => format!("x-sigilum-reconnect-secret: {secret}\r\n"),
        Manner::Open | Manner::Refuse(..) | Manner::Close(_) | Manner::Page => String::new(),
    };
    let answer = format!(
        "HTTP/1.1 101 x\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n{more}\r\n"
    );
    stream.write_all(answer.as_bytes()).unwrap();
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, None);
    if let Manner::Close(reason) = manner {
        let _ = socket.close(Some(CloseFrame { code: 1000.into(), reason: reason.into() }));
    }
    while let Ok(message) = socket.read() {
        if message.to_text().is_ok_and(|text| text.contains("ping")) {
            let _ = socket.send(Message::text(r#"{"type":"pong"}"#));
        }
    }
}

/// A person with an admin token, a control plane and a gateway.
struct Pairing {
    person: Person,
    ends: Ends,
}

impl Drop for Pairing {
    fn drop(&mut self) {
        // What a test that failed left in the background.
        let _ = self.command(&["gateway", "pair", "--stop"]).output();
    }
}

impl Pairing {
    fn new(manner: Manner) -> Self {
        let person = Person::new();
        person.file(".sigilum-workspace/admin-token", "");
        let token = person.file(".local/share/sigilum-gateway/admin-token", TOKEN);
        fs::set_permissions(token, fs::Permissions::from_mode(0o600)).unwrap();
        Self { person, ends: Ends::start(manner) }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.person.command(arguments);
        command
            .env("GATEWAY_ADMIN_URL", self.ends.gateway())
            .env("SIGILUM_API_URL", self.ends.api())
            .env("SIGILUM_NAMESPACE", "acme");
        command
    }

    /// `gateway pair` for the session, with its code in the environment.
    fn pair(&self, more: &[&str]) -> Command {
        let mut command = self.command(&["gateway", "pair", "--session-id", SESSION, "--reconnect-ms", "100"]);
        command.args(more).env("SIGILUM_PAIR_CODE", CODE);
        command
    }

    fn run_folder(&self) -> PathBuf {
        self.person.home().join(".sigilum/run")
    }

    fn background(&self, action: &str) -> Output {
        self.command(&["gateway", "pair", action]).output().unwrap()
    }
}

#[allow(clippy::disallowed_methods, reason = "a deadline of the test")]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < LIMIT, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What a bridge in the foreground prints, until it prints `last`.
fn read_to(child: &mut Child, last: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.as_mut().unwrap()).lines() {
        lines.push(line.unwrap());
        if lines.last().unwrap().contains(last) {
            return lines;
        }
    }
    panic!("{last} never came: {lines:?}");
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn a_bridge_says_what_scripts_look_for_and_ends_when_told_to() {
    let pairing = Pairing::new(Manner::Open);
    let mut child = pairing.pair(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = read_to(&mut child, "success");
    let (api, gateway) = (pairing.ends.api(), pairing.ends.gateway());
    assert_eq!(
        lines,
        [
            "[sigilum] preflight: ok".to_owned(),
            "[sigilum] sealing key fingerprint: ab12-cd34".to_owned(),
            format!("[sigilum] websocket connected (session={SESSION}, api={api})"),
            format!(
                "[sigilum] success: pairing bridge ready (session={SESSION}, namespace=acme, gateway_admin={gateway})"
            ),
        ]
    );
    signal(child.id(), rustix::process::Signal::TERM);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text_of(&output.stdout), "[sigilum] gateway pairing bridge stopped\n");
}

#[test]
fn a_control_plane_is_reached_over_tls_and_must_prove_its_name() {
    let pairing = Pairing::new(Manner::Open);
    let run = |name: &str, believed: bool| {
        let (address, certificate) = pairing.ends.with_tls(name);
        let file = pairing.person.file("ca.pem", &certificate);
        let mut command = pairing.pair(&["--api-url", &format!("https://{address}")]);
        if believed {
            command.env("SSL_CERT_FILE", file);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut child = run("127.0.0.1", true);
    read_to(&mut child, "success: pairing bridge ready");
    signal(child.id(), rustix::process::Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let seen = pairing.ends.handshakes.lock().unwrap().len();
    for (name, believed) in [("127.0.0.1", false), ("another.example", true)] {
        let output = run(name, believed).wait_with_output().unwrap();
        let said = text_of(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("certificate"), "{said}");
    }
    assert_eq!(pairing.ends.handshakes.lock().unwrap().len(), seen, "nobody else saw the code");
}

#[test]
fn a_session_that_is_over_exits_42_with_its_marker() {
    for (status, text) in [
        (404, "Pair session not found"),
        (410, "Pair session expired"),
        (403, "Namespace mismatch"),
        (403, "Invalid pair code"),
    ] {
        let output = Pairing::new(Manner::Refuse(status, text)).pair(&[]).output().unwrap();
        let said = text_of(&output.stderr);
        assert_eq!(output.status.code(), Some(42), "{said}");
        assert!(said.contains(&format!("[sigilum] PAIR_SESSION_TERMINAL: {text} (HTTP {status})")), "{said}");
        assert!(!said.contains(CODE), "{said}");
    }
}

#[test]
fn a_bridge_that_is_replaced_gives_way() {
    let output = Pairing::new(Manner::Close("replaced")).pair(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = text_of(&output.stderr);
    assert!(said.contains("[sigilum] another bridge has taken this session over"), "{said}");
    assert!(text_of(&output.stdout).contains("[sigilum] websocket closed (1000) replaced\n"));
}

#[test]
fn a_dashboard_in_place_of_the_api_is_said() {
    let output = Pairing::new(Manner::Page).pair(&[]).output().unwrap();
    let said = text_of(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("[sigilum] preflight: a web page answers at http://127.0.0.1:"), "{said}");
    assert!(said.contains("[sigilum] hint: that looks like the address of a dashboard"), "{said}");
}

#[test]
fn a_gateway_that_does_not_run_is_said() {
    let pairing = Pairing::new(Manner::Open);
    let output = pairing.pair(&["--gateway-admin-url", "http://127.0.0.1:9"]).output().unwrap();
    let said = text_of(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("[sigilum] preflight: the gateway's admin API does not answer"), "{said}");
    assert!(said.contains("sigilum gateway start"), "{said}");
    assert!(pairing.ends.handshakes.lock().unwrap().is_empty());
}

#[test]
fn a_gateway_that_refuses_the_token_is_said_at_once() {
    let pairing = Pairing::new(Manner::Open);
    let mut command = pairing.pair(&[]);
    command.env("GATEWAY_ADMIN_TOKEN", "wrong-token-wrong-token").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    read_to(&mut child, "success");
    signal(child.id(), rustix::process::Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(text_of(&output.stderr).contains("the gateway does not take the admin token"), "{output:?}");
}

#[test]
fn wrong_arguments_exit_64() {
    let pairing = Pairing::new(Manner::Open);
    let file = pairing.person.file("code", CODE);
    for arguments in [
        &["--session-id", SESSION][..],
        &["--pair-code-file", &file],
        &["--session-id", SESSION, "--pair-code-file", &file, "--pair-code", CODE],
        &["--session-id", "a b", "--pair-code-file", &file],
        &["--session-id", SESSION, "--pair-code-file", &file, "--reconnect-ms", "soon"],
        &["--session-id", SESSION, "--pair-code-file", &file, "--api-url", "dashboard"],
        &["--daemon", "--status"],
        &["--lifecycle-mode", "eternal", "--status"],
        &["--nonsense"],
    ] {
        let output = pairing.command(&["gateway", "pair"]).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", text_of(&output.stderr));
    }
    assert_eq!(pairing.command(&["gateway", "pair", "-h"]).output().unwrap().status.code(), Some(0));
}

#[test]
fn a_time_below_its_bound_is_replaced_and_said() {
    let pairing = Pairing::new(Manner::Refuse(404, "Pair session not found"));
    for (heartbeat, patience) in [("NaN", "5"), ("-5", "-1")] {
        let output = pairing.pair(&["--heartbeat-ms", heartbeat, "--relay-timeout-ms", patience]).output().unwrap();
        let said = text_of(&output.stderr);
        assert!(said.contains("--heartbeat-ms must not be below 1000; it is 25000 now"), "{said}");
        assert!(said.contains("--relay-timeout-ms must not be below 1000; it is 10000 now"), "{said}");
    }
}

#[test]
fn the_code_is_taken_from_each_of_its_places() {
    let pairing = Pairing::new(Manner::Refuse(410, "Pair session expired"));
    let file = pairing.person.file("code", &format!("{CODE}\n"));
    let base = ["gateway", "pair", "--session-id", SESSION];
    for (arguments, stdin, variable, warned) in [
        (&["--pair-code", CODE][..], false, false, true),
        (&["--pair-code-file", &file], false, false, false),
        (&["--pair-code-file", "-"], true, false, false),
        (&[], false, true, false),
    ] {
        let mut command = pairing.command(&base);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        if variable {
            command.env("SIGILUM_PAIR_CODE", CODE);
        }
        if stdin {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().unwrap();
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(CODE.as_bytes()).unwrap();
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(42), "{arguments:?}");
        let head = pairing.ends.handshakes.lock().unwrap().pop().unwrap();
        assert!(head.contains(&format!("x-sigilum-pair-code: {CODE}\r\n")), "{head}");
        let said = text_of(&output.stderr);
        assert_eq!(said.matches("every process of this machine can read arguments").count(), usize::from(warned));
    }
}

#[test]
fn the_session_id_is_taken_from_each_of_its_places() {
    let pairing = Pairing::new(Manner::Refuse(410, "Pair session expired"));
    let both = format!("{SESSION}:{CODE}");
    let file = pairing.person.file("both", &format!("{both}\n"));
    let other = "6f1d7a90-43be-4c7c-8a77-1f0a3f1f5d1e";
    let wanted = format!("session_id={SESSION}&");
    let run = |arguments: &[&str], session: Option<&str>, code: Option<&str>, stdin: &str| {
        let mut command = pairing.command(&["gateway", "pair"]);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs(session.map(|id| ("SIGILUM_PAIR_SESSION_ID", id)));
        command.envs(code.map(|code| ("SIGILUM_PAIR_CODE", code)));
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    for (arguments, session, code, stdin) in [
        (&[][..], Some(SESSION), Some(CODE), ""),
        (&["--session-id", SESSION], Some(other), Some(CODE), ""),
        (&["--pair-code-file", &file], None, None, ""),
        (&["--pair-code-file", &file], Some(SESSION), None, ""),
        (&["--pair-code-file", "-"], None, None, &both),
        (&[], None, Some(&both), ""),
    ] {
        let output = run(arguments, session, code, stdin);
        assert_eq!(output.status.code(), Some(42), "{arguments:?}: {}", text_of(&output.stderr));
        let head = pairing.ends.handshakes.lock().unwrap().pop().unwrap();
        assert!(head.contains(&wanted) && head.contains(&format!("x-sigilum-pair-code: {CODE}\r\n")), "{head}");
    }
    for (arguments, session, code) in [
        (&["--pair-code-file", &file][..], Some(other), None),
        (&["--pair-code-file", &file, "--session-id", other], None, None),
        (&[], None, Some(CODE)),
        (&[], Some("a b"), Some(CODE)),
    ] {
        let output = run(arguments, session, code, "");
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", text_of(&output.stderr));
        assert!(!text_of(&output.stderr).contains(CODE));
    }
    assert!(pairing.ends.handshakes.lock().unwrap().is_empty());
}

#[test]
fn a_session_has_one_bridge_of_a_user() {
    let pairing = Pairing::new(Manner::Open);
    let elsewhere = pairing.person.home().join("b/bridge");
    let [log, pid_file] = ["log", "pid"].map(|end| elsewhere.with_extension(end).display().to_string());
    let files = ["--daemon", "--log-file", &log, "--pid-file", &pid_file];
    assert_eq!(pairing.pair(&["--daemon"]).output().unwrap().status.code(), Some(0));
    let pid = pairing.person.read(".sigilum/run/gateway-pair-bridge.pid").lines().next().unwrap().to_owned();
    for (more, code) in [(&files[..], 1), (&[], 78)] {
        let output = pairing.pair(more).output().unwrap();
        let said = text_of(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(&format!("for this session is running already: pid {pid} (")), "{said}");
    }
    assert!(!std::path::Path::new(&pid_file).exists());
    assert_eq!(pairing.ends.handshakes.lock().unwrap().len(), 1);
    // Another session of the same API is another matter.
    let mut other = pairing.command(&["gateway", "pair", "--session-id", "another"]);
    assert_eq!(other.args(files).env("SIGILUM_PAIR_CODE", CODE).output().unwrap().status.code(), Some(0));
    let stop = ["gateway", "pair", "--stop", "--pid-file", &pid_file];
    assert_eq!(pairing.command(&stop).output().unwrap().status.code(), Some(0));
    // What is stopped makes room.
    assert_eq!(pairing.background("--stop").status.code(), Some(0));
    assert_eq!(pairing.pair(&files).output().unwrap().status.code(), Some(0));
    assert_eq!(pairing.command(&stop).output().unwrap().status.code(), Some(0));
}

#[test]
fn the_lock_of_a_session_goes_with_it() {
    let pairing = Pairing::new(Manner::Refuse(410, "Pair session expired"));
    assert_eq!(pairing.pair(&[]).output().unwrap().status.code(), Some(42));
    let left: Vec<_> = fs::read_dir(pairing.run_folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_bridge_in_the_background_has_no_secret_in_its_environment_but_what_opens_the_admin_api() {
    let pairing = Pairing::new(Manner::Open);
    let secrets = [
        "GATEWAY_MASTER_KEY",
        "JWT_SECRET",
        "SIGILUM_OWNER_TOKEN",
        "SIGILUM_SERVICE_API_KEY",
        "SIGILUM_SERVICE_API_KEY_LINEAR",
        "GATEWAY_REPLAY_PASSWORD",
        "GATEWAY_OTLP_HEADERS",
    ];
    let mut command = pairing.pair(&["--daemon"]);
    command.envs(secrets.map(|name| (name, "canary=0123456789abcdef0123456789abcdef"))).env("HARMLESS", "here");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text_of(&output.stderr));
    let file = pairing.run_folder().join("gateway-pair-bridge.pid");
    let pid = fs::read_to_string(file).unwrap().lines().next().unwrap().to_owned();
    // Root alone may look into a hardened process.
    if let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) {
        let environment = String::from_utf8_lossy(&environment);
        assert!(environment.contains("HARMLESS=here"), "{environment}");
        for name in secrets {
            assert!(!environment.contains(&format!("{name}=")), "{name}");
        }
        assert!(!environment.contains("canary=") && !environment.contains(CODE), "{environment}");
    }
    assert_eq!(pairing.background("--stop").status.code(), Some(0));
}

#[test]
fn a_bridge_in_the_background_is_started_found_and_stopped() {
    let pairing = Pairing::new(Manner::Open);
    let output = pairing.pair(&["--daemon"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text_of(&output.stderr));
    let said = text_of(&output.stdout);
    let folder = pairing.run_folder();
    let (pid_file, log) = (folder.join("gateway-pair-bridge.pid"), folder.join("gateway-pair-bridge.log"));
    let pid: u32 = fs::read_to_string(&pid_file).unwrap().lines().next().unwrap().parse().unwrap();
    let wanted = format!(
        "Gateway pair bridge started in background.\npid:      {pid}\npid_file: {}\nlog_file: {}\n\
         sealing key fingerprint: ab12-cd34\n",
        pid_file.display(),
        log.display()
    );
    assert_eq!(said, wanted);
    assert_eq!((mode(&log), mode(&pid_file), mode(&folder)), (0o600, 0o600, 0o700));
    assert!(fs::read_to_string(&log).unwrap().contains("[sigilum] success: pairing bridge ready"));

    let status = pairing.background("--status");
    assert_eq!(status.status.code(), Some(0));
    let wanted = format!(
        "Gateway pair bridge is running (pid={pid}).\nsession:  {SESSION}\napi:      {}\nstate:    connected\n\
         pid_file: {}\nlog_file: {}\n",
        pairing.ends.api(),
        pid_file.display(),
        log.display()
    );
    assert_eq!(text_of(&status.stdout), wanted);
    let state = folder.join("gateway-pair-bridge.pid.state");
    assert_eq!(mode(&state), 0o600);

    let second = pairing.pair(&["--daemon"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(text_of(&second.stderr).contains(&format!("is running already (pid={pid})")));

    let stopped = pairing.background("--stop");
    assert_eq!(stopped.status.code(), Some(0));
    assert_eq!(text_of(&stopped.stdout), format!("Stopped gateway pair bridge (pid={pid}).\n"));
    assert!(!pid_file.exists() && !state.exists());
    assert!(fs::read_to_string(&log).unwrap().ends_with("[sigilum] gateway pairing bridge stopped\n"));

    for (action, code) in [("--status", 1), ("--stop", 0)] {
        let output = pairing.background(action);
        assert_eq!(output.status.code(), Some(code));
        assert_eq!(text_of(&output.stdout), "Gateway pair bridge is not running.\n");
    }
}

/// What a process was started with. A process that holds secrets lets nobody but root read it: then that is seen, and
/// what was handed over is the matter of the unit test of `supervision::detached`.
fn environment_of(pid: &str) -> String {
    match fs::read(format!("/proc/{pid}/environ")) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert!(text.contains("HOME="), "{text:?}");
            text
        }
        Err(error) => {
            assert!(!rustix::process::geteuid().is_root(), "{error}");
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
            String::new()
        }
    }
}

#[test]
fn the_gateway_that_connect_starts_has_neither_session_nor_code() {
    let pairing = Pairing::new(Manner::Open);
    // It is asked for its version, and takes its time.
    let envoy = pairing.person.file("envoy", "#!/bin/sh\nexec sleep 20\n");
    fs::set_permissions(&envoy, fs::Permissions::from_mode(0o700)).unwrap();
    let api = pairing.ends.api();
    let mut command = pairing.command(&["gateway", "connect", "--gateway-admin-url", ":9", "--api-url", &api]);
    command.env("SIGILUM_PAIR_SESSION_ID", SESSION).env("SIGILUM_PAIR_CODE", CODE).env("ENVOY_BIN", envoy);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid_file = pairing.run_folder().join("gateway-start.pid");
    until("no gateway was started", || pid_file.exists());
    let pid = fs::read_to_string(&pid_file).unwrap().lines().next().unwrap().to_owned();
    let environment = environment_of(&pid);
    child.kill().unwrap();
    child.wait().unwrap();
    signal(pid.parse().unwrap(), rustix::process::Signal::TERM);
    for secret in [CODE, SESSION] {
        assert!(!environment.contains(secret), "{secret} in {environment}");
    }
}

#[test]
fn neither_code_nor_token_is_left_anywhere() {
    let pairing = Pairing::new(Manner::Open);
    let mut command = pairing.command(&["gateway", "pair", "--daemon"]);
    command.env("SIGILUM_PAIR_SESSION_ID", SESSION).env("SIGILUM_PAIR_CODE", CODE);
    assert_eq!(command.output().unwrap().status.code(), Some(0));
    let pid_file = pairing.run_folder().join("gateway-pair-bridge.pid");
    let pid = fs::read_to_string(pid_file).unwrap().lines().next().unwrap().to_owned();
    let arguments = String::from_utf8(fs::read(format!("/proc/{pid}/cmdline")).unwrap()).unwrap();
    assert!(arguments.contains("--session-file\0-\0"), "{arguments}");
    let environment = environment_of(&pid);
    for secret in [CODE, SESSION] {
        assert!(!arguments.contains(secret) && !environment.contains(secret), "{secret}");
    }
    assert!(!arguments.contains("acme"), "{arguments}");
    for (secret, places) in [(CODE, 0), (TOKEN, 1)] {
        let holders = gateway::holders(pairing.person.home(), secret.as_bytes());
        assert_eq!(holders.len(), places, "{holders:?}");
    }
    let heads = pairing.ends.handshakes.lock().unwrap().concat();
    assert!(heads.contains(CODE) && !heads.contains(TOKEN));
}

#[test]
fn a_bridge_outlives_the_terminal_of_its_command() {
    let pairing = Pairing::new(Manner::Open);
    assert_eq!(pairing.pair(&["--daemon"]).output().unwrap().status.code(), Some(0));
    let pid_file = pairing.run_folder().join("gateway-pair-bridge.pid");
    let pid = fs::read_to_string(pid_file).unwrap().lines().next().unwrap().to_owned();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // Fields 6 (session) and 7 (terminal): a session of its own, without a terminal.
    assert_eq!((fields[3], fields[4]), (pid.as_str(), "0"), "{stat}");
}

#[test]
fn another_process_of_the_same_number_is_left_alone() {
    let pairing = Pairing::new(Manner::Open);
    let mut other = Command::new("sleep").arg("600").spawn().unwrap();
    for text in [format!("{}\nanother time\n", other.id()), format!("{}\n", other.id())] {
        pairing.person.file(".sigilum/run/gateway-pair-bridge.pid", &text);
        let status = pairing.background("--status");
        assert_eq!(
            (status.status.code(), text_of(&status.stdout).as_str()),
            (Some(1), "Gateway pair bridge is not running.\n")
        );
        assert_eq!(pairing.background("--stop").status.code(), Some(0));
        assert!(other.try_wait().unwrap().is_none(), "it was stopped");
        pairing.person.file(".sigilum/run/gateway-pair-bridge.pid", &text);
        assert_eq!(pairing.pair(&["--daemon"]).output().unwrap().status.code(), Some(0));
        assert_eq!(pairing.background("--stop").status.code(), Some(0));
    }
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_bridge_that_was_killed_is_started_again() {
    let pairing = Pairing::new(Manner::Open);
    assert_eq!(pairing.pair(&["--daemon"]).output().unwrap().status.code(), Some(0));
    let pid_file = pairing.run_folder().join("gateway-pair-bridge.pid");
    let pid = fs::read_to_string(&pid_file).unwrap().lines().next().unwrap().parse().unwrap();
    signal(pid, rustix::process::Signal::KILL);
    until("the killed bridge is still seen", || pairing.background("--status").status.code() == Some(1));
    assert_eq!(pairing.pair(&["--daemon"]).output().unwrap().status.code(), Some(0));
    assert_ne!(fs::read_to_string(&pid_file).unwrap().lines().next().unwrap(), pid.to_string());
}

#[test]
fn of_two_starts_at_once_one_starts() {
    let pairing = Pairing::new(Manner::Open);
    let children: Vec<_> = (0..3)
        .map(|_| pairing.pair(&["--daemon"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
        .collect();
    let mut codes: Vec<_> = children.into_iter().map(|mut child| child.wait().unwrap().code()).collect();
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(1), Some(1)]);
    assert_eq!(pairing.ends.handshakes.lock().unwrap().len(), 1);
}

#[test]
fn a_background_start_for_a_session_that_is_over_exits_42_and_is_remembered() {
    let pairing = Pairing::new(Manner::Refuse(410, "Pair session expired"));
    let output = pairing.pair(&["--daemon"]).output().unwrap();
    assert_eq!(output.status.code(), Some(42));
    assert!(text_of(&output.stderr).contains("PAIR_SESSION_TERMINAL: Pair session expired"));
    let status = pairing.background("--status");
    assert_eq!((status.status.code(), text_of(&status.stdout).as_str()), (Some(1), ""));
    assert!(text_of(&status.stderr).contains("has expired"));
    // Another session begins with another log.
    pairing.ends.be(Manner::Open);
    assert_eq!(pairing.pair(&["--daemon"]).output().unwrap().status.code(), Some(0));
    assert_eq!(pairing.background("--status").status.code(), Some(0));
}

#[test]
fn a_background_start_without_its_gateway_exits_1_and_shows_why() {
    let pairing = Pairing::new(Manner::Open);
    let output = pairing.pair(&["--daemon", "--gateway-admin-url", "http://127.0.0.1:9"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text_of(&output.stderr).contains("[sigilum] preflight: the gateway's admin API does not answer"));
    assert!(!pairing.run_folder().join("gateway-pair-bridge.pid").exists());
}

#[test]
fn log_and_pid_file_may_be_elsewhere() {
    let pairing = Pairing::new(Manner::Open);
    let (log, pid) = (pairing.person.home().join("a/bridge.log"), pairing.person.home().join("b/bridge.pid"));
    let files = ["--log-file", log.to_str().unwrap(), "--pid-file", pid.to_str().unwrap()];
    assert_eq!(pairing.pair(&["--daemon"]).args(files).output().unwrap().status.code(), Some(0));
    assert!(log.exists() && pid.exists());
    assert_eq!(pairing.background("--status").status.code(), Some(1));
    // The bridge itself says where it prints.
    let status = pairing.command(&["gateway", "pair", "--status", "--pid-file", files[3]]).output().unwrap();
    assert!(text_of(&status.stdout).contains(&format!("log_file: {}\n", log.display())), "{status:?}");
    let with_files = |action| pairing.command(&["gateway", "pair", action]).args(files).output().unwrap();
    assert_eq!(with_files("--status").status.code(), Some(0));
    assert_eq!(with_files("--stop").status.code(), Some(0));
    assert_eq!(with_files("--status").status.code(), Some(1));
}

#[test]
fn connect_pairs_a_gateway_that_runs() {
    let pairing = Pairing::new(Manner::Open);
    let (api, gateway) = (pairing.ends.api(), pairing.ends.gateway());
    let mut command = pairing.command(&["gateway", "connect", "--session-id", SESSION, "--api-url", &api]);
    let output = command.env("SIGILUM_PAIR_CODE", CODE).output().unwrap();
    let said = text_of(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text_of(&output.stderr));
    assert!(!said.contains("is not running"), "{said}");
    for line in [
        "sealing key fingerprint: ab12-cd34".to_owned(),
        format!("Gateway is healthy at {gateway}"),
        "Gateway pair bridge started in background.".to_owned(),
        "Connect complete.".to_owned(),
        format!("gateway health: {gateway}/health"),
    ] {
        assert_eq!(said.lines().filter(|found| **found == line).count(), 1, "{line} in {said}");
    }
    assert!(said.lines().any(|line| line.starts_with("pair status:    ")), "{said}");
    // Once more: the bridge is replaced.
    let again = command.output().unwrap();
    assert_eq!(again.status.code(), Some(0), "{}", text_of(&again.stderr));
    assert!(text_of(&again.stdout).contains("Stopped gateway pair bridge (pid="));
}

#[test]
fn connect_says_how_a_pairing_ended() {
    let pairing = Pairing::new(Manner::Refuse(403, "Invalid pair code"));
    let api = pairing.ends.api();
    let mut command = pairing.command(&["gateway", "connect", "--session-id", SESSION, "--api-url", &api]);
    let output = command.env("SIGILUM_PAIR_CODE", CODE).output().unwrap();
    assert_eq!(output.status.code(), Some(42), "{}", text_of(&output.stderr));
    assert!(!text_of(&output.stdout).contains("Connect complete."));
}

#[test]
fn connect_asks_before_it_starts_anything() {
    let pairing = Pairing::new(Manner::Open);
    let output = pairing.command(&["gateway", "connect", "--session-id", SESSION]).output().unwrap();
    assert_eq!(output.status.code(), Some(64), "the code is missing");
    assert!(!pairing.run_folder().exists());
}

#[test]
fn connect_names_the_log_of_a_gateway_that_does_not_start() {
    let pairing = Pairing::new(Manner::Open);
    // All three at once, so that no two are the same.
    let free = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [admin, ingress, envoy] = free.map(|listener| listener.local_addr().unwrap().to_string());
    let mut command = pairing.command(&["gateway", "connect", "--session-id", SESSION, "--gateway-admin-url", &admin]);
    command.args(["--api-url", &pairing.ends.api(), "--ingress-addr", &ingress, "--envoy-admin-addr", &envoy]);
    command.env("SIGILUM_PAIR_CODE", CODE).env("ENVOY_BIN", "/none/envoy");
    let output = command.output().unwrap();
    let (said, log) = (text_of(&output.stderr), pairing.run_folder().join("gateway-start.log"));
    assert_eq!(output.status.code(), Some(1), "{said}");
    let why = said.lines().find(|line| line.starts_with("error: the gateway has ended")).unwrap();
    assert!(why.contains("/none/envoy"), "{why}");
    assert!(said.contains(log.to_str().unwrap()), "{said}");
    assert!(!fs::read_to_string(&log).unwrap().is_empty());
    assert_eq!(mode(&log), 0o600);
    assert!(!pairing.run_folder().join("gateway-start.pid").exists());
}

#[test]
fn connect_starts_no_gateway_on_another_machine() {
    let pairing = Pairing::new(Manner::Open);
    let api = pairing.ends.api();
    let url = ["--gateway-admin-url", "https://192.0.2.1:38100", "--api-url", &api];
    let mut command = pairing.command(&["gateway", "connect", "--session-id", SESSION]);
    let output = command.args(url).env("SIGILUM_PAIR_CODE", CODE).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text_of(&output.stderr).contains("which is not this machine"), "{}", text_of(&output.stderr));
}

/// A `systemctl` that keeps what it is told. `<unit>.next` is what `show` says after a start.
const SYSTEMCTL: &str = r#"#!/bin/sh
folder=$(dirname "$0")
echo "$@" >> "$folder/calls"
[ -e "$folder/$2.fails" ] && exit 1
case "$2" in
    show) cat "$folder/$3.show" 2>/dev/null;;
    restart) cp "$folder/$3.next" "$folder/$3.show";;
    stop) rm -f "$folder/$3.show";;
esac
exit 0
"#;

const UNIT: &str = "sigilum-gateway-pair.service";

/// A person with a systemd.
struct Stable(Pairing);

impl Stable {
    fn new(manner: Manner, next: &str) -> Self {
        let pairing = Pairing::new(manner);
        let script = pairing.person.file("bin/systemctl", SYSTEMCTL);
        fs::set_permissions(script, fs::Permissions::from_mode(0o700)).unwrap();
        pairing.person.file(&format!("bin/{UNIT}.next"), next);
        Self(pairing)
    }

    fn with(&self, mut command: Command) -> Output {
        let path = format!("{}:/usr/bin:/bin", self.0.person.home().join("bin").display());
        command.env("PATH", path).output().unwrap()
    }

    fn pair(&self, more: &[&str]) -> Output {
        self.with(self.0.pair(more))
    }

    fn calls(&self) -> String {
        self.0.person.read("bin/calls")
    }

    fn unit(&self) -> String {
        self.0.person.read(&format!(".config/systemd/user/{UNIT}"))
    }

    fn session_file(&self) -> PathBuf {
        self.0.run_folder().join("pair-session.json")
    }
}

const RUNNING: &str = "ActiveState=active\nMainPID=4711\nExecMainStatus=0\nUnitFileState=enabled\n";
/// It has ended and waits for its next start.
const AGAIN: &str = "ActiveState=activating\nMainPID=0\nExecMainStatus=1\nUnitFileState=enabled\n";

#[test]
fn with_a_user_manager_the_bridge_is_a_unit_without_the_code() {
    let stable = Stable::new(Manner::Open, RUNNING);
    let output = stable.pair(&["--daemon"]);
    assert_eq!(output.status.code(), Some(0), "{}", text_of(&output.stderr));
    let said = text_of(&output.stdout);
    assert!(said.starts_with("Gateway pair bridge started as systemd user service.\n"), "{said}");
    assert!(said.contains(&format!("unit:     {UNIT}\npid:      4711\n")), "{said}");
    let calls = stable.calls();
    let begins = calls.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect::<Vec<_>>().join(" ");
    assert!(begins.contains("daemon-reload enable reset-failed restart show"), "{begins}");
    let file = stable.session_file();
    assert_eq!((mode(&file), fs::read_to_string(&file).unwrap().contains(CODE)), (0o600, true));
    // Only there: not in the unit, which is in another folder, nor in what systemctl was told.
    assert_eq!(gateway::holders(stable.0.person.home(), CODE.as_bytes()), [file.display().to_string()]);
    let unit = stable.unit();
    assert!(unit.contains(&format!("\"--session-file\" \"{}\"", file.display())), "{unit}");
    let started = unit.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
    assert!(!unit.contains(SESSION) && !started.contains("acme"), "{unit}");

    let status = stable.with(stable.0.command(&["gateway", "pair", "--status"]));
    assert_eq!(status.status.code(), Some(0));
    let wanted = format!("Gateway pair bridge is running (systemd unit={UNIT}, pid=4711).\n");
    assert!(text_of(&status.stdout).starts_with(&wanted));
    assert_eq!(stable.pair(&["--daemon"]).status.code(), Some(1), "double start");

    let stopped = stable.with(stable.0.command(&["gateway", "pair", "--stop"]));
    assert_eq!(stopped.status.code(), Some(0));
    assert_eq!(text_of(&stopped.stdout), format!("Stopped gateway pair bridge systemd unit ({UNIT}).\n"));
    assert!(!file.exists(), "the code goes with it");
}

#[test]
fn the_command_of_the_unit_is_a_bridge_that_forgets_a_session_that_is_over() {
    let stable = Stable::new(Manner::Open, RUNNING);
    assert_eq!(stable.pair(&["--daemon"]).status.code(), Some(0));
    let unit = stable.unit();
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let words: Vec<_> = line.trim_matches('"').split("\" \"").collect();
    assert_eq!(words[0], env!("CARGO_BIN_EXE_sigilum"));
    let run = || {
        let mut command = Command::new(words[0]);
        command.env_clear().env("HOME", "/none").args(&words[1..]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut child = run();
    read_to(&mut child, "success: pairing bridge ready");
    signal(child.id(), rustix::process::Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(stable.session_file().exists(), "a stop may be followed by a start");
    stable.0.ends.be(Manner::Refuse(410, "Pair session expired"));
    assert_eq!(run().wait().unwrap().code(), Some(42));
    assert!(!stable.session_file().exists());
    assert_eq!(run().wait().unwrap().code(), Some(78), "there is nothing to start again with");
}

#[test]
fn what_a_bridge_is_given_to_come_back_with_is_kept_with_the_code_and_nowhere_else() {
    const SECRET: &str = "CANARY-secret-0123456789-0123456789-0123456";
    let stable = Stable::new(Manner::Give(SECRET), RUNNING);
    assert_eq!(stable.pair(&["--daemon"]).status.code(), Some(0));
    let file = stable.session_file();
    let run = || {
        let mut command = stable.0.command(&["gateway", "pair", "--session-file", file.to_str().unwrap()]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = read_to(&mut child, "success: pairing bridge ready");
        signal(child.id(), rustix::process::Signal::TERM);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let said = lines.concat() + &text_of(&output.stdout) + &text_of(&output.stderr);
        assert!(!said.contains(SECRET), "{said}");
        stable.0.ends.handshakes.lock().unwrap().pop().unwrap()
    };
    assert!(!run().contains("x-sigilum-reconnect-secret"));
    let kept: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let wanted = json!({"session_id": SESSION, "namespace": "acme", "api_url": format!("{}/", stable.0.ends.api()),
        "pair_code": CODE, "reconnect_secret": SECRET});
    assert_eq!((kept, mode(&file)), (wanted, 0o600));
    stable.0.ends.be(Manner::Open);
    assert!(run().contains(&format!("x-sigilum-reconnect-secret: {SECRET}\r\n")));
    assert_eq!(gateway::holders(stable.0.person.home(), SECRET.as_bytes()), [file.display().to_string()]);
}

#[test]
fn a_unit_is_not_started_for_a_session_that_has_its_bridge() {
    let stable = Stable::new(Manner::Open, RUNNING);
    let mut child = stable.0.pair(&[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    read_to(&mut child, "success: pairing bridge ready");
    let refused = stable.pair(&["--daemon"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text_of(&refused.stderr).contains(&format!("running already: pid {} (", child.id())));
    assert!(!stable.session_file().exists());
    signal(child.id(), rustix::process::Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_session_file_that_others_can_read_is_refused() {
    let pairing = Pairing::new(Manner::Open);
    let session = json!({"session_id": SESSION, "namespace": "acme", "api_url": pairing.ends.api(), "pair_code": CODE});
    let file = pairing.person.file("session.json", &session.to_string());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let output = pairing.command(&["gateway", "pair", "--session-file", &file]).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(text_of(&output.stderr).contains("chmod 600"), "{}", text_of(&output.stderr));
}

#[test]
fn a_unit_that_ends_at_once_says_with_which_code() {
    for (status, code) in [(42, 42), (1, 1), (78, 1)] {
        let next = format!("ActiveState=failed\nMainPID=0\nExecMainStatus={status}\n");
        let stable = Stable::new(Manner::Open, &next);
        let output = stable.pair(&["--daemon"]);
        assert_eq!(output.status.code(), Some(code), "{}", text_of(&output.stderr));
        assert!(text_of(&output.stderr).contains(&format!("journalctl --user -u {UNIT}")));
        let shown = stable.with(stable.0.command(&["gateway", "pair", "--status"]));
        assert_eq!(shown.status.code(), Some(1));
        assert_eq!(text_of(&shown.stderr).contains("has expired"), status == 42);
    }
}

#[test]
fn stable_without_a_user_manager_is_an_error() {
    let pairing = Pairing::new(Manner::Open);
    let mut command = pairing.pair(&["--daemon", "--lifecycle-mode", "stable"]);
    let output = command.env("PATH", "/none").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text_of(&output.stderr).contains("sudo loginctl enable-linger"), "{}", text_of(&output.stderr));
}

#[test]
fn compat_asks_no_systemd() {
    let stable = Stable::new(Manner::Open, RUNNING);
    assert_eq!(stable.pair(&["--daemon", "--lifecycle-mode", "compat"]).status.code(), Some(0));
    assert!(!stable.0.person.home().join("bin/calls").exists());
}

#[test]
fn connect_leaves_a_unit_alone_that_runs_well_and_refuses_a_stranger_in_its_place() {
    let stable = Stable::new(Manner::Open, RUNNING);
    let api = stable.0.ends.api();
    let connect = || {
        let mut command = stable.0.command(&["gateway", "connect", "--session-id", SESSION, "--api-url", &api]);
        command.env("SIGILUM_PAIR_CODE", CODE);
        stable.with(command)
    };
    // A gateway answers, and systemd did not start it.
    let refused = connect();
    assert_eq!(refused.status.code(), Some(1));
    assert!(text_of(&refused.stderr).contains("which systemd did not start"), "{}", text_of(&refused.stderr));
    stable.0.person.file("bin/sigilum-gateway.service.show", RUNNING);
    let output = connect();
    assert_eq!(output.status.code(), Some(0), "{}", text_of(&output.stderr));
    assert!(text_of(&output.stdout).contains("Connect complete."));
    assert!(!stable.calls().contains("restart sigilum-gateway.service"), "{}", stable.calls());
}

#[test]
fn connect_starts_a_gateway_as_a_unit() {
    let stable = Stable::new(Manner::Open, RUNNING);
    stable.0.person.file("bin/sigilum-gateway.service.next", "ActiveState=failed\nExecMainStatus=78\n");
    let mut command = stable.0.command(&["gateway", "connect", "--session-id", SESSION, "--gateway-admin-url", ":9"]);
    command.args(["--api-url", &stable.0.ends.api(), "--ingress-addr", ":7", "--envoy-admin-addr", ":8"]);
    command.env("SIGILUM_PAIR_CODE", CODE).env("GATEWAY_MASTER_KEY", "canary-master-key");
    command.env("GATEWAY_ADMIN_TOKEN", "canary-of-the-environment");
    let output = stable.with(command);
    let said = text_of(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the unit sigilum-gateway.service is not running (exit code 78)"), "{said}");
    for name in ["GATEWAY_MASTER_KEY", "GATEWAY_ADMIN_TOKEN"] {
        assert!(said.contains(&format!("{name} of this environment is not handed to the unit")), "{said}");
    }
    let unit = stable.0.person.read(".config/systemd/user/sigilum-gateway.service");
    assert!(unit.contains("\"gateway\" \"start\" \"--namespace\" \"acme\""), "{unit}");
    assert!(unit.contains("\"--addr\" \":9\""), "{unit}");
    assert!(unit.contains("\"--ingress-addr\" \":7\" \"--envoy-admin-addr\" \":8\""), "{unit}");
    assert!(unit.contains("Environment=\"SIGILUM_NAMESPACE=acme\"\n"), "{unit}");
    assert!(unit.contains("\nExecReload=") && unit.contains("\"secrets\" \"reload\" \"--quiet\"\n"), "{unit}");
    for secret in ["canary-master-key", "canary-of-the-environment", CODE] {
        assert_eq!(gateway::holders(stable.0.person.home(), secret.as_bytes()), Vec::<String>::new());
    }
}

#[test]
fn connect_replaces_no_unit_of_somebody_else() {
    let stable = Stable::new(Manner::Open, RUNNING);
    let foreign = "[Service]\nExecStart=/bin/true\n";
    let unit = stable.0.person.file(".config/systemd/user/sigilum-gateway.service", foreign);
    let mut command = stable.0.command(&["gateway", "connect", "--session-id", SESSION, "--gateway-admin-url", ":9"]);
    command.args(["--api-url", &stable.0.ends.api()]).env("SIGILUM_PAIR_CODE", CODE);
    let output = stable.with(command);
    let said = text_of(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("was not written by this program"), "{said}");
    assert_eq!(fs::read_to_string(unit).unwrap(), foreign);
    assert!(!stable.calls().contains("restart sigilum-gateway.service"), "{}", stable.calls());
}

#[test]
fn a_second_signal_changes_nothing() {
    let pairing = Pairing::new(Manner::Open);
    let mut child = pairing.pair(&[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    read_to(&mut child, "success");
    signal(child.id(), rustix::process::Signal::INT);
    signal(child.id(), rustix::process::Signal::INT);
    let status = child.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(0), None));
}

#[test]
fn a_unit_that_waits_for_its_next_start_is_stopped_and_said() {
    let stable = Stable::new(Manner::Open, RUNNING);
    assert_eq!(stable.pair(&["--daemon"]).status.code(), Some(0));
    stable.0.person.file(&format!("bin/{UNIT}.show"), AGAIN);
    let status = stable.with(stable.0.command(&["gateway", "pair", "--status"]));
    assert_eq!(status.status.code(), Some(1));
    let wanted = format!("Gateway pair bridge starts again (systemd unit={UNIT}, last exit code 1).\n");
    assert!(text_of(&status.stdout).starts_with(&wanted), "{status:?}");
    let refused = stable.pair(&["--daemon"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text_of(&refused.stderr).contains("is starting already"), "{refused:?}");
    let stopped = stable.with(stable.0.command(&["gateway", "pair", "--stop"]));
    assert_eq!(text_of(&stopped.stdout), format!("Stopped gateway pair bridge systemd unit ({UNIT}).\n"));
    let calls = stable.calls();
    assert!(calls.contains(&format!("--user stop {UNIT}\n--user disable {UNIT}\n")), "{calls}");
    assert!(!stable.session_file().exists());
}

#[test]
fn a_stop_that_fails_is_said_and_keeps_the_session() {
    for failing in ["stop", "show"] {
        let stable = Stable::new(Manner::Open, RUNNING);
        assert_eq!(stable.pair(&["--daemon"]).status.code(), Some(0));
        stable.0.person.file(&format!("bin/{failing}.fails"), "");
        let stopped = stable.with(stable.0.command(&["gateway", "pair", "--stop"]));
        let said = text_of(&stopped.stderr);
        assert_eq!((stopped.status.code(), text_of(&stopped.stdout).as_str()), (Some(0), ""), "{said}");
        assert!(said.contains(&format!("error: systemctl --user {failing} ")), "{said}");
        assert!(said.contains(stable.session_file().to_str().unwrap()), "{said}");
        assert!(stable.session_file().exists());
    }
}

#[test]
fn a_log_of_some_earlier_bridge_says_nothing_where_systemd_looks_after_it() {
    let stable = Stable::new(Manner::Open, RUNNING);
    stable.0.person.file(".sigilum/run/gateway-pair-bridge.log", "[sigilum] PAIR_SESSION_TERMINAL: x\n");
    let status = stable.with(stable.0.command(&["gateway", "pair", "--status"]));
    assert_eq!(text_of(&status.stdout), "Gateway pair bridge is not running.\n", "{status:?}");
    let compat = stable.with(stable.0.command(&["gateway", "pair", "--status", "--lifecycle-mode", "compat"]));
    assert!(text_of(&compat.stderr).contains("has expired"), "{compat:?}");
}

#[test]
fn a_unit_that_was_replaced_forgets_its_session_too() {
    let stable = Stable::new(Manner::Close("replaced"), RUNNING);
    assert_eq!(stable.pair(&["--daemon"]).status.code(), Some(0));
    let file = stable.session_file();
    let output = stable.0.command(&["gateway", "pair", "--session-file", file.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", text_of(&output.stderr));
    assert!(!file.exists());
}

#[test]
fn a_unit_says_that_it_does_not_get_the_token_of_the_environment() {
    let stable = Stable::new(Manner::Open, RUNNING);
    let mut command = stable.0.pair(&["--daemon"]);
    command.env("GATEWAY_ADMIN_TOKEN", TOKEN);
    let output = stable.with(command);
    assert_eq!(output.status.code(), Some(0));
    let said = text_of(&output.stderr);
    assert!(said.contains("GATEWAY_ADMIN_TOKEN of this environment is not handed to the unit"), "{said}");
    assert!(!stable.unit().contains(TOKEN));
}

#[test]
fn down_stops_a_unit_that_would_start_again() {
    const GATEWAY: &str = "sigilum-gateway.service";
    for shown in [RUNNING, AGAIN] {
        let stable = Stable::new(Manner::Open, RUNNING);
        stable.0.person.file(&format!("bin/{GATEWAY}.show"), shown);
        let output = stable.with(stable.0.command(&["down"]));
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let said = text_of(&output.stdout);
        assert!(said.contains("[ok] gateway: stopped (unit sigilum-gateway.service)\n"), "{said}");
        let calls = stable.calls();
        assert!(calls.contains(&format!("--user stop {GATEWAY}\n--user disable {GATEWAY}\n")), "{calls}");
    }
    // Nothing to stop, and nothing that can be stopped.
    let stable = Stable::new(Manner::Open, RUNNING);
    let output = stable.with(stable.0.command(&["down"]));
    assert!(text_of(&output.stdout).contains("[ok] gateway: not running\n"), "{output:?}");
    assert!(!stable.calls().contains(" stop "), "{}", stable.calls());
    stable.0.person.file(&format!("bin/{GATEWAY}.show"), RUNNING);
    stable.0.person.file("bin/stop.fails", "");
    let output = stable.with(stable.0.command(&["down"]));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn down_stops_the_bridge_of_its_gateway_and_no_other() {
    let pairing = Pairing::new(Manner::Open);
    assert_eq!(pairing.pair(&["--daemon"]).output().unwrap().status.code(), Some(0));
    let other = pairing.person.home().join("other");
    let down = |more: &[&str]| pairing.command(&["down"]).args(more).output().unwrap();
    let output = down(&["--gateway-data-dir", other.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(pairing.background("--status").status.code(), Some(0), "another gateway's");
    let output = down(&[]);
    assert!(text_of(&output.stdout).contains("Stopped gateway pair bridge (pid="), "{output:?}");
    assert_eq!(pairing.background("--status").status.code(), Some(1));
}

#[test]
fn two_gateways_of_a_user_are_paired_side_by_side() {
    let pairing = Pairing::new(Manner::Open);
    let data = pairing.person.home().join("other");
    let token = pairing.person.file("other/admin-token", TOKEN);
    fs::set_permissions(token, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(pairing.pair(&["--daemon"]).output().unwrap().status.code(), Some(0));
    let other = |arguments: &[&str]| {
        let mut command = pairing.command(&["gateway"]);
        command.args(arguments).env("SIGILUM_PAIR_CODE", CODE).env("GATEWAY_DATA_DIR", &data);
        command.output().unwrap()
    };
    let api = pairing.ends.api();
    let connected = other(&["connect", "--session-id", "another", "--api-url", &api]);
    assert_eq!(connected.status.code(), Some(0), "{connected:?}");
    assert!(!text_of(&connected.stdout).contains("Stopped"), "{connected:?}");
    let status = text_of(&other(&["pair", "--status"]).stdout);
    assert!(status.contains("session:  another\n") && !status.contains(SESSION), "{status}");
    assert!(text_of(&pairing.background("--status").stdout).contains(SESSION));
    assert_eq!(other(&["pair", "--stop"]).status.code(), Some(0));
    assert_eq!(other(&["pair", "--status"]).status.code(), Some(1));
    assert_eq!(pairing.background("--status").status.code(), Some(0));
}

#[test]
fn connect_touches_no_bridge_before_it_knows_that_it_can_put_another_in_its_place() {
    let pairing = Pairing::new(Manner::Open);
    assert_eq!(pairing.pair(&["--daemon"]).output().unwrap().status.code(), Some(0));
    let pid = pairing.person.read(".sigilum/run/gateway-pair-bridge.pid");
    let api = pairing.ends.api();
    let page = Ends::start(Manner::Page).api();
    for (url, token, code, words) in [
        (&page, TOKEN, 1, "that looks like the address of a dashboard"),
        (&api, "the-token-of-another-gateway", 4, "does not take the admin token"),
    ] {
        let mut command = pairing.command(&["gateway", "connect", "--session-id", "another", "--api-url", url]);
        command.env("SIGILUM_PAIR_CODE", CODE).env("GATEWAY_ADMIN_TOKEN", token);
        let output = command.output().unwrap();
        let said = text_of(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(words), "{said}");
        assert!(!text_of(&output.stdout).contains("Connect complete."), "{output:?}");
        assert_eq!(pairing.background("--status").status.code(), Some(0));
        assert_eq!(pairing.person.read(".sigilum/run/gateway-pair-bridge.pid"), pid);
    }
}

#[test]
fn a_status_says_why_a_bridge_has_ended_and_why_one_is_not_connected() {
    for (status, text, words) in [
        (403, "Invalid pair code", "its pair code was refused. The same command with the right code works"),
        (410, "Pair session expired", "its pairing session has expired. Start another"),
        (410, "Pair session expired: its owner has ended it", "its owner has ended the pairing. Start another"),
        (404, "no such thing", "was refused for good (HTTP 404)"),
    ] {
        let pairing = Pairing::new(Manner::Refuse(status, text));
        assert_eq!(pairing.pair(&["--daemon"]).output().unwrap().status.code(), Some(42));
        let shown = pairing.background("--status");
        assert_eq!((shown.status.code(), text_of(&shown.stdout).as_str()), (Some(1), ""));
        assert!(text_of(&shown.stderr).contains(words), "{shown:?}");
        assert_eq!(text_of(&shown.stderr).contains("expired"), text == "Pair session expired");
    }
    let pairing = Pairing::new(Manner::Refuse(409, "in use"));
    assert_eq!(pairing.pair(&["--daemon"]).output().unwrap().status.code(), Some(0));
    let shown = text_of(&pairing.background("--status").stdout);
    assert!(shown.contains("state:    not connected: another bridge of this session is connected already"), "{shown}");
}

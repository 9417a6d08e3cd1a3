//! The product as its users run it: the real binary, the real Envoy, a fresh home and data folder, ports
//! of its own. It is told to stop when dropped, and also when the test process ends in any other way.

use std::collections::HashSet;
use std::fs;
use std::io::Read as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;
use serde_json::json;
use sigilum::authz::Journal;
use sigilum::domain::secret::Secret;
use sigilum::domain::time::UnixSeconds;
use sigilum::store::records;
use sigilum::store::seal::MasterKey;
use tempfile::TempDir;

use super::agent::Agent;
use super::agent::random_hex;
use super::client;
use super::client::Body;
use super::client::Request;
use super::client::Response;
use super::process;
use super::process::wait_until;
use super::upstream::Upstream;

/// The first start on a machine fetches Envoy.
const START_LIMIT: Duration = Duration::from_secs(300);
/// Everything else.
pub const LIMIT: Duration = Duration::from_secs(60);
/// How many connections a gateway's own agent is approved for in advance.
const APPROVED: usize = 200;

/// Waits for a line. The end of input instead means that the test process is gone: ends the child and
/// removes its folder.
const GUARD: &str = r#"read -r line && exit
kill -TERM "$0"
while kill -0 "$0" 2>/dev/null; do sleep 0.1; done
[ -z "$1" ] || rm -rf "$1""#;

/// The binary under test.
pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_sigilum")
}

/// A port nobody listens on. Below the range the kernel picks from, so that no outgoing connection
/// takes it in between, and never handed out twice.
pub fn free_port() -> u16 {
    static TAKEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);
    loop {
        let mut bytes = [0_u8; 2];
        getrandom::fill(&mut bytes).unwrap();
        let port = 10_000 + u16::from_le_bytes(bytes) % 20_000;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if free && TAKEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}

/// Folders and ports of one installation, and how to start it.
pub struct Setup {
    /// Short, because the paths of sockets are.
    pub root: TempDir,
    pub ingress: SocketAddr,
    pub admin: SocketAddr,
    pub face: SocketAddr,
    /// Approved for every connection of [`Setup::connection_id`].
    pub agent: Agent,
    pub environment: Vec<(String, String)>,
    /// Added to `gateway.yaml` before the approvals.
    pub settings: String,
    /// Approvals besides the agent's: namespace, public key, service.
    pub approvals: Vec<(String, String, String)>,
}

impl Setup {
    /// Fresh folders, fresh ports, a fresh agent.
    pub fn new() -> Self {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let setup = Self {
            root: tempfile::Builder::new().prefix("sg").rand_bytes(6).tempdir_in("/tmp").unwrap(),
            ingress: local(free_port()),
            admin: local(free_port()),
            face: local(free_port()),
            agent: Agent::new("alice"),
            environment: Vec::new(),
            settings: String::new(),
            approvals: Vec::new(),
        };
        fs::create_dir(setup.home()).unwrap();
        setup
    }

    /// Sets an environment variable of the gateway.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Approves another key.
    pub fn approve(mut self, agent: &Agent, service: &str) -> Self {
        self.approvals.push((agent.namespace.clone(), agent.public_key.clone(), service.to_owned()));
        self
    }

    /// Adds lines to `gateway.yaml`.
    pub fn yaml(mut self, lines: &str) -> Self {
        self.settings.push_str(lines);
        self
    }

    /// Home of identities, master key and `gateway.yaml`.
    pub fn home(&self) -> PathBuf {
        self.root.path().join("home")
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// Where the sockets are.
    pub fn run_dir(&self) -> PathBuf {
        self.data().join("run")
    }

    /// The id of the `at`-th connection the agent is approved for.
    pub fn connection_id(at: usize) -> String {
        assert!(at < APPROVED, "only {APPROVED} connections are approved in advance");
        format!("conn-{at:03}")
    }

    /// Writes `gateway.yaml`.
    pub fn write_yaml(&self) {
        fs::write(self.home().join("gateway.yaml"), self.yaml_of(&self.settings)).unwrap();
    }

    /// The text of a `gateway.yaml` with other settings and the same approvals.
    pub fn yaml_of(&self, settings: &str) -> String {
        let mut yaml = settings.to_owned();
        yaml.push_str("approvals:\n");
        let own = (0..APPROVED).map(Self::connection_id).chain(["slack-proxy".to_owned()]);
        let own = own.map(|service| (self.agent.namespace.clone(), self.agent.public_key.clone(), service));
        for (namespace, key, service) in own.chain(self.approvals.iter().cloned()) {
            yaml.push_str(&format!("  - namespace: {namespace}\n    public_key: {key}\n    service: {service}\n"));
        }
        yaml
    }

    /// A command of the binary with this installation's environment and nothing else of ours.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.root.path())
            .env("XDG_DATA_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("xdg"))
            .env("GATEWAY_SIGILUM_HOME", self.home())
            .env("GATEWAY_DATA_DIR", self.data())
            .env("GATEWAY_ADDR", self.admin.to_string())
            .env("GATEWAY_INGRESS_ADDR", self.ingress.to_string())
            .env("GATEWAY_ENVOY_ADMIN_ADDR", self.face.to_string())
            .env("GATEWAY_SIGILUM_NAMESPACE", "operator")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for name in ["ENVOY_BIN", "PIP_INDEX_URL", "PIP_CONFIG_FILE", "HTTPS_PROXY", "SSL_CERT_FILE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }

    /// Begins the replay journal as an authz that ran a little earlier would have left it. Without one a
    /// gateway waits some seconds until it can tell old requests from replayed ones.
    pub fn begin_journal(&self) {
        for folder in [self.data(), self.run_dir()] {
            fs::create_dir(&folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        }
        let earlier = UnixSeconds(super::agent::now() - 30);
        Journal::open(&self.run_dir(), 1000, earlier).unwrap();
    }

    /// Starts the gateway and waits until it is ready.
    pub fn start(self) -> Gateway {
        self.begin_journal();
        self.start_anew()
    }

    /// The same with nothing left by an earlier authz.
    pub fn start_anew(self) -> Gateway {
        self.write_yaml();
        let running = Running::spawn_in(self.command(&["gateway", "start"]), Some(self.root.path()));
        let gateway = Gateway::of(self, running);
        gateway.wait_started(START_LIMIT);
        gateway
    }

    /// Runs `gateway start` where it must not come up: exit code and everything it said.
    pub fn start_refused(&self) -> Refused {
        refused(self.command(&["gateway", "start"]))
    }
}

/// How a command ended that was to end by itself.
#[derive(Debug)]
pub struct Refused {
    pub code: Option<i32>,
    pub said: String,
}

/// Runs a command to its end.
pub fn refused(command: Command) -> Refused {
    let mut running = Running::spawn(command);
    let status = running.wait(LIMIT);
    Refused { code: status.code(), said: running.said() }
}

/// A child process with everything it says, stopped when dropped.
pub struct Running {
    child: Child,
    said: Arc<Mutex<Vec<u8>>>,
    readers: Vec<thread::JoinHandle<()>>,
    /// Ends the child when this process ends without dropping: the shell sees the end of its input.
    guard: Child,
}

impl Running {
    /// Starts it.
    pub fn spawn(command: Command) -> Self {
        Self::spawn_in(command, None)
    }

    /// Starts it. `folder` is removed where this process ends without dropping what it made.
    pub fn spawn_in(mut command: Command, folder: Option<&Path>) -> Self {
        let mut child = command.spawn().unwrap();
        let said: Arc<Mutex<Vec<u8>>> = Arc::default();
        let streams: [Option<Box<dyn std::io::Read + Send>>; 2] =
            [child.stdout.take().map(|out| Box::new(out) as _), child.stderr.take().map(|err| Box::new(err) as _)];
        let readers = streams
            .into_iter()
            .flatten()
            .map(|mut stream| {
                let said = Arc::clone(&said);
                thread::spawn(move || {
                    let mut buffer = [0_u8; 4096];
                    while let Ok(length @ 1..) = stream.read(&mut buffer) {
                        said.lock().unwrap().extend_from_slice(&buffer[..length]);
                    }
                })
            })
            .collect();
        let guard = Command::new("/bin/sh")
            .args(["-c", GUARD, &child.id().to_string()])
            .args(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, said, readers, guard }
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Standard output and standard error so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap()).into_owned()
    }

    /// How it ended, where it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                // Only now is everything read that it said.
                for reader in self.readers.drain(..) {
                    let _ = reader.join();
                }
                return status;
            }
            assert!(start.elapsed() < limit, "does not end; it said:\n{}", self.said());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut input) = self.guard.stdin.take() {
            let _ = input.write_all(b"done\n");
        }
        let _ = self.guard.wait();
        if self.ended().is_none() {
            self.signal(Signal::TERM);
            let start = Instant::now();
            while self.ended().is_none() {
                if start.elapsed() > Duration::from_secs(20) {
                    self.signal(Signal::KILL);
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// A running gateway.
pub struct Gateway {
    pub setup: Setup,
    running: Mutex<Running>,
    next: AtomicUsize,
}

/// The gateway for tests that do not disturb it. It ends with the test process.
pub fn shared() -> &'static Gateway {
    static SHARED: LazyLock<Gateway> = LazyLock::new(|| Setup::new().start());
    &SHARED
}

impl Gateway {
    /// A gateway of one's own.
    pub fn start() -> Self {
        Setup::new().start()
    }

    /// The gateway of a process that was started otherwise.
    pub fn of(setup: Setup, running: Running) -> Self {
        Self { setup, running: Mutex::new(running), next: AtomicUsize::new(0) }
    }

    /// Starts again after the supervisor has ended, with the same folders and ports.
    pub fn restart(&self) {
        let again = Running::spawn_in(self.setup.command(&["gateway", "start"]), Some(self.setup.root.path()));
        *self.running() = again;
        self.wait_started(LIMIT);
    }

    /// Process id of the supervisor.
    pub fn pid(&self) -> i32 {
        self.running.lock().unwrap().pid()
    }

    /// What the supervisor printed.
    pub fn said(&self) -> String {
        self.running.lock().unwrap().said()
    }

    /// Gives the supervisor's process up, for tests that end it themselves.
    pub fn running(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap()
    }

    /// Host and port as agents write them.
    pub fn authority(&self) -> String {
        self.setup.ingress.to_string()
    }

    /// The agent approved for all connections of [`Gateway::connect`].
    pub fn agent(&self) -> &Agent {
        &self.setup.agent
    }

    /// Waits until the supervisor says so, too: a part that dies before that ends the start.
    fn wait_started(&self, limit: Duration) {
        self.wait_ready(limit);
        wait_until("the supervisor says that it is ready", LIMIT, || {
            self.said().lines().any(|line| line.starts_with("ready:"))
        });
    }

    /// Waits until every part is up and a decision could be made.
    pub fn wait_ready(&self, limit: Duration) {
        let start = Instant::now();
        loop {
            // Not in the condition itself: what is said needs the same lock.
            let ended = self.running.lock().unwrap().ended();
            if let Some(status) = ended {
                panic!("the gateway ended with {status}:\n{}\n{}", self.said(), self.logs());
            }
            if self.healthy() && self.admin_ready() {
                return;
            }
            assert!(start.elapsed() < limit, "not ready after {limit:?}:\n{}\n{}", self.said(), self.logs());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether Envoy says that authz is healthy.
    pub fn healthy(&self) -> bool {
        let request = Request::new("GET", &self.authority(), "/health/ready");
        client::try_send(self.setup.ingress, &request).is_ok_and(|response| response.status == 200)
    }

    /// Whether admin says that everything is ready, as it is now: what it found last may be half a second old.
    pub fn admin_ready(&self) -> bool {
        let mut request = Request::new("GET", &self.setup.admin.to_string(), "/health/ready?fresh");
        if let Ok(token) = fs::read_to_string(self.setup.data().join("admin-token")) {
            request = request.header("authorization", &format!("Bearer {}", token.trim()));
        }
        client::try_send(self.setup.admin, &request).is_ok_and(|response| response.status == 200)
    }

    /// The same as admin found it last.
    pub fn admin_found_ready(&self) -> bool {
        let request = Request::new("GET", &self.setup.admin.to_string(), "/health/ready");
        client::try_send(self.setup.admin, &request).is_ok_and(|response| response.status == 200)
    }

    /// Whether admin says that an authz has its state.
    pub fn admin_started(&self) -> bool {
        let request = Request::new("GET", &self.setup.admin.to_string(), "/health/startup");
        client::try_send(self.setup.admin, &request).is_ok_and(|response| response.status == 200)
    }

    /// Sends to the ingress.
    pub fn send(&self, request: &Request) -> Response {
        client::send(self.setup.ingress, request)
    }

    /// A signed GET by the gateway's agent.
    pub fn get(&self, target: &str) -> Response {
        self.send(&self.agent().get(&self.authority(), target))
    }

    /// A signed POST by the gateway's agent.
    pub fn post(&self, target: &str, body: &[u8]) -> Response {
        self.send(&self.agent().post(&self.authority(), target, body))
    }

    /// The admin token.
    pub fn token(&self) -> String {
        fs::read_to_string(self.setup.data().join("admin-token")).unwrap().trim().to_owned()
    }

    /// A call of the admin API with the token.
    pub fn admin(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        let mut request = Request::new(method, &self.setup.admin.to_string(), &format!("/api/admin{path}"))
            .header("authorization", &format!("Bearer {}", self.token()));
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .with_body(Body::Sized(body.to_string().into_bytes()));
        }
        client::send(self.setup.admin, &request)
    }

    /// The next id of a connection the agent is approved for and that does not exist yet.
    pub fn next_id(&self) -> String {
        Setup::connection_id(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Creates a connection from `fields`, which override `{id, base_url, secrets}`.
    pub fn create(&self, id: &str, base_url: &str, secret: &str, fields: Value) -> Response {
        let mut input = json!({
            "id": id,
            "base_url": base_url,
            "auth_secret_key": "api_key",
            "secrets": { "api_key": secret },
        });
        for (name, value) in fields.as_object().unwrap() {
            input[name] = value.clone();
        }
        self.admin("POST", "/connections", Some(&input))
    }

    /// A new connection to `upstream`, in force. Its credential goes into `Authorization`.
    pub fn connect(&self, upstream: &Upstream, fields: Value) -> Connection {
        let id = self.next_id();
        let secret = format!("canary-{}", random_hex(12));
        let response = self.create(&id, &upstream.base_url(), &secret, fields);
        assert_eq!(response.status, 201, "{}", response.text());
        self.wait_in_force(&id);
        Connection { path: format!("/proxy/{id}"), id, secret }
    }

    /// What authz thinks of a connection, asked without anything reaching its provider: an upgrade is
    /// judged after the connection is found, and refused where the connection does not list it.
    pub fn probe(&self, id: &str) -> Response {
        let request = self.agent().get(&self.authority(), &format!("/proxy/{id}/probe"));
        self.send(&request.header("connection", "upgrade").header("upgrade", "websocket"))
    }

    /// Waits until authz knows an active connection of this id.
    pub fn wait_in_force(&self, id: &str) {
        wait_until(&format!("{id} is in force"), LIMIT, || self.probe(id).code() == "METHOD_OR_PATH_FORBIDDEN");
    }

    /// Lets the last rotation of a connection's secret be long ago: the one thing that takes days. The
    /// gateway is stopped for it and started again.
    pub fn make_overdue(&self, id: &str) {
        self.running().signal(Signal::TERM);
        self.running().wait(LIMIT);
        let store = rusqlite::Connection::open(self.setup.data().join("gateway.db")).unwrap();
        // Nobody changes a record but who has the master key.
        let salt: Vec<u8> =
            store.query_row("SELECT value FROM meta WHERE name = 'salt'", [], |row| row.get(0)).unwrap();
        let text = fs::read_to_string(self.setup.home().join("gateway-master-key")).unwrap();
        let key = MasterKey::derive(&Secret::new(text), salt.as_slice().try_into().unwrap()).unwrap();
        let (record, version): (String, i64) = store
            .query_row(
                "SELECT json_set(record, '$.last_rotated_at_ms', 1700000000000), secret_version FROM connections
                 WHERE id = ?1",
                [id],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap();
        let mark = records::mark(id, &record, version, key.records());
        let sql = "UPDATE connections SET record = ?2, mark = ?3 WHERE id = ?1";
        assert_eq!(store.execute(sql, rusqlite::params![id, record, mark]).unwrap(), 1);
        store.close().unwrap();
        self.restart();
    }

    /// The process of one role: `admin`, `authz` or `envoy`.
    pub fn child(&self, role: &str) -> Option<i32> {
        process::children(self.pid())
            .into_iter()
            .find(|child| match role {
                "envoy" => child.arguments.split_whitespace().next().is_some_and(|name| name.ends_with("envoy")),
                role => child.arguments.contains(&format!("gateway {role}")),
            })
            .map(|child| child.pid)
    }

    /// The process of one role, which must be there.
    pub fn role(&self, role: &str) -> i32 {
        self.child(role).unwrap_or_else(|| panic!("no {role} among {:?}", process::children(self.pid())))
    }

    /// Waits until another process plays a role than the one that was killed.
    pub fn wait_replaced(&self, role: &str, killed: i32) {
        let start = Instant::now();
        while self.child(role).is_none_or(|pid| pid == killed) {
            let late = start.elapsed() > LIMIT;
            assert!(
                !late,
                "{role} {killed} is not replaced; {:?}\n{}\n{}",
                process::children(self.pid()),
                self.said(),
                self.logs()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The files of the data folder's `logs`, for failure messages.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for entry in fs::read_dir(self.setup.data().join("logs")).into_iter().flatten().flatten() {
            let body = fs::read(entry.path()).unwrap_or_default();
            let tail = &body[body.len().saturating_sub(16_000)..];
            text.push_str(&format!("--- {}\n{}\n", entry.path().display(), String::from_utf8_lossy(tail)));
        }
        text
    }
}

/// A connection a test made.
pub struct Connection {
    pub id: String,
    /// `/proxy/{id}`.
    pub path: String,
    pub secret: String,
}

impl Connection {
    /// A path below it.
    pub fn at(&self, rest: &str) -> String {
        format!("{}{rest}", self.path)
    }
}

//! Several gateways of one user: what tells them apart, and that none gets in another's way.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::client;
use crate::support::client::Request;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::binary;
use crate::support::gateway::free_port;
use crate::support::gateway::refused;
use crate::support::process::wait_until;

/// The first start on a machine fetches Envoy, and without a replay journal one waits.
const START: Duration = Duration::from_secs(300);
/// Configuration, bind or lock conflict.
const CONFIG: Option<i32> = Some(78);
/// Wrong arguments.
const USAGE: Option<i32> = Some(64);
/// Nothing of that kind runs.
const NOT_RUNNING: Option<i32> = Some(3);

/// A user with an empty home folder.
struct User {
    root: TempDir,
}

/// Where the listeners of a profile are, as its file says.
struct Listeners {
    agents: SocketAddr,
    admin: SocketAddr,
}

impl User {
    fn new() -> Self {
        let root = tempfile::Builder::new().prefix("sg").rand_bytes(6).tempdir_in("/tmp").unwrap();
        // All tests have one managed Envoy, everything else of the data folder is this user's.
        let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join("xdg/sigilum");
        fs::create_dir_all(&shared).unwrap();
        fs::create_dir(root.path().join("data")).unwrap();
        std::os::unix::fs::symlink(shared, root.path().join("data/sigilum")).unwrap();
        Self { root }
    }

    fn at(&self, rest: &str) -> PathBuf {
        self.root.path().join(rest)
    }

    /// A command with nothing set.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).env_clear().env("HOME", self.root.path()).env("XDG_DATA_HOME", self.at("data"));
        for name in ["PATH", "ENVOY_BIN", "PIP_INDEX_URL", "PIP_CONFIG_FILE", "HTTPS_PROXY", "SSL_CERT_FILE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The file of a profile, with ports that nobody else in these tests has.
    fn settle(&self, profile: &str) -> Listeners {
        let local = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (agents, admin, face) = (local(), local(), local());
        let home = self.at(&format!(".sigilum-workspace-{profile}"));
        fs::create_dir_all(&home).unwrap();
        let text = format!(
            "gateway: {{addr: '{admin}', ingress_addr: '{agents}'}}\nenvoy: {{admin_addr: '{face}', concurrency: 1}}\n"
        );
        fs::write(home.join("gateway.yaml"), text).unwrap();
        Listeners { agents, admin }
    }

    /// Starts a command and waits until it says this.
    fn start(&self, arguments: &[&str], word: &str) -> Running {
        let mut running = Running::spawn_in(self.command(arguments), Some(self.root.path()));
        wait_until(&format!("{arguments:?} says {word:?}"), START, || {
            let ended = running.ended();
            assert!(ended.is_none(), "it ended with {ended:?}:\n{}", running.said());
            running.said().contains(word)
        });
        running
    }

    /// Every file of the user by name, without those whose names belong to the profile `dev`.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let (mut found, mut folders) = (BTreeMap::new(), vec![self.root.path().to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let (path, kind) = (entry.path(), entry.file_type().unwrap());
                let name = entry.file_name().into_string().unwrap();
                if name.ends_with("-dev") || name.contains("-dev.") || kind.is_symlink() {
                    continue;
                }
                if kind.is_dir() {
                    folders.push(path);
                } else {
                    found.insert(path.clone(), fs::read(path).unwrap());
                }
            }
        }
        found
    }
}

/// The value after `name:` in lines of names and values.
fn value(said: &str, name: &str) -> String {
    let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {said}")).trim().to_owned()
}

/// What the admin API there answers whoever has this token.
fn status(admin: SocketAddr, token: &str) -> u16 {
    let request = Request::new("GET", &admin.to_string(), "/api/v1/status");
    client::send(admin, &request.header("authorization", &format!("Bearer {token}"))).status
}

#[test]
fn three_profiles_side_by_side_have_nothing_in_common_and_one_may_stop() {
    let user = User::new();
    let names = ["one", "two", "three"];
    let listeners = names.map(|name| user.settle(name));
    let mut running =
        names.map(|name| user.start(&["--profile", name, "gateway", "run", "--namespace", "operator"], "ready:"));

    let data = names.map(|name| user.at(&format!("data/sigilum-gateway-{name}")));
    let tokens = data.each_ref().map(|data| fs::read_to_string(data.join("admin-token")).unwrap().trim().to_owned());
    for (data, name) in data.iter().zip(names) {
        assert!(data.join("gateway.db").is_file(), "{name}");
        assert!(user.at(&format!(".sigilum-workspace-{name}/gateway-master-key")).is_file(), "{name}");
    }
    for (at, listeners) in listeners.iter().enumerate() {
        for (of, token) in tokens.iter().enumerate() {
            let expected = if at == of { 200 } else { 403 };
            assert_eq!(status(listeners.admin, token), expected, "token of {} at {}", names[of], names[at]);
        }
    }
    let listed: Value = serde_json::from_str(&user.done(&["profiles", "--json"])).unwrap();
    for (listeners, name) in listeners.iter().zip(names) {
        let row = listed.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap();
        assert_eq!((row["agents"].as_u64(), &row["running"]), (Some(listeners.agents.port().into()), &true.into()));
    }
    assert_eq!(listed[0]["name"], "default");
    assert_eq!(listed[0]["running"], false);

    user.done(&["--profile", "two", "gateway", "stop", "--yes"]);
    assert!(running[1].wait(LIMIT).success());
    let ready = |name: &str| user.run(&["--profile", name, "gateway", "status", "--require-ready"]).status.code();
    assert_eq!([ready("one"), ready("two"), ready("three")], [Some(0), NOT_RUNNING, Some(0)]);
    for listeners in [&listeners[0], &listeners[2]] {
        let health = Request::new("GET", &listeners.agents.to_string(), "/health/ready");
        assert_eq!(client::send(listeners.agents, &health).status, 200);
    }
}

#[test]
fn two_profiles_cannot_have_one_data_folder() {
    let user = User::new();
    user.settle("one");
    user.settle("two");
    let one = user.start(&["--profile", "one", "gateway", "run", "--namespace", "operator"], "ready:");
    let second = |key: Option<&str>| {
        let mut command = user.command(&["--profile", "two", "gateway", "run", "--namespace", "operator"]);
        command.env("GATEWAY_DATA_DIR", user.at("data/sigilum-gateway-one"));
        refused(match key {
            Some(key) => {
                command.env("GATEWAY_MASTER_KEY", key);
                command
            }
            None => command,
        })
    };
    let keyless = second(None);
    assert_eq!(keyless.code, CONFIG, "{}", keyless.said);
    let second = second(Some("some other key"));
    assert_eq!(second.code, CONFIG, "{}", second.said);
    for word in ["another gateway instance is already listening", &format!("pid {}", one.pid())] {
        assert!(second.said.contains(word), "{word} in {}", second.said);
    }
}

#[test]
fn a_profile_has_the_same_ports_each_time_and_no_two_have_the_same() {
    let user = User::new();
    let setup = |name: &str| user.done(&["--profile", name, "setup", "--namespace", "operator"]);
    let admin = |said: &str| value(said, "admin");
    let (first, second) = (setup("one"), setup("two"));
    assert_eq!((admin(&first), admin(&second)), ("127.0.0.1:38400".to_owned(), "127.0.0.1:38700".to_owned()));
    assert_eq!(value(&first, "agents"), "127.0.0.1:38300");
    assert_eq!(admin(&setup("one")), "127.0.0.1:38400");
    // One that was never set up takes no place by being looked at.
    user.run(&["--profile", "typo", "gateway", "status"]);
    assert!(!user.done(&["profiles"]).contains("typo"));

    let children: Vec<_> = (0..12)
        .map(|at| user.command(&["--profile", &format!("p{at}"), "setup", "--namespace", "operator"]).spawn().unwrap())
        .collect();
    let ports: HashSet<_> = children
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{output:?}");
            admin(&String::from_utf8(output.stdout).unwrap())
        })
        .collect();
    assert_eq!(ports.len(), 12);
}

#[test]
fn every_command_of_a_profile_means_its_gateway() {
    let user = User::new();
    let shown = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = user.command(arguments);
        command.args(["gateway", "config", "show", "--effective", "--json"]).envs(variables.iter().copied());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let by_option = shown(&["--profile", "staging"], &[]);
    let by_variable = shown(&[], &[("SIGILUM_PROFILE", "staging")]);
    for word in [".sigilum-workspace-staging", "data/sigilum-gateway-staging", ":38300", ":38400", ":38500"] {
        assert!(by_option.contains(word) && by_variable.contains(word), "{word} in {by_option}\n{by_variable}");
    }
    // What a person names wins.
    let named = shown(&["--profile", "staging", "--gateway-port", "40001"], &[("SIGILUM_LISTEN_PORT", "40000")]);
    assert!(named.contains("40000") && named.contains("40001") && !named.contains("38400"), "{named}");
    let default = shown(&["--profile", "default"], &[("SIGILUM_PROFILE", "staging")]);
    assert!(default.contains(":38100") && !default.contains("staging"), "{default}");

    let unit = user.run(&["--profile", "staging", "gateway", "install", "--dry-run", "--namespace", "operator"]);
    let text = String::from_utf8(unit.stdout).unwrap() + &String::from_utf8(unit.stderr).unwrap();
    for word in ["sigilum-gateway-staging.service", "SIGILUM_PROFILE=staging", "127.0.0.1:38400"] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[test]
fn what_is_no_profile_is_refused() {
    let user = User::new();
    for arguments in [
        &["--profile", "../x", "profiles"][..],
        &["--profile", "pair", "profiles"],
        &["--profile", "a", "--dev", "profiles"],
        &["--reset", "setup"],
        &["--profile", "a", "--reset", "setup"],
        &["--dev", "--reset", "profiles"],
    ] {
        assert_eq!(user.run(arguments).status.code(), USAGE, "{arguments:?}");
    }
    let mut command = user.command(&["profiles"]);
    assert_eq!(command.env("SIGILUM_PROFILE", "A B").output().unwrap().status.code(), CONFIG);
}

#[test]
fn dev_beside_production_changes_nothing_of_it() {
    let user = User::new();
    // Production, and an environment that names it.
    user.done(&["setup", "--namespace", "production"]);
    for (file, text) in
        [("data/sigilum-gateway/gateway.db", "store"), (".sigilum-workspace/service-api-key-billing", "key")]
    {
        fs::create_dir_all(user.at(file).parent().unwrap()).unwrap();
        fs::write(user.at(file), text).unwrap();
    }
    let before = user.files();
    assert!(before.contains_key(&user.at(".sigilum/config.env")), "{:?}", before.keys());
    let (api, native, upstream) = (free_port().to_string(), free_port().to_string(), free_port().to_string());
    let ports = ["--api-port", &api, "--native-port", &native, "--upstream-port", &upstream];
    let dev = |arguments: &[&str]| {
        let mut command = user.command(&["--dev"]);
        command.args(ports).args(arguments);
        command
            .env("GATEWAY_SIGILUM_HOME", user.at(".sigilum-workspace"))
            .env("GATEWAY_DATA_DIR", user.at("data/sigilum-gateway"))
            .env("GATEWAY_MASTER_KEY", "the key of production")
            .env("SIGILUM_NAMESPACE", "production")
            .env("SIGILUM_API_URL", "https://api.example.com");
        command
    };

    let output = dev(&["setup"]).output().unwrap();
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!((value(&said, "namespace"), value(&said, "admin")), ("dev".to_owned(), "127.0.0.1:39100".to_owned()));

    let listeners = user.settle("dev");
    let mut running = Running::spawn_in(dev(&["gateway"]), Some(user.root.path()));
    wait_until("the demo can be tried", START, || {
        let ended = running.ended();
        assert!(ended.is_none(), "it ended with {ended:?}:\n{}", running.said());
        running.said().contains("claim list")
    });
    let url = format!("http://{}/proxy/demo-service-gateway/v1/ping", listeners.agents);
    let ping = dev(&["request", "POST", &url, "-d", "\"ping\""]).output().unwrap();
    assert!(ping.status.success() && ping.stdout.starts_with(b"\"pong\""), "{ping:?}");
    let output = dev(&["status", "--json"]).output().unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&status["profile"], &status["ok"]), (&"dev".into(), &true.into()), "{status}");
    let busy = dev(&["--reset", "setup"]).output().unwrap();
    assert_eq!(busy.status.code(), CONFIG, "{busy:?}");
    running.signal(Signal::TERM);
    assert!(running.wait(LIMIT).success(), "{}", running.said());

    let folders =
        [".sigilum-workspace-dev", "data/sigilum-gateway-dev", "data/sigilum-api-dev"].map(|name| user.at(name));
    assert!(folders.iter().all(|folder| folder.is_dir()) && user.at(".sigilum/config-dev.env").is_file());
    let key = fs::read(folders[0].join("gateway-master-key")).unwrap();
    let anew = dev(&["--reset", "setup"]).output().unwrap();
    assert!(anew.status.success(), "{anew:?}");
    assert_ne!(fs::read(folders[0].join("gateway-master-key")).unwrap(), key, "another throwaway key");
    assert!(!folders[1].exists() && !folders[2].exists());
    assert_eq!(user.files(), before);
}

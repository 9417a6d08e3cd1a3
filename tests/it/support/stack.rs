//! The local stack as its users run it: `up --demo` in a home of its own, and the commands that come with it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::gateway::LIMIT;
use super::gateway::Running;
use super::gateway::Setup;
use super::gateway::free_port;
use super::process::wait_until;

/// The connection of the demo.
pub const DEMO: &str = "demo-service-gateway";
/// The service that verifies its callers itself.
pub const NATIVE: &str = "demo-service-native";
/// The first start of a stack, and everything the end-to-end tests do.
pub const LONG: Duration = Duration::from_secs(240);

/// Folders and ports of one stack in a home that was empty.
pub struct Stack {
    pub setup: Setup,
    pub api: SocketAddr,
    pub native: SocketAddr,
    pub upstream: SocketAddr,
}

impl Stack {
    pub fn new() -> Self {
        let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        Self { setup: Setup::new(), api: local(free_port()), native: local(free_port()), upstream: local(free_port()) }
    }

    /// A command with the ports of this stack and nothing else set: home, namespace and folders are the defaults.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.setup.command(arguments);
        for name in ["GATEWAY_SIGILUM_HOME", "GATEWAY_SIGILUM_NAMESPACE"] {
            command.env_remove(name);
        }
        command
            .env("API_PORT", self.api.port().to_string())
            .env("API_DATA_DIR", self.api_data())
            .env("NATIVE_PORT", self.native.port().to_string())
            .env("UPSTREAM_PORT", self.upstream.port().to_string());
        command
    }

    pub fn api_data(&self) -> PathBuf {
        self.setup.root.path().join("api")
    }

    pub fn workspace(&self) -> PathBuf {
        self.setup.root.path().join(".sigilum-workspace")
    }

    /// Starts it with the test seed open and waits until it says that it can be tried.
    pub fn start(&self) -> Running {
        let mut command = self.command(&["up", "--demo"]);
        command.env("ENABLE_TEST_SEED_ENDPOINT", "true");
        let mut running = Running::spawn_in(command, Some(self.setup.root.path()));
        wait_until("the stack can be tried", LONG, || {
            let ended = running.ended();
            assert!(ended.is_none(), "up ended with {ended:?}:\n{}", running.said());
            running.said().contains("claim list")
        });
        running
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Through the gateway, as the README has it.
    pub fn ping(&self) -> Output {
        let url = format!("http://{}/proxy/{DEMO}/v1/ping", self.setup.ingress);
        self.run(&["request", "POST", &url, "-d", "\"ping\""])
    }

    pub fn ping_native(&self) -> Output {
        let url = format!("http://{}/v1/ping", self.native);
        self.run(&["request", "POST", &url, "-d", "\"ping\""])
    }

    pub fn claims(&self) -> Vec<Value> {
        let claims: Value = serde_json::from_str(&self.done(&["claim", "list", "--json"])).unwrap();
        claims.as_array().unwrap().clone()
    }

    /// The id of the demo agent's claim for a service.
    pub fn claim(&self, service: &str) -> String {
        let claims = self.claims();
        let found = claims.iter().find(|claim| claim["service"] == service);
        found.unwrap_or_else(|| panic!("no claim for {service} in {claims:?}"))["claim_id"].as_str().unwrap().to_owned()
    }
}

/// Whether the answer is that of the demo.
pub fn pong(output: &Output) -> bool {
    output.status.success() && String::from_utf8_lossy(&output.stdout).trim() == "\"pong\""
}

/// Ends it as its user would.
pub fn end(mut running: Running) {
    running.signal(Signal::TERM);
    let status = running.wait(LIMIT);
    assert!(status.success(), "{status}: {}", running.said());
}

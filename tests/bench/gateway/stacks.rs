//! The things compared: each a set of running processes behind one address.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use sigilum::envoy::launch;
use sigilum::envoy::render::Rendering;
use sigilum::envoy::render::render;
use tempfile::TempDir;

use crate::accounting::Counted;
use crate::support::agent::Agent;
use crate::support::client;
use crate::support::client::Request;
use crate::support::gateway::Gateway;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::gateway::free_port;
use crate::support::process::wait_until;

/// Until a stack answers.
const START: Duration = Duration::from_secs(60);
/// The path every request asks for.
pub const TARGET: &str = "/proxy/conn-000/v1/ping";
/// What is left of it for the provider.
pub const REST: &str = "/v1/ping";

/// 127.0.0.1 and a port nobody has.
pub fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

/// A process of the bench itself, in another role.
pub fn role(arguments: &[&str]) -> Running {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("role").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::spawn(command)
}

/// Processes behind an address.
pub struct Stack {
    pub address: SocketAddr,
    pub processes: Vec<Counted>,
    _parts: Vec<Running>,
    _folder: Option<TempDir>,
    gateway: Option<Gateway>,
}

/// What all stacks share.
pub struct Ground {
    pub envoy: PathBuf,
    pub provider: SocketAddr,
    pub provider_pid: i32,
    pub agent: Agent,
    pub token_key: ed25519_dalek::SigningKey,
    _provider: Running,
}

impl Ground {
    /// Starts the provider. It answers on every address of 127.0.0.0/8, each of which is an origin.
    pub fn lay(envoy: PathBuf) -> Self {
        let address = local();
        let provider = role(&["provider", &format!("0.0.0.0:{}", address.port())]);
        wait_until("the provider listens", START, || std::net::TcpStream::connect(address).is_ok());
        Self {
            envoy,
            provider: address,
            provider_pid: provider.pid(),
            agent: Agent::new("alice"),
            token_key: ed25519_dalek::SigningKey::from_bytes(&[7; 32]),
            _provider: provider,
        }
    }

    /// Envoy's file as the product writes it for `ingress`, as a tree.
    pub fn rendered(&self, ingress: SocketAddr) -> serde_yaml::Value {
        let settings = Rendering {
            ingress: vec![ingress],
            admin_face: vec![local()],
            admin: vec![local()],
            max_body_bytes: 2 * 1024 * 1024,
            trusted_hops: 0,
            tls: None,
            traces: None,
            ca_file: PathBuf::from("/etc/ssl/certs/ca-certificates.crt"),
        };
        serde_yaml::from_str(&render(&settings).unwrap()).unwrap()
    }

    /// Starts an Envoy with `config` in `folder`, as the product would; `None` is a worker per processor.
    pub fn envoy(&self, folder: &Path, config: &serde_yaml::Value, concurrency: Option<u32>) -> Running {
        fs::write(folder.join(launch::CONFIG_FILE), serde_json::to_string(config).unwrap()).unwrap();
        let mut command = Command::new(&self.envoy);
        command.args(launch::arguments(concurrency)).current_dir(folder).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::spawn(command)
    }

    fn counted(&self, mut processes: Vec<Counted>) -> Vec<Counted> {
        processes.push(Counted { name: "provider", pid: self.provider_pid });
        processes.push(Counted { name: "generator", pid: i32::try_from(std::process::id()).unwrap() });
        processes
    }

    /// A stack of processes that somebody else started.
    pub fn stack(&self, address: SocketAddr, processes: Vec<Counted>, parts: Vec<Running>, folder: TempDir) -> Stack {
        let processes = self.counted(processes);
        Stack { address, processes, _parts: parts, _folder: Some(folder), gateway: None }
    }

    /// Envoy with one cluster and no filter but the router, or with `filters` before it.
    fn plain(&self, filters: Vec<serde_json::Value>, secrets: &serde_json::Value) -> Stack {
        let folder = tempfile::Builder::new().prefix("sgb").tempdir_in("/tmp").unwrap();
        let address = local();
        let mut config = self.rendered(address);
        let resources = &mut config["static_resources"];
        resources["secrets"] = yaml(secrets);
        let mut cluster = json!({ "name": "provider", "type": "STATIC", "connect_timeout": "5s" });
        let endpoint =
            json!({ "socket_address": { "address": self.provider.ip(), "port_value": self.provider.port() } });
        let endpoints = json!([{ "lb_endpoints": [{ "endpoint": { "address": endpoint } }] }]);
        cluster["load_assignment"] = json!({ "cluster_name": "provider", "endpoints": endpoints });
        resources["clusters"].as_sequence_mut().unwrap().push(yaml(&cluster));
        let manager = &mut resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
        let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
        let router = json!({ "name": "router", "typed_config": { "@type": router, "suppress_envoy_headers": true } });
        let all: Vec<_> = filters.iter().chain([&router]).map(yaml).collect();
        manager["http_filters"] = serde_yaml::Value::Sequence(all);
        let route = json!({ "match": { "prefix": "/" }, "route": { "cluster": "provider", "timeout": "0s" } });
        manager["route_config"]["virtual_hosts"][0]["routes"] = yaml(&json!([route]));
        let envoy = self.envoy(folder.path(), &config, None);
        let processes = vec![Counted { name: "envoy", pid: envoy.pid() }];
        self.stack(address, processes, vec![envoy], folder)
    }

    /// (a) Envoy alone.
    pub fn alone(&self) -> Stack {
        self.plain(Vec::new(), &json!([]))
    }

    /// (d) Envoy's own token check and credential injection.
    pub fn token(&self) -> Stack {
        use base64::Engine as _;
        let key = self.token_key.verifying_key();
        let x = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(key.as_bytes());
        let keys =
            json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "k", "x": x }] });
        let provider = json!({
            "issuer": "bench",
            "local_jwks": { "inline_string": keys.to_string() },
            "forward": false,
            "clock_skew_seconds": 5,
        });
        let jwt = json!({
            "name": "jwt",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
                "providers": { "agents": provider },
                "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": "agents" } }],
            },
        });
        let generic = "type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic";
        let injector = json!({
            "name": "credential",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
                "overwrite": true,
                "credential": {
                    "name": "generic",
                    "typed_config": { "@type": generic, "credential": { "name": "credential" }, "header": "authorization" },
                },
            },
        });
        let secret = json!({ "secret": { "inline_string": "Bearer 0123456789abcdef0123456789abcdef" } });
        self.plain(vec![jwt, injector], &json!([{ "name": "credential", "generic_secret": secret }]))
    }

    /// (b) The product's Envoy with a check that always allows.
    pub fn allowing(&self) -> Stack {
        let folder = tempfile::Builder::new().prefix("sgb").tempdir_in("/tmp").unwrap();
        let address = local();
        let socket = folder.path().join(launch::AUTHZ_SOCKET);
        let authz = role(&["allow", socket.to_str().unwrap(), &self.provider.to_string(), REST]);
        wait_until("the check answers", START, || socket.exists());
        let envoy = self.envoy(folder.path(), &self.rendered(address), None);
        let processes = vec![Counted { name: "envoy", pid: envoy.pid() }, Counted { name: "authz", pid: authz.pid() }];
        self.stack(address, processes, vec![envoy, authz], folder)
    }

    /// (c) The gateway as its users start it.
    pub fn gateway(&self) -> Stack {
        self.gateway_with(&[])
    }

    /// The same with variables of its environment set.
    pub fn gateway_with(&self, environment: &[(&str, &str)]) -> Stack {
        let mut setup = Setup::new().env("ENVOY_BIN", self.envoy.to_str().unwrap());
        for (name, value) in environment {
            setup = setup.env(name, value);
        }
        setup.agent = self.agent.clone();
        let gateway = setup.start();
        let created = gateway.create("conn-000", &format!("http://{}", self.provider), "0123456789abcdef", json!({}));
        assert_eq!(created.status, 201, "{}", created.text());
        gateway.wait_in_force("conn-000");
        let processes = vec![
            Counted { name: "envoy", pid: gateway.role("envoy") },
            Counted { name: "authz", pid: gateway.role("authz") },
            Counted { name: "admin", pid: gateway.role("admin") },
            Counted { name: "supervisor", pid: gateway.pid() },
        ];
        let processes = self.counted(processes);
        let address = gateway.setup.ingress;
        Stack { address, processes, _parts: Vec::new(), _folder: None, gateway: Some(gateway) }
    }
}

/// JSON is YAML; Envoy's files are edited as one tree.
fn yaml(value: &serde_json::Value) -> serde_yaml::Value {
    serde_yaml::to_value(value).unwrap()
}

impl Stack {
    /// The gateway, where the stack is one.
    pub fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().unwrap()
    }

    /// Waits until `request` is answered with 200.
    pub fn wait_ready(&self, request: impl Fn() -> Request) {
        wait_until("the stack answers", START, || {
            client::try_send(self.address, &request()).is_ok_and(|response| response.status == 200)
        });
    }
}

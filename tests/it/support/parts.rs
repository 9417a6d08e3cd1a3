//! The same gateway without its supervisor: admin, authz and Envoy started one by one, as in containers.
//! Envoy's file is the product's, except that names are looked up at a server of the test's.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::ops::Deref;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::LazyLock;
use std::sync::Mutex;
use std::thread;

use serde_json::Value;

use super::gateway::Gateway;
use super::gateway::LIMIT;
use super::gateway::Running;
use super::gateway::Setup;
use super::gateway::shared as shared_gateway;
use super::process::wait_until;

/// A name server for `*.test`, written down name by name.
pub struct Names {
    pub address: SocketAddr,
    table: &'static Mutex<HashMap<String, IpAddr>>,
}

impl Names {
    /// Starts answering on a port of its own, for the rest of the process's life.
    pub fn start() -> Self {
        let table: &'static Mutex<HashMap<String, IpAddr>> = Box::leak(Box::default());
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut query = [0_u8; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                if let Some(reply) = reply(&query[..length], &table.lock().unwrap()) {
                    let _ = socket.send_to(&reply, from);
                }
            }
        });
        Self { address, table }
    }

    /// Gives a name an address.
    pub fn set(&self, name: &str, address: IpAddr) {
        self.table.lock().unwrap().insert(name.to_owned(), address);
    }
}

/// Answers one question (RFC 1035 section 4): the address where the type fits, else no records.
fn reply(query: &[u8], table: &HashMap<String, IpAddr>) -> Option<Vec<u8>> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let question = query.get(12..at + 4)?;
    let kind = u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]]);
    let found = table.get(&labels.join("."));
    let data = match (found, kind) {
        (Some(IpAddr::V4(address)), 1) => address.octets().to_vec(),
        (Some(IpAddr::V6(address)), 28) => address.octets().to_vec(),
        (Some(_) | None, _) => Vec::new(),
    };
    let mut reply = query[..2].to_vec();
    // A response, recursion available; NXDOMAIN (3) for names that are not in the table.
    reply.extend_from_slice(&[0x81, if found.is_some() { 0x80 } else { 0x83 }]);
    reply.extend_from_slice(&[0, 1, 0, u8::from(!data.is_empty()), 0, 0, 0, 0]);
    reply.extend_from_slice(question);
    if !data.is_empty() {
        reply.extend_from_slice(&[0xc0, 12]);
        reply.extend_from_slice(&kind.to_be_bytes());
        reply.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
        reply.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        reply.extend_from_slice(&data);
    }
    Some(reply)
}

/// Points every DNS cache in an Envoy file at `server`.
pub fn use_names(value: &mut serde_yaml::Value, server: SocketAddr) {
    match value {
        serde_yaml::Value::Mapping(map) => {
            for (key, inner) in map.iter_mut() {
                if key.as_str() == Some("typed_dns_resolver_config") {
                    let config = format!(
                        "{{\"@type\": type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig, \
                         resolvers: [{{ socket_address: {{ address: {}, port_value: {} }} }}]}}",
                        server.ip(),
                        server.port()
                    );
                    inner["typed_config"] = serde_yaml::from_str(&config).unwrap();
                } else {
                    use_names(inner, server);
                }
            }
        }
        serde_yaml::Value::Sequence(list) => list.iter_mut().for_each(|inner| use_names(inner, server)),
        serde_yaml::Value::Tagged(tagged) => use_names(&mut tagged.value, server),
        serde_yaml::Value::Null
        | serde_yaml::Value::Bool(_)
        | serde_yaml::Value::Number(_)
        | serde_yaml::Value::String(_) => {}
    }
}

/// The Envoy that `gateway start` found or installed.
pub fn envoy_binary() -> PathBuf {
    fs::read_link(format!("/proc/{}/exe", shared_gateway().role("envoy"))).unwrap()
}

/// Starts admin for an installation, by itself, and waits until it can be called: it listens before it has minted its token.
pub fn start_admin(setup: &Setup, options: &[&str]) -> Running {
    let mut admin = setup.command(&[["gateway", "admin"].as_slice(), options].concat());
    admin.env("GATEWAY_MASTER_KEY", super::agent::random_hex(32));
    let admin = Running::spawn_in(admin, Some(setup.root.path()));
    let token = setup.data().join("admin-token");
    wait_until("admin listens", LIMIT, || token.exists() && std::net::TcpStream::connect(setup.admin).is_ok());
    admin
}

/// Starts authz for an installation, by itself.
pub fn start_authz(setup: &Setup) -> Running {
    let run = setup.run_dir();
    let listen = format!("unix:{}", run.join("authz.sock").display());
    let state = format!("unix:{}", run.join("state.sock").display());
    let run = run.to_str().unwrap();
    Running::spawn(setup.command(&["gateway", "authz", "--listen", &listen, "--state", &state, "--run-dir", run]))
}

/// Starts Envoy for an installation, by itself, with its names looked up at `names`.
pub fn start_envoy(setup: &Setup, names: &Names) -> Running {
    let printed = setup.command(&["gateway", "envoy-config"]).output().unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let mut config: serde_yaml::Value = serde_yaml::from_slice(&printed.stdout).unwrap();
    use_names(&mut config, names.address);
    let file = setup.run_dir().join("envoy-test.yaml");
    fs::write(&file, serde_json::to_string(&config).unwrap()).unwrap();
    run_envoy(&file, &setup.run_dir())
}

/// Runs Envoy by a file, in a folder.
pub fn run_envoy(file: &Path, folder: &Path) -> Running {
    let mut envoy = Command::new(envoy_binary());
    envoy
        .args(["-c", file.to_str().unwrap(), "--concurrency", "1", "--disable-hot-restart"])
        .current_dir(folder)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Running::spawn(envoy)
}

/// The parts, each a child of the test.
pub struct Parts {
    /// Everything a gateway can be asked; its supervisor is admin itself.
    pub gateway: Gateway,
    pub names: Names,
    pub authz: Running,
    _envoy: Running,
}

impl Deref for Parts {
    type Target = Gateway;
    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}

/// The parts for all tests that need them.
pub fn shared() -> &'static Parts {
    static SHARED: LazyLock<Parts> = LazyLock::new(Parts::start);
    &SHARED
}

impl Parts {
    fn start() -> Self {
        let setup = Setup::new();
        setup.write_yaml();
        let (run, data, home) = (setup.run_dir(), setup.data(), setup.home());
        setup.begin_journal();
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let admin = start_admin(
            &setup,
            &[
                "--addr",
                &setup.admin.to_string(),
                "--data-dir",
                &path(&data),
                "--run-dir",
                &path(&run),
                "--home",
                &path(&home),
                "--config",
                &path(&home.join("gateway.yaml")),
            ],
        );
        let authz = start_authz(&setup);
        let names = Names::start();
        let envoy = start_envoy(&setup, &names);
        let gateway = Gateway::of(setup, admin);
        wait_until("the parts are ready", LIMIT, || gateway.healthy() && gateway.admin_ready());
        Self { gateway, names, authz, _envoy: envoy }
    }

    /// A connection whose provider is called by `base_url`, in force.
    pub fn connect_to(&self, base_url: &str, fields: Value) -> String {
        let id = self.next_id();
        let created = self.create(&id, base_url, "canary-address", fields);
        assert_eq!(created.status, 201, "{base_url}: {}", created.text());
        self.wait_in_force(&id);
        format!("/proxy/{id}/v1")
    }
}

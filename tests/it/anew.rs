//! Settings that need new processes: the supervisor starts everything anew, or goes on as it was.

use std::fs;
use std::net::SocketAddr;
use std::net::TcpListener;

use serde_json::json;

use crate::support::client;
use crate::support::client::Request;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Setup;
use crate::support::gateway::free_port;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn yaml(admin: u16) -> String {
    format!("gateway: {{addr: '127.0.0.1:{admin}'}}\n")
}

/// A gateway whose admin address stands in the file alone.
fn start() -> Gateway {
    let mut setup = Setup::new();
    setup.environment.push(("GATEWAY_ADDR".to_owned(), String::new()));
    let first = yaml(setup.admin.port());
    setup.yaml(&first).start()
}

fn edit(gateway: &Gateway, text: &str) {
    let path = gateway.setup.home().join("gateway.yaml");
    let draft = path.with_extension("draft");
    fs::write(&draft, gateway.setup.yaml_of(text)).unwrap();
    fs::rename(draft, path).unwrap();
}

fn ready_at(address: SocketAddr) -> bool {
    let request = Request::new("GET", &address.to_string(), "/health/ready");
    client::try_send(address, &request).is_ok_and(|answer| answer.status == 200)
}

fn says_ready(gateway: &Gateway) -> usize {
    gateway.said().lines().filter(|line| line.starts_with("ready:")).count()
}

#[test]
fn another_admin_address_in_the_file_is_there_after_a_start_anew() {
    let (gateway, upstream) = (start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let (supervisor, next) = (gateway.pid(), local(free_port()));
    edit(&gateway, &yaml(next.port()));
    wait_until("the admin API is at its new address", LIMIT, || ready_at(next) && says_ready(&gateway) == 2);
    assert!(!ready_at(gateway.setup.admin), "and no longer at the old one");
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200, "{}", gateway.said());
    assert!(gateway.running().ended().is_none() && gateway.pid() == supervisor);
    assert!(gateway.said().contains("starting anew"), "{}", gateway.said());
}

#[test]
fn an_admin_address_of_somebody_else_leaves_the_gateway_as_it_was() {
    let (gateway, upstream) = (start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap();
    edit(&gateway, &yaml(taken.port()));
    wait_until("the log says so", LIMIT, || gateway.logs().contains(&format!("port {}", taken.port())));
    assert!(ready_at(gateway.setup.admin) && says_ready(&gateway) == 1, "nothing was stopped: {}", gateway.said());
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
}

#[test]
fn settings_that_only_the_start_finds_wrong_are_held_back_until_they_change() {
    let (gateway, upstream) = (start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let same = yaml(gateway.setup.admin.port());
    edit(&gateway, &format!("{same}envoy: {{bin: /nowhere/envoy}}\n"));
    wait_until("the gateway says so", LIMIT, || gateway.said().contains("the new settings cannot be used"));
    wait_until("it goes on", LIMIT, || says_ready(&gateway) == 2 && ready_at(gateway.setup.admin));
    assert!(gateway.said().contains("/nowhere/envoy"), "{}", gateway.said());
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
    // The same text is not tried again; another one is.
    let (kept, next) = (gateway.setup.run_dir().join("gateway.yaml.last-good"), local(free_port()));
    assert!(kept.exists());
    edit(&gateway, &yaml(next.port()));
    wait_until("the admin API is at its new address", LIMIT, || ready_at(next) && says_ready(&gateway) == 3);
    assert!(!kept.exists());
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
}

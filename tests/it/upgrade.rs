//! What earlier states of the program left on a disk, under this one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use serde_json::json;

use crate::support::client;
use crate::support::client::Request;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Setup;
use crate::support::process::wait_until;
use crate::support::stack::DEMO;
use crate::support::stack::Stack;
use crate::support::stack::end;
use crate::support::stack::pong;
use crate::support::upstream::Upstream;

/// As `tests/golden/upgrade/make-store` has it.
const MASTER_KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// The newest of the store's and of the API's.
const NEWEST: (i64, i64) = (sigilum::store::migrate::NEWEST, sigilum::api::migrate::NEWEST);

/// Where what earlier states left is kept.
fn earlier(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/upgrade").join(name)
}

/// Copies a folder, private as the program that wrote it had it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &place);
        } else {
            fs::copy(entry.path(), &place).unwrap();
            fs::set_permissions(place, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

/// The version of a database's schema.
fn schema(database: &Path) -> i64 {
    let database = rusqlite::Connection::open_with_flags(database, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    database.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

fn a_store_goes_on(version: i64) {
    let upstream = Upstream::start();
    let mut setup = Setup::new().env("GATEWAY_MASTER_KEY", MASTER_KEY);
    let agent = (setup.agent.namespace.clone(), setup.agent.public_key.clone(), "old-one".to_owned());
    setup.approvals.push(agent);
    setup.begin_journal();
    copy(&earlier(&format!("store-{version}")), &setup.data());
    let store = setup.data().join("gateway.db");
    assert_eq!(schema(&store), version);
    let gateway = setup.start_anew();
    assert_eq!(schema(&store), NEWEST.0);
    let listed = gateway.admin("GET", "/connections", None).json();
    let of = |id: &str| {
        let all = listed["connections"].as_array().unwrap();
        all.iter().find(|one| one["id"] == id).unwrap_or_else(|| panic!("no {id} in {listed}")).clone()
    };
    assert_eq!((&of("old-one")["name"], &of("old-one")["status"]), (&json!("Old"), &json!("active")));
    assert_eq!((&of("old-two")["auth_header_name"], &of("old-two")["status"]), (&json!("X-Key"), &json!("disabled")));
    let audit = gateway.admin("GET", "/audit", None).text();
    assert!(audit.contains("old-one") && audit.contains("old-two"), "{audit}");
    // Its secret opens, and is injected.
    let changed = gateway.admin("PATCH", "/connections/old-one", Some(&json!({ "base_url": upstream.base_url() })));
    assert_eq!(changed.status, 200, "{}", changed.text());
    wait_until("the old connection serves", LIMIT, || gateway.get("/proxy/old-one/v1").status == 200);
    assert_eq!(upstream.seen().last().unwrap().header("authorization"), Some("Bearer canary-upgrade-1"));
}

#[test]
fn a_data_folder_with_the_store_of_schema_3_goes_on() {
    a_store_goes_on(3);
}

#[test]
fn a_data_folder_with_the_store_of_schema_2_goes_on() {
    a_store_goes_on(2);
}

#[test]
fn the_home_of_a_stack_with_the_first_store_goes_on() {
    let stack = Stack::new();
    let root = stack.setup.root.path();
    let home = earlier("home");
    copy(&home.join("workspace"), &stack.workspace());
    copy(&home.join("api"), &stack.api_data());
    copy(&home.join("gateway"), &stack.setup.data());
    for agent in ["agent2", "agent3"] {
        copy(&home.join(agent), &root.join(agent));
    }
    let saved = fs::read_to_string(home.join("config.env")).unwrap();
    fs::create_dir(root.join(".sigilum")).unwrap();
    fs::write(root.join(".sigilum/config.env"), saved.replace("@HOME@", root.to_str().unwrap())).unwrap();
    let schemas = || (schema(&stack.setup.data().join("gateway.db")), schema(&stack.api_data().join("api.db")));
    assert_eq!(schemas(), (1, 3));

    let running = stack.start();
    assert_eq!(schemas(), NEWEST);
    for answer in [stack.ping(), stack.ping_native()] {
        assert!(pong(&answer), "{answer:?}");
    }
    // Who was approved still is, and whose approval was taken back is not.
    let balance = format!("http://{}/proxy/{DEMO}/v1/balance", stack.setup.ingress);
    let asks = |agent: &str| {
        let home = root.join(agent);
        let output = stack.run(&["--namespace", "demo", "--home", home.to_str().unwrap(), "request", "GET", &balance]);
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(asks("agent2").contains("\"balance\":1000"), "{}", running.said());
    assert!(asks("agent3").contains("AUTH_CLAIM_REQUIRED"));
    // A secret that was sealed then is injected now.
    let upstream = Upstream::start();
    stack.done(&["connection", "set", "my-api", &format!("base_url={}", upstream.base_url())]);
    wait_until("its provider is asked at the new address", LIMIT, || {
        stack.run(&["request", "GET", &format!("http://{}/proxy/my-api/v1", stack.setup.ingress)]).status.success()
    });
    assert_eq!(upstream.seen().last().unwrap().header("authorization"), Some("Bearer canary-upgrade-home-5150"));
    // Its owner's and its operator's tokens still open what they opened.
    assert!(stack.done(&["claim", "list", "--status", "approved"]).contains("my-api"));
    let token = fs::read_to_string(home.join("gateway/admin-token")).unwrap();
    let request = Request::new("GET", "admin", "/api/admin/connections")
        .header("authorization", &format!("Bearer {}", token.trim()));
    assert_eq!(client::send(stack.setup.admin, &request).status, 200);
    end(running);
}

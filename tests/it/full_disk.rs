//! The disk of the store is full: requests of agents go on, and who wants to change something hears why it cannot be.

use std::fs;

use serde_json::Value;
use serde_json::json;

use crate::support::agent::random_hex;
use crate::support::client;
use crate::support::client::Body;
use crate::support::client::Request;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::process::wait_until;
use crate::support::volume::Volume;

/// An admin whose data folder is a volume of its own.
struct Small {
    setup: Setup,
    _admin: Running,
    volume: Volume,
}

impl Small {
    fn start() -> Option<Self> {
        let setup = Setup::new();
        setup.write_yaml();
        let volume = Volume::at(setup.data(), "4m")?;
        let mut admin = setup.command(&["gateway", "admin"]);
        admin.env("GATEWAY_MASTER_KEY", random_hex(32));
        let admin = Running::spawn(volume.within(&admin));
        let token = volume.seen().join("admin-token");
        wait_until("admin listens", LIMIT, || token.exists() && std::net::TcpStream::connect(setup.admin).is_ok());
        Some(Self { setup, _admin: admin, volume })
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> client::Response {
        let token = fs::read_to_string(self.volume.seen().join("admin-token")).unwrap();
        let mut request = Request::new(method, &self.setup.admin.to_string(), path)
            .header("authorization", &format!("Bearer {}", token.trim()));
        if let Some(body) = body {
            let body = Body::Sized(body.to_string().into_bytes());
            request = request.header("content-type", "application/json").with_body(body);
        }
        client::send(self.setup.admin, &request)
    }

    fn store(&self) -> Value {
        let told = self.ask("GET", "/health/ready?fresh", None).json();
        told["conditions"].as_array().unwrap().iter().find(|one| one["type"] == "Store").unwrap().clone()
    }

    /// Exit code and standard error of `connection add`.
    fn add(&self, id: &str) -> (Option<i32>, String) {
        let mut command =
            self.setup.command(&["connection", "add", id, "--base-url", "https://h.example", "--secret-env", "KEY"]);
        command.env("KEY", "canary-of-the-store");
        let output = self.volume.within(&command).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn a_change_that_finds_no_room_says_so_and_the_store_mends_itself() {
    let Some(small) = Small::start() else { return };
    assert_eq!(small.add("first").0, Some(0));
    assert_eq!(small.store()["status"], "True");
    small.volume.fill();
    // What the log of the store has written once has its room.
    let mut refused = None;
    for number in 0..200 {
        let body = json!({"id": format!("conn-{number}"), "base_url": "https://h.example", "auth_secret_key": "key",
            "secrets": {"key": random_hex(2000)}});
        let answer = small.ask("POST", "/api/admin/connections", Some(&body));
        if answer.status != 201 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("the volume is full");
    assert_eq!((refused.status, refused.code().as_str()), (503, "STORE_UNAVAILABLE"), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());

    let (code, said) = small.add("second");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the gateway's disk is full") && said.contains("sigilum health"), "{said}");
    let lines = said.lines().filter(|line| !line.starts_with("[i]"));
    assert_eq!(lines.count(), 2, "{said}");
    let told = small.store();
    assert_eq!((&told["status"], &told["requirement"]), (&json!("False"), &json!("advisory")), "{told}");
    assert_eq!(told["reason"], "DiskFull");

    small.volume.make_room();
    wait_until("the store can be written to", LIMIT, || small.store()["status"] == "True");
    assert_eq!(small.add("second").0, Some(0));
}

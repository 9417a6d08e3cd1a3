//! A data folder of an earlier version under this one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use crate::support::gateway::LIMIT;
use crate::support::gateway::Setup;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// As `tests/golden/data-0.1.0/make` has it.
const MASTER_KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

#[test]
fn a_data_folder_of_0_1_0_goes_on() {
    let upstream = Upstream::start();
    let mut setup = Setup::new().env("GATEWAY_MASTER_KEY", MASTER_KEY);
    let agent = (setup.agent.namespace.clone(), setup.agent.public_key.clone(), "old-one".to_owned());
    setup.approvals.push(agent);
    setup.begin_journal();
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data-0.1.0/data");
    for file in fs::read_dir(old).unwrap() {
        let file = file.unwrap();
        let place = setup.data().join(file.file_name());
        fs::copy(file.path(), &place).unwrap();
        fs::set_permissions(place, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let gateway = setup.start_anew();
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

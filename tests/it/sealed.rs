//! Secrets that come sealed through whoever relays: used like others, and in clear nowhere but at the provider.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hpke::Deserializable as _;
use hpke::Serializable as _;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use serde_json::json;

use crate::support::agent::random_hex;
use crate::support::client::Body;
use crate::support::client::Request;
use crate::support::client::Response;
use crate::support::client::send;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

const SESSION: &str = "0b9d4c5e-5f0f-4c7e-8a43-2d0f4c1c9a77";

/// As a page does it, from the description of the format alone.
fn seal(gateway: &Gateway, target: [&str; 4], value: &str) -> String {
    let shown = gateway.admin("GET", "/sealing-key", None).json();
    let key = URL_SAFE_NO_PAD.decode(shown["public_key"].as_str().unwrap()).unwrap();
    let key = <X25519HkdfSha256 as hpke::Kem>::PublicKey::from_bytes(&key).unwrap();
    let (encapsulated, ciphertext) = hpke::single_shot_seal::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &hpke::OpModeS::Base,
        &key,
        b"sigilum sealed secret v1",
        value.as_bytes(),
        target.join("\n").as_bytes(),
    )
    .unwrap();
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    format!("sealed:v1:{}.{}", encode(&encapsulated.to_bytes()), encode(&ciphertext))
}

/// As the bridge sends it.
fn relay(gateway: &Gateway, method: &str, path: &str, body: &serde_json::Value) -> Response {
    let request = Request::new(method, &gateway.setup.admin.to_string(), &format!("/api/admin{path}"))
        .header("x-sigilum-admin-token", &gateway.token())
        .header("x-sigilum-relay", SESSION)
        .header("content-type", "application/json")
        .with_body(Body::Sized(body.to_string().into_bytes()));
    send(gateway.setup.admin, &request)
}

/// Files below `folder` that hold one of these bytes.
fn holders(folder: &Path, wanted: &[Vec<u8>], found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            holders(&path, wanted, found);
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap();
            let holds = |part: &Vec<u8>| bytes.windows(part.len()).any(|window| window == part.as_slice());
            if wanted.iter().any(holds) {
                found.push(path.display().to_string());
            }
        }
    }
}

fn search(gateway: &Gateway, text: &str) -> Vec<String> {
    let wanted = [text.as_bytes().to_vec(), URL_SAFE_NO_PAD.encode(text).into_bytes()];
    let mut found = Vec::new();
    holders(gateway.setup.root.path(), &wanted, &mut found);
    if gateway.said().contains(text) {
        found.push("output of the supervisor".to_owned());
    }
    found
}

#[test]
fn a_sealed_secret_reaches_the_provider_and_is_in_clear_nowhere_else() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let (id, base_url) = (gateway.next_id(), upstream.base_url());
    let first = format!("canary-{}", random_hex(16));
    let second = format!("canary-{}", random_hex(16));
    let new = format!("{base_url}\n\n\n\n\n\napi_key\n0");
    let given = seal(&gateway, ["connection", &id, "api_key", &new], &first);
    let body = json!({"id": id, "base_url": base_url, "auth_secret_key": "api_key", "secrets": {"api_key": given}});
    let made = relay(&gateway, "POST", "/connections", &body);
    assert_eq!(made.status, 201, "{}", made.text());
    gateway.wait_in_force(&id);
    assert_eq!(gateway.get(&format!("/proxy/{id}/v1")).status, 200);
    let seen = upstream.seen().pop().unwrap();
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {first}").as_str()));

    let shown = format!("{base_url}\n\n\nbearer\nAuthorization\nBearer \napi_key\n1");
    let given = seal(&gateway, ["connection", &id, "api_key", &shown], &second);
    let body = json!({"secrets": {"api_key": given}});
    assert_eq!(relay(&gateway, "POST", &format!("/connections/{id}/rotate"), &body).status, 200);
    wait_until("the second secret is injected", LIMIT, || {
        assert_eq!(gateway.get(&format!("/proxy/{id}/v1")).status, 200);
        let wanted = format!("Bearer {second}");
        upstream.seen().pop().is_some_and(|seen| seen.header("authorization") == Some(wanted.as_str()))
    });
    // Moved to another connection it is refused, and nothing of it is told.
    let moved =
        json!({"id": "moved", "base_url": base_url, "auth_secret_key": "api_key", "secrets": {"api_key": given}});
    let refused = relay(&gateway, "POST", "/connections", &moved);
    assert_eq!((refused.status, refused.code().as_str()), (400, "SEALED_SECRET_INVALID"), "{}", refused.text());

    let audit = gateway.admin("GET", "/audit?limit=2", None).json();
    for entry in audit["entries"].as_array().unwrap() {
        assert_eq!(
            (&entry["detail"]["relayed"], &entry["detail"]["secret"]),
            (&json!(SESSION), &json!("sealed")),
            "{audit}"
        );
    }
    for secret in [&first, &second] {
        assert_eq!(search(&gateway, secret), Vec::<String>::new());
    }
    assert!(!search(&gateway, &id).is_empty(), "the search can find something");
    let lines = fs::read_to_string(gateway.setup.data().join("logs/audit.jsonl")).unwrap();
    assert!(lines.contains(SESSION) && !lines.contains("sealed:v1:"), "{lines}");
}

#[test]
fn the_sealing_key_is_shown_and_replaced_with_and_without_a_running_gateway() {
    let gateway = Gateway::start();
    let run = |arguments: &[&str]| {
        let mut command = gateway.setup.command(&[&["gateway", "sealing-key"], arguments].concat());
        let output = command.env("GATEWAY_ADMIN_URL", format!("http://{}", gateway.setup.admin)).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = gateway.admin("GET", "/sealing-key", None).json();
    let fingerprint = shown["fingerprint"].as_str().unwrap();
    assert!(run(&["show"]).contains(fingerprint));
    let json: serde_json::Value = serde_json::from_str(&run(&["show", "--json"])).unwrap();
    assert_eq!(json, json!({"public_key": shown["public_key"], "fingerprint": fingerprint}));
    let replaced: serde_json::Value = serde_json::from_str(&run(&["rotate", "--yes", "--json"])).unwrap();
    assert_eq!(replaced["previous"], fingerprint);
    let online = gateway.admin("GET", "/sealing-key", None).json();
    assert_eq!((&online["fingerprint"], &online["public_key"]), (&replaced["fingerprint"], &replaced["public_key"]));

    gateway.running().signal(rustix::process::Signal::TERM);
    assert!(gateway.running().wait(LIMIT).success(), "{}", gateway.said());
    assert!(run(&["show"]).contains(online["fingerprint"].as_str().unwrap()));
    let offline: serde_json::Value = serde_json::from_str(&run(&["rotate", "--yes", "--json"])).unwrap();
    assert_eq!(offline["previous"], online["fingerprint"]);
    gateway.restart();
    assert_eq!(gateway.admin("GET", "/sealing-key", None).json()["fingerprint"], offline["fingerprint"]);
    let audit = gateway.admin("GET", "/audit?action=sealing_key.set", None).json();
    let ways: Vec<_> = audit["entries"].as_array().unwrap().iter().map(|entry| entry["via"].clone()).collect();
    assert_eq!(ways, [json!("command"), json!("token"), json!("token")]);
}

//! Tests of secrets that come sealed to the gateway: opened where they were sealed for, nowhere else, and kept like others.

use serde_json::Value;
use serde_json::json;

use super::*;
use crate::domain::connection::Credential;
use crate::domain::sealing::Purpose;
use crate::domain::sealing::SealingPublicKey;
use crate::domain::sealing::Target;
use crate::domain::sealing::seal;

const KEY: &str = "/api/admin/sealing-key";
const SERVICE_KEY: &str = "/api/admin/service-api-keys/linear";
const BASE_URL: &str = "https://api.example.com/v1";
/// What a secret of a new connection is bound to, and what the one that follows it is.
const NEW: &str = "https://api.example.com/v1\n\n\n\n\n\nkey\n0";
const SHOWN: &str = "https://api.example.com/v1\n\n\nbearer\nAuthorization\nBearer \nkey\n1";

async fn key(gateway: &Gateway) -> SealingPublicKey {
    let shown = gateway.ask("GET", KEY, "").await.json();
    SealingPublicKey::parse(shown["public_key"].as_str().unwrap()).unwrap()
}

async fn sealed(gateway: &Gateway, target: Target<'_>, value: &str) -> String {
    seal(&key(gateway).await, &target, value.as_bytes()).unwrap()
}

const fn secret(id: &'static str, field: &'static str) -> Target<'static> {
    Target { purpose: Purpose::Connection, id, field, destination: NEW }
}

/// A secret that follows the first one of `linear`.
const fn second(field: &'static str) -> Target<'static> {
    Target { purpose: Purpose::Connection, id: "linear", field, destination: SHOWN }
}

const VARIABLE: Target<'static> = Target { purpose: Purpose::Variable, id: "TOKEN", field: "value", destination: "" };
const SERVICE: Target<'static> =
    Target { purpose: Purpose::ServiceApiKey, id: "linear", field: "key", destination: "" };

fn create(id: &str, value: &str) -> String {
    json!({"id": id, "base_url": BASE_URL, "auth_secret_key": "key", "secrets": {"key": value}}).to_string()
}

/// What a connection injects.
fn injects(snapshot: &Snapshot, id: &str, secret: &str) -> bool {
    let Some(connection) = snapshot.connection(id) else { return false };
    match &connection.credential {
        Ok(Credential::Header { value, .. }) => value.expose() == format!("Bearer {secret}"),
        Ok(Credential::Query { .. }) | Err(_) => false,
    }
}

#[tokio::test]
async fn the_key_is_shown_to_whoever_is_let_in_and_stays() {
    let gateway = Gateway::start().await;
    let shown = gateway.ask("GET", KEY, "").await;
    assert_eq!(shown.status, 200, "{shown:?}");
    let public = SealingPublicKey::parse(shown.json()["public_key"].as_str().unwrap()).unwrap();
    let expected = json!({"kem": "DHKEM(X25519, HKDF-SHA256)", "kdf": "HKDF-SHA256", "aead": "AES-256-GCM",
        "public_key": public.text(), "fingerprint": public.fingerprint()});
    assert_eq!(shown.json(), expected);
    assert_eq!(gateway.send("GET", KEY, &[], "").await.code(), "ADMIN_TOKEN_REQUIRED");
    let (folder, _) = gateway.end().await;
    let again = Gateway::start_in(folder, |_| {}).await;
    assert_eq!(again.ask("GET", KEY, "").await.json(), expected);
}

#[tokio::test]
async fn a_sealed_secret_is_injected_like_any_other() {
    let gateway = Gateway::start().await;
    let authz = gateway.authz();
    let given = sealed(&gateway, secret("linear", "key"), " first ").await;
    let made = gateway.ask("POST", CONNECTIONS, &create("linear", &given)).await;
    assert_eq!((made.status, &made.json()["credential_keys"]), (201, &json!(["key"])), "{made:?}");
    authz.until(|snapshot| injects(snapshot, "linear", "first")).await;

    let given = sealed(&gateway, second("key"), "second").await;
    let body = json!({"secrets": {"key": given}}).to_string();
    let rotated = gateway.ask("POST", "/api/admin/connections/linear/rotate", &body).await;
    assert_eq!((rotated.status, &rotated.json()["secret_version"]), (200, &json!(2)), "{rotated:?}");
    authz.until(|snapshot| injects(snapshot, "linear", "second")).await;
    // The same value sealed once more is no other value.
    let third = SHOWN.replace("key\n1", "key\n2");
    let again = sealed(&gateway, Target { destination: &third, ..second("key") }, "second").await;
    let again = json!({"secrets": {"key": again}}).to_string();
    assert_eq!(gateway.ask("POST", "/api/admin/connections/linear/rotate", &again).await.code(), "SECRET_UNCHANGED");

    let body = json!({"key": "TOKEN", "value": sealed(&gateway, VARIABLE, "third").await}).to_string();
    assert_eq!(gateway.ask("POST", VARIABLES, &body).await.status, 200);
    assert_eq!(gateway.ask("POST", CONNECTIONS, &create("slack", "{{TOKEN}}")).await.status, 201);
    authz.until(|snapshot| injects(snapshot, "slack", "third")).await;

    let body = json!({"key": sealed(&gateway, SERVICE, "sk_sealed_01").await}).to_string();
    let written = gateway.ask("PUT", SERVICE_KEY, &body).await;
    assert_eq!(written.status, 200, "{written:?}");
    assert_eq!(gateway.ask("GET", SERVICE_KEY, "").await.json()["key_prefix"], "sk_seale...");
    authz.end().await;
}

#[tokio::test]
async fn what_was_sealed_for_another_place_opens_nowhere_and_changes_nothing() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.ask("POST", CONNECTIONS, &create("linear", "plain")).await.status, 201);
    let rotate = |value: &str| json!({"secrets": {"key": value}}).to_string();
    let variable = |value: &str| json!({"key": "TOKEN", "value": value}).to_string();
    let service = |value: &str| json!({ "key": value }).to_string();
    let good = sealed(&gateway, secret("linear", "key"), CANARY).await;
    let elsewhere = Target { destination: "https://evil.example", ..secret("other", "key") };
    let rotation = "/api/admin/connections/linear/rotate";
    for (method, path, body) in [
        ("POST", CONNECTIONS, create("other", &good)),
        ("POST", CONNECTIONS, create("other", &sealed(&gateway, secret("other", "other"), CANARY).await)),
        ("POST", CONNECTIONS, create("other", &sealed(&gateway, elsewhere, CANARY).await)),
        // The URL as it is written counts, not what it comes to.
        (
            "POST",
            CONNECTIONS,
            create("other", &sealed(&gateway, secret("other", "key"), CANARY).await).replace("/v1", "/v1/"),
        ),
        ("POST", rotation, rotate(&sealed(&gateway, second("other"), CANARY).await)),
        ("POST", rotation, rotate(&sealed(&gateway, Target { destination: "", ..second("key") }, CANARY).await)),
        ("POST", rotation, rotate(&sealed(&gateway, VARIABLE, CANARY).await)),
        ("POST", VARIABLES, variable(&sealed(&gateway, Target { id: "OTHER", ..VARIABLE }, CANARY).await)),
        ("POST", VARIABLES, variable(&good)),
        ("PUT", SERVICE_KEY, service(&sealed(&gateway, Target { id: "slack", ..SERVICE }, CANARY).await)),
        ("PUT", SERVICE_KEY, service(&good)),
        ("POST", CONNECTIONS, create("other", "sealed:v2:abc.def")),
        ("POST", CONNECTIONS, create("other", " sealed:")),
        ("POST", rotation, rotate("sealed:v1:abc.def")),
        ("POST", VARIABLES, variable("sealed:v1:")),
        ("PUT", SERVICE_KEY, service("sealed:later")),
    ] {
        let refused = gateway.ask(method, path, &body).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (400, "SEALED_SECRET_INVALID"),
            "{path} {body}: {refused:?}"
        );
        assert!(!refused.body.contains(CANARY), "{refused:?}");
    }
    assert_eq!(gateway.ask("GET", CONNECTIONS, "").await.json()["connections"].as_array().unwrap().len(), 1);
    assert_eq!(gateway.ask("GET", "/api/admin/connections/linear", "").await.json()["secret_version"], 1);
    assert_eq!(gateway.ask("GET", VARIABLES, "").await.json(), json!({"variables": []}));
    assert_eq!(gateway.ask("GET", SERVICE_KEY, "").await.json()["has_key"], false);
}

#[tokio::test]
async fn what_opens_is_judged_like_a_plain_value() {
    let gateway = Gateway::start().await;
    let long = "x".repeat(16 * 1024 + 1);
    let (header, blank) =
        (sealed(&gateway, secret("linear", "key"), "a\nb").await, sealed(&gateway, SERVICE, "a b").await);
    let missing = sealed(&gateway, secret("linear", "key"), "{{NOWHERE}}").await;
    let (cycle, empty) = (sealed(&gateway, VARIABLE, "{{OTHER}}").await, sealed(&gateway, VARIABLE, " ").await);
    let long = sealed(&gateway, secret("linear", "key"), &long).await;
    for (method, path, body, code) in [
        ("POST", CONNECTIONS, create("linear", &header), ""),
        ("POST", CONNECTIONS, create("linear", &missing), "VARIABLE_NOT_FOUND"),
        ("POST", CONNECTIONS, create("linear", &long), ""),
        ("POST", VARIABLES, json!({"key": "TOKEN", "value": cycle}).to_string(), "VARIABLE_CYCLE"),
        ("POST", VARIABLES, json!({"key": "TOKEN", "value": empty}).to_string(), ""),
        ("PUT", SERVICE_KEY, json!({ "key": blank }).to_string(), ""),
    ] {
        let refused = gateway.ask(method, path, &body).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, code), "{path}: {refused:?}");
    }
}

#[tokio::test]
async fn a_replaced_key_is_told_and_the_old_one_opens_nothing() {
    let gateway = Gateway::start().await;
    let old = key(&gateway).await;
    let given = sealed(&gateway, secret("linear", "key"), "value").await;
    let replaced = gateway.ask("POST", "/api/admin/sealing-key/rotate", "").await;
    assert_eq!(replaced.status, 200, "{replaced:?}");
    let new = key(&gateway).await;
    assert_ne!(old, new);
    assert_eq!(replaced.json()["key"]["fingerprint"], new.fingerprint());
    assert_eq!(replaced.json()["previous"], old.fingerprint());
    assert_eq!(gateway.ask("POST", CONNECTIONS, &create("linear", &given)).await.code(), "SEALED_SECRET_INVALID");
    let entries = gateway.ask("GET", "/api/admin/audit?action=sealing_key.set", "").await.json();
    let said: Vec<&Value> = entries["entries"].as_array().unwrap().iter().map(|entry| &entry["detail"]).collect();
    let expected = [
        json!({"fingerprint": new.fingerprint(), "previous": old.fingerprint()}),
        json!({"fingerprint": old.fingerprint()}),
    ];
    assert_eq!(said, expected.iter().collect::<Vec<_>>());
}

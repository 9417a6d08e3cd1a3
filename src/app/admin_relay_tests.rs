//! Tests of requests that a pairing relays: marked in the audit, and never able to lead a secret elsewhere.

use serde_json::Value;
use serde_json::json;

use super::*;
use crate::domain::sealing::Purpose;
use crate::domain::sealing::SealingPublicKey;
use crate::domain::sealing::Target;
use crate::domain::sealing::seal;

const SESSION: &str = "3f1f7c1e-7a8e-4c55-9f0b-0f5a4d2f0a11";
const LINEAR: &str = "/api/admin/connections/linear";
const CATALOG: &str = "/api/admin/service-catalog";

/// As the bridge sends it.
async fn relay(gateway: &Gateway, method: &str, path: &str, body: &str) -> Answer {
    let headers = [("x-sigilum-admin-token", TOKEN), ("x-sigilum-relay", SESSION)];
    gateway.send(method, path, &headers, body).await
}

async fn sealed(gateway: &Gateway, id: &str, destination: &str, value: &str) -> String {
    let shown = gateway.ask("GET", "/api/admin/sealing-key", "").await.json();
    let key = SealingPublicKey::parse(shown["public_key"].as_str().unwrap()).unwrap();
    let destination = format!("{destination}\n\n\n\n\n\nkey\n0");
    let target = Target { purpose: Purpose::Connection, id, field: "key", destination: &destination };
    seal(&key, &target, value.as_bytes()).unwrap()
}

fn create(id: &str, value: &str) -> Value {
    json!({"id": id, "base_url": "https://api.example.com", "auth_secret_key": "key", "secrets": {"key": value}})
}

fn forbidden(answer: &Answer) {
    assert_eq!((answer.status, answer.code().as_str()), (403, "RELAY_FORBIDDEN"), "{answer:?}");
}

/// The details of the newest entries, without what they say of the change itself.
async fn audited(gateway: &Gateway, count: usize) -> Vec<(String, Value, Value)> {
    let entries = gateway.ask("GET", &format!("/api/admin/audit?limit={count}"), "").await.json();
    let said = |entry: &Value| {
        let detail = &entry["detail"];
        (entry["action"].as_str().unwrap().to_owned(), detail["relayed"].clone(), detail["secret"].clone())
    };
    entries["entries"].as_array().unwrap().iter().map(said).collect()
}

#[tokio::test]
async fn the_audit_says_what_was_relayed_and_how_its_secret_came() {
    let gateway = Gateway::start().await;
    let given = sealed(&gateway, "linear", "https://api.example.com", CANARY).await;
    assert_eq!(relay(&gateway, "POST", CONNECTIONS, &create("linear", &given).to_string()).await.status, 201);
    assert_eq!(relay(&gateway, "POST", CONNECTIONS, &create("slack", "plain").to_string()).await.status, 201);
    assert_eq!(relay(&gateway, "PATCH", LINEAR, r#"{"name":"Other"}"#).await.status, 200);
    assert_eq!(relay(&gateway, "POST", VARIABLES, r#"{"key":"TOKEN","value":"x"}"#).await.status, 200);
    assert_eq!(relay(&gateway, "PUT", "/api/admin/service-api-keys/linear", r#"{"key":"sk"}"#).await.status, 200);
    assert_eq!(relay(&gateway, "DELETE", LINEAR, "").await.status, 204);
    let given = sealed(&gateway, "direct", "https://api.example.com", CANARY).await;
    assert_eq!(gateway.ask("POST", CONNECTIONS, &create("direct", &given).to_string()).await.status, 201);
    assert_eq!(gateway.ask("POST", CONNECTIONS, &create("plain", "x").to_string()).await.status, 201);
    let expected = [
        ("connection.create", Value::Null, Value::Null),
        ("connection.create", Value::Null, json!("sealed")),
        ("connection.delete", json!(SESSION), Value::Null),
        ("service_key.set", json!(SESSION), json!("plain")),
        ("variable.set", json!(SESSION), json!("plain")),
        ("connection.update", json!(SESSION), Value::Null),
        ("connection.create", json!(SESSION), json!("plain")),
        ("connection.create", json!(SESSION), json!("sealed")),
    ];
    let expected = expected.map(|(action, relayed, secret)| (action.to_owned(), relayed, secret));
    assert_eq!(audited(&gateway, 8).await, expected);
    let lines = std::fs::read_to_string(gateway.folder.path().join("data/logs/audit.jsonl")).unwrap();
    let relayed = lines.lines().filter(|line| line.contains(&format!(r#""relayed":"{SESSION}""#))).count();
    assert_eq!(relayed, 6, "{lines}");
    assert!(!lines.contains(CANARY), "{lines}");
}

#[tokio::test]
async fn a_mark_that_is_malformed_is_refused_and_opens_no_door() {
    let gateway = Gateway::start().await;
    let long = "x".repeat(65);
    for marks in [&[""][..], &["a b"], &["a/b"], &[&long], &["one", "two"], &["one", "one"], &["\u{e9}"]] {
        let mut headers = vec![("x-sigilum-admin-token", TOKEN)];
        headers.extend(marks.iter().map(|mark| ("x-sigilum-relay", *mark)));
        let refused = gateway.send("GET", CONNECTIONS, &headers, "").await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "RELAY_HEADER_INVALID"), "{marks:?}: {refused:?}");
    }
    let stranger = gateway.send("GET", CONNECTIONS, &[("x-sigilum-relay", SESSION)], "").await;
    assert_eq!((stranger.status, stranger.code().as_str()), (403, "ADMIN_TOKEN_REQUIRED"));
}

#[tokio::test]
async fn no_token_that_a_relayed_request_shows_lets_it_do_more() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.ask("POST", CONNECTIONS, &create("linear", CANARY).to_string()).await.status, 201);
    let bearer = format!("Bearer {TOKEN}");
    for tokens in [
        vec![("authorization", bearer.as_str())],
        vec![("x-sigilum-admin-token", TOKEN)],
        vec![("authorization", bearer.as_str()), ("x-sigilum-admin-token", TOKEN)],
    ] {
        let headers: Vec<_> = tokens.into_iter().chain([("x-sigilum-relay", SESSION)]).collect();
        assert_eq!(gateway.send("GET", LINEAR, &headers, "").await.status, 200, "it is let in");
        let moved = gateway.send("PATCH", LINEAR, &headers, r#"{"base_url":"https://evil.example"}"#).await;
        forbidden(&moved);
        forbidden(&gateway.send("POST", "/api/admin/secrets/reload", &headers, "").await);
    }
}

#[tokio::test]
async fn a_relayed_change_leads_no_secret_elsewhere() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.ask("POST", CONNECTIONS, &create("linear", CANARY).to_string()).await.status, 201);
    let before = gateway.ask("GET", LINEAR, "").await.json();
    for change in [
        json!({"base_url": "https://evil.example"}),
        json!({"base_url": "http://api.example.com"}),
        json!({"name": "Other", "path_prefix": "/elsewhere"}),
        json!({"auth_mode": "query_param"}),
        json!({"auth_header_name": "x-echo"}),
        json!({"auth_prefix": "Token "}),
        json!({"extra_headers": {"x-tenant": "evil"}}),
        json!({"allow_private": true}),
        json!({"allow_set_cookie": true}),
        json!({"base_url": "https://evil.example", "secrets": {"key": "new"}}),
    ] {
        forbidden(&relay(&gateway, "PATCH", LINEAR, &change.to_string()).await);
    }
    assert_eq!(gateway.ask("GET", LINEAR, "").await.json(), before);
    // A page sends what it was shown, with what it changes.
    let mut whole = before.clone();
    whole["name"] = json!("Renamed");
    whole["status"] = json!("disabled");
    let changed = relay(&gateway, "PATCH", LINEAR, &whole.to_string()).await;
    assert_eq!((changed.status, &changed.json()["status"]), (200, &json!("disabled")), "{changed:?}");
    let direct = gateway.ask("PATCH", LINEAR, r#"{"base_url":"https://other.example"}"#).await;
    assert_eq!(direct.status, 200, "the operator may");
}

#[tokio::test]
async fn no_variable_comes_into_a_connection_through_a_relay() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.ask("POST", VARIABLES, &json!({"key": "TOKEN", "value": CANARY}).to_string()).await.status, 200);
    assert_eq!(gateway.ask("POST", CONNECTIONS, &create("linear", "x").to_string()).await.status, 201);
    let reference = sealed(&gateway, "evil", "https://api.example.com", "{{ TOKEN }}").await;
    forbidden(&relay(&gateway, "POST", CONNECTIONS, &create("evil", "{{TOKEN}}").to_string()).await);
    forbidden(&relay(&gateway, "POST", CONNECTIONS, &create("evil", &reference).to_string()).await);
    let mut second = create("evil", "x");
    second["secrets"]["other"] = json!("{{TOKEN}}");
    forbidden(&relay(&gateway, "POST", CONNECTIONS, &second.to_string()).await);
    let rotation = json!({"secrets": {"key": "{{TOKEN}}"}}).to_string();
    forbidden(&relay(&gateway, "POST", &format!("{LINEAR}/rotate"), &rotation).await);
    assert_eq!(gateway.ask("GET", VARIABLES, "").await.json()["variables"][0]["used_by"], 0);
    assert_eq!(gateway.ask("POST", &format!("{LINEAR}/rotate"), &rotation).await.status, 200, "the operator may");
    // Its value may be given through one: it goes where the operator said.
    assert_eq!(relay(&gateway, "POST", VARIABLES, r#"{"key":"TOKEN","value":"new"}"#).await.status, 200);
}

#[tokio::test]
async fn a_relayed_creation_widens_no_addresses_and_leads_where_it_says() {
    let gateway = Gateway::start().await;
    let mut private = create("inside", "x");
    private["allow_private"] = json!(true);
    private["base_url"] = json!("http://10.0.0.1");
    forbidden(&relay(&gateway, "POST", CONNECTIONS, &private.to_string()).await);
    private["allow_private"] = json!(false);
    assert_eq!(relay(&gateway, "POST", CONNECTIONS, &private.to_string()).await.status, 400, "the settings say so");
    let tools = |endpoint: &str| json!({"id": "tools", "protocol": "mcp", "base_url": "https://mcp.example.com", "mcp_endpoint": endpoint});
    forbidden(&relay(&gateway, "POST", CONNECTIONS, &tools("https://evil.example/mcp").to_string()).await);
    assert_eq!(relay(&gateway, "POST", CONNECTIONS, &tools("/mcp").to_string()).await.status, 201);
}

#[tokio::test]
async fn a_relayed_test_is_a_look_and_tells_no_more_than_the_status() {
    let gateway = Gateway::start().await;
    let (address, seen, task) = face::provider().await;
    let mut body = create("demo", CANARY);
    body["base_url"] = json!(format!("http://{address}"));
    assert_eq!(gateway.ask("POST", CONNECTIONS, &body.to_string()).await.status, 201);
    let path = "/api/admin/connections/demo/test";
    for test in [
        json!({"method": "POST", "test_path": "/204"}),
        json!({"method": "DELETE", "test_path": "/204"}),
        json!({"test_path": "/204", "headers": {"x-echo": "1"}}),
        json!({"test_path": "/204", "body": {"a": 1}}),
    ] {
        forbidden(&relay(&gateway, "POST", path, &test.to_string()).await);
    }
    assert!(seen.lock().unwrap().is_empty(), "nothing was sent");
    let passed = relay(&gateway, "POST", path, r#"{"method":"GET","test_path":"/204","headers":{}}"#).await;
    assert_eq!((passed.status, &passed.json()["status"]), (200, &json!("pass")), "{passed:?}");
    let failed = relay(&gateway, "POST", path, r#"{"test_path":"/403/x"}"#).await;
    assert_eq!(failed.json(), json!({"status": "fail", "http_status": 403, "error": "http 403"}));
    let kept = relay(&gateway, "GET", "/api/admin/connections/demo", "").await.json();
    assert_eq!(kept["last_test_error"], "http 403");
    task.abort();
}

#[tokio::test]
async fn through_a_relay_the_catalog_grows_and_leads_nowhere_else() {
    let gateway = Gateway::start().await;
    let catalog = gateway.ask("GET", CATALOG, "").await.json();
    let changed = |change: &dyn Fn(&mut Vec<Value>)| {
        let mut next = catalog.clone();
        change(next["services"].as_array_mut().unwrap());
        next.to_string()
    };
    let mine = json!({"key": "mine", "connection_id": "mine-proxy", "base_url": "https://mine.example",
        "credential_fields": [{"key": "token"}]});
    forbidden(&relay(&gateway, "PUT", CATALOG, &changed(&|all| drop(all.pop()))).await);
    forbidden(
        &relay(&gateway, "PUT", CATALOG, &changed(&|all| all[0]["base_url"] = json!("https://evil.example"))).await,
    );
    forbidden(&relay(&gateway, "PUT", CATALOG, &changed(&|all| all[0]["path_prefix"] = json!("/evil"))).await);
    for (at, value) in [("/credential_fields/0/env_var", "GATEWAY_MASTER_KEY"), ("/default_test_method", "DELETE")] {
        let led = changed(&|all| *all[0].pointer_mut(at).unwrap() = json!(value));
        forbidden(&relay(&gateway, "PUT", CATALOG, &led).await);
    }
    forbidden(&relay(&gateway, "PUT", CATALOG, r#"{"services":[]}"#).await);
    assert_eq!(gateway.ask("GET", CATALOG, "").await.json(), catalog);
    let grown = relay(&gateway, "PUT", CATALOG, &changed(&|all| all.push(mine.clone()))).await;
    assert_eq!(grown.status, 200, "{grown:?}");
    let same = relay(&gateway, "PUT", CATALOG, &grown.body.replace("\"label\": \"mine\"", "\"label\": \"Mine\"")).await;
    assert_eq!(same.status, 200, "{same:?}");
    // One of the operator's making has no default to be held to, and keeps its own.
    assert_eq!(gateway.ask("PUT", CATALOG, r#"{"services":[]}"#).await.status, 200, "the operator may");
    let key = catalog["services"][0]["key"].as_str().unwrap();
    let back = json!({"services": [{"key": key, "connection_id": "back-proxy", "base_url": "https://evil.example",
        "credential_fields": [{"key": "token"}]}]});
    forbidden(&relay(&gateway, "PUT", CATALOG, &back.to_string()).await);
}

#[tokio::test]
async fn no_template_of_a_relays_making_names_a_variable() {
    let gateway = Gateway::start().await;
    let catalog = gateway.ask("GET", CATALOG, "").await.json();
    let changed = |change: &dyn Fn(&mut Vec<Value>)| {
        let mut next = catalog.clone();
        change(next["services"].as_array_mut().unwrap());
        next.to_string()
    };
    assert_ne!(catalog["services"][0]["credential_fields"][0]["env_var"], Value::Null, "the first one names one");
    let mine = json!({"key": "mine", "connection_id": "mine-proxy", "base_url": "https://mine.example",
        "credential_fields": [{"key": "token", "env_var": "DATABASE_PASSWORD"}]});
    let made = changed(&|all| all.push(mine.clone()));
    // Its id is what an import calls the connection, its words are what a person goes by who is asked whether to.
    let moved = changed(&|all| all[0]["connection_id"] = json!("other-proxy"));
    let renamed = changed(&|all| all[0]["label"] = json!("Your database"));
    for body in [&made, &moved, &renamed] {
        let refused = relay(&gateway, "PUT", CATALOG, body).await;
        forbidden(&refused);
        assert!(refused.body.contains("env_var"), "{refused:?}");
    }
    assert_eq!(gateway.ask("GET", CATALOG, "").await.json(), catalog);
    assert_eq!(relay(&gateway, "PUT", CATALOG, &catalog.to_string()).await.status, 200, "nothing is changed");
    assert_eq!(gateway.ask("PUT", CATALOG, &made).await.status, 200, "the operator may");
    let after = gateway.ask("GET", CATALOG, "").await;
    assert_eq!(relay(&gateway, "PUT", CATALOG, &after.body).await.status, 200, "what the operator made may stay");
    // A default that was taken out comes back as this version has it, and not otherwise.
    assert_eq!(gateway.ask("PUT", CATALOG, r#"{"services":[]}"#).await.status, 200);
    forbidden(&relay(&gateway, "PUT", CATALOG, &moved).await);
    assert_eq!(relay(&gateway, "PUT", CATALOG, &catalog.to_string()).await.status, 200);
}

#[tokio::test]
async fn what_concerns_the_gateway_as_a_whole_is_not_relayed() {
    let gateway = Gateway::start().await;
    let before = gateway.ask("GET", "/api/admin/sealing-key", "").await.json();
    for (method, path) in [
        ("POST", "/api/admin/store/rekey"),
        ("POST", "/api/admin/store/backup"),
        ("GET", "/api/admin/store/check"),
        ("GET", "/api/v1/status"),
        ("GET", "/api/v1/connections"),
        ("POST", "/api/admin/sealing-key/rotate"),
        ("POST", "/api/admin/secrets/reload"),
        ("POST", "/api/admin/config/reload"),
        ("GET", "/api/admin/audit"),
    ] {
        forbidden(&relay(&gateway, method, path, "").await);
    }
    assert_eq!(relay(&gateway, "GET", "/api/admin/sealing-key", "").await.json(), before);
    assert_eq!(relay(&gateway, "GET", "/api/admin/refusals", "").await.status, 200);
}

#[tokio::test]
async fn refusals_of_the_access_log_are_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("run")).unwrap();
    let line = json!({"timestamp": "2026-02-20T18:04:26.123Z", "decision_id": "d", "connection": "linear", "path": "/secret-path",
        "namespace": "acme-corp", "subject": "alice@acme.example", "agent_key": "0011223344556677", "reason": "AUTH_CLAIM_REQUIRED",
        "code": "AUTH_CLAIM_REQUIRED", "status": 403, "client_address": "192.0.2.77"});
    std::fs::write(folder.path().join("run/access.log"), format!("{line}\n")).unwrap();
    let gateway = Gateway::start_in(folder, |_| {}).await;
    let told = async || gateway.ask("GET", "/api/admin/refusals", "").await;
    wait_until(async || told().await.json()["total"] == 1).await;
    let answer = told().await;
    let recent = json!([{"at": "2026-02-20T18:04:26Z", "code": "AUTH_CLAIM_REQUIRED", "status": 403, "connection": "linear",
        "namespace": crate::telemetry::decisions::fingerprint("acme-corp"), "agent_key": "0011223344556677"}]);
    assert_eq!(answer.json()["recent"], recent);
    for named in ["acme", "alice", "secret-path", "192.0.2"] {
        assert!(!answer.body.contains(named), "{answer:?}");
    }
    assert_eq!(gateway.send("GET", "/api/admin/refusals", &[], "").await.code(), "ADMIN_TOKEN_REQUIRED");
}

/// Who relays has seen the sealed text go by, and may delete what it made.
#[tokio::test]
async fn a_sealed_secret_that_went_by_goes_nowhere_else_and_not_back() {
    let gateway = Gateway::start().await;
    let first = sealed(&gateway, "linear", "https://api.example.com", "first").await;
    assert_eq!(relay(&gateway, "POST", CONNECTIONS, &create("linear", &first).to_string()).await.status, 201);
    let rotate = |value: &str| json!({"secrets": {"key": value}}).to_string();
    let rotation = format!("{LINEAR}/rotate");
    assert_eq!(relay(&gateway, "POST", &rotation, &rotate("second")).await.status, 200);
    let back = relay(&gateway, "POST", &rotation, &rotate(&first)).await;
    assert_eq!((back.status, back.code().as_str()), (400, "SEALED_SECRET_INVALID"), "{back:?}");
    assert_eq!(relay(&gateway, "DELETE", LINEAR, "").await.status, 204);
    for (member, value) in [
        ("base_url", json!("https://api.example.org")),
        ("path_prefix", json!("/tenants/mallory")),
        ("auth_mode", json!("query_param")),
        ("auth_header_name", json!("X-Echo")),
        ("auth_prefix", json!("q=")),
        ("auth_mode", json!("header_key")),
    ] {
        let mut body = create("linear", &first);
        body[member] = value;
        let refused = relay(&gateway, "POST", CONNECTIONS, &body.to_string()).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "SEALED_SECRET_INVALID"), "{member}: {refused:?}");
    }
    for (member, value) in [("extra_headers", json!({"X-Tenant": "mallory"})), ("allow_set_cookie", json!(true))] {
        let mut body = create("linear", &first);
        body[member] = value;
        forbidden(&relay(&gateway, "POST", CONNECTIONS, &body.to_string()).await);
    }
    assert_eq!(relay(&gateway, "POST", CONNECTIONS, &create("linear", &first).to_string()).await.status, 201);
}

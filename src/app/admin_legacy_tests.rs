//! Tests of the keys in OpenClaw's files: what is listed, imported and purged, and that no value is ever told.

use std::os::unix::fs::MetadataExt as _;

use serde_json::Value;
use serde_json::json;

use super::*;

const KEYS: &str = "/api/admin/openclaw/legacy-keys";
const OPENAI: &str = "sk-proj-canary-openai-0123456789";
const SLACK: &str = "xoxb-canary-slack-0123456789";
const OTHER: &str = "canary-other-0123456789abcdef";

/// Every value that must never be told.
const CANARIES: [&str; 3] = [OPENAI, SLACK, OTHER];

fn config_text() -> String {
    format!(
        "{{\n  \"channels\": {{\"slack\": {{\"botToken\": \"{SLACK}\", \"n\": 1.50}}}},\n  \"tools\": {{\"thing\": {{\"apiKey\" : \"{OTHER}\"}}}}\n}}\n"
    )
}

fn env_text() -> String {
    format!("# mine\nexport OPENAI_API_KEY='{OPENAI}' # used\nB=2\n")
}

async fn start() -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("openclaw");
    std::fs::create_dir_all(&home).unwrap();
    std::fs::write(home.join("openclaw.json"), config_text()).unwrap();
    std::fs::write(home.join(".env"), env_text()).unwrap();
    std::fs::set_permissions(home.join(".env"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let named = home.display().to_string();
    let places = LegacyPlaces::from_lookup(move |name| (name == "OPENCLAW_HOME").then(|| named.clone()));
    Gateway::start_in(folder, |config| config.legacy = places).await
}

/// Asks, and looks for the canaries in what comes back.
async fn ask(gateway: &Gateway, method: &str, path: &str, body: &str) -> Answer {
    let answer = gateway.ask(method, path, body).await;
    for canary in CANARIES {
        assert!(!answer.body.contains(canary) && !answer.head.contains(canary), "{method} {path}: {answer:?}");
    }
    answer
}

async fn findings(gateway: &Gateway) -> Vec<Value> {
    ask(gateway, "GET", KEYS, "").await.json()["findings"].as_array().unwrap().clone()
}

fn id_of(findings: &[Value], variable: &str) -> String {
    let found = findings.iter().find(|one| one["variable"] == variable);
    found.unwrap_or_else(|| panic!("{variable}: {findings:?}"))["id"].as_str().unwrap().to_owned()
}

fn read(gateway: &Gateway, name: &str) -> String {
    std::fs::read_to_string(gateway.folder.path().join("openclaw").join(name)).unwrap()
}

#[tokio::test]
async fn keys_are_listed_without_their_values() {
    let gateway = start().await;
    let list = ask(&gateway, "GET", KEYS, "").await;
    assert_eq!(list.status, 200, "{list:?}");
    let list = list.json();
    assert_eq!((&list["total"], &list["provider_count"]), (&json!(3), &json!({"openai": 1, "slack": 1, "thing": 1})));
    assert_eq!(list["scanned_paths"].as_array().unwrap().len(), 2);
    assert!(list.get("warnings").is_none() && list["generated_at"].as_str().unwrap().ends_with('Z'));
    let slack = &list["findings"][0];
    assert_eq!(
        (&slack["provider"], &slack["field"], &slack["variable"], &slack["location"], &slack["masked"]),
        (
            &json!("slack"),
            &json!("botToken"),
            &json!("SLACK_BOT_TOKEN"),
            &json!("channels.slack.botToken"),
            &json!("xox......89")
        )
    );
    assert_eq!((&slack["source_type"], &slack["already_secured"]), (&json!("openclaw_config"), &json!(false)));
    assert!(slack.get("secured_connection_id").is_none());
    assert_eq!(slack["id"].as_str().unwrap().len(), 24);
    // As every route of the API: not for strangers.
    for (method, path) in
        [("GET", KEYS.to_owned()), ("POST", format!("{KEYS}/import")), ("POST", format!("{KEYS}/purge"))]
    {
        assert_eq!(gateway.send(method, &path, &[], "").await.status, 403);
    }
    // A file that is no JSON is told of and left.
    let file = gateway.folder.path().join("openclaw/openclaw.json");
    std::fs::write(&file, format!("{{token: '{OTHER}'}}")).unwrap();
    let list = ask(&gateway, "GET", KEYS, "").await.json();
    assert!(list["warnings"][0].as_str().unwrap().contains("openclaw.json"), "{list}");
    assert_eq!(list["total"], 1);
}

#[tokio::test]
async fn an_import_makes_variables_and_connections_once() {
    let gateway = start().await;
    let path = format!("{KEYS}/import");
    for (body, status) in [
        ("", 400),
        ("[]", 400),
        (r#"{"finding_ids":["nothing"]}"#, 400),
        (r#"{"connection_id":"demo"}"#, 400),
        (r#"{"finding_ids":7}"#, 400),
    ] {
        assert_eq!(ask(&gateway, "POST", &path, body).await.status, status, "{body}");
    }
    // Somebody else has the name, and the id.
    let taken = r#"{"key":"THING_API_KEY","value":"somebody else's"}"#;
    assert_eq!(gateway.ask("POST", VARIABLES, taken).await.status, 200);
    assert_eq!(gateway.ask("POST", CONNECTIONS, &connection("sigilum-secure-slack")).await.status, 201);
    let imported = ask(&gateway, "POST", &path, "{}").await;
    assert_eq!(imported.status, 200, "{imported:?}");
    let imported = imported.json();
    assert_eq!(imported["imported_variables"], json!(["SLACK_BOT_TOKEN", "THING_API_KEY_2", "OPENAI_API_KEY"]));
    assert_eq!(
        (&imported["imported_count"], imported["secured_finding_ids"].as_array().unwrap().len()),
        (&json!(3), 3)
    );
    let made: Vec<_> = imported["secured_connections"].as_array().unwrap().iter().collect();
    let ids: Vec<_> = made.iter().map(|one| (one["connection_id"].clone(), one["created"].clone())).collect();
    assert_eq!(ids, [(json!("sigilum-secure-slack-2"), json!(true)), (json!("sigilum-secure-openai"), json!(true))]);
    assert_eq!((&made[0]["template_key"], &made[0]["secret_keys"]), (&json!("slack"), &json!(["bot_token"])));
    let skipped = &imported["skipped_findings"][0];
    assert_eq!((&skipped["provider"], imported["skipped_findings"].as_array().unwrap().len()), (&json!("thing"), 1));
    assert!(skipped["reason"].as_str().unwrap().contains("no template"), "{skipped}");
    let openai = gateway.ask("GET", "/api/admin/connections/sigilum-secure-openai", "").await.json();
    assert_eq!((&openai["rotation_interval_days"], &openai["auth_secret_key"]), (&json!(90), &json!("api_key")));
    assert!(openai.get("secret_error").is_none(), "{openai}");

    // Everything is there now: asked again nothing is made.
    let listed = findings(&gateway).await;
    assert!(listed.iter().all(|one| one["already_secured"] == true), "{listed:?}");
    assert_eq!(listed[0]["secured_connection_id"], "sigilum-secure-slack-2");
    let before = gateway.ask("GET", CONNECTIONS, "").await.body;
    let again = ask(&gateway, "POST", &path, "{}").await.json();
    assert_eq!((&again["imported_count"], &again["imported_variables"]), (&json!(0), &json!([])));
    assert!(again["secured_connections"].as_array().unwrap().iter().all(|one| one["created"] == false), "{again}");
    assert_eq!(gateway.ask("GET", CONNECTIONS, "").await.body, before);

    let audit = ask(&gateway, "GET", "/api/admin/audit", "").await.json();
    let actions =
        |action: &str| audit["entries"].as_array().unwrap().iter().filter(|one| one["action"] == action).count();
    assert_eq!((actions("variable.set"), actions("connection.create")), (4, 3));
}

#[tokio::test]
async fn one_value_goes_into_a_connection_that_is_named() {
    let gateway = start().await;
    let path = format!("{KEYS}/import");
    let thing = id_of(&findings(&gateway).await, "THING_API_KEY");
    let body = |id: &str| json!({"connection_id": id, "finding_ids": [thing]}).to_string();
    assert_eq!(ask(&gateway, "POST", &path, &body("demo")).await.status, 404);
    assert_eq!(gateway.ask("POST", CONNECTIONS, &connection("demo")).await.status, 201);
    assert_eq!(ask(&gateway, "POST", &path, r#"{"connection_id":"demo"}"#).await.status, 400);
    // Nothing was made before it was judged.
    assert_eq!(gateway.ask("GET", VARIABLES, "").await.body, "{\"variables\":[]}\n");
    for (count, version) in [(1, 2), (0, 2)] {
        let bound = ask(&gateway, "POST", &path, &body("demo")).await;
        assert_eq!(bound.status, 200, "{bound:?}");
        let bound = bound.json();
        assert_eq!(
            (&bound["imported_count"], &bound["connection_id"], &bound["bound_secret_key"], &bound["bound_variable"]),
            (&json!(count), &json!("demo"), &json!("key"), &json!("THING_API_KEY"))
        );
        let demo = gateway.ask("GET", "/api/admin/connections/demo", "").await.json();
        assert_eq!(demo["secret_version"], version);
    }
    let listed = findings(&gateway).await;
    let thing = listed.iter().find(|one| one["variable"] == "THING_API_KEY").unwrap();
    assert_eq!((&thing["already_secured"], &thing["secured_connection_id"]), (&json!(true), &json!("demo")));
}

#[tokio::test]
async fn a_purge_takes_out_what_is_secured_and_nothing_else() {
    let gateway = start().await;
    let (import, purge) = (format!("{KEYS}/import"), format!("{KEYS}/purge"));
    let listed = findings(&gateway).await;
    let (openai, slack) = (id_of(&listed, "OPENAI_API_KEY"), id_of(&listed, "SLACK_BOT_TOKEN"));
    for body in ["", "{}", r#"{"finding_ids":[]}"#, r#"{"finding_ids":["nothing"]}"#] {
        assert_eq!(ask(&gateway, "POST", &purge, body).await.status, 400, "{body}");
    }
    // One that is nowhere else keeps all of them.
    let only = json!({"finding_ids": [openai]}).to_string();
    assert_eq!(ask(&gateway, "POST", &import, &only).await.status, 200);
    let both = |dry: bool| json!({"finding_ids": [openai, slack], "dry_run": dry, "delete_skills": true}).to_string();
    let refused = ask(&gateway, "POST", &purge, &both(false)).await;
    assert_eq!(refused.status, 400);
    assert!(refused.json()["error"].as_str().unwrap().contains("1 of these keys"), "{refused:?}");
    assert_eq!((read(&gateway, "openclaw.json"), read(&gateway, ".env")), (config_text(), env_text()));

    assert_eq!(ask(&gateway, "POST", &import, "{}").await.status, 200);
    let dry = ask(&gateway, "POST", &purge, &both(true)).await.json();
    assert_eq!((&dry["dry_run"], &dry["selected_count"], &dry["purged_count"]), (&json!(true), &json!(2), &json!(0)));
    assert_eq!((read(&gateway, "openclaw.json"), read(&gateway, ".env")), (config_text(), env_text()));
    let done = ask(&gateway, "POST", &purge, &both(false)).await.json();
    assert_eq!((&done["purged_count"], &done["actions"]), (&json!(2), &dry["actions"]));
    assert_eq!(done["actions"][0]["type"], "blank_json");
    assert!(done["warnings"][0].as_str().unwrap().contains("skills"), "{done}");
    assert_eq!(read(&gateway, "openclaw.json"), config_text().replace(SLACK, ""));
    assert_eq!(read(&gateway, ".env"), env_text().replace(&format!("'{OPENAI}'"), ""));
    let home = gateway.folder.path().join("openclaw");
    assert_eq!(std::fs::metadata(home.join(".env")).unwrap().mode() & 0o777, 0o640);
    assert_eq!(std::fs::read_dir(&home).unwrap().count(), 2, "no copy is left");
    assert_eq!(findings(&gateway).await.len(), 1);
    assert_eq!(ask(&gateway, "POST", &purge, &only).await.status, 400, "it stands there no more");
    let audit = ask(&gateway, "GET", "/api/admin/audit?action=legacy_key.purge", "").await.json();
    let targets: Vec<_> =
        audit["entries"].as_array().unwrap().iter().map(|one| one["target"].as_str().unwrap()).collect();
    assert!(targets.len() == 2 && targets.iter().all(|target| target.starts_with(home.to_str().unwrap())), "{audit}");
    let lines = std::fs::read_to_string(gateway.folder.path().join("data/logs/audit.jsonl")).unwrap();
    assert!(CANARIES.iter().all(|canary| !lines.contains(canary)));
}

#[tokio::test]
async fn a_link_is_read_and_never_written() {
    let gateway = start().await;
    let home = gateway.folder.path().join("openclaw");
    let real = gateway.folder.path().join("real.env");
    std::fs::rename(home.join(".env"), &real).unwrap();
    std::os::unix::fs::symlink(&real, home.join(".env")).unwrap();
    assert_eq!(ask(&gateway, "POST", &format!("{KEYS}/import"), "{}").await.status, 200);
    let id = id_of(&findings(&gateway).await, "OPENAI_API_KEY");
    let body = json!({"finding_ids": [id]}).to_string();
    let left = ask(&gateway, "POST", &format!("{KEYS}/purge"), &body).await.json();
    assert_eq!((&left["purged_count"], &left["actions"]), (&json!(0), &json!([])));
    assert!(left["warnings"][0].as_str().unwrap().contains("symbolic link"), "{left}");
    assert_eq!(std::fs::read_to_string(&real).unwrap(), env_text());
}

#[tokio::test]
async fn a_relayed_import_goes_by_the_templates_of_this_version_and_into_no_connection_of_its_choice() {
    let gateway = start().await;
    let relay = async |path: &str, body: &str| {
        let headers = [("x-sigilum-admin-token", TOKEN), ("x-sigilum-relay", "session-1")];
        gateway.send("POST", path, &headers, body).await
    };
    // A template that whoever relays has added for a provider without one.
    let mut catalog = gateway.ask("GET", "/api/admin/service-catalog", "").await.json();
    let services = catalog["services"].as_array_mut().unwrap();
    assert!(services.iter().all(|template| template["key"] != "thing"));
    services.push(json!({"key": "thing", "connection_id": "thing-proxy", "base_url": "https://evil.example",
        "auth_secret_key": "api_key", "credential_fields": [{"key": "api_key"}]}));
    let put = gateway.ask("PUT", "/api/admin/service-catalog", &catalog.to_string()).await;
    assert_eq!(put.status, 200, "{put:?}");
    let evil = r#"{"id":"evil","base_url":"https://evil.example","auth_secret_key":"key","secrets":{"key":"x"}}"#;
    assert_eq!(relay(CONNECTIONS, evil).await.status, 201);

    let id = id_of(&findings(&gateway).await, "OPENAI_API_KEY");
    let chosen = json!({"finding_ids": [id], "connection_id": "evil"}).to_string();
    let refused = relay(&format!("{KEYS}/import"), &chosen).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "RELAY_FORBIDDEN"), "{refused:?}");
    assert_eq!(gateway.ask("GET", VARIABLES, "").await.json(), json!({"variables": []}), "nothing was made");

    let done = relay(&format!("{KEYS}/import"), "{}").await;
    assert_eq!(done.status, 200, "{done:?}");
    assert_eq!(done.json()["imported_count"], 3);
    let all = gateway.ask("GET", CONNECTIONS, "").await.json();
    let leading: Vec<_> =
        all["connections"].as_array().unwrap().iter().filter(|one| one["base_url"] == "https://evil.example").collect();
    assert_eq!(leading.len(), 1, "only the one without a key of this machine: {all}");
    // The operator's own import goes by the file.
    let done = ask(&gateway, "POST", &format!("{KEYS}/import"), "{}").await.json();
    assert!(done["secured_connections"].to_string().contains("sigilum-secure-thing"), "{done}");
}

//! Services and their keys over real sockets.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

use serde_json::Value;
use serde_json::json;

use super::support::ControlPlane;
use super::support::agent;

fn slack() -> Value {
    json!({"name": "Slack", "slug": "slack", "domain": "slack.com", "description": "Messages"})
}

#[tokio::test]
async fn a_service_is_made_read_changed_and_removed() {
    let api = ControlPlane::start().await;
    assert_eq!(api.owner("acme", "GET", "/v1/services").send().await.expect(200), json!({"services": []}));
    let made = api.owner("acme", "POST", "/v1/services").json(&slack()).send().await.expect(201);
    assert_eq!((&made["id"], &made["slug"]), (&json!("svc_local_slack"), &json!("slack")));
    assert!(made["registration_tx_hash"].is_null() && made["created_at"] == made["updated_at"]);
    let target = "/v1/services/svc_local_slack";
    assert_eq!(api.owner("acme", "GET", target).send().await.expect(200), made);
    let change = json!({"name": "Slack 2", "unknown": 1});
    assert_eq!(api.owner("acme", "PATCH", target).json(&change).send().await.expect(200), json!({"success": true}));
    let listed = api.owner("acme", "GET", "/v1/services").send().await.expect(200);
    let listed = &listed["services"][0];
    assert_eq!((&listed["name"], &listed["domain"]), (&json!("Slack 2"), &json!("slack.com")));
    assert_eq!(listed["active_key_count"], 0);
    for wrong in [json!({"name": ""}), json!({"name": null}), json!({"domain": "x".repeat(256)}), json!({"name": 7})] {
        api.owner("acme", "PATCH", target).json(&wrong).send().await.invalid();
    }
    api.owner("acme", "PATCH", target).raw(b"[]").send().await.refused(400, "INVALID_JSON");
    api.owner("acme", "POST", "/v1/services").json(&slack()).send().await.refused(409, "CONFLICT");
    assert_eq!(api.owner("acme", "DELETE", target).send().await.expect(200), json!({"success": true}));
    for method in ["GET", "DELETE"] {
        api.owner("acme", method, target).send().await.refused(404, "NOT_FOUND");
    }
    api.owner("acme", "PATCH", target).json(&change).send().await.refused(404, "NOT_FOUND");
    api.stop().await;
}

#[tokio::test]
async fn every_mistake_in_a_service_is_told_at_once() {
    let api = ControlPlane::start().await;
    let post = |body: &Value| api.owner("acme", "POST", "/v1/services").json(body).send();
    assert_eq!(post(&json!({})).await.invalid(), ["name", "slug", "domain", "description"]);
    let long = json!({"name": "x".repeat(101), "slug": "Slack", "domain": "", "description": "x".repeat(501)});
    assert_eq!(post(&long).await.invalid(), ["name", "slug", "domain", "description"]);
    let odd = json!({"name": "a\u{1b}[2J", "slug": 7, "domain": ["x"], "description": "   "});
    assert_eq!(post(&odd).await.invalid(), ["name", "slug", "domain", "description"]);
    let mut hooked = slack();
    hooked["webhook"] = json!({"url": "https://example.com", "secret": "0123456789abcdef"});
    post(&hooked).await.refused(501, "NOT_IMPLEMENTED");
    api.owner("acme", "POST", "/v1/services").raw(b"nonsense").send().await.refused(400, "INVALID_JSON");
    api.owner("acme", "POST", "/v1/services").send().await.refused(400, "INVALID_JSON");
    api.ask("POST", "/v1/services").json(&slack()).send().await.refused(401, "UNAUTHORIZED");
    api.ask("GET", "/v1/services").send().await.refused(401, "UNAUTHORIZED");
    api.stop().await;
}

#[tokio::test]
async fn an_account_has_room_for_five_services_also_when_asked_at_once() {
    let api = ControlPlane::start().await;
    let asked = (0..9).map(|number| {
        let body = json!({"name": "s", "slug": format!("service-{number}"), "domain": "d", "description": "d"});
        api.owner("acme", "POST", "/v1/services").json(&body).send()
    });
    let answers = futures_util::future::join_all(asked).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 5);
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        let details = answer.refused(403, "SERVICE_LIMIT_REACHED");
        assert_eq!(details, json!({"service_limit": 5, "services": 5}));
    }
    api.stop().await;
}

#[tokio::test]
async fn two_owners_share_a_slug_and_nothing_else() {
    let api = ControlPlane::start().await;
    let one = api.service("acme", "slack").await;
    let two = api.service("other", "slack").await;
    assert_eq!(one, "svc_local_slack");
    assert!(two.starts_with("svc_") && two.len() == 20, "{two}");
    let key = api.key("acme", &one).await;
    let keys = api.owner("acme", "GET", &format!("/v1/services/{one}/keys")).send().await.expect(200);
    let key_id = keys["keys"][0]["id"].as_str().unwrap().to_owned();
    let body = json!({"name": "taken over"});
    for (method, target) in [
        ("GET", format!("/v1/services/{one}")),
        ("PATCH", format!("/v1/services/{one}")),
        ("DELETE", format!("/v1/services/{one}")),
        ("GET", format!("/v1/services/{one}/keys")),
        ("POST", format!("/v1/services/{one}/keys")),
        ("DELETE", format!("/v1/services/{one}/keys/{key_id}")),
        ("POST", format!("/v1/services/{one}/keys/{key_id}/mark-gateway")),
        // Their own service, but a key of another.
        ("DELETE", format!("/v1/services/{two}/keys/{key_id}")),
        ("POST", format!("/v1/services/{two}/keys/{key_id}/mark-gateway")),
    ] {
        let ask = api.owner("other", method, &target);
        let ask = if method == "GET" { ask } else { ask.json(&body) };
        ask.send().await.refused(404, "NOT_FOUND");
    }
    // A key is one service's.
    let import = json!({"key": key});
    let target = format!("/v1/services/{two}/keys");
    api.owner("other", "POST", &target).json(&import).send().await.refused(409, "CONFLICT");
    let listed = api.owner("other", "GET", "/v1/services").send().await.expect(200);
    assert_eq!(listed["services"].as_array().unwrap().len(), 1);
    assert_eq!(listed["services"][0]["id"], json!(two));
    api.stop().await;
}

#[tokio::test]
async fn a_made_key_is_shown_once_and_kept_as_a_hash() {
    let api = ControlPlane::start().await;
    let service = api.service("acme", "slack").await;
    let target = format!("/v1/services/{service}/keys");
    let made = api.owner("acme", "POST", &target).json(&json!({"name": "gateway"})).send().await.expect(201);
    let key = made["key"].as_str().unwrap();
    assert!(key.starts_with("sk_live_") && key.len() == 56, "{made}");
    assert_eq!(made["key_prefix"], format!("...{}", &key[52..]));
    assert!(made["id"].as_str().unwrap().starts_with("key_local_slack_"));
    assert_eq!(made["name"], "gateway");
    let listed = api.owner("acme", "GET", &target).send().await;
    assert!(!listed.body.contains(key));
    let listed = listed.expect(200);
    assert_eq!(listed["pagination"], json!({"limit": 50, "offset": 0, "total": 1, "has_more": false}));
    assert!(listed["keys"][0]["last_used_at"].is_null());
    let second = api.owner("acme", "POST", &target).send().await.expect(201);
    assert_eq!(second["name"], "Default");
    let limit = api.owner("acme", "POST", &target).send().await.refused(400, "KEY_LIMIT_REACHED");
    assert_eq!(limit, json!({"key_limit": 2, "active_keys": 2}));
    let page = api.owner("acme", "GET", &format!("{target}?limit=1")).send().await.expect(200);
    assert_eq!((page["keys"].as_array().unwrap().len(), &page["pagination"]["has_more"]), (1, &json!(true)));
    for bad in ["limit=-1", "limit=0", "offset=-1", "limit=NaN", "offset=1e3"] {
        api.owner("acme", "GET", &format!("{target}?{bad}")).send().await.invalid();
    }
    // On disk there is no key.
    for file in std::fs::read_dir(api.folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(key.len()).any(|window| window == key.as_bytes()));
    }
    api.ask("GET", &target).send().await.refused(401, "UNAUTHORIZED");
    api.stop().await;
}

#[tokio::test]
async fn a_key_may_be_brought_along_and_never_comes_back_from_revocation() {
    let api = ControlPlane::start().await;
    let service = api.service("acme", "slack").await;
    let target = format!("/v1/services/{service}/keys");
    let key = format!("sk_live_{}", "0123456789ab".repeat(4));
    let body = json!({"name": "mine", "key": key});
    let made = api.owner("acme", "POST", &target).json(&body).send().await.expect(201);
    let hash = crate::app::api::key_hash(&key);
    let id = format!("key_local_slack_{}", &hash[..12]);
    assert_eq!((&made["id"], &made["key"]), (&json!(id), &Value::Null));
    let again = api.owner("acme", "POST", &target).json(&body).send().await.expect(200);
    assert_eq!((&again["id"], &again["name"]), (&json!(id), &json!("mine")));
    for wrong in ["sk_live_", "sk_live_XYZ", &key.to_uppercase(), &format!("{key}0"), &format!(" {key}")] {
        let body = json!({"key": wrong});
        assert_eq!(api.owner("acme", "POST", &target).json(&body).send().await.invalid(), ["key"]);
    }
    for wrong in [json!({"key": 7}), json!({"key": ""}), json!({"name": ""}), json!({"name": "x".repeat(101)})] {
        api.owner("acme", "POST", &target).json(&wrong).send().await.invalid();
    }
    api.owner("acme", "POST", &target).raw(b"[]").send().await.refused(400, "INVALID_JSON");
    // It works as a key, until it is revoked.
    let bearer = agent("acme");
    api.claim(&bearer, "slack", &key).await;
    let one = format!("{target}/{id}");
    assert_eq!(api.owner("acme", "DELETE", &one).send().await.expect(200), json!({"success": true}));
    let feed = "/v1/namespaces/claims?service=slack";
    api.ask("GET", feed).bearer(&key).signed(&bearer).send().await.refused(401, "UNAUTHORIZED");
    api.owner("acme", "DELETE", &one).send().await.refused(404, "NOT_FOUND");
    api.owner("acme", "POST", &target).json(&body).send().await.refused(409, "CONFLICT");
    assert_eq!(api.owner("acme", "GET", &target).send().await.expect(200)["keys"], json!([]));
    api.stop().await;
}

#[tokio::test]
async fn exactly_one_key_is_the_gateways() {
    let api = ControlPlane::start().await;
    let service = api.service("acme", "slack").await;
    let target = format!("/v1/services/{service}/keys");
    let mut ids = Vec::new();
    for _ in 0..2 {
        let made = api.owner("acme", "POST", &target).send().await.expect(201);
        ids.push(made["id"].as_str().unwrap().to_owned());
    }
    for id in [&ids[0], &ids[1], &ids[1]] {
        let marked = api.owner("acme", "POST", &format!("{target}/{id}/mark-gateway")).send().await.expect(200);
        assert_eq!(marked, json!({"success": true, "key_id": id}));
        let listed = api.owner("acme", "GET", &target).send().await.expect(200);
        let listed = listed["keys"].as_array().unwrap().iter();
        let held: Vec<_> = listed.filter(|key| !key["gateway_registered_at"].is_null()).map(|key| &key["id"]).collect();
        assert_eq!(held, [&json!(id)]);
    }
    // One that is not there takes the mark from nobody.
    api.owner("acme", "POST", &format!("{target}/key_x/mark-gateway")).send().await.refused(404, "NOT_FOUND");
    api.ask("POST", &format!("{target}/{}/mark-gateway", ids[0])).send().await.refused(401, "UNAUTHORIZED");
    let listed = api.owner("acme", "GET", &target).send().await.expect(200);
    assert_eq!(
        listed["keys"].as_array().unwrap().iter().filter(|key| !key["gateway_registered_at"].is_null()).count(),
        1
    );
    api.stop().await;
}

#[tokio::test]
async fn a_removed_service_tells_what_has_ended() {
    let api = ControlPlane::start().await;
    let service = api.service("acme", "slack").await;
    let key = api.key("acme", &service).await;
    let claim = api.claim(&agent("acme"), "slack", &key).await;
    api.owner("acme", "POST", &format!("/v1/claims/{claim}/approve")).send().await.expect(200);
    api.owner("acme", "DELETE", &format!("/v1/services/{service}")).send().await.expect(200);
    let sql = "SELECT group_concat(approved) FROM claim_changes WHERE service_id = ?1 AND claim_id = ?2";
    let changes: String = api.sql(|db| db.query_row(sql, [&service, &claim], |row| row.get(0)));
    assert_eq!(changes, "1,0");
    api.owner("acme", "GET", &format!("/v1/claims/{claim}")).send().await.refused(404, "NOT_FOUND");
    // Made again it begins empty, also where it bears the same id.
    assert_eq!(api.service("acme", "slack").await, service);
    let listed = api.owner("acme", "GET", "/v1/namespaces/acme/claims").send().await.expect(200);
    assert_eq!(listed["claims"], json!([]));
    api.stop().await;
}

#[tokio::test]
async fn the_id_of_a_removed_service_is_never_another_owners() {
    let api = ControlPlane::start().await;
    let first = api.service("acme", "slack").await;
    let key = api.key("acme", &first).await;
    let claim = api.claim(&agent("acme"), "slack", &key).await;
    api.owner("acme", "POST", &format!("/v1/claims/{claim}/approve")).send().await.expect(200);
    api.owner("acme", "DELETE", &format!("/v1/services/{first}")).send().await.expect(200);
    let second = api.service("mallory", "slack").await;
    assert_ne!(second, first);
    // What happened to the claims of the one is no news of the other.
    let (key, mallory) = (api.key("mallory", &second).await, agent("mallory"));
    let feed = api.ask("GET", "/v1/namespaces/claims?service=slack").bearer(&key).signed(&mallory).send().await;
    let cursor = feed.header("sigilum-claims-cursor").unwrap();
    let (epoch, number) = cursor.split_once('.').unwrap();
    assert_eq!(number, "0");
    let seen: i64 = api.sql(|db| {
        let sql = "SELECT count(*) FROM claim_changes WHERE service_id = ?1";
        db.query_row(sql, [&second], |row| row.get(0))
    });
    assert_eq!((seen, epoch.len()), (0, 16));
    // Also where the owner leaves; who had it may have it again.
    api.owner("mallory", "DELETE", &format!("/v1/services/{second}")).send().await.expect(200);
    api.owner("acme", "DELETE", "/v1/auth/account").send().await.expect(200);
    assert_ne!(api.service("mallory", "slack").await, first);
    let own = api.service("other", "mail").await;
    assert_eq!(own, "svc_local_mail");
    api.owner("other", "DELETE", &format!("/v1/services/{own}")).send().await.expect(200);
    assert_eq!(api.service("other", "mail").await, own);
    api.stop().await;
}

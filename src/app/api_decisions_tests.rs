//! Claims of a namespace and decisions on them, over real sockets.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

use serde_json::Value;
use serde_json::json;

use super::support::Answer;
use super::support::ControlPlane;
use super::support::agent;

async fn decide(api: &ControlPlane, namespace: &str, claim: &str, what: &str) -> Answer {
    api.owner(namespace, "POST", &format!("/v1/claims/{claim}/{what}")).send().await
}

async fn approved_in_feed(api: &ControlPlane, key: &str, service: &str) -> Vec<String> {
    let target = format!("/v1/namespaces/claims?service={service}");
    let page = api.ask("GET", &target).bearer(key).signed(&agent("acme")).send().await.expect(200);
    let claims = page["claims"].as_array().unwrap().iter();
    claims.map(|claim| claim["claim_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_claim_goes_its_way() {
    let api = ControlPlane::start().await;
    let service = api.service("acme", "slack").await;
    let key = api.key("acme", &service).await;
    let one = agent("acme");
    let claim = api.claim(&one, "slack", &key).await;
    assert_eq!(approved_in_feed(&api, &key, "slack").await, Vec::<String>::new());
    let whole = api.owner("acme", "GET", &format!("/v1/claims/{claim}")).send().await.expect(200);
    assert_eq!((&whole["status"], &whole["public_key"]), (&json!("pending"), &json!(one.public_key().text())));
    assert_eq!((&whole["service_owner"], &whole["approval_tx_hash"]), (&json!("acme"), &Value::Null));
    decide(&api, "acme", &claim, "revoke").await.refused(404, "NOT_FOUND");
    let approved = decide(&api, "acme", &claim, "approve").await.expect(200);
    let expected = json!({"claim_id": claim, "status": "approved", "agents_approved": 1, "agents_limit": 10,
        "blockchain_tx_status": "queued"});
    assert_eq!(approved, expected);
    assert_eq!(approved_in_feed(&api, &key, "slack").await, std::slice::from_ref(&claim));
    for what in ["approve", "reject"] {
        let details = decide(&api, "acme", &claim, what).await.refused(404, "NOT_FOUND");
        assert_eq!(details, json!({"status": "approved"}));
    }
    let revoked = decide(&api, "acme", &claim, "revoke").await.expect(200);
    assert_eq!(revoked, json!({"claim_id": claim, "status": "revoked", "blockchain_tx_status": "queued"}));
    assert_eq!(approved_in_feed(&api, &key, "slack").await, Vec::<String>::new());
    let second = api.claim(&agent("acme"), "slack", &key).await;
    let rejected = decide(&api, "acme", &second, "reject").await.expect(200);
    assert_eq!(rejected, json!({"claim_id": second, "status": "rejected"}));
    decide(&api, "acme", &second, "approve").await.refused(404, "NOT_FOUND");
    let listed = api.owner("acme", "GET", "/v1/namespaces/acme/claims").send().await.expect(200);
    let statuses: Vec<_> = listed["claims"].as_array().unwrap().iter().map(|claim| &claim["status"]).collect();
    assert_eq!(statuses, ["rejected", "revoked"]);
    assert!(listed["claims"][1]["revoked_at"].is_string() && listed["claims"][0]["revoked_at"].is_null());
    api.stop().await;
}

#[tokio::test]
async fn the_owner_of_the_agents_namespace_decides_and_nobody_else() {
    let api = ControlPlane::start().await;
    // The service is `shop`'s, the agent is `acme`'s.
    let service = api.service("shop", "slack").await;
    let key = api.key("shop", &service).await;
    api.owner("acme", "GET", "/v1/auth/me").send().await.expect(200);
    let claim = api.claim(&agent("acme"), "slack", &key).await;
    for other in ["shop", "stranger"] {
        for what in ["approve", "reject", "revoke"] {
            decide(&api, other, &claim, what).await.refused(403, "FORBIDDEN");
        }
        api.owner(other, "GET", &format!("/v1/claims/{claim}")).send().await.refused(403, "FORBIDDEN");
        api.owner(other, "GET", "/v1/namespaces/acme/claims").send().await.refused(403, "FORBIDDEN");
        let own = api.owner(other, "GET", &format!("/v1/namespaces/{other}/claims")).send().await.expect(200);
        assert_eq!(own["claims"], json!([]));
    }
    for what in ["approve", "reject", "revoke"] {
        decide(&api, "acme", "cl_unknown", what).await.refused(404, "NOT_FOUND");
        api.ask("POST", &format!("/v1/claims/{claim}/{what}")).send().await.refused(401, "UNAUTHORIZED");
    }
    api.owner("acme", "GET", "/v1/claims/cl_unknown").send().await.refused(404, "NOT_FOUND");
    api.ask("GET", &format!("/v1/claims/{claim}")).send().await.refused(401, "UNAUTHORIZED");
    let seen = api.owner("acme", "GET", &format!("/v1/claims/{claim}")).send().await.expect(200);
    assert_eq!((&seen["service_owner"], &seen["service_id"]), (&json!("shop"), &json!(service)));
    decide(&api, "acme", &claim, "approve").await.expect(200);
    api.stop().await;
}

#[tokio::test]
async fn claims_are_listed_by_status_and_service_in_pages() {
    let api = ControlPlane::start().await;
    let (mail, slack) = (api.service("acme", "mail").await, api.service("acme", "slack").await);
    let (mail, slack) = (api.key("acme", &mail).await, api.key("acme", &slack).await);
    for _ in 0..3 {
        api.claim(&agent("acme"), "mail", &mail).await;
    }
    let claim = api.claim(&agent("acme"), "slack", &slack).await;
    decide(&api, "acme", &claim, "approve").await.expect(200);
    let list = async |query: &str| {
        let target = format!("/v1/namespaces/acme/claims{query}");
        api.owner("acme", "GET", &target).send().await
    };
    for (query, rows, total, more) in [
        ("", 4, 4, false),
        ("?status=pending", 3, 3, false),
        ("?status=approved&service=slack", 1, 1, false),
        ("?status=approved&service=mail", 0, 0, false),
        ("?service=nothing", 0, 0, false),
        ("?status=pending&limit=2", 2, 3, true),
        ("?status=pending&limit=2&offset=2", 1, 3, false),
        ("?offset=9", 0, 4, false),
        ("?status=", 4, 4, false),
    ] {
        let page = list(query).await.expect(200);
        assert_eq!(page["claims"].as_array().unwrap().len(), rows, "{query}");
        assert_eq!((&page["pagination"]["total"], &page["pagination"]["has_more"]), (&json!(total), &json!(more)));
    }
    for query in ["?status=Pending", "?limit=0", "?offset=-1", "?limit=1&limit=2", "?service=%zz"] {
        list(query).await.invalid();
    }
    api.owner("acme", "GET", "/v1/namespaces/A/claims").send().await.invalid();
    api.owner("acme", "GET", "/v1/namespaces/other/claims").send().await.refused(403, "FORBIDDEN");
    api.ask("GET", "/v1/namespaces/acme/claims").send().await.refused(401, "UNAUTHORIZED");
    api.stop().await;
}

#[tokio::test]
async fn no_limit_is_passed_by_deciding_twice_at_once() {
    let api = ControlPlane::start_with(|config| {
        config.limits.max_agents_per_service = 2;
        config.limits.max_services_per_namespace = 1;
    })
    .await;
    let (mail, slack) = (api.service("acme", "mail").await, api.service("acme", "slack").await);
    let (mail, slack) = (api.key("acme", &mail).await, api.key("acme", &slack).await);
    let mut claims = Vec::new();
    for _ in 0..6 {
        claims.push(api.claim(&agent("acme"), "mail", &mail).await);
    }
    let elsewhere = api.claim(&agent("acme"), "slack", &slack).await;
    let answers =
        futures_util::future::join_all(claims.iter().map(|claim| decide(&api, "acme", claim, "approve"))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 2);
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!(answer.refused(409, "AGENT_LIMIT_REACHED"), json!({"agent_limit": 2, "current": 2}));
    }
    let details = decide(&api, "acme", &elsewhere, "approve").await.refused(403, "SERVICE_LIMIT_REACHED");
    assert_eq!(details, json!({"service_limit": 1, "services_connected": 1}));
    // The claim still waits: room that is made lets it in.
    for claim in &claims {
        decide(&api, "acme", claim, "revoke").await;
    }
    decide(&api, "acme", &elsewhere, "approve").await.expect(200);
    api.stop().await;
}

#[tokio::test]
async fn an_approval_may_have_an_end() {
    let api = ControlPlane::start().await;
    let service = api.service("acme", "slack").await;
    let key = api.key("acme", &service).await;
    let claim = api.claim(&agent("acme"), "slack", &key).await;
    let approve =
        async |body: Value| api.owner("acme", "POST", &format!("/v1/claims/{claim}/approve")).json(&body).send().await;
    for wrong in [
        json!({"expires_at": "2020-01-01T00:00:00Z"}),
        json!({"expires_at": "soon"}),
        json!({"expires_at": 7}),
        json!({"expires_at": "2999-01-01T00:00:00Z"}),
        json!({"expires_in_seconds": 0}),
        json!({"expires_in_seconds": -1}),
        json!({"expires_in_seconds": "60"}),
        json!({"expires_in_seconds": 1e300}),
        json!({"expires_in_seconds": 60, "expires_at": "2030-01-01T00:00:00Z"}),
    ] {
        approve(wrong).await.invalid();
    }
    approve(json!([])).await.refused(400, "INVALID_JSON");
    let approved = approve(json!({"expires_in_seconds": 3600})).await.expect(200);
    let first = approved["expires_at"].as_str().unwrap().to_owned();
    // Without an end there is nothing to change; with one, the end is set anew.
    approve(json!({})).await.refused(404, "NOT_FOUND");
    let again = approve(json!({"expires_in_seconds": 7200})).await.expect(200);
    assert!(again["expires_at"].as_str().unwrap() > first.as_str());
    let seen = api.owner("acme", "GET", &format!("/v1/claims/{claim}")).send().await.expect(200);
    assert_eq!(seen["expires_at"], again["expires_at"]);
    api.sql(|db| db.execute("UPDATE authorizations SET expires_at_ms = 1", []));
    let seen = api.owner("acme", "GET", &format!("/v1/claims/{claim}")).send().await.expect(200);
    assert_eq!(seen["status"], "expired", "nobody has read the feed yet");
    assert_eq!(approved_in_feed(&api, &key, "slack").await, Vec::<String>::new());
    let seen = api.owner("acme", "GET", "/v1/namespaces/acme/claims?status=expired").send().await.expect(200);
    assert_eq!(seen["claims"][0]["claim_id"], json!(claim));
    api.stop().await;
}

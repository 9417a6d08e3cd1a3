//! Owners over real sockets: tokens, cookies, pages of elsewhere, settings, leaving.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::support::ControlPlane;
use super::support::agent;
use super::support::local_token;
use super::support::token_of;

#[tokio::test]
async fn a_token_says_who_is_there() {
    let api = ControlPlane::start().await;
    let me = |token: &str| api.ask("GET", "/v1/auth/me").bearer(token);
    api.ask("GET", "/v1/auth/me").send().await.refused(401, "UNAUTHORIZED");
    me("not-a-token").send().await.refused(401, "UNAUTHORIZED");
    me(&format!("sk_live_{}", "0".repeat(48))).send().await.refused(401, "UNAUTHORIZED");
    me(&token_of("user_local_acme", "acme", -120)).send().await.refused(401, "TOKEN_EXPIRED");
    me(&token_of("user_local_acme", "acme", 60)).send().await.refused(401, "UNAUTHORIZED");
    me(&token_of("user_7", "acme", 0)).send().await.refused(401, "USER_NOT_FOUND");
    // The first token of a local owner makes the row.
    let user = me(&local_token("acme")).send().await.expect(200);
    assert_eq!((&user["id"], &user["namespace"]), (&json!("user_local_acme"), &json!("acme")));
    assert_eq!((&user["settings"], &user["passkeys"]), (&json!({}), &json!([])));
    assert_eq!(user["email"], "somebody@example.com");
    assert!(user["created_at"].as_str().unwrap().ends_with('Z') && user["registration_tx_hash"].is_null());
    // From then on the namespace is theirs.
    me(&token_of("user_7", "acme", 0)).send().await.refused(401, "USER_NOT_FOUND");
    me(&token_of("user_local_acme", "other", 0)).send().await.refused(401, "USER_NOT_FOUND");
    assert_eq!(api.sql(|db| db.query_row("SELECT count(*) FROM users", [], |row| row.get::<_, i64>(0))), 1);
    api.stop().await;
}

#[tokio::test]
async fn two_first_requests_make_one_owner() {
    let api = ControlPlane::start().await;
    let me = || api.owner("acme", "GET", "/v1/auth/me").send();
    for answer in futures_util::future::join_all((0..16).map(|_| me())).await {
        assert_eq!(answer.expect(200)["id"], "user_local_acme");
    }
    api.stop().await;
}

#[tokio::test]
async fn a_cookie_needs_a_page_of_ours() {
    let api = ControlPlane::start().await;
    let body = json!({"token": local_token("acme")});
    let sign_in = || api.ask("POST", "/v1/auth/token");
    let ours = |ask: super::support::Ask| ask.header("origin", "http://localhost:3000");
    sign_in().json(&body).header("origin", "http://evil.example").send().await.refused(403, "FORBIDDEN");
    sign_in().json(&body).send().await.refused(403, "FORBIDDEN");
    ours(sign_in().json(&json!({}))).send().await.invalid();
    ours(sign_in().json(&json!([]))).send().await.refused(400, "INVALID_JSON");
    ours(sign_in().json(&json!({"token": "x"}))).send().await.refused(401, "UNAUTHORIZED");
    let answer = ours(sign_in().json(&body)).send().await;
    assert_eq!(answer.expect(200)["user"]["namespace"], "acme");
    let set = answer.header("set-cookie").unwrap();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="] {
        assert!(set.contains(attribute), "{set}");
    }
    assert!(!set.contains("Secure"), "{set}");
    let token = set.strip_prefix("sigilum_token=").unwrap().split(';').next().unwrap();
    let with_cookie = |method: &str, target: &str| api.ask(method, target).cookie(token);
    with_cookie("GET", "/v1/auth/me").send().await.expect(200);

    let settings = json!({"policy": {}});
    let patch = || with_cookie("PATCH", "/v1/auth/settings");
    patch().json(&settings).send().await.refused(403, "FORBIDDEN");
    patch().json(&settings).header("origin", "http://evil.example").send().await.refused(403, "FORBIDDEN");
    ours(patch().json(&settings)).send().await.expect(200);
    // A page of a listed origin needs nothing further, also where it sends no body.
    ours(patch().raw(settings.to_string().as_bytes())).send().await.expect(200);
    ours(with_cookie("POST", "/v1/claims/cl_0123456789abcdef01234567/approve")).send().await.refused(404, "NOT_FOUND");
    patch().json(&settings).header("sec-fetch-site", "same-origin").send().await.expect(200);
    // What a form or a link of elsewhere could send: no body, and the browser's honest Origin.
    for (method, target) in [("POST", "/v1/claims/cl_1/approve"), ("DELETE", "/v1/auth/account")] {
        with_cookie(method, target).header("origin", "http://localhost:3001").send().await.refused(403, "FORBIDDEN");
        with_cookie(method, target).send().await.refused(403, "FORBIDDEN");
    }
    with_cookie("GET", "/v1/auth/me").send().await.expect(200);
    // A bearer credential is put there by hand; it comes first, also beside a cookie.
    api.ask("PATCH", "/v1/auth/settings").bearer(token).json(&settings).send().await.expect(200);
    with_cookie("GET", "/v1/auth/me").bearer("wrong").send().await.refused(401, "UNAUTHORIZED");
    api.stop().await;
}

#[tokio::test]
async fn the_cookie_is_secure_where_the_api_is_reached_by_https() {
    let api = ControlPlane::start().await;
    let body = json!({"token": local_token("acme")});
    let ask = api.ask("POST", "/v1/auth/token").host("api.example.com").json(&body);
    ask.clone().header("origin", "http://api.example.com").send().await.refused(403, "FORBIDDEN");
    let answer = ask.header("origin", "https://api.example.com").send().await;
    answer.expect(200);
    assert!(answer.header("set-cookie").unwrap().ends_with("; Secure"));
    api.stop().await;
}

#[tokio::test]
async fn a_session_ends_without_the_token_it_was_begun_with_and_lives_no_longer() {
    let api = ControlPlane::start().await;
    let token = local_token("acme");
    let begin = || async {
        let ask = api.ask("POST", "/v1/auth/token").json(&json!({"token": token}));
        let answer = ask.header("origin", "http://localhost:3000").send().await;
        answer.expect(200);
        let set = answer.header("set-cookie").unwrap();
        set.strip_prefix("sigilum_token=").unwrap().split(';').next().unwrap().to_owned()
    };
    // Also two of the same second are two.
    let (one, two) = (begin().await, begin().await);
    assert!(one != token && two != token && one != two);
    let payload = |token: &str| -> serde_json::Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
    };
    for name in ["sub", "email", "namespace", "exp"] {
        assert_eq!(payload(&one)[name], payload(&token)[name], "{name}");
    }
    let again = api.ask("POST", "/v1/auth/token").json(&json!({"token": one}));
    again.header("origin", "http://localhost:3000").send().await.refused(401, "UNAUTHORIZED");
    let out = api.ask("POST", "/v1/auth/logout").cookie(&one).header("sec-fetch-site", "same-origin").send().await;
    out.expect(200);
    let me = |token: &str| api.ask("GET", "/v1/auth/me").bearer(token).send();
    me(&one).await.refused(401, "UNAUTHORIZED");
    me(&two).await.expect(200);
    me(&token).await.expect(200);
    api.stop().await;
}

#[tokio::test]
async fn signing_out_ends_the_token_and_no_other() {
    let api = ControlPlane::start().await;
    let (one, two) = (token_of("user_local_acme", "acme", 0), token_of("user_local_acme", "acme", -1));
    let me = |token: &str| api.ask("GET", "/v1/auth/me").bearer(token).send();
    me(&one).await.expect(200);
    let out = api.ask("POST", "/v1/auth/logout").bearer(&one).send().await;
    assert_eq!(out.expect(200)["success"], true);
    assert!(out.header("set-cookie").unwrap().starts_with("sigilum_token=; ") && out.body.contains("true"));
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
    me(&one).await.refused(401, "UNAUTHORIZED");
    me(&two).await.expect(200);
    // Again, without a token, with a wrong one: nothing is left to do.
    api.ask("POST", "/v1/auth/logout").bearer(&one).send().await.expect(200);
    api.ask("POST", "/v1/auth/logout").send().await.expect(200);
    api.ask("POST", "/v1/auth/logout").bearer("wrong").send().await.expect(200);
    // A page of elsewhere signs nobody out.
    api.ask("POST", "/v1/auth/logout").cookie(&two).send().await.refused(403, "FORBIDDEN");
    // Not even by having the cookie cleared, which would come along with no request of such a page.
    for (name, value) in [("origin", "http://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")] {
        let out = api.ask("POST", "/v1/auth/logout").header(name, value).send().await;
        out.refused(403, "FORBIDDEN");
        assert_eq!(out.header("set-cookie"), None, "{name}: {value}");
    }
    me(&two).await.expect(200);
    api.stop().await;
}

#[tokio::test]
async fn who_leaves_takes_everything_along() {
    let api = ControlPlane::start().await;
    let token = local_token("acme");
    let service = api.service("acme", "slack").await;
    let key = api.key("acme", &service).await;
    // An agent of theirs at somebody else's service, and somebody else's agent at theirs.
    let others = api.service("other", "mail").await;
    let others_key = api.key("other", &others).await;
    let (ours, guest) = (agent("acme"), agent("other"));
    let ours = api.claim(&ours, "mail", &others_key).await;
    let guest = api.claim(&guest, "slack", &key).await;
    for (namespace, claim) in [("acme", &ours), ("other", &guest)] {
        api.owner(namespace, "POST", &format!("/v1/claims/{claim}/approve")).send().await.expect(200);
    }
    let answer = api.ask("DELETE", "/v1/auth/account").bearer(&token).send().await;
    assert_eq!(answer.expect(200)["success"], true);
    api.ask("GET", "/v1/auth/me").bearer(&token).send().await.refused(401, "UNAUTHORIZED");
    api.ask("GET", "/v1/services").bearer(&token).send().await.refused(401, "UNAUTHORIZED");
    let left = api.sql(|db| {
        db.query_row(
            "SELECT (SELECT count(*) FROM authorizations), (SELECT count(*) FROM services WHERE slug = 'slack'),
                    (SELECT count(*) FROM service_api_keys), (SELECT count(*) FROM claim_changes WHERE approved = 0)",
            [],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?)),
        )
    });
    // Both approvals have ended, and readers of either feed are told.
    assert_eq!(left, (0, 0, 1, 2));
    api.owner("other", "GET", "/v1/services").send().await.expect(200);
    let did = api.ask("GET", "/.well-known/did/did:sigilum:acme").send().await.expect(200);
    assert_eq!(did["deactivated"], true);
    // Coming back needs a token issued later; the old ones stay worthless.
    let later = token_of("user_local_acme", "acme", 3);
    let user = api.ask("GET", "/v1/auth/me").bearer(&later).send().await.expect(200);
    assert_eq!(user["namespace"], "acme");
    api.ask("GET", "/v1/auth/me").bearer(&token).send().await.refused(401, "UNAUTHORIZED");
    assert_eq!(api.ask("GET", "/v1/services").bearer(&later).send().await.expect(200)["services"], json!([]));
    api.stop().await;
}

#[tokio::test]
async fn settings_are_merged_and_a_policy_is_checked() {
    let api = ControlPlane::start().await;
    let patch = || api.owner("acme", "PATCH", "/v1/auth/settings");
    let policy = json!({"policy": {"autoApproveTrusted": true, "trustedServices": ["slack"]}});
    let answer = patch().json(&policy).send().await.expect(200);
    assert_eq!((&answer["success"], &answer["settings"]), (&json!(true), &policy));
    assert_eq!(patch().json(&json!({})).send().await.expect(200)["settings"], policy);
    let other = json!({"policy": {"maxPendingLimit": false}});
    assert_eq!(patch().json(&other).send().await.expect(200)["settings"], other);
    let wrong = json!({"policy": {"autoApproveIP": "yes", "typo": true, "trustedIPRanges": ["x"]}});
    let fields = patch().json(&wrong).send().await.invalid();
    assert_eq!(fields, ["policy.autoApproveIP", "policy.typo", "policy.trustedIPRanges[0]"]);
    let theme = patch().json(&json!({"theme": {"dark": true}})).send().await.expect(200);
    assert_eq!(theme["settings"], json!({"policy": {"maxPendingLimit": false}, "theme": {"dark": true}}));
    let large = json!({"note": "n".repeat(64 * 1024)});
    assert_eq!(patch().json(&large).send().await.invalid(), ["settings"]);
    let other = theme["settings"].clone();
    patch().raw(b"{").send().await.refused(400, "INVALID_JSON");
    patch().send().await.refused(400, "INVALID_JSON");
    api.ask("PATCH", "/v1/auth/settings").json(&other).send().await.refused(401, "UNAUTHORIZED");
    assert_eq!(api.owner("acme", "GET", "/v1/auth/me").send().await.expect(200)["settings"], other);
    assert_eq!(api.owner("other", "GET", "/v1/auth/me").send().await.expect(200)["settings"], json!({}));
    api.stop().await;
}

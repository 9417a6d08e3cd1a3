//! The dashboard in a real browser: signing in, the pages, deciding, keys, signing out.

use serde_json::json;

use crate::support::agent::Agent;
use crate::support::agent::random_hex;
use crate::support::api::Api;
use crate::support::browser::Browser;

/// Signs in as the owner of a namespace.
fn sign_in(browser: &mut Browser, api: &Api, namespace: &str) {
    browser.go(&format!("{}/", api.url()));
    browser.until("Owner token");
    browser.fill("#token", &api.token(namespace));
    browser.click("form button[type=submit]");
    browser.until("Overview");
}

#[test]
fn an_owner_works_with_the_pages() {
    let Some(mut browser) = Browser::start() else { return };
    let api = Api::start_with(&[("MAX_SERVICES_PER_ACCOUNT", "20")]);
    browser.go(&format!("{}/claims", api.url()));
    browser.until("Sign in");
    browser.pictures("sign-in");

    // A wrong token is said, and nobody is signed in.
    browser.fill("#token", "not.a.token");
    browser.click("form button[type=submit]");
    browser.until("UNAUTHORIZED");
    sign_in(&mut browser, &api, "acme");
    for (path, heading) in [
        ("/", "First steps"),
        ("/claims", "Nobody is waiting"),
        ("/services", "No service yet"),
        ("/gateway", "Start pairing"),
        ("/usage", "No calls"),
    ] {
        browser.go(&format!("{}{path}", api.url()));
        browser.until(heading);
        browser
            .pictures(&format!("empty{}", if path == "/" { "-overview".to_owned() } else { path.replace('/', "-") }));
    }

    // A service and a key, which is shown once.
    browser.go(&format!("{}/services", api.url()));
    browser.fill("#slug", "github-proxy");
    browser.fill("#name", "GitHub");
    browser.fill("#domain", "github.com");
    browser.fill("#description", "Issues and pull requests");
    browser.press("Create service");
    browser.until("Make a key");
    browser.fill("#key-name", "laptop");
    browser.press("Make a key");
    browser.until("shown this once");
    let key = browser.script("return document.getElementById('made-key').textContent", vec![]);
    let key = key.as_str().unwrap().to_owned();
    assert!(key.starts_with("sk_live_"), "{key}");
    browser.pictures("service-new-key");
    browser.go(&browser.url());
    browser.until("laptop");
    assert!(!browser.source().contains(&key), "the key is shown a second time");

    // An agent asks; the owner approves for a day.
    let agent = Agent::new("acme");
    let body = json!({
        "namespace": "acme", "public_key": agent.public_key, "service": "github-proxy", "agent_ip": "192.0.2.7",
        "nonce": random_hex(16), "agent_name": "build bot", "subject": "dana@example.com",
    });
    let asked = api.signed(&agent, Some(&key), "POST", "/v1/claims", body.to_string().as_bytes());
    assert_eq!(asked.status, 201, "{}", asked.text());
    browser.go(&format!("{}/claims", api.url()));
    browser.until("build bot");
    browser.pictures("claims-pending");
    browser.choose("select", "for a day");
    browser.press("Approve");
    browser.until("The agent may use the service now.");
    let claim = &api.claims("acme")[0];
    assert_eq!(claim["status"], "approved");
    assert!(claim["expires_at"].is_string(), "{claim}");

    // The owner is asked before an approval ends.
    browser.press("Approved");
    browser.until("build bot");
    browser.pictures("claims-approved");
    browser.press("Revoke");
    browser.until("is refused");
    assert_eq!(api.claims("acme")[0]["status"], "approved");
    browser.press("Yes, revoke");
    browser.until("The approval is revoked");
    assert_eq!(api.claims("acme")[0]["status"], "revoked");

    // Signing out makes the token worthless, not only the cookie.
    let cookie = browser.cookie("sigilum_token");
    assert_eq!(api.ask(&cookie, "GET", "/v1/auth/me", None).status, 200);
    browser.press("Sign out");
    browser.until("You are signed out");
    assert_eq!(api.ask(&cookie, "GET", "/v1/auth/me", None).code(), "UNAUTHORIZED");
    let complaints = browser.complaints();
    // The browser itself notes the answer to the wrong token.
    let ours = complaints.iter().filter(|said| !said.contains("/sign-in - Failed to load resource"));
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&String>::new());
}

//! The dashboard without a browser: headers, who may do what, what strangers wrote, and a gateway that says odd things.

use serde_json::Value;
use serde_json::json;

use crate::support::agent::Agent;
use crate::support::agent::now;
use crate::support::agent::random_hex;
use crate::support::api::Api;
use crate::support::api::Service;
use crate::support::bridge::Commanded;
use crate::support::bridge::FakeBridge;
use crate::support::client;
use crate::support::client::Body;
use crate::support::client::Request;
use crate::support::client::Response;
use crate::support::gateway::LIMIT;
use crate::support::process::wait_until;

/// The policy under which nothing runs but the program's own files.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// A page of ours that does something for its owner.
const OURS: &str = "same-origin";

/// A browser that shows pages and runs nothing.
struct Visitor<'a> {
    api: &'a Api,
    token: String,
}

impl<'a> Visitor<'a> {
    fn new(api: &'a Api, namespace: &str) -> Self {
        Self { api, token: api.token(namespace) }
    }

    fn request(&self, method: &str, target: &str) -> Request {
        let request = Request::new(method, &self.api.address.to_string(), target);
        request.header("cookie", &format!("sigilum_token={}", self.token))
    }

    fn get(&self, target: &str) -> Response {
        client::send(self.api.address, &self.request("GET", target))
    }

    /// The page, which must be there.
    fn page(&self, target: &str) -> String {
        let answer = self.get(target);
        assert_eq!(answer.status, 200, "{target}: {} {}", answer.status, answer.text());
        answer.text()
    }

    fn form(&self, target: &str, fields: &str) -> Request {
        self.request("POST", target)
            .header("content-type", "application/x-www-form-urlencoded")
            .with_body(Body::Sized(fields.as_bytes().to_vec()))
    }

    /// Sends a form as a page of ours does.
    fn post(&self, target: &str, fields: &str) -> Response {
        client::send(self.api.address, &self.form(target, fields).header("sec-fetch-site", OURS))
    }

    /// Sends a form that must lead on to another page.
    fn done(&self, target: &str, fields: &str) -> String {
        let answer = self.post(target, fields);
        assert_eq!(answer.status, 303, "{target}: {}", answer.text());
        answer.header("location").unwrap().to_owned()
    }
}

/// Submits the claim of an agent with everything it may say of itself.
fn claim(api: &Api, agent: &Agent, service: &Service, more: &Value) -> String {
    api.owner(&agent.namespace, "GET", "/v1/auth/me", None);
    let mut body = json!({
        "namespace": agent.namespace, "public_key": agent.public_key, "service": service.slug,
        "agent_ip": "192.0.2.7", "nonce": random_hex(16),
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = api.signed(agent, Some(&service.key), "POST", "/v1/claims", body.to_string().as_bytes());
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["claim_id"].as_str().unwrap().to_owned()
}

fn status_of(api: &Api, namespace: &str, claim: &str) -> String {
    let claims = api.claims(namespace);
    let found = claims.iter().find(|one| one["claim_id"] == claim).unwrap();
    found["status"].as_str().unwrap().to_owned()
}

/// Starts a pairing by its page and joins it; the session's id.
fn paired(
    visitor: &Visitor<'_>,
    namespace: &str,
    handler: impl Fn(&Commanded) -> (u16, String) + Send + Sync + 'static,
) -> (String, FakeBridge) {
    let answer = visitor.post("/gateway/pairing", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    // Its words are broken only where they must be.
    let page = answer.text().replace("<span>", "").replace("</span>", "");
    let part = |before: &str, after: &str| {
        let (_, rest) = page.split_once(before).unwrap_or_else(|| panic!("no {before} in {page}"));
        rest.split_once(after).unwrap().0.to_owned()
    };
    let (code, session) = (part("SIGILUM_PAIR_CODE=", " "), part("SIGILUM_PAIR_SESSION_ID=", " "));
    assert!(page.contains(&format!("--api-url {}", visitor.api.url())), "{page}");
    let bridge = FakeBridge::join(visitor.api.address, (&session, namespace, &code), handler);
    wait_until("the session is connected", LIMIT, || {
        visitor.page(&format!("/gateway?session={session}")).contains("Connections")
    });
    (session, bridge)
}

/// What a gateway with one connection says.
fn modest(command: &Commanded) -> (u16, String) {
    let connection = json!({
        "id": "github-proxy", "name": "GitHub", "protocol": "http", "base_url": "https://api.github.com",
        "auth_mode": "bearer", "auth_header_name": "Authorization", "auth_secret_key": "api_token",
        "credential_keys": ["api_token"], "status": "active", "secret_version": 1,
        "last_tested_at": "0001-01-01T00:00:00Z",
    });
    let body = match command.line.as_str() {
        "GET /api/admin/connections" => json!({ "connections": [connection] }),
        "GET /api/admin/connections/github-proxy/agents" => json!({ "agents": [] }),
        "GET /api/admin/service-catalog" => json!({ "version": "v1", "services": [{
            "key": "github", "label": "GitHub", "connection_id": "github-proxy", "protocol": "http",
            "base_url": "https://api.github.com", "auth_mode": "bearer", "auth_secret_key": "api_token",
            "default_test_path": "/user", "default_test_method": "GET",
            "credential_fields": [{ "key": "api_token", "label": "Token", "secret": true, "required": true }],
        }]}),
        "GET /api/admin/sealing-key" => json!({ "public_key": "A".repeat(43), "fingerprint": "ab12-cd34" }),
        "GET /api/admin/refusals" => json!({ "reasons": [] }),
        "POST /api/admin/connections/github-proxy/test" => json!({ "status": "pass", "http_status": 200 }),
        _ => connection,
    };
    let status = if command.line == "POST /api/admin/connections" { 201 } else { 200 };
    (status, body.to_string())
}

#[test]
fn every_page_wears_the_policy() {
    let api = Api::start();
    let service = api.service("acme", "slack");
    let visitor = Visitor::new(&api, "acme");
    let page = visitor.page("/");
    let asset = page.split("href=\"").find(|rest| rest.contains("app.css")).unwrap().split('"').next().unwrap();
    let pages = ["/", "/claims", "/services", &format!("/services/{}", service.id), "/gateway", "/usage", "/sign-in"];
    let failing = ["/services/none", "/claims?status=odd", "/usage?range=1y", "/assets/0/app.css"];
    for (target, status, kept) in pages
        .iter()
        .map(|target| (*target, 200, "no-store"))
        .chain(failing.iter().map(|target| (*target, 404, "no-store")))
        .chain([(asset, 200, "public, max-age=31536000, immutable")])
    {
        let answer = visitor.get(target);
        assert_eq!(answer.status, status, "{target}");
        for (name, value) in [
            ("content-security-policy", POLICY),
            ("referrer-policy", "same-origin"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("cache-control", kept),
        ] {
            assert_eq!(answer.header(name), Some(value), "{target}: {name}");
        }
    }
}

#[test]
fn no_page_has_anything_inline() {
    let api = Api::start();
    let visitor = Visitor::new(&api, "acme");
    let (session, _bridge) = paired(&visitor, "acme", modest);
    for target in [
        "/".to_owned(),
        "/claims".to_owned(),
        "/services".to_owned(),
        "/usage".to_owned(),
        "/sign-in".to_owned(),
        format!("/gateway?session={session}"),
        format!("/gateway/connections/new?session={session}&template=github"),
        format!("/gateway/connections/github-proxy?session={session}"),
    ] {
        let page = visitor.page(&target);
        for script in page.split("<script").skip(1) {
            assert!(script.starts_with(" src=\"/assets/"), "{target}: {script}");
        }
        for inline in ["<style", " style=", " onclick=", " onload=", " onsubmit=", "javascript:", "hx-on"] {
            assert!(!page.contains(inline), "{target} has {inline}");
        }
    }
}

#[test]
fn what_strangers_write_is_text() {
    let api = Api::start();
    let service = api.service("acme", "slack");
    let hostile = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>";
    let agent = Agent::new("acme");
    let said = json!({"agent_name": hostile, "subject": format!("{hostile}\u{202e}"), "agent_id": hostile});
    let id = claim(&api, &agent, &service, &said);
    let visitor = Visitor::new(&api, "acme");
    let judge = |target: &str| {
        let page = visitor.page(target);
        assert!(!page.contains("<script>alert") && !page.contains("<img"), "{target}: {page}");
        assert!(page.contains("&#60;script&#62;alert(1)"), "{target}: {page}");
        // What turns the direction of writing is not there.
        assert!(!page.contains('\u{202e}'), "{target}");
    };
    judge("/");
    judge("/claims");
    visitor.done(&format!("/claims/{id}/approve"), "expires_in_seconds=");
    judge("/claims?status=approved");
    let event = json!({
        "event_id": random_hex(16), "namespace": "acme", "public_key": agent.public_key, "service": "slack",
        "subject": hostile, "agent_id": hostile, "protocol": "http", "action": "proxy.request", "outcome": "success",
    });
    let told = api.signed(&agent, Some(&service.key), "POST", "/v1/usage/events", event.to_string().as_bytes());
    assert_eq!(told.status, 201, "{}", told.text());
    judge("/usage");
}

#[test]
fn what_a_gateway_says_is_text() {
    let api = Api::start();
    let visitor = Visitor::new(&api, "acme");
    let hostile = "\"'><script>alert(1)</script>";
    let (session, _bridge) = paired(&visitor, "acme", move |command| {
        let one = json!({
            "id": hostile, "name": hostile, "base_url": hostile, "protocol": hostile, "auth_mode": hostile,
            "auth_header_name": hostile, "credential_keys": [hostile], "status": "active",
            "last_tested_at": "2026-01-01T00:00:00Z", "last_test_status": "fail", "last_test_error": hostile,
            "secret_error": hostile,
        });
        let body = match command.line.as_str() {
            "GET /api/admin/connections" => json!({ "connections": [one] }),
            "GET /api/admin/sealing-key" => json!({ "public_key": hostile, "fingerprint": hostile }),
            "GET /api/admin/refusals" => json!({ "reasons": [{ "code": hostile, "count": 3 }] }),
            "GET /api/admin/service-catalog" => json!({ "services": [{ "key": hostile, "label": hostile,
                "connection_id": hostile, "base_url": hostile, "description": hostile, "credential_fields":
                [{ "key": hostile, "label": hostile, "placeholder": hostile, "help": hostile }] }] }),
            line if line.ends_with("/agents") => json!({ "agents": [{ "namespace": hostile, "subject": hostile,
                "public_key": hostile, "last_used_at": hostile, "status": 200 }] }),
            _ => one,
        };
        (200, body.to_string())
    });
    let template = "%22'%3E%3Cscript%3Ealert(1)%3C/script%3E";
    for target in [
        format!("/gateway?session={session}"),
        format!("/gateway/connections/new?session={session}"),
        format!("/gateway/connections/new?session={session}&template={template}"),
        format!("/gateway/connections/some?session={session}"),
    ] {
        let page = visitor.page(&target);
        assert!(!page.contains("<script>alert"), "{target}: {page}");
        assert!(page.contains("&#60;script&#62;alert(1)"), "{target}: {page}");
    }
}

#[test]
fn a_page_of_elsewhere_does_nothing() {
    let api = Api::start();
    let service = api.service("acme", "slack");
    let agent = Agent::new("acme");
    let id = claim(&api, &agent, &service, &json!({}));
    let visitor = Visitor::new(&api, "acme");
    let host = api.address.to_string();
    let forms = [
        format!("/claims/{id}/approve"),
        format!("/claims/{id}/reject"),
        format!("/claims/{id}/revoke"),
        "/services".to_owned(),
        format!("/services/{}/delete", service.id),
        format!("/services/{}/keys", service.id),
        format!("/services/{}/keys/any/revoke", service.id),
        "/gateway/pairing".to_owned(),
        "/gateway/pairing/end".to_owned(),
        "/gateway/pairing/name".to_owned(),
        "/gateway/connections/new".to_owned(),
        "/gateway/connections/slack/test".to_owned(),
        "/gateway/connections/slack/rotate".to_owned(),
        "/gateway/connections/slack/status".to_owned(),
        "/gateway/connections/slack/delete".to_owned(),
        "/sign-in".to_owned(),
        "/sign-out".to_owned(),
    ];
    for target in &forms {
        for (name, value) in [
            ("accept", "*/*"),
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", &format!("https://{host}")),
        ] {
            let answer = client::send(api.address, &visitor.form(target, "token=x").header(name, value));
            assert_eq!(answer.status, 403, "{target} with {name}: {value}: {}", answer.text());
            assert!(answer.text().contains("FORBIDDEN"), "{target}: {}", answer.text());
        }
    }
    assert_eq!(status_of(&api, "acme", &id), "pending");
    // The same form of our own page, over plain HTTP where browsers say nothing but where it is from.
    let own = visitor.form(&forms[0], "").header("origin", &format!("http://{host}"));
    assert_eq!(client::send(api.address, &own).status, 303);
    assert_eq!(status_of(&api, "acme", &id), "approved");
}

#[test]
fn who_is_not_signed_in_is_led_to_the_sign_in_and_back() {
    let api = Api::start();
    let nobody = Visitor { api: &api, token: String::new() };
    for (target, next) in [("/", "%2F"), ("/claims?status=approved", "%2Fclaims%3Fstatus%3Dapproved")] {
        let answer = nobody.get(target);
        assert_eq!(answer.status, 303);
        assert_eq!(answer.header("location"), Some(format!("/sign-in?why=UNAUTHORIZED&next={next}").as_str()));
    }
    let piece = client::send(api.address, &nobody.request("GET", "/claims/news").header("hx-request", "true"));
    assert_eq!((piece.status, piece.header("hx-redirect")), (401, Some("/sign-in")));
    assert_eq!(nobody.done("/services", "slug=slack"), "/sign-in?why=UNAUTHORIZED");

    let fields = format!("token={}&next=%2Fclaims%3Fstatus%3Dapproved", api.token("acme"));
    let answer = nobody.post("/sign-in", &fields);
    assert_eq!((answer.status, answer.header("location")), (303, Some("/claims?status=approved")));
    let cookie = answer.header("set-cookie").unwrap();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let elsewhere = nobody.done("/sign-in", &format!("token={}&next=%2F%2Fevil.example", api.token("acme")));
    assert_eq!(elsewhere, "/");
    let wrong = nobody.post("/sign-in", "token=wrong");
    assert_eq!(wrong.status, 401);
    assert!(wrong.header("set-cookie").is_none() && wrong.text().contains("UNAUTHORIZED"), "{}", wrong.text());
}

#[test]
fn what_is_anothers_is_not_there() {
    let api = Api::start();
    let service = api.service("other", "slack");
    let id = claim(&api, &Agent::new("other"), &service, &json!({"agent_name": "secret agent"}));
    let other = Visitor::new(&api, "other");
    let (session, bridge) = paired(&other, "other", modest);
    let asked = bridge.commands().len();
    let visitor = Visitor::new(&api, "acme");
    for target in ["/", "/claims", "/services", "/usage"] {
        assert!(!visitor.page(target).contains("secret agent"), "{target}");
    }
    for (target, status) in [
        (format!("/services/{}", service.id), 404),
        (format!("/gateway?session={session}"), 403),
        (format!("/gateway/pairing/state?session={session}"), 403),
        (format!("/gateway/connections/new?session={session}"), 403),
        (format!("/gateway/connections/github-proxy?session={session}"), 403),
    ] {
        assert_eq!(visitor.get(&target).status, status, "{target}");
    }
    for (target, fields, status) in [
        (format!("/claims/{id}/approve"), String::new(), 403),
        (format!("/claims/{id}/reject"), String::new(), 403),
        (format!("/services/{}/delete", service.id), String::new(), 404),
        (format!("/services/{}/keys", service.id), String::new(), 404),
        (format!("/services/{}/keys/any/revoke", service.id), String::new(), 404),
        ("/gateway/pairing/end".to_owned(), format!("session={session}"), 403),
        ("/gateway/pairing/name".to_owned(), format!("session={session}&name=mine"), 403),
        ("/gateway/connections/github-proxy/test".to_owned(), format!("session={session}"), 403),
        ("/gateway/connections/github-proxy/delete".to_owned(), format!("session={session}"), 403),
    ] {
        assert_eq!(visitor.post(&target, &fields).status, status, "{target}");
    }
    assert_eq!(status_of(&api, "other", &id), "pending");
    assert_eq!(bridge.commands().len(), asked, "the other owner's gateway was asked");
}

#[test]
fn a_decision_that_comes_too_late_is_said() {
    let api = Api::start();
    let service = api.service("acme", "slack");
    let id = claim(&api, &Agent::new("acme"), &service, &json!({}));
    let visitor = Visitor::new(&api, "acme");
    assert_eq!(visitor.done(&format!("/claims/{id}/reject"), ""), "/claims?status=pending&done=rejected");
    let late = visitor.post(&format!("/claims/{id}/approve"), "expires_in_seconds=3600");
    assert_eq!(late.status, 404);
    assert!(late.text().contains("NOT_FOUND") && late.text().contains("it is rejected"), "{}", late.text());
    let odd = visitor.post(&format!("/claims/{id}/approve"), "expires_in_seconds=soon");
    assert_eq!(odd.status, 400);
    assert!(odd.text().contains("VALIDATION_ERROR"), "{}", odd.text());
}

#[test]
fn who_decides_is_told_that_the_key_was_refused_before() {
    let api = Api::start();
    let service = api.service("acme", "slack");
    let (agent, visitor) = (Agent::new("acme"), Visitor::new(&api, "acme"));
    let id = api.approve(&agent, &service);
    assert!(!visitor.page("/claims?status=approved").contains("asks again"));
    visitor.done(&format!("/claims/{id}/revoke"), "");
    assert!(visitor.page("/claims?status=revoked").contains(&agent.public_key));
    let again = claim(&api, &agent, &service, &json!({}));
    let page = visitor.page("/claims");
    assert!(page.contains("You revoked this key for this service") && page.contains("just now"), "{page}");
    assert!(visitor.page("/claims?status=revoked").contains("until their agent asks again"));
    visitor.done(&format!("/claims/{again}/reject"), "");
    claim(&api, &agent, &service, &json!({}));
    assert!(visitor.page("/claims").contains("You rejected this key for this service"));
    // Of another key nothing was said.
    let other = claim(&api, &Agent::new("acme"), &service, &json!({}));
    let claims = api.claims("acme");
    let other = claims.iter().find(|one| one["claim_id"] == other).unwrap();
    assert_eq!(other.get("earlier_status"), None);
}

#[test]
fn a_gateway_has_the_name_its_owner_gives_it() {
    let api = Api::start();
    let visitor = Visitor::new(&api, "acme");
    let (session, _bridge) = paired(&visitor, "acme", modest);
    let name = |text: &str| format!("session={session}&name={text}");
    assert!(visitor.done("/gateway/pairing/name", &name("attic+%3Ci%3E")).ends_with("&done=gateway-named"));
    let target = format!("/gateway?session={session}");
    for page in [visitor.page(&target), visitor.page("/")] {
        assert!(page.contains("attic &#60;i&#62;") && !page.contains("<i>"), "{page}");
    }
    let (other, _second) = paired(&visitor, "acme", modest);
    let page = visitor.page(&format!("/gateway?session={other}"));
    assert!(page.contains("attic &#60;i&#62;"), "the other pairings: {page}");
    let long = visitor.post("/gateway/pairing/name", &name(&"a".repeat(61)));
    assert_eq!(long.status, 400);
    assert!(long.text().contains("VALIDATION_ERROR") && long.text().contains("attic &#60;i&#62;"), "{}", long.text());
    let stranger = Visitor::new(&api, "other").post("/gateway/pairing/name", &name("mine"));
    assert_eq!(stranger.status, 403);
    visitor.done("/gateway/pairing/name", &name(""));
    assert!(!visitor.page(&target).contains("attic"));
}

#[test]
fn where_an_account_is_full_the_page_leads_to_its_services() {
    let api = Api::start();
    let visitor = Visitor::new(&api, "acme");
    let (session, bridge) = paired(&visitor, "acme", modest);
    let mut number = 0;
    loop {
        let fields = format!("slug=service-{number}&name=S&domain=example.com&description=D");
        if visitor.post("/services", &fields).status == 403 {
            break;
        }
        number += 1;
        assert!(number < 100, "an account is never full");
    }
    let full = visitor.post("/gateway/connections/github-proxy/service", &format!("session={session}"));
    assert_eq!(full.status, 403);
    assert!(
        full.text().contains("SERVICE_LIMIT_REACHED") && full.text().contains("href=\"/services\""),
        "{}",
        full.text()
    );
    assert_eq!(bridge.body("PUT "), None);
}

#[test]
fn news_are_told_once() {
    let api = Api::start();
    let service = api.service("acme", "slack");
    let visitor = Visitor::new(&api, "acme");
    assert_eq!(visitor.get("/claims/news?pending=0").status, 204);
    claim(&api, &Agent::new("acme"), &service, &json!({}));
    assert!(visitor.page("/claims/news?pending=0").contains("One claim is pending"));
    assert_eq!(visitor.get("/claims/news?pending=1").status, 204);
}

#[test]
fn a_claim_says_when_its_key_was_last_used() {
    let api = Api::start();
    let (slack, mail) = (api.service("acme", "slack"), api.service("acme", "mail"));
    let agent = Agent::new("acme");
    let (used, unused) = (api.approve(&agent, &slack), api.approve(&agent, &mail));
    let at = (now() - 120) * 1000;
    let event = json!({
        "event_id": random_hex(16), "namespace": "acme", "public_key": agent.public_key, "service": "slack",
        "subject": "dana", "protocol": "http", "action": "proxy.request", "outcome": "success", "occurred_at":
        time::OffsetDateTime::from_unix_timestamp(i64::try_from(at / 1000).unwrap()).unwrap()
            .format(&time::format_description::well_known::Rfc3339).unwrap(),
    });
    let told = api.signed(&agent, Some(&slack.key), "POST", "/v1/usage/events", event.to_string().as_bytes());
    assert_eq!(told.status, 201, "{}", told.text());
    let claims = api.claims("acme");
    let last = |id: &str| claims.iter().find(|one| one["claim_id"] == id).unwrap().get("last_used_at").cloned();
    assert!(last(&used).is_some_and(|at| at.is_string()), "{claims:?}");
    assert_eq!(last(&unused), None);
    let page = Visitor::new(&api, "acme").page("/claims?status=approved");
    assert!(page.contains("2 min ago") && page.contains("never"), "{page}");
}

#[test]
fn a_secret_goes_to_the_gateway_sealed_or_with_the_owners_word() {
    let api = Api::start();
    let visitor = Visitor::new(&api, "acme");
    let (session, bridge) = paired(&visitor, "acme", modest);
    let base = "base_url=https%3A%2F%2Fapi.github.com&id=github-proxy&name=GitHub&template=github";
    let made = |secret: &str| {
        let fields = format!("session={session}&{base}&rotation_interval_days=90&secret.api_token={secret}");
        visitor.post("/gateway/connections/new", &fields)
    };
    let plain = made("hunter2-canary");
    assert_eq!(plain.status, 400);
    assert!(plain.text().contains("VALIDATION_ERROR"), "{}", plain.text());
    assert!(!plain.text().contains("hunter2-canary"), "the page repeats the secret");
    assert!(bridge.body("POST /api/admin/connections").is_none(), "a plain secret was passed on");

    let sealed = made("sealed%3Av1%3Aabc.def");
    assert_eq!(sealed.status, 303, "{}", sealed.text());
    assert_eq!(
        bridge.body("POST /api/admin/connections").unwrap(),
        json!({
            "id": "github-proxy", "name": "GitHub", "protocol": "http", "base_url": "https://api.github.com",
            "auth_secret_key": "api_token", "auth_mode": "bearer", "rotation_interval_days": 90,
            "secrets": { "api_token": "sealed:v1:abc.def" },
        })
    );
    assert_eq!(made("hunter2-canary&plain=accepted").status, 303);
    let body = bridge.body("POST /api/admin/connections").unwrap();
    assert_eq!(body["secrets"]["api_token"], "hunter2-canary");

    let rotate =
        |fields: &str| visitor.post("/gateway/connections/github-proxy/rotate", &format!("session={session}&{fields}"));
    assert_eq!(rotate("secret.api_token=plain").status, 400);
    assert!(bridge.body("POST /api/admin/connections/github-proxy/rotate").is_none());
    assert_eq!(rotate("secret.api_token=sealed%3Av1%3Ax.y").status, 303);
    let body = bridge.body("POST /api/admin/connections/github-proxy/rotate").unwrap();
    assert_eq!(body["secrets"], json!({ "api_token": "sealed:v1:x.y" }));
}

#[test]
fn a_connection_is_tested_as_its_template_says_switched_off_and_deleted() {
    let api = Api::start();
    let visitor = Visitor::new(&api, "acme");
    let (session, bridge) = paired(&visitor, "acme", modest);
    let path = "/gateway/connections/github-proxy";
    let of = format!("session={session}");
    assert!(visitor.done(&format!("{path}/test"), &of).ends_with("&done=tested"));
    let tried = bridge.body("POST /api/admin/connections/github-proxy/test").unwrap();
    assert_eq!(tried, json!({ "method": "GET", "test_path": "/user" }));
    assert!(visitor.page(&format!("{path}?{of}")).contains("name=\"test_path\" value=\"/user\""));
    visitor.done(&format!("{path}/test"), &format!("{of}&test_path=%2Fteams"));
    let tried = bridge.body("POST /api/admin/connections/github-proxy/test").unwrap();
    assert_eq!(tried, json!({ "test_path": "/teams" }));
    assert!(visitor.done(&format!("{path}/status"), &format!("{of}&status=disabled")).ends_with("connection-disabled"));
    assert_eq!(bridge.body("PATCH ").unwrap(), json!({ "status": "disabled" }));
    assert_eq!(visitor.post(&format!("{path}/status"), &format!("{of}&status=odd")).status, 400);
    assert!(visitor.done(&format!("{path}/delete"), &of).ends_with("connection-deleted"));
    assert_eq!(bridge.commands().last().unwrap().line, "DELETE /api/admin/connections/github-proxy");
}

#[test]
fn what_a_gateway_refuses_is_said_in_its_words() {
    let api = Api::start();
    let visitor = Visitor::new(&api, "acme");
    let (session, bridge) = paired(&visitor, "acme", |command| match command.line.as_str() {
        "POST /api/admin/connections" => {
            (409, json!({ "error": "a connection of this id exists", "code": "CONNECTION_EXISTS" }).to_string())
        }
        "GET /api/admin/refusals" => (200, "<html>".to_owned()),
        "GET /api/admin/sealing-key" => (404, json!({ "error": "not found", "code": "NOT_FOUND" }).to_string()),
        _ => modest(command),
    });
    let page = visitor.page(&format!("/gateway?session={session}"));
    assert!(page.contains("something this page cannot read"), "{page}");
    assert!(page.contains("shows no key to encrypt"), "{page}");
    let fields = format!(
        "session={session}&template=github&id=github-proxy&base_url=https%3A%2F%2Fx.example&secret.api_token=sealed%3Av1%3Aa.b"
    );
    let refused = visitor.post("/gateway/connections/new", &fields);
    assert_eq!(refused.status, 409);
    assert!(refused.text().contains("a connection of this id exists (CONNECTION_EXISTS)"), "{}", refused.text());
    assert!(refused.text().contains("value=\"https://x.example\""), "what was typed is gone");
    drop(bridge);
    wait_until("the loss is noticed", LIMIT, || {
        visitor.page(&format!("/gateway?session={session}")).contains("Connection lost")
    });
    let gone = visitor.get(&format!("/gateway/connections/github-proxy?session={session}"));
    assert_eq!(gone.status, 503);
    assert!(gone.text().contains("GATEWAY_NOT_CONNECTED"), "{}", gone.text());
}

#[test]
fn usage_is_drawn_and_told() {
    let api = Api::start();
    let service = api.service("acme", "slack");
    let agent = Agent::new("acme");
    api.approve(&agent, &service);
    for number in 0..5 {
        let outcome = if number < 3 { "success" } else { "error" };
        let subject = if number == 0 { "eve" } else { "dana" };
        let event = json!({
            "event_id": random_hex(16), "namespace": "acme", "public_key": agent.public_key, "service": "slack",
            "subject": subject, "protocol": "http", "action": "proxy.request", "outcome": outcome,
        });
        let told = api.signed(&agent, Some(&service.key), "POST", "/v1/usage/events", event.to_string().as_bytes());
        assert_eq!(told.status, 201, "{}", told.text());
    }
    let visitor = Visitor::new(&api, "acme");
    for range in ["24h", "7d", "30d", "90d"] {
        let page = visitor.page(&format!("/usage?range={range}"));
        assert!(page.contains("5 in all, 2 failed"), "{range}: {page}");
        assert!(page.contains("5 calls, 2 failed</title>"), "{range}: {page}");
    }
    let page = visitor.page("/usage");
    assert!(page.contains("<strong>2</strong><span>failed</span>"), "{page}");
    assert!(page.contains("<strong>1</strong><span>service</span>"), "{page}");
    let page = visitor.page("/usage?subject=eve");
    assert!(page.contains("1 in all, 0 failed") && !page.contains("dana"), "{page}");
    assert!(visitor.page("/usage?service=nothing").contains("No calls in these"));
}

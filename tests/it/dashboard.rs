//! The dashboard in a real browser: signing in, the pages, deciding, keys, signing out.

use std::fs;
use std::sync::Arc;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hpke::Deserializable as _;
use hpke::Kem as _;
use hpke::OpModeR;
use hpke::Serializable as _;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use serde_json::Value;
use serde_json::json;
use sha2::Digest as _;
use sha2::Sha256;

use crate::support::agent::Agent;
use crate::support::agent::now;
use crate::support::agent::random_hex;
use crate::support::api::Api;
use crate::support::bridge::Commanded;
use crate::support::bridge::FakeBridge;
use crate::support::browser::Browser;
use crate::support::gateway::LIMIT;
use crate::support::process::wait_until;

/// Signs in as the owner of a namespace, with the token that is returned.
fn sign_in(browser: &mut Browser, api: &Api, namespace: &str) -> String {
    let token = api.token(namespace);
    browser.go(&format!("{}/", api.url()));
    browser.until("Owner token");
    browser.fill("#token", &token);
    browser.click("form button[type=submit]");
    browser.until("Overview");
    token
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
    let token = sign_in(&mut browser, &api, "acme");
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

    // Signing out makes the session worthless, not only the cookie, and not the token it was begun with.
    let cookie = browser.cookie("sigilum_token");
    assert_eq!(api.ask(&cookie, "GET", "/v1/auth/me", None).status, 200);
    browser.press("Sign out");
    browser.until("You are signed out");
    assert_eq!(api.ask(&cookie, "GET", "/v1/auth/me", None).code(), "UNAUTHORIZED");
    assert_eq!(api.ask(&token, "GET", "/v1/auth/me", None).status, 200, "a command's token ended with the session");
    let complaints = browser.complaints();
    // The browser itself notes the answer to the wrong token.
    let ours = complaints.iter().filter(|said| !said.contains("/sign-in - Failed to load resource"));
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&String>::new());
}

/// A secret that must be read by nobody but the gateway.
const CANARY: &str = "ghp_canary0123456789canary";

/// The key of a gateway that is not there.
struct Keys {
    private: <X25519HkdfSha256 as hpke::Kem>::PrivateKey,
    public: String,
    fingerprint: String,
}

impl Keys {
    fn new() -> Self {
        let (private, public) = X25519HkdfSha256::gen_keypair();
        let public = public.to_bytes();
        let digest = Sha256::digest(public);
        let groups = digest[..16].chunks(2).map(|pair| format!("{:02x}{:02x}", pair[0], pair[1]));
        Self { private, public: URL_SAFE_NO_PAD.encode(public), fingerprint: groups.collect::<Vec<_>>().join("-") }
    }

    /// Opens a sealed text that was meant for this place.
    fn open(&self, sealed: &str, place: &str) -> Option<String> {
        let (key, text) = sealed.strip_prefix("sealed:v1:")?.split_once('.')?;
        let key = <X25519HkdfSha256 as hpke::Kem>::EncappedKey::from_bytes(&URL_SAFE_NO_PAD.decode(key).ok()?).ok()?;
        let opened = hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &self.private,
            &key,
            b"sigilum sealed secret v1",
            &URL_SAFE_NO_PAD.decode(text).ok()?,
            place.as_bytes(),
        );
        opened.ok().map(|bytes| String::from_utf8(bytes).unwrap())
    }
}

/// What a gateway with some connections says; `key` is the one it shows.
fn gateway(command: &Commanded, key: (&str, &str)) -> (u16, String) {
    let ago = |seconds: u64| iso(now() - seconds);
    let connection = |id: &str, name: &str, more: Value| {
        let mut one = json!({
            "id": id, "name": name, "protocol": "http", "base_url": format!("https://api.{id}.example"),
            "auth_mode": "bearer", "auth_header_name": "Authorization", "auth_secret_key": "api_token",
            "credential_keys": ["api_token"], "status": "active", "secret_version": 3, "created_at": ago(9_000_000),
            "last_rotated_at": ago(3_000_000),
        });
        one.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        one
    };
    let github = json!({ "last_tested_at": ago(300), "last_test_status": "pass", "last_test_http_status": 200,
        "last_used_at": ago(42), "next_rotation_due_at": iso(now() + 40 * 86_400), "base_url": "https://api.github.com" });
    let slack = json!({ "last_tested_at": ago(86_400), "last_test_status": "fail", "last_test_http_status": 401,
        "last_test_error": "http 401 {\"ok\":false,\"error\":\"invalid_auth\"}", "next_rotation_due_at": ago(172_800),
        "last_used_at": ago(7200) });
    let all = [
        connection("github-proxy", "GitHub", github),
        connection("slack-proxy", "Slack of a team with a name that is longer than anybody would choose", slack),
        connection("notion-proxy", "Notion", json!({ "status": "disabled" })),
        connection(
            "billing-of-the-department-for-very-long-identifiers-indeed-01",
            "Billing",
            json!({ "declared": true }),
        ),
    ];
    let path = command.line.split_once("/api/admin/").map_or("", |(_, path)| path);
    let body = match (command.line.as_str(), path) {
        ("GET /api/admin/connections", _) => json!({ "connections": all }),
        ("GET /api/admin/sealing-key", _) => json!({ "public_key": key.0, "fingerprint": key.1 }),
        ("GET /api/admin/service-catalog", _) => {
            let catalog = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/wire/catalog.json")).unwrap();
            serde_json::from_str(&catalog).unwrap()
        }
        ("GET /api/admin/refusals", _) => json!({ "since": ago(500_000), "total": 173, "reasons": [
            { "code": "AUTH_CLAIM_REQUIRED", "count": 120, "last_24h": 31, "last_at": ago(60) },
            { "code": "AUTH_REPLAY_DETECTED", "count": 41, "last_24h": 0, "last_at": ago(400_000) },
            { "code": "UPSTREAM_ERROR", "count": 12, "last_24h": 2, "last_at": ago(4000) },
        ], "recent": [
            { "at": ago(60), "code": "AUTH_CLAIM_REQUIRED", "status": 403, "connection": "github-proxy",
              "agent_key": "99fb00dc16ee555a" },
        ] }),
        (line, _) if line.ends_with("/agents") => json!({ "agents": [
            { "namespace": "acme", "public_key": format!("ed25519:{}", "A".repeat(43) + "="), "subject": "dana@example.com",
              "last_used_at": ago(42), "status": 200 },
        ] }),
        (line, _) if line.starts_with("GET /api/admin/service-api-keys/") => {
            json!({ "has_key": false, "key_prefix": "" })
        }
        (_, path) if path.starts_with("connections/") => {
            let id = path.split('/').nth(1).unwrap();
            all.iter().find(|one| one["id"] == id).cloned().unwrap_or_else(|| connection(id, "New", json!({})))
        }
        _ => json!({}),
    };
    (if command.line == "POST /api/admin/connections" { 201 } else { 200 }, body.to_string())
}

fn iso(seconds: u64) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap()).unwrap();
    at.format(&time::format_description::well_known::Rfc3339).unwrap()
}

/// Starts a pairing by hand: the session's id and its code, as the page shows them.
fn start_pairing(browser: &mut Browser, api: &Api) -> (String, String) {
    start_pairing_by(browser, api, "Start pairing")
}

/// The same by another button.
fn start_pairing_by(browser: &mut Browser, api: &Api, button: &str) -> (String, String) {
    browser.go(&format!("{}/gateway", api.url()));
    browser.press(button);
    browser.until("Run this where the gateway lives");
    let command = browser.script("return document.getElementById('pair-command').textContent", vec![]);
    let command = command.as_str().unwrap().to_owned();
    let word = |before: &str| {
        let (_, rest) = command.split_once(before).unwrap_or_else(|| panic!("no {before} in {command}"));
        rest.split(' ').next().unwrap().to_owned()
    };
    assert_eq!((word("--namespace "), word("--api-url ")), ("acme".to_owned(), api.url()));
    (word("SIGILUM_PAIR_SESSION_ID="), word("SIGILUM_PAIR_CODE="))
}

#[test]
fn secrets_are_sealed_in_the_browser() {
    let Some(mut browser) = Browser::start() else { return };
    let api = Api::start();
    let keys = Arc::new(Keys::new());
    let shown = Arc::new(Mutex::new((keys.public.clone(), keys.fingerprint.clone())));
    sign_in(&mut browser, &api, "acme");
    let (session, code) = start_pairing(&mut browser, &api);
    browser.until("It waits for another 9:");
    browser.pictures("gateway-pairing");

    // The page goes on by itself when the gateway is there.
    let of = Arc::clone(&shown);
    let bridge = FakeBridge::join(api.address, (&session, "acme", &code), move |command| {
        let key = of.lock().unwrap().clone();
        gateway(command, (&key.0, &key.1))
    });
    browser.until("The gateway is connected.");
    browser.until(&keys.fingerprint);
    browser.pictures("gateway");

    browser.press("Add a connection");
    browser.until("Choose the provider");
    browser.pictures("catalog");
    browser.press("GitHub");
    browser.until("Compare your gateway's key once");
    browser.until(&keys.fingerprint);
    browser.fill("[data-secret]", CANARY);
    browser.pictures("connection-new");
    browser.press("Add connection");
    browser.until("Compare the fingerprint first");
    assert!(bridge.body("POST /api/admin/connections").is_none(), "sent without comparing");
    browser.click("#compared");
    browser.press("Add connection");
    browser.until("The connection is there.");
    browser.pictures("connection");
    let body = bridge.body("POST /api/admin/connections").unwrap();
    let sealed = body["secrets"]["api_token"].as_str().unwrap();
    let place = "connection\ngithub-proxy\napi_token\nhttps://api.github.com\n\n\nbearer\n\n\napi_token\n0";
    assert_eq!(keys.open(sealed, place).as_deref(), Some(CANARY));
    assert_eq!(keys.open(sealed, &place.replace("api.github.com", "evil.example")), None);

    // Once is enough: the key is remembered, and the secret of a rotation is bound to its connection.
    browser.until("which you compared before");
    browser.fill("[data-secret]", CANARY);
    browser.press("Replace");
    browser.until("The secret is replaced");
    let body = bridge.body("POST /api/admin/connections/github-proxy/rotate").unwrap();
    let place =
        "connection\ngithub-proxy\napi_token\nhttps://api.github.com\n\n\nbearer\nAuthorization\n\napi_token\n3";
    assert_eq!(keys.open(body["secrets"]["api_token"].as_str().unwrap(), place).as_deref(), Some(CANARY));

    // A key of the service goes to the gateway sealed, too.
    browser.press("Register the service and hand its key over");
    browser.until("The gateway has a key of the service now");
    let body = bridge.body("PUT /api/admin/service-api-keys/github-proxy").unwrap();
    let key = keys.open(body["key"].as_str().unwrap(), "service-api-key\ngithub-proxy\nkey\n").unwrap();
    let services = api.owner("acme", "GET", "/v1/services", None);
    assert_eq!(services["services"][0]["slug"], "github-proxy");
    assert!(key.starts_with("sk_live_"), "{key}");

    // Another key is refused loudly, and nothing is sent to it.
    let other = Keys::new();
    *shown.lock().unwrap() = (other.public.clone(), other.fingerprint.clone());
    browser.go(&browser.url());
    browser.until("This is not a key you compared.");
    browser.pictures("connection-other-key");
    let before = bridge.commands().len();
    browser.fill("[data-secret]", CANARY);
    browser.press("Replace");
    browser.until("Nothing was sent. Compare the fingerprint first");
    assert!(bridge.commands()[before..].iter().all(|one| !one.line.contains("rotate")), "sent to another key");
    browser.go(&format!("{}/gateway", api.url()));
    browser.until("This is not a key you compared.");

    let traffic = browser.traffic();
    assert!(traffic.contains("sealed%3Av1%3A") || traffic.contains("sealed:v1:"), "the traffic was not recorded");
    assert!(!traffic.contains("canary0123456789"), "the secret left the page");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn where_the_browser_cannot_seal_the_owner_is_asked() {
    let Some(mut browser) = Browser::start() else { return };
    let api = Api::start();
    sign_in(&mut browser, &api, "acme");
    let (session, code) = start_pairing(&mut browser, &api);
    // A gateway that has no key to show is as good as a browser without X25519.
    let bridge = FakeBridge::join(api.address, (&session, "acme", &code), |command| match command.line.as_str() {
        "GET /api/admin/sealing-key" => (404, json!({ "error": "not found", "code": "NOT_FOUND" }).to_string()),
        _ => gateway(command, ("", "")),
    });
    browser.until("The gateway is connected.");
    browser.go(&format!("{}/gateway/connections/new?session={session}&template=github", api.url()));
    browser.until("Secrets cannot be encrypted here.");
    browser.pictures("connection-unsealed");
    browser.fill("[data-secret]", CANARY);
    browser.press("Add connection");
    browser.until("tick the box if it may go unencrypted");
    assert!(bridge.body("POST /api/admin/connections").is_none());
    browser.click("#plain");
    browser.press("Add connection");
    browser.until("The connection is there.");
    assert_eq!(bridge.body("POST /api/admin/connections").unwrap()["secrets"]["api_token"], CANARY);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn gateways_are_known_by_their_keys_side_by_side() {
    let Some(mut browser) = Browser::start() else { return };
    let api = Api::start();
    sign_in(&mut browser, &api, "acme");
    let join = |(session, code): &(String, String), shown: &Arc<Mutex<(String, String)>>| {
        let of = Arc::clone(shown);
        FakeBridge::join(api.address, (session, "acme", code), move |command| {
            let key = of.lock().unwrap().clone();
            gateway(command, (&key.0, &key.1))
        })
    };
    let keys: [_; 3] = std::array::from_fn(|_| Keys::new());
    let [first, second, third] = keys.each_ref().map(|keys| (keys.public.clone(), keys.fingerprint.clone()));
    let shown = Arc::new(Mutex::new(first.clone()));
    let one = start_pairing(&mut browser, &api);
    let bridge = join(&one, &shown);
    browser.until("The gateway is connected.");
    browser.fill("[data-call]", "office");
    browser.press("They are the same");
    browser.until("compared in this browser");

    // Another gateway is compared like the first, beside those that are known.
    let two = start_pairing_by(&mut browser, &api, "Pair another gateway");
    let _other = join(&two, &Arc::new(Mutex::new(second.clone())));
    browser.until("The gateway is connected.");
    browser.until("This is not a key you compared.");
    let text = browser.text();
    assert!(text.contains("office") && text.contains(&first.1) && text.contains(&second.1), "{text}");
    browser.pictures("gateway-another");
    browser.fill("[data-call]", "lab");
    browser.press("They are the same");
    browser.until("compared in this browser");

    // Going from one to the other and back warns of nothing and says which it is.
    let page = |session: &str| format!("{}/gateway?session={session}", api.url());
    let form = |session: &str| format!("{}/gateway/connections/new?session={session}&template=github", api.url());
    for ((session, _), name, fingerprint) in [(&one, "office", &first.1), (&two, "lab", &second.1)] {
        browser.go(&form(session));
        browser.until("which you compared before");
        let text = browser.text();
        assert!(text.contains(&format!("to the key of {name}, {fingerprint},")), "{text}");
        assert!(!text.contains("not a key you compared"), "{text}");
    }

    // Whoever relays does not get a secret by saying that this is a third, nor by hiding the key.
    *shown.lock().unwrap() = third.clone();
    browser.go(&form(&one.0));
    browser.until("This is not a key you compared.");
    let text = browser.text();
    assert!(text.contains("office") && text.contains("lab") && text.contains(&third.1), "{text}");
    browser.fill("[data-secret]", CANARY);
    browser.press("Add connection");
    browser.until("Nothing was sent. Compare the fingerprint first");
    *shown.lock().unwrap() = (String::new(), String::new());
    browser.go(&form(&one.0));
    browser.until("This gateway shows no key.");
    browser.fill("[data-secret]", CANARY);
    browser.press("Add connection");
    browser.until("Nothing was sent: the gateway shows no key");
    let offered = browser.script("return document.getElementById('plain').checkVisibility()", vec![]);
    assert_eq!(offered, false, "in clear, where keys are known");
    assert!(bridge.body("POST /api/admin/connections").is_none());

    // A key that is forgotten is compared again.
    *shown.lock().unwrap() = first;
    browser.go(&page(&one.0));
    browser.press("Gateways compared in this browser");
    browser.click("details[open] [aria-label='Forget the key of office']");
    browser.until("This is not a key you compared.");
    let text = browser.text();
    assert!(text.contains("lab") && !text.contains("office"), "{text}");
    assert!(!browser.traffic().contains("canary0123456789"), "the secret left the page");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// Takes X25519 from WebCrypto, as browsers were before they had it.
const WITHOUT_X25519: &str = r#"
    for (const name of ["generateKey", "importKey", "deriveBits", "deriveKey"]) {
        const real = SubtleCrypto.prototype[name];
        SubtleCrypto.prototype[name] = function (...given) {
            if (given.some((one) => one === "X25519" || one?.name === "X25519")) {
                return Promise.reject(new DOMException("X25519 is not known", "NotSupportedError"));
            }
            return real.apply(this, given);
        };
    }
"#;

#[test]
fn a_browser_without_x25519_says_that_it_cannot_seal() {
    let Some(mut browser) = Browser::start() else { return };
    let api = Api::start();
    browser.before_pages(WITHOUT_X25519);
    sign_in(&mut browser, &api, "acme");
    let (session, code) = start_pairing(&mut browser, &api);
    let keys = Keys::new();
    let of = (keys.public.clone(), keys.fingerprint.clone());
    let bridge =
        FakeBridge::join(api.address, (&session, "acme", &code), move |command| gateway(command, (&of.0, &of.1)));
    browser.until("The gateway is connected.");
    browser.until("This browser cannot encrypt here. It does not know X25519.");
    browser.go(&format!("{}/gateway/connections/new?session={session}&template=github", api.url()));
    browser.until("Secrets cannot be encrypted here. It does not know X25519.");
    browser.pictures("connection-without-x25519");
    browser.fill("[data-secret]", CANARY);
    browser.press("Add connection");
    browser.until("tick the box if it may go unencrypted");
    assert!(bridge.body("POST /api/admin/connections").is_none(), "sent without the owner's word");
    assert!(!browser.traffic().contains("canary0123456789"), "the secret left the page");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn without_scripts_pages_are_read_claims_decided_and_no_secret_sent() {
    let Some(mut browser) = Browser::start() else { return };
    let api = Api::start();
    let service = api.service("acme", "github-proxy");
    let agent = Agent::new("acme");
    let body = json!({
        "namespace": "acme", "public_key": agent.public_key, "service": service.slug, "agent_ip": "192.0.2.7",
        "nonce": random_hex(16), "agent_name": "build bot",
    });
    let asked = api.signed(&agent, Some(&service.key), "POST", "/v1/claims", body.to_string().as_bytes());
    assert_eq!(asked.status, 201, "{}", asked.text());
    browser.without_scripts();
    sign_in(&mut browser, &api, "acme");
    let is_alive = browser.script("return document.documentElement.classList.contains('js')", vec![]);
    assert_eq!(is_alive, false, "scripts ran");
    for (path, heading) in [("/services", "github-proxy"), ("/usage", "No calls"), ("/gateway", "Start pairing")] {
        browser.go(&format!("{}{path}", api.url()));
        browser.until(heading);
    }
    browser.go(&format!("{}/claims", api.url()));
    browser.until("build bot");
    browser.pictures("claims-without-scripts");
    browser.press("Approve");
    browser.until("The agent may use the service now.");
    assert_eq!(api.claims("acme")[0]["status"], "approved");
    browser.press("Approved");
    browser.press("Revoke");
    browser.press("Yes, revoke");
    browser.until("The approval is revoked");
    assert_eq!(api.claims("acme")[0]["status"], "revoked");

    // The form of a secret says what is missing, and sends nothing of what is typed.
    let (session, code) = start_pairing(&mut browser, &api);
    let keys = Keys::new();
    let of = (keys.public.clone(), keys.fingerprint.clone());
    let bridge =
        FakeBridge::join(api.address, (&session, "acme", &code), move |command| gateway(command, (&of.0, &of.1)));
    for (path, button) in
        [("connections/new?template=github&", "Add connection"), ("connections/slack-proxy?", "Replace")]
    {
        let target = format!("{}/gateway/{path}session={session}", api.url());
        wait_until("the gateway is there", LIMIT, || {
            browser.go(&target);
            browser.text().contains(button)
        });
        browser.until("That needs JavaScript, which does not run here.");
        browser.pictures(&format!("secret-without-scripts-{}", button.split(' ').next().unwrap().to_lowercase()));
        browser.fill("[data-secret]", CANARY);
        browser.press(button);
        browser.until("which needs JavaScript");
        assert!(browser.text().contains("VALIDATION_ERROR"), "{}", browser.text());
    }
    for line in ["POST /api/admin/connections", "POST /api/admin/connections/slack-proxy/rotate"] {
        assert!(bridge.body(line).is_none(), "{line}");
    }
    assert!(!browser.traffic().contains("canary0123456789"), "the secret left the page");
}

#[test]
fn over_plain_http_from_elsewhere_pages_work_and_sealing_is_said_to_be_missing() {
    let api = Api::start_with(&[("API_PUBLIC_URL", "http://board.test")]);
    let rule = format!("--host-resolver-rules=MAP board.test:80 {}", api.address);
    let Some(mut browser) = Browser::start_with(&[&rule]) else { return };
    browser.go("http://board.test/");
    browser.fill("#token", &api.token("acme"));
    // A form without a script, from an origin browsers do not trust: nothing but `Origin` says where it is from.
    browser.click("form button[type=submit]");
    browser.until("First steps");
    browser.go("http://board.test/gateway");
    browser.press("Start pairing");
    browser.until("Run this where the gateway lives");
    let command = browser.text();
    let word = |before: &str| command.split_once(before).unwrap().1.split_whitespace().next().unwrap().to_owned();
    let (session, code) = (word("SIGILUM_PAIR_SESSION_ID="), word("SIGILUM_PAIR_CODE="));
    assert_eq!(word("--api-url"), "http://board.test");
    let keys = Keys::new();
    let of = (keys.public.clone(), keys.fingerprint.clone());
    let bridge =
        FakeBridge::join(api.address, (&session, "acme", &code), move |command| gateway(command, (&of.0, &of.1)));
    browser.until("The gateway is connected.");
    browser.go(&format!("http://board.test/gateway/connections/new?session={session}&template=github"));
    browser.until("this one did neither");
    browser.fill("[data-secret]", CANARY);
    browser.press("Add connection");
    browser.until("tick the box if it may go unencrypted");
    assert!(bridge.body("POST /api/admin/connections").is_none(), "sent without the owner's word");
    browser.click("#plain");
    browser.press("Add connection");
    browser.until("The connection is there.");
    assert_eq!(bridge.body("POST /api/admin/connections").unwrap()["secrets"]["api_token"], CANARY);
    // Chromium notes that it passes over Cross-Origin-Opener-Policy there.
    let complaints = browser.complaints();
    let ours = complaints.iter().filter(|said| !said.contains("Cross-Origin-Opener-Policy"));
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn pages_hold_much_and_odd_things() {
    let Some(mut browser) = Browser::start() else { return };
    let api = Api::start();
    let services = ["github-proxy", "slack-proxy", "notion-proxy"].map(|slug| api.service("acme", slug));
    let names = [
        "build bot",
        "Ein Agent mit einem sehr langen Namen, der sich nicht kurz fassen wollte und es auch nicht tut",
        "\u{202e}rotartsinimda\u{202c} \u{1f512}",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "<b>bold</b>",
    ];
    let outcomes = ["success", "success", "success", "success", "error", "forbidden"];
    let mut number = 0_u64;
    for (at, name) in names.iter().enumerate() {
        for service in &services {
            let agent = Agent::new("acme");
            let subject = format!("{}@example.com", ["dana", "eve", "li", "otto-with-a-long-name-indeed", "pat"][at]);
            let body = json!({
                "namespace": "acme", "public_key": agent.public_key, "service": service.slug,
                "agent_ip": "2001:db8:85a3:8d3:1319:8a2e:370:7348", "nonce": random_hex(16), "agent_name": name,
                "subject": subject, "agent_id": format!("agent-{at}"),
            });
            api.owner("acme", "GET", "/v1/auth/me", None);
            let asked = api.signed(&agent, Some(&service.key), "POST", "/v1/claims", body.to_string().as_bytes());
            assert_eq!(asked.status, 201, "{}", asked.text());
            if at > 1 {
                continue;
            }
            api.decide("acme", asked.json()["claim_id"].as_str().unwrap(), "approve");
            let events = (0..60).map(|_| {
                number += 1;
                // Spread over a week, more by day than by night.
                let ago = number * 7919 % 604_800;
                json!({
                    "event_id": random_hex(16), "namespace": "acme", "public_key": agent.public_key,
                    "service": service.slug, "subject": subject, "agent_id": format!("agent-{at}"), "protocol": "http",
                    "action": "proxy.request", "outcome": outcomes[usize::try_from(number % 6).unwrap()],
                    "occurred_at": iso(now() - ago),
                })
            });
            let batch = json!({ "events": events.collect::<Vec<_>>() });
            let told =
                api.signed(&agent, Some(&service.key), "POST", "/v1/usage/events/batch", batch.to_string().as_bytes());
            assert_eq!(told.status, 200, "{}", told.text());
        }
    }
    sign_in(&mut browser, &api, "acme");
    for (path, name) in [
        ("/", "overview"),
        ("/claims", "many-pending"),
        ("/claims?status=approved", "many-approved"),
        ("/services", "services"),
        ("/usage?range=7d", "usage"),
        ("/usage?range=24h&service=slack-proxy", "usage-of-service"),
        ("/services/none", "not-found"),
    ] {
        browser.go(&format!("{}{path}", api.url()));
        browser.pictures(name);
    }
    // The page that is not there is noted by the browser itself.
    let complaints = browser.complaints();
    let ours = complaints.iter().filter(|said| !said.contains("/services/none - Failed to load resource"));
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&String>::new());
}

//! What a control plane may do to a gateway, and what ours keeps apart: large lists that move, nonsense, wrong keys,
//! clocks; two owners of one name; every refusal of a signature by its code.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use rustix::process::Signal;
use serde_json::Value;
use serde_json::json;
use sha2::Digest as _;
use sha2::Sha256;

use crate::support::agent::Agent;
use crate::support::agent::now;
use crate::support::agent::random_hex;
use crate::support::api::Api;
use crate::support::api::Service;
use crate::support::api::owner_token;
use crate::support::client;
use crate::support::client::Exchange;
use crate::support::client::Request;
use crate::support::fake_api::Asked;
use crate::support::fake_api::FakeApi;
use crate::support::fake_api::answer;
use crate::support::fake_api::elsewhere;
use crate::support::fake_api::json;
use crate::support::fake_api::page;
use crate::support::fake_api::row;
use crate::support::gateway::LIMIT;
use crate::support::plane;
use crate::support::plane::OWN;
use crate::support::plane::SERVICE;
use crate::support::process::signal;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// How long a thousand pages may take on a busy machine.
const LONG: Duration = Duration::from_secs(240);

/// A key nobody judges: the API of the test is a fake.
fn any_key() -> Service {
    Service { id: "svc".to_owned(), slug: SERVICE.to_owned(), key: "sk_live_any".to_owned() }
}

/// A row of the large list.
struct Listed {
    number: u32,
    text: String,
}

impl AsRef<str> for Listed {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

/// The seed of the agent of a row.
fn seed(number: u32) -> [u8; 32] {
    Sha256::digest(number.to_be_bytes()).into()
}

fn listed(number: u32) -> Listed {
    let key = SigningKey::from_bytes(&seed(number)).verifying_key();
    let key = format!("ed25519:{}", STANDARD.encode(key.as_bytes()));
    Listed { number, text: row("acme", &key, SERVICE, number as usize) }
}

/// A list from which rows go and to which rows come while it is read. Each page says where the list stood, as ours do.
struct Moving {
    rows: Vec<Listed>,
    next: u32,
    moves: bool,
    /// Pages so far.
    pages: u32,
    /// How often it has moved.
    moved: u32,
    /// Rows a reader would jump over that trusts in offsets, the latest last.
    endangered: Vec<u32>,
}

impl Moving {
    fn answer(&mut self, asked: &Asked) -> Vec<u8> {
        let answer = String::from_utf8(page(asked, &self.rows)).unwrap();
        let cursor = format!("\r\nsigilum-claims-cursor: e.{}\r\n\r\n", self.moved);
        let answer = answer.replacen("\r\n\r\n", &cursor, 1).into_bytes();
        let end = asked.number("offset") + asked.number("limit").min(500);
        self.pages += 1;
        if self.moves && end < self.rows.len() && self.pages.is_multiple_of(8) {
            // Five of those that were read go, one comes on top: the rest moves up by four.
            self.moved += 1;
            self.rows.drain(..5);
            self.rows.insert(0, listed(self.next));
            self.next += 1;
            self.endangered.extend(self.rows[end - 4..end].iter().map(|row| row.number));
        }
        answer
    }
}

#[test]
fn a_hundred_thousand_approvals_arrive_complete_while_rows_move() {
    const COUNT: u32 = 100_000;
    let upstream = Upstream::start();
    // The keys are made while the gateway starts.
    let rows = thread::spawn(|| (0..COUNT).map(listed).collect::<Vec<_>>());
    let list = Arc::new(Mutex::new(Moving {
        rows: Vec::new(),
        next: COUNT,
        moves: true,
        pages: 0,
        moved: 0,
        endangered: Vec::new(),
    }));
    let served = Arc::clone(&list);
    let fake =
        FakeApi::start(move |asked| if asked.is_feed() { served.lock().unwrap().answer(asked) } else { elsewhere() });
    // Read once, and not again before the test has looked at what came of that.
    let gateway = plane::pace(plane::setup(&fake.url(), &any_key()), 600, 1200).start();
    list.lock().unwrap().rows = rows.join().unwrap();
    let begun = Instant::now();
    gateway.connect(&upstream, json!({}));
    let agent = |number: u32| Agent::from_seed("acme", &seed(number));
    wait_until("the list is in force", LONG, || plane::outcome(&gateway, &agent(COUNT - 1)) == "OK");
    let (still, endangered) = {
        let mut list = list.lock().unwrap();
        list.moves = false;
        let still: HashSet<u32> = list.rows.iter().map(|row| row.number).collect();
        // Those of the last reading, which is the one that counts.
        let last: Vec<u32> = list.endangered.iter().rev().take(80).copied().filter(|one| still.contains(one)).collect();
        (still, last)
    };
    let pages = list.lock().unwrap().pages;
    println!("published after {:?} and {pages} pages; {} rows at risk", begun.elapsed(), endangered.len());
    assert!(pages >= 200 && endangered.len() > 40, "{pages} {}", endangered.len());
    for number in endangered.iter().chain([COUNT - 1, COUNT / 2].iter()) {
        assert!(still.contains(number));
        assert_eq!(plane::outcome(&gateway, &agent(*number)), "OK", "row {number} was lost");
    }

    // Another admin reads it in peace: exactly what is there is held, what went is gone.
    let admin = gateway.role("admin");
    signal(admin, Signal::KILL);
    gateway.wait_replaced("admin", admin);
    gateway.wait_ready(LIMIT);
    wait_until("exactly the list is held", LONG, || {
        plane::metric(&gateway, "claims_approvals") == Some(still.len() as f64)
    });
    plane::until(&gateway, &agent(0), "AUTH_CLAIM_REQUIRED");
    let newest = list.lock().unwrap().next - 1;
    plane::until(&gateway, &agent(newest), "OK");
    println!("all of it took {:?}", begun.elapsed());
}

#[test]
fn a_list_larger_than_allowed_is_refused_loudly_and_never_cut() {
    let upstream = Upstream::start();
    let agent = Agent::new("acme");
    let small = vec![row("acme", &agent.public_key, SERVICE, 1)];
    let fake = FakeApi::start(move |asked| if asked.is_feed() { page(asked, &small) } else { elsewhere() });
    let setup = plane::pace(plane::setup(&fake.url(), &any_key()), 1, 60);
    let gateway = setup.env("GATEWAY_CLAIMS_CACHE_MAX_APPROVED", "20").start();
    gateway.connect(&upstream, json!({}));
    plane::until(&gateway, &agent, "OK");
    let late = Agent::new("acme");
    let mut many: Vec<_> = (0..30).map(|number| listed(number).text).collect();
    many.insert(0, row("acme", &late.public_key, SERVICE, 100));
    many.push(row("acme", &agent.public_key, SERVICE, 1));
    fake.set(move |asked| if asked.is_feed() { page(asked, &many) } else { elsewhere() });
    plane::until_fresh(&gateway, false);
    assert_eq!(plane::fresh(&gateway).1, "ClaimsStale");
    let log = plane::admin_log(&gateway);
    assert!(log.contains("claims.max_approvals") && log.contains("ERROR"), "{log}");
    assert_eq!(plane::outcome(&gateway, &agent), "OK", "the last complete list stays");
    assert_eq!(plane::outcome(&gateway, &late), "AUTH_CLAIM_REQUIRED", "and nothing of an incomplete one counts");
}

/// The time of a header, in seconds from now.
fn http_date(offset: i64) -> String {
    let at = time_of(i64::try_from(now()).unwrap() + offset);
    at.strip_suffix('\n').unwrap_or(&at).to_owned()
}

/// Seconds since 1970 as `date` of the system writes them for HTTP.
fn time_of(seconds: i64) -> String {
    let output = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{seconds}"), "+%a, %d %b %Y %H:%M:%S GMT"])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_an_api_does_wrong_is_said_in_the_log_and_takes_nobodys_approval() {
    let upstream = Upstream::start();
    let agent = Agent::new("acme");
    let rows = vec![row("acme", &agent.public_key, SERVICE, 1)];
    let good = move |asked: &Asked| if asked.is_feed() { page(asked, &rows) } else { elsewhere() };
    let other = FakeApi::start(|_| json("200 OK", "{}"));
    let fake = FakeApi::start(good.clone());
    let gateway = plane::pace(plane::setup(&fake.url(), &any_key()), 1, 120).start();
    gateway.connect(&upstream, json!({}));
    plane::until(&gateway, &agent, "OK");

    let html = answer("200 OK", &[("content-type", "text/html")], "<html><body>Welcome</body></html>");
    let half = json("200 OK", "{\"claims\":[{\"namespace\":\"acme\",");
    let broken =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{\"claims\":[".to_vec();
    let location = format!("{}/v1/namespaces/claims", other.url());
    let redirect = answer("302 Found", &[("location", &location)], "");
    let internal = json("500 Internal Server Error", r#"{"error":"internal error","code":"INTERNAL_ERROR"}"#);
    let gateway_down = answer("502 Bad Gateway", &[("content-type", "text/html")], "<h1>502</h1>");
    let unauthorized = json("401 Unauthorized", r#"{"error":"no such key","code":"UNAUTHORIZED"}"#);
    let forbidden = json("403 Forbidden", r#"{"error":"another service","code":"FORBIDDEN"}"#);
    let limited = answer(
        "429 Too Many Requests",
        &[("content-type", "application/json"), ("retry-after", "1")],
        r#"{"error":"slow down","code":"RATE_LIMITED"}"#,
    );
    let expired = r#"{"error":"too old","code":"SIGNATURE_EXPIRED"}"#;
    let clock =
        answer("401 Unauthorized", &[("content-type", "application/json"), ("date", &http_date(-300))], expired);
    for (what, bytes, said) in [
        ("HTML", html, &["a web page (text/html)", "check SIGILUM_API_URL"][..]),
        ("half a JSON", half, &["JSON that breaks off"]),
        ("an answer that breaks off", broken, &["broke off"]),
        ("a redirect", redirect, &["a redirect to", "which is not followed"]),
        ("500", internal, &["the API answers 500", "it is asked again"]),
        ("502 of a proxy", gateway_down, &["the API answers 502"]),
        ("a wrong service key", unauthorized, &["401 UNAUTHORIZED", "check the service key"]),
        ("a key of another service", forbidden, &["403 FORBIDDEN", "belongs to this service"]),
        ("a limit", limited, &["429 RATE_LIMITED"]),
        ("a clock that is off", clock, &["the clocks differ by", "set this machine's clock (it is ahead)"]),
    ] {
        let before = plane::admin_log(&gateway).len();
        fake.set(move |_| bytes.clone());
        let mut log = String::new();
        wait_until(&format!("{what} is in the log"), LIMIT, || {
            log = plane::admin_log(&gateway).get(before..).unwrap_or_default().to_owned();
            log.contains("cannot be read")
        });
        for said in said {
            assert!(log.contains(said), "{what}: {said:?} is missing in\n{log}");
        }
        assert!(!log.contains("sk_live_"), "{log}");
        assert!(!plane::fresh(&gateway).0, "{what}");
        assert_eq!(plane::outcome(&gateway, &agent), "OK", "{what} takes nothing away");
        fake.set(good.clone());
        plane::until_fresh(&gateway, true);
    }
    assert_eq!(other.asked(), Vec::<String>::new(), "the redirect was followed");
}

#[test]
fn a_wrong_service_key_is_named_and_a_right_one_needs_no_restart() {
    let (api, upstream) = (Api::start(), Upstream::start());
    let service = api.service(OWN, SERVICE);
    let wrong = Service { key: format!("sk_live_{}", random_hex(24)), ..service.clone() };
    let gateway = plane::pace(plane::setup(&api.url(), &wrong), 1, 60).start();
    gateway.connect(&upstream, json!({}));
    let agent = Agent::new("acme");
    api.approve(&agent, &service);
    wait_until("the log says it", LIMIT, || plane::admin_log(&gateway).contains("check the service key"));
    assert!(!plane::admin_log(&gateway).contains(&wrong.key), "the key itself is not said");
    assert_eq!(plane::outcome(&gateway, &agent), "AUTH_CLAIMS_LOOKUP_FAILED");
    plane::put_key(&gateway.setup, &service);
    plane::until(&gateway, &agent, "OK");
    plane::until_fresh(&gateway, true);

    // Revoked at the API: its word is not taken any more, and it is said.
    let keys = api.owner(OWN, "GET", &format!("/v1/services/{}/keys", service.id), None);
    let id = keys["keys"][0]["id"].as_str().unwrap();
    api.owner(OWN, "DELETE", &format!("/v1/services/{}/keys/{id}", service.id), None);
    plane::until_fresh(&gateway, false);
    assert_eq!(plane::outcome(&gateway, &agent), "OK", "approvals hold for their time");

    // Taken away altogether: what to do is said with the file's name.
    let file = gateway.setup.home().join(format!("service-api-key-{SERVICE}"));
    std::fs::remove_file(&file).unwrap();
    wait_until("the missing key is named", LIMIT, || {
        let log = plane::admin_log(&gateway);
        log.contains("SIGILUM_SERVICE_API_KEY_CONN_000") && log.contains(&file.display().to_string())
    });
    wait_until("readiness names the reason", LIMIT, || plane::fresh(&gateway).1 == "NoServiceKey");
}

/// The claim ids of the first page of a service's feed, as `signer` sees it with `key`.
fn feed(api: &Api, signer: &Agent, key: &str, slug: &str) -> Vec<String> {
    let target = format!("/v1/namespaces/claims?limit=100&offset=0&service={slug}");
    let answer = api.signed(signer, Some(key), "GET", &target, b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    body["claims"].as_array().unwrap().iter().map(|claim| claim["claim_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn two_owners_of_one_slug_never_see_each_other() {
    let (api, upstream) = (Api::start(), Upstream::start());
    let (first, second) = (api.service(OWN, SERVICE), api.service("rival", SERVICE));
    assert_ne!(first.id, second.id);
    let gateway = plane::setup(&api.url(), &first).start();
    gateway.connect(&upstream, json!({}));
    let (ours, theirs) = (Agent::new("acme"), Agent::new("zeta"));

    // A stream of the rival, opened before anything happens.
    let signer = Agent::new("rival");
    let head = api.signed(
        &signer,
        Some(&second.key),
        "GET",
        &format!("/v1/namespaces/claims?limit=100&offset=0&service={SERVICE}"),
        b"",
    );
    let cursor = head.header("sigilum-claims-cursor").unwrap();
    let target = format!("/v1/namespaces/claims/changes?after={cursor}&service={SERVICE}");
    let mut stream = Exchange::open(api.address).unwrap();
    let request = signer.get(&api.address.to_string(), &target);
    stream.write(&request.header("authorization", &format!("Bearer {}", second.key)).bytes());
    assert_eq!(stream.read_head("GET").unwrap().status, 200);

    let their_claim = api.approve(&theirs, &second);
    let our_claim = api.approve(&ours, &first);
    plane::until(&gateway, &ours, "OK");
    assert_eq!(plane::outcome(&gateway, &theirs), "AUTH_CLAIM_REQUIRED", "the rival's approval counts there only");

    assert_eq!(feed(&api, &Agent::new(OWN), &first.key, SERVICE), [our_claim.as_str()]);
    assert_eq!(feed(&api, &signer, &second.key, SERVICE), [their_claim.as_str()]);
    let mut seen = String::new();
    while !seen.contains("event: approved") || seen.matches("event: alive").count() < 2 {
        seen.push_str(&String::from_utf8_lossy(&stream.read_piece().unwrap().expect("the stream goes on")));
    }
    assert!(seen.contains(&their_claim) && !seen.contains(&our_claim), "{seen}");

    for (agent, authorized) in [(&ours, true), (&theirs, true), (&Agent::new("acme"), false)] {
        let key = agent.public_key.replace('+', "%2B");
        let target = format!("/v1/verify?namespace={}&public_key={key}&service={SERVICE}", agent.namespace);
        let answer = api.signed(agent, None, "GET", &target, b"");
        assert_eq!(answer.json()["authorized"], authorized, "{}", answer.text());
    }
    // Nobody lists, reads, decides or uses what is another's.
    for (owner, namespace, claim) in [("acme", "zeta", &their_claim), ("zeta", "acme", &our_claim)] {
        let token = api.token(owner);
        let refused = |method: &str, target: &str| {
            let answer = api.ask(&token, method, target, (method == "POST").then(|| json!({})).as_ref());
            assert_eq!((answer.status, answer.code().as_str()), (403, "FORBIDDEN"), "{target}: {}", answer.text());
        };
        refused("GET", &format!("/v1/namespaces/{namespace}/claims"));
        refused("GET", &format!("/v1/namespaces/{namespace}/usage"));
        refused("GET", &format!("/v1/claims/{claim}"));
        refused("POST", &format!("/v1/claims/{claim}/revoke"));
        assert_eq!(api.claims(owner).len(), 1);
    }
    for (owner, service) in [(OWN, &second), ("rival", &first)] {
        let target = format!("/v1/services/{}", service.id);
        assert_eq!(api.ask(&api.token(owner), "GET", &target, None).status, 404);
        let keys = api.ask(&api.token(owner), "GET", &format!("{target}/keys"), None);
        assert_eq!(keys.status, 404, "{}", keys.text());
    }
    api.decide("zeta", &their_claim, "revoke");
    assert_eq!(plane::outcome(&gateway, &ours), "OK");
}

/// Sends a request and checks its refusal.
#[track_caller]
fn refused(api: &Api, request: &Request, status: u16, code: &str) -> Value {
    let answer = client::send(api.address, request);
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.text());
    let body = answer.json();
    assert!(body["error"].as_str().is_some_and(|text| !text.is_empty()), "{body}");
    body["details"].clone()
}

#[test]
fn every_refusal_of_a_signature_has_its_code() {
    let api = Api::start();
    let (alice, mallory) = (Agent::new("alice"), Agent::new("mallory"));
    let service = api.service("alice", SERVICE);
    let authority = api.address.to_string();
    let key = alice.public_key.replace('+', "%2B");
    let target = format!("/v1/verify?namespace=alice&public_key={key}&service={SERVICE}");
    let draft = || alice.prepare("GET", &authority, &target);
    let good = || draft().sign();
    assert_eq!(client::send(api.address, &good()).status, 200);
    for name in [
        "signature-input",
        "signature",
        "sigilum-namespace",
        "sigilum-subject",
        "sigilum-agent-key",
        "sigilum-agent-cert",
    ] {
        refused(&api, &good().without(name), 401, "SIGNATURE_MISSING");
    }
    let invalid = |request: Request| drop(refused(&api, &request, 401, "SIGNATURE_INVALID"));
    invalid(good().replace("signature-input", |_| "sig1=()".into()));
    invalid(good().replace("signature-input", |input| input.replace("\"ed25519\"", "\"rsa\"")));
    invalid(good().replace("signature", |_| "sig1=:!!!!:".into()));
    invalid(good().replace("signature", |_| "sig1=:AAAA:".into()));
    for created in [now() - 320, now() + 60] {
        refused(&api, &draft().with(|draft| draft.created = created).sign(), 401, "SIGNATURE_EXPIRED");
    }
    invalid(good().replace("sigilum-agent-cert", |_| "e30".into()));
    invalid(good().replace("sigilum-agent-cert", |cert| cert[..cert.len() / 2].into()));
    invalid(good().replace("sigilum-agent-key", |_| mallory.public_key.clone()));
    invalid(good().replace("sigilum-agent-key", |_| "ed25519:AAAA".into()));
    invalid(good().replace("sigilum-namespace", |_| "mallory".into()));
    refused(&api, &mallory.get(&authority, &target), 403, "SIGNATURE_NAMESPACE_MISMATCH");
    invalid(good().replace("signature-input", |input| input.replace("#ed25519-", "#ed25519-0")));
    let with_id = draft().with(|draft| draft.agent_id = Some("bot".into())).sign();
    refused(&api, &with_id, 401, "SIGNATURE_COMPONENTS_INVALID");
    invalid(draft().with(|draft| draft.signed_uri = Some("http://elsewhere/".into())).sign());
    let once = good();
    assert_eq!(client::send(api.address, &once).status, 200);
    refused(&api, &once, 409, "SIGNATURE_NONCE_REPLAY");

    // Claims: the body is what was signed, and what it names is who signed.
    let body = |agent: &Agent, slug: &str, nonce: &str| {
        json!({ "namespace": agent.namespace, "public_key": agent.public_key, "service": slug,
            "agent_ip": "127.0.0.1", "nonce": nonce })
        .to_string()
        .into_bytes()
    };
    let bearer = format!("Bearer {}", service.key);
    let claim = |signer: &Agent, body: &[u8]| {
        let request = signer.post(&authority, "/v1/claims", body);
        request.header("content-type", "application/json").header("authorization", &bearer)
    };
    let nonce = random_hex(8);
    let mine = body(&alice, SERVICE, &nonce);
    let changed = claim(&alice, &mine).with_body(client::Body::Sized(body(&alice, SERVICE, &random_hex(8))));
    refused(&api, &changed, 401, "SIGNATURE_DIGEST_MISMATCH");
    refused(&api, &claim(&Agent::new("alice"), &mine), 403, "SIGNATURE_KEY_MISMATCH");
    refused(&api, &claim(&mallory, &mine), 403, "SIGNATURE_NAMESPACE_MISMATCH");
    refused(&api, &claim(&alice, &mine).without("authorization"), 401, "UNAUTHORIZED");
    let wrong = claim(&alice, &mine).replace("authorization", |_| format!("Bearer sk_live_{}", random_hex(24)));
    refused(&api, &wrong, 401, "UNAUTHORIZED");
    refused(&api, &claim(&alice, &body(&alice, "other-svc", &random_hex(8))), 403, "FORBIDDEN");
    refused(&api, &claim(&mallory, &body(&mallory, SERVICE, &random_hex(8))), 404, "NOT_FOUND");
    let upper = body(&alice, "Upper-Case", &random_hex(8));
    refused(&api, &claim(&alice, &upper), 403, "FORBIDDEN");
    refused(&api, &claim(&alice, b"{\"namespace\":"), 400, "INVALID_JSON");
    let short = body(&alice, SERVICE, "short");
    let details = refused(&api, &claim(&alice, &short), 400, "VALIDATION_ERROR");
    assert_eq!(details[0]["field"], "nonce", "{details}");
    assert_eq!(client::send(api.address, &claim(&alice, &mine)).status, 201);
    refused(&api, &claim(&alice, &mine), 409, "NONCE_REPLAY");
    assert_eq!(client::send(api.address, &claim(&alice, &body(&alice, SERVICE, &random_hex(8)))).status, 200);
}

#[test]
fn every_refusal_of_an_owner_has_its_code() {
    let api = Api::start_with(&[
        ("MAX_AGENTS_PER_SERVICE", "2"),
        ("MAX_SERVICES_PER_NAMESPACE", "2"),
        ("MAX_SERVICES_PER_ACCOUNT", "4"),
    ]);
    let services: Vec<_> = ["svc-a", "svc-b", "svc-c"].map(|slug| api.service("alice", slug)).into();
    let token = api.token("alice");
    let refused = |token: &str, method: &str, target: &str, body: Option<&Value>, status: u16, code: &str| {
        let answer = api.ask(token, method, target, body);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {target}: {}", answer.text());
        answer.json()["details"].clone()
    };
    let secret = api.jwt_secret();
    refused(&owner_token(&secret, "alice", -120), "GET", "/v1/services", None, 401, "TOKEN_EXPIRED");
    refused(
        &owner_token("another secret of this length!!!!", "alice", 60),
        "GET",
        "/v1/services",
        None,
        401,
        "UNAUTHORIZED",
    );
    refused("nonsense", "GET", "/v1/auth/me", None, 401, "UNAUTHORIZED");

    let new = |slug: &str| json!({ "name": slug, "slug": slug, "domain": "example.com", "description": "of a test" });
    for slug in ["Upper-Case", "x", "-a-b"] {
        let details = refused(&token, "POST", "/v1/services", Some(&new(slug)), 400, "VALIDATION_ERROR");
        assert_eq!(details[0]["field"], "slug", "{details}");
    }
    refused(&token, "POST", "/v1/services", Some(&new("svc-a")), 409, "CONFLICT");
    api.owner("alice", "POST", "/v1/services", Some(&new("svc-d")));
    refused(&token, "POST", "/v1/services", Some(&new("svc-e")), 403, "SERVICE_LIMIT_REACHED");
    refused(&token, "GET", "/v1/services/svc_none", None, 404, "NOT_FOUND");
    let keys = format!("/v1/services/{}/keys", services[0].id);
    api.owner("alice", "POST", &keys, Some(&json!({})));
    refused(&token, "POST", &keys, Some(&json!({})), 400, "KEY_LIMIT_REACHED");

    let claim = |service: &Service| api.submit(&Agent::new("alice"), service);
    let decide = |claim: &str, what: &str, status: u16, code: &str| {
        refused(&token, "POST", &format!("/v1/claims/{claim}/{what}"), Some(&json!({})), status, code)
    };
    let waiting = [claim(&services[0]), claim(&services[0]), claim(&services[0])];
    let (second, third) = (claim(&services[1]), claim(&services[2]));
    decide("cl_none", "approve", 404, "NOT_FOUND");
    decide(&waiting[0], "revoke", 404, "NOT_FOUND");
    for approved in &waiting[..2] {
        api.decide("alice", approved, "approve");
    }
    decide(&waiting[0], "approve", 404, "NOT_FOUND");
    let details = decide(&waiting[2], "approve", 409, "AGENT_LIMIT_REACHED");
    assert_eq!((&details["agent_limit"], &details["current"]), (&json!(2), &json!(2)));
    api.decide("alice", &second, "approve");
    let details = decide(&third, "approve", 403, "SERVICE_LIMIT_REACHED");
    assert_eq!((&details["service_limit"], &details["services_connected"]), (&json!(2), &json!(2)));
    api.decide("alice", &third, "reject");
    decide(&third, "approve", 404, "NOT_FOUND");
    refused(&api.token("bob"), "POST", &format!("/v1/claims/{second}/revoke"), Some(&json!({})), 403, "FORBIDDEN");
    refused(&token, "GET", "/v1/nothing-here", None, 401, "SIGNATURE_MISSING");
    refused(&token, "POST", "/v1/test/seed", Some(&json!({})), 404, "NOT_FOUND");
}

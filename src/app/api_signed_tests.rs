//! Signed requests: every row of the signature table by code, replays, authorities, floods.

use super::*;

type Headers = Vec<(String, String)>;

fn replaced(headers: &Headers, name: &str, value: &str) -> Headers {
    let mut headers = headers.clone();
    let found = headers.iter_mut().find(|(held, _)| held == name).unwrap();
    value.clone_into(&mut found.1);
    headers
}

fn value<'a>(headers: &'a Headers, name: &str) -> &'a str {
    &headers.iter().find(|(held, _)| held == name).unwrap().1
}

#[tokio::test]
async fn every_row_of_the_signature_table_by_code() {
    let server = Server::start().await;
    server.owner("alice").await;
    let (alice, mallory) = (Agent::new("alice"), Agent::new("mallory"));
    let target = format!("/v1/verify?namespace=alice&public_key={}&service=mail", alice.public_key());
    let target = target.replace('+', "%2B");
    let url = server.url(&target);
    let good = || alice.sign(&Draft::new("GET", &url));
    let now = SystemClock.now().seconds().0;
    let expect = async |headers: Headers, code: &str, status: u16| {
        let reply = server.send("GET", &target, &headers, b"").await;
        assert_eq!(reply.code(), (status, code.to_owned()), "{reply:?}");
    };
    assert_eq!(server.send("GET", &target, &good(), b"").await.status, 200);
    // 1: all six headers.
    for name in good().iter().map(|(name, _)| name.clone()) {
        let without: Headers = good().into_iter().filter(|(held, _)| *held != name).collect();
        expect(without, "SIGNATURE_MISSING", 401).await;
    }
    // 2: input, algorithm, signature header.
    for bad in ["sig1=()", "sig2=(\"@method\")", "", "sig1=(\"@method\");created=1;keyid=\"k\";alg=\"ed25519\""] {
        let code = if bad.is_empty() { "SIGNATURE_MISSING" } else { "SIGNATURE_INVALID" };
        expect(replaced(&good(), "signature-input", bad), code, 401).await;
    }
    let other_alg = value(&good(), "signature-input").replace("ed25519\";nonce", "rsa\";nonce");
    expect(replaced(&good(), "signature-input", &other_alg), "SIGNATURE_INVALID", 401).await;
    for bad in ["sig1=:AAAA:", "sig1=:!!!!:", "nonsense"] {
        expect(replaced(&good(), "signature", bad), "SIGNATURE_INVALID", 401).await;
    }
    // 3: age, both ways; before the certificate.
    for created in [now - 302, now + 30, 1] {
        let old = alice.sign(&Draft { created, ..Draft::new("GET", &url) });
        expect(replaced(&old, "sigilum-agent-cert", "nonsense"), "SIGNATURE_EXPIRED", 401).await;
    }
    // 4: certificate, key header, namespace header; nothing malformed is a 500.
    let cut = value(&good(), "sigilum-agent-cert")[..100].to_owned();
    let short_key = format!("ed25519:{}", STANDARD.encode([7; 31]));
    let json = |text: &str| URL_SAFE_NO_PAD.encode(text);
    for bad in ["nonsense", "!!!", &cut, &json("{}"), &json("{\"version\":1,\"proof\":null}"), &json("[]")] {
        expect(replaced(&good(), "sigilum-agent-cert", bad), "SIGNATURE_INVALID", 401).await;
    }
    for bad in [mallory.public_key().as_str(), "ed25519:", &short_key, "rsa:AAAA"] {
        expect(replaced(&good(), "sigilum-agent-key", bad), "SIGNATURE_INVALID", 401).await;
    }
    expect(replaced(&good(), "sigilum-namespace", "bob"), "SIGNATURE_INVALID", 401).await;
    // 5: who was expected.
    expect(mallory.sign(&Draft::new("GET", &url)), "SIGNATURE_NAMESPACE_MISMATCH", 403).await;
    // 7: key id.
    let keyid = value(&good(), "signature-input").replace("#ed25519-", "#ed25519-0");
    expect(replaced(&good(), "signature-input", &keyid), "SIGNATURE_INVALID", 401).await;
    // 8: components; C is the gateway's, not this API's.
    let draft = Draft { agent_id: Some("bot".to_owned()), ..Draft::new("GET", &url) };
    expect(alice.sign(&draft), "SIGNATURE_COMPONENTS_INVALID", 401).await;
    let draft = Draft::new("GET", &url).body("x");
    expect(alice.sign(&draft), "SIGNATURE_COMPONENTS_INVALID", 401).await;
    // 10: the signature itself.
    for other in ["http://127.0.0.1:1/v1/verify".to_owned(), url.replace("mail", "maix"), url.replace("http", "https")]
    {
        expect(alice.sign(&Draft::new("GET", &other)), "SIGNATURE_INVALID", 401).await;
    }
    expect(alice.sign(&Draft::new("POST", &url)), "SIGNATURE_INVALID", 401).await;
    // 11: the nonce, once.
    let once = good();
    assert_eq!(server.send("GET", &target, &once, b"").await.status, 200);
    expect(once, "SIGNATURE_NONCE_REPLAY", 409).await;
    server.end().await;
}

#[tokio::test]
async fn a_body_is_what_was_signed_and_the_key_the_one_it_names() {
    let server = Server::start().await;
    server.owner("alice").await;
    let service = server.service("alice", "mail").await;
    let (alice, second) = (Agent::new("alice"), Agent::new("alice"));
    let url = server.url("/v1/claims");
    let body = alice.submission("mail");
    let mut headers = alice.sign(&Draft::new("POST", &url).body(&body));
    headers.push(service.bearer());
    let other = body.replace("customer-1", "customer-2");
    let reply = server.send("POST", "/v1/claims", &headers, other.as_bytes()).await;
    assert_eq!(reply.code(), (401, "SIGNATURE_DIGEST_MISMATCH".to_owned()));
    let empty = server.send("POST", "/v1/claims", &headers, b"").await;
    assert_eq!(empty.code().0, 401);
    // A second key of the namespace may register the first only where it says so.
    let mut headers = second.sign(&Draft::new("POST", &url).body(&body));
    headers.push(service.bearer());
    let reply = server.send("POST", "/v1/claims", &headers, body.as_bytes()).await;
    assert_eq!(reply.code(), (403, "SIGNATURE_KEY_MISMATCH".to_owned()));
    headers.push(("X-Sigilum-Claim-Binding".to_owned(), " Namespace-Only ".to_owned()));
    assert_eq!(server.send("POST", "/v1/claims", &headers, body.as_bytes()).await.status, 201);
    // And never one of another namespace.
    let mallory = Agent::new("mallory");
    let mut headers = mallory.sign(&Draft::new("POST", &url).body(&body));
    headers.extend([service.bearer(), ("x-sigilum-claim-binding".to_owned(), "namespace-only".to_owned())]);
    let reply = server.send("POST", "/v1/claims", &headers, body.as_bytes()).await;
    assert_eq!(reply.code(), (403, "SIGNATURE_NAMESPACE_MISMATCH".to_owned()));
    server.end().await;
}

#[tokio::test]
async fn a_nonce_is_remembered_across_a_restart_and_counts_per_key() {
    let server = Server::start_with(|config| config.public_urls = vec!["http://api.test".to_owned()]).await;
    let (alice, twin) = (Agent::new("alice"), Agent::new("alice"));
    let draft = Draft { nonce: "the-same".to_owned(), ..Draft::new("GET", "http://api.test/v1/nothing") };
    let with_host = |agent: &Agent| {
        let mut headers = agent.sign(&draft);
        headers.push(("host".to_owned(), "api.test".to_owned()));
        headers
    };
    let send = async |server: &Server, agent: &Agent| server.send("GET", "/v1/nothing", &with_host(agent), b"").await;
    assert_eq!(send(&server, &alice).await.status, 404);
    assert_eq!(send(&server, &alice).await.status, 409);
    assert_eq!(send(&server, &twin).await.status, 404, "another key's nonce is another nonce");
    let folder = server.end().await;
    let server = Server::start_in(folder, |config| config.public_urls = vec!["http://api.test".to_owned()]).await;
    assert_eq!(send(&server, &alice).await.code(), (409, "SIGNATURE_NONCE_REPLAY".to_owned()));
    server.end().await;
}

#[tokio::test]
async fn what_was_signed_for_another_host_does_not_count_here() {
    let public = vec!["https://api.example.com".to_owned()];
    let server = Server::start_with(|config| config.public_urls = public).await;
    let alice = Agent::new("alice");
    let host = |host: &str| ("host".to_owned(), host.to_owned());
    for other in ["evil.example", "127.0.0.1.evil.example", "a@127.0.0.1", "127.0.0.1,evil", "", "api.example.com:x"] {
        let mut headers = alice.sign(&Draft::new("GET", &format!("http://{other}/v1/nothing")));
        headers.push(host(other));
        let reply = server.send("GET", "/v1/nothing", &headers, b"").await;
        assert_eq!(reply.code(), (403, "AUTHORITY_NOT_ACCEPTED".to_owned()), "{other}");
    }
    // Behind a public address the scheme is that address's.
    for (signed, status) in [("https", 404), ("http", 401)] {
        let mut headers = alice.sign(&Draft::new("GET", &format!("{signed}://api.example.com/v1/nothing")));
        headers.push(host("api.example.com"));
        assert_eq!(server.send("GET", "/v1/nothing", &headers, b"").await.status, status, "{signed}");
    }
    // Two hosts, or a target that names another, are none.
    let two =
        format!("GET /v1/nothing HTTP/1.1\r\nhost: {0}\r\nhost: {0}\r\nconnection: close\r\n\r\n", server.address);
    assert_eq!(server.raw(two.as_bytes()).await.status, 403);
    let absolute =
        format!("GET http://evil.example/v1/nothing HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", server.address);
    assert_eq!(server.raw(absolute.as_bytes()).await.status, 403);
    server.end().await;
}

#[tokio::test]
async fn a_flood_of_strangers_is_slowed_down_and_holders_of_a_key_are_served() {
    let server = Server::start().await;
    server.owner("alice").await;
    let service = server.service("alice", "mail").await;
    let stranger = Agent::new("nobody");
    let headers = replaced(&stranger.sign(&Draft::new("GET", &server.url("/v1/x"))), "signature", "sig1=:AAAA:");
    let mut refused = None;
    for _ in 0..1000 {
        let reply = server.send("GET", "/v1/x", &headers, b"").await;
        if reply.status == 429 {
            refused = Some(reply);
            break;
        }
        assert_eq!(reply.status, 401);
    }
    let refused = refused.unwrap();
    assert_eq!(refused.code().1, "RATE_LIMITED");
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Unsigned requests cost nothing and are told so.
    assert_eq!(server.send("GET", "/v1/x", &[], b"").await.code().1, "SIGNATURE_MISSING");
    // A gateway is served while the stranger goes on, although both have the address of this machine.
    let agent = Agent::new("alice");
    for _ in 0..20 {
        while server.send("GET", "/v1/x", &headers, b"").await.status != 429 {}
        let reply = server.get("/v1/namespaces/claims?service=mail", &agent, Some(&service)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    // What fails under the key is bounded too, and hurts no other key's requests.
    let other = server.service("alice", "docs").await;
    let mut keyed = headers.clone();
    keyed.push(service.bearer());
    let mut refused = false;
    for _ in 0..1000 {
        refused = server.send("GET", "/v1/x", &keyed, b"").await.status == 429;
        if refused {
            break;
        }
    }
    assert!(refused);
    assert_eq!(server.get("/v1/namespaces/claims?service=docs", &agent, Some(&other)).await.status, 200);
    until("the budget has come back", async || {
        server.get("/v1/namespaces/claims?service=mail", &agent, Some(&service)).await.status == 200
    })
    .await;
    server.end().await;
}

mod anything {
    use proptest::prelude::*;

    use super::*;

    /// Header values, targets and bodies of every kind: words of the profile cut and mixed, and bytes.
    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ -~]{0,60}",
            Just("sig1=(\"@method\");created=1;keyid=\"k\";alg=\"ed25519\";nonce=\"n\"".to_owned()),
            Just(format!("sig1=:{}:", STANDARD.encode([1; 64]))),
            Just(format!("ed25519:{}", STANDARD.encode([1; 32]))),
            Just(URL_SAFE_NO_PAD.encode("{\"version\":1}")),
            Just("Bearer sk_live_".to_owned()),
            "[{}\\[\\]\":,a-z0-9 ]{0,80}",
        ]
    }

    fn target() -> impl Strategy<Value = String> {
        let path = prop::sample::select(vec![
            "/v1/claims",
            "/v1/verify",
            "/v1/namespaces/claims",
            "/v1/namespaces/claims/changes",
            "/v1/usage/events",
            "/v1/usage/events/batch",
            "/v1/namespaces/alice",
            "/v1/%ff",
            "/",
            "//",
            "/health",
        ]);
        (path, prop::option::of("[!-~&&[^#]]{0,60}")).prop_map(|(path, query)| match query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        /// The signature is right or not, the rest is anything: never a 500, always an envelope.
        #[test]
        fn no_input_is_a_500(
            method in prop::sample::select(vec!["GET", "POST", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS"]),
            target in target(),
            odd in prop::collection::vec((0_usize..9, piece()), 0..5),
            body in prop_oneof![piece(), "[{\"a-z_:,0-9}]{0,200}"],
            keyed: bool,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = Server::start().await;
                server.owner("alice").await;
                let service = server.service("alice", "mail").await;
                let body = if matches!(method, "GET" | "HEAD") { String::new() } else { body };
                let agent = Agent::new("alice");
                let mut headers = agent.sign(&Draft::new(method, &server.url(&target)).body(&body));
                let names = ["signature", "signature-input", "sigilum-namespace", "sigilum-subject", "sigilum-agent-key",
                    "sigilum-agent-cert", "content-digest", "authorization", "x-request-id"];
                for (at, value) in odd {
                    headers.retain(|(name, _)| name != names[at]);
                    headers.push((names[at].to_owned(), value));
                }
                if keyed && !headers.iter().any(|(name, _)| name == "authorization") {
                    headers.push(service.bearer());
                }
                let reply = server.send(method, &target, &headers, body.as_bytes()).await;
                assert!(reply.status < 500, "{reply:?}");
                if reply.status >= 400 && method != "HEAD" && reply.status != 400 {
                    assert!(reply.json()["error"].is_string(), "{reply:?}");
                }
                server.end().await;
            });
        }
    }
}

//! Credentials are planted, used in every way, and then looked for everywhere.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::support::agent::Agent;
use crate::support::agent::random_hex;
use crate::support::api::Api;
use crate::support::client::Request;
use crate::support::client::Response;
use crate::support::client::send;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Setup;
use crate::support::plane;
use crate::support::plane::OWN;
use crate::support::plane::SERVICE;
use crate::support::process;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// Everything one can look into, by name.
pub type Artefacts = BTreeMap<String, Vec<u8>>;

/// All files below `folder`, whatever they are.
fn files(folder: &Path, found: &mut Artefacts) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files(&path, found);
        } else if kind.is_file() {
            found.insert(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
}

/// One GET on Envoy's admin socket.
fn envoy_admin(gateway: &Gateway, target: &str) -> Vec<u8> {
    let mut stream = UnixStream::connect(gateway.setup.run_dir().join("envoy-admin.sock")).unwrap();
    stream.write_all(format!("GET {target} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{target}: {}", String::from_utf8_lossy(&answer));
    answer
}

/// Gathers what the gateway has written, prints and shows.
fn gather(gateway: &Gateway) -> Artefacts {
    let mut found = Artefacts::new();
    files(gateway.setup.root.path(), &mut found);
    found.insert("output of the supervisor".into(), gateway.said().into_bytes());
    for target in ["/config_dump?include_eds", "/stats", "/stats/prometheus", "/clusters", "/server_info", "/certs"] {
        found.insert(format!("Envoy's {target}"), envoy_admin(gateway, target));
    }
    let metrics = Request::new("GET", &gateway.setup.admin.to_string(), "/metrics")
        .header("authorization", &format!("Bearer {}", gateway.token()));
    let metrics = send(gateway.setup.admin, &metrics);
    assert_eq!(metrics.status, 200, "{}", metrics.text());
    found.insert("/metrics".into(), metrics.body);
    let described = send(gateway.setup.admin, &Request::new("GET", &gateway.setup.admin.to_string(), "/openapi.json"));
    assert_eq!(described.status, 200, "{}", described.text());
    found.insert("/openapi.json".into(), described.body);
    let mut processes = process::children(gateway.pid()).into_iter().map(|child| child.pid).collect::<Vec<_>>();
    assert!(processes.len() >= 3, "{processes:?}");
    processes.push(gateway.pid());
    for pid in processes {
        found.insert(format!("arguments of {pid}"), process::arguments(pid).into_bytes());
        found.insert(format!("environment of {pid}"), process::environment(pid));
    }
    found
}

/// Commands and environments of everything that runs on this machine, as far as it shows them.
fn machine(found: &mut Artefacts) {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        for part in ["cmdline", "environ"] {
            if let Ok(shown) = fs::read(entry.path().join(part)) {
                found.insert(entry.path().join(part).display().to_string(), shown);
            }
        }
    }
}

/// What commands print about connections, and what `connection import` makes of a key in a file.
fn commands(gateway: &Gateway, id: &str, found: &mut Artefacts) -> String {
    let key = format!("sk-proj-canary-{}", random_hex(12));
    let file = gateway.setup.root.path().join("app.env");
    fs::write(&file, format!("PORT=1\nOPENAI_API_KEY=\"{key}\"\n")).unwrap();
    let name = file.to_str().unwrap();
    for arguments in [
        &["list"][..],
        &["list", "--json"],
        &["show", id],
        &["show", id, "--json"],
        &["set", id, "name=Renamed"],
        &["add", id, "--base-url", "https://api.example.com", "--secret-file", name],
        &["import", name, "--dry-run"],
        &["import", name, "--yes"],
        &["import", name, "--yes", "--remove", "--json"],
        &["rotate", id, &key],
        &["set", id, &format!("secret={key}")],
    ] {
        let output = gateway.setup.command(&[&["connection"], arguments].concat()).output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        assert!(!printed.is_empty(), "{arguments:?}");
        found.insert(format!("output of connection {} {}", arguments[0], found.len()), printed);
    }
    key
}

/// The forms in which a text could turn up.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    vec![
        secret.as_bytes().to_vec(),
        hex.into_bytes(),
        STANDARD.encode(secret).trim_end_matches('=').as_bytes().to_vec(),
        URL_SAFE_NO_PAD.encode(secret).into_bytes(),
    ]
}

/// Where one of `forms` of a secret stands.
pub fn search(artefacts: &Artefacts, secret: &str) -> Vec<String> {
    let forms = forms(secret);
    let holds = |body: &[u8]| forms.iter().any(|form| body.windows(form.len()).any(|window| window == form.as_slice()));
    artefacts.iter().filter(|(_, body)| holds(body)).map(|(name, _)| name.clone()).collect()
}

/// Waits until the access log holds a request for `path`; it is written in steps of a second.
fn wait_for_log(gateway: &Gateway, path: &str) -> serde_json::Value {
    let log = gateway.setup.run_dir().join("access.log");
    let mut found = None;
    wait_until("the access log is written", LIMIT, || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        found = lines.find(|line| line["path"] == path);
        found.is_some()
    });
    found.unwrap()
}

/// Remembers what a refusal said.
fn note(artefacts: &mut Artefacts, response: &Response) {
    let name = format!("answer {} {} #{}", response.status, response.code(), artefacts.len());
    artefacts.insert(name, format!("{:?}\n{}", response.headers, response.text()).into_bytes());
}

/// A credential variable set, used, given another value, refused and deleted; its values come back.
fn variable(gateway: &Gateway, upstream: &Upstream, answers: &mut Artefacts) -> Vec<String> {
    let values: Vec<_> = (0..3).map(|_| format!("canary-{}", random_hex(12))).collect();
    let set =
        |value: &str| gateway.admin("POST", "/credential-variables", Some(&json!({ "key": "CANARY", "value": value })));
    note(answers, &set(&values[0]));
    let id = gateway.next_id();
    assert_eq!(gateway.create(&id, &upstream.base_url(), "{{CANARY}}", json!({})).status, 201);
    gateway.wait_in_force(&id);
    note(answers, &gateway.get(&format!("/proxy/{id}/v1")));
    assert!(format!("{:?}", upstream.seen().pop()).contains(&values[0]));
    note(answers, &set(&values[1]));
    // One that no header can carry is refused.
    let refused = set(&format!("{}\u{7f}", values[2]));
    assert_eq!(refused.status, 400, "{}", refused.text());
    note(answers, &refused);
    for path in ["/credential-variables", "/audit", &format!("/connections/{id}/agents")] {
        note(answers, &gateway.admin("GET", path, None));
    }
    note(answers, &gateway.admin("DELETE", "/credential-variables/CANARY", None));
    note(answers, &gateway.admin("DELETE", "/credential-variables/CANARY?force=true", None));
    note(answers, &gateway.admin("GET", &format!("/connections/{id}"), None));
    values
}

#[test]
fn a_credential_is_found_nowhere() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let mut answers = Artefacts::new();
    let mut secrets = Vec::new();
    for fields in [
        json!({}),
        json!({ "auth_mode": "header_key", "auth_header_name": "x-key" }),
        json!({ "auth_mode": "query_param", "auth_header_name": "key" }),
    ] {
        let connection = gateway.connect(&upstream, fields);
        // Used, refused, replayed, rotated, read back.
        let request = gateway.agent().post(&gateway.authority(), &connection.at("/v1?page=2"), b"{}");
        let allowed = gateway.send(&request);
        assert_eq!(allowed.status, 200);
        note(&mut answers, &allowed);
        note(&mut answers, &gateway.send(&request));
        note(&mut answers, &gateway.get(&connection.at("/redirect")));
        note(&mut answers, &gateway.send(&Request::new("GET", &gateway.authority(), &connection.at("/v1"))));
        note(&mut answers, &gateway.send(&Agent::new("bob").get(&gateway.authority(), &connection.at("/v1"))));
        note(&mut answers, &gateway.get(&connection.at("/../v1")));
        let path = format!("/connections/{}", connection.id);
        // Tested, so that the provider sees the credential and its answer is kept.
        let tested = gateway.admin("POST", &format!("{path}/test"), Some(&json!({ "test_path": "/v1?page=3" })));
        assert_eq!((tested.status, tested.json()["status"].as_str()), (200, Some("pass")), "{}", tested.text());
        assert!(format!("{:?}", upstream.seen().pop()).contains(&connection.secret));
        note(&mut answers, &tested);
        note(&mut answers, &gateway.admin("GET", &path, None));
        let rotated = format!("rotated-{}", random_hex(12));
        let rotation = json!({ "secrets": { "api_key": rotated } });
        note(&mut answers, &gateway.admin("POST", &format!("{path}/rotate"), Some(&rotation)));
        wait_until("the rotated credential is used", LIMIT, || {
            assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
            let seen = upstream.seen().pop().unwrap();
            format!("{seen:?}").contains(&rotated)
        });
        secrets.extend([connection.secret, rotated]);
    }
    note(&mut answers, &gateway.admin("GET", "/connections", None));
    let listed = gateway.admin("GET", "/connections", None).json();
    secrets.push(commands(&gateway, listed["connections"][0]["id"].as_str().unwrap(), &mut answers));
    // A provider that cannot be reached, and a secret that is refused.
    let unreachable = gateway.next_id();
    let secret = format!("canary-{}", random_hex(12));
    assert_eq!(
        gateway.create(&unreachable, "http://127.0.0.1:9", &secret, json!({ "auth_mode": "query_param" })).status,
        201
    );
    gateway.wait_in_force(&unreachable);
    let failed = gateway.get(&format!("/proxy/{unreachable}/v1"));
    assert_eq!(failed.code(), "UPSTREAM_ERROR");
    note(&mut answers, &failed);
    let tested = gateway.admin("POST", &format!("/connections/{unreachable}/test"), None);
    assert_eq!((tested.status, &tested.json()["http_status"]), (502, &json!(0)), "{}", tested.text());
    note(&mut answers, &tested);
    secrets.push(secret);
    let refused = format!("canary\u{7f}-{}", random_hex(12));
    note(&mut answers, &gateway.create(&gateway.next_id(), "http://127.0.0.1:9", &refused, json!({})));
    secrets.push(refused);

    secrets.extend(variable(&gateway, &upstream, &mut answers));

    wait_for_log(&gateway, &format!("/proxy/{unreachable}/v1"));
    let mut artefacts = gather(&gateway);
    machine(&mut artefacts);
    artefacts.append(&mut answers);
    let audited = |name: &&String| name.ends_with("/audit.jsonl");
    assert_eq!(artefacts.keys().filter(audited).count(), 1, "the lines of the audit are among what is searched");
    for secret in &secrets {
        assert_eq!(search(&artefacts, secret), Vec::<String>::new(), "a credential was found");
    }
    // The search can find something: the id of a connection, which is no secret, is in many places.
    assert!(search(&artefacts, &unreachable).len() > 2);

    // The keys of the house: each only in its own file.
    let key = fs::read_to_string(gateway.setup.home().join("gateway-master-key")).unwrap();
    let found = search(&artefacts, key.trim());
    let admin = gateway.role("admin");
    let allowed = |name: &String| name.ends_with("/gateway-master-key") || *name == format!("environment of {admin}");
    assert!(found.iter().all(allowed), "the master key was found in {found:?}");
    let found = search(&artefacts, &gateway.token());
    assert!(found.iter().all(|name| name.ends_with("/admin-token")), "the admin token was found in {found:?}");
}

#[test]
fn the_token_of_the_metrics_opens_nothing_else_and_is_nowhere_but_where_it_was_given() {
    let token = format!("canary-{}", random_hex(16));
    let gateway = Setup::new().env("GATEWAY_METRICS_TOKEN", &token).env("SIGILUM_LOG", "debug").start();
    let admin = gateway.setup.admin;
    let ask = |path: &str| {
        let request = Request::new("GET", &admin.to_string(), path);
        send(admin, &request.header("authorization", &format!("Bearer {token}")))
    };
    let mut answers = Artefacts::new();
    let metrics = ask("/metrics");
    assert!(metrics.status == 200 && metrics.text().contains("sigilum_gateway_"), "{}", metrics.text());
    note(&mut answers, &metrics);
    for path in ["/api/admin/connections", "/api/admin/audit", "/api/v1/status"] {
        let refused = ask(path);
        assert_eq!((refused.status, refused.code().as_str()), (403, "ADMIN_TOKEN_REQUIRED"), "{path}");
        note(&mut answers, &refused);
    }
    assert!(!ask("/health/ready").text().contains("conditions"));
    let mut artefacts = gather(&gateway);
    artefacts.append(&mut answers);
    for arguments in [&["gateway", "config", "show"][..], &["gateway", "status", "--json"], &["doctor", "--json"]] {
        let said = gateway.setup.command(arguments).output().unwrap();
        artefacts.insert(arguments.join(" "), [said.stdout, said.stderr].concat());
    }
    let given = format!("environment of {}", gateway.pid());
    let found = search(&artefacts, &token);
    assert!(found.iter().all(|name| *name == given), "{found:?}");
}

#[test]
fn a_query_credential_is_in_no_log_and_no_dump() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({ "auth_mode": "query_param", "auth_header_name": "key" }));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = gateway.agent().get(&gateway.authority(), &connection.at("/v1?page=2")).header("traceparent", trace);
    assert_eq!(gateway.send(&request).status, 200);
    assert_eq!(upstream.only().target, format!("/v1?page=2&key={}", connection.secret));
    let line = wait_for_log(&gateway, &connection.at("/v1"));
    let artefacts = gather(&gateway);
    assert_eq!(search(&artefacts, &connection.secret), Vec::<String>::new());
    assert_eq!(line["path"], connection.at("/v1"));
    assert_eq!(line["connection"], connection.id.as_str());
}

#[test]
fn the_access_log_names_who_called() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let agent = gateway.agent();
    let draft = agent.prepare("GET", &gateway.authority(), &connection.at("/named"));
    assert_eq!(gateway.send(&draft.with(|draft| draft.agent_id = Some("agent-7".into())).sign()).status, 200);
    assert_eq!(gateway.get(&connection.at("/unnamed")).status, 200);
    let line = wait_for_log(&gateway, &connection.at("/named"));
    assert_eq!((&line["public_key"], &line["agent_id"]), (&json!(agent.public_key), &json!("agent-7")));
    assert_eq!((&line["namespace"], &line["subject"]), (&json!(agent.namespace), &json!(agent.namespace)));
    assert_eq!((&line["method"], &line["client_address"]), (&json!("GET"), &json!("127.0.0.1")));
    // What was not signed is not there at all, nor a dash or an empty text for it.
    let line = wait_for_log(&gateway, &connection.at("/unnamed"));
    assert_eq!((&line["public_key"], line.get("agent_id")), (&json!(agent.public_key), None));
}

#[test]
fn the_keys_and_tokens_of_the_control_plane_are_found_nowhere_else() {
    let seed = format!("seed-{}", random_hex(16));
    let api = Api::start_with(&[("ENABLE_TEST_SEED_ENDPOINT", "true"), ("SIGILUM_TEST_SEED_TOKEN", &seed)]);
    let upstream = Upstream::start();
    let (in_file, in_variable) = (api.service(OWN, SERVICE), api.service(OWN, "conn-001"));
    let setup = plane::pace(plane::setup(&api.url(), &in_file), 1, 60).env("SIGILUM_LOG", "debug");
    let gateway = setup.env("SIGILUM_SERVICE_API_KEY_CONN_001", &in_variable.key).start();
    for _ in 0..2 {
        gateway.connect(&upstream, json!({}));
    }
    let (secret, token) = (api.jwt_secret(), api.token(OWN));
    let mut answers = Artefacts::new();

    // Used for everything they are for: approvals, registrations, usage; and refused, and in an outage.
    let agent = Agent::new(OWN);
    for service in [&in_file, &in_variable] {
        plane::until_read(&gateway, &service.slug);
        let request = || agent.get(&gateway.authority(), &format!("/proxy/{}/v1", service.slug));
        let refused = gateway.send(&request());
        assert_eq!(refused.code(), "AUTH_CLAIM_REQUIRED");
        note(&mut answers, &refused);
        let mut claim = None;
        wait_until("the agent is registered", LIMIT, || {
            claim = api.claims(OWN).into_iter().find(|claim| claim["service"] == service.slug.as_str());
            claim.is_some()
        });
        api.decide(OWN, claim.unwrap()["claim_id"].as_str().unwrap(), "approve");
        wait_until("the agent is served", LIMIT, || gateway.send(&request()).status == 200);
        let wrong = format!("{}0", service.key);
        let feed = format!("/v1/namespaces/claims?limit=10&offset=0&service={}", service.slug);
        for (key, target) in
            [(wrong.as_str(), feed.as_str()), (&service.key, "/v1/namespaces/claims?service=other-one")]
        {
            let refused = api.signed(&agent, Some(key), "GET", target, b"");
            assert!(matches!(refused.status, 401 | 403), "{}", refused.text());
            note(&mut answers, &refused);
        }
    }
    for (bearer, target) in [
        (format!("{token}x"), "/v1/services".to_owned()),
        (token.clone(), "/v1/namespaces/other/claims".to_owned()),
        (in_file.key.clone(), "/v1/auth/me".to_owned()),
    ] {
        let refused = api.ask(&bearer, "GET", &target, None);
        assert!(matches!(refused.status, 401 | 403), "{}", refused.text());
        note(&mut answers, &refused);
    }
    for (presented, status) in [(seed.clone(), 400), (format!("{seed}0"), 401)] {
        let request = Request::new("POST", &api.address.to_string(), "/v1/test/seed");
        let request = request.header("x-sigilum-test-seed-token", &presented);
        let body = crate::support::client::Body::Sized(br#"{"upserts":[{}]}"#.to_vec());
        let refused = send(api.address, &request.header("content-type", "application/json").with_body(body));
        assert_eq!(refused.status, status, "{}", refused.text());
        note(&mut answers, &refused);
    }
    let mut listing = api.command(&["claim", "list", "--namespace", "other", "--api-url", &api.url()]);
    let listed = listing.env("SIGILUM_OWNER_TOKEN", &token).output().unwrap();
    assert!(!listed.status.success());
    answers.insert("a command's output".into(), [listed.stdout, listed.stderr].concat());
    wait_until("usage is counted", LIMIT, || api.usage(OWN) >= 2);
    let (mut log, pid) = (api.said(), api.pid());
    let arguments = process::arguments(pid).into_bytes();
    let environment = process::environment(pid);
    api.kill();
    plane::until_fresh(&gateway, false);
    api.go();
    plane::until_fresh(&gateway, true);
    log.push_str(&api.said());

    let mut artefacts = gather(&gateway);
    artefacts.append(&mut answers);
    files(api.folder(), &mut artefacts);
    artefacts.insert("log of the API".into(), log.into_bytes());
    artefacts.insert("arguments of the API".into(), arguments);
    artefacts.insert("environment of the API".into(), environment);
    let only = |what: &str, secret: &str, places: &[&str]| {
        let found = search(&artefacts, secret);
        let elsewhere: Vec<_> = found.iter().filter(|name| !places.iter().any(|place| name.ends_with(place))).collect();
        assert_eq!(elsewhere, Vec::<&String>::new(), "{what} was found");
        assert_eq!(found.len(), places.len(), "{what} is not even where it belongs: {found:?}");
    };
    only("the service key of a file", &in_file.key, &["/service-api-key-conn-000"]);
    only("the service key of a variable", &in_variable.key, &[&format!("environment of {}", gateway.pid())]);
    only("the secret of the tokens", &secret, &["/data/jwt-secret"]);
    only("an owner token", &token, &[]);
    only("the seed token", &seed, &["environment of the API"]);
}

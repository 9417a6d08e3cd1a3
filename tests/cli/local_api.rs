//! The owner's commands against the real local API: its process, its database, its tokens.

use std::process::Child;

use sigilum::app::owner_api;
use sigilum::app::owner_api::Submission;
use sigilum::domain::ids::Namespace;
use sigilum::domain::secret::Secret;
use sigilum::domain::time::UnixSeconds;
use sigilum::identity::Home;

use super::*;

/// `sigilum api` of a person, on a port of its own.
struct LocalApi {
    child: Child,
    port: String,
}

impl LocalApi {
    fn start(person: &Person) -> Self {
        let mut command = person.command(&["api", "--port", "0"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim_end().rsplit_once(':').unwrap_or_else(|| panic!("{line:?}")).1.to_owned();
        Self { child, port }
    }
}

impl Drop for LocalApi {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_port_that_is_taken_is_said_with_the_way_out() {
    let person = Person::new();
    let api = LocalApi::start(&person);
    let folder = person.home().join("other").display().to_string();
    let output = person.run(&["api", "--port", &api.port, "--api-data-dir", &folder]);
    assert_eq!(output.status.code(), Some(78));
    let said = text_of(&output.stderr);
    assert!(said.contains(&format!("127.0.0.1:{}", api.port)) && said.contains("API_PORT"), "{said}");
}

#[test]
fn a_removed_service_is_gone_and_makes_room() {
    let person = Person::new();
    let api = LocalApi::start(&person);
    let run = |arguments: &[&str]| {
        let mut argv = vec!["--namespace", "acme", "--api-port", &api.port];
        argv.extend(arguments);
        person.run(&argv)
    };
    for number in 0..5 {
        let added = run(&["service", "add", "--service-slug", &format!("svc-{number}")]);
        assert_eq!(added.status.code(), Some(0), "{}", text_of(&added.stderr));
    }
    let full = run(&["service", "add", "--service-slug", "svc-5"]);
    assert_eq!(full.status.code(), Some(1));
    assert!(text_of(&full.stderr).contains("sigilum service rm"), "{}", text_of(&full.stderr));

    let unattended = run(&["service", "rm", "svc-3"]);
    assert_eq!(unattended.status.code(), Some(64), "{}", text_of(&unattended.stderr));
    for deleted in [true, false] {
        let removed = run(&["service", "rm", "svc-3", "--yes", "--json"]);
        assert_eq!(removed.status.code(), Some(0), "{}", text_of(&removed.stderr));
        let said: Value = serde_json::from_slice(&removed.stdout).unwrap();
        assert_eq!(said, serde_json::json!({ "deleted": deleted, "slug": "svc-3" }));
    }
    assert_eq!(run(&["service", "add", "--service-slug", "svc-5"]).status.code(), Some(0));
}

#[test]
fn a_login_makes_the_owner_known_to_the_api_of_this_machine() {
    let person = Person::new();
    let api = LocalApi::start(&person);
    let is_known = |namespace: &str| {
        use std::io::Read as _;
        let mut stream = std::net::TcpStream::connect(format!("127.0.0.1:{}", api.port)).unwrap();
        let asked = format!(
            "GET /1.0/identifiers/did:sigilum:{namespace} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: close\r\n\r\n",
            api.port
        );
        stream.write_all(asked.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().to_owned();
        assert!(matches!(status.as_str(), "200" | "404"), "{answer}");
        status == "200"
    };
    assert!(!is_known("dora"));
    let login = ["--namespace", "dora", "--api-port", &api.port, "auth", "login", "--mode", "oss-local"];
    let token = person.run(&[&login[..], &["--token-only"]].concat());
    assert_eq!(token.status.code(), Some(0), "{}", text_of(&token.stderr));
    assert!(text_of(&token.stderr).is_empty() && is_known("dora"), "{}", text_of(&token.stderr));
    // A token it does not take is stored all the same, and that is said.
    let mut other = person.command(&login);
    let other = other.env("JWT_SECRET", "f".repeat(32)).output().unwrap();
    assert_eq!(other.status.code(), Some(0), "{}", text_of(&other.stderr));
    assert!(text_of(&other.stderr).contains("does not take this token"), "{}", text_of(&other.stderr));
    // Where no API runs it is no error, and nobody else is asked.
    drop(api);
    for more in [&[][..], &["--api-url", "http://sigilum-api.invalid:8787"]] {
        let alone = person.run(&[&login[..], more].concat());
        assert_eq!(alone.status.code(), Some(0), "{}", text_of(&alone.stderr));
        assert!(text_of(&alone.stderr).is_empty(), "{}", text_of(&alone.stderr));
    }
}

#[test]
fn an_owner_registers_a_service_and_decides_who_uses_it() {
    let person = Person::new();
    let api = LocalApi::start(&person);
    let run = |namespace: &str, arguments: &[&str]| {
        let mut argv = vec!["--namespace", namespace, "--api-port", &api.port];
        argv.extend(arguments);
        person.run(&argv)
    };
    let done = |arguments: &[&str]| {
        let output = run("acme", arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text_of(&output.stderr));
        text_of(&output.stdout)
    };
    for _ in 0..2 {
        assert!(done(&["service", "add", "--service-slug", "my-svc"]).contains("svc_local_my-svc"));
    }
    let listed: Value = serde_json::from_str(&done(&["service", "list", "--json"])).unwrap();
    assert_eq!(listed["services"][0]["active_api_keys"], 1, "twice is once: {listed}");

    // Two keys are the most; a third one needs one of them gone.
    let with_key = |letter: &str| {
        let mut command = person.command(&["--namespace", "acme", "--api-port", &api.port, "service", "add"]);
        command.args(["--service-slug", "my-svc"]).env("SERVICE_API_KEY", format!("sk_live_{}", letter.repeat(48)));
        command.output().unwrap()
    };
    let first = person.read(".sigilum-workspace/service-api-key-my-svc");
    assert_eq!(with_key("a").status.code(), Some(0));
    assert!(person.read(".sigilum-workspace/service-api-key-my-svc").starts_with("sk_live_aaaa"));
    let full = with_key("b");
    assert_eq!(full.status.code(), Some(1));
    assert!(text_of(&full.stderr).contains("sigilum service key revoke"), "{}", text_of(&full.stderr));
    assert!(
        person.read(".sigilum-workspace/service-api-key-my-svc").starts_with("sk_live_aaaa"),
        "the valid one stays"
    );
    let keys: Value =
        serde_json::from_str(&done(&["service", "key", "list", "--service-slug", "my-svc", "--json"])).unwrap();
    let old =
        keys.as_array().unwrap().iter().find(|key| first.trim().ends_with(&key["key_prefix"].as_str().unwrap()[3..]));
    let old = old.unwrap()["id"].as_str().unwrap();
    assert_eq!(
        done(&["service", "key", "revoke", "--service-slug", "my-svc", old]),
        format!("[ok] Key {old} revoked.\n")
    );
    let again = run("acme", &["service", "key", "revoke", "--service-slug", "my-svc", old]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(with_key("b").status.code(), Some(0));

    // An agent of the namespace asks.
    done(&["identity", "init"]);
    let namespace = Namespace::parse("acme").unwrap();
    let agent =
        Home::new(person.home().join(".sigilum")).load(&namespace, UnixSeconds(1_800_000_000)).unwrap().identity;
    let key = Secret::new(person.read(".sigilum-workspace/service-api-key-my-svc").trim().to_owned());
    let base = format!("http://127.0.0.1:{}", api.port);
    let submission = Submission { service: "my-svc", agent_ip: "127.0.0.1", agent_id: Some("main"), agent_name: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let claim = runtime.block_on(owner_api::submit_claim(&base, &agent, &key, &submission)).unwrap();
    assert_eq!(claim.status, "pending");
    let wrong = Secret::new(format!("sk_live_{}", "9".repeat(48)));
    let refused = runtime.block_on(owner_api::submit_claim(&base, &agent, &wrong, &submission)).unwrap_err();
    assert_eq!(refused.status(), 401, "{refused}");

    let table = done(&["claim", "list"]);
    assert!(table.contains(&claim.claim_id) && table.contains(&agent.public_key().fingerprint()), "{table}");
    let fingerprint = agent.public_key().fingerprint();
    let by_key = ["--service", "my-svc", "--key", &fingerprint];
    let approved = done(&[&["claim", "approve"][..], &by_key, &["--expires-in", "1h"]].concat());
    assert!(approved.starts_with(&format!("[ok] Claim {} approved.\n", claim.claim_id)), "{approved}");
    let shown: Value = serde_json::from_str(&done(&["claim", "show", &claim.claim_id, "--json"])).unwrap();
    assert_eq!((shown["status"].as_str(), shown["agent_id"].as_str()), (Some("approved"), Some("main")));
    assert!(shown["expires_at"].is_string(), "{shown}");
    let stranger = run("other", &["claim", "revoke", &claim.claim_id]);
    assert_eq!(stranger.status.code(), Some(4), "{}", text_of(&stranger.stderr));

    done(&[&["claim", "revoke"][..], &by_key].concat());
    let revoked: Value = serde_json::from_str(&done(&["claim", "list", "--status", "revoked", "--json"])).unwrap();
    assert_eq!(revoked[0]["claim_id"].as_str(), Some(claim.claim_id.as_str()));
    for verb in ["approve", "reject", "revoke"] {
        let again = run("acme", &["claim", verb, &claim.claim_id]);
        assert_eq!(again.status.code(), Some(1), "{verb}");
        assert!(text_of(&again.stderr).contains("is revoked, not "), "{verb}: {}", text_of(&again.stderr));
    }

    // A token that was signed with another secret is no token here.
    done(&["auth", "login", "--mode", "oss-local"]);
    done(&["claim", "list"]);
    let mut other = person.command(&["auth", "login", "--mode", "oss-local", "--namespace", "acme"]);
    assert_eq!(other.env("JWT_SECRET", "f".repeat(32)).output().unwrap().status.code(), Some(0));
    let foreign = run("acme", &["claim", "list"]);
    assert_eq!(foreign.status.code(), Some(4));
    assert!(text_of(&foreign.stderr).contains("sigilum auth login"), "{}", text_of(&foreign.stderr));
}

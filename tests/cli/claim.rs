//! `claim list | show | approve | reject | revoke`.

use super::fake::Api;
use super::fake::token;
use super::*;

const KEY: &str = "ed25519:J07dj/co4diCmQYTTQGq4adhnMKYejHazCYUQ7eBh0k=";
const FINGERPRINT: &str = "99fb00dc16ee555a";
const OTHER: &str = "ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn claim(person: &Person, api: &Api, arguments: &[&str]) -> Output {
    let mut argv = vec!["claim"];
    argv.extend(arguments);
    argv.extend(["--api-url", &api.base]);
    person.command(&argv).env("SIGILUM_OWNER_TOKEN", token("acme")).output().unwrap()
}

fn done(person: &Person, api: &Api, arguments: &[&str]) -> String {
    let output = claim(person, api, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text_of(&output.stderr));
    text_of(&output.stdout)
}

#[test]
fn claims_are_listed_page_by_page_in_columns() {
    let (person, api) = (Person::new(), Api::start());
    assert_eq!(done(&person, &api, &["list"]), "No claims for namespace \"acme\".\n");
    for (at, status) in ["pending", "approved", "pending", "revoked", "pending"].iter().enumerate() {
        api.claim(&format!("cl_{at}"), "my-svc", KEY, status);
    }
    api.rows.lock().unwrap().claims[4]["agent_name"] = "evil\u{1b}[2J\u{202e}".into();
    let table = done(&person, &api, &["list"]);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 6, "{table}");
    assert!(lines[0].starts_with("CLAIM  STATUS    SERVICE  AGENT"), "{table}");
    assert!(lines[1].starts_with("cl_0   pending   my-svc   my agent"), "{table}");
    assert!(lines[1].contains(FINGERPRINT) && lines[1].ends_with("d  -"), "{table}");
    assert!(!table.contains('\u{1b}') && !table.contains('\u{202e}'), "{table:?}");
    let listed: Value = serde_json::from_str(&done(&person, &api, &["list", "--json", "--status", "pending"])).unwrap();
    let ids: Vec<_> = listed.as_array().unwrap().iter().map(|claim| claim["claim_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["cl_0", "cl_2", "cl_4"]);
    let some = claim(&person, &api, &["list", "--limit", "3"]);
    assert_eq!(text_of(&some.stdout).lines().count(), 4);
    assert!(text_of(&some.stderr).contains("more than 3"), "{}", text_of(&some.stderr));
    assert_eq!(claim(&person, &api, &["list", "--status", "odd"]).status.code(), Some(64));
}

#[test]
fn claims_are_decided_by_id_and_by_key() {
    let (person, api) = (Person::new(), Api::start());
    api.claim("cl_a", "my-svc", KEY, "pending");
    api.claim("cl_b", "my-svc", OTHER, "pending");
    api.claim("cl_old", "my-svc", KEY, "rejected");
    let approved =
        done(&person, &api, &["approve", "--service", "my-svc", "--key", FINGERPRINT, "--expires-in", "24h"]);
    assert!(approved.starts_with("[ok] Claim cl_a approved.\n") && approved.contains(KEY), "{approved}");
    assert!(approved.contains("expires:       2099-01-01"), "{approved}");
    let asked = api.rows.lock().unwrap().asked.last().unwrap().clone();
    assert_eq!(
        (asked.line.as_str(), &asked.body["expires_in_seconds"]),
        ("POST /v1/claims/cl_a/approve", &86_400.into())
    );
    let rejected: Value = serde_json::from_str(&done(&person, &api, &["reject", "cl_b", "--json"])).unwrap();
    assert_eq!(rejected["status"], "rejected");
    assert!(done(&person, &api, &["show", "cl_b"]).contains("status:        rejected\n"));
    // Of the two with this key only one is approved.
    assert!(done(&person, &api, &["revoke", "--key", KEY]).starts_with("[ok] Claim cl_a revoked."));

    let again = claim(&person, &api, &["revoke", "cl_a"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text_of(&again.stderr).contains("cl_a is revoked, not approved"), "{}", text_of(&again.stderr));
    let many = claim(&person, &api, &["show", "--service", "my-svc"]);
    assert_eq!(many.status.code(), Some(1));
    assert!(text_of(&many.stderr).contains("3 claims of acme for the service my-svc"), "{}", text_of(&many.stderr));
    assert!(text_of(&many.stderr).contains("cl_a, cl_b, cl_old"), "{}", text_of(&many.stderr));
    for (arguments, code) in [
        (&["approve", "cl_nothing"][..], 1),
        (&["approve", "--service", "nothing"], 1),
        (&["approve"], 64),
        (&["approve", "cl_a", "--key", KEY], 64),
        (&["approve", "cl_a", "--expires-in", "1d", "--expires-at", "2099-01-01T00:00:00Z"], 64),
        (&["approve", "cl_a", "--expires-in", "soon"], 1),
        (&["approve", "cl_a", "--expires-at", "2020-01-01T00:00:00Z"], 1),
    ] {
        assert_eq!(claim(&person, &api, arguments).status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn an_end_the_api_does_not_know_is_no_quiet_success() {
    let (person, api) = (Person::new(), Api::start());
    api.claim("cl_h", "hosted-svc", KEY, "pending");
    let output = claim(&person, &api, &["approve", "cl_h", "--expires-in", "1h"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text_of(&output.stderr).contains("sigilum claim revoke cl_h"), "{}", text_of(&output.stderr));
}

#[test]
fn what_goes_wrong_has_a_code_and_a_next_step() {
    let (person, api) = (Person::new(), Api::start());
    api.claim("cl_f", "full-svc", KEY, "pending");
    let refused = |output: Output, code: i32, hint: &str| {
        let said = text_of(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(hint) && said.contains("hint: "), "{said}");
    };
    refused(claim(&person, &api, &["approve", "cl_f"]), 1, "AGENT_LIMIT_REACHED");
    refused(claim(&person, &api, &["list", "--namespace", "other"]), 4, "FORBIDDEN");
    let mut command = person.command(&["claim", "list", "--api-url", &api.base]);
    refused(command.env("SIGILUM_OWNER_TOKEN", token("x-y-z")).output().unwrap(), 4, "sigilum auth login");
    refused(person.run(&["claim", "list", "--namespace", "acme", "--api-url", &api.base]), 4, "no owner token");
    refused(person.run(&["claim", "list", "--api-url", &api.base]), 78, "--namespace");

    for (answer, hint) in [
        ("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 9\r\n\r\n<p>hi</p>", "text/html"),
        ("HTTP/1.1 502 Bad\r\ncontent-type: text/html\r\ncontent-length: 9\r\n\r\n<p>hi</p>", "502"),
        ("HTTP/1.1 302 Found\r\nlocation: http://elsewhere.example/\r\ncontent-length: 0\r\n\r\n", "redirect"),
        (
            "HTTP/1.1 500 Bad\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{\"error\":\"x\"}",
            "its log",
        ),
    ] {
        api.rows.lock().unwrap().instead = Some(answer.to_owned());
        refused(claim(&person, &api, &["list"]), 1, hint);
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let mut command = person.command(&["claim", "list", "--api-url", &url]);
    refused(command.env("SIGILUM_OWNER_TOKEN", token("acme")).output().unwrap(), 5, "sigilum up");
    let mut command = person.command(&["claim", "list", "--api-url", "localhost:8787"]);
    refused(command.env("SIGILUM_OWNER_TOKEN", token("acme")).output().unwrap(), 64, "http://");
}

#[test]
fn the_token_of_login_and_the_one_made_on_the_spot_are_used() {
    let (person, api) = (Person::new(), Api::start());
    person.file(".openclaw/.sigilum/owner-token-acme.jwt", &format!("{}\n", token("acme")));
    let argv = ["claim", "list", "--namespace", "acme", "--api-url", &api.base];
    assert_eq!(person.done(&argv), "No claims for namespace \"acme\".\n");
    // What this machine's API could check is made for one command where there is nothing better.
    let other = Person::new();
    let file = other.file(".local/share/sigilum-api/jwt-secret", "0123456789abcdef0123456789abcdef\n");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(other.run(&argv).status.code(), Some(4));
    let sent = api.rows.lock().unwrap().asked.last().unwrap().authorization.clone();
    let payload = sent.strip_prefix("Bearer ").unwrap().split('.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["sub"], "user_local_acme");
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60);
}

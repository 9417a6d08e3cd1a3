//! `auth login | refresh | show`: files, modes, what is printed and what is not.

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn jwt(namespace: &str, exp: u64) -> String {
    let claims = json!({"sub": "user_1", "namespace": namespace, "exp": exp});
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn with_stdin(person: &Person, arguments: &[&str], text: &str) -> Output {
    let mut child =
        person.command(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that is refused before it reads closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn a_token_is_stored_privately_and_not_printed() {
    let person = Person::new();
    let token = jwt("acme", 4_102_444_800);
    let output = with_stdin(&person, &["auth", "login", "--owner-token-stdin"], &format!("{token}\r\n"));
    let (said, noted) = (text_of(&output.stdout), text_of(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{noted}");
    let file = person.home().join(".openclaw/.sigilum/owner-token-acme.jwt");
    let expected = format!(
        "[ok] Namespace-owner token ready.\nmode: managed\nnamespace: acme\napi: https://api.sigilum.id\ntoken_file: {}\n",
        file.display()
    );
    assert_eq!(said, expected);
    assert!(!noted.contains(&token), "{noted}");
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("{token}\n"));
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(file.parent().unwrap()), 0o700);
    assert!(!person.home().join(".openclaw/openclaw.json").exists(), "there is no OpenClaw to tell");

    assert_eq!(person.done(&["auth", "show", "--namespace", "acme"]), format!("{token}\n"));
    let printed = with_stdin(&person, &["login", "--owner-token-stdin", "--print-token", "true"], &token);
    assert!(text_of(&printed.stdout).ends_with(&format!("\n{token}\n")), "{printed:?}");
    let only = with_stdin(&person, &["auth", "refresh", "--owner-token-stdin", "--token-only"], &token);
    assert_eq!(text_of(&only.stdout), format!("{token}\n"));
    let missing = person.run(&["auth", "show", "--namespace", "nobody"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text_of(&missing.stderr).contains("sigilum auth login"));
}

#[test]
fn who_signed_in_to_the_local_api_is_not_sent_to_the_hosted_one() {
    let person = Person::new();
    let command = |arguments: &[&str]| {
        let mut command = person.command(arguments);
        command.env("SIGILUM_NAMESPACE", "acme").env("API_PORT", "1");
        command
    };
    let login = command(&["login", "--mode", "oss-local"]).env("JWT_SECRET", SECRET).output().unwrap();
    assert_eq!(login.status.code(), Some(0), "{login:?}");
    // Nothing listens there: the address that was tried is in the sentence.
    let output = command(&["claim", "list"]).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(text_of(&output.stderr).contains("http://127.0.0.1:1 "), "{output:?}");
}

#[test]
fn a_token_that_cannot_be_right_is_refused_and_the_old_one_stays() {
    let person = Person::new();
    person.file(".openclaw/.sigilum/owner-token-acme.jwt", "old\n");
    let argv = ["auth", "login", "--namespace", "acme", "--owner-token-stdin"];
    for (token, reason) in [
        (jwt("acme", 1_000), "expired at 1970-01-01T00:16:40Z"),
        (jwt("other", 4_102_444_800), "for the namespace other, not for acme"),
        ("no token".to_owned(), "no owner token"),
        ("\r\n".to_owned(), "no token on standard input"),
    ] {
        let output = with_stdin(&person, &argv, &token);
        assert_eq!(output.status.code(), Some(1), "{reason}");
        assert!(text_of(&output.stderr).contains(reason), "{}", text_of(&output.stderr));
    }
    assert_eq!(person.read(".openclaw/.sigilum/owner-token-acme.jwt"), "old\n");
    let nothing = person.run(&["auth", "login", "--namespace", "acme"]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(text_of(&nothing.stderr).contains("--owner-token-stdin"), "{}", text_of(&nothing.stderr));
    let two = person.run(&["auth", "login", "--owner-token-stdin", "--owner-token", "x"]);
    assert_eq!(two.status.code(), Some(64));
    let argument = person.run(&["auth", "login", "--namespace", "acme", "--owner-token", &jwt("acme", 4_102_444_800)]);
    assert_eq!(argument.status.code(), Some(0));
    assert!(text_of(&argument.stderr).contains("can read arguments"), "{}", text_of(&argument.stderr));
}

#[test]
fn a_token_of_this_machine_is_signed_with_the_apis_secret() {
    let person = Person::new();
    let none = person.run(&["auth", "login", "--mode", "oss-local", "--namespace", "acme"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text_of(&none.stderr).contains("sigilum api"), "{}", text_of(&none.stderr));

    let file = person.file(".local/share/sigilum-api/jwt-secret", &format!("{SECRET}\n"));
    let open = person.run(&["auth", "login", "--mode", "oss-local", "--namespace", "acme"]);
    assert_eq!(open.status.code(), Some(78), "others could issue tokens");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let argv = ["auth", "login", "--mode", "oss-local", "--namespace", "acme", "--ttl-seconds", "90", "--token-only"];
    let token = person.done(&argv);
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    rules.set_audience(&["sigilum-dashboard"]);
    rules.set_issuer(&["sigilum-api"]);
    let key = jsonwebtoken::DecodingKey::from_secret(SECRET.as_bytes());
    let claims = jsonwebtoken::decode::<Value>(token.trim(), &key, &rules).unwrap().claims;
    assert_eq!((&claims["sub"], &claims["email"]), (&json!("user_local_acme"), &json!("acme@local.sigilum")));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 90);
    assert_eq!(person.read(".openclaw/.sigilum/owner-token-acme.jwt"), token);

    for (bad, code) in [(&["--ttl-seconds", "0"][..], 64), (&["--mode", "local"], 64), (&["--namespace", "a_b"], 1)] {
        let mut argv = vec!["auth", "refresh", "--mode", "oss-local"];
        argv.extend(bad);
        assert_eq!(person.run(&argv).status.code(), Some(code), "{bad:?}");
    }
}

#[test]
fn on_the_machine_of_the_api_a_login_is_one_there() {
    let person = Person::new();
    let file = person.file(".local/share/sigilum-api/jwt-secret", &format!("{SECRET}\n"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let login = ["auth", "login", "--namespace", "acme"];
    let said = person.done(&login);
    assert!(said.contains("mode: oss-local\n") && said.contains("api: http://127.0.0.1:8787\n"), "{said}");
    let said = person.done(&[&login[..], &["--api-url", "http://localhost:9999/"]].concat());
    assert!(said.contains("mode: oss-local\n") && said.contains("api: http://localhost:9999\n"), "{said}");
    // Where another API is meant, or a token of another is handed over, none is made here.
    let elsewhere = person.run(&[&login[..], &["--api-url", "https://api.example.com"]].concat());
    assert_eq!(elsewhere.status.code(), Some(1), "{elsewhere:?}");
    let managed = person.run(&[&login[..], &["--mode", "managed"]].concat());
    assert_eq!(managed.status.code(), Some(1), "{managed:?}");
    let handed = with_stdin(&person, &["auth", "login", "--owner-token-stdin"], &jwt("acme", 4_102_444_800));
    assert!(text_of(&handed.stdout).contains("mode: managed\n"), "{handed:?}");
}

#[test]
fn openclaw_is_told_and_everything_else_in_its_file_stays() {
    let person = Person::new();
    let token = jwt("acme", 4_102_444_800);
    let config = person.file(".openclaw/openclaw.json", r#"{"z":1,"hooks":{"mine":true},"a":[1,2]}"#);
    let login = |more: &[&str]| {
        let mut argv = vec!["auth", "login", "--namespace", "acme", "--owner-token-stdin"];
        argv.extend(more);
        with_stdin(&person, &argv, &token)
    };
    let output = login(&[]);
    let said = text_of(&output.stdout);
    assert!(said.contains(&format!("openclaw_config: {config}\nauthz_notify_enabled: false\n")), "{said}");
    let text = person.read(".openclaw/openclaw.json");
    assert!(text.starts_with("{\n  \"z\": 1,\n  \"hooks\": {\n    \"mine\": true,\n"), "{text}");
    assert!(!text.contains(&token) && text.contains("\"SIGILUM_NAMESPACE\": \"acme\""), "{text}");
    assert_eq!(mode(Path::new(&config)), 0o600);
    assert!(text_of(&login(&["--enable-authz-notify", "true"]).stdout).contains("authz_notify_enabled: true"));
    assert!(person.read(".openclaw/openclaw.json").contains(&token));
    login(&["--enable-authz-notify", "false"]);
    assert!(!person.read(".openclaw/openclaw.json").contains(&token));

    // JSON5, as OpenClaw writes it.
    person.file(".openclaw/openclaw.json", "{ // mine\n  a: 1,\n}\n");
    assert!(text_of(&login(&["--enable-authz-notify", "true"]).stdout).contains("authz_notify_enabled: true"));
    let text = person.read(".openclaw/openclaw.json");
    assert!(text.starts_with("{ // mine\n  a: 1,\n") && text.contains(&token), "{text}");

    let broken = "{ // mine\n";
    person.file(".openclaw/openclaw.json", broken);
    fs::remove_file(person.home().join(".openclaw/.sigilum/owner-token-acme.jwt")).unwrap();
    let refused = login(&[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text_of(&refused.stderr).contains("nothing was changed"), "{}", text_of(&refused.stderr));
    assert_eq!(person.read(".openclaw/openclaw.json"), broken);
    assert!(!person.home().join(".openclaw/.sigilum/owner-token-acme.jwt").exists());
    assert_eq!(login(&["--write-openclaw", "false"]).status.code(), Some(0));
}

#[test]
fn openclaw_is_told_where_that_is_wanted_though_it_has_no_file_yet() {
    for wish in [&["--write-openclaw", "true"][..], &["--enable-authz-notify", "true"]] {
        let (person, token) = (Person::new(), jwt("acme", 4_102_444_800));
        let argv = [&["auth", "login", "--namespace", "acme", "--owner-token-stdin"][..], wish].concat();
        let said = text_of(&with_stdin(&person, &argv, &token).stdout);
        assert!(said.contains("openclaw_config: "), "{said}");
        let file = person.home().join(".openclaw/openclaw.json");
        assert!(person.read(".openclaw/openclaw.json").contains("\"SIGILUM_NAMESPACE\": \"acme\""));
        assert_eq!(mode(&file), 0o600);
    }
}

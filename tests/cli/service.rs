//! `service add | list | secret set`, against a Sigilum API and the real admin process of a gateway.

use super::fake::Api;
use super::fake::token;
use super::gateway::Gateway;
use super::gateway::holders;
use super::*;

const CANARY: &str = "canary-3f9a1b77-provider-secret";

fn command(person: &Person, api: &Api, arguments: &[&str]) -> Command {
    let mut command = person.command(arguments);
    command.env("SIGILUM_API_URL", &api.base).env("SIGILUM_OWNER_TOKEN", token("acme"));
    command
}

fn done(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{command:?}: {}", text_of(&output.stderr));
    assert!(!text_of(&output.stderr).contains(CANARY));
    text_of(&output.stdout)
}

#[test]
fn a_native_service_is_registered_once_and_its_key_kept() {
    let (person, api) = (Person::new(), Api::start());
    let argv = ["service", "add", "--service-slug", "my-svc", "--service-name", "My service"];
    let first = done(command(&person, &api, &argv));
    let file = person.home().join(".sigilum-workspace/service-api-key-my-svc");
    let key = fs::read_to_string(&file).unwrap();
    let key = key.strip_suffix('\n').unwrap();
    assert!(key.starts_with("sk_live_") && key.len() == 8 + 48, "{key}");
    assert_eq!(mode(&file), 0o600);
    assert!(first.starts_with("[ok] Service registered.\n"), "{first}");
    assert!(first.contains("\n  gateway env: SIGILUM_SERVICE_API_KEY_MY_SVC\n"), "{first}");
    assert!(first.contains(&format!("sk_l...{}", &key[key.len() - 4..])) && !first.contains(key), "{first}");
    assert!(first.contains(&format!("SIGILUM_API_KEY=$(cat {})", file.display())), "{first}");
    let asked = api.lines();
    assert_eq!(asked.iter().filter(|line| line.starts_with("POST")).count(), 2, "{asked:?}");

    let second = done(command(&person, &api, &argv));
    assert_eq!(second.replace("is registered already", "registered"), first);
    assert!(api.lines().iter().all(|line| line.starts_with("GET")), "the second time nothing is made");
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("{key}\n"));
    let shown: Value =
        serde_json::from_str(&done(command(&person, &api, &[&argv[..], &["--json", "--reveal"]].concat()))).unwrap();
    assert_eq!((shown["service_key"].as_str(), shown["mode"].as_str()), (Some(key), Some("native")));
}

#[test]
fn a_gateway_service_gets_its_connection_and_its_secret_stands_nowhere_in_clear() {
    let (person, api) = (Person::new(), Api::start());
    let gateway = Gateway::start(&person);
    let url = gateway.url();
    let add = |base: &str, more: &[&str]| {
        let mut argv =
            vec!["--gateway-admin-url", &url, "service", "add", "--service-slug", "pay-svc", "--mode", "gateway"];
        argv.extend(["--upstream-base-url", base, "--auth-mode", "header_key"]);
        argv.extend(more);
        let mut command = command(&person, &api, &argv);
        command.env("PAY_SECRET", CANARY);
        command
    };
    let first = done(add("https://api.example.com", &["--upstream-secret-env", "PAY_SECRET"]));
    assert!(first.contains("  state:      created\n"), "{first}");
    assert!(first.contains("  header:     X-pay-svc-Key\n") && first.contains("cana...cret"), "{first}");
    for (base, more, state) in [
        ("https://api.example.com/", &["--upstream-secret-env", "PAY_SECRET"][..], "unchanged"),
        ("https://api.example.com", &[], "unchanged"),
        ("https://api.example.org", &[], "changed"),
        ("https://api.example.org", &["--auth-prefix", "Key "], "changed"),
        ("https://api.example.org", &[], "changed"),
        ("https://api.example.org", &[], "unchanged"),
    ] {
        let said = done(add(base, more));
        assert!(said.contains(&format!("  state:      {state}\n")), "{base} {more:?}: {said}");
    }
    assert_eq!(holders(person.home(), CANARY.as_bytes()), Vec::<String>::new());

    let list: Value = serde_json::from_str(&done(command(
        &person,
        &api,
        &["--gateway-admin-url", &url, "service", "list", "--json"],
    )))
    .unwrap();
    let expected = serde_json::json!({"namespace": "acme", "services": [{"service_slug": "pay-svc", "service_name": "pay-svc",
        "domain": "localhost", "description": "pay-svc (pay-svc)", "active_api_keys": 1, "mode": "gateway"}]});
    assert_eq!(list, expected);

    let set = |slug: &str, more: &[&str]| {
        let mut argv = vec!["--gateway-admin-url", &url, "service", "secret", "set", "--service-slug", slug];
        argv.extend(more);
        person.command(&argv)
    };
    let secret = person.file("secret", "another-provider-secret\n");
    let from_file = ["--upstream-secret-file", &secret];
    let changed = done(set("pay-svc", &from_file));
    assert_eq!(
        changed,
        "[ok] Upstream secret set.\nconnection: pay-svc\nsecret key: upstream_key\nsecret:     anot...cret\n"
    );
    assert!(done(set("pay-svc", &from_file)).starts_with("[ok] Upstream secret is this one already.\n"));
    let missing = set("no-svc", &from_file).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(text_of(&missing.stderr).contains("sigilum service add"), "{}", text_of(&missing.stderr));
    assert_eq!(set("pay-svc", &[]).output().unwrap().status.code(), Some(64));

    let wrong = set("pay-svc", &from_file).env("GATEWAY_ADMIN_TOKEN", "0123456789abcdef-wrong").output().unwrap();
    assert_eq!(wrong.status.code(), Some(4));
    assert!(text_of(&wrong.stderr).contains("GATEWAY_ADMIN_TOKEN"), "{}", text_of(&wrong.stderr));
}

#[test]
fn where_no_gateway_runs_nothing_is_registered() {
    let (person, api) = (Person::new(), Api::start());
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let argv = [
        "--gateway-admin-url",
        &url,
        "service",
        "add",
        "--service-slug",
        "pay-svc",
        "--mode",
        "gateway",
        "--upstream-base-url",
        "https://api.example.com",
        "--upstream-secret-env",
        "PAY_SECRET",
    ];
    let output = command(&person, &api, &argv).env("PAY_SECRET", CANARY).output().unwrap();
    let said = text_of(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("sigilum gateway start") && !said.contains(CANARY), "{said}");
    assert_eq!(api.lines(), Vec::<String>::new());
    assert!(!person.home().join(".sigilum-workspace").exists());
    // A list is still a list.
    let list = command(&person, &api, &["--gateway-admin-url", &url, "service", "list"]).output().unwrap();
    assert_eq!(text_of(&list.stdout), "No services registered for namespace \"acme\".\n");
    assert!(text_of(&list.stderr).contains("no gateway answers"), "{}", text_of(&list.stderr));
}

#[test]
fn services_are_listed_in_columns() {
    let (person, api) = (Person::new(), Api::start());
    let gateway = Gateway::start(&person);
    for (slug, name) in [("zz-svc", "Last"), ("a-longer-slug", "First")] {
        done(command(&person, &api, &["service", "add", "--service-slug", slug, "--service-name", name]));
    }
    let table = done(command(&person, &api, &["--gateway-admin-url", &gateway.url(), "service", "list"]));
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines[0], "SERVICE        MODE    API_KEYS  NAME");
    assert!(
        lines[1].starts_with("a-longer-slug  native  ") && lines[2].starts_with("zz-svc         native  "),
        "{table}"
    );
}

#[test]
fn bad_input_is_named() {
    let (person, api) = (Person::new(), Api::start());
    let gateway_mode = ["--mode", "gateway", "--upstream-base-url", "https://h.example"];
    let two = ["--upstream-secret-env", "A", "--upstream-secret-file", "b"];
    for (slug, more, code, said) in [
        ("My-Svc", &[][..], 1, "a-z, 0-9"),
        ("x", &[], 1, "3 to 64"),
        ("my-svc", &["--mode", "gateway"], 64, "--upstream-base-url"),
        ("my-svc", &[&gateway_mode[..], &two].concat(), 64, "cannot be used with"),
        ("my-svc", &["--upstream-secret-env", "A"], 64, "--mode gateway"),
        ("my-svc", &[&gateway_mode[..], &["--upstream-secret-env", "NOT_SET"]].concat(), 1, "NOT_SET is not set"),
        ("my-svc", &[&gateway_mode[..], &["--upstream-secret-file", "/nowhere"]].concat(), 1, "/nowhere"),
        ("my-svc", &[&gateway_mode[..], &["--upstream-secret-stdin"]].concat(), 1, "no secret in standard input"),
        ("my-svc", &["--auth-mode", "magic"], 64, "bearer"),
        ("my-svc", &["--service-name", &"n".repeat(101)], 1, "1 to 100"),
    ] {
        let mut argv = vec!["service", "add", "--service-slug", slug];
        argv.extend(more);
        let output = command(&person, &api, &argv).output().unwrap();
        let stderr = text_of(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{argv:?}: {stderr}");
        assert!(stderr.contains(said), "{argv:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{argv:?}");
    }
    assert_eq!(api.lines(), Vec::<String>::new(), "nobody is asked before everything is judged");
}

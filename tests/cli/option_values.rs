//! Values of options: what was typed wrong is a wrong command line, and what stands elsewhere a wrong configuration.

use super::fake::Api;
use super::*;

#[test]
fn a_wrong_value_of_an_option_is_a_wrong_command_line() {
    let person = Person::new();
    for (option, value) in [
        ("--bind", "foo"),
        ("--addr", "foo"),
        ("--ingress-addr", "1.2.3.4"),
        ("--api-url", "bogus"),
        ("--namespace", "A_b"),
        ("--envoy-concurrency", "9999"),
        ("--port", "abc"),
    ] {
        let output = person.run(&["gateway", "start", option, value]);
        let said = text_of(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{option}: {said}");
        assert!(said.contains(option), "{said}");
    }
    for (variable, value) in [("GATEWAY_ADDR", "foo"), ("SIGILUM_API_URL", "bogus"), ("SIGILUM_NAMESPACE", "A_b")] {
        let output = person.command(&["gateway", "start"]).env(variable, value).output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{variable}: {}", text_of(&output.stderr));
    }
    let file = person.file("gateway.yaml", "gateway: {addr: foo}\n");
    assert_eq!(person.run(&["gateway", "start", "--config", &file, "--bind", "foo"]).status.code(), Some(78));
}

#[test]
fn a_run_folder_too_long_for_sockets_is_refused_before_anything_is_made() {
    let person = Person::new();
    let long = person.home().join("r".repeat(100)).display().to_string();
    let start = ["gateway", "start", "--namespace", "acme"];
    let typed = person.run(&[&start[..], &["--run-dir", &long]].concat());
    assert_eq!(typed.status.code(), Some(64), "{}", text_of(&typed.stderr));
    let set = person.command(&start).env("GATEWAY_RUN_DIR", &long).output().unwrap();
    assert_eq!(set.status.code(), Some(78), "{}", text_of(&set.stderr));
    let check = person.command(&["gateway", "config", "check"]).env("GATEWAY_RUN_DIR", &long).output().unwrap();
    let said = format!("{}{}", text_of(&check.stdout), text_of(&check.stderr));
    assert!(check.status.code() == Some(78) && said.contains("89"), "{said}");
    assert_eq!(fs::read_dir(person.home()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn services_are_those_of_the_local_owner_where_nobody_is_named() {
    let (person, api) = (Person::new(), Api::start());
    let output = person.command(&["service", "list"]).env("SIGILUM_API_URL", &api.base).output().unwrap();
    let said = text_of(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("there is no owner token for the namespace johndee"), "{said}");
}

#[test]
fn health_as_json_is_a_document_also_where_nobody_answers() {
    let person = Person::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = person.command(&["health", "--json"]).env("GATEWAY_ADDR", free.to_string()).output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &told["ok"], &told["ready"]),
        (Some(5), &Value::Bool(false), &Value::Bool(false))
    );
}

//! What a gateway says when one thing is wrong with it: the words that are documented, in one line, and the documented exit code.
//! Others of the table need Envoy, and are where its running gateway is broken (`tests/it`) or a pairing is (`pair.rs`).

use clap::Parser as _;
use sigilum::app::gateway::LOCK_FILE;
use sigilum::cli::Cli;
use sigilum::domain::symptom;
use sigilum::sys::files::FileLock;

use super::gateway::Gateway;
use super::*;

/// Whether a command ended as the table says of this token, and said so once.
fn judge(output: &Output, token: &str) {
    let known =
        symptom::ALL.iter().find(|symptom| symptom.token == token).unwrap_or_else(|| panic!("{token} is not listed"));
    let said = text_of(&output.stderr);
    assert_eq!(output.status.code(), known.exit.map(i32::from), "{said}");
    assert_eq!(said.lines().filter(|line| line.contains(token)).count(), 1, "{said}");
}

/// An address that nobody uses.
fn free() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// A start with listeners of its own, which is to end before it opens one.
fn starting(person: &Person, more: &[&str]) -> Command {
    let mut command = person.command(&[&["gateway", "start", "--namespace", "acme"], more].concat());
    command.env("GATEWAY_ADDR", free()).env("GATEWAY_INGRESS_ADDR", free()).env("GATEWAY_ENVOY_ADMIN_ADDR", free());
    command
}

#[test]
fn every_first_command_is_one_that_exists() {
    for symptom in symptom::ALL {
        let parsed = Cli::try_parse_from(symptom.first.split_whitespace());
        assert!(parsed.is_ok(), "{}: {}", symptom.first, parsed.unwrap_err());
    }
}

#[test]
fn an_open_listener() {
    let person = Person::new();
    let output =
        starting(&person, &[]).env("GATEWAY_ADDR", "0.0.0.0:1").env("GATEWAY_ADMIN_TOKEN", "").output().unwrap();
    judge(&output, "refusing to bind gateway");
}

#[test]
fn a_data_folder_that_a_gateway_holds() {
    let person = Person::new();
    let folder = person.home().join("data");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let _held = FileLock::take(&folder.join(LOCK_FILE), "pid 1 (a test)").unwrap();
    let output = starting(&person, &["--data-dir", folder.to_str().unwrap()]).output().unwrap();
    judge(&output, "another gateway instance is already listening");
}

#[test]
fn a_port_of_somebody_else() {
    let person = Person::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let output = starting(&person, &[]).env("GATEWAY_INGRESS_ADDR", &taken).output().unwrap();
    judge(&output, "port in use by foreign process");
    assert!(text_of(&output.stderr).contains(&taken), "{}", text_of(&output.stderr));
}

#[test]
fn a_file_with_a_mistake() {
    let person = Person::new();
    let file = person.file("gateway.yaml", "bogus: 1\n");
    judge(&starting(&person, &["--config", &file]).output().unwrap(), "invalid config");
}

#[test]
fn a_reference_that_leads_nowhere() {
    let person = Person::new();
    let file = person.file("gateway.yaml", "variables: {KEY: $NOT_SET_ANYWHERE}\n");
    let arguments = ["gateway", "admin", "--namespace", "acme", "--addr", &free(), "--config", &file];
    judge(&person.run(&arguments), "secret reference unresolved");
}

#[test]
fn a_store_of_another_key() {
    let person = Person::new();
    drop(Gateway::start(&person));
    let other = |digit: &str| format!("{}\n", digit.repeat(64));
    let key = person.read(".sigilum-workspace/gateway-master-key");
    person.file(".sigilum-workspace/gateway-master-key", &if key == other("1") { other("2") } else { other("1") });
    let output = person.run(&["gateway", "admin", "--namespace", "acme", "--addr", &free()]);
    judge(&output, "master key mismatch");
}

#[test]
fn a_token_that_is_not_the_gateways() {
    let person = Person::new();
    let gateway = Gateway::start(&person);
    for arguments in [&["connection", "list"][..], &["health"]] {
        let mut command = person.command(arguments);
        command.env("GATEWAY_ADMIN_URL", gateway.url()).env("GATEWAY_ADMIN_TOKEN", "a-token-that-is-not-the-gateways");
        judge(&command.output().unwrap(), "unauthorized");
    }
}

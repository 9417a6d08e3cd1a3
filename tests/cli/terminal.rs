//! What a person sees who sits at a terminal: the commands run on a real one (`script` of util-linux).

use std::net::Ipv4Addr;

use super::fake::Api;
use super::fake::token;
use super::*;

/// Runs a command on a terminal of its own and returns everything that appeared there.
fn on_terminal(person: &Person, environment: &[(&str, &str)], arguments: &[&str]) -> String {
    let quoted: Vec<_> = arguments.iter().map(|word| format!("'{word}'")).collect();
    let line = format!("'{}' {}", env!("CARGO_BIN_EXE_sigilum"), quoted.join(" "));
    let mut command = Command::new("script");
    command.args(["-q", "-e", "-c", &line, "/dev/null"]).env_clear().env("HOME", person.home());
    command.env("PATH", "/usr/bin:/bin").env("TERM", "xterm").envs(environment.iter().copied());
    let output = command.stdin(Stdio::null()).output().expect("this test needs `script` of util-linux");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn colours_are_for_terminals_and_for_those_who_want_them() {
    let (person, api) = (Person::new(), Api::start());
    let key = "ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    api.claim("cl_1", "my-svc", key, "pending");
    let argv = ["claim", "list", "--api-url", &api.base];
    let token = token("acme");
    let own = ("SIGILUM_OWNER_TOKEN", token.as_str());
    let coloured = on_terminal(&person, &[own], &argv);
    assert!(coloured.contains("\u{1b}[33mpending\u{1b}[0m"), "{coloured:?}");
    let refused = on_terminal(&person, &[own], &["claim", "show", "cl_none", "--api-url", &api.base]);
    assert!(refused.contains("\u{1b}[31merror:\u{1b}[0m there is no claim"), "{refused:?}");
    for plain in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let shown = on_terminal(&person, &[own, plain], &argv);
        assert!(shown.contains("pending") && !shown.contains('\u{1b}'), "{plain:?}: {shown:?}");
    }
    let piped = person.command(&argv).env(own.0, own.1).output().unwrap();
    assert!(!text_of(&piped.stdout).contains('\u{1b}'));
}

#[test]
fn a_start_spins_on_a_terminal_and_nowhere_else() {
    let person = Person::new();
    // An Envoy that takes its time to say that it is none.
    let envoy = person.file("envoy", "#!/bin/sh\nsleep 0.5\nexit 1\n");
    fs::set_permissions(&envoy, fs::Permissions::from_mode(0o755)).unwrap();
    let ports: Vec<_> = (0..3).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    let at: Vec<_> = ports.iter().map(|port| port.local_addr().unwrap().to_string()).collect();
    drop(ports);
    let argv = [
        "gateway",
        "start",
        "--namespace",
        "demo",
        "--envoy-bin",
        &envoy,
        "--addr",
        &at[0],
        "--ingress-addr",
        &at[1],
        "--envoy-admin-addr",
        &at[2],
    ];
    let shown = on_terminal(&person, &[], &argv);
    assert!(shown.contains("starting the gateway") && shown.contains("\u{1b}[36m"), "{shown:?}");
    assert!(shown.contains("Envoy named by the settings"), "{shown:?}");
    let plain = on_terminal(&person, &[("NO_COLOR", "1")], &argv);
    assert!(plain.contains("starting the gateway") && !plain.contains("\u{1b}[36m"), "{plain:?}");
    let dumb = on_terminal(&person, &[("TERM", "dumb")], &argv);
    assert!(!dumb.contains("starting the gateway") && !dumb.contains('\u{1b}'), "{dumb:?}");
    let piped = person.run(&argv);
    assert!(!text_of(&piped.stderr).contains("starting the gateway"), "{}", text_of(&piped.stderr));
    assert_eq!(piped.status.code(), Some(69));
}

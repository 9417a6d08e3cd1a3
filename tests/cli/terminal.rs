//! What a person sees who sits at a terminal: the commands run on a real one (`script` of util-linux).

use std::net::Ipv4Addr;

use serde_json::json;

use super::fake::Api;
use super::fake::token;
use super::fake_admin::Admin;
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

/// Runs a command on a terminal and types an answer to each question as it appears; everything that appeared.
pub(crate) fn typing(person: &Person, arguments: &[&str], answers: &[(&str, &str)]) -> String {
    let quoted: Vec<_> = arguments.iter().map(|word| format!("'{word}'")).collect();
    let line = format!("'{}' {}", env!("CARGO_BIN_EXE_sigilum"), quoted.join(" "));
    let mut command = Command::new("script");
    command.args(["-q", "-e", "-c", &line, "/dev/null"]).env_clear().env("HOME", person.home());
    command.env("PATH", "/usr/bin:/bin").env("TERM", "dumb").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("this test needs `script` of util-linux");
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut shown = Vec::new();
    let mut answers = answers.iter();
    let mut next = answers.next();
    let mut seen = 0;
    let mut part = [0; 4096];
    loop {
        let read = screen.read(&mut part).unwrap();
        if read == 0 {
            break;
        }
        shown.extend_from_slice(&part[..read]);
        while let Some((question, answer)) = next {
            let text = String::from_utf8_lossy(&shown[seen..]);
            let Some(at) = text.find(question) else { break };
            seen += at + question.len();
            keys.write_all(answer.as_bytes()).unwrap();
            next = answers.next();
        }
    }
    child.wait().unwrap();
    assert!(next.is_none(), "was not asked {next:?}: {}", String::from_utf8_lossy(&shown));
    String::from_utf8_lossy(&shown).into_owned()
}

#[test]
fn a_secret_is_typed_unseen_and_a_removal_is_asked_for() {
    let person = Person::new();
    let found =
        json!({"id": "my-api", "status": "active", "base_url": "https://h.example", "auth_secret_key": "api_key"});
    let admin = Admin::start(vec![
        ("GET /connections/my-api", 200, found),
        ("POST /connections/my-api/rotate", 200, json!({"id": "my-api", "secret_version": 2})),
        ("DELETE /connections/my-api", 204, Value::Null),
    ]);
    let with = |arguments: &[&str]| -> Vec<String> {
        let all = [&["--gateway-admin-url", &admin.url, "connection"], arguments].concat();
        all.into_iter().map(ToOwned::to_owned).collect()
    };
    let typed = |arguments: &[&str], answers: &[(&str, &str)]| {
        let all = with(arguments);
        typing(&person, &all.iter().map(String::as_str).collect::<Vec<_>>(), answers)
    };
    let shown = typed(&["rotate", "my-api"], &[("the secret api_key (it does not show): ", "canax\u{7f}ry-typed\r")]);
    assert!(shown.contains("[ok] Connection my-api rotated: api_key.") && !shown.contains("cana"), "{shown}");
    let (_, body) = admin.asked().pop().unwrap();
    assert_eq!(body["secrets"], json!({"api_key": "canary-typed"}));
    let given_up = typed(&["rotate", "my-api"], &[("does not show): ", "canary\u{3}")]);
    assert!(given_up.contains("interrupted; nothing was changed"), "{given_up}");
    assert!(admin.asked().iter().all(|(line, _)| line.starts_with("GET")));

    let kept = typed(&["rm", "my-api"], &[("(https://h.example) with every version of its secrets? [y/N] ", "n\r")]);
    assert!(kept.contains("connection my-api was not removed"), "{kept}");
    assert!(admin.asked().iter().all(|(line, _)| line.starts_with("GET")));
    let gone = typed(&["rm", "my-api"], &[("[y/N] ", "y\r")]);
    assert!(gone.contains("[ok] Connection my-api removed with its secrets."), "{gone}");
}

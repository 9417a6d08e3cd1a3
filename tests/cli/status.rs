//! What `gateway status` and hints say of a gateway that is not there: of one elsewhere nothing that works only here, and with
//! a profile the commands of that one.

use super::*;

#[test]
fn of_a_gateway_elsewhere_nothing_is_told_that_only_works_here() {
    let person = Person::new();
    // Nobody listens there when it is let go; and somebody has the port where ours would be.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let token = person.file("token", "for-the-remote-0123456789");
    let text = format!("gateway: {{mode: remote, remote: {{url: 'https://{gone}', token_file: {token}}}}}\n");
    let settings = person.file("gateway.yaml", &text);
    let run = |more: &[&str]| {
        let mut command = person.command(&[&["gateway", "status", "--config", &settings], more].concat());
        command.env("GATEWAY_ADDR", taken.local_addr().unwrap().to_string());
        text_of(&command.output().unwrap().stdout)
    };
    let told = run(&[]);
    assert!(told.contains("Runtime:             elsewhere, and does not answer\n"), "{told}");
    assert!(told.contains("next: sigilum gateway probe\n"), "{told}");
    for local in ["gateway start", "foreign process", "--deep", "auth-token"] {
        assert!(!told.contains(local), "{local}: {told}");
    }
    let report: Value = serde_json::from_str(&run(&["--json"])).unwrap();
    assert_eq!((&report["gateway"]["mode"], &report["port"]), (&"remote".into(), &serde_json::json!([])));
    let quiet = run(&["--no-probe"]);
    assert!(quiet.contains("elsewhere, and was not asked") && !quiet.contains("next:"), "{quiet}");
    fs::remove_file(&token).unwrap();
    let told = run(&[]);
    assert!(told.contains(&format!("there is no token for that gateway: {token} is not there")), "{told}");
}

#[test]
fn doctor_says_of_a_gateway_elsewhere_which_token_is_missing() {
    let person = Person::new();
    for (file, expected) in [("", "gateway.remote.token_file"), (", token_file: /nowhere/at/all", "/nowhere/at/all")] {
        let text = format!("gateway: {{mode: remote, remote: {{url: 'https://gw.invalid:1'{file}}}}}\n");
        let settings = person.file("gateway.yaml", &text);
        let output =
            person.command(&["doctor", "--json", "--config", &settings, "--only", "gateway/auth-present"]).output();
        let report: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        assert_eq!(report["findings"][0]["path"], expected, "{report:#}");
        let hint = report["findings"][0]["fixHint"].as_str().unwrap();
        assert!(!hint.contains("sigilum"), "{hint}");
    }
}

#[test]
fn commands_that_are_named_are_those_of_the_profile() {
    let person = Person::new();
    let said = |arguments: &[&str]| {
        let output = person.command(arguments).output().unwrap();
        format!("{}{}", text_of(&output.stdout), text_of(&output.stderr))
    };
    for (option, typed) in [
        (&[][..], "sigilum"),
        (&["--profile", "other"], "sigilum --profile other"),
        (&["--dev"], "sigilum --dev"),
        (&["--profile", "default"], "sigilum"),
    ] {
        let with = |arguments: &[&str]| said(&[option, arguments].concat());
        let status = with(&["gateway", "status"]);
        assert!(status.contains(&format!("next: {typed} gateway start\n")), "{status}");
        let restart = with(&["gateway", "restart"]);
        assert!(restart.contains(&format!("`{typed} gateway start`")), "{restart}");
        let lint = with(&["doctor", "--only", "gateway/health"]);
        assert!(lint.contains(&format!("{typed} gateway start")), "{lint}");
    }
}

#[test]
fn somebody_who_has_started_nothing_yet_is_not_sent_looking_for_a_token() {
    let person = Person::new();
    let told = text_of(&person.command(&["gateway", "status"]).output().unwrap().stdout);
    assert!(told.contains("Capability:          unknown (the first start makes the admin token)\n"), "{told}");
    assert!(told.contains(" does not answer: connection refused)\n"), "{told}");
}

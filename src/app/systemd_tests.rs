#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "test code may panic")]

use std::path::PathBuf;
use std::process::Command;

use super::*;

const GATEWAY: Kind = Kind::Gateway;

fn rendered(kind: Kind, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    rendered_with(30, kind, arguments, environment)
}

fn rendered_with(drain_seconds: u64, kind: Kind, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let program = std::env::current_exe().unwrap();
    let arguments: Vec<_> = arguments.iter().map(|text| (*text).to_owned()).collect();
    let environment: Vec<_> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let reload = ["secrets", "reload", "--quiet"].map(str::to_owned);
    let unit = Unit {
        kind,
        drain_seconds,
        suffix: "",
        scope: Scope::User,
        program: &program,
        arguments: &arguments,
        reload: &reload,
        environment: &environment,
    };
    render(&unit).unwrap()
}

/// The machine's unit of the gateway.
fn system(master_key: Option<Credential<'_>>) -> String {
    let program = std::env::current_exe().unwrap();
    let arguments = ["gateway", "start"].map(str::to_owned);
    let scope = Scope::System { master_key };
    let unit = Unit {
        kind: GATEWAY,
        drain_seconds: 30,
        suffix: "",
        scope,
        program: &program,
        arguments: &arguments,
        reload: &arguments,
        environment: &[],
    };
    render(&unit).unwrap()
}

/// What systemd itself says of a unit of the user; nothing, where it likes it.
fn verified(kind: Kind, text: &str) -> String {
    analyzed(kind, text, &["verify", "--user", "--man=no"])
}

fn analyzed(kind: Kind, text: &str, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(kind.unit(""));
    std::fs::write(&file, text).unwrap();
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .arg(&file)
        .env("XDG_RUNTIME_DIR", folder.path())
        .output()
        .unwrap_or_else(|error| {
            panic!("systemd-analyze: {error}. This test needs it: apt-get install systemd (no systemd has to run)")
        });
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { said } else { format!("{} {said}", output.status) }
}

#[test]
fn systemd_takes_both_units() {
    for kind in [GATEWAY, Kind::Pair] {
        let text = rendered(kind, &["gateway", "start", "--home", "/a b/c\"d\\e%f$g'h", ""], &[("A", "b c%d\"e\\$f")]);
        assert_eq!(verified(kind, &text), "", "{text}");
    }
}

#[test]
fn what_systemd_would_pass_over_is_found_by_this_test() {
    let text = rendered(Kind::Pair, &[], &[]).replace("KillMode=mixed", "KillMode=mixd");
    assert!(verified(Kind::Pair, &text).contains("kill mode"), "{text}");
}

#[test]
fn systemd_takes_the_unit_of_the_machine() {
    let credential = Credential { path: Path::new("/etc/credstore.encrypted/key"), encrypted: true };
    for master_key in [None, Some(credential), Some(Credential { encrypted: false, ..credential })] {
        let text = system(master_key);
        assert_eq!(analyzed(GATEWAY, &text, &["verify", "--system", "--man=no"]), "", "{text}");
    }
    let text = system(Some(credential));
    assert!(text.contains("\nLoadCredentialEncrypted=gateway-master-key:/etc/credstore.encrypted/key\n"), "{text}");
}

#[test]
fn the_unit_of_the_machine_is_exposed_little() {
    let text = system(None);
    // In tenths: more than 2.0 is a failure.
    let judged = |text: &str| analyzed(GATEWAY, text, &["security", "--offline=yes", "--threshold=20"]);
    assert_eq!(judged(&text), "", "{text}");
    let loose = text.replace("SystemCallFilter=", "# ").replace("CapabilityBoundingSet=", "# ");
    assert!(judged(&loose).contains("exit status"), "the threshold means something");
}

#[test]
fn a_gateway_says_itself_that_it_is_ready_and_lives() {
    let lines = [
        "Type=notify",
        "NotifyAccess=main",
        "WatchdogSec=30",
        "RestartSec=5",
        "StartLimitIntervalSec=60",
        "StartLimitBurst=5",
        "RestartPreventExitStatus=64 78",
        "SuccessExitStatus=143",
        "TimeoutStartSec=60",
        "LimitCORE=0",
        "UMask=0077",
    ];
    for text in [rendered(GATEWAY, &[], &[]), system(None)] {
        for line in lines {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(text.lines().any(|line| line.starts_with("ExecReload=\"")), "{text}");
    }
}

#[test]
fn a_session_that_is_over_is_not_started_again_and_no_process_is_left() {
    for (kind, last) in [(GATEWAY, "RestartPreventExitStatus=64 78"), (Kind::Pair, "RestartPreventExitStatus=42 64 78")]
    {
        let text = rendered(kind, &[], &[]);
        for line in ["Restart=always", last, "KillMode=mixed", "WantedBy=default.target"] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}

#[test]
fn a_gateway_has_time_to_drain() {
    assert!(rendered(GATEWAY, &[], &[]).contains("\nTimeoutStopSec=70\n"));
    assert!(rendered_with(u64::MAX, GATEWAY, &[], &[]).contains("\nTimeoutStopSec=18446744073709551615\n"));
}

#[test]
fn a_word_stays_one_word() {
    let unit = Unit {
        suffix: "-1a2b3c4d",
        kind: Kind::Pair,
        drain_seconds: 0,
        scope: Scope::User,
        reload: &[],
        program: &PathBuf::from("/opt/my tools/sigilum"),
        arguments: &["a b".to_owned(), "%h".to_owned(), "$HOME".to_owned(), "\"\\".to_owned()],
        environment: &[("A".to_owned(), "x y\"%$".to_owned())],
    };
    let text = render(&unit).unwrap();
    assert!(text.contains("\nExecStart=\"/opt/my tools/sigilum\" \"a b\" \"%%h\" \"$$HOME\" \"\\\"\\\\\"\n"), "{text}");
    assert!(text.contains("\nEnvironment=\"A=x y\\\"%%$\"\n"), "{text}");
}

#[test]
fn nothing_begins_a_line_of_its_own() {
    let unit = |arguments: &[String], environment: &[(String, String)]| {
        let (kind, scope, program) = (Kind::Pair, Scope::User, Path::new("/bin/true"));
        render(&Unit { kind, drain_seconds: 0, suffix: "", scope, program, arguments, reload: &[], environment })
    };
    let bad = "x\nExecStartPre=/bin/sh".to_owned();
    assert_eq!(unit(std::slice::from_ref(&bad), &[]), Err(UnitError::Control(bad.clone())));
    assert!(matches!(unit(&[], &[("A".to_owned(), bad)]), Err(UnitError::Control(_))));
    let (scope, program) = (Scope::User, Path::new("sigilum"));
    let (kind, suffix, drain_seconds) = (Kind::Pair, "", 0);
    let relative = Unit { kind, drain_seconds, suffix, scope, program, arguments: &[], reload: &[], environment: &[] };
    assert_eq!(render(&relative), Err(UnitError::Program("sigilum".to_owned())));
}

#[test]
fn a_credential_is_a_plain_path() {
    for bad in ["relative", "/a b", "/a:b", "/a%b", "/a\nb"] {
        let scope = Scope::System { master_key: Some(Credential { path: Path::new(bad), encrypted: true }) };
        let (kind, program) = (GATEWAY, Path::new("/bin/true"));
        let (suffix, drain_seconds) = ("", 30);
        let unit = Unit { kind, drain_seconds, suffix, scope, program, arguments: &[], reload: &[], environment: &[] };
        assert!(render(&unit).is_err(), "{bad}");
    }
}

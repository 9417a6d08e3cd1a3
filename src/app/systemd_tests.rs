#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "test code may panic")]

use std::path::PathBuf;
use std::process::Command;

use super::*;

const GATEWAY: Kind = Kind::Gateway { drain_seconds: 30 };

fn rendered(kind: Kind, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let program = std::env::current_exe().unwrap();
    let arguments: Vec<_> = arguments.iter().map(|text| (*text).to_owned()).collect();
    let environment: Vec<_> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    render(&Unit { kind, suffix: "", program: &program, arguments: &arguments, environment: &environment }).unwrap()
}

/// What systemd itself says of a unit; nothing, where it likes it.
fn verified(kind: Kind, text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(kind.unit(""));
    std::fs::write(&file, text).unwrap();
    let output = Command::new("systemd-analyze")
        .args(["verify", "--user", "--man=no"])
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
fn a_session_that_is_over_is_not_started_again_and_no_process_is_left() {
    for kind in [GATEWAY, Kind::Pair] {
        let text = rendered(kind, &[], &[]);
        for line in ["Restart=always", "RestartPreventExitStatus=42 78", "KillMode=mixed", "WantedBy=default.target"] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}

#[test]
fn a_gateway_has_time_to_drain() {
    assert!(rendered(GATEWAY, &[], &[]).contains("\nTimeoutStopSec=70\n"));
    let forever = Kind::Gateway { drain_seconds: u64::MAX };
    assert!(rendered(forever, &[], &[]).contains("\nTimeoutStopSec=18446744073709551615\n"));
}

#[test]
fn a_word_stays_one_word() {
    let unit = Unit {
        suffix: "-1a2b3c4d",
        kind: Kind::Pair,
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
        render(&Unit { kind: Kind::Pair, suffix: "", program: Path::new("/bin/true"), arguments, environment })
    };
    let bad = "x\nExecStartPre=/bin/sh".to_owned();
    assert_eq!(unit(std::slice::from_ref(&bad), &[]), Err(UnitError::Control(bad.clone())));
    assert!(matches!(unit(&[], &[("A".to_owned(), bad)]), Err(UnitError::Control(_))));
    let relative =
        Unit { kind: Kind::Pair, suffix: "", program: Path::new("sigilum"), arguments: &[], environment: &[] };
    assert_eq!(render(&relative), Err(UnitError::Program("sigilum".to_owned())));
}

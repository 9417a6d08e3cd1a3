#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code may panic")]

use std::path::PathBuf;

use crate::app::survey::UnitFile;
use crate::app::unit_file;
use crate::cli::doctor::facts::tests_support::well;
use crate::cli::doctor::judge::tests::found;
use crate::secrets::residue::Code;
use crate::secrets::residue::Finding as Residue;

use super::*;

fn file(privacy: Privacy, folder: bool, mode: u32, owner: Owner) -> ModeFact {
    ModeFact { path: "/x".into(), privacy, folder, mode, owner }
}

#[test]
fn permissions_are_judged_by_what_a_file_is_and_whose() {
    use Privacy::Own;
    use Privacy::Readable;
    use Privacy::Secret;
    for (fact, take) in [
        (file(Secret, false, 0o600, Owner::Us), None),
        (file(Secret, false, 0o400, Owner::Us), None),
        (file(Secret, false, 0o644, Owner::Us), Some(0o044)),
        (file(Secret, false, 0o620, Owner::Us), Some(0o020)),
        (file(Own, true, 0o755, Owner::Us), Some(0o055)),
        // Shared with a group on purpose, and with nobody else.
        (file(Own, true, 0o2770, Owner::Us), None),
        (file(Own, true, 0o2775, Owner::Us), Some(0o005)),
        (file(Readable, false, 0o644, Owner::Us), None),
        (file(Readable, false, 0o664, Owner::Us), Some(0o020)),
    ] {
        let repair = mode(&fact).map(|finding| finding.repair.unwrap());
        assert_eq!(repair, take.map(|take| Repair::Tighten { path: "/x".into(), take }), "{fact:?}");
    }
    // Root's, as Kubernetes hands them to a group: not ours to change, and no finding unless others get at it.
    assert_eq!(mode(&file(Secret, false, 0o440, Owner::Root)), None);
    assert_eq!(mode(&file(Secret, false, 0o444, Owner::Root)).unwrap().repair, None);
    assert_eq!(mode(&file(Secret, false, 0o600, Owner::Other(5))).unwrap().repair, None);
}

fn unit(text: &str) -> UnitFact {
    let path = PathBuf::from("/u/sigilum-gateway.service");
    let command = unit_file::parse(text);
    UnitFact { path, text: text.to_owned(), command, program_exists: true, wanted: Some("new\n".to_owned()) }
}

#[test]
fn a_unit_that_differs_is_written_anew_only_where_it_is_ours() {
    let mut facts = well();
    facts.service.unit = Some(unit("ExecStart=/s gateway start\nEnvironment=\"TOKEN=canary\"\n"));
    assert_eq!(found(&facts), [("service/drift", Severity::Warning)]);
    let Judged::Found(told) = drift(&facts) else { panic!("nothing") };
    assert!(matches!(told[0].repair, Some(Repair::Unit { .. })));
    assert!(told[0].message.contains("has `Environment=TOKEN=…`") && !told[0].message.contains("canary"), "{told:?}");
    facts.service.external = true;
    let Judged::Found(told) = drift(&facts) else { panic!("nothing") };
    assert_eq!(told[0].repair, None, "units are somebody else's business");
    facts.service.external = false;
    facts.service.system = Some("/etc/systemd/system/sigilum-gateway.service".into());
    let ids = found(&facts);
    assert_eq!(ids, [("service/drift", Severity::Warning), ("service/duplicate", Severity::Error)]);
    let Judged::Found(told) = drift(&facts) else { panic!("nothing") };
    assert_eq!(told[0].repair, None, "the machine's unit owns the gateway");
    facts.service.system = None;
    facts.service.unit.as_mut().unwrap().program_exists = false;
    assert_eq!(found(&facts), [("service/drift", Severity::Error)]);
}

#[test]
fn the_ports_of_a_unit_are_those_of_its_options_else_of_its_environment() {
    let text = |rest: &str| format!("ExecStart=/s gateway start{rest}\n");
    for (text, expected) in [
        (text(""), false),
        (text(" --addr :38100"), false),
        (text(" --addr :38101"), true),
        (text(" --ingress-addr 127.0.0.1:1"), true),
        (text("\nEnvironment=GATEWAY_ADDR=:9"), true),
        (text(" --addr :38100\nEnvironment=GATEWAY_ADDR=:9"), false),
    ] {
        let mut facts = well();
        facts.service.unit = Some(UnitFact { wanted: Some(text.clone()), ..unit(&text) });
        let wanted = [("service/port-drift", Severity::Warning)];
        assert_eq!(found(&facts), if expected { &wanted[..] } else { &[] }, "{text}");
    }
}

#[test]
fn units_that_end_with_the_login_or_start_a_second_gateway_are_told() {
    let mut facts = well();
    facts.service.unit = Some(unit("new\n"));
    (facts.service.systemd, facts.service.linger) = (true, Some(false));
    assert_eq!(found(&facts), [("service/linger", Severity::Warning)]);
    let other = |legacy| UnitFile { name: "x.service".to_owned(), path: "/u/x.service".into(), legacy };
    let mut facts = well();
    facts.service.others = vec![other(false), other(true)];
    assert_eq!(found(&facts), [("service/duplicate", Severity::Warning), ("service/legacy-unit", Severity::Error)]);
}

#[test]
fn openclaw_is_judged_by_mode_token_and_notifier() {
    let read = |mode, notifies, token| OpenclawFact::Read { path: "/o".into(), mode, notifies, token };
    for (fact, expected) in [
        (OpenclawFact::Absent, vec![]),
        (OpenclawFact::Missing("/o".into()), vec![Severity::Warning]),
        (OpenclawFact::Broken("/o".into(), 0o600, "line 1".to_owned()), vec![Severity::Error]),
        (read(0o600, false, false), vec![]),
        (read(0o640, false, false), vec![Severity::Warning]),
        (read(0o600, true, false), vec![Severity::Error]),
        (read(0o600, true, true), vec![Severity::Warning]),
        (read(0o644, false, true), vec![Severity::Warning, Severity::Warning]),
    ] {
        let mut facts = well();
        facts.openclaw = fact;
        let severities: Vec<_> = found(&facts).into_iter().map(|(_, severity)| severity).collect();
        assert_eq!(severities, expected, "{:?}", facts.openclaw);
    }
}

#[test]
fn secrets_in_clear_are_counted_by_code_and_open_files_are_told_once() {
    let residue = |path: &str| Residue {
        code: Code::PlaintextFound,
        severity: residue::Severity::Error,
        path: path.to_owned(),
        message: "canary".to_owned(),
        fingerprint: None,
    };
    let mut facts = well();
    facts.modes = vec![file(Privacy::Secret, false, 0o644, Owner::Us)];
    facts.residue = vec![residue("/x"), residue("/y"), residue("/z")];
    assert_eq!(found(&facts), [("secrets/audit", Severity::Error), ("files/modes", Severity::Error)]);
    let Judged::Found(told) = super::residue(&facts) else { panic!("nothing") };
    assert_eq!(told[0].message, "PLAINTEXT_FOUND in 2 places");
}

#[test]
fn identities_and_the_rest_of_the_machine() {
    let mut facts = well();
    facts.identity = IdentityFact::None("/h".into(), "none".to_owned());
    assert_eq!(found(&facts), [("identity/present", Severity::Warning)]);
    facts.identity = IdentityFact::Wrong("/i".into(), "no match".to_owned());
    assert_eq!(found(&facts), [("identity/key-match", Severity::Error)]);
    let mut facts = well();
    facts.same_owner = None;
    assert!(matches!(same_owner(&facts), Judged::Skipped(_)));
    facts.same_owner = Some(true);
    facts.cores = vec![(7, "unlimited".to_owned())];
    facts.missing = vec!["/d".into()];
    assert_eq!(
        found(&facts),
        [
            ("files/folders", Severity::Info),
            ("identity/same-owner", Severity::Info),
            ("host/core-dumps", Severity::Warning)
        ]
    );
}

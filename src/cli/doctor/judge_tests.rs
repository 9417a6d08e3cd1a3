#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code may panic")]

use crate::cli::doctor::catalog::CHECKS;
use crate::cli::doctor::facts::Unusable;
use crate::cli::doctor::facts::tests_support::well;
use crate::cli::doctor::report::Results;
use crate::cli::doctor::report::findings;
use crate::sys::process::PortHolder;

use super::*;

/// What all checks find: id and severity.
pub(in crate::cli::doctor) fn found(facts: &Facts) -> Vec<(&'static str, Severity)> {
    let results: Results = CHECKS.iter().map(|check| (check, (check.judge)(facts))).collect();
    findings(&results, Severity::Info).map(|finding| (finding.id, finding.severity)).collect()
}

fn condition_of(kind: ConditionKind, status: Status, requirement: Requirement, reason: &str) -> ConditionBody {
    ConditionBody {
        kind: kind.name().to_owned(),
        subject_ref: "x".to_owned(),
        status,
        requirement,
        reason: reason.to_owned(),
        message: "m".to_owned(),
    }
}

fn listener(address: &str, pid: i32) -> PortListener {
    let holder = Some(PortHolder { pid, name: "nginx".to_owned() });
    PortListener { address: address.parse().unwrap(), holder, user: 1 }
}

#[test]
fn nothing_is_found_where_all_is_well() {
    assert_eq!(found(&well()), []);
}

#[test]
fn every_condition_that_fails_is_the_finding_of_its_kind_and_no_other() {
    for kind in ConditionKind::ALL {
        for (requirement, severity) in
            [(Requirement::Required, Severity::Error), (Requirement::Advisory, Severity::Warning)]
        {
            let mut facts = well();
            facts.gateway.conditions.push(condition_of(kind, Status::False, requirement, "x"));
            assert_eq!(found(&facts), [(kind.finding(), severity)], "{kind:?}");
        }
        let mut facts = well();
        facts.gateway.conditions.push(condition_of(kind, Status::Unknown, Requirement::Required, "x"));
        assert_eq!(found(&facts), [], "what is unknown is no finding: {kind:?}");
    }
}

#[test]
fn a_gate_that_let_something_through_is_critical_whoever_says_so() {
    let mut facts = well();
    let failed = condition_of(ConditionKind::AuthzReachable, Status::False, Requirement::Required, FAILED_OPEN);
    facts.gateway.conditions.push(failed);
    assert_eq!(found(&facts), [("authz/fail-closed", Severity::Critical)]);
    let mut facts = well();
    facts.gateway.door = Some(Verdict::LetThrough("200".to_owned()));
    assert_eq!(found(&facts), [("authz/fail-closed", Severity::Critical)]);
    facts.gateway.door = Some(Verdict::Undecided("404".to_owned()));
    assert_eq!(found(&facts), [("authz/fail-closed", Severity::Error)]);
}

#[test]
fn a_stranger_on_a_port_is_an_error_and_a_twin_of_ours_is_critical() {
    let mut facts = well();
    facts.ports[0].listeners = vec![listener("127.0.0.1:38000", 42), listener("127.0.0.1:38000", 7)];
    assert_eq!(found(&facts), [("gateway/port-collision", Severity::Critical)], "beside ours (pid 7)");
    facts.ports[0].listeners.remove(1);
    assert_eq!(found(&facts), [("gateway/port-collision", Severity::Error)]);
    // Another address of this machine takes nothing from us; all addresses together do.
    facts.ports[0].listeners = vec![listener("192.0.2.1:38000", 42)];
    assert_eq!(found(&facts), []);
    facts.ports[0].listeners = vec![listener("0.0.0.0:38000", 42)];
    assert_eq!(found(&facts), [("gateway/port-collision", Severity::Error)]);
    let Judged::Found(told) = ports(&facts) else { panic!("nothing") };
    assert!(told[0].message.contains("process 42 (nginx)"), "{told:?}");
}

/// Our processes leave no core dump, so only root may look into them: who is not is told their user alone.
#[test]
fn a_socket_of_a_process_we_may_not_look_into_is_ours_by_its_user_while_we_run() {
    let untold = |user: u32| PortListener { holder: None, user, ..listener("127.0.0.1:38000", 0) };
    let mut facts = well();
    facts.ports[0].listeners = vec![untold(1)];
    assert_eq!(found(&facts), []);
    facts.ports[0].listeners = vec![untold(2)];
    assert_eq!(found(&facts), [("gateway/port-collision", Severity::Error)], "another user's");
    facts.ports[0].listeners = vec![untold(1)];
    facts.instance.pids.clear();
    facts.gateway.reach = Reach::Nobody("refused".to_owned());
    assert!(matches!(ports(&facts), Judged::Found(_)), "nothing of ours lives");
}

#[test]
fn a_gateway_that_does_not_answer_is_worse_where_it_should_run() {
    let mut facts = well();
    facts.gateway.reach = Reach::Nobody("x".to_owned());
    assert_eq!(found(&facts), [("gateway/health", Severity::Error)]);
    facts.instance.supervisor = None;
    facts.instance.pids.clear();
    facts.ports.iter_mut().for_each(|port| port.listeners.clear());
    assert_eq!(found(&facts), [("gateway/health", Severity::Warning)]);
}

#[test]
fn who_may_use_the_admin_api_is_judged_by_mode_and_token() {
    let gone = || TokenFact::Missing("/t".into());
    for (access, token, used, expected) in [
        ("token", TokenFact::There, true, None),
        ("token", gone(), false, None),
        ("token", gone(), true, Some(Severity::Error)),
        ("token", TokenFact::Placeholder, true, Some(Severity::Error)),
        ("token", TokenFact::Unreadable("x".to_owned()), true, Some(Severity::Error)),
        ("hybrid", TokenFact::There, true, Some(Severity::Warning)),
        ("none", TokenFact::There, true, Some(Severity::Error)),
        ("mtls", gone(), true, None),
        ("password", TokenFact::There, true, None),
        ("password", gone(), false, Some(Severity::Error)),
        ("trusted-proxy", gone(), true, Some(Severity::Warning)),
    ] {
        let mut facts = well();
        (facts.config.access, facts.config.token, facts.config.used) = (access, token, used);
        let expected: Vec<_> = expected.map(|severity| ("gateway/auth-present", severity)).into_iter().collect();
        assert_eq!(found(&facts), expected, "{access}");
    }
    let mut facts = well();
    facts.gateway.reach = Reach::Refused("no".to_owned());
    assert_eq!(found(&facts), [("gateway/auth-present", Severity::Error)]);
    // What is refused is called what it is.
    facts.config.access = "password";
    let Judged::Found(told) = auth(&facts) else { panic!("nothing") };
    assert!(told[0].message.contains("refuses the admin password") && !told[0].message.contains("token"), "{told:?}");
    // Of a gateway elsewhere neither the mode here counts nor whether one ran here.
    for (access, token, expected) in [
        ("token", TokenFact::There, 0),
        ("none", TokenFact::There, 0),
        ("token", gone(), 1),
        ("token", TokenFact::Unnamed, 1),
        ("password", TokenFact::Unreadable("x".to_owned()), 1),
    ] {
        let mut facts = well();
        (facts.config.access, facts.config.token, facts.config.is_remote) = (access, token, true);
        let told = if let Judged::Found(told) = auth(&facts) { told } else { Vec::new() };
        assert_eq!(told.len(), expected, "{access}");
        assert!(told.iter().all(|finding| finding.message.contains("remote gateway")), "{told:?}");
    }
}

#[test]
fn the_store_is_judged_without_a_gateway_too() {
    for (look, expected) in [
        (StoreLook::None, None),
        (StoreLook::Opens, None),
        (StoreLook::KeyShown("x".to_owned()), None),
        (StoreLook::OtherKey("x".to_owned()), Some("store/master-key")),
        (StoreLook::NoKey("x".to_owned()), Some("store/master-key")),
        (StoreLook::Broken("x".to_owned()), Some("store/open")),
    ] {
        let mut facts = well();
        facts.store = look;
        let ids: Vec<_> = found(&facts).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, expected.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_lock_in_other_hands_is_told_and_what_a_dead_gateway_left_is_mended() {
    let mut facts = well();
    facts.instance.stranger = Some("pid 9 (sigilum gateway)".to_owned());
    assert_eq!(found(&facts), [("gateway/lock", Severity::Error)]);
    let mut facts = well();
    facts.instance.stale = vec!["/run/x.sock".into()];
    let Judged::Found(told) = lock(&facts) else { panic!("nothing") };
    assert_eq!(told[0].repair, None, "its processes still live");
    facts.instance.pids.clear();
    let Judged::Found(told) = lock(&facts) else { panic!("nothing") };
    assert!(matches!(told[0].repair, Some(Repair::Remove { .. })));
}

#[test]
fn envoy_is_judged_by_what_is_here_and_what_runs() {
    let mut facts = well();
    facts.envoy.binary = Err(Unusable { message: "cannot be used".to_owned(), hint: "name another".to_owned() });
    facts.gateway.envoy = None;
    assert_eq!(found(&facts), [("envoy/binary", Severity::Error)]);
    facts.envoy.binary = Ok(None);
    assert_eq!(found(&facts), [], "the first start installs it");
    facts.envoy.installable = false;
    assert_eq!(found(&facts), [("envoy/binary", Severity::Error)]);
    facts.envoy.outside = true;
    assert_eq!(found(&facts), [], "in a container Envoy is another one's");
    let mut facts = well();
    facts.gateway.envoy = Some("1.39.2".to_owned());
    assert_eq!(found(&facts), [("envoy/version", Severity::Warning)]);
    let mut facts = well();
    facts.envoy.validated = Some(Err("no such cluster".to_owned()));
    assert_eq!(found(&facts), [("envoy/validate", Severity::Error)]);
}

#[test]
fn commands_that_ask_elsewhere_while_a_gateway_runs_here_are_told() {
    let mut facts = well();
    facts.gateway.url = "https://gateway.example.com".to_owned();
    assert_eq!(found(&facts), [("gateway/mode", Severity::Warning)]);
    facts.instance.supervisor = None;
    assert!(found(&facts).iter().all(|(id, _)| *id != "gateway/mode"), "there is only the one");
}

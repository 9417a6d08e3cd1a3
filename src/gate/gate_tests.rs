//! The gate as a whole: what it lets through, every refusal, and which of several comes first.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "test code may panic"
)]

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;

use super::*;
use crate::domain::approval::Freshness;
use crate::domain::approval::Source;
use crate::domain::connection::AuthMode;
use crate::domain::connection::Connection;
use crate::domain::connection::ConnectionSettings;
use crate::domain::connection::Protocol;
use crate::domain::decision::SignatureFault;
use crate::domain::limits::FAILURE_BURST;
use crate::domain::limits::FAILURES_PER_SECOND;
use crate::domain::snapshot::Rotation;
use crate::domain::snapshot::Settings;
use crate::domain::time::MonotonicMillis;
use crate::domain::time::UnixSeconds;
use crate::gate::signer_tests::*;

/// A gate, a state with the connection `demo-service` and one agent approved for it.
struct Bench {
    gate: Gate,
    snapshot: Snapshot,
    agent: Agent,
}

impl Bench {
    fn new() -> Self {
        let (mut snapshot, agent) = (empty(), Agent::new(1));
        connect(&mut snapshot, settings("demo-service"));
        approve(&mut snapshot, &agent, "demo-service", Source::Declared);
        Self { gate: Gate::new([9; 16]), snapshot, agent }
    }

    fn with(change: impl FnOnce(&mut ConnectionSettings)) -> Self {
        let mut bench = Self::new();
        let mut settings = settings("demo-service");
        change(&mut settings);
        connect(&mut bench.snapshot, settings);
        bench
    }

    fn set(&mut self, change: impl FnOnce(&mut Settings)) {
        change(Arc::make_mut(&mut self.snapshot.settings));
    }

    fn ask(&self, stage: Stage, request: &Request, millis: u64) -> Verdict {
        self.gate.decide(stage, request, &self.snapshot, later(millis), &mut Scratch::default())
    }

    fn reason(&self, stage: Stage, request: &Request, millis: u64) -> Option<DenyReason> {
        match self.ask(stage, request, millis) {
            Verdict::Deny(denial) => Some(denial.reason),
            Verdict::Continue(_) | Verdict::Admit(..) => None,
        }
    }

    fn plan(&self, request: &Request) -> (Plan, Admission) {
        match self.ask(Stage::Body, request, 0) {
            Verdict::Admit(plan, admission) => (*plan, admission),
            other => panic!("{other:?}"),
        }
    }

    fn denial(&self, request: &Request) -> Denial {
        match self.ask(Stage::Body, request, 0) {
            Verdict::Deny(denial) => *denial,
            other => panic!("{other:?}"),
        }
    }
}

fn get() -> Draft {
    Draft::get("/proxy/demo-service/a%2Fb/?x=1")
}

fn post() -> Draft {
    Draft::post("/proxy/demo-service/a", "\"ping\"")
}

const fn fault(fault: SignatureFault) -> DenyReason {
    DenyReason::SignatureInvalid(fault)
}

#[test]
fn an_approved_request_is_planned() {
    let bench = Bench::new();
    let draft = Draft { agent_id: Some("agent-7".to_owned()), ..get() };
    let (plan, admission) = bench.plan(&bench.agent.sign(&draft));
    assert_eq!(plan.path.as_slice(), b"/base/v1/a%2Fb/?x=1");
    assert_eq!(plan.connection.settings.id.as_str(), "demo-service");
    assert_eq!(plan.caller.namespace.as_str(), "alice");
    assert_eq!(plan.caller.subject, "customer-1");
    assert_eq!(plan.caller.key, bench.agent.public_key());
    assert_eq!(plan.caller.agent_id.as_deref(), Some("agent-7"));
    assert_eq!((plan.rotation_overdue, plan.allow_private, plan.allow_loopback), (None, false, false));
    let expected = Admission { key: bench.agent.public_key(), nonce: "123e4567".to_owned(), created: UnixSeconds(NOW) };
    assert_eq!(admission, expected);
}

#[test]
fn the_head_stage_only_says_go_on() {
    let bench = Bench::new();
    let Verdict::Continue(passed) = bench.ask(Stage::Head, &bench.agent.sign(&post()).without_body(), 0) else {
        panic!("refused at the head stage");
    };
    let (plan, admission) = bench.plan(&bench.agent.sign(&post()));
    assert_eq!((&passed.admission, &passed.caller), (&admission, &plan.caller));
    assert_eq!(passed.connection, plan.connection.settings.id);
}

#[test]
fn the_address_rules_of_settings_and_connection_are_joined() {
    let mut bench = Bench::with(|settings| settings.allow_private = true);
    bench.set(|settings| settings.allow_loopback = true);
    let (plan, _) = bench.plan(&bench.agent.sign(&get()));
    assert!(plan.allow_private && plan.allow_loopback);
    let mut bench = Bench::new();
    bench.set(|settings| settings.allow_private = true);
    let (plan, _) = bench.plan(&bench.agent.sign(&get()));
    assert!(plan.allow_private && !plan.allow_loopback);
}

#[test]
fn a_query_credential_stands_in_the_path() {
    let bench = Bench::with(|settings| {
        settings.auth_mode = AuthMode::QueryParam;
        settings.auth_target = "api_key".to_owned();
        settings.auth_prefix = String::new();
    });
    let (plan, _) = bench.plan(&bench.agent.sign(&Draft::get("/proxy/demo-service/a?api_key=mine&b")));
    assert_eq!(plan.path.as_slice(), b"/base/v1/a?b&api_key=s3cret");
}

#[test]
fn a_nonce_is_the_same_with_blanks_around_it() {
    let bench = Bench::new();
    for nonce in ["n-1", " n-1", "n-1\t", "\u{a0}n-1 "] {
        let (_, admission) = bench.plan(&bench.agent.sign(&Draft { nonce: nonce.to_owned(), ..get() }));
        assert_eq!(admission.nonce, "n-1", "{nonce:?}");
    }
}

#[test]
fn the_slack_alias_and_an_assigned_connection_are_the_connections_they_name() {
    let mut bench = Bench::new();
    connect(&mut bench.snapshot, settings("slack-proxy"));
    assert_eq!(bench.denial(&bench.agent.sign(&Draft::get("/slack/auth.test"))).reason, DenyReason::ClaimRequired);
    approve(&mut bench.snapshot, &bench.agent, "slack-proxy", Source::Declared);
    let (plan, _) = bench.plan(&bench.agent.sign(&Draft::get("/slack/auth.test")));
    assert_eq!(plan.path.as_slice(), b"/base/v1/auth.test");

    let mut request = bench.agent.sign(&Draft::get("/"));
    assert_eq!(bench.denial(&request).reason, DenyReason::NotFound);
    request.assigned = Some("demo-service".to_owned());
    assert_eq!(bench.plan(&request).0.path.as_slice(), b"/");
    request.assigned = Some("other-service".to_owned());
    assert_eq!(bench.denial(&request).reason, DenyReason::ClaimRequired);
}

#[test]
fn the_spellings_of_the_target_uri_are_tried() {
    let bench = Bench::new();
    let origin = |origin: &str| Some(origin.to_owned());
    let plain = Draft { authority: "127.0.0.1".to_owned(), ..get() };
    let https = Draft { scheme: "https".to_owned(), ..plain.clone() };
    for draft in [
        plain.clone(),
        https.clone(),
        Draft { signed_origin: origin("http://127.0.0.1:80"), ..plain.clone() },
        Draft { signed_origin: origin("https://127.0.0.1:443"), ..https.clone() },
    ] {
        assert_eq!(bench.reason(Stage::Body, &bench.agent.sign(&draft), 0), None, "{draft:?}");
    }
    for draft in [
        Draft { signed_origin: origin("https://127.0.0.1"), ..plain.clone() },
        Draft { signed_origin: origin("http://127.0.0.1:443"), ..plain.clone() },
        Draft { signed_origin: origin("http://127.0.0.1:80"), ..https },
        Draft { signed_origin: origin("http://localhost"), ..plain },
    ] {
        let request = bench.agent.sign(&draft);
        assert_eq!(
            bench.reason(Stage::Body, &request, 0),
            Some(fault(SignatureFault::VerificationFailed)),
            "{draft:?}"
        );
    }
}

/// One way to be refused: how the draft, the request, the state are bent, and the reason.
struct Defect {
    reason: DenyReason,
    draft: fn(&mut Draft),
    request: fn(&mut Request),
    state: fn(&mut Bench),
}

impl Defect {
    const fn new(reason: DenyReason) -> Self {
        Self { reason, draft: |_| {}, request: |_| {}, state: |_| {} }
    }
}

fn change(bench: &mut Bench, change: impl FnOnce(&mut ConnectionSettings)) {
    let mut settings = bench.snapshot.connection("demo-service").unwrap().settings.clone();
    change(&mut settings);
    connect(&mut bench.snapshot, settings);
}

fn unusable(bench: &mut Bench) {
    let settings = bench.snapshot.connection("demo-service").unwrap().settings.clone();
    let connection = Connection::new(settings, Err("no secret".to_owned()));
    Arc::make_mut(&mut bench.snapshot.connections).insert(connection.settings.id.clone(), connection);
}

/// In the order of the checks. Each can stand together with all that follow.
fn defects() -> Vec<Defect> {
    vec![
        Defect {
            request: |request| {
                request.headers.extend((0..100).map(|number| (format!("x-{number}"), Vec::new())));
            },
            ..Defect::new(DenyReason::HeadersTooLarge)
        },
        Defect {
            draft: |draft| draft.authority = "evil.example".to_owned(),
            ..Defect::new(DenyReason::AuthorityNotAccepted)
        },
        Defect {
            state: |bench| bench.set(|settings| settings.loopback_names = false),
            ..Defect::new(DenyReason::AuthorityNotAccepted)
        },
        Defect { draft: |draft| draft.target.push_str("/../x"), ..Defect::new(DenyReason::PathInvalid) },
        Defect {
            request: |request| request.headers.push(("sigilum-subject".to_owned(), b"other".to_vec())),
            ..Defect::new(DenyReason::HeadersInvalid)
        },
        Defect { draft: |draft| draft.nonce = " ".to_owned(), ..Defect::new(DenyReason::NonceInvalid) },
        Defect { draft: |draft| draft.created = NOW - 301, ..Defect::new(fault(SignatureFault::TimestampOutOfRange)) },
        Defect {
            state: |bench| bench.agent.expires_at = Some("2020-01-01T00:00:00Z".to_owned()),
            ..Defect::new(fault(SignatureFault::CertExpired))
        },
        Defect {
            draft: |draft| draft.namespace = Some("mallory".to_owned()),
            ..Defect::new(fault(SignatureFault::NamespaceMismatch))
        },
        Defect {
            state: |bench| bench.set(|settings| settings.max_body_bytes = 5),
            ..Defect::new(DenyReason::BodyTooLarge)
        },
        Defect {
            request: |request| request.body = Some(b"pong!!".to_vec()),
            ..Defect::new(fault(SignatureFault::ContentDigestMismatch))
        },
        Defect {
            request: |request| *request = request.clone().forged(),
            ..Defect::new(fault(SignatureFault::VerificationFailed))
        },
        Defect {
            state: |bench| {
                bench.snapshot.approvals = crate::domain::approval::Approvals::default();
                bench.snapshot.approvals.set_freshness("demo-service", Freshness::ConfirmedAt(MonotonicMillis(0)));
            },
            ..Defect::new(DenyReason::ClaimRequired)
        },
        Defect {
            state: |bench| change(bench, |settings| settings.active = false),
            ..Defect::new(DenyReason::ConnectionDisabled)
        },
        Defect { state: unusable, ..Defect::new(DenyReason::ConnectionUnusable) },
        Defect {
            state: |bench| change(bench, |settings| settings.allowed_methods = vec!["GET".to_owned()]),
            ..Defect::new(DenyReason::MethodOrPathForbidden)
        },
        Defect {
            state: |bench| {
                bench.set(|settings| settings.rotation = Rotation::Block);
                change(bench, |settings| settings.next_rotation_due_at = Some(UnixSeconds(NOW - 1)));
            },
            ..Defect::new(DenyReason::RotationRequired)
        },
        Defect {
            state: |bench| change(bench, |settings| settings.protocol = Protocol::Mcp),
            ..Defect::new(DenyReason::ProtocolMismatch)
        },
    ]
}

/// A POST with these defects, and the bench it meets. `unusable` is put last: `connect` would undo it.
fn bent(defects: &[&Defect]) -> (Bench, Request) {
    let (mut bench, mut draft) = (Bench::new(), post());
    let ordered = || {
        let broken = |defect: &&&Defect| defect.reason == DenyReason::ConnectionUnusable;
        defects.iter().filter(move |defect| !broken(defect)).chain(defects.iter().filter(broken))
    };
    for defect in ordered() {
        (defect.draft)(&mut draft);
        (defect.state)(&mut bench);
    }
    let mut request = bench.agent.sign(&draft);
    for defect in defects {
        (defect.request)(&mut request);
    }
    (bench, request)
}

#[test]
fn every_defect_is_refused_with_its_reason() {
    for defect in defects() {
        let (bench, request) = bent(&[&defect]);
        assert_eq!(bench.reason(Stage::Body, &request, 0), Some(defect.reason));
    }
    let (bench, request) = bent(&[]);
    assert_eq!(bench.reason(Stage::Body, &request, 0), None);
}

#[test]
fn of_several_defects_the_earliest_step_names_the_reason() {
    let all = defects();
    for first in 0..all.len() {
        let (bench, request) = bent(&all[first..].iter().collect::<Vec<_>>());
        assert_eq!(bench.reason(Stage::Body, &request, 0), Some(all[first].reason), "from {first}");
        for second in &all[first + 1..] {
            let (bench, request) = bent(&[&all[first], second]);
            assert_eq!(bench.reason(Stage::Body, &request, 0), Some(all[first].reason), "before {:?}", second.reason);
        }
    }
}

#[test]
fn the_head_stage_refuses_all_but_what_the_body_shows() {
    for defect in defects() {
        let (bench, mut request) = bent(&[&defect]);
        request.body = None;
        let expected = match defect.reason {
            DenyReason::BodyTooLarge | DenyReason::SignatureInvalid(SignatureFault::ContentDigestMismatch) => None,
            reason => Some(reason),
        };
        assert_eq!(bench.reason(Stage::Head, &request, 0), expected);
        assert!(!matches!(bench.ask(Stage::Head, &request, 0), Verdict::Admit(..)));
    }
}

#[test]
fn a_caller_is_named_only_once_the_signature_is_verified() {
    let mut verified = false;
    for defect in defects() {
        let (bench, request) = bent(&[&defect]);
        let denial = bench.denial(&request);
        verified |= denial.reason == DenyReason::ClaimRequired;
        assert_eq!(denial.caller.is_some(), verified, "{:?}", denial.reason);
        let unrouted = [DenyReason::HeadersTooLarge, DenyReason::AuthorityNotAccepted, DenyReason::PathInvalid];
        let routed = !unrouted.contains(&denial.reason);
        assert_eq!(denial.connection.is_some(), routed, "{:?}", denial.reason);
    }
}

#[test]
fn requests_without_a_well_formed_signature_are_refused() {
    let bench = Bench::new();
    let without = |name: &str| {
        let mut request = bench.agent.sign(&get());
        request.headers.retain(|(held, _)| held != name);
        request
    };
    let replaced = |name: &str, value: &str| {
        let mut request = bench.agent.sign(&get());
        *request.header(name) = value.as_bytes().to_vec();
        request
    };
    let cases = [
        (without("signature"), fault(SignatureFault::MissingSignatureHeaders)),
        (without("signature-input"), fault(SignatureFault::MissingSignatureHeaders)),
        (without("sigilum-agent-cert"), fault(SignatureFault::CertHeaderMissing)),
        (without("sigilum-agent-key"), fault(SignatureFault::KeyHeaderMissing)),
        (without("sigilum-subject"), fault(SignatureFault::SubjectMissing)),
        (without("sigilum-namespace"), fault(SignatureFault::NamespaceMismatch)),
        (replaced("signature-input", "sig1=()"), fault(SignatureFault::SignatureInputInvalid)),
        (replaced("signature", "sig1=:AAAA:"), fault(SignatureFault::SignatureHeaderInvalid)),
        (replaced("sigilum-agent-cert", "AAAA"), fault(SignatureFault::CertHeaderInvalid)),
        (replaced("sigilum-agent-key", "ed25519:AAAA"), fault(SignatureFault::KeyHeaderInvalid)),
        (bench.agent.sign(&get()).add("sigilum-agent-id", "unsigned"), DenyReason::IdentityInvalid),
        (bench.agent.sign(&get()).add("signature", ""), DenyReason::HeadersInvalid),
        (bench.agent.sign(&Draft { created: NOW + 6, ..get() }), fault(SignatureFault::TimestampOutOfRange)),
    ];
    for (request, expected) in cases {
        assert_eq!(bench.reason(Stage::Body, &request, 0), Some(expected));
    }
    let on_the_edge = bench.agent.sign(&Draft { created: NOW - 300, ..get() });
    assert_eq!(bench.reason(Stage::Body, &on_the_edge, 0), None);
    let ahead = bench.agent.sign(&Draft { created: NOW + 5, ..get() });
    assert_eq!(bench.reason(Stage::Body, &ahead, 0), None);
}

/// The certificate of `agent`, with the proof of another.
fn with_another_proof(agent: &Agent) -> String {
    let json = |agent: &Agent| String::from_utf8(URL_SAFE_NO_PAD.decode(agent.certificate("")).unwrap()).unwrap();
    let proof = |text: &str| text[text.find("\"sig\"").unwrap()..].to_owned();
    let (ours, theirs) = (json(agent), json(&Agent::new(99)));
    URL_SAFE_NO_PAD.encode(ours.replace(&proof(&ours), &proof(&theirs)))
}

#[test]
fn a_certificate_somebody_else_signed_is_refused() {
    let bench = Bench::new();
    let others = bench.agent.sign_with(&get(), &Agent::new(2).certificate(""));
    assert_eq!(bench.reason(Stage::Body, &others, 0), Some(fault(SignatureFault::KeyMismatch)));
    let mixed = bench.agent.sign_with(&get(), &with_another_proof(&bench.agent));
    assert_eq!(bench.reason(Stage::Body, &mixed, 0), Some(fault(SignatureFault::CertInvalid)));
}

#[test]
fn verifying_a_certificate_is_paid_for_too() {
    let mut bench = Bench::new();
    bench.set(|settings| settings.stranger_rate_per_second = 1);
    let stranger = Agent::new(2);
    let request = stranger.sign_with(&get(), &with_another_proof(&stranger));
    assert_eq!(bench.reason(Stage::Body, &request, 0), Some(fault(SignatureFault::CertInvalid)));
    assert_eq!(bench.reason(Stage::Body, &request, 0), Some(DenyReason::RateLimited));

    let invalid = bench.agent.sign_with(&get(), &with_another_proof(&bench.agent));
    // Genuine, but with headers that contradict it: the verification was in vain as well.
    let contradicted = bench.agent.sign(&Draft { namespace: Some("mallory".to_owned()), ..get() });
    for _ in 0..FAILURE_BURST / 2 {
        assert_eq!(bench.reason(Stage::Body, &invalid, 0), Some(fault(SignatureFault::CertInvalid)));
        assert_eq!(bench.reason(Stage::Body, &contradicted, 0), Some(fault(SignatureFault::NamespaceMismatch)));
    }
    assert_eq!(bench.reason(Stage::Body, &invalid, 0), Some(DenyReason::RateLimited));
    assert_eq!(bench.reason(Stage::Body, &contradicted, 0), Some(DenyReason::RateLimited));
}

#[test]
fn refusals_that_cost_no_verification_count_against_nobody() {
    let bench = Bench::new();
    assert_eq!(bench.reason(Stage::Body, &bench.agent.sign(&post()), 0), None, "the certificate is known now");
    let mut wrong = bench.agent.sign(&post());
    wrong.body = Some(b"\"pong\"".to_vec());
    for _ in 0..=FAILURE_BURST {
        assert_eq!(bench.reason(Stage::Body, &wrong, 0), Some(fault(SignatureFault::ContentDigestMismatch)));
    }
    assert_eq!(bench.reason(Stage::Body, &bench.agent.sign(&post()), 0), None);
}

#[test]
fn an_unknown_connection_is_told_only_to_a_key_approved_for_its_name() {
    let mut bench = Bench::new();
    let request = bench.agent.sign(&Draft::get("/proxy/gone-service/x"));
    assert_eq!(bench.denial(&request).reason, DenyReason::ClaimRequired);
    assert_eq!(bench.denial(&request).connection.unwrap().as_str(), "gone-service");
    bench.snapshot.approvals.set_freshness("gone-service", Freshness::Never);
    assert_eq!(bench.denial(&request).reason, DenyReason::ClaimRequired);
    approve(&mut bench.snapshot, &bench.agent, "gone-service", Source::Declared);
    assert_eq!(bench.denial(&request).reason, DenyReason::ConnectionUnknown);
    let odd = bench.agent.sign(&Draft::get(&format!("/proxy/{}/x", "No_Slug%20".repeat(500))));
    let denial = bench.denial(&odd);
    assert_eq!((denial.reason, denial.connection), (DenyReason::ClaimRequired, None));
}

#[test]
fn claims_hold_as_long_as_their_source_is_fresh() {
    let mut bench = Bench::new();
    let other = Agent::new(2);
    approve(&mut bench.snapshot, &other, "demo-service", Source::Claims);
    bench.snapshot.approvals.set_freshness("demo-service", Freshness::ConfirmedAt(MonotonicMillis(1000)));
    let request = other.sign(&get());
    assert_eq!(bench.reason(Stage::Body, &request, 31_000), None);
    assert_eq!(bench.reason(Stage::Body, &request, 31_001), Some(DenyReason::ClaimsLookupFailed));
    assert_eq!(bench.reason(Stage::Body, &bench.agent.sign(&get()), 31_001), None, "declared approvals do not age");
    bench.set(|settings| settings.claims_hold = Duration::from_secs(60));
    assert_eq!(bench.reason(Stage::Body, &request, 61_000), None);
}

#[test]
fn an_approval_is_for_one_namespace_and_one_service() {
    let mut bench = Bench::new();
    connect(&mut bench.snapshot, settings("other-service"));
    let other = bench.agent.sign(&Draft::get("/proxy/other-service/x"));
    assert_eq!(bench.reason(Stage::Body, &other, 0), Some(DenyReason::ClaimRequired));
    let mut same_key = Agent::new(1);
    same_key.namespace = "mallory".to_owned();
    assert_eq!(bench.reason(Stage::Body, &same_key.sign(&get()), 0), Some(DenyReason::ClaimRequired));
}

#[test]
fn a_body_that_is_hidden_or_does_not_match_its_announcement_is_refused() {
    let bench = Bench::new();
    let post_request = bench.agent.sign(&post());
    let get_request = bench.agent.sign(&get());
    let invisible = Some(DenyReason::BodyNotVisible);
    assert_eq!(bench.reason(Stage::Body, &post_request.clone().without_body(), 0), invisible);
    assert_eq!(bench.reason(Stage::Body, &get_request.clone().without_body(), 0), invisible);
    let mut added = get_request;
    added.body = Some(b"smuggled".to_vec());
    let mut taken = post_request;
    taken.body = Some(Vec::new());
    for request in [added, taken] {
        assert_eq!(bench.reason(Stage::Body, &request, 0), Some(fault(SignatureFault::SignedComponentsInvalid)));
    }
}

#[test]
fn upgrades_are_for_bodiless_gets_on_connections_that_list_them() {
    let listed = || Bench::with(|settings| settings.upgrades = vec!["websocket".to_owned()]);
    let forbidden = Some(DenyReason::MethodOrPathForbidden);
    let bench = listed();
    let upgrade = |draft: &Draft, protocol: &str| bench.agent.sign(draft).add("upgrade", protocol);
    assert_eq!(bench.reason(Stage::Body, &upgrade(&get(), "WebSocket"), 0), None);
    assert_eq!(bench.reason(Stage::Body, &upgrade(&get(), "h2c"), 0), forbidden);
    assert_eq!(bench.reason(Stage::Body, &upgrade(&get(), "websocket, h2c"), 0), forbidden);
    assert_eq!(bench.reason(Stage::Body, &upgrade(&get(), "websocket").add("upgrade", "websocket"), 0), forbidden);
    assert_eq!(bench.reason(Stage::Body, &upgrade(&post(), "websocket"), 0), forbidden);
    let bodiless = Draft { body: Vec::new(), ..post() };
    assert_eq!(bench.reason(Stage::Body, &upgrade(&bodiless, "websocket"), 0), forbidden);
    assert_eq!(bench.reason(Stage::Head, &upgrade(&post(), "websocket").without_body(), 0), forbidden);
    let plain = Bench::new();
    assert_eq!(plain.reason(Stage::Body, &upgrade(&get(), "websocket"), 0), forbidden);
}

#[test]
fn an_upgrade_that_signs_a_body_is_refused_before_its_body_is_read() {
    let bench = Bench::with(|settings| settings.upgrades = vec!["websocket".to_owned()]);
    let draft = Draft { method: "GET".to_owned(), ..post() };
    let mut request = bench.agent.sign(&draft).add("upgrade", "websocket");
    request.body = Some(Vec::new());
    assert_eq!(bench.reason(Stage::Head, &request, 0), Some(DenyReason::MethodOrPathForbidden));
}

#[test]
fn a_header_does_not_turn_an_allowed_method_into_another() {
    let mut bench = Bench::new();
    let ask = |bench: &Bench, name: &str, value: &str| {
        bench.reason(Stage::Body, &bench.agent.sign(&post()).add(name, value), 0)
    };
    for name in ["x-http-method-override", "x-http-method", "x-method-override", "X_HTTP-Method_Override"] {
        assert_eq!(ask(&bench, name, "DELETE"), None, "every method is allowed");
    }
    change(&mut bench, |settings| settings.allowed_methods = vec!["POST".to_owned(), "PATCH".to_owned()]);
    for name in ["x-http-method-override", "X-HTTP-Method", "x-method-override", "x_http_method_override"] {
        for refused in ["DELETE", "", "PATCH, DELETE", "P\u{0}ATCH"] {
            assert_eq!(ask(&bench, name, refused), Some(DenyReason::MethodOrPathForbidden), "{name}: {refused}");
        }
        assert_eq!(ask(&bench, name, " patch "), None);
    }
}

#[test]
fn an_overdue_secret_warns_or_blocks_or_neither() {
    let mut bench = Bench::with(|settings| settings.next_rotation_due_at = Some(UnixSeconds(NOW - 1)));
    let request = bench.agent.sign(&get());
    assert_eq!(bench.plan(&request).0.rotation_overdue, Some(UnixSeconds(NOW - 1)));
    bench.set(|settings| settings.rotation = Rotation::Off);
    assert_eq!(bench.plan(&request).0.rotation_overdue, None);
    bench.set(|settings| settings.rotation = Rotation::Block);
    assert_eq!(bench.denial(&request).reason, DenyReason::RotationRequired);
    bench.set(|settings| settings.rotation_grace_days = 1);
    assert_eq!(bench.plan(&request).0.rotation_overdue, None);
}

#[test]
fn strangers_share_one_budget_and_approved_keys_do_not_pay_into_it() {
    let mut bench = Bench::new();
    bench.set(|settings| settings.stranger_rate_per_second = 2);
    let ask = |number: u32, millis: u64| {
        let request = Agent::new(number).sign(&get()).from(&format!("192.0.2.{number}"));
        bench.reason(Stage::Body, &request, millis)
    };
    assert_eq!(ask(2, 0), Some(DenyReason::ClaimRequired));
    assert_eq!(ask(3, 0), Some(DenyReason::ClaimRequired));
    assert_eq!(ask(4, 0), Some(DenyReason::RateLimited));
    assert_eq!(bench.reason(Stage::Body, &bench.agent.sign(&get()), 0), None);
    assert_eq!(ask(4, 500), Some(DenyReason::ClaimRequired));
    assert_eq!(ask(4, 500), Some(DenyReason::RateLimited), "a stranger pays for each request anew");
    // What needs no verification to be refused costs nothing.
    let cheap = Agent::new(5).sign(&Draft { created: NOW - 400, ..get() });
    assert_eq!(bench.reason(Stage::Body, &cheap, 500), Some(fault(SignatureFault::TimestampOutOfRange)));
    bench.set(|settings| settings.stranger_rate_per_second = 0);
    assert_eq!(bench.reason(Stage::Body, &Agent::new(6).sign(&get()), 9000), Some(DenyReason::RateLimited));
}

#[test]
fn forgeries_under_an_approved_key_count_against_the_address() {
    let bench = Bench::new();
    let forged = bench.agent.sign(&get()).forged().from("198.51.100.1");
    for _ in 0..FAILURE_BURST {
        assert_eq!(bench.reason(Stage::Body, &forged, 0), Some(fault(SignatureFault::VerificationFailed)));
    }
    assert_eq!(bench.reason(Stage::Body, &forged, 0), Some(DenyReason::RateLimited));
    let genuine = bench.agent.sign(&get());
    assert_eq!(bench.reason(Stage::Body, &genuine.clone().from("198.51.100.1"), 0), Some(DenyReason::RateLimited));
    assert_eq!(bench.reason(Stage::Body, &genuine.clone().from("198.51.100.2"), 0), None, "the key is not locked out");
    let recovered = 1000 / u64::from(FAILURES_PER_SECOND);
    assert_eq!(bench.reason(Stage::Body, &genuine.from("198.51.100.1"), recovered), None);
}

#[test]
fn made_up_certificates_do_not_lock_out_an_agent_behind_the_same_address() {
    let bench = Bench::new();
    assert_eq!(bench.reason(Stage::Body, &bench.agent.sign(&get()), 0), None);
    // The public key is all it takes to name an approved key.
    let made_up = bench.agent.sign_with(&get(), &with_another_proof(&bench.agent));
    for _ in 0..FAILURE_BURST {
        assert_eq!(bench.reason(Stage::Body, &made_up, 0), Some(fault(SignatureFault::CertInvalid)));
    }
    assert_eq!(bench.reason(Stage::Body, &made_up, 0), Some(DenyReason::RateLimited));
    assert_eq!(bench.reason(Stage::Body, &bench.agent.sign(&get()), 0), None);
    // Who has seen the certificate itself is counted as well, on its account.
    let forged = bench.agent.sign(&get()).forged();
    for _ in 0..FAILURE_BURST {
        assert_eq!(bench.reason(Stage::Body, &forged, 0), Some(fault(SignatureFault::VerificationFailed)));
    }
    assert_eq!(bench.reason(Stage::Body, &forged, 0), Some(DenyReason::RateLimited));
}

#[test]
fn verified_certificates_without_a_proof_of_possession_are_paid_for() {
    // The certificate is public and tolerates unknown members: endless variants of it verify.
    let bench = Bench::new();
    let variant = |number: u32| {
        let certificate = bench.agent.certificate(&format!("\"x\":{number},"));
        bench.agent.sign_with(&get(), &certificate).forged()
    };
    for number in 0..FAILURE_BURST {
        assert_eq!(bench.reason(Stage::Body, &variant(number), 0), Some(fault(SignatureFault::VerificationFailed)));
    }
    assert_eq!(bench.reason(Stage::Body, &variant(FAILURE_BURST), 0), Some(DenyReason::RateLimited));
    let header = bench.agent.certificate("\"x\":1,");
    assert!(bench.gate.memory.certificate(&bench.gate.memory.certificate_print(&header)).is_none());
}

#[test]
fn certificates_are_kept_for_approved_keys_that_have_signed() {
    let bench = Bench::new();
    let kept = |agent: &Agent| {
        let print = bench.gate.memory.certificate_print(&agent.certificate(""));
        bench.gate.memory.certificate(&print).is_some()
    };
    let stranger = Agent::new(2);
    assert_eq!(bench.reason(Stage::Body, &stranger.sign(&get()), 0), Some(DenyReason::ClaimRequired));
    assert!(!kept(&stranger));
    assert_eq!(bench.reason(Stage::Body, &bench.agent.sign(&get()), 0), None);
    assert!(kept(&bench.agent));
}

#[test]
fn a_key_whose_approval_is_gone_is_a_stranger_although_its_certificate_is_kept() {
    let mut bench = Bench::new();
    assert_eq!(bench.reason(Stage::Body, &bench.agent.sign(&get()), 0), None);
    bench.snapshot.approvals = crate::domain::approval::Approvals::default();
    bench.set(|settings| settings.stranger_rate_per_second = 1);
    assert_eq!(bench.reason(Stage::Body, &bench.agent.sign(&get()), 0), Some(DenyReason::ClaimRequired));
    assert_eq!(bench.reason(Stage::Body, &bench.agent.sign(&get()), 0), Some(DenyReason::RateLimited));
}

#[test]
fn head_and_body_cost_one_verification() {
    let bench = Bench::new();
    let request = bench.agent.sign(&post());
    assert_eq!(bench.reason(Stage::Head, &request.clone().without_body(), 0), None);
    // With the address exhausted, whatever needs a verification is refused: what passes needed none.
    let forged = bench.agent.sign(&get()).forged();
    for _ in 0..FAILURE_BURST {
        bench.reason(Stage::Body, &forged, 0);
    }
    let another = bench.agent.sign(&Draft { nonce: "another".to_owned(), ..post() });
    assert_eq!(bench.reason(Stage::Head, &another.without_body(), 0), Some(DenyReason::RateLimited));
    assert_eq!(bench.reason(Stage::Head, &request.clone().without_body(), 0), None, "asked again");
    let mut other_body = request.clone();
    other_body.body = Some(b"\"pong\"".to_vec());
    assert_eq!(bench.reason(Stage::Body, &other_body, 0), Some(fault(SignatureFault::ContentDigestMismatch)));
    assert_eq!(bench.reason(Stage::Body, &request, 0), None);
    assert_eq!(bench.reason(Stage::Body, &request, 0), Some(DenyReason::RateLimited), "the memory is used up");
}

#[test]
fn what_the_head_stage_saw_does_not_outlive_its_approval_or_its_age() {
    let mut bench = Bench::new();
    let request = bench.agent.sign(&post());
    assert_eq!(bench.reason(Stage::Head, &request.clone().without_body(), 0), None);
    assert_eq!(bench.reason(Stage::Body, &request, 301_000), Some(fault(SignatureFault::TimestampOutOfRange)));
    bench.snapshot.approvals = crate::domain::approval::Approvals::default();
    assert_eq!(bench.reason(Stage::Body, &request, 0), Some(DenyReason::ClaimRequired));
}

#[test]
fn what_was_verified_for_one_request_is_not_lent_to_another() {
    let bench = Bench::new();
    let request = bench.agent.sign(&post());
    assert_eq!(bench.reason(Stage::Head, &request.clone().without_body(), 0), None);
    let bend: [fn(&mut Request); 5] = [
        |request| request.target = b"/proxy/demo-service/b".to_vec(),
        |request| request.method = "PUT".to_owned(),
        |request| request.authority = "localhost:38000".to_owned(),
        |request| request.scheme = "https".to_owned(),
        |request| *request.header("sigilum-subject") = b"customer-2".to_vec(),
    ];
    for bend in bend {
        let mut other = request.clone();
        bend(&mut other);
        assert_eq!(bench.reason(Stage::Body, &other, 0), Some(fault(SignatureFault::VerificationFailed)));
    }
    assert_eq!(bench.reason(Stage::Body, &request, 0), None);
}

#[test]
fn one_gate_serves_many_threads() {
    let bench = Bench::new();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let bench = &bench;
            scope.spawn(move || {
                let mut scratch = Scratch::default();
                for number in 0..25 {
                    let draft = Draft { nonce: format!("{thread}-{number}"), ..post() };
                    let request = bench.agent.sign(&draft);
                    let mut ask = |stage, request: &Request| {
                        bench.gate.decide(stage, request, &bench.snapshot, later(0), &mut scratch)
                    };
                    assert!(matches!(ask(Stage::Head, &request.clone().without_body()), Verdict::Continue(_)));
                    assert!(matches!(ask(Stage::Head, &request.clone().forged().without_body()), Verdict::Deny(_)));
                    match ask(Stage::Body, &request) {
                        Verdict::Admit(_, admission) => assert_eq!(admission.nonce, format!("{thread}-{number}")),
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
    });
}

#[test]
fn nothing_secret_is_in_a_denial() {
    let (mut bench, request) = bent(&[&defects()[13]]);
    let shown = format!("{:?}", bench.denial(&request));
    assert!(!shown.contains("s3cret"), "{shown}");
    change(&mut bench, |settings| settings.allowed_methods = Vec::new());
    let connection = Arc::clone(bench.snapshot.connection("demo-service").unwrap());
    assert!(!format!("{connection:?}").contains("s3cret"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_requests_are_refused_without_panic(
        method in "[A-Z]{0,8}",
        authority in "(localhost|127\\.0\\.0\\.1|[a-z.:@,\\[\\]0-9]{0,12})(:[0-9]{1,6})?",
        target in "(/proxy/demo-service|/slack|)[ -~]{0,24}",
        values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 8),
        body in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..16)),
        head in any::<bool>(),
    ) {
        let bench = Bench::new();
        let names = ["signature-input", "signature", "sigilum-namespace", "sigilum-subject", "sigilum-agent-id", "sigilum-agent-key", "sigilum-agent-cert", "content-digest"];
        let headers = names.iter().map(|name| (*name).to_owned()).zip(values).collect();
        let request = Request {
            method, scheme: "http".to_owned(), authority, target: target.into_bytes(), headers, body, address: None, assigned: None,
        };
        let stage = if head { Stage::Head } else { Stage::Body };
        prop_assert!(bench.reason(stage, &request, 0).is_some());
    }

    /// One bit anywhere in a covered part, at either stage: refused. The method's case is not covered by the profile.
    #[test]
    fn a_flipped_bit_is_refused(part in 0_usize..10, at in any::<prop::sample::Index>(), bit in 0_u8..8, head in any::<bool>()) {
        let bench = Bench::new();
        let mut request = bench.agent.sign(&post());
        let flip = |bytes: &mut Vec<u8>| { let at = at.index(bytes.len()); bytes[at] ^= 1 << bit; };
        let names = ["signature", "sigilum-namespace", "sigilum-subject", "sigilum-agent-key", "sigilum-agent-cert", "content-digest"];
        let stage = if head { Stage::Head } else { Stage::Body };
        match part {
            0 => flip(&mut request.target),
            1 => {
                let mut bytes = request.authority.clone().into_bytes();
                flip(&mut bytes);
                let Ok(text) = String::from_utf8(bytes) else { return Ok(()) };
                request.authority = text;
            }
            2 if stage == Stage::Body => flip(request.body.as_mut().unwrap()),
            2 => return Ok(()),
            3 => {
                // Of the parameters, the algorithm's case alone is free.
                let value = request.header("signature-input");
                let before = value.clone();
                flip(value);
                if value.eq_ignore_ascii_case(&before) { return Ok(()); }
            }
            _ => flip(request.header(names[part - 4])),
        }
        prop_assert!(bench.reason(stage, &request, 0).is_some(), "{request:?}");
    }
}

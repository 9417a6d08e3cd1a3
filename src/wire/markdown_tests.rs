#![allow(clippy::unwrap_used, reason = "test code may panic")]

use proptest::prelude::*;

use super::*;

fn request(registering: Registering<'_>) -> ClaimRequired<'_> {
    ClaimRequired {
        namespace: "acme",
        subject: "alice",
        service: "svc-one",
        agent_key: "ed25519:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=",
        remote_address: "192.0.2.7",
        registering,
    }
}

fn recorded(status: &str) -> Registration {
    Registration {
        http_status: Some(201),
        claim_id: "cl_0123456789abcdef01234567".to_owned(),
        claim_status: status.to_owned(),
        message: "Authorization request submitted".to_owned(),
        ..Registration::unsent(Submission::Recorded, "")
    }
}

/// Each answer as it is sent, whole. A difference that is wanted is a change of the file.
#[test]
fn the_answers_are_those_on_file() {
    let rejected_by_api = Registration {
        http_status: Some(403),
        code: "FORBIDDEN".to_owned(),
        message: "Service does not match the API key".to_owned(),
        ..Registration::unsent(Submission::ApiRejected, "")
    };
    let mismatch = Registration {
        http_status: Some(403),
        code: "SIGNATURE_NAMESPACE_MISMATCH".to_owned(),
        message: "The signer's namespace is another than the claim's".to_owned(),
        ..Registration::unsent(Submission::ApiRejected, "")
    };
    let no_key = "no API key of service svc-one was found: run `sigilum service add svc-one`";
    for (name, told, expected) in [
        ("pending", recorded("pending"), include_str!("../../tests/golden/claim-required/pending.md")),
        ("approved", recorded("approved"), include_str!("../../tests/golden/claim-required/approved.md")),
        ("rejected", recorded("rejected"), include_str!("../../tests/golden/claim-required/rejected.md")),
        ("other", recorded("under-review"), include_str!("../../tests/golden/claim-required/other.md")),
        ("api-rejected", rejected_by_api, include_str!("../../tests/golden/claim-required/api-rejected.md")),
        ("mismatch", mismatch, include_str!("../../tests/golden/claim-required/mismatch.md")),
        (
            "no-response",
            Registration::unsent(Submission::NoResponse, ""),
            include_str!("../../tests/golden/claim-required/no-response.md"),
        ),
        (
            "failed-before-response",
            Registration::unsent(Submission::FailedBeforeResponse, no_key),
            include_str!("../../tests/golden/claim-required/failed-before-response.md"),
        ),
        ("foreign", Registration::foreign(), include_str!("../../tests/golden/claim-required/foreign.md")),
    ] {
        check(name, Registering::Told(&told), expected);
    }
    check("disabled", Registering::Disabled, include_str!("../../tests/golden/claim-required/disabled.md"));
    check("untold", Registering::Untold, include_str!("../../tests/golden/claim-required/untold.md"));
}

fn check(name: &str, registering: Registering<'_>, expected: &str) {
    let body = request(registering).markdown();
    assert_eq!(body, expected.trim_end_matches('\n'), "{name}");
    for marker in [
        "Sigilum verified your signature",
        "# HTTP 403 AUTH_CLAIM_REQUIRED: Sigilum Authorization Required",
        "SECURE ACCESS BLOCKED",
        "revoked/expired",
    ] {
        assert!(body.contains(marker), "{name}: {marker}");
    }
    assert_eq!(body.trim(), body, "{name}");
    assert_eq!(body.matches("\n## ").count(), 6, "{name}");
}

#[test]
fn inserted_values_stay_on_their_line() {
    let subject = " al`ice\r\n# Approved\u{85}<script>\u{2028}\u{202e} ";
    let shown = ClaimRequired {
        subject,
        agent_key: &format!("ed25519:{}", "A".repeat(200)),
        remote_address: "",
        ..request(Registering::Disabled)
    }
    .markdown();
    assert!(shown.contains("- Subject: al'ice  # Approved &lt;script&gt;\n"), "{shown}");
    assert!(shown.contains(&format!("- Agent key: ed25519:{}...\n", "A".repeat(88))));
    assert!(shown.contains("- Remote IP: (unknown)\n"));
}

#[test]
fn texts_of_others_are_cut() {
    let told = Registration { message: "m".repeat(5000), error: "e".repeat(221), ..recorded("pending") };
    let shown = request(Registering::Told(&told)).markdown();
    assert!(shown.contains(&format!("- Claim API message: `{}...`\n", "m".repeat(220))));
    assert!(shown.contains(&format!("- Submit error: `{}...`\n", "e".repeat(220))));
    let whole = Registration { error: "e".repeat(220), ..recorded("pending") };
    assert!(
        request(Registering::Told(&whole)).markdown().contains(&format!("- Submit error: `{}`\n", "e".repeat(220)))
    );
}

#[test]
fn the_next_step_of_a_bad_answer_follows_what_it_says() {
    let rejected = Registration { http_status: Some(409), ..Registration::unsent(Submission::ApiRejected, "") };
    let shown = |told: &Registration| request(Registering::Told(told)).markdown();
    let waiting = Registration { claim_id: "cl_9".to_owned(), claim_status: "pending".to_owned(), ..rejected.clone() };
    let text = shown(&waiting);
    assert!(text.contains("- Claim ID: `cl_9`\n- Claim state: `pending`\n"), "{text}");
    assert!(text.contains("approve the claim `cl_9`, which is waiting"), "{text}");
    assert!(!shown(&rejected).contains("answer is above"));
    for told in [
        Registration { code: "CODE".to_owned(), ..rejected.clone() },
        Registration { message: "text".to_owned(), ..rejected },
    ] {
        assert!(shown(&told).contains("(its answer is above)"));
    }
}

#[test]
fn the_next_step_follows_the_code_before_the_state() {
    let told = Registration { code: NAMESPACE_MISMATCH.to_owned(), ..recorded("pending") };
    let shown = request(Registering::Told(&told)).markdown();
    let step = shown.rsplit("## Next Step\n\n").next().unwrap();
    assert!(step.contains("`acme`") && step.contains("`GATEWAY_SIGILUM_NAMESPACE`"), "{step}");
    // What was not answered says nothing of a claim, whatever else is set.
    let silent = Registration { submission: Submission::NoResponse, ..recorded("approved") };
    assert!(request(Registering::Told(&silent)).markdown().ends_with(REVIEW));
}

/// Text that looks for a way out of its line: Markdown, HTML, line ends of all sorts.
fn hostile() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "`",
        "\n",
        "\r\n",
        "\u{85}",
        "\u{2028}",
        "\u{2029}",
        "\u{202e}",
        "\0",
        "\u{1b}[2J",
        "\n## ",
        "~~~",
        "- ",
        "<b>",
        "  ",
        "a",
        "é",
        "\u{1f600}",
    ]);
    prop_oneof![
        prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat()),
        any::<String>(),
        "[ -~]{0,600}",
    ]
}

proptest! {
    /// Whatever the values, the body has the lines it would have without them, and no value is cut off by another.
    #[test]
    fn no_value_leaves_its_line(
        texts in prop::collection::vec(hostile(), 9),
        submission in prop::sample::select(vec![
            Submission::Recorded,
            Submission::ApiRejected,
            Submission::NoResponse,
            Submission::FailedBeforeResponse,
            Submission::ForeignNamespace,
        ]),
        http_status in prop::option::of(any::<u16>()),
    ) {
        let [namespace, subject, agent_key, remote_address, error, claim_id, claim_status, code, message] =
            <[String; 9]>::try_from(texts).unwrap();
        let told = Registration { submission, error, http_status, claim_id, claim_status, code, message };
        let asked = ClaimRequired {
            namespace: &namespace,
            subject: &subject,
            agent_key: &agent_key,
            remote_address: &remote_address,
            ..request(Registering::Told(&told))
        };
        let body = asked.markdown();
        prop_assert!(!body.chars().any(|letter| letter != '\n' && (letter.is_control() || steers(letter))));
        prop_assert_eq!(body.trim(), body.as_str());
        prop_assert_eq!(body.lines().filter(|line| line.starts_with('#')).count(), 7);
        prop_assert_eq!(body.lines().filter(|line| line.starts_with("~~~")).count(), 2);
        prop_assert!(body.chars().count() < 8192, "{}", body.len());
        let (_, rest) = body.split_once("## Request Context\n\n").unwrap();
        let (context, rest) = rest.split_once("\n\n## Authorization Registration\n\n").unwrap();
        let (bullets, rest) = rest.split_once("\n\n## Why This Happened\n").unwrap();
        let labels = |lines: &str| -> Vec<String> {
            lines.lines().map(|line| line.strip_prefix("- ").unwrap().split(": ").next().unwrap().to_owned()).collect()
        };
        prop_assert_eq!(labels(context), ["Namespace", "Subject", "Service", "Agent key", "Remote IP"]);
        let order = [
            "Auto-registration mode", "Claim submit result", "Submit error", "Claim API status", "Claim ID",
            "Claim state", "Claim API code", "Claim API message",
        ];
        let shown = labels(bullets);
        let mut wanted = order.iter();
        prop_assert!(shown.iter().all(|label| wanted.any(|known| known == label)), "{:?}", shown);
        // In back-ticks, and no other back-tick among them.
        prop_assert!(bullets.lines().all(|line| line.matches('`').count() == 2), "{}", bullets);
        prop_assert!(!rest.rsplit("## Next Step\n\n").next().unwrap().contains('\n'));
    }
}

#![allow(clippy::unwrap_used, reason = "test code may panic")]

use proptest::prelude::*;

use super::*;

#[test]
fn numbers_may_come_as_text_and_unknown_members_do_not_matter() {
    let plain =
        br#"{"decision_id":"d","connection":"linear","status":200,"duration_ms":12,"bytes_sent":7,"other":"/x"}"#;
    let text = br#"{"decision_id":"d","connection":"linear","status":"200","duration_ms":"12","bytes_sent":"7","reason":null}"#;
    let entry = AccessEntry::parse(plain).unwrap();
    assert_eq!(AccessEntry::parse(text).unwrap(), entry);
    assert!(entry.was_forwarded() && entry.status == 200 && entry.duration_ms == 12);
    assert!(AccessEntry::parse(b"not json").is_none());
}

/// What Envoy writes and what is read of it are told apart by name only.
#[test]
fn every_field_that_is_read_is_written() {
    let bootstrap = include_str!("../../envoy/envoy.yaml");
    let (_, format) = bootstrap.split_once("json_format:").unwrap();
    let names = format.lines().skip(1).map_while(|line| line.trim().split_once(": \"").map(|(name, _)| name));
    let written: serde_json::Map<_, _> = names.map(|name| (name.to_owned(), "7".into())).collect();
    assert!(written.len() > 20, "{written:?}");
    let entry = AccessEntry::parse(serde_json::to_string(&written).unwrap().as_bytes()).unwrap();
    let seven = || "7".to_owned();
    let expected = AccessEntry {
        timestamp: seven(),
        request_id: seven(),
        decision_id: seven(),
        connection: seven(),
        path: seven(),
        namespace: seven(),
        subject: seven(),
        agent_key: seven(),
        public_key: seven(),
        agent_id: seven(),
        method: seven(),
        reason: seven(),
        code: seven(),
        status: 7,
        duration_ms: 7,
        bytes_sent: 7,
        client_address: seven(),
    };
    assert_eq!(entry, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_line_is_judged(line in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = AccessEntry::parse(&line);
    }
}

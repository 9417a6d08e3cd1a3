//! Frames as the wire has them, whatever else comes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code may panic")]

use proptest::prelude::*;

use super::*;

const NOW: UnixMillis = UnixMillis(1_700_000_000_123);

fn command() -> Command {
    Command {
        request_id: "r-1".to_owned(),
        method: "POST".to_owned(),
        path: "/api/admin/connections".to_owned(),
        headers: BTreeMap::from([("accept".to_owned(), "application/json".to_owned())]),
        body: Some(Secret::new(r#"{"a":1}"#.to_owned())),
    }
}

#[test]
fn frames_are_those_of_the_protocol() {
    assert_eq!(ToBridge::Ping.write(NOW).expose(), r#"{"type":"ping","ts":1700000000123}"#);
    assert_eq!(FromBridge::Pong.write(NOW), r#"{"type":"pong","ts":1700000000123}"#);
    let said = ToBridge::Command(command()).write(NOW);
    let expected = r#"{"type":"command","request_id":"r-1","method":"POST","path":"/api/admin/connections","headers":{"accept":"application/json"},"body":"{\"a\":1}"}"#;
    assert_eq!(said.expose(), expected);
    let answer = Relayed {
        request_id: "r-1".to_owned(),
        status: 201,
        headers: BTreeMap::new(),
        body: None,
        error: Some("no".to_owned()),
    };
    let expected = r#"{"type":"response","request_id":"r-1","status":201,"headers":{},"body":null,"error":"no"}"#;
    assert_eq!(FromBridge::Response(answer).write(NOW), expected);
}

#[test]
fn a_command_comes_as_it_went() {
    let said = ToBridge::Command(command()).write(NOW);
    assert!(ToBridge::read(said.expose()).unwrap() == ToBridge::Command(command()));
}

#[test]
fn a_body_that_is_no_text_is_its_json() {
    let frame =
        r#"{"type":"command","request_id":"r","method":"GET","path":"/","headers":{"a":1,"b":"c"},"body":{"x":[1]}}"#;
    let Some(ToBridge::Command(command)) = ToBridge::read(frame) else { panic!("no command") };
    assert_eq!(command.body.unwrap().expose(), r#"{"x":[1]}"#);
    assert_eq!(command.headers, BTreeMap::from([("b".to_owned(), "c".to_owned())]), "text alone is a header");
}

#[test]
fn what_a_response_lacks_has_its_default() {
    let Some(FromBridge::Response(relayed)) = FromBridge::read(r#"{"type":"response","request_id":"r"}"#) else {
        panic!("no response")
    };
    assert_eq!((relayed.status, relayed.headers.len(), relayed.body, relayed.error), (500, 0, None, None));
    for status in ["99", "600", "-1", "70000", "\"200\"", "2e2"] {
        let frame = format!(r#"{{"type":"response","request_id":"r","status":{status}}}"#);
        let Some(FromBridge::Response(relayed)) = FromBridge::read(&frame) else { panic!("no response") };
        assert_eq!(relayed.status, 500, "{status}");
    }
}

#[test]
fn what_is_no_frame_is_none() {
    for text in ["", "x", "[]", "{}", r#"{"type":1}"#, r#"{"type":"hello"}"#, r#"{"type":"command"}"#] {
        assert!(ToBridge::read(text).is_none(), "{text}");
        assert!(FromBridge::read(text).is_none(), "{text}");
    }
    assert!(FromBridge::read(r#"{"type":"response","request_id":7}"#).is_none());
}

/// That they cost little is by design: what is not needed is never made into values.
#[test]
fn a_million_numbers_that_nobody_asked_for_are_passed_over() {
    let numbers = format!("[{}1]", "1,".repeat(1_000_000));
    let bare = r#"{"type":"response","request_id":"r","status":200}"#;
    let relayed = FromBridge::read(bare);
    assert!(relayed.is_some());
    for member in ["more", "method", "error", "headers"] {
        let frame = format!(r#"{{"type":"response","{member}":{numbers},"request_id":"r","status":200}}"#);
        assert_eq!(FromBridge::read(&frame), relayed, "{member}");
    }
    for member in ["type", "request_id"] {
        assert_eq!(
            FromBridge::read(&bare.replacen(member, "x", 1).replacen('{', &format!(r#"{{"{member}":{numbers},"#), 1)),
            None
        );
    }
}

#[test]
fn headers_beyond_a_thousand_are_passed_over() {
    let headers: Vec<_> =
        (0..3000).map(|number| format!(r#""{number}":{}"#, if number % 2 == 0 { "\"v\"" } else { "1" })).collect();
    let frame = format!(r#"{{"type":"response","request_id":"r","headers":{{{}}},"body":"b"}}"#, headers.join(","));
    let Some(FromBridge::Response(relayed)) = FromBridge::read(&frame) else { panic!("no response") };
    assert_eq!((relayed.headers.len(), relayed.body.as_deref()), (1000, Some("b")));
}

#[test]
fn what_has_two_meanings_is_no_frame() {
    for text in [
        r#"{"type":"response","request_id":"a","request_id":"b"}"#,
        r#"{"type":"response","request_id":"a","body":"\ud800"}"#,
        r#"["response","a",null,null,200,null,null,null]"#,
    ] {
        assert_eq!(FromBridge::read(text), None, "{text}");
    }
    assert!(ToBridge::read(r#"["ping",null,null,null,null,null,null,null]"#).is_none());
}

#[test]
fn a_refusal_is_found_whatever_its_case() {
    for terminal in Terminal::ALL {
        let (_, text) = terminal.wire();
        assert_eq!(Terminal::find(&format!("x: {}.", text.to_uppercase())), Some(terminal));
    }
    assert_eq!(Terminal::find("connect-timeout"), None);
}

#[test]
fn a_command_does_not_print_its_body_or_values() {
    let mut command = command();
    command.headers.insert("authorization".to_owned(), "canary-value".to_owned());
    command.body = Some(Secret::new("canary-value".to_owned()));
    assert!(!format!("{command:?}").contains("canary-value"));
}

#[test]
fn a_reconnect_secret_has_one_form() {
    let good = "Ab3-_".repeat(9)[..43].to_owned();
    assert_eq!(reconnect_secret(good.as_bytes()).unwrap().expose(), good);
    for bad in [
        "",
        &good[..42],
        &format!("{good}A"),
        &good.replace('-', "+"),
        &good.replace('-', " "),
        &good.replace('-', "="),
    ] {
        assert!(reconnect_secret(bad.as_bytes()).is_none(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn a_reconnect_secret_is_letters_of_base64url_and_nothing_else(value in proptest::collection::vec(any::<u8>(), 40..46)) {
        let wanted = value.len() == 43 && value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte));
        prop_assert_eq!(reconnect_secret(&value).is_some(), wanted);
    }

    #[test]
    fn nothing_a_peer_sends_is_a_panic(text in ".{0,200}") {
        let _ = (ToBridge::read(&text).is_some(), FromBridge::read(&text).is_some());
    }

    #[test]
    fn a_response_comes_as_it_went(
        request_id in ".{0,40}", status in 100_u16..600, body in proptest::option::of(".{0,100}"),
        error in proptest::option::of(".{0,40}"), headers in proptest::collection::btree_map(".{0,10}", ".{0,10}", 0..4),
    ) {
        let relayed = Relayed { request_id, status, headers, body, error };
        let frame = FromBridge::Response(relayed);
        prop_assert_eq!(FromBridge::read(&frame.write(NOW)), Some(frame));
    }
}

#![allow(clippy::unwrap_used, reason = "test code may panic")]

use proptest::prelude::*;

use super::*;

fn milliseconds(text: &str, default: u64, lowest: u64, instead: u64) -> Result<u128, Outcome> {
    let time = time("--x-ms", Some(text), default, lowest, instead, &mut Printer::standard());
    time.map(|time| time.as_millis()).map_err(|error| error.outcome)
}

#[test]
fn what_is_below_the_lowest_value_is_replaced() {
    for (text, heartbeat) in [("1000", 1000), ("999", 25_000), ("0", 25_000), ("-5", 25_000), (" 60000 ", 60_000)] {
        assert_eq!(milliseconds(text, 30_000, 1000, 25_000), Ok(heartbeat), "{text}");
    }
    for longest in ["86400000", "86400001"] {
        assert_eq!(milliseconds(longest, 1, 1, 1), Ok(86_400_000));
    }
}

#[test]
fn what_is_no_time_is_a_wrong_argument() {
    for text in ["", "abc", "NaN", "1.5", "1e3", "99999999999999999999999", "--1", "+-1"] {
        assert_eq!(milliseconds(text, 30_000, 1000, 25_000), Err(Outcome::Usage), "{text:?}");
    }
}

#[test]
fn only_what_fits_into_header_and_address_is_a_session_or_code() {
    for good in ["0b5c2a4e-7f57-4a3c-9c7e-0d3a8f6f2b11", "a.b_c", "A"] {
        assert!(parse_session(good).is_ok(), "{good}");
    }
    for bad in ["", "a b", "a/b", "a\n", "a\r\nx: y", "\u{e4}", &"a".repeat(65)] {
        assert!(parse_session(bad).is_err(), "{bad:?}");
    }
    let code = |text: &str| check_code(&Secret::new(text.to_owned()));
    assert!(code("ABCD2345").is_ok());
    for bad in ["", "AB CD", "AB:CD", "AB\r\n", "\u{e4}", &"A".repeat(65)] {
        let refused = code(bad).unwrap_err();
        assert!(bad.is_empty() || !refused.message.contains(bad), "{refused}");
    }
}

#[test]
fn a_session_may_stand_before_its_code() {
    let parts = |text: &str| parts(&Secret::new(text.to_owned()));
    let (session, code) = parts("0b5c-1:ABCD2345").unwrap();
    assert_eq!((session.unwrap().as_str(), code.expose()), ("0b5c-1", "ABCD2345"));
    let (session, code) = parts("ABCD2345").unwrap();
    assert_eq!((session, code.expose()), (None, "ABCD2345"));
    for bad in ["", ":", "a:", ":ABCD2345", "a:b:c", "a b:ABCD2345", "a:\nABCD\n2345"] {
        assert_eq!(parts(bad).unwrap_err().outcome, Outcome::Usage, "{bad:?}");
    }
}

proptest! {
    #[test]
    fn what_stands_in_place_of_a_code_is_taken_whole_or_not_at_all(text in "[a-z0-9.:_ \\-]{0,20}|.{0,100}") {
        if let Ok((session, code)) = parts(&Secret::new(text.clone())) {
            let whole = session.map(|id| format!("{}:", id.as_str())).unwrap_or_default() + code.expose();
            let trimmed: Vec<_> = text.split(':').map(str::trim).collect();
            prop_assert_eq!(whole, trimmed.join(":"));
            prop_assert!(check_code(&code).is_ok());
        }
    }
}

#[test]
fn an_address_says_where_and_nothing_else() {
    assert!(url("x", "https://api.example/base").is_ok());
    for bad in ["", "api.example", "ftp://a", "ws://a", "http://", "https://u:canary@a", "http://a?b", "http://a#b"] {
        let refused = url("x", bad).unwrap_err();
        assert_eq!(refused.outcome, Outcome::Usage, "{bad}");
        assert!(!refused.message.contains("canary"), "{refused}");
    }
}

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code may panic")]

use proptest::prelude::*;

use super::*;

const PACE: Pace = Pace {
    reconnect: Duration::from_millis(2000),
    connect_timeout: Duration::from_millis(5000),
    heartbeat: Duration::from_millis(30_000),
    relay_timeout: Duration::from_millis(10_000),
};

fn at(millis: u64) -> Moment {
    Moment { now: MonotonicMillis(1_000_000 + millis), chance: u16::MAX }
}

fn begun() -> Session {
    let (session, first) = Session::begin(PACE, at(0));
    assert_eq!(first, [Action::Connect { after: Duration::ZERO, form: Form::Header }]);
    session
}

fn open() -> Session {
    let mut session = begun();
    assert_eq!(session.on(Event::Opened, at(0)), [Action::Say(Notice::Open { first: true })]);
    session
}

fn command(id: &str, method: &str, path: &str, body: Option<&str>) -> Event {
    Event::Heard(Some(ToBridge::Command(Command {
        request_id: id.to_owned(),
        method: method.to_owned(),
        path: path.to_owned(),
        headers: BTreeMap::new(),
        body: body.map(|body| Secret::new(body.to_owned())),
    })))
}

fn relayed(mut actions: Vec<Action>) -> Relay {
    match actions.pop() {
        Some(Action::Relay(relay)) if actions.is_empty() => relay,
        other => panic!("{other:?} after {actions:?}"),
    }
}

fn said(actions: &[Action]) -> &Relayed {
    match actions {
        [Action::Send(FromBridge::Response(relayed))] => relayed,
        other => panic!("{other:?}"),
    }
}

fn closed(code: u16, reason: &str) -> Event {
    Event::Closed { code, reason: reason.to_owned() }
}

fn refused(status: u16, body: &str) -> Event {
    Event::Refused { status, body: body.to_owned() }
}

fn next_attempt(actions: &[Action]) -> (Duration, Form) {
    let found = actions.iter().find_map(|action| {
        let Action::Connect { after, form } = action else { return None };
        Some((*after, *form))
    });
    found.unwrap_or_else(|| panic!("no attempt in {actions:?}"))
}

#[test]
fn a_ping_is_answered_and_a_pong_is_not() {
    let mut session = open();
    assert_eq!(session.on(Event::Heard(Some(ToBridge::Ping)), at(1)), [Action::Send(FromBridge::Pong)]);
    assert_eq!(session.on(Event::Heard(Some(ToBridge::Pong)), at(2)), []);
    assert_eq!(session.on(Event::Heard(None), at(3)), []);
}

#[test]
fn a_ping_is_sent_at_each_heartbeat() {
    let mut session = open();
    assert_eq!(session.timer(), Some(at(30_000).now));
    assert_eq!(session.on(Event::Timer, at(29_999)), []);
    assert_eq!(session.on(Event::Timer, at(30_000)), [Action::Send(FromBridge::Ping)]);
    session.on(Event::Heard(Some(ToBridge::Pong)), at(30_001));
    assert_eq!(session.timer(), Some(at(60_000).now));
}

#[test]
fn a_silent_peer_is_dropped_after_two_heartbeats_and_a_half() {
    let mut session = open();
    for time in [30_000, 60_000] {
        assert_eq!(session.on(Event::Timer, at(time)), [Action::Send(FromBridge::Ping)]);
    }
    assert_eq!(session.timer(), Some(at(75_000).now));
    let actions = session.on(Event::Timer, at(75_000));
    assert_eq!(actions[0], Action::Drop);
    assert_eq!(
        actions[1],
        Action::Say(Notice::Closed { code: 1006, reason: "no sign of life for 75000 ms".to_owned() })
    );
    assert_eq!(next_attempt(&actions), (PACE.reconnect, Form::Header));
}

#[test]
fn any_sign_of_life_counts() {
    let mut session = open();
    for time in (20_000..=400_000).step_by(20_000) {
        assert!(!session.on(Event::Timer, at(time)).contains(&Action::Drop));
        session.on(Event::Heard(None), at(time));
    }
}

#[test]
fn a_command_is_relayed_and_answered_under_its_own_id() {
    let mut session = open();
    let first = relayed(session.on(command("a", "get", "/api/admin/connections", None), at(1)));
    let second = relayed(session.on(command("b", "POST", "/api/admin/connections", Some("{}")), at(2)));
    assert_eq!((first.allowed.verb(), first.body.is_none()), (allow::Verb::Get, true));
    assert_eq!(second.headers, [("content-type", "application/json".to_owned())]);
    let answer =
        |body: &str| Answer { status: 200, headers: BTreeMap::new(), body: Some(body.to_owned()), error: None };
    let late = session.on(Event::Answered(second.ticket, answer("second")), at(3));
    assert_eq!((said(&late).request_id.as_str(), said(&late).body.as_deref()), ("b", Some("second")));
    let early = session.on(Event::Answered(first.ticket, answer("first")), at(4));
    assert_eq!((said(&early).request_id.as_str(), said(&early).body.as_deref()), ("a", Some("first")));
    assert_eq!(session.on(Event::Answered(first.ticket, answer("again")), at(5)), [], "one answer each");
}

#[test]
fn what_is_not_on_the_list_is_answered_and_never_asked() {
    let mut session = open();
    let actions = session.on(command("a", "POST", "/api/admin/store/backup", None), at(1));
    let answer = said(&actions);
    assert_eq!((answer.status, answer.error.as_deref()), (400, Some("Unsupported relay path or method")));
}

#[test]
fn the_body_of_a_read_is_not_sent() {
    let mut session = open();
    let relay = relayed(session.on(command("a", "GET", "/health", Some("x")), at(1)));
    assert_eq!((relay.body, relay.headers), (None, Vec::new()));
}

#[test]
fn beyond_the_bound_it_is_busy_at_once() {
    let mut session = open();
    let mut relays: Vec<_> = (0..MAX_RELAYS)
        .map(|number| relayed(session.on(command(&number.to_string(), "GET", "/health", None), at(1))))
        .collect();
    assert_eq!(said(&session.on(command("more", "GET", "/health", None), at(2))).status, 503);
    let done = relays.pop().unwrap();
    session.on(Event::Answered(done.ticket, Answer::failed(502, "x")), at(3));
    relayed(session.on(command("again", "GET", "/health", None), at(4)));
}

#[test]
fn requests_of_a_lost_connection_count_until_they_end() {
    let mut session = open();
    let relays: Vec<_> = (0..MAX_RELAYS)
        .map(|number| relayed(session.on(command(&number.to_string(), "GET", "/health", None), at(1))))
        .collect();
    session.on(closed(1006, ""), at(2));
    session.on(Event::Opened, at(3));
    assert_eq!(said(&session.on(command("0", "GET", "/health", None), at(4))).status, 503);
    assert_eq!(session.on(Event::Answered(relays[0].ticket, Answer::failed(502, "x")), at(5)), [], "nobody waits");
    relayed(session.on(command("0", "GET", "/health", None), at(6)));
}

#[test]
fn the_same_request_twice_is_asked_once() {
    let mut session = open();
    relayed(session.on(command("a", "POST", "/api/admin/connections", Some("{}")), at(1)));
    assert_eq!(session.on(command("a", "POST", "/api/admin/connections", Some("{}")), at(2)), []);
}

#[test]
fn a_gateway_that_never_answers_is_answered_for() {
    let mut session = open();
    let relay = relayed(session.on(command("a", "GET", "/health", None), at(0)));
    assert_eq!(session.timer(), Some(at(10_000).now));
    let actions = session.on(Event::Timer, at(10_000));
    assert_eq!(actions[0], Action::Forget(relay.ticket));
    let answer = said(&actions[1..]);
    assert_eq!((answer.status, answer.request_id.as_str()), (502, "a"));
    assert_eq!(answer.error.as_deref(), Some("The gateway did not answer within 10000 ms"));
    assert_eq!(session.on(Event::Answered(relay.ticket, Answer::failed(502, "x")), at(10_001)), []);
}

#[test]
fn pauses_double_up_to_a_minute_and_begin_anew_after_a_good_connection() {
    let mut session = begun();
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let actions = session.on(Event::ConnectFailed("x".to_owned()), at(0));
        pauses.push(next_attempt(&actions).0.as_millis());
    }
    assert_eq!(pauses, [2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]);
    session.on(Event::Opened, at(0));
    assert_eq!(next_attempt(&session.on(closed(1006, ""), at(9_999))).0, MAX_PAUSE, "it did not last");
    session.on(Event::Opened, at(0));
    assert_eq!(next_attempt(&session.on(closed(1006, ""), at(10_000))).0, PACE.reconnect);
}

#[test]
fn chance_takes_up_to_half_of_a_pause() {
    for (chance, millis) in [(0, 1000), (u16::MAX / 2, 1499), (u16::MAX, 2000)] {
        let mut session = begun();
        let moment = Moment { chance, ..at(0) };
        let pause = next_attempt(&session.on(Event::ConnectFailed("x".to_owned()), moment)).0;
        assert_eq!(pause.as_millis(), millis);
    }
}

#[test]
fn a_shortest_pause_above_the_longest_is_kept() {
    let pace = Pace { reconnect: Duration::from_secs(300), ..PACE };
    let (mut session, _) = Session::begin(pace, at(0));
    for _ in 0..40 {
        let actions = session.on(Event::ConnectFailed("x".to_owned()), at(0));
        assert_eq!(next_attempt(&actions).0, pace.reconnect);
    }
}

#[test]
fn an_attempt_that_takes_too_long_is_given_up() {
    let mut session = begun();
    assert_eq!(session.timer(), Some(at(5000).now));
    let actions = session.on(Event::Timer, at(5000));
    assert_eq!(actions[0], Action::Drop);
    assert_eq!(actions[1], Action::Say(Notice::Trouble(Trouble::Late(PACE.connect_timeout), PACE.reconnect)));
    // The pause does not count.
    assert_eq!(session.timer(), Some(at(12_000).now));
}

#[test]
fn the_same_trouble_is_told_once() {
    let mut session = begun();
    let told = |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::Say(_)));
    assert!(told(&session.on(refused(503, ""), at(0))));
    assert!(!told(&session.on(refused(503, ""), at(1))));
    assert!(told(&session.on(refused(502, ""), at(2))));
    session.on(Event::Opened, at(3));
    session.on(closed(1006, ""), at(4));
    assert!(told(&session.on(refused(502, ""), at(5))), "it was well in between");
}

#[test]
fn our_control_plane_ends_a_session_by_status_and_text() {
    for terminal in Terminal::ALL {
        let (status, text) = terminal.wire();
        for body in [
            serde_json::json!({ "error": text }).to_string(),
            serde_json::json!({ "error": text.to_uppercase(), "code": "X" }).to_string(),
        ] {
            assert_eq!(begun().on(refused(status, &body), at(1)), [Action::End(End::Terminal(terminal))], "{body}");
        }
        // The right words with a wrong status.
        let body = serde_json::json!({ "error": text }).to_string();
        assert_eq!(next_attempt(&begun().on(refused(500, &body), at(1))).0, PACE.reconnect);
    }
}

#[test]
fn a_refusal_in_other_words_ends_the_session_where_both_ends_are_well() {
    for (status, body) in [
        (401, r#"{"error":"Unauthorized"}"#),
        (410, ""),
        (404, r#"{"error":"no such pairing"}"#),
        (403, "Invalid pair code"),
    ] {
        let mut session = begun();
        let within = Duration::from_secs(3);
        assert_eq!(session.on(refused(status, body), at(1)), [Action::Probe { within }]);
        assert_eq!(session.on(Event::Probed(true), at(2)), [Action::End(End::Refused(status))]);
        // Nobody says: that is no verdict.
        let mut session = begun();
        session.on(refused(status, body), at(1));
        assert_eq!(session.timer(), Some(at(4001).now));
        let actions = session.on(Event::Timer, at(4001));
        assert_eq!(actions[0], Action::Drop);
        assert_eq!(next_attempt(&actions), (PACE.reconnect, Form::Header));
    }
}

#[test]
fn a_stop_ends_a_probe() {
    let mut session = begun();
    session.on(refused(410, ""), at(1));
    assert_eq!(session.on(Event::Stop, at(2)), [Action::Drop, Action::End(End::Stopped)]);
}

#[test]
fn statuses_of_proxies_and_pages_pass() {
    for (status, body) in [
        (401, "<html>sign in</html>"),
        (403, "<html>Invalid pair code</html>"),
        (404, "not here"),
        (404, r#"{"error":{"message":"Pair session not found"}}"#),
        (410, r#"["Pair session expired"]"#),
        (429, r#"{"error":"Too many requests"}"#),
        (502, ""),
        (200, "<html></html>"),
        (301, ""),
    ] {
        let mut session = begun();
        let mut actions = session.on(refused(status, body), at(1));
        if let [Action::Probe { .. }] = actions[..] {
            actions = session.on(Event::Probed(false), at(1));
        }
        assert_eq!(actions[0], Action::Say(Notice::Trouble(Trouble::Refused(status), PACE.reconnect)), "{body}");
        assert_eq!(next_attempt(&actions), (PACE.reconnect, Form::Header));
    }
}

#[test]
fn a_session_that_another_bridge_holds_is_waited_for() {
    let mut session = begun();
    let actions = session.on(refused(409, r#"{"error":"in use"}"#), at(1));
    assert_eq!(actions[0], Action::Say(Notice::Trouble(Trouble::Occupied, PACE.reconnect)));
    assert_eq!(next_attempt(&actions).0, PACE.reconnect);
}

#[test]
fn a_control_plane_that_does_not_look_into_headers_gets_the_code_in_the_address() {
    let mut session = begun();
    let actions = session.on(refused(400, r#"{"error":"code is required"}"#), at(1));
    assert_eq!(
        actions,
        [Action::Say(Notice::CodeInAddress), Action::Connect { after: Duration::ZERO, form: Form::Query }]
    );
    session.on(Event::Opened, at(2));
    assert_eq!(next_attempt(&session.on(closed(1006, ""), at(3))).1, Form::Query, "it is remembered");
    // Another answers now: it is asked in the better form.
    assert_eq!(next_attempt(&session.on(refused(400, ""), at(4))).1, Form::Header);
}

#[test]
fn being_replaced_is_no_reason_to_fight() {
    let actions = open().on(closed(1000, "replaced"), at(1));
    assert_eq!(actions[1], Action::End(End::Replaced));
    for (code, reason) in [(1000, "bye"), (1001, "replaced"), (1012, "restart")] {
        next_attempt(&open().on(closed(code, reason), at(1)));
    }
}

#[test]
fn a_close_reason_can_end_the_session() {
    for terminal in Terminal::ALL {
        let actions = open().on(closed(1008, terminal.wire().1), at(1));
        assert_eq!(actions[1], Action::End(End::Terminal(terminal)));
    }
}

#[test]
fn a_stop_closes_what_is_open_and_waits_for_what_is_under_way() {
    let shutdown = [Action::Close { code: 1000, reason: "shutdown" }, Action::End(End::Stopped)];
    assert_eq!(open().on(Event::Stop, at(1)), shutdown);
    let mut session = open();
    let relay = relayed(session.on(command("a", "GET", "/health", None), at(1)));
    assert_eq!(session.on(Event::Stop, at(2)), []);
    assert_eq!(said(&session.on(command("b", "GET", "/health", None), at(3))).status, 503);
    let actions = session.on(Event::Answered(relay.ticket, Answer::failed(502, "x")), at(4));
    assert_eq!(said(&actions[..1]).request_id, "a");
    assert_eq!(actions[1..], shutdown);
    assert_eq!((session.timer(), session.on(Event::Opened, at(5))), (None, Vec::new()), "nothing follows");
}

#[test]
fn a_stop_waits_two_seconds_at_most() {
    let mut session = open();
    relayed(session.on(command("a", "GET", "/health", None), at(1)));
    session.on(Event::Stop, at(2));
    assert_eq!(session.timer(), Some(at(2002).now));
    let actions = session.on(Event::Timer, at(2002));
    assert_eq!(actions, [Action::Close { code: 1000, reason: "shutdown" }, Action::End(End::Stopped)]);
}

#[test]
fn a_stop_ends_an_attempt() {
    assert_eq!(begun().on(Event::Stop, at(1)), [Action::Drop, Action::End(End::Stopped)]);
}

/// Something that may happen at any time.
#[derive(Debug, Clone)]
enum Step {
    Open,
    Close,
    Refuse(u16),
    Fail,
    Probe(bool),
    Command(u8, bool),
    Answer(u8),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Open),
        1 => Just(Step::Close),
        1 => prop::sample::select(vec![400_u16, 401, 404, 409, 503]).prop_map(Step::Refuse),
        1 => Just(Step::Fail),
        // A session that is over says nothing more.
        1 => Just(Step::Probe(false)),
        8 => (any::<u8>(), any::<bool>()).prop_map(|(id, allowed)| Step::Command(id, allowed)),
        6 => any::<u8>().prop_map(Step::Answer),
        1 => any::<u16>().prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever the network does: no more requests than the bound, one answer to each request at most and none on
    /// another connection, and there always is a next moment.
    #[test]
    fn no_order_of_events_loses_the_thread(steps in prop::collection::vec(step(), 0..200)) {
        let (mut session, _) = Session::begin(PACE, at(0));
        let (mut now, mut connection, mut is_open) = (0_u64, 0_u32, false);
        let mut carried: BTreeMap<Ticket, (String, u32)> = BTreeMap::new();
        for step in steps {
            let event = match &step {
                Step::Open if !is_open => Event::Opened,
                Step::Close if is_open => closed(1006, ""),
                Step::Refuse(status) if !is_open => refused(*status, ""),
                Step::Fail if !is_open => Event::ConnectFailed("x".to_owned()),
                Step::Probe(well) if !is_open => Event::Probed(*well),
                Step::Command(id, allowed) if is_open => {
                    command(&id.to_string(), "GET", if *allowed { "/health" } else { "/metrics" }, None)
                }
                Step::Answer(nth) if !carried.is_empty() => {
                    let ticket = *carried.keys().nth(usize::from(*nth) % carried.len()).unwrap();
                    Event::Answered(ticket, Answer::failed(502, format!("{ticket:?}")))
                }
                Step::Wait(more) => {
                    now += u64::from(*more);
                    Event::Timer
                }
                Step::Open | Step::Close | Step::Refuse(_) | Step::Fail | Step::Probe(_) | Step::Command(..) | Step::Answer(_) => continue,
            };
            let (opens, closes) = (matches!(event, Event::Opened), matches!(event, Event::Closed { .. }));
            let asked = if let Step::Command(id, _) = &step { Some(id.to_string()) } else { None };
            let answered = if let Event::Answered(ticket, _) = &event { Some(*ticket) } else { None };
            for action in session.on(event, at(now)) {
                match action {
                    Action::Relay(relay) => {
                        carried.insert(relay.ticket, (asked.clone().unwrap(), connection));
                        prop_assert!(carried.len() <= MAX_RELAYS);
                    }
                    Action::Forget(ticket) => { carried.remove(&ticket); }
                    Action::Drop => is_open = false,
                    Action::Send(FromBridge::Response(relayed)) => {
                        prop_assert!(is_open);
                        if let (Some(ticket), 502) = (answered, relayed.status) {
                            let (id, made) = carried.get(&ticket).unwrap();
                            prop_assert_eq!((id, *made), (&relayed.request_id, connection));
                            prop_assert_eq!(relayed.error.unwrap(), format!("{ticket:?}"));
                        }
                    }
                    Action::Connect { .. } | Action::Probe { .. } | Action::Send(_) | Action::Close { .. } | Action::Say(_) | Action::End(_) => {}
                }
            }
            if let Some(ticket) = answered { carried.remove(&ticket); }
            if opens { is_open = true; connection += 1; }
            if closes { is_open = false; }
            prop_assert!(session.timer().is_some_and(|timer| timer >= MonotonicMillis(1_000_000)));
        }
    }
}

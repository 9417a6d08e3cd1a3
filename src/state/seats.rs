//! The authz processes that are connected: what is known of each, and whether their replay windows go together.
//!
//! Pure. Two that decide for one connection must know of each other's nonces, or a request could be used at both.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::time::MonotonicMillis;
use crate::domain::time::Now;
use crate::domain::time::UnixSeconds;
use crate::domain::validity::Validity;
use crate::state::publisher::PeerState;
use crate::state::scope::Scope;
use crate::state::tenure::Floors;
use crate::state::tenure::Moment;
use crate::state::tenure::Tenures;

/// How many authz processes one admin feeds; far more than one machine runs.
const MAX_STREAMS: usize = 256;
/// How many of them may have the same names in their certificates: whoever has one certificate leaves room for the
/// others. Replicas of one Deployment share theirs, old and new ones together while it is replaced.
pub(super) const MAX_OF_ONE: usize = 64;
/// How long a refusal is told, in milliseconds. Whoever was refused comes again every few seconds.
const TOLD_MS: u64 = 15_000;
/// How long it is told that one left with a certificate past its time, in seconds: by then it was replaced, or is not missed.
const CUT_OFF_TOLD: u64 = 24 * 3600;
/// Most of them that are remembered.
const MAX_CUT_OFF: usize = 16;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Seats {
    last: u64,
    /// Whether one of this machine ever came.
    had_ours: bool,
    taken: BTreeMap<u64, Seat>,
    admitted: u64,
    refused: Option<(MonotonicMillis, String)>,
    tenures: Tenures,
    /// Who left with a certificate that was past its time, and has not come again.
    cut_off: BTreeMap<String, Validity>,
}

/// One of them.
#[derive(Debug, Default)]
struct Seat {
    state: PeerState,
    /// The names in its certificate; `None`: it is on this machine.
    names: Option<Arc<[String]>>,
    /// What it decides with and for, once it was admitted.
    admitted: Option<Admitted>,
    /// The window it has said it has.
    window: String,
    /// What it may be deciding for: all it was sent, until it has said that it holds something else.
    may: Scope,
}

/// What one decides for from now on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) scope: Scope,
    /// Whether that is not all yet: another, with another window, has not said that it decides for the rest no more.
    pub(super) waits: bool,
    /// Whether others decide for something else than before.
    pub(super) displaced: bool,
}

#[derive(Debug)]
struct Admitted {
    /// Of two with the same reach, whoever came first goes first.
    order: u64,
    window: String,
    /// What it would decide for if it were alone.
    wanted: Scope,
    /// What of that it does decide for.
    held: Scope,
    /// Why that is not all.
    cut: Option<String>,
}

impl Seats {
    /// Nobody's, of an admin that begins now.
    pub(super) fn new(now: MonotonicMillis) -> Self {
        Self { tenures: Tenures::new(now), ..Self::default() }
    }

    /// Whether nobody has ever come.
    pub(super) const fn are_new(&self) -> bool {
        self.last == 0
    }

    /// Whether one of this machine ever came.
    pub(super) const fn had_ours(&self) -> bool {
        self.had_ours
    }

    /// A place for one that connects with these names in its certificate; `None` where there are too many.
    pub(super) fn take(&mut self, names: Option<&Arc<[String]>>) -> Option<u64> {
        let alike = |seat: &&Seat| names.is_some() && seat.names.as_ref() == names;
        if self.taken.len() >= MAX_STREAMS || self.taken.values().filter(alike).count() >= MAX_OF_ONE {
            return None;
        }
        self.last = self.last.wrapping_add(1);
        self.had_ours |= names.is_none();
        let state = PeerState { remote: names.is_some(), ..PeerState::default() };
        self.taken.insert(self.last, Seat { state, names: names.cloned(), ..Seat::default() });
        Some(self.last)
    }

    /// One decides for these connections from now on: what it is to be told of them.
    pub(super) fn give(&mut self, id: u64, scope: &Scope, moment: Moment) -> Floors {
        let Self { taken, tenures, .. } = self;
        for seat in taken.values() {
            tenures.see(&seat.window, &seat.may, moment.now);
        }
        let Some(seat) = taken.get(&id) else { return Floors::default() };
        tenures.give(&seat.window, scope, seat.names.is_some(), moment)
    }

    /// Gives a place up; `true` where others decide, or may decide, for more from now on.
    pub(super) fn leave(&mut self, id: u64, now: Now) -> bool {
        let Some(Seat { state, admitted, window, may, .. }) = self.taken.remove(&id) else { return false };
        self.tenures.see(&window, &may, now.monotonic);
        let now = now.seconds();
        self.cut_off.retain(|_, over| over.until.0.saturating_add(CUT_OFF_TOLD) > now.0);
        let over = state.certificate.filter(|certificate| certificate.is_over(now));
        if let Some(over) = over.filter(|_| !state.node.is_empty() && self.cut_off.len() < MAX_CUT_OFF) {
            self.cut_off.insert(state.node, over);
        }
        let dealt = admitted.is_some() && self.deal(id);
        dealt || !may.is_empty()
    }

    /// Who left because its certificate had ended, and when that was. It decides by what it had, as far as we know.
    pub(super) fn cut_off(&self, now: UnixSeconds) -> Vec<(String, Validity)> {
        let told = |over: &Validity| over.until.0.saturating_add(CUT_OFF_TOLD) > now.0;
        self.cut_off.iter().filter(|(_, over)| told(over)).map(|(node, over)| (node.clone(), *over)).collect()
    }

    pub(super) fn get(&mut self, id: u64) -> Option<&mut PeerState> {
        self.taken.get_mut(&id).map(|seat| &mut seat.state)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PeerState> {
        self.taken.values().map(|seat| &seat.state)
    }

    /// Lets one decide, with this window and for these connections: for which of them, and whether others do for fewer
    /// from now on; or the one line that says why for none. An empty window is that of a version that does not tell: it is
    /// judged by nobody.
    pub(super) fn admit(
        &mut self,
        id: u64,
        window: &str,
        wanted: &Scope,
        now: MonotonicMillis,
    ) -> Result<(Scope, bool), String> {
        self.admitted = self.admitted.saturating_add(1);
        let (order, held) = (self.admitted, Scope::default());
        let admitted = Admitted { order, window: window.to_owned(), wanted: wanted.clone(), held, cut: None };
        if let Some(seat) = self.taken.get_mut(&id) {
            self.cut_off.remove(&seat.state.node);
            window.clone_into(&mut seat.window);
            seat.admitted = Some(admitted);
        }
        let displaced = self.deal(id);
        Ok((self.held(id, wanted, now)?, displaced))
    }

    /// The same for one that decides already and would now, if it were alone, for these: those of them which no other may be
    /// deciding for still, or `regardless` of that.
    pub(super) fn hold(
        &mut self,
        id: u64,
        wanted: &Scope,
        regardless: bool,
        now: MonotonicMillis,
    ) -> Result<Held, String> {
        let admitted = self.taken.get_mut(&id).and_then(|seat| seat.admitted.as_mut());
        let is_other =
            admitted.is_some_and(|admitted| std::mem::replace(&mut admitted.wanted, wanted.clone()) != *wanted);
        let displaced = is_other && self.deal(id);
        let held = self.held(id, wanted, now)?;
        let scope = if regardless { held.clone() } else { self.free(id, &held) };
        Ok(Held { waits: scope != held, scope, displaced })
    }

    /// One is sent this, and may decide for it from now on.
    pub(super) fn sent(&mut self, id: u64, scope: &Scope) {
        // Nearly always it is what it had.
        if let Some(seat) = self.taken.get_mut(&id).filter(|seat| seat.may != *scope) {
            seat.may = seat.may.with(scope);
        }
    }

    /// One has said that it decides for this and nothing else.
    pub(super) fn heard(&mut self, id: u64, scope: Scope) {
        if let Some(seat) = self.taken.get_mut(&id) {
            seat.may = scope;
        }
    }

    /// What of this no other with another window may be deciding for.
    fn free(&self, id: u64, held: &Scope) -> Scope {
        let Some(mine) = self.taken.get(&id) else { return held.clone() };
        let window = |seat: &Seat| seat.admitted.as_ref().map(|admitted| admitted.window.clone());
        let ours = window(mine);
        let apart = |seat: &Seat| match (&ours, window(seat)) {
            (Some(ours), Some(theirs)) => *ours != theirs && !ours.is_empty() && !theirs.is_empty(),
            // It was refused, and has not left.
            (_, None) | (None, _) => true,
        };
        let others = self.taken.iter().filter(|(other, seat)| **other != id && apart(seat));
        others.fold(
            held.clone(),
            |free, (_, other)| {
                if other.may.meets(&free) { free.free_of(&other.may, &mine.may) } else { free }
            },
        )
    }

    /// What one decides for. Where nothing is left of what it wanted it decides no more.
    fn held(&mut self, id: u64, wanted: &Scope, now: MonotonicMillis) -> Result<Scope, String> {
        let Some(seat) = self.taken.get_mut(&id) else { return Ok(wanted.clone()) };
        let Some(admitted) = seat.admitted.as_ref() else { return Ok(wanted.clone()) };
        let Some(text) = admitted.cut.clone().filter(|_| admitted.held.is_empty()) else {
            return Ok(admitted.held.clone());
        };
        seat.admitted = None;
        self.refused = Some((now, text.clone()));
        Err(text)
    }

    /// Deals the connections out: one that two would decide for with different windows is given to the one that decides
    /// for more in all, so that whoever has one connection's certificate takes the others from nobody; of two with the
    /// same reach, to whoever came first. One that cannot ask its shared window decides nothing anyway, and by then the others may
    /// have another memory: it comes last. Says whether anybody but this one decides for something else than before.
    fn deal(&mut self, id: u64) -> bool {
        let reach = |(id, seat): (&u64, &Seat)| {
            let admitted = seat.admitted.as_ref()?;
            let is_failing = seat.state.report.as_ref().is_some_and(|report| report.replay_store_failing);
            Some((is_failing, Reverse(admitted.wanted.reach()), admitted.order, *id))
        };
        let mut turns: Vec<_> = self.taken.iter().filter_map(reach).collect();
        turns.sort_unstable();
        let mut served: Vec<(&str, &str, Scope)> = Vec::with_capacity(turns.len());
        let mut dealt = Vec::with_capacity(turns.len());
        for (.., id) in turns {
            let Some((seat, admitted)) =
                self.taken.get(&id).and_then(|seat| seat.admitted.as_ref().map(|admitted| (seat, admitted)))
            else {
                continue;
            };
            let (mut held, mut cut) = (admitted.wanted.clone(), None);
            for (node, window, scope) in &served {
                let is_other = *window != admitted.window && !window.is_empty() && !admitted.window.is_empty();
                if is_other && scope.meets(&held) {
                    held = held.without(scope);
                    cut = cut.or_else(|| Some(clash(&seat.state.node, node)));
                }
            }
            served.push((&seat.state.node, &admitted.window, held.clone()));
            dealt.push((id, held, cut));
        }
        let mut moved = false;
        for (one, held, cut) in dealt {
            if let Some(admitted) = self.taken.get_mut(&one).and_then(|seat| seat.admitted.as_mut()) {
                moved |= one != id && admitted.held != held;
                (admitted.held, admitted.cut) = (held, cut);
            }
        }
        moved
    }

    /// Why one decides for fewer than it should, or was refused a moment ago and is likely to be still.
    pub(super) fn conflict(&self, now: MonotonicMillis) -> Option<String> {
        let cut = self.taken.values().find_map(|seat| seat.admitted.as_ref()?.cut.clone());
        let refused = self.refused.as_ref().filter(|(at, _)| now.since(*at) < TOLD_MS);
        cut.or_else(|| refused.map(|(_, text)| text.clone()))
    }
}

fn clash(name: &str, other: &str) -> String {
    format!(
        "{name} has another replay window than {other}, and both decide for one connection: a request could be used at \
         each; give them one window (replay.shared.url), or run one of them"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

    use proptest::prelude::*;

    use super::*;
    use crate::domain::time::UnixMillis;
    use crate::wire::state::proto;

    const NOW: MonotonicMillis = MonotonicMillis(1 << 40);

    fn wall(seconds: u64) -> Now {
        Now { wall: UnixMillis(seconds * 1000), monotonic: NOW }
    }

    fn only(ids: &[&str]) -> Scope {
        Scope::Only(Arc::new(ids.iter().map(|id| (*id).to_owned()).collect()))
    }

    #[test]
    fn who_decides_for_one_connection_has_one_window() {
        let mut seats = Seats::default();
        let [one, two] = std::array::from_fn(|_| seats.take(None).unwrap());
        seats.admit(one, "local:a", &Scope::Everything, NOW).unwrap();
        seats.admit(two, "local:b", &Scope::Everything, NOW).unwrap_err();
        assert!(seats.conflict(NOW).is_some());
        assert!(seats.conflict(MonotonicMillis(NOW.0 + TOLD_MS)).is_none(), "it is not told for ever");
        assert!(!seats.leave(one, wall(0)));
        seats.admit(two, "local:b", &Scope::Everything, NOW).unwrap();
    }

    #[test]
    fn whoever_cannot_ask_its_window_keeps_nobody_away() {
        let mut seats = Seats::default();
        let [cut_off, one, two] = std::array::from_fn(|_| seats.take(None).unwrap());
        for id in [cut_off, one, two] {
            seats.admit(id, "shared:old", &Scope::Everything, NOW).unwrap();
        }
        let failing = proto::Report { replay_store_failing: true, ..proto::Report::default() };
        seats.get(cut_off).unwrap().report = Some(failing.clone());
        seats.get(one).unwrap().report = Some(failing);
        // The two come again with what the store remembers since; the third cannot know of that.
        for id in [one, two] {
            seats.leave(id, wall(0));
        }
        let [one, two] = std::array::from_fn(|_| seats.take(None).unwrap());
        assert_eq!(seats.admit(one, "shared:new", &Scope::Everything, NOW), Ok((Scope::Everything, true)));
        assert_eq!(seats.admit(two, "shared:new", &Scope::Everything, NOW), Ok((Scope::Everything, false)));
        seats.hold(cut_off, &Scope::Everything, false, NOW).unwrap_err();
    }

    #[test]
    fn whoever_decides_for_one_connection_does_not_keep_away_who_decides_for_all() {
        let mut seats = Seats::default();
        let [thief, ours] = std::array::from_fn(|_| seats.take(None).unwrap());
        let one = only(&["svc-a"]);
        assert_eq!(seats.admit(thief, "local:thief", &one, NOW), Ok((one.clone(), false)));
        assert_eq!(seats.admit(ours, "local:a", &Scope::Everything, NOW), Ok((Scope::Everything, true)));
        seats.hold(thief, &one, false, NOW).unwrap_err();
        seats.admit(thief, "local:thief", &one, NOW).unwrap_err();
        assert_eq!(seats.hold(ours, &Scope::Everything, false, NOW).unwrap().scope, Scope::Everything);
    }

    #[test]
    fn a_clash_costs_nobody_more_than_what_both_decide_for() {
        let mut seats = Seats::default();
        let [one, two] = std::array::from_fn(|_| seats.take(None).unwrap());
        seats.admit(one, "local:a", &only(&["svc-a", "svc-b"]), NOW).unwrap();
        let wanted = only(&["svc-b", "svc-c"]);
        assert_eq!(seats.admit(two, "local:b", &wanted, NOW), Ok((only(&["svc-c"]), false)));
        assert!(seats.conflict(MonotonicMillis(NOW.0 + TOLD_MS)).is_some(), "it is told as long as it lasts");
        assert!(seats.leave(one, wall(0)));
        assert_eq!(seats.hold(two, &wanted, false, NOW).unwrap().scope, wanted);
        assert!(seats.conflict(MonotonicMillis(NOW.0 + TOLD_MS)).is_none());
    }

    #[test]
    fn a_connection_is_given_on_when_whoever_had_it_says_so_leaves_or_does_not_answer() {
        let mut seats = Seats::default();
        let [old, new] = std::array::from_fn(|_| seats.take(None).unwrap());
        let (both, one) = (only(&["svc-a", "svc-b"]), only(&["svc-a"]));
        seats.admit(old, "local:old", &one, NOW).unwrap();
        seats.sent(old, &one);
        assert_eq!(seats.admit(new, "local:new", &both, NOW), Ok((both.clone(), true)));
        let waiting = Held { scope: only(&["svc-b"]), waits: true, displaced: false };
        assert_eq!(seats.hold(new, &both, false, NOW), Ok(waiting));
        let given = || Held { scope: both.clone(), waits: false, displaced: false };
        assert_eq!(seats.hold(new, &both, true, NOW), Ok(given()), "it does not answer");
        seats.hold(old, &one, false, NOW).unwrap_err();
        assert!(seats.hold(new, &both, false, NOW).unwrap().waits, "that it was told is not that it heard");
        seats.heard(old, Scope::default());
        assert_eq!(seats.hold(new, &both, false, NOW), Ok(given()));
        seats.sent(old, &one);
        assert!(seats.leave(old, wall(0)), "somebody waits for that");
        assert_eq!(seats.hold(new, &both, false, NOW), Ok(given()));
        // What it has is not taken back because another may still have it.
        seats.sent(new, &both);
        let late = seats.take(None).unwrap();
        seats.sent(late, &one);
        assert_eq!(seats.hold(new, &both, false, NOW), Ok(given()));
    }

    #[derive(Debug, Clone)]
    enum Turn {
        Admit(usize, u8, u8),
        Hold(usize, u8),
        Hear(usize),
        Leave(usize),
    }

    fn turns() -> impl Strategy<Value = Turn> {
        prop_oneof![
            (0..6_usize, 0..4_u8, any::<u8>()).prop_map(|(who, window, set)| Turn::Admit(who, window, set)),
            (0..6_usize, any::<u8>()).prop_map(|(who, set)| Turn::Hold(who, set)),
            (0..6_usize).prop_map(Turn::Hear),
            (0..6_usize).prop_map(Turn::Leave),
        ]
    }

    /// Some of seven connections, or all.
    fn set(bits: u8) -> Scope {
        let names = (0..7).filter(|bit| bits & (1 << bit) != 0).map(|bit| format!("svc-{bit}"));
        if bits & 0x80 == 0 { Scope::Only(Arc::new(names.collect())) } else { Scope::Everything }
    }

    /// One authz, as its stream knows it.
    #[derive(Debug)]
    struct Told {
        id: u64,
        window: String,
        wanted: Scope,
        streams: bool,
        sent: Scope,
    }

    impl Told {
        fn new(seats: &mut Seats) -> Self {
            let (id, nothing) = (seats.take(None).unwrap(), Scope::default());
            Self { id, window: String::new(), wanted: nothing.clone(), streams: false, sent: nothing }
        }
    }

    proptest! {
        #[test]
        fn no_connection_has_two_windows_and_none_that_is_wanted_has_none(turns in prop::collection::vec(turns(), 0..40)) {
            let mut seats = Seats::default();
            let mut ids: Vec<u64> = (0..6).map(|_| seats.take(None).unwrap()).collect();
            for turn in turns {
                match turn {
                    Turn::Admit(who, window, bits) => {
                        let window = if window == 0 { String::new() } else { format!("local:{window}") };
                        let _ = seats.admit(ids[who], &window, &set(bits), NOW);
                    }
                    Turn::Hold(who, bits) => {
                        let _ = seats.hold(ids[who], &set(bits), false, NOW);
                    }
                    Turn::Hear(_) => {}
                    Turn::Leave(who) => {
                        seats.leave(ids[who], wall(0));
                        ids[who] = seats.take(None).unwrap();
                    }
                }
                let all: Vec<_> = seats.taken.values().filter_map(|seat| seat.admitted.as_ref()).collect();
                for (place, one) in all.iter().enumerate() {
                    for other in &all[place + 1..] {
                        let told = !one.window.is_empty() && !other.window.is_empty();
                        prop_assert!(!told || one.window == other.window || !one.held.meets(&other.held));
                    }
                    for name in (0..7).map(|bit| format!("svc-{bit}")).filter(|name| one.wanted.covers(name)) {
                        prop_assert!(all.iter().any(|other| other.held.covers(&name)), "nobody decides for {name}");
                    }
                }
            }
        }

        #[test]
        fn no_two_with_different_windows_may_decide_for_one_connection(turns in prop::collection::vec(turns(), 0..60)) {
            let mut seats = Seats::default();
            let mut all: Vec<Told> = (0..6).map(|_| Told::new(&mut seats)).collect();
            for turn in turns {
                match turn {
                    Turn::Admit(who, window, bits) => {
                        let told = &mut all[who];
                        if told.window.is_empty() {
                            (told.window, told.wanted) = (format!("local:{window}"), set(bits));
                            told.streams = seats.admit(told.id, &told.window, &told.wanted, NOW).is_ok();
                        }
                    }
                    Turn::Hold(who, bits) => all[who].wanted = set(bits),
                    Turn::Hear(who) => seats.heard(all[who].id, all[who].sent.clone()),
                    Turn::Leave(who) => {
                        seats.leave(all[who].id, wall(0));
                        all[who] = Told::new(&mut seats);
                    }
                }
                // Every stream looks at what it is to send. Whoever is refused is sent nothing more, and has not heard so yet.
                for told in all.iter_mut().filter(|told| told.streams) {
                    let held = seats.hold(told.id, &told.wanted, false, NOW);
                    (told.streams, told.sent) = held.map_or_else(|_| (false, Scope::default()), |held| (true, held.scope));
                    seats.sent(told.id, &told.sent);
                }
                for (place, one) in all.iter().enumerate() {
                    for other in &all[place + 1..] {
                        let may = [one, other].map(|told| seats.taken[&told.id].may.clone());
                        prop_assert!(one.window == other.window || !may[0].meets(&may[1]), "{one:?} {other:?} {may:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn whoever_has_one_certificate_leaves_room_for_the_others() {
        let mut seats = Seats::default();
        let names = |name: &str| -> Arc<[String]> { Arc::new([name.to_owned()]) };
        let taken = std::iter::from_fn(|| seats.take(Some(&names("guest.test"))));
        assert_eq!(taken.count(), MAX_OF_ONE);
        assert!(seats.take(Some(&names("other.test"))).is_some() && seats.take(None).is_some());
    }

    #[test]
    fn nobody_and_a_silent_version_clash_with_nobody() {
        let mut seats = Seats::default();
        let [one, two, three] = std::array::from_fn(|_| seats.take(None).unwrap());
        seats.admit(one, "local:a", &Scope::Everything, NOW).unwrap();
        seats.admit(two, "", &Scope::Everything, NOW).unwrap();
        seats.admit(three, "local:b", &Scope::default(), NOW).unwrap();
    }

    #[test]
    fn whoever_came_first_stays_when_connections_move() {
        let mut seats = Seats::default();
        let [one, two] = std::array::from_fn(|_| seats.take(None).unwrap());
        seats.admit(two, "local:b", &only(&["svc-b"]), NOW).unwrap();
        seats.admit(one, "local:a", &only(&["svc-a"]), NOW).unwrap();
        assert!(seats.hold(two, &only(&["svc-a"]), false, NOW).unwrap().displaced);
        seats.hold(one, &only(&["svc-a"]), false, NOW).unwrap_err();
    }

    #[test]
    fn one_whose_certificate_ended_is_told_of_until_it_comes_again() {
        let certificate = Validity { from: UnixSeconds(0), until: UnixSeconds(100) };
        let come = |seats: &mut Seats, node: &str| {
            let id = seats.take(None).unwrap();
            let state = seats.get(id).unwrap();
            (state.node, state.certificate) = (node.to_owned(), Some(certificate));
            seats.admit(id, "shared:a", &Scope::Everything, NOW).unwrap();
            id
        };
        let mut seats = Seats::default();
        let (one, two) = (come(&mut seats, "one"), come(&mut seats, "two"));
        seats.leave(one, wall(100));
        assert!(seats.cut_off(UnixSeconds(100)).is_empty(), "it left while its certificate held");
        seats.leave(two, wall(101));
        assert_eq!(seats.cut_off(UnixSeconds(101)), [("two".to_owned(), certificate)]);
        assert!(seats.cut_off(UnixSeconds(100 + CUT_OFF_TOLD)).is_empty());
        come(&mut seats, "two");
        assert!(seats.cut_off(UnixSeconds(101)).is_empty());
    }
}

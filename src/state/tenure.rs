//! Which replay window decided last for a connection, and since when another one does.
//!
//! Pure. Whoever is given a connection does not know what was used at the one that had it before, with another window: it is
//! told when it was given it, and refuses what may have been used until then. What is remembered is what may be used again.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::domain::time::MonotonicMillis;
use crate::state::scope::Scope;
use crate::wire::state::SHARED_WINDOW;
use crate::wire::state::proto;

/// When something happens, and what of the past still matters then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: MonotonicMillis,
    /// For how long after it was signed a request may be used somewhere, in milliseconds.
    pub(super) memory: u64,
}

impl Moment {
    fn remembers(self, at: MonotonicMillis) -> bool {
        self.now.since(at) <= self.memory
    }
}

/// Since when a window decides for a connection for which another did before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Given {
    at: MonotonicMillis,
    /// Who did before is not known, because that was under an earlier admin. Whoever holds the connection did itself.
    unless_held: bool,
}

/// Which window decides for a connection, or did last.
#[derive(Debug, Clone)]
struct Tenure {
    window: Arc<str>,
    /// When one with this window was last known to decide for it.
    seen: MonotonicMillis,
    given: Option<Given>,
}

/// That of every connection.
#[derive(Debug, Default)]
pub(super) struct Tenures {
    /// When admin began.
    began: MonotonicMillis,
    /// Those that somebody was given by name.
    named: BTreeMap<String, Tenure>,
    /// All others.
    rest: Option<Tenure>,
}

/// What one window is to be told of the connections it is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Floors {
    named: BTreeMap<String, Option<Given>>,
    rest: Option<Given>,
}

impl Tenures {
    pub(super) fn new(began: MonotonicMillis) -> Self {
        Self { began, ..Self::default() }
    }

    /// One with this window decides for these connections, or did until now.
    pub(super) fn see(&mut self, window: &str, scope: &Scope, now: MonotonicMillis) {
        let see = |tenure: &mut Tenure| {
            if *tenure.window == *window {
                tenure.seen = now;
            }
        };
        match scope {
            Scope::Everything => self.named.values_mut().chain(&mut self.rest).for_each(see),
            Scope::Only(ids) => {
                for id in ids.iter() {
                    if let Some(tenure) = self.named.get_mut(id) {
                        see(tenure);
                    }
                }
            }
        }
    }

    /// One with this window decides for these connections from now on. Who decided until now was [seen](Self::see) before.
    /// `elsewhere`: on another host, where more than one may run. A window without a name is that of a version that does
    /// not tell.
    pub(super) fn give(&mut self, window: &str, scope: &Scope, elsewhere: bool, moment: Moment) -> Floors {
        if window.is_empty() {
            return Floors::default();
        }
        self.named.retain(|_, tenure| moment.remembers(tenure.seen));
        self.rest.take_if(|rest| !moment.remembers(rest.seen));
        // On one machine it is the same one as before, or its journal says that it does not know. A shared window has the
        // memory of all that share it.
        let is_unknown = elsewhere && !window.starts_with(SHARED_WINDOW) && moment.remembers(self.began);
        let unknown = is_unknown.then_some(Given { at: moment.now, unless_held: true });
        let name: Arc<str> = window.into();
        let next = |before: Option<&Tenure>| {
            let given = match before {
                Some(before) if *before.window == *window => before.given.filter(|given| moment.remembers(given.at)),
                Some(_) => Some(Given { at: moment.now, unless_held: false }),
                None => unknown,
            };
            Tenure { window: Arc::clone(&name), seen: moment.now, given }
        };
        match scope {
            Scope::Everything => {
                for tenure in self.named.values_mut() {
                    *tenure = next(Some(&*tenure));
                }
                self.rest = Some(next(self.rest.as_ref()));
            }
            Scope::Only(ids) => {
                for id in ids.iter() {
                    let tenure = next(self.named.get(id).or(self.rest.as_ref()));
                    self.named.insert(id.clone(), tenure);
                }
            }
        }
        let ours = |tenure: &&Tenure| tenure.window == name;
        let named = self.named.iter().filter(|(_, tenure)| ours(tenure));
        let named: BTreeMap<_, _> = named.map(|(id, tenure)| (id.clone(), tenure.given)).collect();
        let rest = self.rest.as_ref().filter(ours).and_then(|tenure| tenure.given);
        if rest.is_none() && named.values().all(Option::is_none) {
            return Floors::default();
        }
        Floors { named, rest }
    }
}

impl Floors {
    /// Whether there is nothing to be told.
    pub(super) fn are_none(&self) -> bool {
        *self == Self::default()
    }

    fn of(&self, connection: &str) -> Option<Given> {
        self.named.get(connection).copied().unwrap_or(self.rest)
    }
}

/// What is written into connections on their way to one authz.
#[derive(Debug)]
pub(super) struct Marks {
    floors: Floors,
    /// The connections there were when admin began.
    old: Arc<BTreeSet<String>>,
    now: MonotonicMillis,
}

impl Marks {
    pub(super) const fn new(floors: Floors, old: Arc<BTreeSet<String>>, now: MonotonicMillis) -> Self {
        Self { floors, old, now }
    }

    /// Says in a connection when its authz was given it, where that is to be told.
    pub(super) fn mark(&self, connection: &mut proto::Connection) {
        let given = self.floors.of(&connection.id);
        // For one that was made since, nobody decided under an earlier admin.
        if let Some(given) = given.filter(|given| !given.unless_held || self.old.contains(&connection.id)) {
            connection.given_ms_ago = Some(self.now.since(given.at));
            connection.given_unless_held = given.unless_held;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

    use proptest::prelude::*;

    use super::*;

    const START: u64 = 1 << 40;
    const MEMORY: u64 = 315_000;

    fn at(ms: u64) -> Moment {
        Moment { now: MonotonicMillis(START + ms), memory: MEMORY }
    }

    fn only(ids: &[&str]) -> Scope {
        Scope::Only(Arc::new(ids.iter().map(|id| (*id).to_owned()).collect()))
    }

    /// Long after the start of admin.
    fn settled() -> Tenures {
        Tenures::new(MonotonicMillis(0))
    }

    fn given(ms: u64) -> Option<Given> {
        Some(Given { at: at(ms).now, unless_held: false })
    }

    #[test]
    fn whoever_follows_another_window_is_told_when_and_is_told_again() {
        let mut tenures = settled();
        assert!(tenures.give("local:a", &Scope::Everything, true, at(0)).are_none());
        tenures.see("local:a", &Scope::Everything, at(60_000).now);
        let floors = tenures.give("local:b", &only(&["svc-a"]), true, at(61_000));
        assert_eq!(floors.of("svc-a"), given(61_000));
        // Its process begins anew, and its journal does not know either.
        let again = tenures.give("local:b", &only(&["svc-a"]), true, at(70_000));
        assert_eq!(again, floors);
        // The first comes back: what was used meanwhile it does not know, of that connection.
        let floors = tenures.give("local:a", &Scope::Everything, true, at(80_000));
        assert_eq!((floors.of("svc-a"), floors.of("svc-b")), (given(80_000), None));
    }

    #[test]
    fn the_same_window_is_told_nothing_whoever_has_it() {
        let mut tenures = settled();
        assert!(tenures.give("shared:x", &Scope::Everything, true, at(0)).are_none());
        assert!(tenures.give("shared:x", &only(&["svc-a"]), true, at(10)).are_none());
        let mut tenures = settled();
        assert!(tenures.give("local:a", &only(&["svc-a"]), true, at(0)).are_none());
        assert!(tenures.give("local:a", &only(&["svc-a", "svc-b"]), true, at(20)).are_none());
        assert!(tenures.give("", &Scope::Everything, false, at(30)).are_none(), "a version that does not tell");
    }

    #[test]
    fn what_cannot_be_used_again_is_forgotten_and_what_is_decided_for_is_not() {
        let mut tenures = settled();
        tenures.give("local:a", &only(&["svc-a"]), true, at(0));
        tenures.see("local:a", &only(&["svc-a"]), at(1_000_000).now);
        let floors = tenures.give("local:b", &only(&["svc-a"]), true, at(1_000_000 + MEMORY));
        assert_eq!(floors.of("svc-a"), given(1_000_000 + MEMORY));
        let mut tenures = settled();
        tenures.give("local:a", &only(&["svc-a"]), true, at(0));
        assert!(tenures.give("local:b", &only(&["svc-a"]), true, at(MEMORY + 1)).are_none());
        assert_eq!(tenures.named.len(), 1);
    }

    #[test]
    fn after_a_start_of_admin_it_is_not_known_who_decided_elsewhere_for_what_there_was() {
        let fresh = || Tenures::new(at(0).now);
        let old = Arc::new(BTreeSet::from(["svc-old".to_owned()]));
        let told = |floors: Floors, id: &str| {
            let mut connection = proto::Connection { id: id.to_owned(), ..proto::Connection::default() };
            Marks::new(floors, Arc::clone(&old), at(3_000).now).mark(&mut connection);
            (connection.given_ms_ago, connection.given_unless_held)
        };
        let floors = fresh().give("local:a", &Scope::Everything, true, at(1_000));
        assert_eq!(told(floors.clone(), "svc-old"), (Some(2_000), true));
        assert_eq!(told(floors, "svc-new"), (None, false));
        assert!(fresh().give("local:a", &Scope::Everything, false, at(1_000)).are_none(), "this machine has one");
        assert!(fresh().give("shared:x", &Scope::Everything, true, at(1_000)).are_none());
        assert!(fresh().give("local:a", &Scope::Everything, true, at(MEMORY + 1)).are_none());
        // What is known since is known.
        let mut tenures = fresh();
        tenures.give("local:a", &Scope::Everything, false, at(1_000));
        let floors = tenures.give("local:b", &only(&["svc-new"]), true, at(2_000));
        assert_eq!(told(floors, "svc-new"), (Some(1_000), false));
    }

    #[derive(Debug, Clone)]
    enum Turn {
        /// Who, with which window, is given which connections: bits of four, or all.
        Give(u8, u8),
        Pass(u64),
    }

    fn turns() -> impl Strategy<Value = Turn> {
        prop_oneof![
            3 => (0..3_u8, 0..17_u8).prop_map(|(window, set)| Turn::Give(window, set)),
            1 => (1..200_000_u64).prop_map(Turn::Pass),
        ]
    }

    proptest! {
        /// One after the other decides. Whatever was used elsewhere and may be used again was signed before the last change,
        /// and that is what is told; where nobody else decided, nothing is.
        #[test]
        fn nobody_decides_untold_for_what_another_decided_for(turns in prop::collection::vec(turns(), 0..40)) {
            const NAMES: [&str; 5] = ["svc-0", "svc-1", "svc-2", "svc-3", "svc-unnamed"];
            let mut tenures = settled();
            let mut ms = 0;
            // By connection: who decides, and when each window last gave it up.
            let mut holder: [Option<u8>; 5] = [None; 5];
            let mut ended: [[Option<u64>; 3]; 5] = [[None; 3]; 5];
            for turn in turns {
                let (window, set) = match turn {
                    Turn::Pass(passed) => {
                        ms += passed;
                        continue;
                    }
                    Turn::Give(window, set) => (window, set),
                };
                let covers = |place: usize| set == 16 || (place < 4 && set & (1 << place) != 0);
                let names: Vec<&str> = (0..4).filter(|place| covers(*place)).map(|place| NAMES[place]).collect();
                let scope = if set == 16 { Scope::Everything } else { only(&names) };
                for (place, who) in holder.iter().enumerate() {
                    if let Some(who) = who {
                        // All of what it has; what it has not is not its own.
                        let held = if place == 4 { Scope::Everything } else { only(&[NAMES[place]]) };
                        tenures.see(&format!("local:{who}"), &held, at(ms).now);
                    }
                }
                let floors = tenures.give(&format!("local:{window}"), &scope, true, at(ms));
                for place in (0..5).filter(|place| covers(*place)) {
                    if let Some(before) = holder[place].replace(window).filter(|before| *before != window) {
                        ended[place][usize::from(before)] = Some(ms);
                    }
                    let used_elsewhere = (0..3).filter(|other| *other != usize::from(window));
                    let last = used_elsewhere.filter_map(|other| ended[place][other]).max();
                    let matters = last.filter(|last| ms - last <= MEMORY);
                    let told = floors.of(NAMES[place]).map(|given| given.at.0 - START);
                    prop_assert!(told >= matters, "{}: told {told:?}, {matters:?}", NAMES[place]);
                    prop_assert!(told.is_none() || last.is_some(), "{}: told {told:?} of nobody", NAMES[place]);
                }
            }
        }
    }
}

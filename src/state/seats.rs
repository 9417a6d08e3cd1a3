//! The authz processes that are connected: what is known of each, and whether their replay windows go together.
//!
//! Pure. Two that decide for one connection must know of each other's nonces, or a request could be used at both.

use std::collections::BTreeMap;

use crate::domain::time::MonotonicMillis;
use crate::domain::time::UnixSeconds;
use crate::domain::validity::Validity;
use crate::state::publisher::PeerState;
use crate::state::scope::Scope;

/// How many authz processes one admin feeds; far more than one machine runs.
const MAX_STREAMS: usize = 256;
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
    taken: BTreeMap<u64, Seat>,
    admitted: u64,
    refused: Option<(MonotonicMillis, String)>,
    /// Who left with a certificate that was past its time, and has not come again.
    cut_off: BTreeMap<String, Validity>,
}

/// One of them.
#[derive(Debug, Default)]
struct Seat {
    state: PeerState,
    /// What it decides with and for, once it was admitted.
    admitted: Option<Admitted>,
}

#[derive(Debug)]
struct Admitted {
    /// Whoever came first stays.
    order: u64,
    window: String,
    scope: Scope,
}

impl Seats {
    /// Whether nobody has ever come.
    pub(super) const fn are_new(&self) -> bool {
        self.last == 0
    }

    /// A place for one that connects; `None` where there are too many.
    pub(super) fn take(&mut self) -> Option<u64> {
        if self.taken.len() >= MAX_STREAMS {
            return None;
        }
        self.last = self.last.wrapping_add(1);
        self.taken.insert(self.last, Seat::default());
        Some(self.last)
    }

    pub(super) fn leave(&mut self, id: u64, now: UnixSeconds) {
        let Some(PeerState { node, certificate: Some(certificate), .. }) =
            self.taken.remove(&id).map(|seat| seat.state)
        else {
            return;
        };
        self.cut_off.retain(|_, over| over.until.0.saturating_add(CUT_OFF_TOLD) > now.0);
        if certificate.is_over(now) && !node.is_empty() && self.cut_off.len() < MAX_CUT_OFF {
            self.cut_off.insert(node, certificate);
        }
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

    /// Lets one decide, with this window and for these connections; or the one line that says why not. An empty window
    /// is that of a version that does not tell: it is judged by nobody.
    pub(super) fn admit(&mut self, id: u64, window: &str, scope: &Scope, now: MonotonicMillis) -> Result<(), String> {
        let order = self.admitted.saturating_add(1);
        self.judge(id, order, window, scope, now)?;
        self.admitted = order;
        if let Some(seat) = self.taken.get_mut(&id) {
            self.cut_off.remove(&seat.state.node);
            seat.admitted = Some(Admitted { order, window: window.to_owned(), scope: scope.clone() });
        }
        Ok(())
    }

    /// The same for one that decides already, whose connections have become others.
    pub(super) fn move_to(&mut self, id: u64, scope: &Scope, now: MonotonicMillis) -> Result<(), String> {
        let Some(held) = self.taken.get(&id).and_then(|seat| seat.admitted.as_ref()) else { return Ok(()) };
        let (order, window) = (held.order, held.window.clone());
        self.judge(id, order, &window, scope, now)?;
        if let Some(held) = self.taken.get_mut(&id).and_then(|seat| seat.admitted.as_mut()) {
            held.scope = scope.clone();
        }
        Ok(())
    }

    fn judge(&mut self, id: u64, order: u64, window: &str, scope: &Scope, now: MonotonicMillis) -> Result<(), String> {
        let clashes = |seat: &Seat| {
            seat.admitted.as_ref().is_some_and(|held| {
                held.order < order && held.window != window && !held.window.is_empty() && held.scope.meets(scope)
            })
        };
        let others = self.taken.iter().filter(|(other, _)| **other != id);
        let Some((_, first)) = others.filter(|_| !window.is_empty()).find(|(_, seat)| clashes(seat)) else {
            return Ok(());
        };
        let name = self.taken.get(&id).map_or("", |seat| seat.state.node.as_str());
        let text = format!(
            "{name} has another replay window than {}, and both decide for one connection: a request could be used at \
             each; give them one window (replay.shared.url), or run one of them",
            first.state.node
        );
        self.refused = Some((now, text.clone()));
        Err(text)
    }

    /// Why one was refused a moment ago, and is likely to be still.
    pub(super) fn conflict(&self, now: MonotonicMillis) -> Option<String> {
        let (at, text) = self.refused.as_ref()?;
        (now.since(*at) < TOLD_MS).then(|| text.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use std::sync::Arc;

    use super::*;

    const NOW: MonotonicMillis = MonotonicMillis(1 << 40);

    fn only(ids: &[&str]) -> Scope {
        Scope::Only(Arc::new(ids.iter().map(|id| (*id).to_owned()).collect()))
    }

    #[test]
    fn who_decides_for_one_connection_has_one_window() {
        let mut seats = Seats::default();
        let [one, two, three] = std::array::from_fn(|_| seats.take().unwrap());
        seats.admit(one, "local:a", &only(&["svc-a", "svc-b"]), NOW).unwrap();
        seats.admit(two, "local:b", &only(&["svc-b"]), NOW).unwrap_err();
        assert!(seats.conflict(NOW).is_some());
        seats.admit(two, "local:b", &only(&["svc-c"]), NOW).unwrap();
        seats.admit(three, "local:a", &Scope::Everything, NOW).unwrap_err();
        seats.leave(two, UnixSeconds(0));
        seats.admit(three, "local:a", &Scope::Everything, NOW).unwrap();
        assert!(seats.conflict(MonotonicMillis(NOW.0 + TOLD_MS)).is_none(), "it is not told for ever");
    }

    #[test]
    fn nobody_and_a_silent_version_clash_with_nobody() {
        let mut seats = Seats::default();
        let [one, two, three] = std::array::from_fn(|_| seats.take().unwrap());
        seats.admit(one, "local:a", &Scope::Everything, NOW).unwrap();
        seats.admit(two, "", &Scope::Everything, NOW).unwrap();
        seats.admit(three, "local:b", &Scope::default(), NOW).unwrap();
    }

    #[test]
    fn whoever_came_first_stays_when_connections_move() {
        let mut seats = Seats::default();
        let [one, two] = std::array::from_fn(|_| seats.take().unwrap());
        seats.admit(two, "local:b", &only(&["svc-b"]), NOW).unwrap();
        seats.admit(one, "local:a", &only(&["svc-a"]), NOW).unwrap();
        seats.move_to(two, &only(&["svc-a"]), NOW).unwrap();
        seats.move_to(one, &only(&["svc-a"]), NOW).unwrap_err();
    }

    #[test]
    fn one_whose_certificate_ended_is_told_of_until_it_comes_again() {
        let certificate = Validity { from: UnixSeconds(0), until: UnixSeconds(100) };
        let come = |seats: &mut Seats, node: &str| {
            let id = seats.take().unwrap();
            let state = seats.get(id).unwrap();
            (state.node, state.certificate) = (node.to_owned(), Some(certificate));
            seats.admit(id, "shared:a", &Scope::Everything, NOW).unwrap();
            id
        };
        let mut seats = Seats::default();
        let (one, two) = (come(&mut seats, "one"), come(&mut seats, "two"));
        seats.leave(one, UnixSeconds(100));
        assert!(seats.cut_off(UnixSeconds(100)).is_empty(), "it left while its certificate held");
        seats.leave(two, UnixSeconds(101));
        assert_eq!(seats.cut_off(UnixSeconds(101)), [("two".to_owned(), certificate)]);
        assert!(seats.cut_off(UnixSeconds(100 + CUT_OFF_TOLD)).is_empty());
        come(&mut seats, "two");
        assert!(seats.cut_off(UnixSeconds(101)).is_empty());
    }
}

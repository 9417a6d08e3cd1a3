//! Wrong pair codes of one session: how many are answered, and when nobody's is looked at any more. Pure; the rule and
//! its reasons are in [`crate::api::pairing`].

use std::net::IpAddr;

use crate::domain::time::MonotonicMillis;

/// Wrong codes that are answered at once.
const BURST: u32 = 5;
/// After which one of them is forgotten, once a bridge has joined.
const FORGET_MS: u64 = 30_000;

/// What a code that was tried comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the code.
    Right,
    /// It is not.
    Wrong,
    /// It is not, and the session ends with it.
    Last,
    /// It was not looked at, and none will be: too many were wrong before any bridge had joined.
    Over,
    /// It was not looked at; later ones may be.
    Later,
}

/// What was tried so far.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// Where the bridge was last.
    home: Option<IpAddr>,
    at_home: Budget,
    elsewhere: Budget,
}

#[derive(Debug, Default)]
struct Budget {
    wrong: u32,
    since: MonotonicMillis,
}

impl Tries {
    /// The right code has come from `address`.
    pub(super) const fn joined(&mut self, address: IpAddr) {
        self.home = Some(address);
    }

    /// At least so many were wrong before.
    pub(super) fn recall(&mut self, wrong: u32) {
        self.elsewhere.wrong = self.elsewhere.wrong.max(wrong);
    }

    /// Judges a code; `joined`: a bridge has had the right one before. Whoever shows the reconnect secret is judged by no
    /// budget and uses none up: what strangers tried is no matter to the bridge that holds it.
    pub(super) fn judge(
        &mut self,
        address: IpAddr,
        (joined, has_secret): (bool, bool),
        now: MonotonicMillis,
        is_right: impl FnOnce() -> bool,
    ) -> Verdict {
        if has_secret {
            return Verdict::Right;
        }
        let budget = if self.home == Some(address) { &mut self.at_home } else { &mut self.elsewhere };
        if joined {
            budget.forget(now);
        }
        if budget.wrong >= BURST {
            return if joined { Verdict::Later } else { Verdict::Over };
        }
        if is_right() {
            return Verdict::Right;
        }
        if budget.wrong == 0 {
            budget.since = now;
        }
        budget.wrong = budget.wrong.saturating_add(1);
        if budget.wrong >= BURST && !joined { Verdict::Last } else { Verdict::Wrong }
    }
}

impl Budget {
    fn forget(&mut self, now: MonotonicMillis) {
        let forgotten = now.since(self.since) / FORGET_MS;
        self.wrong = self.wrong.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX));
        self.since = MonotonicMillis(self.since.0.saturating_add(forgotten.saturating_mul(FORGET_MS)));
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const AWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
    const START: MonotonicMillis = MonotonicMillis(1_000_000);

    fn after(ms: u64) -> MonotonicMillis {
        MonotonicMillis(START.0 + ms)
    }

    #[test]
    fn five_wrong_codes_before_a_bridge_end_the_session() {
        let mut tries = Tries::default();
        for _ in 0..4 {
            assert_eq!(tries.judge(AWAY, (false, false), START, || false), Verdict::Wrong);
        }
        assert_eq!(
            tries.judge(HOME, (false, false), after(3_600_000), || false),
            Verdict::Last,
            "time forgets nothing"
        );
        assert_eq!(tries.judge(HOME, (false, false), after(7_200_000), || true), Verdict::Over);
    }

    #[test]
    fn wrong_codes_after_a_bridge_only_make_others_wait() {
        let mut tries = Tries::default();
        tries.joined(HOME);
        for _ in 0..5 {
            assert_eq!(tries.judge(AWAY, (true, false), START, || false), Verdict::Wrong);
        }
        assert_eq!(
            tries.judge(AWAY, (true, false), after(29_999), || true),
            Verdict::Later,
            "nor is a right one looked at"
        );
        assert_eq!(tries.judge(HOME, (true, false), START, || true), Verdict::Right, "the bridge is not kept out");
        assert_eq!(tries.judge(AWAY, (true, false), after(30_000), || false), Verdict::Wrong);
        assert_eq!(tries.judge(AWAY, (true, false), after(30_000), || false), Verdict::Later);
        assert_eq!(tries.judge(AWAY, (true, false), after(60_000), || true), Verdict::Right);
    }

    #[test]
    fn a_day_of_trying_is_few_codes() {
        let mut tries = Tries::default();
        tries.joined(HOME);
        let mut looked_at = 0;
        for second in 0..24 * 3600 {
            for address in [HOME, AWAY] {
                if tries.judge(address, (true, false), after(second * 1000), || false) == Verdict::Wrong {
                    looked_at += 1;
                }
            }
        }
        assert!((5700..=5800).contains(&looked_at), "{looked_at}");
    }

    proptest! {
        #[test]
        fn wrong_codes_after_a_bridge_end_nothing_and_keep_its_secret_out_of_nothing(
            tried in proptest::collection::vec((any::<bool>(), 0_u64..40_000), 0..60),
        ) {
            let (mut tries, mut now) = (Tries::default(), START);
            tries.joined(HOME);
            for (at_home, pause) in tried {
                now = MonotonicMillis(now.0 + pause);
                let verdict = tries.judge(if at_home { HOME } else { AWAY }, (true, false), now, || false);
                prop_assert!(matches!(verdict, Verdict::Wrong | Verdict::Later), "{verdict:?}");
                for address in [HOME, AWAY] {
                    prop_assert_eq!(tries.judge(address, (true, true), now, || false), Verdict::Right);
                }
            }
        }
    }
}

//! What a store that several replicas share says of its own memory: since when, and for how long it remembers.

use std::fmt;

use crate::domain::replay::MAX_AGE_SECONDS;
use crate::domain::time::CLOCK_SKEW;
use crate::domain::time::UnixSeconds;

/// Longest id, in bytes.
const MAX_ID_BYTES: usize = 64;

/// The mark of a memory, which lies in it. As text `<began>:<id>:<kept>`, and once it was told to remember for longer
/// `:<raised>:<before>` behind; moments in Unix seconds, ages in seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    began: UnixSeconds,
    id: String,
    /// Oldest signature whose nonce it remembers.
    kept: u64,
    raised: Option<Raised>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Raised {
    at: UnixSeconds,
    /// What `kept` was at least until then.
    before: u64,
}

impl Mark {
    /// Of a memory that begins now. `id` tells it from others: hexadecimal digits.
    pub fn begin(id: &str, now: UnixSeconds, kept: u64) -> Self {
        Self { began: now, id: id.to_owned(), kept: kept.min(MAX_AGE_SECONDS), raised: None }
    }

    /// The same under another id.
    pub fn named(&self, id: &str) -> Self {
        Self { id: id.to_owned(), ..self.clone() }
    }

    /// Of a memory that takes the place of this one: it begins now, and never earlier than the one it follows.
    pub fn follow(&self, id: &str, now: UnixSeconds, kept: u64) -> Self {
        Self::begin(id, now.max(self.began), kept.max(self.kept))
    }

    /// Of the same memory, which remembers for longer from now on.
    pub fn raise(&self, now: UnixSeconds, kept: u64) -> Self {
        let before = self.raised.map_or(self.kept, |raised| raised.before.min(self.kept));
        let at = self.raised.map_or(now, |raised| raised.at.max(now));
        Self { kept: kept.min(MAX_AGE_SECONDS).max(self.kept), raised: Some(Raised { at, before }), ..self.clone() }
    }

    /// Reads a mark. `None` where it cannot be believed: not in this form, or of a moment that no replica whose clock
    /// is right has seen by `now`.
    pub fn read(text: &str, now: UnixSeconds) -> Option<Self> {
        let mut parts = text.split(':');
        let number = |text: Option<&str>| -> Option<u64> {
            text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
        };
        let (began, id, kept) = (number(parts.next())?, parts.next()?, number(parts.next())?);
        let raised = match parts.next() {
            None => None,
            at => Some(Raised { at: UnixSeconds(number(at)?), before: number(parts.next())? }),
        };
        let latest = now.0.saturating_add(CLOCK_SKEW.as_secs());
        let passed = began <= latest && raised.is_none_or(|raised| raised.at.0 <= latest);
        let ages = kept <= MAX_AGE_SECONDS && raised.is_none_or(|raised| raised.before <= kept);
        let named = (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let whole = parts.next().is_none() && passed && ages && named;
        whole.then(|| Self { began: UnixSeconds(began), id: id.to_owned(), kept, raised })
    }

    /// What tells this memory from others. It stays where the memory is told to remember for longer.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether a mark is one of this memory, as it was or will be.
    pub fn is_of(&self, text: &str, now: UnixSeconds) -> bool {
        Self::read(text, now).is_some_and(|other| other.id == self.id)
    }

    /// Seconds for which it remembers a nonce after its request was signed, clocks that differ not counted.
    pub const fn kept(&self) -> u64 {
        self.kept
    }

    /// Requests signed up to this second may have been used before the memory began. The skew twice: a signature may
    /// be as far ahead of the replica that accepted it, and that one's clock of the store's, by which the memory began.
    pub const fn floor(&self) -> u64 {
        after(self.began)
    }

    /// Whether a nonce that is not there has not been used: it would be remembered still.
    pub fn knows(&self, created: UnixSeconds, now: UnixSeconds) -> bool {
        let remembered = match self.raised {
            Some(raised) if created.0 <= after(raised.at) => raised.before,
            Some(_) | None => self.kept,
        };
        created.0 > self.floor() && self.end(created, remembered) >= now.0
    }

    /// The last second in which a nonce must be there, by the clock of whoever asks then.
    pub const fn expires_at(&self, created: UnixSeconds) -> UnixSeconds {
        UnixSeconds(self.end(created, self.kept))
    }

    const fn end(&self, created: UnixSeconds, kept: u64) -> u64 {
        created.0.saturating_add(kept).saturating_add(CLOCK_SKEW.as_secs())
    }
}

const fn after(moment: UnixSeconds) -> u64 {
    moment.0.saturating_add(CLOCK_SKEW.as_secs()).saturating_add(CLOCK_SKEW.as_secs())
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { began, id, kept, raised } = self;
        write!(f, "{}:{id}:{kept}", began.0)?;
        match raised {
            Some(Raised { at, before }) => write!(f, ":{}:{before}", at.0),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_000_000);

    fn at(seconds: u64) -> UnixSeconds {
        UnixSeconds(NOW.0 + seconds)
    }

    #[test]
    fn what_was_signed_before_the_memory_began_is_not_known() {
        let mark = Mark::begin("a1", NOW, 300);
        for (created, known) in [(0, false), (10, false), (11, true)] {
            assert_eq!(mark.knows(at(created), at(11)), known, "{created}");
        }
    }

    #[test]
    fn what_was_kept_for_a_shorter_time_is_known_for_that_time_alone() {
        let mark = Mark::begin("a1", NOW, 10).raise(at(100), 300);
        // Signed at 50, kept until 65. Signed after 110 none was kept for the shorter time.
        for (created, now, known) in
            [(50, 65, true), (50, 66, false), (110, 125, true), (110, 126, false), (111, 416, true), (111, 417, false)]
        {
            assert_eq!(mark.knows(at(created), at(now)), known, "signed at {created}, asked at {now}");
        }
        // Raised again before that has passed: the shortest counts.
        let again = mark.raise(at(200), 600);
        assert!(!again.knows(at(150), at(166)));
        assert_eq!((again.id(), again.kept()), ("a1", 600));
    }

    #[test]
    fn a_memory_that_follows_another_never_begins_earlier() {
        let mark = Mark::begin("a1", at(5), 900);
        for (now, began) in [(0, 5), (5, 5), (9, 9)] {
            assert_eq!(mark.follow("b2", at(now), 300), Mark::begin("b2", at(began), 900));
        }
    }

    #[test]
    fn a_raised_mark_never_keeps_for_less() {
        assert_eq!(Mark::begin("a1", NOW, 300).raise(NOW, 10).kept(), 300);
        assert_eq!(Mark::begin("a1", NOW, u64::MAX).kept(), MAX_AGE_SECONDS);
    }

    #[test]
    fn what_cannot_be_is_not_believed() {
        assert!(Mark::read("1000005:a1:300", NOW).is_some(), "a clock may be ahead");
        for bad in [
            "",
            "1000006:a1:300",
            "99999999999:ffff",
            "1000000:a1",
            "1000000:a1:86401",
            "1000000:a1:+3",
            "1000000:a1:",
            "1000000::300",
            "1000000:a g:300",
            "1000000:a1:300:",
            "1000000:a1:300:1000000",
            "1000000:a1:300:1000006:10",
            "1000000:a1:300:1000000:301",
            "1000000:a1:300:1000000:10:",
        ] {
            assert_eq!(Mark::read(bad, NOW), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_mark_is_read_as_it_was_written(began in 0..NOW.0, kept in 0..1000_u64, more in proptest::option::of(0..2000_u64)) {
            let mark = Mark::begin("0123456789abcdef", UnixSeconds(began), kept);
            let mark = more.map_or(mark.clone(), |more| mark.raise(NOW, more));
            prop_assert_eq!(Mark::read(&mark.to_string(), NOW), Some(mark));
        }

        #[test]
        fn arbitrary_text_is_judged_without_panic(text in "[0-9a-f:]{0,60}|\\PC{0,40}") {
            if let Some(mark) = Mark::read(&text, NOW) {
                prop_assert!(mark.floor() <= NOW.0 + 15 && mark.kept() <= MAX_AGE_SECONDS);
            }
        }
    }
}

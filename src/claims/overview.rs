//! How it stands with the claims of each service: for readiness, metrics and the log.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// Why the claims of a service without a key are not fresh.
pub const NO_SERVICE_KEY: &str = "NoServiceKey";
/// Why claims are not fresh, in general.
pub const STALE: &str = "ClaimsStale";

/// How the last attempt to confirm the claims of a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There was none yet.
    Reading,
    /// They were confirmed.
    Current,
    /// They were not; one word says why.
    Missed(&'static str),
}

/// All services that have a claims source.
#[derive(Debug, Default)]
pub struct Overview {
    services: Mutex<BTreeMap<String, Standing>>,
    streams: AtomicU64,
}

/// Whether the claims of all services are fresh, as readiness says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Whether they are.
    pub fresh: bool,
    /// One word for programs.
    pub reason: &'static str,
    /// For people. Names no service: everybody may read it.
    pub message: String,
}

/// Whether what the Sigilum API approved lets anybody pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// That of one service at least; or there is none whose claims could be read.
    Some,
    /// Of no service, and of some nothing was ever read.
    NotYet,
    /// Of no service: all of them are too old.
    None,
}

impl Overview {
    /// Whether claims of any service hold, by the ages of what is published: service, milliseconds (`None`: never read),
    /// approvals. They hold for `hold_ms`. Services without a key have none that could be read.
    pub fn holding(&self, ages: &[(String, Option<u64>, usize)], hold_ms: u64) -> Holding {
        let services = self.services();
        let keyless = |service: &str| matches!(services.get(service), Some(Standing::Missed(NO_SERVICE_KEY)));
        let mut asked = ages.iter().filter(|(service, ..)| !keyless(service)).map(|(_, age, _)| *age).peekable();
        if asked.peek().is_none() {
            return Holding::Some;
        }
        let mut holding = Holding::None;
        for age in asked {
            match age {
                Some(age) if age <= hold_ms => return Holding::Some,
                Some(_) => {}
                None => holding = Holding::NotYet,
            }
        }
        holding
    }

    /// Change streams that are open.
    pub fn streams(&self) -> u64 {
        self.streams.load(Ordering::Relaxed)
    }

    /// Judges by the last attempts and by the ages of what is published: service, milliseconds (`None`: never
    /// read), approvals. Claims older than `late_ms` have missed a confirmation, whatever is going on.
    pub fn judge(&self, ages: &[(String, Option<u64>, usize)], late_ms: u64) -> Condition {
        let services = self.services();
        let mut missed: BTreeMap<&'static str, usize> = BTreeMap::new();
        for (service, age, _) in ages {
            let reason = match (services.get(service), age) {
                (Some(Standing::Missed(reason)), _) => Some(*reason),
                (_, None) => Some("NotReadYet"),
                (_, Some(age)) if *age > late_ms => Some("Late"),
                (_, Some(_)) => None,
            };
            if let Some(reason) = reason {
                *missed.entry(reason).or_default() += 1;
            }
        }
        let (stale, all) = (missed.values().sum::<usize>(), ages.len());
        if stale == 0 {
            return Condition { fresh: true, reason: "Confirmed", message: format!("{all} services are confirmed") };
        }
        let only_keys = missed.keys().all(|reason| *reason == NO_SERVICE_KEY);
        let reasons: Vec<_> = missed.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        Condition {
            fresh: false,
            reason: if only_keys { NO_SERVICE_KEY } else { STALE },
            message: format!(
                "the approvals of {stale} of {all} services are not confirmed by the Sigilum API ({}); see the log",
                reasons.join(", ")
            ),
        }
    }

    /// Notes how it stands. Returns how it stood before.
    pub(super) fn set(&self, service: &str, standing: Standing) -> Option<Standing> {
        self.services().insert(service.to_owned(), standing)
    }

    /// How it stands with one service; `None` where it has no claims source.
    pub fn standing(&self, service: &str) -> Option<Standing> {
        self.services().get(service).copied()
    }

    /// A service has another key: what came of the old one says nothing any more.
    pub fn begin_anew(&self, service: &str) {
        if let Some(standing) = self.services().get_mut(service) {
            *standing = Standing::Reading;
        }
    }

    pub(super) fn forget(&self, service: &str) {
        self.services().remove(service);
    }

    /// Counts a stream for as long as the value lives.
    pub(super) fn stream(&self) -> OpenStream<'_> {
        self.streams.fetch_add(1, Ordering::Relaxed);
        OpenStream(self)
    }

    fn services(&self) -> MutexGuard<'_, BTreeMap<String, Standing>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open change stream.
#[derive(Debug)]
pub(super) struct OpenStream<'a>(&'a Overview);

impl Drop for OpenStream<'_> {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ages(list: &[(&str, Option<u64>)]) -> Vec<(String, Option<u64>, usize)> {
        list.iter().map(|(service, age)| ((*service).to_owned(), *age, 1)).collect()
    }

    #[test]
    fn the_first_missed_confirmation_shows() {
        let overview = Overview::default();
        assert!(overview.judge(&[], 100).fresh);
        let two = ages(&[("github", Some(50)), ("linear", Some(60))]);
        for service in ["github", "linear"] {
            overview.set(service, Standing::Current);
        }
        assert!(overview.judge(&two, 100).fresh);
        assert_eq!(overview.set("linear", Standing::Missed("Unreachable")), Some(Standing::Current));
        let missed = overview.judge(&two, 100);
        assert_eq!((missed.fresh, missed.reason), (false, STALE));
        assert!(missed.message.contains("1 of 2 services") && missed.message.contains("Unreachable 1"));
        overview.set("linear", Standing::Missed(NO_SERVICE_KEY));
        assert_eq!(overview.judge(&two, 100).reason, NO_SERVICE_KEY);
        overview.set("linear", Standing::Current);
        // Nothing failed, and still nobody said anything for too long, or ever.
        assert!(overview.judge(&ages(&[("linear", Some(101))]), 100).message.contains("Late 1"));
        assert!(overview.judge(&ages(&[("linear", None)]), 100).message.contains("NotReadYet 1"));
    }

    #[test]
    fn claims_hold_while_one_service_was_confirmed_in_time() {
        let overview = Overview::default();
        let holding = |list: &[(&str, Option<u64>)]| overview.holding(&ages(list), 100);
        assert_eq!(holding(&[]), Holding::Some, "there is nothing to read");
        assert_eq!(holding(&[("a", Some(101)), ("b", Some(100))]), Holding::Some);
        assert_eq!(holding(&[("a", Some(101)), ("b", Some(102))]), Holding::None);
        assert_eq!(holding(&[("a", Some(101)), ("b", None)]), Holding::NotYet);
        overview.set("b", Standing::Missed(NO_SERVICE_KEY));
        assert_eq!(holding(&[("a", Some(101)), ("b", None)]), Holding::None, "nothing is read of b");
        assert_eq!(holding(&[("b", None)]), Holding::Some, "a key is missing, and no outage");
    }

    #[test]
    fn open_streams_are_counted() {
        let overview = Overview::default();
        let (one, two) = (overview.stream(), overview.stream());
        assert_eq!(overview.streams(), 2);
        drop(one);
        assert_eq!(overview.streams(), 1);
        drop(two);
        assert_eq!(overview.streams(), 0);
    }
}

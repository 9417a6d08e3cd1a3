//! The one step of a decision with an effect: a nonce is used, and written down, once.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::authz::journal::Failing;
use crate::authz::journal::Journal;
use crate::authz::journal::JournalError;
use crate::domain::decision::Admission;
use crate::domain::decision::DenyReason;
use crate::domain::replay::AdmitRefusal;
use crate::domain::replay::ReplayWindow;
use crate::domain::time::Now;

/// The replay window and its journal, as one.
#[derive(Debug)]
pub struct Admissions {
    inner: Mutex<Inner>,
    /// Refusals because one key held its share.
    share_refusals: AtomicU64,
    /// A window that all replicas share stands behind this one, and knows what was used before this process began.
    is_shared: bool,
}

#[derive(Debug)]
struct Inner {
    window: ReplayWindow,
    /// `None`: another process writes it now.
    journal: Option<Journal>,
}

impl Admissions {
    /// Takes what [`Journal::open`] made.
    pub const fn new(journal: Journal, window: ReplayWindow) -> Self {
        let inner = Mutex::new(Inner { window, journal: Some(journal) });
        Self { inner, share_refusals: AtomicU64::new(0), is_shared: false }
    }

    /// The same in front of a window that all replicas share: what was used before a start without a journal is known
    /// there, so nothing is refused for that.
    pub fn before_shared(journal: Journal, mut window: ReplayWindow) -> Self {
        window.lift_floor();
        Self { is_shared: true, ..Self::new(journal, window) }
    }

    /// Uses the nonce. When this returns `Ok`, the admission is in the journal and the plan may be
    /// answered; when it does not, nothing may.
    pub fn admit(&self, admission: &Admission, max_age: Duration, now: Now) -> Result<(), DenyReason> {
        let seconds = now.seconds();
        // Nobody leaves the pair in a state another could be fooled by: an entry without its line in the
        // journal only refuses more.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        self.look(&mut inner, max_age, now);
        let Inner { window, journal } = &mut *inner;
        // Where nothing can be written the nonce is not used either: the same request is good when something can again, and
        // the window does not fill with what nobody was let through for. Whether it can is tried by `tend`.
        let Some(journal) = journal.as_mut().filter(|journal| journal.failing().is_none()) else {
            return Err(DenyReason::Unavailable);
        };
        let entry = window
            .admit(&admission.key, &admission.nonce, admission.created, max_age, now)
            .map_err(|refusal| self.reason(refusal))?;
        let written = journal.append(&entry, max_age, seconds);
        tell(false, &written);
        written.map_err(|_| DenyReason::Unavailable)
    }

    /// Closes the journal: from now on nothing is admitted here, and another process may.
    pub fn seal(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).journal = None;
    }

    /// Whether the nonce has been used. A look ahead that spares the reading of a body: what counts is
    /// [`Admissions::admit`].
    pub fn is_used(&self, admission: &Admission, now: Now) -> bool {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.window.is_used(&admission.key, &admission.nonce, now)
    }

    /// Whether requests signed now are still refused: for want of a journal, or because the wall clock has stepped back. Not
    /// where another process decides now.
    pub fn is_starting(&self, now: Now) -> bool {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.journal.is_some() && inner.window.is_starting(now.seconds())
    }

    /// How many requests were refused because their key held its share of the window, which was not full.
    pub fn share_refusals(&self) -> u64 {
        self.share_refusals.load(Ordering::Relaxed)
    }

    /// Why the next admission could not be written down, as far as is known; `None` also where another process writes the
    /// journal now: its failures are its own.
    pub fn failing(&self) -> Option<Failing> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.journal.as_ref().and_then(Journal::failing)
    }

    /// Makes the journal ready for the next admission where it is not: one whose file is gone is begun anew, so that what is
    /// admitted from now on is found after a restart, and one that could not be written to is tried. Looks at the clocks as
    /// well; `max_age` is for how old a signature requests are accepted.
    pub fn tend(&self, max_age: Duration, now: Now) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        self.look(&mut inner, max_age, now);
        let Some(journal) = inner.journal.as_mut() else { return };
        let failed = journal.failing().is_some();
        tell(failed, &journal.mend(now.seconds()));
    }

    /// A wall clock that has stepped back is told once.
    fn look(&self, inner: &mut Inner, max_age: Duration, now: Now) {
        let Some(seconds) = inner.window.look(now, max_age) else { return };
        if let Some(journal) = &mut inner.journal {
            journal.turn_back(now.seconds(), max_age);
        }
        if self.is_shared {
            tracing::warn!(seconds, "the clock of this machine has stepped back");
        } else {
            tracing::warn!(
                seconds,
                "the clock of this machine has stepped back: requests signed up to now and a little later are refused, because \
                 nobody knows any more which of them were used"
            );
        }
    }

    /// Live entries and how many there may be.
    pub fn fill(&self) -> (usize, usize) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.window.len(), inner.window.capacity())
    }

    fn reason(&self, refusal: AdmitRefusal) -> DenyReason {
        match refusal {
            AdmitRefusal::Replayed => DenyReason::ReplayDetected,
            AdmitRefusal::Full => DenyReason::ReplayWindowFull,
            AdmitRefusal::ShareFull => {
                self.share_refusals.fetch_add(1, Ordering::Relaxed);
                DenyReason::ReplayWindowFull
            }
            AdmitRefusal::Starting => DenyReason::ReplayWindowStarting,
        }
    }
}

/// Once when it begins and once when it ends: a log that grows with each request would fill what is full already.
fn tell(failed: bool, written: &Result<(), JournalError>) {
    match (failed, written) {
        (false, Err(error)) => {
            tracing::error!(%error, "the replay journal cannot be written to: every signed request is refused until it can");
        }
        (true, Ok(())) => tracing::info!("the replay journal can be written to again"),
        (false, Ok(())) | (true, Err(_)) => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use std::fs;

    use super::*;
    use crate::sys::clock::Clock as _;
    use crate::sys::clock::SystemClock;

    #[test]
    fn a_journal_that_was_handed_on_is_no_failing_one() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemClock.now();
        let (journal, window, _) = Journal::open(folder.path(), 10, now.seconds()).unwrap();
        let admissions = Admissions::new(journal, window);
        fs::remove_file(folder.path().join("replay-1.journal")).unwrap();
        fs::create_dir(folder.path().join("replay-2.journal")).unwrap();
        admissions.tend(Duration::ZERO, now);
        assert_eq!(admissions.failing(), Some(Failing::Otherwise));
        admissions.seal();
        admissions.tend(Duration::ZERO, now);
        assert_eq!(admissions.failing(), None, "its failures are another's now");
    }
}

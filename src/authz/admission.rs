//! The one step of a decision with an effect: a nonce is used, and written down, once.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::authz::journal::Journal;
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
}

#[derive(Debug)]
struct Inner {
    window: ReplayWindow,
    journal: Journal,
}

impl Admissions {
    /// Takes what [`Journal::open`] made.
    pub const fn new(journal: Journal, window: ReplayWindow) -> Self {
        Self { inner: Mutex::new(Inner { window, journal }), share_refusals: AtomicU64::new(0) }
    }

    /// Uses the nonce. When this returns `Ok`, the admission is in the journal and the plan may be
    /// answered; when it does not, nothing may.
    pub fn admit(&self, admission: &Admission, max_age: Duration, now: Now) -> Result<(), DenyReason> {
        let seconds = now.seconds();
        // Nobody leaves the pair in a state another could be fooled by: an entry without its line in the
        // journal only refuses more.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = inner
            .window
            .admit(&admission.key, &admission.nonce, admission.created, max_age, seconds)
            .map_err(|refusal| self.reason(refusal))?;
        inner.journal.append(&entry, max_age, seconds).map_err(|error| {
            tracing::error!(error = %error, source = %error.source, "an admission could not be written down");
            DenyReason::Unavailable
        })
    }

    /// Whether the nonce has been used. A look ahead that spares the reading of a body: what counts is
    /// [`Admissions::admit`].
    pub fn is_used(&self, admission: &Admission, now: Now) -> bool {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.window.is_used(&admission.key, &admission.nonce, now.seconds())
    }

    /// Whether requests signed now are still refused for want of a journal.
    pub fn is_starting(&self, now: Now) -> bool {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).journal.is_starting(now.seconds())
    }

    /// How many requests were refused because their key held its share of the window, which was not full.
    pub fn share_refusals(&self) -> u64 {
        self.share_refusals.load(Ordering::Relaxed)
    }

    /// Whether the next admission could be written down. A journal whose file is gone is begun anew, so that what is admitted
    /// from now on is found after a restart.
    pub fn is_kept(&self, now: Now) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match inner.journal.mend(now.seconds()) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(error = %error, source = %error.source, "the replay journal cannot be written to");
                false
            }
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

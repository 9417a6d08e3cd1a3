//! Who pays for verifications that may turn out to be in vain.
//!
//! A key nobody approved shares one budget with all others of its kind. A key that is approved is
//! public too, so a forger can send it: what fails under it counts against the client address,
//! never against the key, or a forger could lock its owner out.

use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use crate::domain::decision::DenyReason;
use crate::domain::ids::PublicKey;
use crate::domain::limits::FailuresByAddress;
use crate::domain::limits::TokenBucket;
use crate::domain::snapshot::Snapshot;
use crate::domain::time::MonotonicMillis;
use crate::domain::time::Now;

/// The budgets of a process.
#[derive(Debug)]
pub(super) struct Budgets {
    strangers: Mutex<TokenBucket>,
    failures: Mutex<FailuresByAddress>,
    /// Whether any failure was ever recorded: while not, the table is not locked.
    failing: AtomicBool,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            // More than any rate: the first use cuts it down to one second's worth of the setting.
            strangers: Mutex::new(TokenBucket::full(u32::MAX, MonotonicMillis(0))),
            failures: Mutex::default(),
            failing: AtomicBool::new(false),
        }
    }
}

/// The account of one request: charged once, before its first verification, whatever the number.
#[derive(Debug)]
pub(super) struct Account<'a> {
    budgets: &'a Budgets,
    approved: bool,
    address: Option<IpAddr>,
    rate: u32,
    now: MonotonicMillis,
    charged: bool,
}

impl Budgets {
    /// Opens the account of a request that claims to come from `key`.
    pub(super) fn open(&self, key: &PublicKey, address: Option<IpAddr>, snapshot: &Snapshot, now: Now) -> Account<'_> {
        Account {
            budgets: self,
            approved: snapshot.approvals.knows(key),
            address,
            rate: snapshot.settings.stranger_rate_per_second,
            now: now.monotonic,
            charged: false,
        }
    }
}

impl Account<'_> {
    /// Whether the key is approved for anything.
    pub(super) const fn approved(&self) -> bool {
        self.approved
    }

    /// To be called before every verification; `RateLimited` where the budget is used up.
    pub(super) fn charge(&mut self) -> Result<(), DenyReason> {
        if self.charged {
            return Ok(());
        }
        let refused = if self.approved {
            self.budgets.failing.load(Ordering::Acquire)
                && self
                    .budgets
                    .failures
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .exhausted(self.address, self.now)
        } else {
            let mut strangers = self.budgets.strangers.lock().unwrap_or_else(PoisonError::into_inner);
            !strangers.take(self.rate, self.rate, self.now)
        };
        if refused {
            return Err(DenyReason::RateLimited);
        }
        self.charged = true;
        Ok(())
    }

    /// Closes the account of a request that did not prove that the key made it. Costs its sender
    /// something only where verifications were done for it.
    pub(super) fn failed(&self) {
        if self.charged && self.approved {
            let mut failures = self.budgets.failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.record(self.address, self.now);
            self.budgets.failing.store(true, Ordering::Release);
        }
    }
}

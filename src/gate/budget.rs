//! Who pays for verifications that may turn out to be in vain.
//!
//! A key nobody approved shares one budget with all others of its kind. A key that is approved is
//! public too, so a forger can send it: what fails under it counts against the client address,
//! never against the key, or a forger could lock its owner out. Many clients may share an address
//! (every process of a machine does on loopback), so a certificate that has served before has an account
//! of its own there: who can only make certificates up, or knows others, does not use it up.

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
    /// Of requests whose certificate was not known.
    unknown: Failures,
    /// Of requests whose certificate has come with a genuine request before.
    known: Failures,
}

/// Failed verifications under approved keys.
#[derive(Debug, Default)]
struct Failures {
    by_address: Mutex<FailuresByAddress>,
    /// Whether any was ever recorded: while not, the table is not locked.
    any: AtomicBool,
}

impl Failures {
    fn exhausted(&self, address: Option<IpAddr>, now: MonotonicMillis) -> bool {
        self.any.load(Ordering::Acquire)
            && self.by_address.lock().unwrap_or_else(PoisonError::into_inner).exhausted(address, now)
    }

    fn record(&self, address: Option<IpAddr>, now: MonotonicMillis) {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner).record(address, now);
        self.any.store(true, Ordering::Release);
    }
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            // More than any rate: the first use cuts it down to one second's worth of the setting.
            strangers: Mutex::new(TokenBucket::full(u32::MAX, MonotonicMillis(0))),
            unknown: Failures::default(),
            known: Failures::default(),
        }
    }
}

/// The account of one request: charged once, before its first verification, whatever the number.
#[derive(Debug)]
pub(super) struct Account<'a> {
    budgets: &'a Budgets,
    approved: bool,
    /// Whether the certificate is one that has served before.
    known: bool,
    address: Option<IpAddr>,
    rate: u32,
    now: MonotonicMillis,
    charged: bool,
}

impl Budgets {
    /// Opens the account of a request that claims to come from `key`, with a certificate that is `known`
    /// from an earlier, genuine request or not.
    pub(super) fn open(
        &self,
        key: &PublicKey,
        known: bool,
        address: Option<IpAddr>,
        snapshot: &Snapshot,
        now: Now,
    ) -> Account<'_> {
        Account {
            budgets: self,
            approved: snapshot.approvals.knows(key),
            known,
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
            self.failures().exhausted(self.address, self.now)
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
            self.failures().record(self.address, self.now);
        }
    }

    const fn failures(&self) -> &Failures {
        if self.known { &self.budgets.known } else { &self.budgets.unknown }
    }
}

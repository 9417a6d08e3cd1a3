//! What bounds the control plane: settings, and budgets of callers that have shown nothing.

use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use crate::api::problem::Problem;
use crate::domain::limits::FailuresByAddress;
use crate::domain::limits::TokenBucket;
use crate::domain::time::MonotonicMillis;

/// Requests of strangers per second in the long run, all addresses together: each costs at most four Ed25519
/// verifications and one small write.
const STRANGERS_PER_SECOND: u32 = 200;
/// Requests of strangers at once.
const STRANGER_BURST: u32 = 400;
/// Seconds after which a stranger may try again.
const RETRY_SECONDS: u32 = 1;

/// Settings with their defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `MAX_PENDING_AUTHORIZATIONS`: pending claims of a namespace.
    pub max_pending: u32,
    /// `MAX_AGENTS_PER_SERVICE`: approved keys of a namespace for one service.
    pub max_agents_per_service: u32,
    /// `MAX_SERVICES_PER_NAMESPACE`: services a namespace has approved keys for.
    pub max_services_per_namespace: u32,
    /// `MAX_SERVICES_PER_ACCOUNT`: services one owner may have.
    pub max_services_per_account: u32,
    /// `MAX_API_KEYS_PER_SERVICE`: keys of a service that are not revoked.
    pub max_keys_per_service: u32,
    /// `PENDING_AUTHORIZATION_EXPIRY_HOURS`: after which a pending claim expires.
    pub pending_expiry: Duration,
    /// `SIGNATURE_MAX_AGE_SECONDS`.
    pub signature_max_age: Duration,
    /// `SIGNATURE_NONCE_TTL_SECONDS`: how long a nonce is remembered.
    pub nonce_ttl: Duration,
    /// `JWT_EXPIRY`: life of an owner token.
    pub token_ttl: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_pending: 20,
            max_agents_per_service: 10,
            max_services_per_namespace: 10,
            max_services_per_account: 5,
            max_keys_per_service: 2,
            pending_expiry: Duration::from_hours(24),
            signature_max_age: Duration::from_mins(5),
            nonce_ttl: Duration::from_mins(10),
            token_ttl: Duration::from_hours(7 * 24),
        }
    }
}

/// Budgets of callers without a service key: certificates are self-signed, so that anybody can sign something.
#[derive(Debug)]
pub struct Strangers(Mutex<Budgets>);

#[derive(Debug)]
struct Budgets {
    addresses: FailuresByAddress,
    all: TokenBucket,
}

impl Default for Strangers {
    fn default() -> Self {
        let all = TokenBucket::full(STRANGER_BURST, MonotonicMillis(0));
        Self(Mutex::new(Budgets { addresses: FailuresByAddress::default(), all }))
    }
}

impl Strangers {
    /// Takes one request of a stranger, or a failure of anybody, from the budgets of its address and of all;
    /// 429 `RATE_LIMITED` where one is used up.
    pub fn charge(&self, address: IpAddr, now: MonotonicMillis) -> Result<(), Problem> {
        let mut budgets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Its own budget first: who has used that up takes nothing from the others.
        if budgets.addresses.exhausted(Some(address), now) {
            return Err(Problem::rate_limited(RETRY_SECONDS));
        }
        budgets.addresses.record(Some(address), now);
        if budgets.all.take(STRANGERS_PER_SECOND, STRANGER_BURST, now) {
            Ok(())
        } else {
            Err(Problem::rate_limited(RETRY_SECONDS))
        }
    }

    /// 429 where an address has used its budget up.
    pub fn check(&self, address: IpAddr, now: MonotonicMillis) -> Result<(), Problem> {
        let mut budgets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let exhausted = budgets.addresses.exhausted(Some(address), now);
        if exhausted { Err(Problem::rate_limited(RETRY_SECONDS)) } else { Ok(()) }
    }
}

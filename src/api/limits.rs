//! What bounds the control plane: settings, and budgets of callers that have shown nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
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
/// Change streams at a time.
pub const MAX_STREAMS: usize = 256;
/// Change streams of one service: many gateways, but not everybody's room.
const MAX_STREAMS_OF_SERVICE: usize = 64;
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

/// Room for change streams, in all and by service.
#[derive(Debug, Default, Clone)]
pub struct Streams(Arc<Mutex<HashMap<String, usize>>>);

/// One stream's place; given back when dropped.
#[derive(Debug)]
pub struct StreamRoom {
    streams: Streams,
    service_id: String,
}

impl Streams {
    /// A place for one more stream of a service; `None` where there is none.
    pub fn open(&self, service_id: &str) -> Option<StreamRoom> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = held.values().sum();
        let own = held.get(service_id).copied().unwrap_or(0);
        if all >= MAX_STREAMS || own >= MAX_STREAMS_OF_SERVICE {
            return None;
        }
        held.insert(service_id.to_owned(), own.saturating_add(1));
        Some(StreamRoom { streams: self.clone(), service_id: service_id.to_owned() })
    }
}

impl Drop for StreamRoom {
    fn drop(&mut self) {
        let mut held = self.streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.service_id) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.remove(&self.service_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn one_service_does_not_take_every_place_and_places_come_back() {
        let streams = Streams::default();
        let held: Vec<_> = (0..MAX_STREAMS_OF_SERVICE).map(|_| streams.open("a").unwrap()).collect();
        assert!(streams.open("a").is_none());
        let others: Vec<_> =
            (MAX_STREAMS_OF_SERVICE..MAX_STREAMS).map(|number| streams.open(&format!("b{number}")).unwrap()).collect();
        assert!(streams.open("c").is_none());
        drop((held, others));
        assert!(streams.0.lock().unwrap().is_empty());
    }

    #[test]
    fn an_address_uses_up_its_own_budget_before_that_of_all() {
        let strangers = Strangers::default();
        let (one, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let now = MonotonicMillis(1);
        let served = (0..1000).filter(|_| strangers.charge(one, now).is_ok()).count();
        assert!((100..400).contains(&served), "{served}");
        assert_eq!(strangers.check(one, now).unwrap_err().code(), "RATE_LIMITED");
        assert!(strangers.charge(other, now).is_ok());
    }
}

//! What bounds the control plane: settings, and budgets of callers that have shown nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use crate::api::pairing::PairingLimits;
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
/// Change streams of all services of one owner: more services do not buy all of the room.
const MAX_STREAMS_OF_OWNER: usize = 128;
/// Service keys whose failures are counted apart.
const MAX_KEYS: usize = 1024;
/// Seconds after which a stranger may try again.
const RETRY_SECONDS: u32 = 1;

/// Settings with their defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `MAX_PENDING_AUTHORIZATIONS`: pending claims of a namespace for its owner's services, and as many for others'.
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
    /// Of pair sessions.
    pub pairing: PairingLimits,
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
            pairing: PairingLimits::default(),
        }
    }
}

/// Budgets of callers without a service key: certificates are self-signed, so that anybody can sign something.
///
/// What fails under a service key counts against that key at that address and nothing else: every process of a
/// machine has the same address on loopback, and a gateway must be served whatever strangers do there.
#[derive(Debug)]
pub struct Strangers(Mutex<Budgets>);

#[derive(Debug)]
struct Budgets {
    addresses: FailuresByAddress,
    all: TokenBucket,
    /// By the id of the service key.
    keys: HashMap<String, FailuresByAddress>,
    /// For keys that found `keys` full.
    other_keys: FailuresByAddress,
}

impl Budgets {
    fn of_key(&mut self, key_id: &str) -> &mut FailuresByAddress {
        if self.keys.contains_key(key_id) || self.keys.len() < MAX_KEYS {
            self.keys.entry(key_id.to_owned()).or_default()
        } else {
            &mut self.other_keys
        }
    }
}

impl Default for Strangers {
    fn default() -> Self {
        let all = TokenBucket::full(STRANGER_BURST, MonotonicMillis(0));
        let (addresses, other_keys) = (FailuresByAddress::default(), FailuresByAddress::default());
        Self(Mutex::new(Budgets { addresses, all, keys: HashMap::new(), other_keys }))
    }
}

impl Strangers {
    /// Takes one request of a stranger from the budgets of its address and of all; 429 `RATE_LIMITED` where one is used
    /// up.
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

    /// Whether [`Strangers::charge`] would fail now.
    pub fn is_exhausted(&self, address: IpAddr, now: MonotonicMillis) -> bool {
        let mut budgets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        budgets.addresses.exhausted(Some(address), now)
            || budgets.all.is_empty(STRANGERS_PER_SECOND, STRANGER_BURST, now)
    }

    /// Counts a failed verification under a service key.
    pub fn failed(&self, key_id: &str, address: IpAddr, now: MonotonicMillis) {
        let mut budgets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        budgets.of_key(key_id).record(Some(address), now);
    }

    /// 429 `RATE_LIMITED` where too much has failed under a service key at an address: a key that leaked must not
    /// buy verifications without end.
    pub fn check(&self, key_id: &str, address: IpAddr, now: MonotonicMillis) -> Result<(), Problem> {
        let mut budgets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let exhausted = match budgets.keys.contains_key(key_id) {
            true => budgets.of_key(key_id).exhausted(Some(address), now),
            false => budgets.other_keys.exhausted(Some(address), now),
        };
        if exhausted { Err(Problem::rate_limited(RETRY_SECONDS)) } else { Ok(()) }
    }
}

/// Room for change streams, in all, by owner and by service.
#[derive(Debug, Default, Clone)]
pub struct Streams(Arc<Mutex<HashMap<Holder, usize>>>);

/// Who holds streams.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Holder {
    owner: String,
    service: String,
}

/// One stream's place; given back when dropped.
#[derive(Debug)]
pub struct StreamRoom {
    streams: Streams,
    holder: Holder,
}

impl Streams {
    /// A place for one more stream of a service of an owner (ids of both); `None` where there is none.
    pub fn open(&self, owner: &str, service: &str) -> Option<StreamRoom> {
        let holder = Holder { owner: owner.to_owned(), service: service.to_owned() };
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = held.values().sum();
        let of_owner: usize = held.iter().filter(|(other, _)| other.owner == owner).map(|(_, count)| count).sum();
        let own = held.get(&holder).copied().unwrap_or(0);
        if all >= MAX_STREAMS || of_owner >= MAX_STREAMS_OF_OWNER || own >= MAX_STREAMS_OF_SERVICE {
            return None;
        }
        held.insert(holder.clone(), own.saturating_add(1));
        Some(StreamRoom { streams: self.clone(), holder })
    }
}

impl Drop for StreamRoom {
    fn drop(&mut self) {
        let mut held = self.streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.holder) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

    use super::*;

    #[test]
    fn nobody_takes_every_place_and_places_come_back() {
        let streams = Streams::default();
        let open = |owner: &str, service: &str, most: usize| -> Vec<StreamRoom> {
            (0..most).map_while(|_| streams.open(owner, service)).collect()
        };
        let mut held = vec![open("a", "a1", 1000)];
        assert_eq!(held[0].len(), MAX_STREAMS_OF_SERVICE);
        held.extend((2..10).map(|number| open("a", &format!("a{number}"), 1000)));
        assert_eq!(held.iter().flatten().count(), MAX_STREAMS_OF_OWNER, "the services of one owner together");
        held.extend((0..10).map(|number| open(&format!("b{number}"), "b", 1000)));
        assert_eq!(held.iter().flatten().count(), MAX_STREAMS);
        assert!(streams.open("c", "c").is_none());
        drop(held);
        assert!(streams.0.lock().unwrap().is_empty());
    }

    #[test]
    fn an_address_uses_up_its_own_budget_before_that_of_all() {
        let strangers = Strangers::default();
        let (one, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let now = MonotonicMillis(1);
        let served = (0..1000).filter(|_| strangers.charge(one, now).is_ok()).count();
        assert!((100..400).contains(&served), "{served}");
        assert!(strangers.charge(other, now).is_ok());
        assert!(strangers.check("key", one, now).is_ok(), "who has a key is served beside strangers");
    }

    #[test]
    fn failures_under_a_key_count_against_it_alone() {
        let strangers = Strangers::default();
        let (one, other): (IpAddr, IpAddr) = ("127.0.0.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let now = MonotonicMillis(1);
        (0..1000).for_each(|_| strangers.failed("leaked", one, now));
        assert_eq!(strangers.check("leaked", one, now).unwrap_err().code(), "RATE_LIMITED");
        assert!(strangers.check("leaked", other, now).is_ok());
        assert!(strangers.check("another", one, now).is_ok());
        assert!(strangers.charge(one, now).is_ok());
        (0..2 * MAX_KEYS).for_each(|number| strangers.failed(&number.to_string(), other, now));
        assert!(strangers.0.lock().unwrap().keys.len() <= MAX_KEYS);
    }
}

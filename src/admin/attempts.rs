//! A budget of wrong tokens per client address: guessing is slow, and the log stays readable.

use std::collections::HashMap;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::domain::time::MonotonicMillis;

/// Wrong tokens a client may show at once.
const BURST: u64 = 10;
/// Milliseconds after which one more is allowed.
const REFILL_MS: u64 = 6_000;
/// Clients remembered one by one; those beyond share one budget.
const MAX_CLIENTS: usize = 1024;

/// Budgets by client. Time is an argument.
#[derive(Debug, Default)]
pub struct Attempts {
    clients: Mutex<HashMap<IpAddr, Budget>>,
}

/// Counted as the time at which the budget will be whole again: one number, no timer.
#[derive(Debug, Clone, Copy)]
struct Budget {
    whole_at: u64,
}

impl Attempts {
    /// Whether a token of this client may be compared at all.
    pub fn may_try(&self, client: IpAddr, now: MonotonicMillis) -> bool {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let budget =
            clients.get(&place(client)).or_else(|| clients.get(&SHARED).filter(|_| clients.len() > MAX_CLIENTS));
        budget.is_none_or(|budget| budget.whole_at.saturating_sub(now.0) <= (BURST - 1) * REFILL_MS)
    }

    /// Notes a wrong token. Whether the budget is spent now shows at the next [`Attempts::may_try`].
    pub fn failed(&self, client: IpAddr, now: MonotonicMillis) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let mut place = place(client);
        if !clients.contains_key(&place) && clients.len() >= MAX_CLIENTS {
            clients.retain(|_, budget| budget.whole_at > now.0);
            if clients.len() >= MAX_CLIENTS {
                place = SHARED;
            }
        }
        let budget = clients.entry(place).or_insert(Budget { whole_at: now.0 });
        let ceiling = now.0.saturating_add(BURST * REFILL_MS);
        budget.whole_at = budget.whole_at.max(now.0).saturating_add(REFILL_MS).min(ceiling);
    }
}

/// Where clients beyond [`MAX_CLIENTS`] are counted.
const SHARED: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// An IPv6 client counts by its /64, which is what one subscriber is given.
fn place(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    fn client(number: u32) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::from(number))
    }

    fn at(ms: u64) -> MonotonicMillis {
        MonotonicMillis(1_000_000 + ms)
    }

    #[test]
    fn ten_at_once_then_one_every_six_seconds() {
        let attempts = Attempts::default();
        for _ in 0..10 {
            assert!(attempts.may_try(client(1), at(0)));
            attempts.failed(client(1), at(0));
        }
        assert!(!attempts.may_try(client(1), at(0)));
        assert!(attempts.may_try(client(2), at(0)));
        assert!(!attempts.may_try(client(1), at(5_999)));
        assert!(attempts.may_try(client(1), at(6_000)));
        attempts.failed(client(1), at(6_000));
        assert!(!attempts.may_try(client(1), at(6_001)));
        assert!(attempts.may_try(client(1), at(60_000)));
    }

    #[test]
    fn an_ipv6_subscriber_counts_once() {
        let attempts = Attempts::default();
        for host in 0..10_u128 {
            attempts.failed(IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | host)), at(0));
        }
        assert!(!attempts.may_try("2001:db8::ffff".parse().unwrap(), at(0)));
        assert!(attempts.may_try("2001:db8:0:1::1".parse().unwrap(), at(0)));
    }

    #[test]
    fn clients_beyond_the_bound_share_a_budget_until_room_is_made() {
        let attempts = Attempts::default();
        for number in 0..5000 {
            attempts.failed(client(number), at(0));
        }
        assert!(attempts.clients.lock().unwrap().len() <= MAX_CLIENTS + 1);
        assert!(!attempts.may_try(client(6000), at(0)));
        attempts.failed(client(7000), at(100_000));
        assert!(attempts.clients.lock().unwrap().len() < 5);
        assert!(attempts.may_try(client(6000), at(100_000)));
    }
}

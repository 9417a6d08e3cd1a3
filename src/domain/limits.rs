//! Budgets: how much work somebody who has proven nothing may cause.
//!
//! Time comes in as an argument, from the monotonic clock.

use std::collections::HashMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use crate::domain::time::MonotonicMillis;

/// Tokens are counted in thousandths, so that a rate per second refills per millisecond exactly.
const TOKEN: u64 = 1000;

/// A token bucket that holds at most one second's worth of its rate, or `burst` where that is given.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    thousandths: u64,
    refilled: MonotonicMillis,
}

impl TokenBucket {
    /// A full bucket.
    pub const fn full(burst: u32, now: MonotonicMillis) -> Self {
        Self { thousandths: (burst as u64).saturating_mul(TOKEN), refilled: now }
    }

    /// Takes one token, if there is one. `per_second` may change from call to call; 0 never refills.
    pub const fn take(&mut self, per_second: u32, burst: u32, now: MonotonicMillis) -> bool {
        self.refill(per_second, burst, now);
        if self.thousandths < TOKEN {
            return false;
        }
        self.thousandths = self.thousandths.saturating_sub(TOKEN);
        true
    }

    /// Whether [`TokenBucket::take`] would fail now.
    pub const fn is_empty(&mut self, per_second: u32, burst: u32, now: MonotonicMillis) -> bool {
        self.refill(per_second, burst, now);
        self.thousandths < TOKEN
    }

    /// Whether nothing of it is used up.
    const fn is_full(&mut self, per_second: u32, burst: u32, now: MonotonicMillis) -> bool {
        self.refill(per_second, burst, now);
        self.thousandths >= (burst as u64).saturating_mul(TOKEN)
    }

    const fn refill(&mut self, per_second: u32, burst: u32, now: MonotonicMillis) {
        let gained = now.since(self.refilled).saturating_mul(per_second as u64);
        let held = self.thousandths.saturating_add(gained);
        let limit = (burst as u64).saturating_mul(TOKEN);
        self.thousandths = if held < limit { held } else { limit };
        if now.0 > self.refilled.0 {
            self.refilled = now;
        }
    }
}

/// Failed verifications per second one address may cause in the long run. Each costs at most three
/// Ed25519 verifications, so an address gets less than a hundredth of a processor.
pub const FAILURES_PER_SECOND: u32 = 50;
/// Failed verifications one address may cause at once: room for a fleet behind one address whose
/// clocks or keys are wrong after a deployment.
pub const FAILURE_BURST: u32 = 200;
/// Addresses remembered at a time. Those beyond share one budget.
pub const MAX_ADDRESSES: usize = 4096;
/// The table is searched for recovered addresses at most this often, so that a flood of
/// addresses does not make every failure a search.
const SWEEP_INTERVAL_MS: u64 = 1000;

/// Failed verifications by client address: IPv4 whole, IPv6 by /64, which is what one host gets.
#[derive(Debug)]
pub struct FailuresByAddress {
    buckets: HashMap<IpAddr, TokenBucket>,
    /// For addresses that found the table full.
    overflow: TokenBucket,
    swept: MonotonicMillis,
}

impl Default for FailuresByAddress {
    fn default() -> Self {
        let start = MonotonicMillis(0);
        Self { buckets: HashMap::new(), overflow: TokenBucket::full(FAILURE_BURST, start), swept: start }
    }
}

impl FailuresByAddress {
    /// Whether this address has used its failures up. An unknown address (`None`) is one like any other.
    pub fn exhausted(&mut self, address: Option<IpAddr>, now: MonotonicMillis) -> bool {
        let full = self.buckets.len() >= MAX_ADDRESSES;
        match self.buckets.get_mut(&group(address)) {
            Some(bucket) => bucket.is_empty(FAILURES_PER_SECOND, FAILURE_BURST, now),
            None => full && self.overflow.is_empty(FAILURES_PER_SECOND, FAILURE_BURST, now),
        }
    }

    /// Counts one failure.
    pub fn record(&mut self, address: Option<IpAddr>, now: MonotonicMillis) {
        let group = group(address);
        if self.buckets.len() >= MAX_ADDRESSES
            && !self.buckets.contains_key(&group)
            && now.since(self.swept) >= SWEEP_INTERVAL_MS
        {
            self.swept = now;
            self.buckets.retain(|_, bucket| !bucket.is_full(FAILURES_PER_SECOND, FAILURE_BURST, now));
        }
        let room = self.buckets.len() < MAX_ADDRESSES;
        let bucket = match self.buckets.get_mut(&group) {
            Some(bucket) => bucket,
            None if room => self.buckets.entry(group).or_insert(TokenBucket::full(FAILURE_BURST, now)),
            None => &mut self.overflow,
        };
        bucket.take(FAILURES_PER_SECOND, FAILURE_BURST, now);
    }

    /// Whether nobody has failed yet: then nothing needs to be looked up.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

/// What counts as one client.
fn group(address: Option<IpAddr>) -> IpAddr {
    match address.map(|address| address.to_canonical()) {
        Some(IpAddr::V4(address)) => IpAddr::V4(address),
        Some(IpAddr::V6(address)) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    const fn at(millis: u64) -> MonotonicMillis {
        MonotonicMillis(millis)
    }

    fn v6(group: u16, host: u16) -> Option<IpAddr> {
        Some(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, group, 0, 0, 0, host)))
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = TokenBucket::full(3, at(0));
        assert_eq!((0..5).filter(|_| bucket.take(2, 3, at(0))).count(), 3);
        assert!(!bucket.take(2, 3, at(499)));
        assert!(bucket.take(2, 3, at(500)));
        assert!(!bucket.take(2, 3, at(500)));
        assert_eq!((0..9).filter(|_| bucket.take(2, 3, at(60_000))).count(), 3);
    }

    #[test]
    fn a_rate_of_nothing_gives_nothing_back() {
        let mut bucket = TokenBucket::full(0, at(0));
        assert!(!bucket.take(0, 0, at(u64::MAX)));
    }

    #[test]
    fn a_clock_that_does_not_move_refills_nothing() {
        let mut bucket = TokenBucket::full(1, at(1000));
        assert!(bucket.take(1000, 1, at(1000)));
        assert!(!bucket.take(1000, 1, at(500)));
        assert!(!bucket.take(1000, 1, at(1000)));
        assert!(bucket.take(1000, 1, at(1001)));
    }

    #[test]
    fn an_address_is_exhausted_by_its_own_failures_only() {
        let mut table = FailuresByAddress::default();
        assert!(table.is_empty() && !table.exhausted(v6(1, 1), at(5)));
        for host in 0..FAILURE_BURST {
            table.record(v6(1, u16::try_from(host).unwrap()), at(5));
        }
        assert!(table.exhausted(v6(1, 999), at(5)), "one /64 is one client");
        assert!(!table.exhausted(v6(2, 1), at(5)));
        assert!(!table.exhausted(None, at(5)));
        assert!(!table.exhausted(v6(1, 1), at(5 + 1000 / u64::from(FAILURES_PER_SECOND))));
    }

    #[test]
    fn a_mapped_address_is_the_address_it_maps() {
        let mut table = FailuresByAddress::default();
        let plain: IpAddr = "192.0.2.7".parse().unwrap();
        for _ in 0..FAILURE_BURST {
            table.record(Some("::ffff:192.0.2.7".parse().unwrap()), at(0));
        }
        assert!(table.exhausted(Some(plain), at(0)));
        assert!(!table.exhausted(Some("192.0.2.8".parse().unwrap()), at(0)));
    }

    #[test]
    fn a_flood_of_addresses_stays_within_the_table_and_recovers() {
        let mut table = FailuresByAddress::default();
        let address = |number: usize| Some(IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap())));
        let more = usize::try_from(FAILURE_BURST).unwrap();
        for number in 1..=MAX_ADDRESSES + more {
            table.record(address(number), at(0));
        }
        assert_eq!(table.buckets.len(), MAX_ADDRESSES);
        assert!(table.exhausted(address(MAX_ADDRESSES + 1), at(0)), "latecomers share one budget");
        assert!(!table.exhausted(address(1), at(0)));
        // A minute later the old ones are as good as new and make room.
        table.record(address(MAX_ADDRESSES + 1), at(60_000));
        assert_eq!(table.buckets.len(), 1);
    }
}

//! Wrong tokens per client address: whoever shows too many is told so for a while, and what could be guessed is compared no more than
//! once a second there. An address may be that of many: the right secret is not kept out by what others try.

use std::collections::HashMap;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::domain::time::MonotonicMillis;

/// Wrong tokens within `WINDOW_MS` that lead to a lock.
pub const MOST: usize = 10;
/// The time they are counted in, in milliseconds.
const WINDOW_MS: u64 = 60_000;
/// How long a client is locked out then, in milliseconds. Knocking on does not prolong it: who forgot a script
/// somewhere gets in again.
const LOCK_MS: u64 = 300_000;
/// Between two comparisons of what could be guessed, of a locked client, in milliseconds.
const COMPARE_MS: u64 = 1_000;
/// Wrong passwords of this machine that are answered at once; those beyond wait until one a second is left.
const FREE_HERE: u64 = 10;
/// What each of them costs, in milliseconds.
const COST_MS: u64 = 1_000;
/// Longest such wait, in milliseconds: shorter than a request may take.
const MAX_WAIT_MS: u64 = 15_000;
/// Clients remembered one by one, about 100 bytes each; those beyond are counted together.
const MAX_CLIENTS: usize = 4096;

/// What is remembered of clients. Time is an argument.
#[derive(Debug, Default)]
pub struct Attempts {
    clients: Mutex<HashMap<IpAddr, Record>>,
    /// When the wrong passwords of this machine's programs are paid for, all of them together.
    paid_at: Mutex<u64>,
}

/// The last wrong tokens of a client.
#[derive(Debug, Clone, Copy, Default)]
struct Record {
    /// When they were shown; in a ring, 0 = not yet.
    failed_at: [u64; MOST],
    /// Place of the oldest.
    next: usize,
    /// Until when wrong ones are too many.
    locked_until: u64,
    /// When something that could be guessed was compared last, since then.
    compared_at: u64,
}

impl Record {
    /// Whether it says nothing any more.
    fn is_over(&self, now: u64) -> bool {
        let last = self.failed_at.iter().max().copied().unwrap_or_default();
        self.locked_until <= now && last.saturating_add(WINDOW_MS) <= now
    }

    fn note(&mut self, now: u64) {
        if let Some(oldest) = self.failed_at.get_mut(self.next) {
            *oldest = now.max(1);
        }
        self.next = self.next.wrapping_add(1) % MOST;
        let oldest = self.failed_at.get(self.next).copied().unwrap_or_default();
        if oldest != 0 && now.saturating_sub(oldest) < WINDOW_MS {
            *self = Self { locked_until: now.saturating_add(LOCK_MS), ..Self::default() };
        }
    }
}

impl Attempts {
    /// For how many more seconds this client has shown too many wrong ones; `None`: it has not.
    pub fn locked_for(&self, client: IpAddr, now: MonotonicMillis) -> Option<u32> {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = || clients.get(&SHARED).filter(|_| clients.len() > MAX_CLIENTS);
        let record = clients.get(&place(client)).or_else(shared)?;
        let left = record.locked_until.saturating_sub(now.0);
        (left > 0).then(|| u32::try_from(left.div_ceil(1000)).unwrap_or(u32::MAX))
    }

    /// Whether a secret of this locked client that could be guessed is compared now: once a second.
    pub fn compares(&self, client: IpAddr, now: MonotonicMillis) -> bool {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let known = if clients.contains_key(&place(client)) { place(client) } else { SHARED };
        let Some(record) = clients.get_mut(&known) else { return true };
        if record.compared_at != 0 && now.0.saturating_sub(record.compared_at) < COMPARE_MS {
            return false;
        }
        record.compared_at = now.0.max(1);
        true
    }

    /// Notes a wrong password of a program of this machine, which no lock keeps out: for how long its answer is to wait, in
    /// milliseconds; `None`: it need not. They are counted together: who is behind a connection is not known.
    pub fn failed_here(&self, now: MonotonicMillis) -> Option<u64> {
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let free = now.0.saturating_add(FREE_HERE.saturating_mul(COST_MS));
        *paid_at = (*paid_at).max(now.0).saturating_add(COST_MS).min(free.saturating_add(MAX_WAIT_MS));
        Some(paid_at.saturating_sub(free)).filter(|wait| *wait > 0)
    }

    /// Whether wrong passwords of this machine wait now.
    pub fn is_pressed_here(&self, now: MonotonicMillis) -> bool {
        let paid_at = *self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        paid_at.saturating_sub(now.0) >= FREE_HERE.saturating_mul(COST_MS)
    }

    /// Notes a wrong token. What it leads to shows at the next [`Attempts::locked_for`].
    pub fn failed(&self, client: IpAddr, now: MonotonicMillis) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let mut place = place(client);
        if !clients.contains_key(&place) && clients.len() >= MAX_CLIENTS {
            clients.retain(|_, record| !record.is_over(now.0));
            if clients.len() >= MAX_CLIENTS {
                place = SHARED;
            }
        }
        clients.entry(place).or_default().note(now.0);
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
    fn ten_within_a_minute_lock_for_five() {
        let attempts = Attempts::default();
        for number in 0..10 {
            assert_eq!(attempts.locked_for(client(1), at(number * 6_600)), None, "{number}");
            attempts.failed(client(1), at(number * 6_600));
        }
        let locked = 9 * 6_600;
        assert_eq!(attempts.locked_for(client(1), at(locked)), Some(300));
        assert_eq!(attempts.locked_for(client(2), at(locked)), None);
        assert_eq!(attempts.locked_for(client(1), at(locked + 1)), Some(300));
        assert_eq!(attempts.locked_for(client(1), at(locked + 299_999)), Some(1));
        assert_eq!(attempts.locked_for(client(1), at(locked + 300_000)), None);
        // And then it starts anew.
        attempts.failed(client(1), at(locked + 300_000));
        assert_eq!(attempts.locked_for(client(1), at(locked + 300_000)), None);
    }

    #[test]
    fn a_locked_client_is_compared_once_a_second() {
        let attempts = Attempts::default();
        for _ in 0..MOST {
            attempts.failed(client(1), at(0));
        }
        assert!(attempts.locked_for(client(1), at(0)).is_some());
        let compared = (0..10_000).step_by(10).filter(|ms| attempts.compares(client(1), at(*ms))).count();
        assert_eq!(compared, 10);
        assert!(attempts.compares(client(2), at(0)), "of another nothing is known");
    }

    #[test]
    fn ten_in_more_than_a_minute_do_not() {
        let attempts = Attempts::default();
        for number in 0..100 {
            attempts.failed(client(1), at(number * 6_700));
            assert_eq!(attempts.locked_for(client(1), at(number * 6_700)), None, "{number}");
        }
    }

    #[test]
    fn the_window_slides() {
        let attempts = Attempts::default();
        for ms in [0, 1, 2, 3, 4, 59_990, 59_991, 59_992, 59_993] {
            attempts.failed(client(1), at(ms));
        }
        attempts.failed(client(1), at(60_001));
        assert_eq!(attempts.locked_for(client(1), at(60_001)), None);
        for ms in 60_002..60_006 {
            assert_eq!(attempts.locked_for(client(1), at(ms)), None, "{ms}");
            attempts.failed(client(1), at(ms));
        }
        attempts.failed(client(1), at(60_006));
        assert_eq!(attempts.locked_for(client(1), at(60_006)), Some(300));
    }

    #[test]
    fn of_wrong_passwords_of_this_machine_ten_are_free_and_then_one_a_second() {
        let attempts = Attempts::default();
        for number in 0..10 {
            assert!(!attempts.is_pressed_here(at(0)), "{number}");
            assert_eq!(attempts.failed_here(at(0)), None, "{number}");
        }
        assert!(attempts.is_pressed_here(at(0)));
        assert_eq!((attempts.failed_here(at(0)), attempts.failed_here(at(0))), (Some(1_000), Some(2_000)));
        assert_eq!(attempts.failed_here(at(3_000)), None, "three seconds paid for three");
        assert_eq!(attempts.failed_here(at(3_500)), Some(500));
        for _ in 0..1_000 {
            attempts.failed_here(at(4_000));
        }
        assert_eq!(attempts.failed_here(at(4_000)), Some(15_000), "a wait has an end");
        assert!(!attempts.is_pressed_here(at(4_000 + 25_000)));
        assert_eq!(attempts.locked_for(client(1), at(4_000)), None);
    }

    #[test]
    fn an_ipv6_subscriber_counts_once() {
        let attempts = Attempts::default();
        for host in 0..10_u128 {
            attempts.failed(IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | host)), at(0));
        }
        assert!(attempts.locked_for("2001:db8::ffff".parse().unwrap(), at(0)).is_some());
        assert_eq!(attempts.locked_for("2001:db8:0:1::1".parse().unwrap(), at(0)), None);
    }

    #[test]
    fn clients_beyond_the_bound_count_together_until_room_is_made() {
        let attempts = Attempts::default();
        let bound = u32::try_from(MAX_CLIENTS).unwrap();
        for number in 0..bound + 20 {
            attempts.failed(client(number), at(0));
        }
        assert!(attempts.clients.lock().unwrap().len() <= MAX_CLIENTS + 1);
        assert!(attempts.locked_for(client(bound + 1000), at(0)).is_some());
        // One that is remembered by itself is not locked by the others.
        assert_eq!(attempts.locked_for(client(3), at(0)), None);
        attempts.failed(client(bound + 2000), at(400_000));
        assert!(attempts.clients.lock().unwrap().len() < 5);
        assert_eq!(attempts.locked_for(client(bound + 1000), at(400_000)), None);
    }
}

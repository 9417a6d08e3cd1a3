//! What the replay window promises, checked against a plain model.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test code may panic")]

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::domain::time::MonotonicMillis;
use crate::domain::time::UnixMillis;

const MAX_AGE: Duration = Duration::from_secs(300);
/// Seconds an entry lives after its request was signed.
const LIFETIME: u64 = 305;
const START: u64 = 1_700_000_000;

fn key(number: u32) -> PublicKey {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    PublicKey::new(bytes)
}

fn window(capacity: usize) -> ReplayWindow {
    ReplayWindow::new(capacity, *b"sixteen byte key")
}

/// Both clocks go as they should.
fn at(seconds: u64) -> Now {
    clocks(seconds, seconds)
}

fn clocks(wall: u64, monotonic: u64) -> Now {
    let millis = |seconds: u64| seconds.saturating_mul(1000);
    Now { wall: UnixMillis(millis(wall)), monotonic: MonotonicMillis(millis(monotonic)) }
}

#[test]
fn whoever_was_held_up_is_judged_by_when_others_looked() {
    let mut window = ReplayWindow::new(10, [0; 16]);
    let judge = |window: &mut ReplayWindow, at: u64| {
        window.admit(&PublicKey::new([7; 32]), "once", UnixSeconds(1_000), Duration::from_secs(300), clocks(at, at))
    };
    judge(&mut window, 1_000).unwrap();
    // It was read in time, and the machine slept before it was judged; somebody else was first after that.
    window.look(clocks(9_000, 9_000), Duration::from_secs(300));
    assert_eq!(judge(&mut window, 1_290), Err(AdmitRefusal::Starting));
}

fn admit(window: &mut ReplayWindow, holder: u32, nonce: &str, created: u64, now: u64) -> Result<Entry, AdmitRefusal> {
    admit_at(window, holder, nonce, created, at(now))
}

fn admit_at(
    window: &mut ReplayWindow,
    holder: u32,
    nonce: &str,
    created: u64,
    now: Now,
) -> Result<Entry, AdmitRefusal> {
    window.admit(&key(holder), nonce, UnixSeconds(created), MAX_AGE, now)
}

#[test]
fn a_nonce_is_admitted_once_per_key() {
    let mut window = window(100);
    assert!(admit(&mut window, 1, "n", START, START).is_ok());
    assert_eq!(admit(&mut window, 1, "n", START, START), Err(AdmitRefusal::Replayed));
    assert_eq!(admit(&mut window, 1, "n", START + 1, START + 1), Err(AdmitRefusal::Replayed), "signed anew");
    assert!(admit(&mut window, 2, "n", START, START).is_ok(), "another key has its own nonces");
    assert!(admit(&mut window, 1, "m", START, START).is_ok());
    assert_eq!(window.len(), 3);
}

#[test]
fn looking_whether_a_nonce_is_used_uses_none() {
    let mut window = window(100);
    let used = |window: &ReplayWindow, holder: u32, nonce: &str, now: u64| window.is_used(&key(holder), nonce, at(now));
    assert!(!used(&window, 1, "n", START) && window.is_empty());
    admit(&mut window, 1, "n", START, START).unwrap();
    assert!(used(&window, 1, "n", START) && used(&window, 1, "n", START + LIFETIME));
    assert!(!used(&window, 2, "n", START) && !used(&window, 1, "m", START));
    assert!(!used(&window, 1, "n", START + LIFETIME + 1));
    assert_eq!(window.len(), 1);
}

#[test]
fn an_entry_lives_exactly_as_long_as_its_request_could_be_accepted() {
    let mut window = window(100);
    admit(&mut window, 1, "n", START, START).unwrap();
    let last = START + LIFETIME;
    assert_eq!(admit(&mut window, 1, "n", last, last), Err(AdmitRefusal::Replayed));
    assert_eq!(window.len(), 1);
    admit(&mut window, 1, "n", last + 1, last + 1).unwrap();
    assert_eq!(window.len(), 1);
}

#[test]
fn newcomers_take_no_place_of_what_is_in_its_last_second() {
    let mut window = window(400);
    for number in 0..150 {
        admit(&mut window, number, "old", START, START).unwrap();
    }
    let last = START + LIFETIME;
    for number in 0..150 {
        admit(&mut window, number, "new", last, last).unwrap();
    }
    for number in 0..150 {
        assert_eq!(admit(&mut window, number, "old", START, last), Err(AdmitRefusal::Replayed));
        assert_eq!(admit(&mut window, number, "new", last, last), Err(AdmitRefusal::Replayed));
    }
    assert_eq!(window.len(), 300);
}

#[test]
fn a_full_window_refuses_and_forgets_nothing() {
    let mut window = window(40);
    for number in 0..40 {
        admit(&mut window, number, "n", START, START).unwrap();
    }
    assert_eq!(admit(&mut window, 40, "n", START, START), Err(AdmitRefusal::Full));
    for number in 0..40 {
        assert_eq!(admit(&mut window, number, "n", START, START), Err(AdmitRefusal::Replayed));
    }
    assert_eq!(admit(&mut window, 40, "n", START + LIFETIME, START + LIFETIME), Err(AdmitRefusal::Full));
    admit(&mut window, 40, "n", START + LIFETIME + 1, START + LIFETIME + 1).unwrap();
    assert_eq!(window.len(), 1);
}

#[test]
fn one_key_holds_a_quarter_and_no_more() {
    let mut window = window(4000);
    for number in 0..1000 {
        admit(&mut window, 1, &format!("n{number}"), START, START).unwrap();
    }
    assert_eq!(admit(&mut window, 1, "more", START, START), Err(AdmitRefusal::ShareFull));
    assert_eq!(admit(&mut window, 1, "n0", START, START), Err(AdmitRefusal::Replayed), "a replay is called one");
    for number in 2..202 {
        admit(&mut window, number, "n", START, START).unwrap();
    }
    // Shares are freed in spans of 16 seconds.
    let later = START + LIFETIME + 17;
    admit(&mut window, 1, "more", later, later).unwrap();
}

#[test]
fn the_smallest_window_still_admits_one() {
    let mut window = window(1);
    admit(&mut window, 1, "n", START, START).unwrap();
    assert_eq!(admit(&mut window, 1, "m", START, START), Err(AdmitRefusal::Full));
    let mut none = ReplayWindow::new(0, [0; 16]);
    assert_eq!(admit(&mut none, 1, "n", START, START), Err(AdmitRefusal::Full));
}

#[test]
fn a_clock_that_steps_back_brings_nothing_back_to_life() {
    let mut window = window(100);
    admit(&mut window, 1, "n", START, START).unwrap();
    // An hour later, by which the entry is gone, the clock is put back by fifty minutes.
    admit(&mut window, 2, "n", START + 3600, START + 3600).unwrap();
    let later = clocks(START + 600, START + 3601);
    for (nonce, created) in [("n", START), ("new", START + 610)] {
        assert_eq!(admit_at(&mut window, 1, nonce, created, later), Err(AdmitRefusal::Starting), "{created}");
    }
}

#[test]
fn a_clock_that_was_far_ahead_for_a_moment_costs_ten_seconds() {
    const AHEAD: u64 = 86_400;
    let mut window = window(100);
    admit(&mut window, 1, "before", START, START).unwrap();
    admit_at(&mut window, 1, "ahead", START + AHEAD, clocks(START + AHEAD, START + 1)).unwrap();
    let back = clocks(START + 2, START + 2);
    assert_eq!(window.look(back, MAX_AGE), Some(AHEAD - 1));
    assert_eq!(window.look(back, MAX_AGE), None, "it is told once");
    assert!(window.is_starting(UnixSeconds(START + 12)) && !window.is_starting(UnixSeconds(START + 13)));
    assert!(admit_at(&mut window, 1, "before", START, back).is_err());
    let settled = at(START + 13);
    admit_at(&mut window, 1, "after", START + 13, settled).unwrap();
    assert_eq!(admit_at(&mut window, 1, "before", START, settled), Err(AdmitRefusal::Starting));
    assert_eq!(window.len(), 3);
    // And memory comes back.
    admit(&mut window, 1, "last", START + 1000, START + 1000).unwrap();
    assert_eq!(window.len(), 1);
}

#[test]
fn a_start_without_a_journal_while_the_clock_is_ahead_does_not_close_the_gate_until_then() {
    let mut window = window(100);
    window.set_floor(UnixSeconds(START + 86_400));
    assert!(window.look(clocks(START + 86_400, 0), MAX_AGE).is_none());
    assert!(window.look(clocks(START + 1, 1), MAX_AGE).is_some());
    let last = START + 1 + LIFETIME + 5;
    assert!(window.is_starting(UnixSeconds(last)) && !window.is_starting(UnixSeconds(last + 1)));
}

#[test]
fn in_front_of_another_window_a_clock_that_steps_back_refuses_nothing_new() {
    let mut window = window(100);
    window.lift_floor();
    admit(&mut window, 1, "n", START, START).unwrap();
    let back = clocks(START - 100, START + 1);
    assert_eq!(admit_at(&mut window, 1, "n", START - 100, back), Err(AdmitRefusal::Replayed));
    admit_at(&mut window, 1, "m", START - 100, back).unwrap();
}

#[test]
fn without_a_journal_older_requests_are_refused() {
    let mut window = window(100);
    window.set_floor(UnixSeconds(START));
    assert_eq!(admit(&mut window, 1, "a", START - 10, START), Err(AdmitRefusal::Starting));
    assert_eq!(admit(&mut window, 1, "b", START + 5, START), Err(AdmitRefusal::Starting));
    admit(&mut window, 1, "c", START + 6, START + 6).unwrap();
    window.set_floor(UnixSeconds(0));
    assert_eq!(admit(&mut window, 1, "b", START + 5, START + 6), Err(AdmitRefusal::Starting));
}

#[test]
fn a_raised_maximum_age_lets_in_nothing_that_was_forgotten() {
    let mut window = window(100);
    let longer = Duration::from_secs(900);
    admit(&mut window, 1, "n", START, START).unwrap();
    admit(&mut window, 1, "late", START + 395, START + 400).unwrap();
    // At START + 400 the first entry is gone. A maximum age of 900 would accept its request again.
    let again = |window: &mut ReplayWindow, created: u64, nonce: &str, now: u64| {
        window.admit(&key(1), nonce, UnixSeconds(created), longer, at(now))
    };
    assert_eq!(again(&mut window, START, "n", START + 400), Err(AdmitRefusal::Starting));
    assert_eq!(again(&mut window, START + 395, "late", START + 700), Err(AdmitRefusal::Replayed));
    assert_eq!(again(&mut window, START + 395, "late", START + 701), Err(AdmitRefusal::Starting));
    // What is signed after the change is kept for the longer time.
    again(&mut window, START + 702, "new", START + 702).unwrap();
    assert_eq!(again(&mut window, START + 702, "new", START + 702 + 905), Err(AdmitRefusal::Replayed));
}

#[test]
fn a_maximum_age_raised_across_a_restart_is_noticed_too() {
    let mut window = window(100);
    window.assume_max_age(MAX_AGE);
    let answer = window.admit(&key(1), "n", UnixSeconds(START - 400), Duration::from_secs(900), at(START));
    assert_eq!(answer, Err(AdmitRefusal::Starting));
}

#[test]
fn the_journal_form_brings_back_everything_that_counts() {
    let mut first = window(8);
    let entries: Vec<Entry> =
        ["a", "b"].iter().map(|nonce| admit(&mut first, 1, nonce, START, START).unwrap()).collect();
    assert_eq!(admit(&mut first, 1, "c", START, START), Err(AdmitRefusal::ShareFull), "a quarter of eight");

    let mut second = window(8);
    for entry in &entries {
        assert_eq!(Entry::decode(&entry.encode()), *entry);
        second.restore(Entry::decode(&entry.encode()), UnixSeconds(START + 10));
        second.restore(*entry, UnixSeconds(START + 10));
    }
    assert_eq!(second.len(), 2);
    assert_eq!(admit(&mut second, 1, "a", START, START + 10), Err(AdmitRefusal::Replayed));
    assert_eq!(
        admit(&mut second, 1, "c", START + 10, START + 10),
        Err(AdmitRefusal::ShareFull),
        "the share came back too"
    );

    let mut third = window(8);
    for entry in &entries {
        third.restore(*entry, UnixSeconds(START + LIFETIME + 1));
    }
    let later = START + LIFETIME + 1;
    for expires_at in [later + MAX_AGE_SECONDS + 11, u64::MAX] {
        third.restore(Entry { expires_at: UnixSeconds(expires_at), ..entries[0] }, UnixSeconds(later));
    }
    assert!(third.is_empty(), "expired, or never written by us");
}

#[test]
fn times_at_the_ends_of_the_range_do_not_wrap() {
    let mut window = window(100);
    let _ = admit(&mut window, 1, "a", 0, 0);
    let _ = admit(&mut window, 1, "b", u64::MAX, 0);
    assert_eq!(admit(&mut window, 1, "c", u64::MAX, u64::MAX), Err(AdmitRefusal::Starting));
    assert!(window.len() <= 1);
}

#[test]
fn a_million_entries_take_at_most_32_bytes_each_at_every_size() {
    let mut window = window(1_000_000);
    let empty = window.memory_bytes();
    assert!(empty < 256 * 1024, "{empty}");
    for number in 0..1_000_000_u32 {
        let now = START + u64::from(number) / 5000;
        admit(&mut window, number, "n", now, now).unwrap();
        if number % 50_000 == 49_999 {
            let fixed = 512 * 1024;
            let each = window.memory_bytes().saturating_sub(fixed) / window.len();
            assert!(each <= 29, "{each} bytes at {}", window.len());
        }
    }
    assert!(window.memory_bytes() <= 32 * window.len(), "{}", window.memory_bytes());
}

#[test]
fn memory_comes_back_after_a_peak() {
    let mut window = window(200_000);
    for number in 0..200_000 {
        admit(&mut window, number, "n", START, START).unwrap();
    }
    let peak = window.memory_bytes();
    let later = START + LIFETIME + 1;
    for number in 0..20_000 {
        admit(&mut window, number, "m", later, later).unwrap();
    }
    assert!(window.memory_bytes() < peak / 4, "{} of {peak}", window.memory_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any sequence of requests, replays and clock steps: nothing is admitted twice while its
    /// signature could still be accepted, and `len` is exact.
    #[test]
    fn behaves_like_a_list_of_everything_ever_seen(
        steps in proptest::collection::vec((0_u32..6, 0_u32..40, 0_u64..320, 0_u64..4), 1..400),
        capacity in 8_usize..80,
    ) {
        let mut window = window(capacity);
        let mut model: HashMap<(u32, u32), u64> = HashMap::new();
        let mut now = START;
        for (holder, nonce, age, pause) in steps {
            now += pause * 7;
            let created = now - age;
            model.retain(|_, expires_at| *expires_at >= now);
            let expected = if created + LIFETIME < now {
                Err(AdmitRefusal::Starting)
            } else if model.contains_key(&(holder, nonce)) {
                Err(AdmitRefusal::Replayed)
            } else if model.len() >= capacity {
                Err(AdmitRefusal::Full)
            } else {
                Ok(())
            };
            let got = admit(&mut window, holder, &nonce.to_string(), created, now).map(|_| ());
            // The share of one key is freed up to 16 seconds late, so only its lower bound is exact.
            let held = model.keys().filter(|(by, _)| *by == holder).count();
            if got == Err(AdmitRefusal::ShareFull) && expected == Ok(()) {
                prop_assert!(window.quota.held(window.entry(&key(holder), "", 0).holder) >= capacity / 4);
            } else if expected == Ok(()) && held >= capacity / 4 {
                prop_assert_eq!(got, Err(AdmitRefusal::ShareFull));
            } else {
                prop_assert_eq!(got, expected);
            }
            if got.is_ok() {
                model.insert((holder, nonce), now + LIFETIME);
            }
            prop_assert_eq!(window.len(), model.len());
        }
    }

    /// Whatever the wall clock does, forth and back, far and near: a request that was used is not used again for as long as one
    /// may be old, by time that passes; where the clock is never further from itself than that, never.
    #[test]
    fn no_step_of_a_clock_lets_a_used_request_pass(
        turns in proptest::collection::vec((0_u32..4, 0_u32..4, -5_i64..320, 0_u64..60, steps()), 1..200),
        far in any::<bool>(),
    ) {
        let mut window = window(1000);
        // By request: when it was signed and used.
        let mut used: HashMap<(u32, u32, u64), u64> = HashMap::new();
        let (mut monotonic, mut ahead) = (1_000_u64, 0_i64);
        for (holder, nonce, age, pause, step) in turns {
            monotonic += pause;
            ahead = if far { ahead + step * 400 } else { (ahead + step).clamp(-150, 150) };
            let wall = (START + monotonic).saturating_add_signed(ahead);
            // Anything that was used before, where its signature would be accepted, and something new.
            let mut tried: Vec<(u32, u32, u64)> = used.keys().copied().collect();
            tried.sort_unstable();
            tried.push((holder, nonce, wall.saturating_add_signed(-age)));
            for (holder, nonce, created) in tried {
                if created > wall + 5 || created + 300 < wall {
                    continue;
                }
                let name = format!("{nonce}-{created}");
                let got = admit_at(&mut window, holder, &name, created, clocks(wall, monotonic));
                let before = used.get(&(holder, nonce, created)).copied();
                if got.is_ok() {
                    if let Some(before) = before {
                        prop_assert!(far && monotonic - before > 300, "used again after {} s", monotonic - before);
                    }
                    used.insert((holder, nonce, created), monotonic);
                }
            }
        }
    }
}

/// Mostly none, else by up to four minutes; ahead as often as back.
fn steps() -> impl Strategy<Value = i64> {
    prop_oneof![4 => Just(0_i64), 1 => -300_i64..300, 1 => -8_i64..8]
}

//! What the gate remembers to save work: certificates, and signatures the head stage has verified.
//!
//! Both are kept under a 128-bit keyed hash of everything that was verified, so a hit is proof of an
//! earlier success. Both are bounded by two generations: the younger takes what is new and what is used
//! again, and when it is full it becomes the older, whose content is dropped.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::hash::Hash;
use std::hash::Hasher;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use siphasher::sip128::Hasher128 as _;
use siphasher::sip128::SipHasher24;

use crate::domain::ids::PublicKey;
use crate::domain::signature::VerifiedCertificate;
use crate::domain::time::MonotonicMillis;
use crate::domain::time::Now;

/// Certificates kept. Each takes about half a kilobyte; one that is not kept costs one more
/// verification per request.
const CERTIFICATES: usize = 16_384;
/// Requests that may stand between their two stages. One that is forgotten is verified again.
const BETWEEN_STAGES: usize = 65_536;
/// A request that has not come back after one to two of these is forgotten.
const STAGE_GAP_MS: u64 = 60_000;
/// Independent parts, so that requests rarely wait for one another.
const PARTS: usize = 16;

/// Keyed hash of what was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Print(u64, u64);

impl Hash for Print {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.1);
    }
}

/// A [`Print`] is spread evenly already, and nobody outside can choose it.
#[derive(Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

type Map<V> = HashMap<Print, V, BuildHasherDefault<Spread>>;

/// A bounded map that keeps what was used lately.
#[derive(Debug)]
struct Generations<V> {
    young: Map<V>,
    old: Map<V>,
    turned: MonotonicMillis,
}

impl<V: Clone> Generations<V> {
    fn new() -> Self {
        Self { young: Map::default(), old: Map::default(), turned: MonotonicMillis(0) }
    }

    fn get(&mut self, print: &Print, limit: usize) -> Option<V> {
        if let Some(value) = self.young.get(print) {
            return Some(value.clone());
        }
        let value = self.old.remove(print)?;
        self.insert(*print, value.clone(), limit);
        Some(value)
    }

    fn insert(&mut self, print: Print, value: V, limit: usize) {
        if self.young.len() >= limit / 2 {
            self.turn();
        }
        self.young.insert(print, value);
    }

    fn take(&mut self, print: &Print) -> Option<V> {
        self.young.remove(print).or_else(|| self.old.remove(print))
    }

    fn turn(&mut self) {
        self.old = std::mem::take(&mut self.young);
    }

    /// Turns when `gap` milliseconds have passed since the last time.
    fn turn_by_time(&mut self, now: MonotonicMillis, gap: u64) {
        let passed = now.since(self.turned);
        if passed >= gap {
            self.turn();
            if passed >= gap.saturating_mul(2) {
                self.old.clear();
            }
            self.turned = now;
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Memory {
    seed: [u8; 16],
    certificates: [Mutex<Generations<VerifiedCertificate>>; PARTS],
    verified: [Mutex<Generations<()>>; PARTS],
}

impl Memory {
    pub(super) fn new(seed: [u8; 16]) -> Self {
        Self {
            seed,
            certificates: std::array::from_fn(|_| Mutex::new(Generations::new())),
            verified: std::array::from_fn(|_| Mutex::new(Generations::new())),
        }
    }

    /// The print of a certificate, by the bytes of its header.
    pub(super) fn certificate_print(&self, header: &str) -> Print {
        self.print(b'c', &[header.as_bytes()])
    }

    /// The print of a signed request: key and signature have fixed lengths, the base is the rest.
    pub(super) fn request_print(&self, key: &PublicKey, signature: &[u8; 64], base: &[u8]) -> Print {
        self.print(b'r', &[key.as_bytes(), signature, base])
    }

    /// A certificate that verified before.
    pub(super) fn certificate(&self, print: &Print) -> Option<VerifiedCertificate> {
        lock(&self.certificates, print)?.get(print, CERTIFICATES / PARTS)
    }

    /// Keeps a certificate. Only for keys that are approved and have just proven that they made the request.
    pub(super) fn keep_certificate(&self, print: Print, certificate: VerifiedCertificate) {
        if let Some(mut part) = lock(&self.certificates, &print) {
            part.insert(print, certificate, CERTIFICATES / PARTS);
        }
    }

    /// Remembers a request whose signature verified, for the stage to come.
    pub(super) fn remember(&self, print: Print, now: Now) {
        if let Some(mut part) = lock(&self.verified, &print) {
            part.turn_by_time(now.monotonic, STAGE_GAP_MS);
            part.insert(print, (), BETWEEN_STAGES / PARTS);
        }
    }

    /// Whether this very request verified lately.
    pub(super) fn recalls(&self, print: &Print, now: Now) -> bool {
        lock(&self.verified, print).is_some_and(|mut part| {
            part.turn_by_time(now.monotonic, STAGE_GAP_MS);
            part.get(print, BETWEEN_STAGES / PARTS).is_some()
        })
    }

    /// The same, and it is forgotten: of several that ask at once, one gets the answer.
    pub(super) fn consume(&self, print: &Print, now: Now) -> bool {
        lock(&self.verified, print).is_some_and(|mut part| {
            part.turn_by_time(now.monotonic, STAGE_GAP_MS);
            part.take(print).is_some()
        })
    }

    fn print(&self, kind: u8, pieces: &[&[u8]]) -> Print {
        let mut hasher = SipHasher24::new_with_key(&self.seed);
        hasher.write(&[kind]);
        for piece in pieces {
            hasher.write(piece);
        }
        let (first, second) = hasher.finish128().as_u64();
        Print(first, second)
    }
}

/// The part a print belongs to. A thread that panicked while holding it left a map that is whole.
fn lock<'a, T>(parts: &'a [Mutex<T>; PARTS], print: &Print) -> Option<MutexGuard<'a, T>> {
    let at = usize::try_from(print.0).unwrap_or_default() % PARTS;
    parts.get(at).map(|part| part.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code may panic")]

    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::domain::time::UnixMillis;

    fn at(monotonic: u64) -> Now {
        Now { wall: UnixMillis(0), monotonic: MonotonicMillis(monotonic) }
    }

    fn print(memory: &Memory, number: u32) -> Print {
        memory.request_print(&PublicKey::new([1; 32]), &[2; 64], &number.to_le_bytes())
    }

    fn held<V>(parts: &[Mutex<Generations<V>>; PARTS]) -> usize {
        parts.iter().map(|part| part.lock().unwrap()).map(|part| part.young.len() + part.old.len()).sum()
    }

    #[test]
    fn every_part_of_what_was_verified_is_in_the_print() {
        let memory = Memory::new([7; 16]);
        let print = |key: u8, signature: u8, base: &[u8]| {
            memory.request_print(&PublicKey::new([key; 32]), &[signature; 64], base)
        };
        let all = [print(1, 1, b"x"), print(2, 1, b"x"), print(1, 2, b"x"), print(1, 1, b"y"), print(1, 1, b"")];
        for (index, one) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|other| other == one), Some(index));
        }
        assert_ne!(Memory::new([8; 16]).request_print(&PublicKey::new([1; 32]), &[1; 64], b"x"), all[0]);
        assert_ne!(memory.certificate_print("x"), memory.print(b'r', &[b"x"]));
    }

    #[test]
    fn a_request_is_recalled_until_consumed_or_stale() {
        let memory = Memory::new([7; 16]);
        let one = print(&memory, 1);
        assert!(!memory.recalls(&one, at(0)) && !memory.consume(&one, at(0)));
        memory.remember(one, at(0));
        assert!(memory.recalls(&one, at(1)) && memory.recalls(&one, at(2)));
        assert!(memory.consume(&one, at(3)));
        assert!(!memory.consume(&one, at(3)) && !memory.recalls(&one, at(3)));
        memory.remember(one, at(10));
        assert!(!memory.consume(&one, at(10 + 2 * STAGE_GAP_MS)));
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_what_is_new() {
        let memory = Memory::new([7; 16]);
        let many = u32::try_from(BETWEEN_STAGES).unwrap() * 3;
        for number in 0..many {
            memory.remember(print(&memory, number), at(0));
        }
        assert!(held(&memory.verified) <= BETWEEN_STAGES);
        assert!(memory.consume(&print(&memory, many - 1), at(0)));
        assert!(!memory.consume(&print(&memory, 0), at(0)));
    }

    #[test]
    fn of_many_threads_one_consumes() {
        let memory = Memory::new([7; 16]);
        for number in 0..500 {
            let one = print(&memory, number);
            memory.remember(one, at(0));
            let wins = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        if memory.consume(&one, at(0)) {
                            wins.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
            });
            assert_eq!(wins.into_inner(), 1);
        }
        assert_eq!(held(&memory.verified), 0);
    }
}

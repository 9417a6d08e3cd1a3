//! The replay window: which (key, nonce) pairs have been used and are not yet too old to be used again.
//!
//! Every entry carries its own expiry (`created` + maximum age + skew) and stays until then. A full
//! window refuses; it never evicts, because an evicting cache is itself the replay attack.
//!
//! Entries expire by time that passes and not by the wall clock, which may be wrong for a while: a used request is refused for
//! its age at least, however that clock steps. Where it steps back by more than clocks may differ, what was signed until then
//! and a little later is refused besides, as after a start without a journal.
//!
//! Memory: 20 bytes a slot in many small open-addressing tables, each of which grows, and drops what
//! has expired, on its own: no operation ever touches more than one of them, so nothing stalls when
//! a second's worth of entries expires or when a million become two. Live entries are counted by
//! their second of expiry, which makes `len` exact although expired slots are reused lazily.

use std::collections::VecDeque;
use std::hash::Hasher as _;
use std::time::Duration;

use siphasher::sip128::Hasher128 as _;
use siphasher::sip128::SipHasher24;

use crate::domain::ids::PublicKey;
use crate::domain::time::CLOCK_SKEW;
use crate::domain::time::MonotonicMillis;
use crate::domain::time::Now;
use crate::domain::time::UnixSeconds;

pub mod mark;
mod pace;
mod quota;
pub mod store_clock;
mod table;

use pace::Pace;
use quota::Quota;
use table::Inserted;
use table::Tables;

/// Longest maximum age the window can keep, in seconds. A larger one is treated as this one:
/// what is older is refused, not forgotten.
pub const MAX_AGE_SECONDS: u64 = 86_400;
/// One key may hold one part in this many of the window.
const SHARE: usize = 4;

/// What is remembered of a (public key, nonce): SipHash-2-4 with 128 bits under a secret key, so
/// that nobody can choose nonces that collide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplayKey(pub [u8; 16]);

/// One remembered request, as the journal keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Hash of public key and nonce.
    pub key: ReplayKey,
    /// Last second in which it must be remembered.
    pub expires_at: UnixSeconds,
    /// Keyed hash of the public key alone, for the share one key may hold.
    pub holder: u64,
}

/// Why a nonce was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdmitRefusal {
    /// This key has used this nonce.
    Replayed,
    /// The window is used up.
    Full,
    /// The share of this key is used up.
    ShareFull,
    /// The request is older than what this window can know of: nobody can say whether it is a replay.
    Starting,
}

impl Entry {
    /// Length of the encoded form, in bytes.
    pub const ENCODED_BYTES: usize = 32;

    /// Key, expiry and holder in a row, numbers in little-endian order.
    pub fn encode(&self) -> [u8; Self::ENCODED_BYTES] {
        let mut bytes = [0; Self::ENCODED_BYTES];
        let (key, rest) = bytes.split_at_mut(16);
        let (expires_at, holder) = rest.split_at_mut(8);
        key.copy_from_slice(&self.key.0);
        expires_at.copy_from_slice(&self.expires_at.0.to_le_bytes());
        holder.copy_from_slice(&self.holder.to_le_bytes());
        bytes
    }

    /// Reads what [`Entry::encode`] wrote; every 32 bytes are an entry.
    pub fn decode(bytes: &[u8; Self::ENCODED_BYTES]) -> Self {
        let (mut key, mut expires_at, mut holder) = ([0; 16], [0; 8], [0; 8]);
        let (first, rest) = bytes.split_at(16);
        let (second, third) = rest.split_at(8);
        key.copy_from_slice(first);
        expires_at.copy_from_slice(second);
        holder.copy_from_slice(third);
        Self {
            key: ReplayKey(key),
            expires_at: UnixSeconds(u64::from_le_bytes(expires_at)),
            holder: u64::from_le_bytes(holder),
        }
    }
}

/// The window. See the module for what it promises.
#[derive(Debug)]
pub struct ReplayWindow {
    capacity: usize,
    hash_key: [u8; 16],
    tables: Tables,
    quota: Quota,
    /// Live entries by second of expiry; the front is `high`.
    by_second: VecDeque<u32>,
    live: usize,
    /// `None`: no clock was looked at but by [`Self::restore`].
    pace: Option<Pace>,
    /// The latest moment at which anybody looked at the clocks.
    looked: Option<MonotonicMillis>,
    /// The second by which entries expire. It begins as the wall clock's.
    high: Option<u64>,
    /// Requests created up to this second are refused.
    floor: Option<u64>,
    /// Somebody else remembers what this window may not: there is never a floor.
    lifted: bool,
    /// Maximum age + skew of the latest admission, in seconds.
    lifetime: Option<u64>,
    /// What was created up to `.0` may have been remembered for `.1` seconds only.
    shorter: Option<(u64, u64)>,
}

impl ReplayWindow {
    /// An empty window for `capacity` entries. Nothing but a small directory is allocated yet.
    pub fn new(capacity: usize, hash_key: [u8; 16]) -> Self {
        Self {
            capacity,
            hash_key,
            tables: Tables::new(capacity),
            quota: Quota::default(),
            by_second: VecDeque::new(),
            live: 0,
            pace: None,
            looked: None,
            high: None,
            floor: None,
            lifted: false,
            lifetime: None,
            shorter: None,
        }
    }

    /// Remembers a genuine request, once.
    ///
    /// # Errors
    /// See [`AdmitRefusal`]. A refused request leaves nothing behind.
    pub fn admit(
        &mut self,
        key: &PublicKey,
        nonce: &str,
        created: UnixSeconds,
        max_age: Duration,
        now: Now,
    ) -> Result<Entry, AdmitRefusal> {
        self.look(now, max_age);
        // Somebody may have looked later than this caller did, who was held up: what has expired by then is not known any more.
        let behind = self.looked.map_or(0, |looked| looked.since(now.monotonic).div_ceil(1000));
        let (high, wall) = (self.high.unwrap_or(0), now.seconds().0.saturating_add(behind));
        let expires_at = self.expiry(created, max_age, wall)?;
        let entry = self.entry(key, nonce, expires_at);
        // A replay is called one even where the window is full: the client should not try again.
        if self.tables.contains(&entry.key, high) {
            return Err(AdmitRefusal::Replayed);
        }
        if self.live >= self.capacity {
            return Err(AdmitRefusal::Full);
        }
        if self.quota.held(entry.holder) >= self.share() {
            return Err(AdmitRefusal::ShareFull);
        }
        // However old it is: its whole age, in which the wall clock may step back.
        let lives = expires_at.saturating_sub(wall).max(lifetime(max_age));
        match self.insert(&entry, high.saturating_add(lives), high) {
            Inserted::New => Ok(entry),
            Inserted::Present => Err(AdmitRefusal::Replayed),
            Inserted::OutOfRange => Err(AdmitRefusal::Starting),
        }
    }

    /// Whether this key has used this nonce, as far as is remembered. Changes nothing.
    pub fn is_used(&self, key: &PublicKey, nonce: &str, now: Now) -> bool {
        let high = self.high.unwrap_or(0).max(self.pace.map_or(now.seconds().0, |pace| pace.seconds(now)));
        self.tables.contains(&self.entry(key, nonce, high).key, high)
    }

    /// Remembers what the journal kept. What has expired, or could never have been written, is left out.
    ///
    /// A journal may hold more than the capacity (it was lowered): all of it is kept, and nothing
    /// is admitted until enough of it has expired.
    pub fn restore(&mut self, entry: Entry, now: UnixSeconds) {
        let high = self.advance(now.0);
        let farthest = high.saturating_add(MAX_AGE_SECONDS).saturating_add(CLOCK_SKEW.as_secs().saturating_mul(2));
        if entry.expires_at.0 < high || entry.expires_at.0 > farthest {
            return;
        }
        self.insert(&entry, entry.expires_at.0, high);
    }

    /// Looks at the clocks. Where the wall clock has stepped back by more than clocks may differ it says by how many seconds,
    /// once; what was signed until now and the skew twice later is refused from then on, and what is remembered stays longer.
    ///
    /// `max_age` is for how old a signature requests are accepted.
    pub fn look(&mut self, now: Now, max_age: Duration) -> Option<u64> {
        let mut pace = *self.pace.get_or_insert(Pace::begin(now));
        let stepped = pace.look(now);
        if let Some(seconds) = stepped {
            let lifetime = self.lifetime.unwrap_or(0).max(lifetime(max_age));
            self.turn_back(&mut pace, seconds.min(lifetime));
            if !self.lifted {
                self.floor = Some(floor_after(now.seconds(), self.floor.unwrap_or(0), lifetime));
            }
        }
        self.pace = Some(pace);
        self.looked = self.looked.max(Some(now.monotonic));
        self.advance(pace.seconds(now));
        stepped
    }

    /// Whether a request signed now is still refused, because nobody knows what was used before.
    pub fn is_starting(&self, now: UnixSeconds) -> bool {
        self.floor.is_some_and(|floor| now.0 <= floor)
    }

    /// Without a usable journal: what was created up to `started` + skew may have been used before.
    pub fn set_floor(&mut self, started: UnixSeconds) {
        let floor = started.0.saturating_add(CLOCK_SKEW.as_secs());
        self.floor = Some(self.floor.map_or(floor, |held| held.max(floor)));
    }

    /// Forgets [`Self::set_floor`], for good: somebody else remembers what was used before.
    pub const fn lift_floor(&mut self) {
        self.floor = None;
        self.lifted = true;
    }

    /// Says for how long the restored entries were kept, where that is known. A maximum age that
    /// has been raised since does not let in what they no longer guard.
    pub fn assume_max_age(&mut self, max_age: Duration) {
        self.lifetime = Some(lifetime(max_age));
    }

    /// Live entries.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Entries it may hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes it has allocated, allocator overhead excepted.
    pub fn memory_bytes(&self) -> usize {
        let seconds = self.by_second.capacity().saturating_mul(size_of::<u32>());
        size_of::<Self>()
            .saturating_add(self.tables.memory_bytes())
            .saturating_add(self.quota.memory_bytes())
            .saturating_add(seconds)
    }

    /// Entries one key may hold.
    fn share(&self) -> usize {
        (self.capacity / SHARE).max(1)
    }

    fn entry(&self, key: &PublicKey, nonce: &str, expires_at: u64) -> Entry {
        let mut hasher = SipHasher24::new_with_key(&self.hash_key);
        // The key has a fixed length: no two pairs run together to the same bytes.
        hasher.write(key.as_bytes());
        let holder = hasher.finish128().as_u64().0;
        hasher.write(nonce.as_bytes());
        let key = ReplayKey(hasher.finish128().as_bytes());
        Entry { key, expires_at: UnixSeconds(expires_at), holder }
    }

    fn insert(&mut self, entry: &Entry, expires_at: u64, high: u64) -> Inserted {
        let inserted = self.tables.insert(&entry.key, expires_at, high);
        if matches!(inserted, Inserted::New) {
            let at = usize::try_from(expires_at.saturating_sub(high)).unwrap_or(usize::MAX);
            while self.by_second.len() <= at {
                self.by_second.push_back(0);
            }
            if let Some(count) = self.by_second.get_mut(at) {
                *count = count.saturating_add(1);
            }
            self.live = self.live.saturating_add(1);
            self.quota.add(entry.holder, expires_at);
        }
        inserted
    }

    /// The last second of the wall clock in which a request must be remembered; refuses those nobody can judge.
    fn expiry(&mut self, created: UnixSeconds, max_age: Duration, wall: u64) -> Result<u64, AdmitRefusal> {
        let lifetime = lifetime(max_age);
        match self.lifetime {
            Some(held) if held < lifetime => {
                // The maximum age was raised: what is created by now was, or will be, forgotten after the
                // shorter time, although its signature would be accepted for longer.
                let until = wall.saturating_add(CLOCK_SKEW.as_secs());
                let shortest = match self.shorter {
                    Some((earlier, shorter)) if earlier.saturating_add(lifetime) >= wall => shorter.min(held),
                    Some(_) | None => held,
                };
                self.shorter = Some((until, shortest));
            }
            Some(_) | None => {}
        }
        self.lifetime = Some(lifetime);
        let remembered = match self.shorter {
            Some((until, shorter)) if created.0 <= until => shorter.min(lifetime),
            Some(_) | None => lifetime,
        };
        // Older than is remembered: its entry may be gone already.
        if created.0.saturating_add(remembered) < wall || self.floor.is_some_and(|floor| created.0 <= floor) {
            return Err(AdmitRefusal::Starting);
        }
        Ok(created.0.saturating_add(lifetime))
    }

    /// Moves on and drops the counts of the seconds that have passed.
    fn advance(&mut self, now: u64) -> u64 {
        let high = match self.high {
            None => now,
            Some(high) => {
                for _ in high..now {
                    let Some(expired) = self.by_second.pop_front() else { break };
                    self.live = self.live.saturating_sub(usize::try_from(expired).unwrap_or(usize::MAX));
                }
                high.max(now)
            }
        };
        self.high = Some(high);
        self.quota.advance(high);
        high
    }

    /// Goes back: what is live now stays for so many seconds more.
    fn turn_back(&mut self, pace: &mut Pace, seconds: u64) {
        pace.turn_back(seconds);
        let Some(high) = &mut self.high else { return };
        let before = *high;
        *high = before.saturating_sub(seconds);
        for _ in *high..before {
            self.by_second.push_front(0);
        }
        self.quota.turn_back(*high);
    }
}

/// The floor after the wall clock has stepped back to `now`. One that was set while it was ahead need not hold until it is there
/// again: what is accepted within the lifetime of an entry (in seconds) from now on is what counts.
pub fn floor_after(now: UnixSeconds, floor: u64, lifetime: u64) -> u64 {
    let skew = CLOCK_SKEW.as_secs();
    let held = floor.min(now.0.saturating_add(lifetime).saturating_add(skew));
    held.max(now.0.saturating_add(skew).saturating_add(skew))
}

/// For how many seconds a nonce is remembered where signatures of this age are accepted.
pub fn lifetime(max_age: Duration) -> u64 {
    max_age.as_secs().min(MAX_AGE_SECONDS).saturating_add(CLOCK_SKEW.as_secs())
}

#[cfg(test)]
mod window_tests;

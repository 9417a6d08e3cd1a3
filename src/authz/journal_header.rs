//! The head of a segment of the replay journal, and what can be told of a journal by the heads of its segments.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher24;

/// First bytes of a segment; the last of them is the version of the format.
pub(super) const MAGIC: [u8; 8] = *b"SIGRPL\0\x01";
/// Magic 8, hash key 16, boot 16, maximum age 8, number 8, opened 8, floor 8, checksum 8.
pub(super) const HEADER_BYTES: usize = 80;

/// What stands behind the window of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// Nothing: the journal is all that was used.
    Nobody,
    /// A window that replicas share.
    Shared,
}

impl Behind {
    /// What a header says of the boot. Behind a shared window every bit is turned: a version that knows nothing of this takes it
    /// for another boot, and does not rely on it.
    pub(super) const fn written(self, boot: u128) -> u128 {
        match self {
            Self::Nobody => boot,
            Self::Shared => !boot,
        }
    }
}

/// The head of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) hash_key: [u8; 16],
    /// As it is written: [`Behind::written`].
    pub(super) boot: u128,
    /// Seconds entries of this segment are kept, without skew; 0: it holds none.
    pub(super) max_age: u64,
    pub(super) number: u64,
    /// Highest wall clock seen when it was begun, in Unix seconds.
    pub(super) opened: u64,
    /// A start without a usable journal that may still matter, in Unix seconds; 0: none.
    pub(super) floor: u64,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.hash_key);
        out.extend_from_slice(&self.boot.to_le_bytes());
        out.extend_from_slice(&self.max_age.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.opened.to_le_bytes());
        out.extend_from_slice(&self.floor.to_le_bytes());
        out.extend_from_slice(&checksum(&out).to_le_bytes());
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(&out);
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let (body, sum) = bytes.split_last_chunk::<8>()?;
        let (magic, body) = body.split_first_chunk::<8>()?;
        let (hash_key, body) = body.split_first_chunk::<16>()?;
        let (boot, body) = body.split_first_chunk::<16>()?;
        let (max_age, body) = body.split_first_chunk::<8>()?;
        let (number, body) = body.split_first_chunk::<8>()?;
        let (opened, body) = body.split_first_chunk::<8>()?;
        let (floor, _) = body.split_first_chunk::<8>()?;
        let covered = bytes.get(..HEADER_BYTES - 8)?;
        (*magic == MAGIC && u64::from_le_bytes(*sum) == checksum(covered)).then_some(Self {
            hash_key: *hash_key,
            boot: u128::from_le_bytes(*boot),
            max_age: u64::from_le_bytes(*max_age),
            number: u64::from_le_bytes(*number),
            opened: u64::from_le_bytes(*opened),
            floor: u64::from_le_bytes(*floor),
        })
    }
}

/// Finds damage, not forgery: who can write here can write anything.
fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(bytes);
    hasher.finish()
}

/// Whether the segments are one unbroken memory of this boot; the first header, or why not.
pub(super) fn judge(
    numbers: &[u64],
    headers: &[Option<Header>],
    boot: Option<u128>,
    behind: Behind,
) -> Result<Header, &'static str> {
    let boot = boot.ok_or("this system does not name its boot")?;
    let (ours, shared) = (Behind::Nobody.written(boot), Behind::Shared.written(boot));
    let (last, before) = headers.split_last().ok_or("there is none")?;
    // A process that ended while it began a segment has not answered from it.
    let believed = if last.is_none() { before } else { headers };
    let first = believed.first().copied().flatten().ok_or("no segment has a readable header")?;
    let gap = numbers.iter().zip(numbers.iter().skip(1)).any(|(one, next)| one.checked_add(1) != Some(*next));
    if gap {
        return Err("a segment is missing");
    }
    for header in believed {
        match header {
            None => return Err("a header is damaged"),
            Some(header) if header.boot == shared && behind == Behind::Nobody => {
                return Err("a window that replicas share stood behind it, and knows the rest");
            }
            Some(header) if header.boot != ours && header.boot != shared => return Err("it is of another boot"),
            Some(header) if header.hash_key != first.hash_key => return Err("its segments do not belong together"),
            Some(_) => {}
        }
    }
    Ok(first)
}

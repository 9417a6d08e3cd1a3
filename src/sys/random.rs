//! Randomness from the operating system.

use std::time::Duration;

use getrandom::SysRng;
use hpke::rand_core::UnwrapErr;

use crate::domain::hex;

/// The operating system gave no randomness; nothing that needs any may go on.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no randomness: {0}")]
pub struct RandomError(getrandom::Error);

/// `N` random bytes.
pub fn bytes<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut out = [0_u8; N];
    getrandom::fill(&mut out).map_err(RandomError)?;
    Ok(out)
}

/// `N` random bytes as lower-case hex (2 × N characters).
pub fn hex<const N: usize>() -> Result<String, RandomError> {
    Ok(hex::text(&bytes::<N>()?))
}

/// The operating system's randomness for a library that takes a generator. It panics where there is none.
pub const fn generator() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// Between half of a pause and all of it, so that many who wait do not come back in step.
pub fn jittered(pause: Duration) -> Duration {
    // Without randomness the whole pause is kept.
    let share = bytes::<2>().map_or(u16::MAX, u16::from_be_bytes);
    pause.mul_f64(0.5 + f64::from(share) / f64::from(u16::MAX) / 2.0)
}

/// A random UUID, version 4 (RFC 9562 section 5.4), lower case with hyphens.
pub fn uuid() -> Result<String, RandomError> {
    let number = u128::from_be_bytes(bytes::<16>()?);
    // Version 4 in bits 76..80, variant 10 in bits 62..64.
    let number = number & !(0xf << 76) | (0x4 << 76);
    let number = number & !(0x3 << 62) | (0x2 << 62);
    let text = format!("{number:032x}");
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    Ok(format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)))
}

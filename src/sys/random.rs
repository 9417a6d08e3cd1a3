//! Randomness from the operating system.

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
    Ok(bytes::<N>()?.iter().map(|byte| format!("{byte:02x}")).collect())
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

//! Bytes as lower-case hex.

use std::fmt::Write as _;

/// Two digits for each byte.
pub fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// As [`text`], of the first `count` bytes.
pub fn begin(bytes: &[u8], count: usize) -> String {
    text(bytes.get(..count).unwrap_or(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_digits_each() {
        assert_eq!(text(&[0, 10, 255]), "000aff");
        assert_eq!((begin(&[0, 10, 255], 2), begin(&[1], 2)), ("000a".to_owned(), "01".to_owned()));
    }
}

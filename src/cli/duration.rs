//! Lengths of time as they are typed.

/// Most seconds: ten years.
pub(crate) const LONGEST: u64 = 10 * 366 * 86_400;

/// `90s`, `30m`, `24h`, `7d`, `2w` in seconds; at most ten years.
pub(crate) fn seconds(text: &str) -> Option<u64> {
    let unit = text.chars().last()?;
    let length = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return None,
    };
    let number = text.strip_suffix(unit)?;
    // `parse` would take a sign.
    let plain = number.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = number.parse::<u64>().ok().filter(|_| plain)?.checked_mul(length)?;
    (seconds <= LONGEST).then_some(seconds)
}

/// The same for an option; `0` needs no unit.
pub(crate) fn option(text: &str) -> Result<u64, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(0);
    }
    seconds(text).ok_or_else(|| "wants a number and s, m, h, d or w, e.g. 30s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_has_a_unit_or_is_nothing() {
        assert_eq!((option("0"), option("0s"), option(" 2m ")), (Ok(0), Ok(0), Ok(120)));
        for bad in ["", "5", "-5s", "+5s", "5 s", "s", "99999999w", "5x"] {
            assert!(option(bad).is_err(), "{bad}");
        }
    }
}

//! What templates do to values besides escaping them.

#![allow(unreachable_pub, reason = "what the macro makes of a filter is public, and nobody outside sees it")]

use std::fmt::Display;

use askama::Values;
use askama::filter_fn;

/// What a stranger wrote, so that it says what it seems to say: control characters and marks that turn the direction of
/// writing around are replaced by U+FFFD.
#[filter_fn]
pub(super) fn readable(text: impl Display, _: &dyn Values) -> askama::Result<String> {
    Ok(plain(&text.to_string()))
}

/// The same outside of templates.
pub(super) fn plain(text: &str) -> String {
    let turning = |letter: char| matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = |letter: char| if letter.is_control() || turning(letter) { '\u{fffd}' } else { letter };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_turns_the_direction_of_writing() {
        assert_eq!(
            plain("a\u{202e}b\u{2069}c\n\u{1b}[2J \u{200d}é"),
            "a\u{fffd}b\u{fffd}c\u{fffd}\u{fffd}[2J \u{200d}é"
        );
    }
}

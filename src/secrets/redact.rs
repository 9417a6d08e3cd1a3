//! What a program or a provider says, made fit for a log: one short line without anything that looks like a secret.

/// Longest line that is shown, in characters.
const MAX_SHOWN: usize = 160;
/// A run of this many letters and digits may be a key; words are shorter, or have no digit.
const SUSPICIOUS: usize = 16;
/// A run this long is no word of any language, digits or not.
const TOO_LONG: usize = 32;

/// The first line of `text` that says anything, shortened; control characters become blanks, and every word that could
/// be a secret becomes `[redacted]`.
pub fn redacted(text: &str) -> String {
    let line: String = text.trim().chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let mut shown = String::new();
    for word in line.split(' ').filter(|word| !word.is_empty()) {
        let word = if suspicious(word) { "[redacted]" } else { word };
        if shown.chars().count().saturating_add(word.chars().count()) >= MAX_SHOWN {
            shown.push_str(" …");
            break;
        }
        if !shown.is_empty() {
            shown.push(' ');
        }
        shown.push_str(word);
    }
    shown
}

/// Whether a word holds a run of characters as keys have them. Paths and addresses are cut at their separators.
fn suspicious(word: &str) -> bool {
    let known = ["sk-", "sk_", "ghp_", "gho_", "github_pat_", "xox", "AKIA", "eyJ", "hvs.", "glpat-", "AIza"];
    let runs = word.split(['/', ':', '.', ',', ';', '(', ')', '"', '\'', '=', '<', '>', '[', ']', '{', '}', '@']);
    runs.into_iter().any(|run| {
        let long = run.len() >= SUSPICIOUS && run.bytes().any(|byte| byte.is_ascii_digit());
        long || run.len() >= TOO_LONG || known.iter().any(|prefix| run.starts_with(prefix) && run.len() > prefix.len())
    }) || word.contains("hvs.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_stays_and_a_key_goes() {
        assert_eq!(redacted("permission denied: /etc/vault/agent.hcl"), "permission denied: /etc/vault/agent.hcl");
        assert_eq!(
            redacted("error\n\tcode 403 for token s.4f8aa1b2c3d4e5f6a7b8"),
            "error code 403 for token [redacted]"
        );
        assert_eq!(redacted("key sk-live-1 is wrong"), "key [redacted] is wrong");
        assert_eq!(redacted("token=ghp_ab"), "[redacted]");
        assert_eq!(redacted("x ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghij"), "x [redacted]");
        assert!(redacted(&"word ".repeat(1000)).chars().count() <= MAX_SHOWN + 2);
        assert_eq!(redacted("\u{1b}[31mred\u{7}"), "[31mred");
    }
}

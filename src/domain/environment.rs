//! Names of environment variables.

/// How the names of the gateway's own variables begin: its settings and its own secrets are among them.
pub const OWN_PREFIXES: &[&str] = &["GATEWAY_", "SIGILUM_"];

/// Whether a shell takes it as the name of a variable (POSIX, 3.216 "Name"): `[A-Za-z_][A-Za-z0-9_]*`.
pub fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether a variable of this name is the gateway's own, and so none in which a provider's key is kept.
pub fn is_own(name: &str) -> bool {
    OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_letters_digits_and_underscores_and_begins_with_no_digit() {
        for (text, expected) in [
            ("A", true),
            ("_1", true),
            ("openAI_2", true),
            ("", false),
            ("1A", false),
            ("A-B", false),
            ("A B", false),
            ("\u{c4}", false),
        ] {
            assert_eq!(is_name(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_gateways_own_are_told_by_their_beginning() {
        assert!(is_own("GATEWAY_MASTER_KEY") && is_own("SIGILUM_PAIR_CODE"));
        assert!(!is_own("OPENAI_API_KEY") && !is_own("MY_GATEWAY_KEY"));
    }
}

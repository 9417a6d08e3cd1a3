//! Whether a listener may face more than this machine: somebody must be asked who comes.

use std::fmt;
use std::net::SocketAddr;

/// Why nobody would be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unguarded {
    /// Access mode `none`, which asks nothing.
    NoneMode,
    /// Access mode `password` without a password.
    NoPassword,
    /// `SIGILUM_GATEWAY_PASSWORD` is there and says nothing.
    BlankPassword,
    /// Access mode `trusted-proxy` without a proxy and a header to believe.
    NoProxy,
    /// `GATEWAY_ADMIN_TOKEN` is there and says nothing: whoever wrote it meant a token.
    BlankToken,
    /// A token everybody knows.
    Placeholder,
    /// `GATEWAY_REQUIRE_SIGNED_ADMIN_CHECKS=false`.
    ChecksOff,
    /// `GATEWAY_ALLOW_UNSIGNED_PROXY=true`.
    Unsigned,
}

impl Unguarded {
    /// The reason, and the way out.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NoneMode => {
                "admin access mode none (loopback) is for this machine only; use token, or mtls with certificates"
            }
            Self::NoPassword => {
                "admin access mode password has none; set SIGILUM_GATEWAY_PASSWORD or admin.password_file"
            }
            Self::BlankPassword => "SIGILUM_GATEWAY_PASSWORD is set but blank",
            Self::NoProxy => {
                "admin access mode trusted-proxy wants admin.trusted_proxies and admin.trusted_proxy.user_header"
            }
            Self::BlankToken => "the variable of the admin token is set but blank; unset it, and a token is minted",
            Self::Placeholder => {
                "the admin token or password is a placeholder that everybody knows; without a token one is minted"
            }
            Self::ChecksOff => "the checks of the admin API cannot be switched off",
            Self::Unsigned => "unsigned requests cannot be allowed: no setting opens the gate",
        }
    }
}

/// A listener that would be open to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenBind {
    /// Where it would have listened.
    pub address: SocketAddr,
    /// Why that is not done.
    pub why: Unguarded,
}

/// How the sentence about such a listener begins.
pub const REFUSING: &str = "refusing to bind gateway";

impl fmt::Display for OpenBind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{REFUSING} to {} without auth: {}", self.address, self.why.reason())
    }
}

impl std::error::Error for OpenBind {}

/// Refuses the first address that other machines reach, where nobody would be asked who comes.
pub fn check(addresses: &[SocketAddr], unguarded: Option<Unguarded>) -> Result<(), OpenBind> {
    let open = addresses.iter().find(|address| !address.ip().is_loopback());
    match (open, unguarded) {
        (Some(address), Some(why)) => Err(OpenBind { address: *address, why }),
        _ => Ok(()),
    }
}

/// Shortest admin token: below it somebody could try them all.
const MIN_TOKEN_CHARACTERS: usize = 16;
/// Shortest password. After ten wrong ones in a minute one a second is compared, so this need not withstand trying at leisure.
const MIN_PASSWORD_CHARACTERS: usize = 12;
/// Longest password, in bytes.
const MAX_PASSWORD_BYTES: usize = 1024;

/// Judges a token that a person chose.
pub fn check_token(text: &str) -> Result<(), &'static str> {
    if is_placeholder(text) {
        return Err("is a placeholder that everybody knows");
    }
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_short(text) && visible { Ok(()) } else { Err("must be at least 16 visible ASCII characters without blanks") }
}

/// Judges a token that a person chose for a gateway which this machine alone reaches: most programs of it could as well read
/// where it stands, so a short one is theirs to choose. Wrong ones are answered slowly then, as wrong passwords are.
pub fn check_local_token(text: &str) -> Result<(), &'static str> {
    let visible = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_short(text) && visible && !is_placeholder(text) { Ok(()) } else { check_token(text) }
}

/// Whether a token is so short that somebody could try them all.
pub fn is_short(text: &str) -> bool {
    text.chars().count() < MIN_TOKEN_CHARACTERS
}

/// Judges a password. What cannot stand in a header as it is could never be shown.
pub fn check_password(text: &str) -> Result<(), &'static str> {
    if is_placeholder(text) {
        return Err("is a placeholder that everybody knows");
    }
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    let fits = text.len() >= MIN_PASSWORD_CHARACTERS && text.len() <= MAX_PASSWORD_BYTES && text.trim() == text;
    if printable && fits { Ok(()) } else { Err("must be at least 12 printable ASCII characters, no blank at its ends") }
}

/// Words that stand where a token should, in examples and templates; compared without case, `-`, `_` and blanks.
const PLACEHOLDERS: &[&str] = &[
    "admin",
    "admintoken",
    "default",
    "dummy",
    "example",
    "exampletoken",
    "gatewayadmintoken",
    "insecure",
    "none",
    "null",
    "password",
    "placeholder",
    "secret",
    "secrettoken",
    "sigilum",
    "sigilumadmintoken",
    "supersecret",
    "supersecrettoken",
    "test",
    "testtoken",
    "token",
    "tokenhere",
    "undefined",
];
/// Beginnings and parts of the same.
const PLACEHOLDER_PARTS: &[&str] =
    &["changeme", "changeit", "changethis", "replaceme", "replacethis", "replacewith", "youradmintoken", "yourtoken"];
/// What stands around a name that was to be replaced.
const PLACEHOLDER_MARKS: &[(&str, &str)] = &[("<", ">"), ("${", "}"), ("{{", "}}"), ("[", "]"), ("%", "%")];

/// Whether a token is one of an example: known to everybody who read it.
pub fn is_placeholder(token: &str) -> bool {
    let token = token.trim();
    let marked = PLACEHOLDER_MARKS.iter().any(|(begin, end)| token.starts_with(begin) && token.ends_with(end));
    let letters = token.chars().filter(|letter| !matches!(letter, '-' | '_' | ' ' | '.'));
    let plain: String = letters.flat_map(char::to_lowercase).collect();
    let mut each = plain.chars();
    let first = each.next();
    // `xxxxxxxx`, or nothing but dashes.
    let repeated = each.all(|letter| Some(letter) == first);
    marked
        || repeated
        || PLACEHOLDERS.contains(&plain.as_str())
        || PLACEHOLDER_PARTS.iter().any(|part| plain.contains(part))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn only_what_others_reach_wants_a_guard() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let local = [at("127.0.0.1:38100"), at("[::1]:38100"), at("127.9.9.9:1")];
        assert_eq!(check(&local, Some(Unguarded::NoneMode)), Ok(()));
        for open in ["0.0.0.0:38100", "[::]:38100", "192.0.2.1:38100", "[2001:db8::1]:38100", "[::ffff:127.0.0.1]:1"] {
            let both = [at("127.0.0.1:38100"), at(open)];
            assert_eq!(check(&both, None), Ok(()));
            let refused = check(&both, Some(Unguarded::NoneMode)).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("refusing to bind gateway to {open} without auth")), "{refused}");
        }
    }

    #[test]
    fn words_of_examples_are_no_tokens() {
        for known in [
            "changeme",
            "Change-Me",
            "changeme-changeme-changeme",
            "please_change_me_now",
            "<token>",
            "<your-admin-token>",
            "${GATEWAY_ADMIN_TOKEN}",
            "{{ADMIN_TOKEN}}",
            "your-admin-token-here",
            "replace-with-a-long-random-value",
            "xxxxxxxxxxxxxxxxxxxx",
            "----------------",
            "gateway-admin-token",
            "super-secret-token",
            " token ",
            "",
        ] {
            assert!(is_placeholder(known), "{known:?}");
        }
        for token in ["test-admin-token-0123456789", "0f".repeat(32).as_str(), "correct horse battery", "a-token-x"] {
            assert!(!is_placeholder(token), "{token:?}");
        }
    }
}

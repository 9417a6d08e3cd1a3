//! What must not stand in a log, taken out before a line is stored: members by their name, and what looks like a
//! credential within any text. Our own code writes no secret into its log; this is for the day it does, and for what
//! Envoy and libraries say.

use serde_json::Map;
use serde_json::Value;

use crate::domain::redact::MARK;
use crate::domain::redact::Redactor;

/// Parts of names whose values are credentials; compared in lower case without `-` and `_`.
const SENSITIVE: [&str; 14] = [
    "token",
    "passphrase",
    "secret",
    "password",
    "passwd",
    "authorization",
    "apikey",
    "privatekey",
    "masterkey",
    "servicekey",
    "credential",
    "cookie",
    "signature",
    "certificate",
];
/// Ends of names that say something about a credential and do not hold it: `signature_code`, `token_file`.
const ABOUT: [&str; 11] =
    ["code", "id", "file", "path", "name", "version", "kind", "count", "fingerprint", "expires", "at"];
/// Names that end like those and hold a credential all the same, in the form of [`SENSITIVE`].
const STILL: [&str; 2] = ["paircode", "secretid"];
/// What keys of well-known issuers begin with.
const PREFIXES: [&str; 14] = [
    "sk-",
    "sk_",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "xox",
    "AKIA",
    "eyJ",
    "hvs.",
    "glpat-",
    "AIza",
    "sgk_",
];
/// Characters a word must have behind such a beginning to count.
const BEHIND_PREFIX: usize = 8;
/// Schemes of `Authorization` whose next word is the credential.
const SCHEMES: [&str; 3] = ["bearer", "basic", "negotiate"];
/// Characters from which on a word after a scheme, or after `name: `, is taken for a credential: prose has shorter ones.
const LONG: usize = 16;
/// Texts that are shorter hold no form of a secret worth a name.
const LEAST_KNOWN: usize = 8;
/// What begins a private key as text (RFC 7468).
const PEM: &str = "-----BEGIN ";
/// What ends one.
const PEM_END: &str = "-----END ";

/// Takes credentials out of lines.
#[derive(Debug, Default)]
pub struct LogRedactor {
    known: Option<Redactor>,
}

impl LogRedactor {
    /// With secrets that are known, each of at least eight characters, in whatever form they turn up.
    pub const fn knowing(known: Redactor) -> Self {
        Self { known: Some(known) }
    }

    /// Cleans every member of a line.
    pub fn clean(&self, line: &mut Map<String, Value>) {
        for (name, value) in line.iter_mut() {
            self.clean_member(name, value, false);
        }
    }

    /// Whether a text would be cleaned.
    pub fn would_clean(&self, text: &str) -> bool {
        let known = self.known.as_ref().filter(|_| text.len() >= LEAST_KNOWN);
        cleaned(text).is_some() || known.is_some_and(|known| known.clean(text) != text)
    }

    /// `within`: it stands in something whose name is sensitive.
    fn clean_member(&self, name: &str, value: &mut Value, within: bool) {
        let sensitive = within || is_sensitive(name);
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
            Value::String(text) => {
                if sensitive && !text.is_empty() {
                    *value = Value::String(MARK.to_owned());
                } else {
                    self.clean_text(text);
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.clean_member(name, item, within)),
            Value::Object(members) => {
                for (inner, value) in members.iter_mut() {
                    self.clean_member(inner, value, sensitive);
                }
            }
        }
    }

    /// Cleans a text that stands by itself, of one line or many.
    pub fn clean_text(&self, text: &mut String) {
        if let Some(known) = self.known.as_ref().filter(|_| text.len() >= LEAST_KNOWN) {
            *text = known.clean(text);
        }
        if let Some(cleaned) = cleaned(text) {
            *text = cleaned;
        }
    }
}

/// Whether the value of this name is a credential.
fn is_sensitive(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let last = lower.rsplit(['_', '-', '.', ' ']).next().unwrap_or_default();
    let plain: String = lower.chars().filter(char::is_ascii_alphanumeric).collect();
    if STILL.iter().any(|name| plain.ends_with(name)) {
        return true;
    }
    if last != lower && ABOUT.contains(&last) {
        return false;
    }
    SENSITIVE.iter().any(|part| plain.contains(part))
}

/// What the word before makes of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Plain,
    /// The value of a name that is [`is_sensitive`].
    Value,
    /// What follows a scheme.
    Credential,
}

/// The text without what looks like a credential; `None` where nothing does. Takes time in proportion to its length.
fn cleaned(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut changed = false;
    let mut rest = text;
    while let Some(at) = rest.find(PEM) {
        clean_plain(rest.get(..at).unwrap_or_default(), &mut out);
        out.push_str(MARK);
        changed = true;
        rest = behind_key(rest.get(at..).unwrap_or_default());
    }
    changed |= clean_plain(rest, &mut out);
    changed.then_some(out)
}

/// Adds to `out` a text that holds no private key; says whether anything was taken out.
fn clean_plain(text: &str, out: &mut String) -> bool {
    let mut changed = false;
    let mut next = Next::Plain;
    let mut rest = text;
    // What is left of the text behind the last word that was judged whole: a word is judged once and not from each of its
    // parts on.
    let mut judged = usize::MAX;
    while !rest.is_empty() {
        if next == Next::Value
            && let Some((delimiter, value)) = assigned(rest)
        {
            next = Next::Plain;
            out.push_str(delimiter);
            rest = rest.get(delimiter.len().saturating_add(value.len())..).unwrap_or_default();
            let scheme = name_of(value);
            if !is_scheme(scheme) {
                out.push_str(MARK);
                changed = true;
            } else if scheme.len() == value.len() {
                out.push_str(value);
                next = Next::Credential;
            } else {
                // A quoted value that begins with its scheme: that may stay.
                out.push_str(scheme);
                out.push(' ');
                out.push_str(MARK);
                changed = true;
            }
            continue;
        }
        let (gap, behind) = rest.split_at(rest.find(is_word).unwrap_or(rest.len()));
        out.push_str(gap);
        let word = if behind.len() > judged { "" } else { run(behind) };
        judged = if word.is_empty() { judged } else { behind.len().saturating_sub(word.len()) };
        let credential = next == Next::Credential && gap.trim().is_empty() && word.len() >= BEHIND_PREFIX;
        let hidden = if gap.ends_with("://")
            && let Some(length) = user_of(behind)
        {
            Some((0, length))
        } else if credential && has_digit_or_is_long(word) {
            Some((0, word.len()))
        } else {
            key_within(word).map(|at| (at, word.len()))
        };
        next = Next::Plain;
        if let Some((from, to)) = hidden {
            out.push_str(behind.get(..from).unwrap_or_default());
            out.push_str(MARK);
            changed = true;
            rest = behind.get(to..).unwrap_or_default();
            continue;
        }
        let name = name_of(behind);
        out.push_str(name);
        rest = behind.get(name.len()..).unwrap_or_default();
        if is_scheme(name) {
            next = Next::Credential;
        } else if is_sensitive(name) {
            next = Next::Value;
        }
    }
    changed
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.' | '%' | '+' | '$' | '~')
}

/// The name a text begins with, at least one character where it is not empty.
fn name_of(text: &str) -> &str {
    let end = text.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_' && letter != '-');
    let end = match end {
        Some(0) => text.chars().next().map_or(0, char::len_utf8),
        Some(end) => end,
        None => text.len(),
    };
    text.get(..end).unwrap_or(text)
}

/// What a text begins with up to what cannot stand in a credential.
fn run(text: &str) -> &str {
    let ends = |letter: char| {
        letter.is_whitespace()
            || matches!(letter, '"' | '\'' | ',' | ';' | '&' | ')' | ']' | '}' | '<' | '>' | '\\' | '#')
    };
    text.get(..text.find(ends).unwrap_or(text.len())).unwrap_or(text)
}

/// What stands between a name and its value, and the value; `None` where the name has none. `text` begins behind the name.
fn assigned(text: &str) -> Option<(&str, &str)> {
    let closing = |letter: char| matches!(letter, ' ' | '"' | '\'' | '\\');
    let behind = text.trim_start_matches(closing);
    let unmarked = behind.trim_start_matches(['=', ':', '>']);
    let marks = behind.get(..behind.len().saturating_sub(unmarked.len()))?;
    if !marks.contains(['=', ':']) {
        return None;
    }
    let value = unmarked.trim_start_matches(' ');
    // A list, or an escaped quote within a text that is JSON itself.
    let opened = value.trim_start_matches(['[', '{', '\\']);
    let quote = opened.chars().next().filter(|first| matches!(first, '"' | '\''));
    if let Some(quote) = quote {
        let value = opened.get(1..)?;
        let delimiter = text.get(..text.len().saturating_sub(value.len()))?;
        let value = quoted(value, quote, delimiter.contains('\\'));
        return (!value.is_empty()).then_some((delimiter, value));
    }
    let delimiter = text.get(..text.len().saturating_sub(value.len()))?;
    let word = run(value);
    // `name: word` is how prose goes on as well.
    let prose = !marks.contains('=') && value.len() < unmarked.len();
    let taken = !word.is_empty() && (!prose || is_scheme(word) || has_digit_or_is_long(word));
    taken.then_some((delimiter, word))
}

/// What stands before the quote that ends a text; where the text is `within` another one, that quote has a backslash
/// before it, else what has one is part of the text.
fn quoted(text: &str, quote: char, within: bool) -> &str {
    let mut escaped = false;
    let end = text.char_indices().find(|(_, letter)| {
        let ends = !escaped && (*letter == quote || within && *letter == '\\');
        escaped = !escaped && *letter == '\\';
        ends
    });
    text.get(..end.map_or(text.len(), |(at, _)| at)).unwrap_or(text)
}

fn is_scheme(word: &str) -> bool {
    SCHEMES.iter().any(|scheme| word.eq_ignore_ascii_case(scheme))
}

fn has_digit_or_is_long(word: &str) -> bool {
    word.len() >= LONG || word.bytes().any(|byte| byte.is_ascii_digit())
}

/// Where in a word a key of a well-known issuer begins.
fn key_within(word: &str) -> Option<usize> {
    let starts = |at: usize| {
        let before = word.get(..at).and_then(|before| before.chars().next_back());
        before.is_none_or(|letter| !letter.is_ascii_alphanumeric())
    };
    let begin = |prefix: &&str| {
        let at = word.match_indices(*prefix).map(|(at, _)| at).find(|at| starts(*at))?;
        let behind = word.get(at.saturating_add(prefix.len())..)?;
        let length =
            behind.chars().take_while(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(*letter)).count();
        (length >= BEHIND_PREFIX).then_some(at)
    };
    PREFIXES.iter().filter_map(begin).min()
}

/// How long the user and password are that an address begins with (RFC 3986 section 3.2.1).
fn user_of(authority: &str) -> Option<usize> {
    let ends = |letter: char| letter.is_whitespace() || matches!(letter, '/' | '?' | '#' | '"' | '\'');
    let authority = authority.get(..authority.find(ends).unwrap_or(authority.len()))?;
    authority.rfind('@').filter(|at| *at > 0)
}

/// What stands behind a private key, or nothing where it does not end.
fn behind_key(key: &str) -> &str {
    let Some(end) = key.find(PEM_END) else { return "" };
    let last = key.get(end.saturating_add(PEM_END.len())..).unwrap_or_default();
    last.find("-----").and_then(|at| last.get(at.saturating_add(5)..)).unwrap_or_default()
}

#[cfg(test)]
#[path = "log_redaction_tests.rs"]
mod tests;

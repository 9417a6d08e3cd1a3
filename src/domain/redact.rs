//! Takes a secret out of a stranger's text, in whatever form the text repeats it.
//!
//! A provider that refuses a request may quote it: as it came, percent-encoded, inside JSON or a page, as base64 of a
//! whole header, or only the first half. So no whole forms are looked for but any eight characters of one, and what is
//! covered by such pieces is replaced.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

use crate::domain::hex;
use crate::domain::secret::Secret;

/// What stands in place of a secret.
pub const MARK: &str = "[redacted]";
/// Characters of a form that give it away. Shorter pieces of a long secret say too little to be worth hiding.
const PIECE: usize = 8;

/// Shortest form that is taken out, in bytes. Shorter ones stand in any text by chance: what is missing from it would say which
/// letters the secret has, and nothing would be left to read.
pub const SHORTEST: usize = 4;

/// What must not be repeated. Compared without regard to case: some servers change it.
#[derive(Default)]
pub struct Redactor {
    /// Every piece of every form, as numbers, sorted.
    pieces: Zeroizing<Vec<u64>>,
    /// Forms that are shorter than a piece.
    short: Vec<Zeroizing<Vec<u8>>>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Redactor(..)")
    }
}

impl Redactor {
    /// Prepares for these secrets.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut made = Self::default();
        for secret in secrets {
            made.add(secret.expose());
        }
        made.pieces.sort_unstable();
        made.pieces.dedup();
        made
    }

    fn add(&mut self, secret: &str) {
        let text = secret.trim();
        if text.len() < SHORTEST {
            return;
        }
        self.add_form(text.as_bytes());
        self.add_form(percent(text, "%20").as_bytes());
        self.add_form(percent(text, "+").as_bytes());
        self.add_form(escaped(text, false).as_bytes());
        self.add_form(escaped(text, true).as_bytes());
        self.add_form(html(text).as_bytes());
        self.add_form(Zeroizing::new(hex::text(text.as_bytes())).as_bytes());
        // Inside a longer text base64 begins at any of three places; the first and last characters depend on what
        // stands around.
        for before in 0..3_usize {
            let mut padded = Zeroizing::new(vec![0_u8; before]);
            padded.extend_from_slice(text.as_bytes());
            let encoded = Zeroizing::new(STANDARD_NO_PAD.encode(padded.as_slice()));
            let own = encoded.as_bytes().get(before.div_ceil(3).saturating_add(before)..).unwrap_or_default();
            let own = own.split_last().map_or(own, |(_, rest)| rest);
            self.add_form(own);
            let url_safe: Zeroizing<Vec<u8>> = Zeroizing::new(
                own.iter()
                    .map(|byte| match byte {
                        b'+' => b'-',
                        b'/' => b'_',
                        other => *other,
                    })
                    .collect(),
            );
            self.add_form(&url_safe);
        }
    }

    fn add_form(&mut self, form: &[u8]) {
        let form = Zeroizing::new(form.to_ascii_lowercase());
        if form.len() >= PIECE {
            self.pieces.extend(form.windows(PIECE).filter_map(number));
        } else if form.len() >= SHORTEST && !self.short.contains(&form) {
            self.short.push(form);
        }
    }

    /// The text with [`MARK`] wherever a secret, or an eighth character in a row of one, stood.
    pub fn clean(&self, text: &str) -> String {
        let lower = Zeroizing::new(text.to_ascii_lowercase());
        let bytes = lower.as_bytes();
        let mut hidden = vec![false; bytes.len()];
        let mut hide = |from: usize, length: usize| {
            for flag in hidden.iter_mut().skip(from).take(length) {
                *flag = true;
            }
        };
        for (at, window) in bytes.windows(PIECE).enumerate() {
            if number(window).is_some_and(|piece| self.pieces.binary_search(&piece).is_ok()) {
                hide(at, PIECE);
            }
        }
        for short in &self.short {
            for (at, _) in bytes.windows(short.len()).enumerate().filter(|(_, window)| *window == short.as_slice()) {
                hide(at, short.len());
            }
        }
        let mut out = String::with_capacity(text.len());
        let mut marked = false;
        for (at, character) in text.char_indices() {
            let covered = hidden.iter().skip(at).take(character.len_utf8()).any(|flag| *flag);
            if !covered {
                out.push(character);
            } else if !marked {
                out.push_str(MARK);
            }
            marked = covered;
        }
        out
    }
}

fn number(window: &[u8]) -> Option<u64> {
    window.try_into().ok().map(u64::from_be_bytes)
}

/// All but the unreserved characters of RFC 3986 section 2.3 as `%XX`, a blank as `blank`.
fn percent(text: &str, blank: &str) -> Zeroizing<String> {
    // Three characters for each byte at most: the buffer does not grow.
    let mut out = Zeroizing::new(String::with_capacity(text.len().saturating_mul(3)));
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            b' ' => out.push_str(blank),
            other => {
                out.push('%');
                out.push_str(&hex::text(&[other]));
            }
        }
    }
    out
}

/// As JSON writes it, with or without an escape before each `/`.
fn escaped(text: &str, slashes: bool) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(text.len().saturating_mul(6)));
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '/' if slashes => out.push_str("\\/"),
            '<' | '>' | '&' if slashes => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            plain => out.push(plain),
        }
    }
    out
}

/// As a web page writes it.
fn html(text: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(text.len().saturating_mul(6)));
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            plain => out.push(plain),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use base64::engine::general_purpose::STANDARD;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use super::*;

    fn redactor(secret: &str) -> Redactor {
        Redactor::new([&Secret::new(secret.to_owned())])
    }

    #[test]
    fn every_usual_form_is_taken_out_and_the_rest_stays() {
        let secret = "sk/9+Z <a&b>\"q\\x";
        let redactor = redactor(secret);
        for form in [
            secret.to_owned(),
            secret.to_uppercase(),
            "sk%2F9%2BZ%20%3Ca%26b%3E%22q%5Cx".to_owned(),
            "sk%2f9%2bZ+%3ca%26b%3e%22q%5cx".to_owned(),
            serde_json::to_string(secret).unwrap().trim_matches('"').to_owned(),
            "sk/9+Z &lt;a&amp;b&gt;&quot;q\\x".to_owned(),
            hex::text(secret.as_bytes()),
            STANDARD.encode(secret),
            URL_SAFE_NO_PAD.encode(secret),
        ] {
            let cleaned = redactor.clean(&format!("bad key <{form}> given"));
            assert!(cleaned.starts_with("bad key <") && cleaned.ends_with("> given"), "{form}: {cleaned}");
            // Base64 keeps its last characters, which depend on what follows.
            let left = cleaned.len() - MARK.len() - "bad key <> given".len();
            assert!(cleaned.contains(MARK) && left <= 5, "{form}: {cleaned}");
        }
    }

    #[test]
    fn base64_of_a_whole_header_is_taken_out_wherever_it_begins() {
        let secret = "0123456789abcdefghij";
        for before in ["", "B", "Be", "Bearer ", "user:"] {
            let encoded = STANDARD.encode(format!("{before}{secret}, and more"));
            let cleaned = redactor(secret).clean(&encoded);
            assert!(cleaned.contains(MARK), "{before}: {cleaned}");
            // What is left of it decodes to no eight characters of the secret.
            let kept = cleaned.replace(MARK, "");
            assert!(kept.len() < encoded.len() - 20, "{before}: {cleaned}");
        }
    }

    #[test]
    fn a_part_of_a_secret_counts_too() {
        let redactor = redactor("sk-live-0123456789abcdef");
        assert_eq!(redactor.clean("key sk-live-012345… is wrong"), "key [redacted]… is wrong");
        assert_eq!(redactor.clean("key …89abcdef is wrong"), "key …[redacted] is wrong");
        assert_eq!(redactor.clean("key sk-live is wrong"), "key sk-live is wrong");
    }

    #[test]
    fn a_short_secret_is_taken_out_whole() {
        assert_eq!(redactor("abcd").clean("xabcdx ABCD abc d"), "x[redacted]x [redacted] abc d");
        // What is shorter stands in any text by chance.
        assert_eq!(redactor("abc").clean("xabcx ABC YQ== 616263"), "xabcx ABC YQ== 616263");
        assert_eq!(Redactor::default().clean("text"), "text");
    }

    proptest! {
        #[test]
        fn no_secret_is_left(secret in "[!-~]{4,40}", before in "\\PC{0,20}", after in "\\PC{0,20}") {
            let cleaned = redactor(&secret).clean(&format!("{before}{secret}{after}"));
            // What the mark itself says is no repetition.
            prop_assert!(!cleaned.replace(MARK, "\n").contains(&secret), "{cleaned}");
        }

        #[test]
        fn any_text_is_survived(secret in "\\PC{0,40}", text in "\\PC{0,200}") {
            let _ = redactor(&secret).clean(&text);
        }
    }
}

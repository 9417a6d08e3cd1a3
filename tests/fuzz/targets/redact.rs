//! What a provider says (`secret`, a zero byte, text before it, a zero byte, text behind it): no panic, and the secret is
//! not in what is left.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::domain::redact::MARK;
use sigilum::domain::redact::Redactor;
use sigilum::domain::secret::Secret;

fuzz_target!(|text: &str| {
    let mut parts = text.splitn(3, '\0');
    let (secret, before, behind) =
        (parts.next().unwrap_or_default().trim(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let redactor = Redactor::new([&Secret::new(secret.to_owned())]);
    let cleaned = redactor.clean(&format!("{before}{secret}{behind}"));
    assert!(secret.is_empty() || !cleaned.replace(MARK, "\n").contains(secret) || secret.contains('\n'));
});

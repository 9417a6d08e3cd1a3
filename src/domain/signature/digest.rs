//! `Content-Digest` (RFC 9530), restricted by the profile to one SHA-256 member.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::Digest as _;
use sha2::Sha256;

use crate::domain::decision::DenyReason;
use crate::domain::decision::SignatureFault;
use crate::domain::request::BodyView;
use crate::domain::signature::fields::ComponentSet;
use crate::domain::signature::fields::SignedHeaders;

/// `sha-256=:` + 44 characters + `:`.
const DIGEST_BYTES: usize = 9 + 44 + 1;

/// The header value for a body: `sha-256=:` + padded base64 of its SHA-256 + `:`, 54 bytes of ASCII.
pub fn content_digest(body: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut text = *b"sha-256=:????????????????????????????????????????????:";
    if let Some(middle) = text.get_mut(9..53) {
        // 32 bytes are exactly 44 characters; the buffer cannot be too small.
        let _ = STANDARD.encode_slice(Sha256::digest(body), middle);
    }
    text
}

/// Whether the body is the one that was signed.
///
/// - A body needs set B or D, no body A or C: anything else is `SignedComponentsInvalid`, the fault the
///   SDKs report, also for an empty body under B or D ("body" means length > 0).
/// - Without a body and with A or C a stray `content-digest` is ignored: it is not signed, and it is
///   not passed on.
/// - The header is compared as text with the one recomputed: no second algorithm, no other spelling.
/// - A body the front does not show is `BodyNotVisible`: it cannot be checked.
pub fn check_digest(
    headers: &SignedHeaders<'_>,
    components: ComponentSet,
    body: BodyView<'_>,
) -> Result<(), DenyReason> {
    let body = match body {
        BodyView::Whole(body) => body,
        BodyView::Hidden => return Err(DenyReason::BodyNotVisible),
    };
    if components.covers_digest() == body.is_empty() {
        return Err(DenyReason::SignatureInvalid(SignatureFault::SignedComponentsInvalid));
    }
    if body.is_empty() {
        return Ok(());
    }
    match headers.content_digest {
        Some(claimed) if claimed.as_bytes() == content_digest(body) => Ok(()),
        Some(_) | None => Err(DenyReason::SignatureInvalid(SignatureFault::ContentDigestMismatch)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    // Protocol reference 2.10, made by the Go SDK.
    const BODY: &[u8] = br#"{"action":"approve"}"#;
    const DIGEST: &str = "sha-256=:5toCTO6LRikiTvJ0Ha+F6ucUxaTs3wMsnaImDBR0NZg=:";

    fn with(digest: Option<&'static str>) -> SignedHeaders<'static> {
        SignedHeaders { content_digest: digest, ..SignedHeaders::default() }
    }

    const fn fault(fault: SignatureFault) -> Result<(), DenyReason> {
        Err(DenyReason::SignatureInvalid(fault))
    }

    #[test]
    fn golden_digests() {
        assert_eq!(std::str::from_utf8(&content_digest(BODY)).unwrap(), DIGEST);
        let other = br#"{"text":"hello world","count":42}"#;
        let expected = "sha-256=:Xruw00DsBxReBcikx32MJ+Rs/9hMiEJ6/vjfZhtV2Mc=:";
        assert_eq!(std::str::from_utf8(&content_digest(other)).unwrap(), expected);
    }

    #[test]
    fn a_body_is_compared_under_b_and_d() {
        for set in [ComponentSet::B, ComponentSet::D] {
            assert_eq!(check_digest(&with(Some(DIGEST)), set, BodyView::Whole(BODY)), Ok(()));
            let mismatch = fault(SignatureFault::ContentDigestMismatch);
            assert_eq!(check_digest(&with(Some(DIGEST)), set, BodyView::Whole(b"{}")), mismatch);
            assert_eq!(check_digest(&with(None), set, BodyView::Whole(BODY)), mismatch);
            let hidden = check_digest(&with(Some(DIGEST)), set, BodyView::Hidden);
            assert_eq!(hidden, Err(DenyReason::BodyNotVisible));
        }
    }

    #[test]
    fn sets_and_bodies_must_agree() {
        let invalid = fault(SignatureFault::SignedComponentsInvalid);
        assert_eq!(check_digest(&with(Some(DIGEST)), ComponentSet::A, BodyView::Whole(BODY)), invalid);
        assert_eq!(check_digest(&with(Some(DIGEST)), ComponentSet::C, BodyView::Whole(BODY)), invalid);
        assert_eq!(check_digest(&with(Some(DIGEST)), ComponentSet::B, BodyView::Whole(b"")), invalid);
        assert_eq!(check_digest(&with(Some(DIGEST)), ComponentSet::D, BodyView::Whole(b"")), invalid);
    }

    #[test]
    fn a_stray_digest_without_a_body_is_ignored() {
        assert_eq!(check_digest(&with(Some("nonsense")), ComponentSet::A, BodyView::Whole(b"")), Ok(()));
        assert_eq!(check_digest(&with(None), ComponentSet::C, BodyView::Whole(b"")), Ok(()));
    }
}

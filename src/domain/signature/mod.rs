//! The signature profile `sigilum-rfc9421-v1`: Ed25519 over an RFC 9421 signature base.
//!
//! Owns: what a signed request looks like, what exactly is signed, and every check between the
//! header bytes and a [`crate::domain::decision::Caller`]. Promises: pure, bounded work, no panic on
//! any input; the values that are signed are the bytes that were received, never a re-serialised
//! form of them (the signature parameters excepted, which the profile re-serialises). Never: decides
//! the order of the checks as a whole, that is `gate`'s.
//!
//! Departures of the profile from RFC 9421, kept for the SDKs in the field: `@method` is lower-cased
//! (section 2.2.1 keeps the case), parameters have one fixed order and are re-serialised (section
//! 3.1), the only label is `sig1`, and structured-field freedom (RFC 8941) is not offered.

mod base;
mod caller;
mod certificate;
mod comb;
mod digest;
mod fields;
mod hot_keys;
pub mod received;
mod strict_json;
mod verify;

pub use base::TargetUri;
pub use base::target_uris;
pub use base::write_base;
pub use base::write_params;
pub use caller::check_identity;
pub use certificate::Certificate;
pub use certificate::CertificateBody;
pub use certificate::MAX_CERTIFICATE_HEADER_BYTES;
pub use certificate::ProofBody;
pub use certificate::VerifiedCertificate;
pub use digest::check_digest;
pub use digest::content_digest;
pub use fields::ComponentSet;
pub use fields::MAX_SIGNATURE_INPUT_BYTES;
pub use fields::SignatureParams;
pub use fields::SignedHeaders;
pub use fields::check_age;
pub use hot_keys::HotKeys;
pub use strict_json::check_unique_members;
pub use verify::VerifyingKey;
pub use verify::verify;

#[cfg(test)]
mod whole_tests;

//! The whole check of a signed request where no gate stands in front: the control plane, and services that
//! verify their callers themselves.
//!
//! Same profile, same spellings of `@target-uri` and same strictness as the gate, in the control plane's order
//! and with its codes. Three differences: only component sets A and B are accepted, a certificate's algorithm may be
//! written in capitals, and `GET` and `HEAD` count as requests without a body whatever they carry, so a handler must not
//! read one. Whether the nonce was used
//! before is the caller's to find out, and only afterwards: a nonce is worth remembering once it is genuine.

use std::time::Duration;

use crate::domain::decision::Caller;
use crate::domain::decision::DenyReason;
use crate::domain::decision::SignatureFault;
use crate::domain::ids::PublicKey;
use crate::domain::request::BodyView;
use crate::domain::request::RequestView;
use crate::domain::signature::base::target_uris;
use crate::domain::signature::base::write_base;
use crate::domain::signature::certificate::Certificate;
use crate::domain::signature::certificate::VerifiedCertificate;
use crate::domain::signature::digest::check_digest;
use crate::domain::signature::fields::ComponentSet;
use crate::domain::signature::fields::SignatureParams;
use crate::domain::signature::fields::SignedHeaders;
use crate::domain::signature::fields::UnlistedParams;
use crate::domain::signature::fields::check_age;
use crate::domain::time::UnixSeconds;

/// Who must have signed. `None` = anybody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected<'a> {
    /// The namespace, compared as text.
    pub namespace: Option<&'a str>,
    /// The public key, `ed25519:` and base64, compared as text.
    pub key: Option<&'a str>,
}

/// A request whose signature has been verified; made by [`verify_request`] only.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Who signed. Its agent id is always absent: sets A and B do not cover one.
    pub caller: Caller,
    /// As signed; not blank.
    pub nonce: String,
    /// When it was signed.
    pub created: UnixSeconds,
}

/// Why a signed request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// One of the six headers every signed request has is absent or empty.
    Missing,
    /// A header of the profile occurs twice or holds what it cannot hold.
    Headers,
    /// `created` is too long ago or in the future.
    Expired,
    /// Signed, but not by the namespace this request needs.
    ExpectedNamespace,
    /// Signed, but not by the key this request needs.
    ExpectedKey,
    /// The component list is neither A nor B, or not the one this body needs.
    Components(SignatureFault),
    /// The body is not the one that was signed.
    Digest,
    /// The nonce is blank.
    Nonce,
    /// Anything else of the profile.
    Invalid(SignatureFault),
}

impl Fault {
    /// The control plane's code and HTTP status.
    pub const fn wire(self) -> (&'static str, u16) {
        match self {
            Self::Missing => ("SIGNATURE_MISSING", 401),
            Self::Expired => ("SIGNATURE_EXPIRED", 401),
            Self::ExpectedNamespace => ("SIGNATURE_NAMESPACE_MISMATCH", 403),
            Self::ExpectedKey => ("SIGNATURE_KEY_MISMATCH", 403),
            Self::Components(_) => ("SIGNATURE_COMPONENTS_INVALID", 401),
            Self::Digest => ("SIGNATURE_DIGEST_MISMATCH", 401),
            Self::Headers | Self::Nonce | Self::Invalid(_) => ("SIGNATURE_INVALID", 401),
        }
    }

    /// The SDKs' code, e.g. `SIG_VERIFICATION_FAILED`.
    pub const fn sdk_code(self) -> &'static str {
        match self {
            Self::Missing => SignatureFault::MissingSignatureHeaders.code(),
            Self::Headers | Self::Nonce => SignatureFault::SignatureInputInvalid.code(),
            Self::Expired => SignatureFault::TimestampOutOfRange.code(),
            Self::ExpectedNamespace => "SIG_EXPECTED_NAMESPACE_MISMATCH",
            Self::ExpectedKey => SignatureFault::KeyMismatch.code(),
            Self::Components(fault) | Self::Invalid(fault) => fault.code(),
            Self::Digest => SignatureFault::ContentDigestMismatch.code(),
        }
    }

    /// One sentence for whoever signed.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Missing => "the request is not signed: a signature header is missing",
            Self::Headers => "a signature header occurs twice or is malformed",
            Self::Expired => "the signature is too old or from the future; check the clock",
            Self::ExpectedNamespace => "the signer's namespace is not the one this request is about",
            Self::ExpectedKey => "the signer's key is not the one this request is about",
            Self::Components(_) => "the signed components are not the ones this request needs",
            Self::Digest => "the body is not the one that was signed",
            Self::Nonce => "the nonce is blank",
            Self::Invalid(_) => "the signature is not valid",
        }
    }
}

/// Verifies a request: headers, parameters, age, certificate, identity, who is expected, key id, components,
/// digest, signature, in this order. At most four Ed25519 verifications.
///
/// `max_age` bounds the age of the signature; ahead of `now` it may be by
/// [`crate::domain::time::CLOCK_SKEW`].
pub fn verify_request<R: RequestView>(
    request: &R,
    max_age: Duration,
    now: UnixSeconds,
    expected: &Expected<'_>,
) -> Result<Verified, Fault> {
    let headers = SignedHeaders::collect(request).map_err(fault)?;
    let all = [
        headers.signature_input,
        headers.signature,
        headers.namespace,
        headers.subject,
        headers.agent_key,
        headers.agent_cert,
    ];
    if all.iter().any(Option::is_none) {
        return Err(Fault::Missing);
    }
    let params = UnlistedParams::parse(&headers).map_err(fault)?;
    check_age(params.created, now, max_age).map_err(|_| Fault::Expired)?;
    let certificate = Certificate::decode_any_case(headers.certificate().map_err(fault)?).and_then(Certificate::verify);
    let certificate = certificate.map_err(Fault::Invalid)?;
    certificate.check_time(now).map_err(Fault::Invalid)?;
    let caller = identify(&headers, &certificate)?;
    if expected.namespace.is_some_and(|namespace| namespace != caller.namespace.as_str()) {
        return Err(Fault::ExpectedNamespace);
    }
    if expected.key.is_some_and(|key| headers.agent_key != Some(key)) {
        return Err(Fault::ExpectedKey);
    }
    if params.key_id != certificate.key_id() {
        return Err(Fault::Invalid(SignatureFault::KeyIdMismatch));
    }
    let params = params.listed().map_err(|reason| signature_fault(reason).map_or(Fault::Nonce, Fault::Components))?;
    if !matches!(params.components, ComponentSet::A | ComponentSet::B) {
        return Err(Fault::Components(SignatureFault::SignedComponentsInvalid));
    }
    let bodiless = matches!(request.method(), b"GET" | b"HEAD");
    let body = if bodiless { BodyView::Whole(b"") } else { request.body() };
    check_digest(&headers, params.components, body).map_err(|reason| {
        let wrong_set = DenyReason::SignatureInvalid(SignatureFault::SignedComponentsInvalid);
        if reason == wrong_set { Fault::Components(SignatureFault::SignedComponentsInvalid) } else { Fault::Digest }
    })?;
    check_signature(request, &headers, &params, &certificate)?;
    Ok(Verified { caller, nonce: params.nonce.to_owned(), created: params.created })
}

/// Key header and namespace header against the certificate.
fn identify(headers: &SignedHeaders<'_>, certificate: &VerifiedCertificate) -> Result<Caller, Fault> {
    let key = headers.agent_key.ok_or(Fault::Missing)?;
    match PublicKey::parse(key) {
        Ok(key) if key == *certificate.key() => {}
        Ok(_) => return Err(Fault::Invalid(SignatureFault::KeyMismatch)),
        Err(_) => return Err(Fault::Invalid(SignatureFault::KeyHeaderInvalid)),
    }
    if headers.namespace != Some(certificate.namespace().as_str()) {
        return Err(Fault::Invalid(SignatureFault::NamespaceMismatch));
    }
    Ok(Caller {
        namespace: certificate.namespace().clone(),
        subject: headers.subject.ok_or(Fault::Missing)?.to_owned(),
        key: *certificate.key(),
        agent_id: None,
    })
}

/// The signature over one of the few spellings of the target.
fn check_signature<R: RequestView>(
    request: &R,
    headers: &SignedHeaders<'_>,
    params: &SignatureParams<'_>,
    certificate: &VerifiedCertificate,
) -> Result<(), Fault> {
    let mut base = Vec::new();
    for uri in target_uris(request.scheme(), request.authority(), request.target()) {
        write_base(&mut base, request.method(), &uri, headers, params).map_err(fault)?;
        if certificate.verify_signature(&base, &params.signature).is_ok() {
            return Ok(());
        }
    }
    Err(Fault::Invalid(SignatureFault::VerificationFailed))
}

/// The gate's reasons, as far as the functions above give them.
fn fault(reason: DenyReason) -> Fault {
    if reason == DenyReason::NonceInvalid {
        return Fault::Nonce;
    }
    match signature_fault(reason) {
        Some(SignatureFault::MissingSignatureHeaders) => Fault::Missing,
        Some(fault) => Fault::Invalid(fault),
        None => Fault::Headers,
    }
}

const fn signature_fault(reason: DenyReason) -> Option<SignatureFault> {
    if let DenyReason::SignatureInvalid(fault) = reason { Some(fault) } else { None }
}

#[cfg(test)]
#[path = "received_tests.rs"]
mod tests;

//! Whether headers, parameters and certificate speak of one and the same caller.

use crate::domain::decision::Caller;
use crate::domain::decision::DenyReason;
use crate::domain::decision::SignatureFault;
use crate::domain::ids::PublicKey;
use crate::domain::signature::certificate::VerifiedCertificate;
use crate::domain::signature::fields::SignatureParams;
use crate::domain::signature::fields::SignedHeaders;

/// Compares the identity headers with the certificate, in the SDKs' order: namespace, subject, key,
/// key id. An agent id that is present but not signed is `IdentityInvalid`: anybody on the way could
/// have added it.
///
/// The caller is only as good as the request's signature, which is checked elsewhere.
pub fn check_identity(
    headers: &SignedHeaders<'_>,
    params: &SignatureParams<'_>,
    certificate: &VerifiedCertificate,
) -> Result<Caller, DenyReason> {
    let fault = |fault| Err(DenyReason::SignatureInvalid(fault));
    if headers.namespace != Some(certificate.namespace().as_str()) {
        return fault(SignatureFault::NamespaceMismatch);
    }
    let Some(subject) = headers.subject else {
        return fault(SignatureFault::SubjectMissing);
    };
    let Some(key) = headers.agent_key else {
        return fault(SignatureFault::KeyHeaderMissing);
    };
    match PublicKey::parse(key) {
        Ok(key) if key == *certificate.key() => {}
        Ok(_) => return fault(SignatureFault::KeyMismatch),
        Err(_) => return fault(SignatureFault::KeyHeaderInvalid),
    }
    if params.key_id != certificate.key_id() {
        return fault(SignatureFault::KeyIdMismatch);
    }
    if headers.agent_id.is_some() && !params.components.covers_agent_id() {
        return Err(DenyReason::IdentityInvalid);
    }
    Ok(Caller {
        namespace: certificate.namespace().clone(),
        subject: subject.to_owned(),
        key: *certificate.key(),
        agent_id: headers.agent_id.map(str::to_owned),
    })
}

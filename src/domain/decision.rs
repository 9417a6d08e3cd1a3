//! What a decision can be, and the one table from reason to code and status.

use std::sync::Arc;

use crate::domain::connection::Connection;
use crate::domain::ids::ConnectionId;
use crate::domain::ids::Namespace;
use crate::domain::ids::PublicKey;
use crate::domain::time::UnixSeconds;

/// Which check of the signature profile failed. For the log; the client sees `AUTH_SIGNATURE_INVALID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each name is the code it stands for")]
pub enum SignatureFault {
    MissingSignatureHeaders,
    SignatureInputInvalid,
    AlgorithmUnsupported,
    CreatedInvalid,
    TimestampOutOfRange,
    SignatureHeaderInvalid,
    CertHeaderMissing,
    CertHeaderInvalid,
    CertInvalid,
    CertExpired,
    NamespaceMismatch,
    SubjectMissing,
    SubjectComponentMissing,
    SignedComponentsInvalid,
    KeyHeaderMissing,
    KeyMismatch,
    KeyIdMismatch,
    ContentDigestMismatch,
    SigningBaseInvalid,
    KeyHeaderInvalid,
    VerificationFailed,
}

impl SignatureFault {
    /// The SDKs' code, e.g. `SIG_VERIFICATION_FAILED`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::MissingSignatureHeaders => "SIG_MISSING_SIGNATURE_HEADERS",
            Self::SignatureInputInvalid => "SIG_SIGNATURE_INPUT_INVALID",
            Self::AlgorithmUnsupported => "SIG_ALGORITHM_UNSUPPORTED",
            Self::CreatedInvalid => "SIG_CREATED_INVALID",
            Self::TimestampOutOfRange => "SIG_TIMESTAMP_OUT_OF_RANGE",
            Self::SignatureHeaderInvalid => "SIG_SIGNATURE_HEADER_INVALID",
            Self::CertHeaderMissing => "SIG_CERT_HEADER_MISSING",
            Self::CertHeaderInvalid => "SIG_CERT_HEADER_INVALID",
            Self::CertInvalid => "SIG_CERT_INVALID",
            Self::CertExpired => "SIG_CERT_EXPIRED",
            Self::NamespaceMismatch => "SIG_NAMESPACE_MISMATCH",
            Self::SubjectMissing => "SIG_SUBJECT_MISSING",
            Self::SubjectComponentMissing => "SIG_SUBJECT_COMPONENT_MISSING",
            Self::SignedComponentsInvalid => "SIG_SIGNED_COMPONENTS_INVALID",
            Self::KeyHeaderMissing => "SIG_KEY_HEADER_MISSING",
            Self::KeyMismatch => "SIG_KEY_MISMATCH",
            Self::KeyIdMismatch => "SIG_KEY_ID_MISMATCH",
            Self::ContentDigestMismatch => "SIG_CONTENT_DIGEST_MISMATCH",
            Self::SigningBaseInvalid => "SIG_SIGNING_BASE_INVALID",
            Self::KeyHeaderInvalid => "SIG_KEY_HEADER_INVALID",
            Self::VerificationFailed => "SIG_VERIFICATION_FAILED",
        }
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DenyReason {
    /// A signature or identity header occurs twice, or the authority is malformed.
    HeadersInvalid,
    /// Any failure of the signature profile, also no signature at all.
    SignatureInvalid(SignatureFault),
    /// The component list is none of A to D.
    SignedComponentsInvalid,
    /// An identity header is missing, or an agent id is present but not covered.
    IdentityInvalid,
    /// No nonce, or a blank one.
    NonceInvalid,
    /// This key has used this nonce.
    ReplayDetected,
    /// The claims of this service are stale or were never read.
    ClaimsLookupFailed,
    /// Registrations are coming too fast.
    ClaimSubmitRateLimited,
    /// Genuine, but not approved for this service.
    ClaimRequired,
    /// Signed for a host that is not ours.
    AuthorityNotAccepted,
    /// A body was announced that this front does not show.
    BodyNotVisible,
    /// Too many requests of strangers, or too many failures from this address.
    RateLimited,
    /// The replay window holds as many entries as it may.
    ReplayWindowFull,
    /// Started without a journal: older requests cannot be told from replays yet.
    ReplayWindowStarting,
    /// The replay window that all replicas share cannot be asked: nobody knows whether the nonce was used.
    ReplayStoreUnavailable,
    /// No state has arrived yet.
    NotReady,
    /// The connection does not allow this method, path or upgrade.
    MethodOrPathForbidden,
    /// This process is about to stop.
    Draining,
    /// The connection's secret is overdue and the policy blocks.
    RotationRequired,
    /// CONNECT, TRACE.
    MethodNotAllowed,
    /// Not a path of this gateway.
    NotFound,
    /// The path holds dot segments, backslashes or the like.
    PathInvalid,
    /// No such connection; only said to a key approved for that name.
    ConnectionUnknown,
    /// The connection is switched off.
    ConnectionDisabled,
    /// The connection's secret is missing or cannot be injected.
    ConnectionUnusable,
    /// The connection's secrets are gone with the master key they were sealed with.
    SecretsLost,
    /// The connection speaks another protocol than this path.
    ProtocolMismatch,
    /// Larger than the limit.
    BodyTooLarge,
    /// More header fields or bytes than a client may send, or than leave room for what the decision adds.
    HeadersTooLarge,
    /// Something of ours failed; nothing was let through.
    Unavailable,
}

/// What counters call a refusal for a reason that this version does not know.
pub const OTHER: &str = "OTHER";

impl DenyReason {
    /// All of them, one fault of a signature for all.
    const ALL: [Self; 30] = [
        Self::HeadersInvalid,
        Self::SignatureInvalid(SignatureFault::VerificationFailed),
        Self::SignedComponentsInvalid,
        Self::IdentityInvalid,
        Self::NonceInvalid,
        Self::ReplayDetected,
        Self::ClaimsLookupFailed,
        Self::ClaimSubmitRateLimited,
        Self::ClaimRequired,
        Self::AuthorityNotAccepted,
        Self::BodyNotVisible,
        Self::RateLimited,
        Self::ReplayWindowFull,
        Self::ReplayWindowStarting,
        Self::ReplayStoreUnavailable,
        Self::NotReady,
        Self::MethodOrPathForbidden,
        Self::Draining,
        Self::RotationRequired,
        Self::MethodNotAllowed,
        Self::NotFound,
        Self::PathInvalid,
        Self::ConnectionUnknown,
        Self::ConnectionDisabled,
        Self::ConnectionUnusable,
        Self::SecretsLost,
        Self::ProtocolMismatch,
        Self::BodyTooLarge,
        Self::HeadersTooLarge,
        Self::Unavailable,
    ];

    /// The label of ours that somebody else says, [`OTHER`] where it is none: a name that is told becomes one that is
    /// kept, in counters and in answers.
    pub fn label_told(told: &str) -> &'static str {
        Self::ALL.into_iter().map(Self::label).find(|label| *label == told).unwrap_or(OTHER)
    }

    /// Code (empty: the answer carries none) and HTTP status.
    pub const fn wire(self) -> (&'static str, u16) {
        match self {
            Self::HeadersInvalid => ("AUTH_HEADERS_INVALID", 403),
            Self::SignatureInvalid(_) => ("AUTH_SIGNATURE_INVALID", 403),
            Self::SignedComponentsInvalid => ("AUTH_SIGNED_COMPONENTS_INVALID", 403),
            Self::IdentityInvalid => ("AUTH_IDENTITY_INVALID", 403),
            Self::NonceInvalid => ("AUTH_NONCE_INVALID", 403),
            Self::ReplayDetected => ("AUTH_REPLAY_DETECTED", 403),
            Self::ClaimsLookupFailed => ("AUTH_CLAIMS_LOOKUP_FAILED", 403),
            Self::ClaimSubmitRateLimited => ("AUTH_CLAIM_SUBMIT_RATE_LIMITED", 429),
            Self::ClaimRequired => ("AUTH_CLAIM_REQUIRED", 403),
            Self::AuthorityNotAccepted => ("AUTH_AUTHORITY_NOT_ACCEPTED", 403),
            Self::BodyNotVisible => ("AUTH_BODY_NOT_VISIBLE", 403),
            Self::RateLimited => ("AUTH_RATE_LIMITED", 429),
            Self::ReplayWindowFull => ("REPLAY_WINDOW_FULL", 503),
            Self::ReplayWindowStarting => ("REPLAY_WINDOW_STARTING", 503),
            Self::NotReady => ("NOT_READY", 503),
            Self::MethodOrPathForbidden => ("METHOD_OR_PATH_FORBIDDEN", 403),
            Self::Draining => ("GATEWAY_DRAINING", 503),
            Self::RotationRequired => ("ROTATION_REQUIRED", 403),
            Self::MethodNotAllowed => ("METHOD_NOT_ALLOWED", 405),
            Self::NotFound => ("NOT_FOUND", 404),
            Self::PathInvalid
            | Self::ConnectionDisabled
            | Self::ConnectionUnusable
            | Self::SecretsLost
            | Self::ProtocolMismatch => ("", 400),
            Self::ConnectionUnknown => ("", 404),
            Self::BodyTooLarge => ("REQUEST_BODY_TOO_LARGE", 413),
            Self::HeadersTooLarge => ("REQUEST_HEADERS_TOO_LARGE", 431),
            Self::ReplayStoreUnavailable | Self::Unavailable => ("AUTHZ_UNAVAILABLE", 503),
        }
    }

    /// A name for logs and counters: the code, or one of its own where the answer carries none.
    pub const fn label(self) -> &'static str {
        match self {
            Self::PathInvalid => "PATH_INVALID",
            Self::ConnectionDisabled => "CONNECTION_DISABLED",
            Self::ConnectionUnusable => "CONNECTION_UNUSABLE",
            Self::SecretsLost => "SECRETS_LOST",
            Self::ProtocolMismatch => "PROTOCOL_MISMATCH",
            Self::ConnectionUnknown => "CONNECTION_UNKNOWN",
            Self::ReplayStoreUnavailable => "REPLAY_STORE_UNAVAILABLE",
            Self::HeadersInvalid
            | Self::SignatureInvalid(_)
            | Self::SignedComponentsInvalid
            | Self::IdentityInvalid
            | Self::NonceInvalid
            | Self::ReplayDetected
            | Self::ClaimsLookupFailed
            | Self::ClaimSubmitRateLimited
            | Self::ClaimRequired
            | Self::AuthorityNotAccepted
            | Self::BodyNotVisible
            | Self::RateLimited
            | Self::ReplayWindowFull
            | Self::ReplayWindowStarting
            | Self::NotReady
            | Self::MethodOrPathForbidden
            | Self::Draining
            | Self::RotationRequired
            | Self::MethodNotAllowed
            | Self::NotFound
            | Self::BodyTooLarge
            | Self::HeadersTooLarge
            | Self::Unavailable => self.wire().0,
        }
    }

    /// A sentence for the client; it names no secret, no header value and no other caller.
    pub const fn message(self) -> &'static str {
        match self {
            Self::HeadersInvalid => {
                "a signature or identity header occurs more than once, or the Host header is malformed"
            }
            Self::SignatureInvalid(_) => "the request signature is missing or does not verify",
            Self::SignedComponentsInvalid => "the signature does not cover the required components",
            Self::IdentityInvalid => "an identity header is missing or not covered by the signature",
            Self::NonceInvalid => "the signature carries no nonce",
            Self::ReplayDetected => "this nonce has been used before; sign the request anew",
            Self::ClaimsLookupFailed => {
                "the approvals of this service are not up to date; nobody can say whether this key is approved (where the \
                 service is new, its operator registers it once: sigilum service add)"
            }
            Self::ClaimSubmitRateLimited => "too many approval requests; try again in a minute",
            Self::ClaimRequired => "the owner of the namespace has not approved this key for this service",
            Self::AuthorityNotAccepted => "the request is addressed to, and signed for, another host",
            Self::BodyNotVisible => "the request body is not visible to the gateway and cannot be checked",
            Self::RateLimited => "too many requests that could not be attributed to an approved key",
            Self::ReplayWindowFull => "the replay window is full; try again later",
            Self::ReplayWindowStarting => {
                "the gateway has just started and cannot judge older requests; sign the request anew"
            }
            Self::ReplayStoreUnavailable => "the gateway cannot find out now whether this nonce has been used",
            Self::NotReady => "the gateway has not received its state yet",
            Self::MethodOrPathForbidden => "this connection does not allow the method, the path or the upgrade",
            Self::Draining => "the gateway takes no new requests for now",
            Self::RotationRequired => "the credential of this connection is overdue for rotation",
            Self::MethodNotAllowed => "method not allowed",
            Self::NotFound => "not found",
            Self::PathInvalid => "invalid path",
            Self::ConnectionUnknown => "connection not found",
            Self::ConnectionDisabled => "connection is disabled",
            Self::ConnectionUnusable => "connection has no usable credential",
            Self::SecretsLost => {
                "connection has no usable credential: its secrets were lost with the gateway's master key, and its owner \
                 must give them again"
            }
            Self::ProtocolMismatch => "connection speaks another protocol",
            Self::BodyTooLarge => "request body too large",
            Self::HeadersTooLarge => "request header fields too large",
            Self::Unavailable => "the authorisation service could not decide",
        }
    }

    /// Seconds for `Retry-After`, where waiting helps.
    pub const fn retry_after(self) -> Option<u32> {
        match self {
            Self::ReplayWindowFull
            | Self::ReplayWindowStarting
            | Self::ReplayStoreUnavailable
            | Self::NotReady
            | Self::Draining
            | Self::Unavailable => Some(5),
            Self::RateLimited => Some(1),
            Self::ClaimSubmitRateLimited => Some(60),
            Self::HeadersInvalid
            | Self::SignatureInvalid(_)
            | Self::SignedComponentsInvalid
            | Self::IdentityInvalid
            | Self::NonceInvalid
            | Self::ReplayDetected
            | Self::ClaimsLookupFailed
            | Self::ClaimRequired
            | Self::AuthorityNotAccepted
            | Self::BodyNotVisible
            | Self::MethodOrPathForbidden
            | Self::RotationRequired
            | Self::MethodNotAllowed
            | Self::NotFound
            | Self::PathInvalid
            | Self::ConnectionUnknown
            | Self::ConnectionDisabled
            | Self::ConnectionUnusable
            | Self::SecretsLost
            | Self::ProtocolMismatch
            | Self::BodyTooLarge
            | Self::HeadersTooLarge => None,
        }
    }
}

/// Who signed. Only the verification makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Namespace of the certificate.
    pub namespace: Namespace,
    /// The principal the agent acts for; self-asserted, covered by the signature.
    pub subject: String,
    /// The agent's key.
    pub key: PublicKey,
    /// `sigilum-agent-id`, where the signature covers it.
    pub agent_id: Option<String>,
}

/// A refusal, with what is known of the request by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Why.
    pub reason: DenyReason,
    /// The connection, where the path named one.
    pub connection: Option<ConnectionId>,
    /// Who signed, where that was verified.
    pub caller: Option<Caller>,
}

impl From<DenyReason> for Denial {
    fn from(reason: DenyReason) -> Self {
        Self { reason, connection: None, caller: None }
    }
}

/// What Envoy is to send upstream. The rest of the upstream request line and the credential are
/// read from the connection.
#[derive(Debug)]
pub struct Plan {
    /// The connection as it was when decided: settings and credential are one record.
    pub connection: Arc<Connection>,
    /// Who signed.
    pub caller: Caller,
    /// The whole upstream `:path`; on query_param connections it holds the credential, so it is
    /// wiped on drop and never logged.
    pub path: zeroize::Zeroizing<Vec<u8>>,
    /// The secret is overdue and the policy warns: the due time.
    pub rotation_overdue: Option<UnixSeconds>,
    /// Whether private upstream addresses are allowed for this request.
    pub allow_private: bool,
    /// Whether loopback upstream addresses are allowed for this request.
    pub allow_loopback: bool,
}

/// What must be admitted to the replay window before a plan may be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The key and its nonce are what may be used once.
    pub key: PublicKey,
    /// As signed, without blanks around it.
    pub nonce: String,
    /// When it was signed.
    pub created: UnixSeconds,
}

/// A request the head stage has nothing against: what its caller needs to refuse a replay before its body
/// is read.
#[derive(Debug)]
pub struct Passed {
    /// What would be admitted at the body stage.
    pub admission: Admission,
    /// For which connection.
    pub connection: ConnectionId,
    /// Who signed.
    pub caller: Caller,
}

/// The outcome of the pure part of a decision.
#[derive(Debug)]
pub enum Verdict {
    /// Refused.
    Deny(Box<Denial>),
    /// Nothing against it so far (head stage), unless its nonce has been used: ask again with the body.
    Continue(Box<Passed>),
    /// Allowed once the nonce is admitted.
    Admit(Box<Plan>, Admission),
}

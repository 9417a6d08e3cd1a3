//! The signed headers of a request, and the bounded parser of `Signature-Input` and `Signature`.
//!
//! The grammar is exactly
//! `^sig1=\(([^)]*)\);created=(\d+);keyid="([^"]+)";alg="([^"]+)";nonce="([^"]+)"$` and
//! `^sig1=:([^:]+):$`, written by hand: one pass, no backtracking, no allocation.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::domain::decision::DenyReason;
use crate::domain::decision::SignatureFault;
use crate::domain::request::RequestView;
use crate::domain::time::CLOCK_SKEW;
use crate::domain::time::UnixSeconds;

/// Longest `signature-input` that is parsed, in bytes. Honest ones have about 300.
pub const MAX_SIGNATURE_INPUT_BYTES: usize = 4096;

/// The headers of the profile as received: each at most once, outer white space trimmed, empty ones
/// absent. Borrowed from the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "each field is named after its header")]
pub struct SignedHeaders<'a> {
    pub signature_input: Option<&'a str>,
    pub signature: Option<&'a str>,
    pub namespace: Option<&'a str>,
    pub subject: Option<&'a str>,
    pub agent_id: Option<&'a str>,
    pub agent_key: Option<&'a str>,
    pub agent_cert: Option<&'a str>,
    pub content_digest: Option<&'a str>,
}

/// Stands for a signature or a digest that is no text: it is neither.
const UNREADABLE: &str = "?";

/// The value as text, where it is UTF-8 without control characters other than a tab.
fn readable(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let controls = text.bytes().any(|byte| (byte < 0x20 && byte != b'\t') || byte == 0x7f);
    (!controls).then_some(text)
}

impl<'a> SignedHeaders<'a> {
    /// Picks the profile's headers out of a request.
    ///
    /// `HeadersInvalid` where one of them occurs twice (also where one of the two is empty), holds
    /// bytes that are not UTF-8 or a control character other than a tab, or holds a comma although
    /// its form has none: that is what two joined headers look like. A signature and a digest of such a
    /// form verify nothing, and a digest that no signature covers counts for nothing: those are read as
    /// `UNREADABLE`, for whoever needs them to refuse.
    pub fn collect<R: RequestView>(request: &'a R) -> Result<Self, DenyReason> {
        let mut found = Self::default();
        let mut seen = 0_u8;
        for (name, value) in request.headers() {
            let Some(field) = Field::of(name) else { continue };
            if seen & field.bit() != 0 {
                return Err(DenyReason::HeadersInvalid);
            }
            seen |= field.bit();
            let trimmed = match readable(value) {
                Some(text) if !(field.has_no_comma() && text.contains(',')) => text.trim(),
                None if field.is_judged_later() => UNREADABLE,
                Some(_) | None => return Err(DenyReason::HeadersInvalid),
            };
            *field.slot(&mut found) = (!trimmed.is_empty()).then_some(trimmed);
        }
        Ok(found)
    }

    /// The certificate header, or `CertHeaderMissing`.
    pub fn certificate(&self) -> Result<&'a str, DenyReason> {
        self.agent_cert.ok_or(DenyReason::SignatureInvalid(SignatureFault::CertHeaderMissing))
    }
}

/// One header of the profile.
#[derive(Clone, Copy)]
enum Field {
    SignatureInput,
    Signature,
    Namespace,
    Subject,
    AgentId,
    AgentKey,
    AgentCert,
    ContentDigest,
}

impl Field {
    /// By name. Fronts hand names over in lower case; a front that does not must not lose a check.
    fn of(name: &str) -> Option<Self> {
        // The length tells them apart from nearly all other headers before any byte is compared.
        let (field, expected) = match name.len() {
            9 => (Self::Signature, "signature"),
            14 => (Self::ContentDigest, "content-digest"),
            15 if name.as_bytes().first().is_some_and(|byte| byte.eq_ignore_ascii_case(&b's')) => {
                if name.eq_ignore_ascii_case("signature-input") {
                    return Some(Self::SignatureInput);
                }
                (Self::Subject, "sigilum-subject")
            }
            16 => (Self::AgentId, "sigilum-agent-id"),
            17 => {
                if name.eq_ignore_ascii_case("sigilum-agent-key") {
                    return Some(Self::AgentKey);
                }
                (Self::Namespace, "sigilum-namespace")
            }
            18 => (Self::AgentCert, "sigilum-agent-cert"),
            _ => return None,
        };
        name.eq_ignore_ascii_case(expected).then_some(field)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// Whether an honest value never contains a comma. Subject, agent id and nonce are free text.
    const fn has_no_comma(self) -> bool {
        match self {
            Self::Namespace | Self::AgentKey | Self::AgentCert => true,
            Self::Signature | Self::SignatureInput | Self::Subject | Self::AgentId | Self::ContentDigest => false,
        }
    }

    /// Whether only one form of it verifies anything, so that any other needs no judgement of its own.
    const fn is_judged_later(self) -> bool {
        match self {
            Self::Signature | Self::ContentDigest => true,
            Self::SignatureInput
            | Self::Namespace
            | Self::Subject
            | Self::AgentId
            | Self::AgentKey
            | Self::AgentCert => false,
        }
    }

    const fn slot<'h, 'a>(self, headers: &'h mut SignedHeaders<'a>) -> &'h mut Option<&'a str> {
        match self {
            Self::SignatureInput => &mut headers.signature_input,
            Self::Signature => &mut headers.signature,
            Self::Namespace => &mut headers.namespace,
            Self::Subject => &mut headers.subject,
            Self::AgentId => &mut headers.agent_id,
            Self::AgentKey => &mut headers.agent_key,
            Self::AgentCert => &mut headers.agent_cert,
            Self::ContentDigest => &mut headers.content_digest,
        }
    }
}

/// The four component lists of the profile; the order within each is fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ComponentSet {
    /// No body.
    A,
    /// Body.
    B,
    /// No body, with `sigilum-agent-id`.
    C,
    /// Body, with `sigilum-agent-id`.
    D,
}

impl ComponentSet {
    /// The set a signer uses.
    pub const fn of(digest: bool, agent_id: bool) -> Self {
        match (digest, agent_id) {
            (false, false) => Self::A,
            (true, false) => Self::B,
            (false, true) => Self::C,
            (true, true) => Self::D,
        }
    }

    /// Names in signing order.
    pub const fn names(self) -> &'static [&'static str] {
        match self {
            Self::A => &[
                "@method",
                "@target-uri",
                "sigilum-namespace",
                "sigilum-subject",
                "sigilum-agent-key",
                "sigilum-agent-cert",
            ],
            Self::B => &[
                "@method",
                "@target-uri",
                "content-digest",
                "sigilum-namespace",
                "sigilum-subject",
                "sigilum-agent-key",
                "sigilum-agent-cert",
            ],
            Self::C => &[
                "@method",
                "@target-uri",
                "sigilum-namespace",
                "sigilum-subject",
                "sigilum-agent-id",
                "sigilum-agent-key",
                "sigilum-agent-cert",
            ],
            Self::D => &[
                "@method",
                "@target-uri",
                "content-digest",
                "sigilum-namespace",
                "sigilum-subject",
                "sigilum-agent-id",
                "sigilum-agent-key",
                "sigilum-agent-cert",
            ],
        }
    }

    /// Whether `content-digest` is signed: the request announces a body.
    pub const fn covers_digest(self) -> bool {
        matches!(self, Self::B | Self::D)
    }

    /// Whether `sigilum-agent-id` is signed.
    pub const fn covers_agent_id(self) -> bool {
        matches!(self, Self::C | Self::D)
    }

    /// Reads the text between the parentheses: double-quoted names separated by white space.
    fn parse(text: &str) -> Result<Self, SignatureFault> {
        let mut subject = false;
        let mut tokens = 0_usize;
        let mut matching = [Self::A, Self::B, Self::C, Self::D].map(Some);
        for token in text.split_whitespace() {
            let name = token.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let name = name.ok_or(SignatureFault::SignatureInputInvalid)?;
            subject |= name == "sigilum-subject";
            for candidate in &mut matching {
                *candidate = candidate.filter(|set| set.names().get(tokens) == Some(&name));
            }
            tokens = tokens.saturating_add(1);
        }
        // The SDKs ask for the subject before they compare the list.
        if !subject {
            return Err(SignatureFault::SubjectComponentMissing);
        }
        let whole = matching.into_iter().flatten().find(|set| set.names().len() == tokens);
        whole.ok_or(SignatureFault::SignedComponentsInvalid)
    }
}

/// What `Signature-Input` and `Signature` say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignatureParams<'a> {
    /// Which components are signed.
    pub components: ComponentSet,
    /// When it was signed.
    pub created: UnixSeconds,
    /// As received; must equal the certificate's key id.
    pub key_id: &'a str,
    /// As received; not blank.
    pub nonce: &'a str,
    /// R and S of RFC 8032 section 5.1.6.
    pub signature: [u8; 64],
}

impl<'a> SignatureParams<'a> {
    /// Parses both headers. Faults in the SDKs' order: missing, input, algorithm, created,
    /// signature header, component list; `NonceInvalid` for a nonce of white space.
    pub fn parse(headers: &SignedHeaders<'a>) -> Result<Self, DenyReason> {
        UnlistedParams::parse(headers)?.listed()
    }
}

/// The parameters before their component list is judged: a control plane judges it later than a gateway.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnlistedParams<'a> {
    pub(super) created: UnixSeconds,
    pub(super) key_id: &'a str,
    components: &'a str,
    nonce: &'a str,
    signature: [u8; 64],
}

impl<'a> UnlistedParams<'a> {
    /// Parses both headers, up to the signature header.
    pub(super) fn parse(headers: &SignedHeaders<'a>) -> Result<Self, DenyReason> {
        let (Some(input), Some(signature)) = (headers.signature_input, headers.signature) else {
            return Err(DenyReason::SignatureInvalid(SignatureFault::MissingSignatureHeaders));
        };
        let input = Input::split(input).map_err(DenyReason::SignatureInvalid)?;
        if !input.algorithm.eq_ignore_ascii_case("ed25519") {
            return Err(DenyReason::SignatureInvalid(SignatureFault::AlgorithmUnsupported));
        }
        // The original counts in signed 64 bits; a larger number was never a time.
        let created = input.created.parse::<i64>().ok().and_then(|seconds| u64::try_from(seconds).ok());
        let created = created.filter(|seconds| *seconds > 0);
        let created = created.ok_or(DenyReason::SignatureInvalid(SignatureFault::CreatedInvalid))?;
        let signature = decode_signature(signature).map_err(DenyReason::SignatureInvalid)?;
        let Input { components, key_id, nonce, .. } = input;
        Ok(Self { created: UnixSeconds(created), key_id, components, nonce, signature })
    }

    /// Judges the component list, then the nonce.
    pub(super) fn listed(self) -> Result<SignatureParams<'a>, DenyReason> {
        let Self { created, key_id, components, nonce, signature } = self;
        let components = ComponentSet::parse(components).map_err(DenyReason::SignatureInvalid)?;
        if nonce.trim().is_empty() {
            return Err(DenyReason::NonceInvalid);
        }
        Ok(SignatureParams { components, created, key_id, nonce, signature })
    }
}

/// The groups of the regular expression.
struct Input<'a> {
    components: &'a str,
    created: &'a str,
    key_id: &'a str,
    algorithm: &'a str,
    nonce: &'a str,
}

impl<'a> Input<'a> {
    fn split(text: &'a str) -> Result<Self, SignatureFault> {
        if text.len() > MAX_SIGNATURE_INPUT_BYTES {
            return Err(SignatureFault::SignatureInputInvalid);
        }
        Self::groups(text).ok_or(SignatureFault::SignatureInputInvalid)
    }

    fn groups(text: &'a str) -> Option<Self> {
        let (components, rest) = text.strip_prefix("sig1=(")?.split_once(')')?;
        let (created, rest) = rest.strip_prefix(";created=")?.split_once(";keyid=\"")?;
        let (key_id, rest) = rest.split_once('"')?;
        let (algorithm, rest) = rest.strip_prefix(";alg=\"")?.split_once('"')?;
        let nonce = rest.strip_prefix(";nonce=\"")?.strip_suffix('"')?;
        let digits = !created.is_empty() && created.bytes().all(|byte| byte.is_ascii_digit());
        let filled = !key_id.is_empty() && !algorithm.is_empty() && !nonce.is_empty();
        (digits && filled && !nonce.contains('"')).then_some(Self { components, created, key_id, algorithm, nonce })
    }
}

/// `sig1=:` + padded base64 of 64 bytes + `:`. Only the canonical encoding: with loose trailing bits
/// one signature would have many spellings.
fn decode_signature(text: &str) -> Result<[u8; 64], SignatureFault> {
    let encoded = text.strip_prefix("sig1=:").and_then(|rest| rest.strip_suffix(':'));
    // 64 bytes are 88 characters; checked first so that nothing long is decoded.
    let encoded = encoded.filter(|encoded| encoded.len() == 88).ok_or(SignatureFault::SignatureHeaderInvalid)?;
    let mut bytes = [0_u8; 66];
    match STANDARD.decode_slice(encoded, &mut bytes) {
        Ok(64) => {}
        Ok(_) | Err(_) => return Err(SignatureFault::SignatureHeaderInvalid),
    }
    bytes.first_chunk::<64>().copied().ok_or(SignatureFault::SignatureHeaderInvalid)
}

/// Whether a signature is neither too old nor from the future: at most `max_age` back, at most
/// [`CLOCK_SKEW`] ahead, both inclusive. `TimestampOutOfRange` otherwise.
pub fn check_age(created: UnixSeconds, now: UnixSeconds, max_age: Duration) -> Result<(), DenyReason> {
    let early = created.0 > now.0.saturating_add(CLOCK_SKEW.as_secs());
    let late = now.0.saturating_sub(created.0) > max_age.as_secs();
    if early || late {
        return Err(DenyReason::SignatureInvalid(SignatureFault::TimestampOutOfRange));
    }
    Ok(())
}

#[cfg(test)]
#[path = "fields_tests.rs"]
mod tests;

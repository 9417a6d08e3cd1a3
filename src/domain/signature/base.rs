//! The signature base (RFC 9421 section 2.5) and the spellings of `@target-uri` that are tried.

use std::io::Write as _;

use crate::domain::decision::DenyReason;
use crate::domain::decision::SignatureFault;
use crate::domain::signature::fields::ComponentSet;
use crate::domain::signature::fields::SignatureParams;
use crate::domain::signature::fields::SignedHeaders;

/// One spelling of `@target-uri`, as pieces that are written one after the other: nothing is copied
/// until it is written into a signature base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetUri<'a> {
    scheme: &'a [u8],
    separator: &'static [u8],
    authority: &'a [u8],
    port: &'static [u8],
    target: &'a [u8],
}

impl<'a> TargetUri<'a> {
    /// A URI that is whole already: what a signer is about to send, without its fragment.
    pub const fn whole(uri: &'a [u8]) -> Self {
        Self { scheme: uri, separator: b"", authority: b"", port: b"", target: b"" }
    }

    fn pieces(&self) -> [&[u8]; 5] {
        [self.scheme, self.separator, self.authority, self.port, self.target]
    }

    /// Appends the URI.
    pub fn write(&self, out: &mut Vec<u8>) {
        for piece in self.pieces() {
            out.extend_from_slice(piece);
        }
    }
}

/// The spellings of the request's URI that may have been signed, most likely first, at most three.
///
/// Every SDK signs the string it then sends, so the raw request target comes first and alone decides
/// for nearly all requests. Then: for the target `/`, the bare origin (Python, Go and Java given a URL
/// without a path); for an authority without a port, the default port of the scheme written out (the
/// shell helper, and Python or Java callers who wrote it, while their HTTP library dropped it from `Host`).
pub fn target_uris<'a>(
    scheme: &'a [u8],
    authority: &'a [u8],
    target: &'a [u8],
) -> impl Iterator<Item = TargetUri<'a>> + use<'a> {
    let raw = TargetUri { scheme, separator: b"://", authority, port: b"", target };
    let origin = (target == b"/").then_some(TargetUri { target: b"", ..raw });
    let port: &'static [u8] = match scheme {
        b"http" => b":80",
        b"https" => b":443",
        _ => b"",
    };
    let explicit = (!port.is_empty() && !has_port(authority)).then_some(TargetUri { port, ..raw });
    [Some(raw), origin, explicit].into_iter().flatten()
}

/// Whether a colon follows the host; those inside the brackets of an IPv6 address do not count.
fn has_port(authority: &[u8]) -> bool {
    let host_end = authority.iter().rposition(|byte| *byte == b']').map_or(0, |at| at.saturating_add(1));
    authority.get(host_end..).is_some_and(|rest| rest.contains(&b':'))
}

/// Writes the signature base into `out`, which is cleared first.
///
/// `SigningBaseInvalid` where a covered header is absent or blank, or where method or URI hold
/// control bytes: a line feed in them could pose as another line of the base.
pub fn write_base(
    out: &mut Vec<u8>,
    method: &[u8],
    target_uri: &TargetUri<'_>,
    headers: &SignedHeaders<'_>,
    params: &SignatureParams<'_>,
) -> Result<(), DenyReason> {
    let invalid = DenyReason::SignatureInvalid(SignatureFault::SigningBaseInvalid);
    let parts = target_uri.pieces();
    if method.is_empty() || has_controls(method) || parts.iter().any(|part| has_controls(part)) {
        return Err(invalid);
    }
    out.clear();
    for name in params.components.names() {
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\": ");
        let value = match *name {
            "@method" => {
                // The profile lower-cases it; RFC 9421 section 2.2.1 would keep the case.
                out.extend(method.iter().map(u8::to_ascii_lowercase));
                out.push(b'\n');
                continue;
            }
            "@target-uri" => {
                target_uri.write(out);
                out.push(b'\n');
                continue;
            }
            "content-digest" => headers.content_digest,
            "sigilum-namespace" => headers.namespace,
            "sigilum-subject" => headers.subject,
            "sigilum-agent-id" => headers.agent_id,
            "sigilum-agent-key" => headers.agent_key,
            "sigilum-agent-cert" => headers.agent_cert,
            _ => None,
        };
        out.extend_from_slice(value.ok_or(invalid)?.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"\"@signature-params\": ");
    write_params(out, params);
    Ok(())
}

fn has_controls(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| *byte < 0x20 || *byte == 0x7f)
}

/// Appends the parameters in the profile's one serialisation: single spaces, fixed order, `alg`
/// always `ed25519`. Behind `sig1=` this is the value of `Signature-Input`.
pub fn write_params(out: &mut Vec<u8>, params: &SignatureParams<'_>) {
    write_names(out, params.components);
    // Writing into a Vec cannot fail.
    let _ = write!(
        out,
        ";created={};keyid=\"{}\";alg=\"ed25519\";nonce=\"{}\"",
        params.created.0, params.key_id, params.nonce
    );
}

fn write_names(out: &mut Vec<u8>, components: ComponentSet) {
    for (index, name) in components.names().iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"(\"" } else { b" \"" });
        out.extend_from_slice(name.as_bytes());
        out.push(b'"');
    }
    out.push(b')');
}

#[cfg(test)]
#[path = "base_tests.rs"]
mod tests;

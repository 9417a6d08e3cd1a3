//! Whole requests through every check in the gate's order: vectors of an independent signer, and
//! random requests of which any single byte is changed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "test code may panic"
)]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::Signer as _;
use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::domain::decision::Caller;
use crate::domain::decision::DenyReason;
use crate::domain::decision::SignatureFault;
use crate::domain::ids::Namespace;
use crate::domain::ids::PublicKey;
use crate::domain::request::BodyView;
use crate::domain::request::RequestView;
use crate::domain::time::UnixSeconds;

/// A request as the vectors and the generators below hold it.
#[derive(Debug, Clone)]
struct Request {
    method: Vec<u8>,
    scheme: Vec<u8>,
    authority: Vec<u8>,
    target: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl RequestView for Request {
    fn method(&self) -> &[u8] {
        &self.method
    }

    fn scheme(&self) -> &[u8] {
        &self.scheme
    }

    fn authority(&self) -> &[u8] {
        &self.authority
    }

    fn target(&self) -> &[u8] {
        &self.target
    }

    fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    fn body(&self) -> BodyView<'_> {
        BodyView::Whole(&self.body)
    }

    fn client_address(&self) -> Option<IpAddr> {
        None
    }
}

fn check(request: &Request, now: UnixSeconds, max_age: Duration) -> Result<Caller, DenyReason> {
    let headers = SignedHeaders::collect(request)?;
    let params = SignatureParams::parse(&headers)?;
    check_age(params.created, now, max_age)?;
    let certificate = Certificate::decode(headers.certificate()?).and_then(Certificate::verify);
    let certificate = certificate.map_err(DenyReason::SignatureInvalid)?;
    certificate.check_time(now).map_err(DenyReason::SignatureInvalid)?;
    let caller = check_identity(&headers, &params, &certificate)?;
    check_digest(&headers, params.components, request.body())?;
    let mut base = Vec::new();
    let mut verdict = Err(DenyReason::SignatureInvalid(SignatureFault::VerificationFailed));
    for uri in target_uris(request.scheme(), request.authority(), request.target()) {
        write_base(&mut base, request.method(), &uri, &headers, &params)?;
        let verified = certificate.verify_signature(&base, &params.signature);
        verdict = verified.map(|()| caller.clone()).map_err(DenyReason::SignatureInvalid);
        if verdict.is_ok() {
            break;
        }
    }
    verdict
}

// === vectors ===

#[derive(Deserialize)]
struct Vectors {
    now: u64,
    max_age_seconds: u64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    verdict: String,
    request: CaseRequest,
}

#[derive(Deserialize)]
struct CaseRequest {
    method: String,
    scheme: String,
    authority: String,
    target: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl CaseRequest {
    fn request(self) -> Request {
        Request {
            method: self.method.into(),
            scheme: self.scheme.into(),
            authority: self.authority.into(),
            target: self.target.into(),
            headers: self.headers.into_iter().map(|(name, value)| (name, value.into())).collect(),
            body: STANDARD.decode(self.body).unwrap(),
        }
    }
}

/// What the vectors call an outcome: the SDKs' code where there is one, else the gateway's.
fn verdict(outcome: &Result<Caller, DenyReason>) -> &'static str {
    match outcome {
        Ok(_) => "accept",
        Err(DenyReason::SignatureInvalid(fault)) => fault.code(),
        Err(reason) => reason.wire().0,
    }
}

#[test]
fn every_vector_gets_its_verdict() {
    let vectors: Vectors = serde_json::from_str(include_str!("../../../tests/vectors/requests.json")).unwrap();
    let (now, max_age) = (UnixSeconds(vectors.now), Duration::from_secs(vectors.max_age_seconds));
    let mut seen = BTreeSet::new();
    for case in vectors.cases {
        let outcome = check(&case.request.request(), now, max_age);
        assert_eq!(verdict(&outcome), case.verdict, "{}", case.name);
        seen.insert(case.verdict);
    }
    for fault in ALL_FAULTS {
        assert!(seen.contains(fault.code()), "no vector for {fault:?}");
    }
    for code in ["accept", "AUTH_HEADERS_INVALID", "AUTH_IDENTITY_INVALID", "AUTH_NONCE_INVALID"] {
        assert!(seen.contains(code), "no vector for {code}");
    }
}

const ALL_FAULTS: [SignatureFault; 21] = [
    SignatureFault::MissingSignatureHeaders,
    SignatureFault::SignatureInputInvalid,
    SignatureFault::AlgorithmUnsupported,
    SignatureFault::CreatedInvalid,
    SignatureFault::TimestampOutOfRange,
    SignatureFault::SignatureHeaderInvalid,
    SignatureFault::CertHeaderMissing,
    SignatureFault::CertHeaderInvalid,
    SignatureFault::CertInvalid,
    SignatureFault::CertExpired,
    SignatureFault::NamespaceMismatch,
    SignatureFault::SubjectMissing,
    SignatureFault::SubjectComponentMissing,
    SignatureFault::SignedComponentsInvalid,
    SignatureFault::KeyHeaderMissing,
    SignatureFault::KeyMismatch,
    SignatureFault::KeyIdMismatch,
    SignatureFault::ContentDigestMismatch,
    SignatureFault::SigningBaseInvalid,
    SignatureFault::KeyHeaderInvalid,
    SignatureFault::VerificationFailed,
];

// === properties ===

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
const MAX_AGE: Duration = Duration::from_secs(300);

/// Signs with nothing of the code under test but the certificate's payload and the digest, which the
/// vectors hold to the SDKs'.
fn signed(
    seed: [u8; 32],
    method: &str,
    authority: &str,
    target: &str,
    subject: &str,
    id: Option<&str>,
    body: &[u8],
) -> Request {
    let key = SigningKey::from_bytes(&seed);
    let public = PublicKey::new(key.verifying_key().to_bytes());
    let namespace = Namespace::parse("prop-space").unwrap();
    let mut certificate = CertificateBody {
        version: 1,
        namespace: "prop-space".to_owned(),
        did: namespace.did(),
        key_id: public.key_id(&namespace),
        public_key: public.text(),
        issued_at: "2026-02-20T18:04:26Z".to_owned(),
        expires_at: None,
        proof: ProofBody { alg: "ed25519".to_owned(), sig: String::new() },
    };
    certificate.proof.sig = URL_SAFE_NO_PAD.encode(key.sign(certificate.payload().as_bytes()).to_bytes());
    let mut fields = vec![("@method", method.to_lowercase()), ("@target-uri", format!("https://{authority}{target}"))];
    if !body.is_empty() {
        fields.push(("content-digest", String::from_utf8(content_digest(body).to_vec()).unwrap()));
    }
    fields.push(("sigilum-namespace", "prop-space".to_owned()));
    fields.push(("sigilum-subject", subject.to_owned()));
    fields.extend(id.map(|id| ("sigilum-agent-id", id.to_owned())));
    fields.push(("sigilum-agent-key", public.text()));
    fields.push(("sigilum-agent-cert", certificate.header()));
    let names: Vec<_> = fields.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let params = format!(
        "({});created={};keyid=\"{}\";alg=\"ed25519\";nonce=\"nonce-1\"",
        names.join(" "),
        NOW.0,
        certificate.key_id
    );
    let mut base: String = fields.iter().map(|(name, value)| format!("\"{name}\": {value}\n")).collect();
    base.push_str("\"@signature-params\": ");
    base.push_str(&params);
    let signature = STANDARD.encode(key.sign(base.as_bytes()).to_bytes());
    let mut headers = vec![
        ("signature-input".to_owned(), format!("sig1={params}").into_bytes()),
        ("signature".to_owned(), format!("sig1=:{signature}:").into_bytes()),
    ];
    headers.extend(fields.into_iter().skip(2).map(|(name, value)| (name.to_owned(), value.into_bytes())));
    Request {
        method: method.into(),
        scheme: b"https".to_vec(),
        authority: authority.into(),
        target: target.into(),
        headers,
        body: body.to_vec(),
    }
}

prop_compose! {
    fn genuine()(
        seed: [u8; 32],
        method in "GET|POST|PATCH|PROPFIND",
        authority in "[a-z]{1,8}(:[0-9]{2,5})?",
        target in "/[!-~&&[^#]]{0,40}",
        subject in "[a-zA-Z0-9éß](.{0,10}[a-z])?",
        id in proptest::option::of("[a-z][ -~]{0,10}[a-z]"),
        body in prop_oneof![Just(Vec::new()), prop::collection::vec(any::<u8>(), 1..60)],
    ) -> Request {
        let subject: String = subject.chars().filter(|c| !c.is_control()).collect();
        signed(seed, &method, &authority, &target, &subject, id.as_deref(), &body)
    }
}

/// The places of a request where a byte may be changed: five parts, then the headers' values.
fn part(request: &mut Request, at: usize) -> (&'static str, &mut Vec<u8>) {
    match at {
        0 => ("method", &mut request.method),
        1 => ("scheme", &mut request.scheme),
        2 => ("authority", &mut request.authority),
        3 => ("target", &mut request.target),
        4 => ("body", &mut request.body),
        _ => {
            let count = request.headers.len();
            let (name, value) = &mut request.headers[(at - 5) % count];
            let name = ["signature-input", "content-digest"].into_iter().find(|known| known == name);
            (name.unwrap_or("header"), value)
        }
    }
}

/// The profile's own tolerances, and nothing else: case of the method and of `alg`, one blank for another.
fn tolerated(part: &str, before: &[u8], after: &[u8]) -> bool {
    let canonical = |value: &[u8]| {
        let text = String::from_utf8(value.to_vec()).ok()?;
        let (names, rest) = text.split_once(')')?;
        let names: Vec<_> = names.split_whitespace().collect();
        let (head, tail) = rest.split_once(";alg=\"")?;
        // A tab is a blank in a header; other controls do not get that far.
        if text.chars().any(|c| c.is_control() && c != '\t') {
            return None;
        }
        Some((names.join(" "), head.to_owned(), tail.get(..7)?.to_lowercase(), tail.get(7..)?.to_owned()))
    };
    match part {
        "method" => before.eq_ignore_ascii_case(after),
        "signature-input" => canonical(before).is_some() && canonical(before) == canonical(after),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_signed_request_verifies(request in genuine()) {
        let caller = check(&request, NOW, MAX_AGE);
        prop_assert!(caller.is_ok(), "{:?}", caller);
    }

    #[test]
    fn any_single_changed_byte_is_noticed(
        request in genuine(),
        changes in prop::collection::vec((0_usize..13, any::<prop::sample::Index>(), 1_u8..), 24),
    ) {
        for (at, index, mask) in changes {
            let mut changed = request.clone();
            let (name, bytes) = part(&mut changed, at);
            if bytes.is_empty() {
                continue;
            }
            let before = bytes.clone();
            let place = index.index(bytes.len());
            bytes[place] ^= mask;
            let after = bytes.clone();
            let outcome = check(&changed, NOW, MAX_AGE);
            prop_assert_eq!(
                outcome.is_ok(),
                tolerated(name, &before, &after),
                "{} {} -> {}", name, String::from_utf8_lossy(&before), String::from_utf8_lossy(&after)
            );
        }
    }

    #[test]
    fn a_byte_more_or_less_is_noticed(
        request in genuine(), at in 0_usize..13, index: prop::sample::Index, extra in prop::option::of(b'!'..=b'~'),
    ) {
        let mut changed = request.clone();
        let (name, bytes) = part(&mut changed, at);
        let before = bytes.clone();
        match extra {
            Some(extra) => bytes.insert(index.index(bytes.len() + 1), extra),
            None if bytes.is_empty() => return Ok(()),
            None => { bytes.remove(index.index(bytes.len())); }
        }
        let after = bytes.clone();
        // A zero in front of `created` is the same number, and a request that lost its port may have been
        // signed with the default one.
        let same_number = name == "signature-input" && extra == Some(b'0');
        let outcome = check(&changed, NOW, MAX_AGE);
        prop_assert!(
            outcome.is_err() || same_number || tolerated(name, &before, &after),
            "{} {} -> {}", name, String::from_utf8_lossy(&before), String::from_utf8_lossy(&after)
        );
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        input: String, signature: String, raw: Vec<u8>, text in "[A-Za-z0-9_=-]{0,400}", target: Vec<u8>, host: Vec<u8>,
    ) {
        let headers = SignedHeaders {
            signature_input: Some(&input),
            signature: Some(&signature),
            ..SignedHeaders::default()
        };
        let _ = SignatureParams::parse(&headers);
        let _ = Certificate::decode(&input);
        let _ = Certificate::decode(&text).map(Certificate::verify);
        let _ = Certificate::decode(&URL_SAFE_NO_PAD.encode(&raw));
        let _ = PublicKey::parse(&input);
        let _ = check_unique_members(&raw);
        for uri in target_uris(b"https", &host, &target) {
            uri.write(&mut Vec::new());
        }
        let request = Request {
            method: raw.clone(),
            scheme: raw.clone(),
            authority: host,
            target,
            headers: vec![("signature-input".to_owned(), raw.clone()), (input.clone(), raw.clone())],
            body: raw,
        };
        prop_assert!(check(&request, NOW, MAX_AGE).is_err());
    }

    #[test]
    fn what_parses_is_written_back_the_same(request in genuine()) {
        let headers = SignedHeaders::collect(&request).unwrap();
        let params = SignatureParams::parse(&headers).unwrap();
        let mut written = b"sig1=".to_vec();
        write_params(&mut written, &params);
        prop_assert_eq!(written.as_slice(), headers.signature_input.unwrap().as_bytes());
    }
}

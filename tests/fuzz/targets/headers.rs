//! A whole request, line by line (method, authority, target, then `name:value`, the body after an empty
//! line) through every check: no panic, and nothing but the seed's own signature verifies.
#![no_main]

use std::net::IpAddr;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sigilum::domain::decision::Caller;
use sigilum::domain::decision::DenyReason;
use sigilum::domain::decision::SignatureFault;
use sigilum::domain::request::BodyView;
use sigilum::domain::request::RequestView;
use sigilum::domain::signature::Certificate;
use sigilum::domain::signature::SignatureParams;
use sigilum::domain::signature::SignedHeaders;
use sigilum::domain::signature::check_age;
use sigilum::domain::signature::check_digest;
use sigilum::domain::signature::check_identity;
use sigilum::domain::signature::target_uris;
use sigilum::domain::signature::write_base;
use sigilum::domain::time::UnixSeconds;

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

struct Request<'a> {
    method: &'a [u8],
    authority: &'a [u8],
    target: &'a [u8],
    headers: Vec<(&'a str, &'a [u8])>,
    body: &'a [u8],
}

impl RequestView for Request<'_> {
    fn method(&self) -> &[u8] {
        self.method
    }

    fn scheme(&self) -> &[u8] {
        b"http"
    }

    fn authority(&self) -> &[u8] {
        self.authority
    }

    fn target(&self) -> &[u8] {
        self.target
    }

    fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().copied()
    }

    fn body(&self) -> BodyView<'_> {
        BodyView::Whole(self.body)
    }

    fn client_address(&self) -> Option<IpAddr> {
        None
    }
}

fn check(request: &Request<'_>) -> Result<Caller, DenyReason> {
    let headers = SignedHeaders::collect(request)?;
    let params = SignatureParams::parse(&headers)?;
    check_age(params.created, NOW, Duration::from_secs(300))?;
    let certificate = Certificate::decode(headers.certificate()?).and_then(Certificate::verify);
    let certificate = certificate.map_err(DenyReason::SignatureInvalid)?;
    certificate.check_time(NOW).map_err(DenyReason::SignatureInvalid)?;
    let caller = check_identity(&headers, &params, &certificate)?;
    check_digest(&headers, params.components, request.body())?;
    let mut base = Vec::new();
    for uri in target_uris(b"http", request.authority, request.target) {
        write_base(&mut base, request.method, &uri, &headers, &params)?;
        if certificate.verify_signature(&base, &params.signature).is_ok() {
            return Ok(caller);
        }
    }
    Err(DenyReason::SignatureInvalid(SignatureFault::VerificationFailed))
}

fuzz_target!(|data: &[u8]| {
    let (head, body) = match data.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (&data[..at], &data[at + 2..]),
        None => (data, &b""[..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let (method, authority, target) = (next(), next(), next());
    let headers = lines
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            Some((std::str::from_utf8(&line[..colon]).ok()?, &line[colon + 1..]))
        })
        .collect();
    if let Ok(caller) = check(&Request { method, authority, target, headers, body }) {
        assert!(method.eq_ignore_ascii_case(b"GET") && authority == b"127.0.0.1:38000");
        assert_eq!((target, body), (&b"/proxy/demo/v1/items?a=%2F&b=c%20d"[..], &b""[..]));
        assert_eq!((caller.namespace.as_str(), caller.subject.as_str()), ("fixture-alice", "fixture-alice"));
    }
});

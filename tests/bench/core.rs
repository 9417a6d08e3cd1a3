//! Micro-benchmarks of the signature core: what one request costs before any network is involved.
//!
//! `cargo bench --bench core`. The request is an ordinary one: GET, about 1.2 kB of signature base.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "benchmark code may panic"
)]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Duration;

use criterion::Criterion;
use criterion::criterion_group;
use criterion::criterion_main;
use sigilum::domain::decision::Caller;
use sigilum::domain::decision::DenyReason;
use sigilum::domain::ids::Namespace;
use sigilum::domain::request::BodyView;
use sigilum::domain::request::RequestView;
use sigilum::domain::signature::Certificate;
use sigilum::domain::signature::HotKeys;
use sigilum::domain::signature::SignatureParams;
use sigilum::domain::signature::SignedHeaders;
use sigilum::domain::signature::VerifiedCertificate;
use sigilum::domain::signature::check_age;
use sigilum::domain::signature::check_digest;
use sigilum::domain::signature::check_identity;
use sigilum::domain::signature::content_digest;
use sigilum::domain::signature::target_uris;
use sigilum::domain::signature::write_base;
use sigilum::domain::time::UnixSeconds;
use sigilum::identity::Identity;
use sigilum::identity::Outgoing;

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
const MAX_AGE: Duration = Duration::from_secs(300);

struct Request {
    method: &'static str,
    target: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl RequestView for Request {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }

    fn scheme(&self) -> &[u8] {
        b"http"
    }

    fn authority(&self) -> &[u8] {
        b"127.0.0.1:38000"
    }

    fn target(&self) -> &[u8] {
        self.target.as_bytes()
    }

    fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (*name, value.as_bytes()))
    }

    fn body(&self) -> BodyView<'_> {
        BodyView::Whole(&self.body)
    }

    fn client_address(&self) -> Option<IpAddr> {
        None
    }
}

fn identity(number: u8) -> Identity {
    Identity::from_seed(Namespace::parse("bench-space").unwrap(), &[number; 32], NOW)
}

fn request(identity: &Identity, body: Vec<u8>) -> Request {
    let target = "/proxy/demo-service-gateway/v1/items?limit=100&cursor=abcdef";
    let method = if body.is_empty() { "GET" } else { "POST" };
    let mut headers: Vec<_> = [
        ("accept", "*/*"),
        ("user-agent", "agent/1.0"),
        ("content-type", "application/json"),
        ("accept-encoding", "gzip, br"),
        ("x-request-id", "0b6f3d0e-6e0f-4d57-9d26-0d3f0f4d4f4f"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into();
    let signed = identity.signer().sign(&Outgoing {
        method,
        url: &format!("http://127.0.0.1:38000{target}"),
        body: &body,
        subject: Some("customer-12345"),
        agent_id: None,
        created: NOW,
        nonce: "123e4567-e89b-12d3-a456-426614174000",
    });
    headers.extend(signed.unwrap());
    Request { method, target, headers, body }
}

fn certificate(request: &Request) -> VerifiedCertificate {
    let headers = SignedHeaders::collect(request).unwrap();
    Certificate::decode(headers.certificate().unwrap()).unwrap().verify().unwrap()
}

/// Every check of one request whose certificate is known.
fn check(
    request: &Request,
    certificate: &VerifiedCertificate,
    hot: Option<&HotKeys>,
    base: &mut Vec<u8>,
) -> Result<Caller, DenyReason> {
    let headers = SignedHeaders::collect(request)?;
    let params = SignatureParams::parse(&headers)?;
    check_age(params.created, NOW, MAX_AGE)?;
    certificate.check_time(NOW).map_err(DenyReason::SignatureInvalid)?;
    let caller = check_identity(&headers, &params, certificate)?;
    check_digest(&headers, params.components, request.body())?;
    let uri = target_uris(request.scheme(), request.authority(), request.target()).next().unwrap();
    write_base(base, request.method(), &uri, &headers, &params)?;
    let verified = match hot {
        Some(hot) => hot.verify(certificate, base, &params.signature),
        None => certificate.verify_signature(base, &params.signature),
    };
    verified.map(|()| caller).map_err(DenyReason::SignatureInvalid)
}

fn core(criterion: &mut Criterion) {
    let get = request(&identity(1), Vec::new());
    let post = request(&identity(1), vec![b'x'; 4096]);
    let known = certificate(&get);
    let headers = SignedHeaders::collect(&get).unwrap();
    let params = SignatureParams::parse(&headers).unwrap();
    let uri = target_uris(get.scheme(), get.authority(), get.target()).next().unwrap();
    let mut base = Vec::new();
    write_base(&mut base, get.method(), &uri, &headers, &params).unwrap();
    let signed = base.clone();

    criterion.bench_function("verify, strict, key held", |bench| {
        bench.iter(|| known.verify_signature(black_box(&signed), &params.signature).unwrap());
    });
    let hot = HotKeys::new();
    criterion.bench_function("verify, strict, key with a table", |bench| {
        bench.iter(|| hot.verify(&known, black_box(&signed), &params.signature).unwrap());
    });
    // As many tables as there may be, in turn: more than the second-level cache holds.
    let many = HotKeys::new();
    let mut slots = BTreeSet::new();
    let tables: Vec<_> = (0..=255_u8)
        .map(|number| request(&identity(number), Vec::new()))
        .map(|request| (certificate(&request), request))
        .filter(|(certificate, _)| slots.insert(certificate.key().as_bytes()[0] % 64))
        .collect();
    for (certificate, request) in &tables {
        for _ in 0..20 {
            check(request, certificate, Some(&many), &mut base).unwrap();
        }
    }
    assert_eq!(many.memory_bytes(), tables.len() * 81_920);
    let mut turn = tables.iter().cycle();
    criterion.bench_function(&format!("whole check, {} keys with tables in turn", tables.len()), |bench| {
        bench.iter(|| {
            let (certificate, request) = turn.next().unwrap();
            check(request, certificate, Some(&many), &mut base).unwrap()
        });
    });
    criterion.bench_function("headers and parameters", |bench| {
        bench.iter(|| {
            let headers = SignedHeaders::collect(black_box(&get)).unwrap();
            SignatureParams::parse(&headers).unwrap().created
        });
    });
    criterion.bench_function("signature base", |bench| {
        bench.iter(|| write_base(&mut base, get.method(), &uri, black_box(&headers), &params).unwrap());
    });
    criterion.bench_function("identity", |bench| {
        bench.iter(|| check_identity(black_box(&headers), &params, &known).unwrap());
    });
    criterion.bench_function("digest of 4 KiB", |bench| bench.iter(|| content_digest(black_box(&post.body))));
    criterion.bench_function("certificate, decoded", |bench| {
        bench.iter(|| Certificate::decode(black_box(headers.certificate().unwrap())).unwrap());
    });
    criterion.bench_function("certificate, decoded and verified", |bench| {
        bench.iter(|| Certificate::decode(black_box(headers.certificate().unwrap())).unwrap().verify().unwrap());
    });
    criterion.bench_function("whole check, GET, key held", |bench| {
        bench.iter(|| check(black_box(&get), &known, None, &mut base).unwrap());
    });
    criterion.bench_function("whole check, GET, key with a table", |bench| {
        bench.iter(|| check(black_box(&get), &known, Some(&hot), &mut base).unwrap());
    });
    criterion.bench_function("whole check, POST of 4 KiB, key with a table", |bench| {
        bench.iter(|| check(black_box(&post), &known, Some(&hot), &mut base).unwrap());
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(60).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    targets = core
}
criterion_main!(benches);

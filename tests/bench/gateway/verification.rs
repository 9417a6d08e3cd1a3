//! (e) What cannot be avoided: one strict Ed25519 verification and one signature base, by themselves.

use std::hint::black_box;
use std::time::Instant;

use sigilum::domain::ids::PublicKey;
use sigilum::domain::request::BodyView;
use sigilum::domain::request::RequestView;
use sigilum::domain::signature::Certificate;
use sigilum::domain::signature::HotKeys;
use sigilum::domain::signature::SignatureParams;
use sigilum::domain::signature::SignedHeaders;
use sigilum::domain::signature::VerifyingKey;
use sigilum::domain::signature::content_digest;
use sigilum::domain::signature::target_uris;
use sigilum::domain::signature::verify;
use sigilum::domain::signature::write_base;

use crate::support::client::Request;

/// How many are timed together; short enough to fall between two interruptions now and then.
const BATCH: u32 = 50;

/// Microseconds of each step.
#[derive(Debug, Clone, Copy)]
pub struct Isolated {
    /// The key decompressed, the signature verified.
    pub verification: f64,
    /// The same for a key that is held decompressed.
    pub held_key: f64,
    /// The path the gateway takes for an approved key in use: with the key's own table.
    pub table: f64,
    /// ed25519-dalek's `verify_strict` called directly, key held: what the library alone costs.
    pub library: f64,
    /// Headers collected, parameters parsed, base written.
    pub base: f64,
    /// The digest of 4 KiB, as `content-digest` carries it.
    pub digest: f64,
}

/// The request as the core sees it.
struct View<'a>(&'a Request, &'a str);

impl RequestView for View<'_> {
    fn method(&self) -> &[u8] {
        self.0.method.as_bytes()
    }
    fn scheme(&self) -> &[u8] {
        b"http"
    }
    fn authority(&self) -> &[u8] {
        self.1.as_bytes()
    }
    fn target(&self) -> &[u8] {
        self.0.target.as_bytes()
    }
    fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
    }
    fn body(&self) -> BodyView<'_> {
        BodyView::Whole(b"")
    }
    fn client_address(&self) -> Option<std::net::IpAddr> {
        None
    }
}

/// Times each step, `batches` times; the median batch counts, as for the other rows.
pub fn measure(request: &Request, public_key: &str, batches: usize) -> Isolated {
    let view = View(request, request.value("host").unwrap());
    let key = PublicKey::parse(public_key).unwrap();
    let held = VerifyingKey::new(&key).unwrap();
    let library = ed25519_dalek::VerifyingKey::from_bytes(key.as_bytes()).unwrap();
    let mut base = Vec::new();
    let headers = SignedHeaders::collect(&view).unwrap();
    let params = SignatureParams::parse(&headers).unwrap();
    let uri = target_uris(view.scheme(), view.authority(), view.target()).next().unwrap();
    write_base(&mut base, view.method(), &uri, &headers, &params).unwrap();
    let signature = ed25519_dalek::Signature::from_bytes(&params.signature);
    verify(&key, &base, &params.signature).unwrap();

    let certificate = Certificate::decode(headers.agent_cert.unwrap()).unwrap().verify().unwrap();
    let hot = HotKeys::new();
    for _ in 0..1000 {
        hot.verify(&certificate, &base, &params.signature).unwrap();
    }
    assert!(hot.memory_bytes() > 0, "the key in use has no table");

    let mut scratch = Vec::new();
    let body = [b'x'; 4096];
    let mut times = [const { Vec::new() }; 6];
    for _ in 0..batches {
        times[0].push(time(|| verify(black_box(&key), black_box(&base), &params.signature).unwrap()));
        times[1].push(time(|| held.verify(black_box(&base), &params.signature).unwrap()));
        times[2].push(time(|| library.verify_strict(black_box(&base), &signature).unwrap()));
        times[5].push(time(|| {
            black_box(content_digest(black_box(&body)));
        }));
        times[4].push(time(|| hot.verify(&certificate, black_box(&base), &params.signature).unwrap()));
        times[3].push(time(|| {
            let headers = SignedHeaders::collect(black_box(&view)).unwrap();
            let params = SignatureParams::parse(&headers).unwrap();
            let uri = target_uris(view.scheme(), view.authority(), view.target()).next().unwrap();
            scratch.clear();
            write_base(&mut scratch, view.method(), &uri, &headers, &params).unwrap();
            black_box(&scratch);
        }));
    }
    let [verification, held_key, library, base, table, digest] = times.map(median);
    Isolated { verification, held_key, table, library, base, digest }
}

fn time(mut step: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..BATCH {
        step();
    }
    start.elapsed().as_secs_f64() * 1e6 / f64::from(BATCH)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

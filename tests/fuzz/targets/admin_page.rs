//! Host and Origin of a change to the admin API (lines: target, host, origin): no panic, and whatever is taken names us
//! and comes from us.
#![no_main]

use std::net::IpAddr;
use std::net::Ipv4Addr;

use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Uri;
use http::header;
use libfuzzer_sys::fuzz_target;
use sigilum::admin::origin::Pages;

const HOST: &str = "gateway.example";

fuzz_target!(|data: &[u8]| {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let (target, host, origin) = (next(), next(), next());
    let Ok(uri) = Uri::try_from(target) else { return };
    let (Ok(named), Ok(page)) = (HeaderValue::from_bytes(host), HeaderValue::from_bytes(origin)) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, named);
    headers.insert(header::ORIGIN, page);
    let pages = Pages::new(None, vec![HOST.to_owned()], false, 38100);
    let taken = pages.check(&Method::POST, &uri, &headers, IpAddr::V4(Ipv4Addr::LOCALHOST));
    if taken.is_ok() {
        let (host, origin) = (host.to_ascii_lowercase(), origin.to_ascii_lowercase());
        let bare = host.strip_prefix(b"[").unwrap_or(&host);
        let ours = host.starts_with(b"localhost") || host.starts_with(HOST.as_bytes());
        assert!(ours || bare.iter().take_while(|byte| **byte != b']').all(|byte| b"0123456789abcdef:.".contains(byte)));
        assert!(origin.starts_with(b"http://"));
    }
});

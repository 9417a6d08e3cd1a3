//! What a proxy says of a user and of a client: no panic, and of a stranger nothing is believed.
#![no_main]

use std::net::IpAddr;
use std::net::Ipv4Addr;

use http::HeaderMap;
use http::HeaderValue;
use libfuzzer_sys::fuzz_target;
use sigilum::admin::proxy;
use sigilum::config::parts::ProxyRule;
use sigilum::domain::network::Network;

fuzz_target!(|said: (Vec<u8>, Vec<u8>)| {
    let proxies = Network::parse("192.0.2.0/24").into_iter().collect();
    let (user_header, required_headers, allow_users) = ("x-user".to_owned(), Vec::new(), Vec::new());
    let rule = ProxyRule { proxies, user_header, required_headers, allow_users, allow_loopback: false };
    let mut headers = HeaderMap::new();
    for (name, value) in [("x-user", &said.0), ("x-forwarded-for", &said.1)] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }
    let [near, far, ours] = [[192, 0, 2, 1], [198, 51, 100, 1], [192, 0, 2, 14]].map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
    if let Ok(user) = proxy::user(&rule, near, ours, &headers) {
        assert!(!user.is_empty() && !user.chars().any(char::is_control));
    }
    assert!(proxy::user(&rule, far, ours, &headers).is_err());
    assert_eq!(proxy::client(&rule, far, ours, &headers), far);
    let _ = proxy::client(&rule, near, ours, &headers);
});

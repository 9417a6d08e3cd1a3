//! Requests the control plane wants relayed: no panic, nothing is let through that is not on the list and nothing kept back
//! that is, and what is let through means the same to a URL parser.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::pair::allow::Allowed;

#[path = "../../../src/pair/allow_oracle.rs"]
mod oracle;

fuzz_target!(|text: &str| {
    let (method, path) = text.split_once(' ').unwrap_or(("GET", text));
    let Some(allowed) = Allowed::judge(method, path) else {
        assert!(path.len() > 512 || !oracle::is_relayed(method, path));
        return;
    };
    assert!(oracle::is_relayed(method, path));
    let uri: http::Uri = allowed.path().parse().expect("a plain path");
    assert_eq!((uri.path(), uri.query(), allowed.path()), (path, None, path));
    assert!(!path.split('/').any(|segment| matches!(segment, "." | "..")) && !path.contains("//"));
    assert!(path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte)));
});

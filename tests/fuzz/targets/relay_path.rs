//! Requests the control plane wants relayed: no panic, and what is let through means the same to a URL parser.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::pair::allow::Allowed;

fuzz_target!(|text: &str| {
    let (method, path) = text.split_once(' ').unwrap_or(("GET", text));
    if let Some(allowed) = Allowed::judge(method, path) {
        let uri: http::Uri = allowed.path().parse().expect("a plain path");
        assert_eq!((uri.path(), uri.query(), allowed.path()), (path, None, path));
        assert!(path == "/health" || path.starts_with("/api/admin/"));
        assert!(!path.split('/').any(|segment| matches!(segment, "." | "..")) && !path.contains("//"));
        assert!(path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte)));
    }
});

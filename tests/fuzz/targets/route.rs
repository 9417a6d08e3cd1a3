//! The request target (`METHOD target`, or with a third word a foreign front's connection): no panic, and what
//! is accepted has no dot segment, also after one or two decodings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::domain::route;

fn decode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..2).filter(|digits| *first == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        match digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

fn climbs(path: &[u8]) -> bool {
    path.split(|byte| matches!(byte, b'/' | b'\\'))
        .map(|segment| segment.split(|byte| *byte == b';').next().unwrap_or_default())
        .any(|segment| matches!(segment, b"." | b".."))
}

fuzz_target!(|data: &[u8]| {
    let mut words = data.splitn(3, |byte| *byte == b' ');
    let mut next = || words.next().unwrap_or_default();
    let (method, target, connection) = (next(), next(), std::str::from_utf8(next()).unwrap_or_default());
    let route = match connection {
        "" => route::parse(method, target),
        connection => route::parse_assigned(method, target, connection),
    };
    let Ok(route) = route else { return };
    assert!(!route.connection.contains('/') || route.connection == connection);
    assert!(route.remainder.is_empty() || route.remainder.starts_with('/'));
    let once = decode(route.remainder.as_bytes());
    let twice = decode(&once);
    for path in [route.remainder.as_bytes(), &once, &twice] {
        assert!(!climbs(path), "{}", String::from_utf8_lossy(path));
        assert!(!path.contains(&b'\\') && !path.contains(&0));
    }
});

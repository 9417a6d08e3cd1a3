//! When a certificate holds, read from its bytes: no panic, what follows a certificate says nothing, and what was read is
//! told so that it is read again as the same. The same bytes also stand as the two times of a certificate that is well
//! formed, so that they are reached; the two ways of writing a year agree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;
use sigilum::domain::time::UnixSeconds;
use sigilum::domain::validity::Validity;
use sigilum::sys::tls::validity;

/// One element of DER whose content is short.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match u8::try_from(content.len()) {
        Ok(length @ 0..=0x7f) => bytes.push(length),
        Ok(length) => bytes.extend([0x81, length]),
        Err(_) => {
            bytes.push(0x84);
            bytes.extend((content.len() as u32).to_be_bytes());
        }
    }
    bytes.extend(content);
    bytes
}

fn certificate(from: (u8, &[u8]), until: (u8, &[u8])) -> Vec<u8> {
    let times = element(0x30, &[element(from.0, from.1), element(until.0, until.1)].concat());
    let fields = [element(0xa0, &[2, 1, 2]), element(2, &[1]), element(0x30, &[]), element(0x30, &[]), times].concat();
    element(0x30, &element(0x30, &fields))
}

fn read(bytes: &[u8]) -> Option<Validity> {
    let found = validity::of(&CertificateDer::from(bytes))?;
    assert_eq!(Validity::parse(&found.word()), Some(found));
    for now in [0, found.from.0, found.until.0, u64::MAX] {
        let now = UnixSeconds(now);
        assert!(found.ends_soon(now) || !found.is_over(now));
        assert!(!found.said(now).is_empty());
    }
    let longer = [bytes, b"\x30\x82"].concat();
    assert_eq!(validity::of(&CertificateDer::from(longer)), Some(found));
    Some(found)
}

fuzz_target!(|data: &[u8]| {
    let _ = read(data);
    let (utc, general) = (0x17, 0x18);
    let (from, until) = data.split_at(data.len() / 2);
    for tag in [utc, general] {
        let _ = read(&certificate((tag, from), (tag, until)));
    }
    let century = if data.first().is_some_and(|digit| *digit >= b'5') { "19" } else { "20" };
    let whole = [century.as_bytes(), data].concat();
    let short = read(&certificate((utc, data), (utc, data)));
    assert!(short.is_none() || short == read(&certificate((general, &whole), (general, &whole))));
});

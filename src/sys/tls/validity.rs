//! When a certificate holds: the one field of X.509 that the libraries here read and do not tell.

use rustls::pki_types::CertificateDer;

use crate::domain::time::UnixSeconds;
use crate::domain::validity::Validity;

/// Tags of DER (X.690 section 8).
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// Two-digit years from this on are of the last century (RFC 5280 section 4.1.2.5.1).
const CENTURY: u16 = 50;

/// The first and the last second in which it holds; `None` where they cannot be read.
pub fn of(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let (_, certificate, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut fields, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    if let Some((VERSION, _, rest)) = element(fields) {
        fields = rest;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (_, validity, _) = element(fields).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (first, from, rest) = element(validity)?;
    let (second, until, _) = element(rest)?;
    Some(Validity { from: moment(first, from)?, until: moment(second, until)? })
}

/// A time as it is written there, by its tag.
fn moment(tag: u8, text: &[u8]) -> Option<UnixSeconds> {
    let text = std::str::from_utf8(text).ok()?;
    let (century, text) = match tag {
        UTC_TIME if text.get(..2)?.parse::<u16>().ok()? >= CENTURY => ("19", text),
        UTC_TIME => ("20", text),
        GENERALIZED_TIME => text.split_at_checked(2)?,
        _ => return None,
    };
    let digits = text.strip_suffix('Z').filter(|digits| digits.len() == 10 || digits.len() == 12)?;
    let part = |number: usize| digits.get(number * 2..number * 2 + 2);
    let (year, month, day) = (part(0)?, part(1)?, part(2)?);
    let (hour, minute, second) = (part(3)?, part(4)?, part(5).unwrap_or("00"));
    UnixSeconds::parse_rfc3339(&format!("{century}{year}-{month}-{day}T{hour}:{minute}:{second}Z"))
}

/// The first element: its tag, its content, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match usize::from(*first) {
        short @ 0..=0x7f => (short, rest),
        long @ 0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(long & 0x7f)?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use proptest::prelude::*;

    use super::*;

    fn until(year: i32, month: u8, day: u8) -> CertificateDer<'static> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["one.test".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(1990, 1, 2);
        params.not_after = rcgen::date_time_ymd(year, month, day);
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn both_ways_of_writing_a_time_are_read() {
        let at = |text: &str| UnixSeconds::parse_rfc3339(text).unwrap();
        for (year, wanted) in
            [(2031, "2031-02-03T00:00:00Z"), (1999, "1999-02-03T00:00:00Z"), (2150, "2150-02-03T00:00:00Z")]
        {
            let found = of(&until(year, 2, 3)).unwrap();
            assert_eq!((found.from, found.until), (at("1990-01-02T00:00:00Z"), at(wanted)));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0_usize..400, byte: u8, cut in 0_usize..400) {
            let mut whole = until(2031, 2, 3).to_vec();
            if let Some(place) = whole.get_mut(at) {
                *place = byte;
            }
            whole.truncate(cut);
            let _ = of(&CertificateDer::from(whole));
        }
    }
}

//! Traces: the context a request carries, and where spans are sent.

use crate::domain::hex;
use crate::domain::secret::Secret;

/// The context of a request that is part of a trace (W3C Trace Context, `traceparent`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// Not all zero.
    pub trace_id: [u8; 16],
    /// The span that caused this request; not all zero.
    pub parent: [u8; 8],
    /// Whether whoever asks keeps its spans of this trace.
    pub sampled: bool,
}

impl std::fmt::Debug for TraceContext {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", hex::text(&self.trace_id), hex::text(&self.parent))
    }
}

impl TraceContext {
    /// Reads `00-<32 digits>-<16 digits>-<2 digits>`, digits in lower case. A version above 00 may have more behind a
    /// further dash; 0xff is none. `None` where it is anything else, which is then as good as not there.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = text.splitn(5, |byte| *byte == b'-');
        let [version] = digits::<1>(parts.next()?)?;
        let trace_id = digits::<16>(parts.next()?)?;
        let parent = digits::<8>(parts.next()?)?;
        let [flags] = digits::<1>(parts.next()?)?;
        let more = parts.next().is_some();
        if version == 0xff || version == 0 && more || trace_id == [0; 16] || parent == [0; 8] {
            return None;
        }
        Some(Self { trace_id, parent, sampled: flags & 1 == 1 })
    }
}

/// Exactly `N` bytes, two digits each.
fn digits<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != N.saturating_mul(2) {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(byte.wrapping_sub(b'a').wrapping_add(10)),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// Where spans are sent (OTLP over gRPC).
#[derive(Debug, PartialEq, Eq)]
pub struct Collector {
    /// `http://host[:port]` or `https://host[:port]`.
    pub endpoint: String,
    /// What our spans say they are from.
    pub service_name: String,
    /// What every request to it carries: names in lower case, values as they are sent.
    pub headers: Vec<(String, Secret)>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_example_of_the_standard_is_read() {
        let context = TraceContext::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(hex::text(&context.trace_id), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!((hex::text(&context.parent).as_str(), context.sampled), ("b7ad6b7169203331", true));
    }

    #[test]
    fn only_the_last_bit_of_the_flags_says_sampled() {
        for (flags, sampled) in [("00", false), ("02", false), ("03", true), ("ff", true)] {
            let text = format!("{}{flags}", &EXAMPLE[..EXAMPLE.len() - 2]);
            assert_eq!(TraceContext::parse(text.as_bytes()).unwrap().sampled, sampled, "{flags}");
        }
    }

    #[test]
    fn a_later_version_may_say_more() {
        let later = EXAMPLE.replacen("00", "01", 1);
        assert!(TraceContext::parse(later.as_bytes()).is_some());
        assert!(TraceContext::parse(format!("{later}-more-of-it").as_bytes()).is_some());
        assert!(TraceContext::parse(format!("{EXAMPLE}-more").as_bytes()).is_none());
        assert!(TraceContext::parse(format!("{later}x").as_bytes()).is_none());
    }

    #[test]
    fn what_is_no_context_is_none() {
        for text in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_can_be_written_again(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(context) = TraceContext::parse(&bytes) {
                let text = std::str::from_utf8(&bytes).unwrap();
                let ids = format!("-{}-{}-", hex::text(&context.trace_id), hex::text(&context.parent));
                prop_assert_eq!(&text[2..53], ids);
            }
        }

        #[test]
        fn every_context_is_read(trace in any::<[u8; 16]>(), parent in any::<[u8; 8]>(), flags in any::<u8>()) {
            prop_assume!(trace != [0; 16] && parent != [0; 8]);
            let text = format!("00-{}-{}-{flags:02x}", hex::text(&trace), hex::text(&parent));
            let wanted = TraceContext { trace_id: trace, parent, sampled: flags & 1 == 1 };
            prop_assert_eq!(TraceContext::parse(text.as_bytes()), Some(wanted));
        }
    }
}

//! The upstream `:path` of a request: pieces are joined, nothing is normalised.

use zeroize::Zeroizing;

use crate::domain::connection::Credential;
use crate::domain::route;

/// Base path, prefix and remainder in a row, then the query as sent; for a query credential every parameter of its
/// name is taken out first and the credential's pair put at the end.
pub fn join(
    base: &str,
    prefix: &str,
    remainder: &str,
    query: Option<&str>,
    credential: &Credential,
) -> Zeroizing<Vec<u8>> {
    let pair = match credential {
        Credential::Header { .. } => None,
        Credential::Query { name, pair } => Some((name, pair.expose())),
    };
    // All of it at once: a vector that grows leaves copies of the secret behind.
    let pieces = [base.len(), prefix.len(), remainder.len(), query.map_or(0, str::len)];
    let secret = pair.map_or(0, |(_, pair)| pair.len());
    // A slash for an empty path, the question mark, a separator.
    let capacity = pieces.into_iter().fold(secret.saturating_add(3), usize::saturating_add);
    let mut path = Zeroizing::new(Vec::with_capacity(capacity));
    for piece in [base, prefix, remainder] {
        path.extend_from_slice(piece.as_bytes());
    }
    if path.is_empty() {
        path.push(b'/');
    }
    match (pair, query) {
        (None, None) => {}
        (None, Some(query)) => {
            path.push(b'?');
            path.extend_from_slice(query.as_bytes());
        }
        (Some((name, pair)), query) => {
            path.push(b'?');
            let before = path.len();
            copy_without(&mut path, query.unwrap_or_default().as_bytes(), name.as_bytes());
            if path.len() > before {
                path.push(b'&');
            }
            path.extend_from_slice(pair.as_bytes());
        }
    }
    path
}

/// Copies a query, leaving out the parameters called `name`. Providers split at `&`, some also at `;`:
/// both count. What stays keeps its bytes and the separator in front of it.
fn copy_without(out: &mut Vec<u8>, query: &[u8], name: &[u8]) {
    let mut rest = query;
    let mut separator = None;
    let mut first = true;
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b'&' | b';')).unwrap_or(rest.len());
        let (parameter, tail) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        if !is_called(parameter, name) {
            if let Some(separator) = separator.filter(|_| !first) {
                out.push(separator);
            }
            out.extend_from_slice(parameter);
            first = false;
        }
        match tail.split_first() {
            Some((&found, after)) => {
                separator = Some(found);
                rest = after;
            }
            None => return,
        }
    }
}

/// Whether the decoded name of `parameter` is `name`, with `+` read as a blank (as forms do) or as itself.
fn is_called(parameter: &[u8], name: &[u8]) -> bool {
    let encoded = parameter.split(|byte| *byte == b'=').next().unwrap_or(parameter);
    // A decoded name is never longer than an encoded one, and never shorter than a third of it.
    if encoded.len() < name.len() || encoded.len() > name.len().saturating_mul(3) {
        return false;
    }
    let mut decoded = Vec::with_capacity(encoded.len());
    route::decode(encoded, &mut decoded);
    if decoded == name {
        return true;
    }
    let spaced: Vec<u8> = encoded.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    route::decode(&spaced, &mut decoded);
    decoded == name
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use proptest::prelude::*;

    use super::*;

    /// Names a provider would see, splitting at each of `separators` and decoding as forms do.
    fn names(query: &str, separators: &[char]) -> Vec<Vec<u8>> {
        let name = |parameter: &str| {
            let mut out = Vec::new();
            route::decode(parameter.split('=').next().unwrap().replace('+', " ").as_bytes(), &mut out);
            out
        };
        query.split(separators).map(name).collect()
    }

    proptest! {
        #[test]
        fn no_parameter_of_that_name_is_left(query in "[k%6Bb&;=+ey]{0,24}") {
            let mut out = Vec::new();
            copy_without(&mut out, query.as_bytes(), b"key");
            let left = String::from_utf8(out).unwrap();
            for separators in [&['&'][..], &[';'], &['&', ';']] {
                prop_assert!(!names(&left, separators).contains(&b"key".to_vec()), "{query} leaves {left}");
            }
            // Whatever has another name is still there, in its order.
            let others = |query: &str| -> Vec<String> {
                query.split(['&', ';']).filter(|parameter| !is_called(parameter.as_bytes(), b"key")).map(str::to_owned).collect()
            };
            if !others(&query).is_empty() {
                prop_assert_eq!(others(&left), others(&query));
            }
        }
    }
}

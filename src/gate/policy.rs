//! Step 9: what a connection allows, and whether its secret is still fit to be used.

use crate::domain::connection::Connection;
use crate::domain::connection::Credential;
use crate::domain::connection::Protocol;
use crate::domain::connection::SECRETS_LOST;
use crate::domain::decision::DenyReason;
use crate::domain::request::BodyView;
use crate::domain::request::RequestView;
use crate::domain::request::read_as;
use crate::domain::route::Route;
use crate::domain::signature::ComponentSet;
use crate::domain::snapshot::Rotation;
use crate::domain::snapshot::Settings;
use crate::domain::time::Now;
use crate::domain::time::UnixSeconds;

const SECONDS_PER_DAY: u64 = 86_400;

/// By these headers frameworks take a request for one of another method than it has.
const METHOD_OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// Proof that a connection may be used for a request; made by [`check`] only.
#[derive(Debug)]
pub(super) struct Allowed<'a> {
    credential: &'a Credential,
    rotation_overdue: Option<UnixSeconds>,
}

impl<'a> Allowed<'a> {
    /// What is to be injected.
    pub(super) const fn credential(&self) -> &'a Credential {
        self.credential
    }

    /// When the secret should have been replaced, where that is overdue and the policy warns.
    pub(super) const fn rotation_overdue(&self) -> Option<UnixSeconds> {
        self.rotation_overdue
    }

    #[cfg(test)]
    pub(super) fn unjudged(connection: &'a Connection) -> Self {
        match &connection.credential {
            Ok(credential) => Self { credential, rotation_overdue: None },
            Err(error) => unreachable!("{error}"),
        }
    }
}

/// Judges in the order active and usable, method, path and upgrade, rotation, tools.
///
/// # Errors
/// `ConnectionDisabled`, `ConnectionUnusable`, `SecretsLost`, `MethodOrPathForbidden`, `RotationRequired`, `ProtocolMismatch`.
pub(super) fn check<'a, R: RequestView>(
    connection: &'a Connection,
    request: &R,
    route: &Route<'_>,
    components: ComponentSet,
    settings: &Settings,
    now: Now,
) -> Result<Allowed<'a>, DenyReason> {
    let written = &connection.settings;
    if !written.active {
        return Err(DenyReason::ConnectionDisabled);
    }
    let credential = connection.credential.as_ref().map_err(|reason| match reason.as_str() {
        SECRETS_LOST => DenyReason::SecretsLost,
        _ => DenyReason::ConnectionUnusable,
    })?;
    if !method_allowed(&written.allowed_methods, request) || !path_allowed(&written.allowed_paths, route.remainder) {
        return Err(DenyReason::MethodOrPathForbidden);
    }
    check_upgrade(&written.upgrades, request, components)?;
    let rotation_overdue = rotation_overdue(written.next_rotation_due_at, settings, now);
    if settings.rotation == Rotation::Block && rotation_overdue.is_some() {
        return Err(DenyReason::RotationRequired);
    }
    match written.protocol {
        Protocol::Http => Ok(Allowed { credential, rotation_overdue }),
        // Its tools have a path and a policy of their own; forwarding would go around them.
        Protocol::Mcp => Err(DenyReason::ProtocolMismatch),
    }
}

/// Whether the method is allowed, and whatever a header asks the provider to take it for. That no signature
/// covers such a header matters only here: where every method is allowed, it allows nothing more.
fn method_allowed<R: RequestView>(allowed: &[String], request: &R) -> bool {
    let is_override = |name: &str| {
        let name = read_as(name);
        METHOD_OVERRIDES.iter().any(|header| name.eq_ignore_ascii_case(header))
    };
    allowed.is_empty()
        || allowed.iter().any(|method| method.as_bytes() == request.method())
            && request.headers().filter(|(name, _)| is_override(name)).all(|(_, value)| {
                allowed.iter().any(|method| method.as_bytes().eq_ignore_ascii_case(value.trim_ascii()))
            })
}

/// Whether the remainder, as sent, lies at or below one of the prefixes.
///
/// A provider that decodes the path sees nothing else: no escape reaches across the slash that ends a
/// prefix, so what begins with the prefix begins with the decoded prefix when decoded, and the
/// route has refused every dot segment that decoding could bring up.
fn path_allowed(allowed: &[String], remainder: &str) -> bool {
    let remainder = if remainder.is_empty() { "/" } else { remainder };
    allowed.is_empty() || allowed.iter().any(|prefix| is_below(remainder.as_bytes(), prefix.as_bytes()))
}

/// Whether `path` is `prefix` or continues it at a segment's end.
fn is_below(path: &[u8], prefix: &[u8]) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || prefix.ends_with(b"/") || rest.starts_with(b"/"),
        None => false,
    }
}

/// An upgrade turns the connection into a tunnel whose content nobody checks: only where the connection
/// lists the protocol, and only on a GET that neither has nor signs a body, nor speaks of the digest of
/// one. Any `Upgrade` header counts, whatever `Connection` says of it.
fn check_upgrade<R: RequestView>(upgrades: &[String], request: &R, components: ComponentSet) -> Result<(), DenyReason> {
    let mut asked = request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("upgrade")).map(|(_, value)| value);
    let Some(protocol) = asked.next() else { return Ok(()) };
    let listed = upgrades.iter().any(|listed| listed.as_bytes().eq_ignore_ascii_case(protocol.trim_ascii()));
    let digest = request.headers().any(|(name, _)| name.eq_ignore_ascii_case("content-digest"));
    let bodiless = request.body() == BodyView::Whole(b"") && !components.covers_digest() && !digest;
    if asked.next().is_none() && listed && bodiless && request.method() == b"GET" {
        Ok(())
    } else {
        Err(DenyReason::MethodOrPathForbidden)
    }
}

/// The due time, where it and the days of grace have passed and the policy cares.
fn rotation_overdue(due: Option<UnixSeconds>, settings: &Settings, now: Now) -> Option<UnixSeconds> {
    let grace = u64::from(settings.rotation_grace_days).saturating_mul(SECONDS_PER_DAY);
    let overdue = due.filter(|due| now.seconds().0 > due.0.saturating_add(grace));
    match settings.rotation {
        Rotation::Off => None,
        Rotation::Warn | Rotation::Block => overdue,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use proptest::prelude::*;

    use super::*;
    use crate::domain::route;
    use crate::domain::time::MonotonicMillis;
    use crate::domain::time::UnixMillis;

    fn allowed(prefixes: &[&str], remainder: &str) -> bool {
        path_allowed(&prefixes.iter().map(|prefix| (*prefix).to_owned()).collect::<Vec<_>>(), remainder)
    }

    #[test]
    fn a_prefix_ends_with_a_segment() {
        for inside in ["/v1", "/v1/", "/v1/x", "/v1//x", "/v1/a%2Fb", "/v1/%C3%A9", "/v1/%25"] {
            assert!(allowed(&["/v1"], inside), "{inside}");
            assert!(allowed(&["/other", "/v1"], inside), "{inside}");
        }
        for outside in [
            "", "/", "/v", "/v10", "/v1x/y", "/v1;x", "/v1;/x", "/v1%2Fx", "/v1%3Fx", "/V1/x", "//v1/x", "/%761/x",
            "/v1%00",
        ] {
            assert!(!allowed(&["/v1"], outside), "{outside}");
        }
        assert!(allowed(&["/v1/"], "/v1/x") && !allowed(&["/v1/"], "/v1"));
        assert!(allowed(&["/"], "/anything") && allowed(&["/"], ""));
        assert!(allowed(&[], "/anything"));
    }

    #[test]
    fn an_encoded_prefix_is_compared_reading_by_reading() {
        assert!(allowed(&["/a%2Fb"], "/a%2Fb/c"));
        assert!(!allowed(&["/a%2Fb"], "/a/b/c"));
        assert!(!allowed(&["/a/b"], "/a%2Fb/c"));
    }

    #[test]
    fn a_secret_is_overdue_when_due_time_and_grace_have_passed() {
        let now = |seconds: u64| Now { wall: UnixMillis(seconds * 1000), monotonic: MonotonicMillis(0) };
        let with = |rotation| Settings { rotation, rotation_grace_days: 2, ..Settings::default() };
        let due = Some(UnixSeconds(1000));
        let end = 1000 + 2 * SECONDS_PER_DAY;
        for rotation in [Rotation::Warn, Rotation::Block] {
            assert_eq!(rotation_overdue(due, &with(rotation), now(end)), None);
            assert_eq!(rotation_overdue(due, &with(rotation), now(end + 1)), due);
            assert_eq!(rotation_overdue(None, &with(rotation), now(end + 1)), None);
        }
        assert_eq!(rotation_overdue(due, &with(Rotation::Off), now(end + 1)), None);
    }

    fn decoded(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        route::decode(text, &mut out);
        out
    }

    proptest! {
        /// However often the provider decodes, what was allowed stays below the prefix.
        #[test]
        fn no_reading_leaves_the_prefix(prefix in "/[a%2fF5e]{0,8}/?", rest in "[/a%2fF5e.;]{0,24}") {
            let path = format!("{prefix}{rest}");
            let target = format!("/proxy/demo{path}");
            let routed = route::parse(b"GET", target.as_bytes());
            if let (Ok(_), true) = (routed, allowed(&[&prefix], &path)) {
                let (mut reading, mut prefix) = (path.into_bytes(), prefix.into_bytes());
                for _ in 0..3 {
                    prop_assert!(is_below(&reading, &prefix), "{:?}", String::from_utf8_lossy(&reading));
                    prop_assert!(!reading.split(|byte| *byte == b'/').any(|segment| segment == b".."));
                    reading = decoded(&reading);
                    prefix = decoded(&prefix);
                }
            }
        }
    }
}

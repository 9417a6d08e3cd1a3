//! Profiles: several gateways of one user, told apart by a name. A profile only changes defaults: folders, ports, and the
//! names of units.

use crate::config::keys;
use crate::config::load::Flags;

/// The variable that names the profile.
pub const VARIABLE: &str = "SIGILUM_PROFILE";
/// The name of no profile.
pub const DEFAULT: &str = "default";
/// The profile of `--dev`.
pub const DEV: &str = "dev";
/// Longest name, in bytes.
pub const MAX_NAME: usize = 32;
/// The last place in the row of profiles: its ports are the last that exist.
pub const LAST_PLACE: u16 = 91;
/// Ports between the listeners of two neighbours.
const STEP: u16 = 300;
/// Places whose ports would be those of [`DEV`].
const DEV_PLACES: [u16; 2] = [3, 4];
/// Where the control plane of [`DEV`] is.
const DEV_API: &str = "http://127.0.0.1:8787";

/// A profile by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Profile(String);

impl Profile {
    /// Reads a name; `None` is the default one, which is no profile. A name that begins like the units of the bridge would
    /// be taken for one of those.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let name = text.trim();
        if name == DEFAULT {
            return Ok(None);
        }
        let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        let edges = !name.starts_with('-') && !name.ends_with('-');
        if name.is_empty() || name.len() > MAX_NAME || !plain || !edges {
            return Err(format!("must be 1 to {MAX_NAME} of a-z, 0-9 and '-', with no '-' at either end"));
        }
        if name == "pair" || name.starts_with("pair-") {
            return Err("must not begin with `pair`: units of the bridge are called so".to_owned());
        }
        Ok(Some(Self(name.to_owned())))
    }

    /// The one the environment names. What is no name says nothing here: [`crate::config::load()`] refuses it.
    pub fn of(env: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        Self::parse(&env(VARIABLE)?).ok().flatten()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Whether it is the one of `--dev`.
    pub fn is_dev(&self) -> bool {
        self.0 == DEV
    }

    /// What its folders, files and units end with.
    pub fn suffix(&self) -> String {
        format!("-{}", self.0)
    }
}

/// What folders, files and units of the environment's profile end with; empty without one.
pub fn suffix(env: &dyn Fn(&str) -> Option<String>) -> String {
    Profile::of(env).map(|profile| profile.suffix()).unwrap_or_default()
}

/// How our commands are typed for the gateway of the environment's profile: `sigilum`, with the profile where there is one.
pub fn typed(env: &dyn Fn(&str) -> Option<String>) -> String {
    match Profile::of(env) {
        Some(profile) if profile.is_dev() => "sigilum --dev".to_owned(),
        Some(profile) => format!("sigilum --profile {}", profile.name()),
        None => "sigilum".to_owned(),
    }
}

/// Ports where nobody names others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Where agents connect.
    pub ingress: u16,
    /// The admin API.
    pub admin: u16,
    /// The read-only face of Envoy's admin interface.
    pub envoy_admin: u16,
    /// The local control plane.
    pub api: u16,
    /// The demo's native service.
    pub native: u16,
    /// The demo upstream.
    pub upstream: u16,
}

impl Ports {
    /// Without a profile.
    pub const DEFAULT: Self = Self::at(0);
    /// Those of [`DEV`].
    pub const DEV: Self =
        Self { ingress: 39000, admin: 39100, envoy_admin: 39200, api: 8787, native: 39010, upstream: 39020 };

    /// Those of a place in the row of profiles; the last place stands for all behind it.
    pub const fn at(place: u16) -> Self {
        let place = if place > LAST_PLACE { LAST_PLACE } else { place };
        let base = 38_000 + STEP * place;
        Self {
            ingress: base,
            admin: base + 100,
            envoy_admin: base + 200,
            api: 8787 + place,
            native: 11_000 + place,
            upstream: 11_100 + place,
        }
    }

    /// Makes them, and what else the profile changes, the defaults.
    pub fn stand_in(&self, profile: &Profile, flags: &mut Flags) {
        let listeners = [
            (&keys::INGRESS_ADDR, self.ingress),
            (&keys::ADMIN_ADDR, self.admin),
            (&keys::ENVOY_ADMIN_ADDR, self.envoy_admin),
        ];
        for (key, port) in listeners {
            flags.set_default(key, format!(":{port}"));
        }
        flags.set_default(&keys::NATIVE_PORT, self.native.to_string());
        flags.set_default(&keys::UPSTREAM_PORT, self.upstream.to_string());
        if profile.is_dev() {
            flags.set_default(&keys::NAMESPACE, DEV);
            flags.set_default(&keys::API_URL, DEV_API);
        }
    }
}

/// The first place in the row that nobody has; `None`: all are taken.
pub fn free_place(taken: &[u16]) -> Option<u16> {
    (1..=LAST_PLACE).find(|place| !taken.contains(place) && !DEV_PLACES.contains(place))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for name in ["a", "0", "prod-2", "dev", "a-name-of-thirty-two-characters0"] {
            assert_eq!(Profile::parse(name).unwrap().unwrap().name(), name);
        }
        assert_eq!(Profile::parse("default"), Ok(None));
        for name in [
            "",
            " ",
            "-a",
            "a-",
            "A",
            "a_b",
            "a/b",
            "..",
            "ä",
            "pair",
            "pair-x",
            "a-very-long-name-of-32-characters-and",
        ] {
            assert!(Profile::parse(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn no_two_profiles_have_a_port_in_common() {
        let all =
            |ports: Ports| [ports.ingress, ports.admin, ports.envoy_admin, ports.native, ports.upstream, ports.api];
        let (mut places, mut seen) = (Vec::new(), HashSet::new());
        // That of the control plane is shared: `--dev` is the first thing somebody tries, and its port is documented.
        seen.extend(&all(Ports::DEV)[..5]);
        assert!(all(Ports::DEFAULT).into_iter().all(|port| seen.insert(port)));
        while let Some(place) = free_place(&places) {
            assert!(all(Ports::at(place)).into_iter().all(|port| seen.insert(port)), "{place}");
            places.push(place);
        }
        assert_eq!(places.len(), 89);
        assert_eq!(Ports::at(LAST_PLACE).envoy_admin, 65_500);
    }

    #[test]
    fn the_first_profile_is_three_hundred_ports_further() {
        let ports = Ports::at(free_place(&[]).unwrap());
        assert_eq!((ports.ingress, ports.admin, ports.envoy_admin), (38_300, 38_400, 38_500));
    }
}

//! What differs between two configurations, by name, and what each difference takes.

use std::collections::BTreeMap;
use std::fmt::Debug;

use crate::config::key::Key;
use crate::config::key::Reload;
use crate::config::parts::Config;
use crate::config::structure::reload_of;

/// The settings a configuration was made of as they were understood, for comparing: no matter how a value was written,
/// and where. None of them is a secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values(BTreeMap<&'static str, String>);

impl Values {
    /// Notes what a setting was read as.
    pub(super) fn note(&mut self, key: &Key, value: &impl Debug) {
        if let Some(name) = key.yaml {
            self.0.insert(name, format!("{value:?}"));
        }
    }
}

impl Values {
    /// Puts those of `before` in the place of these, for the settings of these names.
    pub fn keep<'a>(&mut self, before: &Self, names: impl Iterator<Item = &'a str>) {
        for name in names {
            let value = before.0.get_key_value(name).map(|(name, value)| (*name, value.clone()));
            match value {
                Some((name, value)) => drop(self.0.insert(name, value)),
                None => drop(self.0.remove(name)),
            }
        }
    }
}

/// Something that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// Dotted name: of a setting, or `connections.ID`, `variables.KEY`, `approvals`, `secrets.providers.NAME`.
    pub path: String,
    /// What the change takes.
    pub reload: Reload,
}

/// Everything that differs, by name. Where in the file something stands, and what is written around it, does not count.
pub fn differences(old: &Config, new: &Config) -> Vec<Difference> {
    let mut paths: Vec<String> = Vec::new();
    let settings = differing(&old.values.0, &new.values.0, |one, other| one == other);
    paths.extend(settings.into_iter().map(|name| (*name).to_owned()));
    let by_id = |config: &Config| -> BTreeMap<String, usize> {
        let ids = config.connections.iter().enumerate();
        ids.map(|(index, connection)| (connection.id().as_str().to_owned(), index)).collect()
    };
    let same = |one: &usize, other: &usize| match (old.connections.get(*one), new.connections.get(*other)) {
        (Some(one), Some(other)) => one.checked == other.checked && one.secrets == other.secrets,
        _ => false,
    };
    let (before, after) = (by_id(old), by_id(new));
    paths.extend(differing(&before, &after, same).into_iter().map(|id| format!("connections.{id}")));
    let by_key = |config: &Config| -> BTreeMap<String, usize> {
        config.variables.iter().enumerate().map(|(index, variable)| (variable.key.clone(), index)).collect()
    };
    let same = |one: &usize, other: &usize| match (old.variables.get(*one), new.variables.get(*other)) {
        (Some(one), Some(other)) => one.source == other.source,
        _ => false,
    };
    let (before, after) = (by_key(old), by_key(new));
    paths.extend(differing(&before, &after, same).into_iter().map(|key| format!("variables.{key}")));
    let providers = differing(&old.secrets.providers, &new.secrets.providers, |one, other| one == other);
    paths.extend(providers.into_iter().map(|name| format!("secrets.providers.{name}")));
    if !same_approvals(old, new) {
        paths.push("approvals".to_owned());
    }
    paths.into_iter().map(|path| Difference { reload: reload_of(&path), path }).collect()
}

/// Names of what is in one only, or not the same in both.
fn differing<'a, K: Ord, V>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
    same: impl Fn(&V, &V) -> bool,
) -> Vec<&'a K> {
    let changed = new.iter().filter(|(name, value)| old.get(name).is_none_or(|before| !same(before, value)));
    let gone = old.keys().filter(|name| !new.contains_key(name));
    let mut names: Vec<_> = changed.map(|(name, _)| name).chain(gone).collect();
    names.sort();
    names
}

/// Their order does not count.
fn same_approvals(old: &Config, new: &Config) -> bool {
    if old.approvals == new.approvals {
        return true;
    }
    let sorted = |config: &Config| {
        let mut texts: Vec<_> = config.approvals.iter().map(|approval| format!("{approval:?}")).collect();
        texts.sort_unstable();
        texts
    };
    old.approvals.len() == new.approvals.len() && sorted(old) == sorted(new)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use std::path::Path;

    use super::*;
    use crate::config::Flags;
    use crate::config::Sources;
    use crate::config::keys;
    use crate::config::load;

    fn config(text: &str) -> Config {
        let sources = Sources { flags: &Flags::default(), env: &|_| None, saved: &|_| None };
        load(sources, Some((Path::new("gateway.yaml"), text))).unwrap()
    }

    fn between(old: &str, new: &str) -> Vec<(String, &'static str)> {
        let found = differences(&config(old), &config(new));
        found.into_iter().map(|difference| (difference.path, difference.reload.name())).collect()
    }

    const ONE: &str = "connections: [{id: one, base_url: 'https://api.example.com', secrets: {key: $ONE}}]\n";

    #[test]
    fn what_is_written_otherwise_and_means_the_same_is_no_difference() {
        for (old, new) in [
            ("", "# nothing\n"),
            ("", "logging: {level: info}\nreload: {mode: hybrid}\n"),
            ("gateway: {allow_private: true}", "gateway:\n  allow_private: yes\n"),
            ("gateway: {authorities: 'a.example,b.example'}", "gateway: {authorities: [a.example, b.example]}"),
            (ONE, &format!("# moved\n\n\n{ONE}")),
            ("secrets: {max_stale_seconds: 0}", ""),
        ] {
            assert_eq!(between(old, new), [], "{old:?} {new:?}");
        }
    }

    #[test]
    fn each_difference_has_its_name_and_what_it_takes() {
        let two = "connections: [{id: two, base_url: 'https://api.example.com', secrets: {key: $TWO}}]\n";
        let other = "connections: [{id: one, base_url: 'https://api.example.com', secrets: {key: $OTHER}}]\n";
        for (old, new, expected) in [
            ("", "logging: {level: debug}", vec![("logging.level", "hot")]),
            ("", "gateway: {addr: ':39100'}", vec![("gateway.addr", "restart")]),
            ("", "gateway: {ingress_addr: ':39000'}", vec![("gateway.ingress_addr", "hot-envoy")]),
            (ONE, "", vec![("connections.one", "hot")]),
            (ONE, two, vec![("connections.one", "hot"), ("connections.two", "hot")]),
            (ONE, other, vec![("connections.one", "hot")]),
            ("variables: {KEY: $A}", "variables: {KEY: $B}", vec![("variables.KEY", "hot")]),
            (
                "",
                "secrets: {providers: {keys: {source: file, path: /run/keys}}}",
                vec![("secrets.providers.keys", "hot")],
            ),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(path, takes)| (path.to_owned(), takes)).collect();
            assert_eq!(between(old, new), expected, "{old:?} {new:?}");
        }
    }

    #[test]
    fn every_setting_of_the_file_is_compared() {
        // What has no value where nobody sets it is compared once somebody does.
        let computed = ["gateway.namespace", "envoy.bin", "admin.allowed_origins"];
        let values = config("").values;
        let missing: Vec<_> =
            keys::ALL.iter().filter_map(|key| key.yaml).filter(|name| !values.0.contains_key(name)).collect();
        assert_eq!(missing, computed);
    }
}

//! What differs between two configurations, by name, and what each difference takes: hot, a new configuration of Envoy, a
//! restart.
//!
//! Two configurations are compared by what they mean, not by how they are written: `yes` and `true` are the same, and so
//! is a key of the file that an option overrules before and after.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Debug;

use serde_json::Map;
use serde_json::Value;

use crate::config::encode;
use crate::config::key::Key;
use crate::config::key::Reload;
use crate::config::keys;
use crate::config::parts::Config;
use crate::config::parts::DeclaredConnection;
use crate::config::parts::ProviderConfig;
use crate::config::parts::SecretSource;
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

    /// The address of the Sigilum API means more where somebody set it than where nobody did.
    #[must_use]
    pub(super) fn with_address(mut self, set: bool) -> Self {
        let address = keys::API_URL.yaml.and_then(|name| self.0.get_mut(name));
        if let Some(address) = address.filter(|_| set) {
            address.push_str(" as set");
        }
        self
    }

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

/// Something that is not the same in both. Holds no value, so nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// Dotted name: of a setting, or `connections.ID`, `variables.KEY`, `approvals`, `workloads`,
    /// `secrets.providers.NAME`.
    pub path: String,
    /// What the change takes.
    pub reload: Reload,
    /// Of a connection or provider that changed: which members.
    pub members: Vec<String>,
}

/// Everything that differs, settings first, each kind in alphabetical order.
pub fn differences(old: &Config, new: &Config) -> Vec<Difference> {
    let mut changes = Vec::new();
    for (name, before, after) in pairs(&old.values.0, &new.values.0) {
        differs(String::from(*name), before, after, &mut changes);
    }
    for (name, before, after) in pairs(&old.secrets.providers, &new.secrets.providers) {
        let change = differs(format!("secrets.providers.{name}"), before, after, &mut changes);
        if let (Some(change), Some(before), Some(after)) = (change, before, after) {
            change.members = differing(&encode::provider(before), &encode::provider(after));
            // Its variables are masked there, so that two of them look the same.
            change.note("env", variables_of(before) != variables_of(after));
        }
    }
    for (key, before, after) in pairs(&variables(old), &variables(new)) {
        differs(format!("variables.{key}"), before, after, &mut changes);
    }
    for (id, before, after) in pairs(&connections(old), &connections(new)) {
        let (was, is) = (before.map(|declared| declared.content()), after.map(|declared| declared.content()));
        let change = differs(format!("connections.{id}"), was, is, &mut changes);
        if let (Some(change), Some(before), Some(after)) = (change, before, after) {
            change.members = differing(&encode::connection(before), &encode::connection(after));
            // So are literals.
            change.note("secrets", before.secrets != after.secrets);
        }
    }
    differs("workloads".to_owned(), Some(&old.workloads), Some(&new.workloads), &mut changes);
    if !same_approvals(old, new) {
        differs("approvals".to_owned(), Some(false), Some(true), &mut changes);
    }
    changes
}

impl Difference {
    /// What differs, for people: of a connection or provider that changed each member, else the name alone.
    pub fn names(&self) -> Vec<String> {
        if self.members.is_empty() {
            return vec![self.path.clone()];
        }
        self.members.iter().map(|member| format!("{}.{member}", self.path)).collect()
    }

    /// Notes a member that differs.
    fn note(&mut self, member: &str, differs: bool) {
        if differs && !self.members.iter().any(|known| known == member) {
            self.members.push(member.to_owned());
        }
    }
}

/// Every name of either, with what it is in both.
fn pairs<'a, K: Ord, T>(
    old: &'a BTreeMap<K, T>,
    new: &'a BTreeMap<K, T>,
) -> impl Iterator<Item = (&'a K, Option<&'a T>, Option<&'a T>)> {
    let names: BTreeSet<&K> = old.keys().chain(new.keys()).collect();
    names.into_iter().map(|name| (name, old.get(name), new.get(name)))
}

/// Notes what differs, and returns the note.
fn differs<T: PartialEq>(
    path: String,
    old: Option<T>,
    new: Option<T>,
    changes: &mut Vec<Difference>,
) -> Option<&mut Difference> {
    if old == new {
        return None;
    }
    let reload = reload_of(&path);
    changes.push(Difference { path, reload, members: Vec::new() });
    changes.last_mut()
}

/// Names of members that are not the same in both.
fn differing(old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<String> {
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    new.keys().chain(gone).filter(|name| old.get(*name) != new.get(*name)).cloned().collect()
}

fn variables(config: &Config) -> BTreeMap<&str, &SecretSource> {
    config.variables.iter().map(|variable| (variable.key.as_str(), &variable.source)).collect()
}

fn connections(config: &Config) -> BTreeMap<&str, &DeclaredConnection> {
    config.connections.iter().map(|declared| (declared.id().as_str(), declared)).collect()
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

fn variables_of(provider: &ProviderConfig) -> Option<&BTreeMap<String, String>> {
    match provider {
        ProviderConfig::Exec(exec) => Some(&exec.env),
        ProviderConfig::Env { .. } | ProviderConfig::File { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use std::path::Path;

    use super::*;
    use crate::config::Flags;
    use crate::config::Machine;
    use crate::config::Sources;
    use crate::config::keys::Fallback;
    use crate::config::load;

    fn config(text: &str) -> Config {
        let sources =
            Sources { flags: &Flags::default(), env: &|_| None, saved: &|_| None, machine: &Machine::default };
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
        let values = config("").values;
        for key in keys::ALL.iter().filter(|key| matches!(key.fallback, Fallback::Text(_))) {
            assert!(key.yaml.is_none_or(|name| values.0.contains_key(name)), "{}", key.name());
        }
    }
}

//! Connections that could not inject what a declared set would give them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::domain::connection::ConnectionSettings;
use crate::domain::connection::Credential;
use crate::domain::secret::Secret;
use crate::domain::time::UnixMillis;
use crate::store::StoreError;
use crate::store::declared::HeldVariable;
use crate::store::declared::HeldVariables;
use crate::store::declared::Resolved;
use crate::store::declared::ResolvedSecret;
use crate::store::declared::leading_to;
use crate::store::variables::Variables;
use crate::store::vault::Vault;

/// A connection that cannot inject the value of a credential variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// Its id.
    pub connection: String,
    /// Whether the set declares it.
    pub declared: bool,
    /// The secret of it that refers to the variable.
    pub secret: String,
    /// The variable it refers to.
    pub variable: String,
    /// Why not, without any part of the value.
    pub reason: String,
}

impl Vault {
    /// What is wrong with a set before it is declared: its active connections that inject a variable, and the stored
    /// connections that inject one that differs from what is in force, as the admin API judges a variable that is set. A
    /// variable without a value is no business of this.
    pub fn unfit(&self, set: &Resolved) -> Result<Vec<Unfit>, StoreError> {
        let held = set.variables.iter().map(|variable| {
            let (value, place, never) = (variable.value.clone(), variable.place.clone(), UnixMillis(0));
            (variable.key.clone(), HeldVariable { value, place, created_at: never, updated_at: never })
        });
        let held: HeldVariables = held.collect();
        let mut values = Values { variables: Variables::new(self, &held), known: BTreeMap::new() };
        let mut unfit = Vec::new();
        for connection in set.connections.iter().filter(|connection| connection.draft.settings.active) {
            let chosen = connection.draft.auth_secret_key.as_ref();
            let chosen = chosen.and_then(|name| Some((name, connection.secrets.get(name)?)));
            let Some((name, ResolvedSecret::Variable(key))) = chosen else { continue };
            unfit.extend(values.judge(&connection.draft.settings, name, key, true));
        }
        let touched = leading_to(&held, self.differing(&held));
        let declared: BTreeSet<&str> = set.connections.iter().map(|found| found.draft.settings.id.as_str()).collect();
        for (record, key) in self.injecting(&touched)? {
            if let Some(name) = &record.auth_secret_key
                && !declared.contains(record.settings.id.as_str())
            {
                unfit.extend(values.judge(&record.settings, name, &key, false));
            }
        }
        Ok(unfit)
    }

    /// Keys of declared variables that are not what they are in force, or are so on one side alone.
    fn differing(&self, next: &HeldVariables) -> BTreeSet<String> {
        let now = &self.declared.variables;
        let keys: BTreeSet<&String> = now.keys().chain(next.keys()).collect();
        let value = |held: &'_ HeldVariables, key: &String| held.get(key).map(|held| held.value.clone());
        keys.into_iter().filter(|key| value(now, key) != value(next, key)).cloned().collect()
    }
}

/// Values of variables, each looked up once.
struct Values<'a> {
    variables: Variables<'a>,
    known: BTreeMap<String, Option<Secret>>,
}

impl Values<'_> {
    fn judge(&mut self, settings: &ConnectionSettings, secret: &str, key: &str, declared: bool) -> Option<Unfit> {
        let Self { variables, known } = self;
        let value = known.entry(key.to_owned()).or_insert_with(|| variables.value(key).ok());
        let invalid = Credential::build(settings, value.as_ref()?).err()?;
        Some(Unfit {
            connection: settings.id.as_str().to_owned(),
            declared,
            secret: secret.to_owned(),
            variable: key.to_owned(),
            reason: invalid.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use std::sync::Arc;

    use super::*;
    use crate::domain::address::AddressPolicy;
    use crate::domain::audit::Asker;
    use crate::domain::audit::Via;
    use crate::domain::draft::CheckedDraft;
    use crate::domain::draft::Draft;
    use crate::domain::record::Secrets;
    use crate::store::declared::Place;
    use crate::store::declared::ResolvedConnection;
    use crate::store::declared::ResolvedVariable;
    use crate::store::worker::DATABASE_FILE;

    const NOW: UnixMillis = UnixMillis(1000);

    fn draft(id: &str) -> CheckedDraft {
        let draft = Draft {
            id: id.to_owned(),
            base_url: "https://api.example.com".to_owned(),
            auth_secret_key: "key".to_owned(),
            ..Draft::default()
        };
        draft.check(&AddressPolicy::default()).unwrap()
    }

    fn set(variables: &[(&str, ResolvedSecret)], connections: &[&str]) -> Resolved {
        let place = Place { file: "/etc/gateway.yaml".into(), line: 3 };
        let variables = variables.iter().map(|(key, value)| ResolvedVariable {
            key: (*key).to_owned(),
            value: value.clone(),
            place: place.clone(),
        });
        let connections = connections.iter().map(|id| ResolvedConnection {
            draft: draft(id),
            secrets: BTreeMap::from([("key".to_owned(), ResolvedSecret::Variable("ALIAS".to_owned()))]),
            place: place.clone(),
        });
        Resolved { variables: variables.collect(), connections: connections.collect(), ..Resolved::default() }
    }

    fn token(text: &str) -> [(&'static str, ResolvedSecret); 2] {
        let value = ResolvedSecret::Value(Arc::new(Secret::new(text.to_owned())));
        [("TOKEN", value), ("ALIAS", ResolvedSecret::Variable("TOKEN".to_owned()))]
    }

    #[test]
    fn whatever_injects_a_changed_variable_is_judged_with_its_value() {
        let folder = tempfile::tempdir().unwrap();
        let key = Secret::new("01".repeat(32));
        let mut vault = Vault::open(&folder.path().join(DATABASE_FILE), &key).unwrap();
        let asker = Asker::local(Via::Config);
        vault.begin_declared(set(&token("good"), &["declared"]), NOW).unwrap();
        for (id, secret) in [("stored", "{{ALIAS}}"), ("other", "literal")] {
            let secrets = Secrets::from([("key".to_owned(), Secret::new(secret.to_owned()))]);
            vault.create_connection(draft(id), secrets, &asker, NOW).unwrap();
        }
        let judged = |vault: &Vault, text: &str, connections: &[&str]| {
            let unfit = vault.unfit(&set(&token(text), connections)).unwrap();
            assert!(unfit.iter().all(|unfit| !unfit.reason.contains(text)), "{unfit:?}");
            unfit.into_iter().map(|unfit| (unfit.connection, unfit.declared, unfit.variable)).collect::<Vec<_>>()
        };
        let unfit = |id: &str, declared| (id.to_owned(), declared, "ALIAS".to_owned());
        assert_eq!(judged(&vault, "better", &["declared"]), []);
        assert_eq!(judged(&vault, "a\nb", &["declared"]), [unfit("declared", true), unfit("stored", false)]);
        // A stored connection that a declared one hides is not in force.
        assert_eq!(judged(&vault, "a\nb", &["stored"]), [unfit("stored", true)]);
        // What is in force already is no business of an edit elsewhere.
        vault.begin_declared(set(&token("a\nb"), &[]), NOW).unwrap();
        assert_eq!(judged(&vault, "a\nb", &[]), []);
    }
}

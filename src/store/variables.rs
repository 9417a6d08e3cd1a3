//! Credential variables: values that several connections share. A secret that is `{{KEY}}` stands for one.
//!
//! A stored value stands for nothing else, so there is nothing to follow and no cycle: one that is a reference itself is
//! refused. Which connection refers to which variable is kept in the transaction of the connection's change. A change of
//! a variable is one version in which every connection that injects it changes, so that no request meets a mixed set.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::OptionalExtension as _;
use rusqlite::Row;
use rusqlite::params;

use crate::domain::audit::Action;
use crate::domain::audit::Asker;
use crate::domain::audit::Detail;
use crate::domain::audit::Entry;
use crate::domain::audit::claim;
use crate::domain::connection::Credential;
use crate::domain::record::ConnectionRecord;
use crate::domain::record::MAX_SECRET_BYTES;
use crate::domain::record::Secrets;
use crate::domain::record::is_reference;
use crate::domain::reference::is_variable_key;
use crate::domain::reference::variable_of;
use crate::domain::sealing::InvalidSealed;
use crate::domain::sealing::is_sealed;
use crate::domain::secret::Secret;
use crate::domain::time::UnixMillis;
use crate::store::StoreError;
use crate::store::declared::HeldVariables;
use crate::store::declared::Place;
use crate::store::declared::ResolvedSecret;
use crate::store::declared::leading_to;
use crate::store::engine::ConnectionRow;
use crate::store::engine::Engine;
use crate::store::engine::Writer;
use crate::store::records;
use crate::store::rotation::Clock;
use crate::store::sealed::variable_place;
use crate::store::vault::Change;
use crate::store::vault::Vault;

/// How many declared variables may stand for one another. The configuration refuses circles; this ends what it overlooks.
const MAX_STEPS: usize = 32;
/// Variables one store holds.
pub const MAX_VARIABLES: i64 = 10_000;

/// Everything about a variable but its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariableRecord {
    /// 2 to 128 of `A-Za-z0-9._-`.
    pub key: String,
    /// Counts its values, from 1; 0 for a declared one.
    pub version: u64,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When its value was set last.
    pub updated_at: UnixMillis,
    /// Who made it, by their own word; empty where they gave none.
    pub created_by: String,
}

/// A variable, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedVariable {
    /// Itself.
    pub record: VariableRecord,
    /// How many connections refer to it.
    pub used_by: u64,
    /// Where it is declared; `None`: it is stored.
    pub declared: Option<Place>,
    /// Whether a stored one of the same key does not count because of it.
    pub shadows: bool,
    /// Why it has no value.
    pub problem: Option<String>,
}

/// A row of `variables`.
#[derive(Debug)]
pub(super) struct VariableRow {
    record: VariableRecord,
    sealed: Vec<u8>,
}

/// What follows from another value of a variable.
#[derive(Debug, Default)]
struct Effect {
    /// What is to be published.
    changes: Vec<Change>,
    /// Stored connections whose records differ.
    rows: Vec<ConnectionRow>,
    /// Declared connections whose records differ.
    held: Vec<Arc<ConnectionRecord>>,
    /// What was seen of what is declared; `None`: nothing of it depends on the variable.
    clock: Option<Clock>,
    /// How many connections refer to it.
    used_by: u64,
}

/// Why a variable has no value.
#[derive(Debug, thiserror::Error)]
pub(super) enum Missing {
    /// Nothing defines it.
    #[error("credential variable {0} is not defined")]
    Undefined(String),
    /// Its declaration could not be resolved.
    #[error("credential variable {0} has no value: {1}")]
    Unresolved(String, String),
    /// Its value was sealed with a master key that nobody has any more.
    #[error("the value of credential variable {0} is lost: it must be set again")]
    Lost(String),
    /// It does not open.
    #[error("credential variable {0} cannot be read: {1}")]
    Unreadable(String, Box<StoreError>),
}

/// The variables, as they are or as they would be with one of them changed. Declared ones win.
#[derive(Debug)]
pub(super) struct Variables<'a> {
    vault: &'a Vault,
    declared: &'a HeldVariables,
    instead: Option<(&'a str, Option<&'a Secret>)>,
}

impl<'a> Variables<'a> {
    /// The stored ones and these declared ones.
    pub(super) const fn new(vault: &'a Vault, declared: &'a HeldVariables) -> Self {
        Self { vault, declared, instead: None }
    }

    /// The same with another stored value; `None`: without this variable.
    const fn with(self, key: &'a str, value: Option<&'a Secret>) -> Self {
        Self { instead: Some((key, value)), ..self }
    }

    /// A variable's value. Declared ones may stand for others; a stored one never does.
    pub(super) fn value(&self, key: &str) -> Result<Secret, Missing> {
        let mut key = key;
        for _ in 0..MAX_STEPS {
            match self.declared.get(key).map(|held| &held.value) {
                Some(ResolvedSecret::Value(secret)) => return Ok(secret.duplicate()),
                Some(ResolvedSecret::Unusable(reason)) => {
                    return Err(Missing::Unresolved(key.to_owned(), reason.clone()));
                }
                Some(ResolvedSecret::Variable(other)) => key = other,
                None => return self.stored(key),
            }
        }
        Err(Missing::Unresolved(key.to_owned(), "it stands for itself in the end (a cycle)".to_owned()))
    }

    fn stored(&self, key: &str) -> Result<Secret, Missing> {
        let undefined = || Missing::Undefined(key.to_owned());
        if let Some((changed, value)) = self.instead
            && changed == key
        {
            return value.map(Secret::duplicate).ok_or_else(undefined);
        }
        match self.vault.stored_variable(key) {
            Ok(found) => found.ok_or_else(undefined),
            Err(StoreError::Lost) => Err(Missing::Lost(key.to_owned())),
            Err(error) => Err(Missing::Unreadable(key.to_owned(), Box::new(error))),
        }
    }

    /// What a secret stands for: itself, or the value of the variable it names.
    pub(super) fn resolve(&self, secret: &Secret) -> Result<Secret, Missing> {
        match variable_of(secret.expose()) {
            Some(key) => self.value(key),
            None => Ok(secret.duplicate()),
        }
    }
}

/// Keys of the variables that secrets refer to, each once.
pub(super) fn references(secrets: &Secrets) -> BTreeSet<&str> {
    secrets.values().filter_map(|secret| variable_of(secret.expose())).collect()
}

impl Engine {
    /// One variable.
    pub(super) fn variable(&self, key: &str) -> Result<Option<VariableRow>, StoreError> {
        let sql = "SELECT key, version, created_at_ms, updated_at_ms, created_by, sealed FROM variables WHERE key = ?1";
        Ok(self.db.prepare_cached(sql)?.query_row([key], variable_row).optional()?)
    }

    fn variables(&self) -> Result<Vec<VariableRow>, StoreError> {
        let sql = "SELECT key, version, created_at_ms, updated_at_ms, created_by, substr(sealed, 1, 1) FROM variables ORDER BY key";
        let mut statement = self.db.prepare_cached(sql)?;
        let rows = statement.query_map([], variable_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Ids of the connections that refer to a variable.
    pub(super) fn referencing(&self, key: &str) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT connection FROM variable_references WHERE variable = ?1 ORDER BY connection";
        let mut statement = self.db.prepare_cached(sql)?;
        let rows = statement.query_map([key], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Each connection (or only this one) with each variable it refers to.
    fn variable_references(&self, only: Option<&str>) -> Result<Vec<(String, String)>, StoreError> {
        let all = "SELECT connection, variable FROM variable_references";
        let sql = only.map_or_else(|| all.to_owned(), |_| format!("{all} WHERE connection = ?1"));
        let mut statement = self.db.prepare_cached(&sql)?;
        let rows = statement.query_map(rusqlite::params_from_iter(only), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Writer<'_> {
    fn put_variable(&self, row: &VariableRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO variables (key, sealed, version, created_at_ms, updated_at_ms, created_by)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                   ON CONFLICT (key) DO UPDATE SET sealed = excluded.sealed, version = excluded.version,
                   updated_at_ms = excluded.updated_at_ms";
        let record = &row.record;
        self.transaction.prepare_cached(sql)?.execute(params![
            record.key,
            row.sealed,
            i64::try_from(record.version).unwrap_or(i64::MAX),
            i64::try_from(record.created_at.0).unwrap_or(i64::MAX),
            i64::try_from(record.updated_at.0).unwrap_or(i64::MAX),
            record.created_by,
        ])?;
        Ok(())
    }

    fn delete_variable(&self, key: &str) -> Result<bool, StoreError> {
        Ok(self.transaction.prepare_cached("DELETE FROM variables WHERE key = ?1")?.execute([key])? == 1)
    }

    fn count_variables(&self) -> Result<i64, StoreError> {
        Ok(self.transaction.query_row("SELECT count(*) FROM variables", [], |row| row.get(0))?)
    }

    /// Sets which variables a connection refers to.
    pub(super) fn set_references(&self, connection: &str, secrets: &Secrets) -> Result<(), StoreError> {
        self.transaction
            .prepare_cached("DELETE FROM variable_references WHERE connection = ?1")?
            .execute([connection])?;
        let mut insert = self
            .transaction
            .prepare_cached("INSERT INTO variable_references (connection, variable) VALUES (?1, ?2)")?;
        for key in references(secrets) {
            insert.execute([connection, key])?;
        }
        Ok(())
    }
}

impl Vault {
    /// The variables as they are.
    pub(super) fn variables(&self) -> Variables<'_> {
        Variables::new(self, &self.declared.variables)
    }

    /// Whether a secret can be stored: a variable it refers to is defined. One whose declaration is not resolved now is
    /// defined all the same.
    pub(super) fn check_reference(&self, secret: &Secret) -> Result<(), StoreError> {
        let Some(key) = variable_of(secret.expose()) else { return Ok(()) };
        match self.variables().value(key) {
            Ok(_) | Err(Missing::Unresolved(..) | Missing::Lost(_)) => Ok(()),
            Err(Missing::Undefined(key)) => Err(StoreError::VariableMissing { key }),
            Err(Missing::Unreadable(_, error)) => Err(*error),
        }
    }

    /// Stored connections (or only this one) that inject a variable without a value, and why it has none. Only where one
    /// refers to such a variable its secrets are opened, to tell which of them that is.
    pub(super) fn missing_variables(&self, only: Option<&str>) -> Result<BTreeMap<String, String>, StoreError> {
        let variables = self.variables();
        let mut values: BTreeMap<String, Option<String>> = BTreeMap::new();
        let mut missing = BTreeMap::new();
        for (connection, key) in self.engine.variable_references(only)? {
            let value = values
                .entry(key.clone())
                .or_insert_with_key(|key| variables.value(key).err().map(|missing| missing.to_string()));
            if let Some(reason) = value
                && self
                    .engine
                    .connection(&connection)?
                    .is_some_and(|row| self.injects(&row).is_some_and(|(_, used)| used == key))
            {
                missing.insert(connection, reason.clone());
            }
        }
        Ok(missing)
    }

    /// The record of a stored connection that injects a variable, and that variable's key. What cannot be read injects
    /// nothing.
    fn injects(&self, row: &ConnectionRow) -> Option<(ConnectionRecord, String)> {
        let record = records::decode(row, self.key.records()).ok()?;
        let secrets = self.secrets(&record).ok()?;
        let injected = secrets.get(record.auth_secret_key.as_ref()?)?;
        let key = variable_of(injected.expose())?.to_owned();
        Some((record, key))
    }

    /// All variables, declared and stored, by key.
    pub fn list_variables(&self) -> Result<Vec<ListedVariable>, StoreError> {
        let uses = self.all_users()?;
        let used_by = |key: &str| uses.get(key).map_or(0, |users| users.len() as u64);
        let variables = self.variables();
        let mut listed: BTreeMap<String, ListedVariable> = BTreeMap::new();
        for VariableRow { record, sealed } in self.engine.variables()? {
            let used_by = used_by(&record.key);
            let problem = sealed.is_empty().then(|| Missing::Lost(record.key.clone()).to_string());
            let stored = ListedVariable { record, used_by, declared: None, shadows: false, problem };
            listed.insert(stored.record.key.clone(), stored);
        }
        for (key, held) in &self.declared.variables {
            let record = VariableRecord {
                key: key.clone(),
                version: 0,
                created_at: held.created_at,
                updated_at: held.updated_at,
                created_by: String::new(),
            };
            let declared = ListedVariable {
                record,
                used_by: used_by(key),
                declared: Some(held.place.clone()),
                shadows: listed.contains_key(key),
                problem: variables.value(key).err().map(|missing| missing.to_string()),
            };
            listed.insert(key.clone(), declared);
        }
        Ok(listed.into_values().collect())
    }

    /// Makes a variable or gives it another value. Who made it stays who made it.
    pub fn set_variable(
        &mut self,
        key: &str,
        value: &Secret,
        created_by: &str,
        asker: &Asker,
        now: UnixMillis,
    ) -> Result<(ListedVariable, Change), StoreError> {
        if !is_variable_key(key) {
            return Err(StoreError::VariableInvalid(
                "key: must have 2 to 128 of A-Z, a-z, 0-9, '.', '_' and '-'".into(),
            ));
        }
        self.refuse_declared_variable(key)?;
        let value = Secret::new(value.expose().trim().to_owned());
        if value.is_empty() || value.expose().len() > MAX_SECRET_BYTES {
            let text = format!("value: the value of {key} must have 1 to {MAX_SECRET_BYTES} bytes");
            return Err(StoreError::VariableInvalid(text));
        }
        if is_sealed(value.expose()) {
            return Err(StoreError::SealedInvalid(InvalidSealed));
        }
        if is_reference(value.expose()) {
            return Err(StoreError::VariableCycle { key: key.to_owned() });
        }
        // What cannot be read is not what was given now.
        let differs = self.stored_variable(key).ok().flatten().is_none_or(|old| old != value);
        let Effect { changes, rows, held, clock, used_by } =
            self.effect_of(key, Some(&value), differs.then_some(now))?;
        let old = self.engine.variable(key)?.map(|row| row.record);
        let record = VariableRecord {
            key: key.to_owned(),
            version: old.as_ref().map_or(1, |old| old.version.saturating_add(1)),
            created_at: old.as_ref().map_or(now, |old| old.created_at),
            updated_at: now,
            created_by: old.map_or_else(|| claim(created_by), |old| old.created_by),
        };
        let sealed = self.key.seal(variable_place(key, record.version), value.expose().as_bytes())?;
        let row = VariableRow { record, sealed };
        let detail = Detail::default().number("version", row.record.version).number("used_by", used_by);
        let entry = Entry::new(Action::VariableSet, key, asker, now).with(detail);
        self.commit(Some(&entry), |writer| {
            writer.put_variable(&row)?;
            rows.iter().try_for_each(|row| writer.update(row).map(drop))?;
            clock.map_or(Ok(()), |clock| clock.write(writer, false))?;
            if writer.count_variables()? > MAX_VARIABLES { Err(StoreError::Full) } else { Ok(()) }
        })?;
        for record in held {
            if let Some(held) = self.declared.connections.get_mut(record.settings.id.as_str()) {
                held.record = record;
            }
        }
        let listed = ListedVariable { record: row.record, used_by, declared: None, shadows: false, problem: None };
        Ok((listed, Change::Together(changes)))
    }

    /// Removes a variable. Where connections refer to it that takes `force`; those that inject it are without a secret
    /// afterwards, and their ids come back.
    pub fn delete_variable(
        &mut self,
        key: &str,
        force: bool,
        asker: &Asker,
        now: UnixMillis,
    ) -> Result<(Vec<String>, Change), StoreError> {
        self.refuse_declared_variable(key)?;
        if self.engine.variable(key)?.is_none() {
            return Err(StoreError::VariableNotFound);
        }
        let keys = leading_to(&self.declared.variables, BTreeSet::from([key.to_owned()]));
        let users: Vec<_> = self.users(&keys)?.into_iter().collect();
        if !users.is_empty() && !force {
            return Err(StoreError::VariableInUse { key: key.to_owned(), connections: users });
        }
        let Effect { changes, .. } = self.effect_of(key, None, None)?;
        let mut unusable: Vec<_> = changes.iter().filter_map(Change::saved_id).map(str::to_owned).collect();
        unusable.sort();
        let detail = Detail::default().names("unusable", &unusable).flag("forced", !users.is_empty());
        let entry = Entry::new(Action::VariableDelete, key, asker, now).with(detail);
        self.commit(Some(&entry), |writer| {
            writer.delete_variable(key)?.then_some(()).ok_or(StoreError::VariableNotFound)
        })?;
        self.cut_back();
        Ok((unusable, Change::Together(changes)))
    }

    /// What follows from another value of a variable: every published connection that injects it, as it is with this value.
    /// For the rotation policy another value is another secret of those connections, since `rotated`. A value that one of
    /// them cannot carry is refused.
    fn effect_of(&self, key: &str, value: Option<&Secret>, rotated: Option<UnixMillis>) -> Result<Effect, StoreError> {
        let variables = self.variables().with(key, value);
        let keys = leading_to(&self.declared.variables, BTreeSet::from([key.to_owned()]));
        let check = |record: &ConnectionRecord| match value {
            Some(value) => Credential::build(&record.settings, value).map(drop).map_err(|error| {
                let id = &record.settings.id;
                StoreError::VariableInvalid(format!("value: connection {id} cannot inject it: {error}"))
            }),
            None => Ok(()),
        };
        let mut effect = Effect { used_by: self.users(&keys)?.len() as u64, ..Effect::default() };
        let aliases = keys.iter().filter(|key| self.declared.variables.contains_key(*key));
        let declared: Vec<_> = self.declared.connections.values().filter(|held| held.injects_one_of(&keys)).collect();
        if let Some(now) = rotated
            && (aliases.clone().next().is_some() || !declared.is_empty())
        {
            let clock = effect.clock.insert(self.clock()?);
            aliases.for_each(|key| self.see_variable(clock, key, &variables, now));
        }
        for held in declared {
            check(&held.record)?;
            let mut record = Arc::clone(&held.record);
            if let (Some(clock), Some(now)) = (&mut effect.clock, rotated)
                && held.see(clock, &variables, now).1
            {
                Arc::make_mut(&mut record).rotated(now);
                effect.held.push(Arc::clone(&record));
            }
            effect.changes.push(Change::Saved(record, held.injected(&variables)));
        }
        for (mut record, _) in self.injecting(&keys)? {
            if let Some(now) = rotated {
                record.rotated(now);
                effect.rows.push(records::encode(&record, self.key.records())?);
            }
            if !self.declared.connections.contains_key(record.settings.id.as_str()) {
                check(&record)?;
                let secret = self.injected(&record, &variables);
                effect.changes.push(Change::Saved(Arc::new(record), secret));
            }
        }
        Ok(effect)
    }

    /// The stored connections that inject the value of one of these variables, each with that variable's key; those too that
    /// a declared one shadows. What cannot be read injects nothing.
    pub(super) fn injecting(&self, keys: &BTreeSet<String>) -> Result<Vec<(ConnectionRecord, String)>, StoreError> {
        let mut ids = BTreeSet::new();
        for key in keys {
            ids.extend(self.engine.referencing(key)?);
        }
        let mut found = Vec::new();
        for id in ids {
            let Some(row) = self.engine.connection(&id)? else { continue };
            found.extend(self.injects(&row).filter(|(_, key)| keys.contains(key)));
        }
        Ok(found)
    }

    /// Ids of the connections that refer to one of these variables, declared or stored.
    fn users(&self, keys: &BTreeSet<String>) -> Result<BTreeSet<String>, StoreError> {
        let mut users = BTreeSet::new();
        for key in keys {
            users.extend(self.engine.referencing(key)?);
        }
        let declared = self.declared.connections.iter();
        let declared = declared.filter(|(_, held)| held.references().any(|used| keys.contains(used)));
        users.extend(declared.map(|(id, _)| id.clone()));
        Ok(users)
    }

    /// The same for every variable. One of both kinds under one id is one.
    fn all_users(&self) -> Result<BTreeMap<String, BTreeSet<String>>, StoreError> {
        let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (id, key) in self.engine.variable_references(None)? {
            users.entry(key).or_default().insert(id);
        }
        for (id, held) in &self.declared.connections {
            for key in held.references() {
                users.entry(key.to_owned()).or_default().insert(id.clone());
            }
        }
        // Whoever refers to a variable refers to what it stands for.
        let direct = users.clone();
        for (key, ids) in direct {
            let mut at = key.as_str();
            for _ in 0..MAX_STEPS {
                let Some(ResolvedSecret::Variable(next)) = self.declared.variables.get(at).map(|held| &held.value)
                else {
                    break;
                };
                users.entry(next.clone()).or_default().extend(ids.iter().cloned());
                at = next;
            }
        }
        Ok(users)
    }

    fn refuse_declared_variable(&self, key: &str) -> Result<(), StoreError> {
        match self.declared.variables.get(key) {
            Some(held) => Err(StoreError::VariableDeclared { key: key.to_owned(), place: held.place.clone() }),
            None => Ok(()),
        }
    }

    /// The value of a stored variable, whether or not one of the same key is declared; `None` where there is none.
    pub fn stored_variable(&self, key: &str) -> Result<Option<Secret>, StoreError> {
        let Some(VariableRow { record, sealed }) = self.engine.variable(key)? else { return Ok(None) };
        if sealed.is_empty() {
            return Err(StoreError::Lost);
        }
        let plaintext = self.key.open(variable_place(key, record.version), &sealed)?;
        let unreadable = |_| StoreError::Record { id: key.to_owned(), detail: "its value is not text".to_owned() };
        let text = std::str::from_utf8(&plaintext).map_err(unreadable)?;
        Ok(Some(Secret::new(text.to_owned())))
    }
}

fn variable_row(row: &Row<'_>) -> Result<VariableRow, rusqlite::Error> {
    let number = |index| Ok::<_, rusqlite::Error>(u64::try_from(row.get::<_, i64>(index)?).unwrap_or_default());
    Ok(VariableRow {
        record: VariableRecord {
            key: row.get(0)?,
            version: number(1)?,
            created_at: UnixMillis(number(2)?),
            updated_at: UnixMillis(number(3)?),
            created_by: row.get(4)?,
        },
        sealed: row.get(5)?,
    })
}

#[cfg(test)]
#[path = "variables_tests.rs"]
mod tests;

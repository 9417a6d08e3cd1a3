//! What `gateway.yaml` declares: connections and variables that lie in no table and yet are published through the same
//! thread, so that one order and one version counter hold.
//!
//! A declared set comes resolved: every secret is a value, the key of a credential variable, or the reason why there is
//! neither. It is applied whole or not at all, as one version, and only what differs is published. A declaration wins
//! over what the store holds under the same name; when it goes, the stored one counts again.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::config::parts::DeclaredApproval;
use crate::domain::audit::Action;
use crate::domain::audit::Asker;
use crate::domain::audit::Detail;
use crate::domain::audit::Entry;
use crate::domain::audit::Via;
use crate::domain::draft::CheckedDraft;
use crate::domain::ids::ConnectionId;
use crate::domain::record::ConnectionRecord;
use crate::domain::secret::Secret;
use crate::domain::snapshot::Settings;
use crate::domain::time::UnixMillis;
use crate::store::StoreError;
use crate::store::engine::ConnectionRow;
use crate::store::engine::Writer;
use crate::store::records;
use crate::store::rotation::Clock;
use crate::store::rotation::Owner;
use crate::store::variables::Variables;
use crate::store::vault::Change;
use crate::store::vault::MAX_CONNECTIONS;
use crate::store::vault::Vault;

/// Where something is declared, for people: `gateway.yaml, line 12`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file; one text shared by all that stands in it.
    pub file: Arc<str>,
    /// 1-based; 0 where it is not known.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => formatter.write_str(&self.file),
            line => write!(formatter, "{}, line {line}", self.file),
        }
    }
}

/// A declared secret, or the value of a declared variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolvedSecret {
    /// This one.
    Value(Arc<Secret>),
    /// The value of this credential variable, declared or stored, whatever it is at the time: a change of the variable
    /// reaches the connection without a reload.
    Variable(String),
    /// None, and why: for the owner, without any part of a secret. A connection that injects it answers 400.
    Unusable(String),
}

/// A declared connection with its secret.
#[derive(Debug)]
pub struct ResolvedConnection {
    /// Its settings, checked as those of the admin API are.
    pub draft: CheckedDraft,
    /// Its secrets by name; the one that `draft.auth_secret_key` names is injected.
    pub secrets: BTreeMap<String, ResolvedSecret>,
    /// Where it stands.
    pub place: Place,
}

/// A declared credential variable. It may stand for another one; those of the file form no circle.
#[derive(Debug)]
pub struct ResolvedVariable {
    /// 2 to 128 of `A-Za-z0-9._-`.
    pub key: String,
    /// Its value.
    pub value: ResolvedSecret,
    /// Where it stands.
    pub place: Place,
}

/// Everything a configuration file says that lies outside the store and is published.
#[derive(Debug, Default)]
pub struct Resolved {
    /// What decisions depend on.
    pub settings: Settings,
    /// Declared approvals; no two of the same namespace, key and service.
    pub approvals: Vec<DeclaredApproval>,
    /// No two of the same id.
    pub connections: Vec<ResolvedConnection>,
    /// No two of the same key.
    pub variables: Vec<ResolvedVariable>,
    /// For the audit: names of all that was changed in the file, published or not. Never a value.
    pub names: Vec<String>,
}

/// What applying a set did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Ids of declared connections that are new.
    pub added: Vec<String>,
    /// Ids of those that are different, in settings or secret.
    pub changed: Vec<String>,
    /// Ids of those that are gone.
    pub removed: Vec<String>,
    /// Keys of declared variables that are new, different or gone.
    pub variables: Vec<String>,
    /// Whether the settings differ.
    pub settings: bool,
    /// Services whose declared approvals differ.
    pub approvals: Vec<String>,
    /// Stored connections that are not published because one of the same id is declared.
    pub shadowed: Vec<String>,
}

impl Applied {
    /// Whether anything is published.
    pub fn is_change(&self) -> bool {
        self.settings
            || [&self.added, &self.changed, &self.removed, &self.variables, &self.approvals]
                .into_iter()
                .any(|list| !list.is_empty())
    }

    fn detail(&self) -> Detail {
        Detail::default()
            .names("added", &self.added)
            .names("changed", &self.changed)
            .names("removed", &self.removed)
            .names("variables", &self.variables)
            .names("approvals", &self.approvals)
            .flag("settings", self.settings)
    }
}

/// The set in force.
#[derive(Debug, Default)]
pub(super) struct Declared {
    settings: Settings,
    approvals: Vec<DeclaredApproval>,
    pub(super) connections: BTreeMap<String, Held>,
    pub(super) variables: HeldVariables,
    /// How many of the connections shadow a stored one. Only another set changes that: what is declared can be neither
    /// created nor deleted in the store.
    pub(super) shadowing: u64,
}

/// By key.
pub(super) type HeldVariables = BTreeMap<String, HeldVariable>;

/// A declared connection in force.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) record: Arc<ConnectionRecord>,
    /// Its secrets, in the order of their names in the record.
    secrets: Box<[ResolvedSecret]>,
    pub(super) place: Place,
}

/// A declared variable in force.
#[derive(Debug)]
pub(super) struct HeldVariable {
    pub(super) value: ResolvedSecret,
    pub(super) place: Place,
    /// When this process first saw it, and when it saw its value.
    pub(super) created_at: UnixMillis,
    pub(super) updated_at: UnixMillis,
}

impl Held {
    /// Keys of the variables its secrets refer to.
    pub(super) fn references(&self) -> impl Iterator<Item = &str> {
        self.secrets.iter().filter_map(|secret| match secret {
            ResolvedSecret::Variable(key) => Some(key.as_str()),
            ResolvedSecret::Value(_) | ResolvedSecret::Unusable(_) => None,
        })
    }

    /// Whether the secret it injects is the value of one of these variables.
    pub(super) fn injects_one_of(&self, keys: &BTreeSet<String>) -> bool {
        matches!(self.chosen(), Some(ResolvedSecret::Variable(key)) if keys.contains(key))
    }

    /// The secret to inject.
    pub(super) fn injected(&self, variables: &Variables<'_>) -> Result<Secret, String> {
        match self.chosen() {
            Some(ResolvedSecret::Value(secret)) => Ok(secret.duplicate()),
            Some(ResolvedSecret::Variable(key)) => variables.value(key).map_err(|missing| missing.to_string()),
            Some(ResolvedSecret::Unusable(reason)) => Err(reason.clone()),
            None => Err("no secret is named for injection".to_owned()),
        }
    }

    /// Since when its secrets are what they are, and whether one of them differs from what was seen before.
    pub(super) fn see(&self, clock: &mut Clock, variables: &Variables<'_>, now: UnixMillis) -> (UnixMillis, bool) {
        let chosen = self.chosen();
        let names = self.record.credential_keys.iter().zip(&self.secrets);
        let values: Vec<_> = names
            .map(|(name, secret)| match secret {
                ResolvedSecret::Value(value) => (name.as_str(), Some(Arc::clone(value))),
                ResolvedSecret::Variable(key) if chosen.is_some_and(|chosen| std::ptr::eq(chosen, secret)) => {
                    (name.as_str(), variables.value(key).ok().map(Arc::new))
                }
                // As with a stored one, a variable that is not injected is nobody's rotation.
                ResolvedSecret::Variable(key) => (name.as_str(), Some(Arc::new(Secret::new(format!("{{{{{key}}}}}"))))),
                ResolvedSecret::Unusable(_) => (name.as_str(), None),
            })
            .collect();
        let values = values.iter().map(|(name, value)| (*name, value.as_ref().map(|value| value.expose())));
        clock.see(Owner::Connection, self.record.settings.id.as_str(), values, now)
    }

    fn chosen(&self) -> Option<&ResolvedSecret> {
        let name = self.record.auth_secret_key.as_ref()?;
        let at = self.record.credential_keys.binary_search(name).ok()?;
        self.secrets.get(at)
    }
}

/// A set as it will be held, and what the store is to remember with it.
#[derive(Debug)]
struct Settled {
    next: Declared,
    applied: Applied,
    clock: Clock,
    /// Stored connections for which another value of a declared variable is a rotation, by id.
    rotated: BTreeMap<String, ConnectionRecord>,
    /// The same as rows.
    rows: Vec<ConnectionRow>,
}

impl Settled {
    fn write(&self, writer: &Writer<'_>) -> Result<(), StoreError> {
        self.rows.iter().try_for_each(|row| writer.update(row).map(drop))?;
        self.clock.write(writer, true)
    }
}

impl Vault {
    /// Takes the set this process begins with, before anything is published.
    pub fn begin_declared(&mut self, set: Resolved, now: UnixMillis) -> Result<(), StoreError> {
        let settled = self.settle(set, now)?;
        if !settled.clock.has_same_variables() {
            // Stored connections may inject another secret than at the last start.
            self.commit(None, |writer| settled.write(writer))?;
        } else if !settled.clock.is_same() {
            self.engine.write(|writer| settled.write(writer))?;
        }
        self.declared = settled.next;
        Ok(())
    }

    /// Settings of the set in force.
    pub fn settings(&self) -> &Settings {
        &self.declared.settings
    }

    /// Approvals of the set in force.
    pub fn approvals(&self) -> &[DeclaredApproval] {
        &self.declared.approvals
    }

    /// Where a connection is declared; `None` where it is not.
    pub fn declared_at(&self, id: &str) -> Option<&Place> {
        self.declared.connections.get(id).map(|held| &held.place)
    }

    /// Puts a set in place of the one in force: all of it as one version, or, with an error, nothing. `None` in place of
    /// a change: nothing of it differs, and the version stays. Then only what somebody asked for is written down, and what
    /// has `names`; a file that was written anew without a difference is no event.
    pub fn declare(
        &mut self,
        mut set: Resolved,
        action: Action,
        asker: &Asker,
        now: UnixMillis,
    ) -> Result<(Applied, Option<Change>), StoreError> {
        let names = std::mem::take(&mut set.names);
        let settled = self.settle(set, now)?;
        let changes = self.differences(&settled)?;
        let applied = &settled.applied;
        let entry = Entry::new(action, "", asker, now).with(applied.detail().names("keys", &names));
        if applied.is_change() {
            // What the next start finds is to be compared with nothing: it takes a version of its own.
            self.commit(Some(&entry), |writer| {
                settled.write(writer)?;
                writer.set_meta("declared", &[])
            })?;
        } else {
            if !settled.clock.is_same() {
                self.engine.write(|writer| settled.write(writer))?;
            }
            if asker.via() != Via::Config || !names.is_empty() {
                self.note(&entry)?;
            }
        }
        let Settled { next, applied, .. } = settled;
        self.declared = next;
        let change = applied.is_change().then_some(Change::Together(changes));
        Ok((applied, change))
    }

    /// The set as it will be held: what did not change keeps its times and its version of the secret.
    fn settle(&self, set: Resolved, now: UnixMillis) -> Result<Settled, StoreError> {
        if set.connections.len() as u64 > MAX_CONNECTIONS.unsigned_abs() {
            return Err(StoreError::Full);
        }
        let mut applied = Applied::default();
        let variables = self.settle_variables(set.variables, now, &mut applied)?;
        let lookup = Variables::new(self, &variables);
        let mut clock = self.clock()?;
        let mut rotated = BTreeMap::new();
        for (mut record, _) in self.injecting(&self.see_variables(&mut clock, &variables, now)?)? {
            record.rotated(now);
            rotated.insert(record.settings.id.as_str().to_owned(), record);
        }
        let rows =
            rotated.values().map(|record| records::encode(record, self.key.records())).collect::<Result<_, _>>()?;
        let stored: BTreeSet<String> = self.engine.connection_ids()?.into_iter().collect();
        let mut connections = BTreeMap::new();
        for connection in set.connections {
            let id = connection.draft.settings.id.as_str().to_owned();
            let old = self.declared.connections.get(&id);
            let held = settle_connection(connection, old, now, |held| held.see(&mut clock, &lookup, now));
            match old {
                None => applied.added.push(id.clone()),
                Some(old) if !Arc::ptr_eq(&old.record, &held.record) => applied.changed.push(id.clone()),
                Some(_) => {}
            }
            if stored.contains(&id) {
                applied.shadowed.push(id.clone());
            }
            if connections.insert(id.clone(), held).is_some() {
                return Err(StoreError::DeclaredTwice { name: id });
            }
        }
        let gone = self.declared.connections.keys().filter(|id| !connections.contains_key(*id));
        applied.removed = gone.cloned().collect();
        applied.settings = self.declared.settings != set.settings;
        let (old, new) = (by_service(&self.declared.approvals), by_service(&set.approvals));
        let services: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        let differing = services.into_iter().filter(|service| old.get(*service) != new.get(*service));
        applied.approvals = differing.map(|service| service.as_str().to_owned()).collect();
        let shadowing = applied.shadowed.len() as u64;
        let next = Declared { settings: set.settings, approvals: set.approvals, connections, variables, shadowing };
        Ok(Settled { next, applied, clock, rotated, rows })
    }

    fn settle_variables(
        &self,
        given: Vec<ResolvedVariable>,
        now: UnixMillis,
        applied: &mut Applied,
    ) -> Result<HeldVariables, StoreError> {
        let mut variables = BTreeMap::new();
        for ResolvedVariable { key, value, place } in given {
            let old = self.declared.variables.get(&key);
            let same = old.filter(|old| old.value == value);
            if same.is_none() {
                applied.variables.push(key.clone());
            }
            let held = HeldVariable {
                value,
                place,
                created_at: old.map_or(now, |old| old.created_at),
                updated_at: same.map_or(now, |old| old.updated_at),
            };
            if variables.insert(key.clone(), held).is_some() {
                return Err(StoreError::DeclaredTwice { name: key });
            }
        }
        let gone = self.declared.variables.keys().filter(|key| !variables.contains_key(*key));
        applied.variables.extend(gone.cloned());
        Ok(variables)
    }

    /// What is to be published for the state to become that of `next`.
    fn differences(&self, settled: &Settled) -> Result<Vec<Change>, StoreError> {
        let Settled { next, applied, rotated, .. } = settled;
        let lookup = Variables::new(self, &next.variables);
        let touched = leading_to(&next.variables, applied.variables.iter().cloned().collect());
        let differing: BTreeSet<&String> = applied.added.iter().chain(&applied.changed).collect();
        let mut changes = Vec::with_capacity(differing.len());
        for (id, held) in &next.connections {
            if differing.contains(id) || held.injects_one_of(&touched) {
                changes.push(Change::Saved(Arc::clone(&held.record), held.injected(&lookup)));
            }
        }
        let mut stored: BTreeSet<String> = BTreeSet::new();
        for id in &applied.removed {
            if self.engine.connection(id)?.is_some() {
                stored.insert(id.clone());
            } else if let Ok(id) = ConnectionId::parse(id) {
                changes.push(Change::Deleted(id));
            }
        }
        for key in &touched {
            let users = self.engine.referencing(key)?.into_iter();
            stored.extend(users.filter(|id| !next.connections.contains_key(id)));
        }
        for id in stored {
            let Some(row) = self.engine.connection(&id)? else { continue };
            let Ok(record) =
                rotated.get(&id).map_or_else(|| records::decode(&row, self.key.records()), |record| Ok(record.clone()))
            else {
                // One that cannot be read is not published; it was reported at the start. What was declared in its place
                // is over all the same.
                if let (true, Ok(id)) = (applied.removed.contains(&id), ConnectionId::parse(&id)) {
                    changes.push(Change::Deleted(id));
                }
                continue;
            };
            let secret = self.injected(&record, &lookup);
            changes.push(Change::Saved(Arc::new(record), secret));
        }
        if applied.settings {
            changes.push(Change::Settings(Box::new(next.settings.clone())));
        }
        for service in &applied.approvals {
            let Ok(service) = ConnectionId::parse(service) else { continue };
            let approvals = next.approvals.iter().filter(|approval| approval.service == service);
            let approvals = approvals.cloned().collect();
            changes.push(Change::Approvals(service, approvals));
        }
        Ok(changes)
    }
}

/// These keys, and those of declared variables that stand for one of them.
pub(super) fn leading_to(variables: &HeldVariables, mut keys: BTreeSet<String>) -> BTreeSet<String> {
    loop {
        let more = variables.iter().filter(|(key, held)| {
            let stands_for = matches!(&held.value, ResolvedSecret::Variable(other) if keys.contains(other));
            stands_for && !keys.contains(*key)
        });
        let more: Vec<_> = more.map(|(key, _)| key.clone()).collect();
        if more.is_empty() {
            return keys;
        }
        keys.extend(more);
    }
}

/// A connection as it will be held: the old record itself where nothing differs. `see` tells since when its secrets are
/// what they are, and whether one of them is another than before.
fn settle_connection(
    connection: ResolvedConnection,
    old: Option<&Held>,
    now: UnixMillis,
    see: impl FnOnce(&Held) -> (UnixMillis, bool),
) -> Held {
    let ResolvedConnection { draft, secrets, place } = connection;
    let (credential_keys, secrets): (Vec<_>, Vec<_>) = secrets.into_iter().unzip();
    let record = ConnectionRecord {
        settings: draft.settings,
        auth_secret_key: draft.auth_secret_key,
        last_rotated_at: None,
        credential_keys,
        rotation_interval_days: draft.rotation_interval_days,
        mcp: draft.mcp,
        created_at: old.map_or(now, |old| old.record.created_at),
        updated_at: old.map_or(now, |old| old.record.updated_at),
        secrets_lost: false,
    };
    let mut held = Held { record: Arc::new(record), secrets: secrets.into_boxed_slice(), place };
    let (since, rotated) = see(&held);
    let has_secrets = !held.secrets.is_empty();
    let same_secrets = old.is_some_and(|old| *old.secrets == *held.secrets);
    let record = Arc::make_mut(&mut held.record);
    record.last_rotated_at = has_secrets.then_some(since);
    let version = old.map_or(1, |old| old.record.settings.secret_version);
    // The values of a variable have versions of their own.
    record.settings.secret_version = if rotated && !same_secrets { version.saturating_add(1) } else { version };
    record.settings.next_rotation_due_at = record.rotation_due();
    match old {
        Some(old) if *old.record == *record && same_secrets => held.record = Arc::clone(&old.record),
        // The same secret is there again, or is out of reach: published, and nothing about the connection.
        Some(old) if *old.record == *record => {}
        Some(_) | None => record.updated_at = now,
    }
    held
}

/// Approvals of each service, in an order of their own.
fn by_service(approvals: &[DeclaredApproval]) -> BTreeMap<ConnectionId, Vec<&DeclaredApproval>> {
    let mut services: BTreeMap<ConnectionId, Vec<&DeclaredApproval>> = BTreeMap::new();
    for approval in approvals {
        services.entry(approval.service.clone()).or_default().push(approval);
    }
    for list in services.values_mut() {
        list.sort_by(|one, other| (&one.namespace, &one.public_key).cmp(&(&other.namespace, &other.public_key)));
    }
    services
}

#[cfg(test)]
#[path = "declared_tests.rs"]
mod tests;

//! What is sealed and where it lies: one list, for everything that goes over all of it.

use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::params;

use crate::store::StoreError;
use crate::store::engine::ConnectionRow;
use crate::store::migrate;
use crate::store::records;
use crate::store::seal::MasterKey;
use crate::store::seal::Place;

/// What the sentinel holds.
pub(super) const SENTINEL: &[u8] = b"this store opens";
/// Where the sentinel belongs.
pub(super) const SENTINEL_PLACE: Place<'static> = sentinel_place(migrate::NEWEST);
/// Under which name of `meta` the key lies by which declared secrets are known again.
pub(super) const ROTATION_KEY: &str = "rotation_key";
/// Where that key belongs.
pub(super) const ROTATION_KEY_PLACE: Place<'static> =
    Place { kind: "meta", record: ROTATION_KEY, field: "value", version: 1 };
/// Under which name of `meta` the key lies that opens what others seal to this gateway.
pub(super) const SEALING_KEY: &str = "sealing_key";
/// Where that key belongs.
pub(super) const SEALING_KEY_PLACE: Place<'static> =
    Place { kind: "meta", record: SEALING_KEY, field: "value", version: 1 };
/// Rows that are held at a time while all are gone over.
const PAGE: i64 = 256;

/// Where the sentinel of a store of this schema version belongs. One whose records bear marks has another, so that it does
/// not pass for an older one, whose records are believed.
pub(super) const fn sentinel_place(schema: i64) -> Place<'static> {
    let version = if schema < migrate::MARKED { 1 } else { 2 };
    Place { kind: "meta", record: "sentinel", field: "value", version }
}

/// Where all secrets of a connection belong, sealed as one value.
pub const fn secrets_place(connection: &str, version: u64) -> Place<'_> {
    Place { kind: "connection", record: connection, field: "secrets", version }
}

/// Where the value of a credential variable belongs.
pub const fn variable_place(key: &str, version: u64) -> Place<'_> {
    Place { kind: "variable", record: key, field: "value", version }
}

/// Which table a sealed value lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Secrets,
    Variable,
    RotationKey,
    SealingKey,
}

/// A row with a sealed value.
#[derive(Debug)]
pub(super) struct Row {
    kind: Kind,
    record: String,
    version: i64,
    /// Whether the version is the one in use.
    pub(super) in_use: bool,
    /// What [`MasterKey::seal`] made; empty where the value is lost.
    pub(super) sealed: Vec<u8>,
}

impl Row {
    /// Where the value belongs.
    pub(super) fn place(&self) -> Place<'_> {
        let version = u64::try_from(self.version).unwrap_or_default();
        match self.kind {
            Kind::Secrets => secrets_place(&self.record, version),
            Kind::Variable => variable_place(&self.record, version),
            Kind::RotationKey => ROTATION_KEY_PLACE,
            Kind::SealingKey => SEALING_KEY_PLACE,
        }
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        match self.kind {
            Kind::Secrets => format!("connection {} (version {})", self.record, self.version),
            Kind::Variable => format!("variable {}", self.record),
            Kind::RotationKey => "the key of the declared secrets' digests".to_owned(),
            Kind::SealingKey => "the sealing key".to_owned(),
        }
    }

    /// Puts another sealed value in its place.
    pub(super) fn replace(&self, db: &Connection, sealed: &[u8]) -> Result<(), StoreError> {
        match self.kind {
            Kind::Secrets => db
                .prepare_cached("UPDATE secrets SET sealed = ?3 WHERE connection = ?1 AND version = ?2")?
                .execute(params![self.record, self.version, sealed])?,
            Kind::Variable => db
                .prepare_cached("UPDATE variables SET sealed = ?2 WHERE key = ?1")?
                .execute(params![self.record, sealed])?,
            Kind::RotationKey | Kind::SealingKey => db
                .prepare_cached("UPDATE meta SET value = ?2 WHERE name = ?1")?
                .execute(params![self.record, sealed])?,
        };
        Ok(())
    }

    /// Removes an old version of a connection's secrets, or what declared secrets are known again by; nothing else can do
    /// without.
    pub(super) fn remove(&self, db: &Connection) -> Result<(), StoreError> {
        match self.kind {
            Kind::Secrets => {
                db.prepare_cached("DELETE FROM secrets WHERE connection = ?1 AND version = ?2")?
                    .execute(params![self.record, self.version])?;
                Ok(())
            }
            Kind::RotationKey => forget_declared(db),
            Kind::Variable | Kind::SealingKey => Ok(()),
        }
    }
}

/// Shows every row with a sealed value, a page at a time; `visit` may change the row it is shown.
pub(super) fn walk(db: &Connection, visit: &mut dyn FnMut(&Row) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let secrets = "SELECT s.connection, s.version, s.version = c.secret_version, s.sealed
         FROM secrets s JOIN connections c ON c.id = s.connection
         WHERE (s.connection, s.version) > (?1, ?2) ORDER BY s.connection, s.version LIMIT ?3";
    let variables = "SELECT key, version, 1, sealed FROM variables
         WHERE (key, ?2) > (?1, ?2) ORDER BY key LIMIT ?3";
    for (kind, sql) in [(Kind::Secrets, secrets), (Kind::Variable, variables)] {
        let (mut record, mut version) = (String::new(), 0_i64);
        loop {
            let mut statement = db.prepare_cached(sql)?;
            let rows = statement.query_map(params![record, version, PAGE], |row| {
                Ok(Row { kind, record: row.get(0)?, version: row.get(1)?, in_use: row.get(2)?, sealed: row.get(3)? })
            })?;
            let page: Vec<Row> = rows.collect::<Result<_, _>>()?;
            let Some(last) = page.last() else { break };
            (record, version) = (last.record.clone(), last.version);
            page.iter().try_for_each(&mut *visit)?;
        }
    }
    let mut key = db.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
    for (kind, name, in_use) in [(Kind::RotationKey, ROTATION_KEY, false), (Kind::SealingKey, SEALING_KEY, true)] {
        if let Some(sealed) = key.query_row([name], |row| row.get(0)).optional()? {
            visit(&Row { kind, record: name.to_owned(), version: 1, in_use, sealed })?;
        }
    }
    Ok(())
}

/// What a look at everything in a store found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Connections.
    pub connections: u64,
    /// Sealed sets of secrets, every kept version of each connection.
    pub secrets: u64,
    /// Credential variables.
    pub variables: u64,
    /// Connections and variables whose values are gone with an earlier master key.
    pub lost: Vec<String>,
    /// What does not open, or cannot be read; each as one sentence.
    pub unreadable: Vec<String>,
}

/// Looks at everything: the file's own structure, every record, every sealed value.
pub(super) fn check(db: &Connection, key: &MasterKey) -> Result<Checked, StoreError> {
    let mut checked = Checked::default();
    let verdict: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        checked.unreadable.push(format!("the database: {verdict}"));
    }
    let astray: i64 = db.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0))?;
    if astray > 0 {
        checked.unreadable.push(format!("the database: {astray} rows refer to connections that are not there"));
    }
    for row in records_of(db)? {
        checked.connections += 1;
        if row.lost {
            checked.lost.push(format!("connection {}", row.id));
        }
        if let Err(error) = records::decode(&row, key.records()) {
            checked.unreadable.push(error.to_string());
        }
    }
    walk(db, &mut |row| {
        match row.kind {
            Kind::Secrets => checked.secrets += 1,
            Kind::Variable => checked.variables += 1,
            Kind::RotationKey | Kind::SealingKey => {}
        }
        if row.sealed.is_empty() {
            checked.lost.push(row.name());
            return Ok(());
        }
        match key.open(row.place(), &row.sealed) {
            Ok(value) if row.kind == Kind::Secrets && records::decode_secrets(&value).is_none() => {
                checked.unreadable.push(format!("{}: its secrets are not readable", row.name()));
            }
            Ok(_) => {}
            Err(error) => checked.unreadable.push(format!("{}: {error}", row.name())),
        }
        Ok(())
    })?;
    Ok(checked)
}

/// The connections and variables whose values `start over` takes away, by name, and their count of sealed rows.
pub(super) fn names(db: &Connection) -> Result<(Vec<String>, Vec<String>), StoreError> {
    let list = |sql: &str| -> Result<Vec<String>, StoreError> {
        let mut statement = db.prepare(sql)?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    };
    Ok((list("SELECT id FROM connections ORDER BY id")?, list("SELECT key FROM variables ORDER BY key")?))
}

/// Takes every sealed value away; the records stay.
pub(super) fn forget(db: &Connection) -> Result<(), StoreError> {
    db.execute("DELETE FROM secrets", [])?;
    db.execute("UPDATE variables SET sealed = x''", [])?;
    db.execute("DELETE FROM meta WHERE name = ?1", [SEALING_KEY])?;
    forget_declared(db)
}

/// Forgets the secrets of what is declared: the next start sees them for the first time.
fn forget_declared(db: &Connection) -> Result<(), StoreError> {
    db.execute("DELETE FROM declared_secrets", [])?;
    db.execute("DELETE FROM meta WHERE name = ?1", [ROTATION_KEY])?;
    Ok(())
}

/// Gives every record the mark of `key`. With `known` each must bear the mark of that key; the ids of those that do not are
/// returned, and keep what they have.
pub(super) fn mark_all(db: &Connection, known: Option<&MasterKey>, key: &MasterKey) -> Result<Vec<String>, StoreError> {
    let mut strange = Vec::new();
    let mut write = db.prepare_cached("UPDATE connections SET mark = ?2 WHERE id = ?1")?;
    for row in records_of(db)? {
        match known.map(|known| records::decode(&row, known.records())) {
            Some(Err(error)) => strange.push(error.to_string()),
            Some(Ok(_)) | None => {
                write
                    .execute(params![row.id, records::mark(&row.id, &row.record, row.secret_version, key.records())])?;
            }
        }
    }
    Ok(strange)
}

fn records_of(db: &Connection) -> Result<Vec<ConnectionRow>, StoreError> {
    let mut statement = db.prepare_cached(crate::store::engine::CONNECTION)?;
    let rows = statement.query_map([], crate::store::engine::connection_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

//! Since when the secrets of what is declared are what they are. Nobody tells of their rotation, so a digest of what was
//! seen last lies in the store: the time outlives the process, and a secret that is out of reach for a while is no new one
//! when it comes back.
//!
//! A digest is an HMAC under a random key that is sealed like a secret, and cut to 128 bits: whoever reads the file can
//! neither guess at a value nor see that two are the same.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use rusqlite::params;

use crate::domain::secret::Secret;
use crate::domain::time::UnixMillis;
use crate::store::StoreError;
use crate::store::declared::HeldVariables;
use crate::store::engine::Engine;
use crate::store::engine::Writer;
use crate::store::seal::DigestKey;
use crate::store::sealed::ROTATION_KEY;
use crate::store::sealed::ROTATION_KEY_PLACE;
use crate::store::variables::Variables;
use crate::store::vault::Vault;
use crate::sys::random;

/// Bytes of a digest that are kept of a secret's name, and of its value.
const NAME_BYTES: usize = 8;
const VALUE_BYTES: usize = 16;
/// Name of a variable's only value.
const VALUE: &str = "value";

/// Whose secrets they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    /// A declared connection.
    Connection,
    /// A declared variable.
    Variable,
}

impl Owner {
    const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Variable => "variable",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Connection, Self::Variable].into_iter().find(|owner| owner.name() == name)
    }
}

/// Of each secret, in the order of their names: the digest of its name and that of its value. They are few.
type Digests = Vec<([u8; NAME_BYTES], [u8; VALUE_BYTES])>;

/// What was seen last of one owner.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    digests: Digests,
    /// When one of its secrets was first seen with its value.
    at: UnixMillis,
}

/// What was seen last, and what is seen now.
#[derive(Debug)]
pub(super) struct Clock {
    key: DigestKey,
    /// The key as it is to be written, where it is a new one.
    sealed: Option<Vec<u8>>,
    before: BTreeMap<(Owner, String), Seen>,
    now: BTreeMap<(Owner, String), Seen>,
}

impl Clock {
    /// Looks at the secrets of one owner by name, `None` where there is no value now: since when they are what they are,
    /// and whether one of them differs from what was seen before.
    pub(super) fn see<'a>(
        &mut self,
        owner: Owner,
        name: &str,
        secrets: impl Iterator<Item = (&'a str, Option<&'a str>)>,
        now: UnixMillis,
    ) -> (UnixMillis, bool) {
        let place = (owner, name.to_owned());
        let known = self.now.get(&place).or_else(|| self.before.get(&place));
        let mut digests = Digests::new();
        for (secret, value) in secrets {
            let of_name = self.key.digest(&[owner.name(), name, secret]);
            match value {
                Some(value) => digests.push((of_name, self.key.digest(&[owner.name(), name, secret, value]))),
                None => digests.extend(known.and_then(|known| known.digests.iter().find(|held| held.0 == of_name))),
            }
        }
        let differs = |known: &&Seen| digests.iter().any(|held| !known.digests.contains(held));
        let rotated = known.filter(differs).is_some();
        let at = known.map_or(now, |known| if rotated { now } else { known.at });
        self.now.insert(place, Seen { digests, at });
        (at, rotated)
    }

    fn knows(&self, owner: Owner, name: &str) -> bool {
        let place = (owner, name.to_owned());
        self.now.contains_key(&place) || self.before.contains_key(&place)
    }

    /// Connections that were not declared before.
    fn appeared(&self) -> impl Iterator<Item = &str> {
        let added = self.now.keys().filter(|place| !self.before.contains_key(place));
        added.filter(|(owner, _)| *owner == Owner::Connection).map(|(_, name)| name.as_str())
    }

    /// Whether a look at everything found what was there before.
    pub(super) fn is_same(&self) -> bool {
        self.now == self.before
    }

    /// Whether it found the same variables with the same values.
    pub(super) fn has_same_variables(&self) -> bool {
        fn variables(of: &BTreeMap<(Owner, String), Seen>) -> impl Iterator<Item = (&String, &Seen)> {
            of.iter().filter(|((owner, _), _)| *owner == Owner::Variable).map(|((_, key), seen)| (key, seen))
        }
        variables(&self.now).eq(variables(&self.before))
    }

    /// Writes down what was seen. With `all` everything declared was looked at: what was not seen is forgotten, and the
    /// last test of what was not there before was another connection's.
    pub(super) fn write(&self, writer: &Writer<'_>, all: bool) -> Result<(), StoreError> {
        if let Some(sealed) = &self.sealed {
            writer.transaction.execute("DELETE FROM declared_secrets", [])?;
            writer.set_meta(ROTATION_KEY, sealed)?;
        }
        let mut put = writer.transaction.prepare_cached(
            "INSERT INTO declared_secrets (owner, name, digests, since_ms) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (owner, name) DO UPDATE SET digests = excluded.digests, since_ms = excluded.since_ms",
        )?;
        for (place, seen) in self.now.iter().filter(|(place, seen)| self.before.get(*place) != Some(seen)) {
            let digests: Vec<u8> =
                seen.digests.iter().flat_map(|(of_name, value)| of_name.iter().chain(value)).copied().collect();
            put.execute(params![place.0.name(), place.1, digests, i64::try_from(seen.at.0).unwrap_or(i64::MAX)])?;
        }
        if !all {
            return Ok(());
        }
        self.appeared().try_for_each(|name| writer.forget_test(name))?;
        let mut remove =
            writer.transaction.prepare_cached("DELETE FROM declared_secrets WHERE owner = ?1 AND name = ?2")?;
        for (owner, name) in self.before.keys().filter(|place| !self.now.contains_key(place)) {
            remove.execute(params![owner.name(), name])?;
            if *owner == Owner::Connection {
                writer.forget_test(name)?;
                writer.forget_uses(name)?;
            }
        }
        Ok(())
    }
}

impl Engine {
    fn declared_secrets(&self) -> Result<BTreeMap<(Owner, String), Seen>, StoreError> {
        let mut statement = self.db.prepare_cached("SELECT owner, name, digests, since_ms FROM declared_secrets")?;
        let rows = statement.query_map([], |row| {
            let (owner, digests) = (row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(2)?);
            let at = UnixMillis(u64::try_from(row.get::<_, i64>(3)?).unwrap_or_default());
            Ok((Owner::parse(&owner), row.get::<_, String>(1)?, Seen { digests: decode(&digests), at }))
        })?;
        let mut seen = BTreeMap::new();
        for row in rows {
            if let (Some(owner), name, row) = row? {
                seen.insert((owner, name), row);
            }
        }
        Ok(seen)
    }
}

impl Vault {
    /// What was seen last. A key that does not open any more begins anew: what is declared says itself what it is.
    pub(super) fn clock(&self) -> Result<Clock, StoreError> {
        if let Some(held) = self.engine.meta(ROTATION_KEY)? {
            match self.key.open(ROTATION_KEY_PLACE, &held) {
                Ok(key) => {
                    let (key, before) = (DigestKey::new(&key), self.engine.declared_secrets()?);
                    return Ok(Clock { key, sealed: None, before, now: BTreeMap::new() });
                }
                Err(error) => {
                    tracing::warn!(%error, "since when declared secrets are what they are is not known any more")
                }
            }
        }
        let key = zeroize::Zeroizing::new(random::bytes::<32>()?);
        let sealed = Some(self.key.seal(ROTATION_KEY_PLACE, key.as_slice())?);
        Ok(Clock { key: DigestKey::new(key.as_slice()), sealed, before: BTreeMap::new(), now: BTreeMap::new() })
    }

    /// Looks at the variables that `next` declares: the keys under which stored connections find another value than before,
    /// also because a declaration begins or ends to count.
    pub(super) fn see_variables(
        &self,
        clock: &mut Clock,
        next: &HeldVariables,
        now: UnixMillis,
    ) -> Result<BTreeSet<String>, StoreError> {
        fn see(clock: &mut Clock, key: &str, value: Option<&Secret>, now: UnixMillis) -> bool {
            clock.see(Owner::Variable, key, std::iter::once((VALUE, value.map(Secret::expose))), now).1
        }
        let variables = Variables::new(self, next);
        let mut rotated = BTreeSet::new();
        for key in next.keys() {
            if !clock.knows(Owner::Variable, key)
                && let Ok(Some(stored)) = self.stored_variable(key)
            {
                see(clock, key, Some(&stored), now);
            }
            if see(clock, key, variables.value(key).ok().as_ref(), now) {
                rotated.insert(key.clone());
            }
        }
        let before: Vec<_> = clock.before.keys().filter(|(owner, _)| *owner == Owner::Variable).cloned().collect();
        for place in before.into_iter().filter(|(_, key)| !next.contains_key(key)) {
            if let Ok(Some(stored)) = self.stored_variable(&place.1)
                && see(clock, &place.1, Some(&stored), now)
            {
                rotated.insert(place.1.clone());
            }
            clock.now.remove(&place);
        }
        Ok(rotated)
    }

    /// Looks at one declared variable again.
    pub(super) fn see_variable(&self, clock: &mut Clock, key: &str, variables: &Variables<'_>, now: UnixMillis) {
        let value = variables.value(key).ok();
        clock.see(Owner::Variable, key, std::iter::once((VALUE, value.as_ref().map(Secret::expose))), now);
    }
}

/// The digests of a row; what is no whole one counts as nothing.
fn decode(bytes: &[u8]) -> Digests {
    let entries = bytes.chunks_exact(NAME_BYTES + VALUE_BYTES);
    let halves = entries.filter_map(|entry| entry.split_first_chunk::<NAME_BYTES>());
    halves.filter_map(|(of_name, value)| Some((*of_name, value.try_into().ok()?))).collect()
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;

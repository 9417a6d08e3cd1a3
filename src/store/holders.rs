//! Which of these values the store holds already, and where: asked before a key is taken out of a file.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::domain::reference::variable_of;
use crate::domain::secret::Secret;
use crate::store::StoreError;
use crate::store::records;
use crate::store::vault::Vault;

/// Where one value is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holder {
    /// Whether a stored variable or a stored secret has it. What is declared lies elsewhere and does not count.
    pub is_stored: bool,
    /// A variable that has it and that a secret may refer to.
    pub variable: Option<String>,
    /// A connection that has it, itself or through such a variable.
    pub connection: Option<String>,
}

/// Where all of them are.
#[derive(Debug, Default)]
pub struct Holders {
    /// By place of the value in what was asked.
    pub of: Vec<Holder>,
    /// Keys of all variables, stored and declared.
    pub taken: BTreeSet<String>,
}

impl Vault {
    /// Looks for each of these values. Opens every secret there is; what does not open holds nothing.
    pub fn holders(&self, values: &[&Secret]) -> Result<Holders, StoreError> {
        let mut holders = Holders { of: vec![Holder::default(); values.len()], taken: BTreeSet::new() };
        let mut wanted: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, value) in values.iter().enumerate() {
            wanted.entry(value.expose()).or_default().push(index);
        }
        let mut through: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for listed in self.list_variables()? {
            let (key, is_declared) = (listed.record.key, listed.declared.is_some());
            // Behind a declared one may lie a stored one, which nobody can refer to.
            let stored = self.stored_variable(&key).ok().flatten();
            let found = stored.as_ref().and_then(|value| wanted.get(value.expose()));
            for index in found.into_iter().flatten() {
                let Some(holder) = holders.of.get_mut(*index) else { continue };
                holder.is_stored = true;
                if !is_declared {
                    holder.variable.get_or_insert_with(|| key.clone());
                    through.entry(key.clone()).or_default().push(*index);
                }
            }
            holders.taken.insert(key);
        }
        if wanted.is_empty() {
            return Ok(holders);
        }
        for row in self.engine.connections()? {
            let Ok(record) = records::decode(&row, self.key.records()) else { continue };
            let Ok(secrets) = self.secrets(&record) else { continue };
            for secret in secrets.values() {
                let own = wanted.get(secret.expose()).into_iter().flatten();
                let referred = variable_of(secret.expose()).and_then(|key| through.get(key)).into_iter().flatten();
                for index in own.chain(referred) {
                    let Some(holder) = holders.of.get_mut(*index) else { continue };
                    holder.is_stored = true;
                    holder.connection.get_or_insert_with(|| row.id.clone());
                }
            }
        }
        Ok(holders)
    }
}

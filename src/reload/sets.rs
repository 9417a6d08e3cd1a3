//! What the configuration wants of secrets, and what was found of it: one set that is put in force whole.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::Config;
use crate::config::declaration::ProviderConfig;
use crate::config::declaration::SecretSource;
use crate::domain::reference::SourceKind;
use crate::domain::secret::Secret;
use crate::secrets::Found;
use crate::secrets::Origin;
use crate::wire::reload::UnresolvedBody;

/// A reference, and where in the file it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Want {
    /// Like `connections[3].secrets.api_key`.
    pub(super) path: String,
    pub(super) origin: Origin,
}

/// All references of a configuration, in its order.
#[derive(Debug, Default)]
pub(super) struct Wants {
    /// Of active connections, and of variables: anybody may refer to those.
    pub(super) active: Vec<Want>,
    /// Of disabled connections. Nobody needs what they lead to.
    pub(super) inactive: Vec<Want>,
}

impl Wants {
    pub(super) fn of(config: &Config) -> Self {
        let mut wants = Self::default();
        for (index, connection) in config.connections.iter().enumerate() {
            let active = connection.checked.settings.active;
            let list = if active { &mut wants.active } else { &mut wants.inactive };
            for (name, source) in &connection.secrets {
                if let Some(origin) = Origin::of(source) {
                    list.push(Want { path: format!("connections[{index}].secrets.{name}"), origin });
                }
            }
        }
        for variable in &config.variables {
            if let Some(origin) = Origin::of(&variable.source) {
                wants.active.push(Want { path: format!("variables.{}", variable.key), origin });
            }
        }
        wants
    }

    /// Where the references in use lead to, the store excepted, whose keeper is another.
    pub(super) fn origins(&self) -> BTreeSet<Origin> {
        self.active.iter().filter(|want| !is_store(&want.origin)).map(|want| want.origin.clone()).collect()
    }
}

/// Whether it is a credential variable.
pub(super) fn is_store(origin: &Origin) -> bool {
    matches!(origin, Origin::Reference(reference) if reference.source() == SourceKind::Store)
}

/// Whether it is a variable of the environment.
pub(super) fn is_env(origin: &Origin) -> bool {
    matches!(origin, Origin::Reference(reference) if reference.source() == SourceKind::Env)
}

/// Secrets by origin, all found together or kept from before.
#[derive(Debug, Clone, Default)]
pub(super) struct SecretSet(BTreeMap<Origin, Arc<Secret>>);

impl SecretSet {
    /// The set `wants` ask for, from what was `found` now and, where nothing was looked for, from what is in force.
    /// `Err`: every reference without a secret, in the order of the file.
    pub(super) fn gather(wants: &Wants, found: &Found, before: &Self) -> Result<Self, Vec<UnresolvedBody>> {
        let mut set = BTreeMap::new();
        let mut missing = Vec::new();
        for want in wants.active.iter().filter(|want| !is_store(&want.origin)) {
            if set.contains_key(&want.origin) {
                continue;
            }
            let secret = match (found.get(&want.origin), before.0.get(&want.origin)) {
                (Some(Ok(secret)), _) | (None, Some(secret)) => Ok(Arc::clone(secret)),
                (Some(Err(reason)), _) => Err(reason.clone()),
                (None, None) => Err("it was not looked for".to_owned()),
            };
            match secret {
                Ok(secret) => {
                    set.insert(want.origin.clone(), secret);
                }
                Err(message) => missing.push(unresolved(want, message)),
            }
        }
        if missing.is_empty() { Ok(Self(set)) } else { Err(missing) }
    }

    /// The same without the secrets of these references.
    pub(super) fn without(&self, references: &BTreeSet<String>) -> Self {
        let kept = self.0.iter().filter(|(origin, _)| !references.contains(&origin.to_string()));
        Self(kept.map(|(origin, secret)| (origin.clone(), Arc::clone(secret))).collect())
    }

    pub(super) fn find(&self, origin: &Origin) -> Option<&Arc<Secret>> {
        self.0.get(origin)
    }

    /// How many secrets are others than in `before`, or were not there.
    pub(super) fn changed_since(&self, before: &Self) -> usize {
        self.0.iter().filter(|(origin, secret)| before.0.get(*origin) != Some(*secret)).count()
    }
}

/// A reference without a secret, as it is told.
pub(super) fn unresolved(want: &Want, message: String) -> UnresolvedBody {
    UnresolvedBody { path: want.path.clone(), reference: want.origin.to_string(), message }
}

/// In one line: `connections[3].secrets.api_key (file:keys:/slack/token): …`.
pub(super) fn said(unresolved: &UnresolvedBody) -> String {
    format!("{} ({}): {}", unresolved.path, unresolved.reference, unresolved.message)
}

/// The files secrets in use lie in.
pub(super) fn files(config: &Config) -> BTreeSet<PathBuf> {
    let active = config.connections.iter().filter(|connection| connection.checked.settings.active);
    let sources = active.flat_map(|connection| connection.secrets.values());
    let sources = sources.chain(config.variables.iter().map(|variable| &variable.source));
    let file = |source: &SecretSource| match source {
        SecretSource::File { path, .. } => Some(path.clone()),
        SecretSource::Reference(reference) if reference.source() == SourceKind::File => {
            match config.secrets.providers.get(reference.provider()) {
                Some(ProviderConfig::File { path, .. }) => Some(path.clone()),
                Some(ProviderConfig::Env { .. } | ProviderConfig::Exec(_)) | None => None,
            }
        }
        SecretSource::Reference(_) | SecretSource::Literal(_) => None,
    };
    sources.filter_map(file).collect()
}

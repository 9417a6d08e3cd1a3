//! From a configuration and its secrets to what the store's thread publishes, as one version.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Config;
use crate::config::declaration::SecretSource;
use crate::domain::audit::Action;
use crate::domain::audit::Asker;
use crate::domain::record::Secrets;
use crate::domain::record::check_injection;
use crate::reload::sets::SecretSet;
use crate::reload::sets::Want;
use crate::reload::sets::Wants;
use crate::reload::sets::is_store;
use crate::reload::sets::unresolved;
use crate::secrets::Origin;
use crate::store::StoreError;
use crate::store::declared::Applied;
use crate::store::declared::Place;
use crate::store::declared::Resolved;
use crate::store::declared::ResolvedConnection;
use crate::store::declared::ResolvedSecret;
use crate::store::declared::ResolvedVariable;
use crate::store::unfit::Unfit;
use crate::store::vault::Vault;
use crate::store::worker::Store;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::wire::reload::UnresolvedBody;

/// Why nothing was published.
#[derive(Debug)]
pub(super) enum Failure {
    /// Credential variables that are not there.
    Unresolved(Vec<UnresolvedBody>),
    /// The store.
    Store(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What a configuration declares, with the secrets of `set`.
pub(super) fn resolved(config: &Config, set: &SecretSet) -> Resolved {
    let file = config.paths.config_file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let file: Arc<str> = file.into();
    let place = |line| Place { file: Arc::clone(&file), line };
    let connections = config.connections.iter().map(|declared| {
        let active = declared.checked.settings.active;
        let secrets = declared.secrets.iter();
        let secrets: BTreeMap<_, _> =
            secrets.map(|(name, source)| (name.clone(), secret(source, set, active))).collect();
        ResolvedConnection { draft: declared.checked.clone(), secrets, place: place(declared.line) }
    });
    let variables = config.variables.iter().map(|variable| ResolvedVariable {
        key: variable.key.clone(),
        value: secret(&variable.source, set, true),
        place: place(variable.line),
    });
    Resolved {
        settings: config.settings.clone(),
        approvals: config.approvals.clone(),
        connections: connections.collect(),
        variables: variables.collect(),
        names: Vec::new(),
    }
}

fn secret(source: &SecretSource, set: &SecretSet, active: bool) -> ResolvedSecret {
    if let SecretSource::Literal(secret) = source {
        return ResolvedSecret::Value(Arc::new(secret.duplicate()));
    }
    if let Some(key) = source.variable() {
        return ResolvedSecret::Variable(key.to_owned());
    }
    match Origin::of(source).and_then(|origin| set.find(&origin).cloned()) {
        Some(secret) => ResolvedSecret::Value(secret),
        None if active => ResolvedSecret::Unusable("its secret cannot be resolved".to_owned()),
        None => ResolvedSecret::Unusable("the connection is disabled, so its secrets are not resolved".to_owned()),
    }
}

/// Secrets of active connections that cannot be sent the way the connection says.
pub(super) fn unfit(config: &Config, set: &SecretSet) -> Vec<UnresolvedBody> {
    let active = config.connections.iter().enumerate().filter(|(_, declared)| declared.checked.settings.active);
    let judged = active.filter_map(|(index, declared)| {
        let key = declared.checked.auth_secret_key.as_deref()?;
        let source = declared.secrets.get(key)?;
        let origin = Origin::of(source)?;
        let only = Secrets::from([(key.to_owned(), set.find(&origin)?.duplicate())]);
        let error = check_injection(&declared.checked.settings, Some(key), &only).err()?;
        let want = Want { path: format!("connections[{index}].secrets.{key}"), origin };
        Some(unresolved(&want, error.to_string()))
    });
    judged.collect()
}

/// References in use to credential variables that neither the configuration nor the store has.
fn missing(needed: &[Want], vault: &Vault) -> Result<Vec<UnresolvedBody>, StoreError> {
    let mut found = Vec::new();
    for want in needed {
        let Origin::Reference(reference) = &want.origin else { continue };
        match vault.stored_variable(reference.id()) {
            Ok(Some(_)) => {}
            Ok(None) => found.push(unresolved(want, format!("there is no credential variable {}", reference.id()))),
            Err(StoreError::Lost) => found.push(unresolved(want, StoreError::Lost.to_string())),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The references in use that lead to the store.
pub(super) fn stored(wants: &Wants, config: &Config) -> Vec<Want> {
    let declared = |origin: &Origin| match origin {
        Origin::Reference(reference) => config.variables.iter().any(|variable| variable.key == reference.id()),
        Origin::File { .. } => false,
    };
    let wants = wants.active.iter().filter(|want| is_store(&want.origin) && !declared(&want.origin));
    wants.cloned().collect()
}

/// Connections that could not inject the value a credential variable has in `next`, as references without a secret: the
/// reference is the one the value comes from.
fn told(config: &Config, unfit: &[Unfit]) -> Vec<UnresolvedBody> {
    let body = |unfit: &Unfit| {
        let (key, origin) = source_of(config, &unfit.variable);
        let declared = config.variables.iter().any(|variable| variable.key == key);
        let at = config.connections.iter().position(|declared| declared.id().as_str() == unfit.connection);
        let path = match at {
            Some(index) if !declared => format!("connections[{index}].secrets.{}", unfit.secret),
            Some(_) | None => format!("variables.{key}"),
        };
        let message = format!("connection {} cannot inject it: {}", unfit.connection, unfit.reason);
        UnresolvedBody {
            path,
            reference: origin.map_or_else(|| format!("{{{{{key}}}}}"), |of| of.to_string()),
            message,
        }
    };
    unfit.iter().map(body).collect()
}

/// The variable a value comes from in the end, and where that one has it from.
fn source_of(config: &Config, key: &str) -> (String, Option<Origin>) {
    let find = |key: &str| config.variables.iter().find(|variable| variable.key == key);
    let (mut key, mut origin) = (key.to_owned(), None);
    // Those of the file form no circle; each step leads to another one.
    for _ in 0..=config.variables.len() {
        let Some(variable) = find(&key) else { break };
        origin = Origin::of(&variable.source);
        match variable.source.variable() {
            Some(next) => next.clone_into(&mut key),
            None => break,
        }
    }
    (key, origin)
}

/// Why the store's thread will not take a declaration.
#[derive(Debug)]
pub(super) enum Refusal {
    Missing(Vec<UnresolvedBody>),
    Unfit(Vec<Unfit>),
}

impl Refusal {
    fn told(self, config: &Config) -> Failure {
        Failure::Unresolved(self.lines(config))
    }

    /// As references without a secret.
    pub(super) fn lines(self, config: &Config) -> Vec<UnresolvedBody> {
        match self {
            Self::Missing(missing) => missing,
            Self::Unfit(unfit) => told(config, &unfit),
        }
    }
}

/// What the store has against a declaration.
pub(super) fn refusal(next: &Resolved, needed: &[Want], vault: &Vault) -> Result<Option<Refusal>, StoreError> {
    let missing = missing(needed, vault)?;
    if !missing.is_empty() {
        return Ok(Some(Refusal::Missing(missing)));
    }
    let unfit = vault.unfit(next)?;
    Ok(if unfit.is_empty() { None } else { Some(Refusal::Unfit(unfit)) })
}

/// Whether the store would take a declaration now.
pub(super) async fn check(store: &Store, config: &Config, next: Resolved, needed: Vec<Want>) -> Result<(), Failure> {
    match store.read(move |vault| refusal(&next, &needed, vault)).await? {
        Some(refused) => Err(refused.told(config)),
        None => Ok(()),
    }
}

/// Puts a declaration in force: all of it as one version, or nothing where one of `needed` is not there, or a connection
/// could not inject what it would get. `config`: what it was made of.
pub(super) async fn publish(
    store: &Store,
    config: &Config,
    next: Resolved,
    needed: Vec<Want>,
    action: Action,
    asker: Asker,
) -> Result<Applied, Failure> {
    let now = SystemClock.now().wall;
    let done = store.change_if(move |vault| {
        if let Some(refused) = refusal(&next, &needed, vault)? {
            return Ok((Err(refused), None));
        }
        let (applied, change) = vault.declare(next, action, &asker, now)?;
        Ok((Ok(applied), change))
    });
    let applied = done.await?.map_err(|refused| refused.told(config))?;
    for id in &applied.shadowed {
        tracing::debug!(connection = id, "a stored connection is hidden by a declared one of the same id");
    }
    Ok(applied)
}

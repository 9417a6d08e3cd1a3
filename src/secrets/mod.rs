//! References to secrets, resolved: all of a set or none, each from where it lives.
//!
//! Owns the reading of variables, files and provider programs. Promises that a set is read from each file and each
//! program once, so that it fits together; that everything has a bound in size and time; that no message holds a value;
//! and that nothing of ours leaks into a program that is asked. Knows no connection and keeps nothing.

pub mod answer;
pub mod exec;
pub mod file;
pub mod json;
pub mod redact;
pub mod residue;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::declaration::ExecProvider;
use crate::config::declaration::ProviderConfig;
use crate::config::declaration::SecretSource;
use crate::config::declaration::SecretsOptions;
use crate::config::keys;
use crate::domain::record::MAX_SECRET_BYTES;
use crate::domain::reference::DEFAULT_PROVIDER;
use crate::domain::reference::SecretRef;
use crate::domain::reference::SourceKind;
use crate::domain::reference::WHOLE_FILE;
use crate::domain::secret::Secret;
use crate::secrets::exec::Launcher;
use crate::secrets::file::Rules;
use crate::secrets::json::Json;
use crate::sys::env;

/// Largest file that is named in place, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// How long reading a file that is named in place may take.
const FILE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a secret lives, without the secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// At a provider.
    Reference(SecretRef),
    /// In a file that was named in place.
    File {
        /// Absolute.
        path: PathBuf,
        /// `value` for the whole file, or a JSON pointer.
        id: String,
    },
}

impl Origin {
    /// Where a source of the configuration lives; `None` for a secret that stands there itself.
    pub fn of(source: &SecretSource) -> Option<Self> {
        match source {
            SecretSource::Reference(reference) => Some(Self::Reference(reference.clone())),
            SecretSource::File { path, id } => Some(Self::File { path: path.clone(), id: id.clone() }),
            SecretSource::Literal(_) => None,
        }
    }
}

impl fmt::Display for Origin {
    /// `source:provider:id`, or `file:PATH` with `#POINTER` where it is not the whole file.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reference(reference) => reference.fmt(formatter),
            Self::File { path, id } if id == WHOLE_FILE => write!(formatter, "file:{}", path.display()),
            Self::File { path, id } => write!(formatter, "file:{}#{id}", path.display()),
        }
    }
}

/// What was found of one origin.
type Answer = (Origin, Result<Arc<Secret>, String>);
/// What was found, by origin: the secret, or why there is none.
pub type Found = BTreeMap<Origin, Result<Arc<Secret>, String>>;

/// The environment secrets are looked up in.
#[derive(Debug, Default)]
pub struct Environment {
    handed: Vec<(String, Secret)>,
    supervised: bool,
}

impl Environment {
    /// This process's own, with what a supervisor handed over standing above it. `supervised`: what was not handed
    /// over is not known here, because the supervisor hands over exactly what the configuration named when it started.
    pub const fn new(handed: Vec<(String, Secret)>, supervised: bool) -> Self {
        Self { handed, supervised }
    }

    /// The value of a variable. Blank counts as unset.
    pub fn find(&self, name: &str) -> Result<Secret, String> {
        // A reference sends what it leads to to a provider.
        if keys::is_own_secret(name) {
            return Err(format!("the variable {name} holds a secret of the gateway's own"));
        }
        if let Some((_, secret)) = self.handed.iter().find(|(known, _)| known == name) {
            // What was handed over may stand for a value that is too long for that.
            check_length(secret).map_err(|reason| format!("the variable {name} {reason}"))?;
            return Ok(secret.duplicate());
        }
        match env::lookup(name) {
            Some(value) => Ok(Secret::new(value)),
            None if self.supervised => Err(format!(
                "the variable {name} is not set, or was named by the configuration only after the gateway started: \
                 restart the gateway to hand it over"
            )),
            None => Err(format!("the variable {name} is not set")),
        }
    }
}

/// Finds secrets.
#[derive(Debug)]
pub struct Resolver {
    launcher: Launcher,
    environment: Environment,
}

impl Resolver {
    /// With what programs are started, and where variables are.
    pub const fn new(launcher: Launcher, environment: Environment) -> Self {
        Self { launcher, environment }
    }

    /// Finds all of `wanted` but those of the store, whose keeper is another. Each file is read and each provider asked
    /// once (a program once for each batch); who does not answer in its time gave an error.
    pub async fn resolve(&self, options: &SecretsOptions, wanted: BTreeSet<Origin>) -> Found {
        let mut found = Found::new();
        let mut files: BTreeMap<(PathBuf, Rules, Duration), Vec<(Origin, String)>> = BTreeMap::new();
        let mut programs: BTreeMap<String, (ExecProvider, Vec<SecretRef>)> = BTreeMap::new();
        for origin in wanted {
            let reference = match &origin {
                Origin::File { path, id } => {
                    let rules = Rules { max_bytes: MAX_FILE_BYTES, allow_group_read: false };
                    let (path, id) = (path.clone(), id.clone());
                    files.entry((path, rules, FILE_TIMEOUT)).or_default().push((origin, id));
                    continue;
                }
                Origin::Reference(reference) => reference.clone(),
            };
            let provider = options.providers.get(reference.provider());
            match (reference.source(), provider) {
                // The environment needs no declaration, whatever else has that name.
                (SourceKind::Env, provider)
                    if reference.provider() == DEFAULT_PROVIDER
                        && !matches!(provider, Some(ProviderConfig::Env { .. })) =>
                {
                    let secret = self.environment.find(reference.id()).map(Arc::new);
                    found.insert(origin, secret);
                }
                (SourceKind::Env, Some(ProviderConfig::Env { allowlist })) => {
                    let listed = allowlist.as_ref().is_none_or(|list| list.iter().any(|name| name == reference.id()));
                    let secret = if listed {
                        self.environment.find(reference.id()).map(Arc::new)
                    } else {
                        Err(format!("the provider's allowlist does not name {}", reference.id()))
                    };
                    found.insert(origin, secret);
                }
                (SourceKind::File, Some(ProviderConfig::File { path, max_bytes, timeout, allow_group_read })) => {
                    let rules = Rules { max_bytes: *max_bytes, allow_group_read: *allow_group_read };
                    let id = reference.id().to_owned();
                    files.entry((path.clone(), rules, *timeout)).or_default().push((origin, id));
                }
                (SourceKind::Exec, Some(ProviderConfig::Exec(program))) => {
                    let place = programs.entry(reference.provider().to_owned());
                    place.or_insert_with(|| (program.clone(), Vec::new())).1.push(reference);
                }
                // The configuration was judged: whoever asks with another one is told so.
                (SourceKind::Store, _) | (SourceKind::Env | SourceKind::File | SourceKind::Exec, _) => {
                    let reason =
                        format!("no provider {} of {} references", reference.provider(), reference.source().name());
                    found.insert(origin, Err(reason));
                }
            }
        }
        let mut work: JoinSet<Vec<Answer>> = JoinSet::new();
        let room = Arc::new(Semaphore::new(options.resolution.max_provider_concurrency.max(1)));
        for ((path, rules, timeout), wanted) in files {
            let room = Arc::clone(&room);
            work.spawn(async move {
                let _turn = room.acquire_owned().await;
                from_file(path, rules, timeout, wanted).await
            });
        }
        for (provider, (program, references)) in programs {
            let environment = self.passed(&program);
            let (launcher, room, resolution) = (self.launcher.clone(), Arc::clone(&room), options.resolution);
            work.spawn(async move {
                let _turn = room.acquire_owned().await;
                let mut found = Vec::with_capacity(references.len());
                for batch in batches(&references, resolution.max_refs_per_provider, resolution.max_batch_bytes) {
                    let ids: Vec<_> = batch.iter().map(SecretRef::id).collect();
                    let answers = match launcher.ask(&provider, &program, &ids, &environment).await {
                        Ok(answers) => answers,
                        Err(reason) => ids.iter().map(|_| Err(format!("the program {reason}"))).collect(),
                    };
                    let origins = batch.iter().cloned().map(Origin::Reference);
                    found.extend(origins.zip(answers.into_iter().map(|answer| answer.map(Arc::new))));
                }
                found
            });
        }
        while let Some(done) = work.join_next().await {
            match done {
                Ok(list) => found.extend(list),
                // Whatever was wanted of it is missing, which whoever wanted it sees.
                Err(error) => tracing::error!(%error, "a provider of secrets could not be asked"),
            }
        }
        for one in found.values_mut() {
            if let Ok(secret) = one
                && let Err(reason) = check_length(secret)
            {
                *one = Err(format!("what it leads to {reason}"));
            }
        }
        found
    }

    /// The variables a program gets. One that is not set is not passed.
    fn passed(&self, program: &ExecProvider) -> Vec<(String, Secret)> {
        let known = program.pass_env.iter().filter_map(|name| Some((name.clone(), self.environment.find(name).ok()?)));
        known.collect()
    }
}

/// No secret that came by reference is longer than one that is given may be.
fn check_length(secret: &Secret) -> Result<(), String> {
    // Blanks around it are not sent.
    match secret.expose().trim().len() {
        0..=MAX_SECRET_BYTES => Ok(()),
        _ => Err(format!("has more than {MAX_SECRET_BYTES} bytes, which no secret may have")),
    }
}

/// Lists of references that fit one question each: at most so many, and so many bytes of ids.
fn batches(references: &[SecretRef], most: usize, bytes: usize) -> Vec<&[SecretRef]> {
    let mut batches = Vec::new();
    let mut rest = references;
    while !rest.is_empty() {
        let mut size = 0_usize;
        let fits = rest.iter().take(most.max(1)).take_while(|reference| {
            // Quotes and a comma around each.
            size = size.saturating_add(reference.id().len()).saturating_add(3);
            size <= bytes
        });
        let (batch, more) = rest.split_at(fits.count().clamp(1, rest.len()));
        batches.push(batch);
        rest = more;
    }
    batches
}

/// Everything that is wanted of one file, from one reading of it.
async fn from_file(path: PathBuf, rules: Rules, timeout: Duration, wanted: Vec<(Origin, String)>) -> Vec<Answer> {
    let (shown, ids) = (path.display().to_string(), wanted.iter().map(|(_, id)| id.clone()).collect::<Vec<_>>());
    // A file of a network that does not answer blocks its thread, not us.
    let reading = tokio::task::spawn_blocking(move || {
        file::read(&path, rules, |bytes| {
            let json = ids.iter().any(|id| id != WHOLE_FILE).then(|| Json::parse(bytes));
            let found = ids.iter().map(|id| match &json {
                Some(Ok(json)) if id != WHOLE_FILE => pointed(json, id),
                Some(Err(error)) if id != WHOLE_FILE => Err(format!("is no JSON: {error}")),
                Some(_) | None => whole(bytes),
            });
            let found: Vec<_> = found.collect();
            // Half a file is no JSON.
            if matches!(&json, Some(Err(_))) { Err(found) } else { Ok(found) }
        })
    });
    let failed = |reason: String| wanted.iter().map(|_| Err(reason.clone())).collect::<Vec<_>>();
    let found: Vec<_> = match tokio::time::timeout(timeout, reading).await {
        Ok(Ok(Ok(found))) => {
            let found = found.into_iter();
            found.map(|one: Result<Secret, String>| one.map_err(|reason| format!("{shown} {reason}"))).collect()
        }
        Ok(Ok(Err(reason))) => failed(reason),
        Ok(Err(_)) => failed(format!("{shown} could not be read")),
        Err(_) => failed(format!("{shown} could not be read within {} ms", timeout.as_millis())),
    };
    let origins = wanted.into_iter().map(|(origin, _)| origin);
    origins.zip(found.into_iter().map(|one| one.map(Arc::new))).collect()
}

fn pointed(json: &Json, pointer: &str) -> Result<Secret, String> {
    match json.at(pointer) {
        Some(Json::Text(text)) if text.trim().is_empty() => Err(format!("has an empty text at {pointer}")),
        Some(Json::Text(text)) => Ok(Secret::new(text.as_str().to_owned())),
        Some(other) => Err(format!("has {} at {pointer}, not a text", other.kind())),
        None => Err(format!("has nothing at {pointer}")),
    }
}

/// The whole file, without the line end editors put there.
fn whole(bytes: &[u8]) -> Result<Secret, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    let text = answer::without_line_end(text);
    if text.trim().is_empty() {
        return Err("is blank".to_owned());
    }
    Ok(Secret::new(text.to_owned()))
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;

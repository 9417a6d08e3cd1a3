//! `secrets.providers` and `secrets.defaults`.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::declaration::ExecProvider;
use crate::config::declaration::MAX_PROVIDERS;
use crate::config::declaration::ProviderConfig;
use crate::config::declared::Path;
use crate::config::declared::Reader;
use crate::config::declared::absolute;
use crate::config::declared::blame;
use crate::config::declared::entries;
use crate::config::declared::member;
use crate::config::file::shown;
use crate::config::file::text_of;
use crate::config::form::Member;
use crate::config::mistake::Mistake;
use crate::config::structure::MAX_ARGUMENT_BYTES;
use crate::config::structure::PROVIDERS;
use crate::config::syntax::Entry;
use crate::config::syntax::Mark;
use crate::config::syntax::Node;
use crate::domain::reference::DEFAULT_PROVIDER;
use crate::domain::reference::SecretRef;
use crate::domain::reference::SourceKind;
use crate::domain::reference::is_provider;

/// How long a provider may take where nobody says it.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// How much it may say where nobody says it.
const DEFAULT_MAX_BYTES: u64 = 1024 * 1024;

/// The providers a reference may name.
#[derive(Debug, Default)]
pub(in crate::config) struct Providers {
    /// By name.
    pub(in crate::config) valid: BTreeMap<String, ProviderConfig>,
    /// Names of those something is wrong with: whoever refers to them is not to blame.
    broken: BTreeSet<String>,
    defaults: BTreeMap<SourceKind, String>,
}

impl Providers {
    /// The provider of a reference of this source that names none.
    pub(super) fn default_of(&self, source: SourceKind) -> &str {
        self.defaults.get(&source).map_or(DEFAULT_PROVIDER, String::as_str)
    }

    /// Whether the provider exists, is of the reference's source and gives away what it names.
    pub(super) fn judge(&self, reference: &SecretRef) -> Result<(), String> {
        let (name, source) = (reference.provider(), reference.source());
        if source == SourceKind::Store {
            let known = name == DEFAULT_PROVIDER;
            return if known { Ok(()) } else { Err("names a provider, but the store is only one".to_owned()) };
        }
        match self.valid.get(name) {
            Some(ProviderConfig::Env { allowlist: Some(allowed) })
                if source == SourceKind::Env && !allowed.iter().any(|known| known == reference.id()) =>
            {
                Err(format!("names a variable that is not in the allowlist of the provider {name}"))
            }
            Some(provider) if provider.source() == source => Ok(()),
            // The environment needs no declaration.
            _ if source == SourceKind::Env && name == DEFAULT_PROVIDER => Ok(()),
            _ if self.broken.contains(name) => Ok(()),
            Some(provider) => {
                Err(format!("names the provider {name} as {}, but it is {}", source.name(), provider.source().name()))
            }
            None => Err(format!("names the provider {name}, which secrets.providers does not have")),
        }
    }
}

/// Reads both parts.
pub(in crate::config) fn read(
    providers: Option<Node>,
    defaults: Option<Node>,
    home: Option<&str>,
    mistakes: &mut Vec<Mistake>,
) -> Providers {
    let mut all = Providers::default();
    if let Some(node) = providers {
        let path = Path::Root("secrets.providers");
        let mark = node.mark;
        let entries = entries(node, &path, mistakes).unwrap_or_default();
        if entries.len() > MAX_PROVIDERS {
            blame(mistakes, mark, &path, &format!("has more than {MAX_PROVIDERS} entries"));
        }
        for Entry { key, mark, value } in entries.into_iter().take(MAX_PROVIDERS) {
            let path = Path::Member(&path, &key);
            if !is_provider(&key) {
                blame(mistakes, mark, &path, "must be named by ^[a-z][a-z0-9_-]{0,63}$");
                continue;
            }
            match provider(value, &path, home, mistakes) {
                Some(provider) => drop(all.valid.insert(key, provider)),
                None => drop(all.broken.insert(key)),
            }
        }
    }
    if let Some(node) = defaults {
        read_defaults(node, &mut all, mistakes);
    }
    all
}

fn read_defaults(node: Node, all: &mut Providers, mistakes: &mut Vec<Mistake>) {
    let path = Path::Root("secrets.defaults");
    for Entry { key, mark, value } in entries(node, &path, mistakes).unwrap_or_default() {
        let path = Path::Member(&path, &key);
        let source = match SourceKind::parse(&key) {
            Some(source @ (SourceKind::Env | SourceKind::File | SourceKind::Exec)) => source,
            Some(SourceKind::Store) | None => {
                blame(mistakes, mark, &path, "is not known; known are env, file, exec");
                continue;
            }
        };
        if value.is_nothing() {
            continue;
        }
        let name = match text_of(&value) {
            Ok(name) => name.to_owned(),
            Err(what) => {
                blame(mistakes, value.mark, &path, &what);
                continue;
            }
        };
        let fits = all.valid.get(&name).is_some_and(|provider| provider.source() == source)
            || all.broken.contains(&name)
            || (source == SourceKind::Env && name == DEFAULT_PROVIDER);
        if fits {
            all.defaults.insert(source, name);
        } else {
            let what = format!("names {}, which is no provider of source {}", shown(&name), source.name());
            blame(mistakes, value.mark, &path, &what);
        }
    }
}

/// One provider; `None` where something is wrong with it, which is then in `mistakes`.
fn provider(node: Node, path: &Path<'_>, home: Option<&str>, mistakes: &mut Vec<Mistake>) -> Option<ProviderConfig> {
    let mark = node.mark;
    let entries = entries(node, path, mistakes)?;
    let source = entries.iter().find(|entry| entry.key == "source").map(|entry| &entry.value);
    let kinds = PROVIDERS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let Some(source) = source.filter(|source| !source.is_nothing()) else {
        blame(mistakes, mark, path, &format!("has no source; it is one of {kinds}"));
        return None;
    };
    let known = text_of(source).ok().and_then(|text| PROVIDERS.iter().find(|(name, _)| *name == text.trim()));
    let Some((kind, members)) = known else {
        blame(mistakes, source.mark, &Path::Member(path, "source"), &format!("must be one of {kinds}"));
        return None;
    };
    let before = mistakes.len();
    let mut fields = Fields::default();
    for Entry { key, mark, value } in entries {
        let path = Path::Member(path, &key);
        match member(members, &key) {
            Ok(_) if value.is_nothing() => {}
            Ok(member) => fields.set(member, value, &path, home, mistakes),
            Err(known) => blame(mistakes, mark, &path, &format!("is not known; known with source {kind} are {known}")),
        }
    }
    for needed in members.iter().filter(|member| member.needed && !fields.has(member.name)) {
        if mistakes.len() == before {
            blame(mistakes, mark, path, &format!("has no {}", needed.name));
        }
    }
    if mistakes.len() > before {
        return None;
    }
    Some(match *kind {
        "env" => ProviderConfig::Env { allowlist: fields.allowlist },
        "file" => ProviderConfig::File {
            path: fields.path?,
            max_bytes: fields.max_bytes.unwrap_or(DEFAULT_MAX_BYTES),
            timeout: fields.timeout.unwrap_or(DEFAULT_TIMEOUT),
            allow_group_read: fields.allow_group_read,
        },
        _ => ProviderConfig::Exec(ExecProvider {
            command: fields.path?,
            args: fields.args,
            pass_env: fields.pass_env,
            env: fields.env,
            timeout: fields.timeout.unwrap_or(DEFAULT_TIMEOUT),
            max_output_bytes: fields.max_bytes.unwrap_or(DEFAULT_MAX_BYTES),
            allow_symlink: fields.allow_symlink,
            trusted_dirs: fields.trusted_dirs,
            json_only: fields.json_only.unwrap_or(true),
        }),
    })
}

/// What a provider says, of whichever kind.
#[derive(Default)]
struct Fields {
    /// Of the file or the program.
    path: Option<PathBuf>,
    timeout: Option<Duration>,
    /// Of the file or of what the program prints.
    max_bytes: Option<u64>,
    allow_group_read: bool,
    allowlist: Option<Vec<String>>,
    args: Vec<String>,
    pass_env: Vec<String>,
    env: BTreeMap<String, String>,
    allow_symlink: bool,
    trusted_dirs: Vec<PathBuf>,
    json_only: Option<bool>,
}

impl Fields {
    /// Whether a member that must be there is.
    fn has(&self, name: &str) -> bool {
        // The source is known by now; the other members that must be there are the two paths.
        name == "source" || self.path.is_some()
    }

    fn set(&mut self, member: &Member, node: Node, path: &Path<'_>, home: Option<&str>, mistakes: &mut Vec<Mistake>) {
        let mark = node.mark;
        let mut reader = Reader { mistakes };
        match member.name {
            "path" | "command" => {
                let read = reader.text(node, path).map(|text| absolute(&text, home));
                self.path = read.and_then(|read| super::take(read, mark, path, mistakes));
            }
            "timeout_ms" => self.timeout = reader.whole(&node, member, path).map(Duration::from_millis),
            "max_bytes" | "max_output_bytes" => self.max_bytes = reader.whole(&node, member, path),
            "allowlist" => {
                let names = reader.texts(node, member, path).unwrap_or_default();
                self.allowlist = Some(variables(names, mark, path, mistakes));
            }
            "args" => {
                self.args = reader.texts(node, member, path).unwrap_or_default();
                if self.args.iter().any(|argument| !fits(argument)) {
                    blame(mistakes, mark, path, TOO_LONG);
                }
            }
            "pass_env" => {
                let names = reader.texts(node, member, path).unwrap_or_default();
                self.pass_env = variables(names, mark, path, mistakes);
            }
            "env" => {
                self.env = reader.text_map(node, member, path).unwrap_or_default();
                if self.env.values().any(|value| !fits(value)) {
                    blame(mistakes, mark, path, TOO_LONG);
                }
                let names = self.env.keys().cloned().collect();
                variables(names, mark, path, mistakes);
            }
            "allow_group_read" => self.allow_group_read = reader.boolean(&node, path).unwrap_or_default(),
            "allow_symlink" => self.allow_symlink = reader.boolean(&node, path).unwrap_or_default(),
            "trusted_dirs" => {
                let texts = reader.texts(node, member, path).unwrap_or_default();
                let folders = texts.iter().map(|text| super::take(absolute(text, home), mark, path, mistakes));
                self.trusted_dirs = folders.flatten().collect();
            }
            "json_only" => self.json_only = reader.boolean(&node, path),
            _ => {}
        }
    }
}

const TOO_LONG: &str = "holds a text that has more than 4096 bytes or a null character";

fn fits(text: &str) -> bool {
    text.len() <= MAX_ARGUMENT_BYTES && !text.contains('\0')
}

/// Names of environment variables (POSIX: letters, digits, `_`, no digit in front).
fn variables(names: Vec<String>, mark: Mark, path: &Path<'_>, mistakes: &mut Vec<Mistake>) -> Vec<String> {
    let is_name = |name: &String| {
        name.len() <= 128
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if !names.iter().all(is_name) {
        blame(mistakes, mark, path, "holds what cannot be the name of an environment variable");
    }
    names
}

//! Secrets of this installation that this process can read, so that they are found wherever else they stand. Those in the
//! sealed store are not among them: they are in nothing that is copied.

use std::fs;
use std::path::Path;

use zeroize::Zeroizing;

use crate::app::admin::KeyPlaces;
use crate::cli::gateway::master_key;
use crate::cli::gateway_api;
use crate::cli::owner;
use crate::config::Config;
use crate::config::declaration::SecretSource;
use crate::config::keys;
use crate::domain::reference::SourceKind;
use crate::domain::secret::Secret;
use crate::secrets::residue;
use crate::sys::env;
use crate::sys::files;
use crate::sys::supervision::PAIR_CODE_VARIABLE;

/// Longest file with a secret, in bytes.
const MAX_BYTES: u64 = 16 * 1024;
/// Files of a folder that are looked at.
const MAX_FILES: usize = 4096;
/// What the names of service keys' files begin with.
const SERVICE_KEYS: &str = "service-api-key-";
/// What the names of owner tokens' files begin with.
const OWNER_TOKENS: &str = "owner-token-";

/// Whatever can be read; what cannot is passed over, as then nobody copies it either.
pub(super) fn secrets(config: &Config) -> Vec<Secret> {
    let mut found = Vec::new();
    found.extend(config.master_key.as_ref().map(Secret::duplicate));
    found.extend(gateway_api::own_token(config).ok().flatten());
    let key = master_key::file(config);
    for file in [files::beside(&key, ".next"), key, owner::jwt_secret_file()] {
        found.extend(read(&file));
    }
    for folder in KeyPlaces::folders(&config.paths.home, env::lookup) {
        in_folder(&folder, SERVICE_KEYS, &mut found);
    }
    in_folder(&owner::openclaw_home().join(".sigilum"), OWNER_TOKENS, &mut found);
    found.extend(env::lookup(PAIR_CODE_VARIABLE).map(Secret::new));
    // Every variable there is: some are ours, and others are a person's who passes the archive on.
    for name in env::names_with(&[""]) {
        if let Some(value) =
            env::lookup(&name).filter(|value| keys::is_own_secret(&name) || residue::is_secret(&name, value))
        {
            found.push(Secret::new(value));
        }
    }
    let declared = config.connections.iter().flat_map(|connection| connection.secrets.values());
    for source in declared.chain(config.variables.iter().map(|variable| &variable.source)) {
        match source {
            SecretSource::Literal(secret) => found.push(secret.duplicate()),
            SecretSource::Reference(reference) if reference.source() == SourceKind::Env => {
                found.extend(env::lookup(reference.id()).map(Secret::new));
            }
            SecretSource::Reference(_) | SecretSource::File { .. } => {}
        }
    }
    found
}

fn in_folder(folder: &Path, begin: &str, found: &mut Vec<Secret>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_FILES) {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(begin)) {
            found.extend(read(&entry.path()));
        }
    }
}

fn read(file: &Path) -> Option<Secret> {
    let text = files::read_text(file, MAX_BYTES).map(Zeroizing::new).ok()?;
    Some(Secret::new(text.trim().to_owned()))
}

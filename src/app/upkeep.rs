//! The store as a whole, for commands: through the admin process where one holds it, else by taking its lock.

use std::fs;
use std::io;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use http::Method;
use serde::Deserialize;
use sha2::Digest as _;
use sha2::Sha256;

use crate::app::backup_target::Target;
use crate::app::backup_target::TargetError;
use crate::app::gateway;
use crate::app::json_api::ApiError;
use crate::app::json_api::JsonApi;
use crate::domain::audit::Asker;
use crate::domain::audit::Via;
use crate::domain::sealing::SealingPublicKey;
use crate::domain::secret::Secret;
use crate::store::backup;
use crate::store::restore;
use crate::store::vault::Vault;
use crate::store::worker::OpenStore;
use crate::store::worker::lock;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::files;
use crate::sys::files::FileLock;
use crate::sys::files::LockError;
use crate::sys::tls::trust::ServerTrust;

pub use crate::store::StoreError;
pub use crate::store::master_keys::KeyFileError;
pub use crate::store::master_keys::MasterKeys;
pub use crate::store::rekey::Rekeyed;
pub use crate::store::rekey::StartedOver;
pub use crate::store::restore::Restored;
pub use crate::store::sealed::Checked;
pub use crate::store::sealing::SealingKeyReplaced;
pub use crate::store::worker::DATABASE_FILE;

/// The header of the admin token.
const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-sigilum-admin-token");
/// The digest of what was sent (RFC 9530).
const CONTENT_DIGEST: &str = "content-digest";

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store, or the copy of it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The admin process.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The name is none for a backup.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The file.
    #[error("{path}: {source}")]
    Io {
        /// The backup's file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// What arrived is not what was sent.
    #[error("the backup did not arrive whole")]
    Torn,
}

/// The store of a data folder that nobody else holds.
pub struct Offline {
    open: OpenStore,
}

impl Offline {
    /// Takes the lock and opens the store; there must be one. `command` is what others are told of the holder.
    pub fn open(folder: &Path, keys: &MasterKeys, command: &str) -> Result<Self, StoreError> {
        if !folder.join(DATABASE_FILE).exists() {
            return Err(StoreError::NoStore { path: folder.to_owned() });
        }
        let open = OpenStore::open_with(folder, keys, &holder(command))?;
        Ok(Self { open })
    }

    /// Wraps everything for another key; see [`Vault::rekey`].
    pub fn rekey(&mut self, new: Option<Secret>) -> Result<Rekeyed, StoreError> {
        self.open.vault.rekey(new, &by_command(), SystemClock.now().wall, &mut |_| {})
    }

    /// What others seal to; see [`Vault::sealing_key`].
    pub fn sealing_key(&mut self) -> Result<SealingPublicKey, StoreError> {
        self.open.vault.sealing_key(&by_command(), SystemClock.now().wall)
    }

    /// Puts another key in its place; see [`Vault::replace_sealing_key`].
    pub fn replace_sealing_key(&mut self) -> Result<SealingKeyReplaced, StoreError> {
        self.open.vault.replace_sealing_key(&by_command(), SystemClock.now().wall)
    }

    /// Opens every sealed value once.
    pub fn check(&self) -> Result<(String, Checked), StoreError> {
        Ok((self.open.vault.key_id(), self.open.vault.check()?))
    }

    /// Writes a proven copy to `target`, which is replaced when the copy is whole.
    pub fn backup(&mut self, target: &Target) -> Result<Checked, BackupError> {
        let io = |source| BackupError::Io { path: target.path().to_owned(), source };
        let temporary = files::temporary_for(target.path()).map_err(io)?;
        let checked = self.open.vault.backup(&temporary, &by_command(), SystemClock.now().wall)?;
        let put = put(&temporary, target);
        if put.is_err() {
            // The error says why; a backup without its name is none.
            let _ = fs::remove_file(&temporary);
        }
        put.map(|()| checked)
    }
}

/// Gives up what was sealed with a lost key; see [`Vault::start_over`].
pub fn start_over(folder: &Path, keys: &MasterKeys, new: Option<Secret>) -> Result<StartedOver, StoreError> {
    if !folder.join(DATABASE_FILE).exists() {
        return Err(StoreError::NoStore { path: folder.to_owned() });
    }
    let _lock = lock(folder, &holder("rekey --lost-master-key"))?;
    Vault::start_over(folder, keys, new, &by_command(), SystemClock.now().wall, &mut |_| {})
}

/// Puts a backup in the place of the folder's store; see [`restore::restore`]. No gateway may run, not even one whose admin
/// process is just being started again.
pub fn restore(folder: &Path, from: &Path, keys: &MasterKeys, other: Option<Secret>) -> Result<Restored, StoreError> {
    files::own_folder(folder).map_err(|source| LockError::Io { path: folder.to_owned(), source })?;
    let _supervisor = FileLock::take(&folder.join(gateway::LOCK_FILE), &holder("restore"))?;
    restore::restore(folder, from, keys, other, &holder("restore"), SystemClock.now().wall, &mut |_| {})
}

/// What the admin process says of a change of the key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RekeyAnswer {
    /// Id of the key before.
    pub old_key_id: String,
    /// Id of the key in use.
    pub new_key_id: String,
    /// Sealed values that were wrapped anew.
    pub wrapped: u64,
    /// Old versions that are gone.
    pub dropped: Vec<String>,
    /// Where the new key is, on the gateway's machine.
    pub key_file: Option<String>,
    /// Whether the environment still names the old key.
    pub pending: bool,
    /// Whether the log was cut back.
    pub log_cut_back: bool,
}

impl From<Rekeyed> for RekeyAnswer {
    fn from(done: Rekeyed) -> Self {
        Self {
            old_key_id: done.old_key,
            new_key_id: done.new_key,
            wrapped: done.wrapped,
            dropped: done.dropped,
            key_file: done.key_file.map(|file| file.display().to_string()),
            pending: done.pending,
            log_cut_back: done.cut_back,
        }
    }
}

/// What the admin process says of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct CheckAnswer {
    /// Id of the key in use.
    pub key_id: String,
    /// Connections.
    pub connections: u64,
    /// Sealed sets of secrets.
    pub secret_sets: u64,
    /// Credential variables.
    pub variables: u64,
    /// What must be given again.
    pub lost: Vec<String>,
    /// What does not open.
    pub unreadable: Vec<String>,
}

impl From<(String, Checked)> for CheckAnswer {
    fn from((key_id, found): (String, Checked)) -> Self {
        let Checked { connections, secrets, variables, lost, unreadable } = found;
        Self { key_id, connections, secret_sets: secrets, variables, lost, unreadable }
    }
}

/// What the admin process says of the sealing key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SealingKeyAnswer {
    /// Base64url without padding.
    pub public_key: String,
    /// What a person compares.
    pub fingerprint: String,
}

impl From<SealingPublicKey> for SealingKeyAnswer {
    fn from(key: SealingPublicKey) -> Self {
        Self { public_key: key.text(), fingerprint: key.fingerprint() }
    }
}

/// What it says of another one in its place.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SealingKeyReplacedAnswer {
    /// The key from now on.
    pub key: SealingKeyAnswer,
    /// Fingerprint of the one before; `None` where there was none that opened.
    #[serde(default)]
    pub previous: Option<String>,
}

impl From<SealingKeyReplaced> for SealingKeyReplacedAnswer {
    fn from(done: SealingKeyReplaced) -> Self {
        Self { key: done.public.into(), previous: done.previous.map(|key| key.fingerprint()) }
    }
}

/// The store behind a running admin process.
pub struct StoreApi {
    api: JsonApi,
}

impl StoreApi {
    /// The one at this address; without a token only where the gateway trusts its own machine.
    pub fn new(base: &str, token: Option<&Secret>, trust: &ServerTrust) -> Result<Self, ApiError> {
        let api = JsonApi::trusting(base, trust)?.patient();
        let api = match token {
            Some(token) => api.with_secret(TOKEN_HEADER, token)?,
            None => api,
        };
        Ok(Self { api })
    }

    /// Wraps everything for the key in the next key's file, else for a random one.
    pub async fn rekey(&self) -> Result<RekeyAnswer, ApiError> {
        let answer = self.api.call(Method::POST, self.url("rekey"), None).await?;
        self.api.read(answer)
    }

    /// What others seal to.
    pub async fn sealing_key(&self) -> Result<SealingKeyAnswer, ApiError> {
        let answer = self.api.call(Method::GET, self.api.url(&["api", "admin", "sealing-key"]), None).await?;
        self.api.read(answer)
    }

    /// Puts another key in its place.
    pub async fn replace_sealing_key(&self) -> Result<SealingKeyReplacedAnswer, ApiError> {
        let url = self.api.url(&["api", "admin", "sealing-key", "rotate"]);
        let answer = self.api.call(Method::POST, url, None).await?;
        self.api.read(answer)
    }

    /// Opens every sealed value once.
    pub async fn check(&self) -> Result<CheckAnswer, ApiError> {
        let answer = self.api.call(Method::GET, self.url("check"), None).await?;
        self.api.read(answer)
    }

    /// Fetches a copy, which the admin process has opened every value of, into `target`: private, and replaced when the
    /// copy is there whole. Returns its size in bytes.
    pub async fn backup(&self, target: &Target) -> Result<u64, BackupError> {
        let output = target.path();
        let io = |source| BackupError::Io { path: output.to_owned(), source };
        let mut answer = self.api.open(Method::POST, self.url("backup")).await?;
        let wanted = answer.headers().get(CONTENT_DIGEST).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let temporary = files::temporary_for(output).map_err(io)?;
        let fetched = async {
            let mut file = files::create_new_private(&temporary).map_err(io)?;
            let (mut hash, mut size) = (Sha256::new(), 0_u64);
            while let Some(chunk) = self.api.next(&mut answer).await? {
                hash.update(&chunk);
                size = size.saturating_add(chunk.len() as u64);
                file.write_all(&chunk).map_err(io)?;
            }
            file.sync_all().map_err(io)?;
            if wanted != Some(format!("sha-256=:{}:", STANDARD.encode(hash.finalize()))) {
                return Err(BackupError::Torn);
            }
            backup::look(&temporary, output)?;
            put(&temporary, target)?;
            Ok(size)
        };
        let fetched = fetched.await;
        if fetched.is_err() {
            // The error says why; half a backup is none.
            let _ = fs::remove_file(&temporary);
        }
        fetched
    }

    fn url(&self, what: &str) -> reqwest::Url {
        self.api.url(&["api", "admin", "store", what])
    }
}

/// Gives a copy that is whole its name, where that still is one to give.
fn put(temporary: &Path, target: &Target) -> Result<(), BackupError> {
    target.check_again()?;
    let io = |source| BackupError::Io { path: target.path().to_owned(), source };
    files::put_in_place(temporary, target.path()).map_err(io)
}

fn by_command() -> Asker {
    Asker::local(Via::Command)
}

fn holder(command: &str) -> String {
    format!("pid {} (sigilum gateway {command})", std::process::id())
}

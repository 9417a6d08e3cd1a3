//! What `gateway.yaml` declares besides settings: connections, variables, and where their secrets live.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::draft::CheckedDraft;
use crate::domain::ids::ConnectionId;
use crate::domain::reference::SecretRef;
use crate::domain::reference::SourceKind;
use crate::domain::secret::Secret;

/// Most declared connections; the sealed store takes no more either.
pub const MAX_CONNECTIONS: usize = 50_000;
/// Most declared variables: one for each connection a gateway may have.
pub const MAX_VARIABLES: usize = 50_000;
/// Most providers of secrets. Each may run a program; nobody has that many vaults.
pub const MAX_PROVIDERS: usize = 64;

/// A connection written in `gateway.yaml`: it obeys the rules of the admin API, and holds as long as it stands there.
#[derive(Debug, PartialEq, Eq)]
pub struct DeclaredConnection {
    /// Settings, which secret is injected, rotation interval, MCP.
    pub checked: CheckedDraft,
    /// Where its secrets live, by name. It holds the one that [`CheckedDraft::auth_secret_key`] names.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Line of the file where it begins, from 1.
    pub line: u32,
}

impl DeclaredConnection {
    /// Its id.
    pub const fn id(&self) -> &ConnectionId {
        &self.checked.settings.id
    }

    /// What it is, wherever it stands.
    pub const fn content(&self) -> (&CheckedDraft, &BTreeMap<String, SecretSource>) {
        (&self.checked, &self.secrets)
    }
}

/// A credential variable written in `gateway.yaml`.
#[derive(Debug, PartialEq, Eq)]
pub struct DeclaredVariable {
    /// 2 to 128 of `A-Za-z0-9._-`.
    pub key: String,
    /// Where its value lives. References to other variables form no circle among those of the file.
    pub source: SecretSource,
    /// Line of the file, from 1.
    pub line: u32,
}

/// Where a secret comes from.
#[derive(Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A provider, known to the configuration and of the reference's source, or one that needs none: the environment
    /// and the store under the provider's name `default`.
    Reference(SecretRef),
    /// A file named in place.
    File {
        /// Absolute.
        path: PathBuf,
        /// `value` for the whole file, or a JSON pointer (RFC 6901).
        id: String,
    },
    /// The secret itself; only where `secrets.allow_literals` says so.
    Literal(Secret),
}

impl SecretSource {
    /// A second holder, made on purpose.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        match self {
            Self::Reference(reference) => Self::Reference(reference.clone()),
            Self::File { path, id } => Self::File { path: path.clone(), id: id.clone() },
            Self::Literal(secret) => Self::Literal(secret.duplicate()),
        }
    }

    /// The key of the credential variable it is, where it is one.
    pub fn variable(&self) -> Option<&str> {
        match self {
            Self::Reference(reference) if reference.source() == SourceKind::Store => Some(reference.id()),
            Self::Reference(_) | Self::File { .. } | Self::Literal(_) => None,
        }
    }
}

/// A provider of secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderConfig {
    /// The environment of the admin process.
    Env {
        /// Names it gives away; `None` = any.
        allowlist: Option<Vec<String>>,
    },
    /// A file.
    File {
        /// Absolute.
        path: PathBuf,
        /// Largest file, in bytes.
        max_bytes: u64,
        /// How long the reading may take.
        timeout: Duration,
        /// Whether its group may read it, whichever that is.
        allow_group_read: bool,
    },
    /// A program.
    Exec(ExecProvider),
}

impl ProviderConfig {
    /// Which references it answers.
    pub const fn source(&self) -> SourceKind {
        match self {
            Self::Env { .. } => SourceKind::Env,
            Self::File { .. } => SourceKind::File,
            Self::Exec(_) => SourceKind::Exec,
        }
    }
}

/// A program that is asked for secrets: started without a shell, `{protocolVersion, provider, ids}` on its standard
/// input, `{values, errors}` on its standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecProvider {
    /// Absolute.
    pub command: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables of the admin process it gets too.
    pub pass_env: Vec<String>,
    /// Variables it gets besides. `Debug` shows them; they are not for secrets.
    pub env: BTreeMap<String, String>,
    /// How long it may run.
    pub timeout: Duration,
    /// Most it may print, in bytes.
    pub max_output_bytes: u64,
    /// Whether the command may be a symbolic link.
    pub allow_symlink: bool,
    /// Folders, absolute, in one of which the command must lie once links are followed; empty = anywhere.
    pub trusted_dirs: Vec<PathBuf>,
    /// Whether what it prints must be JSON; otherwise plain text is the value of the one id that was asked for.
    pub json_only: bool,
}

/// How secrets are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretsOptions {
    /// Whether secrets may stand in the file themselves.
    pub allow_literals: bool,
    /// By name.
    pub providers: BTreeMap<String, ProviderConfig>,
    /// How much is asked at once.
    pub resolution: Resolution,
    /// How old the last resolved secrets may be while resolving fails; `None` = of any age.
    pub max_stale: Option<Duration>,
}

/// How much providers are asked at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolution {
    /// Providers at a time.
    pub max_provider_concurrency: usize,
    /// References of one request to a program.
    pub max_refs_per_provider: usize,
    /// Bytes of one request to a program.
    pub max_batch_bytes: usize,
}

/// What happens when the file changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadMode {
    /// It is read and judged; nothing is applied.
    Off,
    /// What is hot is applied; what needs a restart is reported.
    Hot,
    /// Every change is a restart.
    Restart,
    /// What is hot is applied, the rest is a restart.
    Hybrid,
}

impl ReloadMode {
    /// Reads the name used in the configuration.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            // YAML of old reads the word as a truth value, and so do people.
            "off" | "false" => Some(Self::Off),
            "hot" => Some(Self::Hot),
            "restart" => Some(Self::Restart),
            "hybrid" => Some(Self::Hybrid),
            _ => None,
        }
    }

    /// The name used in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Hot => "hot",
            Self::Restart => "restart",
            Self::Hybrid => "hybrid",
        }
    }
}

/// How changes of the file are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReloadOptions {
    /// What happens.
    pub mode: ReloadMode,
    /// How long the file must have been left alone before it is read.
    pub settle: Duration,
    /// Whether the file is looked at now and then, where the system tells nothing of changes.
    pub poll: bool,
}

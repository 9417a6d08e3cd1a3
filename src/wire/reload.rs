//! What the admin API says of reloads: of the configuration file, and of secrets. Names and counts, never a value.

use serde::Deserialize;
use serde::Serialize;
use utoipa::IntoParams;
use utoipa::ToSchema;

/// How many references there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReferenceCounts {
    /// In use: of active connections, and of variables.
    pub active: usize,
    /// Of disabled connections; not resolved.
    pub inactive: usize,
    /// Whose secret is another than before.
    pub changed: usize,
    /// That could not be resolved.
    pub unresolved: usize,
}

/// Something a person should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WarningBody {
    /// What sort.
    pub code: String,
    /// Which value it is about, e.g. `connections[3].secrets.api_key`.
    pub path: String,
    /// In words.
    pub message: String,
}

/// A reference without a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnresolvedBody {
    /// Where it stands, e.g. `connections[3].secrets.api_key`.
    pub path: String,
    /// `source:provider:id`.
    pub reference: String,
    /// Why.
    pub message: String,
}

/// `POST /api/admin/secrets/reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretsReloadBody {
    /// Whether every reference in use was resolved.
    pub ok: bool,
    /// Whether nothing was to be activated.
    pub dry_run: bool,
    /// Number of the secrets in use now.
    pub generation: u64,
    /// Number of those before.
    pub previous_generation: u64,
    /// How many references.
    pub refs: ReferenceCounts,
    /// What should be known.
    pub warnings: Vec<WarningBody>,
    /// What could not be resolved; at most 100 of them.
    pub unresolved: Vec<UnresolvedBody>,
    /// How long it took.
    pub duration_ms: u64,
}

/// `?dry_run`.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReloadQuery {
    /// Resolve and tell, activate nothing: `true`, `1` or no value.
    pub dry_run: Option<String>,
}

impl ReloadQuery {
    /// Whether nothing is to be activated; `None`: not understood.
    pub fn is_dry(&self) -> Option<bool> {
        match self.dry_run.as_deref() {
            None | Some("false" | "0") => Some(false),
            Some("" | "true" | "1") => Some(true),
            Some(_) => None,
        }
    }
}

/// A reference and how it stands with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReferenceBody {
    /// Where it stands.
    pub path: String,
    /// `source:provider:id`; a file that is named in place is `file:PATH#POINTER`.
    pub reference: String,
    /// `resolved`, `unresolved` (the last secret is in use), `stale` (it is not any more) or `inactive`.
    pub state: String,
    /// Keyed hash of the secret, under a key of this process: equal while the secret is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// `GET /api/admin/secrets/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretsStatusBody {
    /// Whether the last resolving succeeded.
    pub ok: bool,
    /// Number of the secrets in use.
    pub generation: u64,
    /// Whether they are not the newest, because resolving fails.
    pub degraded: bool,
    /// Seconds since everything was resolved last.
    pub age_seconds: u64,
    /// How many references.
    pub refs: ReferenceCounts,
    /// Each of them; at most 1000.
    pub references: Vec<ReferenceBody>,
    /// What should be known.
    pub warnings: Vec<WarningBody>,
    /// What could not be resolved the last time; at most 100 of them.
    pub unresolved: Vec<UnresolvedBody>,
}

/// A difference between the file and what is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PendingBody {
    /// Dotted name.
    pub path: String,
    /// What it takes: `hot`, `hot-envoy` or `restart`.
    pub reload: String,
}

/// Why the file, or a part of it, is not in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReloadErrorBody {
    /// When (RFC 3339).
    pub at: String,
    /// `invalid`, `unresolved`, `envoy`, `ports`, `restart` or `internal`.
    pub kind: String,
    /// In words, all mistakes in it.
    pub message: String,
}

/// How it stands with Envoy's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnvoyConditionBody {
    /// `True` or `False`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// In words.
    pub message: String,
}

/// `GET /api/admin/config/status`, and the answer of a reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigStatusBody {
    /// Whether the file is in force as it stands there.
    pub ok: bool,
    /// `off`, `hot`, `restart` or `hybrid`.
    pub mode: String,
    /// The file; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// How many configurations were put in force since the start, that of the start counted.
    pub generation: u64,
    /// SHA-256 of the file that is in force.
    pub applied_config_hash: String,
    /// SHA-256 of the file as it stands there.
    pub file_config_hash: String,
    /// What differs; at most 1000 of them.
    pub pending_changes: Vec<PendingBody>,
    /// Those that take a restart, by name.
    pub restart_required: Vec<String>,
    /// Why the file is not in force; absent where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<ReloadErrorBody>,
    /// Whether Envoy runs with what it was given; absent where it is not ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy: Option<EnvoyConditionBody>,
}

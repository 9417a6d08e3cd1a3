//! JSON of the keys that OpenClaw's files hold in clear. Values of keys stand in none of it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

/// `GET /openclaw/legacy-keys`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = LegacyKeyList)]
pub struct LegacyListBody {
    /// In the order of files, and of places in them.
    pub findings: Vec<LegacyFindingBody>,
    /// How many.
    pub total: u64,
    /// How many of each provider.
    pub provider_count: BTreeMap<String, u64>,
    /// The files that were read.
    pub scanned_paths: Vec<String>,
    /// What could not be read, and why; absent where there is nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// RFC 3339.
    pub generated_at: String,
}

/// One key in one place.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = LegacyKey)]
pub struct LegacyFindingBody {
    /// Names it, as long as it stands there.
    pub id: String,
    /// Whose it is, as far as its place tells.
    pub provider: String,
    /// The member or variable that holds it.
    pub field: String,
    /// Key of the credential variable an import makes of it.
    pub variable: String,
    /// `openclaw_config`, `dotenv` or `openclaw_runtime_manifest`.
    pub source_type: &'static str,
    /// The file.
    pub source_path: String,
    /// Dotted path in JSON, or the name of a variable.
    pub location: String,
    /// At most its first three and last two characters.
    pub masked: String,
    /// Whether a stored variable or secret has this very value.
    pub already_secured: bool,
    /// A connection that has; absent where none has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secured_connection_id: Option<String>,
}

/// `POST /openclaw/legacy-keys/import`.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[schema(as = LegacyKeyImport)]
pub struct LegacyImportBody {
    /// The connection whose secret becomes the one value; absent: connections are made from the service catalog.
    pub connection_id: Option<String>,
    /// Which findings; absent or empty = all.
    pub finding_ids: Option<Vec<String>>,
}

/// What an import did.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
#[schema(as = LegacyKeyImported)]
pub struct LegacyImportedBody {
    /// How many variables were made.
    pub imported_count: u64,
    /// Their keys.
    pub imported_variables: Vec<String>,
    /// The connection that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_id: Option<String>,
    /// Its secret that stands for the variable now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound_secret_key: Option<String>,
    /// That variable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound_variable: Option<String>,
    /// Ids of the findings whose values the store holds now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secured_finding_ids: Vec<String>,
    /// Connections that inject them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secured_connections: Vec<LegacyConnectionBody>,
    /// Findings that no connection was made for, or no variable.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped_findings: Vec<LegacySkippedBody>,
    /// What could not be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A connection that an import made, or found.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = LegacyKeyConnection)]
pub struct LegacyConnectionBody {
    /// Whose keys it injects.
    pub provider: String,
    /// Its id.
    pub connection_id: String,
    /// For people.
    pub connection_name: String,
    /// The template it was made from; absent where it was there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_key: Option<String>,
    /// Whether this request made it.
    pub created: bool,
    /// How many findings hold its value.
    pub imported_count: u64,
    /// Its secrets that stand for the variable.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secret_keys: Vec<String>,
}

/// A finding that was not dealt with in full.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = LegacyKeySkipped)]
pub struct LegacySkippedBody {
    /// As in the list, like the next four.
    pub id: String,
    /// Whose it is.
    pub provider: String,
    /// The member or variable.
    pub field: String,
    /// The file.
    pub source_path: String,
    /// What is shown of it.
    pub masked: String,
    /// Why.
    pub reason: String,
}

/// `POST /openclaw/legacy-keys/purge`.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[schema(as = LegacyKeyPurge)]
pub struct LegacyPurgeBody {
    /// Which findings. Required: nothing is purged unnamed.
    pub finding_ids: Option<Vec<String>>,
    /// `true`: only say what would be done.
    pub dry_run: Option<bool>,
    /// Is answered with a warning: skills are left alone.
    pub delete_skills: Option<bool>,
}

/// What a purge did, or would do.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = LegacyKeyPurged)]
pub struct LegacyPurgedBody {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// How many findings were named.
    pub selected_count: u64,
    /// How many stand in no file any more because of this request.
    pub purged_count: u64,
    /// One for each of them.
    pub actions: Vec<LegacyActionBody>,
    /// What was not done, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One thing done to a file.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = LegacyKeyAction)]
pub struct LegacyActionBody {
    /// `blank_json` or `blank_dotenv`: the value is empty, everything else is as it was.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The file.
    pub target: String,
    /// The place in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

//! Keys that OpenClaw's files hold in clear: list, import, purge.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::Request;
use axum::extract::State;
use http::Response;
use http::StatusCode;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::admin::catalog;
use crate::admin::input::Id;
use crate::admin::input::Shared;
use crate::admin::input::Who;
use crate::admin::input::finish;
use crate::admin::input::json_body;
use crate::admin::legacy_import;
use crate::admin::legacy_purge;
use crate::admin::legacy_scan;
use crate::admin::legacy_scan::LegacyPlaces;
use crate::admin::legacy_scan::ScannedFile;
use crate::admin::respond::Problem;
use crate::admin::respond::json;
use crate::domain::legacy;
use crate::domain::legacy::Found;
use crate::domain::legacy::Known;
use crate::store::holders::Holder;
use crate::sys::clock::Clock as _;
use crate::wire::admin::decode;
use crate::wire::catalog::Catalog;
use crate::wire::envelope::ErrorBody;
use crate::wire::legacy::LegacyFindingBody;
use crate::wire::legacy::LegacyImportBody;
use crate::wire::legacy::LegacyImportedBody;
use crate::wire::legacy::LegacyListBody;
use crate::wire::legacy::LegacyPurgeBody;
use crate::wire::legacy::LegacyPurgedBody;

/// Where the keys are, and whose turn it is: two imports at once would make two connections of one key.
#[derive(Debug, Default)]
pub struct LegacyDesk {
    places: LegacyPlaces,
    pub(super) turn: Mutex<()>,
}

impl LegacyDesk {
    /// For files in these places.
    pub fn new(places: LegacyPlaces) -> Self {
        Self { places, turn: Mutex::default() }
    }
}

/// A key, and what the store knows of it.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) found: Found,
    pub(super) id: String,
    /// The file, for people.
    pub(super) path: String,
    /// Key of its variable.
    pub(super) variable: String,
    pub(super) holder: Holder,
}

impl Finding {
    pub(super) fn masked(&self) -> String {
        legacy::masked(self.found.value.expose())
    }

    fn body(&self) -> LegacyFindingBody {
        LegacyFindingBody {
            id: self.id.clone(),
            provider: self.found.provider.clone(),
            field: self.found.field.clone(),
            variable: self.variable.clone(),
            source_type: self.found.source.name(),
            source_path: self.path.clone(),
            location: self.found.location.clone(),
            masked: self.masked(),
            already_secured: self.holder.is_stored,
            secured_connection_id: self.holder.connection.clone(),
        }
    }
}

/// Everything that was found, as it stands now.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) findings: Vec<Finding>,
    pub(super) files: Vec<ScannedFile>,
    pub(super) catalog: Catalog,
    pub(super) warnings: Vec<String>,
}

impl Look {
    /// The findings of these ids, each once, in their own order.
    pub(super) fn select(self, ids: &[String]) -> Result<Self, Problem> {
        let mut wanted: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
        let findings: Vec<_> = self.findings.into_iter().filter(|finding| wanted.remove(finding.id.as_str())).collect();
        if !wanted.is_empty() {
            let text = format!("finding_ids: {} of them name no key that is there now; list them again", wanted.len());
            return Err(Problem::invalid(text));
        }
        Ok(Self { findings, ..self })
    }
}

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(import)).routes(routes!(purge))
}

/// The keys that OpenClaw's files on this machine hold in clear. No value is told.
#[utoipa::path(get, path = "/api/admin/openclaw/legacy-keys", operation_id = "listLegacyKeys", tag = "openclaw",
    responses(
    (status = 200, description = "What is there now", body = LegacyListBody),
))]
async fn list(State(admin): Shared, Extension(id): Id) -> Response<Body> {
    let work = async {
        let Look { findings, files, warnings, .. } = look(&admin).await?;
        let mut provider_count: BTreeMap<String, u64> = BTreeMap::new();
        for finding in &findings {
            let count = provider_count.entry(finding.found.provider.clone()).or_default();
            *count = count.saturating_add(1);
        }
        let body = LegacyListBody {
            total: findings.len() as u64,
            findings: findings.iter().map(Finding::body).collect(),
            provider_count,
            scanned_paths: files.iter().map(ScannedFile::shown).collect(),
            warnings,
            generated_at: admin.clock.now().wall.rfc3339(),
        };
        json(StatusCode::OK, &body)
    };
    finish(&id, work.await)
}

/// Makes credential variables of them, and connections that inject those. Asked again it changes nothing.
#[utoipa::path(post, path = "/api/admin/openclaw/legacy-keys/import", operation_id = "importLegacyKeys",
    tag = "openclaw", request_body = LegacyImportBody, responses(
    (status = 200, description = "What was made, and what was not", body = LegacyImportedBody),
    (status = 400, description = "An id names no key; or `connection_id` is given and the keys are not one value, or the \
        connection cannot inject it", body = ErrorBody),
    (status = 404, description = "No connection of that id", body = ErrorBody),
    (status = 409, description = "`CONNECTION_DECLARED`: the configuration file declares it; or somebody made a variable or \
        connection of that name just now, or there are as many as one gateway holds", body = ErrorBody),
))]
async fn import(State(admin): Shared, Extension(id): Id, Extension(asker): Who, request: Request) -> Response<Body> {
    let work = async {
        let body = decode::<LegacyImportBody>(&json_body(request).await?)?;
        json(StatusCode::OK, &legacy_import::import(&admin, &asker, body).await?)
    };
    finish(&id, work.await)
}

/// Takes keys that the store holds out of the files: only the value goes, no copy is kept. A key that is nowhere else stays,
/// and so does everything with it.
#[utoipa::path(post, path = "/api/admin/openclaw/legacy-keys/purge", operation_id = "purgeLegacyKeys", tag = "openclaw",
    request_body = LegacyPurgeBody, responses(
    (status = 200, description = "What was done, or would be; `warnings` tell of files that were left as they are",
        body = LegacyPurgedBody),
    (status = 400, description = "No id is given, one names no key, or a key is not `already_secured`: nothing was done",
        body = ErrorBody),
))]
async fn purge(State(admin): Shared, Extension(id): Id, Extension(asker): Who, request: Request) -> Response<Body> {
    let work = async {
        let body = decode::<LegacyPurgeBody>(&json_body(request).await?)?;
        json(StatusCode::OK, &legacy_purge::purge(&admin, &asker, body).await?)
    };
    finish(&id, work.await)
}

/// Reads the files, and asks the store what it has of them.
pub(super) async fn look(admin: &Admin) -> Result<Look, Problem> {
    let (places, path) = (admin.legacy.places.clone(), admin.catalog.clone());
    let scanned = spawn_blocking(move || {
        let catalog = catalog::read_or_make(&path);
        let broken = catalog.is_err();
        let catalog = catalog.unwrap_or_default();
        let known = known(&catalog);
        let mut scan = legacy_scan::scan(&places, &known);
        if broken {
            scan.warnings.push("the service catalog cannot be used: no connection is made from it".to_owned());
        }
        (scan, catalog, known)
    });
    let (scan, catalog, known) = scanned.await.map_err(|_| Problem::internal())?;
    let asked = admin.store.read(move |vault| {
        let values: Vec<_> = scan.found.iter().map(|found| &found.value).collect();
        let holders = vault.holders(&values)?;
        Ok((scan, holders))
    });
    let (scan, holders) = asked.await?;
    let held: Vec<_> = holders.of.iter().map(|holder| holder.variable.clone()).collect();
    let variables = legacy::variables(&scan.found, &held, &holders.taken, &known);
    let files = scan.files;
    let findings = scan.found.into_iter().zip(variables).zip(holders.of).map(|((found, variable), holder)| {
        let path = files.get(found.file).map(ScannedFile::shown).unwrap_or_default();
        Finding { id: found.id(&path), path, found, variable, holder }
    });
    Ok(Look { findings: findings.collect(), files, catalog, warnings: scan.warnings })
}

fn known(catalog: &Catalog) -> Known {
    Known::new(catalog.services.iter().map(|template| {
        let variables = template.credential_fields.iter().map(|field| field.env_var.clone());
        (template.key.clone(), variables.filter(|name| !name.is_empty()).collect())
    }))
}

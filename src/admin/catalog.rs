//! The service catalog: a file of templates, made from the defaults where it is missing and read anew each time.

use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::Request;
use axum::extract::State;
use http::Response;
use http::StatusCode;
use tokio::task::spawn_blocking;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::admin::input::Id;
use crate::admin::input::Shared;
use crate::admin::input::Who;
use crate::admin::input::finish;
use crate::admin::input::json_body;
use crate::admin::respond::Problem;
use crate::admin::respond::json_text;
use crate::domain::audit::Action;
use crate::domain::audit::Asker;
use crate::domain::audit::Detail;
use crate::domain::audit::Entry;
use crate::domain::relay::RelayRefused;
use crate::sys::clock::Clock as _;
use crate::sys::files;
use crate::wire::admin::decode;
use crate::wire::catalog::Catalog;
use crate::wire::catalog::MAX_BYTES;
use crate::wire::envelope::ErrorBody;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new().routes(routes!(show, replace))
}

/// The templates from which connections are offered.
#[utoipa::path(get, path = "/api/admin/service-catalog", operation_id = "getServiceCatalog", tag = "catalog",
    responses(
    (status = 200, description = "The catalog, as its file is now", body = Catalog),
))]
async fn show(State(admin): Shared, Extension(id): Id) -> Response<Body> {
    let path = admin.catalog.clone();
    let laid_out = move || {
        let catalog = read_or_make(&path)?;
        catalog.text().map_err(|reason| broken(&path, &reason.to_string()))
    };
    let work = async { in_background(laid_out).await.and_then(json_text) };
    finish(&id, work.await)
}

/// Replaces all templates.
#[utoipa::path(put, path = "/api/admin/service-catalog", operation_id = "replaceServiceCatalog", tag = "catalog",
    request_body = Catalog, responses(
    (status = 200, description = "The catalog as it is kept", body = Catalog),
    (status = 400, description = "The sentence names the place and what is wrong there", body = ErrorBody),
))]
async fn replace(State(admin): Shared, Extension(id): Id, Extension(asker): Who, request: Request) -> Response<Body> {
    let work = async { put(&admin, &asker, &json_body(request).await?).await };
    finish(&id, work.await)
}

async fn put(admin: &Admin, asker: &Asker, body: &[u8]) -> Result<Response<Body>, Problem> {
    let catalog = decode::<Catalog>(body)?.check().map_err(|error| Problem::invalid(error.to_string()))?;
    if asker.relay().is_some() {
        let path = admin.catalog.clone();
        let held = in_background(move || read_or_make(&path)).await?;
        if held.leads_elsewhere(&catalog) {
            return Err(RelayRefused::Template.into());
        }
        if held.is_led_to_variables(&catalog) {
            return Err(RelayRefused::TemplateVariable.into());
        }
    }
    let text = catalog.text().map_err(|error| Problem::invalid(error.to_string()))?;
    let (path, written) = (admin.catalog.clone(), text.clone());
    in_background(move || files::write_private(&path, written.as_bytes()).map_err(|error| failed(&path, &error)))
        .await?;
    let detail = Detail::default().number("services", catalog.services.len() as u64);
    let entry = Entry::new(Action::CatalogReplace, "", asker, admin.clock.now().wall).with(detail);
    admin.store.keep(move |vault| vault.note(&entry)).await?;
    json_text(text)
}

/// Makes the file where there is none, so that people find it; that it cannot be made is told when it is asked for.
pub fn make_if_missing(path: &Path) {
    if !path.exists()
        && let Err(error) = files::create_private(path, Catalog::default_text().as_bytes())
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        tracing::warn!(path = %path.display(), %error, "the service catalog cannot be written");
    }
}

/// The file as it is now. A broken one is never replaced: whoever broke it wants it back.
pub(super) fn read_or_make(path: &Path) -> Result<Catalog, Problem> {
    let text = match files::read_text(path, MAX_BYTES as u64) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match files::create_private(path, Catalog::default_text().as_bytes()) {
                Ok(()) => return Ok(Catalog::defaults()),
                // Somebody else was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    files::read_text(path, MAX_BYTES as u64).map_err(|error| failed(path, &error))?
                }
                Err(error) => return Err(failed(path, &error)),
            }
        }
        Err(error) => return Err(failed(path, &error)),
    };
    let catalog = decode::<Catalog>(text.as_bytes())
        .map_err(|error| error.to_string().replace("the request body", "it"))
        .and_then(|catalog| catalog.check().map_err(|error| error.to_string()));
    catalog.map_err(|reason| broken(path, &reason))
}

fn broken(path: &Path, reason: &str) -> Problem {
    tracing::error!(path = %path.display(), reason, "the service catalog is broken");
    let text = format!("the file of the service catalog is not valid ({reason}); put it right or replace it by PUT");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "", text)
}

fn failed(path: &Path, error: &io::Error) -> Problem {
    tracing::error!(path = %path.display(), %error, "the service catalog cannot be used");
    Problem::unwritten(error, "the file of the service catalog cannot be used; the gateway's log says why")
}

/// Files are slow.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    spawn_blocking(work).await.unwrap_or_else(|_| Err(Problem::internal()))
}

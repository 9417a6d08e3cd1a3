//! Service API keys: what the gateway authenticates with at the Sigilum API, one file per service.

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
use crate::admin::ClaimsWatch;
use crate::admin::input::Id;
use crate::admin::input::Name;
use crate::admin::input::Shared;
use crate::admin::input::Who;
use crate::admin::input::finish;
use crate::admin::input::json_body;
use crate::admin::respond::Problem;
use crate::admin::respond::json;
use crate::claims::keys;
use crate::domain::audit::Action;
use crate::domain::audit::Asker;
use crate::domain::audit::Entry;
use crate::domain::ids::ConnectionId;
use crate::domain::sealing::Purpose;
use crate::domain::sealing::Target;
use crate::sys::clock::Clock as _;
use crate::sys::files;
use crate::wire::admin::decode;
use crate::wire::envelope::ErrorBody;
use crate::wire::service_key::ApiStanding;
use crate::wire::service_key::KeyBody;
use crate::wire::service_key::KeyStatusBody;
use crate::wire::service_key::KeyWrittenBody;
use crate::wire::service_key::check_key;
use crate::wire::service_key::prefix;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new().routes(routes!(show, write))
}

/// Whether the gateway has a key for this service, whose it is, how it begins, and whether the API took it.
#[utoipa::path(get, path = "/api/admin/service-api-keys/{id}", operation_id = "getServiceApiKey", tag = "service keys",
    params(("id" = String, Path, description = "Slug of the service, which is the connection's id")), responses(
    (status = 200, description = "What is there", body = KeyStatusBody),
    (status = 400, description = "The id is no slug", body = ErrorBody),
))]
async fn show(State(admin): Shared, Extension(id): Id, name: Name) -> Response<Body> {
    let work = async {
        let service = service(name)?;
        let keys = Arc::clone(&admin.keys);
        let wanted = service.clone();
        // Files are slow.
        let key = spawn_blocking(move || keys::find(wanted.as_str(), &keys)).await;
        let key = key.map_err(|_| Problem::internal())?;
        let standing = |claims: &ClaimsWatch| claims.standing(service.as_str());
        let body = KeyStatusBody {
            connection_id: service.as_str().to_owned(),
            has_key: key.is_some(),
            key_prefix: key.as_ref().map(|(key, _)| prefix(key)).unwrap_or_default(),
            key_source: key.map(|(_, source)| source),
            api_standing: admin.claims.as_ref().map_or(ApiStanding::Unknown, standing),
        };
        json(StatusCode::OK, &body)
    };
    finish(&id, work.await)
}

/// Writes the key of this service to its file in the gateway's home, where claims and usage take it from; the API is
/// asked with it at once.
#[utoipa::path(put, path = "/api/admin/service-api-keys/{id}", operation_id = "setServiceApiKey", tag = "service keys",
    params(("id" = String, Path, description = "Slug of the service, which is the connection's id")),
    request_body = KeyBody, responses(
    (status = 200, description = "Written", body = KeyWrittenBody),
    (status = 400, description = "The id is no slug, or the key none that can be sent; `SEALED_SECRET_INVALID`: a sealed key \
        does not open", body = ErrorBody),
))]
async fn write(
    State(admin): Shared,
    Extension(id): Id,
    Extension(asker): Who,
    name: Name,
    request: Request,
) -> Response<Body> {
    let work = async { put(&admin, asker, service(name)?, &json_body(request).await?).await };
    finish(&id, work.await)
}

async fn put(admin: &Admin, mut asker: Asker, service: ConnectionId, body: &[u8]) -> Result<Response<Body>, Problem> {
    let given = decode::<KeyBody>(body)?.into_given().map_err(Problem::invalid)?;
    let of = service.clone();
    let revealed = admin.store.read(move |vault| {
        let target = Target { purpose: Purpose::ServiceApiKey, id: of.as_str(), field: "key", destination: "" };
        let key = vault.reveal(given, &target, &mut asker)?;
        Ok((key, asker))
    });
    let (key, asker) = revealed.await?;
    let key = check_key(&key).map_err(Problem::invalid)?;
    let path = admin.keys.file(service.as_str()).ok_or_else(|| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "", "the gateway has no home folder to keep keys in")
    })?;
    let written = spawn_blocking(move || {
        let content = zeroize::Zeroizing::new(format!("{}\n", key.expose()));
        path.parent().map_or(Ok(()), files::private_folder)?;
        files::write_private(&path, content.as_bytes())
    });
    match written.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::error!(%error, service = %service, "a service key cannot be written");
            let text = "the key cannot be written to the gateway's home; its log says why";
            return Err(Problem::unwritten(&error, text));
        }
        Err(_) => return Err(Problem::internal()),
    }
    if let Some(claims) = &admin.claims {
        claims.key_written(service.as_str());
    }
    let entry = Entry::new(Action::ServiceKeySet, service.as_str(), &asker, admin.clock.now().wall);
    admin.store.keep(move |vault| vault.note(&entry)).await?;
    json(StatusCode::OK, &KeyWrittenBody { connection_id: service.as_str().to_owned(), written: true })
}

fn service(name: Name) -> Result<ConnectionId, Problem> {
    let parsed = name.0.and_then(|name| ConnectionId::parse(&name).ok());
    parsed.ok_or_else(|| Problem::invalid("the id of a service has 3 to 64 of a-z, 0-9 and -, none at its ends"))
}

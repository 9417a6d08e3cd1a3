//! `/openapi.json`: written from the route table itself, so that it cannot forget a route or keep a dead one.
//!
//! Open to everybody: it is the same for every gateway of a version, holds nothing of this one, and whoever writes a
//! client reads it before there is a token.

use std::sync::Arc;
use std::sync::LazyLock;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderValue;
use http::Response;
use http::header;
use utoipa::openapi::ContentBuilder;
use utoipa::openapi::Header;
use utoipa::openapi::InfoBuilder;
use utoipa::openapi::OpenApi;
use utoipa::openapi::Ref;
use utoipa::openapi::RefOr;
use utoipa::openapi::ResponseBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::ApiKey;
use utoipa::openapi::security::ApiKeyValue;
use utoipa::openapi::security::HttpAuthScheme;
use utoipa::openapi::security::HttpBuilder;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::security::SecurityScheme;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::admin::access;
use crate::admin::respond::REQUEST_ID_HEADER;
use crate::admin::router;

const SUMMARY: &str = "Connections of a Sigilum gateway and what belongs to them. Errors are \
    `{error, code?, request_id, timestamp, docs_url}`; the code, where there is one, is repeated in `X-Sigilum-Code`. \
    Every answer bears `X-Request-Id`. Bodies are JSON of at most 2 MiB with `Content-Type: application/json`; members \
    this version does not know are ignored. Under the access modes `hybrid` and `none` a direct client of the \
    same machine needs no token; under `mtls` a client certificate stands for it, under `password` a password in its place, \
    and under `trusted-proxy` the user a proxy names. A token of the metrics opens `GET /metrics` and nothing else. Values of secrets are written and never answered.";

/// What every route behind the access rule may answer.
const GUARDED: [(&str, &str); 4] = [
    (
        "403",
        "`ADMIN_TOKEN_REQUIRED`, `ADMIN_PASSWORD_REQUIRED`, `ADMIN_TRUSTED_PROXY_REQUIRED`, `ADMIN_LOOPBACK_REQUIRED`, \
         `ADMIN_TOKEN_OR_LOOPBACK_REQUIRED` or `ADMIN_CERTIFICATE_REQUIRED`: not let in; `ADMIN_ORIGIN_REFUSED`: a web page of elsewhere may change nothing; \
         `ADMIN_HOST_REFUSED`: a change must name this gateway in `Host` (without one `Host` it is 400); \
         `RELAY_FORBIDDEN`: a request through a pairing (`X-Sigilum-Relay`) may not do this",
    ),
    (
        "429",
        "`AUTH_RATE_LIMITED`: too many wrong tokens or passwords from this address; `Retry-After` says how long it is so, and a right one need not wait",
    ),
    ("500", "Something of the gateway's failed; its log says what"),
    (
        "503",
        "`STORE_UNAVAILABLE`: the store cannot be written now, its disk is full for instance; else it took too long, and may still be done",
    ),
];

/// What every route of a method that has a body may answer besides, whether or not it looks into it: a body without its
/// content type is refused everywhere.
const BODIED: [(&str, &str); 4] = [
    ("400", "The sentence names the place and what is wrong with it"),
    ("408", "The body did not come in time"),
    ("413", "`REQUEST_BODY_TOO_LARGE`"),
    ("415", "The content type is not `application/json`"),
];

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new().routes(routes!(show))
}

/// Adds to the description of the routes what is true of all of them.
pub fn describe(mut described: OpenApi) -> OpenApi {
    described.info = InfoBuilder::new()
        .title("Sigilum gateway, admin API")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(SUMMARY))
        .build();
    let components = described.components.get_or_insert_default();
    let text = "The admin token, or the password";
    let key = ApiKeyValue::with_description(access::TOKEN_HEADER, text);
    components.add_security_scheme("admin_token", SecurityScheme::ApiKey(ApiKey::Header(key)));
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(text)).build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    let either = ["admin_token", "bearer"].map(|name| SecurityRequirement::new(name, Vec::<String>::new()));
    described.security = Some(either.to_vec());
    for item in described.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.delete].into_iter().flatten() {
            complete(operation, false);
        }
        for operation in [&mut item.put, &mut item.post, &mut item.patch].into_iter().flatten() {
            complete(operation, true);
        }
    }
    described
}

/// The answers an operation shares with others, where it does not describe its own, and the header all bear.
fn complete(operation: &mut Operation, bodied: bool) {
    let guarded = operation.security.is_none();
    let shared = GUARDED.iter().filter(|_| guarded);
    for (status, text) in shared.chain(BODIED.iter().filter(|_| bodied)) {
        let error = ContentBuilder::new().schema(Some(Ref::from_schema_name("Error"))).build();
        let response = ResponseBuilder::new().description(*text).content("application/json", error).build();
        operation.responses.responses.entry((*status).to_owned()).or_insert(RefOr::T(response));
    }
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            let mut header = Header::default();
            header.description = Some("The gateway's id of the request".to_owned());
            response.headers.insert(REQUEST_ID_HEADER.to_owned(), header);
        }
    }
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", tag = "health", security(()), responses(
    (status = 200, description = "OpenAPI 3.1", content_type = "application/json", body = Object),
))]
async fn show() -> Response<Body> {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| {
        let described = describe(router::table().into_openapi());
        // Strings, lists and maps only: writing them as JSON cannot fail.
        Bytes::from(serde_json::to_vec(&described).unwrap_or_default())
    });
    let mut response = Response::new(Body::from(TEXT.clone()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

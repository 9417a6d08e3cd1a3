//! `/openapi.json`: written from the route table itself, so that it cannot forget a route or keep a dead one.

use std::sync::Arc;
use std::sync::LazyLock;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderValue;
use http::Response;
use http::header;
use utoipa::openapi::InfoBuilder;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::ApiKey;
use utoipa::openapi::security::ApiKeyValue;
use utoipa::openapi::security::HttpAuthScheme;
use utoipa::openapi::security::HttpBuilder;
use utoipa::openapi::security::SecurityScheme;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::owner::COOKIE;
use crate::api::router;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(show))
}

/// Adds to the description of the routes what is true of all of them.
pub fn describe(mut described: OpenApi) -> OpenApi {
    described.info = InfoBuilder::new()
        .title("Sigilum control plane")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Namespaces, services and their keys, claims, the approved feed and usage. Errors are \
             `{error, code?, details?}`. Every answer bears `X-Request-ID`; `?pretty` lays JSON out for people.",
        ))
        .build();
    let components = described.components.get_or_insert_default();
    let bearer = |format: &str, text: &str| {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format(format).description(Some(text));
        SecurityScheme::Http(scheme.build())
    };
    components.add_security_scheme("owner", bearer("JWT", "Token of an owner; HS256"));
    let cookie = ApiKeyValue::with_description(COOKIE, "The same token as a cookie, with proof of the page's origin");
    components.add_security_scheme("owner_cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    components.add_security_scheme("service_key", bearer("sk_live_", "Key of a service"));
    let text = "RFC 9421 signature by Ed25519, with Signature-Input and the sigilum-* headers";
    let signature = ApiKeyValue::with_description("Signature", text);
    components.add_security_scheme("signature", SecurityScheme::ApiKey(ApiKey::Header(signature)));
    described
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "health", responses(
    (status = 200, description = "OpenAPI 3.1", content_type = "application/json"),
))]
async fn show() -> Response<Body> {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| {
        let described = describe(router::table().into_openapi());
        // Strings, lists and maps only: writing them as JSON cannot fail.
        Bytes::from(serde_json::to_vec(&described).unwrap_or_default())
    });
    let mut response = Response::new(Body::from(TEXT.clone()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    response
}

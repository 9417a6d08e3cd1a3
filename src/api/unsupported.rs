//! What the hosted API has and this one does not: passkeys, webhooks. Clients know these paths, so the
//! answer is 501 and says what to do, and not 404.

use std::sync::Arc;

use axum::routing::MethodRouter;
use http::StatusCode;
use utoipa::openapi::HttpMethod;
use utoipa::openapi::Required;
use utoipa::openapi::ResponseBuilder;
use utoipa::openapi::path::OperationBuilder;
use utoipa::openapi::path::ParameterBuilder;
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::path::Paths;
use utoipa_axum::PathItemExt as _;
use utoipa_axum::router::OpenApiRouter;

use crate::api::Api;
use crate::api::problem::Problem;

const PASSKEYS: &str = "passkeys";
const WEBHOOKS: &str = "webhooks";

const ABSENT: [(HttpMethod, &str, &str); 12] = [
    (HttpMethod::Get, "/v1/auth/signup/options", PASSKEYS),
    (HttpMethod::Post, "/v1/auth/signup", PASSKEYS),
    (HttpMethod::Get, "/v1/auth/login/options", PASSKEYS),
    (HttpMethod::Post, "/v1/auth/login", PASSKEYS),
    (HttpMethod::Get, "/v1/auth/passkeys/options", PASSKEYS),
    (HttpMethod::Get, "/v1/auth/passkeys", PASSKEYS),
    (HttpMethod::Post, "/v1/auth/passkeys", PASSKEYS),
    (HttpMethod::Patch, "/v1/auth/passkeys/{id}", PASSKEYS),
    (HttpMethod::Delete, "/v1/auth/passkeys/{id}", PASSKEYS),
    (HttpMethod::Get, "/v1/services/{id}/webhooks", WEBHOOKS),
    (HttpMethod::Post, "/v1/services/{id}/webhooks", WEBHOOKS),
    (HttpMethod::Delete, "/v1/services/{id}/webhooks/{webhook_id}", WEBHOOKS),
];

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    ABSENT.iter().fold(OpenApiRouter::new(), |routes, (method, path, what)| {
        let what: &'static str = what;
        let text = format!("NOT_IMPLEMENTED: {what}");
        let mut operation = OperationBuilder::new()
            .tag("not implemented")
            .summary(Some(format!("Of the hosted API: {what}")))
            .response("501", ResponseBuilder::new().description(text).build());
        for name in path.split('/').filter_map(|piece| piece.strip_prefix('{')?.strip_suffix('}')) {
            let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True);
            operation = operation.parameter(parameter.build());
        }
        let mut paths = Paths::new();
        paths.add_path_operation(*path, vec![method.clone()], operation.build());
        let handler = MethodRouter::new().on(method.to_method_filter(), move || async move { problem(what) });
        routes.routes((Vec::new(), paths, handler))
    })
}

/// 501 `NOT_IMPLEMENTED`: something the hosted API has.
pub fn problem(what: &'static str) -> Problem {
    let text = match what {
        PASSKEYS => "this API has no passkeys; sign in with a token: sigilum auth login, then POST /v1/auth/token",
        _ => "this API has no webhooks; follow GET /v1/namespaces/claims/changes instead",
    };
    Problem::new(StatusCode::NOT_IMPLEMENTED, "NOT_IMPLEMENTED", text)
}

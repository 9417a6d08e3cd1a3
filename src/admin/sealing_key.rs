//! The key that others seal secrets to: shown, and replaced.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::Request;
use axum::extract::State;
use http::Response;
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::admin::input::Id;
use crate::admin::input::Shared;
use crate::admin::input::Who;
use crate::admin::input::finish;
use crate::admin::input::json_body;
use crate::admin::respond::json;
use crate::sys::clock::Clock as _;
use crate::wire::sealing_key::SealingKeyBody;
use crate::wire::sealing_key::SealingKeyReplacedBody;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(rotate))
}

/// What secrets for this gateway are sealed to, with HPKE (RFC 9180); made with the first look. A sealed value stands
/// wherever a secret's value stands: `sealed:v1:<encapsulated key>.<ciphertext>`, both base64url. `info` is `sigilum sealed
/// secret v1`; `aad` is purpose, id, field and destination joined by line feeds: `connection`, its id, the secret's name and
/// the lines `base_url`, `path_prefix`, `mcp_endpoint`, `auth_mode`, `auth_header_name`, `auth_prefix`, `auth_secret_key`
/// (of a new connection as they are sent, else as they are shown; empty where absent) and `secret_version` (0 of a new
/// one); `variable`, its key, `value`, nothing;
/// `service-api-key`, the id, `key`, nothing.
#[utoipa::path(get, path = "/api/admin/sealing-key", operation_id = "getSealingKey", tag = "sealing", responses(
    (status = 200, description = "Compare the fingerprint with what the gateway's machine shows", body = SealingKeyBody),
))]
async fn show(State(admin): Shared, Extension(id): Id, Extension(asker): Who) -> Response<Body> {
    let work = async {
        let now = admin.clock.now().wall;
        let key = admin.store.keep(move |vault| vault.sealing_key(&asker, now)).await?;
        json(StatusCode::OK, &SealingKeyBody::encode(&key))
    };
    finish(&id, work.await)
}

/// Another key in its place. What was sealed to the old one opens no more; what it brought into the store stays.
#[utoipa::path(post, path = "/api/admin/sealing-key/rotate", operation_id = "rotateSealingKey", tag = "sealing", responses(
    (status = 200, description = "Replaced", body = SealingKeyReplacedBody),
))]
async fn rotate(State(admin): Shared, Extension(id): Id, Extension(asker): Who, request: Request) -> Response<Body> {
    let work = async {
        json_body(request).await?;
        let now = admin.clock.now().wall;
        let done = admin.store.keep(move |vault| vault.replace_sealing_key(&asker, now)).await?;
        let previous = done.previous.map(|key| key.fingerprint());
        json(StatusCode::OK, &SealingKeyReplacedBody { key: SealingKeyBody::encode(&done.public), previous })
    };
    finish(&id, work.await)
}

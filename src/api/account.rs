//! The owner's own endpoints: who am I, settings, signing in and out by token, leaving.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Response;
use http::StatusCode;
use http::header;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::cors;
use crate::api::input;
use crate::api::input::Fields;
use crate::api::moment;
use crate::api::moment::iso;
use crate::api::owner;
use crate::api::owner::SignedIn;
use crate::api::pairing::Pairings;
use crate::api::problem::Problem;
use crate::api::problem::json;
use crate::api::service_key::bearer;
use crate::api::settings;
use crate::api::token;
use crate::api::users;
use crate::api::users::User;
use crate::sys::clock::Clock as _;
use crate::sys::random;
use crate::wire::control_plane::ErrorBody;

/// Longest token that is read from a body, in characters.
const MAX_TOKEN: usize = 4096;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(me))
        .routes(routes!(change_settings))
        .routes(routes!(sign_in))
        .routes(routes!(sign_out))
        .routes(routes!(leave))
}

/// An owner as they see themselves.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct UserView {
    id: String,
    email: String,
    namespace: String,
    #[schema(value_type = Object)]
    settings: Map<String, Value>,
    /// Always absent: nothing is written to a chain here.
    registration_tx_hash: Option<String>,
    created_at: String,
    updated_at: String,
    /// Always empty: this API is signed in to by token.
    passkeys: Vec<String>,
}

impl UserView {
    fn of(user: User) -> Self {
        let settings = settings::read(&user.settings);
        Self {
            id: user.id,
            email: user.email,
            namespace: user.namespace,
            settings,
            registration_tx_hash: None,
            created_at: iso(user.created_at_ms),
            updated_at: iso(user.updated_at_ms),
            passkeys: Vec::new(),
        }
    }
}

/// Answer of a sign-in.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct SignedInBody {
    user: UserView,
}

/// Body of a sign-in.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body, which is read member by member")]
struct TokenBody {
    /// An owner token.
    token: String,
}

/// That something was done.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Done {
    /// `true`.
    pub success: bool,
}

/// What settings are now.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct SettingsBody {
    success: bool,
    #[schema(value_type = Object)]
    settings: Map<String, Value>,
}

/// What became of an account.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct LeftBody {
    success: bool,
    message: &'static str,
}

/// The signed-in owner.
#[utoipa::path(get, path = "/v1/auth/me", tag = "auth", security(("owner" = [])), responses(
    (status = 200, body = UserView),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
    (status = 403, description = "FORBIDDEN: the namespace is another user's", body = ErrorBody),
))]
async fn me(owner: SignedIn) -> Response<Body> {
    json(StatusCode::OK, &UserView::of(owner.user))
}

/// Replaces the members of the settings that are sent; `policy` is the one the API itself reads.
#[utoipa::path(patch, path = "/v1/auth/settings", tag = "auth", security(("owner" = [])),
    request_body = settings::SettingsBody, responses(
    (status = 200, body = SettingsBody),
    (status = 400, description = "VALIDATION_ERROR, INVALID_JSON", body = ErrorBody),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
))]
async fn change_settings(State(api): State<Arc<Api>>, owner: SignedIn, body: Bytes) -> Result<Response<Body>, Problem> {
    let change = input::object(&body)?;
    settings::check(&change)?;
    let now_ms = moment::now_ms(api.clock);
    let merge = move |db: &rusqlite::Transaction<'_>| {
        let user = users::find(db, &owner.user.id)?.ok_or_else(gone)?;
        let mut merged = settings::read(&user.settings);
        merged.extend(change);
        let text = Value::Object(merged.clone()).to_string();
        if text.len() > settings::MAX_BYTES {
            return Err(Problem::invalid(
                "settings",
                format!("must be at most {} bytes together", settings::MAX_BYTES),
            ));
        }
        users::set_settings(db, &user.id, &text, now_ms)?;
        Ok(merged)
    };
    let settings = api.db.write(merge).await?;
    Ok(json(StatusCode::OK, &SettingsBody { success: true, settings }))
}

/// Begins a browser's session with an owner token: its cookie is a token of its own, which ends with the session or with
/// the life of the one it was begun with.
#[utoipa::path(post, path = "/v1/auth/token", tag = "auth", request_body = TokenBody, responses(
    (status = 200, body = SignedInBody),
    (status = 400, description = "VALIDATION_ERROR, INVALID_JSON", body = ErrorBody),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
    (status = 403, description = "FORBIDDEN: not from this page, or the namespace is another user's", body = ErrorBody),
))]
async fn sign_in(
    State(api): State<Arc<Api>>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, Problem> {
    let object = input::object(&body)?;
    let (signed_in, cookie) = begin(&api, &method, &headers, &object).await?;
    let mut response = json(StatusCode::OK, &SignedInBody { user: UserView::of(signed_in.user) });
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

/// Signs in with the member `token`: whom it speaks for, and the header that makes the browser keep a session of its own.
pub async fn begin(
    api: &Api,
    method: &Method,
    headers: &HeaderMap,
    object: &Map<String, Value>,
) -> Result<(SignedIn, HeaderValue), Problem> {
    // A page of elsewhere must not sign somebody in as its own author.
    owner::check_page(api, method, headers)?;
    let mut fields = Fields::of(object);
    let text = fields.text("token", 1, MAX_TOKEN);
    fields.finish()?;
    let token = owner::verified(api, &text)?;
    if token.is_of_session() {
        // Whoever has got hold of a cookie could make others of it, which its owner's sign-out does not reach.
        return Err(Problem::unauthorized("the token of a session begins no other; give the owner's token"));
    }
    let now = api.clock.now().seconds();
    let seconds = token.expires_at().0.saturating_sub(now.0);
    let session = token::issue_session(&api.jwt_secret, &token, random::hex::<16>()?, now);
    let signed_in = owner::admit(api, token).await?;
    // Good only by the allowance for clocks that disagree.
    let session = session.map_err(|_| owner::expired())?;
    let cookie = owner::set_cookie(api, headers, session.expose(), seconds)?;
    Ok((signed_in, cookie))
}

/// Makes the presented token worthless and forgets the cookie. Without a token, or with one that has ended, there
/// is nothing left to do.
#[utoipa::path(post, path = "/v1/auth/logout", tag = "auth", responses(
    (status = 200, body = Done),
    (status = 403, description = "FORBIDDEN: not from this page", body = ErrorBody),
))]
async fn sign_out(State(api): State<Arc<Api>>, method: Method, headers: HeaderMap) -> Result<Response<Body>, Problem> {
    let cookie = end(&api, &method, &headers).await?;
    let mut response = json(StatusCode::OK, &Done { success: true });
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

/// Signs out: the presented token is worthless from now on. The header makes the browser forget it.
pub async fn end(api: &Api, method: &Method, headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    // Without a cookie there is nothing to revoke, but one to be cleared: neither is for a page of elsewhere.
    if bearer(headers).is_none() && cors::is_of_page(headers) {
        owner::check_page(api, method, headers)?;
    }
    if let Some(text) = owner::presented(api, method, headers)?
        && let Ok(token) = owner::verified(api, &text)
    {
        let now_ms = moment::now_ms(api.clock);
        api.db.write(move |db| Ok(users::revoke_token(db, &token, now_ms)?)).await?;
    }
    owner::set_cookie(api, headers, "", 0)
}

/// Removes the owner with services, keys, claims, usage and pairings; every token issued until now is worthless, and the
/// bridges of their gateways are told to go.
#[utoipa::path(delete, path = "/v1/auth/account", tag = "auth", security(("owner" = [])), responses(
    (status = 200, body = LeftBody),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
))]
async fn leave(State(api): State<Arc<Api>>, headers: HeaderMap, owner: SignedIn) -> Result<Response<Body>, Problem> {
    let now_ms = moment::now_ms(api.clock);
    let namespace = owner.user.namespace.clone();
    let remove = move |db: &rusqlite::Transaction<'_>| {
        let user = users::find(db, &owner.user.id)?.ok_or_else(gone)?;
        let sessions = Pairings::of_owner(db, &user)?;
        users::remove(db, &user, now_ms)?;
        Ok(sessions)
    };
    api.pairings.forget(&api.db.write(remove).await?);
    tracing::info!(namespace, "an owner has left; services, keys, claims and usage are removed");
    let message = "the account and everything of it are removed";
    let mut response = json(StatusCode::OK, &LeftBody { success: true, message });
    response.headers_mut().insert(header::SET_COOKIE, owner::set_cookie(&api, &headers, "", 0)?);
    Ok(response)
}

/// 401 `USER_NOT_FOUND`: removed by another request in the meantime.
pub fn gone() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "USER_NOT_FOUND", "the user of this token does not exist")
}

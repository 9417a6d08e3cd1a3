//! What handlers take from a request: ids in paths, and bodies bounded in size and time.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::Query;
use axum::extract::RawPathParams;
use axum::extract::Request;
use axum::extract::State;
use axum::extract::rejection::QueryRejection;
use bytes::Bytes;
use http::HeaderMap;
use http::Response;
use http::StatusCode;
use http::header;
use http::request::Parts;
use http_body_util::BodyExt as _;
use http_body_util::LengthLimitError;
use http_body_util::Limited;
use hyper::body::Body as _;

use crate::admin::Admin;
use crate::admin::respond::Problem;
use crate::admin::respond::RequestId;
use crate::domain::audit::Asker;
use crate::domain::ids::ConnectionId;

/// Largest request body, in bytes.
pub const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;
/// How long a client may take to send its body.
const BODY_PATIENCE: Duration = Duration::from_secs(15);

/// What every handler works with.
pub type Shared = State<Arc<Admin>>;
/// Our id of the request.
pub type Id = Extension<RequestId>;

/// Who asks, as access was judged.
pub type Who = Extension<Asker>;
/// The query, read.
pub type Asked<T> = Result<Query<T>, QueryRejection>;

/// The `{id}` of the path, decoded once; `None` where it is no UTF-8.
#[derive(Debug)]
pub struct Name(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let found = params.ok().and_then(|params| {
            let mut all = params.iter();
            all.find_map(|(name, value)| (name == "id").then(|| value.to_owned()))
        });
        Ok(Self(found))
    }
}

impl Name {
    /// The connection of that name; what no connection can be called is not there.
    pub fn connection(self) -> Result<ConnectionId, Problem> {
        let parsed = self.0.and_then(|name| ConnectionId::parse(&name).ok());
        parsed.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "", "connection not found"))
    }
}

/// The answer, where there is one, else the problem's.
pub fn finish(id: &RequestId, answer: Result<Response<Body>, Problem>) -> Response<Body> {
    answer.unwrap_or_else(|problem| problem.into_response(id))
}

/// The whole body of a request that says it is JSON, which no web form can say without being asked first.
pub async fn json_body(request: Request) -> Result<Bytes, Problem> {
    let (head, body) = request.into_parts();
    if body.is_end_stream() && !head.headers.contains_key(header::CONTENT_TYPE) {
        return Ok(Bytes::new());
    }
    if !is_json(&head.headers) {
        let text = "the content type must be application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "", text));
    }
    if declared_length(&head.headers).is_some_and(|length| length > MAX_BODY_BYTES as u64) {
        return Err(Problem::too_large());
    }
    match tokio::time::timeout(BODY_PATIENCE, Limited::new(body, MAX_BODY_BYTES).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::too_large()),
        Ok(Err(_)) => Err(Problem::invalid("the request body broke off")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "", "the request body did not come in time")),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else { return false };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

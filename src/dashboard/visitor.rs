//! Whoever looks at a page: the signed-in owner, and the moment they look.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::Method;
use http::StatusCode;
use http::request::Parts;

use crate::api::Api;
use crate::api::moment;
use crate::api::owner::SignedIn;
use crate::dashboard::failure::Failure;

/// Header by which a script says that it asks for a piece of a page.
const PIECE: &str = "hx-request";

/// The owner who looks at a page, or does something there: then the request came from a page of ours.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    /// Who.
    pub(super) owner: SignedIn,
    /// When, in Unix milliseconds.
    pub(super) now_ms: i64,
}

impl FromRequestParts<Arc<Api>> for Visitor {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Failure> {
        match SignedIn::from_request_parts(parts, api).await {
            Ok(owner) => Ok(Self { owner, now_ms: moment::now_ms(api.clock) }),
            Err(problem) if problem.status() == StatusCode::UNAUTHORIZED => {
                let target = || parts.uri.path_and_query().map(|target| target.as_str().to_owned());
                let next = if parts.method == Method::GET { target() } else { None };
                let piece = parts.headers.contains_key(PIECE);
                Err(Failure::SignIn { code: problem.code(), next, piece })
            }
            Err(problem) => Err(problem.into()),
        }
    }
}

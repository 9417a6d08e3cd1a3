//! Who is signed in: the owner token of a request, as bearer credential or as cookie.
//!
//! A cookie comes along with whatever a browser sends, so with one a page must show that it is ours
//! ([`crate::api::cors`]); a bearer credential is put there by hand and needs no such proof.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::header;
use http::request::Parts;

use crate::api::Api;
use crate::api::moment;
use crate::api::problem::Problem;
use crate::api::service_key::bearer;
use crate::api::token;
use crate::api::token::TokenError;
use crate::api::token::VerifiedToken;
use crate::api::users;
use crate::api::users::Standing;
use crate::api::users::User;
use crate::domain::ids::Namespace;
use crate::sys::clock::Clock as _;

/// Name of the cookie that carries a token.
pub const COOKIE: &str = "sigilum_token";

/// The owner a request speaks for: proven by a token, known to the database, not revoked.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// Their row as it was when the request came.
    pub user: User,
    /// What they own.
    pub namespace: Namespace,
}

impl SignedIn {
    /// 403 `FORBIDDEN` where a namespace is not theirs.
    pub fn check_owns(&self, namespace: &str) -> Result<(), Problem> {
        if self.namespace.as_str() == namespace {
            return Ok(());
        }
        Err(Problem::forbidden("this namespace is not yours"))
    }
}

impl FromRequestParts<Arc<Api>> for SignedIn {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let token = presented(api, &parts.method, &parts.headers)?;
        let token = token.ok_or_else(|| Problem::unauthorized("an owner token is needed; sign in first"))?;
        admit(api, verified(api, &token)?).await
    }
}

/// The token a request carries: the bearer credential, else the cookie. 403 `FORBIDDEN` where the cookie was sent by
/// a page that may not act with it.
pub fn presented(api: &Api, method: &Method, headers: &HeaderMap) -> Result<Option<String>, Problem> {
    if let Some(token) = bearer(headers) {
        return Ok(Some(token.to_owned()));
    }
    let Some(token) = cookie(headers) else { return Ok(None) };
    check_page(api, method, headers)?;
    Ok(Some(token.to_owned()))
}

/// 403 `FORBIDDEN` where a web page wants to change something and is not ours.
pub fn check_page(api: &Api, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let judged = api.origins.check_page(method, headers, is_secure(&api.public_urls, headers));
    judged.map_err(|foreign| Problem::forbidden(foreign.to_string()))
}

/// 403 `FORBIDDEN` where a web page that is not ours opens a WebSocket.
pub fn check_origin(api: &Api, headers: &HeaderMap) -> Result<(), Problem> {
    let judged = api.origins.check_origin(headers, is_secure(&api.public_urls, headers));
    judged.map_err(|foreign| Problem::forbidden(foreign.to_string()))
}

/// Checks a token by itself: 401 `TOKEN_EXPIRED` or `UNAUTHORIZED`.
pub fn verified(api: &Api, token: &str) -> Result<VerifiedToken, Problem> {
    token::verify(&api.jwt_secret, token, api.clock.now().seconds()).map_err(|error| match error {
        TokenError::Expired => expired(),
        TokenError::Invalid | TokenError::Unissuable => Problem::unauthorized(error.to_string()),
    })
}

/// 401 `TOKEN_EXPIRED`.
pub fn expired() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "TOKEN_EXPIRED", TokenError::Expired.to_string())
}

/// Finds whom a token speaks for. The owner of a namespace of this machine is registered by the first token that
/// names them; other users must exist.
pub async fn admit(api: &Api, token: VerifiedToken) -> Result<SignedIn, Problem> {
    let namespace = token.owner().namespace.clone();
    let now_ms = moment::now_ms(api.clock);
    let is_local = token.owner().is_local();
    let (standing, token) = api
        .db
        .read(move |db| {
            let standing = users::standing(db, &token)?;
            Ok((standing, token))
        })
        .await?;
    let standing = match standing {
        // Judged again where it is written: somebody may have been faster.
        Standing::Unknown if is_local => {
            let register = move |db: &rusqlite::Transaction<'_>| match users::standing(db, &token)? {
                Standing::Unknown => Ok(Standing::Owner(users::insert(db, token.owner(), now_ms)?)),
                known @ (Standing::Owner(_) | Standing::Revoked | Standing::Foreign) => Ok(known),
            };
            api.db.write(register).await?
        }
        known @ (Standing::Owner(_) | Standing::Revoked | Standing::Foreign | Standing::Unknown) => known,
    };
    match standing {
        Standing::Owner(user) => Ok(SignedIn { user, namespace }),
        Standing::Revoked => Err(Problem::unauthorized("the token was revoked; sign in again")),
        Standing::Foreign => Err(no_user("the namespace of this token belongs to another user")),
        Standing::Unknown => Err(no_user("the user of this token does not exist")),
    }
}

/// 401 `USER_NOT_FOUND`.
fn no_user(text: &'static str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "USER_NOT_FOUND", text)
}

/// The cookie's value, where there is exactly one: of two, one may have been planted by a neighbouring host.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let mut found = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value);
    found.next().filter(|value| !value.is_empty() && found.next().is_none())
}

/// The header that makes a browser keep a token for `seconds`: out of scripts' reach and never with a request that
/// another site makes it send.
pub fn set_cookie(api: &Api, headers: &HeaderMap, token: &str, seconds: u64) -> Result<HeaderValue, Problem> {
    let secure = if is_secure(&api.public_urls, headers) { "; Secure" } else { "" };
    let text = format!("{COOKIE}={token}; HttpOnly; Path=/; Max-Age={seconds}; SameSite=Strict{secure}");
    let mut value = HeaderValue::try_from(text).map_err(|_| Problem::unauthorized("the token is not valid"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The origin a request was sent to, e.g. `http://127.0.0.1:8787`.
pub fn origin(api: &Api, headers: &HeaderMap) -> String {
    let scheme = if is_secure(&api.public_urls, headers) { "https" } else { "http" };
    // The guard has let no other host in than loopback and our public ones.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    format!("{scheme}://{host}")
}

/// Whether browsers reach us by https under the name a request was sent to.
fn is_secure(public_urls: &[String], headers: &HeaderMap) -> bool {
    let Some(Ok(host)) = headers.get(header::HOST).map(HeaderValue::to_str) else { return false };
    public_urls.iter().filter_map(|url| url.strip_prefix("https://")).any(|name| name.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_cookies(lines: &[&'static str]) -> HeaderMap {
        let lines = lines.iter().map(|line| (header::COOKIE, HeaderValue::from_static(line)));
        lines.collect()
    }

    #[test]
    fn one_cookie_of_the_name_counts() {
        assert_eq!(cookie(&with_cookies(&["a=b; sigilum_token=x.y.z; c"])), Some("x.y.z"));
        assert_eq!(cookie(&with_cookies(&["sigilum_token=x", "a=b"])), Some("x"));
        for none in [&["a=b"][..], &["sigilum_token="], &["sigilum_token=x; sigilum_token=y"], &["Sigilum_Token=x"]] {
            assert_eq!(cookie(&with_cookies(none)), None, "{none:?}");
        }
        assert_eq!(cookie(&with_cookies(&["sigilum_token=x", "sigilum_token=x"])), None);
    }

    #[test]
    fn a_cookie_is_secure_where_we_are_reached_by_https() {
        let urls = ["https://api.example.com".to_owned(), "http://10.0.0.1:8787".to_owned()];
        for (host, secure) in [("api.example.com", true), ("10.0.0.1:8787", false), ("127.0.0.1:8787", false)] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            assert_eq!(is_secure(&urls, &headers), secure, "{host}");
        }
    }
}

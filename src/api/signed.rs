//! Signed requests: which paths need a signature, who must have signed, and that nobody sends one twice.
//!
//! The guard stands in front of every route, known or not: a path under `/v1/` or `/.well-known/` is signed unless
//! it is listed here as open. It also holds the body back until it is whole, and refuses requests addressed to
//! another host: what somebody signed for `example.com` must not count here.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::Request;
use axum::extract::State;
use axum::middleware::Next;
use axum::response::IntoResponse as _;
use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use http::Response;
use http::StatusCode;
use http::header;
use http::request::Parts;
use http_body_util::BodyExt as _;
use http_body_util::LengthLimitError;
use http_body_util::Limited;
use hyper::body::Body as _;
use serde_json::Value;

use crate::api::Api;
use crate::api::input::Query;
use crate::api::moment;
use crate::api::nonces;
use crate::api::nonces::Nonce;
use crate::api::problem::Problem;
use crate::api::service_key;
use crate::api::service_key::KeyedService;
use crate::domain::authority;
use crate::domain::request::BodyView;
use crate::domain::request::RequestView;
use crate::domain::signature::received::Expected;
use crate::domain::signature::received::Fault;
use crate::domain::signature::received::Verified;
use crate::domain::signature::received::verify_request;
use crate::domain::time::CLOCK_SKEW;
use crate::domain::time::UnixSeconds;
use crate::sys::clock::Clock as _;
use crate::sys::http_server::Peer;
use crate::wire::control_plane::BINDING_HEADER;
use crate::wire::control_plane::CLAIMS_PATH;
use crate::wire::control_plane::NAMESPACE_ONLY;
use crate::wire::control_plane::USAGE_PATH;

/// Largest request body, in bytes.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Bodies up to this many bytes are read at once; room for larger ones is limited, see [`LARGE_BODIES`].
const SMALL_BODY_BYTES: u64 = 64 * 1024;
/// Larger bodies that are held at a time: nobody who sends one has shown anything yet.
pub const LARGE_BODIES: usize = 48;
/// How long a client may take to send its body.
const BODY_PATIENCE: Duration = Duration::from_secs(15);

/// Who signed a request; every handler behind a signature asks for it, and gets 401 should a route ever stand
/// outside of the guard.
#[derive(Debug, Clone)]
pub struct Signed(pub Verified);

impl<S: Sync> FromRequestParts<S> for Signed {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Fault::Missing.into())
    }
}

/// How a request reached us, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// `https` where it is addressed to a public address that has it, else `http`.
    pub scheme: &'static str,
}

/// The middleware.
pub(super) async fn guard(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response<Body> {
    match receive(&api, request).await {
        Ok(request) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

async fn receive(api: &Api, request: Request) -> Result<Request, Problem> {
    let (mut parts, body) = request.into_parts();
    let Some(Peer(peer)) = parts.extensions.get::<Peer>().copied() else { return Err(Problem::internal()) };
    if parts.uri.path() == "/health" {
        return Ok(Request::from_parts(parts, Body::empty()));
    }
    let scheme = address(api, &parts)?;
    parts.extensions.insert(Reached { scheme });
    let bodiless = matches!(parts.method, Method::GET | Method::HEAD);
    let body = if bodiless { Bytes::new() } else { whole(api, &parts.headers, body).await? };
    if needs_signature(parts.uri.path()) {
        let (verified, service) = verify(api, &parts, scheme, &body, peer.ip()).await?;
        parts.extensions.insert(Signed(verified));
        if let Some(service) = service {
            parts.extensions.insert(service);
        }
    }
    Ok(Request::from_parts(parts, Body::from(body)))
}

/// Whether the request is addressed to us, and the scheme it was signed for: that of the public address it names,
/// else `http`, which is what is spoken here.
fn address(api: &Api, parts: &Parts) -> Result<&'static str, Problem> {
    let refused = || {
        let text = "this address is not one of this API's; the operator lists its public ones in API_PUBLIC_URL";
        Problem::new(StatusCode::FORBIDDEN, "AUTHORITY_NOT_ACCEPTED", text)
    };
    let host = host(&parts.headers).ok_or_else(refused)?;
    if parts.uri.authority().is_some_and(|authority| authority.as_str().as_bytes() != host) {
        return Err(refused());
    }
    let public = api.public_urls.iter().filter_map(|url| url.split_once("://"));
    let named = public.clone().find(|(_, authority)| authority.as_bytes().eq_ignore_ascii_case(host));
    let accepted: Vec<String> = public.map(|(_, authority)| authority.to_owned()).collect();
    authority::check(host, &accepted, true).map_err(|_| refused())?;
    Ok(if named.is_some_and(|(scheme, _)| scheme == "https") { "https" } else { "http" })
}

/// The one `Host` header.
fn host(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::HOST).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.as_bytes()),
        _ => None,
    }
}

/// The whole body, within bounds of size and time.
async fn whole(api: &Api, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MAX_BODY_BYTES as u64) {
        return Err(Problem::too_large());
    }
    // A body that does not say how large it is counts as large, unless there is none.
    let small = announced.map_or_else(|| body.is_end_stream(), |length| length <= SMALL_BODY_BYTES);
    let _room = match small {
        true => None,
        false => Some(api.large_bodies.try_acquire().map_err(|_| busy())?),
    };
    match tokio::time::timeout(BODY_PATIENCE, Limited::new(body, MAX_BODY_BYTES).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::too_large()),
        Ok(Err(_)) => Err(Problem::invalid("body", "broke off")),
        Err(_) => {
            let text = "the request body did not come in time";
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "TIMEOUT", text))
        }
    }
}

fn busy() -> Problem {
    let text = "too many large requests at a time; try again";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "BUSY", text).retry_after(1)
}

/// Whether requests to a path must be signed.
pub fn needs_signature(path: &str) -> bool {
    let mut segments = path.split('/');
    if segments.next() != Some("") {
        return false;
    }
    let parts: Vec<&str> = segments.collect();
    match parts.as_slice() {
        ["v1", "auth" | "services", ..]
        | ["v1", "test", "seed"]
        | ["v1", "gateway", "pairing", ..]
        | ["v1", "claims", _]
        | ["v1", "claims", _, "approve" | "reject" | "revoke"]
        | ["v1", "namespaces", _, "claims" | "usage"] => false,
        [".well-known", name, ..] => !name.starts_with("did"),
        ["v1", ..] | [".well-known"] => true,
        _ => false,
    }
}

/// Whether the signer registers another key of its own namespace.
pub fn is_namespace_only(headers: &HeaderMap) -> bool {
    let binding = headers.get(BINDING_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    binding.trim().eq_ignore_ascii_case(NAMESPACE_ONLY)
}

/// Who a request is about: whoever signs must be that.
#[derive(Debug, Default, PartialEq, Eq)]
struct About {
    namespace: Option<String>,
    key: Option<String>,
}

impl About {
    fn of(parts: &Parts, body: &[u8]) -> Self {
        let path = parts.uri.path();
        if matches!(path, CLAIMS_PATH | USAGE_PATH) {
            let body: Value = serde_json::from_slice(body).unwrap_or_default();
            let member = |name| body.get(name).and_then(Value::as_str).map(str::to_owned);
            // The header is not signed, and need not be: without it one more thing must agree, and with it the
            // signer still speaks for its own namespace alone.
            let bound = !is_namespace_only(&parts.headers);
            return Self { namespace: member("namespace"), key: member("public_key").filter(|_| bound) };
        }
        if path == "/v1/verify" {
            let query = Query::parse(parts.uri.query().unwrap_or_default()).unwrap_or_default();
            return Self { namespace: query.find("namespace").map(str::to_owned), key: None };
        }
        let named = path.strip_prefix("/v1/namespaces/").and_then(|rest| rest.split('/').next());
        Self { namespace: named.filter(|name| *name != "claims").map(str::to_owned), key: None }
    }
}

/// The request as the signature check sees it.
struct View<'a> {
    parts: &'a Parts,
    scheme: &'static str,
    body: &'a [u8],
    client: IpAddr,
}

impl RequestView for View<'_> {
    fn method(&self) -> &[u8] {
        self.parts.method.as_str().as_bytes()
    }
    fn scheme(&self) -> &[u8] {
        self.scheme.as_bytes()
    }
    fn authority(&self) -> &[u8] {
        host(&self.parts.headers).unwrap_or_default()
    }
    fn target(&self) -> &[u8] {
        self.parts.uri.path_and_query().map_or(b"/", |target| target.as_str().as_bytes())
    }
    fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
    }
    fn body(&self) -> BodyView<'_> {
        BodyView::Whole(self.body)
    }
    fn client_address(&self) -> Option<IpAddr> {
        Some(self.client)
    }
}

async fn verify(
    api: &Api,
    parts: &Parts,
    scheme: &'static str,
    body: &[u8],
    client: IpAddr,
) -> Result<(Verified, Option<KeyedService>), Problem> {
    let hash = service_key::bearer(&parts.headers)
        .filter(|key| key.starts_with(service_key::KEY_PREFIX))
        .map(service_key::key_hash);
    let service = match hash {
        Some(hash) => api.db.read(move |db| Ok(service_key::find(db, &hash)?)).await?,
        None => None,
    };
    let now = api.clock.now();
    if let Some(service) = &service {
        api.strangers.check(&service.key_id, client, now.monotonic)?;
    } else if parts.headers.contains_key("signature") {
        // Without that header there is nothing to verify, and the refusal costs nothing.
        api.strangers.charge(client, now.monotonic)?;
    }
    let about = About::of(parts, body);
    let expected = Expected { namespace: about.namespace.as_deref(), key: about.key.as_deref() };
    let view = View { parts, scheme, body, client };
    let max_age = api.limits.signature_max_age;
    let verified = match verify_request(&view, max_age, now.seconds(), &expected) {
        Ok(verified) => verified,
        Err(fault) => {
            if let Some(service) = &service {
                api.strangers.failed(&service.key_id, client, now.monotonic);
            }
            return Err(fault.into());
        }
    };
    remember(api, &verified).await?;
    if let Some(service) = &service {
        api.key_uses.note(&service.key_id, moment::now_ms(api.clock));
    }
    Ok((verified, service))
}

/// Admits the nonce, which is on disk before the request is acted on.
async fn remember(api: &Api, verified: &Verified) -> Result<(), Problem> {
    let now_ms = moment::now_ms(api.clock);
    let UnixSeconds(created) = verified.created;
    // As long as the signature could be sent again, and then some.
    let needed = api.limits.signature_max_age.saturating_add(CLOCK_SKEW.saturating_mul(2));
    let ttl = api.limits.nonce_ttl.max(needed);
    let from_ms = i64::try_from(created.saturating_mul(1000)).unwrap_or(now_ms).max(now_ms);
    let expires_at_ms = from_ms.saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
    let (caller, nonce) = (verified.caller.clone(), verified.nonce.clone());
    let fresh = api.db.write(move |db| {
        let nonce = Nonce::Signature(caller.namespace.as_str(), caller.key.as_bytes(), &nonce);
        nonces::admit(db, nonce, now_ms, expires_at_ms)
    });
    match fresh.await {
        Ok(true) => Ok(()),
        Ok(false) => {
            let text = "this nonce was used before; sign every request anew";
            Err(Problem::new(StatusCode::CONFLICT, "SIGNATURE_NONCE_REPLAY", text))
        }
        Err(problem) if problem.status().is_server_error() => {
            let text = "the nonce could not be remembered; try again";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "NONCE_STORE_UNAVAILABLE", text).retry_after(1))
        }
        Err(problem) => Err(problem),
    }
}

#[cfg(test)]
#[path = "signed_tests.rs"]
mod tests;

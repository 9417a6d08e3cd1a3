//! Routes as one table, and what every request passes: an id, access, bounds in size and time.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::extract::State;
use axum::middleware::Next;
use axum::middleware::from_fn_with_state;
use axum::routing::any;
use axum::routing::post;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Response;
use http::StatusCode;
use http::Uri;
use http::header;
use tokio::task::JoinSet;
use utoipa_axum::router::OpenApiRouter;

use crate::admin::Admin;
use crate::admin::access;
use crate::admin::access::AccessDenied;
use crate::admin::access::Caller;
use crate::admin::access::Via;
use crate::admin::audit;
use crate::admin::catalog;
use crate::admin::drain;
use crate::admin::input::Id;
use crate::admin::input::Shared;
use crate::admin::legacy;
use crate::admin::logs;
use crate::admin::openapi;
use crate::admin::probes;
use crate::admin::refusals;
use crate::admin::reload;
use crate::admin::respond::Problem;
use crate::admin::respond::REQUEST_ID_HEADER;
use crate::admin::respond::RequestId;
use crate::admin::respond::empty;
use crate::admin::routes;
use crate::admin::sealing_key;
use crate::admin::service_keys;
use crate::admin::status;
use crate::admin::token::AdminSecret;
use crate::admin::token::Kind;
use crate::admin::upkeep;
use crate::admin::uses;
use crate::admin::variables;
use crate::domain::audit::Action;
use crate::domain::audit::Asker;
use crate::domain::audit::Entry;
use crate::domain::audit::Via as AuditVia;
use crate::domain::relay::RELAY_HEADER;
use crate::domain::relay::RelayRefused;
use crate::domain::relay::RelaySession;
use crate::sys::clock::Clock as _;
use crate::sys::http_server::ClientName;
use crate::sys::http_server::Local;
use crate::sys::http_server::Peer;
use crate::sys::random;
use crate::sys::room::Admission;
use crate::telemetry::decisions;

/// First segments of paths the seed took on the port of the admin API.
const AGENTS_PATHS: [&str; 3] = ["proxy", "mcp", "slack"];
/// How long a request may take in all.
const REQUEST_PATIENCE: Duration = Duration::from_secs(20);
/// The same for what goes over the whole store, and for reloads, which ask programs for secrets. It is done in any case once
/// it has begun, so an early answer would only hide how it ended; this is far more than the largest store takes.
const LONG_PATIENCE: Duration = Duration::from_secs(600);
/// What the paths of those begin with.
const LONG_PATHS: [&str; 3] = ["/api/admin/store/", "/api/admin/secrets/reload", "/api/admin/config/reload"];
/// What the paths begin with of what concerns the gateway as a whole, and is none of a dashboard's business.
const NEVER_RELAYED: [&str; 6] = [
    "/api/admin/audit",
    "/api/admin/config/",
    "/api/admin/sealing-key/",
    "/api/admin/secrets/",
    "/api/admin/store/",
    "/api/v1/",
];
/// Header by which a client says for whom it asks. Nothing is proven by it.
pub const SUBJECT_HEADER: &str = "sigilum-subject";
/// Longest request id a client may give, in characters.
const MAX_REQUEST_ID: usize = 128;

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthClass {
    /// Everybody: nothing of this gateway is told there but whether it is well.
    Open,
    /// Whom the access rule lets in.
    Operator,
}

impl AuthClass {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Open, Self::Operator];

    /// The routes of this class, with their descriptions. A route has no class but by being in one of these.
    pub fn routes(self) -> OpenApiRouter<Arc<Admin>> {
        match self {
            Self::Open => routes::open().merge(openapi::routes()),
            Self::Operator => guarded(),
        }
    }
}

/// Every route, with its description.
pub fn table() -> OpenApiRouter<Arc<Admin>> {
    AuthClass::ALL.into_iter().map(AuthClass::routes).fold(OpenApiRouter::new(), OpenApiRouter::merge)
}

/// Routes behind the access rule.
fn guarded() -> OpenApiRouter<Arc<Admin>> {
    routes::guarded()
        .merge(audit::routes())
        .merge(variables::routes())
        .merge(probes::routes())
        .merge(catalog::routes())
        .merge(service_keys::routes())
        .merge(legacy::routes())
        .merge(upkeep::routes())
        .merge(reload::routes())
        .merge(drain::routes())
        .merge(uses::routes())
        .merge(sealing_key::routes())
        .merge(status::routes())
        .merge(refusals::routes())
        .merge(logs::routes())
}

/// The whole face.
pub fn router(admin: Arc<Admin>) -> Router {
    let guarded = Router::from(AuthClass::Operator.routes())
        // What follows an action counts for nothing, as in the seed.
        .route("/api/admin/connections/{id}/rotate/{*rest}", post(routes::rotate))
        .route("/api/admin/connections/{id}/test/{*rest}", post(probes::test))
        .route("/api/admin/connections/{id}/discover/{*rest}", post(probes::discover))
        // What is not there is not told to strangers either.
        .route("/api/admin", any(unknown))
        .route("/api/admin/{*rest}", any(unknown));
    let guarded =
        guarded.method_not_allowed_fallback(wrong_method).route_layer(from_fn_with_state(Arc::clone(&admin), let_in));
    Router::from(AuthClass::Open.routes())
        .method_not_allowed_fallback(wrong_method)
        .merge(guarded)
        .fallback(unknown)
        .layer(from_fn_with_state(Arc::clone(&admin), attend))
        .with_state(admin)
}

async fn unknown(State(admin): Shared, Extension(id): Id, uri: Uri) -> Response<Body> {
    if !uri.path().split('/').nth(1).is_some_and(|first| AGENTS_PATHS.contains(&first)) {
        return Problem::not_found().into_response(&id);
    }
    let envoy = admin.ingress.load().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let text = format!("requests of agents are taken by Envoy on {envoy}, not by the admin API");
    Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND", text).into_response(&id)
}

async fn wrong_method(Extension(id): Id) -> Response<Body> {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "method not allowed").into_response(&id)
}

/// What every request passes: an id, a time limit, containment of panics, headers of the answer.
async fn attend(State(admin): Shared, mut request: Request, next: Next) -> Response<Body> {
    let own = || random::uuid().unwrap_or_else(|_| format!("req-{}", admin.clock.now().wall.0));
    let id = RequestId(given_request_id(request.headers()).unwrap_or_else(own));
    let origin = request.headers().get(header::ORIGIN).cloned();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let client = request.extensions().get::<Peer>().map(|peer| peer.0.ip().to_string()).unwrap_or_default();
    request.extensions_mut().insert(id.clone());
    let answered = if let Err(problem) = check_page(&admin, &id, &request) {
        problem.into_response(&id)
    } else if method == Method::OPTIONS {
        empty(StatusCode::NO_CONTENT)
    } else {
        // A task of its own: a panic ends it and not the connection; dropped with us when the client leaves.
        let mut task = JoinSet::new();
        task.spawn(next.run(request));
        match tokio::time::timeout(patience(&path), task.join_next()).await {
            Ok(Some(Ok(response))) => response,
            Ok(Some(Err(_)) | None) => {
                tracing::error!(request_id = %id.0, "a handler panicked");
                Problem::internal().into_response(&id)
            }
            Err(_) => {
                let text = "the request took too long";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "", text).into_response(&id)
            }
        }
    };
    let mut response = answered;
    let status = response.status().as_u16();
    tracing::debug!(request_id = %id.0, %client, %method, path, status, "admin request");
    let headers = response.headers_mut();
    if let Some(origin) = &origin {
        admin.pages.load().decorate(origin, headers);
    }
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        headers.insert(REQUEST_ID_HEADER, value);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// How long a request of this path may take in all.
fn patience(path: &str) -> Duration {
    if LONG_PATHS.iter().any(|long| path.starts_with(long)) { LONG_PATIENCE } else { REQUEST_PATIENCE }
}

/// Whether the request names us, and comes of no page of elsewhere; judged before anything else.
fn check_page(admin: &Admin, id: &RequestId, request: &Request) -> Result<(), Problem> {
    let Some(Local(local)) = request.extensions().get::<Local>().copied() else { return Err(Problem::internal()) };
    let judged = admin.pages.load().check(request.method(), request.uri(), request.headers(), local.ip());
    judged.map_err(|turned| {
        let (status, code, text) = turned.wire();
        tracing::warn!(request_id = %id.0, code, "a request for another host or of another origin was turned away");
        Problem::new(status, code, text)
    })
}

/// What every request to the API and the metrics passes: access. Who it is travels on as [`Asker`].
async fn let_in(State(admin): Shared, Extension(id): Id, mut request: Request, next: Next) -> Response<Body> {
    look_for_new_secret(&admin).await;
    let judged = match check_access(&admin, &id, &request) {
        Ok(asker) => check_relay(asker, &request),
        Err(Denied { problem, wait }) => {
            tokio::time::sleep(wait).await;
            Err(problem)
        }
    };
    match judged {
        Ok(asker) => {
            if let Some(admission) = request.extensions().get::<Admission>() {
                admission.admit();
            }
            request.extensions_mut().insert(asker);
            next.run(request).await
        }
        Err(problem) => problem.into_response(&id),
    }
}

/// Who asks, with the session under which the bridge relayed the request. What is malformed is refused: passed over, it would
/// make a relayed request one of the operator's own.
fn check_relay(asker: Asker, request: &Request) -> Result<Asker, Problem> {
    let mut named = request.headers().get_all(RELAY_HEADER).iter();
    let Some(session) = named.next() else { return Ok(asker) };
    let session = session.to_str().ok().filter(|_| named.next().is_none()).and_then(RelaySession::parse);
    let session = session.ok_or_else(|| {
        let text = format!("{RELAY_HEADER}: must be there once, with 1 to 64 of A-Za-z0-9._-");
        Problem::new(StatusCode::BAD_REQUEST, "RELAY_HEADER_INVALID", text)
    })?;
    // The bridge lets none of these pass either.
    if NEVER_RELAYED.iter().any(|begin| request.uri().path().starts_with(begin)) {
        return Err(RelayRefused::Operation.into());
    }
    Ok(asker.relayed(Some(session)))
}

/// Whether who asks on an open path may be told more: what would let it in elsewhere. A wrong token counts as a guess here
/// too, and no token is no event: orchestrators ask every few seconds. What a pairing relays is told what strangers are.
pub(super) fn may_know(admin: &Admin, id: &RequestId, request: &Request) -> bool {
    if request.headers().contains_key(RELAY_HEADER) {
        return false;
    }
    let extensions = request.extensions();
    let (Some(Peer(peer)), Some(Local(local))) = (extensions.get::<Peer>(), extensions.get::<Local>()) else {
        return false;
    };
    let certified = extensions.get::<ClientName>().is_some();
    let (uri, headers) = (request.uri(), request.headers());
    let caller = Caller { peer: peer.ip(), local: local.ip(), certified, uri, headers };
    let shows_token = access::presented(request.headers()).is_some();
    // Here nothing waits, so nothing is compared while wrong passwords are to.
    if shows_token && caller.is_local_program() && admin.attempts.is_pressed_here(admin.clock.now().monotonic) {
        return false;
    }
    if shows_token { check_access(admin, id, request).is_ok() } else { admin.access.check(caller, false).is_ok() }
}

/// Why a request is not let in, and how long its answer waits.
struct Denied {
    problem: Problem,
    wait: Duration,
}

impl From<Problem> for Denied {
    fn from(problem: Problem) -> Self {
        Self { problem, wait: Duration::ZERO }
    }
}

fn check_access(admin: &Admin, id: &RequestId, request: &Request) -> Result<Asker, Denied> {
    let (headers, extensions) = (request.headers(), request.extensions());
    let (Some(Peer(peer)), Some(Local(local))) = (extensions.get::<Peer>(), extensions.get::<Local>()) else {
        return Err(Problem::internal().into());
    };
    let now = admin.clock.now().monotonic;
    let name = extensions.get::<ClientName>();
    let caller = Caller { peer: peer.ip(), local: local.ip(), certified: name.is_some(), uri: request.uri(), headers };
    let client = admin.access.client(caller);
    let locked = if caller.is_local_program() { None } else { admin.attempts.locked_for(client, now) };
    // Also of a locked address: it may be that of many, and whoever has the right one is not to wait for those who do not.
    let compares = locked.is_none()
        || admin.access.is_unguessable()
        || access::presented(headers).is_some() && admin.attempts.compares(client, now);
    match admin.access.check(caller, compares) {
        Ok(via) => {
            let certificate = name.map(|ClientName(name)| name.as_ref());
            let audited = via.audited();
            let remote_ip = decisions::mask(client.to_canonical());
            let by = audited.name();
            tracing::debug!(event = "admin_access_granted", request_id = %id.0, remote_ip, via = by, "admin access");
            let subject = headers.get(SUBJECT_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
            // What a certificate proves goes before what a header claims.
            let asker = Asker::new(audited, &client.to_canonical().to_string(), &id.0);
            let proven = match &via {
                Via::Proxy(user) => Some(user.as_str()),
                Via::Token | Via::Loopback | Via::Certificate | Via::Password | Via::Metrics => certificate,
            };
            Ok(proven.map_or(asker.clone(), |name| asker.proven(name)).named(subject))
        }
        Err(denied) => {
            let (code, message) = denied.wire();
            let guessed = admin.access.was_guess(&denied, caller);
            let remote_ip = decisions::mask(client.to_canonical());
            let reason = match &denied {
                AccessDenied::ProxyRequired(refused, _) => Some(refused.to_string()),
                AccessDenied::TokenRequired
                | AccessDenied::PasswordRequired
                | AccessDenied::LoopbackRequired
                | AccessDenied::TokenOrLoopbackRequired
                | AccessDenied::CertificateRequired => None,
            };
            tracing::warn!(
                event = "admin_access_denied", request_id = %id.0, remote_ip, code, reason, guessed, "admin access"
            );
            let limited = |text: &str| Problem::new(StatusCode::TOO_MANY_REQUESTS, "AUTH_RATE_LIMITED", text);
            match locked {
                Some(left) if guessed => {
                    // The next comparison is a second away; whether this was one is not told.
                    let seconds = if admin.access.is_unguessable() { left } else { 1 };
                    let problem = limited("too many wrong tokens or passwords from this address");
                    return Err(problem.retry_after(seconds).into());
                }
                None if guessed && !caller.is_local_program() => admin.attempts.failed(client, now),
                // The right one is let in at once, whoever guesses besides. A token may be short where this machine alone is served,
                // and not every program here can read where it stands.
                None if guessed && (denied.was_password() || !admin.access.is_unguessable()) => {
                    if let Some(wait) = admin.attempts.failed_here(now) {
                        let problem = limited("too many wrong tokens or passwords on this machine").retry_after(1);
                        return Err(Denied { problem, wait: Duration::from_millis(wait) });
                    }
                }
                Some(_) | None => {}
            }
            Err(Problem::new(StatusCode::FORBIDDEN, code, message).into())
        }
    }
}

/// Takes new tokens and a new password over, where somebody who may replaced their files.
pub(super) async fn look_for_new_secret(admin: &Admin) {
    let all = [&admin.access.secret, &admin.access.metrics].into_iter().flatten();
    for kind in all.filter(|secret| secret.refresh()).map(AdminSecret::kind) {
        note_replaced(admin, kind).await;
    }
}

async fn note_replaced(admin: &Admin, kind: Kind) {
    tracing::info!(secret = kind.name(), "the secret of the admin API was replaced; the old one counts no longer");
    let (store, now) = (&admin.store, admin.clock.now().wall);
    let asker = Asker::local(AuditVia::Command);
    let action = match kind {
        Kind::Token => Action::AdminTokenRotate,
        Kind::Password => Action::AdminPasswordRotate,
        Kind::Metrics => Action::MetricsTokenRotate,
    };
    let entry = Entry::new(action, "", &asker, now);
    if let Err(error) = store.keep(move |vault| vault.note(&entry)).await {
        tracing::error!(%error, "the new secret of the admin API is not in the audit");
    }
}

/// The id a client gave its request, where there is one and it is a word of visible ASCII.
fn given_request_id(headers: &HeaderMap) -> Option<String> {
    let mut given = headers.get_all(REQUEST_ID_HEADER).iter();
    let (Some(id), None) = (given.next(), given.next()) else { return None };
    let id = id.to_str().ok()?.trim();
    let usable = (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    usable.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_on_the_whole_store_and_reloads_are_waited_for_and_nothing_else() {
        let routed = table().into_openapi();
        let is_long = |path: &&String| path.contains("/store/") || path.ends_with("/reload");
        let long: Vec<_> = routed.paths.paths.keys().filter(is_long).collect();
        assert_eq!(long.len(), 5, "{long:?}");
        assert!(long.iter().all(|path| patience(path) == LONG_PATIENCE));
        for path in ["/api/admin/connections", "/api/admin/connections/store/rotate", "/api/admin/store", "/health"] {
            assert_eq!(patience(path), REQUEST_PATIENCE, "{path}");
        }
    }
}

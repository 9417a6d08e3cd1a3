//! A demo service without a gateway: it verifies every request itself.
//!
//! What it does is what any service does that agents call directly: signature, approval, replay, in this
//! order. A nonce is remembered once the request is known to be genuine and its agent approved, so nobody
//! else can use it up.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body;
use axum::body::Body;
use axum::body::Bytes;
use axum::extract::Request;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::Method;
use axum::http::StatusCode;
use axum::http::Uri;
use axum::http::header::HOST;
use axum::http::header::RETRY_AFTER;
use axum::middleware;
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;

use crate::demo::account;
use crate::demo::account::refusal;
use crate::demo::approvals;
use crate::demo::approvals::Approvals;
use crate::demo::approvals::Approved;
use crate::demo::approvals::PACE;
use crate::demo::approvals::Pace;
use crate::demo::approvals::Standing;
use crate::demo::upstream::DemoError;
use crate::domain::authority;
use crate::domain::replay::AdmitRefusal;
use crate::domain::replay::ReplayWindow;
use crate::domain::request::BodyView;
use crate::domain::request::RequestView;
use crate::domain::signature::received::Expected;
use crate::domain::signature::received::Verified;
use crate::domain::signature::received::verify_request;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::http_server;
use crate::sys::http_server::Peer;
use crate::sys::random;
use crate::sys::room::Room;
use crate::sys::tasks::Stop;

/// How old a signature may be, as in the gateway.
const MAX_AGE: Duration = Duration::from_secs(300);
/// Nonces remembered; a full window refuses.
const WINDOW: usize = 100_000;
/// Connections at a time.
const MAX_CONNECTIONS: usize = 256;
/// Largest body, as in the gateway by default.
const MAX_BODY: usize = 2 * 1024 * 1024;
/// How long open answers have to end at a stop.
const GRACE: Duration = Duration::from_secs(2);
/// Seconds after which asking again makes sense.
const RETRY_SECONDS: &str = "5";

struct Native {
    port: u16,
    approvals: Approvals,
    window: Mutex<ReplayWindow>,
}

/// Serves the demo API on `listener` until the stop; every `/v1` route wants a request signed by an agent
/// whose approval `read` finds. Requests signed before the start, or within the allowance for clocks after
/// it, are turned away with 503: nobody remembers whether they were used before.
pub async fn run<F, E>(listener: TcpListener, read: impl FnMut() -> F, stop: Stop) -> Result<(), DemoError>
where
    F: Future<Output = Result<Approved, E>>,
    E: fmt::Display,
{
    serve(listener, read, stop, PACE, true).await
}

async fn serve<F, E>(
    listener: TcpListener,
    read: impl FnMut() -> F,
    stop: Stop,
    pace: Pace,
    floor: bool,
) -> Result<(), DemoError>
where
    F: Future<Output = Result<Approved, E>>,
    E: fmt::Display,
{
    let mut window = ReplayWindow::new(WINDOW, random::bytes().map_err(io::Error::other)?);
    if floor {
        window.set_floor(SystemClock.now().seconds());
    }
    let (approvals, reader) = approvals::approvals(pace);
    let native = Native { port: listener.local_addr()?.port(), approvals, window: Mutex::new(window) };
    let router = router(Arc::new(native));
    let mut called = stop.clone();
    let overdue = async move {
        called.wait().await;
        tokio::time::sleep(GRACE).await;
    };
    let serving = async {
        // Requests still waiting for a read must not wait for a reader that is gone.
        tokio::join!(
            http_server::serve(listener, router, Room::new(MAX_CONNECTIONS), stop.clone()),
            reader.run(read, stop)
        )
    };
    tokio::select! {
        _ = serving => {}
        () = overdue => {}
    }
    Ok(())
}

fn router(native: Arc<Native>) -> Router {
    let guarded = account::routes()
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "Not found") })
        .layer(middleware::from_fn_with_state(Arc::clone(&native), guard));
    let open = || async { Json(json!({"service": "demo-service-native", "status": "ok"})) };
    Router::new().route("/", get(open)).merge(guarded).with_state(native)
}

/// Lets a request through that is genuine, approved and new.
async fn guard(State(native): State<Arc<Native>>, request: Request, next: Next) -> Result<Response, Infallible> {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let (parts, body) = request.into_parts();
    let Ok(body) = body::to_bytes(body, MAX_BODY).await else {
        return Ok(refusal(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large or broke off"));
    };
    let seen = Seen { method: &parts.method, uri: &parts.uri, headers: &parts.headers, body: &body, peer };
    let Some(verified) = native.verify(&seen) else {
        return Ok(refusal(StatusCode::UNAUTHORIZED, "Unauthorized"));
    };
    match native.approvals.judge(&verified.caller, SystemClock.now().seconds()).await {
        Standing::Approved => {}
        Standing::Unapproved => return Ok(refusal(StatusCode::UNAUTHORIZED, "Unauthorized")),
        Standing::Unknown => return Ok(later("The approvals cannot be read")),
    }
    match native.admit(&verified) {
        Ok(()) => Ok(next.run(Request::from_parts(parts, Body::from(body))).await),
        Err(AdmitRefusal::Replayed) => Ok(refusal(StatusCode::UNAUTHORIZED, "Unauthorized")),
        Err(AdmitRefusal::Full | AdmitRefusal::ShareFull) => Ok(later("Too many requests to remember")),
        Err(AdmitRefusal::Starting) => Ok(later("Just started: new requests cannot be told from replayed ones yet")),
    }
}

fn later(message: &str) -> Response {
    let mut answer = refusal(StatusCode::SERVICE_UNAVAILABLE, message);
    answer.headers_mut().insert(RETRY_AFTER, axum::http::HeaderValue::from_static(RETRY_SECONDS));
    answer
}

impl Native {
    /// Whether the request is signed, and for this service: a signature for another host or port of this
    /// machine is none for us.
    fn verify(&self, seen: &Seen<'_>) -> Option<Verified> {
        let host = seen.authority();
        let ours = authority::check(host, &[], true).is_ok() && host.ends_with(format!(":{}", self.port).as_bytes());
        // A whole URL as the request target would be a second place that says where it goes.
        let plain = seen.uri.authority().is_none() && seen.headers.get_all(HOST).iter().count() == 1;
        if !(ours && plain) {
            return None;
        }
        verify_request(seen, MAX_AGE, SystemClock.now().seconds(), &Expected::default()).ok()
    }

    fn admit(&self, verified: &Verified) -> Result<(), AdmitRefusal> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let now = SystemClock.now();
        window.admit(&verified.caller.key, &verified.nonce, verified.created, MAX_AGE, now).map(drop)
    }
}

/// A request as it came.
struct Seen<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    body: &'a Bytes,
    peer: Option<SocketAddr>,
}

impl RequestView for Seen<'_> {
    fn method(&self) -> &[u8] {
        self.method.as_str().as_bytes()
    }

    fn scheme(&self) -> &[u8] {
        b"http"
    }

    fn authority(&self) -> &[u8] {
        self.headers.get(HOST).map_or(&[], |host| host.as_bytes())
    }

    fn target(&self) -> &[u8] {
        self.uri.path_and_query().map_or(b"/", |target| target.as_str().as_bytes())
    }

    fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
    }

    fn body(&self) -> BodyView<'_> {
        BodyView::Whole(self.body)
    }

    fn client_address(&self) -> Option<IpAddr> {
        self.peer.map(|peer| peer.ip())
    }
}

#[cfg(test)]
#[path = "native_tests.rs"]
mod tests;

//! `GET /v1/gateway/pairing/connect`: where a bridge joins its session. The handshake is judged before it is answered,
//! so that whoever is refused is told why by status and body.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Extension;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use http::HeaderMap;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::input::Query;
use crate::api::owner;
use crate::api::pairing::code;
use crate::api::pairing::sessions::Admitted;
use crate::api::pairing::sessions::Claimed;
use crate::api::pairing::sessions::Pairings;
use crate::api::pairing::socket::Arrival;
use crate::api::problem::Problem;
use crate::api::problem::Violation;
use crate::domain::secret::Secret;
use crate::sys::clock::Clock as _;
use crate::sys::http_server::Peer;
use crate::wire::control_plane::ErrorBody;
use crate::wire::pairing::CODE_HEADER;
use crate::wire::pairing::RECONNECT_HEADER;
use crate::wire::pairing::reconnect_secret;

pub use crate::wire::pairing::CONNECT_PATH as PATH;

/// Largest message of a bridge, in bytes. Ours sends answers of at most 8 MiB, which take up to twice that as text in
/// JSON. A larger one cannot be passed over within the protocol: the socket ends with code 1009, commands that wait
/// are answered with 502, and the bridge comes back.
const MAX_MESSAGE: usize = 16 * 1024 * 1024 + 64 * 1024;
/// Buffers of each socket, in bytes: most of a thousand sockets are idle.
const BUFFER: usize = 8 * 1024;
/// Seconds after which a bridge that found no room may try again.
const RETRY_SECONDS: u32 = 10;
/// Seconds after which a stranger may try again.
const STRANGER_SECONDS: u32 = 1;
/// Longest session id or namespace that is looked up, in bytes.
const MAX_PARAMETER: usize = 256;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(connect))
}

/// A gateway's bridge joins its session: a WebSocket of JSON text messages
///
/// The pair code stands in the header `x-sigilum-pair-code`; in the query it would be in logs along the way, and is
/// read there only where the header is absent. Whoever joins with the code is given a secret in the header
/// `x-sigilum-reconnect-secret` of the answer; sent along in later handshakes, it opens the session however many wrong codes
/// others have tried. It counts until another bridge joins with the code.
#[utoipa::path(
    get,
    path = "/v1/gateway/pairing/connect",
    tag = "pairing",
    params(
        ("session_id" = String, Query, description = "Id of the pair session"),
        ("namespace" = String, Query, description = "Its owner's namespace"),
        ("code" = Option<String>, Query, description = "The pair code, where the header is absent"),
        ("x-sigilum-pair-code" = Option<String>, Header, description = "The pair code"),
        ("x-sigilum-reconnect-secret" = Option<String>, Header, description = "What the answer to the first handshake held"),
    ),
    responses(
        (status = 101, description = "The bridge has joined", headers(
            ("x-sigilum-reconnect-secret" = Option<String>, description = "Where the code opened the session"),
        )),
        (status = 400, description = "VALIDATION_ERROR", body = ErrorBody),
        (status = 403, description = "NAMESPACE_MISMATCH; INVALID_PAIR_CODE; FORBIDDEN: a foreign web page", body = ErrorBody),
        (status = 404, description = "NOT_FOUND: no such session", body = ErrorBody),
        (status = 409, description = "GATEWAY_ALREADY_CONNECTED: another bridge is there and alive", body = ErrorBody),
        (status = 410, description = "PAIR_SESSION_EXPIRED; PAIR_SESSION_ENDED: by its owner", body = ErrorBody),
        (status = 426, description = "UPGRADE_REQUIRED: no WebSocket handshake", body = ErrorBody),
        (status = 429, description = "RATE_LIMITED: too many wrong codes, failed handshakes or sockets", body = ErrorBody),
    )
)]
async fn connect(
    State(api): State<Arc<Api>>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    query: Query,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response<Body>, Problem> {
    let claimed = read(&headers, &query)?;
    let upgrade = upgrade.map_err(|rejection| refused_upgrade(&rejection))?;
    owner::check_origin(&api, &headers)?;
    let mut admitted = match admit(&api, &claimed, peer.ip()).await {
        Ok(admitted) => admitted,
        Err(problem) => {
            // Who puts the code into the address sees no status.
            if !headers.contains_key(CODE_HEADER) {
                hold(&api.pairings, &problem).await;
            }
            return Err(problem);
        }
    };
    let pairings = &api.pairings;
    let room = pairings.hub.room().ok_or_else(|| Problem::rate_limited(RETRY_SECONDS))?;
    let arrivals = pairings.arrivals.clone();
    let handed = admitted.reconnect.take().and_then(|secret| HeaderValue::from_str(secret.expose()).ok());
    let mut response = upgrade
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        // The task axum makes for this does no more than hand the socket to its owner.
        .on_upgrade(move |socket| async move {
            let _ = arrivals.send(Arrival { socket, admitted, room }).await;
        });
    if let Some(mut secret) = handed {
        secret.set_sensitive(true);
        response.headers_mut().insert(RECONNECT_HEADER, secret);
    }
    Ok(response)
}

/// Keeps a refusal that passes back for some seconds, where there is room: a bridge that cannot see statuses takes several
/// quick failures for the end of its session.
async fn hold(pairings: &Pairings, problem: &Problem) {
    let passes = matches!(problem.status(), StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS);
    if let (true, Ok(_place)) = (passes, pairings.held.try_acquire()) {
        tokio::time::sleep(pairings.limits.held).await;
    }
}

/// What a handshake says of itself. A reconnect secret that is none is as good as absent: the code is there as well.
fn read(headers: &HeaderMap, query: &Query) -> Result<Claimed, Problem> {
    let code = match headers.get(CODE_HEADER) {
        Some(value) => value.to_str().ok().map(str::trim),
        None => query.find("code"),
    };
    let mut violations = Vec::new();
    let mut take = |name: &'static str, found: Option<&str>, most: usize| {
        let found = found.filter(|text| (1..=most).contains(&text.len()));
        found.map(str::to_owned).unwrap_or_else(|| {
            let message = format!("must be a text of 1 to {most} bytes");
            violations.push(Violation { field: name.into(), message: message.into() });
            String::new()
        })
    };
    let session_id = take("session_id", query.find("session_id"), MAX_PARAMETER);
    let namespace = take("namespace", query.find("namespace"), MAX_PARAMETER);
    let code = Secret::new(take("code", code, code::MAX_BYTES));
    let reconnect = headers.get(RECONNECT_HEADER).and_then(|value| reconnect_secret(value.as_bytes()));
    if violations.is_empty() {
        Ok(Claimed { session_id, namespace, code, reconnect })
    } else {
        Err(Problem::validation(&violations))
    }
}

/// Lets a bridge in, or charges whoever is refused as a stranger. The bridge of a session that exists is let in whatever
/// strangers have done at its address: on loopback every process has the same. Ids of no session are then not even
/// looked up.
async fn admit(api: &Api, claimed: &Claimed, address: IpAddr) -> Result<Admitted, Problem> {
    let is_known = api.pairings.is_known(&claimed.session_id);
    if api.strangers.is_exhausted(address, api.clock.now().monotonic) && !is_known {
        return Err(Problem::rate_limited(STRANGER_SECONDS));
    }
    let judged = api.pairings.admit(claimed, address).await;
    if let Err(problem) = &judged
        && matches!(problem.status(), StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE)
    {
        api.strangers.charge(address, api.clock.now().monotonic)?;
    }
    judged
}

fn refused_upgrade(rejection: &WebSocketUpgradeRejection) -> Problem {
    let is_absent = matches!(
        rejection,
        WebSocketUpgradeRejection::InvalidConnectionHeader(_) | WebSocketUpgradeRejection::InvalidUpgradeHeader(_)
    );
    if is_absent {
        let text = "this is for bridges: a WebSocket handshake is needed";
        return Problem::new(StatusCode::UPGRADE_REQUIRED, "UPGRADE_REQUIRED", text);
    }
    Problem::invalid(header::UPGRADE.as_str(), "the WebSocket handshake is not valid")
}

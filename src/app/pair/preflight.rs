//! Before the first attempt: do both ends answer, and are they what they should be? Whoever gave a wrong address hears
//! it at once, and which one.

use std::fmt;
use std::time::Duration;

use reqwest::Url;
use serde_json::Value;

use crate::app::pair::gateway::Gateway;
use crate::app::web::Page;
use crate::app::web::Web;
use crate::app::web::below;
use crate::pair::allow::Allowed;
use crate::pair::frames;
use crate::sys::http::HttpError;
use crate::sys::tls::trust::ServerTrust;

/// An address is asked at least this long: names have to be resolved.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest fingerprint that is shown, in characters.
const MAX_FINGERPRINT: usize = 128;

/// One of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The control plane.
    Api,
    /// This gateway.
    Gateway,
}

impl fmt::Display for Side {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Api => "the Sigilum API",
            Self::Gateway => "the gateway's admin API",
        })
    }
}

/// What is wrong with one of the ends.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// It does not answer.
    #[error("{side} does not answer at {url}: {why}")]
    Unreachable {
        /// Which.
        side: Side,
        /// What was asked.
        url: String,
        /// What the network said.
        why: String,
    },
    /// It answers that it is not well, or is something else.
    #[error("{side} answers HTTP {status} at {url}")]
    Status {
        /// Which.
        side: Side,
        /// What was asked.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// A page for people answers.
    #[error("a web page answers at {url}, where {side} should")]
    Page {
        /// Which.
        side: Side,
        /// What was asked.
        url: String,
    },
    /// An API answers that knows nothing of pairing.
    #[error("the API at {url} has no route for pairing (HTTP 404)")]
    NoRoute {
        /// What was asked.
        url: String,
    },
    /// The HTTP client could not be made.
    #[error(transparent)]
    Client(#[from] HttpError),
}

/// What the gateway says of its key for sealed secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sealing {
    /// Its fingerprint.
    Fingerprint(String),
    /// It has none.
    Absent,
    /// It does not take our token.
    Refused,
    /// It could not be asked.
    Unknown(String),
}

/// The two ends of a bridge.
#[derive(Debug, Clone)]
pub(super) struct Ends {
    /// Address of the control plane.
    pub(super) api: Url,
    /// Address of the gateway's admin API.
    pub(super) admin: Url,
    /// Whom to believe there.
    pub(super) admin_trust: ServerTrust,
}

/// How long an end has to answer before the first attempt, where an attempt may take `connect_timeout`.
pub(super) fn patience(connect_timeout: Duration) -> Duration {
    connect_timeout.max(PATIENCE)
}

/// Looks at the API and at the gateway; each answer may take `within`.
pub(super) async fn check(ends: &Ends, within: Duration) -> Result<(), PreflightError> {
    check_api(&ends.api, within).await?;
    let web = Web::trusting(&[&ends.admin], within, &ends.admin_trust)?;
    let health = below(&ends.admin, "health");
    let page = ask(&web, Side::Gateway, &health).await?;
    refuse_page(Side::Gateway, &health, &page)?;
    refuse_status(Side::Gateway, &health, &page)
}

/// Looks at the API alone.
pub(super) async fn check_api(api: &Url, within: Duration) -> Result<(), PreflightError> {
    let web = Web::new(&[api], within)?;
    let health = below(api, "health");
    let page = ask(&web, Side::Api, &health).await?;
    refuse_page(Side::Api, &health, &page)?;
    refuse_status(Side::Api, &health, &page)?;
    let route = below(api, frames::CONNECT_PATH);
    let page = ask(&web, Side::Api, &route).await?;
    refuse_page(Side::Api, &route, &page)?;
    if page.status == 404 {
        return Err(PreflightError::NoRoute { url: api.to_string() });
    }
    Ok(())
}

async fn ask(web: &Web, side: Side, url: &Url) -> Result<Page, PreflightError> {
    web.get(url).await.map_err(|why| PreflightError::Unreachable { side, url: url.to_string(), why })
}

fn refuse_page(side: Side, url: &Url, page: &Page) -> Result<(), PreflightError> {
    let kind = page.headers.get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let text = page.text.trim_start();
    let begins = |with: &str| text.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    if kind.to_ascii_lowercase().contains("text/html") || begins("<!doctype html") || begins("<html") {
        return Err(PreflightError::Page { side, url: url.to_string() });
    }
    Ok(())
}

fn refuse_status(side: Side, url: &Url, page: &Page) -> Result<(), PreflightError> {
    if (200..300).contains(&page.status) {
        return Ok(());
    }
    Err(PreflightError::Status { side, url: url.to_string(), status: page.status })
}

/// Asks the gateway for its key for sealed secrets.
pub(super) async fn sealing(gateway: &Gateway) -> Sealing {
    let Some(allowed) = Allowed::judge("GET", "/api/admin/sealing-key") else { return Sealing::Absent };
    let Ok(answer) = tokio::time::timeout(PATIENCE, gateway.ask(&allowed, &[], None)).await else {
        return Sealing::Unknown(format!("no answer within {} s", PATIENCE.as_secs()));
    };
    match (answer.status, answer.error, answer.body) {
        (_, Some(error), _) => Sealing::Unknown(error),
        (200, None, body) => match body.as_deref().and_then(fingerprint) {
            Some(fingerprint) => Sealing::Fingerprint(fingerprint),
            None => Sealing::Unknown("the answer holds no fingerprint".to_owned()),
        },
        (404, ..) => Sealing::Absent,
        (401 | 403, ..) => Sealing::Refused,
        (status, ..) => Sealing::Unknown(format!("HTTP {status}")),
    }
}

/// The fingerprint in the gateway's answer: hexadecimal digits in groups with `-` between.
fn fingerprint(body: &str) -> Option<String> {
    let body: Value = serde_json::from_str(body).ok()?;
    let text = body.get("fingerprint")?.as_str()?;
    let clean = text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    (clean && !text.is_empty() && text.len() <= MAX_FINGERPRINT).then(|| text.to_owned())
}

/// Whether the admin API answers its health check.
pub(super) async fn is_healthy(admin: &Url, trust: &ServerTrust, within: Duration) -> Result<bool, HttpError> {
    let web = Web::trusting(&[admin], within, trust)?;
    Ok(web.is_healthy(&below(admin, "health")).await)
}

//! `agent-simulator`: six requests that show whether the two ways of being guarded hold.
//!
//! A service that verifies its callers itself and one behind the gateway are each asked without a signature,
//! by an agent nobody approved, and by an approved one. The approvals are seeded through the control plane's
//! test seed; the agents keep their keys in a folder of their own.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::header::CONTENT_TYPE;
use reqwest::Url;
use serde_json::json;
use tokio::time::Instant;

use crate::app::web::Page;
use crate::app::web::Web;
use crate::app::web::below;
use crate::domain::ids::Namespace;
use crate::domain::secret::Secret;
use crate::identity::Home;
use crate::identity::Identity;
use crate::identity::IdentityError;
use crate::identity::Outgoing;
use crate::identity::SignError;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::http::HttpError;
use crate::sys::random;
use crate::sys::random::RandomError;

/// Header of the control plane's test seed.
const SEED_HEADER: HeaderName = HeaderName::from_static("x-sigilum-test-seed-token");
/// What every case sends, and what a service that let it in answers.
const BODY: &[u8] = b"\"ping\"";
const PONG: &str = "\"pong\"";
/// What the gateway's answer to an agent without approval must say.
const MARKERS: [&str; 3] = ["AUTH_CLAIM_REQUIRED", "Sigilum verified your signature", "SECURE ACCESS BLOCKED"];
/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long a seeded approval may take to be enforced everywhere, and how often that is looked at.
const SETTLE: Duration = Duration::from_secs(15);
const SETTLE_LOOK: Duration = Duration::from_millis(250);
/// Characters of an answer that are shown.
const SHOWN: usize = 120;

/// What is asked, and as whom.
#[derive(Debug)]
pub struct SimulatorConfig {
    /// The service that verifies its callers itself.
    pub native_url: Url,
    /// Where agents reach the gateway.
    pub gateway_url: Url,
    /// The connection that is asked through it.
    pub connection: String,
    /// The service behind that connection; only its health is asked for.
    pub upstream_url: Url,
    /// The control plane's test seed.
    pub seed_endpoint: Url,
    /// What the seed wants to see.
    pub seed_token: Secret,
    /// Slug of the native service's approvals.
    pub native_slug: String,
    /// Slug of the connection's approvals.
    pub gateway_slug: String,
    /// The agent that is approved.
    pub approved: Namespace,
    /// The agent that is not.
    pub unapproved: Namespace,
    /// Where their identities are.
    pub home: PathBuf,
}

/// Why there is nothing to judge.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// A part of the stack is not there.
    #[error("{what} at {url} {said}")]
    Preflight {
        /// Which part.
        what: &'static str,
        /// Where it was looked for.
        url: String,
        /// What came back.
        said: String,
    },
    /// The approvals could not be seeded.
    #[error("the test seed at {url} {said}")]
    Seed {
        /// Where it is.
        url: String,
        /// What came back.
        said: String,
    },
    /// An agent's identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A request could not be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The client could not be made.
    #[error(transparent)]
    Http(#[from] HttpError),
}

/// How one case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What was tried.
    pub name: &'static str,
    /// Whether the answer is the one it must be.
    pub passed: bool,
    /// `status=…, body=…`, one line; what is wrong besides.
    pub detail: String,
}

/// Who sends a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    Nobody,
    Unapproved,
    Approved,
}

/// What must come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Status(u16),
    /// 403, and the Markdown that tells an agent what to do.
    ApprovalRequired,
    Pong,
}

struct Case {
    name: &'static str,
    through_gateway: bool,
    sender: Sender,
    wanted: Wanted,
}

const fn case(name: &'static str, through_gateway: bool, sender: Sender, wanted: Wanted) -> Case {
    Case { name, through_gateway, sender, wanted }
}

const CASES: [Case; 6] = [
    case("native: unsigned request is refused", false, Sender::Nobody, Wanted::Status(401)),
    case("native: unapproved agent is refused", false, Sender::Unapproved, Wanted::Status(401)),
    case("native: approved agent is served", false, Sender::Approved, Wanted::Pong),
    case("gateway: unsigned request is refused", true, Sender::Nobody, Wanted::Status(403)),
    case("gateway: unapproved agent is refused", true, Sender::Unapproved, Wanted::ApprovalRequired),
    case("gateway: approved agent is served", true, Sender::Approved, Wanted::Pong),
];

struct Simulator<'a> {
    config: &'a SimulatorConfig,
    web: Web,
    approved: Identity,
    unapproved: Identity,
}

/// Looks whether everything is there, seeds, waits until the seed is enforced (15 s at most), then tries the
/// six cases once each. A case that is answered wrongly is a verdict, not an error.
pub async fn run(config: &SimulatorConfig) -> Result<Vec<Verdict>, SimulatorError> {
    let simulator = Simulator::new(config)?;
    simulator.preflight().await?;
    simulator.seed().await?;
    simulator.settle().await?;
    let mut verdicts = Vec::new();
    for case in &CASES {
        let answer = simulator.try_case(case).await?;
        verdicts.push(judge(case, &answer));
    }
    Ok(verdicts)
}

impl<'a> Simulator<'a> {
    fn new(config: &'a SimulatorConfig) -> Result<Self, SimulatorError> {
        let urls = [&config.native_url, &config.gateway_url, &config.upstream_url, &config.seed_endpoint];
        let home = Home::new(&config.home);
        let now = SystemClock.now().seconds();
        Ok(Self {
            config,
            web: Web::new(&urls, DEADLINE)?,
            approved: home.create(&config.approved, now)?.identity,
            unapproved: home.create(&config.unapproved, now)?.identity,
        })
    }

    async fn preflight(&self) -> Result<(), SimulatorError> {
        let parts = [
            ("the native service", below(&self.config.native_url, "/")),
            ("the gateway", below(&self.config.gateway_url, "/health")),
            ("the upstream", below(&self.config.upstream_url, "/health")),
        ];
        for (what, url) in parts {
            let said = match self.web.get(&url).await {
                Ok(page) if page.status == 200 => continue,
                Ok(page) => format!("answers {}", page.status),
                Err(error) => format!("does not answer: {error}"),
            };
            return Err(SimulatorError::Preflight { what, url: url.to_string(), said });
        }
        Ok(())
    }

    /// Approves the one agent for both services, and makes sure the other is approved for neither.
    async fn seed(&self) -> Result<(), SimulatorError> {
        let slugs = [&self.config.native_slug, &self.config.gateway_slug];
        let rows = |identity: &Identity| {
            let row = |slug: &&String| {
                json!({
                    "namespace": identity.namespace().as_str(),
                    "service": slug,
                    "public_key": identity.public_key().text(),
                })
            };
            slugs.iter().map(row).collect::<Vec<_>>()
        };
        let body = json!({ "upserts": rows(&self.approved), "deletes": rows(&self.unapproved) });
        let url = &self.config.seed_endpoint;
        let failed = |said: String| SimulatorError::Seed { url: url.to_string(), said };
        let token = self.config.seed_token.expose();
        let mut token = HeaderValue::from_str(token).map_err(|_| failed("cannot be asked with this token".into()))?;
        token.set_sensitive(true);
        let mut headers = json_headers();
        headers.insert(SEED_HEADER, token);
        let answer = self.web.ask(Method::POST, url, headers, Bytes::from(body.to_string())).await;
        match answer {
            Ok(page) if page.status == 200 => Ok(()),
            Ok(page) => Err(failed(format!("answers {}: {}", page.status, one_line(&page.text)))),
            Err(error) => Err(failed(format!("does not answer: {error}"))),
        }
    }

    /// Waits until the signed cases end as they must, or [`SETTLE`] is over.
    async fn settle(&self) -> Result<(), SimulatorError> {
        let started = Instant::now();
        for case in CASES.iter().filter(|case| case.sender != Sender::Nobody) {
            while !judge(case, &self.try_case(case).await?).passed && started.elapsed() < SETTLE {
                tokio::time::sleep(SETTLE_LOOK).await;
            }
        }
        Ok(())
    }

    async fn try_case(&self, case: &Case) -> Result<Result<Page, String>, SimulatorError> {
        let url = if case.through_gateway {
            below(&self.config.gateway_url, &format!("/proxy/{}/v1/ping", self.config.connection))
        } else {
            below(&self.config.native_url, "/v1/ping")
        };
        let mut headers = json_headers();
        let identity = match case.sender {
            Sender::Nobody => None,
            Sender::Unapproved => Some(&self.unapproved),
            Sender::Approved => Some(&self.approved),
        };
        if let Some(identity) = identity {
            let outgoing = Outgoing {
                method: "POST",
                url: url.as_str(),
                body: BODY,
                subject: None,
                agent_id: None,
                created: SystemClock.now().seconds(),
                nonce: &random::uuid()?,
            };
            for (name, value) in identity.signer().sign(&outgoing)? {
                // What a signer makes is visible ASCII: the subject is the namespace here.
                if let Ok(value) = HeaderValue::from_str(&value) {
                    headers.insert(HeaderName::from_static(name), value);
                }
            }
        }
        Ok(self.web.ask(Method::POST, &url, headers, Bytes::from_static(BODY)).await)
    }
}

fn json_headers() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))])
}

fn judge(case: &Case, answer: &Result<Page, String>) -> Verdict {
    let page = match answer {
        Ok(page) => page,
        Err(error) => {
            return Verdict { name: case.name, passed: false, detail: format!("status=none, body={error}") };
        }
    };
    let wrong = match case.wanted {
        Wanted::Status(status) => (page.status != status).then(|| format!("expected {status}")),
        Wanted::Pong => {
            let served = page.status == 200 && page.text.trim() == PONG;
            (!served).then(|| format!("expected 200 {PONG}"))
        }
        Wanted::ApprovalRequired => {
            let kind = page.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            let told = page.status == 403
                && kind.starts_with("text/markdown")
                && MARKERS.iter().all(|marker| page.text.contains(marker));
            (!told).then(|| "expected 403 with the Markdown of AUTH_CLAIM_REQUIRED".to_owned())
        }
    };
    let seen = format!("status={}, body={}", page.status, one_line(&page.text));
    let detail = wrong.as_ref().map_or_else(|| seen.clone(), |wrong| format!("{seen}; {wrong}"));
    Verdict { name: case.name, passed: wrong.is_none(), detail }
}

/// The first characters of a text, line breaks and control characters as blanks.
fn one_line(text: &str) -> String {
    let mut line: String =
        text.trim().chars().take(SHOWN).map(|shown| if shown.is_control() { ' ' } else { shown }).collect();
    if text.trim().chars().count() > SHOWN {
        line.push_str("...");
    }
    line
}

#[cfg(test)]
#[path = "simulator_tests.rs"]
mod tests;

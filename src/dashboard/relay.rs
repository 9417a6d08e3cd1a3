//! A paired gateway, asked through its bridge. What it answers is read leniently: it may be older or newer than this
//! program, or another's; nothing of it is more than text on a page.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::task::spawn_blocking;

use crate::api::Api;
use crate::api::pairing::Order;
use crate::api::problem::Problem;
use crate::api::users::User;
use crate::dashboard::answer::escaped;
use crate::dashboard::filters::plain;
use crate::dashboard::listed::Listed;
use crate::dashboard::offer::Offer;
use crate::domain::secret::Secret;
use crate::wire::catalog::MAX_BYTES as MAX_CATALOG;
use crate::wire::member::member;
use crate::wire::pairing::GATEWAY_UNREACHABLE;

/// Code of a gateway that does not answer its bridge.
pub(super) const SILENT: &str = "GATEWAY_NOT_RUNNING";
/// The same for people.
const SILENT_SENTENCE: &str =
    "the bridge is connected, but the gateway behind it does not answer; start it there with: sigilum gateway start";
/// How long a gateway may take to say what it has.
const LOOK: Duration = Duration::from_secs(5);
/// How long it may take to change something, or to try a provider; shorter than pages may take.
const ACT: Duration = Duration::from_secs(18);
/// Answers longer than this are read beside the runtime's threads, in bytes: reading it takes less than a millisecond.
const LONG_ANSWER: usize = 64 * 1024;
/// Longest answer that is read, in bytes. A hostile one may take dozens of times as much once it is read.
const MAX_ANSWER: usize = 1024 * 1024;
/// Longest list of connections that is read, in bytes: a thousand, each with room for 4 KiB.
const MAX_CONNECTIONS: usize = 4 * 1024 * 1024;
/// Most characters of what a gateway says of a failure.
const MAX_SAID: usize = 300;

/// A gateway behind a pair session of an owner.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gateway<'a> {
    /// Through which its bridge is reached.
    pub(super) api: &'a Api,
    /// Whose session it is.
    pub(super) owner: &'a User,
    /// Which.
    pub(super) session: &'a str,
}

/// A connection as its gateway shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Connection {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) protocol: String,
    pub(super) base_url: String,
    pub(super) path_prefix: String,
    pub(super) auth_mode: String,
    pub(super) auth_header_name: String,
    pub(super) auth_prefix: String,
    pub(super) auth_secret_key: String,
    pub(super) mcp_endpoint: String,
    pub(super) credential_keys: Listed<String>,
    pub(super) status: String,
    pub(super) created_at: Option<String>,
    pub(super) last_tested_at: Option<String>,
    pub(super) last_test_status: Option<String>,
    pub(super) last_test_http_status: Option<u16>,
    pub(super) last_test_error: Option<String>,
    pub(super) last_used_at: Option<String>,
    pub(super) last_rotated_at: Option<String>,
    pub(super) next_rotation_due_at: Option<String>,
    pub(super) rotation_interval_days: Option<i64>,
    pub(super) secret_version: u64,
    pub(super) secret_status: Option<String>,
    pub(super) secret_error: Option<String>,
    pub(super) declared: bool,
}

#[derive(Deserialize)]
struct Connections {
    connections: Listed<Connection>,
}

/// The key secrets are sealed to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct SealingKey {
    /// 32 bytes as base64url without padding.
    pub(super) public_key: String,
    /// Eight groups of four hex digits.
    pub(super) fingerprint: String,
}

/// An agent that used a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Agent {
    pub(super) namespace: String,
    pub(super) public_key: String,
    pub(super) subject: String,
    pub(super) last_used_at: String,
    pub(super) status: u16,
}

/// Whether a gateway has the key of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct ServiceKey {
    pub(super) has_key: bool,
    pub(super) key_prefix: String,
    /// `service` or `shared`; absent in older gateways.
    pub(super) key_source: Option<String>,
    /// `confirmed`, `refused`, `failed` or `unknown`; absent in older gateways.
    pub(super) api_standing: Option<String>,
}

/// What was refused lately.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Refusals {
    /// Since when is counted.
    pub(super) since: String,
    pub(super) total: u64,
    /// The most frequent first.
    pub(super) reasons: Listed<Reason>,
    /// The last ones, newest first.
    pub(super) recent: Listed<Refusal>,
}

/// How often requests were refused for one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Reason {
    pub(super) code: String,
    pub(super) count: u64,
    pub(super) last_24h: u64,
    pub(super) last_at: String,
}

/// One refusal; callers are fingerprints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Refusal {
    pub(super) at: String,
    pub(super) code: String,
    pub(super) status: u16,
    pub(super) connection: Option<String>,
    pub(super) agent_key: Option<String>,
}

#[derive(Deserialize)]
struct Agents {
    agents: Listed<Agent>,
}

#[derive(Deserialize)]
struct Offers {
    services: Option<Listed<Offer>>,
}

impl Gateway<'_> {
    /// Its connections, by id.
    pub(super) async fn connections(self) -> Result<Listed<Connection>, Problem> {
        Ok(self.look_at::<Connections>("/api/admin/connections", MAX_CONNECTIONS).await?.connections)
    }

    /// One connection; 404 where there is none of this id.
    pub(super) async fn connection(self, id: &str) -> Result<Connection, Problem> {
        self.look(&connection(id, "")).await
    }

    /// Who used it, the last one first.
    pub(super) async fn agents(self, id: &str) -> Result<Listed<Agent>, Problem> {
        Ok(self.look::<Agents>(&connection(id, "/agents")).await?.agents)
    }

    /// What connections are made from.
    pub(super) async fn catalog(self) -> Result<Listed<Offer>, Problem> {
        Ok(self.look_at::<Offers>("/api/admin/service-catalog", MAX_CATALOG).await?.services.unwrap_or_default())
    }

    /// The key to seal to; an empty one where the gateway has none to show.
    pub(super) async fn sealing_key(self) -> Result<SealingKey, Problem> {
        match self.look("/api/admin/sealing-key").await {
            // An older gateway does not know the path, an older bridge does not let it through.
            Err(problem) if matches!(problem.status(), StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST) => {
                Ok(SealingKey::default())
            }
            other => other,
        }
    }

    /// What was refused lately.
    pub(super) async fn refusals(self) -> Result<Refusals, Problem> {
        self.look("/api/admin/refusals").await
    }

    /// Makes a connection.
    pub(super) async fn create(self, body: Secret) -> Result<(), Problem> {
        self.act(Method::POST, "/api/admin/connections", Some(body)).await
    }

    /// Puts other secrets in the place of those it has.
    pub(super) async fn rotate(self, id: &str, body: Secret) -> Result<(), Problem> {
        self.act(Method::POST, &connection(id, "/rotate"), Some(body)).await
    }

    /// Tries it against its provider; that it fails is no failure of ours, and is kept with the connection.
    pub(super) async fn test(self, id: &str, how: Secret) -> Result<(), Problem> {
        let body = Some(how);
        let (status, text) = self.ask(Method::POST, &connection(id, "/test"), body, ACT).await?;
        let tried = said(&text).and_then(|said| member::<String>(said.status));
        if tried.is_some_and(|word| matches!(word.as_str(), "pass" | "fail")) { Ok(()) } else { refused(status, &text) }
    }

    /// Changes settings of it.
    pub(super) async fn change(self, id: &str, changes: Value) -> Result<(), Problem> {
        self.act(Method::PATCH, &connection(id, ""), Some(Secret::new(changes.to_string()))).await
    }

    /// Deletes it with its secrets.
    pub(super) async fn delete(self, id: &str) -> Result<(), Problem> {
        self.act(Method::DELETE, &connection(id, ""), None).await
    }

    /// Whether it has the key of the service that belongs to a connection.
    pub(super) async fn service_key(self, id: &str) -> Result<ServiceKey, Problem> {
        self.look(&service_key(id)).await
    }

    /// Hands it that key.
    pub(super) async fn put_service_key(self, id: &str, body: Secret) -> Result<(), Problem> {
        self.act(Method::PUT, &service_key(id), Some(body)).await
    }

    async fn look<T: DeserializeOwned + Send + 'static>(self, path: &str) -> Result<T, Problem> {
        self.look_at(path, MAX_ANSWER).await
    }

    /// What is at a path, where it takes at most so many bytes.
    async fn look_at<T: DeserializeOwned + Send + 'static>(self, path: &str, most: usize) -> Result<T, Problem> {
        let (status, text) = self.ask(Method::GET, path, None, LOOK).await?;
        let length = text.len();
        let read = move || if status == 200 { answer(&text, most) } else { refused(status, &text) };
        if length < LONG_ANSWER {
            read()
        } else {
            spawn_blocking(read).await.unwrap_or_else(|_| Err(Problem::internal()))
        }
    }

    async fn act(self, method: Method, path: &str, body: Option<Secret>) -> Result<(), Problem> {
        let (status, text) = self.ask(method, path, body, ACT).await?;
        if (200..300).contains(&status) { Ok(()) } else { refused(status, &text) }
    }

    /// Status and body of the gateway's answer.
    async fn ask(
        self,
        method: Method,
        path: &str,
        body: Option<Secret>,
        timeout: Duration,
    ) -> Result<(u16, String), Problem> {
        let mut headers = BTreeMap::from([("accept".to_owned(), "application/json".to_owned())]);
        if body.is_some() {
            headers.insert("content-type".to_owned(), "application/json".to_owned());
        }
        let order = Order {
            session_id: self.session.to_owned(),
            method: method.as_str().to_owned(),
            path: path.to_owned(),
            headers,
            body,
            timeout,
        };
        let relayed = self.api.pairings.command(self.owner, order).await?;
        match relayed.error {
            None => Ok((relayed.status, relayed.body.unwrap_or_default())),
            // What exactly the bridge met at its own machine's port helps nobody here.
            Some(error) if relayed.status == 502 && error.starts_with(GATEWAY_UNREACHABLE) => {
                Err(Problem::new(StatusCode::BAD_GATEWAY, SILENT, SILENT_SENTENCE))
            }
            Some(error) => {
                let status = if relayed.status == 400 { StatusCode::BAD_REQUEST } else { StatusCode::BAD_GATEWAY };
                let text = format!("the gateway's bridge could not do it: {}", short(&error));
                Err(Problem::new(status, "GATEWAY_RELAY_FAILED", text))
            }
        }
    }
}

fn connection(id: &str, action: &str) -> String {
    format!("/api/admin/connections/{}{action}", escaped(id))
}

fn service_key(id: &str) -> String {
    format!("/api/admin/service-api-keys/{}", escaped(id))
}

/// Reads an answer of at most so many bytes.
fn answer<T: DeserializeOwned>(text: &str, most: usize) -> Result<T, Problem> {
    let refusal = |text| Problem::new(StatusCode::BAD_GATEWAY, "GATEWAY_ANSWER_UNREADABLE", text);
    if text.len() > most {
        return Err(refusal("the gateway answered with more than this page reads"));
    }
    let unreadable = "the gateway answered with something this page cannot read; is it another version?";
    serde_json::from_str(text).map_err(|_| refusal(unreadable))
}

/// What an answer says besides what it was asked for; members of another type are passed over.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said<'a> {
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    code: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
}

fn said(text: &str) -> Option<Said<'_>> {
    if text.len() > MAX_ANSWER { None } else { serde_json::from_str(text).ok() }
}

/// What a gateway says of a refusal, as ours: its sentence and its code, cut.
fn refused<T>(status: u16, text: &str) -> Result<T, Problem> {
    let said = said(text).unwrap_or_default();
    let (error, code): (String, String) =
        (member(said.error).unwrap_or_default(), member(said.code).unwrap_or_default());
    let mut sentence = match error.as_str() {
        "" => format!("the gateway answered with HTTP {status}"),
        error => format!("the gateway says: {}", short(error)),
    };
    if !code.is_empty() {
        sentence.push_str(&format!(" ({})", short(&code)));
    }
    let status = match status {
        404 => StatusCode::NOT_FOUND,
        409 => StatusCode::CONFLICT,
        400 | 422 => StatusCode::BAD_REQUEST,
        _ => StatusCode::BAD_GATEWAY,
    };
    Err(Problem::new(status, "GATEWAY_REFUSED", sentence))
}

fn short(text: &str) -> String {
    plain(text).chars().take(MAX_SAID).collect()
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;

//! Submits claims for callers nobody has approved yet, as authz asks for them.
//!
//! Promises: at most so many submissions a minute in all, and one at a time per key and service; an answer for
//! every registration that is taken up, also where the control plane has none; nothing here disturbs the
//! approvals that are known.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::Method;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;

use crate::claims::client::Answer;
use crate::claims::client::ApiClient;
use crate::claims::client::ApiError;
use crate::claims::client::Call;
use crate::claims::keys::KeyPlaces;
use crate::claims::keys::service_key;
use crate::claims::keys::variable;
use crate::claims::refresh::ClaimsPace;
use crate::domain::ids::ConnectionId;
use crate::domain::ids::PublicKey;
use crate::domain::time::MonotonicMillis;
use crate::state::Registration;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::random;
use crate::sys::tasks::Stop;
use crate::telemetry::decisions::fingerprint;
use crate::telemetry::metrics::Metrics;
use crate::wire::control_plane::BINDING_HEADER;
use crate::wire::control_plane::CLAIMS_PATH;
use crate::wire::control_plane::ClaimSubmission;
use crate::wire::control_plane::NAMESPACE_ONLY;
use crate::wire::state::proto;
use crate::wire::state::proto::RegisterResult;

/// Longest time for one submission.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer that is read.
const MAX_ANSWER: usize = 64 * 1024;
/// Submissions under way at a time; further ones wait in the queue.
const UNDER_WAY: usize = 4;
/// Registrations that wait for one submission. A key that many processes ask for at once needs no more.
const MAX_WAITING: usize = 16;
/// Longest text of an answer that is passed on, in characters.
const MAX_TEXT: usize = 512;
/// What the limit is counted over, in milliseconds.
const MINUTE_MS: u64 = 60_000;

/// What the registrar needs.
#[derive(Debug)]
pub struct RegistrarConfig {
    /// Sends, as the gateway's identity; only callers of its namespace can be registered.
    pub client: Arc<ApiClient>,
    /// Where service keys are.
    pub keys: Arc<KeyPlaces>,
    /// How many submissions in any minute.
    pub pace: watch::Receiver<ClaimsPace>,
    /// Told the service of a claim that is approved already, so that its approvals are read at once.
    pub poke: mpsc::Sender<String>,
    /// Counted there.
    pub metrics: Arc<Metrics>,
}

/// What a submission is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    key: PublicKey,
    service: ConnectionId,
}

/// Takes up registrations until told to stop or until nobody can send any.
pub async fn run(config: RegistrarConfig, mut registrations: mpsc::Receiver<Registration>, mut stop: Stop) {
    let mut limit = Limit::default();
    let mut waiting: HashMap<Place, Vec<oneshot::Sender<proto::Registered>>> = HashMap::new();
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = stop.wait() => return,
            Some((place, registered)) = under_way.next(), if !under_way.is_empty() => {
                for answer in waiting.remove(&place).unwrap_or_default() {
                    // Whoever asked may have left.
                    let _: Result<(), proto::Registered> = answer.send(proto::Registered::clone(&registered));
                }
            }
            registration = registrations.recv(), if under_way.len() < UNDER_WAY => {
                let Some(Registration { register, answer }) = registration else {
                    // Somebody else takes them up now.
                    stop.wait().await;
                    return;
                };
                let place = match place(&config.client, &register) {
                    Ok(place) => place,
                    Err(error) => {
                        let _ = answer.send(failed(error.to_owned()));
                        continue;
                    }
                };
                if let Some(others) = waiting.get_mut(&place) {
                    if others.len() < MAX_WAITING {
                        others.push(answer);
                    } else {
                        let _ = answer.send(failed("the gateway is busy".to_owned()));
                    }
                } else if limit.admits(config.pace.borrow().registrations_per_minute, SystemClock.now().monotonic) {
                    waiting.insert(place.clone(), vec![answer]);
                    under_way.push(submit(&config, place, register));
                } else {
                    config.metrics.usage().record_claim("rate_limited");
                    let _ = answer.send(result(RegisterResult::RateLimited));
                }
            }
        }
    }
}

/// Whether it can be submitted at all.
fn place(client: &ApiClient, register: &proto::Register) -> Result<Place, &'static str> {
    let service = ConnectionId::parse(&register.service).map_err(|_| "the service is no connection id")?;
    let key = <[u8; 32]>::try_from(register.public_key.as_slice()).map_err(|_| "the public key has not 32 bytes")?;
    if register.namespace != client.namespace().as_str() {
        return Err("only callers of the gateway's own namespace are registered");
    }
    Ok(Place { key: PublicKey::new(key), service })
}

async fn submit(config: &RegistrarConfig, place: Place, register: proto::Register) -> (Place, proto::Registered) {
    let registered = send(config, &place, &register).await;
    let (service, key) = (place.service.as_str(), place.key.fingerprint());
    let namespace = fingerprint(&register.namespace);
    let proto::Registered { http_status, claim_status, code, error, .. } = &registered;
    config.metrics.usage().record_claim(label(registered.result()));
    if registered.result() == RegisterResult::Recorded {
        tracing::debug!(service, namespace, agent_key = key, http_status, claim_status, "a claim was submitted");
    } else {
        tracing::warn!(service, namespace, agent_key = key, http_status, code, error, "a claim could not be submitted");
    }
    if claim_status == "approved" && config.poke.try_send(service.to_owned()).is_err() {
        tracing::debug!(service, "the approvals are read at their own time");
    }
    (place, registered)
}

async fn send(config: &RegistrarConfig, place: &Place, register: &proto::Register) -> proto::Registered {
    let (service, keys) = (place.service.as_str().to_owned(), Arc::clone(&config.keys));
    let key = tokio::task::spawn_blocking(move || service_key(&service, &keys)).await.ok().flatten();
    let Some(key) = key else {
        let variable = variable(place.service.as_str());
        return failed(format!(
            "the gateway has no service key for {}; set {variable} or add its key file",
            place.service
        ));
    };
    let nonce = match random::uuid() {
        Ok(nonce) => nonce,
        Err(error) => return failed(error.to_string()),
    };
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.trim().is_empty());
    let body = serde_json::to_vec(&ClaimSubmission {
        agent_id: some(&register.agent_id),
        // Never one that an owner's policy may trust.
        agent_ip: some(&register.remote_address).unwrap_or_else(|| Ipv4Addr::UNSPECIFIED.to_string()),
        agent_name: None,
        namespace: register.namespace.clone(),
        nonce,
        public_key: place.key.text(),
        service: place.service.as_str().to_owned(),
        subject: some(&register.subject),
    });
    let answer = config
        .client
        .ask(Call {
            method: &Method::POST,
            path: CLAIMS_PATH,
            key: Some(&key),
            subject: some(&register.subject).as_deref(),
            body: &body.unwrap_or_default(),
            headers: &[(BINDING_HEADER, NAMESPACE_ONLY)],
            limit: MAX_ANSWER,
            patience: PATIENCE,
        })
        .await;
    match answer {
        Ok(answer) => answered(&answer),
        Err(error) => unanswered(&error),
    }
}

/// What an answer says, whatever its status. Where it says nothing that is for people, what is known of it does.
fn answered(answer: &Answer) -> proto::Registered {
    let status = answer.status.as_u16();
    let Some(refusal) = answer.refusal() else { return told(status, &answer.body, RegisterResult::Recorded) };
    let known = match &refusal {
        ApiError::Redirect { .. } | ApiError::Clock { .. } => Some(&refusal),
        ApiError::NotJson { .. } if answer.body.trim_ascii().is_empty() || is_page(answer) => Some(&refusal),
        ApiError::NotJson { .. }
        | ApiError::Refused { .. }
        | ApiError::Unreachable { .. }
        | ApiError::TimedOut { .. }
        | ApiError::Broken { .. }
        | ApiError::TooLarge { .. }
        | ApiError::Request(_) => None,
    };
    match known {
        Some(error) => proto::Registered {
            http_status: status.into(),
            message: bounded(&error.to_string()),
            ..result(RegisterResult::ApiRejected)
        },
        None => told(status, &answer.body, RegisterResult::ApiRejected),
    }
}

/// Whether it is a page for people and none of the API's answers.
fn is_page(answer: &Answer) -> bool {
    answer.header("content-type").is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html"))
}

/// What a body says. One that is not JSON is kept as text.
fn told(status: u16, body: &[u8], came: RegisterResult) -> proto::Registered {
    let json: Option<serde_json::Map<String, serde_json::Value>> = serde_json::from_slice(body).ok();
    let Some(json) = json else {
        let text = bounded(&String::from_utf8_lossy(body));
        return proto::Registered { http_status: status.into(), message: text, ..result(came) };
    };
    let text = |name: &str| bounded(json.get(name).and_then(serde_json::Value::as_str).unwrap_or_default());
    let message = Some(text("message")).filter(|message| !message.is_empty()).unwrap_or_else(|| text("error"));
    proto::Registered {
        http_status: status.into(),
        claim_id: text("claim_id"),
        claim_status: text("status"),
        code: text("code"),
        message,
        ..result(came)
    }
}

fn unanswered(error: &ApiError) -> proto::Registered {
    match error {
        ApiError::Request(_) => failed(error.to_string()),
        ApiError::Unreachable { .. }
        | ApiError::TimedOut { .. }
        | ApiError::Broken { .. }
        | ApiError::TooLarge { .. }
        // Of what came, which is an answer.
        | ApiError::Redirect { .. }
        | ApiError::NotJson { .. }
        | ApiError::Clock { .. }
        | ApiError::Refused { .. } => result(RegisterResult::NoResponse),
    }
}

fn failed(error: String) -> proto::Registered {
    proto::Registered { error, ..result(RegisterResult::FailedBeforeResponse) }
}

fn result(result: RegisterResult) -> proto::Registered {
    proto::Registered { result: result.into(), ..proto::Registered::default() }
}

const fn label(result: RegisterResult) -> &'static str {
    match result {
        RegisterResult::Recorded => "recorded",
        RegisterResult::ApiRejected => "api_rejected",
        RegisterResult::NoResponse => "no_response",
        RegisterResult::RateLimited => "rate_limited",
        RegisterResult::FailedBeforeResponse | RegisterResult::Unspecified => "failed_before_response",
    }
}

/// One line, bounded.
fn bounded(text: &str) -> String {
    let text: String = text.trim().chars().take(MAX_TEXT).collect();
    text.replace(char::is_control, " ")
}

/// At most so many in any minute.
#[derive(Debug, Default)]
struct Limit {
    recent: VecDeque<MonotonicMillis>,
}

impl Limit {
    /// `most`: 0 = without a limit.
    fn admits(&mut self, most: u32, now: MonotonicMillis) -> bool {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if most == 0 {
            return true;
        }
        while self.recent.front().is_some_and(|at| now.since(*at) >= MINUTE_MS) {
            self.recent.pop_front();
        }
        if self.recent.len() >= most {
            return false;
        }
        self.recent.push_back(now);
        true
    }
}

#[cfg(test)]
#[path = "registrar_tests.rs"]
mod tests;

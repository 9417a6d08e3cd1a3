//! Tests of a connection: one request to its provider, made as agents' requests are, and judged.
//!
//! Promises that the credential goes to the connection's own provider alone (no redirect is followed, the certificate's
//! name is verified, each address is judged and exactly the judged one is connected to), that a provider can make us
//! wait and read only so much, and that what is told of its answer never holds the credential.

mod address;
mod exchange;

use std::sync::Arc;
use std::time::Duration;

use http::header;
use tokio::sync::Semaphore;

use crate::domain::address::AddressPolicy;
use crate::domain::connection::Connection;
use crate::domain::connection::Credential;
use crate::domain::probe::MAX_ERROR_CHARS;
use crate::domain::probe::TestOutcome;
use crate::domain::probe::TestRequest;
use crate::domain::redact::Redactor;
use crate::probe::exchange::Received;
use crate::probe::exchange::Roots;

/// Longest time for a test, name resolution and TLS included.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// Tests at a time: each holds a socket and up to 2 MiB of body, and providers count requests.
const AT_A_TIME: usize = 8;
/// What the other side learns of who asks; some providers refuse requests that do not say.
const USER_AGENT: &str = concat!("sigilum-gateway/", env!("CARGO_PKG_VERSION"));

/// Sends tests, a few at a time.
#[derive(Debug)]
pub struct Prober {
    room: Arc<Semaphore>,
    roots: Roots,
    patience: Duration,
}

/// As many tests as may run are running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

impl Default for Prober {
    fn default() -> Self {
        Self::new(PATIENCE)
    }
}

impl Prober {
    /// With another patience than [`PATIENCE`].
    pub fn new(patience: Duration) -> Self {
        Self { room: Arc::new(Semaphore::new(AT_A_TIME)), roots: Roots::default(), patience }
    }

    /// Sends the test and judges the answer. `policy` says which addresses are allowed besides what the connection
    /// itself allows; `within` is for whoever waits for less than [`PATIENCE`].
    pub async fn test(
        &self,
        connection: &Connection,
        credential: &Credential,
        request: TestRequest,
        policy: &AddressPolicy,
        within: Option<Duration>,
    ) -> Result<TestOutcome, Busy> {
        let patience = within.map_or(self.patience, |within| within.min(self.patience));
        let _room = Arc::clone(&self.room).try_acquire_owned().map_err(|_| Busy)?;
        let redactor = Redactor::new(&credential.unspeakable(&connection.settings));
        let deadline = tokio::time::Instant::now() + patience;
        let received = tokio::time::timeout_at(deadline, self.send(connection, credential, request, policy)).await;
        let outcome = match received {
            Ok(Ok(received)) => judge(received, deadline, &redactor).await,
            Ok(Err(reason)) => failed(0, &reason, &redactor),
            Err(_) => failed(0, &format!("no answer within {} s", patience.as_secs_f32()), &redactor),
        };
        Ok(outcome)
    }

    async fn send(
        &self,
        connection: &Connection,
        credential: &Credential,
        request: TestRequest,
        policy: &AddressPolicy,
    ) -> Result<Received, String> {
        let settings = &connection.settings;
        let policy = AddressPolicy { allow_private: policy.allow_private || settings.allow_private, ..policy.clone() };
        let mut headers = request.headers(settings, credential).map_err(|error| error.to_string())?;
        let host = header::HeaderValue::try_from(&settings.upstream.authority).map_err(|error| error.to_string())?;
        headers.insert(header::HOST, host);
        headers.entry(header::ACCEPT).or_insert(header::HeaderValue::from_static("*/*"));
        headers.entry(header::USER_AGENT).or_insert(header::HeaderValue::from_static(USER_AGENT));
        let target = request.target(settings, credential);
        let addresses = address::resolve(&settings.upstream, &policy).await?;
        let stream = address::connect(&addresses, &policy).await?;
        exchange::send(stream, &settings.upstream, &self.roots, request.method, &target, headers, request.body).await
    }
}

/// 200 to 399 passes; a redirect is an answer too, and is not followed.
async fn judge(received: Received, deadline: tokio::time::Instant, redactor: &Redactor) -> TestOutcome {
    let status = received.status();
    if (200..400).contains(&status) {
        return TestOutcome { passed: true, http_status: status, error: String::new() };
    }
    let preview = received.preview(deadline).await;
    // Twice: the second time without what stood between the characters.
    let preview = redactor.clean(&compacted(&redactor.clean(&preview)));
    let text = if preview.is_empty() { format!("http {status}") } else { format!("http {status}: {preview}") };
    TestOutcome { passed: false, http_status: status, error: text.chars().take(MAX_ERROR_CHARS).collect() }
}

fn failed(http_status: u16, reason: &str, redactor: &Redactor) -> TestOutcome {
    let error = redactor.clean(&compacted(reason)).chars().take(MAX_ERROR_CHARS).collect();
    TestOutcome { passed: false, http_status, error }
}

/// In one line: runs of blanks are one, what cannot be seen is gone.
fn compacted(text: &str) -> String {
    let words = text.split_whitespace().map(|word| word.chars().filter(|letter| !letter.is_control()).collect());
    let words: Vec<String> = words.filter(|word: &String| !word.is_empty()).collect();
    words.join(" ")
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

//! Whether the Sigilum API answers, and what time it is there. Asked apart from everything else: it may be slow.

use std::time::Duration;

use ::http::HeaderMap;
use ::http::header;
use reqwest::Client;
use tokio::sync::Notify;
use tokio::sync::watch;

use crate::admin::health_judge::ApiFact;
use crate::domain::time::UnixSeconds;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::http;
use crate::sys::http::chain;
use crate::sys::http::is_about_certificates;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two questions while it answers.
const EVERY: Duration = Duration::from_secs(30);
/// The same while it does not.
const AGAIN: Duration = Duration::from_secs(5);
/// Longest words of others that are repeated, in characters.
const MAX_WORDS: usize = 200;

/// Asks, and keeps what came of it.
#[derive(Debug)]
pub struct ApiWatch {
    /// `None`: there is none to ask.
    url: Option<String>,
    found: watch::Sender<(u64, ApiFact)>,
    now: Notify,
}

impl ApiWatch {
    /// For an API at this address.
    pub fn new(address: Option<&str>) -> Self {
        let url = address.map(health_of);
        Self { url, found: watch::channel((0, ApiFact::Asking)).0, now: Notify::new() }
    }

    /// What was found out last; `None` where there is none to ask.
    pub fn fact(&self) -> Option<ApiFact> {
        self.url.as_ref().map(|_| self.found.borrow().1.clone())
    }

    /// Has it asked at once, and waits for that for as long as may be waited.
    pub async fn refresh(&self, patience: Duration) {
        if self.url.is_none() {
            return;
        }
        let mut found = self.found.subscribe();
        let before = found.borrow().0;
        self.now.notify_one();
        // What comes too late is told the next time.
        let _ = tokio::time::timeout(patience, found.wait_for(|(round, _)| *round > before)).await;
    }

    /// Asks for ever.
    pub async fn run(&self) {
        let Some(url) = &self.url else { return std::future::pending().await };
        let client = match http::client(url.starts_with("https:")) {
            Ok(client) => client,
            Err(error) => {
                self.keep(ApiFact::Tls(bounded(&error.to_string())));
                return std::future::pending().await;
            }
        };
        loop {
            let fact = ask(&client, url, PATIENCE).await;
            let pause = if matches!(fact, ApiFact::Answers(_)) { EVERY } else { AGAIN };
            self.keep(fact);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.now.notified() => {}
            }
        }
    }

    fn keep(&self, fact: ApiFact) {
        self.found.send_modify(|(round, known)| {
            *round = round.wrapping_add(1);
            *known = fact;
        });
    }
}

/// Asks an API at this address once, which has `patience` to answer.
pub async fn ask_once(address: &str, patience: Duration) -> ApiFact {
    let url = health_of(address);
    match http::client(url.starts_with("https:")) {
        Ok(client) => ask(&client, &url, patience).await,
        Err(error) => ApiFact::Tls(bounded(&error.to_string())),
    }
}

fn health_of(address: &str) -> String {
    format!("{}/health", address.trim_end_matches('/'))
}

async fn ask(client: &Client, url: &str, patience: Duration) -> ApiFact {
    let answer = match client.get(url).timeout(patience).send().await {
        Ok(answer) => answer,
        Err(error) => {
            // The address is in the settings, and may be nobody's business here.
            let about_certificates = is_about_certificates(&error);
            let words = bounded(&chain(&error.without_url()));
            return if about_certificates { ApiFact::Tls(words) } else { ApiFact::Unreachable(words) };
        }
    };
    judge(answer.status().as_u16(), answer.headers(), SystemClock.now().seconds())
}

fn judge(status: u16, headers: &HeaderMap, now: UnixSeconds) -> ApiFact {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if (300..400).contains(&status) {
        return ApiFact::NotTheApi(format!("a redirect, HTTP {status}"));
    }
    let kind = text(header::CONTENT_TYPE).trim_start().to_ascii_lowercase();
    if kind.starts_with("text/html") {
        return ApiFact::NotTheApi(format!("a page for people, HTTP {status}"));
    }
    let there = UnixSeconds::parse_http_date(text(header::DATE));
    ApiFact::Answers(there.map(|there| {
        let (now, there) = (i64::try_from(now.0), i64::try_from(there.0));
        now.unwrap_or(i64::MAX).saturating_sub(there.unwrap_or(i64::MAX))
    }))
}

fn bounded(words: &str) -> String {
    words.chars().filter(|letter| !letter.is_control()).take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use ::http::HeaderName;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn what_is_no_api_is_told_from_one_and_the_time_is_compared() {
        let now = UnixSeconds(784_111_777 + 90);
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        let json = ("content-type", "application/json");
        assert_eq!(judge(200, &headers(&[json, date]), now), ApiFact::Answers(Some(90)));
        assert_eq!(judge(200, &headers(&[json, date]), UnixSeconds(784_111_770)), ApiFact::Answers(Some(-7)));
        assert_eq!(judge(404, &headers(&[json]), now), ApiFact::Answers(None));
        assert_eq!(judge(200, &headers(&[("date", "yesterday")]), now), ApiFact::Answers(None));
        for (status, kind) in [(200, "text/html; charset=utf-8"), (404, "Text/HTML"), (302, "application/json")] {
            let found = judge(status, &headers(&[("content-type", kind), date]), now);
            assert!(matches!(found, ApiFact::NotTheApi(_)), "{status} {kind}: {found:?}");
        }
    }
}

//! The canary: an unsigned request through Envoy, which must be refused. It tells a gateway that decides from one that turns
//! everybody away, and from one that lets everybody in.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header;
use serde::Deserialize;
use tokio::time::Instant;

use crate::admin::health_judge::CanaryFact;
use crate::config::parts::IngressTls;
use crate::domain::canary;
use crate::domain::canary::Verdict;
use crate::sys::local_http;
use crate::sys::local_http::Endpoint;
use crate::sys::local_http::ExchangeError;
use crate::sys::local_http::exchange;
use crate::sys::tls::trust::ServerTrust;

/// How long an answer may take: Envoy gives authz 500 ms, and what it says after that has the id by which the canary is known.
const PATIENCE: Duration = Duration::from_millis(700);
/// What the request calls itself.
const NAME: &str = "sigilum-canary";
/// Canaries whose lines of the access log may still be unread: one is sent in ten seconds, ten in one while authz is away.
const REMEMBERED: usize = 256;

/// Ids of the last canaries, so that they do not count as requests of agents.
#[derive(Debug, Default)]
pub struct Canaries {
    ids: Mutex<VecDeque<String>>,
}

impl Canaries {
    /// Whether the request of this id was one of them. The id is Envoy's, so nobody else can pass for one.
    pub fn is_one(&self, id: &str) -> bool {
        !id.is_empty() && self.ids.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|known| known == id)
    }

    fn remember(&self, id: String) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.len() >= REMEMBERED {
            ids.pop_front();
        }
        ids.push_back(id);
    }
}

/// Where agents come in, as this process reaches it; `None` where they need a certificate.
pub fn door(address: SocketAddr, tls: Option<&IngressTls>) -> Option<Endpoint> {
    let address = local_http::reachable(address);
    match tls {
        None => Some(Endpoint::Tcp(address)),
        Some(tls) if tls.client_ca_file.is_some() => None,
        // Whom the certificate is for is not known here; that it is ours is.
        Some(tls) => {
            Some(Endpoint::Tls(address, ServerTrust { own: Some(tls.cert_file.clone()), ..ServerTrust::default() }))
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answered {
    code: String,
    request_id: String,
}

/// Sends one, and says what became of it.
pub async fn send(door: &Endpoint, canaries: &Canaries) -> CanaryFact {
    let began = Instant::now();
    let request = Request::get(canary::PATH).header(header::USER_AGENT, NAME);
    let answer = match exchange(door, request, Bytes::new(), PATIENCE).await {
        Ok(answer) => answer,
        // Who speaks TLS with another certificate, as while it is replaced, was not asked anything.
        Err(ExchangeError::Connect(error)) if matches!(door, Endpoint::Tls(..)) && is_about_tls(&error) => {
            return CanaryFact::Healthy;
        }
        Err(error) => return CanaryFact::Undecided(error.to_string()),
    };
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let said: Answered = serde_json::from_slice(&answer.body).unwrap_or_default();
    let fact = match canary::judge(answer.status, &said.code) {
        Verdict::Refused => CanaryFact::Refused(took),
        Verdict::Undecided(why) => CanaryFact::Undecided(why),
        Verdict::LetThrough(what) => CanaryFact::LetThrough(what),
    };
    if !said.request_id.is_empty() {
        canaries.remember(said.request_id);
    }
    fact
}

fn is_about_tls(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use tokio::io::AsyncReadExt as _;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn the_last_canaries_are_known_by_their_ids() {
        let canaries = Canaries::default();
        for number in 0..=REMEMBERED {
            canaries.remember(format!("id-{number}"));
        }
        assert!(!canaries.is_one("id-0") && canaries.is_one("id-1") && canaries.is_one(&format!("id-{REMEMBERED}")));
        assert!(!canaries.is_one(""));
    }

    #[tokio::test]
    async fn a_canary_that_authz_did_not_answer_is_known_by_its_id() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = Endpoint::Tcp(listener.local_addr().unwrap());
        let envoy = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            // What Envoy gives authz, and a little for the way.
            tokio::time::sleep(Duration::from_millis(520)).await;
            let body = r#"{"code":"AUTHZ_UNAVAILABLE","request_id":"late-1"}"#;
            let answer = format!("HTTP/1.1 503 Service Unavailable\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        };
        let canaries = Canaries::default();
        let (fact, ()) = tokio::join!(send(&door, &canaries), envoy);
        assert_eq!(fact, CanaryFact::Undecided("Envoy answers AUTHZ_UNAVAILABLE".to_owned()));
        assert!(canaries.is_one("late-1"));
    }

    #[test]
    fn agents_that_need_a_certificate_have_no_door_for_us() {
        let tls = |client_ca_file| IngressTls { cert_file: "c".into(), key_file: "k".into(), client_ca_file };
        let address: SocketAddr = ([0, 0, 0, 0], 38000).into();
        assert_eq!(door(address, None), Some(Endpoint::Tcp(([127, 0, 0, 1], 38000).into())));
        assert!(matches!(door(address, Some(&tls(None))), Some(Endpoint::Tls(_, trust)) if trust.own.is_some()));
        assert_eq!(door(address, Some(&tls(Some("ca".into())))), None);
    }
}

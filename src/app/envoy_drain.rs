//! Emptying one Envoy through its admin interface: no client is to come anew, and what is in flight is finished.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::time::Instant;

use crate::sys::local_http;
use crate::sys::local_http::Endpoint;
use crate::sys::local_http::ExchangeError;

/// How long one answer of Envoy's admin interface may take.
const ANSWER: Duration = Duration::from_secs(2);
/// How often the requests in flight are counted.
const LOOK: Duration = Duration::from_millis(50);
/// Envoy's gauge of them.
const IN_FLIGHT: &str = "http.ingress.downstream_rq_active";

/// What becomes of its ports meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// They close at once: whoever comes is turned away by the machine.
    Closed,
    /// They stay open and requests are decided as ever, for those that still come while the news spreads that this
    /// one is leaving. Its health check fails, and each connection ends with its next answer.
    Open,
}

/// Tells clients to go, and waits until nothing is in flight: `least` in any case, `patience` at most. Says how many
/// requests are still in flight then. An Envoy that cannot be told has nothing to finish.
pub async fn drain(raw: &Endpoint, ports: Ports, least: Duration, patience: Duration) -> Result<u64, ExchangeError> {
    let started = Instant::now();
    let told: &[&str] = match ports {
        Ports::Closed => &["/healthcheck/fail", "/drain_listeners"],
        Ports::Open => &["/healthcheck/fail"],
    };
    for path in told {
        local_http::exchange(raw, Request::post(*path), Bytes::new(), ANSWER).await?;
    }
    loop {
        let path = format!("/stats?filter=^{IN_FLIGHT}$");
        let left = match local_http::exchange(raw, Request::get(path), Bytes::new(), ANSWER).await {
            Ok(answer) => in_flight(&answer.body),
            Err(_) => Some(0),
        };
        let is_empty = left == Some(0) && started.elapsed() >= least;
        if is_empty || started.elapsed() >= patience {
            return Ok(left.unwrap_or_default());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How many requests are in flight now; `None` where it does not say so within `patience`.
pub async fn left(raw: &Endpoint, patience: Duration) -> Option<u64> {
    let path = format!("/stats?filter=^{IN_FLIGHT}$");
    let answer = local_http::exchange(raw, Request::get(path), Bytes::new(), patience).await.ok()?;
    in_flight(&answer.body)
}

/// Reads `http.ingress.downstream_rq_active: 3`.
fn in_flight(body: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(body).ok()?;
    text.lines().find_map(|line| line.strip_prefix(IN_FLIGHT)?.strip_prefix(": ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gauge_is_read() {
        assert_eq!(in_flight(b"http.ingress.downstream_rq_active: 12\n"), Some(12));
        assert_eq!(in_flight(b"http.ingress.downstream_rq_active: 0\n"), Some(0));
        assert_eq!(in_flight(b"http.admin.downstream_rq_active: 1\n"), None);
        assert_eq!(in_flight(b""), None);
    }
}

//! The service manager's watchdog: a sign of life as long as this process works and admin answers.
//!
//! Polled in the same task as the supervisor itself, so that one that hangs is not said to live. While it starts or drains
//! its own deadlines hold, and admin is not asked.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::sync::watch;

use crate::app::gateway::control::Standing;
use crate::sys::local_http;
use crate::sys::service::ServiceManager;

/// Gives signs of life as often as the manager wants them; for ever.
pub(super) async fn beat(manager: ServiceManager, standing: watch::Receiver<Standing>) -> Infallible {
    match manager.beat_every() {
        Some(every) => beat_each(every, standing, || manager.beat()).await,
        None => std::future::pending().await,
    }
}

/// Calls `alive` each time, where admin answers within as long as the pause is.
async fn beat_each(every: Duration, standing: watch::Receiver<Standing>, mut alive: impl FnMut()) -> Infallible {
    loop {
        let admin = standing.borrow().admin.clone();
        let lives = match admin {
            // It is not there, and whoever has to start it is at work.
            None => true,
            Some(api) => {
                let asked = local_http::exchange(&api, Request::get("/health/live"), Bytes::new(), every).await;
                asked.is_ok_and(|answer| answer.status == 200)
            }
        };
        if lives {
            alive();
        }
        tokio::time::sleep(every).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic, and measures time")]

    use std::time::Instant;

    use tokio::io::AsyncReadExt as _;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;
    use crate::app::gateway::ask::Phase;
    use crate::app::gateway::progress::Addresses;
    use crate::domain::time::UnixMillis;
    use crate::sys::local_http::Endpoint;

    const PATIENCE: Duration = Duration::from_millis(1800);

    #[tokio::test]
    async fn one_answer_that_is_lost_is_within_the_managers_patience() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let standing = Standing {
            managed: true,
            phase: Phase::Running,
            since: UnixMillis(0),
            processes: Vec::new(),
            addresses: Addresses {
                ingress: Vec::new(),
                ingress_tls: false,
                admin: Vec::new(),
                admin_tls: false,
                envoy_admin: Vec::new(),
            },
            admin: Some(Endpoint::Tcp(listener.local_addr().unwrap())),
            run_dir: std::path::PathBuf::new(),
            process_restarts: 0,
            envoy_restarts: 0,
            restarts: 0,
        };
        let (_sender, standing) = watch::channel(standing);
        let (told, mut beats) = tokio::sync::mpsc::unbounded_channel();
        let every = ServiceManager::with_patience(PATIENCE).beat_every().unwrap();
        let beating = tokio::spawn(beat_each(every, standing, move || told.send(Instant::now()).unwrap()));
        let answer = async || {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        };
        answer().await;
        let first = beats.recv().await.unwrap();
        let (_held, _) = listener.accept().await.unwrap();
        answer().await;
        let next = beats.recv().await.unwrap();
        beating.abort();
        let gap = next - first;
        assert!(gap > every * 2 && gap < PATIENCE, "{gap:?}");
    }
}

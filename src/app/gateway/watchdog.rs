//! The service manager's watchdog: a sign of life as long as this process works and admin answers.
//!
//! Polled in the same task as the supervisor itself, so that one that hangs is not said to live. While it starts or drains
//! its own deadlines hold, and admin is not asked.

use std::convert::Infallible;

use bytes::Bytes;
use http::Request;
use tokio::sync::watch;

use crate::app::gateway::control::Standing;
use crate::sys::local_http;
use crate::sys::service::ServiceManager;

/// Gives signs of life as often as the manager wants them; for ever.
pub(super) async fn beat(manager: ServiceManager, standing: watch::Receiver<Standing>) -> Infallible {
    let Some(every) = manager.beat_every() else { return std::future::pending().await };
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
            manager.beat();
        }
        tokio::time::sleep(every).await;
    }
}

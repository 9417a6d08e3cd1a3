//! What Envoy says to a new configuration: read from its admin interface.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde_json::Value;
use tokio::time::Instant;

use crate::sys::local_http;
use crate::sys::local_http::Endpoint;
use crate::sys::local_http::ExchangeError;

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(2);
/// How often it is asked.
const LOOK: Duration = Duration::from_millis(10);
/// Longest message of Envoy's that is passed on, in characters.
const MAX_MESSAGE: usize = 500;
/// What is asked for, as a regular expression in a query.
const STATS: &str = "/stats?filter=%5E(listener_manager%5C.lds%7Csds%5C..*)%5C.(version_text%7Cupdate_rejected%7Cupdate_failure)%24%7C%5Elistener_manager%5C.total_listeners_warming%24";
/// How the statistics of the listeners' file begin.
pub(super) const LISTENERS: &str = "listener_manager.lds";
/// Where Envoy keeps why it refused a listener.
const ERRORS: &str = "/config_dump?resource=dynamic_listeners&mask=name,error_state.details";

/// Why Envoy does not run with what it was offered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// It said no.
    #[error("{0}")]
    Nack(String),
    /// It said nothing in time.
    #[error("{0}")]
    Silent(String),
    /// It was not told.
    #[error("the file for Envoy could not be written: {0}")]
    Io(io::Error),
}

/// Where Envoy stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// The version it accepted last.
    version: Option<u64>,
    /// Updates it refused, or could not read, since it started.
    refused: u64,
    /// Listeners that wait for something, such as a certificate.
    warming: u64,
}

/// How the statistics of a secret's file begin.
pub(super) fn secret(name: &str) -> String {
    format!("sds.{name}")
}

/// Asks Envoy about one of its files.
pub(super) async fn standing(envoy: &Endpoint, file: &str) -> Result<Standing, ExchangeError> {
    let answer = local_http::exchange(envoy, Request::get(STATS), Bytes::new(), ANSWER).await?;
    Ok(read(&String::from_utf8_lossy(&answer.body), file))
}

fn read(stats: &str, file: &str) -> Standing {
    let mut standing = Standing::default();
    for line in stats.lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        let value = value.trim().trim_matches('"');
        let number = || value.parse::<u64>().unwrap_or_default();
        let of_file = name.strip_prefix(file).and_then(|rest| rest.strip_prefix('.'));
        match of_file.unwrap_or(name) {
            "version_text" => standing.version = value.parse().ok(),
            "update_rejected" | "update_failure" => standing.refused = standing.refused.saturating_add(number()),
            "listener_manager.total_listeners_warming" if file == LISTENERS => standing.warming = number(),
            _ => {}
        }
    }
    standing
}

/// Waits until Envoy runs with `version`, refuses it, or `patience` is over. `before` is where it stood.
pub(super) async fn wait(
    envoy: &Endpoint,
    file: &str,
    version: u64,
    before: &Standing,
    patience: Duration,
) -> Result<(), Refusal> {
    let started = Instant::now();
    loop {
        let silent = match standing(envoy, file).await {
            Ok(now) if now.version == Some(version) && now.warming == 0 => return Ok(()),
            // One that started anew counts from zero.
            Ok(now) if now.version != Some(version) && now.refused != before.refused && now.refused > 0 => {
                return Err(Refusal::Nack(errors(envoy, file).await));
            }
            Ok(now) if now.version == Some(version) => {
                format!("{} of its listeners wait for a certificate", now.warming)
            }
            Ok(_) => "it has not taken notice".to_owned(),
            Err(error) => format!("its admin interface {error}"),
        };
        if started.elapsed() >= patience {
            return Err(Refusal::Silent(format!("Envoy did not confirm it within {} s: {silent}", patience.as_secs())));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Envoy's own words, one line.
async fn errors(envoy: &Endpoint, file: &str) -> String {
    let unknown = || "Envoy refused it; its log says why".to_owned();
    if file != LISTENERS {
        return unknown();
    }
    let Ok(answer) = local_http::exchange(envoy, Request::get(ERRORS), Bytes::new(), ANSWER).await else {
        return unknown();
    };
    read_errors(&answer.body).unwrap_or_else(unknown)
}

fn read_errors(body: &[u8]) -> Option<String> {
    let dump: Value = serde_json::from_slice(body).ok()?;
    let details = |found: &Value| {
        let name = found.get("name").and_then(Value::as_str).unwrap_or("a listener");
        let details = found.pointer("/error_state/details")?.as_str()?;
        let details = details.split_whitespace().collect::<Vec<_>>().join(" ");
        Some(format!("{name}: {details}").chars().take(MAX_MESSAGE).collect())
    };
    dump.get("configs")?.as_array()?.iter().find_map(details)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn the_standing_is_read() {
        let stats = "listener_manager.lds.version_text: \"17\"\nlistener_manager.lds.update_failure: 1\n\
            listener_manager.lds.update_rejected: 2\nlistener_manager.total_listeners_warming: 3\n";
        assert_eq!(read(stats, LISTENERS), Standing { version: Some(17), refused: 3, warming: 3 });
        let both = format!("{stats}sds.a.version_text: \"4\"\nsds.a.update_rejected: 1\nsds.ab.update_rejected: 9\n");
        assert_eq!(read(&both, LISTENERS), read(stats, LISTENERS));
        assert_eq!(read(&both, &secret("a")), Standing { version: Some(4), refused: 1, warming: 0 });
        assert_eq!(read("listener_manager.lds.version_text: \"\"\n", LISTENERS), Standing::default());
    }

    #[test]
    fn the_words_are_read() {
        let body = br#"{"configs":[{"name":"a/1","active_state":{}},{"name":"b/2","error_state":{"details":"cannot\n bind"}}]}"#;
        assert_eq!(read_errors(body).unwrap(), "b/2: cannot bind");
        for bad in [&b"{}"[..], b"", b"{\"configs\":[]}"] {
            assert_eq!(read_errors(bad), None);
        }
    }
}

//! What a supervisor can be asked while it runs, and what it answers: the words of `run/control.sock`, one JSON object per
//! line each way, at most [`MAX_LINE`] bytes.
//!
//! One command comes, any number of events goes back; the last is `status`, `healthy`, `failed` or `refused`.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::app::gateway::instance::ChildIdentity;
use crate::app::gateway::progress::Addresses;

/// Longest line, in bytes.
pub const MAX_LINE: usize = 16 * 1024;
/// Events that may wait for a slow reader; further ones are lost to it.
const WAITING: usize = 64;
/// How long requests in flight have at a safe restart.
const SAFE: Duration = Duration::from_secs(300);

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// How it stands.
    Status,
    /// Everything once more, with the settings as they are now.
    Restart(Restart),
}

/// How a restart treats requests in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Restart {
    /// They have as long as at a stop (`gateway.shutdown_timeout_seconds`).
    Standard,
    /// They have five minutes.
    Safe,
    /// They have this long.
    Wait {
        /// In seconds; 0: as long as they take.
        seconds: u64,
    },
    /// They are cut off.
    Force,
    /// They notice nothing: authz and admin are replaced while requests go on.
    Handoff,
}

impl Restart {
    /// In one word, as it is typed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Safe => "safe",
            Self::Wait { .. } => "wait",
            Self::Force => "force",
            Self::Handoff => "handoff",
        }
    }

    /// How long requests in flight have; `None`: they are not waited for. `standard` is what they have at a stop.
    pub(super) const fn patience(self, standard: Duration) -> Option<Duration> {
        match self {
            Self::Standard | Self::Handoff => Some(standard),
            Self::Safe => Some(SAFE),
            Self::Wait { seconds: 0 } => Some(Duration::MAX),
            Self::Wait { seconds } => Some(Duration::from_secs(seconds)),
            Self::Force => None,
        }
    }
}

/// What a supervisor is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It starts its processes.
    Starting,
    /// Everything answered, and what ends is started again.
    Running,
    /// Its processes are being replaced while requests go on.
    HandingOff,
    /// It waits for requests in flight, then ends its processes.
    Draining,
}

impl Phase {
    /// The word in `status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::HandingOff => "handing-off",
            Self::Draining => "draining",
        }
    }
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// How it stands.
    Status(Status),
    /// The restart begins; the supervisor is this process.
    Accepted {
        /// Its process id.
        pid: u32,
    },
    /// Requests in flight are waited for.
    Draining {
        /// For so many seconds at most; absent: as long as they take.
        #[serde(skip_serializing_if = "Option::is_none")]
        seconds: Option<u64>,
    },
    /// They have ended, or were cut off.
    Drained {
        /// How long that took, in milliseconds.
        took_ms: u64,
        /// Requests that were cut off.
        cut: u64,
    },
    /// The processes start.
    Starting,
    /// A successor has taken a process's place.
    Replaced {
        /// `authz` or `admin`.
        role: String,
        /// Its process id.
        pid: i32,
        /// How long that took, in milliseconds.
        took_ms: u64,
    },
    /// The settings cannot be used; those before are tried.
    HeldBack {
        /// Why.
        message: String,
    },
    /// It is done, and everything answers.
    Healthy {
        /// From the command on, in milliseconds.
        took_ms: u64,
    },
    /// It did not succeed.
    Failed {
        /// Why.
        message: String,
        /// Whether the processes of before go on as they did.
        unchanged: bool,
    },
    /// It is not done.
    Refused {
        /// One word: `bad-command`, `stopping`, `busy`.
        code: String,
        /// Why.
        message: String,
    },
}

/// How a supervisor stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The supervisor's process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Whether a service manager started it, and would start it again.
    pub managed: bool,
    /// What it does.
    pub phase: Phase,
    /// When it began to, in RFC 3339.
    pub since: String,
    /// Its processes.
    pub processes: Vec<ChildIdentity>,
    /// Where they listen.
    pub addresses: Addresses,
    /// Processes that ended by themselves and were started again.
    pub process_restarts: u64,
    /// How many of them were Envoy; `None`: an older supervisor, which does not say.
    #[serde(default)]
    pub envoy_restarts: Option<u64>,
    /// Restarts of the whole that were asked for.
    pub restarts: u64,
}

/// Something asked, with the place for its answers.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) restart: Restart,
    /// Who asks, for the log.
    pub(super) by: String,
    replies: mpsc::Sender<Event>,
}

impl Ask {
    /// With the end from which the answers are read.
    pub(super) fn new(restart: Restart, by: String) -> (Self, mpsc::Receiver<Event>) {
        let (replies, answers) = mpsc::channel(WAITING);
        (Self { restart, by, replies }, answers)
    }

    /// Answers. Nobody may listen any more, or too slowly: that holds nothing up.
    pub(super) fn tell(&self, event: Event) {
        let _ = self.replies.try_send(event);
    }
}

/// Reads a command. The error is for whoever sent it.
pub(super) fn decode(line: &[u8]) -> Result<Command, String> {
    serde_json::from_slice(line).map_err(|error| error.to_string())
}

/// An event as a line.
pub(super) fn encode(event: &Event) -> Vec<u8> {
    // Members are numbers and text: nothing that could not be written.
    let mut line = serde_json::to_vec(event).unwrap_or_else(|_| b"{}".to_vec());
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commands_are_read_as_they_are_written() {
        let text = |command| serde_json::to_string(&command).unwrap();
        assert_eq!(text(Command::Status), r#"{"command":"status"}"#);
        let wait = Command::Restart(Restart::Wait { seconds: 30 });
        assert_eq!(text(wait), r#"{"command":"restart","mode":"wait","seconds":30}"#);
        for restart in
            [Restart::Standard, Restart::Safe, Restart::Wait { seconds: 0 }, Restart::Force, Restart::Handoff]
        {
            let command = Command::Restart(restart);
            assert_eq!(decode(text(command).as_bytes()), Ok(command));
        }
        for bad in
            ["", "{}", r#"{"command":"stop"}"#, r#"{"command":"restart"}"#, r#"{"command":"restart","mode":"x"}"#]
        {
            assert!(decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_force_does_not_wait() {
        let standard = Duration::from_secs(7);
        assert_eq!(Restart::Standard.patience(standard), Some(standard));
        assert_eq!(Restart::Wait { seconds: 0 }.patience(standard), Some(Duration::MAX));
        assert_eq!(Restart::Wait { seconds: 2 }.patience(standard), Some(Duration::from_secs(2)));
        assert_eq!(Restart::Force.patience(standard), None);
    }

    proptest! {
        #[test]
        fn no_line_is_more_than_an_error(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&line);
        }

        #[test]
        fn an_event_is_one_line(message in any::<String>()) {
            let line = encode(&Event::HeldBack { message: message.clone() });
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert_eq!(serde_json::from_slice::<Event>(&line).unwrap(), Event::HeldBack { message });
        }
    }
}

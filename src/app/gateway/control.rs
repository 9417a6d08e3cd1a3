//! The supervisor's end of `run/control.sock`: takes commands of our own user (or root), passes them on, and writes back what
//! becomes of them. SIGUSR2 comes the same way, without answers.

use std::convert::Infallible;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::AsyncBufReadExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::io::BufReader;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::app::gateway::ask;
use crate::app::gateway::ask::Ask;
use crate::app::gateway::ask::Command;
use crate::app::gateway::ask::Event;
use crate::app::gateway::ask::MAX_LINE;
use crate::app::gateway::ask::Phase;
use crate::app::gateway::ask::Restart;
use crate::app::gateway::ask::Status;
use crate::app::gateway::instance::ChildIdentity;
use crate::app::gateway::progress::Addresses;
use crate::app::gateway::progress::Progress;
use crate::domain::time::UnixMillis;
use crate::sys::local_http::Endpoint;
use crate::sys::peer;
use crate::sys::peer::PeerRule;
use crate::sys::signal::RestartSignals;

/// Name of the socket in the run folder.
pub const CONTROL_SOCKET: &str = "control.sock";
/// Commands that wait; one is carried out at a time.
pub(super) const QUEUE: usize = 4;
/// Conversations at a time: a person, a timer, a few forgotten ones.
const CONVERSATIONS: usize = 16;
/// How long a command may take to arrive, and a line to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long after a failed bind or accept it is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// The same after many failed binds: what is in the way is for a person to take away.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How a supervisor stands, for whoever asks and for its watchdog.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub(super) managed: bool,
    pub(super) phase: Phase,
    pub(super) since: UnixMillis,
    pub(super) processes: Vec<ChildIdentity>,
    pub(super) addresses: Addresses,
    /// Where admin should answer now; `None` while nothing is said about it.
    pub(super) admin: Option<Endpoint>,
    pub(super) run_dir: PathBuf,
    pub(super) process_restarts: u64,
    pub(super) envoy_restarts: u64,
    pub(super) restarts: u64,
}

impl Standing {
    fn status(&self) -> Status {
        Status {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            managed: self.managed,
            phase: self.phase,
            since: self.since.rfc3339(),
            processes: self.processes.clone(),
            addresses: self.addresses.clone(),
            process_restarts: self.process_restarts,
            envoy_restarts: Some(self.envoy_restarts),
            restarts: self.restarts,
        }
    }
}

/// What the conversations share.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    pub(super) asks: mpsc::Sender<Ask>,
    pub(super) standing: watch::Receiver<Standing>,
    pub(super) progress: mpsc::Sender<Progress>,
}

impl Desk {
    /// Serves as long as it is polled, on the socket in the run folder as that is now.
    pub(super) async fn serve(mut self, mut signals: Option<RestartSignals>) -> Infallible {
        let mut conversations = JoinSet::new();
        // The last thing that kept us from listening, and how long it is left alone.
        let (mut said, mut pause) = (None, PAUSE);
        loop {
            let run_dir = self.standing.borrow().run_dir.clone();
            let path = run_dir.join(CONTROL_SOCKET);
            let listener = match peer::bind_private(&path).await {
                Ok(listener) => listener,
                Err(error) => {
                    let error = error.to_string();
                    if said.as_ref() != Some(&error) {
                        let _ = self.progress.try_send(Progress::Note(format!("no command can be taken: {error}")));
                        said = Some(error);
                    }
                    self.wait(pause, &run_dir, &mut signals).await;
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                    continue;
                }
            };
            (said, pause) = (None, PAUSE);
            let _gone = Gone(path);
            self.listen(&listener, &run_dir, &mut conversations, &mut signals).await;
        }
    }

    /// For a while, or until the run folder is another; signals are heard meanwhile.
    async fn wait(&mut self, pause: Duration, run_dir: &Path, signals: &mut Option<RestartSignals>) {
        let mut standing = self.standing.clone();
        let over = tokio::time::sleep(pause);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return,
                Ok(_) = standing.wait_for(|now| now.run_dir != run_dir) => return,
                () = next(signals) => self.signalled(),
            }
        }
    }

    /// A restart was asked for by signal.
    fn signalled(&self) {
        let (ask, _) = Ask::new(Restart::Standard, "SIGUSR2".to_owned());
        // One that waits already does the same.
        let _ = self.asks.try_send(ask);
    }

    /// Until the run folder is another.
    async fn listen(
        &mut self,
        listener: &UnixListener,
        run_dir: &Path,
        conversations: &mut JoinSet<()>,
        signals: &mut Option<RestartSignals>,
    ) {
        let mut standing = self.standing.clone();
        loop {
            tokio::select! {
                Ok(_) = standing.wait_for(|now| now.run_dir != run_dir) => return,
                Some(_) = conversations.join_next() => {}
                () = next(signals) => self.signalled(),
                accepted = listener.accept(), if conversations.len() < CONVERSATIONS => match accepted {
                    Ok((stream, _)) => {
                        conversations.spawn(self.clone().converse(stream));
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                },
            }
        }
    }

    async fn converse(self, mut stream: UnixStream) {
        let Some(pid) = believed(&stream) else { return };
        let command = tokio::time::timeout(PATIENCE, line(&mut stream)).await;
        let decoded = match command {
            Ok(Some(line)) => ask::decode(&line),
            Ok(None) | Err(_) => return,
        };
        match decoded {
            Err(message) => {
                let refused = Event::Refused { code: "bad-command".to_owned(), message };
                say(&mut stream, &refused).await;
            }
            Ok(Command::Status) => {
                let status = self.standing.borrow().status();
                say(&mut stream, &Event::Status(status)).await;
            }
            Ok(Command::Restart(restart)) => self.restart(&mut stream, restart, pid).await,
        }
    }

    async fn restart(self, stream: &mut UnixStream, restart: Restart, pid: i32) {
        let (ask, mut answers) = Ask::new(restart, format!("pid {pid}"));
        if self.asks.try_send(ask).is_err() {
            let message = "other restarts wait already".to_owned();
            say(stream, &Event::Refused { code: "busy".to_owned(), message }).await;
            return;
        }
        // The end of the answers is the end of the restart, or of the supervisor.
        while let Some(event) = answers.recv().await {
            if !say(stream, &event).await {
                return;
            }
        }
    }
}

/// The next signal; never, where they cannot be heard.
async fn next(signals: &mut Option<RestartSignals>) {
    match signals {
        Some(signals) => signals.next().await,
        None => std::future::pending().await,
    }
}

/// The process at the other end, where it is one of our user's or root's: whoever can do as we do anyway.
fn believed(stream: &UnixStream) -> Option<i32> {
    let peer = stream.peer_cred().ok()?;
    let ours = PeerRule::same_user();
    (peer.uid() == ours.uid || peer.uid() == 0).then(|| peer.pid().unwrap_or_default())
}

/// One line without its end; `None` where there is none, or it is too long.
async fn line(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream.take(MAX_LINE as u64));
    reader.read_until(b'\n', &mut line).await.ok()?;
    line.pop_if(|last| *last == b'\n').map(|_| line)
}

async fn say(stream: &mut UnixStream, event: &Event) -> bool {
    let written = tokio::time::timeout(PATIENCE, stream.write_all(&ask::encode(event))).await;
    matches!(written, Ok(Ok(())))
}

/// Removes the socket's name when nobody listens on it any more.
struct Gone(PathBuf);

impl Drop for Gone {
    fn drop(&mut self) {
        // One that stays is replaced by the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    fn desk(run_dir: &Path) -> (Desk, mpsc::Receiver<Progress>, watch::Sender<Standing>, mpsc::Receiver<Ask>) {
        let (sender, standing) = watch::channel(Standing {
            managed: false,
            phase: Phase::Running,
            since: UnixMillis(0),
            processes: Vec::new(),
            addresses: Addresses {
                ingress: Vec::new(),
                admin: Vec::new(),
                envoy_admin: Vec::new(),
                ingress_tls: false,
                admin_tls: false,
            },
            admin: None,
            run_dir: run_dir.to_owned(),
            process_restarts: 0,
            envoy_restarts: 0,
            restarts: 0,
        });
        let (asks, asked) = mpsc::channel(QUEUE);
        let (progress, told) = mpsc::channel(64);
        (Desk { asks, standing, progress }, told, sender, asked)
    }

    #[tokio::test]
    async fn a_socket_that_cannot_be_had_is_said_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(CONTROL_SOCKET)).unwrap();
        let (desk, mut told, _standing, _asked) = desk(folder.path());
        // Long enough for three attempts.
        let tried = tokio::time::timeout(PAUSE * 4, desk.serve(None)).await;
        assert!(tried.is_err());
        assert!(matches!(told.recv().await, Some(Progress::Note(note)) if note.contains("no command can be taken")));
        assert_eq!(told.recv().await, None, "and not again");
    }
}

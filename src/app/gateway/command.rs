//! The other end of `run/control.sock`: sends one command to a running supervisor and hears what becomes of it.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncBufReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::io::BufReader;
use tokio::net::UnixStream;

use crate::app::gateway::ask::Command;
use crate::app::gateway::ask::Event;
use crate::app::gateway::ask::MAX_LINE;
use crate::app::gateway::control::CONTROL_SOCKET;
use crate::app::gateway::instance::Instance;
use crate::sys::peer::PeerRule;

/// How long a supervisor may take to take a command.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a supervisor could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Nothing of this installation runs.
    #[error("no gateway of this installation runs")]
    NotRunning,
    /// One runs, and nobody takes commands.
    #[error("the gateway (pid {pid}) takes no command: {source}")]
    Deaf {
        /// Its supervisor.
        pid: i32,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else listens in its place.
    #[error("whoever listens on {0} is not the gateway that runs here")]
    Stranger(String),
    /// The conversation broke off.
    #[error("the conversation with the gateway broke off: {0}")]
    Io(#[from] io::Error),
    /// Something was answered that is no event.
    #[error("the gateway answers something that is not understood: {0}")]
    Answer(String),
}

/// A conversation.
#[derive(Debug)]
pub struct Conversation {
    reader: BufReader<UnixStream>,
    instance: Instance,
}

impl Conversation {
    /// Sends a command to the supervisor of this run folder, which is known by its process id and start time.
    pub async fn begin(run_dir: &Path, command: Command) -> Result<Self, CommandError> {
        let instance = Instance::read(run_dir).filter(|instance| instance.supervisor.is_alive());
        let Some(instance) = instance else { return Err(CommandError::NotRunning) };
        let path = run_dir.join(CONTROL_SOCKET);
        let pid = instance.supervisor.pid;
        let stream = UnixStream::connect(&path).await.map_err(|source| CommandError::Deaf { pid, source })?;
        let peer = stream.peer_cred()?;
        let ours = PeerRule::same_user().uid;
        // Root asks gateways of others.
        let known = peer.uid() == ours || ours == 0;
        if !known || peer.pid().is_some_and(|found| found != pid) {
            return Err(CommandError::Stranger(path.display().to_string()));
        }
        let mut reader = BufReader::new(stream);
        let mut line = serde_json::to_vec(&command).map_err(io::Error::from)?;
        line.push(b'\n');
        tokio::time::timeout(PATIENCE, reader.get_mut().write_all(&line)).await.map_err(io::Error::from)??;
        Ok(Self { reader, instance })
    }

    /// Whom it is with.
    pub const fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Event>, CommandError> {
        let mut line = String::new();
        let length = self.reader.read_line(&mut line).await?;
        if length == 0 {
            return Ok(None);
        }
        if length > MAX_LINE {
            return Err(CommandError::Answer("a line that is too long".to_owned()));
        }
        serde_json::from_str(&line).map(Some).map_err(|error| CommandError::Answer(error.to_string()))
    }
}

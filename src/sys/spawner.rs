//! A thread that starts child processes and lives as long as this process does.
//!
//! Linux ties the parent-death signal to the *thread* that started a child. A worker thread of the
//! runtime may end earlier, and would take its children along.

use std::io;
use std::sync::mpsc;

use tokio::process::Child;
use tokio::process::Command;
use tokio::sync::oneshot;

/// Requests that may wait; each waits only for one `fork`.
const QUEUE: usize = 16;

struct Job {
    command: Command,
    answer: oneshot::Sender<io::Result<Child>>,
}

/// Starts children from its own thread.
#[derive(Debug, Clone)]
pub struct Spawner(mpsc::SyncSender<Job>);

impl Spawner {
    /// Starts the thread. Must be called within a runtime: it watches over the children.
    pub fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let (sender, jobs) = mpsc::sync_channel::<Job>(QUEUE);
        let work = move || {
            for mut job in jobs {
                let _inside = runtime.enter();
                // Nobody waits for the answer any more: the child is dropped, and dies where it was asked to.
                let _ = job.answer.send(job.command.spawn());
            }
            // Children may outlive the last spawner, and this thread's end would end them.
            loop {
                std::thread::park();
            }
        };
        std::thread::Builder::new().name("spawner".to_owned()).spawn(work)?;
        Ok(Self(sender))
    }

    /// Starts a child.
    pub async fn spawn(&self, command: Command) -> io::Result<Child> {
        let (answer, started) = oneshot::channel();
        let gone = || io::Error::other("the spawner thread is gone");
        self.0.send(Job { command, answer }).map_err(|_| gone())?;
        started.await.map_err(|_| gone())?
    }
}

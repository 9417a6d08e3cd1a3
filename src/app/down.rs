//! `down`: stops what this installation started, and nothing else.

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::app::gateway::instance;
use crate::app::gateway::instance::Instance;
use crate::app::gateway::progress::Role;
use crate::sys::process;
use crate::sys::process::PortHolder;

/// How long after SIGKILL a process may still be seen.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// What a supervisor may take beyond its drain to end its processes.
const STOP_GRACE: Duration = Duration::from_secs(35);
/// How long a listener of this machine may take to answer a connection.
const KNOCK: Duration = Duration::from_secs(1);

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// Nothing of this installation runs.
    NothingRan,
    /// It ended in order.
    Gracefully,
    /// It, or these processes of it, had to be killed.
    Killed(Vec<&'static str>),
}

/// Why something still runs.
#[derive(Debug, thiserror::Error)]
pub enum DownError {
    /// A process may not be signalled.
    #[error("process {pid} ({name}) cannot be stopped: {source}")]
    Signal {
        /// Its number.
        pid: i32,
        /// What it is.
        name: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A killed process is still there.
    #[error("a killed process does not end")]
    Undead,
}

/// A port of the local stack, as it is found after the stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    /// Ours, and free now.
    Freed,
    /// Nobody listened there.
    Quiet,
    /// Ours, and still in use.
    Kept(Option<PortHolder>),
    /// Somebody else's: left alone.
    Foreign(Option<PortHolder>),
}

/// The ports on which this installation's processes listen right now, as they were written down.
pub fn listening(run_dir: &Path) -> Vec<u16> {
    let Some(instance) = Instance::read(run_dir) else { return Vec::new() };
    let (gateway, runs) = (&instance.addresses, instance.supervisor.is_alive());
    let parts = gateway.ingress.iter().chain(&gateway.admin).chain(&gateway.envoy_admin);
    let orphaned = instance.children.iter().any(|child| child.process.is_alive());
    let mut ports: Vec<u16> = if runs || orphaned { parts.map(SocketAddr::port).collect() } else { Vec::new() };
    if runs {
        ports.extend(instance.beside.iter().map(|beside| beside.address.port()));
    }
    ports
}

/// Stops the gateway whose run folder this is: SIGTERM to its supervisor, `drain` and some time for the
/// rest, then SIGKILL to whatever is left. What the supervisor serves itself (the local control plane, the
/// demos) ends with it. Each process is known by its start time, so a later one with the same number is
/// left alone.
pub async fn run(run_dir: &Path, drain: Duration) -> Result<Stopped, DownError> {
    let Some(instance) = Instance::read(run_dir) else { return Ok(Stopped::NothingRan) };
    let supervisor = &instance.supervisor;
    let signalled = |name, pid| move |source| DownError::Signal { pid, name, source };
    let asked = supervisor.signal(Signal::TERM).map_err(signalled("supervisor", supervisor.pid))?;
    // What it restarted meanwhile stands in the file it last wrote.
    let patience = drain.saturating_add(STOP_GRACE);
    let mut killed = Vec::new();
    if asked && !instance::wait_for_end(&[supervisor], patience).await {
        supervisor.signal(Signal::KILL).map_err(signalled("supervisor", supervisor.pid))?;
        killed.push("supervisor");
    }
    let last = Instance::read(run_dir).unwrap_or(instance);
    let children: Vec<_> = last.children.iter().map(|child| &child.process).collect();
    let any = children.iter().any(|child| child.is_alive());
    if any && !asked {
        // Its supervisor was killed: they are about to notice.
        instance::wait_for_end(&children, KILL_GRACE).await;
    }
    for child in &last.children {
        let name = Role::name(child.role);
        if child.process.signal(Signal::KILL).map_err(signalled(name, child.process.pid))? {
            killed.push(name);
        }
    }
    if !instance::wait_for_end(&children, KILL_GRACE).await {
        return Err(DownError::Undead);
    }
    Ok(if !killed.is_empty() {
        Stopped::Killed(killed)
    } else if asked || any {
        Stopped::Gracefully
    } else {
        Stopped::NothingRan
    })
}

/// What has become of a port; `ours`: those of [`listening`] before the stop.
pub async fn look(port: u16, ours: &[u16]) -> Port {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let knock = tokio::time::timeout(KNOCK, tokio::net::TcpStream::connect(address)).await;
    // One that takes no connection in time listens all the same.
    let open = !matches!(knock, Ok(Err(_)));
    match (open, ours.contains(&port)) {
        (false, true) => Port::Freed,
        (false, false) => Port::Quiet,
        (true, true) => Port::Kept(process::port_holder(port)),
        (true, false) => Port::Foreign(process::port_holder(port)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "test code may panic")]

    use std::process::Child;
    use std::process::Command;

    use super::*;
    use crate::sys::process::ProcessIdentity;

    fn sleeper() -> (Child, ProcessIdentity) {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let identity = ProcessIdentity::of(i32::try_from(child.id()).unwrap()).unwrap();
        (child, identity)
    }

    fn write(run_dir: &Path, supervisor: &ProcessIdentity, child: &ProcessIdentity) {
        let text = serde_json::json!({
            "supervisor": supervisor,
            "children": [{"role": "envoy", "pid": child.pid, "started": child.started}],
            "addresses": {"ingress": ["127.0.0.1:1"], "admin": ["127.0.0.1:2", "[::1]:2"], "envoy_admin": []},
            "beside": [{"name": "api", "address": "127.0.0.1:3"}],
        });
        std::fs::write(instance::path(run_dir), text.to_string()).unwrap();
    }

    #[tokio::test]
    async fn only_what_was_started_here_is_stopped() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(run(folder.path(), Duration::ZERO).await.unwrap(), Stopped::NothingRan);
        // Somebody else has the numbers now.
        let (mut other, found) = sleeper();
        let stale = ProcessIdentity { started: "earlier".to_owned(), ..found.clone() };
        write(folder.path(), &stale, &stale);
        assert!(listening(folder.path()).is_empty());
        assert_eq!(run(folder.path(), Duration::ZERO).await.unwrap(), Stopped::NothingRan);
        assert!(other.try_wait().unwrap().is_none(), "it is left alone");
        // What the supervisor served itself is gone with it.
        write(folder.path(), &stale, &found);
        assert_eq!(listening(folder.path()), [1, 2, 2]);
        write(folder.path(), &found, &stale);
        assert_eq!(listening(folder.path()), [1, 2, 2, 3]);
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[tokio::test]
    async fn a_supervisor_is_asked_and_its_children_are_killed() {
        let folder = tempfile::tempdir().unwrap();
        let ((mut supervisor, first), (mut child, second)) = (sleeper(), sleeper());
        write(folder.path(), &first, &second);
        let reaped = std::thread::spawn(move || (supervisor.wait().unwrap(), child.wait().unwrap()));
        assert_eq!(run(folder.path(), Duration::ZERO).await.unwrap(), Stopped::Killed(vec!["envoy"]));
        let (supervisor, child) = reaped.join().unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal;
        assert_eq!((signal(&supervisor), signal(&child)), (Some(15), Some(9)));
    }

    #[tokio::test]
    async fn a_port_is_freed_quiet_kept_or_somebody_elses() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        match look(port, &[]).await {
            Port::Foreign(holder) if cfg!(target_os = "linux") => {
                assert_eq!(holder.unwrap().pid, i32::try_from(std::process::id()).unwrap());
            }
            Port::Foreign(_) => {}
            other @ (Port::Freed | Port::Quiet | Port::Kept(_)) => panic!("{other:?}"),
        }
        assert!(matches!(look(port, &[port]).await, Port::Kept(_)));
        drop(listener);
        assert_eq!(look(port, &[port]).await, Port::Freed);
        assert_eq!(look(port, &[]).await, Port::Quiet);
    }
}

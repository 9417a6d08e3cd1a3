//! What the operating system says of processes: children, arguments, memory, processor time.

use std::fs;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Pid;
use rustix::process::Signal;

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(20);

/// Waits until `condition` holds. Not holding within `limit` fails the test by name.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(POLL);
    }
}

/// Sets a flag, also where an assertion ends the scope: a scope of threads waits for those who look at it.
pub struct StopAtEnd<'a>(pub &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// One process as `/proc` shows it.
#[derive(Debug, Clone)]
pub struct Process {
    pub pid: i32,
    /// Its arguments, joined by blanks.
    pub arguments: String,
}

/// `(parent, state)` of a process; `None` where it is gone.
fn status(pid: i32) -> Option<(i32, char)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

/// Whether the process runs; one that only waits to be collected does not.
pub fn alive(pid: i32) -> bool {
    status(pid).is_some_and(|(_, state)| state != 'Z' && state != 'X')
}

/// All running processes whose parent is `parent`.
pub fn children(parent: i32) -> Vec<Process> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        match status(pid) {
            Some((of, state)) if of == parent && state != 'Z' => {
                found.push(Process { pid, arguments: arguments(pid) });
            }
            Some(_) | None => {}
        }
    }
    found
}

/// The arguments of a process, joined by blanks; empty where it is gone.
pub fn arguments(pid: i32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).replace('\0', " ")
}

/// The environment a process was started with.
pub fn environment(pid: i32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()
}

/// Sends a signal.
pub fn signal(pid: i32, signal: Signal) {
    let pid = Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Stops a process where it stands (SIGSTOP) and waits until each of its threads has.
pub fn freeze(pid: i32) {
    signal(pid, Signal::STOP);
    let stopped = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
    };
    wait_until("all threads stand still", Duration::from_secs(30), || {
        fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().all(stopped)
    });
}

/// A field of `/proc/<pid>/status` in KiB, e.g. `VmHWM`.
pub fn memory_kib(pid: i32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_else(|| panic!("no {field} of {pid}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Forgets the peak of `VmHWM`, so that the next reading is the peak from here on.
pub fn reset_peak(pid: i32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
}

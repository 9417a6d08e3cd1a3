//! What the operating system counted: processor time and memory of each process.

use std::fs;

/// Processor time of all threads of a process since its start, in nanoseconds; 0 where it is gone.
/// Threads that ended are not counted: the processes measured here keep theirs.
pub fn cpu_nanos(pid: i32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let mut total = 0;
    for task in tasks.flatten() {
        let schedstat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        total += schedstat.split_whitespace().next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    }
    total
}

/// A field of `/proc/<pid>/status` in KiB: `VmHWM` is the peak, `VmRSS` what is held now.
pub fn memory_kib(pid: i32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// A process whose share is reported under `name`.
#[derive(Debug, Clone)]
pub struct Counted {
    pub name: &'static str,
    pub pid: i32,
}

/// The readings of several processes at one moment.
pub struct Reading(Vec<u64>);

impl Reading {
    /// Reads them all.
    pub fn take(processes: &[Counted]) -> Self {
        Self(processes.iter().map(|process| cpu_nanos(process.pid)).collect())
    }

    /// Nanoseconds each has used since `earlier`.
    pub fn since(&self, earlier: &Self) -> Vec<u64> {
        self.0.iter().zip(&earlier.0).map(|(now, before)| now.saturating_sub(*before)).collect()
    }
}

//! What this process uses of the machine, where the system tells: on Linux.

use std::fs;

use rustix::process::Resource;

/// Memory and open files of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnUse {
    /// Bytes of memory it holds.
    pub resident_bytes: u64,
    /// Files and sockets it has open.
    pub open_files: u64,
    /// How many it may have open.
    pub max_open_files: u64,
}

/// Looks; `None` where the system does not tell.
pub fn look() -> Option<OwnUse> {
    let resident = resident(&fs::read_to_string("/proc/self/status").ok()?)?;
    // The folder is open while it is read.
    let open = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    Some(OwnUse {
        resident_bytes: resident,
        open_files: u64::try_from(open).unwrap_or(u64::MAX),
        max_open_files: rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
    })
}

/// The line `VmRSS:    1234 kB` of `/proc/self/status` (proc(5)), in bytes.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn an_open_file_counts() {
        let held: Vec<_> = (0..64).map(|_| fs::File::open("/proc/self/status").unwrap()).collect();
        let found = look().unwrap();
        assert!(found.open_files >= held.len() as u64 && found.open_files <= found.max_open_files, "{found:?}");
        assert!(found.resident_bytes > 1 << 20, "{found:?}");
    }

    #[test]
    fn memory_is_read_in_kilobytes() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    1234 kB\n"), Some(1234 * 1024));
        assert_eq!(resident("Name:\tx\n"), None);
        assert_eq!(resident("VmRSS:\t 12 MB\n"), None);
    }
}

//! Which run of the operating system this is.

/// A number that is another after every boot; `None` where the system names none. What was written
/// without fsync is there in full only within one boot.
pub fn id() -> Option<u128> {
    #[cfg(target_os = "linux")]
    {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let digits: String = text.trim().chars().filter(|letter| *letter != '-').collect();
        u128::from_str_radix(&digits, 16).ok().filter(|id| *id != 0)
    }
    #[cfg(not(target_os = "linux"))]
    {
        None
    }
}

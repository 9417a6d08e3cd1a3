//! How many files and sockets this process may have open at a time.

use rustix::process::Resource;
use rustix::process::Rlimit;

/// Raises the limit to `wanted` where it is lower, as far as the system lets us; what it is then. Shells start
/// processes with 1024, for the sake of programs that cannot deal with more.
pub fn raise_to(wanted: u64) -> u64 {
    let now = rustix::process::getrlimit(Resource::Nofile);
    // `None` is no limit at all.
    let (Some(current), maximum) = (now.current, now.maximum) else { return wanted };
    let allowed = maximum.unwrap_or(wanted).min(wanted);
    if current >= allowed {
        return current;
    }
    match rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum }) {
        Ok(()) => allowed,
        Err(error) => {
            tracing::warn!(%error, current, wanted, "the number of open files could not be raised");
            current
        }
    }
}

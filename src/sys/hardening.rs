//! What every process of ours does first: no core dump, no peeking, private files by default.

use rustix::fs::Mode;
#[cfg(target_os = "linux")]
use rustix::process::DumpableBehavior;
use rustix::process::Resource;
use rustix::process::Rlimit;

/// Turns core dumps off, makes the process undumpable (which also closes `/proc/<pid>/mem` to other
/// processes of the same user) and sets the umask to 0077. A core dump of ours holds credentials.
pub fn harden_process() -> std::io::Result<()> {
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    Ok(())
}

//! One bridge of this user for a session. A second one would find its place taken by the first and wait there for good.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use sha2::Digest as _;
use sha2::Sha256;

use crate::cli::gateway::pair::session::Pairing;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::settings;
use crate::domain::hex;
use crate::sys::files;
use crate::sys::files::FileLock;
use crate::sys::files::LockError;

/// How long whoever only looks may hold the lock at most.
const LOOKS: Duration = Duration::from_millis(500);
/// How often it is tried again meanwhile.
const AGAIN: Duration = Duration::from_millis(20);
/// Bytes of the hash in the file's name.
const NAME_BYTES: usize = 16;

/// Held as long as the bridge runs; the kernel lets go of it however that ends.
#[derive(Debug)]
pub(super) struct SessionLock(Option<FileLock>);

impl SessionLock {
    /// Takes it for the bridge of this process; exit code 78 where another bridge has it. Where there can be no lock, that
    /// is said, and the bridge runs without.
    pub(super) async fn take(pairing: &Pairing, printer: &mut Printer) -> Result<Self, CliError> {
        let tried = async {
            loop {
                match lock(pairing) {
                    Err(LockError::Held { .. }) => tokio::time::sleep(AGAIN).await,
                    other => return other,
                }
            }
        };
        // A last look says who has it.
        let taken = tokio::time::timeout(LOOKS, tried).await.unwrap_or_else(|_| lock(pairing));
        match taken {
            Ok(lock) => Ok(Self(Some(lock))),
            Err(LockError::Held { holder, .. }) => Err(held(Outcome::Config, &holder)),
            Err(error @ LockError::Io { .. }) => {
                printer.warn(&format!("whether this session has another bridge here cannot be seen: {error}"));
                Ok(Self(None))
            }
        }
    }

    /// The session is over and its id never comes again: the file goes.
    pub(super) fn retire(self) {
        if let Self(Some(lock)) = self {
            // A leftover is empty and locks nothing.
            let _ = std::fs::remove_file(lock.path());
        }
    }
}

/// Refuses to start a bridge in the background for a session that has one; exit code 1, as for one that runs already. Where
/// there can be no lock, the bridge says so itself.
pub(super) fn check(pairing: &Pairing) -> Result<(), CliError> {
    match lock(pairing) {
        Err(LockError::Held { holder, .. }) => Err(held(Outcome::Failed, &holder)),
        Ok(_) | Err(LockError::Io { .. }) => Ok(()),
    }
}

fn held(outcome: Outcome, holder: &str) -> CliError {
    CliError::new(outcome, format!("a gateway pair bridge for this session is running already: {holder}"))
        .hint("sigilum gateway pair --stop, with the --pid-file it was started with, stops one in the background")
}

fn lock(pairing: &Pairing) -> Result<FileLock, LockError> {
    let path = path(pairing);
    let io = |source: io::Error| LockError::Io { path: path.clone(), source };
    files::own_folder(files::folder_of(&path)).map_err(io)?;
    FileLock::take(&path, &format!("pid {} (gateway pair)", std::process::id()))
}

/// Beside the session's file, or where that would be. Neither address nor id can be read from the name.
fn path(pairing: &Pairing) -> PathBuf {
    let folder =
        pairing.file.as_deref().map_or_else(settings::background_folder, |file| files::folder_of(file).to_owned());
    let named = format!("{}\n{}", pairing.api_url, pairing.session.as_str());
    folder.join(format!("pair-{}.lock", hex::begin(&Sha256::digest(named), NAME_BYTES)))
}

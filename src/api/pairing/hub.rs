//! The live sockets by session, one each, and what was tried at each session's door.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;

use crate::api::pairing::line::Goodbye;
use crate::api::pairing::line::Line;
use crate::api::pairing::line::Lost;
use crate::api::pairing::tries::Tries;
use crate::api::pairing::tries::Verdict;
use crate::domain::secret::Secret;
use crate::domain::time::MonotonicMillis;

/// Sockets at a time, of all sessions, where the process may have so many: some 30 kB each while idle.
pub(super) const MAX_SOCKETS: usize = 4096;

/// The live sockets.
#[derive(Debug)]
pub(super) struct Hub {
    sessions: Mutex<Sessions>,
    room: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Sessions {
    next: u64,
    lines: HashMap<String, Arc<Line>>,
    /// One for every session that exists, and for no other: a stranger cannot fill it.
    tries: HashMap<String, Tries>,
}

impl Hub {
    /// Room for so many sockets.
    pub(super) fn new(sockets: usize) -> Self {
        Self { sessions: Mutex::default(), room: Arc::new(Semaphore::new(sockets.min(MAX_SOCKETS))) }
    }

    /// Room for one more socket, where there is any.
    pub(super) fn room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_owned().ok()
    }

    /// The socket of a session.
    pub(super) fn line(&self, session: &str) -> Option<Arc<Line>> {
        self.sessions().lines.get(session).cloned()
    }

    /// Judges a pair code that was tried for a session that exists; see [`Tries::judge`].
    pub(super) fn judge(
        &self,
        session: &str,
        address: IpAddr,
        known: (bool, bool),
        now: MonotonicMillis,
        is_right: impl FnOnce() -> bool,
    ) -> Verdict {
        let mut sessions = self.sessions();
        if let Some(tries) = sessions.tries.get_mut(session) {
            return tries.judge(address, known, now, is_right);
        }
        let mut tries = Tries::default();
        let verdict = tries.judge(address, known, now, is_right);
        sessions.tries.insert(session.to_owned(), tries);
        verdict
    }

    /// So many wrong codes were tried for a session that no bridge has joined.
    pub(super) fn recall(&self, session: &str, wrong: u32) {
        self.sessions().tries.entry(session.to_owned()).or_default().recall(wrong);
    }

    /// Makes a socket the session's, in the place of the one with number `instead_of`, which is told. `None` where
    /// another was faster: that one was not asked whether it is alive.
    pub(super) fn join(
        &self,
        session: &str,
        instead_of: Option<u64>,
        address: IpAddr,
        outbound: mpsc::Sender<Secret>,
        expires_at_ms: i64,
    ) -> Option<Arc<Line>> {
        let mut sessions = self.sessions();
        if let Some(held) = sessions.lines.get(session) {
            if Some(held.number) != instead_of {
                return None;
            }
            held.end(Goodbye::Replaced);
        }
        sessions.next = sessions.next.wrapping_add(1);
        let line = Arc::new(Line::new(sessions.next, outbound, expires_at_ms));
        sessions.lines.insert(session.to_owned(), Arc::clone(&line));
        sessions.tries.entry(session.to_owned()).or_default().joined(address);
        Some(line)
    }

    /// A socket has ended. Where another has taken its place, that one stays.
    pub(super) fn leave(&self, session: &str, line: &Line, lost: Lost) {
        let mut sessions = self.sessions();
        if sessions.lines.get(session).is_some_and(|held| held.number == line.number) {
            sessions.lines.remove(session);
        }
        drop(sessions);
        line.close(lost);
    }

    /// These sessions exist.
    pub(super) fn note(&self, ids: impl IntoIterator<Item = String>) {
        let mut sessions = self.sessions();
        for id in ids {
            sessions.tries.entry(id).or_default();
        }
    }

    /// Whether a session exists, as far as was noted.
    pub(super) fn is_known(&self, session: &str) -> bool {
        self.sessions().tries.contains_key(session)
    }

    /// Sessions something is known of.
    pub(super) fn known(&self) -> Vec<String> {
        let sessions = self.sessions();
        let mut known: Vec<String> = sessions.lines.keys().chain(sessions.tries.keys()).cloned().collect();
        known.sort_unstable();
        known.dedup();
        known
    }

    /// Forgets a session that is no more, and ends its socket.
    pub(super) fn forget(&self, session: &str) {
        let mut sessions = self.sessions();
        sessions.tries.remove(session);
        if let Some(line) = sessions.lines.get(session) {
            line.end(Goodbye::NotFound);
        }
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

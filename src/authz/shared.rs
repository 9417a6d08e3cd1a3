//! The replay window of several replicas: one store that all of them ask, behind the window each has of its own.
//!
//! Promises that a nonce admitted here was admitted by no other replica that asks the same store, and that whatever
//! keeps the store from saying so refuses: no connection, no answer in time, a store that forgets. A store that was
//! started anew, or emptied, has forgotten: what was signed until then and a little later is refused, as after a start
//! without a journal.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use sha2::Digest as _;
use sha2::Sha256;
use tokio::sync::Notify;
use tokio::sync::watch;

use crate::domain::decision::Admission;
use crate::domain::decision::DenyReason;
use crate::domain::time::CLOCK_SKEW;
use crate::domain::time::Now;
use crate::domain::time::UnixSeconds;
use crate::sys::clock::Clock;
use crate::sys::key_store::KeyConnection;
use crate::sys::key_store::KeyStore;
use crate::sys::key_store::KeyStoreError;
use crate::sys::random;
use crate::sys::tasks::Stop;

/// How often the store is asked who it is. It notices a connection that is dead without a word.
const LOOK: Duration = Duration::from_secs(1);
/// First pause between two attempts to connect; doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between two attempts. Every request is refused meanwhile.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// Begins every key of ours. The digit is the version of what follows.
const PREFIX: &[u8] = b"sigilum1:";
/// Begins what is hashed, so that the hash means nothing elsewhere.
const DOMAIN: &[u8] = b"sigilum replay window 1\0";
/// The one policy of a full store that is none to forget.
const KEEPS: &str = "noeviction";

/// The shared window; shared by all requests of this process.
#[derive(Debug)]
pub struct SharedWindow {
    store: KeyStore,
    deadline: Duration,
    /// `None`: nobody can be asked.
    connected: ArcSwapOption<Connected>,
    /// Somebody found that the connection, or the store, is not what it was.
    doubted: Notify,
    /// What the memory that is asked is called, once it is known.
    name: watch::Sender<Option<String>>,
    /// Whether the last question of a request went unanswered; for the log, once per outage.
    silent: AtomicBool,
}

/// A connection, and what it leads to.
#[derive(Debug)]
pub(crate) struct Connected {
    connection: KeyConnection,
    identity: Identity,
}

/// Which memory a store is: its run and the moment its memory began. Another run or an emptied store is another memory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    /// Where the mark lies.
    place: String,
    /// What it holds: whoever saw the memory begin, and when (Unix seconds).
    mark: String,
    began: UnixSeconds,
}

impl Identity {
    /// Requests created up to this second may have been used before the memory began.
    fn floor(&self) -> u64 {
        self.began.0.saturating_add(CLOCK_SKEW.as_secs())
    }

    /// What admin is told: equal for those who ask the same memory.
    fn text(&self) -> String {
        format!("shared:{}:{}", self.place, self.mark)
    }
}

impl SharedWindow {
    /// Nothing connected yet. A request waits at most `deadline` for the store.
    pub fn new(store: KeyStore, deadline: Duration) -> Self {
        Self {
            store,
            deadline,
            connected: ArcSwapOption::empty(),
            doubted: Notify::new(),
            name: watch::channel(None).0,
            silent: AtomicBool::new(false),
        }
    }

    /// Whether the store can be asked now, as far as is known.
    pub fn is_usable(&self) -> bool {
        self.connected.load().is_some()
    }

    /// Whether requests signed now are still refused, because the store's memory has just begun.
    pub fn is_starting(&self, now: UnixSeconds) -> bool {
        let connected = self.connected.load();
        connected.as_ref().is_some_and(|connected| now.0 <= connected.identity.floor())
    }

    /// The name of the memory that is asked, once it is known; another when it forgot.
    pub fn name(&self) -> watch::Receiver<Option<String>> {
        self.name.subscribe()
    }

    /// Uses the nonce for all replicas, after the window of this process has. `expires_at` is the last second in which
    /// it must be remembered.
    pub async fn admit(&self, admission: &Admission, expires_at: UnixSeconds, now: Now) -> Result<(), DenyReason> {
        let Some(connected) = self.connected.load_full() else { return Err(DenyReason::ReplayStoreUnavailable) };
        let Connected { connection, identity } = &*connected;
        if admission.created.0 <= identity.floor() {
            return Err(DenyReason::ReplayWindowStarting);
        }
        let asked = connection.first_use(&identity.place, &key(admission), life(expires_at, now), self.deadline).await;
        match asked {
            Ok(told) if told.mark.as_deref() == Some(identity.mark.as_str()) => {
                self.silent.store(false, Ordering::Relaxed);
                if told.is_first { Ok(()) } else { Err(DenyReason::ReplayDetected) }
            }
            // It has been emptied: what it says of this nonce means nothing.
            Ok(_) => {
                self.give_up(&connected);
                Err(DenyReason::ReplayStoreUnavailable)
            }
            Err(error) => {
                if error.is_lost() {
                    self.give_up(&connected);
                }
                if !self.silent.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "the shared replay window did not answer a request, which was refused");
                }
                Err(DenyReason::ReplayStoreUnavailable)
            }
        }
    }

    /// Keeps a connection until told to stop.
    pub async fn run<C: Clock>(self: Arc<Self>, clock: C, mut stop: Stop) {
        let mut pause = MIN_PAUSE;
        let mut said: Option<String> = None;
        loop {
            let ended = tokio::select! {
                () = stop.wait() => return,
                ended = self.hold(&clock, &mut said) => ended,
            };
            self.connected.store(None);
            let text = ended.to_string();
            // Once per outage and reason: it may last for hours.
            if said.as_ref() == Some(&text) {
                pause = pause.saturating_mul(2).min(MAX_PAUSE);
            } else {
                let KeyStore { host, port, .. } = &self.store;
                tracing::error!(
                    host,
                    port,
                    error = text,
                    "the shared replay window cannot be used; requests are refused"
                );
                said = Some(text);
                pause = MIN_PAUSE;
            }
            tokio::select! {
                () = stop.wait() => return,
                () = tokio::time::sleep(random::jittered(pause)) => {}
            }
        }
    }

    /// One connection, from its beginning to its end; says why it ended. `said` is emptied when it begins to be used.
    async fn hold<C: Clock>(&self, clock: &C, said: &mut Option<String>) -> KeyStoreError {
        let ours = match self.attempt(clock.now().seconds()).await {
            Ok(ours) => Arc::new(ours),
            Err(error) => return error,
        };
        let Connected { connection, identity } = &*ours;
        self.connected.store(Some(Arc::clone(&ours)));
        let name = identity.text();
        self.name.send_if_modified(|known| known.replace(name.clone()).as_ref() != Some(&name));
        if said.take().is_some() {
            tracing::info!("the shared replay window can be used again");
        }
        loop {
            tokio::select! {
                () = self.doubted.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            match identify(connection, clock.now().seconds()).await {
                Ok(found) if found == *identity && self.is(&ours) => {}
                Ok(_) => return KeyStoreError::Refused("it has forgotten: it was emptied or started anew".to_owned()),
                Err(error) => return error,
            }
        }
    }

    /// One attempt to connect.
    pub(crate) async fn attempt(&self, now: UnixSeconds) -> Result<Connected, KeyStoreError> {
        let connection = self.store.connect().await?;
        let identity = identify(&connection, now).await?;
        Ok(Connected { connection, identity })
    }

    fn is(&self, held: &Arc<Connected>) -> bool {
        self.connected.load().as_ref().is_some_and(|now| Arc::ptr_eq(now, held))
    }

    /// Nobody uses this connection any more; the task finds another.
    fn give_up(&self, held: &Arc<Connected>) {
        if self.is(held) {
            self.connected.store(None);
            self.doubted.notify_one();
        }
    }
}

/// Asks a store who it is. Where its memory has just begun, it is told that, for all who come after.
async fn identify(connection: &KeyConnection, now: UnixSeconds) -> Result<Identity, KeyStoreError> {
    let described = connection.describe().await?;
    keeps(&described.when_full)?;
    let place = format!("sigilum1:memory:{}", described.run);
    let who = random::hex::<8>().map_err(|error| KeyStoreError::Refused(error.to_string()))?;
    let mark = connection.settle(&place, &format!("{}:{who}", now.0)).await?;
    let began = mark.split_once(':').and_then(|(began, _)| began.parse().ok()).map(UnixSeconds);
    let began = began.ok_or_else(|| KeyStoreError::Refused(format!("{place} holds something else than ours")))?;
    Ok(Identity { place, mark, began })
}

/// Refuses a store that may forget when it is full, and one that does not say.
fn keeps(when_full: &str) -> Result<(), KeyStoreError> {
    let text = match when_full {
        KEEPS => return Ok(()),
        "" => format!("it does not tell its maxmemory-policy, which must be {KEEPS}"),
        policy => format!("its maxmemory-policy is {policy}: a store that forgets lets replays through; set {KEEPS}"),
    };
    Err(KeyStoreError::Refused(text))
}

/// What is remembered of a nonce: 16 bytes of SHA-256 over key and nonce, the same on every replica without a secret
/// that all of them would have to be given.
fn key(admission: &Admission) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(DOMAIN);
    // Of a fixed length: no two pairs run together to the same bytes.
    hash.update(admission.key.as_bytes());
    hash.update(admission.nonce.as_bytes());
    let hash = hash.finalize();
    PREFIX.iter().chain(hash.iter().take(16)).copied().collect()
}

/// How long the store must remember, by its own clock. The skew once more: the replica that lets the request expire last
/// may be as far behind as we are ahead.
fn life(expires_at: UnixSeconds, now: Now) -> Duration {
    let end = expires_at.0.saturating_add(1).saturating_add(CLOCK_SKEW.as_secs()).saturating_mul(1000);
    Duration::from_millis(end.saturating_sub(now.wall.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::PublicKey;
    use crate::domain::time::MonotonicMillis;
    use crate::domain::time::UnixMillis;

    #[test]
    fn a_nonce_is_one_key_everywhere_and_another_for_another_agent() {
        let admission = |key: u8, nonce: &str| Admission {
            key: PublicKey::new([key; 32]),
            nonce: nonce.to_owned(),
            created: UnixSeconds(1),
        };
        let one = key(&admission(1, "n-1"));
        assert_eq!(one, key(&Admission { created: UnixSeconds(9), ..admission(1, "n-1") }));
        assert_eq!(one.len(), PREFIX.len() + 16);
        assert_ne!(one, key(&admission(1, "n-2")));
        assert_ne!(one, key(&admission(2, "n-1")));
        // Fixed: a version of ours that wrote another key would let through what this one has seen.
        let hex = crate::domain::hex::text(&one);
        assert_eq!(hex, "736967696c756d313a2858610a36d68b38b72bd846cd5ba263");
    }

    #[test]
    fn a_store_that_may_forget_or_does_not_say_is_refused() {
        assert!(keeps("noeviction").is_ok());
        for policy in ["", "allkeys-lru", "noevictio"] {
            assert!(keeps(policy).is_err(), "{policy:?}");
        }
    }

    #[test]
    fn the_store_remembers_longer_than_any_replica_accepts() {
        let now = Now { wall: UnixMillis(10_500), monotonic: MonotonicMillis(0) };
        assert_eq!(life(UnixSeconds(20), now), Duration::from_millis(15_500));
        assert_eq!(life(UnixSeconds(1), now), Duration::ZERO);
    }
}

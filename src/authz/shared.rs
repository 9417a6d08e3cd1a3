//! The replay window of several replicas: one store that all of them ask, behind the window each has of its own.
//!
//! Promises that a nonce admitted here was admitted by no other replica that asks the same store, and that whatever
//! keeps the store from saying so refuses: no connection, no answer in time, a store that forgets. A store that was
//! started anew, or emptied, has forgotten, and so may have one that was promoted, or whose clock has stepped: what was signed
//! until then and a little later is refused, as after a start without a journal. A store whose clock is not ours is not asked.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use sha2::Digest as _;
use sha2::Sha256;
use tokio::sync::Notify;
use tokio::sync::watch;

use crate::domain::decision::Admission;
use crate::domain::decision::DenyReason;
use crate::domain::replay::MAX_AGE_SECONDS;
use crate::domain::replay::mark::Mark;
use crate::domain::replay::store_clock::Reading;
use crate::domain::replay::store_clock::StoreClock;
use crate::domain::time::CLOCK_SKEW;
use crate::domain::time::Now;
use crate::domain::time::UnixMillis;
use crate::domain::time::UnixSeconds;
use crate::domain::time::is_beyond_skew;
use crate::sys::clock::Clock;
use crate::sys::key_store::KeyConnection;
use crate::sys::key_store::KeyStore;
use crate::sys::key_store::KeyStoreError;
use crate::sys::random;
use crate::sys::tasks::Stop;
use crate::wire::state::SHARED_WINDOW;

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
/// For how old a signature a memory remembers at least, in seconds: the default of the setting, so that its first word is
/// the last one nearly everywhere.
const MIN_KEPT: u64 = 300;
/// The one policy of a full store that is none to forget.
const KEEPS: &str = "noeviction";
/// The role of a server that is written to.
const MASTER: &str = "master";
/// Digits of a memory's id that are made for it. Behind them are as many of the line of its server; an earlier version wrote none.
const ID_DIGITS: usize = 16;

/// The shared window; shared by all requests of this process.
#[derive(Debug)]
pub struct SharedWindow {
    store: KeyStore,
    deadline: Duration,
    /// `None`: nobody can be asked.
    connected: ArcSwapOption<Connected>,
    /// Somebody found that the connection, or the store, is not what it was.
    doubted: Notify,
    /// For how old a signature the memory must remember, in seconds: the oldest that was ever accepted here.
    wanted: AtomicU64,
    /// What the memory that is asked is called, once it is known.
    name: watch::Sender<Option<String>>,
    /// Whether the last question of a request went unanswered; for the log, once per outage.
    silent: AtomicBool,
    /// How the store's clock goes. It outlives a connection: the clock may step between two.
    pace: Mutex<Option<Pace>>,
    /// The store's clock is too far from ours.
    apart: AtomicBool,
}

/// How the clock of one server goes, as long as it is the same.
#[derive(Debug)]
struct Pace {
    /// Run and line of the server.
    server: String,
    clock: StoreClock,
    /// The memory that was asked last.
    known: Option<String>,
}

/// A connection, and what it leads to.
#[derive(Debug)]
pub(crate) struct Connected {
    connection: KeyConnection,
    identity: Identity,
    server: String,
}

/// Which memory a store is. Another run or an emptied store is another memory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    /// Where the mark lies.
    place: String,
    mark: Mark,
    /// The mark as it lies there.
    text: String,
}

impl Identity {
    fn new(place: String, mark: Mark) -> Self {
        let text = mark.to_string();
        Self { place, mark, text }
    }

    /// Whether it is the same memory, which may have been told to remember for longer.
    fn is_of(&self, other: &Self) -> bool {
        self.place == other.place && self.mark.id() == other.mark.id()
    }

    /// What admin is told: equal for those who ask the same memory.
    fn name(&self) -> String {
        format!("{SHARED_WINDOW}{}:{}", self.place, self.mark.id())
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
            wanted: AtomicU64::new(MIN_KEPT),
            name: watch::channel(None).0,
            silent: AtomicBool::new(false),
            pace: Mutex::default(),
            apart: AtomicBool::new(false),
        }
    }

    /// Whether it is not asked because its clock and ours are too far apart.
    pub fn is_apart(&self) -> bool {
        self.apart.load(Ordering::Relaxed)
    }

    /// Whether the store can be asked now, as far as is known.
    pub fn is_usable(&self) -> bool {
        self.connected.load().is_some()
    }

    /// Signatures of this age are accepted from now on: the memory must remember for as long.
    pub fn want(&self, max_age: Duration) {
        let wanted = kept_for(max_age);
        self.wanted.fetch_max(wanted, Ordering::Relaxed);
        if self.connected.load().as_ref().is_some_and(|connected| connected.identity.mark.kept() < wanted) {
            self.doubted.notify_one();
        }
    }

    /// Whether requests signed now are still refused: the store's memory has just begun, or does not remember signatures of
    /// this age for as long as it must yet.
    pub fn is_starting(&self, now: UnixSeconds, max_age: Duration) -> bool {
        let (connected, wanted) = (self.connected.load(), self.wanted.load(Ordering::Relaxed).max(kept_for(max_age)));
        connected.as_ref().is_some_and(|connected| {
            let mark = &connected.identity.mark;
            now.0 <= mark.floor() || mark.kept() < wanted
        })
    }

    /// The name of the memory that is asked, once it is known; another when it forgot.
    pub fn name(&self) -> watch::Receiver<Option<String>> {
        self.name.subscribe()
    }

    /// Uses the nonce for all replicas, after the window of this process has. `max_age` is that by which the request was
    /// not too old `now`, when its decision began: whatever held it up since, the store's answer counts for as long alone as
    /// the store remembers longer than it must.
    pub async fn admit<C: Clock>(
        &self,
        admission: &Admission,
        max_age: Duration,
        now: Now,
        clock: &C,
    ) -> Result<(), DenyReason> {
        self.want(max_age);
        let Some(connected) = self.connected.load_full() else { return Err(DenyReason::ReplayStoreUnavailable) };
        let Connected { connection, identity, server } = &*connected;
        let Identity { place, mark, text } = identity;
        if mark.kept() < kept_for(max_age) || !mark.knows(admission.created, now.seconds()) {
            return Err(DenyReason::ReplayWindowStarting);
        }
        let life = life(mark.expires_at(admission.created), now);
        let before = clock.now();
        let asked = connection.first_use(place, &key(admission), life, self.deadline).await;
        let after = clock.now();
        match asked {
            // This process, or the machine, stood still: neither says anything of the store's clock.
            Ok(_) if is_beyond_skew(after.monotonic.since(now.monotonic)) => Err(DenyReason::ReplayStoreUnavailable),
            // It may have forgotten this nonce already, or will too early.
            Ok(told) if self.is_off(server, &Reading { at: told.at, before, after }) => {
                self.give_up(&connected);
                Err(DenyReason::ReplayStoreUnavailable)
            }
            Ok(told) if told.mark.as_ref() == Some(text) => {
                self.silent.store(false, Ordering::Relaxed);
                if told.is_first { Ok(()) } else { Err(DenyReason::ReplayDetected) }
            }
            // Another replica has told it to remember for longer; this nonce may have been for the shorter time.
            Ok(told) if told.mark.as_deref().is_some_and(|held| mark.is_of(held, now.seconds())) => {
                self.doubted.notify_one();
                Err(DenyReason::ReplayWindowStarting)
            }
            // It has been emptied: what it says of this nonce means nothing.
            Ok(_) => {
                self.give_up(&connected);
                Err(DenyReason::ReplayStoreUnavailable)
            }
            Err(error) => {
                match &error {
                    error if error.is_lost() => self.give_up(&connected),
                    // Perhaps it is not written to any more.
                    KeyStoreError::Refused(_) => self.doubted.notify_one(),
                    KeyStoreError::File { .. }
                    | KeyStoreError::Late(_)
                    | KeyStoreError::Unreachable(_)
                    | KeyStoreError::Apart(_) => {}
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
            let is_apart = matches!(ended, KeyStoreError::Apart(_));
            let was_apart = self.apart.swap(is_apart, Ordering::Relaxed);
            let text = ended.to_string();
            // Once per outage and reason: it may last for hours. By how much clocks differ varies.
            if said.as_ref() == Some(&text) || (is_apart && was_apart && said.is_some()) {
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
        let mut ours = match self.attempt(clock).await {
            Ok(ours) => Arc::new(ours),
            Err(error) => return error,
        };
        self.apart.store(false, Ordering::Relaxed);
        self.connected.store(Some(Arc::clone(&ours)));
        let name = ours.identity.name();
        self.name.send_if_modified(|known| known.replace(name.clone()).as_ref() != Some(&name));
        if said.take().is_some() {
            tracing::info!("the shared replay window can be used again");
        }
        loop {
            tokio::select! {
                () = self.doubted.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            match self.identify(&ours.connection, clock).await.map(|(found, _)| found) {
                Ok(found) if !self.is(&ours) || !found.is_of(&ours.identity) => {
                    return KeyStoreError::Refused(
                        "it has forgotten: it was emptied, started anew or promoted, or its clock has stepped"
                            .to_owned(),
                    );
                }
                Ok(found) if found == ours.identity => {}
                Ok(identity) => {
                    let kept_seconds = identity.mark.kept();
                    tracing::info!(kept_seconds, "the shared replay window remembers for longer from now on");
                    let (connection, server) = (ours.connection.clone(), ours.server.clone());
                    ours = Arc::new(Connected { connection, identity, server });
                    self.connected.store(Some(Arc::clone(&ours)));
                }
                Err(error) => return error,
            }
        }
    }

    /// One attempt to connect.
    pub(crate) async fn attempt<C: Clock>(&self, clock: &C) -> Result<Connected, KeyStoreError> {
        let connection = self.store.connect().await?;
        let (identity, server) = self.identify(&connection, clock).await?;
        Ok(Connected { connection, identity, server })
    }

    /// Asks a store who it is, and which server. Where its memory has just begun, or has to remember for longer, it is told
    /// that, for all who come after.
    async fn identify<C: Clock>(
        &self,
        connection: &KeyConnection,
        clock: &C,
    ) -> Result<(Identity, String), KeyStoreError> {
        let before = clock.now();
        let described = connection.describe().await?;
        let reading = Reading { at: described.at, before, after: clock.now() };
        keeps(&described.when_full)?;
        leads(&described.role)?;
        let line = line(&described.line)?;
        let (place, server) = (format!("sigilum1:memory:{}", described.run), format!("{}:{line}", described.run));
        self.look(&server, &reading);
        if let Some(seconds) = reading.apart() {
            return Err(apart(seconds));
        }
        let id = random::hex::<{ ID_DIGITS / 2 }>().map_err(|error| KeyStoreError::Refused(error.to_string()))?;
        let id = format!("{id}{line}");
        let wanted = self.wanted.load(Ordering::Relaxed);
        // By the store's clock, as all who come after compare it.
        let fresh = Mark::begin(&id, up(described.at), wanted).to_string();
        let (held, at) = connection.settle(&place, &fresh).await?;
        let Some(mark) = Mark::read(&held, up(at)) else {
            return Err(KeyStoreError::Refused(format!(
                "its mark {place} is of a later moment than now, or none of ours: a clock was wrong, or somebody else wrote \
                 it; when all clocks are right, empty it or start it anew"
            )));
        };
        let is_known = mark.id().len() == ID_DIGITS || mark.id().ends_with(&line);
        let has_stepped = self.has_stepped(&server, mark.id());
        let mark = if has_stepped || !is_known {
            tracing::warn!(
                place,
                has_stepped,
                "the memory of the shared replay window begins anew, because its clock has stepped or another server was \
                 written to meanwhile: what was signed until now is refused"
            );
            mark.follow(&id, up(at), wanted)
        } else {
            // One of an earlier version does not say of which line it is.
            let bound = match mark.id().len() {
                ID_DIGITS => mark.named(&format!("{}{line}", mark.id())),
                _ => mark,
            };
            if bound.kept() < wanted { bound.raise(up(at), wanted) } else { bound }
        };
        let identity = Identity::new(place, mark);
        if identity.text != held {
            connection.replace(&identity.place, &identity.text).await?;
        }
        if let Some(pace) = &mut *self.pace() {
            pace.known = Some(identity.mark.id().to_owned());
            pace.clock.forget();
        }
        Ok((identity, server))
    }

    fn pace(&self) -> std::sync::MutexGuard<'_, Option<Pace>> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the store's clock; whether it has stepped.
    fn look(&self, server: &str, reading: &Reading) -> bool {
        let mut pace = self.pace();
        let fresh = || Pace { server: server.to_owned(), clock: StoreClock::default(), known: None };
        let known = pace.take().filter(|known| known.server == server);
        pace.insert(known.unwrap_or_else(fresh)).clock.look(reading)
    }

    /// Whether the store's clock has stepped since the memory began that lies there now: nobody else has begun one since.
    fn has_stepped(&self, server: &str, id: &str) -> bool {
        let pace = self.pace();
        let Some(pace) = pace.as_ref().filter(|pace| pace.server == server) else { return false };
        pace.clock.has_stepped() && pace.known.as_ref().is_none_or(|known| known == id)
    }

    /// Whether what a store says now cannot be relied upon for its clock.
    fn is_off(&self, server: &str, reading: &Reading) -> bool {
        let is_apart = reading.apart().is_some();
        if is_apart {
            self.apart.store(true, Ordering::Relaxed);
        }
        self.look(server, reading) || is_apart
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

/// For how long signatures that may be this old must be remembered, in seconds.
fn kept_for(max_age: Duration) -> u64 {
    max_age.as_secs().min(MAX_AGE_SECONDS)
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

/// Refuses a server that only follows another: what is used there it may not know.
fn leads(role: &str) -> Result<(), KeyStoreError> {
    let text = match role {
        MASTER => return Ok(()),
        "" => "it does not tell its role, which must be master".to_owned(),
        role => format!("its role is {role}: only the server that is written to knows what was used"),
    };
    Err(KeyStoreError::Refused(text))
}

/// What of its line tells a server from what it was before it was promoted.
fn line(told: &str) -> Result<String, KeyStoreError> {
    let short = told.get(..ID_DIGITS).filter(|short| short.bytes().all(|byte| byte.is_ascii_hexdigit()));
    short.map(str::to_owned).ok_or_else(|| {
        KeyStoreError::Refused(
            "it does not say which server it is (INFO has no master_replid of hexadecimal digits)".to_owned(),
        )
    })
}

fn apart(seconds: i64) -> KeyStoreError {
    let way = if seconds < 0 { "behind" } else { "ahead" };
    KeyStoreError::Apart(format!("{} s further {way}", seconds.unsigned_abs()))
}

/// The second that has not begun before this moment.
const fn up(at: UnixMillis) -> UnixSeconds {
    UnixSeconds(at.0.div_ceil(1000))
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

/// How long the store must remember, by its own clock. The skew twice more: we may be as far ahead of it as the replica that
/// lets the request expire last is behind it.
fn life(expires_at: UnixSeconds, now: Now) -> Duration {
    let skew = CLOCK_SKEW.as_secs();
    let end = expires_at.0.saturating_add(1).saturating_add(skew).saturating_add(skew).saturating_mul(1000);
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
    fn a_server_that_follows_another_or_names_no_line_is_refused() {
        assert!(leads("master").is_ok() && line("f40c1fc09d4dd15c50c3").is_ok_and(|line| line == "f40c1fc09d4dd15c"));
        assert!(leads("slave").is_err() && leads("").is_err());
        for line in ["", "f40c1fc09d4dd15", "no-hexadecimal-one"].map(line) {
            assert!(line.is_err(), "{line:?}");
        }
    }

    #[test]
    fn the_store_remembers_longer_than_any_replica_accepts() {
        let now = Now { wall: UnixMillis(10_500), monotonic: MonotonicMillis(0) };
        assert_eq!(life(UnixSeconds(20), now), Duration::from_millis(20_500));
        assert_eq!(life(UnixSeconds(1), Now { wall: UnixMillis(30_000), ..now }), Duration::ZERO);
    }
}

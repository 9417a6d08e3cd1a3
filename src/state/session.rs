//! One authz's stream on admin's side: the cursor with its socket.
//!
//! Nothing is queued here. The next message is made when the transport asks for it, from what the
//! authz holds then; who is slow gets fewer and larger steps, or the full state.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Code;
use tonic::Status;
use tonic::Streaming;
use tonic::metadata::MetadataMap;
use tonic::metadata::MetadataValue;

use crate::domain::decision::DenyReason;
use crate::domain::limits::TokenBucket;
use crate::domain::time::MonotonicMillis;
use crate::state::cursor::Cursor;
use crate::state::publisher::Registered;
use crate::state::registration::Counter;
use crate::state::scope::Scope;
use crate::sys::clock::Clock;
use crate::sys::clock::SystemClock;
use crate::sys::inbound::Shown;
use crate::wire::state::REFUSED;
use crate::wire::state::REPLAY_WINDOW;
use crate::wire::state::proto;
use crate::wire::state::proto::state_request::Message;

/// How long an authz may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one waits for others to say that they decide no more for connections it is to decide for, with another replay
/// window. Who says nothing for so long is deaf, or somebody else, and holds nobody up any longer.
const YIELD: Duration = Duration::from_secs(5);
/// Longest name of a node that is kept, in characters.
const MAX_NODE: usize = 64;
/// Longest reason of a refusal that is kept, in characters.
const MAX_REASON: usize = 200;
/// Words a second that are heard of an authz on another host, and how many at once: an acknowledgement for each change, which
/// are fewer and larger where it is slow.
const WORDS: (u32, u32) = (100, 200);
/// Of those the ones that cost us something: reports, of which it sends one a second, and refusals, each of which is
/// answered with the full state.
const COSTLY: (u32, u32) = (5, 10);
/// Between two full states for one that refuses what it is sent: each costs as much as there are approvals.
const FULL_EVERY: Duration = Duration::from_secs(1);
/// What is said over the network to one that must not decide. Whom it clashes with is for our log alone: whoever took over the
/// certificate of one workload learns the names of no other.
const CLASH: &str = "another authz, with another replay window, decides for the same connections: a request could be used at \
                     each; give them one window (replay.shared.url), or run one of them; the log of admin names both";
/// How long one that says more is not heard. What it says meanwhile waits at its end.
const DEAF: Duration = Duration::from_millis(200);
/// Most counters of a report that are kept: there are fewer reasons than that.
const MAX_COUNTERS: usize = 128;

/// One stream.
pub(super) struct Session {
    place: Registered,
    inbound: Streaming<proto::StateRequest>,
    /// What its certificate says; `None`: it is one of ours on this machine.
    shown: Option<Shown>,
    changed: watch::Receiver<u64>,
    closing: watch::Receiver<bool>,
    attention: Attention,
    /// Until when it is not heard.
    deaf_until: Option<Instant>,
    cursor: Cursor,
    registrations: Counter,
    /// Until when it waits for others, where it does.
    waits_until: Option<Instant>,
    /// When the last full state began.
    full_at: Option<Instant>,
    /// Until when it is sent no other, where it refused one.
    paused_until: Option<Instant>,
    /// Set where it is to decide no more.
    leaving: Option<Leaving>,
    ended: bool,
}

/// One that must not decide any more. It is told to hold nothing, and then why: of the end of a stream nobody would know
/// whether it was heard.
struct Leaving {
    reason: String,
    /// It holds nothing.
    heard: bool,
    /// When it is told why in any case.
    until: Instant,
}

impl Session {
    pub(super) fn new(place: Registered, inbound: Streaming<proto::StateRequest>, shown: Option<Shown>) -> Self {
        let (changed, closing) = (place.publisher.changes(), place.publisher.closing());
        let (cursor, registrations) = (Cursor::default(), Counter::default());
        let attention = Attention::full(SystemClock.now().monotonic);
        let deaf_until = None;
        let (waits_until, leaving) = (None, None);
        Self {
            place,
            inbound,
            shown,
            changed,
            closing,
            attention,
            deaf_until,
            cursor,
            registrations,
            waits_until,
            full_at: None,
            paused_until: None,
            leaving,
            ended: false,
        }
    }

    /// The next message for this authz, made when it can be sent. `None` ends the stream.
    pub(super) async fn next(mut self) -> Option<(Result<proto::StateResponse, Status>, Self)> {
        if self.ended {
            return None;
        }
        loop {
            // Marked first: a change that comes while we look is noticed by the wait below.
            self.changed.mark_unchanged();
            // Somebody waits for it, and it says nothing of the state.
            if let Some(registered) = self.registrations.ready() {
                let message = Some(proto::state_response::Message::Registered(registered));
                return Some((Ok(proto::StateResponse { version: None, message }), self));
            }
            if let Err(status) = self.keep_to_scope() {
                self.ended = true;
                return Some((Err(status), self));
            }
            if let Some(message) = self.step() {
                return Some((Ok(message), self));
            }
            if let Err(end) = self.wait().await {
                self.ended = true;
                return end.map(|status| (Err(status), self));
            }
        }
    }

    /// What is to be sent now.
    fn step(&mut self) -> Option<proto::StateResponse> {
        self.paused_until = self.paused_until.filter(|until| *until > Instant::now());
        if self.paused_until.is_some() {
            return None;
        }
        let message = self.cursor.step(&self.place.publisher.published(), SystemClock.now().monotonic)?;
        if matches!(&message.message, Some(proto::state_response::Message::Full(full)) if full.part == 0) {
            self.full_at = Some(Instant::now());
        }
        Some(message)
    }

    /// What it may hold now.
    fn scope(&self) -> Result<Scope, Status> {
        let Self { place, shown, .. } = self;
        place.publisher.scope_of(shown.as_ref()).ok_or_else(|| place.publisher.unnamed(shown.as_ref()))
    }

    /// What it may hold can change at any time.
    fn keep_to_scope(&mut self) -> Result<(), Status> {
        if self.cursor.is_new() {
            return Ok(());
        }
        if let Some(leaving) = &self.leaving {
            let over = leaving.heard || leaving.until <= Instant::now();
            return if over { Err(self.refused(leaving.reason.clone())) } else { Ok(()) };
        }
        let regardless = self.waits_until.is_some_and(|until| until <= Instant::now());
        let scope = match self.place.hold(&self.scope()?, regardless, true) {
            Ok(held) => {
                self.waits_until = held.waits.then(|| self.waits_until.unwrap_or_else(|| Instant::now() + YIELD));
                held.scope
            }
            Err(reason) => {
                self.leaving = Some(Leaving { reason, heard: false, until: Instant::now() + YIELD });
                Scope::default()
            }
        };
        if (self.shown.is_some() || self.leaving.is_some()) && self.cursor.confine(scope.clone()) {
            self.cursor.tell(self.place.give(&scope));
            // What it may not hold any more waits for nothing.
            self.paused_until = None;
            tracing::info!("an authz is sent another set of connections");
        }
        Ok(())
    }

    /// Waits for something to happen: a change, or a word of the authz. `Err(None)`: it is gone.
    async fn wait(&mut self) -> Result<(), Option<Status>> {
        if self.cursor.is_new() {
            let hello = tokio::time::timeout(HELLO_TIMEOUT, self.inbound.next()).await;
            return match hello.map_err(|_| Status::deadline_exceeded("no hello"))? {
                Some(Ok(proto::StateRequest { message: Some(Message::Hello(hello)) })) => {
                    self.greet(hello).await.map_err(Some)
                }
                Some(Ok(_)) => Err(Some(Status::failed_precondition("hello comes first"))),
                Some(Err(_)) | None => Err(None),
            };
        }
        tokio::select! {
            () = async { drop(self.closing.wait_for(|closing| *closing).await) } => Err(None),
            changed = self.changed.changed() => changed.map_err(|_| None),
            () = until(self.waits_until) => Ok(()),
            () = until(self.paused_until) => Ok(()),
            () = until(self.leaving.as_ref().map(|leaving| leaving.until)) => Ok(()),
            () = self.registrations.wait() => Ok(()),
            request = next_word(&mut self.inbound, self.deaf_until) => match request {
                Some(Ok(request)) => {
                    let now = SystemClock.now().monotonic;
                    let heard = self.shown.is_none() || self.attention.is_left(request.message.as_ref(), now);
                    self.deaf_until = (!heard).then(|| Instant::now() + DEAF);
                    self.hear(request).map_err(Some)
                }
                Some(Err(_)) | None => Err(None),
            },
        }
    }

    /// It says who it is.
    async fn greet(&mut self, hello: proto::Hello) -> Result<(), Status> {
        let node: String = hello.node.chars().filter(|letter| !letter.is_control()).take(MAX_NODE).collect();
        let node = match self.shown.as_ref().and_then(|shown| shown.names.first()) {
            Some(name) => format!("{name} ({node})"),
            None => node,
        };
        let scope = self.scope()?;
        if scope.is_empty() {
            tracing::warn!(node, "an authz is sent no connections: its workload has none");
        }
        let certificate = self.shown.as_ref().and_then(|shown| shown.validity);
        self.place.update(|peer| {
            peer.node.clone_from(&node);
            peer.certificate = certificate;
        });
        // No version that does not tell ever served another host.
        if self.shown.is_some() && hello.replay_window.is_empty() {
            let reason = format!("{node} does not say which replay window it has");
            tracing::error!(reason, "an authz was refused");
            return Err(refusal(Code::FailedPrecondition, REPLAY_WINDOW, reason));
        }
        let (_, displaced) = self.place.admit(&hello.replay_window, &scope).map_err(|reason| self.refused(reason))?;
        tracing::info!(node, "an authz has connected");
        if displaced {
            tracing::warn!(node, "it has another replay window than others, which decide for its connections no more");
        }
        let scope = self.given().await?;
        let held = hello.holds.unwrap_or_default();
        self.place.publisher.note_held(&node, &held, self.shown.is_some());
        self.cursor.tell(self.place.give(&scope));
        if self.shown.is_some() {
            self.cursor.confine(scope);
        }
        let resumes = self.cursor.hello(held.clone(), &self.place.publisher.published());
        self.place.update(|peer| {
            peer.applied = resumes.then_some(held);
        });
        Ok(())
    }

    /// What it begins with: all it is to decide for, once nobody else may be deciding for that. With less it would be ready.
    async fn given(&mut self) -> Result<Scope, Status> {
        let until = Instant::now() + YIELD;
        loop {
            self.changed.mark_unchanged();
            let late = until <= Instant::now();
            let held = self.place.hold(&self.scope()?, late, false).map_err(|reason| self.refused(reason))?;
            if late {
                tracing::warn!(
                    "an authz does not say that it decides no more for connections that another is given now"
                );
            }
            if !held.waits {
                return Ok(held.scope);
            }
            tokio::select! {
                () = async { drop(self.closing.wait_for(|closing| *closing).await) } => {
                    return Err(Status::unavailable("admin ends"));
                }
                _ = self.changed.changed() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// Its replay window does not go with that of another.
    fn refused(&self, reason: String) -> Status {
        tracing::error!(reason, "an authz was refused");
        let told = if self.shown.is_some() { CLASH.to_owned() } else { reason };
        refusal(Code::FailedPrecondition, REPLAY_WINDOW, told)
    }

    fn hear(&mut self, request: proto::StateRequest) -> Result<(), Status> {
        match request.message {
            Some(Message::Hello(_)) => Err(Status::failed_precondition("hello comes once")),
            Some(Message::Applied(version)) => {
                if let Some(scope) = self.cursor.applied() {
                    if let Some(leaving) = &mut self.leaving {
                        leaving.heard = scope.is_empty();
                    }
                    self.place.heard(scope);
                }
                self.place.update(|peer| {
                    peer.applied = Some(version);
                    peer.refused = None;
                });
                Ok(())
            }
            Some(Message::Rejected(rejected)) => {
                let why: String =
                    rejected.reason.chars().filter(|letter| !letter.is_control()).take(MAX_REASON).collect();
                self.place.publisher.note_rejected(&why);
                self.place.update(|peer| peer.refused = Some(why));
                let version = rejected.version.map_or(u64::MAX, |version| version.version);
                self.cursor
                    .refused(version)
                    .map_err(|_| Status::failed_precondition("what was sent was refused repeatedly"))?;
                if self.cursor.is_wanting() {
                    self.paused_until = self.full_at.map(|at| at + FULL_EVERY);
                }
                Ok(())
            }
            Some(Message::Report(mut report)) => {
                if report.denied.len() > MAX_COUNTERS {
                    report.denied.clear();
                }
                report.denied = known(report.denied);
                if report.decision_times.len() > MAX_COUNTERS {
                    report.decision_times.clear();
                }
                if report.spans.len() > MAX_COUNTERS {
                    report.spans.clear();
                }
                self.place.update(|peer| peer.report = Some(report));
                Ok(())
            }
            Some(Message::Register(register)) => {
                if self.leaving.is_some() {
                    return Ok(());
                }
                // It decides for nobody else's connections.
                if !self
                    .place
                    .hold(&self.scope()?, false, true)
                    .map_err(|reason| self.refused(reason))?
                    .scope
                    .covers(&register.service)
                {
                    return Err(Status::permission_denied("a registration for a connection of others"));
                }
                self.registrations.take(self.place.publisher.office(), register);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// The next word of an authz, not before it is heard again.
async fn next_word(
    inbound: &mut Streaming<proto::StateRequest>,
    deaf_until: Option<Instant>,
) -> Option<Result<proto::StateRequest, Status>> {
    if let Some(until) = deaf_until {
        tokio::time::sleep_until(until).await;
    }
    inbound.next().await
}

/// Returns then; never, where there is no such moment.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// How much one authz is heard: whoever has the certificate of one workload must not keep us from all others.
#[derive(Debug)]
struct Attention {
    words: TokenBucket,
    costly: TokenBucket,
}

impl Attention {
    const fn full(now: MonotonicMillis) -> Self {
        Self { words: TokenBucket::full(WORDS.1, now), costly: TokenBucket::full(COSTLY.1, now) }
    }

    /// Whether one more word is within what it may say.
    fn is_left(&mut self, word: Option<&Message>, now: MonotonicMillis) -> bool {
        let costly = match word {
            Some(Message::Report(_) | Message::Rejected(_)) => true,
            Some(Message::Hello(_) | Message::Applied(_) | Message::Register(_)) | None => false,
        };
        let words = self.words.take(WORDS.0, WORDS.1, now);
        words && (!costly || self.costly.take(COSTLY.0, COSTLY.1, now))
    }
}

/// Refusals by reason, those for what is no reason together: they become names of counters.
fn known(told: HashMap<String, u64>) -> HashMap<String, u64> {
    let mut known = HashMap::new();
    for (code, count) in told {
        let sum: &mut u64 = known.entry(DenyReason::label_told(&code).to_owned()).or_default();
        *sum = sum.saturating_add(count);
    }
    known
}

/// The stream ends, and its authz must not go on deciding.
pub(super) fn refusal(code: Code, why: &'static str, reason: String) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert(REFUSED, MetadataValue::from_static(why));
    Status::with_metadata(code, reason, metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_reports_is_not_heard_and_what_an_authz_says_of_itself_is() {
        let (report, applied) =
            (Message::Report(proto::Report::default()), Message::Applied(proto::StateVersion::default()));
        let at = |ms: u64| MonotonicMillis((1 << 40) + ms);
        // An hour of an honest one: two reports at the start, then one a second, and fifty changes.
        let mut honest = Attention::full(at(0));
        assert!(honest.is_left(Some(&report), at(0)));
        for second in 0..3600 {
            assert!(honest.is_left(Some(&report), at(second * 1000)));
            assert!((0..50).all(|change| honest.is_left(Some(&applied), at(second * 1000 + change * 10))));
        }
        // A thousand of each at once.
        let mut flood = Attention::full(at(0));
        assert_eq!((0..1000).filter(|_| flood.is_left(Some(&report), at(0))).count(), 10);
        let mut flood = Attention::full(at(0));
        assert_eq!((0..1000).filter(|_| flood.is_left(Some(&applied), at(0))).count(), 200);
        assert!(flood.is_left(None, at(10)), "it is heard again");
    }
}

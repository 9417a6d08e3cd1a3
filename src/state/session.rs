//! One authz's stream on admin's side: the cursor with its socket.
//!
//! Nothing is queued here. The next message is made when the transport asks for it, from what the
//! authz holds then; who is slow gets fewer and larger steps, or the full state.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::watch;
use tonic::Code;
use tonic::Status;
use tonic::Streaming;
use tonic::metadata::MetadataMap;
use tonic::metadata::MetadataValue;

use crate::state::cursor::Cursor;
use crate::state::publisher::Registered;
use crate::state::registration::Counter;
use crate::sys::clock::Clock;
use crate::sys::clock::SystemClock;
use crate::sys::inbound::Shown;
use crate::wire::state::REFUSED;
use crate::wire::state::REPLAY_WINDOW;
use crate::wire::state::proto;
use crate::wire::state::proto::state_request::Message;

/// How long an authz may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest name of a node that is kept, in characters.
const MAX_NODE: usize = 64;
/// Longest reason of a refusal that is kept, in characters.
const MAX_REASON: usize = 200;
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
    cursor: Cursor,
    registrations: Counter,
    ended: bool,
}

impl Session {
    pub(super) fn new(place: Registered, inbound: Streaming<proto::StateRequest>, shown: Option<Shown>) -> Self {
        let (changed, closing) = (place.publisher.changes(), place.publisher.closing());
        let (cursor, registrations) = (Cursor::default(), Counter::default());
        Self { place, inbound, shown, changed, closing, cursor, registrations, ended: false }
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
            let message = self.cursor.step(&self.place.publisher.published(), SystemClock.now().monotonic);
            if let Some(message) = message {
                return Some((Ok(message), self));
            }
            if let Err(end) = self.wait().await {
                self.ended = true;
                return end.map(|status| (Err(status), self));
            }
        }
    }

    /// What it may hold can change at any time.
    fn keep_to_scope(&mut self) -> Result<(), Status> {
        if self.shown.is_none() || self.cursor.is_new() {
            return Ok(());
        }
        let scope = self.place.publisher.scope_of(self.shown.as_ref());
        if self.cursor.confine(scope.clone()) {
            tracing::info!("an authz is sent another set of connections");
            self.place.move_to(&scope).map_err(refused)?;
        }
        Ok(())
    }

    /// Waits for something to happen: a change, or a word of the authz. `Err(None)`: it is gone.
    async fn wait(&mut self) -> Result<(), Option<Status>> {
        if self.cursor.is_new() {
            let hello = tokio::time::timeout(HELLO_TIMEOUT, self.inbound.next()).await;
            return match hello {
                Ok(Some(Ok(request))) => self.hear(request).map_err(Some),
                Ok(Some(Err(_)) | None) => Err(None),
                Err(_) => Err(Some(Status::deadline_exceeded("no hello"))),
            };
        }
        tokio::select! {
            () = async { drop(self.closing.wait_for(|closing| *closing).await) } => Err(None),
            changed = self.changed.changed() => changed.map_err(|_| None),
            () = self.registrations.wait() => Ok(()),
            request = self.inbound.next() => match request {
                Some(Ok(request)) => self.hear(request).map_err(Some),
                Some(Err(_)) | None => Err(None),
            },
        }
    }

    fn hear(&mut self, request: proto::StateRequest) -> Result<(), Status> {
        match request.message {
            Some(Message::Hello(hello)) if self.cursor.is_new() => {
                let node: String = hello.node.chars().filter(|letter| !letter.is_control()).take(MAX_NODE).collect();
                let node = match self.shown.as_ref().and_then(|shown| shown.names.first()) {
                    Some(name) => format!("{name} ({node})"),
                    None => node,
                };
                let scope = self.place.publisher.scope_of(self.shown.as_ref());
                if scope.is_empty() {
                    tracing::warn!(
                        node,
                        "an authz is sent nothing: no workload with connections has a name of its certificate"
                    );
                }
                let certificate = self.shown.as_ref().and_then(|shown| shown.validity);
                self.place.update(|peer| {
                    peer.node.clone_from(&node);
                    peer.certificate = certificate;
                });
                // No version that does not tell ever served another host.
                if self.shown.is_some() && hello.replay_window.is_empty() {
                    return Err(refused(format!("{node} does not say which replay window it has")));
                }
                self.place.admit(&hello.replay_window, &scope).map_err(refused)?;
                tracing::info!(node, "an authz has connected");
                let held = hello.holds.unwrap_or_default();
                if self.shown.is_some() {
                    self.cursor.confine(scope);
                }
                let resumes = self.cursor.hello(held.clone(), &self.place.publisher.published());
                self.place.update(|peer| {
                    peer.applied = resumes.then_some(held);
                });
                Ok(())
            }
            Some(_) | None if self.cursor.is_new() => Err(Status::failed_precondition("hello comes first")),
            Some(Message::Hello(_)) => Err(Status::failed_precondition("hello comes once")),
            Some(Message::Applied(version)) => {
                self.cursor.applied();
                self.place.update(|peer| {
                    peer.applied = Some(version);
                    peer.refused = None;
                });
                Ok(())
            }
            Some(Message::Rejected(rejected)) => {
                let why = rejected.reason.chars().filter(|letter| !letter.is_control()).take(MAX_REASON).collect();
                self.place.update(|peer| peer.refused = Some(why));
                tracing::warn!(reason = rejected.reason, "an authz refused a state message");
                let version = rejected.version.map_or(u64::MAX, |version| version.version);
                self.cursor
                    .refused(version)
                    .map_err(|_| Status::failed_precondition("the full state was refused repeatedly"))
            }
            Some(Message::Report(mut report)) => {
                if report.denied.len() > MAX_COUNTERS {
                    report.denied.clear();
                }
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
                // It decides for nobody else's connections.
                if !self.place.publisher.scope_of(self.shown.as_ref()).covers(&register.service) {
                    return Err(Status::permission_denied("a registration for a connection of others"));
                }
                self.registrations.take(self.place.publisher.office(), register);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// The stream ends, and its authz must not go on deciding.
fn refused(reason: String) -> Status {
    tracing::error!(reason, "an authz was refused");
    let mut metadata = MetadataMap::new();
    metadata.insert(REFUSED, MetadataValue::from_static(REPLAY_WINDOW));
    Status::with_metadata(Code::FailedPrecondition, reason, metadata)
}

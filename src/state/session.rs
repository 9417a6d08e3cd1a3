//! One authz's stream as admin sees it: what it holds, and what it is to be sent next.
//!
//! Nothing is queued here. The next message is made when the transport asks for it, from what the
//! authz holds then; who is slow gets fewer and larger steps, or the full state.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::watch;
use tonic::Status;
use tonic::Streaming;

use crate::state::published::FullParts;
use crate::state::published::Step;
use crate::state::publisher::Registered;
use crate::sys::clock::Clock;
use crate::sys::clock::SystemClock;
use crate::wire::state::proto;
use crate::wire::state::proto::state_request::Message;

/// How long an authz may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How often in a row it may refuse the full state before the stream is ended; it will come again.
const MAX_REJECTED: u32 = 3;
/// Longest name of a node that is kept, in characters.
const MAX_NODE: usize = 64;
/// Most counters of a report that are kept: there are fewer reasons than that.
const MAX_COUNTERS: usize = 128;

/// One stream.
pub(super) struct Session {
    place: Registered,
    inbound: Streaming<proto::StateRequest>,
    changed: watch::Receiver<u64>,
    phase: Phase,
    /// The newest confirmation this authz has been sent.
    confirmed: u64,
    rejected: u32,
}

/// Where the stream stands.
enum Phase {
    /// Waiting for the first message.
    Hello,
    /// It holds this version, or will when it has read what was sent.
    Holds(proto::StateVersion),
    /// It needs the full state.
    Wanting,
    /// It is being sent the full state.
    Sending(Box<FullParts>),
    /// Nothing more is said.
    Ended,
}

impl Session {
    pub(super) fn new(place: Registered, inbound: Streaming<proto::StateRequest>) -> Self {
        let changed = place.publisher.watch();
        Self { place, inbound, changed, phase: Phase::Hello, confirmed: 0, rejected: 0 }
    }

    /// The next message for this authz, made when it can be sent. `None` ends the stream.
    pub(super) async fn next(mut self) -> Option<(Result<proto::StateResponse, Status>, Self)> {
        loop {
            self.changed.mark_unchanged();
            match self.step() {
                Ok(Some(message)) => return Some((Ok(message), self)),
                Ok(None) => {}
                Err(status) => {
                    self.phase = Phase::Ended;
                    return Some((Err(status), self));
                }
            }
            if let Err(end) = self.wait().await {
                let status = end?;
                self.phase = Phase::Ended;
                return Some((Err(status), self));
            }
        }
    }

    /// What can be said right now.
    fn step(&mut self) -> Result<Option<proto::StateResponse>, Status> {
        let now = SystemClock.now().monotonic;
        loop {
            match &mut self.phase {
                Phase::Hello => return Ok(None),
                Phase::Ended => return Err(Status::cancelled("the stream has ended")),
                Phase::Wanting => {
                    let parts = self.place.publisher.published().full(now);
                    self.confirmed = parts.confirmations();
                    self.phase = Phase::Sending(Box::new(parts));
                }
                Phase::Sending(parts) => match parts.next() {
                    Some(part) => return Ok(Some(part)),
                    None => self.phase = Phase::Holds(parts.version().clone()),
                },
                Phase::Holds(held) => {
                    let published = self.place.publisher.published();
                    match published.delta_from(held, now) {
                        Step::Delta(delta) => {
                            drop(published);
                            if let Some(version) = &delta.version {
                                *held = version.clone();
                            }
                            return Ok(Some(delta));
                        }
                        Step::UpToDate => {
                            let Some((confirm, number)) = published.confirmations_since(self.confirmed, now) else {
                                return Ok(None);
                            };
                            drop(published);
                            self.confirmed = number;
                            return Ok(Some(confirm));
                        }
                        Step::Full => {
                            drop(published);
                            self.phase = Phase::Wanting;
                        }
                    }
                }
            }
        }
    }

    /// Waits for something to happen: a change, or a word of the authz. `Err(None)`: it is gone.
    async fn wait(&mut self) -> Result<(), Option<Status>> {
        if matches!(self.phase, Phase::Ended) {
            return Err(None);
        }
        if matches!(self.phase, Phase::Hello) {
            let hello = tokio::time::timeout(HELLO_TIMEOUT, self.inbound.next()).await;
            return match hello {
                Ok(Some(Ok(request))) => self.hear(request).map_err(Some),
                Ok(Some(Err(_)) | None) => Err(None),
                Err(_) => Err(Some(Status::deadline_exceeded("no hello"))),
            };
        }
        tokio::select! {
            changed = self.changed.changed() => changed.map_err(|_| None),
            request = self.inbound.next() => match request {
                Some(Ok(request)) => self.hear(request).map_err(Some),
                Some(Err(_)) | None => Err(None),
            },
        }
    }

    fn hear(&mut self, request: proto::StateRequest) -> Result<(), Status> {
        match (request.message, &self.phase) {
            (Some(Message::Hello(hello)), Phase::Hello) => {
                let node: String = hello.node.chars().filter(|letter| !letter.is_control()).take(MAX_NODE).collect();
                tracing::info!(node, "an authz has connected");
                let held = hello.holds.unwrap_or_default();
                let resumes = self.place.publisher.published().may_resume(&held);
                self.place.update(|peer| {
                    peer.node = node;
                    peer.applied = resumes.then(|| held.clone());
                });
                self.phase = if resumes { Phase::Holds(held) } else { Phase::Wanting };
                Ok(())
            }
            (_, Phase::Hello) | (Some(Message::Hello(_)), _) => {
                Err(Status::failed_precondition("hello is the first message, and the only one"))
            }
            (Some(Message::Applied(version)), _) => {
                self.rejected = 0;
                self.place.update(|peer| peer.applied = Some(version));
                Ok(())
            }
            (Some(Message::Rejected(rejected)), _) => {
                self.rejected = self.rejected.saturating_add(1);
                tracing::warn!(reason = rejected.reason, count = self.rejected, "an authz refused a state message");
                if self.rejected >= MAX_REJECTED {
                    return Err(Status::failed_precondition("the full state was refused repeatedly"));
                }
                self.phase = Phase::Wanting;
                Ok(())
            }
            (Some(Message::Report(mut report)), _) => {
                if report.denied.len() > MAX_COUNTERS {
                    report.denied.clear();
                }
                self.place.update(|peer| peer.report = Some(report));
                Ok(())
            }
            (None, _) => Ok(()),
        }
    }
}

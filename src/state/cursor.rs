//! What one authz holds, and what it is to be sent next: the part of a stream that needs no socket.

use crate::domain::time::MonotonicMillis;
use crate::state::full::FullParts;
use crate::state::published::Published;
use crate::state::published::Step;
use crate::state::scope::Scope;
use crate::state::tenure::Floors;
use crate::wire::state::proto;

/// How often in a row an authz may refuse what it is sent before the stream is ended; it will come again.
const MAX_REJECTED: u32 = 3;

/// One authz, as admin sees it.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    phase: Phase,
    /// What it may hold, where that is not everything for ever.
    scope: Option<Scope>,
    /// What it is told of the connections it is given.
    floors: Floors,
    /// The newest confirmation this authz has been sent.
    confirmed: u64,
    /// The version of the last full state it was sent.
    full: Option<u64>,
    /// How often in a row that was refused.
    rejected: u32,
    /// How many messages it was sent that it answers, one answer each, and how many it has answered.
    sent: u64,
    answered: u64,
    /// Whether it has refused one. Then it passes over others, and nobody knows any more which answer is to which.
    has_refused: bool,
    /// The answer that says that it holds this and nothing else: the one to the last full state.
    owed: Option<(u64, Scope)>,
}

/// Where the stream stands.
#[derive(Debug, Default)]
enum Phase {
    /// Waiting for the first message.
    #[default]
    Hello,
    /// It holds this version, or will when it has read what was sent.
    Holds(proto::StateVersion),
    /// It needs the full state.
    Wanting,
    /// It is being sent the full state.
    Sending(Box<FullParts>),
}

/// The authz keeps refusing the full state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hopeless;

impl Cursor {
    /// Whether hello has not come yet.
    pub(super) const fn is_new(&self) -> bool {
        matches!(self.phase, Phase::Hello)
    }

    /// Whether the full state is what it is sent next.
    pub(super) const fn is_wanting(&self) -> bool {
        matches!(self.phase, Phase::Wanting)
    }

    /// The authz says what it holds. Returns whether that can be built upon: not where it may have been allowed something
    /// else when it was sent that, and not where there is something to be told of what it holds.
    pub(super) fn hello(&mut self, held: proto::StateVersion, published: &Published) -> bool {
        let resumes = self.scope.is_none() && self.floors.are_none() && published.may_resume(&held);
        self.phase = if resumes { Phase::Holds(held) } else { Phase::Wanting };
        resumes
    }

    /// From now on it may hold this; `true` where that is something else than before. It is then sent the full state, in
    /// which what it may not hold any more is missing.
    pub(super) fn confine(&mut self, scope: Scope) -> bool {
        if self.scope.as_ref() == Some(&scope) {
            return false;
        }
        self.scope = Some(scope);
        if !self.is_new() {
            self.phase = Phase::Wanting;
        }
        true
    }

    /// What it is to be told from now on of the connections it is given.
    pub(super) fn tell(&mut self, floors: Floors) {
        self.floors = floors;
    }

    /// It has applied what it was sent. What it may be deciding for since then, where it was the last full state.
    pub(super) fn applied(&mut self) -> Option<Scope> {
        self.rejected = 0;
        self.answered = self.answered.saturating_add(1).min(self.sent);
        let (_, held) = self.owed.take_if(|(number, _)| *number <= self.answered && !self.has_refused)?;
        // It may have been told of more since, which is on its way.
        Some(self.scope.as_ref().map_or(Scope::Everything, |scope| held.with(scope)))
    }

    /// It has refused what would have led it to `version`, and waits for the full state.
    pub(super) fn refused(&mut self, version: u64) -> Result<(), Hopeless> {
        self.has_refused = true;
        // Said before the full state that is on its way to it now, or will be.
        if self.full.is_some_and(|full| version < full) || self.is_wanting() {
            return Ok(());
        }
        // Also of what it was never sent: whoever makes up a version does not get the full state for it without end.
        self.rejected = self.rejected.saturating_add(1);
        self.phase = Phase::Wanting;
        if self.rejected >= MAX_REJECTED { Err(Hopeless) } else { Ok(()) }
    }

    /// What it is to be sent now; `None`: nothing until something changes.
    pub(super) fn step(&mut self, published: &Published, now: MonotonicMillis) -> Option<proto::StateResponse> {
        let scope = self.scope.as_ref().unwrap_or(&Scope::Everything);
        let told = (scope, &self.floors);
        loop {
            match &mut self.phase {
                Phase::Hello => return None,
                Phase::Wanting => {
                    let parts = published.full(told, now);
                    self.confirmed = parts.confirmations();
                    self.full = Some(parts.version().version);
                    self.phase = Phase::Sending(Box::new(parts));
                }
                Phase::Sending(parts) => match parts.next() {
                    Some(part) => {
                        if is_last(&part) {
                            self.sent = self.sent.saturating_add(1);
                            self.owed = Some((self.sent, scope.clone()));
                        }
                        return Some(part);
                    }
                    None => self.phase = Phase::Holds(parts.version().clone()),
                },
                Phase::Holds(held) => match published.delta_from(held, told, now) {
                    Step::Delta(delta) => {
                        if let Some(version) = &delta.version {
                            *held = version.clone();
                        }
                        self.sent = self.sent.saturating_add(1);
                        return Some(*delta);
                    }
                    Step::UpToDate => {
                        let (confirm, number) = published.confirmations_since(self.confirmed, scope, now)?;
                        self.confirmed = number;
                        return Some(confirm);
                    }
                    Step::Full => self.phase = Phase::Wanting,
                },
            }
        }
    }
}

/// Whether with this part a full state is whole.
const fn is_last(part: &proto::StateResponse) -> bool {
    matches!(&part.message, Some(proto::state_response::Message::Full(full)) if full.last)
}

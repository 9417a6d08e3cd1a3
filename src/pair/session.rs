//! A session with the control plane as a state machine: what happened goes in, what to do comes out.
//!
//! It holds when to connect and in which form, which requests are under way, when to send a sign of life and when the
//! other side gave none for too long, and what ends the session for good. It knows no socket, no clock and no
//! randomness: each event comes with a [`Moment`].

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::domain::secret::Secret;
use crate::domain::time::MonotonicMillis;
use crate::pair::allow;
use crate::pair::allow::Allowed;
use crate::wire::pairing;
use crate::wire::pairing::Command;
use crate::wire::pairing::FromBridge;
pub use crate::wire::pairing::GATEWAY_UNREACHABLE;
use crate::wire::pairing::Relayed;
use crate::wire::pairing::Terminal;
use crate::wire::pairing::ToBridge;

/// Requests to the admin API at a time.
pub const MAX_RELAYS: usize = pairing::MAX_COMMANDS;
/// Shortest and longest time both ends have to show that they are well, after a refusal nobody knows.
const PROBE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));
/// How much later than that whoever probes may say so.
const PROBE_GRACE: Duration = Duration::from_secs(1);
/// Longest pause between two attempts to connect, unless the shortest is set above it.
pub const MAX_PAUSE: Duration = Duration::from_secs(60);
/// A connection that lasted this long was a good one: the pauses begin anew after it.
const STEADY: Duration = Duration::from_secs(10);
/// How long requests under way may take to end once told to stop.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Close code of an ordinary end (RFC 6455 section 7.4.1).
const NORMAL: u16 = 1000;

/// How fast things go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Pause before the first attempt after a connection was lost; it doubles with each that fails.
    pub reconnect: Duration,
    /// How long an attempt may take.
    pub connect_timeout: Duration,
    /// Between two signs of life.
    pub heartbeat: Duration,
    /// How long the gateway may take to answer a request.
    pub relay_timeout: Duration,
}

/// When something happened, and a number that is drawn anew for each event.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The time.
    pub now: MonotonicMillis,
    /// Random, 0 to 65535.
    pub chance: u16,
}

/// Names one relayed request between the session and whoever carries it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// Where the pair code stands in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In a header of its own.
    Header,
    /// In the address, for control planes that look nowhere else.
    Query,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The socket is open.
    Opened,
    /// Something came through it; `None` is a sign of life and no frame.
    Heard(Option<ToBridge>),
    /// It is closed: code and reason of the other side, or 1006 and what broke.
    Closed {
        /// RFC 6455 section 7.4.
        code: u16,
        /// What was said.
        reason: String,
    },
    /// The handshake was answered with something else than a socket.
    Refused {
        /// HTTP status.
        status: u16,
        /// The body, as far as it was read.
        body: String,
    },
    /// Nobody could be reached.
    ConnectFailed(String),
    /// Whether both ends are well: what was asked for by [`Action::Probe`].
    Probed(bool),
    /// The time of [`Session::timer`] has come.
    Timer,
    /// The gateway answered, or could not.
    Answered(Ticket, Answer),
    /// Told to stop.
    Stop,
}

/// What to do.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Connect after a pause.
    Connect {
        /// How long.
        after: Duration,
        /// In which form.
        form: Form,
    },
    /// Give up the attempt or the probe that is being made, or drop the socket without a word.
    Drop,
    /// Look whether API, pairing route and gateway are well; to come back as [`Event::Probed`].
    Probe {
        /// How long they have.
        within: Duration,
    },
    /// Send a frame.
    Send(FromBridge),
    /// Ask the gateway; its answer is to come back as [`Event::Answered`].
    Relay(Relay),
    /// Nobody waits for this answer any more.
    Forget(Ticket),
    /// Close the socket.
    Close {
        /// RFC 6455 section 7.4.
        code: u16,
        /// For the other side.
        reason: &'static str,
    },
    /// Tell the person.
    Say(Notice),
    /// It is over; nothing follows.
    End(End),
}

/// A request to the gateway's admin API.
#[derive(Debug, PartialEq)]
pub struct Relay {
    /// Names it.
    pub ticket: Ticket,
    /// Method and path.
    pub allowed: Allowed,
    /// Headers to send beside those of the bridge.
    pub headers: Vec<(&'static str, String)>,
    /// Headers that hold a token the request came with; the bridge adds its own where there is none.
    pub tokens: Vec<(&'static str, Secret)>,
    /// May hold a secret.
    pub body: Option<Secret>,
}

/// What came of a [`Relay`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status of the gateway, or of ours where it gave none.
    pub status: u16,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
    /// `None` = empty.
    pub body: Option<String>,
    /// Why there is no answer of the gateway.
    pub error: Option<String>,
}

impl Answer {
    /// One that is ours: the gateway gave none.
    pub fn failed(status: u16, error: impl Into<String>) -> Self {
        Self { status, headers: BTreeMap::new(), body: None, error: Some(error.into()) }
    }
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Told to.
    Stopped,
    /// The control plane will not take it again.
    Terminal(Terminal),
    /// The same, in words that are none of ours: HTTP status.
    Refused(u16),
    /// Another bridge has it now.
    Replaced,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody could be reached.
    Unreachable(String),
    /// No answer in time.
    Late(Duration),
    /// Another bridge is connected with this session.
    Occupied,
    /// Something else answered, or the control plane has a problem: HTTP status.
    Refused(u16),
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(formatter, "cannot connect: {why}"),
            Self::Late(after) => write!(formatter, "cannot connect: no answer within {} ms", after.as_millis()),
            Self::Occupied => formatter
                .write_str("another bridge of this session is connected already, perhaps on this machine (HTTP 409)"),
            Self::Refused(status) => write!(formatter, "the pairing route answers HTTP {status}"),
        }
    }
}

/// What a person may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The socket is open; `first`: for the first time.
    Open {
        /// Whether it never was before.
        first: bool,
    },
    /// It is closed.
    Closed {
        /// RFC 6455 section 7.4.
        code: u16,
        /// What was said.
        reason: String,
    },
    /// There is no connection, and when the next attempt is made. The same trouble is told once.
    Trouble(Trouble, Duration),
    /// This control plane takes the pair code in the address alone.
    CodeInAddress,
}

#[derive(Debug)]
enum Phase {
    /// An attempt is being made, or waits for its time.
    Connecting {
        deadline: MonotonicMillis,
    },
    /// Refused with this status, in words that are none of ours: are both ends well?
    Probing {
        status: u16,
        deadline: MonotonicMillis,
    },
    Open {
        since: MonotonicMillis,
        heard: MonotonicMillis,
        ping: MonotonicMillis,
    },
    Over,
}

#[derive(Debug)]
struct Pending {
    /// `None`: the connection it came by is gone.
    request_id: Option<String>,
    deadline: MonotonicMillis,
}

/// The state.
#[derive(Debug)]
pub struct Session {
    pace: Pace,
    phase: Phase,
    form: Form,
    /// Attempts since the last good connection.
    attempts: u32,
    opened_before: bool,
    told: Option<Trouble>,
    next_ticket: u64,
    pending: BTreeMap<Ticket, Pending>,
    /// Told to stop: until when requests under way are waited for.
    stopping: Option<MonotonicMillis>,
}

impl Session {
    /// A session that begins, and what to do first.
    pub fn begin(pace: Pace, moment: Moment) -> (Self, Vec<Action>) {
        let session = Self {
            pace,
            phase: Phase::Connecting { deadline: later(moment.now, pace.connect_timeout) },
            form: Form::Header,
            attempts: 0,
            opened_before: false,
            told: None,
            next_ticket: 0,
            pending: BTreeMap::new(),
            stopping: None,
        };
        (session, vec![Action::Connect { after: Duration::ZERO, form: Form::Header }])
    }

    /// When to send [`Event::Timer`] at the latest; `None` where there is nothing to wait for.
    pub fn timer(&self) -> Option<MonotonicMillis> {
        let phase = match self.phase {
            Phase::Connecting { deadline } | Phase::Probing { deadline, .. } => Some(deadline),
            Phase::Open { heard, ping, .. } => Some(ping.min(later(heard, self.patience()))),
            Phase::Over => return None,
        };
        let pending = self.pending.values().map(|pending| pending.deadline).min();
        [phase, pending, self.stopping].into_iter().flatten().min()
    }

    /// How long the other side may give no sign of life: two heartbeats, and half of one for its way.
    fn patience(&self) -> Duration {
        self.pace.heartbeat.saturating_mul(5) / 2
    }

    /// What follows from an event.
    pub fn on(&mut self, event: Event, moment: Moment) -> Vec<Action> {
        let mut actions = Vec::new();
        if matches!(self.phase, Phase::Over) {
            return actions;
        }
        match event {
            Event::Opened => self.opened(moment, &mut actions),
            Event::Heard(frame) => self.heard(frame, moment, &mut actions),
            Event::Closed { code, reason } => self.closed(code, reason, moment, &mut actions),
            Event::Refused { status, body } => self.refused(status, &body, moment, &mut actions),
            Event::ConnectFailed(why) => self.retry(Trouble::Unreachable(why), moment, &mut actions),
            Event::Probed(well) => self.probed(well, moment, &mut actions),
            Event::Timer => self.time_passed(moment, &mut actions),
            Event::Answered(ticket, answer) => self.answered(ticket, answer, &mut actions),
            Event::Stop => self.stop(moment, &mut actions),
        }
        actions
    }

    fn opened(&mut self, moment: Moment, actions: &mut Vec<Action>) {
        let now = moment.now;
        self.phase = Phase::Open { since: now, heard: now, ping: later(now, self.pace.heartbeat) };
        self.told = None;
        actions.push(Action::Say(Notice::Open { first: !self.opened_before }));
        self.opened_before = true;
    }

    fn heard(&mut self, frame: Option<ToBridge>, moment: Moment, actions: &mut Vec<Action>) {
        let Phase::Open { heard, .. } = &mut self.phase else { return };
        *heard = moment.now;
        match frame {
            Some(ToBridge::Ping) => actions.push(Action::Send(FromBridge::Pong)),
            Some(ToBridge::Command(command)) => self.command(command, moment, actions),
            Some(ToBridge::Pong) | None => {}
        }
    }

    fn command(&mut self, command: Command, moment: Moment, actions: &mut Vec<Action>) {
        let Command { request_id, method, path, headers, body } = command;
        let is_twin = |pending: &Pending| pending.request_id.as_ref() == Some(&request_id);
        if self.pending.values().any(is_twin) {
            // The one under way answers for both.
            return;
        }
        let Some(allowed) = Allowed::judge(&method, &path) else {
            return actions.push(response(request_id, Answer::failed(400, allow::UNSUPPORTED)));
        };
        if self.stopping.is_some() {
            return actions.push(response(request_id, Answer::failed(503, "The bridge is stopping")));
        }
        if self.pending.len() >= MAX_RELAYS {
            let busy = format!("{MAX_RELAYS} requests are under way; try again");
            return actions.push(response(request_id, Answer::failed(503, busy)));
        }
        let body = body.filter(|_| allowed.verb() != allow::Verb::Get);
        let ticket = Ticket(self.next_ticket);
        self.next_ticket = self.next_ticket.wrapping_add(1);
        let deadline = later(moment.now, self.pace.relay_timeout);
        self.pending.insert(ticket, Pending { request_id: Some(request_id), deadline });
        let tokens = allow::tokens(&headers);
        let headers = allow::headers(&headers, body.is_some());
        actions.push(Action::Relay(Relay { ticket, allowed, headers, tokens, body }));
    }

    fn answered(&mut self, ticket: Ticket, answer: Answer, actions: &mut Vec<Action>) {
        let Some(pending) = self.pending.remove(&ticket) else { return };
        actions.extend(pending.request_id.map(|id| response(id, answer)));
        self.end_if_done(actions);
    }

    fn closed(&mut self, code: u16, reason: String, moment: Moment, actions: &mut Vec<Action>) {
        let Phase::Open { since, .. } = self.phase else { return };
        if moment.now.since(since) >= millis(STEADY) {
            self.attempts = 0;
        }
        // Whoever waits for these answers heard of the end as well.
        for pending in self.pending.values_mut() {
            pending.request_id = None;
        }
        let replaced = code == NORMAL && reason == pairing::REPLACED;
        let terminal = Terminal::find(&reason);
        actions.push(Action::Say(Notice::Closed { code, reason }));
        if self.stopping.is_some() {
            self.end(End::Stopped, actions);
        } else if replaced {
            self.end(End::Replaced, actions);
        } else if let Some(terminal) = terminal {
            self.end(End::Terminal(terminal), actions);
        } else {
            self.connect_again(moment, actions);
        }
    }

    fn refused(&mut self, status: u16, body: &str, moment: Moment, actions: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Connecting { .. }) {
            return;
        }
        if let Some(terminal) = terminal(status, body) {
            return self.end(End::Terminal(terminal), actions);
        }
        match (status, self.form) {
            (400, Form::Header) => {
                self.form = Form::Query;
                actions.push(Action::Say(Notice::CodeInAddress));
                self.connect(Duration::ZERO, moment, actions);
            }
            (409, _) => self.retry(Trouble::Occupied, moment, actions),
            (401 | 403 | 404 | 410, _) => {
                let (shortest, longest) = PROBE;
                let within = self.pace.connect_timeout.clamp(shortest, longest);
                self.phase = Phase::Probing { status, deadline: later(moment.now, within.saturating_add(PROBE_GRACE)) };
                actions.push(Action::Probe { within });
            }
            (status, _) => {
                // Whoever answers next may be another.
                self.form = Form::Header;
                self.retry(Trouble::Refused(status), moment, actions);
            }
        }
    }

    /// A refusal in words that are none of ours is the control plane's, if that and everything else is well; else it is that
    /// of somebody in its place, and passes. Once is enough: what stands in the way of handshakes alone, while the pairing
    /// route answers, stays there, and who starts a bridge hears it within the time that start is watched.
    fn probed(&mut self, well: bool, moment: Moment, actions: &mut Vec<Action>) {
        let Phase::Probing { status, .. } = self.phase else { return };
        if well {
            return self.end(End::Refused(status), actions);
        }
        self.form = Form::Header;
        self.phase = Phase::Connecting { deadline: moment.now };
        self.retry(Trouble::Refused(status), moment, actions);
    }

    fn retry(&mut self, trouble: Trouble, moment: Moment, actions: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Connecting { .. }) {
            return;
        }
        let after = self.pause(moment.chance);
        if self.told.as_ref() != Some(&trouble) {
            self.told = Some(trouble.clone());
            actions.push(Action::Say(Notice::Trouble(trouble, after)));
        }
        self.attempts = self.attempts.saturating_add(1);
        self.connect(after, moment, actions);
    }

    fn connect_again(&mut self, moment: Moment, actions: &mut Vec<Action>) {
        let after = self.pause(moment.chance);
        self.attempts = self.attempts.saturating_add(1);
        self.connect(after, moment, actions);
    }

    fn connect(&mut self, after: Duration, moment: Moment, actions: &mut Vec<Action>) {
        let deadline = later(moment.now, after.saturating_add(self.pace.connect_timeout));
        self.phase = Phase::Connecting { deadline };
        actions.push(Action::Connect { after, form: self.form });
    }

    /// Between half of the pause and all of it, so that the bridges of a control plane that was away do not come back
    /// in step.
    fn pause(&self, chance: u16) -> Duration {
        let doubled = self.pace.reconnect.saturating_mul(1 << self.attempts.min(20));
        let half = doubled.min(MAX_PAUSE.max(self.pace.reconnect)) / 2;
        half.saturating_add(half.saturating_mul(u32::from(chance)) / u32::from(u16::MAX))
    }

    fn time_passed(&mut self, moment: Moment, actions: &mut Vec<Action>) {
        let now = moment.now;
        let late: Vec<_> =
            self.pending.iter().filter(|(_, pending)| pending.deadline <= now).map(|(ticket, _)| *ticket).collect();
        for ticket in late {
            actions.push(Action::Forget(ticket));
            // As whatever else keeps the gateway from answering; the words say that it was the time.
            let waited = self.pace.relay_timeout.as_millis();
            self.answered(
                ticket,
                Answer::failed(502, format!("The gateway did not answer within {waited} ms")),
                actions,
            );
        }
        if self.stopping.is_some_and(|until| until <= now) {
            self.pending.clear();
            self.end_if_done(actions);
        }
        match self.phase {
            Phase::Connecting { deadline } if deadline <= now => {
                actions.push(Action::Drop);
                self.retry(Trouble::Late(self.pace.connect_timeout), moment, actions);
            }
            Phase::Probing { deadline, .. } if deadline <= now => {
                actions.push(Action::Drop);
                self.probed(false, moment, actions);
            }
            Phase::Open { heard, .. } if later(heard, self.patience()) <= now => {
                actions.push(Action::Drop);
                let reason = format!("no sign of life for {} ms", now.since(heard));
                // As RFC 6455 calls an end without a close frame.
                self.closed(1006, reason, moment, actions);
            }
            Phase::Open { since, heard, ping } if ping <= now => {
                self.phase = Phase::Open { since, heard, ping: later(now, self.pace.heartbeat) };
                actions.push(Action::Send(FromBridge::Ping));
            }
            Phase::Connecting { .. } | Phase::Probing { .. } | Phase::Open { .. } | Phase::Over => {}
        }
    }

    fn stop(&mut self, moment: Moment, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Open { .. } => {
                self.stopping = Some(later(moment.now, STOP_GRACE));
                self.end_if_done(actions);
            }
            Phase::Connecting { .. } | Phase::Probing { .. } => {
                actions.push(Action::Drop);
                self.end(End::Stopped, actions);
            }
            Phase::Over => {}
        }
    }

    /// The end of a session that was told to stop, when what was under way is done.
    fn end_if_done(&mut self, actions: &mut Vec<Action>) {
        if self.stopping.is_some() && self.pending.values().all(|pending| pending.request_id.is_none()) {
            if matches!(self.phase, Phase::Open { .. }) {
                actions.push(Action::Close { code: NORMAL, reason: pairing::SHUTDOWN });
            }
            self.end(End::Stopped, actions);
        }
    }

    fn end(&mut self, end: End, actions: &mut Vec<Action>) {
        self.phase = Phase::Over;
        actions.push(Action::End(end));
    }
}

fn response(request_id: String, answer: Answer) -> Action {
    let Answer { status, headers, body, error } = answer;
    Action::Send(FromBridge::Response(Relayed { request_id, status, headers, body, error }))
}

/// What our control plane refuses for good, in its own words.
fn terminal(status: u16, body: &str) -> Option<Terminal> {
    let body: Value = serde_json::from_str(body).ok()?;
    Terminal::find(body.get("error")?.as_str()?).filter(|terminal| terminal.wire().0 == status)
}

fn later(from: MonotonicMillis, by: Duration) -> MonotonicMillis {
    MonotonicMillis(from.0.saturating_add(millis(by)))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;

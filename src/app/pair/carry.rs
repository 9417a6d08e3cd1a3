//! The loop: what happens outside becomes an event of the session, and what the session says is done.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::task::JoinSet;

use crate::app::json_api::readable;
use crate::app::pair::Progress;
use crate::app::pair::SecretKeeper;
use crate::app::pair::gateway::Gateway;
use crate::app::pair::handshake::ControlPlane;
use crate::app::pair::handshake::NoSocket;
use crate::app::pair::handshake::Opened;
use crate::app::pair::link::Came;
use crate::app::pair::link::Link;
use crate::app::pair::preflight;
use crate::app::pair::preflight::Ends;
use crate::domain::secret::Secret;
use crate::pair::frames::FromBridge;
use crate::pair::frames::Relayed;
use crate::pair::session::Action;
use crate::pair::session::Answer;
use crate::pair::session::End;
use crate::pair::session::Event;
use crate::pair::session::Moment;
use crate::pair::session::Pace;
use crate::pair::session::Session;
use crate::pair::session::Ticket;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::random;
use crate::sys::tasks::Stop;

/// Longest frame that is sent, in bytes: as text in JSON an answer grows. Our own control plane takes a little more.
const MAX_FRAME: usize = 16 * 1024 * 1024;

/// An attempt to connect.
type Attempt = Pin<Box<dyn Future<Output = Result<Opened, NoSocket>> + Send>>;

/// A look at both ends.
type Probe = Pin<Box<dyn Future<Output = bool> + Send>>;

/// Carries requests from the control plane to the gateway, and answers back.
pub(super) struct Carrier {
    control_plane: ControlPlane,
    gateway: Gateway,
    ends: Ends,
    pace: Pace,
    keep: Option<SecretKeeper>,
    attempt: Option<Attempt>,
    probe: Option<Probe>,
    link: Option<Link>,
    relays: JoinSet<(Ticket, Answer)>,
    handles: HashMap<Ticket, AbortHandle>,
}

impl Carrier {
    pub(super) fn new(
        control_plane: ControlPlane,
        gateway: Gateway,
        ends: Ends,
        pace: Pace,
        keep: Option<SecretKeeper>,
    ) -> Self {
        Self {
            control_plane,
            gateway,
            ends,
            probe: None,
            pace,
            keep,
            attempt: None,
            link: None,
            relays: JoinSet::new(),
            handles: HashMap::new(),
        }
    }

    /// Runs until the session ends. What is still under way then is dropped.
    pub(super) async fn run(mut self, stop: Stop, say: &mut (dyn FnMut(Progress) + Send)) -> End {
        let mut stop = Some(stop);
        let (mut session, mut actions) = Session::begin(self.pace, moment());
        loop {
            for action in actions {
                if let Some(end) = self.act(action, say).await {
                    return end;
                }
            }
            let event = self.next(&session, &mut stop, say).await;
            actions = session.on(event, moment());
        }
    }

    /// What happens next.
    async fn next(
        &mut self,
        session: &Session,
        stop: &mut Option<Stop>,
        say: &mut (dyn FnMut(Progress) + Send),
    ) -> Event {
        let wait = session.timer().map(|timer| timer.since(SystemClock.now().monotonic));
        tokio::select! {
            () = called(stop) => {
                *stop = None;
                Event::Stop
            }
            outcome = settled(&mut self.attempt) => {
                self.attempt = None;
                match outcome {
                    Ok(Opened { socket, reconnect }) => {
                        self.link = Some(Link::new(socket));
                        if let Some(secret) = reconnect {
                            self.keep(secret, say);
                        }
                        Event::Opened
                    }
                    Err(NoSocket::Refused { status, body }) => Event::Refused { status, body },
                    Err(NoSocket::Failed(why)) => Event::ConnectFailed(readable(&why)),
                }
            }
            well = seen(&mut self.probe) => {
                self.probe = None;
                Event::Probed(well)
            }
            came = next_message(&mut self.link) => match came {
                Came::Heard(frame) => Event::Heard(frame),
                Came::Closed { code, reason } => {
                    if let Some(link) = self.link.take() {
                        link.let_go().await;
                    }
                    Event::Closed { code, reason }
                }
            },
            Some(done) = self.relays.join_next() => match done {
                Ok((ticket, answer)) => {
                    self.handles.remove(&ticket);
                    Event::Answered(ticket, answer)
                }
                // Nobody waits for those that were aborted; one that failed ends by its deadline.
                Err(_) => Event::Timer,
            },
            () = tokio::time::sleep(Duration::from_millis(wait.unwrap_or(u64::MAX))) => Event::Timer,
        }
    }

    fn keep(&mut self, secret: Secret, say: &mut (dyn FnMut(Progress) + Send)) {
        if let Some(keep) = &self.keep
            && let Err(error) = keep(&secret)
        {
            say(Progress::SecretNotKept(error.to_string()));
        }
        self.control_plane.come_back_with(secret);
    }

    async fn act(&mut self, action: Action, say: &mut (dyn FnMut(Progress) + Send)) -> Option<End> {
        match action {
            Action::Connect { after, form } => {
                let control_plane = self.control_plane.clone();
                self.attempt = Some(Box::pin(async move {
                    tokio::time::sleep(after).await;
                    control_plane.connect(form).await
                }));
            }
            Action::Drop => {
                self.attempt = None;
                self.probe = None;
                self.link = None;
            }
            Action::Probe { within } => {
                let ends = self.ends.clone();
                self.probe = Some(Box::pin(async move {
                    let look = tokio::time::timeout(within, preflight::check(&ends, within));
                    matches!(look.await, Ok(Ok(())))
                }));
            }
            Action::Send(frame) => {
                if let Some(link) = &self.link {
                    link.send(written(frame));
                }
            }
            Action::Relay(relay) => {
                let (gateway, ticket) = (self.gateway.clone(), relay.ticket);
                let handle = self.relays.spawn(async move { (ticket, gateway.relay(&relay).await) });
                self.handles.insert(ticket, handle);
            }
            Action::Forget(ticket) => {
                if let Some(handle) = self.handles.remove(&ticket) {
                    handle.abort();
                }
            }
            Action::Close { code, reason } => {
                if let Some(link) = self.link.take() {
                    link.close(code, reason).await;
                }
            }
            Action::Say(notice) => say(Progress::Session(notice)),
            Action::End(end) => return Some(end),
        }
        None
    }
}

/// The text of a frame; where it is longer than the other side takes, which would cost the connection, of one that says
/// so.
fn written(frame: FromBridge) -> String {
    let now = SystemClock.now().wall;
    let text = frame.write(now);
    let FromBridge::Response(relayed) = frame else { return text };
    if text.len() <= MAX_FRAME {
        return text;
    }
    let error = Some(format!("the gateway's answer is larger than {} MiB as a frame", MAX_FRAME / 1024 / 1024));
    let relayed = Relayed { status: 502, headers: BTreeMap::new(), body: None, error, ..relayed };
    FromBridge::Response(relayed).write(now)
}

async fn called(stop: &mut Option<Stop>) {
    match stop {
        Some(stop) => stop.wait().await,
        None => std::future::pending().await,
    }
}

async fn settled(attempt: &mut Option<Attempt>) -> Result<Opened, NoSocket> {
    match attempt {
        Some(attempt) => attempt.await,
        None => std::future::pending().await,
    }
}

async fn seen(probe: &mut Option<Probe>) -> bool {
    match probe {
        Some(probe) => probe.await,
        None => std::future::pending().await,
    }
}

async fn next_message(link: &mut Option<Link>) -> Came {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

fn moment() -> Moment {
    // Without randomness the whole pause is kept.
    let chance = random::bytes::<2>().map_or(u16::MAX, u16::from_be_bytes);
    Moment { now: SystemClock.now().monotonic, chance }
}

//! authz's end on the wire: connects, listens, acknowledges, reports, and connects again.
//!
//! What was received stays in force while admin is away; only the freshness of claims runs out.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::StreamExt as _;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::Status;
use tonic::codegen::Service;
use tonic::transport::Channel;
use tonic::transport::Endpoint;

use crate::domain::snapshot::Snapshot;
use crate::state::registration::MAX_IN_FLIGHT;
use crate::state::registration::RegistrarLink;
use crate::state::replica::Applied;
use crate::state::replica::Replica;
use crate::sys::clock::Clock;
use crate::sys::http::chain;
use crate::sys::peer::PeerRule;
use crate::sys::random;
use crate::sys::stream::VerifiedStream;
use crate::sys::tasks::Stop;
use crate::sys::tls::ClientTls;
use crate::sys::tls::rotating::Standing;
use crate::wire::state::REFUSED;
use crate::wire::state::encode_version;
use crate::wire::state::proto;
use crate::wire::state::proto::state_request::Message;
use crate::wire::state::proto::state_response;
use crate::wire::state::proto::state_service_client::StateServiceClient;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// First pause between two attempts; doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Between two reports.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// A silent connection is asked this often whether it lives, and has this long to answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// Words of ours that wait to be sent: registrations, and a few acknowledgements and reports. More means that
/// admin is stuck.
const OUTGOING: usize = MAX_IN_FLIGHT + 16;
/// Largest message: a part of a full state has about 256 KiB, a delta 1 MiB, a single record less than 1 MiB.
const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Where the state comes from.
#[derive(Debug, Clone)]
pub enum StateSource {
    /// Admin's Unix socket; whoever serves it must run as our user.
    Unix(PathBuf),
    /// Admin over TCP with mutual TLS: host and port.
    Tls(String, ClientTls),
}

/// Keeps the newest state where the decisions look for it.
#[derive(Debug, Clone)]
pub struct Subscriber {
    current: Arc<ArcSwapOption<Snapshot>>,
    arrived: watch::Sender<bool>,
    /// Whether admin speaks to us now.
    fed: watch::Sender<bool>,
    registrar: RegistrarLink,
    ended: Ended,
}

/// Told of approvals that have ended, and of claims that were rejected, once they do not count any more.
pub type EndedHook = Arc<dyn Fn(&[proto::Approval]) + Send + Sync>;

#[derive(Clone, Default)]
struct Ended(Option<EndedHook>);

impl std::fmt::Debug for Ended {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Ended").finish_non_exhaustive()
    }
}

impl Default for Subscriber {
    fn default() -> Self {
        Self {
            current: Arc::default(),
            arrived: watch::channel(false).0,
            fed: watch::channel(false).0,
            registrar: RegistrarLink::default(),
            ended: Ended::default(),
        }
    }
}

impl Subscriber {
    /// Nothing received yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the newest state is found; empty until the first full one has come.
    pub fn current(&self) -> Arc<ArcSwapOption<Snapshot>> {
        Arc::clone(&self.current)
    }

    /// Becomes `true` with the first full state and stays so, whatever becomes of that state.
    pub fn arrived(&self) -> watch::Receiver<bool> {
        self.arrived.subscribe()
    }

    /// Whether admin speaks to us now: without, what was received stays in force, and the freshness of claims runs out.
    pub fn fed(&self) -> watch::Receiver<bool> {
        self.fed.subscribe()
    }

    /// Asks admin for registrations, on the stream the state comes on.
    pub fn registrar(&self) -> RegistrarLink {
        self.registrar.clone()
    }

    /// The same, with somebody who is told what has ended.
    #[must_use]
    pub fn telling(self, ended: EndedHook) -> Self {
        Self { ended: Ended(Some(ended)), ..self }
    }

    /// Keeps the state up to date until told to stop. `report` is asked about once a second. `window` says which replay
    /// window decides here; nothing is asked for before that is known.
    pub async fn run<C: Clock>(
        self,
        source: StateSource,
        node: String,
        mut window: watch::Receiver<Option<String>>,
        clock: C,
        report: impl Fn() -> proto::Report + Send,
        mut stop: Stop,
    ) {
        let mut replica = Replica::default();
        let mut pause = MIN_PAUSE;
        let mut said = false;
        loop {
            let mut heard = false;
            let ended = tokio::select! {
                () = stop.wait() => return,
                ended = self.follow((&source, &node), &mut window, &clock, &report, &mut replica, &mut heard) => ended,
            };
            self.fed.send_replace(false);
            if heard {
                (pause, said) = (MIN_PAUSE, false);
            }
            // Once per outage: admin may be away for hours, and nothing else happens meanwhile.
            if !said {
                tracing::warn!(reason = ended, "{}", outage(replica.snapshot().is_some()));
                said = true;
            }
            tokio::select! {
                () = stop.wait() => return,
                () = tokio::time::sleep(random::jittered(pause)) => {}
            }
            pause = pause.saturating_mul(2).min(MAX_PAUSE);
        }
    }

    /// One connection, from hello to its end; says why it ended, and in `heard` whether admin spoke.
    async fn follow<C: Clock>(
        &self,
        (source, node): (&StateSource, &str),
        window: &mut watch::Receiver<Option<String>>,
        clock: &C,
        report: &(impl Fn() -> proto::Report + Send),
        replica: &mut Replica,
        heard: &mut bool,
    ) -> String {
        let Some(replay_window) = known(window).await else { return "the replay window has ended".to_owned() };
        let tls = match source {
            StateSource::Unix(_) => None,
            StateSource::Tls(_, tls) => Some((tls.clone(), tls.standing())),
        };
        let channel = match connect(source).await {
            Ok(channel) => channel,
            Err(error) => return chain(&error),
        };
        let (outgoing, requests) = mpsc::channel(OUTGOING);
        replica.reconnect();
        let holds = replica.snapshot().map(|snapshot| encode_version(&snapshot.version));
        let hello = Message::Hello(proto::Hello { holds, node: node.to_owned(), replay_window });
        if !say(&outgoing, hello) {
            return "the connection closed".to_owned();
        }
        let mut client = StateServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut responses = match client.stream(ReceiverStream::new(requests)).await {
            Ok(responses) => responses.into_inner(),
            Err(status) => return self.ended(&status, replica),
        };
        let mut registrations = self.registrar.begin();
        let mut applied_before = false;
        let mut ticks = tokio::time::interval(REPORT_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let response = tokio::select! {
                response = responses.next() => response,
                _ = ticks.tick() => {
                    // A report that finds no room is superseded by the next.
                    say(&outgoing, Message::Report(report()));
                    continue;
                }
                () = replaced(tls.as_ref()) => {
                    // Not an outage: what is held is as good as before.
                    *heard = true;
                    let expired = tls.as_ref().is_some_and(|(tls, _)| tls.standing().expired);
                    let why = if expired { "our certificate has expired" } else { "the certificates have changed" };
                    return why.to_owned();
                }
                () = changed(window) => {
                    *heard = true;
                    return "the replay window is another".to_owned();
                }
                register = registrations.next() => {
                    let id = register.id;
                    if !say(&outgoing, Message::Register(register)) {
                        registrations.unsent(id);
                    }
                    continue;
                }
            };
            let answer = match response {
                Some(Ok(proto::StateResponse {
                    message: Some(state_response::Message::Registered(answer)), ..
                })) => {
                    *heard = true;
                    registrations.answered(answer);
                    None
                }
                Some(Ok(response)) => {
                    *heard = true;
                    self.fed.send_if_modified(|fed| !std::mem::replace(fed, true));
                    self.take(replica, response, clock)
                }
                Some(Err(status)) => return self.ended(&status, replica),
                None => return "admin ended the stream".to_owned(),
            };
            if let Some(answer) = answer {
                let applied = matches!(answer, Message::Applied(_));
                if !say(&outgoing, answer) {
                    return "admin does not read".to_owned();
                }
                // A start waits for the word that we are ready.
                if applied && !std::mem::replace(&mut applied_before, true) {
                    say(&outgoing, Message::Report(report()));
                }
            }
        }
    }

    /// Says why a stream ended. Where admin ended it because we must not decide, nothing is decided any more.
    fn ended(&self, status: &Status, replica: &mut Replica) -> String {
        if status.metadata().contains_key(REFUSED) {
            self.current.store(None);
            *replica = Replica::default();
        }
        if matches!(status.code(), Code::FailedPrecondition | Code::PermissionDenied) {
            status.message().to_owned()
        } else {
            status.to_string()
        }
    }

    /// Applies one message and says what is to be answered.
    fn take<C: Clock>(&self, replica: &mut Replica, response: proto::StateResponse, clock: &C) -> Option<Message> {
        let ended = match (&self.ended.0, &response.message) {
            (Some(_), Some(state_response::Message::Delta(delta))) => delta.remove_approvals.clone(),
            (Some(_) | None, _) => Vec::new(),
        };
        match replica.apply(response, clock.now().monotonic) {
            Ok(Applied::Version { version, unreadable }) => {
                self.current.store(replica.snapshot().cloned());
                if let Some(told) = self.ended.0.as_ref().filter(|_| !ended.is_empty()) {
                    told(&ended);
                }
                self.arrived.send_if_modified(|arrived| !std::mem::replace(arrived, true));
                if unreadable > 0 {
                    tracing::warn!(
                        version = version.version,
                        unreadable,
                        "state records were unreadable and do not count"
                    );
                }
                tracing::info!(version = version.version, "state applied");
                Some(Message::Applied(encode_version(&version)))
            }
            Ok(Applied::Confirmed) => {
                self.current.store(replica.snapshot().cloned());
                None
            }
            Ok(Applied::Part | Applied::Ignored) => None,
            Err(refused) => {
                tracing::warn!(reason = %refused, "a state message was refused");
                let version = Some(encode_version(&refused.version));
                Some(Message::Rejected(proto::Rejected { version, reason: refused.reason }))
            }
        }
    }
}

/// What it means that admin does not speak to us.
const fn outage(received: bool) -> &'static str {
    if received {
        "admin's state stream is down; what was received stays in force"
    } else {
        "admin's state stream is not there, and nothing was received: requests are refused until it is"
    }
}

/// What the replay window is called, as soon as it is known; `None`: it never will be.
async fn known(window: &mut watch::Receiver<Option<String>>) -> Option<String> {
    let name = window.wait_for(Option::is_some).await.ok()?.clone();
    // What is said now is not news.
    window.mark_unchanged();
    name
}

/// Returns when it is called otherwise.
async fn changed(window: &mut watch::Receiver<Option<String>>) {
    if window.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Returns when a connection made before may rely on certificates that are gone.
async fn replaced(tls: Option<&(ClientTls, Standing)>) {
    match tls {
        Some((tls, seen)) => tls.replaced(*seen).await,
        None => std::future::pending().await,
    }
}

/// Queues one word for admin; `false` where there is no room or no connection.
fn say(outgoing: &mpsc::Sender<proto::StateRequest>, message: Message) -> bool {
    outgoing.try_send(proto::StateRequest { message: Some(message) }).is_ok()
}

/// A channel to a process of ours on a verified connection.
pub async fn connect(source: &StateSource) -> Result<Channel, tonic::transport::Error> {
    let (interval, timeout) = KEEP_ALIVE;
    // The name is never resolved: the connector knows where to go.
    Endpoint::from_static("http://admin.invalid")
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(interval)
        .keep_alive_timeout(timeout)
        .keep_alive_while_idle(true)
        // What admin may send ahead of what is applied; a full state is read part by part.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(2 << 20)
        .connect_with_connector(Connector(source.clone()))
        .await
}

/// Opens the verified connection that the channel speaks on.
#[derive(Debug, Clone)]
struct Connector(StateSource);

impl Service<Uri> for Connector {
    type Response = TokioIo<VerifiedStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<VerifiedStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let source = self.0.clone();
        Box::pin(async move {
            let stream = match source {
                StateSource::Unix(path) => {
                    let stream = UnixStream::connect(path).await?;
                    // Believing another user's state would hand it our decisions.
                    PeerRule::same_user().check(&stream).map_err(io::Error::other)?;
                    VerifiedStream::Unix(stream)
                }
                StateSource::Tls(address, tls) => {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    VerifiedStream::Tls(Box::new(tls.connector().connect(tls.server(), stream).await?.into()))
                }
            };
            Ok(TokioIo::new(stream))
        })
    }
}

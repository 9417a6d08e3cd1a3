//! Admin's end: holds the state that counts and serves it to every authz that may have it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::Stream;
use tokio::net::TcpListener;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tonic::Code;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::Streaming;

use crate::config::fleet::Workload;
use crate::domain::connection::Connection;
use crate::domain::time::UnixSeconds;
use crate::domain::validity::Validity;
use crate::state::change::CLAIMS;
use crate::state::change::Change;
use crate::state::claims::ClaimList;
use crate::state::published::Published;
use crate::state::published::PublishedState;
use crate::state::registration::Office;
use crate::state::registration::Registration;
use crate::state::scope::Scope;
use crate::state::seats::Held;
use crate::state::seats::MAX_OF_ONE;
use crate::state::seats::Seats;
use crate::state::session;
use crate::state::session::Session;
use crate::state::tenure::Floors;
use crate::state::tenure::Moment;
use crate::sys::clock::Clock;
use crate::sys::clock::SystemClock;
use crate::sys::grpc;
use crate::sys::grpc_use::Patience;
use crate::sys::inbound::Inbound;
use crate::sys::inbound::Shown;
use crate::sys::peer::PeerRule;
use crate::sys::sparing::Sparing;
use crate::sys::tasks::Stop;
use crate::sys::tls::ServerTls;
use crate::wire::state::UNNAMED;
use crate::wire::state::decode_connection;
use crate::wire::state::proto;
use crate::wire::state::proto::state_service_server::StateService;
use crate::wire::state::proto::state_service_server::StateServiceServer;

/// Largest message an authz sends: a report with a few dozen counters.
const MAX_REQUEST_BYTES: usize = 64 << 10;
/// How long a connection may have no stream open.
const IDLE: Duration = Duration::from_secs(5);
/// Connections with the same names in their certificates: twice as many as streams, which are opened anew while the old
/// ones end.
const MAX_CONNECTIONS_OF_ONE: usize = 2 * MAX_OF_ONE;

/// The publisher; a clone is another handle to the same state.
#[derive(Debug, Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    published: Mutex<Published>,
    peers: Mutex<Seats>,
    /// Who is sent what over TLS.
    workloads: ArcSwap<Vec<Workload>>,
    office: Office,
    /// Speaks of certificates no workload names.
    unnamed: Sparing,
    /// Whether it was said that the store is an earlier copy: by one of this machine, by one of another host, who may lie.
    rolled_back: (AtomicBool, AtomicBool),
    /// Speaks of messages that were refused.
    rejected: Sparing,
    /// Counts changes and confirmations, so that a waiting session notices them.
    changed: watch::Sender<u64>,
    /// Becomes true when this process is about to end: streams have no end of their own.
    closing: watch::Sender<bool>,
}

/// Connections and their approvals, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Connections agents may use.
    pub active: u64,
    /// Connections that are switched off.
    pub disabled: u64,
    /// Active ones whose secret cannot be used.
    pub degraded: u64,
    /// Connections whose secret is due.
    pub rotation_due: u64,
    /// Approvals of all of them, declared ones and those of the Sigilum API.
    pub approved: u64,
}

/// What is known of one connected authz.
#[derive(Debug, Clone, Default)]
pub struct PeerState {
    /// What it calls itself; free text for the log, bounded.
    pub node: String,
    /// The last version it acknowledged on this connection.
    pub applied: Option<proto::StateVersion>,
    /// Whether that is the version published now.
    pub current: bool,
    /// Its last counters.
    pub report: Option<proto::Report>,
    /// Why it would not have the last message; nothing once it has applied one.
    pub refused: Option<String>,
    /// Whether it is on another host, and has shown a certificate; else the kernel says that it is one of ours.
    pub remote: bool,
    /// When that certificate holds, where it says so.
    pub certificate: Option<Validity>,
}

impl Publisher {
    /// Takes the state admin has read from its store.
    pub fn new(initial: PublishedState) -> Self {
        let published = Mutex::new(Published::new(initial, SystemClock.now().monotonic));
        let (changed, _) = watch::channel(0);
        let (closing, _) = watch::channel(false);
        let peers = Mutex::new(Seats::new(SystemClock.now().monotonic));
        let (workloads, office) = (ArcSwap::default(), Office::default());
        let (unnamed, rejected, rolled_back) = (Sparing::default(), Sparing::default(), Default::default());
        let shared = Shared { published, peers, workloads, office, unnamed, rolled_back, rejected, changed, closing };
        Self { shared: Arc::new(shared) }
    }

    /// Publishes a committed change. Calls must come in the order of the commits, each version one
    /// above the last; after a hole everybody is sent the full state.
    pub fn publish(&self, version: u64, change: Change) {
        let follows = self.published().apply(version, change, SystemClock.now().monotonic);
        if !follows {
            tracing::warn!(version, "a state version was skipped; the full state is sent");
        }
        self.wake();
    }

    /// Says who is sent what over TLS; whoever was sent something else before is sent that anew. Nobody, until it is said.
    pub fn set_workloads(&self, workloads: Vec<Workload>) {
        self.shared.workloads.store(Arc::new(workloads));
        self.wake();
    }

    /// Why an authz was refused because its replay window does not go with that of another; `None` where none was, in the
    /// last seconds.
    pub fn window_conflict(&self) -> Option<String> {
        self.peers_locked().conflict(SystemClock.now().monotonic)
    }

    /// Every authz of another host that left because its certificate had ended, until it comes again: what it calls itself, and when
    /// its certificate held.
    pub fn cut_off(&self) -> Vec<(String, Validity)> {
        self.peers_locked().cut_off(SystemClock.now().seconds())
    }

    /// Tells every authz that the sources of these services were asked, `age_ms` ago, and said what is
    /// published.
    pub fn confirm(&self, services: Vec<proto::ServiceAge>) {
        self.published().confirm(services, SystemClock.now().monotonic);
        self.wake();
    }

    /// An empty list for what the claims source of a service says, to be made when the reading begins. What is
    /// published already takes next to nothing in it, so that a source can be read again without twice the memory.
    pub fn claim_list(&self, service: &str) -> ClaimList {
        let published = self.published();
        let read = published.claims_source(service) == Some(true);
        let base = read.then(|| (published.grants(), service.to_owned()));
        ClaimList::begun(base, SystemClock.now().monotonic)
    }

    /// What is to be published, one after the other, for the claims of a service to become exactly `list`; nothing
    /// where they are. With a hundred thousand approvals this computes for tens of milliseconds.
    pub fn claims_difference(&self, service: &str, list: ClaimList) -> Vec<Change> {
        let published = {
            let published = self.published();
            (published.claims_source(service) == Some(true)).then(|| published.grants())
        };
        // Not under the lock: every stream waits for that.
        match published {
            Some(grants) => list.difference(service, &grants),
            None => list.load(service),
        }
    }

    /// What is to be published for a service to have a claims source, not read yet; `None` where it has one. Until it
    /// is read, an authz that still knows what an earlier admin read goes on with that.
    pub fn begin_claims(&self, service: &str) -> Option<Change> {
        let known = self.published().claims_source(service).is_some();
        let list = proto::ServiceApprovals { service: service.to_owned(), source: CLAIMS, ..Default::default() };
        (!known).then_some(Change::ReplaceApprovals(list))
    }

    /// Says which services have a claims source, before anybody is told anything; afterwards it does nothing. An
    /// authz that comes back is sent the full state, and forgets the claims of every service that has no source in it.
    pub fn expect_claims(&self, services: Vec<String>) {
        let mut published = self.published();
        // Under the lock: who connects now is told with them.
        if self.peers_locked().are_new() {
            published.expect_claims(services);
        }
    }

    /// What is to be published for a service to have no claims source any more; `None` where it has none.
    pub fn end_claims(&self, service: &str) -> Option<Change> {
        let known = self.published().claims_source(service).is_some();
        known.then(|| Change::EndClaims(service.to_owned()))
    }

    /// Each service with a claims source: how old what it said is, in milliseconds (`None`: not read since this
    /// process began), and how many approvals that is.
    pub fn claims_ages(&self) -> Vec<(String, Option<u64>, usize)> {
        self.published().claims_ages(SystemClock.now().monotonic)
    }

    /// Whether any connection has a declared approval, which never ages.
    pub fn declares_approvals(&self) -> bool {
        self.published().declares_approvals()
    }

    /// For how long claims hold without confirmation, in milliseconds.
    pub fn claims_hold_ms(&self) -> u64 {
        self.published().claims_hold_ms()
    }

    /// One connection with its credential, as authz has it.
    pub fn connection(&self, id: &str) -> Option<Arc<Connection>> {
        let record = self.published().connection(id)?;
        decode_connection((*record).clone())
    }

    /// Connections and their approvals, counted as of now.
    pub fn tally(&self, now: UnixSeconds) -> Tally {
        self.published().tally(now)
    }

    /// How many approvals each connection has, of whatever source.
    pub fn approvals(&self) -> BTreeMap<String, u64> {
        self.published().approvals()
    }

    /// Ids of all connections, in order.
    pub fn connection_ids(&self) -> Vec<String> {
        self.published().connection_ids()
    }

    /// Whether there is a connection of this id.
    pub fn has_connection(&self, id: &str) -> bool {
        self.published().connection(id).is_some()
    }

    /// Changes with everything that is published or confirmed; the number means nothing.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// The registrations every authz asks for, from now on; an earlier receiver gets none any more. While nobody
    /// receives, and where too many wait, authz is told at once that nothing was sent.
    pub fn registrations(&self) -> mpsc::Receiver<Registration> {
        self.shared.office.open()
    }

    /// The version published now.
    pub fn version(&self) -> proto::StateVersion {
        self.published().version()
    }

    /// The authz processes connected now.
    pub fn peers(&self) -> Vec<PeerState> {
        let mut peers: Vec<_> = self.peers_locked().iter().cloned().collect();
        let published = self.published();
        for peer in &mut peers {
            peer.current = peer.applied.as_ref().is_some_and(|version| published.is_at(version));
        }
        peers
    }

    /// Whether one of this machine is connected, or was since this process began.
    pub fn had_ours(&self) -> bool {
        self.peers_locked().had_ours()
    }

    /// The last report of each connected authz.
    pub fn reports(&self) -> Vec<proto::Report> {
        self.peers_locked().iter().filter_map(|peer| peer.report.clone()).collect()
    }

    /// The gRPC service, for whoever serves it himself. It carries credentials: only behind a verified
    /// Unix socket or mutual TLS.
    pub fn service(&self) -> StateServiceServer<Self> {
        StateServiceServer::new(self.clone()).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// Bounds of a server of it. An authz opens its stream with its connection and gives up both together: a connection without
    /// a stream is nobody's.
    pub fn limits() -> grpc::Limits {
        let patience = Patience { later: Some(IDLE), ..grpc::Limits::default().patience };
        grpc::Limits { patience, of_one: MAX_CONNECTIONS_OF_ONE, ..grpc::Limits::default() }
    }

    /// Serves authz on a Unix socket until told to stop. Peers other than the one allowed are closed
    /// at once; while `peers` says `None`, so is everybody.
    pub async fn serve_unix(self, listener: UnixListener, peers: watch::Receiver<Option<PeerRule>>, stop: Stop) {
        self.serve(Inbound::Unix { listener, peers }, stop).await;
    }

    /// Serves authz on TCP with mutual TLS until told to stop.
    pub async fn serve_tls(self, listener: TcpListener, tls: ServerTls, stop: Stop) {
        self.serve(Inbound::Tls { listener, tls }, stop).await;
    }

    async fn serve(self, inbound: Inbound, mut stop: Stop) {
        let serving = grpc::serve("state", inbound, grpc::one(self.service()), Self::limits(), stop.clone());
        let closing = async {
            stop.wait().await;
            self.shared.closing.send_replace(true);
        };
        tokio::join!(serving, closing);
    }

    /// Every stream looks at what it is to send, and whether it still may.
    fn wake(&self) {
        self.shared.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn published(&self) -> MutexGuard<'_, Published> {
        // Nothing in there panics half-way through a change that another could see.
        self.shared.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn peers_locked(&self) -> MutexGuard<'_, Seats> {
        self.shared.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn office(&self) -> &Office {
        &self.shared.office
    }

    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.shared.closing.subscribe()
    }

    /// Registers a connected authz; `None` where there are too many, or too many with this certificate's names.
    pub(super) fn register(&self, shown: Option<&Shown>) -> Option<Registered> {
        let id = self.peers_locked().take(shown.map(|shown| &shown.names))?;
        Some(Registered { publisher: self.clone(), id })
    }

    /// What an authz with these names in its certificate may hold; without certificate it is one of ours on this machine.
    /// `None`: nothing, not even a place.
    pub(super) fn scope_of(&self, shown: Option<&Shown>) -> Option<Scope> {
        shown.map_or(Some(Scope::Everything), |shown| Scope::of(&shown.names, &self.shared.workloads.load()))
    }

    /// An authz says what it holds. Where that is a later state of our store than the store has, somebody has put an earlier
    /// copy in its place, with all that was removed, revoked or rotated since: that is said, once.
    pub(super) fn note_held(&self, node: &str, held: &proto::StateVersion, is_remote: bool) {
        let version = {
            let published = self.published();
            if !published.is_rolled_back(held) {
                return;
            }
            published.version().version
        };
        let (ours, theirs) = &self.shared.rolled_back;
        if !if is_remote { theirs } else { ours }.swap(true, Ordering::Relaxed) {
            tracing::error!(
                node,
                version,
                held = held.version,
                "the store was rolled back: this authz holds a later version of it; what was removed, revoked or rotated \
                 since is in force again, here and, from now on, there"
            );
        }
    }

    /// An authz would not have what it was sent. It may say so as often as it likes.
    pub(super) fn note_rejected(&self, reason: &str) {
        if let Some(unsaid) = self.shared.rejected.turn() {
            tracing::warn!(reason, unsaid, "an authz refused a state message");
        }
    }

    /// What is said to one whose certificate no workload names. It keeps nothing of what it may have been sent before.
    pub(super) fn unnamed(&self, shown: Option<&Shown>) -> Status {
        let name = shown.and_then(|shown| shown.names.first()).map_or("", String::as_str);
        // Whoever has such a certificate may come as often as he likes.
        if let Some(unsaid) = self.shared.unnamed.turn() {
            tracing::warn!(name, unsaid, "an authz was refused: no workload has a name of its certificate");
        }
        session::refusal(
            Code::PermissionDenied,
            UNNAMED,
            format!("no workload has a name of this certificate ({name})"),
        )
    }
}

/// One connected authz's place among the peers, given up on drop.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) publisher: Publisher,
    id: u64,
}

impl Registered {
    pub(super) fn update(&self, change: impl FnOnce(&mut PeerState)) {
        if let Some(peer) = self.publisher.peers_locked().get(self.id) {
            change(peer);
        }
    }

    /// Lets it decide for these connections, or those of them that are left to it; says why not, where none is. With
    /// whether others have lost some by that, who are told.
    pub(super) fn admit(&self, window: &str, scope: &Scope) -> Result<(Scope, bool), String> {
        let admitted = self.publisher.peers_locked().admit(self.id, window, scope, SystemClock.now().monotonic)?;
        if admitted.1 {
            self.publisher.wake();
        }
        Ok(admitted)
    }

    /// It decides for these connections from now on: what it is to be told of them.
    pub(super) fn give(&self, scope: &Scope) -> Floors {
        let memory = self.publisher.published().memory();
        let moment = Moment { now: SystemClock.now().monotonic, memory };
        self.publisher.peers_locked().give(self.id, scope, moment)
    }

    /// The same for one that decides already: those which no other may be deciding for still, or `regardless` of that. From now
    /// on it counts as one that may be deciding for them; where some are missing yet, only if it takes them `partly`.
    pub(super) fn hold(&self, scope: &Scope, regardless: bool, partly: bool) -> Result<Held, String> {
        let now = SystemClock.now().monotonic;
        let held = {
            // Under one lock: another that looks meanwhile would find them free.
            let mut peers = self.publisher.peers_locked();
            let held = peers.hold(self.id, scope, regardless, now)?;
            if partly || !held.waits {
                peers.sent(self.id, &held.scope);
            }
            held
        };
        if held.displaced {
            self.publisher.wake();
        }
        Ok(held)
    }

    /// It has said that it decides for this and nothing else; others may wait for that.
    pub(super) fn heard(&self, scope: Scope) {
        self.publisher.peers_locked().heard(self.id, scope);
        self.publisher.wake();
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let freed = self.publisher.peers_locked().leave(self.id, SystemClock.now());
        if freed {
            self.publisher.wake();
        }
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<proto::StateResponse, Status>> + Send>>;

#[tonic::async_trait]
impl StateService for Publisher {
    type StreamStream = Responses;

    async fn stream(&self, request: Request<Streaming<proto::StateRequest>>) -> Result<Response<Responses>, Status> {
        let shown = request.extensions().get::<Shown>().cloned();
        // Before it has a place: what it says of itself counts nowhere.
        if self.scope_of(shown.as_ref()).is_none() {
            return Err(self.unnamed(shown.as_ref()));
        }
        let place = self.register(shown.as_ref());
        let place = place.ok_or_else(|| Status::resource_exhausted("too many authz processes"))?;
        let session = Session::new(place, request.into_inner(), shown);
        let responses = futures_util::stream::unfold(session, Session::next);
        Ok(Response::new(Box::pin(responses)))
    }
}

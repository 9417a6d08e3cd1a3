//! Serving gRPC (HTTP/2) on connections whose other end is verified, with a graceful end.
//!
//! Hyper is driven directly: each connection is one owned task, and a request costs no layer that we
//! do not use.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::Response;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;

use crate::sys::grpc_use::Patience;
use crate::sys::grpc_use::Requests;
use crate::sys::grpc_use::Share;
use crate::sys::grpc_use::Shares;
use crate::sys::inbound::Candidate;
use crate::sys::inbound::Detached;
use crate::sys::inbound::Guard;
use crate::sys::inbound::Inbound;
use crate::sys::inbound::Shown;
use crate::sys::inbound::Unwelcome;
use crate::sys::room::Place;
use crate::sys::room::Room;
use crate::sys::sparing::Sparing;
use crate::sys::stream::VerifiedStream;
use crate::sys::tasks::Stop;

/// How long to wait after the system refused to accept, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a connection that was idle for too long may take to finish a request that came at the same moment.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);

/// Connections on their way to a thread. They come rarely: Envoy opens one per worker and keeps it.
const HANDED: usize = 16;

/// Bounds of a gRPC server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Threads of its own that share the connections; 0: the runtime of the caller serves them.
    pub threads: usize,
    /// Connections at a time (of each thread). Where all places are taken the oldest is closed whose other end is not
    /// verified yet, or has shown a certificate and asked for nothing; where there is none, further ones wait in the backlog.
    pub connections: usize,
    /// Connections at a time (of each thread) whose certificates have the same names; further ones are closed.
    pub of_one: usize,
    /// How long a connection with a certificate may have no request open.
    pub patience: Patience,
    /// Requests at a time on one connection.
    pub streams: u32,
    /// Bytes of one request that may be on their way before it is read.
    pub stream_window: u32,
    /// Bytes of all requests of one connection that may be on their way.
    pub connection_window: u32,
    /// How often a silent peer is asked whether it lives, and how long it may take to answer.
    pub keep_alive: (Duration, Duration),
    /// How long requests in flight may take once told to stop.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            threads: 0,
            connections: 1024,
            // Envoys have one certificate and a connection for each of their workers.
            of_one: 512,
            // They rest between two checks, and never before the first.
            patience: Patience { first: Duration::from_secs(5), later: None },
            streams: 1024,
            stream_window: 1 << 20,
            connection_window: 8 << 20,
            keep_alive: (Duration::from_secs(20), Duration::from_secs(10)),
            grace: Duration::from_secs(10),
        }
    }
}

/// What a service's answer looks like on its way.
pub type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Something that answers gRPC requests.
pub trait Answers: Clone + Send + Sync + 'static {
    /// Answers one request; a path it does not know gets `UNIMPLEMENTED`.
    fn answer(&self, request: Request<Incoming>) -> Answer;
}

/// One tonic service.
#[derive(Debug, Clone)]
pub struct One<S>(S);

/// Serves one tonic service and answers `UNIMPLEMENTED` to every other path.
pub const fn one<S>(service: S) -> One<S> {
    One(service)
}

/// Two tonic services: requests that are not for the first go to the second.
#[derive(Debug, Clone)]
pub struct Either<A, B>(pub A, pub B);

impl<S> Answers for One<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future = Answer>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
{
    fn answer(&self, request: Request<Incoming>) -> Answer {
        // tonic's services are ready at any time and answer unknown paths themselves.
        self.0.clone().call(request)
    }
}

impl<A, B> Answers for Either<A, B>
where
    A: Answers,
    B: Answers,
    A: Named,
{
    fn answer(&self, request: Request<Incoming>) -> Answer {
        if self.0.serves(request.uri().path()) { self.0.answer(request) } else { self.1.answer(request) }
    }
}

/// Knows which paths are its own.
pub trait Named {
    /// Whether `path` (`/package.Service/Method`) is for this service.
    fn serves(&self, path: &str) -> bool;
}

impl<S: NamedService> Named for One<S> {
    fn serves(&self, path: &str) -> bool {
        path.strip_prefix('/').and_then(|path| path.split_once('/')).is_some_and(|(service, _)| service == S::NAME)
    }
}

#[derive(Clone)]
struct Adapter<A> {
    answers: A,
    /// Who asks, where a certificate says so.
    shown: Option<Shown>,
    /// Counts the requests, where somebody wants to know.
    requests: Option<Arc<Requests>>,
}

impl<A: Answers> hyper::service::Service<Request<Incoming>> for Adapter<A> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(shown) = &self.shown {
            request.extensions_mut().insert(shown.clone());
        }
        let open = self.requests.as_ref().and_then(Requests::begin);
        let answer = self.answers.answer(request);
        match open {
            None => answer,
            Some(open) => Box::pin(async move {
                let answer = answer.await?;
                Ok(answer.map(|body| Body::new(open.until_end_of(body))))
            }),
        }
    }
}

/// Serves until told to stop; then takes no more connections, tells those there are to bring no more
/// requests, and waits for the requests in flight, at most `limits.grace`. Also ends where a thread of its own does.
pub async fn serve<A: Answers>(name: &'static str, inbound: Inbound, service: A, limits: Limits, stop: Stop) {
    let threads: Vec<_> = (0..limits.threads).filter_map(|_| start(name, &service, limits, &stop)).collect();
    if threads.is_empty() {
        return serve_here(name, Source::Inbound(inbound), service, limits, stop).await;
    }
    hand_out(name, Source::Inbound(inbound), threads, stop).await;
}

/// Gives each connection to the next thread. One that is gone would lose its share of them without a word: the server
/// ends, and whoever started it knows.
async fn hand_out(name: &'static str, mut source: Source, mut threads: Vec<Thread>, mut stop: Stop) {
    loop {
        let accepted = tokio::select! {
            () = stop.wait() => break,
            place = first_ended(&mut threads) => {
                threads.swap_remove(place);
                if !stop.is_called() {
                    tracing::error!(listener = name, "a thread has ended, and the server with it");
                }
                break;
            }
            accepted = source.next() => accepted,
        };
        let Some(accepted) = accepted else { break };
        match accepted.and_then(Candidate::detach) {
            Ok(connection) => {
                threads.rotate_left(1);
                let Some(thread) = threads.first() else { break };
                // That it has ended is noticed above.
                let _ = thread.queue.send(connection).await;
            }
            Err(error) => {
                tracing::warn!(listener = name, %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(source);
    for thread in threads {
        drop(thread.queue);
        // An error means that it has ended already.
        let _ = thread.ended.await;
    }
}

/// Returns the place of a thread that has ended, which must not be waited for again.
async fn first_ended(threads: &mut [Thread]) -> usize {
    futures_util::future::select_all(threads.iter_mut().map(|thread| &mut thread.ended)).await.1
}

/// A thread that serves connections.
struct Thread {
    queue: mpsc::Sender<Detached>,
    ended: oneshot::Receiver<()>,
}

/// Starts a thread with a runtime of its own. Requests then never change threads, which is what a short
/// request would pay most for. `None`: the system gave no thread.
fn start<A: Answers>(name: &'static str, service: &A, limits: Limits, stop: &Stop) -> Option<Thread> {
    let (queue, handed) = mpsc::channel(HANDED);
    let (end, ended) = oneshot::channel();
    let (service, stop) = (service.clone(), stop.clone());
    let work = move || {
        match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(serve_here(name, Source::Handed(handed), service, limits, stop)),
            Err(error) => tracing::error!(listener = name, %error, "a thread has no runtime"),
        }
        // Nobody waits where the server was dropped.
        let _ = end.send(());
    };
    match std::thread::Builder::new().name(name.to_owned()).spawn(work) {
        Ok(_) => Some(Thread { queue, ended }),
        Err(error) => {
            tracing::error!(listener = name, %error, "a thread could not be started");
            None
        }
    }
}

/// Where a server's connections come from.
enum Source {
    Inbound(Inbound),
    Handed(mpsc::Receiver<Detached>),
}

impl Source {
    /// The next connection; `None`: there will be no more.
    async fn next(&mut self) -> Option<io::Result<Candidate>> {
        match self {
            Self::Inbound(inbound) => Some(inbound.accept().await),
            Self::Handed(handed) => handed.recv().await.map(Detached::attach),
        }
    }
}

async fn serve_here<A: Answers>(name: &'static str, mut source: Source, service: A, limits: Limits, mut stop: Stop) {
    let door = Arc::new(Door { name, limits, refusals: Sparing::default(), shares: Arc::default() });
    // A connection costs a stranger nothing: while it is unknown who is at its other end it makes room for others.
    let room = Room::guarded(limits.connections);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.wait() => break,
            Some(_) = connections.join_next() => {}
            accepted = accept(&mut source, &room) => match accepted {
                Ok(Some((candidate, place))) => {
                    connections.spawn(connection(Arc::clone(&door), candidate, place, service.clone(), stop.clone()));
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(listener = name, %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(source);
    let rest = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.grace, rest).await.is_err() {
        tracing::warn!(listener = name, "requests were still in flight at the end of the grace period");
        connections.shutdown().await;
    }
}

/// What all connections of a listener have in common.
struct Door {
    name: &'static str,
    limits: Limits,
    /// Speaks of those that were refused.
    refusals: Sparing,
    /// Who has how many.
    shares: Arc<Shares>,
}

/// A connection whose other end is known.
struct Known {
    stream: VerifiedStream,
    guard: Guard,
    shown: Option<Shown>,
    /// Where a certificate says who it is.
    _share: Option<Share>,
}

impl Door {
    async fn know(&self, candidate: Candidate) -> Result<Known, Unwelcome> {
        let (stream, guard) = candidate.verify().await?;
        let shown = guard.shown();
        let share = match &shown {
            None => None,
            Some(Shown { names, .. }) => {
                let crowded = || Unwelcome::Crowded(names.first().cloned().unwrap_or_default());
                Some(self.shares.take(names, self.limits.of_one).ok_or_else(crowded)?)
            }
        };
        Ok(Known { stream, guard, shown, _share: share })
    }
}

/// The next connection, and its place; `None`: there will be no more.
async fn accept(source: &mut Source, room: &Arc<Room>) -> io::Result<Option<(Candidate, Place)>> {
    // Room first: a connection that cannot be served is better left in the backlog.
    let place = room.take().await.map_err(io::Error::other)?;
    Ok(source.next().await.transpose()?.map(|candidate| (candidate, place)))
}

async fn connection<A: Answers>(door: Arc<Door>, candidate: Candidate, place: Place, service: A, mut stop: Stop) {
    let Door { name, limits, refusals, .. } = &*door;
    let known = tokio::select! {
        known = door.know(candidate) => known,
        () = place.told_to_leave() => {
            tracing::debug!(listener = name, "a connection made room for others before it was known whose it is");
            return;
        }
    };
    let Known { stream, guard, shown, _share } = match known {
        Ok(known) => known,
        Err(reason) => {
            match refusals.turn() {
                Some(unsaid) => tracing::warn!(listener = name, %reason, unsaid, "a connection was refused"),
                None => tracing::debug!(listener = name, %reason, "a connection was refused"),
            }
            return;
        }
    };
    let requests = shown.is_some().then(|| Requests::new(limits.patience));
    if requests.is_none() {
        place.admission().admit();
    }
    // Whoever has a certificate is let in with his first request: a connection alone costs him nothing.
    let idle = async {
        match &requests {
            Some(requests) => requests.idle(|| place.admission().admit()).await,
            None => std::future::pending().await,
        }
    };
    let (interval, timeout) = limits.keep_alive;
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .keep_alive_interval(interval)
        .keep_alive_timeout(timeout)
        .serve_connection(TokioIo::new(stream), Adapter { answers: service, shown, requests: requests.clone() });
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = guard.withdrawn() => {
            // Not gracefully: whoever is not trusted any more gets nothing more.
            tracing::warn!(listener = name, "a connection was ended: its certificate is not accepted any more");
            return;
        }
        () = idle => {
            tracing::debug!(listener = name, "a connection was ended: it asked for nothing");
            served.as_mut().graceful_shutdown();
            // An error means that it does not take the end.
            let Ok(ended) = tokio::time::timeout(LEAVE_PATIENCE, served).await else { return };
            ended
        }
        () = place.told_to_leave() => {
            tracing::debug!(listener = name, "a connection made room for others before it asked for anything");
            return;
        }
        () = stop.wait() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        // Peers come and go; which one broke off is of interest only when looking for it.
        tracing::debug!(listener = name, %error, "a connection broke off");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use tokio::net::UnixListener;
    use tokio::sync::watch;

    use super::*;
    use crate::sys::tasks;

    #[tokio::test]
    async fn the_server_ends_with_a_thread_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let source = Source::Inbound(Inbound::Unix { listener, peers: watch::channel(None).1 });
        let (queue, _handed) = mpsc::channel(HANDED);
        let (end, ended) = oneshot::channel();
        let (_stop, stopped) = tasks::stop_pair();
        drop(end);
        let serving = hand_out("test", source, vec![Thread { queue, ended }], stopped);
        tokio::time::timeout(Duration::from_secs(20), serving).await.unwrap();
    }
}

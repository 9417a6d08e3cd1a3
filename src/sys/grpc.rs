//! Serving gRPC (HTTP/2) on connections whose other end is verified, with a graceful end.
//!
//! Hyper is driven directly: each connection is one owned task, and a request costs no layer that we
//! do not use.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
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

use crate::sys::inbound::Candidate;
use crate::sys::inbound::Detached;
use crate::sys::inbound::Inbound;
use crate::sys::inbound::Shown;
use crate::sys::tasks::Stop;

/// How long to wait after the system refused to accept, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections on their way to a thread. They come rarely: Envoy opens one per worker and keeps it.
const HANDED: usize = 16;

/// Bounds of a gRPC server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Threads of its own that share the connections; 0: the runtime of the caller serves them.
    pub threads: usize,
    /// Connections at a time (of each thread); further ones wait in the backlog.
    pub connections: usize,
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
}

impl<A: Answers> hyper::service::Service<Request<Incoming>> for Adapter<A> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(shown) = &self.shown {
            request.extensions_mut().insert(shown.clone());
        }
        self.answers.answer(request)
    }
}

/// Serves until told to stop; then takes no more connections, tells those there are to bring no more
/// requests, and waits for the requests in flight, at most `limits.grace`.
pub async fn serve<A: Answers>(name: &'static str, inbound: Inbound, service: A, limits: Limits, mut stop: Stop) {
    let threads: Vec<_> = (0..limits.threads).filter_map(|_| start(name, &service, limits, &stop)).collect();
    if threads.is_empty() {
        return serve_here(name, Source::Inbound(inbound), service, limits, stop).await;
    }
    let mut source = Source::Inbound(inbound);
    let mut turns = threads.iter().cycle();
    loop {
        let accepted = tokio::select! {
            () = stop.wait() => break,
            accepted = source.next() => accepted,
        };
        match (accepted.and_then(|accepted| accepted.and_then(Candidate::detach).ok()), turns.next()) {
            (Some(connection), Some(thread)) => {
                // A thread that is gone drops what it is handed; the others go on.
                let _ = thread.queue.send(connection).await;
            }
            (Some(_), None) => break,
            (None, _) => {
                tracing::warn!(listener = name, "a connection could not be accepted");
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
    let mut connections = JoinSet::new();
    loop {
        let room = connections.len() < limits.connections;
        tokio::select! {
            () = stop.wait() => break,
            Some(_) = connections.join_next() => {}
            accepted = source.next(), if room => match accepted {
                Some(Ok(candidate)) => {
                    connections.spawn(connection(name, candidate, service.clone(), limits, stop.clone()));
                }
                Some(Err(error)) => {
                    tracing::warn!(listener = name, %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                None => break,
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

async fn connection<A: Answers>(name: &'static str, candidate: Candidate, service: A, limits: Limits, mut stop: Stop) {
    let (stream, guard) = match candidate.verify().await {
        Ok(verified) => verified,
        Err(reason) => {
            tracing::warn!(listener = name, %reason, "a connection was refused");
            return;
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
        .serve_connection(TokioIo::new(stream), Adapter { answers: service, shown: guard.shown() });
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = guard.withdrawn() => {
            // Not gracefully: whoever is not trusted any more gets nothing more.
            tracing::warn!(listener = name, "a connection was ended: its certificate is not accepted any more");
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

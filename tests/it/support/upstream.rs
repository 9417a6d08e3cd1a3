//! A provider: a real HTTP server that remembers what it was sent and answers by path.
//!
//! `…/bytes/{n}` n patterned bytes; `…/redirect` a redirect back to itself, credential and all;
//! `…/cookies` headers that must not reach an agent; `…/stream` what the test feeds, piece by piece;
//! `…/status/{code}` that status; anything else 200 and `{"ok":true}`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use hyper::body::Frame;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

/// The runtime of everything in the tests that is asynchronous.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
}

/// One request as it arrived at the provider.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_str())
    }

    /// All names.
    pub fn names(&self) -> Vec<&str> {
        self.headers.iter().map(|(name, _)| name.as_str()).collect()
    }
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    feed: Mutex<Option<mpsc::Receiver<Bytes>>>,
}

/// A running provider on a port of its own; gone when dropped.
pub struct Upstream {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    /// Starts on 127.0.0.1.
    pub fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let task = runtime().spawn(serve(listener, Arc::clone(&shared)));
        Self { address, shared, task }
    }

    /// `http://127.0.0.1:port`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything received so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The only request received so far.
    pub fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:#?}");
        seen[0].clone()
    }

    /// How many requests were received.
    pub fn count(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    /// Whether nothing was received.
    pub fn untouched(&self) -> bool {
        self.count() == 0
    }

    /// What the next request for `…/stream` is answered with; the answer ends when this is dropped.
    pub fn feed(&self) -> mpsc::Sender<Bytes> {
        let (sender, receiver) = mpsc::channel(1);
        *self.shared.feed.lock().unwrap() = Some(receiver);
        sender
    }
}

/// The bytes `…/bytes/{n}` answers with.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at.wrapping_mul(31) ^ (at >> 8)) & 0xff).unwrap()).collect()
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
            // A client that goes away is part of some tests.
            let _ = hyper::server::conn::http1::Builder::new()
                .max_buf_size(1 << 20)
                .max_headers(400)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

type Answer = http::Response<BoxBody<Bytes, Infallible>>;

async fn answer(request: http::Request<Incoming>, shared: Arc<Shared>) -> Result<Answer, Infallible> {
    let (parts, body) = request.into_parts();
    let seen = Seen {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect(),
        body: match body.collect().await {
            Ok(body) => body.to_bytes().to_vec(),
            // A request that breaks off never arrived as a whole; it still counts as received.
            Err(_) => b"(broken off)".to_vec(),
        },
    };
    let target = seen.target.clone();
    shared.seen.lock().unwrap().push(seen);
    let path = parts.uri.path();
    let response = http::Response::builder();
    let built = if let Some((_, length)) = path.split_once("/bytes/") {
        response.status(200).body(whole(pattern(length.parse().unwrap_or(0))))
    } else if let Some((_, code)) = path.split_once("/status/") {
        response.status(code.parse::<u16>().unwrap_or(500)).body(whole(b"status".to_vec()))
    } else if path.ends_with("/redirect") {
        response
            .status(302)
            .header("location", format!("http://elsewhere.example{target}"))
            .header("content-location", target.clone())
            .header("link", format!("<{target}>; rel=\"next\""))
            .header("refresh", format!("5; url={target}"))
            .body(whole(Vec::new()))
    } else if path.ends_with("/cookies") {
        response
            .status(200)
            .header("set-cookie", "session=provider")
            .header("alt-svc", "h3=\":443\"")
            .header("strict-transport-security", "max-age=31536000")
            .header("clear-site-data", "\"*\"")
            .header("x-envoy-upstream-service-time", "7")
            .header("x-provider", "kept")
            .body(whole(b"cookies".to_vec()))
    } else if path.ends_with("/stream") {
        match shared.feed.lock().unwrap().take() {
            Some(feed) => response
                .status(200)
                .header("content-type", "text/event-stream")
                .body(BodyExt::boxed(StreamBody::new(ReceiverStream::new(feed).map(|piece| Ok(Frame::data(piece)))))),
            None => response.status(500).body(whole(b"no feed".to_vec())),
        }
    } else {
        response.status(200).header("content-type", "application/json").body(whole(b"{\"ok\":true}".to_vec()))
    };
    Ok(built.unwrap())
}

fn whole(body: Vec<u8>) -> BoxBody<Bytes, Infallible> {
    Full::new(Bytes::from(body)).boxed()
}

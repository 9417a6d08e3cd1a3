//! What answers Envoy's checks as a test says: genuine answers, or bytes that no authz would send. It calls itself healthy.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http::Request;
use http::Response;
use http_body_util::BodyExt as _;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use super::upstream::runtime;

/// A `HealthCheckResponse` that says `SERVING`, framed.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 0x01];

/// One answer to a check.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Status line, headers, body and trailers as they are.
    Raw {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
        trailers: Option<Vec<(&'static str, String)>>,
    },
    /// The stream is reset.
    Reset,
}

impl Reply {
    /// A gRPC answer that went well, with this message, whatever it is.
    pub fn message(message: &[u8]) -> Self {
        let length = u32::try_from(message.len()).unwrap();
        let framed = [&[0][..], &length.to_be_bytes(), message].concat();
        Self::grpc(framed, "0")
    }

    /// A gRPC answer of these bytes, framed or not, that ends with this status.
    pub fn grpc(body: Vec<u8>, status: &str) -> Self {
        Self::Raw {
            status: 200,
            headers: vec![("content-type", "application/grpc".to_owned())],
            body,
            trailers: Some(vec![("grpc-status", status.to_owned())]),
        }
    }
}

type Script = dyn Fn() -> Reply + Send + Sync;

/// Serves until it is dropped.
pub struct FakeAuthz {
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for FakeAuthz {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeAuthz {
    /// Listens on this socket and answers each check with what `script` says.
    pub fn start(socket: &Path, script: impl Fn() -> Reply + Send + Sync + 'static) -> Self {
        let (asked, script): (Arc<AtomicUsize>, Arc<Script>) = (Arc::default(), Arc::new(script));
        let _runtime = runtime().enter();
        let listener = UnixListener::bind(socket).unwrap();
        let counted = Arc::clone(&asked);
        let task = runtime().spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (counted, script) = (Arc::clone(&counted), Arc::clone(&script));
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let health = request.uri().path() == "/grpc.health.v1.Health/Check";
                        let reply = if health { Reply::grpc(SERVING.to_vec(), "0") } else { script() };
                        if !health {
                            counted.fetch_add(1, Ordering::AcqRel);
                        }
                        async move {
                            // What was asked is read to its end, as a gRPC server does.
                            let _ = request.into_body().collect().await;
                            answer(reply)
                        }
                    });
                    // Envoy may leave at any time, and does where it was answered with nonsense.
                    let _ =
                        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { asked, task }
    }

    /// How many checks were asked for.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Acquire)
    }
}

type Frames = StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

/// An error resets the stream.
fn answer(reply: Reply) -> io::Result<Response<Frames>> {
    let Reply::Raw { status, headers, body, trailers } = reply else { return Err(io::Error::other("reset")) };
    let mut frames = vec![Ok(Frame::data(Bytes::from(body)))];
    if let Some(trailers) = trailers {
        let mut map = HeaderMap::new();
        for (name, value) in trailers {
            map.append(name, value.parse().unwrap());
        }
        frames.push(Ok(Frame::trailers(map)));
    }
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    Ok(response.body(StreamBody::new(stream::iter(frames))).unwrap())
}

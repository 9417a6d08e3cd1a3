//! A collector of traces: a real OTLP server that remembers the spans it was sent and the headers they came with.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceService;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceServiceServer;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Request;
use tonic::Response;
use tonic::Status;

use super::gateway::LIMIT;
use super::upstream::runtime;

/// One span, with its ids in hex.
#[derive(Debug, Clone)]
pub struct Span {
    pub trace: String,
    pub id: String,
    /// Empty where it has none.
    pub parent: String,
    pub kind: SpanKind,
    /// `envoy` or `sigilum.authz`.
    pub scope: String,
    pub attributes: BTreeMap<String, String>,
    pub service: String,
    pub nanos: u64,
}

#[derive(Debug, Default)]
struct Shared {
    spans: Mutex<Vec<Span>>,
    /// Everything that came, as it was printed: messages and headers.
    raw: Mutex<String>,
    headers: Mutex<Vec<String>>,
}

/// A running collector; gone when dropped.
pub struct Collector {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Collector {
    /// Starts on 127.0.0.1.
    pub fn start() -> Self {
        let shared = Arc::<Shared>::default();
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(Service(Arc::clone(&shared)));
        let serving = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        let task = runtime().spawn(async move { serving.await.unwrap() });
        Self { address, shared, task }
    }

    /// `http://127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.shared.spans.lock().unwrap().clone()
    }

    /// Everything received, printed.
    pub fn raw(&self) -> String {
        self.shared.raw.lock().unwrap().clone()
    }

    /// The `authorization` each message came with.
    pub fn authorizations(&self) -> Vec<String> {
        self.shared.headers.lock().unwrap().clone()
    }

    /// The spans of the trace that has a span with this decision's id, once `count` of them are there.
    pub fn trace_of(&self, decision_id: &str, count: usize) -> Vec<Span> {
        let begun = Instant::now();
        loop {
            let all = self.spans();
            let has = |span: &&Span| span.attributes.get("sigilum.decision_id").is_some_and(|id| id == decision_id);
            let trace = all.iter().find(has).map(|span| span.trace.clone());
            let found: Vec<_> = all.into_iter().filter(|span| Some(&span.trace) == trace.as_ref()).collect();
            if found.len() >= count {
                return found;
            }
            assert!(begun.elapsed() < LIMIT, "not {count} spans of {decision_id}: {:#?}", self.spans());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

struct Service(Arc<Shared>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let header = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        self.0.headers.lock().unwrap().push(header.unwrap_or_default());
        let message = request.into_inner();
        self.0.raw.lock().unwrap().push_str(&format!("{message:?}\n"));
        let mut spans = self.0.spans.lock().unwrap();
        for resource in message.resource_spans {
            let service = texts(&resource.resource.unwrap().attributes).remove("service.name").unwrap();
            for scope in resource.scope_spans {
                let name = scope.scope.unwrap().name;
                spans.extend(scope.spans.into_iter().map(|span| Span {
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    kind: span.kind(),
                    scope: name.clone(),
                    attributes: texts(&span.attributes),
                    service: service.clone(),
                    nanos: span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
                }));
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| if let Value::StringValue(text) = value { text.clone() } else { format!("{value:?}") };
    let value = |attribute: &KeyValue| attribute.value.as_ref().and_then(|value| value.value.as_ref()).map(text);
    attributes.iter().map(|attribute| (attribute.key.clone(), value(attribute).unwrap_or_default())).collect()
}

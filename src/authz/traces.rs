//! Spans on their way to a collector: the decision's own and Envoy's, gathered, sent in batches, and given up where
//! nobody takes them. No decision ever waits for this.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::mpsc;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::metadata::AsciiMetadataKey;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;

use crate::domain::snapshot::Snapshot;
use crate::domain::trace::Collector;
use crate::sys::grpc_client;
use crate::sys::http::chain;
use crate::sys::random;
use crate::sys::tasks::Stop;
use crate::telemetry::metrics::SPAN_RESULTS;
use crate::wire::otlp;
use crate::wire::otlp::DecisionSpan;
use crate::wire::otlp::ExportTraceServiceRequest;
use crate::wire::otlp::ExportTraceServiceResponse;
use crate::wire::otlp::Origin;
use crate::wire::otlp::Span;
use crate::wire::otlp::TraceService;
use crate::wire::otlp::TraceServiceClient;

/// Spans that wait, half a kilobyte each. More means that the collector is slow or away: further ones are given up.
const WAITING: usize = 4096;
/// Spans of one message.
const BATCH: usize = 512;
/// How long the first span of a message waits for others.
const LINGER: Duration = Duration::from_secs(1);
/// How long the collector may take for a message.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same at the end, when we are waited for.
const LAST_PATIENCE: Duration = Duration::from_secs(1);
/// First pause after a message that was not taken; doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Takes spans. A clone is another handle.
#[derive(Debug, Clone)]
pub struct Traces {
    state: Arc<ArcSwapOption<Snapshot>>,
    queue: mpsc::Sender<(Origin, Span)>,
    counts: Arc<Counts>,
}

/// Spans by what became of them.
#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl Traces {
    /// Both ends. `state` says whether there is a collector.
    pub fn new(state: Arc<ArcSwapOption<Snapshot>>) -> (Self, Exporter) {
        let (queue, spans) = mpsc::channel(WAITING);
        let counts = Arc::<Counts>::default();
        let exporter = Exporter { state: Arc::clone(&state), spans, counts: Arc::clone(&counts), target: None };
        (Self { state, queue, counts }, exporter)
    }

    /// Whether somebody wants spans.
    pub fn are_wanted(&self) -> bool {
        collector(&self.state).is_some()
    }

    /// Keeps the span of a decision.
    pub fn record(&self, decision: &DecisionSpan<'_>) {
        self.keep(Origin::Authz, decision.encode());
    }

    /// What became of spans so far, by the names of [`SPAN_RESULTS`].
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Counts { exported, dropped, failed } = &*self.counts;
        let counts = [exported, dropped, failed].map(|count| count.load(Ordering::Relaxed));
        SPAN_RESULTS.into_iter().zip(counts)
    }

    fn keep(&self, origin: Origin, span: Span) {
        if self.queue.try_send((origin, span)).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn collector(state: &ArcSwapOption<Snapshot>) -> Option<Arc<Collector>> {
    state.load().as_ref().and_then(|snapshot| snapshot.settings.traces.clone())
}

/// Envoy leaves its spans with us: it then needs to know neither the collector nor what that wants to see.
#[tonic::async_trait]
impl TraceService for Traces {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if self.are_wanted() {
            for span in otlp::of_envoy(request.into_inner()) {
                self.keep(Origin::Envoy, span);
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Sends them.
#[derive(Debug)]
pub struct Exporter {
    state: Arc<ArcSwapOption<Snapshot>>,
    spans: mpsc::Receiver<(Origin, Span)>,
    counts: Arc<Counts>,
    target: Option<Target>,
}

/// A collector, and how it is spoken to.
#[derive(Debug)]
struct Target {
    collector: Arc<Collector>,
    client: TraceServiceClient<Channel>,
}

impl Exporter {
    /// Sends until told to stop; then what is left, once.
    pub async fn run(mut self, mut stop: Stop) {
        let (mut pause, mut said) = (MIN_PAUSE, false);
        while let Some(batch) = self.gather(&mut stop).await {
            let count = batch.len();
            match self.send(batch, PATIENCE).await {
                Ok(()) => {
                    self.count(|counts| &counts.exported, count);
                    (pause, said) = (MIN_PAUSE, false);
                    continue;
                }
                Err(reason) => {
                    self.count(|counts| &counts.failed, count);
                    // Once per outage: it may be long, and nobody else is concerned.
                    if !said {
                        tracing::warn!(reason, "the collector does not take spans; they are given up");
                        said = true;
                    }
                }
            }
            tokio::select! {
                () = stop.wait() => {}
                () = tokio::time::sleep(random::jittered(pause)) => {}
            }
            pause = pause.saturating_mul(2).min(MAX_PAUSE);
        }
        let mut left = Vec::new();
        while let Ok(span) = self.spans.try_recv() {
            left.push(span);
        }
        let count = left.len();
        if count > 0 {
            let sent = self.send(left, LAST_PATIENCE).await.is_ok();
            self.count(|counts| if sent { &counts.exported } else { &counts.failed }, count);
        }
    }

    fn count(&self, which: impl Fn(&Counts) -> &AtomicU64, spans: usize) {
        which(&self.counts).fetch_add(u64::try_from(spans).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The next batch; `None` at the stop.
    async fn gather(&mut self, stop: &mut Stop) -> Option<Vec<(Origin, Span)>> {
        let mut batch = Vec::new();
        tokio::select! {
            () = stop.wait() => return None,
            taken = self.spans.recv_many(&mut batch, BATCH) => {
                if taken == 0 {
                    return None;
                }
            }
        }
        let late = tokio::time::sleep(LINGER);
        tokio::pin!(late);
        while batch.len() < BATCH {
            let room = BATCH.saturating_sub(batch.len());
            tokio::select! {
                () = stop.wait() => break,
                () = &mut late => break,
                taken = self.spans.recv_many(&mut batch, room) => if taken == 0 { break },
            }
        }
        Some(batch)
    }

    async fn send(&mut self, spans: Vec<(Origin, Span)>, patience: Duration) -> Result<(), String> {
        let Some(collector) = collector(&self.state) else { return Err("there is no collector".to_owned()) };
        if self.target.as_ref().is_none_or(|target| target.collector != collector) {
            let channel = grpc_client::lazy(&collector.endpoint).map_err(|error| chain(&error))?;
            self.target = Some(Target { collector: Arc::clone(&collector), client: TraceServiceClient::new(channel) });
        }
        let Some(target) = &mut self.target else { return Err("there is no collector".to_owned()) };
        let message = otlp::request(&collector.service_name, env!("CARGO_PKG_VERSION"), spans);
        let mut request = Request::new(message);
        for (name, value) in &collector.headers {
            let key: AsciiMetadataKey = name.parse().map_err(|_| "a header has no name".to_owned())?;
            let mut value: AsciiMetadataValue =
                value.expose().parse().map_err(|_| "a header has no value".to_owned())?;
            value.set_sensitive(true);
            request.metadata_mut().insert(key, value);
        }
        match tokio::time::timeout(patience, target.client.export(request)).await {
            Ok(Ok(_)) => Ok(()),
            // The text is the collector's, and may repeat what it was sent.
            Ok(Err(status)) => Err(format!("{:?}", status.code())),
            Err(_) => Err("it does not answer in time".to_owned()),
        }
    }
}

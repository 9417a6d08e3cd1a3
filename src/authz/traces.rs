//! Spans on their way to a collector: the decision's own and Envoy's, gathered, sent in batches, and given up where
//! nobody takes them. No decision ever waits for this.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
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

use crate::domain::limits::TokenBucket;
use crate::domain::snapshot::Snapshot;
use crate::domain::time::MonotonicMillis;
use crate::domain::trace::Collector;
use crate::sys::grpc_client;
use crate::sys::http::chain;
use crate::sys::random;
use crate::sys::tasks::Stop;
use crate::telemetry::metrics::SPAN_RESULTS;
use crate::wire::otlp;
use crate::wire::otlp::About;
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
/// Refusals whose spans are kept, per second in the long run.
const REFUSALS_PER_SECOND: u32 = 10;
/// The same at once.
const REFUSAL_BURST: u32 = 100;
/// Decisions whose spans of Envoy's are waited for: a second of three thousand traced requests, five times, for Envoy sends
/// its spans every five seconds. About a megabyte.
const GRANTED: usize = 16 * 1024;
/// Longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Takes spans. A clone is another handle.
#[derive(Debug, Clone)]
pub struct Traces {
    state: Arc<ArcSwapOption<Snapshot>>,
    queue: mpsc::Sender<(Origin, Span)>,
    counts: Arc<Counts>,
    grants: Arc<Mutex<Grants>>,
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
        let grants = Arc::new(Mutex::new(Grants::default()));
        (Self { state, queue, counts, grants }, exporter)
    }

    /// Whether somebody wants spans.
    pub fn are_wanted(&self) -> bool {
        collector(&self.state).is_some()
    }

    /// Keeps the span of a decision, and from now on what Envoy tells of the same request. Of refusals only as many as there is
    /// room for: anybody can be refused, and say with each request that it is to be traced.
    pub fn record(&self, decision: &DecisionSpan<'_>, now: MonotonicMillis) {
        if self.grants().grant(decision, now) {
            self.keep(Origin::Authz, decision.encode());
        } else {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn grants(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Whose spans of Envoy's are wanted: those of decisions that were traced. Envoy sends its spans seconds later.
#[derive(Debug, Default)]
struct Grants {
    /// `None`: nothing was refused yet.
    refusals: Option<TokenBucket>,
    /// Ids of decisions, as numbers.
    decisions: Last<u128>,
    /// Ids of Envoy's spans of the questions.
    checks: Last<[u8; 8]>,
}

impl Grants {
    fn grant(&mut self, decision: &DecisionSpan<'_>, now: MonotonicMillis) -> bool {
        if decision.reason.is_some() {
            let refusals = self.refusals.get_or_insert_with(|| TokenBucket::full(REFUSAL_BURST, now));
            if !refusals.take(REFUSALS_PER_SECOND, REFUSAL_BURST, now) {
                return false;
            }
        }
        self.checks.add(decision.context.parent);
        if let Some(id) = number(decision.decision_id) {
            self.decisions.add(id);
        }
        true
    }

    fn cover(&self, about: About<'_>) -> bool {
        match about {
            About::Request(id) => number(id).is_some_and(|id| self.decisions.known.contains(&id)),
            About::Check(id) => self.checks.known.contains(&id),
            About::Try => true,
        }
    }
}

/// The id of a decision, which is a UUID.
fn number(id: &str) -> Option<u128> {
    u128::from_str_radix(&id.replace('-', ""), 16).ok()
}

/// The last [`GRANTED`] of something.
#[derive(Debug)]
struct Last<T> {
    known: HashSet<T>,
    order: VecDeque<T>,
}

impl<T> Default for Last<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), order: VecDeque::new() }
    }
}

impl<T: Copy + Eq + Hash> Last<T> {
    fn add(&mut self, one: T) {
        if !self.known.insert(one) {
            return;
        }
        self.order.push_back(one);
        if self.order.len() > GRANTED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
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
            let spans = {
                let grants = self.grants();
                otlp::of_envoy(request.into_inner(), |about| grants.cover(about))
            };
            spans.into_iter().for_each(|span| self.keep(Origin::Envoy, span));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::trace::TraceContext;

    fn decision(number: u64, reason: Option<&'static str>, id: &str, grants: &mut Grants, now: u64) -> bool {
        let context = TraceContext { trace_id: [1; 16], parent: number.to_be_bytes(), sampled: true };
        let stage = "head";
        let span = DecisionSpan {
            context,
            span_id: [1; 8],
            stage,
            began: 0,
            ended: 1,
            decision_id: id,
            connection: None,
            reason,
        };
        grants.grant(&span, MonotonicMillis(now))
    }

    fn id(number: u64) -> String {
        format!("00000000-0000-8000-8000-{number:012x}")
    }

    #[test]
    fn refusals_have_a_budget_and_requests_that_pass_have_none() {
        let mut grants = Grants::default();
        let refused = (0..1000).filter(|number| decision(*number, Some("x"), &id(*number), &mut grants, 0)).count();
        assert_eq!(refused, REFUSAL_BURST as usize);
        assert!((1000..2000).all(|number| decision(number, None, &id(number), &mut grants, 0)));
        let later = (2000..3000).filter(|number| decision(*number, Some("x"), &id(*number), &mut grants, 1000)).count();
        assert_eq!(later, REFUSALS_PER_SECOND as usize);
    }

    #[test]
    fn of_envoys_spans_those_of_traced_decisions_are_wanted() {
        let mut grants = Grants::default();
        for number in 0..200 {
            decision(number, Some("x"), &id(number), &mut grants, 0);
        }
        assert!(grants.cover(About::Request(&id(0))) && grants.cover(About::Check(0_u64.to_be_bytes())));
        // One trace id for all of them changes nothing.
        assert!(!grants.cover(About::Request(&id(199))) && !grants.cover(About::Check(199_u64.to_be_bytes())));
        assert!(grants.cover(About::Try) && !grants.cover(About::Request("")));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut grants = Grants::default();
        let many = GRANTED as u64 + 10;
        assert!((0..many).all(|number| decision(number, None, &id(number), &mut grants, 0)));
        assert_eq!((grants.decisions.known.len(), grants.checks.order.len()), (GRANTED, GRANTED));
        assert!(!grants.cover(About::Request(&id(0))) && grants.cover(About::Request(&id(many - 1))));
    }
}

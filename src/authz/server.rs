//! Serving checks and health on verified connections, and leaving in order.

use std::fmt;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::authorization_server::AuthorizationServer;
use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthReporter;
use tonic_health::server::HealthService;

use crate::authz::health::Certificate;
use crate::authz::health::Told;
use crate::authz::service::Authz;
use crate::authz::service::Standing;
use crate::sys::clock::Clock;
use crate::sys::grpc;
use crate::sys::grpc::Either;
use crate::sys::grpc::Limits;
use crate::sys::inbound::Inbound;
use crate::sys::tasks;
use crate::sys::tasks::Stop;
use crate::wire::otlp::TraceServiceServer;

/// The service whose health Envoy asks for.
const SERVICE: &str = "envoy.service.auth.v3.Authorization";
/// What is asked by whoever wants to know whether admin speaks to us: without, decisions go on with what was received.
pub const FED: &str = "sigilum.gateway.v1.StateService";
/// How often it is looked whether requests would be decided: a window grows old, a store goes away, a volume has room again,
/// without a word.
const LOOK: Duration = Duration::from_millis(100);
/// What a check carries besides the body: header fields and their framing. Envoy admits 160 KiB of them.
const HEADROOM: usize = 1 << 20;

/// Envoy spends about twice as long on a request as we do: one thread of ours keeps up with two of its workers.
const PROCESSORS_PER_THREAD: usize = 3;
/// More threads than this were never measured.
const MAX_THREADS: usize = 16;

/// The gRPC server of authz.
pub struct Server<C> {
    authz: Arc<Authz<C>>,
    max_body: usize,
    /// How long checks are still decided after health was withdrawn.
    pause: Duration,
    limits: Limits,
    certificate: Certificate,
}

impl<C> fmt::Debug for Server<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Server").field("pause", &self.pause).finish_non_exhaustive()
    }
}

impl<C: Clock> Server<C> {
    /// `max_body` is the largest request body in bytes; `pause` is how long checks are decided after
    /// health was withdrawn, so that Envoy can turn elsewhere; `grace` how long those in flight may take.
    pub fn new(authz: Arc<Authz<C>>, max_body: u64, pause: Duration, grace: Duration) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = processors.div_ceil(PROCESSORS_PER_THREAD).min(MAX_THREADS);
        let max_body = usize::try_from(max_body).unwrap_or(usize::MAX).saturating_add(HEADROOM);
        let limits = Limits { threads, grace, ..Limits::default() };
        Self { authz, max_body, pause, limits, certificate: Arc::new(|| None) }
    }

    /// The same with a certificate that is shown to admin, for whoever asks for its health.
    #[must_use]
    pub fn showing(self, certificate: Certificate) -> Self {
        Self { certificate, ..self }
    }

    /// Serves until told to stop. Health says at any time how it stands (state, drain, journal, window, store), and `NOT_SERVING` as the first thing
    /// that happens at the stop; that of [`FED`] is what `fed` says. `arrived` tells of a first state at once. At `leave`, when
    /// a successor listens in our place already, health stays as it is, and every check that still comes is decided.
    pub async fn run(
        self,
        inbound: Inbound,
        (mut arrived, mut fed): (watch::Receiver<bool>, watch::Receiver<bool>),
        leave: impl Future<Output = ()>,
        mut stop: Stop,
    ) {
        let health = HealthReporter::new();
        // The reporter is born serving.
        say(&health, Standing::default()).await;
        health.set_service_status(FED, ServingStatus::NotServing).await;
        let checks = AuthorizationServer::from_arc(Arc::clone(&self.authz)).max_decoding_message_size(self.max_body);
        let asked = Arc::clone(&self.authz);
        let why = Arc::new(move || asked.standing().why);
        let answers =
            Told::new(HealthService::from_health_reporter(health.clone()), Arc::clone(&self.certificate), why);
        let answers = HealthServer::new(answers);
        let spans = TraceServiceServer::new(self.authz.traces().clone());
        let services = Either(grpc::one(checks), Either(grpc::one(spans), grpc::one(answers)));
        let (end, ended) = tasks::stop_pair();
        let (ended_again, mut served) = (ended.clone(), ended.clone());
        let over = end.clone();
        let serving = async {
            grpc::serve("authz", inbound, services, self.limits, ended).await;
            // Also where nobody told it to.
            over.stop();
        };
        let feeding = async {
            let mut ended = ended_again;
            loop {
                let status = if *fed.borrow_and_update() { ServingStatus::Serving } else { ServingStatus::NotServing };
                health.set_service_status(FED, status).await;
                tokio::select! {
                    () = ended.wait() => return,
                    Ok(()) = fed.changed() => {}
                    else => return,
                }
            }
        };
        let steering = async {
            let mut leave = std::pin::pin!(leave);
            let mut told = Standing::default();
            loop {
                self.authz.tend();
                let now = self.authz.standing();
                if now != told {
                    say(&health, now).await;
                }
                match (told.ready, now.ready) {
                    (false, true) => tracing::info!("ready: requests are decided"),
                    (true, false) => tracing::warn!("not ready: requests are refused"),
                    (true, true) | (false, false) => {}
                }
                told = now;
                tokio::select! {
                    () = stop.wait() => break,
                    () = served.wait() => return,
                    () = leave.as_mut() => {
                        tracing::info!("a successor takes over");
                        return end.stop();
                    }
                    Ok(()) = arrived.changed() => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
            say(&health, Standing::default()).await;
            tracing::info!("draining");
            tokio::time::sleep(self.pause).await;
            self.authz.drain();
            end.stop();
        };
        tokio::join!(serving, steering, feeding);
    }
}

/// Envoy asks whether checks are decided: where the replay window is what is missing, a check says why and an Envoy that finds
/// nobody healthy does not; where the journal is, a check says no more than that Envoy, which may know another authz. Probes ask
/// the whole server whether it is ready, so that no rollout goes on with replicas that refuse all.
async fn say(health: &HealthReporter, Standing { decides, ready, .. }: Standing) {
    let status = |well| if well { ServingStatus::Serving } else { ServingStatus::NotServing };
    health.set_service_status("", status(ready)).await;
    health.set_service_status(SERVICE, status(decides)).await;
}

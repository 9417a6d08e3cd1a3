//! Health as gRPC has it. Whoever asks is told besides why nothing is decided, and when the certificate holds that this process
//! shows admin: the protocol knows of serving and not serving, and somebody should hear of an end before it comes.

use std::sync::Arc;

use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::metadata::MetadataValue;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::HealthCheckResponse;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::server::HealthService;

use crate::domain::validity::Validity;

/// The header of an answer that says when the certificate holds ([`Validity::word`]).
pub const CERTIFICATE: &str = "sigilum-state-certificate";

/// The header of an answer that says why requests are not decided, in a few words.
pub const NOT_READY: &str = "sigilum-not-ready";

/// Why requests signed now are not decided, as far as is known.
pub(super) type Why = Arc<dyn Fn() -> Option<&'static str> + Send + Sync>;

/// When the certificate holds that is in use now; `None`: none is shown.
pub type Certificate = Arc<dyn Fn() -> Option<Validity> + Send + Sync>;

/// Answers with both.
pub(super) struct Told {
    inner: HealthService,
    certificate: Certificate,
    why: Why,
}

impl Told {
    pub(super) fn new(inner: HealthService, certificate: Certificate, why: Why) -> Self {
        Self { inner, certificate, why }
    }
}

#[tonic::async_trait]
impl Health for Told {
    type WatchStream = <HealthService as Health>::WatchStream;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let mut answer = self.inner.check(request).await?;
        let word = (self.certificate)().and_then(|validity| MetadataValue::try_from(validity.word()).ok());
        if let Some(word) = word {
            answer.metadata_mut().insert(CERTIFICATE, word);
        }
        if answer.get_ref().status() != ServingStatus::Serving
            && let Some(why) = (self.why)()
        {
            answer.metadata_mut().insert(NOT_READY, MetadataValue::from_static(why));
        }
        Ok(answer)
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.inner.watch(request).await
    }
}

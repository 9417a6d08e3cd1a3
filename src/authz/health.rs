//! Health as gRPC has it. Whoever asks is told besides when the certificate holds that this process shows admin: the protocol
//! knows of serving and not serving, and somebody should hear of an end before it comes.

use std::sync::Arc;

use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::metadata::MetadataValue;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::HealthCheckResponse;
use tonic_health::pb::health_server::Health;
use tonic_health::server::HealthService;

use crate::domain::validity::Validity;

/// The header of an answer that says when the certificate holds ([`Validity::word`]).
pub const CERTIFICATE: &str = "sigilum-state-certificate";

/// When the certificate holds that is in use now; `None`: none is shown.
pub type Certificate = Arc<dyn Fn() -> Option<Validity> + Send + Sync>;

/// Answers with both.
pub(super) struct Told {
    inner: HealthService,
    certificate: Certificate,
}

impl Told {
    pub(super) fn new(inner: HealthService, certificate: Certificate) -> Self {
        Self { inner, certificate }
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
        Ok(answer)
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.inner.watch(request).await
    }
}

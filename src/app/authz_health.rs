//! Whether an authz process decides, as Envoy asks it: gRPC health on its own socket.

use std::path::Path;
use std::time::Duration;

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::state;
use crate::state::StateSource;
use crate::sys::tls::ClientTls;
use crate::sys::tls::TlsError;
use crate::sys::tls::TlsFiles;

/// Why nothing can be said of it.
#[derive(Debug, thiserror::Error)]
pub enum AuthzHealthError {
    /// Certificates that cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Nobody is there, or nobody who may be asked.
    #[error("authz cannot be reached: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("authz did not answer within {} ms", .0.as_millis())]
    Late(Duration),
}

/// An authz, and how it is reached.
#[derive(Debug, Clone)]
pub struct AuthzDoor(StateSource);

impl AuthzDoor {
    /// At its Unix socket; both ends run as one user.
    pub fn unix(path: &Path) -> Self {
        Self(StateSource::Unix(path.to_owned()))
    }

    /// Over TCP (host and port) with mutual TLS; `server` is the name its certificate must carry.
    pub fn tls(address: String, files: &TlsFiles, server: &str) -> Result<Self, AuthzHealthError> {
        Ok(Self(StateSource::Tls(address, ClientTls::load(files, server)?)))
    }

    /// Whether it decides: it has a state and a replay window, and does not drain. At most `patience`.
    pub async fn is_serving(&self, patience: Duration) -> Result<bool, AuthzHealthError> {
        let unreachable = |error: &dyn std::error::Error| {
            // tonic's own sentence says as good as nothing; what it wraps does.
            let cause = std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error);
            AuthzHealthError::Unreachable(cause.to_string())
        };
        let asked = async {
            let channel = state::connect(&self.0).await.map_err(|error| unreachable(&error))?;
            let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
            answer.map_err(|status| AuthzHealthError::Unreachable(status.message().to_owned()))
        };
        let answer = tokio::time::timeout(patience, asked).await.map_err(|_| AuthzHealthError::Late(patience))??;
        Ok(answer.get_ref().status() == ServingStatus::Serving)
    }
}

//! Whether an authz process would decide a request signed now: gRPC health of the whole server on its own socket.

use std::path::Path;
use std::time::Duration;

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::authz::CERTIFICATE;
use crate::authz::FED;
use crate::authz::NOT_READY;
use crate::domain::validity::Validity;
use crate::state;
use crate::state::StateSource;
use crate::sys::tls::ClientTls;
use crate::sys::tls::TlsError;
use crate::sys::tls::TlsFiles;

/// More of a reason than this is not shown.
const MAX_WHY: usize = 200;

/// How an authz stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthzHealth {
    /// It refuses what is signed now: it has no state (any more), its journal cannot be written to, its replay window has just
    /// begun, the shared one does not answer, or it drains.
    NotServing,
    /// It decides by what it received; admin does not speak to it now.
    Cut,
    /// It decides, and admin speaks to it.
    Serving,
}

/// What is told of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthzTold {
    /// How it stands.
    pub health: AuthzHealth,
    /// When the certificate holds that it shows admin; `None`: it shows none, or does not say.
    pub certificate: Option<Validity>,
    /// Why it does not decide; `None`: it does, or does not say.
    pub why: Option<String>,
}

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

    /// How it stands; at most `patience`.
    pub async fn health(&self, patience: Duration) -> Result<AuthzTold, AuthzHealthError> {
        let unreachable = |error: &dyn std::error::Error| {
            // tonic's own sentence says as good as nothing; what it wraps does.
            let cause = std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error);
            AuthzHealthError::Unreachable(cause.to_string())
        };
        let asked = async {
            let channel = state::connect(&self.0).await.map_err(|error| unreachable(&error))?;
            let mut client = HealthClient::new(channel);
            let answer = client.check(HealthCheckRequest::default()).await;
            let answer = answer.map_err(|status| AuthzHealthError::Unreachable(status.message().to_owned()))?;
            let word = answer.metadata().get(CERTIFICATE).and_then(|word| word.to_str().ok());
            let certificate = word.and_then(Validity::parse);
            if answer.get_ref().status() != ServingStatus::Serving {
                let why = answer.metadata().get(NOT_READY).and_then(|why| why.to_str().ok());
                let why = why.map(|why| why.chars().take(MAX_WHY).collect());
                return Ok(AuthzTold { health: AuthzHealth::NotServing, certificate, why });
            }
            // One that knows no such service is of a version that does not tell.
            let fed = client.check(HealthCheckRequest { service: FED.to_owned() }).await;
            let cut = fed.is_ok_and(|fed| fed.get_ref().status() == ServingStatus::NotServing);
            let health = if cut { AuthzHealth::Cut } else { AuthzHealth::Serving };
            Ok(AuthzTold { health, certificate, why: None })
        };
        tokio::time::timeout(patience, asked).await.map_err(|_| AuthzHealthError::Late(patience))?
    }
}

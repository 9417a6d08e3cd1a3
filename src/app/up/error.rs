//! Why the local stack could not be set up.

use std::io;
use std::path::PathBuf;

use crate::app::owner_api::ApiError;
use crate::claims::client::ClientError;
use crate::identity::IdentityError;
use crate::identity::SignError;
use crate::sys::local_http::ExchangeError;
use crate::sys::random::RandomError;

/// Why the services, the approvals or the demo are not as they should be. Doing it again is safe.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No key could be made.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// No owner token could be made.
    #[error("a token of the owner cannot be made: {0}")]
    Token(String),
    /// The control plane refused, or does not answer.
    #[error("{what}: {source}")]
    Api {
        /// What was asked.
        what: String,
        /// What came back.
        source: ApiError,
    },
    /// A claim is neither approved nor waiting for it.
    #[error("the demo agent's claim for {service} is {status}, not approved")]
    Claim {
        /// The service.
        service: &'static str,
        /// What the control plane says.
        status: String,
    },
    /// The native demo's own identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The native demo's way to the control plane.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The admin API refused, or does not answer.
    #[error("the demo's connection: {0}")]
    Connection(ApiError),
    /// A request of the demo's agent does not get through.
    #[error("a request of the demo's agent to {what} was answered {status}: {body}")]
    NotServed {
        /// Whom it was sent to.
        what: &'static str,
        /// HTTP status.
        status: u16,
        /// The start of the answer.
        body: String,
    },
    /// It could not be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// Nobody answers it.
    #[error("{what} {source}")]
    Silent {
        /// Whom it was sent to.
        what: &'static str,
        /// What happened.
        source: ExchangeError,
    },
}

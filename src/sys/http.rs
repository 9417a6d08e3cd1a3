//! The one outbound HTTP client: no redirects, no proxy from the environment, bounded connect time.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use reqwest::Client;
use reqwest::ClientBuilder;
use reqwest::Identity;
use reqwest::redirect::Policy;

use crate::sys::tls;
use crate::sys::tls::TlsError;
use crate::sys::tls::trust::ServerTrust;

/// Longest time to a connection, name resolution and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the client could not be made: certificates cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Those of the system.
    #[error("the HTTP client could not be made: {0}")]
    System(#[from] reqwest::Error),
    /// Those of the settings.
    #[error(transparent)]
    Files(#[from] TlsError),
}

/// A client for one kind of address. `tls` loads the certificates the system trusts; without it only
/// plain `http` can be reached, which spares commands to loopback the reading of a hundred certificates.
///
/// Answers are neither decompressed nor bounded in time as a whole: they may be streams.
pub fn client(tls: bool) -> Result<Client, HttpError> {
    let builder = builder();
    let builder = if tls { builder.https_only(true) } else { builder.tls_certs_only([]) };
    Ok(builder.build()?)
}

/// A client for `https` that believes whom it is told to, and shows its certificate where it has one.
pub fn trusting(trust: &ServerTrust) -> Result<Client, HttpError> {
    let builder = builder().https_only(true);
    let builder = match &trust.identity {
        _ if trust.is_closed() => builder.tls_backend_preconfigured(trust.client_config()?),
        Some(identity) => builder.identity(Identity::from_pem(&tls::pem_pair(identity)?)?),
        None => builder,
    };
    Ok(builder.build()?)
}

fn builder() -> ClientBuilder {
    tls::install_provider();
    Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .http1_only()
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
}

/// Whether an exchange failed in TLS: a certificate that is not believed, or an alert about ours.
pub fn is_about_certificates(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_)) = error.downcast_ref() {
            return true;
        }
        // What a socket's error wraps is not one of its sources; those of it are.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = wrapped.map(|inner| inner as &(dyn std::error::Error + 'static)).or_else(|| error.source());
    }
    false
}

/// Whether nobody listened where a connection was to go.
pub fn is_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source()).any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    })
}

/// An error with its causes in one line; the outermost text of an HTTP client rarely says why.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

//! The one outbound HTTP client: no redirects, no proxy from the environment, bounded connect time.

use std::time::Duration;

use reqwest::Client;
use reqwest::redirect::Policy;

use crate::sys::tls;

/// Longest time to a connection, name resolution and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The client could not be made: the system's certificates cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client could not be made: {0}")]
pub struct HttpError(#[from] reqwest::Error);

/// A client for one kind of address. `tls` loads the certificates the system trusts; without it only
/// plain `http` can be reached, which spares commands to loopback the reading of a hundred certificates.
///
/// Answers are neither decompressed nor bounded in time as a whole: they may be streams.
pub fn client(tls: bool) -> Result<Client, HttpError> {
    tls::install_provider();
    let builder = Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .http1_only()
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT);
    let builder = if tls { builder.https_only(true) } else { builder.tls_certs_only([]) };
    Ok(builder.build()?)
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

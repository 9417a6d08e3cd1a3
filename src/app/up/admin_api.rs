//! The few calls of the admin API that setting up the demo takes.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::Request;
use serde_json::Value;

use crate::domain::secret::Secret;
use crate::sys::local_http;
use crate::sys::local_http::Answer;
use crate::sys::local_http::Endpoint;
use crate::sys::local_http::ExchangeError;

/// A change waits for the disk, on a busy machine for long.
const DEADLINE: Duration = Duration::from_secs(30);

/// The admin API of this machine.
pub(super) struct AdminApi {
    endpoint: Endpoint,
    token: Secret,
}

impl AdminApi {
    /// The one at this address.
    pub(super) const fn new(address: SocketAddr, token: Secret) -> Self {
        Self { endpoint: Endpoint::Tcp(address), token }
    }

    /// One call below `/api/admin`.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, ExchangeError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/api/admin{path}"))
            .header("x-sigilum-admin-token", self.token.expose());
        let mut bytes = Bytes::new();
        if let Some(body) = body {
            request = request.header(http::header::CONTENT_TYPE, "application/json");
            bytes = Bytes::from(body.to_string());
        }
        local_http::exchange(&self.endpoint, request, bytes, DEADLINE).await
    }
}

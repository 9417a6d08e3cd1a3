//! The demo: its listeners, its connection, and the proof that its agent is served.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::app::connections_api::ConnectionsApi;
use crate::app::gateway::error::GatewayError;
use crate::app::gateway::progress::Beside;
use crate::app::gateway::progress::Progress;
use crate::app::up::bootstrap::BEHIND;
use crate::app::up::bootstrap::NATIVE;
use crate::app::up::error::SetupError;
use crate::app::up::keys;
use crate::claims::client::ApiClient;
use crate::claims::feed;
use crate::claims::feed::FeedError;
use crate::claims::feed::FeedLimits;
use crate::demo::Approved;
use crate::demo::KEY_HEADER;
use crate::domain::ids::Namespace;
use crate::domain::secret::Secret;
use crate::identity::Home;
use crate::identity::Identity;
use crate::identity::Outgoing;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::local_http;
use crate::sys::local_http::Answer;
use crate::sys::local_http::Endpoint;
use crate::sys::ports;
use crate::sys::ports::Held;
use crate::sys::ports::PortError;
use crate::sys::random;
use crate::sys::tls::trust::ServerTrust;

/// The id of the demo's connection.
pub const CONNECTION: &str = BEHIND.slug;
/// The name of its secret.
const SECRET: &str = "upstream_key";
/// Who the native service is when it reads its approvals.
const SIGNER: &str = "demo-service-native-signer";
/// Most approvals the native service holds.
const MAX_APPROVALS: usize = 100_000;
/// The path below both services that proves them.
const PROOF: &str = "/v1/balance";

/// How long the first request may take to get through, and how often it is tried.
const SERVED_DEADLINE: Duration = Duration::from_secs(30);
const SERVED_LOOK: Duration = Duration::from_millis(250);

/// The demo's ports, held.
#[derive(Debug)]
pub(super) struct Listeners {
    /// Of the service that verifies its callers itself.
    pub(super) native: Held,
    /// Of the service behind the gateway.
    pub(super) upstream: Held,
    /// Where both are.
    pub(super) addresses: [SocketAddr; 2],
}

impl Listeners {
    /// Takes both ports on loopback; 0: any.
    pub(super) fn bind(native: u16, upstream: u16) -> Result<Self, GatewayError> {
        let native = bind("the native demo service", native)?;
        let upstream = bind("the demo upstream", upstream)?;
        let addresses = [native.address(), upstream.address()];
        Ok(Self { native, upstream, addresses })
    }

    /// As they are written down and shown.
    pub(super) fn beside(&self) -> [Beside; 2] {
        let [native, upstream] = self.addresses;
        [("native", native), ("upstream", upstream)].map(|(name, address)| Beside { name: name.to_owned(), address })
    }
}

fn bind(what: &'static str, port: u16) -> Result<Held, GatewayError> {
    let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    ports::take_one(wanted, false).and_then(|held| held.ok_or(PortError::NoAddress)).map_err(|error| match error {
        PortError::InUse { address, holder } => GatewayError::PortInUse { what, address, holder },
        PortError::Connection { address, holder } => GatewayError::PortPassing { what, address, holder },
        PortError::Bind { address, source } => GatewayError::Bind { what, address, source },
        PortError::NoAddress => GatewayError::NoAddress(what),
    })
}

/// Has the owner of a held address listen there.
pub(super) fn listen(what: &'static str, held: Held) -> Result<TcpListener, GatewayError> {
    let address = held.address();
    let listening = held.listen().and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    listening.map_err(|source| GatewayError::Bind { what, address, source })
}

/// The native service's way to its approvals.
pub(super) struct Source {
    client: ApiClient,
    key: Secret,
}

impl Source {
    /// With an identity of its own, made where it is missing.
    pub(super) fn new(base: &str, home: &Path, key: Secret) -> Result<Self, SetupError> {
        let signer = Namespace::parse(SIGNER).map_err(|invalid| SetupError::Token(format!("{SIGNER} {invalid}")))?;
        let identity = Home::new(home).create(&signer, SystemClock.now().seconds())?.identity;
        Ok(Self { client: ApiClient::new(base, Arc::new(identity))?, key })
    }

    /// Everything that is approved now.
    pub(super) async fn read(&self) -> Result<Approved, FeedError> {
        let limits = FeedLimits { max_approvals: MAX_APPROVALS, ..FeedLimits::default() };
        let read = feed::read_all(&self.client, NATIVE.slug, &self.key, &limits).await?;
        let mut approved = Approved::default();
        for row in read.approvals {
            approved.insert(row.namespace, row.public_key, row.expires_at);
        }
        Ok(approved)
    }
}

/// Creates the connection, or brings the one that is there up to date. `token`: the admin API's, where the
/// environment names it; otherwise it is in its file.
pub(super) async fn connect(
    (admin, trust): (SocketAddr, Option<ServerTrust>),
    token: Option<Secret>,
    token_file: &Path,
    upstream: SocketAddr,
    secret: &Secret,
) -> Result<(), SetupError> {
    let token = match token {
        Some(token) => Some(token),
        None => keys::read(token_file)?,
    };
    let scheme = if trust.is_some() { "https" } else { "http" };
    let base = format!("{scheme}://{}", local_http::reachable(admin));
    let trust = trust.unwrap_or_default();
    let api = ConnectionsApi::new(&base, token.as_ref(), &trust).map_err(SetupError::Connection)?;
    let base_url = format!("http://{upstream}");
    if let Some(found) = api.find(CONNECTION).await.map_err(SetupError::Connection)? {
        if is_current(&found, &base_url) {
            match api.rotate(CONNECTION, &[(SECRET, secret)], "sigilum up --demo", "start of the demo").await {
                // 400: it is that secret already.
                Err(error) if error.status() != 400 => {}
                Ok(_) | Err(_) => return Ok(()),
            }
        }
        api.delete(CONNECTION).await.map_err(SetupError::Connection)?;
    }
    let input = json!({
        "id": CONNECTION,
        "name": BEHIND.name,
        "protocol": "http",
        "base_url": base_url,
        "auth_mode": "header_key",
        "auth_header_name": KEY_HEADER,
        "auth_secret_key": SECRET,
        "secrets": { SECRET: secret.expose() },
    });
    api.create(&input).await.map(drop).map_err(SetupError::Connection)
}

/// Whether what is there serves the demo, its secret aside.
fn is_current(connection: &Value, base_url: &str) -> bool {
    let text = |name: &str| connection.get(name).and_then(Value::as_str).unwrap_or_default();
    text("base_url") == base_url
        && text("auth_mode") == "header_key"
        && text("auth_header_name").eq_ignore_ascii_case(KEY_HEADER)
        && text("auth_secret_key") == SECRET
        && text("status") == "active"
}

/// Sends a request as the demo's agent through the gateway, and one to the native service, until both are
/// served: what is announced works. At a first start that takes some seconds, in which new requests cannot
/// be told from replayed ones.
pub(super) async fn prove(
    ingress: Option<SocketAddr>,
    native: SocketAddr,
    identity: &Identity,
    progress: &mpsc::Sender<Progress>,
) -> Result<(), SetupError> {
    let through = format!("/proxy/{CONNECTION}{PROOF}");
    // Behind a certificate that is not ours to judge only its owner's clients can tell.
    let gateway = ingress.map(|ingress| ("the gateway", local_http::reachable(ingress), through.as_str()));
    let ways = gateway.into_iter().chain([(NATIVE.slug, native, PROOF)]);
    let started = Instant::now();
    let mut told = false;
    for (what, address, path) in ways {
        loop {
            let answer = ask(what, address, path, identity).await?;
            if answer.status == 200 {
                break;
            }
            let text: String = String::from_utf8_lossy(&answer.body).chars().take(300).collect();
            // The gateway reads the approval when it learns of the connection; until then it knows none. A key that was
            // just given to it is injected a moment later.
            let key_comes = what != NATIVE.slug && answer.status == 401;
            let coming = answer.status == 503 || answer.status == 403 && text.contains("AUTH_CLAIM") || key_comes;
            if !coming || started.elapsed() > SERVED_DEADLINE {
                return Err(SetupError::NotServed { what, status: answer.status, body: text });
            }
            if answer.status == 503 && !told {
                let note = "waiting some seconds: until then, new requests cannot be told from replayed ones";
                let _ = progress.try_send(Progress::Note(note.to_owned()));
                told = true;
            }
            tokio::time::sleep(SERVED_LOOK).await;
        }
    }
    Ok(())
}

async fn ask(what: &'static str, address: SocketAddr, path: &str, identity: &Identity) -> Result<Answer, SetupError> {
    let endpoint = Endpoint::Tcp(address);
    let url = format!("http://{}{path}", endpoint.authority());
    let (created, nonce) = (SystemClock.now().seconds(), random::uuid()?);
    let outgoing =
        Outgoing { method: "GET", url: &url, body: &[], subject: None, agent_id: None, created, nonce: &nonce };
    let mut request = Request::get(path);
    for (name, value) in identity.signer().sign(&outgoing)? {
        request = request.header(name, value);
    }
    local_http::exchange(&endpoint, request, Bytes::new(), SERVED_DEADLINE)
        .await
        .map_err(|source| SetupError::Silent { what, source })
}

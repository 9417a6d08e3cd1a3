//! The bridge: one WebSocket to the control plane, and requests that come by it carried to this gateway's admin API.
//!
//! [`crate::pair::session`] decides, this does. The admin token is added here and goes to the gateway alone; the pair
//! code and the reconnect secret go to the control plane alone; none of them is ever shown.

mod carry;
mod gateway;
mod handshake;
mod link;
mod preflight;

use std::fmt;
use std::sync::Arc;

use reqwest::Url;

pub use crate::app::pair::preflight::PreflightError;
pub use crate::app::pair::preflight::Sealing;
pub use crate::app::pair::preflight::Side;
pub use crate::pair::frames::Terminal;
pub use crate::pair::session::End;
pub use crate::pair::session::Notice;
pub use crate::pair::session::Pace;

use crate::app::pair::carry::Carrier;
use crate::app::pair::gateway::Gateway;
use crate::app::pair::handshake::ControlPlane;
use crate::app::pair::preflight::Ends;
use crate::domain::ids::Namespace;
use crate::domain::relay::RelaySession;
use crate::domain::secret::Secret;
use crate::sys::http::HttpError;
use crate::sys::tasks::Stop;
use crate::sys::tls::TlsError;
use crate::sys::tls::trust::ServerTrust;

/// Reads the admin token; asked before each request, so that another one counts at once. `None`: there is none.
pub type TokenSource = Arc<dyn Fn() -> Result<Option<Secret>, String> + Send + Sync>;

/// Keeps a reconnect secret that the control plane has given, for a bridge that is started again.
pub type SecretKeeper = Arc<dyn Fn(&Secret) -> std::io::Result<()> + Send + Sync>;

/// Which session, and where both ends are.
pub struct PairConfig {
    /// The session's id.
    pub session: RelaySession,
    /// Whose gateway this is.
    pub namespace: Namespace,
    /// The pair code.
    pub code: Secret,
    /// What an earlier bridge of this session was given to come back with.
    pub reconnect: Option<Secret>,
    /// Is told each other one. `None`: it is known as long as this process lives.
    pub keep_reconnect: Option<SecretKeeper>,
    /// Address of the control plane.
    pub api_url: Url,
    /// Address of the gateway's admin API.
    pub admin_url: Url,
    /// Whom to believe there, where it is reached over TLS.
    pub admin_trust: ServerTrust,
    /// The admin token.
    pub admin_token: TokenSource,
    /// How fast things go.
    pub pace: Pace,
}

/// What happens, for the person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Both ends answer.
    Preflight(Sealing),
    /// Of the session.
    Session(Notice),
    /// The reconnect secret could not be kept, and why: a bridge that is started again goes by the code.
    SecretNotKept(String),
}

/// Why the bridge does not start.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// One of the ends is not there, or not what it should be.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// Certificates cannot be read.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The same.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The session's id can stand in no header.
    #[error("the session id holds characters that no session id has")]
    SessionId,
}

impl fmt::Debug for PairConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PairConfig").field("session", &self.session.as_str()).finish_non_exhaustive()
    }
}

/// Looks at both ends, then carries requests until told to stop or until the session is over.
pub async fn run(config: PairConfig, mut stop: Stop, say: &mut (dyn FnMut(Progress) + Send)) -> Result<End, PairError> {
    let gateway = Gateway::new(&config)?;
    let (api, admin, admin_trust) = (config.api_url.clone(), config.admin_url.clone(), config.admin_trust.clone());
    let ends = Ends { api, admin, admin_trust };
    let looked = async {
        preflight::check(&ends, preflight::patience(config.pace.connect_timeout)).await?;
        Ok::<_, PairError>(preflight::sealing(&gateway).await)
    };
    let sealing = tokio::select! {
        sealing = looked => sealing?,
        () = stop.wait() => return Ok(End::Stopped),
    };
    say(Progress::Preflight(sealing));
    let control_plane = ControlPlane::new(&config)?;
    Ok(Carrier::new(control_plane, gateway, ends, config.pace, config.keep_reconnect).run(stop, say).await)
}

/// Whether an API is there at this address, and is one that knows of pairing.
pub async fn check_api(api: &Url, pace: Pace) -> Result<(), PreflightError> {
    preflight::check_api(api, preflight::patience(pace.connect_timeout)).await
}

/// What the gateway says of its key for sealed secrets; so one learns whether it takes the token.
pub async fn sealing(admin: &Url, trust: &ServerTrust, token: TokenSource) -> Result<Sealing, PairError> {
    Ok(preflight::sealing(&Gateway::local(admin, trust, token)?).await)
}

/// Whether the admin API at this address answers its health check.
pub async fn is_healthy(admin: &Url, trust: &ServerTrust, within: std::time::Duration) -> Result<bool, HttpError> {
    preflight::is_healthy(admin, trust, within).await
}

#[cfg(test)]
#[path = "whole_tests.rs"]
mod tests;

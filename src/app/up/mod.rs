//! `up`: the gateway in the foreground, with `--demo` something to try it on.

mod admin_api;
mod demo;

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::app::gateway;
use crate::app::gateway::Stops;
use crate::app::gateway::config::GatewayConfig;
use crate::app::gateway::error::GatewayError;
use crate::app::gateway::progress::Addresses;
use crate::app::gateway::progress::Progress;
use crate::demo as upstream;
use crate::identity::Identity;
use crate::sys::process;
use crate::sys::tasks::StopHandle;
pub use demo::CONNECTION;
pub use demo::DemoSetupError;

/// The variable that may name the admin token.
const ADMIN_TOKEN: &str = "GATEWAY_ADMIN_TOKEN";

/// The demo: an upstream, a connection to it, and who may use it.
#[derive(Debug)]
pub struct DemoConfig {
    /// Where the demo upstream listens, on loopback.
    pub port: u16,
    /// Who signs as the demo's agent.
    pub identity: Identity,
    /// Where the upstream's key is kept: `<home>/gateway-connection-secret-demo-service-gateway`.
    pub secret_file: PathBuf,
}

/// Why `up` ended early.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The gateway did.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The demo could not be set up.
    #[error("the demo could not be set up: {0}")]
    Demo(#[from] DemoSetupError),
    /// The demo upstream ended.
    #[error(transparent)]
    Upstream(#[from] upstream::DemoError),
}

/// Runs a gateway, and with it the demo, until the stop. `stop` is the handle behind `stops`: whatever
/// fails stops the rest.
pub async fn run(
    config: GatewayConfig,
    demo: Option<DemoConfig>,
    mut stops: Stops,
    stop: StopHandle,
    progress: mpsc::Sender<Progress>,
) -> Result<(), UpError> {
    let Some(demo) = demo else { return Ok(gateway::run(config, stops, progress).await?) };
    let given = config.admin_secrets.iter().find(|(name, _)| name == ADMIN_TOKEN);
    let given = given.map(|(_, token)| token.duplicate());
    let token_file = config.data_dir.join("admin-token");
    // First the gateway's lock: a second start must find that one, and leave the demo's files alone.
    let built = gateway::Bound::build_unless_stopped(config, &mut stops, progress.clone()).await?;
    let Some(mut bound) = built else { return Ok(()) };
    let (listener, upstream_address) = bind_upstream(demo.port).await?;
    demo::approve(bound.config_mut(), &demo)?;
    let secret = demo::secret(&demo.secret_file)?;
    let addresses: Addresses = bound.addresses().clone();
    let mut ready = bound.ready();

    // The upstream outlives the gateway: requests in flight still reach it while Envoy drains.
    let tasks = crate::sys::tasks::Tasks::default();
    let (upstream_stop, upstream_stopped) = (tasks.stop_handle(), tasks.stop_signal());
    let key = secret.duplicate();
    let serve = async {
        let ended = upstream::run(listener, key, upstream_stopped).await;
        stop.stop();
        ended
    };
    let set_up = async {
        if ready.wait_for(|ready| *ready).await.is_err() {
            // It never became ready; why is said elsewhere.
            return Ok(());
        }
        let done = async {
            demo::connect(&addresses, given, &token_file, upstream_address, &secret).await?;
            demo::prove(&addresses, &demo.identity, &progress).await
        };
        let done = done.await;
        match &done {
            Ok(()) => {
                let _ =
                    progress.try_send(Progress::DemoReady { ingress: addresses.clone(), upstream: upstream_address });
            }
            Err(_) => stop.stop(),
        }
        done
    };
    let live = async {
        let ended = bound.run(stops).await;
        upstream_stop.stop();
        ended
    };
    let (lived, served, done) = tokio::join!(live, serve, set_up);
    lived?;
    done?;
    served?;
    Ok(())
}

async fn bind_upstream(port: u16) -> Result<(TcpListener, SocketAddr), GatewayError> {
    let what = "the demo upstream";
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let bound = TcpListener::bind(address).await.and_then(|listener| listener.local_addr().map(|at| (listener, at)));
    bound.map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            GatewayError::PortInUse { what, address, holder: process::port_holder(port) }
        } else {
            GatewayError::Bind { what, address, source }
        }
    })
}

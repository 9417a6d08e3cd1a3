//! The state stream's door to other hosts: bound and proven at the start, served beside the socket of this machine.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::config::fleet::StateListener;
use crate::config::fleet::Workload;
use crate::state::Publisher;
use crate::sys::http_server;
use crate::sys::http_server::BindError;
use crate::sys::tasks::Tasks;
use crate::sys::tls::ServerTls;
use crate::sys::tls::TlsError;
use crate::sys::tls::TlsFiles;

/// Who is fed over the network.
#[derive(Debug, Default)]
pub struct Fleet {
    /// Where; `None`: nowhere.
    pub listener: Option<StateListener>,
    /// Who is sent what.
    pub workloads: Vec<Workload>,
}

/// The door, open to those whose certificate comes from the right authority.
#[derive(Debug)]
pub(super) struct StateDoor {
    listeners: Vec<TcpListener>,
    tls: ServerTls,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// Its certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Its addresses.
    #[error(transparent)]
    Bind(#[from] BindError),
}

impl StateDoor {
    /// Reads the certificates, then binds.
    pub(super) async fn open(listener: &StateListener) -> Result<Self, DoorError> {
        let StateListener { addresses, cert_file, key_file, client_ca_file } = listener;
        let (certificate, key, authorities) = (cert_file.clone(), key_file.clone(), client_ca_file.clone());
        // Which names count is in the workloads, which change while it is open.
        let tls = ServerTls::load_unnamed(&TlsFiles { certificate, key, authorities })?;
        Ok(Self { listeners: http_server::bind(addresses).await?, tls })
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Serves until told to stop, and follows its certificates.
    pub(super) fn serve(self, publisher: &Publisher, tasks: &mut Tasks) {
        let addresses = self.addresses();
        tracing::info!(?addresses, "the state is streamed to other hosts");
        let tls = self.tls.clone();
        tasks.spawn("state-certificates", |stop| tls.follow(stop));
        for listener in self.listeners {
            let (publisher, tls) = (publisher.clone(), self.tls.clone());
            tasks.spawn("state-tls", |stop| publisher.serve_tls(listener, tls, stop));
        }
    }
}

//! Every port is taken before anything starts, exclusively, and released just before its owner binds it.
//!
//! So a second gateway, or a foreign listener, is found before the first child runs. What slips in
//! between the release and the owner's own bind is found by the owner, which shares no port either.

use std::net::SocketAddr;

use crate::app::gateway::error::GatewayError;
use crate::app::gateway::progress::Addresses;
use crate::sys::ports;
use crate::sys::ports::Held;
use crate::sys::ports::PortError;

/// Ports held until their owners start.
#[derive(Debug)]
pub(super) struct Reserved {
    /// Released before admin starts.
    pub(super) admin: Vec<Held>,
    /// Released before Envoy starts.
    pub(super) envoy: Vec<Held>,
}

/// Takes all ports. A port 0 becomes a real one, the same for all addresses of a listener; `::1` is left
/// out where the machine has no IPv6 and the listener has another address.
pub(super) fn reserve(wanted: &Addresses) -> Result<(Reserved, Addresses), GatewayError> {
    let ingress_held = listener("the ingress", &wanted.ingress, &[])?;
    let ingress = addresses(&ingress_held);
    let admin_held = listener("the admin API", &wanted.admin, &ingress)?;
    let admin = addresses(&admin_held);
    let before: Vec<_> = ingress.iter().chain(&admin).copied().collect();
    let face_held = listener("Envoy's admin interface", &wanted.envoy_admin, &before)?;
    let envoy_admin = addresses(&face_held);
    let envoy = ingress_held.into_iter().chain(face_held).collect();
    let addresses = Addresses { ingress, admin, envoy_admin, ..wanted.clone() };
    Ok((Reserved { admin: admin_held, envoy }, addresses))
}

fn addresses(held: &[Held]) -> Vec<SocketAddr> {
    held.iter().map(Held::address).collect()
}

/// `before`: what other listeners of ours have. The system does not tell whose a port is on which nobody listens.
fn listener(what: &'static str, wanted: &[SocketAddr], before: &[SocketAddr]) -> Result<Vec<Held>, GatewayError> {
    let ours = |address: SocketAddr| before.iter().any(|one| one.port() == address.port());
    ports::take(wanted).map_err(|error| match error {
        PortError::InUse { address, .. } | PortError::Connection { address, .. } if ours(address) => {
            GatewayError::PortTwice { what, address }
        }
        PortError::InUse { address, holder } => GatewayError::PortInUse { what, address, holder },
        PortError::Connection { address, holder } => GatewayError::PortPassing { what, address, holder },
        PortError::Bind { address, source } => GatewayError::Bind { what, address, source },
        PortError::NoAddress => GatewayError::NoAddress(what),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code may panic")]

    use super::*;
    use crate::app::gateway::error::Class;

    #[test]
    fn one_port_for_both_families() {
        let wanted = ["127.0.0.1:0".parse().unwrap(), "127.0.0.2:0".parse().unwrap()];
        let held = listener("x", &wanted, &[]).unwrap();
        let addresses = addresses(&held);
        assert_eq!(held.len(), 2);
        assert_ne!(addresses[0].port(), 0);
        assert_eq!(addresses[0].port(), addresses[1].port());
    }

    #[test]
    fn a_port_that_is_taken_is_named_with_its_holder() {
        let mut other = std::process::Command::new("python3")
            .args(["-c", "import socket,sys\ns=socket.socket(); s.bind(('127.0.0.1',0)); s.listen(); print(s.getsockname()[1], flush=True); sys.stdin.read()"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(other.stdout.take().unwrap()), &mut line).unwrap();
        let address: SocketAddr = format!("127.0.0.1:{}", line.trim()).parse().unwrap();
        let error = listener("the ingress", &[address], &[]).unwrap_err();
        let text = error.to_string();
        let start =
            format!("port in use by foreign process: port {} (the ingress, {address}) is in use", address.port());
        assert!(text.starts_with(&start), "{text}");
        if cfg!(target_os = "linux") {
            assert!(text.contains(&format!("by process {} (python3", other.id())), "{text}");
        }
        assert!(other.try_wait().unwrap().is_none(), "it is left alone");
        drop(other.stdin.take());
        other.wait().unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_port_of_an_outgoing_connection_is_free_again_by_itself() {
        let far = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = std::net::TcpStream::connect(far.local_addr().unwrap()).unwrap();
        let error = listener("the ingress", &[connection.local_addr().unwrap()], &[]).unwrap_err();
        let named = format!("outgoing connection of process {}", std::process::id());
        assert!(matches!(error, GatewayError::PortPassing { .. }) && error.to_string().contains(&named), "{error}");
        assert_eq!(error.class(), Class::Temporary);
        assert!(error.hint().unwrap().contains("net.ipv4.ip_local_reserved_ports"), "{error:?}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn one_port_for_two_listeners_is_a_setting_and_no_intruder() {
        let held = listener("the ingress", &["127.0.0.1:0".parse().unwrap()], &[]).unwrap();
        let addresses = addresses(&held);
        let error = listener("the admin API", &addresses, &addresses).unwrap_err();
        assert!(matches!(error, GatewayError::PortTwice { .. }), "{error}");
    }
}

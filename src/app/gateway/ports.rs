//! Every port is taken before anything starts, exclusively, and released just before its owner binds it.
//!
//! So a second gateway, or a foreign listener, is found before the first child runs. What slips in
//! between the release and the owner's own bind is found by the owner, which shares no port either.

use std::net::SocketAddr;
use std::net::TcpListener;

use crate::app::gateway::error::GatewayError;
use crate::app::gateway::progress::Addresses;
use crate::sys::ports;
use crate::sys::ports::PortError;

/// Ports held until their owners start.
#[derive(Debug)]
pub(super) struct Reserved {
    /// Released before admin starts.
    pub(super) admin: Vec<TcpListener>,
    /// Released before Envoy starts.
    pub(super) envoy: Vec<TcpListener>,
}

/// Takes all ports. A port 0 becomes a real one, the same for all addresses of a listener; `::1` is left
/// out where the machine has no IPv6 and the listener has another address.
pub(super) fn reserve(wanted: &Addresses) -> Result<(Reserved, Addresses), GatewayError> {
    let (ingress_held, ingress) = listener("the ingress", &wanted.ingress)?;
    let (admin_held, admin) = listener("the admin API", &wanted.admin)?;
    let (face_held, envoy_admin) = listener("Envoy's admin interface", &wanted.envoy_admin)?;
    let envoy = ingress_held.into_iter().chain(face_held).collect();
    let addresses = Addresses { ingress, admin, envoy_admin, ..wanted.clone() };
    Ok((Reserved { admin: admin_held, envoy }, addresses))
}

fn listener(what: &'static str, wanted: &[SocketAddr]) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), GatewayError> {
    ports::take(wanted).map_err(|error| match error {
        PortError::InUse { address, holder } => {
            let own = i32::try_from(std::process::id()).ok();
            if holder.as_ref().is_some_and(|holder| Some(holder.pid) == own) {
                GatewayError::PortTwice { what, address }
            } else {
                GatewayError::PortInUse { what, address, holder }
            }
        }
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
        let (held, addresses) = listener("x", &wanted).unwrap();
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
        let error = listener("the ingress", &[address]).unwrap_err();
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
        let far = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = std::net::TcpStream::connect(far.local_addr().unwrap()).unwrap();
        let error = listener("the ingress", &[connection.local_addr().unwrap()]).unwrap_err();
        let named = format!("outgoing connection of process {}", std::process::id());
        assert!(matches!(error, GatewayError::PortPassing { .. }) && error.to_string().contains(&named), "{error}");
        assert_eq!(error.class(), Class::Temporary);
        assert!(error.hint().unwrap().contains("net.ipv4.ip_local_reserved_ports"), "{error:?}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn one_port_for_two_listeners_is_a_setting_and_no_intruder() {
        let (_held, addresses) = listener("the ingress", &["127.0.0.1:0".parse().unwrap()]).unwrap();
        let error = listener("the admin API", &addresses).unwrap_err();
        assert!(matches!(error, GatewayError::PortTwice { .. }), "{error}");
    }
}

//! Tests of held ports, with real sockets.

#![allow(clippy::unwrap_used, reason = "test code may panic")]

use std::io::ErrorKind;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;

use super::*;

/// A fixed address that is free, and one of the system's choice.
fn both_kinds() -> [SocketAddr; 2] {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let free = TcpListener::bind(any).unwrap().local_addr().unwrap();
    [free, any]
}

#[test]
#[cfg(target_os = "linux")]
fn a_held_port_refuses_connections() {
    for wanted in both_kinds() {
        let held = take(&[wanted]).unwrap();
        let address = held.first().unwrap().address();
        assert_ne!(address.port(), 0);
        let error = TcpStream::connect(address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{wanted}: {error}");
    }
}

#[test]
fn a_held_port_is_nobody_elses() {
    for wanted in both_kinds() {
        let held = take(&[wanted]).unwrap();
        let address = held.first().unwrap().address();
        let everywhere = SocketAddr::from(([0, 0, 0, 0], address.port()));
        for other in [address, everywhere] {
            // The standard library sets SO_REUSEADDR.
            assert_eq!(TcpListener::bind(other).unwrap_err().kind(), ErrorKind::AddrInUse, "{other}");
        }
        assert!(matches!(take(&[address]), Err(PortError::InUse { .. })));
        drop(held);
        TcpListener::bind(address).unwrap();
    }
}

#[test]
fn its_owner_listens_on_a_held_port() {
    for wanted in both_kinds() {
        let held = take(&[wanted]).unwrap().pop().unwrap();
        let address = held.address();
        let listener = held.listen().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        let mut byte = [0];
        server.read_exact(&mut byte).unwrap();
        // Closed from this side first: what is left of it waits here.
        drop((server, listener, client));
        TcpListener::bind(address).unwrap();
    }
}

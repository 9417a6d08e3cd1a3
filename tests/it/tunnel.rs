//! Through a tunnel: another local port leads to the gateway, and everything that guards it still does.

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::thread;

use serde_json::json;

use crate::support::client;
use crate::support::client::Request;
use crate::support::gateway::shared;
use crate::support::upstream::Upstream;

/// A port of this machine that leads to `target`, as `ssh -L` makes one. It ends with the test process.
fn tunnel(target: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for near in listener.incoming() {
            let (mut near, mut far) = (near.unwrap(), TcpStream::connect(target).unwrap());
            let (mut from, mut to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            thread::spawn(move || {
                // Either side may end first.
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Write);
            });
            thread::spawn(move || {
                let _ = io::copy(&mut far, &mut near);
                let _ = near.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    address
}

#[test]
fn a_request_signed_for_the_local_port_of_a_tunnel_is_accepted_once() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let local = tunnel(gateway.setup.ingress);
    let request = gateway.agent().get(&local.to_string(), &connection.at("/v1"));
    assert_eq!(client::send(local, &request).status, 200);
    assert_eq!(client::send(local, &request).code(), "AUTH_REPLAY_DETECTED");
    let named = gateway.agent().get("gateway.example:443", &connection.at("/v1"));
    let refused = client::send(local, &named);
    assert_eq!((refused.status, refused.code().as_str()), (403, "AUTH_AUTHORITY_NOT_ACCEPTED"), "{}", refused.text());
    assert_eq!(upstream.count(), 1);
}

#[test]
fn the_admin_api_wants_its_token_through_a_tunnel_too() {
    let gateway = shared();
    let local = tunnel(gateway.setup.admin);
    let request = Request::new("GET", &local.to_string(), "/api/admin/connections");
    assert_eq!(client::send(local, &request).code(), "ADMIN_TOKEN_REQUIRED");
    let token = std::fs::read_to_string(gateway.setup.data().join("admin-token")).unwrap();
    let request = request.header("authorization", &format!("Bearer {}", token.trim()));
    assert_eq!(client::send(local, &request).status, 200);
}

//! A port that accepts is one that answers: whoever waits for a port, waits for the program behind it.

use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Instant;

use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;

/// Asks as soon as it is let in; what comes, up to the end of the first line.
fn first_words(address: SocketAddr, path: &str) -> String {
    let began = Instant::now();
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{address}");
                assert!(began.elapsed() < LIMIT, "{address} never accepts");
                std::thread::yield_now();
            }
        }
    };
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
    if text.is_empty() { format!("no answer: {read:?}") } else { text }
}

#[test]
fn whoever_is_let_in_while_the_gateway_starts_is_answered() {
    let setup = Setup::new();
    let asked = [(setup.ingress, "/healthz"), (setup.admin, "/health/live"), (setup.face, "/ready")];
    let running = Running::spawn(setup.command(&["gateway", "start"]));
    std::thread::scope(|scope| {
        let asking = asked.map(|(address, path)| scope.spawn(move || (address, first_words(address, path))));
        for asker in asking {
            let (address, words) = asker.join().unwrap();
            assert!(words.starts_with("HTTP/1.1 "), "{address}: {words}\n{}", running.said());
        }
    });
}

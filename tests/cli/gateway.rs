//! The real admin process of a gateway, for commands that speak to it.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::process::Child;
use std::time::Duration;
use std::time::Instant;

use super::*;

/// A real admin process with its store in the person's home.
pub(crate) struct Gateway {
    child: Child,
    address: SocketAddr,
}

impl Gateway {
    pub(crate) fn start(person: &Person) -> Self {
        Self::start_with(person, &[])
    }

    /// The same with variables of its own.
    pub(crate) fn start_with(person: &Person, variables: &[(&str, &str)]) -> Self {
        Self::start_told(person, variables, Stdio::null())
    }

    /// The same, and where its log goes.
    #[allow(clippy::disallowed_methods, reason = "a deadline of the test")]
    pub(crate) fn start_told(person: &Person, variables: &[(&str, &str)], log: Stdio) -> Self {
        // Bound for a moment to find it; the admin process says so where somebody was faster.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let listen = address.to_string();
        let child = person
            .command(&["gateway", "admin", "--addr", &listen, "--namespace", "acme"])
            .envs(variables.iter().copied())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut gateway = Self { child, address };
        let begun = Instant::now();
        while !gateway.answers() {
            assert!(gateway.child.try_wait().unwrap().is_none(), "the admin process has ended");
            assert!(begun.elapsed() < Duration::from_secs(60), "the admin process does not answer");
            thread::sleep(Duration::from_millis(20));
        }
        gateway
    }

    fn answers(&self) -> bool {
        self.ask("GET /health/live HTTP/1.1\r\nhost: localhost\r\n").starts_with("HTTP/1.1 200")
    }

    /// The answer to a head without its end; nothing where there is none.
    pub(crate) fn ask(&self, head: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(self.address) else { return String::new() };
        let asked = stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes());
        let mut answer = String::new();
        if asked.is_ok() && stream.read_to_string(&mut answer).is_ok() { answer } else { String::new() }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every file below the home folder that holds this text.
pub(crate) fn holders(folder: &Path, text: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holders(&path, text));
        } else if fs::read(&path).is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text)) {
            found.push(path.display().to_string());
        }
    }
    found
}

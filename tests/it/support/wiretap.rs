//! A wire that keeps what it carries: a TCP relay in front of a server, both directions remembered byte by byte.

use std::io::Read as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

/// Carries until the test process ends.
pub struct Wiretap {
    pub address: SocketAddr,
    carried: Arc<Mutex<Vec<u8>>>,
}

impl Wiretap {
    /// In front of a server.
    pub fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let carried: Arc<Mutex<Vec<u8>>> = Arc::default();
        let kept = Arc::clone(&carried);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(to) else { continue };
                for (mut from, mut into) in
                    [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far.try_clone().unwrap(), near)]
                {
                    let kept = Arc::clone(&kept);
                    thread::spawn(move || {
                        let mut buffer = [0_u8; 16 * 1024];
                        while let Ok(length @ 1..) = from.read(&mut buffer) {
                            kept.lock().unwrap().extend_from_slice(&buffer[..length]);
                            if into.write_all(&buffer[..length]).is_err() {
                                break;
                            }
                        }
                        let _ = into.shutdown(Shutdown::Write);
                    });
                }
            }
        });
        Self { address, carried }
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything so far.
    pub fn carried(&self) -> Vec<u8> {
        self.carried.lock().unwrap().clone()
    }
}

//! The load generator: requests made beforehand, a fixed number of keep-alive connections, each
//! sending its next request when the last answer has come.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What one burst showed.
#[derive(Default)]
pub struct Burst {
    pub elapsed: Duration,
    /// Microseconds, one per request, in no order.
    pub latencies: Vec<u32>,
}

/// Sends all `requests` once over `connections` connections. Any answer but 200 ends the bench: a
/// refusal is cheaper than the work that is measured.
pub async fn send_all(address: SocketAddr, requests: Vec<Vec<u8>>, connections: usize) -> Burst {
    let requests = Arc::new(requests);
    let next = Arc::new(AtomicUsize::new(0));
    let mut streams = Vec::new();
    for _ in 0..connections {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        streams.push(stream);
    }
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for stream in streams {
        workers.spawn(work(stream, Arc::clone(&requests), Arc::clone(&next)));
    }
    let mut burst = Burst::default();
    while let Some(latencies) = workers.join_next().await {
        burst.latencies.extend(latencies.unwrap());
    }
    burst.elapsed = start.elapsed();
    assert_eq!(burst.latencies.len(), requests.len());
    burst
}

/// Sends `requests` at `rate` per second until `done` says so or none is left. A latency counts from the moment at
/// which its request was to be sent, so that what holds several up is seen in all of them.
pub async fn send_paced(
    address: SocketAddr,
    requests: Vec<Vec<u8>>,
    connections: usize,
    rate: f64,
    done: Arc<AtomicBool>,
) -> Burst {
    let requests = Arc::new(requests);
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    let start = Instant::now();
    for _ in 0..connections {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (requests, next, done) = (Arc::clone(&requests), Arc::clone(&next), Arc::clone(&done));
        workers.spawn(async move {
            let mut latencies = Vec::new();
            let mut buffer = vec![0_u8; 64 * 1024];
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(request) = requests.get(at) else { return latencies };
                let due = start + Duration::from_secs_f64(at as f64 / rate);
                tokio::time::sleep_until(due.into()).await;
                if done.load(Ordering::Relaxed) {
                    return latencies;
                }
                stream.write_all(request).await.unwrap();
                read_answer(&mut stream, &mut buffer).await;
                latencies.push(u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
        });
    }
    let mut burst = Burst::default();
    while let Some(latencies) = workers.join_next().await {
        burst.latencies.extend(latencies.unwrap());
    }
    burst.elapsed = start.elapsed();
    burst
}

async fn work(mut stream: TcpStream, requests: Arc<Vec<Vec<u8>>>, next: Arc<AtomicUsize>) -> Vec<u32> {
    let mut latencies = Vec::new();
    let mut buffer = vec![0_u8; 64 * 1024];
    while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
        let start = Instant::now();
        stream.write_all(request).await.unwrap();
        read_answer(&mut stream, &mut buffer).await;
        latencies.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    latencies
}

/// Reads one answer with a `content-length`, or without any body.
async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut filled = 0;
    let head = loop {
        let read = stream.read(&mut buffer[filled..]).await.unwrap();
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&buffer[..filled]));
        filled += read;
        if let Some(at) = find(&buffer[..filled], b"\r\n\r\n") {
            break at + 4;
        }
    };
    let length = find(&buffer[..head], b"content-length: ").map_or(0, |at| {
        let digits = buffer[at + 16..head].iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0, |total, digit| total * 10 + usize::from(digit - b'0'))
    });
    assert!(
        buffer.starts_with(b"HTTP/1.1 200"),
        "refused: {}",
        String::from_utf8_lossy(&buffer[..filled.min(head + length)])
    );
    let mut left = (head + length).saturating_sub(filled);
    while left > 0 {
        let read = stream.read(&mut buffer[..left.min(64 * 1024)]).await.unwrap();
        assert!(read > 0, "closed within a body");
        left -= read;
    }
}

/// Where `needle` begins.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

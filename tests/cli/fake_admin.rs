//! An admin API that answers what a test tells it to, over real sockets: for what a real gateway does only once in a
//! while, or with a provider behind it.

use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

use serde_json::Value;

/// One answer: method and path below `/api/admin`, status, body.
pub(crate) type Line = (&'static str, u16, Value);

/// A running admin API.
pub(crate) struct Admin {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Admin {
    /// Answers as told until the process ends; everything else is 404.
    pub(crate) fn start(script: Vec<Line>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (shared, script) = (Arc::clone(&asked), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (shared, script) = (Arc::clone(&shared), Arc::clone(&script));
                thread::spawn(move || serve(stream.unwrap(), &script, &shared));
            }
        });
        Self { url, asked }
    }

    /// Method and path of each request since the last look, with its body.
    pub(crate) fn asked(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn serve(mut stream: TcpStream, script: &[Line], asked: &Mutex<Vec<(String, Value)>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let length = head.iter().filter_map(|line| line.split_once(": "));
        let length =
            length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).map(|(_, value)| value).next();
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body).unwrap();
        let mut words = head[0].split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let line = format!("{method} {}", path.strip_prefix("/api/admin").unwrap());
        asked.lock().unwrap().push((line.clone(), serde_json::from_slice(&body).unwrap_or_default()));
        let not_found = serde_json::json!({"error": "connection not found", "code": "NOT_FOUND"});
        let (status, answer) = match script.iter().find(|(known, ..)| *known == line) {
            Some((_, status, body)) => (*status, body.to_string()),
            None => (404, not_found.to_string()),
        };
        let answer = if answer == "null" { String::new() } else { answer };
        let head = format!(
            "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        if stream.write_all(format!("{head}{answer}").as_bytes()).is_err() {
            return;
        }
    }
}

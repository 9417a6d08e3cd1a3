//! An admin API that answers what a test tells it to, over real sockets: for what a real gateway does only once in a
//! while, or with a provider behind it.

use std::io::BufReader;
use std::io::Write as _;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

use serde_json::Value;

use crate::fake;

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
    while let Some(request) = fake::next(&mut reader) {
        let (method, path) = request.line.split_once(' ').unwrap();
        let line = format!("{method} {}", path.strip_prefix("/api/admin").unwrap());
        asked.lock().unwrap().push((line.clone(), request.body));
        let not_found = serde_json::json!({"error": "connection not found", "code": "NOT_FOUND"});
        let (status, body) = match script.iter().find(|(known, ..)| *known == line) {
            Some((_, status, body)) => (*status, body.to_string()),
            None => (404, not_found.to_string()),
        };
        let body = if body == "null" { "" } else { &body };
        if stream.write_all(fake::answer(status, body).as_bytes()).is_err() {
            return;
        }
    }
}

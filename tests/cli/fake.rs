//! A Sigilum API that keeps its rows in memory, over real sockets: as much of it as the commands use.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write as _;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use serde_json::json;

/// The only token the API takes.
pub(crate) fn token(namespace: &str) -> String {
    let claims = json!({"sub": "user_1", "namespace": namespace, "exp": 4_102_444_800_u64});
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Method and target.
    pub(crate) line: String,
    /// The value of `authorization`.
    pub(crate) authorization: String,
    /// The body; `Null` where there is none.
    pub(crate) body: Value,
}

/// What it knows.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) services: Vec<Value>,
    pub(crate) keys: Vec<Value>,
    pub(crate) claims: Vec<Value>,
    /// Answers everything with this instead, where it is set: the whole text of an answer.
    pub(crate) instead: Option<String>,
    pub(crate) asked: Vec<Asked>,
}

/// A running API.
pub(crate) struct Api {
    pub(crate) base: String,
    pub(crate) rows: Arc<Mutex<Rows>>,
}

impl Api {
    /// Serves until the process ends.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let rows = Arc::new(Mutex::new(Rows::default()));
        let shared = Arc::clone(&rows);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        Self { base, rows }
    }

    /// The lines of the requests since the last look.
    pub(crate) fn lines(&self) -> Vec<String> {
        std::mem::take(&mut self.rows.lock().unwrap().asked).into_iter().map(|asked| asked.line).collect()
    }

    /// Adds a claim of the namespace `acme`.
    pub(crate) fn claim(&self, id: &str, service: &str, key: &str, status: &str) {
        self.rows.lock().unwrap().claims.push(json!({
            "claim_id": id, "namespace": "acme", "service": service, "public_key": key, "status": status,
            "agent_ip": "127.0.0.1", "subject": null, "agent_id": null, "agent_name": "my agent",
            "created_at": "2026-01-01T00:00:00.000Z", "approved_at": null, "revoked_at": null,
        }));
    }
}

/// The next request of a connection; `None` at its end.
pub(crate) fn next(reader: &mut impl BufRead) -> Option<Asked> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let header = |name: &str| {
        let found = head.iter().filter_map(|line| line.split_once(": "));
        found.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
    };
    let mut body = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    Some(Asked {
        line: head[0].trim_end_matches(" HTTP/1.1").to_owned(),
        authorization: header("authorization").unwrap_or_default(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    })
}

/// An answer of JSON; `body` may be empty.
pub(crate) fn answer(status: u16, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn serve(mut stream: TcpStream, rows: &Mutex<Rows>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(asked) = next(&mut reader) {
        let mut rows = rows.lock().unwrap();
        rows.asked.push(asked.clone());
        let answer = rows.instead.clone().unwrap_or_else(|| {
            let (status, body) = route(&mut rows, &asked);
            self::answer(status, &body.to_string())
        });
        drop(rows);
        if stream.write_all(answer.as_bytes()).is_err() || answer.contains("text/html") {
            return;
        }
    }
}

fn refusal(status: u16, code: &str, error: &str) -> (u16, Value) {
    (status, json!({"error": error, "code": code}))
}

fn route(rows: &mut Rows, asked: &Asked) -> (u16, Value) {
    if asked.authorization != format!("Bearer {}", token("acme")) {
        return refusal(401, "UNAUTHORIZED", "sign in first");
    }
    let (method, target) = asked.line.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let of = |name: &str| query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
    let path: Vec<_> = path.split('/').skip(1).collect();
    let body = &asked.body;
    match (method, path.as_slice()) {
        ("GET", ["v1", "services"]) => (200, json!({"services": rows.services})),
        ("POST", ["v1", "services"]) => {
            let slug = body["slug"].as_str().unwrap();
            if rows.services.iter().any(|service| service["slug"] == slug) {
                return refusal(409, "CONFLICT", "taken");
            }
            let mut service = body.clone();
            service["id"] = json!(format!("svc_local_{slug}"));
            service["active_key_count"] = json!(0);
            rows.services.push(service.clone());
            (201, service)
        }
        ("GET", ["v1", "services", _, "keys"]) => (200, json!({"keys": rows.keys, "pagination": {}})),
        ("POST", ["v1", "services", _, "keys"]) => {
            let key = body["key"].as_str().unwrap();
            let row = json!({"id": "key_0123456789abcdef", "name": body["name"],
                             "key_prefix": format!("...{}", &key[key.len() - 4..])});
            rows.keys.push(row.clone());
            rows.services[0]["active_key_count"] = json!(rows.keys.len());
            (201, row)
        }
        ("GET", ["v1", "namespaces", namespace, "claims"]) => {
            if *namespace != "acme" {
                return refusal(403, "FORBIDDEN", "another owner's");
            }
            let kept = |claim: &&Value| {
                ["status", "service"].iter().all(|name| of(name).is_none_or(|(_, value)| claim[*name] == value))
            };
            let all: Vec<_> = rows.claims.iter().filter(kept).cloned().collect();
            // Pages of two, so that there is something to page through.
            let offset: usize = of("offset").unwrap().1.parse().unwrap();
            let page: Vec<_> = all.iter().skip(offset).take(2).collect();
            let more = offset + page.len() < all.len();
            let pagination = json!({"limit": 2, "offset": offset, "total": all.len(), "has_more": more});
            (200, json!({"claims": page, "pagination": pagination}))
        }
        ("GET", ["v1", "claims", id]) => match rows.claims.iter().find(|claim| claim["claim_id"] == *id) {
            Some(claim) => (200, claim.clone()),
            None => refusal(404, "NOT_FOUND", "no such claim"),
        },
        ("POST", ["v1", "claims", id, verb]) => {
            let Some(claim) = rows.claims.iter_mut().find(|claim| claim["claim_id"] == *id) else {
                return refusal(404, "NOT_FOUND", "no such claim");
            };
            let (from, to) = match *verb {
                "approve" => ("pending", "approved"),
                "reject" => ("pending", "rejected"),
                _ => ("approved", "revoked"),
            };
            if claim["status"] != from {
                return refusal(404, "NOT_FOUND", "in another state");
            }
            if claim["service"] == "full-svc" {
                return refusal(409, "AGENT_LIMIT_REACHED", "ten agents have this service");
            }
            claim["status"] = json!(to);
            if claim["service"] != "hosted-svc" {
                if let Some(at) = body.get("expires_at") {
                    claim["expires_at"] = at.clone();
                }
                if body.get("expires_in_seconds").is_some() {
                    claim["expires_at"] = json!("2099-01-01T00:00:00.000Z");
                }
            }
            (200, json!({"claim_id": id, "status": to, "expires_at": claim.get("expires_at")}))
        }
        _ => refusal(404, "NOT_FOUND", "no such path"),
    }
}

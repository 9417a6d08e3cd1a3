//! An HTTP/1.1 client that sends exactly the bytes it is given: targets, header order, repeated
//! headers, chunks, bodies shorter than announced. Nothing is normalised on the way out.

use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;

/// No answer within this long is a failure of the test, not something to wait for.
const PATIENCE: Duration = Duration::from_secs(30);

/// What follows the headers.
#[derive(Debug, Clone)]
pub enum Body {
    /// Nothing.
    None,
    /// Announced by `content-length`.
    Sized(Vec<u8>),
    /// `transfer-encoding: chunked`, in these chunks.
    Chunked(Vec<Vec<u8>>),
    /// `content-length` says more than is sent; then the sending side is closed.
    Short {
        /// What the header says.
        announced: usize,
        /// What is sent.
        sent: Vec<u8>,
    },
}

/// One request, written as it stands.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Body,
}

impl Request {
    /// An unsigned request with a `host` header.
    pub fn new(method: &str, authority: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: vec![("host".to_owned(), authority.to_owned())],
            body: Body::None,
        }
    }

    /// Adds a header at the end.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The body.
    pub fn with_body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// The value of the first header of this name.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_str())
    }

    /// Replaces the value of a header that is there.
    pub fn replace(mut self, name: &str, change: impl Fn(&str) -> String) -> Self {
        let mut found = false;
        for (held, value) in &mut self.headers {
            if held == name {
                *value = change(value);
                found = true;
            }
        }
        assert!(found, "no header {name} to replace");
        self
    }

    /// Removes a header that is there.
    pub fn without(mut self, name: &str) -> Self {
        let before = self.headers.len();
        self.headers.retain(|(held, _)| held != name);
        assert!(self.headers.len() < before, "no header {name} to remove");
        self
    }

    /// Repeats a header that is there.
    pub fn repeat(self, name: &str) -> Self {
        let value = self.value(name).unwrap().to_owned();
        self.header(name, &value)
    }

    /// Request line and headers.
    pub fn head(&self) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        match &self.body {
            Body::None => {}
            Body::Sized(body) => out.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes()),
            Body::Short { announced, .. } => {
                out.extend_from_slice(format!("content-length: {announced}\r\n").as_bytes());
            }
            Body::Chunked(_) => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        }
        out.extend_from_slice(b"\r\n");
        out
    }

    /// Everything as it goes onto the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.head();
        match &self.body {
            Body::None => {}
            Body::Sized(body) | Body::Short { sent: body, .. } => out.extend_from_slice(body),
            Body::Chunked(chunks) => {
                for chunk in chunks {
                    out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    out.extend_from_slice(chunk);
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(b"0\r\n\r\n");
            }
        }
        out
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    /// Names in lower case, in order, repeated ones repeated.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of a refusal: of the JSON envelope, or of the header where the body is Markdown.
    pub fn code(&self) -> String {
        match serde_json::from_slice::<serde_json::Value>(&self.body) {
            Ok(json) => json.get("code").and_then(|code| code.as_str()).unwrap_or_default().to_owned(),
            Err(_) => self.header("x-sigilum-code").unwrap_or_default().to_owned(),
        }
    }
}

/// One connection on which answers are read as they come.
pub struct Exchange {
    reader: BufReader<TcpStream>,
    chunked: bool,
    left: Option<usize>,
}

/// Why there is no whole answer.
#[derive(Debug)]
pub struct Broken(pub String);

impl Exchange {
    /// Connects.
    pub fn open(address: SocketAddr) -> Result<Self, Broken> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| Broken(error.to_string()))?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Ok(Self { reader: BufReader::new(stream), chunked: false, left: None })
    }

    /// Writes raw bytes. An error is left to the reader: a refusal may come before all is written.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.reader.get_mut().write_all(bytes).is_ok()
    }

    /// Closes the sending side.
    pub fn finish(&mut self) {
        // The peer may have closed already; that is what the test then reads.
        let _ = self.reader.get_ref().shutdown(Shutdown::Write);
    }

    fn line(&mut self) -> Result<String, Broken> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).map_err(|error| Broken(error.to_string()))?;
        if !line.ends_with(b"\n") {
            return Err(Broken(format!("closed after {:?}", String::from_utf8_lossy(&line))));
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Reads status line and headers; interim answers are skipped.
    pub fn read_head(&mut self, method: &str) -> Result<Response, Broken> {
        loop {
            let line = self.line()?;
            let status: u16 = line
                .strip_prefix("HTTP/1.1 ")
                .and_then(|rest| rest.get(..3))
                .and_then(|code| code.parse().ok())
                .ok_or_else(|| Broken(format!("status line {line:?}")))?;
            let mut headers = Vec::new();
            loop {
                let line = self.line()?;
                if line.is_empty() {
                    break;
                }
                let (name, value) = line.split_once(':').ok_or_else(|| Broken(format!("header {line:?}")))?;
                headers.push((name.to_lowercase(), value.trim().to_owned()));
            }
            let response = Response { status, headers, body: Vec::new() };
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            self.chunked = response.header("transfer-encoding") == Some("chunked");
            self.left = match response.header("content-length") {
                Some(length) => Some(length.parse().map_err(|_| Broken(format!("length {length}")))?),
                None if matches!(status, 204 | 304) => Some(0),
                None => None,
            };
            if method == "HEAD" {
                self.chunked = false;
                self.left = Some(0);
            }
            return Ok(response);
        }
    }

    /// Reads the next piece of the body as it arrives; `None` at its end.
    pub fn read_piece(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        let wanted = if self.chunked {
            let line = self.line()?;
            let length = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16)
                .map_err(|_| Broken(format!("chunk length {line:?}")))?;
            if length == 0 {
                while !self.line()?.is_empty() {}
                return Ok(None);
            }
            Some(length)
        } else {
            self.left
        };
        let mut piece = Vec::new();
        match wanted {
            Some(0) => return Ok(None),
            Some(length) => {
                piece.resize(length, 0);
                self.reader.read_exact(&mut piece).map_err(|error| Broken(error.to_string()))?;
                if self.chunked {
                    self.line()?;
                } else {
                    self.left = Some(0);
                }
            }
            None => {
                let available = self.reader.fill_buf().map_err(|error| Broken(error.to_string()))?.to_vec();
                if available.is_empty() {
                    return Ok(None);
                }
                self.reader.consume(available.len());
                piece = available;
            }
        }
        Ok(Some(piece))
    }

    /// Sends a request and reads its whole answer; the connection stays open for the next.
    pub fn send(&mut self, request: &Request) -> Result<Response, Broken> {
        self.write(&request.bytes());
        if matches!(request.body, Body::Short { .. }) {
            self.finish();
        }
        self.read_answer(&request.method)
    }

    /// Reads one whole answer.
    pub fn read_answer(&mut self, method: &str) -> Result<Response, Broken> {
        let mut response = self.read_head(method)?;
        while let Some(piece) = self.read_piece()? {
            response.body.extend_from_slice(&piece);
        }
        Ok(response)
    }
}

/// Sends one request on a connection of its own.
pub fn try_send(address: SocketAddr, request: &Request) -> Result<Response, Broken> {
    Exchange::open(address)?.send(request)
}

/// Sends one request on a connection of its own; no answer fails the test.
pub fn send(address: SocketAddr, request: &Request) -> Response {
    try_send(address, request).unwrap_or_else(|Broken(why)| panic!("{} {}: {why}", request.method, request.target))
}

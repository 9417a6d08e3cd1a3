//! The files pages refer to. They are in the binary; their address holds a hash of all of them, so that browsers may
//! keep them for good and a new program brings new ones.

use std::sync::LazyLock;

use axum::body::Body;
use axum::extract::Path;
use http::HeaderValue;
use http::Response;
use http::header;
use sha2::Digest as _;
use sha2::Sha256;

use crate::api::problem::Problem;
use crate::dashboard::failure::Failure;
use crate::domain::hex;

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, content type, content.
const FILES: [(&str, &str, &[u8]); 6] = [
    ("app.css", "text/css; charset=utf-8", include_bytes!("assets/app.css")),
    ("app.js", SCRIPT, include_bytes!("assets/app.js")),
    ("seal.js", SCRIPT, include_bytes!("assets/seal.js")),
    ("hpke.js", SCRIPT, include_bytes!("assets/vendor/hpke.js")),
    ("htmx.js", SCRIPT, include_bytes!("assets/vendor/htmx.min.js")),
    ("icon.svg", "image/svg+xml", include_bytes!("assets/icon.svg")),
];

/// Hex digits of the hash in an address.
const DIGITS: usize = 12;

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for (name, _, content) in FILES {
        hash.update(name);
        hash.update(content);
    }
    hex::text(&hash.finalize()).chars().take(DIGITS).collect()
});

/// Names the files as they are in this program.
pub(super) fn version() -> &'static str {
    &VERSION
}

/// One of them.
pub(super) async fn serve(Path((version, name)): Path<(String, String)>) -> Result<Response<Body>, Failure> {
    let found = FILES.iter().find(|(known, _, _)| *known == name).filter(|_| version == *VERSION);
    let Some((_, kind, content)) = found else { return Err(Problem::not_found().into()) };
    let mut response = Response::new(Body::from(*content));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let for_good = HeaderValue::from_static("public, max-age=31536000, immutable");
    headers.insert(header::CACHE_CONTROL, for_good);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_are_those_that_are_written_down() {
        let written = include_str!("assets/vendor/README.md");
        for (name, file) in [("hpke.js", "hpke.js"), ("htmx.js", "htmx.min.js")] {
            let content = FILES.iter().find(|(known, _, _)| *known == name).map_or(&b""[..], |(_, _, content)| content);
            let row = written.lines().find(|line| line.starts_with(&format!("| `{file}`"))).unwrap_or_default();
            assert!(row.contains(&hex::text(&Sha256::digest(content))), "{file} is another one");
        }
    }
}

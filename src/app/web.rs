//! One HTTP request to whatever URL a person configured, with a deadline and a bound on the answer.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use reqwest::Url;

use crate::sys::http::HttpError;
use crate::sys::http::chain;
use crate::sys::http::client;
use crate::sys::http::trusting;
use crate::sys::tls::trust::ServerTrust;

/// Largest answer that is read.
const MAX_ANSWER: usize = 1024 * 1024;

/// Sends requests.
#[derive(Debug, Clone)]
pub(super) struct Web {
    plain: reqwest::Client,
    tls: Option<reqwest::Client>,
    deadline: Duration,
}

/// What came back.
#[derive(Debug, Clone)]
pub(super) struct Page {
    /// HTTP status.
    pub(super) status: u16,
    /// The header fields.
    pub(super) headers: HeaderMap,
    /// The whole body, as far as it is text.
    pub(super) text: String,
}

impl Web {
    /// For these addresses; certificates are only loaded where one of them is `https`.
    pub(super) fn new(urls: &[&Url], deadline: Duration) -> Result<Self, HttpError> {
        Self::trusting(urls, deadline, &ServerTrust::default())
    }

    /// The same with whom to believe behind those that are `https`.
    pub(super) fn trusting(urls: &[&Url], deadline: Duration, trust: &ServerTrust) -> Result<Self, HttpError> {
        let tls = urls.iter().any(|url| url.scheme() == "https");
        Ok(Self { plain: client(false)?, tls: tls.then(|| trusting(trust)).transpose()?, deadline })
    }

    /// One request. The error is a sentence without the URL, which may hold what nobody should see.
    pub(super) async fn ask(&self, method: Method, url: &Url, headers: HeaderMap, body: Bytes) -> Result<Page, String> {
        let client = match (&self.tls, url.scheme()) {
            (Some(tls), "https") => tls,
            _ => &self.plain,
        };
        let work = async {
            let mut answer = client.request(method, url.clone()).headers(headers).body(body).send().await?;
            let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
            let mut bytes = Vec::new();
            while let Some(chunk) = answer.chunk().await? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() > MAX_ANSWER {
                    break;
                }
            }
            bytes.truncate(MAX_ANSWER);
            Ok::<_, reqwest::Error>(Page { status, headers, text: String::from_utf8_lossy(&bytes).into_owned() })
        };
        match tokio::time::timeout(self.deadline, work).await {
            Ok(Ok(page)) => Ok(page),
            Ok(Err(error)) => Err(chain(&error.without_url())),
            Err(_) => Err(format!("no answer within {} s", self.deadline.as_secs())),
        }
    }

    /// A plain GET.
    pub(super) async fn get(&self, url: &Url) -> Result<Page, String> {
        self.ask(Method::GET, url, HeaderMap::new(), Bytes::new()).await
    }

    /// Whether a GET is answered 200.
    pub(super) async fn is_healthy(&self, url: &Url) -> bool {
        self.get(url).await.is_ok_and(|page| page.status == 200)
    }
}

/// `base` and a path below it, whether or not the base ends with a slash.
pub(super) fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_query(None);
    url.set_fragment(None);
    let whole = format!("{}/{}", base.path().trim_end_matches('/'), path.trim_start_matches('/'));
    url.set_path(&whole);
    url
}

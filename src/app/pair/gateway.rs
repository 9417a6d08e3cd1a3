//! The admin API of this gateway, as relayed requests reach it.

use std::collections::BTreeMap;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::header::CONNECTION;
use http::header::CONTENT_LENGTH;
use http::header::TRANSFER_ENCODING;
use reqwest::Client;
use reqwest::Response;
use reqwest::Url;
use zeroize::Zeroizing;

use crate::app::json_api::readable;
use crate::app::pair::PairConfig;
use crate::app::pair::PairError;
use crate::app::pair::TokenSource;
use crate::domain::relay::RELAY_HEADER;
use crate::domain::secret::Secret;
use crate::pair::allow::Allowed;
use crate::pair::allow::Verb;
use crate::pair::session::Answer;
use crate::pair::session::GATEWAY_UNREACHABLE;
use crate::pair::session::Relay;
use crate::sys::http::chain;
use crate::sys::http::client;
use crate::sys::http::trusting;
use crate::sys::tls::trust::ServerTrust;

/// Largest answer that is carried. As many at a time as there may be requests under way.
pub(super) const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// The header of the admin token.
const TOKEN_HEADER: &str = "x-sigilum-admin-token";
/// Headers of an answer that are about its connection, or about bytes that are not carried as they came.
const OWN_HEADERS: [HeaderName; 3] = [CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH];

/// The admin API.
#[derive(Clone)]
pub(super) struct Gateway {
    client: Client,
    base: Url,
    session: Option<HeaderValue>,
    token: TokenSource,
}

impl Gateway {
    /// For what a session relays.
    pub(super) fn new(config: &PairConfig) -> Result<Self, PairError> {
        let session = HeaderValue::from_str(config.session.as_str()).map_err(|_| PairError::SessionId)?;
        let gateway = Self::local(&config.admin_url, &config.admin_trust, config.admin_token.clone())?;
        Ok(Self { session: Some(session), ..gateway })
    }

    /// For what a command of this machine asks.
    pub(super) fn local(admin: &Url, trust: &ServerTrust, token: TokenSource) -> Result<Self, PairError> {
        let tls = admin.scheme() == "https";
        let client = if tls { trusting(trust)? } else { client(false)? };
        Ok(Self { client, base: admin.clone(), session: None, token })
    }

    /// One request that came through a session; whatever goes wrong is an answer too. Ends when it is dropped.
    pub(super) async fn relay(&self, relay: &Relay) -> Answer {
        let Relay { allowed, headers, tokens, body, .. } = relay;
        self.exchange(allowed, headers, tokens, body.as_ref()).await.unwrap_or_else(|error| Answer::failed(502, error))
    }

    /// One request of this machine's own, as [`Gateway::relay`].
    pub(super) async fn ask(
        &self,
        allowed: &Allowed,
        headers: &[(&'static str, String)],
        body: Option<&Secret>,
    ) -> Answer {
        self.exchange(allowed, headers, &[], body).await.unwrap_or_else(|error| Answer::failed(502, error))
    }

    async fn exchange(
        &self,
        allowed: &Allowed,
        headers: &[(&'static str, String)],
        tokens: &[(&'static str, Secret)],
        body: Option<&Secret>,
    ) -> Result<Answer, String> {
        let mut request = self.client.request(method(allowed.verb()), self.url(allowed)?);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(session) = &self.session {
            request = request.header(RELAY_HEADER, session.clone());
        }
        for (name, token) in tokens {
            let mut value =
                HeaderValue::from_str(token.expose()).map_err(|_| "a token holds what no header can".to_owned())?;
            value.set_sensitive(true);
            request = request.header(*name, value);
        }
        // What exactly is wrong with a file of this machine concerns nobody elsewhere. It is looked at whatever the request
        // brings: who listens in the gateway's place is to see no token at all.
        let token = (self.token)().map_err(|_| {
            "the admin token of this machine cannot be read, or another program listens in the gateway's place"
                .to_owned()
        })?;
        if let Some(token) = token.filter(|_| tokens.is_empty()) {
            let mut value = HeaderValue::from_str(token.expose())
                .map_err(|_| "the admin token holds characters that no token has".to_owned())?;
            value.set_sensitive(true);
            request = request.header(TOKEN_HEADER, value);
        }
        if let Some(body) = body {
            request = request.body(body.expose().to_owned());
        }
        let answer = request.send().await.map_err(said)?;
        let status = answer.status().as_u16();
        let headers = texts(answer.headers());
        let bytes = whole(answer).await?;
        let body = (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned());
        Ok(Answer { status, headers, body, error: None })
    }

    /// The address of a path that was judged, as it was judged.
    fn url(&self, allowed: &Allowed) -> Result<Url, String> {
        let mut url = self.base.clone();
        let path = format!("{}{}", self.base.path().trim_end_matches('/'), allowed.path());
        url.set_path(&path);
        if url.path() == path && url.query().is_none() { Ok(url) } else { Err("the path has two readings".to_owned()) }
    }
}

const fn method(verb: Verb) -> Method {
    match verb {
        Verb::Get => Method::GET,
        Verb::Post => Method::POST,
        Verb::Put => Method::PUT,
        Verb::Patch => Method::PATCH,
        Verb::Delete => Method::DELETE,
    }
}

/// The headers whose value is text; several of one name in one line (RFC 9110 section 5.3).
fn texts(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let Ok(value) = value.to_str() else { continue };
        if OWN_HEADERS.contains(name) {
            continue;
        }
        texts
            .entry(name.as_str().to_owned())
            .and_modify(|text| {
                text.push_str(", ");
                text.push_str(value);
            })
            .or_insert_with(|| value.to_owned());
    }
    texts
}

async fn whole(mut answer: Response) -> Result<Zeroizing<Vec<u8>>, String> {
    let too_large = || format!("the gateway's answer is larger than {} MiB", MAX_ANSWER / 1024 / 1024);
    if answer.content_length().is_some_and(|length| length > MAX_ANSWER as u64) {
        return Err(too_large());
    }
    let mut bytes = Zeroizing::new(Vec::new());
    while let Some(chunk) = answer.chunk().await.map_err(said)? {
        if bytes.len().saturating_add(chunk.len()) > MAX_ANSWER {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn said(error: reqwest::Error) -> String {
    format!("{GATEWAY_UNREACHABLE}: {}", readable(&chain(&error.without_url())))
}

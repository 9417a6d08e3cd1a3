//! The settings of traces, put together: where they go, and how much is traced.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderName;
use http::HeaderValue;
use http::Uri;
use serde::Deserialize;
use serde::Serialize;

use crate::config::load::parse_url;
use crate::config::loader::Loader;
use crate::config::loader::Shape;
use crate::config::telemetry_keys::OTLP_ENDPOINT;
use crate::config::telemetry_keys::OTLP_HEADERS;
use crate::config::telemetry_keys::SAMPLE_RATIO;
use crate::config::telemetry_keys::SERVICE_NAME;
use crate::domain::secret::Secret;
use crate::domain::trace::Collector;

/// Most headers for the collector.
const MAX_HEADERS: usize = 16;
/// Longest name of the service.
const MAX_NAME: usize = 128;

/// How Envoy traces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceOptions {
    /// What its spans say they are from.
    pub service_name: String,
    /// How many of 10,000 requests without a context of their own are traced.
    pub sampled: u16,
}

/// Reads them; nothing where no collector is named. The outer `None`: a mistake was noted.
pub(super) fn read(loader: &mut Loader<'_>) -> Option<Option<(TraceOptions, Arc<Collector>)>> {
    let before = loader.mistakes.len();
    let endpoint = loader.read(&OTLP_ENDPOINT, Shape::Text, parse_endpoint);
    let headers = loader.secret(&OTLP_HEADERS, |text| parse_headers(text).map(|_| ()));
    let sampled = loader.read(&SAMPLE_RATIO, Shape::Number, parse_ratio);
    let service_name = loader.read(&SERVICE_NAME, Shape::Text, parse_name);
    if let (Some(endpoint), Some(_)) = (&endpoint, &headers)
        && is_exposed(endpoint)
    {
        let message = "are secret and would travel in clear: telemetry.otlp_endpoint must be https or loopback";
        loader.blame(&OTLP_HEADERS, message.to_owned());
    }
    if loader.mistakes.len() > before {
        return None;
    }
    let Some(endpoint) = endpoint else { return Some(None) };
    let headers = headers.and_then(|text| parse_headers(text.expose()).ok()).unwrap_or_default();
    let collector = Collector { endpoint, service_name: service_name.clone()?, headers };
    Some(Some((TraceOptions { service_name: service_name?, sampled: sampled? }, Arc::new(collector))))
}

fn parse_endpoint(text: &str) -> Result<String, String> {
    let url = parse_url(text)?;
    let uri: Uri = url.parse().map_err(|_| "must be an address".to_owned())?;
    if !matches!(uri.path(), "" | "/") {
        return Err("must name no path: OTLP over gRPC has none".to_owned());
    }
    let scheme = uri.scheme_str().unwrap_or_default();
    Ok(format!("{scheme}://{}", uri.authority().map_or("", |authority| authority.as_str())))
}

/// Whether what is sent there can be read by others on the way.
fn is_exposed(endpoint: &str) -> bool {
    let uri: Option<Uri> = endpoint.parse().ok();
    uri.is_none_or(|uri| {
        let host = uri.host().unwrap_or_default();
        let address: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
        let here = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        uri.scheme_str() != Some("https") && !here
    })
}

/// `name=value,name=value`, values percent-encoded. A mistake never repeats a part of it.
fn parse_headers(text: &str) -> Result<Vec<(String, Secret)>, String> {
    let mut headers: Vec<(String, Secret)> = Vec::new();
    for (number, part) in text.split(',').map(str::trim).filter(|part| !part.is_empty()).enumerate() {
        let wrong = |what: &str| format!("entry {}: {what}", number.saturating_add(1));
        let (name, value) = part.split_once('=').ok_or_else(|| wrong("must be name=value"))?;
        let name: HeaderName =
            name.trim().to_ascii_lowercase().parse().map_err(|_| wrong("the name cannot be one of a header"))?;
        // gRPC's own, and those that would be taken for bytes.
        if name.as_str().starts_with("grpc-") || name.as_str().ends_with("-bin") {
            return Err(wrong("gRPC keeps this name for itself"));
        }
        let value = decode(value.trim()).ok_or_else(|| wrong("the value is not percent-encoded text"))?;
        HeaderValue::from_str(value.expose()).map_err(|_| wrong("the value cannot be one of a header"))?;
        if headers.iter().any(|(known, _)| known == name.as_str()) {
            return Err(wrong("the name comes twice"));
        }
        if headers.len() >= MAX_HEADERS {
            return Err(format!("may have at most {MAX_HEADERS} entries"));
        }
        headers.push((name.as_str().to_owned(), value));
    }
    Ok(headers)
}

fn decode(text: &str) -> Option<Secret> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok().map(Secret::new)
}

/// A number from 0 to 1, as parts of 10,000.
fn parse_ratio(text: &str) -> Result<u16, String> {
    let wrong = || "must be a number from 0 to 1 with at most four decimals".to_owned();
    let (whole, decimals) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !all_digits(decimals) || decimals.len() > 4 || whole.len() > 4 {
        return Err(wrong());
    }
    let parts: u16 = format!("{decimals:0<4}").parse().map_err(|_| wrong())?;
    let whole: u16 = whole.parse().map_err(|_| wrong())?;
    whole.checked_mul(10_000).and_then(|whole| whole.checked_add(parts)).filter(|all| *all <= 10_000).ok_or_else(wrong)
}

fn parse_name(text: &str) -> Result<String, String> {
    let name = text.trim();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(fits) {
        return Err("must be 1 to 128 of A-Z, a-z, 0-9, dot, underscore and dash".to_owned());
    }
    Ok(name.to_owned())
}

#[cfg(test)]
#[path = "telemetry_tests.rs"]
mod tests;

//! The state stream's messages (`proto/sigilum/gateway/v1/state.proto`) and their domain twins.
//!
//! Decoding fails closed at the smallest place: a grant that cannot be read is no grant, a connection
//! that cannot be read answers 400, settings that cannot be read refuse the whole message.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use http::HeaderValue;

use crate::domain::approval::Grant;
use crate::domain::approval::Source;
use crate::domain::connection::AuthMode;
use crate::domain::connection::Connection;
use crate::domain::connection::ConnectionSettings;
use crate::domain::connection::DEFAULT_MAX_STREAM;
use crate::domain::connection::DEFAULT_RESPONSE_TIMEOUT;
use crate::domain::connection::MAX_LIST_ENTRIES;
use crate::domain::connection::Protocol;
use crate::domain::connection::Upstream;
use crate::domain::ids::ConnectionId;
use crate::domain::ids::Namespace;
use crate::domain::ids::PublicKey;
use crate::domain::secret::Secret;
use crate::domain::snapshot::Rotation;
use crate::domain::snapshot::Settings;
use crate::domain::snapshot::StateVersion;
use crate::domain::time::UnixMillis;
use crate::domain::time::UnixSeconds;
use crate::domain::trace::Collector;

/// Generated from our proto file.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::wildcard_enum_match_arm,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod proto {
    tonic::include_proto!("sigilum.gateway.v1");
}

impl fmt::Debug for proto::Connection {
    /// Which connection, and nothing of its secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connection").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Trailer of a stream that admin ends because this authz must not decide; its value says why.
pub const REFUSED: &str = "sigilum-refused";
/// It has another replay window than one that decides for the same connection.
pub const REPLAY_WINDOW: &str = "replay-window";
/// No workload has a name of its certificate.
pub const UNNAMED: &str = "unnamed";

/// Begins the name of a replay window that several processes share; others are one process's own.
pub const SHARED_WINDOW: &str = "shared:";

/// Reads a version.
pub fn decode_version(version: proto::StateVersion) -> StateVersion {
    StateVersion { epoch: version.epoch, version: version.version, incarnation: version.incarnation }
}

/// Writes a version.
pub fn encode_version(version: &StateVersion) -> proto::StateVersion {
    let StateVersion { epoch, version, incarnation } = version.clone();
    proto::StateVersion { epoch, version, incarnation }
}

/// Reads a message from bytes, e.g. of a fuzzer.
pub fn decode_response(bytes: &[u8]) -> Result<proto::StateResponse, prost::DecodeError> {
    prost::Message::decode(bytes)
}

/// Why settings were not accepted; the state that carries them is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// A field is missing or out of range.
    #[error("settings: {0} is missing or out of range")]
    Field(&'static str),
}

/// Reads settings.
pub fn decode_settings(settings: proto::Settings) -> Result<Settings, InvalidSettings> {
    let rotation = match settings.rotation() {
        proto::Rotation::Off => Rotation::Off,
        proto::Rotation::Warn => Rotation::Warn,
        proto::Rotation::Block => Rotation::Block,
        proto::Rotation::Unspecified => return Err(InvalidSettings::Field("rotation")),
    };
    if settings.max_age_seconds == 0 {
        return Err(InvalidSettings::Field("max_age_seconds"));
    }
    if settings.max_body_bytes == 0 {
        return Err(InvalidSettings::Field("max_body_bytes"));
    }
    Ok(Settings {
        authorities: settings.authorities,
        loopback_names: !settings.refuse_loopback_names,
        max_age: Duration::from_secs(settings.max_age_seconds),
        max_body_bytes: settings.max_body_bytes,
        allow_private: settings.allow_private,
        allow_loopback: settings.allow_loopback,
        rotation,
        rotation_grace_days: settings.rotation_grace_days,
        claims_hold: Duration::from_millis(settings.claims_hold_ms),
        stranger_rate_per_second: settings.stranger_rate_per_second,
        auto_register: settings.auto_register,
        gateway_namespace: settings.gateway_namespace,
        log_level: settings.log_level,
        traces: settings.traces.map(decode_collector).map(Arc::new),
        draining_until: UnixMillis(settings.draining_until_ms),
    })
}

fn decode_collector(collector: proto::Collector) -> Collector {
    let headers = collector.headers.into_iter().map(|header| (header.name, Secret::new(header.value)));
    Collector { endpoint: collector.endpoint, service_name: collector.service_name, headers: headers.collect() }
}

fn encode_collector(collector: &Collector) -> proto::Collector {
    let headers = collector.headers.iter();
    proto::Collector {
        endpoint: collector.endpoint.clone(),
        service_name: collector.service_name.clone(),
        headers: headers
            .map(|(name, value)| proto::CollectorHeader { name: name.clone(), value: value.expose().to_owned() })
            .collect(),
    }
}

/// Writes settings.
pub fn encode_settings(settings: &Settings) -> proto::Settings {
    let rotation = match settings.rotation {
        Rotation::Off => proto::Rotation::Off,
        Rotation::Warn => proto::Rotation::Warn,
        Rotation::Block => proto::Rotation::Block,
    };
    proto::Settings {
        authorities: settings.authorities.clone(),
        refuse_loopback_names: !settings.loopback_names,
        max_age_seconds: settings.max_age.as_secs(),
        max_body_bytes: settings.max_body_bytes,
        allow_private: settings.allow_private,
        allow_loopback: settings.allow_loopback,
        rotation: rotation.into(),
        rotation_grace_days: settings.rotation_grace_days,
        claims_hold_ms: u64::try_from(settings.claims_hold.as_millis()).unwrap_or(u64::MAX),
        stranger_rate_per_second: settings.stranger_rate_per_second,
        auto_register: settings.auto_register,
        gateway_namespace: settings.gateway_namespace.clone(),
        log_level: settings.log_level.clone(),
        traces: settings.traces.as_deref().map(encode_collector),
        draining_until_ms: settings.draining_until.0,
    }
}

/// Reads a connection. `None` only where not even its id can be read; whatever else is wrong leaves a
/// connection without a usable credential, which answers 400 and holds up no other.
pub fn decode_connection(mut record: proto::Connection) -> Option<Arc<Connection>> {
    let id = ConnectionId::parse(&record.id).ok()?;
    let secret = Secret::new(std::mem::take(&mut record.secret));
    let unusable = std::mem::take(&mut record.unusable);
    let mut settings = ConnectionSettings {
        id,
        name: std::mem::take(&mut record.name),
        protocol: Protocol::Http,
        upstream: Upstream { tls: true, authority: UNREADABLE.to_owned(), base_path: String::new() },
        path_prefix: String::new(),
        auth_mode: AuthMode::Bearer,
        auth_target: String::new(),
        auth_prefix: String::new(),
        active: record.active,
        allow_private: false,
        allowed_methods: Vec::new(),
        allowed_paths: Vec::new(),
        upgrades: Vec::new(),
        response_timeout: DEFAULT_RESPONSE_TIMEOUT,
        max_stream: DEFAULT_MAX_STREAM,
        extra_headers: BTreeMap::new(),
        allow_set_cookie: false,
        forward_trace: false,
        next_rotation_due_at: None,
        secret_version: record.secret_version,
    };
    let read = fill(&mut settings, record);
    let secret = match (read, unusable.is_empty()) {
        (Err(reason), _) => Err(reason),
        (Ok(()), false) => Err(unusable),
        (Ok(()), true) => Ok(&secret),
    };
    Some(Connection::new(settings, secret))
}

/// Stands where no address could be read; the connection has no credential then, so nothing is sent
/// there, and the name cannot be resolved (RFC 2606 section 2).
const UNREADABLE: &str = "unreadable.invalid";

fn fill(settings: &mut ConnectionSettings, record: proto::Connection) -> Result<(), String> {
    settings.protocol = match record.protocol.as_str() {
        "http" => Protocol::Http,
        "mcp" => Protocol::Mcp,
        other => return Err(format!("protocol {other:?} is not known to this version")),
    };
    settings.auth_mode = match record.auth_mode() {
        proto::AuthMode::Bearer => AuthMode::Bearer,
        proto::AuthMode::HeaderKey => AuthMode::HeaderKey,
        proto::AuthMode::QueryParam => AuthMode::QueryParam,
        proto::AuthMode::Basic => AuthMode::Basic,
        proto::AuthMode::Unspecified => return Err("auth_mode is not known to this version".to_owned()),
    };
    settings.upstream = Upstream::parse(&record.base_url).map_err(|error| error.to_string())?;
    check_paths(&record)?;
    for list in [&record.allowed_methods, &record.allowed_paths, &record.upgrades] {
        if list.len() > MAX_LIST_ENTRIES {
            return Err(format!("a list has more than {MAX_LIST_ENTRIES} entries"));
        }
    }
    settings.auth_target = match (record.auth_name.is_empty(), settings.auth_mode) {
        (true, mode) => mode.default_target().to_owned(),
        (false, AuthMode::QueryParam) => record.auth_name,
        (false, AuthMode::Bearer | AuthMode::HeaderKey | AuthMode::Basic) => {
            check_header_name(&record.auth_name.to_ascii_lowercase())?;
            record.auth_name
        }
    };
    settings.extra_headers = extra_headers(record.extra_headers)?;
    settings.path_prefix = record.path_prefix;
    settings.auth_prefix = record.auth_prefix;
    settings.allow_private = record.allow_private;
    settings.allowed_methods = record.allowed_methods;
    settings.allowed_paths = record.allowed_paths;
    settings.upgrades = record.upgrades;
    if record.response_timeout_ms > 0 {
        settings.response_timeout = Duration::from_millis(record.response_timeout_ms);
    }
    if record.max_stream_seconds > 0 {
        settings.max_stream = Duration::from_secs(record.max_stream_seconds);
    }
    settings.allow_set_cookie = record.allow_set_cookie;
    settings.forward_trace = record.forward_trace;
    settings.next_rotation_due_at = record.next_rotation_due_at.map(UnixSeconds);
    Ok(())
}

fn check_paths(record: &proto::Connection) -> Result<(), String> {
    let prefix = record.path_prefix.as_str();
    if !prefix.is_empty() && (!prefix.starts_with('/') || prefix.ends_with('/')) {
        return Err("path_prefix must begin with '/' and not end with it".to_owned());
    }
    if prefix.bytes().any(|byte| byte <= b' ' || byte >= 0x7f || matches!(byte, b'?' | b'#' | b'\\')) {
        return Err("path_prefix holds a forbidden character".to_owned());
    }
    if record.allowed_paths.iter().any(|path| !path.starts_with('/')) {
        return Err("allowed_paths must begin with '/'".to_owned());
    }
    Ok(())
}

fn extra_headers(headers: std::collections::HashMap<String, String>) -> Result<BTreeMap<String, String>, String> {
    if headers.len() > MAX_LIST_ENTRIES {
        return Err(format!("more than {MAX_LIST_ENTRIES} extra headers"));
    }
    let mut out = BTreeMap::new();
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        check_header_name(&name)?;
        if HeaderValue::from_str(&value).is_err() {
            return Err(format!("extra header {name} has a value HTTP does not allow"));
        }
        out.insert(name, value);
    }
    Ok(out)
}

/// Whether a decision may set this header (lower case): HTTP must allow the name, and it must be
/// neither one that frames or routes the message nor one of Envoy's or ours.
fn check_header_name(name: &str) -> Result<(), String> {
    const FRAMING: [&str; 8] =
        ["host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "expect"];
    const OURS: [&str; 4] = ["x-sigilum-", "sigilum-", "x-envoy-", "x-forwarded-"];
    if HeaderName::try_from(name).is_err()
        || FRAMING.contains(&name)
        || OURS.iter().any(|prefix| name.starts_with(prefix))
    {
        return Err(format!("the header {name:?} cannot be set by a connection"));
    }
    Ok(())
}

/// Writes a connection. `secret` is the injected secret in clear, or why there is none; the result
/// belongs on the state stream and nowhere else.
pub fn encode_connection(settings: &ConnectionSettings, secret: Result<&Secret, &str>) -> proto::Connection {
    let auth_mode = match settings.auth_mode {
        AuthMode::Bearer => proto::AuthMode::Bearer,
        AuthMode::HeaderKey => proto::AuthMode::HeaderKey,
        AuthMode::QueryParam => proto::AuthMode::QueryParam,
        AuthMode::Basic => proto::AuthMode::Basic,
    };
    let (secret, unusable) = match secret {
        Ok(secret) => (secret.expose().to_owned(), String::new()),
        Err("") => (String::new(), "no usable secret".to_owned()),
        Err(reason) => (String::new(), reason.to_owned()),
    };
    proto::Connection {
        id: settings.id.as_str().to_owned(),
        name: settings.name.clone(),
        protocol: settings.protocol.name().to_owned(),
        base_url: settings.upstream.base_url(),
        path_prefix: settings.path_prefix.clone(),
        auth_mode: auth_mode.into(),
        auth_name: settings.auth_target.clone(),
        auth_prefix: settings.auth_prefix.clone(),
        secret,
        active: settings.active,
        allow_private: settings.allow_private,
        allowed_methods: settings.allowed_methods.clone(),
        allowed_paths: settings.allowed_paths.clone(),
        upgrades: settings.upgrades.clone(),
        response_timeout_ms: u64::try_from(settings.response_timeout.as_millis()).unwrap_or(u64::MAX),
        max_stream_seconds: settings.max_stream.as_secs(),
        extra_headers: settings.extra_headers.clone().into_iter().collect(),
        allow_set_cookie: settings.allow_set_cookie,
        forward_trace: settings.forward_trace,
        next_rotation_due_at: settings.next_rotation_due_at.map(|at| at.0),
        secret_version: settings.secret_version,
        unusable,
        // Of the connection it says nothing; it is written on its way to one authz.
        given_ms_ago: None,
        given_unless_held: false,
    }
}

/// Reads a source. `None`: this version does not know it, so nothing it says counts.
pub fn decode_source(source: i32) -> Option<Source> {
    match proto::ApprovalSource::try_from(source) {
        Ok(proto::ApprovalSource::Declared) => Some(Source::Declared),
        Ok(proto::ApprovalSource::Claims) => Some(Source::Claims),
        Ok(proto::ApprovalSource::Unspecified) | Err(_) => None,
    }
}

/// Writes a source.
pub fn encode_source(source: Source) -> i32 {
    match source {
        Source::Declared => proto::ApprovalSource::Declared.into(),
        Source::Claims => proto::ApprovalSource::Claims.into(),
    }
}

/// Reads a grant. `None` where key or namespace are malformed: no grant.
pub fn decode_grant<'a>(service: &'a str, source: Source, grant: &'a proto::Grant) -> Option<(PublicKey, Grant<'a>)> {
    let key = <[u8; 32]>::try_from(grant.public_key.as_slice()).ok()?;
    if !Namespace::is_valid(&grant.namespace) {
        return None;
    }
    let expires_at = grant.expires_at.map(UnixSeconds);
    Some((PublicKey::new(key), Grant { service, namespace: &grant.namespace, source, expires_at }))
}

/// Reads a single approval. `None` where any part of it is malformed: no approval.
pub fn decode_approval(approval: &proto::Approval) -> Option<(PublicKey, Grant<'_>)> {
    decode_grant(&approval.service, decode_source(approval.source)?, approval.grant.as_ref()?)
}

/// Writes a grant as a list's member; the list names service and source.
pub fn encode_listed(key: &PublicKey, grant: &Grant<'_>) -> proto::Grant {
    proto::Grant {
        namespace: grant.namespace.to_owned(),
        public_key: key.as_bytes().to_vec(),
        expires_at: grant.expires_at.map(|at| at.0),
    }
}

/// Writes a grant as a single approval.
pub fn encode_approval(key: &PublicKey, grant: &Grant<'_>) -> proto::Approval {
    proto::Approval {
        service: grant.service.to_owned(),
        source: encode_source(grant.source),
        grant: Some(encode_listed(key, grant)),
    }
}

/// Writes a grant.
pub fn encode_grant(namespace: &Namespace, key: &PublicKey, expires_at: Option<UnixSeconds>) -> proto::Grant {
    proto::Grant {
        namespace: namespace.as_str().to_owned(),
        public_key: key.as_bytes().to_vec(),
        expires_at: expires_at.map(|at| at.0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    fn record() -> proto::Connection {
        proto::Connection {
            id: "svc-one".to_owned(),
            name: "One".to_owned(),
            protocol: "http".to_owned(),
            base_url: "https://api.example.com/v2".to_owned(),
            auth_mode: proto::AuthMode::Bearer.into(),
            auth_prefix: "Bearer ".to_owned(),
            secret: "canary-secret".to_owned(),
            active: true,
            extra_headers: [("X-Api-Version".to_owned(), "7".to_owned())].into(),
            secret_version: 3,
            ..proto::Connection::default()
        }
    }

    #[test]
    fn a_connection_comes_back_as_it_went() {
        let connection = decode_connection(record()).unwrap();
        assert!(connection.credential.is_ok());
        assert_eq!(connection.settings.auth_target, "Authorization");
        assert_eq!(connection.settings.extra_headers.get("x-api-version").map(String::as_str), Some("7"));
        let again = encode_connection(&connection.settings, Ok(&Secret::new("canary-secret".to_owned())));
        let twice = decode_connection(again).unwrap();
        assert_eq!(twice.settings, connection.settings);
    }

    #[test]
    fn one_bad_field_makes_one_connection_unusable() {
        type Spoil = fn(&mut proto::Connection);
        let spoils: [Spoil; 11] = [
            |record| record.protocol = "smtp".to_owned(),
            |record| record.auth_mode = 99,
            |record| record.base_url = "ftp://x".to_owned(),
            |record| record.path_prefix = "v1/".to_owned(),
            |record| record.allowed_paths = vec!["v1".to_owned()],
            |record| record.auth_name = "x-sigilum-cluster".to_owned(),
            |record| record.auth_name = ":path".to_owned(),
            |record| record.extra_headers = [("Host".to_owned(), "x".to_owned())].into(),
            |record| record.extra_headers = [("a".to_owned(), "b\nc".to_owned())].into(),
            |record| record.secret = String::new(),
            |record| record.unusable = "its secret does not open".to_owned(),
        ];
        for (number, spoil) in spoils.into_iter().enumerate() {
            let mut bad = record();
            spoil(&mut bad);
            let connection = decode_connection(bad).unwrap();
            assert!(connection.credential.is_err(), "spoil {number}");
            assert_eq!(connection.settings.id.as_str(), "svc-one");
        }
        assert!(decode_connection(proto::Connection { id: "No Slug".to_owned(), ..record() }).is_none());
    }

    #[test]
    fn debug_shows_no_secret_at_any_depth() {
        let message = proto::StateResponse {
            version: None,
            message: Some(proto::state_response::Message::Full(proto::Full {
                connections: vec![record()],
                ..proto::Full::default()
            })),
        };
        let shown = format!("{message:?}");
        assert!(shown.contains("svc-one") && !shown.contains("canary"), "{shown}");
    }

    #[test]
    fn settings_come_back_and_missing_ones_refuse() {
        let settings = Settings { rotation_grace_days: 4, ..Settings::default() };
        assert_eq!(decode_settings(encode_settings(&settings)), Ok(settings.clone()));
        assert!(decode_settings(proto::Settings::default()).is_err());
        let ageless = proto::Settings { max_age_seconds: 0, ..encode_settings(&settings) };
        assert_eq!(decode_settings(ageless), Err(InvalidSettings::Field("max_age_seconds")));
    }

    #[test]
    fn a_malformed_grant_is_no_grant() {
        let service = "svc";
        let good = proto::Grant { namespace: "abc".to_owned(), public_key: vec![7; 32], expires_at: Some(9) };
        let (key, grant) = decode_grant(service, Source::Claims, &good).unwrap();
        assert_eq!((key, grant.expires_at), (PublicKey::new([7; 32]), Some(UnixSeconds(9))));
        let short = proto::Grant { public_key: vec![7; 31], ..good.clone() };
        let nameless = proto::Grant { namespace: "A".to_owned(), ..good };
        assert!(decode_grant(service, Source::Claims, &short).is_none());
        assert!(decode_grant(service, Source::Claims, &nameless).is_none());
        assert_eq!(decode_source(0), None);
        assert_eq!(decode_source(77), None);
    }
}

//! The settings of traces; part of [`crate::config::keys::ALL`].

use crate::config::key::Fallback;
use crate::config::key::Key;

/// The collector.
pub const OTLP_ENDPOINT: Key = Key::new(
    Some("telemetry.otlp_endpoint"),
    &["GATEWAY_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"],
    None,
    Fallback::None,
    "collector that traces are sent to by OTLP over gRPC: `http://host:4317` or `https://host:4317`; nothing is traced without",
)
.pattern(r"^\s*[Hh][Tt][Tt][Pp][Ss]?://[^@?/\s]+/?\s*$");
/// What it wants to see.
pub const OTLP_HEADERS: Key = Key::new(
    None,
    &["GATEWAY_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"],
    None,
    Fallback::None,
    "secret; headers the collector wants: `name=value,name=value`, values percent-encoded; over a network only with `https`",
);
/// How much is traced.
pub const SAMPLE_RATIO: Key = Key::new(
    Some("telemetry.sample_ratio"),
    &["GATEWAY_TRACE_SAMPLE_RATIO"],
    None,
    Fallback::Text("1"),
    "part of the requests that is traced, 0 to 1 with four decimals; a request that comes with a `traceparent` goes by that",
)
.ratio();
/// Who sends them.
pub const SERVICE_NAME: Key = Key::new(
    Some("telemetry.service_name"),
    &["OTEL_SERVICE_NAME"],
    None,
    Fallback::Text("sigilum-gateway"),
    "name under which traces appear, 1 to 128 of `A-Z`, `a-z`, `0-9`, `.`, `_`, `-`",
)
.pattern(r"^\s*[A-Za-z0-9._-]{1,128}\s*$");

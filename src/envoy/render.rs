//! The static configuration with this gateway's settings in it, comments and all.
//!
//! `envoy/envoy.yaml` stays readable and valid as it is; what settings change is replaced in its text.
//! Each replacement names text that must stand there exactly as often as expected, so an edit of the
//! file that moves something fails loudly instead of leaving a default in force.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::config::parts::IngressTls;
use crate::config::parts::TraceOptions;

/// The file as it is, valid on its own.
pub const STATIC: &str = include_str!("../../envoy/envoy.yaml");

/// Largest body limit: what is set from it has 32 bits.
pub const MAX_BODY_BYTES: u64 = 1 << 30;
/// What the check may buffer beyond the body limit: at exactly its limit it can wait for ever.
const CHECK_MARGIN: u64 = 65536;

/// Where systems keep the certificates they trust, most common first.
pub const CA_FILES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What the file says where TLS would stand.
const PLAIN: &str = "# plain HTTP; where gateway.tls is set, its transport socket stands above this";

/// What the file says where a provider of traces would stand.
const UNTRACED: &str = "# where telemetry.otlp_endpoint is set, its provider stands below this";

/// Stand for the addresses of a listener while the file is rewritten; YAML has no such line.
const INGRESS_MARK: &str = "@ingress@";
const FACE_MARK: &str = "@admin_face@";

/// What a gateway's settings change in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendering {
    /// Where agents connect; at least one.
    pub ingress: Vec<SocketAddr>,
    /// Where operators read Envoy's admin interface; at least one.
    pub admin_face: Vec<SocketAddr>,
    /// Where our admin process listens: no upstream may be there.
    pub admin: Vec<SocketAddr>,
    /// Largest request body in bytes, at most [`MAX_BODY_BYTES`].
    pub max_body_bytes: u64,
    /// Proxies in front of us whose `x-forwarded-for` entries count.
    pub trusted_hops: u32,
    /// TLS for agents; `None`: plain HTTP.
    #[serde(default)]
    pub tls: Option<IngressTls>,
    /// How it traces; `None`: not at all.
    #[serde(default)]
    pub traces: Option<TraceOptions>,
    /// The certificates providers are verified against.
    pub ca_file: PathBuf,
}

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The static file is not the one this code knows.
    #[error("envoy.yaml: expected {expected} × `{text}`, found {found}")]
    Template {
        /// What was looked for.
        text: String,
        /// How often it should be there.
        expected: usize,
        /// How often it is.
        found: usize,
    },
    /// A listener without an address.
    #[error("the {0} listener has no address")]
    NoAddress(&'static str),
    /// The static file is not the document this code knows.
    #[error("envoy.yaml: {0}")]
    Document(String),
    /// The body limit does not fit.
    #[error("a body limit of {0} bytes is not possible; at most {MAX_BODY_BYTES}")]
    BodyLimit(u64),
    /// Envoy watches one folder for a certificate and its key.
    #[error("{0}: a certificate and its key that are renewed are two files of one folder")]
    Folders(String),
}

/// Writes the settings into the static file.
pub fn render(settings: &Rendering) -> Result<String, RenderError> {
    let limit = settings.max_body_bytes;
    if limit == 0 || limit > MAX_BODY_BYTES {
        return Err(RenderError::BodyLimit(limit));
    }
    // Both default lines are taken out before either is filled in: one may be given the other's port.
    let text = replace(STATIC, &default_address(38000), 1, INGRESS_MARK)?;
    let text = replace(&text, &default_address(38200), 1, FACE_MARK)?;
    let text = replace(&text, INGRESS_MARK, 1, &addresses("ingress", &settings.ingress)?)?;
    let text = replace(&text, FACE_MARK, 1, &addresses("admin_face", &settings.admin_face)?)?;
    let text = own_listeners(&text, settings)?;
    // The larger one first: the smaller may be set to its value. One character ends the number.
    let check = format!("max_request_bytes: {},", limit.saturating_add(CHECK_MARGIN));
    let text = replace(&text, "max_request_bytes: 2162688,", 1, &check)?;
    let text = replace(&text, "max_request_bytes: 2097152 ", 1, &format!("max_request_bytes: {limit} "))?;
    let hops = format!("xff_num_trusted_hops: {}", settings.trusted_hops);
    let text = replace(&text, "xff_num_trusted_hops: 0", 1, &hops)?;
    let text = match &settings.tls {
        Some(tls) => replace(&text, &format!("    - filters:{:36}{PLAIN}\n", ""), 1, &transport_socket(tls))?,
        None => text,
    };
    let text = match &settings.traces {
        Some(traces) => replace(&text, &format!("          tracing:{:32}{UNTRACED}\n", ""), 1, &tracer(traces))?,
        None => text,
    };
    let file = format!("trusted_ca: {{ filename: {} }}", quoted(&settings.ca_file.display().to_string()));
    replace(&text, "trusted_ca: { filename: /etc/ssl/certs/ca-certificates.crt }", 1, &file)
}

/// The line above the read-only face of Envoy's admin interface.
pub(super) const OPERATORS: &str = "  # ---------------------------------------------------------------- operators: reading Envoy's admin, nothing else\n";

/// The rendered file without the read-only face: beside an application loopback is the application's too. What is on
/// Envoy's own socket stays.
pub fn without_face(text: &str) -> Result<String, RenderError> {
    let (before, face) = split_once(text, OPERATORS.trim())?;
    let (_, after) = split_once(face, "clusters:")?;
    Ok(format!("{}\n\n  clusters:{after}", before.trim_end()))
}

/// Where the file says that authz is.
const AUTHZ: &str = "pipe: { path: authz.sock }";

/// The rendered file with authz elsewhere than in the run folder: `socket` is its Unix socket.
pub fn with_authz_at(text: &str, socket: &Path) -> Result<String, RenderError> {
    replace(text, AUTHZ, 1, &format!("pipe: {{ path: {} }}", quoted(&socket.display().to_string())))
}

/// Where the file says that the access log goes.
const ACCESS_LOG_FILE: &str = "          - name: envoy.access_loggers.file\n";
const ACCESS_LOG_PLACE: &str = "file.v3.FileAccessLog
              path: access.log\n";

/// The rendered file with the access log on Envoy's own stdout, for whoever keeps what containers say. In the run folder it grows
/// until an admin that shares this folder puts it aside.
pub fn with_access_log_on_stdout(text: &str) -> Result<String, RenderError> {
    let text = replace(text, ACCESS_LOG_FILE, 1, "          - name: envoy.access_loggers.stdout\n")?;
    replace(&text, ACCESS_LOG_PLACE, 1, "stream.v3.StdoutAccessLog\n")
}

/// TLS in front of the filters of agents.
fn transport_socket(tls: &IngressTls) -> String {
    let mut lines = format!(
        "    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: {}
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_params: {{ tls_minimum_protocol_version: TLSv1_2 }}
            {}\n",
        tls.client_ca_file.is_some(),
        certificate(tls)
    );
    if let Some(authorities) = &tls.client_ca_file {
        lines.push_str(&format!("            {}\n", self::authorities(authorities)));
    }
    lines.push_str("      filters:\n");
    lines
}

/// How the file names the certificate of agents.
pub(super) fn certificate(tls: &IngressTls) -> String {
    let (certificate, key) = (filename(&tls.cert_file), filename(&tls.key_file));
    format!("tls_certificates: [{{ certificate_chain: {certificate}, private_key: {key} }}]")
}

/// How the file names the authorities of agents' certificates.
pub(super) fn authorities(file: &Path) -> String {
    format!("validation_context: {{ trusted_ca: {} }}", filename(file))
}

fn filename(path: &Path) -> String {
    format!("{{ filename: {} }}", quoted(&path.display().to_string()))
}

/// Traces for all requests of agents. Spans go to authz, which knows the collector and what it wants to see.
fn tracer(traces: &TraceOptions) -> String {
    let TraceOptions { service_name, sampled } = traces;
    let samplers = "envoy.extensions.tracers.opentelemetry.samplers.v3";
    format!(
        "          tracing:
            provider:
              name: envoy.tracers.opentelemetry
              typed_config:
                \"@type\": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig
                grpc_service: {{ envoy_grpc: {{ cluster_name: authz, skip_envoy_headers: true }}, timeout: 1s }}
                service_name: {}
                sampler:
                  name: envoy.tracers.opentelemetry.samplers.parent_based
                  typed_config:
                    \"@type\": type.googleapis.com/{samplers}.ParentBasedSamplerConfig
                    wrapped_sampler:
                      name: envoy.tracers.opentelemetry.samplers.trace_id_ratio_based
                      typed_config:
                        \"@type\": type.googleapis.com/{samplers}.TraceIdRatioBasedSamplerConfig
                        sampling_percentage: {{ numerator: {sampled}, denominator: TEN_THOUSAND }}
            spawn_upstream_span: true\n",
        quoted(service_name)
    )
}

/// The address line of a listener as it stands in the file.
fn default_address(port: u16) -> String {
    format!("    address: {}", socket_address(&SocketAddr::from(([127, 0, 0, 1], port))))
}

/// The address lines of a listener: the first address, the others beside it.
fn addresses(name: &'static str, addresses: &[SocketAddr]) -> Result<String, RenderError> {
    let (first, others) = addresses.split_first().ok_or(RenderError::NoAddress(name))?;
    let mut lines = format!("    address: {}", socket_address(first));
    if !others.is_empty() {
        let others: Vec<_> = others.iter().map(|other| format!("{{ address: {} }}", socket_address(other))).collect();
        lines.push_str(&format!("\n    additional_addresses: [{}]", others.join(", ")));
    }
    Ok(lines)
}

pub(super) fn socket_address(address: &SocketAddr) -> String {
    let host = match address.ip() {
        IpAddr::V4(host) => host.to_string(),
        IpAddr::V6(host) => format!("\"{host}\""),
    };
    format!("{{ socket_address: {{ address: {host}, port_value: {} }} }}", address.port())
}

/// The ports and addresses under which the gateway itself can be reached, which no upstream may have.
fn own_listeners(text: &str, settings: &Rendering) -> Result<String, RenderError> {
    let all = || settings.ingress.iter().chain(&settings.admin).chain(&settings.admin_face);
    let mut ports: Vec<u16> = all().map(SocketAddr::port).collect();
    // The port of the anchor line first, where it is among them: that line then stays as it is.
    ports.sort_unstable_by_key(|port| (*port != 38000, *port));
    ports.dedup();
    // Both ends are included.
    let range = |port: u16| format!("upstream_port_range: {{ start: {port}, end: {port} }}");
    let (before, rest) = split_once(text, "own_listeners:")?;
    let (policy, after) = split_once(rest, "never:")?;

    // The first default line defines the anchor; the other two give way to whatever ports there are.
    let (first, others) = ports.split_first().ok_or(RenderError::NoAddress("ingress"))?;
    let policy = without_line(policy, &range(38100))?;
    let line = line_with(&policy, &range(38200))?.to_owned();
    let others: String = others.iter().map(|port| line.replace(&range(38200), &range(*port))).collect();
    let policy = replace(&policy, &line, 1, &others)?;
    let policy = replace(&policy, &range(38000), 1, &range(*first))?;

    // Loopback stands in the file. A listener on one address adds that one, a listener on all adds all.
    let mut hosts: Vec<IpAddr> = all().map(SocketAddr::ip).filter(|host| !host.is_loopback()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let loopback = "upstream_ip: { address_prefix: \"::1\", prefix_len: 128 }";
    let line = line_with(&policy, loopback)?.to_owned();
    let added: String = if hosts.iter().any(IpAddr::is_unspecified) {
        let indent = line.len().saturating_sub(line.trim_start().len());
        format!("{:indent$}- any: true\n", "")
    } else {
        let other = |host: &IpAddr| {
            let bits = if host.is_ipv4() { 32 } else { 128 };
            line.replace(loopback, &format!("upstream_ip: {{ address_prefix: \"{host}\", prefix_len: {bits} }}"))
        };
        hosts.iter().map(other).collect()
    };
    let policy = replace(&policy, &line, 1, &format!("{line}{added}"))?;
    Ok(format!("{before}own_listeners:{policy}never:{after}"))
}

/// The one line with `part` in it, line end included.
fn line_with<'t>(text: &'t str, part: &str) -> Result<&'t str, RenderError> {
    let mut lines = text.split_inclusive('\n').filter(|line| line.contains(part));
    match (lines.next(), lines.count()) {
        (Some(line), 0) => Ok(line),
        (first, more) => {
            let found = more + usize::from(first.is_some());
            Err(RenderError::Template { text: part.to_owned(), expected: 1, found })
        }
    }
}

fn without_line(text: &str, part: &str) -> Result<String, RenderError> {
    let line = line_with(text, part)?;
    replace(text, line, 1, "")
}

pub(super) fn replace(text: &str, from: &str, expected: usize, to: &str) -> Result<String, RenderError> {
    let found = text.matches(from).count();
    if found != expected {
        return Err(RenderError::Template { text: from.trim().to_owned(), expected, found });
    }
    Ok(text.replace(from, to))
}

/// Parts before and behind the first key `at` that begins a line.
fn split_once<'t>(text: &'t str, at: &str) -> Result<(&'t str, &'t str), RenderError> {
    let begins = |(place, _): &(usize, &str)| {
        text.get(..*place).is_some_and(|before| before.trim_end_matches(' ').ends_with('\n'))
    };
    let place = text.match_indices(at).find(begins).map(|(place, _)| place);
    let parts = place.and_then(|place| Some((text.get(..place)?, text.get(place..)?.strip_prefix(at)?)));
    parts.ok_or_else(|| RenderError::Template { text: at.to_owned(), expected: 1, found: 0 })
}

/// A YAML double-quoted scalar; JSON's escapes are a subset of its.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;

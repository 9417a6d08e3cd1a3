//! Every setting, once: its name in `gateway.yaml`, its environment twins, its option, default and meaning.
//!
//! The loader reads the defaults from here and the README table is made from here, so neither can drift.

pub use crate::config::admin_keys::ADMIN_ACCESS_MODE;
pub use crate::config::admin_keys::ADMIN_PASSWORD;
pub use crate::config::admin_keys::ADMIN_TOKEN;
pub use crate::config::admin_keys::ALLOWED_HOSTS;
pub use crate::config::admin_keys::ALLOWED_ORIGINS;
pub use crate::config::admin_keys::METRICS_TOKEN;
pub use crate::config::admin_keys::METRICS_TOKEN_FILE;
pub use crate::config::admin_keys::OPERATOR_CERT_FILE;
pub use crate::config::admin_keys::OPERATOR_KEY_FILE;
pub use crate::config::admin_keys::PASSWORD_FILE;
pub use crate::config::admin_keys::PROXY_ALLOW_LOOPBACK;
pub use crate::config::admin_keys::PROXY_ALLOW_USERS;
pub use crate::config::admin_keys::PROXY_REQUIRED_HEADERS;
pub use crate::config::admin_keys::PROXY_USER_HEADER;
pub use crate::config::admin_keys::TLS_CA_FILE;
pub use crate::config::admin_keys::TLS_CERT_FILE;
pub use crate::config::admin_keys::TLS_CLIENT_CA_FILE;
pub use crate::config::admin_keys::TLS_CLIENT_NAMES;
pub use crate::config::admin_keys::TLS_KEY_FILE;
pub use crate::config::admin_keys::TRUSTED_PROXIES;
pub use crate::config::file_keys::ALLOW_LITERALS;
pub use crate::config::file_keys::BATCH_BYTES;
pub use crate::config::file_keys::MAX_STALE;
pub use crate::config::file_keys::PROVIDER_CONCURRENCY;
pub use crate::config::file_keys::REFS_PER_PROVIDER;
pub use crate::config::file_keys::RELOAD_MODE;
pub use crate::config::file_keys::RELOAD_POLL;
pub use crate::config::file_keys::RELOAD_SETTLE;
use crate::config::fleet_keys;
use crate::config::ingress_keys;
pub use crate::config::key::Fallback;
pub use crate::config::key::Key;
pub use crate::config::key::Reload;
pub use crate::config::key::table_of;
pub use crate::config::log_keys::LOG_KEEP;
pub use crate::config::log_keys::LOG_MAX_BYTES;
pub use crate::config::log_keys::LOG_STYLE;
use crate::config::remote;
use crate::config::telemetry_keys;

/// The gateway's own namespace.
pub const NAMESPACE: Key = Key::new(
    Some("gateway.namespace"),
    &["SIGILUM_NAMESPACE", "GATEWAY_SIGILUM_NAMESPACE"],
    Some("--namespace"),
    Fallback::Computed("the one in `config.env`"),
    "namespace of the gateway's own identity: 3 to 64 of `a-z`, `0-9`, `-`",
)
.pattern(r"^\s*[A-Za-z0-9][A-Za-z0-9-]{1,62}[A-Za-z0-9]\s*$");
/// Which gateway of several.
pub const PROFILE: Key = Key::new(
    None,
    &["SIGILUM_PROFILE"],
    Some("--profile"),
    Fallback::None,
    "which of several gateways of this user: 1 to 32 of `a-z`, `0-9`, `-`; changes the defaults of home, data folder, \
     `config.env`, ports and units; `default` is none",
);
/// Where identities and keys are.
pub const HOME: Key = Key::new(
    None,
    &["GATEWAY_SIGILUM_HOME", "SIGILUM_HOME"],
    Some("--sigilum-home"),
    Fallback::Computed("`~/.sigilum-workspace`"),
    "folder of the gateway's identity, master key and `gateway.yaml`",
);
/// The configuration file itself.
pub const CONFIG_FILE: Key = Key::new(
    None,
    &["GATEWAY_CONFIG_FILE"],
    Some("--config"),
    Fallback::Computed("`<home>/gateway.yaml`, where it exists"),
    "the configuration file; named explicitly, it must exist",
);
/// Store, logs, sockets.
pub const DATA_DIR: Key = Key::new(
    Some("gateway.data_dir"),
    &["GATEWAY_DATA_DIR"],
    Some("--gateway-data-dir"),
    Fallback::Computed("`$XDG_DATA_HOME/sigilum-gateway`, else `~/.local/share/sigilum-gateway`"),
    "folder of the sealed store, the admin token and the logs",
);
/// Sockets, journal, rendered Envoy file.
pub const RUN_DIR: Key = Key::new(
    Some("gateway.run_dir"),
    &["GATEWAY_RUN_DIR"],
    Some("--run-dir"),
    Fallback::Computed(
        "`<data_dir>/run`; where its path is too long for sockets under the name `/tmp/sigilum-<uid>-<hash>/run`",
    ),
    "folder of the sockets and the replay journal; at most 89 bytes",
);
/// The control plane.
pub const API_URL: Key = Key::new(
    Some("gateway.api_url"),
    &["SIGILUM_API_URL", "SIGILUM_REGISTRY_URL"],
    Some("--api-url"),
    Fallback::Text("https://api.sigilum.id"),
    "address of the Sigilum API",
)
.pattern(r"^\s*[Hh][Tt][Tt][Pp][Ss]?://[^@?\s]+\s*$");
/// The address a bare port is bound on.
pub const BIND: Key = Key::new(
    Some("gateway.bind"),
    &["GATEWAY_BIND"],
    Some("--bind"),
    Fallback::Text("loopback"),
    "what `:PORT` means: `loopback` (`127.0.0.1` and `::1`), `lan` (`0.0.0.0`), `tailnet` (the machine's Tailscale address and `127.0.0.1`, both or none; without such an address loopback), `auto` (`lan` in a container, else `loopback`), `custom`, or an IP address",
);
/// The address of bind mode `custom`.
pub const CUSTOM_BIND_HOST: Key = Key::new(
    Some("gateway.custom_bind_host"),
    &["GATEWAY_CUSTOM_BIND_HOST"],
    None,
    Fallback::None,
    "IP address of `gateway.bind: custom`; unless it is a wildcard, `127.0.0.1` is bound as well, both or none",
);
/// The admin API.
pub const ADMIN_ADDR: Key = Key::new(
    Some("gateway.addr"),
    &["SIGILUM_GATEWAY_PORT", "GATEWAY_ADDR", "GATEWAY_PORT"],
    Some("--addr"),
    Fallback::Text(":38100"),
    "admin API, health and metrics; `:PORT`, `IP:PORT` or `localhost:PORT`, several with commas",
)
.words();
/// Where commands reach the admin API.
pub const ADMIN_URL: Key = Key::new(
    None,
    &["GATEWAY_ADMIN_URL"],
    Some("--gateway-admin-url"),
    Fallback::Computed("the admin API on this machine, `https` where it has a certificate"),
    "where commands of this machine reach the admin API",
);
/// Where agents connect.
pub const INGRESS_ADDR: Key = Key::new(
    Some("gateway.ingress_addr"),
    &["SIGILUM_LISTEN_PORT", "GATEWAY_INGRESS_ADDR", "ENVOY_INGRESS_PORT"],
    Some("--ingress-addr"),
    Fallback::Text(":38000"),
    "where agents connect (Envoy)",
)
.hot_envoy()
.words();
/// The read-only face of Envoy's admin interface.
pub const ENVOY_ADMIN_ADDR: Key = Key::new(
    Some("envoy.admin_addr"),
    &["GATEWAY_ENVOY_ADMIN_ADDR", "ENVOY_ADMIN_PORT"],
    Some("--envoy-admin-addr"),
    Fallback::Text(":38200"),
    "read-only face of Envoy's admin interface; loopback only",
)
.words();
/// The Envoy binary.
pub const ENVOY_BIN: Key = Key::new(
    Some("envoy.bin"),
    &["ENVOY_BIN"],
    Some("--envoy-bin"),
    Fallback::Computed("`envoy` of `PATH`, else the managed copy"),
    "the Envoy binary, 1.39.1 or newer",
);
/// Envoy's worker threads.
pub const ENVOY_CONCURRENCY: Key = Key::new(
    Some("envoy.concurrency"),
    &["GATEWAY_ENVOY_CONCURRENCY"],
    Some("--envoy-concurrency"),
    Fallback::Text("0"),
    "Envoy's worker threads, at most 512; 0 = one per processor",
)
.whole(0, 512);
/// Private upstream addresses.
pub const ALLOW_PRIVATE: Key = Key::new(
    Some("gateway.allow_private"),
    &["GATEWAY_ALLOW_PRIVATE"],
    None,
    Fallback::Text("false"),
    "whether every connection may reach private addresses (RFC 1918, RFC 4193, RFC 6598)",
)
.hot()
.boolean();
/// Proxies in front of us.
pub const TRUSTED_HOPS: Key = Key::new(
    Some("gateway.trusted_hops"),
    &["GATEWAY_TRUSTED_HOPS"],
    None,
    Fallback::Text("0"),
    "proxies of yours in front of the gateway, at most 16; the client address is counted from the right by them",
)
.hot_envoy()
.whole(0, 16);
/// Drain time.
pub const SHUTDOWN_TIMEOUT: Key = Key::new(
    Some("gateway.shutdown_timeout_seconds"),
    &["GATEWAY_SHUTDOWN_TIMEOUT_SECONDS"],
    None,
    Fallback::Text("15"),
    "seconds open requests have to end when the gateway stops, 1 to 3600",
)
.whole(1, LONGEST_DRAIN);
/// The most of it, in seconds.
pub const LONGEST_DRAIN: u64 = 3600;
/// How long claims hold without confirmation.
pub const CLAIMS_GRACE: Key = Key::new(
    Some("gateway.claims_grace"),
    &["GATEWAY_CLAIMS_GRACE_SECONDS"],
    None,
    Fallback::Text("0"),
    "seconds approvals of the Sigilum API hold beyond `claims.ttl_seconds` without confirmation, at most 86400; declared approvals never age",
)
.hot()
.whole(0, 86_400);
/// Where claims come from.
pub const CLAIMS_SOURCE: Key = Key::new(
    Some("claims.source"),
    &["GATEWAY_CLAIMS_SOURCE"],
    None,
    Fallback::Text("api"),
    "`api`: approvals are read from the Sigilum API, for every connection where its address is set, else for those that have a service key; `off`: only those of `gateway.yaml` count",
)
.choice(&["api", "off"]);
/// How often claims are read.
pub const CLAIMS_REFRESH: Key = Key::new(
    Some("claims.refresh_seconds"),
    &["GATEWAY_CLAIMS_CACHE_REFRESH_SECONDS"],
    None,
    Fallback::Text("10"),
    "seconds between two readings of a service's approvals where the API has no stream of changes, 1 to 3600; never more than `claims.ttl_seconds`",
)
.hot()
.whole(1, 3600);
/// How long claims hold.
pub const CLAIMS_TTL: Key = Key::new(
    Some("claims.ttl_seconds"),
    &["GATEWAY_CLAIMS_CACHE_TTL_SECONDS"],
    None,
    Fallback::Text("30"),
    "seconds approvals of the Sigilum API hold without confirmation, 1 to 86400",
)
.hot()
.whole(1, 86_400);
/// Most claims of a service.
pub const CLAIMS_MAX_APPROVALS: Key = Key::new(
    Some("claims.max_approvals"),
    &["GATEWAY_CLAIMS_CACHE_MAX_APPROVED"],
    None,
    Fallback::Text("1000000"),
    "most approvals of one service, 1 to 10000000; more is an error that is logged, and the last complete list ages",
)
.hot()
.whole(1, 10_000_000);
/// Registration of strangers.
pub const AUTO_REGISTER: Key = Key::new(
    Some("claims.auto_register"),
    &["GATEWAY_AUTO_REGISTER_CLAIMS"],
    None,
    Fallback::Text("true"),
    "whether agents of the gateway's own namespace without an approval are submitted to the Sigilum API for one",
)
.hot()
.boolean();
/// How many of them.
pub const REGISTRATION_RATE: Key = Key::new(
    Some("claims.registrations_per_minute"),
    &["GATEWAY_CLAIM_REGISTRATION_RATE_LIMIT_PER_MINUTE"],
    None,
    Fallback::Text("30"),
    "submissions of agents to the Sigilum API in any minute, all together, at most 100000; 0 = no limit",
)
.hot()
.whole(0, 100_000);
/// Reports of usage.
pub const USAGE_ENABLED: Key = Key::new(
    Some("usage.enabled"),
    &["GATEWAY_USAGE_EVENTS"],
    None,
    Fallback::Text("true"),
    "whether the Sigilum API is told of each forwarded request of the gateway's own namespace: who, which service, method and path without query, status; nothing of header and body",
)
.boolean();
/// How many of them wait.
pub const USAGE_MAX_BACKLOG: Key = Key::new(
    Some("usage.max_backlog_bytes"),
    &["GATEWAY_USAGE_MAX_BACKLOG_BYTES"],
    None,
    Fallback::Text("1073741824"),
    "bytes of the access log kept in the run folder while the Sigilum API takes no usage events, 67108864 to 1099511627776; beyond it the oldest are lost and counted",
)
.whole(64 * 1024 * 1024, 1 << 40);
/// Keys of the services at the control plane.
pub const SERVICE_API_KEY: Key = Key::new(
    None,
    &["SIGILUM_SERVICE_API_KEY"],
    None,
    Fallback::Computed("`service-api-key-<service>` in the home folder"),
    "service key at the Sigilum API for every service without one of its own; a service's own is in this variable with `_` and its name in upper case, `_` for every other character (`SIGILUM_SERVICE_API_KEY_MY_SERVICE`)",
);
/// Templates of connections.
pub const SERVICE_CATALOG: Key = Key::new(
    Some("gateway.service_catalog_file"),
    &["GATEWAY_SERVICE_CATALOG_FILE"],
    None,
    Fallback::Computed("`<data_dir>/service-catalog.json`, made where it is missing"),
    "templates from which pages and commands offer connections; read anew each time it is asked for",
);
/// The master key.
pub const MASTER_KEY: Key = Key::new(
    None,
    &["GATEWAY_MASTER_KEY"],
    None,
    Fallback::Computed("`<home>/gateway-master-key`, generated at the first start"),
    "key that seals the store; any text that is not blank",
);
/// The master key in a file.
pub const MASTER_KEY_FILE: Key = Key::new(
    None,
    &["GATEWAY_MASTER_KEY_FILE"],
    None,
    Fallback::None,
    "file that holds the value of `GATEWAY_MASTER_KEY`, as containers are given secrets; where it is named it must be there",
);
/// Old secrets.
pub const KEPT_SECRET_VERSIONS: Key = Key::new(
    Some("store.kept_secret_versions"),
    &["GATEWAY_KEPT_SECRET_VERSIONS"],
    None,
    Fallback::Text("5"),
    "versions of a connection's secrets the store keeps, the one in use included, 1 to 100; older ones are overwritten",
)
.whole(1, 100);
/// The largest body limit, in bytes.
pub const MOST_BODY_BYTES: u64 = 64 * 1024 * 1024;
/// Largest request body.
pub const MAX_REQUEST_BODY_BYTES: Key = Key::new(
    Some("limits.max_body_bytes"),
    &["GATEWAY_MAX_REQUEST_BODY_BYTES"],
    None,
    Fallback::Text("2097152"),
    "largest request body in bytes, 1 to 67108864; beyond it 413",
)
.hot_envoy()
.whole(1, MOST_BODY_BYTES);
/// Age of a signature.
pub const MAX_AGE: Key = Key::new(
    Some("limits.max_age_seconds"),
    &["SIGILUM_TIMESTAMP_TOLERANCE_SECONDS"],
    None,
    Fallback::Text("300"),
    "how old a signature may be in seconds, 1 to 3600",
)
.hot()
.whole(1, 3600);
/// Kept for those who set it.
pub const NONCE_TTL: Key = Key::new(
    None,
    &["SIGILUM_NONCE_TTL_SECONDS"],
    None,
    Fallback::Text("600"),
    "checked only: must not be below the age of a signature; a nonce is kept as long as its signature could be accepted",
)
.whole(1, 86_400);
/// Budget of strangers.
pub const STRANGER_RATE: Key = Key::new(
    Some("limits.stranger_rate_per_second"),
    &["GATEWAY_STRANGER_RATE_PER_SECOND"],
    None,
    Fallback::Text("200"),
    "signatures of keys without any approval that are verified per second, 1 to 100000; beyond it 429",
)
.hot()
.whole(1, 100_000);
/// Rotation policy.
pub const ROTATION_ENFORCEMENT: Key = Key::new(
    Some("rotation.enforcement"),
    &["GATEWAY_ROTATION_ENFORCEMENT"],
    None,
    Fallback::Text("warn"),
    "what an overdue rotation of a secret does: `off`, `warn` or `block`",
)
.hot()
.choice(&["off", "warn", "block"]);
/// Days of grace.
pub const ROTATION_GRACE_DAYS: Key = Key::new(
    Some("rotation.grace_days"),
    &["GATEWAY_ROTATION_GRACE_DAYS"],
    None,
    Fallback::Text("0"),
    "days after the due date before a rotation is overdue, at most 3650",
)
.hot()
.whole(0, 3650);
/// Log level.
pub const LOG_LEVEL: Key = Key::new(
    Some("logging.level"),
    &["SIGILUM_LOG"],
    None,
    Fallback::Text("info"),
    "`off`, `error`, `warn`, `info`, `debug` or `trace`; libraries never log below `warn`",
)
.hot()
.choice(&["off", "error", "warn", "info", "debug", "trace"]);
/// Which decisions are logged.
pub const LOG_DECISIONS: Key = Key::new(
    Some("logging.decisions"),
    &["GATEWAY_LOG_PROXY_REQUESTS"],
    None,
    Fallback::Text("all"),
    "which decisions are logged, one line each: `all`, `denied` or `off`; `true` is `all`, `false` is `off`",
)
.choice(&["all", "denied", "off", "true", "false", "yes", "no", "on"]);
/// Port of the demo's native service.
pub const NATIVE_PORT: Key = Key::new(
    None,
    &["NATIVE_PORT"],
    Some("--native-port"),
    Fallback::Text("11000"),
    "port of the demo service that verifies its callers itself (`up --demo`)",
);
/// Port of the demo upstream.
pub const UPSTREAM_PORT: Key = Key::new(
    None,
    &["UPSTREAM_PORT"],
    Some("--upstream-port"),
    Fallback::Text("11100"),
    "port of the demo upstream (`up --demo`)",
);
/// Refused: opens the gate.
pub const ALLOW_UNSIGNED_PROXY: Key = Key::new(
    None,
    &["GATEWAY_ALLOW_UNSIGNED_PROXY"],
    None,
    Fallback::Text("false"),
    "`true` stops the start (exit 78): no setting opens the gate",
)
.boolean();
/// Refused: opens the admin API.
pub const REQUIRE_SIGNED_ADMIN_CHECKS: Key = Key::new(
    None,
    &["GATEWAY_REQUIRE_SIGNED_ADMIN_CHECKS"],
    None,
    Fallback::Text("true"),
    "`false` stops the start (exit 78)",
)
.boolean();

/// All of them, in the order of the table.
pub const ALL: &[Key] = &[
    PROFILE,
    NAMESPACE,
    HOME,
    CONFIG_FILE,
    DATA_DIR,
    RUN_DIR,
    remote::MODE,
    remote::URL,
    remote::TOKEN_FILE,
    remote::FINGERPRINT,
    remote::ALLOW_INSECURE,
    API_URL,
    BIND,
    CUSTOM_BIND_HOST,
    INGRESS_ADDR,
    ADMIN_ADDR,
    ADMIN_URL,
    ENVOY_ADMIN_ADDR,
    ENVOY_BIN,
    ENVOY_CONCURRENCY,
    ingress_keys::AUTHORITIES,
    ingress_keys::LOOPBACK_NAMES,
    ALLOW_PRIVATE,
    TRUSTED_HOPS,
    ingress_keys::CERT_FILE,
    ingress_keys::KEY_FILE,
    ingress_keys::CLIENT_CA_FILE,
    SHUTDOWN_TIMEOUT,
    CLAIMS_SOURCE,
    CLAIMS_REFRESH,
    CLAIMS_TTL,
    CLAIMS_GRACE,
    CLAIMS_MAX_APPROVALS,
    AUTO_REGISTER,
    REGISTRATION_RATE,
    USAGE_ENABLED,
    USAGE_MAX_BACKLOG,
    SERVICE_API_KEY,
    SERVICE_CATALOG,
    ADMIN_ACCESS_MODE,
    ADMIN_TOKEN,
    ADMIN_PASSWORD,
    PASSWORD_FILE,
    METRICS_TOKEN,
    METRICS_TOKEN_FILE,
    TRUSTED_PROXIES,
    PROXY_USER_HEADER,
    PROXY_REQUIRED_HEADERS,
    PROXY_ALLOW_USERS,
    PROXY_ALLOW_LOOPBACK,
    ALLOWED_ORIGINS,
    ALLOWED_HOSTS,
    TLS_CERT_FILE,
    TLS_KEY_FILE,
    TLS_CLIENT_CA_FILE,
    TLS_CLIENT_NAMES,
    TLS_CA_FILE,
    OPERATOR_CERT_FILE,
    OPERATOR_KEY_FILE,
    MASTER_KEY,
    MASTER_KEY_FILE,
    KEPT_SECRET_VERSIONS,
    MAX_REQUEST_BODY_BYTES,
    MAX_AGE,
    NONCE_TTL,
    fleet_keys::REPLAY_CAPACITY,
    fleet_keys::REPLAY_URL,
    fleet_keys::REPLAY_CA_FILE,
    fleet_keys::REPLAY_PASSWORD_FILE,
    fleet_keys::REPLAY_PASSWORD,
    fleet_keys::REPLAY_TIMEOUT,
    fleet_keys::STATE_ADDR,
    fleet_keys::STATE_CERT_FILE,
    fleet_keys::STATE_KEY_FILE,
    fleet_keys::STATE_CLIENT_CA_FILE,
    STRANGER_RATE,
    ROTATION_ENFORCEMENT,
    ROTATION_GRACE_DAYS,
    LOG_LEVEL,
    LOG_DECISIONS,
    LOG_MAX_BYTES,
    LOG_KEEP,
    LOG_STYLE,
    telemetry_keys::OTLP_ENDPOINT,
    telemetry_keys::OTLP_HEADERS,
    telemetry_keys::SAMPLE_RATIO,
    telemetry_keys::SERVICE_NAME,
    ALLOW_LITERALS,
    PROVIDER_CONCURRENCY,
    REFS_PER_PROVIDER,
    BATCH_BYTES,
    MAX_STALE,
    RELOAD_MODE,
    RELOAD_SETTLE,
    RELOAD_POLL,
    NATIVE_PORT,
    UPSTREAM_PORT,
    ALLOW_UNSIGNED_PROXY,
    REQUIRE_SIGNED_ADMIN_CHECKS,
];

/// Variables of the gateway this one follows that set nothing here, and why.
pub const UNREAD: &[(&str, &str)] = &[
    ("GATEWAY_TRUSTED_PROXY_CIDRS", "gateway.trusted_hops says how many proxies stand in front"),
    ("GATEWAY_PROXY_TIMEOUT_SECONDS", "each connection has response_timeout_ms and max_stream_seconds"),
    ("GATEWAY_ADMIN_TIMEOUT_SECONDS", "the limit of the admin API is fixed"),
    ("GATEWAY_ALLOW_UNSIGNED_CONNECTIONS", "no setting opens the gate"),
    ("GATEWAY_MCP_TIMEOUT_SECONDS", "this version does not speak to MCP servers"),
    ("GATEWAY_MCP_TOOL_CALL_RATE_LIMIT_PER_MINUTE", "this version does not speak to MCP servers"),
    ("GATEWAY_MCP_CIRCUIT_BREAKER_FAILURES", "this version does not speak to MCP servers"),
    ("GATEWAY_MCP_CIRCUIT_BREAKER_COOLDOWN_SECONDS", "this version does not speak to MCP servers"),
    ("GATEWAY_MCP_DISCOVERY_CACHE_TTL_SECONDS", "this version does not speak to MCP servers"),
    ("GATEWAY_MCP_DISCOVERY_STALE_IF_ERROR_SECONDS", "this version does not speak to MCP servers"),
];

/// Every environment variable that sets something. What a supervisor hands to a child is picked from
/// these; the ones that hold secrets are [`SECRET_ENVIRONMENT`].
pub fn environment() -> impl Iterator<Item = &'static str> {
    ALL.iter().flat_map(|key| key.env.iter().copied())
}

/// Variables whose values are secrets; so are those that begin with [`SERVICE_KEY_PREFIX`].
pub const SECRET_ENVIRONMENT: &[&str] = &[
    "GATEWAY_MASTER_KEY",
    "GATEWAY_ADMIN_TOKEN",
    "SIGILUM_GATEWAY_TOKEN",
    "SIGILUM_GATEWAY_PASSWORD",
    "GATEWAY_METRICS_TOKEN",
    "SIGILUM_SERVICE_API_KEY",
    "GATEWAY_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "GATEWAY_REPLAY_PASSWORD",
];
/// Whether a variable holds a secret of the gateway's own, which no reference may lead to.
pub fn is_own_secret(name: &str) -> bool {
    SECRET_ENVIRONMENT.contains(&name) || name.starts_with(SERVICE_KEY_PREFIX)
}

/// Every variable that begins so holds the key of a service.
pub const SERVICE_KEY_PREFIX: &str = "SIGILUM_SERVICE_API_KEY_";

/// The settings as a Markdown table, one line each, ending with a line feed.
pub fn table() -> String {
    table_of(ALL)
}

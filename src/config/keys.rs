//! Every setting, once: its name in `gateway.yaml`, its environment twins, its option, default and meaning.
//!
//! The loader reads the defaults from here and the README table is made from here, so neither can drift.

/// What a setting is where nobody sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// This text, read like any other value.
    Text(&'static str),
    /// Computed; the text says how, for people.
    Computed(&'static str),
    /// Nothing.
    None,
}

/// What it takes for a new value of the file to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reload {
    /// Nothing: the next decision or request of the admin API goes by it.
    Hot,
    /// A new configuration of Envoy, which takes it while it runs.
    HotEnvoy,
    /// The processes start anew.
    Restart,
}

impl Reload {
    /// The name in tables and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::HotEnvoy => "hot-envoy",
            Self::Restart => "restart",
        }
    }
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Dotted name in `gateway.yaml`; `None` where the file cannot hold it.
    pub yaml: Option<&'static str>,
    /// Environment variables; the first that is set wins. Blank counts as unset.
    pub env: &'static [&'static str],
    /// Option of the command line.
    pub flag: Option<&'static str>,
    /// Value where nobody sets it.
    pub fallback: Fallback,
    /// What it means, with its unit and bounds; Markdown.
    pub meaning: &'static str,
    /// What a change of it in the file takes.
    pub reload: Reload,
}

impl Key {
    pub(super) const fn new(
        yaml: Option<&'static str>,
        env: &'static [&'static str],
        flag: Option<&'static str>,
        fallback: Fallback,
        meaning: &'static str,
    ) -> Self {
        Self { yaml, env, flag, fallback, meaning, reload: Reload::Restart }
    }

    /// A change of it in the file counts at once.
    pub(super) const fn hot(self) -> Self {
        Self { reload: Reload::Hot, ..self }
    }

    /// A change of it in the file is a new configuration of Envoy.
    pub(super) const fn hot_envoy(self) -> Self {
        Self { reload: Reload::HotEnvoy, ..self }
    }

    /// The name to use in a message.
    pub fn name(&self) -> &'static str {
        self.yaml.or_else(|| self.env.first().copied()).or(self.flag).unwrap_or("setting")
    }
}

/// The gateway's own namespace.
pub const NAMESPACE: Key = Key::new(
    Some("gateway.namespace"),
    &["SIGILUM_NAMESPACE", "GATEWAY_SIGILUM_NAMESPACE"],
    Some("--namespace"),
    Fallback::Computed("the one in `config.env`"),
    "namespace of the gateway's own identity: 3 to 64 of `a-z`, `0-9`, `-`",
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
    Fallback::Computed("`<data_dir>/run`"),
    "folder of the sockets and the replay journal; socket paths hold at most 107 bytes",
);
/// The control plane.
pub const API_URL: Key = Key::new(
    Some("gateway.api_url"),
    &["SIGILUM_API_URL", "SIGILUM_REGISTRY_URL"],
    Some("--api-url"),
    Fallback::Text("https://api.sigilum.id"),
    "address of the Sigilum API",
);
/// The address a bare port is bound on.
pub const BIND: Key = Key::new(
    Some("gateway.bind"),
    &["GATEWAY_BIND"],
    Some("--bind"),
    Fallback::Text("loopback"),
    "what `:PORT` means: `loopback` (`127.0.0.1` and `::1`) or an IP address",
);
/// The admin API.
pub const ADMIN_ADDR: Key = Key::new(
    Some("gateway.addr"),
    &["GATEWAY_ADDR", "GATEWAY_PORT"],
    Some("--addr"),
    Fallback::Text(":38100"),
    "admin API, health and metrics; `:PORT`, `IP:PORT` or `localhost:PORT`, several with commas",
);
/// Where commands reach the admin API.
pub const ADMIN_URL: Key = Key::new(
    None,
    &["GATEWAY_ADMIN_URL"],
    Some("--gateway-admin-url"),
    Fallback::Computed("`http://127.0.0.1` and the port of the admin API"),
    "where commands of this machine reach the admin API",
);
/// Where agents connect.
pub const INGRESS_ADDR: Key = Key::new(
    Some("gateway.ingress_addr"),
    &["GATEWAY_INGRESS_ADDR", "ENVOY_INGRESS_PORT"],
    Some("--ingress-addr"),
    Fallback::Text(":38000"),
    "where agents connect (Envoy)",
)
.hot_envoy();
/// The read-only face of Envoy's admin interface.
pub const ENVOY_ADMIN_ADDR: Key = Key::new(
    Some("envoy.admin_addr"),
    &["GATEWAY_ENVOY_ADMIN_ADDR", "ENVOY_ADMIN_PORT"],
    Some("--envoy-admin-addr"),
    Fallback::Text(":38200"),
    "read-only face of Envoy's admin interface; loopback only",
);
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
);
/// Authorities besides the loopback names.
pub const AUTHORITIES: Key = Key::new(
    Some("gateway.authorities"),
    &["GATEWAY_AUTHORITIES"],
    None,
    Fallback::Text(""),
    "hosts (`host` or `host:port`) the gateway answers for besides the loopback names; a list, in the environment with commas",
)
.hot();
/// Private upstream addresses.
pub const ALLOW_PRIVATE: Key = Key::new(
    Some("gateway.allow_private"),
    &["GATEWAY_ALLOW_PRIVATE"],
    None,
    Fallback::Text("false"),
    "whether every connection may reach private addresses (RFC 1918, RFC 4193, RFC 6598)",
)
.hot();
/// Proxies in front of us.
pub const TRUSTED_HOPS: Key = Key::new(
    Some("gateway.trusted_hops"),
    &["GATEWAY_TRUSTED_HOPS"],
    None,
    Fallback::Text("0"),
    "proxies of yours in front of the gateway, at most 16; the client address is counted from the right by them",
)
.hot_envoy();
/// Drain time.
pub const SHUTDOWN_TIMEOUT: Key = Key::new(
    Some("gateway.shutdown_timeout_seconds"),
    &["GATEWAY_SHUTDOWN_TIMEOUT_SECONDS"],
    None,
    Fallback::Text("15"),
    "seconds open requests have to end when the gateway stops, 1 to 3600",
);
/// How long claims hold without confirmation.
pub const CLAIMS_GRACE: Key = Key::new(
    Some("gateway.claims_grace"),
    &["GATEWAY_CLAIMS_GRACE_SECONDS"],
    None,
    Fallback::Text("0"),
    "seconds approvals of the Sigilum API hold beyond `claims.ttl_seconds` without confirmation, at most 86400; declared approvals never age",
)
.hot();
/// Where claims come from.
pub const CLAIMS_SOURCE: Key = Key::new(
    Some("claims.source"),
    &["GATEWAY_CLAIMS_SOURCE"],
    None,
    Fallback::Text("api"),
    "`api`: approvals are read from the Sigilum API, for every connection where its address is set, else for those that have a service key; `off`: only those of `gateway.yaml` count",
);
/// How often claims are read.
pub const CLAIMS_REFRESH: Key = Key::new(
    Some("claims.refresh_seconds"),
    &["GATEWAY_CLAIMS_CACHE_REFRESH_SECONDS"],
    None,
    Fallback::Text("10"),
    "seconds between two readings of a service's approvals where the API has no stream of changes, 1 to 3600; never more than `claims.ttl_seconds`",
)
.hot();
/// How long claims hold.
pub const CLAIMS_TTL: Key = Key::new(
    Some("claims.ttl_seconds"),
    &["GATEWAY_CLAIMS_CACHE_TTL_SECONDS"],
    None,
    Fallback::Text("30"),
    "seconds approvals of the Sigilum API hold without confirmation, 1 to 86400",
)
.hot();
/// Most claims of a service.
pub const CLAIMS_MAX_APPROVALS: Key = Key::new(
    Some("claims.max_approvals"),
    &["GATEWAY_CLAIMS_CACHE_MAX_APPROVED"],
    None,
    Fallback::Text("1000000"),
    "most approvals of one service, 1 to 10000000; more is an error that is logged, and the last complete list ages",
)
.hot();
/// Registration of strangers.
pub const AUTO_REGISTER: Key = Key::new(
    Some("claims.auto_register"),
    &["GATEWAY_AUTO_REGISTER_CLAIMS"],
    None,
    Fallback::Text("true"),
    "whether agents of the gateway's own namespace without an approval are submitted to the Sigilum API for one",
)
.hot();
/// How many of them.
pub const REGISTRATION_RATE: Key = Key::new(
    Some("claims.registrations_per_minute"),
    &["GATEWAY_CLAIM_REGISTRATION_RATE_LIMIT_PER_MINUTE"],
    None,
    Fallback::Text("30"),
    "submissions of agents to the Sigilum API in any minute, all together, at most 100000; 0 = no limit",
)
.hot();
/// Reports of usage.
pub const USAGE_ENABLED: Key = Key::new(
    Some("usage.enabled"),
    &["GATEWAY_USAGE_EVENTS"],
    None,
    Fallback::Text("true"),
    "whether the Sigilum API is told of each forwarded request of the gateway's own namespace: who, which service, method and path without query, status; nothing of header and body",
);
/// How many of them wait.
pub const USAGE_MAX_BACKLOG: Key = Key::new(
    Some("usage.max_backlog_bytes"),
    &["GATEWAY_USAGE_MAX_BACKLOG_BYTES"],
    None,
    Fallback::Text("1073741824"),
    "bytes of the access log kept in the run folder while the Sigilum API takes no usage events, 67108864 to 1099511627776; beyond it the oldest are lost and counted",
);
/// Keys of the services at the control plane.
pub const SERVICE_API_KEY: Key = Key::new(
    None,
    &["SIGILUM_SERVICE_API_KEY"],
    None,
    Fallback::Computed("`service-api-key-<service>` in the home folder"),
    "service key at the Sigilum API for every service without one of its own; a service's own is in this variable with `_` and its name in upper case, `_` for every other character (`SIGILUM_SERVICE_API_KEY_MY_SERVICE`)",
);
/// Who may use the admin API.
pub const ADMIN_ACCESS_MODE: Key = Key::new(
    Some("admin.access_mode"),
    &["GATEWAY_ADMIN_ACCESS_MODE"],
    None,
    Fallback::Text("token"),
    "`token`; `hybrid` and `loopback` also trust direct loopback clients, that is every process of this machine",
);
/// The admin token.
pub const ADMIN_TOKEN: Key = Key::new(
    None,
    &["GATEWAY_ADMIN_TOKEN"],
    None,
    Fallback::Computed("`<data_dir>/admin-token`, minted at the first start"),
    "token of the admin API, at least 16 characters",
);
/// Web pages that may call the admin API.
pub const ALLOWED_ORIGINS: Key = Key::new(
    Some("admin.allowed_origins"),
    &["GATEWAY_ALLOWED_ORIGINS"],
    None,
    Fallback::Computed("ports 3000, 5000 and 38000 of `localhost` and `127.0.0.1`, and `https://sigilum.id`"),
    "origins (`https://host[:port]`) of web pages that may call the admin API; a list, in the environment with commas",
)
.hot();
/// The master key.
pub const MASTER_KEY: Key = Key::new(
    None,
    &["GATEWAY_MASTER_KEY"],
    None,
    Fallback::Computed("`<home>/gateway-master-key`, generated at the first start"),
    "key that seals the store; any text that is not blank",
);
/// Largest request body.
pub const MAX_REQUEST_BODY_BYTES: Key = Key::new(
    Some("limits.max_body_bytes"),
    &["GATEWAY_MAX_REQUEST_BODY_BYTES"],
    None,
    Fallback::Text("2097152"),
    "largest request body in bytes, 1 to 67108864; beyond it 413",
)
.hot_envoy();
/// Age of a signature.
pub const MAX_AGE: Key = Key::new(
    Some("limits.max_age_seconds"),
    &["SIGILUM_TIMESTAMP_TOLERANCE_SECONDS"],
    None,
    Fallback::Text("300"),
    "how old a signature may be in seconds, 1 to 3600",
)
.hot();
/// Kept for those who set it.
pub const NONCE_TTL: Key = Key::new(
    None,
    &["SIGILUM_NONCE_TTL_SECONDS"],
    None,
    Fallback::Text("600"),
    "checked only: must not be below the age of a signature; a nonce is kept as long as its signature could be accepted",
);
/// Replay window.
pub const REPLAY_CAPACITY: Key = Key::new(
    Some("limits.replay_capacity"),
    &["GATEWAY_REPLAY_CAPACITY"],
    None,
    Fallback::Text("2000000"),
    "nonces remembered, 1000 to 100000000, at most 32 bytes each; full means 503, never forgetting",
);
/// Budget of strangers.
pub const STRANGER_RATE: Key = Key::new(
    Some("limits.stranger_rate_per_second"),
    &["GATEWAY_STRANGER_RATE_PER_SECOND"],
    None,
    Fallback::Text("200"),
    "signatures of keys without any approval that are verified per second, 1 to 100000; beyond it 429",
)
.hot();
/// Rotation policy.
pub const ROTATION_ENFORCEMENT: Key = Key::new(
    Some("rotation.enforcement"),
    &["GATEWAY_ROTATION_ENFORCEMENT"],
    None,
    Fallback::Text("warn"),
    "what an overdue rotation of a secret does: `off`, `warn` or `block`",
)
.hot();
/// Days of grace.
pub const ROTATION_GRACE_DAYS: Key = Key::new(
    Some("rotation.grace_days"),
    &["GATEWAY_ROTATION_GRACE_DAYS"],
    None,
    Fallback::Text("0"),
    "days after the due date before a rotation is overdue, at most 3650",
)
.hot();
/// Log level.
pub const LOG_LEVEL: Key = Key::new(
    Some("logging.level"),
    &["SIGILUM_LOG"],
    None,
    Fallback::Text("info"),
    "`off`, `error`, `warn`, `info`, `debug` or `trace`; libraries never log below `warn`",
)
.hot();
/// Which decisions are logged.
pub const LOG_DECISIONS: Key = Key::new(
    Some("logging.decisions"),
    &["GATEWAY_LOG_PROXY_REQUESTS"],
    None,
    Fallback::Text("all"),
    "which decisions are logged, one line each: `all`, `denied` or `off`; `true` is `all`, `false` is `off`",
);
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
);
/// Refused: opens the admin API.
pub const REQUIRE_SIGNED_ADMIN_CHECKS: Key = Key::new(
    None,
    &["GATEWAY_REQUIRE_SIGNED_ADMIN_CHECKS"],
    None,
    Fallback::Text("true"),
    "`false` stops the start (exit 78)",
);

/// All of them, in the order of the table.
pub const ALL: &[Key] = &[
    NAMESPACE,
    HOME,
    CONFIG_FILE,
    DATA_DIR,
    RUN_DIR,
    API_URL,
    BIND,
    INGRESS_ADDR,
    ADMIN_ADDR,
    ADMIN_URL,
    ENVOY_ADMIN_ADDR,
    ENVOY_BIN,
    ENVOY_CONCURRENCY,
    AUTHORITIES,
    ALLOW_PRIVATE,
    TRUSTED_HOPS,
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
    ADMIN_ACCESS_MODE,
    ADMIN_TOKEN,
    ALLOWED_ORIGINS,
    MASTER_KEY,
    MAX_REQUEST_BODY_BYTES,
    MAX_AGE,
    NONCE_TTL,
    REPLAY_CAPACITY,
    STRANGER_RATE,
    ROTATION_ENFORCEMENT,
    ROTATION_GRACE_DAYS,
    LOG_LEVEL,
    LOG_DECISIONS,
    NATIVE_PORT,
    UPSTREAM_PORT,
    ALLOW_UNSIGNED_PROXY,
    REQUIRE_SIGNED_ADMIN_CHECKS,
];

/// Every environment variable that sets something. What a supervisor hands to a child is picked from
/// these; the ones that hold secrets are [`SECRET_ENVIRONMENT`].
pub fn environment() -> impl Iterator<Item = &'static str> {
    ALL.iter().flat_map(|key| key.env.iter().copied())
}

/// Variables whose values are secrets; so are those that begin with [`SERVICE_KEY_PREFIX`].
pub const SECRET_ENVIRONMENT: &[&str] = &["GATEWAY_MASTER_KEY", "GATEWAY_ADMIN_TOKEN", "SIGILUM_SERVICE_API_KEY"];
/// Every variable that begins so holds the key of a service.
pub const SERVICE_KEY_PREFIX: &str = "SIGILUM_SERVICE_API_KEY_";

/// The settings as a Markdown table, one line each, ending with a line feed.
pub fn table() -> String {
    table_of(ALL)
}

/// The same of some settings. What a change takes is told where the file can hold them.
pub fn table_of(keys: &[Key]) -> String {
    let in_file = keys.iter().any(|key| key.yaml.is_some());
    let mut out = String::from("| `gateway.yaml` | environment | option | default |");
    out.push_str(if in_file { " reload | meaning |\n| --- |" } else { " meaning |\n|" });
    out.push_str(" --- | --- | --- | --- | --- |\n");
    for key in keys {
        let code = |text: &str| format!("`{text}`");
        let yaml = key.yaml.map_or_else(String::new, code);
        let env = key.env.iter().map(|name| code(name)).collect::<Vec<_>>().join(", ");
        let flag = key.flag.map_or_else(String::new, code);
        let fallback = match key.fallback {
            Fallback::Text("") | Fallback::None => "none".to_owned(),
            Fallback::Text(text) => code(text),
            Fallback::Computed(text) => text.to_owned(),
        };
        let meaning = key.meaning.replace('|', "\\|");
        let reload = if key.yaml.is_some() { key.reload.name() } else { "" };
        let reload = if in_file { format!(" {reload} |") } else { String::new() };
        out.push_str(&format!("| {yaml} | {env} | {flag} | {fallback} |{reload} {meaning} |\n"));
    }
    out
}

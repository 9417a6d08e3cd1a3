//! JSON of the gateway's status: what `GET /api/v1/status` says of itself, and the whole report of
//! `sigilum gateway status --json`, which adds what only the machine knows. Names, counts and times; never a secret.

use serde::Deserialize;
use serde::Serialize;
use utoipa::ToSchema;

/// Version of the report: members are added, never renamed.
pub const SCHEMA_VERSION: u32 = 1;

/// Name of the file in the run folder in which a bridge writes down how it stands.
pub const BRIDGE_FILE: &str = "pair-bridge.json";

/// What a bridge writes down of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeNote {
    /// Its process id.
    pub pid: i32,
    /// When that process was started, in a form that is only compared.
    pub started: String,
    /// `connecting`, `connected`, `terminal` (the session is over), or `ended` for another reason.
    pub state: String,
    /// Since when, in Unix seconds.
    pub since: u64,
    /// The session.
    #[serde(default)]
    pub session_id: String,
    /// The control plane, without a trailing slash.
    #[serde(default)]
    pub api_url: String,
    /// What is in its way.
    #[serde(default)]
    pub trouble: Option<String>,
    /// Why it has ended for good, and what to do.
    #[serde(default)]
    pub ended: Option<String>,
    /// Where it prints, if that is a file.
    #[serde(default)]
    pub log: Option<String>,
}

/// `GET /api/v1/status`: the members of the report that the gateway knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Status)]
pub struct StatusBody {
    /// 1.
    pub schema_version: u32,
    /// Whether it is ready.
    pub ok: bool,
    /// When this was put together (RFC 3339).
    pub generated_at: String,
    /// The configuration that is in force.
    pub config: AppliedConfigBody,
    /// Everything else.
    #[serde(flatten)]
    pub known: KnownBody,
}

/// What the gateway knows of itself: the same members in both reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StatusMembers)]
pub struct KnownBody {
    /// Version, listeners, modes.
    pub gateway: GatewayBody,
    /// The data plane.
    pub envoy: EnvoyBody,
    /// The decision.
    pub authz: AuthzBody,
    /// The secrets of the configuration file.
    pub secrets: SecretsBody,
    /// The approvals of the Sigilum API.
    pub claims: ClaimsBody,
    /// Connections, counted.
    pub connections: ConnectionsBody,
    /// The bridge to a dashboard.
    pub pairing: PairingBody,
    /// Whether it is ready, and what keeps it.
    pub readiness: ReadinessBody,
    /// What went wrong last and still stands; in words.
    pub last_error: Option<String>,
}

/// What is in force of the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StatusConfig)]
pub struct AppliedConfigBody {
    /// The file the running gateway reads; `null` where it reads none, or nobody said.
    pub file: Option<String>,
    /// Why that file, or a part of it, is not in force.
    pub file_error: Option<String>,
    /// SHA-256 of the file that is in force.
    pub applied_config_hash: Option<String>,
    /// SHA-256 of the file as it stands there.
    pub config_revision_hash: Option<String>,
    /// Settings that differ and take a restart.
    pub restart_required: Vec<String>,
}

/// Version, listeners and modes of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StatusGateway)]
pub struct GatewayBody {
    /// Version of the program that runs; of this command where nothing does.
    pub version: String,
    /// Names this life of the admin process; empty where it does not run.
    pub instance_id: Option<String>,
    /// `local`, or `remote` where the settings name a gateway elsewhere.
    pub mode: String,
    /// What the admin API listens on, as configured: `loopback`, `lan`, `tailnet`, `auto`, `custom`; where addresses were named
    /// `loopback`, `lan` (every address of the machine) or `custom`, as they are.
    pub bind_mode: String,
    /// Where the admin API is.
    pub control: ListenerBody,
    /// Where agents are served.
    pub runtime_listener: ListenerBody,
    /// `token`, `hybrid`, `loopback`, …: who may use the admin API.
    pub auth_mode: String,
    /// `off`, `hot`, `restart` or `hybrid`.
    pub reload_mode: String,
    /// How long the admin process has been running, in milliseconds; 0 where it does not.
    pub uptime_ms: u64,
    /// What its supervisor is about, where that is not plain running (`starting`, `draining`, `handing-off`); without its word,
    /// what the start still waits for (`authz`, `envoy`); `null` where it is done.
    pub startup_phase: Option<String>,
}

/// One listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StatusListener)]
pub struct ListenerBody {
    /// Address or name.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Where the running gateway has the port from, else where this command would: `option`, `environment`, `file`, `default`.
    pub port_source: String,
}

/// The state of Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schema(as = StatusEnvoyState)]
pub enum EnvoyState {
    /// It serves.
    Live,
    /// It finishes what is open and takes nothing new.
    Draining,
    /// It starts.
    Initializing,
    /// It does not run, or does not answer.
    Down,
    /// It is somebody else's, and is not asked.
    Unknown,
}

/// The data plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StatusEnvoy)]
pub struct EnvoyBody {
    /// Whether this gateway runs it.
    pub managed: bool,
    /// Its process id.
    pub pid: Option<i32>,
    /// Its version.
    pub version: Option<String>,
    /// How it stands.
    pub state: EnvoyState,
    /// How often it ended by itself and was started again since its supervisor began; from the gateway itself, which does not
    /// start it, how often it was seen to have started anew since the admin process began.
    pub restarts: u64,
    /// What it and authz were given, and took.
    pub xds: XdsBody,
}

/// What was given to the data plane, and what it took. Envoy's files are `lds`; what authz is told is `rds` (who may do
/// what) and `cds` (where connections lead): one stream, one version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StatusXds)]
pub struct XdsBody {
    /// Envoy's listeners.
    pub lds: ResourceBody,
    /// Approvals and settings, by the state stream.
    pub rds: ResourceBody,
    /// Connections, by the state stream.
    pub cds: ResourceBody,
    /// What was refused last, in words, where the refusal still stands.
    pub last_nack: Option<String>,
}

/// One kind of resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = StatusResource)]
pub struct ResourceBody {
    /// The version that was given.
    pub version: u64,
    /// Whether it was taken.
    pub acked: bool,
}

/// The decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StatusAuthz)]
pub struct AuthzBody {
    /// Whether it answers.
    pub reachable: bool,
    /// Half of the decisions took at most this many milliseconds, to the next bound of the histogram `decision_seconds`, head and
    /// body of a request counted as one each; 0 where none was made, 500 also where it is beyond that last bound.
    pub p50_ms: Option<f64>,
    /// The same for 99 of 100.
    pub p99_ms: Option<f64>,
    /// Decisions since authz started.
    pub decisions: DecisionsBody,
    /// That no unsigned request which was sent to see came through. `false` is the failure `AuthzReachable` with the reason
    /// `FailedOpen`.
    pub fail_closed: Option<bool>,
}

/// Decisions, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = StatusDecisions)]
pub struct DecisionsBody {
    /// Let through.
    pub allow: u64,
    /// Refused for what the request is.
    pub deny: u64,
    /// Refused because the gateway could not decide: `NOT_READY`, `REPLAY_WINDOW_FULL` and other answers with 503.
    pub error: u64,
}

/// The secrets of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StatusSecrets)]
pub struct SecretsBody {
    /// Number of the secrets in use.
    pub generation: u64,
    /// `ok`, `degraded` (the last good ones are in use) or `unavailable`.
    pub state: String,
    /// Seconds since all were resolved.
    pub age_seconds: u64,
    /// How many references.
    pub refs: RefsBody,
}

/// References to secrets, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = StatusRefs)]
pub struct RefsBody {
    /// In use.
    pub active: usize,
    /// Of disabled connections.
    pub inactive: usize,
    /// That could not be resolved.
    pub unresolved: usize,
}

/// The approvals of the Sigilum API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StatusClaims)]
pub struct ClaimsBody {
    /// `fresh`, `stale` or `unavailable` (nothing was read yet). Where the API is not asked there is nothing that could age.
    pub state: String,
    /// Where approvals come from: `api`, or `off` where those of the configuration file are all.
    #[serde(default)]
    pub source: String,
    /// Seconds since the service that waits longest was confirmed; where none was yet, since the admin process began; 0 where
    /// there is none.
    pub age_seconds: Option<u64>,
    /// Approvals that count, declared ones included.
    pub approved: u64,
}

/// Connections, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StatusConnections)]
pub struct ConnectionsBody {
    /// Active ones.
    pub active: u64,
    /// Disabled ones.
    pub disabled: u64,
    /// Active ones whose secret cannot be used, or whose last test failed.
    pub degraded: u64,
    /// Whose secret is due.
    pub rotation_due: u64,
}

/// `GET /api/v1/connections`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ConnectionStatusList)]
pub struct ConnectionStatusListBody {
    /// Sorted by id.
    pub connections: Vec<ConnectionStatusBody>,
}

/// How it stands with one connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ConnectionStatus)]
pub struct ConnectionStatusBody {
    /// Its slug.
    pub id: String,
    /// `http` or `mcp`.
    pub protocol: String,
    /// `active` or `disabled`.
    pub status: String,
    /// `resolved`, `unresolved` (no secret can be injected) or `rotation-due`; `null` where nobody was asked.
    pub secret: Option<String>,
    /// The last request the gateway itself sent to the provider; `null`: none was.
    pub last_probe: Option<ProbeBody>,
    /// Approvals of this connection, of whatever source; `null` where nobody was asked.
    pub approved_agents: Option<u64>,
}

/// One request of the gateway itself to a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ConnectionProbe)]
pub struct ProbeBody {
    /// Whether the provider answered with 200 to 399.
    pub ok: bool,
    /// HTTP status of its answer; 0 where there was none.
    pub http_status: u16,
    /// How long it took, in milliseconds; `null` where that was not kept.
    pub ms: Option<u64>,
    /// When it ended (RFC 3339).
    pub at: String,
    /// Why it failed; never the provider's body.
    pub error: Option<String>,
}

/// The bridge to a dashboard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StatusPairing)]
pub struct PairingBody {
    /// `connected`, `connecting`, `terminal` or `off`.
    pub bridge: String,
}

/// Whether the gateway is ready.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StatusReadiness)]
pub struct ReadinessBody {
    /// Whether it is.
    pub ready: bool,
    /// Types of the conditions that keep it from being ready.
    pub failures: Vec<String>,
    /// Types of those an operator should know of.
    pub advisories: Vec<String>,
    /// What those say: `Type: message`.
    pub messages: Vec<String>,
}

/// The whole report of `sigilum gateway status --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportBody {
    /// 1.
    pub schema_version: u32,
    /// Whether the gateway runs, answers and is ready.
    pub ok: bool,
    /// Which installation; `default` unless another was named.
    pub profile: String,
    /// When this was put together (RFC 3339).
    pub generated_at: String,
    /// Who looks after it, and its process.
    pub service: ServiceBody,
    /// The configuration of this command and of the running gateway.
    pub config: ConfigBody,
    /// What the gateway said of itself, or what can be said without it. The last error is the file's or the call's where it
    /// said none.
    #[serde(flatten)]
    pub known: KnownBody,
    /// The ports of the gateway, and who listens there.
    pub port: Vec<PortBody>,
    /// How the gateway answered this command.
    pub rpc: RpcBody,
    /// Where the log is.
    pub log_file: String,
    /// How the last life ended, where that was written down.
    pub last_shutdown: Option<ShutdownBody>,
    /// What an older gateway left behind.
    pub legacy_services: Vec<ExtraServiceBody>,
    /// Units and processes that look like ours and are not of this installation; only with `--deep`.
    pub extra_services: Vec<ExtraServiceBody>,
}

/// Who looks after the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceBody {
    /// `systemd-user`, `systemd-system`, `launchd`, `external` or `none`.
    pub manager: String,
    /// The unit's name; empty without one.
    pub label: String,
    /// Whether the manager knows the unit.
    pub loaded: bool,
    /// Whether it starts by itself.
    pub enabled: bool,
    /// The unit's file.
    pub unit_path: Option<String>,
    /// Whether the file differs from what the manager has read; `false` also where there is no unit.
    pub reload_pending: Option<bool>,
    /// Where the unit and the configuration of this command differ: ports.
    pub drift: Vec<DriftBody>,
    /// Its process.
    pub runtime: RuntimeBody,
}

/// One difference between the unit and the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftBody {
    /// What.
    pub field: String,
    /// As the unit has it.
    pub unit: String,
    /// As the configuration has it.
    pub config: String,
}

/// The gateway's main process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeBody {
    /// `running`, `stopped`, `failed` or `unknown`.
    pub status: String,
    /// Its process id.
    pub pid: Option<i32>,
    /// Since when (RFC 3339).
    pub since: Option<String>,
    /// Exit code of the last one, where its manager has it and it was not 0.
    pub last_exit_status: Option<i32>,
    /// How that one ended, in its manager's word: `exit-code`, `signal`, `watchdog`, …
    pub last_exit_reason: Option<String>,
    /// How often its manager started it again, and how often it started one of its processes again, each without being asked,
    /// since they began; 0 also where neither said.
    pub restarts: Option<u64>,
}

/// The configuration of this command and of the running gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigBody {
    /// What this command reads.
    pub cli: ConfigFileBody,
    /// What the running gateway reads; what this command does where none said.
    pub service: Option<ConfigFileBody>,
    /// Whether those are two files.
    pub mismatch: Option<bool>,
    /// What is in force.
    #[serde(flatten)]
    pub applied: AppliedConfigBody,
}

/// One configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFileBody {
    /// Where it is, or would be.
    pub path: String,
    /// Whether it is there.
    pub exists: bool,
    /// Whether it can be used; a file that is not there can.
    pub valid: bool,
    /// What is wrong with it.
    pub issues: Vec<IssueBody>,
}

/// One mistake in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssueBody {
    /// Dotted name of the value; empty where it is about the whole file.
    pub path: String,
    /// In words, with line and column where there are any.
    pub message: String,
}

/// One port of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBody {
    /// TCP port.
    pub port: u16,
    /// `free` or `busy`.
    pub status: String,
    /// Who listens there, as far as the system tells.
    pub listeners: Vec<PortListenerBody>,
    /// What to do about it.
    pub hints: Vec<String>,
}

/// Who listens on a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortListenerBody {
    /// Process id.
    pub pid: i32,
    /// The program's name, without arguments.
    pub command: String,
    /// `host:port`.
    pub address: String,
}

/// How the gateway answered this command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RpcBody {
    /// Whether it answered a call with the token; `null` where it was not asked.
    pub ok: Option<bool>,
    /// Where it was asked.
    pub url: String,
    /// What the token lets this command do: `admin_capable`, `connected_no_operator_scope` or `unknown` today;
    /// `read_only`, `write_capable` and `pairing_pending` are kept for tokens with fewer rights.
    pub capability: String,
    /// Why it did not.
    pub error: Option<String>,
    /// What is odd about the token.
    pub auth_warning: Option<String>,
    /// How long it took.
    pub latency_ms: Option<u64>,
}

/// How the last life of the gateway ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutdownBody {
    /// In words.
    pub reason: String,
    /// When (RFC 3339).
    pub at: String,
}

/// A unit or process that is not of this installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraServiceBody {
    /// The unit's name, or the program's.
    pub label: String,
    /// `user`, `system` or `process`.
    pub scope: String,
    /// File or process id, and what to do about it.
    pub detail: String,
}

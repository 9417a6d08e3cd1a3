//! The parts of `gateway.yaml` that are more than one value: which members they have, once for the parser, the schema
//! for editors and the documentation.

use crate::config::declaration::MAX_CONNECTIONS;
use crate::config::declaration::MAX_PROVIDERS;
use crate::config::declaration::MAX_VARIABLES;
use crate::config::form::Form;
use crate::config::form::Member;
use crate::config::form::whole;
use crate::config::keys::Reload;
use crate::domain::connection::MAX_LIST_ENTRIES;
use crate::domain::draft::MAX_RESPONSE_TIMEOUT;
use crate::domain::draft::MAX_ROTATION_DAYS;
use crate::domain::draft::MAX_STREAM;
use crate::domain::record::MAX_SECRETS;

/// A slug as [`crate::domain::ids`] reads it.
const SLUG: &str = "^[a-z0-9][a-z0-9-]{1,62}[a-z0-9]$";
/// The same, blanks around it allowed.
const LOOSE_SLUG: &str = r"^\s*([a-z0-9][a-z0-9-]{1,62}[a-z0-9])?\s*$";
/// The key of a credential variable.
const VARIABLE: &str = "^[A-Za-z0-9._-]{2,128}$";
/// The name of a provider.
pub(super) const PROVIDER: &str = "^[a-z][a-z0-9_-]{0,63}$";
/// An absolute path, or one below the home folder.
const PATH: &str = "^(/|~/)";
/// Most approvals: what a file of the largest size holds.
const MAX_APPROVALS: usize = 1_000_000;
/// Most workloads.
pub(super) const MAX_WORKLOADS: usize = 1000;
/// Most arguments or variables of a program.
pub(super) const MAX_ARGUMENTS: usize = 64;
/// Longest argument or variable of a program, in bytes.
pub(super) const MAX_ARGUMENT_BYTES: usize = 4096;
/// How long a provider may take, in milliseconds.
pub(super) const PROVIDER_TIMEOUT_MS: (u64, u64) = (1, 60_000);
/// How much a provider may say, in bytes.
pub(super) const PROVIDER_BYTES: (u64, u64) = (1, 16 * 1024 * 1024);

/// A part of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Dotted name.
    pub path: &'static str,
    /// What it holds.
    pub form: Form,
    /// What a change of anything in it takes.
    pub reload: Reload,
    /// What it means; Markdown.
    pub meaning: &'static str,
}

/// All of them, in the order of the documentation.
pub const PARTS: &[Part] = &[
    Part {
        path: "connections",
        form: Form::Objects(CONNECTION, MAX_CONNECTIONS),
        reload: Reload::Hot,
        meaning: "providers, with the members of `POST /api/admin/connections`; at most 50000",
    },
    Part {
        path: "approvals",
        form: Form::Objects(APPROVAL, MAX_APPROVALS),
        reload: Reload::Hot,
        meaning: "agents that may use a connection without asking any API",
    },
    Part {
        path: "variables",
        form: Form::NamedSecrets(VARIABLE, MAX_VARIABLES),
        reload: Reload::Hot,
        meaning: "credential variables by key, each with where its value lives; at most 50000",
    },
    Part {
        path: "workloads",
        form: Form::Objects(WORKLOAD, MAX_WORKLOADS),
        reload: Reload::Hot,
        meaning: "who is sent what over `state.addr`: authz processes by the names in their certificates; at most 1000",
    },
    Part {
        path: "secrets.providers",
        form: Form::Sourced(PROVIDERS, PROVIDER, MAX_PROVIDERS),
        reload: Reload::Hot,
        meaning: "providers of secrets by name, `source` says which kind; at most 64",
    },
    Part {
        path: "secrets.defaults",
        form: Form::Object(DEFAULTS),
        reload: Reload::Hot,
        meaning: "which provider a reference means that names none",
    },
];

/// The members of a declared connection: those of the admin API's create body.
pub const CONNECTION: &[Member] = &[
    Member::new(
        "id",
        Form::Text(LOOSE_SLUG),
        "the slug of `name`",
        "slug of 3 to 64 characters; also the service name of its approvals",
    ),
    Member::new("name", Form::Text(""), "the id", "name for people, at most 256 bytes"),
    Member::new("protocol", Form::Text(r"^\s*([Hh][Tt][Tt][Pp]|[Mm][Cc][Pp])?\s*$"), "http", "`http` or `mcp`"),
    Member::needed(
        "base_url",
        Form::Text(r"^\s*[Hh][Tt][Tt][Pp][Ss]?://[^\s@?#\\]+\s*$"),
        "where the provider is: `http://` or `https://`, without user, query and fragment",
    ),
    Member::new("path_prefix", Form::Text(""), "", "put between base address and the rest of the path"),
    Member::new(
        "auth_mode",
        Form::Choice(&["bearer", "header_key", "query_param", "basic", ""]),
        "bearer",
        "how the secret is injected: `bearer`, `header_key`, `query_param`, `basic`",
    ),
    Member::new(
        "auth_header_name",
        Form::Text(""),
        "`Authorization`, or `api_key` with `query_param`",
        "header or query parameter that carries the secret",
    ),
    Member::new(
        "auth_prefix",
        Form::Text(""),
        "`Bearer ` with `bearer`, `Basic ` with `basic`",
        "what stands before the secret",
    ),
    Member::new("auth_secret_key", Form::Text(""), "the only one of `secrets`", "which of `secrets` is injected"),
    Member::new("secrets", Form::Secrets(MAX_SECRETS), "", "where the secrets live, by name; at most 32"),
    Member::new(
        "rotation_interval_days",
        whole(0, MAX_ROTATION_DAYS.unsigned_abs()),
        "0",
        "days a secret is meant to live; 0 = no rotation",
    ),
    Member::new("status", Form::Choice(&["active", "disabled", ""]), "active", "`active` or `disabled`"),
    Member::new(
        "allow_private",
        Form::Boolean,
        "false",
        "whether the provider may live on a private address (RFC 1918, RFC 4193, RFC 6598)",
    ),
    Member::new("allowed_methods", Form::Texts(MAX_LIST_ENTRIES), "all", "methods agents may use"),
    Member::new(
        "allowed_paths",
        Form::Texts(MAX_LIST_ENTRIES),
        "all",
        "prefixes, each with a leading `/`, of the paths agents may use",
    ),
    Member::new("upgrades", Form::Texts(MAX_LIST_ENTRIES), "none", "`websocket` where upgrades are wanted"),
    Member::new(
        "response_timeout_ms",
        whole(1, MAX_RESPONSE_TIMEOUT.as_secs() * 1000),
        "120000",
        "milliseconds to the provider's response headers",
    ),
    Member::new("max_stream_seconds", whole(1, MAX_STREAM.as_secs()), "3600", "seconds the whole stream may last"),
    Member::new(
        "extra_headers",
        Form::TextMap(MAX_LIST_ENTRIES),
        "none",
        "headers added to every request to the provider; not for secrets",
    ),
    Member::new("allow_set_cookie", Form::Boolean, "false", "whether the provider's `set-cookie` reaches the agent"),
    Member::new("forward_trace", Form::Boolean, "false", "whether `traceparent` and `tracestate` reach the provider"),
    Member::new("mcp_transport", Form::Choice(&["streamable_http", ""]), "streamable_http", "`mcp` only"),
    Member::new("mcp_endpoint", Form::Text(""), "/", "`mcp` only: an absolute URL, or a path below the base address"),
    Member::new("mcp_tool_allowlist", Form::Texts(MAX_LIST_ENTRIES), "all", "`mcp` only: tools that are shown"),
    Member::new("mcp_tool_denylist", Form::Texts(MAX_LIST_ENTRIES), "none", "`mcp` only: tools that are never shown"),
    Member::new(
        "mcp_max_tools_exposed",
        whole(0, u32::MAX as u64),
        "no limit",
        "`mcp` only: most tools that are shown; 0: no limit",
    ),
    Member::new(
        "mcp_subject_tool_policies",
        Form::Named(TOOLS, "", MAX_LIST_ENTRIES),
        "none",
        "`mcp` only: the same for single subjects, by subject",
    ),
];

/// What a subject may see of an MCP server.
pub const TOOLS: &[Member] = &[
    Member::new("allowlist", Form::Texts(MAX_LIST_ENTRIES), "all", "tools that are shown"),
    Member::new("denylist", Form::Texts(MAX_LIST_ENTRIES), "none", "tools that are never shown"),
    Member::new("max_tools_exposed", whole(0, u32::MAX as u64), "no limit", "most tools that are shown; 0: no limit"),
];

/// The members of a declared approval.
pub const APPROVAL: &[Member] = &[
    Member::needed("namespace", Form::Text(SLUG), "the agent's namespace"),
    Member::needed(
        "public_key",
        Form::Text("^ed25519:[A-Za-z0-9+/]{43}=$"),
        "the agent's key, as `sigilum identity show` prints it",
    ),
    Member::needed("service", Form::Text(SLUG), "id of the connection it may use"),
    Member::new(
        "expires_at",
        Form::Text("^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]"),
        "open end",
        "last moment it holds, RFC 3339",
    ),
];

/// The members of a workload.
pub const WORKLOAD: &[Member] = &[
    Member::needed("name", Form::Text("^[A-Za-z0-9._-]{1,64}$"), "name for logs"),
    Member::needed(
        "sans",
        Form::Texts(MAX_LIST_ENTRIES),
        "subject alternative names (DNS or URI, exact) of its certificates; each of one workload only",
    ),
    Member::needed(
        "connections",
        Form::Texts(MAX_CONNECTIONS),
        "ids of the connections it is sent, with their secrets and approvals; `\"*\"` alone means all",
    ),
];

/// Which provider is meant.
const DEFAULTS: &[Member] = &[
    Member::new("env", Form::Text(PROVIDER), "default", "of `env` references; `default` needs no declaration"),
    Member::new("file", Form::Text(PROVIDER), "default", "of `file` references"),
    Member::new("exec", Form::Text(PROVIDER), "default", "of `exec` references"),
];

/// The kinds of provider.
pub(super) const PROVIDERS: &[(&str, &[Member])] = &[("env", ENV), ("file", FILE), ("exec", EXEC)];

const SOURCE: Member = Member::needed("source", Form::Choice(&["env", "file", "exec"]), "which kind of provider it is");

const TIMEOUT: Member = Member::new(
    "timeout_ms",
    whole(PROVIDER_TIMEOUT_MS.0, PROVIDER_TIMEOUT_MS.1),
    "5000",
    "milliseconds one answer may take",
);

const ENV: &[Member] = &[SOURCE, Member::new("allowlist", Form::Texts(1024), "all", "variables it gives away")];

const FILE: &[Member] = &[
    SOURCE,
    Member::needed("path", Form::Text(PATH), "the file, absolute or below `~/`"),
    TIMEOUT,
    Member::new("max_bytes", whole(PROVIDER_BYTES.0, PROVIDER_BYTES.1), "1048576", "largest file, in bytes"),
    Member::new("allow_group_read", Form::Boolean, "false", "whether the file's group may read it"),
];

const EXEC: &[Member] = &[
    SOURCE,
    Member::needed("command", Form::Text(PATH), "the program, absolute or below `~/`; no shell is involved"),
    Member::new("args", Form::Texts(MAX_ARGUMENTS), "none", "its arguments; not for secrets"),
    Member::new("pass_env", Form::Texts(MAX_ARGUMENTS), "none", "variables of the gateway it gets too"),
    Member::new(
        "env",
        Form::Masked(MAX_ARGUMENTS),
        "none",
        "variables it gets besides, by name; not for secrets, though never shown",
    ),
    TIMEOUT,
    Member::new(
        "max_output_bytes",
        whole(PROVIDER_BYTES.0, PROVIDER_BYTES.1),
        "1048576",
        "most it may print, in bytes",
    ),
    Member::new(
        "allow_symlink",
        Form::Boolean,
        "false",
        "whether the program may be a symbolic link, to a program in one of `trusted_dirs`",
    ),
    Member::new(
        "trusted_dirs",
        Form::Texts(MAX_ARGUMENTS),
        "any, but for symbolic links none",
        "folders, absolute, in one of which the program must lie once links are followed",
    ),
    Member::new(
        "json_only",
        Form::Boolean,
        "true",
        "whether it must answer in JSON; where not, plain text is the value of the one id it is asked for",
    ),
];

/// What a change at a dotted path takes: that of the longest declared name it begins with; of an unknown one a restart.
pub fn reload_of(path: &str) -> Reload {
    let known = crate::config::keys::ALL.iter().filter_map(|key| Some((key.yaml?, key.reload)));
    known
        .chain(PARTS.iter().map(|part| (part.path, part.reload)))
        .filter(|(name, _)| path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])))
        .max_by_key(|(name, _)| name.len())
        .map_or(Reload::Restart, |(_, reload)| reload)
}

/// The parts as a Markdown table: every member by path, one line each, ending with a line feed.
pub fn table() -> String {
    let mut out = String::from("| `gateway.yaml` | default | reload | meaning |\n| --- | --- | --- | --- |\n");
    for part in PARTS {
        let reload = part.reload.name();
        out.push_str(&format!("| `{}` | none | {reload} | {} |\n", part.path, cell(part.meaning)));
        rows(part.path, part.form, reload, &mut out);
    }
    out
}

fn rows(path: &str, form: Form, reload: &str, out: &mut String) {
    let (members, path) = match form {
        Form::Object(members) => (vec![members], path.to_owned()),
        Form::Objects(members, _) => (vec![members], format!("{path}[]")),
        Form::Named(members, ..) => (vec![members], format!("{path}.*")),
        Form::Sourced(cases, ..) => (cases.iter().map(|(_, members)| *members).collect(), format!("{path}.*")),
        Form::Text(_)
        | Form::Choice(_)
        | Form::Whole(_)
        | Form::Ratio
        | Form::Boolean
        | Form::Words
        | Form::Texts(_)
        | Form::TextMap(_)
        | Form::Masked(_)
        | Form::Secret
        | Form::Secrets(_)
        | Form::NamedSecrets(..) => return,
    };
    let mut seen: Vec<&str> = Vec::new();
    for member in members.into_iter().flatten() {
        // Kinds of provider have members in common.
        if seen.contains(&member.name) {
            continue;
        }
        seen.push(member.name);
        let path = format!("{path}.{}", member.name);
        let fallback = match (member.needed, member.fallback) {
            (true, _) => "must be given".to_owned(),
            (false, "") => "none".to_owned(),
            (false, text) if text.contains(' ') => cell(text),
            (false, text) => format!("`{text}`"),
        };
        out.push_str(&format!("| `{path}` | {fallback} | {reload} | {} |\n", cell(member.meaning)));
        rows(&path, member.form, reload, out);
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

//! What the file declares, written out again: every member in its canonical form, secrets masked.

use std::path::Path;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::config::declaration::DeclaredConnection;
use crate::config::declaration::ExecProvider;
use crate::config::declaration::ProviderConfig;
use crate::config::declaration::SecretSource;
use crate::config::fleet::EVERYTHING;
use crate::config::fleet::Reach;
use crate::config::fleet::Workload;
use crate::config::form::Form;
use crate::config::loader::parse_boolean;
use crate::config::parts::DeclaredApproval;
use crate::domain::ids::ConnectionId;
use crate::domain::record::ToolPolicy;
use crate::domain::reference::WHOLE_FILE;
use crate::domain::time::UnixSeconds;

/// What stands where a secret would.
pub(super) const MASK: &str = "[redacted]";

/// A connection with every member it has, defaults included; of MCP connections also theirs.
pub(super) fn connection(declared: &DeclaredConnection) -> Map<String, Value> {
    let settings = &declared.checked.settings;
    let secrets = declared.secrets.iter().map(|(name, source)| (name.clone(), secret(source)));
    let mut all = json!({
        "id": settings.id.as_str(),
        "name": settings.name,
        "protocol": settings.protocol.name(),
        "base_url": settings.upstream.base_url(),
        "path_prefix": settings.path_prefix,
        "auth_mode": settings.auth_mode.name(),
        "auth_header_name": settings.auth_target,
        "auth_prefix": settings.auth_prefix,
        "auth_secret_key": declared.checked.auth_secret_key,
        "secrets": Value::Object(secrets.collect()),
        "rotation_interval_days": declared.checked.rotation_interval_days,
        "status": if settings.active { "active" } else { "disabled" },
        "allow_private": settings.allow_private,
        "allowed_methods": settings.allowed_methods,
        "allowed_paths": settings.allowed_paths,
        "upgrades": settings.upgrades,
        "response_timeout_ms": u64::try_from(settings.response_timeout.as_millis()).unwrap_or(u64::MAX),
        "max_stream_seconds": settings.max_stream.as_secs(),
        "extra_headers": settings.extra_headers,
        "allow_set_cookie": settings.allow_set_cookie,
        "forward_trace": settings.forward_trace,
    });
    if let (Some(mcp), Value::Object(all)) = (&declared.checked.mcp, &mut all) {
        all.insert("mcp_transport".to_owned(), json!("streamable_http"));
        all.insert("mcp_endpoint".to_owned(), json!(mcp.endpoint));
        all.insert("mcp_tool_allowlist".to_owned(), json!(mcp.policy.allow));
        all.insert("mcp_tool_denylist".to_owned(), json!(mcp.policy.deny));
        all.insert("mcp_max_tools_exposed".to_owned(), json!(mcp.policy.max_tools));
        let subjects = mcp.subjects.iter().map(|(subject, policy)| (subject.clone(), tools(policy)));
        all.insert("mcp_subject_tool_policies".to_owned(), Value::Object(subjects.collect()));
    }
    members(all)
}

fn tools(policy: &ToolPolicy) -> Value {
    json!({ "allowlist": policy.allow, "denylist": policy.deny, "max_tools_exposed": policy.max_tools })
}

/// Where a secret lives, in the long form; the secret itself is masked.
pub(super) fn secret(source: &SecretSource) -> Value {
    match source {
        SecretSource::Reference(reference) => json!({
            "source": reference.source().name(),
            "provider": reference.provider(),
            "id": reference.id(),
        }),
        SecretSource::File { path, id } if id == WHOLE_FILE => json!({ "file": text(path) }),
        SecretSource::File { path, id } => json!({ "file": text(path), "pointer": id }),
        SecretSource::Literal(_) => json!(MASK),
    }
}

/// A provider with every member it has. The variables of a program are masked: people do put secrets there.
pub(super) fn provider(provider: &ProviderConfig) -> Map<String, Value> {
    let ms = |time: &std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    members(match provider {
        ProviderConfig::Env { allowlist: None } => json!({ "source": "env" }),
        ProviderConfig::Env { allowlist } => json!({ "source": "env", "allowlist": allowlist }),
        ProviderConfig::File { path, max_bytes, timeout, allow_group_read } => json!({
            "source": "file",
            "path": text(path),
            "timeout_ms": ms(timeout),
            "max_bytes": max_bytes,
            "allow_group_read": allow_group_read,
        }),
        ProviderConfig::Exec(ExecProvider {
            command,
            args,
            pass_env,
            env,
            timeout,
            max_output_bytes,
            allow_symlink,
            trusted_dirs,
            json_only,
        }) => json!({
            "source": "exec",
            "command": text(command),
            "args": args,
            "pass_env": pass_env,
            "env": Value::Object(env.keys().map(|name| (name.clone(), json!(MASK))).collect()),
            "timeout_ms": ms(timeout),
            "max_output_bytes": max_output_bytes,
            "allow_symlink": allow_symlink,
            "trusted_dirs": trusted_dirs.iter().map(|folder| text(folder)).collect::<Vec<_>>(),
            "json_only": json_only,
        }),
    })
}

/// A workload.
pub(super) fn workload(workload: &Workload) -> Map<String, Value> {
    let connections: Vec<&str> = match &workload.reach {
        Reach::Everything => vec![EVERYTHING],
        Reach::Only(only) => only.iter().map(ConnectionId::as_str).collect(),
    };
    members(json!({ "name": workload.name, "sans": workload.sans, "connections": connections }))
}

/// A declared approval.
pub(super) fn approval(approval: &DeclaredApproval) -> Map<String, Value> {
    members(json!({
        "namespace": approval.namespace.as_str(),
        "public_key": approval.public_key.text(),
        "service": approval.service.as_str(),
        "expires_at": approval.expires_at.map(UnixSeconds::rfc3339),
    }))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn members(value: Value) -> Map<String, Value> {
    if let Value::Object(members) = value { members } else { Map::new() }
}

/// A text as a value of its form; as it is where it is none.
pub(super) fn typed(form: Form, text: &str) -> Value {
    let number = || text.trim().parse::<u64>().ok().map(Value::from);
    let truth = || parse_boolean(text).ok().map(Value::from);
    let list = || json!(text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect::<Vec<_>>());
    let found = match form {
        Form::Whole(_) => number(),
        Form::Ratio => text.trim().parse::<f64>().ok().map(Value::from),
        Form::Boolean => truth(),
        Form::Words => Some(list()),
        Form::Text(_)
        | Form::Choice(_)
        | Form::Texts(_)
        | Form::TextMap(_)
        | Form::Masked(_)
        | Form::Secret
        | Form::Secrets(_)
        | Form::Object(_)
        | Form::Objects(..)
        | Form::Named(..)
        | Form::NamedSecrets(..)
        | Form::Sourced(..) => None,
    };
    found.unwrap_or_else(|| json!(text))
}

//! Settings of an owner. One is ours: `policy`, which decides what becomes of claims without anybody looking at them;
//! all others belong to whoever wrote them (a dashboard, say) and are kept as they are. Pure.
//!
//! A member of a policy that nobody knows is refused: a policy with a slip of the pen in it must not look as if it were
//! in force.

use serde_json::Map;
use serde_json::Value;

use crate::api::input::Fields;
use crate::api::problem::Problem;
use crate::domain::network::Network;

/// Members of a policy that are yes or no.
const SWITCHES: [&str; 4] = ["autoApproveTrusted", "autoApproveIP", "maxPendingLimit", "autoExpire"];
/// Most entries of a list of a policy.
const MAX_ENTRIES: usize = 100;
/// Longest name of a setting, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// Most that all settings of an owner may be together, as compact JSON, in bytes: they are read with every request.
pub const MAX_BYTES: usize = 64 * 1024;
/// Longest id of a service: `svc_local_` and the longest slug.
const MAX_SERVICE_BYTES: usize = 74;

/// Settings as they are sent; what is absent stays as it is. Other members than `policy` are kept as they are.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body, which is read member by member")]
pub struct SettingsBody {
    policy: Option<PolicyBody>,
}

/// What becomes of claims without anybody looking at them; replaces the policy as a whole.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body, which is read member by member")]
struct PolicyBody {
    /// Approve claims for the services of `trustedServices`; default no.
    #[serde(rename = "autoApproveTrusted")]
    auto_approve_trusted: Option<bool>,
    /// Ids of services, or slugs of your own; at most 100.
    #[serde(rename = "trustedServices")]
    trusted_services: Option<Vec<String>>,
    /// Approve claims from the addresses of `trustedIPRanges`; default no.
    #[serde(rename = "autoApproveIP")]
    auto_approve_ip: Option<bool>,
    /// Addresses or ranges as in `10.0.0.0/8`, at most 100.
    #[serde(rename = "trustedIPRanges")]
    trusted_ip_ranges: Option<Vec<String>>,
    /// Bound the number of pending claims; default yes.
    #[serde(rename = "maxPendingLimit")]
    max_pending_limit: Option<bool>,
    /// Let pending claims expire; default yes.
    #[serde(rename = "autoExpire")]
    auto_expire: Option<bool>,
}

/// Reads stored settings; what is no object counts as none.
pub fn read(stored: &str) -> Map<String, Value> {
    match serde_json::from_str(stored) {
        Ok(Value::Object(settings)) => settings,
        Ok(_) | Err(_) => Map::new(),
    }
}

/// Checks settings that are sent: 400 `VALIDATION_ERROR` with everything that is wrong.
pub fn check(settings: &Map<String, Value>) -> Result<(), Problem> {
    let mut fields = Fields::of(settings);
    for (name, value) in settings {
        match (name.as_str(), value) {
            ("policy", Value::Object(policy)) => check_policy(&mut fields, policy),
            ("policy", _) => fields.refuse("policy", "must be an object"),
            _ if (1..=MAX_NAME_BYTES).contains(&name.len()) => {}
            _ => fields.refuse(shown(name), format!("a setting's name has 1 to {MAX_NAME_BYTES} bytes")),
        }
    }
    fields.finish()
}

fn check_policy(fields: &mut Fields<'_>, policy: &Map<String, Value>) {
    for (name, value) in policy {
        let field = format!("policy.{}", shown(name));
        match name.as_str() {
            "trustedServices" => check_list(fields, field, value, "a slug or an id of a service", is_service),
            "trustedIPRanges" => {
                check_list(fields, field, value, "an IP address or a range as in 10.0.0.0/8", |text| {
                    Network::parse(text).is_some()
                });
            }
            known if SWITCHES.contains(&known) => {
                if !value.is_boolean() {
                    fields.refuse(field, "must be true or false");
                }
            }
            _ => fields.refuse(field, "is not part of a policy"),
        }
    }
}

fn check_list(fields: &mut Fields<'_>, field: String, value: &Value, what: &str, is_good: impl Fn(&str) -> bool) {
    let Value::Array(entries) = value else { return fields.refuse(field, "must be a list") };
    if entries.len() > MAX_ENTRIES {
        return fields.refuse(field, format!("must have at most {MAX_ENTRIES} entries"));
    }
    if let Some(index) = entries.iter().position(|entry| !entry.as_str().is_some_and(&is_good)) {
        fields.refuse(format!("{field}[{index}]"), format!("must be {what}"));
    }
}

/// A slug, or an id, which may have underscores too.
fn is_service(text: &str) -> bool {
    let clean = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    (3..=MAX_SERVICE_BYTES).contains(&text.len()) && text.bytes().all(clean)
}

/// A name of theirs in an answer of ours: not longer than needed to recognise it.
fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_is_what_it_says() {
        for (settings, good) in [
            (json!({}), true),
            (json!({"policy": {}}), true),
            (
                json!({"policy": {"autoApproveTrusted": true, "trustedServices": ["slack", "svc_local_a-b"], "autoApproveIP": false,
                "trustedIPRanges": ["10.0.0.0/8", "::1", "2001:db8::/32", "192.0.2.1"], "maxPendingLimit": false,
                "autoExpire": true}}),
                true,
            ),
            (json!({"policy": null}), false),
            (json!({"policy": []}), false),
            (json!({"theme": "dark", "columns": [1, null]}), true),
            (json!({"": 1}), false),
            (json!({"n".repeat(65): 1}), false),
            (json!({"policy": {"autoApproveIp": true}}), false),
            (json!({"policy": {"autoApproveIP": "yes"}}), false),
            (json!({"policy": {"trustedServices": "slack"}}), false),
            (json!({"policy": {"trustedServices": ["Slack!"]}}), false),
            (json!({"policy": {"trustedServices": vec!["slack"; 101]}}), false),
            (json!({"policy": {"trustedIPRanges": ["10.0.0.0/33"]}}), false),
            (json!({"policy": {"trustedIPRanges": ["10.0.0.0/+8"]}}), false),
            (json!({"policy": {"trustedIPRanges": ["10.0.0.0/"]}}), false),
            (json!({"policy": {"trustedIPRanges": ["localhost"]}}), false),
            (json!({"policy": {"trustedIPRanges": [7]}}), false),
        ] {
            assert_eq!(check(settings.as_object().unwrap()).is_ok(), good, "{settings}");
        }
    }

    #[test]
    fn stored_settings_that_cannot_be_read_are_none() {
        assert!(read("").is_empty());
        assert!(read("[]").is_empty());
        assert_eq!(read(r#"{"policy":{}}"#).len(), 1);
    }
}

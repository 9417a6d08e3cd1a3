//! Templates of a gateway's catalog: of a thousand of them what pages need is read, and each list of theirs to its bound.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::value::to_raw_value;

use crate::dashboard::listed::Listed;
use crate::domain::secret::Secret;
use crate::wire::admin::nullable;
use crate::wire::catalog::CredentialField;

/// Fields of one template that are read and asked for; gateways keep no more. A catalog of the largest size that has a thousand
/// templates of so many empty fields takes some 20 MiB once it is read.
pub(super) const MAX_FIELDS: usize = 64;

/// A template. What only goes back to the gateway is kept as the text it came as.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Offer {
    #[serde(deserialize_with = "nullable")]
    pub(super) key: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) label: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) description: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) connection_id: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) protocol: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) base_url: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) path_prefix: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) auth_mode: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) auth_header_name: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) auth_prefix: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) auth_secret_key: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) mcp_transport: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) mcp_endpoint: String,
    pub(super) mcp_tool_allowlist: Option<Box<RawValue>>,
    pub(super) mcp_tool_denylist: Option<Box<RawValue>>,
    pub(super) mcp_max_tools_exposed: Option<Box<RawValue>>,
    pub(super) mcp_subject_tool_policies: Option<Box<RawValue>>,
    #[serde(deserialize_with = "nullable")]
    pub(super) default_test_path: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) default_test_method: String,
    pub(super) default_test_headers: Option<Box<RawValue>>,
    pub(super) default_test_body: Option<Box<RawValue>>,
    #[serde(deserialize_with = "nullable")]
    pub(super) credential_fields: Listed<CredentialField, MAX_FIELDS>,
}

impl Offer {
    /// The members of a first test that the template has.
    pub(super) fn trial(&self) -> Members {
        let mut members = Members::default();
        members.put("method", &self.default_test_method);
        members.put("test_path", &self.default_test_path);
        members.carry("headers", self.default_test_headers.as_deref());
        members.carry("body", self.default_test_body.as_deref());
        members
    }

    /// The members of a connection that only a template of protocol `mcp` has.
    pub(super) fn carry_tools(&self, members: &mut Members) {
        members.text("mcp_transport", &self.mcp_transport);
        members.text("mcp_endpoint", &self.mcp_endpoint);
        members.carry("mcp_tool_allowlist", self.mcp_tool_allowlist.as_deref());
        members.carry("mcp_tool_denylist", self.mcp_tool_denylist.as_deref());
        members.carry("mcp_max_tools_exposed", self.mcp_max_tools_exposed.as_deref());
        members.carry("mcp_subject_tool_policies", self.mcp_subject_tool_policies.as_deref());
    }
}

/// The members of a body that is sent to a gateway.
#[derive(Default)]
pub(super) struct Members(BTreeMap<&'static str, Box<RawValue>>);

impl Members {
    /// A member of any kind.
    pub(super) fn put(&mut self, name: &'static str, value: &impl Serialize) {
        // Texts, numbers and maps of texts: writing them as JSON cannot fail.
        if let Ok(text) = to_raw_value(value) {
            self.0.insert(name, text);
        }
    }

    /// A text, left out where it is empty.
    pub(super) fn text(&mut self, name: &'static str, text: &str) {
        if !text.is_empty() {
            self.put(name, &text);
        }
    }

    /// A member as a gateway wrote it, where it did.
    pub(super) fn carry(&mut self, name: &'static str, value: Option<&RawValue>) {
        if let Some(value) = value {
            self.0.insert(name, value.to_owned());
        }
    }

    /// The body.
    pub(super) fn body(&self) -> Secret {
        Secret::new(serde_json::to_string(&self.0).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

    use serde_json::Value;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_template_says_of_tools_and_tests_goes_back_as_it_came() {
        let said = json!({"mcp_tool_allowlist": ["a"], "mcp_max_tools_exposed": 3, "mcp_endpoint": "/mcp",
            "mcp_subject_tool_policies": {"dana": {"denylist": ["b"]}}, "default_test_method": "POST",
            "default_test_path": "/x", "default_test_headers": {"x-a": "1"}, "default_test_body": {"n": [1.50, null]},
            "mcp_tool_denylist": null, "label": null});
        let offer: Offer = serde_json::from_str(&said.to_string()).unwrap();
        let read = |members: Members| serde_json::from_str::<Value>(members.body().expose()).unwrap();
        assert_eq!(
            read(offer.trial()),
            json!({"method": "POST", "test_path": "/x", "headers": {"x-a": "1"}, "body": {"n": [1.50, null]}})
        );
        let mut tools = Members::default();
        offer.carry_tools(&mut tools);
        let names = ["mcp_tool_allowlist", "mcp_max_tools_exposed", "mcp_endpoint", "mcp_subject_tool_policies"];
        let wanted: serde_json::Map<_, _> =
            names.iter().map(|name| ((*name).to_owned(), said[*name].clone())).collect();
        assert_eq!(read(tools), Value::Object(wanted));
    }

    #[test]
    fn of_many_fields_so_many_are_read_and_the_others_counted() {
        let said = json!({"credential_fields": vec![json!({}); 100]});
        let offer: Offer = serde_json::from_value(said).unwrap();
        assert_eq!((offer.credential_fields.shown.len(), offer.credential_fields.more), (MAX_FIELDS, 36));
    }
}

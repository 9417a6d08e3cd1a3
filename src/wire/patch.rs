//! JSON of a change to a connection.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Deserializer;

use crate::domain::connection::AuthMode;
use crate::domain::draft::Draft;
use crate::wire::admin::PolicyBody;
use crate::wire::admin::decode_policies;
use crate::wire::admin::is_disabled;
use crate::wire::admin::limit;

/// A member of a patch that only our gateway knows: absent = leave as it is, `null` = back to the default, a value = set.
type Change<T> = Option<Option<T>>;

fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Change<T>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// `PATCH /connections/{id}`. As in the seed, `null`, an empty text and, for `rotation_interval_days`, 0 leave a member as
/// it is: clients of the seed send all members, and `null` for those they do not mean. A value says what it should be:
/// `/` for no path, a number of days below 0 for no rotation, and `[]`, `{}` and 0 clear the tool policies. Members the seed
/// does not have (`allow_private` and what follows it) go back to their default with `null`.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[schema(as = ConnectionPatch)]
pub struct PatchBody {
    name: Option<String>,
    base_url: Option<String>,
    path_prefix: Option<String>,
    auth_mode: Option<String>,
    auth_header_name: Option<String>,
    auth_prefix: Option<String>,
    auth_secret_key: Option<String>,
    rotation_interval_days: Option<i64>,
    status: Option<String>,
    mcp_transport: Option<String>,
    mcp_endpoint: Option<String>,
    mcp_tool_allowlist: Option<Vec<String>>,
    mcp_tool_denylist: Option<Vec<String>>,
    mcp_max_tools_exposed: Option<u32>,
    mcp_subject_tool_policies: Option<BTreeMap<String, PolicyBody>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<bool>)]
    allow_private: Change<bool>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>)]
    allowed_methods: Change<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>)]
    allowed_paths: Change<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>)]
    upgrades: Change<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u64>)]
    response_timeout_ms: Change<u64>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u64>)]
    max_stream_seconds: Change<u64>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    extra_headers: Change<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<bool>)]
    allow_set_cookie: Change<bool>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<bool>)]
    forward_trace: Change<bool>,
}

impl PatchBody {
    /// Whether `status`, if given, is `active` or `disabled`.
    pub fn has_valid_status(&self) -> bool {
        self.status.iter().all(|status| is_disabled(status).is_some())
    }

    /// The draft with the patch applied. An invalid status changes nothing: see [`Self::has_valid_status`].
    #[must_use]
    pub fn apply(self, mut draft: Draft) -> Draft {
        // Another mode has another default prefix, and a parameter's name is none of a header; those given below win.
        if let Some(mode) = text(self.auth_mode)
            && mode != draft.auth_mode
        {
            let query = AuthMode::QueryParam.name();
            if mode == query || draft.auth_mode == query {
                draft.auth_header_name = None;
            }
            draft.auth_mode = mode;
            draft.auth_prefix = None;
        }
        set(&mut draft.name, text(self.name));
        set(&mut draft.base_url, text(self.base_url));
        set(&mut draft.path_prefix, text(self.path_prefix));
        if let Some(name) = text(self.auth_header_name) {
            draft.auth_header_name = Some(name);
        }
        if let Some(prefix) = text(self.auth_prefix) {
            draft.auth_prefix = Some(prefix);
        }
        set(&mut draft.auth_secret_key, text(self.auth_secret_key));
        // Below 0 is no rotation, as in the seed.
        set(
            &mut draft.rotation_interval_days,
            self.rotation_interval_days.filter(|days| *days != 0).map(|days| days.max(0)),
        );
        set(&mut draft.disabled, text(self.status).and_then(|status| is_disabled(&status)));
        set(&mut draft.mcp_transport, text(self.mcp_transport));
        set(&mut draft.mcp_endpoint, text(self.mcp_endpoint));
        set(&mut draft.mcp_policy.allow, self.mcp_tool_allowlist);
        set(&mut draft.mcp_policy.deny, self.mcp_tool_denylist);
        // 0 takes the limit away, as in the seed.
        set(&mut draft.mcp_policy.max_tools, self.mcp_max_tools_exposed.map(|most| limit(Some(most))));
        set(&mut draft.mcp_subjects, self.mcp_subject_tool_policies.map(decode_policies));
        set(&mut draft.allow_private, self.allow_private.map(Option::unwrap_or_default));
        set(&mut draft.allowed_methods, self.allowed_methods.map(Option::unwrap_or_default));
        set(&mut draft.allowed_paths, self.allowed_paths.map(Option::unwrap_or_default));
        set(&mut draft.upgrades, self.upgrades.map(Option::unwrap_or_default));
        set(&mut draft.response_timeout_ms, self.response_timeout_ms);
        set(&mut draft.max_stream_seconds, self.max_stream_seconds);
        set(&mut draft.extra_headers, self.extra_headers.map(Option::unwrap_or_default));
        set(&mut draft.allow_set_cookie, self.allow_set_cookie.map(Option::unwrap_or_default));
        set(&mut draft.forward_trace, self.forward_trace.map(Option::unwrap_or_default));
        draft
    }
}

/// A text member of a patch; `None` = leave as it is.
fn text(given: Option<String>) -> Option<String> {
    given.filter(|given| !given.is_empty())
}

fn set<T>(field: &mut T, change: Option<T>) {
    if let Some(value) = change {
        *field = value;
    }
}

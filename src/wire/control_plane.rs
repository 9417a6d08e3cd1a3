//! JSON between a gateway and the Sigilum API: the approved feed and its changes, claims, usage.
//!
//! Both ends are here, so that what we send is what we accept. Unknown members are ignored in both directions; what
//! the hosted API does not send is optional. Times are RFC 3339 text with milliseconds and `Z`.

use std::borrow::Cow;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;

/// Largest page of the approved feed that our API grants.
pub const MAX_PAGE: u32 = 2000;
/// Rows of the approved feed a gateway asks for at a time.
pub const FEED_PAGE: u32 = 500;
/// Header of each page of the feed: where in the history of this service's claims the answer stands, as
/// `<epoch>.<number>`. Only our API sends it; a stream of changes can be asked for from that of the first page, and pages
/// of which it is the same were cut from the same list.
pub const CURSOR_HEADER: &str = "sigilum-claims-cursor";
/// Header that says whose key a claim names: with `namespace-only` the signer registers another key of its namespace.
pub const BINDING_HEADER: &str = "x-sigilum-claim-binding";
/// The only value of [`BINDING_HEADER`].
pub const NAMESPACE_ONLY: &str = "namespace-only";
/// Path of the approved feed: `?limit=&offset=&service=`.
pub const FEED_PATH: &str = "/v1/namespaces/claims";
/// Path of the change stream of our API: `?after=<cursor>&service=`, `text/event-stream`.
pub const CHANGES_PATH: &str = "/v1/namespaces/claims/changes";
/// Path claims are submitted to.
pub const CLAIMS_PATH: &str = "/v1/claims";
/// Path usage events are sent to, one object each.
pub const USAGE_PATH: &str = "/v1/usage/events";
/// Path usage events are sent to many at a time; only our API has it, others answer 404.
pub const USAGE_BATCH_PATH: &str = "/v1/usage/events/batch";
/// Most events of one batch.
pub const MAX_BATCH: usize = 500;

/// One page of the approved feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FeedPage {
    /// Newest approval first.
    pub claims: Vec<FeedClaim>,
    /// Where the page stands.
    pub pagination: Pagination,
}

/// One approved claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FeedClaim {
    /// `cl_` and 24 hex digits.
    #[serde(default)]
    pub claim_id: String,
    /// The agent's namespace.
    pub namespace: String,
    /// `ed25519:` and base64 of 32 bytes.
    pub public_key: String,
    /// Slug of the service.
    #[serde(default)]
    pub service: String,
    /// Who the agent acts for.
    #[serde(default)]
    pub subject: Option<String>,
    /// Which agent of the namespace.
    #[serde(default)]
    pub agent_id: Option<String>,
    /// Its name for people.
    #[serde(default)]
    pub agent_name: Option<String>,
    /// When it was approved.
    #[serde(default)]
    pub approved_at: Option<String>,
    /// When the approval ends by itself; only our API sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// What a gateway reads of a [`FeedPage`], without copying it. Others' APIs write `null` for no claims, and say little of
/// where a page stands, or nothing.
#[derive(Debug, Deserialize)]
pub struct FeedRows<'a> {
    /// Newest approval first. It has to be there: a body without it is another answer and approves nobody.
    #[serde(borrow, deserialize_with = "present")]
    pub claims: Option<Vec<FeedRow<'a>>>,
    /// Where the page stands.
    #[serde(default)]
    pub pagination: Option<PageSaid>,
}

/// Reads a member that may be `null`, but not be absent.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

/// What a page says of where it stands, as far as it does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct PageSaid {
    /// Rows before this page.
    #[serde(default)]
    pub offset: Option<u64>,
    /// Rows in all.
    #[serde(default)]
    pub total: Option<u64>,
    /// Whether rows follow.
    #[serde(default)]
    pub has_more: Option<bool>,
}

/// What a gateway reads of a [`FeedClaim`]; what is missing is judged by the reader.
#[derive(Debug, Deserialize)]
pub struct FeedRow<'a> {
    /// The agent's namespace.
    #[serde(borrow, default)]
    pub namespace: Option<FeedText<'a>>,
    /// `ed25519:` and base64 of 32 bytes.
    #[serde(borrow, default)]
    pub public_key: Option<FeedText<'a>>,
    /// Slug of the service.
    #[serde(borrow, default)]
    pub service: Option<FeedText<'a>>,
    /// When the approval ends by itself.
    #[serde(borrow, default)]
    pub expires_at: Option<FeedText<'a>>,
}

/// Text of a [`FeedRow`], borrowed where it holds no escapes.
#[derive(Debug, Deserialize)]
pub struct FeedText<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// Position and size of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Pagination {
    /// Most rows of this page, as granted.
    pub limit: u64,
    /// Rows before this page.
    pub offset: u64,
    /// Rows in all.
    pub total: u64,
    /// Whether rows follow.
    pub has_more: bool,
}

/// Names of the server-sent events of the change stream; each event's `id` is the cursor it leads to.
pub mod change_event {
    /// Data: a [`super::FeedClaim`] that is approved now, or has another expiry.
    pub const APPROVED: &str = "approved";
    /// Data: a [`super::FeedClaim`] that is no longer approved, or was rejected and never will be.
    pub const ENDED: &str = "ended";
    /// No data: nothing else has happened up to here. Sent at once and every two seconds.
    pub const ALIVE: &str = "alive";
}

/// A claim as it is submitted. Members are sorted by name on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClaimSubmission {
    /// Which agent of the namespace; at most 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// The agent's address as the submitter saw it.
    pub agent_ip: String,
    /// Its name for people; at most 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_name: Option<String>,
    /// The agent's namespace.
    pub namespace: String,
    /// 8 to 256 characters, once per service.
    pub nonce: String,
    /// The agent's key.
    pub public_key: String,
    /// Slug of the service.
    pub service: String,
    /// Who it acts for; at most 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// Answer to a submission.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct ClaimAnswer {
    /// The claim, new or known.
    pub claim_id: String,
    /// `pending`, `approved`, `rejected`, `revoked` or `expired`.
    pub status: String,
    /// Slug of the service.
    pub service: String,
    /// For people.
    pub message: String,
}

/// Body of every error of the API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct ErrorBody {
    /// For people.
    pub error: String,
    /// For programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What exactly, by code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<serde_json::Value>,
}

/// One request an agent made through a gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UsageEvent {
    /// Unique; the same event sent again counts once.
    pub event_id: String,
    /// The agent's namespace.
    pub namespace: String,
    /// Slug of the service.
    pub service: String,
    /// The agent's key.
    pub public_key: String,
    /// Who it acted for.
    pub subject: String,
    /// Which agent of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// `http` or `mcp`.
    pub protocol: String,
    /// `proxy` or an MCP action; at most 64 characters.
    pub action: String,
    /// `success`, `error`, `forbidden` or `rate_limited`.
    pub outcome: String,
    /// 100 to 599.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// Milliseconds, at most 3,600,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// At most 100,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_bytes: Option<u64>,
    /// Upper case; at most 16 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_method: Option<String>,
    /// Without the query; at most 512 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_path: Option<String>,
    /// The agent's address; at most 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_ip: Option<String>,
    /// When the request began. Only our API knows it, so it is sent in batches alone; where it is absent, in the
    /// future or more than 30 days ago, the event is of the moment it is received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occurred_at: Option<String>,
}

/// Many events; at most [`MAX_BATCH`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UsageBatch {
    /// In the order they happened.
    pub events: Vec<UsageEvent>,
}

/// Answer to a batch. What is not listed as refused is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct UsageBatchAnswer {
    /// Events that are new.
    pub accepted: u64,
    /// Events that were known.
    pub duplicate: u64,
    /// Events that will never be accepted.
    pub refused: Vec<RefusedEvent>,
}

/// An event of a batch that will never be accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct RefusedEvent {
    /// Which.
    pub event_id: String,
    /// Why, for programs.
    pub code: String,
    /// Why, for people.
    pub error: String,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn a_page_of_the_hosted_api_is_read() {
        let text = r#"{"claims":[{"claim_id":"cl_1","namespace":"a-b","public_key":"ed25519:AA==","service":"s",
            "subject":null,"agent_id":"x","agent_name":null,"approved_at":"2026-01-01T00:00:00.000Z","new":1}],
            "pagination":{"limit":500,"offset":0,"total":1,"has_more":false}}"#;
        let page: FeedPage = serde_json::from_str(text).unwrap();
        assert_eq!(page.claims.first().unwrap().agent_id.as_deref(), Some("x"));
        assert_eq!(page.pagination.total, 1);
        let rows: FeedRows<'_> = serde_json::from_str(text).unwrap();
        let row = rows.claims.as_ref().unwrap().first().unwrap();
        let namespace = &row.namespace.as_ref().unwrap().0;
        assert!(matches!(namespace, Cow::Borrowed("a-b")) && row.expires_at.is_none());
    }

    #[test]
    fn a_submissions_members_are_sorted_and_absent_ones_left_out() {
        let submission = ClaimSubmission {
            agent_id: None,
            agent_ip: "127.0.0.1".to_owned(),
            agent_name: None,
            namespace: "acme".to_owned(),
            nonce: "n".to_owned(),
            public_key: "k".to_owned(),
            service: "s".to_owned(),
            subject: Some("alice".to_owned()),
        };
        let text = serde_json::to_string(&submission).unwrap();
        let expected = concat!(
            r#"{"agent_ip":"127.0.0.1","namespace":"acme","nonce":"n","public_key":"k","service":"s","#,
            r#""subject":"alice"}"#
        );
        assert_eq!(text, expected);
    }
}

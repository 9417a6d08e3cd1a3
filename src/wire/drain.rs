//! JSON of drains: the gateway takes no new requests while somebody holds a lease.

use serde::Deserialize;
use serde::Serialize;
use utoipa::ToSchema;

/// How long a lease holds where nobody says, and at most, in seconds.
pub const LEASE_SECONDS: u64 = 300;
/// See [`LEASE_SECONDS`].
pub const MOST_LEASE_SECONDS: u64 = 86_400;
/// How long an answer may be waited for, in seconds: less than a request to the API may take.
pub const MOST_WAIT_SECONDS: u64 = 15;

/// `POST /api/v1/drain`; an empty body means an empty object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DrainBody {
    /// How long to wait for requests in flight before the answer, in seconds, 0 to 15; they go on in any case.
    pub wait_seconds: u64,
    /// How long the lease holds, in seconds, 1 to 86400 [default: 300].
    pub lease_seconds: Option<u64>,
}

impl DrainBody {
    /// Seconds to wait, and seconds of the lease; the error is a sentence.
    pub fn into_seconds(self) -> Result<(u64, u64), String> {
        let lease = self.lease_seconds.unwrap_or(LEASE_SECONDS);
        if self.wait_seconds > MOST_WAIT_SECONDS {
            return Err(format!("waitSeconds: at most {MOST_WAIT_SECONDS}"));
        }
        if !(1..=MOST_LEASE_SECONDS).contains(&lease) {
            return Err(format!("leaseSeconds: 1 to {MOST_LEASE_SECONDS}"));
        }
        Ok((self.wait_seconds, lease))
    }
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseBody {
    /// Ends the drain: `DELETE /api/v1/drain/{leaseId}`.
    pub lease_id: String,
    /// When it ends by itself, in RFC 3339.
    pub expires_at: String,
    /// Requests in flight; absent where Envoy does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u64>,
}

/// `GET /api/v1/drain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainStatusBody {
    /// Whether new requests are refused.
    pub draining: bool,
    /// When the last lease ends, in RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// How many leases hold. Their ids are known to those who hold them.
    pub leases: usize,
    /// Requests in flight; absent where Envoy does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u64>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn seconds_have_defaults_and_bounds() {
        let read = |text: &str| serde_json::from_str::<DrainBody>(text).unwrap().into_seconds();
        assert_eq!(read("{}"), Ok((0, LEASE_SECONDS)));
        assert_eq!(read(r#"{"waitSeconds":15,"leaseSeconds":86400}"#), Ok((15, MOST_LEASE_SECONDS)));
        for bad in [r#"{"waitSeconds":16}"#, r#"{"leaseSeconds":0}"#, r#"{"leaseSeconds":86401}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<DrainBody>(r#"{"leaseSeconds":-1}"#).is_err());
    }
}

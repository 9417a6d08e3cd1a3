//! What an owner has decided in advance (`settings.policy`). Pure.
//!
//! A rule never trusts what a stranger chose. A service counts as trusted by its id, or by its slug where it belongs
//! to the namespace's own owner: any owner may have a service of any slug. An address counts where we saw it
//! ourselves (the agent signed and sent the request) or where a gateway of the namespace's own owner reports it;
//! what an agent says of its own address counts for nothing.

use std::net::IpAddr;

use serde_json::Value;

use crate::domain::network::Network;

/// Most entries of a list that are looked at.
pub const MAX_ENTRIES: usize = 256;

/// An owner's policy; what is not set has its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    auto_approve_trusted: bool,
    trusted_services: Vec<String>,
    auto_approve_ip: bool,
    trusted_ranges: Vec<Network>,
    /// Whether pending claims are limited in number.
    pub max_pending_limit: bool,
    /// Whether pending claims expire.
    pub auto_expire: bool,
}

/// What is known of a claim when it comes in.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Id of the service.
    pub service_id: &'a str,
    /// Its slug.
    pub slug: &'a str,
    /// Whether the service belongs to the namespace's owner.
    pub own_service: bool,
    /// The agent's address, where somebody vouches for it.
    pub address: Option<IpAddr>,
}

impl Policy {
    /// Reads `policy` out of an owner's settings; what cannot be read approves nothing.
    pub fn of(settings: &str) -> Self {
        let settings: Value = serde_json::from_str(settings).unwrap_or_default();
        let policy = settings.get("policy");
        let member = |name: &str| policy.and_then(|policy| policy.get(name));
        let flag = |name: &str, default: bool| member(name).and_then(Value::as_bool).unwrap_or(default);
        let list = |name: &str| -> Vec<String> {
            let entries = member(name).and_then(Value::as_array).into_iter().flatten();
            entries.filter_map(Value::as_str).take(MAX_ENTRIES).map(str::to_owned).collect()
        };
        Self {
            auto_approve_trusted: flag("autoApproveTrusted", false),
            trusted_services: list("trustedServices"),
            auto_approve_ip: flag("autoApproveIP", false),
            trusted_ranges: list("trustedIPRanges").iter().filter_map(|text| Network::parse(text)).collect(),
            max_pending_limit: flag("maxPendingLimit", true),
            auto_expire: flag("autoExpire", true),
        }
    }

    /// Whether a claim is approved without asking.
    pub fn approves(&self, facts: &Facts<'_>) -> bool {
        let named = |entry: &String| entry == facts.service_id || (facts.own_service && entry == facts.slug);
        let trusted = self.auto_approve_trusted && self.trusted_services.iter().any(named);
        let near = |address| self.trusted_ranges.iter().any(|range| range.contains(address));
        trusted || (self.auto_approve_ip && facts.address.is_some_and(near))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    fn facts(own: bool, address: Option<&str>) -> Facts<'static> {
        let address = address.map(|text| text.parse().unwrap());
        Facts { service_id: "svc_1", slug: "mail", own_service: own, address }
    }

    #[test]
    fn nothing_is_approved_by_default_or_by_nonsense() {
        for settings in ["{}", "", "null", "[]", r#"{"policy":7}"#, r#"{"policy":{"autoApproveTrusted":"yes"}}"#] {
            let policy = Policy::of(settings);
            assert!(!policy.approves(&facts(true, Some("127.0.0.1"))), "{settings}");
            assert!(policy.max_pending_limit && policy.auto_expire, "{settings}");
        }
    }

    #[test]
    fn a_slug_is_trusted_of_ones_own_service_only_an_id_of_any() {
        let slug = Policy::of(r#"{"policy":{"autoApproveTrusted":true,"trustedServices":["mail"]}}"#);
        assert!(slug.approves(&facts(true, None)) && !slug.approves(&facts(false, None)));
        let id = Policy::of(r#"{"policy":{"autoApproveTrusted":true,"trustedServices":["svc_1"]}}"#);
        assert!(id.approves(&facts(true, None)) && id.approves(&facts(false, None)));
        let off = Policy::of(r#"{"policy":{"trustedServices":["svc_1"]}}"#);
        assert!(!off.approves(&facts(true, None)));
    }

    #[test]
    fn an_address_counts_only_where_somebody_vouches_for_it() {
        let policy = Policy::of(r#"{"policy":{"autoApproveIP":true,"trustedIPRanges":["192.0.2.0/24","x"]}}"#);
        assert!(policy.approves(&facts(false, Some("192.0.2.77"))));
        assert!(policy.approves(&facts(false, Some("::ffff:192.0.2.77"))));
        assert!(!policy.approves(&facts(true, Some("192.0.3.77"))));
        assert!(!policy.approves(&facts(true, None)));
    }
}

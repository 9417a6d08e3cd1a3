//! JSON of the health paths: liveness, readiness, and the conditions readiness is made of.

use serde::Deserialize;
use serde::Serialize;
use utoipa::ToSchema;

use crate::wire::envelope::ErrorBody;

/// Version of the contract of [`DetailsBody`]: members are added, never renamed.
pub const CONTRACT_VERSION: u32 = 1;
/// The reason of `AuthzReachable` while somebody holds a lease of a drain; its message then begins with `draining until`.
pub const DRAINING: &str = "Draining";
/// The code of readiness where such a lease is all that keeps the gateway from being ready.
pub const GATEWAY_DRAINING: &str = "GATEWAY_DRAINING";

/// What a condition is about. The names are what programs read, so they stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionKind {
    /// This process alone holds the data folder.
    StateLock,
    /// The store answers.
    Store,
    /// The master key opens the store.
    MasterKey,
    /// The secrets of the configuration file are resolved.
    SecretsSnapshot,
    /// Envoy is live.
    EnvoyLive,
    /// authz has applied what was published, and Envoy what it was given.
    XdsInSync,
    /// An unsigned request is refused through Envoy.
    AuthzReachable,
    /// Admissions to the replay window can be written down, and there is room.
    NonceStore,
    /// Every authz that decides for the same connection has one replay window.
    ReplayShared,
    /// The approvals of every service were confirmed lately.
    ClaimsFresh,
    /// The Sigilum API answers.
    ApiReachable,
    /// The clock agrees with the API's.
    ClockSane,
    /// There is room in the data folder.
    DiskSpace,
    /// The bridge of a pairing is connected.
    PairBridge,
    /// The certificate agents are shown is that of its file.
    IngressCertificate,
    /// The certificates that authz processes of other hosts show hold for long enough.
    StateCertificates,
    /// The authz processes of other hosts tell of no trouble.
    RemoteAuthz,
}

impl ConditionKind {
    /// All of them, in the order they are told.
    pub const ALL: [Self; 17] = [
        Self::StateLock,
        Self::Store,
        Self::MasterKey,
        Self::SecretsSnapshot,
        Self::EnvoyLive,
        Self::XdsInSync,
        Self::AuthzReachable,
        Self::NonceStore,
        Self::ReplayShared,
        Self::ClaimsFresh,
        Self::ApiReachable,
        Self::ClockSane,
        Self::DiskSpace,
        Self::PairBridge,
        Self::IngressCertificate,
        Self::StateCertificates,
        Self::RemoteAuthz,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StateLock => "StateLock",
            Self::Store => "Store",
            Self::MasterKey => "MasterKey",
            Self::SecretsSnapshot => "SecretsSnapshot",
            Self::EnvoyLive => "EnvoyLive",
            Self::XdsInSync => "XdsInSync",
            Self::AuthzReachable => "AuthzReachable",
            Self::NonceStore => "NonceStore",
            Self::ReplayShared => "ReplayShared",
            Self::ClaimsFresh => "ClaimsFresh",
            Self::ApiReachable => "ApiReachable",
            Self::ClockSane => "ClockSane",
            Self::DiskSpace => "DiskSpace",
            Self::PairBridge => "PairBridge",
            Self::IngressCertificate => "IngressCertificate",
            Self::StateCertificates => "StateCertificates",
            Self::RemoteAuthz => "RemoteAuthz",
        }
    }

    /// The finding of `sigilum doctor` that explains it.
    pub const fn finding(self) -> &'static str {
        match self {
            Self::StateLock => "gateway/lock",
            Self::Store => "store/open",
            Self::MasterKey => "store/master-key",
            Self::SecretsSnapshot => "secrets/snapshot",
            Self::EnvoyLive => "envoy/live",
            Self::XdsInSync => "envoy/xds",
            Self::AuthzReachable => "authz/fail-closed",
            Self::NonceStore => "authz/nonce-store",
            Self::ReplayShared => "authz/replay-shared",
            Self::ClaimsFresh => "claims/fresh",
            Self::ApiReachable => "api/reachable",
            Self::ClockSane => "host/clock",
            Self::DiskSpace => "host/disk",
            Self::PairBridge => "pair/bridge",
            Self::IngressCertificate => "ingress/certificate",
            Self::StateCertificates => "authz/certificates",
            Self::RemoteAuthz => "authz/remote",
        }
    }
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ConditionStatus)]
pub enum Status {
    /// It does.
    True,
    /// It does not.
    False,
    /// Nobody can say: what would have to be asked is not there, or is elsewhere.
    Unknown,
}

/// What a condition that does not hold means for readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ConditionRequirement)]
pub enum Requirement {
    /// The gateway is not ready.
    Required,
    /// An operator should know; requests are answered.
    Advisory,
}

/// One condition of readiness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Condition)]
pub struct ConditionBody {
    /// What it is about: `StateLock`, `Store`, `MasterKey`, `SecretsSnapshot`, `EnvoyLive`, `XdsInSync`,
    /// `AuthzReachable`, `NonceStore`, `ReplayShared`, `ClaimsFresh`, `ApiReachable`, `ClockSane`, `DiskSpace`, `PairBridge`,
    /// `IngressCertificate`, `StateCertificates` or `RemoteAuthz`. A reader passes over those it does not know.
    #[serde(rename = "type")]
    #[schema(example = "EnvoyLive")]
    pub kind: String,
    /// Which part of the gateway: `store`, `envoy`, `authz`, …
    pub subject_ref: String,
    /// Whether it holds.
    pub status: Status,
    /// What it means where it does not.
    pub requirement: Requirement,
    /// One word for programs, e.g. `Crashed`.
    #[schema(example = "Live")]
    pub reason: String,
    /// For people; holds no secret.
    pub message: String,
}

impl ConditionBody {
    /// Whether it keeps the gateway from being ready. What is unknown keeps nobody from it.
    pub fn is_failure(&self) -> bool {
        self.status == Status::False && self.requirement == Requirement::Required
    }

    /// Whether it is something an operator should know although requests are answered.
    pub fn is_advisory(&self) -> bool {
        self.status == Status::False && self.requirement == Requirement::Advisory
    }
}

/// `GET /health` and `/health/live`, members sorted: the process answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Health)]
pub struct HealthBody {
    /// `health` or `liveness`.
    pub check: String,
    /// `true`.
    pub ok: bool,
    /// `ok`.
    pub status: String,
}

/// `GET /health/ready` where it is, members sorted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Readiness)]
pub struct ReadyBody {
    /// `readiness`.
    pub check: String,
    /// `true`.
    pub ok: bool,
    /// `true`.
    pub ready: bool,
    /// `ok`.
    pub status: String,
    /// Only for those who present the admin token.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub details: Option<DetailsBody>,
}

/// `GET /health/ready` where it is not.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NotReady)]
pub struct NotReadyBody {
    /// As every error.
    #[serde(flatten)]
    pub error: ErrorBody,
    /// `false`.
    pub ok: bool,
    /// `false`.
    pub ready: bool,
    /// Only for those who present the admin token.
    #[serde(flatten)]
    pub details: Option<DetailsBody>,
}

/// `?fresh`.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReadyQuery {
    /// Look at everything anew before answering, which takes a few seconds at most: `true`, `1` or no value. Only with the
    /// admin token.
    pub fresh: Option<String>,
}

impl ReadyQuery {
    /// Whether that was asked for.
    pub fn is_fresh(&self) -> bool {
        matches!(self.fresh.as_deref(), Some("" | "true" | "1"))
    }
}

/// What readiness is made of. It stands beside the members of [`ReadyBody`], and beside those of an error where the gateway
/// is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReadinessDetails)]
pub struct DetailsBody {
    /// 1; rises when a member changes its meaning.
    pub contract_version: u32,
    /// When this was found out (RFC 3339).
    pub evaluated_at: String,
    /// How long the admin process has been running, in milliseconds.
    pub uptime_ms: u64,
    /// Every condition that means something here, in a fixed order.
    pub conditions: Vec<ConditionBody>,
    /// Types of those that keep the gateway from being ready.
    pub failures: Vec<String>,
    /// Types of those an operator should know of.
    pub advisories: Vec<String>,
}

impl DetailsBody {
    /// From the conditions. A type that fails for two subjects is listed once.
    pub fn of(conditions: Vec<ConditionBody>, evaluated_at: String, uptime_ms: u64) -> Self {
        let named = |wanted: fn(&ConditionBody) -> bool| {
            let mut names: Vec<String> = Vec::new();
            for condition in conditions.iter().filter(|condition| wanted(condition)) {
                if !names.contains(&condition.kind) {
                    names.push(condition.kind.clone());
                }
            }
            names
        };
        let (failures, advisories) = (named(ConditionBody::is_failure), named(ConditionBody::is_advisory));
        Self { contract_version: CONTRACT_VERSION, evaluated_at, uptime_ms, conditions, failures, advisories }
    }

    /// Whether the gateway is ready.
    pub const fn is_ready(&self) -> bool {
        self.failures.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use serde_json::json;

    use super::*;

    fn condition(kind: ConditionKind, status: Status, requirement: Requirement) -> ConditionBody {
        ConditionBody {
            kind: kind.name().to_owned(),
            subject_ref: "envoy".to_owned(),
            status,
            requirement,
            reason: "Crashed".to_owned(),
            message: "m".to_owned(),
        }
    }

    #[test]
    fn only_what_is_required_and_false_makes_unready() {
        let details = |conditions| DetailsBody::of(conditions, String::new(), 0);
        let all = vec![
            condition(ConditionKind::EnvoyLive, Status::Unknown, Requirement::Required),
            condition(ConditionKind::DiskSpace, Status::False, Requirement::Advisory),
            condition(ConditionKind::Store, Status::True, Requirement::Required),
        ];
        let ready = details(all.clone());
        assert!(ready.is_ready() && ready.advisories == ["DiskSpace"], "{ready:?}");
        let one = condition(ConditionKind::XdsInSync, Status::False, Requirement::Required);
        let broken = details([all, vec![one.clone(), one]].concat());
        assert_eq!((broken.is_ready(), broken.failures), (false, vec!["XdsInSync".to_owned()]));
    }

    #[test]
    fn details_stand_beside_the_members_of_readiness() {
        let one = condition(ConditionKind::EnvoyLive, Status::True, Requirement::Required);
        let details = Some(DetailsBody::of(vec![one], "2026-01-01T00:00:00Z".to_owned(), 7));
        let whole =
            ReadyBody { check: "readiness".to_owned(), ok: true, ready: true, status: "ok".to_owned(), details };
        let written = serde_json::to_value(&whole).unwrap();
        assert_eq!(
            written,
            json!({
                "check": "readiness", "ok": true, "ready": true, "status": "ok",
                "contractVersion": 1, "evaluatedAt": "2026-01-01T00:00:00Z", "uptimeMs": 7,
                "conditions": [{
                    "type": "EnvoyLive", "subjectRef": "envoy", "status": "True", "requirement": "required",
                    "reason": "Crashed", "message": "m",
                }],
                "failures": [], "advisories": [],
            })
        );
        assert_eq!(serde_json::from_value::<ReadyBody>(written).unwrap(), whole);
        let stranger = json!({"check": "readiness", "ok": true, "ready": true, "status": "ok"});
        assert_eq!(serde_json::from_value::<ReadyBody>(stranger).unwrap().details, None);
    }

    #[test]
    fn names_and_findings_are_one_each() {
        let mut names: Vec<_> = ConditionKind::ALL.iter().map(|kind| kind.name()).collect();
        let mut findings: Vec<_> = ConditionKind::ALL.iter().map(|kind| kind.finding()).collect();
        names.sort_unstable();
        names.dedup();
        findings.sort_unstable();
        findings.dedup();
        assert_eq!((names.len(), findings.len()), (ConditionKind::ALL.len(), ConditionKind::ALL.len()));
    }
}

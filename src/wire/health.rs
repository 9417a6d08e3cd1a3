//! JSON of the health paths.

use serde::Serialize;

/// `GET /health`, members sorted.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Health)]
pub struct HealthBody {
    /// `health`, `liveness` or `readiness`.
    pub check: &'static str,
    /// `ok`.
    pub status: &'static str,
    /// What an operator should know although requests are answered; only readiness says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<ConditionBody>>,
}

/// One condition of readiness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = Condition)]
pub struct ConditionBody {
    /// `ClaimsFresh`, `XdsInSync`, `IngressCertificate` or `SecretsSnapshot`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `True` or `False`.
    pub status: &'static str,
    /// One word for programs.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

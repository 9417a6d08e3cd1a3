//! The state stream's messages (`proto/sigilum/gateway/v1/state.proto`) and their domain twins.

/// Generated from our proto file.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::wildcard_enum_match_arm,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod proto {
    tonic::include_proto!("sigilum.gateway.v1");
}

//! One file per counterparty: decode to domain, encode from it. Pure, like `domain`.

pub mod admin;
pub mod agents;
pub mod answer;
pub mod audit;
pub mod catalog;
pub mod control_plane;
pub mod envelope;
pub mod envoy;
pub mod health;
pub mod legacy;
pub mod markdown;
pub mod member;
pub mod otlp;
pub mod pairing;
pub mod patch;
pub mod probe;
pub mod refusals;
pub mod registration;
pub mod reload;
pub mod sealing_key;
pub mod service_key;
pub mod state;
pub mod status;
pub mod upkeep;
pub mod variables;

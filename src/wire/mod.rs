//! One file per counterparty: decode to domain, encode from it. Pure, like `domain`.

pub mod admin;
pub mod envelope;
pub mod state;

//! The local control plane, `sigilum api`: namespaces, services and their keys, claims, the approved feed, usage,
//! pairing.
//!
//! Owns its own SQLite file and the HTTP face on :8787, wire-compatible with the hosted API. Promises: one owner
//! never sees or changes what is another's, every refusal has a status and a code, and bad input is never a 500.
//! Never holds a provider's credential.

pub mod account;
pub mod changes;
pub mod claims;
pub mod cors;
pub mod db;
pub mod decide;
pub mod did;
pub mod did_document;
pub mod feed;
pub mod health;
pub mod input;
pub mod jwt_secret;
pub mod ledger;
pub mod limits;
pub mod migrate;
pub mod moment;
pub mod namespace_claims;
pub mod namespaces;
pub mod nonces;
pub mod openapi;
pub mod owner;
pub mod pairing;
pub mod policy;
pub mod problem;
pub mod router;
pub mod seed;
pub mod service_key;
pub mod service_keys;
pub mod services;
pub mod settings;
pub mod signed;
pub mod text;
pub mod token;
pub mod unsupported;
pub mod upkeep;
pub mod usage_chart;
pub mod usage_events;
pub mod usage_summary;
pub mod users;
pub mod verify;

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::api::cors::Origins;
use crate::api::db::Db;
use crate::api::limits::Limits;
use crate::api::limits::Strangers;
use crate::api::limits::Streams;
use crate::api::pairing::Pairings;
use crate::api::service_key::KeyUses;
use crate::domain::secret::Secret;
use crate::sys::clock::SystemClock;
use crate::sys::tasks::Stop;

/// What every handler works with.
#[derive(Debug)]
pub struct Api {
    /// The database.
    pub db: Db,
    /// Signs and verifies owner tokens.
    pub jwt_secret: Secret,
    /// Settings that bound things.
    pub limits: Limits,
    /// Web origins whose pages may call.
    pub origins: Origins,
    /// Where the API is reached besides loopback, e.g. `https://api.example.com`: origins without a path.
    pub public_urls: Vec<String>,
    /// `local`, `test` or something else.
    pub environment: String,
    /// Opens the test seed, where that is enabled.
    pub seed_token: Option<Secret>,
    /// What callers without a service key may cost.
    pub strangers: Strangers,
    /// When which service key was last used, until that is written down.
    pub key_uses: KeyUses,
    /// Room for large request bodies.
    pub large_bodies: Semaphore,
    /// Room for change streams.
    pub streams: Streams,
    /// Pair sessions and the bridges that have joined them.
    pub pairings: Arc<Pairings>,
    /// The stop of the process, for answers that would go on for ever.
    pub stop: Stop,
    /// Time.
    pub clock: SystemClock,
}

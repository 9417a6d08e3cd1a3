//! The local control plane, `sigilum api`: namespaces, services and their keys, claims, the approved feed, usage.
//!
//! Owns its own SQLite file and the HTTP face on :8787, wire-compatible with the hosted API. Promises: one owner
//! never sees or changes what is another's, every refusal has a status and a code, and bad input is never a 500.
//! Never holds a provider's credential.

pub mod cors;
pub mod did_document;
pub mod token;

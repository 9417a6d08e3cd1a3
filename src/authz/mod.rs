//! Envoy ext_authz v3 over gRPC: decode, ask the gate, admit, encode.
//!
//! Owns the replay window with its journal, the registrations of refused callers, the spans of traces on their way out, and the
//! one answer per check. Promises that a denial is an answer and never a gRPC error, that nothing is allowed before its
//! admission is written down, and that every process that cannot decide refuses. Never opens the store, and calls
//! nobody but admin and, where the settings name them, a collector of traces and the store of a replay window that
//! replicas share.

mod admission;
mod health;
mod journal;
mod journal_header;
mod registrations;
mod server;
mod service;
mod shared;
mod traces;

pub use admission::Admissions;
pub use health::CERTIFICATE;
pub use health::Certificate;
pub use health::NOT_READY;
pub use journal::Failing;
pub use journal::Found;
pub use journal::Journal;
pub use journal::JournalError;
pub use journal::Preread;
pub use journal_header::Behind;
pub use registrations::Registrar;
pub use registrations::Registrations;
pub use server::FED;
pub use server::Server;
pub use service::Authz;
pub use service::Told;
pub use service::report_of_none;
pub use shared::SharedWindow;
pub use traces::Exporter;
pub use traces::Traces;

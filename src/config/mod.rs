//! Strings to a valid `Config`; every mistake reported at once, with its place.
//!
//! Pure: the environment comes in as a lookup, the file as text. Precedence: option, environment, file,
//! default. Every setting is declared once, in [`keys`].

pub(crate) mod access;
pub mod address;
pub mod admin_keys;
pub mod api;
pub mod bind;
pub mod compare;
pub mod declaration;
pub mod defaults;
pub mod dotenv;
pub mod explain;
pub mod fleet;
pub mod fleet_keys;
pub mod form;
pub mod guard;
pub mod ingress_keys;
pub mod key;
pub mod keys;
pub mod load;
pub mod mistake;
pub mod parts;
pub mod profile;
pub mod run_folder;
pub mod schema;
pub mod structure;
pub mod telemetry;
pub mod telemetry_keys;

mod auth;
mod declared;
mod encode;
mod file;
mod file_keys;
mod loader;
mod log_keys;
pub mod remote;
mod syntax;

pub use bind::Machine;
pub use explain::explain;
pub use load::Flags;
pub use load::Sources;
pub use load::load;
pub use load::locate;
pub use loader::default_data_dir;
pub use mistake::Mistakes;
pub use parts::Config;
pub use schema::schema;
pub use syntax::MAX_FILE_BYTES;

#[cfg(test)]
mod declared_tests;

#[cfg(test)]
mod whole_tests;

//! The hidden command through which the supervisor starts Envoy: it ties Envoy's life to its own.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::sys::supervision;

/// What becomes of this process.
#[derive(Debug, Clone, Args)]
pub struct ExecEnvoyArgs {
    /// The supervisor's process id
    parent: u32,
    /// The program
    program: PathBuf,
    /// Its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Becomes Envoy, or says why not.
pub(crate) fn run(args: &ExecEnvoyArgs) -> CliError {
    let error = supervision::exec_with_parent(args.parent, &args.program, &args.arguments);
    CliError::new(Outcome::Failed, format!("{} could not be started: {error}", args.program.display()))
}

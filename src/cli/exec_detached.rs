//! The hidden command through which something is started that outlives the command that starts it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::sys::supervision;

/// What becomes of this process.
#[derive(Debug, Clone, Args)]
pub struct ExecDetachedArgs {
    /// The program
    program: PathBuf,
    /// Its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Becomes the program, or says why not.
pub(crate) fn run(args: &ExecDetachedArgs) -> CliError {
    let error = supervision::exec_detached(&args.program, &args.arguments);
    CliError::new(Outcome::Failed, format!("{} could not be started: {error}", args.program.display()))
}

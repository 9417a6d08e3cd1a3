//! Where the provider's secret comes from: environment, file, standard input; an argument only with a warning.

use std::path::PathBuf;

use clap::Args;

use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::secret_source::Place;
use crate::domain::secret::Secret;

/// At most one of them.
#[derive(Debug, Clone, Default, Args)]
#[group(id = "upstream_secret_source", multiple = false)]
pub(super) struct SecretSource {
    /// Environment variable that holds the provider's secret
    #[arg(long, value_name = "VARIABLE")]
    upstream_secret_env: Option<String>,
    /// File that holds it; line ends are no part of it
    #[arg(long, value_name = "FILE")]
    upstream_secret_file: Option<PathBuf>,
    /// Read it from standard input; line ends are no part of it
    #[arg(long)]
    upstream_secret_stdin: bool,
    /// The secret itself; visible to every process of this machine
    #[arg(long, value_name = "SECRET", hide = true)]
    upstream_secret: Option<String>,
}

impl SecretSource {
    /// Whether one is named.
    pub(super) fn is_named(&self) -> bool {
        self.upstream_secret_env.is_some()
            || self.upstream_secret_file.is_some()
            || self.upstream_secret_stdin
            || self.upstream_secret.is_some()
    }

    /// The secret; `None` where no source is named.
    pub(super) fn read(&self, printer: &mut Printer) -> Result<Option<Secret>, CliError> {
        let place = if let Some(name) = &self.upstream_secret_env {
            Place::Variable(name)
        } else if let Some(file) = &self.upstream_secret_file {
            Place::File(file)
        } else if self.upstream_secret_stdin {
            Place::Stdin
        } else if let Some(secret) = &self.upstream_secret {
            printer
                .warn("every process of this machine can read arguments; use --upstream-secret-env, -file or -stdin");
            return match secret.trim() {
                "" => Err(CliError::new(Outcome::Failed, "there is no secret in --upstream-secret")),
                secret => Ok(Some(Secret::new(secret.to_owned()))),
            };
        } else {
            return Ok(None);
        };
        place.read("the secret", printer).map(Some)
    }
}

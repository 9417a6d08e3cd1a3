//! Where the provider's secret comes from: environment, file, standard input; an argument only with a warning.

use std::path::PathBuf;

use clap::Args;
use zeroize::Zeroizing;

use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::printer::Printer;
use crate::domain::secret::Secret;
use crate::sys::env;
use crate::sys::files;

/// Longest secret, in bytes: the admin API takes no longer ones.
const MAX_BYTES: u64 = 16 * 1024;

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
        let failed = |message: String| CliError::new(Outcome::Failed, message);
        let (text, place) = if let Some(name) = &self.upstream_secret_env {
            let value = env::lookup(name).map(Zeroizing::new);
            (value.ok_or_else(|| failed(format!("the variable {name} is not set")))?, name.clone())
        } else if let Some(file) = &self.upstream_secret_file {
            let place = file.display().to_string();
            let text = files::read_text(file, MAX_BYTES).map_err(|error| failed(format!("{place}: {error}")))?;
            (Zeroizing::new(text), place)
        } else if self.upstream_secret_stdin {
            (owner::read_stdin("the secret", MAX_BYTES, printer)?, "standard input".to_owned())
        } else if let Some(secret) = &self.upstream_secret {
            printer
                .warn("every process of this machine can read arguments; use --upstream-secret-env, -file or -stdin");
            (Zeroizing::new(secret.clone()), "--upstream-secret".to_owned())
        } else {
            return Ok(None);
        };
        let secret = text.trim();
        if secret.is_empty() {
            return Err(failed(format!("there is no secret in {place}")));
        }
        Ok(Some(Secret::new(secret.to_owned())))
    }
}

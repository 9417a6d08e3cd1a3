//! `gateway backup` and `gateway restore`: the whole store as one file, proven before it is called done.

use std::path::PathBuf;

use clap::Args;

use crate::app::backup_target::Target;
use crate::app::backup_target::TargetError;
use crate::app::upkeep;
use crate::app::upkeep::BackupError;
use crate::app::upkeep::Offline;
use crate::app::upkeep::StoreError;
use crate::cli::args::Globals;
use crate::cli::gateway::master_key;
use crate::cli::gateway::role;
use crate::cli::gateway::store;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::profile;
use crate::cli::secret_source::Place;
use crate::config::Config;

/// Options of `gateway backup`.
#[derive(Debug, Clone, Args)]
pub(crate) struct BackupArgs {
    /// The backup's file: a new name, or an earlier backup's, which is replaced when the new one is whole
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Configuration file [default: <home>/gateway.yaml, where it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Options of `gateway restore`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RestoreArgs {
    /// What `gateway backup` made
    #[arg(value_name = "FILE")]
    from: PathBuf,
    /// The master key the backup was sealed with, where it is not the gateway's
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The same from standard input
    #[arg(long, conflicts_with = "key_file")]
    key_stdin: bool,
    /// Configuration file [default: <home>/gateway.yaml, where it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Writes a backup.
pub(crate) async fn backup(args: &BackupArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    role::harden()?;
    let mut config = store::load(globals, args.config.as_deref())?;
    let keys = master_key::keys(&mut config);
    let shown = args.output.display();
    if args.output.file_name().is_none() || args.output.is_dir() {
        return Err(CliError::new(Outcome::Usage, format!("{shown} is a folder; give the name of a file")));
    }
    let target = Target::check(&args.output, &config.paths).map_err(|error| refused(&error))?;
    match Offline::open(&config.paths.data_dir, &keys, "backup") {
        Ok(mut open) => {
            let found = open.backup(&target).map_err(|error| failed(&error, &config, ""))?;
            let secrets = found.secrets;
            printer.ok(&format!("{shown}: {} connections; all {secrets} sets of secrets open", found.connections))?;
        }
        Err(StoreError::Locked(held)) => {
            let api = gateway_api::store(&config, printer)?;
            let size = api.backup(&target).await.map_err(|error| failed(&error, &config, &held.to_string()))?;
            printer.ok(&format!("{shown}: {size} bytes; the gateway opened every secret in it"))?;
        }
        Err(error) => return Err(store::failed(&error, &config)),
    }
    let key = if config_names_key(&keys) {
        "the one GATEWAY_MASTER_KEY names".to_owned()
    } else {
        master_key::file(&config).display().to_string()
    };
    printer.note(&format!(
        "not in it: the master key ({key}), without which it opens nothing. Keep that apart, and gateway.yaml and the \
         identities in {} with either",
        config.paths.home.display()
    ));
    Ok(Outcome::Done)
}

/// Puts a backup in the place of the store.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other error is said as for all commands")]
pub(crate) fn restore(args: &RestoreArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    role::harden()?;
    let mut config = store::load(globals, args.config.as_deref())?;
    let keys = master_key::keys(&mut config);
    let other = match &args.key_file {
        Some(file) => Some(Place::File(file).read("the backup's master key", printer)?),
        None if args.key_stdin => Some(Place::Stdin.read("the backup's master key", printer)?),
        None => None,
    };
    let given = other.is_some();
    let done = upkeep::restore(&config.paths.data_dir, &args.from, &keys, other).map_err(|error| match error {
        StoreError::Locked(held) => CliError::new(Outcome::Config, format!("{held}; nothing was changed"))
            .hint(format!("stop the gateway first: `{}`", profile::command("down"))),
        StoreError::WrongMasterKey { .. } if !given => CliError::new(Outcome::Config, error.to_string()).hint(
            "give the key it was sealed with: --key-file FILE or --key-stdin; it is wrapped for the gateway's own then",
        ),
        StoreError::Unreadable(_) => CliError::new(Outcome::Config, format!("{}: {error}", args.from.display())),
        other => store::failed(&other, &config),
    })?;
    for name in &done.checked.lost {
        printer.warn(&format!("{name}: its values were lost with a master key and must be given again"));
    }
    printer.ok(&format!(
        "{} is the store now: {} connections, {} variables",
        args.from.display(),
        done.checked.connections,
        done.checked.variables
    ))?;
    if done.wrapped {
        printer.note("it was sealed with another master key and opens with the gateway's now");
    }
    if let Some(file) = &done.key_file {
        printer.note(&format!("the gateway had no master key: the backup's is in {} now", file.display()));
    }
    if let Some(kept) = &done.kept {
        printer.note(&format!(
            "the store that was there: {}; it stays until you delete it, and it can be restored too",
            kept.display()
        ));
    }
    Ok(Outcome::Done)
}

fn config_names_key(keys: &upkeep::MasterKeys) -> bool {
    keys.place().is_given()
}

fn refused(error: &TargetError) -> CliError {
    CliError::new(Outcome::Usage, error.to_string())
        .hint("give the name of a new file, or of an earlier backup outside of the gateway's folders")
}

fn failed(error: &BackupError, config: &Config, held: &str) -> CliError {
    match error {
        BackupError::Store(error) => store::failed(error, config),
        BackupError::Api(error) => store::api_failed(error, held),
        BackupError::Target(error) => refused(error),
        BackupError::Io { .. } | BackupError::Torn => CliError::new(Outcome::Failed, error.to_string()),
    }
}

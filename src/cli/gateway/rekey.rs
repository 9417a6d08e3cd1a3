//! `gateway rekey`: another master key, a look whether everything opens, and a start over where the key is lost. Online
//! through the admin process that holds the store, else by taking its lock.

use std::path::PathBuf;

use clap::Args;

use crate::app::upkeep;
use crate::app::upkeep::CheckAnswer;
use crate::app::upkeep::KeyFileError;
use crate::app::upkeep::MasterKeys;
use crate::app::upkeep::Offline;
use crate::app::upkeep::RekeyAnswer;
use crate::app::upkeep::StoreError;
use crate::cli::args::Globals;
use crate::cli::confirm;
use crate::cli::gateway::master_key;
use crate::cli::gateway::role;
use crate::cli::gateway::store;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::secret_source::Place;
use crate::config::Config;
use crate::domain::secret::Secret;

/// Options of `gateway rekey`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RekeyArgs {
    /// Take the new key from a file: 64 hex digits, or a passphrase [default: a random key]
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    new_key_file: Option<PathBuf>,
    /// Take the new key from standard input
    #[arg(long, conflicts_with_all = ["check", "new_key_file"])]
    new_key_stdin: bool,
    /// Change nothing: open every sealed value once and say what does not open
    #[arg(long, conflicts_with = "lost_master_key")]
    check: bool,
    /// The key is lost for good: keep all settings, give up every secret, begin with a new key
    #[arg(long)]
    lost_master_key: bool,
    /// Do not ask before secrets are given up
    #[arg(long, requires = "lost_master_key")]
    yes: bool,
    /// Configuration file [default: <home>/gateway.yaml, where it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Changes the key, or looks, or starts over.
pub(crate) async fn run(args: &RekeyArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    // Keys pass through this process.
    role::harden()?;
    let mut config = store::load(globals, args.config.as_deref())?;
    let keys = master_key::keys(&mut config);
    if args.check {
        return check(&config, &keys, printer).await;
    }
    let new = match &args.new_key_file {
        Some(file) => Some(Place::File(file).read("the new master key", printer)?),
        None if args.new_key_stdin => Some(Place::Stdin.read("the new master key", printer)?),
        None => None,
    };
    if args.lost_master_key {
        return start_over(&config, &keys, new, args.yes, printer);
    }
    let folder = &config.paths.data_dir;
    let done = match Offline::open(folder, &keys, "rekey") {
        Ok(mut store) => store.rekey(new).map_err(|error| failed(&error, &config))?.into(),
        Err(StoreError::Locked(held)) => online(&config, &keys, new, &held.to_string(), printer).await?,
        Err(error) => return Err(failed(&error, &config)),
    };
    report(&done, printer)
}

/// Lets the admin process do it, which reads the new key from the file where a start would look for it too.
async fn online(
    config: &Config,
    keys: &MasterKeys,
    new: Option<Secret>,
    held: &str,
    printer: &mut Printer,
) -> Result<RekeyAnswer, CliError> {
    let place = keys.place();
    let mut written = false;
    if let Some(new) = &new {
        match place.read_next().map_err(|error| key_failed(&error))? {
            Some(other) if other != *new => {
                let next = place.next().unwrap_or_default();
                let message =
                    format!("{} holds another key: a change of the master key is not finished", next.display());
                return Err(CliError::new(Outcome::Config, message).hint(
                    "finish it with `sigilum gateway rekey` and no new key, or start the gateway again, and then change the key",
                ));
            }
            Some(_) => {}
            None => {
                place.write_next(new).map_err(|error| key_failed(&error))?;
                written = true;
            }
        }
    }
    let api = gateway_api::store(config, printer)?;
    api.rekey().await.map_err(|error| {
        let shown = store::api_failed(&error, held);
        match (&new, written) {
            (Some(new), true) if is_unused(error.status(), error.code()) => {
                let _ = place.withdraw_next(new);
            }
            // It may be the key of the store by now, or become it: then this file is the only one that holds it.
            (Some(_), true) => {
                let next = place.next().unwrap_or_default();
                return shown.hint(format!(
                    "whether the key was changed is not known; the new one stays in {}, and the gateway's next start goes by \
                     the key that opens the store",
                    next.display()
                ));
            }
            (Some(_), false) | (None, _) => {}
        }
        match error.code() {
            "NEXT_MASTER_KEY_REQUIRED" if new.is_some() => shown
                .hint("this command's home folder is not the gateway's: see --sigilum-home and GATEWAY_SIGILUM_HOME"),
            "NEXT_MASTER_KEY_REQUIRED" => shown.hint("give the new key with --new-key-file or --new-key-stdin"),
            "MASTER_KEY_PENDING" => {
                shown.hint("set GATEWAY_MASTER_KEY to the new key and start the gateway again first")
            }
            _ => shown,
        }
    })
}

/// Whether an answer with this status and code says that no key was used: what is refused at the door, and the store's own
/// refusals, all of which come before the commit. Of anything else nobody knows.
fn is_unused(status: u16, code: &str) -> bool {
    match status {
        400 | 401 | 403 | 404 | 405 | 413 | 415 | 429 => true,
        409 => matches!(
            code,
            "NEXT_MASTER_KEY_REQUIRED" | "MASTER_KEY_PENDING" | "MASTER_KEY_UNCHANGED" | "SEALED_UNREADABLE"
        ),
        _ => false,
    }
}

fn report(done: &RekeyAnswer, printer: &mut Printer) -> Result<Outcome, CliError> {
    for name in &done.dropped {
        printer.warn(&format!("{name} did not open and is gone; it was not in use"));
    }
    if !done.log_cut_back {
        printer.warn("old wrappings are still in the write-ahead log, because somebody reads the database; the next start cuts it back");
    }
    printer.ok(&format!(
        "the master key is another: {} sealed values now open with key {} and no longer with {}",
        done.wrapped, done.new_key_id, done.old_key_id
    ))?;
    let file = done.key_file.as_deref().unwrap_or_default();
    if done.pending {
        printer.note(&format!(
            "GATEWAY_MASTER_KEY still names the old key. The new one lies in {file} (0600) until you have done this:"
        ));
        printer.note("  1. set GATEWAY_MASTER_KEY to the new key where the gateway gets its environment from");
        printer.note("  2. start the gateway again; it takes either key until then, and this start removes the file");
    } else if !file.is_empty() {
        printer.note(&format!("the new key: {file} (0600); keep a copy apart from the database"));
    }
    printer.note("backups made before open with the old key alone; make a new one with `sigilum gateway backup`");
    Ok(Outcome::Done)
}

async fn check(config: &Config, keys: &MasterKeys, printer: &mut Printer) -> Result<Outcome, CliError> {
    let found: CheckAnswer = match Offline::open(&config.paths.data_dir, keys, "rekey --check") {
        Ok(store) => store.check().map_err(|error| failed(&error, config))?.into(),
        Err(StoreError::Locked(held)) => {
            let api = gateway_api::store(config, printer)?;
            api.check().await.map_err(|error| store::api_failed(&error, &held.to_string()))?
        }
        Err(error) => return Err(failed(&error, config)),
    };
    for name in &found.lost {
        printer.warn(&format!("{name}: its values were lost with a master key and must be given again"));
    }
    if !found.unreadable.is_empty() {
        let message = format!("what does not open: {}", found.unreadable.join("; "));
        return Err(CliError::new(Outcome::Failed, message)
            .hint("`sigilum connection rotate ID` gives a connection its secrets again; or restore a backup"));
    }
    printer.ok(&format!(
        "everything opens with key {}: {} connections, {} sets of secrets, {} variables",
        found.key_id, found.connections, found.secret_sets, found.variables
    ))?;
    Ok(Outcome::Done)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other error is said as for all commands")]
fn start_over(
    config: &Config,
    keys: &MasterKeys,
    new: Option<Secret>,
    yes: bool,
    printer: &mut Printer,
) -> Result<Outcome, CliError> {
    if new.is_some() && keys.place().is_given() {
        return Err(CliError::new(Outcome::Usage, "GATEWAY_MASTER_KEY is set: the key it names becomes the new one")
            .hint("set it to the new key and give none here, or unset it"));
    }
    if !yes {
        confirm::check_attended().map_err(|error| CliError {
            message: "every secret in the store is given up, for good".to_owned(),
            ..error
        })?;
        let question = "Every secret in the store is given up, for good; settings and audit stay. Go on?";
        if !confirm::ask(question, printer)? {
            return Err(CliError::new(Outcome::Failed, "nothing was changed"));
        }
    }
    let done = upkeep::start_over(&config.paths.data_dir, keys, new).map_err(|error| match error {
        StoreError::Locked(held) => CliError::new(Outcome::Config, held.to_string()).hint(
            "whoever runs holds the key, so it is not lost: `sigilum gateway rekey` without --lost-master-key gives the store a \
             new one and loses nothing",
        ),
        StoreError::MasterKeyOpens => CliError::new(Outcome::Config, error.to_string())
            .hint("`sigilum gateway rekey` without --lost-master-key gives it a new one and loses nothing"),
        other => failed(&other, config),
    })?;
    printer.ok(&format!("the store opens with a new master key ({}); its secrets are gone", done.new_key))?;
    match &done.key_file {
        Some(file) => {
            printer.note(&format!("the new key: {} (0600); keep a copy apart from the database", file.display()))
        }
        None => printer.note("the new key is the one GATEWAY_MASTER_KEY names"),
    }
    if let Some(kept) = &done.kept {
        printer.note(&format!("the key that was there and opened nothing: {}", kept.display()));
    }
    printer.note(
        "the key for sealed secrets is lost as well; the gateway makes another when it is asked for it. Whoever paired it with a \
         dashboard must accept its new fingerprint there: compare it with `sigilum gateway sealing-key show`",
    );
    for id in &done.connections {
        printer.line(&format!("connection {id}: sigilum connection rotate {id}"))?;
    }
    for key in &done.variables {
        printer.line(&format!("variable {key}: sigilum variable set {key}"))?;
    }
    if !done.connections.is_empty() || !done.variables.is_empty() {
        printer.note("start the gateway and give these their secrets again; until then their requests are refused with that reason");
    }
    Ok(Outcome::Done)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other error has the hint of all commands")]
fn failed(error: &StoreError, config: &Config) -> CliError {
    let shown = store::failed(error, config);
    match error {
        StoreError::NoNextMasterKey { .. } => shown.hint("give the new key with --new-key-file or --new-key-stdin"),
        StoreError::MasterKeyPending { .. } => {
            shown.hint("set GATEWAY_MASTER_KEY to the new key and start the gateway once; then change the key again")
        }
        _ => shown,
    }
}

fn key_failed(error: &KeyFileError) -> CliError {
    CliError::new(Outcome::Config, error.to_string())
}

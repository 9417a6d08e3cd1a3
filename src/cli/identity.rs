//! `sigilum identity init | show | list`. The seed stays in its file: nothing here prints it.

use clap::Args;
use clap::Subcommand;
use serde::Serialize;

use crate::cli::args::Globals;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::settings::IdentityPlace;
use crate::domain::ids::Namespace;
use crate::identity::Home;
use crate::identity::IdentityError;
use crate::identity::Opened;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;

/// `identity` and what to do with it.
#[derive(Debug, Args)]
pub struct IdentityArgs {
    #[command(subcommand)]
    command: IdentityCommand,
}

#[derive(Debug, Subcommand)]
enum IdentityCommand {
    /// Create the identity of a namespace, or say that it exists; running it twice changes nothing
    Init(OutputArgs),
    /// Show the public part of an identity
    Show(OutputArgs),
    /// List the namespaces that have an identity here
    List(OutputArgs),
}

#[derive(Debug, Args)]
struct OutputArgs {
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

/// What may be said about an identity.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<bool>,
    namespace: &'a str,
    did: &'a str,
    key_id: &'a str,
    public_key: String,
    identity_path: String,
}

/// Runs one of the three.
pub(crate) fn run(args: &IdentityArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let place = IdentityPlace::find(globals)?;
    let home = Home::new(place.home);
    let named = place.namespace.as_deref();
    match &args.command {
        IdentityCommand::Init(output) => {
            let Some(name) = named else {
                return Err(CliError::new(Outcome::Usage, "no namespace is named")
                    .hint("sigilum identity init --namespace NAME"));
            };
            let namespace = Namespace::normalise(name)
                .map_err(|source| failed(&IdentityError::Namespace { given: name.to_owned(), source }))?;
            let opened = home.create(&namespace, SystemClock.now().seconds()).map_err(|error| failed(&error))?;
            let title = if opened.created { "Created Sigilum identity" } else { "Loaded existing Sigilum identity" };
            show(&opened, output.json, Some(title), printer)
        }
        IdentityCommand::Show(output) => show(&open(&home, named)?, output.json, None, printer),
        IdentityCommand::List(output) => list(&home, output.json, printer),
    }
}

/// Loads the identity that is meant.
pub(crate) fn open(home: &Home, named: Option<&str>) -> Result<Opened, CliError> {
    // The environment has been asked already.
    let namespace = home.namespace(named, |_| None).map_err(|error| failed(&error))?;
    home.load(&namespace, SystemClock.now().seconds()).map_err(|error| failed(&error))
}

/// Says what its owner should know about the file.
pub(crate) fn warn(opened: &Opened, printer: &mut Printer) {
    for warning in &opened.warnings {
        printer.note(&format!("warning: {warning}"));
    }
}

fn show(opened: &Opened, json: bool, title: Option<&str>, printer: &mut Printer) -> Result<Outcome, CliError> {
    let identity = &opened.identity;
    let shown = Shown {
        created: title.map(|_| opened.created),
        namespace: identity.namespace().as_str(),
        did: identity.did(),
        key_id: identity.key_id(),
        public_key: identity.public_key().text(),
        identity_path: opened.path.display().to_string(),
    };
    warn(opened, printer);
    if json {
        printer.json(&shown)?;
        return Ok(Outcome::Done);
    }
    if let Some(title) = title {
        printer.line(title)?;
    }
    printer.line(&format!("namespace: {}", shown.namespace))?;
    printer.line(&format!("did: {}", shown.did))?;
    printer.line(&format!("keyId: {}", shown.key_id))?;
    printer.line(&format!("publicKey: {}", shown.public_key))?;
    printer.line(&format!("identityPath: {}", shown.identity_path))?;
    Ok(Outcome::Done)
}

fn list(home: &Home, json: bool, printer: &mut Printer) -> Result<Outcome, CliError> {
    let namespaces = home.list().map_err(|error| failed(&error))?;
    let names: Vec<_> = namespaces.iter().map(Namespace::as_str).collect();
    if json {
        printer.json(&names)?;
    } else if names.is_empty() {
        printer.line("No identities found.")?;
    } else {
        for name in names {
            printer.line(name)?;
        }
    }
    Ok(Outcome::Done)
}

fn failed(error: &IdentityError) -> CliError {
    let outcome = match error {
        IdentityError::Namespace { .. } => Outcome::Usage,
        IdentityError::None { .. }
        | IdentityError::Several { .. }
        | IdentityError::NotFound { .. }
        | IdentityError::Io { .. }
        | IdentityError::Malformed { .. }
        | IdentityError::Invalid { .. }
        | IdentityError::Random(_) => Outcome::Failed,
    };
    CliError::new(outcome, error.to_string())
}

//! `auth login` and `auth refresh`.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use clap::ValueEnum;
use zeroize::Zeroizing;

use crate::cli::args::Globals;
use crate::cli::auth::namespace;
use crate::cli::auth::openclaw;
use crate::cli::auth::openclaw::Edit;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::owner::Mode;
use crate::cli::printer::Printer;
use crate::cli::settings;
use crate::cli::token::Said;
use crate::domain::ids::Namespace;
use crate::domain::secret::Secret;
use crate::sys::env;
use crate::sys::files;

/// Seconds a token of the local API lives: a week.
const TTL: u64 = 604_800;
/// Largest configuration of OpenClaw that is edited, in bytes.
const MAX_CONFIG: u64 = 4 * 1024 * 1024;

/// Options of `auth login`, `auth refresh` and `login`.
#[derive(Debug, Clone, Args)]
pub struct LoginArgs {
    /// managed: a token of the hosted API; oss-local: one for this machine's API [default: SIGILUM_MODE, else oss-local where
    /// this machine has the API, else managed]
    #[arg(long, value_name = "MODE", value_parser = Mode::parse)]
    mode: Option<Mode>,
    /// E-mail address in a token that is made here [default: SIGILUM_OWNER_EMAIL, else <namespace>@local.sigilum]
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// Address of the API, for OpenClaw [default: SIGILUM_API_URL, else by mode]
    #[arg(long, value_name = "URL")]
    api_url: Option<String>,
    /// Read the token from standard input [default: SIGILUM_OWNER_TOKEN]
    #[arg(long, conflicts_with = "owner_token")]
    owner_token_stdin: bool,
    /// The token; visible to every process of this machine
    #[arg(long, value_name = "TOKEN", hide = true)]
    owner_token: Option<String>,
    /// Seconds a token that is made here lives [default: SIGILUM_OWNER_TOKEN_TTL_SECONDS, else 604800]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    ttl_seconds: Option<u64>,
    /// Folder of OpenClaw [default: OPENCLAW_HOME, else ~/.openclaw]
    #[arg(long, value_name = "PATH")]
    openclaw_home: Option<PathBuf>,
    /// Configuration of OpenClaw [default: <openclaw>/openclaw.json]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the token is kept [default: <openclaw>/.sigilum/owner-token-<namespace>.jwt]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Tell OpenClaw's configuration about it [default: true where there is an OpenClaw folder, or with --enable-authz-notify]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    write_openclaw: Option<bool>,
    /// Switch OpenClaw's approval notifier on or off, or leave it
    #[arg(long, value_name = "CHOICE", default_value = "preserve")]
    enable_authz_notify: Notify,
    /// Print the token too
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    print_token: bool,
    /// Print the token and nothing else
    #[arg(long)]
    token_only: bool,
}

/// What becomes of the notifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Notify {
    /// On.
    True,
    /// Off.
    False,
    /// As it is.
    Preserve,
}

/// Stores the token; where nothing can be stored, nothing is changed.
pub(super) async fn run(
    args: &LoginArgs,
    refresh: bool,
    globals: &Globals,
    printer: &mut Printer,
) -> Result<Outcome, CliError> {
    let handed = owner::handed_token(args.owner_token_stdin, args.owner_token.as_deref(), printer)?;
    let named = match args.api_url.clone().or_else(|| env::lookup("SIGILUM_API_URL")) {
        Some(named) => Some(named),
        None => settings::saved(&["SIGILUM_API_URL"])?,
    };
    let mode = match args.mode {
        Some(mode) => mode,
        None => Mode::of_environment()?.unwrap_or_else(|| owner::mode_of(named.as_deref(), handed.as_ref())),
    };
    let said = handed.as_ref().and_then(Said::by);
    let namespace = namespace(globals, said.as_ref())?;
    let token = match (handed, mode) {
        (Some(token), Mode::Managed) => checked(token, said.as_ref(), &namespace)?,
        (Some(token), Mode::OssLocal) if !refresh => checked(token, said.as_ref(), &namespace)?,
        (_, Mode::OssLocal) => made(args, &namespace)?,
        (None, Mode::Managed) => {
            return Err(CliError::new(Outcome::Failed, "managed mode needs the owner's token").hint(
                "sign in at https://sigilum.id, then: sigilum auth login --owner-token-stdin < FILE \
                 (for the API of this machine, where `sigilum up` or `sigilum api` ran once: --mode oss-local)",
            ));
        }
    };

    let home = args.openclaw_home.clone().unwrap_or_else(owner::openclaw_home);
    let config = args.config.clone().unwrap_or_else(|| home.join("openclaw.json"));
    let api = named.map_or_else(|| mode.address(globals), |named| named.trim().trim_end_matches('/').to_owned());
    let wanted = args.write_openclaw.unwrap_or_else(|| {
        args.enable_authz_notify != Notify::Preserve
            || args.config.is_some()
            || args.openclaw_home.is_some()
            || owner::is_openclaw_used(&home)
    });
    let edited = if wanted {
        let edit = Edit { namespace: &namespace, api_url: &api, notify: args.enable_authz_notify, token: &token };
        Some(edit_config(&config, &edit)?)
    } else {
        None
    };

    let file = args.token_file.clone().unwrap_or_else(|| owner::token_file(&home, &namespace));
    write(&file, &Zeroizing::new(format!("{}\n", token.expose())))?;
    if let Some((text, _)) = &edited {
        // Through a link, the file it leads to is replaced and not the link.
        write(&fs::canonicalize(&config).unwrap_or_else(|_| config.clone()), text)?;
    }
    if mode == Mode::OssLocal
        && let Some(refused) = owner::introduce(&api, &token).await
    {
        printer.warn(&format!("the API at {api} runs and does not take this token: {refused}"));
    }
    if args.token_only {
        printer.line(token.expose())?;
        return Ok(Outcome::Done);
    }
    printer.ok("Namespace-owner token ready.")?;
    printer.line(&format!("mode: {}", mode.name()))?;
    printer.line(&format!("namespace: {namespace}"))?;
    printer.line(&format!("api: {api}"))?;
    printer.line(&format!("token_file: {}", file.display()))?;
    if let Some((_, enabled)) = edited {
        printer.line(&format!("openclaw_config: {}", config.display()))?;
        printer.line(&format!("authz_notify_enabled: {enabled}"))?;
    }
    if args.print_token {
        printer.line(token.expose())?;
    }
    Ok(Outcome::Done)
}

/// A token somebody handed over: one that can be read, has not ended, and is this owner's.
fn checked(token: Secret, said: Option<&Said>, namespace: &Namespace) -> Result<Secret, CliError> {
    let failed = |message: String| CliError::new(Outcome::Failed, message);
    let Some(said) = said else {
        return Err(failed("this is no owner token: it should have three parts with dots between them".to_owned()));
    };
    owner::check_alive(&token, "sign in again for a new one")
        .map_err(|expired| CliError { outcome: Outcome::Failed, ..expired })?;
    if !said.namespace.is_empty() && said.namespace != namespace.as_str() {
        let whose = crate::app::owner_api::readable(&said.namespace);
        return Err(failed(format!("the token is for the namespace {whose}, not for {namespace}"))
            .hint(format!("give --namespace {whose}, or another token")));
    }
    Ok(token)
}

/// A new token of this machine's API.
fn made(args: &LoginArgs, namespace: &Namespace) -> Result<Secret, CliError> {
    let ttl = match args.ttl_seconds {
        Some(ttl) => ttl,
        None => match env::lookup("SIGILUM_OWNER_TOKEN_TTL_SECONDS") {
            None => TTL,
            Some(text) => text.trim().parse().ok().filter(|ttl| *ttl > 0).ok_or_else(|| {
                let message = "SIGILUM_OWNER_TOKEN_TTL_SECONDS must be a number of seconds above 0";
                CliError::new(Outcome::Failed, message)
            })?,
        },
    };
    let Some(secret) = owner::jwt_secret()? else {
        let message = format!(
            "this machine has no API that could check a token: {} is missing",
            owner::jwt_secret_file().display()
        );
        return Err(CliError::new(Outcome::Failed, message)
            .hint("start it once with `sigilum up` or `sigilum api`, or set JWT_SECRET to the API's secret"));
    };
    owner::issue(&secret, namespace, args.email.as_deref(), ttl)
}

fn edit_config(path: &Path, edit: &Edit<'_>) -> Result<(Zeroizing<String>, bool), CliError> {
    let failed = |what: String| {
        CliError::new(Outcome::Failed, format!("{}: {what}; nothing was changed", path.display()))
            .hint("mend the file, or use --write-openclaw false")
    };
    let text = match files::read_text(path, MAX_CONFIG).map(Zeroizing::new) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Zeroizing::new("{}".to_owned()),
        Err(error) => return Err(failed(error.to_string())),
    };
    openclaw::apply(&text, edit).map_err(|wrong| failed(wrong.to_string()))
}

/// Writes a private file; folders that are missing are made private.
fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let made = folder.map_or(Ok(()), files::private_folder);
    made.and_then(|()| files::write_private(path, text.as_bytes()))
        .map_err(|error| CliError::new(Outcome::Failed, format!("{}: {error}", path.display())))
}

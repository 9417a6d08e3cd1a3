//! `sigilum gateway …`: the roles of the gateway, alone or as one life.

mod admin;
mod auth_token;
pub(crate) mod authz;
mod backup;
mod config;
mod connect;
mod diagnostics;
mod drain;
pub(crate) mod drift;
pub(crate) mod endpoint;
pub(crate) mod envoy_config;
mod install;
pub(crate) mod launch;
pub(crate) mod lifecycle;
pub(crate) mod manager;
pub(crate) mod master_key;
pub(crate) mod options;
mod pair;
mod pid_file;
pub(crate) mod place;
pub(crate) mod probe;
mod rekey;
mod replace;
mod restart;
pub(crate) mod role;
mod sealing_key;
mod start;
pub(crate) mod status;
pub(crate) mod stop;
mod store;

use clap::Args;
use clap::CommandFactory as _;
use clap::Subcommand;

use crate::cli::args::Cli;
use crate::cli::args::Globals;
use crate::cli::dispatch;
use crate::cli::gateway::admin::AdminArgs;
use crate::cli::gateway::auth_token::AuthTokenArgs;
use crate::cli::gateway::authz::AuthzArgs;
use crate::cli::gateway::backup::BackupArgs;
use crate::cli::gateway::backup::RestoreArgs;
use crate::cli::gateway::config::ConfigArgs;
use crate::cli::gateway::connect::ConnectArgs;
use crate::cli::gateway::diagnostics::DiagnosticsArgs;
use crate::cli::gateway::drain::DrainArgs;
use crate::cli::gateway::drain::UndrainArgs;
use crate::cli::gateway::endpoint::Endpoint;
use crate::cli::gateway::envoy_config::EnvoyConfigArgs;
use crate::cli::gateway::install::InstallArgs;
use crate::cli::gateway::install::UninstallArgs;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::gateway::pair::PairArgs;
use crate::cli::gateway::probe::ProbeArgs;
use crate::cli::gateway::rekey::RekeyArgs;
use crate::cli::gateway::restart::RestartArgs;
use crate::cli::gateway::sealing_key::SealingKeyArgs;
use crate::cli::gateway::start::StartArgs;
use crate::cli::gateway::status::StatusArgs;
use crate::cli::gateway::stop::StopArgs;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::config::Config;

/// Ends the bridge that commands have left in the background for the gateway of these settings.
pub(crate) async fn end_bridge(config: &Config, printer: &mut Printer) -> Result<(), CliError> {
    pair::end(config, printer).await
}

/// `gateway` and which part of it.
#[derive(Debug, Args)]
pub struct GatewayArgs {
    /// `None`: nothing in particular, which only means something with `--dev`.
    #[command(subcommand)]
    command: Option<GatewayCommand>,
}

/// A process of a gateway that can be asked by itself.
#[derive(Debug)]
pub(crate) enum GatewayRole<'a> {
    /// Admin, alone or as part of a whole gateway, with these settings.
    Admin(&'a SettingsArgs),
    /// Authz, which Envoy finds here.
    Authz(&'a Endpoint),
}

impl GatewayArgs {
    /// Which of them these arguments start; `None` for every other command.
    pub(crate) const fn role(&self) -> Option<GatewayRole<'_>> {
        let Some(command) = &self.command else { return None };
        match command {
            GatewayCommand::Start(args) => Some(GatewayRole::Admin(&args.settings)),
            GatewayCommand::Admin(args) => Some(GatewayRole::Admin(&args.settings)),
            GatewayCommand::Authz(args) => Some(GatewayRole::Authz(&args.listen)),
            GatewayCommand::Restart(_)
            | GatewayCommand::Stop(_)
            | GatewayCommand::Drain(_)
            | GatewayCommand::Undrain(_)
            | GatewayCommand::Install(_)
            | GatewayCommand::Uninstall(_)
            | GatewayCommand::Pair(_)
            | GatewayCommand::Connect(_)
            | GatewayCommand::Status(_)
            | GatewayCommand::Probe(_)
            | GatewayCommand::Diagnostics(_)
            | GatewayCommand::EnvoyConfig(_)
            | GatewayCommand::Rekey(_)
            | GatewayCommand::Backup(_)
            | GatewayCommand::Restore(_)
            | GatewayCommand::AuthToken(_)
            | GatewayCommand::SealingKey(_)
            | GatewayCommand::Config(_) => None,
        }
    }

    /// Whether nothing in particular is asked for.
    pub(crate) const fn is_bare(&self) -> bool {
        self.command.is_none()
    }

    /// Whether it is a part of a gateway, which a supervisor starts.
    pub(crate) const fn is_part(&self) -> bool {
        matches!(self.command, Some(GatewayCommand::Admin(_) | GatewayCommand::Authz(_)))
    }

    /// Whether it makes a gateway where there is none yet.
    pub(crate) const fn makes_gateway(&self) -> bool {
        matches!(
            self.command,
            None | Some(GatewayCommand::Start(_) | GatewayCommand::Install(_) | GatewayCommand::Connect(_))
        )
    }

    /// Whether it asks, or changes, one that is there already. Those that write its store themselves are not among them: they
    /// are told where it is.
    pub(crate) const fn asks_a_gateway(&self) -> bool {
        matches!(
            self.command,
            Some(
                GatewayCommand::Status(_)
                    | GatewayCommand::Probe(_)
                    | GatewayCommand::Restart(_)
                    | GatewayCommand::Stop(_)
                    | GatewayCommand::Drain(_)
                    | GatewayCommand::Undrain(_)
                    | GatewayCommand::AuthToken(_)
                    | GatewayCommand::SealingKey(_)
                    | GatewayCommand::Config(_)
                    | GatewayCommand::Diagnostics(_)
            )
        )
    }

    /// Its name where it announces itself: the roles write a log where the announcement would stand.
    pub(crate) const fn announced(&self) -> Option<&'static str> {
        let Some(command) = &self.command else { return None };
        match command {
            GatewayCommand::Start(_) | GatewayCommand::Pair(_) | GatewayCommand::Connect(_) => Some("gateway"),
            GatewayCommand::Restart(_)
            | GatewayCommand::Stop(_)
            | GatewayCommand::Drain(_)
            | GatewayCommand::Undrain(_)
            | GatewayCommand::Install(_)
            | GatewayCommand::Uninstall(_) => Some("gateway"),
            GatewayCommand::Admin(_)
            | GatewayCommand::Authz(_)
            | GatewayCommand::EnvoyConfig(_)
            | GatewayCommand::AuthToken(_)
            | GatewayCommand::SealingKey(_)
            | GatewayCommand::Status(_)
            | GatewayCommand::Probe(_)
            | GatewayCommand::Diagnostics(_)
            | GatewayCommand::Config(_) => None,
            GatewayCommand::Rekey(_) | GatewayCommand::Backup(_) | GatewayCommand::Restore(_) => Some("gateway"),
        }
    }
}

#[derive(Debug, Subcommand)]
enum GatewayCommand {
    /// Run admin, authz and Envoy as one life in the foreground
    #[command(visible_alias = "run")]
    Start(StartArgs),
    /// Restart the running gateway when requests in flight have ended, and see that it is well again
    Restart(RestartArgs),
    /// Stop the running gateway, through the service manager where one runs it
    Stop(StopArgs),
    /// Take no new requests for a while; what is in flight goes on
    Drain(DrainArgs),
    /// End a drain before its time
    Undrain(UndrainArgs),
    /// Install the gateway as a service of systemd or launchd, and start it
    Install(InstallArgs),
    /// Take the service away again; settings and state stay
    Uninstall(UninstallArgs),
    /// Let a dashboard manage this gateway through an outgoing connection: run that bridge, or look after it
    Pair(PairArgs),
    /// Start the gateway where it does not run, then pair it in the background
    Connect(ConnectArgs),
    /// How it stands with the gateway, on one screen, and what to type next
    Status(StatusArgs),
    /// Ask every gateway this command knows of who it is, what it lets us do, and whether it is closed to strangers
    Probe(ProbeArgs),
    /// What whoever helps needs to see of this gateway, without secrets
    Diagnostics(DiagnosticsArgs),
    /// Run the admin process alone: the sealed store, the admin API, the state stream
    Admin(AdminArgs),
    /// Run the decision alone: what Envoy asks
    Authz(AuthzArgs),
    /// Print the Envoy configuration, for those who run their own Envoy
    EnvoyConfig(EnvoyConfigArgs),
    /// Seal the store with another master key, without interrupting a running gateway
    Rekey(RekeyArgs),
    /// Write a proven copy of the store to a file; the gateway may run
    Backup(BackupArgs),
    /// Put a backup in the place of the store; the gateway must not run
    Restore(RestoreArgs),
    /// Show the admin token to a person, or mint another one
    AuthToken(AuthTokenArgs),
    /// Show what others seal secrets to, or replace it
    SealingKey(SealingKeyArgs),
    /// Check the configuration, show it, print the schema of gateway.yaml
    Config(ConfigArgs),
}

/// Says what there is, to whom typed nothing further.
pub(crate) fn bare(printer: &mut Printer) -> Outcome {
    let mut all = Cli::command();
    if let Some(gateway) = all.find_subcommand_mut("gateway") {
        printer.note(gateway.clone().bin_name("sigilum gateway").render_help().to_string().trim_end());
    }
    Outcome::Usage
}

/// Runs one of them.
pub(crate) fn run(args: &GatewayArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let Some(command) = &args.command else { return Ok(bare(printer)) };
    match command {
        GatewayCommand::Start(args) => dispatch::role(start::run(args, globals, printer)),
        GatewayCommand::Restart(args) => dispatch::small(restart::run(args, globals, printer)),
        GatewayCommand::Stop(args) => dispatch::small(stop::run(args, globals, printer)),
        GatewayCommand::Drain(args) => dispatch::small(drain::drain(args, globals, printer)),
        GatewayCommand::Undrain(args) => dispatch::small(drain::undrain(args, globals, printer)),
        GatewayCommand::Install(args) => dispatch::small(install::install(args, globals, printer)),
        GatewayCommand::Uninstall(args) => dispatch::small(install::uninstall(args, globals, printer)),
        GatewayCommand::Pair(args) => dispatch::small(pair::run(args, globals, printer)),
        GatewayCommand::Connect(args) => dispatch::small(connect::run(args, globals, printer)),
        GatewayCommand::Status(args) => dispatch::small(status::run(args, globals, printer)),
        GatewayCommand::Probe(args) => dispatch::small(probe::run(args, globals, printer)),
        GatewayCommand::Diagnostics(args) => dispatch::small(diagnostics::run(args, globals, printer)),
        GatewayCommand::Admin(args) => dispatch::role(admin::run(args, globals, printer)),
        GatewayCommand::Authz(args) => dispatch::role(authz::run(args, globals)),
        GatewayCommand::AuthToken(args) => dispatch::small(auth_token::run(args, globals, printer)),
        GatewayCommand::SealingKey(args) => dispatch::small(sealing_key::run(args, globals, printer)),
        GatewayCommand::EnvoyConfig(args) => envoy_config::run(args, globals, printer),
        GatewayCommand::Rekey(args) => dispatch::small(rekey::run(args, globals, printer)),
        GatewayCommand::Backup(args) => dispatch::small(backup::backup(args, globals, printer)),
        GatewayCommand::Restore(args) => backup::restore(args, globals, printer),
        GatewayCommand::Config(args) => config::run(args, globals, printer),
    }
}

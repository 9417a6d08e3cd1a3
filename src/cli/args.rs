//! The commands and the options that may stand before any of them.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap::Parser;
use clap::Subcommand;

use crate::cli::agent_simulator::AgentSimulatorArgs;
use crate::cli::api::ApiArgs;
use crate::cli::auth::AuthArgs;
use crate::cli::auth::LoginArgs;
use crate::cli::claim::ClaimArgs;
use crate::cli::completions::CompletionsArgs;
use crate::cli::connection::ConnectionArgs;
use crate::cli::doctor::DoctorArgs;
use crate::cli::down::DownArgs;
use crate::cli::e2e_tests::E2eTestsArgs;
use crate::cli::exec_detached::ExecDetachedArgs;
use crate::cli::exec_envoy::ExecEnvoyArgs;
use crate::cli::exec_provider::ExecProviderArgs;
use crate::cli::gateway::GatewayArgs;
use crate::cli::gateway::status::StatusArgs;
use crate::cli::health::HealthArgs;
use crate::cli::help::HelpArgs;
use crate::cli::identity::IdentityArgs;
use crate::cli::install::InstallArgs;
use crate::cli::logs::LogsArgs;
use crate::cli::machine::MachineGateway;
use crate::cli::profiles::ProfilesArgs;
use crate::cli::request::RequestArgs;
use crate::cli::secrets::SecretsArgs;
use crate::cli::service::ServiceArgs;
use crate::cli::setup::SetupArgs;
use crate::cli::up::UpArgs;
use crate::cli::variable::VariableArgs;
use crate::config::Flags;
use crate::config::keys;
use crate::config::profile::Ports;
use crate::config::profile::Profile;
use crate::sys::supervision;

/// A gateway that lets AI agents call APIs without holding the keys.
#[derive(Debug, Parser)]
#[command(
    name = "sigilum",
    version,
    disable_version_flag = true,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Settings: option, then environment, then gateway.yaml, then default; the README lists them all."
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What may stand in front of a `--`.
#[derive(Debug, Parser)]
#[command(version, disable_version_flag = true, disable_help_flag = true)]
struct Leading {
    #[command(flatten)]
    _globals: Globals,
}

/// Takes out the `--` between global options and the command: clap reads it as the end of commands too.
pub(crate) fn without_separator(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if let Some(at) = arguments.iter().position(|argument| argument == "--")
        && arguments.get(..at).is_some_and(|leading| Leading::try_parse_from(leading).is_ok())
    {
        arguments.remove(at);
    }
    arguments
}

/// Options that may stand before or after the command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Print the version
    #[arg(short = 'v', short_alias = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// Which of several gateways of this user: 1 to 32 of a-z, 0-9 and '-' [default: SIGILUM_PROFILE, else `default`]
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// A gateway to try things on, apart from all others: the profile `dev`, with the namespace `dev`
    #[arg(long, global = true)]
    pub dev: bool,
    /// Remove the folders of --dev first (with setup, up and gateway)
    #[arg(long, global = true, hide_short_help = true)]
    pub reset: bool,
    /// Namespace: the owner's name, 3 to 64 of a-z, 0-9 and '-'
    #[arg(long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Folder of identities and keys
    #[arg(long = "sigilum-home", visible_alias = "home", global = true, value_name = "PATH")]
    pub home: Option<PathBuf>,
    /// Where commands reach the admin API
    #[arg(long, global = true, value_name = "URL", hide_short_help = true)]
    pub gateway_admin_url: Option<String>,
    /// Folder of the sealed store, the admin token and the logs
    #[arg(long, visible_alias = "data-dir", global = true, value_name = "PATH", hide_short_help = true)]
    pub gateway_data_dir: Option<PathBuf>,
    /// Port of the admin API on loopback
    #[arg(long, global = true, value_name = "PORT", hide_short_help = true, value_parser = clap::value_parser!(u16).range(1..))]
    pub gateway_port: Option<u16>,
    /// Port of the local API on loopback
    #[arg(long, global = true, value_name = "PORT", hide_short_help = true, value_parser = clap::value_parser!(u16).range(1..))]
    pub api_port: Option<u16>,
    /// Port of the demo's native service
    #[arg(long, global = true, value_name = "PORT", hide_short_help = true, value_parser = clap::value_parser!(u16).range(1..))]
    pub native_port: Option<u16>,
    /// Port of the demo upstream
    #[arg(long, global = true, value_name = "PORT", hide_short_help = true, value_parser = clap::value_parser!(u16).range(1..))]
    pub upstream_port: Option<u16>,
    /// Taken so that it can be refused with a reason: arguments are visible to every process.
    #[arg(long, global = true, hide = true, value_name = "KEY")]
    pub gateway_master_key: Option<String>,
    /// The profile and its ports, once they are settled.
    #[arg(skip)]
    pub(crate) settled: Option<(Ports, Profile)>,
    /// The machine's gateway, where that is meant.
    #[arg(skip)]
    pub(crate) machine: Option<MachineGateway>,
}

impl Globals {
    /// As settings.
    pub fn flags(&self) -> Flags {
        let mut flags = Flags::default();
        flags.set(&keys::PROFILE, self.settled.as_ref().map(|(_, profile)| profile.name()));
        if let Some((ports, profile)) = &self.settled {
            ports.stand_in(profile, &mut flags);
        }
        if let Some(machine) = &self.machine {
            machine.stand_in(&mut flags);
        }
        let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        flags.set(&keys::NAMESPACE, self.namespace.clone());
        flags.set(&keys::HOME, text(&self.home));
        flags.set(&keys::ADMIN_URL, self.gateway_admin_url.clone());
        flags.set(&keys::DATA_DIR, text(&self.gateway_data_dir));
        flags.set(&keys::ADMIN_ADDR, self.gateway_port.map(|port| format!(":{port}")));
        flags.set(&keys::NATIVE_PORT, self.native_port.map(|port| port.to_string()));
        flags.set(&keys::UPSTREAM_PORT, self.upstream_port.map(|port| port.to_string()));
        flags
    }
}

impl Command {
    /// The command's name where it announces itself on standard error; `None` for those whose streams belong to
    /// somebody else: an agent's answer, a log, a script.
    pub(crate) const fn announced(&self) -> Option<&'static str> {
        match self {
            Self::Identity(_) => Some("identity"),
            Self::Service(_) => Some("service"),
            Self::Connection(_) => Some("connection"),
            Self::Secrets(_) => Some("secrets"),
            Self::Variable(_) => Some("variable"),
            Self::Claim(_) => Some("claim"),
            Self::Auth(_) => Some("auth"),
            Self::Login(_) => Some("login"),
            Self::Gateway(args) => args.announced(),
            Self::Setup(_) => Some("setup"),
            Self::Up(_) => Some("up"),
            Self::Down(_) => Some("down"),
            Self::E2eTests(_) => Some("e2e-tests"),
            Self::AgentSimulator(_) => Some("agent-simulator"),
            Self::Install(_) => Some("install"),
            Self::Versions => Some("versions"),
            Self::Api(_)
            | Self::Logs(_)
            | Self::Status(_)
            | Self::Profiles(_)
            | Self::Doctor(_)
            | Self::Health(_)
            | Self::Request(_)
            | Self::Completions(_)
            | Self::Version
            | Self::Help(_)
            | Self::ExecDetached(_)
            | Self::ExecEnvoy(_)
            | Self::ExecProvider(_) => None,
        }
    }
}

impl Command {
    /// Whether it is a part of a gateway, which a supervisor starts.
    pub(crate) const fn is_part(&self) -> bool {
        matches!(self, Self::Gateway(args) if args.is_part())
    }

    /// Whether it makes a gateway where there is none yet.
    pub(crate) const fn makes_gateway(&self) -> bool {
        matches!(self, Self::Setup(_) | Self::Up(_)) || matches!(self, Self::Gateway(args) if args.makes_gateway())
    }

    /// Whether it asks, or changes, a gateway that is there already.
    pub(crate) const fn asks_a_gateway(&self) -> bool {
        match self {
            Self::Gateway(args) => args.asks_a_gateway(),
            Self::Connection(_)
            | Self::Variable(_)
            | Self::Secrets(_)
            | Self::Status(_)
            | Self::Logs(_)
            | Self::Health(_)
            | Self::Doctor(_) => true,
            Self::Identity(_)
            | Self::Request(_)
            | Self::Service(_)
            | Self::Claim(_)
            | Self::Auth(_)
            | Self::Login(_)
            | Self::Setup(_)
            | Self::Profiles(_)
            | Self::Api(_)
            | Self::Up(_)
            | Self::Down(_)
            | Self::E2eTests(_)
            | Self::AgentSimulator(_)
            | Self::Install(_)
            | Self::Completions(_)
            | Self::Version
            | Self::Versions
            | Self::Help(_)
            | Self::ExecDetached(_)
            | Self::ExecEnvoy(_)
            | Self::ExecProvider(_) => false,
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create, show and list the identities that sign requests
    Identity(IdentityArgs),
    /// Sign a request with the local identity, send it, stream the answer
    Request(RequestArgs),
    /// Services of the namespace: their keys, their connections
    Service(ServiceArgs),
    /// Connections of the running gateway: where providers are, with their sealed secrets
    #[command(visible_alias = "connections")]
    Connection(ConnectionArgs),
    /// Credential variables of the gateway: secrets that several connections share
    #[command(visible_alias = "variables")]
    Variable(VariableArgs),
    /// References of gateway.yaml to secrets: resolve them again, show how it stands, look for leaks
    Secrets(SecretsArgs),
    /// Who may use which service: list, approve, reject, revoke
    Claim(ClaimArgs),
    /// The owner's token: login, refresh, show
    Auth(AuthArgs),
    /// The same as `auth login`
    Login(LoginArgs),
    /// Run the gateway, or one of its parts
    Gateway(GatewayArgs),
    /// Make identity and master key where they are missing, and show what a start would use
    Setup(SetupArgs),
    /// The same as `gateway status`
    Status(StatusArgs),
    /// The gateways of this user, their ports, and which of them run
    Profiles(ProfilesArgs),
    /// Show what the gateway logs: requests, decisions, changes, what its processes say
    Logs(LogsArgs),
    /// Whether the running gateway is ready, and what keeps it from it
    Health(HealthArgs),
    /// Find out what is wrong, and mend what can be mended without harm
    Doctor(DoctorArgs),
    /// Run the local control plane: services, keys, claims, usage
    Api(ApiArgs),
    /// Run the local stack in the foreground
    Up(UpArgs),
    /// Stop what this installation started
    Down(DownArgs),
    /// Start a stack of its own, try it from outside, stop it
    E2eTests(E2eTestsArgs),
    /// Try the running stack with an approved, an unapproved and an unsigned agent
    AgentSimulator(AgentSimulatorArgs),
    /// Put this program on PATH
    Install(InstallArgs),
    /// Print what completes commands in a shell
    Completions(CompletionsArgs),
    /// Print the version
    Version,
    /// Print the versions of all parts, one line each
    Versions,
    /// Print help on a command or topic
    Help(HelpArgs),
    /// Leaves the terminal and becomes another program; started by our own commands alone.
    #[command(name = supervision::EXEC_DETACHED, hide = true)]
    ExecDetached(ExecDetachedArgs),
    /// Ties Envoy's life to the supervisor's; started by it alone.
    #[command(name = supervision::EXEC_ENVOY, hide = true)]
    ExecEnvoy(ExecEnvoyArgs),
    /// Ties the life of a program that knows secrets to admin's; started by it alone.
    #[command(name = supervision::EXEC_PROVIDER, hide = true)]
    ExecProvider(ExecProviderArgs),
}

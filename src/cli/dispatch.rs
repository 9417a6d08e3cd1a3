//! From arguments to an exit code.

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;

use crate::cli::agent_simulator;
use crate::cli::api;
use crate::cli::args::Cli;
use crate::cli::args::Command;
use crate::cli::args::without_separator;
use crate::cli::auth;
use crate::cli::claim;
use crate::cli::completions;
use crate::cli::connection;
use crate::cli::dev;
use crate::cli::doctor;
use crate::cli::down;
use crate::cli::e2e_tests;
use crate::cli::exec_detached;
use crate::cli::exec_envoy;
use crate::cli::exec_provider;
use crate::cli::gateway;
use crate::cli::health;
use crate::cli::help;
use crate::cli::identity;
use crate::cli::install;
use crate::cli::logs;
use crate::cli::machine::MachineGateway;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::profile;
use crate::cli::profiles;
use crate::cli::request;
use crate::cli::secrets;
use crate::cli::service;
use crate::cli::setup;
use crate::cli::up;
use crate::cli::up::UpArgs;
use crate::cli::variable;
use crate::cli::versions;

/// Runs the command that `arguments` (the program's name first) ask for.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut printer = Printer::standard();
    let cli = match Cli::try_parse_from(without_separator(arguments.collect())) {
        Ok(cli) => cli,
        Err(error) => return refused(&error).into(),
    };
    let outcome = dispatch(cli, &mut printer).unwrap_or_else(|error| {
        printer.error(&error);
        error.outcome
    });
    outcome.into()
}

/// Help and version are answers; everything else clap says is a usage error.
fn refused(error: &clap::Error) -> Outcome {
    // clap knows the stream and the colours; that nobody reads it is no reason to fail.
    let _ = error.print();
    let answer = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if answer { Outcome::Done } else { Outcome::Usage }
}

fn dispatch(cli: Cli, printer: &mut Printer) -> Result<Outcome, CliError> {
    let Cli { mut globals, mut command } = cli;
    profile::begin(&mut globals, command.makes_gateway(), command.is_part())?;
    globals.machine = MachineGateway::meant(&globals, &command)?;
    let dev = globals.settled.as_ref().is_some_and(|(_, profile)| profile.is_dev());
    if globals.reset {
        if !dev || !command.makes_gateway() {
            let message = "--reset removes the folders of --dev: it stands before setup, up or gateway, with --dev";
            return Err(CliError::new(Outcome::Usage, message));
        }
        dev::reset(printer)?;
    }
    if let (Command::Gateway(args), true) = (&command, dev)
        && args.is_bare()
    {
        command = Command::Up(UpArgs::demo());
    }
    if globals.gateway_master_key.is_some() {
        return Err(CliError::new(
            Outcome::Usage,
            "the master key cannot be given as an argument: every process can read arguments",
        )
        .hint("set GATEWAY_MASTER_KEY, or put it into <home>/gateway-master-key with mode 0600"));
    }
    if let Some(name) = command.announced() {
        printer.note(&format!("[i] sigilum {} ({name})", versions::OWN));
    }
    match command {
        Command::Service(args) => small(service::run(&args, &globals, printer)),
        Command::Connection(args) => small(connection::run(&args, &globals, printer)),
        Command::Secrets(args) => small(secrets::run(&args, &globals, printer)),
        Command::Variable(args) => small(variable::run(&args, &globals, printer)),
        Command::Claim(args) => small(claim::run(&args, &globals, printer)),
        Command::Auth(args) => small(auth::run(&args, &globals, printer)),
        Command::Login(args) => small(auth::login(&args, &globals, printer)),
        Command::Install(args) => install::run(&args, printer),
        Command::Completions(args) => completions::run(&args, printer),
        Command::Versions => small(versions::run(&globals, printer)),
        Command::Help(args) => help::run(&args, printer),
        Command::Gateway(args) => gateway::run(&args, &globals, printer),
        Command::Logs(args) => small(logs::run(&args, &globals, printer)),
        Command::Health(args) => small(health::run(&args, &globals, printer)),
        Command::Doctor(args) => small(doctor::run(&args, &globals, printer)),
        Command::Api(args) => role(api::run(&args, &globals, printer)),
        Command::Setup(args) => setup::run(&args, &globals, printer),
        Command::Status(args) => small(gateway::status::run(&args, &globals, printer)),
        Command::Profiles(args) => profiles::run(&args, printer),
        Command::Up(args) => role(up::run(&args, &globals, printer)),
        Command::Down(args) => small(down::run(&args, &globals, printer)),
        Command::E2eTests(args) => role(e2e_tests::run(&args, &globals, printer)),
        Command::AgentSimulator(args) => small(agent_simulator::run(&args, &globals, printer)),
        Command::ExecDetached(args) => Err(exec_detached::run(&args)),
        Command::ExecEnvoy(args) => Err(exec_envoy::run(&args)),
        Command::ExecProvider(args) => Err(exec_provider::run(&args)),
        Command::Identity(args) => identity::run(&args, &globals, printer),
        Command::Request(args) => small(request::run(&args, &globals, printer)),
        Command::Version => {
            printer.line(&format!("sigilum {}", versions::OWN))?;
            Ok(Outcome::Done)
        }
    }
}

/// Runs a command that does one thing and ends: one thread is enough.
pub(crate) fn small(command: impl Future<Output = Result<Outcome, CliError>>) -> Result<Outcome, CliError> {
    runtime(Builder::new_current_thread().enable_all().build())?.block_on(command)
}

/// Runs a role of the gateway until it is told to stop.
pub(crate) fn role(command: impl Future<Output = Result<Outcome, CliError>>) -> Result<Outcome, CliError> {
    runtime(Builder::new_multi_thread().enable_all().build())?.block_on(command)
}

fn runtime(built: io::Result<Runtime>) -> Result<Runtime, CliError> {
    built.map_err(|error| CliError::new(Outcome::Failed, format!("the runtime could not be started: {error}")))
}

//! `gateway authz`: the decision, as one process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::app::authz;
use crate::app::authz::AuthzConfig;
use crate::app::authz::Listen;
use crate::app::authz::StateFrom;
use crate::cli::args::Globals;
use crate::cli::gateway::endpoint::Endpoint;
use crate::cli::gateway::role;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::settings;
use crate::config::keys;
use crate::config::parts::DecisionLog;
use crate::sys::clock::SystemClock;
use crate::sys::tls::TlsFiles;
use crate::telemetry::decisions::Level;

/// How long checks are still decided after health was withdrawn: two of Envoy's health checks.
const DRAIN_PAUSE: Duration = Duration::from_secs(2);

/// Options of `gateway authz`.
#[derive(Debug, Clone, Args)]
pub(crate) struct AuthzArgs {
    /// Where Envoy asks: unix:PATH, or tcp:IP:PORT with certificates
    #[arg(long, value_name = "ENDPOINT", value_parser = Endpoint::parse)]
    pub(super) listen: Endpoint,
    /// Where admin streams the state: unix:PATH, or tcp:HOST:PORT with certificates
    #[arg(long, value_name = "ENDPOINT", value_parser = Endpoint::parse)]
    state: Endpoint,
    /// Folder of the replay journal
    #[arg(long, value_name = "PATH")]
    run_dir: Option<PathBuf>,
    /// Certificates, for TCP.
    #[command(flatten)]
    tls: TlsArgs,
    /// Name an Envoy's certificate may carry (subject alternative name); may be repeated
    #[arg(long, value_name = "NAME")]
    client_name: Vec<String>,
    /// Name the admin process's certificate must carry
    #[arg(long, value_name = "NAME")]
    state_name: Option<String>,
    /// A supervisor holds our standard input
    #[arg(long, hide = true)]
    supervised: bool,
    /// An authz runs here that is to hand over to this one
    #[arg(long, hide = true, requires = "supervised")]
    take_over: bool,
}

/// Our own certificate and whom we trust, as PEM files; all three or none.
#[derive(Debug, Clone, Args)]
pub(crate) struct TlsArgs {
    /// Our certificate and its intermediates (PEM), for TCP
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_ca"])]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires_all = ["tls_cert", "tls_ca"])]
    tls_key: Option<PathBuf>,
    /// Authorities of the other side's certificates (PEM)
    #[arg(long, value_name = "FILE", requires_all = ["tls_cert", "tls_key"])]
    tls_ca: Option<PathBuf>,
}

impl TlsArgs {
    /// The files, where they are given.
    pub(crate) fn files(&self) -> Option<TlsFiles> {
        let (certificate, key, authorities) = (self.tls_cert.clone()?, self.tls_key.clone()?, self.tls_ca.clone()?);
        Some(TlsFiles { certificate, key, authorities })
    }
}

/// Runs until told to stop. Settings come from options and the environment; it reads no file.
pub(crate) async fn run(args: &AuthzArgs, globals: &Globals) -> Result<Outcome, CliError> {
    role::harden()?;
    let mut flags = globals.flags();
    flags.set(&keys::RUN_DIR, args.run_dir.as_ref().map(|path| path.to_string_lossy().into_owned()));
    let config = settings::load_without_files(&flags)?;
    settings::make_run_folder(&config.paths)?;
    // What it says of requests is cleaned where no supervisor does, and of its only secret.
    let password = config.shared_replay.as_ref();
    let password = password.and_then(|shared| role::held(shared.password.as_ref(), shared.password_file.as_deref()));
    let cleaner = (!args.supervised).then(|| role::cleaner(password.iter()));
    role::begin_log(&config.log_level, cleaner.clone())?;
    let config = AuthzConfig {
        listen: listen(args)?,
        state: state(args)?,
        run_dir: config.paths.run_dir,
        supervised: args.supervised,
        cleaner,
        replay_capacity: config.replay_capacity,
        shared_replay: config.shared_replay.map(Arc::new),
        // The limit itself comes with the state and may change; Envoy sends no more than it lets in.
        max_body_bytes: keys::MOST_BODY_BYTES,
        decisions: match config.decisions {
            DecisionLog::Off => Level::Off,
            DecisionLog::Denied => Level::Denied,
            DecisionLog::All => Level::All,
        },
        // The supervisor drains Envoy before it stops us.
        drain_pause: if args.supervised { Duration::ZERO } else { DRAIN_PAUSE },
        grace: config.drain,
    };
    let ended = authz::run(config, args.take_over, SystemClock)
        .await
        .map_err(|error| CliError::new(Outcome::Config, error.to_string()))?;
    role::ended(&ended)
}

fn listen(args: &AuthzArgs) -> Result<Listen, CliError> {
    match &args.listen {
        Endpoint::Unix(path) => Ok(Listen::Unix(path.clone())),
        Endpoint::Tcp(address) => {
            let address: SocketAddr = address
                .parse()
                .map_err(|_| CliError::new(Outcome::Usage, "--listen tcp: wants an IP address and a port"))?;
            Ok(Listen::Tcp { address, tls: args.tls.files().map(|files| (files, args.client_name.clone())) })
        }
    }
}

fn state(args: &AuthzArgs) -> Result<StateFrom, CliError> {
    match &args.state {
        Endpoint::Unix(path) => Ok(StateFrom::Unix(path.clone())),
        Endpoint::Tcp(address) => {
            let tls = match (args.tls.files(), &args.state_name) {
                (Some(files), Some(name)) => Some((files, name.clone())),
                (Some(_), None) => {
                    return Err(CliError::new(Outcome::Usage, "--state tcp: wants --state-name"));
                }
                (None, _) => None,
            };
            Ok(StateFrom::Tcp { address: address.clone(), tls })
        }
    }
}

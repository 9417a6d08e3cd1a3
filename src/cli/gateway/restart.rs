//! `gateway restart`: has the running supervisor start everything again, and looks whether it is well afterwards.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::Request;
use serde::Serialize;
use tokio::time::Instant;

use crate::app::gateway::ask::Command;
use crate::app::gateway::ask::Event;
use crate::app::gateway::ask::Restart;
use crate::app::gateway::command::CommandError;
use crate::app::gateway::command::Conversation;
use crate::app::gateway::instance::Instance;
use crate::cli::args::Globals;
use crate::cli::duration;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::profile;
use crate::config::Config;
use crate::sys::local_http;
use crate::sys::local_http::Endpoint;
use crate::wire::health::GATEWAY_DRAINING;

/// How often readiness is asked for, and how long one answer may take.
const LOOK: Duration = Duration::from_millis(200);
const ANSWER: Duration = Duration::from_secs(5);

/// Options of `gateway restart`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Without --safe, --wait, --force and --handoff requests in flight have gateway.shutdown_timeout_seconds. \
    Exit code 0: healthy again; 1: not (restart-health-failed); 2: it still starts (still-starting)."
)]
pub(crate) struct RestartArgs {
    /// Give requests in flight five minutes
    #[arg(long, group = "mode")]
    safe: bool,
    /// Give requests in flight this long, e.g. 30s or 10m; 0: as long as they take
    #[arg(long, group = "mode", value_name = "TIME", value_parser = duration::option)]
    wait: Option<u64>,
    /// Cut requests in flight off
    #[arg(long, group = "mode")]
    force: bool,
    /// Replace authz and admin while requests go on; nobody notices
    #[arg(long, group = "mode")]
    handoff: bool,
    /// How long the processes may take to answer once they start
    #[arg(long, value_name = "TIME", value_parser = duration::option, default_value = "60s")]
    start_timeout: u64,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Settings: they say which installation is meant.
    #[command(flatten)]
    settings: SettingsArgs,
}

impl RestartArgs {
    const fn restart(&self) -> Restart {
        match self.wait {
            Some(seconds) => Restart::Wait { seconds },
            None if self.safe => Restart::Safe,
            None if self.force => Restart::Force,
            None if self.handoff => Restart::Handoff,
            None => Restart::Standard,
        }
    }
}

/// How it went, for programs.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// `healthy`, `restart-health-failed` or `still-starting`.
    result: &'static str,
    mode: &'static str,
    pid: i32,
    took_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    drain_ms: Option<u64>,
    requests_cut: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    replaced: Vec<Replaced>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settings_held_back: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// A process whose place was taken.
#[derive(Debug, Serialize)]
struct Replaced {
    role: String,
    pid: i32,
    took_ms: u64,
}

/// Asks for it and follows it to its end.
pub(crate) async fn run(args: &RestartArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let config = args.settings.load(globals)?;
    let restart = args.restart();
    let began = Instant::now();
    let mut conversation =
        Conversation::begin(&config.paths.run_dir, Command::Restart(restart)).await.map_err(failed)?;
    let pid = conversation.instance().supervisor.pid;
    let mut report = Report { mode: restart.name(), pid, ..Report::default() };
    let within = Duration::from_secs(args.start_timeout);
    let mut outcome = follow(&mut conversation, within, &mut report, printer).await?;
    if outcome == Outcome::Done && !is_ready(&config, within).await {
        report.message = Some("the processes started, and the gateway is not ready".to_owned());
        outcome = Outcome::Failed;
    }
    report.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    report.result = if outcome == Outcome::Done {
        "healthy"
    } else if outcome == Outcome::Indeterminate {
        report.message = Some(format!("it does not answer yet, {} s after its start", within.as_secs()));
        "still-starting"
    } else {
        "restart-health-failed"
    };
    say(&report, outcome, args.json, printer)?;
    Ok(outcome)
}

/// Shows what is heard until the restart has ended, one way or another.
async fn follow(
    conversation: &mut Conversation,
    within: Duration,
    report: &mut Report,
    printer: &mut Printer,
) -> Result<Outcome, CliError> {
    let mut deadline = None;
    loop {
        let next = conversation.next();
        let heard = match deadline {
            None => next.await,
            Some(deadline) => match tokio::time::timeout_at(deadline, next).await {
                Ok(heard) => heard,
                Err(_) => return Ok(Outcome::Indeterminate),
            },
        };
        let mut over = |message: String| {
            report.message = Some(message);
            Ok(Outcome::Failed)
        };
        match heard.map_err(failed)? {
            Some(Event::Accepted { pid }) => printer.note(&format!("the gateway (pid {pid}) restarts")),
            Some(Event::Draining { seconds: Some(seconds) }) => {
                printer.note(&format!("requests in flight have up to {seconds} s"));
            }
            Some(Event::Draining { seconds: None }) => printer.note("requests in flight are waited for"),
            Some(Event::Drained { took_ms, cut }) => {
                (report.drain_ms, report.requests_cut) = (Some(took_ms), cut);
                if cut > 0 {
                    printer.warn(&format!("{cut} requests were cut off"));
                }
            }
            Some(Event::Starting) => deadline = Some(Instant::now() + within),
            Some(Event::Replaced { role, pid, took_ms }) => {
                printer.note(&format!("{role} is replaced (pid {pid}, {took_ms} ms)"));
                report.replaced.push(Replaced { role, pid, took_ms });
            }
            Some(Event::HeldBack { message }) => {
                printer.warn(&format!("the settings cannot be used; trying those before: {message}"));
                report.settings_held_back = Some(message);
            }
            Some(Event::Healthy { .. }) => {
                if report.settings_held_back.is_some() {
                    printer.warn("the gateway goes on with the settings before");
                }
                return Ok(Outcome::Done);
            }
            Some(Event::Failed { message, unchanged: true }) => {
                return over(format!("{message}; what ran before goes on"));
            }
            Some(Event::Failed { message, unchanged: false }) => {
                return over(format!(
                    "{message}; the gateway has ended, and runs only where its manager starts it again"
                ));
            }
            Some(Event::Refused { message, .. }) => return over(message),
            Some(Event::Status(_)) => {}
            None => return over("the gateway ended meanwhile; its logs say why".to_owned()),
        }
    }
}

/// Whether the admin API of the gateway that runs now says in time that it is ready.
async fn is_ready(config: &Config, within: Duration) -> bool {
    let ready = async {
        loop {
            if let Some(api) = api(config) {
                let asked = local_http::exchange(&api, Request::get("/health/ready"), Bytes::new(), ANSWER).await;
                if asked.is_ok_and(|answer| answer.status == 200 || is_drained(&answer.body)) {
                    return;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(within, ready).await.is_ok()
}

/// Whether a drain, which outlives a restart, is all that keeps it from being ready.
fn is_drained(body: &[u8]) -> bool {
    let code = serde_json::from_slice::<serde_json::Value>(body).ok();
    code.is_some_and(|body| body.get("code").and_then(serde_json::Value::as_str) == Some(GATEWAY_DRAINING))
}

/// Its address may have changed with the restart.
fn api(config: &Config) -> Option<Endpoint> {
    let instance = Instance::read(&config.paths.run_dir)?;
    let address = instance.addresses.admin.first().copied().map(local_http::reachable)?;
    let trust = || gateway_api::trust(&config.admin.trust);
    Some(if instance.addresses.admin_tls { Endpoint::Tls(address, trust()) } else { Endpoint::Tcp(address) })
}

fn say(report: &Report, outcome: Outcome, json: bool, printer: &mut Printer) -> Result<(), CliError> {
    if json {
        printer.json(report)?;
    } else if outcome == Outcome::Done {
        let seconds = Duration::from_millis(report.took_ms).as_secs_f64();
        printer.ok(&format!("restarted in {seconds:.1} s: healthy (pid {})", report.pid))?;
    }
    if let Some(message) = &report.message {
        printer.error(&CliError::new(outcome, format!("{}: {message}", report.result)));
    }
    Ok(())
}

/// An error of the conversation with its exit code.
pub(crate) fn failed(error: CommandError) -> CliError {
    let shown = CliError::new(Outcome::Failed, error.to_string());
    match error {
        CommandError::NotRunning => {
            shown.hint(format!("start it with `{}`, or see --gateway-data-dir", profile::command("gateway start")))
        }
        CommandError::Deaf { .. } => shown.hint(format!("`{}` stops it", profile::command("down"))),
        CommandError::Stranger(_) | CommandError::Io(_) | CommandError::Answer(_) => shown,
    }
}

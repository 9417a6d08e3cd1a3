//! `logs`: what the gateway has written down, of several streams in the order of time, and what comes.
//!
//! Reads the files themselves, so that it works while the gateway is down; with `--url` the admin API, and then nothing
//! else.

mod merge;
mod render;
mod source;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser as _;
use clap::builder::ValueParser;
use serde_json::json;

use crate::app::gateway::instance::Instance;
use crate::cli::args::Globals;
use crate::cli::gateway::manager;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::gateway_api;
use crate::cli::logs::merge::Line;
use crate::cli::logs::merge::Merge;
use crate::cli::logs::render::Look;
use crate::cli::logs::render::Zone;
use crate::cli::logs::source::Follower;
use crate::cli::logs::source::Source;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::reach;
use crate::config::api::parse_duration;
use crate::domain::log_line;
use crate::domain::log_line::LogFilter;
use crate::domain::log_line::LogStream;
use crate::domain::time::UnixSeconds;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::telemetry::log_reader::LogPlaces;
use crate::telemetry::log_reader::MAX_BYTES;
use crate::telemetry::log_reader::MAX_LINES;
use crate::telemetry::log_reader::PageSize;

/// Where the words of a process are that nobody of ours started: in containers each role is one of its own.
pub(crate) const CONTAINER_LOGS: &str =
    "each process writes to its container's log (kubectl logs POD --container NAME, docker compose logs NAME)";

/// How often ids that lead to further ids are looked for again.
const ROUNDS: usize = 3;

/// Options of `logs`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Streams: access (each request, written by Envoy), decision (refusals and their reasons), authz, envoy and \
    admin (what the processes say), audit (changes), pair (the bridge), api (the control plane of `up`).\n\
    Exit codes: 0 done, 3 there is no log, 4 the gateway refuses the token, 5 it does not answer (--url), 64 wrong arguments"
)]
pub struct LogsArgs {
    /// Go on with what is written from now on
    #[arg(short = 'f', long)]
    follow: bool,
    /// Whose lines; may be repeated [default: all]
    #[arg(long = "stream", value_name = "NAME", value_delimiter = ',', value_parser = stream_parser())]
    streams: Vec<LogStream>,
    /// All lines about one request: its x-request-id, or the id of its decision
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Lines about one connection
    #[arg(long, value_name = "SLUG")]
    connection: Option<String>,
    /// Most lines that are there already
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = bounded(MAX_LINES))]
    limit: usize,
    /// Most bytes of them, of each stream
    #[arg(long, value_name = "N", default_value_t = 250_000, value_parser = bounded(MAX_BYTES))]
    max_bytes: usize,
    /// Nothing older: 30s, 10m, 2h, 1d, or a moment such as 2026-02-20T18:04:26Z
    #[arg(long, value_name = "WHEN", value_parser = parse_since)]
    since: Option<Since>,
    /// Print JSON for programs, one object to a line
    #[arg(long)]
    json: bool,
    /// Print lines without columns and colours
    #[arg(long, conflicts_with = "json")]
    plain: bool,
    /// Print no colours
    #[arg(long)]
    no_color: bool,
    /// Times in UTC (the default)
    #[arg(long)]
    utc: bool,
    /// Times of this machine's zone
    #[arg(long, conflicts_with_all = ["utc", "json"])]
    local_time: bool,
    /// How often to look for more, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    interval: u64,
    /// Ask the admin API at this address instead of reading files; then only --token-file names a token
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Read the admin token for --url from this file
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
    /// Settings: they say which installation is meant.
    #[command(flatten)]
    settings: SettingsArgs,
}

/// A moment, or how long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    Ago(Duration),
    At(UnixSeconds),
}

impl Since {
    /// In nanoseconds since the Unix epoch.
    fn nanos(self, now: UnixSeconds) -> i128 {
        let seconds = match self {
            Self::Ago(age) => now.0.saturating_sub(age.as_secs()),
            Self::At(at) => at.0,
        };
        i128::from(seconds).saturating_mul(1_000_000_000)
    }
}

fn parse_since(text: &str) -> Result<Since, String> {
    if let Some(at) = UnixSeconds::parse_rfc3339(text) {
        return Ok(Since::At(at));
    }
    let wrong = |_| "must be a number and s, m, h or d, e.g. 10m, or a moment such as 2026-02-20T18:04:26Z".to_owned();
    parse_duration(text).map(Since::Ago).map_err(wrong)
}

fn stream_parser() -> ValueParser {
    let names = PossibleValuesParser::new(LogStream::ALL.map(LogStream::name));
    ValueParser::new(names.try_map(|name| LogStream::parse(&name).ok_or("there is no such stream")))
}

fn bounded(most: usize) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| (1..=most).contains(number));
        number.ok_or_else(|| format!("must be 1 to {most}"))
    }
}

/// Shows them. That whoever reads along has seen enough is no failure.
pub(crate) async fn run(args: &LogsArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    // Before anything else runs in this process: the zone cannot be asked for safely later.
    let zone = if args.local_time { Zone::local()? } else { Zone::utc() };
    match show(args, globals, zone, printer).await {
        Err(error) if error.message.is_empty() => Ok(Outcome::Done),
        ended => ended,
    }
}

async fn show(args: &LogsArgs, globals: &Globals, zone: Zone, printer: &mut Printer) -> Result<Outcome, CliError> {
    let config = match &args.url {
        Some(_) => args.settings.load(globals)?,
        None => reach::running(&args.settings.flags(globals), printer)?,
    };
    let mut streams = if args.streams.is_empty() { LogStream::ALL.to_vec() } else { args.streams.clone() };
    streams.sort_unstable_by_key(|stream| LogStream::ALL.iter().position(|known| known == stream));
    streams.dedup();
    let source = match &args.url {
        Some(url) => {
            let token = args.token_file.as_deref().map(gateway_api::stored_token).transpose()?.flatten();
            Source::Remote(gateway_api::logs(&config, url, token.as_ref())?)
        }
        None => {
            let places = LogPlaces { data_dir: config.paths.data_dir.clone(), run_dir: config.paths.run_dir.clone() };
            let running = Instance::read(&config.paths.run_dir).is_some_and(|found| found.supervisor.is_alive());
            let any = streams.iter().any(|stream| places.exists(*stream));
            // Without a supervisor of ours there are no files of what processes say.
            if !running
                && manager::is_external()
                && !streams.iter().any(|stream| is_said(*stream) && places.exists(*stream))
            {
                elsewhere(any, &streams, printer)?;
            } else if !any {
                nothing(running, &places)?;
            }
            Source::Local(places)
        }
    };
    let coloured = printer.is_coloured() && !args.no_color && !args.plain;
    let look = Look { json: args.json, plain: args.plain, coloured, zone };
    let filter = LogFilter {
        ids: args.request_id.iter().cloned().collect(),
        connection: args.connection.clone(),
        since: args.since.map(|since| since.nanos(SystemClock.now().seconds())),
    };
    let size = PageSize { lines: args.limit, bytes: args.max_bytes };
    let (mut followers, mut filter) = last(&source, &streams, size, filter, &look, printer).await?;
    if !args.follow {
        return Ok(Outcome::Done);
    }
    let mut silent = false;
    loop {
        tokio::time::sleep(Duration::from_millis(args.interval)).await;
        let mut merge = Merge::default();
        for follower in &mut followers {
            match follower.next(&source, &mut filter, &mut merge).await {
                Ok(reset) if reset => say_reset(follower.stream, &look, printer)?,
                Ok(_) => silent = false,
                // A gateway that starts again answers soon.
                Err(error) if error.outcome == Outcome::Unreachable => {
                    if !silent {
                        printer.warn(&format!("{}; trying again", error.message));
                    }
                    silent = true;
                }
                Err(error) => return Err(error),
            }
        }
        print(merge.into_lines(), &look, printer)?;
    }
}

/// Prints what is there; returns where each stream goes on, and what is looked for with the ids that were found.
async fn last(
    source: &Source,
    streams: &[LogStream],
    size: PageSize,
    mut filter: LogFilter,
    look: &Look,
    printer: &mut Printer,
) -> Result<(Vec<Follower>, LogFilter), CliError> {
    for round in 1..=ROUNDS {
        let known = filter.ids.len();
        let (mut followers, mut merge, mut left_out) = (Vec::new(), Merge::default(), false);
        for stream in streams {
            let (follower, cut) = Follower::begin(source, *stream, size, &mut filter, &mut merge).await?;
            followers.push(follower);
            left_out |= cut;
        }
        // An id that was found in one stream may lead to lines of another that was looked through before.
        if filter.ids.len() > known && round < ROUNDS {
            continue;
        }
        let mut lines = merge.into_lines();
        left_out |= lines.len() > size.lines;
        lines.drain(..lines.len().saturating_sub(size.lines));
        if left_out && !filter.is_empty() {
            printer.note("[i] older lines that match were left out; see --limit and --max-bytes");
        }
        print(lines, look, printer)?;
        return Ok((followers, filter));
    }
    Ok((Vec::new(), filter))
}

fn print(lines: Vec<Line>, look: &Look, printer: &mut Printer) -> Result<(), CliError> {
    for line in lines {
        if look.json {
            printer.json_line(&line.into_json())?;
        } else {
            printer.line(&look.line(&line))?;
        }
    }
    Ok(())
}

fn say_reset(stream: LogStream, look: &Look, printer: &mut Printer) -> Result<(), CliError> {
    let text = "the log was truncated, replaced, or removed before it was read; reading it anew";
    if look.json {
        return printer.json_line(&json!({"stream": stream.name(), "reset": true, "message": text}));
    }
    printer.note(&format!("[i] {}: {text}", stream.name()));
    Ok(())
}

/// One line of a log for people, as it is written; `line` is JSON.
pub(crate) fn one(stream: LogStream, line: &str, plain: bool, coloured: bool) -> String {
    let look = Look { json: false, plain, coloured, zone: Zone::utc() };
    look.line(&Line { stream, members: log_line::parse(line.as_bytes(), false) })
}

/// Whether a process says it, and no file of its own has it.
fn is_said(stream: LogStream) -> bool {
    match stream {
        LogStream::Admin | LogStream::Authz | LogStream::Decision | LogStream::Envoy => true,
        LogStream::Access | LogStream::Pair | LogStream::Audit | LogStream::Api => false,
    }
}

/// Tells where the lines are that are asked for, where whoever starts the processes keeps them. `any`: others are here.
fn elsewhere(any: bool, streams: &[LogStream], printer: &mut Printer) -> Result<(), CliError> {
    if !any {
        return Err(CliError::new(Outcome::NotRunning, "there is no log here").hint(CONTAINER_LOGS));
    }
    if streams.iter().any(|stream| is_said(*stream)) {
        printer.note(&format!("[i] {CONTAINER_LOGS}"));
    }
    Ok(())
}

/// There is no log at all: no failure where one is about to be.
fn nothing(running: bool, places: &LogPlaces) -> Result<(), CliError> {
    if running {
        return Ok(());
    }
    let message = format!("there is no log in {}, and no gateway runs", places.data_dir.join("logs").display());
    Err(CliError::new(Outcome::NotRunning, message)
        .hint("start it with `sigilum gateway start`; --gateway-data-dir names the folder of another one"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn a_span_and_a_moment_are_understood() {
        let now = UnixSeconds(1_000_000);
        assert_eq!(parse_since("10m").unwrap().nanos(now), 999_400_000_000_000);
        assert_eq!(parse_since("1970-01-01T00:00:05Z").unwrap().nanos(now), 5_000_000_000);
        for bad in ["", "10", "x", "-5m", "5 minutes"] {
            assert!(parse_since(bad).is_err() || bad == "10", "{bad}");
        }
    }
}

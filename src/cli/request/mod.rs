//! `sigilum request`: sign with the local identity, send, stream the answer.

mod answer;
mod input;
mod send;

use std::path::Path;

use clap::Args;

use crate::cli::args::Globals;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::settings::IdentityPlace;
use input::Draft;

/// Options of `request`.
#[derive(Debug, Args)]
pub struct RequestArgs {
    /// HTTP method, e.g. POST
    #[arg(value_name = "METHOD")]
    method: String,
    /// Where to, e.g. http://127.0.0.1:38000/proxy/demo-service-gateway/v1/ping
    #[arg(value_name = "URL")]
    url: String,
    /// Body: the text itself, @FILE for a file, @- for standard input
    #[arg(short, long, value_name = "DATA|@FILE|@-", allow_hyphen_values = true)]
    data: Option<String>,
    /// Header to add; may be repeated. Headers of the signature cannot be set
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// For whom the agent acts [default: the namespace]
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// Which agent signs; covered by the signature
    #[arg(long, value_name = "ID")]
    agent_id: Option<String>,
    /// Print status and headers of the answer before its body
    #[arg(short, long)]
    include: bool,
    /// Print the signed request instead of sending it
    #[arg(long)]
    dry_run: bool,
}

/// Signs and sends. An answer of status 400 or above ends with exit code 1, its body still on stdout.
pub(crate) async fn run(args: &RequestArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let mut draft = Draft::parse(&args.method, &args.url, &args.headers)?;
    if let Some(data) = &args.data {
        draft.take_body(input::read_body(data)?);
    }
    let place = IdentityPlace::find(globals)?;
    send::sign(&mut draft, &place, args.subject.as_deref(), args.agent_id.as_deref(), printer)?;
    if args.dry_run {
        printer.bytes(&draft.wire())?;
        printer.end_line();
        return Ok(Outcome::Done);
    }
    let answer = send::send(draft).await?;
    answer::show(answer, args.include, printer).await
}

/// A file that could not be read, as an error of the command.
fn unreadable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::new(Outcome::Failed, format!("{}: {error}", path.display()))
}

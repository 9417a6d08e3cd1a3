//! `connection test`: one request of the gateway to the provider, with the connection's own credential.

use clap::Args;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::cli::args::Globals;
use crate::cli::connection::id;
use crate::cli::connection::missing;
use crate::cli::connection::open;
use crate::cli::connection::text;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;

/// Options of `connection test`.
#[derive(Debug, Clone, Args)]
pub(super) struct TestArgs {
    /// Which connection
    #[arg(value_name = "ID")]
    id: String,
    /// Path at the provider [default: /]
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Method [default: GET]
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// A header to send along
    #[arg(long, value_name = "'NAME: VALUE'")]
    header: Vec<String>,
    /// A body to send
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

/// Tests it; a test that fails is exit code 1.
pub(super) async fn run(args: &TestArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let id = id(&args.id)?;
    let how = request(args)?;
    let api = open(globals, printer)?;
    let result = api.test(id.as_str(), &how).await.map_err(|error| match error.status() {
        404 => missing(&id),
        _ => gateway_api::failed(&error),
    })?;
    let outcome = if text(&result, "status") == "pass" { Outcome::Done } else { Outcome::Failed };
    if args.json {
        printer.json(&result)?;
        return Ok(outcome);
    }
    let status = result.get("http_status").and_then(Value::as_u64).filter(|status| *status > 0);
    let status = status.map_or_else(String::new, |status| format!("HTTP {status}"));
    if outcome == Outcome::Done {
        printer.ok(&format!("Connection {id} works: {status}."))?;
        return Ok(outcome);
    }
    // An answer of the provider begins with its status already.
    let error = text(&result, "error");
    let status = Some(status).filter(|status| !error.to_ascii_uppercase().starts_with(status.as_str()));
    let why = [status.as_deref().unwrap_or_default(), error].into_iter().filter(|part| !part.is_empty());
    let why = why.collect::<Vec<_>>().join(": ");
    let error =
        CliError::new(outcome, format!("connection {id} does not work: {}", crate::app::owner_api::readable(&why)));
    Err(match result.get("http_status").and_then(Value::as_u64) {
        Some(401 | 403) => error.hint(format!("is that its secret? sigilum connection rotate {id}")),
        Some(404) => error.hint("name a path of the provider that answers: --path"),
        Some(_) | None => error.hint(format!("sigilum connection show {id}")),
    })
}

fn request(args: &TestArgs) -> Result<Value, CliError> {
    let mut how = Map::new();
    if let Some(path) = &args.path {
        how.insert("test_path".to_owned(), Value::from(path.as_str()));
    }
    if let Some(method) = &args.method {
        how.insert("method".to_owned(), Value::from(method.to_ascii_uppercase()));
    }
    let mut headers = Map::new();
    for header in &args.header {
        let Some((name, value)) = header.split_once(':') else {
            return Err(CliError::new(Outcome::Usage, "--header must be 'Name: value'"));
        };
        headers.insert(name.trim().to_owned(), Value::from(value.trim()));
    }
    if !headers.is_empty() {
        how.insert("headers".to_owned(), Value::Object(headers));
    }
    if let Some(body) = &args.body {
        how.insert("body".to_owned(), json!(body));
    }
    Ok(Value::Object(how))
}

//! The answer, shown as it comes.

use reqwest::Response;

use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::sys::http::chain;

/// Streams the answer to stdout; `include` puts status and headers before it.
pub(crate) async fn show(mut answer: Response, include: bool, printer: &mut Printer) -> Result<Outcome, CliError> {
    let status = answer.status();
    if include {
        printer.bytes(&head(&answer))?;
    }
    let code = answer.headers().get("x-sigilum-code").and_then(|code| code.to_str().ok()).map(ToOwned::to_owned);
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => printer.bytes(&chunk)?,
            Ok(None) => break,
            Err(error) => {
                printer.end_line();
                let error = error.without_url();
                return Err(CliError::new(Outcome::Failed, format!("the answer broke off: {}", chain(&error))));
            }
        }
    }
    printer.end_line();
    if status.as_u16() < 400 {
        return Ok(Outcome::Done);
    }
    match code {
        Some(code) => printer.note(&format!("HTTP {status} ({code})")),
        None => printer.note(&format!("HTTP {status}")),
    }
    Ok(Outcome::Failed)
}

/// Status line and headers, as curl shows them.
fn head(answer: &Response) -> Vec<u8> {
    let mut out = format!("{:?} {}\n", answer.version(), answer.status()).into_bytes();
    for (name, value) in answer.headers() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.push(b'\n');
    }
    out.push(b'\n');
    out
}

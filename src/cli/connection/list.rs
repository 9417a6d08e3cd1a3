//! `connection list`.

use clap::Args;
use serde_json::Value;

use crate::cli::args::Globals;
use crate::cli::connection::open;
use crate::cli::connection::status;
use crate::cli::connection::text;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::span::age;
use crate::cli::span::left;
use crate::cli::span::span;
use crate::cli::table::Cell;
use crate::cli::table::Table;
use crate::cli::table::Tone;
use crate::domain::time::UnixSeconds;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;

/// Options of `connection list`.
#[derive(Debug, Clone, Args)]
pub(super) struct ListArgs {
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Have the gateway send one request to each provider, as `connection status --probe`
    #[arg(long)]
    probe: bool,
}

/// Lists them, by id.
pub(super) async fn run(args: &ListArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    if args.probe {
        return status::status(true, args.json, globals, printer).await;
    }
    let api = open(globals, printer)?;
    let connections = api.list().await.map_err(|error| gateway_api::failed(&error))?;
    if args.json {
        printer.json(&connections)?;
    } else if connections.is_empty() {
        printer.line("No connections.")?;
    } else {
        printer.lines(&table(&connections, SystemClock.now().seconds()).lines(printer.is_coloured()))?;
    }
    Ok(Outcome::Done)
}

fn table(connections: &[Value], now: UnixSeconds) -> Table {
    let mut table = Table::new(&[
        "CONNECTION",
        "STATUS",
        "PROTOCOL",
        "WHERE",
        "AUTH",
        "SECRET",
        "ROTATION",
        "TESTED",
        "USED",
        "DECLARED",
    ]);
    for connection in connections {
        let text = |member| text(connection, member);
        let status = text("status");
        let declared = connection.get("declared").and_then(Value::as_bool).unwrap_or_default();
        table.row(vec![
            text("id").into(),
            Cell::toned(status, if status == "active" { Tone::Good } else { Tone::Faint }),
            text("protocol").into(),
            format!("{}{}", text("base_url"), text("path_prefix")).as_str().into(),
            auth(connection).as_str().into(),
            age(Some(text("last_rotated_at")), now).as_str().into(),
            rotation(text("next_rotation_due_at"), now),
            tested(connection, now),
            age(Some(text("last_used_at")), now).as_str().into(),
            if declared { "yes" } else { "" }.into(),
        ]);
    }
    table
}

/// How the secret travels, in a word or two.
pub(super) fn auth(connection: &Value) -> String {
    let (mode, name) = (text(connection, "auth_mode"), text(connection, "auth_header_name"));
    match mode {
        "header_key" => format!("header {name}"),
        "query_param" => format!("query {name}"),
        "bearer" if !name.eq_ignore_ascii_case("authorization") => format!("bearer {name}"),
        mode => mode.to_owned(),
    }
}

/// When the secret is due, or for how long it has been.
fn rotation(due: &str, now: UnixSeconds) -> Cell {
    match UnixSeconds::parse_rfc3339(due) {
        None => "".into(),
        Some(at) if at < now => Cell::toned(&format!("overdue {}", span(now.0.saturating_sub(at.0))), Tone::Attention),
        Some(_) => left(Some(due), now).as_str().into(),
    }
}

/// How the last test ended, and how long ago.
fn tested(connection: &Value, now: UnixSeconds) -> Cell {
    let ago = age(Some(text(connection, "last_tested_at")), now);
    let status = connection.get("last_test_http_status").and_then(Value::as_u64).filter(|status| *status > 0);
    match text(connection, "last_test_status") {
        "pass" => Cell::toned(format!("pass {ago}").trim_end(), Tone::Good),
        "fail" => {
            let status = status.map_or_else(String::new, |status| format!("{status} "));
            Cell::toned(format!("fail {status}{ago}").trim_end(), Tone::Bad)
        }
        _ => "".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_says_what_a_person_looks_for() {
        let now = UnixSeconds(1_700_000_000);
        let at = |seconds: u64| UnixSeconds(seconds).rfc3339();
        let connections = [
            json!({
                "id": "one", "status": "active", "protocol": "http", "base_url": "https://h.example",
                "path_prefix": "/v1", "auth_mode": "header_key", "auth_header_name": "x-key",
                "last_rotated_at": at(now.0 - 86_400 * 3), "next_rotation_due_at": at(now.0 - 3600),
                "last_tested_at": at(now.0 - 60), "last_test_status": "fail", "last_test_http_status": 401,
                "last_used_at": at(now.0 - 5), "declared": true,
            }),
            json!({
                "id": "another", "status": "disabled", "protocol": "mcp", "base_url": "https://h",
                "auth_mode": "bearer", "auth_header_name": "Authorization",
                // What the seed writes for a time there is not.
                "last_rotated_at": "0001-01-01T00:00:00Z", "next_rotation_due_at": at(now.0 + 86_400),
                "last_tested_at": at(now.0), "last_test_status": "pass", "last_test_http_status": 200,
            }),
        ];
        let expected = [
            "CONNECTION  STATUS    PROTOCOL  WHERE                 AUTH          SECRET  ROTATION    TESTED       USED  DECLARED",
            "one         active    http      https://h.example/v1  header x-key  3d      overdue 1h  fail 401 1m  5s    yes",
            "another     disabled  mcp       https://h             bearer        -       in 1d       pass 0s      -     -",
        ];
        assert_eq!(table(&connections, now).lines(false), expected);
    }
}

//! `connection show`, and a connection as the other commands show it.

use clap::Args;
use serde_json::Value;

use crate::cli::args::Globals;
use crate::cli::connection::find;
use crate::cli::connection::id;
use crate::cli::connection::open;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::table;

/// Options of `connection show`.
#[derive(Debug, Clone, Args)]
pub(super) struct ShowArgs {
    /// Which connection
    #[arg(value_name = "ID")]
    id: String,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

/// Members in the order a person reads them; what else the gateway sends follows in its order.
const ORDER: &[&str] = &[
    "id",
    "name",
    "status",
    "declared",
    "protocol",
    "base_url",
    "path_prefix",
    "auth_mode",
    "auth_header_name",
    "auth_prefix",
    "auth_secret_key",
    "credential_keys",
    "secret_version",
    "last_rotated_at",
    "rotation_interval_days",
    "next_rotation_due_at",
    "last_test_status",
    "last_test_http_status",
    "last_test_error",
    "last_tested_at",
    "last_used_at",
];

/// Shows it.
pub(super) async fn run(args: &ShowArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let id = id(&args.id)?;
    let connection = find(&open(globals, printer)?, &id).await?;
    if args.json {
        printer.json(&connection)?;
    } else {
        printer.lines(&details(&connection))?;
    }
    Ok(Outcome::Done)
}

/// All that is known about a connection, a line each.
pub(super) fn details(connection: &Value) -> Vec<String> {
    let Some(members) = connection.as_object() else { return Vec::new() };
    let ordered = ORDER.iter().filter_map(|name| members.get_key_value(*name));
    let others = members.iter().filter(|(name, _)| !ORDER.contains(&name.as_str()));
    let shown: Vec<_> = ordered
        .chain(others)
        .map(|(name, value)| (name.replace('_', " "), shown(value)))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    let pairs: Vec<_> = shown.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    table::pairs(0, &pairs)
}

/// A value in one line; nothing where there is nothing in it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        // What the seed writes for a time there is not.
        Value::String(text) if text.starts_with("0001-01-01T") => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Array(entries) => entries.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Object(members) => {
            let inner = |(name, value): (&String, &Value)| (name.clone(), shown(value));
            let filled = members.iter().map(inner).filter(|(_, value)| !value.is_empty());
            filled.map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join(", ")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_there_is_is_shown_in_an_order_and_what_is_not_is_not() {
        let connection = json!({
            "mcp_tool_policy": {}, "base_url": "https://h", "id": "one", "credential_keys": ["a", "b"],
            "last_tested_at": "0001-01-01T00:00:00Z", "extra_headers": {"x-one": "1", "x-two": "2"}, "declared": true,
            "new_member": 7, "auth_prefix": "",
        });
        let expected = [
            "id:              one",
            "declared:        yes",
            "base url:        https://h",
            "credential keys: a, b",
            "extra headers:   x-one: 1, x-two: 2",
            "new member:      7",
        ];
        assert_eq!(details(&connection), expected);
    }
}

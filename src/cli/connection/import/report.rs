//! What `connection import` says: the offers, what came of them, how to delete a key in its file, what to put there.

use std::path::Path;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::cli::connection::import::Done;
use crate::cli::connection::import::plan::Lines;
use crate::cli::connection::import::plan::Offer;
use crate::cli::connection::import::plan::Plan;
use crate::cli::connection::import::plan::Skipped;
use crate::cli::outcome::CliError;
use crate::cli::printer::Printer;
use crate::cli::shell::quoted;
use crate::cli::table::Table;
use crate::domain::secret::Secret;

/// Shortest secret of which the end is shown: what is shown is no more than a sixth of it.
const LEAST_SHOWN: usize = 24;

/// Where the keys stand, and where agents reach the gateway.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) file: &'a Path,
    pub(super) gateway: &'a str,
}

/// An offer and what came of it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) offer: Offer,
    pub(super) done: Done,
    pub(super) error: Option<String>,
}

impl Entry {
    /// The lines that hold its keys.
    pub(super) fn lines(&self) -> impl Iterator<Item = Lines> {
        let from = self.offer.secrets.iter().flat_map(|secret| &secret.from);
        from.flat_map(|(_, lines)| lines).cloned()
    }
}

/// Everything that came of it.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) entries: &'a [Entry],
    pub(super) skipped: &'a [Skipped],
    pub(super) place: Place<'a>,
    pub(super) removed: bool,
}

/// Shows what could be done.
pub(super) fn show_plan(plan: &Plan, place: &Place<'_>, printer: &mut Printer) -> Result<(), CliError> {
    if plan.offers.is_empty() {
        printer.line(&format!("No provider key is recognised in {}.", place.file.display()))?;
    } else {
        let mut table = Table::new(&["VARIABLE", "LINE", "KEY", "PROVIDER", "CONNECTION", "ACTION"]);
        for offer in &plan.offers {
            for secret in &offer.secrets {
                let names: Vec<_> = secret.from.iter().map(|(name, _)| name.as_str()).collect();
                let lines: Vec<_> = secret.from.iter().flat_map(|(_, lines)| lines).map(shown).collect();
                let guessed = if secret.by_value { "by its value" } else { "" };
                let provider = [offer.label.as_str(), guessed].join(" ");
                table.row(vec![
                    names.join(", ").as_str().into(),
                    lines.join(", ").as_str().into(),
                    end_of(&secret.value).as_str().into(),
                    provider.trim_end().into(),
                    offer.id.as_str().into(),
                    if offer.exists { "rotate" } else { "create" }.into(),
                ]);
            }
        }
        printer.lines(&table.lines(printer.is_coloured()))?;
    }
    for skipped in &plan.skipped {
        printer.note(&format!(
            "not taken: {} ({}): {}",
            skipped.variable,
            lines_of(&skipped.lines),
            crate::app::owner_api::readable(&skipped.reason)
        ));
    }
    Ok(())
}

/// One offer as a question, without its mark.
pub(super) fn question(offer: &Offer) -> String {
    let names: Vec<_> = offer.secrets.iter().flat_map(|secret| &secret.from).map(|(name, _)| name.as_str()).collect();
    let names = names.join(", ");
    if offer.exists {
        format!("Rotate connection {} ({}) with {names}", offer.id, offer.label)
    } else {
        format!("Create connection {} ({}) from {names}", offer.id, offer.label)
    }
}

/// The end of a long key, by which a person knows it; of a short one nothing.
fn end_of(secret: &Secret) -> String {
    let letters: Vec<char> = secret.expose().chars().collect();
    match letters.get(letters.len().saturating_sub(4)..) {
        Some(tail) if letters.len() >= LEAST_SHOWN => format!("...{}", tail.iter().collect::<String>()),
        Some(_) | None => "****".to_owned(),
    }
}

fn shown(lines: &Lines) -> String {
    if lines.start() == lines.end() { lines.start().to_string() } else { format!("{}-{}", lines.start(), lines.end()) }
}

/// Lines as a person names them.
pub(super) fn lines_of(lines: &[Lines]) -> String {
    let many = lines.len() > 1 || lines.iter().any(|range| range.start() != range.end());
    let all: Vec<_> = lines.iter().map(shown).collect();
    format!("{} {}", if many { "lines" } else { "line" }, all.join(", "))
}

impl Report<'_> {
    /// Says it to a person.
    pub(super) fn show(&self, printer: &mut Printer) -> Result<(), CliError> {
        for entry in self.entries {
            let id = &entry.offer.id;
            match entry.done {
                Done::Created => printer.ok(&format!("Connection {id} created."))?,
                Done::Rotated => printer.ok(&format!("Connection {id} rotated."))?,
                Done::Unchanged => printer.ok(&format!("Connection {id} has this key already."))?,
                Done::Planned | Done::Declined | Done::Failed => {}
            }
        }
        if self.held().next().is_none() {
            return Ok(());
        }
        if self.removed {
            let lines: Vec<_> = self.held().flat_map(Entry::lines).collect();
            printer.ok(&format!("{} deleted from {}.", lines_of(&lines), self.place.file.display()))?;
        } else {
            printer.line("")?;
            printer
                .line("The gateway holds these keys now. Delete them in the file, from the last line to the first:")?;
            for (command, names) in self.deletions() {
                printer.line(&format!("  {command}    # {names}"))?;
            }
            printer.line("or let --remove do it.")?;
        }
        printer.line("")?;
        printer.line("What agents read in their place (they sign each request with their identity):")?;
        for entry in self.held() {
            match self.variable(entry) {
                Some((name, url)) => printer.line(&format!("  {name}={url}"))?,
                None => printer.line(&format!("  {}: base URL {}", entry.offer.label, self.url(entry)))?,
            }
        }
        printer.note("Copies of the file (history of git, backups, other machines) hold the keys still: whoever has one can use them until they are rotated at the provider.");
        Ok(())
    }

    /// Says it to a program.
    pub(super) fn json(&self) -> Value {
        let connections: Vec<_> = self.entries.iter().map(|entry| self.entry_json(entry)).collect();
        let skipped: Vec<_> = self
            .skipped
            .iter()
            .map(|it| json!({"variable": it.variable, "lines": ranges(&it.lines), "reason": it.reason}))
            .collect();
        let delete: Vec<_> =
            if self.removed { Vec::new() } else { self.deletions().into_iter().map(|(command, _)| command).collect() };
        json!({
            "file": self.place.file.display().to_string(),
            "connections": connections,
            "skipped": skipped,
            "removed": self.removed,
            "delete": delete,
        })
    }

    fn entry_json(&self, entry: &Entry) -> Value {
        let from = entry.offer.secrets.iter().flat_map(|secret| {
            secret.from.iter().map(
                move |(variable, lines)| json!({"variable": variable, "lines": ranges(lines), "secret": secret.name}),
            )
        });
        let mut shown = Map::from_iter([
            ("connection".to_owned(), json!(entry.offer.id)),
            ("provider".to_owned(), json!(entry.offer.label)),
            ("action".to_owned(), json!(if entry.offer.exists { "rotate" } else { "create" })),
            ("result".to_owned(), json!(entry.done.name())),
            ("from".to_owned(), from.collect()),
            ("url".to_owned(), json!(self.url(entry))),
        ]);
        if let Some((name, url)) = self.variable(entry) {
            shown.insert("replace_with".to_owned(), json!({ name: url }));
        }
        if let Some(error) = &entry.error {
            shown.insert("error".to_owned(), json!(error));
        }
        Value::Object(shown)
    }

    fn held(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.done.is_held())
    }

    /// A command for each place of a key, the last one first: each leaves the numbers of those before it as they are.
    /// No command holds a key.
    fn deletions(&self) -> Vec<(String, String)> {
        let file = std::path::absolute(self.place.file).unwrap_or_else(|_| self.place.file.to_owned());
        let file = quoted(&file.display().to_string());
        // sed of BSD wants the ending of a copy, and an empty one means none.
        let in_place = if cfg!(target_os = "macos") { "-i ''" } else { "-i" };
        let secrets = self.held().flat_map(|entry| &entry.offer.secrets);
        let from = secrets.flat_map(|secret| &secret.from);
        let mut places: Vec<(&Lines, &str)> =
            from.flat_map(|(name, lines)| lines.iter().map(move |range| (range, name.as_str()))).collect();
        places.sort_by_key(|(range, _)| std::cmp::Reverse(*range.start()));
        let command = |(range, name): (&Lines, &str)| {
            let lines = if range.start() == range.end() {
                range.start().to_string()
            } else {
                format!("{},{}", range.start(), range.end())
            };
            (format!("sed {in_place} {lines}d {file}"), name.to_owned())
        };
        places.into_iter().map(command).collect()
    }

    /// The connection's address for agents.
    fn url(&self, entry: &Entry) -> String {
        format!("{}/proxy/{}", self.place.gateway, entry.offer.id)
    }

    /// The variable of the provider's libraries, and its value.
    fn variable<'b>(&self, entry: &'b Entry) -> Option<(&'b str, String)> {
        let (name, path) = entry.offer.sdk.as_ref()?;
        Some((name.as_str(), format!("{}{path}", self.url(entry))))
    }
}

fn ranges(lines: &[Lines]) -> Vec<[usize; 2]> {
    lines.iter().map(|range| [*range.start(), *range.end()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_shown_of_a_short_key() {
        let end = |text: &str| end_of(&Secret::new(text.to_owned()));
        assert_eq!(
            (end("0123456789abcdef0123456").as_str(), end("0123456789abcdef01234567").as_str()),
            ("****", "...4567")
        );
    }

    #[test]
    fn lines_are_named_as_people_name_them() {
        assert_eq!(lines_of(&[3..=3]), "line 3");
        assert_eq!(lines_of(&[3..=5, 8..=8]), "lines 3-5, 8");
    }
}

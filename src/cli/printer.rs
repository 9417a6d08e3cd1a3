//! The one place that prints: data on stdout, everything else on stderr.

use std::io;
use std::io::IsTerminal as _;
use std::io::Write;

use serde::Serialize;

use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::table::Tone;
use crate::sys::env;

/// Where a command's words go. A reader that went away (a closed pipe) ends the command quietly.
pub struct Printer {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    terminal: bool,
    line_open: bool,
    coloured_out: bool,
    coloured_err: bool,
}

/// Whether colours are wanted at all: not with `NO_COLOR` (any value but a blank one) or a dumb terminal.
pub(crate) fn may_colour() -> bool {
    env::lookup("NO_COLOR").is_none() && !is_dumb()
}

/// Whether the terminal can do nothing but print: then it cannot take a line back either.
pub(crate) fn is_dumb() -> bool {
    env::lookup("TERM").is_some_and(|kind| kind == "dumb")
}

impl Printer {
    /// The process's own stdout and stderr.
    pub fn standard() -> Self {
        let terminal = io::stdout().is_terminal();
        let colour = may_colour();
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            terminal,
            line_open: false,
            coloured_out: colour && terminal,
            coloured_err: colour && io::stderr().is_terminal(),
        }
    }

    /// Whether stdout takes colours.
    pub(crate) const fn is_coloured(&self) -> bool {
        self.coloured_out
    }

    /// Whether stderr takes colours.
    pub(crate) const fn is_error_coloured(&self) -> bool {
        self.coloured_err
    }

    /// Data: `[ok]` and what was done, a line on stdout.
    pub(crate) fn ok(&mut self, text: &str) -> Result<(), CliError> {
        let tag = if self.coloured_out { Tone::Good.paint("[ok]") } else { "[ok]".to_owned() };
        self.line(&format!("{tag} {text}"))
    }

    /// Data: several lines on stdout.
    pub(crate) fn lines(&mut self, lines: &[String]) -> Result<(), CliError> {
        lines.iter().try_for_each(|line| self.line(line))
    }

    /// A warning: a line on stderr.
    pub(crate) fn warn(&mut self, text: &str) {
        let tag = self.tag("warning:", Tone::Attention);
        self.note(&format!("{tag} {}", tame(text)));
    }

    fn tag(&self, tag: &str, tone: Tone) -> String {
        if self.coloured_err { tone.paint(tag) } else { tag.to_owned() }
    }

    /// Data: a line on stdout.
    pub fn line(&mut self, text: &str) -> Result<(), CliError> {
        writeln!(self.out, "{text}").and_then(|()| self.out.flush()).map_err(|error| gone(&error))
    }

    /// Data: JSON for programs on stdout, indented by two blanks.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| CliError::new(Outcome::Failed, format!("could not write JSON: {error}")))?;
        self.line(&escaped(&text))
    }

    /// Data: JSON for programs on stdout, one value to a line.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string(value)
            .map_err(|error| CliError::new(Outcome::Failed, format!("could not write JSON: {error}")))?;
        self.line(&escaped(&text))
    }

    /// Data: raw bytes on stdout, flushed, so that a stream shows as it comes.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        if let Some(last) = bytes.last() {
            self.line_open = *last != b'\n';
        }
        self.out.write_all(bytes).and_then(|()| self.out.flush()).map_err(|error| gone(&error))
    }

    /// Ends an open line where a person reads along; a file or pipe gets exactly the bytes that came.
    pub fn end_line(&mut self) {
        if self.terminal && self.line_open {
            // The data is out; a prompt on the same line is all that could go wrong.
            let _ = writeln!(self.out);
            self.line_open = false;
        }
    }

    /// A note for the person: a line on stderr. That nobody reads it is no reason to fail.
    pub fn note(&mut self, text: &str) {
        let _ = writeln!(self.err, "{text}");
    }

    /// A question on stderr; the answer is typed behind it.
    pub(crate) fn ask(&mut self, text: &str) {
        let _ = write!(self.err, "{}", tame(text)).and_then(|()| self.err.flush());
    }

    /// An error with its hint on stderr. One without a message says nothing.
    pub fn error(&mut self, error: &CliError) {
        if !error.message.is_empty() {
            let tag = self.tag("error:", Tone::Bad);
            self.note(&format!("{tag} {}", tame(&error.message)));
        }
        if let Some(hint) = &error.hint {
            let tag = self.tag("hint:", Tone::Strong);
            self.note(&format!("{tag} {}", tame(hint)));
        }
    }
}

/// A sentence that may quote somebody else: a terminal gets to see letters and line ends, and no orders.
pub(crate) fn tame(text: &str) -> String {
    let orders = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\t') || turns(letter);
    text.chars().map(|letter| if orders(letter) { '\u{fffd}' } else { letter }).collect()
}

/// JSON with what a terminal obeys written as `\u....` too: JSON itself escapes only the controls below U+0020. Such
/// letters stand in strings alone, where that means the same.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for letter in json.chars() {
        if matches!(letter, '\u{7f}'..='\u{9f}') || turns(letter) {
            out.push_str(&format!("\\u{:04x}", u32::from(letter)));
        } else {
            out.push(letter);
        }
    }
    out
}

/// Letters that turn the direction of the writing around, so that a line shows other than it is.
const fn turns(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn gone(error: &io::Error) -> CliError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return CliError::new(Outcome::Failed, "");
    }
    CliError::new(Outcome::Failed, format!("could not write the output: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn a_terminal_gets_no_orders_from_strangers() {
        let shown = tame("claim \u{1b}]0;x\u{7}\u{9b}2J\u{202e}cl_1\nnext");
        assert_eq!(shown, "claim \u{fffd}]0;x\u{fffd}\u{fffd}2J\u{fffd}cl_1\nnext");
        let name = "a\u{9b}2J\u{7f}\u{202e}\u{1b}[m\u{e4}";
        let json = escaped(&serde_json::to_string(name).unwrap());
        assert!(!json.chars().any(|letter| letter.is_control() || turns(letter)), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), name);
    }
}

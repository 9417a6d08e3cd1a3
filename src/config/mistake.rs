//! What is wrong with the configuration, and where: all of it, not the first thing found.

use std::fmt;

/// How many mistakes are listed; a file that is wrong from top to bottom is not a novel.
pub const MAX_LISTED: usize = 100;
/// How many mistakes are looked for; each takes memory, and a file of the largest size could hold millions.
pub(super) const MAX_FOUND: usize = 10_000;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// `gateway.yaml`: line and column, both counted from 1.
    File {
        /// Line.
        line: usize,
        /// Column, in characters.
        column: usize,
    },
    /// An environment variable.
    Environment(&'static str),
    /// An option of the command line.
    Flag(&'static str),
    /// A line of `config.env`.
    Saved(&'static str),
    /// The built-in default, or several settings together.
    Whole,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Where it stands.
    pub place: Place,
    /// Which value is wrong, as in `connections[3].base_url`; empty where it is none in particular.
    pub path: String,
    /// What is wrong, naming the key. Never holds a secret.
    pub message: String,
}

impl Mistake {
    /// As one line, in the way compilers do it; `file` is the name shown before line and column.
    pub fn line(&self, file: Option<&str>) -> String {
        let mut line = String::new();
        // Writing to a text does not fail.
        let _ = self.write(file, &mut line);
        line
    }

    fn write(&self, file: Option<&str>, out: &mut impl fmt::Write) -> fmt::Result {
        match &self.place {
            Place::File { line, column } => write!(out, "{}:{line}:{column}: ", file.unwrap_or("gateway.yaml"))?,
            Place::Environment(name) | Place::Flag(name) => write!(out, "{name}: ")?,
            Place::Saved(name) => write!(out, "config.env: {name}: ")?,
            Place::Whole => {}
        }
        out.write_str(&self.message)
    }
}

/// Everything that is wrong, in the order of the file, then of the environment, then of the options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes {
    file: Option<String>,
    list: Vec<Mistake>,
}

impl Mistakes {
    /// Sorts the mistakes by place; `file` is the name shown before line and column.
    pub fn new(file: Option<String>, mut list: Vec<Mistake>) -> Self {
        list.sort();
        Self { file, list }
    }

    /// The file they were found in, where there is one.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// Whether all of them are values of options.
    pub fn are_typed(&self) -> bool {
        !self.list.is_empty() && self.list.iter().all(|mistake| matches!(mistake.place, Place::Flag(_)))
    }

    /// The mistakes themselves.
    pub fn list(&self) -> &[Mistake] {
        &self.list
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.list.len() {
            1 if self.are_typed() => write!(formatter, "an option has a wrong value")?,
            _ if self.are_typed() => write!(formatter, "options have wrong values")?,
            1 => write!(formatter, "the configuration has a mistake")?,
            count => write!(formatter, "the configuration has {count} mistakes")?,
        }
        for mistake in self.list.iter().take(MAX_LISTED) {
            write!(formatter, "\n  ")?;
            mistake.write(self.file.as_deref(), formatter)?;
        }
        if self.list.len() > MAX_LISTED {
            write!(formatter, "\n  and {} more", self.list.len().saturating_sub(MAX_LISTED))?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

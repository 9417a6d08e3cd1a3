//! What is wrong with the configuration, and where: all of it, not the first thing found.

use std::fmt;

/// How many mistakes are listed; a file that is wrong from top to bottom is not a novel.
const MAX_LISTED: usize = 100;

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

    /// The mistakes themselves.
    pub fn list(&self) -> &[Mistake] {
        &self.list
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.list.len() {
            1 => write!(formatter, "the configuration has a mistake")?,
            count => write!(formatter, "the configuration has {count} mistakes")?,
        }
        for mistake in self.list.iter().take(MAX_LISTED) {
            write!(formatter, "\n  ")?;
            match &mistake.place {
                Place::File { line, column } => {
                    let file = self.file.as_deref().unwrap_or("gateway.yaml");
                    write!(formatter, "{file}:{line}:{column}: ")?;
                }
                Place::Environment(name) => write!(formatter, "{name}: ")?,
                Place::Flag(name) => write!(formatter, "{name}: ")?,
                Place::Saved(name) => write!(formatter, "config.env: {name}: ")?,
                Place::Whole => {}
            }
            write!(formatter, "{}", mistake.message)?;
        }
        if self.list.len() > MAX_LISTED {
            write!(formatter, "\n  and {} more", self.list.len().saturating_sub(MAX_LISTED))?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

//! The command line: args, settings, outcome; only the printer prints.

pub mod outcome;
pub mod printer;

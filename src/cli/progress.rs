//! Something that moves while a person waits. On a terminal a spinner with what is being done; elsewhere
//! nothing: the plain lines are printed either way.

use std::io;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::ProgressBar;
use indicatif::ProgressDrawTarget;
use indicatif::ProgressStyle;

use crate::cli::printer;

/// How often it moves: often enough to look alive, rare enough for a slow line.
const TICK: Duration = Duration::from_millis(120);

/// A spinner on standard error, or nothing.
#[derive(Debug)]
pub(crate) struct Spinner {
    bar: Option<ProgressBar>,
}

impl Spinner {
    /// Begins to spin, where standard error is a terminal that can take a line back.
    pub(crate) fn begin(doing: &str) -> Self {
        if !io::stderr().is_terminal() || printer::is_dumb() {
            return Self { bar: None };
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let template =
            if printer::may_colour() { "{spinner:.cyan} {msg} {elapsed:.dim}" } else { "{spinner} {msg} {elapsed}" };
        // A template that is wrong would be a mistake of ours; the built-in style shows the message too.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(doing.to_owned());
        bar.enable_steady_tick(TICK);
        bar.tick();
        Self { bar: Some(bar) }
    }

    /// Says what is being done now.
    pub(crate) fn doing(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    /// Prints something while the spinner is out of the way.
    pub(crate) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Ends it and leaves no trace on the screen.
    pub(crate) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.end();
    }
}

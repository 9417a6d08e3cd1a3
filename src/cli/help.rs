//! `sigilum help [TOPIC…]`: a command, or one of the pages that belong to no command.

use clap::Args;
use clap::CommandFactory as _;

use crate::cli::args::Cli;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::table::Table;
use crate::config::keys;

/// Options of `help`.
#[derive(Debug, Clone, Args)]
pub struct HelpArgs {
    /// A command (`help service add`), `exit-codes` or `settings`
    #[arg(value_name = "TOPIC")]
    topic: Vec<String>,
}

/// Exit codes and what they mean, for `help exit-codes`.
const EXIT_CODES: &[(Outcome, &str)] = &[
    (Outcome::Done, "done"),
    (Outcome::Failed, "the operation or a check failed"),
    (Outcome::Indeterminate, "a secret reference leads nowhere"),
    (Outcome::NotRunning, "nothing of that kind runs"),
    (Outcome::Unauthorized, "the other side refused us: token, owner"),
    (Outcome::Unreachable, "the other side does not answer"),
    (Outcome::Over, "the pairing session is over: start another one in the dashboard"),
    (Outcome::Usage, "wrong arguments"),
    (Outcome::Unavailable, "something this machine would need is missing: Envoy, Python, pip"),
    (Outcome::Temporary, "it passes by itself: an outgoing connection has a port of the gateway"),
    (Outcome::Config, "configuration, port, lock or key conflict: starting again does not help"),
];

/// Prints the page.
pub(crate) fn run(args: &HelpArgs, printer: &mut Printer) -> Result<Outcome, CliError> {
    let words: Vec<&str> = args.topic.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["exit-codes"] => {
            let mut table = Table::new(&["CODE", "MEANING"]);
            for (outcome, meaning) in EXIT_CODES {
                table.row(vec![outcome.code().to_string().as_str().into(), (*meaning).into()]);
            }
            printer.lines(&table.lines(printer.is_coloured()))?;
        }
        ["settings"] => {
            for key in keys::ALL {
                let names: Vec<_> = key.yaml.iter().chain(key.env).chain(key.flag.iter()).copied().collect();
                printer.line(&names.join(", "))?;
                printer.line(&format!("    {}", key.meaning.replace('`', "")))?;
            }
        }
        words => command(words, printer)?,
    }
    Ok(Outcome::Done)
}

fn command(words: &[&str], printer: &mut Printer) -> Result<(), CliError> {
    let mut root = Cli::command();
    root.build();
    let mut at = &mut root;
    for word in words {
        let known = at.find_subcommand(word).is_some_and(|found| !found.is_hide_set());
        let unknown = || {
            CliError::new(Outcome::Usage, format!("there is no help on {:?}", words.join(" ")))
                .hint("sigilum help lists the commands; there are also exit-codes and settings")
        };
        at = at.find_subcommand_mut(word).filter(|_| known).ok_or_else(unknown)?;
    }
    let page = at.render_long_help();
    let text = if printer.is_coloured() { page.ansi().to_string() } else { page.to_string() };
    printer.line(text.trim_end())
}

//! The named secrets of a connection, each from a variable, a file, standard input, or another credential variable of
//! the gateway; or typed unseen.

use std::path::Path;

use clap::Args;

use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::secret_source;
use crate::cli::secret_source::Place;
use crate::domain::record::MAX_SECRET_NAME_BYTES;
use crate::domain::secret::Secret;
use crate::sys::terminal;

/// The options that name a place of a secret, for hints.
pub(super) const OPTIONS: &str = "--secret-env, --secret-file, --secret-stdin or --secret-variable";

/// Where secrets come from. Without NAME the one that is injected is meant.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct SecretOptions {
    /// Environment variable that holds a secret
    #[arg(long, value_name = "[NAME=]VARIABLE", help_heading = "Secrets")]
    secret_env: Vec<String>,
    /// File that holds a secret; line ends are no part of it
    #[arg(long, value_name = "[NAME=]FILE", help_heading = "Secrets")]
    secret_file: Vec<String>,
    /// Read a secret from standard input; on a terminal it does not show
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "", help_heading = "Secrets")]
    secret_stdin: Option<String>,
    /// Credential variable of the gateway that holds a secret: see `sigilum variable`
    #[arg(long, value_name = "[NAME=]KEY", help_heading = "Secrets")]
    secret_variable: Vec<String>,
    /// Taken so that it can be refused with a reason.
    #[arg(long, hide = true, num_args = 0.., value_name = "SECRET", allow_hyphen_values = true)]
    secret: Option<Vec<String>>,
}

/// A secret that was read.
#[derive(Debug)]
pub(super) struct NamedSecret {
    /// Its name; `None`: the one that is injected.
    pub(super) name: Option<String>,
    /// It, or a reference to a credential variable.
    pub(super) value: Secret,
    /// Where it came from, for people.
    pub(super) origin: String,
}

impl SecretOptions {
    /// Refuses what nobody may do: a secret as an argument, one name twice. Asks nobody and reads nothing.
    pub(super) fn check(&self) -> Result<(), CliError> {
        if self.secret.is_some() {
            return Err(secret_source::on_argv(OPTIONS));
        }
        let mut names: Vec<_> = self.sources().map(|(name, _)| name).collect();
        if let Some(long) = names.iter().flatten().find(|name| name.len() > MAX_SECRET_NAME_BYTES) {
            return Err(CliError::new(Outcome::Usage, format!("the name of a secret has {} letters", long.len())));
        }
        names.sort_unstable();
        if names.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(CliError::new(Outcome::Usage, "two places are named for one secret")
                .hint("give each a name: --secret-env NAME=VARIABLE"));
        }
        Ok(())
    }

    /// Reads them all.
    pub(super) fn read(&self, printer: &mut Printer) -> Result<Vec<NamedSecret>, CliError> {
        self.check()?;
        self.sources()
            .map(|(name, source)| {
                let what = name.map_or_else(|| "the secret".to_owned(), |name| format!("the secret {name}"));
                let (value, origin) = match source {
                    Source::Variable(variable) => {
                        (Place::Variable(variable).read(&what, printer)?, format!("variable {variable}"))
                    }
                    Source::File(file) => (Place::File(Path::new(file)).read(&what, printer)?, format!("file {file}")),
                    Source::Stdin => (Place::Stdin.read(&what, printer)?, "standard input".to_owned()),
                    Source::Reference(key) => (reference(key)?, format!("credential variable {key}")),
                };
                Ok(NamedSecret { name: name.map(ToOwned::to_owned), value, origin })
            })
            .collect()
    }

    fn sources(&self) -> impl Iterator<Item = (Option<&str>, Source<'_>)> {
        let all = |texts, place: fn(&str) -> Source<'_>| named(texts).map(move |(name, rest)| (name, place(rest)));
        let typed = self.secret_stdin.as_deref().map(str::trim);
        let typed = typed.map(|name| (Some(name).filter(|name| !name.is_empty()), Source::Stdin));
        let variables = all(&self.secret_env, |name| Source::Variable(name));
        let files = all(&self.secret_file, |path| Source::File(path));
        variables.chain(files).chain(all(&self.secret_variable, |key| Source::Reference(key))).chain(typed)
    }
}

/// `NAME=REST` or `REST`. A file's path may hold a sign of equality too, but the name of a secret has no slash.
fn named(texts: &[String]) -> impl Iterator<Item = (Option<&str>, &str)> {
    texts.iter().map(|text| match text.split_once('=') {
        Some((name, rest)) if !name.trim().is_empty() && !name.contains('/') => (Some(name.trim()), rest.trim()),
        Some(_) | None => (None, text.trim()),
    })
}

/// One place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source<'a> {
    Variable(&'a str),
    File(&'a str),
    Stdin,
    Reference(&'a str),
}

/// `{{KEY}}`: what the admin API takes for the value of a credential variable.
fn reference(key: &str) -> Result<Secret, CliError> {
    let clean = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if !(2..=128).contains(&key.len()) || !clean {
        return Err(CliError::new(Outcome::Usage, "what should name a credential variable is no name of one")
            .hint("2 to 128 of A-Z, a-z, 0-9, '.', '_' and '-'; see `sigilum variable list`"));
    }
    Ok(Secret::new(format!("{{{{{key}}}}}")))
}

/// The one secret that is injected, typed unseen where a person is there and no place is named.
pub(super) fn or_typed(
    read: Vec<NamedSecret>,
    name: &str,
    printer: &mut Printer,
) -> Result<Vec<NamedSecret>, CliError> {
    if !read.is_empty() {
        return Ok(read);
    }
    if !terminal::is_attended() {
        return Err(CliError::new(Outcome::Usage, "no secret is named").hint(format!("give one of {OPTIONS}")));
    }
    let value = Place::Stdin.read(&format!("the secret {name}"), printer)?;
    Ok(vec![NamedSecret { name: None, value, origin: "the terminal".to_owned() }])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn a_name_stands_before_the_sign_of_equality_and_a_path_does_not() {
        let options = SecretOptions {
            secret_env: vec!["ONE".to_owned(), "key=TWO".to_owned()],
            secret_file: vec!["/a=b/c".to_owned(), "token=/x=y".to_owned()],
            secret_stdin: Some(String::new()),
            secret_variable: vec!["app_token=SLACK.app".to_owned()],
            secret: None,
        };
        let found: Vec<_> = options.sources().collect();
        let expected = [
            (None, Source::Variable("ONE")),
            (Some("key"), Source::Variable("TWO")),
            (None, Source::File("/a=b/c")),
            (Some("token"), Source::File("/x=y")),
            (Some("app_token"), Source::Reference("SLACK.app")),
            (None, Source::Stdin),
        ];
        assert_eq!(found, expected);
        assert_eq!(options.check().unwrap_err().outcome, Outcome::Usage, "three without a name");
    }

    #[test]
    fn a_secret_among_the_arguments_is_refused_and_not_repeated() {
        let options = SecretOptions { secret: Some(vec!["canary".to_owned()]), ..SecretOptions::default() };
        let error = options.check().unwrap_err();
        assert!(error.outcome == Outcome::Usage && !error.message.contains("canary"), "{error}");
        assert!(error.hint.unwrap().contains("--secret-env"));
    }

    #[test]
    fn a_reference_is_a_key_in_braces() {
        assert_eq!(reference("SLACK_TOKEN").unwrap().expose(), "{{SLACK_TOKEN}}");
        for bad in ["", "a", "a b", "a}}", &"k".repeat(129)] {
            assert!(reference(bad).is_err(), "{bad}");
        }
    }
}

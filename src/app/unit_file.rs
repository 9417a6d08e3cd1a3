//! What stands in a unit's file, as far as [`crate::app::systemd`] writes it: the way back from text to command. Pure.

use std::path::PathBuf;

/// Largest file of a unit that is read, in bytes: one of ours has a few thousand.
pub const MAX_BYTES: u64 = 256 * 1024;

/// What a unit runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its arguments where it is to read its settings again; empty: it cannot.
    pub reload: Vec<String>,
    /// Variables: name and value.
    pub environment: Vec<(String, String)>,
}

/// The command of a unit; `None` where it has none or several, or is written in a way we do not write.
pub fn parse(text: &str) -> Option<Command> {
    let mut started = values(text, "ExecStart");
    let (line, more) = (started.next()?, started.next());
    if more.is_some() {
        return None;
    }
    let mut all = words(line)?.into_iter();
    let program = all.next().filter(|program| program.starts_with('/'))?;
    let mut environment = Vec::new();
    for line in values(text, "Environment") {
        for word in words(line)? {
            let (name, value) = word.split_once('=')?;
            environment.push((name.to_owned(), value.to_owned()));
        }
    }
    let plain = |argument: String| argument.replace("$$", "$");
    let arguments = all.map(plain).collect();
    let reload = values(text, "ExecReload").next().map(words);
    let reload = reload.unwrap_or_default().unwrap_or_default().into_iter().skip(1).map(plain).collect();
    Some(Command { program: PathBuf::from(program), arguments, reload, environment })
}

/// The values of a directive, in their order.
pub fn values<'t>(text: &'t str, name: &'t str) -> impl Iterator<Item = &'t str> {
    text.lines().filter_map(move |line| line.trim().strip_prefix(name)?.strip_prefix('=').map(str::trim))
}

/// The values of an option among arguments: `--name VALUE` and `--name=VALUE`.
pub fn options<'a>(arguments: &'a [String], name: &'a str) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == name {
            found.extend(rest.next().map(String::as_str));
        } else if let Some(value) = argument.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
            found.push(value);
        }
    }
    found
}

/// Words between blanks; quotes hold blanks, a backslash takes the next letter as it is, `%%` is `%`.
fn words(line: &str) -> Option<Vec<String>> {
    let mut all = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' => word.get_or_insert_default().push(letters.next()?),
            // A single `%` means something to systemd that we cannot know.
            '%' => word.get_or_insert_default().push(letters.next().filter(|next| *next == '%')?),
            letter if letter.is_whitespace() && !quoted => all.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    all.extend(word);
    (!quoted).then_some(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::app::systemd::Kind;
    use crate::app::systemd::Scope;
    use crate::app::systemd::Unit;
    use crate::app::systemd::render;

    #[test]
    fn what_we_do_not_write_is_not_read() {
        for text in [
            "",
            "[Service]\nRestart=always\n",
            "ExecStart=sigilum gateway start",
            "ExecStart=\"/a",
            "ExecStart=/a %h",
            "ExecStart=/a\nExecStart=/b",
            "ExecStart=/a\nEnvironment=X",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        let found = parse("[Service]\nExecStart=/opt/sigilum gateway start --addr=:1 --addr :2\n").unwrap();
        assert_eq!(found.program, Path::new("/opt/sigilum"));
        assert_eq!(options(&found.arguments, "--addr"), [":1", ":2"]);
        assert!(options(&found.arguments, "--bind").is_empty());
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again(
            program in "/[^\\p{C}$]{0,20}",
            arguments in proptest::collection::vec("[^\\p{C}]{1,20}", 0..4),
            value in "[^\\p{C}]{0,20}",
        ) {
            let environment = vec![("NAME".to_owned(), value)];
            let unit = Unit {
                kind: Kind::Gateway,
                drain_seconds: 15,
                suffix: "",
                scope: Scope::User,
                program: Path::new(&program),
                arguments: &arguments,
                reload: &arguments,
                environment: &environment,
            };
            let found = parse(&render(&unit).unwrap()).unwrap();
            let reload = arguments.clone();
            prop_assert_eq!(found, Command { program: PathBuf::from(program), arguments, reload, environment });
        }

        #[test]
        fn any_text_is_read_or_not(text in "(ExecStart=|Environment=|\n|[\"\\\\%$ /a-c=]){0,40}") {
            let _ = parse(&text);
        }
    }
}

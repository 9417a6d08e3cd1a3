//! What a support archive may not hold is taken out here: secrets of this installation in any form, whatever looks like a
//! credential, and the name of the person in paths.

use serde_json::Map;
use serde_json::Value;

use crate::domain::log_redaction::LogRedactor;
use crate::domain::redact::MARK;
use crate::domain::redact::Redactor;
use crate::domain::secret::Secret;

/// Shorter secrets are words that a report may well hold; they stand in no place that is copied.
const MIN_SECRET: usize = 8;
/// Members of the configuration that are shown elsewhere and not meant for secrets, which keeps nobody from putting some there:
/// what is sent to providers, and arguments of programs.
const UNTOLD: [&str; 2] = ["extra_headers", "args"];
/// Settings of a unit whose values may be anything (systemd.exec(5)).
const UNIT_VALUES: [&str; 4] = ["Environment", "SetCredential", "SetCredentialEncrypted", "StandardInputText"];

/// Takes out what must not be passed on.
pub(super) struct Cleaner {
    /// By names, by looks, and by what is known.
    lines: LogRedactor,
    /// By what is known alone.
    known: Redactor,
    /// The home folder with a slash at its end; `None` where it is nobody's.
    home: Option<String>,
}

impl Cleaner {
    /// One that knows these secrets, and the home folder of the person.
    pub(super) fn new(secrets: &[Secret], home: Option<String>) -> Self {
        let known = || Redactor::new(secrets.iter().filter(|secret| secret.expose().trim().len() >= MIN_SECRET));
        let home = home.map(|home| format!("{}/", home.trim_end_matches('/'))).filter(|home| home.len() > 2);
        Self { lines: LogRedactor::knowing(known()), known: known(), home }
    }

    /// A text of any kind.
    pub(super) fn text(&self, text: &str) -> String {
        let mut cleaned = text.to_owned();
        self.lines.clean_text(&mut cleaned);
        self.without_home(&cleaned)
    }

    /// JSON: members with a telling name lose their value.
    pub(super) fn json(&self, value: Value) -> Value {
        let mut whole = Map::from_iter([(String::new(), value)]);
        self.lines.clean(&mut whole);
        let cleaned = whole.remove("").unwrap_or_default();
        each_text(cleaned, &|text| self.without_home(&text))
    }

    /// The configuration, in which secrets are masked already: what names a secret, and so may be called one, stays.
    pub(super) fn settings(&self, tree: Value) -> Value {
        let masked = mask_untold(tree);
        each_text(masked, &|text| {
            // An address may hold a user and a password.
            if text.contains("://") { self.text(&text) } else { self.without_home(&self.known.clean(&text)) }
        })
    }

    /// A unit of systemd or a job of launchd, without the environment it sets.
    pub(super) fn unit(&self, text: &str) -> String {
        let (mut out, mut goes_on, mut in_environment) = (String::with_capacity(text.len()), false, false);
        for line in text.lines() {
            let trimmed = line.trim();
            let name = trimmed.split('=').next().unwrap_or_default().trim_end();
            let begins = trimmed.contains('=') && UNIT_VALUES.contains(&name);
            if goes_on || begins {
                if begins {
                    out.push_str(&format!("# {name} is left out\n"));
                }
                // A backslash at the end carries a value on to the next line.
                goes_on = trimmed.ends_with('\\');
            } else if in_environment {
                in_environment = !trimmed.contains("</dict>");
            } else {
                out.push_str(line);
                out.push('\n');
                in_environment = trimmed.contains("<key>EnvironmentVariables</key>");
            }
        }
        self.text(&out)
    }

    fn without_home(&self, text: &str) -> String {
        self.home.as_ref().map_or_else(|| text.to_owned(), |home| text.replace(home.as_str(), "~/"))
    }
}

impl std::fmt::Debug for Cleaner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Cleaner(..)")
    }
}

/// Every text of a value, changed.
fn each_text(value: Value, change: &dyn Fn(String) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(change(text)),
        Value::Array(items) => items.into_iter().map(|item| each_text(item, change)).collect(),
        Value::Object(members) => {
            let members = members.into_iter().map(|(name, value)| (name, each_text(value, change)));
            Value::Object(members.collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

/// Without what is not to be told of the configuration.
fn mask_untold(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(mask_untold).collect(),
        Value::Object(members) => {
            let masked = members.into_iter().map(|(name, value)| {
                let value = if UNTOLD.contains(&name.as_str()) {
                    each_text(value, &|_| MARK.to_owned())
                } else {
                    mask_untold(value)
                };
                (name, value)
            });
            Value::Object(masked.collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECRET: &str = "canary-0123456789";

    fn cleaner() -> Cleaner {
        Cleaner::new(&[Secret::new(SECRET.to_owned())], Some("/home/alice".to_owned()))
    }

    #[test]
    fn a_known_secret_a_telling_name_and_the_persons_name_are_taken_out_of_json() {
        let cleaned = cleaner().json(json!({
            "message": format!("said {SECRET} once"),
            "admin_token": "something short",
            "nested": [{"path": "/home/alice/.sigilum/run"}],
            "count": 3,
        }));
        let expected = json!({
            "message": "said [redacted] once",
            "admin_token": "[redacted]",
            "nested": [{"path": "~/.sigilum/run"}],
            "count": 3,
        });
        assert_eq!(cleaned, expected);
    }

    #[test]
    fn settings_keep_references_and_lose_headers_arguments_users_of_addresses_and_what_is_known() {
        let cleaned = cleaner().settings(json!({
            "args": ["--key", "x"],
            "connections": [{
                "id": "a",
                "base_url": "https://me:pass-word-1@api.example.com/v1",
                "secrets": {"api_key": "env:OPENAI_API_KEY"},
                "extra_headers": {"x-team": "blue"},
                "note": SECRET,
            }],
        }));
        let expected = json!({
            "args": ["[redacted]", "[redacted]"],
            "connections": [{
                "id": "a",
                "base_url": "https://[redacted]@api.example.com/v1",
                "secrets": {"api_key": "env:OPENAI_API_KEY"},
                "extra_headers": {"x-team": "[redacted]"},
                "note": "[redacted]",
            }],
        });
        assert_eq!(cleaned, expected);
    }

    #[test]
    fn a_units_environment_is_not_told_over_several_lines_either() {
        let unit = "[Service]\nEnvironment=\"ONE=first\" \\\n  TWO=second \\\n  THREE=third\nExecStart=/usr/bin/sigilum\n\
                    SetCredential = key:fourth\nRestart=always\n";
        let expected = "[Service]\n# Environment is left out\nExecStart=/usr/bin/sigilum\n# SetCredential is left out\nRestart=always\n";
        assert_eq!(cleaner().unit(unit), expected);
        let job = "<dict>\n<key>EnvironmentVariables</key>\n<dict>\n<key>ONE</key>\n<string>first</string>\n</dict>\n\
                   <key>Label</key>\n<string>x</string>\n</dict>\n";
        let expected = "<dict>\n<key>EnvironmentVariables</key>\n<key>Label</key>\n<string>x</string>\n</dict>\n";
        assert_eq!(cleaner().unit(job), expected);
    }

    #[test]
    fn a_home_that_is_the_root_takes_nothing_out() {
        assert_eq!(Cleaner::new(&[], Some("/".to_owned())).text("/var/log"), "/var/log");
    }
}

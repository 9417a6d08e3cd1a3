//! What is known of a setting.

use crate::config::form::Form;
use crate::config::form::whole;

/// What a setting is where nobody sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// This text, read like any other value.
    Text(&'static str),
    /// Computed; the text says how, for people.
    Computed(&'static str),
    /// Nothing.
    None,
}

/// What it takes for a new value of the file to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reload {
    /// Nothing: the next decision or request of the admin API goes by it.
    Hot,
    /// A new configuration of Envoy, which takes it while it runs.
    HotEnvoy,
    /// The processes start anew.
    Restart,
}

impl Reload {
    /// The name in tables and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::HotEnvoy => "hot-envoy",
            Self::Restart => "restart",
        }
    }
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Dotted name in `gateway.yaml`; `None` where the file cannot hold it.
    pub yaml: Option<&'static str>,
    /// Environment variables; the first that is set wins. Blank counts as unset.
    pub env: &'static [&'static str],
    /// Option of the command line.
    pub flag: Option<&'static str>,
    /// Value where nobody sets it.
    pub fallback: Fallback,
    /// What it means, with its unit and bounds; Markdown.
    pub meaning: &'static str,
    /// What a change of it in the file takes.
    pub reload: Reload,
    /// Which values it takes.
    pub form: Form,
}

impl Key {
    pub(super) const fn new(
        yaml: Option<&'static str>,
        env: &'static [&'static str],
        flag: Option<&'static str>,
        fallback: Fallback,
        meaning: &'static str,
    ) -> Self {
        Self { yaml, env, flag, fallback, meaning, reload: Reload::Restart, form: Form::Text("") }
    }

    /// A change of it in the file counts at once.
    pub(super) const fn hot(self) -> Self {
        Self { reload: Reload::Hot, ..self }
    }

    /// A change of it in the file is a new configuration of Envoy.
    pub(super) const fn hot_envoy(self) -> Self {
        Self { reload: Reload::HotEnvoy, ..self }
    }

    /// Takes whole numbers within bounds, both included.
    pub(super) const fn whole(self, least: u64, most: u64) -> Self {
        Self { form: whole(least, most), ..self }
    }

    /// Takes numbers from 0 to 1.
    pub(super) const fn ratio(self) -> Self {
        Self { form: Form::Ratio, ..self }
    }

    /// Takes truth values.
    pub(super) const fn boolean(self) -> Self {
        Self { form: Form::Boolean, ..self }
    }

    /// Takes one of these words.
    pub(super) const fn choice(self, words: &'static [&'static str]) -> Self {
        Self { form: Form::Choice(words), ..self }
    }

    /// Takes a list, in the environment with commas.
    pub(super) const fn words(self) -> Self {
        Self { form: Form::Words, ..self }
    }

    /// Takes text that matches a pattern (ECMA-262).
    pub(super) const fn pattern(self, pattern: &'static str) -> Self {
        Self { form: Form::Text(pattern), ..self }
    }

    /// The name to use in a message.
    pub fn name(&self) -> &'static str {
        self.yaml.or_else(|| self.env.first().copied()).or(self.flag).unwrap_or("setting")
    }
}

/// Settings as a Markdown table, one line each, ending with a line feed. What a change takes is told where the file can
/// hold them.
pub fn table_of(keys: &[Key]) -> String {
    let in_file = keys.iter().any(|key| key.yaml.is_some());
    let mut out = String::from("| `gateway.yaml` | environment | option | default |");
    out.push_str(if in_file { " reload | meaning |\n| --- |" } else { " meaning |\n|" });
    out.push_str(" --- | --- | --- | --- | --- |\n");
    for key in keys {
        let code = |text: &str| format!("`{text}`");
        let yaml = key.yaml.map_or_else(String::new, code);
        let env = key.env.iter().map(|name| code(name)).collect::<Vec<_>>().join(", ");
        let flag = key.flag.map_or_else(String::new, code);
        let fallback = match key.fallback {
            Fallback::Text("") | Fallback::None => "none".to_owned(),
            Fallback::Text(text) => code(text),
            Fallback::Computed(text) => text.to_owned(),
        };
        let meaning = key.meaning.replace('|', "\\|");
        let reload = if key.yaml.is_some() { key.reload.name() } else { "" };
        let reload = if in_file { format!(" {reload} |") } else { String::new() };
        out.push_str(&format!("| {yaml} | {env} | {flag} | {fallback} |{reload} {meaning} |\n"));
    }
    out
}

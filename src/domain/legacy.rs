//! Keys that other programs' files hold in clear: which texts are taken for keys, whose they are, how they are named. Pure.

use std::collections::BTreeSet;
use std::ops::Range;

use sha2::Digest as _;
use sha2::Sha256;

use crate::domain::hex;
use crate::domain::providers;
use crate::domain::reference::VARIABLE_KEY_BYTES;
use crate::domain::reference::is_variable_key;
use crate::domain::secret::Secret;

/// Members that hold a credential, in lower case without `_` and `-`.
const CREDENTIALS: [&str; 21] = [
    "apikey",
    "apitoken",
    "apisecret",
    "token",
    "accesstoken",
    "authtoken",
    "bearertoken",
    "refreshtoken",
    "bottoken",
    "apptoken",
    "usertoken",
    "secret",
    "secretkey",
    "clientsecret",
    "signingsecret",
    "webhooksecret",
    "appsecret",
    "channelsecret",
    "channelaccesstoken",
    "password",
    "personalaccesstoken",
];
/// Those of them that are the one key of a provider.
const GENERIC: [&str; 6] = ["apikey", "apitoken", "token", "accesstoken", "bearertoken", "bottoken"];
/// Other words for providers.
const ALIASES: [(&str, &str); 3] = [("anthropic", "claude"), ("google", "gemini"), ("brave", "brave-search")];
/// The provider of what names none.
const UNKNOWN: &str = "openclaw";
/// Longest name of a provider that a path gives, in bytes.
const MAX_PROVIDER: usize = 40;
/// Shortest value of which something is shown, in characters.
const LEAST_SHOWN: usize = 16;
/// Bytes of a finding's id.
const ID_BYTES: usize = 12;

/// What sort of file a key stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceType {
    /// `openclaw.json`.
    Config,
    /// `.env` and its like.
    Dotenv,
    /// What a hook wrote down of the environment.
    Manifest,
}

impl SourceType {
    /// The name in answers, and in ids.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Config => "openclaw_config",
            Self::Dotenv => "dotenv",
            Self::Manifest => "openclaw_runtime_manifest",
        }
    }
}

/// A key in a file.
#[derive(Debug)]
pub struct Found {
    /// Whose it is.
    pub provider: String,
    /// The member or variable that holds it.
    pub field: String,
    /// What sort of file it stands in.
    pub source: SourceType,
    /// Which of the files that were read.
    pub file: usize,
    /// Where in it: a dotted path, or the name of a variable. Another value at the same place has `#2` behind it.
    pub location: String,
    /// It.
    pub value: Secret,
    /// Where its bytes stand, quotes included; several where one name is set twice to the same.
    pub spans: Vec<Range<usize>>,
}

impl Found {
    /// Names it, from one reading to the next.
    pub fn id(&self, path: &str) -> String {
        let parts = [self.provider.as_str(), &self.field, self.source.name(), path, &self.location];
        hex::begin(&Sha256::digest(parts.join("|")), ID_BYTES)
    }

    /// The key of the credential variable that is made of it, if nobody else has that.
    fn variable(&self, known: &Known) -> String {
        if known.provider_of(&self.field).is_some() && is_variable_key(&self.field) {
            return self.field.clone();
        }
        let (provider, field) = (upper(&self.provider), upper(&self.field));
        let begins = field.strip_prefix(&provider).is_some_and(|rest| rest.starts_with('_'));
        let key = if begins { field } else { format!("{provider}_{field}") };
        // Room for a number; all of it is ASCII.
        key.get(..VARIABLE_KEY_BYTES.end().saturating_sub(8)).unwrap_or(&key).to_owned()
    }
}

/// The providers that names are held against: those of the service catalog, and those that are known anyway.
#[derive(Debug, Default)]
pub struct Known {
    templates: Vec<(String, Vec<String>)>,
}

impl Known {
    /// Keys of templates, each with the variables people keep its credentials in.
    pub fn new(templates: impl IntoIterator<Item = (String, Vec<String>)>) -> Self {
        Self { templates: templates.into_iter().collect() }
    }

    /// The provider a variable of this name belongs to.
    pub fn provider_of(&self, variable: &str) -> Option<&str> {
        if let Some(provider) = providers::by_name(variable) {
            return Some(provider.key);
        }
        let named = |(_, variables): &&(String, Vec<String>)| variables.iter().any(|known| known == variable);
        self.templates.iter().find(named).map(|(key, _)| key.as_str()).filter(|_| !variable.is_empty())
    }

    /// Whether a member of this name holds a credential.
    pub fn is_credential(&self, member: &str) -> bool {
        CREDENTIALS.contains(&plain(member).as_str()) || self.provider_of(member).is_some()
    }

    /// Whose credential the last segment of a path is: of the nearest segment that names a provider, else of the one before
    /// it.
    pub fn provider_at(&self, path: &[String]) -> String {
        let Some((member, parents)) = path.split_last() else { return UNKNOWN.to_owned() };
        if let Some(provider) = self.provider_of(member) {
            return provider.to_owned();
        }
        let named = parents.iter().rev().find_map(|segment| self.provider_called(segment));
        let last = || parents.iter().rev().find(|segment| !segment.bytes().all(|byte| byte.is_ascii_digit()));
        named.unwrap_or_else(|| last().map_or_else(|| UNKNOWN.to_owned(), |segment| slug(segment)))
    }

    /// The provider a word names.
    pub fn provider_called(&self, word: &str) -> Option<String> {
        let word = slug(word);
        if let Some((_, key)) = ALIASES.iter().find(|(alias, _)| *alias == word) {
            return Some((*key).to_owned());
        }
        let own = providers::PROVIDERS.iter().map(|provider| provider.key);
        let all = self.templates.iter().map(|(key, _)| key.as_str()).chain(own);
        all.into_iter().find(|key| *key == word).map(ToOwned::to_owned)
    }
}

/// Whether the member is the one that programs call a provider's key, whatever the provider calls it.
pub fn is_generic(member: &str) -> bool {
    GENERIC.contains(&plain(member).as_str()) || providers::by_name(member).is_some()
}

/// Whether two members are called the same, but for case, `_` and `-`.
pub fn is_alike(one: &str, other: &str) -> bool {
    plain(one) == plain(other)
}

/// Whether a path leads to something of OpenClaw's own, or of ours, that opens nothing at a provider.
pub fn is_own(path: &[String]) -> bool {
    let first = path.first().map(String::as_str).unwrap_or_default();
    first == "gateway"
        || (first == "hooks" && path.len() == 2)
        || path.iter().any(|segment| segment.to_ascii_lowercase().contains("sigilum"))
}

/// Whether a value only names where the key is: `${NAME}`, `$NAME`, `{{KEY}}`.
pub fn is_elsewhere(value: &str) -> bool {
    let value = value.trim();
    if value.starts_with("{{") && value.ends_with("}}") {
        return true;
    }
    let Some(rest) = value.strip_prefix('$') else { return false };
    let name = rest.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(rest);
    name.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// What is shown of a value.
pub fn masked(value: &str) -> String {
    let letters: Vec<char> = value.chars().collect();
    if letters.len() < LEAST_SHOWN {
        return "......".to_owned();
    }
    let begin: String = letters.iter().take(3).collect();
    let end: String = letters.iter().skip(letters.len().saturating_sub(2)).collect();
    format!("{begin}......{end}")
}

/// Those that stand at the same place become one where they are the same, and are told apart where not: the last one counts,
/// as for whoever reads the file.
pub fn settle(found: Vec<Found>) -> Vec<Found> {
    let mut settled: Vec<Found> = Vec::with_capacity(found.len());
    let mut places: Vec<(usize, String)> = Vec::with_capacity(found.len());
    for mut one in found.into_iter().rev() {
        let place = (one.file, one.location.clone());
        let mut same = settled.iter_mut().zip(&places).filter(|(_, known)| **known == place).map(|(known, _)| known);
        if let Some(known) = same.find(|known| known.value == one.value) {
            known.spans.append(&mut one.spans);
            continue;
        }
        let others = places.iter().filter(|known| **known == place).count();
        if others > 0 {
            one.location.push_str(&format!("#{}", others.saturating_add(1)));
        }
        places.push(place);
        settled.push(one);
    }
    settled.reverse();
    settled
}

/// The key of the variable each of them gets: the one that holds its value already (`held`), else its own name, numbered
/// where another value has that.
pub fn variables(found: &[Found], held: &[Option<String>], taken: &BTreeSet<String>, known: &Known) -> Vec<String> {
    let mut keys: Vec<String> = Vec::with_capacity(found.len());
    let mut given: BTreeSet<String> = BTreeSet::new();
    for (index, one) in found.iter().enumerate() {
        let same = found.iter().zip(&keys).take(index).find(|(other, _)| other.value == one.value);
        let key = held.get(index).cloned().flatten().or_else(|| same.map(|(_, key)| key.clone()));
        let key = key.unwrap_or_else(|| {
            let own = one.variable(known);
            let mut key = own.clone();
            let mut number: u64 = 1;
            while taken.contains(&key) || given.contains(&key) {
                number = number.saturating_add(1);
                key = format!("{own}_{number}");
            }
            key
        });
        given.insert(key.clone());
        keys.push(key);
    }
    keys
}

/// In lower case, without what words are joined by.
fn plain(name: &str) -> String {
    name.chars().filter(|letter| !matches!(letter, '_' | '-')).map(|letter| letter.to_ascii_lowercase()).collect()
}

/// As a provider is called.
pub fn slug(text: &str) -> String {
    let mut slug = String::new();
    for letter in text.chars() {
        if letter.is_ascii_alphanumeric() {
            slug.push(letter.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let cut = slug.get(..MAX_PROVIDER).unwrap_or(&slug).trim_end_matches('-');
    if cut.is_empty() { UNKNOWN.to_owned() } else { cut.to_owned() }
}

/// As a variable is called: `botToken` is `BOT_TOKEN`.
fn upper(text: &str) -> String {
    let mut name = String::new();
    let mut was_lower = false;
    for letter in text.chars() {
        if letter.is_ascii_uppercase() && was_lower {
            name.push('_');
        }
        was_lower = letter.is_ascii_lowercase() || letter.is_ascii_digit();
        if letter.is_ascii_alphanumeric() {
            name.push(letter.to_ascii_uppercase());
        } else if !name.ends_with('_') {
            name.push('_');
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('.').map(ToOwned::to_owned).collect()
    }

    fn found(provider: &str, field: &str, location: &str, value: &str) -> Found {
        Found {
            provider: provider.to_owned(),
            field: field.to_owned(),
            source: SourceType::Config,
            file: 0,
            location: location.to_owned(),
            value: Secret::new(value.to_owned()),
            spans: std::iter::once(0..value.len()).collect(),
        }
    }

    #[test]
    fn a_path_leads_to_its_provider() {
        let known = Known::new([("slack".to_owned(), vec!["SLACK_APP_TOKEN".to_owned()])]);
        for (at, provider) in [
            ("channels.slack.botToken", "slack"),
            ("channels.telegram.accounts.main.botToken", "telegram"),
            ("models.providers.anthropic.apiKey", "claude"),
            ("skills.entries.My Thing.apiKey", "my-thing"),
            ("list.0.token", "list"),
            ("token", "openclaw"),
            ("env.vars.OPENAI_API_KEY", "openai"),
            ("env.SLACK_APP_TOKEN", "slack"),
        ] {
            assert_eq!(known.provider_at(&path(at)), provider, "{at}");
        }
        for member in ["apiKey", "api_key", "API-KEY", "token", "botToken", "secret", "GH_TOKEN", "SLACK_APP_TOKEN"] {
            assert!(known.is_credential(member), "{member}");
        }
        for member in ["", "key", "maxTokens", "tokenFile", "model", "MY_KEY"] {
            assert!(!known.is_credential(member), "{member}");
        }
        for own in ["gateway.auth.token", "hooks.token", "hooks.internal.entries.sigilum-plugin.env.SECRET"] {
            assert!(is_own(&path(own)), "{own}");
        }
        assert!(!is_own(&path("channels.gateway.token")));
    }

    #[test]
    fn references_are_no_keys() {
        for text in ["$KEY", "${KEY}", " ${a_1} ", "{{KEY}}", "{{ KEY }}"] {
            assert!(is_elsewhere(text), "{text}");
        }
        for text in ["", "$", "${}", "$5", "a$KEY", "{KEY}", "${KEY", "${A}${B}"] {
            assert!(!is_elsewhere(text), "{text}");
        }
    }

    #[test]
    fn an_id_is_twelve_bytes_of_its_five_parts() {
        let one = found("openai", "apiKey", "models.openai.apiKey", "v");
        let parts = b"openai|apiKey|openclaw_config|/h/openclaw.json|models.openai.apiKey";
        assert_eq!(one.id("/h/openclaw.json"), hex::text(&Sha256::digest(parts)[..12]));
    }

    #[test]
    fn one_place_with_two_values_is_two() {
        let all = ["b", "a", "b"].map(|value| found("x", "token", "x.token", value));
        let settled = settle(all.into());
        let shown: Vec<_> =
            settled.iter().map(|one| (one.location.as_str(), one.value.expose(), one.spans.len())).collect();
        assert_eq!(shown, [("x.token#2", "a", 1), ("x.token", "b", 2)]);
    }

    #[test]
    fn a_variable_that_is_taken_gets_a_number() {
        let known = Known::default();
        let all = [
            found("slack", "botToken", "1", "a"),
            found("slack", "bot_token", "2", "b"),
            found("slack", "botToken", "3", "a"),
            found("openai", "OPENAI_KEY", "4", "c"),
            found("my-thing", "myThingSecret", "5", "d"),
            found("x", "token", "6", "e"),
        ];
        let held = [None, None, None, None, None, Some("OTHER".to_owned())];
        let taken = BTreeSet::from(["OPENAI_KEY".to_owned(), "OTHER".to_owned()]);
        let keys =
            ["SLACK_BOT_TOKEN", "SLACK_BOT_TOKEN_2", "SLACK_BOT_TOKEN", "OPENAI_KEY_2", "MY_THING_SECRET", "OTHER"];
        assert_eq!(variables(&all, &held, &taken, &known), keys);
    }

    proptest! {
        #[test]
        fn little_of_a_value_is_shown(value in ".{0,40}") {
            let shown = masked(&value);
            let kept = shown.chars().filter(|letter| *letter != '.').count();
            prop_assert!(kept <= 5 && (value.chars().count() >= 16 || kept == 0));
        }

        #[test]
        fn every_key_is_one_a_variable_may_have(provider in ".{0,60}", field in ".{1,200}") {
            let one = found(&slug(&provider), &field, "l", "v");
            let keys = variables(&[one], &[None], &BTreeSet::new(), &Known::default());
            prop_assert!(is_variable_key(&keys[0]), "{}", keys[0]);
        }
    }
}

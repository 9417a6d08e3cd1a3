//! Precedence: option, environment, file, `config.env`, default; every mistake noted at the place its value came from.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

use crate::config::address::Bind;
use crate::config::address::Listen;
use crate::config::compare::Values;
use crate::config::file;
use crate::config::file::GatewayFile;
use crate::config::keys;
use crate::config::keys::Key;
use crate::config::load::Sources;
use crate::config::mistake::Mistake;
use crate::config::mistake::Place;
use crate::config::profile;
use crate::config::profile::Profile;
use crate::config::syntax::Node;
use crate::config::syntax::Value;
use crate::config::syntax::is_boolean;
use crate::config::syntax::is_number;
use crate::domain::secret::Secret;

/// Longest list of addresses or authorities.
pub(super) const MAX_LIST: usize = 64;

/// What a value in the file must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Number,
    Boolean,
    /// Text, where `off` and the like are words and no truth values.
    Word,
}

/// Finds values by precedence and notes what is wrong with them.
pub(super) struct Loader<'a> {
    pub(super) sources: Sources<'a>,
    pub(super) file: GatewayFile,
    pub(super) mistakes: Vec<Mistake>,
    /// What is allowed and still likely to be a mistake.
    pub(super) warnings: Vec<Mistake>,
    /// What was read so far.
    pub(super) values: Values,
}

impl<'a> Loader<'a> {
    pub(super) fn new(sources: Sources<'a>, file: GatewayFile) -> Self {
        Self { sources, file, mistakes: Vec::new(), warnings: Vec::new(), values: Values::default() }
    }

    /// What option or environment say.
    pub(super) fn outside(&self, key: &Key) -> Option<(Place, String)> {
        if let Some((flag, value)) = self.sources.flags.find(key) {
            return Some((Place::Flag(flag), value.to_owned()));
        }
        key.env.iter().find_map(|name| {
            let value = (self.sources.env)(name).filter(|value| !value.trim().is_empty())?;
            Some((Place::Environment(name), value))
        })
    }

    /// What `config.env` says.
    pub(super) fn saved(&self, key: &Key) -> Option<(Place, String)> {
        key.env.iter().find_map(|name| {
            let value = (self.sources.saved)(name).filter(|value| !value.trim().is_empty())?;
            Some((Place::Saved(name), value))
        })
    }

    /// What the file says, as text of the wanted shape.
    pub(super) fn inside(&self, key: &Key, shape: Shape) -> Option<(Place, Result<String, String>)> {
        let node = self.file.settings.get(key.yaml?)?;
        Some((node.mark.place(), shaped(node, shape)))
    }

    /// Whether anybody sets it.
    pub(super) fn is_set(&self, key: &Key) -> bool {
        let inside = key.yaml.is_some_and(|name| self.file.settings.contains_key(name));
        inside || self.outside(key).is_some() || self.saved(key).is_some()
    }

    /// Whether an option says it.
    pub(super) fn is_typed(&self, key: &Key) -> bool {
        self.sources.flags.find(key).is_some()
    }

    /// Finds and reads one value; a mistake is noted and leaves `None`.
    pub(super) fn read<T: Debug>(
        &mut self,
        key: &Key,
        shape: Shape,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (place, text) = match self.outside(key) {
            Some((place, text)) => (place, Ok(text)),
            None => match (self.inside(key, shape), self.saved(key), self.sources.flags.default_of(key)) {
                (Some(found), _, _) => found,
                (None, Some((place, text)), _) => (place, Ok(text)),
                (None, None, Some(text)) => (Place::Whole, Ok(text.to_owned())),
                (None, None, None) => return None,
            },
        };
        match text.and_then(|text| parse(&text)) {
            Ok(value) => {
                self.values.note(key, &value);
                Some(value)
            }
            Err(message) => {
                self.note(place, key, &message);
                None
            }
        }
    }

    /// A number within the bounds its key declares.
    pub(super) fn number(&mut self, key: &Key) -> Option<u64> {
        let bounds = key.form.bounds();
        self.read(key, Shape::Number, |text| parse_number(text, bounds.least, bounds.most))
    }

    /// A list: in the file a sequence or one text, elsewhere one text with commas.
    pub(super) fn list<T: PartialEq + Debug>(
        &mut self,
        key: &Key,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let mut items: Vec<(Place, Result<String, String>)> = Vec::new();
        let split = |place: &Place, text: &str| -> Vec<(Place, Result<String, String>)> {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            parts.map(|part| (place.clone(), Ok(part.to_owned()))).collect()
        };
        if let Some((place, text)) = self.outside(key) {
            items = split(&place, &text);
        } else if let Some(node) = key.yaml.and_then(|name| self.file.settings.get(name)) {
            match &node.value {
                Value::List(nodes) => {
                    items = nodes.iter().map(|node| (node.mark.place(), shaped(node, Shape::Text))).collect();
                }
                Value::Plain(_) | Value::Text(_) => match shaped(node, Shape::Text) {
                    Ok(text) => items = split(&node.mark.place(), &text),
                    Err(message) => items.push((node.mark.place(), Err(message))),
                },
                Value::Map(_) => items.push((node.mark.place(), Err("must be a list, found a mapping".to_owned()))),
            }
        } else if let Some((place, text)) = self.saved(key) {
            items = split(&place, &text);
        } else if let Some(text) = self.sources.flags.default_of(key) {
            items = split(&Place::Whole, text);
        }
        if let Some((place, _)) = items.get(MAX_LIST) {
            let place = place.clone();
            self.note(place, key, &format!("may have at most {MAX_LIST} entries"));
            return None;
        }
        let mut values = Vec::with_capacity(items.len());
        let before = self.mistakes.len();
        for (place, text) in items {
            match text.and_then(|text| parse(&text)) {
                // Said twice is said once.
                Ok(value) if values.contains(&value) => {}
                Ok(value) => values.push(value),
                Err(message) => self.note(place, key, &message),
            }
        }
        self.values.note(key, &values);
        (self.mistakes.len() == before).then_some(values)
    }

    /// Listen addresses, resolved; at least one.
    pub(super) fn listen(&mut self, key: &Key, bind: Option<Bind>) -> Option<Vec<SocketAddr>> {
        let listens = self.list(key, Listen::parse)?;
        let mut addresses = Vec::new();
        for address in listens.into_iter().flat_map(|listen| listen.resolve(bind.unwrap_or(Bind::Loopback))) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            self.blame(key, "names no address".to_owned());
            return None;
        }
        Some(addresses)
    }

    /// A secret of the environment. A mistake never repeats it.
    pub(super) fn secret(&mut self, key: &Key, check: impl Fn(&str) -> Result<(), String>) -> Option<Secret> {
        let (place, text) = self.outside(key)?;
        match check(&text) {
            Ok(()) => Some(Secret::new(text)),
            Err(message) => {
                self.note(place, key, &message);
                None
            }
        }
    }

    /// No two listeners on one port: one of them would not get it, or get half of it.
    pub(super) fn check_distinct(&mut self, listeners: &[(&Key, Option<&[SocketAddr]>)]) {
        let mut seen: Vec<(SocketAddr, &str)> = Vec::new();
        for (key, addresses) in listeners {
            for address in addresses.unwrap_or_default() {
                let clash = seen.iter().find(|(taken, owner)| *owner != key.name() && overlap(*taken, *address));
                if let Some((_, owner)) = clash {
                    let message = format!("port {} is also the port of {owner}", address.port());
                    self.blame(key, message);
                    break;
                }
                seen.push((*address, key.name()));
            }
        }
    }

    /// Notes a mistake of a value that was read, at the place it came from.
    pub(super) fn blame(&mut self, key: &Key, message: String) {
        let place = self.place_of(key);
        self.note(place, key, &message);
    }

    /// Notes what is allowed and still likely to be a mistake, at the place it came from.
    pub(super) fn warn(&mut self, key: &Key, message: &str) {
        let place = self.place_of(key);
        self.warnings.push(told(place, key, message));
    }

    /// Where a value comes from.
    fn place_of(&self, key: &Key) -> Place {
        let inside = || key.yaml.and_then(|name| self.file.settings.get(name)).map(|node| node.mark.place());
        let found = self.outside(key).map(|(place, _)| place).or_else(inside);
        found.or_else(|| self.saved(key).map(|(place, _)| place)).unwrap_or(Place::Whole)
    }

    /// Notes a mistake of several settings together, as it stands.
    pub(super) fn whole(&mut self, key: &Key, message: String) {
        self.mistakes.push(Mistake { place: Place::Whole, path: key.name().to_owned(), message });
    }

    pub(super) fn note(&mut self, place: Place, key: &Key, message: &str) {
        self.mistakes.push(told(place, key, message));
    }

    pub(super) fn folder(&mut self, key: &Key, computed: impl Fn(&Self) -> PathBuf) -> PathBuf {
        let path = match self.read(key, Shape::Text, |text| Ok(text.to_owned())) {
            Some(text) => self.path(&text),
            None => computed(self),
        };
        self.values.note(key, &path);
        path
    }

    pub(super) fn home(&self) -> PathBuf {
        match self.outside(&keys::HOME).or_else(|| self.saved(&keys::HOME)) {
            Some((_, text)) => self.path(&text),
            None => self.path(&format!("~/.sigilum-workspace{}", self.suffix())),
        }
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        data_dir_of(&self.suffix(), self.sources.env)
    }

    /// What the folders of the profile end with.
    fn suffix(&self) -> String {
        let profile = self.outside(&keys::PROFILE).and_then(|(_, name)| Profile::parse(&name).ok().flatten());
        profile.map(|profile| profile.suffix()).unwrap_or_default()
    }

    /// A path as typed; `~/` is the user's home folder, where there is one.
    pub(super) fn path(&self, text: &str) -> PathBuf {
        let text = text.trim();
        match (text.strip_prefix("~/"), (self.sources.env)("HOME")) {
            (Some(rest), Some(home)) => Path::new(&home).join(rest),
            (Some(rest), None) => PathBuf::from(rest),
            (None, _) => PathBuf::from(text),
        }
    }
}

/// What is said of a setting at a place.
fn told(place: Place, key: &Key, message: &str) -> Mistake {
    // Elsewhere the place is the name already.
    let message = match place {
        Place::File { .. } | Place::Whole => format!("{} {message}", key.name()),
        Place::Environment(_) | Place::Flag(_) | Place::Saved(_) => message.to_owned(),
    };
    Mistake { place, path: key.name().to_owned(), message }
}

/// Whether two listen addresses would fight for one port.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

/// The text of a node, where the node has the wanted shape.
pub(super) fn shaped(node: &Node, shape: Shape) -> Result<String, String> {
    match (shape, &node.value) {
        (Shape::Text, _) => file::text_of(node).map(ToOwned::to_owned),
        (Shape::Word, Value::Plain(text)) if is_boolean(text) => Ok(text.to_ascii_lowercase()),
        (Shape::Word, _) => file::text_of(node).map(ToOwned::to_owned),
        (Shape::Number, Value::Plain(text)) if is_number(text) => Ok(text.clone()),
        (Shape::Number, _) => Err(format!("must be a whole number, found {}", node.kind())),
        (Shape::Boolean, Value::Plain(text)) if is_boolean(text) || is_word(text) => Ok(text.clone()),
        (Shape::Boolean, _) => Err(format!("must be true or false, found {}", node.kind())),
    }
}

/// Truth values of older YAML, which people still write.
fn is_word(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "yes" | "no" | "on" | "off")
}

pub(super) fn parse_boolean(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

pub(super) fn parse_number(text: &str, least: u64, most: u64) -> Result<u64, String> {
    // A sign is allowed, as in YAML.
    let digits = text.strip_prefix('+').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = if plain { digits.parse::<u64>().ok() } else { None };
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("must be a whole number from {least} to {most}"))
}

/// The data folder where nobody names one: that of the profile.
pub fn default_data_dir(env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    data_dir_of(&profile::suffix(env), env)
}

fn data_dir_of(suffix: &str, env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let name = format!("sigilum-gateway{suffix}");
    match (env("XDG_DATA_HOME"), env("HOME")) {
        // The XDG specification: a relative path there is invalid and ignored.
        (Some(base), _) if base.starts_with('/') => Path::new(&base).join(name),
        (Some(_) | None, Some(home)) => Path::new(&home).join(".local/share").join(name),
        (Some(_) | None, None) => PathBuf::from(format!("gateway-data{suffix}")),
    }
}

//! Precedence and judgement: option, environment, file, default; all mistakes together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::address;
use crate::config::address::Bind;
use crate::config::address::Listen;
use crate::config::file;
use crate::config::file::GatewayFile;
use crate::config::keys;
use crate::config::keys::Fallback;
use crate::config::keys::Key;
use crate::config::mistake::Mistake;
use crate::config::mistake::Mistakes;
use crate::config::mistake::Place;
use crate::config::parts::AccessMode;
use crate::config::parts::AdminAccess;
use crate::config::parts::ClaimsOptions;
use crate::config::parts::ClaimsSource;
use crate::config::parts::Config;
use crate::config::parts::DecisionLog;
use crate::config::parts::EnvoyOptions;
use crate::config::parts::Listeners;
use crate::config::parts::Paths;
use crate::config::parts::UsageOptions;
use crate::config::syntax::Node;
use crate::config::syntax::Value;
use crate::config::syntax::is_boolean;
use crate::config::syntax::is_number;
use crate::domain::ids::Namespace;
use crate::domain::secret::Secret;
use crate::domain::snapshot::Rotation;
use crate::domain::snapshot::Settings;

/// Shortest admin token: below it somebody could try them all.
const MIN_TOKEN_CHARACTERS: usize = 16;
/// Least backlog of usage events: one file of the access log.
const LEAST_BACKLOG: u64 = 64 * 1024 * 1024;
/// Most of it.
const MOST_BACKLOG: u64 = 1 << 40;
/// Longest list of addresses or authorities.
const MAX_LIST: usize = 64;

/// What the command line said, by setting.
#[derive(Debug, Clone, Default)]
pub struct Flags(BTreeMap<&'static str, String>);

impl Flags {
    /// Sets the option of `key`, where the command line has it. Lists are one text with commas.
    pub fn set(&mut self, key: &Key, value: Option<impl Into<String>>) {
        if let (Some(flag), Some(value)) = (key.flag, value) {
            self.0.insert(flag, value.into());
        }
    }

    fn find(&self, key: &Key) -> Option<(&'static str, &str)> {
        self.0.get_key_value(key.flag?).map(|(flag, value)| (*flag, value.as_str()))
    }
}

/// Where values come from besides the file, strongest first.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The command line.
    pub flags: &'a Flags,
    /// The environment; `None` for variables that are unset or blank.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// `config.env`, by the names of the environment; weaker than the file, stronger than our defaults.
    pub saved: &'a dyn Fn(&str) -> Option<String>,
}

/// Where the configuration file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePlace {
    /// The file.
    pub path: PathBuf,
    /// Whether somebody named it: then it must exist.
    pub required: bool,
}

/// Says which file to read before [`load`].
pub fn locate(sources: Sources<'_>) -> FilePlace {
    let loader = Loader::new(sources, GatewayFile::default());
    match loader.outside(&keys::CONFIG_FILE) {
        Some((_, text)) => FilePlace { path: loader.path(&text), required: true },
        None => FilePlace { path: loader.home().join("gateway.yaml"), required: false },
    }
}

/// Builds the configuration. `file` is the name and text of `gateway.yaml`, where there is one.
pub fn load(sources: Sources<'_>, file: Option<(&Path, &str)>) -> Result<Config, Mistakes> {
    let mut mistakes = Vec::new();
    let read = file.map_or_else(GatewayFile::default, |(_, text)| file::read(text, &mut mistakes));
    let mut loader = Loader::new(sources, read);
    loader.mistakes = mistakes;
    let config = build(&mut loader, file.map(|(path, _)| path.to_owned()));
    match (config, loader.mistakes.is_empty()) {
        (Some(config), true) => Ok(config),
        _ => Err(Mistakes::new(file.map(|(path, _)| path.display().to_string()), loader.mistakes)),
    }
}

/// Reads everything before anything is put together, so that all mistakes are seen.
fn build(loader: &mut Loader<'_>, config_file: Option<PathBuf>) -> Option<Config> {
    loader.refuse(&keys::ALLOW_UNSIGNED_PROXY, true, "unsigned requests cannot be allowed: no setting opens the gate");
    loader.refuse(&keys::REQUIRE_SIGNED_ADMIN_CHECKS, false, "the checks of the admin API cannot be switched off");

    let namespace = loader
        .read(&keys::NAMESPACE, Shape::Text, |text| Namespace::normalise(text).map_err(|invalid| invalid.to_string()));
    let api_url = loader.read(&keys::API_URL, Shape::Text, parse_url);
    let bind = loader.read(&keys::BIND, Shape::Text, Bind::parse);
    let ingress = loader.listen(&keys::INGRESS_ADDR, bind);
    let admin = loader.listen(&keys::ADMIN_ADDR, bind);
    let envoy_admin = loader.listen(&keys::ENVOY_ADMIN_ADDR, Some(Bind::Loopback));
    let data_dir = loader.folder(&keys::DATA_DIR, Loader::data_dir);
    let run_dir = loader.folder(&keys::RUN_DIR, |_| data_dir.join("run"));
    let binary = loader.read(&keys::ENVOY_BIN, Shape::Text, |text| Ok(text.to_owned()));
    let concurrency = loader.number(&keys::ENVOY_CONCURRENCY, 0, 512);
    let trusted_hops = loader.number(&keys::TRUSTED_HOPS, 0, 16);
    let authorities = loader.list(&keys::AUTHORITIES, address::parse_authority);
    let allow_private = loader.read(&keys::ALLOW_PRIVATE, Shape::Boolean, parse_boolean);
    let drain = loader.number(&keys::SHUTDOWN_TIMEOUT, 1, 3600);
    let claims_grace = loader.number(&keys::CLAIMS_GRACE, 0, 86_400);
    let claims_source = loader.read(&keys::CLAIMS_SOURCE, Shape::Word, parse_claims_source);
    let claims_refresh = loader.number(&keys::CLAIMS_REFRESH, 1, 3600);
    let claims_ttl = loader.number(&keys::CLAIMS_TTL, 1, 86_400);
    let max_approvals = loader.number(&keys::CLAIMS_MAX_APPROVALS, 1, 10_000_000);
    let auto_register = loader.read(&keys::AUTO_REGISTER, Shape::Boolean, parse_boolean);
    let usage_enabled = loader.read(&keys::USAGE_ENABLED, Shape::Boolean, parse_boolean);
    let usage_backlog = loader.number(&keys::USAGE_MAX_BACKLOG, LEAST_BACKLOG, MOST_BACKLOG);
    let registration_rate = loader.number(&keys::REGISTRATION_RATE, 0, 100_000);
    let mode = loader.read(&keys::ADMIN_ACCESS_MODE, Shape::Text, |text| {
        AccessMode::parse(text).ok_or_else(|| "must be token, hybrid or loopback".to_owned())
    });
    let token = loader.secret(&keys::ADMIN_TOKEN, |text| {
        let long = text.chars().count() >= MIN_TOKEN_CHARACTERS;
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if long && visible {
            Ok(())
        } else {
            Err("must be at least 16 visible ASCII characters without blanks".to_owned())
        }
    });
    let allowed_origins =
        loader.is_set(&keys::ALLOWED_ORIGINS).then(|| loader.list(&keys::ALLOWED_ORIGINS, parse_origin));
    let master_key = loader.secret(&keys::MASTER_KEY, |_| Ok(()));
    let max_body_bytes = loader.number(&keys::MAX_REQUEST_BODY_BYTES, 1, 64 * 1024 * 1024);
    let max_age = loader.number(&keys::MAX_AGE, 1, 3600);
    let nonce_ttl = loader.number(&keys::NONCE_TTL, 1, 86_400);
    let replay_capacity = loader.number(&keys::REPLAY_CAPACITY, 1000, 100_000_000);
    let stranger_rate = loader.number(&keys::STRANGER_RATE, 1, 100_000);
    let rotation = loader.read(&keys::ROTATION_ENFORCEMENT, Shape::Text, parse_rotation);
    let rotation_grace_days = loader.number(&keys::ROTATION_GRACE_DAYS, 0, 3650);
    let log_level = loader.read(&keys::LOG_LEVEL, Shape::Word, parse_level);
    let decisions = loader.read(&keys::LOG_DECISIONS, Shape::Word, parse_decisions);
    let admin_url = loader.read(&keys::ADMIN_URL, Shape::Text, parse_url);
    let upstream_port = loader.read(&keys::UPSTREAM_PORT, Shape::Number, address::parse_port);

    if let (Some(max_age), Some(nonce_ttl)) = (max_age, nonce_ttl)
        && nonce_ttl < max_age
    {
        loader.blame(&keys::NONCE_TTL, format!("must not be below the age of a signature ({max_age} s)"));
    }
    if let (Some(mode), Some(admin)) = (mode, &admin)
        && mode == AccessMode::Loopback
        && !address::all_loopback(admin)
    {
        loader.blame(&keys::ADMIN_ACCESS_MODE, "loopback cannot guard an address that is not loopback".to_owned());
    }
    if let Some(envoy_admin) = &envoy_admin
        && !address::all_loopback(envoy_admin)
    {
        loader.blame(&keys::ENVOY_ADMIN_ADDR, "must be a loopback address: nothing guards it".to_owned());
    }
    loader.check_distinct(&[
        (&keys::INGRESS_ADDR, ingress.as_deref()),
        (&keys::ADMIN_ADDR, admin.as_deref()),
        (&keys::ENVOY_ADMIN_ADDR, envoy_admin.as_deref()),
    ]);

    let admin_port = admin.as_ref().and_then(|addresses| addresses.first()).map_or(0, SocketAddr::port);
    let listen = Listeners { ingress: ingress?, admin: admin?, envoy_admin: envoy_admin? };
    let settings = Settings {
        authorities: authorities?,
        max_age: Duration::from_secs(max_age?),
        max_body_bytes: max_body_bytes?,
        allow_private: allow_private?,
        // Where the gateway serves this machine alone, what runs on this machine is a fair upstream.
        allow_loopback: address::all_loopback(&listen.ingress) && address::all_loopback(&listen.admin),
        rotation: rotation?,
        rotation_grace_days: u32::try_from(rotation_grace_days?).ok()?,
        claims_hold: Duration::from_secs(claims_ttl?.saturating_add(claims_grace?)),
        stranger_rate_per_second: u32::try_from(stranger_rate?).ok()?,
        // Whoever has no name cannot vouch for anybody.
        auto_register: auto_register? && namespace.is_some() && claims_source? == ClaimsSource::Api,
        gateway_namespace: namespace.as_ref().map_or_else(String::new, ToString::to_string),
    };
    Some(Config {
        namespace,
        api_url: api_url?,
        api_url_set: loader.is_set(&keys::API_URL),
        admin_url: admin_url.unwrap_or_else(|| format!("http://127.0.0.1:{admin_port}")),
        paths: Paths { home: loader.home(), config_file, data_dir, run_dir },
        listen,
        admin: AdminAccess { mode: mode?, token, allowed_origins: allowed_origins.flatten() },
        envoy: EnvoyOptions {
            binary: binary.map(|text| loader.path(&text)),
            concurrency: u32::try_from(concurrency?).ok().filter(|count| *count > 0),
            trusted_hops: u32::try_from(trusted_hops?).ok()?,
        },
        settings,
        claims: ClaimsOptions {
            source: claims_source?,
            refresh: Duration::from_secs(claims_refresh?.min(claims_ttl?)),
            ttl: Duration::from_secs(claims_ttl?),
            max_approvals: usize::try_from(max_approvals?).ok()?,
            registrations_per_minute: u32::try_from(registration_rate?).ok()?,
        },
        usage: UsageOptions { enabled: usage_enabled?, max_backlog_bytes: usage_backlog? },
        replay_capacity: usize::try_from(replay_capacity?).ok()?,
        drain: Duration::from_secs(drain?),
        log_level: log_level?,
        decisions: decisions?,
        master_key,
        upstream_port: upstream_port?,
        approvals: std::mem::take(&mut loader.file.approvals),
    })
}

/// What a value in the file must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Text,
    Number,
    Boolean,
    /// Text, where `off` and the like are words and no truth values.
    Word,
}

struct Loader<'a> {
    sources: Sources<'a>,
    file: GatewayFile,
    mistakes: Vec<Mistake>,
}

impl<'a> Loader<'a> {
    const fn new(sources: Sources<'a>, file: GatewayFile) -> Self {
        Self { sources, file, mistakes: Vec::new() }
    }

    /// What option or environment say.
    fn outside(&self, key: &Key) -> Option<(Place, String)> {
        if let Some((flag, value)) = self.sources.flags.find(key) {
            return Some((Place::Flag(flag), value.to_owned()));
        }
        key.env.iter().find_map(|name| {
            let value = (self.sources.env)(name).filter(|value| !value.trim().is_empty())?;
            Some((Place::Environment(name), value))
        })
    }

    /// What `config.env` says.
    fn saved(&self, key: &Key) -> Option<(Place, String)> {
        key.env.iter().find_map(|name| {
            let value = (self.sources.saved)(name).filter(|value| !value.trim().is_empty())?;
            Some((Place::Saved(name), value))
        })
    }

    /// What the file says, as text of the wanted shape.
    fn inside(&self, key: &Key, shape: Shape) -> Option<(Place, Result<String, String>)> {
        let node = self.file.settings.get(key.yaml?)?;
        Some((node.mark.place(), shaped(node, shape)))
    }

    /// Whether anybody sets it.
    fn is_set(&self, key: &Key) -> bool {
        let inside = key.yaml.is_some_and(|name| self.file.settings.contains_key(name));
        inside || self.outside(key).is_some() || self.saved(key).is_some()
    }

    /// Finds and reads one value; a mistake is noted and leaves `None`.
    fn read<T>(&mut self, key: &Key, shape: Shape, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let (place, text) = match self.outside(key) {
            Some((place, text)) => (place, Ok(text)),
            None => match (self.inside(key, shape), self.saved(key), key.fallback) {
                (Some(found), _, _) => found,
                (None, Some((place, text)), _) => (place, Ok(text)),
                (None, None, Fallback::Text(text)) => (Place::Whole, Ok(text.to_owned())),
                (None, None, Fallback::Computed(_) | Fallback::None) => return None,
            },
        };
        match text.and_then(|text| parse(&text)) {
            Ok(value) => Some(value),
            Err(message) => {
                self.note(place, key, &message);
                None
            }
        }
    }

    fn number(&mut self, key: &Key, least: u64, most: u64) -> Option<u64> {
        self.read(key, Shape::Number, |text| parse_number(text, least, most))
    }

    /// A list: in the file a sequence or one text, elsewhere one text with commas.
    fn list<T: PartialEq>(&mut self, key: &Key, parse: impl Fn(&str) -> Result<T, String>) -> Option<Vec<T>> {
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
        } else if let Fallback::Text(text) = key.fallback {
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
        (self.mistakes.len() == before).then_some(values)
    }

    /// Listen addresses, resolved; at least one.
    fn listen(&mut self, key: &Key, bind: Option<Bind>) -> Option<Vec<SocketAddr>> {
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
    fn secret(&mut self, key: &Key, check: impl Fn(&str) -> Result<(), String>) -> Option<Secret> {
        let (place, text) = self.outside(key)?;
        match check(&text) {
            Ok(()) => Some(Secret::new(text)),
            Err(message) => {
                self.note(place, key, &message);
                None
            }
        }
    }

    /// Refuses a truth value that would take a guard away.
    fn refuse(&mut self, key: &Key, refused: bool, why: &str) {
        if self.read(key, Shape::Boolean, parse_boolean) == Some(refused) {
            self.blame(key, why.to_owned());
        }
    }

    /// No two listeners on one port: one of them would not get it, or get half of it.
    fn check_distinct(&mut self, listeners: &[(&Key, Option<&[SocketAddr]>)]) {
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
    fn blame(&mut self, key: &Key, message: String) {
        let inside = || key.yaml.and_then(|name| self.file.settings.get(name)).map(|node| node.mark.place());
        let found = self.outside(key).map(|(place, _)| place).or_else(inside);
        let place = found.or_else(|| self.saved(key).map(|(place, _)| place)).unwrap_or(Place::Whole);
        self.note(place, key, &message);
    }

    fn note(&mut self, place: Place, key: &Key, message: &str) {
        // Elsewhere the place is the name already.
        let message = match place {
            Place::File { .. } | Place::Whole => format!("{} {message}", key.name()),
            Place::Environment(_) | Place::Flag(_) | Place::Saved(_) => message.to_owned(),
        };
        self.mistakes.push(Mistake { place, message });
    }

    fn folder(&mut self, key: &Key, computed: impl Fn(&Self) -> PathBuf) -> PathBuf {
        match self.read(key, Shape::Text, |text| Ok(text.to_owned())) {
            Some(text) => self.path(&text),
            None => computed(self),
        }
    }

    fn home(&self) -> PathBuf {
        match self.outside(&keys::HOME).or_else(|| self.saved(&keys::HOME)) {
            Some((_, text)) => self.path(&text),
            None => self.path("~/.sigilum-workspace"),
        }
    }

    fn data_dir(&self) -> PathBuf {
        match (self.sources.env)("XDG_DATA_HOME") {
            // The XDG specification: a relative path there is invalid and ignored.
            Some(base) if base.starts_with('/') => Path::new(&base).join("sigilum-gateway"),
            Some(_) | None if (self.sources.env)("HOME").is_some() => self.path("~/.local/share/sigilum-gateway"),
            Some(_) | None => PathBuf::from("gateway-data"),
        }
    }

    /// A path as typed; `~/` is the user's home folder, where there is one.
    fn path(&self, text: &str) -> PathBuf {
        let text = text.trim();
        match (text.strip_prefix("~/"), (self.sources.env)("HOME")) {
            (Some(rest), Some(home)) => Path::new(&home).join(rest),
            (Some(rest), None) => PathBuf::from(rest),
            (None, _) => PathBuf::from(text),
        }
    }
}

/// Whether two listen addresses would fight for one port.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

/// The text of a node, where the node has the wanted shape.
fn shaped(node: &Node, shape: Shape) -> Result<String, String> {
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
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse::<u64>().ok() } else { None };
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("must be a whole number from {least} to {most}"))
}

fn parse_rotation(text: &str) -> Result<Rotation, String> {
    match text {
        "off" => Ok(Rotation::Off),
        "warn" => Ok(Rotation::Warn),
        "block" => Ok(Rotation::Block),
        _ => Err("must be off, warn or block".to_owned()),
    }
}

/// `off` is a truth value in YAML; here it is a word.
fn parse_claims_source(text: &str) -> Result<ClaimsSource, String> {
    match text.trim() {
        "api" => Ok(ClaimsSource::Api),
        "off" => Ok(ClaimsSource::Off),
        _ => Err("must be api or off".to_owned()),
    }
}

fn parse_level(text: &str) -> Result<String, String> {
    match text.trim() {
        level @ ("off" | "error" | "warn" | "info" | "debug" | "trace") => Ok(level.to_owned()),
        _ => Err("must be off, error, warn, info, debug or trace".to_owned()),
    }
}

fn parse_decisions(text: &str) -> Result<DecisionLog, String> {
    match text.trim() {
        "all" => Ok(DecisionLog::All),
        "denied" => Ok(DecisionLog::Denied),
        text => match parse_boolean(text) {
            Ok(true) => Ok(DecisionLog::All),
            Ok(false) => Ok(DecisionLog::Off),
            Err(_) => Err("must be all, denied or off".to_owned()),
        },
    }
}

/// An origin as browsers write it: scheme, host, a port that is not the default, nothing else.
fn parse_origin(text: &str) -> Result<String, String> {
    let wrong = || "must be an origin such as https://example.com:8443".to_owned();
    let (scheme, authority) = text.split_once("://").ok_or_else(wrong)?;
    if !matches!(scheme, "http" | "https") {
        return Err(wrong());
    }
    let authority = address::parse_authority(authority).map_err(|_| wrong())?;
    let default = if scheme == "http" { ":80" } else { ":443" };
    Ok(format!("{scheme}://{}", authority.strip_suffix(default).unwrap_or(&authority)))
}

fn parse_url(text: &str) -> Result<String, String> {
    let text = text.trim().trim_end_matches('/');
    let uri: Option<http::Uri> = text.parse().ok();
    let fits = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.query().is_none()
            && uri
                .authority()
                .is_some_and(|authority| !authority.as_str().contains('@') && !authority.host().is_empty())
    });
    if fits {
        Ok(text.to_owned())
    } else {
        Err("must be an http:// or https:// address without user and query".to_owned())
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;

//! Settings of the local control plane (`sigilum api`): options and environment, nothing else.
//!
//! It is a process of its own with a folder of its own; `gateway.yaml` is the gateway's.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::address::Bind;
use crate::config::keys::Fallback;
use crate::config::keys::Key;
use crate::config::loader::parse_boolean;
use crate::config::loader::parse_number;
use crate::config::mistake::Mistake;
use crate::config::mistake::Mistakes;
use crate::config::mistake::Place;
use crate::config::profile;
use crate::domain::secret::Secret;

const fn key(
    env: &'static [&'static str],
    flag: Option<&'static str>,
    fallback: Fallback,
    meaning: &'static str,
) -> Key {
    Key::new(None, env, flag, fallback, meaning)
}

/// Where it listens.
pub const HOST: Key = key(
    &["API_HOST"],
    Some("--host"),
    Fallback::Text("127.0.0.1"),
    "address the API is bound on: an IP address, or `loopback` for `127.0.0.1` and `::1`; others than loopback need \
     `API_ALLOW_REMOTE=true` and `JWT_SECRET`",
);
/// The port.
pub const PORT: Key = key(&["API_PORT"], Some("--port"), Fallback::Text("8787"), "port of the API");
/// Database, lock and token secret.
pub const DATA_DIR: Key = key(
    &["API_DATA_DIR"],
    Some("--api-data-dir"),
    Fallback::Computed("`$XDG_DATA_HOME/sigilum-api`, else `~/.local/share/sigilum-api`"),
    "folder of the API's database, its lock and `jwt-secret`",
);
/// Other machines.
pub const ALLOW_REMOTE: Key = key(
    &["API_ALLOW_REMOTE"],
    None,
    Fallback::Text("false"),
    "`true` allows addresses other than loopback, where `JWT_SECRET` is set too; put TLS in front",
);
/// Where it is reached.
pub const PUBLIC_URL: Key = key(
    &["API_PUBLIC_URL"],
    None,
    Fallback::None,
    "origins the API is reached at besides loopback, several with commas, e.g. `https://api.example.com`; a request \
     signed for another address is refused",
);
/// Secret of the owner tokens.
pub const JWT_SECRET: Key = key(
    &["JWT_SECRET"],
    None,
    Fallback::Computed("`<API_DATA_DIR>/jwt-secret`, made at the first start"),
    "signs owner tokens; at least 32 characters",
);
/// The same in a file.
pub const JWT_SECRET_FILE: Key = key(
    &["JWT_SECRET_FILE"],
    None,
    Fallback::None,
    "file that holds the value of `JWT_SECRET`, as containers are given secrets; where it is named it must be there",
);
/// Life of an owner token.
pub const JWT_EXPIRY: Key = key(
    &["JWT_EXPIRY"],
    None,
    Fallback::Text("7d"),
    "life of an owner token: a number and `s`, `m`, `h` or `d`, or seconds",
);
/// Pages that may call.
pub const ALLOWED_ORIGINS: Key = key(
    &["ALLOWED_ORIGINS"],
    None,
    Fallback::Text("http://localhost:3000"),
    "web origins whose pages may call the API, with commas",
);
/// Which environment.
pub const ENVIRONMENT: Key =
    key(&["ENVIRONMENT"], None, Fallback::Text("local"), "`local` and `test` may have the test seed");
/// Test seed.
pub const ENABLE_TEST_SEED: Key = key(
    &["ENABLE_TEST_SEED_ENDPOINT"],
    None,
    Fallback::Text("false"),
    "`true` opens `POST /v1/test/seed` on loopback, where `SIGILUM_TEST_SEED_TOKEN` is set",
);
/// Its token.
pub const TEST_SEED_TOKEN: Key = key(
    &["SIGILUM_TEST_SEED_TOKEN"],
    None,
    Fallback::None,
    "token of the test seed; less than 16 characters are warned of",
);
/// Limit.
pub const MAX_PENDING: Key = key(
    &["MAX_PENDING_AUTHORIZATIONS"],
    None,
    Fallback::Text("20"),
    "pending claims of a namespace for its owner's services, and as many for those of others; further ones are \
     rejected",
);
/// Limit.
pub const MAX_AGENTS: Key =
    key(&["MAX_AGENTS_PER_SERVICE"], None, Fallback::Text("10"), "approved keys of a namespace for one service");
/// Limit.
pub const MAX_SERVICES_OF_NAMESPACE: Key =
    key(&["MAX_SERVICES_PER_NAMESPACE"], None, Fallback::Text("10"), "services a namespace has approved keys for");
/// Limit.
pub const MAX_SERVICES_OF_ACCOUNT: Key =
    key(&["MAX_SERVICES_PER_ACCOUNT"], None, Fallback::Text("5"), "services of one owner");
/// Limit.
pub const MAX_KEYS: Key =
    key(&["MAX_API_KEYS_PER_SERVICE"], None, Fallback::Text("2"), "keys of a service that are not revoked");
/// Limit.
pub const PENDING_EXPIRY: Key = key(
    &["PENDING_AUTHORIZATION_EXPIRY_HOURS"],
    None,
    Fallback::Text("24"),
    "hours after which a pending claim expires",
);
/// Limit.
pub const SIGNATURE_MAX_AGE: Key =
    key(&["SIGNATURE_MAX_AGE_SECONDS"], None, Fallback::Text("300"), "seconds a signature is good for");
/// Limit.
pub const NONCE_TTL: Key = key(
    &["SIGNATURE_NONCE_TTL_SECONDS"],
    None,
    Fallback::Text("600"),
    "seconds a nonce is remembered; never less than a signature is good for",
);

/// Limit.
pub const PAIRING_MAX: Key = key(
    &["PAIRING_MAX_HOURS"],
    None,
    Fallback::Text("24"),
    "hours after which a pairing with a gateway ends, however alive it is; the gateway is then paired again",
);

/// All of them, in the order of the table.
pub const ALL: &[Key] = &[
    HOST,
    PORT,
    DATA_DIR,
    ALLOW_REMOTE,
    PUBLIC_URL,
    JWT_SECRET,
    JWT_SECRET_FILE,
    JWT_EXPIRY,
    ALLOWED_ORIGINS,
    ENVIRONMENT,
    ENABLE_TEST_SEED,
    TEST_SEED_TOKEN,
    MAX_PENDING,
    MAX_AGENTS,
    MAX_SERVICES_OF_NAMESPACE,
    MAX_SERVICES_OF_ACCOUNT,
    MAX_KEYS,
    PENDING_EXPIRY,
    SIGNATURE_MAX_AGE,
    NONCE_TTL,
    PAIRING_MAX,
];

/// Shortest token of the test seed that is not warned of, in characters.
pub const MIN_SEED_TOKEN: usize = 16;
/// Largest limit that can be set: more rows than any one machine would hold.
const MOST: u64 = 10_000_000;

/// What options say.
#[derive(Debug, Clone, Default)]
pub struct ApiFlags {
    /// `--host`.
    pub host: Option<String>,
    /// `--port`; 0 = one the system chooses.
    pub port: Option<u16>,
    /// `--api-data-dir`.
    pub data_dir: Option<PathBuf>,
}

/// The settings, valid.
#[derive(Debug)]
pub struct ApiSettings {
    /// Where to listen.
    pub addresses: Vec<SocketAddr>,
    /// Database, lock, token secret.
    pub data_dir: PathBuf,
    /// Whether addresses other than loopback may be bound.
    pub allow_remote: bool,
    /// Origins it is reached at besides loopback, without a path.
    pub public_urls: Vec<String>,
    /// Signs owner tokens, where the operator names it.
    pub jwt_secret: Option<Secret>,
    /// Life of an owner token.
    pub token_ttl: Duration,
    /// Web origins whose pages may call.
    pub allowed_origins: Vec<String>,
    /// `local`, `test` or something else.
    pub environment: String,
    /// Whether the test seed is wanted and this environment may have it.
    pub seed_enabled: bool,
    /// Its token.
    pub seed_token: Option<Secret>,
    /// Pending claims of a namespace.
    pub max_pending: u32,
    /// Approved keys of a namespace for one service.
    pub max_agents_per_service: u32,
    /// Services a namespace has approved keys for.
    pub max_services_per_namespace: u32,
    /// Services of one owner.
    pub max_services_per_account: u32,
    /// Keys of a service that are not revoked.
    pub max_keys_per_service: u32,
    /// After which a pending claim expires.
    pub pending_expiry: Duration,
    /// How long a signature is good for.
    pub signature_max_age: Duration,
    /// How long a nonce is remembered.
    pub nonce_ttl: Duration,
    /// Longest life of a pairing.
    pub pairing_max: Duration,
}

/// Reads the settings; `lookup` is the environment, where blank counts as unset. Every mistake is reported.
pub fn load(flags: &ApiFlags, lookup: &dyn Fn(&str) -> Option<String>) -> Result<ApiSettings, Mistakes> {
    let mut loader = Loader { lookup, mistakes: Vec::new() };
    let host = loader.read(&HOST, flags.host.as_deref(), Bind::parse);
    let port = match flags.port {
        Some(port) => port,
        None => loader.number(&PORT, 1, 65535).and_then(|port| u16::try_from(port).ok()).unwrap_or(0),
    };
    let hours = |hours: u64| Duration::from_secs(hours.saturating_mul(3600));
    let settings = ApiSettings {
        addresses: host.map(|host| host.at(port)).unwrap_or_default(),
        data_dir: flags.data_dir.clone().unwrap_or_else(|| data_dir(lookup)),
        allow_remote: loader.read(&ALLOW_REMOTE, None, parse_boolean).unwrap_or_default(),
        public_urls: loader.list(&PUBLIC_URL, parse_origin),
        jwt_secret: lookup("JWT_SECRET").map(Secret::new),
        token_ttl: loader.read(&JWT_EXPIRY, None, parse_duration).unwrap_or_default(),
        allowed_origins: loader.list(&ALLOWED_ORIGINS, parse_origin),
        environment: loader.read(&ENVIRONMENT, None, |text| Ok(text.to_owned())).unwrap_or_default(),
        seed_enabled: loader.read(&ENABLE_TEST_SEED, None, parse_boolean).unwrap_or_default(),
        seed_token: lookup("SIGILUM_TEST_SEED_TOKEN").map(Secret::new),
        max_pending: loader.limit(&MAX_PENDING),
        max_agents_per_service: loader.limit(&MAX_AGENTS),
        max_services_per_namespace: loader.limit(&MAX_SERVICES_OF_NAMESPACE),
        max_services_per_account: loader.limit(&MAX_SERVICES_OF_ACCOUNT),
        max_keys_per_service: loader.limit(&MAX_KEYS),
        pending_expiry: hours(loader.number(&PENDING_EXPIRY, 1, 24 * 365).unwrap_or_default()),
        signature_max_age: Duration::from_secs(loader.number(&SIGNATURE_MAX_AGE, 1, 3600).unwrap_or_default()),
        nonce_ttl: Duration::from_secs(loader.number(&NONCE_TTL, 1, 24 * 3600).unwrap_or_default()),
        pairing_max: hours(loader.number(&PAIRING_MAX, 1, 24 * 365).unwrap_or_default()),
    };
    if !loader.mistakes.is_empty() {
        return Err(Mistakes::new(None, loader.mistakes));
    }
    let local = matches!(settings.environment.as_str(), "local" | "test");
    Ok(ApiSettings { seed_enabled: settings.seed_enabled && local, ..settings })
}

/// Where database and secret are where nobody says it.
pub fn data_dir(lookup: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    if let Some(folder) = lookup("API_DATA_DIR") {
        return PathBuf::from(folder);
    }
    let suffix = profile::suffix(lookup);
    let name = format!("sigilum-api{suffix}");
    match (lookup("XDG_DATA_HOME"), lookup("HOME")) {
        // The XDG specification: a relative path there is invalid and ignored.
        (Some(base), _) if base.starts_with('/') => Path::new(&base).join(name),
        (_, Some(home)) => Path::new(&home).join(".local/share").join(name),
        (_, None) => PathBuf::from(format!("api-data{suffix}")),
    }
}

struct Loader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    mistakes: Vec<Mistake>,
}

impl Loader<'_> {
    fn read<T>(&mut self, key: &Key, flag: Option<&str>, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let name = key.env.first().copied().unwrap_or_default();
        let (place, text) = match (flag, (self.lookup)(name), key.fallback) {
            (Some(text), _, _) => (Place::Flag(key.flag.unwrap_or_default()), text.to_owned()),
            (None, Some(text), _) => (Place::Environment(name), text),
            (None, None, Fallback::Text(text)) => (Place::Whole, text.to_owned()),
            (None, None, Fallback::Computed(_) | Fallback::None) => return None,
        };
        match parse(text.trim()) {
            Ok(value) => Some(value),
            Err(message) => {
                self.mistakes.push(Mistake { place, path: String::new(), message });
                None
            }
        }
    }

    fn number(&mut self, key: &Key, least: u64, most: u64) -> Option<u64> {
        self.read(key, None, |text| parse_number(text, least, most))
    }

    fn limit(&mut self, key: &Key) -> u32 {
        self.number(key, 1, MOST).and_then(|number| u32::try_from(number).ok()).unwrap_or_default()
    }

    fn list(&mut self, key: &Key, parse: impl Fn(&str) -> Result<String, String>) -> Vec<String> {
        let parts = |text: &str| {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            parts.map(&parse).collect::<Result<Vec<_>, _>>()
        };
        self.read(key, None, parts).unwrap_or_default()
    }
}

/// `http://host[:port]` or `https://host[:port]`, lower case, without a path.
fn parse_origin(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is no origin such as https://api.example.com");
    let origin = text.trim_end_matches('/').to_ascii_lowercase();
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")).ok_or_else(wrong)?;
    let plain = authority.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@,\"\\".contains(&byte));
    let host = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(host, _)| host);
    let named = match host {
        Some(host) => host.parse::<IpAddr>().is_ok(),
        None => !authority.starts_with(':'),
    };
    if plain && named && !authority.is_empty() { Ok(origin) } else { Err(wrong()) }
}

/// `7d`, `12h`, `30m`, `3600s` or `3600`; at least a second, at most ten years.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a number and s, m, h or d, e.g. 7d".to_owned();
    let (digits, unit) = match text.as_bytes().last() {
        Some(b's') => (text.strip_suffix('s'), 1),
        Some(b'm') => (text.strip_suffix('m'), 60),
        Some(b'h') => (text.strip_suffix('h'), 3600),
        Some(b'd') => (text.strip_suffix('d'), 24 * 3600),
        Some(_) | None => (Some(text), 1),
    };
    let number = parse_number(digits.ok_or_else(wrong)?, 1, 10 * 366 * 24 * 3600).map_err(|_| wrong())?;
    let seconds = number.checked_mul(unit).filter(|seconds| *seconds <= 10 * 366 * 24 * 3600).ok_or_else(wrong)?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<ApiSettings, Mistakes> {
        let find = |name: &str| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        load(&ApiFlags::default(), &find)
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let settings = with(&[("HOME", "/home/me")]).unwrap();
        assert_eq!(settings.addresses, ["127.0.0.1:8787".parse().unwrap()]);
        assert_eq!(settings.data_dir, Path::new("/home/me/.local/share/sigilum-api"));
        assert_eq!(settings.token_ttl, Duration::from_secs(7 * 24 * 3600));
        assert_eq!((settings.max_pending, settings.max_keys_per_service), (20, 2));
        assert_eq!(settings.allowed_origins, ["http://localhost:3000"]);
        assert!(!settings.seed_enabled && !settings.allow_remote && settings.jwt_secret.is_none());
    }

    #[test]
    fn options_win_and_lists_are_split() {
        let flags =
            ApiFlags { host: Some("loopback".to_owned()), port: Some(0), data_dir: Some(PathBuf::from("/tmp/x")) };
        let env = |name: &str| match name {
            "API_HOST" => Some("192.0.2.1".to_owned()),
            "API_PORT" => Some("nonsense".to_owned()),
            "API_PUBLIC_URL" => Some("https://API.example.com/, http://api:8787".to_owned()),
            _ => None,
        };
        let settings = load(&flags, &env).unwrap();
        assert_eq!(settings.addresses.len(), 2);
        assert_eq!(settings.public_urls, ["https://api.example.com", "http://api:8787"]);
    }

    #[test]
    fn every_mistake_is_reported() {
        let text = with(&[
            ("API_HOST", "example.com"),
            ("API_PORT", "0"),
            ("JWT_EXPIRY", "7 days"),
            ("API_PUBLIC_URL", "https://a.example/path"),
            ("ALLOWED_ORIGINS", "localhost"),
            ("MAX_PENDING_AUTHORIZATIONS", "-1"),
            ("API_ALLOW_REMOTE", "perhaps"),
        ])
        .unwrap_err()
        .to_string();
        for name in ["API_HOST", "API_PORT", "JWT_EXPIRY", "API_PUBLIC_URL", "ALLOWED_ORIGINS", "MAX_PENDING"] {
            assert!(text.contains(name), "{name}: {text}");
        }
        assert!(text.contains("7 mistakes"), "{text}");
    }

    #[test]
    fn any_token_opens_the_seed() {
        let token = |text| with(&[("SIGILUM_TEST_SEED_TOKEN", text)]).unwrap().seed_token;
        assert!(token("abc").unwrap().matches(b"abc"));
    }

    #[test]
    fn the_seed_is_for_local_and_test() {
        let seed = |environment| {
            let enabled = ("ENABLE_TEST_SEED_ENDPOINT", "true");
            with(&[enabled, ("ENVIRONMENT", environment)]).unwrap().seed_enabled
        };
        assert!(seed("local") && seed("test") && !seed("production"));
    }

    #[test]
    fn durations_have_units() {
        for (text, seconds) in [("7d", 604_800), ("12h", 43_200), ("30m", 1800), ("9s", 9), ("3600", 3600)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "d", "0", "-1", "1w", "1.5h", "99999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}

//! Judging how the admin API finds out who comes: mode, token, password, proxies.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::guard;
use crate::config::guard::Unguarded;
use crate::config::keys;
use crate::config::keys::Key;
use crate::config::loader::Loader;
use crate::config::loader::Shape;
use crate::config::loader::parse_boolean;
use crate::config::parts::AccessMode;
use crate::config::parts::GivenSecret;
use crate::config::parts::ProxyRule;
use crate::domain::network::Network;
use crate::domain::secret::Secret;

/// Longest name of a header, in bytes.
const MAX_HEADER_NAME: usize = 128;
/// Longest name of a user, in bytes.
const MAX_USER: usize = 256;

/// What is said about it, as far as it is right.
pub(super) struct Auth {
    /// The mode; `None`: a mistake that was noted.
    pub(super) mode: Option<AccessMode>,
    /// The token where it is given.
    pub(super) token: Option<Secret>,
    /// The password where it is given, or its file is.
    pub(super) password: Option<GivenSecret>,
    /// What opens the metrics alone, where it is given or its file is.
    pub(super) metrics: Option<GivenSecret>,
    /// The rule of proxies, where there is one.
    pub(super) proxy: Option<ProxyRule>,
    /// Why nobody would be asked.
    pub(super) unguarded: Option<Unguarded>,
}

/// Reads the settings. `admin`: where the admin API listens; `file` reads one that is an absolute path.
pub(super) fn read(
    loader: &mut Loader<'_>,
    admin: Option<&[SocketAddr]>,
    file: impl Fn(&mut Loader<'_>, &Key) -> Option<Option<PathBuf>> + Copy,
) -> Auth {
    let said = loader.is_set(&keys::ADMIN_ACCESS_MODE);
    let found = loader.read(&keys::ADMIN_ACCESS_MODE, Shape::Text, |text| {
        let words = "must be token, password, trusted-proxy, mtls, hybrid or none";
        AccessMode::parse(text).ok_or_else(|| words.to_owned())
    });
    // An option goes before the environment, also where that holds the password itself.
    let named = loader.sources.flags.find(&keys::PASSWORD_FILE).is_some();
    let raw_token = given(loader, &keys::ADMIN_TOKEN);
    let raw_password = given(loader, &keys::ADMIN_PASSWORD).filter(|_| !named);
    let is_local = admin.is_some_and(|admin| admin.iter().all(|address| address.ip().is_loopback()));
    let check = if is_local { guard::check_local_token } else { guard::check_token };
    let token = loader.secret(&keys::ADMIN_TOKEN, |text| check(text).map_err(str::to_owned));
    if token.as_ref().is_some_and(|token| guard::is_short(token.expose())) {
        loader.warn(
            &keys::ADMIN_TOKEN,
            "has less than 16 characters and could be guessed; it is taken because the admin API listens on loopback alone, \
             and refused anywhere else: `openssl rand -hex 32` makes a good one",
        );
    }
    let in_variable = if named {
        None
    } else {
        loader.secret(&keys::ADMIN_PASSWORD, |text| guard::check_password(text).map_err(str::to_owned))
    };
    let password_file = file(loader, &keys::PASSWORD_FILE).flatten();
    let password = in_variable.map(GivenSecret::Given).or(password_file.map(GivenSecret::File));
    let metrics = metrics(loader, [token.as_ref(), password.as_ref().and_then(GivenSecret::given)], file);
    let is_there = |raw: &Option<String>| raw.as_ref().is_some_and(|text| !text.trim().is_empty());
    let (has_token, has_password) =
        (is_there(&raw_token), is_there(&raw_password) || loader.is_set(&keys::PASSWORD_FILE));
    let mode = match found {
        Some(mode) => Some(mode),
        None if said => None,
        None if has_token && has_password => {
            let both = "does not say which counts: a token and a password are given; set it to token or password";
            loader.blame(&keys::ADMIN_ACCESS_MODE, both.to_owned());
            None
        }
        None if has_password => Some(AccessMode::Password),
        None => Some(AccessMode::Token),
    };
    if let Some(mode) = mode {
        loader.values.note(&keys::ADMIN_ACCESS_MODE, &mode);
    }
    if named && let Some(mode) = mode.filter(|mode| !matches!(mode, AccessMode::Password | AccessMode::TrustedProxy)) {
        let message = format!("counts for nothing in mode {}: add --auth password", mode.name());
        loader.blame(&keys::PASSWORD_FILE, message);
    }
    let proxy = proxy(loader, mode == Some(AccessMode::TrustedProxy));
    if mode == Some(AccessMode::TrustedProxy) && has_token {
        let both = "trusted-proxy and a token exclude each other: unset the token; the way in from this machine is a \
                    password";
        loader.blame(&keys::ADMIN_ACCESS_MODE, both.to_owned());
    }
    if mode == Some(AccessMode::Password) && !has_password {
        let wanted = format!("password wants {} or {}", keys::ADMIN_PASSWORD.name(), keys::PASSWORD_FILE.name());
        loader.blame(&keys::ADMIN_ACCESS_MODE, wanted);
    }
    let blank = |raw: &Option<String>| raw.as_ref().is_some_and(|text| text.trim().is_empty());
    let known = |raw: &Option<String>| raw.as_ref().is_some_and(|text| guard::is_placeholder(text));
    let unguarded = match mode {
        None | Some(AccessMode::Mtls) => None,
        Some(AccessMode::None) => Some(Unguarded::NoneMode),
        Some(AccessMode::Token | AccessMode::Hybrid) if blank(&raw_token) => Some(Unguarded::BlankToken),
        // Nobody said which one is meant, and somebody meant a password.
        Some(AccessMode::Token) if !said && blank(&raw_password) => Some(Unguarded::BlankPassword),
        Some(AccessMode::Token | AccessMode::Hybrid) => known(&raw_token).then_some(Unguarded::Placeholder),
        Some(AccessMode::Password) if !has_password && blank(&raw_password) => Some(Unguarded::BlankPassword),
        Some(AccessMode::Password) if !has_password => Some(Unguarded::NoPassword),
        Some(AccessMode::Password) => known(&raw_password).then_some(Unguarded::Placeholder),
        Some(AccessMode::TrustedProxy) => proxy.is_none().then_some(Unguarded::NoProxy),
    };
    Auth { mode, token, password, metrics, proxy, unguarded }
}

/// What opens the metrics alone. `others` open more: one of them would be handed to whoever reads the metrics.
fn metrics(
    loader: &mut Loader<'_>,
    others: [Option<&Secret>; 2],
    file: impl Fn(&mut Loader<'_>, &Key) -> Option<Option<PathBuf>>,
) -> Option<GivenSecret> {
    let given = loader.secret(&keys::METRICS_TOKEN, |text| guard::check_token(text).map_err(str::to_owned));
    if given.as_ref().is_some_and(|given| others.into_iter().flatten().any(|other| other == given)) {
        loader.blame(
            &keys::METRICS_TOKEN,
            "opens the whole admin API as well; give the metrics one of their own".to_owned(),
        );
    }
    let file = file(loader, &keys::METRICS_TOKEN_FILE).flatten();
    given.map(GivenSecret::Given).or(file.map(GivenSecret::File))
}

/// What the environment says, blank or not.
fn given(loader: &Loader<'_>, key: &Key) -> Option<String> {
    let mut all: Vec<String> = key.env.iter().filter_map(|name| (loader.sources.env)(name)).collect();
    let meant = all.iter().position(|text| !text.trim().is_empty()).unwrap_or_default();
    (meant < all.len()).then(|| all.swap_remove(meant))
}

/// The rule of proxies; `wanted`: the mode goes by it.
fn proxy(loader: &mut Loader<'_>, wanted: bool) -> Option<ProxyRule> {
    let proxies = loader.list(&keys::TRUSTED_PROXIES, parse_network);
    let user_header = loader.read(&keys::PROXY_USER_HEADER, Shape::Text, parse_header);
    let required_headers = loader.list(&keys::PROXY_REQUIRED_HEADERS, parse_header);
    let allow_users = loader.list(&keys::PROXY_ALLOW_USERS, parse_user);
    let allow_loopback = loader.read(&keys::PROXY_ALLOW_LOOPBACK, Shape::Boolean, parse_boolean);
    let missing = [
        (&keys::TRUSTED_PROXIES, proxies.as_ref().is_some_and(Vec::is_empty)),
        (&keys::PROXY_USER_HEADER, user_header.is_none() && !loader.is_set(&keys::PROXY_USER_HEADER)),
    ];
    for (key, _) in missing.iter().filter(|(_, missing)| wanted && *missing) {
        loader.blame(&keys::ADMIN_ACCESS_MODE, format!("trusted-proxy wants {} as well", key.name()));
    }
    Some(ProxyRule {
        proxies: proxies.filter(|proxies| !proxies.is_empty())?,
        user_header: user_header?,
        required_headers: required_headers?,
        allow_users: allow_users?,
        allow_loopback: allow_loopback?,
    })
}

/// An address or a network. One of everybody would make everybody a proxy.
fn parse_network(text: &str) -> Result<Network, String> {
    let network =
        Network::parse(text).ok_or_else(|| "must be an address or a network such as 192.0.2.0/24".to_owned())?;
    if network.is_everybody() { Err("may not be a network of everybody".to_owned()) } else { Ok(network) }
}

/// Name of a header (RFC 9110 section 5.6.2), in small letters.
fn parse_header(text: &str) -> Result<String, String> {
    const MARKS: &[u8] = b"!#$%&'*+-.^_`|~";
    let token = |byte: u8| byte.is_ascii_alphanumeric() || MARKS.contains(&byte);
    let fits = !text.is_empty() && text.len() <= MAX_HEADER_NAME && text.bytes().all(token);
    if fits { Ok(text.to_ascii_lowercase()) } else { Err("must be the name of a header".to_owned()) }
}

fn parse_user(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.len() <= MAX_USER && !text.chars().any(char::is_control);
    if fits { Ok(text.to_owned()) } else { Err("must be the name of a user".to_owned()) }
}

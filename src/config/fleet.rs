//! Judging the settings of several replicas: the replay window they share, the listener of the state stream, and which
//! workload is sent what.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use crate::config::access::file;
use crate::config::access::parse_name;
use crate::config::address::Bind;
use crate::config::file::field;
use crate::config::file::wrong;
use crate::config::fleet_keys::REPLAY_CA_FILE;
use crate::config::fleet_keys::REPLAY_PASSWORD;
use crate::config::fleet_keys::REPLAY_PASSWORD_FILE;
use crate::config::fleet_keys::REPLAY_TIMEOUT;
use crate::config::fleet_keys::REPLAY_URL;
use crate::config::fleet_keys::STATE_ADDR;
use crate::config::fleet_keys::STATE_CERT_FILE;
use crate::config::fleet_keys::STATE_CLIENT_CA_FILE;
use crate::config::fleet_keys::STATE_KEY_FILE;
use crate::config::keys::Key;
use crate::config::loader::Loader;
use crate::config::loader::Shape;
use crate::config::mistake::MAX_FOUND;
use crate::config::mistake::Mistake;
use crate::config::syntax::Entry;
use crate::config::syntax::Node;
use crate::config::syntax::Value;
use crate::domain::ids::ConnectionId;
use crate::domain::secret::Secret;

/// The port of the store where the address names none.
const STORE_PORT: u16 = 6379;
/// The largest number of a database.
const MAX_DATABASE: u32 = 1_000_000;
/// Stands for every connection there is and will be.
pub const EVERYTHING: &str = "*";

/// A replay window that several replicas share.
#[derive(Debug, PartialEq, Eq)]
pub struct SharedReplay {
    /// Host name or IP address of the server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Number of its database.
    pub database: u32,
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// Authorities of its certificate (PEM); `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// User of its access list; `None`: the default one.
    pub username: Option<String>,
    /// Its password where the environment names it.
    pub password: Option<Secret>,
    /// The file with it.
    pub password_file: Option<PathBuf>,
    /// How long a request waits for it.
    pub timeout: Duration,
}

impl SharedReplay {
    /// The address as a setting has it, without any secret.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let user = self.username.as_ref().map_or_else(String::new, |user| format!("{user}@"));
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{scheme}://{user}{host}:{}/{}", self.port, self.database)
    }
}

/// The listener of the state stream for other hosts. Paths are absolute; the files may change while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateListener {
    /// Where; at least one address.
    pub addresses: Vec<SocketAddr>,
    /// The certificate, then its intermediates (PEM).
    pub cert_file: PathBuf,
    /// Its private key (PEM).
    pub key_file: PathBuf,
    /// Authorities of the clients' certificates (PEM).
    pub client_ca_file: PathBuf,
}

/// Who is sent what over the state stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// For people and logs.
    pub name: String,
    /// Subject alternative names (DNS or URI, exact) by which its certificates are known.
    pub sans: Vec<String>,
    /// Which connections it is sent.
    pub reach: Reach,
}

/// A set of connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// All there are and will be.
    Everything,
    /// These, whether or not they exist yet.
    Only(BTreeSet<ConnectionId>),
}

/// Where the server of the shared window is, as its setting says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StoreAddress {
    tls: bool,
    username: Option<String>,
    host: String,
    port: u16,
    database: u32,
}

/// The shared replay window, and what is likely to be a mistake about it. The outer `None`: a mistake was noted.
pub(super) fn replay(loader: &mut Loader<'_>) -> Option<(Option<SharedReplay>, Option<Mistake>)> {
    let before = loader.mistakes.len();
    let address = loader.read(&REPLAY_URL, Shape::Text, parse_store);
    let ca_file = file(loader, &REPLAY_CA_FILE);
    let password_file = file(loader, &REPLAY_PASSWORD_FILE);
    let password = loader.secret(&REPLAY_PASSWORD, |_| Ok(()));
    let timeout = loader.number(&REPLAY_TIMEOUT);
    if loader.mistakes.len() > before {
        return None;
    }
    let (ca_file, password_file) = (ca_file?, password_file?);
    let Some(StoreAddress { tls, username, host, port, database }) = address else {
        for (key, present) in [(&REPLAY_CA_FILE, ca_file.is_some()), (&REPLAY_PASSWORD_FILE, password_file.is_some())] {
            if present {
                loader.blame(key, format!("wants {} as well", REPLAY_URL.name()));
            }
        }
        return (loader.mistakes.len() == before).then_some((None, None));
    };
    if ca_file.is_some() && !tls {
        loader.blame(&REPLAY_CA_FILE, "means nothing without TLS: the address must be rediss://".to_owned());
    }
    if password.is_some() && password_file.is_some() {
        loader.blame(&REPLAY_PASSWORD_FILE, "and GATEWAY_REPLAY_PASSWORD are both given: one of them".to_owned());
    }
    if !tls && !is_here(&host) && (password.is_some() || password_file.is_some()) {
        let message = format!("must be rediss://: without TLS whoever is on the way to {host} reads the password");
        loader.blame(&REPLAY_URL, message);
    }
    if loader.mistakes.len() > before {
        return None;
    }
    let warning = (!tls && !is_here(&host)).then(|| Mistake {
        place: crate::config::mistake::Place::Whole,
        path: REPLAY_URL.name().to_owned(),
        message: format!(
            "{}: without TLS (rediss://) whoever is on the way to {host} can let replays through",
            REPLAY_URL.name()
        ),
    });
    let timeout = Duration::from_millis(timeout?);
    let shared = SharedReplay { host, port, database, tls, ca_file, username, password, password_file, timeout };
    Some((Some(shared), warning))
}

fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn parse_store(text: &str) -> Result<StoreAddress, String> {
    let wrong = || "must be rediss://[user@]host[:port][/database] or redis://…".to_owned();
    let uri: Uri = text.trim().parse().map_err(|_| wrong())?;
    let tls = match uri.scheme_str().map(str::to_ascii_lowercase).as_deref() {
        Some("rediss") => true,
        Some("redis") => false,
        Some(_) | None => return Err(wrong()),
    };
    let authority = uri.authority().ok_or_else(wrong)?;
    let username = match authority.as_str().rsplit_once('@') {
        Some((user, _)) if user.contains(':') => {
            return Err("must not hold a password: replay.shared.password_file does".to_owned());
        }
        Some((user, _)) if user.is_empty() || user.contains('%') => return Err(wrong()),
        Some((user, _)) => Some(user.to_owned()),
        None => None,
    };
    let database = match uri.path() {
        "" | "/" => 0,
        path => path.trim_start_matches('/').parse().ok().filter(|number| *number <= MAX_DATABASE).ok_or_else(wrong)?,
    };
    let place = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, place)| place);
    let port = match (authority.port(), place == authority.host()) {
        (Some(port), _) => port.as_u16(),
        (None, true) => STORE_PORT,
        (None, false) => return Err(wrong()),
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() || uri.query().is_some() {
        return Err(wrong());
    }
    Ok(StoreAddress { tls, username, host, port, database })
}

/// The listener of the state stream for other hosts. The outer `None`: a mistake was noted.
pub(super) fn listener(loader: &mut Loader<'_>, bind: Option<Bind>) -> Option<Option<StateListener>> {
    let before = loader.mistakes.len();
    let addresses = loader.is_set(&STATE_ADDR).then(|| loader.listen(&STATE_ADDR, bind));
    let files = [&STATE_CERT_FILE, &STATE_KEY_FILE, &STATE_CLIENT_CA_FILE].map(|key| (key, file(loader, key)));
    if loader.mistakes.len() > before {
        return None;
    }
    let [certificate, key, authorities] = files;
    let mut missing = |key: &Key, other: &Key| loader.blame(key, format!("wants {} as well", other.name()));
    match (addresses, certificate.1?, key.1?, authorities.1?) {
        (Some(addresses), Some(cert_file), Some(key_file), Some(client_ca_file)) => {
            Some(Some(StateListener { addresses: addresses?, cert_file, key_file, client_ca_file }))
        }
        (None, None, None, None) => Some(None),
        (Some(_), None, _, _) => {
            missing(&STATE_ADDR, &STATE_CERT_FILE);
            None
        }
        (Some(_), Some(_), None, _) => {
            missing(&STATE_ADDR, &STATE_KEY_FILE);
            None
        }
        (Some(_), Some(_), Some(_), None) => {
            missing(&STATE_ADDR, &STATE_CLIENT_CA_FILE);
            None
        }
        (None, certificate, key, _) => {
            let named = match (certificate, key) {
                (Some(_), _) => &STATE_CERT_FILE,
                (None, Some(_)) => &STATE_KEY_FILE,
                (None, None) => &STATE_CLIENT_CA_FILE,
            };
            missing(named, &STATE_ADDR);
            None
        }
    }
}

/// The name of the part.
const WORKLOADS: &str = "workloads";

/// The workloads, in the order of the file. Mistakes are noted; what is right is returned.
pub(super) fn workloads(node: Option<Node>, mistakes: &mut Vec<Mistake>) -> Vec<Workload> {
    let Some(node) = node.filter(|node| !node.is_nothing()) else { return Vec::new() };
    let kind = node.kind();
    let Value::List(items) = node.value else {
        mistakes.push(at(WORKLOADS, wrong(node.mark, format!("{WORKLOADS} must be a list, found {kind}"))));
        return Vec::new();
    };
    if items.len() > crate::config::structure::MAX_WORKLOADS {
        mistakes.push(at(WORKLOADS, wrong(node.mark, format!("{WORKLOADS} has too many entries"))));
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut owners: BTreeMap<String, u32> = BTreeMap::new();
    for (index, item) in items.into_iter().enumerate() {
        let (before, mark) = (mistakes.len(), item.mark);
        if before >= MAX_FOUND {
            break;
        }
        let read = workload(item, mistakes);
        for mistake in mistakes.iter_mut().skip(before) {
            mistake.path = format!("{WORKLOADS}[{index}]{}", mistake.path);
        }
        let Some(workload) = read else { continue };
        // A name of two workloads would be sent what both are.
        for name in workload.sans.iter().map(|san| format!("sans {san}")).chain([format!("name {}", workload.name)]) {
            if let Some(line) = owners.insert(name.clone(), mark.line()) {
                let message = format!("{name} stands in the workload of line {line} already");
                mistakes.push(at(&format!("{WORKLOADS}[{index}]"), wrong(mark, message)));
            }
        }
        found.push(workload);
    }
    found
}

fn at(path: &str, mistake: Mistake) -> Mistake {
    Mistake { path: path.to_owned(), ..mistake }
}

fn workload(item: Node, mistakes: &mut Vec<Mistake>) -> Option<Workload> {
    let (mark, kind, before) = (item.mark, item.kind(), mistakes.len());
    let Value::Map(entries) = item.value else {
        let message = format!("a workload must be a mapping with name, sans and connections, found {kind}");
        mistakes.push(wrong(mark, message));
        return None;
    };
    let (mut name, mut sans, mut connections) = (None, None, None);
    for Entry { key, mark, value } in &entries {
        match key.as_str() {
            "name" => name = field(key, value, mistakes, parse_workload_name),
            "sans" => sans = many(key, value, mistakes, parse_name),
            "connections" => connections = many(key, value, mistakes, |text| Ok(text.to_owned())),
            _ => {
                let shown = crate::config::file::shown(key);
                let message = format!("unknown key {shown}; a workload knows name, sans, connections");
                mistakes.push(wrong(*mark, message));
            }
        }
    }
    let present = |wanted: &str| entries.iter().any(|entry| entry.key == wanted && !entry.value.is_nothing());
    for wanted in ["name", "sans", "connections"] {
        if !present(wanted) {
            mistakes.push(wrong(mark, format!("the workload has no {wanted}")));
        }
    }
    if mistakes.len() > before {
        return None;
    }
    let (name, sans, connections) = (name?, sans?, connections?);
    if sans.is_empty() {
        mistakes.push(wrong(mark, "the workload has no sans".to_owned()));
        return None;
    }
    let reach = if connections == [EVERYTHING] {
        Reach::Everything
    } else {
        let mut only = BTreeSet::new();
        for id in connections {
            match ConnectionId::parse(&id) {
                Ok(id) => drop(only.insert(id)),
                Err(error) => {
                    let text =
                        format!("connections {} {error}; \"*\" alone means all", crate::config::file::shown(&id));
                    mistakes.push(Mistake { path: ".connections".to_owned(), ..wrong(mark, text) });
                    return None;
                }
            }
        }
        Reach::Only(only)
    };
    Some(Workload { name, sans, reach })
}

fn parse_workload_name(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if fits { Ok(text.to_owned()) } else { Err("must be 1 to 64 of A-Z, a-z, 0-9, '.', '_', '-'".to_owned()) }
}

fn many<T>(
    name: &str,
    node: &Node,
    mistakes: &mut Vec<Mistake>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    let Value::List(items) = &node.value else {
        let message = format!("{name} must be a list, found {}", node.kind());
        mistakes.push(Mistake { path: format!(".{name}"), ..wrong(node.mark, message) });
        return None;
    };
    items.iter().map(|item| field(name, item, mistakes, &parse)).collect()
}

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;

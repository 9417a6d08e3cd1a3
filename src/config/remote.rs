//! Whether the gateway of these settings runs here, and where it is if not.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::config::key::Fallback;
use crate::config::key::Key;
use crate::config::keys;
use crate::config::load::parse_url;
use crate::config::loader::Loader;
use crate::config::loader::Shape;
use crate::config::loader::parse_boolean;

/// Of a SHA-256.
const FINGERPRINT_DIGITS: usize = 64;

/// Where the gateway runs.
pub const MODE: Key = Key::new(
    Some("gateway.mode"),
    &[],
    None,
    Fallback::Text("local"),
    "`local`: the gateway runs here; `remote`: it runs elsewhere, none starts here, and commands go to `gateway.remote.url`",
)
.choice(&["local", "remote"]);
/// Where it is.
pub const URL: Key = Key::new(
    Some("gateway.remote.url"),
    &[],
    None,
    Fallback::None,
    "admin API of the remote gateway; `https`, or `http` on this machine (a tunnel)",
)
.pattern(r"^\s*[Hh][Tt][Tt][Pp][Ss]?://[^@?\s]+\s*$");
/// What we show it.
pub const TOKEN_FILE: Key = Key::new(
    Some("gateway.remote.token_file"),
    &[],
    None,
    Fallback::None,
    "absolute path of the file with the admin token of the remote gateway; no other token is sent there, and this one nowhere else",
);
/// How we know it.
pub const FINGERPRINT: Key = Key::new(
    Some("gateway.remote.tls_fingerprint"),
    &[],
    None,
    Fallback::None,
    "SHA-256 of the remote gateway's certificate (DER) in hex, with or without colons: that one is believed, and no other",
)
.pattern(r"^\s*[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){31}\s*$");
/// Plain HTTP in a private network.
pub const ALLOW_INSECURE: Key = Key::new(
    None,
    &["SIGILUM_ALLOW_INSECURE_PRIVATE_WS"],
    None,
    Fallback::Text("false"),
    "whether `gateway.remote.url`, `GATEWAY_ADMIN_URL` and `--url` may be plain `http` to an address of RFC 1918: whoever listens there reads the token",
)
.boolean();

/// Where the gateway runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Here.
    Local,
    /// Elsewhere.
    Remote,
}

/// A gateway that runs elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteGateway {
    /// Its admin API, without a trailing slash.
    pub url: String,
    /// The file with its admin token; `None`: none is sent.
    pub token_file: Option<PathBuf>,
    /// SHA-256 of its certificate, 64 lower-case hex digits; `None`: it is known as other servers are.
    pub fingerprint: Option<String>,
}

/// Reads and judges the settings; the gateway elsewhere only in that mode, and where it has an address. `None`: a mistake was
/// noted.
pub(super) fn read(loader: &mut Loader<'_>, insecure: bool) -> Option<(Mode, Option<RemoteGateway>)> {
    let mode = loader.read(&MODE, Shape::Word, |text| match text.trim() {
        "local" => Ok(Mode::Local),
        "remote" => Ok(Mode::Remote),
        _ => Err("must be local or remote".to_owned()),
    });
    let url = loader.read(&URL, Shape::Text, parse_url);
    let file = loader.read(&TOKEN_FILE, Shape::Text, |text| Ok(text.to_owned())).map(|text| loader.path(&text));
    let fingerprint = loader.read(&FINGERPRINT, Shape::Text, parse_fingerprint);
    if file.as_ref().is_some_and(|file| !file.is_absolute()) {
        loader.blame(&TOKEN_FILE, "must be an absolute path".to_owned());
    }
    if let Some(Err(why)) = url.as_deref().map(|url| check_guarded(url, insecure)) {
        loader.blame(&URL, why.to_owned());
    }
    let mode = mode?;
    let remote = url.map(|url| RemoteGateway { url, token_file: file, fingerprint });
    Some((mode, remote.filter(|_| mode == Mode::Remote)))
}

/// The address commands go to: an option names another one, nothing else does.
pub(super) fn address(loader: &Loader<'_>, remote: Option<&RemoteGateway>, local: String) -> String {
    remote.filter(|_| !loader.is_typed(&keys::ADMIN_URL)).map_or(local, |remote| remote.url.clone())
}

/// Whether plain HTTP in a private network is wanted.
pub(super) fn allow_insecure(loader: &mut Loader<'_>) -> bool {
    loader.read(&ALLOW_INSECURE, Shape::Boolean, parse_boolean).unwrap_or_default()
}

/// That a token may be sent to this address: by TLS, on this machine, or with leave (`insecure`) in a private network. The
/// error says what else.
pub fn check_guarded(url: &str, insecure: bool) -> Result<(), &'static str> {
    if is_guarded(url, insecure) {
        return Ok(());
    }
    Err(
        "must be https: whoever listens on the way would read the token (SIGILUM_ALLOW_INSECURE_PRIVATE_WS=1 allows http to \
         private addresses)",
    )
}

/// Whether nobody else reads what is sent there: TLS, this machine, or with leave a private network.
fn is_guarded(url: &str, insecure: bool) -> bool {
    let Ok(url) = url.parse::<http::Uri>() else { return false };
    if url.scheme_str() == Some("https") {
        return true;
    }
    let host = url.host().unwrap_or_default();
    match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || insecure && address.is_private(),
        Ok(IpAddr::V6(address)) => address.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

fn parse_fingerprint(text: &str) -> Result<String, String> {
    let plain = text.trim().replace(':', "").to_ascii_lowercase();
    let fits = plain.len() == FINGERPRINT_DIGITS && plain.bytes().all(|byte| byte.is_ascii_hexdigit());
    if fits { Ok(plain) } else { Err("must be 64 hex digits, with or without colons between pairs".to_owned()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::config::Flags;
    use crate::config::Machine;
    use crate::config::Mistakes;
    use crate::config::Sources;
    use crate::config::load;

    fn with(text: &str, flags: &Flags, variables: &[(&str, &str)]) -> Result<Config, Mistakes> {
        let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        load(
            Sources { flags, env: &env, saved: &|_| None, machine: &Machine::default },
            Some((Path::new("gateway.yaml"), text)),
        )
    }

    #[test]
    fn in_remote_mode_commands_go_to_the_remote_gateway_unless_an_option_names_another() {
        let text = |mode: &str| format!("gateway: {{mode: {mode}, remote: {{url: 'https://gw.example:38100'}}}}");
        let variables = [("GATEWAY_ADMIN_URL", "http://127.0.0.1:1")];
        let mut option = Flags::default();
        option.set(&keys::ADMIN_URL, Some("http://127.0.0.1:2"));
        for (mode, flags, url) in [
            ("local", &Flags::default(), "http://127.0.0.1:1"),
            ("remote", &Flags::default(), "https://gw.example:38100"),
            ("local", &option, "http://127.0.0.1:2"),
            ("remote", &option, "http://127.0.0.1:2"),
        ] {
            let config = with(&text(mode), flags, &variables).unwrap();
            assert_eq!(config.admin_url, url, "{mode}");
            assert_eq!(config.remote.is_some(), mode == "remote");
        }
    }

    #[test]
    fn a_token_is_not_to_go_over_a_network_in_clear() {
        let allowed = |url: &str, leave: &[(&str, &str)]| {
            with(&format!("gateway: {{mode: remote, remote: {{url: '{url}'}}}}"), &Flags::default(), leave).is_ok()
        };
        let leave = [("SIGILUM_ALLOW_INSECURE_PRIVATE_WS", "1")];
        for url in ["https://gw.example", "http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"] {
            assert!(allowed(url, &[]), "{url}");
        }
        for url in ["http://10.0.0.1", "http://192.168.0.1:38100", "http://172.16.0.1"] {
            assert!(!allowed(url, &[]) && allowed(url, &leave), "{url}");
        }
        for url in ["http://gw.example", "http://8.8.8.8", "http://172.32.0.1", "http://localhost.evil.example"] {
            assert!(!allowed(url, &leave), "{url}");
        }
    }

    #[test]
    fn a_fingerprint_is_read_with_and_without_colons() {
        let plain = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        assert_eq!(parse_fingerprint(&plain), Ok(plain.clone()));
        assert_eq!(parse_fingerprint(&colons), Ok(plain));
        for bad in ["", "ab", &"ab".repeat(31), &"xy".repeat(32)] {
            assert!(parse_fingerprint(bad).is_err(), "{bad}");
        }
    }
}

//! Options shared by the commands that run with the whole configuration.

use std::path::Path;
use std::path::PathBuf;

use clap::Args;

use crate::cli::args::Globals;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::settings;
use crate::config::Config;
use crate::config::Flags;
use crate::config::keys;
use crate::config::keys::Key;
use crate::domain::secret::Secret;
use crate::sys::env;

/// Settings as options; what is not given comes from the environment, `gateway.yaml` or the defaults.
#[derive(Debug, Clone, Default, Args)]
pub struct SettingsArgs {
    /// Configuration file [default: <home>/gateway.yaml, where it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the Sigilum API
    #[arg(long, value_name = "URL")]
    api_url: Option<String>,
    /// What :PORT means: loopback or an IP address [default: loopback]
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<String>,
    /// Port of the admin API; the address is that of --addr, else --bind [default: 38100]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Port agents connect to; the address is that of --ingress-addr, else --bind [default: 38000]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    listen_port: Option<u16>,
    /// Admin API: :PORT, IP:PORT or localhost:PORT; may be repeated [default: :38100]
    #[arg(long, value_name = "ADDR")]
    addr: Vec<String>,
    /// Where agents connect; may be repeated [default: :38000]
    #[arg(long, value_name = "ADDR")]
    ingress_addr: Vec<String>,
    /// Read-only face of Envoy's admin interface; may be repeated [default: :38200]
    #[arg(long, value_name = "ADDR")]
    envoy_admin_addr: Vec<String>,
    /// Who may use the admin API [default: token]
    #[arg(long, value_name = "MODE", hide_short_help = true, value_parser = ["token", "password", "mtls", "trusted-proxy", "hybrid", "none"])]
    auth: Option<String>,
    /// File with the password of --auth password and trusted-proxy [default: SIGILUM_GATEWAY_PASSWORD]
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    password_file: Option<PathBuf>,
    /// How lines of the logs look; an option of the commands that show some.
    #[arg(skip)]
    log_style: Option<String>,
    /// Folder of the sockets and the replay journal [default: <data-dir>/run]
    #[arg(long, value_name = "PATH")]
    run_dir: Option<PathBuf>,
    /// The Envoy binary [default: envoy of PATH, else the managed copy]
    #[arg(long, value_name = "FILE")]
    envoy_bin: Option<PathBuf>,
    /// Envoy's worker threads, 0 = one per processor
    #[arg(long, value_name = "N")]
    envoy_concurrency: Option<u32>,
}

impl SettingsArgs {
    /// The same with another configuration file.
    pub(crate) fn with_file(&self, file: PathBuf) -> Self {
        Self { config: Some(file), ..self.clone() }
    }

    /// The same with a style of the lines it shows.
    pub(crate) fn with_style(&self, style: Option<&String>) -> Self {
        Self { log_style: style.cloned(), ..self.clone() }
    }

    /// Who may use the admin API, as far as it was typed, with a path that means the same everywhere.
    pub(crate) fn access(&self) -> Vec<(&'static Key, String)> {
        let file = self.password_file.as_deref().map(anywhere).map(|file| (&keys::PASSWORD_FILE, file));
        let mode = self.auth.clone().map(|mode| (&keys::ADMIN_ACCESS_MODE, mode));
        mode.into_iter().chain(file).collect()
    }

    /// The configuration these options lead to, or everything that is wrong with it.
    pub fn load(&self, globals: &Globals) -> Result<Config, CliError> {
        self.load_with(globals, &[])
    }

    /// These options as typed, for a process that is to read the same. Where the files are is not among them.
    pub(crate) fn typed(&self, globals: &Globals) -> Vec<String> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        let listed =
            |name: &'static str, list: &[String]| list.iter().map(|value| (name, value.clone())).collect::<Vec<_>>();
        let one = |name: &'static str, value: Option<String>| value.map(|value| (name, value));
        let mut typed = Vec::new();
        typed.extend(one("--namespace", globals.namespace.clone()));
        typed.extend(one("--gateway-port", globals.gateway_port.map(|port| port.to_string())));
        typed.extend(one("--api-url", self.api_url.clone()));
        typed.extend(one("--bind", self.bind.clone()));
        typed.extend(one("--port", self.port.map(|port| port.to_string())));
        typed.extend(one("--listen-port", self.listen_port.map(|port| port.to_string())));
        typed.extend(listed("--addr", &self.addr));
        typed.extend(listed("--ingress-addr", &self.ingress_addr));
        typed.extend(listed("--envoy-admin-addr", &self.envoy_admin_addr));
        typed.extend(self.access().into_iter().filter_map(|(key, value)| Some((key.flag?, value))));
        typed.extend(one("--envoy-bin", path(&self.envoy_bin)));
        typed.extend(one("--envoy-concurrency", self.envoy_concurrency.map(|count| count.to_string())));
        typed.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }

    /// The same with secrets that a supervisor handed over.
    pub(crate) fn load_with(&self, globals: &Globals, handed: &[(String, Secret)]) -> Result<Config, CliError> {
        settings::load(&self.flags(globals), handed)
    }

    /// The same with what stood in the settings file.
    pub(crate) fn load_text(
        &self,
        globals: &Globals,
        handed: &[(String, Secret)],
    ) -> Result<(Config, Option<Secret>), CliError> {
        settings::load_text(&self.flags(globals), handed)
    }

    /// What these options and those before the command say.
    pub(crate) fn flags(&self, globals: &Globals) -> Flags {
        let mut flags = globals.flags();
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        let list = |list: &[String]| (!list.is_empty()).then(|| list.join(","));
        flags.set(&keys::CONFIG_FILE, path(&self.config));
        flags.set(&keys::API_URL, self.api_url.clone());
        flags.set(&keys::BIND, self.bind.clone());
        flags.set(&keys::ADMIN_ADDR, list(&with_port(&self.addr, self.port)));
        flags.set(&keys::INGRESS_ADDR, list(&with_port(&self.ingress_addr, self.listen_port)));
        flags.set(&keys::ENVOY_ADMIN_ADDR, list(&self.envoy_admin_addr));
        for (key, value) in self.access() {
            flags.set(key, Some(value));
        }
        flags.set(&keys::LOG_STYLE, self.log_style.clone());
        flags.set(&keys::RUN_DIR, path(&self.run_dir));
        flags.set(&keys::ENVOY_BIN, path(&self.envoy_bin));
        flags.set(&keys::ENVOY_CONCURRENCY, self.envoy_concurrency.map(|count| count.to_string()));
        flags
    }
}

/// Listen addresses as typed, with the port that was typed besides: it counts more than theirs.
fn with_port(addresses: &[String], port: Option<u16>) -> Vec<String> {
    let Some(port) = port else { return addresses.to_vec() };
    let with = |address: &str| match address.rsplit_once(':') {
        Some((host, _)) => format!("{host}:{port}"),
        None if address.bytes().all(|byte| byte.is_ascii_digit()) => format!(":{port}"),
        // Refused as it stands.
        None => address.to_owned(),
    };
    let all: Vec<_> = addresses.iter().flat_map(|list| list.split(',')).map(|address| with(address.trim())).collect();
    if all.is_empty() { vec![format!(":{port}")] } else { all }
}

/// A path as typed, for processes with another working folder.
fn anywhere(path: &Path) -> String {
    // An empty one has none, and is refused like any other that names nothing.
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// Options that only say how a start looks, and those that are taken so that they can be refused with a reason: arguments are
/// visible to every process.
#[derive(Debug, Clone, Default, Args)]
pub struct StartStyle {
    /// How lines of the logs look on standard error [default: warnings as sentences; with --verbose JSON]
    #[arg(long, value_name = "STYLE", value_parser = ["pretty", "compact", "json"])]
    log_style: Option<String>,
    /// Refused.
    #[arg(long, hide = true, value_name = "PASSWORD")]
    password: Option<String>,
}

impl StartStyle {
    /// Whether standard error is to hold lines of JSON and nothing else, as far as it can be told before the file is read.
    pub(crate) fn is_json(&self) -> bool {
        let named = || keys::LOG_STYLE.env.iter().find_map(|name| env::lookup(name));
        self.log_style.clone().or_else(named).is_some_and(|style| style == "json")
    }

    /// The settings with it; an error that does not repeat it where a password was typed.
    pub(crate) fn settings(&self, settings: &SettingsArgs) -> Result<SettingsArgs, CliError> {
        if self.password.is_some() {
            return Err(refused("password", "give --password-file FILE, or set SIGILUM_GATEWAY_PASSWORD"));
        }
        Ok(settings.with_style(self.log_style.as_ref()))
    }
}

/// That a secret was typed, without it.
pub(crate) fn refused(what: &str, instead: &'static str) -> CliError {
    let message = format!("the admin {what} cannot be given as an argument: every process can read arguments");
    CliError::new(Outcome::Usage, message).hint(instead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_counts_more_than_that_of_an_address_and_leaves_the_address() {
        let with = |typed: &[&str], port| with_port(&typed.iter().map(|&one| one.to_owned()).collect::<Vec<_>>(), port);
        assert_eq!(with(&[":1", "127.0.0.2:2", "[::1]:3", "4"], Some(9)), [":9", "127.0.0.2:9", "[::1]:9", ":9"]);
        assert_eq!(with(&["127.0.0.2:2,localhost:3"], Some(9)), ["127.0.0.2:9", "localhost:9"]);
        assert_eq!((with(&[], Some(9)), with(&[":1"], None)), (vec![":9".to_owned()], vec![":1".to_owned()]));
        assert_eq!(with(&["nowhere"], Some(9)), ["nowhere"]);
    }
}

//! Options shared by the commands that run with the whole configuration.

use std::path::PathBuf;

use clap::Args;

use crate::cli::args::Globals;
use crate::cli::outcome::CliError;
use crate::cli::settings;
use crate::config::Config;
use crate::config::Flags;
use crate::config::keys;
use crate::domain::secret::Secret;

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
    /// Port of the admin API; the address is --bind [default: 38100]
    #[arg(long, value_name = "PORT", conflicts_with = "addr", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Port agents connect to; the address is --bind [default: 38000]
    #[arg(long, value_name = "PORT", conflicts_with = "ingress_addr", value_parser = clap::value_parser!(u16).range(1..))]
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
        let at = |port: Option<u16>| port.map(|port| format!(":{port}"));
        flags.set(&keys::ADMIN_ADDR, at(self.port).or_else(|| list(&self.addr)));
        flags.set(&keys::INGRESS_ADDR, at(self.listen_port).or_else(|| list(&self.ingress_addr)));
        flags.set(&keys::ENVOY_ADMIN_ADDR, list(&self.envoy_admin_addr));
        flags.set(&keys::RUN_DIR, path(&self.run_dir));
        flags.set(&keys::ENVOY_BIN, path(&self.envoy_bin));
        flags.set(&keys::ENVOY_CONCURRENCY, self.envoy_concurrency.map(|count| count.to_string()));
        flags
    }
}

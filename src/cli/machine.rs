//! The gateway that `gateway install --system` made: the one root's commands are about where they name no other.
//!
//! Its folders are its own, below `/var/lib`; what it was installed with stands in its unit.

use crate::app::systemd;
use crate::app::systemd::Kind;
use crate::app::unit_file;
use crate::cli::args::Command;
use crate::cli::args::Globals;
use crate::cli::gateway::manager;
use crate::cli::gateway::place::Place;
use crate::cli::outcome::CliError;
use crate::cli::settings;
use crate::config::key::Key;
use crate::config::keys;
use crate::config::load::Flags;
use crate::sys::env;
use crate::sys::files;

/// What the unit's command line says in place of our own.
const SAID: &[(&str, &Key)] = &[
    ("--namespace", &keys::NAMESPACE),
    ("--sigilum-home", &keys::HOME),
    ("--gateway-data-dir", &keys::DATA_DIR),
    ("--config", &keys::CONFIG_FILE),
    ("--addr", &keys::ADMIN_ADDR),
    ("--ingress-addr", &keys::INGRESS_ADDR),
    ("--envoy-admin-addr", &keys::ENVOY_ADMIN_ADDR),
];

/// Arguments of the machine's gateway.
#[derive(Debug, Clone)]
pub(crate) struct MachineGateway(Vec<String>);

impl MachineGateway {
    /// Where root asks for a gateway that is there already, says of none where it is, and the machine has one.
    pub(super) fn meant(globals: &Globals, command: &Command) -> Result<Option<Self>, CliError> {
        let typed = globals.home.is_some() || globals.gateway_data_dir.is_some() || globals.gateway_admin_url.is_some();
        let named = typed || globals.gateway_port.is_some() || globals.profile.is_some() || globals.dev;
        if named || !command.asks_a_gateway() || !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let keys = SAID.iter().map(|(_, key)| *key).chain([&keys::ADMIN_URL, &keys::PROFILE]);
        let names: Vec<&str> = keys.filter(|key| **key != keys::NAMESPACE).flat_map(|key| key.env).copied().collect();
        if names.iter().any(|name| env::lookup(name).is_some()) || settings::saved(&names)?.is_some() {
            return Ok(None);
        }
        let unit = manager::system_folder().join(Place::default().unit(Kind::Gateway));
        let text = files::read_text(&unit, unit_file::MAX_BYTES).ok().filter(|text| text.starts_with(systemd::MARK));
        Ok(text.as_deref().and_then(unit_file::parse).map(|command| Self(command.arguments)))
    }

    /// As settings; what our own command line says comes after.
    pub(super) fn stand_in(&self, flags: &mut Flags) {
        for (option, key) in SAID {
            let values = unit_file::options(&self.0, option);
            flags.set(key, Some(values.join(",")).filter(|text| !text.is_empty()));
        }
    }
}

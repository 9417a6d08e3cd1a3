//! The gateway a command means where its settings file cannot be used any more: it is found by its folders, and asked where
//! it really listens.

use crate::app::gateway::instance::Instance;
use crate::cli::outcome::CliError;
use crate::cli::printer::Printer;
use crate::cli::settings;
use crate::config::Config;
use crate::config::Flags;
use crate::sys::local_http;

/// The settings; where they cannot be used, what is known of the gateway that runs in their folders. Without such a gateway
/// that is refused: the folders themselves may stand in what cannot be read.
pub(crate) fn running(flags: &Flags, printer: &mut Printer) -> Result<Config, CliError> {
    find(flags, |_| false, printer)
}

/// The same for a command that asks the admin API: where somebody named its address beside the file, that is enough.
pub(crate) fn answering(flags: &Flags, printer: &mut Printer) -> Result<Config, CliError> {
    find(flags, |config| config.admin_url_set, printer)
}

fn find(flags: &Flags, enough: impl FnOnce(&Config) -> bool, printer: &mut Printer) -> Result<Config, CliError> {
    let refused = match settings::load(flags, &[]) {
        Ok(config) => return Ok(config),
        Err(refused) => refused,
    };
    let Ok(looked) = settings::look(flags) else { return Err(refused) };
    let mut config = looked.config;
    match Instance::read(&config.paths.run_dir).filter(|found| found.supervisor.is_alive()) {
        Some(found) => {
            if !config.admin_url_set
                && let Some(url) = admin_url(&found)
            {
                config.admin_url = url;
            }
            (config.listen.admin, config.listen.ingress) = (found.addresses.admin, found.addresses.ingress);
            config.listen.envoy_admin = found.addresses.envoy_admin;
            let pid = found.supervisor.pid;
            printer.warn(&format!("{}; the gateway that runs is meant (pid {pid})", refused.message));
        }
        None if enough(&config) => printer.warn(&refused.message),
        None => return Err(refused),
    }
    Ok(config)
}

/// The address of a running gateway's admin API.
pub(crate) fn admin_url(found: &Instance) -> Option<String> {
    let scheme = if found.addresses.admin_tls { "https" } else { "http" };
    found.addresses.admin.first().map(|address| format!("{scheme}://{}", local_http::reachable(*address)))
}

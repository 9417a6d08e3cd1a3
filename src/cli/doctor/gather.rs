//! Finds the facts out: what the gateway says, what its files and processes are like. Changes nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::app::checkup;
use crate::app::checkup::StoreLook;
use crate::app::gateway::instance::Instance;
use crate::app::status_api::ApiError;
use crate::app::status_api::StatusApi;
use crate::app::up::API;
use crate::cli::doctor::facts::ConfigFacts;
use crate::cli::doctor::facts::EnvoyFacts;
use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::facts::GatewayFacts;
use crate::cli::doctor::facts::PortFact;
use crate::cli::doctor::facts::Reach;
use crate::cli::doctor::facts::TokenFact;
use crate::cli::doctor::gather_envoy;
use crate::cli::doctor::gather_files;
use crate::cli::doctor::gather_service;
use crate::cli::gateway::master_key;
use crate::cli::gateway::probe;
use crate::cli::gateway_api;
use crate::cli::gateway_api::Credential;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::reach;
use crate::cli::settings;
use crate::cli::settings::Looked;
use crate::config::Config;
use crate::config::Flags;
use crate::config::guard;
use crate::config::keys;
use crate::config::parts::ClaimsSource;
use crate::domain::secret::Secret;
use crate::sys::local_http;
use crate::sys::process;
use crate::wire::health::ConditionBody;
use crate::wire::health::DetailsBody;
use crate::wire::status::StatusBody;

/// How long each answer may take; the whole examination takes little longer.
const PATIENCE: Duration = Duration::from_millis(1500);
/// The same where everything is to be looked at anew.
const DEEP_PATIENCE: Duration = Duration::from_secs(10);

/// Finds out everything. `deep`: has the gateway look at everything anew, and waits longer for answers.
pub(super) async fn gather(flags: &Flags, deep: bool) -> Result<Facts, CliError> {
    let looked = settings::look(flags)?;
    let config = &looked.config;
    let running = Instance::read(&config.paths.run_dir).filter(|found| found.supervisor.is_alive());
    let patience = if deep { DEEP_PATIENCE } else { PATIENCE };
    // What cannot be waited for comes last: the others are on their way by then.
    let (gateway, envoy, local) = tokio::join!(
        gateway(config, running.as_ref(), patience, deep),
        gather_envoy::envoy(config, looked.issues.is_empty()),
        async { local(&looked, running.as_ref()) },
    );
    let mut store = StoreLook::Held("the gateway".to_owned());
    if gateway.reach != Reach::Answers {
        let given = config.master_key.as_ref().map(Secret::duplicate);
        let keys = checkup::MasterKeys::new(given, master_key::file(config));
        store = checkup::store(&config.paths.data_dir, &keys, "doctor");
    }
    Ok(local(gateway, envoy, store))
}

/// What is found out without asking anybody; it becomes everything with the answers of those who were asked.
fn local(
    looked: &Looked,
    running: Option<&Instance>,
) -> impl FnOnce(GatewayFacts, EnvoyFacts, StoreLook) -> Facts + use<> {
    let config = &looked.config;
    let (about, ports) = (about(looked), ports(config, running));
    let instance = gather_files::instance(config, running);
    let cores = gather_files::cores(&instance.pids);
    let (modes, missing) = (gather_files::modes(config, &looked.file), gather_files::missing(config));
    let (identity, record) = gather_files::identity(config);
    let same_owner = record.and_then(|record| gather_files::same_owner(&record, config));
    let (openclaw, value) = gather_files::openclaw();
    let integration = gather_files::integration(config, value.as_ref());
    let service = gather_service::service(config);
    let residue = gather_files::residue(config);
    move |gateway, envoy, store| Facts {
        config: about,
        instance,
        gateway,
        ports,
        envoy,
        store,
        modes,
        missing,
        identity,
        same_owner,
        cores,
        service,
        openclaw,
        integration,
        residue,
    }
}

fn about(looked: &Looked) -> ConfigFacts {
    let config = &looked.config;
    let file = looked.file.display().to_string();
    let open = |addresses: &[SocketAddr]| addresses.iter().find(|address| !address.ip().is_loopback()).copied();
    let admin = open(&config.listen.admin).filter(|_| config.admin.tls.is_none());
    let ingress = open(&config.listen.ingress).filter(|_| config.envoy.tls.is_none());
    let plain = admin.map(|at| ("admin API", at)).into_iter().chain(ingress.map(|at| ("port of agents", at)));
    let unsigned = [&keys::ALLOW_UNSIGNED_PROXY, &keys::REQUIRE_SIGNED_ADMIN_CHECKS];
    let tried = unsigned.iter().filter(|key| looked.issues.iter().any(|(path, _)| path == key.name()));
    ConfigFacts {
        exists: looked.exists,
        issues: looked.issues.clone(),
        warnings: config.warnings.iter().map(|found| (found.path.clone(), found.line(Some(&file)))).collect(),
        access: config.admin.mode.name(),
        token: token(config),
        is_remote: config.remote.is_some(),
        used: config.paths.data_dir.join(checkup::DATABASE_FILE).exists(),
        plain: plain.collect(),
        unsigned: tried.map(|key| key.name()).collect(),
        file: looked.file.clone(),
    }
}

fn token(config: &Config) -> TokenFact {
    match gateway_api::own_token(config) {
        Ok(Some(token)) if guard::is_placeholder(token.expose()) => TokenFact::Placeholder,
        Ok(Some(_)) => TokenFact::There,
        Ok(None) => match gateway_api::credential(config) {
            Credential::File(file) => TokenFact::Missing(file),
            Credential::Given(_) | Credential::Nothing => TokenFact::Unnamed,
        },
        Err(error) => TokenFact::Unreadable(error.message),
    }
}

/// Who listens on the gateway's ports.
fn ports(config: &Config, running: Option<&Instance>) -> Vec<PortFact> {
    let listen = &config.listen;
    let at = running.map(|found| &found.addresses);
    let named = [
        ("port of agents", at.map_or(&listen.ingress, |at| &at.ingress)),
        ("admin API", at.map_or(&listen.admin, |at| &at.admin)),
        ("statistics of Envoy", at.map_or(&listen.envoy_admin, |at| &at.envoy_admin)),
    ];
    let numbers: Vec<u16> = named.iter().filter_map(|(_, addresses)| addresses.first()).map(SocketAddr::port).collect();
    let all = process::port_listeners(&numbers);
    named
        .into_iter()
        .map(|(name, addresses)| {
            let port = addresses.first().map(SocketAddr::port);
            let listeners = all.iter().filter(|one| Some(one.address.port()) == port).cloned().collect();
            PortFact { name, addresses: addresses.clone(), listeners }
        })
        .collect()
}

/// What the gateway says of itself, and what its port of agents does.
async fn gateway(config: &Config, running: Option<&Instance>, patience: Duration, deep: bool) -> GatewayFacts {
    // Where it really is, unless the settings name another place.
    let here = running.filter(|_| config.remote.is_none() && owner::is_loopback(&config.admin_url));
    let url = here.and_then(reach::admin_url).unwrap_or_else(|| config.admin_url.clone());
    let ingress = running.map_or(&config.listen.ingress, |found| &found.addresses.ingress).first().copied();
    let tls = running.map_or(config.envoy.tls.is_some(), |found| found.addresses.ingress_tls);
    let door = async {
        match ingress.filter(|_| running.is_some() && !tls) {
            Some(address) => Some(probe::unsigned(local_http::reachable(address), patience).await),
            None => None,
        }
    };
    let asked = async {
        let (reach, mut conditions, envoy) = ask(config, &url, patience, deep).await;
        if conditions.is_empty() {
            // That of a whole stack stands beside its gateway, whatever the settings of this command say.
            let own = running.and_then(|found| found.beside.iter().find(|beside| beside.name == API));
            let own = own.map(|beside| format!("http://{}", local_http::reachable(beside.address)));
            let url = own.as_deref().unwrap_or(&config.api_url);
            let api = (config.claims.source == ClaimsSource::Api).then_some(url);
            let data = &config.paths.data_dir;
            let room = data.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
            conditions = checkup::conditions(api, room, &config.paths.run_dir, patience).await;
        }
        (reach, conditions, envoy)
    };
    let ((reach, conditions, envoy), door) = tokio::join!(asked, door);
    GatewayFacts { url, reach, conditions, door, envoy }
}

async fn ask(
    config: &Config,
    url: &str,
    patience: Duration,
    deep: bool,
) -> (Reach, Vec<ConditionBody>, Option<String>) {
    let nothing = |reach| (reach, Vec::new(), None);
    let trust = gateway_api::trust(&config.admin.trust);
    // A token that cannot be read is told apart; here it is as if there were none.
    let token = match gateway_api::token_for(config, url) {
        Err(error) if error.outcome == Outcome::Unreachable => return nothing(Reach::Nobody(error.message)),
        token => token.ok().flatten(),
    };
    let api = match StatusApi::new(url, token.as_ref(), &trust, patience) {
        Ok(api) => api,
        Err(error) => return nothing(Reach::Other(error.to_string())),
    };
    let (status, readiness) = tokio::join!(api.status::<StatusBody>(), api.readiness::<DetailsBody>(deep));
    let conditions = readiness.ok().and_then(|found| found.details).map(|details| details.conditions);
    match status {
        Ok(status) => (Reach::Answers, conditions.unwrap_or_default(), status.known.envoy.version),
        Err(error @ (ApiError::Unreachable { .. } | ApiError::Certificate { .. })) => {
            nothing(Reach::Nobody(error.to_string()))
        }
        Err(ApiError::Refused(refused)) if matches!(refused.status, 401 | 403 | 429) => {
            nothing(Reach::Refused(refused.message))
        }
        Err(
            error @ (ApiError::Refused(_)
            | ApiError::Address { .. }
            | ApiError::Client(_)
            | ApiError::Token
            | ApiError::Redirect { .. }
            | ApiError::Unexpected { .. }),
        ) => nothing(Reach::Other(error.to_string())),
    }
}

//! Precedence and judgement: option, environment, file, default; all mistakes together.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::access;
use crate::config::address;
use crate::config::address::Bind;
use crate::config::bind;
use crate::config::bind::BindMode;
use crate::config::bind::Machine;
use crate::config::declared;
use crate::config::declared::Providers;
use crate::config::declared::Rules;
use crate::config::file;
use crate::config::file::GatewayFile;
use crate::config::fleet;
use crate::config::fleet_keys;
use crate::config::ingress_keys;
use crate::config::keys;
use crate::config::keys::Fallback;
use crate::config::keys::Key;
use crate::config::loader::Loader;
use crate::config::loader::Shape;
use crate::config::loader::parse_boolean;
use crate::config::mistake::Mistake;
use crate::config::mistake::Mistakes;
use crate::config::mistake::Place;
use crate::config::parts::ClaimsOptions;
use crate::config::parts::ClaimsSource;
use crate::config::parts::Config;
use crate::config::parts::DecisionLog;
use crate::config::parts::DeclaredConnection;
use crate::config::parts::DeclaredVariable;
use crate::config::parts::EnvoyOptions;
use crate::config::parts::IngressTls;
use crate::config::parts::Listeners;
use crate::config::parts::LogBounds;
use crate::config::parts::LogStyle;
use crate::config::parts::Paths;
use crate::config::parts::ReloadMode;
use crate::config::parts::ReloadOptions;
use crate::config::parts::Resolution;
use crate::config::parts::SecretsOptions;
use crate::config::parts::UsageOptions;
use crate::config::profile::Profile;
use crate::config::remote;
use crate::config::run_folder;
use crate::config::telemetry;
use crate::domain::address::AddressPolicy;
use crate::domain::ids::Namespace;
use crate::domain::snapshot::Rotation;
use crate::domain::snapshot::Settings;
use crate::domain::time::UnixMillis;

/// What the command line said, by setting, and what is the default because of it.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    said: BTreeMap<&'static str, String>,
    /// By the setting's name.
    defaults: BTreeMap<&'static str, String>,
    /// The admin API's address was computed: it is our own gateway's, and who listens there is looked at before a token goes there.
    pub own_gateway: bool,
}

impl Flags {
    /// Sets the option of `key`, where the command line has it. Lists are one text with commas.
    pub fn set(&mut self, key: &Key, value: Option<impl Into<String>>) {
        if let (Some(flag), Some(value)) = (key.flag, value) {
            self.said.insert(flag, value.into());
        }
    }

    /// Puts another default in the place of the built-in one.
    pub(super) fn set_default(&mut self, key: &Key, value: impl Into<String>) {
        self.defaults.insert(key.name(), value.into());
    }

    /// What a setting is where nobody sets it, if that is a text.
    pub(super) fn default_of(&self, key: &Key) -> Option<&str> {
        let built_in = match key.fallback {
            Fallback::Text(text) => Some(text),
            Fallback::Computed(_) | Fallback::None => None,
        };
        self.defaults.get(key.name()).map(String::as_str).or(built_in)
    }

    pub(super) fn find(&self, key: &Key) -> Option<(&'static str, &str)> {
        self.said.get_key_value(key.flag?).map(|(flag, value)| (*flag, value.as_str()))
    }
}

/// Where values come from besides the file, strongest first.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The command line.
    pub flags: &'a Flags,
    /// The environment; `None` for variables that are unset. Blank ones count as unset, but for a token that was
    /// meant: see [`crate::config::guard::Unguarded::BlankToken`].
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// `config.env`, by the names of the environment; weaker than the file, stronger than our defaults.
    pub saved: &'a dyn Fn(&str) -> Option<String>,
    /// What some bind modes ask of the machine; asked only by them.
    pub machine: &'a dyn Fn() -> Machine,
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
        (Some(mut config), true) => {
            config.warnings.append(&mut loader.warnings);
            config.warnings.extend(unread(sources));
            Ok(config)
        }
        _ => Err(Mistakes::new(file.map(|(path, _)| path.display().to_string()), loader.mistakes)),
    }
}

/// Variables that were set and count for nothing: somebody relies on what they meant elsewhere.
fn unread(sources: Sources<'_>) -> impl Iterator<Item = Mistake> {
    let is_set = |found: Option<String>| found.is_some_and(|value| !value.trim().is_empty());
    keys::UNREAD.iter().filter_map(move |(name, why)| {
        let place = if is_set((sources.env)(name)) {
            Place::Environment(name)
        } else if is_set((sources.saved)(name)) {
            Place::Saved(name)
        } else {
            return None;
        };
        Some(Mistake { place, path: String::new(), message: format!("sets nothing here: {why}") })
    })
}

/// Reads everything before anything is put together, so that all mistakes are seen.
fn build(loader: &mut Loader<'_>, config_file: Option<PathBuf>) -> Option<Config> {
    // Its name is in the defaults already; here it is judged.
    loader.read(&keys::PROFILE, Shape::Text, Profile::parse);
    let namespace = loader
        .read(&keys::NAMESPACE, Shape::Text, |text| Namespace::normalise(text).map_err(|invalid| invalid.to_string()));
    let api_url = loader.read(&keys::API_URL, Shape::Text, parse_url);
    let (bind_mode, bind) = read_bind(loader);
    let ingress = loader.listen(&keys::INGRESS_ADDR, bind);
    let admin = loader.listen(&keys::ADMIN_ADDR, bind);
    let bind_mode = bind::told(bind_mode, bind, admin.as_deref().unwrap_or_default());
    let allow_insecure = remote::allow_insecure(loader);
    let access = access::read(loader, ingress.as_deref(), admin.as_deref(), allow_insecure);
    let mode = remote::read(loader, allow_insecure);
    let envoy_admin = loader.listen(&keys::ENVOY_ADMIN_ADDR, Some(Bind::Loopback));
    let state_listener = fleet::listener(loader, bind);
    let data_dir = loader.folder(&keys::DATA_DIR, Loader::data_dir);
    let (run_dir, run_behind) = run_folder::read(loader, &data_dir);
    let service_catalog = loader.folder(&keys::SERVICE_CATALOG, |_| data_dir.join("service-catalog.json"));
    let binary = loader.read(&keys::ENVOY_BIN, Shape::Text, |text| Ok(text.to_owned()));
    let concurrency = loader.number(&keys::ENVOY_CONCURRENCY);
    let trusted_hops = loader.number(&keys::TRUSTED_HOPS);
    let tls = ingress_tls(loader);
    let authorities = loader.list(&ingress_keys::AUTHORITIES, address::parse_authority);
    let loopback_names = loader.read(&ingress_keys::LOOPBACK_NAMES, Shape::Boolean, parse_boolean);
    let allow_private = loader.read(&keys::ALLOW_PRIVATE, Shape::Boolean, parse_boolean);
    let drain = loader.number(&keys::SHUTDOWN_TIMEOUT);
    let claims_grace = loader.number(&keys::CLAIMS_GRACE);
    let claims_source = loader.read(&keys::CLAIMS_SOURCE, Shape::Word, parse_claims_source);
    let claims_refresh = loader.number(&keys::CLAIMS_REFRESH);
    let claims_ttl = loader.number(&keys::CLAIMS_TTL);
    let max_approvals = loader.number(&keys::CLAIMS_MAX_APPROVALS);
    let auto_register = loader.read(&keys::AUTO_REGISTER, Shape::Boolean, parse_boolean);
    let usage_enabled = loader.read(&keys::USAGE_ENABLED, Shape::Boolean, parse_boolean);
    let usage_backlog = loader.number(&keys::USAGE_MAX_BACKLOG);
    let registration_rate = loader.number(&keys::REGISTRATION_RATE);
    let master_key = loader.secret(&keys::MASTER_KEY, |_| Ok(()));
    let kept_secret_versions = loader.number(&keys::KEPT_SECRET_VERSIONS);
    let max_body_bytes = loader.number(&keys::MAX_REQUEST_BODY_BYTES);
    let max_age = loader.number(&keys::MAX_AGE);
    let nonce_ttl = loader.number(&keys::NONCE_TTL);
    let replay_capacity = loader.number(&fleet_keys::REPLAY_CAPACITY);
    let shared_replay = fleet::replay(loader);
    let stranger_rate = loader.number(&keys::STRANGER_RATE);
    let rotation = loader.read(&keys::ROTATION_ENFORCEMENT, Shape::Text, parse_rotation);
    let rotation_grace_days = loader.number(&keys::ROTATION_GRACE_DAYS);
    let log_level = loader.read(&keys::LOG_LEVEL, Shape::Word, parse_level);
    let decisions = loader.read(&keys::LOG_DECISIONS, Shape::Word, parse_decisions);
    let log_max_bytes = loader.number(&keys::LOG_MAX_BYTES);
    let log_keep = loader.number(&keys::LOG_KEEP);
    let log_style = loader.read(&keys::LOG_STYLE, Shape::Text, |text| {
        LogStyle::parse(text.trim()).ok_or_else(|| "must be pretty, compact or json".to_owned())
    });
    let traces = telemetry::read(loader);
    let secrets = SecretsSettings {
        allow_literals: loader.read(&keys::ALLOW_LITERALS, Shape::Boolean, parse_boolean),
        concurrency: loader.number(&keys::PROVIDER_CONCURRENCY),
        refs: loader.number(&keys::REFS_PER_PROVIDER),
        batch: loader.number(&keys::BATCH_BYTES),
        max_stale: loader.number(&keys::MAX_STALE),
    };
    let reload_mode = loader.read(&keys::RELOAD_MODE, Shape::Word, |text| {
        ReloadMode::parse(text.trim()).ok_or_else(|| "must be off, hot, restart or hybrid".to_owned())
    });
    let reload_settle = loader.number(&keys::RELOAD_SETTLE);
    let reload_poll = loader.read(&keys::RELOAD_POLL, Shape::Boolean, parse_boolean);
    let native_port = loader.read(&keys::NATIVE_PORT, Shape::Number, address::parse_port);
    let upstream_port = loader.read(&keys::UPSTREAM_PORT, Shape::Number, address::parse_port);

    if let (Some(max_age), Some(nonce_ttl)) = (max_age, nonce_ttl)
        && nonce_ttl < max_age
    {
        loader.blame(&keys::NONCE_TTL, format!("must not be below the age of a signature ({max_age} s)"));
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
        (
            &fleet_keys::STATE_ADDR,
            state_listener.as_ref().and_then(Option::as_ref).map(|state| state.addresses.as_slice()),
        ),
    ]);

    let listeners = [&ingress, &admin, &envoy_admin];
    // Where the gateway serves this machine alone, what runs on this machine is a fair upstream.
    let allow_loopback =
        [&ingress, &admin].iter().all(|addresses| addresses.as_deref().is_none_or(address::all_loopback));
    let policy = AddressPolicy {
        allow_loopback,
        allow_private: allow_private.unwrap_or_default(),
        own_ports: listeners.into_iter().flatten().flatten().map(SocketAddr::port).collect(),
    };
    let mut declared = declared(loader, &secrets, &policy);
    let workloads = fleet::workloads(loader.file.parts.remove("workloads"), &mut loader.mistakes);

    let (mut access, admin_url, mut admin_url_refused) = access?;
    let (mode, remote) = mode?;
    let admin_url = remote::address(loader, remote.as_ref(), admin_url);
    if let Some(remote) = remote.as_ref().filter(|remote| remote.url == admin_url) {
        // Its own address was judged where it was read.
        admin_url_refused = None;
        access.trust.own_cert_file = None;
        access.trust.fingerprint.clone_from(&remote.fingerprint);
    }
    let (traces, collector) = traces?.unzip();
    let (shared_replay, warning) = shared_replay?;
    declared.warnings.extend(warning);
    let listen = Listeners { ingress: ingress?, admin: admin?, envoy_admin: envoy_admin? };
    let settings = Settings {
        authorities: authorities?,
        loopback_names: loopback_names?,
        max_age: Duration::from_secs(max_age?),
        max_body_bytes: max_body_bytes?,
        allow_private: allow_private?,
        allow_loopback,
        rotation: rotation?,
        rotation_grace_days: u32::try_from(rotation_grace_days?).ok()?,
        claims_hold: Duration::from_secs(claims_ttl?.saturating_add(claims_grace?)),
        stranger_rate_per_second: u32::try_from(stranger_rate?).ok()?,
        // Of that the whole decides, below.
        auto_register: false,
        gateway_namespace: namespace.as_ref().map_or_else(String::new, ToString::to_string),
        log_level: log_level.clone()?,
        traces: collector,
        // No setting: whoever drains says so.
        draining_until: UnixMillis(0),
    };
    let mut config = Config {
        namespace,
        mode,
        remote,
        allow_insecure,
        api_url: api_url?,
        api_url_set: loader.is_set(&keys::API_URL),
        admin_url,
        admin_url_refused,
        admin_url_set: loader.is_set(&keys::ADMIN_URL),
        paths: Paths { home: loader.home(), config_file, data_dir, run_dir, run_behind, service_catalog },
        listen,
        admin: access,
        envoy: EnvoyOptions {
            binary: binary.map(|text| loader.path(&text)),
            concurrency: u32::try_from(concurrency?).ok().filter(|count| *count > 0),
            trusted_hops: u32::try_from(trusted_hops?).ok()?,
            tls: tls?,
        },
        settings,
        claims: ClaimsOptions {
            source: claims_source?,
            refresh: Duration::from_secs(claims_refresh?.min(claims_ttl?)),
            ttl: Duration::from_secs(claims_ttl?),
            max_approvals: usize::try_from(max_approvals?).ok()?,
            registrations_per_minute: u32::try_from(registration_rate?).ok()?,
            auto_register: auto_register?,
        },
        usage: UsageOptions { enabled: usage_enabled?, max_backlog_bytes: usage_backlog? },
        replay_capacity: usize::try_from(replay_capacity?).ok()?,
        shared_replay,
        state_listener: state_listener?,
        workloads,
        bind_mode,
        drain: Duration::from_secs(drain?),
        log_level: log_level?,
        logs: LogBounds { max_bytes: log_max_bytes?, keep: usize::try_from(log_keep?).ok()? },
        log_style,
        decisions: decisions?,
        traces,
        master_key,
        kept_secret_versions: u32::try_from(kept_secret_versions?).ok()?,
        native_port: native_port?,
        upstream_port: upstream_port?,
        approvals: std::mem::take(&mut loader.file.approvals),
        connections: declared.connections,
        variables: declared.variables,
        secrets: SecretsOptions {
            allow_literals: secrets.allow_literals?,
            providers: declared.providers.valid,
            resolution: Resolution {
                max_provider_concurrency: usize::try_from(secrets.concurrency?).ok()?,
                max_refs_per_provider: usize::try_from(secrets.refs?).ok()?,
                max_batch_bytes: usize::try_from(secrets.batch?).ok()?,
            },
            max_stale: Some(Duration::from_secs(secrets.max_stale?)).filter(|bound| !bound.is_zero()),
        },
        reload: ReloadOptions { mode: reload_mode?, settle: Duration::from_millis(reload_settle?), poll: reload_poll? },
        values: std::mem::take(&mut loader.values).with_address(loader.is_set(&keys::API_URL)),
        warnings: declared.warnings,
    };
    config.settings.auto_register = config.registers();
    Some(config)
}

/// What a bare port is bound on, as written and as it is.
fn read_bind(loader: &mut Loader<'_>) -> (Option<BindMode>, Option<Bind>) {
    let mode = loader.read(&keys::BIND, Shape::Text, BindMode::parse);
    (mode, bind_of(loader, mode))
}

fn bind_of(loader: &mut Loader<'_>, mode: Option<BindMode>) -> Option<Bind> {
    let custom = loader.read(&keys::CUSTOM_BIND_HOST, Shape::Text, bind::parse_ip);
    let (mode, set) = (mode?, loader.is_set(&keys::CUSTOM_BIND_HOST));
    match mode {
        BindMode::Custom if !set => {
            let message = format!("custom wants {} as well", keys::CUSTOM_BIND_HOST.name());
            loader.blame(&keys::BIND, message);
        }
        BindMode::Custom => {}
        BindMode::Loopback | BindMode::Lan | BindMode::Tailnet | BindMode::Auto | BindMode::Address(_) if set => {
            let message = format!("counts with {} custom only", keys::BIND.name());
            loader.blame(&keys::CUSTOM_BIND_HOST, message);
        }
        BindMode::Loopback | BindMode::Lan | BindMode::Tailnet | BindMode::Auto | BindMode::Address(_) => {}
    }
    let bind = mode.on(loader.sources.machine, custom)?;
    if mode == BindMode::Tailnet && bind == Bind::Loopback {
        loader.warn(&keys::BIND, "finds no tailnet address on this machine: loopback it is");
    }
    Some(bind)
}

/// The settings of secrets, as far as they are right.
struct SecretsSettings {
    allow_literals: Option<bool>,
    concurrency: Option<u64>,
    refs: Option<u64>,
    batch: Option<u64>,
    max_stale: Option<u64>,
}

/// What the file declares, as far as it is right.
struct Declared {
    connections: Vec<DeclaredConnection>,
    variables: Vec<DeclaredVariable>,
    providers: Providers,
    warnings: Vec<Mistake>,
}

/// Judges the parts of the file that declare something.
fn declared(loader: &mut Loader<'_>, settings: &SecretsSettings, policy: &AddressPolicy) -> Declared {
    let home = (loader.sources.env)("HOME");
    let parts = &mut loader.file.parts;
    let (of_providers, of_defaults) = (parts.remove("secrets.providers"), parts.remove("secrets.defaults"));
    let (of_variables, of_connections) = (parts.remove("variables"), parts.remove("connections"));
    let mistakes = &mut loader.mistakes;
    let providers = declared::read_providers(of_providers, of_defaults, home.as_deref(), mistakes);
    let rules = Rules {
        providers: &providers,
        allow_literals: settings.allow_literals.unwrap_or_default(),
        home: home.as_deref(),
        uses: RefCell::default(),
    };
    let variables = declared::read_variables(of_variables, &rules, mistakes);
    let connections = declared::read_connections(of_connections, &rules, policy, mistakes);
    let known: HashSet<&str> = variables.iter().map(|variable| variable.key.as_str()).collect();
    let unknown = rules.uses.take().into_iter().filter(|used| !known.contains(used.key.as_str()));
    let warnings = unknown.map(|used| Mistake {
        place: used.mark.place(),
        message: format!(
            "{} refers to the credential variable {}, which this file does not declare: the gateway must hold it",
            used.path, used.key
        ),
        path: used.path,
    });
    let warnings = warnings.collect();
    Declared { connections, variables, providers, warnings }
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

/// TLS on the port of agents: a certificate and its key, or neither. The outer `None`: a mistake was noted.
fn ingress_tls(loader: &mut Loader<'_>) -> Option<Option<IngressTls>> {
    use crate::config::ingress_keys::CERT_FILE;
    use crate::config::ingress_keys::CLIENT_CA_FILE;
    use crate::config::ingress_keys::KEY_FILE;
    let [certificate, key, client_ca] = [&CERT_FILE, &KEY_FILE, &CLIENT_CA_FILE].map(|name| {
        let path = loader.read(name, Shape::Text, |text| Ok(text.to_owned())).map(|text| loader.path(&text));
        if path.as_ref().is_some_and(|path| !path.is_absolute()) {
            loader.blame(name, "must be an absolute path".to_owned());
        }
        path
    });
    match (certificate, key, client_ca) {
        (Some(cert_file), Some(key_file), client_ca_file) => {
            Some(Some(IngressTls { cert_file, key_file, client_ca_file }))
        }
        (None, None, None) => Some(None),
        (certificate, key, _) => {
            let [named, missing] = match (certificate, key) {
                (Some(_), _) => [&CERT_FILE, &KEY_FILE],
                (None, Some(_)) => [&KEY_FILE, &CERT_FILE],
                (None, None) => [&CLIENT_CA_FILE, &CERT_FILE],
            };
            loader.blame(named, format!("needs {} beside it", missing.name()));
            None
        }
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

/// An address of ours or of the API as it is kept: without blanks around it and without a slash at its end. The error says what
/// it must be.
pub fn parse_url(text: &str) -> Result<String, String> {
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

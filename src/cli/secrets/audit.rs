//! `secrets audit`: what lies about in clear, and what leads nowhere. Offline, but for one question to the gateway where
//! one runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::app::admin::KeyPlaces;
use crate::cli::args::Globals;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::printer::Printer;
use crate::cli::settings;
use crate::config::Config;
use crate::config::declaration::ProviderConfig;
use crate::config::declaration::SecretSource;
use crate::config::defaults;
use crate::domain::reference::SourceKind;
use crate::secrets::Environment;
use crate::secrets::Origin;
use crate::secrets::Resolver;
use crate::secrets::exec::Launcher;
use crate::secrets::residue::Code;
use crate::secrets::residue::Finding;
use crate::secrets::residue::Fingerprints;
use crate::secrets::residue::Search;
use crate::secrets::residue::Severity;
use crate::secrets::residue::is_secret;
use crate::sys::env;
use crate::sys::files;
use crate::sys::process;
use crate::sys::spawner::Spawner;
use crate::wire::reload::SecretsStatusBody;

/// Options of `secrets audit`.
#[derive(Debug, Clone, Args)]
pub(super) struct AuditArgs {
    /// Exit 1 where something is found, 2 where a reference leads nowhere
    #[arg(long)]
    check: bool,
    /// Least severity that counts for --check
    #[arg(long, value_name = "LEVEL", default_value = "warn", value_parser = ["info", "warn", "error"])]
    severity_min: String,
    /// Ask provider programs too
    #[arg(long)]
    allow_exec: bool,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

/// The whole report, as programs read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    schema_version: u32,
    status: &'static str,
    findings: Vec<FindingBody<'a>>,
    summary: BTreeMap<&'static str, usize>,
    skipped: &'a [String],
}

#[derive(Debug, Serialize)]
struct FindingBody<'a> {
    code: &'static str,
    severity: &'static str,
    path: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<&'a str>,
}

pub(super) async fn run(args: &AuditArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let config = settings::load(&globals.flags(), &[])?;
    let fingerprints = Fingerprints::new().map_err(|error| CliError::new(Outcome::Failed, error.to_string()))?;
    let mut search = Search::new(&fingerprints);
    at_rest(&config, &mut search);
    references(&config, args, printer, &mut search).await?;

    let Search { findings, skipped, .. } = search;
    let count = |severity| findings.iter().filter(|found| found.severity == severity).count();
    let unresolved = findings.iter().any(|found| found.code == Code::RefUnresolved);
    let status = match (unresolved, findings.is_empty()) {
        (true, _) => "unresolved",
        (false, false) => "findings",
        (false, true) => "clean",
    };
    if args.json {
        let severities = [Severity::Info, Severity::Warn, Severity::Error];
        let summary = severities.into_iter().map(|severity| (severity.name(), count(severity))).collect();
        let findings = findings.iter().map(body).collect();
        printer.json(&Report { schema_version: 1, status, findings, summary, skipped: &skipped })?;
    } else {
        for Finding { code, severity, path, message, fingerprint } in &findings {
            let mark = fingerprint.as_ref().map(|mark| format!(" [{mark}]")).unwrap_or_default();
            printer.line(&format!("{:<5} {} {path}: {message}{mark}", severity.name(), code.name()))?;
        }
        for reason in &skipped {
            printer.note(&format!("not looked into: {reason}"));
        }
        let plural = if findings.len() == 1 { "" } else { "s" };
        printer.line(&format!("{status}: {} finding{plural}", findings.len()))?;
    }
    let least = Severity::parse(&args.severity_min).unwrap_or(Severity::Warn);
    Ok(match args.check {
        true if unresolved => Outcome::Indeterminate,
        true if findings.iter().any(|found| found.severity >= least) => Outcome::Failed,
        _ => Outcome::Done,
    })
}

/// What lies about in clear, as far as this machine's files tell: nobody is asked.
pub(crate) fn at_rest(config: &Config, search: &mut Search<'_>) {
    files_of(config, search);
    literals(config, search);
    shadowed(config, search);
}

fn body(finding: &Finding) -> FindingBody<'_> {
    FindingBody {
        code: finding.code.name(),
        severity: finding.severity.name(),
        path: &finding.path,
        message: &finding.message,
        fingerprint: finding.fingerprint.as_deref(),
    }
}

/// Every folder of the gateway, those of the programs that used the keys before it, and the one we are in.
fn files_of(config: &Config, search: &mut Search<'_>) {
    let saved = settings::saved_file();
    let mut folders = vec![config.paths.home.clone(), config.paths.data_dir.clone()];
    folders.extend(saved.parent().map(Path::to_owned));
    folders.extend(config.paths.config_file.as_deref().and_then(Path::parent).map(Path::to_owned));
    folders.extend(std::env::current_dir().ok());
    folders.extend(KeyPlaces::folders(&config.paths.home, env::lookup));
    let openclaw = owner::openclaw_home();
    folders.extend(["", "workspace", ".sigilum", "workspace/.sigilum"].map(|folder| openclaw.join(folder)));
    folders.extend(env::lookup("HOME").map(|home| Path::new(&home).join(".config/systemd/user")));
    folders.push(PathBuf::from("/etc/systemd/system"));
    folders.sort();
    folders.dedup();
    for folder in folders {
        search.folder(&folder);
    }
    search.assignments(&saved, Code::PlaintextFound, Severity::Warn);
    for file in ["gateway-master-key", "admin-token"] {
        search.mode(&config.paths.home.join(file));
        search.mode(&config.paths.data_dir.join(file));
    }
}

/// Secrets in gateway.yaml itself.
fn literals(config: &Config, search: &mut Search<'_>) {
    let connections = config.connections.iter().enumerate().flat_map(|(index, connection)| {
        let path = move |name: &String| format!("connections[{index}].secrets.{name}");
        connection.secrets.iter().map(move |(name, source)| (path(name), source))
    });
    let variables = config.variables.iter().map(|variable| (format!("variables.{}", variable.key), &variable.source));
    for (path, source) in connections.chain(variables) {
        if let SecretSource::Literal(secret) = source {
            let text = "the secret stands in gateway.yaml itself; put a reference there";
            search.note(Code::PlaintextFound, Severity::Error, path, text.to_owned(), Some(secret.expose()));
        }
    }
    for (index, connection) in config.connections.iter().enumerate() {
        for (name, value) in &connection.checked.settings.extra_headers {
            if is_secret(name, value) {
                let path = format!("connections[{index}].extra_headers.{name}");
                let text = "looks like a secret; extra headers are shown by the admin API";
                search.note(Code::PlaintextFound, Severity::Warn, path, text.to_owned(), Some(value));
            }
        }
    }
    for (provider, found) in &config.secrets.providers {
        let ProviderConfig::Exec(program) = found else { continue };
        let assigned = program.env.iter().filter(|(name, value)| is_secret(name, value));
        for (name, value) in assigned {
            let path = format!("secrets.providers.{provider}.env.{name}");
            let text = "looks like a secret; pass it from the environment (pass_env)";
            search.note(Code::PlaintextFound, Severity::Error, path, text.to_owned(), Some(value));
        }
    }
}

/// Values beside a reference that nobody reads.
fn shadowed(config: &Config, search: &mut Search<'_>) {
    let saved_file = settings::saved_file();
    let saved = files::read_text(&saved_file, defaults::MAX_BYTES).unwrap_or_default();
    let sources = config.connections.iter().flat_map(|connection| connection.secrets.values());
    let sources = sources.chain(config.variables.iter().map(|variable| &variable.source));
    let mut names: Vec<_> = sources
        .filter_map(|source| match source {
            SecretSource::Reference(found) if found.source() == SourceKind::Env => Some(found.id().to_owned()),
            SecretSource::Reference(_) | SecretSource::File { .. } | SecretSource::Literal(_) => None,
        })
        .collect();
    names.sort();
    names.dedup();
    for name in names {
        if let Some(value) = defaults::find(&saved, &name) {
            let text = format!("{name} stands here too, but references read the gateway's environment");
            search.note(Code::RefShadowed, Severity::Warn, saved_file.display().to_string(), text, Some(&value));
        }
    }
    for connection in &config.connections {
        let id = connection.id();
        for folder in [&config.paths.home, &config.paths.data_dir] {
            let file = folder.join(format!("gateway-connection-secret-{id}"));
            if file.is_file() {
                let text = format!("holds a secret of {id}, which gateway.yaml declares with a reference");
                search.note(Code::RefShadowed, Severity::Warn, file.display().to_string(), text, None);
            }
        }
    }
}

/// References that lead nowhere: as the running gateway sees them, else as this process does.
async fn references(
    config: &Config,
    args: &AuditArgs,
    printer: &mut Printer,
    search: &mut Search<'_>,
) -> Result<(), CliError> {
    let connections = config.connections.iter().enumerate().filter(|(_, found)| found.checked.settings.active);
    let connections = connections.flat_map(|(index, connection)| {
        let path = move |name: &String| format!("connections[{index}].secrets.{name}");
        connection.secrets.iter().map(move |(name, source)| (path(name), source))
    });
    let variables = config.variables.iter().map(|variable| (format!("variables.{}", variable.key), &variable.source));
    let wanted: Vec<_> =
        connections.chain(variables).filter_map(|(path, source)| Some((path, Origin::of(source)?))).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let running = match gateway_api::open(config, printer) {
        Ok(api) => api.secrets_status().await.ok(),
        Err(_) => None,
    };
    let running = running.and_then(|told| serde_json::from_value::<SecretsStatusBody>(told).ok());
    if let Some(told) = running {
        for found in told.unresolved {
            let message = format!("{}: {}", found.reference, found.message);
            search.note(Code::RefUnresolved, Severity::Error, found.path, message, None);
        }
        return Ok(());
    }
    let source = |origin: &Origin| match origin {
        Origin::Reference(found) => found.source(),
        Origin::File { .. } => SourceKind::File,
    };
    let asked = |origin: &Origin| match source(origin) {
        SourceKind::Env | SourceKind::File => true,
        SourceKind::Exec => args.allow_exec,
        SourceKind::Store => false,
    };
    for (path, origin) in wanted.iter().filter(|(_, origin)| !asked(origin)) {
        let why = if source(origin) == SourceKind::Exec { "--allow-exec asks it" } else { "no gateway runs" };
        search.skipped.push(format!("{path} ({origin}): {why}"));
    }
    let spawner = Spawner::start().map_err(|error| CliError::new(Outcome::Failed, error.to_string()))?;
    let launcher = Launcher::new(spawner, Some(process::own_program()));
    let resolver = Resolver::new(launcher, Environment::new(Vec::new(), false));
    let origins = wanted.iter().map(|(_, origin)| origin).filter(|origin| asked(origin)).cloned().collect();
    let found = resolver.resolve(&config.secrets, origins).await;
    for (path, origin) in &wanted {
        if let Some(Err(reason)) = found.get(origin) {
            // The gateway's environment may be another than ours.
            let severity = if source(origin) == SourceKind::Env { Severity::Warn } else { Severity::Error };
            search.note(Code::RefUnresolved, severity, path.clone(), format!("{origin}: {reason}"), None);
        }
    }
    Ok(())
}

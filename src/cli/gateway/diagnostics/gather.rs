//! Gathers what a support archive holds. Whatever cannot be had is named with its reason; nothing of it is an error.

use std::io;
use std::num::NonZero;
use std::path::Path;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use sha2::Digest as _;
use sha2::Sha256;

use crate::app::gateway::crash;
use crate::app::status_api::StatusApi;
use crate::app::survey;
use crate::cli::doctor;
use crate::cli::gateway::diagnostics::archive::Part;
use crate::cli::gateway::diagnostics::cleaner::Cleaner;
use crate::cli::gateway::diagnostics::known;
use crate::cli::gateway::manager;
use crate::cli::gateway::status;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::settings;
use crate::cli::settings::Looked;
use crate::cli::versions;
use crate::config::Flags;
use crate::domain::hex;
use crate::domain::log_line::LogFilter;
use crate::domain::log_line::LogStream;
use crate::domain::time::UnixSeconds;
use crate::envoy::launch;
use crate::sys::env;
use crate::sys::files;
use crate::sys::local_http::Endpoint;
use crate::sys::local_http::exchange;
use crate::telemetry::log_reader;
use crate::telemetry::log_reader::LogPlaces;
use crate::telemetry::log_reader::MAX_BYTES;
use crate::telemetry::log_reader::MAX_LINES;
use crate::telemetry::log_reader::PageSize;
use crate::telemetry::log_reader::Start;
use crate::wire::health::DetailsBody;
use crate::wire::status::ReportBody;

/// Version of the manifest's form.
const SCHEMA_VERSION: u32 = 1;
/// The manifest's name.
pub(super) const MANIFEST: &str = "manifest.json";
/// How long each answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest unit, and longest file of the system, in bytes.
const MAX_FILE: u64 = 256 * 1024;
/// Longest file of a crash, in bytes: twice what one has.
const MAX_CRASH: u64 = 1024 * 1024;

/// A file that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Missing {
    /// Its name.
    pub(super) file: String,
    /// Why, in words; holds no secret.
    pub(super) reason: String,
}

/// Everything that could be had.
#[derive(Debug)]
pub(super) struct Gathered {
    /// The files, the manifest first.
    pub(super) parts: Vec<Part>,
    /// What is missing among them.
    pub(super) missing: Vec<Missing>,
}

/// What is gathered so far.
struct Collection<'a> {
    looked: &'a Looked,
    cleaner: Cleaner,
    parts: Vec<Part>,
    missing: Vec<Missing>,
}

/// Puts the files together.
pub(super) async fn gather(flags: &Flags, now: UnixSeconds) -> Result<Gathered, CliError> {
    let looked = settings::look(flags)?;
    let cleaner = Cleaner::new(&known::secrets(&looked.config), env::lookup("HOME"));
    let mut collection = Collection { looked: &looked, cleaner, parts: Vec::new(), missing: Vec::new() };
    let report = status::report(flags, PATIENCE).await?;
    collection.json("status.json", &report)?;
    collection.json("doctor.json", &doctor::report(flags).await?)?;
    collection.health(&report).await?;
    collection.settings(flags)?;
    collection.envoy().await;
    collection.metrics(&report).await;
    collection.logs()?;
    collection.units();
    collection.crashes();
    let manifest = collection.manifest(&report, now)?;
    let Collection { mut parts, missing, .. } = collection;
    parts.insert(0, manifest);
    Ok(Gathered { parts, missing })
}

impl Collection<'_> {
    fn lacks(&mut self, file: &str, reason: &str) {
        self.missing.push(Missing { file: file.to_owned(), reason: self.cleaner.text(reason) });
    }

    fn json(&mut self, name: &str, value: &impl Serialize) -> Result<(), CliError> {
        let value = serde_json::to_value(value).map_err(|error| unwritable(&error))?;
        self.parts.push(Part::text(name, pretty(&self.cleaner.json(value))?));
        Ok(())
    }

    /// The conditions of readiness, looked at now.
    async fn health(&mut self, report: &ReportBody) -> Result<(), CliError> {
        const NAME: &str = "health.json";
        let config = &self.looked.config;
        let (token, trust) =
            (gateway_api::token_for(config, &report.rpc.url).ok().flatten(), gateway_api::trust(&config.admin.trust));
        let answered = match StatusApi::new(&report.rpc.url, token.as_ref(), &trust, PATIENCE) {
            Ok(api) => api.readiness::<DetailsBody>(true).await,
            Err(error) => Err(error),
        };
        match answered {
            Ok(told) => self.json(NAME, &told.body)?,
            Err(error) => self.lacks(NAME, &error.to_string()),
        }
        Ok(())
    }

    /// Every setting, in the form of gateway.yaml.
    fn settings(&mut self, flags: &Flags) -> Result<(), CliError> {
        const NAME: &str = "config.redacted.yaml";
        match settings::explain(flags, true) {
            Ok((explained, _)) => {
                let tree = self.cleaner.settings(Value::Object(explained.tree));
                let text = serde_yaml::to_string(&tree).map_err(|error| unwritable(&error))?;
                self.parts.push(Part::text(NAME, text));
            }
            // What is wrong with it is in the status; the text itself could be anything.
            Err(_) => self.lacks(NAME, "the configuration cannot be used; config.cli.issues of status.json says why"),
        }
        Ok(())
    }

    /// What Envoy really runs with, by its own account.
    async fn envoy(&mut self) {
        const NAME: &str = "envoy-config-dump.json";
        let socket = self.looked.config.paths.run_dir.join(launch::ADMIN_SOCKET);
        let asked = Request::get("/config_dump");
        match exchange(&Endpoint::Unix(socket), asked, Bytes::new(), PATIENCE).await {
            Ok(answer) if answer.status == 200 => match serde_json::from_slice::<Value>(&answer.body) {
                Ok(dump) => match pretty(&self.cleaner.json(dump)) {
                    Ok(text) => self.parts.push(Part::text(NAME, text)),
                    Err(error) => self.lacks(NAME, &error.message),
                },
                Err(error) => self.lacks(NAME, &format!("Envoy's answer is no JSON: {error}")),
            },
            Ok(answer) => self.lacks(NAME, &format!("Envoy answers {}", answer.status)),
            Err(error) => self.lacks(NAME, &format!("Envoy {error}")),
        }
    }

    /// The metrics of the admin process, from the address that has proven to take our token.
    async fn metrics(&mut self, report: &ReportBody) {
        const NAME: &str = "metrics.txt";
        let config = &self.looked.config;
        let token = gateway_api::token_for(config, &report.rpc.url).ok().flatten();
        let (Some(true), Some(token)) = (report.rpc.ok, token) else {
            return self.lacks(NAME, "the admin API did not answer a call with the admin token");
        };
        let trust = gateway_api::trust(&config.admin.trust);
        let answered = match StatusApi::new(&report.rpc.url, Some(&token), &trust, PATIENCE) {
            Ok(api) => api.metrics().await,
            Err(error) => Err(error),
        };
        match answered {
            Ok(text) => self.parts.push(Part::text(NAME, self.cleaner.text(&text))),
            Err(error) => self.lacks(NAME, &error.to_string()),
        }
    }

    /// The last lines of every stream, each with the name of its stream.
    fn logs(&mut self) -> Result<(), CliError> {
        const NAME: &str = "logs.redacted.jsonl";
        let paths = &self.looked.config.paths;
        let places = LogPlaces { data_dir: paths.data_dir.clone(), run_dir: paths.run_dir.clone() };
        let size = PageSize { lines: MAX_LINES, bytes: MAX_BYTES };
        let mut text = String::new();
        for stream in LogStream::ALL {
            if !places.exists(stream) {
                continue;
            }
            let page = match log_reader::read(&places, stream, &Start::Newest, size, &LogFilter::default()) {
                Ok(page) => page,
                Err(error) => {
                    self.lacks(NAME, &format!("{}: {error}", stream.name()));
                    continue;
                }
            };
            for members in page.lines {
                let mut line = Map::from_iter([("stream".to_owned(), json!(stream.name()))]);
                line.extend(members);
                let line = serde_json::to_string(&self.cleaner.json(Value::Object(line)));
                text.push_str(&line.map_err(|error| unwritable(&error))?);
                text.push('\n');
            }
        }
        if text.is_empty() {
            self.lacks(NAME, "nothing was logged yet");
        } else {
            self.parts.push(Part::text(NAME, text));
        }
        Ok(())
    }

    /// Units and jobs of gateways, of this user and of the machine.
    fn units(&mut self) {
        let user = manager::user_folder().ok().map(|folder| (folder, "user"));
        for (folder, scope) in user.into_iter().chain([(manager::system_folder(), "system")]) {
            for unit in survey::units(&[folder]) {
                let name = format!("units/{scope}/{}", tidy(&unit.name));
                match files::read_text(&unit.path, MAX_FILE) {
                    Ok(text) => self.parts.push(Part::text(&name, self.cleaner.unit(&text))),
                    Err(error) => self.lacks(&name, &error.to_string()),
                }
            }
        }
    }

    /// What was kept of processes that crashed.
    fn crashes(&mut self) {
        for path in crash::list(&self.looked.config.paths.data_dir.join(crash::CRASHES)) {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let name = format!("crashes/{}", tidy(&file));
            let text = files::read_text(&path, MAX_CRASH).map_err(|error| error.to_string());
            let value = text.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()));
            match value.and_then(|value| pretty(&self.cleaner.json(value)).map_err(|error| error.message)) {
                Ok(text) => self.parts.push(Part::text(&name, text)),
                Err(error) => self.lacks(&name, &error),
            }
        }
    }

    /// What the archive holds, and where it comes from.
    fn manifest(&self, report: &ReportBody, now: UnixSeconds) -> Result<Part, CliError> {
        let listed = self.parts.iter().map(|part| {
            json!({
                "file": part.name,
                "bytes": part.content.len(),
                "sha256": hex::text(&Sha256::digest(&part.content)),
            })
        });
        let manifest = json!({
            "schemaVersion": SCHEMA_VERSION,
            "createdAt": now.rfc3339(),
            "versions": { "sigilum": versions::OWN, "envoy": report.known.envoy.version },
            "profile": report.profile,
            "host": host(&self.looked.config.paths.data_dir),
            "files": listed.collect::<Value>(),
            "missing": self.missing,
        });
        Ok(Part::text(MANIFEST, pretty(&manifest)?))
    }
}

/// Facts about this machine, without its name and without those of its users.
fn host(data_dir: &Path) -> Value {
    let line = |path: &str| files::read_text(Path::new(path), MAX_FILE).ok();
    let system = line("/etc/os-release").and_then(|text| {
        let named = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        named.map(|name| name.trim_matches('"').to_owned())
    });
    let memory = line("/proc/meminfo").and_then(|text| {
        let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        total.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    });
    let booted = line("/proc/uptime").and_then(|text| text.split('.').next()?.parse::<u64>().ok());
    json!({
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "system": system,
        "kernel": line("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()),
        "processors": thread::available_parallelism().ok().map(NonZero::get),
        "memoryBytes": memory,
        "uptimeSeconds": booted,
        "freeBytes": free(data_dir).ok(),
    })
}

/// Of the disk the data folder is, or would be, on.
fn free(folder: &Path) -> io::Result<u64> {
    let there = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    files::free_bytes(there)
}

/// A name that cannot lead out of the archive's folder.
fn tidy(name: &str) -> String {
    let keep = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_' | '@');
    name.chars().map(|letter| if keep(letter) { letter } else { '_' }).collect()
}

fn pretty(value: &Value) -> Result<String, CliError> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|error| unwritable(&error))
}

fn unwritable(error: &dyn std::fmt::Display) -> CliError {
    CliError::new(Outcome::Failed, format!("could not write a part of the archive: {error}"))
}

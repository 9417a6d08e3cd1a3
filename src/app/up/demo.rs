//! Setting the demo up: its key, its approval, its connection. Doing it again changes nothing.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::Request;
use serde_json::Value;
use serde_json::json;
use serde_yaml::Value as Yaml;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::app::gateway::config::GatewayConfig;
use crate::app::gateway::progress::Addresses;
use crate::app::gateway::progress::Progress;
use crate::app::up::DemoConfig;
use crate::app::up::admin_api::AdminApi;
use crate::config::MAX_FILE_BYTES;
use crate::demo::KEY_HEADER;
use crate::domain::secret::Secret;
use crate::identity::Identity;
use crate::identity::Outgoing;
use crate::identity::SignError;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::files;
use crate::sys::local_http;
use crate::sys::local_http::Answer;
use crate::sys::local_http::Endpoint;
use crate::sys::local_http::ExchangeError;
use crate::sys::random;
use crate::sys::random::RandomError;

/// The id of the demo's connection.
pub const CONNECTION: &str = "demo-service-gateway";
/// Its name.
const NAME: &str = "Demo Service (Gateway)";
/// The name of its secret.
const SECRET: &str = "upstream_key";
/// The settings admin runs with: the person's own and the demo's approval.
const SETTINGS_FILE: &str = "demo-gateway.yaml";
/// Longest secret or token file.
const MAX_SECRET: u64 = 4096;

/// How long the first request may take to get through, and how often it is tried.
const SERVED_DEADLINE: Duration = Duration::from_secs(30);
const SERVED_LOOK: Duration = Duration::from_millis(250);

/// Why the demo could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum DemoSetupError {
    /// A file.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The settings file is no mapping, so no approval can be added.
    #[error("{path}: {reason}")]
    Settings {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No key could be made.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The admin API does not answer.
    #[error("the admin API {0}")]
    Unreachable(#[from] ExchangeError),
    /// A request of the demo's agent does not get through.
    #[error("a request of the demo's agent was answered {status}: {body}")]
    NotServed {
        /// HTTP status.
        status: u16,
        /// The start of the answer.
        body: String,
    },
    /// It could not be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The ingress does not answer.
    #[error("the ingress {0}")]
    Ingress(ExchangeError),
    /// The admin API refused.
    #[error("the admin API answered {status} to {what}: {body}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// HTTP status.
        status: u16,
        /// The start of its answer.
        body: String,
    },
}

/// The key the demo upstream wants: minted once, kept 0600.
pub(super) fn secret(file: &Path) -> Result<Secret, DemoSetupError> {
    if let Some(folder) = file.parent() {
        files::private_folder(folder).map_err(io_at(folder))?;
    }
    match files::read_text(file, MAX_SECRET) {
        Ok(text) if !text.trim().is_empty() => return Ok(Secret::new(text.trim().to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_at(file)(error)),
    }
    let minted = format!("gw_demo_{}", random::hex::<24>()?);
    files::write_private(file, format!("{minted}\n").as_bytes()).map_err(io_at(file))?;
    Ok(Secret::new(minted))
}

/// Hands admin the person's settings with the demo's approval added, in a file of its own: the approval
/// holds as long as the demo runs, and the person's file stays as it is.
pub(super) fn approve(config: &mut GatewayConfig, demo: &DemoConfig) -> Result<(), DemoSetupError> {
    let base = match &config.config_file {
        Some(file) => files::read_text(file, MAX_FILE_BYTES).map_err(io_at(file))?,
        None => String::new(),
    };
    let named = config.config_file.clone().unwrap_or_else(|| PathBuf::from("gateway.yaml"));
    let merged = merge(&base, demo).map_err(|reason| DemoSetupError::Settings { path: named, reason })?;
    files::private_folder(&config.data_dir).map_err(io_at(&config.data_dir))?;
    let file = config.data_dir.join(SETTINGS_FILE);
    files::write_private(&file, merged.as_bytes()).map_err(io_at(&file))?;
    config.config_file = Some(file);
    Ok(())
}

fn merge(base: &str, demo: &DemoConfig) -> Result<String, String> {
    let parsed: Yaml = serde_yaml::from_str(base).map_err(|error| error.to_string())?;
    let mut settings = match parsed {
        Yaml::Null => serde_yaml::Mapping::new(),
        Yaml::Mapping(settings) => settings,
        Yaml::Bool(_) | Yaml::Number(_) | Yaml::String(_) | Yaml::Sequence(_) | Yaml::Tagged(_) => {
            return Err("the settings are no mapping".to_owned());
        }
    };
    let approvals = settings.entry(Yaml::from("approvals")).or_insert(Yaml::Null);
    if approvals.is_null() {
        *approvals = Yaml::Sequence(Vec::new());
    }
    let list = approvals.as_sequence_mut().ok_or_else(|| "approvals is no list".to_owned())?;
    let wanted = [
        ("namespace", demo.identity.namespace().as_str().to_owned()),
        ("public_key", demo.identity.public_key().text()),
        ("service", CONNECTION.to_owned()),
    ];
    let same = |entry: &Yaml| wanted.iter().all(|(name, value)| entry.get(name).and_then(Yaml::as_str) == Some(value));
    // One that ends with time is replaced: the demo's does not.
    list.retain(|entry| !same(entry));
    list.push(Yaml::Mapping(
        wanted.iter().map(|(name, value)| (Yaml::from(*name), Yaml::from(value.as_str()))).collect(),
    ));
    serde_yaml::to_string(&settings).map_err(|error| error.to_string())
}

/// Creates the connection, or brings the one that is there up to date.
pub(super) async fn connect(
    addresses: &Addresses,
    token: Option<Secret>,
    token_file: &Path,
    upstream: SocketAddr,
    secret: &Secret,
) -> Result<(), DemoSetupError> {
    let Some(address) = addresses.admin.first() else { return Ok(()) };
    let token = match token {
        Some(token) => token,
        None => {
            let text = files::read_text(token_file, MAX_SECRET).map_err(io_at(token_file))?;
            Secret::new(text.trim().to_owned())
        }
    };
    let api = AdminApi::new(local_http::reachable(*address), token);
    let base_url = format!("http://{upstream}");
    let path = format!("/connections/{CONNECTION}");
    let found = api.call(Method::GET, &path, None).await?;
    if found.status == 200 {
        if update(&api, &path, &found, &base_url, secret).await? {
            return Ok(());
        }
        expect("DELETE of the demo connection", api.call(Method::DELETE, &path, None).await?, &[204, 404])?;
    }
    let input = json!({
        "id": CONNECTION,
        "name": NAME,
        "protocol": "http",
        "base_url": base_url,
        "auth_mode": "header_key",
        "auth_header_name": KEY_HEADER,
        "auth_secret_key": SECRET,
        "secrets": { SECRET: secret.expose() },
    });
    expect("creating the demo connection", api.call(Method::POST, "/connections", Some(&input)).await?, &[201])
}

/// Whether what is there now serves the demo; where not, it is made anew.
async fn update(
    api: &AdminApi,
    path: &str,
    found: &Answer,
    base_url: &str,
    secret: &Secret,
) -> Result<bool, DemoSetupError> {
    let connection: Value = serde_json::from_slice(&found.body).unwrap_or_default();
    let text = |name: &str| connection.get(name).and_then(Value::as_str).unwrap_or_default();
    let same = text("base_url") == base_url
        && text("auth_mode") == "header_key"
        && text("auth_header_name").eq_ignore_ascii_case(KEY_HEADER)
        && text("auth_secret_key") == SECRET
        && text("status") == "active";
    if !same {
        return Ok(false);
    }
    // 400 is the answer where the secret is the same already.
    let input = json!({ "secrets": { SECRET: secret.expose() }, "rotated_by": "sigilum up --demo" });
    let rotated = api.call(Method::POST, &format!("{path}/rotate"), Some(&input)).await?;
    Ok(matches!(rotated.status, 200 | 400))
}

/// Sends one request as the demo's agent, until it comes back from the upstream: what is announced works.
/// At a first start that takes some seconds, in which authz cannot tell new requests from replayed ones.
pub(super) async fn prove(
    addresses: &Addresses,
    identity: &Identity,
    progress: &mpsc::Sender<Progress>,
) -> Result<(), DemoSetupError> {
    let Some(address) = addresses.ingress.first() else { return Ok(()) };
    let endpoint = Endpoint::Tcp(local_http::reachable(*address));
    let path = format!("/proxy/{CONNECTION}/v1/balance");
    let started = Instant::now();
    let mut told = false;
    loop {
        let url = format!("http://{}{path}", endpoint.authority());
        let (created, nonce) = (SystemClock.now().seconds(), random::uuid()?);
        let outgoing =
            Outgoing { method: "GET", url: &url, body: &[], subject: None, agent_id: None, created, nonce: &nonce };
        let mut request = Request::get(&path);
        for (name, value) in identity.signer().sign(&outgoing)? {
            request = request.header(name, value);
        }
        let answer = local_http::exchange(&endpoint, request, Bytes::new(), SERVED_DEADLINE)
            .await
            .map_err(DemoSetupError::Ingress)?;
        match answer.status {
            200 => return Ok(()),
            503 if started.elapsed() < SERVED_DEADLINE => {
                if !told {
                    let note = "waiting some seconds: until then, new requests cannot be told from replayed ones";
                    let _ = progress.try_send(Progress::Note(note.to_owned()));
                }
                told = true;
                tokio::time::sleep(SERVED_LOOK).await;
            }
            status => {
                let body = String::from_utf8_lossy(&answer.body).chars().take(300).collect();
                return Err(DemoSetupError::NotServed { status, body });
            }
        }
    }
}

fn expect(what: &'static str, answer: Answer, wanted: &[u16]) -> Result<(), DemoSetupError> {
    if wanted.contains(&answer.status) {
        return Ok(());
    }
    let body = String::from_utf8_lossy(&answer.body).chars().take(300).collect();
    Err(DemoSetupError::Refused { what, status: answer.status, body })
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> DemoSetupError {
    let path = path.to_owned();
    move |source| DemoSetupError::Io { path, source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::domain::ids::Namespace;
    use crate::domain::time::UnixSeconds;

    fn demo() -> DemoConfig {
        DemoConfig {
            port: 0,
            identity: Identity::from_seed(Namespace::parse("demo").unwrap(), &[7; 32], UnixSeconds(1_700_000_000)),
            secret_file: PathBuf::new(),
        }
    }

    #[test]
    fn the_persons_settings_stay_and_the_approval_is_added_once() {
        let own =
            "gateway:\n  trusted_hops: 1\napprovals:\n- namespace: other\n  public_key: ed25519:AA==\n  service: svc\n";
        let once = merge(own, &demo()).unwrap();
        assert_eq!(merge(&once, &demo()).unwrap(), once);
        let parsed: Yaml = serde_yaml::from_str(&once).unwrap();
        assert_eq!(parsed["gateway"]["trusted_hops"], 1);
        assert_eq!(parsed["approvals"].as_sequence().unwrap().len(), 2);
        assert_eq!(parsed["approvals"][1]["service"], CONNECTION);
        assert!(merge("", &demo()).unwrap().contains("namespace: demo"));
        assert!(merge("approvals:\n", &demo()).is_ok());
        assert!(merge("- a\n", &demo()).is_err());
        assert!(merge("approvals: x\n", &demo()).is_err());
    }

    #[test]
    fn the_key_is_minted_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("home").join("key");
        let first = secret(&file).unwrap();
        assert!(first.expose().starts_with("gw_demo_") && first.expose().len() == 8 + 48);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(secret(&file).unwrap(), first);
    }
}

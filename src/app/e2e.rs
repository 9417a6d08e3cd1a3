//! `e2e-tests`: a stack of one's own, or the one that runs, tried from outside.
//!
//! The stack that is started lives in folders of its own and ends with us, however we end: it holds the other
//! end of a pipe. What runs already and is not ours is never stopped.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use reqwest::Url;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Child;
use tokio::process::ChildStdin;
use tokio::process::Command;
use tokio::time::Instant;

use crate::app::web::Page;
use crate::app::web::Web;
use crate::app::web::below;
use crate::domain::secret::Secret;
use crate::sys::files::PRIVATE_FILE;
use crate::sys::files::PRIVATE_FOLDER;
use crate::sys::http::HttpError;
use crate::sys::spawner::Spawner;
use crate::sys::supervision;
use crate::sys::tls::trust::ServerTrust;

/// How long a fresh stack may take: at a first start it installs Envoy.
const START: Duration = Duration::from_secs(180);
/// How long the demo's services and connection may take once the stack answers.
const DEMO: Duration = Duration::from_secs(120);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long one question may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a stack has to end; then it is killed.
const END: Duration = Duration::from_secs(60);
/// The header of the admin token.
const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-sigilum-admin-token");

/// Where the stack is, or shall be.
#[derive(Debug)]
pub struct Places {
    /// The control plane.
    pub api: Url,
    /// The admin API.
    pub admin: Url,
    /// Whom to believe there, where it speaks TLS.
    pub admin_trust: ServerTrust,
    /// Where agents connect.
    pub gateway: Url,
    /// The service that verifies its callers itself.
    pub native: Url,
    /// The service behind the gateway.
    pub upstream: Url,
    /// The connection to it.
    pub connection: String,
}

/// Why nothing could be tried, or what did not hold.
#[derive(Debug, thiserror::Error)]
pub enum E2eError {
    /// Part of a stack runs.
    #[error("{up} answers and {down} does not: that is half a stack")]
    Half {
        /// What answers.
        up: String,
        /// What does not.
        down: String,
    },
    /// A stack without the demo.
    #[error("a stack runs, but {0} does not answer: it has no demo")]
    NoDemo(String),
    /// A file or folder.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The stack could not be started.
    #[error("the stack cannot be started: {0}")]
    Spawn(io::Error),
    /// The stack ended early.
    #[error("the stack ended with {status}; its log: {log}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// What it said.
        log: PathBuf,
    },
    /// The stack is not ready in time.
    #[error("{what} does not answer after {seconds} s; the log of the stack: {log}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// What it said.
        log: PathBuf,
    },
    /// A probe was answered wrongly.
    #[error("{what}: expected {expected}, got {got}")]
    Probe {
        /// What was asked.
        what: String,
        /// The status it should be.
        expected: u16,
        /// What came.
        got: String,
    },
    /// The client could not be made.
    #[error(transparent)]
    Http(#[from] HttpError),
}

/// Whether a whole stack with its demo runs already. Half of one is an error.
pub async fn is_running(places: &Places) -> Result<bool, E2eError> {
    let web = places.web()?;
    let (api, admin) = (below(&places.api, "/health"), below(&places.admin, "/health"));
    match (web.is_healthy(&api).await, web.is_healthy(&admin).await) {
        (false, false) => Ok(false),
        (true, false) => Err(E2eError::Half { up: api.to_string(), down: admin.to_string() }),
        (false, true) => Err(E2eError::Half { up: admin.to_string(), down: api.to_string() }),
        (true, true) => {
            for url in places.demo() {
                if !web.is_healthy(&url).await {
                    return Err(E2eError::NoDemo(url.to_string()));
                }
            }
            Ok(true)
        }
    }
}

/// Asks what must hold before any agent comes: the connection is there, and nobody gets in unsigned.
pub async fn probe(places: &Places, admin_token: &Secret) -> Result<(), E2eError> {
    let web = places.web()?;
    let id = &places.connection;
    let mut headers = HeaderMap::new();
    let wrong = |what: String, expected: u16, got: String| E2eError::Probe { what, expected, got };
    let what = format!("GET of the connection {id} at the admin API");
    let mut token = HeaderValue::from_str(admin_token.expose())
        .map_err(|_| wrong(what.clone(), 200, "no usable admin token".to_owned()))?;
    token.set_sensitive(true);
    headers.insert(TOKEN_HEADER, token);
    let connection = below(&places.admin, &format!("/api/admin/connections/{id}"));
    let ping = |base: &Url, path: &str| below(base, path);
    let through = format!("/proxy/{id}/v1/ping");
    let asked = [
        (what, 200, web.ask(Method::GET, &connection, headers, Bytes::new()).await),
        (
            "an unsigned POST to the native service".to_owned(),
            401,
            unsigned(&web, &ping(&places.native, "/v1/ping")).await,
        ),
        ("an unsigned POST to the gateway".to_owned(), 403, unsigned(&web, &ping(&places.gateway, &through)).await),
    ];
    for (what, expected, answer) in asked {
        match answer {
            Ok(page) if page.status == expected => {}
            Ok(page) => return Err(wrong(what, expected, page.status.to_string())),
            Err(error) => return Err(wrong(what, expected, error)),
        }
    }
    Ok(())
}

async fn unsigned(web: &Web, url: &Url) -> Result<Page, String> {
    web.ask(Method::POST, url, HeaderMap::new(), Bytes::from_static(b"\"ping\"")).await
}

impl Places {
    fn web(&self) -> Result<Web, HttpError> {
        let urls = [&self.api, &self.admin, &self.gateway, &self.native, &self.upstream];
        Web::trusting(&urls, DEADLINE, &self.admin_trust)
    }

    fn demo(&self) -> [Url; 2] {
        [below(&self.native, "/"), below(&self.upstream, "/health")]
    }
}

/// Where a stack of one's own keeps its things.
#[derive(Debug)]
pub struct Folders {
    /// All of it; what the stack says is kept there as `up.log`.
    pub root: PathBuf,
    /// Identities and keys.
    pub home: PathBuf,
    /// The gateway's data.
    pub data: PathBuf,
    /// The control plane's data.
    pub api: PathBuf,
    /// The defaults of later commands, which this stack must not change.
    pub config_file: PathBuf,
}

impl Folders {
    /// A new folder of this name in `parent`, 0700; another one where it exists.
    pub fn create(parent: &Path, name: &str) -> Result<Self, E2eError> {
        for attempt in 0..100_u32 {
            let root = match attempt {
                0 => parent.join(name),
                _ => parent.join(format!("{name}-{attempt}")),
            };
            match fs::DirBuilder::new().mode(PRIVATE_FOLDER).create(&root) {
                Ok(()) => {
                    let below = |name: &str| root.join(name);
                    let (home, data, api) = (below("home"), below("data"), below("api"));
                    return Ok(Self { home, data, api, config_file: below("config.env"), root });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(E2eError::Io { path: root, source }),
            }
        }
        let source = io::Error::from(io::ErrorKind::AlreadyExists);
        Err(E2eError::Io { path: parent.join(name), source })
    }

    /// The log of the stack.
    pub fn log(&self) -> PathBuf {
        self.root.join("up.log")
    }

    /// Removes keys and data; the logs stay.
    pub fn tidy(&self) {
        let logs = self.data.join("logs");
        // What cannot be removed stays in a folder nobody else may read.
        let _ = fs::rename(logs, self.root.join("gateway-logs"));
        for folder in [&self.home, &self.data, &self.api] {
            let _ = fs::remove_dir_all(folder);
        }
        let _ = fs::remove_file(&self.config_file);
    }
}

/// A stack that was started for the tests.
pub struct Stack {
    child: Child,
    pipe: Option<ChildStdin>,
    log: PathBuf,
    // Its thread is what the child's life hangs on.
    _spawner: Spawner,
}

impl Stack {
    /// Starts `program up --demo --supervised` with these variables and no others, hands it these secrets.
    pub async fn start(
        program: &Path,
        arguments: &[String],
        environment: Vec<(String, String)>,
        secrets: &[(String, Secret)],
        folders: &Folders,
    ) -> Result<Self, E2eError> {
        let log = folders.log();
        let failed = |source| E2eError::Io { path: folders.log(), source };
        let file = fs::OpenOptions::new().append(true).create(true).mode(PRIVATE_FILE).open(&log).map_err(failed)?;
        let again = file.try_clone().map_err(failed)?;
        let spawner = Spawner::start().map_err(E2eError::Spawn)?;
        let mut command = Command::new(program);
        command
            .arg0("sigilum")
            .args(arguments)
            .env_clear()
            .envs(environment)
            .current_dir(&folders.root)
            // A group of its own: Ctrl-C reaches us alone, and it ends in order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::from(file))
            .stderr(Stdio::from(again));
        let mut child = spawner.spawn(command).await.map_err(E2eError::Spawn)?;
        let mut pipe = child.stdin.take();
        if let Some(pipe) = &mut pipe {
            for (name, secret) in secrets {
                let line = supervision::secret_line(name, secret);
                pipe.write_all(line.as_bytes()).await.map_err(E2eError::Spawn)?;
            }
            pipe.write_all(supervision::GO.as_bytes()).await.map_err(E2eError::Spawn)?;
        }
        Ok(Self { child, pipe, log, _spawner: spawner })
    }

    /// Waits until the stack answers, then its demo.
    pub async fn ready(&mut self, places: &Places, admin_token: impl Fn() -> Option<Secret>) -> Result<(), E2eError> {
        let web = places.web()?;
        for url in [below(&places.api, "/health"), below(&places.admin, "/health")] {
            self.wait(START, url.as_str(), async || web.is_healthy(&url).await).await?;
        }
        for url in places.demo() {
            self.wait(DEMO, url.as_str(), async || web.is_healthy(&url).await).await?;
        }
        self.wait(DEMO, "the demo's connection", async || match admin_token() {
            Some(token) => probe(places, &token).await.is_ok(),
            None => false,
        })
        .await
    }

    async fn wait(&mut self, limit: Duration, what: &str, holds: impl AsyncFn() -> bool) -> Result<(), E2eError> {
        let started = Instant::now();
        while !holds().await {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(E2eError::Ended { status, log: self.log.clone() });
            }
            if started.elapsed() > limit {
                let (what, seconds) = (what.to_owned(), limit.as_secs());
                return Err(E2eError::Late { what, seconds, log: self.log.clone() });
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Ends it in order, and by force where that takes too long.
    pub async fn end(mut self) {
        drop(self.pipe.take());
        if tokio::time::timeout(END, self.child.wait()).await.is_err() {
            // Its children notice that it is gone.
            let _ = self.child.kill().await;
        }
    }
}

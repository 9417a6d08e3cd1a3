//! A Valkey or Redis server, as far as it remembers keys for a time: one connection that all threads share.
//!
//! Every question has a deadline, and no answer is an error. Nothing is retried here: whoever asks knows what that would
//! mean.

use std::path::PathBuf;
use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::Client;
use redis::ConnectionAddr;
use redis::ConnectionInfo;
use redis::IntoConnectionInfo as _;
use redis::RedisConnectionInfo;
use redis::RedisError;
use redis::TlsCertificates;
use redis::aio::MultiplexedConnection;

use crate::domain::secret::Secret;
use crate::domain::time::UnixMillis;
use crate::sys::files;

/// How long connecting may take, the handshakes included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the server may take to describe itself.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Largest file of authorities, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Where the server is, and what is shown to it.
#[derive(Debug)]
pub struct KeyStore {
    /// Host name or IP address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Number of the database.
    pub database: u32,
    /// User of its access list; `None`: the default one.
    pub username: Option<String>,
    /// What it asks for.
    pub password: Password,
    /// Whom to believe that it is the server.
    pub trust: Trust,
}

/// Where the password is. A file is read at each connection, so that it may be replaced.
#[derive(Debug)]
pub enum Password {
    /// There is none.
    None,
    /// In memory.
    Held(Secret),
    /// In a file; blanks around it do not count.
    File(PathBuf),
}

/// How the connection is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Not at all.
    Clear,
    /// TLS; the certificate comes from an authority of this system.
    System,
    /// TLS; the certificate comes from an authority of this PEM file, which is read at each connection.
    Authorities(PathBuf),
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyStoreError {
    /// A file of ours.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: String,
        /// What is wrong with it; never its content.
        reason: String,
    },
    /// It took too long.
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// No connection, or none any more.
    #[error("not reachable: {0}")]
    Unreachable(String),
    /// The server will not, or cannot.
    #[error("refused: {0}")]
    Refused(String),
    /// Its clock and ours are further apart than clocks may be.
    #[error("its clock is {0} than ours: one of the two is wrong")]
    Apart(String),
}

impl KeyStoreError {
    /// Whether another connection may help.
    pub const fn is_lost(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::File { .. } => true,
            Self::Late(_) | Self::Refused(_) | Self::Apart(_) => false,
        }
    }
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Made when it started; another one has another, and so has the same after a restart.
    pub run: String,
    /// Made when it started, and another at each promotion: what it was written since then is of one line.
    pub line: String,
    /// `master` where it may be written to.
    pub role: String,
    /// What it does when its memory is full, e.g. `noeviction`; empty where it does not say.
    pub when_full: String,
    /// Its clock.
    pub at: UnixMillis,
}

/// What became of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstUse {
    /// What the mark held at that moment; `None`: it is not there.
    pub mark: Option<String>,
    /// Whether the key was not there before; it is there now.
    pub is_first: bool,
    /// The server's clock at that moment.
    pub at: UnixMillis,
}

/// What `TIME` says: seconds and microseconds.
type Time = (u64, u64);

/// A connection; a clone is another handle to it.
#[derive(Debug, Clone)]
pub struct KeyConnection(MultiplexedConnection);

impl KeyStore {
    /// Connects and signs in.
    pub async fn connect(&self) -> Result<KeyConnection, KeyStoreError> {
        let client = self.client()?;
        // Deadlines are ours: they differ from question to question.
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => Ok(KeyConnection(connection)),
            Ok(Err(error)) => Err(judge(&error)),
            Err(_) => Err(KeyStoreError::Unreachable(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()))),
        }
    }

    fn client(&self) -> Result<Client, KeyStoreError> {
        let mut settings = RedisConnectionInfo::default().set_db(i64::from(self.database)).set_skip_set_lib_name();
        if let Some(username) = &self.username {
            settings = settings.set_username(username);
        }
        match &self.password {
            Password::None => {}
            Password::Held(secret) => settings = settings.set_password(secret.expose()),
            Password::File(path) => {
                let text = files::read_text(path, MAX_FILE).map(Secret::new).map_err(|error| in_file(path, &error))?;
                settings = settings.set_password(text.expose().trim());
            }
        }
        let (host, port) = (self.host.clone(), self.port);
        let at = |address: ConnectionAddr| -> Result<ConnectionInfo, KeyStoreError> {
            let info = address.into_connection_info().map_err(|error| judge(&error))?;
            Ok(info.set_redis_settings(settings))
        };
        let secured = |host, port| ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
        let root = match &self.trust {
            Trust::Clear => {
                return Client::open(at(ConnectionAddr::Tcp(host, port))?).map_err(|error| judge(&error));
            }
            Trust::System => None,
            Trust::Authorities(path) => Some(files::read_bytes(path, MAX_FILE).map_err(|error| in_file(path, &error))?),
        };
        let certificates = TlsCertificates { client_tls: None, root_cert: root };
        Client::build_with_tls(at(secured(host, port))?, certificates).map_err(|error| judge(&error))
    }
}

impl KeyConnection {
    /// What the server says of itself.
    pub async fn describe(&self) -> Result<Description, KeyStoreError> {
        let mut connection = self.0.clone();
        let mut both = redis::pipe();
        both.cmd("INFO").cmd("TIME");
        let (told, at) = within(DESCRIBE_TIMEOUT, both.query_async::<(String, Time)>(&mut connection)).await?;
        let find = |name: &str| {
            let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_default().trim().to_owned()
        };
        let (run, line) = (find("run_id"), find("master_replid"));
        for (value, name) in [(&run, "run_id"), (&line, "master_replid")] {
            if value.is_empty() {
                return Err(KeyStoreError::Refused(format!("it does not say which server it is (INFO has no {name})")));
            }
        }
        Ok(Description { run, line, role: find("role"), when_full: find("maxmemory_policy"), at: moment(at) })
    }

    /// Puts `value` at `key` where nothing is, and returns what is there then, with the server's clock. It stays.
    pub async fn settle(&self, key: &str, value: &str) -> Result<(String, UnixMillis), KeyStoreError> {
        let mut connection = self.0.clone();
        let mut all = redis::pipe();
        all.atomic().cmd("SET").arg(key).arg(value).arg("NX").ignore().cmd("GET").arg(key).cmd("TIME");
        let (held, at) = within(DESCRIBE_TIMEOUT, all.query_async::<(String, Time)>(&mut connection)).await?;
        Ok((held, moment(at)))
    }

    /// Puts `value` at `key`, whatever is there. It stays.
    pub async fn replace(&self, key: &str, value: &str) -> Result<(), KeyStoreError> {
        let mut connection = self.0.clone();
        let mut command = redis::cmd("SET");
        command.arg(key).arg(value);
        within(DESCRIBE_TIMEOUT, command.query_async::<()>(&mut connection)).await
    }

    /// Sets `key` for `life` where it is not set, and reads the mark and the clock at the same moment; one round trip.
    pub async fn first_use(
        &self,
        mark: &str,
        key: &[u8],
        life: Duration,
        deadline: Duration,
    ) -> Result<FirstUse, KeyStoreError> {
        let mut connection = self.0.clone();
        let life = u64::try_from(life.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut all = redis::pipe();
        all.atomic().cmd("GET").arg(mark).cmd("SET").arg(key).arg("1").arg("NX").arg("PX").arg(life).cmd("TIME");
        let asked = all.query_async::<(Option<String>, Option<String>, Time)>(&mut connection);
        let (mark, set, at) = within(deadline, asked).await?;
        Ok(FirstUse { mark, is_first: set.is_some(), at: moment(at) })
    }
}

fn moment((seconds, micros): Time) -> UnixMillis {
    UnixMillis(seconds.saturating_mul(1000).saturating_add(micros / 1000))
}

/// Waits no longer than the deadline.
async fn within<T>(deadline: Duration, asked: impl Future<Output = Result<T, RedisError>>) -> Result<T, KeyStoreError> {
    match tokio::time::timeout(deadline, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(judge(&error)),
        Err(_) => Err(KeyStoreError::Late(deadline)),
    }
}

fn judge(error: &RedisError) -> KeyStoreError {
    // The server's own words hold none of ours: neither key nor password is repeated in them.
    if error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error() {
        KeyStoreError::Unreachable(error.to_string())
    } else {
        KeyStoreError::Refused(error.to_string())
    }
}

fn in_file(path: &std::path::Path, error: &std::io::Error) -> KeyStoreError {
    KeyStoreError::File { path: path.display().to_string(), reason: error.to_string() }
}

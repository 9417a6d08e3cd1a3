//! The settings of the replay window, and of a gateway with several replicas: the window they share, and the state stream to other hosts;
//! part of [`crate::config::keys::ALL`].

use crate::config::key::Fallback;
use crate::config::key::Key;

/// Replay window.
pub const REPLAY_CAPACITY: Key = Key::new(
    Some("limits.replay_capacity"),
    &["GATEWAY_REPLAY_CAPACITY"],
    None,
    Fallback::Text("2000000"),
    "nonces remembered, 1000 to 100000000, at most 32 bytes each; full means 503, never forgetting",
)
.whole(1000, 100_000_000);
/// The store of the shared replay window.
pub const REPLAY_URL: Key = Key::new(
    Some("replay.shared.url"),
    &["GATEWAY_REPLAY_URL"],
    None,
    Fallback::None,
    "Valkey or Redis server whose memory of nonces all replicas share: `rediss://[user@]host[:port][/database]`, or `redis://` without TLS, to another host only where no password is given; it must be set to `maxmemory-policy noeviction`. Without, each authz has a window of its own, and two must not decide for one connection",
)
.pattern(r"^\s*[Rr][Ee][Dd][Ii][Ss][Ss]?://\S+\s*$");
/// Whom to believe that it is that server.
pub const REPLAY_CA_FILE: Key = Key::new(
    Some("replay.shared.ca_file"),
    &["GATEWAY_REPLAY_CA_FILE"],
    None,
    Fallback::Computed("the authorities of this system"),
    "authorities (PEM) of that server's certificate, read at each connection",
);
/// Its password, in a file.
pub const REPLAY_PASSWORD_FILE: Key = Key::new(
    Some("replay.shared.password_file"),
    &["GATEWAY_REPLAY_PASSWORD_FILE"],
    None,
    Fallback::None,
    "file with the password of that server, read at each connection",
);
/// Its password.
pub const REPLAY_PASSWORD: Key = Key::new(
    None,
    &["GATEWAY_REPLAY_PASSWORD"],
    None,
    Fallback::None,
    "secret; the password itself, for `gateway authz` on its own. `gateway start` wants the file",
);
/// How long a request waits for it.
pub const REPLAY_TIMEOUT: Key = Key::new(
    Some("replay.shared.timeout_ms"),
    &["GATEWAY_REPLAY_TIMEOUT_MS"],
    None,
    Fallback::Text("50"),
    "milliseconds a request waits for that server, 5 to 400; no answer in time refuses it",
)
.whole(5, 400);
/// Where authz processes of other hosts find the state.
pub const STATE_ADDR: Key = Key::new(
    Some("state.addr"),
    &["GATEWAY_STATE_ADDR"],
    None,
    Fallback::None,
    "where admin streams the state to authz processes of other hosts (`:PORT`, `IP:PORT`, several with commas), by mutual TLS; on this machine it has a socket in any case",
)
.words();
/// The certificate there.
pub const STATE_CERT_FILE: Key = Key::new(
    Some("state.tls.cert_file"),
    &["GATEWAY_STATE_TLS_CERT_FILE"],
    None,
    Fallback::None,
    "certificate of that listener and its intermediates (PEM); a new content counts within two seconds",
);
/// Its key.
pub const STATE_KEY_FILE: Key = Key::new(
    Some("state.tls.key_file"),
    &["GATEWAY_STATE_TLS_KEY_FILE"],
    None,
    Fallback::None,
    "private key of that certificate (PEM), not readable by others; a new content counts within two seconds",
);
/// Whose client certificates count there.
pub const STATE_CLIENT_CA_FILE: Key = Key::new(
    Some("state.tls.client_ca_file"),
    &["GATEWAY_STATE_TLS_CLIENT_CA_FILE"],
    None,
    Fallback::None,
    "authorities of the certificates of those authz processes (PEM); which `workloads` a certificate names decides what is sent. A new content counts within two seconds, and ends the streams of those it no longer covers",
);

//! The settings of the port of agents: what it answers for, and its TLS.

use crate::config::key::Fallback;
use crate::config::key::Key;

/// Authorities besides the loopback names.
pub const AUTHORITIES: Key = Key::new(
    Some("gateway.authorities"),
    &["GATEWAY_AUTHORITIES"],
    None,
    Fallback::Text(""),
    "hosts (`host` or `host:port`) the gateway answers for besides the loopback names; a list, in the environment with commas",
)
.hot()
.words();
/// Whether the loopback names are accepted.
pub const LOOPBACK_NAMES: Key = Key::new(
    Some("gateway.loopback_names"),
    &["GATEWAY_LOOPBACK_NAMES"],
    None,
    Fallback::Text("true"),
    "whether the gateway answers for `localhost`, `127.0.0.0/8` and `[::1]`; `false` where agents call it by a name: a request signed for the gateway of their own machine is refused then",
)
.hot()
.boolean();
/// The certificate.
pub const CERT_FILE: Key = Key::new(
    Some("gateway.tls.cert_file"),
    &["GATEWAY_TLS_CERT_FILE"],
    None,
    Fallback::None,
    "absolute path of the certificate agents are shown, then its intermediates (PEM); a new one in its place is taken while the gateway runs",
)
.hot_envoy();
/// Its key.
pub const KEY_FILE: Key = Key::new(
    Some("gateway.tls.key_file"),
    &["GATEWAY_TLS_KEY_FILE"],
    None,
    Fallback::None,
    "absolute path of its private key (PEM)",
)
.hot_envoy();
/// Who may connect.
pub const CLIENT_CA_FILE: Key = Key::new(
    Some("gateway.tls.client_ca_file"),
    &["GATEWAY_TLS_CLIENT_CA_FILE"],
    None,
    Fallback::None,
    "absolute path of the authorities of client certificates (PEM); agents must then show one, and still sign",
)
.hot_envoy();

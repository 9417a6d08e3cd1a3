//! The settings of TLS on the port of agents.

use crate::config::key::Fallback;
use crate::config::key::Key;

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

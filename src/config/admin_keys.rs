//! The settings of who may reach the admin API, and of its TLS; part of [`crate::config::keys::ALL`].

use crate::config::key::Fallback;
use crate::config::key::Key;

/// Who may use the admin API.
pub const ADMIN_ACCESS_MODE: Key = Key::new(
    Some("admin.access_mode"),
    &["GATEWAY_ADMIN_ACCESS_MODE"],
    None,
    Fallback::Text("token"),
    "`token`; `mtls`: a client certificate of `admin.tls.client_names`; `hybrid` and `loopback` also trust direct loopback clients, that is every process of this machine",
)
.choice(&["token", "hybrid", "loopback", "mtls"]);
/// The admin token.
pub const ADMIN_TOKEN: Key = Key::new(
    None,
    &["GATEWAY_ADMIN_TOKEN"],
    None,
    Fallback::Computed("`<data_dir>/admin-token`, minted at the first start"),
    "token of the admin API, at least 16 characters; words of examples (`changeme`) are refused",
);
/// Web pages that may call the admin API.
pub const ALLOWED_ORIGINS: Key = Key::new(
    Some("admin.allowed_origins"),
    &["GATEWAY_ALLOWED_ORIGINS"],
    None,
    Fallback::Computed("`localhost` and `127.0.0.1` with the port of the admin API"),
    "origins (`https://host[:port]`) of web pages that may call the admin API; a list, in the environment with commas",
)
.hot()
.words();
/// Names the admin API answers changes under.
pub const ALLOWED_HOSTS: Key = Key::new(
    Some("admin.allowed_hosts"),
    &["GATEWAY_ADMIN_ALLOWED_HOSTS"],
    None,
    Fallback::Text(""),
    "hosts (`host` or `host:port`) a changing request may name besides the loopback names and the address it came to; a list, in the environment with commas",
)
.hot()
.words();
/// The admin API's certificate.
pub const TLS_CERT_FILE: Key = Key::new(
    Some("admin.tls.cert_file"),
    &["GATEWAY_ADMIN_TLS_CERT_FILE"],
    None,
    Fallback::None,
    "certificate of the admin API and its intermediates (PEM); with it the API speaks TLS alone. A new content counts within two seconds",
);
/// Its private key.
pub const TLS_KEY_FILE: Key = Key::new(
    Some("admin.tls.key_file"),
    &["GATEWAY_ADMIN_TLS_KEY_FILE"],
    None,
    Fallback::None,
    "private key of that certificate (PEM), not readable by others; a new content counts within two seconds",
);
/// Whose client certificates count.
pub const TLS_CLIENT_CA_FILE: Key = Key::new(
    Some("admin.tls.client_ca_file"),
    &["GATEWAY_ADMIN_TLS_CLIENT_CA_FILE"],
    None,
    Fallback::None,
    "authorities of client certificates (PEM); with it every request but `/health*` needs a certificate of `admin.tls.client_names`, in mode `mtls` instead of the token, in the others besides. A new content counts within two seconds",
);
/// Which of them.
pub const TLS_CLIENT_NAMES: Key = Key::new(
    Some("admin.tls.client_names"),
    &["GATEWAY_ADMIN_TLS_CLIENT_NAMES"],
    None,
    Fallback::Text(""),
    "subject alternative names (DNS or URI, exact) of which a client certificate must carry one; a list, in the environment with commas",
)
.words();
/// Whom commands trust.
pub const TLS_CA_FILE: Key = Key::new(
    Some("admin.tls.ca_file"),
    &["GATEWAY_ADMIN_CA_FILE"],
    None,
    Fallback::Computed(
        "the authorities of this system; on this machine also the very certificate of `admin.tls.cert_file`",
    ),
    "authorities (PEM) of the admin API's certificate, for commands that reach it",
);
/// The certificate commands show.
pub const OPERATOR_CERT_FILE: Key = Key::new(
    Some("admin.tls.operator_cert_file"),
    &["GATEWAY_ADMIN_CLIENT_CERT_FILE"],
    None,
    Fallback::None,
    "client certificate (PEM) that commands show to the admin API",
);
/// Its key.
pub const OPERATOR_KEY_FILE: Key = Key::new(
    Some("admin.tls.operator_key_file"),
    &["GATEWAY_ADMIN_CLIENT_KEY_FILE"],
    None,
    Fallback::None,
    "private key of that certificate (PEM)",
);

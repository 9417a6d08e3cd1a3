//! The settings of who may reach the admin API, and of its TLS; part of [`crate::config::keys::ALL`].

use crate::config::key::Fallback;
use crate::config::key::Key;

/// Who may use the admin API.
pub const ADMIN_ACCESS_MODE: Key = Key::new(
    Some("admin.access_mode"),
    &["GATEWAY_ADMIN_ACCESS_MODE"],
    Some("--auth"),
    Fallback::Computed("`token`; `password` where a password is given and no token"),
    "`token`; `password`; `mtls`: a client certificate of `admin.tls.client_names`; `trusted-proxy`: the user a proxy of `admin.trusted_proxies` names; `hybrid`: the token, or any process of this machine; `none` (older name `loopback`): any process of this machine, on loopback only",
)
.choice(&["token", "password", "mtls", "trusted-proxy", "hybrid", "none", "loopback"]);
/// The admin token.
pub const ADMIN_TOKEN: Key = Key::new(
    None,
    &["GATEWAY_ADMIN_TOKEN", "SIGILUM_GATEWAY_TOKEN"],
    None,
    Fallback::Computed("`<data_dir>/admin-token`, minted at the first start"),
    "token of the admin API, at least 16 characters; a shorter one is taken, with a warning, while the admin API listens on loopback alone. Words of examples (`changeme`) are refused",
);
/// The password.
pub const ADMIN_PASSWORD: Key = Key::new(
    None,
    &["SIGILUM_GATEWAY_PASSWORD"],
    None,
    Fallback::None,
    "password of the admin API in modes `password` and, from this machine itself, `trusted-proxy`: at least 12 printable ASCII characters",
);
/// Where it stands.
pub const PASSWORD_FILE: Key = Key::new(
    Some("admin.password_file"),
    &["SIGILUM_GATEWAY_PASSWORD_FILE"],
    Some("--password-file"),
    Fallback::None,
    "absolute path of a file that holds that password, not readable by others; a new content counts with the next request. `SIGILUM_GATEWAY_PASSWORD` goes before it, unless the option names it",
);
/// What opens the metrics alone.
pub const METRICS_TOKEN: Key = Key::new(
    None,
    &["GATEWAY_METRICS_TOKEN"],
    None,
    Fallback::None,
    "token that opens `GET /metrics` and nothing else, in every mode: at least 16 visible ASCII characters, another than what opens the admin API",
);
/// Where it stands.
pub const METRICS_TOKEN_FILE: Key = Key::new(
    Some("admin.metrics_token_file"),
    &["GATEWAY_METRICS_TOKEN_FILE"],
    None,
    Fallback::None,
    "absolute path of a file that holds that token, not readable by others; a new content counts with the next request. `GATEWAY_METRICS_TOKEN` goes before it",
);
/// Whose word counts.
pub const TRUSTED_PROXIES: Key = Key::new(
    Some("admin.trusted_proxies"),
    &["GATEWAY_ADMIN_TRUSTED_PROXIES"],
    None,
    Fallback::Text(""),
    "addresses and networks (`192.0.2.0/24`) of the proxies that mode `trusted-proxy` believes; a list, in the environment with commas",
)
.words();
/// Where they name the user.
pub const PROXY_USER_HEADER: Key = Key::new(
    Some("admin.trusted_proxy.user_header"),
    &["GATEWAY_ADMIN_PROXY_USER_HEADER"],
    None,
    Fallback::None,
    "header in which such a proxy names the user it has authenticated; the proxy must remove it from what clients send",
);
/// What they say besides.
pub const PROXY_REQUIRED_HEADERS: Key = Key::new(
    Some("admin.trusted_proxy.required_headers"),
    &["GATEWAY_ADMIN_PROXY_REQUIRED_HEADERS"],
    None,
    Fallback::Text(""),
    "headers that must be there as well; a list, in the environment with commas",
)
.words();
/// Who may.
pub const PROXY_ALLOW_USERS: Key = Key::new(
    Some("admin.trusted_proxy.allow_users"),
    &["GATEWAY_ADMIN_PROXY_ALLOW_USERS"],
    None,
    Fallback::Text(""),
    "users who may administer, exactly as the proxy writes them; none = each it names. A list, in the environment with commas",
)
.words();
/// Whether one may be here.
pub const PROXY_ALLOW_LOOPBACK: Key = Key::new(
    Some("admin.trusted_proxy.allow_loopback"),
    &["GATEWAY_ADMIN_PROXY_ALLOW_LOOPBACK"],
    None,
    Fallback::Text("false"),
    "whether a trusted proxy may run on this machine: every other process of it could then pose as the proxy",
)
.boolean();
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

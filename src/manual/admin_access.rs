//! Who may use the admin API on :38100, and how that is decided.
//!
//! # The rule
//!
//! Every path but those of health (`/health*`, `/healthz`, `/ready`, `/readyz`) and `/openapi.json` asks who comes, `/metrics` too.
//! A route is in one of the two classes of `admin::router::AuthClass`, from which the router is made; there is no third way to
//! add one. What agents send to :38000 never gets to :38100: no route of Envoy leads there, and no connection may.
//!
//! | mode | who comes in | otherwise, 403 with |
//! | --- | --- | --- |
//! | `token` (default) | the token | `ADMIN_TOKEN_REQUIRED` |
//! | `mtls` | a client certificate with a name of `admin.tls.client_names` | `ADMIN_CERTIFICATE_REQUIRED` |
//! | `password` | the password | `ADMIN_PASSWORD_REQUIRED` |
//! | `trusted-proxy` | the user a trusted proxy names; from this machine itself also the password | `ADMIN_TRUSTED_PROXY_REQUIRED` |
//! | `hybrid` | the token, or a direct client of this machine | `ADMIN_TOKEN_OR_LOOPBACK_REQUIRED` |
//! | `none` (older: `loopback`) | a direct client of this machine | `ADMIN_LOOPBACK_REQUIRED` |
//!
//! Where no mode is set it is `token`, and `password` where a password is given and no token. Both without a mode end with 78:
//! which one opens must not depend on who reads first.
//!
//! The token is in `X-Sigilum-Admin-Token`, or in `Authorization: Bearer`; two of one kind count as none. It is
//! `GATEWAY_ADMIN_TOKEN`, else `SIGILUM_GATEWAY_TOKEN`, where that is set (16 characters at least; fewer, with a
//! warning, while the admin API listens on loopback alone), else the content of `<data_dir>/admin-token`, minted
//! at the first start. A file that others may read is refused, and so is a token that stands in examples (`changeme`,
//! `<your-admin-token>`): everybody knows it.
//!
//! The password is `SIGILUM_GATEWAY_PASSWORD`, else what stands in `admin.password_file` (12 printable characters at least; a
//! group may read the file, nobody else), and is shown in the same two headers. A new content of either file counts with the
//! next request, the old one no longer, and the audit has it; a rotation never changes the mode.
//!
//! # The metrics
//!
//! Whoever collects metrics should not hold what changes connections. `GATEWAY_METRICS_TOKEN`, else what stands in
//! `admin.metrics_token_file`, opens `GET /metrics` in every mode and nothing else: anywhere else it is a wrong token, with the
//! code of the mode, and counts as a guess. It is as long as a token has to be (16 visible characters), in a file like the
//! password's; a new content counts with the next request and the audit has it. What opens the whole API as well is refused as token of
//! the metrics (78). What opens everything goes on opening the metrics. In mode `mtls` it stands for the certificate, so
//! that whoever collects needs none of those that administer; where a certificate is wanted besides what the mode wants, it is wanted
//! here too. There are no more rights than these two: what else would be narrower, health and the description of the API,
//! is open.
//!
//! # In memory
//!
//! Of all of them only an HMAC-SHA256 stays in memory, under a key that each process draws for itself; it is compared in constant
//! time. It is no slow hash. One protects passwords at rest, and we keep none: it comes out of the environment or a file, where
//! it stands in clear for whoever can read it, and in the memory of the process it passes in clear with every request. Over
//! the network what could be guessed is compared once a second. What a slow hash would add is a way to keep us busy.
//!
//! # Trusted proxies
//!
//! In mode `trusted-proxy` a proxy of `admin.trusted_proxies` (addresses, networks) has signed the user in and names them in
//! `admin.trusted_proxy.user_header`; `required_headers` must be there besides, and with `allow_users` only those count. The
//! user is the actor of the audit, before anything the request says of itself. The client's address, for the audit, is
//! counted from the right end of `X-Forwarded-For`, as far as trusted proxies wrote it. A proxy on this machine wants
//! `allow_loopback` as well: any process here could pose as it. Whoever sends from any address the machine has is on it. Why a request was refused is in the log only, as `reason`:
//! `trusted_proxy_untrusted_source`, `trusted_proxy_user_missing`, `trusted_proxy_missing_header_<name>`,
//! `trusted_proxy_user_not_allowed`; the answer says no more than that it was. A token cannot be given in this mode (78): two
//! ways in that look alike would let a leaked token pass for a user. Direct clients of this machine come in with the
//! password, where there is one, so that a broken proxy locks nobody out of the machine. The managed Envoy is no trusted proxy.
//!
//! # Loopback
//!
//! Loopback is not an identity: in the two last modes every process of the machine, agents included, administers the
//! gateway, and the start says so. "Direct" means three things: the peer's address is loopback, the one `Host` names
//! this machine, and no header says that a proxy stood between (`Forwarded`, `Via`, everything that begins with `X-Forwarded`
//! or `CF-`, `CDN-Loop`, and what known proxies call a client's address). What such a header says is never believed, its first
//! entry least of all: `X-Forwarded-For: 127.0.0.1` can only lose its sender the standing of a direct client.
//!
//! No setting switches the rule off: `GATEWAY_REQUIRE_SIGNED_ADMIN_CHECKS=false` stops every start (exit 78).
//!
//! # Whom commands hand the token
//!
//! While the gateway does not run, any user of the machine can listen on its port. So before a command, or the bridge, sends a
//! token that it read from `<data_dir>/admin-token` to an address that nobody gave it, the listener must be of the gateway of
//! that folder: held by a process of `run/instance.json` (known by id and start time) or by the one that holds the store's lock, and of
//! the folder's user or root. Who may not look into the processes of the gateway, because these cannot be looked into by
//! others, goes by the user and by there being such a process. Anybody else is named, nothing is sent, and it ends like a
//! gateway that does not run (exit 5). A port that a container publishes is held by whoever publishes it: name the address
//! there (`--gateway-admin-url`, `GATEWAY_ADMIN_URL`). Where an address or a token is given, the person has decided. The system
//! says who listens on Linux; elsewhere it is looked whether a gateway of the folder runs. Between the look and the
//! connection is a moment in which a gateway could end and somebody else begin to listen.
//!
//! # Open binds
//!
//! A listener that other machines reach is opened only where somebody is asked who comes; otherwise the start ends
//! with exit 78 and `refusing to bind gateway to <ip>:<port> without auth`, before any socket is opened. It is judged with
//! the settings (at a start, by `gateway install`, and when a file is reloaded), again by the supervisor before it takes the ports, and again by `admin` before it binds. Without auth
//! means: mode `none`; mode `password` without one; mode `trusted-proxy` without proxies; a token or password that is set and blank (whoever wrote `GATEWAY_ADMIN_TOKEN=` meant one; on loopback a
//! blank variable counts as unset); a token everybody knows; checks or signatures switched off. An IPv4 address
//! written as IPv6 (`::ffff:127.0.0.1`) counts as open.
//!
//! `gateway.bind` says what a bare port means: `loopback`; `lan`, every IPv4 address; `tailnet`, the machine's address in
//! 100.64.0.0/10 or fd7a:115c:a1e0::/48, which Tailscale gives out, and with none of them loopback, which is said (one of the
//! first block counts on an interface `tailscale*`, or beside one of the second: providers use that block too); `auto`,
//! `lan` in a container, whose loopback nobody outside reaches, and else loopback; `custom`, the address of
//! `gateway.custom_bind_host`; or an address. With `tailnet` and `custom` the same port of 127.0.0.1 is taken as well, which
//! is where commands go; where one of both is not to be had there is no start. The tailnet is looked for at the start.
//!
//! # TLS
//!
//! With `admin.tls.cert_file` and `admin.tls.key_file` the port speaks TLS 1.2 and 1.3 and nothing else. With
//! `admin.tls.client_ca_file` clients are asked for a certificate: in mode `mtls` it stands for the token, in every other
//! mode it is wanted besides. Who shows none gets a conversation, hears 403 `ADMIN_CERTIFICATE_REQUIRED`, and can read
//! `/health`; one of another authority ends the handshake. Names are compared exactly, as DNS names or URIs of the
//! subject alternative names; the subject itself does not count. The name that was proven is the actor of the audit.
//!
//! The files are read every half second. New contents count when two looks in a row see the same and they make a
//! working set (the key fits the certificate, every file is whole); until then the old ones serve on, and what is
//! wrong is logged once. The whole configuration is replaced, so that sessions do not outlive the authorities that
//! vouched for them. A connection on which a client showed a certificate is judged again when files change and every 30
//! seconds, and cut where its authority was withdrawn or its time has passed; the others go on. Looking is cheaper than being told: it works where files are
//! replaced by links (Kubernetes) and on file systems without notices. A key that others can read is refused with
//! the mode to set; a group may read it.
//!
//! A plain HTTP bind on a network is allowed, and both the start and the log say what it means. It is not refused: in a
//! pod or behind a mesh something else encrypts and the gateway cannot see it, while a refusal would be answered by a
//! certificate nobody checks. The token still guards it.
//!
//! Commands of this machine, and the supervisor's looks at health, believe the very certificate that stands in
//! `admin.tls.cert_file`, whatever name it carries: it is reached at 127.0.0.1 and is called otherwise. Any other is
//! believed by the authorities of `admin.tls.ca_file` (else of the system) and by its name. `admin.tls.operator_cert_file`
//! and its key are shown where a client certificate is wanted.
//!
//! `/openapi.json` is open because it is the same for every gateway of a version, is written from the route table at the
//! first request and from nothing else, and is read by whoever writes a client, before there is a token.
//!
//! # Guessing
//!
//! After ten wrong tokens or passwords within 60 s further wrong ones of that client address are answered `429 AUTH_RATE_LIMITED`
//! with `Retry-After`, for 300 s. Knocking on does not prolong it, and no token at all is no guess. IPv6
//! clients count by their /64; 4096 clients are told apart, those beyond are counted together. What is counted outlives a
//! reload, not the process.
//!
//! **The right one is let in all the same.** An address is not a client: behind one NAT, or the address of a node's kube-proxy,
//! a stranger with ten wrong tries would otherwise keep out everybody who has the right one, for as long as the stranger likes. So
//! every token is compared, and what it costs is that the number of guesses has no bound but the network's. It needs
//! none: a token has 16 visible characters at least, a minted one 256 bits, and ten thousand guesses a second would go on for some
//! 10^19 years until a random one of 16 is found. A wrong one is refused as before, at once, and its guesser learns nothing by it
//! but that it is wrong. A shorter token, as somebody may choose one for a gateway on loopback, is compared like a short password.
//!
//! A password may have been made up, and could be found so. From 24 characters on (`openssl rand -base64 18`) it is compared
//! like a token. A shorter one is compared once a second for an address that was wrong too often; what comes in between is
//! refused unseen with `Retry-After: 1`, in the same words as what was compared, so that nobody knows which guesses were
//! judged. Whoever has the right one comes in within a few tries beside a stranger who tries now and then; a stranger
//! who tries all the time keeps others of that address out, who then want a longer password, or another address. The token of
//! the metrics is a token in every mode.
//!
//! Programs of this machine are always compared, and not counted by their address: a guesser here must not lock the operator
//! out, who could read the token's file anyway. Passwords can be guessed, so beyond ten their wrong ones are answered one a
//! second, all programs together (`429`, late), and the right one at once; meanwhile `/health/ready` compares none. That slows
//! a program that waits for its answers; one that opens many connections and takes a late answer for a no is
//! bounded by the connections the API holds. So a password is to be long. A request with an `Origin`, or of somebody a proxy speaks for,
//! is no such program.
//!
//! # Web pages
//!
//! Anything but GET and HEAD, and every request that wants to leave HTTP (`Upgrade`), is judged before anything else of
//! it is looked at or read, on every path:
//!
//! - Its one `Host` must be a loopback name or address, the address it came to, or one of `admin.allowed_hosts`; else
//!   403 `ADMIN_HOST_REFUSED`, and 400 with the same code where there is none, where there are two, or where the first line
//!   says another. A page can point a name of its own at us (DNS rebinding), and is then of "the same origin"; it
//!   cannot make the browser name us. A port is compared where the setting has one.
//! - Where it names an `Origin`, that must be the very host it is sent to, with our scheme, or one of
//!   `admin.allowed_origins`; else 403 `ADMIN_ORIGIN_REFUSED`. Without that setting they are `localhost` and `127.0.0.1` with
//!   the port really listened on. A preflight (`OPTIONS`) is answered 204 for any page; its headers say what is allowed.
//!
//! A GET of another host is answered: it changes nothing, wants the token, and in the modes that trust the machine its
//! `Host` must be loopback. Bodies must be `application/json`, which no form can say without being asked first. Other
//! origins get no CORS headers, so a page cannot read what it was answered.
//!
//! # Bounds
//!
//! 256 connections, of which the oldest on which nobody was let in makes room for the next; 5 s for a TLS handshake, 5 s for
//! a request's head of at most 64 KiB, 15 s for a body of at most 2 MiB, 20 s for a request in all; ten minutes for what goes over
//! the whole store (`/api/admin/store/…`) and for reloads, which are done in any case once they have begun. Values of secrets are written and never
//! read back: no answer holds one.

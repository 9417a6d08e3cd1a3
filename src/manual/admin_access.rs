//! Who may use the admin API on :38100, and how that is decided.
//!
//! # The token
//!
//! Every path but `/health`, `/health/live`, `/health/ready` and `/openapi.json` wants the admin token, `/metrics` too: in
//! `X-Sigilum-Admin-Token`, or as `Authorization: Bearer`. It is `GATEWAY_ADMIN_TOKEN` where that is set (16 characters at
//! least), else the content of `<data_dir>/admin-token`, minted at the first start. A file that others may read is
//! refused. Tokens are compared in constant time.
//!
//! | mode | who comes in | otherwise, 403 with |
//! | --- | --- | --- |
//! | `token` (default) | the token | `ADMIN_TOKEN_REQUIRED` |
//! | `hybrid` | the token, or a direct client of this machine | `ADMIN_TOKEN_OR_LOOPBACK_REQUIRED` |
//! | `loopback` | a direct client of this machine | `ADMIN_LOOPBACK_REQUIRED` |
//!
//! Loopback is not an identity: in the two last modes every process of the machine, agents included, administers the
//! gateway, and the start says so. "Direct" means three things: the peer's address is loopback, the one
//! `Host` names this machine, and no header says that a proxy stood between.
//!
//! A bind that is not loopback is refused in `loopback`; the API speaks plain HTTP, so whoever binds it to a
//! network puts TLS in front.
//!
//! `/openapi.json` is open because it is the same for every gateway of a version, is written from the route table at the
//! first request and from nothing else, and is read by whoever writes a client, before there is a token.
//!
//! # Guessing
//!
//! A client address may show ten wrong tokens at once and one more every six seconds; beyond that it is answered
//! `429 AUTH_RATE_LIMITED` without a comparison. IPv6 clients count by their /64. The addresses of this machine are
//! always compared: a guesser here must not lock the operator out.
//!
//! # Web pages
//!
//! A changing request (anything but GET, HEAD and OPTIONS) that names an `Origin` must come from one on the list
//! (`admin.allowed_origins`), or from the very host it is sent to where that host is an address or this machine. A name
//! may belong to whoever made the page and merely point here (DNS rebinding), so it does not count. Bodies must
//! be `application/json`, which no form can say without being asked first. Other origins get no CORS headers, so a
//! page cannot read what it was answered.
//!
//! # Bounds
//!
//! 256 connections, 5 s for a request's head of at most 64 KiB, 15 s for a body of at most 2 MiB, 20 s for a request
//! in all. Values of secrets are written and never read back: no answer holds one.

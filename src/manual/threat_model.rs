//! Who may do what, who might try more, and what stands in the way.
//!
//! # What is worth stealing
//!
//! The providers' credentials. They exist in clear in three places: in the memory of `admin` while it
//! reads or writes one, in the memory of `authz`, and in the one request that Envoy is forwarding.
//! They exist sealed in the database. They exist nowhere else: not in Envoy's configuration,
//! statistics, access log or `config_dump`, not in argv or in the environment of a child, not in a log
//! line, a metric, an error body or a core dump. A test plants a canary and looks for it in all of them.
//!
//! # Who might try
//!
//! **A stranger on the network.** Certificates are self-signed, so anybody can sign *something*. Before
//! a stranger costs us an Ed25519 verification, a token bucket shared by all strangers pays for it. A stranger never
//! enters the replay window, which only holds nonces of genuine requests of approved keys, and has no
//! body buffered: the *head* check refuses on the headers, before Envoy reads on. Who names the key of
//! an approved agent and fails pays from the account of their address; a certificate that has come with a
//! genuine request has an account of its own there, so that made-up ones lock nobody out, not even
//! where all clients share an address.
//!
//! **Somebody who saw a signed request.** The signature covers method, target, body digest and
//! identity; the authority is part of the target and must be ours, so a request signed for another
//! host does not verify here. The nonce is admitted once, and once it is, the *head* check refuses the
//! request before its body is read. The window never evicts: an evicting cache
//! is the replay attack. It fills to a stated capacity and then refuses.
//!
//! **An approved agent that wants more.** It reaches the connections it is approved for, and of those
//! the methods and paths their owner allows. Dot segments (encoded, with blanks, in overlong
//! UTF-8), backslashes and control bytes are refused before a path is joined to a base path, and what
//! was verified is what is sent:
//! the decision writes the whole upstream request line, Envoy normalises nothing. `Connection:
//! authorization` strips nothing, because the injected header is set after the client's hop-by-hop
//! headers are gone. No signature covers the headers by which frameworks take a request for another:
//! of another path or host (`X-Original-URL`, `X-Host`) they are removed, of another method
//! (`X-HTTP-Method-Override`) refused where the connection does not allow that method.
//!
//! **A connection that points inwards.** Upstream addresses are judged when a connection is saved and
//! again by Envoy at the moment of connecting, on the resolved address: link-local, metadata,
//! unspecified, multicast, mapped and translated forms and our own listeners are refused always, private
//! addresses unless the connection says otherwise. DNS rebinding meets the second check.
//!
//! **A page in the operator's browser.** The admin API wants a token on every call. Loopback is not an
//! identity. `Host` and `Origin` are checked, bodies must be JSON by content type.
//!
//! **A control plane that relays.** Through a pairing it writes requests to the admin API with the gateway's own token on them,
//! and it serves the page that people type secrets into. So it is an operator that must learn no secret that did not come
//! through it in clear. Secrets that are sealed in the browser are ciphertext to it, bound to the connection, the name,
//! everything that says where and how they are sent, and the version they follow
//! ([`Destination`](crate::domain::sealing::Destination)): a recorded one opens for nothing else, and not again after the next. A hosted page may still send them in clear; the audit then says `plain`. Anybody can
//! seal, so a sealed value proves nothing of who sent it, and the rules below hold for both forms. They follow one sentence: *a relayed
//! request gives secrets and takes them away, and never changes where or how one goes that is there.*
//!
//! - `PATCH` refuses what would differ in `base_url`, `path_prefix` (many live behind one address), `mcp_endpoint`, `auth_mode`,
//!   `auth_header_name`, `auth_prefix` (a header that a provider repeats shows the secret to the agent), `auth_secret_key` (one that
//!   was never meant to be sent), `extra_headers` (what proxies route by), and what would open `allow_private` or
//!   `allow_set_cookie`. Members sent as they are do not count. Name, status, rotation, timeouts, tool policies, methods and paths
//!   may change: the control plane decides already which agents are approved.
//! - No `{{VARIABLE}}` comes into a connection, by creation or rotation: a connection of the relay's own making would carry the
//!   variable's value to it. Its value may be set; it goes where the operator said.
//! - A new connection opens no private address and has no MCP endpoint elsewhere, no `extra_headers` and no `allow_set_cookie`, which
//!   are no part of what is sealed.
//! - A test is a `GET` or `HEAD` with nothing but a path, or the one that this version's own catalog has for that very provider. Of a
//!   failure the status is told and no word of the provider's, which might repeat the credential in a form nobody looks for.
//! - Templates of the catalog may be added and described, but none taken away and none led elsewhere, because commands on the
//!   machine make connections from them. Which variables they read and how they test belongs to that, and no template makes them
//!   read a variable of the gateway's own. A template that is made or changed in anything, its id and its words included, names no
//!   variable at all: an import on the machine looks for variables by these names, and would move one of the relay's choice into a
//!   connection at an address of its choice. The templates of this version keep theirs as long as they are left as they are.
//! - Keys found in OpenClaw's files become variables and connections of this version's own templates, not of the catalog's file, and
//!   never of a connection that is named.
//! - Rekey, backup, reload, the audit, and another sealing key are none of its business.
//!
//! What remains possible to it: to replace a secret by one of its own, so that agents work in its account at the
//! provider; to delete, disable, and exhaust; to make connections of its own to any address that the gateway's settings allow (loopback
//! too, where they do) and to learn by tests which of those answer, and with what status; to use any `GET` below a connection's
//! base URL once without its answer; to add a template that somebody then chooses; to read what the API shows (names, addresses,
//! prefixes of service keys, masked ends of keys in files). And to serve a page that does not seal, or seals to a key of its
//! own: against that stands the fingerprint, which the gateway's machine shows (`gateway sealing-key show`, `gateway pair`) and a
//! person compares. Who does not trust the control plane that far does not pair, or runs `sigilum api`.
//!
//! **Another local process.** The sockets of `authz` and `admin` answer to the process they were made
//! for: the kernel says who is at the other end (`SO_PEERCRED`), and under `gateway start` it must be
//! the very process that was started. A run or data folder that another user owns or everybody may
//! write to is refused: what lies in it says which processes to end and what Envoy runs with. Secret files are read
//! through links of ours and of root's alone, and programs run where nobody else can exchange them. What runs
//! under our own user id, or as root, can read our memory; against that only another user helps.
//!
//! # What every failure ends in
//!
//! A refusal. There is no setting that opens the gate: `failure_mode_allow` is false in every Envoy
//! file and a test holds it there; the two settings of older gateways that would have opened it stop the start.

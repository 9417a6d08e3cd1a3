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

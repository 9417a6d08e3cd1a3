//! How a request becomes a verdict, and which code names what stood in the way.
//!
//! [`crate::gate::Gate::decide`] is synchronous and knows no clock, no disk and no network: request, snapshot and
//! moment are arguments. The first step that objects names the reason.
//!
//! | step | what | refused with |
//! | --- | --- | --- |
//! | 1 | the authority is one of ours | `AUTH_AUTHORITY_NOT_ACCEPTED`; malformed: `AUTH_HEADERS_INVALID` |
//! | 2 | the raw path names a connection and a remainder | 404 `NOT_FOUND`, 405 `METHOD_NOT_ALLOWED`, 400 without a code for dot segments, backslashes and control bytes |
//! | 3, 4 | headers once each, signature input, component set, age | `AUTH_HEADERS_INVALID`, `AUTH_SIGNATURE_INVALID`, `AUTH_NONCE_INVALID` |
//! | 5 | the certificate is signed by its own key and in force; identity headers, key id and certificate agree | `AUTH_SIGNATURE_INVALID`, `AUTH_IDENTITY_INVALID` |
//! | 6 | the body is the one that was signed (*body* stage) | `AUTH_SIGNATURE_INVALID`; not shown to us: `AUTH_BODY_NOT_VISIBLE`; 413 `REQUEST_BODY_TOO_LARGE` |
//! | 7 | the signature, strict; see [`verification`](super::verification) | `AUTH_SIGNATURE_INVALID` |
//! | 8 | an approval of (namespace, key, service) that is fresh | `AUTH_CLAIM_REQUIRED`, `AUTH_CLAIMS_LOOKUP_FAILED`; 404 only to a key approved for a name no connection has |
//! | 9 | the connection is active and usable, allows method, path and upgrade, its secret is not overdue | 400 without a code, `METHOD_OR_PATH_FORBIDDEN`, `ROTATION_REQUIRED` |
//! | 10 | the nonce is new, and written down | `AUTH_REPLAY_DETECTED`, `REPLAY_WINDOW_FULL`, `REPLAY_WINDOW_STARTING` |
//! | 11 | the plan: request line, credential, cluster, headers, timeouts | |
//!
//! Before all of them: `GATEWAY_DRAINING` while the process leaves, `NOT_READY` while it has no state, 431
//! `REQUEST_HEADERS_TOO_LARGE` for more than 100 header fields or 64 KiB of them. What goes wrong
//! on our side is `AUTHZ_UNAVAILABLE`. Codes and statuses stand in one table,
//! [`crate::domain::decision::DenyReason::wire`].
//!
//! # What a request has room for
//!
//! Envoy applies its two limits of a header section when it receives a request, and again to what the decision makes of
//! it; what fails then is refused with its nonce used. So Envoy's limits (200 fields, 160 KiB) are above the client's, which
//! are judged here. They hold 100 fields of the client, those of Envoy, and the most a plan can set: five of its own, 64
//! extra headers and a credential; in bytes the longest path, authority and credential. Extra headers may be longer than
//! that together. Therefore each plan is measured before step 10, and one that does not fit is refused with the same code.
//! Somebody else's Envoy says its limits in `context_extensions` (`max_headers_count`, `max_request_headers_kb`); where it
//! does not, it is taken to have the defaults, 100 fields and 60 KiB, its own and the decision's among them.
//!
//! # Two stages
//!
//! Envoy asks twice where a request may have a body: *head* with the headers alone, *body* with the body. *head* runs
//! steps 1 to 9 without the digest and answers "go on" or a refusal; it admits no nonce and carries no credential, so
//! leaving it out opens nothing. *body* runs everything. It does not verify the same signature again: *head* leaves a
//! keyed 128-bit hash of what it verified, and *body* takes it away. A hash that is lost costs a verification.
//!
//! # Registration
//!
//! Where step 8 misses an approval, the connection exists and the caller is of the gateway's own namespace, `authz` asks
//! `admin` over the state stream to register the caller with the control plane (`GATEWAY_AUTO_REGISTER_CLAIMS`). The
//! refusal waits at most 300 ms (less where the calling Envoy waits less than 400 ms) for what became of it, and at most 32 refusals wait at a time; the others are told at once what
//! is known. One registration is under way per (key, namespace, service), 64 in all; an answer stands for 30 s, a failure for
//! 5 s, so an agent that polls does not submit with each request; 4,096 outcomes are remembered, in two
//! generations. The wait is a timer and a channel: no lock is held, and no other request is behind it.
//!
//! Namespaces of certificates are self-asserted, so anybody may pretend to be of ours and fill these bounds, at the rate
//! strangers have (below). What that costs is that others are registered later; nobody gets in by it.
//!
//! # Who pays
//!
//! Certificates are self-signed, so a stranger can make us verify. Keys without any approval share one token bucket
//! (`limits.stranger_rate_per_second`), charged before the first verification; beyond it, `429 AUTH_RATE_LIMITED`. What
//! fails under an approved key counts against the client's address (50 a second in the long run, 200 at once), never
//! against the key: keys are public, and a forger must not lock their owner out.
//!
//! # Replay
//!
//! The one step with an effect is the last, so only genuine requests of approved agents enter the window. An entry
//! lives until `created` + maximum age + 5 s of skew. The window has a capacity and refuses when it is full; one key may
//! hold a quarter. The admission is in the journal before the answer leaves; the format is in
//! [`store_format`](super::store_format).
//!
//! What is signed says the wall clock's time, and that clock may be wrong for a while. Entries expire by the monotonic clock, for
//! their whole age however old the request was, so a clock that leaps ahead forgets nothing. Where it steps back by more than
//! the skew, what is signed up to ten seconds later is refused (`REPLAY_WINDOW_STARTING`; not ready meanwhile, and said in the log),
//! and entries stay for as much longer as it stepped, at most once their age. A property test holds
//! that no steps whatever let a used request pass again within the age that is accepted, by time that passes. What they can: a
//! request signed and used while agent and gateway were both ahead by more than that age is good once more when the right
//! time gets there. Refusing until then would close the gate for as long as a clock was ahead, for a moment.
//!
//! A start without a journal refuses what is signed up to the skew later, once and not twice as a shared window does: it is the
//! same clock that accepted and that began. A pod that moves to a node whose clock is behind has up to five seconds
//! less; `gateway start` in a fresh folder would take five seconds longer each time.
//!
//! # Freshness
//!
//! Approvals declared in `gateway.yaml` do not age. Those of the Sigilum API hold for `claims.ttl_seconds` (30) plus
//! `gateway.claims_grace` since `admin` last confirmed their service, by this process's own monotonic clock. A
//! confirmation is as old as the *beginning* of the reading it comes from, or as the sign of life of the stream of changes.
//! So a restart of `admin` interrupts nobody, and an outage of it or of the API longer than that stops what claims approved,
//! and only that. A service that has a claims source of which nothing is known, or nothing recent, is
//! `AUTH_CLAIMS_LOOKUP_FAILED`; one without a claims source is judged by declared approvals alone.

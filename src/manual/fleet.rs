//! Several replicas: who is sent what, one memory of nonces, certificates that change, and an admin that is away.
//!
//! # What a workload is sent
//!
//! The state carries secrets, so a sidecar is sent its own. Over TCP the state stream speaks mutual TLS alone; which of
//! the `workloads` has a name (DNS or URI) of the client's certificate decides what is sent, and a certificate no workload
//! names is sent nothing. Over the Unix socket, where the kernel says who asks, everything is sent as before. A message is
//! made for one scope: full states are gathered by it, deltas and confirmations are filtered by it, and a property test
//! holds that a scoped replica is always the filter of the whole and that no byte of another workload's connection was ever
//! in a message. When workloads change, those concerned are sent their full state anew, in which what they may not have any
//! more is missing. A stream that begins with a certificate never resumes on what was sent before, because that may have been
//! another scope. What all are sent are the settings of the decision, the headers for a collector of traces among them.
//!
//! # One memory of nonces
//!
//! A request may be used once, wherever it arrives. Two processes that decide for one connection therefore must share what
//! they remember, and `admin`, which sees all streams, holds them to it: every authz says which memory it decides with, and one
//! whose memory is not that of another with a connection in common is refused (`FAILED_PRECONDITION`, condition
//! `ReplayShared`). It drops the state it may have had and answers `NOT_READY`. Whoever came first stays. A window without a
//! shared store is named by its journal, so that a restart or a hand-off in one run folder is the same window. A Deployment
//! with a window of its own must be replaced with `strategy: Recreate`: a second pod is refused as long as the first lives.
//! What this does not catch is an authz that admin does not see: cut off, it goes on with its last state.
//!
//! The store is Valkey or Redis. One round trip asks for the memory's mark and sets the nonce where it is not set (`MULTI`,
//! `GET`, `SET NX PX`). The window of the process and its journal stay in front, so that a replay at the same replica costs
//! no trip, and a key that holds its share of the window is refused before the store hears of it.
//!
//! - *The key* is 16 bytes of SHA-256 over the agent's public key and the nonce, with a prefix of its own. Not a keyed hash,
//!   as in the window of one process: every replica would have to be given one secret more. That hash guards a table whose
//!   slots an attacker could aim at; here the whole 16 bytes are the key, a collision is 2^64 hashes of work, and all it does is to
//!   refuse a request of whoever looked for it.
//! - *The life* is until `created` + maximum age + skew, and the skew once more, because it runs by the clock of the replica that
//!   asks while another may be as far behind as this one is ahead.
//! - *A store that forgot* is worse than none. Its memory has a mark, `sigilum1:memory:<run id>`, written once by whoever came first
//!   after the server's start, with the time. The run id is another after each start, so a server that comes back with an old
//!   dump has a new memory; an emptied one has no mark. Either way, what was signed until the memory began and five seconds
//!   later is refused (`REPLAY_WINDOW_STARTING`), as after a start without a journal.
//! - *A store that may evict* is refused: `maxmemory-policy` must be `noeviction`, looked at every second.
//! - *No answer* within 50 ms, an error, no connection: refused with `AUTHZ_UNAVAILABLE`, counted as
//!   `REPLAY_STORE_UNAVAILABLE`. A nonce whose answer was late may be used up; the client signs anew.
//! - *What it needs*: `AUTH`, `SELECT`, `INFO`, `GET`, `SET`, `MULTI`, `EXEC` on keys that begin with `sigilum1:`. Not a cluster: one
//!   server and, where it fails over to another, that one's memory has begun anew.
//!
//! With the store a new replica needs no journal: what was used before it began is known there, so it serves at once.
//!
//! # Certificates
//!
//! Those of the state stream and of the link between Envoy and authz are read anew as those of the admin API are
//! ([`rotating`](crate::sys::tls::rotating)): twice a second, counting when two looks agree and make a working set; a broken new
//! file keeps the old and says so. Every connection keeps the chain it was built with and is judged again when files change
//! and every 30 seconds: one whose authority was withdrawn, or whose time has passed, is cut, not drained. An authz opens its
//! stream anew when its own files change. A certificate of ours that is past its time stops a start (exit 78, the file
//! named); while running it is one line of the log, and connections that rely on it are refused and ended.
//!
//! An end is told of before it comes: when two weeks are left, or a fifth of its time where it holds for less than ten, which is after
//! whoever renews certificates should have. Then the log of its process says so once, `sigilum health --authz` says how many
//! days are left, and admin, which sees what an authz shows, names it in the condition `StateCertificates`. An authz whose
//! certificate has ended is without admin: it keeps its last state and decides by it, as when admin is away, and is ready. Its
//! health check says why, and admin names it for a day, or until it comes again. It is not made unready, because all replicas of
//! a workload have one certificate: their end would be that of every request.
//!
//! # An admin that is away
//!
//! Declared approvals go on, claims for their TTL and grace. The health Envoy asks (`envoy.service.auth.v3.Authorization`)
//! stays `SERVING`, because decisions are right; that of `sigilum.gateway.v1.StateService` says whether admin speaks to this authz.
//! `sigilum health --authz ENDPOINT` asks both: exit code and readiness go by the first, the line it prints says when admin is away.
//! A probe that went by the second would turn an outage of admin into one of every pod.

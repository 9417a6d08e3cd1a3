//! Several replicas: who is sent what, one memory of nonces, certificates that change, and an admin that is away.
//!
//! # What a workload is sent
//!
//! The state carries secrets, so a sidecar is sent its own. Over TCP the state stream speaks mutual TLS alone; which of
//! the `workloads` has a name (DNS or URI) of the client's certificate decides what is sent. A certificate no workload
//! names is sent nothing, the settings neither: its stream ends with `PERMISSION_DENIED` before it takes a place, so that
//! nothing it says counts in health or metrics, and one that is named no more drops what it had. Of 256 places those with the same
//! names in their certificates may take 64. Over the Unix socket, where the kernel says who asks, everything is sent as before. A message is
//! made for one scope: full states are gathered by it, deltas and confirmations are filtered by it, and a property test
//! holds that a scoped replica is always the filter of the whole and that no byte of another workload's connection was ever
//! in a message. When workloads change, those concerned are sent their full state anew, in which what they may not have any
//! more is missing. A stream that begins with a certificate never resumes on what was sent before, because that may have been
//! another scope. What all that are named are sent are the settings of the decision, the headers for a collector of traces among them.
//!
//! A connection to this listener, and to authz, whose other end has proven nothing yet is closed when its place is wanted, the
//! oldest first, so that idle connections of strangers keep nobody out; refused ones are told at most every ten seconds. A good
//! certificate is no exception: with it a connection is let in when its first request comes, and is closed after five seconds without one.
//! An authz opens its stream with its connection and gives both up together, so a connection for the state is also closed when it
//! has had no stream for five seconds; Envoy's connections rest between two checks, and only the first is waited for. They are ended with
//! HTTP/2's own word, so that a check that comes at that moment is decided. Connections with the same names in their certificates may take
//! 128 of the 1024 places for the state, and at each thread of authz half of them, because all Envoys may have one certificate.
//!
//! # What an authz of another host may say
//!
//! One of this machine was started by whoever started admin. One of another host has a workload's certificate, and whoever took that
//! over says what he likes. It must change nothing for others:
//!
//! - *Readiness* (`XdsInSync` of `authz`, `NonceStore`) goes by those of this machine wherever there is one, was one, or admin runs Envoy.
//!   Where all are elsewhere it goes by what they say together: a window that cannot be asked, a full one, one that is young count
//!   when every one of them says so, and one that is current and ready is enough. `authz_ready`, which wakes somebody, counts the same ones.
//! - *By name* (`RemoteAuthz`, advisory): each that says something is wrong with it, eight of them in the message. A start is nothing wrong.
//! - *What it hides*: one that calls itself well is not named, and where all others are elsewhere too and unwell it alone keeps
//!   readiness `True`; the others are named all the same.
//! - *Names*: what it calls itself stands behind the first name in its certificate, which it cannot choose.
//! - *Counters* (`auth_allow_total`, `auth_reject_total`, `decision_seconds`, `replay_entries`, and the decisions of `status`) are sums of what
//!   all say, so one can spoil them. No critical alert goes by them. By `node` are `authz_lag_versions`, `authz_replay_used_ratio` and the
//!   numbers of its process.
//! - *A flood*: of a stream 100 words a second are read (200 at once), of reports and refusals five (ten at once). What is beyond waits
//!   at its own end, by HTTP/2's flow control. Refused messages are one line of the log in ten seconds, of all streams together.
//!
//! # One memory of nonces
//!
//! A request may be used once, wherever it arrives. What it is signed for keeps gateways that share no window apart, and loopback
//! names do not: they are every machine's own. Where agents of other machines come in by a name, `gateway.loopback_names: false` refuses
//! a request that was signed for, and used at, the gateway beside an application. They are accepted by default whatever the
//! gateway binds, because a port that is bound on all addresses is called by them too: on the machine itself, and where a
//! container's port is published on it.
//!
//! Two processes that decide for one connection therefore must share what
//! they remember, and `admin`, which sees all streams, holds them to it: every authz says which memory it decides with, and of two
//! with different memories one decides for the connections they have in common (condition `ReplayShared`): the one that
//! decides for more connections in all, and with as many the one that came first; one that cannot ask its shared window comes last, since
//! the others may have another memory by then. The other keeps what is its own alone; where
//! that is nothing it is refused (`FAILED_PRECONDITION`), drops its state and answers `NOT_READY`. First come first served for all
//! would let whoever has one sidecar's certificate connect first after a restart of `admin` and stop the gateway of all others; a
//! clash of two takes from nobody what they do not share. A window without a
//! shared store is named by its journal, so that a restart or a hand-off in one run folder is the same window. A Deployment
//! with a window of its own must be replaced with `strategy: Recreate`: a second pod is refused as long as the first lives.
//!
//! A connection is given on in a fixed order: whoever had it is sent a state without it, and only when it has acknowledged that, or its
//! stream has ended, the other is sent it. One that is to decide for nothing at all is sent an empty state first and then the refusal, because
//! nobody acknowledges the end of a stream. Until then a newcomer has no state (`NOT_READY`), and one that streams already keeps the rest. After
//! five seconds without a word, which is also what a stream on which something was refused counts as, the other is sent it in any case: a stolen certificate must hold nobody up for longer. So
//! the two overlap
//!
//! - not at all where the one that is displaced hears and answers within five seconds;
//! - where it is connected and deaf (it reads nothing, and its HTTP/2 answers pings), from the sixth second for as long as that lasts. One whose
//!   process stands still decides nothing meanwhile, and admin cuts it after 30 seconds;
//! - where its link is lost, from the moment admin notices (30 seconds at most) until it reaches admin again, which it tries every five seconds
//!   and at which it is refused. Until then it goes on with its last state, as whenever admin is away: what claims approve for their TTL and
//!   grace since the last confirmation (30 seconds by default), what the file declares without an end. There is no lease on a state;
//!   whoever wants one puts a shared window behind both.
//!
//! In an overlap one signed request can be used once at each of the two, while it is young enough (`limits.max_age_seconds` and the skew).
//! What admin does not see at all it cannot hold to anything.
//!
//! What is said over the network to one that is refused names no other workload; the log and readiness of `admin` name both.
//! One that refuses what it is sent gets the full state again, once a second at most, and its stream ends with the third in a row.
//!
//! Whoever follows does not know what was used before. A connection that is given to another window than the one that decided
//! for it last (that one left, `workloads` moved it, somebody with more came) therefore comes with how long ago that was, and its authz
//! refuses requests for it signed until then and ten seconds later (`REPLAY_WINDOW_STARTING`), before it uses a nonce; for
//! its other connections it goes on. Where that is all of them it is not ready for as long.
//!
//! - *An age, not a time of day*: it is counted back from the clock of the authz that judges, as ages of claims are. The clock of
//!   admin, which neither accepted a signature nor judges one, has no part in it. Ten seconds are the skew twice, as below.
//! - *What is remembered*: by connection the last window, and when it was given it, for as long as a request may be used again (the
//!   maximum age and the skew three times). The same window is told the same again, whichever process has it: a restart with a journal
//!   knows no more than the process before. Who shares a window follows nobody.
//! - *After a restart of admin* nothing is remembered. What it says of connections there were already then counts for those
//!   who do not hold them: an authz that does has decided until now, and only it knows which it holds. One of another host
//!   that is new, or is given one more, waits ten seconds; connections made since had nobody. The authz of this machine waits for
//!   nothing: it is one, its journal is under a lock, and without a journal it begins with a floor of its own. So
//!   `gateway restart`, a hand-off and a new connection take as long as without this.
//! - *What remains*: two that both hold a connection when admin begins, because one was cut off while the other was given it.
//!
//! The store is Valkey or Redis. One round trip asks for the memory's mark and the time and sets the nonce where it is not set
//! (`MULTI`, `GET`, `SET NX PX`, `TIME`). The window of the process and its journal stay in front, so that a replay at the same replica costs
//! no trip, and a key that holds its share of the window is refused before the store hears of it.
//!
//! - *The key* is 16 bytes of SHA-256 over the agent's public key and the nonce, with a prefix of its own. Not a keyed hash,
//!   as in the window of one process: every replica would have to be given one secret more. That hash guards a table whose
//!   slots an attacker could aim at; here the whole 16 bytes are the key, a collision is 2^64 hashes of work, and all it does is to
//!   refuse a request of whoever looked for it.
//! - *The mark* of the memory, `sigilum1:memory:<run id>`, is written by whoever came first after the server's start: when that was
//!   by the server's clock, an id, and for how old a signature nonces are kept ([`mark`](crate::domain::replay::mark)). The nonce is set only where the mark
//!   is still the one that was read, in the same transaction.
//! - *The life* is until `created` + the age in the mark + skew, and the skew twice more, because the replica that asks may be as far
//!   ahead of the store's clock as another is behind it. The age is that of the mark and not of the replica's own settings: the
//!   settings may be raised later, and a replica that starts then cannot know what they were. It begins at 300 s, or higher where the
//!   settings are, and never falls while the memory lasts. Whoever accepts older signatures than that raises it, and writes down when:
//!   what was signed until then and the skew twice later is known for the shorter age alone, and refused when it is older. A
//!   memory begun anew would be simpler, and would refuse everybody for ten seconds.
//! - *A store that forgot* is worse than none. The run id is another after each start, so a server that comes back with an old
//!   dump has a new memory; an emptied one has no mark. Either way, what was signed until the memory began and ten seconds
//!   later is refused (`REPLAY_WINDOW_STARTING`). Ten, the skew twice: a signature may be ahead of
//!   the replica that accepted it, and that one's clock ahead of the store's.
//! - *A store that was another for a while* has forgotten too. Replication loses what was written last, and brings marks and run id
//!   back unchanged where a server is demoted and promoted again. So a memory is known by the run id *and* by the server's
//!   replication id (`master_replid`), which is another after each promotion; its first digits stand behind the mark's id. Only a
//!   server whose role is `master` is asked, which is looked at every second. Redis takes another replication id also where a first
//!   replica is attached, and an hour after the last one left: ten seconds each. A mark of an earlier version of ours, which says
//!   nothing of it, is taken over as it is.
//! - *Clocks*. What the store remembers it forgets by its own clock, so each answer is held against ours: further apart than the skew
//!   (5 s), and the answer counts for nothing, the replica is not ready (`health --authz` says why, the log by how many seconds), and
//!   asks each second whether it is over. A replica whose own clock is wrong is thereby out as well, and writes no mark: one that is
//!   behind could let in what was signed and used meanwhile. Where the store's clock has stepped against our monotonic one by more than the
//!   skew, its memory begins anew when it is right again, because some of it may have expired early. Nobody notices a step
//!   while no replica runs, and within the second between two looks only whoever asks.
//! - *A mark that cannot be* (later than now and the skew, an age above a day, not ours) is not believed, and not replaced: a clock was
//!   wrong, or somebody else writes there. Every replica refuses until the store is emptied or started anew. No mark is ever
//!   replaced by one that began earlier.
//! - *A store that may evict* is refused: `maxmemory-policy` must be `noeviction`, looked at every second; one that does not tell
//!   it is refused too.
//! - *No answer* within 50 ms, an error, no connection: refused with `AUTHZ_UNAVAILABLE`, counted as
//!   `REPLAY_STORE_UNAVAILABLE`. A nonce whose answer was late may be used up; the client signs anew.
//! - *What it needs*: `INFO`, `TIME`, `GET`, `SET`, `MULTI`, `EXEC` (and `SELECT` for a database other than 0) on keys that begin with
//!   `sigilum1:`. `deploy/k8s/shared` has a user that may do that and nothing else: neither list nor delete keys, nor change settings.
//!   Its password is as good as a replay all the same, **of everybody's requests**: `SET` with a life of a millisecond forgets what was
//!   used, also for connections that whoever has the password is not entitled to, and a mark that cannot be closes the gate
//!   for all. So whoever shares the window must be trusted with all that is decided by it: the replicas of one data plane are, a
//!   sidecar is not, and has a window of its own (`deploy/k8s/sidecar` names none). Workloads that do not trust one another want a
//!   store each. A program in the server (a function, a script) could not mend that: it runs with the rights of who calls it, so the
//!   user would need `SET` all the same (tried with Redis 7.0). Not a cluster: one
//!   server and, where it fails over to another, that one's memory has begun anew.
//! - *Another store* does not know what was used at the one before, and its mark says when its memory began, not when this gateway
//!   came to it. Changing the address, or beginning to share a window, therefore is: stop every authz, wait for
//!   `limits.max_age_seconds` and ten seconds, start them with the new address. Two at once are refused as two windows. Not a name kept
//!   beside the journal: a pod's folder is new with each pod, and a replica without a name could not tell a changed store from
//!   its first start, at which it is to serve at once.
//! - *No shared window any more*: the journal of a replica that shared one is not all that was used, and its headers say so. Started
//!   without the store it refuses what was signed before, as without a journal.
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
//! The health of the whole server (no name) says whether a request signed now would be decided, which is looked at ten times a
//! second and goes both ways: not without a state, not while admissions cannot be written down, not while a replay window is young,
//! not while the shared store is away. Envoy's is `NOT_SERVING` for want of a state, in a drain, and where the journal cannot be
//! written to, alone: where the window is what is missing, the answer to a check says so. No liveness probe goes by either.
//! `sigilum health --authz ENDPOINT` asks for the whole server and for the stream: exit code and readiness go by the first, the line
//! it prints says when admin is away. So an outage of the store makes every replica unready; they refuse everything anyway, and a
//! rollout stops at the first replica that cannot reach it.
//! A probe that went by the second would turn an outage of admin into one of every pod.

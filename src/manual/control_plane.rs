//! The local control plane (`sigilum api`), and what it decides where the hosted API leaves room.
//!
//! # Who is asked for what
//!
//! Paths under `/v1/` and `/.well-known/` are signed unless they are listed as open or as the owner's (token): a path nobody
//! thought of is refused with 401, not served. The check is the gateway's ([`crate::domain::signature::received`]), with component sets A
//! and B, in the order and with the codes of the hosted API. A request must be addressed to loopback or to an origin of
//! `API_PUBLIC_URL`: what somebody signed for another host is `403 AUTHORITY_NOT_ACCEPTED`. `/health` alone is exempt, so that probes
//! may use any name.
//!
//! Nonces are kept in the database, so a restart forgets none; by namespace, key and nonce, and only once the signature has been
//! verified. A full table refuses (503), it never evicts. Callers without a service key share a budget by address (IPv6 by
//! /64: 50 a second, 200 at once) and one for all of them (200 a second, 400 at once); beyond, `429 RATE_LIMITED`. A valid service
//! key exempts, except for signatures that fail.
//!
//! # Whose is what
//!
//! A slug is unique for one owner only. Claims, limits, nonces of claims, usage and the feed go by the service's id, so two
//! owners of one slug have nothing in common. `GET /v1/verify`, which names a slug and brings no key, means the
//! service of the namespace's own owner where there is one. A usage event is taken where its namespace is the service
//! owner's, or has asked for the service.
//!
//! A usage event is of the moment its sender names (`occurred_at`, in batches of our gateway), because an outage may have held
//! it up; a moment in the future or more than 30 days ago is not believed, and the event is of the moment it came.
//!
//! # Claims
//!
//! One transaction judges a claim and writes it, so limits hold whoever comes at the same time. A rejected or
//! revoked key may ask again a minute later; until then it gets the old answer. A claim that is written anew begins its life
//! anew, with an id and a date of its own. A namespace keeps at most 1000 claims that are neither pending nor approved.
//!
//! A policy never trusts what a stranger chose. `trustedServices` holds ids, or slugs of the owner's own services.
//! `trustedIPRanges` is compared with the address the API itself saw where the agent signed for itself, or with the one reported by
//! another signer with a key of the namespace owner's own service (its gateway); an agent's word for its own address counts
//! for nothing. Whether a signer registers another key of its namespace is said by a header outside of the
//! signature; adding or removing it can only make a refusal of it, or leave the signer within its own namespace.
//!
//! # Changes
//!
//! Triggers write every change of an approval down in the transaction that makes it, at most 50,000 of them. A cursor is
//! `<epoch>.<number>`; the epoch is made with the database. Every page of the feed carries the cursor of its service, so
//! whoever reads several sees whether the list has moved meanwhile; a stream from that of the first is told every change since,
//! within 100 ms of the commit, and `alive` every two seconds. Whoever's
//! cursor is older than the history, and has missed something, is told `410 CURSOR_GONE`. A stream ends when its key is
//! revoked (noticed with the next event or beat), when the process stops, and when nothing is read for 30 s. Where its
//! service is removed it tells what has ended with it first.
//! 256 streams, 64 of one service.
//!
//! # Pairing
//!
//! A gateway's bridge holds one WebSocket to the API; an owner's commands go over it to the gateway's admin API
//! ([`crate::api::pairing`], where the rule for wrong codes stands with its reasons). A session lives in the database with a
//! keyed hash of its code and one of the secret its bridge comes back with, so a restart or the death of the API costs a
//! reconnection. When a second bridge comes with the right
//! code the first is asked for a sign of life: where it gives one within 2 s the second is refused
//! (`409 GATEWAY_ALREADY_CONNECTED`), else the first is closed as `replaced`. A beat of the bridge
//! extends the lease to two hours, up to `PAIRING_MAX_HOURS` after the start; then the socket is closed with the reason `Pair
//! session expired`; where its owner has ended it, with words that begin so. So long a session waits for its bridge: a laptop
//! whose lid is shut for an hour comes back by itself, where five minutes would make its owner pair anew. It gives nobody more than
//! a bridge that stays has anyway: the longest life is the same, the code or the secret is needed, and an owner can end the pairing
//! at any time. Before the first beat a session has the ten minutes it was started with. A socket that is silent for a minute is
//! dropped. 409 and 429 to a handshake with the code in its address are held for 5.5 s: a bridge that cannot see the status would
//! take several quick ones for the end.
//!
//! The bridge answers 502 to a command for whatever kept the gateway from answering, with the reason as `error`: also where it took
//! longer than `--relay-timeout-ms` (10 s); 504 is what this API says when the *bridge* did not answer in time. A relayed test of a
//! provider is therefore given up by the gateway after 8 s, and its answer says so. Of the gateway's headers all are relayed but
//! `connection`, `transfer-encoding` and `content-length`, which are about a connection the answer has left and about bytes that go
//! on as text of another length, and values that are no text.
//!
//! A refused handshake ends a bridge (42) at once where the words are ours. With 401, 403, 404 or 410 in other words it first looks
//! whether API, pairing route and gateway are well, and ends where they are: a proxy that answers in the place of an API that is
//! down passes.
//!
//! 64 live sessions of an owner, 32 commands that wait for an answer in one session (further ones: 429; the bridge
//! takes no more either), 4096 sockets or as
//! many as the system lets the process have open. A message of a bridge may have 16 MiB: a larger one ends the socket (1009),
//! because it cannot be passed over, the commands that wait are answered with 502, and the bridge comes back.
//!
//! # Pages
//!
//! The dashboard calls the functions the endpoints call; it has no rules of its own. Its cookie is `SameSite=Strict` and out of
//! scripts' reach; a change is taken from our own origin, by `Origin` or by the browser's word (`Sec-Fetch-Site`). The referrer
//! policy is `same-origin`: under `no-referrer` browsers send our own forms with `Origin: null`, like a stranger's. Scripts and
//! styles are files of the binary, whose address holds their hash; nothing inline runs. What strangers wrote is escaped, stands
//! within bounds of its own direction, and loses the marks that turn it.
//!
//! The field a secret is typed into has no name, so no browser sends it, script or not; the sealed text goes in another. The
//! page comes from the party that relays, and a party that changes the page can take what is typed. What a person compares
//! keeps out one that only reads or redirects: the script computes the fingerprint itself, remembers the key in the browser,
//! and sends nothing to a key that was not compared there. Whoever trusts neither adds secrets on the gateway's machine.
//!
//! An owner has several gateways, each with its own key. What a gateway is known by is that key itself: an id or a name comes
//! through whoever relays, and `this is another gateway` would be all it takes for a fresh pin; the namespace is said by the
//! page as well. So the browser keeps a list of keys that were compared, and a key is one of them or has to be compared,
//! beside the list of those that are known, so that who meant one of these is warned. The name beside a key was given by the
//! person who compared it and is shown wherever is encrypted to it: a relay that shows the key of another of the owner's
//! gateways gets a secret sealed that only that one opens, and is seen by its name. The price is that a key that was replaced
//! looks like another gateway; the person forgets the old one by its button. Where keys were compared, one that is withheld
//! opens no way in clear.
//!
//! Of a gateway's lists the first thousand entries are read, and the others counted; of a catalog 4 MiB, which is the most a
//! gateway keeps, of a list of connections 4 MiB, of other answers 1 MiB. A page of a thousand rows took 2 ms to write (0.8
//! MB, unoptimised; more where the rows are long), and reading an answer of megabytes takes longer: both happen on threads
//! for that, not on the few that serve everybody. So do short pages, as one rule is simpler than two and the way there takes
//! microseconds.
//!
//! # Bounds
//!
//! 512 connections, 48 bodies above 64 KiB at a time, 1 MiB each; 1,000,000 nonces; 5,000,000 usage events, for 90 days.
//! Approvals end within a second of their time, and are never read as approved after it; pending claims after 24 hours unless
//! the owner's policy lets them wait.
//!
//! # Other machines
//!
//! The API speaks plain HTTP to loopback. Another address is refused unless `API_ALLOW_REMOTE` and `JWT_SECRET` are set: a secret
//! minted into a file of this machine was not meant for a network. Put TLS in front and name it in `API_PUBLIC_URL`.

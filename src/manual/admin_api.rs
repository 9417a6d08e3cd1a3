//! What the admin API does beyond storing connections, and why it does it that way.
//!
//! # The description
//!
//! `/openapi.json` is written from the route table: a handler is registered once, for serving and for the description. What
//! every guarded route can answer (access, rate, bodies) is added in one place. A test takes both directions (each described
//! method and path is answered, no route stands beside the table) and compares answers with their schemas.
//!
//! # Tests of connections
//!
//! `POST /connections/{id}/test` makes the request an agent's would become: the same joining of base path, prefix and path,
//! the same credential in header or query, the connection's extra headers. It is made by admin itself and not through Envoy,
//! because no agent signed it. So what Envoy does for agents is done here again:
//!
//! - The name is resolved once. Every address is judged by the rules of saving, those that are refused are left out, and the
//!   connection is opened to one that was judged: there is no second resolution to be fooled by. Before a byte is sent a
//!   connection that ends at a port of the gateway on this very machine is dropped, whatever address led there.
//! - The certificate must carry the connection's name and come from an authority of this machine (`SSL_CERT_FILE` counts).
//! - No redirect is followed: a 3xx is an answer, so it passes, and the credential goes nowhere else.
//! - The caller may add headers, but none that carries a credential, describes the connection or belongs to the proof: it would
//!   turn the test into a request of its maker's, with somebody else's key.
//! - 15 s in all, 8 tests at a time (then `429`), 64 KiB of an answer's head and of a failed answer's body.
//!
//! A provider that refuses may quote the request. The first 240 characters of what it says are told and kept, after the
//! credential was taken out: as it came, percent-encoded, in JSON or a page, in hex, and in base64 at each of its three
//! offsets, without regard to case. Any eight characters in a row of such a form count, so half a key does not slip
//! through; a compressed answer is not shown at all. Errors of the transport are told in our own words, which hold neither
//! path nor query.
//!
//! A test that has begun ends and is written down where its client has left too, because the credential was sent. Its result is
//! kept with the connection it was of: one that is gone by then leaves none to a namesake, and a declaration takes its own along.
//!
//! The credential is taken from what is published to authz, so a test uses what agents use, wherever the secret is kept. The
//! last result lies beside the connection, in a table of its own: it is no version of the state that authz has.
//!
//! # A new base address
//!
//! `PATCH` may change `base_url`. That sends the stored secret to another place, which whoever holds the admin token could
//! also have by a test or by an approval of their own; forcing them to delete and create would only lose the history. The
//! audit says `changed: ["base_url", …]`, under the names of the API, with who and from where.
//!
//! # Sealed secrets
//!
//! Wherever a secret's value is taken, `sealed:v1:…` may stand in its place ([`crate::domain::sealing`]): connections, their
//! rotation, credential variables, service API keys. It is opened in the turn of the store that keeps it, and judged from there
//! on like any other. All failures are one, `SEALED_SECRET_INVALID`, and say nothing of the content. A text that begins with
//! `sealed:` is never kept as it stands, of whatever version it claims to be: the price is that no plain secret can begin so.
//!
//! The key is X25519, because every browser has it; base mode, because a page has no key of its own. `GET /sealing-key` makes
//! the pair with the first look. Entries of the audit say `secret: sealed`, and of relayed requests `plain` where one came in
//! clear.
//!
//! # Relayed requests
//!
//! The bridge marks each with `X-Sigilum-Relay: <session>`, and adds the token of its machine unless the command brings one
//! (`Authorization`, `X-Sigilum-Admin-Token`): then that one is judged, and alone. The mark stays whatever token comes. It counts on requests that were let in, and a malformed one is
//! refused, as passing it over would make the request one of the operator's own. What such a request may not do is `403
//! RELAY_FORBIDDEN` ([`crate::domain::relay`]); why, and what it still may, stands in [`super::threat_model`].
//!
//! # Refusals
//!
//! `GET /refusals` tells of requests of agents that were refused, from the access log that is read for the metrics anyhow: counts by
//! code since the start and for this hour and the 23 before, and the last 200 with time, code, connection and the
//! fingerprints of the decision log. In memory alone, at most 64 codes.
//!
//! # The service catalog
//!
//! Templates in a file that people may edit: it is made from the defaults where it is missing and read anew each time. A broken
//! file is an error with the place in it, and never replaced by a `GET`. Laid out it has at most 4 MiB, and a `PUT` of what would grow
//! beyond is refused: nested lists take a hundred times their length, and what could be written and not read again would lock the
//! catalog. The catalog decides nothing; connections made from
//! it are checked like all others.
//!
//! # Service API keys
//!
//! `PUT` writes `<home>/service-api-key-<id>` (0600, at once or not at all), where every reader of keys looks at each use. `GET`
//! tells of the key in force, which a variable may override.
//!
//! # Keys that OpenClaw's files hold in clear
//!
//! `GET /openclaw/legacy-keys` looks into `openclaw.json` (`OPENCLAW_CONFIG_PATH`), `.env` and `.env.local` of OpenClaw's home
//! (`OPENCLAW_HOME`, else `~/.openclaw`) and of its workspace, and the list a hook once wrote
//! (`OPENCLAW_LEGACY_RUNTIME_REPORT_PATH`, else `.sigilum/legacy-runtime-credentials.json` in that home). Ordinary files of at
//! most 4 MiB are read, opened so that no pipe holds anything up. A value is told by its first three and last two characters,
//! from 16 on; nothing is told of shorter ones. What only says where a key is (`${NAME}`, `$NAME`, `{{KEY}}`) is none, and
//! neither is what opens OpenClaw itself (`gateway`, `hooks.token`) or belongs to us.
//!
//! An `openclaw.json` that is no plain JSON (JSON5: comments, names without quotes) is told of with the byte at which it
//! is not, and left alone. Where a key ends in it would be guessed, and a purge writes by what was read.
//!
//! `import` takes the steps that a person could take too (variables, rotation, new connections from the catalog), one by one,
//! each in the audit. Asked again it finds each value where it is and makes nothing. A variable of that name with another
//! value stays: the new one gets a number. A connection is made where the template injects this very secret; an app token is
//! not put where a bot token belongs.
//!
//! `purge` blanks the value and changes no other byte. Three rules keep a key from being lost:
//!
//! - Each of the keys must be in the store, found there by its value and opened, or nothing is done. The store is asked
//!   and the files are written in one turn of its thread, so that no request deletes the variable in between.
//! - A file is replaced whole or not at all (a new file beside it with its mode and owner, fsync, rename), and only while it
//!   holds the bytes that were read. A symbolic link, a file with other names, or one that was changed is left with a warning.
//! - Nothing is purged unnamed: `import` without ids means all, `purge` without ids is refused.
//!
//! No copy of the file is kept. It would be a second place for the very keys that are taken out of the first, of which nobody
//! thinks when they are rotated, and which backups and agents read. Whoever needs the value has it in the store: by a
//! connection, or in `gateway backup`. On the disk itself the old blocks may live on until they are used again; whoever had the
//! file may have the key, and new connections are due for rotation after 90 days for that reason.

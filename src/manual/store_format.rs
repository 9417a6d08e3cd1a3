//! What lies on disk, byte by byte where it matters, so that it can be read without this program.
//!
//! # The database
//!
//! `<data_dir>/gateway.db`, SQLite in WAL mode, mode 0600, opened by `admin` alone under
//! `<data_dir>/gateway.lock`. `PRAGMA application_id` is `0x53474c4d` ("SGLM"), `PRAGMA user_version` the schema
//! version. A newer version, or a database with another id, is refused before a byte of it changes.
//! Schema steps run forward only, at start, in one transaction ([`crate::store::migrate`]). `synchronous` is
//! `FULL`, `secure_delete` is on, and a deletion cuts the WAL back at once.
//!
//! | table | columns |
//! | --- | --- |
//! | `meta` | `name`, `value`: `salt` (32 bytes), `sentinel` (sealed), `epoch` (UUID as text), `version` (u64, big-endian), `declared` (sealed: SHA-256 of settings, declared approvals and declared connections with their secrets), `rotation_key` (sealed), `sealing_key` (sealed: the private X25519 key, 32 bytes) |
//! | `connections` | `id`, `record` (JSON), `secret_version`, `mark` (32 bytes) |
//! | `secrets` | `connection`, `version`, `sealed`, `made_at_ms`, `made_by`, `reason` |
//! | `tests` | `connection`, `at_ms`, `passed`, `http_status`, `error`: the last test of each |
//! | `last_use` | `connection`, `namespace`, `public_key` (32 bytes), `subject`, `at_ms`, `status` |
//! | `variables` | `key`, `sealed`, `version`, `created_at_ms`, `updated_at_ms`, `created_by` |
//! | `variable_references` | `connection`, `variable`: kept in the transaction of the connection's change |
//! | `tests` | `connection`, `at_ms`, `passed`, `http_status`, `error`: the last test of each |
//! | `declared_secrets` | `owner` (`connection` or `variable`), `name`, `digests`, `since_ms` |
//! | `audit` | `id` (counts up without a gap), `at_ms`, `action`, `target`, `via`, `actor`, `address`, `request_id`, `detail` (JSON) |
//!
//! A row of `audit` is written in the transaction of the change it tells of. Triggers refuse to change, remove or write
//! over one of the newest million; older ones go, 64 with each new one. Then the row becomes a line of
//! `logs/audit.jsonl`. A crash in between loses the line and not the row: at the start the file is cut back to its last
//! whole line, and every row after that one is added. The name in `actor` is what the caller said (`rotated_by`,
//! `sigilum-subject`); nothing proves it. `detail` names fields and holds none of their values. Refused access is not in
//! it: whoever reaches the port could fill the table and drive out the rest. The log has a line for that.
//!
//! A record is JSON with names of its own ([`crate::store::records`]), so that a field renamed in the code does not
//! change what is on disk. All secrets of a connection are sealed together as one value; a rotation adds a
//! version, and `store.kept_secret_versions` are kept: older ones are overwritten in the rotation's own transaction, and the WAL,
//! where they still stand, is cut back within a second, so that no rotation waits for it.
//!
//! Nobody tells of the rotation of a declared secret, so `declared_secrets` holds when its value was first seen. `digests` are,
//! for each secret in the order of their names, 8 bytes of the HMAC-SHA256 of its name and 16 of that of its value, under
//! `rotation_key`; a secret that cannot be resolved keeps what it had ([`crate::store::rotation`]). A variable counts for what
//! injects it. A row goes with its declaration, all of them with a lost master key.
//!
//! `sealing_key` opens what others seal to this gateway ([`crate::domain::sealing`]). It is made when it is first asked for, with
//! an entry in the audit, goes along with `rekey`, backups and restores, and is lost with the master key: another one is made
//! then. One that does not open is never replaced by itself, as people have compared its fingerprint; it stops a change of the
//! master key and a restore, and `gateway sealing-key rotate` puts another one in its place. A backup brings back the key it
//! was made with, also one that was replaced since.
//!
//! `mark` is HMAC-SHA256 over `connection`, id, secret version (decimal) and record, each with its length in front (8 bytes,
//! big-endian), under a key that HKDF yields beside the wrapping key. A record lies in clear, and says where a secret goes: without the
//! mark whoever can write a backup could send secrets elsewhere. A record without its mark is not used, stops a restore and
//! a change of the master key, and is named. Versions before 3 had no marks; their records are believed once, when they are
//! brought to this version. So that a store with marks does not pass for one without, its sentinel is sealed for another place.
//! Tables, indices and triggers that are not exactly this version's stop the start and the restore: a trigger would run with our
//! statements. A whole row of an earlier backup of the same store still fits: keep backups where their age can be told.
//!
//! Every change raises `version` by one in the transaction that makes it. `epoch` is made with the store. Both go to
//! `authz` with the state. Where settings or declared approvals differ from those of the last start, the
//! version rises as well, so that a state of that start does not pass for this one.
//!
//! A copy of the data folder that is put back (a snapshot of a volume or a machine, `cp`) has the epoch of what it takes the place of,
//! and soon its versions again. `authz` therefore goes by the run of `admin` too, a random name made at its start that is
//! with every version: changes are sent onto what the same run sent, and whoever holds anything else is sent the whole state
//! and takes it, older or not. Within one run it takes none that is older. An `authz` that holds a later version of our
//! store than the store has tells of such a copy: `admin` says so in its log, once, as an error that names it, because what was
//! removed, revoked or rotated since is in force again.
//!
//! # The master key
//!
//! `GATEWAY_MASTER_KEY`, else `<home>/gateway-master-key` (0600, and refused where others may read or change it, by the
//! rule of secret files; 64 hex digits are minted at the first start, never where a store exists already). White space around it does not count. Exactly 64 hex digits are taken as 32 random bytes;
//! any other text may be a passphrase and goes through PBKDF2-HMAC-SHA256 with the store's salt and 600,000
//! rounds. HKDF-SHA256 (same salt) then yields the wrapping key, 32 bytes, and the key id, 8 bytes.
//!
//! The sentinel is a known text sealed with the key. It is opened before anything else, so that a wrong key is
//! said at the start and nothing is overwritten.
//!
//! # Another master key
//!
//! The salt stays, so that a key has one id in a store and the key in use is known when it is given as the new one; each
//! candidate costs one derivation. Data keys and values stay too: only the wrappings, and the sentinel, are made anew.
//!
//! | step | a kill before the next one leaves | the next start |
//! | --- | --- | --- |
//! | `<home>/gateway-master-key.next` written (0600, on disk) | the store as it was | opens with the current key, removes the file |
//! | one transaction: every wrapping and the sentinel | the same, until it is committed | the same |
//! | committed | a store that the next key opens | opens with it, renames, cuts the log back |
//! | `.next` renamed to `gateway-master-key` | old wrappings in the WAL | cuts the log back |
//! | WAL cut back (`wal_checkpoint(TRUNCATE)`) | nothing; `secure_delete` has overwritten the old wrappings in the file | |
//!
//! Where `GATEWAY_MASTER_KEY` names the current key nobody but the operator can change that. `.next` then stays, and a start
//! takes the variable's old value (the store opens with `.next`) or its new one (`.next` is removed, and from then on the
//! old value opens nothing). A second change waits until then.
//!
//! From the commit until `.next` has its name the process that made the change keeps the key's text and writes the file again where
//! somebody removed it. `gateway rekey` removes what it wrote there only after a refusal that comes before the commit; after a
//! 5xx or no answer the file stays, and the next start goes by the key that opens the store.
//!
//! A kill in the middle of writing `.next` leaves `.gateway-master-key.next.<hex>.tmp` (0600); whoever opens the store next removes it,
//! once it is a minute old.
//!
//! Every value is opened on the way. One in use that does not open stops the change before anything is changed; an older
//! version that does not is dropped, because nothing reads it any more.
//!
//! Without the old key (`--lost-master-key`) the same steps delete the rows of `secrets` and empty the values of
//! `variables` instead. A connection whose row of `secret_version` is missing is one whose secrets are lost.
//!
//! # A backup
//!
//! What `VACUUM INTO` writes: one database without a log, with application id and schema version, without anything that was
//! deleted before. It is made by whoever holds the store, opened again, and every sealed value in it is opened; only then it is
//! sent or gets its name. Over the admin API it has no name at all on the gateway's side, and its SHA-256 goes along
//! (`Content-Digest`).
//!
//! A restore copies it into the data folder, proves it, upgrades its schema, wraps it for the gateway's key where that is
//! another, gives it a new `epoch` and an audit entry; then the old database gets a second name
//! (`gateway.db.before-restore-<UTC>`, with its log folded in) and one rename puts the new one in its place. The second
//! name stays: only its owner knows when it is not needed any more. It holds sealed values of its day, so delete it when
//! it is not.
//!
//! # A sealed value
//!
//! AES-256-GCM twice: a random data key seals the value, the wrapping key seals the data key. Both nonces are
//! random, 96 bits.
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | format, 1 |
//! | 8 | key id |
//! | 12 | nonce of the wrapping |
//! | 32 + 16 | the data key, wrapped, and its tag |
//! | 12 | nonce of the value |
//! | n + 16 | the value, sealed, and its tag |
//!
//! The associated data of both layers: the format byte; then `sigilum-store`, the layer (`wrap` or `value`), the key id
//! (zeros in the layer `value`), kind, record and field, each behind its length as u64; then the version as u64;
//! numbers big-endian. So no sealed value opens in another row, under another name or as another version, and a
//! new master key needs new wrappings only.
//!
//! # The replay journal
//!
//! `<run_dir>/replay-<n>.journal`, numbered without a gap, written by `authz` alone under `<run_dir>/authz.lock`. A
//! header of 80 bytes, then entries of 32 bytes: keyed hash of key and nonce 16, expiry 8, keyed hash of the key 8. The
//! header: magic `SIGRPL\0\x01` 8, hash key 16, boot 16, maximum age 8, number 8, opened 8, floor 8, checksum 8; numbers
//! little-endian, times in Unix seconds. Where a window that replicas share stood behind, every bit of the boot is turned: such a
//! journal is not all that was used, so without the shared window it counts as one of another boot, also to versions that know
//! nothing of this.
//!
//! Nothing is synced: what was written survives the process and not the operating system, so the header names
//! the boot, and a journal of another boot is not believed. Then requests signed before the start are refused until
//! nobody can have admitted them. A segment ends after 60 s or about a million entries and is deleted when its
//! last entry has expired. Where the wall clock has stepped back by more than the skew since a segment was begun, no entry
//! counts for longer than its age from then on.
//!
//! # The rest
//!
//! | file | what |
//! | --- | --- |
//! | `<data_dir>/admin-token` | token of the admin API: 64 hex digits and a line feed, 0600 |
//! | `<data_dir>/logs/{admin,authz,decision,envoy,api,pair}.jsonl` | what the processes say, 0600; `logging.max_bytes` (10 MiB), `logging.keep` (three) older ones |
//! | `<data_dir>/logs/audit.jsonl` | the audit as lines, 0600; 10 MiB, nine older ones kept |
//! | `<run_dir>/access.log` | Envoy's JSON lines; put aside beyond 64 MiB as `access.log.1`, `access.log.2` and so on: numbers only rise |
//! | `<run_dir>/access.position` | how far the metrics have read it |
//! | `<run_dir>/usage.position` | how far usage events are settled |
//! | `<run_dir>/envoy.json` | what Envoy starts with, rendered for this start; holds no secret |
//! | `<run_dir>/xds/` | what Envoy watches: its listeners; files are replaced by renaming |
//! | `<run_dir>/envoy-settings.json` | the settings Envoy accepted last, with the version it shows |
//! | `<run_dir>/gateway.yaml.last-good` | the settings file as it was when it could be used; only while it cannot |
//! | `<data_dir>/crashes/*.json` | what processes that crashed said last, 0600; the last five |
//! | `<run_dir>/pair-bridge.json` | how the bridge stands: process, start, session; written by whoever holds `pair-bridge.json.lock` |
//! | `<run_dir>/instance.json` | which processes run, with their start times, for `down` and for the start after a crash |
//! | `<run_dir>/{authz,state,envoy-admin}.sock` | the three sockets |
//!
//! A position file is one JSON object: device, inode and offset of the next line, the number of the file (of the last one
//! before it, for the one being written), and a digest of the first 256 bytes, because inodes are used again. A file put
//! aside is removed when every reader's position is behind it; the newest one stays. Positions lie beside the log: where the
//! run folder does not survive a reboot, neither does what they point into.

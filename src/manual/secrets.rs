//! Secrets that live elsewhere, and a file that changes while the gateway runs.
//!
//! # From a reference to a request
//!
//! `gateway.yaml` holds references ([`crate::domain::reference`]). `admin` resolves all of them together
//! ([`crate::secrets`]), hands what it found to the store's thread as one declaration ([`crate::store::declared`]), and that
//! becomes one version of the state `authz` decides with. So a request sees the secrets of one resolving: two keys
//! that a provider changes together change together.
//!
//! References stand in the file alone. Through the admin API a secret is a literal or `{{KEY}}`; a declared variable may be any
//! reference, which is how connections made there reach files and programs. Otherwise whoever holds the admin token could
//! have `admin` read any file and run any program.
//!
//! # Sources
//!
//! | source | read | bounds |
//! | --- | --- | --- |
//! | `env` | variables of `admin`. Under a supervisor its environment block holds no secret: the supervisor hands over, through its pipe, the variables the file named when it started, and those of `pass_env` | 16 KiB each, a longer one is told as too long; the gateway's own secrets are refused |
//! | `file` | once for all pointers into it | 1 MiB, 5 s; regular, ours or root's, no other reader |
//! | `exec` | one process for up to 512 ids or 256 KiB of them, 4 providers at a time | 5 s, 1 MiB, no core dump, 1024 files, 60 s of processor |
//! | `store` | the credential variable, declared before stored | |
//!
//! **Files.** A file that changed less than 100 ms ago, or while it was read, or that is half a JSON document, is read again for up
//! to two seconds; empty it is never a secret. What a writer leaves alone for longer in the middle of writing looks whole, so
//! write beside and rename. Modes: everybody's bit is refused in every case. A group may read where root gave the file to a group
//! of ours (Kubernetes: `defaultMode: 0440` and the pod's `fsGroup`; the default `0644` of a volume is refused with that advice), or
//! where the provider says `allow_group_read`. A symbolic link is followed where it belongs to root or to our user, each one on the
//! way, and the way is gone once more after the file was opened: in a folder others may write to, somebody could put a link to the
//! master key in the file's place and have it sent to a provider. Folders are not judged, since volumes are mode 0777. There is no such word for a file named in place: name it in a provider.
//!
//! **Programs.** Absolute path, no shell, working folder `/`, an empty environment but for `env` and `pass_env`, nothing
//! inherited but the three standard streams, a process group of its own that is killed whole at the time limit and when it has
//! ended. A process that leaves this group (`setsid`, `setpgid`) is not found there and lives on: nothing waits for it. It is started through this very program, which asks Linux to kill it when `admin` dies, however it dies; what it
//! started itself notices that its pipes are closed and nothing else. Not run: a symbolic link (unless `allow_symlink`, and its target lies in
//! `trusted_dirs`), a file others may write to, and one that somebody else could exchange before it is started: every folder up to the
//! root, and every link on the way, belongs to root or to our user, and neither group nor others may write to a folder that is not
//! sticky. Its answer is read into memory that is wiped; what it says on standard error is
//! shown as one short line from which everything that looks like a key is taken out.
//!
//! # Start, and afterwards
//!
//! At the start everything active must resolve: `secret reference unresolved: connections[3].secrets.api_key (…): …`, exit 78. The
//! last good set is on no disk, which is the point of keeping secrets elsewhere; so a restart of `admin` while a provider is away
//! does not start, and requests go on through `authz` and Envoy with what they hold. References of disabled connections are not
//! resolved (`SECRETS_REF_IGNORED_INACTIVE_SURFACE`).
//!
//! Afterwards a resolving that fails changes nothing: `SECRETS_RELOADER_DEGRADED` in the log once, then a line per try, the condition
//! `SecretsSnapshot` stays `True` with reason `Degraded` and the age, `secrets_degraded` is 1. It is tried again after 15 to 30 s, when a
//! file changes, at SIGHUP and when asked. `SECRETS_RELOADER_RECOVERED` ends it. With `secrets.max_stale_seconds` the connections
//! whose references fail are closed once the last good set is that old (`TooStale`, condition `False`); others go on.
//!
//! # Rotation
//!
//! `rotation.enforcement` goes by `last_rotated_at`. A declared connection was rotated when one of its secrets was first seen with
//! another value, by a reload or by a start; an outage of its provider, switching it off, and a start are none. Where a
//! connection injects a credential variable, another value of that is a rotation of the connection, stored or declared.
//!
//! # The file
//!
//! Folders are watched, not files, so that a rename over the file and a turned `..data` link are seen
//! ([`crate::sys::watch`]); a changed file is read when it has looked the same for `reload.settle_ms`. Then: parse and judge
//! everything, compare value by value with what is in force, resolve what is new, have Envoy take its part, publish, write
//! down ([`crate::reload`]). A failure anywhere leaves all of it as it was; Envoy's part is taken back.
//!
//! | mode | `hot` | `hot-envoy` | `restart` |
//! | --- | --- | --- | --- |
//! | `off` | told | told | told |
//! | `hot` | applied | applied | told |
//! | `restart` | restart | restart | restart |
//! | `hybrid` | applied | applied | restart |
//!
//! The mode that counts for an edit is the one in force before it. Before a restart is asked for, the new file is judged, its
//! references are resolved and judged as at a start, and its new addresses are bound once; where nobody would start `admin` again (it runs without our
//! supervisor), nothing is restarted and the change is told. Envoy of somebody else takes no changes from us: `hot-envoy` is then
//! told like `restart`. Which setting is of which class stands in the settings table, which is made from the code.
//!
//! A file that fails for its secrets alone (`unresolved`) is kept in mind: a ConfigMap may come before its Secret. Its secret files
//! are watched and it is tried again every 15 to 30 s, until it counts or another takes its place. A value that a connection
//! cannot carry is as good as none, also where a credential variable leads to it, declared or stored connection: all that inject
//! a changed variable are judged before anything is published ([`crate::store::unfit`]). No secret by reference has more than 16 KiB.
//!
//! Whatever is applied is an entry `config.reload` of the audit, with the names of what differs (`keys`) and no value.
//!
//! `POST /api/admin/config/reload` and SIGHUP look at the file at once, in every mode; SIGHUP resolves the secrets as well. `gateway start`
//! passes SIGHUP on to `admin`; where its terminal was closed it ends instead.

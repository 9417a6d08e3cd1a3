//! Running it: what starts when, what is restarted, how it ends, what to look at.
//!
//! # Start
//!
//! `gateway start` takes the lock on the data folder, ends what a killed predecessor left (known by process id *and* start
//! time), takes every port exclusively, finds Envoy, and renders its configuration. Only then does anything run: `admin`,
//! ready when `/health/live` answers; `authz`, ready when `admin` says at `/health/startup` that one holds its state; Envoy, ready when it says so
//! and when `:38000/health` reaches `authz` through it. Each has 60 s. A second start names who holds the lock or the port
//! and exits 78.
//!
//! Envoy is `--envoy-bin`, else `envoy` of `PATH` where that is new enough, else the managed copy, installed by pip and held to
//! its SHA-256 ([`crate::envoy::binary`]).
//!
//! # Several on one host
//!
//! A profile ([`crate::config::profile`]) changes computed defaults and nothing else: home, data folder, `config.env`, ports, names
//! of units and of files in the background. What a person names is stronger, so two profiles can be given one data folder: the
//! lock on it lets one start. Ports come from the profile's place in `profiles.json`, which the first command that makes a gateway
//! writes under a lock; places whose ports are those of `--dev` are left out. Each gateway mints its own admin token and seals
//! with its own master key, so neither opens another.
//!
//! `--dev` is the profile `dev`. Commands with it see no variable that is a setting, but `ENVOY_BIN` and `SIGILUM_LOG`: a namespace, a
//! folder or a key of production in the environment must not reach it. Parts of the gateway do see them, because their supervisor
//! has chosen their environment. `--reset` removes computed folders alone, never those an option names.
//!
//! # While it runs
//!
//! A process that ends is started again after 100 ms, doubling to 10 s; twelve ends within five minutes are no
//! accident, and the gateway stops. Children get an explicit environment; secrets come down a pipe
//! ([`crate::sys::supervision`]), whose end also tells them that the supervisor is gone. None of the roles leaves a core
//! dump.
//!
//! | what ends | what follows |
//! | --- | --- |
//! | `authz` | requests are 503 `AUTHZ_UNAVAILABLE` until it is back; its nonces are in the journal |
//! | `admin` | traffic of declared approvals goes on; the admin API is away |
//! | Envoy | connections break; back within the restart's wait |
//! | the supervisor | the three notice and end; the next start makes sure |
//!
//! # Start anew
//!
//! A setting of class `restart` counts with new processes. Where admin finds that one has changed it ends with exit code 75
//! ([`crate::sys::supervision::EXIT_ANEW`]); the supervisor then stops everything as below, reads the settings again (options and
//! environment still stand above the file), takes the ports and starts, with its own process id and lock. Listeners nobody asked
//! to move keep their ports. Traffic is away from the end of the drain until Envoy answers again, a second or two.
//!
//! Where the new settings cannot be read, bound or started with, it says so (`error: the new settings cannot be used`) and starts
//! with those before, as Envoy ran with them last; admin then reads `run/gateway.yaml.last-good` in place of the file, and does not
//! try what is in the file again until that changes.
//!
//! # Restart
//!
//! `gateway restart` speaks to the supervisor on `run/control.sock` (0600; the kernel says who is at the other end: our user, or
//! root), one JSON object per line each way ([`crate::app::gateway::ask`]); SIGUSR2 means the same. It drains as at a stop, for as
//! long as its mode says, and starts anew as above; requests that take longer are cut off and counted (`drain_timeout` in
//! `logs/gateway-restart.log`). The supervisor is the same process: another version of the program counts with a new one. A
//! SIGUSR2 during a start is a restart once everything runs.
//!
//! # Hand-off
//!
//! `gateway restart --handoff` replaces `authz` and `admin` so that no request fails:
//!
//! 1. A second `authz` starts beside the first; `admin` is told that both may come. It takes the whole state, with the approvals
//!    that were read, and reads the replay journal while the first still writes it. When it has both it listens as
//!    `authz.sock.next`, which says that it stands ready. Nothing has changed until here: where it does not come so far, it is
//!    ended, and the first goes on.
//! 2. The supervisor renames `authz.sock.next` to `authz.sock`. New connections of Envoy now wait at the second.
//! 3. The first is told to leave. It accepts what had come before the rename (20 ms), says GOAWAY, and decides what is still on
//!    its way. Envoy opens another connection, which waits at the second. When its connections are gone, at the latest after 150 ms
//!    more, the first closes the journal: from then on it admits nothing. It gives the lock of the run folder back.
//! 4. The second takes the lock, reads what the journal has since it looked, begins a segment of its own, and answers what waits.
//!
//! There is one writer of the journal at any time, and it knows every nonce that was admitted before: none passes twice, and none
//! that was not used is refused. A check waits for tens of milliseconds; Envoy gives it 500. Health is not withdrawn in between.
//! 5. `admin` ends and starts again. No request needs it; `authz` keeps its state and follows the new one. In this order, because an
//!    `admin` that has just started has read no approvals yet that the second `authz` could be told.
//!
//! Envoy is not replaced: listeners and settings of agents change while it runs ([`crate::envoy::live`]), and what is left (its
//! binary, its threads) asks for a restart.
//!
//! # Drain
//!
//! `POST /api/v1/drain` takes a lease; while one is held authz refuses new requests with `GATEWAY_DRAINING` and Envoy fails its own
//! health check. Authz is told *until when* and goes by its own clock, so the drain ends with its lease also where `admin` is away.
//! A lease of a client that left before it was told its id ends at once. Leases lie in `run/drain.json` and outlive restarts; `DELETE /api/v1/drain` ends all of them.
//! What Envoy was told is kept apart and said again until it has heard it, also by an `admin` that has just started. Requests in flight are not touched.
//!
//! # As a service
//!
//! The unit is `Type=notify`: READY comes when everything answers, WATCHDOG while the supervisor works and `admin` answers, at
//! a sixth of `WatchdogSec`. So a frozen `admin` has the whole restarted after 30 s. While it starts or drains its own deadlines hold.
//! `RestartPreventExitStatus=64 78` keeps a wrong option or configuration, a port or a lock of somebody else from being tried for ever.
//! A port that only an outgoing connection has is waited for, 15 s, then the exit code is 75 and the unit starts again.
//! `last-shutdown.json` in the data folder says why the last supervisor ended; after SIGKILL it says nothing.
//!
//! The system's unit runs under `DynamicUser=` with `systemd-analyze security` at 1.4. What it does without, and why two usual lines
//! are missing, stands at [`crate::app::systemd`].
//!
//! # One instance
//!
//! The supervisor holds a lock in the data folder (`supervisor.lock`) and one in the run folder (`gateway.lock`): two data folders
//! cannot share a run folder, in which a start ends what a killed gateway left. Both are the kernel's, so a killed holder holds
//! nothing. `start --force` replaces a gateway only where its process is known by id and start time and itself answers on the
//! control socket, and never one that a service manager would start again.
//!
//! # Stop
//!
//! SIGTERM, SIGINT or `down`: Envoy closes its listeners and finishes what is in flight, for at most
//! `gateway.shutdown_timeout_seconds`; then Envoy, `authz` and `admin` get SIGTERM, in this order, and SIGKILL after 10 s. A
//! second signal does not wait. `authz` alone withdraws its health first and decides for 2 s more, so that an Envoy it does not
//! share its life with turns elsewhere.
//!
//! # Health
//!
//! | where | says |
//! | --- | --- |
//! | `:38000/health`, `/healthz` | Envoy's active check of `authz`: requests can be decided |
//! | `:38100/health`, `/healthz`, `/health/live` | `admin` answers |
//! | `:38100/health/startup` | the store answers, and an `authz` holds the published state and would decide a request signed now |
//! | `:38100/health/ready`, `/ready`, `/readyz` | the same, and every condition below that is required holds |
//! | `:38200/ready` | Envoy itself |
//!
//! GET and HEAD only, never cached. Readiness is looked at twice a second and told as it was found then
//! ([`crate::admin::health_watch`]), so that a stranger's question costs nothing. Who presents the admin token is also told
//! `contractVersion` (1), `conditions`, `failures` and `advisories`, with `?fresh` as it is now; strangers, and what a pairing relays,
//! are told `ready` alone. A wrong token counts as a guess here as elsewhere. Each condition that turns is one line of the log, with
//! its reason as `code`.
//!
//! | condition | required | `False` when | reasons |
//! | --- | --- | --- | --- |
//! | `StateLock` | yes | the lock file was removed or replaced, so that a second gateway could take the data folder | `LockHeldElsewhere` |
//! | `Store` | yes | the database does not answer within 2 s | `StoreUnavailable` |
//! | | no | a change could not be written, nor can one now: the API refuses changes with 503 `STORE_UNAVAILABLE` | `DiskFull`, `ReadOnly` |
//! | `MasterKey` | yes | the store's proof of the key does not open | `KeyMismatch` |
//! | | no | the key's file is gone: the next start would fail | `KeyMissing` |
//! | `SecretsSnapshot` | no | secrets are too old to be used; last good ones that serve on are `True` with `Degraded` | `TooStale` |
//! | `EnvoyLive` | yes | Envoy's admin interface does not say `LIVE` | `NotStarted`, `Crashed`, `Draining` |
//! | `XdsInSync` of `authz` | yes | none is connected, or none has applied what was published for 5 s | `NotConnected`, `NotApplied`, `AckTimeout`, `Nack`, `NotReady` |
//! | `XdsInSync` of `envoy` | no | it goes on with the configuration it had | `Nack`, `AckTimeout`, … |
//! | `AuthzReachable` | yes | an unsigned request through the ingress is not refused within 500 ms; or a drain's lease is held (advisory where Envoy is another's) | `Unreachable`, `FailedOpen`; `Draining` |
//! | `NonceStore` | yes | admissions cannot be written down, or there is no room; the window that replicas share cannot be asked | `ReadOnly`, `VolumeFull`; `Full`, `Starting`; `StoreUnreachable` |
//! | | no | the same of one authz while another is ready: what it would have served goes there, and that wants its admin | `ReadOnly`, `VolumeFull` |
//! | `ReplayShared` | no | an authz was refused for having another replay window than one that decides for the same connection | `SeveralWindows` |
//! | `ClaimsFresh` | once nothing passes | see below | `ClaimsStale`, `NoServiceKey` |
//! | `ApiReachable` | no | the Sigilum API's `/health`, asked every 30 s | `Unreachable`, `TlsError`, `HtmlInsteadOfApi` |
//! | `ClockSane` | above 300 s | the clock is 60 s or more from the API's `Date` | `Skewed` |
//! | `DiskSpace` | no | less than 200 MiB are left in the data folder | `Low` |
//! | `PairBridge` | no | a bridge is in use and not connected | `Connecting`, `Terminal` |
//! | `IngressCertificate` | no | agents are shown the certificate before | `Refused` |
//! | `StateCertificates` | no | the certificate of an authz of another host ends within two weeks, or a fifth of its time, or has ended | `EndsSoon`, `Ended` |
//! | `RemoteAuthz` | no | an authz of another host says that something is wrong with it | `NotReady`, `Nack`, `ReadOnly`, `Full`, `StoreUnreachable` |
//!
//! What cannot be asked is `Unknown`, which keeps nobody from being ready: where Envoy is dead nobody says that `authz` is, and
//! where `admin` runs alone (compose, Kubernetes) Envoy is asked by whoever runs it. `FailedOpen` is the one to wake somebody up
//! for: a request without a signature was not refused.
//!
//! The unsigned request, to `/proxy/sigilum-canary/`, is sent every ten seconds while it is refused, and at every look while it is
//! not. While it is refused it stands in no log but that of `authz` at `debug`, has no trace, counts in the decisions of `authz`, and in
//! nothing admin counts of agents: it is known by the id Envoy gave it. The logs leave out what cannot be told from it: requests of
//! this machine to that very path that were refused and prove nothing. Where agents need a client certificate it is not sent, and Envoy's own check of `authz` speaks.
//!
//! `ClaimsFresh` turns `False` with the first confirmation that is missed (`ClaimsStale`, or `NoServiceKey`), and the status stays
//! 200: declared approvals go on, and claims hold on until they are too old. It is 503 once nothing can pass any more: the claims
//! of every service that has a key are older than `claims.ttl_seconds` + `gateway.claims_grace`, or for as long were never read,
//! and no connection has a declared approval. The log says once per service what is wrong and what to do, and once when it is
//! well again.
//!
//! Under a supervisor there is `XdsInSync` of `envoy`: `False` while Envoy goes on with the configuration it had because it would not
//! have the last one, with the reason (`Nack`, `AckTimeout`, `PortNotAvailable`, `InvalidSettings`, `FileNotWritten`) and
//! Envoy's own words; the log says `xds rejected`. It is true again with the next change that is accepted, or once the
//! refused one is taken out of the file.
//!
//! `StateCertificates` and `RemoteAuthz` are there where an authz of another host is (the former also where one was) connected, and name
//! it. Whose word the conditions of `authz` go by is in [`fleet`](crate::manual::fleet).
//!
//! With `gateway.tls` there is `IngressCertificate`: `False` while the files cannot be used and agents are shown the certificate
//! before. `ingress_certificate_updates_total` counts both.
//!
//! # Approvals of the Sigilum API
//!
//! `admin` asks for each connection by its id, signed with the gateway's own identity (`<home>/identities/<namespace>`, never made
//! by `admin`) and with the service's key. Where the API's address was set by anybody, every connection is to be approved
//! there, and one without a key is refused to everybody but declared agents; where it is the built-in one, only services
//! with a key are asked for. Keys are searched at every reading, so a new file needs no restart. Our API tells changes as they
//! happen ([`crate::claims`]); one without that stream is read every `claims.refresh_seconds`. More approvals than
//! `claims.max_approvals` are never cut: the last complete list ages, and the log says so.
//!
//! # Metrics
//!
//! `:38100/metrics` (with the admin token, or with that of the metrics), all under `sigilum_gateway_`. `auth_allow_total`, `auth_reject_total` by reason and
//! `replay_detected_total` come from the reports of `authz`; `upstream_requests_total`, `upstream_error_total` and the latencies
//! from Envoy's access log; `envoy_config_version`, `envoy_config_rejected_total`, `envoy_up` and `requests_in_flight` from Envoy's admin interface; `state_version`, `authz_ready`,
//! `replay_entries` and `replay_capacity` from the state stream; `claims_age_seconds` by service, `claims_approvals`,
//! `claims_refresh_total` by result and `claims_streams` from the reader of approvals. Watch `authz_replay_used_ratio` of each authz: a full window
//! refuses. `condition` is 1 for each condition of readiness that holds and 0 for one that does not; what is unknown, and what a drain
//! keeps, is not shown.
//!
//! `usage_sent_total`, `usage_duplicate_total`, `usage_refused_total` by code, `usage_skipped_total` by reason,
//! `usage_dropped_total`, `usage_retries_total`, `usage_pending`, `usage_lag_bytes` and `claim_submit_total` by result are
//! about what goes out to the Sigilum API, and `usage_oldest_age_seconds` about the oldest event that is read and waits. Watch
//! `usage_lag_bytes`: it grows while the API takes nothing.
//!
//! `decision_seconds` is a histogram by stage (`head`, `body`) and outcome (`allow`, `deny`): the time from a check that was read
//! to its answer, without the way to Envoy and back and without waiting for a registration. authz counts it in fixed buckets
//! from 25 µs to 500 ms, two additions of atomic numbers for each decision; its reports carry the counts, and `admin` sums them
//! over processes and their restarts. `replay_share_refused_total` counts refusals because one key held its quarter of the window:
//! part of the reason `replay_window_full`, which the window itself may also be.
//!
//! `envoy_up` is not there where no Envoy ever ran in this run folder, as in the shared gateway of Kubernetes. `state_info` names
//! the epoch; `authz_acknowledged_version` and `authz_lag_versions` are about each authz process by its `node` (`authz-` and its
//! process; over TCP after the name in its certificate, and from a container its `HOSTNAME`, which is the name of
//! the pod);
//! two of one name are told apart by `#2`, and of more than 64 those farthest behind are shown. `store_*_bytes` are the database,
//! its log and the room in it that holds nothing; `store_audit_entries` and `store_audit_oldest_age_seconds` the audit.
//! `process_resident_memory_bytes`, `process_open_fds`, `process_max_fds` and `process_start_time_seconds` are about `admin` and,
//! by its reports, each authz; the first three on Linux only. All these are looked up when somebody asks.
//!
//! # Traces
//!
//! With `telemetry.otlp_endpoint` Envoy begins a span for each request of an agent (a child of its `traceparent` where there is
//! one, else for `telemetry.sample_ratio` of them), one for each check it asks of authz and one for each try at a provider.
//! It leaves them with authz, on the socket it asks on: Envoy thus knows neither the collector nor the key that opens it, and its
//! configuration holds nothing secret. authz adds the decision's span, a child of Envoy's question, and sends everything by OTLP
//! over gRPC, 512 spans at a time or every second.
//!
//! Anybody can be refused, and say with each request that it is to be traced. So of refusals 100 at once and 10 per second have
//! their spans kept, of requests that pass all; Envoy's spans are told where the decision's is. Which those are is remembered
//! of the last 16,384 traced decisions, by the ids of decision and question and not by the trace's, which is the client's to choose.
//!
//! Of Envoy's attributes a list of thirteen is passed on; no header (`user_agent`), no URL, no address of a client, no
//! `tracestate`, no event. A request that no decision was made of, a health check for instance, is not told. Where to send and
//! with which headers comes to authz with the state; `GATEWAY_OTLP_HEADERS` goes from the supervisor to `admin` through its
//! pipe, as other secrets do.
//!
//! Nothing waits for a collector: 4,096 spans wait at most, further ones are given up (`trace_spans_total{result="dropped"}`), and
//! a message that is not taken within 5 s is not sent again (`failed`). The outage is logged once.
//!
//! The context a provider is told of is that of Envoy's try, and only where the connection has `forward_trace`; elsewhere
//! `traceparent`, `tracestate` and `baggage` are removed behind everything that could add them.
//!
//! # Usage events
//!
//! Where approvals come from the Sigilum API, it is told of each request that was forwarded, and of each that an overdue
//! rotation stopped (`forbidden`): who, which service, method, path without query, status, duration, bytes. Nothing is sent
//! while a request is served. The access log is the queue, so a crash, a stop or an outage of the API loses no event, and
//! the event's id, which is the decision's, keeps the API from counting one twice. Our API files it under the time of the request,
//! the hosted one under the time it came. While the API takes nothing the log
//! grows in the run folder up to `usage.max_backlog_bytes`; beyond that its oldest file is given up, which is an error in the
//! log and `usage_dropped_total`. A run folder on a RAM disk needs that much memory, or a smaller bound.
//!
//! Not reported, and counted as `usage_skipped_total`:
//!
//! | reason | what to do |
//! | --- | --- |
//! | `no_key` | the service has no service key, so it is none of the API's; give it one to have it reported |
//! | `foreign_namespace` | the agent is of another namespace than the gateway. The API takes reports of a namespace only from that namespace, so nobody can report these |
//! | `incomplete` | the line does not say who called: written by an older version |
//! | `unauthorized` | the API refused the service's key for ten minutes, or 10,000 events waited for it. Events of other services go on meanwhile. Put the right key in place; until it is accepted, each look tries once |
//!
//! The hosted API knows no batches: events then go one by one. Where it demands that the reporter's key is the agent's, it
//! refuses every event of every other key for good; they are counted in `usage_refused_total` as `signature_key_mismatch`.
//!
//! # Credential variables
//!
//! A secret that is `{{KEY}}`, blanks aside, stands for a variable of the store or of `gateway.yaml`; where both know the key, the
//! file counts. What a connection refers to is kept with its secrets, so that a deletion can be refused with the names of
//! the connections. The seed took a reference to nothing and failed with the first request; here it is refused when it is
//! written, with the key. A stored value is never a reference itself, so there is no cycle to look for; declared variables may
//! stand for one another, and the configuration refuses circles. Another value is one version of the state in which all
//! connections that inject it change: no request meets an old one and a new one. A value that one of them cannot carry
//! (a line feed in a header) is refused, and the old one stays. Another value is a
//! rotation of each of them too. A variable deleted with `force=true` leaves those that inject it answering 400; `secret_error` in
//! their body says which key is missing. A connection that has it in another secret goes on, and its other secrets can be rotated.
//!
//! # What is written down
//!
//! | where | what | who is named how |
//! | --- | --- | --- |
//! | audit (table and `logs/audit.jsonl`) | each change, by whom, from where | in clear: that is what it is for |
//! | decision log (`logs/decision.jsonl`) | each refusal, and on demand each request sent on | namespace, subject and claim as fingerprints, the address as its network |
//! | `logs/admin.jsonl` | refused and, with `debug`, granted access to the admin API | the address as its network |
//! | access log (run folder, 0600) | each request | in clear: usage events and last use are made from it |
//! | last use (table) | each agent's last forwarded request per connection | in clear, for whoever holds the admin token |
//!
//! A refusal by a step of the authorization is the event `proxy_auth_denied` with that step as `stage` (`header_validation`,
//! `signature_verification`, `component_validation`, `identity_extraction`, `nonce_validation`, `replay_detection`,
//! `claims_lookup`, `claims_authorization`), any other `request_denied`; `phase` says whether the body was there. The seed's
//! events of a request's start and end are lines of the access log here, `proxy_claim_precheck` and `proxy_identity_resolved` are
//! in the one event of the decision, and there is no unsigned bypass to tell of.
//!
//! A fingerprint is `sha256:` and the first six bytes of the hash in hex, as the seed writes it, without a key: the same name has
//! the same fingerprint on every machine, so that logs can be put side by side, and whoever knows a name can look for it.
//! Whoever guesses names can confirm a guess too. It hides names from a glance and from a search for them, not from somebody
//! with a list of them: keep logs as private as that list. A key of an agent is random, so its fingerprint gives nothing away.
//!
//! Last use is read from the access log and written every 5 s, without a version of the state: at most 1,000 agents of a
//! connection and 100,000 in all, the oldest give way. What a crash finds gathered is lost; a stop writes it.
//!
//! # Logs
//!
//! The supervisor reads what its three processes say, makes an object of each line with `timestamp`, `level` and `message`,
//! cleans it and writes it into the file of its stream; lines of `kind: decision` have a file of their own, so that a flood of
//! refusals drives out nothing else. Lines of Envoy, of a panic or a loader become the `message`, with the time they came at; a
//! line beyond 16 KiB is cut and says so (`truncated`). The bridge and the control plane of `up` write their files themselves,
//! the store writes the audit. A process that is run alone (`gateway admin`, `gateway authz`, `sigilum api`) cleans its lines itself and
//! writes them to standard error.
//!
//! Cleaned means: the value of a member whose name speaks of a credential; within any text what follows `Bearer` or
//! `name=`, keys of well-known issuers, users in addresses, private keys; and in any form the master key, the admin token and
//! the service keys that the supervisor was given. It is a second wall: the first is that secrets are types that cannot be
//! printed. Envoy writes the access log itself, in a format that names no header and no query; it is cleaned when it is
//! read. Envoy stays at `warning` whatever the level is, because at `debug` it prints what it forwards.
//!
//! Numbers of files that were put aside only rise. A reader remembers device, inode, offset and a digest of what the file
//! begins with; from them alone it goes on, over any number of rotations, each line once. Where that place is gone, because the
//! file was truncated, replaced, or removed before it was read, it says `reset` and goes on with the first file it has not seen.
//! The same place is the `cursor` of `GET /api/v1/logs`, which a pairing may not ask. A page looks through at most 16 MiB; `more`
//! says that there may be more, also where nothing matched yet.
//!
//! A process that ends by a signal or a panic leaves a file in `<data_dir>/crashes`: how it ended, versions, the last 200 lines
//! of its log, at most half a megabyte. The supervisor names it in its line of the end; the last five are kept, and
//! `gateway diagnostics export` takes them along.
//!
//! A full disk stops no process: lines are lost then, whole ones. The access log is put aside at 64 MiB, and the latest file that
//! was put aside is kept: once that much was written, the last 64 MiB of requests can always be read.
//!
//! # Rotation of a secret
//!
//! `POST /api/admin/connections/{id}/rotate` adds a version and publishes it: the next decision injects the new value. Requests
//! already forwarded keep the old one, so the provider should accept both for as long as a stream may last
//! (`max_stream_seconds`).
//!
//! # Backup and restore
//!
//! `sigilum gateway backup --output FILE` asks the admin process for a copy, or makes it under the lock where none runs. The
//! copy is proven before it has its name (0600), so a job that runs it daily may trust its exit code. While it is made the
//! store's thread does nothing else: changes through the admin API wait, requests of agents do not.
//!
//! `FILE` is a new name, or an earlier backup's, which is replaced in one step: so that a nightly job may use one name. Anything
//! else that is there is left alone (exit code 64): other files, symbolic links, devices, stores in use, and everything that
//! lies right in the gateway's data, home or run folder.
//!
//! Keep apart from it what opens it: `<home>/gateway-master-key`, or what `GATEWAY_MASTER_KEY` names. With either go
//! `gateway.yaml`, `<home>/identities` and the service keys of `<home>`: none of them is in the store. A plain copy of
//! `gateway.db` misses what is still in its log, and is refused where a log lies beside it.
//!
//! `sigilum gateway restore FILE` takes both locks of the data folder and says who holds them where it cannot (exit code 78). A
//! machine that has nothing yet needs the backup's key: put into `<home>/gateway-master-key` before, or given with
//! `--key-file`, which writes it there. Every `authz` takes a restored store for a new one, because its epoch is new.
//!
//! # Another master key
//!
//! `sigilum gateway rekey` while the gateway runs: the admin process wraps everything anew on the store's thread, and requests of
//! agents notice nothing, because `authz` holds what they need. The command's home folder must be the gateway's, because
//! a new key that is given goes through `<home>/gateway-master-key.next` and never through the admin API: whoever has the
//! admin token alone can change the key, and cannot choose it.
//!
//! Leaked is what is old: after a leak change the key, then make a new backup, then destroy backups and
//! `gateway.db.before-restore-*` of before, which the leaked key still opens; and rotate the secrets themselves where somebody may
//! have had both.
//!
//! # The doctor
//!
//! `sigilum doctor` gathers facts first, all at once and each within its time, and judges them afterwards; what it says of a
//! running gateway are the conditions above, under the ids of its checks. Where none runs it judges the Sigilum API, the clock,
//! the disk and the bridge by the same functions, and tries the master key on the store under the store's lock, changing nothing.
//!
//! `--fix` mends what nobody can miss. It takes permissions of others away from files that are ours, by the open file and
//! never through a link; it makes folders (0700); it removes `instance.json` and sockets of a gateway that is gone while it holds
//! `supervisor.lock`, so that none can start meanwhile. A unit is replaced by what this version writes for the same command,
//! after a yes; drop-ins stay, and so does a unit where the machine has one of the same name. It stops and starts nothing.
//!
//! Older gateways asked for Node.js, pnpm, Go, Java and curl: none of them is used any more. Python with pip counts where no
//! Envoy is there yet. Service keys and managed mode are left to `sigilum service` and `sigilum auth`.
//!
//! # What is lost
//!
//! | lost | while the gateway runs | afterwards |
//! | --- | --- | --- |
//! | master key | `gateway rekey`: the process still has it, and the store gets a new one | a backup of the key; else `gateway rekey --lost-master-key`, and each secret again with `connection rotate` and `variable set`; the sealing key is another then, and its fingerprint to be accepted by whoever seals |
//! | admin token | `gateway auth-token --rotate` | the same, or the next start mints one |
//! | database | `gateway backup` at once, if it still answers | `gateway restore` |
//!
//! A connection whose secrets are lost is listed with `secret_status: lost`; its requests are 400 `SECRETS_LOST` in the decision
//! log and say why. A rotation of it must hold all of its secrets.
//!
//! The admin token's file belongs to whoever may write into the data folder: a running process looks at it with each request,
//! and takes another one over. Where `GATEWAY_ADMIN_TOKEN` names the token only a start can change it.

//! Which libraries carry weight, and why these.
//!
//! The rule: a library that is well kept beats our own code for everything that is not our reason to
//! exist. What is ours is the signature profile, the decision, the replay window, the state stream and
//! the sealed store's format.
//!
//! | library | for | why this one |
//! | --- | --- | --- |
//! | `tonic`, `prost`, `envoy-types` | ext_authz and the state stream | Envoy's own protocol, generated; `envoy-types` spares every user a protoc |
//! | `tonic-prost-build`, `protox` | compiling our proto file | pure Rust, so that no protoc has to be installed |
//! | `axum`, `hyper` | the admin API, the local control plane, the demos | the server side of the same HTTP stack tonic uses already |
//! | `ed25519-dalek` | signatures | strict verification as a call of its own, run-time choice of the vector back end; see [`verification`](super::verification) |
//! | `aes-gcm` | sealing | audited implementation, constant time on the processors we run on |
//! | `ring` | deriving keys from the master key (HKDF, PBKDF2) | in the tree for TLS already |
//! | `reqwest` | `sigilum request`, and every call of the Sigilum API | TLS with the system's authorities and streamed answers, without redirects or a proxy of the environment |
//! | `rusqlite` (bundled SQLite) | the store, the control plane's database | one process writes, transactions are short: an async pool would add threads, not speed |
//! | `rustls` with `ring` | mutual TLS, TLS of the admin API | no C++ tool chain needed to build, one crypto provider in the tree |
//! | `saphyr-parser` | `gateway.yaml` with line and column | a marked syntax tree; serde alone loses positions after the first mistake |
//! | `serde_yaml` (the maintained fork `serde_yaml_ng`) | the demo's approval in a copy of `gateway.yaml`; reading Envoy's file in tests | the original is archived; the fork keeps its interface |
//! | `rustix` | resource limits, parent-death signal, user ids | the calls we need without `unsafe` of ours |
//! | `prometheus` | `/metrics` | the text format and the registry, without a server of its own |
//! | `opentelemetry-proto` | traces to a collector | OTLP's messages and their gRPC service, generated, by the OpenTelemetry project; on the tonic we use already |
//! | `redis` | the replay window that replicas share | the client of its world since 2014, for Valkey too; one multiplexed connection on the `tokio` and `rustls` we have. Without its default features seven small crates more |
//! | `siphasher` | the keyed hash of the replay window | the 128-bit form of the hash the standard library keeps to 64 |
//! | `arc-swap` | the snapshot | readers never wait for a writer |
//! | `hashbrown` | the tables of grants and names | the standard library's own table, with the part it keeps to itself: entries that are found by a hash and an equality of ours, so that a record is held once, at 4 bytes an index entry |
//! | `utoipa`, `utoipa-axum` | the descriptions of the control plane and of the admin API (OpenAPI) | a handler is registered once, for serving and for the description, which therefore cannot leave one out; written beside the handler as attributes, checked by the compiler |
//! | `jsonwebtoken` | owner tokens (HS256) | in use since 2015, on `ring`; the algorithm is fixed by the verifier, never read from the token |
//! | `bs58` | keys in DID documents (multibase `z`) | the encoder of base58 most others build on, without dependencies in the form we use |
//! | `clap_complete` | `sigilum completions` | of clap's own repository: scripts are made from the commands themselves |
//! | `indicatif` | the spinner while a gateway starts | knows terminals and their absence; in use since 2017 |
//! | `rustls-platform-verifier` | the authorities of this machine, for tests of connections | of the rustls project, in the tree with `reqwest`; a test connects to an address that was judged and needs TLS on that very connection |
//! | `notify` | `gateway.yaml` and secret files, watched | what cargo-watch, rust-analyzer and deno watch with, since 2014; inotify and kqueue behind one interface, without its optional features 4,000 lines |
//! | `tokio-tungstenite` | the bridge's WebSocket, and through axum's `ws` the control plane's | the one all of tokio's world uses, since 2017 |
//! | `hpke` | secrets sealed in a browser (RFC 9180) | in use since 2020, tested by the vectors of the RFC; on the same `x25519-dalek`, `aes-gcm` and `hkdf` we use already |
//! | `askama` | the dashboard's pages | templates are files, escaped by default and checked by the compiler; none is read at run time |
//! | `htmx.org` (in pages) | what changes by itself on a page: a gateway that connects, a claim that comes in | one file of 52 kB without dependencies, in use since 2020; runs under our policy with its `eval` switched off |
//! | `@hpke/core` (in pages) | sealing in the browser | the HPKE of the WebCrypto world, tested by the vectors of the RFC; 27 kB with everything we use, on the browser's own X25519 and AES |
//! | `if-addrs` | bind mode `tailnet` | the machine's addresses behind one safe call, on `libc` alone; the successor of `get_if_addrs` |
//! | `close_fds` | programs that know secrets inherit nothing | marks every descriptor close-on-exec in one safe call; 1,000 lines, unchanged since 2021 because there is nothing to change |
//! | `fantoccini` (tests only) | the dashboard in a real browser | a WebDriver client and nothing else, since 2017 |
//! | `boon` (tests only) | judging files by the JSON Schema of `gateway.yaml` | draft 2020-12 whole, by the author of its test suite's widest-used validators; 12 crates more, where the best known one brings 33 |
//!
//! Six of them came with the control plane. In lines of their own: `hashbrown` 24,000 (in every program already, inside of the
//! standard library), `utoipa` 10,000 without its macros and `utoipa-axum` 900, `indicatif` 6,600, `clap_complete` 4,900,
//! `jsonwebtoken` 2,700, `bs58` 1,600. `utoipa-axum` is the youngest, of 2024, and the only one that all of the API's
//! routes go through: should it end, its router is axum's own with a second list.
//!
//! `opentelemetry-proto` brings three crates (`opentelemetry`, `opentelemetry_sdk` with nothing but `trace`, and
//! `futures-executor`), and no second HTTP stack. The exporter of the same project (`opentelemetry-otlp`) was not taken: it sends what
//! its own processor gathers on a thread of its own, and cannot pass on the spans Envoy leaves with us, which are most of
//! them; what it would spare is a queue and a loop of a hundred lines.
//!
//! What was looked at and not taken: `dotenvy` for `.env` files that are imported (it gives values, but not the lines they
//! stand on, which is what has to be deleted; and it puts other variables into values, where an importer must not guess);
//! `rpassword` for a secret that is typed unseen (Ctrl-C leaves the terminal silent): `rustix` and sixty lines do it.

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
//! | `axum`, `hyper` | the admin API, the demo upstream | the server side of the same HTTP stack tonic uses already |
//! | `ed25519-dalek` | signatures | strict verification as a call of its own, run-time choice of the vector back end; see [`verification`](super::verification) |
//! | `aes-gcm` | sealing | audited implementation, constant time on the processors we run on |
//! | `ring` | deriving keys from the master key (HKDF, PBKDF2) | in the tree for TLS already |
//! | `reqwest` | the client of `sigilum request` | TLS with the system's authorities and streamed answers, without redirects or a proxy of the environment |
//! | `rusqlite` (bundled SQLite) | the store | one process writes, transactions are short: an async pool would add threads, not speed |
//! | `rustls` with `ring` | mutual TLS | no C++ tool chain needed to build, one crypto provider in the tree |
//! | `saphyr-parser` | `gateway.yaml` with line and column | a marked syntax tree; serde alone loses positions after the first mistake |
//! | `serde_yaml` (the maintained fork `serde_yaml_ng`) | the demo's approval in a copy of `gateway.yaml`; reading Envoy's file in tests | the original is archived; the fork keeps its interface |
//! | `rustix` | resource limits, parent-death signal, user ids | the calls we need without `unsafe` of ours |
//! | `prometheus` | `/metrics` | the text format and the registry, without a server of its own |
//! | `siphasher` | the keyed hash of the replay window | the 128-bit form of the hash the standard library keeps to 64 |
//! | `arc-swap` | the snapshot | readers never wait for a writer |

//! Facts in which nothing is wrong, for tests to break.

#![allow(clippy::unwrap_used, reason = "test code may panic")]

use std::path::Path;

use super::*;
use crate::envoy::binary::Origin;
use crate::envoy::binary::PINNED;
use crate::sys::process::PortHolder;

/// A gateway that runs and is well, with pid 7 for all.
pub(in crate::cli::doctor) fn well() -> Facts {
    let port = |name, address: &str| {
        let address: SocketAddr = address.parse().unwrap();
        let holder = Some(PortHolder { pid: 7, name: "envoy".to_owned() });
        PortFact { name, addresses: vec![address], listeners: vec![PortListener { address, holder, user: 1 }] }
    };
    let path = |name: &str| Path::new("/home/me").join(name);
    let envoy = EnvoyBinary { path: path("envoy"), version: PINNED, origin: Origin::Path };
    Facts {
        config: ConfigFacts {
            file: path("gateway.yaml"),
            exists: true,
            issues: Vec::new(),
            warnings: Vec::new(),
            access: "token",
            token: TokenFact::There,
            is_remote: false,
            used: true,
            plain: Vec::new(),
            unsigned: Vec::new(),
        },
        instance: InstanceFacts {
            supervisor: Some(7),
            pids: vec![7],
            users: vec![1],
            lock: path("lock"),
            ..InstanceFacts::default()
        },
        gateway: GatewayFacts {
            url: "http://127.0.0.1:38100".to_owned(),
            reach: Reach::Answers,
            conditions: Vec::new(),
            door: Some(Verdict::Refused),
            envoy: Some(PINNED.to_string()),
        },
        ports: vec![port("port of agents", "127.0.0.1:38000"), port("admin API", "127.0.0.1:38100")],
        envoy: EnvoyFacts { binary: Ok(Some(envoy)), installable: true, outside: false, validated: Some(Ok(())) },
        store: StoreLook::Opens,
        modes: Vec::new(),
        missing: Vec::new(),
        identity: IdentityFact::Valid("me".to_owned(), path("identity.json")),
        same_owner: Some(false),
        cores: Vec::new(),
        service: ServiceFacts { ports: (vec![38100], vec![38000]), ..ServiceFacts::default() },
        openclaw: OpenclawFact::Absent,
        integration: Integration::default(),
        residue: Vec::new(),
    }
}

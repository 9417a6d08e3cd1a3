//! What of a new configuration waits for a restart, and by what the rest of it is judged until then. Pure.

use crate::config::Config;
use crate::config::address;

/// Puts what is in force in the place of what `next` has for later, wherever something that is hot is made of both. What is
/// told as pending must not be in force in part. `moved`: the address of agents is another; `claims`: the API is asked.
pub(super) fn what_takes_a_restart(next: &mut Config, now: &Config, moved: bool, own_envoy: bool, claims: bool) {
    next.namespace.clone_from(&now.namespace);
    next.settings.gateway_namespace.clone_from(&now.settings.gateway_namespace);
    next.claims.source = now.claims.source;
    next.settings.auto_register = next.registers() && claims;
    // The addresses we have are those the system gave, which the file may have left open.
    if !moved || !own_envoy {
        next.listen.ingress.clone_from(&now.listen.ingress);
    }
    // Somebody else's Envoy takes nothing from us, and the decision must not count on what that does not do.
    if !own_envoy {
        next.settings.max_body_bytes = now.settings.max_body_bytes;
        next.envoy.trusted_hops = now.envoy.trusted_hops;
        next.envoy.tls.clone_from(&now.envoy.tls);
    }
    next.settings.allow_loopback =
        address::all_loopback(&next.listen.ingress) && address::all_loopback(&now.listen.admin);
    next.settings.traces.clone_from(&now.settings.traces);
    next.traces.clone_from(&now.traces);
    next.listen.admin.clone_from(&now.listen.admin);
    next.listen.envoy_admin.clone_from(&now.listen.envoy_admin);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use std::path::Path;

    use super::*;
    use crate::config::Flags;
    use crate::config::Machine;
    use crate::config::Sources;
    use crate::config::load;

    fn config(text: &str) -> Config {
        let sources =
            Sources { flags: &Flags::default(), env: &|_| None, saved: &|_| None, machine: &Machine::default };
        load(sources, Some((Path::new("gateway.yaml"), text))).unwrap()
    }

    const NAMED: &str = "gateway: {namespace: acme}\n";

    #[test]
    fn the_source_of_claims_waits_for_a_restart_and_whether_agents_register_with_it() {
        let registers = |text: &str, claims| {
            let mut next = config(text);
            what_takes_a_restart(&mut next, &config(NAMED), false, true, claims);
            next.settings.auto_register
        };
        let off = format!("{NAMED}claims: {{source: off}}\n");
        assert!(config(NAMED).settings.auto_register && !config(&off).settings.auto_register);
        assert!(registers(&off, true));
        // So does the name.
        assert!(registers("", true));
        assert!(!registers(&format!("{NAMED}claims: {{auto_register: false}}\n"), true), "this is hot");
        assert!(!registers(NAMED, false), "no API is asked");
    }

    #[test]
    fn what_an_envoy_of_somebody_else_does_stays() {
        let now = config("");
        for own_envoy in [false, true] {
            let mut next = config(
                "limits: {max_body_bytes: 4096}\n\
                 gateway: {trusted_hops: 2, tls: {cert_file: /c, key_file: /k}, ingress_addr: '127.0.0.1:39000'}",
            );
            let wanted = next.listen.ingress.clone();
            what_takes_a_restart(&mut next, &now, true, own_envoy, false);
            let has = (next.settings.max_body_bytes, next.envoy.trusted_hops, next.envoy.tls.is_some());
            let stays = (now.settings.max_body_bytes, now.envoy.trusted_hops, false);
            assert_eq!(has, if own_envoy { (4096, 2, true) } else { stays });
            assert_eq!(next.listen.ingress, if own_envoy { wanted } else { now.listen.ingress.clone() });
        }
    }
}

//! Where a unit and the settings differ, so that commands and the gateway would not meet. Pure.

use std::net::SocketAddr;

use crate::app::unit_file;
use crate::app::unit_file::Command;
use crate::wire::status::DriftBody;

/// Ports that the unit gives and the settings do not name. What the unit leaves out it takes from the settings itself.
pub(crate) fn ports(command: &Command, admin: &[u16], ingress: &[u16]) -> Vec<DriftBody> {
    let variable =
        |name: &str| command.environment.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    let mut found = Vec::new();
    for (field, options, environment, ports) in [
        ("admin API", &["--addr", "--gateway-port"][..], "GATEWAY_ADDR", admin),
        ("port of agents", &["--ingress-addr"], "GATEWAY_INGRESS_ADDR", ingress),
    ] {
        let mut given: Vec<_> =
            options.iter().flat_map(|option| unit_file::options(&command.arguments, option)).collect();
        if given.is_empty() {
            given.extend(variable(environment));
        }
        let mut unit: Vec<u16> = given.iter().flat_map(|value| value.split(',')).filter_map(port).collect();
        unit.dedup();
        if !unit.is_empty() && unit != *ports {
            found.push(DriftBody { field: field.to_owned(), unit: list(&unit), config: list(ports) });
        }
    }
    found
}

/// The ports of these addresses, each once in a row.
pub(crate) fn of(addresses: &[SocketAddr]) -> Vec<u16> {
    let mut ports: Vec<u16> = addresses.iter().map(SocketAddr::port).collect();
    ports.dedup();
    ports
}

/// The port of `:PORT`, `IP:PORT` or `PORT`.
fn port(address: &str) -> Option<u16> {
    address.rsplit(':').next().and_then(|port| port.trim().parse().ok())
}

fn list(ports: &[u16]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_compared_by_its_options_and_then_by_its_variables() {
        let command = |arguments: &[&str], variable: &str| Command {
            program: "/bin/sigilum".into(),
            arguments: arguments.iter().map(|one| (*one).to_owned()).collect(),
            reload: Vec::new(),
            environment: vec![("GATEWAY_ADDR".to_owned(), variable.to_owned())],
        };
        let drift = |arguments: &[&str], variable: &str| ports(&command(arguments, variable), &[38100], &[38000]);
        assert_eq!(drift(&["gateway", "start"], "127.0.0.1:38100,[::1]:38100"), [], "one port on two addresses");
        assert_eq!(drift(&["gateway", "start"], ":38100"), []);
        assert_eq!(drift(&["gateway", "start", "--addr", ":38100"], ":1"), [], "the option counts");
        let found = drift(&["gateway", "start", "--ingress-addr=0.0.0.0:1"], "38100");
        let wanted = DriftBody { field: "port of agents".to_owned(), unit: "1".to_owned(), config: "38000".to_owned() };
        assert_eq!(found, [wanted]);
    }
}

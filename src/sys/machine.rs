//! What this machine is: its addresses, and whether it is a container.

use std::net::IpAddr;
use std::path::Path;

use crate::sys::env;

/// Files that container engines put into every container.
const MARKS: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];
/// Variables that tell the same: of systemd's container interface, and of Kubernetes.
const VARIABLES: [&str; 2] = ["container", "KUBERNETES_SERVICE_HOST"];

/// Every address of its interfaces; none where the system does not tell.
pub fn addresses() -> Vec<IpAddr> {
    interfaces().into_iter().map(|(_, address)| address).collect()
}

/// The same, each with the name of its interface.
pub fn interfaces() -> Vec<(String, IpAddr)> {
    let found = if_addrs::get_if_addrs().unwrap_or_default();
    found.into_iter().map(|interface| (interface.name.clone(), interface.ip())).collect()
}

/// Whether this is a container.
pub fn is_container() -> bool {
    MARKS.iter().any(|mark| Path::new(mark).exists()) || VARIABLES.iter().any(|name| env::lookup(name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_among_the_addresses() {
        assert!(addresses().iter().any(IpAddr::is_loopback), "{:?}", addresses());
    }
}

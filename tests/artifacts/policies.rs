//! Who reaches whom on Kubernetes: what the NetworkPolicies of `deploy/k8s` let through, compared with what each process
//! listens on and calls.

use std::collections::BTreeSet;

use serde_yaml::Value;

use super::kubernetes::containers;
use super::kubernetes::entries;
use super::kubernetes::manifests;

/// Where the shared gateway lives.
const OWN: &str = "sigilum";
/// For a kubelet alone, which comes from the node: policies are not about it.
const PROBES: u64 = 38_300;

/// A pod, ours or somebody's.
struct Pod {
    name: String,
    namespace: &'static str,
    labels: Value,
    ports: BTreeSet<u64>,
}

/// Labels of the namespaces that occur.
fn namespace_labels(name: &str) -> Value {
    let more = match name {
        "agents" => "sigilum/agents: \"true\"",
        "envoys" => "sigilum/envoys: \"true\"",
        _ => "any: \"true\"",
    };
    serde_yaml::from_str(&format!("{{kubernetes.io/metadata.name: {name}, {more}}}")).unwrap()
}

/// The objects that `kubectl apply` of these overlays makes.
fn applied(overlays: &[&str]) -> Vec<Value> {
    let within = |path: &std::path::Path| {
        overlays.iter().any(|overlay| path.components().any(|part| part.as_os_str() == *overlay))
    };
    let found: Vec<_> = manifests().into_iter().filter(|(path, _)| within(path)).map(|(_, one)| one).collect();
    assert!(!found.is_empty());
    found
}

fn policies(objects: &[Value]) -> Vec<Value> {
    objects.iter().filter(|one| one["kind"] == "NetworkPolicy").cloned().collect()
}

fn our_pods(objects: &[Value]) -> Vec<Pod> {
    let with_pods = objects.iter().filter(|one| !one["spec"]["template"].is_null());
    let made = with_pods.map(|one| {
        let template = &one["spec"]["template"];
        let ports = containers(&template["spec"]);
        let ports = ports.iter().flat_map(|container| entries(container, "ports"));
        Pod {
            name: one["metadata"]["name"].as_str().unwrap().to_owned(),
            namespace: OWN,
            labels: template["metadata"]["labels"].clone(),
            ports: ports.map(|port| port["containerPort"].as_u64().unwrap()).collect(),
        }
    });
    made.collect()
}

fn somebody(name: &str, namespace: &'static str, labels: &str) -> Pod {
    Pod { name: name.to_owned(), namespace, labels: serde_yaml::from_str(labels).unwrap(), ports: BTreeSet::new() }
}

fn selects(selector: &Value, labels: &Value) -> bool {
    let equal = selector["matchLabels"].as_mapping().into_iter().flatten().all(|(key, value)| labels[key] == *value);
    let listed = entries(selector, "matchExpressions").iter().all(|rule| {
        assert_eq!(rule["operator"], "In", "another operator has to be understood here");
        entries(rule, "values").contains(&labels[&rule["key"]])
    });
    equal && listed
}

fn is_peer(peer: &Value, pod: &Pod) -> bool {
    // Addresses are for what is outside of the cluster.
    if !peer["ipBlock"].is_null() {
        return false;
    }
    let namespace = &peer["namespaceSelector"];
    let in_namespace =
        if namespace.is_null() { pod.namespace == OWN } else { selects(namespace, &namespace_labels(pod.namespace)) };
    in_namespace && (peer["podSelector"].is_null() || selects(&peer["podSelector"], &pod.labels))
}

/// Whether one side of the way is open: `direction` is that of the policies of `pod`, `other` the far end.
fn is_open(policies: &[Value], (direction, peers): (&str, &str), pod: &Pod, other: &Pod, port: u64) -> bool {
    if pod.namespace != OWN {
        return true;
    }
    let concerns = |policy: &&Value| {
        entries(&policy["spec"], "policyTypes").contains(&Value::from(direction))
            && selects(&policy["spec"]["podSelector"], &pod.labels)
    };
    let mut concerning = policies.iter().filter(concerns).peekable();
    if concerning.peek().is_none() {
        return true;
    }
    concerning.any(|policy| {
        entries(&policy["spec"], &direction.to_lowercase()).iter().any(|rule| {
            let ports = entries(rule, "ports");
            let on_port = ports.iter().any(|one| one["port"].as_u64() == Some(port) && one["protocol"] == "TCP");
            on_port && entries(rule, peers).iter().any(|peer| is_peer(peer, other))
        })
    })
}

/// All ways that are open to those of these pods that are ours, as `from > to:port`.
fn ways(policies: &[Value], pods: &[Pod]) -> BTreeSet<String> {
    let ports: BTreeSet<u64> = pods.iter().flat_map(|pod| pod.ports.iter().copied()).collect();
    let mut open = BTreeSet::new();
    for from in pods {
        for to in pods.iter().filter(|to| !to.ports.is_empty() && to.name != from.name) {
            for port in &ports {
                let leaves = is_open(policies, ("Egress", "to"), from, to, *port);
                if leaves && is_open(policies, ("Ingress", "from"), to, from, *port) {
                    open.insert(format!("{} > {}:{port}", from.name, to.name));
                }
            }
        }
    }
    open
}

#[test]
fn of_the_shared_gateway_each_reaches_what_it_calls_and_nothing_else() {
    let objects = applied(&["base", "shared", "guest", "monitoring"]);
    let mut pods = our_pods(&objects);
    assert_eq!(pods.len(), 4, "admin, data plane, replay, authz");
    pods.push(somebody("agent", "agents", "{app: agent}"));
    pods.push(somebody("envoy", "envoys", "{app: envoy}"));
    pods.push(somebody("prometheus", "monitoring", "{app.kubernetes.io/name: prometheus}"));
    pods.push(somebody("grafana", "monitoring", "{app.kubernetes.io/name: grafana}"));
    pods.push(somebody("stranger", "elsewhere", "{app.kubernetes.io/name: prometheus}"));
    let wanted = [
        "agent > sigilum-data-plane:38000",
        "envoy > sigilum-authz:38001",
        "prometheus > sigilum-admin:38100",
        "prometheus > sigilum-data-plane:38301",
        "sigilum-authz > sigilum-admin:38101",
        "sigilum-authz > sigilum-replay:6379",
        "sigilum-data-plane > sigilum-admin:38101",
        "sigilum-data-plane > sigilum-replay:6379",
    ];
    let found = ways(&policies(&objects), &pods);
    assert_eq!(found, wanted.map(str::to_owned).into());
    // No port is there for nobody.
    for pod in &pods {
        for port in pod.ports.iter().filter(|port| **port != PROBES) {
            assert!(wanted.iter().any(|way| way.ends_with(&format!("{}:{port}", pod.name))), "{} {port}", pod.name);
        }
    }
}

#[test]
fn nobody_reaches_the_pod_of_an_application_until_its_owner_says_so() {
    let objects = applied(&["base", "sidecar"]);
    let mut pods = our_pods(&objects);
    assert_eq!(pods.len(), 1);
    pods.push(somebody("neighbour", OWN, "{app: neighbour}"));
    pods.push(somebody("stranger", "elsewhere", "{app: stranger}"));
    assert!(pods[0].ports.contains(&PROBES));
    assert_eq!(ways(&policies(&objects), &pods), BTreeSet::new());
}

#[test]
fn only_who_calls_providers_or_the_api_leaves_the_cluster_and_not_for_private_addresses() {
    for (overlays, wanted) in [
        (&["base", "shared", "guest"][..], &["sigilum-admin", "sigilum-data-plane"][..]),
        (&["base", "sidecar"], &["application"]),
    ] {
        let objects = applied(overlays);
        let mut leaving = BTreeSet::new();
        for policy in policies(&objects) {
            for rule in entries(&policy["spec"], "egress") {
                for block in entries(&rule, "to").iter().map(|peer| &peer["ipBlock"]).filter(|block| !block.is_null()) {
                    let all = block["cidr"].as_str().unwrap().ends_with("/0");
                    if !all {
                        assert_eq!(block["cidr"], "169.254.20.10/32", "the name server of a node");
                        continue;
                    }
                    let (kept, wide) = (entries(block, "except"), block["cidr"] == "0.0.0.0/0");
                    let private: &[&str] = if wide {
                        &["10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"]
                    } else {
                        &["fc00::/7", "fe80::/10"]
                    };
                    assert!(private.iter().all(|range| kept.contains(&Value::from(*range))), "{policy:?}");
                    let ports = entries(&rule, "ports");
                    assert!(ports.iter().all(|port| port["port"] == 443) && !ports.is_empty(), "{policy:?}");
                    let selector = &policy["spec"]["podSelector"];
                    let chosen = our_pods(&objects).into_iter().filter(|pod| selects(selector, &pod.labels));
                    leaving.extend(chosen.map(|pod| pod.name));
                }
            }
        }
        assert_eq!(leaving, wanted.iter().map(|name| (*name).to_owned()).collect());
    }
}

//! What of the Kubernetes objects refers to each other: selectors that choose what is meant, ports that exist, time to end.

use serde_yaml::Value;

use super::kubernetes::containers;
use super::kubernetes::entries;
use super::kubernetes::manifests;

/// Manifests of this kind, by name.
fn of_kind(kind: &str) -> Vec<Value> {
    let found: Vec<_> = manifests().into_iter().map(|(_, one)| one).filter(|one| one["kind"] == kind).collect();
    assert!(!found.is_empty(), "{kind}");
    found
}

/// Deployments and StatefulSets of a file of `deploy/k8s`.
fn workloads() -> Vec<Value> {
    let all = manifests().into_iter().map(|(_, one)| one);
    all.filter(|one| one["kind"] == "Deployment" || one["kind"] == "StatefulSet").collect()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

fn chosen<'o>(selector: &Value, objects: &'o [Value], labels: impl Fn(&Value) -> &Value) -> Vec<&'o Value> {
    let wanted = selector.as_mapping().unwrap();
    assert!(!wanted.is_empty(), "an empty selector is everything");
    objects.iter().filter(|one| wanted.iter().all(|(key, value)| labels(one)[key] == *value)).collect()
}

/// The names of the workloads whose pods a selector chooses; a patched one has the name of the one it patches.
fn pods_of(selector: &Value) -> Vec<String> {
    let workloads = workloads();
    let chosen = chosen(selector, &workloads, |one| &one["spec"]["template"]["metadata"]["labels"]);
    let mut names: Vec<_> = chosen.into_iter().map(|one| name(one).to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[test]
fn every_workload_chooses_its_own_pods() {
    for workload in workloads() {
        assert_eq!(pods_of(&workload["spec"]["selector"]["matchLabels"]), [name(&workload)]);
    }
}

#[test]
fn every_workload_of_the_gateway_has_a_budget_that_is_about_its_pods() {
    let mut budgeted: Vec<String> = Vec::new();
    for budget in of_kind("PodDisruptionBudget") {
        let chosen = pods_of(&budget["spec"]["selector"]["matchLabels"]);
        assert_eq!(chosen, [name(&budget)], "a budget is called as what it is about");
        let workload = workloads().into_iter().find(|one| name(one) == name(&budget)).unwrap();
        let (one, spec) = (workload["spec"]["replicas"] == 1, &budget["spec"]);
        // Of one whoever empties the node is asked; of several one may be away.
        assert_eq!((spec["minAvailable"] == 1, spec["maxUnavailable"] == 1), (one, !one), "{}", name(&budget));
        budgeted.extend(chosen);
    }
    for workload in workloads().iter().filter(|workload| name(workload) != "application") {
        assert!(budgeted.contains(&name(workload).to_owned()), "{}", name(workload));
    }
}

#[test]
fn every_service_leads_to_a_port_of_one_workload_and_says_what_is_spoken_there() {
    for service in of_kind("Service") {
        let spec = &service["spec"];
        let chosen = pods_of(&spec["selector"]);
        assert_eq!(chosen.len(), 1, "{}: {chosen:?}", name(&service));
        let workload = workloads().into_iter().find(|one| name(one) == chosen[0]).unwrap();
        let pod = &workload["spec"]["template"]["spec"];
        let ports =
            |kind| entries(pod, kind).iter().flat_map(|container| entries(container, "ports")).collect::<Vec<_>>();
        // Before Kubernetes 1.33 a Service finds a native sidecar's port by its number alone (kubernetes/kubernetes 127958).
        let (named, numbered) = (ports("containers"), ports("initContainers"));
        for port in entries(spec, "ports") {
            let shown = format!("{} {:?}", name(&service), port["name"]);
            let target = named
                .iter()
                .find(|one| one["name"] == port["targetPort"])
                .or_else(|| numbered.iter().find(|one| one["containerPort"] == port["targetPort"]));
            assert_eq!(target.unwrap_or_else(|| panic!("{shown}"))["containerPort"], port["port"], "{shown}");
            let (spoken, _) = port["name"].as_str().unwrap().split_once('-').unwrap_or_else(|| panic!("{shown}"));
            match spoken {
                "http" | "https" | "grpc" => assert_eq!(port["appProtocol"], spoken, "{shown}"),
                // TLS around something that has no name there.
                "tls" => assert!(port["appProtocol"].is_null(), "{shown}"),
                other => panic!("{shown}: {other} says nothing"),
            }
        }
    }
}

#[test]
fn the_monitors_find_what_they_are_about() {
    for monitor in of_kind("ServiceMonitor") {
        let services = of_kind("Service");
        let chosen = chosen(&monitor["spec"]["selector"]["matchLabels"], &services, |one| &one["metadata"]["labels"]);
        assert_eq!(chosen.iter().map(|one| name(one)).collect::<Vec<_>>(), ["sigilum-admin"]);
        for endpoint in entries(&monitor["spec"], "endpoints") {
            let port = entries(&chosen[0]["spec"], "ports").into_iter().find(|port| port["name"] == endpoint["port"]);
            assert_eq!(port.unwrap()["appProtocol"], endpoint["scheme"], "{:?}", endpoint["port"]);
        }
    }
    for monitor in of_kind("PodMonitor") {
        let chosen = pods_of(&monitor["spec"]["selector"]["matchLabels"]);
        assert_eq!(chosen, ["sigilum-data-plane"]);
    }
}

#[test]
fn replicas_are_spread_over_nodes_and_replaced_without_a_gap() {
    let mut several = 0;
    for workload in workloads().iter().filter(|one| one["spec"]["replicas"].as_u64().unwrap() > 1) {
        several += 1;
        let (spec, template) = (&workload["spec"], &workload["spec"]["template"]);
        let spread = entries(&template["spec"], "topologySpreadConstraints");
        assert!(spread.iter().any(|one| one["topologyKey"] == "kubernetes.io/hostname"), "{}", name(workload));
        for constraint in spread {
            assert_eq!(
                constraint["labelSelector"]["matchLabels"],
                template["metadata"]["labels"],
                "{}",
                name(workload)
            );
        }
        assert_eq!(spec["strategy"]["rollingUpdate"]["maxUnavailable"], 0, "{}", name(workload));
    }
    assert_eq!(several, 3, "the data plane, the same with TLS, and authz for guests");
}

#[test]
fn a_pod_has_time_to_end_after_its_hooks() {
    for workload in workloads() {
        let pod = &workload["spec"]["template"]["spec"];
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
        for container in containers(pod) {
            let sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap_or_default();
            // Ours end within 15 s of being told to.
            assert!(sleep + 15 <= grace, "{} {:?}: {sleep} s of {grace} s", name(&workload), container["name"]);
        }
    }
}

#[test]
fn the_account_of_every_pod_is_there_and_has_no_token() {
    let accounts = of_kind("ServiceAccount");
    for workload in workloads() {
        let pod = &workload["spec"]["template"]["spec"];
        let account = accounts.iter().find(|one| one["metadata"]["name"] == pod["serviceAccountName"]);
        assert_eq!(account.unwrap()["automountServiceAccountToken"], false, "{}", name(&workload));
        assert_eq!(pod["enableServiceLinks"], false, "{}: a Service may be called `gateway`", name(&workload));
    }
}

#[test]
fn every_certificate_is_a_secret_that_somebody_mounts_and_names_what_is_called() {
    let services: Vec<_> = of_kind("Service").iter().map(|one| name(one).to_owned()).collect();
    let mounted: Vec<_> = workloads()
        .iter()
        .flat_map(|workload| entries(&workload["spec"]["template"]["spec"], "volumes"))
        .map(|volume| volume["secret"]["secretName"].clone())
        .collect();
    for certificate in of_kind("Certificate") {
        let spec = &certificate["spec"];
        // The authority signs the others; what an Envoy of yours shows is mounted by yours.
        if spec["isCA"] != true && spec["secretName"] != "sigilum-envoy-tls" {
            assert!(mounted.contains(&spec["secretName"]), "{}", name(&certificate));
        }
        let (names, usages) = (entries(spec, "dnsNames"), entries(spec, "usages"));
        if usages.contains(&Value::from("server auth")) {
            assert!(services.iter().any(|service| names.contains(&Value::from(service.as_str()))), "{names:?}");
        }
    }
}

//! Every pod of `deploy/` is accepted where the Pod Security level `restricted` is enforced: Kubernetes refuses others at the
//! moment a pod is made, which is later than a test.

use serde_yaml::Value;

use super::kubernetes::containers;
use super::kubernetes::entries;
use super::kubernetes::pods;

/// The kinds of volumes that level knows.
const VOLUMES: [&str; 8] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];
/// The capability that may be added.
const ADDABLE: &str = "NET_BIND_SERVICE";
/// Members of a pod that let it out.
const HOST: [&str; 3] = ["hostNetwork", "hostPID", "hostIPC"];

/// What of a pod that level does not allow.
fn violations(pod: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let context = &pod["securityContext"];
    for member in HOST {
        if pod[member] == true {
            found.push(member.to_owned());
        }
    }
    for volume in entries(pod, "volumes") {
        for kind in volume.as_mapping().unwrap().keys().filter_map(Value::as_str).filter(|key| *key != "name") {
            if !VOLUMES.contains(&kind) {
                found.push(format!("volume {kind}"));
            }
        }
    }
    if !context["sysctls"].is_null() {
        found.push("sysctls".to_owned());
    }
    for container in containers(pod) {
        let own = &container["securityContext"];
        // What a container does not say its pod says.
        let said = |member: &str| if own[member].is_null() { context[member].clone() } else { own[member].clone() };
        if said("runAsNonRoot") != true {
            found.push("runAsNonRoot".to_owned());
        }
        if said("runAsUser").as_u64() == Some(0) {
            found.push("runAsUser 0".to_owned());
        }
        if !["RuntimeDefault", "Localhost"].iter().any(|kind| said("seccompProfile")["type"] == *kind) {
            found.push("seccompProfile".to_owned());
        }
        if own["allowPrivilegeEscalation"] != false {
            found.push("allowPrivilegeEscalation".to_owned());
        }
        if own["privileged"] == true {
            found.push("privileged".to_owned());
        }
        if !own["procMount"].is_null() && own["procMount"] != "Default" {
            found.push("procMount".to_owned());
        }
        if !entries(&own["capabilities"], "drop").contains(&Value::from("ALL")) {
            found.push("capabilities.drop".to_owned());
        }
        if entries(&own["capabilities"], "add").iter().any(|added| *added != ADDABLE) {
            found.push("capabilities.add".to_owned());
        }
        if entries(&container, "ports").iter().any(|port| port["hostPort"].as_u64().is_some_and(|port| port != 0)) {
            found.push("hostPort".to_owned());
        }
    }
    found
}

#[test]
fn every_pod_keeps_to_the_restricted_level() {
    for (path, pod) in pods() {
        assert_eq!(violations(&pod), Vec::<String>::new(), "{path:?}");
    }
}

#[test]
fn whatever_that_level_refuses_would_be_found() {
    let good = r#"{
        securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}},
        containers: [{name: a, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}}}],
        volumes: [{name: a, emptyDir: {}}],
    }"#;
    assert_eq!(violations(&serde_yaml::from_str(good).unwrap()), Vec::<String>::new());
    for (from, to, wanted) in [
        ("runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot"),
        ("runAsNonRoot: true", "runAsNonRoot: true, runAsUser: 0", "runAsUser 0"),
        ("RuntimeDefault", "Unconfined", "seccompProfile"),
        ("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "allowPrivilegeEscalation"),
        ("allowPrivilegeEscalation: false, ", "", "allowPrivilegeEscalation"),
        ("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: false, privileged: true", "privileged"),
        ("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: false, procMount: Unmasked", "procMount"),
        ("drop: [ALL]", "drop: [KILL]", "capabilities.drop"),
        ("NET_BIND_SERVICE", "NET_RAW", "capabilities.add"),
        ("{name: a, sec", "{name: a, ports: [{containerPort: 1, hostPort: 1}], sec", "hostPort"),
        ("emptyDir: {}", "hostPath: {path: /}", "volume hostPath"),
        ("volumes:", "hostNetwork: true, volumes:", "hostNetwork"),
        ("volumes:", "hostPID: true, volumes:", "hostPID"),
        ("runAsNonRoot: true,", "runAsNonRoot: true, sysctls: [{name: a, value: b}],", "sysctls"),
    ] {
        assert_eq!(good.matches(from).count(), 1, "{from}");
        let bad = serde_yaml::from_str(&good.replace(from, to)).unwrap();
        assert_eq!(violations(&bad), [wanted], "{to}");
    }
}

#[test]
fn beyond_that_level_no_container_writes_to_its_own_file_system_or_has_no_bounds() {
    for (path, pod) in pods() {
        assert_eq!(pod["automountServiceAccountToken"], false, "{path:?}");
        for container in containers(&pod) {
            let name = &container["name"];
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{path:?} {name:?}");
            let resources = &container["resources"];
            for (kind, what) in [("requests", "cpu"), ("requests", "memory"), ("limits", "memory")] {
                assert!(resources[kind][what].is_string(), "{path:?} {name:?}: {kind} {what}");
            }
            // A share of the processor that ends in the middle of a decision makes it late, and nothing safer.
            assert!(resources["limits"]["cpu"].is_null(), "{path:?} {name:?}");
        }
        for volume in entries(&pod, "volumes") {
            let empty = &volume["emptyDir"];
            assert!(empty.is_null() || empty["sizeLimit"].is_string(), "{path:?} {:?}", volume["name"]);
        }
    }
}

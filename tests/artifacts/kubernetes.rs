//! The manifests of `deploy/`: valid for the API server they are sent to, and what the manual says of them holds.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use boon::Compiler;
use boon::Schemas;
use serde_json::Value as Json;
use serde_yaml::Value;

use super::UPDATE;
use super::documents;
use super::each_mapping;
use super::read;
use super::root;

/// Schemas of the kinds that are used, made by `tests/deploy/k8s-schemas.mjs`.
const SCHEMAS: &str = "tests/golden/k8s-schemas/schemas.json";
/// A kind whose types the generator of the schemas does not take.
const UNCHECKED: [&str; 1] = ["gateway.envoyproxy.io/v1alpha1/EnvoyProxy"];
/// Files of `deploy/` that are no objects of an API server.
const OTHER: [&str; 9] = [
    "compose.yaml",
    "compose.tls.yaml",
    "agents-tls.yaml",
    "kustomization.yaml",
    "gateway.yaml",
    "envoy.yaml",
    "face.yaml",
    "values.yaml",
    "sigilum-gateway.rules.yaml",
];
/// The user of the gateway's processes.
const USER: u64 = 65_532;

/// What the entries of a list are told apart by in a patch (strategic merge).
fn merge_key(list: &str) -> Option<&'static str> {
    match list {
        "containers" | "initContainers" | "volumes" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        "ports" => Some("port"),
        _ => None,
    }
}

/// Puts a patch over an object, as kustomize does; `field` is what `base` is called in its object.
fn merge(base: &mut Value, patch: &Value, field: &str) {
    match (base, patch, merge_key(field)) {
        (Value::Mapping(base), Value::Mapping(patch), _) => {
            for (key, value) in patch {
                match base.get_mut(key) {
                    Some(inner) => merge(inner, value, key.as_str().unwrap()),
                    None => drop(base.insert(key.clone(), value.clone())),
                }
            }
        }
        (Value::Sequence(base), Value::Sequence(patch), Some(key)) => {
            for entry in patch {
                match base.iter_mut().find(|one| one[key] == entry[key]) {
                    Some(one) => merge(one, entry, ""),
                    None => base.push(entry.clone()),
                }
            }
        }
        (base, patch, _) => *base = patch.clone(),
    }
}

/// A manifest and where it stands. Patches are applied to what they are about, as kustomize does: that of the sidecar overlay to its
/// application, those of `shared-tls` to what they take over of `shared`, which is there without them too.
pub(super) fn manifests() -> Vec<(PathBuf, Value)> {
    let is_manifest = |path: &Path| !OTHER.iter().any(|name| path.file_name().is_some_and(|found| found == *name));
    let mut found: Vec<_> = documents("deploy").into_iter().filter(|(path, _)| is_manifest(path)).collect();
    let patch = found.iter().position(|(path, _)| path.ends_with("sidecar/sidecars.yaml")).unwrap();
    let (_, patch) = found.remove(patch);
    let application = found.iter_mut().find(|(path, _)| path.ends_with("sidecar/application.yaml")).unwrap();
    let spec = application.1["spec"]["template"]["spec"].as_mapping_mut().unwrap();
    for (key, value) in patch["spec"]["template"]["spec"].as_mapping().unwrap() {
        assert!(spec.insert(key.clone(), value.clone()).is_none(), "{key:?} stands in both");
    }
    let (patches, mut found): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|(path, _)| path.to_str().unwrap().ends_with("-patch.yaml"));
    for (path, patch) in patches {
        let same = |(from, one): &&(PathBuf, Value)| {
            from.parent().unwrap().ends_with("k8s/shared")
                && one["kind"] == patch["kind"]
                && one["metadata"]["name"] == patch["metadata"]["name"]
        };
        let mut whole = found.iter().find(same).unwrap_or_else(|| panic!("{path:?} patches nothing")).1.clone();
        merge(&mut whole, &patch, "");
        found.push((path, whole));
    }
    found
}

/// `apps/v1/Deployment`.
fn kind(manifest: &Value) -> String {
    format!("{}/{}", manifest["apiVersion"].as_str().unwrap(), manifest["kind"].as_str().unwrap())
}

/// Specifications of pods, with where they stand.
pub(super) fn pods() -> Vec<(PathBuf, Value)> {
    let all = manifests().into_iter().filter_map(|(path, manifest)| {
        let pod = &manifest["spec"]["template"]["spec"];
        (!pod.is_null()).then(|| (path, pod.clone()))
    });
    let pods: Vec<_> = all.collect();
    assert!(pods.len() >= 5, "{} found", pods.len());
    pods
}

pub(super) fn entries(pod: &Value, list: &str) -> Vec<Value> {
    pod[list].as_sequence().cloned().unwrap_or_default()
}

/// All containers of a pod; native sidecars first.
pub(super) fn containers(pod: &Value) -> Vec<Value> {
    entries(pod, "initContainers").into_iter().chain(entries(pod, "containers")).collect()
}

fn ours(container: &Value) -> bool {
    ["sigilum", "docker.io/envoyproxy/envoy:"]
        .iter()
        .any(|image| container["image"].as_str().unwrap().starts_with(image))
}

#[test]
fn every_manifest_is_valid() {
    let schema: Json = serde_json::from_str(&read(SCHEMAS)).unwrap();
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("schemas.json", schema.clone()).unwrap();
    let mut wrong = Vec::new();
    for (path, manifest) in manifests() {
        let kind = kind(&manifest);
        if UNCHECKED.contains(&kind.as_str()) {
            continue;
        }
        let name = kind.replace('/', ".");
        assert!(
            schema["definitions"].get(&name).is_some(),
            "{path:?}: no schema of {kind}: tests/deploy/k8s-schemas.mjs"
        );
        let index = compiler.compile(&format!("schemas.json#/definitions/{name}"), &mut schemas).unwrap();
        let instance = serde_json::to_value(&manifest).unwrap();
        if let Err(error) = schemas.validate(&instance, index) {
            wrong.push(format!("{}: {error:#}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_misspelt_member_would_be_found() {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("schemas.json", serde_json::from_str(&read(SCHEMAS)).unwrap()).unwrap();
    for (name, path) in
        [("apps.v1.Deployment", "/spec/template/spec/containers/0"), ("cert-manager.io.v1.Certificate", "/spec")]
    {
        let index = compiler.compile(&format!("schemas.json#/definitions/{name}"), &mut schemas).unwrap();
        let manifest = manifests().into_iter().find(|(_, found)| kind(found).replace('/', ".") == name).unwrap().1;
        let mut instance = serde_json::to_value(&manifest).unwrap();
        instance.pointer_mut(path).unwrap()["misspelt"] = Json::Bool(true);
        assert!(schemas.validate(&instance, index).is_err(), "{name}");
    }
}

#[test]
fn every_image_is_pinned() {
    for (path, pod) in pods() {
        for container in containers(&pod) {
            let image = container["image"].as_str().unwrap();
            // The overlays give ours the version of this tree.
            if image != "sigilum" {
                let tag = image.rsplit_once('/').map_or(image, |(_, last)| last).split_once(':').map(|(_, tag)| tag);
                assert!(tag.is_some_and(|tag| tag != "latest" && tag.contains('.')), "{path:?}: {image}");
            }
        }
    }
    for (path, document) in documents("deploy") {
        for image in document["images"].as_sequence().into_iter().flatten() {
            assert_eq!(image["newTag"].as_str(), Some(env!("CARGO_PKG_VERSION")), "{path:?}");
        }
        for labels in document["labels"].as_sequence().into_iter().flatten() {
            let version = labels["pairs"]["app.kubernetes.io/version"].as_str();
            assert_eq!(version, Some(env!("CARGO_PKG_VERSION")), "{path:?}");
        }
    }
}

#[test]
fn no_manifest_holds_a_secret() {
    for (path, manifest) in manifests() {
        assert_ne!(manifest["kind"].as_str(), Some("Secret"), "{path:?}");
        each_mapping(&manifest, &mut |mapping| {
            let (name, value) = (mapping.get("name").and_then(Value::as_str), mapping.get("value"));
            let sounds = ["KEY", "TOKEN", "PASSWORD", "SECRET"];
            let secret = name.is_some_and(|name| sounds.iter().any(|part| name.ends_with(part)));
            assert!(!(secret && value.is_some()), "{path:?}: {name:?}");
        });
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("PRIVATE KEY") && !text.contains("stringData"), "{path:?}");
    }
}

#[test]
fn every_port_is_in_the_readme() {
    let readme = read("README.md");
    let documented = |port: &Value| port.as_u64().is_none_or(|port| readme.contains(&format!("| {port} |")));
    for (path, manifest) in manifests() {
        if manifest["kind"] == "NetworkPolicy" || path.starts_with(root().join("deploy/istio")) {
            continue;
        }
        each_mapping(&manifest, &mut |mapping| {
            for key in ["containerPort", "port", "targetPort"] {
                let port = mapping.get(key).unwrap_or(&Value::Null);
                assert!(documented(port) || port.as_u64() == Some(443), "{path:?}: {key} {port:?}");
            }
        });
    }
}

#[test]
fn whatever_shares_a_socket_runs_as_one_user_and_nothing_else_does() {
    for (path, pod) in pods() {
        for container in containers(&pod) {
            let user =
                container["securityContext"]["runAsUser"].as_u64().or(pod["securityContext"]["runAsUser"].as_u64());
            if ours(&container) {
                assert_eq!(user, Some(USER), "{path:?} {:?}", container["name"]);
                continue;
            }
            let mounts = container["volumeMounts"].as_sequence().into_iter().flatten();
            let places: Vec<_> = mounts.filter_map(|mount| mount["mountPath"].as_str()).collect();
            assert!(!places.iter().any(|place| place.starts_with("/run/sigilum")), "{path:?}: {places:?}");
        }
        if path.ends_with("sidecar/application.yaml") {
            let application = &pod["containers"][0];
            assert_ne!(application["securityContext"]["runAsUser"].as_u64(), Some(USER), "it could open the sockets");
            assert!(application["volumeMounts"].is_null(), "{path:?}");
        }
    }
}

#[test]
fn the_sidecars_leave_the_pod_to_its_owner() {
    let patch: Value = serde_yaml::from_str(&read("deploy/k8s/sidecar/sidecars.yaml")).unwrap();
    let pod = &patch["spec"]["template"]["spec"];
    let set: Vec<_> = pod.as_mapping().unwrap().keys().filter_map(Value::as_str).collect();
    assert_eq!(set, ["enableServiceLinks", "initContainers", "volumes"], "README.md lists what it sets");
    // Whether the application has a token of the API server is its owner's to say: the gateway has none.
    let empty: Vec<_> = entries(pod, "volumes").into_iter().filter(|volume| !volume["emptyDir"].is_null()).collect();
    for container in containers(pod) {
        let mounts = entries(&container, "volumeMounts");
        let token = "/var/run/secrets/kubernetes.io/serviceaccount";
        let mount = mounts.iter().find(|mount| mount["mountPath"] == token).unwrap();
        assert!(empty.iter().any(|volume| volume["name"] == mount["name"]), "{:?}", container["name"]);
    }
}

#[test]
fn every_container_of_ours_is_probed_and_every_sidecar_is_a_native_one() {
    for (path, pod) in pods() {
        for container in containers(&pod).iter().filter(|container| ours(container)) {
            for probe in ["startupProbe", "livenessProbe"] {
                assert!(!container[probe].is_null(), "{path:?} {:?}: {probe}", container["name"]);
            }
        }
        for sidecar in entries(&pod, "initContainers") {
            assert_eq!(sidecar["restartPolicy"], "Always", "{path:?} {:?}", sidecar["name"]);
        }
        assert!(containers(&pod).iter().any(|container| !container["readinessProbe"].is_null()), "{path:?}");
    }
}

#[test]
fn a_drain_ends_before_its_pod_is_killed() {
    let mut drains = 0;
    for (path, pod) in pods() {
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
        for container in containers(&pod) {
            let command =
                container["lifecycle"]["preStop"]["exec"]["command"].as_sequence().cloned().unwrap_or_default();
            let mut words = command.iter().filter_map(Value::as_str).skip_while(|word| *word != "--wait");
            if let Some(wait) = words.nth(1) {
                drains += 1;
                let wait: u64 = wait.strip_suffix('s').unwrap().parse().unwrap();
                // Then authz and Envoy end: each has its own grace.
                assert!(wait + 20 <= grace, "{path:?}: {wait} s of {grace} s");
            }
        }
    }
    assert_eq!(drains, 3, "the sidecar, the shared data plane, and the same with TLS");
}

#[test]
fn whatever_is_mounted_exists_in_its_pod() {
    for (path, pod) in pods() {
        let mut volumes: Vec<_> = entries(&pod, "volumes").iter().map(|volume| volume["name"].clone()).collect();
        volumes.push("data".into()); // of a StatefulSet's claims
        for container in containers(&pod) {
            for mount in container["volumeMounts"].as_sequence().into_iter().flatten() {
                assert!(volumes.contains(&mount["name"]), "{path:?}: {:?}", mount["name"]);
            }
        }
    }
}

#[test]
fn every_file_of_an_overlay_is_in_its_list() {
    for (path, list) in documents("deploy").into_iter().filter(|(path, _)| path.ends_with("kustomization.yaml")) {
        let folder = path.parent().unwrap();
        let mut listed = vec!["kustomization.yaml".to_owned()];
        for (key, inner) in [("resources", None), ("components", None), ("patches", Some("path"))] {
            for entry in list[key].as_sequence().into_iter().flatten() {
                let name = inner.map_or(entry, |inner| &entry[inner]).as_str().unwrap();
                assert!(folder.join(name).exists(), "{path:?}: {name}");
                listed.push(name.to_owned());
            }
        }
        for map in list["configMapGenerator"].as_sequence().into_iter().flatten() {
            listed.extend(map["files"].as_sequence().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()));
        }
        for entry in fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(listed.contains(&name), "{path:?} does not name {name}");
        }
    }
}

/// The binary with nothing of this machine's settings.
fn sigilum(arguments: &[&str]) -> std::process::Output {
    sigilum_with(&[], arguments)
}

fn sigilum_with(variables: &[(&str, &str)], arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sigilum"));
    command.args(arguments).env_clear().env("HOME", env!("CARGO_TARGET_TMPDIR")).envs(variables.iter().copied());
    command.output().unwrap()
}

#[test]
fn envoys_file_of_each_overlay_is_the_printed_one() {
    let shared = ["--stats-addr", "0.0.0.0:38301", "--access-log", "stdout"];
    // Beside an application loopback is the application's too.
    let sds = [&shared[..], &["--sds-file", "/etc/envoy/agents-tls.yaml"]].concat();
    let print = [&sds[..], &["--print-sds"]].concat();
    for (overlay, settings, more, name) in [
        ("sidecar", "sidecar", &["--no-admin-face"][..], "envoy.yaml"),
        ("shared", "shared", &shared, "envoy.yaml"),
        ("shared-tls", "shared", &sds, "envoy.yaml"),
        ("shared-tls", "shared", &print, "agents-tls.yaml"),
    ] {
        let folder = root().join("deploy/k8s");
        let settings = folder.join(settings).join("gateway.yaml").display().to_string();
        let words = ["gateway", "envoy-config", "--config", &settings, "--probe-addr", "0.0.0.0:38300"];
        // As the overlay mounts the Secret.
        let tls: &[(&str, &str)] = &[
            ("GATEWAY_TLS_CERT_FILE", "/run/secrets/sigilum-agents-tls/tls.crt"),
            ("GATEWAY_TLS_KEY_FILE", "/run/secrets/sigilum-agents-tls/tls.key"),
        ];
        let tls = if overlay == "shared-tls" { tls } else { &[] };
        let printed = sigilum_with(tls, &[&words, more].concat());
        assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
        let file = folder.join(overlay).join(name);
        if std::env::var_os(UPDATE).is_some() {
            fs::write(&file, &printed.stdout).unwrap();
        }
        let stale = fs::read(&file).unwrap() != printed.stdout;
        assert!(!stale, "{file:?} is stale: run `{UPDATE}=1 cargo test --test artifacts`");
    }
}

#[test]
fn beside_an_application_nothing_of_envoys_own_is_on_a_port() {
    let file: Value = serde_yaml::from_str(&read("deploy/k8s/sidecar/envoy.yaml")).unwrap();
    let listeners = file["static_resources"]["listeners"].as_sequence().unwrap();
    let names: Vec<&str> = listeners.iter().map(|listener| listener["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ingress", "probe"]);
    assert!(!file["admin"]["address"]["pipe"].is_null(), "it is on a socket");
    assert!(!file["static_resources"]["clusters"].as_sequence().unwrap().is_empty());
}

#[test]
fn the_settings_of_each_overlay_are_valid() {
    for overlay in ["sidecar", "shared"] {
        let settings = root().join("deploy/k8s").join(overlay).join("gateway.yaml").display().to_string();
        let checked = sigilum(&["gateway", "config", "check", "--config", &settings]);
        assert!(checked.status.success(), "{overlay}: {}", String::from_utf8_lossy(&checked.stderr));
    }
}

#[test]
fn the_rules_of_the_operator_are_those_of_prometheus() {
    let rules = "deploy/k8s/monitoring/rules.yaml";
    let (head, _) = read(rules).split_once("spec:\n").map(|(head, rest)| (head.to_owned(), rest.to_owned())).unwrap();
    let alone = read("deploy/prometheus/sigilum-gateway.rules.yaml");
    let from = alone.find("groups:").unwrap();
    let inner: String = alone[from..].lines().map(|line| format!("  {line}\n")).collect();
    let wanted = format!("{head}spec:\n{inner}");
    if std::env::var_os(UPDATE).is_some() {
        fs::write(root().join(rules), &wanted).unwrap();
    }
    assert!(read(rules) == wanted, "{rules} is stale: run `{UPDATE}=1 cargo test --test artifacts`");
}

/// Ports of a list of rules of a policy's ingress.
fn ports(rule: &Value) -> Vec<u64> {
    let ports = rule["ports"].as_sequence().unwrap();
    ports.iter().map(|port| port["port"].as_u64().unwrap()).collect()
}

#[test]
fn envoys_statistics_are_for_prometheus_and_agents_do_not_reach_them() {
    let all = manifests();
    let of = |name: &str, kind: &str| {
        let found = all.iter().find(|(_, one)| one["metadata"]["name"] == name && one["kind"] == kind);
        found.unwrap_or_else(|| panic!("no {kind} {name}")).1.clone()
    };
    // What the monitor names is a port of that pod, and no Service has it.
    let monitor = of("sigilum-envoy", "PodMonitor");
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    assert_eq!(endpoint["path"], "/stats/prometheus");
    let deployment = of("sigilum-data-plane", "Deployment");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    for (label, value) in monitor["spec"]["selector"]["matchLabels"].as_mapping().unwrap() {
        assert_eq!(&labels[label], value);
    }
    let envoy = &deployment["spec"]["template"]["spec"]["initContainers"][0];
    let named = |port: &&Value| port["name"] == endpoint["port"];
    let port = envoy["ports"].as_sequence().unwrap().iter().find(named).unwrap()["containerPort"].as_u64().unwrap();
    for (path, service) in all.iter().filter(|(_, one)| one["kind"] == "Service") {
        for published in service["spec"]["ports"].as_sequence().unwrap() {
            let target = &published["targetPort"];
            assert!(*target != endpoint["port"] && target.as_u64() != Some(port), "{path:?}");
        }
    }
    // Of the policies one opens it, and to Prometheus.
    let rules = |policy: &Value| policy["spec"]["ingress"].as_sequence().cloned().unwrap_or_default();
    let opens = |(_, one): &&(PathBuf, Value)| {
        one["kind"] == "NetworkPolicy" && rules(one).iter().any(|rule| ports(rule).contains(&port))
    };
    let opening: Vec<_> = all.iter().filter(opens).collect();
    assert_eq!(opening.len(), 1);
    for rule in rules(&opening[0].1) {
        let from = rule["from"].as_sequence().unwrap();
        let prometheus = |peer: &Value| peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == "prometheus";
        assert!(!from.is_empty() && from.iter().all(prometheus));
    }
    assert_eq!(of("sigilum-data-plane", "NetworkPolicy")["spec"]["ingress"].as_sequence().unwrap().len(), 1);
}

#[test]
fn prometheus_holds_a_token_that_opens_the_metrics_and_nothing_else() {
    let all = manifests();
    let monitor = &all.iter().find(|(_, one)| one["kind"] == "ServiceMonitor").unwrap().1;
    let credentials = &monitor["spec"]["endpoints"][0]["authorization"]["credentials"];
    let settings: Value = serde_yaml::from_str(&read("deploy/k8s/shared/gateway.yaml")).unwrap();
    let file = Path::new(settings["admin"]["metrics_token_file"].as_str().unwrap()).to_owned();
    let (_, admin) =
        all.iter().find(|(path, one)| path.ends_with("shared/admin.yaml") && one["kind"] == "Deployment").unwrap();
    let pod = &admin["spec"]["template"]["spec"];
    let mounts = pod["containers"][0]["volumeMounts"].as_sequence().unwrap();
    let mount = mounts.iter().find(|mount| file.parent() == mount["mountPath"].as_str().map(Path::new)).unwrap();
    let volume = entries(pod, "volumes").into_iter().find(|volume| volume["name"] == mount["name"]).unwrap();
    assert_eq!(volume["secret"]["secretName"], credentials["name"]);
    assert_eq!(volume["secret"]["items"][0]["key"], credentials["key"]);
    assert_eq!(volume["secret"]["items"][0]["path"].as_str().map(Path::new), file.file_name().map(Path::new));
}

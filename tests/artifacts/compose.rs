//! The compose file: what it runs is pinned, and may be named otherwise without an edit.

use serde_yaml::Value;

use super::files;
use super::read;
use super::root;

fn compose(name: &str) -> Value {
    let mut file: Value = serde_yaml::from_str(&read(&format!("deploy/{name}"))).unwrap();
    file.apply_merge().unwrap();
    file
}

/// `${NAME:-default}` as its two parts.
fn variable(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix("${")?.strip_suffix('}')?.split_once(":-")
}

#[test]
fn every_image_is_pinned_and_can_be_named_by_its_digest() {
    let file = compose("compose.yaml");
    let readme = read("README.md");
    let mut images = Vec::new();
    for (name, service) in file["services"].as_mapping().unwrap() {
        let image = service["image"].as_str().unwrap_or_else(|| panic!("{name:?} has no image"));
        let (variable, default) = variable(image).unwrap_or_else(|| panic!("{name:?}: {image}"));
        let tag = default.rsplit_once('/').map_or(default, |(_, last)| last).split_once(':').unwrap().1;
        assert!(tag != "latest" && tag.contains('.'), "{name:?}: {default}");
        assert!(readme.contains(&format!("`{variable}`")), "README.md does not tell of {variable}");
        images.push(default.to_owned());
    }
    images.sort_unstable();
    images.dedup();
    let ours = format!("sigilum:{}", env!("CARGO_PKG_VERSION"));
    // The manifests run the same Envoy.
    let envoy = images.iter().find(|image| image.contains("/envoy:")).unwrap();
    assert!(read("deploy/k8s/shared/data-plane.yaml").contains(&format!("image: {envoy}\n")), "{envoy}");
    assert!(images.contains(&ours) && images.len() == 2, "{images:?}");
}

#[test]
fn the_builder_is_pinned_and_both_bases_may_be_replaced() {
    let dockerfile = read("deploy/Dockerfile");
    let argument = |name: &str| {
        let line = dockerfile.lines().find_map(|line| line.strip_prefix(&format!("ARG {name}="))).map(str::to_owned);
        line.unwrap_or_else(|| panic!("no argument {name}"))
    };
    let builder = argument("BUILD_IMAGE");
    let tag = builder.rsplit_once(':').unwrap().1;
    assert!(tag.starts_with(|first: char| first.is_ascii_digit()) && tag.matches('.').count() >= 2, "{builder}");
    assert_eq!(argument("RUNTIME_IMAGE"), "scratch");
    let bases: Vec<_> = dockerfile.lines().filter(|line| line.starts_with("FROM ")).collect();
    assert_eq!(bases, ["FROM ${BUILD_IMAGE} AS build", "FROM ${RUNTIME_IMAGE}"]);
}

#[test]
fn the_builder_is_given_every_file_the_program_includes() {
    let (ignored, dockerfile) = (read(".dockerignore"), read("deploy/Dockerfile"));
    let given = ["envoy", "proto", "src"];
    for folder in given {
        assert!(ignored.lines().any(|line| line == format!("!{folder}")), "{folder}");
        assert!(dockerfile.lines().any(|line| line == format!("COPY {folder} {folder}")), "{folder}");
    }
    let mut included = 0;
    for path in files("src", &["rs"]).iter().filter(|path| !path.to_str().unwrap().ends_with("_tests.rs")) {
        let text = std::fs::read_to_string(path).unwrap();
        for rest in ["include_str!(\"", "include_bytes!(\""].iter().flat_map(|macro_| text.split(macro_).skip(1)) {
            let file = path.parent().unwrap().join(rest.split_once('"').unwrap().0).canonicalize().unwrap();
            let inside = file.strip_prefix(root().canonicalize().unwrap()).unwrap();
            assert!(given.iter().any(|folder| inside.starts_with(folder)), "{}: {}", path.display(), inside.display());
            included += 1;
        }
    }
    assert!(included > 5);
}

#[test]
fn tls_for_agents_is_mounted_where_envoys_file_says_and_for_envoy_alone() {
    let (base, tls) = (compose("compose.yaml"), compose("compose.tls.yaml"));
    let services: Vec<_> = tls["services"].as_mapping().unwrap().keys().filter_map(Value::as_str).collect();
    assert_eq!(services, ["envoy-file", "envoy"]);
    let mount = tls["services"]["envoy"]["volumes"][0].as_str().unwrap();
    let folder = mount.rsplit_once(":/").and_then(|(_, rest)| rest.strip_suffix(":ro")).unwrap();
    let variables = &tls["services"]["envoy-file"]["environment"];
    for name in ["GATEWAY_TLS_CERT_FILE", "GATEWAY_TLS_KEY_FILE"] {
        let file = variables[name].as_str().unwrap();
        assert!(file.starts_with(&format!("/{folder}/tls.")), "{name}: {file}, but /{folder} is mounted");
    }
    // Envoy takes a renewed one by way of a file that both containers see.
    let command = base["services"]["envoy-file"]["command"].as_sequence().unwrap();
    let place = command.iter().skip_while(|word| *word != "--sds-file").nth(1).unwrap().as_str().unwrap();
    for service in ["envoy", "envoy-file"] {
        let volumes = base["services"][service]["volumes"].as_sequence().unwrap();
        let folders: Vec<_> = volumes.iter().filter_map(|one| one.as_str()?.split(':').nth(1)).collect();
        assert!(folders.iter().any(|folder| place.starts_with(&format!("{folder}/"))), "{service}: {folders:?}");
    }
}

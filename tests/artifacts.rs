//! Files of the repository that must agree with the code, and with each other.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test code may panic, and writes on request"
)]

#[path = "artifacts/compose.rs"]
mod compose;
#[path = "artifacts/kubernetes.rs"]
mod kubernetes;
#[path = "artifacts/policies.rs"]
mod policies;
#[path = "artifacts/restricted.rs"]
mod restricted;
#[path = "artifacts/workloads.rs"]
mod workloads;

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize as _;
use serde_yaml::Value;
use sigilum::config::api;
use sigilum::config::keys;
use sigilum::config::structure;
use sigilum::domain::symptom;

/// Set to write what is generated instead of comparing it.
const UPDATE: &str = "SIGILUM_UPDATE_ARTIFACTS";
/// What stands around the generated tables in the README.
const TABLES: [(&str, &str); 4] = [
    ("<!-- settings -->\n", "<!-- /settings -->"),
    ("<!-- declarations -->\n", "<!-- /declarations -->"),
    ("<!-- api settings -->\n", "<!-- /api settings -->"),
    ("<!-- symptoms -->\n", "<!-- /symptoms -->"),
];
/// Everything the top level may hold besides dot files and what cargo builds.
const TOP_LEVEL: [&str; 10] =
    ["CHANGELOG.md", "Cargo.lock", "Cargo.toml", "LICENSE", "README.md", "deploy", "envoy", "proto", "src", "tests"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files below a folder of the repository whose names end in one of these; none where it does not exist.
fn files(folder: &str, kinds: &[&str]) -> Vec<PathBuf> {
    let mut folders = vec![root().join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kinds.iter().any(|wanted| kind == *wanted)) {
                found.push(path);
            }
        }
    }
    found
}

/// The YAML documents below a folder of the repository, with their files; none where it does not exist.
fn documents(folder: &str) -> Vec<(PathBuf, Value)> {
    let mut found = Vec::new();
    for path in files(folder, &["yaml", "yml"]) {
        let text = fs::read_to_string(&path).unwrap();
        found.extend(serde_yaml::Deserializer::from_str(&text).map(|document| {
            (path.clone(), Value::deserialize(document).unwrap_or_else(|error| panic!("{path:?}: {error}")))
        }));
    }
    found
}

/// Calls `visit` with every mapping below `value`.
fn each_mapping(value: &Value, visit: &mut impl FnMut(&serde_yaml::Mapping)) {
    if let Some(mapping) = value.as_mapping() {
        visit(mapping);
        mapping.values().for_each(|inner| each_mapping(inner, visit));
    }
    for inner in value.as_sequence().into_iter().flatten() {
        each_mapping(inner, visit);
    }
}

#[test]
fn the_tables_of_the_readme_are_the_generated_ones() {
    let readme = read("README.md");
    let mut wanted = readme.clone();
    let tables = [keys::table(), structure::table(), keys::table_of(api::ALL), symptom::table()];
    for ((begin, end), table) in TABLES.into_iter().zip(tables) {
        let (before, rest) = wanted.split_once(begin).unwrap();
        let (_, after) = rest.split_once(end).unwrap();
        wanted = format!("{before}{begin}{table}{end}{after}");
    }
    if std::env::var_os(UPDATE).is_some() {
        fs::write(root().join("README.md"), wanted).unwrap();
        return;
    }
    assert!(readme == wanted, "a table is stale: run `{UPDATE}=1 cargo test --test artifacts`");
}

#[test]
fn every_setting_of_the_table_is_one_line_and_complete() {
    let table = keys::table();
    assert_eq!(table.lines().count(), keys::ALL.len() + 2);
    for name in keys::environment() {
        assert!(table.contains(&format!("`{name}`")), "{name}");
    }
    assert!(table.lines().all(|line| line.matches(" | ").count() == 5), "a cell holds a bare bar:\n{table}");
}

#[test]
fn no_ext_authz_filter_of_any_file_fails_open_or_joins_headers() {
    let mut filters = 0;
    for (path, document) in documents("envoy").iter().chain(&documents("deploy")) {
        each_mapping(document, &mut |mapping| {
            for open in ["failure_mode_allow", "failureModeAllow", "failOpen"] {
                assert!(mapping.get(open).is_none_or(|value| *value == Value::Bool(false)), "{path:?}: {open}");
            }
            let kind = mapping.get("@type").and_then(Value::as_str).unwrap_or_default();
            if kind.ends_with("filters.http.ext_authz.v3.ExtAuthz") {
                filters += 1;
                assert_eq!(mapping.get("encode_raw_headers"), Some(&Value::Bool(true)), "{path:?}");
                assert_eq!(mapping.get("failure_mode_allow"), Some(&Value::Bool(false)), "{path:?}");
            }
        });
    }
    assert!(filters >= 2, "envoy/envoy.yaml asks twice; {filters} found");
}

#[test]
fn the_top_level_holds_what_it_may() {
    let unknown: Vec<_> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') && name != "target" && !TOP_LEVEL.contains(&name.as_str()))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let licence = read("LICENSE");
    assert!(licence.contains("Apache License") && licence.contains("Version 2.0, January 2004"));
    assert!(read("Cargo.toml").contains("license = \"Apache-2.0\""));
    assert!(read("CHANGELOG.md").contains("## [Unreleased]\n\n### "), "nothing stands under Unreleased");
}

#[test]
fn every_dependency_comes_from_the_public_registry() {
    for lock in ["Cargo.lock", "tests/fuzz/Cargo.lock"] {
        for line in read(lock).lines().filter(|line| line.starts_with("source = ")) {
            assert_eq!(line, "source = \"registry+https://github.com/rust-lang/crates.io-index\"", "{lock}");
        }
    }
}

#[test]
fn every_page_of_the_manual_is_listed() {
    let index = read("src/manual/mod.rs");
    for entry in fs::read_dir(root().join("src/manual")).unwrap() {
        let page = entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(page == "mod" || index.contains(&format!("pub mod {page};")), "{page}");
    }
}

#[test]
fn the_face_of_the_compose_stack_has_the_routes_of_the_shipped_one() {
    let face = |path: &str| {
        let file: Value = serde_yaml::from_str(&read(path)).unwrap();
        let listeners = file["static_resources"]["listeners"].as_sequence().unwrap();
        let face = listeners.iter().find(|listener| listener["name"] == "admin_face").unwrap();
        let filters = face["filter_chains"][0]["filters"].as_sequence().unwrap().clone();
        let clusters = file["static_resources"]["clusters"].as_sequence().unwrap();
        let admin = clusters.iter().find(|cluster| cluster["name"] == "envoy_admin").unwrap().clone();
        let manager = filters.last().unwrap();
        (filters[0].clone(), manager["typed_config"]["route_config"].clone(), admin)
    };
    assert_eq!(face("deploy/config/face.yaml"), face("envoy/envoy.yaml"));
}

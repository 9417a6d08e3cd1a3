//! The house rules a machine can check: layering, purity, module size, import form.
//!
//! std only, so it stays fast and needs no feature. Items under `#[cfg(test)]` are test code and are not read.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "test code may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Module -> modules it may name with `crate::`. A module may always name itself.
/// Order is bottom to top: an entry may only list modules above it in this table.
const LAYERS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("wire", &["domain"]),
    ("config", &["domain"]),
    ("sys", &["domain"]),
    ("telemetry", &["domain", "config", "sys"]),
    ("secrets", &["domain", "config", "sys", "telemetry"]),
    ("store", &["domain", "config", "sys", "telemetry"]),
    ("identity", &["domain", "config", "sys", "telemetry"]),
    ("state", &["domain", "config", "sys", "telemetry", "wire"]),
    ("gate", &["domain"]),
    ("authz", &["domain", "config", "sys", "telemetry", "wire", "state", "gate"]),
    ("claims", &["domain", "config", "sys", "telemetry", "wire", "identity", "state"]),
    ("probe", &["domain", "config", "sys", "telemetry", "wire"]),
    ("admin", &["domain", "config", "sys", "telemetry", "wire", "secrets", "store", "state", "claims", "probe"]),
    ("api", &["domain", "config", "sys", "telemetry", "wire"]),
    ("dashboard", &["domain", "config", "sys", "telemetry", "wire", "api"]),
    ("pair", &["domain", "config", "sys", "telemetry", "wire"]),
    ("envoy", &["domain", "config", "sys", "telemetry"]),
    (
        "reload",
        &["domain", "config", "sys", "telemetry", "wire", "secrets", "store", "state", "claims", "admin", "envoy"],
    ),
    ("demo", &["domain", "config", "sys", "telemetry", "wire", "identity", "claims"]),
    (
        "app",
        &[
            "domain",
            "config",
            "sys",
            "telemetry",
            "secrets",
            "store",
            "identity",
            "state",
            "gate",
            "authz",
            "claims",
            "probe",
            "admin",
            "api",
            "dashboard",
            "pair",
            "envoy",
            "reload",
            "demo",
        ],
    ),
    ("cli", &["domain", "config", "sys", "telemetry", "wire", "identity", "envoy", "secrets", "reload", "app"]),
];

/// Path prefixes that must stay free of IO, clocks, randomness, environment, tasks and logging.
const PURE: &[&str] = &["domain/", "wire/", "config/", "gate/", "pair/"];

const IMPURE: &[&str] = &[
    "async fn",
    ".await",
    "tokio::",
    "reqwest::",
    "tracing::",
    "std::env",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::process",
    "std::thread",
    "SystemTime",
    "Instant::now",
    "rand::",
];

const MAX_LINES: usize = 600;

#[test]
fn layers_only_point_down() {
    let order: Vec<_> = LAYERS.iter().map(|(name, _)| *name).collect();
    for (index, (name, uses)) in LAYERS.iter().enumerate() {
        for used in *uses {
            assert!(order[..index].contains(used), "{name} lists {used}, which is not below it");
        }
    }

    let allowed: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let Some((module, _)) = path.split_once('/') else { continue };
        if module == "manual" {
            continue;
        }
        let Some(uses) = allowed.get(module) else {
            broken.push(format!("{path}: {module}/ is not in LAYERS"));
            continue;
        };
        for (number, line) in code(&text) {
            if line.contains("crate::{") || line.contains("super::super") || line.contains("crate::*") {
                broken.push(format!("{path}:{number}: name one module per `use crate::` line"));
            }
            for named in crate_names(line) {
                if named != module && !uses.contains(&named) {
                    broken.push(format!("{path}:{number}: {module} may not use {named}"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn pure_code_does_no_io() {
    let broken: Vec<_> = sources()
        .into_iter()
        .filter(|(path, _)| PURE.iter().any(|pure| path.starts_with(pure)))
        .flat_map(|(path, text)| {
            code(&text)
                .filter(|(_, line)| IMPURE.iter().any(|word| line.contains(word)))
                .map(|(number, line)| format!("{path}:{number}: {}", line.trim()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn modules_fit_in_a_head() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|(path, text)| (path, production(&text).count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .collect();
    assert!(long.is_empty(), "over {MAX_LINES} lines of production code: {long:?}");
}

/// The fuzz targets are a package of their own with a lock file of its own; CI builds both as locked. A dependency that
/// is new in one and unknown to the other stops CI, so it is told here, where it costs nothing.
#[test]
fn lock_file_of_fuzz_targets_follows_ours() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).expect(name);
    let (ours, theirs) = (read("Cargo.lock"), read("tests/fuzz/Cargo.lock"));
    let manifest = read("Cargo.toml");
    // A name is followed by its version where the lock file has several.
    let names = |text: &str| -> Vec<String> {
        let listed = section(text, "name = \"sigilum\"").into_iter().filter(|line| line.starts_with(" \""));
        listed.filter_map(|line| line.trim_matches([' ', '"', ',']).split(' ').next().map(str::to_owned)).collect()
    };
    let of_tests = section(&manifest, "[dev-dependencies]");
    let locked = names(&theirs);
    let mut missing = names(&ours);
    missing.retain(|name| {
        !locked.contains(name) && !of_tests.iter().any(|line| line.split([' ', '.']).next() == Some(name))
    });
    assert!(missing.is_empty(), "run `cargo check --manifest-path tests/fuzz/Cargo.toml`, which adds {missing:?}");
}

/// The lines after one that says `start`, up to the next empty one.
fn section<'text>(text: &'text str, start: &str) -> Vec<&'text str> {
    text.lines().skip_while(|line| *line != start).skip(1).take_while(|line| !line.is_empty()).collect()
}

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src is readable") {
            let path = entry.expect("src is readable").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&root).expect("under src").to_string_lossy().replace('\\', "/");
            if name.ends_with(".rs") && !name.ends_with("_tests.rs") {
                found.push((name, fs::read_to_string(&path).expect("source is UTF-8")));
            }
        }
    }
    assert!(found.len() > LAYERS.len(), "found {} sources: wrong folder?", found.len());
    found
}

/// The lines that are in the binary, with their numbers: every item under `#[cfg(test)]` is left out, and
/// nothing that stands behind it. rustfmt's indentation says where an item ends.
fn production(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    std::iter::from_fn(move || {
        loop {
            let (number, line) = lines.next()?;
            if line.trim() != "#[cfg(test)]" {
                return Some((number, line));
            }
            let indent = &line[..line.len() - line.trim_start().len()];
            let ends = ["}", "};"].map(|end| format!("{indent}{end}"));
            for (_, line) in lines.by_ref() {
                let one_line = !line.trim_start().starts_with('#') && line.ends_with([';', '}']);
                if ends.iter().any(|end| end == line)
                    || one_line && line.starts_with(indent) && !line[indent.len()..].starts_with(' ')
                {
                    break;
                }
            }
        }
    })
}

#[test]
fn only_test_items_are_left_out() {
    let text = "a\n#[cfg(test)]\n#[path = \"x.rs\"]\nmod x;\nb\nimpl C {\n    #[cfg(test)]\n    fn d() {\n        e();\n    }\n\n    f\n}\n#[cfg(test)]\nmod tests {\n    g();\n}\nh\n";
    let left: Vec<_> = production(text).collect();
    assert_eq!(left, [(1, "a"), (5, "b"), (6, "impl C {"), (11, ""), (12, "    f"), (13, "}"), (18, "h")]);
}

fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    production(text).map(|(number, line)| (number, line.split("//").next().unwrap_or(line)))
}

fn crate_names(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("crate::").map(|(at, word)| {
        let rest = &line[at + word.len()..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

//! Files of the repository that must agree with the code.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "test code may panic, and writes on request")]

use std::fs;
use std::path::Path;

use sigilum::config::keys;

/// Set to write what is generated instead of comparing it.
const UPDATE: &str = "SIGILUM_UPDATE_ARTIFACTS";

#[test]
fn the_settings_table_of_the_readme_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(&path).expect("README.md is readable");
    let wanted = keys::replace_table(&readme).expect("README.md has the markers of the settings table");
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, wanted).expect("README.md is writable");
        return;
    }
    assert!(readme == wanted, "the settings table is stale: run `{UPDATE}=1 cargo test --test artifacts`");
}

#[test]
fn every_setting_of_the_table_is_one_line_and_complete() {
    let table = keys::table();
    assert_eq!(table.lines().count(), keys::ALL.len() + 2);
    for name in keys::environment() {
        assert!(table.contains(&format!("`{name}`")), "{name}");
    }
    assert!(table.lines().all(|line| line.matches(" | ").count() == 4), "a cell holds a bare bar:\n{table}");
}

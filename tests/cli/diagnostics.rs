//! `gateway diagnostics export` where nothing runs: what is written, and what is not written over.

use std::collections::BTreeMap;

use flate2::read::GzDecoder;

use super::*;

/// The files of an archive by their names below its folder.
fn unpacked(packed: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(packed));
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        found.insert(path.split_once('/').unwrap().1.to_owned(), content);
    }
    found
}

fn export(person: &Person, more: &[&str]) -> Output {
    person.run(&[&["gateway", "diagnostics", "export"], more].concat())
}

#[test]
fn where_nothing_ever_ran_a_private_archive_says_so_and_is_complete() {
    let person = Person::new();
    let file = person.home().join("a.tar.gz");
    let output = export(&person, &["--output", file.to_str().unwrap(), "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text_of(&output.stderr));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packed = fs::read(&file).unwrap();
    assert_eq!(report["bytes"], packed.len());
    let found = unpacked(&packed);
    let manifest: Value = serde_json::from_str(&found["manifest.json"]).unwrap();
    assert_eq!(manifest["missing"], report["missing"]);
    assert_eq!(manifest["versions"]["sigilum"], env!("CARGO_PKG_VERSION"));
    // Each file is there as the manifest says.
    let listed = manifest["files"].as_array().unwrap();
    assert_eq!(listed.len() + 1, found.len());
    for file in listed {
        assert_eq!(file["bytes"], found[file["file"].as_str().unwrap()].len(), "{file}");
    }
    let status: Value = serde_json::from_str(&found["status.json"]).unwrap();
    assert_eq!(status["rpc"]["ok"], false);
    let doctor: Value = serde_json::from_str(&found["doctor.json"]).unwrap();
    assert!(doctor["findings"].as_array().unwrap().iter().any(|one| one["checkId"] == "gateway/health"), "{doctor}");
    assert!(found["config.redacted.yaml"].contains("ingress_addr"));
}

#[test]
fn what_is_there_is_not_written_over() {
    let person = Person::new();
    let file = person.file("there", "mine\n");
    let link = person.home().join("link");
    std::os::unix::fs::symlink("/nowhere/at/all", &link).unwrap();
    for path in [file.as_str(), link.to_str().unwrap()] {
        let output = export(&person, &["--output", path]);
        assert_eq!(output.status.code(), Some(64), "{path}");
        assert!(text_of(&output.stderr).contains("is there already"), "{}", text_of(&output.stderr));
    }
    assert_eq!(person.read("there"), "mine\n");
}

#[test]
fn on_standard_output_it_is_the_archive_and_nothing_else() {
    let person = Person::new();
    let output = export(&person, &["--output", "-"]);
    assert_eq!((output.status.code(), text_of(&output.stderr).as_str()), (Some(0), ""));
    assert!(unpacked(&output.stdout).contains_key("manifest.json"));
    assert_eq!(export(&person, &["--output", "-", "--json"]).status.code(), Some(64));
}

#[test]
fn of_a_configuration_that_cannot_be_used_its_mistakes_are_told_and_nothing_it_says() {
    let person = Person::new();
    let file = person.file(".sigilum/gateway.yaml", "bogus: 1\nvariables: {KEY: canary-in-a-broken-file}\n");
    let output = export(&person, &["--output", "-", "--config", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", text_of(&output.stderr));
    let found = unpacked(&output.stdout);
    assert!(!found.contains_key("config.redacted.yaml"));
    assert!(found["status.json"].contains("bogus"), "{}", found["status.json"]);
    assert!(found.values().all(|text| !text.contains("canary-in-a-broken-file")));
}

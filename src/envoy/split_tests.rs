#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code may panic"
)]

use std::path::PathBuf;

use super::*;

fn settings(ingress: &[&str]) -> Rendering {
    Rendering {
        ingress: ingress.iter().map(|address| address.parse().unwrap()).collect(),
        admin_face: vec!["127.0.0.1:38200".parse().unwrap()],
        admin: vec!["127.0.0.1:38100".parse().unwrap()],
        max_body_bytes: 2 * 1024 * 1024,
        trusted_hops: 0,
        tls: None,
        traces: None,
        ca_file: PathBuf::from(render::CA_FILES[0]),
    }
}

fn listeners(ingress: &[&str]) -> Vec<Listener> {
    split(&settings(ingress)).unwrap().listeners
}

fn names(stage: &[&Listener]) -> Vec<String> {
    stage.iter().map(|one| one.name.clone()).collect()
}

#[test]
fn the_parts_together_are_the_file() {
    let whole: Value = serde_yaml::from_str(&render::render(&settings(&["127.0.0.1:1"])).unwrap()).unwrap();
    let Parts { mut bootstrap, listeners, secrets } = split(&settings(&["127.0.0.1:1"])).unwrap();
    assert!(secrets.is_empty());
    let root = bootstrap.as_object_mut().unwrap();
    root.shift_remove("node").unwrap();
    root.shift_remove("dynamic_resources").unwrap();
    let back = listeners.into_iter().map(|one| {
        let mut body = one.body;
        let name = one.name.split('/').next().unwrap();
        body["name"] = name.into();
        body.as_object_mut().unwrap().shift_remove("@type").unwrap();
        body
    });
    root["static_resources"]["listeners"] = back.collect();
    assert_eq!(bootstrap, whole);
}

#[test]
fn every_address_is_a_listener_named_by_it() {
    let found = listeners(&["127.0.0.1:38000", "[::1]:38000"]);
    let wanted = ["ingress/127.0.0.1:38000", "ingress/[::1]:38000", "admin_face/127.0.0.1:38200"];
    assert_eq!(found.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), wanted);
    for one in &found {
        assert_eq!(one.body["name"], *one.name);
        assert!(one.body.get("additional_addresses").is_none());
        assert_eq!(one.body["enable_reuse_port"], false);
        assert_eq!(one.is_ingress(), one.name.starts_with("ingress"));
    }
    assert_eq!(found[1].body["address"]["socket_address"]["address"], "::1");
    assert_eq!(found[0].body["filter_chains"], found[1].body["filter_chains"]);
}

#[test]
fn a_door_opens_before_another_is_closed() {
    let (old, new) = (listeners(&["127.0.0.1:1"]), listeners(&["127.0.0.1:2"]));
    let stages = stages(&old, &new);
    assert_eq!(stages.len(), 2);
    assert_eq!(names(&stages[0]), ["ingress/127.0.0.1:2", "admin_face/127.0.0.1:38200", "ingress/127.0.0.1:1"]);
    assert_eq!(names(&stages[1]), ["ingress/127.0.0.1:2", "admin_face/127.0.0.1:38200"]);
}

#[test]
fn what_only_comes_or_only_goes_or_only_changes_is_one_step() {
    let (one, two) = (listeners(&["127.0.0.1:1"]), listeners(&["127.0.0.1:1", "127.0.0.1:2"]));
    for (old, new) in [(&one, &two), (&two, &one), (&one, &one)] {
        let stages = stages(old, new);
        assert_eq!(stages.len(), 1);
        assert_eq!(names(&stages[0]).len(), new.len());
    }
}

#[test]
fn an_address_within_another_waits_until_that_is_closed() {
    let (old, new) = (listeners(&["127.0.0.1:1", "127.0.0.1:3"]), listeners(&["0.0.0.0:1", "127.0.0.1:2"]));
    let stages = stages(&old, &new);
    assert_eq!(
        names(&stages[0]),
        ["ingress/127.0.0.1:2", "admin_face/127.0.0.1:38200", "ingress/127.0.0.1:3"],
        "what can stay open stays open"
    );
    assert_eq!(names(&stages[1]), ["ingress/0.0.0.0:1", "ingress/127.0.0.1:2", "admin_face/127.0.0.1:38200"]);
}

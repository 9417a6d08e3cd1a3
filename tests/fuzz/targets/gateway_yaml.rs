//! `gateway.yaml`: no panic, mistakes stand inside the file, and what is accepted holds its promises.
#![no_main]

use std::collections::HashSet;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sigilum::config;
use sigilum::config::Flags;
use sigilum::config::Machine;
use sigilum::config::Sources;
use sigilum::config::mistake::Place;

fuzz_target!(|text: &str| {
    let sources = Sources { flags: &Flags::default(), env: &|_| None, saved: &|_| None, machine: &Machine::default };
    match config::load(sources, Some((Path::new("gateway.yaml"), text))) {
        Ok(config) => {
            assert!(!config.listen.ingress.is_empty() && !config.listen.admin.is_empty());
            assert!(config.listen.envoy_admin.iter().all(|address| address.ip().is_loopback()));
            assert!(config.settings.max_age.as_secs() >= 1 && config.settings.max_body_bytes >= 1);
            assert!(config::compare::differences(&config, &config).is_empty());
            let mut ids = HashSet::new();
            for declared in &config.connections {
                assert!(ids.insert(declared.id().as_str()), "an id stands twice");
                let key = declared.checked.auth_secret_key.as_ref();
                assert!(key.is_none_or(|key| declared.secrets.contains_key(key)), "the secret to inject is missing");
            }
            if !config.secrets.allow_literals {
                assert!(!config.holds_literals());
            }
            // What is shown is a file again, and an equal one where nothing had to be masked.
            let shown = config::explain(sources, Some((Path::new("gateway.yaml"), text)), true).unwrap();
            let again = shown.as_file();
            let second = config::load(sources, Some((Path::new("gateway.yaml"), &again))).unwrap();
            if !again.contains("[redacted]") {
                let found = config::compare::differences(&config, &second);
                assert!(found.iter().all(|difference| difference.path.starts_with("gateway.")), "{found:?}");
            }
        }
        Err(mistakes) => {
            assert!(!mistakes.list().is_empty());
            // YAML counts a carriage return as the end of a line.
            let lines = text.split(['\n', '\r']).count() + 1;
            for mistake in mistakes.list() {
                if let Place::File { line, column } = mistake.place {
                    assert!((1..=lines).contains(&line) && column >= 1);
                }
            }
        }
    }
});

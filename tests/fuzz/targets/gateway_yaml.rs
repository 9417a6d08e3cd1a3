//! `gateway.yaml`: no panic, mistakes stand inside the file, and what is accepted holds its promises.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sigilum::config;
use sigilum::config::Flags;
use sigilum::config::Sources;
use sigilum::config::mistake::Place;

fuzz_target!(|text: &str| {
    let sources = Sources { flags: &Flags::default(), env: &|_| None, saved: &|_| None };
    match config::load(sources, Some((Path::new("gateway.yaml"), text))) {
        Ok(config) => {
            assert!(!config.listen.ingress.is_empty() && !config.listen.admin.is_empty());
            assert!(config.listen.envoy_admin.iter().all(|address| address.ip().is_loopback()));
            assert!(config.settings.max_age.as_secs() >= 1 && config.settings.max_body_bytes >= 1);
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

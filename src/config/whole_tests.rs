//! Tests over everything the file may say: what is shown, what differs, what the schema for editors accepts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "test code may panic"
)]

use std::collections::HashSet;
use std::path::Path;

use boon::Compiler;
use boon::SchemaIndex;
use boon::Schemas;
use proptest::prelude::*;
use serde_json::Value;
use serde_json::json;

use crate::config::Config;
use crate::config::Flags;
use crate::config::Machine;
use crate::config::Mistakes;
use crate::config::Sources;
use crate::config::compare::differences;
use crate::config::explain;
use crate::config::explain::Explained;
use crate::config::form::Form;
use crate::config::form::Member;
use crate::config::keys;
use crate::config::keys::Reload;
use crate::config::load;
use crate::config::mistake::Place;
use crate::config::schema;
use crate::config::structure;

/// A file that says everything.
const ALL: &str = include_str!("../../tests/golden/kitchen-sink.yaml");

fn with<T>(text: &str, call: impl FnOnce(Sources<'_>, Option<(&Path, &str)>) -> T) -> T {
    let env = |name: &str| (name == "HOME").then(|| "/h".to_owned());
    let flags = Flags::default();
    call(
        Sources { flags: &flags, env: &env, saved: &|_| None, machine: &Machine::default },
        Some((Path::new("gateway.yaml"), text)),
    )
}

fn yaml(text: &str) -> Result<Config, Mistakes> {
    with(text, load)
}

fn shown(text: &str, effective: bool) -> Explained {
    with(text, |sources, file| explain(sources, file, effective)).unwrap()
}

/// The file again, as JSON, which is YAML.
fn again(explained: &Explained) -> String {
    explained.as_file()
}

#[test]
fn the_kitchen_sink_sets_everything() {
    let rows = shown(ALL, false).rows;
    let set: HashSet<_> = rows.iter().map(|row| row.path.as_str()).collect();
    for name in keys::ALL.iter().filter_map(|key| key.yaml) {
        assert!(set.contains(name), "add {name} to tests/golden/kitchen-sink.yaml");
    }
    let paths: String = rows.iter().map(|row| format!("{}\n", row.path)).collect();
    let mut members = Vec::new();
    structure::PARTS.iter().for_each(|part| collect(part.form, &mut members));
    assert!(members.len() > 50);
    for member in members {
        let there = paths.lines().any(|path| path.ends_with(&format!(".{}", member.name)))
            || paths.contains(&format!(".{}.", member.name));
        assert!(there, "add {} to tests/golden/kitchen-sink.yaml", member.name);
    }
    assert!(rows.iter().all(|row| matches!(row.place, Place::File { .. })), "all of it stands in the file");
}

fn collect(form: Form, out: &mut Vec<&'static Member>) {
    let members: Vec<&'static [Member]> = match form {
        Form::Object(members) | Form::Objects(members, _) | Form::Named(members, ..) => vec![members],
        Form::Sourced(cases, ..) => cases.iter().map(|(_, members)| *members).collect(),
        _ => Vec::new(),
    };
    for member in members.into_iter().flatten() {
        out.push(member);
        collect(member.form, out);
    }
}

#[test]
fn what_is_shown_is_a_file_that_means_the_same() {
    let config = yaml(ALL).unwrap();
    for effective in [false, true] {
        let text = again(&shown(ALL, effective));
        let second = yaml(&text).unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}"));
        // Masked: two literals, the variables of a program.
        let changed: Vec<_> =
            differences(&config, &second).into_iter().map(|change| (change.path, change.members)).collect();
        let masked = |key: &str, members: &[&str]| {
            (key.to_owned(), members.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        let wanted = [
            masked("secrets.providers.vault", &["env"]),
            masked("variables.LITERAL", &[]),
            masked("connections.openai", &["secrets"]),
        ];
        // What is computed stands there in full.
        assert_eq!(changed, wanted, "effective: {effective}");
        assert!(!text.contains("canary") && text.contains("[redacted]"), "{text}");
        let third = again(&shown(&text, effective));
        assert_eq!(third, text, "shown again it is the same");
    }
}

#[test]
fn where_a_value_comes_from_is_told() {
    let text = "limits: {max_age_seconds: 60}\nconnections:\n- id: abc\n  base_url: https://a.example\n  secrets: {key: $KEY}\n";
    let env = |name: &str| match name {
        "GATEWAY_BIND" => Some("127.0.0.1".to_owned()),
        "GATEWAY_ADMIN_TOKEN" => Some("canary-0123456789".to_owned()),
        "HOME" => Some("/h".to_owned()),
        _ => None,
    };
    let mut flags = Flags::default();
    flags.set(&keys::RUN_DIR, Some("/tmp/run"));
    let saved = |name: &str| (name == "SIGILUM_NAMESPACE").then(|| "saved".to_owned());
    let sources = Sources { flags: &flags, env: &env, saved: &saved, machine: &Machine::default };
    let explained = explain(sources, Some((Path::new("g"), text)), true).unwrap();
    let row = |path: &str| {
        explained.rows.iter().find(|row| row.path == path).map(|row| (row.value.clone(), row.place.clone()))
    };
    let file = |line, column| Place::File { line, column };
    assert_eq!(row("gateway.run_dir"), Some((json!("/tmp/run"), Place::Flag("--run-dir"))));
    assert_eq!(row("gateway.bind"), Some((json!("127.0.0.1"), Place::Environment("GATEWAY_BIND"))));
    assert_eq!(row("gateway.namespace"), Some((json!("saved"), Place::Saved("SIGILUM_NAMESPACE"))));
    assert_eq!(row("limits.max_age_seconds"), Some((json!(60), file(1, 27))));
    assert_eq!(row("limits.max_body_bytes"), Some((json!(2_097_152), Place::Whole)));
    assert_eq!(row("gateway.data_dir"), Some((json!("/h/.local/share/sigilum-gateway"), Place::Whole)));
    assert_eq!(row("connections[0].base_url"), Some((json!("https://a.example"), file(4, 13))));
    assert_eq!(row("connections[0].auth_mode"), Some((json!("bearer"), Place::Whole)));
    let reference = json!({"source": "env", "provider": "default", "id": "KEY"});
    assert_eq!(row("connections[0].secrets.key"), Some((reference, file(5, 18))));
    assert_eq!(row("GATEWAY_ADMIN_TOKEN"), Some((json!("[redacted]"), Place::Environment("GATEWAY_ADMIN_TOKEN"))));
    let only_set = explain(sources, Some((Path::new("g"), text)), false).unwrap();
    assert_eq!(only_set.rows.len(), 8, "{:#?}", only_set.rows);
}

#[test]
fn each_setting_that_differs_is_told_with_what_it_takes() {
    let base = yaml("").unwrap();
    let mut seen = 0;
    let (all, defaults) = (shown(ALL, false), shown("", true).rows);
    for key in keys::ALL {
        let Some(name) = key.yaml else { continue };
        let value = &all.rows.iter().find(|row| row.path == name).unwrap().value;
        let text = name.rsplit('.').fold(value.to_string(), |inner, step| format!("{{\"{step}\": {inner}}}"));
        // Some cannot stand alone.
        let Ok(config) = yaml(&text) else { continue };
        if defaults.iter().any(|row| row.path == name && row.value == *value) {
            continue;
        }
        // What is computed from it differs too.
        let changes = differences(&base, &config);
        let change = changes.iter().find(|change| change.path == name);
        assert_eq!(change.map(|change| change.reload), Some(key.reload), "{text}: {changes:?}");
        // Two folders and files have their default in this one.
        let computed = if name == "gateway.data_dir" { 2 } else { 1 };
        assert!(changes.len() <= 1 + computed, "{text}: {changes:?}");
        seen += 1;
    }
    assert!(seen > 25, "{seen}");
}

#[test]
fn only_what_means_something_else_differs() {
    let changes = |old: &str, new: &str| {
        let found = differences(&yaml(old).unwrap(), &yaml(new).unwrap());
        found.into_iter().map(|change| (change.path, change.members)).collect::<Vec<_>>()
    };
    let one = |key: &str, members: &[&str]| {
        vec![(key.to_owned(), members.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())]
    };
    assert_eq!(changes(ALL, &format!("# a comment\n{ALL}")), []);
    assert_eq!(
        changes(
            "gateway: {allow_private: yes, authorities: a}",
            "gateway:\n  authorities: ['a']\n  allow_private: true"
        ),
        []
    );
    assert_eq!(changes("limits: {max_age_seconds: 300}", ""), []);
    // An address that is set means more than the same address that nobody set.
    let set = changes("", "gateway: {api_url: 'https://api.sigilum.id'}");
    assert_eq!(set, one("gateway.api_url", &[]));
    let connection =
        |id: &str, more: &str| format!("- {{id: {id}, base_url: 'https://a.example', secrets: {{k: $K}}{more}}}\n");
    let (a, b) = (connection("aaa", ""), connection("bbb", ""));
    assert_eq!(changes(&format!("connections:\n{a}{b}"), &format!("connections:\n{b}{a}")), []);
    let both = format!("connections:\n{a}{b}");
    assert_eq!(changes(&both, &format!("connections:\n{a}")), one("connections.bbb", &[]));
    assert_eq!(changes(&format!("connections:\n{b}"), &both), one("connections.aaa", &[]));
    let other = format!("connections:\n{a}{}", connection("bbb", ", path_prefix: x, status: disabled"));
    assert_eq!(changes(&both, &other), one("connections.bbb", &["path_prefix", "status"]));
    let literal = |secret: &str| {
        format!(
            "secrets: {{allow_literals: true}}\nvariables: {{KEY: {secret}}}\nconnections: [{{id: abc, base_url: 'https://a.example', secrets: {{k: {secret}}}}}]"
        )
    };
    let found = changes(&literal("one"), &literal("two"));
    assert_eq!(found.iter().map(|change| change.0.as_str()).collect::<Vec<_>>(), ["variables.KEY", "connections.abc"]);
    assert_eq!(found[1].1, ["secrets"]);
    assert_eq!(changes("variables: {KEY: $A}", "variables: {KEY: '${A}'}"), []);
    let approval = |end: &str| {
        format!(
            "approvals: [{{namespace: acme, public_key: 'ed25519:J07dj/co4diCmQYTTQGq4adhnMKYejHazCYUQ7eBh0k=', service: abc{end}}}]"
        )
    };
    let approvals = one("approvals", &[]);
    assert_eq!(changes("", &approval("")), approvals);
    assert_eq!(changes(&approval(""), &approval(", expires_at: '2027-01-31T12:00:00Z'")), approvals);
    let more = "variables: {KEY: $A}\ngateway: {data_dir: /d, trusted_hops: 1}";
    let found = differences(&yaml("").unwrap(), &yaml(more).unwrap());
    let takes: Vec<_> = found.iter().map(|change| (change.path.as_str(), change.reload)).collect();
    let data = ("gateway.data_dir", Reload::Restart);
    assert!(takes.contains(&data) && takes.contains(&("gateway.trusted_hops", Reload::HotEnvoy)), "{takes:?}");
    assert_eq!(takes.last(), Some(&("variables.KEY", Reload::Hot)));
}

#[test]
fn the_longest_name_decides_what_a_change_takes() {
    for (path, reload) in [
        ("connections.openai", Reload::Hot),
        ("connections[3].base_url", Reload::Hot),
        ("variables.KEY", Reload::Hot),
        ("approvals.a/b/c", Reload::Hot),
        ("secrets.providers.vault.command", Reload::Hot),
        ("gateway.ingress_addr", Reload::HotEnvoy),
        ("gateway.addr", Reload::Restart),
        ("connectionsx", Reload::Restart),
        ("unheard.of", Reload::Restart),
        ("", Reload::Restart),
    ] {
        assert_eq!(structure::reload_of(path), reload, "{path}");
    }
}

struct Judge {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Judge {
    fn new() -> Self {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("urn:sigilum:gateway.yaml", schema()).unwrap();
        let index = compiler.compile("urn:sigilum:gateway.yaml", &mut schemas).unwrap();
        Self { schemas, index }
    }

    fn accepts(&self, text: &str) -> bool {
        let value: Value = serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        self.schemas.validate(&value, self.index).is_ok()
    }
}

#[test]
fn every_leaf_of_the_schema_has_a_description_and_a_class() {
    fn walk(value: &Value, path: &str, leaves: &mut usize) {
        let Some(properties) = value.get("properties").and_then(Value::as_object) else { return };
        assert_eq!(value.get("additionalProperties"), Some(&json!(false)), "{path}");
        for (name, below) in properties {
            let path = format!("{path}.{name}");
            assert!(below.get("description").and_then(Value::as_str).is_some_and(|text| text.len() > 3), "{path}");
            let inner =
                [below, below.get("items").unwrap_or(below), below.get("additionalProperties").unwrap_or(below)];
            if inner.iter().all(|inner| inner.get("properties").is_none()) {
                let class = below.get("x-reload").and_then(Value::as_str).unwrap_or_default();
                assert!(["hot", "hot-envoy", "restart"].contains(&class), "{path}");
                *leaves += 1;
            }
            for (index, inner) in inner.iter().enumerate() {
                if index == 0 || !std::ptr::eq(*inner, below) {
                    walk(inner, &path, leaves);
                }
            }
        }
    }
    let mut leaves = 0;
    walk(&schema(), "", &mut leaves);
    assert!(leaves > 70, "{leaves}");
}

#[test]
fn the_schema_accepts_what_the_loader_accepts_and_refuses_what_it_refuses() {
    let judge = Judge::new();
    let connection = |more: &str| format!("connections: [{{id: abc, base_url: 'https://a.example', {more}}}]");
    let good = [
        ALL.to_owned(),
        "{}".to_owned(),
        "gateway:\nconnections:\nvariables: ~\nsecrets: {providers: ~}\n".to_owned(),
        "gateway: {allow_private: yes, addr: ':1, :2', authorities: []}".to_owned(),
        "logging: {level: off, decisions: false}\nreload: {mode: off}".to_owned(),
        connection("secrets: {key: $KEY}"),
        connection("secrets: {key: '{{ KEY }}'}, auth_mode: basic, status: active, name: ~"),
        connection("secrets: {key: {file: /x, pointer: /y}}, upgrades: [], extra_headers: {a: b}"),
        connection("protocol: mcp"),
        "secrets: {allow_literals: true}\nvariables: {KEY: literal}".to_owned(),
        "secrets: {allow_literals: on}\nvariables: {KEY: literal}".to_owned(),
        again(&shown(ALL, true)),
    ];
    for text in good {
        yaml(&text).unwrap_or_else(|mistakes| panic!("{text}: {mistakes}"));
        assert!(judge.accepts(&text), "the schema refuses {text}");
    }
    let bad = [
        "colour: blue".to_owned(),
        "[]".to_owned(),
        "gateway: {adr: x}".to_owned(),
        "gateway: []".to_owned(),
        "gateway: {allow_private: 5}".to_owned(),
        "limits: {max_age_seconds: 3601}".to_owned(),
        "limits: {max_age_seconds: soon}".to_owned(),
        "reload: {mode: sometimes}".to_owned(),
        "connections: {}".to_owned(),
        connection("secrets: {key: literal}"),
        connection("secrets: {key: {env: lower}}"),
        connection("secrets: {key: {env: A, file: /b}}"),
        connection("secrets: {key: {source: exec, id: 'a b'}}"),
        connection("secrets: {key: {file: relative}}"),
        connection("secrets: {key: []}"),
        connection("secrets: {key: $KEY}, colour: blue"),
        connection("secrets: {key: $KEY}, auth_mode: magic"),
        connection("secrets: {key: $KEY}, response_timeout_ms: 0"),
        connection("secrets: {key: $KEY}, allowed_methods: GET"),
        connection("secrets: {key: $KEY}, extra_headers: {a: 1}"),
        connection("auth_mode: bearer"),
        "connections: [{id: abc, secrets: {key: $KEY}}]".to_owned(),
        "connections: [{id: ABC, base_url: 'https://a', secrets: {key: $KEY}}]".to_owned(),
        "connections: [{id: abc, base_url: 'https://u:p@a', secrets: {key: $KEY}}]".to_owned(),
        "connections: [{id: abc, base_url: 'ftp://a', secrets: {key: $KEY}}]".to_owned(),
        "variables: {K: $A}".to_owned(),
        "variables: {KEY: literal}".to_owned(),
        "secrets: {allow_literals: false}\nvariables: {KEY: literal}".to_owned(),
        "secrets: {providers: {a: {source: exec}}}".to_owned(),
        "secrets: {providers: {a: {source: file, path: relative}}}".to_owned(),
        "secrets: {providers: {A: {source: env}}}".to_owned(),
        "secrets: {providers: {a: {source: env, path: /x}}}".to_owned(),
        "secrets: {providers: {a: {source: exec, command: /x, timeout_ms: 60001}}}".to_owned(),
        "approvals: [{namespace: acme, service: abc}]".to_owned(),
        "approvals: [{namespace: acme, public_key: x, service: abc}]".to_owned(),
    ];
    for text in bad {
        assert!(yaml(&text).is_err(), "the loader accepts {text}");
        assert!(!judge.accepts(&text), "the schema accepts {text}");
    }
}

#[test]
fn the_schema_and_the_loader_agree_on_the_form_of_every_setting() {
    let judge = Judge::new();
    let mut probes = 0;
    for key in keys::ALL {
        let Some(name) = key.yaml else { continue };
        let mut values =
            ["true", "5", "'text'", "[a, b]", "{a: b}", "~", "yes", "1.5", "[[a]]"].map(str::to_owned).to_vec();
        let edges = match key.form {
            Form::Whole(bounds) => Some(bounds),
            _ => None,
        };
        if let Some(bounds) = edges {
            let around = [bounds.least, bounds.most, bounds.most + 1];
            values.extend(
                around
                    .iter()
                    .map(ToString::to_string)
                    .chain(bounds.least.checked_sub(1).map(|below| below.to_string())),
            );
        }
        if let Form::Choice(words) = key.form {
            values.extend(words.iter().map(ToString::to_string));
        }
        for value in values {
            let text = name.rsplit('.').fold(value, |inner, step| format!("{{{step}: {inner}}}"));
            let mistakes = yaml(&text).err().map(|mistakes| mistakes.list().to_vec()).unwrap_or_default();
            let own: Vec<_> = mistakes.iter().filter(|mistake| mistake.path == name).collect();
            // What it must be is a matter of form; what it means is not the schema's.
            let formal = own.iter().any(|mistake| mistake.message.contains("found") || edges.is_some());
            let accepted = judge.accepts(&text);
            assert!(
                accepted || !own.is_empty(),
                "{text}: only the schema refuses it; declare the form of {name} in its key"
            );
            assert!(
                !accepted || !formal,
                "{text}: only the loader refuses it ({own:?}); declare the form of {name} in its key"
            );
            probes += 1;
        }
    }
    assert!(probes > 300, "{probes}");
}

/// Pieces of files, put together at random.
fn piece() -> impl Strategy<Value = String> {
    "(connections:|variables:|secrets:|providers:|- id: abc|base_url: https://a.example|key: |\\$KEY|\\{\\{KEY\\}\\}|source: (env|file|exec|store)|id: (A|/a|value)|command: /x|env: A|file: /a|exec: a|\\{|\\}|\\[|\\]|, |: |- |  |\n|'|\"|\\PC){0,40}"
}

proptest! {
    #[test]
    fn no_declaration_makes_the_loader_panic_and_what_loads_can_be_shown(text in piece()) {
        if yaml(&text).is_ok() {
            for effective in [false, true] {
                let again = again(&shown(&text, effective));
                prop_assert!(yaml(&again).is_ok(), "{}\n{}", text, again);
            }
        }
    }

    #[test]
    fn texts_come_back_as_they_were(name in any::<String>(), argument in any::<String>(), subject in "\\PC{1,20}") {
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        let (name, argument, subject) = (quoted(&name), quoted(&argument), quoted(&subject));
        let text = format!(
            "secrets: {{providers: {{p: {{source: exec, command: /x, args: [{argument}]}}}}}}\n\
             connections: [{{id: abc, name: {name}, protocol: mcp, base_url: 'https://a.example', \
             mcp_subject_tool_policies: {{{subject}: {{allowlist: [a]}}}}}}]"
        );
        if let Ok(config) = yaml(&text) {
            let again = shown(&text, true).as_file();
            let second = yaml(&again);
            prop_assert!(second.is_ok(), "{}: {}", again, second.unwrap_err());
            let found = differences(&config, &second.unwrap());
            prop_assert!(found.iter().all(|found| found.path.starts_with("gateway.")), "{:?}: {}", found, again);
        }
    }

    #[test]
    fn no_literal_is_ever_repeated(secret in "[!-~]{6,60}", place in 0..4_usize) {
        let quoted = format!("'{}'", secret.replace('\'', "''"));
        let text = match place {
            0 => format!("variables: {{KEY: {quoted}}}"),
            1 => format!("connections: [{{id: abc, base_url: 'https://a.example', secrets: {{key: {quoted}}}}}]"),
            2 => format!("variables: {{KEY: {{env: {quoted}}}}}"),
            _ => format!("variables: {{KEY: {{{quoted}: x}}}}"),
        };
        if let Err(mistakes) = yaml(&text) {
            prop_assert!(!mistakes.to_string().contains(&secret), "{}", mistakes);
        }
        let shown = with(&format!("secrets: {{allow_literals: true}}\n{text}"), |sources, file| explain(sources, file, true));
        if let Ok(shown) = shown
            && place < 2 && !secret.starts_with('$') && !secret.starts_with("{{")
        {
            prop_assert!(!again(&shown).contains(&serde_json::to_string(&secret).unwrap()));
        }
    }
}

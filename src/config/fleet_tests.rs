use super::*;
use crate::config::Config;
use crate::config::Flags;
use crate::config::Machine;
use crate::config::Mistakes;
use crate::config::Sources;
use crate::config::load;

fn yaml(text: &str) -> Result<Config, Mistakes> {
    let nothing = |_: &str| None;
    let flags = Flags::default();
    let sources = Sources { flags: &flags, env: &nothing, saved: &nothing, machine: &Machine::default };
    load(sources, Some((std::path::Path::new("gateway.yaml"), text)))
}

fn mistakes(text: &str) -> Vec<String> {
    let found = yaml(text).err().map(|mistakes| mistakes.list().to_vec()).unwrap_or_default();
    found.into_iter().map(|mistake| mistake.message).collect()
}

#[test]
fn addresses_of_stores_are_read_and_written() {
    for (text, written) in [
        ("rediss://valkey.example.com", "rediss://valkey.example.com:6379/0"),
        ("rediss://user@h:6380/3", "rediss://user@h:6380/3"),
        ("redis://127.0.0.1:1/", "redis://127.0.0.1:1/0"),
        ("rediss://[2001:db8::1]:7", "rediss://[2001:db8::1]:7/0"),
    ] {
        let config = yaml(&format!("replay: {{shared: {{url: '{text}'}}}}")).unwrap();
        assert_eq!(config.shared_replay.unwrap().url(), written);
    }
    for text in [
        "http://h",
        "rediss://",
        "rediss://user:canary@h",
        "rediss://h/x",
        "rediss://h/0?a=b",
        "rediss://h:x",
        "rediss://h:",
        "rediss://@h",
        "h",
    ] {
        let found = mistakes(&format!("replay: {{shared: {{url: '{text}'}}}}"));
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(!found[0].contains("canary"));
    }
}

#[test]
fn a_store_in_clear_is_warned_of_where_it_is_elsewhere() {
    let warned = |url: &str| !yaml(&format!("replay: {{shared: {{url: '{url}'}}}}")).unwrap().warnings.is_empty();
    assert!(warned("redis://valkey.example.com"));
    assert!(!warned("rediss://valkey.example.com") && !warned("redis://127.0.0.1") && !warned("redis://localhost"));
}

#[test]
fn no_password_goes_to_another_host_in_clear() {
    let found = |url: &str| mistakes(&format!("replay: {{shared: {{url: '{url}', password_file: /p}}}}"));
    for url in ["redis://valkey.example.com", "redis://user@192.0.2.1:1"] {
        let found = found(url);
        assert!(found.len() == 1 && found[0].contains("must be rediss://"), "{url}: {found:?}");
    }
    for url in ["rediss://valkey.example.com", "redis://127.0.0.1", "redis://[::1]:7", "redis://localhost"] {
        assert_eq!(found(url), Vec::<String>::new(), "{url}");
    }
}

#[test]
fn what_belongs_together_comes_together() {
    for (text, word) in [
        ("replay: {shared: {ca_file: /a}}", "wants replay.shared.url"),
        ("replay: {shared: {url: 'redis://localhost', ca_file: /a}}", "rediss://"),
        ("replay: {shared: {url: 'rediss://h', ca_file: a}}", "absolute"),
        ("state: {addr: ':39300'}", "wants state.tls.cert_file"),
        ("state: {addr: ':39300', tls: {cert_file: /a}}", "wants state.tls.key_file"),
        ("state: {addr: ':39300', tls: {cert_file: /a, key_file: /b}}", "wants state.tls.client_ca_file"),
        ("state: {tls: {client_ca_file: /a}}", "wants state.addr"),
        ("state: {addr: ':38100', tls: {cert_file: /a, key_file: /b, client_ca_file: /c}}", "also the port of"),
    ] {
        let found = mistakes(text);
        assert!(found.iter().any(|message| message.contains(word)), "{text}: {found:?}");
    }
}

#[test]
fn workloads_say_who_is_sent_what() {
    let text = "workloads:\n- name: one\n  sans: [a.test, 'spiffe://x/one']\n  connections: [svc-b, svc-a]\n\
                - {name: all, sans: [b.test], connections: ['*']}\n- {name: none, sans: [c.test], connections: []}\n";
    let workloads = yaml(text).unwrap().workloads;
    let ids = ["svc-a", "svc-b"].map(|id| ConnectionId::parse(id).unwrap());
    assert_eq!(workloads[0].reach, Reach::Only(ids.into()));
    assert_eq!(workloads[0].sans, ["a.test", "spiffe://x/one"]);
    assert_eq!((&workloads[1].reach, &workloads[2].reach), (&Reach::Everything, &Reach::Only(BTreeSet::new())));
}

#[test]
fn every_mistake_of_a_workload_is_told_where_it_is() {
    for (item, word) in [
        ("{name: one, sans: [a.test]}", "has no connections"),
        ("{name: one, connections: [abc]}", "has no sans"),
        ("{sans: [a.test], connections: [abc]}", "has no name"),
        ("{name: one, sans: [], connections: [abc]}", "has no sans"),
        ("{name: 'a b', sans: [a.test], connections: [abc]}", "must be 1 to 64"),
        ("{name: one, sans: [a.test], connections: [abc, '*']}", "alone means all"),
        ("{name: one, sans: [a.test], connections: [ABC]}", "connections"),
        ("{name: one, sans: a.test, connections: [abc]}", "must be a list"),
        ("{name: one, sans: [a.test], connections: [abc], colour: blue}", "unknown key"),
        ("{name: two, sans: [zero.test], connections: [abc]}", "zero.test stands in the workload of line 2"),
        ("{name: zero, sans: [other.test], connections: [abc]}", "name zero stands"),
        ("word", "must be a mapping"),
    ] {
        let text = format!("workloads:\n- {{name: zero, sans: [zero.test], connections: [abc]}}\n- {item}\n");
        let found = yaml(&text).unwrap_err();
        let found = found.list();
        assert!(found[0].message.contains(word), "{item}: {found:?}");
        assert!(found[0].path.starts_with("workloads[1]"), "{item}: {found:?}");
    }
    assert!(mistakes("workloads: {}")[0].contains("must be a list"));
}

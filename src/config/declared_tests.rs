//! Tests of what the file declares: connections, variables, providers, and every mistake in its place.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code may panic"
)]

use std::path::Path;
use std::time::Duration;

use crate::config::Config;
use crate::config::Flags;
use crate::config::Machine;
use crate::config::Mistakes;
use crate::config::Sources;
use crate::config::load;
use crate::config::parts::ProviderConfig;
use crate::config::parts::ReloadMode;
use crate::config::parts::SecretSource;
use crate::domain::connection::AuthMode;
use crate::domain::connection::Protocol;
use crate::domain::reference::SecretRef;
use crate::domain::reference::SourceKind;

fn yaml(text: &str) -> Result<Config, Mistakes> {
    let env = |name: &str| (name == "HOME").then(|| "/h".to_owned());
    let sources = Sources { flags: &Flags::default(), env: &env, saved: &|_| None, machine: &Machine::default };
    load(sources, Some((Path::new("gateway.yaml"), text)))
}

fn lines(result: Result<Config, Mistakes>) -> Vec<String> {
    result.unwrap_err().to_string().lines().skip(1).map(|line| line.trim().to_owned()).collect()
}

fn reference(source: SourceKind, provider: &str, id: &str) -> SecretSource {
    SecretSource::Reference(SecretRef::new(source, provider, id).unwrap())
}

/// A whole connection with one secret, in flow form.
fn connection(id: &str, more: &str) -> String {
    format!("- {{id: {id}, base_url: 'https://api.example.com', secrets: {{key: $KEY}}{more}}}\n")
}

#[test]
fn a_short_connection_takes_the_defaults_of_the_api_and_its_only_secret() {
    let config = yaml(&format!("connections:\n{}", connection("openai", ""))).unwrap();
    let [declared] = &config.connections[..] else { panic!("{:?}", config.connections) };
    let settings = &declared.checked.settings;
    assert_eq!((declared.id().as_str(), settings.name.as_str(), declared.line), ("openai", "openai", 2));
    assert_eq!((settings.auth_mode, settings.auth_prefix.as_str()), (AuthMode::Bearer, "Bearer "));
    assert_eq!(declared.checked.auth_secret_key.as_deref(), Some("key"));
    assert_eq!(declared.secrets["key"], reference(SourceKind::Env, "default", "KEY"));
    assert!(settings.active && config.warnings.is_empty());
}

#[test]
fn every_member_of_the_create_body_counts() {
    let text = "connections:
- id: my-mcp
  name: My MCP
  protocol: mcp
  base_url: https://mcp.example.com/base/
  path_prefix: v1/
  auth_mode: header_key
  auth_header_name: X-Key
  auth_prefix: 'Key '
  auth_secret_key: second
  secrets: {first: $FIRST, second: $SECOND}
  rotation_interval_days: 30
  status: disabled
  allow_private: true
  allowed_methods: [get, POST]
  allowed_paths: [/a, /b]
  upgrades: [websocket]
  response_timeout_ms: 1500
  max_stream_seconds: 60
  extra_headers: {X-Team: blue}
  allow_set_cookie: yes
  forward_trace: true
  mcp_transport: streamable_http
  mcp_endpoint: /mcp
  mcp_tool_allowlist: [b, a]
  mcp_tool_denylist: [c]
  mcp_max_tools_exposed: 5
  mcp_subject_tool_policies: {alice: {allowlist: [x], denylist: [y], max_tools_exposed: 1}}
";
    let config = yaml(text).unwrap();
    let declared = &config.connections[0];
    let settings = &declared.checked.settings;
    assert_eq!(settings.upstream.base_url(), "https://mcp.example.com/base");
    assert_eq!((settings.protocol, settings.path_prefix.as_str()), (Protocol::Mcp, "/v1"));
    assert_eq!((settings.auth_target.as_str(), settings.auth_prefix.as_str()), ("X-Key", "Key "));
    assert_eq!(declared.checked.auth_secret_key.as_deref(), Some("second"));
    assert_eq!(declared.checked.rotation_interval_days, 30);
    assert!(!settings.active && settings.allow_private && settings.allow_set_cookie && settings.forward_trace);
    assert_eq!(
        (&settings.allowed_methods[..], &settings.allowed_paths[..]),
        (&["GET".to_owned(), "POST".to_owned()][..], &["/a".to_owned(), "/b".to_owned()][..])
    );
    assert_eq!(settings.upgrades, ["websocket"]);
    assert_eq!(
        (settings.response_timeout, settings.max_stream),
        (Duration::from_millis(1500), Duration::from_secs(60))
    );
    assert_eq!(settings.extra_headers["x-team"], "blue");
    let mcp = declared.checked.mcp.as_ref().unwrap();
    assert_eq!((mcp.endpoint.as_str(), mcp.policy.max_tools), ("/mcp", Some(5)));
    assert_eq!(
        (&mcp.policy.allow[..], &mcp.policy.deny[..]),
        (&["a".to_owned(), "b".to_owned()][..], &["c".to_owned()][..])
    );
    assert_eq!((mcp.subjects["alice"].allow[0].as_str(), mcp.subjects["alice"].max_tools), ("x", Some(1)));
}

#[test]
fn no_tools_exposed_is_no_limit_as_in_the_admin_api() {
    let text = "connections:
- id: my-mcp
  protocol: mcp
  base_url: https://mcp.example.com
  mcp_max_tools_exposed: 0
  mcp_subject_tool_policies: {alice: {max_tools_exposed: 0}, bob: {max_tools_exposed: 1}}
";
    let config = yaml(text).unwrap();
    let mcp = config.connections[0].checked.mcp.as_ref().unwrap();
    let most = |name: &str| mcp.subjects.get(name).and_then(|policy| policy.max_tools);
    assert_eq!((mcp.policy.max_tools, most("alice"), most("bob")), (None, None, Some(1)));
}

#[test]
fn all_forms_of_a_reference_are_read() {
    let text = "secrets:
  providers:
    vault: {source: exec, command: /bin/resolver}
    keys: {source: file, path: ~/keys.json}
    some: {source: env, allowlist: [SOME]}
  defaults: {exec: vault, file: keys}
variables:
  V0: {source: env, id: A}
  V1: {source: file, id: /a/b}
  V2: {source: file, provider: keys, id: value}
  V3: {source: exec, id: 'a/b#c'}
  V4: {source: store, id: KEY}
  V5: $A
  V6: '${A}'
  V7: '{{ KEY }}'
  V8: {env: A}
  V9: {file: /run/secrets/a}
  V10: {file: ~/a.json, pointer: /a}
  V11: {exec: id, provider: vault}
  V12: {exec: id}
  V13: {store: KEY}
  V14: {env: SOME, provider: some}
";
    let config = yaml(text).unwrap();
    let found: Vec<_> = config.variables.iter().map(|variable| variable.source.duplicate()).collect();
    let file = |path: &str, id: &str| SecretSource::File { path: path.into(), id: id.to_owned() };
    use SourceKind::*;
    let wanted = [
        reference(Env, "default", "A"),
        reference(File, "keys", "/a/b"),
        reference(File, "keys", "value"),
        reference(Exec, "vault", "a/b#c"),
        reference(Store, "default", "KEY"),
        reference(Env, "default", "A"),
        reference(Env, "default", "A"),
        reference(Store, "default", "KEY"),
        reference(Env, "default", "A"),
        file("/run/secrets/a", "value"),
        file("/h/a.json", "/a"),
        reference(Exec, "vault", "id"),
        reference(Exec, "vault", "id"),
        reference(Store, "default", "KEY"),
        reference(Env, "some", "SOME"),
    ];
    for (index, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
        assert_eq!(found, wanted, "V{index}");
    }
    assert_eq!(found.len(), wanted.len());
    let ProviderConfig::File { path, .. } = &config.secrets.providers["keys"] else { panic!() };
    assert_eq!(path, Path::new("/h/keys.json"));
}

#[test]
fn what_is_no_reference_is_refused_without_being_repeated() {
    let canary = "canary-sk-live";
    for form in [
        "canary-sk-live",
        "'$canary-sk-live'",
        "{canary-sk-live: }",
        "{env: canary-sk-live}",
        "{source: canary-sk-live, id: A}",
        "{source: file, id: canary-sk-live}",
        "{file: canary-sk-live}",
        "{file: /a, pointer: canary-sk-live}",
        "{store: 'canary-sk-live x'}",
        "'{{canary-sk-live x}}'",
        "[canary-sk-live]",
        "{env: [canary-sk-live]}",
        "{env: A, file: /canary-sk-live}",
        "{env: A, id: canary-sk-live}",
        "{source: env}",
        "{}",
        "5",
        "''",
        "~",
    ] {
        for text in [
            format!("variables:\n  KEY: {form}\n"),
            format!("connections:\n- id: abc\n  base_url: https://a.example\n  secrets:\n    key: {form}\n"),
        ] {
            let found = lines(yaml(&text));
            assert!(found.len() == 1 && !found[0].contains(canary), "{text}: {found:#?}");
            let (line, path) =
                if text.starts_with('v') { (2, "variables.KEY") } else { (5, "connections[0].secrets.key") };
            assert!(found[0].starts_with(&format!("gateway.yaml:{line}:")), "{text}: {found:#?}");
            assert!(found[0].contains(path), "{text}: {found:#?}");
        }
    }
}

#[test]
fn literals_count_where_they_are_allowed_and_can_be_injected() {
    let with = |secret: &str| {
        yaml(&format!(
            "secrets: {{allow_literals: true}}\nconnections:\n- id: abc\n  base_url: https://a.example\n  secrets: {{key: {secret}}}\n"
        ))
    };
    let config = with("' sk-live '").unwrap();
    let SecretSource::Literal(secret) = &config.connections[0].secrets["key"] else { panic!() };
    assert_eq!(secret.expose(), "sk-live");
    assert!(!format!("{config:?}").contains("sk-live"));
    for (bad, what) in [
        ("\"canary\\nx\"", "connections[0].secrets key: the secret contains characters"),
        ("'Bearer '", "connections[0].secrets key: the secret is empty"),
        ("'$canary'", "connections[0].secrets.key begins like a reference and is none"),
        ("'{{canary x}}'", "connections[0].secrets.key refers to a credential variable by what is no key"),
    ] {
        let found = lines(with(bad));
        assert!(found.len() == 1 && found[0].contains(what) && !found[0].contains("canary"), "{bad}: {found:?}");
    }
}

#[test]
fn every_mistake_of_a_connection_is_told_where_it_is() {
    let text = "connections:
- id: Bad Id
  base_url: https://user:canary@10.0.0.1
  protocol: ftp
  auth_mode: magic
  allowed_methods: [TRACE]
  allowed_paths: [a]
  response_timeout_ms: 0
  extra_headers: {cookie: a}
  colour: blue
  secrets: {key: canary}
- base_url: http://10.0.0.1
  name: One
  secrets: {one: $ONE, two: $TWO}
- id: three
- just a word
- id: four
  base_url: http://169.254.169.254/latest
  auth_secret_key: other
  secrets: {key: $KEY}
  mcp_endpoint: /x
- id: five
  protocol: mcp
  base_url: https://a.example
  mcp_endpoint: ftp://x
";
    let found = lines(yaml(text));
    let wanted = [
        "gateway.yaml:2:7: connections[0].id: may contain only",
        "gateway.yaml:3:13: connections[0].base_url: must be an absolute http:// or https:// URL without user",
        "gateway.yaml:4:13: connections[0].protocol: must be http or mcp",
        "gateway.yaml:5:14: connections[0].auth_mode must be one of bearer, header_key, query_param, basic",
        "gateway.yaml:6:20: connections[0].allowed_methods: TRACE is never forwarded",
        "gateway.yaml:7:18: connections[0].allowed_paths: each must begin with /",
        "gateway.yaml:8:24: connections[0].response_timeout_ms must be a whole number from 1 to 3600000",
        "gateway.yaml:9:18: connections[0].extra_headers: cookie carries a credential",
        "gateway.yaml:10:3: unknown key \"colour\"; a connection knows id, name, protocol, base_url",
        "gateway.yaml:11:18: connections[0].secrets.key is not a reference, and secrets.allow_literals is not set",
        "gateway.yaml:12:3: connections[1].auth_secret_key: is required",
        "gateway.yaml:12:13: connections[1].base_url: 10.0.0.1 is a private address; set allow_private",
        "gateway.yaml:15:3: connections[2] has no secrets",
        "gateway.yaml:15:3: connections[2].base_url: must be an absolute",
        "gateway.yaml:16:3: connections[3] must be a mapping, found text",
        "gateway.yaml:18:13: connections[4].base_url: 169.254.169.254 is the address of a metadata service",
        "gateway.yaml:19:20: connections[4].auth_secret_key names none of the secrets",
        "gateway.yaml:21:17: connections[4].mcp_endpoint: belongs to connections of protocol mcp",
        "gateway.yaml:25:17: connections[5].mcp_endpoint: is no absolute URL",
    ];
    for (found, wanted) in found.iter().zip(wanted) {
        assert!(found.starts_with(wanted), "\n{found}\n{wanted}");
    }
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
    assert!(!found.concat().contains("canary"));
}

#[test]
fn a_mistake_carries_its_path() {
    let mistakes = yaml("connections:\n- id: abc\n  base_url: 5\n  secrets: {key: $KEY}\nlimits: {max_age_seconds: x}\napprovals: [{namespace: A}]").unwrap_err();
    let paths: Vec<_> = mistakes.list().iter().map(|mistake| mistake.path.as_str()).collect();
    assert_eq!(
        paths,
        ["connections[0].base_url", "limits.max_age_seconds", "approvals[0]", "approvals[0]", "approvals[0].namespace"]
    );
}

#[test]
fn own_ports_and_loopback_are_judged_as_by_the_admin_api() {
    let to = |url: &str, more: &str| {
        yaml(&format!("connections:\n- {{id: abc, base_url: '{url}', secrets: {{key: $KEY}}}}\n{more}"))
    };
    to("http://127.0.0.1:9000", "").unwrap();
    assert!(lines(to("http://localhost:38000", ""))[0].contains("is this gateway's own port"));
    assert!(lines(to("http://[::1]:38200", ""))[0].contains("is this gateway's own port"));
    assert!(lines(to("http://127.0.0.1:9000", "gateway: {bind: 0.0.0.0}\n"))[0].contains("is a loopback address"));
    to("http://10.0.0.1", "gateway: {allow_private: true}\n").unwrap();
}

#[test]
fn an_id_stands_once() {
    let text =
        format!("connections:\n{}{}{}", connection("abc", ""), connection("def", ""), connection("abc", ", status: 5"));
    let found = lines(yaml(&text));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("gateway.yaml:4:8: connections[2].id is the id of the connection in line 2 already"));
}

#[test]
fn a_circle_of_variables_is_named_once() {
    let text = "variables: {SELF: '{{SELF}}', A1: {store: B1}, B1: '{{C1}}', C1: '{{A1}}', D1: '{{A1}}', E1: '{{D2}}', D2: $X}";
    let found = lines(yaml(text));
    assert_eq!(
        found,
        [
            "gateway.yaml:1:13: variables.SELF refers to itself in a circle: SELF -> SELF",
            "gateway.yaml:1:31: variables.A1 refers to itself in a circle: A1 -> B1 -> C1 -> A1",
        ]
    );
    let long: String = (0..10_000).map(|n| format!("  V{n}: '{{{{V{}}}}}'\n", (n + 1) % 10_000)).collect();
    let found = lines(yaml(&format!("variables:\n{long}")));
    assert!(found.len() == 1 && found[0].ends_with("V7 -> … -> V0"), "{found:?}");
}

#[test]
fn a_variable_the_file_does_not_have_is_a_warning() {
    let text = "variables: {HERE: $X}\nconnections:\n- {id: abc, base_url: 'https://a.example', secrets: {a: '{{HERE}}', b: '{{AWAY}}'}, auth_secret_key: a}";
    let warnings = yaml(text).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].path, "connections[0].secrets.b");
    assert!(warnings[0].message.contains("AWAY, which this file does not declare"), "{}", warnings[0].message);
}

#[test]
fn providers_are_read_and_judged() {
    let text = "secrets:
  max_stale_seconds: 60
  resolution: {max_provider_concurrency: 2, max_refs_per_provider: 3, max_batch_bytes: 4096}
  providers:
    vault:
      source: exec
      command: /usr/local/bin/resolver
      args: [--profile, prod]
      pass_env: [PATH, VAULT_ADDR]
      env: {MODE: x}
      timeout_ms: 60000
      max_output_bytes: 2048
      allow_symlink: true
      trusted_dirs: [/usr/local/bin]
      json_only: false
    keys: {source: file, path: /run/keys.json, timeout_ms: 1, max_bytes: 10}
reload: {mode: off, settle_ms: 300, poll: true}
";
    let config = yaml(text).unwrap();
    let ProviderConfig::Exec(exec) = &config.secrets.providers["vault"] else { panic!() };
    assert_eq!(exec.command, Path::new("/usr/local/bin/resolver"));
    assert_eq!((exec.timeout, exec.max_output_bytes, exec.json_only), (Duration::from_secs(60), 2048, false));
    assert_eq!(
        (exec.args.len(), exec.pass_env.len(), exec.env["MODE"].as_str(), exec.allow_symlink),
        (2, 2, "x", true)
    );
    assert_eq!(config.secrets.resolution.max_batch_bytes, 4096);
    assert_eq!(config.secrets.max_stale, Some(Duration::from_secs(60)));
    assert_eq!(
        (config.reload.mode, config.reload.settle, config.reload.poll),
        (ReloadMode::Off, Duration::from_millis(300), true)
    );
    let cases = [
        ("Vault: {source: env}", "secrets.providers.Vault must be named by"),
        ("a: {}", "secrets.providers.a has no source; it is one of env, file, exec"),
        ("a: {source: store}", "secrets.providers.a.source must be one of env, file, exec"),
        ("a: {source: exec}", "secrets.providers.a has no command"),
        ("a: {source: exec, command: resolver}", "secrets.providers.a.command must be an absolute path"),
        ("a: {source: exec, command: /r, timeout_ms: 60001}", "timeout_ms must be a whole number from 1 to 60000"),
        ("a: {source: exec, command: /r, pass_env: [A=B]}", "pass_env holds what cannot be the name of an environment"),
        (
            "a: {source: exec, command: /r, shell: true}",
            "shell is not known; known with source exec are source, command",
        ),
        ("a: {source: file, path: /r, command: /r}", "command is not known; known with source file are source, path"),
        ("a: {source: exec, command: /r, args: ls}", "secrets.providers.a.args must be a list, found text"),
        ("a: {source: exec, command: /r, trusted_dirs: [bin]}", "trusted_dirs must be an absolute path"),
    ];
    for (provider, what) in cases {
        let found = lines(yaml(&format!("secrets: {{providers: {{{provider}}}}}")));
        assert!(found.len() == 1 && found[0].contains(what), "{provider}: {found:?}");
    }
}

#[test]
fn a_reference_needs_a_provider_of_its_source() {
    let cases = [
        ("{source: exec, id: a}", "names the provider default, which secrets.providers does not have"),
        ("{source: file, provider: vault, id: value}", "names the provider vault as file, but it is exec"),
        ("{source: env, provider: nobody, id: A}", "names the provider nobody, which"),
        ("{source: store, provider: vault, id: AB}", "names a provider, but the store is only one"),
        ("{source: env, provider: some, id: OTHER}", "names a variable that is not in the allowlist"),
    ];
    let providers = "secrets: {providers: {vault: {source: exec, command: /r}, some: {source: env, allowlist: [A]}}}\n";
    for (form, what) in cases {
        let found = lines(yaml(&format!("{providers}variables: {{KEY: {form}}}")));
        assert!(found.len() == 1 && found[0].contains(what), "{form}: {found:?}");
    }
    // What is wrong with a provider is told once, not by everybody who refers to it.
    let found = lines(yaml(
        "secrets: {providers: {v: {source: exec, command: r}}, defaults: {exec: v}}\nvariables: {KEY: {exec: a}}",
    ));
    assert_eq!(found.len(), 1, "{found:?}");
    let found = lines(yaml("secrets: {defaults: {exec: v, store: x, env: default}}"));
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn ten_thousand_connections_and_variables_are_read() {
    let connections: String = (0..10_000).map(|n| connection(&format!("service-{n}"), "")).collect();
    let variables: String = (0..10_000).map(|n| format!("  KEY_{n}: {{env: KEY_{n}}}\n")).collect();
    let config = yaml(&format!("variables:\n{variables}connections:\n{connections}")).unwrap();
    assert_eq!((config.connections.len(), config.variables.len()), (10_000, 10_000));
    let twice = lines(yaml(&format!("variables:\n{variables}  KEY_7: $A\n")));
    assert_eq!(twice, ["gateway.yaml:10002:3: KEY_7 stands here twice, first in line 9"]);
}

#[test]
fn too_many_connections_are_refused_as_a_whole() {
    let list = "- {}\n".repeat(50_001);
    assert_eq!(
        lines(yaml(&format!("connections:\n{list}"))),
        ["gateway.yaml:2:3: connections has more than 50000 entries"]
    );
}

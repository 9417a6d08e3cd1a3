//! `gateway config`: check, show, schema, in the way a person and a pipeline use them.

use super::*;

const GOOD: &str = "limits:\n  max_age_seconds: 60\nconnections:\n  - id: openai\n    base_url: https://api.openai.com\n    secrets: {api_key: $OPENAI_API_KEY}\n";
const BAD: &str = "limits:\n  max_age_seconds: soon\nconnections:\n  - id: openai\n    base_url: https://u:canary@api.openai.com\n    secrets: {api_key: canary-literal}\n";

fn run(person: &Person, arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let argv = [&["gateway", "config"], arguments].concat();
    let output = person.command(&argv).envs(environment.iter().copied()).output().unwrap();
    (output.status.code(), text_of(&output.stdout), text_of(&output.stderr))
}

fn file(person: &Person, text: &str) -> String {
    let path = person.file("gateway.yaml", text);
    readable_by(&path, 0o644);
    path
}

fn readable_by(path: &str, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn check_tells_every_mistake_and_exits_78() {
    let person = Person::new();
    let path = file(&person, BAD);
    let (code, out, err) = run(&person, &["check", &path], &[]);
    assert_eq!(code, Some(78), "{out}{err}");
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), 3, "{out}");
    assert!(lines[0].starts_with(&format!("{path}:2:20: limits.max_age_seconds must be a whole number")), "{out}");
    assert!(lines[1].starts_with(&format!("{path}:5:15: connections[0].base_url: must be")), "{out}");
    assert!(lines[2].starts_with(&format!("{path}:6:24: connections[0].secrets.api_key is not a reference")), "{out}");
    assert!(err.contains("the configuration has 3 mistakes") && !format!("{out}{err}").contains("canary"), "{err}");
    let (code, out, err) = run(&person, &["check", "--json", "--config", &path], &[]);
    assert_eq!((code, err.as_str()), (Some(78), ""));
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&told["ok"], &told["count"], &told["file"]), (&Value::Bool(false), &3.into(), &path.into()));
    let second = &told["mistakes"][1];
    assert_eq!(
        (&second["path"], &second["line"], &second["column"]),
        (&"connections[0].base_url".into(), &5.into(), &15.into())
    );
    assert!(second["message"].is_string() && told["warnings"].as_array().unwrap().is_empty());
}

#[test]
fn check_is_content_with_a_right_file_and_names_what_is_likely_wrong() {
    let person = Person::new();
    let path = file(&person, GOOD);
    let (code, out, err) = run(&person, &["check", &path], &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert_eq!(out, format!("[ok] {path}: connections: 1, variables: 0, approvals: 0\n"));
    let path = file(&person, &format!("{GOOD}variables: {{KEY: '{{{{AWAY}}}}'}}\n"));
    let (code, _, err) = run(&person, &["check", &path], &[]);
    assert!(code == Some(0) && err.starts_with(&format!("warning: {path}:7:18: variables.KEY refers to")), "{err}");
    // Mistakes of the environment count too.
    let (code, out, _) = run(&person, &["check", &path], &[("GATEWAY_BIND", "nowhere")]);
    assert!(code == Some(78) && out.starts_with("GATEWAY_BIND: must be loopback"), "{out}");
}

#[test]
fn check_needs_the_file_it_is_given() {
    let person = Person::new();
    let (code, out, _) = run(&person, &["check", "/nonexistent/gateway.yaml"], &[]);
    assert!(code == Some(78) && out.starts_with("/nonexistent/gateway.yaml: "), "{out}");
    let (code, out, _) = run(&person, &["check", "/nonexistent/gateway.yaml", "--json"], &[]);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert!(code == Some(78) && told["mistakes"][0]["line"].is_null(), "{out}");
    assert_eq!(run(&person, &["check"], &[]).0, Some(0), "where none is named there need not be one");
    assert_eq!(run(&person, &["check", "a", "--config", "b"], &[]).0, Some(64));
}

#[test]
fn a_file_with_secrets_is_its_owners_alone() {
    let person = Person::new();
    let path = file(&person, "secrets: {allow_literals: true}\nvariables: {KEY: canary-literal}\n");
    let (code, out, err) = run(&person, &["check", &path], &[]);
    assert_eq!(code, Some(78), "{err}");
    assert_eq!(out, format!("{path}: holds secrets and has mode 0644: others can read it. chmod 600 {path}\n"));
    readable_by(&path, 0o600);
    assert_eq!(run(&person, &["check", &path], &[]).0, Some(0));
    let (code, out, _) =
        run(&person, &["show", &path, "--effective", "--json"], &[("GATEWAY_MASTER_KEY", "canary-key")]);
    assert!(code == Some(0) && out.contains("[redacted]") && !out.contains("canary"), "{out}");
}

#[test]
fn show_names_the_source_of_each_value() {
    let person = Person::new();
    let path = file(&person, GOOD);
    let (code, out, _) = run(&person, &["show", &path, "--bind", "127.0.0.1"], &[("GATEWAY_ADDR", ":40100")]);
    assert_eq!(code, Some(0));
    let row = |key: &str| {
        let line =
            out.lines().find(|line| line.starts_with(&format!("{key} "))).unwrap_or_else(|| panic!("{key}: {out}"));
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("gateway.bind")[1..], ["127.0.0.1", "--bind"]);
    assert_eq!(row("gateway.addr")[1..], ["[\":40100\"]", "GATEWAY_ADDR"]);
    assert_eq!(row("limits.max_age_seconds")[1..], ["60".to_owned(), format!("{path}:2")]);
    assert_eq!(row("connections[0].secrets.api_key")[1..], ["$OPENAI_API_KEY".to_owned(), format!("{path}:6")]);
    assert!(!out.contains("logging.level"), "nobody set it");
    let (_, out, _) = run(&person, &["show", &path, "--effective"], &[]);
    assert!(out.lines().any(|line| line.starts_with("logging.level ") && line.ends_with("default")), "{out}");
    assert!(out.lines().any(|line| line.starts_with("connections[0].auth_mode ") && line.contains("bearer")), "{out}");
}

#[test]
fn what_show_prints_is_a_configuration_again() {
    let person = Person::new();
    let path = file(&person, include_str!("../golden/kitchen-sink.yaml"));
    readable_by(&path, 0o600);
    let shown = |path: &str| -> Value {
        let (code, out, err) = run(&person, &["show", path, "--effective", "--json"], &[]);
        assert_eq!(code, Some(0), "{err}");
        assert!(!out.contains("canary"));
        serde_json::from_str(&out).unwrap()
    };
    let first = shown(&path);
    assert_eq!(first["sources"]["limits.max_age_seconds"]["from"], "file");
    let again = person.file("again.yaml", &first["config"].to_string());
    readable_by(&again, 0o600);
    assert_eq!(shown(&again)["config"], first["config"]);
}

#[test]
fn the_schema_is_json_of_draft_2020_12() {
    let person = Person::new();
    let (code, out, _) = run(&person, &["schema"], &[]);
    assert_eq!(code, Some(0));
    let schema: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["properties"]["connections"]["items"]["additionalProperties"], false);
    assert_eq!(schema["properties"]["reload"]["properties"]["mode"]["default"], "hybrid");
}

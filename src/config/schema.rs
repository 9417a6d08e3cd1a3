//! The JSON Schema of `gateway.yaml` (draft 2020-12), for editors: made from the tables the loader reads by.
//!
//! It says what can be said of form. What needs the whole configuration (addresses, circles, names that must exist) is
//! judged by the loader alone.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::config::encode::typed;
use crate::config::form::Form;
use crate::config::form::Member;
use crate::config::keys;
use crate::config::keys::Fallback;
use crate::config::keys::Reload;
use crate::config::loader::MAX_LIST;
use crate::config::structure;

/// What names the schema; nobody has to reach it.
pub const ID: &str = "urn:sigilum:gateway.yaml";
/// The truth values of older YAML, which newer readers take for text.
const WORDS_OF_TRUTH: &str = "^([Yy][Ee][Ss]|[Nn][Oo]|[Oo][Nn]|[Oo][Ff][Ff])$";
/// Of the secrets of a connection: printable, and not blanks alone.
const SECRET_NAME: &str = r"^\s*\S.*$";

/// The schema. Every leaf has a description, and says in `x-reload` what a change of it takes.
pub fn schema() -> Value {
    let mut root = group("", "gateway.yaml of the Sigilum gateway");
    let closed = json!({ "$ref": "#/$defs/reference" });
    let literals = json!({
        "required": ["secrets"],
        "properties": {
            "secrets": { "type": "object", "required": ["allow_literals"], "properties": { "allow_literals": truth() } }
        },
    });
    let references_only = json!({
        "properties": {
            "variables": { "additionalProperties": closed },
            "connections": { "items": { "properties": { "secrets": { "additionalProperties": closed } } } },
        },
    });
    // Only an MCP server may want no secret.
    let mcp = json!({ "required": ["protocol"], "properties": { "protocol": { "pattern": r"^\s*[Mm][Cc][Pp]\s*$" } } });
    if let Some(Value::Object(connection)) =
        root.get_mut("properties").and_then(|all| all.pointer_mut("/connections/items"))
    {
        connection.insert("anyOf".to_owned(), json!([{ "required": ["secrets"] }, mcp]));
    }
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("$id".to_owned(), json!(ID));
    schema.append(&mut root);
    schema.insert("if".to_owned(), literals);
    schema.insert("else".to_owned(), references_only);
    schema.insert("$defs".to_owned(), json!({ "reference": reference(), "secret": secret() }));
    Value::Object(schema)
}

/// `true`, in all ways it may be written.
fn truth() -> Value {
    json!({ "anyOf": [{ "const": true }, { "pattern": "^([Yy][Ee][Ss]|[Oo][Nn])$", "type": "string" }] })
}

/// The settings and parts below a dotted name; empty = all.
fn group(prefix: &str, meaning: &str) -> Map<String, Value> {
    let mut properties = Map::new();
    let below = |name: &'static str| {
        let rest = if prefix.is_empty() { Some(name) } else { name.strip_prefix(prefix)?.strip_prefix('.') };
        rest.map(|rest| rest.split_once('.').map_or((rest, false), |(step, _)| (step, true)))
    };
    let sub = |step: &str| if prefix.is_empty() { step.to_owned() } else { format!("{prefix}.{step}") };
    for key in keys::ALL {
        let Some((step, deeper)) = key.yaml.and_then(below) else { continue };
        if deeper {
            let path = sub(step);
            let meaning = format!("settings {path}.*");
            properties.entry(step).or_insert_with(|| Value::Object(group(&path, &meaning)));
            continue;
        }
        let mut leaf = value(key.form, true);
        describe(&mut leaf, key.meaning, key.reload);
        match key.fallback {
            Fallback::Text(text) => drop(leaf.insert("default".to_owned(), typed(key.form, text))),
            Fallback::Computed(text) => note_default(&mut leaf, text),
            Fallback::None => {}
        }
        properties.insert(step.to_owned(), Value::Object(leaf));
    }
    for part in structure::PARTS {
        let Some((step, deeper)) = below(part.path) else { continue };
        if deeper {
            let path = sub(step);
            let meaning = format!("settings {path}.*");
            properties.entry(step).or_insert_with(|| Value::Object(group(&path, &meaning)));
            continue;
        }
        let mut leaf = value_of(part.form, true, part.reload);
        describe(&mut leaf, part.meaning, part.reload);
        properties.insert(step.to_owned(), Value::Object(leaf));
    }
    let mut group = Map::new();
    group.insert("type".to_owned(), json!(["object", "null"]));
    group.insert("description".to_owned(), json!(meaning));
    group.insert("properties".to_owned(), Value::Object(properties));
    group.insert("additionalProperties".to_owned(), json!(false));
    group
}

fn describe(leaf: &mut Map<String, Value>, meaning: &str, reload: Reload) {
    leaf.insert("description".to_owned(), json!(meaning));
    leaf.insert("x-reload".to_owned(), json!(reload.name()));
}

fn note_default(leaf: &mut Map<String, Value>, text: &str) {
    if let (Some(Value::String(meaning)), false) = (leaf.get_mut("description"), text.is_empty()) {
        meaning.push_str(&format!(" (default: {text})"));
    }
}

fn value(form: Form, nothing: bool) -> Map<String, Value> {
    value_of(form, nothing, Reload::Restart)
}

/// What a value of a form looks like; `nothing`: it may also say nothing.
fn value_of(form: Form, nothing: bool, reload: Reload) -> Map<String, Value> {
    let kind = |name: &str| if nothing { json!([name, "null"]) } else { json!(name) };
    let schema = match form {
        Form::Text("") => json!({ "type": kind("string") }),
        Form::Text(pattern) => json!({ "type": kind("string"), "pattern": pattern }),
        Form::Choice(words) => {
            let mut all: Vec<Value> = words.iter().map(|word| json!(word)).collect();
            for (word, truth) in [("true", true), ("false", false)] {
                if words.contains(&word) {
                    all.push(json!(truth));
                }
            }
            all.extend(nothing.then_some(Value::Null));
            json!({ "enum": all })
        }
        Form::Whole(bounds) => {
            json!({ "type": kind("integer"), "minimum": bounds.least, "maximum": bounds.most })
        }
        Form::Ratio => json!({ "type": kind("number"), "minimum": 0, "maximum": 1 }),
        Form::Boolean => {
            json!({ "anyOf": [{ "type": kind("boolean") }, { "type": "string", "pattern": WORDS_OF_TRUTH }] })
        }
        Form::Words => {
            let list = json!({ "type": "array", "items": { "type": "string" }, "maxItems": MAX_LIST });
            json!({ "anyOf": [{ "type": kind("string") }, list] })
        }
        Form::Texts(most) => json!({ "type": kind("array"), "items": { "type": "string" }, "maxItems": most }),
        Form::TextMap(most) | Form::Masked(most) => json!({
            "type": kind("object"),
            "additionalProperties": { "type": "string" },
            "maxProperties": most,
        }),
        Form::Secret => json!({ "$ref": "#/$defs/secret" }),
        Form::Secrets(most) => mapping(json!({ "$ref": "#/$defs/secret" }), SECRET_NAME, most, nothing),
        Form::NamedSecrets(pattern, most) => mapping(json!({ "$ref": "#/$defs/secret" }), pattern, most, nothing),
        Form::Object(members) => Value::Object(object(members, nothing, reload)),
        Form::Objects(members, most) => json!({
            "type": kind("array"),
            "items": object(members, false, reload),
            "maxItems": most,
        }),
        Form::Named(members, pattern, most) => {
            mapping(Value::Object(object(members, true, reload)), pattern, most, nothing)
        }
        Form::Sourced(cases, pattern, most) => {
            let cases = cases.iter().map(|(source, members)| {
                let mut case = object(members, false, reload);
                if let Some(Value::Object(properties)) = case.get_mut("properties")
                    && let Some(Value::Object(tag)) = properties.get_mut("source")
                {
                    tag.remove("enum");
                    tag.insert("const".to_owned(), json!(source));
                }
                Value::Object(case)
            });
            mapping(json!({ "oneOf": cases.collect::<Vec<_>>() }), pattern, most, nothing)
        }
    };
    if let Value::Object(schema) = schema { schema } else { Map::new() }
}

fn mapping(each: Value, names: &str, most: usize, nothing: bool) -> Value {
    let kind = if nothing { json!(["object", "null"]) } else { json!("object") };
    let mut schema = json!({ "type": kind, "additionalProperties": each, "maxProperties": most });
    if let (Value::Object(schema), false) = (&mut schema, names.is_empty()) {
        schema.insert("propertyNames".to_owned(), json!({ "pattern": names }));
    }
    schema
}

fn object(members: &[Member], nothing: bool, reload: Reload) -> Map<String, Value> {
    let mut properties = Map::new();
    for member in members {
        let mut leaf = value_of(member.form, !member.needed, reload);
        describe(&mut leaf, member.meaning, reload);
        note_default(&mut leaf, member.fallback);
        properties.insert(member.name.to_owned(), Value::Object(leaf));
    }
    let needed: Vec<_> = members.iter().filter(|member| member.needed).map(|member| member.name).collect();
    let mut schema = Map::new();
    schema.insert("type".to_owned(), if nothing { json!(["object", "null"]) } else { json!("object") });
    schema.insert("properties".to_owned(), Value::Object(properties));
    if !needed.is_empty() {
        schema.insert("required".to_owned(), json!(needed));
    }
    schema.insert("additionalProperties".to_owned(), json!(false));
    schema
}

/// Where a secret lives.
fn reference() -> Value {
    const ENV: &str = r"^\s*[A-Z][A-Z0-9_]{0,127}\s*$";
    const FILE: &str = r"^\s*(value|/.*)\s*$";
    const EXEC: &str = r"^\s*[A-Za-z0-9][A-Za-z0-9._:/#-]{0,255}\s*$";
    const STORE: &str = r"^\s*[A-Za-z0-9._-]{2,128}\s*$";
    let text = |pattern: &str, meaning: &str| json!({ "type": "string", "pattern": pattern, "description": meaning });
    let provider = || text(structure::PROVIDER, "a provider of secrets.providers; without it that of secrets.defaults");
    let case = |description: &str, properties: Value, needed: &[&str]| {
        json!({
            "type": "object",
            "description": description,
            "properties": properties,
            "required": needed,
            "additionalProperties": false,
        })
    };
    let long = [("env", ENV), ("file", FILE), ("exec", EXEC), ("store", STORE)].map(|(source, pattern)| {
        let id = text(pattern, "what the provider knows it by");
        let properties = json!({ "source": { "const": source }, "provider": provider(), "id": id });
        case("the long form", properties, &["source", "id"])
    });
    let mut cases = vec![
        text(
            r"^\s*(\$[A-Z][A-Z0-9_]{0,127}|\$\{[A-Z][A-Z0-9_]{0,127}\}|\{\{\s*[A-Za-z0-9._-]{2,128}\s*\}\})\s*$",
            "$NAME or ${NAME}: a variable of the environment; {{KEY}}: a credential variable",
        ),
        case(
            "a variable of the environment",
            json!({ "env": text(ENV, "its name"), "provider": provider() }),
            &["env"],
        ),
        case(
            "a file, or a value in a JSON file",
            json!({
                "file": text("^(/|~/)", "the file, absolute or below ~/"),
                "pointer": text(FILE, "a JSON pointer (RFC 6901); without it the whole file"),
            }),
            &["file"],
        ),
        case(
            "what a program says",
            json!({ "exec": text(EXEC, "what to ask for"), "provider": provider() }),
            &["exec"],
        ),
        case("a credential variable", json!({ "store": text(STORE, "its key") }), &["store"]),
    ];
    cases.extend(long);
    json!({ "description": "where a secret lives", "anyOf": cases })
}

/// The same, or the secret itself, which counts only with `secrets.allow_literals`.
fn secret() -> Value {
    json!({
        "description": "where a secret lives; the secret itself only with secrets.allow_literals",
        "anyOf": [{ "type": "string", "pattern": r"\S" }, { "$ref": "#/$defs/reference" }],
    })
}

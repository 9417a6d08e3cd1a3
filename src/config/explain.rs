//! What the configuration says and where each value comes from, for people and for tools. Secrets are masked.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Map;
use serde_json::Value as Json;
use serde_json::json;

use crate::config::Config;
use crate::config::Mistakes;
use crate::config::encode;
use crate::config::encode::MASK;
use crate::config::encode::typed;
use crate::config::file;
use crate::config::form::Form;
use crate::config::form::Member;
use crate::config::keys;
use crate::config::keys::Key;
use crate::config::load::Sources;
use crate::config::load::load;
use crate::config::loader::Loader;
use crate::config::mistake::Place;
use crate::config::structure;
use crate::config::syntax;
use crate::config::syntax::Mark;
use crate::config::syntax::Node;
use crate::config::syntax::Value;
use crate::config::syntax::is_boolean;
use crate::domain::reference::SecretRef;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its name, as in `connections[3].base_url`; of a setting the file cannot hold the name of its variable.
    pub path: String,
    /// What it is; secrets are masked.
    pub value: Json,
    /// Where it comes from; [`Place::Whole`]: nobody sets it.
    pub place: Place,
}

/// A whole configuration, explained.
#[derive(Debug)]
pub struct Explained {
    /// Every value, in the order of the documentation.
    pub rows: Vec<Row>,
    /// What the file can hold, in the form of the file.
    pub tree: Map<String, Json>,
    /// What the file cannot hold, by the name of its variable.
    pub outside: Map<String, Json>,
}

impl Explained {
    /// What the file can hold as JSON, which is YAML: read again it means the same, apart from what is masked.
    pub fn as_file(&self) -> String {
        Json::Object(self.tree.clone()).to_string()
    }
}

/// Explains a valid configuration: what is set, or with `effective` all there is.
pub fn explain(sources: Sources<'_>, file: Option<(&Path, &str)>, effective: bool) -> Result<Explained, Mistakes> {
    let config = load(sources, file)?;
    // What is wrong with the file was told by now.
    let text = file.map_or("", |(_, text)| text);
    let (root, _) = syntax::parse(text);
    let loader = Loader::new(sources, file::read(text, &mut Vec::new()));
    let mut explained = Explained { rows: Vec::new(), tree: Map::new(), outside: Map::new() };
    for key in keys::ALL {
        let Some((value, place)) = setting(key, &loader, &config, effective) else { continue };
        let path = match key.yaml {
            Some(name) => {
                graft(&mut explained.tree, name, value.clone());
                name
            }
            None => {
                explained.outside.insert(key.name().to_owned(), value.clone());
                key.name()
            }
        };
        explained.rows.push(Row { path: path.to_owned(), value, place });
    }
    for part in structure::PARTS {
        let mut marks = HashMap::new();
        let node = root.as_ref().and_then(|root| find(root, part.path)).filter(|node| !node.is_nothing());
        let written = node.map(|node| raw(node, part.form, part.path, &mut marks));
        let value = if effective { all_of(part.path, &config).or(written) } else { written };
        let Some(value) = value else { continue };
        rows(part.form, &value, part.path, &marks, &mut explained.rows);
        graft(&mut explained.tree, part.path, value);
    }
    Ok(explained)
}

/// A setting and where it comes from; `None` where nobody says anything.
fn setting(key: &Key, loader: &Loader<'_>, config: &Config, effective: bool) -> Option<(Json, Place)> {
    let outside = |(place, text): (Place, String)| (mask(key, &text), place);
    let inside = || {
        let node = loader.file.settings.get(key.yaml?)?;
        Some((raw(node, key.form, "", &mut HashMap::new()), node.mark.place()))
    };
    let found = loader.outside(key).map(outside).or_else(inside);
    let found = found.or_else(|| loader.saved(key).map(outside));
    if found.is_some() || !effective {
        return found;
    }
    let default = loader.sources.flags.default_of(key);
    let value = default.map_or_else(|| computed(key, config), |text| typed(key.form, text));
    Some((value, Place::Whole))
}

fn mask(key: &Key, text: &str) -> Json {
    let secret = key.env.iter().any(|name| keys::SECRET_ENVIRONMENT.contains(name));
    if secret { json!(MASK) } else { typed(key.form, text) }
}

/// What a setting is that nobody sets and that has no fixed default.
fn computed(key: &Key, config: &Config) -> Json {
    let paths = &config.paths;
    let shown = |path: &Path| json!(path.display().to_string());
    match *key {
        keys::HOME => shown(&paths.home),
        keys::CONFIG_FILE => paths.config_file.as_deref().map_or(Json::Null, shown),
        keys::DATA_DIR => shown(&paths.data_dir),
        keys::RUN_DIR => shown(&paths.run_dir),
        keys::ADMIN_URL => json!(config.admin_url),
        keys::ADMIN_ACCESS_MODE => json!(config.admin.mode.name()),
        keys::NAMESPACE => json!(config.namespace.as_ref().map(ToString::to_string)),
        _ => Json::Null,
    }
}

/// A declared part with everything in it; `None` for one that means nothing on its own.
fn all_of(path: &str, config: &Config) -> Option<Json> {
    let list = |all: Vec<Map<String, Json>>| (!all.is_empty()).then(|| json!(all));
    let map = |all: Map<String, Json>| (!all.is_empty()).then_some(Json::Object(all));
    match path {
        "connections" => list(config.connections.iter().map(encode::connection).collect()),
        "approvals" => list(config.approvals.iter().map(encode::approval).collect()),
        "workloads" => list(config.workloads.iter().map(encode::workload).collect()),
        "variables" => {
            let all = config.variables.iter();
            map(all.map(|variable| (variable.key.clone(), encode::secret(&variable.source))).collect())
        }
        "secrets.providers" => {
            let all = config.secrets.providers.iter();
            map(all.map(|(name, provider)| (name.clone(), Json::Object(encode::provider(provider)))).collect())
        }
        _ => None,
    }
}

/// Puts a value at a dotted name.
fn graft(tree: &mut Map<String, Json>, name: &str, value: Json) {
    match name.split_once('.') {
        None => drop(tree.insert(name.to_owned(), value)),
        Some((group, rest)) => {
            let below = tree.entry(group).or_insert_with(|| Json::Object(Map::new()));
            if let Json::Object(below) = below {
                graft(below, rest, value);
            }
        }
    }
}

/// The node at a dotted name.
fn find<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    let (step, rest) = name.split_once('.').map_or((name, None), |(step, rest)| (step, Some(rest)));
    let Value::Map(entries) = &node.value else { return None };
    let value = &entries.iter().find(|entry| entry.key == step)?.value;
    rest.map_or(Some(value), |rest| find(value, rest))
}

/// What stands in the file, as it stands there, secrets masked; notes where each leaf is.
fn raw(node: &Node, form: Form, path: &str, marks: &mut HashMap<String, Mark>) -> Json {
    let each = |entries: &[syntax::Entry], form: &dyn Fn(&str) -> Form, marks: &mut HashMap<String, Mark>| {
        let said = entries.iter().filter(|entry| !entry.value.is_nothing());
        let read = said.map(|entry| {
            let value = raw(&entry.value, form(&entry.key), &format!("{path}.{}", entry.key), marks);
            (entry.key.clone(), value)
        });
        Json::Object(read.collect())
    };
    let of = |members: &'static [Member]| {
        move |name: &str| members.iter().find(|member| member.name == name).map_or(Form::Text(""), |member| member.form)
    };
    match (form, &node.value) {
        (Form::Object(members), Value::Map(entries)) => each(entries, &of(members), marks),
        (Form::Objects(members, _), Value::List(items)) => {
            let read = items.iter().enumerate();
            read.map(|(index, item)| raw(item, Form::Object(members), &format!("{path}[{index}]"), marks)).collect()
        }
        (Form::Named(members, ..), Value::Map(entries)) => each(entries, &|_| Form::Object(members), marks),
        (Form::Sourced(cases, ..), Value::Map(entries)) => {
            let read = entries.iter().map(|entry| {
                let source = find(&entry.value, "source").and_then(|node| file::text_of(node).ok());
                let case = cases.iter().find(|(name, _)| Some(*name) == source.map(str::trim));
                let members = case.map_or(&[][..], |(_, members)| members);
                (entry.key.clone(), raw(&entry.value, Form::Object(members), &format!("{path}.{}", entry.key), marks))
            });
            Json::Object(read.collect())
        }
        (Form::Secrets(_) | Form::NamedSecrets(..), Value::Map(entries)) => each(entries, &|_| Form::Secret, marks),
        _ => {
            marks.insert(path.to_owned(), node.mark);
            leaf(node, form)
        }
    }
}

/// One value as it stands in the file.
fn leaf(node: &Node, form: Form) -> Json {
    match (form, &node.value) {
        (Form::Secret, Value::Plain(text) | Value::Text(text)) => {
            let reference = matches!(SecretRef::short(text.trim()), Some(Ok(_)));
            if reference { json!(text.trim()) } else { json!(MASK) }
        }
        (Form::Masked(_), Value::Map(entries)) => {
            Json::Object(entries.iter().map(|entry| (entry.key.clone(), json!(MASK))).collect())
        }
        (_, Value::Map(entries)) => {
            Json::Object(entries.iter().map(|entry| (entry.key.clone(), leaf(&entry.value, Form::Text("")))).collect())
        }
        (_, Value::List(items)) => items.iter().map(|item| leaf(item, Form::Text(""))).collect(),
        (Form::Choice(_), Value::Plain(text)) if is_boolean(text) => json!(text.eq_ignore_ascii_case("true")),
        (_, Value::Plain(text) | Value::Text(text)) => typed(form, text),
    }
}

/// The leaves of a value, each with the place it stands at.
fn rows(form: Form, value: &Json, path: &str, marks: &HashMap<String, Mark>, out: &mut Vec<Row>) {
    let mut members = |all: &Map<String, Json>, form: &dyn Fn(&str) -> Form| {
        for (name, value) in all {
            rows(form(name), value, &format!("{path}.{name}"), marks, out);
        }
    };
    match (form, value) {
        (Form::Object(known), Json::Object(all)) => members(all, &|name| {
            known.iter().find(|member| member.name == name).map_or(Form::Text(""), |member| member.form)
        }),
        (Form::Objects(known, _), Json::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                rows(Form::Object(known), item, &format!("{path}[{index}]"), marks, out);
            }
        }
        (Form::Named(known, ..), Json::Object(all)) => members(all, &|_| Form::Object(known)),
        // All kinds of provider have their own members; what is no mapping of mappings is a leaf in each.
        (Form::Sourced(..), Json::Object(all)) => members(all, &|_| Form::Object(&[])),
        (Form::Secrets(_) | Form::NamedSecrets(..), Json::Object(all)) => members(all, &|_| Form::Secret),
        _ => {
            let place = marks.get(path).map_or(Place::Whole, |mark| mark.place());
            out.push(Row { path: path.to_owned(), value: value.clone(), place });
        }
    }
}

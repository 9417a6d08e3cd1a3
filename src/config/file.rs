//! `gateway.yaml`: the tree to settings and approvals, with every mistake in its place.

use std::collections::BTreeMap;
use std::collections::HashMap;

use crate::config::keys;
use crate::config::mistake::Mistake;
use crate::config::parts::DeclaredApproval;
use crate::config::syntax;
use crate::config::syntax::Entry;
use crate::config::syntax::Mark;
use crate::config::syntax::Node;
use crate::config::syntax::Value;
use crate::domain::ids::ConnectionId;
use crate::domain::ids::InvalidId;
use crate::domain::ids::Namespace;
use crate::domain::ids::PublicKey;
use crate::domain::time::UnixSeconds;

/// What the file says, setting by setting, not yet judged by meaning.
#[derive(Debug, Default)]
pub(crate) struct GatewayFile {
    /// By dotted name; every name is one of [`keys::ALL`].
    pub(crate) settings: BTreeMap<&'static str, Node>,
    pub(crate) approvals: Vec<DeclaredApproval>,
}

/// Reads the text of the file. What is wrong is added to `mistakes`; the rest is still returned.
pub(crate) fn read(text: &str, mistakes: &mut Vec<Mistake>) -> GatewayFile {
    let mut file = GatewayFile::default();
    let (root, found) = syntax::parse(text);
    mistakes.extend(found);
    let Some(root) = root else { return file };
    let Value::Map(entries) = root.value else {
        mistakes.push(wrong(root.mark, format!("the file must be a mapping, found {}", root.kind())));
        return file;
    };
    for entry in entries {
        match entry.key.as_str() {
            "approvals" => approvals(entry.value, &mut file.approvals, mistakes),
            "connections" => mistakes.push(wrong(
                entry.mark,
                "connections: not supported yet in this file; create connections through the admin API".to_owned(),
            )),
            _ => section(entry, &mut file.settings, mistakes),
        }
    }
    file
}

/// One group of settings, e.g. `limits:`.
fn section(entry: Entry, settings: &mut BTreeMap<&'static str, Node>, mistakes: &mut Vec<Mistake>) {
    let Entry { key: group, mark, value } = entry;
    let prefix = format!("{group}.");
    let names = || keys::ALL.iter().filter_map(|key| key.yaml).filter(|name| name.starts_with(&prefix));
    if names().next().is_none() {
        let known = "gateway, envoy, claims, admin, limits, rotation, logging, approvals";
        mistakes.push(wrong(mark, format!("unknown key {}; known are {known}", shown(&group))));
        return;
    }
    if value.is_nothing() {
        return;
    }
    let kind = value.kind();
    let Value::Map(entries) = value.value else {
        mistakes.push(wrong(value.mark, format!("{group} must be a mapping, found {kind}")));
        return;
    };
    for Entry { key, mark, value } in entries {
        match names().find(|name| name.strip_prefix(&prefix) == Some(&key)) {
            // Nothing said is the same as not mentioned.
            Some(_) if value.is_nothing() => {}
            Some(name) => {
                settings.insert(name, value);
            }
            None => {
                let known: Vec<_> = names().filter_map(|name| name.strip_prefix(&prefix)).collect();
                let known = known.join(", ");
                mistakes.push(wrong(mark, format!("unknown key {}; {group} knows {known}", shown(&key))));
            }
        }
    }
}

fn approvals(node: Node, approvals: &mut Vec<DeclaredApproval>, mistakes: &mut Vec<Mistake>) {
    if node.is_nothing() {
        return;
    }
    let kind = node.kind();
    let Value::List(items) = node.value else {
        mistakes.push(wrong(node.mark, format!("approvals must be a list, found {kind}")));
        return;
    };
    let mut seen: HashMap<(Namespace, PublicKey, ConnectionId), u32> = HashMap::new();
    for item in items {
        let mark = item.mark;
        let Some(approval) = approval(item, mistakes) else { continue };
        let place = (approval.namespace.clone(), approval.public_key, approval.service.clone());
        if let Some(line) = seen.get(&place) {
            mistakes.push(wrong(mark, format!("the same approval stands in line {line} already")));
            continue;
        }
        seen.insert(place, mark.line());
        approvals.push(approval);
    }
}

/// One approval; `None` where something is wrong with it, which is then in `mistakes`.
fn approval(item: Node, mistakes: &mut Vec<Mistake>) -> Option<DeclaredApproval> {
    let mark = item.mark;
    let kind = item.kind();
    let Value::Map(entries) = item.value else {
        let fields = "namespace, public_key and service";
        mistakes.push(wrong(mark, format!("an approval must be a mapping with {fields}, found {kind}")));
        return None;
    };
    let before = mistakes.len();
    let (mut namespace, mut public_key, mut service, mut expires_at) = (None, None, None, None);
    let (mut has_namespace, mut has_key, mut has_service) = (false, false, false);
    for Entry { key, mark: key_mark, value } in &entries {
        match key.as_str() {
            "namespace" => {
                has_namespace = true;
                namespace = field(key, value, mistakes, |text| Namespace::parse(text).map_err(said));
            }
            "public_key" => {
                has_key = true;
                public_key = field(key, value, mistakes, |text| PublicKey::parse(text).map_err(said));
            }
            "service" => {
                has_service = true;
                service = field(key, value, mistakes, |text| ConnectionId::parse(text).map_err(said));
            }
            "expires_at" if value.is_nothing() => {}
            "expires_at" => {
                expires_at = field(key, value, mistakes, |text| {
                    UnixSeconds::parse_rfc3339(text)
                        .ok_or_else(|| "must be a time such as 2027-01-31T12:00:00Z".to_owned())
                });
            }
            _ => {
                let known = "namespace, public_key, service, expires_at";
                mistakes.push(wrong(*key_mark, format!("unknown key {}; an approval knows {known}", shown(key))));
            }
        }
    }
    for (name, present) in [("namespace", has_namespace), ("public_key", has_key), ("service", has_service)] {
        if !present {
            mistakes.push(wrong(mark, format!("the approval has no {name}")));
        }
    }
    if mistakes.len() > before {
        return None;
    }
    Some(DeclaredApproval { namespace: namespace?, public_key: public_key?, service: service?, expires_at })
}

fn field<T>(
    name: &str,
    node: &Node,
    mistakes: &mut Vec<Mistake>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    match text_of(node).and_then(parse) {
        Ok(value) => Some(value),
        Err(message) => {
            mistakes.push(wrong(node.mark, format!("{name} {message}")));
            None
        }
    }
}

fn said(invalid: InvalidId) -> String {
    invalid.to_string()
}

/// The text of a node that must be text: a word YAML reads as something else wants quotes.
pub(crate) fn text_of(node: &Node) -> Result<&str, String> {
    match &node.value {
        Value::Text(text) => Ok(text),
        Value::Plain(text) if node.kind() == "text" => Ok(text),
        Value::Plain(_) if node.is_nothing() => Err("is empty".to_owned()),
        Value::Plain(_) => Err(format!("must be text, found {}: put it in quotes", node.kind())),
        Value::List(_) | Value::Map(_) => Err(format!("must be text, found {}", node.kind())),
    }
}

/// A mistake at a place of the file.
pub(crate) fn wrong(mark: Mark, message: String) -> Mistake {
    Mistake { place: mark.place(), message }
}

/// Text of the file as it may be repeated in a message: short, one line, no control characters.
pub(crate) fn shown(text: &str) -> String {
    const MAX_SHOWN: usize = 40;
    let short: String = text.chars().take(MAX_SHOWN).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("\"{}{dots}\"", short.escape_debug())
}

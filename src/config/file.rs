//! `gateway.yaml`: the tree to settings and approvals, with every mistake in its place.

use std::collections::BTreeMap;
use std::collections::HashMap;

use crate::config::keys;
use crate::config::mistake::MAX_FOUND;
use crate::config::mistake::Mistake;
use crate::config::parts::DeclaredApproval;
use crate::config::structure;
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
    /// By dotted name; every name is one of [`structure::PARTS`], approvals left out.
    pub(crate) parts: BTreeMap<&'static str, Node>,
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
            APPROVALS => approvals(entry.value, &mut file.approvals, mistakes),
            _ => section("", entry, &mut file, mistakes),
        }
    }
    file
}

/// The one part that is judged without any setting.
const APPROVALS: &str = "approvals";

/// Every name the file may hold.
fn names() -> impl Iterator<Item = &'static str> {
    keys::ALL.iter().filter_map(|key| key.yaml).chain(structure::PARTS.iter().map(|part| part.path))
}

/// One entry below the group `group`: a setting, a part, or a group of them.
fn section(group: &str, entry: Entry, file: &mut GatewayFile, mistakes: &mut Vec<Mistake>) {
    let Entry { key, mark, value } = entry;
    let full = if group.is_empty() { key.clone() } else { format!("{group}.{key}") };
    let found = names()
        .find(|name| name.strip_prefix(full.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')));
    let Some(name) = found.filter(|_| !key.is_empty() && !key.contains('.')) else {
        let mut known: Vec<&str> = Vec::new();
        for name in names() {
            let below = if group.is_empty() {
                Some(name)
            } else {
                name.strip_prefix(group).and_then(|rest| rest.strip_prefix('.'))
            };
            let step = below.map(|below| below.split('.').next().unwrap_or_default());
            known.extend(step.filter(|step| !known.contains(step)));
        }
        let owner = if group.is_empty() { "known are".to_owned() } else { format!("{group} knows") };
        let message = format!("unknown key {}; {owner} {}", shown(&key), known.join(", "));
        mistakes.push(Mistake { path: group.to_owned(), ..wrong(mark, message) });
        return;
    };
    // Nothing said is the same as not mentioned.
    if value.is_nothing() {
        return;
    }
    if name == full {
        let part = structure::PARTS.iter().any(|part| part.path == name);
        let place = if part { &mut file.parts } else { &mut file.settings };
        place.insert(name, value);
        return;
    }
    let kind = value.kind();
    let Value::Map(entries) = value.value else {
        let message = format!("{full} must be a mapping, found {kind}");
        mistakes.push(Mistake { path: full, ..wrong(value.mark, message) });
        return;
    };
    for entry in entries {
        section(&full, entry, file, mistakes);
    }
}

fn approvals(node: Node, approvals: &mut Vec<DeclaredApproval>, mistakes: &mut Vec<Mistake>) {
    if node.is_nothing() {
        return;
    }
    let kind = node.kind();
    let Value::List(items) = node.value else {
        let message = format!("approvals must be a list, found {kind}");
        mistakes.push(Mistake { path: APPROVALS.to_owned(), ..wrong(node.mark, message) });
        return;
    };
    let mut seen: HashMap<(Namespace, PublicKey, ConnectionId), u32> = HashMap::new();
    for (index, item) in items.into_iter().enumerate() {
        let mark = item.mark;
        let before = mistakes.len();
        if before >= MAX_FOUND {
            break;
        }
        let approval = approval(item, mistakes);
        for mistake in mistakes.iter_mut().skip(before) {
            mistake.path = format!("{APPROVALS}[{index}]{}", mistake.path);
        }
        let Some(approval) = approval else { continue };
        let place = (approval.namespace.clone(), approval.public_key, approval.service.clone());
        if let Some(line) = seen.get(&place) {
            let message = format!("the same approval stands in line {line} already");
            mistakes.push(Mistake { path: format!("{APPROVALS}[{index}]"), ..wrong(mark, message) });
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

/// A member that is a text of some form; where it is not, that is said at its place.
pub(super) fn field<T>(
    name: &str,
    node: &Node,
    mistakes: &mut Vec<Mistake>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    match text_of(node).and_then(parse) {
        Ok(value) => Some(value),
        Err(message) => {
            let message = format!("{name} {message}");
            mistakes.push(Mistake { path: format!(".{name}"), ..wrong(node.mark, message) });
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
    Mistake { place: mark.place(), path: String::new(), message }
}

/// Text of the file as it may be repeated in a message: short, one line, no control characters.
pub(crate) fn shown(text: &str) -> String {
    const MAX_SHOWN: usize = 40;
    let short: String = text.chars().take(MAX_SHOWN).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("\"{}{dots}\"", short.escape_debug())
}

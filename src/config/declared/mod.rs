//! The parts of the file that declare something, from tree to types: every mistake in its place, and no secret repeated.

mod connections;
mod providers;
mod secrets;
mod variables;

pub(super) use connections::read as read_connections;
pub(super) use providers::Providers;
pub(super) use providers::read as read_providers;
pub(super) use secrets::Rules;
pub(super) use variables::read as read_variables;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::config::file::text_of;
use crate::config::form::Member;
use crate::config::loader::Shape;
use crate::config::loader::parse_boolean;
use crate::config::loader::parse_number;
use crate::config::loader::shaped;
use crate::config::mistake::Mistake;
use crate::config::syntax::Entry;
use crate::config::syntax::Mark;
use crate::config::syntax::Node;
use crate::config::syntax::Value;

/// Longest path, in bytes (`PATH_MAX` of Linux).
const MAX_PATH_BYTES: usize = 4096;

/// A place in the file by names, made without allocating: it is written out only where something is wrong there.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    Root(&'a str),
    Member(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(name) => formatter.write_str(name),
            Self::Member(parent, name) => write!(formatter, "{parent}.{name}"),
            Self::Index(parent, index) => write!(formatter, "{parent}[{index}]"),
        }
    }
}

/// Notes a mistake of the value at `path`.
pub(super) fn blame(mistakes: &mut Vec<Mistake>, mark: Mark, path: &Path<'_>, what: &str) {
    let path = path.to_string();
    let message = format!("{path} {what}");
    mistakes.push(Mistake { place: mark.place(), path, message });
}

/// Takes what was read, or notes why it could not be.
fn take<T>(read: Result<T, String>, mark: Mark, path: &Path<'_>, mistakes: &mut Vec<Mistake>) -> Option<T> {
    read.map_err(|what| blame(mistakes, mark, path, &what)).ok()
}

/// The entries of a mapping; `None` and a mistake where it is none. Nothing said is an empty one.
fn entries(node: Node, path: &Path<'_>, mistakes: &mut Vec<Mistake>) -> Option<Vec<Entry>> {
    let kind = node.kind();
    match node.value {
        Value::Map(entries) => Some(entries),
        Value::Plain(_) if kind == "nothing" => Some(Vec::new()),
        Value::Plain(_) | Value::Text(_) | Value::List(_) => {
            blame(mistakes, node.mark, path, &format!("must be a mapping, found {kind}"));
            None
        }
    }
}

/// The items of a list; `None` and a mistake where it is none.
fn items(node: Node, path: &Path<'_>, most: usize, mistakes: &mut Vec<Mistake>) -> Option<Vec<Node>> {
    let kind = node.kind();
    match node.value {
        Value::List(items) if items.len() > most => {
            blame(mistakes, node.mark, path, &format!("has more than {most} entries"));
            None
        }
        Value::List(items) => Some(items),
        Value::Plain(_) if kind == "nothing" => Some(Vec::new()),
        Value::Plain(_) | Value::Text(_) | Value::Map(_) => {
            blame(mistakes, node.mark, path, &format!("must be a list, found {kind}"));
            None
        }
    }
}

/// Reads single values by their form.
struct Reader<'a> {
    mistakes: &'a mut Vec<Mistake>,
}

impl Reader<'_> {
    fn text(&mut self, node: Node, path: &Path<'_>) -> Option<String> {
        let mark = node.mark;
        take(into_text(node), mark, path, self.mistakes)
    }

    fn boolean(&mut self, node: &Node, path: &Path<'_>) -> Option<bool> {
        let read = shaped(node, Shape::Boolean).and_then(|text| parse_boolean(&text));
        take(read, node.mark, path, self.mistakes)
    }

    /// A number within the bounds of its form.
    fn whole(&mut self, node: &Node, member: &Member, path: &Path<'_>) -> Option<u64> {
        let bounds = member.form.bounds();
        let read = shaped(node, Shape::Number).and_then(|text| parse_number(&text, bounds.least, bounds.most));
        take(read, node.mark, path, self.mistakes)
    }

    /// One of the words of its form.
    fn choice(&mut self, node: Node, member: &Member, path: &Path<'_>) -> Option<String> {
        let mark = node.mark;
        let text = self.text(node, path)?;
        let words = member.form.words();
        if words.contains(&text.trim()) {
            return Some(text);
        }
        let known: Vec<_> = words.iter().filter(|word| !word.is_empty()).copied().collect();
        blame(self.mistakes, mark, path, &format!("must be one of {}", known.join(", ")));
        None
    }

    /// A list of texts.
    fn texts(&mut self, node: Node, member: &Member, path: &Path<'_>) -> Option<Vec<String>> {
        let most = member.form.most();
        let items = items(node, path, most, self.mistakes)?;
        let texts: Vec<_> =
            items.into_iter().enumerate().map(|(index, item)| self.text(item, &Path::Index(path, index))).collect();
        texts.into_iter().collect()
    }

    /// Texts by name.
    fn text_map(&mut self, node: Node, member: &Member, path: &Path<'_>) -> Option<BTreeMap<String, String>> {
        let most = member.form.most();
        let mark = node.mark;
        let entries = entries(node, path, self.mistakes)?;
        if entries.len() > most {
            blame(self.mistakes, mark, path, &format!("has more than {most} entries"));
            return None;
        }
        let mut all = Some(BTreeMap::new());
        for Entry { key, value, .. } in entries {
            match self.text(value, &Path::Member(path, &key)) {
                Some(text) => {
                    if let Some(texts) = &mut all {
                        texts.insert(key, text);
                    }
                }
                None => all = None,
            }
        }
        all
    }
}

/// The text of a node that must be text; empty quotes are text too.
fn into_text(node: Node) -> Result<String, String> {
    text_of(&node)?;
    match node.value {
        Value::Plain(text) | Value::Text(text) => Ok(text),
        Value::List(_) | Value::Map(_) => Err("must be text".to_owned()),
    }
}

/// A path that must be absolute once `~/` is written out.
fn absolute(text: &str, home: Option<&str>) -> Result<PathBuf, String> {
    let text = text.trim();
    let path = match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => std::path::Path::new(home).join(rest),
        (Some(_), None) => return Err("begins with ~/, and there is no HOME".to_owned()),
        (None, _) => PathBuf::from(text),
    };
    if !path.is_absolute() || text.chars().any(char::is_control) || text.len() > MAX_PATH_BYTES {
        return Err("must be an absolute path, or one below ~/".to_owned());
    }
    Ok(path)
}

/// Finds the member of a mapping that `key` names, or says which there are.
fn member(members: &'static [Member], key: &str) -> Result<&'static Member, String> {
    members.iter().find(|member| member.name == key).ok_or_else(|| {
        let known: Vec<_> = members.iter().map(|member| member.name).collect();
        known.join(", ")
    })
}

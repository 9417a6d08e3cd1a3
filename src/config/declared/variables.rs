//! `variables`: credential variables by key. Those that refer to each other must come to an end.

use std::collections::HashMap;

use crate::config::declaration::DeclaredVariable;
use crate::config::declaration::MAX_VARIABLES;
use crate::config::declared::Path;
use crate::config::declared::Rules;
use crate::config::declared::blame;
use crate::config::declared::entries;
use crate::config::mistake::Mistake;
use crate::config::syntax::Entry;
use crate::config::syntax::Mark;
use crate::config::syntax::Node;
use crate::domain::reference::is_variable_key;

/// How many variables of a circle a message names.
const MAX_SHOWN: usize = 8;

/// Reads all variables. What is wrong is added to `mistakes`; the rest is still returned.
pub(in crate::config) fn read(
    node: Option<Node>,
    rules: &Rules<'_>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<DeclaredVariable> {
    let path = Path::Root("variables");
    let Some(node) = node else { return Vec::new() };
    let whole = node.mark;
    let entries = entries(node, &path, mistakes).unwrap_or_default();
    if entries.len() > MAX_VARIABLES {
        blame(mistakes, whole, &path, &format!("has more than {MAX_VARIABLES} entries"));
        return Vec::new();
    }
    let mut variables = Vec::with_capacity(entries.len());
    let mut marks = Vec::with_capacity(entries.len());
    for Entry { key, mark, value } in entries {
        if !is_variable_key(&key) {
            // Not repeated: what stands in the wrong place may be the value.
            blame(mistakes, mark, &path, "has a key that has not 2 to 128 of A-Z, a-z, 0-9, '.', '_' and '-'");
            continue;
        }
        let Some(source) = rules.source(value, &Path::Member(&path, &key), mistakes) else { continue };
        variables.push(DeclaredVariable { key, source, line: mark.line() });
        marks.push(mark);
    }
    refuse_circles(&variables, &marks, &path, mistakes);
    variables
}

/// Each variable refers to one other at most, so following that is all it takes.
fn refuse_circles(variables: &[DeclaredVariable], marks: &[Mark], path: &Path<'_>, mistakes: &mut Vec<Mistake>) {
    let at: HashMap<&str, usize> =
        variables.iter().enumerate().map(|(index, variable)| (variable.key.as_str(), index)).collect();
    let next = |index: usize| at.get(variables.get(index)?.source.variable()?).copied();
    // In which walk each was seen first; 0 = not yet.
    let mut seen = vec![0_usize; variables.len()];
    for begin in 0..variables.len() {
        let walk = begin.saturating_add(1);
        let mut here = Some(begin);
        while let Some(index) = here {
            match seen.get_mut(index) {
                Some(first) if *first == 0 => *first = walk,
                Some(first) if *first == walk => {
                    blame_circle(variables, marks, index, &next, path, mistakes);
                    break;
                }
                Some(_) | None => break,
            }
            here = next(index);
        }
    }
}

fn blame_circle(
    variables: &[DeclaredVariable],
    marks: &[Mark],
    start: usize,
    next: &dyn Fn(usize) -> Option<usize>,
    path: &Path<'_>,
    mistakes: &mut Vec<Mistake>,
) {
    let name = |index: usize| variables.get(index).map_or("", |variable| variable.key.as_str());
    let mut names = vec![name(start)];
    let mut here = next(start);
    while let Some(index) = here.filter(|index| *index != start) {
        if names.len() == MAX_SHOWN {
            names.push("…");
            break;
        }
        names.push(name(index));
        here = next(index);
    }
    names.push(name(start));
    if let Some(mark) = marks.get(start) {
        let what = format!("refers to itself in a circle: {}", names.join(" -> "));
        blame(mistakes, *mark, &Path::Member(path, name(start)), &what);
    }
}

//! OpenClaw's configuration with our notifier in it. Pure: text in, text out; what is not ours stays, in its order, and where it
//! is JSON5 with its comments.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::CstInputValue;
use jsonc_parser::cst::CstObject;
use jsonc_parser::cst::CstRootNode;
use jsonc_parser::errors::ParseError;
use serde_json::Map;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::cli::auth::login::Notify;
use crate::domain::ids::Namespace;
use crate::domain::secret::Secret;

/// The notifier's name among OpenClaw's hooks.
const HOOK: &str = "sigilum-authz-notify";

/// What to write.
pub(super) struct Edit<'a> {
    /// Whose approvals it tells of.
    pub(super) namespace: &'a Namespace,
    /// The API it asks.
    pub(super) api_url: &'a str,
    /// Whether it runs.
    pub(super) notify: Notify,
    /// What it asks with; written only where it runs.
    pub(super) token: &'a Secret,
}

/// Why the file is left as it is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    /// Half a file, or something else.
    #[error("it is no JSON5 (line {line}, column {column})")]
    Syntax {
        /// 1-based.
        line: usize,
        /// 1-based.
        column: usize,
    },
    /// Something stands where an object is needed.
    #[error("{0} should be an object")]
    NoObject(String),
}

impl From<ParseError> for Wrong {
    fn from(error: ParseError) -> Self {
        Self::Syntax { line: error.line_display(), column: error.column_display() }
    }
}

/// JSON5, which OpenClaw reads; a comma that is missing is missing there too.
fn json5() -> ParseOptions {
    ParseOptions { allow_missing_commas: false, ..ParseOptions::default() }
}

/// What the file says.
pub(crate) fn read(text: &str) -> Result<Value, Wrong> {
    match serde_json::from_str(text) {
        Ok(value) => Ok(value),
        Err(_) => {
            let value: Option<Value> = jsonc_parser::parse_to_serde_value(text, &json5())?;
            Ok(value.unwrap_or_default())
        }
    }
}

/// The new text, and whether the notifier runs. Plain JSON is indented by two blanks; what is JSON5 keeps its form.
pub(super) fn apply(text: &str, edit: &Edit<'_>) -> Result<(Zeroizing<String>, bool), Wrong> {
    let Ok(mut root) = serde_json::from_str::<Value>(text) else { return apply_in_place(text, edit) };
    let internal = object(&mut root, &["hooks", "internal"])?;
    internal.insert("enabled".to_owned(), Value::Bool(true));
    let entry = object(&mut root, &["hooks", "internal", "entries", HOOK])?;
    match edit.notify {
        Notify::True => drop(entry.insert("enabled".to_owned(), Value::Bool(true))),
        Notify::False => drop(entry.insert("enabled".to_owned(), Value::Bool(false))),
        Notify::Preserve => {}
    }
    let enabled = entry.get("enabled").and_then(Value::as_bool).unwrap_or(false);
    let variables = object(&mut root, &["hooks", "internal", "entries", HOOK, "env"])?;
    let mut set = |name: &str, value: &str| variables.insert(name.to_owned(), Value::from(value));
    set("SIGILUM_NAMESPACE", edit.namespace.as_str());
    set("SIGILUM_API_URL", edit.api_url);
    if enabled {
        set("SIGILUM_OWNER_TOKEN", edit.token.expose());
    } else {
        variables.shift_remove("SIGILUM_OWNER_TOKEN");
    }
    let text = serde_json::to_string_pretty(&root).map_err(|_| Wrong::NoObject("the file".to_owned()))?;
    Ok((Zeroizing::new(text + "\n"), enabled))
}

/// The same with every other line as it was.
fn apply_in_place(text: &str, edit: &Edit<'_>) -> Result<(Zeroizing<String>, bool), Wrong> {
    let root = CstRootNode::parse(text, &json5())?;
    let file = root.object_value().ok_or_else(|| Wrong::NoObject("the file".to_owned()))?;
    let internal = object_in_place(&file, &["hooks", "internal"])?;
    set(&internal, "enabled", CstInputValue::Bool(true));
    let entry = object_in_place(&file, &["hooks", "internal", "entries", HOOK])?;
    match edit.notify {
        Notify::True => set(&entry, "enabled", CstInputValue::Bool(true)),
        Notify::False => set(&entry, "enabled", CstInputValue::Bool(false)),
        Notify::Preserve => {}
    }
    let enabled = entry.get("enabled").and_then(|found| found.value()?.as_boolean_lit());
    let enabled = enabled.is_some_and(|found| found.value());
    let variables = object_in_place(&file, &["hooks", "internal", "entries", HOOK, "env"])?;
    let text = |value: &str| CstInputValue::String(value.to_owned());
    set(&variables, "SIGILUM_NAMESPACE", text(edit.namespace.as_str()));
    set(&variables, "SIGILUM_API_URL", text(edit.api_url));
    if enabled {
        set(&variables, "SIGILUM_OWNER_TOKEN", text(edit.token.expose()));
    } else if let Some(token) = variables.get("SIGILUM_OWNER_TOKEN") {
        token.remove();
    }
    Ok((Zeroizing::new(root.to_string()), enabled))
}

fn set(object: &CstObject, name: &str, value: CstInputValue) {
    match object.get(name) {
        Some(found) => found.set_value(value),
        None => drop(object.append(name, value)),
    }
}

/// [`object`] in a file that keeps its form.
fn object_in_place(file: &CstObject, path: &[&str]) -> Result<CstObject, Wrong> {
    let mut at = file.clone();
    for (depth, name) in path.iter().enumerate() {
        at = at.object_value_or_create(name).ok_or_else(|| {
            Wrong::NoObject(path.iter().take(depth.saturating_add(1)).copied().collect::<Vec<_>>().join("."))
        })?;
    }
    Ok(at)
}

/// The object at this path; what is missing on the way is made.
fn object<'a>(root: &'a mut Value, path: &[&str]) -> Result<&'a mut Map<String, Value>, Wrong> {
    let mut at = root.as_object_mut().ok_or_else(|| Wrong::NoObject("the file".to_owned()))?;
    for (depth, name) in path.iter().enumerate() {
        let next = at.entry(*name).or_insert_with(|| Value::Object(Map::new()));
        at = next.as_object_mut().ok_or_else(|| {
            Wrong::NoObject(path.iter().take(depth.saturating_add(1)).copied().collect::<Vec<_>>().join("."))
        })?;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

    use super::*;

    fn edited(text: &str, notify: Notify) -> Result<(String, bool), Wrong> {
        let namespace = Namespace::parse("acme").unwrap();
        let token = Secret::new("a.b.c".to_owned());
        let edit = Edit { namespace: &namespace, api_url: "http://127.0.0.1:8787", notify, token: &token };
        apply(text, &edit).map(|(text, enabled)| ((*text).clone(), enabled))
    }

    #[test]
    fn everything_else_stays_in_its_order_and_twice_is_once() {
        let text = r#"{"z":1,"hooks":{"other":[1.5],"internal":{"entries":{"b":{},"sigilum-authz-notify":{"env":{"X":"y"}}}}},"a":null}"#;
        let (once, enabled) = edited(text, Notify::Preserve).unwrap();
        assert!(!enabled && !once.contains("a.b.c") && once.ends_with("}\n"), "{once}");
        assert_eq!(edited(&once, Notify::Preserve).unwrap().0, once);
        let names: Value = serde_json::from_str(&once).unwrap();
        assert_eq!(names.as_object().unwrap().keys().collect::<Vec<_>>(), ["z", "hooks", "a"]);
        assert_eq!(names["hooks"]["internal"]["entries"][HOOK]["env"]["X"], "y");
        assert_eq!(names["hooks"]["internal"]["enabled"], true);
        assert!(once.starts_with("{\n  \"z\": 1,\n"), "{once}");
    }

    #[test]
    fn the_token_stands_there_only_while_the_notifier_runs() {
        let (on, enabled) = edited("{}", Notify::True).unwrap();
        assert!(enabled && on.contains("a.b.c"), "{on}");
        let (kept, enabled) = edited(&on, Notify::Preserve).unwrap();
        assert!(enabled && kept.contains("a.b.c"), "{kept}");
        let (off, enabled) = edited(&on, Notify::False).unwrap();
        assert!(!enabled && !off.contains("a.b.c"), "{off}");
    }

    #[test]
    fn json5_keeps_its_comments_and_its_form() {
        let text = "// mine\n{\n  agents: {list: [{id: 'main',}]}, /* two */\n  hooks: {internal: {entries: {}}},\n  n: +.5,\n}\n";
        let (once, enabled) = edited(text, Notify::True).unwrap();
        assert!(enabled, "{once}");
        for kept in ["// mine\n", "agents: {list: [{id: 'main',}]}, /* two */", "n: +.5,"] {
            assert!(once.contains(kept), "{kept} in {once}");
        }
        let value = read(&once).unwrap();
        let entry = &value["hooks"]["internal"]["entries"][HOOK];
        assert_eq!(
            (&entry["enabled"], &entry["env"]["SIGILUM_OWNER_TOKEN"]),
            (&Value::Bool(true), &Value::from("a.b.c"))
        );
        assert_eq!(
            (&value["hooks"]["internal"]["enabled"], &value["agents"]["list"][0]["id"]),
            (&Value::Bool(true), &Value::from("main"))
        );
        assert_eq!(edited(&once, Notify::True).unwrap().0, once, "twice is once");
        let (off, enabled) = edited(&once, Notify::False).unwrap();
        assert!(!enabled && !off.contains("a.b.c") && off.contains("/* two */"), "{off}");
        let odd = "{hooks: {internal: 1},}";
        assert_eq!(edited(odd, Notify::True), Err(Wrong::NoObject("hooks.internal".to_owned())));
        assert_eq!(edited("[1,]", Notify::True), Err(Wrong::NoObject("the file".to_owned())));
    }

    proptest::proptest! {
        #[test]
        fn whatever_stands_there_is_read_or_refused(text in "[{}\\[\\]:,'\"/*\\\\ \n+.0-9a-zA-Zä]{0,64}") {
            if let Ok((edited, _)) = edited(&text, Notify::True) {
                proptest::prop_assert!(read(&edited).is_ok(), "{}", edited);
            }
        }
    }

    #[test]
    fn what_cannot_be_kept_is_not_touched() {
        for (broken, line) in [("{\n // mine\n", 1), ("{a: 1\n b: 2}", 1), ("{\n\"a\": }", 2)] {
            let wrong = edited(broken, Notify::True).unwrap_err();
            assert!(matches!(wrong, Wrong::Syntax { line: found, .. } if found == line), "{broken}: {wrong:?}");
            assert!(read(broken).is_err(), "{broken}");
        }
        assert_eq!(edited("[]", Notify::True), Err(Wrong::NoObject("the file".to_owned())));
        let odd = r#"{"hooks":{"internal":[]}}"#;
        assert_eq!(edited(odd, Notify::True), Err(Wrong::NoObject("hooks.internal".to_owned())));
    }
}

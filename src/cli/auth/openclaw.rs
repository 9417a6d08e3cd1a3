//! OpenClaw's configuration with our notifier in it. Pure: text in, text out; what is not ours stays, in its order.

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
pub(super) enum Wrong {
    /// Comments, a comma at an end, half a file.
    #[error("it is no plain JSON (line {line}, column {column})")]
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

/// The new text, indented by two blanks, and whether the notifier runs.
pub(super) fn apply(text: &str, edit: &Edit<'_>) -> Result<(Zeroizing<String>, bool), Wrong> {
    let mut root: Value = serde_json::from_str(text)
        .map_err(|error| Wrong::Syntax { line: error.line().max(1), column: error.column().max(1) })?;
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
    fn what_cannot_be_kept_is_not_touched() {
        assert_eq!(edited("{\n // mine\n}", Notify::True), Err(Wrong::Syntax { line: 2, column: 2 }));
        assert_eq!(edited("[]", Notify::True), Err(Wrong::NoObject("the file".to_owned())));
        let odd = r#"{"hooks":{"internal":[]}}"#;
        assert_eq!(edited(odd, Notify::True), Err(Wrong::NoObject("hooks.internal".to_owned())));
    }
}

//! The fields of a connection a person may give: one table for the options of `add`, for those of `set` and for
//! `FIELD=VALUE`. Pure.

use clap::Arg;
use clap::ArgAction;
use clap::ArgMatches;
use clap::Command;
use clap::error::ErrorKind;
use serde_json::Map;
use serde_json::Value;

use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A text.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`; an option alone means `true`.
    Switch,
    /// Texts with commas between them, or given several times, or a JSON array.
    List,
    /// `Name: value`, several times, or a JSON object of texts.
    Headers,
    /// A JSON object.
    Json,
}

/// How the admin API is told to bring a field back to its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clear {
    /// By `null`.
    Null,
    /// By 0, `[]` or `{}`: `null` leaves it as it is.
    Nothing,
    /// By a number below 0, which is none; 0 and `null` leave it as it is.
    Negative,
    /// By the root.
    Root,
    /// Not at all: it has no default, or one that depends on the rest. What to write instead.
    Never(&'static str),
    /// Not at all: it is fixed once the connection is there.
    Fixed,
}

/// One field.
#[derive(Debug)]
struct Field {
    name: &'static str,
    kind: Kind,
    clear: Clear,
    value: &'static str,
    help: &'static str,
}

const fn field(name: &'static str, kind: Kind, clear: Clear, value: &'static str, help: &'static str) -> Field {
    Field { name, kind, clear, value, help }
}

/// Every field but the id and the secrets.
const FIELDS: &[Field] = &[
    field(
        "name",
        Kind::Text,
        Clear::Never("give it a name, such as its id"),
        "NAME",
        "Name for people [default: the id]",
    ),
    field("protocol", Kind::Text, Clear::Fixed, "PROTOCOL", "http or mcp [default: http]"),
    field(
        "base_url",
        Kind::Text,
        Clear::Never("give it another address"),
        "URL",
        "Where the provider is, e.g. https://api.example.com",
    ),
    field("path_prefix", Kind::Text, Clear::Root, "PATH", "What stands before every path at the provider"),
    field(
        "auth_mode",
        Kind::Text,
        Clear::Never("name the mode, such as bearer"),
        "MODE",
        "bearer, header_key, query_param or basic [default: bearer]",
    ),
    field(
        "auth_header_name",
        Kind::Text,
        Clear::Never("name the header or parameter, such as Authorization"),
        "NAME",
        "Header or query parameter of the secret",
    ),
    field(
        "auth_prefix",
        Kind::Text,
        Clear::Never("write the text; a mode brings its own where another one is set (auth_mode)"),
        "TEXT",
        "What stands before the secret, e.g. 'Bot '",
    ),
    field(
        "auth_secret_key",
        Kind::Text,
        Clear::Never("name another of its secrets"),
        "NAME",
        "Which of the named secrets is injected",
    ),
    field("rotation_interval_days", Kind::Number, Clear::Negative, "DAYS", "Days a secret is meant to live"),
    field(
        "status",
        Kind::Text,
        Clear::Never("write active or disabled"),
        "STATUS",
        "active or disabled [default: active]",
    ),
    field("allow_private", Kind::Switch, Clear::Null, "BOOL", "Let it reach private addresses"),
    field("allowed_methods", Kind::List, Clear::Null, "METHODS", "What agents may do, e.g. GET,POST; none: everything"),
    field("allowed_paths", Kind::List, Clear::Null, "PATHS", "Below which paths, e.g. /v1/models; none: everywhere"),
    field("upgrades", Kind::List, Clear::Null, "PROTOCOLS", "websocket, where upgrades are wanted"),
    field("response_timeout_ms", Kind::Number, Clear::Null, "MS", "Milliseconds until the response headers"),
    field("max_stream_seconds", Kind::Number, Clear::Null, "SECONDS", "Seconds a whole stream may last"),
    field("extra_headers", Kind::Headers, Clear::Null, "'NAME: VALUE'", "A header that is added upstream"),
    field("allow_set_cookie", Kind::Switch, Clear::Null, "BOOL", "Let set-cookie back to agents"),
    field("forward_trace", Kind::Switch, Clear::Null, "BOOL", "Let traceparent out"),
    field("mcp_transport", Kind::Text, Clear::Never("streamable_http is the only one"), "TRANSPORT", "streamable_http"),
    field("mcp_endpoint", Kind::Text, Clear::Root, "PATH|URL", "Where the MCP server listens [default: /]"),
    field("mcp_tool_allowlist", Kind::List, Clear::Nothing, "TOOLS", "The tools that are shown; none: all"),
    field("mcp_tool_denylist", Kind::List, Clear::Nothing, "TOOLS", "Tools that are not"),
    field("mcp_max_tools_exposed", Kind::Number, Clear::Nothing, "N", "Most tools that are shown; 0: all"),
    field("mcp_subject_tool_policies", Kind::Json, Clear::Nothing, "JSON", "Policies of single subjects"),
];

impl Field {
    fn option(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The member of a body; `null` where the texts ask for the default.
    fn read(&self, texts: &[&str]) -> Result<Value, String> {
        if let [text] = texts
            && matches!(text.trim(), "" | "null")
        {
            return Ok(Value::Null);
        }
        match (self.kind, texts) {
            (Kind::List, _) => texts
                .iter()
                .try_fold(Vec::new(), |mut all, text| {
                    all.extend(list(text)?);
                    Ok(all)
                })
                .map(Value::from),
            (Kind::Headers, _) => texts
                .iter()
                .try_fold(Map::new(), |mut all, text| {
                    all.extend(headers(text)?);
                    Ok(all)
                })
                .map(Value::Object),
            (_, [text]) => self.read_one(text),
            (_, _) => Err("is given several times".to_owned()),
        }
    }

    fn read_one(&self, text: &str) -> Result<Value, String> {
        match self.kind {
            Kind::Text | Kind::List | Kind::Headers => Ok(Value::from(text)),
            Kind::Number => match text.trim().parse::<i64>() {
                Ok(number) => Ok(Value::from(number)),
                Err(_) => Err("must be a whole number".to_owned()),
            },
            Kind::Switch => match text.trim() {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => Err("must be true or false".to_owned()),
            },
            Kind::Json => match serde_json::from_str::<Value>(text) {
                Ok(object @ Value::Object(_)) => Ok(object),
                Ok(_) | Err(_) => Err("must be a JSON object".to_owned()),
            },
        }
    }

    /// The member of a patch that brings the field back to its default.
    fn default_again(&self) -> Value {
        match (self.clear, self.kind) {
            (Clear::Null | Clear::Never(_) | Clear::Fixed, _) => Value::Null,
            (Clear::Negative, _) => Value::from(-1),
            (Clear::Root, _) => Value::from("/"),
            (Clear::Nothing, Kind::List) => Value::Array(Vec::new()),
            (Clear::Nothing, Kind::Number) => Value::from(0),
            (Clear::Nothing, Kind::Text | Kind::Switch | Kind::Headers | Kind::Json) => Value::Object(Map::new()),
        }
    }
}

fn list(text: &str) -> Result<Vec<Value>, String> {
    if text.trim_start().starts_with('[') {
        let entries: Vec<String> =
            serde_json::from_str(text).map_err(|_| "must be texts with commas, or a JSON array of them".to_owned())?;
        return Ok(entries.into_iter().map(Value::from).collect());
    }
    Ok(text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(Value::from).collect())
}

fn headers(text: &str) -> Result<Map<String, Value>, String> {
    if text.trim_start().starts_with('{') {
        return match serde_json::from_str(text) {
            Ok(Value::Object(all)) if all.values().all(Value::is_string) => Ok(all),
            Ok(_) | Err(_) => Err("must be a JSON object of texts".to_owned()),
        };
    }
    let (name, value) = text.split_once(':').ok_or_else(|| "must be 'Name: value'".to_owned())?;
    Ok(Map::from_iter([(name.trim().to_owned(), Value::from(value.trim()))]))
}

/// The options of the table. `NEW`: those of a connection that is not there yet.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct FieldOptions<const NEW: bool>(Map<String, Value>);

impl<const NEW: bool> FieldOptions<NEW> {
    /// What was given, by the names of the admin API; `null`: back to the default.
    pub(super) const fn given(&self) -> &Map<String, Value> {
        &self.0
    }

    fn fields() -> impl Iterator<Item = &'static Field> {
        FIELDS.iter().filter(|field| NEW || field.clear != Clear::Fixed)
    }
}

impl<const NEW: bool> clap::FromArgMatches for FieldOptions<NEW> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Map::new();
        for field in Self::fields() {
            let Some(texts) = matches.get_many::<String>(field.name) else { continue };
            let texts: Vec<_> = texts.map(String::as_str).collect();
            let value = field.read(&texts).map_err(|wrong| {
                clap::Error::raw(ErrorKind::ValueValidation, format!("--{} {wrong}\n", field.option()))
            })?;
            given.insert(field.name.to_owned(), value);
        }
        Ok(Self(given))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.extend(Self::from_arg_matches(matches)?.0);
        Ok(())
    }
}

impl<const NEW: bool> clap::Args for FieldOptions<NEW> {
    fn augment_args(command: Command) -> Command {
        Self::fields().fold(command, |command, field| {
            let option = Arg::new(field.name)
                .long(field.option())
                .value_name(field.value)
                .help(field.help)
                .help_heading("Fields")
                .allow_hyphen_values(true);
            command.arg(match field.kind {
                Kind::List | Kind::Headers => option.action(ArgAction::Append),
                Kind::Switch => option.num_args(0..=1).default_missing_value("true").require_equals(true),
                Kind::Text | Kind::Number | Kind::Json => option,
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The patch that `FIELD=VALUE` and the options ask for together. The texts of a mistake never repeat a value: it may
/// have been a secret.
pub(super) fn patch(pairs: &[String], options: &FieldOptions<false>) -> Result<Map<String, Value>, CliError> {
    let usage = |message: String| CliError::new(Outcome::Usage, message);
    let mut texts: Vec<(&Field, Vec<&str>)> = Vec::new();
    for (place, pair) in pairs.iter().enumerate() {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(usage(format!("change {} is not FIELD=VALUE", place.saturating_add(1))).hint(hint()));
        };
        let name = name.trim().replace('-', "_");
        if name.to_lowercase().contains("secret") && name != "auth_secret_key" {
            return Err(usage("secrets are not changed here".to_owned())
                .hint("sigilum connection rotate ID takes them from a variable, a file or standard input"));
        }
        if name == "id" {
            return Err(usage("the id of a connection is fixed: approvals and paths name it".to_owned()));
        }
        let Some(field) = FIELDS.iter().find(|field| field.name == name) else {
            return Err(
                usage(format!("change {} names no field of a connection", place.saturating_add(1))).hint(hint())
            );
        };
        if field.clear == Clear::Fixed {
            return Err(usage(format!("{name} is fixed once the connection is there; remove it and add it again")));
        }
        match texts.iter_mut().find(|(known, _)| known.name == name) {
            Some((_, values)) => values.push(value),
            None => texts.push((field, vec![value])),
        }
    }
    let mut patch = Map::new();
    for (field, values) in texts {
        let value = field.read(&values).map_err(|wrong| usage(format!("{} {wrong}", field.name)))?;
        patch.insert(field.name.to_owned(), value);
    }
    for (name, value) in options.given() {
        if patch.insert(name.clone(), value.clone()).is_some() {
            return Err(usage(format!("{name} is given as an option and as FIELD=VALUE")));
        }
    }
    for field in FIELDS {
        let Some(value) = patch.get_mut(field.name) else { continue };
        if let (Clear::Never(instead), true) = (field.clear, value.is_null()) {
            return Err(usage(format!("{} has no default to go back to", field.name)).hint(instead));
        }
        if value.is_null() || field.clear == Clear::Negative && *value == 0 {
            *value = field.default_again();
        }
    }
    Ok(patch)
}

fn hint() -> String {
    let names: Vec<_> = FIELDS.iter().filter(|field| field.clear != Clear::Fixed).map(|field| field.name).collect();
    format!("fields: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use clap::Args as _;
    use clap::FromArgMatches as _;
    use serde_json::json;

    use super::*;

    fn changed(pairs: &[&str]) -> Value {
        let pairs: Vec<_> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        Value::Object(patch(&pairs, &FieldOptions::default()).unwrap())
    }

    #[test]
    fn fields_are_read_by_their_kind() {
        let patch = changed(&[
            "name=a=b",
            "response-timeout-ms=250",
            "allow_private=true",
            "allowed_methods=GET, POST",
            "allowed_methods=[\"PUT\"]",
            "extra_headers=X-One: 1:2",
            "extra_headers={\"X-Two\":\"2\"}",
            "mcp_subject_tool_policies={\"alice\":{\"denylist\":[\"rm\"]}}",
        ]);
        let expected = json!({
            "name": "a=b", "response_timeout_ms": 250, "allow_private": true,
            "allowed_methods": ["GET", "POST", "PUT"], "extra_headers": {"X-One": "1:2", "X-Two": "2"},
            "mcp_subject_tool_policies": {"alice": {"denylist": ["rm"]}},
        });
        assert_eq!(patch, expected);
    }

    #[test]
    fn nothing_and_null_bring_the_default_back() {
        let patch = changed(&[
            "path_prefix=",
            "rotation_interval_days=0",
            "allowed_methods=null",
            "mcp_tool_denylist=",
            "mcp_max_tools_exposed=null",
            "mcp_subject_tool_policies=null",
        ]);
        let expected = json!({
            "path_prefix": "/", "rotation_interval_days": -1, "allowed_methods": null,
            "mcp_tool_denylist": [], "mcp_max_tools_exposed": 0, "mcp_subject_tool_policies": {},
        });
        assert_eq!(patch, expected);
    }

    #[test]
    fn a_mistake_is_named_without_what_was_typed() {
        for (pair, said) in [
            ("canary", "is not FIELD=VALUE"),
            ("canary=x", "names no field"),
            ("api_secret=canary", "secrets are not changed here"),
            ("secrets.api_key=canary", "secrets are not changed here"),
            ("id=canary", "is fixed"),
            ("protocol=mcp", "is fixed"),
            ("base_url=null", "has no default"),
            ("auth_secret_key=", "has no default"),
            ("name=null", "has no default"),
            ("auth_prefix=", "has no default"),
            ("auth_mode=null", "has no default"),
            ("status=", "has no default"),
            ("rotation_interval_days=canary", "whole number"),
            ("allow_private=canary", "true or false"),
            ("extra_headers=canary", "Name: value"),
            ("extra_headers={\"a\":1}", "JSON object of texts"),
            ("allowed_paths=[1]", "JSON array"),
            ("mcp_subject_tool_policies=[]", "JSON object"),
        ] {
            let error = patch(&[pair.to_owned()], &FieldOptions::default()).unwrap_err();
            assert_eq!(error.outcome, Outcome::Usage, "{pair}");
            assert!(error.message.contains(said) && !error.message.contains("canary"), "{pair}: {error}");
        }
        let twice = ["name=a".to_owned(), "name=b".to_owned()];
        assert!(patch(&twice, &FieldOptions::default()).unwrap_err().message.contains("several times"));
    }

    #[test]
    fn options_and_pairs_are_one_table() {
        let command = FieldOptions::<true>::augment_args(Command::new("add"));
        let argv = ["add", "--base-url", "https://h", "--allow-private", "--allowed-methods", "GET,PUT", "--name", ""];
        let matches = command.clone().try_get_matches_from(argv).unwrap();
        let given = FieldOptions::<true>::from_arg_matches(&matches).unwrap();
        let expected =
            json!({"name": null, "base_url": "https://h", "allow_private": true, "allowed_methods": ["GET", "PUT"]});
        assert_eq!(&Value::Object(given.given().clone()), &expected);
        let off = command.clone().try_get_matches_from(["add", "--allow-private=false"]).unwrap();
        let off = FieldOptions::<true>::from_arg_matches(&off).unwrap();
        assert_eq!(off.given().get("allow_private"), Some(&Value::Bool(false)));
        let wrong = command.try_get_matches_from(["add", "--max-stream-seconds", "soon"]).unwrap();
        assert!(FieldOptions::<true>::from_arg_matches(&wrong).is_err());
        let other = FieldOptions::<false>::augment_args(Command::new("set"));
        assert!(other.try_get_matches_from(["set", "--protocol", "mcp"]).is_err());
        let both = FieldOptions::<false>(Map::from_iter([("name".to_owned(), Value::from("x"))]));
        assert!(patch(&["name=y".to_owned()], &both).is_err());
    }
}

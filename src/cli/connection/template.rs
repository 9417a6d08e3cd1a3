//! A connection made from a template of the service catalog. Pure: templates in, bodies out.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::cli::shell;
use crate::domain::draft::MCP_MEMBERS;
use crate::domain::environment;

/// Members of a template that a connection has by the same name.
const SHARED: &[&str] =
    &["protocol", "base_url", "path_prefix", "auth_mode", "auth_header_name", "auth_prefix", "auth_secret_key"];

/// A credential a template asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CredentialField {
    /// The secret's name in the connection.
    pub(super) key: String,
    /// For people.
    pub(super) label: String,
    /// The variable that usually holds it; empty: none. Never one of the gateway's own.
    pub(super) env_var: String,
    /// Whether the connection does not work without it.
    pub(super) required: bool,
    /// Where to get it; may be empty.
    pub(super) help: String,
}

/// A text member; empty where there is none.
fn text<'a>(template: &'a Value, member: &str) -> &'a str {
    template.get(member).and_then(Value::as_str).unwrap_or_default().trim()
}

/// The template of this key.
pub(super) fn find<'a>(catalog: &'a [Value], key: &str) -> Option<&'a Value> {
    catalog.iter().find(|template| text(template, "key") == key)
}

/// The keys, in the catalog's order.
pub(super) fn keys(catalog: &[Value]) -> Vec<&str> {
    catalog.iter().map(|template| text(template, "key")).filter(|key| !key.is_empty()).collect()
}

/// The body that makes its connection, without secrets.
pub(super) fn body(template: &Value) -> Map<String, Value> {
    let mut body = Map::from_iter([
        ("id".to_owned(), json!(text(template, "connection_id"))),
        (
            "name".to_owned(),
            json!(match text(template, "label") {
                "" => text(template, "key"),
                label => label,
            }),
        ),
    ]);
    let is_mcp = text(template, "protocol").eq_ignore_ascii_case("mcp");
    // Others hold these as hints.
    let members = SHARED.iter().chain(if is_mcp { &MCP_MEMBERS[..] } else { &[] });
    for name in members {
        let value = template.get(*name).filter(|value| **value != json!(""));
        if let Some(value) = value {
            body.insert((*name).to_owned(), value.clone());
        }
    }
    if is_mcp && !text(template, "mcp_base_url").is_empty() {
        body.insert("base_url".to_owned(), json!(text(template, "mcp_base_url")));
    }
    body
}

/// The credentials it asks for, in its order; one without a key is none. A variable of the gateway's own is left out: who
/// writes a template would have the master key or a token sent to a provider.
pub(super) fn credentials(template: &Value) -> Vec<CredentialField> {
    let fields = template.get("credential_fields").and_then(Value::as_array).into_iter().flatten();
    let owned = |field: &Value, member| text(field, member).to_owned();
    let all = fields.map(|field| CredentialField {
        key: owned(field, "key"),
        label: match text(field, "label") {
            "" => owned(field, "key"),
            label => label.to_owned(),
        },
        env_var: match text(field, "env_var") {
            name if environment::is_name(name) && !environment::is_own(name) => name.to_owned(),
            _ => String::new(),
        },
        required: field.get("required").and_then(Value::as_bool).unwrap_or_default(),
        help: owned(field, "help"),
    });
    all.filter(|field| !field.key.is_empty()).collect()
}

/// How to test it: method and path, where the template says so. A shell takes it as it stands.
pub(super) fn test_command(template: &Value, id: &str) -> String {
    let mut command = format!("sigilum connection test {}", shell::word(id));
    if !matches!(text(template, "default_test_method"), "" | "GET") {
        command.push_str(&format!(" --method {}", shell::word(text(template, "default_test_method"))));
    }
    if !matches!(text(template, "default_test_path"), "" | "/") {
        command.push_str(&format!(" --path {}", shell::quoted(text(template, "default_test_path"))));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_http_template_keeps_its_mcp_hints_to_itself() {
        let template = json!({
            "key": "linear", "label": "Linear", "connection_id": "sigilum-secure-linear", "protocol": "http",
            "base_url": "https://api.linear.app", "mcp_base_url": "https://mcp.linear.app", "mcp_endpoint": "/mcp",
            "auth_mode": "header_key", "auth_header_name": "Authorization", "auth_prefix": "",
            "auth_secret_key": "api_key", "default_test_method": "POST", "default_test_path": "/graphql",
            "credential_fields": [
                {"key": "api_key", "label": "API key", "env_var": "LINEAR_API_KEY", "secret": true, "required": true},
                {"label": "nothing"},
            ],
        });
        let expected = json!({
            "id": "sigilum-secure-linear", "name": "Linear", "protocol": "http", "base_url": "https://api.linear.app",
            "auth_mode": "header_key", "auth_header_name": "Authorization", "auth_secret_key": "api_key",
        });
        assert_eq!(Value::Object(body(&template)), expected);
        let credentials = credentials(&template);
        assert!(matches!(credentials.as_slice(), [one] if one.key == "api_key" && one.required), "{credentials:?}");
        assert_eq!(test_command(&template, "x-y"), "sigilum connection test x-y --method POST --path '/graphql'");
        assert_eq!(keys(&[template]), ["linear"]);
    }

    #[test]
    fn what_a_template_says_stays_one_word_of_the_command() {
        let template = json!({"default_test_method": "GET;id", "default_test_path": "/a'$(id)"});
        let expected = r"sigilum connection test x-y --method 'GET;id' --path '/a'\''$(id)'";
        assert_eq!(test_command(&template, "x-y"), expected);
    }

    #[test]
    fn a_template_names_none_of_the_gateways_own_variables() {
        for (named, expected) in
            [("OPENAI_API_KEY", "OPENAI_API_KEY"), ("GATEWAY_MASTER_KEY", ""), (" SIGILUM_PAIR_CODE", ""), ("A;id", "")]
        {
            let fields = credentials(&json!({"credential_fields": [{"key": "token", "env_var": named}]}));
            assert!(matches!(fields.as_slice(), [one] if one.env_var == expected), "{named}: {fields:?}");
        }
    }

    #[test]
    fn an_mcp_template_is_reached_at_its_own_address() {
        let template = json!({
            "key": "t", "connection_id": "t-mcp", "protocol": "mcp", "base_url": "https://api.h",
            "mcp_base_url": "https://mcp.h", "mcp_endpoint": "/mcp", "mcp_tool_denylist": ["rm"],
        });
        let expected = json!({
            "id": "t-mcp", "name": "t", "protocol": "mcp", "base_url": "https://mcp.h", "mcp_endpoint": "/mcp",
            "mcp_tool_denylist": ["rm"],
        });
        assert_eq!(Value::Object(body(&template)), expected);
    }
}

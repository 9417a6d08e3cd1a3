//! The description of the admin API: a valid document, equal to the routes, true of what is answered.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

async fn described(gateway: &Gateway) -> Value {
    let answer = gateway.send("GET", "/openapi.json", &[], "").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    answer.json()
}

/// Method, path and description of every operation.
fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| {
            let of_path = item.as_object().unwrap().iter();
            of_path.map(|(method, operation)| (method.to_uppercase(), path.clone(), operation)).collect::<Vec<_>>()
        })
        .collect()
}

/// Every object and every value with the pointer it stands at.
fn walk<'a>(value: &'a Value, at: &str, found: &mut Vec<(String, &'a Value)>) {
    found.push((at.to_owned(), value));
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                walk(member, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(entries) => {
            for (index, entry) in entries.iter().enumerate() {
                walk(entry, &format!("{at}/{index}"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether `value` is what `schema` says, as far as types, members, entries and alternatives go.
fn check(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.strip_prefix('#').unwrap()).unwrap();
        return check(document, target, value, at);
    }
    if let Some(choices) = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array()) {
        let fits = choices.iter().any(|choice| check(document, choice, value, at).is_ok());
        return if fits { Ok(()) } else { Err(format!("{at}: none of the alternatives")) };
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let allowed: Vec<_> = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => vec![],
    };
    if !allowed.is_empty() && !allowed.contains(&kind) {
        return Err(format!("{at}: {kind} and not {allowed:?}"));
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        if value.get(required.as_str().unwrap()).is_none() {
            return Err(format!("{at}: {required} is missing"));
        }
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        let of_member = match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Null) if schema["properties"].is_object() => {
                return Err(format!("{at}: {name} is not described"));
            }
            (Value::Null, Value::Null) => continue,
            (Value::Null, additional) => additional,
            (property, _) => property,
        };
        check(document, of_member, member, &format!("{at}/{name}"))?;
    }
    for entry in value.as_array().into_iter().flatten() {
        check(document, &schema["items"], entry, &format!("{at}/[]"))?;
    }
    Ok(())
}

/// Fails where an answer is not described, or is not as described.
fn judge(document: &Value, method: &str, path: &str, answer: &Answer) {
    let operation = &document["paths"][path][method.to_lowercase()];
    let response = &operation["responses"][answer.status.to_string()];
    assert!(response.is_object(), "{method} {path} does not describe {}: {}", answer.status, answer.body);
    let schema = &response["content"]["application/json"]["schema"];
    if schema.is_null() {
        let kinds = ["text/plain", "application/vnd.sqlite3"];
        let plain = answer.status == 204 || kinds.iter().any(|kind| response["content"][kind].is_object());
        assert!(plain, "{method} {path} describes no body of {}", answer.status);
        return;
    }
    if let Err(why) = check(document, schema, &answer.json(), path) {
        panic!("{method} {path} {}: {why}\n{}", answer.status, answer.body);
    }
}

#[tokio::test]
async fn the_description_is_a_valid_openapi_document() {
    let gateway = Gateway::start().await;
    let document = described(&gateway).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    assert!(["title", "version"].iter().all(|name| document["info"][name].is_string()));
    let schemes: BTreeSet<_> = document["components"]["securitySchemes"].as_object().unwrap().keys().collect();
    let secured = |requirements: &Value| {
        let all = requirements.as_array().unwrap().iter().flat_map(|one| one.as_object().unwrap().keys());
        all.for_each(|name| assert!(schemes.contains(name), "no security scheme {name}"));
    };
    secured(&document["security"]);
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        assert!(path.starts_with('/'), "{path}");
        assert!(item.as_object().unwrap().keys().all(|method| METHODS.contains(&method.as_str())), "{path}");
    }
    for (method, path, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{id} twice");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{id} has no summary");
        if let Some(requirements) = operation.get("security") {
            secured(requirements);
        }
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let in_path: Vec<_> = parameters.iter().filter(|one| one["in"] == "path").collect();
        let wanted: Vec<_> = path.split(['{', '}']).skip(1).step_by(2).collect();
        assert_eq!(in_path.iter().map(|one| one["name"].as_str().unwrap()).collect::<Vec<_>>(), wanted, "{id}");
        assert!(in_path.iter().all(|one| one["required"] == true), "{id}");
        assert!(parameters.iter().all(|one| one["schema"].is_object()), "{id}");
        let responses = operation["responses"].as_object().unwrap();
        let pending = id == "discoverConnection";
        assert!(pending || responses.keys().any(|status| status.starts_with('2')), "{id} never succeeds");
        for (status, response) in responses {
            assert!((200..600).contains(&status.parse::<u16>().unwrap()), "{id}: {status}");
            assert!(response["description"].is_string(), "{id}: {status}");
            let failed = status.starts_with(['4', '5']);
            let schema = &response["content"]["application/json"]["schema"]["$ref"];
            let own = schema.as_str().is_some_and(|name| name != "#/components/schemas/Error");
            // A failed test answers 502 with its result, and who is not ready says why.
            assert!(
                !failed || schema == "#/components/schemas/Error" || (["502", "503"].contains(&status.as_str()) && own),
                "{id}: {status}"
            );
        }
        // Whatever changes a connection cannot change one of the file.
        if ["createConnection", "updateConnection", "deleteConnection", "rotateConnection", "importLegacyKeys"]
            .contains(&id)
        {
            let refused = responses["409"]["description"].as_str().unwrap();
            assert!(refused.contains("`CONNECTION_DECLARED`"), "{id}: {refused}");
        }
        let body = &operation["requestBody"];
        let described = body["content"]["application/json"]["schema"].is_object();
        assert_eq!(
            ["POST", "PUT", "PATCH"].contains(&method.as_str())
                && !id.starts_with("discover")
                && !id.ends_with("Store")
                && !id.starts_with("reload")
                && id != "rotateSealingKey",
            described,
            "{id}"
        );
    }
    let mut all = Vec::new();
    walk(&document, "", &mut all);
    for (at, value) in &all {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{at}: {reference}");
        }
        if let Some(kind) = value.get("type").filter(|_| at.contains("/schema") && !at.ends_with("/properties")) {
            let known = ["null", "boolean", "integer", "number", "string", "array", "object"];
            let kinds: Vec<_> = kind.as_array().map_or_else(|| vec![kind], |several| several.iter().collect());
            assert!(kinds.iter().all(|kind| known.contains(&kind.as_str().unwrap())), "{at}: {kind}");
        }
    }
    // Secrets go in and never come out, and no example holds one.
    for (at, value) in &all {
        let name = at.rsplit('/').next().unwrap();
        // How many there are is no secret.
        let counted = at.ends_with("/schemas/StatusMembers/properties/secrets");
        let secret = !counted && ["secrets", "value"].contains(&name) || at.ends_with("/ServiceKeySet/properties/key");
        if at.contains("/schemas/") && secret && value.is_object() {
            assert_eq!(value["writeOnly"], true, "{at}");
            assert!(value["example"].is_null() && value["default"].is_null(), "{at}");
        }
    }
}

#[tokio::test]
async fn the_description_has_every_route_and_nothing_else() {
    let gateway = Gateway::start().await;
    let document = described(&gateway).await;
    let operations = operations(&document);
    for (method, path, _) in &operations {
        // The body is no JSON: nobody gets as far as looking for what a path names, so 404 means no route.
        let filled = path.replace("{id}", "no-such-thing").replace("{key}", "NO_SUCH_THING");
        let answer = gateway.ask(method, &filled, "").await;
        assert_ne!(answer.status, 405, "{method} {path}");
        assert!(answer.status != 404 || answer.code() != "NOT_FOUND" || path.contains('{'), "{method} {path}");
        judge(&document, method, path, &answer);
    }
    for (method, path) in [
        ("GET", "/health"),
        ("GET", "/health/live"),
        ("GET", "/health/ready"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/api/admin/connections"),
        ("POST", "/api/admin/connections"),
        ("GET", "/api/admin/connections/{id}"),
        ("PATCH", "/api/admin/connections/{id}"),
        ("DELETE", "/api/admin/connections/{id}"),
        ("POST", "/api/admin/connections/{id}/rotate"),
        ("POST", "/api/admin/connections/{id}/test"),
        ("POST", "/api/admin/connections/{id}/discover"),
        ("GET", "/api/admin/service-catalog"),
        ("PUT", "/api/admin/service-catalog"),
        ("GET", "/api/admin/service-api-keys/{id}"),
        ("PUT", "/api/admin/service-api-keys/{id}"),
        ("GET", "/api/admin/openclaw/legacy-keys"),
        ("POST", "/api/admin/openclaw/legacy-keys/import"),
        ("POST", "/api/admin/openclaw/legacy-keys/purge"),
    ] {
        assert!(operations.iter().any(|one| (one.0.as_str(), one.1.as_str()) == (method, path)), "{method} {path}");
    }
    // A method that is not described is not answered.
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS.iter().filter(|method| item.get(**method).is_none()) {
            let answer = gateway.ask(&method.to_uppercase(), &path.replace("{id}", "linear"), "").await;
            assert_eq!((answer.status, answer.code().as_str()), (405, "METHOD_NOT_ALLOWED"), "{method} {path}");
            let allowed = answer.header("allow").unwrap().to_owned();
            for (other, _) in item.as_object().unwrap() {
                assert!(allowed.split(',').any(|one| one == other.to_uppercase()), "{path}: {allowed}");
            }
        }
    }
    // No file of the admin API adds a route beside the description; the router itself has those that refuse.
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin");
    for file in std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
        let text = std::fs::read_to_string(&file).unwrap();
        for line in text
            .lines()
            .filter(|line| !file.ends_with("router.rs") || !(line.contains("any(") || line.contains("{*rest}")))
        {
            for word in [".route(", ".route_service(", ".nest_service(", ".fallback_service("] {
                assert!(!line.contains(word), "{}: {line}", file.display());
            }
        }
    }
}

#[tokio::test]
async fn answers_are_as_described() {
    let gateway = Gateway::start().await;
    let document = described(&gateway).await;
    let one = "/api/admin/connections/{id}";
    let mcp = r#"{"id":"tools","protocol":"mcp","base_url":"https://mcp.example.com","mcp_endpoint":"/mcp",
        "mcp_tool_allowlist":["b","a"],"mcp_max_tools_exposed":3,"mcp_subject_tool_policies":{"bob":{"denylist":["x"]}}}"#;
    let full = r#"{"id":"full","base_url":"https://api.example.com/v1","path_prefix":"/p","auth_secret_key":"key",
        "secrets":{"key":"v"},"rotation_interval_days":3,"allow_private":true,"allowed_methods":["get"],
        "allowed_paths":["/a"],"upgrades":["websocket"],"response_timeout_ms":5,"max_stream_seconds":7,
        "extra_headers":{"X-A":"b"},"allow_set_cookie":true,"forward_trace":true}"#;
    // Nobody listens on the discard port of this machine, and binding one to find out would only pass it on.
    let nowhere = connection("nowhere").replace("https://api.example.com/v1", "http://127.0.0.1:9");
    for (method, path, id, body, status) in [
        ("POST", CONNECTIONS, "", connection("linear").as_str(), 201),
        ("POST", CONNECTIONS, "", full, 201),
        ("POST", CONNECTIONS, "", mcp, 201),
        ("POST", CONNECTIONS, "", &nowhere, 201),
        ("POST", CONNECTIONS, "", full, 409),
        ("POST", CONNECTIONS, "", "", 400),
        ("POST", CONNECTIONS, "", "[]", 400),
        ("GET", CONNECTIONS, "", "", 200),
        ("GET", one, "full", "", 200),
        ("GET", one, "none", "", 404),
        ("PATCH", one, "full", r#"{"extra_headers":null}"#, 200),
        ("PATCH", one, "full", r#"{"base_url":"ftp://x"}"#, 400),
        ("PATCH", one, "none", "{}", 404),
        ("POST", "/api/admin/connections/{id}/rotate", "full", r#"{"secrets":{"key":"w"}}"#, 200),
        ("POST", "/api/admin/connections/{id}/rotate", "full", r#"{"secrets":{"key":"w"}}"#, 400),
        ("POST", "/api/admin/connections/{id}/rotate", "none", r#"{"secrets":{"key":"w"}}"#, 404),
        ("POST", "/api/admin/connections/{id}/test", "none", "", 404),
        ("POST", "/api/admin/connections/{id}/test", "full", r#"{"method":"CONNECT"}"#, 400),
        ("POST", "/api/admin/connections/{id}/test", "tools", "", 501),
        ("POST", "/api/admin/connections/{id}/test", "nowhere", "", 502),
        ("GET", one, "nowhere", "", 200),
        ("POST", "/api/admin/connections/{id}/discover", "none", "", 404),
        ("POST", "/api/admin/connections/{id}/discover", "full", "", 400),
        ("POST", "/api/admin/connections/{id}/discover", "tools", "", 501),
        ("GET", "/api/admin/service-catalog", "", "", 200),
        ("PUT", "/api/admin/service-catalog", "", r#"{"services":[]}"#, 200),
        ("PUT", "/api/admin/service-catalog", "", r#"{"services":[{}]}"#, 400),
        ("GET", "/api/admin/service-api-keys/{id}", "full", "", 200),
        ("GET", "/api/admin/service-api-keys/{id}", "No", "", 400),
        ("PUT", "/api/admin/service-api-keys/{id}", "full", r#"{"key":"sk_live_x"}"#, 200),
        ("PUT", "/api/admin/service-api-keys/{id}", "full", r#"{"key":""}"#, 400),
        ("GET", "/api/admin/openclaw/legacy-keys", "", "", 200),
        ("POST", "/api/admin/openclaw/legacy-keys/import", "", "{}", 200),
        ("POST", "/api/admin/openclaw/legacy-keys/import", "", "", 400),
        ("POST", "/api/admin/openclaw/legacy-keys/import", "", r#"{"connection_id":"full"}"#, 400),
        ("POST", "/api/admin/openclaw/legacy-keys/purge", "", "{}", 400),
        ("GET", "/api/admin/sealing-key", "", "", 200),
        ("POST", "/api/admin/sealing-key/rotate", "", "", 200),
        ("POST", CONNECTIONS, "", &connection("sealed").replace(CANARY, "sealed:v1:x"), 400),
        ("GET", "/api/admin/refusals", "", "", 200),
        ("DELETE", one, "full", "", 204),
        ("DELETE", one, "full", "", 404),
        ("GET", "/health", "", "", 200),
        ("GET", "/health/ready", "", "", 503),
        ("GET", "/health/startup", "", "", 503),
        ("GET", "/api/v1/status", "", "", 200),
        ("GET", "/metrics", "", "", 200),
    ] {
        let answer = gateway.ask(method, &path.replace("{id}", id), body).await;
        assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.body);
        judge(&document, method, path, &answer);
    }
    let stranger = gateway.send("GET", CONNECTIONS, &[], "").await;
    assert_eq!(stranger.status, 403);
    judge(&document, "GET", CONNECTIONS, &stranger);
    // A web form can be sent from any page; no route of a method with a body takes one.
    let form = [("x-sigilum-admin-token", TOKEN), ("content-type", "text/plain")];
    for (method, path, _) in operations(&document).into_iter().filter(|one| one.0 != "GET" && one.0 != "DELETE") {
        let answer = gateway.send(&method, &path.replace("{id}", "full"), &form, "{}").await;
        assert_eq!(answer.status, 415, "{method} {path}: {}", answer.body);
        judge(&document, &method, &path, &answer);
    }
}

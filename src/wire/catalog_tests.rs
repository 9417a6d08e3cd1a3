#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn checked(services: Value) -> Result<Catalog, InvalidCatalog> {
    serde_json::from_value::<Catalog>(json!({ "services": services })).unwrap().check()
}

fn refused(services: Value) -> String {
    checked(services).unwrap_err().to_string()
}

fn http(key: &str) -> Value {
    json!({"key": key, "connection_id": format!("{key}-proxy"), "base_url": "https://x.example",
        "credential_fields": [{"key": "token"}]})
}

fn with(mut template: Value, members: Value) -> Value {
    for (name, value) in members.as_object().unwrap() {
        template[name] = value.clone();
    }
    template
}

#[test]
fn the_defaults_are_those_of_the_table() {
    let catalog = Catalog::defaults();
    assert_eq!(catalog.clone().check().unwrap(), catalog, "they are written as they are answered");
    assert_eq!(catalog.text().as_deref(), Ok(DEFAULTS));
    assert_eq!(catalog.version, "v1");
    let row = |template: &Template| {
        [
            template.key.as_str(),
            &template.connection_id,
            &template.base_url,
            &template.path_prefix,
            &template.auth_mode,
            &template.auth_header_name,
            &template.auth_prefix,
            &template.auth_secret_key,
            &template.default_test_method,
            &template.default_test_path,
        ]
        .map(str::to_owned)
    };
    let rows: Vec<_> = catalog.services.iter().map(row).collect();
    let google = "https://generativelanguage.googleapis.com";
    let brave = "/res/v1/web/search?q=sigilum";
    let wanted = [
        ["slack", "slack-proxy", "https://slack.com/api", "", "bearer", "", "", "bot_token", "GET", "/auth.test"],
        [
            "discord",
            "discord-proxy",
            "https://discord.com/api/v10",
            "",
            "bearer",
            "",
            "Bot ",
            "bot_token",
            "GET",
            "/users/@me",
        ],
        ["whatsapp", "whatsapp-proxy", "https://graph.facebook.com", "", "bearer", "", "", "access_token", "GET", "/"],
        [
            "telegram",
            "telegram-proxy",
            "https://api.telegram.org",
            "",
            "header_key",
            "X-Telegram-Bot-Token",
            "",
            "bot_token",
            "GET",
            "/",
        ],
        ["github", "github-proxy", "https://api.github.com", "", "bearer", "", "", "api_token", "GET", "/user"],
        [
            "linear",
            "sigilum-secure-linear",
            "https://api.linear.app",
            "",
            "header_key",
            "Authorization",
            "",
            "api_key",
            "POST",
            "/graphql",
        ],
        ["notion", "notion-proxy", "https://api.notion.com", "", "bearer", "", "", "api_token", "GET", "/v1/users/me"],
        [
            "brave-search",
            "brave-search-proxy",
            "https://api.search.brave.com",
            "",
            "header_key",
            "X-Subscription-Token",
            "",
            "api_key",
            "GET",
            brave,
        ],
        [
            "claude",
            "claude-proxy",
            "https://api.anthropic.com",
            "",
            "header_key",
            "x-api-key",
            "",
            "api_key",
            "GET",
            "/v1/messages",
        ],
        [
            "openai",
            "sigilum-secure-openai",
            "https://api.openai.com",
            "",
            "bearer",
            "",
            "",
            "api_key",
            "GET",
            "/v1/models",
        ],
        [
            "openai-image-gen",
            "openai-image-proxy",
            "https://api.openai.com",
            "",
            "bearer",
            "",
            "",
            "api_key",
            "GET",
            "/v1/models",
        ],
        [
            "openai-whisper-api",
            "openai-whisper-proxy",
            "https://api.openai.com",
            "",
            "bearer",
            "",
            "",
            "api_key",
            "GET",
            "/v1/models",
        ],
        ["gemini", "gemini-proxy", google, "", "header_key", "x-goog-api-key", "", "api_key", "GET", "/v1beta/models"],
        [
            "canvas",
            "canvas-proxy",
            "https://canvas.instructure.com",
            "/api/v1",
            "bearer",
            "",
            "",
            "api_token",
            "GET",
            "/users/self/profile",
        ],
        [
            "typefully",
            "typefully-proxy",
            "https://api.typefully.com",
            "",
            "bearer",
            "",
            "",
            "bearer_token",
            "GET",
            "/v1",
        ],
        [
            "typefully-mcp",
            "sigilum-secure-typefully",
            "https://mcp.typefully.com",
            "",
            "query_param",
            "TYPEFULLY_API_KEY",
            "",
            "__API_KEY__",
            "POST",
            "/mcp",
        ],
    ];
    assert_eq!(rows, wanted.map(|row| row.map(str::to_owned)));
    let of = |key: &str| catalog.services.iter().find(|template| template.key == key).unwrap();
    let hint = "https://mcp.typefully.com/mcp?TYPEFULLY_API_KEY={{__API_KEY__}}";
    for (key, protocol, base, endpoint) in [
        ("linear", "http", "https://mcp.linear.app", "/mcp"),
        ("typefully", "http", "https://mcp.typefully.com", hint),
        ("typefully-mcp", "mcp", "https://mcp.typefully.com", hint),
    ] {
        let found = of(key);
        assert_eq!((found.protocol.as_str(), found.mcp_base_url.as_str()), (protocol, base), "{key}");
        assert_eq!((found.mcp_transport.as_str(), found.mcp_endpoint.as_str()), ("streamable_http", endpoint), "{key}");
    }
    let fields: Vec<_> = of("slack").credential_fields.iter().map(|field| field.key.as_str()).collect();
    assert_eq!(fields, ["bot_token", "app_token"]);
    assert_eq!(of("linear").default_test_headers["Content-Type"], "application/json");
    let body = of("typefully-mcp").default_test_body.as_ref().unwrap().as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(body).unwrap()["method"], "initialize");
}

#[test]
fn every_default_makes_a_connection() {
    for template in Catalog::defaults().services {
        let secrets: BTreeMap<_, _> = template.credential_fields.iter().map(|field| (&field.key, "value")).collect();
        let mut body = json!({
            "id": template.connection_id, "protocol": template.protocol, "base_url": template.base_url,
            "path_prefix": template.path_prefix, "auth_mode": template.auth_mode,
            "auth_header_name": template.auth_header_name, "auth_prefix": template.auth_prefix,
            "auth_secret_key": template.auth_secret_key, "secrets": secrets,
        });
        if template.protocol == "mcp" {
            body["mcp_endpoint"] = template.mcp_endpoint.clone().into();
            body["mcp_transport"] = template.mcp_transport.clone().into();
        }
        let body = crate::wire::admin::decode::<crate::wire::admin::CreateBody>(body.to_string().as_bytes()).unwrap();
        let checked = body.into_draft().unwrap().0.check(&crate::domain::address::AddressPolicy::default());
        assert!(checked.is_ok(), "{}: {checked:?}", template.key);
    }
}

#[test]
fn what_is_left_out_gets_its_default() {
    let made = checked(json!([http("one")])).unwrap();
    assert_eq!(made.version, "v1");
    let one = &made.services[0];
    assert_eq!((one.label.as_str(), one.protocol.as_str(), one.auth_mode.as_str()), ("one", "http", "bearer"));
    assert_eq!((one.default_test_path.as_str(), one.default_test_method.as_str()), ("/", "GET"));
    assert_eq!((one.auth_secret_key.as_str(), one.credential_fields[0].label.as_str()), ("token", "token"));
    assert_eq!((one.mcp_base_url.as_str(), one.mcp_transport.as_str(), one.mcp_endpoint.as_str()), ("", "", ""));
    let mcp = with(
        http("two"),
        json!({"protocol": " MCP ", "credential_fields": null, "mcp_tool_allowlist": [" b", "a", "b", " "]}),
    );
    let made = checked(json!([mcp])).unwrap();
    let two = &made.services[0];
    assert_eq!((two.protocol.as_str(), two.mcp_base_url.as_str()), ("mcp", "https://x.example"));
    assert_eq!((two.mcp_transport.as_str(), two.mcp_endpoint.as_str()), ("streamable_http", "/"));
    assert_eq!((two.mcp_tool_allowlist.join(","), two.auth_secret_key.as_str()), ("a,b".to_owned(), ""));
    let trimmed =
        with(http("three"), json!({"key": " three ", "default_test_method": " post ", "auth_prefix": "Bot "}));
    let made = checked(json!([trimmed])).unwrap();
    let three = &made.services[0];
    assert_eq!(
        (three.key.as_str(), three.default_test_method.as_str(), three.auth_prefix.as_str()),
        ("three", "POST", "Bot ")
    );
}

#[test]
fn a_template_of_protocol_http_keeps_hints_and_loses_tool_policies() {
    let hinted = with(
        http("one"),
        json!({"mcp_base_url": "https://mcp.x.example", "mcp_transport": "streamable_http", "mcp_endpoint": "/mcp",
            "mcp_tool_allowlist": ["a"], "mcp_tool_denylist": ["b"], "mcp_max_tools_exposed": 3,
            "mcp_subject_tool_policies": {"bob": {"allowlist": ["a"]}}}),
    );
    let made = checked(json!([hinted])).unwrap();
    let one = serde_json::to_value(&made.services[0]).unwrap();
    assert_eq!((&one["mcp_base_url"], &one["mcp_endpoint"]), (&json!("https://mcp.x.example"), &json!("/mcp")));
    for gone in ["mcp_tool_allowlist", "mcp_tool_denylist", "mcp_max_tools_exposed", "mcp_subject_tool_policies"] {
        assert!(one.get(gone).is_none(), "{gone}");
    }
}

#[test]
fn mistakes_are_named_by_their_place() {
    for (change, said) in [
        (json!({"key": " "}), "services[0].key: is missing"),
        (json!({"connection_id": null}), "services[0].connection_id: is missing"),
        (json!({"base_url": ""}), "services[0].base_url: is missing"),
        (json!({"base_url": "/relative"}), "services[0].base_url: must be an absolute"),
        (json!({"base_url": "ftp://x"}), "services[0].base_url: must be an absolute"),
        (json!({"mcp_base_url": "mcp.x.example"}), "services[0].mcp_base_url: must be an absolute"),
        (json!({"protocol": "grpc"}), "services[0].protocol: must be"),
        (json!({"auth_mode": "Bearer"}), "services[0].auth_mode: must be"),
        (json!({"mcp_transport": "sse"}), "services[0].mcp_transport: must be"),
        (json!({"credential_fields": []}), "services[0].credential_fields: must hold at least one"),
        (json!({"credential_fields": [{"label": "x"}]}), "services[0].credential_fields[0].key: is missing"),
        (
            json!({"credential_fields": [{"key": "a"}, {"key": "a"}]}),
            "services[0].credential_fields[1].key: occurs twice",
        ),
        (
            json!({"credential_fields": [{"key": "a", "env_var": "A;id"}]}),
            "services[0].credential_fields[0].env_var: must",
        ),
        (
            json!({"credential_fields": [{"key": "a", "env_var": "1A"}]}),
            "services[0].credential_fields[0].env_var: must",
        ),
        (json!({"default_test_method": "GET;id"}), "services[0].default_test_method: must"),
        (json!({"default_test_method": "M-SEARCH"}), "services[0].default_test_method: must"),
        (json!({"auth_secret_key": "other"}), "services[0].auth_secret_key: names no credential field"),
        (json!({"label": "x".repeat(9000)}), "services[0].label: has more than"),
        (json!({"description": "a\u{0}"}), "services[0].description: contains control"),
        (
            json!({"protocol": "mcp", "mcp_subject_tool_policies": {" ": {}}}),
            "services[0].mcp_subject_tool_policies: a subject",
        ),
    ] {
        let message = refused(json!([with(http("one"), change)]));
        assert!(message.starts_with(said), "{message}");
    }
    assert_eq!(
        refused(json!([http("one"), with(http("two"), json!({"key": "one"}))])),
        "services[1].key: occurs twice"
    );
    let same = with(http("two"), json!({"connection_id": "one-proxy"}));
    assert_eq!(refused(json!([http("one"), same])), "services[1].connection_id: occurs twice");
    let many: Vec<_> = (0..501).map(|number| http(&format!("k{number}"))).collect();
    assert!(refused(json!(many)).starts_with("services: more than"));
}

#[test]
fn what_a_command_takes_and_how_it_tests_belong_to_where_a_template_leads() {
    let field =
        |change: Value| json!({ "credential_fields": [with(json!({"key": "token", "env_var": "X_TOKEN"}), change)] });
    let held = with(http("one"), field(json!({})));
    let leads = |change: Value| {
        let next = checked(json!([with(held.clone(), change)])).unwrap();
        checked(json!([held.clone()])).unwrap().leads_elsewhere(&next)
    };
    for change in [
        field(json!({"env_var": "AWS_SECRET_ACCESS_KEY"})),
        field(json!({"env_var": ""})),
        field(json!({"key": "other"})),
        field(json!({"required": true})),
        field(json!({"secret": true})),
        json!({"credential_fields": [{"key": "token", "env_var": "X_TOKEN"}, {"key": "more", "env_var": "HOME"}]}),
        json!({"default_test_method": "DELETE"}),
        json!({"default_test_path": "/evil"}),
        json!({"default_test_headers": {"x-evil": "1"}}),
        json!({"default_test_body": "evil"}),
    ] {
        assert!(leads(change.clone()), "{change}");
    }
    for change in
        [json!({}), json!({"label": "Other"}), field(json!({"help": "there", "label": "Key", "placeholder": "x"}))]
    {
        assert!(!leads(change.clone()), "{change}");
    }
}

#[test]
fn a_catalog_has_a_bound_as_it_is_laid_out() {
    let of = |bytes: usize| {
        let mut text = "x".repeat(bytes);
        let mut catalog = Catalog { services: vec![Template::default()], ..Catalog::default() };
        catalog.services[0].default_test_body = Some(Value::from(std::mem::take(&mut text)));
        catalog
    };
    let rest = of(0).text().unwrap().len();
    assert_eq!(of(MAX_BYTES - rest).text().unwrap().len(), MAX_BYTES);
    let refused = of(MAX_BYTES - rest + 1).text().unwrap_err();
    assert_eq!(refused.to_string(), "services: more than 4194304 bytes when laid out");
}

proptest! {
    #[test]
    fn any_text_is_refused_or_becomes_what_it_stays(text in "\\PC{0,200}") {
        if let Some(checked) = serde_json::from_str::<Catalog>(&text).ok().and_then(|catalog| catalog.check().ok()) {
            prop_assert_eq!(checked.clone().check(), Ok(checked));
        }
    }

    #[test]
    fn what_was_accepted_is_accepted_unchanged(
        key in " {0,2}[a-z]{0,3}", protocol in "(http|mcp|MCP|x|)", base in "(https://x|http://|/|https://y.z/p)",
        fields in prop::collection::vec("[ab]{0,1}", 0..3), secret in "[ab]{0,1}", tools in prop::collection::vec("[ab ]{0,2}", 0..3),
    ) {
        let fields: Vec<_> = fields.into_iter().map(|key| json!({ "key": key })).collect();
        let one = json!({"key": key, "connection_id": key, "protocol": protocol, "base_url": base,
            "credential_fields": fields, "auth_secret_key": secret, "mcp_tool_denylist": tools});
        if let Ok(checked) = checked(json!([one])) {
            let again: Catalog = serde_json::from_str(&checked.text().unwrap()).unwrap();
            prop_assert_eq!(again.check(), Ok(checked));
        }
    }
}

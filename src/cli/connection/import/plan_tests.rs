#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

use super::*;
use crate::config::dotenv;

fn openai() -> Value {
    json!({
        "key": "openai", "label": "OpenAI", "connection_id": "sigilum-secure-openai", "protocol": "http",
        "base_url": "https://api.openai.com", "auth_mode": "bearer", "auth_secret_key": "api_key",
        "credential_fields": [{"key": "api_key", "env_var": "OPENAI_API_KEY", "required": true}],
    })
}

fn slack() -> Value {
    json!({
        "key": "slack", "label": "Slack", "connection_id": "slack-proxy", "protocol": "http",
        "base_url": "https://slack.com/api", "auth_mode": "bearer", "auth_secret_key": "bot_token",
        "credential_fields": [{"key": "bot_token", "env_var": "SLACK_BOT_TOKEN"}, {"key": "app_token", "env_var": "SLACK_APP_TOKEN"}],
    })
}

fn planned(file: &str, connections: &[Value], only: &[&str]) -> Plan {
    let only: Vec<_> = only
        .iter()
        .map(|text| {
            let (variable, id) = text.split_once('=').map_or((*text, None), |(name, id)| (name, Some(id)));
            Only { variable: variable.to_owned(), connection: id.map(|id| ConnectionId::parse(id).unwrap()) }
        })
        .collect();
    plan(dotenv::parse(file.as_bytes()), &[openai(), slack()], connections, &only)
}

/// Each offer as `id: name<-variable+variable …`, `*` where it exists.
fn offers(plan: &Plan) -> Vec<String> {
    let secret = |secret: &Offered| {
        let from: Vec<_> = secret.from.iter().map(|(name, _)| name.as_str()).collect();
        format!("{}<-{}", secret.name, from.join("+"))
    };
    let offer = |offer: &Offer| {
        let secrets: Vec<_> = offer.secrets.iter().map(secret).collect();
        format!("{}{}: {}", offer.id, if offer.exists { "*" } else { "" }, secrets.join(" "))
    };
    plan.offers.iter().map(offer).collect()
}

/// Each skipped variable with its reason.
fn skipped(plan: &Plan) -> Vec<(String, String)> {
    plan.skipped.iter().map(|it| (it.variable.clone(), it.reason.clone())).collect()
}

const KEY: &str = "sk-proj-0123456789abcdef";

#[test]
fn names_come_before_values_and_the_catalog_before_our_own_table() {
    let file = format!("MISTRAL_API_KEY=0123456789\nOPENAI_API_KEY={KEY}\nMINE=ghp_0123456789abcdef\nPORT=8080\n");
    let plan = planned(&file, &[], &[]);
    assert_eq!(
        offers(&plan),
        [
            "mistral-proxy: api_key<-MISTRAL_API_KEY",
            "sigilum-secure-openai: api_key<-OPENAI_API_KEY",
            "github-proxy: api_key<-MINE"
        ]
    );
    assert_eq!(plan.offers.iter().map(|offer| offer.secrets[0].by_value).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(plan.skipped, []);
}

#[test]
fn one_key_in_two_variables_is_one_connection_and_two_keys_are_two() {
    let plan = planned("GH_TOKEN=ghp_0123456789abcdef\nGITHUB_TOKEN=ghp_0123456789abcdef\n", &[], &[]);
    assert_eq!(offers(&plan), ["github-proxy: api_key<-GITHUB_TOKEN+GH_TOKEN"]);
    let plan = planned("GH_TOKEN=ghp_0123456789abcdee\nGITHUB_TOKEN=ghp_0123456789abcdef\n", &[], &[]);
    assert_eq!(offers(&plan), ["gh-token: api_key<-GH_TOKEN", "github-proxy: api_key<-GITHUB_TOKEN"]);
    let plan = planned("SLACK_APP_TOKEN=xapp-1-0123456789\nSLACK_BOT_TOKEN=xoxb-0123456789abcdef\n", &[], &[]);
    assert_eq!(offers(&plan), ["slack-proxy: bot_token<-SLACK_BOT_TOKEN app_token<-SLACK_APP_TOKEN"]);
    let plan = planned("SLACK_APP_TOKEN=xapp-1-0123456789\n", &[], &[]);
    assert_eq!(skipped(&plan)[0].1, "Slack needs bot_token too, and the file does not have it");
}

#[test]
fn the_last_of_two_values_counts_and_the_other_is_named() {
    let plan = planned(
        &format!("OPENAI_API_KEY=sk-proj-another-key-0123\nOPENAI_API_KEY={KEY}\nOPENAI_API_KEY='{KEY}'\n"),
        &[],
        &[],
    );
    let [offer] = plan.offers.as_slice() else { panic!("{plan:?}") };
    assert_eq!(offer.secrets[0].value.expose(), KEY);
    assert_eq!(offer.secrets[0].from[0].1, [2..=2, 3..=3]);
    assert_eq!(plan.skipped[0].lines, [1..=1]);
    assert!(plan.skipped[0].reason.contains("that counts"), "{plan:?}");
}

#[test]
fn what_is_no_key_for_sure_is_not_taken() {
    for (line, reason) in [
        ("OPENAI_API_KEY=your-key-here", "placeholder"),
        ("OPENAI_API_KEY=sk-...", "placeholder"),
        ("OPENAI_API_KEY=<key>-0123456789", "placeholder"),
        ("OPENAI_API_KEY={{OTHER_KEY}}", "placeholder"),
        ("OPENAI_API_KEY=a sentence of words", "placeholder"),
        ("OPENAI_API_KEY='two\nlines-0123456789'", "placeholder"),
        ("OPENAI_API_KEY=$OTHER", "made of other variables"),
        ("OPENAI_API_KEY=\"open", "not closed"),
        ("OPENAI_API_KEY=sk-or-v1-0123456789abcdef", "its value looks like a key of OpenRouter"),
    ] {
        let plan = planned(line, &[], &[]);
        assert_eq!(offers(&plan), Vec::<String>::new(), "{line}");
        assert!(plan.skipped[0].reason.contains(reason), "{line}: {plan:?}");
    }
    for nothing in ["OPENAI_API_KEY=", "SIGILUM_API_KEY=sk_live_0123456789abcdef", "DATABASE_URL=postgres://u:p@h/db"] {
        let plan = planned(nothing, &[], &[]);
        assert!(plan.offers.is_empty() && plan.skipped.is_empty(), "{nothing}: {plan:?}");
    }
}

#[test]
fn a_key_for_another_place_stays_where_it_is() {
    let file = format!("OPENAI_BASE_URL=https://llm.corp.example/v1\nOPENAI_API_KEY={KEY}\n");
    assert!(
        skipped(&planned(&file, &[], &[]))[0]
            .1
            .contains("OPENAI_BASE_URL on line 1 sends OPENAI_API_KEY to llm.corp.example")
    );
    for own in ["https://api.openai.com/v1", "http://127.0.0.1:38000/proxy/sigilum-secure-openai/v1"] {
        let file = format!("OPENAI_BASE_URL={own}\nOPENAI_API_KEY={KEY}\n");
        assert_eq!(planned(&file, &[], &[]).offers.len(), 1, "{own}");
    }
    let elsewhere = json!({"id": "sigilum-secure-openai", "base_url": "https://evil.example", "auth_mode": "bearer"});
    let plan = planned(&format!("OPENAI_API_KEY={KEY}"), &[elsewhere], &[]);
    assert!(plan.offers.is_empty() && plan.skipped[0].reason.contains("goes to https://evil.example"), "{plan:?}");
}

#[test]
fn a_connection_that_is_there_is_rotated_by_its_own_names() {
    let there = |id: &str| {
        json!({"id": id, "base_url": "https://api.openai.com/v1", "auth_mode": "bearer", "auth_secret_key": "access_token",
               "auth_header_name": "Authorization"})
    };
    let file = format!("OPENAI_API_KEY={KEY}");
    let plan = planned(&file, &[there("my-openai")], &[]);
    assert_eq!(offers(&plan), ["my-openai*: access_token<-OPENAI_API_KEY"]);
    assert_eq!(plan.offers[0].sdk, Some(("OPENAI_BASE_URL".to_owned(), String::new())), "its base URL ends in /v1");
    // Two that could be meant: neither is guessed.
    let plan = planned(&file, &[there("one-openai"), there("two-openai")], &[]);
    assert_eq!(offers(&plan), ["sigilum-secure-openai: api_key<-OPENAI_API_KEY"]);
    assert_eq!(plan.offers[0].sdk, Some(("OPENAI_BASE_URL".to_owned(), "/v1".to_owned())));
    let plan = planned(&file, &[there("one-openai"), there("two-openai")], &["OPENAI_API_KEY=two-openai"]);
    assert_eq!(offers(&plan), ["two-openai*: access_token<-OPENAI_API_KEY"]);
    let mut declared = there("sigilum-secure-openai");
    declared["declared"] = json!(true);
    assert!(skipped(&planned(&file, &[declared], &[]))[0].1.contains("gateway.yaml"));
}

#[test]
fn only_what_is_named_is_looked_at() {
    let file = format!("OPENAI_API_KEY={KEY}\nGROQ_API_KEY=gsk_0123456789abcdef\nPORT=1\n");
    let plan = planned(&file, &[], &["GROQ_API_KEY=fast", "PORT"]);
    assert_eq!(offers(&plan), ["fast: api_key<-GROQ_API_KEY"]);
    assert_eq!(skipped(&plan).len(), 1);
    assert!(skipped(&plan)[0].1.contains("no provider is known"));
}

//! Providers whose keys are recognised: by the name of the variable, else by how the value begins. Pure.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

/// One provider.
#[derive(Debug)]
pub struct Provider {
    /// Its key in the service catalog, whose template is taken where there is one.
    pub key: &'static str,
    /// For people.
    pub label: &'static str,
    /// Variables that hold its key, the usual one first.
    names: &'static [&'static str],
    /// How its keys begin.
    begins: &'static [&'static str],
    /// Where it is.
    base_url: &'static str,
    /// How the key travels.
    travels: Travels,
    /// What its own client libraries read the provider's address from, and what they expect at its end.
    pub sdk: Option<(&'static str, &'static str)>,
}

/// How a key travels.
#[derive(Debug, Clone, Copy)]
enum Travels {
    /// `Authorization: Bearer …`.
    Bearer,
    /// `Authorization: …` with this before it.
    Authorization(&'static str),
    /// In a header of its own.
    Header(&'static str),
}

const fn provider(
    key: &'static str,
    label: &'static str,
    names: &'static [&'static str],
    begins: &'static [&'static str],
    base_url: &'static str,
    travels: Travels,
) -> Provider {
    Provider { key, label, names, begins, base_url, travels, sdk: None }
}

impl Provider {
    const fn sdk(mut self, variable: &'static str, path: &'static str) -> Self {
        self.sdk = Some((variable, path));
        self
    }

    /// The body that makes its connection, without secrets, where the service catalog has no template.
    pub fn body(&self) -> Map<String, Value> {
        let (mode, header, prefix) = match self.travels {
            Travels::Bearer => ("bearer", "Authorization", "Bearer "),
            Travels::Authorization("") => ("header_key", "Authorization", ""),
            Travels::Authorization(prefix) => ("bearer", "Authorization", prefix),
            Travels::Header(name) => ("header_key", name, ""),
        };
        let mut body = Map::from_iter([
            ("id".to_owned(), json!(format!("{}-proxy", self.key))),
            ("name".to_owned(), json!(self.label)),
            ("protocol".to_owned(), json!("http")),
            ("base_url".to_owned(), json!(self.base_url)),
            ("auth_mode".to_owned(), json!(mode)),
            ("auth_header_name".to_owned(), json!(header)),
            ("auth_secret_key".to_owned(), json!(SECRET)),
        ]);
        if !prefix.is_empty() {
            body.insert("auth_prefix".to_owned(), json!(prefix));
        }
        body
    }
}

/// What the secret of a connection is called where the service catalog has no template.
pub const SECRET: &str = "api_key";

/// The providers. What begins alike is told apart by the longest beginning; see [`by_value`].
pub const PROVIDERS: &[Provider] = &[
    provider(
        "openai",
        "OpenAI",
        &["OPENAI_API_KEY", "OPENAI_KEY"],
        &["sk-proj-", "sk-svcacct-"],
        "https://api.openai.com",
        Travels::Bearer,
    )
    .sdk("OPENAI_BASE_URL", "/v1"),
    provider(
        "claude",
        "Anthropic",
        &["ANTHROPIC_API_KEY", "CLAUDE_API_KEY"],
        &["sk-ant-"],
        "https://api.anthropic.com",
        Travels::Header("x-api-key"),
    )
    .sdk("ANTHROPIC_BASE_URL", ""),
    provider(
        "github",
        "GitHub",
        &["GITHUB_TOKEN", "GH_TOKEN", "GITHUB_PAT", "GITHUB_API_TOKEN"],
        &["ghp_", "gho_", "ghu_", "ghs_", "github_pat_"],
        "https://api.github.com",
        Travels::Bearer,
    )
    .sdk("GITHUB_API_URL", ""),
    provider(
        "slack",
        "Slack",
        &["SLACK_BOT_TOKEN", "SLACK_TOKEN"],
        &["xoxb-", "xoxp-"],
        "https://slack.com/api",
        Travels::Bearer,
    ),
    provider(
        "linear",
        "Linear",
        &["LINEAR_API_KEY"],
        &["lin_api_"],
        "https://api.linear.app",
        Travels::Authorization(""),
    ),
    provider(
        "notion",
        "Notion",
        &["NOTION_API_KEY", "NOTION_TOKEN", "NOTION_API_TOKEN"],
        &["ntn_"],
        "https://api.notion.com",
        Travels::Bearer,
    ),
    provider(
        "gemini",
        "Google Gemini",
        &["GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GENERATIVE_AI_API_KEY"],
        &["AIza"],
        "https://generativelanguage.googleapis.com",
        Travels::Header("x-goog-api-key"),
    )
    .sdk("GOOGLE_GEMINI_BASE_URL", ""),
    provider(
        "brave-search",
        "Brave Search",
        &["BRAVE_API_KEY", "BRAVE_SEARCH_API_KEY"],
        &[],
        "https://api.search.brave.com",
        Travels::Header("X-Subscription-Token"),
    ),
    provider(
        "discord",
        "Discord",
        &["DISCORD_BOT_TOKEN", "DISCORD_TOKEN"],
        &[],
        "https://discord.com/api/v10",
        Travels::Authorization("Bot "),
    ),
    provider(
        "telegram",
        "Telegram",
        &["TELEGRAM_BOT_TOKEN"],
        &[],
        "https://api.telegram.org",
        Travels::Header("X-Telegram-Bot-Token"),
    ),
    provider("typefully", "Typefully", &["TYPEFULLY_API_KEY"], &[], "https://api.typefully.com", Travels::Bearer),
    provider("mistral", "Mistral", &["MISTRAL_API_KEY"], &[], "https://api.mistral.ai", Travels::Bearer),
    provider("groq", "Groq", &["GROQ_API_KEY"], &["gsk_"], "https://api.groq.com", Travels::Bearer)
        .sdk("GROQ_BASE_URL", ""),
    provider(
        "openrouter",
        "OpenRouter",
        &["OPENROUTER_API_KEY"],
        &["sk-or-"],
        "https://openrouter.ai/api",
        Travels::Bearer,
    ),
    provider(
        "huggingface",
        "Hugging Face",
        &["HF_TOKEN", "HUGGINGFACE_API_KEY", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN", "HUGGINGFACE_TOKEN"],
        &["hf_"],
        "https://huggingface.co",
        Travels::Bearer,
    )
    .sdk("HF_ENDPOINT", ""),
    provider(
        "stripe",
        "Stripe",
        &["STRIPE_SECRET_KEY", "STRIPE_API_KEY"],
        &["sk_live_", "sk_test_", "rk_live_", "rk_test_"],
        "https://api.stripe.com",
        Travels::Bearer,
    ),
    provider("sendgrid", "SendGrid", &["SENDGRID_API_KEY"], &["SG."], "https://api.sendgrid.com", Travels::Bearer),
    provider("tavily", "Tavily", &["TAVILY_API_KEY"], &["tvly-"], "https://api.tavily.com", Travels::Bearer),
    provider(
        "perplexity",
        "Perplexity",
        &["PERPLEXITY_API_KEY", "PPLX_API_KEY"],
        &["pplx-"],
        "https://api.perplexity.ai",
        Travels::Bearer,
    ),
    provider("deepseek", "DeepSeek", &["DEEPSEEK_API_KEY"], &[], "https://api.deepseek.com", Travels::Bearer),
    provider("xai", "xAI", &["XAI_API_KEY", "GROK_API_KEY"], &["xai-"], "https://api.x.ai", Travels::Bearer),
    provider("cohere", "Cohere", &["COHERE_API_KEY", "CO_API_KEY"], &[], "https://api.cohere.com", Travels::Bearer)
        .sdk("CO_API_URL", ""),
    provider("together", "Together", &["TOGETHER_API_KEY"], &[], "https://api.together.xyz", Travels::Bearer)
        .sdk("TOGETHER_BASE_URL", "/v1"),
    provider("fireworks", "Fireworks", &["FIREWORKS_API_KEY"], &[], "https://api.fireworks.ai", Travels::Bearer),
    provider(
        "replicate",
        "Replicate",
        &["REPLICATE_API_TOKEN", "REPLICATE_API_KEY"],
        &["r8_"],
        "https://api.replicate.com",
        Travels::Bearer,
    ),
    provider(
        "elevenlabs",
        "ElevenLabs",
        &["ELEVENLABS_API_KEY", "ELEVEN_API_KEY"],
        &[],
        "https://api.elevenlabs.io",
        Travels::Header("xi-api-key"),
    ),
    provider("resend", "Resend", &["RESEND_API_KEY"], &[], "https://api.resend.com", Travels::Bearer),
];

/// Beginnings of values that look like a provider's keys and travel in another way: tokens of people who signed in.
const OTHERS: &[&str] = &["sk-ant-oat", "sk-ant-ort"];

/// Shortest rest behind a beginning that counts: what is shorter is an example.
const LEAST_REST: usize = 12;

/// The provider a variable of this name belongs to.
pub fn by_name(name: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().find(|provider| provider.names.contains(&name))
}

/// Whether the name stands before another in the provider's own list.
pub fn rank(provider: &Provider, name: &str) -> usize {
    provider.names.iter().position(|known| *known == name).unwrap_or(provider.names.len())
}

/// The provider whose keys begin like this value: the longest beginning counts.
pub fn by_value(value: &str) -> Option<&'static Provider> {
    if OTHERS.iter().any(|other| value.starts_with(other)) {
        return None;
    }
    let all = PROVIDERS.iter().flat_map(|provider| provider.begins.iter().map(move |begin| (provider, *begin)));
    let fits = all.filter(|(_, begin)| value.strip_prefix(begin).is_some_and(|rest| rest.len() >= LEAST_REST));
    fits.max_by_key(|(_, begin)| begin.len()).map(|(provider, _)| provider)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use std::collections::HashSet;

    use super::*;
    use crate::domain::address::AddressPolicy;
    use crate::domain::record::Secrets;
    use crate::wire::admin::CreateBody;
    use crate::wire::admin::decode;

    #[test]
    fn every_provider_makes_a_connection_the_gateway_takes() {
        for provider in PROVIDERS {
            let text = Value::Object(provider.body()).to_string();
            let (draft, secrets): (_, Secrets) = decode::<CreateBody>(text.as_bytes()).unwrap().into_draft().unwrap();
            assert!(secrets.is_empty());
            let checked = draft.check(&AddressPolicy::default());
            assert!(checked.is_ok(), "{}: {checked:?}", provider.key);
        }
        let keys: HashSet<_> = PROVIDERS.iter().map(|provider| provider.key).collect();
        let names: Vec<_> = PROVIDERS.iter().flat_map(|provider| provider.names).collect();
        assert_eq!((keys.len(), names.iter().collect::<HashSet<_>>().len()), (PROVIDERS.len(), names.len()));
    }

    #[test]
    fn names_and_values_lead_to_their_provider() {
        for (name, key) in [("OPENAI_API_KEY", "openai"), ("GH_TOKEN", "github"), ("GOOGLE_API_KEY", "gemini")] {
            assert_eq!(by_name(name).unwrap().key, key);
        }
        assert!(by_name("openai_api_key").is_none() && by_name("MY_KEY").is_none());
        for (begin, key) in [
            ("sk-ant-api03-", Some("claude")),
            ("sk-ant-oat01-", None),
            ("sk-or-v1-", Some("openrouter")),
            ("sk-proj-", Some("openai")),
            ("sk-", None),
            ("github_pat_", Some("github")),
            ("AIza", Some("gemini")),
            ("SG.", Some("sendgrid")),
            ("postgres://", None),
        ] {
            let value = format!("{begin}0123456789abcdef");
            assert_eq!(by_value(&value).map(|provider| provider.key), key, "{value}");
        }
        assert!(by_value("sk-proj-short").is_none());
    }
}

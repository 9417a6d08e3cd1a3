//! Which variables of a file become which connections. Pure: the file, the catalog and what the gateway has go in, offers
//! come out.
//!
//! A key goes to the provider it belongs to and nowhere else: where name, value, the file's own base URL and the
//! connection that is there do not agree on the place, nothing is offered.

use std::ops::RangeInclusive;

use reqwest::Url;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::cli::connection::template;
use crate::cli::connection::text;
use crate::config::dotenv::Assignment;
use crate::config::dotenv::Value as EnvValue;
use crate::domain::environment;
use crate::domain::ids::ConnectionId;
use crate::domain::providers;
use crate::domain::providers::Provider;
use crate::domain::secret::Secret;

/// Lines of a file, counted from 1.
pub(super) type Lines = RangeInclusive<usize>;

/// Shortest value that is taken for a key.
const LEAST_KEY: usize = 8;

/// A variable that is meant although others are there, and the connection it goes to where that is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Only {
    /// The variable.
    pub(super) variable: String,
    /// The connection.
    pub(super) connection: Option<ConnectionId>,
}

/// What would be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Connections, in the order of the file.
    pub(super) offers: Vec<Offer>,
    /// Keys that are not taken, and why.
    pub(super) skipped: Vec<Skipped>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Offer {
    /// Its id.
    pub(super) id: String,
    /// The provider, for people.
    pub(super) label: String,
    /// The body that makes it, without secrets.
    pub(super) body: Map<String, Value>,
    /// Whether the gateway has it: then its secrets are rotated.
    pub(super) exists: bool,
    /// Its secrets.
    pub(super) secrets: Vec<Offered>,
    /// Variable of the provider's libraries for its address, and what stands behind the connection's own.
    pub(super) sdk: Option<(String, String)>,
    /// Which provider or template it was made for.
    key: String,
}

/// One secret of a connection.
#[derive(Debug)]
pub(super) struct Offered {
    /// Its name in the connection.
    pub(super) name: String,
    /// It.
    pub(super) value: Secret,
    /// Variables that hold it, with their lines.
    pub(super) from: Vec<(String, Vec<Lines>)>,
    /// Whether the value alone says whose it is.
    pub(super) by_value: bool,
}

/// A key that is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Skipped {
    /// The variable.
    pub(super) variable: String,
    /// Where it is set.
    pub(super) lines: Vec<Lines>,
    /// Why.
    pub(super) reason: String,
}

/// Whose key a variable holds.
struct Owner {
    key: String,
    label: String,
    body: Map<String, Value>,
    secret: String,
    provider: Option<&'static Provider>,
    by_value: bool,
}

/// Makes the plan.
pub(super) fn plan(file: Vec<Assignment>, catalog: &[Value], connections: &[Value], only: &[Only]) -> Plan {
    let mut plan = Plan::default();
    let addresses = addresses(&file);
    let mut found = Vec::new();
    for (name, value, lines, shadowed) in effective(file) {
        let named = only.iter().find(|only| only.variable == name);
        if !only.is_empty() && named.is_none() {
            continue;
        }
        let mut skip = |lines: &[Lines], reason: String| {
            plan.skipped.push(Skipped { variable: name.clone(), lines: lines.to_vec(), reason });
        };
        let Some(owner) = owner(&name, &value, catalog) else {
            if named.is_some() {
                skip(&lines, "no provider is known for it; see `sigilum connection add`".to_owned());
            }
            continue;
        };
        if !shadowed.is_empty() {
            skip(&shadowed, format!("{name} is set again further down, and that counts; this value is not taken"));
        }
        match key_in(&name, value, &owner, &addresses) {
            Ok(Some(value)) => found.push((name, value, lines, owner, named.and_then(|only| only.connection.clone()))),
            Ok(None) => {}
            Err(reason) => skip(&lines, reason),
        }
    }
    // The usual variable of a provider gets the usual id, wherever it stands.
    found.sort_by_key(|(name, _, _, owner, _)| owner.provider.map_or(0, |provider| providers::rank(provider, name)));
    for (name, value, lines, owner, id) in found {
        place(&mut plan, (name, value, lines), owner, id);
    }
    for offer in std::mem::take(&mut plan.offers) {
        match meet(offer, connections) {
            Ok(offer) => plan.offers.push(offer),
            Err(skipped) => plan.skipped.extend(skipped),
        }
    }
    let first = |lines: &[Lines]| lines.first().map_or(0, |range| *range.start());
    let begin = |offer: &Offer| {
        let from = offer.secrets.iter().flat_map(|secret| &secret.from);
        from.map(|(_, lines)| first(lines)).min().unwrap_or(0)
    };
    plan.offers.sort_by_key(begin);
    plan.skipped.sort_by_key(|skipped| first(&skipped.lines));
    plan
}

/// The value of each name that counts (the last), its lines, and the lines that hold another value.
fn effective(file: Vec<Assignment>) -> Vec<(String, EnvValue, Vec<Lines>, Vec<Lines>)> {
    let mut all: Vec<(String, EnvValue, Vec<Lines>, Vec<Lines>)> = Vec::new();
    for Assignment { name, value, lines, .. } in file {
        match all.iter_mut().find(|(known, ..)| *known == name) {
            None => all.push((name, value, vec![lines], Vec::new())),
            Some((_, old, same, other)) => {
                if *old != value {
                    other.append(same);
                }
                *old = value;
                same.push(lines);
            }
        }
    }
    all
}

/// What the file sets to addresses, by name.
fn addresses(file: &[Assignment]) -> Vec<(String, Url, usize)> {
    let read = |assignment: &Assignment| match &assignment.value {
        EnvValue::Text(text) => {
            Some((assignment.name.clone(), Url::parse(text.expose()).ok()?, *assignment.lines.start()))
        }
        EnvValue::Reference | EnvValue::Unclear(_) => None,
    };
    file.iter().filter_map(read).collect()
}

fn owner(name: &str, value: &EnvValue, catalog: &[Value]) -> Option<Owner> {
    // The gateway's own keys are none of a provider, though one of them begins like Stripe's.
    if environment::is_own(name) {
        return None;
    }
    let of_catalog = catalog.iter().find_map(|entry| {
        let field = template::credentials(entry).into_iter().find(|field| field.env_var == name)?;
        Some((entry, field.key))
    });
    if let Some((entry, secret)) = of_catalog {
        let key = text(entry, "key").to_owned();
        let provider = providers::PROVIDERS.iter().find(|provider| provider.key == key);
        let label = match text(entry, "label") {
            "" => key.clone(),
            label => label.to_owned(),
        };
        return Some(Owner { label, body: template::body(entry), key, secret, provider, by_value: false });
    }
    let of_value = match value {
        EnvValue::Text(value) => providers::by_value(value.expose().trim()),
        EnvValue::Reference | EnvValue::Unclear(_) => None,
    };
    let by_name = providers::by_name(name);
    let provider = by_name.or(of_value)?;
    let entry = template::find(catalog, provider.key);
    let body = entry.map_or_else(|| provider.body(), template::body);
    let fields = entry.map(template::credentials).unwrap_or_default();
    let injected = body.get("auth_secret_key").and_then(Value::as_str).map(ToOwned::to_owned);
    let secret = injected.or_else(|| fields.first().map(|field| field.key.clone()));
    Some(Owner {
        key: provider.key.to_owned(),
        label: provider.label.to_owned(),
        body,
        secret: secret.unwrap_or_else(|| providers::SECRET.to_owned()),
        provider: Some(provider),
        by_value: by_name.is_none(),
    })
}

/// The key a variable holds; `None` where it is empty.
fn key_in(
    name: &str,
    value: EnvValue,
    owner: &Owner,
    addresses: &[(String, Url, usize)],
) -> Result<Option<Secret>, String> {
    let value = match value {
        EnvValue::Text(value) => Secret::new(value.expose().trim().to_owned()),
        EnvValue::Reference => return Err("its value is made of other variables".to_owned()),
        EnvValue::Unclear(why) => return Err(why.to_owned()),
    };
    if value.is_empty() {
        return Ok(None);
    }
    if is_placeholder(value.expose()) {
        return Err("its value looks like a placeholder".to_owned());
    }
    if let Some(other) = providers::by_value(value.expose()).filter(|other| other.key != owner.key)
        && owner.provider.is_none_or(|own| own.label != other.label)
    {
        return Err(format!("its name says {}, its value looks like a key of {}", owner.label, other.label));
    }
    let own = owner.body.get("base_url").and_then(Value::as_str).and_then(|url| Url::parse(url).ok());
    let mut variables: Vec<&str> =
        owner.provider.and_then(|provider| provider.sdk).map(|(it, _)| it).into_iter().collect();
    if variables.contains(&"OPENAI_BASE_URL") {
        variables.push("OPENAI_API_BASE");
    }
    for (variable, url, line) in addresses {
        let elsewhere = own.as_ref().is_some_and(|own| own.host_str() != url.host_str()) && !is_ours(url);
        if variables.contains(&variable.as_str()) && elsewhere && !owner.by_value {
            let host = url.host_str().unwrap_or_default();
            return Err(format!("{variable} on line {line} sends {name} to {host}, not to {}", owner.label));
        }
    }
    Ok(Some(value))
}

/// Whether an address is a gateway's already.
fn is_ours(url: &Url) -> bool {
    url.path().starts_with("/proxy/")
}

fn is_placeholder(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let first = value.chars().next();
    value.len() < LEAST_KEY
        || !value.bytes().all(|byte| byte.is_ascii_graphic())
        || value.contains(['<', '>', '{', '}'])
        || ["...", "xxxx", "your-", "your_", "changeme", "change-me", "change_me", "placeholder", "replace"]
            .iter()
            .any(|word| lower.contains(word))
        || value.chars().all(|letter| Some(letter) == first)
}

/// Puts a key into the offer it belongs to, or makes one.
fn place(
    plan: &mut Plan,
    (variable, value, lines): (String, Secret, Vec<Lines>),
    owner: Owner,
    id: Option<ConnectionId>,
) {
    let Owner { key, label, body, secret, provider, by_value } = owner;
    let id = id.map(|id| id.as_str().to_owned());
    let fits = |offer: &&mut Offer| offer.key == key && id.as_ref().is_none_or(|id| *id == offer.id);
    for offer in plan.offers.iter_mut().filter(|offer| fits(offer)) {
        match offer.secrets.iter_mut().find(|known| known.name == secret) {
            Some(known) if known.value == value => {
                known.from.push((variable, lines));
                return;
            }
            Some(_) => {}
            None => {
                offer.secrets.push(Offered { name: secret, value, from: vec![(variable, lines)], by_value });
                return;
            }
        }
    }
    let usual = body.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_taken = |id: &str| plan.offers.iter().any(|offer| offer.id == id);
    let id = id.unwrap_or_else(|| if usual.is_empty() || is_taken(&usual) { slug(&variable) } else { usual });
    if is_taken(&id) {
        let reason = format!("{id} is offered for another key; name a connection: --only {variable}=ID");
        plan.skipped.push(Skipped { variable, lines, reason });
        return;
    }
    let sdk = provider.and_then(|provider| provider.sdk).map(|(name, path)| (name.to_owned(), path.to_owned()));
    let secrets = vec![Offered { name: secret, value, from: vec![(variable, lines)], by_value }];
    plan.offers.push(Offer { id, label, body, exists: false, secrets, sdk, key });
}

/// A name as an id.
fn slug(variable: &str) -> String {
    let slug = variable.to_ascii_lowercase().replace(['_', '.'], "-");
    let slug = slug.trim_matches('-').get(..64).unwrap_or(slug.trim_matches('-'));
    if slug.len() < 3 { format!("env-{slug}") } else { slug.to_owned() }
}

/// Looks for the connection the gateway has: of this id, else the only one that goes to the same place in the same way.
fn meet(mut offer: Offer, connections: &[Value]) -> Result<Offer, Vec<Skipped>> {
    let origin = |body: &dyn Fn(&str) -> String| Url::parse(&body("base_url")).ok().map(|url| url.origin());
    let own = |member: &str| offer.body.get(member).and_then(Value::as_str).unwrap_or_default().to_owned();
    let wanted = origin(&own);
    let goes_there =
        |connection: &Value| wanted.is_some() && origin(&|member| text(connection, member).to_owned()) == wanted;
    let alike = |connection: &&Value| {
        let same = |member: &str| text(connection, member).eq_ignore_ascii_case(&own(member));
        goes_there(connection) && same("auth_mode") && (own("auth_header_name").is_empty() || same("auth_header_name"))
    };
    let by_id = connections.iter().find(|connection| text(connection, "id") == offer.id);
    let only_one = || {
        let mut all = connections.iter().filter(alike);
        all.next().filter(|_| all.next().is_none())
    };
    let found = by_id.or_else(|| if slug_of_own(&offer) { None } else { only_one() });
    let refuse = |offer: &Offer, reason: &str| {
        let from = offer.secrets.iter().flat_map(|secret| &secret.from);
        let skipped = |(variable, lines): &(String, Vec<Lines>)| Skipped {
            variable: variable.clone(),
            lines: lines.clone(),
            reason: reason.to_owned(),
        };
        Err(from.map(skipped).collect())
    };
    if let Some(found) = found {
        let id = text(found, "id");
        if found.get("declared") == Some(&Value::Bool(true)) {
            return refuse(
                &offer,
                &format!("the connection {id} is declared in gateway.yaml: its secret is changed there"),
            );
        }
        if !goes_there(found) {
            let place = text(found, "base_url");
            return refuse(&offer, &format!("the connection {id} goes to {place}, not to {}", own("base_url")));
        }
        let injected = text(found, "auth_secret_key").to_owned();
        if let [only] = offer.secrets.as_mut_slice()
            && !injected.is_empty()
        {
            only.name = injected;
        }
        // What stands behind the gateway's address depends on the connection that is there.
        for member in ["base_url", "path_prefix"] {
            offer.body.insert(member.to_owned(), json!(text(found, member)));
        }
        offer.id = id.to_owned();
        offer.exists = true;
    } else {
        let injected = own("auth_secret_key");
        if !injected.is_empty() && !offer.secrets.iter().any(|secret| secret.name == injected) {
            return refuse(&offer, &format!("{} needs {injected} too, and the file does not have it", offer.label));
        }
        offer.body.insert("id".to_owned(), json!(offer.id));
    }
    let base = format!("{}{}", text_of(&offer.body, "base_url"), text_of(&offer.body, "path_prefix"));
    if let Some((_, path)) = &mut offer.sdk
        && base.trim_end_matches('/').ends_with(path.as_str())
    {
        path.clear();
    }
    Ok(offer)
}

/// Whether the offer has an id of its own because the usual one went to another key.
fn slug_of_own(offer: &Offer) -> bool {
    offer.body.get("id").and_then(Value::as_str) != Some(offer.id.as_str())
}

fn text_of<'a>(body: &'a Map<String, Value>, member: &str) -> &'a str {
    body.get(member).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

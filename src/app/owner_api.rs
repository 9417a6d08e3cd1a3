//! The owner's endpoints of the Sigilum API: services, their keys, claims. For commands and for `up`.
//!
//! Works against our API and the hosted one: what only ours has (a key that is brought along, an expiry)
//! is asked for in a way the other ignores, and the answer is looked at.

use http::Method;
use http::header::AUTHORIZATION;
use http::header::HeaderName;
use http::header::HeaderValue;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::json;
use sha2::Digest as _;
use sha2::Sha256;

pub use crate::app::json_api::ApiError;
use crate::app::json_api::JsonApi;
pub use crate::app::json_api::Refusal;
pub use crate::app::json_api::readable;
use crate::domain::hex;
use crate::domain::secret::Secret;
use crate::domain::time::UnixSeconds;
use crate::identity::Identity;
use crate::identity::Outgoing;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::random;

/// Rows asked for at a time: the most that are given.
const PAGE: u64 = 200;

/// A service of the owner.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// What the API calls it.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// What approvals and connections call it; unique per owner.
    pub slug: String,
    /// Where it lives.
    pub domain: String,
    /// A sentence about it.
    pub description: String,
    /// Keys that are not revoked.
    pub active_key_count: u64,
}

/// A service to be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewService<'a> {
    /// 1 to 100 characters.
    pub name: &'a str,
    /// `^[a-z0-9][a-z0-9-]{1,62}[a-z0-9]$`.
    pub slug: &'a str,
    /// 1 to 255 characters.
    pub domain: &'a str,
    /// 1 to 500 characters.
    pub description: &'a str,
}

/// A key of a service, without the key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceKey {
    /// What the API calls it.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// `...` and the last four characters.
    pub key_prefix: String,
}

/// A claim: somebody's key that asks for, has or had the approval to use a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claim {
    /// `cl_` and 24 hex digits.
    pub claim_id: String,
    /// The owner's namespace.
    pub namespace: String,
    /// Slug of the service.
    pub service: String,
    /// Namespace of the service's owner, who need not be the claim's; only our API sends it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_owner: String,
    /// `ed25519:` and base64 of 32 bytes.
    pub public_key: String,
    /// `pending`, `approved`, `rejected`, `revoked` or `expired`.
    pub status: String,
    /// The agent's address as whoever submitted it saw it.
    pub agent_ip: String,
    /// Who it acts for.
    pub subject: Option<String>,
    /// Which agent of the namespace.
    pub agent_id: Option<String>,
    /// Its name for people.
    pub agent_name: Option<String>,
    /// When it was submitted first.
    pub created_at: Option<String>,
    /// When it was approved.
    pub approved_at: Option<String>,
    /// When it was revoked.
    pub revoked_at: Option<String>,
    /// When its approval ends by itself; only our API sends it.
    pub expires_at: Option<String>,
}

impl Claim {
    /// The service for people: with its owner where that is another than the claim's. Anybody may call a service of
    /// theirs as one of ours is called.
    pub fn service_shown(&self) -> String {
        if self.is_for_own_service() {
            self.service.clone()
        } else {
            format!("{} (of {})", self.service, self.service_owner)
        }
    }

    /// Whether the service belongs to the claim's own namespace, as far as the API says.
    pub fn is_for_own_service(&self) -> bool {
        self.service_owner.is_empty() || self.service_owner == self.namespace
    }
}

/// Which claims to list; empty: all.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClaimFilter<'a> {
    /// Only of this status.
    pub status: Option<&'a str>,
    /// Only of this service.
    pub service: Option<&'a str>,
}

/// When an approval ends by itself. Only our API knows that; another would approve for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// This many seconds from the approval on.
    In(u64),
    /// At this second.
    At(UnixSeconds),
}

/// A claim of an agent, submitted by the agent's own identity.
#[derive(Debug, Clone, Copy)]
pub struct Submission<'a> {
    /// Slug of the service.
    pub service: &'a str,
    /// The agent's address.
    pub agent_ip: &'a str,
    /// Which agent of the namespace; at most 128 characters.
    pub agent_id: Option<&'a str>,
    /// Its name for people; at most 128 characters.
    pub agent_name: Option<&'a str>,
}

/// What the API made of a decision or of a submission.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClaimState {
    /// Which claim.
    pub claim_id: String,
    /// What it is now.
    pub status: String,
    /// When the approval ends by itself, where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Page<T> {
    #[serde(alias = "services", alias = "keys", alias = "claims")]
    rows: Vec<T>,
    pagination: Option<Position>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Position {
    has_more: bool,
}

/// The id our API gives an imported key: `key_local_<slug>_` and the first 12 hex digits of SHA-256.
pub fn local_key_id(slug: &str, key: &Secret) -> String {
    format!("key_local_{slug}_{}", hex::begin(&Sha256::digest(key.expose().as_bytes()), 6))
}

/// A new service key: `sk_live_` and 48 hex digits.
pub fn mint_service_key() -> Result<Secret, random::RandomError> {
    Ok(Secret::new(format!("sk_live_{}", random::hex::<24>()?)))
}

/// The Sigilum API, as an owner.
pub struct OwnerApi {
    api: JsonApi,
}

impl OwnerApi {
    /// The one at this address, with an owner's token.
    pub fn new(base: &str, token: &Secret) -> Result<Self, ApiError> {
        let bearer = Secret::new(format!("Bearer {}", token.expose()));
        Ok(Self { api: JsonApi::new(base)?.with_secret(AUTHORIZATION, &bearer)? })
    }

    /// All services of the owner.
    pub async fn services(&self) -> Result<Vec<Service>, ApiError> {
        let page: Page<Service> = self.get(&["v1", "services"], &[]).await?;
        Ok(page.rows)
    }

    /// The service of this slug.
    pub async fn service(&self, slug: &str) -> Result<Option<Service>, ApiError> {
        Ok(self.services().await?.into_iter().find(|service| service.slug == slug))
    }

    /// Creates a service. Where the slug is taken: `CONFLICT`.
    pub async fn create_service(&self, service: &NewService<'_>) -> Result<Service, ApiError> {
        self.post(&["v1", "services"], &json!(service)).await
    }

    /// The service of this slug, made where it is missing; and whether it was made now.
    pub async fn ensure_service(&self, wanted: &NewService<'_>) -> Result<(Service, bool), ApiError> {
        if let Some(service) = self.service(wanted.slug).await? {
            return Ok((service, false));
        }
        match self.create_service(wanted).await {
            Ok(service) => Ok((service, true)),
            // Somebody was faster.
            Err(error) if error.code() == "CONFLICT" => match self.service(wanted.slug).await? {
                Some(service) => Ok((service, false)),
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Removes a service with its keys; its approvals and pending claims end.
    pub async fn remove_service(&self, service_id: &str) -> Result<(), ApiError> {
        self.api.call(Method::DELETE, self.api.url(&["v1", "services", service_id]), None).await.map(drop)
    }

    /// The active keys of a service.
    pub async fn keys(&self, service_id: &str) -> Result<Vec<ServiceKey>, ApiError> {
        let page: Page<ServiceKey> = self.get(&["v1", "services", service_id, "keys"], &[]).await?;
        Ok(page.rows)
    }

    /// Makes `key` a key of the service, if it is none yet, and returns the key that is valid now: an API
    /// that takes no keys of its callers makes another one and shows it once.
    pub async fn import_key(&self, service: &Service, name: &str, key: &Secret) -> Result<Secret, ApiError> {
        let id = local_key_id(&service.slug, key);
        let ending = key.expose().get(key.expose().len().saturating_sub(4)..).unwrap_or_default();
        let hosted = |known: &ServiceKey| !known.id.starts_with("key_local_");
        let known = self.keys(&service.id).await?;
        if known.iter().any(|row| row.id == id || hosted(row) && row.key_prefix == format!("...{ending}")) {
            return Ok(key.duplicate());
        }
        let body = json!({ "name": name, "key": key.expose() });
        let made: Value = self.post(&["v1", "services", &service.id, "keys"], &body).await?;
        let valid = made.get("key").and_then(Value::as_str).unwrap_or_else(|| key.expose());
        Ok(Secret::new(valid.to_owned()))
    }

    /// Revokes a key of a service for good.
    pub async fn revoke_key(&self, service_id: &str, key_id: &str) -> Result<(), ApiError> {
        let url = self.api.url(&["v1", "services", service_id, "keys", key_id]);
        self.api.call(Method::DELETE, url, None).await.map(drop)
    }

    /// The claims of a namespace, at most `most` of them; and whether there are more.
    pub async fn claims(
        &self,
        namespace: &str,
        filter: ClaimFilter<'_>,
        most: usize,
    ) -> Result<(Vec<Claim>, bool), ApiError> {
        let mut found: Vec<Claim> = Vec::new();
        let mut offset = 0_u64;
        loop {
            let (limit, from) = (PAGE.to_string(), offset.to_string());
            let mut query = vec![("limit", limit.as_str()), ("offset", from.as_str())];
            query.extend(filter.status.map(|status| ("status", status)));
            query.extend(filter.service.map(|service| ("service", service)));
            let page: Page<Claim> = self.get(&["v1", "namespaces", namespace, "claims"], &query).await?;
            let (length, more) = (page.rows.len() as u64, page.pagination.is_some_and(|position| position.has_more));
            for claim in page.rows {
                if found.len() == most {
                    return Ok((found, true));
                }
                // Rows move between pages while others are added.
                if !found.iter().any(|known| known.claim_id == claim.claim_id) {
                    found.push(claim);
                }
            }
            if !more || length == 0 {
                return Ok((found, false));
            }
            offset = offset.saturating_add(length);
        }
    }

    /// One claim by its id.
    pub async fn claim(&self, id: &str) -> Result<Claim, ApiError> {
        self.get(&["v1", "claims", id], &[]).await
    }

    /// Approves a pending claim.
    pub async fn approve(&self, id: &str, expiry: Option<Expiry>) -> Result<ClaimState, ApiError> {
        let body = match expiry {
            None => json!({}),
            Some(Expiry::In(seconds)) => json!({ "expires_in_seconds": seconds }),
            Some(Expiry::At(at)) => json!({ "expires_at": at.rfc3339() }),
        };
        self.post(&["v1", "claims", id, "approve"], &body).await
    }

    /// Rejects a pending claim.
    pub async fn reject(&self, id: &str) -> Result<ClaimState, ApiError> {
        self.post(&["v1", "claims", id, "reject"], &json!({})).await
    }

    /// Revokes an approved claim.
    pub async fn revoke(&self, id: &str) -> Result<ClaimState, ApiError> {
        self.post(&["v1", "claims", id, "revoke"], &json!({})).await
    }

    /// Asks who the token's owner is, which is where our API registers the owner of a namespace of this machine.
    pub async fn introduce(&self) -> Result<(), ApiError> {
        self.get::<Value>(&["v1", "auth", "me"], &[]).await.map(|_| ())
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, &str)]) -> Result<T, ApiError> {
        let mut url = self.api.url(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let answer = self.api.call(Method::GET, url, None).await?;
        self.api.read(answer)
    }

    async fn post<T: DeserializeOwned>(&self, path: &[&str], body: &Value) -> Result<T, ApiError> {
        let answer = self.api.call(Method::POST, self.api.url(path), Some(body)).await?;
        self.api.read(answer)
    }
}

/// Submits the claim of `identity` for a service, with the service's key.
pub async fn submit_claim(
    base: &str,
    identity: &Identity,
    key: &Secret,
    submission: &Submission<'_>,
) -> Result<ClaimState, ApiError> {
    let bearer = Secret::new(format!("Bearer {}", key.expose()));
    let api = JsonApi::new(base)?.with_secret(AUTHORIZATION, &bearer)?;
    let wrong = |error: &dyn std::fmt::Display| api.unexpected(0, &error.to_string());
    let nonce = || random::uuid().map_err(|error| wrong(&error));
    let body = json!({
        "agent_id": submission.agent_id,
        "agent_ip": submission.agent_ip,
        "agent_name": submission.agent_name,
        "namespace": identity.namespace().as_str(),
        "nonce": nonce()?,
        "public_key": identity.public_key().text(),
        "service": submission.service,
    });
    let body = without_nulls(body).to_string().into_bytes();
    let url = api.url(&["v1", "claims"]);
    let nonce = nonce()?;
    let outgoing = Outgoing {
        method: "POST",
        url: url.as_str(),
        body: &body,
        subject: None,
        agent_id: None,
        created: SystemClock.now().seconds(),
        nonce: &nonce,
    };
    let mut headers = Vec::new();
    for (name, value) in identity.signer().sign(&outgoing).map_err(|error| wrong(&error))? {
        let value = HeaderValue::from_str(&value).map_err(|error| wrong(&error))?;
        headers.push((HeaderName::from_static(name), value));
    }
    let answer = api.call_with(Method::POST, url, Some(body), &headers).await?;
    api.read(answer)
}

fn without_nulls(value: Value) -> Value {
    if let Value::Object(members) = value {
        members.into_iter().filter(|(_, value)| !value.is_null()).collect()
    } else {
        value
    }
}

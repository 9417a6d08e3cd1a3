//! Owner tokens: JSON web tokens (RFC 7519) that say whose namespace a person or a command acts for.
//!
//! One algorithm (HS256), one issuer, one audience. Pure: key and time come in as arguments. What a token says is
//! proven by [`verify`] alone; whether its user still exists and whether it was revoked is asked of the database.

use std::time::Duration;

use jsonwebtoken::Algorithm;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::Header;
use jsonwebtoken::Validation;
use jsonwebtoken::decode;
use jsonwebtoken::encode;
use serde::Deserialize;
use serde::Serialize;
use sha2::Digest as _;
use sha2::Sha256;

use crate::domain::ids::Namespace;
use crate::domain::secret::Secret;
use crate::domain::time::CLOCK_SKEW;
use crate::domain::time::UnixSeconds;

/// Claim `iss` of every token.
const ISSUER: &str = "sigilum-api";
/// Claim `aud` of every token.
const AUDIENCE: &str = "sigilum-dashboard";
/// Longest token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 4096;
/// Longest user id, in bytes.
const MAX_SUB_BYTES: usize = 128;
/// Longest e-mail address, in bytes (RFC 5321 section 4.5.3.1).
const MAX_EMAIL_BYTES: usize = 320;

/// Whom a token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The user's id.
    pub sub: String,
    /// Their e-mail address; not verified by anybody.
    pub email: String,
    /// The namespace they own.
    pub namespace: Namespace,
}

impl Owner {
    /// The owner of a namespace of this machine: `user_local_<namespace>`, by default `<namespace>@local.sigilum`.
    pub fn local(namespace: Namespace, email: Option<String>) -> Self {
        let email = email.unwrap_or_else(|| format!("{namespace}@local.sigilum"));
        Self { sub: local_user_id(&namespace), email, namespace }
    }

    /// Whether this is the user id that belongs to the namespace by its name, so that no row has to exist first.
    pub fn is_local(&self) -> bool {
        self.sub == local_user_id(&self.namespace)
    }
}

fn local_user_id(namespace: &Namespace) -> String {
    format!("user_local_{namespace}")
}

/// A token whose signature, issuer, audience and times are right.
#[derive(Debug, PartialEq, Eq)]
pub struct VerifiedToken {
    owner: Owner,
    issued_at: UnixSeconds,
    expires_at: UnixSeconds,
    of_session: bool,
    hash: [u8; 32],
}

impl VerifiedToken {
    /// Whom it speaks for.
    pub const fn owner(&self) -> &Owner {
        &self.owner
    }

    /// When it was issued; 0 where it does not say.
    pub const fn issued_at(&self) -> UnixSeconds {
        self.issued_at
    }

    /// From when on it is worth nothing.
    pub const fn expires_at(&self) -> UnixSeconds {
        self.expires_at
    }

    /// Whether it is that of a browser's session.
    pub const fn is_of_session(&self) -> bool {
        self.of_session
    }

    /// SHA-256 of its text: names it in the list of revoked tokens without being usable as one.
    pub const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }
}

/// Why a token was not issued or not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It was good once.
    #[error("the token has expired; sign in again")]
    Expired,
    /// Anything else: form, algorithm, signature, issuer, audience, empty or missing claims, a future `iat`.
    #[error("the token is not valid")]
    Invalid,
    /// A token that never is valid was asked for.
    #[error("a token's life must be longer than nothing and its user id and e-mail address not empty nor too long")]
    Unissuable,
}

/// The claims as they are on the wire, in this order.
#[derive(Serialize, Deserialize)]
struct ClaimsBody {
    sub: String,
    email: String,
    namespace: String,
    iss: String,
    aud: Audience,
    #[serde(default)]
    iat: u64,
    exp: u64,
    /// Tells a browser's session from the token it was begun with; absent in tokens people handle.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    jti: String,
}

/// Claim `aud`: one audience or several (RFC 7519 section 4.1.3), of which ours must be one.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// Issues a token that is good from `now` for `ttl` (at least a second).
pub fn issue(secret: &Secret, owner: &Owner, ttl: Duration, now: UnixSeconds) -> Result<Secret, TokenError> {
    let until = now.0.checked_add(ttl.as_secs()).ok_or(TokenError::Unissuable)?;
    write(secret, owner, UnixSeconds(until), now, String::new())
}

/// Issues the token of a browser's session: for the owner of the one that was presented and no longer than it, but one of
/// its own (`id` is random), so that ending the session leaves the other as it is.
pub fn issue_session(
    secret: &Secret,
    begun_with: &VerifiedToken,
    id: String,
    now: UnixSeconds,
) -> Result<Secret, TokenError> {
    write(secret, &begun_with.owner, begun_with.expires_at, now, id)
}

fn write(
    secret: &Secret,
    owner: &Owner,
    until: UnixSeconds,
    now: UnixSeconds,
    jti: String,
) -> Result<Secret, TokenError> {
    let exp = Some(until.0).filter(|exp| *exp > now.0).ok_or(TokenError::Unissuable)?;
    if !is_sound(&owner.sub, MAX_SUB_BYTES) || !is_sound(&owner.email, MAX_EMAIL_BYTES) || secret.is_empty() {
        return Err(TokenError::Unissuable);
    }
    let claims = ClaimsBody {
        sub: owner.sub.clone(),
        email: owner.email.clone(),
        namespace: owner.namespace.as_str().to_owned(),
        iss: ISSUER.to_owned(),
        aud: Audience::One(AUDIENCE.to_owned()),
        iat: now.0,
        exp,
        jti,
    };
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims, &key).map(Secret::new).map_err(|_| TokenError::Unissuable)
}

/// Checks a token at the time `now`; clocks may disagree by [`CLOCK_SKEW`].
pub fn verify(secret: &Secret, token: &str, now: UnixSeconds) -> Result<VerifiedToken, TokenError> {
    // An empty key would accept what anybody signs with nothing.
    if secret.is_empty() || token.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::Invalid);
    }
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[AUDIENCE]);
    validation.set_required_spec_claims(&["exp", "sub", "iss", "aud"]);
    // The library would ask the system's clock; the times are judged below.
    validation.validate_exp = false;
    let key = DecodingKey::from_secret(secret.expose().as_bytes());
    let claims = decode::<ClaimsBody>(token, &key, &validation).map_err(|_| TokenError::Invalid)?.claims;
    if !is_sound(&claims.sub, MAX_SUB_BYTES) || !is_sound(&claims.email, MAX_EMAIL_BYTES) {
        return Err(TokenError::Invalid);
    }
    let namespace = Namespace::parse(&claims.namespace).map_err(|_| TokenError::Invalid)?;
    // One from the future would outlive the revocation of everything issued until then.
    if claims.iat > now.0.saturating_add(CLOCK_SKEW.as_secs()) {
        return Err(TokenError::Invalid);
    }
    if claims.exp.saturating_add(CLOCK_SKEW.as_secs()) <= now.0 {
        return Err(TokenError::Expired);
    }
    Ok(VerifiedToken {
        owner: Owner { sub: claims.sub, email: claims.email, namespace },
        issued_at: UnixSeconds(claims.iat),
        expires_at: UnixSeconds(claims.exp),
        of_session: !claims.jti.is_empty(),
        hash: Sha256::digest(token.as_bytes()).into(),
    })
}

fn is_sound(text: &str, most: usize) -> bool {
    !text.trim().is_empty() && text.len() <= most && !text.chars().any(char::is_control)
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;

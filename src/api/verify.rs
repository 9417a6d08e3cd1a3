//! `GET /v1/verify`: whether a key is approved for a service, asked by its own namespace.
//!
//! The question names a slug, which several owners may use. It is that of the namespace's own service where its
//! owner has one of that slug, else that of any service its key is approved for.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::Response;
use http::StatusCode;
use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::params;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::feed;
use crate::api::input::Query;
use crate::api::moment;
use crate::api::problem::Problem;
use crate::api::problem::Violation;
use crate::api::problem::json;
use crate::api::signed::Signed;
use crate::domain::ids::ConnectionId;
use crate::domain::ids::Namespace;
use crate::domain::ids::PublicKey;
use crate::wire::control_plane::ErrorBody;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(verify))
}

/// Answer of `GET /v1/verify`.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
struct Verdict {
    /// Whether the key is approved now.
    authorized: bool,
    /// The claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    claim_id: Option<String>,
    /// When it was approved.
    #[serde(skip_serializing_if = "Option::is_none")]
    approved_at: Option<String>,
    /// `no_approved_claim`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// Whether a key of the signer's namespace is approved for a service
#[utoipa::path(
    get,
    path = "/v1/verify",
    tag = "claims",
    params(
        ("namespace" = String, Query, description = "The signer's"),
        ("public_key" = String, Query, description = "`ed25519:` and base64"),
        ("service" = String, Query, description = "Slug"),
    ),
    responses(
        (status = 200, body = Verdict),
        (status = 400, description = "VALIDATION_ERROR", body = ErrorBody),
        (status = 401, description = "SIGNATURE_*", body = ErrorBody),
        (status = 403, description = "SIGNATURE_NAMESPACE_MISMATCH", body = ErrorBody),
        (status = 409, description = "SIGNATURE_NONCE_REPLAY", body = ErrorBody),
    )
)]
async fn verify(State(api): State<Arc<Api>>, signed: Signed, query: Query) -> Result<Response<Body>, Problem> {
    let (namespace, public_key, service) = read(&query)?;
    // The guard has compared them already; nothing is shown to another namespace whatever stands in front.
    if signed.0.caller.namespace != namespace {
        return Err(Problem::forbidden("only the namespace itself may ask"));
    }
    feed::end_what_is_over(&api).await?;
    let found = api.db.read(move |db| Ok(approved(db, namespace.as_str(), &public_key.text(), service.as_str())?));
    let verdict = match found.await? {
        Some((claim_id, approved_at_ms)) => Verdict {
            authorized: true,
            claim_id: Some(claim_id),
            approved_at: Some(moment::iso(approved_at_ms)),
            reason: None,
        },
        None => Verdict { reason: Some("no_approved_claim"), ..Verdict::default() },
    };
    Ok(json(StatusCode::OK, &verdict))
}

fn read(query: &Query) -> Result<(Namespace, PublicKey, ConnectionId), Problem> {
    let namespace = query.find("namespace").and_then(|text| Namespace::parse(text).ok());
    // A plus sign that nobody encoded reads as a blank, and a key has none.
    let public_key = query.find("public_key").and_then(|text| PublicKey::parse(&text.replace(' ', "+")).ok());
    let service = query.find("service").and_then(|text| ConnectionId::parse(text).ok());
    let (Some(namespace), Some(public_key), Some(service)) = (&namespace, public_key, &service) else {
        let wrong = [
            ("namespace", namespace.is_none(), "must be a namespace"),
            ("public_key", public_key.is_none(), "must be 'ed25519:' followed by 32 bytes of base64"),
            ("service", service.is_none(), "must be the slug of a service"),
        ];
        let violations: Vec<_> = wrong
            .into_iter()
            .filter(|(_, wrong, _)| *wrong)
            .map(|(field, _, message)| Violation { field: field.into(), message: message.into() })
            .collect();
        return Err(Problem::validation(&violations));
    };
    Ok((namespace.clone(), public_key, service.clone()))
}

type Found = Option<(String, i64)>;

fn approved(db: &Connection, namespace: &str, public_key: &str, slug: &str) -> Result<Found, rusqlite::Error> {
    let own = "SELECT s.id FROM services s JOIN users u ON u.id = s.owner_user_id
               WHERE s.slug = ?1 AND u.namespace = ?2";
    let own: Option<String> = db.prepare_cached(own)?.query_row([slug, namespace], |row| row.get(0)).optional()?;
    let sql = "SELECT a.claim_id, a.approved_at_ms FROM authorizations a JOIN services s ON s.id = a.service_id
               WHERE a.namespace = ?1 AND a.public_key = ?2 AND s.slug = ?3 AND a.status = 'approved'
                 AND (?4 IS NULL OR s.id = ?4)
               ORDER BY a.approved_at_ms DESC LIMIT 1";
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    db.prepare_cached(sql)?.query_row(params![namespace, public_key, slug, own], row).optional()
}

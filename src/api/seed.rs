//! `POST /v1/test/seed`: approved claims without anybody approving them, for simulators on this very machine.
//!
//! To everybody who may not use it this path does not exist: elsewhere than in a local or test environment, without
//! a token set by the operator, from another machine, through a proxy, or under a name that merely points here.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use http::HeaderMap;
use http::Response;
use http::StatusCode;
use http::header;
use rusqlite::Connection;
use rusqlite::params;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::input;
use crate::api::input::Fields;
use crate::api::ledger;
use crate::api::ledger::Claim;
use crate::api::ledger::Status;
use crate::api::moment;
use crate::api::problem::Problem;
use crate::api::problem::json;
use crate::domain::ids::ConnectionId;
use crate::domain::ids::InvalidId;
use crate::domain::ids::Namespace;
use crate::domain::ids::PublicKey;
use crate::sys::http_server::Peer;
use crate::sys::random;
use crate::wire::control_plane::ErrorBody;

/// Header with the operator's token.
const TOKEN_HEADER: &str = "x-sigilum-test-seed-token";
/// Most entries of each list.
const MAX_ENTRIES: usize = 500;
/// Longest claim id that may be chosen.
const MAX_CLAIM_ID: usize = 64;
/// Longest address of an agent, in characters.
const MAX_AGENT_IP: usize = 128;
/// The agent's address where none is given.
const DEFAULT_AGENT_IP: &str = "127.0.0.1";
/// Owner of services that exist only because something was seeded for them. Its namespace is none anybody can have.
const SEED_USER: [&str; 3] = ["user_seed", "seed@local.sigilum", "_seed"];
/// Headers a proxy leaves: its peer is this machine, its client may be anybody.
const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(seed))
}

/// What is to be approved and what removed.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body, which is read member by member")]
struct SeedBody {
    /// At most 500.
    upserts: Option<Vec<SeedUpsert>>,
    /// At most 500.
    deletes: Option<Vec<SeedDelete>>,
}

/// A claim that is to be approved.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body, which is read member by member")]
struct SeedUpsert {
    namespace: String,
    service: String,
    public_key: String,
    /// By default `cl_sim_` and 20 hex digits.
    claim_id: Option<String>,
    /// By default 127.0.0.1.
    agent_ip: Option<String>,
}

/// A claim that is to be removed.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body, which is read member by member")]
struct SeedDelete {
    namespace: String,
    service: String,
    public_key: String,
}

/// What was done.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Seeded {
    ok: bool,
    /// Entries of the request that are approved now.
    upserts: usize,
    /// Entries of the request that are gone now.
    deletes: usize,
}

/// A claim named in a seed.
#[derive(Debug)]
struct Entry {
    namespace: String,
    service: String,
    public_key: String,
    claim_id: Option<String>,
    agent_ip: String,
}

/// Approves and removes claims of simulated agents.
#[utoipa::path(post, path = "/v1/test/seed", tag = "test", request_body = SeedBody,
    params(("x-sigilum-test-seed-token" = String, Header, description = "The operator's token")), responses(
    (status = 200, body = Seeded),
    (status = 400, description = "VALIDATION_ERROR, INVALID_JSON", body = ErrorBody),
    (status = 401, description = "UNAUTHORIZED: no token, or another", body = ErrorBody),
    (status = 404, description = "NOT_FOUND: not enabled, or not from this machine", body = ErrorBody),
    (status = 409, description = "CONFLICT: a chosen claim id is another claim's", body = ErrorBody),
))]
async fn seed(
    State(api): State<Arc<Api>>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, Problem> {
    let enabled = matches!(api.environment.as_str(), "local" | "test");
    let token = api.seed_token.as_ref().filter(|token| enabled && !token.is_empty() && is_local(peer, &headers));
    let token = token.ok_or_else(Problem::not_found)?;
    let mut presented = headers.get_all(TOKEN_HEADER).iter();
    let is_right = match (presented.next(), presented.next()) {
        (Some(value), None) => token.matches(value.as_bytes()),
        _ => false,
    };
    if !is_right {
        return Err(Problem::unauthorized("the seed token is missing or wrong"));
    }
    let object = input::object(&body)?;
    let mut fields = Fields::of(&object);
    let upserts = entries(&mut fields, &object, "upserts");
    let deletes = entries(&mut fields, &object, "deletes");
    fields.finish()?;
    let counts = Seeded { ok: true, upserts: upserts.len(), deletes: deletes.len() };
    let now_ms = moment::now_ms(api.clock);
    let work = move |db: &rusqlite::Transaction<'_>| {
        upserts.iter().try_for_each(|entry| approve(db, entry, now_ms))?;
        deletes.iter().try_for_each(|entry| remove(db, entry))
    };
    api.db.write(work).await?;
    Ok(json(StatusCode::OK, &counts))
}

/// Whether a request comes from this machine and was meant for it.
fn is_local(peer: SocketAddr, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let name = host.to_str().ok().map(|host| match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    });
    peer.ip().to_canonical().is_loopback()
        && name.is_some_and(|name| matches!(name, "localhost" | "127.0.0.1" | "::1"))
        && !FORWARDED.iter().any(|name| headers.contains_key(*name))
}

/// Reads one of the lists; every mistake of every entry is noted.
fn entries(fields: &mut Fields<'_>, object: &Map<String, Value>, list: &'static str) -> Vec<Entry> {
    let found = match object.get(list) {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Array(found)) if found.len() <= MAX_ENTRIES => found,
        Some(_) => {
            fields.refuse(list, format!("must be a list of at most {MAX_ENTRIES} entries"));
            return Vec::new();
        }
    };
    let read = found.iter().enumerate().filter_map(|(index, value)| {
        let mut refuse = |member: &str, message: String| fields.refuse(format!("{list}[{index}]{member}"), message);
        let Some(entry) = value.as_object() else {
            refuse("", "must be an object".to_owned());
            return None;
        };
        let member = |name| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut check = |name: &str, judged: Result<(), InvalidId>| {
            if let Err(error) = judged {
                refuse(&format!(".{name}"), error.to_string());
            }
        };
        check("namespace", Namespace::parse(&member("namespace")).map(drop));
        check("service", ConnectionId::parse(&member("service")).map(drop));
        check("public_key", PublicKey::parse(&member("public_key")).map(drop));
        let optional = |name| entry.get(name).filter(|value| !value.is_null());
        let claim_id = optional("claim_id").map(|value| value.as_str().unwrap_or_default());
        if claim_id.is_some_and(|id| !is_claim_id(id)) {
            refuse(".claim_id", format!("must have 1 to {MAX_CLAIM_ID} characters of a-z, A-Z, 0-9, '_' and '-'"));
        }
        let agent_ip = optional("agent_ip").map_or(Some(DEFAULT_AGENT_IP), Value::as_str);
        let fits = |ip: &&str| ip.chars().count() <= MAX_AGENT_IP && !ip.chars().any(char::is_control);
        if !agent_ip.as_ref().is_some_and(fits) {
            refuse(".agent_ip", format!("must be a text of at most {MAX_AGENT_IP} characters"));
        }
        Some(Entry {
            namespace: member("namespace"),
            service: member("service"),
            public_key: member("public_key"),
            claim_id: claim_id.map(str::to_owned),
            agent_ip: agent_ip.unwrap_or_default().to_owned(),
        })
    });
    read.collect()
}

fn is_claim_id(text: &str) -> bool {
    let clean = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    clean && (1..=MAX_CLAIM_ID).contains(&text.len())
}

/// Ids of every service of a slug, oldest first: a seed does not say whose it means.
fn services_of(db: &Connection, slug: &str) -> Result<Vec<String>, rusqlite::Error> {
    let mut statement = db.prepare_cached("SELECT id FROM services WHERE slug = ?1 ORDER BY created_at_ms, id")?;
    statement.query_map([slug], |row| row.get(0))?.collect()
}

fn approve(db: &Connection, entry: &Entry, now_ms: i64) -> Result<(), Problem> {
    let mut services = services_of(db, &entry.service)?;
    if services.is_empty() {
        services.push(make_service(db, &entry.service, now_ms)?);
    }
    let mut chosen = entry.claim_id.clone();
    for service in services {
        let known = ledger::find(db, &service, &entry.namespace, &entry.public_key)?;
        // An id is one claim's: where several services bear the slug, the first claim gets the chosen one.
        let claim_id = match (chosen.take(), &known) {
            (Some(chosen), _) => chosen,
            (None, Some(known)) => known.claim_id.clone(),
            (None, None) => format!("cl_sim_{}", random::hex::<10>()?),
        };
        let holder = ledger::by_id(db, &claim_id)?;
        if holder.is_some() && known.as_ref().map(|known| &known.claim_id) != Some(&claim_id) {
            let text = format!("the claim id {claim_id} is another claim's");
            return Err(Problem::new(StatusCode::CONFLICT, "CONFLICT", text));
        }
        let claim = Claim {
            claim_id,
            service_id: service,
            service: entry.service.clone(),
            namespace: entry.namespace.clone(),
            public_key: entry.public_key.clone(),
            status: Status::Approved,
            agent_ip: entry.agent_ip.clone(),
            subject: known.as_ref().and_then(|known| known.subject.clone()),
            agent_id: known.as_ref().and_then(|known| known.agent_id.clone()),
            agent_name: known.as_ref().and_then(|known| known.agent_name.clone()),
            created_at_ms: known.as_ref().map_or(now_ms, |known| known.created_at_ms),
            approved_at_ms: Some(now_ms),
            expires_at_ms: None,
            ended_at_ms: None,
        };
        ledger::put(db, &claim)?;
    }
    Ok(())
}

fn make_service(db: &Connection, slug: &str, now_ms: i64) -> Result<String, Problem> {
    let [user, email, namespace] = SEED_USER;
    let sql = "INSERT INTO users (id, email, namespace, plan, settings, created_at_ms, updated_at_ms)
               VALUES (?1, ?2, ?3, 'free', '{}', ?4, ?4) ON CONFLICT DO NOTHING";
    db.prepare_cached(sql)?.execute(params![user, email, namespace, now_ms])?;
    // `svc_local_<slug>` stays free for an owner who makes the service later.
    let id = format!("svc_{}", random::hex::<8>()?);
    let sql = "INSERT INTO services (id, owner_user_id, name, slug, domain, description, created_at_ms, updated_at_ms)
               VALUES (?1, ?2, ?3, ?3, 'localhost', 'made by the test seed', ?4, ?4)";
    db.prepare_cached(sql)?.execute(params![id, user, slug, now_ms])?;
    Ok(id)
}

fn remove(db: &Connection, entry: &Entry) -> Result<(), Problem> {
    let sql = "DELETE FROM authorizations WHERE namespace = ?2 AND public_key = ?3
               AND service_id IN (SELECT id FROM services WHERE slug = ?1)";
    db.prepare_cached(sql)?.execute([&entry.service, &entry.namespace, &entry.public_key])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use http::HeaderValue;

    use super::*;

    #[test]
    fn this_machine_is_the_peer_and_the_name() {
        for (peer, host, local) in [
            ("127.0.0.1:5000", "localhost:8787", true),
            ("127.0.0.1:5000", "127.0.0.1:8787", true),
            ("[::1]:5000", "[::1]:8787", true),
            ("[::1]:5000", "[::1]", true),
            ("[::ffff:127.0.0.1]:5000", "localhost", true),
            ("192.0.2.1:5000", "localhost:8787", false),
            ("127.0.0.1:5000", "evil.example:8787", false),
            ("127.0.0.1:5000", "localhost.evil.example", false),
            ("127.0.0.1:5000", "", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            assert_eq!(is_local(peer.parse().unwrap(), &headers), local, "{peer} {host}");
            headers.insert("x-forwarded-for", HeaderValue::from_static("127.0.0.1"));
            assert!(!is_local(peer.parse().unwrap(), &headers));
        }
    }
}

//! Connections: list, create, get, patch, delete, rotate. Each decodes, asks the store, encodes.

use std::sync::Arc;

use axum::body::Body;
use http::Response;
use http::StatusCode;

use crate::admin::Admin;
use crate::admin::respond::Problem;
use crate::admin::respond::empty;
use crate::admin::respond::json;
use crate::domain::audit::Asker;
use crate::domain::draft::Draft;
use crate::domain::ids::ConnectionId;
use crate::domain::probe::LastTest;
use crate::domain::record::ConnectionRecord;
use crate::domain::record::Secrets;
use crate::domain::redact::SHORTEST;
use crate::domain::relay;
use crate::domain::sealing::Destination;
use crate::store::StoreError;
use crate::store::vault::Change;
use crate::store::vault::Listed;
use crate::store::vault::RotationRequest;
use crate::store::vault::Vault;
use crate::sys::clock::Clock as _;
use crate::wire::admin::ConnectionBody;
use crate::wire::admin::ConnectionListBody;
use crate::wire::admin::CreateBody;
use crate::wire::admin::InvalidBody;
use crate::wire::admin::RotateBody;
use crate::wire::admin::decode;
use crate::wire::patch::PatchBody;

type Answer = Result<Response<Body>, Problem>;

/// `GET /api/admin/connections`.
pub async fn list(admin: &Admin) -> Answer {
    let (listed, mut tests) = admin.store.read(|vault| Ok((vault.list()?, vault.last_tests()?))).await?;
    let encode = |listed: Listed| {
        let last = tests.remove(listed.record.settings.id.as_str());
        body_of(listed).tested(last)
    };
    let connections = listed.into_iter().map(encode).collect();
    json(StatusCode::OK, &ConnectionListBody { connections })
}

/// `POST /api/admin/connections`.
pub async fn create(admin: &Admin, asker: Asker, body: &[u8]) -> Answer {
    let (draft, given) = decode::<CreateBody>(body)?.into_draft().ok_or_else(invalid_status)?;
    // As it was written: that is what a page sealed for.
    let destination = Destination::of_draft(&draft);
    let checked = draft.check(&admin.addresses.load()).map_err(StoreError::Invalid)?;
    if asker.relay().is_some() {
        relay::check_new(&checked)?;
    }
    let (now, mut asker) = (admin.clock.now().wall, asker);
    let create = move |vault: &mut Vault| {
        let secrets = vault.reveal_all(given, checked.settings.id.as_str(), destination.as_deref(), &mut asker)?;
        warn_of_short(checked.settings.id.as_str(), &secrets);
        vault.create_connection(checked, secrets, &asker, now)
    };
    let (listed, _) = admin.store.change(move |vault| described(vault, create)).await?;
    json(StatusCode::CREATED, &body_of(listed))
}

/// `GET /api/admin/connections/{id}`.
pub async fn get(admin: &Admin, id: ConnectionId) -> Answer {
    let (listed, last) =
        admin.store.read(move |vault| Ok((vault.get(id.as_str())?, vault.last_test(id.as_str())?))).await?;
    json(StatusCode::OK, &body_of(listed).tested(last))
}

/// `PATCH /api/admin/connections/{id}`.
pub async fn patch(admin: &Admin, asker: Asker, id: ConnectionId, body: &[u8]) -> Answer {
    let patch = decode::<PatchBody>(body)?;
    if !patch.has_valid_status() {
        return Err(invalid_status());
    }
    let now = admin.clock.now().wall;
    let addresses = admin.addresses.load_full();
    let relayed = asker.relay().is_some();
    let edit = move |record: &ConnectionRecord| {
        let checked = patch.apply(Draft::from_record(record)).check(&addresses).map_err(StoreError::Invalid)?;
        if relayed {
            relay::check_change(record, &checked)?;
        }
        Ok::<_, StoreError>(checked)
    };
    let (listed, last) = admin
        .store
        .change(move |vault| described(vault, |vault| vault.update_connection(id.as_str(), &asker, now, edit)))
        .await?;
    json(StatusCode::OK, &body_of(listed).tested(last))
}

/// `DELETE /api/admin/connections/{id}`.
pub async fn delete(admin: &Admin, asker: Asker, id: ConnectionId) -> Answer {
    let now = admin.clock.now().wall;
    admin.store.change(move |vault| Ok(((), vault.delete_connection(&id, &asker, now)?))).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `POST /api/admin/connections/{id}/rotate`.
pub async fn rotate(admin: &Admin, asker: Asker, id: ConnectionId, body: &[u8]) -> Answer {
    let (given, by, reason) = decode::<RotateBody>(body)?.into_parts();
    let (now, mut asker) = (admin.clock.now().wall, asker);
    let rotate = move |vault: &mut Vault| {
        // In one turn of the store, so that the connection leads nowhere else meanwhile.
        let destination = Destination::of_record(&vault.get(id.as_str())?.record);
        let secrets = vault.reveal_all(given, id.as_str(), destination.as_deref(), &mut asker)?;
        warn_of_short(id.as_str(), &secrets);
        vault.rotate(id.as_str(), RotationRequest { secrets, by, reason }, &asker, now)
    };
    let (listed, last) = admin.store.change(move |vault| described(vault, rotate)).await?;
    json(StatusCode::OK, &body_of(listed).tested(last))
}

/// Says which secrets are too short to be taken out of what providers answer.
fn warn_of_short(connection: &str, secrets: &Secrets) {
    for (name, _) in secrets.iter().filter(|(_, secret)| secret.expose().trim().len() < SHORTEST) {
        tracing::warn!(connection, name, "a secret is too short to be kept out of errors and logs that quote it");
    }
}

/// A change, with its record as the list shows it, and its last test.
fn described(
    vault: &mut Vault,
    change: impl FnOnce(&mut Vault) -> Result<(ConnectionRecord, Change), StoreError>,
) -> Result<((Listed, Option<LastTest>), Change), StoreError> {
    let (record, change) = change(vault)?;
    let last = vault.last_test(record.settings.id.as_str()).unwrap_or_default();
    Ok(((vault.describe(record), last), change))
}

fn body_of(listed: Listed) -> ConnectionBody {
    let Listed { record, declared, problem, last_used_at } = listed;
    ConnectionBody::encode(Arc::unwrap_or_clone(record)).standing(declared.is_some(), problem, last_used_at)
}

fn invalid_status() -> Problem {
    Problem::invalid("status: must be active or disabled")
}

impl From<InvalidBody> for Problem {
    fn from(invalid: InvalidBody) -> Self {
        Self::invalid(invalid.to_string())
    }
}

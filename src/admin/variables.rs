//! Credential variables: list, set, delete.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::Query;
use axum::extract::Request;
use axum::extract::State;
use http::Response;
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::admin::input::Asked;
use crate::admin::input::Id;
use crate::admin::input::Name;
use crate::admin::input::Shared;
use crate::admin::input::Who;
use crate::admin::input::finish;
use crate::admin::input::json_body;
use crate::admin::respond::Problem;
use crate::admin::respond::json;
use crate::admin::router::SUBJECT_HEADER;
use crate::domain::sealing::Purpose;
use crate::domain::sealing::Target;
use crate::store::StoreError;
use crate::store::variables::ListedVariable;
use crate::store::vault::Vault;
use crate::sys::clock::Clock as _;
use crate::wire::admin::decode;
use crate::wire::envelope::ErrorBody;
use crate::wire::variables::VariableBody;
use crate::wire::variables::VariableDeleteQuery;
use crate::wire::variables::VariableDeletedBody;
use crate::wire::variables::VariableListBody;
use crate::wire::variables::VariableSetBody;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new().routes(routes!(list, set)).routes(routes!(delete))
}

/// Every credential variable, by key.
#[utoipa::path(get, path = "/api/admin/credential-variables", operation_id = "listVariables", tag = "variables",
    responses(
    (status = 200, description = "Sorted by key", body = VariableListBody),
))]
async fn list(State(admin): Shared, Extension(id): Id) -> Response<Body> {
    let work = async {
        let listed = admin.store.read(|vault| vault.list_variables()).await?;
        json(StatusCode::OK, &VariableListBody { variables: listed.into_iter().map(encode).collect() })
    };
    finish(&id, work.await)
}

/// A new variable, or another value for one. Every connection that injects it changes with it, all in one step.
#[utoipa::path(post, path = "/api/admin/credential-variables", operation_id = "setVariable", tag = "variables",
    request_body = VariableSetBody, responses(
    (status = 200, description = "Set, and its connections published to authz", body = VariableBody),
    (status = 400, description = "The sentence names the member and what is wrong with it; `VARIABLE_CYCLE`: the value \
        refers to a variable itself; `SEALED_SECRET_INVALID`: a sealed value does not open", body = ErrorBody),
    (status = 409, description = "`VARIABLE_DECLARED`: the configuration file declares it; or there are as many as one \
        gateway holds", body = ErrorBody),
))]
async fn set(State(admin): Shared, Extension(id): Id, Extension(asker): Who, request: Request) -> Response<Body> {
    let work = async {
        let subject = request.headers().get(SUBJECT_HEADER).and_then(|value| value.to_str().ok());
        let subject = subject.map(|subject| subject.trim().to_owned()).filter(|subject| !subject.is_empty());
        let mut body = decode::<VariableSetBody>(&json_body(request).await?)?;
        let given = body.take_value();
        let key = body.key.unwrap_or_default().trim().to_owned();
        let created_by = subject.or(body.created_by_subject).unwrap_or_default();
        let (mut asker, now) = (asker.named(&created_by), admin.clock.now().wall);
        let set = move |vault: &mut Vault| {
            let target = Target { purpose: Purpose::Variable, id: &key, field: "value", destination: "" };
            let value = vault.reveal(given, &target, &mut asker)?;
            vault.set_variable(&key, &value, &created_by, &asker, now)
        };
        let listed = admin.store.change(set).await?;
        json(StatusCode::OK, &encode(listed))
    };
    finish(&id, work.await)
}

/// Removes a variable that no connection refers to.
#[utoipa::path(delete, path = "/api/admin/credential-variables/{id}", operation_id = "deleteVariable",
    tag = "variables", params(("id" = String, Path, description = "Key of the variable"), VariableDeleteQuery),
    responses(
    (status = 200, description = "Gone", body = VariableDeletedBody),
    (status = 400, description = "`force` is neither true nor false", body = ErrorBody),
    (status = 404, description = "No variable of that key", body = ErrorBody),
    (status = 409, description = "`VARIABLE_IN_USE`: connections refer to it, `used_by` says how many and `connections` \
        which; `VARIABLE_DECLARED`: the configuration file declares it", body = ErrorBody),
))]
async fn delete(
    State(admin): Shared,
    Extension(id): Id,
    Extension(asker): Who,
    name: Name,
    query: Asked<VariableDeleteQuery>,
) -> Response<Body> {
    let work = async {
        let Query(query) = query.map_err(|_| Problem::invalid("the query cannot be read"))?;
        let force = match query.force.as_deref().unwrap_or_default() {
            "" | "false" | "0" => false,
            "true" | "1" => true,
            _ => return Err(Problem::invalid("force: must be true or false")),
        };
        let key = name.0.ok_or_else(|| Problem::from(StoreError::VariableNotFound))?;
        let now = admin.clock.now().wall;
        let gone = key.clone();
        let unusable = admin.store.change(move |vault| vault.delete_variable(&gone, force, &asker, now)).await?;
        json(StatusCode::OK, &VariableDeletedBody { deleted: true, key, unusable })
    };
    finish(&id, work.await)
}

fn encode(listed: ListedVariable) -> VariableBody {
    let ListedVariable { record, used_by, declared, shadows, problem } = listed;
    VariableBody {
        key: record.key,
        created_at: record.created_at.rfc3339(),
        updated_at: record.updated_at.rfc3339(),
        created_by_subject: record.created_by,
        used_by,
        declared: declared.is_some(),
        shadows_stored: shadows,
        error: problem,
    }
}

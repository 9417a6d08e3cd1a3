//! Who changed what: the audit as the store has it, newest first.
//!
//! Refused access is no change and not in it: whoever reaches the port could otherwise fill the table and drive out
//! what it is there for. The log has a line for each, bounded by the budget of failed tokens.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::Query;
use axum::extract::State;
use http::Response;
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::admin::input::Asked;
use crate::admin::input::Id;
use crate::admin::input::Shared;
use crate::admin::input::finish;
use crate::admin::respond::Problem;
use crate::admin::respond::json;
use crate::domain::audit::Action;
use crate::domain::audit::Filter;
use crate::store::audit::MAX_PAGE;
use crate::wire::audit::AuditBody;
use crate::wire::audit::AuditEntryBody;
use crate::wire::audit::AuditQuery;
use crate::wire::envelope::ErrorBody;

/// Entries where nothing is said about it.
const DEFAULT_PAGE: usize = 100;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new().routes(routes!(show))
}

/// Who changed what, newest first.
#[utoipa::path(get, path = "/api/admin/audit", operation_id = "listAudit", tag = "audit", params(AuditQuery), responses(
    (status = 200, description = "Entries, and where the next ones begin", body = AuditBody),
    (status = 400, description = "The sentence names the parameter and what is wrong with it", body = ErrorBody),
))]
async fn show(State(admin): Shared, Extension(id): Id, query: Asked<AuditQuery>) -> Response<Body> {
    let work = async {
        let Query(query) = query.map_err(|_| Problem::invalid("the query cannot be read"))?;
        list(&admin, query).await
    };
    finish(&id, work.await)
}

async fn list(admin: &Admin, query: AuditQuery) -> Result<Response<Body>, Problem> {
    let (filter, limit) = parse(query)?;
    // One more than asked for says whether there is more.
    let mut entries = admin.store.read(move |vault| vault.audit(&filter, limit.saturating_add(1))).await?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next_before = entries.last().filter(|_| more).map(|entry| entry.id);
    json(StatusCode::OK, &AuditBody { entries: entries.into_iter().map(AuditEntryBody::encode).collect(), next_before })
}

fn parse(query: AuditQuery) -> Result<(Filter, usize), Problem> {
    let limit = match query.limit {
        None => DEFAULT_PAGE,
        Some(given) => {
            let given = given.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit));
            given.ok_or_else(|| Problem::invalid(format!("limit: must be 1 to {MAX_PAGE}")))?
        }
    };
    let before = query.before.map(|given| given.parse()).transpose();
    let before = before.map_err(|_| Problem::invalid("before: must be the id of an entry"))?;
    let action = query
        .action
        .map(|given| Action::parse(&given).ok_or_else(|| Problem::invalid("action: there is none of this name")));
    Ok((Filter { before, connection: query.connection, action: action.transpose()? }, limit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_query_is_within_bounds_or_refused(
            limit in prop::option::of("\\PC{0,12}|[0-9]{1,6}"),
            before in prop::option::of("\\PC{0,12}|[0-9]{1,22}"),
            action in prop::option::of("\\PC{0,12}|connection.rotate"),
        ) {
            if let Ok((filter, limit)) = parse(AuditQuery { limit, before, connection: None, action: action.clone() }) {
                prop_assert!((1..=MAX_PAGE).contains(&limit));
                prop_assert_eq!(filter.action.map(|found| found.name().to_owned()), action);
            }
        }
    }
}

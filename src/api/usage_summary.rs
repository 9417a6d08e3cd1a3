//! What the agents of a namespace did, summed up for its owner by subject, service, agent and key.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Path;
use axum::extract::State;
use http::Response;
use http::StatusCode;
use rusqlite::Connection;
use rusqlite::Row;
use rusqlite::named_params;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::input::Page;
use crate::api::input::Query;
use crate::api::moment::iso;
use crate::api::namespace_claims::own_namespace;
use crate::api::owner::SignedIn;
use crate::api::problem::Problem;
use crate::api::problem::Violation;
use crate::api::problem::json;
use crate::api::text;
use crate::domain::ids::Namespace;
use crate::wire::control_plane::ErrorBody;
use crate::wire::control_plane::Pagination;

/// The orders a client may ask for; the first is the default.
const SORTS: [&str; 3] = ["recent", "calls_desc", "subject_asc"];

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(show))
}

/// Calls of one key for one subject at one service.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct UsageRow {
    /// Whom the agent acted for.
    pub subject: String,
    /// Slug of the service.
    pub provider: String,
    /// Which agent of the namespace.
    pub agent_id: Option<String>,
    /// Its key.
    pub public_key: String,
    /// All calls.
    pub total_calls: i64,
    /// Those the provider answered with success.
    pub success_calls: i64,
    /// The others.
    pub error_calls: i64,
    /// When the last one was.
    pub last_used_at: String,
}

/// All rows together, not only those of this page.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
pub struct UsageTotals {
    /// All calls.
    pub total_events: i64,
    /// Those the provider answered with success.
    pub successful_events: i64,
    /// The others.
    pub failed_events: i64,
    /// Subjects.
    pub unique_subjects: i64,
    /// Services.
    pub unique_providers: i64,
    /// Agents by their id, those without one by their key.
    pub unique_agents: i64,
}

/// What was asked for, as it was understood.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct UsageFilters {
    /// Only of this subject.
    pub subject: Option<String>,
    /// Only at this service.
    pub provider: Option<String>,
    /// Only of this agent.
    pub agent: Option<String>,
    /// From this moment on.
    pub from: Option<String>,
    /// Until this moment.
    pub to: Option<String>,
    /// In which order.
    pub sort: &'static str,
}

/// Usage of a namespace.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct UsageSummary {
    /// Those of this page.
    pub rows: Vec<UsageRow>,
    /// Of all rows.
    pub summary: UsageTotals,
    /// How this page lies in the whole.
    pub pagination: Pagination,
    /// What was asked for.
    pub applied_filters: UsageFilters,
}

struct Wanted {
    namespace: String,
    filters: UsageFilters,
    from_ms: i64,
    to_ms: i64,
    page: Page,
}

impl Wanted {
    fn read(namespace: &str, query: &Query) -> Result<Self, Problem> {
        let page = query.page(50, 200)?;
        let mut violations = Vec::new();
        let mut refuse = |field: &'static str, message: String| {
            violations.push(Violation { field: field.into(), message: message.into() });
        };
        let sort = text::choice(query, "sort", &SORTS).unwrap_or_else(|message| {
            refuse("sort", message);
            None
        });
        let mut moment = |name: &'static str| {
            let text = query.find(name)?;
            let at = text::instant(text);
            if at.is_none() {
                refuse(name, "must be a time as in 2026-01-31T12:00:00Z, or a date as in 2026-01-31".to_owned());
            }
            at
        };
        let (from, to) = (moment("from"), moment("to"));
        if from.zip(to).is_some_and(|(from, to)| from > to) {
            refuse("to", "must not be before from".to_owned());
        }
        if !violations.is_empty() {
            return Err(Problem::validation(&violations));
        }
        let find = |name| query.find(name).map(str::to_owned);
        let filters = UsageFilters {
            subject: find("subject"),
            provider: find("provider"),
            agent: find("agent"),
            from: from.map(iso),
            to: to.map(iso),
            sort: sort.unwrap_or("recent"),
        };
        let (from_ms, to_ms) = (from.unwrap_or(0), to.unwrap_or(i64::MAX));
        Ok(Self { namespace: namespace.to_owned(), filters, from_ms, to_ms, page })
    }

    /// One statement, so that sums and rows are of one moment and events are read once. The index has every column
    /// that is asked for, in the order they are grouped in: no event's own row is read.
    fn sql(&self) -> String {
        let order = match self.filters.sort {
            "calls_desc" => "calls DESC, last DESC",
            "subject_asc" => "subject, last DESC",
            _ => "last DESC",
        };
        // A filter that is not asked for is not in the statement: the planner can then use one that is.
        let filters = [
            (self.filters.subject.is_some(), "AND subject = :subject", "AND :subject IS NULL"),
            (self.filters.provider.is_some(), "AND service = :provider", "AND :provider IS NULL"),
            (self.filters.agent.is_some(), "AND :agent IN (agent_id, public_key)", "AND :agent IS NULL"),
        ];
        let filters: Vec<_> = filters.iter().map(|(on, wanted, none)| if *on { *wanted } else { *none }).collect();
        format!(
            "WITH grouped AS MATERIALIZED (
                 SELECT subject, service, agent_id, public_key, count(*) AS calls,
                        sum(outcome = 'success') AS successes, max(created_at_ms) AS last
                 FROM usage_events
                 WHERE namespace = :namespace AND created_at_ms BETWEEN :from AND :to {}
                 GROUP BY subject, service, agent_id, public_key),
             totals AS (
                 SELECT count(*), coalesce(sum(calls), 0), coalesce(sum(successes), 0), count(DISTINCT subject),
                        count(DISTINCT service), count(DISTINCT coalesce(agent_id, public_key))
                 FROM grouped)
             SELECT totals.*, page.* FROM totals LEFT JOIN (
                 SELECT * FROM grouped ORDER BY {order}, subject, service, agent_id, public_key
                 LIMIT :limit OFFSET :offset) AS page",
            filters.join(" ")
        )
    }

    fn run(self, db: &Connection) -> Result<UsageSummary, Problem> {
        let mut statement = db.prepare_cached(&self.sql())?;
        let mut found = statement.query(named_params! {
            ":namespace": self.namespace, ":from": self.from_ms, ":to": self.to_ms,
            ":subject": self.filters.subject, ":provider": self.filters.provider, ":agent": self.filters.agent,
            ":limit": self.page.sql_limit(), ":offset": self.page.sql_offset(),
        })?;
        let (mut rows, mut groups, mut summary) = (Vec::new(), 0, UsageTotals::default());
        while let Some(row) = found.next()? {
            groups = row.get(0)?;
            summary = totals(row)?;
            // Without rows on this page the sums come alone.
            if let Some(subject) = row.get(6)? {
                rows.push(usage_row(row, subject)?);
            }
        }
        let pagination = self.page.position(rows.len(), groups);
        Ok(UsageSummary { rows, summary, pagination, applied_filters: self.filters })
    }
}

fn totals(row: &Row<'_>) -> Result<UsageTotals, rusqlite::Error> {
    let (total_events, successful_events): (i64, i64) = (row.get(1)?, row.get(2)?);
    Ok(UsageTotals {
        total_events,
        successful_events,
        failed_events: total_events.saturating_sub(successful_events),
        unique_subjects: row.get(3)?,
        unique_providers: row.get(4)?,
        unique_agents: row.get(5)?,
    })
}

fn usage_row(row: &Row<'_>, subject: String) -> Result<UsageRow, rusqlite::Error> {
    let (total_calls, success_calls): (i64, i64) = (row.get(10)?, row.get(11)?);
    Ok(UsageRow {
        subject,
        provider: row.get(7)?,
        agent_id: row.get(8)?,
        public_key: row.get(9)?,
        total_calls,
        success_calls,
        error_calls: total_calls.saturating_sub(success_calls),
        last_used_at: iso(row.get(12)?),
    })
}

/// What the agents of the owner's namespace did.
#[utoipa::path(get, path = "/v1/namespaces/{namespace}/usage", tag = "usage", security(("owner" = [])), params(
    ("namespace" = String, Path, description = "The owner's namespace"),
    ("subject" = Option<String>, Query, description = "Only of this subject"),
    ("provider" = Option<String>, Query, description = "Only at this service, by its slug"),
    ("agent" = Option<String>, Query, description = "Only of this agent, by its id or its key"),
    ("from" = Option<String>, Query, description = "RFC 3339 or a date; this moment is in"),
    ("to" = Option<String>, Query, description = "RFC 3339 or a date; this moment is in"),
    ("sort" = Option<String>, Query, description = "recent, calls_desc or subject_asc"),
    ("limit" = Option<u64>, Query, description = "1 to 200, default 50"),
    ("offset" = Option<u64>, Query, description = "Rows to pass over"),
), responses(
    (status = 200, body = UsageSummary),
    (status = 400, description = "VALIDATION_ERROR", body = ErrorBody),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
    (status = 403, description = "FORBIDDEN: another owner's namespace", body = ErrorBody),
))]
async fn show(
    State(api): State<Arc<Api>>,
    owner: SignedIn,
    Path(namespace): Path<String>,
    query: Query,
) -> Result<Response<Body>, Problem> {
    let namespace = own_namespace(&owner, &namespace)?;
    Ok(json(StatusCode::OK, &summary(&api, &namespace, &query).await?))
}

/// The usage of a namespace, as a query asks for it.
pub async fn summary(api: &Api, namespace: &Namespace, query: &Query) -> Result<UsageSummary, Problem> {
    let wanted = Wanted::read(namespace.as_str(), query)?;
    api.db.survey(move |db| wanted.run(db)).await
}

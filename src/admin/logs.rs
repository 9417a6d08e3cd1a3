//! The logs of this gateway, page by page: cleaned when they were written, and read by whoever has the token.

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
use crate::domain::log_line::LogFilter;
use crate::domain::log_line::LogStream;
use crate::domain::log_line::MAX_IDS;
use crate::telemetry::log_reader;
use crate::telemetry::log_reader::MAX_BYTES;
use crate::telemetry::log_reader::MAX_LINES;
use crate::telemetry::log_reader::PageSize;
use crate::telemetry::log_reader::Start;
use crate::telemetry::segments::Position;
use crate::wire::envelope::ErrorBody;
use crate::wire::logs::LogsBody;
use crate::wire::logs::LogsQuery;

/// Lines where nothing is said about it.
const DEFAULT_LINES: usize = 200;
/// Bytes where nothing is said about it.
const DEFAULT_BYTES: usize = 250_000;
/// What stands for the oldest line in place of a cursor.
const OLDEST: &str = "oldest";

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new().routes(routes!(show))
}

/// Lines of one log: the last ones, or those behind a place that was reached before.
#[utoipa::path(get, path = "/api/v1/logs", operation_id = "listLogs", tag = "logs", params(LogsQuery), responses(
    (status = 200, description = "Lines, and where the next ones begin", body = LogsBody),
    (status = 400, description = "The sentence names the parameter and what is wrong with it", body = ErrorBody),
))]
async fn show(State(admin): Shared, Extension(id): Id, query: Asked<LogsQuery>) -> Response<Body> {
    let work = async {
        let Query(query) = query.map_err(|_| Problem::invalid("the query cannot be read"))?;
        let asked = parse(&query)?;
        let places = admin.logs.clone();
        let read = tokio::task::spawn_blocking(move || {
            let page = log_reader::read(&places, asked.stream, &asked.start, asked.size, &asked.filter);
            page.map(|page| (page, places.file(asked.stream)))
        });
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(request_id = %id.0, %error, "a log could not be read");
            Problem::internal()
        };
        let (page, file) = read.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        json(
            StatusCode::OK,
            &LogsBody {
                file: file.display().to_string(),
                cursor: page.next.encode(),
                size: page.size,
                lines: page.lines,
                truncated: page.truncated,
                reset: page.reset,
                more: page.more,
            },
        )
    };
    finish(&id, work.await)
}

/// What was asked for.
#[derive(Debug)]
struct Wanted {
    stream: LogStream,
    start: Start,
    size: PageSize,
    filter: LogFilter,
}

fn parse(query: &LogsQuery) -> Result<Wanted, Problem> {
    let stream = match &query.stream {
        None => LogStream::Admin,
        Some(name) => LogStream::parse(name).ok_or_else(|| {
            let names: Vec<_> = LogStream::ALL.iter().map(|stream| stream.name()).collect();
            Problem::invalid(format!("stream: must be one of {}", names.join(", ")))
        })?,
    };
    let start = match query.cursor.as_deref() {
        None => Start::Newest,
        Some(OLDEST) => Start::Oldest,
        Some(cursor) => Position::parse(cursor)
            .map(Start::After)
            .ok_or_else(|| Problem::invalid(format!("cursor: must be that of another answer, or {OLDEST}")))?,
    };
    let lines = number("limit", query.limit.as_deref(), DEFAULT_LINES, MAX_LINES)?;
    let bytes = number("max_bytes", query.max_bytes.as_deref(), DEFAULT_BYTES, MAX_BYTES)?;
    let ids: Vec<_> = query.request_id.iter().flat_map(|ids| ids.split(',')).map(str::to_owned).collect();
    if ids.len() > MAX_IDS || ids.iter().any(String::is_empty) {
        return Err(Problem::invalid(format!("request_id: must be 1 to {MAX_IDS} ids with commas between them")));
    }
    let filter = LogFilter { ids, connection: query.connection.clone(), since: None };
    Ok(Wanted { stream, start, size: PageSize { lines, bytes }, filter })
}

fn number(name: &str, given: Option<&str>, otherwise: usize, most: usize) -> Result<usize, Problem> {
    let Some(given) = given else { return Ok(otherwise) };
    let number = given.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| Problem::invalid(format!("{name}: must be 1 to {most}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_query_is_within_bounds_or_refused(
            stream in prop::option::of("\\PC{0,12}|admin|access"),
            cursor in prop::option::of("\\PC{0,40}|oldest|[0-9a-f]{1,4}-[0-9a-f]{1,4}-[0-9]{1,3}-[0-9]{1,3}-"),
            limit in prop::option::of("\\PC{0,12}|[0-9]{1,6}"),
            max_bytes in prop::option::of("\\PC{0,12}|[0-9]{1,8}"),
            request_id in prop::option::of("\\PC{0,12}|[a-f,]{1,30}"),
        ) {
            let query = LogsQuery { stream, cursor, limit, max_bytes, request_id, connection: None };
            if let Ok(wanted) = parse(&query) {
                prop_assert!((1..=MAX_LINES).contains(&wanted.size.lines));
                prop_assert!((1..=MAX_BYTES).contains(&wanted.size.bytes));
                prop_assert!(wanted.filter.ids.len() <= MAX_IDS);
            }
        }
    }
}

//! `GET /v1/namespaces/claims/changes`: what happens to a service's approved claims, as it happens, as server-sent
//! events (WHATWG HTML, section 9.2).
//!
//! A reader begins where a page of the feed stood and is told every change since, in the order of the commits, each
//! with the cursor it leads to. The stream ends when its key is revoked, when the history no longer reaches back to
//! where the reader is, and with the process. Where its service is removed it first says what has ended with it. A
//! reader that does not read is cut off by the server's sockets.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use futures_util::stream;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;
use rusqlite::Connection;
use rusqlite::params;
use tokio::sync::watch;
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::feed;
use crate::api::input::Query;
use crate::api::limits::StreamRoom;
use crate::api::migrate::KEPT_CHANGES;
use crate::api::moment;
use crate::api::problem::Problem;
use crate::api::service_key;
use crate::api::service_key::Keyed;
use crate::api::service_key::KeyedService;
use crate::api::signed::Signed;
use crate::sys::tasks::Stop;
use crate::wire::control_plane::ErrorBody;
use crate::wire::control_plane::FeedClaim;
use crate::wire::control_plane::change_event;

/// How often a reader is told that nothing else has happened.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Changes that are read and sent at a time.
const AT_ONCE: usize = 500;
/// Seconds after which a reader that found no room may try again.
const RETRY_SECONDS: u32 = 10;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(changes))
}

/// Changes of a service's approved claims, as they happen
#[utoipa::path(
    get,
    path = "/v1/namespaces/claims/changes",
    tag = "claims",
    params(
        ("service" = String, Query, description = "Slug of the key's service"),
        ("after" = String, Query, description = "`sigilum-claims-cursor` of the feed, or `id` of the last event"),
    ),
    responses(
        (status = 200, description = "Events `approved`, `ended` and `alive`", body = String, content_type = "text/event-stream"),
        (status = 400, description = "VALIDATION_ERROR", body = ErrorBody),
        (status = 401, description = "SIGNATURE_*, UNAUTHORIZED", body = ErrorBody),
        (status = 403, description = "FORBIDDEN: the key is of another service", body = ErrorBody),
        (status = 410, description = "CURSOR_GONE: read the feed again", body = ErrorBody),
        (status = 429, description = "RATE_LIMITED: too many streams", body = ErrorBody),
    )
)]
async fn changes(
    State(api): State<Arc<Api>>,
    _: Signed,
    Keyed(service): Keyed,
    query: Query,
) -> Result<Response<Body>, Problem> {
    feed::check_service(&query, &service)?;
    let after = cursor(query.find("after"), api.db.epoch())?;
    let room = api
        .streams
        .open(&service.owner_user_id, &service.service_id)
        .ok_or_else(|| Problem::rate_limited(RETRY_SECONDS))?;
    // Watched before the first look: no change falls between.
    let news = api.db.changes();
    let mut reader = Reader {
        stop: api.stop.clone(),
        last: after,
        news,
        waiting: VecDeque::new(),
        behind: false,
        over: false,
        next_beat: Instant::now(),
        service,
        api,
        _room: room,
    };
    if !reader.fetch().await? {
        let text = "the history does not reach back to this cursor; read the feed again";
        return Err(Problem::new(StatusCode::GONE, "CURSOR_GONE", text));
    }
    let events = stream::unfold(reader, |mut reader| async move {
        let piece = reader.next().await?;
        Some((Ok::<_, Infallible>(piece), reader))
    });
    let mut response = Response::new(Body::from_stream(events));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

/// The number of a cursor of this database.
fn cursor(given: Option<&str>, epoch: &str) -> Result<i64, Problem> {
    let invalid = || Problem::invalid("after", "must be a cursor: <epoch>.<number>");
    let (of, number) = given.and_then(|given| given.split_once('.')).ok_or_else(invalid)?;
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse().ok().filter(|_| digits).ok_or_else(invalid)?;
    if of == epoch {
        Ok(number)
    } else {
        let text = "this cursor is of another database; read the feed again";
        Err(Problem::new(StatusCode::GONE, "CURSOR_GONE", text))
    }
}

/// One reader of the stream.
struct Reader {
    api: Arc<Api>,
    service: KeyedService,
    news: watch::Receiver<i64>,
    stop: Stop,
    /// Number of the last change that was read for this reader.
    last: i64,
    /// Events that were read and not yet sent, at most [`AT_ONCE`].
    waiting: VecDeque<Bytes>,
    /// Whether there is more to read.
    behind: bool,
    /// Whether nothing follows what was read.
    over: bool,
    next_beat: Instant,
    /// Held as long as the reader is here.
    _room: StreamRoom,
}

impl Reader {
    /// What to send next; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.stop.is_called() {
                return None;
            }
            if let Some(piece) = self.waiting.pop_front() {
                return Some(piece);
            }
            if self.over {
                return None;
            }
            let beat = Instant::now() >= self.next_beat;
            if beat || self.behind {
                // Before a beat too, so that its sentence "nothing else has happened" is true.
                self.look().await?;
                if beat && !self.behind {
                    self.next_beat = Instant::now().checked_add(HEARTBEAT)?;
                    self.waiting.push_back(Bytes::from(self.beat()));
                }
                continue;
            }
            tokio::select! {
                () = self.stop.wait() => return None,
                () = tokio::time::sleep_until(self.next_beat) => {}
                changed = self.news.changed() => {
                    changed.ok()?;
                    self.behind = true;
                }
            }
        }
    }

    /// Reads what is new; `None` where the stream is over.
    async fn look(&mut self) -> Option<()> {
        match self.fetch().await {
            Ok(true) => Some(()),
            Ok(false) => None,
            Err(problem) => {
                tracing::warn!(code = problem.code(), "a change stream ends: the database cannot be read");
                None
            }
        }
    }

    /// Reads changes since the last one read. `false` where the key is gone, or the history no longer reaches back.
    async fn fetch(&mut self) -> Result<bool, Problem> {
        self.news.mark_unchanged();
        let (service, after, epoch) = (self.service.clone(), self.last, self.api.db.epoch().to_owned());
        let read = self.api.db.read(move |db| Ok(read(db, &service, after, &epoch)?)).await?;
        let Some(News { last, events, removed }) = read else { return Ok(false) };
        self.behind = events.len() >= AT_ONCE;
        self.over = removed && !self.behind;
        self.last = last;
        self.waiting.extend(events);
        Ok(true)
    }

    fn beat(&self) -> String {
        format!("event: {}\nid: {}.{}\ndata:\n\n", change_event::ALIVE, self.api.db.epoch(), self.last)
    }
}

/// What a look at the history found.
struct News {
    /// Number of the last change that was read.
    last: i64,
    events: Vec<Bytes>,
    /// Whether the service is no more: these are the last.
    removed: bool,
}

/// The changes of a service after a number; `None` where the reader may not have them, or would miss some.
fn read(db: &Connection, service: &KeyedService, after: i64, epoch: &str) -> Result<Option<News>, rusqlite::Error> {
    let latest = "SELECT COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'claim_changes'), 0)";
    let latest: i64 = db.prepare_cached(latest)?.query_row([], |row| row.get(0))?;
    let kept = after >= latest.saturating_sub(KEPT_CHANGES);
    let newest = feed::last_change(db, &service.service_id)?;
    let allowed = match newest {
        // Whoever has the newest change of this service has missed none, however old it is.
        Some(newest) => after <= newest && (kept || after == newest) && service_key::is_active(db, &service.key_id)?,
        // The key went with its service. That its claims have ended is still told: they would be held until they are
        // too old.
        None => after <= latest && kept,
    };
    if !allowed {
        return Ok(None);
    }
    let removed = newest.is_none();
    let sql = "SELECT number, approved, claim_id, namespace, public_key, subject, agent_id, agent_name,
                      approved_at_ms, expires_at_ms
               FROM claim_changes WHERE service_id = ?1 AND number > ?2 AND (NOT ?4 OR approved = 0)
               ORDER BY number LIMIT ?3";
    let mut statement = db.prepare_cached(sql)?;
    let most = i64::try_from(AT_ONCE).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![service.service_id, after, most, removed])?;
    let (mut last, mut events) = (after, Vec::new());
    while let Some(row) = rows.next()? {
        last = row.get(0)?;
        let event = if row.get(1)? { change_event::APPROVED } else { change_event::ENDED };
        let claim = FeedClaim {
            claim_id: row.get(2)?,
            namespace: row.get(3)?,
            public_key: row.get(4)?,
            service: service.slug.clone(),
            subject: row.get(5)?,
            agent_id: row.get(6)?,
            agent_name: row.get(7)?,
            approved_at: row.get::<_, Option<i64>>(8)?.map(moment::iso),
            expires_at: row.get::<_, Option<i64>>(9)?.map(moment::iso),
        };
        // Texts only: writing them as JSON cannot fail, and JSON has no line breaks.
        let data = serde_json::to_string(&claim).unwrap_or_default();
        events.push(Bytes::from(format!("event: {event}\nid: {epoch}.{last}\ndata: {data}\n\n")));
    }
    Ok(Some(News { last, events, removed }))
}

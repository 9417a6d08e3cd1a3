//! The paired gateway: how the pairing stands, what the gateway has, what it refused.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::State;
use http::Response;
use http::StatusCode;
use serde_json::Value;

use crate::api::Api;
use crate::api::input::Query;
use crate::api::problem::Problem;
use crate::api::text;
use crate::dashboard::answer::escaped;
use crate::dashboard::answer::html;
use crate::dashboard::failure::Failure;
use crate::dashboard::layout::Layout;
use crate::dashboard::layout::Notice;
use crate::dashboard::layout::Section;
use crate::dashboard::pairing;
use crate::dashboard::pairing::Begun;
use crate::dashboard::pairing::SessionView;
use crate::dashboard::pairing::Stands;
use crate::dashboard::relay::Connection;
use crate::dashboard::relay::Gateway;
use crate::dashboard::relay::SealingKey;
use crate::dashboard::usage::Part;
use crate::dashboard::visitor::Visitor;
use crate::dashboard::when::When;

/// Reasons that are shown of what was refused.
const REASONS: usize = 12;

/// A connection as it stands on a page.
pub(super) struct ConnectionRow {
    /// Its id as a segment of a path.
    pub(super) path: String,
    pub(super) tested: Option<When>,
    pub(super) used: Option<When>,
    pub(super) rotated: Option<When>,
    pub(super) due: Option<When>,
    /// Whether its secret should have been replaced already.
    pub(super) overdue: bool,
    pub(super) connection: Connection,
}

impl ConnectionRow {
    /// As it is seen at a moment.
    pub(super) fn of(connection: Connection, now_ms: i64) -> Self {
        // Some gateways write a moment that never was as one long before 1970.
        let moment = |text: &Option<String>| text.as_deref().and_then(text::instant);
        let when = |text: &Option<String>| moment(text).map(|at_ms| When::at(at_ms, now_ms));
        Self {
            path: escaped(&connection.id),
            tested: when(&connection.last_tested_at),
            used: when(&connection.last_used_at),
            rotated: when(&connection.last_rotated_at),
            due: when(&connection.next_rotation_due_at),
            overdue: moment(&connection.next_rotation_due_at).is_some_and(|due_ms| due_ms <= now_ms),
            connection,
        }
    }

    /// Whether requests through it are refused because it is switched off.
    pub(super) fn is_disabled(&self) -> bool {
        self.connection.status == "disabled"
    }

    /// What came of its last test; `None` where it never was tested.
    pub(super) fn passed(&self) -> Option<bool> {
        self.tested.as_ref()?;
        self.connection.last_test_status.as_deref().map(|word| word == "pass")
    }
}

/// What a connected gateway has, as far as it says.
struct Known {
    connections: Result<Vec<ConnectionRow>, String>,
    key: Result<SealingKey, String>,
    refusals: Result<Vec<Part>, String>,
}

#[derive(Template)]
#[template(path = "gateway.html", config = "src/dashboard/askama.toml")]
struct GatewayPage {
    layout: Layout,
    begun: Option<Begun>,
    session: Option<SessionView>,
    /// The others that are not over.
    others: Vec<SessionView>,
    known: Option<Known>,
    /// For the panel of the sealing key.
    sealing_key: String,
}

/// The page.
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    query: Query,
) -> Result<Response<Body>, Failure> {
    let notice = Notice::done(query.find("done"));
    page(&api, &visitor, query.find("session"), StatusCode::OK, notice, None).await
}

/// The page about a session, or about the one it is most likely about.
pub(super) async fn page(
    api: &Api,
    visitor: &Visitor,
    wanted: Option<&str>,
    status: StatusCode,
    notice: Option<Notice>,
    begun: Option<Begun>,
) -> Result<Response<Body>, Failure> {
    let wanted = begun.as_ref().map(|begun| begun.session_id.as_str()).or(wanted);
    let (session, live) = pairing::sessions(api, visitor, wanted).await?;
    let known = match &session {
        Some(session) if session.stands == Stands::Connected => Some(ask(api, visitor, &session.id).await),
        Some(_) | None => None,
    };
    let key = known.as_ref().and_then(|known| known.key.as_ref().ok());
    let page = GatewayPage {
        layout: Layout::of(api, visitor, Section::Gateway).await?.with(notice),
        sealing_key: key.map(|key| key.public_key.clone()).unwrap_or_default(),
        others: live.into_iter().filter(|one| session.as_ref().is_none_or(|chosen| chosen.id != one.id)).collect(),
        begun,
        session,
        known,
    };
    Ok(html(status, &page))
}

/// Asks a gateway for everything at once; what it does not say is told in its place.
async fn ask(api: &Api, visitor: &Visitor, session: &str) -> Known {
    let gateway = Gateway { api, owner: &visitor.owner.user, session };
    let (connections, key, refusals) = tokio::join!(gateway.connections(), gateway.sealing_key(), gateway.refusals());
    let said = |problem: Problem| problem.sentence();
    let row = |connection| ConnectionRow::of(connection, visitor.now_ms);
    Known {
        connections: connections.map(|all| all.into_iter().map(row).collect()).map_err(said),
        key: key.map_err(said),
        refusals: refusals.map(|value| reasons(&value)).map_err(said),
    }
}

/// What was refused by reason, the most frequent first.
fn reasons(said: &Value) -> Vec<Part> {
    let counted = said.get("reasons").and_then(Value::as_array).into_iter().flatten().filter_map(|one| {
        let code = one.get("code").or_else(|| one.get("reason"))?.as_str()?;
        Some((code.to_owned(), one.get("count")?.as_i64()?))
    });
    let mut counted: Vec<_> = counted.collect();
    counted.sort_by(|(one, few), (other, many)| many.cmp(few).then_with(|| one.cmp(other)));
    counted.truncate(REASONS);
    let most = counted.first().map_or(0, |(_, count)| *count);
    counted.into_iter().map(|(code, count)| Part::refused(code, count, most)).collect()
}

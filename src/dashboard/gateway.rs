//! The paired gateway: how the pairing stands, what the gateway has, what it refused.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::State;
use http::Response;
use http::StatusCode;

use crate::api::Api;
use crate::api::input::Query;
use crate::api::problem::Problem;
use crate::api::text;
use crate::dashboard::answer::escaped;
use crate::dashboard::answer::html;
use crate::dashboard::chart;
use crate::dashboard::failure::Failure;
use crate::dashboard::filters;
use crate::dashboard::layout::Layout;
use crate::dashboard::layout::Notice;
use crate::dashboard::layout::Section;
use crate::dashboard::listed::Listed;
use crate::dashboard::pairing;
use crate::dashboard::pairing::Begun;
use crate::dashboard::pairing::SessionView;
use crate::dashboard::pairing::Stands;
use crate::dashboard::relay;
use crate::dashboard::relay::Connection;
use crate::dashboard::relay::Gateway;
use crate::dashboard::relay::Reason;
use crate::dashboard::relay::Refusal;
use crate::dashboard::relay::Refusals;
use crate::dashboard::relay::SealingKey;
use crate::dashboard::visitor::Visitor;
use crate::dashboard::when::When;

/// Reasons that are shown of what was refused.
const REASONS: usize = 12;
/// Single refusals that are shown.
const RECENT: usize = 10;

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
    /// Whether its secret was replaced after its last test.
    outdated: bool,
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
            outdated: moment(&connection.last_tested_at)
                .zip(moment(&connection.last_rotated_at))
                .is_some_and(|(tested_ms, rotated_ms)| tested_ms < rotated_ms),
            overdue: moment(&connection.next_rotation_due_at).is_some_and(|due_ms| due_ms <= now_ms),
            connection,
        }
    }

    /// Whether requests through it are refused because it is switched off.
    pub(super) fn is_disabled(&self) -> bool {
        self.connection.status == "disabled"
    }

    /// Whether what came of its last test was about a secret it has no more.
    pub(super) const fn is_outdated(&self) -> bool {
        self.outdated
    }

    /// What came of the last test of the secret it has; `None` where that never was tested.
    pub(super) fn passed(&self) -> Option<bool> {
        self.tested.as_ref().filter(|_| !self.outdated)?;
        self.connection.last_test_status.as_deref().map(|word| word == "pass")
    }
}

/// What a connected gateway has, as far as it says.
struct Known {
    connections: Result<Listed<ConnectionRow>, String>,
    key: Result<SealingKey, String>,
    refusals: Result<Refused, String>,
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
    let (mut session, live) = pairing::sessions(api, visitor, wanted).await?;
    let mut known = None;
    if let Some(session) = session.as_mut().filter(|session| session.stands == Stands::Connected) {
        known = ask(api, visitor, &session.id).await;
        session.silent = known.is_none();
    }
    let key = known.as_ref().and_then(|known| known.key.as_ref().ok());
    let page = GatewayPage {
        layout: Layout::of(api, visitor, Section::Gateway).await?.with(notice),
        sealing_key: key.map(|key| key.public_key.clone()).unwrap_or_default(),
        others: live.into_iter().filter(|one| session.as_ref().is_none_or(|chosen| chosen.id != one.id)).collect(),
        begun,
        session,
        known,
    };
    Ok(html(status, page).await)
}

/// Asks a gateway for everything at once; what it does not say is told in its place. `None`: it does not answer at all.
async fn ask(api: &Api, visitor: &Visitor, session: &str) -> Option<Known> {
    let gateway = Gateway { api, owner: &visitor.owner.user, session };
    let (connections, key, refusals) = tokio::join!(gateway.connections(), gateway.sealing_key(), gateway.refusals());
    if connections.as_ref().is_err_and(|problem| problem.code() == relay::SILENT) {
        return None;
    }
    let said = |problem: Problem| problem.sentence();
    let row = |connection| ConnectionRow::of(connection, visitor.now_ms);
    Some(Known {
        connections: connections.map(|all| all.map(row)).map_err(said),
        key: key.map_err(said),
        refusals: refusals.map(|said| Refused::of(said, visitor.now_ms)).map_err(said),
    })
}

/// A reason as it stands on a page.
struct ReasonRow {
    reason: Reason,
    means: &'static str,
    last: Option<When>,
    /// Its count in thousandths of the most frequent one's.
    width: i64,
}

/// A refusal as it stands on a page.
struct RefusalRow {
    refusal: Refusal,
    at: When,
}

/// What was refused lately, as it is seen at a moment.
struct Refused {
    since: Option<When>,
    total: u64,
    reasons: Listed<ReasonRow>,
    /// The last ones; that there are more goes without saying.
    recent: Listed<RefusalRow>,
}

impl Refused {
    fn of(said: Refusals, now_ms: i64) -> Self {
        let when = |text: &str| text::instant(text).map(|at_ms| When::at(at_ms, now_ms));
        let count = |reason: &Reason| i64::try_from(reason.count).unwrap_or(i64::MAX);
        let most = said.reasons.shown.iter().map(count).max().unwrap_or(0);
        let row = |reason: Reason| ReasonRow {
            width: chart::thousandths(count(&reason), most),
            means: meaning(&reason.code),
            last: when(&reason.last_at),
            reason,
        };
        let one = |refusal: Refusal| RefusalRow { at: When::of(&refusal.at, now_ms), refusal };
        Self {
            since: when(&said.since),
            total: said.total,
            reasons: said.reasons.cut(REASONS).map(row),
            recent: said.recent.cut(RECENT).map(one),
        }
    }
}

/// What a code means for an owner; empty where the code says it.
fn meaning(code: &str) -> &'static str {
    match code {
        "AUTH_CLAIM_REQUIRED" => "The agent's key is not approved for the service.",
        "AUTH_CLAIMS_LOOKUP_FAILED" => "The gateway could not learn whom you approved.",
        "AUTH_SIGNATURE_INVALID" => "The request was not signed, or its signature is wrong.",
        "AUTH_REPLAY_DETECTED" => "A request came a second time.",
        "AUTH_IDENTITY_INVALID" => "The agent's certificate does not fit its request.",
        "AUTH_RATE_LIMITED" => "A stranger asked too often.",
        "METHOD_OR_PATH_FORBIDDEN" => "The connection does not allow this method or path.",
        "ROTATION_REQUIRED" => "The connection's secret is overdue for replacement.",
        "UPSTREAM_ADDRESS_REFUSED" => "The provider's name leads to an address that is not allowed.",
        "NOT_FOUND" => {
            "A path this gateway does not serve; agents call /proxy/, the connection's id and the provider's path."
        }
        "UPSTREAM_ERROR" => "The provider could not be reached.",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use serde_json::json;

    use super::*;
    use crate::api::namespace_claims::ClaimCounts;
    use crate::api::pairing::Standing;

    fn page(connections: usize, reasons: usize) -> String {
        let connections: Listed<Connection> =
            serde_json::from_value(json!(vec![json!({"id": "a-b"}); connections])).unwrap();
        let refusals = json!({"reasons": vec![json!({"code": "X", "count": 1}); reasons], "recent": []});
        let refusals: Refusals = serde_json::from_value(refusals).unwrap();
        let known = Known {
            connections: Ok(connections.map(|one| ConnectionRow::of(one, 0))),
            key: Ok(SealingKey::default()),
            refusals: Ok(Refused::of(refusals, 0)),
        };
        let layout = Layout {
            version: "v",
            section: Section::Gateway,
            namespace: "acme".to_owned(),
            counts: ClaimCounts::default(),
            notice: None,
        };
        let session = SessionView::of(
            Standing {
                session_id: "s".to_owned(),
                namespace: "acme".to_owned(),
                connected: true,
                created_at_ms: 0,
                expires_at_ms: 1,
                last_connected_at_ms: Some(0),
                ended: None,
                name: None,
            },
            0,
        );
        let (begun, session, others) = (None, Some(session), Vec::new());
        let page = GatewayPage { layout, begun, session, others, known: Some(known), sealing_key: String::new() };
        page.render().unwrap()
    }

    #[test]
    fn long_lists_are_cut_and_the_page_says_by_how_much() {
        let html = page(3001, 20);
        assert_eq!(html.matches(">Manage<").count(), 1000);
        assert!(html.contains("and 2001 more"));
        assert_eq!(html.matches("class=\"share-name\"").count(), REASONS);
        assert!(html.contains("and 8 more"));
    }

    #[test]
    fn of_short_lists_nothing_is_missing() {
        let html = page(3, 2);
        assert_eq!(html.matches(">Manage<").count(), 3);
        assert!(!html.contains(" more</p>"));
    }
}

//! Claims: who asks to use what, and the owner's decisions.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::Path;
use axum::extract::State;
use http::Response;
use http::StatusCode;
use serde_json::Map;
use serde_json::Value;

use crate::api::Api;
use crate::api::decide;
use crate::api::decide::Ending;
use crate::api::input::Page;
use crate::api::input::Query;
use crate::api::ledger::Status;
use crate::api::namespace_claims;
use crate::api::namespace_claims::ClaimFilter;
use crate::api::namespace_claims::ClaimView;
use crate::api::problem::Problem;
use crate::dashboard::answer::escaped;
use crate::dashboard::answer::html;
use crate::dashboard::answer::see_other;
use crate::dashboard::answer::short_html;
use crate::dashboard::answer::unchanged;
use crate::dashboard::failure::Failure;
use crate::dashboard::filters;
use crate::dashboard::form::Form;
use crate::dashboard::layout::Layout;
use crate::dashboard::layout::Notice;
use crate::dashboard::layout::Section;
use crate::dashboard::visitor::Visitor;
use crate::dashboard::when::When;
use crate::domain::ids::PublicKey;

/// Claims on one page.
const PAGE: u64 = 50;

/// How long an approval may be given for on the page: seconds, and how people say it. The first is the default.
const EXPIRIES: [(&str, &str); 6] = [
    ("", "until revoked"),
    ("3600", "for an hour"),
    ("86400", "for a day"),
    ("604800", "for a week"),
    ("2592000", "for 30 days"),
    ("7776000", "for 90 days"),
];

/// A claim as it stands on a page.
#[derive(Debug, Clone)]
pub(super) struct ClaimRow {
    /// Its id as a segment of a path.
    pub(super) path: String,
    pub(super) id: String,
    /// What the agent calls itself; empty where it gives no name.
    pub(super) name: String,
    pub(super) agent_id: Option<String>,
    /// 16 hex digits; empty where the key cannot be read.
    pub(super) fingerprint: String,
    pub(super) public_key: String,
    pub(super) service: String,
    /// Whose service it is, where that is not the claim's own namespace: anybody may give a service of theirs the
    /// name of one of ours.
    pub(super) foreign_owner: Option<String>,
    pub(super) subject: Option<String>,
    pub(super) address: String,
    pub(super) created: When,
    pub(super) approved: Option<When>,
    pub(super) revoked: Option<When>,
    pub(super) expires: Option<When>,
    pub(super) last_used: Option<When>,
    /// What the owner said to this key the last time, and when.
    pub(super) earlier: Option<(String, When)>,
}

impl ClaimRow {
    /// As it is seen at a moment.
    pub(super) fn of(claim: ClaimView, now_ms: i64) -> Self {
        let when = |text: Option<String>| text.map(|text| When::of(&text, now_ms));
        Self {
            path: escaped(&claim.claim_id),
            fingerprint: PublicKey::parse(&claim.public_key).map(|key| key.fingerprint()).unwrap_or_default(),
            foreign_owner: Some(claim.service_owner).filter(|owner| *owner != claim.namespace),
            created: When::of(&claim.created_at, now_ms),
            approved: when(claim.approved_at),
            revoked: when(claim.revoked_at),
            expires: when(claim.expires_at),
            last_used: when(claim.last_used_at),
            earlier: claim.earlier_status.zip(when(claim.earlier_ended_at)),
            id: claim.claim_id,
            name: claim.agent_name.unwrap_or_default(),
            agent_id: claim.agent_id,
            public_key: claim.public_key,
            service: claim.service,
            subject: claim.subject,
            address: claim.agent_ip,
        }
    }
}

/// The claims of a filter, as they are seen now.
pub(super) async fn rows(
    api: &Api,
    visitor: &Visitor,
    filter: ClaimFilter,
    page: Page,
) -> Result<(Vec<ClaimRow>, Pages), Problem> {
    let found = namespace_claims::claims(api, &visitor.owner.namespace, filter, page).await?;
    let pages = Pages::of(page, found.pagination.total);
    Ok((found.claims.into_iter().map(|claim| ClaimRow::of(claim, visitor.now_ms)).collect(), pages))
}

/// Where in a long list we are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pages {
    /// Number of the first row shown, from 1; 0 where there is none.
    pub(super) first: u64,
    /// Number of the last row shown.
    pub(super) last: u64,
    /// Rows in all.
    pub(super) total: u64,
    /// Offset of the page before; `None` on the first.
    pub(super) before: Option<u64>,
    /// Offset of the page after; `None` on the last.
    pub(super) after: Option<u64>,
}

impl Pages {
    /// Of a list of `total` rows.
    pub(super) fn of(page: Page, total: u64) -> Self {
        let end = page.offset.saturating_add(page.limit);
        let last = end.min(total);
        Self {
            first: if page.offset < total { page.offset.saturating_add(1) } else { 0 },
            last,
            total,
            before: (page.offset > 0).then(|| page.offset.saturating_sub(page.limit)),
            after: (end < total).then_some(end),
        }
    }
}

/// One status to choose.
struct Tab {
    name: &'static str,
    text: &'static str,
    count: u64,
    current: bool,
}

#[derive(Template)]
#[template(path = "claims.html", config = "src/dashboard/askama.toml")]
struct ClaimsPage {
    layout: Layout,
    tabs: Vec<Tab>,
    /// The chosen status, for links.
    chosen: &'static str,
    claims: Vec<ClaimRow>,
    pages: Pages,
    expiries: [(&'static str, &'static str); 6],
}

/// The claims of one status.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    query: Query,
) -> Result<Response<Body>, Failure> {
    let notice = Notice::done(query.find("done"));
    page(&api, &visitor, &query, StatusCode::OK, notice).await
}

async fn page(
    api: &Api,
    visitor: &Visitor,
    query: &Query,
    status: StatusCode,
    notice: Option<Notice>,
) -> Result<Response<Body>, Failure> {
    let wanted = match query.find("status") {
        Some(text) => Status::parse(text).ok_or_else(Problem::not_found)?,
        None => Status::Pending,
    };
    let layout = Layout::of(api, visitor, Section::Claims).await?.with(notice);
    let part = query.page(PAGE, PAGE)?;
    let filter = ClaimFilter { status: Some(wanted), service: query.find("service").map(str::to_owned) };
    let (claims, pages) = rows(api, visitor, filter, part).await?;
    let tab = |of: Status, text: &'static str| Tab {
        name: of.text(),
        text,
        count: layout.counts.of(of),
        current: of == wanted,
    };
    let tabs = vec![
        tab(Status::Pending, "Pending"),
        tab(Status::Approved, "Approved"),
        tab(Status::Rejected, "Rejected"),
        tab(Status::Revoked, "Revoked"),
        tab(Status::Expired, "Expired"),
    ];
    Ok(html(status, ClaimsPage { layout, tabs, chosen: wanted.text(), claims, pages, expiries: EXPIRIES }).await)
}

#[derive(Template)]
#[template(path = "claims_news.html", config = "src/dashboard/askama.toml")]
struct News {
    pending: u64,
}

/// Says so where more or fewer claims are pending than the page knows; else nothing.
pub(super) async fn news(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    query: Query,
) -> Result<Response<Body>, Failure> {
    let counts = namespace_claims::counts(&api, &visitor.owner.namespace).await?;
    let pending = counts.of(Status::Pending);
    if query.find("pending") == Some(pending.to_string().as_str()) {
        return Ok(unchanged());
    }
    Ok(short_html(StatusCode::OK, &News { pending }))
}

/// Approves a claim, for as long as the form says.
pub(super) async fn approve(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response<Body>, Failure> {
    let mut until = Map::new();
    if let Some(text) = form.text("expires_in_seconds") {
        // What is no number is refused where the number is judged.
        let value = text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from);
        until.insert("expires_in_seconds".to_owned(), value);
    }
    let outcome = decide::approve_claim(&api, visitor.owner.clone(), id, &until).await.map(|_| ());
    decided(&api, &visitor, outcome, Status::Pending, "approved").await
}

/// Rejects a pending claim.
pub(super) async fn reject(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Response<Body>, Failure> {
    let outcome = decide::end(&api, visitor.owner.clone(), id, Ending::Reject).await.map(|_| ());
    decided(&api, &visitor, outcome, Status::Pending, "rejected").await
}

/// Revokes an approved claim.
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Response<Body>, Failure> {
    let outcome = decide::end(&api, visitor.owner.clone(), id, Ending::Revoke).await.map(|_| ());
    decided(&api, &visitor, outcome, Status::Approved, "revoked").await
}

/// Back to the list with what was done, or the list with why it was not.
async fn decided(
    api: &Api,
    visitor: &Visitor,
    outcome: Result<(), Problem>,
    list: Status,
    word: &'static str,
) -> Result<Response<Body>, Failure> {
    let status = list.text();
    match outcome {
        Ok(()) => Ok(see_other(&format!("/claims?status={status}&done={word}"))),
        // Another owner's claim is no part of this page.
        Err(problem) if problem.status() == StatusCode::FORBIDDEN && problem.code() == "FORBIDDEN" => {
            Err(problem.into())
        }
        Err(problem) => {
            let query = Query::of(vec![("status".to_owned(), status.to_owned())]);
            page(api, visitor, &query, problem.status(), Some(Notice::problem(&problem))).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_knows_where_it_is() {
        let of = |offset, total| {
            let pages = Pages::of(Page { limit: 50, offset }, total);
            (pages.first, pages.last, pages.before, pages.after)
        };
        assert_eq!(of(0, 0), (0, 0, None, None));
        assert_eq!(of(0, 50), (1, 50, None, None));
        assert_eq!(of(0, 51), (1, 50, None, Some(50)));
        assert_eq!(of(50, 51), (51, 51, Some(0), None));
        assert_eq!(of(20, 200), (21, 70, Some(0), Some(70)));
    }
}

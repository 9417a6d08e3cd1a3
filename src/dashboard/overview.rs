//! The first page: what waits, what runs, what to do next.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::State;
use http::Response;
use http::StatusCode;

use crate::api::Api;
use crate::api::input::Page;
use crate::api::ledger::Status;
use crate::api::namespace_claims::ClaimFilter;
use crate::api::services;
use crate::dashboard::answer::html;
use crate::dashboard::chart::Bars;
use crate::dashboard::claims;
use crate::dashboard::claims::ClaimRow;
use crate::dashboard::failure::Failure;
use crate::dashboard::filters;
use crate::dashboard::layout::Layout;
use crate::dashboard::layout::Section;
use crate::dashboard::pairing;
use crate::dashboard::pairing::SessionView;
use crate::dashboard::pairing::Stands;
use crate::dashboard::usage;
use crate::dashboard::usage::Part;
use crate::dashboard::visitor::Visitor;

/// Pending claims that are shown here.
const WAITING: Page = Page { limit: 5, offset: 0 };

#[derive(Template)]
#[template(path = "overview.html", config = "src/dashboard/askama.toml")]
struct OverviewPage {
    layout: Layout,
    waiting: Vec<ClaimRow>,
    approved: u64,
    services: usize,
    /// Services without a key: no gateway can serve them.
    keyless: usize,
    /// The pairing that matters most.
    gateway: Option<SessionView>,
    bars: Bars,
    parts: Vec<Part>,
}

impl OverviewPage {
    /// Whether everything is set up: then the first steps need no place.
    fn is_set_up(&self) -> bool {
        self.has_service() && self.is_paired() && self.approved > 0
    }

    fn is_paired(&self) -> bool {
        self.gateway.as_ref().is_some_and(|session| matches!(session.stands, Stands::Connected | Stands::Lost))
    }

    fn has_service(&self) -> bool {
        self.services > self.keyless
    }
}

/// The page.
pub(super) async fn show(State(api): State<Arc<Api>>, visitor: Visitor) -> Result<Response<Body>, Failure> {
    let layout = Layout::of(&api, &visitor, Section::Overview).await?;
    let pending = ClaimFilter { status: Some(Status::Pending), service: None };
    let (waiting, _) = claims::rows(&api, &visitor, pending, WAITING).await?;
    let services = services::all(&api, visitor.owner.clone()).await?;
    let (bars, parts, _) = usage::DAY.draw(&api, &visitor, None, None).await?;
    let (gateway, _) = pairing::sessions(&api, &visitor, None).await?;
    let page = OverviewPage {
        gateway,
        approved: layout.counts.of(Status::Approved),
        layout,
        waiting,
        keyless: services.iter().filter(|service| service.active_key_count == 0).count(),
        services: services.len(),
        bars,
        parts,
    };
    Ok(html(StatusCode::OK, page).await)
}

//! What the agents did: a picture of it, and a table.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::State;
use http::Response;
use http::StatusCode;

use crate::api::Api;
use crate::api::input::Query;
use crate::api::moment::iso;
use crate::api::problem::Problem;
use crate::api::usage_chart;
use crate::api::usage_chart::Share;
use crate::api::usage_chart::Wanted;
use crate::api::usage_summary;
use crate::api::usage_summary::UsageRow;
use crate::api::usage_summary::UsageTotals;
use crate::dashboard::answer::escaped;
use crate::dashboard::answer::html;
use crate::dashboard::chart;
use crate::dashboard::chart::Bars;
use crate::dashboard::claims::Pages;
use crate::dashboard::failure::Failure;
use crate::dashboard::filters;
use crate::dashboard::layout::Layout;
use crate::dashboard::layout::Section;
use crate::dashboard::visitor::Visitor;
use crate::dashboard::when::When;
use crate::domain::ids::PublicKey;

const HOUR_MS: i64 = 3_600_000;
/// Rows of the table on one page.
const PAGE: u64 = 50;
/// Services and subjects that are named beside the picture.
const SHARES: u32 = 8;

/// A span of time to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// Its name in an address.
    pub(super) name: &'static str,
    /// Its name for people.
    pub(super) text: &'static str,
    step_ms: i64,
    steps: usize,
}

/// The spans, the shortest first.
const RANGES: [Range; 4] = [
    Range { name: "24h", text: "24 hours", step_ms: HOUR_MS, steps: 24 },
    Range { name: "7d", text: "7 days", step_ms: 6 * HOUR_MS, steps: 28 },
    Range { name: "30d", text: "30 days", step_ms: 24 * HOUR_MS, steps: 30 },
    Range { name: "90d", text: "90 days", step_ms: 24 * HOUR_MS, steps: 90 },
];

/// The span a page begins with.
pub(super) const DAY: Range = Range { name: "24h", text: "24 hours", step_ms: HOUR_MS, steps: 24 };

impl Range {
    /// The span of a name.
    fn find(name: &str) -> Option<Self> {
        RANGES.into_iter().find(|range| range.name == name)
    }

    /// Where it begins, so that the running step is its last one.
    fn begins(self, now_ms: i64) -> i64 {
        let steps = i64::try_from(self.steps).unwrap_or(1).saturating_sub(1);
        let running = now_ms.saturating_sub(now_ms.rem_euclid(self.step_ms));
        running.saturating_sub(self.step_ms.saturating_mul(steps))
    }

    /// The calls of this span as bars, with the shares of services and subjects.
    pub(super) async fn draw(
        self,
        api: &Api,
        visitor: &Visitor,
        service: Option<String>,
        subject: Option<String>,
    ) -> Result<(Bars, Vec<Part>, Vec<Part>), Problem> {
        let from_ms = self.begins(visitor.now_ms);
        let wanted = Wanted { from_ms, step_ms: self.step_ms, steps: self.steps, service, subject, most: SHARES };
        let found = usage_chart::chart(api, &visitor.owner.namespace, wanted).await?;
        let bars = Bars::of(&found.steps, from_ms, self.step_ms);
        let parts = |shares: Vec<Share>| {
            let whole = shares.iter().map(|share| share.calls.all).max().unwrap_or(0);
            shares.into_iter().map(|share| Part::of(share, whole)).collect()
        };
        Ok((bars, parts(found.services), parts(found.subjects)))
    }
}

/// What one service or subject has, as a bar.
pub(super) struct Part {
    /// Which.
    pub(super) name: String,
    /// The same as the value of a parameter.
    pub(super) value: String,
    /// Its calls.
    pub(super) calls: i64,
    /// Those that failed.
    pub(super) failed: i64,
    /// Its calls that succeeded, in thousandths of the largest part.
    pub(super) good_width: i64,
    /// Its calls that failed, likewise.
    pub(super) bad_width: i64,
}

impl Part {
    fn of(share: Share, whole: i64) -> Self {
        let failed = share.calls.all.saturating_sub(share.calls.good);
        Self {
            value: escaped(&share.name),
            name: share.name,
            calls: share.calls.all,
            failed,
            good_width: chart::thousandths(share.calls.good, whole),
            bad_width: chart::thousandths(failed, whole),
        }
    }
}

/// A row of the table.
struct Row {
    row: UsageRow,
    fingerprint: String,
    last_used: When,
}

#[derive(Template)]
#[template(path = "usage.html", config = "src/dashboard/askama.toml")]
struct UsagePage {
    layout: Layout,
    ranges: [Range; 4],
    range: Range,
    bars: Bars,
    services: Vec<Part>,
    subjects: Vec<Part>,
    totals: UsageTotals,
    rows: Vec<Row>,
    pages: Pages,
    service: Option<String>,
    subject: Option<String>,
    /// The filters as they continue an address, each beginning with `&`.
    service_filter: String,
    subject_filter: String,
}

/// The usage of a span, of everything or of one service or subject.
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    query: Query,
) -> Result<Response<Body>, Failure> {
    let range = match query.find("range") {
        Some(name) => Range::find(name).ok_or_else(Problem::not_found)?,
        None => Range::find("7d").unwrap_or(DAY),
    };
    let page = query.page(PAGE, PAGE)?;
    let find = |name: &str| query.find(name).map(str::to_owned);
    let (service, subject) = (find("service"), find("subject"));
    let (bars, services, subjects) = range.draw(&api, &visitor, service.clone(), subject.clone()).await?;
    let mut asked = vec![
        ("sort".to_owned(), "calls_desc".to_owned()),
        ("from".to_owned(), iso(range.begins(visitor.now_ms))),
        ("limit".to_owned(), page.limit.to_string()),
        ("offset".to_owned(), page.offset.to_string()),
    ];
    asked.extend(service.clone().map(|service| ("provider".to_owned(), service)));
    asked.extend(subject.clone().map(|subject| ("subject".to_owned(), subject)));
    let found = usage_summary::summary(&api, &visitor.owner.namespace, &Query::of(asked)).await?;
    let row = |row: UsageRow| Row {
        fingerprint: PublicKey::parse(&row.public_key).map(|key| key.fingerprint()).unwrap_or_default(),
        last_used: When::of(&row.last_used_at, visitor.now_ms),
        row,
    };
    let filter = |name: &str, value: &Option<String>| match value {
        Some(value) => format!("&{name}={}", escaped(value)),
        None => String::new(),
    };
    let page = UsagePage {
        layout: Layout::of(&api, &visitor, Section::Usage).await?,
        ranges: RANGES,
        range,
        bars,
        services,
        subjects,
        totals: found.summary,
        rows: found.rows.into_iter().map(row).collect(),
        pages: Pages::of(page, found.pagination.total),
        service_filter: filter("service", &service),
        subject_filter: filter("subject", &subject),
        service,
        subject,
    };
    Ok(html(StatusCode::OK, page).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_step_is_the_last_one() {
        for range in RANGES {
            let now = 1_800_000_123_456;
            let begins = range.begins(now);
            let steps = i64::try_from(range.steps).unwrap_or_default();
            let last = begins + range.step_ms * (steps - 1);
            assert!(last <= now && now < last + range.step_ms, "{range:?}");
            assert_eq!(begins % range.step_ms, 0, "{range:?}");
        }
    }
}

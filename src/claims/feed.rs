//! The approved feed of one service: all of its pages, complete although rows move while they are read.
//!
//! Pages are cut by offset from a list that others change meanwhile, newest approval first: the next offset is the sum of
//! the rows so far. A new row pushes the others down, which only shows some of them twice. A row that goes pulls the others
//! up, and an offset would jump over some. What tells of it is what the API says of its list:
//!
//! - Our API says on every page where it stands. While that stays the same, so does the list. Once it differs, each further
//!   page begins with the last row of the one before; where no known row stands on it, the reader steps back. So every
//!   approval that existed throughout is in the result.
//! - One that gives its first page alone a tag is asked, after the last page, whether that tag still holds; where it does
//!   not, all is read again, at most three times.
//! - One that says nothing is believed as it is: a row that was jumped over is missed until the next reading, and whoever
//!   it approves is refused so long.
//!
//! What the API says of itself is not believed beyond reason: rows, requests and bytes are bounded, and a list
//! larger than allowed is an error, never a cut. A page without rows is the end, whatever it says.

use std::collections::HashSet;
use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::time::Duration;

use http::StatusCode;
use http::header;

use crate::claims::client::Answer;
use crate::claims::client::ApiClient;
use crate::claims::client::ApiError;
use crate::claims::client::Call;
use crate::domain::ids::Namespace;
use crate::domain::ids::PublicKey;
use crate::domain::secret::Secret;
use crate::domain::time::MonotonicMillis;
use crate::domain::time::UnixSeconds;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::wire::control_plane::CURSOR_HEADER;
use crate::wire::control_plane::FEED_PAGE;
use crate::wire::control_plane::FEED_PATH;
use crate::wire::control_plane::FeedRow;
use crate::wire::control_plane::FeedRows;
use crate::wire::control_plane::FeedText;
use crate::wire::control_plane::PageSaid;

/// Largest page, in bytes: 4 KiB a row.
const MAX_PAGE_BYTES: usize = 8 << 20;
/// Longest time for one page: beyond it the approvals would be stale anyway, and an API that hangs is noticed sooner.
const PAGE_PATIENCE: Duration = Duration::from_secs(30);
/// How often all is read before the last reading counts, whatever has changed meanwhile.
const MAX_PASSES: u32 = 3;
/// Requests of one pass beyond four for every page there may be; and of those in a row that bring nothing new, beyond four
/// for every page of known rows.
const SPARE_REQUESTS: u64 = 64;
/// Of the time a read is given, this many tenths are spread over its pages; the rest is for pages that take longer.
const PACED_TENTHS: u32 = 7;
/// A read rests this many times as long as it worked, where the time it is given allows it.
const REST: u32 = 4;

/// Bounds of one reading.
#[derive(Debug, Clone, Copy)]
pub struct FeedLimits {
    /// Most approvals of one service; more is an error.
    pub max_approvals: usize,
    /// Rows asked for at a time; the API may grant fewer.
    pub page: u32,
    /// Time the reading may take without being late: it rests between pages accordingly. `None` = as fast as it can.
    pub pace: Option<Duration>,
}

impl Default for FeedLimits {
    fn default() -> Self {
        Self { max_approvals: 1_000_000, page: FEED_PAGE, pace: None }
    }
}

/// One approval of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved {
    /// The agent's namespace.
    pub namespace: Namespace,
    /// The agent's key.
    pub public_key: PublicKey,
    /// Not after this second; `None` = open end.
    pub expires_at: Option<UnixSeconds>,
}

/// Everything that is approved for a service.
#[derive(Debug)]
pub struct Read<C = Vec<Approved>> {
    /// Every approval once.
    pub approvals: C,
    /// How many they are.
    pub count: usize,
    /// Rows that could not be understood, and are no approvals.
    pub skipped: usize,
    /// Where the change stream goes on; `None` where the API has none.
    pub cursor: Option<String>,
    /// To be asked with next time.
    pub etag: Option<String>,
    /// When the reading that counts began: what it says is at least as young as that.
    pub began: MonotonicMillis,
    /// Requests it took.
    pub requests: u64,
}

/// Why there is no complete list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// A request failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The service has more approvals than this gateway may hold.
    #[error("the service has more approvals ({found}) than claims.max_approvals allows ({allowed}); raise it")]
    TooMany {
        /// How many there are at least.
        found: u64,
        /// The setting.
        allowed: usize,
    },
    /// The API contradicts itself.
    #[error("the API's list of approvals makes no sense: {0}")]
    Senseless(&'static str),
}

impl FeedError {
    /// One word for metrics and conditions.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Api(error) => error.reason(),
            Self::TooMany { .. } => "TooManyApprovals",
            Self::Senseless(_) => "SenselessFeed",
        }
    }
}

/// Reads everything that is approved for `service` now.
pub async fn read_all(client: &ApiClient, service: &str, key: &Secret, limits: &FeedLimits) -> Result<Read, FeedError> {
    let source = Source { client, service, key, limits };
    let push = |list: &mut Vec<Approved>, namespace: &str, public_key, expires_at: Option<u64>| {
        // The reader has judged it already.
        if let Ok(namespace) = Namespace::parse(namespace) {
            list.push(Approved { namespace, public_key, expires_at: expires_at.map(UnixSeconds) });
        }
    };
    match read_into(source, None, Collector { new: &Vec::new, push }).await? {
        Some(read) => Ok(read),
        None => Err(FeedError::Senseless("it answers 304 to a question without a condition")),
    }
}

/// Which feed is read, and how.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Who asks.
    pub client: &'a ApiClient,
    /// Slug of the service.
    pub service: &'a str,
    /// Its key.
    pub key: &'a Secret,
    /// Bounds.
    pub limits: &'a FeedLimits,
}

/// How approvals are collected: namespace, key, and the second after which it ends. Pages go straight into the
/// collection, so that a large list is never held twice.
pub struct Collector<'a, C> {
    /// An empty collection; made anew just before each reading begins.
    pub new: &'a (dyn Fn() -> C + Sync),
    /// Adds one approval; each is added once.
    pub push: fn(&mut C, &str, PublicKey, Option<u64>),
}

impl<C> Clone for Collector<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Collector<'_, C> {}

impl<C> std::fmt::Debug for Collector<'_, C> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Collector").finish_non_exhaustive()
    }
}

/// Reads everything into a collection. `None`: nothing has changed since the answer that `etag` came with.
pub async fn read_into<C: Send + 'static>(
    source: Source<'_>,
    etag: Option<&str>,
    collector: Collector<'_, C>,
) -> Result<Option<Read<C>>, FeedError> {
    let mut requests = 0;
    let mut passes = 0;
    loop {
        passes += 1;
        // Only the first look may end with "nothing new": after it something is known to have changed.
        let known = if passes == 1 { etag } else { None };
        let Some(pass) = read_pass(source, known, collector).await? else { return Ok(None) };
        requests += pass.requests;
        let settled = match &pass.etag {
            Some(etag) if pass.pages > 1 && !pass.told => {
                requests += 1;
                fetch(source, 0, Some(etag)).await?.is_none()
            }
            Some(_) | None => true,
        };
        if settled || passes == MAX_PASSES {
            return Ok(Some(Read {
                approvals: pass.list,
                count: pass.count,
                skipped: pass.skipped,
                cursor: pass.cursor,
                etag: pass.etag,
                began: pass.began,
                requests,
            }));
        }
    }
}

/// One reading from the first page to the last.
struct Pass<C> {
    push: fn(&mut C, &str, PublicKey, Option<u64>),
    list: C,
    service: String,
    allowed: usize,
    /// Every row that was seen, understood or not, by hash.
    seen: HashSet<u64>,
    hasher: RandomState,
    count: usize,
    skipped: usize,
    /// Rows in all, where the first page said it.
    total: Option<u64>,
    /// Where the list stood on the first page.
    cursor: Option<String>,
    /// Where it stood on the page that was taken last.
    stands: Option<String>,
    /// Every page has said where the list stands.
    told: bool,
    /// It has moved since the reading began.
    moved: bool,
    etag: Option<String>,
    /// Most rows of a page so far; at least one.
    granted: u64,
    pages: u64,
    requests: u64,
    began: MonotonicMillis,
}

/// What a page was, once its rows are taken.
enum Taken {
    /// Rows, how many of them are new, and whether more follow.
    Rows { rows: u64, new: u64, has_more: bool },
    /// No known row stands on it: something may lie between.
    Gap,
}

async fn read_pass<C: Send + 'static>(
    source: Source<'_>,
    etag: Option<&str>,
    collector: Collector<'_, C>,
) -> Result<Option<Pass<C>>, FeedError> {
    let began = SystemClock.now().monotonic;
    // Made first, for those collections that note when they were.
    let list = (collector.new)();
    let Some(answer) = fetch(source, 0, etag).await? else { return Ok(None) };
    let cursor = answer.header(CURSOR_HEADER).map(str::to_owned);
    let mut pass = Pass {
        push: collector.push,
        list,
        service: source.service.to_owned(),
        allowed: source.limits.max_approvals,
        seen: HashSet::new(),
        hasher: RandomState::new(),
        count: 0,
        skipped: 0,
        total: None,
        stands: cursor.clone(),
        told: cursor.is_some(),
        cursor,
        moved: false,
        etag: answer.header(header::ETAG.as_str()).map(str::to_owned),
        granted: 1,
        pages: 1,
        requests: 1,
        began,
    };
    let mut taken;
    (pass, taken) = take(pass, answer, 0).await?;
    let mut busy = SystemClock.now().monotonic.since(began);
    // Offset of the page that was taken last; how far to step back from a gap; pages in a row with nothing new.
    let (mut at, mut step, mut barren) = (0_u64, 1_u64, 0_u64);
    loop {
        match taken {
            Taken::Rows { rows, new, has_more } => {
                if !has_more || rows == 0 {
                    return Ok(Some(pass));
                }
                step = if pass.moved { (pass.granted / 2).max(1) } else { 1 };
                at = at.saturating_add(rows);
                if pass.moved && rows > 1 {
                    at = at.saturating_sub(1);
                }
                barren = if new == 0 { barren + 1 } else { 0 };
            }
            Taken::Gap => {
                at = at.saturating_sub(step);
                step = step.saturating_mul(2).max(pass.granted / 2);
                barren += 1;
            }
        }
        if pass.is_endless(barren) {
            return Err(FeedError::Senseless("its pages do not end"));
        }
        rest(source.limits.pace, busy, pass.total.map(|total| total / pass.granted)).await;
        let asked = SystemClock.now().monotonic;
        let Some(answer) = fetch(source, at, None).await? else {
            return Err(FeedError::Senseless("it answers 304 to a question without a condition"));
        };
        pass.pages += 1;
        pass.requests += 1;
        pass.look(&answer);
        (pass, taken) = take(pass, answer, at).await?;
        busy = SystemClock.now().monotonic.since(asked);
    }
}

/// One page, as it came; `None`: nothing has changed since `etag`.
async fn fetch(source: Source<'_>, offset: u64, etag: Option<&str>) -> Result<Option<Answer>, FeedError> {
    // The query's names in their alphabetical order, as other gateways write them.
    let Source { client, service, key, limits } = source;
    let path = format!("{FEED_PATH}?limit={}&offset={offset}&service={service}", limits.page);
    let condition = etag.map(|etag| [("if-none-match", etag)]);
    let headers = condition.as_ref().map_or(&[][..], |condition| &condition[..]);
    let answer =
        client.send(Call { headers, patience: PAGE_PATIENCE, ..Call::get(&path, key, MAX_PAGE_BYTES) }).await?;
    Ok((answer.status != StatusCode::NOT_MODIFIED).then_some(answer))
}

/// Takes the rows of a page, away from the threads that serve: a page is a megabyte of JSON.
async fn take<C: Send + 'static>(
    mut pass: Pass<C>,
    answer: Answer,
    offset: u64,
) -> Result<(Pass<C>, Taken), FeedError> {
    let work = move || {
        let taken = pass.take(&answer, offset)?;
        Ok((pass, taken))
    };
    let failed = |_| FeedError::Senseless("its reader has ended");
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

impl<C> Pass<C> {
    /// Whether more pages were read than there can be, or `barren` ones in a row than known rows can fill.
    fn is_endless(&self, barren: u64) -> bool {
        let most = |rows: usize, each: u64| (rows as u64 / self.granted).saturating_mul(each);
        self.requests >= most(self.allowed, 4).saturating_add(SPARE_REQUESTS)
            || barren > most(self.seen.len(), 4).saturating_add(SPARE_REQUESTS)
    }

    /// Notes what a further page says of the list it was cut from.
    fn look(&mut self, answer: &Answer) {
        let stands = answer.header(CURSOR_HEADER);
        self.told &= stands.is_some();
        self.moved |= self.told && stands != self.stands.as_deref();
        self.stands = stands.map(str::to_owned);
    }

    fn take(&mut self, answer: &Answer, offset: u64) -> Result<Taken, FeedError> {
        let page: FeedRows<'_> = answer.json()?;
        let said = page.pagination.unwrap_or_default();
        check(&said, offset)?;
        if offset == 0 {
            self.total = said.total;
            if let Some(found) = said.total.filter(|total| *total > self.allowed as u64) {
                return Err(FeedError::TooMany { found, allowed: self.allowed });
            }
        }
        let claims = page.claims.unwrap_or_default();
        // A page of one row has no room for a known one.
        let anchored = self.moved && offset > 0 && self.granted > 1;
        if anchored && !claims.iter().any(|row| self.seen.contains(&self.hash(row))) {
            return Ok(Taken::Gap);
        }
        self.granted = self.granted.max(claims.len() as u64);
        let known = self.seen.len();
        for row in &claims {
            self.add(row)?;
        }
        let new = self.seen.len().saturating_sub(known) as u64;
        Ok(Taken::Rows { rows: claims.len() as u64, new, has_more: said.has_more.unwrap_or(false) })
    }

    fn hash(&self, row: &FeedRow<'_>) -> u64 {
        self.hasher.hash_one((text(row.namespace.as_ref()), text(row.public_key.as_ref())))
    }

    /// Adds a row that was not seen yet.
    fn add(&mut self, row: &FeedRow<'_>) -> Result<(), FeedError> {
        if !self.seen.insert(self.hash(row)) {
            return Ok(());
        }
        if self.seen.len() > self.allowed {
            return Err(FeedError::TooMany { found: self.seen.len() as u64, allowed: self.allowed });
        }
        match understood(row, &self.service) {
            Some((namespace, key, expires_at)) => {
                (self.push)(&mut self.list, namespace, key, expires_at);
                self.count += 1;
            }
            None => self.skipped += 1,
        }
        Ok(())
    }
}

/// What a change of the stream is about: namespace, key, expiry. One that ends needs no readable expiry. `None` where
/// it cannot be told, or where it is about another service.
pub(super) fn row_of_event(data: &str, service: &str, ends: bool) -> Option<(String, PublicKey, Option<u64>)> {
    let mut row: FeedRow<'_> = serde_json::from_str(data).ok()?;
    if ends {
        row.expires_at = None;
    }
    understood(&row, service).map(|(namespace, key, expires_at)| (namespace.to_owned(), key, expires_at))
}

/// What a row approves; `None` where it cannot be told, or where it is about another service.
fn understood<'a>(row: &'a FeedRow<'_>, service: &str) -> Option<(&'a str, PublicKey, Option<u64>)> {
    let of = text(row.service.as_ref());
    if !of.is_empty() && of != service {
        return None;
    }
    let namespace = text(row.namespace.as_ref());
    Namespace::parse(namespace).ok()?;
    let key = PublicKey::parse(text(row.public_key.as_ref())).ok()?;
    let expires_at = match &row.expires_at {
        Some(FeedText(at)) => Some(UnixSeconds::parse_rfc3339(at.trim())?.0),
        None => None,
    };
    Some((namespace, key, expires_at))
}

fn text<'a>(text: Option<&'a FeedText<'_>>) -> &'a str {
    text.map_or("", |text| text.0.trim())
}

/// An answer to another question is no page of ours.
fn check(said: &PageSaid, offset: u64) -> Result<(), FeedError> {
    if said.offset.is_none_or(|of| of == offset) {
        Ok(())
    } else {
        Err(FeedError::Senseless("it answers with another offset than was asked for"))
    }
}

/// Rests after a page that took `busy_ms`, so that a long list is read with a fifth of a processor, unless it would
/// be late then. How long the list is must be known for that.
async fn rest(pace: Option<Duration>, busy_ms: u64, pages: Option<u64>) {
    let (Some(pace), Some(pages)) = (pace, pages) else { return };
    let busy = Duration::from_millis(busy_ms);
    let pages = u32::try_from(pages).unwrap_or(u32::MAX).max(1);
    let share = pace.saturating_mul(PACED_TENTHS) / 10 / pages;
    let pause = busy.saturating_mul(REST).min(share.saturating_sub(busy));
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;

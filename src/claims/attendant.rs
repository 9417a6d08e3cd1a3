//! The task of one service: read, publish, follow or wait, and again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::watch;

use crate::claims::client::UNAUTHORIZED;
use crate::claims::feed::Collector;
use crate::claims::feed::FeedError;
use crate::claims::feed::FeedLimits;
use crate::claims::feed::Read;
use crate::claims::feed::Source;
use crate::claims::feed::read_into;
use crate::claims::follow::Left;
use crate::claims::keys;
use crate::claims::overview::NO_SERVICE_KEY;
use crate::claims::overview::Standing;
use crate::claims::refresh::ClaimsPace;
use crate::claims::refresh::Shared;
use crate::domain::secret::Secret;
use crate::domain::time::MonotonicMillis;
use crate::state::ClaimList;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::random;
use crate::sys::tasks::Stop;
use crate::wire::control_plane::FEED_PAGE;
use crate::wire::service_key::KeySource;

/// First pause after a failure; it doubles from then on.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause after failures, so that a recovery is noticed soon.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A stream that ended sooner than this is not worth opening again at once.
const SHORT_STREAM_MS: u64 = 10_000;
/// How long an API without a stream is not asked for one.
const NO_STREAM: Duration = Duration::from_secs(600);
/// A list is read whole when the last whole reading is older than this, whatever the API says of its tag: one that
/// answers "not modified" by mistake must not keep a revoked approval in force for ever.
const WHOLE_EVERY_MS: u64 = 600_000;

/// One service's task and what it remembers.
pub(super) struct Attendant {
    pub(super) shared: Arc<Shared>,
    pub(super) service: String,
    /// The process ends: everything stays as it is.
    pub(super) stop: Stop,
    /// The connection is gone: what is known of the service is forgotten.
    pub(super) gone: Stop,
    /// Somebody has reason to think that the approvals have changed.
    pub(super) poke: Arc<Notify>,
    pub(super) key: Option<Secret>,
    /// Whose it is.
    key_source: KeySource,
    /// Of the last complete list, as long as it is what is published.
    pub(super) etag: Option<String>,
    /// When the last reading of the whole list began.
    whole_at: Option<MonotonicMillis>,
    /// Where the stream of changes goes on.
    pub(super) cursor: Option<String>,
    /// Approvals published, about.
    pub(super) count: usize,
    /// A list was read before: later ones may take their time.
    loaded: bool,
    skipped: usize,
    failures: u32,
    short_streams: u32,
    no_stream_until: Option<MonotonicMillis>,
    pub(super) pace: watch::Receiver<ClaimsPace>,
}

/// What comes next.
enum Next {
    /// After a pause the feed is read again.
    Read(Duration),
    /// The changes are followed.
    Follow,
    /// Nothing.
    End,
}

impl Attendant {
    pub(super) fn new(shared: Arc<Shared>, service: String, stop: Stop, gone: Stop, poke: Arc<Notify>) -> Self {
        let pace = shared.config.pace.clone();
        Self {
            shared,
            service,
            stop,
            gone,
            poke,
            key: None,
            key_source: KeySource::Service,
            etag: None,
            whole_at: None,
            cursor: None,
            count: 0,
            loaded: false,
            skipped: 0,
            failures: 0,
            short_streams: 0,
            no_stream_until: None,
            pace,
        }
    }

    /// Works until the process ends or the connection is gone.
    pub(super) async fn run(mut self) {
        loop {
            let mut next = self.read().await;
            if matches!(next, Next::Follow) {
                next = self.follow_changes().await;
            }
            let pause = match next {
                Next::Read(pause) => pause,
                Next::Follow => Duration::ZERO,
                Next::End => break,
            };
            if self.ended_within(pause).await {
                break;
            }
        }
        if self.gone.is_called() && self.shared.end_with_connection(&self.service).await {
            self.shared.overview.forget(&self.service);
        }
    }

    /// Reads the feed once and publishes what differs.
    async fn read(&mut self) -> Next {
        let Some((key, source)) = self.find_key().await else { return self.without_key().await };
        self.key_source = source;
        if self.key.as_ref() != Some(&key) {
            // Another key may belong to another service: nothing of the old conversation holds.
            (self.etag, self.cursor, self.no_stream_until, self.short_streams) = (None, None, None, 0);
            self.key = Some(key.duplicate());
        }
        if let Some(change) = self.shared.publisher.begin_claims(&self.service) {
            self.shared.publish(change).await;
            self.shared.overview.set(&self.service, Standing::Reading);
        }
        let now = SystemClock.now().monotonic;
        if self.whole_at.is_none_or(|at| now.since(at) > WHOLE_EVERY_MS) {
            self.etag = None;
        }
        let shared = Arc::clone(&self.shared);
        let pace = self.loaded.then_some(shared.config.refresh());
        let limits = FeedLimits { max_approvals: shared.config.max_approvals(), page: FEED_PAGE, pace };
        let source = Source { client: &shared.config.client, service: &self.service, key: &key, limits: &limits };
        let push = |list: &mut ClaimList, namespace: &str, key, expires_at| {
            list.push(namespace, key, expires_at);
        };
        // What is published already takes next to nothing in such a list.
        let list = || shared.publisher.claim_list(&self.service);
        let collector = Collector { new: &list, push };
        let work = async {
            // Closed never; an error would only mean that nobody is in anybody's way.
            let _room = shared.reads.acquire().await;
            let began = SystemClock.now().monotonic;
            (began, read_into(source, self.etag.as_deref(), collector).await)
        };
        let (mut stop, mut gone) = (self.stop.clone(), self.gone.clone());
        let (began, result) = tokio::select! {
            result = work => result,
            () = stop.wait() => return Next::End,
            () = gone.wait() => return Next::End,
        };
        match result {
            Ok(Some(read)) => self.take(read).await,
            Ok(None) => {
                self.shared.metrics.record_claims_refresh("unchanged");
                self.confirmed(began);
                self.after(began)
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Publishes a list that was read.
    async fn take(&mut self, read: Read<ClaimList>) -> Next {
        let Read { approvals, count, skipped, cursor, etag, began, requests } = read;
        if skipped != self.skipped {
            if skipped == 0 {
                tracing::info!(service = self.service, "all approvals of a service can be understood again");
            } else {
                tracing::warn!(service = self.service, skipped, "approvals that cannot be understood are left out");
            }
            self.skipped = skipped;
        }
        let (publisher, service) = (self.shared.publisher.clone(), self.service.clone());
        let compared = tokio::task::spawn_blocking(move || publisher.claims_difference(&service, approvals)).await;
        let Ok(changes) = compared else { return self.failed(&FeedError::Senseless("its reader has ended")) };
        for change in changes {
            if !self.shared.publish(change).await {
                self.etag = None;
                self.missed("Store");
                return Next::Read(self.pause_after_failure(None));
            }
        }
        tracing::debug!(service = self.service, count, requests, "approvals read");
        self.shared.metrics.record_claims_refresh("read");
        (self.etag, self.cursor, self.count, self.loaded) = (etag, cursor, count, true);
        self.whole_at = Some(began);
        self.confirmed(began);
        self.after(began)
    }

    /// What follows a reading that began then.
    fn after(&mut self, began: MonotonicMillis) -> Next {
        let now = SystemClock.now().monotonic;
        if self.no_stream_until.is_some_and(|until| until > now) || self.short_streams > 1 {
            self.short_streams = self.short_streams.saturating_sub(1);
        } else if self.cursor.is_some() {
            return Next::Follow;
        }
        // Never later than the interval, and not all at once.
        let interval = self.shared.config.refresh().mul_f64(1.0 - fraction() / 5.0);
        let pause = interval.saturating_sub(Duration::from_millis(now.since(began)));
        Next::Read(pause.max(FIRST_PAUSE / 4))
    }

    /// Follows the stream of changes until it is better to read again.
    async fn follow_changes(&mut self) -> Next {
        let shared = Arc::clone(&self.shared);
        let Ok(_room) = shared.streams.try_acquire() else {
            return Next::Read(shared.config.refresh().mul_f64(1.0 - fraction() / 5.0));
        };
        let began = SystemClock.now().monotonic;
        let left = self.follow().await;
        let now = SystemClock.now().monotonic;
        let short = now.since(began) < SHORT_STREAM_MS;
        match left {
            Left::End => return Next::End,
            Left::Read => {}
            Left::Unsupported => {
                let pause = u64::try_from(NO_STREAM.as_millis()).unwrap_or(u64::MAX);
                self.no_stream_until = Some(MonotonicMillis(now.0.saturating_add(pause)));
                tracing::info!(service = self.service, "the API has no stream of changes; approvals are polled");
            }
            Left::Gone => (self.etag, self.cursor) = (None, None),
        }
        self.short_streams = if short { self.short_streams.saturating_add(1) } else { 0 };
        // Read at once; again and again only with pauses.
        let pause = if self.short_streams > 1 {
            pause_number(self.short_streams - 1, &shared.config.refresh())
        } else {
            Duration::ZERO
        };
        Next::Read(pause)
    }

    /// The key as it is on disk now.
    pub(super) async fn find_key(&self) -> Option<(Secret, KeySource)> {
        let (shared, service) = (Arc::clone(&self.shared), self.service.clone());
        let work = move || keys::find(&service, &shared.config.keys);
        tokio::task::spawn_blocking(work).await.ok().flatten()
    }

    async fn without_key(&mut self) -> Next {
        (self.key, self.etag, self.cursor) = (None, None, None);
        if self.shared.config.every_service {
            if let Some(change) = self.shared.publisher.begin_claims(&self.service) {
                self.shared.publish(change).await;
            }
            self.shared.metrics.record_claims_refresh("no_key");
            if self.missed(NO_SERVICE_KEY) {
                let file = self.shared.config.keys.file(&self.service).map(|file| file.display().to_string());
                tracing::warn!(
                    service = self.service,
                    variable = keys::variable(&self.service),
                    file = file.unwrap_or_default(),
                    "a service has no service key, so nobody can be approved for it; put the key into the file or \
                     the variable"
                );
            }
        } else {
            // Declared approvals alone count for it.
            self.forget().await;
        }
        Next::Read(self.shared.config.refresh())
    }

    /// The service has no claims source any more.
    async fn forget(&self) {
        if let Some(change) = self.shared.publisher.end_claims(&self.service) {
            self.shared.publish(change).await;
        }
        self.shared.overview.forget(&self.service);
    }

    /// The API has said what is published, in an answer to a question asked at `asked`.
    pub(super) fn confirmed(&mut self, asked: MonotonicMillis) {
        self.shared.confirm(&self.service, SystemClock.now().monotonic.since(asked));
        self.failures = 0;
        if let Some(Standing::Missed(reason)) = self.shared.overview.set(&self.service, Standing::Current) {
            tracing::info!(service = self.service, reason, "the approvals of a service are confirmed again");
        }
    }

    fn failed(&mut self, error: &FeedError) -> Next {
        self.shared.metrics.record_claims_refresh("failed");
        if self.missed(error.reason()) {
            match error {
                FeedError::TooMany { .. } => {
                    tracing::error!(service = self.service, %error, "the approvals of a service cannot be held");
                }
                // Another try is no help, and who reads this may not know that there is a key for all.
                FeedError::Api(refused) if self.key_source == KeySource::Shared && refused.reason() == UNAUTHORIZED => {
                    let service = &self.service;
                    tracing::warn!(
                        service,
                        %error,
                        "the approvals of a service cannot be read: it has no key of its own, and the key for all services \
                         is refused for it; register the service once: sigilum service add --service-slug {service}, or \
                         hand a key over on the connection's page of the dashboard"
                    );
                }
                FeedError::Api(_) | FeedError::Senseless(_) => {
                    tracing::warn!(service = self.service, %error, "the approvals of a service cannot be read");
                }
            }
        }
        let asked = match error {
            FeedError::Api(error) => error.retry_after(),
            FeedError::TooMany { .. } | FeedError::Senseless(_) => None,
        };
        Next::Read(self.pause_after_failure(asked))
    }

    /// Notes a missed confirmation. Returns whether it is news.
    fn missed(&self, reason: &'static str) -> bool {
        let standing = Standing::Missed(reason);
        self.shared.overview.set(&self.service, standing) != Some(standing)
    }

    fn pause_after_failure(&mut self, asked: Option<Duration>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        pause_number(self.failures, &self.shared.config.refresh()).max(asked.unwrap_or_default())
    }

    /// Waits; `true`: the task is to end.
    async fn ended_within(&mut self, pause: Duration) -> bool {
        let over = tokio::time::sleep(pause);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return false,
                // A failing API is not asked sooner for it, unless with another key.
                () = self.poke.notified() => {
                    if self.failures == 0 || self.has_another_key().await {
                        return false;
                    }
                }
                // Another interval counts from now on, and not only once the old one is over.
                Ok(()) = self.pace.changed(), if self.failures == 0 => return false,
                () = self.stop.wait() => return true,
                () = self.gone.wait() => return true,
            }
        }
    }

    /// Whether a key is there that the API was not asked with.
    pub(super) async fn has_another_key(&self) -> bool {
        self.find_key().await.is_some_and(|(key, _)| self.key.as_ref() != Some(&key))
    }
}

/// The pause after the failure of this number: doubling, bounded, and different for everybody.
fn pause_number(number: u32, interval: &Duration) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << number.saturating_sub(1).min(6));
    let longest = (*interval).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    doubled.min(longest).mul_f64(0.5 + fraction() / 2.0)
}

/// A random number from 0 to 1. Without randomness everybody does the same, which is only less polite.
fn fraction() -> f64 {
    random::bytes::<2>().map_or(0.0, |bytes| f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX))
}

//! Sending events until the control plane has settled each of them.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::Method;
use serde::Serialize;
use tokio::time::Instant;

use crate::claims::client::Answer;
use crate::claims::client::ApiClient;
use crate::claims::client::ApiError;
use crate::claims::client::Call;
use crate::claims::keys::KeyPlaces;
use crate::claims::keys::service_key;
use crate::claims::usage::verdict;
use crate::claims::usage::verdict::Verdict;
use crate::domain::secret::Secret;
use crate::sys::random;
use crate::sys::tasks::Stop;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::segments::Position;
use crate::telemetry::usage::Skipped;
use crate::wire::control_plane::BINDING_HEADER;
use crate::wire::control_plane::MAX_BATCH;
use crate::wire::control_plane::NAMESPACE_ONLY;
use crate::wire::control_plane::RefusedEvent;
use crate::wire::control_plane::USAGE_BATCH_PATH;
use crate::wire::control_plane::USAGE_PATH;
use crate::wire::control_plane::UsageEvent;

/// Longest time for one attempt.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer: what became of a whole batch.
const MAX_ANSWER: usize = 1024 * 1024;
/// Batches under way at a time.
const BATCHES_UNDER_WAY: usize = 4;
/// Single events under way at a time.
const SINGLES_UNDER_WAY: usize = 8;
/// How long an API that takes no batches is not asked again whether it does.
const ASK_FOR_BATCHES: Duration = Duration::from_secs(3600);

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two looks at a log that has ended.
    pub poll: Duration,
    /// Before the second attempt; doubled for each further one.
    pub first: Duration,
    /// Longest pause between two attempts, an API's own wish excepted.
    pub longest: Duration,
    /// How long events may hold up those behind them for something that is theirs alone: a refused service key, a
    /// proxy that does not like one.
    pub patience: Duration,
    /// How long a stop waits for what is left.
    pub flush: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            first: Duration::from_secs(1),
            longest: Duration::from_secs(30),
            patience: Duration::from_secs(600),
            flush: Duration::from_secs(5),
        }
    }
}

/// An event on its way.
#[derive(Debug)]
pub(in crate::claims) struct Pending {
    /// What is sent.
    pub(in crate::claims) event: UsageEvent,
    /// Where the log goes on behind it.
    pub(in crate::claims) behind: Position,
    settled: AtomicBool,
}

impl Pending {
    /// Not sent yet.
    pub(in crate::claims) const fn new(event: UsageEvent, behind: Position) -> Self {
        Self { event, behind, settled: AtomicBool::new(false) }
    }

    /// Whether nothing is left to be done for it.
    pub(in crate::claims) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }
}

/// Sends events of any service.
#[derive(Debug)]
pub(in crate::claims) struct Delivery {
    client: Arc<ApiClient>,
    keys: Arc<KeyPlaces>,
    metrics: Arc<Metrics>,
    pace: Pace,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Until when events go one by one.
    singles_until: Option<Instant>,
    /// What is wrong with a service, as long as it is. Only services with a key get here.
    troubles: HashMap<String, Trouble>,
}

#[derive(Debug)]
struct Trouble {
    reason: &'static str,
    /// Since when it is of a kind that is not waited for without an end.
    since: Option<Instant>,
    said: bool,
    /// Its key was refused: until when it is left alone, and how long it is the next time.
    rests_until: Option<Instant>,
    pause: Duration,
}

/// What an attempt came to.
struct Outcome {
    verdict: Verdict,
    answer: Result<Answer, ApiError>,
}

#[derive(Serialize)]
struct Batch<'a> {
    events: Vec<&'a UsageEvent>,
}

impl Delivery {
    /// Sends as the client's identity.
    pub(in crate::claims) fn new(
        client: Arc<ApiClient>,
        keys: Arc<KeyPlaces>,
        metrics: Arc<Metrics>,
        pace: Pace,
    ) -> Self {
        Self { client, keys, metrics, pace, state: Mutex::default() }
    }

    /// Sends the events and repeats what has to be repeated, until all are settled but those of services whose own key is
    /// refused: they are for a later call, and hold nobody else up. Once `halt` is called every event is tried at most
    /// once more.
    pub(in crate::claims) async fn deliver(&self, events: &[Pending], halt: &Stop) {
        let mut services: BTreeMap<&str, Vec<&Pending>> = BTreeMap::new();
        for event in events.iter().filter(|event| !event.is_settled()) {
            services.entry(&event.event.service).or_default().push(event);
        }
        if !halt.is_called() {
            services.retain(|service, _| !self.rests(service));
        }
        let (size, room) = if self.sends_batches() { (MAX_BATCH, BATCHES_UNDER_WAY) } else { (1, SINGLES_UNDER_WAY) };
        let mut parts = services.values().flat_map(|events| events.chunks(size));
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < room
                && let Some(part) = parts.next()
            {
                under_way.push(self.settle(part, halt.clone()));
            }
            if under_way.next().await.is_none() {
                return;
            }
        }
    }

    /// Settles events of one service.
    async fn settle(&self, part: &[&Pending], mut halt: Stop) {
        let Some(service) = part.first().map(|pending| pending.event.service.as_str()) else { return };
        let mut left = vec![part];
        let mut pause = self.pace.first;
        let mut patience_over = false;
        while let Some(next) = left.pop() {
            left.push(next);
            let Some(key) = self.key(service).await else {
                self.skip(left.into_iter().flatten(), Skipped::NoKey);
                return;
            };
            let Outcome { verdict, answer } = self.attempt(next, &key).await;
            match verdict {
                Verdict::Settled { duplicate, refused } => {
                    left.pop();
                    self.settled(next, duplicate, &refused);
                    self.recovered(service);
                    pause = self.pace.first;
                    continue;
                }
                Verdict::Refused(code, error) if next.len() == 1 => {
                    left.pop();
                    let refused = RefusedEvent { event_id: String::new(), code, error };
                    self.settled(next, 0, std::slice::from_ref(&refused));
                    continue;
                }
                // One of them may be the cause.
                Verdict::Refused(..) => {
                    left.pop();
                    let (first, second) = next.split_at(next.len() / 2);
                    left.extend([second, first]);
                    continue;
                }
                Verdict::NoBatches => {
                    left.pop();
                    self.lock().singles_until = Some(Instant::now() + ASK_FOR_BATCHES);
                    left.extend(next.chunks(1).rev());
                    continue;
                }
                Verdict::Unauthorized | Verdict::OfAnotherService | Verdict::Stuck(_) | Verdict::Later => {}
            }
            self.metrics.usage().record_retry();
            patience_over |= self.troubled(service, verdict != Verdict::Later, &answer);
            match verdict {
                // As if the service had none: those behind must not wait for a key nobody may ever make.
                Verdict::OfAnotherService => {
                    self.say_once_that_it_is_left_out(service);
                    self.skip(left.into_iter().flatten(), Skipped::Unauthorized);
                    return;
                }
                Verdict::Unauthorized if !patience_over => {
                    self.let_rest(service);
                    return;
                }
                _ if !patience_over => {}
                Verdict::Unauthorized => {
                    self.say_once_that_it_is_left_out(service);
                    self.skip(left.into_iter().flatten(), Skipped::Unauthorized);
                    return;
                }
                Verdict::Stuck(status) => {
                    left.pop();
                    if next.len() > 1 {
                        let (first, second) = next.split_at(next.len() / 2);
                        left.extend([second, first]);
                    } else {
                        let code = format!("NOT_JSON_{status}");
                        let error =
                            "something between the gateway and the API does not let the event through".to_owned();
                        self.settled(next, 0, &[RefusedEvent { event_id: String::new(), code, error }]);
                    }
                    continue;
                }
                Verdict::Settled { .. } | Verdict::Refused(..) | Verdict::NoBatches | Verdict::Later => {}
            }
            let wished = answer.as_ref().err().and_then(ApiError::retry_after).unwrap_or_default();
            tokio::select! {
                () = tokio::time::sleep(random::jittered(pause).max(wished)) => {}
                () = halt.wait() => return,
            }
            pause = pause.saturating_mul(2).min(self.pace.longest);
        }
    }

    async fn attempt(&self, events: &[&Pending], key: &Secret) -> Outcome {
        let one = events.first().filter(|_| events.len() == 1 && !self.sends_batches());
        let body = match one {
            // Who takes no batches may not know this member, and refuse it.
            Some(one) => serde_json::to_vec(&UsageEvent { occurred_at: None, ..one.event.clone() }),
            None => serde_json::to_vec(&Batch { events: events.iter().map(|pending| &pending.event).collect() }),
        };
        let body = body.unwrap_or_default();
        let call = Call {
            method: &Method::POST,
            path: if one.is_some() { USAGE_PATH } else { USAGE_BATCH_PATH },
            key: Some(key),
            // One event is signed for whom it was done; many have many.
            subject: one.map(|one| one.event.subject.as_str()),
            body: &body,
            headers: &[(BINDING_HEADER, NAMESPACE_ONLY)],
            limit: MAX_ANSWER,
            patience: PATIENCE,
        };
        let answer = self.client.send(call).await;
        let verdict = match one {
            // No fault of the events.
            _ if !key.expose().bytes().all(|byte| byte.is_ascii_graphic()) => Verdict::Unauthorized,
            Some(_) => verdict::of_single(&answer),
            None => verdict::of_batch(&answer, events.len()),
        };
        Outcome { verdict, answer }
    }

    async fn key(&self, service: &str) -> Option<Secret> {
        let (service, keys) = (service.to_owned(), Arc::clone(&self.keys));
        tokio::task::spawn_blocking(move || service_key(&service, &keys)).await.ok().flatten()
    }

    fn settled(&self, events: &[&Pending], duplicate: u64, refused: &[RefusedEvent]) {
        for RefusedEvent { code, error, .. } in refused {
            if self.metrics.usage().record_refused(code) {
                tracing::warn!(
                    code,
                    error,
                    "the control plane refuses usage events for good; further ones are counted"
                );
            }
        }
        let sent = events.len().saturating_sub(refused.len());
        self.metrics.usage().record_sent(sent as u64, duplicate);
        for pending in events {
            pending.settled.store(true, Ordering::Relaxed);
        }
    }

    fn skip<'a>(&self, events: impl Iterator<Item = &'a &'a Pending>, reason: Skipped) {
        let mut count = 0;
        for pending in events {
            pending.settled.store(true, Ordering::Relaxed);
            count += 1;
        }
        self.metrics.usage().record_skipped(reason, count);
    }

    /// Notes that an attempt failed. `true`: this has been `bounded` for too long to wait on.
    fn troubled(&self, service: &str, bounded: bool, answer: &Result<Answer, ApiError>) -> bool {
        let now = Instant::now();
        let reason = answer.as_ref().err().map_or("NotUnderstood", ApiError::reason);
        let mut state = self.lock();
        let pause = self.pace.first;
        let new = || Trouble { reason: "", since: None, said: false, rests_until: None, pause };
        let trouble = state.troubles.entry(service.to_owned()).or_insert_with(new);
        if trouble.reason != reason {
            trouble.reason = reason;
            match answer {
                Ok(answer) => {
                    let status = answer.status.as_u16();
                    tracing::warn!(service, status, "usage events are not taken: the answer was not understood");
                }
                Err(error) => tracing::warn!(service, %error, "usage events are not taken and wait in the access log"),
            }
        }
        bounded && now.duration_since(*trouble.since.get_or_insert(now)) >= self.pace.patience
    }

    /// Leaves a service alone for a while.
    fn let_rest(&self, service: &str) {
        if let Some(trouble) = self.lock().troubles.get_mut(service) {
            trouble.rests_until = Some(Instant::now() + random::jittered(trouble.pause));
            trouble.pause = trouble.pause.saturating_mul(2).min(self.pace.longest);
        }
    }

    fn rests(&self, service: &str) -> bool {
        let until = self.lock().troubles.get(service).and_then(|trouble| trouble.rests_until);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Gives up events that wait for a key, because too many do.
    pub(in crate::claims) fn give_up_waiting(&self, events: &[Pending]) {
        self.skip(events.iter().collect::<Vec<_>>().iter(), Skipped::Unauthorized);
    }

    fn say_once_that_it_is_left_out(&self, service: &str) {
        if let Some(trouble) = self.lock().troubles.get_mut(service)
            && !std::mem::replace(&mut trouble.said, true)
        {
            tracing::error!(
                service,
                "the service key is refused: usage events of this service are left out until one is accepted; a service \
                 without a key of its own is registered once: sigilum service add --service-slug {service}"
            );
        }
    }

    fn recovered(&self, service: &str) {
        if self.lock().troubles.remove(service).is_some() {
            tracing::info!(service, "usage events are taken again");
        }
    }

    fn sends_batches(&self) -> bool {
        let mut state = self.lock();
        if state.singles_until.is_some_and(|until| until <= Instant::now()) {
            state.singles_until = None;
        }
        state.singles_until.is_none()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The stream of changes of one service: what is approved or ended is published at once.
//!
//! The stream says that it is alive every two seconds; that confirms everything published. One that falls silent, ends
//! or says something that cannot be understood is left, and the feed is read again: nothing is ever concluded from
//! silence.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header;

use crate::claims::attendant::Attendant;
use crate::claims::client::ApiError;
use crate::claims::client::Call;
use crate::claims::events::EventParser;
use crate::claims::events::ServerEvent;
use crate::claims::feed::row_of_event;
use crate::domain::approval::Grant;
use crate::domain::approval::Source;
use crate::domain::ids::PublicKey;
use crate::domain::time::UnixSeconds;
use crate::state::Change;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::wire::control_plane::CHANGES_PATH;
use crate::wire::control_plane::change_event;
use crate::wire::state::encode_approval;
use crate::wire::state::proto;

/// A stream without an event for so long is not believed any more: three signs of life are missing.
const SILENCE: Duration = Duration::from_secs(6);
/// Everything is read again after so long on a stream, whatever it said.
const RESYNC: Duration = Duration::from_secs(300);
/// Single approvals of one change.
const CHUNK: usize = 2000;
/// Pieces of a stream that are taken together, if they are there.
const PIECES: usize = 64;
/// Longest cursor that is sent back.
const MAX_CURSOR: usize = 128;

/// Why a stream was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// The task is to end.
    End,
    /// The feed is to be read again.
    Read,
    /// The API has no such stream.
    Unsupported,
    /// What was known of the place in it does not hold any more.
    Gone,
}

/// What events that came together say: the last word on each approval, in no order; its expiry, or that it ended.
#[derive(Debug, Default)]
struct Batch {
    words: BTreeMap<(String, PublicKey), Option<Option<u64>>>,
    cursor: String,
}

impl Attendant {
    /// Follows the stream from the cursor on.
    pub(super) async fn follow(&mut self) -> Left {
        let (Some(cursor), Some(key)) = (self.cursor.clone(), self.key.as_ref().map(|key| key.duplicate())) else {
            return Left::Unsupported;
        };
        let clean = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if cursor.is_empty() || cursor.len() > MAX_CURSOR || !cursor.bytes().all(clean) {
            return Left::Unsupported;
        }
        let path = format!("{CHANGES_PATH}?after={cursor}&service={}", self.service);
        let headers = [("accept", "text/event-stream")];
        let call = Call { headers: &headers, patience: SILENCE, ..Call::get(&path, &key, 0) };
        let shared = std::sync::Arc::clone(&self.shared);
        let opened = tokio::select! {
            opened = shared.config.client.open(call) => opened,
            () = self.stop.wait() => return Left::End,
            () = self.gone.wait() => return Left::End,
        };
        let response = match opened {
            Ok(response) => response,
            Err(error) => return left_for(&error),
        };
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if !kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/event-stream")) {
            return Left::Unsupported;
        }
        tracing::debug!(service = self.service, "the stream of changes is open");
        let _open = shared.overview.stream();
        self.take_events(response).await
    }

    async fn take_events(&mut self, mut response: reqwest::Response) -> Left {
        let refresh = self.shared.config.refresh();
        let mut look = tokio::time::interval_at(tokio::time::Instant::now() + refresh, refresh);
        let mut silence = std::pin::pin!(tokio::time::sleep(SILENCE));
        let mut resync = std::pin::pin!(tokio::time::sleep(RESYNC));
        let mut parser = EventParser::default();
        let mut events = Vec::new();
        loop {
            let piece = tokio::select! {
                () = self.stop.wait() => return Left::End,
                () = self.gone.wait() => return Left::End,
                Ok(()) = self.pace.changed() => return Left::Read,
                () = &mut resync => return Left::Read,
                () = &mut silence => {
                    tracing::warn!(service = self.service, "the stream of changes has fallen silent");
                    return Left::Read;
                }
                _ = look.tick() => {
                    // The key may have been replaced or taken away.
                    if self.find_key().await.map(|(key, _)| key) != self.key {
                        return Left::Read;
                    }
                    continue;
                }
                // What is approved comes along the stream by itself; another key does not.
                () = self.poke.notified() => {
                    if self.has_another_key().await {
                        return Left::Read;
                    }
                    continue;
                }
                piece = response.chunk() => piece,
            };
            let received = SystemClock.now().monotonic;
            let Some(over) = read_pieces(piece, &mut response, &mut parser, &mut events) else {
                return Left::Read;
            };
            if !events.is_empty() {
                silence.as_mut().reset(tokio::time::Instant::now() + SILENCE);
                if !self.apply(std::mem::take(&mut events)).await {
                    return Left::Read;
                }
                self.confirmed(received);
            }
            if over {
                return Left::Read;
            }
        }
    }

    /// Publishes what the events say. `false`: everything has to be read again.
    async fn apply(&mut self, events: Vec<ServerEvent>) -> bool {
        let Some(batch) = Batch::of(events, &self.service) else { return false };
        if !batch.words.is_empty() {
            // What was read last is not what is published from here on.
            self.etag = None;
            let (added, ended) = batch.changes(&self.service);
            let count = self.count.saturating_add(added.len()).saturating_sub(ended.len());
            if count > self.shared.config.max_approvals() {
                return false;
            }
            self.count = count;
            let ended = ended.chunks(CHUNK).map(|chunk| Change::RemoveApprovals(chunk.to_vec()));
            let added = added.chunks(CHUNK).map(|chunk| Change::AddApprovals(chunk.to_vec()));
            for change in ended.chain(added).collect::<Vec<_>>() {
                if !self.shared.publish(change).await {
                    return false;
                }
            }
        }
        if !batch.cursor.is_empty() {
            self.cursor = Some(batch.cursor);
        }
        true
    }
}

impl Batch {
    /// `None`: something cannot be understood.
    fn of(events: Vec<ServerEvent>, service: &str) -> Option<Self> {
        let mut batch = Self::default();
        for event in events {
            batch.cursor = event.id;
            let ends = match event.name.as_str() {
                change_event::APPROVED => false,
                change_event::ENDED => true,
                _ => continue,
            };
            let (namespace, key, expires_at) = row_of_event(&event.data, service, ends)?;
            batch.words.insert((namespace, key), (!ends).then_some(expires_at));
        }
        Some(batch)
    }

    /// What is approved, and what ended.
    fn changes(&self, service: &str) -> (Vec<proto::Approval>, Vec<proto::Approval>) {
        let (mut added, mut ended) = (Vec::new(), Vec::new());
        for ((namespace, key), word) in &self.words {
            let expires_at = word.flatten().map(UnixSeconds);
            let approval = encode_approval(key, &Grant { service, namespace, source: Source::Claims, expires_at });
            if word.is_some() { added.push(approval) } else { ended.push(approval) }
        }
        (added, ended)
    }
}

/// Reads a piece and those that are there already. Whether the stream is over; `None`: it cannot be understood.
fn read_pieces(
    first: reqwest::Result<Option<Bytes>>,
    response: &mut reqwest::Response,
    parser: &mut EventParser,
    events: &mut Vec<ServerEvent>,
) -> Option<bool> {
    let mut piece = Some(first);
    for _ in 0..PIECES {
        match piece {
            Some(Ok(Some(bytes))) => parser.read(&bytes, events).ok()?,
            Some(Ok(None) | Err(_)) => return Some(true),
            None => break,
        }
        piece = response.chunk().now_or_never();
    }
    Some(false)
}

fn left_for(error: &ApiError) -> Left {
    match error.status() {
        Some(404 | 405 | 501) => Left::Unsupported,
        Some(410) => Left::Gone,
        Some(_) | None => Left::Read,
    }
}

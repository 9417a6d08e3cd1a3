//! Serving the sockets of bridges, all of them by one owner: [`keep`], which ends them when the process is to stop.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::ws::CloseFrame;
use axum::extract::ws::Message;
use axum::extract::ws::Utf8Bytes;
use axum::extract::ws::WebSocket;
use futures_util::SinkExt as _;
use futures_util::StreamExt as _;
use futures_util::stream::SplitSink;
use futures_util::stream::SplitStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite;

use crate::api::moment;
use crate::api::pairing::line::Goodbye;
use crate::api::pairing::line::Line;
use crate::api::pairing::line::Lost;
use crate::api::pairing::line::QUEUE;
use crate::api::pairing::records;
use crate::api::pairing::sessions::Admitted;
use crate::api::pairing::sessions::Pairings;
use crate::domain::secret::Secret;
use crate::sys::clock::Clock as _;
use crate::sys::tasks::Stop;
use crate::wire::pairing::FromBridge;
use crate::wire::pairing::ToBridge;

/// How long the other end may take to answer a closing frame.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often the wall clock is asked whether a session is over: it may be set while we sleep.
const CLOCK_STEP: Duration = Duration::from_secs(30);
/// Messages larger than this are read beside the runtime's threads, in bytes.
const LARGE_MESSAGE: usize = 256 * 1024;

/// Sockets that have been upgraded.
#[derive(Debug)]
pub struct Arrivals(pub(super) mpsc::Receiver<Arrival>);

/// One of them.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) socket: WebSocket,
    pub(super) admitted: Admitted,
    /// Its room among all sockets.
    pub(super) room: OwnedSemaphorePermit,
}

/// Serves every bridge that arrives until told to stop; then says goodbye to each.
pub async fn keep(pairings: Arc<Pairings>, mut arrivals: Arrivals, mut stop: Stop) {
    let mut sockets = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.wait() => break,
            Some(_) = sockets.join_next() => {}
            Some(arrival) = arrivals.0.recv() => {
                sockets.spawn(serve(Arc::clone(&pairings), arrival, stop.clone()));
            }
        }
    }
    // Who arrives from here on finds nobody, and his socket is closed.
    drop(arrivals);
    while sockets.join_next().await.is_some() {}
}

async fn serve(pairings: Arc<Pairings>, arrival: Arrival, mut stop: Stop) {
    let Arrival { socket, admitted, room: _room } = arrival;
    let Admitted { session, reconnect: _, reconnect_hash, instead_of, address } = admitted;
    let (outbound, mut queue) = mpsc::channel(QUEUE);
    let (mut sink, mut stream) = socket.split();
    let joined = pairings.hub.join(&session.id, instead_of, address, outbound, session.expires_at_ms);
    let Some(line) = joined else {
        return farewell(&mut sink, &mut stream, Goodbye::Replaced).await;
    };
    // Also where this task is dropped: nobody may wait for answers that cannot come.
    let membership =
        Membership { pairings: &pairings, session: &session.id, line: &line, too_large: AtomicBool::new(false) };
    let (id, now_ms) = (session.id.clone(), moment::now_ms(pairings.clock));
    let goodbye =
        match pairings.db.write(move |db| Ok(records::connected(db, &id, now_ms, reconnect_hash.as_deref())?)).await {
            Ok(true) => {
                tracing::info!(session = %session.id, namespace = %session.namespace, %address, "a bridge has joined");
                tokio::select! {
                    goodbye = line.told_to_end() => goodbye,
                    goodbye = lease(&pairings, &line) => goodbye,
                    goodbye = beat(&pairings, &line) => goodbye,
                    goodbye = write(&mut sink, &mut queue) => goodbye,
                    goodbye = read(&pairings, &mut stream, &line, (&session.id, session.created_at_ms)) => goodbye,
                    () = stop.wait() => Goodbye::Stopping,
                }
            }
            Ok(false) => Goodbye::Expired,
            // It comes back in a while, when the database may be used again.
            Err(_) => Goodbye::Stopping,
        };
    if goodbye == Goodbye::TooLarge {
        tracing::warn!(session = %session.id, "an answer of a gateway was too large to be relayed");
        membership.too_large.store(true, Ordering::Relaxed);
    }
    drop(membership);
    tracing::info!(session = %session.id, ?goodbye, "a bridge has left");
    farewell(&mut sink, &mut stream, goodbye).await;
}

/// A socket's being its session's.
struct Membership<'a> {
    pairings: &'a Pairings,
    session: &'a str,
    line: &'a Line,
    too_large: AtomicBool,
}

impl Drop for Membership<'_> {
    fn drop(&mut self) {
        let lost = if *self.too_large.get_mut() { Lost::TooLarge } else { Lost::Disconnected };
        self.pairings.hub.leave(self.session, self.line, lost);
    }
}

/// Writes what is queued.
async fn write(sink: &mut SplitSink<WebSocket, Message>, queue: &mut mpsc::Receiver<Secret>) -> Goodbye {
    while let Some(frame) = queue.recv().await {
        if sink.send(Message::Text(Utf8Bytes::from(frame.expose()))).await.is_err() {
            break;
        }
    }
    Goodbye::Gone
}

/// Reads what comes.
async fn read(
    pairings: &Pairings,
    stream: &mut SplitStream<WebSocket>,
    line: &Line,
    (session, created_at_ms): (&str, i64),
) -> Goodbye {
    while let Some(message) = stream.next().await {
        let text = match message {
            Ok(Message::Text(text)) => text,
            Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_)) => {
                line.note_heard();
                continue;
            }
            Ok(Message::Close(_)) => return Goodbye::Gone,
            Err(error) => return broken(error),
        };
        line.note_heard();
        match parse(text).await {
            Some(FromBridge::Ping) => line.mention(ToBridge::Pong.write(pairings.clock.now().wall)),
            Some(FromBridge::Pong) => {}
            Some(FromBridge::Response(relayed)) => {
                line.answer(relayed);
                continue;
            }
            None => continue,
        }
        let now_ms = moment::now_ms(pairings.clock);
        let Some(until_ms) = pairings.extended(created_at_ms, line.expires_at_ms(), now_ms) else { continue };
        let id = session.to_owned();
        match pairings.db.write(move |db| Ok(records::extend(db, &id, until_ms, now_ms)?)).await {
            Ok(true) => line.set_expiry(until_ms),
            Ok(false) => return Goodbye::Expired,
            Err(problem) => tracing::warn!(code = problem.code(), "a pair session could not be extended"),
        }
    }
    Goodbye::Gone
}

async fn parse(text: Utf8Bytes) -> Option<FromBridge> {
    if text.len() < LARGE_MESSAGE {
        return FromBridge::read(&text);
    }
    tokio::task::spawn_blocking(move || FromBridge::read(&text)).await.ok().flatten()
}

fn broken(error: axum::Error) -> Goodbye {
    let inner = error.into_inner();
    match inner.downcast_ref::<tungstenite::Error>() {
        Some(tungstenite::Error::Capacity(_)) => Goodbye::TooLarge,
        Some(_) | None => Goodbye::Gone,
    }
}

/// Returns once nothing was heard for too long.
async fn beat(pairings: &Pairings, line: &Line) -> Goodbye {
    let limits = &pairings.limits;
    loop {
        if line.is_heard(limits.heartbeat).await {
            continue;
        }
        let question = ToBridge::Ping.write(pairings.clock.now().wall);
        if !line.answers(question, limits.silence.saturating_sub(limits.heartbeat)).await {
            return Goodbye::Gone;
        }
    }
}

/// Returns once the session is over.
async fn lease(pairings: &Pairings, line: &Line) -> Goodbye {
    loop {
        let left_ms = line.expires_at_ms().saturating_sub(moment::now_ms(pairings.clock));
        let Ok(left_ms @ 1..) = u64::try_from(left_ms) else { return Goodbye::Expired };
        tokio::time::sleep(Duration::from_millis(left_ms).min(CLOCK_STEP)).await;
    }
}

/// Says why, and waits a moment for the other end to have read it.
async fn farewell(sink: &mut SplitSink<WebSocket, Message>, stream: &mut SplitStream<WebSocket>, goodbye: Goodbye) {
    let (code, reason) = goodbye.wire();
    let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
    let exchange = async {
        // Refused where the other end said it first: the answer to that is then what is to be flushed.
        let _ = sink.send(Message::Close(Some(frame))).await;
        let _ = sink.flush().await;
        while let Some(Ok(_)) = stream.next().await {}
    };
    let _ = tokio::time::timeout(FAREWELL, exchange).await;
}

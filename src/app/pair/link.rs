//! One open socket: messages come in one by one, what goes out waits in a bounded queue, and neither holds up the
//! other.

use std::pin::Pin;
use std::time::Duration;

use futures_util::SinkExt as _;
use futures_util::StreamExt as _;
use futures_util::stream::SplitSink;
use futures_util::stream::SplitStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::app::json_api::readable;
use crate::app::pair::handshake::Socket;
use crate::pair::frames::ToBridge;
use crate::pair::session::MAX_RELAYS;
use crate::sys::http::chain;

/// Frames that may wait to be sent.
const OUTBOX: usize = 2 * MAX_RELAYS;
/// Room that is kept for the answers to requests under way and for signs of life: while there is less, nothing more is
/// read, so that a control plane that does not read cannot have us keep what it does not take.
const RESERVE: usize = MAX_RELAYS + 8;
/// How long the other side may take to let go of a socket that is being closed.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
/// Where a connection broke off without a close frame (RFC 6455 section 7.1.5).
const ABNORMAL: u16 = 1006;
/// Where a close frame holds no code (the same section).
const NO_STATUS: u16 = 1005;

/// What came.
#[derive(Debug)]
pub(super) enum Came {
    /// A frame, or a sign of life that is none.
    Heard(Option<ToBridge>),
    /// The end.
    Closed { code: u16, reason: String },
}

/// An open socket.
pub(super) struct Link {
    incoming: SplitStream<Socket>,
    outbox: mpsc::Sender<Message>,
    /// Sends what waits; ends with an error where that fails, or when the outbox is closed and empty.
    writer: Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>,
}

impl Link {
    pub(super) fn new(socket: Socket) -> Self {
        let (sink, incoming) = socket.split();
        let (outbox, waiting) = mpsc::channel(OUTBOX);
        Self { incoming, outbox, writer: Box::pin(write(sink, waiting)) }
    }

    /// The next message. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Came {
        let has_room = self.outbox.capacity() > RESERVE;
        tokio::select! {
            message = self.incoming.next(), if has_room => came(message),
            written = &mut self.writer => match written {
                Ok(()) => Came::Closed { code: ABNORMAL, reason: String::new() },
                Err(error) => broken(&error),
            },
            // One frame less waits: there may be room now.
            _ = self.outbox.reserve_many(RESERVE + 1), if !has_room => Came::Heard(None),
        }
    }

    /// Sends a frame when its turn comes.
    pub(super) fn send(&self, text: String) {
        // What does not fit belongs to a connection that is about to be found broken.
        let _ = self.outbox.try_send(Message::text(text));
    }

    /// Sends what waits and a close frame, and waits a moment for the other side to do the same.
    pub(super) async fn close(self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        let Self { mut incoming, outbox, writer } = self;
        let work = async move {
            if outbox.send(Message::Close(Some(frame))).await.is_ok() {
                drop(outbox);
                // It is over either way.
                let _ = writer.await;
                while incoming.next().await.is_some_and(|message| message.is_ok()) {}
            }
        };
        let _ = tokio::time::timeout(CLOSE_PATIENCE, work).await;
    }

    /// Lets the other side have its close frame answered.
    pub(super) async fn let_go(mut self) {
        let rest = async { while self.incoming.next().await.is_some_and(|message| message.is_ok()) {} };
        let _ = tokio::time::timeout(CLOSE_PATIENCE, rest).await;
    }
}

async fn write(mut sink: SplitSink<Socket, Message>, mut waiting: mpsc::Receiver<Message>) -> Result<(), Error> {
    while let Some(message) = waiting.recv().await {
        sink.send(message).await?;
    }
    Ok(())
}

fn came(message: Option<Result<Message, Error>>) -> Came {
    match message {
        Some(Ok(Message::Text(text))) => Came::Heard(ToBridge::read(&text)),
        Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Came::Heard(None),
        Some(Ok(Message::Close(Some(frame)))) => {
            Came::Closed { code: frame.code.into(), reason: readable(&frame.reason) }
        }
        Some(Ok(Message::Close(None))) => Came::Closed { code: NO_STATUS, reason: String::new() },
        Some(Err(error)) => broken(&error),
        None => Came::Closed { code: ABNORMAL, reason: String::new() },
    }
}

fn broken(error: &Error) -> Came {
    Came::Closed { code: ABNORMAL, reason: readable(&chain(error)) }
}

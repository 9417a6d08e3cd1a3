//! Registrations on their way from authz to admin and back, on the stream both have open anyway.
//!
//! Everything is bounded and nothing waits for room: a registration that finds none is answered at once,
//! and authz goes on without.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::task::Poll;

use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::wire::state::proto;

/// Registrations one stream waits for at a time, on either end.
pub(super) const MAX_IN_FLIGHT: usize = 64;
/// Registrations of all streams that wait to be taken up.
const QUEUE: usize = 64;

/// A registration as admin takes it up.
#[derive(Debug)]
pub struct Registration {
    /// What authz asks for. Its `id` means nothing here.
    pub register: proto::Register,
    /// What became of it; the `id` is filled in on the way back. Dropped: authz is told that it failed, whether or not
    /// anything was sent.
    pub answer: oneshot::Sender<proto::Registered>,
}

/// Where admin's sessions hand registrations to whoever takes them up.
#[derive(Debug, Default)]
pub(super) struct Office {
    queue: Mutex<Option<mpsc::Sender<Registration>>>,
}

impl Office {
    /// From now on this receiver takes them up, and no earlier one.
    pub(super) fn open(&self) -> mpsc::Receiver<Registration> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        *self.queue() = Some(sender);
        receiver
    }

    /// Says where the answer will come, or why there is none to wait for.
    fn hand_in(&self, register: proto::Register) -> Result<oneshot::Receiver<proto::Registered>, &'static str> {
        let queue = self.queue().clone().ok_or(NOBODY)?;
        let (answer, answered) = oneshot::channel();
        match queue.try_send(Registration { register, answer }) {
            Ok(()) => Ok(answered),
            Err(mpsc::error::TrySendError::Full(_)) => Err(BUSY),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(NOBODY),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Option<mpsc::Sender<Registration>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const BUSY: &str = "the gateway is busy";
const NOBODY: &str = "the gateway registers nothing";
const DROPPED: &str = "the gateway gave up";

fn failed(id: u64, error: &str) -> proto::Registered {
    proto::Registered {
        id,
        result: proto::RegisterResult::FailedBeforeResponse.into(),
        error: error.to_owned(),
        ..proto::Registered::default()
    }
}

/// One stream's registrations on admin's end.
///
/// A session reads the next word of its authz only when there is nothing to send, so at most
/// [`MAX_IN_FLIGHT`] answers, and one, are ever held.
#[derive(Debug, Default)]
pub(super) struct Counter {
    waiting: Vec<(u64, oneshot::Receiver<proto::Registered>)>,
    ready: VecDeque<proto::Registered>,
}

impl Counter {
    /// Takes a registration of the authz.
    pub(super) fn take(&mut self, office: &Office, register: proto::Register) {
        let id = register.id;
        if self.waiting.len() >= MAX_IN_FLIGHT {
            self.ready.push_back(failed(id, BUSY));
            return;
        }
        match office.hand_in(register) {
            Ok(answered) => self.waiting.push((id, answered)),
            Err(error) => self.ready.push_back(failed(id, error)),
        }
    }

    /// An answer that can be sent now.
    pub(super) fn ready(&mut self) -> Option<proto::Registered> {
        self.collect(|answered| match answered.try_recv() {
            Ok(registered) => Some(Ok(registered)),
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(())),
            Err(oneshot::error::TryRecvError::Empty) => None,
        });
        self.ready.pop_front()
    }

    /// Returns when [`Counter::ready`] has something to say. May be dropped and called again.
    pub(super) async fn wait(&mut self) {
        poll_fn(|context| {
            self.collect(|answered| match Pin::new(answered).poll(context) {
                Poll::Ready(answered) => Some(answered.map_err(drop)),
                Poll::Pending => None,
            });
            if self.ready.is_empty() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    fn collect(
        &mut self,
        mut look: impl FnMut(&mut oneshot::Receiver<proto::Registered>) -> Option<Result<proto::Registered, ()>>,
    ) {
        let Self { waiting, ready } = self;
        waiting.retain_mut(|(id, answered)| match look(answered) {
            Some(Ok(registered)) => {
                ready.push_back(proto::Registered { id: *id, ..registered });
                false
            }
            Some(Err(())) => {
                ready.push_back(failed(*id, DROPPED));
                false
            }
            None => true,
        });
    }
}

/// Asks admin to register an unapproved caller; a clone is another handle to the same stream.
#[derive(Debug, Clone, Default)]
pub struct RegistrarLink {
    open: Arc<Mutex<Option<mpsc::Sender<Ask>>>>,
}

/// A registration that waits to be sent, and where its answer is awaited.
#[derive(Debug)]
pub(super) struct Ask {
    register: proto::Register,
    answer: oneshot::Sender<proto::Registered>,
}

impl RegistrarLink {
    /// What became of a registration; its `id` is chosen here. `None`: there is no stream, too many are in flight,
    /// or the stream ended first. Takes as long as the control plane does: whoever waits sets the limit. Giving up
    /// does not call the registration back.
    pub async fn register(&self, register: proto::Register) -> Option<proto::Registered> {
        let asks = self.sender().clone()?;
        let (answer, answered) = oneshot::channel();
        asks.try_send(Ask { register, answer }).ok()?;
        // Held on, it would keep the channel open after the stream has ended.
        drop(asks);
        answered.await.ok()
    }

    /// A stream has begun, on which registrations can be sent until the result is dropped.
    pub(super) fn begin(&self) -> Asks {
        let (sender, queue) = mpsc::channel(MAX_IN_FLIGHT);
        *self.sender() = Some(sender);
        Asks { link: self.clone(), queue, waiting: HashMap::new(), last: 0 }
    }

    fn sender(&self) -> MutexGuard<'_, Option<mpsc::Sender<Ask>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream's registrations on authz's end.
#[derive(Debug)]
pub(super) struct Asks {
    link: RegistrarLink,
    queue: mpsc::Receiver<Ask>,
    waiting: HashMap<u64, oneshot::Sender<proto::Registered>>,
    last: u64,
}

impl Asks {
    /// The next registration to be sent. May be dropped and called again.
    pub(super) async fn next(&mut self) -> proto::Register {
        loop {
            match self.queue.recv().await {
                // Who is turned away here is told so by the drop.
                Some(_) if self.waiting.len() >= MAX_IN_FLIGHT => {}
                Some(Ask { mut register, answer }) => {
                    self.last = self.last.saturating_add(1);
                    register.id = self.last;
                    self.waiting.insert(self.last, answer);
                    return register;
                }
                // The sender is ours to drop, and we have not.
                None => std::future::pending().await,
            }
        }
    }

    /// Hands an answer to whoever waits for it.
    pub(super) fn answered(&mut self, registered: proto::Registered) {
        if let Some(answer) = self.waiting.remove(&registered.id) {
            // Whoever asked may have left.
            let _ = answer.send(registered);
        }
    }

    /// A registration could not be sent after all.
    pub(super) fn unsent(&mut self, id: u64) {
        self.waiting.remove(&id);
    }
}

impl Drop for Asks {
    fn drop(&mut self) {
        *self.link.sender() = None;
    }
}

#[cfg(test)]
#[path = "registration_tests.rs"]
#[allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic and start tasks of its own")]
mod tests;

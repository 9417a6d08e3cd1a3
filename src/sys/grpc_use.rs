//! What a connection with a certificate is used for: whether a request is open on it, and how many there are with the same
//! names. Whoever has a certificate connects as often as he likes; that must cost nobody else the connection he needs.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use hyper::body::Body;
use hyper::body::Frame;
use hyper::body::SizeHint;
use tokio::sync::watch;

/// How long a connection may have no request open.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Before its first one.
    pub first: Duration,
    /// After that; `None`: as long as it likes.
    pub later: Option<Duration>,
}

/// The requests of one connection.
#[derive(Debug)]
pub(super) struct Requests {
    open: watch::Sender<usize>,
    patience: Patience,
}

impl Requests {
    pub(super) fn new(patience: Patience) -> Arc<Self> {
        Arc::new(Self { open: watch::channel(0).0, patience })
    }

    /// One begins. What is returned is to live as long as it does; `None`: nobody asks when it ends.
    pub(super) fn begin(self: &Arc<Self>) -> Option<OpenRequest> {
        if self.patience.later.is_none() {
            // Said once: a check must not pay for what is known.
            if *self.open.borrow() == 0 {
                self.open.send_replace(1);
            }
            return None;
        }
        self.open.send_modify(|open| *open = open.saturating_add(1));
        Some(OpenRequest(Arc::clone(self)))
    }

    /// Returns when none was open for too long. `used` is called once one was.
    pub(super) async fn idle(&self, used: impl FnOnce()) {
        let mut open = self.open.subscribe();
        // Errors mean that nobody counts any more, which cannot be: we do.
        if tokio::time::timeout(self.patience.first, open.wait_for(|open| *open > 0)).await.is_err() {
            return;
        }
        used();
        let Some(later) = self.patience.later else { return std::future::pending().await };
        loop {
            drop(open.wait_for(|open| *open == 0).await);
            if tokio::time::timeout(later, open.wait_for(|open| *open > 0)).await.is_err() {
                return;
            }
        }
    }
}

/// A request that is open until this is dropped.
#[derive(Debug)]
pub(super) struct OpenRequest(Arc<Requests>);

impl OpenRequest {
    /// Its answer; with the last of that it is over.
    pub(super) const fn until_end_of<B>(self, body: B) -> Answered<B> {
        Answered { body, _open: self }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open = open.saturating_sub(1));
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct Answered<B> {
    body: B,
    _open: OpenRequest,
}

impl<B: Body + Unpin> Body for Answered<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How many connections there are by the names in their certificates.
#[derive(Debug, Default)]
pub(super) struct Shares(Mutex<HashMap<Arc<[String]>, usize>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    shares: Arc<Shares>,
    names: Arc<[String]>,
}

impl Shares {
    /// One more; `None` where there are `most` with these names.
    pub(super) fn take(self: &Arc<Self>, names: &Arc<[String]>, most: usize) -> Option<Share> {
        let mut counts = self.counts();
        let count = counts.get(names).copied().unwrap_or_default();
        if count >= most {
            return None;
        }
        counts.insert(Arc::clone(names), count.saturating_add(1));
        Some(Share { shares: Arc::clone(self), names: Arc::clone(names) })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Arc<[String]>, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.shares.counts();
        match counts.get_mut(&self.names) {
            Some(count) if *count > 1 => *count = count.saturating_sub(1),
            Some(_) | None => drop(counts.remove(&self.names)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn nobody_takes_more_than_his_share_and_what_is_given_back_is_free() {
        let shares = Arc::new(Shares::default());
        let [one, other]: [Arc<[String]>; 2] = [vec!["one.test".to_owned()].into(), Vec::new().into()];
        let held = [shares.take(&one, 2).unwrap(), shares.take(&one, 2).unwrap()];
        assert!(shares.take(&one, 2).is_none());
        let _others = shares.take(&other, 2).unwrap();
        drop(held);
        assert_eq!(shares.counts().len(), 1, "nothing is kept of those who are gone");
        shares.take(&one, 2).unwrap();
    }

    /// What has waited for long enough at once.
    const NONE: Duration = Duration::ZERO;

    async fn ends_at_once(idle: Pin<&mut impl Future<Output = ()>>) -> bool {
        tokio::select! {
            biased;
            () = idle => true,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn a_connection_is_idle_without_a_request_and_not_with_one() {
        let requests = Requests::new(Patience { first: NONE, later: Some(NONE) });
        requests.idle(|| unreachable!("none came")).await;
        let mut used = false;
        {
            let open = requests.begin().unwrap();
            let mut idle = std::pin::pin!(requests.idle(|| used = true));
            assert!(!ends_at_once(idle.as_mut()).await);
            drop(open.until_end_of(tonic::body::Body::empty()));
            idle.await;
        }
        assert!(used);
    }

    #[tokio::test]
    async fn where_connections_may_rest_one_request_is_enough() {
        let requests = Requests::new(Patience { first: NONE, later: None });
        assert!(requests.begin().is_none() && requests.begin().is_none());
        let mut used = false;
        assert!(!ends_at_once(std::pin::pin!(requests.idle(|| used = true))).await);
        assert!(used);
    }
}

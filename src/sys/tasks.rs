//! Every task has a name and an owner: the first that ends stops the rest.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

/// Tells a task that it should end; cheap to clone.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Returns when the stop is called, or when whoever could call it is gone.
    pub async fn wait(&mut self) {
        let _ = self.0.wait_for(|stopped| *stopped).await;
    }

    /// Whether it has been called.
    pub fn is_called(&self) -> bool {
        *self.0.borrow()
    }
}

/// The other end: calls the stop.
#[derive(Debug, Clone)]
pub struct StopHandle(watch::Sender<bool>);

impl StopHandle {
    /// Tells every task to end.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// A stop of its own, for something that must end before or after the rest.
pub fn stop_pair() -> (StopHandle, Stop) {
    let (sender, receiver) = watch::channel(false);
    (StopHandle(sender), Stop(receiver))
}

/// A set of named tasks with one life.
#[derive(Debug)]
pub struct Tasks {
    set: JoinSet<&'static str>,
    stop: watch::Sender<bool>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self { set: JoinSet::new(), stop: watch::channel(false).0 }
    }
}

/// How a set of tasks ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// All ended after the stop was called.
    Stopped,
    /// A task ended by itself, or panicked (`None`: which one is not known).
    Early(Option<&'static str>),
    /// Not all ended within the grace period; they were aborted.
    Forced,
}

impl Tasks {
    /// A listener for the stop.
    pub fn stop_signal(&self) -> Stop {
        Stop(self.stop.subscribe())
    }

    /// A handle that can call the stop from elsewhere.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(self.stop.clone())
    }

    /// Starts a task under a name. It is handed the stop and is expected to end soon after it.
    pub fn spawn<F>(&mut self, name: &'static str, make: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let work = make(self.stop_signal());
        self.set.spawn(async move {
            work.await;
            name
        });
    }

    /// Waits until the stop is called or a task ends, then gives the rest `grace` to end.
    pub async fn supervise(mut self, grace: Duration) -> Ended {
        let mut stop = self.stop_signal();
        let first = tokio::select! {
            () = stop.wait() => Ended::Stopped,
            ended = self.set.join_next() => match ended {
                Some(Ok(name)) => {
                    if stop.is_called() { Ended::Stopped } else { Ended::Early(Some(name)) }
                }
                Some(Err(_)) => Ended::Early(None),
                None => Ended::Stopped,
            },
        };
        self.stop.send_replace(true);
        let rest = async { while self.set.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, rest).await.is_err() {
            self.set.shutdown().await;
            return if first == Ended::Stopped { Ended::Forced } else { first };
        }
        first
    }
}

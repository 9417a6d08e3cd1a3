//! Room for so many connections at a time. In a guarded room, who was not let in yet leaves before anybody waits outside:
//! connections cost a stranger nothing, and must not keep the owner away from his own door.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::watch;

/// Room for connections, of all listeners together.
#[derive(Debug)]
pub struct Room {
    places: Arc<Semaphore>,
    /// Who was not let in yet, oldest first; `None`: nobody is asked to leave.
    strangers: Option<Mutex<Strangers>>,
}

#[derive(Debug, Default)]
struct Strangers {
    next: u64,
    waiting: BTreeMap<u64, watch::Sender<bool>>,
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub struct Place {
    admission: Admission,
    leave: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

/// Says of a connection that somebody on it was let in; every request carries it as an extension.
#[derive(Debug, Clone)]
pub struct Admission {
    room: Arc<Room>,
    number: u64,
}

impl Room {
    /// Room for `places` connections; further ones wait until one ends.
    pub fn new(places: usize) -> Arc<Self> {
        Arc::new(Self { places: Arc::new(Semaphore::new(places)), strangers: None })
    }

    /// The same, where the oldest connection on which nobody was let in is told to leave once the room is full.
    pub fn guarded(places: usize) -> Arc<Self> {
        Arc::new(Self { places: Arc::new(Semaphore::new(places)), strangers: Some(Mutex::default()) })
    }

    /// A place, as soon as there is one.
    pub async fn take(self: &Arc<Self>) -> Result<Place, tokio::sync::AcquireError> {
        let permit = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                if let Some((_, oldest)) = self.strangers().and_then(|mut strangers| strangers.waiting.pop_first()) {
                    oldest.send_replace(true);
                }
                Arc::clone(&self.places).acquire_owned().await?
            }
        };
        let (told, leave) = watch::channel(false);
        let number = self.strangers().map_or(0, |mut strangers| {
            let number = strangers.next;
            strangers.next = number.wrapping_add(1);
            strangers.waiting.insert(number, told);
            number
        });
        Ok(Place { admission: Admission { room: Arc::clone(self), number }, leave, _permit: permit })
    }

    fn strangers(&self) -> Option<MutexGuard<'_, Strangers>> {
        let strangers = self.strangers.as_ref()?;
        Some(strangers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Place {
    /// To be put on each request of the connection.
    pub fn admission(&self) -> Admission {
        self.admission.clone()
    }

    /// Returns once the connection is to leave; never where it may stay.
    pub fn told_to_leave(&self) -> impl Future<Output = ()> + use<> {
        let mut leave = self.leave.clone();
        async move {
            // Who was let in has nobody to tell it any more.
            if leave.wait_for(|told| *told).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.admit();
    }
}

impl Admission {
    /// Somebody on this connection was let in: it stays as long as it likes.
    pub fn admit(&self) {
        if let Some(mut strangers) = self.room.strangers() {
            strangers.waiting.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use std::task::Poll;

    use super::*;

    fn is_told(place: &Place) -> bool {
        let mut told = std::pin::pin!(place.told_to_leave());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        told.as_mut().poll(&mut context) == Poll::Ready(())
    }

    #[tokio::test]
    async fn the_oldest_stranger_makes_room() {
        let room = Room::guarded(3);
        let places = [room.take().await.unwrap(), room.take().await.unwrap(), room.take().await.unwrap()];
        places[0].admission().admit();
        assert!(places.iter().all(|place| !is_told(place)));
        let [first, second, third] = places;
        let (next, ()) = tokio::join!(room.take(), async {
            second.told_to_leave().await;
            assert!(!is_told(&first) && !is_told(&third));
            drop(second);
        });
        let next = next.unwrap();
        assert!([&first, &third, &next].iter().all(|place| !is_told(place)));
    }

    #[tokio::test]
    async fn nobody_leaves_a_room_that_is_not_guarded() {
        let room = Room::new(1);
        let place = room.take().await.unwrap();
        assert!(at_once(&room).is_none() && !is_told(&place));
        drop(place);
        assert!(at_once(&room).is_some());
    }

    /// A place, where one is free at once.
    fn at_once(room: &Arc<Room>) -> Option<Place> {
        let mut taken = std::pin::pin!(room.take());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match taken.as_mut().poll(&mut context) {
            Poll::Ready(place) => Some(place.unwrap()),
            Poll::Pending => None,
        }
    }
}

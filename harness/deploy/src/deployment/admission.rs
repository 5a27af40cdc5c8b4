//! Limits how many servers start at the same time.
//!
//! A start uses one processor: more parallel starts than processors take as long as sequential
//! starts, and delay everything else. A deployment takes a permit before its container starts and
//! returns it when its server answers or is given up.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The permits of one run.
#[derive(Clone, Debug)]
pub struct Places(Arc<Semaphore>);

impl Places {
    /// One permit per processor.
    pub fn of_this_machine() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new(processors)))
    }
}

/// The permit of one deployment, its number of starts, and how long it waited.
#[derive(Debug, Default)]
pub struct Admission {
    places: Option<Places>,
    taken: Mutex<Option<OwnedSemaphorePermit>>,
    starts: AtomicU32,
    waited: AtomicU64,
}

impl Admission {
    /// The admission of a deployment that shares its permits with others.
    pub fn among(places: &Places) -> Self {
        Self { places: Some(places.clone()), ..Self::default() }
    }

    /// Counts a start, and waits for a permit.
    pub(super) async fn enter(&self) {
        let begun = Instant::now();
        self.starts.fetch_add(1, Ordering::Relaxed);
        if self.is_in() {
            return;
        }
        if let Some(Places(semaphore)) = &self.places
            && let Ok(permit) = Arc::clone(semaphore).acquire_owned().await
        {
            self.waited.fetch_add(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
            *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
        }
    }

    /// Runs `work`, which stops and starts in one step. Takes a permit meanwhile if one is free,
    /// without waiting.
    pub(super) async fn enter_during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            done = &mut work => done,
            () = self.enter() => work.await,
        }
    }

    fn is_in(&self) -> bool {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Returns the permit.
    pub fn leave(&self) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// The number of starts.
    pub fn starts(&self) -> u32 {
        self.starts.load(Ordering::Relaxed)
    }

    /// The total time waited for permits.
    pub fn waited(&self) -> Duration {
        Duration::from_millis(self.waited.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(count: usize) -> Places {
        Places(Arc::new(Semaphore::new(count)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_waited_for_until_another_one_leaves() {
        let places = places(1);
        let (first, second) = (Admission::among(&places), Admission::among(&places));
        first.enter().await;
        assert!(tokio::time::timeout(Duration::from_secs(9), second.enter()).await.is_err());
        first.leave();
        second.enter().await;
        assert!(second.is_in() && !first.is_in());
        drop(second);
        first.enter().await;
        assert_eq!(first.starts(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_stops_and_starts_in_one_never_waits() {
        let places = places(1);
        let (first, second) = (Admission::among(&places), Admission::among(&places));
        first.enter().await;
        let work = || tokio::time::sleep(Duration::from_secs(1));
        tokio::time::timeout(Duration::from_secs(2), second.enter_during(work())).await.expect("it does not wait");
        assert!(!second.is_in());
        first.leave();
        second.enter_during(work()).await;
        assert!(second.is_in() && second.starts() == 2);
    }
}

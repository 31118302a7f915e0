//! Who may come in: a place is taken before a request's body is read, and given back when its work is over.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Limits, error::Refusal};

/// The places of a server, and whether it takes new requests.
#[derive(Debug)]
pub(crate) struct Admission {
    places: Arc<Semaphore>,
    scoring: Arc<Semaphore>,
    ready: AtomicBool,
    next_id: AtomicU64,
    timeout: Duration,
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Self {
        let most = |n: usize| n.clamp(1, Semaphore::MAX_PERMITS);
        // Ids begin where the clock is, so that those of two runs differ; nothing depends on their value.
        let start = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            places: Arc::new(Semaphore::new(most(limits.max_admitted))),
            scoring: Arc::new(Semaphore::new(most(limits.max_scoring))),
            ready: AtomicBool::new(true),
            next_id: AtomicU64::new(start.map_or(0, |time| time.as_nanos() as u64)),
            timeout: limits.request_timeout,
        }
    }

    /// Returns an id for a request.
    pub(crate) fn request_id(&self) -> String {
        format!("{:016x}", self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether new requests are welcome.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Says to probes that no new requests are welcome; those that come anyway are answered as long as there is time.
    pub(crate) fn not_ready(&self) {
        self.ready.store(false, Ordering::Relaxed);
    }

    /// Takes a place, at once or not at all.
    pub(crate) fn enter(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| Refusal::Overloaded)
    }

    /// Runs `work` on a thread of its own once there is room to score; the place stays taken until the work is over,
    /// also when whoever asked has left.
    pub(crate) async fn score<T: Send + 'static>(
        &self,
        place: OwnedSemaphorePermit,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let scoring = Arc::clone(&self.scoring);
        let in_time = tokio::time::timeout(self.timeout, async move {
            let room = scoring.acquire_owned().await.map_err(|_| Refusal::NotReady)?;
            let task = tokio::task::spawn_blocking(move || {
                let answer = work();
                drop((room, place));
                answer
            });
            // A panic has been logged by its hook; the process goes on.
            task.await.unwrap_or(Err(Refusal::Internal))
        });
        in_time.await.unwrap_or(Err(Refusal::Deadline))
    }
}

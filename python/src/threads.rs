//! Where work runs: one pool of threads for each number of threads, and new ones in a child of `fork`.
//!
//! A child has none of its parent's threads, so a pool that the parent made would wait for ever: a pool is known by the process
//! that made it, and another process makes its own. No lock is involved, as a fork may come while one is held.

use std::{
    cell::OnceCell,
    sync::atomic::{AtomicPtr, AtomicUsize, Ordering},
};

use pyo3::{PyResult, Python, exceptions::PyRuntimeError};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::failure::Failure;

/// More threads than this are as many as this.
const MOST: usize = 256;

/// Threads of Python's that become a pool of one; what rayon keeps of each stays when it ends.
const MOST_HERE: usize = 256;

struct OfProcess {
    process: u32,
    pool: ThreadPool,
}

static POOLS: [AtomicPtr<OfProcess>; MOST + 1] = [const { AtomicPtr::new(std::ptr::null_mut()) }; MOST + 1];

/// Runs `work` without the interpreter on a pool of as many threads as there are processors.
///
/// Whatever may compute in parallel goes through here or [`on_threads`]: outside of a pool of ours it would run in rayon's own,
/// whose threads a child of `fork` waits for in vain.
pub(crate) fn apart<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    py.detach(|| on_threads(0, work))?
}

/// Runs `work` on so many threads, or on as many as there are processors for 0.
pub(crate) fn on_threads<T: Send>(n_threads: usize, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    Ok(pool(n_threads)?.install(work))
}

/// Runs `work` on the calling thread itself: what takes less time than waking another does.
///
/// The thread becomes a pool of one, which it stays in a child of `fork`.
pub(crate) fn here<T: Send>(work: impl FnOnce() -> T + Send) -> PyResult<T> {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static ALONE: OnceCell<Option<ThreadPool>> = const { OnceCell::new() };
    }
    ALONE.with(|alone| {
        let make = || {
            let few = MADE.fetch_add(1, Ordering::Relaxed) < MOST_HERE;
            few.then(|| ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().ok())?
        };
        match alone.get_or_init(make) {
            Some(pool) => Ok(pool.install(work)),
            None => on_threads(0, work),
        }
    })
}

fn pool(n_threads: usize) -> PyResult<&'static ThreadPool> {
    let n_threads = n_threads.min(MOST);
    let (slot, process) = (&POOLS[n_threads], std::process::id());
    let found = slot.load(Ordering::Acquire);
    // SAFETY: what a slot points at is never freed: a pool lives as long as its process, and one of a parent is left alone.
    #[expect(unsafe_code, reason = "a pointer, since locks do not outlive a fork")]
    if let Some(of) = unsafe { found.as_ref() }
        && of.process == process
    {
        return Ok(&of.pool);
    }
    let pool = ThreadPoolBuilder::new()
        .num_threads(n_threads)
        .thread_name(|at| format!("recmill-{at}"))
        .build()
        .map_err(|error| PyRuntimeError::new_err(format!("threads cannot be started: {error}")))?;
    let made: &'static mut OfProcess = Box::leak(Box::new(OfProcess { process, pool }));
    let pool: *const ThreadPool = &made.pool;
    // Where two threads come at once both pools work, and the next call finds the last.
    slot.store(made, Ordering::Release);
    // SAFETY: leaked above.
    #[expect(unsafe_code, reason = "as above")]
    Ok(unsafe { &*pool })
}

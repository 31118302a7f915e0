//! Batches made ready ahead of time, in threads of their own, in order.
//!
//! Thread `t` of `T` makes every `T`-th batch, from the `t`-th; the consumer takes them in turn, so the order is that of one thread. What has
//! been used goes back and is filled again.

use std::{
    ops::Range,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

/// Batches that each thread has ready beside the one it works on.
const READY: usize = 2;

/// Calls `each` for these batches, which `load` fills in other threads.
///
/// # Errors
/// The first error of `each`, which ends the loading.
pub(super) fn load_ahead<T: Default + Send, E>(
    batches: Range<u64>,
    threads: usize,
    load: impl Fn(u64, &mut T) + Sync,
    mut each: impl FnMut(u64, &T) -> Result<(), E>,
) -> Result<(), E> {
    let threads = threads.max(1) as u64;
    std::thread::scope(|scope| {
        let lanes: Vec<(Receiver<T>, SyncSender<T>)> = (0..threads)
            .map(|thread| {
                let (ready, to_use) = sync_channel(READY);
                let (used, to_fill) = sync_channel::<T>(READY + 2);
                let (load, batches) = (&load, batches.clone());
                scope.spawn(move || {
                    let mut at = batches.start + thread;
                    while at < batches.end {
                        let mut batch = to_fill.try_recv().unwrap_or_default();
                        load(at, &mut batch);
                        // The consumer is gone: it failed, and says so itself.
                        if ready.send(batch).is_err() {
                            return;
                        }
                        at += threads;
                    }
                });
                (to_use, used)
            })
            .collect();
        for at in batches.clone() {
            let (to_use, used) = &lanes[((at - batches.start) % threads) as usize];
            // A thread that is gone has panicked, which the scope passes on.
            let Ok(batch) = to_use.recv() else { break };
            each(at, &batch)?;
            // A full lane means that there are enough to fill.
            let _ = used.try_send(batch);
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_come_in_order_and_an_error_ends_loading() {
        for (threads, first) in [(1, 0), (2, 0), (3, 0), (3, 4)] {
            let mut seen = Vec::new();
            let load = |at: u64, batch: &mut Vec<u64>| {
                batch.clear();
                batch.push(at * at);
            };
            load_ahead(first..20, threads, load, |at, batch: &Vec<u64>| {
                assert_eq!(batch, &[at * at]);
                seen.push(at);
                Ok::<_, ()>(())
            })
            .unwrap();
            assert!(seen.into_iter().eq(first..20));
            let failed =
                load_ahead(first..1 << 40, threads, load, |at, _| if at == 5 { Err(at) } else { Ok(()) });
            assert_eq!(failed, Err(5));
        }
    }
}

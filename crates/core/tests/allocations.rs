//! Scoring allocates nothing once a workspace has grown. One test, since the allocator is counted for the whole process.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod parameters;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use parameters::{N_ITEMS, N_USERS, models};
use recmill_core::{Batch, ItemIndex, Query, Row, UserIndex, Workspace};

struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator cannot be counted in safe code")]
// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        BYTES.fetch_add(new_size, Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn scoring_allocates_nothing_after_warm_up() {
    // What burn's networks compute with is allocated anew each time.
    for (config, model) in models().into_iter().filter(|(_, model)| !model.reads_order()) {
        let rows = (0..64).map(|row: u32| {
            let item = |n: u32| ItemIndex((row * 5 + n * 17) % N_ITEMS as u32);
            let query = match row % 3 {
                0 if model.n_users() > 0 => Query::User(UserIndex(row % N_USERS as u32)),
                1 => Query::Item(item(0)),
                _ => Query::History((0..6).map(|n| (item(n), 1.0)).collect()),
            };
            Row { exclude: vec![ItemIndex(row), ItemIndex(row + 9)], ..Row::new(query, 10) }
        });
        let batch = Batch { rows: rows.collect() };
        let mut workspace = Workspace::default();
        model.warm_up().unwrap();
        // Threads take pieces as they come, so it takes a few batches until each has met the largest.
        for _ in 0..20 {
            model.score(&batch, &mut workspace).unwrap();
        }
        let before = BYTES.load(Relaxed);
        for _ in 0..20 {
            model.score(&batch, &mut workspace).unwrap();
        }
        let bytes = (BYTES.load(Relaxed) - before) / 20;
        // Handing work to the thread pool takes a few hundred bytes now and then; a row of scores alone would be 524.
        assert!(bytes < 400, "{}: {bytes} bytes a batch of 64 rows", config.name());
    }
}

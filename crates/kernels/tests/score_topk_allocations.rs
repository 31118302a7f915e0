//! Scoring allocates nothing once its scratch and answers have grown: counted by the allocator itself.

#![expect(unsafe_code, reason = "an allocator is unsafe to implement")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use recmill_kernels::{
    Device, Table, TopkAnswers, TopkPrepared, TopkQuery, TopkScratch, score_topk, tie_hash, topk_of_scores,
};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn numbers(n: usize, seed: u64) -> Vec<f32> {
    (0..n as u32).map(|i| (tie_hash(seed, i) >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}

// One test in the file: another thread's allocations would be counted too.
#[test]
fn nothing_is_allocated_after_warm_up() {
    let (rows, dim, n_queries) = (9_000, 32, 900);
    let table = Table::from_f32(&numbers(rows * dim, 1), dim, Device::Cpu, "a test").unwrap();
    let bias = numbers(rows, 2);
    let vectors = numbers(n_queries * dim, 3);
    let exclude: Vec<u32> = (0..rows as u32).step_by(70).collect();
    let candidates: Vec<u32> = (0..rows as u32).step_by(90).collect();
    let allow = vec![0xaaaa_aaaa_aaaa_aaaa_u64; rows.div_ceil(64)];
    let queries: Vec<TopkQuery<'_>> = vectors
        .chunks_exact(dim)
        .enumerate()
        .map(|(q, vector)| TopkQuery {
            vector,
            k: [10, 3, 1_000, 20][q % 4],
            exclude: &exclude,
            candidates: (q % 13 == 0).then_some(&candidates),
            allow: (q % 7 == 0).then_some(&allow),
            tie_key: 1,
        })
        .collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    for prepared in [TopkPrepared::plain(&table).unwrap(), TopkPrepared::new(&table).unwrap()] {
        let (mut scratch, mut out) = (TopkScratch::default(), TopkAnswers::default());
        let mut during = |queries: &[TopkQuery<'_>], bias: Option<&[f32]>| {
            pool.install(|| {
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                score_topk(&table, &prepared, bias, queries, &mut scratch, &mut out).unwrap();
                ALLOCATIONS.load(Ordering::Relaxed) - before
            })
        };
        for warm in [false, true] {
            for n in [n_queries, 1, 5, 30] {
                for bias in [None, Some(&bias[..])] {
                    let allocations = during(&queries[..n], bias);
                    assert!(!warm || allocations == 0, "{allocations} allocations for {n} queries");
                }
            }
        }
    }
    let mut out = TopkAnswers::default();
    for warm in [false, true] {
        out.clear();
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        for query in &queries[..20] {
            topk_of_scores(&bias, query, &mut out).unwrap();
        }
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert!(!warm || allocations == 0, "{allocations} allocations for dense scores");
    }
}

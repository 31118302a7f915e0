//! A batch of queries cut into groups, and groups given to threads.
//!
//! Many queries are cut into groups, each scanned whole by one thread. Few queries over many rows are one group, and the
//! rows are cut instead: each thread finds the best of its share of the tiles, and these are merged. The order of rows
//! is total, so where the cuts are does not change an answer.

use std::sync::{Mutex, PoisonError};

use super::{
    TopkAnswers, TopkQuery,
    prepared::{TopkPrepared, lay_out_bias},
    reserve,
    rows::RowReader,
    scan::{GroupAnswers, MAX_GROUP, Part, Scan, Slot},
    select::Best,
    tile::{Lanes, MAX_WIDTH},
};
use crate::{Result, Table, simd};

/// Multiply-adds below which waking another thread costs more than it saves.
const ALONE: usize = 8 << 20;

/// Memory that scoring needs beside the answers; used again from batch to batch.
#[derive(Debug, Default)]
pub struct TopkScratch {
    slots: Vec<Mutex<Slot>>,
    bias: Vec<Lanes>,
    counts: Vec<u32>,
    parts: Vec<PartAnswers>,
}

/// What one thread found in its share of the rows.
#[derive(Debug, Default)]
struct PartAnswers {
    counts: Vec<u32>,
    indices: Vec<u32>,
    scores: Vec<f32>,
    result: Option<Result<()>>,
}

pub(super) fn answer(
    table: &Table,
    prepared: &TopkPrepared,
    bias: Option<&[f32]>,
    queries: &[TopkQuery<'_>],
    scratch: &mut TopkScratch,
    out: &mut TopkAnswers,
) -> Result<()> {
    out.clear();
    let TopkScratch { slots, bias: bias_panels, counts, parts } = scratch;
    if let Some(bias) = bias {
        lay_out_bias(prepared, bias, bias_panels);
    }
    let scan = Scan::new(RowReader::new(table), prepared, bias, bias_panels, simd::level());

    reserve(&mut out.ends, queries.len())?;
    let mut total = 0usize;
    let mut work = 0usize;
    for query in queries {
        total = total.saturating_add(query.room(prepared.rows));
        let scored = query.candidates.map_or(prepared.rows, <[u32]>::len);
        work = work.saturating_add(scored.saturating_mul(prepared.dim));
        out.ends.push(total);
    }
    reserve(&mut out.indices, total)?;
    reserve(&mut out.scores, total)?;
    out.indices.resize(total, 0);
    out.scores.resize(total, 0.0);
    counts.clear();
    counts.resize(queries.len(), 0);

    let threads = if work < ALONE { 1 } else { rayon::current_num_threads() };
    let split_rows = threads > 1 && queries.len() < threads * MAX_WIDTH;
    let share = if split_rows { queries.len() } else { queries.len().div_ceil(threads) };
    let group = share.clamp(1, MAX_GROUP).next_multiple_of(if share > MAX_WIDTH { MAX_WIDTH } else { 1 });
    if slots.len() < threads {
        slots.resize_with(threads, Mutex::default);
    }
    for slot in slots.iter_mut() {
        scan.reserve(slot.get_mut().unwrap_or_else(PoisonError::into_inner), group);
    }
    if split_rows && group >= queries.len() {
        parts.resize_with(parts.len().max(threads), PartAnswers::default);
        let parts = &mut parts[..threads];
        for part in parts.iter_mut() {
            part.counts.resize(queries.len(), 0);
            part.indices.resize(total.max(part.indices.len()), 0);
            part.scores.resize(total.max(part.scores.len()), 0.0);
        }
        let job = PartJob { scan: &scan, slots, queries, ends: &out.ends, parts: threads };
        job.run(0, parts);
        merge(queries, parts, counts, out)?;
    } else {
        let answers = GroupAnswers {
            ends: &out.ends,
            offset: 0,
            counts,
            indices: &mut out.indices,
            scores: &mut out.scores,
        };
        GroupJob { scan: &scan, slots, group }.run(queries, 0, answers)?;
    }
    close_gaps(counts, out);
    Ok(())
}

/// Groups of queries, each over all rows.
struct GroupJob<'a> {
    scan: &'a Scan<'a>,
    slots: &'a [Mutex<Slot>],
    group: usize,
}

impl GroupJob<'_> {
    fn run(&self, queries: &[TopkQuery<'_>], first_row: usize, mut out: GroupAnswers<'_>) -> Result<()> {
        let n_groups = queries.len().div_ceil(self.group);
        if n_groups <= 1 {
            let whole = Part { part: 0, parts: 1 };
            return on_slot(self.slots, |slot| self.scan.group(queries, first_row, whole, slot, &mut out));
        }
        let middle = n_groups / 2 * self.group;
        let cut = out.ends[middle - 1] - out.offset;
        let (left, right) = queries.split_at(middle);
        let (left_counts, right_counts) = out.counts.split_at_mut(middle);
        let (left_indices, right_indices) = out.indices.split_at_mut(cut);
        let (left_scores, right_scores) = out.scores.split_at_mut(cut);
        let left_out = GroupAnswers {
            ends: &out.ends[..middle],
            offset: out.offset,
            counts: left_counts,
            indices: left_indices,
            scores: left_scores,
        };
        let right_out = GroupAnswers {
            ends: &out.ends[middle..],
            offset: out.offset + cut,
            counts: right_counts,
            indices: right_indices,
            scores: right_scores,
        };
        let (one, other) = rayon::join(
            || self.run(left, first_row, left_out),
            || self.run(right, first_row + middle, right_out),
        );
        // The left error first: it names the lower row.
        one.and(other)
    }
}

/// One group, over the tiles in shares.
struct PartJob<'a> {
    scan: &'a Scan<'a>,
    slots: &'a [Mutex<Slot>],
    queries: &'a [TopkQuery<'a>],
    ends: &'a [usize],
    parts: usize,
}

impl PartJob<'_> {
    fn run(&self, first: usize, answers: &mut [PartAnswers]) {
        match answers {
            [] => {}
            [one] => {
                let part = Part { part: first, parts: self.parts };
                let PartAnswers { counts, indices, scores, result } = one;
                let total = self.ends.last().copied().unwrap_or(0);
                let mut out = GroupAnswers {
                    ends: self.ends,
                    offset: 0,
                    counts: &mut counts[..self.queries.len()],
                    indices: &mut indices[..total],
                    scores: &mut scores[..total],
                };
                let scan = |slot: &mut Slot| self.scan.group(self.queries, 0, part, slot, &mut out);
                *result = Some(on_slot(self.slots, scan));
            }
            several => {
                let middle = several.len() / 2;
                let (left, right) = several.split_at_mut(middle);
                rayon::join(|| self.run(first, left), || self.run(first + middle, right));
            }
        }
    }
}

/// Runs `work` with the memory of this thread; nothing else holds it, since `work` never waits for another thread.
fn on_slot<R>(slots: &[Mutex<Slot>], work: impl FnOnce(&mut Slot) -> R) -> R {
    let thread = rayon::current_thread_index().unwrap_or(0);
    let mut slot = slots[thread % slots.len()].lock().unwrap_or_else(PoisonError::into_inner);
    work(&mut slot)
}

fn merge(
    queries: &[TopkQuery<'_>],
    parts: &mut [PartAnswers],
    counts: &mut [u32],
    out: &mut TopkAnswers,
) -> Result<()> {
    for part in parts.iter_mut() {
        part.result.take().unwrap_or(Ok(()))?;
    }
    let mut begin = 0;
    for (at, query) in queries.iter().enumerate() {
        let end = out.ends[at];
        let (scores, indices) = (&mut out.scores[begin..end], &mut out.indices[begin..end]);
        let mut best = Best::resume(query.tie_key, 0, scores, indices);
        for part in &*parts {
            for found in begin..begin + part.counts[at] as usize {
                best.offer(part.scores[found], part.indices[found]);
            }
        }
        best.sort();
        counts[at] = best.len() as u32;
        begin = end;
    }
    Ok(())
}

/// Moves the answers together where one is shorter than its room.
fn close_gaps(counts: &[u32], out: &mut TopkAnswers) {
    let (mut begin, mut to) = (0, 0);
    for (end, &count) in out.ends.iter_mut().zip(counts) {
        let found = begin..begin + count as usize;
        begin = *end;
        if found.start != to {
            out.indices.copy_within(found.clone(), to);
            out.scores.copy_within(found, to);
        }
        to += count as usize;
        *end = to;
    }
    out.indices.truncate(to);
    out.scores.truncate(to);
}

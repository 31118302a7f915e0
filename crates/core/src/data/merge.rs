//! Rows by user out of interactions in the order of their arrival, in little more memory than the result.
//!
//! ```text
//! blocks   (user, item, value, time)*        as they came, in pieces of a fixed size
//! place    counting sort by user, stable; each block is freed once its rows are placed
//! settle   row by row: sort by item, make one entry of repeats, note the order in time
//! close    move the rows together where repeats left gaps
//! ```
//!
//! Bytes an interaction, without and with times: blocks 12 and 20, placed 8 and 16, order 4. The finished dataset has 20
//! and 28 (8 of them rows by item, made later), so the peak while placing, 20 and 36, is within twice that as long as the
//! rows are at most 1.4 times the different pairs. [`super::DatasetBuilder`] estimates these and merges early when
//! they are fewer, which keeps this true for logs that repeat every pair a thousand times.

use rayon::prelude::*;

use super::Repeats;

/// Interactions in a block.
const BLOCK_ROWS: usize = 1 << 16;

/// Rows settled by one task, in interactions.
const TASK_ROWS: usize = 1 << 16;

/// Interactions as they came.
pub(super) struct Block {
    pub(super) users: Vec<u32>,
    pub(super) items: Vec<u32>,
    pub(super) values: Vec<f32>,
    /// Empty where there are no times.
    pub(super) times: Vec<i64>,
}

impl Block {
    pub(super) fn new(with_times: bool) -> Self {
        Self {
            users: Vec::with_capacity(BLOCK_ROWS),
            items: Vec::with_capacity(BLOCK_ROWS),
            values: Vec::with_capacity(BLOCK_ROWS),
            times: Vec::with_capacity(if with_times { BLOCK_ROWS } else { 0 }),
        }
    }

    /// Returns how many more rows fit.
    pub(super) fn room(&self) -> usize {
        BLOCK_ROWS - self.users.len()
    }
}

/// Rows by user whose repeats are merged.
#[derive(Default)]
pub(super) struct Merged {
    pub(super) indptr: Vec<u64>,
    pub(super) items: Vec<u32>,
    pub(super) values: Vec<f32>,
    pub(super) times: Option<Vec<i64>>,
    /// For a mean: how many rows each value is the sum of.
    pub(super) counts: Option<Vec<u32>>,
    pub(super) order: Vec<u32>,
}

/// How rows become entries.
pub(super) struct MergeRule {
    pub(super) repeats: Repeats,
    pub(super) n_users: usize,
    pub(super) with_times: bool,
    /// Half-life in seconds, the time that the merged values were counted from, and the one they are counted from now.
    pub(super) decay: Option<(f64, i64, i64)>,
}

impl Merged {
    fn n_rows(&self) -> usize {
        self.indptr.len().saturating_sub(1)
    }

    fn range(&self, row: usize) -> std::ops::Range<usize> {
        match self.indptr.get(row..row + 2) {
            Some(ends) => ends[0] as usize..ends[1] as usize,
            None => 0..0,
        }
    }

    /// Merges `blocks`, which came later, into these rows.
    pub(super) fn merge(self, blocks: Vec<Block>, rule: &MergeRule) -> Self {
        let mut placed = place(self, blocks, rule);
        placed.settle(rule);
        placed
    }

    fn settle(&mut self, rule: &MergeRule) {
        let n_users = self.n_rows();
        self.order = vec![0; self.items.len()];
        let mut lengths = vec![0u32; n_users];
        let mut tasks = Vec::new();
        let mut rest = Slices {
            items: &mut self.items,
            values: &mut self.values,
            times: self.times.as_deref_mut(),
            counts: self.counts.as_deref_mut(),
            order: &mut self.order,
        };
        let (mut first, mut rest_lengths) = (0, &mut lengths[..]);
        while first < n_users {
            let begin = self.indptr[first];
            let reached = self.indptr.partition_point(|&end| end < begin + TASK_ROWS as u64);
            let last = reached.clamp(first + 1, n_users);
            let (slices, later) = rest.split((self.indptr[last] - begin) as usize);
            let (task_lengths, later_lengths) = rest_lengths.split_at_mut(last - first);
            tasks.push((&self.indptr[first..=last], slices, task_lengths));
            (first, rest, rest_lengths) = (last, later, later_lengths);
        }
        tasks.into_par_iter().for_each_init(Scratch::default, |scratch, (indptr, mut slices, lengths)| {
            for (ends, length) in indptr.windows(2).zip(lengths) {
                let row = slices.row((ends[0] - indptr[0]) as usize..(ends[1] - indptr[0]) as usize);
                *length = scratch.settle(row, rule.repeats) as u32;
            }
        });
        self.close(&lengths);
    }

    /// Moves the rows together, each at its new length.
    fn close(&mut self, lengths: &[u32]) {
        let n: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
        if n == self.items.len() as u64 {
            return;
        }
        let mut to = 0;
        for (user, &length) in lengths.iter().enumerate() {
            let from = self.indptr[user] as usize;
            let range = from..from + length as usize;
            self.items.copy_within(range.clone(), to);
            self.values.copy_within(range.clone(), to);
            self.order.copy_within(range.clone(), to);
            if let Some(times) = &mut self.times {
                times.copy_within(range.clone(), to);
            }
            if let Some(counts) = &mut self.counts {
                counts.copy_within(range, to);
            }
            self.indptr[user] = to as u64;
            to += length as usize;
        }
        if let Some(end) = self.indptr.last_mut() {
            *end = to as u64;
        }
        self.shrink(to);
    }

    /// Gives up what lies behind the first `n` entries.
    pub(super) fn shrink(&mut self, n: usize) {
        fn cut<T>(entries: &mut Vec<T>, n: usize) {
            entries.truncate(n);
            entries.shrink_to_fit();
        }
        cut(&mut self.items, n);
        cut(&mut self.values, n);
        cut(&mut self.order, n);
        if let Some(times) = &mut self.times {
            cut(times, n);
        }
        if let Some(counts) = &mut self.counts {
            cut(counts, n);
        }
    }

    /// Turns sums into means.
    pub(super) fn divide(&mut self) {
        if let Some(counts) = self.counts.take() {
            self.values.iter_mut().zip(counts).for_each(|(value, count)| *value /= count as f32);
        }
    }
}

/// Brings all rows of one user together, the merged ones first, in the order in which they came.
fn place(merged: Merged, blocks: Vec<Block>, rule: &MergeRule) -> Merged {
    let mut indptr = vec![0u64; rule.n_users + 1];
    for row in 0..merged.n_rows() {
        indptr[row + 1] = merged.range(row).len() as u64;
    }
    for &user in blocks.iter().flat_map(|block| &block.users) {
        indptr[user as usize + 1] += 1;
    }
    for user in 0..rule.n_users {
        indptr[user + 1] += indptr[user];
    }
    let n = indptr[rule.n_users] as usize;
    let mut next = indptr[..rule.n_users].to_vec();
    let mut items = vec![0u32; n];
    let mut values = vec![0f32; n];
    let mut times = rule.with_times.then(|| vec![0i64; n]);
    let mut counts = (rule.repeats == Repeats::Mean).then(|| vec![1u32; n]);
    let factor = |from: i64| match rule.decay {
        Some((half_life, _, now)) => (-((now as f64 - from as f64) / half_life)).exp2(),
        None => 1.0,
    };
    let earlier = rule.decay.map_or(1.0, |(_, then, _)| factor(then));
    for (row, next) in next.iter_mut().enumerate().take(merged.n_rows()) {
        let range = merged.range(row);
        for &entry in &merged.order[range.clone()] {
            let (from, to) = (range.start + entry as usize, *next as usize);
            items[to] = merged.items[from];
            values[to] = (f64::from(merged.values[from]) * earlier) as f32;
            if let (Some(times), Some(merged)) = (&mut times, &merged.times) {
                times[to] = merged[from];
            }
            if let (Some(counts), Some(merged)) = (&mut counts, &merged.counts) {
                counts[to] = merged[from];
            }
            *next += 1;
        }
    }
    drop(merged);
    for mut block in blocks {
        if rule.decay.is_some() {
            for (value, &time) in block.values.iter_mut().zip(&block.times) {
                *value = (f64::from(*value) * factor(time)) as f32;
            }
        }
        for (row, &user) in block.users.iter().enumerate() {
            let next = &mut next[user as usize];
            let to = *next as usize;
            *next += 1;
            items[to] = block.items[row];
            values[to] = block.values[row];
            if let Some(times) = &mut times {
                times[to] = block.times[row];
            }
        }
    }
    Merged { indptr, items, values, times, counts, order: Vec::new() }
}

/// The same stretch of all arrays.
struct Slices<'a> {
    items: &'a mut [u32],
    values: &'a mut [f32],
    times: Option<&'a mut [i64]>,
    counts: Option<&'a mut [u32]>,
    order: &'a mut [u32],
}

impl<'a> Slices<'a> {
    fn split(self, at: usize) -> (Self, Self) {
        let (items, later_items) = self.items.split_at_mut(at);
        let (values, later_values) = self.values.split_at_mut(at);
        let (times, later_times) = self.times.map(|times| times.split_at_mut(at)).unzip();
        let (counts, later_counts) = self.counts.map(|counts| counts.split_at_mut(at)).unzip();
        let (order, later_order) = self.order.split_at_mut(at);
        (
            Self { items, values, times, counts, order },
            Self {
                items: later_items,
                values: later_values,
                times: later_times,
                counts: later_counts,
                order: later_order,
            },
        )
    }

    fn row(&mut self, range: std::ops::Range<usize>) -> Slices<'_> {
        Slices {
            items: &mut self.items[range.clone()],
            values: &mut self.values[range.clone()],
            times: self.times.as_deref_mut().map(|times| &mut times[range.clone()]),
            counts: self.counts.as_deref_mut().map(|counts| &mut counts[range.clone()]),
            order: &mut self.order[range],
        }
    }
}

/// Room for one row, used again for the next.
#[derive(Default)]
struct Scratch {
    /// Item and place of arrival of each row, so that sorting them is sorting numbers.
    keys: Vec<u64>,
    items: Vec<u32>,
    values: Vec<f32>,
    times: Vec<i64>,
    counts: Vec<u32>,
    /// Time and place of arrival of each entry.
    moments: Vec<(i64, u32, u32)>,
}

impl Scratch {
    /// Sorts one row by item, merges its repeats and notes its order in time; returns its new length.
    fn settle(&mut self, row: Slices, repeats: Repeats) -> usize {
        let n = row.items.len();
        let in_time_order =
            row.times.as_ref().is_none_or(|times| times.windows(2).all(|pair| pair[0] <= pair[1]));
        if in_time_order && row.items.windows(2).all(|pair| pair[0] < pair[1]) {
            row.order.iter_mut().zip(0..).for_each(|(order, entry)| *order = entry);
            return n;
        }
        self.keys.clear();
        self.keys.extend(row.items.iter().zip(0u64..).map(|(&item, at)| u64::from(item) << 32 | at));
        self.keys.sort_unstable();
        self.items.clear();
        self.values.clear();
        self.times.clear();
        self.counts.clear();
        self.moments.clear();
        let moment = |at: usize| (row.times.as_ref().map_or(0, |times| times[at]), at);
        let mut start = 0;
        while start < n {
            let item = self.keys[start] >> 32;
            let mut end = start + 1;
            while end < n && self.keys[end] >> 32 == item {
                end += 1;
            }
            let at = |key: &u64| *key as u32 as usize;
            let same = &self.keys[start..end];
            let (mut kept, mut value) = (at(&same[0]), row.values[at(&same[0])]);
            let mut count = row.counts.as_ref().map_or(1, |counts| counts[kept]);
            if same.len() > 1 {
                let newest = |a: usize, b: usize| if moment(b) > moment(a) { b } else { a };
                let oldest = |a: usize, b: usize| if moment(b) < moment(a) { b } else { a };
                let places = || same.iter().map(at);
                let pick =
                    if repeats == Repeats::First { places().reduce(oldest) } else { places().reduce(newest) };
                kept = pick.unwrap_or(kept);
                value = match repeats {
                    Repeats::Sum | Repeats::Mean => {
                        places().map(|at| f64::from(row.values[at])).sum::<f64>() as f32
                    }
                    Repeats::Max => places().map(|at| row.values[at]).fold(value, f32::max),
                    Repeats::Last | Repeats::First => row.values[kept],
                };
                if let Some(counts) = &row.counts {
                    count = places().fold(0u32, |all, at| all.saturating_add(counts[at]));
                }
            }
            self.moments.push((moment(kept).0, kept as u32, self.items.len() as u32));
            self.items.push(item as u32);
            self.values.push(value);
            self.times.push(moment(kept).0);
            self.counts.push(count);
            start = end;
        }
        let length = self.items.len();
        row.items[..length].copy_from_slice(&self.items);
        row.values[..length].copy_from_slice(&self.values);
        if let Some(times) = row.times {
            times[..length].copy_from_slice(&self.times);
        }
        if let Some(counts) = row.counts {
            counts[..length].copy_from_slice(&self.counts);
        }
        self.moments.sort_unstable();
        row.order.iter_mut().zip(&self.moments).for_each(|(order, moment)| *order = moment.2);
        length
    }
}

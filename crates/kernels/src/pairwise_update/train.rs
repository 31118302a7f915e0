//! Visiting every positive once: by cells (the same bits for every number of threads), or racing.

#![expect(
    unsafe_code,
    reason = "rows that a cell or a racing thread may write, and run-time choice of instructions"
)]

use rayon::prelude::*;

use super::{
    Mode, OP, OnPositive, PairwiseEpoch, PairwiseLoss, PairwiseStats, alias, blocks, deal, step, stream,
    weights,
};
use crate::{
    Error, Result,
    cells::Entry,
    exp::LogSum,
    lanes::dot,
    negative::AliasTable,
    philox::{self, Draws, below},
    shared_rows::{AHEAD, SharedRows},
    simd::{self, Level},
};

/// Draws that are positives of their row before a negative is given up.
const MAX_TRIES: u64 = 16;

/// Rows whose positives a racing task visits.
const RACING_ROWS: usize = 64;

/// Positives whose negatives are drawn before the first of them is visited: few enough for what is drawn to stay in the
/// processor's first cache, enough for [`AHEAD`].
const BATCH: usize = 256;

/// A negative that was not found.
const NONE: u32 = u32::MAX;

/// One epoch, checked, its operands open for writing by several threads.
pub(super) struct Job<'a> {
    pub(super) epoch: &'a PairwiseEpoch<'a>,
    pub(super) dim: usize,
    pub(super) n_columns: usize,
    pub(super) row_factors: SharedRows<'a>,
    pub(super) column_factors: SharedRows<'a>,
    pub(super) column_bias: Option<SharedRows<'a>>,
    /// Adagrad's sums of rows, columns and biases.
    pub(super) state: Option<[SharedRows<'a>; 3]>,
    pub(super) draws: Draws,
}

/// Where negatives come from: some of the columns, alike or by weight.
struct Pool<'a> {
    columns: &'a [u32],
    table: Option<&'a AliasTable>,
}

impl Pool<'_> {
    /// Draws `t` of sample `sample`: two to a block by weight, four otherwise.
    #[inline(always)]
    fn pick(&self, draws: Draws, sample: u64, t: u64) -> u32 {
        let per_block = if self.table.is_some() { 2 } else { 4 };
        let block = draws.nth_try(t / per_block).block(sample);
        let first = (t % per_block * (4 / per_block)) as usize;
        self.of_words([block[first], block[(first + 1) % 4]])
    }

    /// The column that two words name; by weight both count, otherwise the first.
    #[inline(always)]
    fn of_words(&self, words: [u32; 2]) -> u32 {
        let at = match self.table {
            Some(table) => table.pick(words),
            None => below(words[0], self.columns.len() as u32),
        };
        self.columns[at as usize]
    }
}

/// What a thread keeps from task to task.
struct Scratch {
    /// Positives of the row at hand, as a bit a column; all clear between rows.
    marks: Vec<u64>,
    /// Positives of one row, for racing.
    row: Vec<Entry<()>>,
    /// What a batch's negatives are drawn from, and they themselves: `per_positive` for each positive.
    words: Vec<[u32; 2]>,
    negatives: Vec<u32>,
    /// Copies of two columns, for racing.
    copies: [Vec<f32>; 2],
}

impl Scratch {
    fn new(job: &Job) -> Self {
        let copy = || vec![0.0; if job.epoch.mode == Mode::Hogwild { job.dim } else { 0 }];
        let marks = vec![0; job.n_columns.div_ceil(64)];
        let (row, words, negatives) = (Vec::new(), Vec::new(), Vec::new());
        Self { marks, row, words, negatives, copies: [copy(), copy()] }
    }
}

#[inline(always)]
fn is_marked(marks: &[u64], column: u32) -> bool {
    marks[column as usize / 64] >> (column % 64) & 1 == 1
}

#[inline(always)]
fn mark(marks: &mut [u64], run: &[Entry<()>]) {
    run.iter().for_each(|entry| marks[entry.column as usize / 64] |= 1 << (entry.column % 64));
}

#[inline(always)]
fn clear(marks: &mut [u64], run: &[Entry<()>]) {
    run.iter().for_each(|entry| marks[entry.column as usize / 64] = 0);
}

/// What a task did, to be added up in the order of tasks.
struct Tally {
    /// Loss beside the logarithms.
    linear: f64,
    logs: LogSum,
    samples: u64,
    skipped: u64,
    not_finite: Option<u32>,
}

impl Tally {
    fn new() -> Self {
        Self { linear: 0.0, logs: LogSum::new(), samples: 0, skipped: 0, not_finite: None }
    }

    /// Counts a sample with score `x`; when that is not finite, keeps the row and returns false.
    #[inline(always)]
    fn count(&mut self, x: f32, row: u32) -> bool {
        self.samples += 1;
        let finite = x.is_finite();
        if !finite {
            self.not_finite = self.not_finite.or(Some(row));
        }
        finite
    }

    fn stats(&self) -> Result<PairwiseStats> {
        if let Some(row) = self.not_finite {
            return Err(Error::NotFinite { op: OP, what: "a score", row: row.into() });
        }
        let loss = self.linear + self.logs.total();
        Ok(PairwiseStats { loss, samples: self.samples, skipped: self.skipped })
    }
}

/// Sums of losses to one mean loss.
pub(super) fn mean(parts: impl IntoIterator<Item = PairwiseStats>) -> PairwiseStats {
    let mut sum = parts.into_iter().fold(PairwiseStats::default(), |a, b| PairwiseStats {
        loss: a.loss + b.loss,
        samples: a.samples + b.samples,
        skipped: a.skipped + b.skipped,
    });
    sum.loss /= sum.samples.max(1) as f64;
    sum
}

/// Visits cells of disjoint rows and columns in parallel.
pub(super) fn by_cells(job: &Job) -> Result<PairwiseStats> {
    let cells = deal(job.epoch, job.n_columns, blocks(job.epoch, job.n_columns))?;
    let tables = match weights(job.epoch, job.n_columns) {
        Some(weights) => (0..cells.blocks())
            .into_par_iter()
            .map(|block| alias(&weights, cells.columns(block)).map(Some))
            .collect::<Result<Vec<_>>>()?,
        None => (0..cells.blocks()).map(|_| None).collect(),
    };
    let level = simd::level();
    let parts = cells.run(
        || Scratch::new(job),
        |scratch, cell| {
            let mut tally = Tally::new();
            let pool = Pool { columns: cell.columns, table: tables[cell.column_block].as_ref() };
            // SAFETY: rows and columns of a cell are this task's alone while its round lasts, and the pool's columns are the
            // cell's.
            unsafe { visit::<false>(level, job, scratch, cell.entries, cell.first, &pool, &mut tally) };
            tally.stats()
        },
    )?;
    Ok(mean(parts))
}

/// Visits rows in parallel, each row by one thread, columns by whoever comes.
pub(super) fn racing(job: &Job) -> Result<PairwiseStats> {
    let rows = job.epoch.rows;
    let mut order: Vec<u32> = (0..rows.n_rows() as u32).collect();
    philox::shuffle(&mut order, stream(job.epoch, 0));
    let columns: Vec<u32> = (0..job.n_columns as u32).collect();
    let table = weights(job.epoch, job.n_columns).map(|weights| alias(&weights, &columns)).transpose()?;
    let pool = Pool { columns: &columns, table: table.as_ref() };
    let level = simd::level();
    let task = |scratch: &mut Scratch, task: &[u32]| {
        let mut tally = Tally::new();
        for &row in task {
            let (columns, values) = rows.row(row as usize);
            let positive = columns.iter().zip(values).filter(|&(_, &value)| value > 0.0);
            let mut positives = std::mem::take(&mut scratch.row);
            positives.clear();
            positives.extend(positive.map(|(&column, _)| Entry { row, column, value: () }));
            let first = rows.indptr[row as usize];
            // SAFETY: a row is in one task, and with RACING all access to columns is atomic.
            unsafe { visit::<true>(level, job, scratch, &positives, first, &pool, &mut tally) };
            scratch.row = positives;
        }
        tally.stats()
    };
    let parts: Vec<Result<PairwiseStats>> =
        order.par_chunks(RACING_ROWS).map_init(|| Scratch::new(job), task).collect();
    Ok(mean(parts.into_iter().collect::<Result<Vec<_>>>()?))
}

/// Visits `positives`, all of a row side by side; `first` is the address of the first one's draws.
///
/// # Safety
/// Nobody else may hold the positives' rows, and without `RACING` neither their columns nor the pool's.
unsafe fn visit<const RACING: bool>(
    level: Level,
    job: &Job,
    scratch: &mut Scratch,
    positives: &[Entry<()>],
    first: u64,
    pool: &Pool,
    tally: &mut Tally,
) {
    match level {
        // SAFETY: the level is one that the processor has; rows are the caller's promise.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { visit_avx512::<RACING>(job, scratch, positives, first, pool, tally) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { visit_avx2::<RACING>(job, scratch, positives, first, pool, tally) },
        // SAFETY: rows are the caller's promise.
        _ => unsafe { visit_with::<false, RACING>(job, scratch, positives, first, pool, tally) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn visit_avx512<const RACING: bool>(
    job: &Job,
    scratch: &mut Scratch,
    positives: &[Entry<()>],
    first: u64,
    pool: &Pool,
    tally: &mut Tally,
) {
    // SAFETY: the caller's promise.
    unsafe { visit_with::<true, RACING>(job, scratch, positives, first, pool, tally) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn visit_avx2<const RACING: bool>(
    job: &Job,
    scratch: &mut Scratch,
    positives: &[Entry<()>],
    first: u64,
    pool: &Pool,
    tally: &mut Tally,
) {
    // SAFETY: the caller's promise.
    unsafe { visit_with::<true, RACING>(job, scratch, positives, first, pool, tally) }
}

/// Opens a row for writing: in place, or as a copy that [`close`] writes back.
///
/// # Safety
/// The row exists, and without `RACING` nobody else holds it.
#[inline(always)]
unsafe fn open<'a, const RACING: bool>(rows: &'a SharedRows, row: u32, copy: &'a mut [f32]) -> &'a mut [f32] {
    // SAFETY: the caller's promise; with RACING all access is atomic.
    unsafe {
        if RACING {
            rows.racing(row).load(copy);
            copy
        } else {
            rows.row(row)
        }
    }
}

/// Writes a copy back to its row.
///
/// # Safety
/// The row exists.
#[inline(always)]
unsafe fn close<const RACING: bool>(rows: &SharedRows, row: u32, copy: &[f32]) {
    if RACING {
        // SAFETY: the caller's promise; with RACING all access is atomic.
        unsafe { rows.racing(row).store(copy) };
    }
}

/// # Safety
/// As for [`visit`].
#[inline(always)]
unsafe fn visit_with<const FMA: bool, const RACING: bool>(
    job: &Job,
    scratch: &mut Scratch,
    mut positives: &[Entry<()>],
    mut first: u64,
    pool: &Pool,
    tally: &mut Tally,
) {
    while !positives.is_empty() && tally.not_finite.is_none() {
        let mut n = BATCH.min(positives.len());
        while n < positives.len() && positives[n].row == positives[n - 1].row {
            n += 1;
        }
        let (batch, rest) = positives.split_at(n);
        // SAFETY: the caller's promise.
        unsafe {
            if let PairwiseLoss::Warp { max_draws } = job.epoch.loss {
                warp::<FMA, RACING>(job, scratch, batch, first, max_draws, pool, tally);
            } else {
                draw_batch(job, scratch, batch, first, pool, tally);
                walk::<FMA, RACING>(job, scratch, batch, tally);
            }
        }
        (positives, first) = (rest, first + n as u64);
    }
}

/// Draws the negatives of `batch`, [`NONE`] where there is none.
#[inline(always)]
fn draw_batch(
    job: &Job,
    scratch: &mut Scratch,
    batch: &[Entry<()>],
    first: u64,
    pool: &Pool,
    tally: &mut Tally,
) {
    let per_positive = u64::from(job.epoch.negatives.per_positive);
    let Scratch { marks, words, negatives, .. } = scratch;
    words.resize(batch.len() * per_positive as usize, [0; 2]);
    negatives.clear();
    let mut sample = first * per_positive;
    job.draws.fill_first_words(sample, words);
    let mut words = words.iter();
    for run in batch.chunk_by(|a, b| a.row == b.row) {
        mark(marks, run);
        for entry in run {
            for &words in words.by_ref().take(per_positive as usize) {
                let other = pool.of_words(words);
                negatives.push(match is_refused(job, marks, entry.column, other) {
                    false => other,
                    true => draw(job, marks, pool, entry.column, sample, 0, tally),
                });
                sample += 1;
            }
        }
        clear(marks, run);
    }
}

/// Asks for the rows of the positive and the negatives at `at` of a batch, for when they are visited.
#[inline(always)]
fn ask_ahead(job: &Job, batch: &[Entry<()>], negatives: &[u32], at: usize) {
    let Some(entry) = batch.get(at) else { return };
    job.row_factors.prefetch(entry.row);
    job.column_factors.prefetch(entry.column);
    let per_positive = negatives.len() / batch.len();
    for &other in &negatives[at * per_positive..][..per_positive] {
        if other != NONE {
            job.column_factors.prefetch(other);
        }
    }
}

/// Moves rows by the positives of `batch` and the negatives that `scratch` has for them.
///
/// # Safety
/// As for [`visit`].
#[inline(always)]
unsafe fn walk<const FMA: bool, const RACING: bool>(
    job: &Job,
    scratch: &mut Scratch,
    batch: &[Entry<()>],
    tally: &mut Tally,
) {
    let (columns, per_positive) = (&job.column_factors, job.epoch.negatives.per_positive as usize);
    let Scratch { negatives, copies: [q_copy, o_copy], .. } = scratch;
    (0..AHEAD).for_each(|at| ask_ahead(job, batch, negatives, at));
    for (at, &Entry { row, column, .. }) in batch.iter().enumerate() {
        ask_ahead(job, batch, negatives, at + AHEAD);
        // SAFETY: every row opened here exists, and is this task's alone by the caller's promise; a negative is never the
        // positive it is compared with, so the three are distinct.
        unsafe {
            let p = job.row_factors.row(row);
            let q = open::<RACING>(columns, column, q_copy);
            if job.epoch.loss == PairwiseLoss::Logistic {
                single::<FMA>(job, p, q, row, column, 1.0, tally);
            }
            for &other in &negatives[at * per_positive..][..per_positive] {
                if other == NONE {
                    continue;
                }
                let o = open::<RACING>(columns, other, o_copy);
                match job.epoch.loss {
                    PairwiseLoss::Logistic => single::<FMA>(job, p, o, row, other, -1.0, tally),
                    _ => pair::<FMA>(job, p, q, o, [row, column, other], tally),
                }
                close::<RACING>(columns, other, o);
            }
            close::<RACING>(columns, column, q);
        }
    }
}

/// Draws negatives for each positive of `batch` until one scores within a margin of 1 of it, and moves rows by that.
///
/// # Safety
/// As for [`visit`].
#[inline(always)]
unsafe fn warp<const FMA: bool, const RACING: bool>(
    job: &Job,
    scratch: &mut Scratch,
    batch: &[Entry<()>],
    first: u64,
    max_draws: u32,
    pool: &Pool,
    tally: &mut Tally,
) {
    let columns = &job.column_factors;
    let Scratch { marks, copies: [q_copy, o_copy], .. } = scratch;
    let mut sample = first * u64::from(job.epoch.negatives.per_positive);
    for run in batch.chunk_by(|a, b| a.row == b.row) {
        mark(marks, run);
        for &Entry { row, column, .. } in run {
            // SAFETY: as in `walk`.
            unsafe {
                let p = job.row_factors.row(row);
                let q = open::<RACING>(columns, column, q_copy);
                for _ in 0..job.epoch.negatives.per_positive {
                    let own = dot::<FMA>(p, q) + bias(job, column);
                    tally.count(own, row);
                    for t in 0..max_draws {
                        let other = draw(job, marks, pool, column, sample, t.into(), tally);
                        if other == NONE {
                            continue;
                        }
                        let o = open::<RACING>(columns, other, o_copy);
                        let apart = own - dot::<FMA>(p, o) - bias(job, other);
                        if !apart.is_finite() {
                            tally.not_finite = tally.not_finite.or(Some(row));
                            break;
                        }
                        if apart < 1.0 {
                            let weight = rank_weight(job.n_columns, t);
                            tally.linear += f64::from(weight * (1.0 - apart));
                            move_pair::<FMA>(job, p, q, o, [row, column, other], weight);
                            close::<RACING>(columns, other, o);
                            break;
                        }
                    }
                    sample += 1;
                }
                close::<RACING>(columns, column, q);
            }
        }
        clear(marks, run);
    }
}

/// Draws a negative of `sample` from try `t` on, by the rule for positives; [`NONE`] after the last try.
#[inline(always)]
fn draw(job: &Job, marks: &[u64], pool: &Pool, positive: u32, sample: u64, t: u64, tally: &mut Tally) -> u32 {
    let tries = if job.epoch.negatives.on_positive == OnPositive::Redraw { MAX_TRIES } else { 1 };
    for t in t * tries..(t + 1) * tries {
        let other = pool.pick(job.draws, sample, t);
        if !is_refused(job, marks, positive, other) {
            return other;
        }
    }
    tally.skipped += 1;
    NONE
}

/// Whether `other` cannot be a negative of the marked row and `positive`.
#[inline(always)]
fn is_refused(job: &Job, marks: &[u64], positive: u32, other: u32) -> bool {
    match job.epoch.negatives.on_positive {
        OnPositive::Keep => other == positive,
        _ => is_marked(marks, other),
    }
}

#[inline(always)]
fn bias(job: &Job, column: u32) -> f32 {
    job.column_bias.as_ref().map_or(0.0, |bias| bias.value(column))
}

/// Steps of `[row, column, other]` for BPR.
#[inline(always)]
fn pair<const FMA: bool>(
    job: &Job,
    p: &mut [f32],
    q: &mut [f32],
    o: &mut [f32],
    ids: [u32; 3],
    tally: &mut Tally,
) {
    let [_, column, other] = ids;
    let x = step::difference::<FMA>(p, q, o) + (bias(job, column) - bias(job, other));
    if let Some(z) = slope::<FMA>(x, ids[0], tally) {
        move_pair::<FMA>(job, p, q, o, ids, z);
    }
}

/// Steps of `[row, column, other]` for a slope that is known.
#[inline(always)]
fn move_pair<const FMA: bool>(job: &Job, p: &mut [f32], q: &mut [f32], o: &mut [f32], ids: [u32; 3], z: f32) {
    let rates = match &job.state {
        None => [job.epoch.learning_rate; 3],
        Some(_) => adapt(job, ids, z * z, step::square_of_difference::<FMA>(q, o), step::square::<FMA>(p)),
    };
    step::move_three::<FMA>(p, q, o, z, rates, job.epoch.regularization);
    move_biases(job, ids[1], ids[2], z);
}

/// Step of one row and one column for the logistic loss of `sign * x`.
#[inline(always)]
fn single<const FMA: bool>(
    job: &Job,
    p: &mut [f32],
    q: &mut [f32],
    row: u32,
    column: u32,
    sign: f32,
    tally: &mut Tally,
) {
    let x = dot::<FMA>(p, q) + bias(job, column);
    let Some(z) = slope::<FMA>(sign * x, row, tally) else { return };
    let rates = match &job.state {
        None => [job.epoch.learning_rate; 2],
        Some([rows, columns, _]) => {
            let z2 = z * z / job.dim as f32;
            let (qq, pp) = (step::square::<FMA>(q), step::square::<FMA>(p));
            let rate = rate(job, job.epoch.regularization);
            [adagrad(rows, row, z2 * qq, rate), adagrad(columns, column, z2 * pp, rate)]
        }
    };
    step::move_two::<FMA>(p, q, sign * z, rates, job.epoch.regularization);
    move_bias(job, column, sign * z);
}

/// Returns the slope at `x` and counts its loss; nothing, and the row is kept, when `x` is not finite.
#[inline(always)]
fn slope<const FMA: bool>(x: f32, row: u32, tally: &mut Tally) -> Option<f32> {
    if !tally.count(x, row) {
        return None;
    }
    let (z, t) = step::slope::<FMA>(x);
    tally.logs.add(t);
    tally.linear += f64::from((-x).max(0.0));
    Some(z)
}

/// Adagrad's step sizes of `[row, column, other]`; `apart` is `|i - j|^2`, `square` is `|p|^2`.
#[inline(always)]
fn adapt(job: &Job, ids: [u32; 3], z2: f32, apart: f32, square: f32) -> [f32; 3] {
    let Some([rows, columns, _]) = &job.state else { return [job.epoch.learning_rate; 3] };
    let mean = z2 / job.dim as f32;
    let rate = rate(job, job.epoch.regularization);
    [
        adagrad(rows, ids[0], mean * apart, rate),
        adagrad(columns, ids[1], mean * square, rate),
        adagrad(columns, ids[2], mean * square, rate),
    ]
}

/// The learning rate, and what each of Adagrad's sums has beyond its squares: the square of L2's pull on a weight of 1, so
/// that a first step over a gradient of next to nothing shrinks a row by the learning rate and not by a thousand times it.
#[inline(always)]
fn rate(job: &Job, l2: f32) -> [f32; 2] {
    const LEAST: f32 = 1e-12;
    [job.epoch.learning_rate, (l2 * l2).max(LEAST)]
}

#[inline(always)]
fn adagrad(sums: &SharedRows, at: u32, square: f32, [rate, least]: [f32; 2]) -> f32 {
    let sum = sums.value(at) + square;
    sums.set_value(at, sum);
    rate / (sum + least).sqrt()
}

#[inline(always)]
fn move_biases(job: &Job, column: u32, other: u32, z: f32) {
    move_bias(job, column, z);
    move_bias(job, other, -z);
}

#[inline(always)]
fn move_bias(job: &Job, column: u32, z: f32) {
    let Some(biases) = &job.column_bias else { return };
    let rate = match &job.state {
        None => job.epoch.learning_rate,
        Some([_, _, sums]) => adagrad(sums, column, z * z, rate(job, job.epoch.bias_regularization)),
    };
    let old = biases.value(column);
    biases.set_value(column, old + rate * (z - job.epoch.bias_regularization * old));
}

/// `L(rank) / L(n)` for a negative found at try `t`.
fn rank_weight(n_columns: usize, t: u32) -> f32 {
    let rank = (n_columns as u32 - 1) / (t + 1);
    harmonic(rank.max(1)) / harmonic(n_columns as u32)
}

/// The `k`-th harmonic number, to 0.6% for `k` = 1 and better beyond.
#[inline(always)]
pub(super) fn harmonic(k: u32) -> f32 {
    const EULER: f32 = 0.577_215_7;
    let k = k as f32;
    k.ln() + EULER + 0.5 / k - 1.0 / (12.0 * k * k)
}

//! Sparse updates on the CPU: tasks of distinct rows, each task's rows its own.

use half::{bf16, f16};
use rayon::prelude::*;

use super::{NOT_FINITE, OP, Rule, SparseState, SparseStep};
use crate::{
    Buffer, Error, Result, Rows, Segment, Table,
    philox::Draws,
    rounding::{to_bf16, to_f16, words_at},
    segment::PIECE,
};

/// Values that one task steps.
const TASK_VALUES: usize = 1 << 13;

/// A run of rows for writing.
enum RowsMut<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [f16]),
    Bf16(&'a mut [bf16]),
}

impl<'a> RowsMut<'a> {
    /// `None` for rows that are not in memory of ours.
    fn of(rows: &'a mut Rows) -> Option<Self> {
        match rows {
            Rows::F32(buffer) => buffer.cpu_mut().map(RowsMut::F32),
            Rows::F16(buffer) => buffer.cpu_mut().map(RowsMut::F16),
            Rows::Bf16(buffer) => buffer.cpu_mut().map(RowsMut::Bf16),
            Rows::Int8(..) => None,
        }
    }

    /// Takes `len` values off the front, after the first `skip`, which are given up.
    fn take(&mut self, skip: usize, len: usize) -> Self {
        match self {
            RowsMut::F32(rest) => RowsMut::F32(take(rest, skip, len)),
            RowsMut::F16(rest) => RowsMut::F16(take(rest, skip, len)),
            RowsMut::Bf16(rest) => RowsMut::Bf16(take(rest, skip, len)),
        }
    }
}

fn take<'a, T>(rest: &mut &'a mut [T], skip: usize, len: usize) -> &'a mut [T] {
    let (own, later) = std::mem::take(rest)[skip..].split_at_mut(len);
    *rest = later;
    own
}

/// Rows from `first` on, with their state, and those of them to step.
struct Task<'a> {
    first: usize,
    rows: RowsMut<'a>,
    states: Vec<&'a mut [f32]>,
    /// The first row's place among the distinct rows.
    slot: usize,
    unique: &'a [u32],
}

/// What every task reads.
struct Job<'a> {
    dim: usize,
    offsets: &'a [u32],
    positions: &'a [u32],
    gradients: &'a [f32],
    rate: f32,
    l2: f32,
    rule: Rule,
    draws: Draws,
}

pub(super) fn update(
    table: &mut Table,
    state: &mut SparseState,
    segment: &Segment,
    gradients: &Buffer<f32>,
    step: &SparseStep,
    rule: Rule,
) -> Result<()> {
    let (dim, device) = (table.dim(), table.device());
    let job = Job {
        dim,
        offsets: segment.offsets().cpu().unwrap_or_default(),
        positions: segment.positions().cpu().unwrap_or_default(),
        gradients: gradients.cpu().unwrap_or_default(),
        rate: step.learning_rate,
        l2: step.l2,
        rule,
        draws: Draws::new(step.seed, state.steps()),
    };
    let unique = segment.unique().cpu().unwrap_or_default();
    let mut tasks = Vec::new();
    let state_dims: Vec<usize> = state.tables.iter().map(Table::dim).collect();
    let mut states: Vec<_> = state.tables.iter_mut().map(Table::f32_chunks_mut).collect();
    let at_once = (TASK_VALUES / dim).max(1);
    let (n_rows, chunk_rows) = (table.rows() as usize, table.chunk_rows() as usize);
    let mut slot = 0;
    for (first, rows) in table.chunks_mut() {
        let mapped = || Error::NotOnDevice { op: OP, device };
        let mut rest = RowsMut::of(rows).ok_or_else(mapped)?;
        let mut rests = states
            .iter_mut()
            .map(|chunks| chunks.next().map(|(_, values)| values).ok_or_else(mapped))
            .collect::<Result<Vec<_>>>()?;
        let mut begin = first as usize;
        let end = (begin + chunk_rows).min(n_rows);
        let here = unique[slot..].partition_point(|&row| (row as usize) < end);
        for own in unique[slot..slot + here].chunks(at_once) {
            let (low, high) = (own[0] as usize, own[own.len() - 1] as usize);
            let (skip, n) = (low - begin, high - low + 1);
            tasks.push(Task {
                first: low,
                rows: rest.take(skip * dim, n * dim),
                states: rests
                    .iter_mut()
                    .zip(&state_dims)
                    .map(|(rest, dim)| take(rest, skip * dim, n * dim))
                    .collect(),
                slot,
                unique: own,
            });
            (begin, slot) = (high + 1, slot + own.len());
        }
    }
    drop(states);
    let first = tasks.into_par_iter().filter_map(|task| run(&job, task)).min();
    state.count_step();
    state.not_finite = state.not_finite.or(first);
    match first {
        Some(row) => Err(Error::NotFinite { op: OP, what: NOT_FINITE, row }),
        None => Ok(()),
    }
}

/// Steps the task's rows; returns the first that is not finite.
fn run(job: &Job, mut task: Task) -> Option<u64> {
    let dim = job.dim;
    let mut spare = vec![0.0f32; 5 * dim];
    let (sum, spare) = spare.split_at_mut(dim);
    let (piece, spare) = spare.split_at_mut(dim);
    // State that an optimizer does not have, for it to leave alone.
    let (wide, idle) = spare.split_at_mut(dim);
    let (idle_a, idle_b) = idle.split_at_mut(dim);
    let mut first = None;
    for (at, &row) in task.unique.iter().enumerate() {
        let (begin, end) = (job.offsets[task.slot + at], job.offsets[task.slot + at + 1]);
        add_up(job, &job.positions[begin as usize..end as usize], sum, piece);
        let in_task = row as usize - task.first;
        let values = in_task * dim..(in_task + 1) * dim;
        let mut states = task.states.iter_mut().map(|state| {
            let dim = if matches!(job.rule, Rule::RowWise { .. }) { 1 } else { dim };
            &mut state[in_task * dim..(in_task + 1) * dim]
        });
        let a = states.next().unwrap_or(&mut *idle_a);
        let b = states.next().unwrap_or(&mut *idle_b);
        let finite = match &mut task.rows {
            RowsMut::F32(rows) => step(job, &mut rows[values], a, b, sum),
            RowsMut::F16(rows) => {
                let rows = &mut rows[values];
                rows.iter().zip(&mut *wide).for_each(|(row, wide)| *wide = row.to_f32());
                step(job, wide, a, b, sum) & narrow(job, row, wide, rows, to_f16, f16::is_finite)
            }
            RowsMut::Bf16(rows) => {
                let rows = &mut rows[values];
                rows.iter().zip(&mut *wide).for_each(|(row, wide)| *wide = row.to_f32());
                step(job, wide, a, b, sum) & narrow(job, row, wide, rows, to_bf16, bf16::is_finite)
            }
        };
        if !finite && first.is_none() {
            first = Some(row.into());
        }
    }
    first
}

/// Sums the gradients of `positions`: by pieces, and then those.
fn add_up(job: &Job, positions: &[u32], sum: &mut [f32], piece: &mut [f32]) {
    let add = |sum: &mut [f32], positions: &[u32]| {
        for &position in positions {
            let gradient = &job.gradients[position as usize * job.dim..][..job.dim];
            sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
        }
    };
    sum.fill(0.0);
    if positions.len() <= PIECE {
        return add(sum, positions);
    }
    for positions in positions.chunks(PIECE) {
        piece.fill(0.0);
        add(piece, positions);
        sum.iter_mut().zip(&*piece).for_each(|(sum, piece)| *sum += piece);
    }
}

/// Rounds `wide` into `rows`, but for values that overflow; returns whether none does.
fn narrow<T: Copy>(
    job: &Job,
    row: u32,
    wide: &[f32],
    rows: &mut [T],
    round: impl Fn(f32, u32) -> T,
    is_finite: impl Fn(T) -> bool,
) -> bool {
    let mut finite = true;
    for (quad, (wide, rows)) in wide.chunks(4).zip(rows.chunks_mut(4)).enumerate() {
        let words = words_at(job.draws, row.into(), quad, job.dim);
        for ((&wide, row), word) in wide.iter().zip(rows).zip(words) {
            let rounded = round(wide, word);
            if is_finite(rounded) {
                *row = rounded;
            } else {
                finite = false;
            }
        }
    }
    finite
}

/// Steps one row; returns whether all of it is finite, and leaves alone what is not.
#[inline]
fn step(job: &Job, w: &mut [f32], a: &mut [f32], b: &mut [f32], g: &[f32]) -> bool {
    let (rate, l2) = (job.rate, job.l2);
    match job.rule {
        Rule::Sgd => each(w, a, b, g, |g, w, a, b| (w - rate * (g + l2 * w), a, b)),
        Rule::Adagrad { initial, epsilon } => each(w, a, b, g, |g, w, a, b| {
            let g = g + l2 * w;
            let a = a + g * g;
            (w - rate * g / ((initial + a).sqrt() + epsilon), a, b)
        }),
        Rule::RowWise { initial, epsilon } => {
            let new = a[0] + squares(w, g, l2) / w.len() as f32;
            if !new.is_finite() {
                return false;
            }
            a[0] = new;
            let rate = rate / ((initial + new).sqrt() + epsilon);
            let mut finite = true;
            for (w, g) in w.iter_mut().zip(g) {
                let new = *w - rate * (g + l2 * *w);
                finite &= new.is_finite();
                *w = if new.is_finite() { new } else { *w };
            }
            finite
        }
        Rule::Adam { beta1, beta2, epsilon, scale1, scale2 } => each(w, a, b, g, |g, w, m, v| {
            let g = g + l2 * w;
            let m = beta1 * m + (1.0 - beta1) * g;
            let v = beta2 * v + (1.0 - beta2) * g * g;
            (w - rate * (m * scale1) / ((v * scale2).sqrt() + epsilon), m, v)
        }),
        Rule::Ftrl { beta, l1 } => each(w, a, b, g, |g, w, z, n| {
            let new = n + g * g;
            let z = z + g - (new.sqrt() - n.sqrt()) / rate * w;
            let w = -(z - l1.copysign(z)) / ((beta + new.sqrt()) / rate + l2);
            (if z.abs() <= l1 { 0.0 } else { w }, z, new)
        }),
    }
}

/// The sum of the squares of the decayed gradients; eight sums side by side, and then those.
fn squares(w: &[f32], g: &[f32], l2: f32) -> f32 {
    let mut sums = [0.0f32; 8];
    for (w, g) in w.chunks(8).zip(g.chunks(8)) {
        for ((sum, w), g) in sums.iter_mut().zip(w).zip(g) {
            let g = g + l2 * w;
            *sum += g * g;
        }
    }
    sums.iter().sum()
}

/// Applies `rule` to each value, its state and its gradient, where what it gives is finite.
#[inline(always)]
fn each(
    w: &mut [f32],
    a: &mut [f32],
    b: &mut [f32],
    g: &[f32],
    rule: impl Fn(f32, f32, f32, f32) -> (f32, f32, f32),
) -> bool {
    let mut all = true;
    for (((w, a), b), &g) in w.iter_mut().zip(a).zip(b).zip(g) {
        let new = rule(g, *w, *a, *b);
        let finite = new.0.is_finite() & new.1.is_finite() & new.2.is_finite();
        all &= finite;
        if finite {
            (*w, *a, *b) = new;
        }
    }
    all
}

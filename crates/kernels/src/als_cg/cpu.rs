//! Conjugate gradients on the CPU.
//!
//! Rows of ordinary length ([`batch`](super::batch)): the fixed rows of a batch are gathered once into a contiguous
//! buffer that stays in a core's cache through all steps. Long rows ([`long`](super::long)) would not fit: those of one
//! thread take their steps together, and each pass goes over the fixed table in blocks that do fit. Which of the two a
//! row is follows from its length alone, so that its bits do not depend on its company.

use crate::{
    AlsSystem, Error, Result, Table,
    als::{
        fixed::{FixedRows, Gather},
        schedule::{FirstFailure, RowRange, row_ranges, run_in_turn},
    },
    dense::Multiply,
    scratch::{Pool, Scratch},
    simd::{self, Level, dispatch},
};

use super::{
    OP,
    batch::Work,
    long::LongRows,
    pass::{Ahead, Pass, Source, pass, stride_for},
    step::{Dot, Negate, Step, Stepped},
};

/// A row whose fixed rows are more bytes than this is long: half of a second-level cache of 2 MiB.
pub(super) const LONG_BYTES: usize = 1 << 20;
/// Bytes of fixed rows that are gathered, and then used for the first time, at once.
const SEGMENT_BYTES: usize = 8 << 10;
/// Entries of a task, with [`ROW_COST`] for each row.
const TASK_ENTRIES: usize = 1 << 15;
const ROW_COST: usize = 32;
/// Below this `rᵀr` a row is solved.
const SOLVED: f32 = 1e-20;

/// What all threads share.
pub(super) struct Solver<'a> {
    pub(super) system: &'a AlsSystem<'a>,
    pub(super) fixed: FixedRows<'a>,
    /// `[dim, stride]`.
    gram: Scratch,
    pub(super) level: Level,
    pub(super) dim: usize,
    pub(super) stride: usize,
    pub(super) steps: usize,
    pub(super) failure: FirstFailure,
}

/// The vectors of rows that take their steps together, `[n, stride]` each.
pub(super) struct Vectors {
    pub(super) x: Scratch,
    r: Scratch,
    p: Scratch,
    q: Scratch,
    rho: Vec<f32>,
    /// Whether a row has nothing left to do.
    pub(super) done: Vec<bool>,
}

/// Which product a pass is a part of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    /// The first residual: with the start, into `r`.
    First,
    /// A step's: with the direction, into `q`.
    Step(usize),
}

enum Task<'a> {
    Long(&'a mut LongRows),
    Range(RowRange<'a>),
}

pub(super) fn solve(system: &AlsSystem<'_>, solution: &mut Table, steps: usize) -> Result<()> {
    let level = simd::level();
    let dim = system.fixed.dim();
    let stride = stride_for(dim, level);
    let elsewhere = Error::NotOnDevice { op: OP, device: system.fixed.device() };
    let fixed = FixedRows::new(system.fixed).ok_or(elsewhere)?;
    let mut gram = Scratch::new(dim * stride)?;
    for (to, from) in gram.chunks_exact_mut(stride).zip(system.gram.chunks_exact(dim)) {
        to[..dim].copy_from_slice(from);
    }
    let failure = FirstFailure::new();
    let solver = Solver { system, fixed, gram, level, dim, stride, steps, failure };

    let mut long = LongRows::share_out(&solver, solution)?;
    let ranges = row_ranges(system.rows, solution, (1, ROW_COST), TASK_ENTRIES);
    let mut tasks: Vec<Task<'_>> = long.iter_mut().map(Task::Long).collect();
    tasks.extend(ranges.into_iter().map(Task::Range));
    let pool = Pool::new();
    let out_of_memory = FirstFailure::new();
    run_in_turn(tasks, |task| {
        let done = match task {
            Task::Long(long) => long.solve(&solver),
            Task::Range(range) => pool.lend(|| Work::new(&solver), |work| work.solve(&solver, range)),
        };
        if let Err(error) = done {
            out_of_memory.note(0, error);
        }
    });
    out_of_memory.result()?;
    for long in &long {
        long.write(&solver, solution);
    }
    solver.failure.result()
}

impl Vectors {
    pub(super) fn new(n: usize, stride: usize) -> Result<Self> {
        let vectors = || Scratch::new(n * stride);
        let (rho, done) = (vec![0.0; n], vec![false; n]);
        Ok(Self { x: vectors()?, r: vectors()?, p: vectors()?, q: vectors()?, rho, done })
    }

    /// The vector that a pass multiplies and the sum that it adds to.
    pub(super) fn operands(&mut self, j: usize, stride: usize, round: Round) -> (&[f32], &mut [f32]) {
        let values = j * stride..(j + 1) * stride;
        match round {
            Round::First => (&self.x[values.clone()], &mut self.r[values]),
            Round::Step(_) => (&self.p[values.clone()], &mut self.q[values]),
        }
    }
}

impl Solver<'_> {
    pub(super) fn is_long(&self, row: usize) -> bool {
        self.system.rows.row_len(row) * self.stride * 4 > LONG_BYTES
    }

    /// Entries that are gathered at once: whole blocks of eight, so that every source is cut at the same places.
    pub(super) fn segment(&self) -> usize {
        (SEGMENT_BYTES / (self.stride * 4)).clamp(8, 64) / 8 * 8
    }

    /// Takes the steps of `rows` together; `passes` adds the products with the entries for every row that is not done.
    pub(super) fn steps(
        &self,
        rows: &[usize],
        vectors: &mut Vectors,
        mut passes: impl FnMut(Round, &mut Vectors),
    ) {
        let (level, stride) = (self.level, self.stride);
        let n = rows.len() * stride;
        vectors.done[..rows.len()].fill(false);
        self.multiply(&vectors.x[..n], &mut vectors.q[..n]);
        for (j, &row) in rows.iter().enumerate() {
            let values = j * stride..(j + 1) * stride;
            let (product, x) = (&vectors.q[values.clone()], &vectors.x[values.clone()]);
            let ridge = self.system.ridge[row];
            dispatch(level, Negate { product, x, ridge, residual: &mut vectors.r[values] });
        }
        passes(Round::First, vectors);
        vectors.p[..n].copy_from_slice(&vectors.r[..n]);
        for j in 0..rows.len() {
            let r = &vectors.r[j * stride..][..stride];
            vectors.rho[j] = dispatch(level, Dot(r, r));
            vectors.done[j] = vectors.rho[j] < SOLVED;
        }
        for step in 0..self.steps {
            if vectors.done[..rows.len()].iter().all(|&done| done) {
                return;
            }
            self.multiply(&vectors.p[..n], &mut vectors.q[..n]);
            passes(Round::Step(step), vectors);
            for (j, &row) in rows.iter().enumerate() {
                if vectors.done[j] {
                    continue;
                }
                let values = j * stride..(j + 1) * stride;
                let stepped = Step {
                    x: &mut vectors.x[values.clone()],
                    r: &mut vectors.r[values.clone()],
                    p: &mut vectors.p[values.clone()],
                    q: &mut vectors.q[values],
                    ridge: self.system.ridge[row],
                    rho: vectors.rho[j],
                    last: step + 1 == self.steps,
                };
                match dispatch(level, stepped) {
                    Stepped::Residual(rho) => {
                        vectors.rho[j] = rho;
                        vectors.done[j] = rho < SOLVED;
                    }
                    Stepped::NotPositive => {
                        self.failure.note(row, Error::NotPositiveDefinite { op: OP, row: row as u64 });
                        vectors.done[j] = true;
                    }
                }
            }
        }
    }

    fn multiply(&self, vectors: &[f32], out: &mut [f32]) {
        let (matrix, dim, stride) = (&self.gram[..], self.dim, self.stride);
        dispatch(self.level, Multiply { matrix, vectors, out, dim, stride });
    }

    pub(super) fn gather(&self, indices: &[u32], ahead: &[u32], to: &mut [f32]) {
        let layout = (self.stride, self.stride);
        dispatch(self.level, Gather { fixed: &self.fixed, indices, ahead, columns: 0..self.dim, to, layout });
    }

    pub(super) fn pass(
        &self,
        source: Source<'_>,
        values: &[f32],
        round: Round,
        (vector, sum): (&[f32], &mut [f32]),
        ahead: &[u32],
    ) {
        let AlsSystem { base, scale, offset, .. } = *self.system;
        let phase = if let Round::Step(step) = round { step } else { 0 };
        let ahead = Ahead { fixed: &self.fixed, indices: ahead, phases: self.steps.max(1), phase };
        let first = round == Round::First;
        pass(self.level, Pass { source, values, base, scale, offset, first, vector, sum, ahead });
    }

    /// Notes a row that is not finite.
    pub(super) fn check(&self, row: usize, x: &[f32]) {
        if !x.iter().all(|x| x.is_finite()) {
            self.failure.note(row, Error::NotFinite { op: OP, what: "solution", row: row as u64 });
        }
    }
}

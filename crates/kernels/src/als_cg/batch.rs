//! Rows of ordinary length: gathered once, a batch at a time.

use crate::{Result, als::schedule::RowRange, scratch::Scratch};

use super::{
    cpu::{LONG_BYTES, Round, Solver, Vectors},
    pass::Source,
};

/// Rows of a batch, and bytes of their fixed rows, where the Gram matrix is larger than a first-level cache: the rows
/// then share its way in from the second level.
const BATCH_ROWS: usize = 16;
const BATCH_BYTES: usize = 512 << 10;
/// Bytes of a batch where the Gram matrix is small: all of it then stays in the first-level cache.
const SMALL_BATCH_BYTES: usize = 24 << 10;
const SMALL_GRAM_BYTES: usize = 20 << 10;
/// Bytes that are asked for before they are gathered.
const AHEAD_BYTES: usize = 4 << 10;

/// What a thread works in.
pub(super) struct Work {
    gathered: Scratch,
    vectors: Vectors,
}

impl Work {
    pub(super) fn new(solver: &Solver<'_>) -> Result<Self> {
        let rows = solver.system.rows;
        let needed = rows.nnz() * solver.stride;
        Ok(Self {
            gathered: Scratch::new(needed.min(LONG_BYTES / 4))?,
            vectors: Vectors::new(BATCH_ROWS.min(rows.n_rows()), solver.stride)?,
        })
    }

    /// Solves the rows of `range` that are not long.
    pub(super) fn solve(&mut self, solver: &Solver<'_>, range: RowRange<'_>) {
        let rows = solver.system.rows;
        let (dim, row_bytes) = (solver.dim, solver.stride * 4);
        let small = dim * row_bytes <= SMALL_GRAM_BYTES;
        let most = if small { SMALL_BATCH_BYTES } else { BATCH_BYTES } / row_bytes;
        let mut batch = Vec::with_capacity(BATCH_ROWS);
        let mut entries = 0;
        for at in 0..range.solution.len() / dim {
            let row = range.first + at;
            let length = rows.row_len(row);
            if length == 0 {
                range.solution[at * dim..][..dim].fill(0.0);
            } else if !solver.is_long(row) {
                if batch.len() == BATCH_ROWS || (entries > 0 && entries + length > most) {
                    self.solve_batch(solver, &batch, range.first, range.solution);
                    batch.clear();
                    entries = 0;
                }
                batch.push(row);
                entries += length;
            }
        }
        self.solve_batch(solver, &batch, range.first, range.solution);
    }

    fn solve_batch(&mut self, solver: &Solver<'_>, batch: &[usize], first: usize, solution: &mut [f32]) {
        let (dim, stride) = (solver.dim, solver.stride);
        let Self { gathered, vectors } = self;
        let rows = solver.system.rows;
        for (&row, x) in batch.iter().zip(vectors.x.chunks_exact_mut(stride)) {
            x[..dim].copy_from_slice(&solution[(row - first) * dim..][..dim]);
            x[dim..].fill(0.0);
        }
        // The next batch's entries follow this one's, but for long rows in between.
        let next = batch.last().map_or(0, |&row| rows.indptr[row + 1] as usize);
        let next = &rows.indices[next..];
        let segment = solver.segment();
        let soon = (AHEAD_BYTES / (stride * 4)).clamp(2, 64);
        solver.steps(batch, vectors, |round, vectors| {
            let mut at = 0;
            for (j, &row) in batch.iter().enumerate() {
                let (indices, values) = rows.row(row);
                let gathered = &mut gathered[at * stride..][..indices.len() * stride];
                let ahead = next.get(at..).unwrap_or_default();
                at += indices.len();
                if vectors.done[j] {
                    continue;
                }
                if round != Round::First {
                    let operands = vectors.operands(j, stride, round);
                    solver.pass(Source::Gathered(gathered), values, round, operands, ahead);
                    continue;
                }
                let mut entry = rows.indptr[row] as usize;
                for (to, values) in gathered.chunks_mut(segment * stride).zip(values.chunks(segment)) {
                    let end = entry + values.len();
                    let soon = rows.indices.get(entry + soon..).unwrap_or_default();
                    solver.gather(&rows.indices[entry..end], soon, to);
                    let operands = vectors.operands(j, stride, round);
                    solver.pass(Source::Gathered(to), values, round, operands, &[]);
                    entry = end;
                }
            }
        });
        for (j, &row) in batch.iter().enumerate() {
            let x = &vectors.x[j * stride..][..dim];
            solver.check(row, x);
            solution[(row - first) * dim..][..dim].copy_from_slice(x);
        }
    }
}

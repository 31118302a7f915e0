//! A row's normal equations over a range of dimensions, formed in one core's cache and solved.
//!
//! ```text
//! [gram_ππ + ridge I + Σ a_i y_iπ y_iπᵀ | target_π]        target += Σ pull_i y_iπ
//! ```
//!
//! Entries come in blocks that stay in a first-level cache: gathered, added to the target, multiplied by `√a_i`, and
//! then one symmetric rank-k update.

use std::ops::Range;

use crate::{
    AlsSystem, Result,
    dense::{Solve, SolveArgs, Syrk, Update, Weigh},
    scratch::Scratch,
    simd::{Level, dispatch},
};

use super::fixed::{FixedRows, Gather};

/// Bytes of a block of entries.
const BLOCK_BYTES: usize = 24 << 10;
const BLOCK_ENTRIES: usize = 96;
/// Bytes that are asked for before they are gathered.
const AHEAD_BYTES: usize = 4 << 10;

/// What all rows share.
pub(crate) struct Equations<'a> {
    pub(crate) system: &'a AlsSystem<'a>,
    pub(crate) fixed: FixedRows<'a>,
    pub(crate) level: Level,
}

/// One row's matrix and what its entries pass through; for ranges of at most as many dimensions as it was made for.
pub(crate) struct Normal {
    /// `[n rounded up, stride]` of the range that was begun last.
    matrix: Scratch,
    /// `[at_once, stride]`.
    z: Scratch,
    /// `[n rounded up]`.
    target: Scratch,
    /// `[n rounded up]`.
    x: Scratch,
}

impl Normal {
    pub(crate) fn new(n: usize, level: Level) -> Result<Self> {
        let padded = n.next_multiple_of(level.lanes());
        let stride = SolveArgs::stride_for(n, level.lanes());
        Ok(Self {
            matrix: Scratch::new(padded * stride)?,
            z: Scratch::new(block_entries(stride) * stride)?,
            target: Scratch::new(padded)?,
            x: Scratch::new(padded)?,
        })
    }

    /// Solves row `row` over dimensions `range`: `start` is what the target has before the entries, and `pull` turns an
    /// entry's place in the row, its `a` and its `b` into what it adds. `None` when the matrix is not positive definite.
    pub(crate) fn solve(
        &mut self,
        equations: &Equations<'_>,
        row: usize,
        range: Range<usize>,
        start: Option<&[f32]>,
        pull: impl Fn(usize, f32, f32) -> f32,
    ) -> Option<&[f32]> {
        let Equations { system, fixed, level } = equations;
        let (level, lanes, n, dim) = (*level, level.lanes(), range.len(), system.fixed.dim());
        let (padded, stride) = (n.next_multiple_of(lanes), SolveArgs::stride_for(n, lanes));
        let matrix = &mut self.matrix[..padded * stride];
        for (i, to) in matrix.chunks_exact_mut(stride).take(n).enumerate() {
            // Only the upper triangle is read, from the vector of the diagonal on.
            let from = i / lanes * lanes;
            to[from..n]
                .copy_from_slice(&system.gram[(range.start + i) * dim..][range.start + from..range.end]);
            to[n..].fill(0.0);
            to[i] += system.ridge[row];
        }
        let target = &mut self.target[..padded];
        target.fill(0.0);
        if let Some(start) = start {
            target[..n].copy_from_slice(start);
        }
        let at_once = block_entries(stride);
        let soon = (AHEAD_BYTES / (stride * 4)).clamp(2, 32);
        let values = system.rows.row(row).1;
        let first = system.rows.indptr[row] as usize;
        for at in (0..values.len()).step_by(at_once) {
            let values = &values[at..values.len().min(at + at_once)];
            let n_entries = values.len();
            let indices = &system.rows.indices[first + at..][..n_entries];
            let ahead = system.rows.indices.get(first + at + soon..).unwrap_or_default();
            let z = &mut self.z[..n_entries * stride];
            let (columns, layout) = (range.clone(), (stride, padded));
            dispatch(level, Gather { fixed, indices, ahead, columns, to: z, layout });
            let (mut root, mut pulls) = ([0.0; BLOCK_ENTRIES], [0.0; BLOCK_ENTRIES]);
            let mut below_zero = [false; BLOCK_ENTRIES];
            for (k, &value) in values.iter().enumerate() {
                let (a, b) = system.weights(value);
                (root[k], below_zero[k]) = (a.abs().sqrt(), a < 0.0);
                pulls[k] = pull(at + k, a, b);
            }
            let (pull, root) = (&pulls[..n_entries], &root[..n_entries]);
            dispatch(level, Weigh { rows: z, stride, pull, root, target });
            // All of them at once, unless some weigh less than what was not observed.
            let mut begin = 0;
            for run in below_zero[..n_entries].chunk_by(|a, b| a == b) {
                let z = &z[begin * stride..][..run.len() * stride];
                let update = if run[0] { Update::Subtract } else { Update::Add };
                begin += run.len();
                dispatch(level, Syrk { z, z_stride: stride, c: matrix, c_stride: stride, n, update });
            }
        }
        let column = SolveArgs::target_column(n, lanes);
        for (to, &target) in matrix.chunks_exact_mut(stride).zip(&*target).take(n) {
            to[column] = target;
        }
        let x = &mut self.x[..padded];
        dispatch(level, Solve(SolveArgs { matrix, stride, x, n })).then(|| &self.x[..n])
    }
}

/// Entries that are taken at once.
fn block_entries(stride: usize) -> usize {
    (BLOCK_BYTES / (stride * 4)).clamp(32, BLOCK_ENTRIES) / 8 * 8
}

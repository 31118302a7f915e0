//! Block coordinate descent on the CPU, a row at a time.
//!
//! A row keeps the products `s_i = y_iᵀ x` of its entries and `gram x` up to date, so that a block's gradient costs no
//! more than the block's own columns.

use crate::{
    AlsSystem, Error, Result, Table,
    als::{
        fixed::{FixedRows, Gather},
        normal::{Equations, Normal},
        schedule::{FirstFailure, row_ranges, run_in_turn},
    },
    dense::Dots,
    scratch::{Pool, Scratch},
    simd::{self, dispatch},
};

use super::OP;

/// Multiply-adds of a task.
const TASK_COST: usize = 1 << 26;
/// Bytes of fixed rows whose products are taken at once.
const BLOCK_BYTES: usize = 16 << 10;

/// What a thread works in.
struct Work {
    normal: Normal,
    /// The product of each entry of the longest row.
    products: Scratch,
    /// `gram x`, `[dim]`.
    gram_x: Scratch,
    /// What a block's target has before the entries, `[block]`.
    start: Scratch,
    /// `x` or a block's change, padded.
    vector: Scratch,
    /// Gathered rows, `[at_once, padded]`.
    gathered: Scratch,
}

pub(super) fn solve(system: &AlsSystem<'_>, solution: &mut Table, block: usize) -> Result<()> {
    let dim = system.fixed.dim();
    let block = block.min(dim);
    let elsewhere = Error::NotOnDevice { op: OP, device: system.fixed.device() };
    let fixed = FixedRows::new(system.fixed).ok_or(elsewhere)?;
    let equations = Equations { system, fixed, level: simd::level() };
    let longest = (0..system.rows.n_rows()).map(|row| system.rows.row_len(row)).max().unwrap_or(0);
    let padded = dim.next_multiple_of(equations.level.lanes());
    let make = || {
        Ok(Work {
            normal: Normal::new(block, equations.level)?,
            products: Scratch::new(longest)?,
            gram_x: Scratch::new(dim)?,
            start: Scratch::new(block)?,
            vector: Scratch::new(padded)?,
            gathered: Scratch::new(at_once(padded) * padded)?,
        })
    };
    let failure = FirstFailure::new();
    let out_of_memory = FirstFailure::new();
    let pool = Pool::new();
    let cost = (dim * (block / 2 + 3) + 1, dim * dim * 2 + dim * block * block / 6);
    run_in_turn(row_ranges(system.rows, solution, cost, TASK_COST), |range| {
        let done = pool.lend(make, |work| {
            for (at, x) in range.solution.chunks_exact_mut(dim).enumerate() {
                let row = range.first + at;
                if system.rows.row_len(row) == 0 {
                    x.fill(0.0);
                    continue;
                }
                if !work.sweep(&equations, row, x, block) {
                    failure.note(row, Error::NotPositiveDefinite { op: OP, row: row as u64 });
                } else if !x.iter().all(|x| x.is_finite()) {
                    failure.note(row, Error::NotFinite { op: OP, what: "solution", row: row as u64 });
                }
            }
        });
        if let Err(error) = done {
            out_of_memory.note(0, error);
        }
    });
    out_of_memory.result()?;
    failure.result()
}

/// Gathered rows at once.
fn at_once(padded: usize) -> usize {
    (BLOCK_BYTES / (padded * 4)).clamp(8, 64) / 8 * 8
}

impl Work {
    /// One sweep over the blocks of row `row`; false when a block's matrix is not positive definite.
    fn sweep(&mut self, equations: &Equations<'_>, row: usize, x: &mut [f32], block: usize) -> bool {
        let system = equations.system;
        let dim = x.len();
        let ridge = system.ridge[row];
        self.vector[..dim].copy_from_slice(x);
        self.vector[dim..].fill(0.0);
        self.add_products(equations, row, 0..dim, false);
        self.gram_x.fill(0.0);
        add_rows(&mut self.gram_x, system.gram, x.iter().copied().enumerate());
        for first in (0..dim).step_by(block) {
            let range = first..dim.min(first + block);
            let start = &mut self.start[..range.len()];
            for ((start, gram_x), x) in
                start.iter_mut().zip(&self.gram_x[range.clone()]).zip(&x[range.clone()])
            {
                *start = -(gram_x + ridge * x);
            }
            let products = &self.products;
            let pull = |k: usize, a: f32, b: f32| b - a * products[k];
            let Some(change) = self.normal.solve(equations, row, range.clone(), Some(start), pull) else {
                return false;
            };
            for (x, change) in x[range.clone()].iter_mut().zip(change) {
                *x += change;
            }
            add_rows(&mut self.gram_x, system.gram, range.clone().zip(change.iter().copied()));
            if range.end < dim {
                self.vector.fill(0.0);
                self.vector[..range.len()].copy_from_slice(change);
                self.add_products(equations, row, range, true);
            }
        }
        true
    }

    /// Takes the products of the row's entries, in dimensions `range`, with `vector`.
    fn add_products(
        &mut self,
        equations: &Equations<'_>,
        row: usize,
        range: std::ops::Range<usize>,
        add: bool,
    ) {
        let Equations { system, fixed, level } = equations;
        let width = range.len().next_multiple_of(level.lanes());
        let padded = self.vector.len();
        let first = system.rows.indptr[row] as usize;
        let indices = system.rows.row(row).0;
        let at_once = at_once(padded);
        let vector = &self.vector[..width];
        for (n, out) in self.products[..indices.len()].chunks_mut(at_once).enumerate() {
            let at = n * at_once;
            let indices = &indices[at..at + out.len()];
            let ahead = system.rows.indices.get(first + at + 8..).unwrap_or_default();
            let to = &mut self.gathered[..out.len() * padded];
            let (columns, layout) = (range.clone(), (padded, width));
            dispatch(*level, Gather { fixed, indices, ahead, columns, to, layout });
            dispatch(*level, Dots { rows: &self.gathered, stride: padded, vector, out, add });
        }
    }
}

/// `sum += Σ weight matrix[row]`.
fn add_rows(sum: &mut [f32], matrix: &[f32], weights: impl Iterator<Item = (usize, f32)>) {
    let n = sum.len();
    for (row, weight) in weights {
        for (sum, &value) in sum.iter_mut().zip(&matrix[row * n..][..n]) {
            *sum += weight * value;
        }
    }
}

//! What sums over the batch: the gradients of bias and weight. Each sum is cut by the batch's size alone.

use rayon::prelude::*;

use super::{
    Activation, Linear, Products, grown,
    panels::Matrix,
    tile::{Block, Left, Right, panel_columns, tile_rows},
};
use crate::{
    Result,
    scratch::{Pool, Scratch},
    simd::{Kernel, Level, Simd, dispatch, dispatch_pairs},
};

/// Rows whose gradients are summed one after the other, for the bias.
const BIAS_ROWS: usize = 256;
/// Rows that share a sum of the weight's gradient, at least; sums at most, and their bytes.
const PARTIAL_ROWS: usize = 512;
const PARTIALS: usize = 16;
const PARTIAL_BYTES: usize = 64 << 20;
/// Rows of the batch, rows and columns of the weight whose operands are copied into panels at once: 304 KiB.
const BLOCK_DEPTH: usize = 128;
const BLOCK_ROWS: usize = 96;
const BLOCK_COLUMNS: usize = 512;

/// Makes `gradient` that of the sums, in place, and writes its column sums to `of_bias`.
pub(super) fn of_sums(
    level: Level,
    layer: &Linear<'_>,
    y: &[f32],
    gradient: &mut [f32],
    of_bias: Option<&mut [f32]>,
    kept: &mut Option<Scratch>,
) -> Result<()> {
    let (relu, columns) = (layer.activation == Activation::Relu, layer.outputs);
    let Some(of_bias) = of_bias else {
        if relu {
            let at_once = BIAS_ROWS * columns;
            let tasks = gradient.par_chunks_mut(at_once).zip(y.par_chunks(at_once));
            tasks.for_each(|(gradient, y)| dispatch(level, Sums { gradient, y, relu, sums: &mut [] }));
        }
        return Ok(());
    };
    let at_once = BIAS_ROWS * columns;
    let partial = grown(kept, gradient.len().div_ceil(at_once) * columns)?;
    partial.fill(0.0);
    let tasks = gradient.par_chunks_mut(at_once).zip(y.par_chunks(at_once));
    tasks.zip(partial.par_chunks_mut(columns)).for_each(|((gradient, y), sums)| {
        dispatch(level, Sums { gradient, y, relu, sums });
    });
    of_bias.fill(0.0);
    for partial in partial.chunks_exact(columns) {
        of_bias.iter_mut().zip(partial).for_each(|(sum, partial)| *sum += partial);
    }
    Ok(())
}

struct Sums<'a> {
    gradient: &'a mut [f32],
    y: &'a [f32],
    relu: bool,
    /// Empty where they are not asked for.
    sums: &'a mut [f32],
}

impl Kernel for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let masked = |gradient: f32, y: f32| if y > 0.0 { gradient } else { 0.0 };
        if self.sums.is_empty() {
            self.gradient.iter_mut().zip(self.y).for_each(|(gradient, &y)| *gradient = masked(*gradient, y));
            return;
        }
        let columns = self.sums.len();
        for (gradient, y) in self.gradient.chunks_exact_mut(columns).zip(self.y.chunks_exact(columns)) {
            if self.relu {
                for ((sum, gradient), &y) in self.sums.iter_mut().zip(gradient).zip(y) {
                    *gradient = masked(*gradient, y);
                    *sum += *gradient;
                }
            } else {
                self.sums.iter_mut().zip(gradient).for_each(|(sum, gradient)| *sum += *gradient);
            }
        }
    }
}

/// Writes `left right` to `out`, where the inner dimension is the batch.
pub(super) fn of_weight(
    level: Level,
    left: Matrix<'_>,
    right: Matrix<'_>,
    out: &mut [f32],
    products: Products,
    kept: &mut Option<Scratch>,
    blocks: &Pool<Scratch>,
) -> Result<()> {
    let (batch, rows, columns) = (right.rows, left.rows, right.columns);
    let most = (PARTIAL_BYTES / size_of_val(out)).clamp(1, PARTIALS);
    let at_once = batch.div_ceil(most).next_multiple_of(BLOCK_DEPTH).max(PARTIAL_ROWS);
    let n_partial = batch.div_ceil(at_once);
    if n_partial == 0 {
        out.fill(0.0);
        return Ok(());
    }
    // The first sum is made in place.
    let others = grown(kept, (n_partial - 1) * rows * columns)?;
    // Where threads would be idle, rows of the weight are tasks, too; no sum changes by that.
    let bands = (2 * rayon::current_num_threads()).div_ceil(n_partial).min(rows.div_ceil(BLOCK_ROWS));
    let band_rows = rows.div_ceil(bands).next_multiple_of(tile_rows(level));
    let mut tasks = Vec::with_capacity(n_partial * bands);
    for (partial, sums) in std::iter::once(&mut *out).chain(others.chunks_mut(rows * columns)).enumerate() {
        let batch = partial * at_once..batch.min((partial + 1) * at_once);
        for (band, c) in sums.chunks_mut(band_rows * columns).enumerate() {
            let first_row = band * band_rows;
            tasks.push(Task { left, right, c, first_row, batch: batch.clone(), level, products });
        }
    }
    tasks.into_par_iter().try_for_each(|task| {
        let make = || Scratch::new(BLOCK_DEPTH * (BLOCK_ROWS + BLOCK_COLUMNS));
        blocks.lend(make, |block| match task.products {
            Products::F32 => task.run::<false>(block),
            Products::Bf16 => task.run::<true>(block),
        })
    })?;
    let others = &*others;
    out.par_chunks_mut(1 << 12).enumerate().for_each(|(chunk, out)| {
        for partial in others.chunks_exact(rows * columns) {
            out.iter_mut().zip(&partial[chunk << 12..]).for_each(|(sum, partial)| *sum += partial);
        }
    });
    Ok(())
}

/// Some rows of one partial sum.
struct Task<'a> {
    left: Matrix<'a>,
    right: Matrix<'a>,
    c: &'a mut [f32],
    first_row: usize,
    batch: std::ops::Range<usize>,
    level: Level,
    products: Products,
}

impl Task<'_> {
    fn run<const PAIRS: bool>(self, block: &mut [f32]) {
        let copy = |matrix: Matrix<'_>, rows, columns, to: &mut [f32]| match PAIRS {
            true => matrix.copy_pairs(self.level, rows, columns, to),
            false => matrix.copy(rows, columns, to),
        };
        let (high, wide) = (tile_rows(self.level), panel_columns(self.level));
        let (left_block, right_block) = block.split_at_mut(BLOCK_DEPTH * BLOCK_ROWS);
        let (columns, rows) = (self.right.columns, self.c.len() / self.right.columns);
        let transposed = Matrix {
            rows: self.left.columns,
            columns: self.left.rows,
            row: self.left.column,
            column: self.left.row,
            ..self.left
        };
        for column in (0..columns).step_by(BLOCK_COLUMNS) {
            let end_column = columns.min(column + BLOCK_COLUMNS);
            for from in self.batch.clone().step_by(BLOCK_DEPTH) {
                let batch = from..self.batch.end.min(from + BLOCK_DEPTH);
                let depth = if PAIRS { batch.len().div_ceil(2) } else { batch.len() };
                for (panel, to) in
                    (column..end_column).step_by(wide).zip(right_block.chunks_mut(depth * wide))
                {
                    copy(self.right, batch.clone(), panel..end_column.min(panel + wide), to);
                }
                for row in (0..rows).step_by(BLOCK_ROWS) {
                    let end_row = rows.min(row + BLOCK_ROWS);
                    let panels = (row..end_row).step_by(high).zip(left_block.chunks_mut(depth * high));
                    for (panel, to) in panels {
                        let own = self.first_row + panel..self.first_row + end_row.min(panel + high);
                        copy(transposed, batch.clone(), own, to);
                    }
                    let block = Block::<PAIRS> {
                        left: Left { values: left_block, panel: depth * high, row: 1, step: high },
                        right: Right { values: right_block, panel: depth * wide, row: wide },
                        c: &mut self.c[row * columns + column..],
                        c_row: columns,
                        rows: end_row - row,
                        columns: end_column - column,
                        depth,
                        begins: from == self.batch.start,
                        last: None,
                    };
                    match PAIRS {
                        true => dispatch_pairs(self.level, block),
                        false => dispatch(self.level, block),
                    }
                }
            }
        }
    }
}

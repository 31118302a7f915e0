//! Operands in the order in which tiles read them.

use rayon::prelude::*;

use super::{
    grown,
    tile::{Right, panel_columns},
};
use crate::{
    Result,
    scratch::Scratch,
    simd::{Kernel, Level, Simd, dispatch},
};

/// A matrix, either way round: value `(r, c)` is at `r row + c column`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) values: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row: usize,
    pub(super) column: usize,
}

impl Matrix<'_> {
    /// Copies rows `rows` and columns `columns` to a panel of `to.len() / rows` columns, zero behind the last.
    pub(super) fn copy(&self, rows: std::ops::Range<usize>, columns: std::ops::Range<usize>, to: &mut [f32]) {
        if rows.is_empty() || columns.is_empty() {
            return;
        }
        let wide = to.len() / rows.len();
        if columns.len() < wide {
            to.fill(0.0);
        }
        if self.column == 1 {
            for (to, r) in to.chunks_exact_mut(wide).zip(rows) {
                to[..columns.len()].copy_from_slice(&self.values[r * self.row..][columns.clone()]);
            }
            return;
        }
        // Down the columns, which are rows of memory where `row` is 1: the panel is in the first-level cache.
        for (place, c) in columns.enumerate() {
            let from = &self.values[rows.start * self.row + c * self.column..];
            for (to, from) in to.iter_mut().skip(place).step_by(wide).zip(from.iter().step_by(self.row)) {
                *to = *from;
            }
        }
    }
}

impl Matrix<'_> {
    /// As [`Matrix::copy`], rows `2 q` and `2 q + 1` as one row of pairs of bf16; zero behind the last row, too.
    pub(super) fn copy_pairs(
        &self,
        level: Level,
        rows: std::ops::Range<usize>,
        columns: std::ops::Range<usize>,
        to: &mut [f32],
    ) {
        if !rows.is_empty() && !columns.is_empty() {
            dispatch(level, CopyPairs { from: *self, rows, columns, to });
        }
    }
}

struct CopyPairs<'a> {
    from: Matrix<'a>,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
    to: &'a mut [f32],
}

impl Kernel for CopyPairs<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { from, rows, columns, to } = self;
        let wide = to.len() / rows.len().div_ceil(2);
        if columns.len() < wide {
            to.fill(0.0);
        }
        if from.column == 1 {
            let row = |r: usize| &from.values[r * from.row..][columns.clone()];
            for (q, to) in to.chunks_exact_mut(wide).enumerate() {
                let r = rows.start + 2 * q;
                if r + 1 < rows.end {
                    for ((to, &low), &high) in to.iter_mut().zip(row(r)).zip(row(r + 1)) {
                        *to = pair(low, high);
                    }
                } else {
                    to.iter_mut().zip(row(r)).for_each(|(to, &low)| *to = pair(low, 0.0));
                }
            }
            return;
        }
        for (place, c) in columns.enumerate() {
            let from_column = &from.values[rows.start * from.row + c * from.column..];
            let value = |r: usize| if r < rows.len() { from_column[r * from.row] } else { 0.0 };
            for (q, to) in to.iter_mut().skip(place).step_by(wide).enumerate() {
                *to = pair(value(2 * q), value(2 * q + 1));
            }
        }
    }
}

/// Two numbers, rounded to the nearest bf16, to even between two: `low` in the lower half of the bits.
#[inline(always)]
pub(super) fn pair(low: f32, high: f32) -> f32 {
    let rounded = |x: f32| {
        let bits = x.to_bits();
        let up = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
        // NaN stays NaN, whatever its lower bits were.
        if x.is_nan() { bits | 0x0040_0000 } else { up }
    };
    f32::from_bits(rounded(low) >> 16 | rounded(high) & 0xffff_0000)
}

/// A right operand, panel after panel: as it lies, but for a last panel that is not whole, or all of it copied.
pub(super) struct Panels<'a> {
    /// Whole panels.
    values: &'a [f32],
    panel: usize,
    row: usize,
    /// Columns of the whole panels.
    pub(super) whole: usize,
    /// The last panel, zero behind its columns, where it is not among the whole ones.
    edge: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    wide: usize,
}

impl<'a> Panels<'a> {
    /// Copies all panels, each from its first row to its last: tiles then read memory in order.
    pub(super) fn copied(level: Level, matrix: Matrix<'_>, kept: &'a mut Option<Scratch>) -> Result<Self> {
        let (wide, Matrix { rows, columns, .. }) = (panel_columns(level), matrix);
        let values = grown(kept, columns.next_multiple_of(wide).saturating_mul(rows))?;
        values.par_chunks_mut(wide * rows).enumerate().for_each(|(panel, to)| {
            matrix.copy(0..rows, panel * wide..columns.min((panel + 1) * wide), to);
        });
        Ok(Self { values, panel: rows * wide, row: wide, whole: columns, edge: &[], rows, columns, wide })
    }

    /// Copies all panels as pairs of bf16, two rows of the matrix as one.
    pub(super) fn copied_pairs(
        level: Level,
        matrix: Matrix<'_>,
        kept: &'a mut Option<Scratch>,
    ) -> Result<Self> {
        let (wide, Matrix { rows, columns, .. }) = (panel_columns(level), matrix);
        let pairs = rows.div_ceil(2);
        let values = grown(kept, columns.next_multiple_of(wide).saturating_mul(pairs))?;
        values.par_chunks_mut(wide * pairs).enumerate().for_each(|(panel, to)| {
            matrix.copy_pairs(level, 0..rows, panel * wide..columns.min((panel + 1) * wide), to);
        });
        let (panel, row) = (pairs * wide, wide);
        Ok(Self { values, panel, row, whole: columns, edge: &[], rows: pairs, columns, wide })
    }

    /// Reads a matrix of rows where it lies: for a batch of few rows, which would not make up for a copy.
    pub(super) fn in_place(level: Level, matrix: Matrix<'a>, kept: &'a mut Option<Scratch>) -> Result<Self> {
        let (wide, Matrix { values, rows, columns, row, .. }) = (panel_columns(level), matrix);
        let whole = columns / wide * wide;
        let edge = grown(kept, if whole < columns { rows * wide } else { 0 })?;
        matrix.copy(0..rows, whole..columns, edge);
        Ok(Self { values, panel: wide, row, whole, edge, rows, columns, wide })
    }

    /// Rows from `first` on, of the whole panels and of the edge.
    pub(super) fn rows_from(&self, first: usize) -> [Right<'_>; 2] {
        let whole = Right { values: &self.values[first * self.row..], panel: self.panel, row: self.row };
        let edge = self.edge.get(first * self.wide..).unwrap_or_default();
        [whole, Right { values: edge, panel: edge.len(), row: self.wide }]
    }
}

//! The tile of a product that stays in registers, and how it is written.

#![expect(
    unsafe_code,
    reason = "loads and stores of whole vectors, without bounds checks in the inner loops"
)]

use crate::simd::{Kernel, Level, Simd};

/// Vectors that a tile is wide.
const VECTORS: usize = 2;

/// Columns of a panel.
pub(super) fn panel_columns(level: Level) -> usize {
    VECTORS * level.lanes()
}

/// Rows of a tile: their vectors and one more row of operands fill the registers.
pub(super) fn tile_rows(level: Level) -> usize {
    if level == Level::Avx512 { 12 } else { 6 }
}

/// The left operand: value `(r, k)` of panel `p`, which is `tile_rows` high, is at `p panel + r row + k step`.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub(super) values: &'a [f32],
    pub(super) panel: usize,
    pub(super) row: usize,
    pub(super) step: usize,
}

/// The right operand: value `(k, c)` of panel `p` is at `p panel + k row + c`; every panel has all its columns.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    pub(super) values: &'a [f32],
    pub(super) panel: usize,
    pub(super) row: usize,
}

/// What is done to a sum that is complete.
#[derive(Clone, Copy)]
pub(super) struct Last<'a> {
    /// Whole panels of it, or nothing.
    pub(super) bias: &'a [f32],
    pub(super) relu: bool,
}

/// One block of the inner dimension: `c = left right` where it `begins` the sums, else `c += left right`.
///
/// With `PAIRS` every value of the operands is two of bf16, the inner dimension has as many steps fewer, and the block is for
/// `dispatch_pairs`.
pub(super) struct Block<'a, const PAIRS: bool> {
    pub(super) left: Left<'a>,
    pub(super) right: Right<'a>,
    /// Rows that are `c_row` apart.
    pub(super) c: &'a mut [f32],
    pub(super) c_row: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) depth: usize,
    pub(super) begins: bool,
    pub(super) last: Option<Last<'a>>,
}

impl<const PAIRS: bool> Kernel for Block<'_, PAIRS> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match S::LANES {
            16 => self.tiles::<S, 12>(simd),
            _ => self.tiles::<S, 6>(simd),
        }
    }
}

impl<const PAIRS: bool> Block<'_, PAIRS> {
    #[inline(always)]
    fn tiles<S: Simd, const R: usize>(self, simd: S) {
        let (wide, depth, rows) = (VECTORS * S::LANES, self.depth, self.rows);
        if rows == 0 || depth == 0 || self.columns == 0 {
            return;
        }
        let (last_row, last_panel) = (rows - 1, (self.columns - 1) / wide);
        let Left { values, panel, row, step } = self.left;
        assert!(values.len() > last_row / R * panel + last_row % R * row + (depth - 1) * step);
        assert!(
            self.right.values.len() >= last_panel * self.right.panel + (depth - 1) * self.right.row + wide
        );
        assert!(self.columns <= self.c_row && self.c.len() >= last_row * self.c_row + self.columns);
        assert!(
            self.last.is_none_or(|last| last.bias.is_empty() || last.bias.len() >= (last_panel + 1) * wide)
        );
        let c = self.c.as_mut_ptr();
        for panel in 0..=last_panel {
            let columns = (self.columns - panel * wide).min(wide);
            let mut at = 0;
            while at < rows {
                // SAFETY: the lengths asserted above cover every row of `left` and `c`, and whole panels of `right` and bias.
                unsafe {
                    let left = values.as_ptr().add(at / R * self.left.panel + at % R * row);
                    let work = Tile::<PAIRS> {
                        left,
                        left_row: row,
                        left_step: step,
                        right: self.right.values.as_ptr().add(panel * self.right.panel),
                        right_row: self.right.row,
                        depth,
                        c: c.add(at * self.c_row + panel * wide),
                        c_row: self.c_row,
                        columns,
                        begins: self.begins,
                        bias: match self.last {
                            Some(Last { bias, .. }) if !bias.is_empty() => bias.as_ptr().add(panel * wide),
                            _ => std::ptr::null(),
                        },
                        relu: self.last.is_some_and(|last| last.relu),
                    };
                    at += match rows - at {
                        left if left >= R => work.height::<S, R>(simd),
                        2.. => work.height::<S, 2>(simd),
                        _ => work.height::<S, 1>(simd),
                    };
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Tile<const PAIRS: bool> {
    left: *const f32,
    left_row: usize,
    left_step: usize,
    right: *const f32,
    right_row: usize,
    depth: usize,
    c: *mut f32,
    c_row: usize,
    columns: usize,
    begins: bool,
    /// Null where there is none.
    bias: *const f32,
    relu: bool,
}

impl<const PAIRS: bool> Tile<PAIRS> {
    /// `R` rows; returns `R`.
    #[inline(always)]
    unsafe fn height<S: Simd, const R: usize>(self, simd: S) -> usize {
        // SAFETY: the caller vouches for `R` rows and the panel.
        unsafe {
            match self.columns > S::LANES {
                true => self.sums::<S, R, 2>(simd),
                false => self.sums::<S, R, 1>(simd),
            }
        }
        R
    }

    #[inline(always)]
    unsafe fn sums<S: Simd, const R: usize, const V: usize>(self, simd: S) {
        let mut sums = [[simd.splat(0.0); V]; R];
        // SAFETY: the caller vouches for `R` rows of `depth` values of the left operand, and for the panel of the right one.
        unsafe {
            let rows: [*const f32; R] = std::array::from_fn(|r| self.left.add(r * self.left_row));
            let mut right = self.right;
            let mut at = 0;
            for _ in 0..self.depth {
                let b: [S::F32; V] = std::array::from_fn(|v| simd.load(right.add(v * S::LANES)));
                for r in 0..R {
                    let a = simd.splat(*rows[r].add(at));
                    for v in 0..V {
                        sums[r][v] = match PAIRS {
                            true => simd.dot_pairs(a, b[v], sums[r][v]),
                            false => simd.fma(a, b[v], sums[r][v]),
                        };
                    }
                    // No row's value is loaded before the last one's is used: there is no register for it, and a sum that
                    // goes through memory doubles the loop's time.
                    simd.reread(&mut ());
                }
                right = right.add(self.right_row);
                at += self.left_step;
            }
            for (r, sums) in sums.into_iter().enumerate() {
                for (v, sum) in sums.into_iter().enumerate() {
                    self.write(simd, r, v * S::LANES, sum);
                }
            }
        }
    }

    /// Writes the sums of row `r` from `column` on.
    #[inline(always)]
    unsafe fn write<S: Simd>(self, simd: S, r: usize, column: usize, sum: S::F32) {
        // SAFETY: the caller vouches for the row and its `columns`, and for whole panels of bias.
        unsafe {
            let n = self.columns.saturating_sub(column).min(S::LANES);
            let c = self.c.add(r * self.c_row + column);
            let mut some = [0.0f32; 16];
            let mut value = sum;
            if !self.begins {
                let old = if n == S::LANES {
                    simd.load(c)
                } else {
                    for (at, some) in some.iter_mut().enumerate().take(n) {
                        *some = *c.add(at);
                    }
                    simd.load(some.as_ptr())
                };
                value = simd.add(old, value);
            }
            if !self.bias.is_null() {
                value = simd.add(value, simd.load(self.bias.add(column)));
            }
            if self.relu {
                value = simd.at_least_zero(value);
            }
            if n == S::LANES {
                simd.store(c, value);
            } else {
                simd.store(some.as_mut_ptr(), value);
                for (at, &some) in some.iter().enumerate().take(n) {
                    *c.add(at) = some;
                }
            }
        }
    }
}

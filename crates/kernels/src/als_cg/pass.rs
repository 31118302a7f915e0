//! One pass over a row's entries: every product of the normal matrix with a vector, without the matrix.
//!
//! ```text
//! s_i = y_iᵀ v      w_i = a_i s_i      (first pass: b_i - a_i s_i)      sum += Σ w_i y_i
//! ```
//!
//! Eight entries at a time: eight dot products side by side, so that no addition waits for the one before it; one
//! transposing sum gives the eight `s_i`; then the eight rows, in cache by now, are added to the sum, which stays in
//! registers for the whole row.

#![expect(
    unsafe_code,
    reason = "whole-vector loads through row pointers, without bounds checks in the inner loop"
)]

use crate::{
    als::fixed::FixedRows,
    simd::{Kernel, Level, Simd, dispatch},
};

/// Where the fixed rows of the entries are.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// One after the other, each as long as the vector.
    Gathered(&'a [f32]),
    /// Where the table has them: row `index - first` of `rows`, each as long as the vector.
    InPlace { rows: &'a [f32], first: u32, indices: &'a [u32] },
}

/// The operands of a pass.
pub(super) struct Pass<'a> {
    pub(super) source: Source<'a>,
    /// The value of each entry.
    pub(super) values: &'a [f32],
    pub(super) base: f32,
    pub(super) scale: f32,
    pub(super) offset: f32,
    /// Whether this is the pass that makes the first residual.
    pub(super) first: bool,
    /// `[stride]`.
    pub(super) vector: &'a [f32],
    /// `[stride]`.
    pub(super) sum: &'a mut [f32],
    pub(super) ahead: Ahead<'a>,
}

/// Fixed rows that will be gathered after this row's passes: asked for, into the second-level cache, while the passes
/// compute. Each of `phases` passes asks for every `phases`-th eight.
#[derive(Clone, Copy)]
pub(super) struct Ahead<'a> {
    pub(super) fixed: &'a FixedRows<'a>,
    pub(super) indices: &'a [u32],
    pub(super) phases: usize,
    pub(super) phase: usize,
}

impl Ahead<'_> {
    #[inline(always)]
    fn ask<S: Simd>(&self, simd: S, first: usize) {
        if (first / 8) % self.phases == self.phase
            && let Some(eight) = self.indices.get(first..first + 8)
        {
            for &index in eight {
                self.fixed.lines(index, |line| simd.prefetch_far(line));
            }
        }
    }
}

/// Numbers from one row to the next for rows of `dim` numbers: whole vectors, and a count of them that passes are
/// compiled for.
pub(super) fn stride_for(dim: usize, level: Level) -> usize {
    let vectors = dim.div_ceil(level.lanes());
    let compiled = [1, 2, 3, 4, 6, 8, 12, 16];
    let most = level.accumulators();
    let vectors =
        compiled.into_iter().find(|&n| vectors <= n && n <= most).unwrap_or(vectors.next_multiple_of(4));
    vectors * level.lanes()
}

/// Adds the weighted rows to `work.sum`.
pub(super) fn pass(level: Level, work: Pass<'_>) {
    let n = work.values.len();
    let stride = work.vector.len();
    assert!(work.sum.len() == stride && stride.is_multiple_of(level.lanes()));
    match work.source {
        Source::Gathered(rows) => assert!(rows.len() >= n * stride),
        Source::InPlace { rows, first, indices } => {
            let (least, largest) = indices[..n].iter().fold((u32::MAX, 0), |(a, b), &i| (a.min(i), b.max(i)));
            assert!(n == 0 || (least >= first && ((largest - first) as usize + 1) * stride <= rows.len()));
        }
    }
    if n == 0 {
        return;
    }
    let vectors = stride / level.lanes();
    match vectors {
        1 => dispatch(level, Compiled::<1, 4>(work)),
        2 => dispatch(level, Compiled::<2, 4>(work)),
        3 => dispatch(level, Compiled::<3, 2>(work)),
        4 => dispatch(level, Compiled::<4, 2>(work)),
        6 => dispatch(level, Compiled::<6, 1>(work)),
        8 => dispatch(level, Compiled::<8, 1>(work)),
        12 if level.accumulators() >= 12 => dispatch(level, Compiled::<12, 1>(work)),
        16 if level.accumulators() >= 16 => dispatch(level, Compiled::<16, 1>(work)),
        _ => dispatch(level, Wide(work)),
    }
}

/// A row's sum of `N` vectors, held in registers as `SETS` partial sums so that additions do not wait for each other.
struct Compiled<'a, const N: usize, const SETS: usize>(Pass<'a>);

/// Rows of any number of vectors; the sum stays in memory and is taken up a few vectors at a time.
struct Wide<'a>(Pass<'a>);

impl<const N: usize, const SETS: usize> Kernel for Compiled<'_, N, SETS> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let work = self.0;
        let stride = N * S::LANES;
        assert!(work.vector.len() == stride && work.sum.len() == stride);
        let weigh = Weigh::new(simd, &work);
        let (values, vector, sum) = (work.values, work.vector.as_ptr(), work.sum.as_mut_ptr());
        // SAFETY: `pass` has compared the number of rows with the values; every row has `stride` numbers, and an index
        // in place is within the rows.
        unsafe {
            match work.source {
                Source::Gathered(rows) => {
                    let rows = rows.as_ptr();
                    compiled::<S, N, SETS>(
                        simd,
                        |k| rows.add(k * stride),
                        values,
                        weigh,
                        vector,
                        sum,
                        work.ahead,
                    );
                }
                Source::InPlace { rows, first, indices } => {
                    let row = |k| in_place(rows, first, indices, stride, k);
                    compiled::<S, N, SETS>(simd, row, values, weigh, vector, sum, work.ahead);
                }
            }
        }
    }
}

impl Kernel for Wide<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let work = self.0;
        let stride = work.vector.len();
        let weigh = Weigh::new(simd, &work);
        // SAFETY: as for `Compiled`.
        unsafe {
            match work.source {
                Source::Gathered(rows) => {
                    let rows = rows.as_ptr();
                    wide(
                        simd,
                        |k| rows.add(k * stride),
                        work.values,
                        weigh,
                        work.vector,
                        work.sum,
                        work.ahead,
                    );
                }
                Source::InPlace { rows, first, indices } => {
                    let row = |k| in_place(rows, first, indices, stride, k);
                    wide(simd, row, work.values, weigh, work.vector, work.sum, work.ahead);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn in_place(rows: &[f32], first: u32, indices: &[u32], stride: usize, k: usize) -> *const f32 {
    // SAFETY: the caller vouches for `k` and for every index.
    unsafe { rows.as_ptr().add((*indices.get_unchecked(k) - first) as usize * stride) }
}

/// What turns values and dot products into weights.
#[derive(Clone, Copy)]
struct Weigh<S: Simd> {
    base: S::F32x8,
    scale: S::F32x8,
    offset: S::F32x8,
    first: bool,
}

impl<S: Simd> Weigh<S> {
    #[inline(always)]
    fn new(simd: S, work: &Pass<'_>) -> Self {
        Self {
            base: simd.splat_x8(work.base),
            scale: simd.splat_x8(work.scale),
            offset: simd.splat_x8(work.offset),
            first: work.first,
        }
    }

    /// The weights of eight entries.
    ///
    /// # Safety
    /// `values` points at eight numbers.
    #[inline(always)]
    unsafe fn weights(self, simd: S, values: *const f32, dots: S::F32x8, weights: &mut [f32; 8]) {
        // SAFETY: the caller vouches for the values; `weights` has eight numbers.
        unsafe {
            let value = simd.load_x8(values);
            let a = simd.fma_x8(self.scale, simd.abs_x8(value), self.base);
            let w = match self.first {
                false => simd.mul_x8(a, dots),
                true => {
                    let one = simd.splat_x8(1.0);
                    let b = simd.where_positive_x8(value, simd.fma_x8(a, one, self.offset));
                    simd.fma_x8(simd.mul_x8(a, simd.splat_x8(-1.0)), dots, b)
                }
            };
            simd.store_x8(weights.as_mut_ptr(), w);
        }
        simd.reread(weights);
    }
}

/// Eight dot products of `n` vectors each.
#[inline(always)]
unsafe fn dots<S: Simd>(simd: S, rows: [*const f32; 8], vector: *const f32, n: usize) -> S::F32x8 {
    let mut sums = [simd.splat(0.0); 8];
    for j in 0..n {
        // SAFETY: the caller vouches for `n` vectors at each pointer.
        unsafe {
            let v = simd.load(vector.add(j * S::LANES));
            for (sum, row) in sums.iter_mut().zip(rows) {
                *sum = simd.fma(simd.load(row.add(j * S::LANES)), v, *sum);
            }
        }
    }
    simd.sums(sums)
}

/// The last values, fewer than eight, with zeros behind them.
#[inline(always)]
fn last_values(values: &[f32]) -> [f32; 8] {
    std::array::from_fn(|k| values.get(k).copied().unwrap_or(0.0))
}

#[inline(always)]
unsafe fn compiled<S: Simd, const N: usize, const SETS: usize>(
    simd: S,
    row: impl Fn(usize) -> *const f32,
    values: &[f32],
    weigh: Weigh<S>,
    vector: *const f32,
    sum: *mut f32,
    ahead: Ahead<'_>,
) {
    let n = values.len();
    let mut sums = [[simd.splat(0.0); N]; SETS];
    let mut weights = [0.0; 8];
    // SAFETY: the caller vouches for `n` rows of `N` vectors, and for as many at `vector` and `sum`.
    unsafe {
        for (j, sum_j) in sums[0].iter_mut().enumerate() {
            *sum_j = simd.load(sum.add(j * S::LANES));
        }
        let mut first = 0;
        while first + 8 <= n {
            let rows: [*const f32; 8] = std::array::from_fn(|k| row(first + k));
            ahead.ask(simd, first);
            weigh.weights(simd, values.as_ptr().add(first), dots(simd, rows, vector, N), &mut weights);
            for (k, row) in rows.into_iter().enumerate() {
                let weight = simd.splat(weights[k]);
                for (j, sum_j) in sums[k % SETS].iter_mut().enumerate() {
                    *sum_j = simd.fma(simd.load(row.add(j * S::LANES)), weight, *sum_j);
                }
            }
            first += 8;
        }
        if first < n {
            // The places behind the last entry repeat it; their products are not used.
            let rows: [*const f32; 8] = std::array::from_fn(|k| row((first + k).min(n - 1)));
            let last = last_values(&values[first..]);
            weigh.weights(simd, last.as_ptr(), dots(simd, rows, vector, N), &mut weights);
            for k in 0..n - first {
                let weight = simd.splat(weights[k]);
                for (j, sum_j) in sums[0].iter_mut().enumerate() {
                    *sum_j = simd.fma(simd.load(rows[k].add(j * S::LANES)), weight, *sum_j);
                }
            }
        }
        for j in 0..N {
            let mut total = sums[0][j];
            for partial in &sums[1..] {
                total = simd.add(total, partial[j]);
            }
            simd.store(sum.add(j * S::LANES), total);
        }
    }
}

#[inline(always)]
unsafe fn wide<S: Simd>(
    simd: S,
    row: impl Fn(usize) -> *const f32,
    values: &[f32],
    weigh: Weigh<S>,
    vector: &[f32],
    sum: &mut [f32],
    ahead: Ahead<'_>,
) {
    let n = values.len();
    let vectors = vector.len() / S::LANES;
    for first in (0..n).step_by(8) {
        ahead.ask(simd, first);
        let count = (n - first).min(8);
        let last = last_values(&values[first..first + count]);
        // SAFETY: the caller vouches for `n` rows as long as `vector` and `sum`.
        unsafe {
            let rows: [*const f32; 8] = std::array::from_fn(|k| row((first + k).min(n - 1)));
            let mut weights = [0.0; 8];
            weigh.weights(simd, last.as_ptr(), dots(simd, rows, vector.as_ptr(), vectors), &mut weights);
            let rows = &rows[..count];
            let mut at = 0;
            while at < vectors {
                let to = sum.as_mut_ptr().add(at * S::LANES);
                at += match (vectors - at, S::ACCUMULATORS) {
                    (16.., 16) => add_weighted::<S, 16>(simd, rows, &weights, at, to),
                    (8.., _) => add_weighted::<S, 8>(simd, rows, &weights, at, to),
                    (4.., _) => add_weighted::<S, 4>(simd, rows, &weights, at, to),
                    _ => add_weighted::<S, 1>(simd, rows, &weights, at, to),
                };
            }
        }
    }
}

/// Adds the weighted rows to `N` vectors of the sum, from vector `at` on; returns `N`.
#[inline(always)]
unsafe fn add_weighted<S: Simd, const N: usize>(
    simd: S,
    rows: &[*const f32],
    weights: &[f32; 8],
    at: usize,
    to: *mut f32,
) -> usize {
    // SAFETY: the caller vouches for `N` vectors from vector `at` of each row and at `to`.
    unsafe {
        let mut sums: [S::F32; N] = std::array::from_fn(|j| simd.load(to.add(j * S::LANES)));
        for (row, &weight) in rows.iter().zip(weights) {
            let weight = simd.splat(weight);
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = simd.fma(simd.load(row.add((at + j) * S::LANES)), weight, *sum);
            }
        }
        for (j, &sum) in sums.iter().enumerate() {
            simd.store(to.add(j * S::LANES), sum);
        }
    }
    N
}

//! The symmetric rank-k update, upper triangle: `C ± ZᵀZ`.
//!
//! A tile of `C`, eight rows by up to three vectors, stays in registers while it goes down `Z`: each step loads the
//! tile's vectors of a row of `Z` once and broadcasts eight of the row's numbers.

use crate::simd::{Kernel, Simd};

/// Whether the product is added or taken away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Update {
    Add,
    Subtract,
}

/// `C ± ZᵀZ` for rows `from .. n` of `C` and the columns from each row's own vector on.
pub(crate) struct Syrk<'a> {
    /// `[k, z_stride]`: rows of at least `n` columns rounded up to a vector, zero beyond what counts.
    pub(crate) z: &'a [f32],
    pub(crate) z_stride: usize,
    /// `[n rounded up to eight, c_stride]`.
    pub(crate) c: &'a mut [f32],
    pub(crate) c_stride: usize,
    /// Rows of `C`.
    pub(crate) n: usize,
    pub(crate) update: Update,
}

impl Kernel for Syrk<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let vectors = self.n.div_ceil(S::LANES);
        let k = self.z.len() / self.z_stride;
        assert!(vectors * S::LANES <= self.z_stride.min(self.c_stride));
        assert!(self.c.len() >= self.n.next_multiple_of(8) * self.c_stride);
        let z = Rows { at: self.z.as_ptr(), stride: self.z_stride, n: k };
        // SAFETY: the lengths asserted above cover `n` rows rounded up to eight, and every vector of them.
        unsafe { upper(simd, z, self.c.as_mut_ptr(), self.c_stride, 0, self.n, vectors, self.update) }
    }
}

/// `n` rows of numbers, `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) at: *const f32,
    pub(super) stride: usize,
    pub(super) n: usize,
}

/// Updates rows `from .. to` of `C`, each from its own vector up to vector `vectors`.
///
/// # Safety
/// `z` has columns up to `vectors` vectors and up to `to` rounded up to eight; `c` has rows up to `to` rounded up to eight
/// (from `from` on) and as many columns; `from` is a multiple of a vector.
#[expect(clippy::too_many_arguments, reason = "the inner loop's operands, all of them plain numbers")]
#[inline(always)]
pub(super) unsafe fn upper<S: Simd>(
    simd: S,
    z: Rows,
    c: *mut f32,
    c_stride: usize,
    from: usize,
    to: usize,
    vectors: usize,
    update: Update,
) {
    // SAFETY: the caller's promise is what `strip` asks for.
    unsafe {
        let mut row = from;
        while row < to {
            row += match S::ACCUMULATORS {
                16 => strip::<S, 8>(simd, z, c, c_stride, row, vectors, update),
                _ => strip::<S, 4>(simd, z, c, c_stride, row, vectors, update),
            };
        }
    }
}

/// Rows `row .. row + I`; returns `I`.
#[inline(always)]
unsafe fn strip<S: Simd, const I: usize>(
    simd: S,
    z: Rows,
    c: *mut f32,
    c_stride: usize,
    row: usize,
    vectors: usize,
    update: Update,
) -> usize {
    let mut first = row / S::LANES;
    while first < vectors {
        // SAFETY: the caller vouches for `I` rows at `row`; the columns are within `vectors`.
        unsafe {
            first += match vectors - first {
                4 | 2 => tile::<S, I, 2>(simd, z, c, c_stride, row, first, update),
                3.. => tile::<S, I, 3>(simd, z, c, c_stride, row, first, update),
                _ => tile::<S, I, 1>(simd, z, c, c_stride, row, first, update),
            };
        }
    }
    I
}

#[inline(always)]
unsafe fn tile<S: Simd, const I: usize, const V: usize>(
    simd: S,
    z: Rows,
    c: *mut f32,
    c_stride: usize,
    row: usize,
    first: usize,
    update: Update,
) -> usize {
    let column = first * S::LANES;
    let mut sums = [[simd.splat(0.0); V]; I];
    // SAFETY: the caller vouches for rows `row .. row + I` of `C`, the same columns of `Z`, and `V` vectors at `column`.
    unsafe {
        let mut at = z.at;
        for _ in 0..z.n {
            let right: [S::F32; V] = std::array::from_fn(|v| simd.load(at.add(column + v * S::LANES)));
            for (i, sums) in sums.iter_mut().enumerate() {
                let left = simd.splat(*at.add(row + i));
                for v in 0..V {
                    sums[v] = simd.fma(left, right[v], sums[v]);
                }
            }
            at = at.add(z.stride);
        }
        for (i, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                let to = c.add((row + i) * c_stride + column + v * S::LANES);
                let old = simd.load(to);
                let new = match update {
                    Update::Add => simd.add(old, sum),
                    Update::Subtract => simd.fnma(sum, simd.splat(1.0), old),
                };
                simd.store(to, new);
            }
        }
    }
    V
}

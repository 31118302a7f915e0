//! Operations on a block of gathered rows: dot products with one vector, and weighting for a rank-k update.

use crate::simd::{Kernel, Simd};

/// `out[k] (+)= rows[k]ᵀ vector`.
pub(crate) struct Dots<'a> {
    /// `[n, stride]`.
    pub(crate) rows: &'a [f32],
    pub(crate) stride: usize,
    /// `[width]`, whole vectors, `width <= stride`.
    pub(crate) vector: &'a [f32],
    /// `[n]`.
    pub(crate) out: &'a mut [f32],
    /// Whether the products are added to what is there.
    pub(crate) add: bool,
}

impl Kernel for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (n, stride, width) = (self.out.len(), self.stride, self.vector.len());
        assert!(width.is_multiple_of(S::LANES) && width <= stride);
        assert!(n == 0 || self.rows.len() >= (n - 1) * stride + width);
        let (rows, vector) = (self.rows.as_ptr(), self.vector.as_ptr());
        for first in (0..n).step_by(8) {
            let mut sums = [simd.splat(0.0); 8];
            // SAFETY: rows up to `n - 1` have `width` numbers, as asserted above; places behind the last repeat it.
            unsafe {
                let at: [*const f32; 8] = std::array::from_fn(|k| rows.add((first + k).min(n - 1) * stride));
                for column in (0..width).step_by(S::LANES) {
                    let v = simd.load(vector.add(column));
                    for (sum, row) in sums.iter_mut().zip(at) {
                        *sum = simd.fma(simd.load(row.add(column)), v, *sum);
                    }
                }
                let mut eight = [0.0; 8];
                simd.store_x8(eight.as_mut_ptr(), simd.sums(sums));
                for (out, dot) in self.out[first..].iter_mut().zip(eight) {
                    *out = if self.add { *out + dot } else { dot };
                }
            }
        }
    }
}

/// `target += Σ pull[k] rows[k]`, then `rows[k] *= root[k]`.
pub(crate) struct Weigh<'a> {
    /// `[n, stride]`.
    pub(crate) rows: &'a mut [f32],
    pub(crate) stride: usize,
    /// `[n]`.
    pub(crate) pull: &'a [f32],
    /// `[n]`.
    pub(crate) root: &'a [f32],
    /// `[width]`, whole vectors, `width <= stride`.
    pub(crate) target: &'a mut [f32],
}

impl Kernel for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (n, stride, width) = (self.pull.len(), self.stride, self.target.len());
        assert!(width.is_multiple_of(S::LANES) && width <= stride && self.root.len() == n);
        assert!(n == 0 || self.rows.len() >= (n - 1) * stride + width);
        let mut column = 0;
        while column < width {
            // SAFETY: `rows` has `n` rows and `target` has every vector up to `width`, as asserted above.
            unsafe {
                column += match (width - column) / S::LANES {
                    4.. => weigh::<S, 4>(
                        simd,
                        &mut *self.rows,
                        stride,
                        self.pull,
                        self.root,
                        self.target,
                        column,
                    ),
                    2.. => weigh::<S, 2>(
                        simd,
                        &mut *self.rows,
                        stride,
                        self.pull,
                        self.root,
                        self.target,
                        column,
                    ),
                    _ => weigh::<S, 1>(
                        simd,
                        &mut *self.rows,
                        stride,
                        self.pull,
                        self.root,
                        self.target,
                        column,
                    ),
                };
            }
        }
    }
}

/// `V` vectors at `column`; returns the numbers they hold.
#[inline(always)]
unsafe fn weigh<S: Simd, const V: usize>(
    simd: S,
    rows: &mut [f32],
    stride: usize,
    pull: &[f32],
    root: &[f32],
    target: &mut [f32],
    column: usize,
) -> usize {
    // SAFETY: the caller vouches for every row and for `target` up to `V` vectors at `column`.
    unsafe {
        let to = target.as_mut_ptr().add(column);
        let mut sums: [S::F32; V] = std::array::from_fn(|v| simd.load(to.add(v * S::LANES)));
        let mut row = rows.as_mut_ptr().add(column);
        for (&pull, &root) in pull.iter().zip(root) {
            let (pull, root) = (simd.splat(pull), simd.splat(root));
            for (v, sum) in sums.iter_mut().enumerate() {
                let at = row.add(v * S::LANES);
                let value = simd.load(at);
                *sum = simd.fma(pull, value, *sum);
                simd.store(at, simd.mul(root, value));
            }
            // The last step leaves the rows, and is not taken through.
            row = row.wrapping_add(stride);
        }
        for (v, &sum) in sums.iter().enumerate() {
            simd.store(to.add(v * S::LANES), sum);
        }
    }
    V * S::LANES
}

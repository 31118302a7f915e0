//! A symmetric matrix times a few vectors.

use crate::simd::{Kernel, Simd};

/// `out[j] = Σ_k vectors[j][k] matrix[k]` for vectors of whole SIMD vectors, `dim` rows of the matrix taken.
pub(crate) struct Multiply<'a> {
    /// `[>= dim, stride]`.
    pub(crate) matrix: &'a [f32],
    /// `[n, stride]`.
    pub(crate) vectors: &'a [f32],
    /// `[n, stride]`, overwritten.
    pub(crate) out: &'a mut [f32],
    pub(crate) dim: usize,
    pub(crate) stride: usize,
}

impl Kernel for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let n = self.out.len() / self.stride;
        assert!(self.matrix.len() >= self.dim * self.stride && self.dim <= self.stride);
        assert!(self.vectors.len() >= n * self.stride && self.stride.is_multiple_of(S::LANES));
        let work = Operands {
            matrix: self.matrix.as_ptr(),
            vectors: self.vectors.as_ptr(),
            out: self.out.as_mut_ptr(),
            dim: self.dim,
            stride: self.stride,
        };
        let mut at = 0;
        while at < n {
            // SAFETY: the lengths asserted above cover rows `at ..` of both, and every column of the stride.
            unsafe {
                at += match (n - at, S::ACCUMULATORS) {
                    (4.., 16) => columns::<S, 4>(simd, work, at),
                    (2.., _) => columns::<S, 2>(simd, work, at),
                    _ => columns::<S, 1>(simd, work, at),
                };
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Operands {
    matrix: *const f32,
    vectors: *const f32,
    out: *mut f32,
    dim: usize,
    stride: usize,
}

/// Vectors `at .. at + J`, all columns; returns `J`.
#[inline(always)]
unsafe fn columns<S: Simd, const J: usize>(simd: S, work: Operands, at: usize) -> usize {
    let vectors = work.stride / S::LANES;
    let mut first = 0;
    while first < vectors {
        // SAFETY: the caller vouches for the rows; the columns are within the stride.
        unsafe {
            first += match vectors - first {
                4.. => tile::<S, J, 4>(simd, work, at, first),
                3 => tile::<S, J, 3>(simd, work, at, first),
                2 => tile::<S, J, 2>(simd, work, at, first),
                _ => tile::<S, J, 1>(simd, work, at, first),
            };
        }
    }
    J
}

#[inline(always)]
unsafe fn tile<S: Simd, const J: usize, const V: usize>(
    simd: S,
    work: Operands,
    at: usize,
    first: usize,
) -> usize {
    let stride = work.stride;
    let column = first * S::LANES;
    let mut sums = [[simd.splat(0.0); V]; J];
    // SAFETY: the caller vouches for `J` rows at `at`, `dim` rows of the matrix and `V` vectors at `column`.
    unsafe {
        let mut row = work.matrix.add(column);
        let vectors = work.vectors.add(at * stride);
        for k in 0..work.dim {
            let g: [S::F32; V] = std::array::from_fn(|v| simd.load(row.add(v * S::LANES)));
            for (j, sums) in sums.iter_mut().enumerate() {
                let p = simd.splat(*vectors.add(j * stride + k));
                for v in 0..V {
                    sums[v] = simd.fma(g[v], p, sums[v]);
                }
            }
            row = row.add(stride);
        }
        let out = work.out.add(at * stride + column);
        for (j, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                simd.store(out.add(j * stride + v * S::LANES), sum);
            }
        }
    }
    V
}

//! One symmetric positive definite system, solved in place.
//!
//! ```text
//! A = UᵀU      Uᵀ z = b      U x = z
//! ```
//!
//! The matrix is `[A | b]`: the right-hand side is one more column, so that forward substitution is a part of the
//! factorization. Panels of one vector's width: the diagonal block first (as LDLᵀ, so that one division and no square
//! root is on the way from pivot to pivot), then the panel's other columns, each vector in registers, then the symmetric
//! rank-k update of what is left, where the time goes.
//!
//! Cost: `n³ / 3` operations.

use super::syrk::{Rows, Update, upper};
use crate::simd::{Kernel, Simd};

/// The widest panel: `Simd::LANES` at most.
const PANEL: usize = 16;

/// The system and where its solution goes.
pub(crate) struct SolveArgs<'a> {
    /// `[n rounded up to a vector, stride]`, the upper triangle of `A` in the first `n` columns, and `b` in the first
    /// column of the vector after them ([`SolveArgs::target_column`]). Overwritten by `U`.
    pub(crate) matrix: &'a mut [f32],
    pub(crate) stride: usize,
    /// `[n rounded up to a vector]`.
    pub(crate) x: &'a mut [f32],
    pub(crate) n: usize,
}

impl SolveArgs<'_> {
    /// Returns the column that holds `b`.
    pub(crate) fn target_column(n: usize, lanes: usize) -> usize {
        n.next_multiple_of(lanes)
    }

    /// Returns a row's length that fits `A` and `b`.
    pub(crate) fn stride_for(n: usize, lanes: usize) -> usize {
        Self::target_column(n, lanes) + lanes
    }
}

/// Solves; false when `A` is not positive definite. NaN passes through to `x`.
pub(crate) struct Solve<'a>(pub(crate) SolveArgs<'a>);

impl Kernel for Solve<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> bool {
        let SolveArgs { matrix, stride, x, n } = self.0;
        let padded = n.next_multiple_of(S::LANES);
        let vectors = padded / S::LANES + 1;
        assert!(stride >= vectors * S::LANES && matrix.len() >= padded * stride && x.len() >= padded);
        for d in n..padded {
            // What only fills the last vector up is its own little identity, solved by zero.
            matrix[d * stride..][..stride].fill(0.0);
            matrix[d * stride + d] = 1.0;
        }
        for first in (0..padded).step_by(S::LANES) {
            // SAFETY: the panel's rows and every vector up to `vectors` are within the matrix, as asserted above.
            unsafe {
                let panel = matrix.as_mut_ptr().add(first * stride);
                if !factor_panel(simd, panel, stride, first / S::LANES, vectors) {
                    return false;
                }
                let z = Rows { at: panel, stride, n: S::LANES };
                let below = first + S::LANES;
                upper(simd, z, matrix.as_mut_ptr(), stride, below, padded, vectors, Update::Subtract);
            }
        }
        // SAFETY: as above.
        unsafe { substitute_back(simd, matrix, stride, x, padded) };
        true
    }
}

/// Turns `LANES` rows, from their diagonal block (vector `block`) on, into rows of `U`.
#[inline(always)]
unsafe fn factor_panel<S: Simd>(
    simd: S,
    panel: *mut f32,
    stride: usize,
    block: usize,
    vectors: usize,
) -> bool {
    let lanes = S::LANES;
    // diagonal[r]: row r of the block after elimination of the rows before it. multiplier[s][r]: how much of row r is
    // taken from row s.
    let mut diagonal = [0.0f32; PANEL * PANEL];
    let mut multiplier = [0.0f32; PANEL * PANEL];
    let mut pivots = [1.0f32; PANEL];
    // SAFETY: the caller vouches for the panel's rows; the local arrays hold `lanes` rows of `lanes` numbers.
    unsafe {
        let (block_rows, local) = (panel.add(block * lanes), diagonal.as_mut_ptr());
        for r in 0..lanes {
            simd.store(local.add(r * lanes), simd.load(block_rows.add(r * stride)));
        }
        for r in 0..lanes {
            let pivot = *local.add(r * lanes + r);
            if pivot <= 0.0 {
                return false;
            }
            pivots[r] = pivot;
            let inverse = 1.0 / pivot;
            let row = simd.load(local.add(r * lanes));
            for s in r + 1..lanes {
                let m = *local.add(r * lanes + s) * inverse;
                multiplier[s * lanes + r] = m;
                let to = local.add(s * lanes);
                simd.store(to, simd.fnma(row, simd.splat(m), simd.load(to)));
            }
        }
        let scale = pivots.map(|pivot| 1.0 / pivot.sqrt());
        for (r, &scale) in scale[..lanes].iter().enumerate() {
            let row = simd.mul(simd.load(local.add(r * lanes)), simd.splat(scale));
            simd.store(block_rows.add(r * stride), row);
        }
        for vector in block + 1..vectors {
            let column = panel.add(vector * lanes);
            let mut rows = [simd.splat(0.0); PANEL];
            for s in 0..lanes {
                let mut row = simd.load(column.add(s * stride));
                for (r, &above) in rows[..s].iter().enumerate() {
                    row = simd.fnma(above, simd.splat(multiplier[s * lanes + r]), row);
                }
                rows[s] = row;
            }
            for s in 0..lanes {
                simd.store(column.add(s * stride), simd.mul(rows[s], simd.splat(scale[s])));
            }
        }
    }
    true
}

#[inline(always)]
unsafe fn substitute_back<S: Simd>(simd: S, u: &[f32], stride: usize, x: &mut [f32], padded: usize) {
    let lanes = S::LANES;
    for first in (0..padded).step_by(lanes).rev() {
        let later = first + lanes;
        for eight in (first..later).step_by(8) {
            let mut sums = [simd.splat(0.0); 8];
            for column in (later..padded).step_by(lanes) {
                // SAFETY: rows `eight .. eight + 8` and a whole vector at `column` are within `padded`.
                unsafe {
                    let solved = simd.load(x.as_ptr().add(column));
                    for (r, sum) in sums.iter_mut().enumerate() {
                        *sum =
                            simd.fma(simd.load(u.as_ptr().add((eight + r) * stride + column)), solved, *sum);
                    }
                }
            }
            // SAFETY: `x` holds `padded` numbers.
            unsafe { simd.store_x8(x.as_mut_ptr().add(eight), simd.sums(sums)) };
        }
        for r in (first..later).rev() {
            let row = &u[r * stride..][..stride];
            let mut rest = row[padded] - x[r];
            for c in r + 1..later {
                rest -= row[c] * x[c];
            }
            x[r] = rest / row[r];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        als_cholesky::solve_f64,
        simd::{dispatch, levels},
    };

    /// `A = MᵀM / n + I / 8`, `b` and the stride for every level.
    fn system(n: usize) -> (Vec<f64>, Vec<f64>) {
        let mut numbers = crate::conformance::Numbers::new(n as u64);
        let m: Vec<f64> = (0..n * n).map(|_| f64::from(numbers.unit())).collect();
        let mut a = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..n {
                a[i * n + j] = (0..n).map(|k| m[k * n + i] * m[k * n + j]).sum::<f64>() / n as f64;
            }
            a[i * n + i] += 0.125;
        }
        (a, (0..n).map(|_| f64::from(numbers.unit())).collect())
    }

    fn solve(a: &[f64], b: &[f64], level: crate::simd::Level) -> Option<Vec<f32>> {
        let n = b.len();
        let lanes = if level == crate::simd::Level::Avx512 { 16 } else { 8 };
        let stride = SolveArgs::stride_for(n, lanes);
        let padded = n.next_multiple_of(lanes);
        let mut matrix = vec![f32::NAN; padded * stride];
        for i in 0..n {
            for column in 0..stride {
                matrix[i * stride + column] = if column < n { a[i * n + column] as f32 } else { 0.0 };
            }
            matrix[i * stride + padded] = b[i] as f32;
        }
        let mut x = vec![0.0; padded];
        dispatch(level, Solve(SolveArgs { matrix: &mut matrix, stride, x: &mut x, n }))
            .then(|| x[..n].to_vec())
    }

    #[test]
    fn every_size_is_solved_at_every_level() {
        for n in [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 64, 100, 129] {
            let (a, b) = system(n);
            let expected = solve_f64(&mut a.clone(), b.clone()).unwrap();
            for level in levels() {
                let got = solve(&a, &b, level).unwrap();
                for (got, expected) in got.iter().zip(&expected) {
                    assert!((f64::from(*got) - expected).abs() < 1e-4, "{n} {level:?}: {got} {expected}");
                }
            }
        }
    }

    #[test]
    fn a_matrix_that_is_not_positive_definite_is_said_to_be_so() {
        for level in levels() {
            let (mut a, b) = system(33);
            a[20 * 33 + 20] = -1.0;
            assert_eq!(solve(&a, &b, level), None);
            a[20 * 33 + 20] = f64::NAN;
            assert!(solve(&a, &b, level).unwrap()[0].is_nan());
        }
    }
}

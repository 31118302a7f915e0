//! The inverse of a dense symmetric positive definite matrix, in place: `A <- A⁻¹`.
//!
//! The blocked sweep: with `K` a block of 128 rows, `D = A[K,K]` and `i`, `j` all other rows,
//!
//! ```text
//! A[i,j] <- A[i,j] - A[i,K] D⁻¹ A[K,j]      A[i,K] <- A[i,K] D⁻¹      A[K,K] <- -D⁻¹
//! ```
//!
//! and after one sweep of every block `A` is `-A⁻¹`. Every step keeps `A` symmetric, so that only the lower triangle is
//! worked on and one product of panels does all of the work.
//!
//! | operand  | layout                                                        |
//! |----------|---------------------------------------------------------------|
//! | `matrix` | `[n, n]` f32; the lower triangle is read, all of it written   |
//! | panels   | `A[:,K]` and `A[:,K] D⁻¹` packed: strips of rows, `k` before row |
//!
//! Cost: `n³` multiply-adds in f32 (the inverse of `D` in f64), the matrix and `2 * 128 * n` values beside it.
//! Every element is updated in one order by one thread, so the bits do not depend on the number of threads.
//!
//! Source: the sweep operator, Goodnight 1979, by blocks.

use rayon::prelude::*;

use crate::{Error, Result, Table, simd::Level};

const OP: &str = "spd_inverse";

/// Rows of a block. The packed panels of two blocks stay in the second-level cache.
const BLOCK: usize = 128;

/// Replaces a symmetric positive definite `matrix` by its inverse; only the lower triangle is read.
///
/// # Errors
/// [`Error::Shape`] when the matrix is not square; [`Error::NotOnDevice`] or [`Error::RowType`] when it is no f32 table
/// of its own on the CPU; [`Error::NotPositiveDefinite`] with the row where it shows.
/// After an error the matrix holds intermediate values.
pub fn spd_inverse(matrix: &mut Table) -> Result<()> {
    let n = matrix.dim();
    if matrix.rows() != n as u64 {
        return Err(Error::Shape {
            op: OP,
            what: "matrix",
            expected: n * n,
            got: matrix.rows() as usize * n,
        });
    }
    if matrix.row_type() != crate::RowType::F32 {
        let (expected, got) = (crate::RowType::F32, matrix.row_type());
        return Err(Error::RowType { op: OP, what: "matrix", expected, got });
    }
    let device = matrix.device();
    // Both are powers of two, so that blocks never cross chunks.
    let block = BLOCK.min(matrix.chunk_rows() as usize);
    let mut strips: Vec<&mut [f32]> =
        matrix.f32_chunks_mut().flat_map(|(_, values)| values.chunks_mut(block * n)).collect();
    if strips.len() != n.div_ceil(block) {
        return Err(Error::NotOnDevice { op: OP, device });
    }
    match crate::simd::level() {
        Level::Avx512 => sweep::<12, 32>(&mut strips, n, block, Level::Avx512)?,
        Level::Avx2 => sweep::<6, 16>(&mut strips, n, block, Level::Avx2)?,
        _ => sweep::<4, 8>(&mut strips, n, block, Level::Portable)?,
    }
    finish(&mut strips, n, block);
    Ok(())
}

/// Inverts by the textbook: Gauss-Jordan in f64, row by row.
///
/// # Errors
/// [`Error::NotPositiveDefinite`] at the first pivot that is not positive.
pub fn spd_inverse_reference(matrix: &[f32], n: usize) -> Result<Vec<f32>> {
    let mut a: Vec<f64> =
        (0..n * n).map(|at| f64::from(matrix[(at / n).max(at % n) * n + (at / n).min(at % n)])).collect();
    sweep_in_f64(&mut a, n).map_err(|row| Error::NotPositiveDefinite { op: OP, row: row as u64 })?;
    Ok(a.iter().map(|&v| -v as f32).collect())
}

/// Sweeps every block in turn: the lower triangle of the strips becomes that of `-A⁻¹`.
fn sweep<const M: usize, const N: usize>(
    strips: &mut [&mut [f32]],
    n: usize,
    block: usize,
    level: Level,
) -> Result<()> {
    let mut panel = vec![0f32; n.next_multiple_of(N) * block];
    let mut scaled = vec![0f32; strips.len() * block.next_multiple_of(M) * block];
    for at in 0..strips.len() {
        let first = at * block;
        let width = block.min(n - first);
        let pivot = swept_pivot(strips[at], n, first, width)?;

        // Column k of the block, whole: below as it lies, above as the transposed row of the block's own strip.
        let old = &*strips;
        let column = |row: usize, k: usize| match row < first {
            true => old[at][k * n + row],
            false => old[row / block][(row % block) * n + first + k],
        };
        let panel = &mut panel[..n.next_multiple_of(N) * width];
        panel.par_chunks_mut(N * width).enumerate().for_each(|(strip, packed)| {
            pack::<N>(packed, n - strip * N, width, |row, k| column(strip * N + row, k));
        });

        // `pivot` is -D⁻¹ and symmetric, so zero minus its products with the panel is A[:,K] D⁻¹.
        let mut packed_pivot = vec![0f32; width.next_multiple_of(N) * width];
        pack::<N>(&mut packed_pivot, width, width, |row, k| pivot[k * width + row]);
        let strip_len = block.next_multiple_of(M) * width;
        let scaled = &mut scaled[..strips.len() * strip_len];
        scaled.par_chunks_mut(strip_len).enumerate().for_each_init(
            || (vec![0f32; strip_len], vec![0f32; block * width]),
            |(rows, product), (strip, scaled)| {
                let n_rows = block.min(n - strip * block);
                let product = &mut product[..n_rows * width];
                pack::<M>(rows, n_rows, width, |row, k| column(strip * block + row, k));
                product.fill(0.0);
                subtract_products::<M, N>(level, rows, &packed_pivot, width, product, width, width);
                pack::<M>(scaled, n_rows, width, |row, k| product[row * width + k]);
            },
        );

        let (panel, scaled) = (&*panel, &*scaled);
        let scaled_value = |row: usize, k: usize| {
            let in_strip = row % block;
            scaled[row / block * strip_len + in_strip / M * M * width + k * M + in_strip % M]
        };
        // The work of a strip grows with its place, so the last ones come first.
        strips.par_iter_mut().enumerate().rev().with_max_len(1).for_each(|(strip, rows)| {
            if strip == at {
                for (k, row) in rows.chunks_mut(n).enumerate() {
                    row[..first].iter_mut().enumerate().for_each(|(j, value)| *value = scaled_value(j, k));
                    row[first..first + width].copy_from_slice(&pivot[k * width..][..width]);
                }
                return;
            }
            let end = n.min((strip + 1) * block);
            let scaled = &scaled[strip * strip_len..][..strip_len];
            subtract_products::<M, N>(level, scaled, panel, width, rows, n, end);
            if strip > at {
                for (row, values) in rows.chunks_mut(n).enumerate() {
                    let block_values = values[first..first + width].iter_mut().enumerate();
                    block_values.for_each(|(k, value)| *value = scaled_value(strip * block + row, k));
                }
            }
        });
    }
    Ok(())
}

/// Returns `-D⁻¹` of the block of `width` rows that begins at row and column `first`, computed in f64.
fn swept_pivot(strip: &[f32], n: usize, first: usize, width: usize) -> Result<Vec<f32>> {
    let lower = |row: usize, column: usize| f64::from(strip[row * n + first + column]);
    let mut pivot: Vec<f64> = (0..width * width)
        .map(|at| (at / width, at % width))
        .map(|(row, column)| lower(row.max(column), row.min(column)))
        .collect();
    sweep_in_f64(&mut pivot, width)
        .map_err(|row| Error::NotPositiveDefinite { op: OP, row: (first + row) as u64 })?;
    Ok(pivot.iter().map(|&v| v as f32).collect())
}

/// Replaces the full symmetric `a` by `-a⁻¹`, or returns the row whose pivot is not positive.
fn sweep_in_f64(a: &mut [f64], n: usize) -> std::result::Result<(), usize> {
    let mut pivot_row = vec![0f64; n];
    for k in 0..n {
        let pivot = a[k * n + k];
        if !(pivot > 0.0 && pivot.is_finite()) {
            return Err(k);
        }
        pivot_row.copy_from_slice(&a[k * n..][..n]);
        for (i, row) in a.chunks_mut(n).enumerate() {
            let factor = pivot_row[i] / pivot;
            if i == k {
                row.iter_mut().for_each(|v| *v /= pivot);
                row[k] = -1.0 / pivot;
                continue;
            }
            row.iter_mut().zip(&pivot_row).for_each(|(v, &p)| *v -= factor * p);
            row[k] = factor;
        }
    }
    Ok(())
}

/// Turns the lower triangle of `-A⁻¹` into the whole of `A⁻¹`.
fn finish(strips: &mut [&mut [f32]], n: usize, block: usize) {
    strips.par_iter_mut().enumerate().for_each(|(strip, rows)| {
        for (row, values) in rows.chunks_mut(n).enumerate() {
            values[..=strip * block + row].iter_mut().for_each(|v| *v = -*v);
        }
    });
    for strip in 0..strips.len() {
        let (above, below) = strips.split_at_mut(strip + 1);
        let rows = &mut *above[strip];
        let lower = &*below;
        let first = strip * block;
        // Within the strip first, then from every strip below it.
        for row in 0..rows.len() / n {
            for column in row + 1..rows.len() / n {
                rows[row * n + first + column] = rows[column * n + first + row];
            }
        }
        rows.par_chunks_mut(n).enumerate().for_each(|(row, values)| {
            for (below, from) in lower.iter().enumerate() {
                for (k, from) in from.chunks(n).enumerate() {
                    values[first + block * (below + 1) + k] = from[first + row];
                }
            }
        });
    }
}

/// Packs `rows` rows of `width` values into strips of `S` rows, `k` before row, zeros past the last row.
fn pack<const S: usize>(packed: &mut [f32], rows: usize, width: usize, value: impl Fn(usize, usize) -> f32) {
    for (strip, packed) in packed.chunks_mut(S * width).enumerate() {
        for (k, values) in packed.chunks_mut(S).enumerate() {
            for (out, row) in values.iter_mut().zip(strip * S..) {
                *out = if row < rows { value(row, k) } else { 0.0 };
            }
        }
    }
}

/// `out[i, j] -= Σ_k a[i, k] b[j, k]` for all rows of `out` and its first `columns` columns; `out`'s rows are `stride`
/// apart, `a` and `b` packed in strips of `M` and `N` rows.
fn subtract_products<const M: usize, const N: usize>(
    level: Level,
    a: &[f32],
    b: &[f32],
    width: usize,
    out: &mut [f32],
    stride: usize,
    columns: usize,
) {
    for (b_strip, b) in b.chunks_exact(N * width).enumerate().take(columns.div_ceil(N)) {
        let column = b_strip * N;
        let n_columns = N.min(columns - column);
        for (rows, a) in out.chunks_mut(M * stride).zip(a.chunks_exact(M * width)) {
            let products = tile::<M, N>(level, a, b);
            for (row, products) in rows.chunks_mut(stride).zip(&products) {
                let row = &mut row[column..column + n_columns];
                row.iter_mut().zip(products).for_each(|(value, product)| *value -= product);
            }
        }
    }
}

/// Returns the products of one strip of `M` rows with one of `N` rows, all of them in registers.
fn tile<const M: usize, const N: usize>(level: Level, a: &[f32], b: &[f32]) -> [[f32; N]; M] {
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "functions compiled for more than the baseline processor")]
    match level {
        // SAFETY: `simd::level` names a level only where the processor has all of its instructions.
        Level::Avx512 if N == 32 => return unsafe { tile_avx512(a, b) },
        // SAFETY: as above.
        Level::Avx2 => return unsafe { tile_avx2(a, b) },
        _ => {}
    }
    let _ = level;
    tile_body(a, b, |a, b, sum| sum + a * b)
}

/// By hand: left to itself the compiler keeps to 256-bit vectors here and spills the sums, at a twentieth of the speed.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn tile_avx512<const M: usize, const N: usize>(a: &[f32], b: &[f32]) -> [[f32; N]; M] {
    use std::arch::x86_64::{
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    };
    assert_eq!(N, 32);
    let mut sums = [[_mm512_setzero_ps(); 2]; M];
    for (a, b) in a.as_chunks::<M>().0.iter().zip(b.as_chunks::<N>().0) {
        #[expect(unsafe_code, reason = "vector loads take pointers")]
        // SAFETY: `b` points to 32 values.
        let b = unsafe { [_mm512_loadu_ps(b.as_ptr()), _mm512_loadu_ps(b.as_ptr().add(16))] };
        for (sums, &a) in sums.iter_mut().zip(a) {
            let a = _mm512_set1_ps(a);
            *sums = [_mm512_fmadd_ps(a, b[0], sums[0]), _mm512_fmadd_ps(a, b[1], sums[1])];
        }
    }
    let mut out = [[0f32; N]; M];
    for (out, sums) in out.iter_mut().zip(&sums) {
        #[expect(unsafe_code, reason = "vector stores take pointers")]
        // SAFETY: `out` points to 32 values.
        unsafe {
            _mm512_storeu_ps(out.as_mut_ptr(), sums[0]);
            _mm512_storeu_ps(out.as_mut_ptr().add(16), sums[1]);
        }
    }
    out
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn tile_avx2<const M: usize, const N: usize>(a: &[f32], b: &[f32]) -> [[f32; N]; M] {
    tile_body(a, b, f32::mul_add)
}

#[inline(always)]
fn tile_body<const M: usize, const N: usize>(
    a: &[f32],
    b: &[f32],
    add_product: impl Fn(f32, f32, f32) -> f32,
) -> [[f32; N]; M] {
    let mut sums = [[0f32; N]; M];
    for (a, b) in a.as_chunks::<M>().0.iter().zip(b.as_chunks::<N>().0) {
        for (sums, &a) in sums.iter_mut().zip(a) {
            for (sum, &b) in sums.iter_mut().zip(b) {
                *sum = add_product(a, b, *sum);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, simd};

    /// A symmetric matrix whose diagonal outweighs the rest of its row.
    fn example(n: usize) -> Vec<f32> {
        let mut state = 1u32;
        let mut matrix = vec![0f32; n * n];
        for row in 0..n {
            for column in 0..row {
                state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                let value = (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
                matrix[row * n + column] = value;
                matrix[column * n + row] = value;
            }
            matrix[row * n + row] = 2.0 + (n as f32).sqrt();
        }
        matrix
    }

    #[test]
    fn every_level_and_every_cut_into_chunks_agrees_with_the_reference() {
        for n in [1, 2, 31, 33, 128, 129, 300] {
            let matrix = example(n);
            let expected = spd_inverse_reference(&matrix, n).unwrap();
            for level in simd::levels() {
                for chunk_rows in [16, 64, 1024] {
                    let mut table =
                        Table::from_f32_in_chunks(&matrix, n, chunk_rows, Device::Cpu, "a test").unwrap();
                    simd::with_level(level, || spd_inverse(&mut table)).unwrap();
                    for (at, (got, expected)) in table.to_f32().unwrap().iter().zip(&expected).enumerate() {
                        assert!(
                            (got - expected).abs() < 2e-6,
                            "{level:?} {n} {chunk_rows} {at}: {got} {expected}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_bits_do_not_depend_on_the_number_of_threads() {
        let matrix = example(400);
        let inverse = |threads| {
            let mut table = Table::from_f32(&matrix, 400, Device::Cpu, "a test").unwrap();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| spd_inverse(&mut table)).unwrap();
            table.to_f32().unwrap()
        };
        assert_eq!(inverse(1), inverse(2));
        assert_eq!(inverse(1), inverse(5));
    }

    #[test]
    fn a_matrix_that_is_not_positive_definite_is_refused_with_the_row() {
        let mut matrix = example(200);
        matrix[150 * 200 + 150] = -1.0;
        let mut table = Table::from_f32(&matrix, 200, Device::Cpu, "a test").unwrap();
        assert_eq!(spd_inverse(&mut table).unwrap_err(), Error::NotPositiveDefinite { op: OP, row: 150 });
        let mut wide = Table::from_f32(&[1.0; 6], 3, Device::Cpu, "a test").unwrap();
        assert!(matches!(spd_inverse(&mut wide), Err(Error::Shape { .. })));
    }
}

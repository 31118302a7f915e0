//! One epoch of biased matrix factorization for ratings: squared error by stochastic gradient descent.
//!
//! ```text
//! x(r, c) = mean + b_r + b_c + p_r . q_c
//! minimize  Σ (v - x(r, c))² + λ (|p_r|² + |q_c|²) + λ_b (b_r² + b_c²)   over the stored values v
//!
//! with e = v - x(r, c):   p_r += s (e q_c - λ p_r)    q_c += s (e p_r - λ q_c)    b_* += s (e - λ_b b_*)
//! ```
//!
//! # Layout
//!
//! | name             | shape                 | type | constraint                     |
//! |------------------|-----------------------|------|--------------------------------|
//! | `rows`           | `[n_rows, n_columns]` | CSR  | every stored value is a rating |
//! | `row_factors`    | `[n_rows, dim]`       | f32  | read and written               |
//! | `column_factors` | `[n_columns, dim]`    | f32  | read and written               |
//! | `row_bias`       | `[n_rows]`            | f32  | read and written               |
//! | `column_bias`    | `[n_columns]`         | f32  | read and written               |
//!
//! # Cost
//! A rating reads and writes two rows: `16 * dim` bytes and `9 * dim` operations. Beside its operands an epoch holds
//! [`rating_epoch_bytes`].
//!
//! # Determinism
//! The same bits for every number of threads: cells of disjoint blocks of rows and columns run in parallel (`cells`).
//! Every rating is visited once an epoch, in an order drawn from seed and epoch.
//!
//! # Source
//! Koren, Bell, Volinsky 2009, "Matrix factorization techniques for recommender systems", eq. (5); Funk 2006.

#![expect(unsafe_code, reason = "rows that a cell may write, and run-time choice of instructions")]

use crate::{
    Error, Result, SparseRows, Table,
    cells::{Cell, Cells, block_count},
    lanes::dot,
    pairwise_update::step::move_two,
    philox::Draws,
    shared_rows::{AHEAD, SharedRows},
    simd::{self, Level},
};

const OP: &str = "rating_update";

/// One epoch's data and settings.
#[derive(Clone, Copy, Debug)]
pub struct RatingEpoch<'a> {
    /// The ratings.
    pub rows: SparseRows<'a>,
    /// What is added to every prediction, commonly the mean rating.
    pub mean: f32,
    /// Step size.
    pub learning_rate: f32,
    /// L2 weight of the factors, per visit.
    pub regularization: f32,
    /// L2 weight of the biases, per visit.
    pub bias_regularization: f32,
    /// Fixes every order, together with `epoch`.
    pub seed: u64,
    /// Number of the epoch: no two epochs of a training may share it.
    pub epoch: u64,
}

/// What learns from an epoch.
#[derive(Debug)]
pub struct RatingFactors<'a> {
    /// `[n_rows, dim]`.
    pub row_factors: &'a mut Table,
    /// `[n_columns, dim]`.
    pub column_factors: &'a mut Table,
    /// `[n_rows]`.
    pub row_bias: &'a mut [f32],
    /// `[n_columns]`.
    pub column_bias: &'a mut [f32],
}

/// What an epoch did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RatingStats {
    /// Mean squared error, each taken before its own step; L2 is not counted.
    pub loss: f64,
    /// Ratings visited.
    pub samples: u64,
}

/// Changes `factors` by one epoch over all ratings; runs on the current rayon pool.
///
/// # Errors
/// [`Error::Shape`], [`Error::Parameter`], [`Error::RowType`], [`Error::NotOnDevice`], those of [`SparseRows::check`]
/// for operands that do not fit; [`Error::OutOfMemory`]; [`Error::NotFinite`] with the first row whose prediction is
/// NaN or infinite, which too large a learning rate leads to. On an error the operands hold part of an epoch.
///
/// # Determinism
/// The same bits for every number of threads.
pub fn rating_epoch(epoch: &RatingEpoch, factors: &mut RatingFactors) -> Result<RatingStats> {
    let n_columns = check(epoch, factors)?;
    let cells = deal(epoch, n_columns)?;
    let job = Job {
        epoch,
        row_factors: SharedRows::new(OP, "row factors", factors.row_factors)?,
        column_factors: SharedRows::new(OP, "column factors", factors.column_factors)?,
        row_bias: SharedRows::of_slice(factors.row_bias),
        column_bias: SharedRows::of_slice(factors.column_bias),
    };
    let level = simd::level();
    let errors = cells.run(
        || (),
        |(), cell| {
            let (error, not_finite) = match level {
                // SAFETY: the level is one that the processor has; a cell's rows and columns are this task's alone.
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => unsafe { visit_avx512(&job, &cell) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => unsafe { visit_avx2(&job, &cell) },
                // SAFETY: a cell's rows and columns are this task's alone.
                _ => unsafe { visit::<false>(&job, &cell) },
            };
            match not_finite {
                Some(row) => Err(Error::NotFinite { op: OP, what: "a prediction", row: row.into() }),
                None => Ok(error),
            }
        },
    )?;
    let samples = epoch.rows.nnz() as u64;
    Ok(RatingStats { loss: errors.iter().sum::<f64>() / samples.max(1) as f64, samples })
}

/// Returns the bytes that an epoch allocates beside its operands.
pub fn rating_epoch_bytes(n_rows: u64, n_columns: u64, nnz: u64) -> u64 {
    Cells::<f32>::bytes(nnz as usize, n_columns as usize) + 4 * n_rows
}

/// The definition: naive, single-threaded, in f64; visits the ratings in the same order.
///
/// Returns row factors, column factors, row biases, column biases, each row-major, and the mean squared error.
///
/// # Errors
/// As [`rating_epoch`], for shapes.
pub fn rating_epoch_reference(epoch: &RatingEpoch, factors: &RatingFactors) -> Result<([Vec<f64>; 4], f64)> {
    let n_columns = check(epoch, factors)?;
    let dim = factors.row_factors.dim();
    let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    let mut p = wide(&factors.row_factors.to_f32()?);
    let mut q = wide(&factors.column_factors.to_f32()?);
    let (mut row_bias, mut column_bias) = (wide(factors.row_bias), wide(factors.column_bias));
    let [rate, l2, bias_l2] =
        [epoch.learning_rate, epoch.regularization, epoch.bias_regularization].map(f64::from);
    let mut squares = 0.0;
    for (row, column, value) in deal(epoch, n_columns)?.in_order() {
        let (r, c) = (row as usize, column as usize);
        let score: f64 = (0..dim).map(|d| p[r * dim + d] * q[c * dim + d]).sum();
        let error = f64::from(value) - f64::from(epoch.mean) - row_bias[r] - column_bias[c] - score;
        squares += error * error;
        row_bias[r] += rate * (error - bias_l2 * row_bias[r]);
        column_bias[c] += rate * (error - bias_l2 * column_bias[c]);
        for d in 0..dim {
            let (a, b) = (p[r * dim + d], q[c * dim + d]);
            p[r * dim + d] += rate * (error * b - l2 * a);
            q[c * dim + d] += rate * (error * a - l2 * b);
        }
    }
    Ok(([p, q, row_bias, column_bias], squares / epoch.rows.nnz().max(1) as f64))
}

struct Job<'a> {
    epoch: &'a RatingEpoch<'a>,
    row_factors: SharedRows<'a>,
    column_factors: SharedRows<'a>,
    row_bias: SharedRows<'a>,
    column_bias: SharedRows<'a>,
}

fn deal(epoch: &RatingEpoch, n_columns: usize) -> Result<Cells<f32>> {
    let rows = epoch.rows;
    let blocks = block_count(rows.n_rows(), n_columns, rows.nnz());
    let stream = |purpose| Draws::new(epoch.seed, ((epoch.epoch & 0xffff_ffff) << 8) | purpose);
    Cells::deal(rows, n_columns, blocks, [stream(0x10), stream(0x11)], Some)
}

/// Returns the number of columns.
fn check(epoch: &RatingEpoch, factors: &RatingFactors) -> Result<usize> {
    let (n_rows, n_columns) = (epoch.rows.n_rows(), factors.column_factors.rows() as usize);
    for (what, expected, got) in [
        ("row factors", n_rows, factors.row_factors.rows() as usize),
        ("dim of the column factors", factors.row_factors.dim(), factors.column_factors.dim()),
        ("row bias", n_rows, factors.row_bias.len()),
        ("column bias", n_columns, factors.column_bias.len()),
    ] {
        if expected != got {
            return Err(Error::Shape { op: OP, what, expected, got });
        }
    }
    if n_rows >= 1 << 31 || n_columns >= 1 << 31 {
        let got = n_rows.max(n_columns) as f64;
        return Err(Error::Parameter { op: OP, what: "rows and columns", expected: "below 2^31", got });
    }
    for (what, value) in [
        ("learning_rate", epoch.learning_rate),
        ("regularization", epoch.regularization),
        ("bias_regularization", epoch.bias_regularization),
    ] {
        if !(value.is_finite() && value >= 0.0) {
            let got = value.into();
            return Err(Error::Parameter { op: OP, what, expected: "finite and at least 0", got });
        }
    }
    if !epoch.mean.is_finite() {
        let got = epoch.mean.into();
        return Err(Error::Parameter { op: OP, what: "mean", expected: "finite", got });
    }
    epoch.rows.check(OP, n_columns as u64)?;
    Ok(n_columns)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn visit_avx512(job: &Job, cell: &Cell<f32>) -> (f64, Option<u32>) {
    // SAFETY: the caller's promise.
    unsafe { visit::<true>(job, cell) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn visit_avx2(job: &Job, cell: &Cell<f32>) -> (f64, Option<u32>) {
    // SAFETY: the caller's promise.
    unsafe { visit::<true>(job, cell) }
}

/// Visits a cell's ratings; returns the sum of squared errors and the first row that is not finite.
///
/// # Safety
/// Nobody else may hold the cell's rows and columns.
#[inline(always)]
unsafe fn visit<const FMA: bool>(job: &Job, cell: &Cell<f32>) -> (f64, Option<u32>) {
    let epoch = job.epoch;
    let rate = epoch.learning_rate;
    let mut squares = 0.0;
    for (at, entry) in cell.entries.iter().enumerate() {
        if let Some(ahead) = cell.entries.get(at + AHEAD) {
            job.row_factors.prefetch(ahead.row);
            job.column_factors.prefetch(ahead.column);
        }
        // SAFETY: the caller's promise; a row and a column are in different tables.
        let (p, q) = unsafe { (job.row_factors.row(entry.row), job.column_factors.row(entry.column)) };
        let (b, c) = (job.row_bias.value(entry.row), job.column_bias.value(entry.column));
        let error = entry.value - epoch.mean - b - c - dot::<FMA>(p, q);
        if !error.is_finite() {
            return (squares, Some(entry.row));
        }
        squares += f64::from(error) * f64::from(error);
        move_two::<FMA>(p, q, error, [rate; 2], epoch.regularization);
        job.row_bias.set_value(entry.row, b + rate * (error - epoch.bias_regularization * b));
        job.column_bias.set_value(entry.column, c + rate * (error - epoch.bias_regularization * c));
    }
    (squares, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Device,
        conformance::{Numbers, on_threads},
    };

    struct Ratings {
        indptr: Vec<u64>,
        indices: Vec<u32>,
        values: Vec<f32>,
    }

    /// Ratings of rank one plus biases.
    fn ratings(n_rows: usize, n_columns: usize) -> Ratings {
        let mut numbers = Numbers::new(2);
        let taste: Vec<f32> = (0..n_rows + n_columns).map(|_| numbers.unit()).collect();
        let (mut indptr, mut indices, mut values) = (vec![0], Vec::new(), Vec::new());
        for row in 0..n_rows {
            for column in 0..n_columns {
                if numbers.below(3) == 0 {
                    indices.push(column as u32);
                    values.push(3.0 + taste[row] * taste[n_rows + column] + 0.3 * taste[n_rows + column]);
                }
            }
            indptr.push(indices.len() as u64);
        }
        Ratings { indptr, indices, values }
    }

    impl Ratings {
        fn epoch(&self, number: u64) -> RatingEpoch<'_> {
            RatingEpoch {
                rows: SparseRows { indptr: &self.indptr, indices: &self.indices, values: &self.values },
                mean: 3.0,
                learning_rate: 0.05,
                regularization: 0.005,
                bias_regularization: 0.005,
                seed: 1,
                epoch: number,
            }
        }
    }

    fn tables(n_rows: usize, n_columns: usize, dim: usize) -> [Table; 2] {
        let mut numbers = Numbers::new(4);
        [n_rows, n_columns].map(|rows| {
            let values: Vec<f32> = (0..rows * dim).map(|_| numbers.unit() * 0.2).collect();
            Table::from_f32_in_chunks(&values, dim, 32, Device::Cpu, "a test").unwrap()
        })
    }

    fn train(data: &Ratings, shape: [usize; 3], epochs: u64) -> Result<(Vec<f32>, Vec<f64>)> {
        let [mut rows, mut columns] = tables(shape[0], shape[1], shape[2]);
        let (mut row_bias, mut column_bias) = (vec![0.0; shape[0]], vec![0.0; shape[1]]);
        let mut losses = Vec::new();
        for number in 0..epochs {
            let mut factors = RatingFactors {
                row_factors: &mut rows,
                column_factors: &mut columns,
                row_bias: &mut row_bias,
                column_bias: &mut column_bias,
            };
            losses.push(rating_epoch(&data.epoch(number), &mut factors)?.loss);
        }
        Ok(([rows.to_f32()?, columns.to_f32()?, row_bias, column_bias].concat(), losses))
    }

    #[test]
    fn agrees_with_the_reference() {
        for (n_rows, n_columns, dim) in [(1, 1, 1), (70, 40, 3), (300, 500, 33)] {
            let data = ratings(n_rows, n_columns);
            let [mut rows, mut columns] = tables(n_rows, n_columns, dim);
            let factors = RatingFactors {
                row_factors: &mut rows,
                column_factors: &mut columns,
                row_bias: &mut vec![0.0; n_rows],
                column_bias: &mut vec![0.0; n_columns],
            };
            let (expected, loss) = rating_epoch_reference(&data.epoch(0), &factors).unwrap();
            let (got, losses) = train(&data, [n_rows, n_columns, dim], 1).unwrap();
            assert!((losses[0] - loss).abs() <= 1e-5 * loss.max(1e-3));
            for (at, (got, expected)) in got.iter().zip(expected.concat()).enumerate() {
                assert!((f64::from(*got) - expected).abs() < 1e-5, "value {at}: {got} for {expected}");
            }
        }
    }

    #[test]
    fn the_loss_falls_with_the_same_bits_for_every_number_of_threads() {
        let data = ratings(300, 500);
        let run = |threads| on_threads(threads, || train(&data, [300, 500, 9], 20)).unwrap();
        let one = run(1);
        assert!(one.1[19] < 0.05 * one.1[0], "{:?}", one.1);
        assert!(one == run(2) && one == run(5));
    }

    #[test]
    fn a_learning_rate_that_diverges_is_reported() {
        let data = ratings(70, 40);
        let [mut rows, mut columns] = tables(70, 40, 4);
        let mut factors = RatingFactors {
            row_factors: &mut rows,
            column_factors: &mut columns,
            row_bias: &mut [0.0; 70],
            column_bias: &mut [0.0; 40],
        };
        let epoch = RatingEpoch { learning_rate: 50.0, ..data.epoch(0) };
        assert!(matches!(rating_epoch(&epoch, &mut factors), Err(Error::NotFinite { .. })));
        let epoch = RatingEpoch { learning_rate: f32::INFINITY, ..epoch };
        assert!(matches!(rating_epoch(&epoch, &mut factors), Err(Error::Parameter { .. })));
        factors.row_bias = &mut [];
        assert!(matches!(rating_epoch(&data.epoch(0), &mut factors), Err(Error::Shape { .. })));
    }
}

//! Which columns of a sparse matrix go with which: the `k` most similar columns of every column.
//!
//! ```text
//! s(i, j) = Σ_r d_r^-a x_ri x_rj / ((|x_i|² |x_j|²)^e + shrink)          |x_i|² = Σ_r x_ri²
//!
//! cosine    x_ri = v_ri
//! TF-IDF    x_ri = ±sqrt|v_ri| idf_r
//! BM25      x_ri = v_ri (k1 + 1) / (v_ri + k1 (1 - b + b l_i / mean l)) idf_r
//!
//! RP3beta   s(i, j) = Σ_r (v_ri / l_i)^α (v_rj / m_r)^α / d_j^β
//! ```
//! d: number of values of a row or column, m_r and l_i: sum of a row's and a column's values, idf_r =
//! ln(1 + n_columns / d_r), a: `row_damping`, e: `column_damping`. With a = 0 and e = 1/2 the first three are cosines: a damps
//! rows that have a little of everything, and e moves the balance between rare (1) and popular (0) columns. RP3beta is the
//! probability of walking from column i over a row to column j, damped by j's degree; a, e and shrinkage do not apply to
//! it. For BM25 and RP3beta values below 0 count as 0.
//!
//! # Layout
//!
//! | name        | shape                  | type | constraint                                             |
//! |-------------|------------------------|------|--------------------------------------------------------|
//! | `by_column` | `[n_columns, n_rows]`  | CSR  | the transpose of `by_row`                              |
//! | `by_row`    | `[n_rows, n_columns]`  | CSR  | columns ascend in each row                             |
//! | output      | `[n_columns, <= k]`    | CSR  | s > 0 and never i itself; best first, ties by lower j  |
//!
//! # Cost
//! `Σ_r d_r²` additions, each to a random place of one column's accumulator. Beside operands and output: 4 bytes a value
//! of the matrix unless all are 1, and 8 bytes a column and thread; never columns x columns. On a GPU (`cube.rs`): the matrix
//! by rows, and 4 bytes a column for each of the columns of a block.
//!
//! # Determinism
//! A pair's sum runs over the rows in ascending order, in one accumulator: the same bits for every number of threads.
//!
//! # Source
//! Sarwar et al. 2001 (cosine); Bell, Koren 2007 (shrinkage); Robertson, Walker 1994 (BM25); Paudel et al. 2017
//! (RP3beta); the form of TF-IDF and BM25 on interactions after implicit.

mod cpu;
#[cfg(feature = "gpu")]
mod cube;

#[cfg(test)]
mod tests;
mod weights;

use self::weights::Weights;
use crate::{Device, Error, Result, SparseRows, buffer::on_gpu};

const OP: &str = "similarity";

/// How alike two columns are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measure {
    /// The cosine of the columns.
    Cosine,
    /// The cosine after weighting rows by how few values they have.
    Tfidf,
    /// The cosine after BM25 weights.
    Bm25 {
        /// How soon a larger value stops counting more.
        k1: f64,
        /// How much a column's sum is normalised, 0 to 1.
        b: f64,
    },
    /// The walk column, row, column.
    Rp3beta {
        /// Power of the walk's probabilities.
        alpha: f64,
        /// Power of the degree that divides the reached column's.
        beta: f64,
    },
}

/// Which pairs a column's list holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// List i holds the j of largest s(i, j): where i leads.
    #[default]
    From,
    /// List j holds the i of largest s(i, j): what leads to j.
    To,
}

/// Settings of [`similarity`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SimilarityOptions {
    /// How alike two columns are.
    pub measure: Measure,
    /// Columns in a list.
    pub k: usize,
    /// Added to the denominator, so that columns with few rows in common count less; not for RP3beta.
    pub shrink: f64,
    /// A row of d values weighs `d^-row_damping`; 0 for all alike. Not for RP3beta.
    pub row_damping: f64,
    /// The power of both columns' squared norms in the denominator; 0.5 for the cosine. Not for RP3beta.
    pub column_damping: f64,
    /// Which pairs a column's list holds.
    pub direction: Direction,
}

/// Lists of similar columns, one after another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Neighbours {
    /// Where each column's list begins, and the end: `[n_columns + 1]`.
    pub indptr: Vec<u64>,
    /// The similar columns, best first.
    pub indices: Vec<u32>,
    /// How similar.
    pub values: Vec<f32>,
}

impl Neighbours {
    /// Adds a list.
    fn push(&mut self, list: &[(f32, u32)]) {
        self.indices.extend(list.iter().map(|&(_, column)| column));
        self.values.extend(list.iter().map(|&(value, _)| value));
        self.indptr.push(self.indices.len() as u64);
    }

    /// Returns the lists as a borrowed sparse matrix whose rows do not ascend.
    pub fn rows(&self) -> SparseRows<'_> {
        SparseRows { indptr: &self.indptr, indices: &self.indices, values: &self.values }
    }
}

/// Returns the `k` most similar columns of every column, computed on the CPU.
///
/// # Shapes, Errors, Determinism
/// As [`similarity_on`].
pub fn similarity(
    by_column: SparseRows,
    by_row: SparseRows,
    options: &SimilarityOptions,
) -> Result<Neighbours> {
    similarity_on(Device::Cpu, by_column, by_row, options)
}

/// Returns the `k` most similar columns of every column, computed on `device`; operands and result are on the host.
///
/// # Shapes
/// - `by_row`: `[n_rows, n_columns]`; `by_column`: its transpose, `[n_columns, n_rows]`
///
/// # Errors
/// [`Error::Shape`], [`Error::Parameter`], those of [`SparseRows::check`] for operands that do not fit;
/// [`Error::NotFinite`] with the first column whose list has a similarity that is not finite; on a GPU
/// [`Error::OutOfMemory`] where the matrix by rows does not fit.
///
/// # Determinism
/// The same bits for every number of threads. Two devices may round differently, and then order differently what is equal
/// but for rounding.
pub fn similarity_on(
    device: Device,
    by_column: SparseRows,
    by_row: SparseRows,
    options: &SimilarityOptions,
) -> Result<Neighbours> {
    similarity_in_blocks(device, by_column, by_row, options, u64::MAX)
}

/// As [`similarity_on`], where on a GPU the accumulators of a block, and each part of the matrix, have at most
/// `most_bytes`: the result does not depend on it.
pub(crate) fn similarity_in_blocks(
    device: Device,
    by_column: SparseRows,
    by_row: SparseRows,
    options: &SimilarityOptions,
    most_bytes: u64,
) -> Result<Neighbours> {
    check(by_column, by_row, options)?;
    let weights = Weights::new(by_column, by_row, options);
    let out = match device {
        Device::Cpu => Ok(cpu::lists(by_column, by_row, &weights, options)),
        device => on_gpu!(OP, device, R => {
            cube::lists::<R>(by_column, by_row, &weights, options, device, most_bytes)
        }),
    }?;
    match out.values.iter().position(|value| !value.is_finite()) {
        Some(at) => {
            let row = out.indptr.partition_point(|&end| end <= at as u64) as u64 - 1;
            Err(Error::NotFinite { op: OP, what: "a similarity", row })
        }
        None => Ok(out),
    }
}

/// The definition: naive, single-threaded, in f64, with a matrix of columns x columns.
///
/// Returns s, `[n_columns, n_columns]` row-major, its diagonal zero.
///
/// # Errors
/// As [`similarity`].
pub fn similarity_reference(
    by_column: SparseRows,
    by_row: SparseRows,
    options: &SimilarityOptions,
) -> Result<Vec<f64>> {
    check(by_column, by_row, options)?;
    let n = by_column.n_rows();
    let degree = |rows: SparseRows, at: usize| rows.row(at).0.len() as f64;
    let sum =
        |rows: SparseRows, at: usize| rows.row(at).1.iter().map(|&v| f64::from(v).max(0.0)).sum::<f64>();
    let mean = (0..n).map(|i| sum(by_column, i)).sum::<f64>() / n as f64;
    let (mut dots, mut squares) = (vec![0.0; n * n], vec![0.0; n]);
    for r in 0..by_row.n_rows() {
        let d = degree(by_row, r);
        let idf = (1.0 + n as f64 / d).ln();
        let weight = match options.measure {
            Measure::Rp3beta { alpha, .. } => sum(by_row, r).max(f64::MIN_POSITIVE).powf(-alpha),
            _ => d.powf(-options.row_damping),
        };
        let x = |i: u32, v: f32| {
            let v = f64::from(v);
            match options.measure {
                Measure::Cosine => v,
                Measure::Tfidf => v.abs().sqrt() * v.signum() * idf,
                Measure::Bm25 { .. } | Measure::Rp3beta { .. } if v <= 0.0 => 0.0,
                Measure::Bm25 { k1, b } => {
                    let length = sum(by_column, i as usize) / mean;
                    v * (k1 + 1.0) / (v + k1 * (1.0 - b + b * length)) * idf
                }
                Measure::Rp3beta { alpha, .. } => v.powf(alpha),
            }
        };
        let (columns, values) = by_row.row(r);
        for (&i, &v) in columns.iter().zip(values) {
            squares[i as usize] += x(i, v) * x(i, v);
            for (&j, &u) in columns.iter().zip(values) {
                dots[i as usize * n + j as usize] += weight * x(i, v) * x(j, u);
            }
        }
    }
    let mut out = vec![0.0; n * n];
    for i in 0..n {
        for j in (0..n).filter(|&j| j != i && dots[i * n + j] != 0.0) {
            out[i * n + j] = dots[i * n + j]
                / match options.measure {
                    Measure::Rp3beta { alpha, beta } => {
                        sum(by_column, i).powf(alpha) * degree(by_column, j).powf(beta)
                    }
                    _ => (squares[i] * squares[j]).powf(options.column_damping) + options.shrink,
                };
        }
    }
    Ok(out)
}

fn check(by_column: SparseRows, by_row: SparseRows, options: &SimilarityOptions) -> Result<()> {
    let (n_columns, n_rows) = (by_column.n_rows(), by_row.n_rows());
    by_row.check(OP, n_columns as u64)?;
    by_column.check(OP, n_rows as u64)?;
    if by_column.nnz() != by_row.nnz() {
        let (expected, got) = (by_row.nnz(), by_column.nnz());
        return Err(Error::Shape { op: OP, what: "by_column", expected, got });
    }
    let mut counts = vec![0u64; n_columns];
    by_row.indices.iter().for_each(|&column| counts[column as usize] += 1);
    if let Some(column) = (0..n_columns).find(|&i| counts[i] != by_column.indptr[i + 1] - by_column.indptr[i])
    {
        let (expected, got) = (counts[column] as usize, by_column.row(column).0.len());
        return Err(Error::Shape { op: OP, what: "a column of by_column", expected, got });
    }
    if options.k == 0 {
        return Err(Error::Parameter { op: OP, what: "k", expected: "at least 1", got: 0.0 });
    }
    let (k1, b, alpha, beta) = match options.measure {
        Measure::Bm25 { k1, b } => (k1, b, 0.0, 0.0),
        Measure::Rp3beta { alpha, beta } => (0.0, 0.0, alpha, beta),
        _ => (0.0, 0.0, 0.0, 0.0),
    };
    for (what, got, most) in [
        ("shrink", options.shrink, f64::MAX),
        ("row_damping", options.row_damping, f64::MAX),
        ("column_damping", options.column_damping, f64::MAX),
        ("k1", k1, f64::MAX),
        ("alpha", alpha, f64::MAX),
        ("beta", beta, f64::MAX),
    ] {
        if !(got >= 0.0 && got <= most) {
            return Err(Error::Parameter { op: OP, what, expected: "finite and at least 0", got });
        }
    }
    if !(0.0..=1.0).contains(&b) {
        return Err(Error::Parameter { op: OP, what: "b", expected: "from 0 to 1", got: b });
    }
    Ok(())
}

/// Calls whose kernels are compiled for CUDA where there is none.
#[cfg(feature = "cuda-sources")]
pub(crate) fn instances() -> Vec<crate::cuda_sources::Instance> {
    let of = |(k, measure): (usize, Measure)| {
        crate::cuda_sources::Instance::new(format!("similarity, {measure:?}, k {k}"), move |device| {
            let (indptr, indices, values) = ([0, 2, 4], [0, 1, 0, 1], [1.0; 4]);
            let rows = SparseRows { indptr: &indptr, indices: &indices, values: &values };
            let options = SimilarityOptions {
                measure,
                k,
                shrink: 1.0,
                row_damping: 0.5,
                column_damping: 0.5,
                direction: Direction::From,
            };
            similarity_on(device, rows, rows, &options).map(drop)
        })
    };
    [(10, Measure::Cosine), (200, Measure::Tfidf)].map(of).into()
}

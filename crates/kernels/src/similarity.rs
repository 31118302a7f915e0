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
//! of the matrix unless all are 1, and 8 bytes a column and thread; never columns x columns.
//!
//! # Determinism
//! A pair's sum runs over the rows in ascending order on one thread: the same bits for every number of threads.
//!
//! # Source
//! Sarwar et al. 2001 (cosine); Bell, Koren 2007 (shrinkage); Robertson, Walker 1994 (BM25); Paudel et al. 2017
//! (RP3beta); the form of TF-IDF and BM25 on interactions after implicit.

use rayon::prelude::*;

use crate::{Error, Result, SparseRows};

const OP: &str = "similarity";

/// Columns whose lists are held apart before they are joined.
const BLOCK: usize = 4096;

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
    /// Returns the lists as a borrowed sparse matrix whose rows do not ascend.
    pub fn rows(&self) -> SparseRows<'_> {
        SparseRows { indptr: &self.indptr, indices: &self.indices, values: &self.values }
    }
}

/// Returns the `k` most similar columns of every column.
///
/// # Shapes
/// - `by_row`: `[n_rows, n_columns]`; `by_column`: its transpose, `[n_columns, n_rows]`
///
/// # Errors
/// [`Error::Shape`], [`Error::Parameter`], those of [`SparseRows::check`] for operands that do not fit.
///
/// # Determinism
/// The same bits for every number of threads.
pub fn similarity(
    by_column: SparseRows,
    by_row: SparseRows,
    options: &SimilarityOptions,
) -> Result<Neighbours> {
    check(by_column, by_row, options)?;
    let weights = Weights::new(by_column, by_row, options);
    let n_columns = by_column.n_rows();
    let mut out = Neighbours { indptr: vec![0], ..Neighbours::default() };
    for first in (0..n_columns).step_by(BLOCK) {
        let lists: Vec<Vec<(f32, u32)>> = (first..n_columns.min(first + BLOCK))
            .into_par_iter()
            .with_max_len(8)
            .map_init(
                || Scratch::new(n_columns),
                |scratch, column| list(by_column, by_row, &weights, options, scratch, column),
            )
            .collect();
        for list in lists {
            out.indices.extend(list.iter().map(|&(_, column)| column));
            out.values.extend(list.iter().map(|&(value, _)| value));
            out.indptr.push(out.indices.len() as u64);
        }
    }
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

/// Everything that does not depend on the pair.
struct Weights {
    /// What row r's product of two values is multiplied by.
    rows: Vec<f32>,
    /// x (without idf, which is in `rows`) in the order of `by_row`; nothing when every x is 1.
    values: Option<Vec<f32>>,
    /// s(i, j) = dot / (from_i to_j + shrink): the columns' own factors, by which side of the pair they are on.
    from: Vec<f32>,
    to: Vec<f32>,
    transform: Transform,
}

/// What turns v into x.
struct Transform {
    measure: Measure,
    /// For BM25, `k1 (1 - b + b l_i / mean l)` of each column.
    saturation: Vec<f32>,
}

impl Transform {
    #[inline]
    fn x(&self, column: usize, v: f32) -> f32 {
        match self.measure {
            Measure::Cosine => v,
            Measure::Tfidf => v.abs().sqrt().copysign(v),
            Measure::Bm25 { k1, .. } if v > 0.0 => v * (k1 as f32 + 1.0) / (v + self.saturation[column]),
            Measure::Rp3beta { alpha, .. } if v > 0.0 => v.powf(alpha as f32),
            Measure::Bm25 { .. } | Measure::Rp3beta { .. } => 0.0,
        }
    }
}

fn positive_sum(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v.max(0.0))).sum()
}

/// `base^power`, and 1 for an empty row or column, which no pair has.
fn power(base: f64, power: f64) -> f64 {
    if base > 0.0 { base.powf(power) } else { 1.0 }
}

impl Weights {
    fn new(by_column: SparseRows, by_row: SparseRows, options: &SimilarityOptions) -> Self {
        let n_columns = by_column.n_rows();
        let degree = |rows: SparseRows, at: usize| rows.row(at).0.len() as f64;
        let idf2 = |r: usize| match options.measure {
            Measure::Tfidf | Measure::Bm25 { .. } => {
                (1.0 + n_columns as f64 / degree(by_row, r).max(1.0)).ln().powi(2)
            }
            Measure::Cosine | Measure::Rp3beta { .. } => 1.0,
        };
        let row_weight = |r: usize| match options.measure {
            Measure::Rp3beta { alpha, .. } => power(positive_sum(by_row.row(r).1), -alpha) as f32,
            _ => (idf2(r) * power(degree(by_row, r), -options.row_damping)) as f32,
        };
        let rows: Vec<f32> = (0..by_row.n_rows()).into_par_iter().map(row_weight).collect();
        let lengths: Vec<f64> =
            (0..n_columns).into_par_iter().map(|i| positive_sum(by_column.row(i).1)).collect();
        let saturation = match options.measure {
            Measure::Bm25 { k1, b } => {
                let mean = (lengths.iter().sum::<f64>() / n_columns as f64).max(f64::MIN_POSITIVE);
                lengths.iter().map(|length| (k1 * (1.0 - b + b * length / mean)) as f32).collect()
            }
            _ => Vec::new(),
        };
        let transform = Transform { measure: options.measure, saturation };
        let plain =
            !matches!(options.measure, Measure::Bm25 { .. }) && by_row.values.par_iter().all(|&v| v == 1.0);
        let values = (!plain).then(|| {
            let x = |(&column, &v): (&u32, &f32)| transform.x(column as usize, v);
            by_row.indices.par_iter().zip(by_row.values).map(x).collect()
        });
        let square = |i: usize| {
            let (column_rows, values) = by_column.row(i);
            let square = |(&r, &v): (&u32, &f32)| idf2(r as usize) * f64::from(transform.x(i, v)).powi(2);
            column_rows.iter().zip(values).map(square).sum::<f64>()
        };
        let columns = (0..n_columns).into_par_iter();
        let (from, to) = match options.measure {
            Measure::Rp3beta { alpha, beta } => (
                lengths.iter().map(|&length| power(length, alpha) as f32).collect(),
                columns.map(|i| power(degree(by_column, i), beta) as f32).collect(),
            ),
            _ => {
                let factors: Vec<f32> =
                    columns.map(|i| power(square(i), options.column_damping) as f32).collect();
                (factors.clone(), factors)
            }
        };
        Self { rows, values, from, to, transform }
    }
}

/// What a thread keeps from column to column.
struct Scratch {
    /// `Σ w x x` of the column at hand with every other; all zero between columns.
    dots: Vec<f32>,
    /// Columns that have been reached, some of them twice.
    reached: Vec<u32>,
    best: Vec<(f32, u32)>,
}

impl Scratch {
    fn new(n_columns: usize) -> Self {
        Self { dots: vec![0.0; n_columns], reached: Vec::new(), best: Vec::new() }
    }
}

fn list(
    by_column: SparseRows,
    by_row: SparseRows,
    weights: &Weights,
    options: &SimilarityOptions,
    scratch: &mut Scratch,
    column: usize,
) -> Vec<(f32, u32)> {
    let (rows, values) = by_column.row(column);
    let additions: u64 =
        rows.iter().map(|&r| by_row.indptr[r as usize + 1] - by_row.indptr[r as usize]).sum();
    // Beyond this it is cheaper to look at every column once than to remember which were reached.
    let every = additions as usize > scratch.dots.len() / 8;
    let Scratch { dots, reached, best } = scratch;
    for (&row, &v) in rows.iter().zip(values) {
        let range = by_row.indptr[row as usize] as usize..by_row.indptr[row as usize + 1] as usize;
        let others = &by_row.indices[range.clone()];
        let scale = weights.rows[row as usize] * weights.transform.x(column, v);
        if !every {
            reached.extend(others.iter().filter(|&&other| dots[other as usize] == 0.0));
        }
        match &weights.values {
            None => others.iter().for_each(|&other| dots[other as usize] += scale),
            Some(values) => {
                let terms = others.iter().zip(&values[range]);
                terms.for_each(|(&other, &x)| dots[other as usize] += scale * x);
            }
        }
    }
    dots[column] = 0.0;

    let shrink = if matches!(options.measure, Measure::Rp3beta { .. }) { 0.0 } else { options.shrink as f32 };
    let (own, others) = match options.direction {
        Direction::From => (weights.from[column], &weights.to),
        Direction::To => (weights.to[column], &weights.from),
    };
    let similarity = |other: usize, dot: f32| dot / (own * others[other] + shrink);
    let mut best = Best { k: options.k.min(dots.len()), floor: 0.0, found: std::mem::take(best) };
    if every {
        for (other, dot) in dots.iter_mut().enumerate().filter(|(_, dot)| **dot != 0.0) {
            best.offer(similarity(other, *dot), other as u32);
            *dot = 0.0;
        }
    } else {
        for other in reached.drain(..) {
            let dot = std::mem::take(&mut dots[other as usize]);
            if dot != 0.0 {
                best.offer(similarity(other as usize, dot), other);
            }
        }
    }
    let list = best.sorted().to_vec();
    scratch.best = best.found;
    scratch.best.clear();
    list
}

/// The `k` best of what is offered, by value and then by lower index, in any order of offers.
struct Best {
    k: usize,
    /// What is not above this cannot be among the best.
    floor: f32,
    found: Vec<(f32, u32)>,
}

impl Best {
    #[inline]
    fn offer(&mut self, value: f32, column: u32) {
        // Not `>`: an equal value of a lower index may belong to the best, and NaN must come out to be reported.
        if value < self.floor || value <= 0.0 {
            return;
        }
        self.found.push((value, column));
        if self.found.len() >= 2 * self.k + 64 {
            self.found.select_nth_unstable_by(self.k - 1, Self::order);
            self.found.truncate(self.k);
            self.floor = self.found[self.k - 1].0;
        }
    }

    fn order(a: &(f32, u32), b: &(f32, u32)) -> std::cmp::Ordering {
        b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
    }

    fn sorted(&mut self) -> &[(f32, u32)] {
        if self.found.len() > self.k {
            self.found.select_nth_unstable_by(self.k - 1, Self::order);
            self.found.truncate(self.k);
        }
        self.found.sort_unstable_by(Self::order);
        &self.found
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Numbers, on_threads};

    struct Matrix {
        by_row: (Vec<u64>, Vec<u32>, Vec<f32>),
        by_column: (Vec<u64>, Vec<u32>, Vec<f32>),
    }

    fn compress(n: usize, mut entries: Vec<(u32, u32, f32)>) -> (Vec<u64>, Vec<u32>, Vec<f32>) {
        entries.sort_by_key(|&(row, column, _)| (row, column));
        let indptr = (0..=n).map(|r| entries.partition_point(|e| (e.0 as usize) < r) as u64).collect();
        (indptr, entries.iter().map(|e| e.1).collect(), entries.iter().map(|e| e.2).collect())
    }

    impl Matrix {
        fn new(n_rows: usize, n_columns: usize, value: impl Fn(&mut Numbers) -> f32) -> Self {
            let mut numbers = Numbers::new((n_rows * 7 + n_columns) as u64);
            let mut entries = Vec::new();
            for row in 0..n_rows as u32 {
                for column in 0..n_columns as u32 {
                    // Column 1 and row 2 stay empty; low columns are popular.
                    if column != 1 && row != 2 && numbers.below(3 + column as usize / 4) == 0 {
                        entries.push((row, column, value(&mut numbers)));
                    }
                }
            }
            let turned = entries.iter().map(|&(row, column, v)| (column, row, v)).collect();
            Self { by_row: compress(n_rows, entries), by_column: compress(n_columns, turned) }
        }

        fn by_row(&self) -> SparseRows<'_> {
            SparseRows { indptr: &self.by_row.0, indices: &self.by_row.1, values: &self.by_row.2 }
        }

        fn by_column(&self) -> SparseRows<'_> {
            let (indptr, indices, values) = &self.by_column;
            SparseRows { indptr, indices, values }
        }
    }

    fn options(measure: Measure) -> SimilarityOptions {
        let direction = Direction::From;
        SimilarityOptions { measure, k: 5, shrink: 0.0, row_damping: 0.0, column_damping: 0.5, direction }
    }

    const MEASURES: [Measure; 4] = [
        Measure::Cosine,
        Measure::Tfidf,
        Measure::Bm25 { k1: 1.2, b: 0.75 },
        Measure::Rp3beta { alpha: 0.8, beta: 0.4 },
    ];

    fn variants() -> Vec<SimilarityOptions> {
        let damped = |o| SimilarityOptions { row_damping: 0.5, column_damping: 0.3, ..o };
        let plain = MEASURES.map(options);
        let shrunk = plain.map(|o| SimilarityOptions { shrink: 2.5, ..damped(o) });
        let turned = plain.map(|o| SimilarityOptions { direction: Direction::To, ..damped(o) });
        plain.into_iter().chain(plain.map(damped)).chain(shrunk).chain(turned).collect()
    }

    #[test]
    fn agrees_with_the_reference() {
        let ones = Matrix::new(40, 30, |_| 1.0);
        let counts = Matrix::new(33, 64, |n| n.below(5) as f32 + 1.0);
        let signed = Matrix::new(50, 17, |n| n.below(7) as f32 - 2.5);
        let sparse = Matrix::new(3, 500, |_| 2.0);
        for matrix in [ones, counts, signed, sparse] {
            for options in variants() {
                for k in [1, 5, 1000] {
                    let options = SimilarityOptions { k, ..options };
                    let (by_column, by_row) = (matrix.by_column(), matrix.by_row());
                    let n = by_column.n_rows();
                    let reference = similarity_reference(by_column, by_row, &options).unwrap();
                    let got = similarity(by_column, by_row, &options).unwrap();
                    for column in 0..n {
                        let s = |other: usize| match options.direction {
                            Direction::From => reference[column * n + other],
                            Direction::To => reference[other * n + column],
                        };
                        let mut expected: Vec<f64> = (0..n).map(s).filter(|&s| s > 1e-6).collect();
                        expected.sort_by(|a, b| b.total_cmp(a));
                        expected.truncate(k);
                        let (others, values) = got.rows().row(column);
                        let largest = expected.first().copied().unwrap_or(0.0);
                        let close = |a: f64, b: f64| (a - b).abs() <= 2e-5 * largest.max(0.01);
                        for (&other, &value) in others.iter().zip(values) {
                            assert!(close(value.into(), s(other as usize)), "{options:?} {column} {other}");
                        }
                        let clear = expected.iter().filter(|&&s| s > 1e-5).count();
                        assert!(others.len() >= clear, "{options:?} {column}");
                        let best = values.iter().zip(&expected).all(|(&v, &e)| close(v.into(), e));
                        assert!(best, "{options:?} {column}: {values:?} for {expected:?}");
                        let order = |at: &usize| (-values[*at], others[*at]);
                        let places: Vec<usize> = (0..others.len()).collect();
                        assert!(places.is_sorted_by(|a, b| order(a) < order(b)));
                    }
                }
            }
        }
    }

    #[test]
    fn equal_similarities_are_ordered_by_lower_index() {
        // One row has every column: all cosines are 1.
        let n = 200u32;
        let columns: Vec<u32> = (0..n).collect();
        let by_row = SparseRows { indptr: &[0, 200], indices: &columns, values: &[1.0; 200] };
        let indptr: Vec<u64> = (0..=200).collect();
        let by_column = SparseRows { indptr: &indptr, indices: &[0; 200], values: &[1.0; 200] };
        let got = similarity(by_column, by_row, &options(Measure::Cosine)).unwrap();
        assert_eq!(got.rows().row(0), (&[1, 2, 3, 4, 5][..], &[1.0; 5][..]));
        assert_eq!(got.rows().row(3).0, [0, 1, 2, 4, 5]);
    }

    #[test]
    fn the_same_bits_for_every_number_of_threads() {
        let matrix = Matrix::new(90, 70, |n| n.below(5) as f32 + 1.0);
        for options in variants() {
            let run = |threads| {
                on_threads(threads, || similarity(matrix.by_column(), matrix.by_row(), &options)).unwrap()
            };
            let one = run(1);
            assert!(one == run(2) && one == run(5));
        }
    }

    #[test]
    fn an_empty_matrix_and_operands_that_do_not_fit() {
        let empty = SparseRows { indptr: &[0], indices: &[], values: &[] };
        let got = similarity(empty, empty, &options(Measure::Bm25 { k1: 1.0, b: 1.0 })).unwrap();
        assert_eq!(got, Neighbours { indptr: vec![0], ..Neighbours::default() });
        let matrix = Matrix::new(9, 8, |_| 1.0);
        let good = options(Measure::Rp3beta { alpha: 1.0, beta: 0.5 });
        for bad in [
            SimilarityOptions { k: 0, ..good },
            SimilarityOptions { shrink: f64::INFINITY, ..good },
            SimilarityOptions { row_damping: f64::NAN, ..good },
            SimilarityOptions { measure: Measure::Bm25 { k1: 1.0, b: 1.5 }, ..good },
            SimilarityOptions { measure: Measure::Rp3beta { alpha: -1.0, beta: 0.0 }, ..good },
        ] {
            let result = similarity(matrix.by_column(), matrix.by_row(), &bad);
            assert!(matches!(result, Err(Error::Parameter { .. })), "{bad:?}");
        }
        assert!(similarity(matrix.by_row(), matrix.by_row(), &good).is_err());
    }

    #[test]
    fn more_neighbours_than_columns_are_all_columns() {
        let matrix = Matrix::new(9, 200, |_| 1.0);
        let ask = |k| {
            let options = SimilarityOptions { k, ..options(Measure::Bm25 { k1: 1.0, b: 1.0 }) };
            similarity(matrix.by_column(), matrix.by_row(), &options).unwrap()
        };
        assert_eq!(ask(usize::MAX), ask(200));
    }
}

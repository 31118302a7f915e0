//! The parts of a similarity that do not depend on the pair, in f64 and rounded once: the same on every device.

use rayon::prelude::*;

use super::{Direction, Measure, SimilarityOptions};
use crate::SparseRows;

/// Everything that does not depend on the pair.
pub(super) struct Weights {
    /// What row r's product of two values is multiplied by.
    pub(super) rows: Vec<f32>,
    /// x (without idf, which is in `rows`) in the order of `by_row`; nothing when every x is 1.
    pub(super) values: Option<Vec<f32>>,
    /// s(i, j) = dot / (from_i to_j + shrink): the columns' own factors, by which side of the pair they are on.
    pub(super) from: Vec<f32>,
    pub(super) to: Vec<f32>,
    pub(super) transform: Transform,
}

/// What turns v into x.
pub(super) struct Transform {
    measure: Measure,
    /// For BM25, `k1 (1 - b + b l_i / mean l)` of each column.
    saturation: Vec<f32>,
}

impl Transform {
    #[inline]
    pub(super) fn x(&self, column: usize, v: f32) -> f32 {
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
    pub(super) fn new(by_column: SparseRows, by_row: SparseRows, options: &SimilarityOptions) -> Self {
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

    /// Returns what a list's own column and the others have in the denominator, and what is added to their product.
    pub(super) fn sides(&self, options: &SimilarityOptions) -> (&[f32], &[f32], f32) {
        let shrink =
            if matches!(options.measure, Measure::Rp3beta { .. }) { 0.0 } else { options.shrink as f32 };
        match options.direction {
            Direction::From => (&self.from, &self.to, shrink),
            Direction::To => (&self.to, &self.from, shrink),
        }
    }
}

//! Unit tests of similarity on the CPU.

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

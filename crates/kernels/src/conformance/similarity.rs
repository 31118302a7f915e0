//! Cases of similarity.

use super::{Case, Comparison, Failure, Numbers, Outcome, on_threads, operands::Sparse, refused, same_bits};
use crate::{
    Device, Direction, Error, Measure, Neighbours, SimilarityOptions, SparseRows,
    similarity::similarity_in_blocks, similarity_on, similarity_reference,
};

pub(super) const CASES: &[Case] = &[
    Case { name: "similarity/sizes", run: sizes },
    Case { name: "similarity/more than one block of columns", run: blocks },
    Case { name: "similarity/small blocks, long lists", run: small_blocks },
    Case { name: "similarity/ties", run: ties },
    Case { name: "similarity/threads", run: threads },
    Case { name: "similarity/refusals", run: refusals },
];

/// How far an f32 similarity may be from the f64 reference, as a share of the largest that the column could have if all
/// values had one sign.
const TOLERANCE: f64 = 2e-6;

const MEASURES: [Measure; 4] = [
    Measure::Cosine,
    Measure::Tfidf,
    Measure::Bm25 { k1: 1.2, b: 0.75 },
    Measure::Rp3beta { alpha: 0.7, beta: 0.4 },
];

fn other(what: String) -> impl FnOnce(Error) -> Failure {
    move |got| Failure::Refused { what, got }
}

fn options(measure: Measure) -> SimilarityOptions {
    let direction = Direction::From;
    SimilarityOptions { measure, k: 5, shrink: 0.0, row_damping: 0.0, column_damping: 0.5, direction }
}

/// Every measure plain, shrunk and damped, and from the other side of the pair.
fn variants() -> Vec<SimilarityOptions> {
    let of = |measure| {
        let plain = options(measure);
        let shrunk = SimilarityOptions { shrink: 3.0, row_damping: 0.5, column_damping: 0.3, ..plain };
        [plain, shrunk, SimilarityOptions { direction: Direction::To, column_damping: 1.0, ..shrunk }]
    };
    MEASURES.into_iter().flat_map(of).collect()
}

/// What a list says that it must not.
fn wrong(what: String, at: usize, expected: f64, got: f64) -> Failure {
    Failure::Differs { what, at, expected, got, tolerance: 0.0 }
}

/// Checks every list: its values, their order, and that no better column is missing.
///
/// `magnitude` holds the similarities if all values had one sign: what rounding is a share of where signs cancel.
fn check_lists(
    comparison: &mut Comparison,
    what: &str,
    got: &Neighbours,
    (exact, magnitude): (&[f64], &[f64]),
    options: &SimilarityOptions,
) -> Result<(), Failure> {
    let n = exact.len().isqrt();
    if got.indptr.len() != n + 1 {
        return Err(wrong(format!("{what}, lists"), 0, n as f64, got.indptr.len() as f64 - 1.0));
    }
    for column in 0..n {
        let pair = |matrix: &[f64], other: usize| match options.direction {
            Direction::From => matrix[column * n + other],
            Direction::To => matrix[other * n + column],
        };
        let what = || format!("{what}, column {column}");
        let scale = (0..n).map(|other| pair(magnitude, other)).fold(f64::MIN_POSITIVE, f64::max);
        let (others, values) = got.rows().row(column);
        let expected: Vec<f64> = others.iter().map(|&other| pair(exact, other as usize)).collect();
        comparison.close_above(what, values, &expected, scale, TOLERANCE)?;

        let mut listed = vec![false; n];
        listed[column] = true;
        for (at, (&other, &value)) in others.iter().zip(values).enumerate() {
            if at >= options.k || value <= 0.0 || std::mem::replace(&mut listed[other as usize], true) {
                let what = format!("{}, repeated, itself, not above 0 or past k", what());
                return Err(wrong(what, at, 0.0, other.into()));
            }
            let in_order = at == 0 || (-values[at - 1], others[at - 1]) < (-value, other);
            if !in_order {
                return Err(wrong(format!("{}, order", what()), at, values[at - 1].into(), value.into()));
            }
        }
        let least = if others.len() < options.k { 0.0 } else { values.last().copied().unwrap_or(0.0).into() };
        let missing = (0..n).find(|&other| !listed[other] && pair(exact, other) > least + TOLERANCE * scale);
        if let Some(other) = missing {
            return Err(wrong(format!("{}, left out", what()), other, pair(exact, other), least));
        }
    }
    Ok(())
}

fn sizes(device: Device) -> Result<Outcome, Failure> {
    let mut comparison = Comparison::default();
    let one = |_: &mut Numbers| 1.0f32;
    let count = |numbers: &mut Numbers| numbers.below(5) as f32 + 1.0;
    let signed = |numbers: &mut Numbers| numbers.below(9) as f32 / 2.0 - 1.5;
    for (n_rows, n_columns, one_in) in [
        (0, 0, 1),
        (0, 5, 1),
        (4, 0, 1),
        (1, 1, 1),
        (1, 31, 1),
        (31, 1, 2),
        (31, 32, 4),
        (32, 33, 4),
        (33, 31, 4),
        (7, 151, 20),
        (180, 65, 9),
    ] {
        for (values, value) in [
            ("ones", &one as &dyn Fn(&mut Numbers) -> f32),
            ("counts", &count as &dyn Fn(&mut Numbers) -> f32),
            ("signed values", &signed as &dyn Fn(&mut Numbers) -> f32),
        ] {
            let matrix = Sparse::new(n_rows, n_columns, one_in, value);
            let columns = matrix.transposed();
            let positive = |matrix: &Sparse| Sparse {
                values: matrix.values.iter().map(|v| v.abs()).collect(),
                ..matrix.clone()
            };
            let (unsigned, unsigned_columns) = (positive(&matrix), positive(&columns));
            for options in variants() {
                let what = format!("{n_rows} x {n_columns} {values}, {options:?}");
                let reference = |by_column: &Sparse, by_row: &Sparse| {
                    similarity_reference(by_column.rows(), by_row.rows(), &options)
                        .map_err(other(what.clone()))
                };
                let exact = reference(&columns, &matrix)?;
                let magnitude = match options.measure {
                    Measure::Cosine | Measure::Tfidf => reference(&unsigned_columns, &unsigned)?,
                    // Values below 0 count as 0: nothing cancels.
                    _ => exact.clone(),
                };
                for k in [1, 5, 1 << 20] {
                    let (what, options) = (format!("{what}, k {k}"), SimilarityOptions { k, ..options });
                    let got = similarity_on(device, columns.rows(), matrix.rows(), &options)
                        .map_err(other(what.clone()))?;
                    check_lists(&mut comparison, &what, &got, (&exact, &magnitude), &options)?;
                }
            }
        }
    }
    comparison.outcome()
}

/// Compares two sets of lists that must be the same in every bit.
fn same(what: impl Fn() -> String, got: &Neighbours, expected: &Neighbours) -> Result<(), Failure> {
    if got.indptr != expected.indptr || got.indices != expected.indices {
        let at = got.indices.iter().zip(&expected.indices).take_while(|(a, b)| a == b).count();
        return Err(Failure::Bits { what: format!("{}, columns", what()), at });
    }
    same_bits(what, &got.values, &expected.values)
}

/// A matrix whose columns lie far apart has the lists of the narrow matrix that they make up.
fn blocks(device: Device) -> Result<Outcome, Failure> {
    const APART: u32 = 137;
    let narrow = Sparse::new(60, 40, 3, |numbers| numbers.below(5) as f32 + 1.0);
    let wide = Sparse {
        indices: narrow.indices.iter().map(|column| column * APART).collect(),
        n_columns: 39 * APART as usize + 1,
        ..narrow.clone()
    };
    // The other measures depend on the number of columns.
    for measure in [Measure::Cosine, Measure::Rp3beta { alpha: 0.7, beta: 0.4 }] {
        let what = || format!("{measure:?}");
        let run = |matrix: &Sparse| {
            similarity_on(device, matrix.transposed().rows(), matrix.rows(), &options(measure))
                .map_err(other(what()))
        };
        let (got, mut expected) = (run(&wide)?, run(&narrow)?);
        expected.indices.iter_mut().for_each(|column| *column *= APART);
        let ends = (0..=wide.n_columns).map(|column| expected.indptr[column.div_ceil(APART as usize)]);
        expected.indptr = ends.collect();
        same(what, &got, &expected)?;
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

/// Small blocks and parts, and lists too long for a device's own selection, have what one block has.
fn small_blocks(device: Device) -> Result<Outcome, Failure> {
    let matrix = Sparse::new(40, 1100, 9, |numbers| numbers.below(5) as f32 + 1.0);
    let columns = matrix.transposed();
    let run = |k, most_bytes| {
        let options = SimilarityOptions { k, ..options(Measure::Tfidf) };
        similarity_in_blocks(device, columns.rows(), matrix.rows(), &options, most_bytes)
            .map_err(other(format!("k {k}, blocks of {most_bytes} bytes")))
    };
    let long = run(1050, u64::MAX)?;
    same(|| "blocks of 7 columns, k 1050".into(), &run(1050, 7 * 4 * 1100)?, &long)?;
    let short = run(9, u64::MAX)?;
    for most_bytes in [4 * 1100, 70 * 4 * 1100] {
        same(|| format!("blocks of {most_bytes} bytes"), &run(9, most_bytes)?, &short)?;
    }
    for column in 0..1100 {
        let ((some, s), (all, a)) = (short.rows().row(column), long.rows().row(column));
        let n = all.len().min(9);
        if some != &all[..n] {
            let what = format!("column {column}, the best of the long list");
            return Err(Failure::Bits { what, at: some.iter().zip(all).take_while(|(a, b)| a == b).count() });
        }
        same_bits(|| format!("column {column}, the best of the long list"), s, &a[..n])?;
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

/// Of many columns that are equally similar, those of lowest index make the list, also when they are met last.
fn ties(device: Device) -> Result<Outcome, Failure> {
    // Column 1000 shares row 0 with the 200 columns behind it, and row 1 with 200 columns far before it.
    let indices: Vec<u32> = (1000..1201).chain(500..700).chain([1000]).collect();
    let values = vec![1.0; indices.len()];
    let matrix = Sparse { indptr: vec![0, 201, 402], indices, values, n_columns: 4000 };
    let got = similarity_on(device, matrix.transposed().rows(), matrix.rows(), &options(Measure::Cosine));
    let got = got.map_err(other("ties".to_owned()))?;
    for (column, expected) in [(1000, 500..505), (600, 500..505), (1002, 1001..1006)] {
        // Columns of one row alone are alike; with column 1000, which has two, they are less so.
        let expected: Vec<u32> = expected.filter(|&other| other != column).collect();
        let listed = &got.rows().row(column as usize).0[..4];
        if let Some(at) = (0..4).find(|&at| listed[at] != expected[at]) {
            let what = format!("ties, column {column}");
            return Err(wrong(what, at, expected[at].into(), listed[at].into()));
        }
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn threads(device: Device) -> Result<Outcome, Failure> {
    let matrix = Sparse::new(150, 333, 12, |numbers| numbers.below(5) as f32 + 1.0);
    let columns = matrix.transposed();
    for options in variants() {
        let what = || format!("{options:?}");
        let run = |threads| {
            on_threads(threads, || similarity_on(device, columns.rows(), matrix.rows(), &options))
                .map_err(other(what()))
        };
        same(what, &run(3)?, &run(1)?)?;
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn refusals(device: Device) -> Result<Outcome, Failure> {
    let matrix = Sparse::new(20, 12, 2, |_| 1.0);
    let columns = matrix.transposed();
    let cosine = options(Measure::Cosine);
    let run = |by_column: SparseRows<'_>, by_row| similarity_on(device, by_column, by_row, &cosine);

    refused("rows in place of columns", run(matrix.rows(), matrix.rows()), |error| {
        matches!(error, Error::IndexOutOfRange { .. } | Error::Shape { .. })
    })?;
    let fewer = Sparse::new(20, 12, 3, |_| 1.0).transposed();
    refused("the columns of another matrix", run(fewer.rows(), matrix.rows()), |error| {
        matches!(error, Error::Shape { what: "by_column", .. })
    })?;
    let mut bad = matrix.clone();
    bad.indices.swap(0, 1);
    refused("columns that descend", run(columns.rows(), bad.rows()), |error| {
        matches!(error, Error::Parameter { what: "indices", got: 0.0, .. })
    })?;
    let mut bad = columns.clone();
    let position = bad.indptr[1] as usize - 1;
    bad.indices[position] = 20;
    refused("a row past the rows", run(bad.rows(), matrix.rows()), |error| {
        matches!(error, Error::IndexOutOfRange { rows: 20, index: 20, .. })
    })?;
    let mut bad = matrix.clone();
    let position = bad.indptr[4] as usize;
    bad.values[position] = f32::INFINITY;
    refused("an infinite value", run(columns.rows(), bad.rows()), |error| {
        matches!(error, Error::NotFinite { what: "values", row: 4, .. })
    })?;
    // Squares of such values are beyond f32: columns 2 and 3 have no cosine, columns 0 and 1 have.
    let huge = Sparse {
        indptr: vec![0, 2, 4],
        indices: vec![0, 1, 2, 3],
        values: vec![1.0, 2.0, 1e25, 1e25],
        n_columns: 4,
    };
    refused("values whose products overflow", run(huge.transposed().rows(), huge.rows()), |error| {
        matches!(error, Error::NotFinite { what: "a similarity", row: 2, .. })
    })?;
    Ok(Outcome::Agrees { worst: 0.0 })
}

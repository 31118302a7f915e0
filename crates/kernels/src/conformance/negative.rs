//! Cases of negative.

use super::{Case, Failure, Outcome, on_threads, operands::Sparse, refused};
use crate::{
    Device, Error, SparseRows,
    negative::{AliasTable, Distribution, negative_on, negative_reference, popularity},
    philox::Draws,
};

pub(super) const CASES: &[Case] = &[
    Case { name: "negative/sizes, threads", run: sizes },
    Case { name: "negative/the first rows alone", run: first_rows },
    Case { name: "negative/shares", run: shares },
    Case { name: "negative/more than 65,535 work groups", run: many_groups },
    Case { name: "negative/refusals", run: refusals },
];

/// How many standard deviations a column's count may be from its share; draws are fixed, so this never varies.
const DEVIATIONS: f64 = 5.0;

fn other(what: String) -> impl FnOnce(Error) -> Failure {
    move |got| Failure::Refused { what, got }
}

/// The negatives of `rows`, drawn on `device`.
fn negative(
    device: Device,
    rows: SparseRows<'_>,
    distribution: &Distribution,
    per_row: usize,
    draws: Draws,
) -> crate::Result<Vec<u32>> {
    negative_on(device, rows, distribution, per_row, draws)?.to_vec()
}

fn same(what: impl Fn() -> String, got: &[u32], expected: &[u32]) -> Result<(), Failure> {
    match got == expected {
        true => Ok(()),
        false => {
            let at = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
            Err(Failure::Bits { what: what(), at })
        }
    }
}

/// Uniform, by popularity, and by weights a third of which are zero.
fn distributions(matrix: &Sparse) -> crate::Result<Vec<Distribution>> {
    let n = matrix.n_columns;
    let weights = |weight: &dyn Fn(usize) -> f32| (0..n).map(weight).collect::<Vec<f32>>();
    let popularity = popularity(matrix.rows(), n, 0.75);
    let mut all = vec![
        Distribution::Uniform(n as u32),
        Distribution::Weighted(AliasTable::new(&weights(&|column| [0.0, 1.0, 1e-3][column % 3] + 1e-6))?),
        Distribution::Weighted(AliasTable::new(&weights(&|column| [3.0, 1.0, 0.0][column % 3]))?),
    ];
    if popularity.iter().any(|&weight| weight > 0.0) {
        // Column 1, which every row leaves, keeps a weight.
        let weights = popularity.iter().map(|weight| weight + 0.01).collect::<Vec<f32>>();
        all.push(Distribution::Weighted(AliasTable::new(&weights)?));
    }
    Ok(all)
}

fn sizes(device: Device) -> Result<Outcome, Failure> {
    for (n_rows, n_columns, per_row) in [
        (0, 5, 3),
        (1, 2, 1),
        (1, 2, 0),
        (31, 32, 33),
        (32, 33, 31),
        (33, 31, 32),
        (333, 47, 1),
        (97, 1_001, 7),
    ] {
        let matrix = Sparse::new(n_rows, n_columns, 3, |_| 1.0);
        let what = || format!("{n_rows} x {n_columns}, {per_row} a row");
        for (at, distribution) in distributions(&matrix).map_err(other(what()))?.iter().enumerate() {
            for draws in [Draws::new(0, 0), Draws::new(u64::MAX, (1 << 40) - 1)] {
                let what = || format!("{}, distribution {at}, {draws:?}", what());
                let expected = negative_reference(matrix.rows(), distribution, per_row, draws);
                let expected = expected.map_err(other(what()))?;
                for threads in [1, 3] {
                    let got =
                        on_threads(threads, || negative(device, matrix.rows(), distribution, per_row, draws))
                            .map_err(other(what()))?;
                    same(|| format!("{}, {threads} threads", what()), &got, &expected)?;
                }
            }
        }
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

/// A row's draws do not depend on the rows behind it.
fn first_rows(device: Device) -> Result<Outcome, Failure> {
    let what = || "the first 17 of 60 rows".to_owned();
    let matrix = Sparse::new(60, 90, 3, |_| 1.0);
    let first = matrix.rows().rows(0, 17);
    let end = first.indptr[17] as usize;
    let first = SparseRows { indices: &first.indices[..end], values: &first.values[..end], ..first };
    for distribution in distributions(&matrix).map_err(other(what()))? {
        let run = |rows| negative(device, rows, &distribution, 9, Draws::new(4, 5)).map_err(other(what()));
        same(what, &run(first)?, &run(matrix.rows())?[..17 * 9])?;
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

/// Each column that a row leaves is drawn in proportion to its weight, and no other is.
fn shares(device: Device) -> Result<Outcome, Failure> {
    let weights = [3.0, 0.0, 1.0, 0.25, 8.0, 1.0, 0.0, 0.5, 2.0];
    let rows = SparseRows { indptr: &[0, 3], indices: &[0, 4, 6], values: &[1.0; 3] };
    let left = |column: usize| !rows.indices.contains(&(column as u32));
    let per_row = 50_000;
    let mut worst = 0.0f64;
    for (what, weights) in [("uniform", [1.0; 9]), ("weighted", weights)] {
        let distribution = match what {
            "uniform" => Distribution::Uniform(9),
            _ => Distribution::Weighted(AliasTable::new(&weights).map_err(other(what.to_owned()))?),
        };
        let got = negative(device, rows, &distribution, per_row, Draws::new(12, 3));
        let mut counts = [0usize; 9];
        got.map_err(other(what.to_owned()))?.iter().for_each(|&column| counts[column as usize] += 1);
        let total: f64 = (0..9).filter(|&column| left(column)).map(|column| f64::from(weights[column])).sum();
        for (at, &count) in counts.iter().enumerate() {
            let share = if left(at) { f64::from(weights[at]) / total } else { 0.0 };
            let expected = share * per_row as f64;
            let tolerance = DEVIATIONS * (expected * (1.0 - share)).sqrt();
            let (got, off) = (count as f64, (count as f64 - expected).abs());
            if off > tolerance {
                let what = format!("{what}, times that a column was drawn");
                return Err(Failure::Differs { what, at, expected, got, tolerance });
            }
            worst = worst.max(off / tolerance.max(f64::MIN_POSITIVE));
        }
    }
    Ok(Outcome::Agrees { worst })
}

fn many_groups(device: Device) -> Result<Outcome, Failure> {
    // A work group draws 256 columns.
    let what = || "65,600 work groups".to_owned();
    let rows = SparseRows { indptr: &[0, 2], indices: &[1, 3], values: &[1.0; 2] };
    let (distribution, per_row, draws) = (Distribution::Uniform(7), 65_600 * 256, Draws::new(2, 9));
    let got = negative(device, rows, &distribution, per_row, draws).map_err(other(what()))?;
    for (at, got) in got.iter().enumerate().step_by(9973).chain(got.iter().enumerate().skip(per_row - 9)) {
        let draw = |t| distribution.pick([draws.nth_try(t).block(at as u64)[0], 0]);
        if (0..).map(draw).find(|column| !rows.indices.contains(column)) != Some(*got) {
            return Err(Failure::Bits { what: what(), at });
        }
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn refusals(device: Device) -> Result<Outcome, Failure> {
    let matrix = Sparse::new(20, 12, 2, |_| 1.0);
    let run =
        |rows: SparseRows<'_>, n| negative(device, rows, &Distribution::Uniform(n), 2, Draws::new(1, 1));

    refused("a column past the columns", run(matrix.rows(), 11), |error| {
        matches!(error, Error::IndexOutOfRange { rows: 11, index: 11, .. })
    })?;
    let mut bad = matrix.clone();
    bad.indices.swap(0, 1);
    refused("columns that descend", run(bad.rows(), 12), |error| {
        matches!(error, Error::Parameter { what: "indices", got: 0.0, .. })
    })?;
    let full = SparseRows { indptr: &[0, 1, 4, 5], indices: &[0, 0, 1, 2, 1], values: &[1.0; 5] };
    refused("a row that has every column", run(full, 3), |error| {
        matches!(error, Error::Parameter { what: "distribution", got: 1.0, .. })
    })?;
    let weights = AliasTable::new(&[1.0, 2.0, 0.0, 0.5, 0.0]).map_err(other("weights".to_owned()))?;
    let heavy = SparseRows { indptr: &[0, 0, 3], indices: &[0, 1, 3], values: &[1.0; 3] };
    let result = negative(device, heavy, &Distribution::Weighted(weights), 1, Draws::new(1, 1));
    refused("a row that has every column with a weight", result, |error| {
        matches!(error, Error::Parameter { what: "distribution", got: 1.0, .. })
    })?;
    refused("no columns", run(SparseRows { indptr: &[0, 0], indices: &[], values: &[] }, 0), |error| {
        matches!(error, Error::Parameter { what: "distribution", got: 0.0, .. })
    })?;
    Ok(Outcome::Agrees { worst: 0.0 })
}

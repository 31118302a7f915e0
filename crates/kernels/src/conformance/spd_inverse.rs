//! Cases of spd_inverse.

use super::{Case, Comparison, Failure, Numbers, Outcome, on_threads, refused, same_bits};
use crate::{Device, Error, RowType, Table, spd_inverse, spd_inverse_reference};

pub(super) const CASES: &[Case] = &[
    Case { name: "spd_inverse/sizes", run: sizes },
    Case { name: "spd_inverse/chunks", run: chunks },
    Case { name: "spd_inverse/threads", run: threads },
    Case { name: "spd_inverse/only the lower triangle is read", run: lower_triangle },
    Case { name: "spd_inverse/refusals", run: refusals },
];

/// How far the inverse may be from the f64 reference, as a share of its largest value.
const TOLERANCE: f64 = 1e-5;
/// How far the matrix times its inverse may be from the identity.
const IDENTITY_TOLERANCE: f64 = 2e-5;

fn other(what: String) -> impl FnOnce(Error) -> Failure {
    move |got| Failure::Refused { what, got }
}

/// Ends a case early where the device has no such operation.
macro_rules! on_device {
    ($result:expr, $what:expr) => {
        match $result {
            Err(Error::NotOnDevice { .. }) => return Ok(Outcome::NotOnDevice),
            result => result.map_err(other($what))?,
        }
    };
}

/// `B Bᵀ / 8 + 2 I` with `[n, 24]` numbers in `-1 .. 1`: far from diagonal, condition number below 100.
fn matrix(n: usize) -> Vec<f32> {
    const WIDTH: usize = 24;
    let mut numbers = Numbers::new(n as u64);
    let rows: Vec<f32> = (0..n * WIDTH).map(|_| numbers.unit()).collect();
    let row = |at: usize| &rows[at * WIDTH..][..WIDTH];
    let value = |at: usize| {
        let (i, j) = (at / n, at % n);
        let dot: f32 = row(i).iter().zip(row(j)).map(|(a, b)| a * b).sum();
        dot / 8.0 + if i == j { 2.0 } else { 0.0 }
    };
    (0..n * n).map(value).collect()
}

fn inverse(values: &[f32], n: usize, chunk_rows: u32, device: Device) -> crate::Result<Vec<f32>> {
    let mut table = Table::from_f32_in_chunks(values, n, chunk_rows, device, "a conformance case")?;
    spd_inverse(&mut table)?;
    table.to_f32()
}

fn sizes(device: Device) -> Result<Outcome, Failure> {
    let mut comparison = Comparison::default();
    for n in [1, 2, 3, 31, 32, 33, 127, 128, 129, 255, 257, 301] {
        let what = || format!("{n} x {n}");
        let values = matrix(n);
        let got = on_device!(inverse(&values, n, 1 << 10, device), what());
        let expected = spd_inverse_reference(&values, n).map_err(other(what()))?;
        let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
        comparison.close(what, &got, &expected, TOLERANCE)?;
        let transposed: Vec<f32> = (0..n * n).map(|at| got[at % n * n + at / n]).collect();
        same_bits(|| format!("{} transposed", what()), &got, &transposed)?;

        // The inverse is symmetric, so that its rows are its columns.
        for (i, row) in values.chunks_exact(n).enumerate() {
            let product: Vec<f32> = got
                .chunks_exact(n)
                .map(|column| {
                    row.iter().zip(column).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() as f32
                })
                .collect();
            let identity: Vec<f64> = (0..n).map(|j| if i == j { 1.0 } else { 0.0 }).collect();
            let what = || format!("{}, row {i} of the product with the inverse", what());
            comparison.close(what, &product, &identity, IDENTITY_TOLERANCE)?;
        }
    }
    comparison.outcome()
}

/// Every cut into chunks agrees; cuts that leave the kernel's blocks whole give the same bits.
fn chunks(device: Device) -> Result<Outcome, Failure> {
    let mut comparison = Comparison::default();
    for n in [33, 200, 300] {
        let values = matrix(n);
        let whole = on_device!(inverse(&values, n, 1 << 12, device), format!("{n} x {n}"));
        let wide: Vec<f64> = whole.iter().map(|&value| value.into()).collect();
        for chunk_rows in [1, 8, 64, 128, 256] {
            let what = || format!("{n} x {n} in chunks of {chunk_rows}");
            let got = on_device!(inverse(&values, n, chunk_rows, device), what());
            comparison.close(what, &got, &wide, TOLERANCE)?;
            if chunk_rows >= 128 {
                same_bits(what, &got, &whole)?;
            }
        }
    }
    comparison.outcome()
}

fn threads(device: Device) -> Result<Outcome, Failure> {
    for n in [31, 130, 389] {
        let values = matrix(n);
        let what = |threads| format!("{n} x {n}, {threads} threads");
        let one = on_device!(on_threads(1, || inverse(&values, n, 1 << 10, device)), what(1));
        for threads in [2, 3] {
            let got = on_device!(on_threads(threads, || inverse(&values, n, 1 << 10, device)), what(threads));
            same_bits(|| what(threads), &got, &one)?;
        }
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn lower_triangle(device: Device) -> Result<Outcome, Failure> {
    for n in [2, 33, 259] {
        let what = || format!("{n} x {n}");
        let values = matrix(n);
        let whole = on_device!(inverse(&values, n, 1 << 10, device), what());
        let lower: Vec<f32> =
            (0..n * n).map(|at| if at % n > at / n { f32::NAN } else { values[at] }).collect();
        same_bits(what, &on_device!(inverse(&lower, n, 1 << 10, device), what()), &whole)?;
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn refusals(device: Device) -> Result<Outcome, Failure> {
    let n = 270;
    let good = matrix(n);
    on_device!(inverse(&good, n, 1 << 10, device), format!("{n} x {n}"));
    let not_definite = |row: usize| move |error: &Error| matches!(error, Error::NotPositiveDefinite { row: at, .. } if *at == row as u64);
    for row in [0, 127, 128, 269] {
        let mut values = good.clone();
        values[row * n + row] = -1.0;
        let what = &format!("a diagonal below zero in row {row}");
        refused(what, inverse(&values, n, 1 << 10, device), not_definite(row))?;
    }
    // Row 200 equals row 140 but for rounding away from it: singular, and seen where the second one is reached.
    let mut values = good.clone();
    for column in 0..n {
        values[200 * n + column] = good[140 * n + column];
        values[column * n + 200] = good[140 * n + column];
    }
    values[200 * n + 200] = good[140 * n + 140] - 1e-2;
    refused("two rows that are nearly one", inverse(&values, n, 1 << 10, device), not_definite(200))?;
    for bad in [f32::NAN, f32::INFINITY] {
        let mut values = good.clone();
        values[190 * n + 3] = bad;
        refused("a value that is not finite", inverse(&values, n, 1 << 10, device), not_definite(190))?;
    }
    refused("a matrix that is not square", inverse(&good[n..], n, 1 << 10, device), |error| {
        matches!(error, Error::Shape { what: "matrix", .. })
    })?;
    let narrow = Table::from_f32(&good, n, device, "a conformance case")
        .and_then(|table| table.to_row_type(RowType::F16, "a conformance case"));
    let mut narrow = narrow.map_err(other("f16 rows".to_owned()))?;
    refused("half-precision rows", spd_inverse(&mut narrow), |error| {
        matches!(error, Error::RowType { what: "matrix", got: RowType::F16, .. })
    })?;
    Ok(Outcome::Agrees { worst: 0.0 })
}

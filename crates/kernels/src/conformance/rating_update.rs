//! Cases of rating_update.

use super::{
    Case, Comparison, Failure, Numbers, Outcome, on_threads,
    operands::{Sparse, factors},
    refused, same_bits,
};
use crate::{
    Device, Error, RatingEpoch, RatingFactors, RatingStats, RowType, Table, rating_epoch,
    rating_epoch_reference,
};

pub(super) const CASES: &[Case] = &[
    Case { name: "rating_update/sizes", run: sizes },
    Case { name: "rating_update/chunks, threads", run: layouts },
    Case { name: "rating_update/refusals", run: refusals },
];

/// How far f32 numbers may be from the f64 reference after one epoch, as a share of the largest of their kind.
const TOLERANCE: f64 = 1e-5;

const PARTS: [&str; 4] = ["row factors", "column factors", "row biases", "column biases"];

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

/// Ratings from 0.5 to 5, and some below zero.
fn ratings(n_rows: usize, n_columns: usize, one_in: usize) -> Sparse {
    Sparse::new(n_rows, n_columns, one_in, |numbers| numbers.below(13) as f32 / 2.0 - 1.0)
}

fn epoch(matrix: &Sparse) -> RatingEpoch<'_> {
    RatingEpoch {
        rows: matrix.rows(),
        mean: 2.25,
        learning_rate: 0.02,
        regularization: 0.03,
        bias_regularization: 0.04,
        seed: 8,
        epoch: 3,
    }
}

/// What an epoch changes.
struct Model {
    rows: Table,
    columns: Table,
    row_bias: Vec<f32>,
    column_bias: Vec<f32>,
}

impl Model {
    fn new(matrix: &Sparse, dim: usize, chunk_rows: u32, device: Device) -> crate::Result<Self> {
        let mut numbers = Numbers::new(dim as u64 + 1);
        let (n_rows, n_columns) = (matrix.rows().n_rows(), matrix.n_columns);
        let rows = factors(&mut numbers, n_rows, dim, chunk_rows, device)?;
        let columns = factors(&mut numbers, n_columns, dim, chunk_rows, device)?;
        let mut bias = |n: usize| (0..n).map(|_| numbers.unit() / 4.0).collect();
        Ok(Self { rows, columns, row_bias: bias(n_rows), column_bias: bias(n_columns) })
    }

    fn factors(&mut self) -> RatingFactors<'_> {
        RatingFactors {
            row_factors: &mut self.rows,
            column_factors: &mut self.columns,
            row_bias: &mut self.row_bias,
            column_bias: &mut self.column_bias,
        }
    }

    fn run(&mut self, epoch: &RatingEpoch<'_>) -> crate::Result<RatingStats> {
        rating_epoch(epoch, &mut self.factors())
    }

    fn numbers(&self) -> crate::Result<[Vec<f32>; 4]> {
        Ok([self.rows.to_f32()?, self.columns.to_f32()?, self.row_bias.clone(), self.column_bias.clone()])
    }
}

fn sizes(device: Device) -> Result<Outcome, Failure> {
    let mut comparison = Comparison::default();
    for (n_rows, n_columns, dim, one_in) in [
        (0, 0, 1, 1),
        (0, 5, 3, 1),
        (3, 0, 3, 1),
        (1, 1, 1, 1),
        (31, 33, 1, 3),
        (32, 31, 16, 3),
        (33, 32, 31, 3),
        (40, 301, 33, 5),
        (7, 9, 257, 2),
        // Four blocks of rows and of columns.
        (300, 620, 32, 9),
    ] {
        let what = || format!("{n_rows} x {n_columns}, dim {dim}");
        let matrix = ratings(n_rows, n_columns, one_in);
        let epoch = epoch(&matrix);
        let mut model = on_device!(Model::new(&matrix, dim, 64, device), what());
        let (exact, loss) = rating_epoch_reference(&epoch, &model.factors()).map_err(other(what()))?;
        let stats = on_device!(model.run(&epoch), what());
        if stats.samples != matrix.indices.len() as u64 {
            let (what, expected, got) = (what(), matrix.indices.len() as f64, stats.samples as f64);
            return Err(Failure::Differs { what, at: 0, expected, got, tolerance: 0.0 });
        }
        comparison.close(|| format!("{}, loss", what()), &[stats.loss as f32], &[loss], TOLERANCE)?;
        let got = model.numbers().map_err(other(what()))?;
        for ((got, exact), part) in got.iter().zip(&exact).zip(PARTS) {
            comparison.close(|| format!("{}, {part}", what()), got, exact, TOLERANCE)?;
        }
    }
    comparison.outcome()
}

/// Tables in chunks of any size, and any number of threads, give the same bits.
fn layouts(device: Device) -> Result<Outcome, Failure> {
    let matrix = ratings(300, 620, 9);
    for dim in [17, 64] {
        let mut whole: Option<(RatingStats, [Vec<f32>; 4])> = None;
        for (chunk_rows, threads) in [(1 << 10, 1), (1 << 10, 3), (16, 1), (1, 3)] {
            let what = || format!("dim {dim}, chunks of {chunk_rows}, {threads} threads");
            let mut model = on_device!(Model::new(&matrix, dim, chunk_rows, device), what());
            let stats = on_device!(on_threads(threads, || model.run(&epoch(&matrix))), what());
            let numbers = model.numbers().map_err(other(what()))?;
            let (expected_stats, expected) = whole.get_or_insert_with(|| (stats, numbers.clone()));
            if stats != *expected_stats {
                return Err(Failure::Bits { what: format!("{}, loss", what()), at: 0 });
            }
            for ((got, expected), part) in numbers.iter().zip(expected.iter()).zip(PARTS) {
                same_bits(|| format!("{}, {part}", what()), got, expected)?;
            }
        }
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn refusals(device: Device) -> Result<Outcome, Failure> {
    let matrix = ratings(200, 520, 9);
    let run = |epoch: RatingEpoch<'_>, change: &dyn Fn(&mut Model) -> crate::Result<()>| {
        let mut model = Model::new(&matrix, 4, 64, device)?;
        change(&mut model)?;
        on_threads(3, || model.run(&epoch))
    };
    let good = epoch(&matrix);
    let nothing = |_: &mut Model| Ok(());
    on_device!(run(good, &nothing), "refusals".to_owned());

    let fewer = |model: &mut Model| {
        model.column_bias.pop();
        Ok(())
    };
    refused("too few column biases", run(good, &fewer), |error| {
        matches!(error, Error::Shape { what: "column bias", expected: 520, got: 519, .. })
    })?;
    let half = |model: &mut Model| {
        model.rows = model.rows.to_row_type(RowType::F16, "a conformance case")?;
        Ok(())
    };
    refused("half-precision row factors", run(good, &half), |error| {
        matches!(error, Error::RowType { what: "row factors", got: RowType::F16, .. })
    })?;
    let mean = f32::NAN;
    refused("a mean that is no number", run(RatingEpoch { mean, ..good }, &nothing), |error| {
        matches!(error, Error::Parameter { what: "mean", .. })
    })?;
    let mut bad = matrix.clone();
    let position = bad.indptr[8] as usize - 1;
    bad.indices[position] = 520;
    refused("a column past the columns", run(RatingEpoch { rows: bad.rows(), ..good }, &nothing), |error| {
        matches!(error, Error::IndexOutOfRange { rows: 520, index: 520, .. })
    })?;
    let mut bad = matrix.clone();
    let position = bad.indptr[7] as usize;
    bad.values[position] = f32::NEG_INFINITY;
    refused("an infinite rating", run(RatingEpoch { rows: bad.rows(), ..good }, &nothing), |error| {
        matches!(error, Error::NotFinite { what: "values", row: 7, .. })
    })?;
    let no_number = |model: &mut Model| {
        model.row_bias[5] = f32::NAN;
        Ok(())
    };
    refused("a bias that is no number", run(good, &no_number), |error| {
        matches!(error, Error::NotFinite { what: "a prediction", row: 5, .. })
    })?;
    Ok(Outcome::Agrees { worst: 0.0 })
}

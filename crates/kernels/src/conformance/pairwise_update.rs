//! Cases of pairwise_update, with a naive reference in f64 that visits the same positives and negatives in the same order.

use super::{
    Case, Comparison, Failure, Numbers, Outcome, on_threads,
    operands::{Sparse, factors},
    pairwise_walk::{Exact, ExactStats, MARGIN},
    refused, same_bits,
};
use crate::{
    Buffer, Device, Error, Mode, Negatives, OnPositive, Optimizer, PairwiseEpoch, PairwiseLoss,
    PairwiseState, PairwiseStats, RowType, Rows, Table, pairwise_epoch,
};

pub(super) const CASES: &[Case] = &[
    Case { name: "pairwise_update/sizes", run: sizes },
    Case { name: "pairwise_update/negatives", run: negatives },
    Case { name: "pairwise_update/chunks, threads", run: layouts },
    Case { name: "pairwise_update/refusals", run: refusals },
];

/// How far f32 numbers may be from the f64 reference after two epochs, as a share of the largest of their kind.
const TOLERANCE: f64 = 1e-4;
/// As much where negatives of rank 1 and 2 occur: there the kernel's series for harmonic numbers is off by up to 0.6%, and
/// Adagrad's sums by twice that.
const LOW_RANK_TOLERANCE: f64 = 2e-2;
/// Seeds tried before the data are to blame for draws on WARP's hinge.
const SEEDS: u64 = 20;

const WARP: PairwiseLoss = PairwiseLoss::Warp { max_draws: 10 };
const LOSSES: [PairwiseLoss; 3] = [PairwiseLoss::Bpr, WARP, PairwiseLoss::Logistic];
const OPTIMIZERS: [Optimizer; 2] = [Optimizer::Sgd, Optimizer::Adagrad];

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

/// Positives and, one in six, values that are none.
fn positives(n_rows: usize, n_columns: usize, one_in: usize) -> Sparse {
    Sparse::new(n_rows, n_columns, one_in, |numbers| [1.0, 5.0, 0.5, 2.0, 0.0, -1.0][numbers.below(6)])
}

fn epoch(matrix: &Sparse, loss: PairwiseLoss, optimizer: Optimizer) -> PairwiseEpoch<'_> {
    PairwiseEpoch {
        rows: matrix.rows(),
        loss,
        optimizer,
        learning_rate: 0.02,
        regularization: 0.01,
        bias_regularization: 0.02,
        negatives: Negatives::default(),
        seed: 6,
        epoch: 0,
        mode: Mode::Deterministic,
    }
}

/// What an epoch changes.
struct Model {
    rows: Table,
    columns: Table,
    bias: Option<Vec<f32>>,
    state: PairwiseState,
}

impl Model {
    fn new(
        matrix: &Sparse,
        dim: usize,
        optimizer: Optimizer,
        chunk_rows: u32,
        device: Device,
    ) -> crate::Result<Self> {
        let mut numbers = Numbers::new(dim as u64);
        let (n_rows, n_columns) = (matrix.rows().n_rows(), matrix.n_columns);
        Ok(Self {
            rows: factors(&mut numbers, n_rows, dim, chunk_rows, device)?,
            columns: factors(&mut numbers, n_columns, dim, chunk_rows, device)?,
            bias: Some((0..n_columns).map(|_| numbers.unit() / 4.0).collect()),
            state: PairwiseState::new(optimizer, n_rows, n_columns),
        })
    }

    fn run(&mut self, epoch: &PairwiseEpoch<'_>) -> crate::Result<PairwiseStats> {
        let bias = self.bias.as_deref_mut();
        pairwise_epoch(epoch, &mut self.rows, &mut self.columns, bias, &mut self.state)
    }

    fn numbers(&self) -> crate::Result<[Vec<f32>; 6]> {
        let PairwiseState { rows, columns, biases } = self.state.clone();
        let bias = self.bias.clone().unwrap_or_default();
        Ok([self.rows.to_f32()?, self.columns.to_f32()?, bias, rows, columns, biases])
    }
}

const PARTS: [&str; 6] =
    ["row factors", "column factors", "biases", "sums of rows", "sums of columns", "sums of biases"];

/// What the reference makes of an epoch, and the numbers then.
type Step = (ExactStats, [Vec<f64>; 6]);

/// Walks two epochs of the first seed that puts no draw on WARP's hinge, where either side would be right in f32.
fn exact_epochs(
    what: &str,
    start: &[Vec<f32>; 6],
    dim: usize,
    epoch: PairwiseEpoch<'_>,
) -> Result<(u64, [Step; 2]), Failure> {
    for seed in 0..SEEDS {
        let mut exact = Exact::new(start.clone(), dim);
        let mut walk = |number| {
            let stats = exact.walk(&PairwiseEpoch { epoch: number, seed, ..epoch })?;
            Ok((stats, exact.numbers().clone()))
        };
        let steps = [walk(0).map_err(other(what.to_owned()))?, walk(1).map_err(other(what.to_owned()))?];
        if steps.iter().all(|(stats, _)| stats.margin >= MARGIN) {
            return Ok((seed, steps));
        }
    }
    let what = format!("{what}, distance of every seed's draws from the hinge");
    Err(Failure::Differs { what, at: 0, expected: MARGIN, got: 0.0, tolerance: 0.0 })
}

/// Runs two epochs and compares the model and what was counted with the reference; false where the device has no such
/// operation.
fn compare(
    comparison: &mut Comparison,
    what: &str,
    matrix: &Sparse,
    mut model: Model,
    epoch: PairwiseEpoch<'_>,
) -> Result<bool, Failure> {
    let tolerance = match epoch.loss {
        PairwiseLoss::Warp { max_draws } if matrix.n_columns.saturating_sub(1) / (max_draws as usize) < 3 => {
            LOW_RANK_TOLERANCE
        }
        _ => TOLERANCE,
    };
    let start = model.numbers().map_err(other(what.to_owned()))?;
    let (seed, steps) = exact_epochs(what, &start, model.rows.dim(), epoch)?;
    for (number, (expected, exact)) in (0..).zip(&steps) {
        let what = || format!("{what}, epoch {number}");
        let stats = match model.run(&PairwiseEpoch { epoch: number, seed, ..epoch }) {
            Err(Error::NotOnDevice { .. }) => return Ok(false),
            stats => stats.map_err(other(what()))?,
        };
        let counts = [(stats.samples, expected.samples), (stats.skipped, expected.skipped)];
        if let Some(at) = counts.iter().position(|(got, expected)| got != expected) {
            let (what, got, expected) = (format!("{}, counts", what()), counts[at].0, counts[at].1);
            return Err(Failure::Differs {
                what,
                at,
                expected: expected as f64,
                got: got as f64,
                tolerance: 0.0,
            });
        }
        let loss = [stats.loss as f32];
        comparison.close(|| format!("{}, loss", what()), &loss, &[expected.loss], tolerance)?;
        let got = model.numbers().map_err(other(what()))?;
        for ((got, exact), part) in got.iter().zip(exact).zip(PARTS) {
            comparison.close(|| format!("{}, {part}", what()), got, exact, tolerance)?;
        }
    }
    Ok(true)
}

fn sizes(device: Device) -> Result<Outcome, Failure> {
    let mut comparison = Comparison::default();
    for (n_rows, n_columns, dim, one_in) in [
        (0, 0, 1, 1),
        (0, 5, 3, 1),
        (3, 0, 3, 1),
        (1, 1, 1, 1),
        (1, 2, 1, 1),
        (31, 33, 1, 3),
        (32, 31, 16, 3),
        (33, 32, 31, 3),
        (40, 301, 33, 5),
        // Four blocks of rows and of columns.
        (160, 520, 20, 8),
    ] {
        let matrix = positives(n_rows, n_columns, one_in);
        for loss in LOSSES {
            for optimizer in OPTIMIZERS {
                let what = format!("{n_rows} x {n_columns}, dim {dim}, {loss:?}, {optimizer:?}");
                let mut model = on_device!(Model::new(&matrix, dim, optimizer, 64, device), what.clone());
                if n_rows % 2 == 0 {
                    model.bias = None;
                }
                let epoch = epoch(&matrix, loss, optimizer);
                if !compare(&mut comparison, &what, &matrix, model, epoch)? {
                    return Ok(Outcome::NotOnDevice);
                }
            }
        }
    }
    comparison.outcome()
}

/// Every way to draw negatives, on one block and on two by two.
fn negatives(device: Device) -> Result<Outcome, Failure> {
    let mut comparison = Comparison::default();
    for (n_rows, n_columns, one_in) in [(60, 70, 3), (66, 258, 6)] {
        let matrix = positives(n_rows, n_columns, one_in);
        for loss in LOSSES {
            for on_positive in [OnPositive::Redraw, OnPositive::Skip, OnPositive::Keep] {
                for (popularity_exponent, per_positive) in [(0.0, 3), (0.75, 1), (-0.5, 2)] {
                    let negatives = Negatives { popularity_exponent, per_positive, on_positive };
                    let what = format!("{n_rows} x {n_columns}, {loss:?}, {negatives:?}");
                    let model =
                        on_device!(Model::new(&matrix, 8, Optimizer::Sgd, 1 << 10, device), what.clone());
                    let epoch = PairwiseEpoch { negatives, ..epoch(&matrix, loss, Optimizer::Sgd) };
                    if !compare(&mut comparison, &what, &matrix, model, epoch)? {
                        return Ok(Outcome::NotOnDevice);
                    }
                }
            }
        }
    }
    comparison.outcome()
}

/// Tables in chunks of any size, and any number of threads, give the same bits.
fn layouts(device: Device) -> Result<Outcome, Failure> {
    let matrix = positives(300, 620, 12);
    for loss in LOSSES {
        for optimizer in OPTIMIZERS {
            let what = format!("{loss:?}, {optimizer:?}");
            let negatives = Negatives { popularity_exponent: 0.5, ..Negatives::default() };
            let epoch = PairwiseEpoch { negatives, ..epoch(&matrix, loss, optimizer) };
            let mut whole: Option<(PairwiseStats, [Vec<f32>; 6])> = None;
            // A GPU visits a chunk by a launch, and hundreds of them take their time.
            let small = if device == Device::Cpu { [16, 1] } else { [128, 64] };
            for (chunk_rows, threads) in [(1 << 10, 1), (1 << 10, 3), (small[0], 1), (small[1], 3)] {
                let mut model =
                    on_device!(Model::new(&matrix, 17, optimizer, chunk_rows, device), what.clone());
                let stats = on_device!(on_threads(threads, || model.run(&epoch)), what.clone());
                let numbers = model.numbers().map_err(other(what.clone()))?;
                let (expected_stats, expected) = whole.get_or_insert_with(|| (stats, numbers.clone()));
                let what = || format!("{what}, chunks of {chunk_rows}, {threads} threads");
                if stats != *expected_stats {
                    return Err(Failure::Bits { what: format!("{}, loss or counts", what()), at: 0 });
                }
                for ((got, expected), part) in numbers.iter().zip(expected.iter()).zip(PARTS) {
                    same_bits(|| format!("{}, {part}", what()), got, expected)?;
                }
            }
        }
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn refusals(device: Device) -> Result<Outcome, Failure> {
    let matrix = positives(200, 520, 9);
    let run = |epoch: PairwiseEpoch<'_>, change: &dyn Fn(&mut Model) -> crate::Result<()>| {
        let mut model = Model::new(&matrix, 4, Optimizer::Adagrad, 64, device)?;
        change(&mut model)?;
        on_threads(3, || model.run(&epoch))
    };
    let good = epoch(&matrix, PairwiseLoss::Bpr, Optimizer::Adagrad);
    on_device!(run(good, &|_| Ok(())), "refusals".to_owned());

    let other_dim = |model: &mut Model| {
        model.columns = Table::zeros(520, 5, device, "a conformance case")?;
        Ok(())
    };
    refused("column factors of another dimension", run(good, &other_dim), |error| {
        matches!(error, Error::Shape { what: "dim of the column factors", expected: 4, got: 5, .. })
    })?;
    let half = |model: &mut Model| {
        let rows = Buffer::from_slice(&[half::bf16::ONE; 520 * 4], device, "a conformance case")?;
        let chunks = vec![Rows::Bf16(rows)];
        model.columns = Table::from_chunks(4, 1 << 10, RowType::Bf16, device, chunks)?;
        Ok(())
    };
    refused("half-precision column factors", run(good, &half), |error| {
        matches!(error, Error::RowType { what: "column factors", got: RowType::Bf16, .. })
    })?;
    let mut bad = matrix.clone();
    bad.indices.swap(0, 1);
    refused("columns that descend", run(PairwiseEpoch { rows: bad.rows(), ..good }, &|_| Ok(())), |error| {
        matches!(error, Error::Parameter { what: "indices", got: 0.0, .. })
    })?;
    let mut bad = matrix.clone();
    let position = bad.indptr[7] as usize;
    bad.values[position] = f32::NAN;
    refused(
        "a value that is no number",
        run(PairwiseEpoch { rows: bad.rows(), ..good }, &|_| Ok(())),
        |e| matches!(e, Error::NotFinite { what: "values", row: 7, .. }),
    )?;
    let bad = Negatives { popularity_exponent: f32::INFINITY, ..good.negatives };
    refused("an infinite exponent", run(PairwiseEpoch { negatives: bad, ..good }, &|_| Ok(())), |error| {
        matches!(error, Error::Parameter { what: "popularity_exponent", .. })
    })?;
    // Row 5 has positives in every block of columns, and no other row's numbers are touched by it.
    let infinite = |model: &mut Model| {
        let mut values = model.rows.to_f32()?;
        values[5 * 4..6 * 4].fill(f32::INFINITY);
        model.rows = Table::from_f32_in_chunks(&values, 4, 64, device, "a conformance case")?;
        Ok(())
    };
    for loss in LOSSES {
        refused("infinite row factors", run(PairwiseEpoch { loss, ..good }, &infinite), |error| {
            matches!(error, Error::NotFinite { what: "a score", row: 5, .. })
        })?;
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

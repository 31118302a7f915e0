//! Tests of an epoch: against the reference, for every number of threads, and of what it must learn and refuse.

use super::*;
use crate::{
    Device,
    conformance::{Numbers, on_threads},
};

/// Rows of two tastes: even rows have even columns, odd rows odd ones, each with some missing.
struct Tastes {
    indptr: Vec<u64>,
    indices: Vec<u32>,
    values: Vec<f32>,
    n_columns: usize,
}

impl Tastes {
    fn new(n_rows: usize, n_columns: usize) -> Self {
        let mut numbers = Numbers::new(5);
        let (mut indptr, mut indices) = (vec![0], Vec::new());
        for row in 0..n_rows {
            let taste = (row % 2..n_columns).step_by(2);
            indices.extend(taste.filter(|_| numbers.below(3) > 0).map(|column| column as u32));
            indptr.push(indices.len() as u64);
        }
        Self { indptr, values: vec![1.0; indices.len()], indices, n_columns }
    }

    fn rows(&self) -> SparseRows<'_> {
        SparseRows { indptr: &self.indptr, indices: &self.indices, values: &self.values }
    }

    fn epoch(&self, loss: PairwiseLoss, optimizer: Optimizer) -> PairwiseEpoch<'_> {
        PairwiseEpoch {
            rows: self.rows(),
            loss,
            optimizer,
            learning_rate: 0.1,
            regularization: 0.002,
            bias_regularization: 0.002,
            negatives: Negatives::default(),
            seed: 3,
            epoch: 0,
            mode: Mode::Deterministic,
        }
    }

    fn model(&self, dim: usize, optimizer: Optimizer) -> Model {
        let mut numbers = Numbers::new(9);
        let mut table = |rows: usize| {
            let values: Vec<f32> = (0..rows * dim).map(|_| numbers.unit() * 0.1).collect();
            Table::from_f32_in_chunks(&values, dim, 64, Device::Cpu, "a test").unwrap()
        };
        let n_rows = self.indptr.len() - 1;
        Model {
            rows: table(n_rows),
            columns: table(self.n_columns),
            bias: vec![0.0; self.n_columns],
            state: PairwiseState::new(optimizer, n_rows, self.n_columns),
        }
    }
}

struct Model {
    rows: Table,
    columns: Table,
    bias: Vec<f32>,
    state: PairwiseState,
}

impl Model {
    fn train(&mut self, epoch: &PairwiseEpoch) -> Result<PairwiseStats> {
        pairwise_epoch(epoch, &mut self.rows, &mut self.columns, Some(&mut self.bias), &mut self.state)
    }

    fn numbers(&self) -> Vec<f32> {
        [self.rows.to_f32().unwrap(), self.columns.to_f32().unwrap(), self.bias.clone()].concat()
    }

    fn score(&self, row: usize, column: usize) -> f32 {
        let (rows, columns) = (self.rows.f32_rows().unwrap(), self.columns.f32_rows().unwrap());
        let dot: f32 = rows.row(row).iter().zip(columns.row(column)).map(|(a, b)| a * b).sum();
        dot + self.bias[column]
    }
}

const LOSSES: [PairwiseLoss; 3] =
    [PairwiseLoss::Bpr, PairwiseLoss::Warp { max_draws: 20 }, PairwiseLoss::Logistic];
const OPTIMIZERS: [Optimizer; 2] = [Optimizer::Sgd, Optimizer::Adagrad];

#[test]
fn every_loss_and_optimizer_learns_the_withheld_columns() {
    let data = Tastes::new(80, 60);
    for loss in LOSSES {
        for optimizer in OPTIMIZERS {
            for mode in [Mode::Deterministic, Mode::Hogwild] {
                let mut model = data.model(16, optimizer);
                let mut losses = Vec::new();
                for number in 0..30 {
                    let epoch = PairwiseEpoch { epoch: number, mode, ..data.epoch(loss, optimizer) };
                    losses.push(model.train(&epoch).unwrap().loss);
                }
                let case = format!("{loss:?} {optimizer:?} {mode:?}: {losses:?}");
                assert!(losses[29] < 0.5 * losses[0], "{case}");
                // Withheld columns of a row's own taste beat those of the other taste.
                let (mut right, mut pairs) = (0, 0);
                for row in 0..80 {
                    let seen = data.rows().row(row).0;
                    let withheld = (row % 2..60).step_by(2).filter(|&c| !seen.contains(&(c as u32)));
                    for score in withheld.map(|c| model.score(row, c)) {
                        right +=
                            (1 - row % 2..60).step_by(2).filter(|&c| model.score(row, c) < score).count();
                        pairs += 30;
                    }
                }
                assert!(right * 100 > pairs * 90, "{right} of {pairs} right: {case}");
            }
        }
    }
}

#[test]
fn the_same_bits_for_every_number_of_threads() {
    let data = Tastes::new(300, 600); // 4 blocks
    assert!(block_count(300, 600, data.indices.len()) > 1);
    for loss in LOSSES {
        for optimizer in OPTIMIZERS {
            for popularity_exponent in [0.0, 0.75] {
                let epoch = data.epoch(loss, optimizer);
                let negatives = Negatives { popularity_exponent, per_positive: 2, ..epoch.negatives };
                let epoch = PairwiseEpoch { negatives, ..epoch };
                let run = |threads| {
                    let mut model = data.model(17, optimizer);
                    let stats = on_threads(threads, || model.train(&epoch)).unwrap();
                    (stats, model.numbers())
                };
                let one = run(1);
                assert!(one.0.samples > 0 && one.0.loss.is_finite());
                assert_eq!(one, run(2));
                assert_eq!(one, run(5));
            }
        }
    }
}

#[test]
fn positives_drawn_as_negatives_are_redrawn_skipped_or_kept() {
    let data = Tastes::new(80, 60);
    let run = |on_positive| {
        let epoch = data.epoch(PairwiseLoss::Bpr, Optimizer::Sgd);
        let epoch = PairwiseEpoch { negatives: Negatives { on_positive, ..epoch.negatives }, ..epoch };
        data.model(8, Optimizer::Sgd).train(&epoch).unwrap()
    };
    let nnz = data.indices.len() as u64;
    let (redraw, skip, keep) = (run(OnPositive::Redraw), run(OnPositive::Skip), run(OnPositive::Keep));
    assert_eq!((redraw.samples, redraw.skipped), (nnz, 0));
    assert_eq!(skip.samples + skip.skipped, nnz);
    // A third of the columns are positives of a row; a sixtieth are the very positive.
    assert!((nnz / 4..nnz / 2).contains(&skip.skipped), "{skip:?} of {nnz}");
    assert!((1..nnz / 20).contains(&keep.skipped), "{keep:?} of {nnz}");
}

#[test]
fn a_row_that_has_every_column_is_skipped_and_values_of_0_or_less_are_no_positives() {
    let rows = SparseRows { indptr: &[0, 2, 4], indices: &[0, 1, 0, 1], values: &[1.0, 1.0, 1.0, -1.0] };
    let data = Tastes::new(2, 2);
    let mut model = data.model(4, Optimizer::Sgd);
    let epoch = PairwiseEpoch { rows, ..data.epoch(PairwiseLoss::Bpr, Optimizer::Sgd) };
    let stats = model.train(&epoch).unwrap();
    assert_eq!((stats.samples, stats.skipped), (1, 2));
}

#[test]
fn what_is_not_finite_is_reported_with_its_row() {
    let data = Tastes::new(80, 60);
    for mode in [Mode::Deterministic, Mode::Hogwild] {
        for loss in LOSSES {
            let mut model = data.model(4, Optimizer::Sgd);
            let (_, chunk) = model.rows.f32_chunks_mut().next().unwrap();
            chunk[7 * 4] = f32::NAN;
            let epoch = PairwiseEpoch { mode, ..data.epoch(loss, Optimizer::Sgd) };
            let error = on_threads(1, || model.train(&epoch)).unwrap_err();
            assert!(matches!(error, Error::NotFinite { row: 7, .. }) || mode == Mode::Hogwild, "{error}");
            assert!(matches!(error, Error::NotFinite { .. }), "{error}");
        }
    }
}

/// One row, of which column 0 is positive and column 1 is not.
fn one_pair(loss: PairwiseLoss, optimizer: Optimizer) -> PairwiseEpoch<'static> {
    let rows = SparseRows { indptr: &[0, 1], indices: &[0], values: &[1.0] };
    let negatives = Negatives::default();
    let regularization = 0.01;
    let (learning_rate, bias_regularization) = (0.05, regularization);
    let mode = Mode::Deterministic;
    PairwiseEpoch {
        rows,
        loss,
        optimizer,
        learning_rate,
        regularization,
        bias_regularization,
        negatives,
        seed: 0,
        epoch: 0,
        mode,
    }
}

#[test]
fn adagrad_does_not_explode_on_a_first_gradient_of_next_to_nothing() {
    let epoch = one_pair(PairwiseLoss::Bpr, Optimizer::Adagrad);
    let table = |values: &[f32]| Table::from_f32(values, 2, Device::Cpu, "a test").unwrap();
    for (row, columns) in [([3.0, 3.0], [3.0, 3.0, -3.0, -3.0]), ([0.0, 0.0], [0.1, 0.2, 0.4, 0.3])] {
        let state = PairwiseState::new(Optimizer::Adagrad, 1, 2);
        let mut model = Model { rows: table(&row), columns: table(&columns), bias: vec![0.0; 2], state };
        model.train(&epoch).unwrap();
        let before = [&row[..], &columns, &[0.0; 2]].concat();
        for (after, before) in model.numbers().iter().zip(before) {
            assert!((after - before).abs() < 0.2, "{before} became {after}");
        }
    }
}

#[test]
fn warp_refuses_a_negative_that_is_not_finite() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for mode in [Mode::Deterministic, Mode::Hogwild] {
            let warp = one_pair(PairwiseLoss::Warp { max_draws: 5 }, Optimizer::Sgd);
            let table = |values: &[f32]| Table::from_f32(values, 2, Device::Cpu, "a test").unwrap();
            let (rows, columns) = (table(&[0.5, 0.25]), table(&[0.1, 0.2, bad, 0.3]));
            let mut model = Model { rows, columns, bias: vec![0.0; 2], state: PairwiseState::default() };
            let error = model.train(&PairwiseEpoch { mode, ..warp }).unwrap_err();
            assert!(matches!(error, Error::NotFinite { row: 0, .. }), "{error}");
        }
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let data = Tastes::new(10, 20);
    let good = data.epoch(PairwiseLoss::Bpr, Optimizer::Adagrad);
    let refuse = |epoch: PairwiseEpoch, change: &dyn Fn(&mut Model)| {
        let mut model = data.model(4, Optimizer::Adagrad);
        change(&mut model);
        model.train(&epoch).unwrap_err()
    };
    let nothing = |_: &mut Model| ();
    for bad in [
        PairwiseEpoch { learning_rate: 0.0, ..good },
        PairwiseEpoch { learning_rate: f32::NAN, ..good },
        PairwiseEpoch { regularization: -1.0, ..good },
        PairwiseEpoch { negatives: Negatives { per_positive: 0, ..good.negatives }, ..good },
        PairwiseEpoch { loss: PairwiseLoss::Warp { max_draws: 0 }, ..good },
    ] {
        assert!(matches!(refuse(bad, &nothing), Error::Parameter { .. }), "{bad:?}");
    }
    assert!(matches!(refuse(good, &|model| model.bias.truncate(19)), Error::Shape { .. }));
    assert!(matches!(refuse(good, &|model| model.state.rows.truncate(9)), Error::Shape { .. }));
    let half =
        |model: &mut Model| model.rows = model.rows.to_row_type(crate::RowType::F16, "a test").unwrap();
    assert!(matches!(refuse(good, &half), Error::RowType { .. }));
    let past = |model: &mut Model| {
        model.columns = Table::zeros(19, 4, Device::Cpu, "a test").unwrap();
        model.bias.truncate(19);
        model.state.columns.truncate(19);
        model.state.biases.truncate(19);
    };
    assert!(matches!(refuse(good, &past), Error::IndexOutOfRange { index: 19, .. }));
}

//! Stochastic learning: epochs of pairwise and rating updates, and negatives.
#![expect(clippy::unwrap_used, reason = "a bench that cannot run ends")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use recmill_benches::{ceilings::Ceilings, factors::table, interactions::Interactions, measure::measure};
use recmill_kernels::{
    Mode, Negatives, Optimizer, PairwiseEpoch, PairwiseLoss, PairwiseState, RatingEpoch, RatingFactors,
    SparseRows, Table,
    negative::{AliasTable, Distribution, negative, negative_reference, popularity},
    pairwise_epoch,
    philox::Draws,
    rating_epoch, rating_epoch_reference,
};

const N_ROWS: usize = 8000;
const N_COLUMNS: usize = 5000;
const MEAN_LEN: usize = 100;
/// Integer operations of one Philox block: ten rounds of two wide products, four exclusive ors and two key additions.
const PHILOX_OPERATIONS: f64 = 80.0;

fn epoch<'a>(
    rows: SparseRows<'a>,
    loss: PairwiseLoss,
    optimizer: Optimizer,
    mode: Mode,
) -> PairwiseEpoch<'a> {
    PairwiseEpoch {
        rows,
        loss,
        optimizer,
        learning_rate: 0.05,
        regularization: 0.002,
        bias_regularization: 0.002,
        negatives: Negatives::default(),
        seed: 1,
        epoch: 0,
        mode,
    }
}

fn pairwise(criterion: &mut Criterion) {
    let ceilings = Ceilings::measure();
    let interactions = Interactions::long_tailed(N_ROWS, N_COLUMNS, MEAN_LEN);
    let n = interactions.indices.len();
    for dim in [64, 128] {
        check_pairwise(dim);
        for (name, loss, optimizer, mode) in [
            ("bpr, sgd", PairwiseLoss::Bpr, Optimizer::Sgd, Mode::Deterministic),
            ("bpr, adagrad", PairwiseLoss::Bpr, Optimizer::Adagrad, Mode::Deterministic),
            ("bpr, sgd, hogwild", PairwiseLoss::Bpr, Optimizer::Sgd, Mode::Hogwild),
            ("warp, sgd", PairwiseLoss::Warp { max_draws: 10 }, Optimizer::Sgd, Mode::Deterministic),
            ("logistic, sgd", PairwiseLoss::Logistic, Optimizer::Sgd, Mode::Deterministic),
        ] {
            let mut rows = table(N_ROWS, dim, 1).unwrap();
            let mut columns = table(N_COLUMNS, dim, 2).unwrap();
            let mut bias = vec![0.0; N_COLUMNS];
            let mut state = PairwiseState::new(optimizer, N_ROWS, N_COLUMNS);
            let mut epoch = epoch(interactions.rows(), loss, optimizer, mode);
            // A triple a positive; WARP draws more the better the model is, and only the last draw moves anything.
            let cost = ((14 * n * dim) as f64, (24 * n * dim) as f64);
            let shape = format!("{N_ROWS}x{N_COLUMNS}, {n} entries, dim {dim}, {name}/cpu");
            measure(criterion, ceilings, &format!("pairwise_update/{shape}"), cost, || {
                let stats = pairwise_epoch(&epoch, &mut rows, &mut columns, Some(&mut bias), &mut state);
                black_box(stats.unwrap());
                epoch.epoch += 1;
            });
        }
    }
}

/// One triple steps as the formula says: row 0 has column 0, so the negative is column 1.
fn check_pairwise(dim: usize) {
    let (mut rows, mut columns) = (table(1, dim, 1).unwrap(), table(2, dim, 2).unwrap());
    let (p, q) = (rows.to_f32().unwrap(), columns.to_f32().unwrap());
    let positive = SparseRows { indptr: &[0, 1], indices: &[0], values: &[1.0] };
    let epoch = epoch(positive, PairwiseLoss::Bpr, Optimizer::Sgd, Mode::Deterministic);
    let mut state = PairwiseState::default();
    let stats = pairwise_epoch(&epoch, &mut rows, &mut columns, None, &mut state).unwrap();
    assert_eq!(stats.samples, 1);
    let score: f32 = (0..dim).map(|d| p[d] * (q[d] - q[dim + d])).sum();
    let slope = 1.0 / (1.0 + score.exp());
    let got = [rows.to_f32().unwrap(), columns.to_f32().unwrap()].concat();
    for d in 0..dim {
        let moves = [(p[d], q[d] - q[dim + d]), (q[d], p[d]), (q[dim + d], -p[d])];
        for (at, (old, direction)) in moves.into_iter().enumerate() {
            let expected = old + epoch.learning_rate * (slope * direction - epoch.regularization * old);
            assert!((got[at * dim + d] - expected).abs() <= 1e-6, "{at} {d}");
        }
    }
}

/// A model of ratings.
struct Ratings {
    rows: Table,
    columns: Table,
    row_bias: Vec<f32>,
    column_bias: Vec<f32>,
}

impl Ratings {
    fn new(n_rows: usize, n_columns: usize, dim: usize) -> Self {
        let (rows, columns) = (table(n_rows, dim, 1).unwrap(), table(n_columns, dim, 2).unwrap());
        Self { rows, columns, row_bias: vec![0.0; n_rows], column_bias: vec![0.0; n_columns] }
    }

    fn factors(&mut self) -> RatingFactors<'_> {
        RatingFactors {
            row_factors: &mut self.rows,
            column_factors: &mut self.columns,
            row_bias: &mut self.row_bias,
            column_bias: &mut self.column_bias,
        }
    }
}

fn rating(criterion: &mut Criterion) {
    let ceilings = Ceilings::measure();
    let interactions = Interactions::long_tailed(N_ROWS, N_COLUMNS, MEAN_LEN);
    let n = interactions.indices.len();
    for dim in [64, 128] {
        let mut epoch = RatingEpoch {
            rows: interactions.rows(),
            mean: 3.0,
            learning_rate: 0.005,
            regularization: 0.02,
            bias_regularization: 0.02,
            seed: 1,
            epoch: 0,
        };
        let mut model = Ratings::new(N_ROWS, N_COLUMNS, dim);
        let (exact, loss) = rating_epoch_reference(&epoch, &model.factors()).unwrap();
        let stats = rating_epoch(&epoch, &mut model.factors()).unwrap();
        assert!((stats.loss - loss).abs() <= 1e-5 * loss, "{} {loss}", stats.loss);
        for (got, expected) in model.rows.to_f32().unwrap().iter().zip(&exact[0]) {
            assert!((f64::from(*got) - expected).abs() <= 1e-4, "{got} {expected}");
        }
        let cost = ((9 * n * dim) as f64, (16 * n * dim) as f64);
        let shape = format!("{N_ROWS}x{N_COLUMNS}, {n} entries, dim {dim}/cpu");
        measure(criterion, ceilings, &format!("rating_update/{shape}"), cost, || {
            epoch.epoch += 1;
            black_box(rating_epoch(&epoch, &mut model.factors()).unwrap());
        });
    }
}

fn negatives(criterion: &mut Criterion) {
    let ceilings = Ceilings::measure();
    let interactions = Interactions::long_tailed(N_ROWS, N_COLUMNS, MEAN_LEN);
    let rows = interactions.rows();
    let by_popularity = AliasTable::new(&popularity(rows, N_COLUMNS, 0.75)).unwrap();
    for (name, distribution) in [
        ("uniform", Distribution::Uniform(N_COLUMNS as u32)),
        ("popularity^0.75", Distribution::Weighted(by_popularity)),
    ] {
        let draws = Draws::new(1, 2);
        let got = negative(rows, &distribution, 3, draws).unwrap();
        assert_eq!(got, negative_reference(rows, &distribution, 3, draws).unwrap());
        let per_row = 100;
        let n = (N_ROWS * per_row) as f64;
        // Operations are integers here, and bytes are the drawn columns; draws that a row refuses are not counted.
        let cost = (PHILOX_OPERATIONS * n, 4.0 * n);
        let shape = format!("{N_ROWS}x{N_COLUMNS}, {per_row} a row, {name}/cpu");
        measure(criterion, ceilings, &format!("negative/{shape}"), cost, || {
            black_box(negative(rows, &distribution, per_row, draws).unwrap());
        });
    }
}

criterion_group!(benches, pairwise, rating, negatives);
criterion_main!(benches);

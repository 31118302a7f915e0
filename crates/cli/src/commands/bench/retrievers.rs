//! Epochs of the models that learn against candidates: mf, with and without propagation, two-tower, sasrec and gru4rec.
//!
//! Interactions as for the others, of a tenth of the users: 1.8 million; of a two-hundredth on the processor. Batches and losses are those of
//! `benches/peers/two_tower.py` and `sasrec.py`: 4,096 interactions against the batch's items, and 128 histories of up to 50 items
//! against all items.

use recmill_core::{
    Dataset,
    models::{Gru4RecConfig, MfConfig, ModelConfig, SasRecConfig, SequenceLoss, TwoTowerConfig},
};
use recmill_kernels::Device;

use super::{
    Result,
    kernels::Measured,
    made_up,
    whole::{self, Outcome},
};

/// Interactions of a batch, where they are drawn one by one.
const BATCH: usize = 4096;
const LAYERS: usize = 2;
/// Events of a history, and histories of a batch.
const LENGTH: usize = 50;
const HISTORIES: usize = 128;

/// The names, for `--only`.
pub(super) const NAMES: [&str; 5] =
    ["train_mf", "train_lightgcn", "train_two_tower", "train_sasrec", "train_gru4rec"];

/// Makes up what they learn from: `scale` times as much.
pub(super) fn dataset(scale: f64, slow: bool) -> Result<Dataset> {
    let share = if slow { 0.005 } else { 0.1 };
    made_up::dataset(share * scale, scale.min(1.0))
}

/// Measures those whose name `wanted` takes.
pub(super) fn measure(
    device: Device,
    data: &Dataset,
    factors: usize,
    wanted: impl Fn(&str) -> bool,
    mut say: impl FnMut(&str),
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for name in NAMES.into_iter().filter(|name| wanted(name)) {
        say(name);
        let (config, cost) = case(name, data, factors);
        let trained = whole::train(device, data, &config);
        outcomes.push((name, trained.map(|(seconds, _)| Measured { seconds, ..cost })));
    }
    outcomes
}

/// Returns what learns, and what an epoch of it costs.
fn case(name: &str, data: &Dataset, factors: usize) -> (ModelConfig, Measured) {
    let iterations = whole::ITERATIONS;
    let mf = MfConfig { factors, batch_size: BATCH, n_negatives: 0, iterations, ..MfConfig::default() };
    let loss = SequenceLoss::Softmax;
    match name {
        "train_mf" => (ModelConfig::Mf(mf), in_batches(data, factors, 0.0)),
        "train_lightgcn" => {
            let config = MfConfig { propagation_layers: LAYERS, ..mf };
            // Forward and back, each pair from both sides.
            let steps = data.by_user().nnz().div_ceil(BATCH) as f64;
            let pairs = steps * (2 * LAYERS * 2) as f64 * data.by_user().nnz() as f64;
            (ModelConfig::Mf(config), in_batches(data, factors, pairs))
        }
        "train_two_tower" => {
            let config = TwoTowerConfig {
                factors,
                batch_size: BATCH,
                n_negatives: 0,
                iterations,
                ..TwoTowerConfig::default()
            };
            (ModelConfig::TwoTower(config), in_batches(data, factors, 0.0))
        }
        "train_sasrec" => {
            let config = SasRecConfig {
                factors,
                feed_forward: factors,
                layers: LAYERS,
                max_length: LENGTH,
                batch_size: HISTORIES,
                loss,
                iterations,
                ..SasRecConfig::default()
            };
            // Queries, keys, values and what they come to; two layers; products with half of the history.
            let values = 6 * factors * factors + LENGTH * factors;
            (ModelConfig::SasRec(config), in_order(data, factors, (LAYERS * values) as f64))
        }
        _ => {
            let config = Gru4RecConfig {
                factors,
                hidden: factors,
                layers: 1,
                max_length: LENGTH,
                batch_size: HISTORIES,
                loss,
                iterations,
                ..Gru4RecConfig::default()
            };
            (ModelConfig::Gru4Rec(config), in_order(data, factors, (6 * factors * factors) as f64))
        }
    }
}

/// The cost of an epoch of pairs, and of passing along `neighbours` more.
fn in_batches(data: &Dataset, factors: usize, neighbours: f64) -> Measured {
    let (n, d) = (data.by_user().nnz() as f64, factors as f64);
    Measured {
        shape: format!("{}, batches of {BATCH}", whole::shape(data, factors)),
        seconds: f64::NAN,
        // A user's row and an item's: read, and stepped by Adam, which reads and writes three. And the scores, twice.
        bytes: 2.0 * n * 28.0 * d + 8.0 * n * BATCH as f64 + 4.0 * d * neighbours,
        operations: 6.0 * n * BATCH as f64 * d + 2.0 * d * neighbours,
        done: (n, "interactions"),
    }
}

/// The cost of an epoch of histories whose every event takes `products` multiply-adds forward, against all items.
fn in_order(data: &Dataset, factors: usize, products: f64) -> Measured {
    let lengths = (0..data.n_users()).map(|user| data.by_user().row(user).0.len());
    let positions: usize = lengths.map(|length| length.saturating_sub(1)).sum();
    let (n, d, n_items) = (positions as f64, factors as f64, data.n_items() as f64);
    Measured {
        shape: format!("{}, {HISTORIES} histories of up to {LENGTH} a batch", whole::shape(data, factors)),
        seconds: f64::NAN,
        bytes: n * (28.0 * d + 8.0 * n_items),
        operations: 6.0 * n * (products + n_items * d),
        done: (n, "events"),
    }
}

//! Every network, forward and backward, beside candle's in f64: log-odds, and the gradients of embeddings, of first-order
//! weights and of every parameter.
#![expect(clippy::unwrap_used, reason = "a test that cannot run fails")]

use std::collections::BTreeSet;

use candle_core::{DType, Tensor, backprop::GradStore};
use recmill_benches::{candle::CandleNetwork, networks::both};
use recmill_core::rankers::{
    AutoIntConfig, DcnConfig, DcnStructure, DeepFmConfig, DlrmConfig, FinalMlpConfig, FmConfig,
    LogisticConfig, MmoeConfig, RankerModel, Shape, SharedBottomConfig, WideDeepConfig,
};

/// Of the largest value beside it: f32 sums of some hundred terms, beside f64.
const TOLERANCE: f64 = 2e-6;
/// Through batch normalization, whose gradient is what is left of sums that cancel.
const NORMED_TOLERANCE: f64 = 1e-5;

const fn shape(n_fields: usize, n_numeric: usize, n_labels: usize) -> Shape {
    Shape { n_fields, n_numeric, n_labels }
}

/// Categories and numbers, one kind alone, a single field or number, several labels; all in odd sizes.
const SHAPES: [Shape; 6] =
    [shape(5, 3, 1), shape(7, 0, 1), shape(0, 4, 1), shape(1, 0, 1), shape(0, 1, 1), shape(1, 2, 1)];
const OF_SEVERAL_LABELS: [Shape; 2] = [shape(5, 3, 3), shape(3, 0, 2)];

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_close(what: &str, ours: &[f32], candle: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), candle.len(), "{what}");
    let largest = candle.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
    for (at, (&ours, candle)) in ours.iter().zip(candle).enumerate() {
        let off = (f64::from(ours) - candle).abs();
        assert!(off <= tolerance * largest.max(1.0), "{what}, value {at}: {ours} beside candle's {candle}");
    }
}

fn gradient_of(candle: &CandleNetwork, gradients: &GradStore, name: &str) -> Option<Vec<f64>> {
    let variable = match name {
        "embedded" => candle.embedded.as_ref()?,
        "first_order" => candle.first_order.as_ref()?,
        name => &candle.parameters[name],
    };
    gradients.get(variable).map(values)
}

fn compare(model: &RankerModel, shape: Shape, rows: usize, training: bool) {
    let (ours, candle, weights) = both(model, shape, rows, training, DType::F64).unwrap();
    let (our_log_odds, their_log_odds) = (ours.forward(), candle.forward(model).unwrap());
    let what = |part: &str| format!("{model:?} of {shape:?}, {rows} rows, training {training}: {part}");
    assert_eq!(their_log_odds.dims(), our_log_odds.dims(), "{}", what("log-odds"));
    let our_values = our_log_odds.clone().into_data().into_vec::<f32>().unwrap();
    // What is remembered normalizes where nothing is learnt.
    let normed = candle.parameters.keys().any(|name| name.ends_with("_mean"));
    let tolerance = if normed { NORMED_TOLERANCE } else { TOLERANCE };
    assert_close(&what("log-odds"), &our_values, &values(&their_log_odds), tolerance);
    if normed && !training {
        return;
    }

    let gradients = candle.backward(&their_log_odds, &weights).unwrap();
    let named = ours.named(&ours.backward(our_log_odds));
    let names: BTreeSet<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
    assert!(candle.parameters.keys().all(|name| names.contains(name.as_str())), "{names:?}");
    for (name, gradient) in &named {
        match gradient_of(&candle, &gradients, name) {
            Some(of_candle) => assert_close(&what(name), gradient, &of_candle, tolerance),
            // A network before rows that it has nothing for: a bias that is all of the answer is asked for too.
            None => assert!(gradient.iter().all(|x| *x == 0.0), "{}", what(name)),
        }
    }
}

/// With and without batch normalization, where there are hidden layers; nothing is dropped.
fn compare_all(model: &RankerModel) {
    let mut config = serde_json::to_value(model).unwrap();
    if config.get("batch_norm").is_none() {
        return compare_shapes(model);
    }
    config["dropout"] = 0.0.into();
    for batch_norm in [false, true] {
        config["batch_norm"] = batch_norm.into();
        compare_shapes(&serde_json::from_value(config.clone()).unwrap());
    }
}

fn compare_shapes(model: &RankerModel) {
    let several: &[Shape] = if model.takes_several_labels() { &OF_SEVERAL_LABELS } else { &[] };
    for &shape in SHAPES.iter().chain(several) {
        for rows in [1, 33] {
            for training in [false, true] {
                compare(model, shape, rows, training);
            }
        }
    }
}

#[test]
fn logistic() {
    compare_all(&RankerModel::Logistic(LogisticConfig {}));
}

#[test]
fn fm() {
    compare_all(&RankerModel::Fm(FmConfig { embedding_dim: 11 }));
}

#[test]
fn wide_deep() {
    let config = WideDeepConfig { embedding_dim: 6, hidden: vec![9, 5], ..WideDeepConfig::default() };
    compare_all(&RankerModel::WideDeep(config));
}

#[test]
fn deepfm() {
    let config = DeepFmConfig { embedding_dim: 6, hidden: vec![37, 5], ..DeepFmConfig::default() };
    compare_all(&RankerModel::DeepFm(config));
}

#[test]
fn dcn_v2() {
    for structure in [DcnStructure::Parallel, DcnStructure::Stacked] {
        for (rank, experts) in [(0, 1), (2, 1), (3, 4)] {
            let (embedding_dim, hidden) = (6, vec![9, 5]);
            let config = DcnConfig {
                embedding_dim,
                cross_layers: 2,
                structure,
                rank,
                experts,
                hidden,
                ..DcnConfig::default()
            };
            compare_all(&RankerModel::Dcn(config));
        }
    }
}

#[test]
fn dlrm() {
    let config =
        DlrmConfig { embedding_dim: 6, bottom: vec![7], hidden: vec![9, 5], ..DlrmConfig::default() };
    compare_all(&RankerModel::Dlrm(config));
}

#[test]
fn autoint() {
    for hidden in [vec![], vec![9, 5]] {
        let config = AutoIntConfig {
            embedding_dim: 6,
            attention_layers: 2,
            heads: 3,
            attention_dim: 5,
            hidden,
            ..AutoIntConfig::default()
        };
        compare_all(&RankerModel::AutoInt(config));
    }
}

#[test]
fn finalmlp() {
    for gate in [0, 4] {
        let (hidden, hidden2) = (vec![9, 6], vec![15]);
        let config =
            FinalMlpConfig { embedding_dim: 6, hidden, hidden2, heads: 3, gate, ..FinalMlpConfig::default() };
        compare_all(&RankerModel::FinalMlp(config));
    }
}

#[test]
fn shared_bottom() {
    let config = SharedBottomConfig {
        embedding_dim: 6,
        hidden: vec![9, 7],
        tower: vec![5],
        ..SharedBottomConfig::default()
    };
    compare_all(&RankerModel::SharedBottom(config));
}

#[test]
fn mmoe() {
    let config = MmoeConfig {
        embedding_dim: 6,
        experts: 3,
        hidden: vec![9, 7],
        tower: vec![5],
        ..MmoeConfig::default()
    };
    compare_all(&RankerModel::Mmoe(config));
}

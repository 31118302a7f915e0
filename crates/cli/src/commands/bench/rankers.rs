//! Training steps and scoring of rankers, in the shape of click logs.
//!
//! 26 categories of 38,462 values each, drawn by a power law and hashed, 13 numbers; embeddings of 16 values, hidden layers
//! 400-400-400, Adagrad for tables and layers. As `benches/peers/ranker.py` and `ranker_gpu.py`, whose draws differ.

use std::{
    fmt::Write,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use recmill_core::{
    Parameter,
    data::ReadOptions,
    features::{ColumnKind, Encoding, Examples, FeatureBatch, FeatureColumn, Features, Numeric, Schema},
    rankers::{Ranker, RankerConfig},
};
use recmill_kernels::{
    Device,
    philox::{Draws, unit},
};
use recmill_train::{
    Progress,
    gradient::{RankTraining, StepRecord},
};
use serde_json::json;

use super::{Result, kernels::Measured, timing, whole::Outcome};

const CATEGORIES: usize = 26;
const BUCKETS: u32 = 38_462;
const NUMBERS: usize = 13;
const DIM: usize = 16;
/// Rows of a batch; the processor, and what pretends to be a GPU, take the smallest only.
const BATCHES: [usize; 3] = [4096, 16_384, 65_536];
/// Steps that are counted, and those before them that are not.
const COUNTED: usize = 9;
const WARM_UP: usize = 3;

/// The names, for `--only`, and the models.
pub(super) const NAMES: [&str; 4] = ["train_dlrm", "score_dlrm", "train_dcn_v2", "score_dcn_v2"];

/// Measures those whose name `wanted` takes, with `scale` times as many rows in a batch.
pub(super) fn measure(
    device: Device,
    scale: f64,
    slow: bool,
    wanted: impl Fn(&str) -> bool,
    mut say: impl FnMut(&str),
) -> Vec<Outcome> {
    let batches = if slow { &BATCHES[..1] } else { &BATCHES[1..] };
    let mut outcomes = Vec::new();
    for &batch in batches {
        let batch = ((batch as f64 * scale) as usize).max(16);
        let mut data = None;
        for (model, [train, score]) in [("dlrm", [NAMES[0], NAMES[1]]), ("dcn-v2", [NAMES[2], NAMES[3]])] {
            if !wanted(train) && !wanted(score) {
                continue;
            }
            say(train);
            let known = match data.take() {
                Some(known) => Ok(known),
                None => rows(2 * batch),
            };
            let measured = known.and_then(|known| {
                let measured = both(device, model, batch, &known);
                data = Some(known);
                measured
            });
            match measured {
                Ok(measured) => {
                    let named = [train, score].into_iter().zip(measured);
                    outcomes
                        .extend(named.filter(|(name, _)| wanted(name)).map(|(name, one)| (name, Ok(one))));
                }
                Err(problem) => outcomes.push((train, Err(problem))),
            }
        }
    }
    outcomes
}

/// Measures a step of training, and the scores of as many rows.
fn both(device: Device, model: &str, batch: usize, data: &(Features, Examples)) -> Result<[Measured; 2]> {
    let (features, examples) = data;
    let mut config = json!({
        "model": model, "embedding_dim": DIM, "hidden": [400, 400, 400], "dropout": 0.0, "batch_size": batch,
        "learning_rate": 0.01, "optimizer": "adagrad", "table_optimizer": "adagrad", "epochs": WARM_UP + COUNTED,
    });
    if model == "dlrm" {
        config["bottom"] = json!([128]);
    }
    let config: RankerConfig = serde_json::from_value(config)?;
    let stop = AtomicBool::new(false);
    let mut steps = Steps { stop: &stop, last: Instant::now(), seconds: Vec::new() };
    let training = RankTraining { device, ..RankTraining::new(&config.learning, features, examples) };
    let (mut ranker, _) = training.run(&config, &stop, &mut steps)?;
    let mut seconds = steps.seconds.split_off(WARM_UP);
    seconds.sort_by(f64::total_cmp);

    ranker.score_on(device)?;
    let (mut rows, mut scores) = (FeatureBatch::default(), Vec::new());
    examples.gather(&(0..batch as u64).collect::<Vec<_>>(), &mut rows);
    let to_score = timing::median(device, || Ok(ranker.score(&rows, &mut scores)?))?;
    let weights = weights(ranker)?;
    let shape = |what: &str| format!("{what} of {batch} rows, {weights} weights");
    let (looked_up, all) = ((batch * CATEGORIES * DIM * 4) as f64, weights as f64);
    Ok([
        Measured {
            shape: shape("a step"),
            seconds: seconds[seconds.len() / 2],
            // Rows read, then their gradients, then rows and what Adagrad remembers, read and written; the weights alike.
            bytes: 6.0 * looked_up + 4.0 * 6.0 * all,
            // A product forward and two backward, of two operations a weight.
            operations: 6.0 * batch as f64 * all,
            done: (batch as f64, "rows"),
        },
        Measured {
            shape: shape("scores"),
            seconds: to_score,
            bytes: looked_up + 4.0 * all,
            operations: 2.0 * batch as f64 * all,
            done: (batch as f64, "rows"),
        },
    ])
}

/// The values of the network's parameters.
fn weights(ranker: Ranker) -> Result<usize> {
    let (_, _, parameters) = ranker.into_parts()?;
    let values = |(_, parameter): (&str, &Parameter)| match parameter {
        Parameter::F32(values) => values.len(),
        _ => 0,
    };
    Ok(parameters.iter().map(values).sum())
}

/// Seconds of the steps, one after another; stops when there are enough.
struct Steps<'a> {
    stop: &'a AtomicBool,
    last: Instant,
    seconds: Vec<f64>,
}

impl Progress for Steps<'_> {
    fn step(&mut self, _: &StepRecord) {
        self.seconds.push(self.last.elapsed().as_secs_f64());
        self.last = Instant::now();
        self.stop.store(self.seconds.len() == WARM_UP + COUNTED, Ordering::Relaxed);
    }
}

/// Makes up rows, and reads them as a training does.
fn rows(n: usize) -> Result<(Features, Examples)> {
    let names = |letter: char, n: usize| (0..n).map(move |at| format!("{letter}{at}"));
    let names: Vec<String> = std::iter::once("label".to_owned())
        .chain(names('c', CATEGORIES))
        .chain(names('x', NUMBERS))
        .collect();
    let mut text = names.join(",");
    let mut words = vec![0; 1 + CATEGORIES + NUMBERS];
    for row in 0..n as u64 {
        Draws::new(0, row).fill(0, &mut words);
        let (label, others) = (words[0] % 4 / 3, &words[1..]);
        // A string takes whatever is written.
        let _ = write!(text, "\n{label}");
        for &word in &others[..CATEGORIES] {
            // Uniform in the logarithm: the first value as often as the last half of them.
            let _ = write!(text, ",{}", f64::from(BUCKETS).powf(f64::from(unit(word))) as u32);
        }
        for &word in &others[CATEGORIES..] {
            let _ = write!(text, ",{}", unit(word));
        }
    }
    text.push('\n');
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("rows.csv");
    fs_err::write(&path, text)?;
    let columns = names.into_iter().map(|name| {
        let kind = match name.as_bytes()[0] {
            b'l' => ColumnKind::Label,
            b'c' => ColumnKind::Categorical(Encoding::Hashed { buckets: BUCKETS }),
            _ => ColumnKind::Numeric(Numeric::default()),
        };
        FeatureColumn { name, kind }
    });
    let schema = Schema { columns: columns.collect(), ..Schema::default() };
    let (paths, read) = ([path.display().to_string()], ReadOptions::default());
    let (features, _) = Features::fit(&schema, &paths, &read)?;
    let (examples, _) = Examples::read(&features, &paths, &read, u64::MAX)?;
    Ok((features, examples))
}

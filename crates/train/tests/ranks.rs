//! Several ranks that share each batch and the rows of the tables learn what one learns.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod rows;

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use recmill_core::{
    directory::Config,
    rankers::{Ranker, RankerConfig},
};
use recmill_train::{
    Error, Progress,
    gradient::{Checkpoint, CheckpointOptions, Descent, RankTraining, StepRecord},
};
use serde_json::json;

use rows::{Data, config, scores};

fn training<'a>(data: &'a Data, config: &'a RankerConfig) -> RankTraining<'a> {
    RankTraining {
        valid: Some(data.all()),
        metric: "logloss",
        seed: 5,
        ..RankTraining::new(&config.learning, &data.features, &data.examples)
    }
}

fn on_ranks(training: &RankTraining<'_>, config: &RankerConfig, n: usize) -> (Ranker, Descent) {
    training.run_on_threads(config, n, &AtomicBool::new(false), &mut ()).unwrap()
}

/// Scores of every row, losses and metrics of every epoch: what a training comes to.
fn outcome(data: &Data, (ranker, descent): (Ranker, Descent)) -> Vec<f64> {
    let rows: Vec<u64> = (0..data.examples.len() as u64).collect();
    let mut all: Vec<f64> =
        scores(&ranker, &data.batch(&rows)).into_iter().map(|score| score.into()).collect();
    for epoch in descent.epochs {
        all.push(epoch.loss.unwrap());
        all.push(epoch.metrics["logloss"]);
    }
    all.push(descent.kept_epoch.into());
    all
}

fn assert_close(one: &[f64], other: &[f64], within: f64, what: &str) {
    assert_eq!(one.len(), other.len());
    let apart = one.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(apart < within, "{what}: {apart} apart");
}

/// Epochs of 7 batches, the last of two rows, so that two of four ranks have none of it.
const ROWS: usize = 302;

#[test]
fn four_ranks_learn_what_one_learns() {
    for (name, labels, learning) in [
        (
            "deepfm",
            &["both"][..],
            json!({"optimizer": "sgd", "table_optimizer": "sgd", "learning_rate": 0.3}),
        ),
        ("deepfm", &["both"], json!({"dropout": 0.2, "accumulate": 2, "clip_norm": 0.1})),
        ("dcn-v2", &["both"], json!({"optimizer": "adagrad", "table_optimizer": "row-wise-adagrad"})),
        ("mmoe", &["both", "other"], json!({"table_optimizer": "adagrad", "weight_decay": 0.001})),
        ("logistic", &["both"], json!({"table_optimizer": "ftrl", "embedding_l2": 0.001})),
    ] {
        let data = Data::new(labels, ROWS);
        let mut learning = learning;
        learning["epochs"] = 3.into();
        let config = config(name, learning.clone());
        let training = training(&data, &config);
        let one = outcome(&data, on_ranks(&training, &config, 1));
        let alone = training.run(&config, &AtomicBool::new(false), &mut ()).unwrap();
        assert_eq!(outcome(&data, alone), one, "one rank is no rank");
        for n in [2, 4] {
            let several = outcome(&data, on_ranks(&training, &config, n));
            assert_close(&one, &several, 1e-4, &format!("{name} {learning}, {n} ranks"));
            assert_eq!(
                several,
                outcome(&data, on_ranks(&training, &config, n)),
                "the same ranks, the same bits"
            );
        }
    }
}

/// Ranks normalize their parts of a batch by themselves, so that four do not learn what one does; but all remember the same.
#[test]
fn ranks_remember_the_same_statistics() {
    let data = Data::new(&["both"], ROWS);
    let config = config("dlrm", json!({"batch_norm": true, "epochs": 4}));
    let training = training(&data, &config);
    let rows: Vec<u64> = (0..ROWS as u64).collect();
    let batch = data.batch(&rows);
    for n in [1, 2, 4] {
        let (ranker, descent) = on_ranks(&training, &config, n);
        // Each rank has validated a part with its own network: only rank 0's is left.
        let kept = &descent.epochs[descent.kept_epoch as usize - 1];
        let losses = scores(&ranker, &batch).into_iter().zip(&batch.labels);
        let losses = losses.map(|(p, &y)| -f64::from(if y > 0.5 { p } else { 1.0 - p }).ln());
        let mean = losses.sum::<f64>() / ROWS as f64;
        assert!((kept.metrics["logloss"] - mean).abs() < 1e-5, "{n} ranks: {mean}");
        assert!(mean < descent.epochs[0].metrics["logloss"], "{n} ranks have learnt: {mean}");
        let again = outcome(&data, on_ranks(&training, &config, n));
        assert_eq!(outcome(&data, (ranker, descent)), again, "the same ranks, the same bits");
    }
}

/// Stops after so many steps.
struct StopAfter<'a>(u64, &'a AtomicBool);

impl Progress for StopAfter<'_> {
    fn step(&mut self, _: &StepRecord) {
        self.0 -= 1;
        self.1.store(self.0 == 0, Ordering::Relaxed);
    }
}

fn stop_after(
    steps: u64,
    run: &RankTraining<'_>,
    config: &RankerConfig,
    ranks: usize,
    folder: &Path,
) -> Checkpoint {
    let about = Config { model: serde_json::to_value(config).unwrap(), ..Config::default() };
    let options = CheckpointOptions::new(folder, about);
    let stop = AtomicBool::new(false);
    let run = RankTraining { checkpoints: Some(&options), ..training_of(run) };
    run.run_on_threads(config, ranks, &stop, &mut StopAfter(steps, &stop)).unwrap();
    Checkpoint::newest(folder).unwrap()
}

fn training_of<'a>(run: &RankTraining<'a>) -> RankTraining<'a> {
    RankTraining {
        valid: run.valid,
        metric: run.metric,
        seed: run.seed,
        ..RankTraining::new(run.learning, run.features, run.train.examples)
    }
}

#[test]
fn any_number_of_ranks_goes_on_from_what_another_number_wrote() {
    let data = Data::new(&["both"], ROWS);
    let config = config("dcn-v2", json!({"epochs": 3, "table_precision": "f32"}));
    let run = training(&data, &config);
    let expected = outcome(&data, on_ranks(&run, &config, 1));
    for (wrote, goes_on, steps) in [(1, 4, 9), (4, 1, 9), (3, 2, 7), (4, 4, 16)] {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = stop_after(steps, &run, &config, wrote, folder.path());
        let resumed = RankTraining { resume: Some(&checkpoint), ..training_of(&run) };
        let several = outcome(&data, on_ranks(&resumed, &config, goes_on));
        assert_close(&expected, &several, 1e-4, &format!("{wrote} ranks, then {goes_on}"));
        if wrote == goes_on {
            assert_eq!(several, outcome(&data, on_ranks(&run, &config, wrote)), "the same bits");
        }
    }
}

#[test]
fn the_rank_that_fails_says_why() {
    let data = Data::new(&["both"], ROWS);
    let config = config("fm", json!({"optimizer": "sgd", "table_optimizer": "sgd", "learning_rate": 1e30}));
    let failed = training(&data, &config).run_on_threads(&config, 4, &AtomicBool::new(false), &mut ());
    match failed.err() {
        Some(Error::NotFiniteLoss { rows, .. }) => assert!(rows.contains("rows.csv:"), "{rows}"),
        other => panic!("{other:?}"),
    }
}

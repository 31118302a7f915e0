//! Training that was interrupted and resumed ends as training that was not, wherever it was interrupted.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod rows;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use recmill_core::{
    directory::{Claim, Config, Disk, ModelDirectory, Verify, list_versions},
    rankers::{Ranker, RankerConfig},
};
use recmill_train::{
    EpochRecord, Error, Progress,
    gradient::{Checkpoint, CheckpointOptions, Descent, RankTraining, Rows, StepRecord},
};
use serde_json::json;

use rows::{Data, bits, config};

/// Asks training to stop after so many steps, and notes the checkpoints.
struct StopAfter<'a> {
    steps: u64,
    stop: &'a AtomicBool,
    written: Vec<(u64, PathBuf)>,
}

impl Progress for StopAfter<'_> {
    fn step(&mut self, _: &StepRecord) {
        self.steps = self.steps.saturating_sub(1);
        self.stop.store(self.steps == 0, Ordering::Relaxed);
    }

    fn checkpoint(&mut self, steps: u64, path: &Path) {
        self.written.push((steps, path.to_owned()));
    }
}

fn training<'a>(data: &'a Data, config: &'a RankerConfig) -> RankTraining<'a> {
    RankTraining {
        valid: Some(data.all()),
        seed: 5,
        ..RankTraining::new(&config.learning, &data.features, &data.examples)
    }
}

fn options(folder: &Path, config: &RankerConfig) -> CheckpointOptions {
    let about = Config { model: serde_json::to_value(config).unwrap(), ..Config::default() };
    CheckpointOptions::new(folder, about)
}

fn whole(training: &RankTraining<'_>, config: &RankerConfig) -> (Ranker, Descent) {
    training.run(config, &AtomicBool::new(false), &mut ()).unwrap()
}

/// What training has come to, but for the seconds that it took.
fn outcome((ranker, mut descent): (Ranker, Descent)) -> (Vec<(String, Vec<u32>)>, Descent) {
    for epoch in &mut descent.epochs {
        *epoch = EpochRecord {
            epoch: epoch.epoch,
            loss: epoch.loss,
            metrics: std::mem::take(&mut epoch.metrics),
            ..EpochRecord::default()
        };
    }
    (bits(ranker), descent)
}

/// Promise 11. Epochs of 6 steps are interrupted within, at their end, and twice in a row.
#[test]
fn bitwise() {
    let data = Data::new(&["both"], 300);
    for (name, learning) in [
        ("deepfm", json!({})),
        (
            "dcn-v2",
            json!({"table_optimizer": "row-wise-adagrad", "table_precision": "bf16", "schedule": "cosine"}),
        ),
        ("dlrm", json!({"batch_norm": true, "accumulate": 3})),
        ("wide-deep", json!({"table_optimizer": "ftrl", "optimizer": "adagrad", "accumulate": 2})),
        ("logistic", json!({"table_optimizer": "sgd", "optimizer": "sgd"})),
    ] {
        let mut learning = learning;
        learning["epochs"] = 3.into();
        let config = config(name, learning);
        let expected = outcome(whole(&training(&data, &config), &config));
        for interruptions in [[1, 1], [4, 2], [6, 6], [11, 3], [17, 1]] {
            let folder = tempfile::tempdir().unwrap();
            let options = options(&folder.path().join("checkpoints"), &config);
            let mut resume = None;
            let mut steps = 0;
            for after in interruptions {
                let stop = AtomicBool::new(false);
                let mut progress = StopAfter { steps: after, stop: &stop, written: Vec::new() };
                let run = RankTraining {
                    checkpoints: Some(&options),
                    resume: resume.as_ref(),
                    ..training(&data, &config)
                };
                run.run(&config, &stop, &mut progress).unwrap();
                steps += after;
                assert_eq!(progress.written.len(), 1);
                assert_eq!(progress.written[0].0, steps);
                resume = Some(Checkpoint::newest(&options.folder).unwrap());
            }
            let run = RankTraining { resume: resume.as_ref(), ..training(&data, &config) };
            assert_eq!(outcome(whole(&run, &config)), expected, "{name}, stopped after {interruptions:?}");
        }
    }
}

/// Promise 9, in training: whatever call of the file system fails, or is the last one, what is found goes on to the same end.
#[test]
fn a_failure_at_every_filesystem_call() {
    let data = Data::new(&["both"], 150);
    let config = config("fm", json!({"epochs": 1}));
    let expected = outcome(whole(&training(&data, &config), &config));
    let mut ended_at = None;
    let mut resumed = 0;
    for failing in 1.. {
        let folder = tempfile::tempdir().unwrap();
        let calls = Arc::new(AtomicU64::new(0));
        let counter = calls.clone();
        let disk = Disk::with_hook(move |_| match counter.fetch_add(1, Ordering::Relaxed) + 1 {
            now if now >= failing => Err(io::Error::other("the disk is gone")),
            _ => Ok(()),
        });
        let options = CheckpointOptions {
            every_steps: Some(1),
            disk,
            ..options(&folder.path().join("checkpoints"), &config)
        };
        let run = RankTraining { checkpoints: Some(&options), ..training(&data, &config) };
        let ended = run.run(&config, &AtomicBool::new(false), &mut ());
        let undisturbed = calls.load(Ordering::Relaxed) < failing;
        if let Ok(trained) = ended {
            // Sweeping and pruning may fail without harm.
            assert_eq!(outcome(trained), expected);
        }
        let resume = Checkpoint::newest(&options.folder).ok();
        resumed += u64::from(resume.is_some());
        let run = RankTraining { resume: resume.as_ref(), ..training(&data, &config) };
        assert_eq!(outcome(whole(&run, &config)), expected, "call {failing} failed");
        if undisturbed {
            ended_at = Some(failing);
            break;
        }
    }
    assert!(ended_at.unwrap() > 60 && resumed > 40, "{ended_at:?} {resumed}");
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_one_before() {
    let data = Data::new(&["both"], 150);
    let config = config("fm", json!({"epochs": 2}));
    let expected = outcome(whole(&training(&data, &config), &config));
    let folder = tempfile::tempdir().unwrap();
    let options = CheckpointOptions { every_steps: Some(1), ..options(folder.path(), &config) };
    let run = RankTraining { checkpoints: Some(&options), ..training(&data, &config) };
    whole(&run, &config);
    let (versions, current) = list_versions(folder.path()).unwrap();
    assert_eq!((versions, current), (vec![5, 6], Some(6)), "two are kept");

    let damaged = folder.path().join("versions/6/model.safetensors");
    let mut bytes = fs_err::read(&damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs_err::write(&damaged, bytes).unwrap();
    let found = Checkpoint::newest(folder.path()).unwrap();
    assert_eq!(found.directory.version(), "5");
    assert_eq!(found.damaged.len(), 1);
    let run = RankTraining { resume: Some(&found), ..training(&data, &config) };
    assert_eq!(outcome(whole(&run, &config)), expected);

    fs_err::remove_file(folder.path().join("versions/5/config.sha256")).unwrap();
    let error = Checkpoint::newest(folder.path()).unwrap_err();
    assert!(error.to_string().contains("versions/6"), "{error}");
}

#[test]
fn a_checkpoint_is_a_model_of_its_step() {
    let data = Data::new(&["both"], 150);
    let config = config("deepfm", json!({"epochs": 1, "dropout": 0.0}));
    let folder = tempfile::tempdir().unwrap();
    let options = CheckpointOptions { every_steps: Some(3), ..options(folder.path(), &config) };
    let run = RankTraining { checkpoints: Some(&options), ..training(&data, &config) };
    let (trained, _) = whole(&run, &config);
    // The last step of the only epoch is the third.
    let opened = ModelDirectory::open(folder.path(), Verify::Full).unwrap().ranker().unwrap();
    let batch = data.batch(&(0..150).collect::<Vec<u64>>());
    assert_eq!(rows::scores(&opened, &batch), rows::scores(&trained, &batch));
}

#[test]
fn a_checkpoint_of_another_training_is_refused() {
    let data = Data::new(&["both"], 150);
    let config = config("fm", json!({"epochs": 1}));
    let folder = tempfile::tempdir().unwrap();
    let options = CheckpointOptions { every_steps: Some(1), ..options(folder.path(), &config) };
    let run = RankTraining { checkpoints: Some(&options), ..training(&data, &config) };
    whole(&run, &config);
    let claimed = Claim::on(&Disk::default(), folder.path()).unwrap();
    let error = run.run(&config, &AtomicBool::new(false), &mut ()).err().unwrap();
    assert!(matches!(error, Error::Core(recmill_core::Error::Busy { .. })), "{error}");
    drop(claimed);
    whole(&run, &config);
    let checkpoint = Checkpoint::newest(folder.path()).unwrap();
    let refused = |run: RankTraining<'_>, config: &RankerConfig| {
        let run = RankTraining { resume: Some(&checkpoint), ..run };
        run.run(config, &AtomicBool::new(false), &mut ()).err().unwrap()
    };

    let other = RankTraining { seed: 6, ..training(&data, &config) };
    assert!(matches!(refused(other, &config), Error::Resume { what: "seed", .. }));
    let other = RankTraining { metric: "logloss", ..training(&data, &config) };
    let error = refused(other, &config);
    assert!(matches!(error, Error::Resume { what: "the metric of the best epoch", .. }), "{error}");
    let fewer = Data::new(&["both"], 149);
    let error = refused(training(&fewer, &config), &config);
    assert!(matches!(error, Error::Resume { what: "rows to learn from", .. }), "{error}");
    let labelled = Data::new(&["other"], 150);
    let other = RankTraining { valid: Some(data.all()), ..training(&labelled, &config) };
    let error = refused(other, &config);
    assert!(matches!(error, Error::Resume { what: "the hash of the data to learn from", .. }), "{error}");
    let some: Vec<u64> = (0..150).rev().collect();
    let other = Rows { rows: Some(&some), ..data.all() };
    let error = refused(RankTraining { valid: Some(other), ..training(&data, &config) }, &config);
    assert!(matches!(error, Error::Resume { what: "the hash of what is validated on", .. }), "{error}");
    let mut other = config.clone();
    other.learning.batch_size = 51;
    assert!(matches!(refused(training(&data, &other), &other), Error::Resume { what: "batch_size", .. }));
    let other = rows::config("deepfm", json!({"epochs": 1}));
    assert!(matches!(refused(training(&data, &other), &other), Error::Core(_)));
    let mut other = config.clone();
    other.learning.table_optimizer = recmill_core::rankers::TableOptimizer::Ftrl;
    // FTRL's two tables look like Adam's two; a third optimizer has another number of them.
    other.learning.table_optimizer = recmill_core::rankers::TableOptimizer::Adagrad;
    assert!(matches!(refused(training(&data, &other), &other), Error::Kernel(_)));
}

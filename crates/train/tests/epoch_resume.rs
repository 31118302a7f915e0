//! A model that learns epoch by epoch, interrupted and gone on with, ends as one that was not interrupted.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod examples;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use examples::{all_models, bytes, taste_groups};
use recmill_core::{
    Dataset,
    directory::{Config, ModelDirectory, Verify},
    models::{ModelConfig, Precision, Retriever},
};
use recmill_train::{
    EpochCheckpoints, EpochRecord, Error, Progress, Trained, Training, Validation,
    gradient::{Checkpoint, CheckpointOptions},
};

/// Finds the second epoch the best, by what the model is and not by how often it was asked.
struct Second(Vec<u8>);

impl Validation for Second {
    fn metric(&self) -> &str {
        "second"
    }

    fn measure(&mut self, model: &dyn Retriever) -> recmill_train::Result<BTreeMap<String, f64>> {
        let is_second = all(&model.parameters()?) == self.0;
        Ok(BTreeMap::from([("second".to_owned(), f64::from(u8::from(is_second)))]))
    }
}

fn all(parameters: &recmill_core::Parameters) -> Vec<u8> {
    bytes(parameters).into_iter().flat_map(|(_, bytes)| bytes).collect()
}

/// Asks training to stop after an epoch.
struct StopAfter<'a>(u32, &'a AtomicBool);

impl Progress for StopAfter<'_> {
    fn epoch(&mut self, record: &EpochRecord) {
        self.1.store(record.epoch == self.0, Ordering::Relaxed);
    }
}

/// Keeps the model of the second epoch.
struct Keep(Option<Vec<u8>>, u32);

impl Validation for Keep {
    fn metric(&self) -> &str {
        "n"
    }

    fn measure(&mut self, model: &dyn Retriever) -> recmill_train::Result<BTreeMap<String, f64>> {
        self.1 += 1;
        if self.1 == 2 {
            self.0 = Some(all(&model.parameters()?));
        }
        Ok(BTreeMap::from([("n".to_owned(), 0.0)]))
    }
}

fn with_iterations(config: &ModelConfig, n: u32) -> Option<ModelConfig> {
    let mut json = serde_json::to_value(config).unwrap();
    *json.get_mut("iterations")? = n.into();
    Some(serde_json::from_value(json).unwrap())
}

/// What training has come to, but for the seconds that it took: parameters, epochs, and which was kept.
type Outcome = (Vec<(String, Vec<u8>)>, Vec<EpochRecord>, u32);

fn outcome(trained: Trained) -> Outcome {
    let epochs = trained.epochs.into_iter().map(|record| EpochRecord {
        epoch: record.epoch,
        loss: record.loss,
        metrics: record.metrics,
        ..EpochRecord::default()
    });
    (bytes(&trained.model.parameters().unwrap()), epochs.collect(), trained.kept_epoch)
}

fn checkpoints<'a>(
    config: &ModelConfig,
    data: &'a Dataset,
    folder: &std::path::Path,
) -> EpochCheckpoints<'a> {
    let about = Config { model: serde_json::to_value(config).unwrap(), ..Config::default() };
    let options = CheckpointOptions::new(folder, about);
    EpochCheckpoints { options, dataset: data, item_attributes: None, user_attributes: None }
}

/// Promise 11 of models that learn epoch by epoch: with and without validation, stopped before and after the best epoch, and twice.
#[test]
fn bitwise() {
    let data = taste_groups(60, 30);
    let mut models: Vec<ModelConfig> =
        all_models().iter().filter_map(|config| with_iterations(config, 5)).collect();
    // What is stored in half precision is not what is learned with.
    let of_mf = |config: &ModelConfig| match config {
        ModelConfig::Mf(mf) => {
            Some(ModelConfig::Mf(recmill_core::models::MfConfig { precision: Precision::F16, ..mf.clone() }))
        }
        _ => None,
    };
    models.extend(models.clone().iter().find_map(of_mf));
    for config in &models {
        let mut keep = Keep(None, 0);
        let never = AtomicBool::new(false);
        Training::new(config, &data).run(Some(&mut keep), &never, &mut ()).unwrap();
        let second = keep.0.unwrap();
        for validated in [true, false] {
            let run = |training: Training<'_>, stop: &AtomicBool, after: u32| {
                let mut validation = Second(second.clone());
                let validation = validated.then_some(&mut validation as &mut dyn Validation);
                training.run(validation, stop, &mut StopAfter(after, stop)).unwrap()
            };
            let expected = outcome(run(Training::new(config, &data), &AtomicBool::new(false), 0));
            assert_eq!(expected.2, if validated { 2 } else { 5 }, "{}", config.name());
            for stops in [[1, 3], [2, 4], [3, 0]] {
                let folder = tempfile::tempdir().unwrap();
                let to = checkpoints(config, &data, folder.path());
                let mut resume: Option<Checkpoint> = None;
                for after in stops.into_iter().filter(|&after| after > 0) {
                    let training = Training {
                        checkpoints: Some(&to),
                        resume: resume.as_ref(),
                        ..Training::new(config, &data)
                    };
                    let stopped = run(training, &AtomicBool::new(false), after);
                    assert_eq!(stopped.epochs.len() as u32, after);
                    resume = Some(Checkpoint::newest(folder.path()).unwrap());
                }
                let training = Training { resume: resume.as_ref(), ..Training::new(config, &data) };
                let resumed = outcome(run(training, &AtomicBool::new(false), 0));
                assert!(
                    resumed == expected,
                    "{}, validated {validated}, stopped after {stops:?}",
                    config.name()
                );
            }
        }
    }
}

#[test]
fn a_checkpoint_is_a_model_that_answers() {
    let data = taste_groups(60, 30);
    let config = with_iterations(&ModelConfig::default_of("mf").unwrap(), 3).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut to = checkpoints(&config, &data, folder.path());
    to.options.every_steps = Some(2);
    let never = AtomicBool::new(false);
    let whole = Training { checkpoints: Some(&to), ..Training::new(&config, &data) };
    whole.run(None, &never, &mut ()).unwrap();
    let two = with_iterations(&config, 2).unwrap();
    let expected = Training::new(&two, &data).run(None, &never, &mut ()).unwrap();
    let found = ModelDirectory::open(folder.path(), Verify::Full).unwrap();
    assert_eq!(found.epochs().unwrap().len(), 2, "the third is the last, and no checkpoint");
    let recommender = found.recommender().unwrap();
    assert_eq!(recommender.users().len(), data.n_users());
    let mut stored = found.parameters().unwrap();
    let users = stored.take_table("user_factors").unwrap().to_f32().unwrap();
    let mut expected = expected.model.parameters().unwrap();
    assert_eq!(users, expected.take_table("user_factors").unwrap().to_f32().unwrap());
}

#[test]
fn a_checkpoint_of_another_training_is_refused() {
    let (data, other) = (taste_groups(60, 30), taste_groups(61, 30));
    let config = with_iterations(&ModelConfig::default_of("bpr").unwrap(), 3).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut to = checkpoints(&config, &data, folder.path());
    to.options.every_steps = Some(1);
    let never = AtomicBool::new(false);
    Training { checkpoints: Some(&to), ..Training::new(&config, &data) }.run(None, &never, &mut ()).unwrap();
    let checkpoint = Checkpoint::newest(folder.path()).unwrap();
    let refused = |training: Training<'_>| {
        let error =
            Training { resume: Some(&checkpoint), ..training }.run(None, &never, &mut ()).err().unwrap();
        assert!(matches!(error, Error::Resume { .. }), "{error}");
        error.to_string()
    };
    assert!(refused(Training::new(&config, &other)).starts_with("rows to learn from"));
    assert!(refused(Training { seed: 1, ..Training::new(&config, &data) }).starts_with("seed"));
    let wider = serde_json::json!({"model": "bpr", "factors": 7, "iterations": 3});
    let wider: ModelConfig = serde_json::from_value(wider).unwrap();
    assert!(refused(Training::new(&wider, &data)).starts_with("rows of a table"));
}

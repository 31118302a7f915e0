//! What every ranker promises: it learns crosses, the same seed gives the same bytes, a row's score is its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod rows;

use std::sync::atomic::AtomicBool;

use recmill_core::rankers::{LearningConfig, Measuring, RankerConfig, RankerModel};
use recmill_train::{EpochRecord, Error, gradient::RankTraining};
use serde_json::json;

use rows::{Data, bits, config, scores};

#[test]
fn every_model_learns_a_cross_of_two_categories_but_the_linear_one() {
    let data = Data::new(&["both"], 1000);
    let every: Vec<u64> = (0..1000).collect();
    let batch = data.batch(&every);
    for name in RankerModel::NAMES {
        let (ranker, descent) = data.train(&config(name, json!({})), 0);
        let losses: Vec<f64> = descent.epochs.iter().filter_map(|epoch| epoch.loss).collect();
        assert!(losses[11] < losses[0], "{name}: {losses:?}");
        let mut measuring = Measuring::new(data.features.labels());
        measuring.add(&scores(&ranker, &batch), &batch);
        let auc = measuring.finish().unwrap().metrics["auc"];
        match name {
            "logistic" => assert!((0.5..0.8).contains(&auc), "{name}: {auc}"),
            _ => assert!(auc > 0.93, "{name}: {auc}"),
        }
        let best = descent.epochs.iter().map(|epoch| epoch.metrics["auc"]).fold(0.0, f64::max);
        assert_eq!(best, auc, "{name}: what is returned is the best epoch");
    }
}

#[test]
fn a_row_has_the_same_score_alone_and_in_any_batch() {
    let data = Data::new(&["both"], 300);
    let wide = [
        ("dcn-v2", json!({"epochs": 1, "rank": 5, "structure": "stacked", "embedding_dim": 19})),
        ("finalmlp", json!({"epochs": 1, "hidden": [90], "hidden2": [60], "heads": 2, "embedding_dim": 19})),
        ("autoint", json!({"epochs": 1, "attention_dim": 19, "embedding_dim": 19, "hidden": [70]})),
    ];
    let small = RankerModel::NAMES.map(|name| (name, json!({"epochs": 1})));
    for (name, learning) in small.into_iter().chain(wide) {
        let (ranker, _) = data.train(&config(name, learning), 0);
        let rows: Vec<u64> = (0..300).collect();
        let together = scores(&ranker, &data.batch(&rows));
        for row in [0, 1, 150, 299] {
            assert_eq!(scores(&ranker, &data.batch(&[row])), [together[row as usize]], "{name}: row {row}");
        }
        let some = scores(&ranker, &data.batch(&rows[7..40]));
        assert_eq!(some, together[7..40], "{name}");
        assert!(scores(&ranker, &data.batch(&[])).is_empty());
    }
}

/// Callers inside one pool: a worker that waits for its own work takes up another caller's.
#[test]
fn many_callers_of_one_pool_score_at_once() {
    let data = Data::new(&["both"], 2000);
    let (ranker, _) = data.train(&config("dcn-v2", json!({"epochs": 1, "hidden": [128]})), 0);
    let batch = data.batch(&(0..2000).collect::<Vec<u64>>());
    let expected = scores(&ranker, &batch);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    pool.scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|_| assert_eq!(scores(&ranker, &batch), expected));
        }
    });
}

#[test]
fn the_same_seed_gives_the_same_bytes_whatever_the_loader_s_threads() {
    let data = Data::new(&["both"], 300);
    for name in ["deepfm", "dcn-v2", "mmoe"] {
        let config = config(name, json!({"epochs": 2}));
        let first = bits(data.try_train(&config, 3, 1).unwrap().0);
        assert_eq!(first, bits(data.try_train(&config, 3, 3).unwrap().0), "{name}");
        assert_ne!(first, bits(data.try_train(&config, 4, 1).unwrap().0), "{name}");
        let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
        assert!(
            names.contains(&"embedding") && names.iter().any(|name| name.starts_with("dense_")),
            "{names:?}"
        );
    }
}

#[test]
fn a_stored_ranker_scores_as_the_trained_one() {
    use recmill_core::directory::{Config, ModelDirectory, Saved, Verify, save};
    let data = Data::new(&["both"], 200);
    let batch = data.batch(&(0..200).collect::<Vec<u64>>());
    for name in RankerModel::NAMES {
        for precision in ["f32", "f16"] {
            let config = config(name, json!({"epochs": 1, "table_precision": precision}));
            let (ranker, _) = data.train(&config, 0);
            let expected = scores(&ranker, &batch);
            let (config, features, parameters) = ranker.into_parts().unwrap();
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().join("model");
            let stored = Config { model: serde_json::to_value(&config).unwrap(), ..Config::default() };
            let saved = Saved::ranker(&stored, &features, &parameters, &[]);
            save(&root, &saved, 3).unwrap();
            let directory = ModelDirectory::open(&root, Verify::Full).unwrap();
            assert!(directory.is_ranker());
            let opened = directory.ranker().unwrap();
            assert_eq!(opened.config(), &config);
            assert_eq!(scores(&opened, &batch), expected, "{name} {precision}");
        }
    }
}

#[test]
fn several_labels_are_learned_at_once() {
    let data = Data::new(&["both", "other"], 1000);
    let batch = data.batch(&(0..1000).collect::<Vec<u64>>());
    for name in ["shared-bottom", "mmoe"] {
        let (ranker, _) = data.train(&config(name, json!({})), 0);
        let mut measuring = Measuring::new(data.features.labels());
        measuring.add(&scores(&ranker, &batch), &batch);
        let metrics = measuring.finish().unwrap().metrics;
        assert!(metrics["auc/both"] > 0.93 && metrics["auc/other"] > 0.93, "{name}: {metrics:?}");
    }
}

#[test]
fn pieces_of_a_batch_make_the_step_of_the_whole() {
    let data = Data::new(&["both"], 200);
    let loss = |accumulate: usize, precision: &str| {
        let learning =
            json!({"epochs": 2, "accumulate": accumulate, "dropout": 0.0, "table_precision": precision});
        data.train(&config("deepfm", learning), 0).1.epochs[1].loss.unwrap()
    };
    let (whole, pieces) = (loss(1, "f32"), loss(4, "f32"));
    assert!((whole - pieces).abs() < 1e-5, "{whole} beside {pieces}");
    assert!((loss(1, "bf16") - whole).abs() < 0.02);
}

#[test]
fn every_optimizer_and_schedule_learns() {
    let data = Data::new(&["both"], 600);
    let optimizers = [
        json!({"optimizer": "sgd", "table_optimizer": "sgd", "learning_rate": 0.5, "init_scale": 0.3}),
        json!({"optimizer": "adagrad", "table_optimizer": "adagrad", "learning_rate": 0.1}),
        json!({"optimizer": "adagrad", "table_optimizer": "row-wise-adagrad", "learning_rate": 0.1}),
        json!({"optimizer": "adamw", "weight_decay": 0.01, "schedule": "cosine", "warmup_steps": 5}),
        json!({"optimizer": "adam", "table_optimizer": "ftrl", "table_learning_rate": 0.2, "schedule": "linear"}),
        json!({"clip_norm": 0.05, "embedding_l2": 0.0001, "weight_decay": 0.0001}),
    ];
    for learning in optimizers {
        let (_, descent) = data.train(&config("deepfm", learning.clone()), 0);
        let losses: Vec<f64> = descent.epochs.iter().filter_map(|epoch| epoch.loss).collect();
        assert!(losses[11] < 0.9 * losses[0], "{learning}: {losses:?}");
    }
}

#[test]
fn a_loss_that_is_not_finite_names_the_step_and_the_file_s_rows() {
    let data = Data::new(&["both"], 200);
    let config = config("fm", json!({"optimizer": "sgd", "table_optimizer": "sgd", "learning_rate": 1e30}));
    let failed = data.try_train(&config, 0, 1).err();
    match failed {
        Some(Error::NotFiniteLoss { epoch: 1, step, rows, checkpoint: None }) => {
            assert!(step > 1 && rows.contains("rows.csv:"), "{step} {rows}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn learning_without_validation_keeps_the_last_epoch() {
    let data = Data::new(&["both"], 100);
    let config = RankerConfig {
        learning: LearningConfig { epochs: 2, ..LearningConfig::default() },
        ..config("fm", json!({}))
    };
    let training = RankTraining {
        patience: Some(1),
        ..RankTraining::new(&config.learning, &data.features, &data.examples)
    };
    let (_, descent) = training.run(&config, &AtomicBool::new(false), &mut ()).unwrap();
    assert_eq!((descent.kept_epoch, descent.epochs.len()), (2, 2));
    assert!(descent.epochs[0].metrics.is_empty());
}

#[test]
fn an_epoch_that_is_stopped_tells_the_loss_of_what_it_learned_from() {
    let data = Data::new(&["both"], 200);
    let config = config("fm", json!({"epochs": 3}));
    let training = RankTraining::new(&config.learning, &data.features, &data.examples);
    let (_, descent) = training.run(&config, &AtomicBool::new(true), &mut ()).unwrap();
    assert_eq!(descent.epochs.len(), 1);
    // One batch of four was learned from, by parameters that know nothing yet; were the sum divided by all rows, it
    // would be a quarter.
    let loss = descent.epochs[0].loss.unwrap();
    assert!((loss - std::f64::consts::LN_2).abs() < 0.01, "{loss}");
}

#[test]
fn the_epoch_of_the_lowest_log_loss_of_one_label_is_kept() {
    let data = Data::new(&["both", "other"], 200);
    let config = config("mmoe", json!({"epochs": 4, "learning_rate": 0.3}));
    let training = RankTraining {
        valid: Some(data.all()),
        metric: "logloss/other",
        ..RankTraining::new(&config.learning, &data.features, &data.examples)
    };
    let (_, descent) = training.run(&config, &AtomicBool::new(false), &mut ()).unwrap();
    let value = |epoch: &EpochRecord| epoch.metrics["logloss/other"];
    let lowest = descent.epochs.iter().map(value).min_by(f64::total_cmp).unwrap();
    let kept = &descent.epochs[descent.kept_epoch as usize - 1];
    assert_eq!(value(kept), lowest);
}

//! Rows to rank, a small network of each kind, and what a trained one holds.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::{fmt::Write, sync::atomic::AtomicBool};

use recmill_core::{
    Parameter,
    data::ReadOptions,
    features::{Examples, FeatureBatch, Features, SchemaOptions, infer_schema},
    rankers::{Ranker, RankerConfig},
};
use recmill_train::{
    EpochRecord,
    gradient::{Descent, RankTraining, Rows},
};
use serde_json::{Value, json};

/// A file of rows whose label is a cross of two categories, with a number that shifts it; a second label is its opposite.
pub(crate) struct Data {
    _folder: tempfile::TempDir,
    pub(crate) features: Features,
    pub(crate) examples: Examples,
}

impl Data {
    pub(crate) fn new(labels: &[&str], rows: usize) -> Self {
        let mut text = String::from("color_id,shape_id,size,both,other\n");
        for row in 0..rows {
            // Numbers that look drawn at random and are not.
            let (color, shape) = (row * 7 % 5, row * 11 % 7);
            let size = (row * 37 % 101) as f64 / 50.0 - 1.0;
            let both = u8::from((color + shape) % 2 == 0 && size < 0.8);
            writeln!(text, "c{color},s{shape},{size},{both},{}", 1 - both).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        fs_err::write(&path, text).unwrap();
        let (paths, read) = ([path.display().to_string()], ReadOptions::default());
        let options = SchemaOptions {
            label: labels.iter().map(|&label| label.to_owned()).collect(),
            ignore: ["both", "other"]
                .into_iter()
                .filter(|name| !labels.contains(name))
                .map(str::to_owned)
                .collect(),
            ..SchemaOptions::default()
        };
        let (schema, _) = infer_schema(&paths, &read, &options).unwrap();
        let (features, _) = Features::fit(&schema, &paths, &read).unwrap();
        let (examples, _) = Examples::read(&features, &paths, &read, u64::MAX).unwrap();
        Self { _folder: folder, features, examples }
    }

    pub(crate) fn all(&self) -> Rows<'_> {
        Rows { examples: &self.examples, rows: None }
    }

    pub(crate) fn batch(&self, rows: &[u64]) -> FeatureBatch {
        let mut batch = FeatureBatch::default();
        self.examples.gather(rows, &mut batch);
        batch
    }

    pub(crate) fn train(&self, config: &RankerConfig, seed: u64) -> (Ranker, Descent) {
        self.try_train(config, seed, 1).unwrap()
    }

    pub(crate) fn try_train(
        &self,
        config: &RankerConfig,
        seed: u64,
        loader_threads: usize,
    ) -> recmill_train::Result<(Ranker, Descent)> {
        let training = RankTraining {
            learning: &config.learning,
            features: &self.features,
            train: self.all(),
            valid: Some(self.all()),
            seed,
            metric: "auc",
            patience: None,
            loader_threads,
            ..RankTraining::new(&config.learning, &self.features, &self.examples)
        };
        training.run(config, &AtomicBool::new(false), &mut Vec::<EpochRecord>::new())
    }
}

/// A small network of each kind, without batch normalization.
pub(crate) fn config(name: &str, learning: Value) -> RankerConfig {
    let mut all = json!({"model": name, "epochs": 12, "batch_size": 50, "learning_rate": 0.02});
    let own = match name {
        "logistic" => json!({}),
        "fm" => json!({"embedding_dim": 4}),
        "dlrm" => json!({"bottom": [8]}),
        "finalmlp" => json!({"hidden2": [16], "heads": 4, "gate": 4}),
        _ => json!({}),
    };
    let hidden = match name {
        "logistic" | "fm" => json!({}),
        _ => json!({"embedding_dim": 4, "hidden": [16], "dropout": 0.1, "batch_norm": false}),
    };
    for part in [hidden, own, learning] {
        all.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
    }
    serde_json::from_value(all).unwrap()
}

pub(crate) fn scores(ranker: &Ranker, batch: &FeatureBatch) -> Vec<f32> {
    let mut out = Vec::new();
    ranker.score(batch, &mut out).unwrap();
    out
}

/// Every number of a trained ranker, as bits.
pub(crate) fn bits(ranker: Ranker) -> Vec<(String, Vec<u32>)> {
    let (_, _, parameters) = ranker.into_parts().unwrap();
    let values = |parameter: &Parameter| match parameter {
        Parameter::Table(table) => table.to_f32().unwrap(),
        Parameter::F32(values) => values.to_vec().unwrap(),
        _ => panic!("a ranker has tables and numbers"),
    };
    let all = parameters.iter().map(|(name, parameter)| {
        (name.to_owned(), values(parameter).into_iter().map(f32::to_bits).collect())
    });
    all.collect()
}

//! From files of rows to a trained DCN-v2 in a model directory, and from that to scores.

use std::{path::Path, sync::atomic::AtomicBool};

use recmill::{
    data::ReadOptions,
    directory::{Config, Epoch, ModelDirectory, Saved, Verify, save},
    features::{Examples, FeatureBatch, Features},
    rankers::{DcnConfig, LearningConfig, Ranker, RankerConfig, RankerModel},
    train::gradient::{Descent, RankTraining, Rows},
};

use crate::{failure::Result, features::schema};

/// Transformed rows beyond this many bytes go to a temporary file.
const IN_MEMORY_BYTES: u64 = 1 << 30;
/// Frauds are rare: what counts is how many are among the highest scores.
const METRIC: &str = "average_precision";

/// Returns a network that is small beside the defaults: there are 15 columns and few frauds.
fn config() -> RankerConfig {
    RankerConfig {
        model: RankerModel::Dcn(DcnConfig {
            embedding_dim: 8,
            cross_layers: 2,
            hidden: vec![64, 64],
            ..DcnConfig::default()
        }),
        learning: LearningConfig { epochs: 30, batch_size: 256, ..LearningConfig::default() },
    }
}

/// Trains on the rows of `train`, keeps the epoch that is best on those of `validation`, and writes it to `model`.
pub(crate) fn train(train: &Path, validation: &Path, seed: u64, model: &Path) -> Result<Descent> {
    let (config, schema, read) = (config(), schema(), ReadOptions::default());
    let [train, validation] = [train, validation].map(|path| [path.display().to_string()]);
    let (features, _) = Features::fit(&schema, &train, &read)?;
    let (learned, _) = Examples::read(&features, &train, &read, IN_MEMORY_BYTES)?;
    let (validated, _) = Examples::read(&features, &validation, &read, IN_MEMORY_BYTES)?;

    let mut training = RankTraining::new(&config.learning, &features, &learned);
    training.valid = Some(Rows { examples: &validated, rows: None });
    (training.seed, training.metric, training.patience) = (seed, METRIC, Some(5));
    let (ranker, descent) = training.run(&config, &AtomicBool::new(false), &mut ())?;

    let (config, features, parameters) = ranker.into_parts()?;
    let about = Config {
        model: serde_json::to_value(&config)?,
        objective: config.objective(),
        schema: serde_json::json!({ "columns": schema }),
        seed,
        ..Config::default()
    };
    let epochs: Vec<Epoch> = descent.epochs.iter().map(Epoch::from).collect();
    let saved = Saved::ranker(&about, &features, &parameters, &epochs);
    save(model, &saved, 1)?;
    Ok(descent)
}

/// Opens a model directory as a server would.
pub(crate) fn open(model: &Path) -> Result<Ranker> {
    Ok(ModelDirectory::open(model, Verify::Full)?.ranker()?)
}

/// Returns the probability of fraud of each row of a file.
pub(crate) fn score(ranker: &Ranker, rows: &Path) -> Result<Vec<f32>> {
    let files = [rows.display().to_string()];
    let (examples, _) = Examples::read(ranker.features(), &files, &ReadOptions::default(), IN_MEMORY_BYTES)?;
    let (mut batch, mut scores, mut of_batch) = (FeatureBatch::default(), Vec::new(), Vec::new());
    let all: Vec<u64> = (0..examples.len() as u64).collect();
    for rows in all.chunks(4096) {
        examples.gather(rows, &mut batch);
        ranker.score(&batch, &mut of_batch)?;
        scores.extend_from_slice(&of_batch);
    }
    Ok(scores)
}

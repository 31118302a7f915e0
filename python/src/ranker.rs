//! Models that score rows of features, as Python holds them.

use std::path::{Path, PathBuf};

use numpy::PyArray2;
use pyo3::{exceptions::PyValueError, prelude::*, types::PyDict};
use recmill_core::{
    data::ReadOptions,
    directory::{Config, Epoch, ModelDirectory, Saved, Verify, save},
    features::{
        Examples, FeatureBatch, FeatureReader, Features, LabelUse, Schema, SchemaOptions, SchemaWarning,
        infer_sources,
    },
    rankers::{Measuring, Ranker as Core, RankerConfig, RankerModel},
};
use recmill_train::{
    Error,
    gradient::{RankTraining, Rows},
};
use serde_json::json;

use crate::{
    arrays::matrix,
    background::in_background,
    failure::{Failure, guarded},
    fit::{How, chosen},
    frame::Frame,
    threads::apart,
    unpacked::{files_of, unpack},
};

/// Transformed rows beyond this many bytes go to a temporary file.
const SPILL_OVER_BYTES: u64 = 4 << 30;

/// How the epochs of a ranker, or of a classifier of texts, are judged.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Judged {
    /// The share of the rows that is held out where no others are given.
    pub(crate) holdout: f64,
    pub(crate) metric: String,
    /// 0 goes through all epochs.
    pub(crate) patience: u32,
}

/// A trained model that scores rows: its directory, in a temporary place until it is saved, and what scores.
#[pyclass(frozen, module = "recmill._recmill")]
pub(crate) struct Ranker {
    directory: ModelDirectory,
    scorer: Core,
    /// What looked wrong with the columns it was fitted on.
    warnings: Vec<String>,
    /// Where the files are, of a model that came without a directory.
    _unpacked: Option<tempfile::TempDir>,
}

/// An epoch's number, its seconds, its loss, and its metrics as JSON.
pub(crate) type EpochOf = (u64, f64, Option<f64>, String);

/// Returns every epoch that the training of `directory` did.
pub(crate) fn epochs_of(py: Python<'_>, directory: &ModelDirectory) -> Result<Vec<EpochOf>, Failure> {
    let of = |epoch: Epoch| {
        let metrics = serde_json::to_string(&epoch.metrics).unwrap_or_default();
        (epoch.epoch, epoch.seconds, epoch.loss, metrics)
    };
    Ok(apart(py, || Ok(directory.epochs()?))?.into_iter().map(of).collect())
}

/// Returns the hyper-parameters of the ranker called `name` with their defaults, as JSON.
#[pyfunction]
pub(crate) fn ranker_defaults(name: &str) -> PyResult<String> {
    let Some(model) = RankerModel::default_of(name) else {
        return Err(PyValueError::new_err(format!("no model is called {name:?}")));
    };
    let config = RankerConfig { model, learning: Default::default() }.suited();
    Ok(serde_json::to_string(&config).unwrap_or_default())
}

/// Trains the ranker of `config` on the rows of a table. `columns` says what its columns are: as `{"toml": [name, text]}` or
/// `{"schema": ..}` all of them, and otherwise as far as they are not to be guessed. Without `valid` a part of the rows is held
/// out.
#[pyfunction]
pub(crate) fn fit_ranker(
    py: Python<'_>,
    config: &str,
    columns: &str,
    train: &Bound<'_, PyAny>,
    valid: Option<&Bound<'_, PyAny>>,
    judged: Judged,
    how: How,
) -> PyResult<Ranker> {
    guarded(|| {
        let wrong = |error: serde_json::Error| PyValueError::new_err(error.to_string());
        let config = serde_json::from_str::<RankerConfig>(config).map_err(wrong)?.suited();
        config.validate()?;
        let columns = Columns::of(columns)?;
        let (train, valid) = (Frame::of(train)?, valid.map(Frame::of).transpose()?);
        let device = py.detach(|| chosen(&how.device, true))?;
        let seed = how.seed;
        let (directory, unpacked, warnings) =
            in_background(py, how.threads, how.told.as_ref(), move |stop, teller| {
                let read = ReadOptions::default();
                let (schema, warnings) = match columns {
                    Columns::Told(schema) => (schema, Vec::new()),
                    Columns::Guessed(options) => {
                        let (schema, report) = infer_sources(train.sources(), &read, &options)?;
                        let said =
                            |warning: &SchemaWarning| format!("column `{}` {}", warning.column, warning.what);
                        (schema, report.warnings.iter().map(said).collect())
                    }
                };
                check(&schema, &config)?;
                let (features, _) = Features::fit_sources(&schema, train.sources(), &read)?;
                let examples = |frame: &Frame| {
                    Examples::read_sources(&features, frame.sources(), &read, SPILL_OVER_BYTES)
                };
                let (examples, validated) = (examples(&train)?.0, valid.as_ref().map(examples).transpose()?);
                drop((train, valid));
                let (learnt, held_out) = match &validated {
                    None if judged.holdout > 0.0 => examples.holdout(judged.holdout, seed),
                    _ => (Vec::new(), Vec::new()),
                };
                let held = !held_out.is_empty();
                let training = RankTraining {
                    train: Rows { examples: &examples, rows: held.then_some(&learnt) },
                    valid: match &validated {
                        Some((examples, _)) => Some(Rows { examples, rows: None }),
                        None => held.then_some(Rows { examples: &examples, rows: Some(&held_out) }),
                    },
                    seed,
                    metric: &judged.metric,
                    patience: (judged.patience > 0).then_some(judged.patience),
                    device,
                    ..RankTraining::new(&config.learning, &features, &examples)
                };
                teller.begin(config.learning.epochs as u32, device);
                let (ranker, descent) = training.run(&config, stop, teller).map_err(cannot_judge)?;
                let kept = descent.epochs.iter().find(|epoch| epoch.epoch == descent.kept_epoch);
                let (config, features, parameters) = ranker.into_parts()?;
                let stored = Config {
                    model: serde_json::to_value(&config).unwrap_or_default(),
                    objective: config.objective(),
                    schema: json!({"columns": schema}),
                    seed,
                    metrics: serde_json::to_value(kept.map(|epoch| &epoch.metrics)).unwrap_or_default(),
                    ..Config::default()
                };
                let epochs: Vec<Epoch> = descent.epochs.iter().map(Epoch::from).collect();
                let folder = tempfile::tempdir().map_err(PyErr::from)?;
                let saved = Saved::ranker(&stored, &features, &parameters, &epochs);
                let version = save(&folder.path().join("model"), &saved, 1)?;
                Ok((ModelDirectory::open(version, Verify::Quick)?, folder, warnings))
            })?;
        Ok(Ranker { warnings, ..Ranker::opened(py, directory, Some(unpacked))? })
    })
}

/// Says what helps where the rows that epochs are judged by do not allow the metric.
fn cannot_judge(error: Error) -> Failure {
    match error {
        Error::UnknownMetric { metric, .. } => PyValueError::new_err(format!(
            "{metric} cannot be measured on the rows that epochs are judged by: it needs rows of both labels, and gauc a group; \
             hold out more (holdout=), give others (valid=), take metric=\"logloss\", or judge by none (holdout=0)"
        ))
        .into(),
        error => error.into(),
    }
}

/// What the caller says of the columns.
enum Columns {
    Told(Schema),
    Guessed(SchemaOptions),
}

impl Columns {
    fn of(json: &str) -> Result<Self, Failure> {
        let wrong = |error: serde_json::Error| PyValueError::new_err(format!("columns: {error}"));
        let said: serde_json::Value = serde_json::from_str(json).map_err(wrong)?;
        if let Some((Some(name), Some(text))) =
            said.get("toml").map(|toml| (toml[0].as_str(), toml[1].as_str()))
        {
            return Ok(Self::Told(Schema::from_toml(name, text)?));
        }
        match said.get("schema") {
            Some(schema) => Ok(Self::Told(serde_json::from_value(schema.clone()).map_err(wrong)?)),
            None => Ok(Self::Guessed(serde_json::from_value(said).map_err(wrong)?)),
        }
    }
}

/// Refuses columns by which the model cannot learn.
fn check(schema: &Schema, config: &RankerConfig) -> Result<(), Failure> {
    let labels: Vec<&str> = schema.labels().collect();
    let refused = match labels.as_slice() {
        [] => "no column is a label; name it with label=".to_owned(),
        [_] => return Ok(()),
        _ if config.model.takes_several_labels() => return Ok(()),
        several => {
            format!("{} learns one label, not {}: {}", config.name(), several.len(), several.join(", "))
        }
    };
    Err(PyValueError::new_err(refused).into())
}

impl Ranker {
    pub(crate) fn opened(
        py: Python<'_>,
        directory: ModelDirectory,
        unpacked: Option<tempfile::TempDir>,
    ) -> Result<Self, Failure> {
        let scorer = apart(py, || Ok(directory.ranker()?))?;
        Ok(Self { directory, scorer, warnings: Vec::new(), _unpacked: unpacked })
    }

    fn saved_at(&self, path: &Path, keep: usize) -> Result<PathBuf, Failure> {
        let config = &self.directory.manifest().config;
        let (features, parameters) = (self.directory.features()?, self.directory.parameters()?);
        let epochs = self.directory.epochs()?;
        Ok(save(path, &Saved::ranker(config, &features, &parameters, &epochs), keep)?)
    }
}

#[pymethods]
impl Ranker {
    /// Unpacks what [`Ranker::files`] returned.
    #[staticmethod]
    fn of_files(py: Python<'_>, files: &Bound<'_, PyDict>) -> PyResult<Self> {
        guarded(|| {
            let folder = unpack(files)?;
            let directory = apart(py, || Ok(ModelDirectory::open(folder.path(), Verify::Full)?))?;
            Self::opened(py, directory, Some(folder))
        })
    }

    /// Returns the files of the model as a directory would hold them, by name.
    fn files<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        guarded(|| files_of(py, |path| self.saved_at(path, 1)))
    }

    /// Adds a version to the model directory at `path`, and returns the version's folder.
    fn save(&self, py: Python<'_>, path: PathBuf, keep: usize) -> PyResult<PathBuf> {
        guarded(|| apart(py, || self.saved_at(&path, keep)))
    }

    /// The hyper-parameters as JSON, complete.
    #[getter]
    fn config(&self) -> String {
        serde_json::to_string(self.scorer.config()).unwrap_or_default()
    }

    /// What each column is, as JSON.
    #[getter]
    fn schema(&self) -> String {
        serde_json::to_string(self.scorer.features().schema()).unwrap_or_default()
    }

    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    #[getter]
    fn labels(&self) -> Vec<String> {
        self.scorer.features().labels().to_vec()
    }

    #[getter]
    fn seed(&self) -> u64 {
        self.directory.manifest().config.seed
    }

    /// `(epoch, seconds, loss, metrics as JSON)` of every epoch that was done.
    #[getter]
    fn epochs(&self, py: Python<'_>) -> PyResult<Vec<EpochOf>> {
        guarded(|| epochs_of(py, &self.directory))
    }

    /// Returns the probability of each label of each row, `[rows, labels]`; labels need not be in the table.
    fn predict<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        guarded(|| {
            let frame = Frame::of(table)?;
            let scores = apart(py, || {
                let (features, read) = (self.scorer.features(), ReadOptions::default());
                let mut reader = FeatureReader::of(features, frame.sources(), &read, LabelUse::Ignored);
                let (mut batch, mut some, mut all) = (FeatureBatch::default(), Vec::new(), Vec::new());
                while reader.next_batch(&mut batch)? {
                    self.scorer.score(&batch, &mut some)?;
                    all.append(&mut some);
                }
                Ok(all)
            })?;
            let n_labels = self.scorer.features().labels().len();
            let rows = scores.len() / n_labels.max(1);
            Ok(matrix(py, scores, rows, n_labels)?)
        })
    }

    /// Compares the scores of rows with their labels, and returns the metrics by name.
    fn evaluate<'py>(&self, py: Python<'py>, table: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
        guarded(|| {
            let frame = Frame::of(table)?;
            let measured = apart(py, || {
                let (features, read) = (self.scorer.features(), ReadOptions::default());
                let mut reader = FeatureReader::of(features, frame.sources(), &read, LabelUse::Required);
                let (mut batch, mut scores) = (FeatureBatch::default(), Vec::new());
                let mut measuring = Measuring::new(features.labels());
                while reader.next_batch(&mut batch)? {
                    self.scorer.score(&batch, &mut scores)?;
                    measuring.add(&scores, &batch);
                }
                Ok(measuring.finish()?)
            })?;
            let metrics = PyDict::new(py);
            for (name, value) in measured.metrics {
                metrics.set_item(name, value)?;
            }
            Ok(metrics)
        })
    }
}

//! Models that tell what texts are about, as Python holds them.

use std::path::{Path, PathBuf};

use numpy::PyArray2;
use pyo3::{exceptions::PyValueError, prelude::*, types::PyDict};
use recmill_core::{
    directory::{Config, Epoch, ModelDirectory, Saved, Verify, save},
    features::holdout,
    text::{TextClassifier, TextColumns, TextConfig, TextMeasuring, TextRows},
};
use recmill_train::gradient::{SomeTexts, TextTraining};
use serde_json::json;

use crate::{
    arrays::matrix,
    background::in_background,
    failure::{Failure, guarded},
    fit::{How, chosen},
    ranker::{EpochOf, Judged, epochs_of},
    threads::apart,
    unpacked::{files_of, unpack},
};

/// Texts that are scored at once.
const TEXTS_AT_ONCE: usize = 1024;

/// A trained classifier: its directory, in a temporary place until it is saved, and what scores.
#[pyclass(frozen, module = "recmill._recmill")]
pub(crate) struct Texts {
    directory: ModelDirectory,
    classifier: TextClassifier,
    /// Where the files are, of a model that came without a directory.
    _unpacked: Option<tempfile::TempDir>,
}

/// Texts and their labels.
type Labelled = (Vec<String>, Vec<String>);

/// Returns the hyper-parameters with their defaults, as JSON.
#[pyfunction]
pub(crate) fn text_defaults() -> String {
    TextConfig::default().to_json().unwrap_or_default().to_string()
}

/// Trains the classifier of `config`. Without `valid` a part of the texts is held out.
#[pyfunction]
pub(crate) fn fit_texts(
    py: Python<'_>,
    config: &str,
    labelled: Labelled,
    valid: Option<Labelled>,
    judged: Judged,
    how: How,
) -> PyResult<Texts> {
    guarded(|| {
        let wrong = |error: serde_json::Error| PyValueError::new_err(error.to_string());
        let config = TextConfig::from_json(serde_json::from_str(config).map_err(wrong)?).map_err(wrong)?;
        config.validate()?;
        let rows = TextRows::new(labelled.0, labelled.1)?;
        let valid = valid.map(|(texts, labels)| TextRows::new(texts, labels)).transpose()?;
        // The steps are too small for a GPU to pay, so `auto` is the processor.
        let device = py.detach(|| chosen(&how.device, false))?;
        let seed = how.seed;
        let (directory, unpacked) =
            in_background(py, how.threads, how.told.as_ref(), move |stop, teller| {
                let (learnt, held_out) = match &valid {
                    None if judged.holdout > 0.0 => holdout(rows.texts.len() as u64, judged.holdout, seed),
                    _ => (Vec::new(), Vec::new()),
                };
                let held = !held_out.is_empty() && !learnt.is_empty();
                let columns = TextColumns { text: "text".to_owned(), label: "label".to_owned() };
                let training = TextTraining {
                    config: &config,
                    columns: &columns,
                    train: SomeTexts { rows: &rows, which: held.then_some(&learnt) },
                    valid: match &valid {
                        Some(rows) => Some(SomeTexts { rows, which: None }),
                        None => held.then_some(SomeTexts { rows: &rows, which: Some(&held_out) }),
                    },
                    seed,
                    metric: &judged.metric,
                    patience: (judged.patience > 0).then_some(judged.patience),
                    device,
                };
                teller.begin(config.epochs as u32, device);
                let (classifier, descent) = training.run(stop, teller)?;
                let kept = descent.epochs.iter().find(|epoch| epoch.epoch == descent.kept_epoch);
                let stored = Config {
                    model: config.to_json().unwrap_or_default(),
                    objective: config.objective(),
                    schema: json!({"columns": columns, "rows": rows.texts.len(), "held_out": held_out.len()}),
                    seed,
                    metrics: serde_json::to_value(kept.map(|epoch| &epoch.metrics)).unwrap_or_default(),
                    kept_epoch: Some(descent.kept_epoch.into()),
                    ..Config::default()
                };
                let epochs: Vec<Epoch> = descent.epochs.iter().map(Epoch::from).collect();
                let parameters = classifier.parameters()?;
                let folder = tempfile::tempdir().map_err(PyErr::from)?;
                let saved = Saved::text(&stored, classifier.classes(), &parameters, &epochs);
                let version = save(&folder.path().join("model"), &saved, 1)?;
                Ok((ModelDirectory::open(version, Verify::Quick)?, folder))
            })?;
        Texts::opened(py, directory, Some(unpacked))
    })
}

impl Texts {
    pub(crate) fn opened(
        py: Python<'_>,
        directory: ModelDirectory,
        unpacked: Option<tempfile::TempDir>,
    ) -> Result<Self, Failure> {
        let classifier = apart(py, || Ok(directory.text_classifier()?))?;
        Ok(Self { directory, classifier, _unpacked: unpacked })
    }

    fn saved_at(&self, path: &Path, keep: usize) -> Result<PathBuf, Failure> {
        let config = &self.directory.manifest().config;
        let (classes, parameters) = (self.directory.classes()?, self.directory.parameters()?);
        let epochs = self.directory.epochs()?;
        Ok(save(path, &Saved::text(config, &classes, &parameters, &epochs), keep)?)
    }

    /// Returns `[texts, classes]` probabilities.
    fn score(&self, texts: &[String]) -> Result<Vec<f32>, Failure> {
        let (mut some, mut all) = (Vec::new(), Vec::new());
        for texts in texts.chunks(TEXTS_AT_ONCE) {
            self.classifier.probabilities(texts, &mut some)?;
            all.extend_from_slice(&some);
        }
        Ok(all)
    }
}

#[pymethods]
impl Texts {
    /// Unpacks what [`Texts::files`] returned.
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
        self.classifier.config().to_json().unwrap_or_default().to_string()
    }

    /// The names of the classes, in the order of the probabilities.
    #[getter]
    fn classes(&self) -> Vec<String> {
        self.classifier.classes().names.clone()
    }

    /// The least probability of a text that is in scope.
    #[getter]
    fn threshold(&self) -> f32 {
        self.classifier.classes().threshold
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

    /// Returns how likely each text is of each class, `[texts, classes]`.
    fn predict<'py>(&self, py: Python<'py>, texts: Vec<String>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        guarded(|| {
            let scores = apart(py, || self.score(&texts))?;
            Ok(matrix(py, scores, texts.len(), self.classifier.classes().names.len())?)
        })
    }

    /// Compares guesses with labels, and returns the metrics by name.
    fn evaluate<'py>(&self, py: Python<'py>, labelled: Labelled) -> PyResult<Bound<'py, PyDict>> {
        guarded(|| {
            let measured = apart(py, || {
                let rows = TextRows::new(labelled.0, labelled.1)?;
                let mut measuring = TextMeasuring::new(&self.classifier);
                measuring.add(&self.score(&rows.texts)?, &rows.labels);
                Ok(measuring.finish())
            })?;
            let metrics = PyDict::new(py);
            for (name, value) in measured.metrics {
                metrics.set_item(name, value)?;
            }
            Ok(metrics)
        })
    }
}

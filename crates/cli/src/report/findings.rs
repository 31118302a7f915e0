//! The numbers of a report: what `--json` prints, and what the page is made of.

use std::collections::BTreeMap;

use recmill_core::{
    directory::{ArrayRecord, Config, Epoch, ModelDirectory, TableRecord},
    evaluate::{Evaluation, GroupedEvaluation},
    rankers::ScoreGroup,
    text::ClassMeasured,
};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::failure::Result;

/// All that is known of a model, and of how well it does.
#[derive(Debug, Serialize)]
pub(crate) struct Findings {
    /// The model's kind, such as `als`.
    pub(crate) model: String,
    pub(crate) version: String,
    pub(crate) sha256: String,
    pub(crate) library_version: String,
    pub(crate) objective: String,
    pub(crate) hyper_parameters: Map<String, Value>,
    pub(crate) seed: u64,
    pub(crate) data: Data,
    /// How the data was read and what was named in training.
    pub(crate) schema: Value,
    pub(crate) kept_epoch: Option<u64>,
    pub(crate) refitted: bool,
    /// It is a checkpoint of a training that has not ended.
    pub(crate) is_checkpoint: bool,
    pub(crate) epochs: Vec<Epoch>,
    /// What validation measured for the epoch that was kept.
    pub(crate) valid: Map<String, Value>,
    pub(crate) timings: Timings,
    pub(crate) test: Option<Test>,
    pub(crate) scores: Option<Scores>,
    pub(crate) users: Vec<ShownUser>,
    /// The names of the item columns that [`ShownItem::about`] has.
    pub(crate) item_columns: Vec<String>,
    pub(crate) parameters: Vec<ParameterSize>,
    pub(crate) files: Vec<FileSize>,
    pub(crate) not_measured: Vec<Gap>,
}

/// What the model learned from.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Data {
    Interactions {
        users: u64,
        items: u64,
        interactions: u64,
        fingerprint: String,
    },
    Rows {
        rows: Option<u64>,
        labels: Vec<String>,
        fields: Vec<Field>,
        numeric: Vec<String>,
        table_rows: u64,
    },
    Texts {
        rows: Option<u64>,
        classes: Vec<String>,
        text: String,
        label: String,
        temperature: f32,
        threshold: f32,
    },
}

/// A categorical field of a model of rows.
#[derive(Debug, Serialize)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) table_rows: u64,
}

/// Seconds of training, all epochs together, and its memory.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Timings {
    pub(crate) epochs: u64,
    pub(crate) seconds: f64,
    pub(crate) loss_seconds: f64,
    pub(crate) eval_seconds: f64,
    /// The most that training held of main memory, where that is known.
    pub(crate) peak_memory_bytes: Option<u64>,
}

/// What was measured on the test files.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Test {
    Lists(Box<ListTest>),
    Counted(CountedTest),
}

/// Rankings of items.
#[derive(Debug, Serialize)]
pub(crate) struct ListTest {
    pub(crate) files: Vec<String>,
    pub(crate) protocol: String,
    /// The lengths of lists, ascending.
    pub(crate) k: Vec<usize>,
    pub(crate) model: GroupedEvaluation,
    pub(crate) most_popular: GroupedEvaluation,
    /// How predicted values compare, where the model predicts some and the rows have some.
    pub(crate) ratings: Option<Evaluation>,
}

/// Scores of rows or guesses about texts.
#[derive(Debug, Serialize)]
pub(crate) struct CountedTest {
    pub(crate) files: Vec<String>,
    pub(crate) protocol: String,
    pub(crate) metrics: BTreeMap<String, f64>,
    /// What was measured, by kind.
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// What looks at nothing: one prediction for all rows, or one class for all texts.
    pub(crate) baseline: &'static str,
    /// What it reaches, by the names of `metrics`.
    pub(crate) baseline_metrics: BTreeMap<String, f64>,
    pub(crate) groups: Groups,
}

/// Rows or texts that are alike, each group by itself.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Groups {
    /// Of each label the rows by their score, the lowest first.
    ByScore(Vec<LabelGroups>),
    /// The texts by their class, the worst first.
    ByClass(Vec<ClassMeasured>),
}

/// The rows by their score for one label.
#[derive(Debug, Serialize)]
pub(crate) struct LabelGroups {
    pub(crate) label: String,
    pub(crate) groups: Vec<ScoreGroup>,
}

/// How the scores at the first and the last place of lists are spread.
#[derive(Debug, Serialize)]
pub(crate) struct Scores {
    pub(crate) users: usize,
    pub(crate) k: usize,
    /// `[bins + 1]`, ascending.
    pub(crate) edges: Vec<f64>,
    /// `[bins]` lists whose first score lies there.
    pub(crate) first: Vec<usize>,
    /// `[bins]` lists whose last score lies there.
    pub(crate) last: Vec<usize>,
    /// Least, median and most.
    pub(crate) first_quantiles: [f32; 3],
    pub(crate) last_quantiles: [f32; 3],
}

/// One user beside what they are recommended.
#[derive(Debug, Serialize)]
pub(crate) struct ShownUser {
    pub(crate) user_id: String,
    /// Items they have had in all.
    pub(crate) had: usize,
    /// The last of them, the newest first.
    pub(crate) history: Vec<ShownItem>,
    pub(crate) recommended: Vec<ShownItem>,
}

/// An item in a list.
#[derive(Debug, Serialize)]
pub(crate) struct ShownItem {
    pub(crate) item_id: String,
    pub(crate) about: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) score: Option<f32>,
    /// Whether a recommended item is one of the user's test rows.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) hit: bool,
}

/// One table or array of the model.
#[derive(Debug, Serialize)]
pub(crate) struct ParameterSize {
    pub(crate) name: String,
    pub(crate) rows: u64,
    pub(crate) dim: u64,
    pub(crate) dtype: String,
    pub(crate) bytes: u64,
}

/// One file of the version.
#[derive(Debug, Serialize)]
pub(crate) struct FileSize {
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

/// Where a report would say something and cannot.
#[derive(Debug, Serialize)]
pub(crate) struct Gap {
    pub(crate) section: &'static str,
    pub(crate) why: String,
}

impl Findings {
    /// Reads what the model directory tells by itself.
    pub(crate) fn of(directory: &ModelDirectory) -> Result<Self> {
        let manifest = directory.manifest();
        let config = &manifest.config;
        let epochs = directory.epochs()?;
        let mut hyper_parameters = config.model.as_object().cloned().unwrap_or_default();
        hyper_parameters.remove("model");
        let sum = |of: fn(&Epoch) -> f64| epochs.iter().map(of).sum();
        let timings = Timings {
            epochs: epochs.len() as u64,
            seconds: sum(|epoch| epoch.seconds),
            loss_seconds: sum(|epoch| epoch.loss_seconds),
            eval_seconds: sum(|epoch| epoch.eval_seconds),
            peak_memory_bytes: epochs.iter().filter_map(|epoch| epoch.peak_memory_bytes).max(),
        };
        let tables = manifest.tables.iter().map(|(name, table)| table_size(name, table));
        let arrays = manifest.arrays.iter().map(|(name, array)| array_size(name, array));
        Ok(Self {
            model: directory.kind().to_owned(),
            version: directory.version().to_owned(),
            sha256: directory.sha256().to_owned(),
            library_version: manifest.library_version.clone(),
            objective: config.objective.clone(),
            hyper_parameters,
            seed: config.seed,
            data: Data::of(directory)?,
            schema: config.schema.clone(),
            kept_epoch: config.kept_epoch,
            refitted: config.refitted,
            is_checkpoint: !config.progress.is_null(),
            valid: config.metrics.as_object().cloned().unwrap_or_default(),
            timings,
            test: None,
            scores: None,
            users: Vec::new(),
            item_columns: Vec::new(),
            parameters: tables.chain(arrays).collect(),
            files: manifest
                .files
                .iter()
                .map(|(name, file)| FileSize { name: name.clone(), bytes: file.bytes })
                .collect(),
            not_measured: gaps(&epochs),
            epochs,
        })
    }

    /// Returns how many of all rows, or interactions, the model learned from.
    pub(crate) fn learned(&self, all: u64) -> u64 {
        all.saturating_sub(held_out(&self.schema, self.refitted))
    }

    /// Returns the labels that all test rows have alike, so that no two of them can be ranked.
    pub(crate) fn constant_labels(&self) -> Vec<String> {
        let Some(Test::Counted(CountedTest { metrics, groups: Groups::ByScore(labels), .. })) = &self.test
        else {
            return Vec::new();
        };
        let has_auc =
            |label: &str| metrics.contains_key("auc") || metrics.contains_key(&format!("auc/{label}"));
        labels.iter().map(|of| &of.label).filter(|label| !has_auc(label)).cloned().collect()
    }

    /// Says that something cannot be said in `section`.
    pub(crate) fn gap(&mut self, section: &'static str, why: impl Into<String>) {
        self.not_measured.push(Gap { section, why: why.into() });
    }
}

/// Returns how many of all interactions a model learned from.
pub(crate) fn learned(config: &Config, all: u64) -> u64 {
    all.saturating_sub(held_out(&config.schema, config.refitted))
}

/// What was held out and not learned from in the end either.
fn held_out(schema: &Value, refitted: bool) -> u64 {
    schema["held_out"].as_u64().filter(|_| !refitted).unwrap_or(0)
}

/// What cannot be told of any model, or not of this one's training.
fn gaps(epochs: &[Epoch]) -> Vec<Gap> {
    let gap = |section, why: &str| Gap { section, why: why.to_owned() };
    let mut gaps = Vec::new();
    match epochs {
        [] => gaps.push(gap("training", "The model has no record of its epochs.")),
        [_] => {
            gaps.push(gap("training", "The model learned in one pass over the data, so there is no curve."))
        }
        _ => {}
    }
    if !epochs.is_empty() && epochs.iter().all(|epoch| epoch.loss.is_none()) {
        gaps.push(gap("training", "No loss was computed: the model has none, or --no-loss was given."));
    }
    if epochs.iter().all(|epoch| epoch.metrics.is_empty()) {
        gaps.push(gap("training", "Nothing was validated on during training (--valid FILE)."));
    }
    if epochs.iter().all(|epoch| epoch.peak_memory_bytes.is_none()) {
        gaps.push(gap("size", "The most memory that training took is not known: the system does not tell."));
    }
    gaps
}

impl Data {
    fn of(directory: &ModelDirectory) -> Result<Self> {
        let manifest = directory.manifest();
        let rows = manifest.config.schema["rows"].as_u64();
        if directory.is_text() {
            let classes = directory.classes()?;
            return Ok(Self::Texts {
                rows,
                classes: classes.names,
                text: classes.columns.text,
                label: classes.columns.label,
                temperature: classes.temperature,
                threshold: classes.threshold,
            });
        }
        if directory.is_ranker() {
            let features = directory.features()?;
            let fields = features.fields().iter();
            let fields: Vec<Field> = fields
                .map(|field| Field { name: field.name().to_owned(), table_rows: field.rows() as u64 })
                .collect();
            return Ok(Self::Rows {
                rows,
                labels: features.labels().to_vec(),
                table_rows: fields.iter().map(|field| field.table_rows).sum(),
                fields,
                numeric: features.numeric().iter().map(|column| column.name().to_owned()).collect(),
            });
        }
        let data = &manifest.data;
        Ok(Self::Interactions {
            users: data.users,
            items: data.items,
            interactions: data.interactions,
            fingerprint: data.fingerprint.clone(),
        })
    }
}

/// Bytes of a number, as safetensors spells its type.
fn width(dtype: &str) -> u64 {
    match dtype {
        "U64" | "I64" | "F64" => 8,
        "F16" | "BF16" => 2,
        "I8" | "U8" => 1,
        _ => 4,
    }
}

fn table_size(name: &str, table: &TableRecord) -> ParameterSize {
    // A row of int8 has its scale beside it.
    let row = table.dim.saturating_mul(width(&table.dtype)) + if table.dtype == "I8" { 4 } else { 0 };
    ParameterSize {
        name: name.to_owned(),
        rows: table.rows,
        dim: table.dim,
        dtype: table.dtype.to_lowercase(),
        bytes: table.rows.saturating_mul(row),
    }
}

fn array_size(name: &str, array: &ArrayRecord) -> ParameterSize {
    ParameterSize {
        name: name.to_owned(),
        rows: array.len,
        dim: 1,
        dtype: array.dtype.to_lowercase(),
        bytes: array.len.saturating_mul(width(&array.dtype)),
    }
}

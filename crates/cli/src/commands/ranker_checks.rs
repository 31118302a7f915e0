//! What is refused before a ranker is trained, because it could only fail later or mean something else.

use recmill_core::{
    features::{FeatureBatch, Schema},
    rankers::RankerConfig,
};
use recmill_train::gradient::Rows;

use crate::{
    arguments::Given,
    failure::{Failure, Result},
    ranking,
};

/// Metrics of rankers of which the best epoch has the highest or the lowest.
pub(super) const METRICS: [&str; 6] =
    ["auc", "logloss", "average_precision", "accuracy", "expected_calibration_error", "gauc"];

/// Metrics of an order, which rows that all have one label do not have.
const OF_ORDER: [&str; 3] = ["auc", "average_precision", "gauc"];

/// What `train` was told, as far as it can contradict itself.
pub(super) struct Asked<'a> {
    pub(super) data: &'a [String],
    pub(super) holdout: f64,
    pub(super) valid: &'a [String],
    pub(super) refit: bool,
    pub(super) metric: &'a str,
    /// Those there are.
    pub(super) metrics: &'a [&'a str],
    pub(super) keep: usize,
}

impl Asked<'_> {
    /// Refuses flags that contradict each other, before anything is read.
    pub(super) fn check(&self, given: &Given) -> Result<()> {
        if let Some(input) = self.data.iter().find(|input| ranking::is_read_once(input)) {
            let input = if input == "-" { "standard input" } else { input };
            return Err(Failure::usage(format!(
                "{input} can be read only once, and training reads its rows several times"
            ))
            .hint("write them to a file first: ... > rows.csv"));
        }
        if !(0.0..=0.5).contains(&self.holdout) {
            return Err(Failure::usage(format!("--holdout must be from 0 to 0.5, not `{}`", self.holdout)));
        }
        if self.keep == 0 {
            return Err(Failure::usage("--keep must be at least 1, not `0`"));
        }
        if self.refit && !self.valid.is_empty() {
            return Err(Failure::usage("--refit has nothing to add: with --valid all rows to train on are learned from already")
                .hint("leave one of the two out; to learn from the rows of --valid as well, name them beside the others"));
        }
        let validates = !self.valid.is_empty() || self.holdout > 0.0;
        if !validates && (self.refit || given.has("patience") || given.has("valid_metric")) {
            return Err(Failure::usage("--refit, --patience and --valid-metric need rows to validate on")
                .hint(if self.refit {
                    "--holdout 0.1 holds some out"
                } else {
                    "--holdout 0.1 or --valid FILE name some"
                }));
        }
        let base = self.metric.split('/').next().unwrap_or_default();
        if !self.metrics.contains(&base) {
            let known = self.metrics.join(", ");
            return Err(Failure::usage(format!(
                "--valid-metric must be one of {known}, not `{}`",
                self.metric
            )));
        }
        Ok(())
    }

    /// Refuses what the columns do not allow.
    pub(super) fn check_columns(&self, schema: &Schema, config: &RankerConfig) -> Result<()> {
        let labels: Vec<&str> = schema.labels().collect();
        if labels.is_empty() {
            return Err(Failure::usage("no column is a label").hint("name it with --label"));
        }
        if labels.len() > 1 && !config.model.takes_several_labels() {
            return Err(Failure::usage(format!("{} learns one label, not {}", config.name(), labels.len()))
                .hint("shared-bottom, mmoe and logistic learn several; or name one with --label"));
        }
        if !schema.columns.iter().any(|column| column.kind.is_feature()) {
            return Err(Failure::usage("no column is a feature")
                .hint("--categorical and --numeric name some; `recmill schema` shows the guesses"));
        }
        let (base, of) = self.metric.split_once('/').unwrap_or((self.metric, ""));
        if base == "gauc" && schema.group.is_none() {
            return Err(Failure::usage(
                "--valid-metric gauc is a mean over groups of rows, and no column is the group",
            )
            .hint("name it with --group, such as --group user"));
        }
        match of {
            "" => Ok(()),
            _ if labels.len() == 1 => Err(Failure::usage(format!(
                "there is one label, so --valid-metric is {base}, not `{}`",
                self.metric
            ))),
            of if labels.contains(&of) => Ok(()),
            of => Err(Failure::usage(format!(
                "--valid-metric {base}/LABEL takes one of {}, not `{of}`",
                labels.join(", ")
            ))),
        }
    }

    /// Refuses to validate on rows by which no epoch can be told from another.
    pub(super) fn check_rows(&self, rows: &Rows<'_>, labels: &[String]) -> Result<()> {
        if !has_weight(rows) {
            return Err(Failure::failed(format!(
                "the weights of the {} to validate on are all 0",
                crate::output::counted(rows.len(), "row")
            ))
            .hint("--weight-column names another column; without it all rows count alike"));
        }
        let (base, of) = self.metric.split_once('/').unwrap_or((self.metric, ""));
        if !OF_ORDER.contains(&base) {
            return Ok(());
        }
        let wanted: Vec<usize> =
            (0..labels.len()).filter(|&label| of.is_empty() || labels[label] == of).collect();
        let mut seen = vec![[false; 2]; labels.len()];
        let mut batch = FeatureBatch::default();
        for first in (0..rows.len()).step_by(4096) {
            let some: Vec<u64> = (first..rows.len().min(first + 4096))
                .map(|at| rows.rows.map_or(at, |rows| rows[at as usize]))
                .collect();
            batch.clear();
            rows.examples.gather(&some, &mut batch);
            for (at, &label) in batch.labels.iter().enumerate() {
                seen[at % labels.len()][usize::from(label > 0.5)] = true;
            }
            if wanted.iter().any(|&label| seen[label] == [true; 2]) {
                return Ok(());
            }
        }
        let label = wanted.first().copied().unwrap_or_default();
        let value = usize::from(seen[label][1]);
        Err(Failure::failed(format!(
            "{} cannot be measured on the {} to validate on: all have `{}` {value}",
            self.metric,
            crate::output::counted(rows.len(), "row"),
            labels[label],
        ))
        .hint(
            "validate on more rows with --holdout or on others with --valid, choose --valid-metric logloss, or say --holdout 0",
        ))
    }
}

/// Returns whether any of `rows` counts.
fn has_weight(rows: &Rows<'_>) -> bool {
    let mut batch = FeatureBatch::default();
    (0..rows.len()).step_by(4096).any(|first| {
        let some: Vec<u64> = (first..rows.len().min(first + 4096))
            .map(|at| rows.rows.map_or(at, |rows| rows[at as usize]))
            .collect();
        batch.clear();
        rows.examples.gather(&some, &mut batch);
        batch.weights.is_empty() || batch.weights.iter().any(|&weight| weight > 0.0)
    })
}

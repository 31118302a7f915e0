//! How good a ranker's scores are: every label's metrics, gathered batch by batch.

use std::collections::BTreeMap;

use crate::{Result, features::FeatureBatch, metrics::BinaryMetrics};

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Rows that were measured.
    pub rows: u64,
    /// By name. Of several labels each has its own, as `auc/click`, and the plain name is their mean.
    pub metrics: BTreeMap<String, f64>,
}

/// Scores and labels while they are gathered: 8 bytes a row and label, 12 more for weights and groups.
#[derive(Clone, Debug, Default)]
pub struct Measuring {
    names: Vec<String>,
    /// By label.
    scores: Vec<Vec<f32>>,
    labels: Vec<Vec<f32>>,
    weights: Vec<f32>,
    groups: Vec<u64>,
}

impl Measuring {
    /// Begins with no rows.
    pub fn new(labels: &[String]) -> Self {
        let n = labels.len();
        Self {
            names: labels.to_vec(),
            scores: vec![Vec::new(); n],
            labels: vec![Vec::new(); n],
            ..Self::default()
        }
    }

    /// Adds the rows of `batch`, whose scores are `[rows, labels]`.
    pub fn add(&mut self, scores: &[f32], batch: &FeatureBatch) {
        let n = self.names.len();
        for label in 0..n {
            self.scores[label].extend(scores.iter().skip(label).step_by(n));
            self.labels[label].extend(batch.labels.iter().skip(label).step_by(n));
        }
        self.weights.extend_from_slice(&batch.weights);
        self.groups.extend_from_slice(&batch.groups);
    }

    /// Computes the metrics.
    ///
    /// # Errors
    /// [`crate::Error::BadProbability`] when a score is no probability.
    pub fn finish(self) -> Result<Measured> {
        let mut measured = Measured::default();
        let mut sums: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
        for (label, name) in self.names.iter().enumerate() {
            let of =
                BinaryMetrics::of(&self.scores[label], &self.labels[label], &self.weights, &self.groups)?;
            measured.rows = of.rows;
            for (metric, value) in of.named() {
                if self.names.len() > 1 {
                    measured.metrics.insert(format!("{metric}/{name}"), value);
                }
                let (sum, n) = sums.entry(metric).or_default();
                (*sum, *n) = (*sum + value, *n + 1);
            }
        }
        let means = sums.into_iter().map(|(metric, (sum, n))| (metric.to_owned(), sum / n as f64));
        measured.metrics.extend(means);
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_label_is_measured_and_their_mean() {
        let mut measuring = Measuring::new(&["click".to_owned(), "buy".to_owned()]);
        let batch = FeatureBatch { rows: 2, labels: vec![0.0, 1.0, 1.0, 0.0], ..FeatureBatch::default() };
        measuring.add(&[0.1, 0.2, 0.9, 0.8], &batch);
        let measured = measuring.finish().unwrap();
        assert_eq!(measured.rows, 2);
        assert_eq!(["auc/click", "auc/buy", "auc"].map(|name| measured.metrics[name]), [1.0, 0.0, 0.5]);
    }
}

//! How good a ranker's scores are: every label's metrics, gathered batch by batch.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{Result, features::FeatureBatch, metrics::BinaryMetrics};

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Rows that were measured.
    pub rows: u64,
    /// By name. Of several labels each has its own, as `auc/click`, and the plain name is their mean.
    pub metrics: BTreeMap<String, f64>,
}

/// Rows whose scores are alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScoreGroup {
    /// How many.
    pub rows: u64,
    /// The lowest score among them.
    pub least: f32,
    /// The highest.
    pub most: f32,
    /// Mean of their scores, by weight.
    pub predicted: f64,
    /// The share of them, by weight, whose label is 1.
    pub observed: f64,
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

    /// Computes the metrics of one and the same prediction for all rows, the share of each label's rows that have a 1: what a model that looks at
    /// nothing reaches at best.
    ///
    /// # Errors
    /// As [`Measuring::finish`].
    pub fn constant(&self) -> Result<Measured> {
        let share = |labels: &Vec<f32>| {
            let weight = |row: usize| f64::from(self.weights.get(row).copied().unwrap_or(1.0));
            let ones: f64 =
                labels.iter().enumerate().map(|(row, &label)| weight(row) * f64::from(label)).sum();
            let all: f64 = (0..labels.len()).map(weight).sum();
            if all > 0.0 { (ones / all) as f32 } else { 0.0 }
        };
        let scores = self.labels.iter().map(|labels| vec![share(labels); labels.len()]).collect();
        Self { scores, ..self.clone() }.finish()
    }

    /// Cuts the rows into at most `n` groups of as many rows by the score for label `label`, the lowest first; equal scores are not parted.
    pub fn by_score(&self, label: usize, n: usize) -> Vec<ScoreGroup> {
        let (Some(scores), Some(labels)) = (self.scores.get(label), self.labels.get(label)) else {
            return Vec::new();
        };
        let mut rows: Vec<usize> = (0..scores.len()).collect();
        rows.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        let mut groups = Vec::new();
        let mut first = 0;
        for left in (1..=n).rev().take_while(|_| !rows.is_empty()) {
            let mut end = first + (rows.len() - first).div_ceil(left);
            while end > 0 && end < rows.len() && scores[rows[end]] == scores[rows[end - 1]] {
                end += 1;
            }
            let Some(group) = rows.get(first..end).filter(|group| !group.is_empty()) else { break };
            let (mut predicted, mut observed, mut total) = (0.0, 0.0, 0.0);
            for &row in group {
                let weight = f64::from(self.weights.get(row).copied().unwrap_or(1.0));
                predicted += weight * f64::from(scores[row]);
                observed += weight * f64::from(labels[row]);
                total += weight;
            }
            groups.push(ScoreGroup {
                rows: group.len() as u64,
                least: scores[group[0]],
                most: scores[group[group.len() - 1]],
                predicted: predicted / total,
                observed: observed / total,
            });
            first = end;
        }
        groups
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
    fn groups_by_score_say_what_was_predicted_and_what_was_there() {
        let mut measuring = Measuring::new(&["click".to_owned()]);
        let labels = vec![0.0, 1.0, 0.0, 1.0, 1.0, 0.0];
        measuring.add(
            &[0.1, 0.9, 0.3, 0.7, 0.3, 0.2],
            &FeatureBatch { rows: 6, labels, ..FeatureBatch::default() },
        );
        let groups = measuring.by_score(0, 3);
        assert_eq!(groups.iter().map(|group| group.rows).collect::<Vec<_>>(), [2, 2, 2]);
        assert_eq!((groups[1].least, groups[1].most, groups[1].observed), (0.3, 0.3, 0.5));
        assert!((groups[2].predicted - 0.8).abs() < 1e-6 && groups[2].observed == 1.0);
        assert_eq!(measuring.by_score(0, 100).len(), 5, "equal scores stay together");
        assert!(Measuring::new(&["click".to_owned()]).by_score(0, 3).is_empty());
        let constant = measuring.constant().unwrap();
        assert_eq!(constant.metrics["auc"], 0.5);
        assert!((constant.metrics["logloss"] - 2f64.ln()).abs() < 1e-12);
    }

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

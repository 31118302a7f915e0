//! How good predicted probabilities of a label of 0 or 1 are.
//!
//! With the probability `p`, the label `y` and the weight `w` of each row, `W = Σ w`:
//!
//! | metric                     | value                                                                                  |
//! |----------------------------|----------------------------------------------------------------------------------------|
//! | auc                        | weighted share of pairs of a 1 and a 0 in which the 1 is predicted higher; equal ones count half |
//! | logloss                    | `-Σ w (y ln p + (1 - y) ln(1 - p)) / W`, with `p` kept `2^-23` away from 0 and 1             |
//! | average_precision          | `Σ (R_i - R_i-1) P_i` over the thresholds from the highest prediction down, without interpolation |
//! | calibration                | `Σ w p / Σ w y`: 1 where as much happens as is predicted                               |
//! | expected_calibration_error | `Σ_b W_b / W \|mean p - mean y\|` over ten bins of `p` of the same width                   |
//! | accuracy                   | weighted share of the rows in which `p >= 0.5` says what `y` is                        |
//! | gauc                       | mean of the groups' auc, of those with a 0 and a 1, each counting its weight             |
//!
//! Sums are in f64 and in an order that the data set, so that threads do not change a bit. Cost: one sort.

use rayon::prelude::*;
use serde::Serialize;

use crate::{Error, Result};

/// The bins of the expected calibration error.
const BINS: usize = 10;

/// How close to 0 or 1 a prediction may be for its logarithm.
const LEAST: f64 = f32::EPSILON as f64;

/// Measures of predicted probabilities; `None` where the rows do not define one.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BinaryMetrics {
    /// How many rows.
    pub rows: u64,
    /// How many of them have the label 1.
    pub positive: u64,
    /// Area under the ROC curve; needs rows of both labels.
    pub auc: Option<f64>,
    /// Mean negative log-likelihood in nats.
    pub logloss: Option<f64>,
    /// Area under the precision-recall curve, by steps; needs a row with 1.
    pub average_precision: Option<f64>,
    /// Predicted over observed; needs a row with 1.
    pub calibration: Option<f64>,
    /// Mean distance of predicted from observed, by bins.
    pub expected_calibration_error: Option<f64>,
    /// Share of the rows that are predicted rightly at 0.5.
    pub accuracy: Option<f64>,
    /// Area under the ROC curve by group; needs groups, one of them with rows of both labels.
    pub gauc: Option<f64>,
    /// The groups that have rows of both labels.
    pub groups: u64,
}

/// One row.
#[derive(Clone, Copy)]
struct Scored {
    group: u64,
    probability: f32,
    positive: bool,
    weight: f64,
}

impl BinaryMetrics {
    /// Measures predictions; `weights` and `groups` are empty where there are none.
    ///
    /// # Shapes
    /// - `probabilities`, `labels`: `[rows]`
    /// - `weights`, `groups`: `[rows]` or empty
    ///
    /// # Errors
    /// [`Error::WrongSize`]; [`Error::BadProbability`] for the first row whose prediction is not from 0 to 1, NaN
    /// included; [`Error::Inconsistent`] for the first whose label is not 0 or 1, or whose weight is negative or not finite.
    pub fn of(probabilities: &[f32], labels: &[f32], weights: &[f32], groups: &[u64]) -> Result<Self> {
        let n = probabilities.len();
        let sizes = [
            ("labels", labels.len(), false),
            ("weights", weights.len(), true),
            ("groups", groups.len(), true),
        ];
        for (what, got, optional) in sizes {
            if got != n && !(optional && got == 0) {
                return Err(Error::WrongSize { what, side: "rows", expected: n, got });
            }
        }
        let mut rows = Vec::with_capacity(n);
        for (row, (&probability, &label)) in probabilities.iter().zip(labels).enumerate() {
            let weight = weights.get(row).copied().unwrap_or(1.0);
            if !(0.0..=1.0).contains(&probability) {
                return Err(Error::BadProbability { row: row as u64, found: probability });
            }
            if label != 0.0 && label != 1.0 {
                return Err(Error::Inconsistent { what: "label, which must be 0 or 1,", at: row as u64 });
            }
            if !(weight >= 0.0 && weight.is_finite()) {
                return Err(Error::Inconsistent {
                    what: "weight, which must be at least 0,",
                    at: row as u64,
                });
            }
            let group = groups.get(row).copied().unwrap_or(0);
            // Adding 0 makes -0 the same as 0, which they are as predictions.
            let probability = probability + 0.0;
            rows.push(Scored { group, probability, positive: label == 1.0, weight: f64::from(weight) });
        }
        let mut metrics = Self::by_row(&rows);
        // A stable sort: equal predictions stay in the order of the rows, and so do their sums.
        rows.par_sort_by(|a, b| a.probability.total_cmp(&b.probability));
        metrics.auc = auc(&rows).map(|(auc, _)| auc);
        metrics.average_precision = average_precision(&rows);
        if !groups.is_empty() {
            rows.par_sort_by_key(|row| row.group);
            let (mut sum, mut total) = (0.0, 0.0);
            for group in rows.chunk_by(|a, b| a.group == b.group) {
                if let Some((auc, weight)) = auc(group) {
                    sum += auc * weight;
                    total += weight;
                    metrics.groups += 1;
                }
            }
            metrics.gauc = ratio(sum, total);
        }
        Ok(metrics)
    }

    /// Computes what needs no order of the rows.
    fn by_row(rows: &[Scored]) -> Self {
        let (mut total, mut loss, mut predicted, mut observed, mut right) = (0.0, 0.0, 0.0, 0.0, 0.0);
        // Of each bin the sums of predictions and of labels.
        let mut bins = [[0.0; 2]; BINS];
        for &Scored { probability, positive, weight, .. } in rows {
            let p = f64::from(probability);
            let label = f64::from(u8::from(positive));
            let said = if positive { p } else { 1.0 - p };
            total += weight;
            loss -= weight * said.clamp(LEAST, 1.0 - LEAST).ln();
            predicted += weight * p;
            observed += weight * label;
            right += if (probability >= 0.5) == positive { weight } else { 0.0 };
            let bin = &mut bins[((p * BINS as f64) as usize).min(BINS - 1)];
            bin[0] += weight * p;
            bin[1] += weight * label;
        }
        // W_b times the difference of two means over W_b is the difference of the sums.
        let distance: f64 = bins.iter().map(|[predicted, observed]| (predicted - observed).abs()).sum();
        Self {
            rows: rows.len() as u64,
            positive: rows.iter().filter(|row| row.positive).count() as u64,
            logloss: ratio(loss, total),
            calibration: ratio(predicted, observed),
            expected_calibration_error: ratio(distance, total),
            accuracy: ratio(right, total),
            ..Self::default()
        }
    }

    /// Returns names and values of those that are defined, in the order in which they are printed.
    pub fn named(&self) -> Vec<(&'static str, f64)> {
        let all = [
            ("auc", self.auc),
            ("gauc", self.gauc),
            ("logloss", self.logloss),
            ("average_precision", self.average_precision),
            ("calibration", self.calibration),
            ("expected_calibration_error", self.expected_calibration_error),
            ("accuracy", self.accuracy),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

fn ratio(sum: f64, total: f64) -> Option<f64> {
    (total > 0.0).then(|| sum / total)
}

/// Returns the area under the ROC curve of rows by ascending prediction, and their weight.
fn auc(rows: &[Scored]) -> Option<(f64, f64)> {
    let (mut positives, mut negatives, mut area) = (0.0, 0.0, 0.0);
    for equal in rows.chunk_by(|a, b| a.probability == b.probability) {
        let [positive, negative] = weights(equal);
        area += positive * (negatives + negative / 2.0);
        positives += positive;
        negatives += negative;
    }
    Some((ratio(area, positives * negatives)?, positives + negatives))
}

/// Returns the average precision of rows by ascending prediction.
fn average_precision(rows: &[Scored]) -> Option<f64> {
    let (mut positives, mut all, mut area) = (0.0, 0.0, 0.0);
    for equal in rows.chunk_by(|a, b| a.probability == b.probability).rev() {
        let [positive, negative] = weights(equal);
        positives += positive;
        all += positive + negative;
        if positive > 0.0 {
            area += positive * (positives / all);
        }
    }
    ratio(area, positives)
}

/// Returns the weights of the rows with 1 and of those with 0.
fn weights(rows: &[Scored]) -> [f64; 2] {
    rows.iter().fold([0.0; 2], |[positive, negative], row| match row.positive {
        true => [positive + row.weight, negative],
        false => [positive, negative + row.weight],
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(got: Option<f64>, expected: f64) {
        assert!(got.is_some_and(|got| (got - expected).abs() < 1e-12), "{got:?} is not {expected}");
    }

    #[test]
    fn metrics_agree_with_numbers_computed_by_hand() {
        let p = [0.125, 0.375, 0.375, 0.75, 0.875];
        let y = [0.0, 0.0, 1.0, 1.0, 0.0];
        let metrics = BinaryMetrics::of(&p, &y, &[], &[]).unwrap();
        assert_eq!((metrics.rows, metrics.positive, metrics.groups), (5, 2, 0));
        // Of six pairs: .375 beats one, ties one, loses one; .75 beats two, loses one.
        close(metrics.auc, 3.5 / 6.0);
        // Thresholds .875: none; .75: one of two; .375: two of four.
        close(metrics.average_precision, 0.5 * 0.5 + 0.5 * 0.5);
        let likelihood: f64 = 0.875 * 0.625 * 0.375 * 0.75 * 0.125;
        close(metrics.logloss, -likelihood.ln() / 5.0);
        close(metrics.calibration, 2.5 / 2.0);
        // Bins 1: .125 of 0; 3: .75 of 1; 7: .75 of 1; 8: .875 of 0.
        close(metrics.expected_calibration_error, (0.125 + 0.25 + 0.25 + 0.875) / 5.0);
        close(metrics.accuracy, 3.0 / 5.0);
        assert_eq!(metrics.gauc, None);
    }

    #[test]
    fn groups_with_one_label_do_not_count_and_the_others_by_their_rows() {
        let p = [0.1, 0.9, 0.4, 0.3, 0.5, 0.5, 0.2];
        let y = [0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0];
        // Group 1 has rows 0, 1, 2 (auc 1), group 2 rows 3, 4, 5 (auc .75), group 3 row 6 alone.
        let metrics = BinaryMetrics::of(&p, &y, &[], &[1, 1, 1, 2, 2, 2, 3]).unwrap();
        assert_eq!(metrics.groups, 2);
        close(metrics.gauc, (3.0 * 1.0 + 3.0 * 0.75) / 6.0);
        let weighted =
            BinaryMetrics::of(&p, &y, &[2.0, 1.0, 1.0, 1.0, 1.0, 2.0, 1.0], &[1, 1, 1, 2, 2, 2, 3]).unwrap();
        close(weighted.gauc, (4.0 * 1.0 + 4.0 * 0.75) / 8.0);
    }

    #[test]
    fn certain_predictions_that_are_wrong_cost_a_finite_loss() {
        let metrics = BinaryMetrics::of(&[0.0, 1.0], &[1.0, 0.0], &[], &[]).unwrap();
        close(metrics.logloss, -(f64::from(f32::EPSILON)).ln());
        close(metrics.auc, 0.0);
    }

    #[test]
    fn what_rows_do_not_define_is_none() {
        let none = BinaryMetrics::of(&[], &[], &[], &[]).unwrap();
        assert!(none.named().is_empty());
        let negative = BinaryMetrics::of(&[0.5], &[0.0], &[], &[4]).unwrap();
        assert_eq!((negative.auc, negative.average_precision, negative.calibration), (None, None, None));
        close(negative.logloss, 2f64.ln());
        let weightless = BinaryMetrics::of(&[0.5, 0.6], &[0.0, 1.0], &[0.0, 0.0], &[]).unwrap();
        assert_eq!(weightless.auc, None);
    }

    #[test]
    fn bad_values_are_refused_with_their_row() {
        let told = |p: &[f32], y: &[f32], w: &[f32]| BinaryMetrics::of(p, y, w, &[]).unwrap_err().to_string();
        assert_eq!(
            told(&[0.5, f32::NAN], &[0.0, 1.0], &[]),
            "row 1: expected a probability from 0 to 1, found `NaN`"
        );
        assert_eq!(
            told(&[f32::INFINITY], &[0.0], &[]),
            "row 0: expected a probability from 0 to 1, found `inf`"
        );
        assert_eq!(told(&[0.5], &[2.0], &[]), "inconsistent label, which must be 0 or 1, at `0`");
        assert_eq!(told(&[0.5], &[1.0], &[-1.0]), "inconsistent weight, which must be at least 0, at `0`");
        assert_eq!(told(&[0.5], &[], &[]), "labels: expected 1 rows, got `0`");
    }

    /// Every pair looked at.
    fn naive_auc(rows: &[(f32, bool, f32)]) -> Option<f64> {
        let (mut sum, mut total) = (0.0, 0.0);
        for &(p, _, v) in rows.iter().filter(|row| row.1) {
            for &(q, _, w) in rows.iter().filter(|row| !row.1) {
                let weight = f64::from(v) * f64::from(w);
                sum += weight
                    * if p > q {
                        1.0
                    } else if p == q {
                        0.5
                    } else {
                        0.0
                    };
                total += weight;
            }
        }
        (total > 0.0).then(|| sum / total)
    }

    /// Precision and recall computed anew at every threshold.
    fn naive_average_precision(rows: &[(f32, bool, f32)]) -> Option<f64> {
        let mut thresholds: Vec<f32> = rows.iter().map(|row| row.0).collect();
        thresholds.sort_by(|a, b| b.total_cmp(a));
        thresholds.dedup();
        let sum = |keep: &dyn Fn(&(f32, bool, f32)) -> bool| {
            rows.iter().filter(|row| keep(row)).map(|row| f64::from(row.2)).sum::<f64>()
        };
        let positives = sum(&|row| row.1);
        let (mut recall, mut area) = (0.0, 0.0);
        for threshold in thresholds {
            let (hits, all) = (sum(&|row| row.1 && row.0 >= threshold), sum(&|row| row.0 >= threshold));
            if all > 0.0 {
                area += (hits / positives - recall) * hits / all;
            }
            recall = hits / positives;
        }
        (positives > 0.0).then_some(area)
    }

    proptest! {
        #[test]
        fn sorted_sums_agree_with_every_pair(
            rows in proptest::collection::vec((0u8..12, any::<bool>(), 0u8..4), 0..60)
        ) {
            let rows: Vec<(f32, bool, f32)> =
                rows.iter().map(|&(p, y, w)| (f32::from(p) / 11.0, y, f32::from(w) / 2.0)).collect();
            let p: Vec<f32> = rows.iter().map(|row| row.0).collect();
            let y: Vec<f32> = rows.iter().map(|row| f32::from(u8::from(row.1))).collect();
            let w: Vec<f32> = rows.iter().map(|row| row.2).collect();
            let metrics = BinaryMetrics::of(&p, &y, &w, &[]).unwrap();
            for (got, expected) in
                [(metrics.auc, naive_auc(&rows)), (metrics.average_precision, naive_average_precision(&rows))]
            {
                prop_assert_eq!(got.is_some(), expected.is_some());
                let distance = got.unwrap_or(0.0) - expected.unwrap_or(0.0);
                prop_assert!(distance.abs() < 1e-9, "{:?} is not {:?}", got, expected);
            }
        }
    }
}

//! How good a ranking or a prediction is.
//!
//! For one user, with `n` relevant items, `h` of them among the first `k` at the ranks `r_1 < r_2 < .. < r_h` from 1:
//!
//! | metric      | value                                                        |
//! |-------------|--------------------------------------------------------------|
//! | recall@k    | `h / n`                                                      |
//! | precision@k | `h / k`                                                      |
//! | hr@k        | 1 if `h > 0`, else 0                                         |
//! | ndcg@k      | `Σ 1 / log2(r_i + 1)` over the same sum for ranks 1 to min(k, n) |
//! | map@k       | `Σ i / r_i / min(k, n)`                                      |
//! | mrr@k       | `1 / r_1`, 0 without a hit                                   |
//! | coverage@k  | of all users together: different items recommended / items of the catalogue |
//!
//! The table's value is the mean over users, summed in the order of the users, so that threads do not change a bit.
//! Probabilities of a label of 0 or 1 have measures of their own: [`BinaryMetrics`].

mod binary;

pub use binary::BinaryMetrics;

/// A measure of one user's ranking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankMetric {
    /// Share of the relevant items that are found.
    Recall,
    /// Share of the places that are relevant.
    Precision,
    /// Whether anything relevant is found.
    HitRate,
    /// Discounted gain over the best possible.
    Ndcg,
    /// Average precision.
    MeanAveragePrecision,
    /// One over the rank of the first hit.
    ReciprocalRank,
}

impl RankMetric {
    /// All of them, in the order in which they are printed.
    pub const ALL: [Self; 6] = [
        Self::Recall,
        Self::Precision,
        Self::HitRate,
        Self::Ndcg,
        Self::MeanAveragePrecision,
        Self::ReciprocalRank,
    ];

    /// Returns the name before the `@`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Recall => "recall",
            Self::Precision => "precision",
            Self::HitRate => "hr",
            Self::Ndcg => "ndcg",
            Self::MeanAveragePrecision => "map",
            Self::ReciprocalRank => "mrr",
        }
    }

    /// Computes the metric at `k` for one user from the ranks of the hits, ascending from 1, and the number of relevant
    /// items; 0 where there are none.
    pub fn at(self, k: usize, ranks: &[usize], n_relevant: usize) -> f64 {
        let ranks = &ranks[..ranks.partition_point(|&rank| rank <= k)];
        let best = k.min(n_relevant);
        if best == 0 {
            return 0.0;
        }
        match self {
            Self::Recall => ranks.len() as f64 / n_relevant as f64,
            Self::Precision => ranks.len() as f64 / k as f64,
            Self::HitRate => f64::from(u8::from(!ranks.is_empty())),
            Self::Ndcg => {
                let gain: f64 = ranks.iter().map(|&rank| discount(rank)).sum();
                gain / (1..=best).map(discount).sum::<f64>()
            }
            Self::MeanAveragePrecision => {
                let sum: f64 = ranks.iter().zip(1..).map(|(&rank, i)| f64::from(i) / rank as f64).sum();
                sum / best as f64
            }
            Self::ReciprocalRank => ranks.first().map_or(0.0, |&rank| 1.0 / rank as f64),
        }
    }
}

fn discount(rank: usize) -> f64 {
    1.0 / ((rank + 1) as f64).log2()
}

/// Sums of squared and absolute errors of predictions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ErrorSums {
    squared: f64,
    absolute: f64,
    n: u64,
}

impl ErrorSums {
    /// Adds one prediction.
    pub fn add(&mut self, predicted: f32, actual: f32) {
        let error = f64::from(predicted) - f64::from(actual);
        self.squared += error * error;
        self.absolute += error.abs();
        self.n += 1;
    }

    /// Returns how many predictions were added.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// Returns the root of the mean squared error; NaN of nothing.
    pub fn rmse(&self) -> f64 {
        (self.squared / self.n as f64).sqrt()
    }

    /// Returns the mean absolute error; NaN of nothing.
    pub fn mae(&self) -> f64 {
        self.absolute / self.n as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-12, "{got} is not {expected}");
    }

    #[test]
    fn metrics_agree_with_numbers_computed_by_hand() {
        // Four relevant items, of which three are ranked 1, 3 and 6.
        let ranks = [1, 3, 6];
        close(RankMetric::Recall.at(5, &ranks, 4), 0.5);
        close(RankMetric::Precision.at(5, &ranks, 4), 0.4);
        close(RankMetric::HitRate.at(5, &ranks, 4), 1.0);
        // (1 + 1/2) / (1 + 0.6309297535714575 + 0.5 + 0.43067655807339306)
        close(RankMetric::Ndcg.at(5, &ranks, 4), 1.5 / 2.5616063116448506);
        close(RankMetric::MeanAveragePrecision.at(5, &ranks, 4), (1.0 + 2.0 / 3.0) / 4.0);
        close(RankMetric::ReciprocalRank.at(5, &ranks, 4), 1.0);
    }

    #[test]
    fn the_ideal_is_cut_at_k() {
        // More relevant items than places: a full list is perfect for ndcg and map, not for recall.
        let ranks = [1, 2];
        close(RankMetric::Ndcg.at(2, &ranks, 10), 1.0);
        close(RankMetric::MeanAveragePrecision.at(2, &ranks, 10), 1.0);
        close(RankMetric::Recall.at(2, &ranks, 10), 0.2);
    }

    #[test]
    fn a_late_first_hit_counts_once_its_rank_is_reached() {
        for (k, expected) in [(3, 0.0), (4, 0.25), (100, 0.25)] {
            close(RankMetric::ReciprocalRank.at(k, &[4], 1), expected);
        }
        close(RankMetric::Ndcg.at(4, &[4], 1), 0.43067655807339306);
        close(RankMetric::HitRate.at(3, &[4], 1), 0.0);
        close(RankMetric::Recall.at(3, &[], 0), 0.0);
    }

    #[test]
    fn errors_of_predictions() {
        let mut sums = ErrorSums::default();
        for (predicted, actual) in [(3.0, 4.0), (5.0, 3.0), (2.0, 2.0)] {
            sums.add(predicted, actual);
        }
        close(sums.rmse(), (5.0f64 / 3.0).sqrt());
        close(sums.mae(), 1.0);
    }
}

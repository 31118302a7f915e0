//! From scores to decisions: a threshold, and what it does.
//!
//! The false-positive rate is the share of the honest transactions that are stopped. It is wanted beforehand, since each of them
//! is a customer at a counter who cannot pay; how many frauds are caught is what comes out. The threshold is read off the
//! validation rows and then applied to rows that it has not seen.

use crate::transactions::Transaction;

/// A transaction and the probability of fraud that a model gives it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scored {
    pub(crate) score: f32,
    pub(crate) transaction: Transaction,
}

/// What a threshold does to some transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decisions {
    pub(crate) frauds: u64,
    pub(crate) caught: u64,
    pub(crate) honest: u64,
    pub(crate) false_alarms: u64,
    pub(crate) fraud_cents: u64,
    pub(crate) caught_cents: u64,
}

/// One point of a precision-recall curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) recall: f64,
    pub(crate) precision: f64,
}

/// Returns the lowest threshold that stops at most `rate` of the honest transactions; what scores above it is stopped.
///
/// Transactions of one score are stopped together or not at all, so that it can be fewer. `rate` is below 1.
pub(crate) fn threshold(rows: &[Scored], rate: f64) -> f32 {
    let honest = rows.iter().filter(|row| !row.transaction.fraud);
    let mut scores: Vec<f32> = honest.map(|row| row.score).collect();
    scores.sort_unstable_by(|a, b| b.total_cmp(a));
    // 0.29 x 100 is a little below 29.
    let stopped = (rate * scores.len() as f64 + 1e-9) as usize;
    scores.get(stopped).copied().unwrap_or(0.0)
}

/// Returns whether a transaction is stopped.
pub(crate) fn is_stopped(score: f32, threshold: f32) -> bool {
    score > threshold
}

/// Counts what a threshold does.
pub(crate) fn decide<'a>(rows: impl IntoIterator<Item = &'a Scored>, threshold: f32) -> Decisions {
    let mut decisions = Decisions::default();
    for Scored { score, transaction } in rows {
        let stopped = u64::from(is_stopped(*score, threshold));
        let cents = u64::from(transaction.cents);
        if transaction.fraud {
            decisions.frauds += 1;
            decisions.caught += stopped;
            decisions.fraud_cents += cents;
            decisions.caught_cents += stopped * cents;
        } else {
            decisions.honest += 1;
            decisions.false_alarms += stopped;
        }
    }
    decisions
}

impl Decisions {
    /// Returns the share of the frauds that are caught.
    pub(crate) fn recall(&self) -> f64 {
        share(self.caught, self.frauds)
    }

    /// Returns the share of frauds in what is stopped; 1 where nothing is.
    pub(crate) fn precision(&self) -> f64 {
        match self.caught + self.false_alarms {
            0 => 1.0,
            stopped => share(self.caught, stopped),
        }
    }

    /// Returns the share of the honest transactions that are stopped.
    pub(crate) fn false_positive_rate(&self) -> f64 {
        share(self.false_alarms, self.honest)
    }
}

/// Returns a part of a whole; 0 of nothing.
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// Returns precision and recall at the thresholds from the highest score down, from the first fraud on.
///
/// Of the thresholds between two frauds, at which only the precision falls, it is the last.
pub(crate) fn precision_recall(rows: &[Scored]) -> Vec<Point> {
    let mut sorted: Vec<(f32, bool)> = rows.iter().map(|row| (row.score, row.transaction.fraud)).collect();
    sorted.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let frauds = sorted.iter().filter(|row| row.1).count() as u64;
    let (mut caught, mut stopped) = (0, 0);
    let mut points = Vec::new();
    for equal in sorted.chunk_by(|a, b| a.0 == b.0) {
        let more = equal.iter().filter(|row| row.1).count() as u64;
        if more > 0 && caught > 0 {
            points.push(Point { recall: share(caught, frauds), precision: share(caught, stopped) });
        }
        caught += more;
        stopped += equal.len() as u64;
        if more > 0 {
            points.push(Point { recall: share(caught, frauds), precision: share(caught, stopped) });
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(score: f32, fraud: bool) -> Scored {
        let transaction =
            Transaction { seconds: 0, customer: 0, terminal: 0, cents: 1000, fraud, scenario: 0 };
        Scored { score, transaction }
    }

    #[test]
    fn the_threshold_keeps_the_rate_of_a_hand_computed_case() {
        // Ten honest rows, .1 to .9 and .95, and three frauds between them.
        let honest = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95].map(|score| scored(score, false));
        let rows = [&honest[..], &[0.05, 0.85, 0.99].map(|score| scored(score, true))].concat();
        // Two of ten may be stopped: .9 and .95, with the frauds of .85 and .99.
        assert_eq!(threshold(&rows, 0.2), 0.8);
        let decisions = decide(&rows, 0.8);
        let expected = Decisions {
            frauds: 3,
            caught: 2,
            honest: 10,
            false_alarms: 2,
            fraud_cents: 3000,
            caught_cents: 2000,
        };
        assert_eq!(decisions, expected);
        assert_eq!(decisions.false_positive_rate(), 0.2);
        assert_eq!([decisions.recall(), decisions.precision()], [2.0 / 3.0, 0.5]);
        // One in twenty of ten is none.
        assert_eq!(threshold(&rows, 0.05), 0.95);
        assert_eq!(decide(&rows, 0.95).false_alarms, 0);
    }

    #[test]
    fn equal_scores_are_not_parted_and_the_rate_is_still_kept() {
        let rows = [0.5, 0.5, 0.5, 0.5, 0.7].map(|score| scored(score, false));
        // Two of five may be stopped, but the second would take three more with it.
        assert_eq!(threshold(&rows, 0.4), 0.5);
        assert_eq!(decide(&rows, 0.5).false_alarms, 1);
        // As 0.29 x 100 comes out below 29 in binary.
        let rows: Vec<Scored> = (0..100).map(|at| scored(at as f32 / 100.0, false)).collect();
        assert_eq!(decide(&rows, threshold(&rows, 0.29)).false_alarms, 29);
    }

    #[test]
    fn the_curve_falls_between_two_frauds() {
        let rows =
            [(0.9, true), (0.8, false), (0.7, true), (0.7, false), (0.1, false)].map(|(s, f)| scored(s, f));
        let points = precision_recall(&rows);
        let expected = [(0.5, 1.0), (0.5, 0.5), (1.0, 0.5)];
        assert_eq!(points, expected.map(|(recall, precision)| Point { recall, precision }));
    }
}

//! Which transactions the model learns from, which set the threshold, and which judge it.
//!
//! ```text
//! | windows fill up | train | gap of 7 days | validation | test |        days, from the first to the last
//! ```
//!
//! On the first day after the gap the frauds of the training days are known and no later ones. A card whose fraud is known is
//! blocked: from validation and test those customers are left out who had a fraud between the first training day and the day
//! 8 days before the transaction.

use std::{collections::HashMap, ops::Range};

use crate::{
    failure::{Failure, Result},
    features::{DELAY, LOOKS_BACK},
    transactions::Transaction,
};

/// The days of each part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Days {
    pub(crate) train: Range<u32>,
    pub(crate) validation: Range<u32>,
    pub(crate) test: Range<u32>,
}

impl Days {
    /// Cuts `n` days that begin with day `first`.
    ///
    /// Half of what the gap leaves is for training, a quarter for validation, the rest for test. `windows_are_full` says that
    /// rows do not depend on what was before them in the data; else as many days as they look back are left out, at most half.
    pub(crate) fn cut(first: u32, n: u32, windows_are_full: bool) -> Result<Self> {
        let unfilled = if windows_are_full { 0 } else { LOOKS_BACK.min(n / 2) };
        let usable = n.saturating_sub(unfilled + DELAY);
        if usable < 4 {
            return Err(Failure::FewDays { least: if windows_are_full { 11 } else { 21 }, found: n });
        }
        let train = first + unfilled..first + unfilled + usable / 2;
        let validation = train.end + DELAY..train.end + DELAY + usable / 4;
        Ok(Self { test: validation.end..first + n, train, validation })
    }
}

/// The transactions of each part, by their places.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) train: Vec<usize>,
    pub(crate) validation: Vec<usize>,
    pub(crate) test: Vec<usize>,
}

impl Parts {
    /// Deals the transactions out.
    ///
    /// # Errors
    /// [`Failure::OneKind`] where a part has no fraud, or nothing else.
    pub(crate) fn of(days: &Days, all: &[Transaction]) -> Result<Self> {
        let mut first_fraud: HashMap<u32, u32> = HashMap::new();
        for transaction in all.iter().filter(|one| one.fraud && one.day() >= days.train.start) {
            first_fraud.entry(transaction.customer).or_insert(transaction.day());
        }
        let is_blocked = |transaction: &Transaction| {
            first_fraud.get(&transaction.customer).is_some_and(|day| day + DELAY < transaction.day())
        };
        let part = |name, days: &Range<u32>, keeps_blocked: bool| {
            let within: Vec<usize> = (0..all.len())
                .filter(|&at| days.contains(&all[at].day()) && (keeps_blocked || !is_blocked(&all[at])))
                .collect();
            let (rows, frauds) = (within.len(), within.iter().filter(|&&at| all[at].fraud).count());
            if frauds == 0 || frauds == rows {
                return Err(Failure::OneKind { part: name, frauds, rows });
            }
            Ok(within)
        };
        Ok(Self {
            train: part("training", &days.train, true)?,
            validation: part("validation", &days.validation, false)?,
            test: part("test", &days.test, false)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transactions::DAY;

    #[test]
    fn days_are_cut_in_order_with_a_gap() {
        let days = Days::cut(115, 21, true).unwrap();
        assert_eq!(days, Days { train: 115..122, validation: 129..132, test: 132..136 });
        let days = Days::cut(0, 86, false).unwrap();
        assert_eq!(days, Days { train: 37..58, validation: 65..75, test: 75..86 });
        assert!(Days::cut(0, 11, true).is_ok() && Days::cut(0, 21, false).is_ok());
        let told = |n, full| Days::cut(0, n, full).unwrap_err().to_string();
        assert_eq!(told(10, true), "expected at least 11 days, found `10`");
        assert_eq!(told(20, false), "expected at least 21 days, found `20`");
    }

    #[test]
    fn a_card_is_blocked_on_the_eighth_day_after_its_fraud() {
        let days = Days { train: 1..3, validation: 9..11, test: 11..13 };
        let one = |day: u32, customer: u32, fraud: bool| Transaction {
            seconds: day * DAY,
            customer,
            terminal: 0,
            cents: 1,
            fraud,
            scenario: 0,
        };
        let all = [
            one(0, 4, true), // Before training: not known of.
            one(1, 1, true),
            one(2, 2, true),
            one(2, 3, false),
            one(9, 1, false), // Out.
            one(9, 2, true),
            one(9, 4, false),
            one(10, 2, false), // Out.
            one(10, 4, true),
            one(11, 3, false),
            one(12, 4, true),
        ];
        let parts = Parts::of(&days, &all).unwrap();
        assert_eq!(parts.train, [1, 2, 3]);
        assert_eq!(parts.validation, [5, 6, 8]);
        assert_eq!(parts.test, [9, 10]);
        let told = Parts::of(&days, &all[..10]).unwrap_err().to_string();
        assert!(told.starts_with("the test days hold 0 frauds in 1 transactions"), "{told}");
    }
}

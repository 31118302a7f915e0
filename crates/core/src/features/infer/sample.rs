//! What the first rows of a column look like: the numbers that a guess rests on.
//!
//! Different values are told apart by a 64-bit hash of their text, so that a column of long texts costs no more than one
//! of numbers: about 40 bytes for each different value.

use std::collections::HashSet;

use arrow::array::Array;
use hashbrown::HashMap;

use super::super::column::{Column, Missing, is_list, json_list};
use super::super::hash::hash_text;
use crate::Result;
use crate::data::{Rows, parse_time};

/// What may stand between the categories of one text.
pub(super) const SEPARATORS: [char; 2] = ['|', ';'];

/// The first rows of one column.
#[derive(Default)]
pub(super) struct Sample {
    pub(super) name: String,
    /// The type, where it is one that cannot be read.
    pub(super) unreadable: Option<String>,
    /// Whether the cells are lists, or text that is a JSON list.
    pub(super) lists: u64,
    /// Whether the column is one of dates or times by its type.
    pub(super) moments: bool,
    /// Rows with a value.
    pub(super) filled: u64,
    pub(super) missing: u64,
    /// Cells that are numbers, finite or not, those of them that are whole, and those that are written with zeros before.
    pub(super) numbers: u64,
    pub(super) finite: u64,
    pub(super) whole: u64,
    pub(super) padded: u64,
    /// Cells that are dates, as text that is no number.
    pub(super) dates: u64,
    /// The first text that is no number.
    pub(super) first_text: Option<String>,
    pub(super) longest: usize,
    pub(super) least: f64,
    pub(super) greatest: f64,
    /// Whether every number is above the one before, or every one below.
    pub(super) ascends: bool,
    pub(super) descends: bool,
    /// For each of [`SEPARATORS`] the cells that have it, and the different parts.
    pub(super) separated: [(u64, HashSet<u64>); 2],
    pub(super) values: HashMap<u64, Seen, foldhash::fast::FixedState>,
    last: f64,
    sums: [f64; 3],
}

/// One value of a column.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) rows: u32,
    /// Rows with a label, and those of them in which it is 1.
    pub(super) labelled: u32,
    pub(super) positive: u32,
    pub(super) number: f64,
}

impl Sample {
    pub(super) fn new(name: &str) -> Self {
        let (least, greatest, last) = (f64::INFINITY, f64::NEG_INFINITY, f64::NAN);
        Self {
            name: name.to_owned(),
            least,
            greatest,
            last,
            ascends: true,
            descends: true,
            ..Self::default()
        }
    }

    /// Looks at the first `n` rows of a batch, whose labels are known or not.
    pub(super) fn add(
        &mut self,
        rows: &Rows,
        location: &str,
        n: usize,
        labels: &[Option<bool>],
        missing: &Missing<'_>,
    ) -> Result<()> {
        let Some(array) = rows.batch.column_by_name(&self.name) else { return Ok(()) };
        let Ok(Some(mut column)) = Column::of(rows, location, &self.name, true) else {
            self.unreadable = Some(array.data_type().to_string());
            return Ok(());
        };
        self.moments |= array.data_type().is_temporal();
        if is_list(array.data_type()) {
            for row in 0..n {
                let mut any = false;
                // Long categories are told when the column is fitted.
                let _ = column.categories(row, "|", missing, |text| {
                    any = true;
                    self.values.entry(hash_text(text)).or_default().rows += 1;
                });
                self.lists += u64::from(any);
                self.filled += u64::from(any);
                self.missing += u64::from(!any);
            }
            return Ok(());
        }
        for row in 0..n {
            let label = labels.get(row).copied().flatten();
            let text = column.text(row);
            if missing.has(text) {
                self.missing += 1;
                continue;
            }
            self.look_at(text, label);
        }
        Ok(())
    }

    fn look_at(&mut self, text: &str, label: Option<bool>) {
        self.filled += 1;
        self.longest = self.longest.max(text.len());
        let number: Option<f64> = text.parse().ok();
        let seen = self.values.entry(hash_text(text)).or_default();
        seen.rows += 1;
        seen.labelled += u32::from(label.is_some());
        seen.positive += u32::from(label == Some(true));
        seen.number = number.unwrap_or(f64::NAN);
        let Some(number) = number else {
            self.ascends = false;
            self.descends = false;
            self.first_text.get_or_insert_with(|| text.chars().take(40).collect());
            self.dates += u64::from(text.len() >= 10 && parse_time(text).is_some());
            self.lists += u64::from(json_list(text).is_some());
            for (separator, (cells, parts)) in SEPARATORS.iter().zip(&mut self.separated) {
                *cells += u64::from(text.contains(*separator));
                parts.extend(text.split(*separator).map(|part| hash_text(part.trim_ascii())));
            }
            return;
        };
        self.numbers += 1;
        if !number.is_finite() {
            return;
        }
        self.finite += 1;
        let digits = text.trim_start_matches('-');
        self.whole += u64::from(number.fract() == 0.0);
        self.padded += u64::from(
            digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()),
        );
        self.least = self.least.min(number);
        self.greatest = self.greatest.max(number);
        // The first comparison is with NaN, which is neither above nor below.
        self.ascends &= self.last.is_nan() || number > self.last;
        self.descends &= self.last.is_nan() || number < self.last;
        self.last = number;
        self.sums[0] += number;
        self.sums[1] += number * number;
        self.sums[2] += number * number * number;
    }

    /// Returns how many different values there are.
    pub(super) fn different(&self) -> u64 {
        self.values.len() as u64
    }

    /// Returns how lopsided the numbers are: the third central moment over the cube of the deviation.
    pub(super) fn skewness(&self) -> f64 {
        let n = self.finite as f64;
        let [mean, squares, cubes] = self.sums.map(|sum| sum / n);
        let variance = squares - mean * mean;
        let third = cubes - 3.0 * mean * squares + 2.0 * mean * mean * mean;
        if variance > 0.0 { third / variance.powf(1.5) } else { 0.0 }
    }

    /// Returns the share of the rows with a number in which it satisfies `is`.
    pub(super) fn share(&self, is: impl Fn(f64) -> bool) -> f64 {
        let rows =
            self.values.values().filter(|seen| is(seen.number)).map(|seen| u64::from(seen.rows)).sum::<u64>();
        rows as f64 / self.filled.max(1) as f64
    }

    /// Returns whether the label follows from this column alone: by its value, or by a threshold on its number.
    pub(super) fn predicts_label(&self) -> bool {
        const LEAST_ROWS_OF_A_CLASS: u64 = 10;
        let labelled: u64 = self.values.values().map(|seen| u64::from(seen.labelled)).sum();
        let positive: u64 = self.values.values().map(|seen| u64::from(seen.positive)).sum();
        let rarer = positive.min(labelled - positive);
        if rarer < LEAST_ROWS_OF_A_CLASS {
            return false;
        }
        // Each row is predicted by the other rows with its value; where there is no other, by the commoner label.
        let common = positive * 2 > labelled;
        let wrong = |seen: &Seen| {
            let (n, p) = (u64::from(seen.labelled), u64::from(seen.positive));
            let positive_by =
                |others: u64, positive: u64| if others == 0 { common } else { positive * 2 > others };
            let others = n.saturating_sub(1);
            let wrong_positive = if p > 0 && !positive_by(others, p - 1) { p } else { 0 };
            let wrong_negative = if n > p && positive_by(others, p) { n - p } else { 0 };
            wrong_positive + wrong_negative
        };
        let by_value: u64 = self.values.values().map(wrong).sum();
        by_value * 100 <= rarer || (self.numbers == self.filled && self.separates(labelled, positive))
    }

    /// Returns whether the numbers order the labels: an AUC above 0.999, or below 0.001.
    fn separates(&self, labelled: u64, positive: u64) -> bool {
        let mut values: Vec<&Seen> = self.values.values().collect();
        values.sort_unstable_by(|a, b| a.number.total_cmp(&b.number));
        let (mut below, mut area) = (0.0, 0.0);
        for seen in values {
            let (positive, negative) = (f64::from(seen.positive), f64::from(seen.labelled - seen.positive));
            area += positive * (below + negative / 2.0);
            below += negative;
        }
        let auc = area / (positive as f64 * (labelled - positive) as f64);
        !(0.001..=0.999).contains(&auc)
    }
}

//! What was guessed, fitted and counted on the way from rows to features.

use serde::{Deserialize, Serialize};

use crate::data::{BadRows, OnBadRow};

/// What [`super::infer_schema`] guessed, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SchemaReport {
    /// Rows that the guesses rest on, from the beginning of the files.
    pub rows: u64,
    /// Whether the files have more.
    pub more_rows: bool,
    /// One for each column, in the order of the file.
    pub guesses: Vec<Guess>,
    /// What looks wrong.
    pub warnings: Vec<SchemaWarning>,
    /// Rows that were left out as bad, by kind.
    pub bad_rows: Vec<BadRows>,
}

/// What one column was taken for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guess {
    /// The column.
    pub column: String,
    /// Its kind, such as `categorical`.
    pub kind: String,
    /// Why: the flag that said so, or what was seen.
    pub why: String,
    /// The flag that makes something else of it.
    pub flag: String,
    /// The first text of a column that is nearly always a number, where it was taken for categories because of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stray: Option<String>,
}

/// Something that looks wrong with a column, or with all where `column` is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaWarning {
    /// The column.
    pub column: String,
    /// What looks wrong, with what to do.
    pub what: String,
}

/// What [`super::Features::fit`] found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FitReport {
    /// Rows that were used.
    pub rows: u64,
    /// Rows that were left out as bad, by kind.
    pub bad_rows: Vec<BadRows>,
    /// How often each label is 1.
    pub labels: Vec<LabelCount>,
    /// Vocabularies that had no room for all categories.
    pub full: Vec<FullVocabulary>,
    /// Numeric columns that have one value in all rows, or none in any, and so say nothing.
    pub constant: Vec<String>,
}

/// How often a label is 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LabelCount {
    /// The column.
    pub column: String,
    /// Rows with 1.
    pub positive: u64,
    /// All rows.
    pub rows: u64,
}

/// A vocabulary that had no room for all categories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FullVocabulary {
    /// The column.
    pub column: String,
    /// The most that it may hold.
    pub max_size: u32,
    /// How many of the rarest were left out for room; a category that came back is counted again.
    pub left_out: u64,
}

/// What transforming rows met.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TransformReport {
    /// What a bad row does; set it before.
    pub on_bad_row: OnBadRow,
    /// Rows that were transformed.
    pub rows: u64,
    /// Rows that were left out as bad, by kind.
    pub bad_rows: Vec<BadRows>,
    /// For each of [`super::Features::fields`] the values that its vocabulary does not have; they went to row 0.
    pub unseen: Vec<u64>,
    /// For each of [`super::Features::fields`] the rows without a value.
    pub missing: Vec<u64>,
    /// For each of [`super::Features::numeric`] the rows without a number; they took the default.
    pub missing_numbers: Vec<u64>,
}

impl TransformReport {
    /// Begins a report on rows of which bad ones do what `on_bad_row` says.
    pub fn new(on_bad_row: OnBadRow) -> Self {
        Self { on_bad_row, ..Self::default() }
    }

    /// Adds what another report counted.
    pub(super) fn add(&mut self, other: &Self) {
        let sum = |into: &mut Vec<u64>, from: &[u64]| {
            into.resize(into.len().max(from.len()), 0);
            into.iter_mut().zip(from).for_each(|(into, from)| *into += from);
        };
        self.rows += other.rows;
        sum(&mut self.unseen, &other.unseen);
        sum(&mut self.missing, &other.missing);
        sum(&mut self.missing_numbers, &other.missing_numbers);
        for bad in &other.bad_rows {
            match self.bad_rows.iter_mut().find(|rows| rows.kind == bad.kind) {
                Some(rows) => rows.rows += bad.rows,
                None => self.bad_rows.push(bad.clone()),
            }
        }
    }
}

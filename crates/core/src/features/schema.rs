//! What each column of a file is to a ranker.
//!
//! | kind        | becomes                                                                             |
//! |-------------|-------------------------------------------------------------------------------------|
//! | categorical | one row of an embedding table: of a vocabulary, or of a number of hash buckets         |
//! | bag         | any number of rows of one table, such as the genres of a film                          |
//! | numeric     | one dense number; with quantiles one row of a table                                    |
//! | label       | what is learned: 0 or 1                                                                |
//! | weight      | how much the row counts                                                                |
//! | time        | when it was, in seconds since 1970; no feature                                         |
//! | ignore      | nothing                                                                                |
//!
//! The group, by which some metrics are averaged, is named beside: it is often the user, who is a feature as well.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::schema_text::Entry;
use crate::models::Problems;
use crate::{Error, Result};

/// The texts that stand for nothing where no schema says otherwise; the empty text always does.
const MISSING: [&str; 11] = ["?", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "none", "\\N"];

/// The most rows that a table of one field can have.
pub(super) const MAX_ROWS: u32 = 1 << 31;

/// What each column of a file is, in the order of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schema {
    /// Texts that mean that there is no value, besides the empty one; compared without blanks around them.
    pub missing: Vec<String>,
    /// The column that says which rows belong together, such as the user or the request; it may be a feature too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The columns. Those that are not listed are ignored.
    pub columns: Vec<FeatureColumn>,
}

impl Default for Schema {
    fn default() -> Self {
        Self { missing: MISSING.map(str::to_owned).to_vec(), group: None, columns: Vec::new() }
    }
}

/// One column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Entry", into = "Entry")]
pub struct FeatureColumn {
    /// Its name in the header, or its number from 1 in a file without one.
    pub name: String,
    /// What it is.
    pub kind: ColumnKind,
}

/// What a column is.
#[derive(Clone, Debug, PartialEq)]
pub enum ColumnKind {
    /// One category.
    Categorical(Encoding),
    /// Any number of categories: a list, a JSON list, or text with something in between.
    Bag {
        /// How a category becomes an index.
        encoding: Encoding,
        /// What stands between two categories of one text.
        separator: String,
    },
    /// A number.
    Numeric(Numeric),
    /// What is learned: 0 or 1, false or true.
    Label,
    /// How much the row counts: a number of at least 0.
    Weight,
    /// When it was.
    Time,
    /// Nothing.
    Ignore,
}

/// How a category becomes an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// By its place in the sorted list of the training file's categories.
    Vocabulary {
        /// Categories in fewer rows share row 0.
        min_count: u32,
        /// The most categories that are counted at a time and kept. Where there are more, the rarest are left out, which is said.
        max_size: u32,
    },
    /// By [`super::hash_category`] with seed 0.
    Hashed {
        /// The size of the table.
        buckets: u32,
    },
}

/// How a number becomes a feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numeric {
    /// What is done with it.
    pub transform: NumericTransform,
    /// What stands in for a missing one.
    pub fill: Fill,
    /// Where not 0: also a field of as many buckets at most, as [`NumericTransform::Quantiles`] makes one, so that a model
    /// learns what a straight line cannot say of the number.
    pub buckets: u32,
}

impl Numeric {
    /// Returns whether the number itself is a feature.
    pub(super) fn is_dense(&self) -> bool {
        !matches!(self.transform, NumericTransform::Quantiles { .. })
    }

    /// Returns the buckets of the number's field, if it has one.
    pub(super) fn field_buckets(&self) -> Option<u32> {
        match self.transform {
            NumericTransform::Quantiles { buckets } => Some(buckets),
            _ => Some(self.buckets).filter(|&buckets| buckets > 0),
        }
    }
}

/// What is done with a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NumericTransform {
    /// Nothing.
    AsIs,
    /// `(x - mean) / standard deviation` of the training file.
    #[default]
    Standardize,
    /// `sign(x) ln(1 + |x|)`, standardized: for counts and amounts that are mostly small.
    Log,
    /// The bucket it falls into, as a field: about as many training rows in each; row 0 is for missing numbers.
    Quantiles {
        /// How many, at most.
        buckets: u32,
    },
}

/// What stands in for a missing number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fill {
    /// The mean of the training file, after the logarithm where there is one.
    #[default]
    Mean,
    /// The median of the training file, estimated from 32,768 rows where there are more.
    Median,
}

impl Default for Encoding {
    fn default() -> Self {
        Self::Vocabulary { min_count: 2, max_size: 10_000_000 }
    }
}

impl ColumnKind {
    /// Returns what it is called in files and flags.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Categorical(_) => "categorical",
            Self::Bag { .. } => "bag",
            Self::Numeric(_) => "numeric",
            Self::Label => "label",
            Self::Weight => "weight",
            Self::Time => "time",
            Self::Ignore => "ignore",
        }
    }

    /// Returns whether a model learns from the column.
    pub fn is_feature(&self) -> bool {
        matches!(self, Self::Categorical(_) | Self::Bag { .. } | Self::Numeric(_))
    }
}

impl Schema {
    /// Returns the column called `name`.
    pub fn column(&self, name: &str) -> Option<&FeatureColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Returns the names of the columns that are labels.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.columns
            .iter()
            .filter(|column| column.kind == ColumnKind::Label)
            .map(|column| column.name.as_str())
    }

    /// Returns the column that holds the weight, where there is one.
    pub fn weight(&self) -> Option<&str> {
        self.first(&ColumnKind::Weight)
    }

    /// Returns the column that holds the time, where there is one.
    pub fn time(&self) -> Option<&str> {
        self.first(&ColumnKind::Time)
    }

    fn first(&self, kind: &ColumnKind) -> Option<&str> {
        self.columns.iter().find(|column| column.kind == *kind).map(|column| column.name.as_str())
    }

    /// Lists everything that contradicts itself, at once.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`].
    pub fn validate(&self) -> Result<()> {
        let mut problems = Problems::new("schema");
        let mut names = HashSet::new();
        for column in &self.columns {
            let FeatureColumn { name, kind } = column;
            if !names.insert(name.as_str()) {
                problems.add("name", "another for each column", name);
            }
            let mut check = |encoding: &Encoding| match *encoding {
                Encoding::Vocabulary { min_count, max_size } => {
                    if min_count == 0 {
                        problems.add("min_count", "at least 1", format!("0 (column {name})"));
                    }
                    if !(1..MAX_ROWS).contains(&max_size) {
                        problems.add(
                            "max_size",
                            "from 1 to 2147483647",
                            format!("{max_size} (column {name})"),
                        );
                    }
                }
                Encoding::Hashed { buckets } => {
                    if !(1..=MAX_ROWS).contains(&buckets) {
                        let got = format!("{buckets} (column {name})");
                        problems.add("hash_buckets", "from 1 to 2147483648", got);
                    }
                }
            };
            match kind {
                ColumnKind::Categorical(encoding) => check(encoding),
                ColumnKind::Bag { encoding, separator } => {
                    check(encoding);
                    if separator.is_empty() {
                        problems.add("separator", "some text", format!(" (column {name})"));
                    }
                }
                ColumnKind::Numeric(numeric) => {
                    if let Some(buckets) = numeric.field_buckets().filter(|n| !(2..=4096).contains(n)) {
                        problems.add("buckets", "from 2 to 4096", format!("{buckets} (column {name})"));
                    }
                }
                _ => {}
            }
        }
        for kind in [ColumnKind::Weight, ColumnKind::Time] {
            let of_kind: Vec<&str> = self
                .columns
                .iter()
                .filter(|column| column.kind == kind)
                .map(|column| &*column.name)
                .collect();
            if of_kind.len() > 1 {
                let expected =
                    if kind == ColumnKind::Time { "time for one column" } else { "weight for one column" };
                problems.add("kind", expected, of_kind.join(", "));
            }
        }
        if let Some(group) = self.group.as_ref().filter(|group| !names.contains(group.as_str())) {
            problems.add("group", "the name of a column", group);
        }
        if !self.columns.iter().any(|column| column.kind.is_feature()) {
            problems.add("columns", "a list with a categorical, a bag or a numeric one", "no feature");
        }
        problems.finish()
    }

    /// Checks that there is something to learn from and something to learn.
    ///
    /// # Errors
    /// Those of [`Schema::validate`]; [`Error::NoColumnFor`] without a label, with what `path` has instead.
    pub(super) fn validate_for_fit(&self, path: &str) -> Result<()> {
        self.validate()?;
        if self.labels().next().is_some() {
            return Ok(());
        }
        let known: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
        Err(Error::NoColumnFor {
            path: path.to_owned(),
            role: "label",
            accepted: super::infer::LABELS[..4].join(", "),
            known: known.join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, kind: ColumnKind) -> FeatureColumn {
        FeatureColumn { name: name.to_owned(), kind }
    }

    #[test]
    fn all_problems_are_listed_at_once() {
        let schema = Schema {
            group: Some("session".to_owned()),
            columns: vec![
                column("a", ColumnKind::Categorical(Encoding::Vocabulary { min_count: 0, max_size: 9 })),
                column("a", ColumnKind::Categorical(Encoding::Hashed { buckets: 0 })),
                column("t", ColumnKind::Time),
                column("u", ColumnKind::Time),
            ],
            ..Schema::default()
        };
        assert_eq!(
            schema.validate().unwrap_err().to_string(),
            "invalid configuration of schema: min_count must be at least 1, not `0 (column a)`; name must be another for \
             each column, not `a`; hash_buckets must be from 1 to 2147483648, not `0 (column a)`; kind must be time for one \
             column, not `t, u`; group must be the name of a column, not `session`"
        );
    }

    #[test]
    fn a_schema_without_features_or_label_is_refused() {
        let schema = Schema { columns: vec![column("y", ColumnKind::Label)], ..Schema::default() };
        assert!(schema.validate().is_err());
        let schema = Schema {
            columns: vec![column("a", ColumnKind::Numeric(Numeric::default()))],
            ..Schema::default()
        };
        schema.validate().unwrap();
        let told = schema.validate_for_fit("f.csv").unwrap_err().to_string();
        assert!(told.starts_with("f.csv: no column for the label: expected one of label, "), "{told}");
    }
}

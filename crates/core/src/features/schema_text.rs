//! A schema as JSON and as TOML that people edit.
//!
//! ```toml
//! missing = ["?", "NA"]
//! group = "user"
//!
//! [[columns]]
//! name = "genres"        # what is not written has its default
//! kind = "bag"           # categorical, bag, numeric, label, weight, time or ignore
//! separator = "|"
//! min_count = 2          # categorical and bag: or hash_buckets
//!
//! [[columns]]
//! name = "price"
//! kind = "numeric"
//! transform = "log"      # standardize, log, quantiles or as-is
//! buckets = 32           # of quantiles; with the others a field of buckets beside the number
//! fill = "mean"          # or median: what stands in for a missing number
//! ```

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::report::SchemaReport;
use super::schema::{ColumnKind, Encoding, FeatureColumn, Fill, Numeric, NumericTransform, Schema};
use crate::{Error, Result};

const DEFAULT_BUCKETS: u32 = 32;
const DEFAULT_SEPARATOR: &str = "|";

/// A column as it is written: everything that some kind has, where it is said.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    name: String,
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    separator: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_count: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_size: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash_buckets: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transform: Option<Transform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    buckets: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fill: Option<Fill>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Transform {
    AsIs,
    Standardize,
    Log,
    Quantiles,
}

impl From<FeatureColumn> for Entry {
    fn from(column: FeatureColumn) -> Self {
        let kind = column.kind.name().to_owned();
        let mut entry = Self { name: column.name, kind, ..Self::default() };
        let mut encode = |encoding: Encoding| match encoding {
            Encoding::Vocabulary { min_count, max_size } => {
                entry.min_count = Some(min_count);
                entry.max_size = Some(max_size);
            }
            Encoding::Hashed { buckets } => entry.hash_buckets = Some(buckets),
        };
        match column.kind {
            ColumnKind::Categorical(encoding) => encode(encoding),
            ColumnKind::Bag { encoding, separator } => {
                encode(encoding);
                entry.separator = Some(separator);
            }
            ColumnKind::Numeric(numeric) => {
                entry.transform = Some(match numeric.transform {
                    NumericTransform::AsIs => Transform::AsIs,
                    NumericTransform::Standardize => Transform::Standardize,
                    NumericTransform::Log => Transform::Log,
                    NumericTransform::Quantiles { .. } => Transform::Quantiles,
                });
                entry.buckets = numeric.field_buckets();
                entry.fill = Some(numeric.fill);
            }
            ColumnKind::Label | ColumnKind::Weight | ColumnKind::Time | ColumnKind::Ignore => {}
        }
        entry
    }
}

impl TryFrom<Entry> for FeatureColumn {
    type Error = String;

    fn try_from(entry: Entry) -> std::result::Result<Self, String> {
        let is = |kind: &str| entry.kind == kind;
        let category = is("categorical") || is("bag");
        let hashed = entry.hash_buckets.is_some();
        let said = [
            ("separator", entry.separator.is_some(), is("bag")),
            ("min_count", entry.min_count.is_some(), category && !hashed),
            ("max_size", entry.max_size.is_some(), category && !hashed),
            ("hash_buckets", hashed, category),
            ("transform", entry.transform.is_some(), is("numeric")),
            ("buckets", entry.buckets.is_some(), is("numeric")),
            ("fill", entry.fill.is_some(), is("numeric")),
        ];
        if let Some((key, ..)) = said.iter().find(|(_, said, fits)| *said && !fits) {
            return Err(format!("column `{}`: `{key}` does not go with what else is said of it", entry.name));
        }
        let Encoding::Vocabulary { min_count, max_size } = Encoding::default() else {
            return Err("the default encoding is a vocabulary".to_owned());
        };
        let encoding = match entry.hash_buckets {
            Some(buckets) => Encoding::Hashed { buckets },
            None => Encoding::Vocabulary {
                min_count: entry.min_count.unwrap_or(min_count),
                max_size: entry.max_size.unwrap_or(max_size),
            },
        };
        let kind = match entry.kind.as_str() {
            "categorical" => ColumnKind::Categorical(encoding),
            "bag" => {
                let separator = entry.separator.unwrap_or_else(|| DEFAULT_SEPARATOR.to_owned());
                ColumnKind::Bag { encoding, separator }
            }
            "numeric" => ColumnKind::Numeric(Numeric {
                transform: match entry.transform.unwrap_or(Transform::Standardize) {
                    Transform::AsIs => NumericTransform::AsIs,
                    Transform::Standardize => NumericTransform::Standardize,
                    Transform::Log => NumericTransform::Log,
                    Transform::Quantiles => {
                        NumericTransform::Quantiles { buckets: entry.buckets.unwrap_or(DEFAULT_BUCKETS) }
                    }
                },
                fill: entry.fill.unwrap_or_default(),
                buckets: match entry.transform {
                    Some(Transform::Quantiles) => 0,
                    _ => entry.buckets.unwrap_or(0),
                },
            }),
            "label" => ColumnKind::Label,
            "weight" => ColumnKind::Weight,
            "time" => ColumnKind::Time,
            "ignore" => ColumnKind::Ignore,
            other => {
                return Err(format!(
                    "column `{}`: expected the kind categorical, bag, numeric, label, weight, time or ignore, found `{other}`",
                    entry.name
                ));
            }
        };
        Ok(Self { name: entry.name, kind })
    }
}

impl Schema {
    /// Reads the TOML of a schema, which came from `path`, and checks it.
    ///
    /// # Errors
    /// [`Error::BadFile`] with the line; those of [`Schema::validate`].
    pub fn from_toml(path: &str, text: &str) -> Result<Self> {
        let schema: Self = toml::from_str(text).map_err(|error| Error::BadFile {
            path: path.to_owned(),
            what: error.to_string().trim_end().to_owned(),
        })?;
        schema.validate()?;
        Ok(schema)
    }

    /// Writes the schema as TOML to be edited, with the reason of each guess beside its column.
    pub fn to_toml(&self, report: &SchemaReport) -> String {
        let mut text = String::from(
            "# What each column is. Kinds: categorical, bag, numeric, label, weight, time, ignore.\n\
             # A column that is not listed is ignored.\n\n\
             # Texts that mean that there is no value, besides the empty one.\n",
        );
        let missing: Vec<String> = self.missing.iter().map(|text| quoted(text)).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "missing = [{}]", missing.join(", "));
        if let Some(group) = &self.group {
            let _ = writeln!(text, "group = {}", quoted(group));
        }
        for column in &self.columns {
            let entry = Entry::from(column.clone());
            text.push('\n');
            for guess in report.guesses.iter().filter(|guess| guess.column == column.name) {
                let _ = writeln!(text, "# {}", one_line(&guess.why));
            }
            for warning in report.warnings.iter().filter(|warning| warning.column == column.name) {
                let _ = writeln!(text, "# warning: {}", one_line(&warning.what));
            }
            let _ =
                writeln!(text, "[[columns]]\nname = {}\nkind = {}", quoted(&entry.name), quoted(&entry.kind));
            let mut number = |key: &str, value: Option<u32>| {
                if let Some(value) = value {
                    let _ = writeln!(text, "{key} = {value}");
                }
            };
            number("min_count", entry.min_count);
            number("max_size", entry.max_size);
            number("hash_buckets", entry.hash_buckets);
            number("buckets", entry.buckets);
            let mut word = |key: &str, value: Option<&str>| {
                if let Some(value) = value {
                    let _ = writeln!(text, "{key} = {}", quoted(value));
                }
            };
            word("separator", entry.separator.as_deref());
            word(
                "transform",
                entry.transform.map(|transform| match transform {
                    Transform::AsIs => "as-is",
                    Transform::Standardize => "standardize",
                    Transform::Log => "log",
                    Transform::Quantiles => "quantiles",
                }),
            );
            word(
                "fill",
                entry.fill.map(|fill| match fill {
                    Fill::Mean => "mean",
                    Fill::Median => "median",
                }),
            );
        }
        text
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\U{:08X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A reason may quote what a file holds; a comment ends with its line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

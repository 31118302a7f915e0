//! The flags that say what the columns of a file of rows are, and how its text is read; and what is told of the guesses.

use std::path::PathBuf;

use clap::Args;
use recmill_core::{
    Error as Core,
    data::{Format, OnBadRow, ReadOptions},
    features::{Schema, SchemaOptions, SchemaReport, infer_schema},
};
use serde::{Deserialize, Serialize};

use crate::{
    commands::train_flags::one_or_many,
    failure::{Failure, Hint, Result},
    output::{columns, count, counted, note, warning},
    progress::Bar,
};

/// What may help where a file of rows has none.
pub(crate) const NO_ROWS: &str =
    "is it the right file? it begins with the names of the columns; --no-header says that it does not";

/// What the columns are.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[command(next_help_heading = "Columns")]
#[serde(default)]
pub(crate) struct FeatureFlags {
    /// Takes what each column is from this TOML file, as `recmill schema` writes one, instead of guessing.
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "label", "categorical", "bag", "numeric", "ignore", "group", "weight_column", "time_column", "missing", "min_count",
        "hash_buckets", "buckets",
    ])]
    pub(crate) schema: Option<PathBuf>,
    /// Columns to learn, 0 or 1 [default: label, target, click ...].
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    #[serde(deserialize_with = "one_or_many")]
    pub(crate) label: Vec<String>,
    /// Columns that are categories.
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    #[serde(deserialize_with = "one_or_many")]
    pub(crate) categorical: Vec<String>,
    /// Columns with any number of categories: lists, or text such as a|b|c.
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    #[serde(deserialize_with = "one_or_many")]
    pub(crate) bag: Vec<String>,
    /// Columns that are numbers.
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    #[serde(deserialize_with = "one_or_many")]
    pub(crate) numeric: Vec<String>,
    /// Columns to leave out.
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    #[serde(deserialize_with = "one_or_many")]
    pub(crate) ignore: Vec<String>,
    /// Column that says which rows belong together, such as the user; it stays a feature unless --ignore names it.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) group: Option<String>,
    /// Column that says how much a row counts [default: all count 1].
    #[arg(long, value_name = "COLUMN")]
    pub(crate) weight_column: Option<String>,
    /// Column with the time, which is no feature [default: one with dates, or large numbers under timestamp, time ...].
    #[arg(long, value_name = "COLUMN")]
    pub(crate) time_column: Option<String>,
    /// Texts that mean that there is no value, besides the empty one [default: ?, NA, N/A, NaN, null, None ...].
    #[arg(long, value_name = "TEXT,...", value_delimiter = ',')]
    #[serde(deserialize_with = "one_or_many")]
    pub(crate) missing: Vec<String>,
    /// Categories in fewer rows share one row of their table, which those that come later use [default: 2].
    #[arg(long, value_name = "N")]
    pub(crate) min_count: Option<u32>,
    /// Hashes categories into so many rows a column, instead of keeping a vocabulary: for columns of millions.
    #[arg(long, value_name = "N", conflicts_with = "min_count")]
    pub(crate) hash_buckets: Option<u32>,
    /// Quantile buckets that a number has beside itself, by which a model learns thresholds; 0 for none [default: 64].
    #[arg(long, value_name = "N")]
    pub(crate) buckets: Option<u32>,
}

/// How files of rows are read.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[command(next_help_heading = "Reading")]
#[serde(default)]
pub(crate) struct FileFlags {
    /// What a bad row does: fail ends with an error, skip leaves it out and counts it.
    #[arg(long, value_name = "fail|skip", default_value_t = OnBadRow::Fail)]
    pub(crate) on_bad_row: OnBadRow,
    /// Format of the files: csv, tsv, jsonl, parquet or arrow [default: by name and first bytes].
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,
    /// What stands between two fields of a text file [default: a comma, or a tab in .tsv].
    #[arg(long, value_name = "CHARACTER")]
    pub(crate) delimiter: Option<char>,
    /// Says that text files have no header: columns are then called 1, 2, 3 ...
    #[arg(long)]
    pub(crate) no_header: bool,
}

impl FileFlags {
    /// Returns the options of reading.
    pub(crate) fn options(&self) -> ReadOptions {
        ReadOptions {
            on_bad_row: self.on_bad_row,
            format: self.format,
            delimiter: self.delimiter,
            no_header: self.no_header,
            ..ReadOptions::default()
        }
    }
}

impl FeatureFlags {
    /// Reads the schema from its file, or guesses it from the first rows of `files`; then there is a report.
    pub(crate) fn schema(
        &self,
        files: &[String],
        read: &ReadOptions,
    ) -> Result<(Schema, Option<SchemaReport>)> {
        if let Some(path) = &self.schema {
            let text = fs_err::read_to_string(path).map_err(Core::from)?;
            let schema = Schema::from_toml(&path.display().to_string(), &text);
            return Ok((
                schema
                    .map_err(Failure::from)
                    .hint("`recmill schema FILE > schema.toml` writes one to start from")?,
                None,
            ));
        }
        let bar = Bar::spinner("looking at the columns");
        let guessed = infer_schema(files, read, &self.options());
        drop(bar);
        let (schema, report) = guessed.map_err(|error| match error {
            Core::EmptyFile { .. } | Core::NoRows { .. } => Failure::failed(error.to_string()).hint(NO_ROWS),
            Core::InvalidConfig { model: "schema", problems }
                if problems.iter().all(|problem| problem.field == "columns") =>
            {
                Failure::failed(format!("{}: no column is a feature", files.join(", ")))
                    .hint("beside the label there must be a column that is categorical, a bag or numeric")
            }
            error => error.into(),
        })?;
        Ok((schema, Some(report)))
    }

    fn options(&self) -> SchemaOptions {
        let flags = self.clone();
        SchemaOptions {
            label: flags.label,
            categorical: flags.categorical,
            bag: flags.bag,
            numeric: flags.numeric,
            ignore: flags.ignore,
            group: flags.group,
            weight: flags.weight_column,
            time: flags.time_column,
            missing: flags.missing,
            min_count: flags.min_count,
            hash_buckets: flags.hash_buckets,
            buckets: flags.buckets,
        }
    }
}

/// Tells what was guessed, why, and by which flag it would be something else.
pub(crate) fn tell(report: &SchemaReport) -> Result<()> {
    let rest = if report.more_rows { " at the beginning; the others may differ" } else { "" };
    note!("looked at {}{rest}", counted(report.rows, "row"));
    let rows: Vec<Vec<String>> = report
        .guesses
        .iter()
        .map(|guess| vec![guess.column.clone(), guess.kind.clone(), guess.why.clone(), guess.flag.clone()])
        .collect();
    let mut table = Vec::new();
    columns(&mut table, &["column", "kind", "why", "otherwise"], &rows)?;
    note!("{}", String::from_utf8_lossy(&table).trim_end());
    for bad in &report.bad_rows {
        warning!("skipped {} ({}), first {}", count(bad.rows), bad.kind, bad.first);
    }
    for found in &report.warnings {
        match found.column.is_empty() {
            true => warning!("{}", found.what),
            false => warning!("column `{}` {}", found.column, found.what),
        }
    }
    Ok(())
}

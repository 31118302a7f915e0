//! What reading did: the columns used, what was left out and why, and the fingerprint of the result.

use std::fmt;

use serde::Serialize;

use super::Repeats;
use crate::Error;

/// What became of the rows that were read.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ReadReport {
    /// The files and URLs that were read, in this order.
    pub sources: Vec<String>,
    /// The column that each role was read from, in the first file.
    pub columns: Vec<ColumnUse>,
    /// Rows that were read, bad ones included.
    pub rows: u64,
    /// Rows with a value below `min_rating`.
    pub rows_below_min_rating: u64,
    /// Rows that were left out as bad, by kind.
    pub bad_rows: Vec<BadRows>,
    /// Rows that were merged into another row of the same user and item.
    pub repeated_rows: u64,
    /// How they were merged.
    pub repeats: Repeats,
    /// Users left out for too few items.
    pub dropped_users: usize,
    /// Items left out for too few users.
    pub dropped_items: usize,
    /// Pairs left out with them.
    pub dropped_interactions: usize,
    /// Users of the finished dataset.
    pub users: usize,
    /// Items of the finished dataset.
    pub items: usize,
    /// Different pairs of a user and an item in the finished dataset.
    pub interactions: usize,
    /// The time of the oldest and of the newest interaction, in seconds since 1970.
    pub time_range: Option<(i64, i64)>,
    /// Whether times were dropped, because not all interactions have one.
    pub dropped_times: bool,
    /// SHA-256 over ids, pairs, values and times of the finished dataset, in hexadecimal.
    pub fingerprint: String,
}

/// Which column served a role, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ColumnUse {
    /// `user`, `item`, `value`, `time` or `event`.
    pub role: &'static str,
    /// The column's name in the header, or its number.
    pub column: String,
    /// Why this one: the option that named it, or the header, with the other columns that could have been meant.
    pub why: String,
}

/// Bad rows of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BadRows {
    /// The kind.
    pub kind: BadRowKind,
    /// How many.
    pub rows: u64,
    /// The first of them.
    #[serde(serialize_with = "as_text")]
    pub first: BadRow,
}

fn as_text<S: serde::Serializer>(bad: &BadRow, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(bad)
}

impl BadRows {
    /// Enters one more bad row among those of its kind.
    pub(crate) fn count(all: &mut Vec<Self>, bad: &BadRow) {
        match all.iter_mut().find(|rows| rows.kind == bad.kind) {
            Some(rows) => rows.rows += 1,
            None => all.push(Self { kind: bad.kind, rows: 1, first: bad.clone() }),
        }
    }

    /// Returns what is wrong where no row is left of `path`: that there is none, or that all were bad.
    pub fn nothing_left(all: &[Self], path: String) -> Error {
        match all.iter().map(|bad| &bad.first).min_by_key(|first| first.line) {
            Some(first) => Error::OnlyBadRows {
                path,
                rows: all.iter().map(|bad| bad.rows).sum(),
                first: Box::new(first.clone()),
            },
            None => Error::NoRows { path },
        }
    }
}

/// A row that cannot be used, with its place and what would have been right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// What is wrong.
    pub kind: BadRowKind,
    /// The file or URL.
    pub path: String,
    /// The line in a text file, from 1; the row in any other, from 1.
    pub line: u64,
    /// Whose row it is, where it is one of a table of attributes: then the message has the id instead of the line.
    pub id: Option<String>,
    /// The column, where it is about one.
    pub column: Option<String>,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl BadRow {
    /// Returns the beginning of what was found, fit to be shown on one line.
    pub(crate) fn shorten(found: &[u8]) -> String {
        const SHOWN: usize = 80;
        let text = String::from_utf8_lossy(&found[..found.len().min(4 * SHOWN)]);
        let shown = text.chars().take(SHOWN).flat_map(|c| match c.is_control() {
            true => c.escape_default().collect::<Vec<_>>(),
            false => vec![c],
        });
        let mut shown: String = shown.collect();
        if found.len() > 4 * SHOWN || text.chars().count() > SHOWN {
            shown.push_str("..");
        }
        shown
    }
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => write!(f, "{}: `{id}`: ", self.path)?,
            None => write!(f, "{}:{}: ", self.path, self.line)?,
        }
        if let Some(column) = &self.column {
            write!(f, "column `{column}`: ")?;
        }
        write!(f, "expected {}, found `{}`", self.expected, self.found)
    }
}

impl std::error::Error for BadRow {}

/// What can be wrong with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BadRowKind {
    /// It has too many or too few fields.
    FieldCount,
    /// A quote in it takes in the rest of the file.
    OpenQuote,
    /// It is not UTF-8.
    InvalidUtf8,
    /// It is no JSON object.
    InvalidJson,
    /// An id is empty or missing.
    EmptyId,
    /// An id is longer than [`super::MAX_ID_BYTES`].
    LongId,
    /// A value is no number.
    NotANumber,
    /// A value is NaN or infinite.
    NotFinite,
    /// A value is negative and may not be.
    Negative,
    /// A time is neither a number nor a date.
    BadTime,
    /// An event is of a kind that has no weight.
    UnknownEvent,
    /// An id of a table of attributes is there twice.
    RepeatedId,
    /// A label is neither 0 nor 1.
    BadLabel,
    /// There is no text, or none that says what it is about.
    EmptyText,
}

impl fmt::Display for BadRowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadRowKind::FieldCount => "wrong number of fields",
            BadRowKind::OpenQuote => "quote that is never closed",
            BadRowKind::InvalidUtf8 => "invalid UTF-8",
            BadRowKind::InvalidJson => "invalid JSON",
            BadRowKind::EmptyId => "empty id",
            BadRowKind::LongId => "id too long",
            BadRowKind::NotANumber => "value that is no number",
            BadRowKind::NotFinite => "value that is not finite",
            BadRowKind::Negative => "negative value",
            BadRowKind::BadTime => "time that is none",
            BadRowKind::UnknownEvent => "event of unknown kind",
            BadRowKind::RepeatedId => "repeated id",
            BadRowKind::BadLabel => "label that is neither 0 nor 1",
            BadRowKind::EmptyText => "no text or no label",
        })
    }
}

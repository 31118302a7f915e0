//! Where rows come from: a stream of Arrow record batches, whatever the format.
//!
//! Text formats give columns of text; Parquet and Arrow give their own types. [`super::InteractionReader`] makes checked
//! interactions of either.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::BadRow;
use crate::Result;

/// A stream of record batches with a name for messages.
///
/// [`Source::columns`] comes first, [`Source::select`] at most once after it, then [`Source::next`] until `None`.
pub trait Source: Send {
    /// Returns the file, URL or other name that messages show.
    fn location(&self) -> &str;

    /// Returns the columns in their order, reading no more than their names take.
    ///
    /// # Errors
    /// [`crate::Error::EmptyFile`], [`crate::Error::BadFile`] and [`crate::Error::Io`].
    fn columns(&mut self) -> Result<SchemaRef>;

    /// Limits the batches to these columns, in this order.
    ///
    /// # Errors
    /// [`crate::Error::BadFile`] when the format's reader refuses.
    fn select(&mut self, columns: &[usize]) -> Result<()>;

    /// Limits the batches as [`Source::select`] does, where a column may hold lists.
    ///
    /// Text formats give a list as the JSON that it is written in, which [`Source::select`] takes for a bad row.
    ///
    /// # Errors
    /// Those of [`Source::select`].
    fn select_with_lists(&mut self, columns: &[usize]) -> Result<()> {
        self.select(columns)
    }

    /// Returns the next rows, of bounded size; `None` at the end.
    ///
    /// # Errors
    /// [`crate::Error::BadFile`] and [`crate::Error::Io`]. A row that cannot be read is in [`Rows::bad`] instead.
    fn next(&mut self) -> Result<Option<Rows>>;
}

/// Some rows of a source.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The rows that could be read.
    pub batch: RecordBatch,
    /// Where they stand in the source.
    pub lines: Lines,
    /// The rows in between that could not be read, in their order.
    pub bad: Vec<BadRow>,
}

/// The lines, or rows of a file without lines, that the rows of a batch come from; counted from 1.
#[derive(Clone, Debug)]
pub struct Lines {
    first: u64,
    /// Empty where each row is one line and none is left out.
    each: Vec<u64>,
}

impl Lines {
    /// One line after the other from `first`.
    pub fn from(first: u64) -> Self {
        Self { first, each: Vec::new() }
    }

    /// These lines.
    pub fn listed(each: Vec<u64>) -> Self {
        Self { first: each.first().copied().unwrap_or(1), each }
    }

    /// Returns the line of row `row` of the batch.
    pub fn of(&self, row: usize) -> u64 {
        self.each.get(row).copied().unwrap_or(self.first + row as u64)
    }
}

/// Batches that are in memory already, such as those a caller made.
#[derive(Debug)]
pub struct MemorySource {
    location: String,
    schema: SchemaRef,
    batches: std::collections::VecDeque<RecordBatch>,
    selected: Option<Vec<usize>>,
    rows: u64,
}

impl MemorySource {
    /// Names `batches`, which all have the columns of `schema`.
    pub fn new(location: &str, schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        Self { location: location.to_owned(), schema, batches: batches.into(), selected: None, rows: 0 }
    }
}

impl Source for MemorySource {
    fn location(&self) -> &str {
        &self.location
    }

    fn columns(&mut self) -> Result<SchemaRef> {
        Ok(self.schema.clone())
    }

    fn select(&mut self, columns: &[usize]) -> Result<()> {
        self.selected = Some(columns.to_vec());
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Rows>> {
        let Some(mut batch) = self.batches.pop_front() else { return Ok(None) };
        if let Some(selected) = &self.selected {
            let refused = |error: arrow::error::ArrowError| crate::Error::BadFile {
                path: self.location.clone(),
                what: error.to_string(),
            };
            batch = batch.project(selected).map_err(refused)?;
        }
        let lines = Lines::from(self.rows + 1);
        self.rows += batch.num_rows() as u64;
        Ok(Some(Rows { batch, lines, bad: Vec::new() }))
    }
}

//! Parquet and Arrow IPC, read by their own crates.
//!
//! A file of these formats is read from its end, so one that comes as a stream is first copied to a temporary file. The
//! readers check much but not all of what they read; a panic in one of them becomes an error here.

use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};
use arrow::record_batch::{RecordBatch, RecordBatchReader};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::source::{Lines, Rows, Source};
use crate::{Error, Result};

/// Rows that Parquet is asked for at a time.
const BATCH_ROWS: usize = 8_192;

type Batches = Box<dyn Iterator<Item = std::result::Result<RecordBatch, ArrowError>> + Send>;

/// A file of record batches.
pub(super) struct Columnar {
    location: String,
    schema: SchemaRef,
    state: State,
    /// Columns that the reader could not leave out itself.
    selected: Option<Vec<usize>>,
    rows: u64,
}

enum State {
    Parquet(Box<ParquetRecordBatchReaderBuilder<File>>),
    Reading(Batches),
    Ended,
}

impl Columnar {
    pub(super) fn parquet(location: &str, file: File) -> Result<Self> {
        let builder = guard(location, || {
            ParquetRecordBatchReaderBuilder::try_new(file)
                .map_err(|error| ArrowError::ParquetError(error.to_string()))
        })?;
        let (schema, state) = (builder.schema().clone(), State::Parquet(Box::new(builder)));
        Ok(Self { location: location.to_owned(), schema, state, selected: None, rows: 0 })
    }

    pub(super) fn arrow_file(location: &str, file: impl Read + Seek + Send + 'static) -> Result<Self> {
        let reader = guard(location, || FileReader::try_new(std::io::BufReader::new(file), None))?;
        Ok(Self::reading(location, reader.schema(), Box::new(reader)))
    }

    pub(super) fn arrow_stream(location: &str, stream: Box<dyn Read + Send>) -> Result<Self> {
        let reader = guard(location, || StreamReader::try_new(std::io::BufReader::new(stream), None))?;
        Ok(Self::reading(location, RecordBatchReader::schema(&reader), Box::new(reader)))
    }

    fn reading(location: &str, schema: SchemaRef, batches: Batches) -> Self {
        Self {
            location: location.to_owned(),
            schema,
            state: State::Reading(batches),
            selected: None,
            rows: 0,
        }
    }

    fn start(&mut self) -> Result<()> {
        if let State::Parquet(_) = self.state {
            let State::Parquet(builder) = std::mem::replace(&mut self.state, State::Ended) else {
                return Ok(());
            };
            let reader = guard(&self.location, || {
                builder
                    .with_batch_size(BATCH_ROWS)
                    .build()
                    .map_err(|error| ArrowError::ParquetError(error.to_string()))
            })?;
            self.state = State::Reading(Box::new(reader));
        }
        Ok(())
    }
}

impl Source for Columnar {
    fn location(&self) -> &str {
        &self.location
    }

    fn columns(&mut self) -> Result<SchemaRef> {
        Ok(self.schema.clone())
    }

    fn select(&mut self, columns: &[usize]) -> Result<()> {
        self.selected = Some(columns.to_vec());
        self.state = match std::mem::replace(&mut self.state, State::Ended) {
            State::Parquet(builder) => {
                // Parquet leaves columns out in their own order; what remains is put in ours batch by batch.
                let mut kept = columns.to_vec();
                kept.sort_unstable();
                let place = |column: &usize| kept.binary_search(column).unwrap_or_default();
                self.selected = Some(columns.iter().map(place).collect());
                let mask = ProjectionMask::roots(builder.parquet_schema(), kept);
                State::Parquet(Box::new(builder.with_projection(mask)))
            }
            other => other,
        };
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Rows>> {
        self.start()?;
        let State::Reading(batches) = &mut self.state else { return Ok(None) };
        let selected = self.selected.as_deref();
        let batch = guard(&self.location, || {
            let Some(batch) = batches.next().transpose()? else { return Ok(None) };
            match selected {
                Some(selected) => batch.project(selected).map(Some),
                None => Ok(Some(batch)),
            }
        });
        let Some(batch) = batch.inspect_err(|_| self.state = State::Ended)? else {
            self.state = State::Ended;
            return Ok(None);
        };
        let lines = Lines::from(self.rows + 1);
        self.rows += batch.num_rows() as u64;
        Ok(Some(Rows { batch, lines, bad: Vec::new() }))
    }
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether a panic in this thread is one that becomes an error, so that a program's panic hook may keep silent.
pub fn is_guarded() -> bool {
    GUARDED.get()
}

/// Runs a reader that may meet bytes it does not expect.
fn guard<T>(location: &str, read: impl FnOnce() -> std::result::Result<T, ArrowError>) -> Result<T> {
    let damaged = |what: String| Error::BadFile { path: location.to_owned(), what };
    GUARDED.set(true);
    let caught = catch_unwind(AssertUnwindSafe(read));
    GUARDED.set(false);
    match caught {
        Ok(result) => result.map_err(|error| damaged(error.to_string())),
        Err(_) => Err(damaged("damaged: its reader gave up".to_owned())),
    }
}

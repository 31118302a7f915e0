//! CSV and TSV, as columns of text.
//!
//! The stream is cut into blocks of whole lines. A block without a quote is cut at its commas and line ends, eight bytes
//! at a time; a block with one goes through `csv_core`, the state machine of the csv crate, record by record. So both
//! agree on what a field is, every row has the number of its line, and a row that cannot be read leaves the next ones
//! readable, which arrow-csv does not offer.
//!
//! A line ends with `\n`, `\r\n` or `\r`; empty lines are skipped; a byte-order mark before the header is no part of it.

use std::io::Read;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::lines::LineBlocks;
use super::source::{Lines, Rows, Source};
use super::{BadRow, BadRowKind};
use crate::{Error, Result};

/// A field is copied in steps of this size, so that short ones, nearly all, cost one load and one store.
const STEP: usize = 16;

/// A CSV or TSV stream.
pub(super) struct TextSource {
    blocks: LineBlocks,
    delimiter: u8,
    names: Vec<String>,
    /// For each column of the file its place in the batch.
    place: Vec<Option<usize>>,
    schema: SchemaRef,
    line: u64,
    parser: csv_core::Reader,
}

/// How a text stream is written.
pub(super) struct TextFormat {
    /// What stands between fields; found in the first line where `None`.
    pub(super) delimiter: Option<u8>,
    /// Whether the first line is data.
    pub(super) no_header: bool,
}

impl TextSource {
    pub(super) fn open(location: &str, reader: Box<dyn Read + Send>, format: &TextFormat) -> Result<Self> {
        let mut blocks = LineBlocks::new(location, reader);
        let mut more = false;
        let mut line = 1;
        if !blocks.advance(false)? {
            return Err(Error::EmptyFile { path: location.to_owned() });
        }
        if blocks.window().starts_with(b"\xef\xbb\xbf") {
            blocks.consume(3);
        }
        if blocks.window().starts_with(b"\xff\xfe") || blocks.window().starts_with(b"\xfe\xff") {
            let what = "expected UTF-8 text, found UTF-16".to_owned();
            return Err(Error::BadFile { path: location.to_owned(), what });
        }
        let mut delimiter = format.delimiter;
        let (names, parser) = loop {
            let delimiter = *delimiter.get_or_insert_with(|| likely_delimiter(blocks.window()));
            let mut parser = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
            let mut record = Record::default();
            if let Some(consumed) = record.read(&mut parser, blocks.window(), blocks.at_end()) {
                let names = record.texts().map(|field| String::from_utf8_lossy(field).trim().to_owned());
                let names: Vec<String> = names.collect();
                if !format.no_header {
                    line += newlines(blocks.window(), 0..consumed);
                    blocks.consume(consumed);
                }
                parser.reset();
                break (names, parser);
            }
            more |= !blocks.at_end();
            if blocks.at_end() || !blocks.advance(more)? {
                return Err(Error::EmptyFile { path: location.to_owned() });
            }
        };
        let names = match format.no_header {
            true => (1..=names.len()).map(|number| number.to_string()).collect(),
            false => names,
        };
        let delimiter = delimiter.unwrap_or(b',');
        let place = (0..names.len()).map(Some).collect();
        let schema = text_schema(names.iter());
        Ok(Self { blocks, delimiter, names, place, schema, line, parser })
    }

    fn cut_lines(&mut self, taken: &mut Taken) -> usize {
        let block = self.blocks.window();
        let n_fields = self.names.len();
        let mut row = RowCut { ends: vec![0; n_fields], n_ends: 0, start: 0 };
        for (at, word) in block.chunks(8).enumerate() {
            let mut bytes = [0; 8];
            bytes[..word.len()].copy_from_slice(word);
            let word = u64::from_le_bytes(bytes);
            let mut hits = zero_bytes(word ^ repeat(self.delimiter)) | zero_bytes(word ^ repeat(b'\n'));
            while hits != 0 {
                let end = at * 8 + hits.trailing_zeros() as usize / 8;
                hits &= hits - 1;
                if block[end] != b'\n' {
                    if row.n_ends < n_fields {
                        row.ends[row.n_ends] = end;
                    }
                    row.n_ends += 1;
                    continue;
                }
                let content_end = end - usize::from(end > row.start && block[end - 1] == b'\r');
                row.finish(block, content_end, self.line, &self.place, taken, self.blocks.location());
                row.start = end + 1;
                self.line += 1;
            }
        }
        if row.start < block.len() {
            let content_end = block.len() - usize::from(block[block.len() - 1] == b'\r');
            row.finish(block, content_end, self.line, &self.place, taken, self.blocks.location());
            self.line += 1;
        }
        block.len()
    }

    fn parse_records(&mut self, taken: &mut Taken) -> usize {
        let block = self.blocks.window();
        let mut record = Record::default();
        let mut consumed = 0;
        self.parser.reset();
        while let Some(n) = record.read(&mut self.parser, &block[consumed..], self.blocks.at_end()) {
            // Line ends before the record belong to empty lines, or to the record before.
            let blank =
                block[consumed..consumed + n].iter().take_while(|&&b| b == b'\n' || b == b'\r').count();
            let line = self.line + newlines(block, consumed..consumed + blank);
            self.line += newlines(block, consumed..consumed + n);
            consumed += n;
            let raw = block[consumed - n + blank..consumed].trim_ascii_end();
            // What spans lines is within quotes, of which one was opened more than closed where the stream ends there.
            let open = self.blocks.at_end()
                && consumed == block.len()
                && memchr::memchr2(b'\n', b'\r', raw).is_some()
                && !memchr::memchr_iter(b'"', raw).count().is_multiple_of(2);
            if open {
                taken.open_quote(self.blocks.location(), line, raw);
            } else if record.n_ends == self.names.len() {
                let mut start = 0;
                for (field, place) in self.place.iter().enumerate() {
                    let end = record.ends[field];
                    if let Some(place) = *place {
                        taken.columns[place].push(&record.output[start..end]);
                    }
                    start = end;
                }
                taken.lines.push(line);
            } else {
                taken.wrong_count(self.blocks.location(), line, self.names.len(), record.n_ends, raw);
            }
        }
        // At the end of the stream what is left is line ends only.
        if self.blocks.at_end() { block.len() } else { consumed }
    }
}

impl Source for TextSource {
    fn location(&self) -> &str {
        self.blocks.location()
    }

    fn columns(&mut self) -> Result<SchemaRef> {
        Ok(self.schema.clone())
    }

    fn select(&mut self, columns: &[usize]) -> Result<()> {
        self.place = vec![None; self.names.len()];
        for (place, &column) in columns.iter().enumerate() {
            self.place[column] = Some(place);
        }
        self.schema = text_schema(columns.iter().map(|&column| &self.names[column]));
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Rows>> {
        let mut more = false;
        loop {
            if (self.blocks.window().is_empty() || more) && !self.blocks.advance(more)? {
                return Ok(None);
            }
            let block = self.blocks.window();
            let mut taken = Taken::new(self.schema.fields().len(), block.len());
            let plain =
                memchr::memchr(b'"', block).is_none() && !has_lone_return(block, self.blocks.at_end());
            let consumed = if plain { self.cut_lines(&mut taken) } else { self.parse_records(&mut taken) };
            self.blocks.consume(consumed);
            more = consumed == 0;
            if !taken.lines.is_empty() || !taken.bad.is_empty() {
                return Ok(Some(taken.into_rows(&self.schema, self.blocks.location())?));
            }
        }
    }
}

/// The line that is being cut.
struct RowCut {
    /// Where its fields end, but for the last.
    ends: Vec<usize>,
    n_ends: usize,
    start: usize,
}

impl RowCut {
    #[inline]
    fn finish(
        &mut self,
        block: &[u8],
        end: usize,
        line: u64,
        place: &[Option<usize>],
        taken: &mut Taken,
        location: &str,
    ) {
        if self.start == end && self.n_ends == 0 {
            return;
        }
        let n_fields = self.ends.len();
        if self.n_ends + 1 == n_fields {
            self.ends[n_fields - 1] = end;
            let mut start = self.start;
            for (&end, place) in self.ends.iter().zip(place) {
                if let Some(place) = *place {
                    taken.columns[place].push_from(block, start, end);
                }
                start = end + 1;
            }
            taken.lines.push(line);
        } else {
            taken.wrong_count(location, line, n_fields, self.n_ends + 1, &block[self.start..end]);
        }
        self.n_ends = 0;
    }
}

/// The columns of a batch while it grows.
struct Taken {
    columns: Vec<TextColumn>,
    lines: Vec<u64>,
    bad: Vec<BadRow>,
}

struct TextColumn {
    offsets: Vec<i32>,
    bytes: Vec<u8>,
    used: usize,
}

impl TextColumn {
    /// Adds `block[start..end]`.
    #[inline]
    fn push_from(&mut self, block: &[u8], start: usize, end: usize) {
        let length = end - start;
        if self.bytes.len() < self.used + length + STEP {
            self.bytes.resize((self.used + length + STEP).max(2 * self.bytes.len()), 0);
        }
        match block.get(start..start + STEP) {
            Some(step) if length <= STEP => self.bytes[self.used..self.used + STEP].copy_from_slice(step),
            _ => self.bytes[self.used..self.used + length].copy_from_slice(&block[start..end]),
        }
        self.used += length;
        self.offsets.push(self.used as i32);
    }

    fn push(&mut self, field: &[u8]) {
        self.push_from(field, 0, field.len());
    }

    /// Returns whether every field is UTF-8.
    fn is_text(&self) -> bool {
        let bytes = &self.bytes[..self.used];
        bytes.is_ascii()
            || std::str::from_utf8(bytes)
                .is_ok_and(|text| self.offsets.iter().all(|&offset| text.is_char_boundary(offset as usize)))
    }

    fn into_array(mut self) -> std::result::Result<ArrayRef, ArrowError> {
        self.bytes.truncate(self.used);
        let offsets = OffsetBuffer::new(self.offsets.into());
        Ok(Arc::new(StringArray::try_new(offsets, Buffer::from_vec(self.bytes), None)?))
    }

    fn field(&self, row: usize) -> &[u8] {
        &self.bytes[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }
}

impl Taken {
    fn new(n_columns: usize, block_bytes: usize) -> Self {
        let column = |_| {
            let mut offsets = Vec::with_capacity(block_bytes / 16);
            offsets.push(0);
            TextColumn { offsets, bytes: vec![0; block_bytes / n_columns.max(1) + STEP], used: 0 }
        };
        Self { columns: (0..n_columns).map(column).collect(), lines: Vec::new(), bad: Vec::new() }
    }

    #[cold]
    fn wrong_count(&mut self, location: &str, line: u64, expected: usize, got: usize, found: &[u8]) {
        self.bad.push(BadRow {
            kind: BadRowKind::FieldCount,
            path: location.to_owned(),
            line,
            id: None,
            column: None,
            expected: format!("{expected} fields, got {got}"),
            found: BadRow::shorten(found),
        });
    }

    #[cold]
    fn open_quote(&mut self, location: &str, line: u64, found: &[u8]) {
        self.bad.push(BadRow {
            kind: BadRowKind::OpenQuote,
            path: location.to_owned(),
            line,
            id: None,
            column: None,
            expected: "a second quote before the file ends".to_owned(),
            found: BadRow::shorten(found),
        });
    }

    fn into_rows(mut self, schema: &SchemaRef, location: &str) -> Result<Rows> {
        if !self.columns.iter().all(TextColumn::is_text) {
            self.leave_out_invalid(schema, location);
        }
        // No two rows begin in one line.
        let one_by_one = match (self.lines.first(), self.lines.last()) {
            (Some(first), Some(last)) if last - first + 1 == self.lines.len() as u64 => Some(*first),
            _ => None,
        };
        let options = RecordBatchOptions::new().with_row_count(Some(self.lines.len()));
        let lines = one_by_one.map_or_else(|| Lines::listed(self.lines), Lines::from);
        let columns =
            self.columns.into_iter().map(TextColumn::into_array).collect::<std::result::Result<_, _>>();
        let batch = columns.and_then(|all| RecordBatch::try_new_with_options(schema.clone(), all, &options));
        let refused =
            |error: ArrowError| Error::BadFile { path: location.to_owned(), what: error.to_string() };
        Ok(Rows { batch: batch.map_err(refused)?, lines, bad: self.bad })
    }

    /// Moves the rows that are not UTF-8 to the bad ones.
    #[cold]
    fn leave_out_invalid(&mut self, schema: &SchemaRef, location: &str) {
        let mut kept = Self::new(self.columns.len(), 0);
        for (row, &line) in self.lines.iter().enumerate() {
            let invalid = |column: &TextColumn| std::str::from_utf8(column.field(row)).is_err();
            match self.columns.iter().position(invalid) {
                Some(column) => self.bad.push(BadRow {
                    kind: BadRowKind::InvalidUtf8,
                    path: location.to_owned(),
                    line,
                    id: None,
                    column: Some(schema.field(column).name().clone()),
                    expected: "UTF-8 text".to_owned(),
                    found: BadRow::shorten(self.columns[column].field(row)),
                }),
                None => {
                    for (to, from) in kept.columns.iter_mut().zip(&self.columns) {
                        to.push(from.field(row));
                    }
                    kept.lines.push(line);
                }
            }
        }
        self.bad.sort_by_key(|bad| bad.line);
        (self.columns, self.lines) = (kept.columns, kept.lines);
    }
}

/// One record of the state machine, with room that is used again.
#[derive(Default)]
struct Record {
    output: Vec<u8>,
    ends: Vec<usize>,
    n_ends: usize,
}

impl Record {
    /// Reads one record from the start of `input` and returns the bytes it took; nothing where it is not whole.
    fn read(&mut self, parser: &mut csv_core::Reader, input: &[u8], at_end: bool) -> Option<usize> {
        use csv_core::ReadRecordResult::{End, InputEmpty, OutputEndsFull, OutputFull, Record};
        let (mut consumed, mut n_output) = (0, 0);
        self.n_ends = 0;
        self.output.resize(self.output.len().max(1 << 10), 0);
        self.ends.resize(self.ends.len().max(1 << 5), 0);
        loop {
            let (result, n_in, n_out, n_ends) = parser.read_record(
                &input[consumed..],
                &mut self.output[n_output..],
                &mut self.ends[self.n_ends..],
            );
            consumed += n_in;
            n_output += n_out;
            self.n_ends += n_ends;
            match result {
                Record => return Some(consumed),
                // An empty input is how the state machine is told of the end.
                InputEmpty if at_end => {}
                InputEmpty | End => return None,
                OutputFull => self.output.resize(self.output.len() * 2, 0),
                OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
            }
        }
    }

    fn texts(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends[..self.n_ends]).map(|(start, &end)| &self.output[start..end])
    }
}

/// Chooses what a first line seems to use: a comma, else a tab, a semicolon or a bar.
fn likely_delimiter(block: &[u8]) -> u8 {
    let line = &block[..memchr::memchr2(b'\n', b'\r', block).unwrap_or(block.len())];
    *b",\t;|".iter().find(|&&delimiter| line.contains(&delimiter)).unwrap_or(&b',')
}

/// Counts the line ends in a range of `block`; `\r\n` is one, at its second byte.
fn newlines(block: &[u8], range: std::ops::Range<usize>) -> u64 {
    let bytes = &block[range.clone()];
    let lone = |at: usize| block.get(range.start + at + 1).is_some_and(|&next| next != b'\n');
    let returns = memchr::memchr_iter(b'\r', bytes).filter(|&at| lone(at)).count();
    (memchr::memchr_iter(b'\n', bytes).count() + returns) as u64
}

fn has_lone_return(block: &[u8], at_end: bool) -> bool {
    memchr::memchr_iter(b'\r', block).any(|at| match block.get(at + 1) {
        Some(&next) => next != b'\n',
        None => !at_end,
    })
}

fn repeat(byte: u8) -> u64 {
    u64::from(byte) * 0x0101_0101_0101_0101
}

/// Sets the high bit of every byte of `word` that is zero, and no other.
fn zero_bytes(word: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    !(((word & LOW) + LOW) | word | LOW)
}

fn text_schema<'a>(names: impl Iterator<Item = &'a String>) -> SchemaRef {
    Arc::new(Schema::new(names.map(|name| Field::new(name, DataType::Utf8, false)).collect::<Vec<_>>()))
}

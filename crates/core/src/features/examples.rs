//! All rows of a training file as features, at random access.
//!
//! ```text
//! records  one a row, of as many u32 words each:
//!          fields: the index; of a bag where its indices begin (2 words) and how many there are
//!          numbers | labels | weight | group (2) | time (2)     as far as there are
//! bags     the indices of all bags, one after the other
//! runs     where lines do not follow one another: row, file, line
//! ```
//!
//! Up to a size that the caller says both are in memory, beyond it in temporary files without a name, mapped for reading:
//! the system then keeps in memory what there is room for. Nothing else grows with the file but 8 bytes a row of a split.

use rayon::prelude::*;

use super::batch::FeatureBatch;
use super::fitted::Features;
use super::hash::mix64;
use super::reader::{FeatureReader, LabelUse};
use super::report::TransformReport;
use super::store::{Words, WordsWriter};
use crate::Result;
use crate::data::{BadRows, ReadOptions, Sources};
use crate::fingerprint::Fingerprint;

/// Batches that are transformed side by side.
const BATCHES_AT_ONCE: usize = 16;

/// The transformed rows of a training file.
#[derive(Debug)]
pub struct Examples {
    layout: Layout,
    records: Words,
    bags: Words,
    rows: u64,
    locations: Vec<String>,
    runs: Vec<Run>,
}

/// Rows from `row` on that stand in one file, line after line from `line`.
#[derive(Clone, Copy, Debug)]
struct Run {
    row: u64,
    location: u32,
    line: u64,
}

/// Where the parts of a record begin, in words.
#[derive(Clone, Debug, PartialEq)]
struct Layout {
    /// For each field its place and whether it is a bag.
    fields: Vec<(usize, bool)>,
    numeric: usize,
    n_numeric: usize,
    labels: usize,
    n_labels: usize,
    weight: Option<usize>,
    group: Option<usize>,
    time: Option<usize>,
    words: usize,
}

impl Layout {
    fn of(features: &Features) -> Self {
        let mut words = 0;
        let mut take = |n: usize| {
            words += n;
            words - n
        };
        let fields = features
            .fields()
            .iter()
            .map(|field| (take(if field.is_bag() { 3 } else { 1 }), field.is_bag()))
            .collect();
        let (n_numeric, n_labels) = (features.numeric().len(), features.labels().len());
        let (numeric, labels) = (take(n_numeric), take(n_labels));
        let schema = features.schema();
        let weight = schema.weight().map(|_| take(1));
        let group = schema.group.as_ref().map(|_| take(2));
        let time = schema.time().map(|_| take(2));
        Self { fields, numeric, n_numeric, labels, n_labels, weight, group, time, words }
    }
}

impl Examples {
    /// Transforms all rows of files that have labels, in memory up to `spill_over_bytes` bytes.
    ///
    /// # Errors
    /// Those of [`Features::transform`]; [`crate::Error::NoSuchColumn`] for a file without one of the columns, labels included;
    /// [`crate::Error::NoRows`]; [`crate::Error::BadFile`] when there is no room for a temporary file.
    pub fn read(
        features: &Features,
        paths: &[String],
        read: &ReadOptions,
        spill_over_bytes: u64,
    ) -> Result<(Self, TransformReport)> {
        Self::read_sources(features, Sources::open(paths, read)?, read, spill_over_bytes)
    }

    /// Transforms sources that the caller made, as [`Examples::read`] does files.
    ///
    /// # Errors
    /// Those of [`Examples::read`].
    pub fn read_sources(
        features: &Features,
        sources: Sources,
        read: &ReadOptions,
        spill_over_bytes: u64,
    ) -> Result<(Self, TransformReport)> {
        let mut reader = FeatureReader::of(features, sources, read, LabelUse::Required);
        let mut writer = Writer {
            layout: Layout::of(features),
            records: WordsWriter::default(),
            bags: WordsWriter::default(),
            rows: 0,
            runs: Vec::new(),
            record: Vec::new(),
        };
        let mut total = TransformReport::new(read.on_bad_row);
        let mut batches: Vec<FeatureBatch> = Vec::new();
        loop {
            let mut blocks = Vec::new();
            while blocks.len() < BATCHES_AT_ONCE {
                let Some((location, rows)) = reader.next_rows()? else { break };
                let file = (reader.locations().len() - 1) as u32;
                blocks.push((file, location, rows));
            }
            if blocks.is_empty() {
                break;
            }
            batches.resize_with(blocks.len().max(batches.len()), FeatureBatch::default);
            let transformed: Vec<Result<TransformReport>> = blocks
                .par_iter()
                .zip(&mut batches)
                .map(|((_, location, rows), batch)| {
                    let mut report = TransformReport::new(read.on_bad_row);
                    batch.clear();
                    features.transform(rows, location, batch, &mut report)?;
                    Ok(report)
                })
                .collect();
            for ((report, batch), (file, ..)) in transformed.into_iter().zip(&batches).zip(&blocks) {
                total.add(&report?);
                writer.append(batch, *file)?;
                if (writer.records.len() + writer.bags.len()) * 4 > spill_over_bytes {
                    writer.records.spill()?;
                    writer.bags.spill()?;
                }
            }
        }
        let locations = reader.locations().to_vec();
        if writer.rows == 0 {
            return Err(BadRows::nothing_left(&reader.report().bad_rows, locations.join(", ")));
        }
        let Writer { layout, records, bags, rows, runs, .. } = writer;
        let (records, bags) = (records.finish()?, bags.finish()?);
        Ok((Self { layout, records, bags, rows, locations, runs }, total))
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.rows as usize
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Returns SHA-256 over what the rows became, and over which of them are listed, in hexadecimal: equal for equal rows in the same order
    /// only. Reads all of them.
    pub fn fingerprint(&self, listed: Option<&[u64]>) -> String {
        let mut all = Fingerprint::default();
        all.add("layout", format!("{:?}", self.layout).as_bytes());
        all.add("records", bytemuck::cast_slice(self.records.all()));
        all.add("bags", bytemuck::cast_slice(self.bags.all()));
        all.add("listed", listed.map_or(&[], bytemuck::cast_slice));
        all.finish()
    }

    /// Returns whether the rows are in a temporary file.
    pub fn is_spilled(&self) -> bool {
        matches!(self.records, Words::Mapped(_))
    }

    /// Replaces what is in `out` by these rows, in this order; a row may be asked for any number of times.
    ///
    /// Allocates nothing once `out` has had as many.
    ///
    /// # Panics
    /// When a row is not below [`Examples::len`].
    pub fn gather(&self, rows: &[u64], out: &mut FeatureBatch) {
        let layout = &self.layout;
        out.shape_as(layout.fields.iter().map(|&(_, bag)| bag));
        out.clear();
        out.rows = rows.len();
        for (values, &(_, bag)) in out.fields.iter_mut().zip(&layout.fields) {
            if !bag {
                values.indices.resize(rows.len(), 0);
            }
        }
        let (records, bags) = (self.records.all(), self.bags.all());
        for (at, &row) in rows.iter().enumerate() {
            let start = row as usize * layout.words;
            let record = &records[start..start + layout.words];
            for (values, &(place, _)) in out.fields.iter_mut().zip(&layout.fields) {
                match &mut values.offsets {
                    None => values.indices[at] = record[place],
                    Some(offsets) => {
                        let first = long(record, place) as usize;
                        let indices = &bags[first..first + record[place + 2] as usize];
                        values.indices.extend_from_slice(indices);
                        offsets.push(values.indices.len() as u32);
                    }
                }
            }
            let floats =
                |first: usize, n: usize| record[first..first + n].iter().map(|&bits| f32::from_bits(bits));
            out.numeric.extend(floats(layout.numeric, layout.n_numeric));
            out.labels.extend(floats(layout.labels, layout.n_labels));
            out.weights.extend(layout.weight.map(|place| f32::from_bits(record[place])));
            out.groups.extend(layout.group.map(|place| long(record, place)));
            out.times.extend(layout.time.map(|place| long(record, place).cast_signed()));
            out.lines.push(self.line(row).1);
        }
    }

    /// Returns the file and the line of a row, for messages.
    pub fn line(&self, row: u64) -> (&str, u64) {
        let after = self.runs.partition_point(|run| run.row <= row);
        match after.checked_sub(1).and_then(|at| self.runs.get(at)) {
            Some(run) => (&self.locations[run.location as usize], run.line + (row - run.row)),
            None => ("", 0),
        }
    }

    /// Splits the rows by chance: those to train on, and about `fraction` of them held out; both ascending.
    ///
    /// Whether a row is held out depends on the seed and its number alone.
    pub fn holdout(&self, fraction: f64, seed: u64) -> (Vec<u64>, Vec<u64>) {
        holdout(self.rows, fraction, seed)
    }
}

/// As [`Examples::holdout`], of `rows` rows of any kind.
pub fn holdout(rows: u64, fraction: f64, seed: u64) -> (Vec<u64>, Vec<u64>) {
    let key = mix64(seed);
    // The upper 53 bits as a number from 0 up to 1.
    let draw = |row: &u64| (mix64(key ^ *row) >> 11) as f64 / (1u64 << 53) as f64;
    (0..rows).partition(|row| draw(row) >= fraction)
}

/// Reads a number of two words.
fn long(record: &[u32], place: usize) -> u64 {
    u64::from(record[place]) | u64::from(record[place + 1]) << 32
}

/// Examples while they are read.
struct Writer {
    layout: Layout,
    records: WordsWriter,
    bags: WordsWriter,
    rows: u64,
    runs: Vec<Run>,
    record: Vec<u32>,
}

impl Writer {
    fn append(&mut self, batch: &FeatureBatch, location: u32) -> Result<()> {
        let Layout { n_numeric, n_labels, weight, group, time, .. } = self.layout;
        // Several rows are written at once; their words are one after the other as the layout says.
        self.record.clear();
        let bags_before = self.bags.len();
        let mut bags_written = 0;
        let words = |number: u64| [number as u32, (number >> 32) as u32];
        let mut bags = Vec::new();
        for row in 0..batch.rows {
            for values in &batch.fields {
                match &values.offsets {
                    None => self.record.push(values.indices[row]),
                    Some(offsets) => {
                        let (start, end) = (offsets[row], offsets[row + 1]);
                        self.record.extend(words(bags_before + bags_written));
                        self.record.push(end - start);
                        bags_written += u64::from(end - start);
                        bags.extend_from_slice(&values.indices[start as usize..end as usize]);
                    }
                }
            }
            let numbers = &batch.numeric[row * n_numeric..(row + 1) * n_numeric];
            let labels = &batch.labels[row * n_labels..(row + 1) * n_labels];
            self.record.extend(numbers.iter().chain(labels).map(|value| value.to_bits()));
            self.record.extend(weight.map(|_| batch.weights[row].to_bits()));
            self.record.extend(group.into_iter().flat_map(|_| words(batch.groups[row])));
            self.record.extend(time.into_iter().flat_map(|_| words(batch.times[row].cast_unsigned())));
            self.run(batch.lines[row], location);
            self.rows += 1;
        }
        self.bags.push(&bags)?;
        self.records.push(&self.record)
    }

    /// Notes where the next row comes from, unless that is clear from the row before.
    fn run(&mut self, line: u64, location: u32) {
        let follows = self
            .runs
            .last()
            .is_some_and(|run| run.location == location && run.line + (self.rows - run.row) == line);
        if !follows {
            self.runs.push(Run { row: self.rows, location, line });
        }
    }
}

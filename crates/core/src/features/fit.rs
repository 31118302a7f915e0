//! Fitting features: one pass over the files, in memory that their length does not change.
//!
//! A vocabulary holds at most `max_size` categories while it counts, a number's quantiles come from a fixed sample, means
//! and deviations are running ones. Columns are fitted side by side, each by one thread in the order of the file.

use rayon::prelude::*;

use super::column::{Column, Missing, Refused};
use super::fitted::{Encoder, Features, Field, NumericField, signed_log};
use super::numbers::{Moments, Reservoir, bounds, median};
use super::reader::{RowReader, needed_beside};
use super::report::{FitReport, FullVocabulary, LabelCount};
use super::schema::{ColumnKind, Encoding, FeatureColumn, Fill, Numeric, NumericTransform, Schema};
use super::vocabulary::Counter;
use crate::data::{BadRow, BadRows, OnBadRow, ReadOptions, Rows, Sources};
use crate::{Error, Result};

impl Features {
    /// Fits the features of `schema` to files with labels.
    ///
    /// A bad row that is left out counts in no column.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] and [`Error::NoColumnFor`] for the schema; [`Error::NoSuchColumn`] for a file without one
    /// of its columns; [`Error::BadRow`]; [`Error::ConstantLabel`]; [`Error::NoRows`].
    pub fn fit(schema: &Schema, paths: &[String], read: &ReadOptions) -> Result<(Self, FitReport)> {
        Self::fit_sources(schema, Sources::open(paths, read)?, read)
    }

    /// Fits the features of `schema` to sources that the caller made, as [`Features::fit`] does to files.
    ///
    /// # Errors
    /// Those of [`Features::fit`].
    pub fn fit_sources(schema: &Schema, sources: Sources, read: &ReadOptions) -> Result<(Self, FitReport)> {
        schema.validate_for_fit("schema")?;
        Self::fit_columns(schema, sources, read)
    }

    /// As [`Features::fit_sources`], of a valid schema, with or without a label.
    pub(super) fn fit_columns(
        schema: &Schema,
        sources: Sources,
        read: &ReadOptions,
    ) -> Result<(Self, FitReport)> {
        let features = schema.columns.iter().filter(|column| column.kind.is_feature());
        let mut names: Vec<String> = features.map(|column| column.name.clone()).collect();
        names.extend(needed_beside(schema));
        let lists = schema.columns.iter().any(|column| matches!(column.kind, ColumnKind::Bag { .. }));
        let mut reader = RowReader::new(sources, names, lists);
        let mut fitters: Vec<Fitter<'_>> = schema.columns.iter().filter_map(Fitter::new).collect();
        let missing = Missing::new(&schema.missing);
        let mut report = FitReport::default();
        while let Some((location, rows)) = reader.next_rows()? {
            let n = rows.batch.num_rows();
            let mut refused = vec![false; n];
            let mut bad = rows.bad.clone();
            let found: Result<Vec<_>> =
                fitters.par_iter_mut().map(|fitter| fitter.read(&rows, &location, &missing)).collect();
            for (row, found) in found?.into_iter().flatten() {
                if !std::mem::replace(&mut refused[row], true) {
                    bad.push(found);
                }
            }
            bad.sort_by_key(|bad| bad.line);
            if !bad.is_empty() && read.on_bad_row == OnBadRow::Fail {
                return Err(Error::BadRow(Box::new(bad.swap_remove(0))));
            }
            bad.iter().for_each(|bad| BadRows::count(&mut report.bad_rows, bad));
            report.rows += refused.iter().filter(|refused| !**refused).count() as u64;
            let added: Result<Vec<()>> = fitters.par_iter_mut().map(|fitter| fitter.add(&refused)).collect();
            added?;
        }
        let path = reader.locations.join(", ");
        if report.rows == 0 {
            return Err(BadRows::nothing_left(&report.bad_rows, path));
        }
        let mut fitted =
            Self { schema: schema.clone(), fields: Vec::new(), numeric: Vec::new(), labels: Vec::new() };
        for fitter in fitters {
            fitter.finish(&mut fitted, &mut report, &path)?;
        }
        Ok((fitted, report))
    }
}

/// What one column is fitted by, and what the batch at hand has in it.
struct Fitter<'a> {
    column: &'a FeatureColumn,
    state: State,
}

enum State {
    Category {
        counter: Option<Counter>,
        buckets: u32,
        texts: Texts,
    },
    Number {
        numeric: Numeric,
        moments: Moments,
        sample: Option<Reservoir>,
        varies: bool,
        batch: Vec<Option<f64>>,
    },
    Label {
        positive: u64,
        rows: u64,
        batch: Vec<f32>,
    },
    /// Checked here, so that what is wrong is told before training, and not kept.
    Checked,
}

/// The categories of a batch: row `i` has those from `rows[i]` to `rows[i + 1]`.
#[derive(Default)]
struct Texts {
    bytes: String,
    ends: Vec<usize>,
    rows: Vec<usize>,
}

impl Texts {
    fn push(&mut self, text: &str) {
        self.bytes.push_str(text);
        self.ends.push(self.bytes.len());
    }

    fn end_row(&mut self) {
        self.rows.push(self.ends.len());
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.rows.clear();
    }

    fn of_row(&self, row: usize) -> impl Iterator<Item = &str> {
        let first = if row == 0 { 0 } else { self.rows[row - 1] };
        (first..self.rows[row]).map(|at| {
            let start = if at == 0 { 0 } else { self.ends[at - 1] };
            &self.bytes[start..self.ends[at]]
        })
    }
}

impl<'a> Fitter<'a> {
    fn new(column: &'a FeatureColumn) -> Option<Self> {
        let category = |encoding: Encoding| {
            let (counter, buckets) = match encoding {
                Encoding::Vocabulary { min_count, max_size } => (Some(Counter::new(min_count, max_size)), 0),
                Encoding::Hashed { buckets } => (None, buckets),
            };
            State::Category { counter, buckets, texts: Texts::default() }
        };
        let state = match column.kind {
            ColumnKind::Categorical(encoding) | ColumnKind::Bag { encoding, .. } => category(encoding),
            ColumnKind::Numeric(numeric) => {
                let sampled = numeric.field_buckets().is_some() || numeric.fill == Fill::Median;
                State::Number {
                    numeric,
                    moments: Moments::default(),
                    sample: sampled.then(Reservoir::default),
                    varies: false,
                    batch: Vec::new(),
                }
            }
            ColumnKind::Label => State::Label { positive: 0, rows: 0, batch: Vec::new() },
            ColumnKind::Weight | ColumnKind::Time => State::Checked,
            ColumnKind::Ignore => return None,
        };
        Some(Self { column, state })
    }

    /// Reads the column of a batch and returns the rows in which it cannot be used.
    fn read(&mut self, rows: &Rows, location: &str, missing: &Missing<'_>) -> Result<Vec<(usize, BadRow)>> {
        let name = self.column.name.as_str();
        let lists = matches!(self.column.kind, ColumnKind::Bag { .. });
        let mut column = Column::of(rows, location, name, lists)?.ok_or_else(|| Error::NoSuchColumn {
            path: location.to_owned(),
            column: name.to_owned(),
            known: String::new(),
        })?;
        let n = rows.batch.num_rows();
        let mut bad = Vec::new();
        let mut refuse =
            |row: usize, refused: Refused| bad.push((row, refused.at(rows, row, location, name)));
        match (&mut self.state, &self.column.kind) {
            (State::Category { texts, .. }, ColumnKind::Bag { separator, .. }) => {
                texts.clear();
                for row in 0..n {
                    let taken = column.categories(row, separator, missing, |text| texts.push(text));
                    taken.unwrap_or_else(|refused| refuse(row, refused));
                    texts.end_row();
                }
            }
            (State::Category { texts, .. }, _) => {
                texts.clear();
                for row in 0..n {
                    match column.category(row, missing) {
                        Ok(text) => texts.push(text),
                        Err(refused) => refuse(row, refused),
                    }
                    texts.end_row();
                }
            }
            (State::Number { batch, .. }, _) => {
                batch.clear();
                for row in 0..n {
                    batch.push(column.number(row, missing).unwrap_or_else(|refused| {
                        refuse(row, refused);
                        None
                    }));
                }
            }
            (State::Label { batch, .. }, _) => {
                batch.clear();
                for row in 0..n {
                    batch.push(column.label(row).unwrap_or_else(|refused| {
                        refuse(row, refused);
                        0.0
                    }));
                }
            }
            (State::Checked, ColumnKind::Time) => column.times(|row, time| {
                if let Err(refused) = time {
                    refuse(row, refused);
                }
            }),
            (State::Checked, _) => {
                for row in 0..n {
                    if let Err(refused) = column.weight(row, missing) {
                        refuse(row, refused);
                    }
                }
            }
        }
        Ok(bad)
    }

    /// Counts the rows of the batch that are not refused.
    fn add(&mut self, refused: &[bool]) -> Result<()> {
        let good = (0..refused.len()).filter(|&row| !refused[row]);
        match &mut self.state {
            State::Category { counter: Some(counter), texts, .. } => {
                for row in good {
                    texts.of_row(row).try_for_each(|text| counter.add(text))?;
                }
            }
            State::Number { numeric, moments, sample, varies, batch } => {
                let log = numeric.transform == NumericTransform::Log;
                for number in good.filter_map(|row| batch[row]) {
                    if let Some(sample) = sample {
                        sample.add(number);
                    }
                    let number = if log { signed_log(number) } else { number };
                    moments.add(number);
                    *varies |= number != moments.mean();
                }
            }
            State::Label { positive, rows, batch } => {
                for row in good {
                    *rows += 1;
                    *positive += u64::from(batch[row] == 1.0);
                }
            }
            State::Category { .. } | State::Checked => {}
        }
        Ok(())
    }

    /// Enters what was fitted among the features.
    fn finish(self, features: &mut Features, report: &mut FitReport, path: &str) -> Result<()> {
        let name = self.column.name.clone();
        match self.state {
            State::Category { counter, buckets, .. } => {
                let encoder = match counter {
                    Some(counter) => {
                        let (vocabulary, left_out) = counter.finish()?;
                        if let (1.., ColumnKind::Categorical(encoding) | ColumnKind::Bag { encoding, .. }) =
                            (left_out, &self.column.kind)
                            && let Encoding::Vocabulary { max_size, .. } = *encoding
                        {
                            report.full.push(FullVocabulary { column: name.clone(), max_size, left_out });
                        }
                        Encoder::Vocabulary(vocabulary)
                    }
                    None => Encoder::Hashed { buckets },
                };
                let separator = match &self.column.kind {
                    ColumnKind::Bag { separator, .. } => Some(separator.clone()),
                    _ => None,
                };
                features.fields.push(Field { name, separator, encoder });
            }
            State::Number { numeric, moments, sample, varies, .. } => {
                if !varies {
                    report.constant.push(name.clone());
                }
                let sorted = sample.map(Reservoir::sorted).unwrap_or_default();
                if let Some(buckets) = numeric.field_buckets() {
                    let encoder = Encoder::Quantiles { bounds: bounds(&sorted, buckets) };
                    features.fields.push(Field { name: name.clone(), separator: None, encoder });
                }
                if !numeric.is_dense() {
                    return Ok(());
                }
                let (center, scale) = match numeric.transform {
                    NumericTransform::AsIs => (0.0, 1.0),
                    _ => {
                        let scale = 1.0 / moments.deviation();
                        (moments.mean(), if varies && scale.is_finite() { scale } else { 0.0 })
                    }
                };
                let log = numeric.transform == NumericTransform::Log;
                let fill = match numeric.fill {
                    // The logarithm keeps the order, so the median's is the median of the logarithms.
                    Fill::Median if log => signed_log(median(&sorted)),
                    Fill::Median => median(&sorted),
                    Fill::Mean => moments.mean(),
                };
                features.numeric.push(NumericField {
                    name,
                    log,
                    center,
                    scale,
                    fill: ((fill - center) * scale) as f32,
                });
            }
            State::Label { positive, rows, .. } => {
                if positive == 0 || positive == rows {
                    let value = if positive == 0 { "0" } else { "1" };
                    return Err(Error::ConstantLabel { path: path.to_owned(), column: name, value, rows });
                }
                features.labels.push(name.clone());
                report.labels.push(LabelCount { column: name, positive, rows });
            }
            State::Checked => {}
        }
        Ok(())
    }
}

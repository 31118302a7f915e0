//! Rows of a batch to features, by what was fitted.
//!
//! Columns are taken by name, column by column. A row that cannot be used is told with file, line and column; where such
//! rows are left out, the batch is transformed again without them, so that they leave no trace in any count.

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;

use super::batch::FeatureBatch;
use super::column::{Column, Missing, Refused};
use super::fitted::{Encoder, Features, Field};
use super::hash::hash_text;
use super::report::TransformReport;
use super::schema::ColumnKind;
use crate::data::{BadRow, BadRows, Lines, OnBadRow, Rows};
use crate::{Error, Result};

impl Features {
    /// Appends the rows of a batch to `out`, and what was met to `report`.
    ///
    /// Labels, weights, groups and times are taken where the batch has their columns. A batch whose rows came from
    /// several calls has them for all rows or for none.
    ///
    /// # Errors
    /// [`Error::NoSuchColumn`] when the batch lacks a feature; [`Error::BadFile`] when a column is of a type that cannot
    /// be read; [`Error::BadRow`] for the first bad row unless `report.on_bad_row` leaves them out;
    /// [`Error::Inconsistent`] when only some of the rows of `out` have labels, weights, groups or times. `out` is then as
    /// it was before.
    pub fn transform(
        &self,
        rows: &Rows,
        location: &str,
        out: &mut FeatureBatch,
        report: &mut TransformReport,
    ) -> Result<()> {
        out.shape(self);
        let before = out.rows;
        self.try_transform(rows, location, out, report).inspect_err(|_| {
            out.truncate(before, self.numeric.len(), self.labels.len());
        })
    }

    /// Returns the rows of a batch that cannot be used, in their order.
    ///
    /// # Errors
    /// As [`Features::transform`], but for bad rows.
    pub(super) fn bad_rows(&self, rows: &Rows, location: &str) -> Result<Vec<BadRow>> {
        let mut out = FeatureBatch::default();
        out.shape(self);
        let mut pass = Pass::new(self, rows, location);
        self.columns_to(&mut pass, &mut out)?;
        pass.bad.sort_by_key(|bad| bad.line);
        Ok(pass.bad)
    }

    fn try_transform(
        &self,
        rows: &Rows,
        location: &str,
        out: &mut FeatureBatch,
        report: &mut TransformReport,
    ) -> Result<()> {
        let before = out.rows;
        let mut pass = Pass::new(self, rows, location);
        self.columns_to(&mut pass, out)?;
        let mut bad = std::mem::take(&mut pass.bad);
        let refused = std::mem::take(&mut pass.refused);
        bad.extend(rows.bad.iter().cloned());
        bad.sort_by_key(|bad| bad.line);
        if !bad.is_empty() && report.on_bad_row == OnBadRow::Fail {
            return Err(Error::BadRow(Box::new(bad.swap_remove(0))));
        }
        let mut counts = pass.counts;
        if !refused.is_empty() {
            out.truncate(before, self.numeric.len(), self.labels.len());
            let good = without(rows, &refused, location)?;
            let mut again = Pass::new(self, &good, location);
            self.columns_to(&mut again, out)?;
            counts = again.counts;
        }
        bad.iter().for_each(|bad| BadRows::count(&mut counts.bad_rows, bad));
        report.add(&counts);
        Ok(())
    }

    /// Appends every column of a batch; refused cells leave some value in their place.
    fn columns_to(&self, pass: &mut Pass<'_>, out: &mut FeatureBatch) -> Result<()> {
        let (before, n) = (out.rows, pass.rows.batch.num_rows());
        out.numeric.resize((before + n) * self.numeric.len(), 0.0);
        let (mut field, mut numeric) = (0, 0);
        for column in &self.schema.columns {
            let name = column.name.as_str();
            match &column.kind {
                ColumnKind::Categorical(_) => {
                    pass.category(name, &self.fields[field], field, &mut out.fields[field].indices)?;
                    field += 1;
                }
                ColumnKind::Bag { separator, .. } => {
                    pass.bag(name, separator, field, out)?;
                    field += 1;
                }
                ColumnKind::Numeric(number) => {
                    if number.field_buckets().is_some() {
                        pass.bucket(name, field, &mut out.fields[field].indices)?;
                        field += 1;
                    }
                    if number.is_dense() {
                        pass.number(name, numeric, &mut out.numeric[before * self.numeric.len()..])?;
                        numeric += 1;
                    }
                }
                ColumnKind::Label | ColumnKind::Weight | ColumnKind::Time | ColumnKind::Ignore => {}
            }
        }
        pass.beside(out)?;
        out.lines.extend((0..n).map(|row| pass.rows.lines.of(row)));
        out.rows += n;
        pass.counts.rows = n as u64;
        let per_row = [
            ("labels", out.labels.len(), self.labels.len()),
            ("weights", out.weights.len(), 1),
            ("groups", out.groups.len(), 1),
            ("times", out.times.len(), 1),
        ];
        match per_row.iter().find(|(_, got, each)| *got != 0 && *got != out.rows * each) {
            Some(&(what, ..)) => Err(Error::Inconsistent { what, at: before as u64 }),
            None => Ok(()),
        }
    }
}

/// One look at a batch.
struct Pass<'a> {
    features: &'a Features,
    rows: &'a Rows,
    location: &'a str,
    missing: Missing<'a>,
    bad: Vec<BadRow>,
    /// Whether each row is bad; empty while none is.
    refused: Vec<bool>,
    counts: TransformReport,
}

impl<'a> Pass<'a> {
    fn new(features: &'a Features, rows: &'a Rows, location: &'a str) -> Self {
        let fields = features.fields.len();
        let counts = TransformReport {
            unseen: vec![0; fields],
            missing: vec![0; fields],
            missing_numbers: vec![0; features.numeric.len()],
            ..TransformReport::default()
        };
        let missing = Missing::new(&features.schema.missing);
        Self { features, rows, location, missing, bad: Vec::new(), refused: Vec::new(), counts }
    }

    fn n_rows(&self) -> usize {
        self.rows.batch.num_rows()
    }

    fn column(&self, name: &str, lists: bool) -> Result<Column> {
        Column::of(self.rows, self.location, name, lists)?.ok_or_else(|| self.no_such_column(name))
    }

    #[cold]
    fn no_such_column(&self, name: &str) -> Error {
        let schema = self.rows.batch.schema();
        let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        Error::NoSuchColumn {
            path: self.location.to_owned(),
            column: name.to_owned(),
            known: known.join(", "),
        }
    }

    #[cold]
    fn refuse(&mut self, row: usize, column: &str, refused: Refused) {
        self.refused.resize(self.n_rows(), false);
        if !std::mem::replace(&mut self.refused[row], true) {
            self.bad.push(refused.at(self.rows, row, self.location, column));
        }
    }

    fn category(&mut self, name: &str, field: &Field, at: usize, indices: &mut Vec<u32>) -> Result<()> {
        let mut column = self.column(name, false)?;
        let (mut unseen, mut missing) = (0, 0);
        indices.reserve(self.n_rows());
        for row in 0..self.n_rows() {
            let index = match column.category(row, &self.missing) {
                Ok(category) => {
                    let (index, new) = field.index(category);
                    missing += u64::from(category.is_empty());
                    unseen += u64::from(new && !category.is_empty());
                    index
                }
                Err(refused) => {
                    self.refuse(row, name, refused);
                    0
                }
            };
            indices.push(index);
        }
        self.counts.unseen[at] += unseen;
        self.counts.missing[at] += missing;
        Ok(())
    }

    fn bag(&mut self, name: &str, separator: &str, at: usize, out: &mut FeatureBatch) -> Result<()> {
        let mut column = self.column(name, true)?;
        let field = &self.features.fields[at];
        let values = &mut out.fields[at];
        let offsets = values.offsets.get_or_insert_default();
        for row in 0..self.n_rows() {
            let (start, mut unseen) = (values.indices.len(), 0);
            let taken = column.categories(row, separator, &self.missing, |category| {
                let (index, new) = field.index(category);
                unseen += u64::from(new);
                values.indices.push(index);
            });
            self.counts.unseen[at] += unseen;
            self.counts.missing[at] += u64::from(values.indices.len() == start);
            if let Err(refused) = taken {
                self.refuse(row, name, refused);
            }
            let end = u32::try_from(values.indices.len());
            offsets.push(end.map_err(|_| Error::Inconsistent { what: "bag of one batch", at: row as u64 })?);
        }
        Ok(())
    }

    fn bucket(&mut self, name: &str, at: usize, indices: &mut Vec<u32>) -> Result<()> {
        let mut column = self.column(name, false)?;
        let features = self.features;
        let Encoder::Quantiles { bounds } = &features.fields[at].encoder else {
            return Err(Error::Inconsistent { what: "field of quantiles", at: at as u64 });
        };
        for row in 0..self.n_rows() {
            let index = match column.number(row, &self.missing) {
                Ok(Some(number)) => 1 + bounds.partition_point(|&bound| bound <= number) as u32,
                Ok(None) => {
                    self.counts.missing[at] += 1;
                    0
                }
                Err(refused) => {
                    self.refuse(row, name, refused);
                    0
                }
            };
            indices.push(index);
        }
        Ok(())
    }

    /// Writes one column of `numbers`, which are row by row.
    fn number(&mut self, name: &str, at: usize, numbers: &mut [f32]) -> Result<()> {
        let mut column = self.column(name, false)?;
        let features = self.features;
        let field = &features.numeric[at];
        for (row, numbers) in numbers.chunks_exact_mut(features.numeric.len()).enumerate() {
            numbers[at] = match column.number(row, &self.missing) {
                Ok(Some(number)) => field.value(number),
                Ok(None) => {
                    self.counts.missing_numbers[at] += 1;
                    field.fill
                }
                Err(refused) => {
                    self.refuse(row, name, refused);
                    0.0
                }
            };
            if !numbers[at].is_finite() {
                let refused = Refused::not_finite(column.text(row));
                self.refuse(row, name, refused);
            }
        }
        Ok(())
    }

    /// Appends labels, weights, groups and times, where the batch has them.
    fn beside(&mut self, out: &mut FeatureBatch) -> Result<()> {
        let features = self.features;
        let has = |name: &String| self.rows.batch.column_by_name(name).is_some();
        if !features.labels.is_empty() && features.labels.iter().all(has) {
            let start = out.labels.len();
            let each = features.labels.len();
            out.labels.resize(start + self.n_rows() * each, 0.0);
            for (at, name) in features.labels.iter().enumerate() {
                let mut column = self.column(name, false)?;
                for row in 0..self.n_rows() {
                    match column.label(row) {
                        Ok(label) => out.labels[start + row * each + at] = label,
                        Err(refused) => self.refuse(row, name, refused),
                    }
                }
            }
        }
        if let Some((name, mut column)) = self.optional(features.schema.weight())? {
            for row in 0..self.n_rows() {
                let weight = column.weight(row, &self.missing);
                out.weights.push(weight.unwrap_or_else(|refused| {
                    self.refuse(row, name, refused);
                    0.0
                }));
            }
        }
        if let Some((_, mut column)) = self.optional(features.schema.group.as_deref())? {
            out.groups.extend((0..self.n_rows()).map(|row| hash_text(column.text(row))));
        }
        if let Some((name, mut column)) = self.optional(features.schema.time())? {
            column.times(|row, time| {
                out.times.push(time.unwrap_or_else(|refused| {
                    self.refuse(row, name, refused);
                    0
                }));
            });
        }
        Ok(())
    }

    fn optional(&self, name: Option<&'a str>) -> Result<Option<(&'a str, Column)>> {
        let Some(name) = name else { return Ok(None) };
        Ok(Column::of(self.rows, self.location, name, false)?.map(|column| (name, column)))
    }
}

/// Returns the rows that are not refused.
fn without(rows: &Rows, refused: &[bool], location: &str) -> Result<Rows> {
    let good: Vec<bool> = refused.iter().map(|refused| !refused).collect();
    let lines = (0..good.len()).filter(|&row| good[row]).map(|row| rows.lines.of(row)).collect();
    let batch = filter_record_batch(&rows.batch, &BooleanArray::from(good))
        .map_err(|error| Error::BadFile { path: location.to_owned(), what: error.to_string() })?;
    Ok(Rows { batch, lines: Lines::listed(lines), bad: Vec::new() })
}

//! Features of files, block by block, for those who do not need them all at once.

use arrow::datatypes::Schema as ArrowSchema;

use super::batch::FeatureBatch;
use super::fitted::Features;
use super::report::TransformReport;
use super::schema::ColumnKind;
use crate::data::{ReadOptions, Rows, Source, Sources};
use crate::{Error, Result};

/// Whether labels are read, and with them weights, groups and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelUse {
    /// Every file must have them: to train and to measure.
    Required,
    /// They are not looked at: to predict.
    Ignored,
}

/// Transforms the rows of files, one after the other, in bounded memory.
pub struct FeatureReader<'a> {
    features: &'a Features,
    rows: RowReader,
    report: TransformReport,
}

impl<'a> FeatureReader<'a> {
    /// Finds the files that `paths` stand for; each is opened when its turn comes.
    ///
    /// # Errors
    /// Those of [`Sources::open`].
    pub fn open(
        features: &'a Features,
        paths: &[String],
        read: &ReadOptions,
        labels: LabelUse,
    ) -> Result<Self> {
        Ok(Self::of(features, Sources::open(paths, read)?, read, labels))
    }

    /// Reads sources that are there already.
    pub fn of(features: &'a Features, sources: Sources, read: &ReadOptions, labels: LabelUse) -> Self {
        let mut names: Vec<String> = features.feature_columns().map(str::to_owned).collect();
        if labels == LabelUse::Required {
            names.extend(needed_beside(&features.schema));
        }
        let lists = features.fields.iter().any(super::Field::is_bag);
        let report = TransformReport::new(read.on_bad_row);
        Self { features, rows: RowReader::new(sources, names, lists), report }
    }

    /// Replaces what is in `out` by the next rows, a few thousand; returns whether there were any.
    ///
    /// # Errors
    /// Those of [`Features::transform`]; [`Error::NoSuchColumn`] before the first row of a file that lacks a column.
    pub fn next_batch(&mut self, out: &mut FeatureBatch) -> Result<bool> {
        out.clear();
        while out.rows == 0 {
            let Some((location, rows)) = self.rows.next_rows()? else { return Ok(false) };
            self.features.transform(&rows, &location, out, &mut self.report)?;
        }
        Ok(true)
    }

    /// Returns the next rows as they are.
    pub(super) fn next_rows(&mut self) -> Result<Option<(String, Rows)>> {
        self.rows.next_rows()
    }

    /// Returns the files that were begun.
    pub(super) fn locations(&self) -> &[String] {
        &self.rows.locations
    }

    /// Returns the file that the last rows came from.
    pub fn location(&self) -> &str {
        &self.rows.location
    }

    /// Returns what was met so far.
    pub fn report(&self) -> &TransformReport {
        &self.report
    }
}

/// Returns the columns that training needs besides the features.
pub(super) fn needed_beside(schema: &super::Schema) -> Vec<String> {
    let beside =
        |kind: &ColumnKind| matches!(kind, ColumnKind::Label | ColumnKind::Weight | ColumnKind::Time);
    let columns =
        schema.columns.iter().filter(|column| beside(&column.kind)).map(|column| column.name.clone());
    let mut names: Vec<String> = columns.collect();
    let group = schema.group.iter().filter(|group| {
        // A group that is a feature is read already.
        schema.column(group).is_none_or(|column| !column.kind.is_feature() && !beside(&column.kind))
    });
    names.extend(group.cloned());
    names
}

/// Reads the same columns of file after file.
pub(crate) struct RowReader {
    sources: Sources,
    names: Vec<String>,
    lists: bool,
    current: Option<Box<dyn Source>>,
    pub(super) location: String,
    /// All files begun so far.
    pub(super) locations: Vec<String>,
}

impl RowReader {
    /// Reads the columns `names`; `lists` says whether some may hold lists.
    pub(crate) fn new(sources: Sources, names: Vec<String>, lists: bool) -> Self {
        Self { sources, names, lists, current: None, location: String::new(), locations: Vec::new() }
    }

    /// Returns the next rows and the file that they are in; `None` after the last.
    pub(crate) fn next_rows(&mut self) -> Result<Option<(String, Rows)>> {
        loop {
            if self.current.is_none() {
                let Some(mut source) = self.sources.next_source()? else { return Ok(None) };
                source.location().clone_into(&mut self.location);
                let places = places(&*source.columns()?, &self.location, &self.names)?;
                match self.lists {
                    true => source.select_with_lists(&places)?,
                    false => source.select(&places)?,
                }
                self.locations.push(self.location.clone());
                self.current = Some(source);
            }
            let Some(source) = &mut self.current else { continue };
            match source.next()? {
                Some(rows) => return Ok(Some((self.location.clone(), rows))),
                None => self.current = None,
            }
        }
    }
}

/// Returns where the columns `names` stand in a file.
fn places(columns: &ArrowSchema, location: &str, names: &[String]) -> Result<Vec<usize>> {
    let known: Vec<&str> = columns.fields().iter().map(|field| field.name().as_str()).collect();
    let place = |name: &String| {
        if known.iter().filter(|known| *known == name).count() > 1 {
            return Err(Error::RepeatedColumn { path: location.to_owned(), column: name.clone() });
        }
        known.iter().position(|known| known == name).ok_or_else(|| Error::NoSuchColumn {
            path: location.to_owned(),
            column: name.clone(),
            known: known.join(", "),
        })
    };
    names.iter().map(place).collect()
}

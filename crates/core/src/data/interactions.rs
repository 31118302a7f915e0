//! Checked interactions out of raw rows: ids, values and times, or a bad row with its line and column.
//!
//! Ids are text, without blanks around it: whole numbers in columns of fractions lose their `.0`, since that is how a
//! column with gaps comes out of a data frame. Values are f32. Times are seconds, as [`super::number`] reads them.

use std::collections::VecDeque;

use arrow::array::{Array, RecordBatch, StringArray};

use super::cells::Cells;
use super::columns::{Columns, find_columns, no_column_for};
use super::locate::{Place, locate};
use super::open::open;
use super::source::{Rows, Source};
use super::{BadRow, BadRowKind, BadRows, MAX_ID_BYTES, OnBadRow, ReadOptions, ReadReport};
use crate::{Error, Result};

/// Some interactions, in the order of their source.
#[derive(Debug)]
pub struct Interactions {
    pub(super) users: StringArray,
    pub(super) items: StringArray,
    pub(super) values: Option<Vec<f32>>,
    pub(super) times: Option<Vec<i64>>,
    /// The rows that count, ascending; all where `None`.
    pub(super) kept: Option<Vec<u32>>,
}

/// One interaction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interaction<'a> {
    /// The user's id.
    pub user: &'a str,
    /// The item's id.
    pub item: &'a str,
    /// How much it counts; 1 where the data do not say.
    pub value: f32,
    /// When, in seconds since 1970, where the data say.
    pub time: Option<i64>,
}

impl Interactions {
    /// Returns the number of interactions.
    pub fn len(&self) -> usize {
        self.kept.as_ref().map_or(self.users.len(), Vec::len)
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns them one by one.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Interaction<'_>> {
        (0..self.len()).map(|at| {
            let row = self.row(at);
            Interaction {
                user: self.users.value(row),
                item: self.items.value(row),
                value: self.values.as_ref().map_or(1.0, |values| values[row]),
                time: self.times.as_ref().map(|times| times[row]),
            }
        })
    }

    /// Returns the row of the arrays that the interaction `at` is in.
    pub(super) fn row(&self, at: usize) -> usize {
        self.kept.as_ref().map_or(at, |kept| kept[at] as usize)
    }
}

/// Reads interactions from files and URLs, one after the other.
///
/// For those who want the rows rather than a [`crate::Dataset`], such as the rows of a test file.
pub struct InteractionReader {
    options: ReadOptions,
    places: VecDeque<Place>,
    sources: VecDeque<Box<dyn Source>>,
    current: Option<Current>,
    /// Whether batches have all columns rather than those of a role.
    whole: bool,
    report: ReadReport,
}

struct Current {
    source: Box<dyn Source>,
    /// What each role is read from: the column's place in the batches, and its name.
    roles: Vec<(Role, usize, String)>,
    /// All columns of the source.
    known: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    User,
    Item,
    Value,
    Time,
    Event,
}

impl InteractionReader {
    /// Finds the files that `inputs` stand for; each is opened when its turn comes.
    ///
    /// # Errors
    /// [`Error::NoFiles`] and [`Error::Io`] for what is not there; [`Error::BadOption`].
    pub fn open(inputs: &[String], options: &ReadOptions) -> Result<Self> {
        Self::of_places(locate(inputs)?, options)
    }

    pub(super) fn of_places(places: Vec<Place>, options: &ReadOptions) -> Result<Self> {
        let mut reader = Self::of_sources(Vec::new(), options)?;
        reader.places = places.into();
        for place in &reader.places {
            if let Place::Local(path) = place {
                fs_err::metadata(path)?;
            }
        }
        Ok(reader)
    }

    /// Reads batches with all columns.
    pub(super) fn of_places_whole(places: Vec<Place>, options: &ReadOptions) -> Result<Self> {
        Ok(Self { whole: true, ..Self::of_places(places, options)? })
    }

    /// Reads sources that the caller made.
    ///
    /// # Errors
    /// [`Error::BadOption`].
    pub fn of_sources(sources: Vec<Box<dyn Source>>, options: &ReadOptions) -> Result<Self> {
        options.validate()?;
        let report = ReadReport { repeats: options.repeats, ..ReadReport::default() };
        let (places, sources) = (VecDeque::new(), sources.into());
        Ok(Self { options: options.clone(), places, sources, current: None, whole: false, report })
    }

    /// Returns the next interactions; `None` at the end of the last file.
    ///
    /// # Errors
    /// One variant for each thing that can be wrong with a file, its columns and its rows.
    pub fn next_block(&mut self) -> Result<Option<Interactions>> {
        Ok(self.next_rows()?.map(|(_, interactions)| interactions))
    }

    /// Returns the next interactions with the batch that they are in.
    pub(super) fn next_rows(&mut self) -> Result<Option<(RecordBatch, Interactions)>> {
        loop {
            if self.current.is_none() && !self.begin_next()? {
                return match self.report.rows {
                    0 => Err(Error::NoRows { path: self.report.sources.join(", ") }),
                    _ => Ok(None),
                };
            }
            let Some(current) = &mut self.current else { continue };
            match current.source.next()? {
                None => self.current = None,
                Some(rows) => {
                    let interactions = check(current, &rows, &self.options, &mut self.report)?;
                    if !interactions.is_empty() {
                        return Ok(Some((rows.batch, interactions)));
                    }
                }
            }
        }
    }

    /// Returns what was read so far.
    pub fn report(&self) -> &ReadReport {
        &self.report
    }

    /// Ends the reading.
    pub fn into_report(self) -> ReadReport {
        self.report
    }

    fn begin_next(&mut self) -> Result<bool> {
        let mut source = match (self.sources.pop_front(), self.places.pop_front()) {
            (Some(source), place) => {
                if let Some(place) = place {
                    self.places.push_front(place);
                }
                source
            }
            (None, Some(place)) => open(&place, &self.options)?,
            (None, None) => return Ok(false),
        };
        let location = source.location().to_owned();
        let names: Vec<String> =
            source.columns()?.fields().iter().map(|field| field.name().clone()).collect();
        let (columns, uses) = find_columns(&location, &names, &self.options)?;
        if self.report.sources.is_empty() {
            self.report.columns = uses;
        }
        let Columns { user, item, value, time, event } = columns;
        let all = [
            (Role::User, Some(user)),
            (Role::Item, Some(item)),
            (Role::Value, value),
            (Role::Time, time),
            (Role::Event, event),
        ];
        let known = names.join(", ");
        let used = all.into_iter().filter_map(|(role, column)| column.map(|column| (role, column)));
        let mut roles: Vec<_> = used.map(|(role, column)| (role, column, names[column].clone())).collect();
        if !self.whole {
            source.select(&roles.iter().map(|&(_, column, _)| column).collect::<Vec<_>>())?;
            roles.iter_mut().enumerate().for_each(|(place, role)| role.1 = place);
        }
        self.report.sources.push(location);
        self.current = Some(Current { source, roles, known });
        Ok(true)
    }

    /// Returns what messages call the file that is being read.
    pub(super) fn location(&self) -> &str {
        self.current.as_ref().map_or("", |current| current.source.location())
    }

    /// Says that the file has no time, which the caller needs.
    pub(super) fn no_time_column(&self) -> Error {
        let known = self.current.as_ref().map_or_else(String::new, |current| current.known.clone());
        no_column_for(self.location(), "time", known)
    }
}

/// Makes interactions of raw rows and enters the bad ones in the report, or fails at the first of them.
fn check(
    current: &Current,
    rows: &Rows,
    options: &ReadOptions,
    report: &mut ReadReport,
) -> Result<Interactions> {
    report.rows += (rows.batch.num_rows() + rows.bad.len()) as u64;
    let mut judge = Judge { rows, location: current.source.location(), bad: Vec::new(), refused: Vec::new() };
    let column = |role: Role| current.roles.iter().find(|one| one.0 == role).map(|(_, at, name)| (*at, name));
    let id = |role: Role, judge: &mut Judge| match column(role) {
        Some((at, name)) => judge.ids(at, name),
        None => Ok(StringArray::new_null(rows.batch.num_rows())),
    };
    let (users, items) = (id(Role::User, &mut judge)?, id(Role::Item, &mut judge)?);
    let mut values = match column(Role::Value) {
        Some((at, name)) => Some(judge.values(at, name, options.allow_negative)?),
        None => None,
    };
    let mut below = Vec::new();
    if let (Some(least), Some(values)) = (options.min_rating, &values) {
        below = values.iter().map(|&value| value < least).collect();
    }
    if let (Some((at, name)), Some(weights)) = (column(Role::Event), &options.event_weights) {
        let of_events = judge.events(at, name, weights)?;
        values = Some(match values {
            Some(values) => values.iter().zip(&of_events).map(|(value, weight)| value * weight).collect(),
            None => of_events,
        });
    }
    let times = match column(Role::Time) {
        Some((at, name)) => Some(judge.times(at, name)?),
        None => None,
    };
    let Judge { mut bad, mut refused, .. } = judge;
    if !rows.bad.is_empty() {
        bad.extend(rows.bad.iter().cloned());
    }
    if !bad.is_empty() {
        bad.sort_by_key(|bad| bad.line);
        if options.on_bad_row == OnBadRow::Fail {
            return Err(Error::BadRow(Box::new(bad.swap_remove(0))));
        }
        bad.iter().for_each(|bad| BadRows::count(&mut report.bad_rows, bad));
    }
    let mut kept = None;
    if !refused.is_empty() || below.contains(&true) {
        refused.resize(rows.batch.num_rows(), false);
        below.resize(rows.batch.num_rows(), false);
        let low = |row: &usize| below[*row] && !refused[*row];
        report.rows_below_min_rating += (0..below.len()).filter(low).count() as u64;
        kept = Some(
            (0..below.len()).filter(|&row| !below[row] && !refused[row]).map(|row| row as u32).collect(),
        );
    }
    Ok(Interactions { users, items, values, times, kept })
}

/// Finds the bad rows of a batch, each once.
struct Judge<'a> {
    rows: &'a Rows,
    location: &'a str,
    bad: Vec<BadRow>,
    /// Whether each row is bad; empty while none is.
    refused: Vec<bool>,
}

impl Judge<'_> {
    #[cold]
    fn refuse(&mut self, row: usize, kind: BadRowKind, column: &str, expected: &str, found: &str) {
        self.refused.resize(self.rows.batch.num_rows(), false);
        if std::mem::replace(&mut self.refused[row], true) {
            return;
        }
        self.bad.push(BadRow {
            kind,
            path: self.location.to_owned(),
            line: self.rows.lines.of(row),
            id: None,
            column: Some(column.to_owned()),
            expected: expected.to_owned(),
            found: BadRow::shorten(found.as_bytes()),
        });
    }

    fn cells(&self, at: usize, column: &str) -> Result<Cells> {
        Cells::new(self.rows.batch.column(at).clone()).map_err(|type_name| Error::BadFile {
            path: self.location.to_owned(),
            what: format!("column `{column}`: expected text or numbers, found `{type_name}`"),
        })
    }

    fn ids(&mut self, at: usize, column: &str) -> Result<StringArray> {
        let ids = self.cells(at, column)?.into_ids();
        let bad = |id: &str| id.is_empty() || id.len() > MAX_ID_BYTES;
        let bad_rows = (0..ids.len()).filter(|&row| bad(ids.value(row)));
        for row in bad_rows {
            let id = ids.value(row);
            match id.is_empty() {
                true => self.refuse(row, BadRowKind::EmptyId, column, "an id", id),
                false => self.refuse(row, BadRowKind::LongId, column, "an id of at most 256 bytes", id),
            }
        }
        Ok(ids)
    }

    fn values(&mut self, at: usize, column: &str, allow_negative: bool) -> Result<Vec<f32>> {
        let cells = self.cells(at, column)?;
        let n = self.rows.batch.num_rows();
        let mut values = Vec::with_capacity(n);
        cells.each_value(|row, value| {
            let value = value.unwrap_or(f32::NAN);
            // One comparison for all that is wrong: NaN is in no range.
            let allowed = (0.0..f32::INFINITY).contains(&value) || (allow_negative && value.is_finite());
            if !allowed {
                let text = cells.text(row);
                let number = text.trim().parse::<f64>();
                let (kind, expected) = match number {
                    Err(_) => (BadRowKind::NotANumber, "a number"),
                    Ok(number) if number.is_nan() || (number as f32).is_infinite() => {
                        (BadRowKind::NotFinite, "a finite number")
                    }
                    Ok(_) => (BadRowKind::Negative, "a number that is not negative"),
                };
                self.refuse(row, kind, column, expected, &text);
            }
            values.push(value);
        });
        Ok(values)
    }

    fn times(&mut self, at: usize, column: &str) -> Result<Vec<i64>> {
        const EXPECTED: &str = "seconds or milliseconds since 1970, or a date such as 2024-01-31T12:00:00Z";
        let cells = self.cells(at, column)?;
        let mut times = Vec::with_capacity(self.rows.batch.num_rows());
        cells.each_time(|row, time| {
            if time.is_none() {
                self.refuse(row, BadRowKind::BadTime, column, EXPECTED, &cells.text(row));
            }
            times.push(time.unwrap_or(0));
        });
        Ok(times)
    }

    fn events(&mut self, at: usize, column: &str, weights: &super::EventWeights) -> Result<Vec<f32>> {
        let kinds = self.cells(at, column)?.into_ids();
        let mut values = Vec::with_capacity(kinds.len());
        for row in 0..kinds.len() {
            let kind = kinds.value(row);
            let weight = weights.get(kind);
            if weight.is_none() {
                let known: Vec<&str> = weights.iter().map(|(kind, _)| kind).collect();
                self.refuse(
                    row,
                    BadRowKind::UnknownEvent,
                    column,
                    &format!("one of {}", known.join(", ")),
                    kind,
                );
            }
            values.push(weight.unwrap_or(0.0));
        }
        Ok(values)
    }
}

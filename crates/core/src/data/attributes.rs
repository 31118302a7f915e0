//! What is known of items or users besides their interactions: a table with one row for each id, by index.
//!
//! Text formats do not say their types: a column of text becomes whole numbers, else numbers, when every filled cell is
//! one and none would be written otherwise (`007` stays text). Empty cells are null, and so is every cell of an id that the
//! file does not have.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, UInt32Array, new_null_array,
};
use arrow::compute::{cast, concat, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use serde::Serialize;

use super::cells::Cells;
use super::columns::plain;
use super::locate::locate;
use super::open::open;
use super::report::{BadRow, BadRowKind, BadRows};
use super::sources::each_once;
use super::{OnBadRow, Predicate, ReadOptions};
use crate::{Error, IdMap, Ids, Result};

/// Columns that are taken for the name that people know an item by, the likeliest first.
const TITLES: &[&str] = &[
    "title",
    "name",
    "itemname",
    "itemtitle",
    "productname",
    "producttitle",
    "movietitle",
    "label",
    "description",
];

/// A table of attributes, row by row as the ids it belongs to.
#[derive(Clone, Debug)]
pub struct Attributes {
    table: RecordBatch,
    title: Option<usize>,
}

/// How the ids of a table of attributes met those of the data.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AttributesReport {
    /// Rows of the file.
    pub rows: u64,
    /// Ids of the data that have a row.
    pub described: usize,
    /// Ids of the data that have none.
    pub undescribed: usize,
    /// Rows whose id is not in the data; they are left out.
    pub unknown: u64,
    /// The column with the title, where one was found.
    pub title: Option<String>,
    /// Rows that were left out as bad, by kind.
    pub bad_rows: Vec<BadRows>,
}

impl Attributes {
    /// Reads the rows of `input`, whose first column is the id, that belong to `ids`.
    ///
    /// Of `options` the format and what bad rows do matter.
    ///
    /// # Errors
    /// Those of [`super::read_dataset`]; [`Error::BadRow`] for an id that is there twice, [`Error::RepeatedColumn`] for a column.
    pub fn read(input: &str, ids: &IdMap, options: &ReadOptions) -> Result<(Self, AttributesReport)> {
        let (taken, report) = Self::read_rows(input, options, ids.len(), &mut |id| Ok(ids.get(id)))?;
        Self::named(taken, ids, input, report)
    }

    /// Reads all rows of `input`, whose first column is the id: index `i` is the `i`-th id of the file.
    ///
    /// # Errors
    /// As [`Attributes::read`].
    pub fn read_all(input: &str, options: &ReadOptions) -> Result<(Self, AttributesReport)> {
        let mut ids = IdMap::default();
        let (taken, report) = Self::read_rows(input, options, 0, &mut |id| Ok(Some(ids.get_or_insert(id)?)))?;
        Self::named(taken, &ids, input, report)
    }

    /// Reads the rows of which `index` knows an index, `n` or more of them, in the order of that.
    fn read_rows(
        input: &str,
        options: &ReadOptions,
        n: usize,
        index: &mut dyn FnMut(&str) -> Result<Option<u32>>,
    ) -> Result<(RecordBatch, AttributesReport)> {
        let mut report = AttributesReport::default();
        let mut batches = Vec::new();
        // For each id the row that describes it, counted over all batches.
        let mut rows: Vec<Option<u32>> = vec![None; n];
        let mut first = 0;
        let mut schema = None;
        let bad_file = |path: &str, what: String| Error::BadFile { path: path.to_owned(), what };
        for place in locate(&[input.to_owned()])? {
            let mut source = open(&place, options)?;
            let location = source.location().to_owned();
            let columns = source.columns()?;
            if columns.fields().is_empty() {
                return Err(bad_file(&location, "expected a column of ids, found no column".to_owned()));
            }
            let schema: &SchemaRef = schema.get_or_insert_with(|| columns.clone());
            let names: Vec<String> = columns.fields().iter().map(|field| field.name().clone()).collect();
            each_once(&location, &names)?;
            let id_column = schema.field(0).name().clone();
            while let Some(found) = source.next()? {
                report.rows += (found.batch.num_rows() + found.bad.len()) as u64;
                let cells = Cells::new(found.batch.column(0).clone()).map_err(|found| {
                    bad_file(&location, format!("column `{id_column}`: expected ids, found `{found}`"))
                })?;
                let names = cells.into_ids();
                let mut bad = found.bad;
                for row in 0..names.len() {
                    let id = names.value(row);
                    let mut refuse = |kind, expected: &str| {
                        bad.push(BadRow {
                            kind,
                            path: location.clone(),
                            line: found.lines.of(row),
                            id: None,
                            column: Some(id_column.clone()),
                            expected: expected.to_owned(),
                            found: BadRow::shorten(id.as_bytes()),
                        });
                    };
                    if id.is_empty() {
                        refuse(BadRowKind::EmptyId, "an id");
                        continue;
                    }
                    let Some(index) = index(id)? else {
                        report.unknown += 1;
                        continue;
                    };
                    let index = index as usize;
                    rows.resize(rows.len().max(index + 1), None);
                    match rows[index] {
                        Some(_) => refuse(BadRowKind::RepeatedId, "an id that is not there yet"),
                        None => rows[index] = Some(first + row as u32),
                    }
                }
                bad.sort_by_key(|bad| bad.line);
                for bad in bad {
                    if options.on_bad_row == OnBadRow::Fail {
                        return Err(Error::BadRow(Box::new(bad)));
                    }
                    BadRows::count(&mut report.bad_rows, &bad);
                }
                first = first
                    .checked_add(names.len() as u32)
                    .ok_or_else(|| bad_file(&location, "more than 4,294,967,295 rows".to_owned()))?;
                batches.push(found.batch);
            }
        }
        if first == 0 {
            return Err(BadRows::nothing_left(&report.bad_rows, input.to_owned()));
        }
        let refused = |error: ArrowError| bad_file(input, error.to_string());
        let schema = schema.unwrap_or_else(|| Arc::new(Schema::empty()));
        let all = concat_batches(&schema, &batches).map_err(refused)?;
        report.described = rows.iter().flatten().count();
        report.undescribed = rows.len() - report.described;
        let nullable = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let nullable = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
        let all = RecordBatch::try_new(nullable, all.columns().to_vec()).map_err(refused)?;
        Ok((take_record_batch(&all, &UInt32Array::from(rows)).map_err(refused)?, report))
    }

    fn named(
        taken: RecordBatch,
        ids: &IdMap,
        input: &str,
        mut report: AttributesReport,
    ) -> Result<(Self, AttributesReport)> {
        let refused = |error: ArrowError| Error::BadFile { path: input.to_owned(), what: error.to_string() };
        let attributes = Self::of_ids(taken, ids).map_err(refused)?;
        report.title = attributes.title.map(|at| attributes.table.schema().field(at).name().clone());
        Ok((attributes, report))
    }

    /// Gives the columns their types, and every row its id.
    fn of_ids(table: RecordBatch, ids: &IdMap) -> std::result::Result<Self, ArrowError> {
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for (at, (field, column)) in table.schema().fields().iter().zip(table.columns()).enumerate() {
            let column = match column.data_type() {
                _ if at == 0 => Arc::new(ids.iter().map(Some).collect::<StringArray>()) as ArrayRef,
                DataType::Utf8 => typed(column.as_string::<i32>()),
                _ => column.clone(),
            };
            fields.push(Field::new(field.name(), column.data_type().clone(), true));
            columns.push(column);
        }
        Ok(Self::new(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?))
    }

    /// Takes a table whose rows are in the order of the ids, such as that of a model directory.
    pub fn new(table: RecordBatch) -> Self {
        let schema = table.schema();
        let names: Vec<String> = schema.fields().iter().map(|field| plain(field.name())).collect();
        let is_text = |at: &usize| {
            matches!(schema.field(*at).data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
        };
        let title =
            TITLES.iter().find_map(|title| names.iter().position(|name| name == title)).filter(is_text);
        Self { table, title }
    }

    /// Returns the ids of the first column that `known` does not have, each once, and their rows.
    ///
    /// # Errors
    /// [`Error::BadFile`] when the first column holds no ids.
    pub fn unknown_to(&self, known: &dyn Ids) -> Result<(IdMap, RecordBatch)> {
        let bad = |what: String| Error::BadFile { path: "attributes".to_owned(), what };
        let (mut ids, mut rows) = (IdMap::default(), Vec::new());
        if self.table.num_columns() > 0 {
            let cells = Cells::new(self.table.column(0).clone());
            let names = cells.map_err(|found| bad(format!("expected ids, found `{found}`")))?.into_ids();
            for row in 0..names.len() {
                let id = names.value(row);
                if !id.is_empty() && known.index(id).is_none() && ids.get(id).is_none() {
                    ids.get_or_insert(id)?;
                    rows.push(row as u32);
                }
            }
        }
        let taken = take_record_batch(&self.table, &UInt32Array::from(rows));
        Ok((ids, taken.map_err(|error| bad(error.to_string()))?))
    }

    /// Returns the table with the rows of another behind its own, in the columns and types that it has: what the other lacks is null.
    ///
    /// # Errors
    /// [`Error::BadFile`] for columns that cannot be of one type.
    pub fn with_rows(&self, more: &RecordBatch) -> Result<Self> {
        let bad =
            |error: ArrowError| Error::BadFile { path: "attributes".to_owned(), what: error.to_string() };
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for (at, (field, column)) in self.table.schema().fields().iter().zip(self.table.columns()).enumerate()
        {
            let other = match at {
                0 => more.columns().first(),
                _ => more.column_by_name(field.name()),
            };
            let other = match other {
                Some(other) => cast(other, column.data_type()).map_err(bad)?,
                None => new_null_array(column.data_type(), more.num_rows()),
            };
            fields.push(field.as_ref().clone().with_nullable(true));
            columns.push(concat(&[column, &other]).map_err(bad)?);
        }
        Ok(Self::new(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(bad)?))
    }

    /// Returns the table; row `i` belongs to index `i`.
    pub fn table(&self) -> &RecordBatch {
        &self.table
    }

    /// Returns the name that people know index `index` by.
    pub fn title(&self, index: u32) -> Option<&str> {
        let column = self.table.column(self.title?);
        let row = index as usize;
        if row >= column.len() || column.is_null(row) {
            return None;
        }
        match column.data_type() {
            DataType::Utf8 => Some(column.as_string::<i32>().value(row)),
            DataType::LargeUtf8 => Some(column.as_string::<i64>().value(row)),
            _ => Some(column.as_string_view().value(row)),
        }
    }

    /// Returns a bitmap of the rows that `predicate` holds for: row `i` is bit `i % 64` of word `i / 64`.
    ///
    /// # Errors
    /// [`Error::NoSuchColumn`] and [`Error::BadPredicate`].
    pub fn rows_where(&self, predicate: &Predicate) -> Result<Arc<[u64]>> {
        predicate.evaluate(&self.table)
    }
}

/// Gives a column of text the type that all its cells are of.
fn typed(text: &StringArray) -> ArrayRef {
    let cell = |row: usize| {
        (!text.is_null(row)).then(|| text.value(row).trim_ascii()).filter(|cell| !cell.is_empty())
    };
    let cells = || (0..text.len()).map(cell);
    // A number that would be written otherwise is a code.
    let whole = |cell: &str| cell.parse::<i64>().ok().filter(|number| number.to_string() == cell);
    let number = |cell: &str| {
        let digits = cell.trim_start_matches('-');
        let code = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
        let plain = cell.bytes().all(|byte| byte.is_ascii_digit() || b".-+eE".contains(&byte));
        (plain && !code).then(|| cell.parse::<f64>().ok()).flatten().filter(|number| number.is_finite())
    };
    if cells().flatten().next().is_some() && cells().flatten().all(|cell| whole(cell).is_some()) {
        return Arc::new(cells().map(|cell| cell.and_then(whole)).collect::<Int64Array>());
    }
    if cells().flatten().next().is_some() && cells().flatten().all(|cell| number(cell).is_some()) {
        return Arc::new(cells().map(|cell| cell.and_then(number)).collect::<Float64Array>());
    }
    Arc::new(cells().collect::<StringArray>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, on_bad_row: OnBadRow) -> Result<(Attributes, AttributesReport)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("items.csv");
        fs_err::write(&path, text).unwrap();
        let mut ids = IdMap::default();
        ["b", "a", "c"].iter().for_each(|id| {
            ids.get_or_insert(id).unwrap();
        });
        let options = ReadOptions { on_bad_row, ..ReadOptions::default() };
        Attributes::read(&path.display().to_string(), &ids, &options)
    }

    const FILE: &str = "item,Title,year,price,zip\na,\"A, the\",1994,2.5,007\nz,Z,1,1,1\nb,B,,3,010\n";

    #[test]
    fn rows_are_by_index_and_columns_have_types() {
        let (attributes, report) = read(FILE, OnBadRow::Fail).unwrap();
        let table = attributes.table();
        let types: Vec<_> = table.schema().fields().iter().map(|field| field.data_type().clone()).collect();
        assert_eq!(
            types,
            [DataType::Utf8, DataType::Utf8, DataType::Int64, DataType::Float64, DataType::Utf8]
        );
        let ids: Vec<_> = table.column(0).as_string::<i32>().iter().collect();
        assert_eq!(ids, [Some("b"), Some("a"), Some("c")]);
        assert_eq!(
            [0, 1, 2, 3].map(|index| attributes.title(index)),
            [Some("B"), Some("A, the"), None, None]
        );
        assert!(table.column(2).is_null(0) && table.column(2).is_null(2));
        assert_eq!((report.rows, report.described, report.undescribed, report.unknown), (3, 2, 1, 1));
        assert_eq!(report.title.as_deref(), Some("Title"));
    }

    #[test]
    fn an_id_that_is_there_twice_is_a_bad_row() {
        let text = format!("{FILE}a,again,1,1,1\n");
        let told = read(&text, OnBadRow::Fail).unwrap_err().to_string();
        assert!(
            told.ends_with("items.csv:5: column `item`: expected an id that is not there yet, found `a`"),
            "{told}"
        );
        let (attributes, report) = read(&text, OnBadRow::Skip).unwrap();
        assert_eq!(report.bad_rows[0].rows, 1);
        assert_eq!(attributes.title(1), Some("A, the"));
    }

    #[test]
    fn rows_of_others_follow_in_the_same_columns() {
        let (attributes, _) = read(FILE, OnBadRow::Fail).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.csv");
        fs_err::write(&path, "id,year,Title,more\nq,next,Q,1\na,1,A,1\nr,2001,R,1\n").unwrap();
        let (new, report) =
            Attributes::read_all(&path.display().to_string(), &ReadOptions::default()).unwrap();
        assert_eq!((report.rows, report.unknown), (3, 0));
        let mut known = IdMap::default();
        known.get_or_insert("a").unwrap();
        let (ids, rows) = new.unknown_to(&known).unwrap();
        assert_eq!(ids.iter().collect::<Vec<_>>(), ["q", "r"]);
        let both = attributes.with_rows(&rows).unwrap();
        assert_eq!([2, 3, 4].map(|index| both.title(index)), [None, Some("Q"), Some("R")]);
        let years = both.table().column(2).as_primitive::<arrow::datatypes::Int64Type>();
        assert!(years.is_null(3) && years.value(4) == 2001, "a year that is no number is none");
        assert!(both.table().column(3).is_null(3), "a column that is not there");
    }

    #[test]
    fn a_header_alone_describes_nothing() {
        assert!(matches!(read("item,title\n", OnBadRow::Fail), Err(Error::NoRows { .. })));
    }
}

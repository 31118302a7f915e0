//! One column of a batch as categories, lists of them or numbers, and what counts as missing.

use std::borrow::Cow;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use crate::data::{BadRow, BadRowKind, Cells, MAX_ID_BYTES, Rows};
use crate::{Error, Result};

/// A column whose cells are values or lists of values.
pub(super) struct Column {
    cells: Cells,
    /// For lists: where each row begins among the cells, and where the last ends.
    ends: Option<Vec<usize>>,
    buffer: String,
}

/// The texts that stand for nothing.
pub(super) struct Missing<'a> {
    texts: Vec<&'a str>,
    longest: usize,
}

impl<'a> Missing<'a> {
    pub(super) fn new(texts: &'a [String]) -> Self {
        let texts: Vec<&str> = texts.iter().map(|text| text.trim_ascii()).collect();
        Self { longest: texts.iter().map(|text| text.len()).max().unwrap_or(0), texts }
    }

    pub(super) fn has(&self, text: &str) -> bool {
        text.is_empty() || (text.len() <= self.longest && self.texts.contains(&text))
    }
}

/// What a cell holds instead of what it should.
pub(super) struct Refused {
    pub(super) kind: BadRowKind,
    pub(super) expected: &'static str,
    pub(super) found: String,
}

impl Refused {
    fn new(kind: BadRowKind, expected: &'static str, found: &str) -> Self {
        Self { kind, expected, found: BadRow::shorten(found.as_bytes()) }
    }

    pub(super) fn not_finite(found: &str) -> Self {
        Self::new(BadRowKind::NotFinite, "a number that stays finite as a feature", found)
    }

    /// Returns the bad row that this makes of row `row` of a batch.
    pub(super) fn at(self, rows: &Rows, row: usize, location: &str, column: &str) -> BadRow {
        BadRow {
            kind: self.kind,
            path: location.to_owned(),
            line: rows.lines.of(row),
            id: None,
            column: Some(column.to_owned()),
            expected: self.expected.to_owned(),
            found: self.found,
        }
    }
}

type Cell<T> = std::result::Result<T, Refused>;

const NUMBER: &str = "a number, or one of the texts for missing ones";
const FINITE: &str = "a number from -3.4e38 to 3.4e38";
const LABEL: &str = "0 or 1";

impl Column {
    /// Takes the column called `name` out of a batch; nothing where there is none.
    ///
    /// `lists` says whether the cells may be lists.
    pub(super) fn of(rows: &Rows, location: &str, name: &str, lists: bool) -> Result<Option<Self>> {
        let Some(array) = rows.batch.column_by_name(name) else { return Ok(None) };
        let expected = if lists { "text, numbers or lists of them" } else { "text or numbers" };
        let refused = |found: DataType| Error::BadFile {
            path: location.to_owned(),
            what: format!("column `{name}`: expected {expected}, found `{found}`"),
        };
        let (cells, ends) = if lists { unnest(array).map_err(refused)? } else { (array.clone(), None) };
        let cells = Cells::new(cells).map_err(refused)?;
        Ok(Some(Self { cells, ends, buffer: String::new() }))
    }

    /// Returns the category of a row; empty where there is none.
    pub(super) fn category(&mut self, row: usize, missing: &Missing<'_>) -> Cell<&str> {
        let text = self.cells.trimmed(row, &mut self.buffer);
        if missing.has(text) {
            return Ok("");
        }
        if text.len() > MAX_ID_BYTES {
            return Err(Refused::new(BadRowKind::LongId, "a category of at most 256 bytes", text));
        }
        Ok(canonical(text))
    }

    /// Hands each category of a row to `take`.
    pub(super) fn categories(
        &mut self,
        row: usize,
        separator: &str,
        missing: &Missing<'_>,
        mut take: impl FnMut(&str),
    ) -> Cell<()> {
        let mut check = |text: &str| {
            if text.len() > MAX_ID_BYTES {
                return Err(Refused::new(BadRowKind::LongId, "categories of at most 256 bytes", text));
            }
            if !missing.has(text) {
                take(canonical(text));
            }
            Ok(())
        };
        if let Some(ends) = &self.ends {
            for cell in ends[row]..ends[row + 1] {
                check(self.cells.trimmed(cell, &mut self.buffer))?;
            }
            return Ok(());
        }
        let text = self.cells.trimmed(row, &mut self.buffer);
        if missing.has(text) {
            return Ok(());
        }
        if let Some(values) = json_list(text) {
            return values.iter().try_for_each(|value| check(value.trim_ascii()));
        }
        text.split(separator).try_for_each(|part| check(part.trim_ascii()))
    }

    /// Returns the number of a row; nothing where it is missing.
    pub(super) fn number(&mut self, row: usize, missing: &Missing<'_>) -> Cell<Option<f64>> {
        let number = match self.cells.double(row) {
            Some(number) if number.is_nan() => return Ok(None),
            Some(number) => number,
            None => {
                let text = self.cells.trimmed(row, &mut self.buffer);
                if missing.has(text) {
                    return Ok(None);
                }
                match parse_number(text) {
                    Some(number) => number,
                    None => return Err(Refused::new(BadRowKind::NotANumber, NUMBER, text)),
                }
            }
        };
        // What is no number in single precision could not be computed with.
        match (number as f32).is_finite() {
            true => Ok(Some(number)),
            false => {
                let found = match self.cells.double(row) {
                    Some(number) => format!("{number:e}"),
                    None => self.cells.trimmed(row, &mut self.buffer).to_owned(),
                };
                Err(Refused::new(BadRowKind::NotFinite, FINITE, &found))
            }
        }
    }

    /// Returns the label of a row.
    pub(super) fn label(&mut self, row: usize) -> Cell<f32> {
        let number = match self.cells.double(row) {
            Some(number) => number,
            None => parse_number(self.cells.trimmed(row, &mut self.buffer)).unwrap_or(f64::NAN),
        };
        if number == 0.0 || number == 1.0 {
            return Ok(number as f32);
        }
        Err(Refused::new(BadRowKind::BadLabel, LABEL, self.cells.trimmed(row, &mut self.buffer)))
    }

    /// Returns the weight of a row.
    pub(super) fn weight(&mut self, row: usize, missing: &Missing<'_>) -> Cell<f32> {
        match self.number(row, missing)? {
            Some(weight) if weight >= 0.0 => Ok(weight as f32),
            Some(weight) => {
                let found = weight.to_string();
                Err(Refused::new(BadRowKind::Negative, "a weight that is not negative", &found))
            }
            None => {
                let found = self.cells.trimmed(row, &mut self.buffer);
                Err(Refused::new(BadRowKind::NotANumber, "a weight", found))
            }
        }
    }

    /// Hands each row's time to `take`, in seconds since 1970.
    pub(super) fn times(&mut self, mut take: impl FnMut(usize, Cell<i64>)) {
        const EXPECTED: &str = "seconds or milliseconds since 1970, or a date such as 2024-01-31T12:00:00Z";
        let cells = &self.cells;
        cells.each_time(|row, time| {
            take(row, time.ok_or_else(|| Refused::new(BadRowKind::BadTime, EXPECTED, &cells.text(row))));
        });
    }

    /// Returns the text of a row.
    pub(super) fn text(&mut self, row: usize) -> &str {
        self.cells.trimmed(row, &mut self.buffer)
    }
}

/// Returns a category as JSON has it, where data frames write it otherwise: whole numbers in a column with gaps get a
/// fraction of zero, truth values a capital.
fn canonical(text: &str) -> &str {
    match text {
        "True" | "TRUE" => "true",
        "False" | "FALSE" => "false",
        _ => match text.strip_suffix(".0") {
            Some(whole) if !whole.is_empty() && whole.bytes().all(|byte| byte.is_ascii_digit()) => whole,
            _ => text,
        },
    }
}

/// Returns a number as people write it; true is 1 and false 0.
pub(super) fn parse_number(text: &str) -> Option<f64> {
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) if text.eq_ignore_ascii_case("true") => Some(1.0),
        Err(_) if text.eq_ignore_ascii_case("false") => Some(0.0),
        Err(_) => None,
    }
}

/// Returns the entries of a list that is written as JSON, where the text is one.
pub(super) fn json_list(text: &str) -> Option<Vec<Cow<'_, str>>> {
    if !text.starts_with('[') {
        return None;
    }
    let values: Vec<serde_json::Value> = serde_json::from_str(text).ok()?;
    let text_of = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    };
    Some(values.into_iter().map(|value| Cow::Owned(text_of(value))).collect())
}

/// Returns whether cells of this type are lists.
pub(super) fn is_list(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) | DataType::ListView(_)
    )
}

/// Returns the values of lists and where each row's begin; a null row has none.
fn unnest(array: &ArrayRef) -> std::result::Result<(ArrayRef, Option<Vec<usize>>), DataType> {
    if !is_list(array.data_type()) {
        return Ok((array.clone(), None));
    }
    let refused = || array.data_type().clone();
    let item = match array.data_type() {
        DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) => item.clone(),
        DataType::FixedSizeList(item, _) => item.clone(),
        _ => return Err(refused()),
    };
    let lists = cast(array, &DataType::LargeList(item)).map_err(|_| refused())?;
    let lists = lists.as_list_opt::<i64>().ok_or_else(refused)?;
    let offsets = lists.value_offsets();
    let (first, last) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
    let values = lists.values().slice(first, last - first);
    let mut ends: Vec<usize> = offsets.iter().map(|&offset| offset as usize - first).collect();
    if lists.null_count() > 0 {
        // A null list may have values behind it, which are nobody's: they are left out of the rows, not of the values.
        let ranges: Vec<(usize, usize)> = (0..lists.len())
            .map(|row| if lists.is_null(row) { (0, 0) } else { (ends[row], ends[row + 1]) })
            .collect();
        if ranges.iter().enumerate().any(|(row, range)| range.0 == range.1 && ends[row] != ends[row + 1]) {
            let kept: Vec<u64> = ranges.iter().flat_map(|&(start, end)| start as u64..end as u64).collect();
            let values = arrow::compute::take(&values, &arrow::array::UInt64Array::from(kept), None)
                .map_err(|_| refused())?;
            let mut end = 0;
            ends = std::iter::once(0)
                .chain(ranges.iter().map(|&(start, stop)| {
                    end += stop - start;
                    end
                }))
                .collect();
            return Ok((values, Some(ends)));
        }
    }
    Ok((values, Some(ends)))
}

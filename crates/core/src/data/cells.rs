//! One column of any Arrow type as ids, values or times.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, PrimitiveArray, StringArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, TimeUnit, UInt64Type};

use super::number::{parse_time, parse_value, time_of_float, time_of_integer};

/// A column in one of the few types that matter here.
pub(crate) enum Cells {
    Text(StringArray),
    Whole(PrimitiveArray<Int64Type>),
    /// Whole numbers that may be beyond i64.
    Large(PrimitiveArray<UInt64Type>),
    /// Single precision is kept apart: its shortest text is not that of the same number in double precision.
    Single(PrimitiveArray<Float32Type>),
    Double(Float64Array),
    /// Points in time, counted in so many parts of a second.
    Moments(PrimitiveArray<Int64Type>, i64),
}

impl Cells {
    /// Reads `column`, or returns its type where it is neither text nor numbers.
    pub(crate) fn new(column: ArrayRef) -> Result<Self, DataType> {
        let data_type = column.data_type().clone();
        let to = |wanted: &DataType| cast(&column, wanted).map_err(|_| data_type.clone());
        let whole = || Ok::<_, DataType>(to(&DataType::Int64)?.as_primitive::<Int64Type>().clone());
        Ok(match &data_type {
            DataType::Utf8 => Self::Text(column.as_string::<i32>().clone()),
            DataType::LargeUtf8 | DataType::Utf8View | DataType::Boolean | DataType::Null => {
                Self::Text(to(&DataType::Utf8)?.as_string::<i32>().clone())
            }
            DataType::Dictionary(_, values) => return Self::new(to(values)?),
            DataType::RunEndEncoded(_, values) => return Self::new(to(values.data_type())?),
            DataType::UInt64 => Self::Large(column.as_primitive::<UInt64Type>().clone()),
            other if other.is_integer() => Self::Whole(whole()?),
            DataType::Float16 | DataType::Float32 => {
                Self::Single(to(&DataType::Float32)?.as_primitive::<Float32Type>().clone())
            }
            DataType::Float64 => Self::Double(column.as_primitive::<Float64Type>().clone()),
            other if other.is_decimal() => {
                Self::Double(to(&DataType::Float64)?.as_primitive::<Float64Type>().clone())
            }
            DataType::Timestamp(unit, _) => {
                let parts = match unit {
                    TimeUnit::Second => 1,
                    TimeUnit::Millisecond => 1_000,
                    TimeUnit::Microsecond => 1_000_000,
                    TimeUnit::Nanosecond => 1_000_000_000,
                };
                Self::Moments(whole()?, parts)
            }
            DataType::Date32 | DataType::Date64 => {
                let millis =
                    cast(&to(&DataType::Date64)?, &DataType::Int64).map_err(|_| data_type.clone())?;
                Self::Moments(millis.as_primitive::<Int64Type>().clone(), 1_000)
            }
            _ => return Err(data_type),
        })
    }

    /// Returns the column as ids: text without blanks around it, empty where there is none.
    pub(crate) fn into_ids(self) -> StringArray {
        if let Self::Text(text) = self {
            let blank = |bytes: &[u8]| {
                bytes.first().is_some_and(|&byte| byte <= b' ')
                    || bytes.last().is_some_and(|&byte| byte <= b' ')
            };
            let (offsets, bytes) = (text.value_offsets(), text.value_data());
            let around = |ends: &[i32]| blank(&bytes[ends[0] as usize..ends[1] as usize]);
            if text.null_count() == 0 && !offsets.windows(2).any(around) {
                return text;
            }
            return text.iter().map(|id| Some(id.unwrap_or("").trim_ascii())).collect();
        }
        let mut ids = StringBuilder::new();
        for row in 0..self.len() {
            ids.append_value(self.text(row));
        }
        ids.finish()
    }

    /// Hands each row's number to `take`; nothing where there is none.
    pub(super) fn each_value(&self, mut take: impl FnMut(usize, Option<f32>)) {
        fn of<T: Copy>(
            values: impl Iterator<Item = Option<T>>,
            to: fn(T) -> f32,
            take: &mut impl FnMut(usize, Option<f32>),
        ) {
            values.enumerate().for_each(|(row, value)| take(row, value.map(to)));
        }
        match self {
            Self::Text(text) if text.null_count() == 0 => {
                (0..text.len()).for_each(|row| take(row, parse_value(text.value(row))));
            }
            Self::Text(text) => {
                text.iter().enumerate().for_each(|(row, text)| take(row, text.and_then(parse_value)));
            }
            Self::Whole(values) | Self::Moments(values, _) => {
                of(values.iter(), |value| value as f32, &mut take)
            }
            Self::Large(values) => of(values.iter(), |value| value as f32, &mut take),
            Self::Single(values) => of(values.iter(), |value| value, &mut take),
            Self::Double(values) => of(values.iter(), |value| value as f32, &mut take),
        }
    }

    /// Hands each row's time to `take`, in seconds since 1970; nothing where there is none.
    pub(crate) fn each_time(&self, mut take: impl FnMut(usize, Option<i64>)) {
        for row in 0..self.len() {
            let time = match self {
                _ if self.is_null(row) => None,
                Self::Text(text) => parse_time(text.value(row)),
                Self::Whole(values) => Some(time_of_integer(values.value(row))),
                Self::Large(values) => i64::try_from(values.value(row)).ok().map(time_of_integer),
                Self::Single(values) => time_of_float(f64::from(values.value(row))),
                Self::Double(values) => time_of_float(values.value(row)),
                Self::Moments(values, parts) => Some(values.value(row).div_euclid(*parts)),
            };
            take(row, time);
        }
    }

    /// Returns the text of a row, as a CSV file would have it.
    pub(crate) fn text(&self, row: usize) -> String {
        // A whole number that a data frame keeps as a fraction is the same id as without.
        let fraction = |value: f64, shortest: String| match value.fract() == 0.0 && value.abs() < 1e15 {
            true => (value as i64).to_string(),
            false if value.is_nan() => String::new(),
            false => shortest,
        };
        match self {
            _ if self.is_null(row) => String::new(),
            Self::Text(text) => text.value(row).to_owned(),
            Self::Whole(values) | Self::Moments(values, _) => values.value(row).to_string(),
            Self::Large(values) => values.value(row).to_string(),
            Self::Single(values) => {
                let value = values.value(row);
                fraction(f64::from(value), value.to_string())
            }
            Self::Double(values) => fraction(values.value(row), values.value(row).to_string()),
        }
    }

    /// Returns the text of a row without blanks around it, as [`Cells::text`]; what is no text yet is written to `buffer`.
    pub(crate) fn trimmed<'a>(&'a self, row: usize, buffer: &'a mut String) -> &'a str {
        match self {
            Self::Text(text) if text.is_null(row) => "",
            Self::Text(text) => text.value(row).trim_ascii(),
            Self::Whole(values) if !values.is_null(row) => {
                buffer.clear();
                // Writing to a string cannot fail.
                let _ = write!(buffer, "{}", values.value(row));
                buffer
            }
            _ => {
                *buffer = self.text(row);
                buffer
            }
        }
    }

    /// Returns the number in a row of a column that is not text; NaN where there is none, nothing where it is text.
    pub(crate) fn double(&self, row: usize) -> Option<f64> {
        Some(match self {
            Self::Text(_) => return None,
            _ if self.is_null(row) => f64::NAN,
            Self::Whole(values) => values.value(row) as f64,
            Self::Moments(values, parts) => values.value(row) as f64 / *parts as f64,
            Self::Large(values) => values.value(row) as f64,
            Self::Single(values) => f64::from(values.value(row)),
            Self::Double(values) => values.value(row),
        })
    }

    fn array(&self) -> &dyn Array {
        match self {
            Self::Text(values) => values,
            Self::Whole(values) | Self::Moments(values, _) => values,
            Self::Large(values) => values,
            Self::Single(values) => values,
            Self::Double(values) => values,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.array().len()
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.array().is_null(row)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array, Int8Array,
        LargeStringArray, ListArray, StringViewArray, TimestampMicrosecondArray, UInt64Array,
    };
    use arrow::datatypes::Int32Type;

    use super::*;

    fn ids(column: impl Array + 'static) -> Vec<String> {
        let ids = Cells::new(Arc::new(column)).unwrap().into_ids();
        (0..ids.len()).map(|row| ids.value(row).to_owned()).collect()
    }

    fn times(column: impl Array + 'static) -> Vec<Option<i64>> {
        let mut times = Vec::new();
        Cells::new(Arc::new(column)).unwrap().each_time(|_, time| times.push(time));
        times
    }

    #[test]
    fn ids_of_every_type_are_the_text_a_csv_file_would_have() {
        assert_eq!(ids(StringArray::from(vec![Some(" a "), None, Some("b c")])), ["a", "", "b c"]);
        assert_eq!(ids(LargeStringArray::from(vec!["a"])), ["a"]);
        assert_eq!(ids(StringViewArray::from(vec!["a"])), ["a"]);
        assert_eq!(ids(Int8Array::from(vec![-3])), ["-3"]);
        assert_eq!(ids(UInt64Array::from(vec![u64::MAX])), ["18446744073709551615"]);
        assert_eq!(
            ids(Float64Array::from(vec![Some(12.0), Some(0.5), Some(f64::NAN), None])),
            ["12", "0.5", "", ""]
        );
        assert_eq!(ids(Float32Array::from(vec![0.1])), ["0.1"]);
        let dictionary: DictionaryArray<Int32Type> = vec!["x", "y", "x"].into_iter().collect();
        assert_eq!(ids(dictionary), ["x", "y", "x"]);
        assert_eq!(ids(BooleanArray::from(vec![true])), ["true"]);
    }

    #[test]
    fn values_of_every_type_are_numbers() {
        let value = |column: ArrayRef| {
            let mut all = Vec::new();
            Cells::new(column).unwrap().each_value(|_, value| all.push(value));
            all[0]
        };
        assert_eq!(value(Arc::new(StringArray::from(vec!["2.5"]))), Some(2.5));
        assert_eq!(value(Arc::new(Int8Array::from(vec![-3]))), Some(-3.0));
        let decimal = Decimal128Array::from(vec![250]).with_precision_and_scale(5, 2).unwrap();
        assert_eq!(value(Arc::new(decimal)), Some(2.5));
        assert_eq!(value(Arc::new(Float64Array::from(vec![None]))), None);
    }

    #[test]
    fn times_of_every_type_are_seconds() {
        assert_eq!(times(TimestampMicrosecondArray::from(vec![Some(-1), None])), [Some(-1), None]);
        assert_eq!(times(Date32Array::from(vec![1])), [Some(86_400)]);
        assert_eq!(times(StringArray::from(vec!["1970-01-02", "x"])), [Some(86_400), None]);
        assert_eq!(times(UInt64Array::from(vec![5])), [Some(5)]);
        assert_eq!(times(Float64Array::from(vec![5.9, f64::NAN])), [Some(5), None]);
    }

    #[test]
    fn a_list_is_no_cell() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1)])]);
        assert!(Cells::new(Arc::new(list)).is_err());
    }
}

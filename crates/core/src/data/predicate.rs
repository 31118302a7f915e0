//! A choice among rows by their attributes, as in `genre = 'comedy' and year > 1990`.
//!
//! ```text
//! compare  =  !=  <>  <  <=  >  >=        a column with a text in '', a number, true, false or another column
//! one of   in (..)   not in (..)          between .. and ..
//! text     like  ilike                    % any text, _ one character; contains(column, 'text'): anywhere in it
//! missing  is null   is not null
//! joined   and  or  not  ( )
//! ```
//!
//! Names of columns are as in the table, else whatever their case. As in SQL a comparison with a missing value is neither
//! true nor false, and only rows for which the whole is true are chosen. `genre = 'comedy'` does not hold for
//! `comedy|drama`; `contains(genre, 'comedy')` does.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Datum, RecordBatch, Scalar, StringArray};
use arrow::compute::kernels::cmp;
use arrow::compute::{
    CastOptions, and_kleene, cast_with_options, ilike, is_not_null, is_null, like, not, or_kleene,
};
use arrow::datatypes::DataType;
use sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, UnaryOperator, Value,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;

use crate::{Error, Result};

/// The longest predicate in bytes.
const MAX_BYTES: usize = 1 << 14;

/// The deepest nesting; a chain of `and` or of `or` is one level.
const MAX_DEPTH: usize = 100;

/// A condition on the columns of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicate {
    text: String,
    condition: Expr,
}

impl FromStr for Predicate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = |what: String| Error::BadPredicate { predicate: text.to_owned(), what };
        if text.len() > MAX_BYTES {
            return Err(Error::BadPredicate {
                predicate: String::new(),
                what: format!("longer than {MAX_BYTES} bytes"),
            });
        }
        let mut parser =
            Parser::new(&GenericDialect {}).try_with_sql(text).map_err(|error| refused(error.to_string()))?;
        let condition = parser.parse_expr().map_err(|error| refused(error.to_string()))?;
        let rest = parser.peek_token().token;
        if rest != sqlparser::tokenizer::Token::EOF {
            return Err(refused(format!("expected `and`, `or` or the end, found `{rest}`")));
        }
        Ok(Self { text: text.to_owned(), condition })
    }
}

impl fmt::Display for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Predicate {
    /// Returns a bitmap of the rows that the condition is true for: row `i` is bit `i % 64` of word `i / 64`.
    ///
    /// # Errors
    /// [`Error::NoSuchColumn`], and [`Error::BadPredicate`] for what cannot be compared.
    pub fn evaluate(&self, table: &RecordBatch) -> Result<Arc<[u64]>> {
        let holds = Evaluation { predicate: self, table }.condition(&self.condition, MAX_DEPTH)?;
        let mut bitmap = vec![0u64; table.num_rows().div_ceil(64)];
        for row in (0..holds.len()).filter(|&row| holds.is_valid(row) && holds.value(row)) {
            bitmap[row / 64] |= 1 << (row % 64);
        }
        Ok(bitmap.into())
    }
}

/// One side of a comparison.
enum Operand {
    Column(ArrayRef),
    Text(String),
    Number(String),
    Boolean(bool),
}

struct Evaluation<'a> {
    predicate: &'a Predicate,
    table: &'a RecordBatch,
}

impl Evaluation<'_> {
    fn condition(&self, condition: &Expr, depth: usize) -> Result<BooleanArray> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(self.refused(format!("expected at most {MAX_DEPTH} levels of nesting")));
        };
        let negate =
            |holds: BooleanArray, negated: bool| if negated { self.arrow(not(&holds)) } else { Ok(holds) };
        match condition {
            Expr::Nested(inner) => self.condition(inner, depth),
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => negate(self.condition(expr, depth)?, true),
            Expr::BinaryOp { left, op: op @ (BinaryOperator::And | BinaryOperator::Or), right } => {
                let mut all = self.condition(right, depth)?;
                let mut rest = &**left;
                // A chain leans to the left, so it is walked rather than descended.
                while let Expr::BinaryOp { left, op: same, right } = rest
                    && same == op
                {
                    all = self.join(op, &self.condition(right, depth)?, &all)?;
                    rest = left;
                }
                self.join(op, &self.condition(rest, depth)?, &all)
            }
            Expr::BinaryOp { left, op, right } => {
                self.compare(&self.operand(left)?, op, &self.operand(right)?)
            }
            Expr::IsNull(column) => self.arrow(is_null(&self.column(column)?)),
            Expr::IsNotNull(column) => self.arrow(is_not_null(&self.column(column)?)),
            Expr::InList { expr, list, negated } => {
                let column = self.operand(expr)?;
                let mut any = BooleanArray::from(vec![false; self.table.num_rows()]);
                for one in list {
                    let equal = self.compare(&column, &BinaryOperator::Eq, &self.operand(one)?)?;
                    any = self.arrow(or_kleene(&any, &equal))?;
                }
                negate(any, *negated)
            }
            Expr::Between { expr, negated, low, high } => {
                let column = self.operand(expr)?;
                let above = self.compare(&column, &BinaryOperator::GtEq, &self.operand(low)?)?;
                let below = self.compare(&column, &BinaryOperator::LtEq, &self.operand(high)?)?;
                negate(self.arrow(and_kleene(&above, &below))?, *negated)
            }
            Expr::Like { negated, any: false, expr, pattern, escape_char: None } => {
                let (text, pattern) = (self.text_column(expr)?, self.pattern(pattern)?);
                negate(self.arrow(like(&text, &pattern))?, *negated)
            }
            Expr::ILike { negated, any: false, expr, pattern, escape_char: None } => {
                let (text, pattern) = (self.text_column(expr)?, self.pattern(pattern)?);
                negate(self.arrow(ilike(&text, &pattern))?, *negated)
            }
            Expr::Function(function) => self.contains(function),
            // A column of true and false is a condition by itself.
            Expr::Identifier(_) => {
                let column = self.column(condition)?;
                match column.data_type() {
                    DataType::Boolean => Ok(BooleanArray::from(column.to_data())),
                    _ => Err(self.refused(format!("expected a comparison, found `{condition}`"))),
                }
            }
            other => Err(self.refused(format!("expected a comparison, found `{other}`"))),
        }
    }

    fn join(&self, op: &BinaryOperator, left: &BooleanArray, right: &BooleanArray) -> Result<BooleanArray> {
        self.arrow(match op {
            BinaryOperator::And => and_kleene(left, right),
            _ => or_kleene(left, right),
        })
    }

    fn operand(&self, operand: &Expr) -> Result<Operand> {
        match operand {
            Expr::Nested(inner) => self.operand(inner),
            Expr::Identifier(_) => Ok(Operand::Column(self.column(operand)?)),
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match self.operand(expr)? {
                Operand::Number(number) => Ok(Operand::Number(format!("-{number}"))),
                _ => Err(self.refused(format!("expected a number, found `{operand}`"))),
            },
            Expr::Value(value) => match &value.value {
                Value::SingleQuotedString(text) => Ok(Operand::Text(text.clone())),
                Value::Number(number, _) => Ok(Operand::Number(number.clone())),
                Value::Boolean(value) => Ok(Operand::Boolean(*value)),
                Value::Null => Err(self.refused("expected a value, found `null`: use `is null`".to_owned())),
                other => {
                    Err(self
                        .refused(format!("expected a text in '', a number, true or false, found `{other}`")))
                }
            },
            other => Err(self.refused(format!("expected a column or a value, found `{other}`"))),
        }
    }

    fn column(&self, column: &Expr) -> Result<ArrayRef> {
        let Expr::Identifier(name) = column else {
            return Err(self.refused(format!("expected a column, found `{column}`")));
        };
        let schema = self.table.schema();
        let names = || schema.fields().iter().map(|field| field.name());
        let exact = names().position(|known| *known == name.value);
        let any_case = || names().position(|known| known.to_lowercase() == name.value.to_lowercase());
        let at = exact.or_else(any_case).ok_or_else(|| Error::NoSuchColumn {
            path: self.predicate.text.clone(),
            column: name.value.clone(),
            known: names().map(String::as_str).collect::<Vec<_>>().join(", "),
        })?;
        let column = self.table.column(at);
        match column.data_type() {
            DataType::Dictionary(_, values) => self.cast(column, values),
            _ => Ok(column.clone()),
        }
    }

    fn compare(&self, left: &Operand, op: &BinaryOperator, right: &Operand) -> Result<BooleanArray> {
        let (left, right) = match (left, right) {
            (Operand::Column(a), Operand::Column(b)) => self.same_type(a, b)?,
            (Operand::Column(column), value) => self.with_value(column, value)?,
            (value, Operand::Column(column)) => {
                let (column, value) = self.with_value(column, value)?;
                (value, column)
            }
            _ => return Err(self.refused("expected a column in each comparison, found none".to_owned())),
        };
        let (left, right) = (left.datum(), right.datum());
        self.arrow(match op {
            BinaryOperator::Eq => cmp::eq(left, right),
            BinaryOperator::NotEq => cmp::neq(left, right),
            BinaryOperator::Lt => cmp::lt(left, right),
            BinaryOperator::LtEq => cmp::lt_eq(left, right),
            BinaryOperator::Gt => cmp::gt(left, right),
            BinaryOperator::GtEq => cmp::gt_eq(left, right),
            other => return Err(self.refused(format!("expected a comparison, found `{other}`"))),
        })
    }

    /// Brings two columns to one type.
    fn same_type(&self, a: &ArrayRef, b: &ArrayRef) -> Result<(Side, Side)> {
        let common = match (a.data_type(), b.data_type()) {
            (a, b) if a == b => a.clone(),
            (a, b) if a.is_numeric() && b.is_numeric() => DataType::Float64,
            _ => DataType::Utf8,
        };
        Ok((Side::All(self.cast(a, &common)?), Side::All(self.cast(b, &common)?)))
    }

    /// Brings a column and a value to one type: the column's, but a number with a fraction makes whole numbers fractions.
    fn with_value(&self, column: &ArrayRef, value: &Operand) -> Result<(Side, Side)> {
        let (text, kind) = match value {
            Operand::Text(text) => (text.clone(), "text"),
            Operand::Number(number) => (number.clone(), "number"),
            Operand::Boolean(value) => (value.to_string(), "truth value"),
            Operand::Column(_) => return Err(self.refused("expected a value, found a column".to_owned())),
        };
        let data_type = column.data_type();
        let is_text = matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        if is_text && kind != "text" {
            return Err(self
                .refused(format!("expected a text in '' to compare text with, found the {kind} `{text}`")));
        }
        let common = match data_type {
            whole if whole.is_integer() && text.parse::<i64>().is_err() => DataType::Float64,
            DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
            other => other.clone(),
        };
        let column = self.cast(column, &common)?;
        let one: ArrayRef = Arc::new(StringArray::from(vec![text.as_str()]));
        let one = cast_with_options(&one, &common, &STRICT)
            .map_err(|_| self.refused(format!("expected a value of type {common}, found `{text}`")))?;
        Ok((Side::All(column), Side::One(Scalar::new(one))))
    }

    fn contains(&self, function: &Function) -> Result<BooleanArray> {
        let expected = || self.refused(format!("expected contains(column, 'text'), found `{function}`"));
        if !function.name.to_string().eq_ignore_ascii_case("contains") {
            return Err(expected());
        }
        let FunctionArguments::List(list) = &function.args else { return Err(expected()) };
        let [
            FunctionArg::Unnamed(FunctionArgExpr::Expr(column)),
            FunctionArg::Unnamed(FunctionArgExpr::Expr(part)),
        ] = &list.args[..]
        else {
            return Err(expected());
        };
        let part = self.pattern(part)?;
        self.arrow(arrow::compute::contains(&self.text_column(column)?, &part))
    }

    fn text_column(&self, column: &Expr) -> Result<ArrayRef> {
        self.cast(&self.column(column)?, &DataType::Utf8)
    }

    fn pattern(&self, pattern: &Expr) -> Result<Scalar<StringArray>> {
        match self.operand(pattern)? {
            Operand::Text(text) => Ok(Scalar::new(StringArray::from(vec![text]))),
            _ => Err(self.refused(format!("expected a text in '', found `{pattern}`"))),
        }
    }

    fn cast(&self, column: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
        self.arrow(cast_with_options(column, to, &STRICT))
    }

    fn arrow<T>(&self, result: std::result::Result<T, arrow::error::ArrowError>) -> Result<T> {
        result.map_err(|error| self.refused(error.to_string()))
    }

    fn refused(&self, what: String) -> Error {
        Error::BadPredicate { predicate: self.predicate.text.clone(), what }
    }
}

/// A cell that cannot be converted is an error and not a missing value.
const STRICT: CastOptions<'static> =
    CastOptions { safe: false, format_options: arrow::util::display::FormatOptions::new() };

/// A column, or one value for all rows.
enum Side {
    All(ArrayRef),
    One(Scalar<ArrayRef>),
}

impl Side {
    fn datum(&self) -> &dyn Datum {
        match self {
            Self::All(column) => column,
            Self::One(value) => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Date32Array, Float64Array, Int64Array};

    fn table() -> RecordBatch {
        let text = |values: [Option<&str>; 4]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
        RecordBatch::try_from_iter([
            ("genre", text([Some("comedy"), Some("drama"), Some("comedy|drama"), None])),
            ("year", Arc::new(Int64Array::from(vec![Some(1990), Some(1999), None, Some(2005)])) as ArrayRef),
            ("price", Arc::new(Float64Array::from(vec![1.0, 2.5, 3.0, 4.0])) as ArrayRef),
            ("adult", Arc::new(BooleanArray::from(vec![true, false, false, true])) as ArrayRef),
            ("released", Arc::new(Date32Array::from(vec![0, 10_000, 10_001, 20_000])) as ArrayRef),
        ])
        .unwrap()
    }

    fn rows(text: &str) -> Result<Vec<usize>> {
        let bitmap = text.parse::<Predicate>()?.evaluate(&table())?;
        Ok((0..4).filter(|row| bitmap[0] >> row & 1 == 1).collect())
    }

    #[test]
    fn conditions_choose_rows() {
        for (text, expected) in [
            ("genre = 'comedy'", vec![0]),
            ("Genre = 'comedy' and YEAR > 1989", vec![0]),
            ("genre != 'comedy'", vec![1, 2]),
            ("contains(genre, 'comedy')", vec![0, 2]),
            ("genre like '%drama'", vec![1, 2]),
            ("genre not like 'c%'", vec![1]),
            ("genre ilike 'COMEDY%'", vec![0, 2]),
            ("genre in ('drama', 'horror')", vec![1]),
            ("genre not in ('drama')", vec![0, 2]),
            ("year between 1990 and 1999", vec![0, 1]),
            ("year not between 1990 and 1999", vec![3]),
            ("year is null", vec![2]),
            ("year is not null", vec![0, 1, 3]),
            ("year > 1998.5", vec![1, 3]),
            ("1999 <= year", vec![1, 3]),
            ("price >= 3", vec![2, 3]),
            ("price < -1", vec![]),
            ("price < year", vec![0, 1, 3]),
            ("not (year > 1995 or genre = 'comedy')", vec![]),
            ("not adult", vec![1, 2]),
            ("adult = true", vec![0, 3]),
            ("released > '1997-05-19'", vec![2, 3]),
            ("year = '1999'", vec![1]),
            ("\"genre\" = 'drama'", vec![1]),
        ] {
            assert_eq!(rows(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_compared_is_told() {
        for (text, expected) in [
            ("gnre = 'comedy'", "no column `gnre` among `genre, year, price, adult, released`"),
            ("genre = comedy", "no column `comedy` among"),
            ("genre = 3", "expected a text in '' to compare text with, found the number `3`"),
            ("year > 'soon'", "expected a value of type Float64, found `soon`"),
            ("year", "expected a comparison, found `year`"),
            ("year = null", "use `is null`"),
            ("year > 1990 genre", "expected `and`, `or` or the end, found `genre`"),
            ("year + 1 > 3", "expected a column or a value, found `year + 1`"),
            ("1 = 1", "expected a column in each comparison"),
            ("lower(genre) = 'x'", "expected a column or a value"),
            ("startswith(genre, 'x')", "expected contains(column, 'text')"),
            ("", "Expected"),
            ("year >", "Expected"),
        ] {
            let told = rows(text).unwrap_err().to_string();
            assert!(told.contains(expected), "{text}: {told}");
        }
    }

    #[test]
    fn depth_and_length_are_bounded() {
        for depth in [200, 5_000] {
            assert!(rows(&format!("{}year > 1{}", "(".repeat(depth), ")".repeat(depth))).is_err());
            assert!(rows(&format!("{}year > 1", "not ".repeat(depth / 2))).is_err());
        }
        assert!(rows(&format!("genre = '{}'", "x".repeat(MAX_BYTES))).is_err());
        let long = vec!["year > 1"; 1_000].join(" or ");
        assert_eq!(rows(&long).unwrap(), [0, 1, 3]);
    }
}

//! What is known of all users, or of all items, besides their interactions, as features.
//!
//! The rows are those of a table of [`crate::data::Attributes`]: its first column is the id, from which nothing is learned, and row `i` is that of
//! index `i`. Nothing in it is a label.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};

use super::{
    ColumnKind, Encoding, FeatureBatch, Features, FitReport, Guess, SchemaOptions, TransformReport, infer,
};
use crate::{
    Error, Result,
    data::{BadRow, Cells, Lines, MemorySource, OnBadRow, ReadOptions, Rows, Sources},
};

/// How the columns become features, and the features of every row.
#[derive(Clone, Debug)]
pub struct Described {
    features: Arc<Features>,
    rows: FeatureBatch,
    unseen: Vec<u64>,
}

impl Described {
    /// Guesses what each column of `table` is and fits it to the rows; says what it guessed. Nothing where no column says anything of its
    /// rows, such as where there are titles alone.
    ///
    /// `what` names the table in messages.
    ///
    /// # Errors
    /// [`crate::Error::BadAttribute`] and [`crate::Error::BadFile`] for a cell or a column that cannot be read.
    pub fn fit(table: &RecordBatch, what: &str) -> Result<(Option<Self>, Vec<Guess>)> {
        let read = ReadOptions::default();
        let source = || {
            let source = MemorySource::new(what, table.schema(), vec![table.clone()]);
            Sources::of(vec![Box::new(source)])
        };
        let id = table.schema().fields().first().map(|field| field.name().clone());
        let options = SchemaOptions { ignore: id.into_iter().collect(), ..SchemaOptions::default() };
        let (mut schema, mut report) = infer::guess(source(), &read, &options)?;
        for (column, guess) in schema.columns.iter_mut().zip(&mut report.guesses) {
            if column.kind == ColumnKind::Label {
                column.kind = ColumnKind::Categorical(Encoding::default());
                column.kind.name().clone_into(&mut guess.kind);
                "0 and 1 alone".clone_into(&mut guess.why);
            }
        }
        // The id is first, and no guess.
        let guesses = report.guesses.split_off(report.guesses.len().min(1));
        if !schema.columns.iter().any(|column| column.kind.is_feature()) {
            return Ok((None, guesses));
        }
        schema.validate()?;
        let fitted = Features::fit_columns(&schema, source(), &read);
        let (features, _): (_, FitReport) = fitted.map_err(|error| named(error, table))?;
        Ok((Some(Self::of(Arc::new(features), table, what)?), guesses))
    }

    /// Makes features of other rows, as was fitted: of more users or items, or of new ones.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchColumn`] when `table` lacks one; [`crate::Error::BadAttribute`].
    pub fn of(features: Arc<Features>, table: &RecordBatch, what: &str) -> Result<Self> {
        let mut rows = FeatureBatch::default();
        let taken = Rows { batch: table.clone(), lines: Lines::from(1), bad: Vec::new() };
        let mut report = TransformReport::new(OnBadRow::Fail);
        let transformed = features.transform(&taken, what, &mut rows, &mut report);
        transformed.map_err(|error| named(error, table))?;
        Ok(Self { features, rows, unseen: report.unseen })
    }

    /// Returns how the columns become features.
    pub fn features(&self) -> &Arc<Features> {
        &self.features
    }

    /// Returns how many values of each categorical column are none of those that were fitted, where some are.
    pub fn unseen(&self) -> impl Iterator<Item = (&str, u64)> {
        let fields = self.features.fields().iter().zip(&self.unseen);
        fields.filter(|&(_, &n)| n > 0).map(|(field, &n)| (field.name(), n))
    }

    /// Returns the features of every row.
    pub fn rows(&self) -> &FeatureBatch {
        &self.rows
    }
}

/// The same error, which names the id where it named a row of the table.
fn named(error: Error, table: &RecordBatch) -> Error {
    let Error::BadRow(bad) = error else { return error };
    let at = usize::try_from(bad.line).unwrap_or(0).wrapping_sub(1);
    let ids = table.columns().first().and_then(|column| Cells::new(column.clone()).ok());
    let ids = ids.map(Cells::into_ids).filter(|ids| at < ids.len());
    let Some(ids) = ids else { return Error::BadRow(bad) };
    let BadRow { path, column, expected, found, .. } = *bad;
    let column = column.unwrap_or_default();
    Error::BadAttribute { what: path, id: ids.value(at).to_owned(), column, expected, found }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Float64Array, StringArray};

    use super::*;

    fn table(genres: Vec<Option<&str>>, prices: Vec<Option<f64>>, target: Vec<&str>) -> RecordBatch {
        let ids: Vec<String> = (0..genres.len()).map(|id| format!("i{id}")).collect();
        RecordBatch::try_from_iter([
            ("item", Arc::new(StringArray::from(ids)) as ArrayRef),
            ("genres", Arc::new(StringArray::from(genres)) as ArrayRef),
            ("price", Arc::new(Float64Array::from(prices)) as ArrayRef),
            ("target", Arc::new(StringArray::from(target)) as ArrayRef),
        ])
        .unwrap()
    }

    #[test]
    fn columns_become_fields_whatever_their_name_and_others_follow_what_was_fitted() {
        let genres = vec![Some("a|b"), Some("b"), None, Some("a"), Some("a|b")];
        let prices = vec![Some(1.0), Some(2.0), None, Some(4.0), Some(1.0)];
        let fitted = table(genres, prices, vec!["0", "1", "0", "1", "1"]);
        let (described, guesses) = Described::fit(&fitted, "items").unwrap();
        let kinds: Vec<_> =
            guesses.iter().map(|guess| (guess.column.as_str(), guess.kind.as_str())).collect();
        assert_eq!(kinds, [("genres", "bag"), ("price", "numeric"), ("target", "categorical")]);
        let described = described.unwrap();
        let genres = &described.rows().fields[0];
        assert_eq!(
            (&genres.indices[..], genres.offsets.as_deref()),
            (&[1, 2, 2, 1, 1, 2][..], Some(&[0, 2, 3, 3, 4, 6][..]))
        );

        let new = table(vec![Some("c"), Some("b")], vec![Some(4.0), None], vec!["1", "7"]);
        let new = Described::of(Arc::clone(described.features()), &new, "items").unwrap();
        assert_eq!(new.rows().fields[0].indices, [0, 2]);
        assert_eq!(new.unseen().collect::<Vec<_>>(), [("genres", 1), ("target", 1)]);
        assert_eq!(new.rows().fields[1].indices[1], 0, "no price");
        assert_eq!(new.rows().fields[2].indices, [2, 0]);

        let mut some = FeatureBatch::default();
        described.rows().gather(&[4, 2, 0], &mut some);
        assert_eq!(some.fields[0].offsets.as_deref(), Some(&[0, 2, 2, 4][..]));
        assert_eq!(some.fields[2].indices, [2, 1, 1]);
        assert_eq!(some.numeric[0], described.rows().numeric[4]);
    }

    #[test]
    fn a_bad_value_is_named_by_whose_it_is() {
        let fitted = table(vec![Some("a"), None], vec![Some(1.0), Some(2.0)], vec!["0", "1"]);
        let features = Described::fit(&fitted, "items").unwrap().0.unwrap().features;
        let bad = table(vec![None, None], vec![Some(3.0), Some(f64::INFINITY)], vec!["0", "1"]);
        let error = Described::of(features, &bad, "new items").unwrap_err();
        assert!(error.to_string().starts_with("new items: `i1`: column price: expected"), "{error}");
    }

    #[test]
    fn titles_alone_say_nothing() {
        let ids: Vec<String> = (0..200).map(|id| format!("t{id}")).collect();
        let column = || Arc::new(StringArray::from(ids.clone())) as ArrayRef;
        let titles = RecordBatch::try_from_iter([("item", column()), ("title", column())]).unwrap();
        let (described, guesses) = Described::fit(&titles, "items").unwrap();
        assert!(described.is_none());
        assert_eq!(guesses[0].kind, "ignore");
    }
}

//! What is known of all users, or of all items, besides their interactions, as features.
//!
//! The rows are those of a table of [`crate::data::Attributes`]: its first column is the id, from which nothing is learned, and row `i` is that of
//! index `i`. Nothing in it is a label.

use std::sync::Arc;

use arrow::{
    array::{Array, BooleanArray, RecordBatch, UInt32Array},
    compute::{filter_record_batch, take_record_batch},
    datatypes::Schema,
    error::ArrowError,
};

use super::{
    ColumnKind, Encoding, FeatureBatch, Features, FitReport, Guess, SchemaOptions, TransformReport, infer,
};
use crate::{
    Error, Result,
    data::{BadRow, BadRows, Cells, Lines, MemorySource, OnBadRow, ReadOptions, Rows, Sources},
    fingerprint::Fingerprint,
};

/// How the columns become features, and the features of every row.
#[derive(Clone, Debug)]
pub struct Described {
    features: Arc<Features>,
    rows: FeatureBatch,
    unseen: Vec<u64>,
    left_out: Vec<u32>,
    bad_rows: Vec<BadRows>,
}

impl Described {
    /// Guesses what each column of `table` is and fits it to the rows; says what it guessed. Nothing where no column says anything of its
    /// rows, such as where there are titles alone.
    ///
    /// `what` names the table in messages; `on_bad_row` is as for [`Described::of`].
    ///
    /// # Errors
    /// [`Error::BadRow`] and [`Error::BadFile`] for a cell or a column that cannot be read; [`Error::RepeatedColumn`].
    pub fn fit(table: &RecordBatch, what: &str, on_bad_row: OnBadRow) -> Result<(Option<Self>, Vec<Guess>)> {
        let read = ReadOptions { on_bad_row, ..ReadOptions::default() };
        // What nothing is known of says nothing of what a column is.
        let known = with_a_value(table, what)?;
        if known.num_rows() == 0 {
            return Ok((None, Vec::new()));
        }
        let source = || {
            let source = MemorySource::new(what, table.schema(), vec![known.clone()]);
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
        let (features, _): (_, FitReport) = fitted.map_err(|error| whose(error, &known))?;
        Ok((Some(Self::of(Arc::new(features), table, what, on_bad_row)?), guesses))
    }

    /// Makes features of other rows, as was fitted: of more users or items, or of new ones.
    ///
    /// A bad row that is left out by `on_bad_row` is one of which nothing is known, so that the others keep their places.
    ///
    /// # Errors
    /// [`Error::NoSuchColumn`] when `table` lacks one; [`Error::BadRow`], which says whose row it is.
    pub fn of(
        features: Arc<Features>,
        table: &RecordBatch,
        what: &str,
        on_bad_row: OnBadRow,
    ) -> Result<Self> {
        let mut taken = Rows { batch: table.clone(), lines: Lines::from(1), bad: Vec::new() };
        let (mut left_out, mut bad_rows) = (Vec::new(), Vec::new());
        if on_bad_row == OnBadRow::Skip {
            for bad in features.bad_rows(&taken, what)? {
                left_out.push((bad.line - 1) as u32);
                BadRows::count(&mut bad_rows, &named(bad, table));
            }
            taken.batch = without(table, &left_out, what)?;
        }
        let (mut rows, mut report) = (FeatureBatch::default(), TransformReport::new(OnBadRow::Fail));
        let transformed = features.transform(&taken, what, &mut rows, &mut report);
        transformed.map_err(|error| whose(error, table))?;
        Ok(Self { features, rows, unseen: report.unseen, left_out, bad_rows })
    }

    /// Returns SHA-256 over how the columns become features and the features of every row, in hexadecimal: equal for equal tables only.
    pub fn fingerprint(&self) -> String {
        let mut all = Fingerprint::default();
        all.add("features", &serde_json::to_vec(&*self.features).unwrap_or_default());
        for field in &self.rows.fields {
            all.add("indices", bytemuck::cast_slice(&field.indices));
            all.add("offsets", field.offsets.as_deref().map_or(&[][..], bytemuck::cast_slice));
        }
        all.add("numbers", bytemuck::cast_slice(&self.rows.numeric));
        all.finish()
    }

    /// Returns the rows that were left out as bad, ascending.
    pub fn left_out(&self) -> &[u32] {
        &self.left_out
    }

    /// Returns how many were left out, by kind.
    pub fn bad_rows(&self) -> &[BadRows] {
        &self.bad_rows
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

/// The same error, which says whose row it is.
fn whose(error: Error, table: &RecordBatch) -> Error {
    match error {
        Error::BadRow(bad) => Error::BadRow(Box::new(named(*bad, table))),
        other => other,
    }
}

/// The same bad row of `table`, with the id that is its first column.
fn named(bad: BadRow, table: &RecordBatch) -> BadRow {
    let at = usize::try_from(bad.line).unwrap_or(0).wrapping_sub(1);
    let ids = table.columns().first().and_then(|column| Cells::new(column.clone()).ok());
    let ids = ids.map(Cells::into_ids).filter(|ids| at < ids.len());
    BadRow { id: ids.map(|ids| ids.value(at).to_owned()), ..bad }
}

/// Returns the rows that have a value besides the id.
fn with_a_value(table: &RecordBatch, what: &str) -> Result<RecordBatch> {
    let refused = |error: ArrowError| Error::BadFile { path: what.to_owned(), what: error.to_string() };
    let columns = table.columns().iter().skip(1);
    let has_a_value = |row: usize| columns.clone().any(|column| column.is_valid(row));
    let kept: BooleanArray = (0..table.num_rows()).map(|row| Some(has_a_value(row))).collect();
    filter_record_batch(table, &kept).map_err(refused)
}

/// Returns the table with nothing in some of its rows.
fn without(table: &RecordBatch, rows: &[u32], what: &str) -> Result<RecordBatch> {
    if rows.is_empty() {
        return Ok(table.clone());
    }
    let refused = |error: ArrowError| Error::BadFile { path: what.to_owned(), what: error.to_string() };
    let schema = table.schema();
    let nullable = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let nullable = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
    let table = RecordBatch::try_new(nullable, table.columns().to_vec()).map_err(refused)?;
    let kept = (0..table.num_rows() as u32).map(|row| rows.binary_search(&row).is_err().then_some(row));
    take_record_batch(&table, &kept.collect::<UInt32Array>()).map_err(refused)
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
        let (described, guesses) = Described::fit(&fitted, "items", OnBadRow::Fail).unwrap();
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
        let new = Described::of(Arc::clone(described.features()), &new, "items", OnBadRow::Fail).unwrap();
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
        let features = Described::fit(&fitted, "items", OnBadRow::Fail).unwrap().0.unwrap().features;
        let bad = table(vec![None, Some("a")], vec![Some(3.0), Some(f64::INFINITY)], vec!["0", "1"]);
        let error = Described::of(features.clone(), &bad, "new items", OnBadRow::Fail).unwrap_err();
        let told = "new items: `i1`: column `price`: expected a number from -3.4e38 to 3.4e38, found `inf`";
        assert_eq!(error.to_string(), told);
        let skipped = Described::of(features, &bad, "new items", OnBadRow::Skip).unwrap();
        assert_eq!((skipped.rows().rows, skipped.left_out()), (2, &[1][..]), "others keep their places");
        assert_eq!(
            (skipped.bad_rows()[0].rows, skipped.bad_rows()[0].first.to_string()),
            (1, told.to_owned())
        );
        let genres = &skipped.rows().fields[0].indices;
        assert_eq!((genres.len(), genres[0]), (2, genres[1]), "nothing is known of it");
    }

    #[test]
    fn titles_alone_say_nothing_also_where_an_item_has_none() {
        let ids: Vec<Option<String>> = (0..200).map(|id| Some(format!("t{id}"))).collect();
        for missing in [None, Some(7)] {
            let mut titles = ids.clone();
            missing.into_iter().for_each(|at: usize| titles[at] = None);
            let column = |texts: &[Option<String>]| Arc::new(StringArray::from(texts.to_vec())) as ArrayRef;
            let titles = [("item", column(&ids)), ("title", column(&titles))];
            let titles =
                RecordBatch::try_from_iter_with_nullable(titles.map(|(name, column)| (name, column, true)))
                    .unwrap();
            let (described, guesses) = Described::fit(&titles, "items", OnBadRow::Fail).unwrap();
            assert!(described.is_none());
            assert_eq!(guesses[0].kind, "ignore");
        }
    }
}

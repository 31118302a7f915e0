//! `recmill predict` with a model that tells what texts are about.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, Float32Array, RecordBatch, StringArray, UInt64Array},
    datatypes::{DataType, Field, Schema},
};
use recmill_core::{
    data::ReadOptions,
    features::LabelUse,
    text::{TextClassifier, TextReader, TextRows},
};

use super::predict_rows::{Scores, failed};
use crate::{
    failure::Result,
    output::{count, counted, note},
    texts::{explain, tell_of_bad_rows},
};

/// Texts to be told apart.
pub(super) struct TextScorer<'a> {
    classifier: TextClassifier,
    files: &'a [String],
    read: &'a ReadOptions,
    columns: Arc<Schema>,
}

impl<'a> TextScorer<'a> {
    pub(super) fn new(classifier: TextClassifier, files: &'a [String], read: &'a ReadOptions) -> Self {
        let columns = Arc::new(Schema::new(vec![
            Field::new("line", DataType::UInt64, false),
            Field::new("prediction", DataType::Utf8, false),
            Field::new("probability", DataType::Float32, false),
            Field::new("in_scope", DataType::Boolean, false),
        ]));
        Self { classifier, files, read, columns }
    }
}

impl Scores for TextScorer<'_> {
    fn columns(&self) -> &Arc<Schema> {
        &self.columns
    }

    fn score(&self, each: &mut dyn FnMut(&RecordBatch) -> Result<()>) -> Result<()> {
        let classes = self.classifier.classes();
        let reader = TextReader::open(&classes.columns, self.files, self.read, LabelUse::Ignored);
        let mut reader = reader.map_err(explain)?;
        let (mut rows, mut texts, mut rejected) = (TextRows::default(), 0u64, 0u64);
        while reader.next_rows(&mut rows).map_err(explain)? {
            let guesses = self.classifier.guess(&rows.texts)?;
            texts += guesses.len() as u64;
            rejected += guesses.iter().filter(|guess| !guess.in_scope).count() as u64;
            let names = guesses.iter().map(|guess| classes.names[guess.class].as_str());
            let columns: Vec<ArrayRef> = vec![
                Arc::new(UInt64Array::from(rows.lines.clone())),
                Arc::new(StringArray::from_iter_values(names)),
                Arc::new(Float32Array::from_iter_values(guesses.iter().map(|guess| guess.probability))),
                Arc::new(BooleanArray::from_iter(guesses.iter().map(|guess| Some(guess.in_scope)))),
            ];
            each(&RecordBatch::try_new(self.columns.clone(), columns).map_err(failed)?)?;
        }
        tell_of_bad_rows(reader.bad_rows(), self.files);
        note!("told {} apart, {} out of scope", counted(texts, "text"), count(rejected));
        Ok(())
    }
}

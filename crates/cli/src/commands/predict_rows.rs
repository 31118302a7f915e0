//! `recmill predict` with a model that scores rows of features.

use std::{io::Write, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, Float32Array, RecordBatch, UInt64Array},
    csv,
    datatypes::{DataType, Field, Schema},
    json,
};
use parquet::arrow::ArrowWriter;
use recmill_core::{
    data::ReadOptions,
    directory::{ModelDirectory, replace_file},
    features::{FeatureBatch, FeatureReader, LabelUse},
    rankers::Ranker,
};
use serde_json::json;

use crate::{
    failure::{Failure, Result},
    output::{Out, counted, note, stdout_is_terminal},
    ranking::{explain, tell_of_losses},
    user_lists::{ListFormat, ListOutput},
};

/// Rows to be scored by a model.
pub(super) trait Scores {
    /// The columns that come out.
    fn columns(&self) -> &Arc<Schema>;

    /// Scores all rows and gives them on, block by block.
    fn score(&self, each: &mut dyn FnMut(&RecordBatch) -> Result<()>) -> Result<()>;
}

/// Scores rows and writes them where `output` says, or as one JSON object.
pub(super) fn run(
    directory: &ModelDirectory,
    scorer: &dyn Scores,
    output: Option<&ListOutput>,
    as_json: bool,
) -> Result<()> {
    let on_stdout = ListOutput { path: None, format: ListFormat::Csv };
    let ListOutput { path, format } = output.unwrap_or(&on_stdout);
    if as_json {
        let mut objects = Vec::new();
        scorer.score(&mut |batch| {
            let mut lines = Vec::new();
            write_json(&mut lines, batch)?;
            let parsed = serde_json::Deserializer::from_slice(&lines).into_iter::<serde_json::Value>();
            for object in parsed {
                objects.push(object.map_err(|error| Failure::failed(error.to_string()))?);
            }
            Ok(())
        })?;
        let mut out = Out::new();
        out.json(&json!({"predictions": objects, "model_version": directory.version()}))?;
        return out.finish();
    }
    match path {
        None if *format == ListFormat::Parquet && stdout_is_terminal() => {
            Err(Failure::usage("parquet is not for terminals").hint("write a file: --output scores.parquet"))
        }
        None => write(Out::new(), scorer, *format)?.finish(),
        Some(path) => write_file(path, |out| write(out, scorer, *format).map(drop)),
    }
}

/// Writes a file that appears whole or not at all.
fn write_file(path: &Path, work: impl FnOnce(&mut (dyn Write + Send)) -> Result<()>) -> Result<()> {
    let mut failure = None;
    let written = replace_file(path, |mut out| {
        work(&mut out).map_err(|error| {
            failure = Some(error);
            std::io::Error::other("the scores could not be written").into()
        })
    });
    match failure {
        Some(failure) => Err(failure),
        None => {
            written?;
            note!("wrote {}", path.display());
            Ok(())
        }
    }
}

fn write<W: Write + Send>(mut out: W, scorer: &dyn Scores, format: ListFormat) -> Result<W> {
    match format {
        ListFormat::Csv => {
            let mut head = true;
            let mut write = |batch: &RecordBatch| {
                let mut writer = csv::WriterBuilder::new().with_header(head).build(&mut out);
                head = false;
                writer.write(batch).map_err(failed)
            };
            scorer.score(&mut write)?;
            // The names of the columns are written also where there is no row.
            if head {
                let mut writer = csv::WriterBuilder::new().with_header(true).build(&mut out);
                writer.write(&RecordBatch::new_empty(scorer.columns().clone())).map_err(failed)?;
            }
            Ok(out)
        }
        ListFormat::Jsonl => {
            scorer.score(&mut |batch| write_json(&mut out, batch))?;
            Ok(out)
        }
        ListFormat::Parquet => {
            let mut writer = ArrowWriter::try_new(out, scorer.columns().clone(), None).map_err(failed)?;
            scorer.score(&mut |batch| writer.write(batch).map_err(failed))?;
            writer.into_inner().map_err(failed)
        }
    }
}

fn write_json(out: &mut impl Write, batch: &RecordBatch) -> Result<()> {
    let mut writer = json::LineDelimitedWriter::new(out);
    writer.write(batch).map_err(failed)?;
    writer.finish().map_err(failed)
}

pub(super) fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(error.to_string())
}

/// Rows of features to be scored by a ranker.
pub(super) struct RowScorer<'a> {
    ranker: Ranker,
    files: &'a [String],
    read: &'a ReadOptions,
    /// `line` and a prediction for each label.
    columns: Arc<Schema>,
}

impl<'a> RowScorer<'a> {
    pub(super) fn new(ranker: Ranker, files: &'a [String], read: &'a ReadOptions) -> Self {
        let labels = ranker.features().labels();
        let prediction = |label: &String| match labels.len() {
            1 => Field::new("prediction", DataType::Float32, false),
            _ => Field::new(format!("prediction_{label}"), DataType::Float32, false),
        };
        let line = Field::new("line", DataType::UInt64, false);
        let columns: Vec<Field> = std::iter::once(line).chain(labels.iter().map(prediction)).collect();
        Self { columns: Arc::new(Schema::new(columns)), ranker, files, read }
    }
}

impl Scores for RowScorer<'_> {
    fn columns(&self) -> &Arc<Schema> {
        &self.columns
    }

    fn score(&self, each: &mut dyn FnMut(&RecordBatch) -> Result<()>) -> Result<()> {
        let features = self.ranker.features();
        let explained = |error| explain(error, features);
        let reader = FeatureReader::open(features, self.files, self.read, LabelUse::Ignored);
        let mut reader = reader.map_err(explained)?;
        let n_labels = features.labels().len();
        let (mut batch, mut scores, mut rows) = (FeatureBatch::default(), Vec::new(), 0);
        while reader.next_batch(&mut batch).map_err(explained)? {
            self.ranker.score(&batch, &mut scores)?;
            rows += batch.rows as u64;
            let mut columns: Vec<ArrayRef> = vec![Arc::new(UInt64Array::from(batch.lines.clone()))];
            for label in 0..n_labels {
                let of_label = scores.iter().skip(label).step_by(n_labels).copied();
                columns.push(Arc::new(Float32Array::from_iter_values(of_label)));
            }
            each(&RecordBatch::try_new(self.columns.clone(), columns).map_err(failed)?)?;
        }
        tell_of_losses(features, reader.report(), self.files);
        note!("scored {}", counted(rows, "row"));
        Ok(())
    }
}

//! `recmill predict` with a model that scores rows of features.

use std::{io::Write, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, Float32Array, RecordBatch, UInt64Array},
    csv, json,
};
use parquet::arrow::ArrowWriter;
use recmill_core::{
    data::ReadOptions,
    directory::{ModelDirectory, replace_file},
    features::{FeatureBatch, FeatureReader, LabelUse},
};
use serde_json::json;

use crate::{
    failure::{Failure, Result},
    output::{Out, counted, note, stdout_is_terminal},
    ranking::tell_of_losses,
    user_lists::{ListFormat, ListOutput},
};

/// Scores the rows of `files` and writes them where `output` says, or as one JSON object.
pub(super) fn run(
    directory: &ModelDirectory,
    files: &[String],
    read: &ReadOptions,
    output: Option<&ListOutput>,
    as_json: bool,
) -> Result<()> {
    let on_stdout = ListOutput { path: None, format: ListFormat::Csv };
    let ListOutput { path, format } = output.unwrap_or(&on_stdout);
    if as_json {
        let mut objects = Vec::new();
        score(directory, files, read, |batch| {
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
        None => write(directory, files, read, Out::new(), *format)?.finish(),
        Some(path) => write_file(path, |out| write(directory, files, read, out, *format).map(drop)),
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

fn write<W: Write + Send>(
    directory: &ModelDirectory,
    files: &[String],
    read: &ReadOptions,
    out: W,
    format: ListFormat,
) -> Result<W> {
    let mut out = out;
    match format {
        ListFormat::Csv => {
            let mut head = true;
            score(directory, files, read, |batch| {
                let mut writer = csv::WriterBuilder::new().with_header(head).build(&mut out);
                head = false;
                writer.write(batch).map_err(failed)
            })?;
            Ok(out)
        }
        ListFormat::Jsonl => {
            score(directory, files, read, |batch| write_json(&mut out, batch))?;
            Ok(out)
        }
        ListFormat::Parquet => {
            // Begun with the first block, where the columns are known.
            let (mut unused, mut writer) = (Some(out), None);
            score(directory, files, read, |batch| {
                if let Some(out) = unused.take() {
                    writer = Some(ArrowWriter::try_new(out, batch.schema(), None).map_err(failed)?);
                }
                writer.as_mut().map_or(Ok(()), |writer| writer.write(batch)).map_err(failed)
            })?;
            match (writer, unused) {
                (Some(writer), _) => writer.into_inner().map_err(failed),
                (None, Some(out)) => Ok(out),
                (None, None) => Err(Failure::failed("the scores could not be written")),
            }
        }
    }
}

fn write_json(out: &mut impl Write, batch: &RecordBatch) -> Result<()> {
    let mut writer = json::LineDelimitedWriter::new(out);
    writer.write(batch).map_err(failed)?;
    writer.finish().map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(error.to_string())
}

/// Scores all rows and gives them on, block by block.
fn score(
    directory: &ModelDirectory,
    files: &[String],
    read: &ReadOptions,
    mut each: impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    let ranker = directory.ranker()?;
    let labels = ranker.features().labels().to_vec();
    let mut reader = FeatureReader::open(ranker.features(), files, read, LabelUse::Ignored)?;
    let (mut batch, mut scores, mut rows) = (FeatureBatch::default(), Vec::new(), 0);
    while reader.next_batch(&mut batch)? {
        ranker.score(&batch, &mut scores)?;
        rows += batch.rows as u64;
        let mut columns: Vec<(String, ArrayRef)> =
            vec![("line".to_owned(), Arc::new(UInt64Array::from(batch.lines.clone())))];
        for (at, label) in labels.iter().enumerate() {
            let of_label: Float32Array =
                scores.iter().skip(at).step_by(labels.len()).copied().map(Some).collect();
            let name =
                if labels.len() == 1 { "prediction".to_owned() } else { format!("prediction_{label}") };
            columns.push((name, Arc::new(of_label)));
        }
        each(&RecordBatch::try_from_iter(columns).map_err(failed)?)?;
    }
    tell_of_losses(ranker.features(), reader.report(), files);
    note!("scored {}", counted(rows, "row"));
    Ok(())
}

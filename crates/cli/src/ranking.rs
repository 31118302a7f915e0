//! What commands do with models that score rows: read rows, measure scores, tell.

use std::{collections::BTreeMap, io::Write, path::Path};

use recmill_core::{
    Error as Core,
    data::{BadRowKind, BadRows, ReadOptions},
    directory::ModelDirectory,
    features::{Examples, FeatureBatch, FeatureReader, Features, LabelUse, TransformReport},
    rankers::{Measured, Measuring, Ranker},
    text::TextConfig,
};
use recmill_kernels::Device;

use crate::{
    arguments::Given,
    device_flag::DeviceFlag,
    failure::{Failure, Result},
    feature_flags::NO_ROWS,
    output::{self, Out, count, counted, note, warning},
    progress::Bar,
};

/// Transformed rows beyond this many bytes go to a temporary file.
const SPILL_OVER_BYTES: u64 = 4 << 30;

/// The flags that say how interactions are read, by the names of their fields.
pub(crate) const INTERACTION_FLAGS: [&str; 12] = [
    "user_column",
    "item_column",
    "value_column",
    "time_column",
    "event_column",
    "event_weights",
    "half_life",
    "repeats",
    "min_user_interactions",
    "min_item_interactions",
    "min_rating",
    "allow_negative",
];

/// Opens the ranker of `directory` where `flag` says, and tells where that is and why.
pub(crate) fn open(directory: &ModelDirectory, flag: DeviceFlag) -> Result<(Ranker, Device)> {
    let (device, why) = flag.choose()?;
    if flag == DeviceFlag::Auto {
        note!("{why}");
    }
    let mut ranker = directory.ranker()?;
    ranker.score_on(device)?;
    Ok((ranker, device))
}

/// What an error of reading rows for a model with `features` means to whoever named the file.
pub(crate) fn explain(error: Core, features: &Features) -> Failure {
    let message = error.to_string();
    match error {
        Core::EmptyFile { .. } | Core::NoRows { .. } => Failure::failed(message).hint(NO_ROWS),
        Core::NoSuchColumn { column, .. } if features.schema().column(&column).is_some() => {
            let is_used = |column: &&recmill_core::features::FeatureColumn| {
                column.kind.is_feature() || features.labels().contains(&column.name)
            };
            let used: Vec<&str> =
                features.schema().columns.iter().filter(is_used).map(|column| column.name.as_str()).collect();
            Failure::failed(message).hint(format!("the model's columns are {}", used.join(", ")))
        }
        Core::BadRow(row) if row.kind == BadRowKind::BadLabel => {
            Failure::failed(message).hint("--on-bad-row skip leaves such rows out and counts them")
        }
        error => error.into(),
    }
}

/// Refuses flags that were typed and mean nothing to a model of rows.
pub(crate) fn refuse_flags(kind: &str, flags: &[&str], given: &Given) -> Result<()> {
    match flags.iter().find(|flag| given.has(flag)) {
        Some(flag) => {
            let flag = flag.replace('_', "-");
            let does = if kind == TextConfig::NAME {
                "tells what texts are about"
            } else {
                "scores rows of features"
            };
            Err(Failure::usage(format!("--{flag} is for models of users and items; {kind} {does}")))
        }
        None => Ok(()),
    }
}

/// Whether `input` can be read only once: standard input, or a pipe such as a shell's `<(command)`.
pub(crate) fn is_read_once(input: &str) -> bool {
    let is_stream = |path: &Path| fs_err::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir());
    input == "-" || is_stream(Path::new(input))
}

/// Reads the first rows of `files`, so that what is wrong with their columns is found before hours of work.
pub(crate) fn look_at(features: &Features, files: &[String], read: &ReadOptions) -> Result<()> {
    if files.is_empty() || files.iter().any(|file| is_read_once(file)) {
        return Ok(());
    }
    let first = || -> recmill_core::Result<()> {
        let mut reader = FeatureReader::open(features, files, read, LabelUse::Required)?;
        match reader.next_batch(&mut FeatureBatch::default())? {
            true => Ok(()),
            false => Err(Core::NoRows { path: files.join(", ") }),
        }
    };
    first().map_err(|error| explain(error, features))
}

/// Reads rows to learn from or to validate on.
pub(crate) fn read_examples(
    features: &Features,
    files: &[String],
    read: &ReadOptions,
) -> Result<(Examples, TransformReport)> {
    let bar = Bar::spinner("reading");
    let read = Examples::read(features, files, read, SPILL_OVER_BYTES);
    drop(bar);
    read.map_err(|error| explain(error, features))
}

/// Scores the rows of `files` and compares the scores with their labels.
pub(crate) fn measure(ranker: &Ranker, files: &[String], read: &ReadOptions) -> Result<Measured> {
    let features = ranker.features();
    let measured = scored(ranker, files, read)?.finish().map_err(|error| explain(error, features))?;
    tell_of_undefined(features, &measured);
    Ok(measured)
}

/// Scores the rows of `files`, and gathers the scores with their labels.
pub(crate) fn scored(ranker: &Ranker, files: &[String], read: &ReadOptions) -> Result<Measuring> {
    let features = ranker.features();
    let bar = Bar::spinner("evaluating");
    let all = || -> recmill_core::Result<(Measuring, TransformReport)> {
        let mut reader = FeatureReader::open(features, files, read, LabelUse::Required)?;
        let (mut batch, mut scores) = (FeatureBatch::default(), Vec::new());
        let mut measuring = Measuring::new(features.labels());
        while reader.next_batch(&mut batch)? {
            ranker.score(&batch, &mut scores)?;
            measuring.add(&scores, &batch);
        }
        match reader.report().rows {
            0 => Err(BadRows::nothing_left(&reader.report().bad_rows, files.join(", "))),
            _ => Ok((measuring, reader.report().clone())),
        }
    };
    let scored = all();
    drop(bar);
    let (measuring, report) = scored.map_err(|error| explain(error, features))?;
    tell_of_losses(features, &report, files);
    Ok(measuring)
}

/// Prints what was measured as a table.
pub(crate) fn print(out: &mut Out, name: &str, metrics: &BTreeMap<String, f64>) -> Result<()> {
    let rows: Vec<Vec<String>> =
        metrics.iter().map(|(metric, value)| vec![metric.clone(), format!("{value:.5}")]).collect();
    output::columns(out, &["metric", name], &rows)?;
    out.flush()?;
    Ok(())
}

/// Tells which rankings could not be measured, and why.
fn tell_of_undefined(features: &Features, measured: &Measured) {
    let labels = features.labels();
    let name = |metric: &str, label: &str| match labels.len() {
        1 => metric.to_owned(),
        _ => format!("{metric}/{label}"),
    };
    for label in labels {
        if !measured.metrics.contains_key(&name("auc", label)) {
            note!("label `{label}` is the same in all rows, so there is no auc");
        } else if let Some(group) = &features.schema().group
            && !measured.metrics.contains_key(&name("gauc", label))
        {
            note!("label `{label}` is the same in all rows of each `{group}`, so there is no gauc");
        }
    }
}

/// Tells what was not as training knew it.
pub(crate) fn tell_of_losses(features: &Features, report: &TransformReport, files: &[String]) {
    let files = files.join(", ");
    tell_of_bad_rows(report, &files);
    if let Some((values, most)) = unseen(features, report) {
        note!("{files}: {values} that the model does not know{most}");
    }
    tell_of_missing(features, report, &files);
}

/// Tells what is missing or rare in the rows that the features were fitted to.
pub(crate) fn tell_of_rare(features: &Features, report: &TransformReport, files: &[String]) {
    if let Some((values, most)) = unseen(features, report) {
        note!("rarer than --min-count, so without a table row of their own: {values}{most}");
    }
    tell_of_missing(features, report, &files.join(", "));
}

fn tell_of_bad_rows(report: &TransformReport, files: &str) {
    for bad in &report.bad_rows {
        warning!("{files}: skipped {} ({}), first {}", counted(bad.rows, "bad row"), bad.kind, bad.first);
    }
}

/// Counts the category values without a table row, and names the field that has most of them.
fn unseen(features: &Features, report: &TransformReport) -> Option<(String, String)> {
    let all: u64 = report.unseen.iter().sum();
    // Of equal ones the first.
    let most = report.unseen.iter().zip(features.fields()).rev().max_by_key(|(n, _)| **n);
    let (&most, field) = most.filter(|_| all > 0)?;
    Some((counted(all, "category value"), format!(", {} of `{}`", count(most), field.name())))
}

fn tell_of_missing(features: &Features, report: &TransformReport, files: &str) {
    for (&n, field) in report.missing_numbers.iter().zip(features.numeric()).filter(|(n, _)| **n > 0) {
        note!("{files}: {} without `{}`, which took its default", counted(n, "row"), field.name());
    }
}

//! What commands do with models that score rows: read rows, measure scores, tell.

use std::io::Write;

use recmill_core::{
    data::ReadOptions,
    features::{FeatureBatch, FeatureReader, Features, LabelUse, TransformReport},
    rankers::{Measured, Measuring, Ranker},
};

use crate::{
    failure::Result,
    output::{self, Out, count, counted, note, warning},
    progress::Bar,
};

/// Scores the rows of `files` and compares the scores with their labels.
pub(crate) fn measure(ranker: &Ranker, files: &[String], read: &ReadOptions) -> Result<Measured> {
    let bar = Bar::spinner("evaluating");
    let mut reader = FeatureReader::open(ranker.features(), files, read, LabelUse::Required)?;
    let (mut batch, mut scores) = (FeatureBatch::default(), Vec::new());
    let mut measuring = Measuring::new(ranker.features().labels());
    while reader.next_batch(&mut batch)? {
        ranker.score(&batch, &mut scores)?;
        measuring.add(&scores, &batch);
    }
    drop(bar);
    tell_of_losses(ranker.features(), reader.report(), files);
    Ok(measuring.finish()?)
}

/// Prints what was measured as a table.
pub(crate) fn print(out: &mut Out, name: &str, measured: &Measured) -> Result<()> {
    let rows: Vec<Vec<String>> =
        measured.metrics.iter().map(|(metric, value)| vec![metric.clone(), format!("{value:.5}")]).collect();
    output::columns(out, &["metric", name], &rows)?;
    out.flush()?;
    Ok(())
}

/// Tells what was not as training knew it.
pub(crate) fn tell_of_losses(features: &Features, report: &TransformReport, files: &[String]) {
    let files = files.join(", ");
    for bad in &report.bad_rows {
        warning!("{files}: skipped {} ({}), first {}", counted(bad.rows, "bad row"), bad.kind, bad.first);
    }
    let unseen: u64 = report.unseen.iter().sum();
    if unseen > 0 {
        let most = report.unseen.iter().zip(features.fields()).max_by_key(|(n, _)| **n);
        let most =
            most.map(|(n, field)| format!(", {} of `{}`", count(*n), field.name())).unwrap_or_default();
        note!("{files}: {} that training did not have{most}", counted(unseen, "category value"));
    }
    for (&n, field) in report.missing_numbers.iter().zip(features.numeric()).filter(|(n, _)| **n > 0) {
        note!("{files}: {} without `{}`, which took its default", counted(n, "row"), field.name());
    }
}

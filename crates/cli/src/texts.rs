//! What commands do with models that tell what texts are about: open one, measure it, tell.

use recmill_core::{
    Error as Core,
    data::{BadRows, ReadOptions},
    directory::ModelDirectory,
    features::LabelUse,
    text::{TextClassifier, TextColumns, TextMeasured, TextMeasuring, TextReader, TextRows},
};
use recmill_kernels::Device;

use crate::{
    device_flag::DeviceFlag,
    failure::{Failure, Result},
    feature_flags::NO_ROWS,
    output::{counted, note, warning},
    progress::Bar,
    ranking::is_read_once,
};

/// Returns where texts are learned from or scored: on a GPU only where one is named, since the steps are too small for it to pay.
pub(crate) fn device(flag: DeviceFlag) -> Result<Device> {
    match flag {
        DeviceFlag::Auto => Ok(Device::Cpu),
        DeviceFlag::Only(_) => flag.resolve(),
    }
}

/// Opens the classifier of `directory` where `flag` says, with the threshold that was asked for.
pub(crate) fn open(
    directory: &ModelDirectory,
    flag: DeviceFlag,
    threshold: Option<f32>,
) -> Result<TextClassifier> {
    let mut classifier = directory.text_classifier()?;
    if let Some(threshold) = threshold {
        let set = classifier.set_threshold(threshold);
        set.map_err(|error| Failure::usage(format!("--{error}, not `{threshold}`")))?;
    }
    classifier.score_on(device(flag)?)?;
    Ok(classifier)
}

/// Guesses what the texts of `files` are about and compares that with their labels.
pub(crate) fn measure(
    classifier: &TextClassifier,
    files: &[String],
    read: &ReadOptions,
) -> Result<TextMeasured> {
    let bar = Bar::spinner("evaluating");
    let all = || -> recmill_core::Result<(TextMeasured, Vec<BadRows>)> {
        let columns = &classifier.classes().columns;
        let mut reader = TextReader::open(columns, files, read, LabelUse::Required)?;
        let (mut rows, mut probabilities) = (TextRows::default(), Vec::new());
        let mut measuring = TextMeasuring::new(classifier);
        while reader.next_rows(&mut rows)? {
            classifier.probabilities(&rows.texts, &mut probabilities)?;
            measuring.add(&probabilities, &rows.labels);
        }
        let measured = measuring.finish();
        match measured.in_scope + measured.out_of_scope {
            0 => Err(BadRows::nothing_left(reader.bad_rows(), files.join(", "))),
            _ => Ok((measured, reader.bad_rows().to_vec())),
        }
    };
    let measured = all();
    drop(bar);
    let (measured, bad) = measured.map_err(explain)?;
    tell_of_bad_rows(&bad, files);
    if measured.unknown > 0 {
        note!(
            "{}: {} with a label that is no class of the model, which are wrong in every metric but logloss and out_of_scope_recall; those out of scope are labelled `{}`",
            files.join(", "),
            counted(measured.unknown, "text"),
            classifier.config().out_of_scope
        );
    }
    Ok(measured)
}

/// Reads the first rows of `files`, so that what is wrong with their columns is found before training.
pub(crate) fn look_at(columns: &TextColumns, files: &[String], read: &ReadOptions) -> Result<()> {
    if files.is_empty() || files.iter().any(|file| is_read_once(file)) {
        return Ok(());
    }
    let first = || match TextReader::open(columns, files, read, LabelUse::Required)?
        .next_rows(&mut TextRows::default())?
    {
        true => Ok(()),
        false => Err(Core::NoRows { path: files.join(", ") }),
    };
    first().map_err(explain)
}

/// What an error of reading texts means to whoever named the file.
pub(crate) fn explain(error: Core) -> Failure {
    let message = error.to_string();
    match error {
        Core::EmptyFile { .. } | Core::NoRows { .. } => Failure::failed(message).hint(NO_ROWS),
        Core::NoSuchColumn { .. } => Failure::failed(message).hint(
            "in training --text-column and --label-column name the columns; a model asks for the same ones",
        ),
        Core::BadRow(_) => {
            Failure::failed(message).hint("--on-bad-row skip leaves such rows out and counts them")
        }
        error => error.into(),
    }
}

/// Tells which rows were left out.
pub(crate) fn tell_of_bad_rows(bad: &[BadRows], files: &[String]) {
    for bad in bad {
        let (rows, files) = (counted(bad.rows, "bad row"), files.join(", "));
        warning!("{files}: skipped {rows} ({}), first {}", bad.kind, bad.first);
    }
}

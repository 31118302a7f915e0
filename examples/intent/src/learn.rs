//! From messages to a classifier in a model directory, and back.

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use recmill::{
    data::ReadOptions,
    directory::{Config, Epoch, ModelDirectory, Saved, Verify, save},
    kernels::Device,
    text::{TextClassifier, TextColumns, TextConfig, TextRows, read_texts},
    train::gradient::{Descent, SomeTexts, TextTraining},
};

use crate::failure::{Failure, Result};

/// The label of messages that are about nothing the assistant can do.
pub(crate) const OUT_OF_SCOPE: &str = "oos";

/// A message, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) text: String,
    pub(crate) intent: String,
}

/// The files of a data set: the part and, where it has one, a file of messages out of scope beside it.
pub(crate) fn files(folder: &Path, part: &str) -> Vec<String> {
    let both = [format!("{part}.csv"), format!("oos_{part}.csv")].map(|name| folder.join(name));
    let is_there = |path: &&PathBuf| path == &&both[0] || path.is_file();
    both.iter().filter(is_there).map(|path| path.display().to_string()).collect()
}

/// Reads the messages of files with the columns `text` and `label`.
pub(crate) fn read(files: &[String]) -> Result<TextRows> {
    Ok(read_texts(&columns(), files, &ReadOptions::default())?.0)
}

/// Writes messages as such a file.
pub(crate) fn write(path: &Path, messages: &[Message]) -> Result<()> {
    let failed = |source| Failure::Csv { path: path.to_owned(), source };
    let mut writer = csv::Writer::from_path(path).map_err(failed)?;
    writer.write_record(["text", "label"]).map_err(failed)?;
    for message in messages {
        writer.write_record([&message.text, &message.intent]).map_err(failed)?;
    }
    Ok(writer.flush()?)
}

fn columns() -> TextColumns {
    TextColumns { text: "text".to_owned(), label: "label".to_owned() }
}

/// Trains on `train`, keeps the epoch that is best on `valid`, chooses the threshold there, and writes the model.
pub(crate) fn train(train: &TextRows, valid: &TextRows, seed: u64, model: &Path) -> Result<Descent> {
    let config = TextConfig { out_of_scope: OUT_OF_SCOPE.to_owned(), ..TextConfig::default() };
    let training = TextTraining {
        config: &config,
        columns: &columns(),
        train: SomeTexts { rows: train, which: None },
        valid: Some(SomeTexts { rows: valid, which: None }),
        seed,
        metric: "accuracy",
        patience: None,
        device: Device::Cpu,
    };
    let (classifier, descent) = training.run(&AtomicBool::new(false), &mut ())?;
    let about = Config { model: config.to_json()?, objective: config.objective(), seed, ..Config::default() };
    let epochs: Vec<Epoch> = descent.epochs.iter().map(Epoch::from).collect();
    save(model, &Saved::text(&about, classifier.classes(), &classifier.parameters()?, &epochs), 1)?;
    Ok(descent)
}

/// Opens a model directory as a server would.
pub(crate) fn open(model: &Path) -> Result<TextClassifier> {
    Ok(ModelDirectory::open(model, Verify::Full)?.text_classifier()?)
}

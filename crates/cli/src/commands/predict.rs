//! `recmill predict`: the score of each row of a file, or the value that each user would give each item.

use std::path::PathBuf;

use clap::Args;
use recmill_core::{
    data::{InteractionReader, Repeats},
    directory::{ModelDirectory, Verify},
};
use serde::Serialize;

use crate::{
    arguments::Given,
    commands::{
        predict_rows::{self, RowScorer},
        predict_text::TextScorer,
    },
    device_flag::DeviceFlag,
    failure::{Failure, Result},
    model::Model,
    output::{Out, counted, note},
    ranking::{self, INTERACTION_FLAGS, refuse_flags},
    read_flags::ReadFlags,
    reading::not_an_input,
    texts,
    user_lists::ListOutput,
};

/// Arguments of `recmill predict`.
#[derive(Args)]
#[command(
    after_help = "A model that scores rows of features prints line,prediction: the line of the file, and the probability \
    that the label is 1; with several labels a column for each. Labels need not be in the file.\n\n\
    A model that tells what texts are about prints line,prediction,probability,in_scope: the most likely class, how likely it is, \
    and whether that is enough.\n\n\
    A model that predicts values prints CSV: user_id,item_id,prediction,known. `known` says whether the model knows the user and \
    the item: both, user, item or none; what it does not know is predicted from the rest.\n\n\
    Example: recmill predict model rows.csv > predictions.csv"
)]
pub(crate) struct Predict {
    /// Model directory, or one of its versions such as model/versions/7.
    model: PathBuf,
    /// Rows with features, with a text, or with a user and an item: files, patterns, URLs, or - for standard input.
    #[arg(required = true)]
    rows: Vec<String>,
    /// Where to compute: auto, cpu, cuda, cuda:N, wgpu or wgpu:N.
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceFlag::Auto)]
    device: DeviceFlag,
    /// Where the scores of rows go: a file that ends in .csv, .jsonl or .parquet, or one of these words for standard
    /// output [default: csv].
    #[arg(long, short, value_name = "FILE", conflicts_with = "json")]
    output: Option<ListOutput>,
    /// For texts: the least probability of a text that is in scope [default: as training chose it].
    #[arg(long, value_name = "PROBABILITY")]
    threshold: Option<f32>,
    /// Prints one JSON object for all rows; for files that fit into memory.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reading: ReadFlags,
}

impl Predict {
    /// Runs the command.
    pub(crate) fn run(self, given: &Given) -> Result<()> {
        let output = self.output.as_ref().and_then(|output| output.path.as_deref());
        not_an_input(output, self.rows.iter().map(String::as_str))?;
        let directory = ModelDirectory::open(&self.model, Verify::Quick)?;
        if self.threshold.is_some() && !directory.is_text() {
            return Err(Failure::usage("--threshold is for models that tell what texts are about"));
        }
        if directory.is_ranker() {
            refuse_flags(directory.kind(), &INTERACTION_FLAGS, given)?;
            let read = self.reading.options(Repeats::Last);
            let (ranker, _) = ranking::open(&directory, self.device)?;
            let scorer = RowScorer::new(ranker, &self.rows, &read);
            return predict_rows::run(&directory, &scorer, self.output.as_ref(), self.json);
        }
        if directory.is_text() {
            refuse_flags(directory.kind(), &INTERACTION_FLAGS, given)?;
            let read = self.reading.options(Repeats::Last);
            let classifier = texts::open(&directory, self.device, self.threshold)?;
            let scorer = TextScorer::new(classifier, &self.rows, &read);
            return predict_rows::run(&directory, &scorer, self.output.as_ref(), self.json);
        }
        self.device.resolve_for("predicting values")?;
        if self.output.is_some() {
            return Err(Failure::usage("--output is for models that score rows of features")
                .hint("this one predicts pairs of a user and an item; redirect standard output"));
        }
        let model = Model::open(&self.model)?;
        let recommender = &model.recommender;
        if !recommender.predict(&[], &mut Vec::new())? {
            return Err(Failure::usage(format!("{} models rank items and predict no values", model.kind()))
                .hint("`recmill train svd` makes one that predicts ratings, `recmill train deepfm` one that scores rows; `recmill recommend` ranks"));
        }
        let mut rows = InteractionReader::open(&self.rows, &self.reading.options(Repeats::Last))?;
        let mut writer = (!self.json).then(|| csv::Writer::from_writer(Out::new()));
        if let Some(writer) = &mut writer {
            write(writer, ["user_id", "item_id", "prediction", "known"])?;
        }
        let (mut predictions, mut objects, mut n_rows) = (Vec::new(), Vec::new(), 0u64);
        while let Some(block) = rows.next_block()? {
            let pairs: Vec<(&str, &str)> = block.iter().map(|row| (row.user, row.item)).collect();
            recommender.predict(&pairs, &mut predictions)?;
            n_rows += pairs.len() as u64;
            for (&(user, item), prediction) in pairs.iter().zip(&predictions) {
                let known = match (recommender.users().index(user), recommender.items().index(item)) {
                    (Some(_), Some(_)) => "both",
                    (Some(_), None) => "user",
                    (None, Some(_)) => "item",
                    (None, None) => "none",
                };
                match &mut writer {
                    Some(writer) => write(writer, [user, item, &prediction.to_string(), known])?,
                    None => objects.push(Prediction {
                        user_id: user.to_owned(),
                        item_id: item.to_owned(),
                        prediction: *prediction,
                        known,
                    }),
                }
            }
        }
        let mut out = match writer {
            Some(writer) => writer.into_inner().map_err(|error| Failure::from(error.into_error()))?,
            None => Out::new(),
        };
        if self.json {
            out.json(&Predictions { predictions: objects, model_version: model.directory.version() })?;
        }
        out.finish()?;
        for bad in &rows.report().bad_rows {
            note!("skipped {} ({}), first {}", counted(bad.rows, "bad row"), bad.kind, bad.first);
        }
        note!("predicted {}", counted(n_rows, "row"));
        Ok(())
    }
}

fn write(writer: &mut csv::Writer<Out>, cells: [&str; 4]) -> Result<()> {
    writer.write_record(cells).map_err(|error| match error.into_kind() {
        csv::ErrorKind::Io(error) => error.into(),
        other => Failure::failed(format!("{other:?}")),
    })
}

/// One row of the JSON object.
#[derive(Serialize)]
struct Prediction {
    user_id: String,
    item_id: String,
    prediction: f32,
    known: &'static str,
}

/// The JSON object.
#[derive(Serialize)]
struct Predictions<'a> {
    predictions: Vec<Prediction>,
    model_version: &'a str,
}

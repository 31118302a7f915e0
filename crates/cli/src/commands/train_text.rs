//! `recmill train text`: from texts with a label to a model that tells what a text is about.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Args;
use recmill_core::{
    data::ReadOptions,
    directory::{self, Config, Epoch, Saved},
    features::holdout,
    text::{TextColumns, TextConfig, TextRows, find_text_columns, read_texts},
};
use recmill_train::{
    Ended,
    gradient::{SomeTexts, TextTraining},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    arguments::Given,
    commands::{
        ranker_checks::Asked,
        train::folder_bytes,
        train_flags::{TrainingFlags, join, one_or_many, versions_kept},
        watch::{Watch, tell_of_ending},
    },
    device_flag::DeviceFlag,
    failure::{Failure, Result},
    feature_flags::FileFlags,
    interrupt,
    model::check_destination,
    output::{Out, bytes, count, counted, note, seconds, warning},
    progress::Bar,
    ranking, texts,
};

/// The metrics that decide which epoch is kept.
const METRICS: [&str; 2] = ["accuracy", "logloss"];

/// Arguments of `recmill train text`.
#[derive(Args)]
#[command(
    after_help = "A text is taken apart into words, runs of words and runs of characters; each has a weight for each class. What is \
    less likely than a threshold is out of scope: about none of the classes. The threshold is chosen on the texts to validate on, \
    by those among them that are labelled oos (--out-of-scope).\n\n\
    Example: recmill train text messages.csv out_of_scope.csv --label-column intent --out model"
)]
pub(crate) struct OneText {
    #[command(flatten)]
    flags: TextFlags,
    #[command(flatten, next_help_heading = "Model")]
    config: TextConfig,
}

/// What the training can be told beside its hyper-parameters.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TextFlags {
    /// Texts with a label: files, directories, patterns such as 'data/*.csv', or URLs.
    #[arg(required_unless_present = "config")]
    #[serde(deserialize_with = "one_or_many")]
    data: Vec<String>,
    /// Model directory to write; one that exists gets another version.
    #[arg(long, short, value_name = "DIRECTORY", required_unless_present_any = ["config", "dry_run"])]
    out: Option<PathBuf>,
    /// Texts to validate on after each epoch, and to choose temperature and threshold on [default: a part of the texts].
    #[arg(long, value_name = "FILE")]
    #[serde(deserialize_with = "one_or_many")]
    valid: Vec<String>,
    /// Without --valid: the share of the texts, chosen by the seed, that is validated on and not learned from; 0 for none.
    #[arg(long, value_name = "SHARE", default_value_t = share(), conflicts_with = "valid")]
    #[serde(default = "share")]
    holdout: f64,
    /// Trains once more on all texts, for as many epochs as were best without the held-out ones; temperature and threshold stay.
    #[arg(long)]
    refit: bool,
    /// Metric that decides which epoch is the best: accuracy or logloss.
    #[arg(long, value_name = "METRIC", default_value_t = metric())]
    #[serde(default = "metric")]
    valid_metric: String,
    /// Stops after this many epochs without a better metric; 0 goes through all epochs.
    #[arg(long, value_name = "EPOCHS", default_value_t = 0)]
    patience: u32,
    /// Texts to evaluate the finished model on.
    #[arg(long, value_name = "FILE")]
    #[serde(deserialize_with = "one_or_many")]
    test: Vec<String>,
    /// Versions to keep in the model directory; older ones are removed.
    #[arg(long, value_name = "N", default_value_t = versions_kept())]
    #[serde(default = "versions_kept")]
    keep: usize,
    /// Where to compute: auto, cpu, cuda, cuda:N, wgpu or wgpu:N. auto is the CPU: the steps are too small for a GPU to pay.
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceFlag::Auto)]
    device: DeviceFlag,
    /// Seed of all that is drawn at random; the same seed gives the same parameters, byte for byte.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// TOML file with any of these flags and the hyper-parameters; what is typed here goes first.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Reads and checks everything and says what would be trained, but trains and writes nothing.
    #[arg(long)]
    #[serde(skip)]
    dry_run: bool,
    /// Prints one JSON object when done.
    #[arg(long)]
    #[serde(skip)]
    json: bool,
    /// Column with the text [default: text, message, utterance, sentence, query ...].
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    text_column: Option<String>,
    /// Column with what the text is about [default: label, intent, class, category ...].
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    label_column: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    reading: FileFlags,
}

fn share() -> f64 {
    0.1
}

fn metric() -> String {
    METRICS[0].to_owned()
}

impl TrainingFlags for TextFlags {
    const EXAMPLE: &str = "messages.csv";

    fn file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    fn take_transient(&mut self, typed: &Self) {
        (self.config, self.dry_run, self.json) = (typed.config.clone(), typed.dry_run, typed.json);
    }

    fn lacks_essentials(&self) -> bool {
        self.data.is_empty() || (self.out.is_none() && !self.dry_run)
    }
}

impl OneText {
    /// Runs the command.
    pub(crate) fn run(self, given: &Given) -> Result<()> {
        let (flags, config) = join(self.flags, self.config, TextConfig::NAME, given)?;
        config.validate()?;
        let asked = Asked {
            data: &flags.data,
            holdout: flags.holdout,
            valid: &flags.valid,
            refit: flags.refit,
            metric: &flags.valid_metric,
            metrics: &METRICS,
            keep: flags.keep,
        };
        asked.check(given)?;
        train(&flags, &config)
    }
}

/// Trains as the flags say.
fn train(flags: &TextFlags, config: &TextConfig) -> Result<()> {
    let device = texts::device(flags.device)?;
    if let Some(out) = &flags.out {
        check_destination(out, TextConfig::NAME)?;
    }
    let started = Instant::now();
    let read = flags.reading.options();
    let (text, label) = (flags.text_column.as_deref(), flags.label_column.as_deref());
    let columns = find_text_columns(&flags.data, &read, text, label).map_err(texts::explain)?;
    let rows = read_rows(&columns, &flags.data, &read)?;
    let classes = tell_of_classes(&rows, config, &columns);
    let valid = match flags.valid.as_slice() {
        [] => None,
        files => Some(read_rows(&columns, files, &read)?),
    };
    texts::look_at(&columns, &flags.test, &read)?;
    if classes < 2 {
        return Err(Failure::failed(format!(
            "column `{}` has {}, and there must be two to be told apart",
            columns.label,
            of_classes(classes)
        ))
        .hint("--label-column names another"));
    }
    let Some(out) = flags.out.as_ref().filter(|_| !flags.dry_run) else {
        note!("dry run: nothing has been trained or written");
        let mut stdout = Out::new();
        if flags.json {
            stdout.json(&json!({
                "model": TextConfig::NAME, "texts": rows.texts.len(), "classes": classes, "columns": columns,
                "epochs": config.epochs,
            }))?;
        }
        return stdout.finish();
    };
    let (learnt, held_out) = match &valid {
        None if flags.holdout > 0.0 => holdout(rows.texts.len() as u64, flags.holdout, flags.seed),
        _ => (Vec::new(), Vec::new()),
    };
    let held = !held_out.is_empty() && !learnt.is_empty();
    if held {
        note!(
            "holding out {} to validate on, chosen by --seed; --valid FILE names others{}",
            counted(held_out.len() as u64, "text"),
            if flags.refit { "" } else { ", --refit learns from all in the end" }
        );
    }
    let mut again = config.clone();
    let mut training = TextTraining {
        config,
        columns: &columns,
        train: SomeTexts { rows: &rows, which: held.then_some(&learnt) },
        valid: match &valid {
            Some(rows) => Some(SomeTexts { rows, which: None }),
            None => held.then_some(SomeTexts { rows: &rows, which: Some(&held_out) }),
        },
        seed: flags.seed,
        metric: &flags.valid_metric,
        patience: (flags.patience > 0).then_some(flags.patience),
        device,
    };
    let stop = interrupt::stop_flag("step")?;
    let mut refitted = false;
    let mut watch =
        Watch::new(TextConfig::NAME, config.epochs, &flags.valid_metric, training.train.len() as u64);
    let (mut classifier, descent) = training.run(stop, &mut watch)?;
    drop(watch);
    tell_of_ending(&descent, &flags.valid_metric);
    if flags.refit && held && descent.ended != Ended::Asked {
        again.epochs = descent.kept_epoch as usize;
        again.threshold = Some(classifier.classes().threshold);
        note!(
            "learning once more from all {}, for {}",
            counted(rows.texts.len() as u64, "text"),
            counted(descent.kept_epoch, "epoch")
        );
        let temperature = classifier.classes().temperature;
        training.config = &again;
        (training.train, training.valid) = (SomeTexts { rows: &rows, which: None }, None);
        let mut watch =
            Watch::new(TextConfig::NAME, again.epochs, &flags.valid_metric, training.train.len() as u64);
        let (learnt_from_all, _) = training.run(stop, &mut watch)?;
        classifier = learnt_from_all.with(config.clone(), temperature)?;
        refitted = true;
    }
    tell_of_threshold(&classifier, config, training.valid.is_some() || flags.refit);

    let failed = |error: serde_json::Error| Failure::failed(error.to_string());
    let kept = descent.epochs.iter().find(|epoch| epoch.epoch == descent.kept_epoch);
    let stored = Config {
        model: config.to_json().map_err(failed)?,
        objective: config.objective(),
        schema: json!({
            "reading": flags.reading, "columns": columns, "data": flags.data, "valid": flags.valid,
            "rows": rows.texts.len(), "held_out": held_out.len(),
        }),
        metrics: serde_json::to_value(kept.map(|epoch| &epoch.metrics)).map_err(failed)?,
        kept_epoch: Some(descent.kept_epoch.into()),
        refitted,
        seed: flags.seed,
        ..Config::default()
    };
    let epochs: Vec<Epoch> = descent.epochs.iter().map(Epoch::from).collect();
    let parameters = classifier.parameters()?;
    let saved = Saved::text(&stored, classifier.classes(), &parameters, &epochs);
    let version = directory::save(out, &saved, flags.keep)?;
    note!(
        "wrote {} in {} after {}",
        version.display(),
        bytes(folder_bytes(&version)),
        seconds(started.elapsed().as_secs_f64())
    );
    let mut stdout = Out::new();
    let test = match flags.test.as_slice() {
        [] => None,
        files => {
            let stored = directory::ModelDirectory::open(&version, directory::Verify::Quick)?;
            Some(texts::measure(&stored.text_classifier()?, files, &read)?)
        }
    };
    if flags.json {
        stdout.json(&json!({
            "model": out,
            "version": version.file_name().map(|name| name.to_string_lossy()),
            "epochs": descent.epochs.len(),
            "kept_epoch": descent.kept_epoch,
            "refitted": refitted,
            "loss": kept.and_then(|epoch| epoch.loss),
            "temperature": classifier.classes().temperature,
            "threshold": classifier.classes().threshold,
            "valid": kept.map(|epoch| &epoch.metrics),
            "test": test.as_ref().map(|measured| &measured.metrics),
        }))?;
    } else if let Some(measured) = &test {
        ranking::print(&mut stdout, "test", &measured.metrics)?;
    } else {
        note!("next: recmill predict {} FILE, which needs a column `{}`", out.display(), columns.text);
    }
    stdout.finish()
}

fn read_rows(columns: &TextColumns, files: &[String], read: &ReadOptions) -> Result<TextRows> {
    let bar = Bar::spinner("reading");
    let rows = read_texts(columns, files, read);
    drop(bar);
    let (rows, bad) = rows.map_err(texts::explain)?;
    texts::tell_of_bad_rows(&bad, files);
    Ok(rows)
}

/// Tells what there is to learn, and returns how many classes.
fn tell_of_classes(rows: &TextRows, config: &TextConfig, columns: &TextColumns) -> usize {
    let mut counts = std::collections::BTreeMap::<&str, u64>::new();
    rows.labels.iter().for_each(|label| *counts.entry(label.as_str()).or_default() += 1);
    let out_of_scope = counts.remove(config.out_of_scope.as_str()).unwrap_or(0);
    let by_size = |most: bool| {
        let sized = counts.iter().map(|(name, &n)| (n, *name));
        if most { sized.max_by_key(|one| one.0) } else { sized.min_by_key(|one| one.0) }
    };
    let range = match (by_size(false), by_size(true)) {
        (Some((least, rare)), Some((most, common))) if least < most => {
            format!(", from {} of `{rare}` to {} of `{common}`", count(least), count(most))
        }
        (Some((least, _)), _) => format!(", {} of each", count(least)),
        _ => String::new(),
    };
    note!(
        "read {}: text `{}`, label `{}`: {}{range}",
        counted(rows.texts.len() as u64, "text"),
        columns.text,
        columns.label,
        of_classes(counts.len()),
    );
    if out_of_scope > 0 {
        note!("{} out of scope, labelled `{}`", counted(out_of_scope, "text"), config.out_of_scope);
    }
    counts.len()
}

fn of_classes(n: usize) -> String {
    if n == 1 { "1 class".to_owned() } else { format!("{} classes", count(n as u64)) }
}

/// Tells how probabilities came about, and below which of them a text is out of scope.
fn tell_of_threshold(classifier: &recmill_core::text::TextClassifier, config: &TextConfig, validated: bool) {
    let classes = classifier.classes();
    if !validated {
        warning!("no text is validated on: probabilities are not calibrated, and the last epoch is kept");
    }
    match (config.threshold, classes.threshold) {
        (Some(threshold), _) => note!("out of scope below a probability of {threshold}, as asked"),
        (None, 0.0) => note!(
            "no text will be out of scope: among those to validate on there are none labelled `{}` that a threshold finds",
            config.out_of_scope
        ),
        (None, threshold) => note!("out of scope below a probability of {threshold:.3}"),
    }
}

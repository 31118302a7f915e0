//! `recmill train` for models that score rows of features: from a file with a label to a model directory.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Args;
use recmill_core::{
    data::ReadOptions,
    directory::{self, Config, Epoch, Saved},
    features::{Features, FitReport, Schema},
    rankers::{DensePrecision, LearningConfig, RankerConfig, RankerModel},
};
use recmill_kernels::{Device, simd::has_bf16_products};
use recmill_train::{
    Ended, Error, Prediction,
    gradient::{Checkpoint, RankTraining, Rows, rank_memory},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    arguments::Given,
    commands::{
        checkpoints::{self, CheckpointFlags, Every},
        ranker_checks::{Asked, METRICS},
        train::folder_bytes,
        train_flags::{TrainingFlags, inherit, join, one_or_many, versions_kept},
        watch::{Watch, tell_of_ending, tell_of_memory},
    },
    device_flag::DeviceFlag,
    failure::{Failure, Result},
    feature_flags::{self, FeatureFlags, FileFlags},
    interrupt,
    model::check_destination,
    output::{Out, bytes, count, counted, note, seconds, warning},
    progress::Bar,
    ranking,
};

/// What a step computes in follows the batch and not the data.
const BESIDE: &str = ", and what a batch is computed in";

/// The flags of one ranker.
#[derive(Args)]
pub(crate) struct OneRanker<C: Args> {
    #[command(flatten)]
    flags: RankFlags,
    #[command(flatten, next_help_heading = "Model")]
    model: C,
    #[command(flatten, next_help_heading = "Learning")]
    learning: LearningConfig,
}

/// What the training of a ranker can be told beside its hyper-parameters.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RankFlags {
    /// Rows with features and a label: files, directories, patterns such as 'data/*.csv', or URLs. They are read several times.
    #[arg(required_unless_present_any = ["config", "resume"])]
    #[serde(deserialize_with = "one_or_many")]
    data: Vec<String>,
    /// Model directory to write; one that exists gets another version.
    #[arg(long, short, value_name = "DIRECTORY", required_unless_present_any = ["config", "dry_run"])]
    out: Option<PathBuf>,
    /// Rows to validate on after each epoch; the best epoch is kept [default: a part of the training rows].
    #[arg(long, value_name = "FILE")]
    #[serde(deserialize_with = "one_or_many")]
    valid: Vec<String>,
    /// Without --valid: the share of the training rows, chosen by the seed, that is validated on and not learned from; 0 for
    /// none.
    #[arg(long, value_name = "SHARE", default_value_t = holdout(), conflicts_with = "valid")]
    #[serde(default = "holdout")]
    holdout: f64,
    /// Trains once more on all rows, for as many epochs as were best without the held-out ones.
    #[arg(long)]
    refit: bool,
    /// Metric that decides which epoch is the best: auc, logloss, average_precision, accuracy, expected_calibration_error, or
    /// gauc, which needs --group; of several labels the mean, or that of one, such as auc/bought.
    #[arg(long, value_name = "METRIC", default_value_t = metric())]
    #[serde(default = "metric")]
    valid_metric: String,
    /// Stops after this many epochs without a better metric; 0 goes through all epochs.
    #[arg(long, value_name = "EPOCHS", default_value_t = patience())]
    #[serde(default = "patience")]
    patience: u32,
    /// Rows to evaluate the finished model on.
    #[arg(long, value_name = "FILE")]
    #[serde(deserialize_with = "one_or_many")]
    test: Vec<String>,
    /// Versions to keep in the model directory; older ones are removed.
    #[arg(long, value_name = "N", default_value_t = versions_kept())]
    #[serde(default = "versions_kept")]
    keep: usize,
    /// Where to compute: auto, cpu, cuda, cuda:N, wgpu or wgpu:N.
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
    #[command(flatten)]
    #[serde(flatten)]
    features: FeatureFlags,
    #[command(flatten)]
    #[serde(flatten)]
    reading: FileFlags,
    /// Writes a checkpoint after every so many steps, from which --resume goes on.
    #[arg(long, value_name = "STEPS")]
    checkpoint_steps: Option<u64>,
    #[command(flatten)]
    #[serde(flatten)]
    checkpoints: CheckpointFlags,
}

impl RankFlags {
    fn every(&self) -> Every {
        Every { what: "step", n: self.checkpoint_steps }
    }
}

fn holdout() -> f64 {
    0.1
}

fn metric() -> String {
    "auc".to_owned()
}

fn patience() -> u32 {
    2
}

impl TrainingFlags for RankFlags {
    const EXAMPLE: &str = "rows.csv";

    fn file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    fn take_transient(&mut self, typed: &Self) {
        (self.config, self.dry_run, self.json) = (typed.config.clone(), typed.dry_run, typed.json);
        self.checkpoints.resume = typed.checkpoints.resume.clone();
    }

    fn lacks_essentials(&self) -> bool {
        let data = self.data.is_empty() && self.checkpoints.resume.is_none();
        data || (self.out.is_none() && !self.dry_run)
    }
}

/// A network's hyper-parameters and those of learning, which a configuration file does not tell apart.
#[derive(Args)]
struct Both<C: Args> {
    #[command(flatten)]
    model: C,
    #[command(flatten)]
    learning: LearningConfig,
}

impl<C: Args + Serialize> Serialize for Both<C> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut all = serde_json::Map::new();
        for part in [serde_json::to_value(&self.model), serde_json::to_value(&self.learning)] {
            if let Value::Object(part) = part.map_err(serde::ser::Error::custom)? {
                all.extend(part);
            }
        }
        all.serialize(serializer)
    }
}

impl<'de, C: Args + DeserializeOwned> Deserialize<'de> for Both<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let (learning, model) = LearningConfig::take_from(serde_json::Map::deserialize(deserializer)?);
        let failed = serde::de::Error::custom;
        Ok(Self {
            model: serde_json::from_value(model.into()).map_err(failed)?,
            learning: serde_json::from_value(learning.into()).map_err(failed)?,
        })
    }
}

impl<C: Args + Serialize + DeserializeOwned> OneRanker<C> {
    /// Runs the command.
    pub(crate) fn run(self, name: &'static str, given: &Given, wrap: fn(C) -> RankerModel) -> Result<()> {
        let both = Both { model: self.model, learning: self.learning };
        let (mut flags, mut both) = join(self.flags, both, name, given)?;
        flags.checkpoints.check(flags.every(), given, flags.out.as_deref())?;
        let resume = flags.checkpoints.resume.as_deref().map(checkpoints::open).transpose()?;
        if let Some(checkpoint) = &resume {
            both = inherit(checkpoint.directory.path(), &both, name, given)?;
            flags = checkpoints::as_begun(flags, checkpoint, given)?;
            checkpoints::inherit_choice(checkpoint, &mut flags.valid_metric, &mut flags.patience, given)?;
        }
        let config = RankerConfig { model: wrap(both.model), learning: both.learning }.suited();
        if let Some(checkpoint) = &resume {
            checkpoints::compare(checkpoint, &config, &checkpoints::MAY_CHANGE)?;
        }
        train(&flags, given, &config, resume.as_ref())
    }
}

/// Trains as the flags say.
fn train(flags: &RankFlags, given: &Given, config: &RankerConfig, resume: Option<&Checkpoint>) -> Result<()> {
    config.validate()?;
    let (device, why) = flags.device.choose()?;
    note!("{why}");
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
    if config.learning.dense_precision == DensePrecision::Bf16
        && (device != Device::Cpu || !has_bf16_products())
    {
        let whose = if device == Device::Cpu { "this processor" } else { "training on a GPU" };
        note!("{whose} has no products of bf16 (avx512_bf16): f32 is used");
    }
    if let Some(out) = &flags.out {
        check_destination(out, config.name())?;
    }
    let started = Instant::now();
    let read = flags.reading.options();
    let (schema, guessed) = flags.features.schema(&flags.data, &read)?;
    if let Some(guessed) = &guessed {
        feature_flags::tell(guessed)?;
    }
    asked.check_columns(&schema, config)?;
    let (features, rows) = fit(&schema, flags, &read)?;
    if let Some(checkpoint) = resume {
        checkpoints::compare_features(checkpoint, &features)?;
    }
    ranking::look_at(&features, &flags.valid, &read)?;
    ranking::look_at(&features, &flags.test, &read)?;
    let Some(out) = flags.out.as_ref().filter(|_| !flags.dry_run) else {
        let memory = rank_memory(config, &features, !flags.valid.is_empty() || flags.holdout > 0.0, device);
        tell_of_memory(&memory, BESIDE);
        memory.check()?;
        note!("dry run: nothing has been trained or written");
        let mut stdout = Out::new();
        if flags.json {
            let Shaped { fields, table_rows, numeric } = Shaped::of(&features);
            stdout.json(&json!({
                "model": config.name(), "rows": rows, "fields": fields, "table_rows": table_rows, "numeric": numeric,
                "labels": features.labels(), "epochs": config.learning.epochs, "schema": schema,
                "memory_bytes": memory.host.bytes(), "available_bytes": memory.host_free, "device": device.to_string(),
                "device_memory_bytes": memory.on_device.as_ref().map(Prediction::bytes),
            }))?;
        }
        return stdout.finish();
    };
    let (examples, report) = ranking::read_examples(&features, &flags.data, &read)?;
    ranking::tell_of_rare(&features, &report, &flags.data);
    let valid = match flags.valid.as_slice() {
        [] => None,
        files => {
            let (examples, report) = ranking::read_examples(&features, files, &read)?;
            ranking::tell_of_losses(&features, &report, files);
            Some(examples)
        }
    };
    let (learnt, held_out) = match &valid {
        None if flags.holdout > 0.0 => examples.holdout(flags.holdout, flags.seed),
        _ => (Vec::new(), Vec::new()),
    };
    let held = !held_out.is_empty();
    if held {
        note!(
            "holding out {} to validate on, chosen by --seed; --valid FILE names others{}",
            counted(held_out.len() as u64, "row"),
            if flags.refit { "" } else { ", --refit learns from all in the end" }
        );
    } else if valid.is_none() && flags.holdout > 0.0 {
        warning!(
            "--holdout {} of {} is none: no epoch is validated, and the last one is kept",
            flags.holdout,
            counted(examples.len() as u64, "row")
        );
    }
    let failed = |error: serde_json::Error| Failure::failed(error.to_string());
    let about = Config {
        model: serde_json::to_value(config).map_err(failed)?,
        objective: config.objective(),
        schema: json!({
            "reading": flags.reading, "columns": schema, "data": flags.data, "valid": flags.valid,
            "rows": examples.len(), "held_out": held_out.len(),
        }),
        seed: flags.seed,
        ..Config::default()
    };
    let written = flags.checkpoints.options(flags.every(), out, &about, flags)?;
    let mut training = RankTraining {
        learning: &config.learning,
        features: &features,
        train: Rows { examples: &examples, rows: held.then_some(&learnt) },
        valid: match &valid {
            Some(valid) => Some(Rows { examples: valid, rows: None }),
            None => held.then_some(Rows { examples: &examples, rows: Some(&held_out) }),
        },
        seed: flags.seed,
        metric: &flags.valid_metric,
        patience: (flags.patience > 0).then_some(flags.patience),
        loader_threads: 1,
        device,
        checkpoints: written.as_ref(),
        resume,
    };
    if let Some(rows) = &training.valid {
        asked.check_rows(rows, features.labels())?;
    }
    tell_of_memory(&rank_memory(config, &features, training.valid.is_some(), device), BESIDE);
    let stop = interrupt::stop_flag("step")?;
    recmill_kernels::memory::keep_freed_blocks();
    let mut watch =
        Watch::new(config.name(), config.learning.epochs, &flags.valid_metric, training.train.len());
    let trained = training.run(config, stop, &mut watch);
    let last = watch.last_checkpoint.take();
    drop(watch);
    let (mut ranker, descent) = trained.inspect_err(|error| {
        // A loss that is not finite names it by itself.
        if let (Some(last), Some(written)) = (&last, &written)
            && !matches!(error, Error::NotFiniteLoss { .. })
        {
            checkpoints::tell_of_last(last, &written.folder);
        }
    })?;
    tell_of_ending(&descent, &flags.valid_metric);
    let mut refitted = false;
    if flags.refit && descent.ended != Ended::Asked && training.valid.is_some() {
        let mut again = config.clone();
        again.learning.epochs = descent.kept_epoch as usize;
        note!(
            "learning once more from all {}, for {}",
            counted(examples.len() as u64, "row"),
            counted(descent.kept_epoch, "epoch")
        );
        (training.learning, training.valid) = (&again.learning, None);
        (training.checkpoints, training.resume) = (None, None);
        training.train = Rows { examples: &examples, rows: None };
        let mut watch =
            Watch::new(again.name(), again.learning.epochs, &flags.valid_metric, training.train.len());
        let (learnt_from_all, second) = training.run(&again, stop, &mut watch)?;
        ranker = learnt_from_all;
        refitted = true;
        if second.ended == Ended::Asked {
            note!("stopped as asked in epoch {} of learning from all", second.epochs.len());
        }
    }

    let kept = descent.epochs.iter().find(|epoch| epoch.epoch == descent.kept_epoch);
    let (config, features, parameters) = ranker.into_parts()?;
    let stored = Config {
        model: serde_json::to_value(&config).map_err(failed)?,
        metrics: serde_json::to_value(kept.map(|epoch| &epoch.metrics)).map_err(failed)?,
        kept_epoch: Some(descent.kept_epoch.into()),
        refitted,
        ..about
    };
    let epochs: Vec<Epoch> = descent.epochs.iter().map(Epoch::from).collect();
    let saved = Saved::ranker(&stored, &features, &parameters, &epochs);
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
            let ranker = directory::ModelDirectory::open(&version, directory::Verify::Quick)?.ranker()?;
            Some(ranking::measure(&ranker, files, &read)?)
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
            "valid": kept.map(|epoch| &epoch.metrics),
            "test": test.as_ref().map(|measured| &measured.metrics),
        }))?;
    } else if let Some(measured) = &test {
        ranking::print(&mut stdout, "test", &measured.metrics)?;
    } else {
        // What a shell would take apart is not shown as something to type.
        let plain = |file: &&String| file.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:".contains(c));
        let rows = flags.data.first().filter(plain).map_or("rows.csv", String::as_str);
        note!("next: recmill predict {} {rows}", out.display());
    }
    stdout.finish()
}

/// Fits the features and tells what was found; returns with them how many rows there are.
fn fit(schema: &Schema, flags: &RankFlags, read: &ReadOptions) -> Result<(Features, u64)> {
    let started = Instant::now();
    let bar = Bar::spinner("fitting features");
    let (features, report) = Features::fit(schema, &flags.data, read)?;
    drop(bar);
    tell_of_fit(&features, &report, started.elapsed().as_secs_f64());
    Ok((features, report.rows))
}

fn tell_of_fit(features: &Features, report: &FitReport, taken: f64) {
    let shaped = Shaped::of(features);
    note!(
        "read {} in {}: {} with {}, {}",
        counted(report.rows, "row"),
        seconds(taken),
        counted(shaped.fields, "categorical field"),
        counted(shaped.table_rows, "table row"),
        counted(shaped.numeric, "numeric column"),
    );
    for label in &report.labels {
        let share = 100.0 * label.positive as f64 / label.rows.max(1) as f64;
        note!(
            "label `{}`: {} of {} rows are 1 ({share:.2}%)",
            label.column,
            count(label.positive),
            count(label.rows)
        );
    }
    for bad in &report.bad_rows {
        warning!("skipped {} ({}), first {}", counted(bad.rows, "bad row"), bad.kind, bad.first);
    }
    for full in &report.full {
        warning!(
            "column `{}`: its vocabulary is full at {}; {} of the rarest share one row",
            full.column,
            count(full.max_size),
            count(full.left_out)
        );
    }
    for column in &report.constant {
        warning!("column `{column}` has one value in all rows and says nothing");
    }
}

/// What features amount to.
struct Shaped {
    fields: u64,
    table_rows: u64,
    numeric: u64,
}

impl Shaped {
    fn of(features: &Features) -> Self {
        Self {
            fields: features.fields().len() as u64,
            table_rows: features.fields().iter().map(|field| field.rows() as u64).sum(),
            numeric: features.numeric().len() as u64,
        }
    }
}

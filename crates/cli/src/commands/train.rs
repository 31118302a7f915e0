//! `recmill train`: from interactions to a model directory. One subcommand a model, each with its own flags.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use clap::{Args, Subcommand};
use recmill_core::{
    Dataset, IdMap,
    data::{Attributes, ReadOptions, Repeats},
    directory::{self, Config, Epoch, ModelDirectory, Saved, Verify},
    evaluate::{EvaluateOptions, Evaluation},
    models::{
        AlsConfig, BprConfig, EaseConfig, Gru4RecConfig, ItemKnnConfig, LmfConfig, MfConfig, ModelConfig,
        MostPopularConfig, NeuMfConfig, SasRecConfig, SvdConfig, TwoTowerConfig, WarpConfig,
    },
    rankers::{
        AutoIntConfig, DcnConfig, DeepFmConfig, DlrmConfig, FinalMlpConfig, FmConfig, LogisticConfig,
        MmoeConfig, RankerModel, SharedBottomConfig, WideDeepConfig,
    },
};
use recmill_train::{
    Ended, EpochCheckpoints, EpochRecord, HELD_OUT_USERS, HeldEvent, HeldOut, PATIENCE, Plan, Prediction,
    Progress, Trained, Training, Validation, for_epochs, gradient::Checkpoint, reads_order, stops_by_itself,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    arguments::Given,
    commands::{
        checkpoints, evaluate,
        train_checks::{check, tell_what_does_nothing, tell_what_is_learned_from, without_values},
        train_described::DescribedSides,
        train_flags::{TrainFlags, inherit, join},
        train_ranker::OneRanker,
        train_text::OneText,
        watch::tell_of_memory,
    },
    device_flag::DeviceFlag,
    failure::{Failure, Result},
    interrupt,
    output::{Out, bytes, count, counted, note, seconds},
    progress::{self, Bar},
    reading,
};

/// Subcommands of `recmill train`.
#[derive(Subcommand)]
#[command(
    after_help = "Which model? als and ease are the strongest for clicks, views and purchases, item-knn is the \
    simplest to explain, sasrec and gru4rec read the order of events, two-tower learns from \
    columns of users and items and recommends to and of new ones, svd predicts ratings, most-popular is what the others must beat. For rows of features with a \
    label, such as clicks or fraud: dcn-v2 and deepfm are the strongest, logistic is what they must beat; shared-bottom and \
    mmoe learn several labels at once. For texts with a label, such as intents of messages: text."
)]
pub(crate) enum Train {
    /// Matrix factorization of implicit feedback by alternating least squares.
    Als(OneModel<AlsConfig>),
    /// Matrix factorization that learns to rank pairs of items.
    Bpr(OneModel<BprConfig>),
    /// Matrix factorization that learns how likely a user is to take an item.
    Lmf(OneModel<LmfConfig>),
    /// Matrix factorization that learns from the items that stand too high in a list.
    Warp(OneModel<WarpConfig>),
    /// Matrix factorization that tells a user's items from all others at once, by softmax.
    Mf(OneModel<MfConfig>),
    /// A product of a user's vector and an item's beside a network over two others.
    #[command(name = "neumf")]
    NeuMf(OneModel<NeuMfConfig>),
    /// The items most like those a user had.
    ItemKnn(OneModel<ItemKnnConfig>),
    /// A dense model of items in closed form; memory grows with the square of the catalogue.
    Ease(OneModel<EaseConfig>),
    /// What most people took, the same for everyone.
    MostPopular(OneModel<MostPopularConfig>),
    /// Matrix factorization that predicts ratings.
    Svd(OneModel<SvdConfig>),
    /// Self-attention over what a user did, in order: what comes next?
    #[command(name = "sasrec")]
    SasRec(OneModel<SasRecConfig>),
    /// Recurrent units over what a user did, in order: what comes next?
    #[command(name = "gru4rec")]
    Gru4Rec(OneModel<Gru4RecConfig>),
    /// A network for users and one for items, from ids and columns; places new users and items by their columns.
    TwoTower(OneModel<TwoTowerConfig>),
    /// Scores rows of features by a weight for each category and number.
    #[command(visible_alias = "lr")]
    Logistic(OneRanker<LogisticConfig>),
    /// Scores rows by a factorization machine.
    Fm(OneRanker<FmConfig>),
    /// Scores rows by a linear model beside a network.
    #[command(visible_alias = "wide-and-deep")]
    WideDeep(OneRanker<WideDeepConfig>),
    /// Scores rows by a factorization machine and a network over the same vectors.
    #[command(name = "deepfm")]
    DeepFm(OneRanker<DeepFmConfig>),
    /// Scores rows by explicit crosses of features and a network.
    #[command(name = "dcn-v2", visible_alias = "dcn")]
    Dcn(OneRanker<DcnConfig>),
    /// Scores rows by products of embeddings and a network above them.
    Dlrm(OneRanker<DlrmConfig>),
    /// Scores rows by fields that attend to each other.
    #[command(name = "autoint")]
    AutoInt(OneRanker<AutoIntConfig>),
    /// Scores rows by two gated networks joined by products.
    #[command(name = "finalmlp", visible_alias = "final-mlp")]
    FinalMlp(OneRanker<FinalMlpConfig>),
    /// Scores rows for several labels by one network with a tower for each.
    SharedBottom(OneRanker<SharedBottomConfig>),
    /// Scores rows for several labels by a mixture of experts.
    Mmoe(OneRanker<MmoeConfig>),
    /// Tells what texts are about, by their words and parts of words.
    Text(OneText),
}

/// The flags of one model.
#[derive(Args)]
pub(crate) struct OneModel<C: Args> {
    #[command(flatten)]
    flags: TrainFlags,
    #[command(flatten, next_help_heading = "Model")]
    config: C,
}

impl Train {
    /// Runs the command.
    pub(crate) fn run(self, given: &Given) -> Result<()> {
        match self {
            Train::Als(model) => model.run("als", given, ModelConfig::Als),
            Train::Bpr(model) => model.run("bpr", given, ModelConfig::Bpr),
            Train::Lmf(model) => model.run("lmf", given, ModelConfig::Lmf),
            Train::Warp(model) => model.run("warp", given, ModelConfig::Warp),
            Train::Mf(model) => model.run("mf", given, ModelConfig::Mf),
            Train::NeuMf(model) => model.run("neumf", given, ModelConfig::NeuMf),
            Train::ItemKnn(model) => model.run("item-knn", given, ModelConfig::ItemKnn),
            Train::Ease(model) => model.run("ease", given, ModelConfig::Ease),
            Train::MostPopular(model) => model.run("most-popular", given, ModelConfig::MostPopular),
            Train::Svd(model) => model.run("svd", given, ModelConfig::Svd),
            Train::SasRec(model) => model.run("sasrec", given, ModelConfig::SasRec),
            Train::Gru4Rec(model) => model.run("gru4rec", given, ModelConfig::Gru4Rec),
            Train::TwoTower(model) => model.run("two-tower", given, ModelConfig::TwoTower),
            Train::Logistic(model) => model.run("logistic", given, RankerModel::Logistic),
            Train::Fm(model) => model.run("fm", given, RankerModel::Fm),
            Train::WideDeep(model) => model.run("wide-deep", given, RankerModel::WideDeep),
            Train::DeepFm(model) => model.run("deepfm", given, RankerModel::DeepFm),
            Train::Dcn(model) => model.run("dcn-v2", given, RankerModel::Dcn),
            Train::Dlrm(model) => model.run("dlrm", given, RankerModel::Dlrm),
            Train::AutoInt(model) => model.run("autoint", given, RankerModel::AutoInt),
            Train::FinalMlp(model) => model.run("finalmlp", given, RankerModel::FinalMlp),
            Train::SharedBottom(model) => model.run("shared-bottom", given, RankerModel::SharedBottom),
            Train::Mmoe(model) => model.run("mmoe", given, RankerModel::Mmoe),
            Train::Text(model) => model.run(given),
        }
    }
}

impl<C: Args + Serialize + DeserializeOwned> OneModel<C> {
    fn run(self, name: &'static str, given: &Given, wrap: fn(C) -> ModelConfig) -> Result<()> {
        let (mut flags, config) = join(self.flags, self.config, name, given)?;
        flags.checkpoints.check(flags.every(), given, flags.out.as_deref())?;
        let resume = flags.checkpoints.resume.as_deref().map(checkpoints::open).transpose()?;
        let config = match (&resume, &flags.from) {
            (Some(checkpoint), _) => inherit(checkpoint.directory.path(), &config, name, given)?,
            // A configuration file is complete as it stands; flags alone change the model they go on from.
            (None, Some(from)) if flags.config.is_none() => inherit(from, &config, name, given)?,
            _ => config,
        };
        let config = wrap(config);
        if let Some(checkpoint) = &resume {
            checkpoints::compare(checkpoint, &config, &checkpoints::MAY_CHANGE_BETWEEN_EPOCHS)?;
            flags = checkpoints::as_begun(flags, checkpoint, given)?;
            if !checkpoint.position.metric.is_empty() {
                let (mut metric, mut patience) =
                    (flags.valid_metric.unwrap_or_default(), flags.patience.unwrap_or(0));
                checkpoints::inherit_choice(checkpoint, &mut metric, &mut patience, given)?;
                flags.valid_metric = Some(metric);
                flags.patience = Some(patience).filter(|&patience| patience > 0);
            }
        }
        train(&flags, &config, resume.as_ref(), given)
    }
}

/// Trains as the flags say.
fn train(flags: &TrainFlags, config: &ModelConfig, resume: Option<&Checkpoint>, given: &Given) -> Result<()> {
    let (device, why) = check(flags, config)?;
    let started = Instant::now();
    let from = flags.from.as_ref().map(|path| ModelDirectory::open(path, Verify::Quick)).transpose()?;
    let repeats = if matches!(config, ModelConfig::Svd(_)) { Repeats::Last } else { Repeats::Sum };
    let mut reading = flags.reading.options(repeats);
    if let (Some(from), None, None) = (&from, &flags.config, resume) {
        reading = inherit_reading(from, reading, given)?;
    }
    let base = from.as_ref().map(ModelDirectory::to_dataset).transpose()?;
    let (data, report) = reading::interactions(&flags.data, &reading, base)?;
    let predicts_values = matches!(config, ModelConfig::Svd(_));
    if predicts_values && !reading::has_values(&report, &reading) {
        return Err(without_values(&flags.data));
    }
    let held_out = |files: &[String]| match files {
        [] => Ok(None),
        files => match reading::held_out(files, &reading)? {
            (_, false) if predicts_values => Err(without_values(files)),
            (data, _) => Ok(Some(data)),
        },
    };
    let (valid, test) = (held_out(&flags.valid)?, held_out(&flags.test)?);
    if !predicts_values {
        valid.iter().for_each(|valid| tell_what_is_learned_from(valid, &data, "valid"));
        test.iter().for_each(|test| tell_what_is_learned_from(test, &data, "test"));
    }
    // A model that is gone on from has a weighting, named or not: without a name it is alpha 1.
    let suited = if from.is_none() { config.suited_to(&data) } else { config.clone() };
    if suited != *config {
        note!("chosen to suit the data: {}", suited.objective());
    }
    let config = &suited;
    if reads_order(config) && data.times().is_none() {
        note!(
            "no column of times: the order of the file is taken for that of the events; --time-column names one"
        );
    }
    tell_what_does_nothing(flags, config, &report, given);
    let attributes = Attributed::read(flags, from.as_ref(), &data)?;
    let described = match config {
        ModelConfig::TwoTower(_) => DescribedSides::of(&attributes, from.as_ref(), flags)?,
        _ => DescribedSides::default(),
    };
    let metric = flags.valid_metric.clone().unwrap_or_else(|| default_metric(config).to_owned());
    let stops = stops_by_itself(config);
    let split = match valid {
        None if stops && from.is_some() && flags.holdout.is_none() => {
            note!(
                "nothing is held out, since the model that this goes on from may have learned it; --valid or --holdout finds the best epoch"
            );
            None
        }
        None if stops => hold_out(config, &data, flags)?,
        _ => None,
    };
    // What is held out is no part of what is learned from, and part of the histories that are stored.
    let (learnt, valid) = match (&split, &valid) {
        (Some((left, held)), _) => (left, Some(held)),
        (None, valid) => (&data, valid.as_ref()),
    };
    let mut validation = valid.map(|valid| {
        HeldOut::new(learnt, valid, &metric, EvaluateOptions { seed: flags.seed, ..Default::default() })
    });

    if flags.device == DeviceFlag::Auto {
        note!("{why}");
    }
    let mut training = Training::new(config, learnt);
    let patience = flags.patience.or((stops && validation.is_some()).then_some(PATIENCE));
    (training.seed, training.patience, training.loss) = (flags.seed, patience, !flags.no_loss);
    (training.users, training.items) = (described.users.as_ref(), described.items.as_ref());
    training.device = device;
    training.start = from.as_ref().map(ModelDirectory::parameters).transpose()?;
    let mut watch = Watch::new(&metric);
    let Some(out) = flags.out.as_ref().filter(|_| !flags.dry_run) else {
        let plan = training.plan(validation.is_some());
        watch.planned(&plan);
        plan.memory.check()?;
        note!("dry run: nothing has been trained or written");
        let mut stdout = Out::new();
        if flags.json {
            let memory = &plan.memory;
            let parts: serde_json::Map<_, _> =
                memory.host.parts().iter().map(|&(what, bytes)| (what.to_owned(), bytes.into())).collect();
            stdout.json(&json!({
                "model": plan.model, "users": plan.n_users, "items": plan.n_items, "interactions": plan.n_interactions,
                "epochs": plan.epochs, "memory_bytes": memory.host.bytes(), "memory": parts,
                "available_bytes": memory.host_free, "device": memory.device.to_string(),
                "device_memory_bytes": memory.on_device.as_ref().map(Prediction::bytes),
            }))?;
        }
        return stdout.finish();
    };
    let schema = json!({
        "reading": reading, "columns": report.columns, "from": flags.from, "data": flags.data, "valid": flags.valid,
        "held_out": split.as_ref().map(|(_, held)| held.by_user().nnz()), "holdout": flags.holdout,
        "items": flags.items, "users": flags.users,
    });
    let about = Config {
        model: serde_json::to_value(config).map_err(|error| Failure::failed(error.to_string()))?,
        objective: config.objective(),
        schema,
        seed: flags.seed,
        ..Config::default()
    };
    let written = flags.checkpoints.options(flags.every(), out, &about, flags)?;
    let written = written.map(|options| EpochCheckpoints {
        options,
        dataset: &data,
        item_attributes: attributes.items.as_ref(),
        user_attributes: attributes.users.as_ref(),
    });
    (training.checkpoints, training.resume) = (written.as_ref(), resume);
    let stop = interrupt::stop_flag("epoch")?;
    let mut refitted = false;
    let validation = validation.as_mut().map(|held_out| held_out as &mut dyn Validation);
    let trained = training.run(validation, stop, &mut watch);
    let last = watch.checkpoint.take();
    drop(watch);
    let mut trained = trained.inspect_err(|_| {
        if let (Some(last), Some(written)) = (&last, &written) {
            checkpoints::tell_of_last(last, &written.options.folder);
        }
    })?;
    tell_of_ending(&trained, &metric);
    if flags.refit && split.is_some() && trained.ended == Ended::Asked {
        note!("stopped as asked: what was held out is not learned from");
    } else if flags.refit && split.is_some() {
        note!("training again on all events, for {}", counted(u64::from(trained.kept_epoch), "epoch"));
        let config = for_epochs(config, trained.kept_epoch);
        let mut training = Training::new(&config, &data);
        (training.seed, training.loss, training.device) = (flags.seed, false, device);
        (training.users, training.items) = (described.users.as_ref(), described.items.as_ref());
        training.start = from.as_ref().map(ModelDirectory::parameters).transpose()?;
        let again = training.run(None, stop, &mut Watch::new(&metric))?;
        match again.ended {
            Ended::Asked => {
                note!("stopped as asked: keeping the model that has not learned from what was held out")
            }
            _ => {
                trained.model = again.model;
                refitted = true;
            }
        }
    }

    let version = write(out, flags.keep, about, &data, &attributes, &trained, refitted)?;
    note!(
        "wrote {} in {} after {}",
        version.display(),
        bytes(folder_bytes(&version)),
        seconds(started.elapsed().as_secs_f64())
    );
    let evaluation = match &test {
        Some(test) => Some(evaluate_finished(&version, test, flags.seed)?),
        None => None,
    };
    let mut stdout = Out::new();
    if flags.json {
        let kept = trained.epochs.iter().find(|epoch| epoch.epoch == trained.kept_epoch);
        stdout.json(&json!({
            "model": out,
            "version": version.file_name().map(|name| name.to_string_lossy()),
            "epochs": trained.epochs.len(),
            "kept_epoch": trained.kept_epoch,
            "refitted": refitted,
            "loss": kept.and_then(|epoch| epoch.loss),
            "valid": kept.map(|epoch| &epoch.metrics),
            "test": evaluation.as_ref().map(|evaluation| &evaluation.metrics),
        }))?;
    } else if let Some(evaluation) = &evaluation {
        evaluate::print_metrics(&mut stdout, &[("test", &evaluation.metrics)])?;
    } else {
        // An id that a shell would take apart is not shown as something to type.
        let plain = |id: &&str| {
            id.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:@".contains(c)) && !id.starts_with('-')
        };
        let user = data.users.name(0).filter(plain).unwrap_or("ID");
        note!("next: recmill recommend {} --user {user}", out.display());
    }
    stdout.finish()
}

/// Held-out events of which a metric says little.
const FEW: u64 = 30;

/// Holds events out to validate on, where nobody gave some; says so.
fn hold_out(config: &ModelConfig, data: &Dataset, flags: &TrainFlags) -> Result<Option<(Dataset, Dataset)>> {
    let users = match flags.holdout {
        Some(share) => (share * data.n_users() as f64).ceil() as usize,
        None => HELD_OUT_USERS,
    };
    let event = HeldEvent::suited_to(config, data);
    let which = match event {
        HeldEvent::Newest => "the newest event",
        HeldEvent::Drawn => "an event",
    };
    let split = recmill_train::hold_out(data, event, users, flags.seed)?;
    match &split {
        Some((_, held)) => {
            let n = held.by_user().nnz() as u64;
            note!(
                "held out to find the best epoch: {which} of {}{}; --refit learns from them in the end, --valid names others",
                counted(n, "user"),
                if n < FEW { ", which is few to tell epochs apart by" } else { "" }
            );
        }
        None => note!("nothing is held out to validate on: all epochs are done, and the last is kept"),
    }
    Ok(split)
}

/// What interactions mean stays as it was for the model that is gone on from, unless a flag says otherwise.
fn inherit_reading(from: &ModelDirectory, reading: ReadOptions, given: &Given) -> Result<ReadOptions> {
    const MEANING: [&str; 6] =
        ["event_column", "event_weights", "half_life", "repeats", "min_rating", "allow_negative"];
    let failed = |error: serde_json::Error| Failure::failed(format!("config.json: {error}"));
    let mut now = serde_json::to_value(&reading).map_err(failed)?;
    let Some(earlier) = from.manifest().config.schema.get("reading") else { return Ok(reading) };
    for name in MEANING.into_iter().filter(|name| !given.has(name)) {
        let Some(value) = earlier.get(name).filter(|value| now.get(name) != Some(value)) else { continue };
        let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        note!("--{} {shown}, as for the model that this goes on from", name.replace('_', "-"));
        now[name] = value.clone();
    }
    serde_json::from_value(now).map_err(failed)
}

fn default_metric(config: &ModelConfig) -> &'static str {
    if matches!(config, ModelConfig::Svd(_)) { "rmse" } else { "ndcg@10" }
}

/// Writes the version and returns its folder.
fn write(
    out: &Path,
    keep: usize,
    about: Config,
    data: &Dataset,
    attributes: &Attributed,
    trained: &Trained,
    refitted: bool,
) -> Result<PathBuf> {
    let failed = |error: serde_json::Error| Failure::failed(error.to_string());
    let kept = trained.epochs.iter().find(|epoch| epoch.epoch == trained.kept_epoch);
    let config = Config {
        metrics: serde_json::to_value(kept.map(|epoch| &epoch.metrics)).map_err(failed)?,
        kept_epoch: Some(trained.kept_epoch.into()),
        refitted,
        ..about
    };
    let epochs: Vec<Epoch> = trained.epochs.iter().map(Epoch::from).collect();
    let bar = Bar::spinner("writing");
    let saved = Saved {
        config: &config,
        parameters: &trained.model.parameters()?,
        dataset: data,
        item_attributes: attributes.items.as_ref(),
        user_attributes: attributes.users.as_ref(),
        epochs: &epochs,
        features: None,
        classes: None,
    };
    let version = directory::save(out, &saved, keep)?;
    drop(bar);
    Ok(version)
}

fn evaluate_finished(version: &Path, test: &Dataset, seed: u64) -> Result<Evaluation> {
    let recommender = ModelDirectory::open(version, Verify::Quick)?.recommender()?;
    if let Some(evaluation) = recommender.evaluate_ratings(test)? {
        return Ok(evaluation);
    }
    Ok(recommender.evaluate(test, None, &EvaluateOptions { seed, ..EvaluateOptions::default() })?)
}

pub(super) fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs_err::read_dir(folder) else { return 0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum()
}

fn tell_of_ending(trained: &Trained, metric: &str) {
    let done = trained.epochs.len() as u32;
    match trained.ended {
        Ended::Epochs => {}
        Ended::NoImprovement => {
            note!("stopped: {metric} has not improved since epoch {}", trained.kept_epoch)
        }
        Ended::Asked => note!("stopped as asked after {}", counted(done, "epoch")),
    }
    let kept = trained.epochs.iter().find(|epoch| epoch.epoch == trained.kept_epoch);
    if let Some(value) = kept.and_then(|epoch| epoch.metrics.get(metric)) {
        note!("keeping epoch {} of {done}: {metric} {value:.4}", trained.kept_epoch);
    }
}

/// What is known of items and users besides the interactions.
pub(super) struct Attributed {
    pub(super) items: Option<RecordBatch>,
    pub(super) users: Option<RecordBatch>,
}

impl Attributed {
    /// Reads --items and --users; without them, what the model to go on from had is kept.
    fn read(flags: &TrainFlags, from: Option<&ModelDirectory>, data: &Dataset) -> Result<Self> {
        let earlier = |attributes: fn(&ModelDirectory) -> recmill_core::Result<Option<RecordBatch>>| {
            from.map(attributes).transpose().map(Option::flatten)
        };
        let items = match &flags.items {
            Some(file) => Some(reading::attributes(file, &data.items, "item", &flags.reading)?),
            None => earlier(ModelDirectory::item_attributes)?
                .map(|batch| padded(&batch, &data.items))
                .transpose()?,
        };
        let users = match &flags.users {
            Some(file) => Some(reading::attributes(file, &data.users, "user", &flags.reading)?),
            None => earlier(ModelDirectory::user_attributes)?
                .map(|batch| padded(&batch, &data.users))
                .transpose()?,
        };
        Ok(Self { items, users })
    }
}

/// Adds a row with the id and nothing else for every id that came later.
fn padded(batch: &RecordBatch, ids: &IdMap) -> Result<RecordBatch> {
    let later: StringArray = ids.iter().skip(batch.num_rows()).map(Some).collect();
    if later.is_empty() {
        return Ok(batch.clone());
    }
    let later = RecordBatch::try_from_iter([("id", Arc::new(later) as ArrayRef)]);
    let later = later.map_err(|error| Failure::failed(error.to_string()))?;
    Ok(Attributes::new(batch.clone()).with_rows(&later)?.table().clone())
}

/// Draws the bar on a terminal, writes a line an epoch elsewhere.
pub(crate) struct Watch {
    metric: String,
    bar: Option<Bar>,
    epochs: u32,
    n_interactions: u64,
    /// The last checkpoint that was written.
    checkpoint: Option<PathBuf>,
}

impl Watch {
    pub(crate) fn new(metric: &str) -> Self {
        Self { metric: metric.to_owned(), bar: None, epochs: 0, n_interactions: 0, checkpoint: None }
    }
}

impl Progress for Watch {
    fn planned(&mut self, plan: &Plan) {
        note!(
            "{}: {}, {}, {}",
            plan.model,
            counted(plan.n_users, "user"),
            counted(plan.n_items, "item"),
            counted(plan.n_interactions, "interaction")
        );
        tell_of_memory(&plan.memory, "");
        (self.epochs, self.n_interactions) = (plan.epochs, plan.n_interactions);
        self.bar = Some(Bar::steps("training", plan.epochs.into()));
    }

    fn checkpoint(&mut self, epochs: u64, path: &Path) {
        note!("checkpoint after {}: {}", counted(epochs, "epoch"), path.display());
        self.checkpoint = Some(path.to_owned());
    }

    fn epoch(&mut self, record: &EpochRecord) {
        let loss = record.loss.map(|loss| format!("  loss {loss:.5}")).unwrap_or_default();
        let metric = record.metrics.get(&self.metric).map(|value| format!("  {} {value:.4}", self.metric));
        let rate = self.n_interactions as f64 / record.seconds.max(1e-9);
        let rate = match rate < 1e6 {
            true => count(rate as u64),
            false => format!("{:.1} M", rate / 1e6),
        };
        let line = format!("{loss}{}  {rate} interactions/s", metric.unwrap_or_default());
        if let Some(bar) = &self.bar {
            bar.at(record.epoch.into());
            bar.message(line.trim_start().to_owned());
        }
        if !progress::is_live() && !progress::is_silent() {
            note!("epoch {}/{}{line}  {}", record.epoch, self.epochs, seconds(record.seconds));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_that_came_later_have_an_id_and_nothing_else() {
        let mut ids = IdMap::default();
        for id in ["a", "b", "c"] {
            ids.get_or_insert(id).unwrap();
        }
        let batch = RecordBatch::try_from_iter([
            ("item", Arc::new(StringArray::from(vec!["a"])) as arrow::array::ArrayRef),
            ("year", Arc::new(arrow::array::Int64Array::from(vec![1999])) as arrow::array::ArrayRef),
        ])
        .unwrap();
        let padded = padded(&batch, &ids).unwrap();
        assert_eq!(padded.num_rows(), 3);
        assert_eq!(
            padded.column(0).as_ref(),
            &StringArray::from(vec!["a", "b", "c"]) as &dyn arrow::array::Array
        );
        assert_eq!(padded.column(1).null_count(), 2);
    }
}

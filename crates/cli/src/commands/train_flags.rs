//! The flags of `train`, the same for every model, and how a configuration file joins them.
//!
//! ```text
//! flag typed  >  key of the --config file  >  default
//! ```
//!
//! A flag, a key and a field are one name: `--unobserved-weight`, `unobserved_weight`.

use std::path::{Path, PathBuf};

use clap::{Args, Command};
use recmill_core::directory::{ModelDirectory, Verify};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    arguments::Given,
    commands::checkpoints::{CheckpointFlags, Every},
    device_flag::DeviceFlag,
    failure::{Failure, Result},
    read_flags::ReadFlags,
};

/// What `train` can be told beside a model's hyper-parameters.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TrainFlags {
    /// Interactions: files, directories, patterns such as 'data/*.csv', URLs, or - for standard input.
    #[arg(required_unless_present_any = ["config", "resume"])]
    #[serde(deserialize_with = "one_or_many")]
    pub(crate) data: Vec<String>,
    /// Model directory to write; one that exists gets another version.
    #[arg(long, short, value_name = "DIRECTORY", required_unless_present_any = ["config", "dry_run"])]
    pub(crate) out: Option<PathBuf>,
    /// Interactions to validate on after each epoch; the best epoch is kept.
    #[arg(long, value_name = "FILE")]
    #[serde(deserialize_with = "one_or_many")]
    pub(crate) valid: Vec<String>,
    /// Metric that decides which epoch is the best, such as recall@20 or rmse [default: ndcg@10; rmse for svd].
    #[arg(long, value_name = "METRIC")]
    pub(crate) valid_metric: Option<String>,
    /// Stops after this many epochs without a better metric; needs something to validate on [default: 10 for mf, neumf, sasrec, gru4rec and two-tower, otherwise none].
    #[arg(long, value_name = "EPOCHS")]
    pub(crate) patience: Option<u32>,
    /// For mf, neumf, sasrec, gru4rec and two-tower without --valid: the share of users, chosen by the seed, an event of whom is validated on and not learned from:
    /// the newest, or without times one that is drawn, but for sasrec and gru4rec [default: 1, but at most 10,000 users]; 0 for none.
    #[arg(long, value_name = "SHARE", conflicts_with = "valid")]
    pub(crate) holdout: Option<f64>,
    /// Trains once more on all events, those held out too, for as many epochs as were best.
    #[arg(long)]
    pub(crate) refit: bool,
    /// Interactions to evaluate the finished model on.
    #[arg(long, value_name = "FILE")]
    #[serde(deserialize_with = "one_or_many")]
    pub(crate) test: Vec<String>,
    /// Goes on from this model: its users, items and history are extended, its parameters are where learning starts.
    #[arg(long, value_name = "MODEL")]
    pub(crate) from: Option<PathBuf>,
    /// Item columns such as titles and genres, the first column the id: shown in lists, used by --where, learned from by two-tower.
    #[arg(long, value_name = "FILE")]
    pub(crate) items: Option<String>,
    /// User columns, the first column the id; learned from by two-tower.
    #[arg(long, value_name = "FILE")]
    pub(crate) users: Option<String>,
    /// Versions to keep in the model directory; older ones are removed.
    #[arg(long, value_name = "N", default_value_t = versions_kept())]
    #[serde(default = "versions_kept")]
    pub(crate) keep: usize,
    /// Where to compute: auto, cpu, cuda, cuda:N, wgpu or wgpu:N.
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceFlag::Auto)]
    pub(crate) device: DeviceFlag,
    /// Seed of all that is drawn at random; the same seed gives the same parameters, byte for byte.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Skips computing the training loss where that takes a pass of its own.
    #[arg(long)]
    pub(crate) no_loss: bool,
    /// TOML file with any of these flags and the model's hyper-parameters; what is typed here goes first.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,
    /// Reads and checks everything and says what training would take, but trains and writes nothing.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) dry_run: bool,
    /// Prints one JSON object when done.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) json: bool,
    /// Writes a checkpoint after every so many epochs, from which --resume goes on; a --refit writes none.
    #[arg(long, value_name = "EPOCHS")]
    pub(crate) checkpoint_epochs: Option<u64>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) checkpoints: CheckpointFlags,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) reading: ReadFlags,
}

impl TrainFlags {
    /// When a checkpoint is written.
    pub(crate) fn every(&self) -> Every {
        Every { what: "epoch", n: self.checkpoint_epochs }
    }
}

pub(super) fn versions_kept() -> usize {
    3
}

/// The flags of a training, as a configuration file may hold them.
pub(crate) trait TrainingFlags: Args + Serialize + DeserializeOwned + Clone {
    /// A file of the kind that is learned from, to be named in hints.
    const EXAMPLE: &str;

    /// The file, where one is given.
    fn file(&self) -> Option<&Path>;

    /// Takes over from `typed` what a file may not say.
    fn take_transient(&mut self, typed: &Self);

    /// Whether the data or the place to write to are not known.
    fn lacks_essentials(&self) -> bool;
}

impl TrainingFlags for TrainFlags {
    const EXAMPLE: &str = "ratings.csv";

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

/// Joins the flags and hyper-parameters that were typed with those of the configuration file.
///
/// `model` is the subcommand's name; the file may repeat it as `model = "als"`.
pub(crate) fn join<F, C>(flags: F, config: C, model: &str, given: &Given) -> Result<(F, C)>
where
    F: TrainingFlags,
    C: Args + Serialize + DeserializeOwned,
{
    let Some(path) = flags.file().map(Path::to_owned) else { return Ok((flags, config)) };
    let (flag_names, config_names) = (names::<F>(), names::<C>());
    let mut of_flags = Map::new();
    let mut of_config = Map::new();
    let mut file = read(&path)?;
    if let Some(other) = file.remove("model").filter(|named| named != model) {
        let other = other.as_str().map_or_else(|| other.to_string(), str::to_owned);
        return Err(Failure::usage(format!("{}: the file is for model `{other}`", path.display()))
            .hint(format!("this is `recmill train {model}`")));
    }
    if let Some(key) = ["config", "dry_run", "json", "resume"].into_iter().find(|key| file.contains_key(*key))
    {
        return Err(Failure::usage(format!("{}: `{key}` is typed, and no file says it", path.display()))
            .hint(format!("add --{} to the command", key.replace('_', "-"))));
    }
    for (key, value) in file {
        if flag_names.contains(&key) {
            of_flags.insert(key, value);
        } else if config_names.contains(&key) {
            of_config.insert(key, value);
        } else {
            let known = || flag_names.iter().chain(&config_names).map(String::as_str);
            let failure = Failure::usage(format!("{}: no such key: `{key}`", path.display()));
            return Err(match nearest(&key, known()) {
                Some(name) => failure.hint(format!("there is a key `{name}`")),
                None => {
                    failure.hint(format!("`recmill train {model} --help` lists all keys, - being written _"))
                }
            });
        }
    }
    let mut joined: F = overlay(&path, &flags, of_flags, given)?;
    joined.take_transient(&flags);
    let config = overlay(&path, &config, of_config, given)?;
    if joined.lacks_essentials() {
        return Err(Failure::usage("no data and no model directory to write").hint(format!(
            "name both: recmill train {model} {} --out model, or `data` and `out` in the file",
            F::EXAMPLE
        )));
    }
    Ok((joined, config))
}

/// Takes the hyper-parameters that were not typed from the model at `from`.
pub(crate) fn inherit<C>(from: &Path, config: &C, model: &str, given: &Given) -> Result<C>
where
    C: Serialize + DeserializeOwned,
{
    let directory = ModelDirectory::open(from, Verify::Quick)?;
    let mut learnt = directory.manifest().config.model.as_object().cloned().unwrap_or_default();
    // Of two that exclude each other, the one that is typed replaces the one of the model.
    for (one, other) in [("alpha", "unobserved_weight"), ("unobserved_weight", "alpha")] {
        if given.has(one) {
            learnt.remove(other);
        }
    }
    match learnt.remove("model") {
        Some(Value::String(kind)) if kind == model => overlay(from, config, learnt, given),
        kind => {
            let kind = kind.as_ref().and_then(Value::as_str).unwrap_or("unknown");
            Err(Failure::usage(format!("{} is a model of kind `{kind}`", from.display()))
                .hint(format!("go on with `recmill train {kind}`, or train `{model}` from the beginning")))
        }
    }
}

/// Replaces the file's values by those that were typed.
fn overlay<T>(path: &Path, typed: &T, mut file: Map<String, Value>, given: &Given) -> Result<T>
where
    T: Serialize + DeserializeOwned,
{
    let wrong = |error: serde_json::Error| Failure::usage(format!("{}: {error}", path.display()));
    let Value::Object(typed) = serde_json::to_value(typed).map_err(wrong)? else {
        return Err(Failure::failed("the configuration is no table"));
    };
    for (name, value) in typed {
        if given.has(&name) {
            file.insert(name, value);
        }
    }
    serde_json::from_value(Value::Object(file.clone())).map_err(|error| match culprit::<T>(&file) {
        Some((key, error)) => Failure::usage(format!("{}: `{key}`: {error}", path.display())),
        None => wrong(error),
    })
}

/// Returns the first key whose value is refused by itself, where a `T` can be made of single keys.
fn culprit<T: DeserializeOwned>(file: &Map<String, Value>) -> Option<(&str, serde_json::Error)> {
    serde_json::from_value::<T>(Value::Object(Map::new())).ok()?;
    file.iter().find_map(|(key, value)| {
        let alone = Map::from_iter([(key.clone(), value.clone())]);
        serde_json::from_value::<T>(Value::Object(alone)).err().map(|error| (key.as_str(), error))
    })
}

fn read(path: &Path) -> Result<Map<String, Value>> {
    let text = fs_err::read_to_string(path).map_err(|error| Failure::failed(error.to_string()))?;
    toml::from_str(&text).map_err(|error| {
        Failure::usage(format!("{}: {}", path.display(), error.to_string().trim_end()))
            .hint("the file is TOML: one `name = value` a line, text in quotes")
    })
}

/// The names of the flags of `A`, as fields spell them.
fn names<A: Args>() -> Vec<String> {
    A::augment_args(Command::new("")).get_arguments().map(|argument| argument.get_id().to_string()).collect()
}

/// The name that differs from `typed` in one or two letters, or in dashes for underscores.
fn nearest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.replace('-', "_");
    names
        .map(|name| (distance(&typed, name), name))
        .min()
        .filter(|&(distance, _)| distance <= 2)
        .map(|(_, name)| name)
}

/// Letters to insert, remove or replace to make `b` of `a` (Levenshtein 1966).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Reads `data = "a.csv"` like `data = ["a.csv"]`.
pub(crate) fn one_or_many<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(text) => vec![text],
        OneOrMany::Many(texts) => texts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found() {
        let names = ["factors", "unobserved_weight", "alpha"];
        assert_eq!(nearest("unobserved-weight", names.into_iter()), Some("unobserved_weight"));
        assert_eq!(nearest("factor", names.into_iter()), Some("factors"));
        assert_eq!(nearest("learning_rate", names.into_iter()), None);
    }
}

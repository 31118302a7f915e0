//! Checkpoints: all that the next step depends on, written while training goes on.
//!
//! A checkpoint is a version of a model directory: it is staged, synced, renamed and pruned as one, a crash while it is written
//! leaves the one before, and it predicts as any model does.
//!
//! ```text
//! parameters of the model          as of that step
//! kept_*                           the same, as of the best epoch
//! state_*                          what the optimizers remember; and how many steps they took
//! config.json, under `progress`    the place in the epoch, the sums so far, the epochs that are done, the best of them
//! ```
//!
//! Random numbers are functions of the seed, the epoch and the sample, and need no state.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use recmill_core::{
    Parameter, Parameters,
    directory::{self, Claim, Config, Disk, Epoch, ModelDirectory, Saved, Verify},
    features::Features,
};
use recmill_kernels::{Buffer, Device};
use serde::{Deserialize, Serialize};

use super::{
    collective::Collective,
    descend::{DescentOptions, Learn, Task},
};
use crate::{EpochRecord, Error, Result};

/// Where checkpoints are written, and when.
#[derive(Clone)]
pub struct CheckpointOptions {
    /// A model directory of their own.
    pub folder: PathBuf,
    /// After so many steps, counted from the first of training; of models that learn epoch by epoch, after so many epochs.
    pub every_steps: Option<u64>,
    /// When so much time has passed.
    pub every: Option<Duration>,
    /// How many stay; at least one.
    pub keep: usize,
    /// What is said of the model, for whoever opens a checkpoint.
    pub about: Config,
    /// The file system.
    pub disk: Disk,
}

impl CheckpointOptions {
    /// Two checkpoints in `folder`, written when training is asked to stop and at no other time.
    pub fn new(folder: impl Into<PathBuf>, about: Config) -> Self {
        let (every_steps, every) = (None, None);
        Self { folder: folder.into(), every_steps, every, keep: 2, about, disk: Disk::default() }
    }
}

/// How far training has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Epochs that are done.
    pub done: Vec<EpochRecord>,
    /// Batches of the present epoch that are done.
    pub batches: u64,
    /// The sum of their samples' losses.
    pub loss: f64,
    /// Seconds that they took.
    pub seconds: f64,
    /// The best epoch, and its score: the larger, the better.
    pub best: Option<(u32, f64)>,
    /// The metric that says which epoch is the best.
    pub metric: String,
    /// Epochs without a better one after which training stops.
    pub patience: Option<u32>,
    /// What the numbers above are counted in.
    pub counted: Counted,
    /// The fingerprint of what is learned from: of interactions with what is known of users and items, of rows with which are held out.
    #[serde(default)]
    pub data: String,
    /// That of what is validated on.
    #[serde(default)]
    pub valid: String,
}

/// What is learned from and validated on, as hashes; empty where training neither writes checkpoints nor goes on from one.
#[derive(Clone, Debug, Default)]
pub struct Fingerprints {
    /// That of what is learned from.
    pub data: String,
    /// That of what is validated on.
    pub valid: String,
}

/// What a place in the data means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Samples of an epoch.
    pub samples: u64,
    /// Samples of a step.
    pub batch_size: u64,
    /// Where their order comes from.
    pub seed: u64,
}

impl Position {
    pub(super) fn start(samples: u64, options: &DescentOptions, of: &Fingerprints) -> Self {
        let counted = Counted { samples, batch_size: options.batch_size as u64, seed: options.seed };
        let Fingerprints { data, valid } = of.clone();
        let (metric, patience) = (options.metric.clone(), options.patience);
        Self { counted, metric, patience, data, valid, ..Self::default() }
    }

    /// Refuses to go on from here in a training that begins as `begun`, unless it is of the same.
    ///
    /// # Errors
    /// [`Error::Resume`].
    pub(crate) fn check(&self, begun: &Self) -> Result<()> {
        let (was, is) = (self.counted, begun.counted);
        let number = |n: u64| n.to_string();
        for (what, got, expected) in [
            ("rows to learn from", number(was.samples), number(is.samples)),
            ("batch_size", number(was.batch_size), number(is.batch_size)),
            ("seed", number(was.seed), number(is.seed)),
            ("the hash of the data to learn from", self.data.clone(), begun.data.clone()),
            ("the metric of the best epoch", self.metric.clone(), begun.metric.clone()),
            ("the hash of what is validated on", self.valid.clone(), begun.valid.clone()),
        ] {
            if got != expected {
                return Err(Error::Resume { what, expected, got });
            }
        }
        Ok(())
    }

    /// Returns what a checkpoint says of itself, `about` being what is said of its model.
    pub(crate) fn described(&self, about: &Config) -> Result<(Config, Vec<Epoch>)> {
        let mut position = self.clone();
        for record in &mut position.done {
            // JSON has no word for what is not a number; such a metric is no record's best either.
            record.metrics.retain(|_, value| value.is_finite());
        }
        position.best = position.best.filter(|(_, score)| score.is_finite());
        let epochs = position.done.iter().map(Epoch::from).collect();
        let progress = serde_json::to_value(&position).map_err(std::io::Error::from);
        Ok((Config { progress: progress.map_err(recmill_core::Error::from)?, ..about.clone() }, epochs))
    }

    /// Returns the epoch that is under way, from 1.
    pub(super) fn epoch(&self) -> u32 {
        self.done.len() as u32 + 1
    }
}

/// A checkpoint that was found whole.
#[derive(Debug)]
pub struct Checkpoint {
    /// The version of the model directory.
    pub directory: ModelDirectory,
    /// How far training had come.
    pub position: Position,
    /// Newer ones that are damaged, and how.
    pub damaged: Vec<(PathBuf, recmill_core::Error)>,
}

impl Checkpoint {
    /// Opens the newest checkpoint of `folder` whose every byte is as it was written.
    ///
    /// # Errors
    /// [`Error::Core`] when there is none in the folder, or none that is whole: then the newest one's damage.
    /// [`Error::NoCheckpoint`] when the folder is that of a finished model.
    pub fn newest(folder: &Path) -> Result<Self> {
        let (versions, _) = directory::list_versions(folder)?;
        let mut damaged = Vec::new();
        for version in versions.into_iter().rev() {
            let path = folder.join("versions").join(version.to_string());
            match ModelDirectory::open(&path, Verify::Full) {
                Ok(directory) => {
                    let position = serde_json::from_value(directory.manifest().config.progress.clone())
                        .map_err(|_| Error::NoCheckpoint { path })?;
                    return Ok(Self { directory, position, damaged });
                }
                Err(error) => damaged.push((path, error)),
            }
        }
        let none = || recmill_core::Error::NoModel { path: folder.to_owned() };
        Err(damaged.into_iter().next().map_or_else(none, |(_, error)| error).into())
    }

    /// Returns the state of the learner in memory of its own.
    pub(crate) fn state(&self) -> Result<Parameters> {
        let mut state = Parameters::default();
        for (name, parameter) in self.directory.parameters()?.iter() {
            let what = "a checkpoint";
            let own = match parameter {
                Parameter::Table(table) => Parameter::Table(table.try_copy(Device::Cpu, what)?),
                Parameter::F32(values) => Parameter::F32(Buffer::from_vec(values.to_vec()?, what)?),
                Parameter::U32(values) => Parameter::U32(Buffer::from_vec(values.to_vec()?, what)?),
                Parameter::U64(values) => Parameter::U64(Buffer::from_vec(values.to_vec()?, what)?),
                Parameter::Features(features) => Parameter::Features(Arc::clone(features)),
            };
            state.insert(name, own);
        }
        Ok(state)
    }

    /// Gives `learner` the state that was written, and returns the place to go on from.
    pub(super) fn resume<T: Task, L: Learn<T>>(&self, learner: &mut L, begun: &Position) -> Result<Position> {
        self.position.check(begun)?;
        learner.put_state(self.state()?)?;
        Ok(self.position.clone())
    }
}

/// Writes checkpoints in the course of one training.
pub(super) struct Writer<'a> {
    options: &'a CheckpointOptions,
    features: &'a Features,
    last_at: Instant,
    last: Option<PathBuf>,
    /// Of rank 0, which writes for all.
    _claim: Option<Claim>,
}

impl<'a> Writer<'a> {
    /// Begins; `from` is the checkpoint that training goes on from.
    pub(super) fn new(
        options: &'a CheckpointOptions,
        features: &'a Features,
        from: Option<&Checkpoint>,
        ranks: &dyn Collective,
    ) -> Result<Self> {
        let last = from.map(|checkpoint| checkpoint.directory.path().to_owned());
        let claim = (ranks.rank() == 0).then(|| Claim::on(&options.disk, &options.folder)).transpose()?;
        Ok(Self { options, features, last_at: Instant::now(), last, _claim: claim })
    }

    /// Returns whether it is time for one after `steps` steps.
    pub(super) fn is_due(&self, steps: u64) -> bool {
        self.options.every_steps.is_some_and(|every| steps.is_multiple_of(every.max(1)))
            || self.options.every.is_some_and(|every| self.last_at.elapsed() >= every)
    }

    /// Returns the newest one.
    pub(super) fn last(&self) -> Option<&Path> {
        self.last.as_deref()
    }

    /// Writes one, which rank 0 does for all; the learner is afterwards as it was.
    pub(super) fn write<T: Task, L: Learn<T>>(
        &mut self,
        learner: &mut L,
        position: &Position,
        ranks: &dyn Collective,
    ) -> Result<Option<&Path>> {
        let state = learner.take_state()?;
        let written = match ranks.rank() {
            0 => Some(self.write_state(&state, position)),
            _ => None,
        };
        learner.put_state(state)?;
        self.last_at = Instant::now();
        if let Some(written) = written {
            self.last = Some(written?);
        }
        Ok(self.last())
    }

    fn write_state(&self, state: &Parameters, position: &Position) -> Result<PathBuf> {
        let (about, epochs) = position.described(&self.options.about)?;
        let saved = Saved::ranker(&about, self.features, state, &epochs);
        Ok(directory::save_on(&self.options.disk, &self.options.folder, &saved, self.options.keep)?)
    }
}

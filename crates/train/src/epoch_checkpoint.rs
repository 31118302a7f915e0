//! Checkpoints of models that learn epoch by epoch: written between two epochs, and gone on from.
//!
//! As all checkpoints they are versions of a model directory, with the users, items and history of the model:
//!
//! ```text
//! parameters of the model          as of the best epoch so far; as of the last one where nothing is validated
//! state_*                          what the learner gives away: the parameters of this epoch, what its optimizers remember
//! config.json, under `progress`    the epochs that are done, the best of them, and the data that was learned from
//! ```

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use arrow::array::RecordBatch;
use recmill_core::{
    Dataset,
    directory::{self, Claim, Saved},
    models::{self, ModelConfig},
};
use recmill_kernels::Device;

use crate::{
    EpochRecord, Error, Learner, Result, Training, Validation,
    fit::{Begun, Best},
    gradient::{Checkpoint, CheckpointOptions, Counted, Position},
};

const STATE: &str = "state_";

/// Where checkpoints of a model of users and items are written, when, and what is stored with them.
pub struct EpochCheckpoints<'a> {
    /// Where and when; `every_steps` counts epochs, and `every` is looked at after each.
    pub options: CheckpointOptions,
    /// The users, items and history of the model, what was held out among them.
    pub dataset: &'a Dataset,
    /// Columns of the items.
    pub item_attributes: Option<&'a RecordBatch>,
    /// Columns of the users.
    pub user_attributes: Option<&'a RecordBatch>,
}

/// Writes checkpoints in the course of one training.
pub(crate) struct EpochWriter<'a> {
    to: &'a EpochCheckpoints<'a>,
    begun: Position,
    last_at: Instant,
    _claim: Claim,
}

impl<'a> EpochWriter<'a> {
    /// Begins; `begun` says what training is of.
    ///
    /// # Errors
    /// [`Error::Core`] where another training writes its checkpoints there.
    pub(crate) fn new(to: &'a EpochCheckpoints<'a>, begun: Position) -> Result<Self> {
        let claim = Claim::on(&to.options.disk, &to.options.folder)?;
        Ok(Self { to, begun, last_at: Instant::now(), _claim: claim })
    }

    /// Returns whether it is time for one after `epoch`.
    pub(crate) fn is_due(&self, epoch: u32) -> bool {
        let options = &self.to.options;
        let passed = |every: Duration| self.last_at.elapsed() >= every;
        options.every_steps.is_some_and(|every| u64::from(epoch).is_multiple_of(every.max(1)))
            || options.every.is_some_and(passed)
    }

    /// Writes one; the learner is afterwards as it was.
    pub(crate) fn write(
        &mut self,
        learner: &mut dyn Learner,
        done: &[EpochRecord],
        best: &Best,
    ) -> Result<PathBuf> {
        let mut parameters = match &best.model {
            Some(model) => model.parameters()?,
            None => learner.snapshot()?.parameters()?,
        };
        let state = learner.take_state()?;
        let state = state.map_tables(|table| table.moved_to(Device::Cpu, "a checkpoint"))?;
        parameters.extend_prefixed(STATE, state);
        let best = best.model.as_ref().map(|_| (best.epoch, best.score));
        let position = Position { done: done.to_vec(), best, ..self.begun.clone() };
        let options = &self.to.options;
        let (about, epochs) = position.described(&options.about)?;
        let saved = Saved {
            config: &about,
            parameters: &parameters,
            dataset: self.to.dataset,
            item_attributes: self.to.item_attributes,
            user_attributes: self.to.user_attributes,
            epochs: &epochs,
            features: None,
            classes: None,
        };
        let written = directory::save_on(&options.disk, &options.folder, &saved, options.keep);
        learner.put_state(parameters.take_prefixed(STATE))?;
        self.last_at = Instant::now();
        Ok(written?)
    }
}

impl Position {
    /// Describes a training of epochs before its first one.
    pub(crate) fn of_epochs(training: &Training<'_>, validation: Option<&dyn Validation>) -> Self {
        let data = training.data;
        let counted = Counted { samples: data.by_user().nnz() as u64, batch_size: 0, seed: training.seed };
        let mut fingerprint = data.fingerprint();
        for described in [training.users, training.items].into_iter().flatten() {
            fingerprint += &format!("-{}", described.fingerprint());
        }
        Self {
            counted,
            metric: validation.map_or_else(String::new, |validation| validation.metric().to_owned()),
            valid: validation.map_or_else(String::new, Validation::fingerprint),
            patience: training.patience,
            data: fingerprint,
            ..Self::default()
        }
    }
}

impl Checkpoint {
    /// Gives `learner` the state that was written, and returns what had been done; `begun` is what this training of so many `epochs` is of.
    pub(crate) fn resume_epochs(
        &self,
        learner: &mut dyn Learner,
        config: &ModelConfig,
        data: &Dataset,
        begun: &Position,
        epochs: u32,
    ) -> Result<Begun> {
        let position = &self.position;
        position.check(begun)?;
        if position.done.len() as u32 > epochs {
            let (expected, got) = (epochs.to_string(), position.done.len().to_string());
            return Err(Error::Resume { what: "epochs", expected, got });
        }
        let mut parameters = self.state()?;
        learner.put_state(parameters.take_prefixed(STATE))?;
        let best = match position.best {
            Some((epoch, score)) => {
                let model = models::open(config, parameters, data.n_users(), data.n_items())?;
                Best { epoch, score, model: Some(model) }
            }
            None => Best::default(),
        };
        Ok(Begun { epochs: position.done.clone(), best })
    }
}

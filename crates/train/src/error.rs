//! Why training was refused, or went wrong.

use crate::Prediction;

/// The crate's one error type: variants carry values, not prose.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Data, a model or a metric was refused.
    #[error(transparent)]
    Core(#[from] recmill_core::Error),
    /// An operation was refused.
    #[error(transparent)]
    Kernel(#[from] recmill_kernels::Error),
    /// Training would take more memory than the machine has left; nothing has been allocated.
    #[error("{model} needs {predicted}, and this machine has {} left", crate::memory::Bytes(*available))]
    TooLarge {
        /// The model that was to be trained.
        model: &'static str,
        /// What it would take, part by part.
        predicted: Prediction,
        /// Bytes that are left.
        available: u64,
    },
    /// Training would take more memory than the device has left; nothing has been allocated.
    #[error("{model} needs {predicted} on {device}, which has {} left", crate::memory::Bytes(*available))]
    TooLargeForDevice {
        /// The model that was to be trained.
        model: &'static str,
        /// The device.
        device: recmill_kernels::Device,
        /// What it would take, part by part.
        predicted: Prediction,
        /// Bytes that are left.
        available: u64,
    },
    /// There is nothing to learn from.
    #[error("the training data have no {what}")]
    NoData {
        /// What there is none of.
        what: &'static str,
    },
    /// A value that this model cannot learn from.
    #[error("{model} takes {expected}, user `{user}` and item `{item}` have `{value}`")]
    Value {
        /// The model.
        model: &'static str,
        /// What would have been right.
        expected: &'static str,
        /// The user's id.
        user: String,
        /// The item's id.
        item: String,
        /// The value found.
        value: f32,
    },
    /// The model that training starts from is not of the kind or size that is trained.
    #[error("the model to start from has {what} {got}, this training has `{expected}`")]
    Start {
        /// What differs.
        what: &'static str,
        /// What this training has.
        expected: String,
        /// What the model has.
        got: String,
    },
    /// The loss or a score is NaN or infinite, so the parameters are worth nothing.
    #[error("training diverged in epoch {epoch}: {found}")]
    Diverged {
        /// The epoch.
        epoch: u32,
        /// What is not finite.
        found: NotFinite,
    },
    /// The loss of a step is NaN or infinite, so the step was not taken.
    #[error("the loss of step {step} in epoch {epoch} is not finite; first rows: {rows}")]
    NotFiniteLoss {
        /// The epoch, from 1.
        epoch: u32,
        /// The step, from 1 over all epochs.
        step: u64,
        /// Files and lines of the first rows whose scores are not finite.
        rows: String,
        /// The last checkpoint before it, where there is one.
        checkpoint: Option<std::path::PathBuf>,
    },
    /// A model that is no checkpoint cannot be gone on from.
    #[error("{} is a finished model, not a checkpoint of one in training", path.display())]
    NoCheckpoint {
        /// The version.
        path: std::path::PathBuf,
    },
    /// A checkpoint is of another training.
    #[error("{what}: the checkpoint has `{got}`, this training `{expected}`")]
    Resume {
        /// What differs.
        what: &'static str,
        /// What this training has.
        expected: String,
        /// What the checkpoint has.
        got: String,
    },
    /// Validation measures no metric of this name.
    #[error("validation measures {known}, not `{metric}`")]
    UnknownMetric {
        /// The metric asked for.
        metric: String,
        /// The metrics there are.
        known: String,
    },
    /// A rank that trained beside this one has gone, for a reason of its own.
    #[error("rank {rank} of the training has gone")]
    RankLost {
        /// Which.
        rank: usize,
    },
    /// The model has no parameters that are learned epoch by epoch in this way.
    #[error("{what} cannot be used: {reason}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        reason: &'static str,
    },
}

/// What is not finite after training diverged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotFinite {
    /// The loss.
    #[error("its loss is `{0}`")]
    Loss(f64),
    /// What the model is asked with, or what it answers.
    #[error("{what} is not finite, in row `{row}` of a table")]
    Value {
        /// Which values.
        what: &'static str,
        /// The first such row.
        row: u64,
    },
}

impl Error {
    /// Says that it was in this epoch, where parameters or scores are found to be not finite once the epoch is over.
    pub(crate) fn diverged_in(self, epoch: u32) -> Self {
        match self {
            Error::Kernel(recmill_kernels::Error::NotFinite { what, row, .. })
            | Error::Core(recmill_core::Error::Kernel(recmill_kernels::Error::NotFinite {
                what, row, ..
            })) => Error::Diverged { epoch, found: NotFinite::Value { what, row } },
            other => other,
        }
    }

    /// Says which checkpoint was the last before a loss that is not finite.
    pub(crate) fn after(self, last: Option<&std::path::Path>) -> Self {
        match self {
            Error::NotFiniteLoss { epoch, step, rows, .. } => {
                Error::NotFiniteLoss { epoch, step, rows, checkpoint: last.map(std::path::Path::to_owned) }
            }
            other => other,
        }
    }
}

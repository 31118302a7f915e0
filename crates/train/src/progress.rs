//! What training tells whoever waits for it.
//!
//! The library prints nothing: the command draws a bar, a test collects the records, a program may ignore them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::memory::MemoryPlan;

/// One epoch of training; a line of `history.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The epoch, from 1.
    pub epoch: u32,
    /// Seconds of parameter updates alone.
    pub seconds: f64,
    /// Seconds of validation.
    pub eval_seconds: f64,
    /// Seconds of computing the loss, where that is a pass of its own.
    pub loss_seconds: f64,
    /// The most bytes of main memory that the process had held by then, where the system tells.
    #[serde(default)]
    pub peak_memory_bytes: Option<u64>,
    /// The training loss, where the model has one.
    pub loss: Option<f64>,
    /// What validation measured.
    pub metrics: BTreeMap<String, f64>,
}

impl From<&EpochRecord> for recmill_core::directory::Epoch {
    fn from(record: &EpochRecord) -> Self {
        let metrics = record.metrics.iter().map(|(name, &value)| (name.clone(), value.into())).collect();
        Self {
            epoch: record.epoch.into(),
            seconds: record.seconds,
            eval_seconds: record.eval_seconds,
            loss_seconds: record.loss_seconds,
            peak_memory_bytes: record.peak_memory_bytes,
            loss: record.loss,
            metrics,
        }
    }
}

/// What is known before the first epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The model, such as `als`.
    pub model: &'static str,
    /// Epochs at most.
    pub epochs: u32,
    /// Interactions that an epoch goes through.
    pub n_interactions: u64,
    /// Users there are.
    pub n_users: u64,
    /// Items there are.
    pub n_items: u64,
    /// The memory that training will take, and what there is.
    pub memory: MemoryPlan,
}

/// Listens to training; every method may be left out.
pub trait Progress {
    /// Training is about to begin; nothing large has been allocated.
    fn planned(&mut self, _plan: &Plan) {}

    /// A step was taken, by a model that learns by gradients.
    fn step(&mut self, _record: &crate::gradient::StepRecord) {}

    /// A checkpoint was written after so many steps; after so many epochs by a model that learns epoch by epoch.
    fn checkpoint(&mut self, _done: u64, _path: &std::path::Path) {}

    /// An epoch is over.
    fn epoch(&mut self, _record: &EpochRecord) {}
}

/// Listens to nothing.
impl Progress for () {}

/// Keeps the records.
impl Progress for Vec<EpochRecord> {
    fn epoch(&mut self, record: &EpochRecord) {
        self.push(record.clone());
    }
}

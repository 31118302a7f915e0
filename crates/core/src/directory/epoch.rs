//! How one epoch of training went: a line of `history.jsonl`.

use serde::{Deserialize, Serialize};

/// One epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Which, from 1.
    pub epoch: u64,
    /// Seconds of parameter updates alone.
    pub seconds: f64,
    /// Seconds of evaluation on the validation data.
    #[serde(default)]
    pub eval_seconds: f64,
    /// Seconds of computing the loss, where that is apart from the updates.
    #[serde(default)]
    pub loss_seconds: f64,
    /// The most bytes of main memory that the process had held by then, where the system tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// The loss after the epoch, where it was computed.
    #[serde(default)]
    pub loss: Option<f64>,
    /// Validation metrics by name.
    #[serde(default)]
    pub metrics: serde_json::Map<String, serde_json::Value>,
}

//! What is shown of a training by gradients while it runs, and told when it has ended.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use recmill_train::{
    Ended, EpochRecord, Progress,
    gradient::{Descent, StepRecord},
    memory::MemoryPlan,
};

use crate::{
    output::{bytes, counted, note, seconds},
    progress::{self, Bar},
};

/// Tells what training will take, and what else that is not counted.
pub(super) fn tell_of_memory(plan: &MemoryPlan, beside: &str) {
    note!("training will take {}{beside}; {} are free", plan.host, bytes(plan.host_free));
    if let Some(memory) = &plan.on_device {
        let free = match plan.device_free {
            u64::MAX => "how much is free, its driver does not say".to_owned(),
            free => format!("{} are free", bytes(free)),
        };
        note!("and {memory} on {}; {free}", plan.device);
    }
}

/// Tells why training ended and what was kept.
pub(super) fn tell_of_ending(descent: &Descent, metric: &str) {
    let done = descent.epochs.len() as u32;
    match descent.ended {
        Ended::Epochs => {}
        Ended::NoImprovement => {
            note!("stopped: {metric} has not improved since epoch {}", descent.kept_epoch)
        }
        Ended::Asked => note!("stopped as asked in epoch {done}"),
    }
    let kept = descent.epochs.iter().find(|epoch| epoch.epoch == descent.kept_epoch);
    if let Some(value) = kept.and_then(|epoch| epoch.metrics.get(metric)) {
        note!("keeping epoch {} of {done}: {metric} {value:.4}", descent.kept_epoch);
    }
}

/// Draws the bar on a terminal, writes a line an epoch elsewhere.
pub(super) struct Watch {
    metric: String,
    bar: Option<Bar>,
    begun: Instant,
    epochs: usize,
    /// Rows that the present epoch has learned from; fewer than all where it is stopped.
    rows: u64,
    /// The newest checkpoint.
    pub(super) last_checkpoint: Option<PathBuf>,
}

impl Watch {
    pub(super) fn new(model: &str, epochs: usize, metric: &str, rows: u64) -> Self {
        Self {
            metric: metric.to_owned(),
            bar: Some(Bar::steps(format!("training {model}"), rows * epochs as u64)),
            begun: Instant::now(),
            epochs,
            rows: 0,
            last_checkpoint: None,
        }
    }
}

impl Progress for Watch {
    fn step(&mut self, record: &StepRecord) {
        self.rows = record.samples;
        if let Some(bar) = &self.bar {
            let done = u64::from(record.epoch - 1) * record.of + record.samples;
            bar.at(done);
            let rate = done as f64 / self.begun.elapsed().as_secs_f64().max(1e-9);
            bar.message(format!("epoch {}  loss {:.4}  {:.0} rows/s", record.epoch, record.loss, rate));
        }
    }

    fn checkpoint(&mut self, steps: u64, path: &Path) {
        note!("checkpoint after {}: {}", counted(steps, "step"), path.display());
        self.last_checkpoint = Some(path.to_owned());
    }

    fn epoch(&mut self, record: &EpochRecord) {
        if progress::is_silent() {
            return;
        }
        let loss = record.loss.map(|loss| format!("  loss {loss:.4}")).unwrap_or_default();
        let metric = record.metrics.get(&self.metric).map(|value| format!("  {} {value:.4}", self.metric));
        let rate = self.rows as f64 / record.seconds.max(1e-9);
        note!(
            "epoch {}/{}{loss}{}  {rate:.0} rows/s  {}",
            record.epoch,
            self.epochs,
            metric.unwrap_or_default(),
            seconds(record.seconds)
        );
    }
}

//! What is shown of a training by gradients while it runs, and told when it has ended.

use std::{path::Path, time::Instant};

use recmill_train::{
    Ended, EpochRecord, Progress,
    gradient::{Descent, StepRecord},
};

use crate::{
    output::{count, note, seconds},
    progress::{self, Bar},
};

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
}

impl Watch {
    pub(super) fn new(model: &str, epochs: usize, metric: &str, rows: u64) -> Self {
        Self {
            metric: metric.to_owned(),
            bar: Some(Bar::steps(format!("training {model}"), rows * epochs as u64)),
            begun: Instant::now(),
            epochs,
            rows: 0,
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
        note!("checkpoint after {} steps: {}", count(steps), path.display());
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

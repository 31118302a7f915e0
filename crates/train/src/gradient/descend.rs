//! The loop: epoch -> batch -> step -> checkpoint -> evaluate -> keep the best.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use recmill_core::{Parameters, features::Features};

use super::{
    checkpoint::{Checkpoint, CheckpointOptions, Fingerprints, Position, Writer},
    collective::{Collective, all_gather, part},
    loader::load_ahead,
    order::Order,
};
use crate::{Ended, EpochRecord, Error, Progress, Result, memory::peak_bytes};

/// What differs between models that learn by gradients.
pub trait Task: Sync {
    /// Some samples, made ready for a step.
    type Batch: Default + Send;

    /// Returns the samples of an epoch.
    fn n_samples(&self) -> u64;

    /// Fills `batch` with these samples of an epoch in this order; called in threads of the loader's.
    fn load(&self, epoch: u32, samples: &[u64], batch: &mut Self::Batch);
}

/// Parameters that a task's batches move.
///
/// Of several ranks each has a part of every batch, and calls each of these when the others do.
pub trait Learn<T: Task> {
    /// Takes one step with this rank's part of a batch and returns the whole batch's mean loss.
    ///
    /// # Errors
    /// [`Error::NotFiniteLoss`] when the loss is NaN or infinite, [`Error::Kernel`].
    fn step(&mut self, batch: &T::Batch, at: Step) -> Result<f64>;

    /// Measures the present parameters on what is held out; `None` where nothing is. Every rank returns the same.
    ///
    /// # Errors
    /// [`Error::Core`], [`Error::Kernel`].
    fn validate(&mut self) -> Result<Option<BTreeMap<String, f64>>>;

    /// Remembers the present parameters as the best so far.
    ///
    /// # Errors
    /// [`Error::Kernel`] when there is no memory for a copy.
    fn keep(&mut self) -> Result<()>;

    /// Goes back to the parameters that were kept, if any were.
    fn restore_kept(&mut self);

    /// Gives away all that later steps depend on, for as long as a checkpoint is written; rank 0 all of all ranks.
    ///
    /// # Errors
    /// [`Error::Kernel`] when there is no memory for a copy of the dense part; [`Error::Unsupported`] from a model that keeps no
    /// checkpoints, as all do that say nothing else.
    fn take_state(&mut self) -> Result<Parameters> {
        Err(NO_CHECKPOINTS)
    }

    /// Takes it back, or takes what another process gave away.
    ///
    /// # Errors
    /// [`Error::Core`], [`Error::Kernel`] when it is not of this model; [`Error::Unsupported`] as for [`Learn::take_state`].
    fn put_state(&mut self, _state: Parameters) -> Result<()> {
        Err(NO_CHECKPOINTS)
    }
}

const NO_CHECKPOINTS: Error = Error::Unsupported { what: "a checkpoint", reason: "this model keeps none" };

/// Where a step stands in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The epoch, from 1.
    pub epoch: u32,
    /// Steps before this one.
    pub step: u64,
    /// Steps there will be, if training is not stopped.
    pub steps: u64,
}

/// What is told of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepRecord {
    /// The epoch, from 1.
    pub epoch: u32,
    /// Samples of this epoch that have been learned from.
    pub samples: u64,
    /// Samples of an epoch.
    pub of: u64,
    /// The mean loss of the epoch so far.
    pub loss: f64,
}

/// How long to train, and which epoch to keep.
#[derive(Clone, Debug, PartialEq)]
pub struct DescentOptions {
    /// Epochs at most.
    pub epochs: u32,
    /// Samples a step.
    pub batch_size: usize,
    /// Decides the order of samples.
    pub seed: u64,
    /// The metric that decides which epoch is the best.
    pub metric: String,
    /// Stop after so many epochs in a row that did not improve the metric.
    pub patience: Option<u32>,
    /// Threads that make batches ready.
    pub loader_threads: usize,
}

/// What training leaves behind on its way, and what it goes on from.
#[derive(Clone, Default)]
pub struct Checkpoints<'a> {
    /// Where checkpoints are written, and how rows became features; none are written without.
    pub write: Option<(&'a CheckpointOptions, &'a Features)>,
    /// Where training goes on; it begins at the beginning without.
    pub resume: Option<&'a Checkpoint>,
    /// What a training is of that goes on from one: the same, or it is refused.
    pub of: Fingerprints,
}

/// How training went.
#[derive(Clone, Debug, PartialEq)]
pub struct Descent {
    /// Every epoch that was done.
    pub epochs: Vec<EpochRecord>,
    /// The epoch whose parameters were kept.
    pub kept_epoch: u32,
    /// Why training ended.
    pub ended: Ended,
}

/// Trains until the epochs are done, validation no longer improves, or `stop` is set.
///
/// # Errors
/// Whatever a step, validation or the writing of a checkpoint refuses; [`Error::UnknownMetric`]; [`Error::Resume`] for a
/// checkpoint of another training.
///
/// # Determinism
/// Everything but the seconds depends on the task, the learner and the seed alone: not on the loader's threads, and not on where
/// training was interrupted and resumed. The samples of a batch and the random numbers do not depend on how many ranks
/// share it.
pub fn descend<T: Task, L: Learn<T>>(
    task: &T,
    learner: &mut L,
    options: &DescentOptions,
    checkpoints: Checkpoints<'_>,
    ranks: &dyn Collective,
    stop: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Descent> {
    let n = task.n_samples();
    let batch_size = options.batch_size as u64;
    let batches = n.div_ceil(batch_size);
    let steps = batches * u64::from(options.epochs);
    // Of several labels each has its own, such as `logloss/bought`.
    let metric = options.metric.split('/').next().unwrap_or_default();
    let smaller_is_better = matches!(metric, "logloss" | "expected_calibration_error");
    let mut at = Position::start(n, options, &checkpoints.of);
    if let Some(checkpoint) = checkpoints.resume {
        at = checkpoint.resume(learner, &at)?;
    }
    let writer = |(options, features)| Writer::new(options, features, checkpoints.resume, ranks);
    let mut writer = checkpoints.write.map(writer).transpose()?;
    let mut ended = Ended::Epochs;
    while at.epoch() <= options.epochs {
        let epoch = at.epoch();
        let (begun, before) = (Instant::now(), at.seconds);
        let order = Order::new(n, options.seed, epoch);
        let place = |batch: u64| batch * batch_size..((batch + 1) * batch_size).min(n);
        let (rank, size) = (ranks.rank(), ranks.size());
        let load = |batch: u64, into: &mut T::Batch| {
            let places = place(batch);
            let own = part((places.end - places.start) as usize, rank, size);
            let samples = own.map(|own| order.sample(places.start + own as u64));
            task.load(epoch, &samples.collect::<Vec<u64>>(), into);
        };
        load_ahead(at.batches..batches, options.loader_threads, load, |batch, loaded: &T::Batch| {
            let step = u64::from(epoch - 1) * batches + batch;
            let loss = learner
                .step(loaded, Step { epoch, step, steps })
                .map_err(|error| error.diverged_in(epoch).after(writer.as_ref().and_then(Writer::last)))?;
            let places = place(batch);
            at.batches = batch + 1;
            at.loss += loss * (places.end - places.start) as f64;
            at.seconds = before + begun.elapsed().as_secs_f64();
            let loss = at.loss / places.end as f64;
            progress.step(&StepRecord { epoch, samples: places.end, of: n, loss });
            let asked = decided(ranks, stop.load(Ordering::Relaxed))?;
            if let Some(writer) = &mut writer
                && decided(ranks, asked || writer.is_due(step + 1))?
                && let Some(path) = writer.write(learner, &at, ranks)?
            {
                progress.checkpoint(step + 1, path);
            }
            if asked { Err(Halt::Asked) } else { Ok(()) }
        })
        .or_else(|halt| match halt {
            Halt::Asked => {
                ended = Ended::Asked;
                Ok(())
            }
            Halt::Failed(error) => Err(error),
        })?;
        let learned = (at.batches * batch_size).min(n).max(1);
        let mut record =
            EpochRecord { epoch, loss: Some(at.loss / learned as f64), ..EpochRecord::default() };
        record.seconds = before + begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        if let Some(metrics) = learner.validate()? {
            record.eval_seconds = begun.elapsed().as_secs_f64();
            let value = *metrics.get(&options.metric).ok_or_else(|| Error::UnknownMetric {
                metric: options.metric.clone(),
                known: metrics.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
            })?;
            let score = if smaller_is_better { -value } else { value };
            record.metrics = metrics;
            let better = |highest: f64| score > highest || (highest.is_nan() && !score.is_nan());
            // On few rows many epochs are right equally often, and how sure they are tells them apart.
            let loss_of = |record: &EpochRecord| record.metrics.get("logloss").copied();
            let surer = |best: u32| {
                let of_best = at.done.iter().find(|record| record.epoch == best).and_then(loss_of);
                loss_of(&record).zip(of_best).is_some_and(|(loss, of_best)| loss < of_best)
            };
            if at.best.is_none_or(|(best, highest)| better(highest) || (score == highest && surer(best))) {
                at.best = Some((epoch, score));
                learner.keep()?;
            }
        }
        record.peak_memory_bytes = peak_bytes();
        progress.epoch(&record);
        at.done.push(record);
        (at.batches, at.loss, at.seconds) = (0, 0.0, 0.0);
        if ended == Ended::Asked {
            break;
        }
        let since = at.best.map_or(0, |(best, _)| epoch - best);
        if options.patience.is_some_and(|patience| since >= patience.max(1)) {
            ended = Ended::NoImprovement;
            break;
        }
    }
    let done = at.done.len() as u32;
    let kept_epoch = at.best.map_or(done, |(epoch, _)| epoch);
    if kept_epoch != done {
        learner.restore_kept();
    }
    Ok(Descent { epochs: at.done, kept_epoch, ended })
}

/// Names the files' lines of the first rows of a batch whose scores, `[rows, width]`, are not finite.
pub(super) fn not_finite<'a>(
    at: Step,
    scores: &[f32],
    width: usize,
    line: impl Fn(usize) -> (&'a str, u64),
) -> Error {
    let rows = scores.chunks(width).enumerate();
    let bad = rows.filter(|(_, scores)| scores.iter().any(|score| !score.is_finite()));
    let places: Vec<String> = bad
        .take(3)
        .map(|(row, _)| {
            let (file, line) = line(row);
            format!("{file}:{line}")
        })
        .collect();
    Error::NotFiniteLoss { epoch: at.epoch, step: at.step + 1, rows: places.join(", "), checkpoint: None }
}

/// Returns what rank 0 has decided.
fn decided(ranks: &dyn Collective, own: bool) -> Result<bool> {
    if ranks.size() == 1 {
        return Ok(own);
    }
    Ok(all_gather(ranks, &[u8::from(own)])?[0] == [1])
}

/// Why an epoch ends before its last batch.
enum Halt {
    Asked,
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Halt::Failed(error)
    }
}

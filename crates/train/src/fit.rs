//! The training loop, the same for every model.
//!
//! ```text
//! for each epoch:  learn -> loss -> validate -> tell -> stop early? -> write a checkpoint -> asked to stop?
//! then:            back to the best epoch -> the model's last step
//! ```

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use recmill_core::models::Retriever;

use crate::{
    EpochRecord, Error, Learner, NotFinite, Progress, Result, epoch_checkpoint::EpochWriter,
    memory::peak_bytes,
};

/// How long to train, and which epoch to keep.
#[derive(Clone, Debug, PartialEq)]
pub struct FitOptions {
    /// Epochs at most.
    pub epochs: u32,
    /// Stop after so many epochs in a row that did not improve the metric; `None` goes through all epochs.
    pub patience: Option<u32>,
    /// Whether to compute the loss of each epoch where that takes a pass of its own.
    pub loss: bool,
}

/// Measures a model on data that it does not learn from.
pub trait Validation {
    /// Returns the metric that decides which epoch is the best, such as `ndcg@10`.
    fn metric(&self) -> &str;

    /// Returns whether a smaller value of the metric is better, as for `rmse`.
    fn smaller_is_better(&self) -> bool {
        false
    }

    /// Returns a hash of what is measured on, so that a training that goes on is measured on the same; empty where there is none.
    fn fingerprint(&self) -> String {
        String::new()
    }

    /// Returns all metrics of `model` by name.
    ///
    /// # Errors
    /// [`Error::Core`] when the model refuses a question.
    fn measure(&mut self, model: &dyn Retriever) -> Result<BTreeMap<String, f64>>;
}

/// Why training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All epochs were done.
    Epochs,
    /// The metric had not improved for as many epochs as the patience.
    NoImprovement,
    /// The stop flag was set.
    Asked,
}

/// A trained model and how it came about.
pub struct Trained {
    /// The model.
    pub model: Box<dyn Retriever>,
    /// Every epoch that was done.
    pub epochs: Vec<EpochRecord>,
    /// The epoch that was kept: the best by validation, otherwise the last; 0 when none was done.
    pub kept_epoch: u32,
    /// Why training ended.
    pub ended: Ended,
}

/// Trains until the epochs are done, validation no longer improves, or `stop` is set.
///
/// `stop` is looked at after each epoch, so what is returned is always the work of whole epochs.
///
/// # Errors
/// [`Error::Diverged`] when the loss is not finite; [`Error::UnknownMetric`]; whatever the learner and the validation
/// refuse.
///
/// # Determinism
/// Everything but the seconds depends on the learner and the validation alone.
pub fn fit(
    learner: Box<dyn Learner + '_>,
    options: &FitOptions,
    validation: Option<&mut dyn Validation>,
    stop: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Trained> {
    go_on(learner, Course { options, begun: Begun::default(), writer: None }, validation, stop, progress)
}

/// What the loop goes through, from where, and what it leaves on the way.
pub(crate) struct Course<'a> {
    pub(crate) options: &'a FitOptions,
    pub(crate) begun: Begun,
    pub(crate) writer: Option<EpochWriter<'a>>,
}

/// What had been done when a checkpoint was written.
#[derive(Default)]
pub(crate) struct Begun {
    pub(crate) epochs: Vec<EpochRecord>,
    pub(crate) best: Best,
}

/// As [`fit`], from where a checkpoint was written, and writing some.
pub(crate) fn go_on(
    mut learner: Box<dyn Learner + '_>,
    course: Course<'_>,
    mut validation: Option<&mut dyn Validation>,
    stop: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Trained> {
    let Course { options, begun: Begun { mut epochs, mut best }, mut writer } = course;
    if options.epochs == 1 && epochs.is_empty() {
        return fit_once(learner, options, validation, progress);
    }
    let mut ended = Ended::Epochs;
    for epoch in epochs.len() as u32 + 1..=options.epochs {
        let mut record = learn(&mut *learner, epoch, options)?;
        if let Some(validation) = validation.as_deref_mut() {
            timed(&mut record.eval_seconds, || {
                let model = learner.snapshot().map_err(|error| error.diverged_in(epoch))?;
                record.metrics = validation.measure(&*model).map_err(|error| error.diverged_in(epoch))?;
                best.consider(epoch, score(validation, &record.metrics)?, model);
                Ok(())
            })?;
        }
        record.peak_memory_bytes = peak_bytes();
        progress.epoch(&record);
        epochs.push(record);
        if options.patience.is_some_and(|patience| best.epochs_without_improvement(epoch) >= patience.max(1))
        {
            ended = Ended::NoImprovement;
            break;
        }
        let asked = stop.load(Ordering::Relaxed);
        if let Some(writer) = &mut writer
            && epoch < options.epochs
            && (asked || writer.is_due(epoch))
        {
            let path = writer.write(&mut *learner, &epochs, &best)?;
            progress.checkpoint(epoch.into(), &path);
        }
        if asked {
            ended = Ended::Asked;
            break;
        }
    }
    let last_epoch = epochs.len() as u32;
    let kept_epoch = if best.model.is_some() { best.epoch } else { last_epoch };
    if let Some(model) = best.model.filter(|_| kept_epoch != last_epoch) {
        learner.restore(model.parameters()?)?;
    }
    let model = learner.finish().map_err(|error| error.diverged_in(last_epoch))?;
    Ok(Trained { model, epochs, kept_epoch, ended })
}

/// Goes through the data once: there is no epoch to choose, so what is validated is the model itself and not a copy.
fn fit_once(
    mut learner: Box<dyn Learner + '_>,
    options: &FitOptions,
    validation: Option<&mut dyn Validation>,
    progress: &mut dyn Progress,
) -> Result<Trained> {
    let mut record = learn(&mut *learner, 1, options)?;
    let model = learner.finish()?;
    if let Some(validation) = validation {
        record.metrics = timed(&mut record.eval_seconds, || validation.measure(&*model))?;
        score(validation, &record.metrics)?;
    }
    record.peak_memory_bytes = peak_bytes();
    progress.epoch(&record);
    Ok(Trained { model, epochs: vec![record], kept_epoch: 1, ended: Ended::Epochs })
}

/// Does one epoch and finds its loss.
fn learn(learner: &mut dyn Learner, epoch: u32, options: &FitOptions) -> Result<EpochRecord> {
    let mut record = EpochRecord { epoch, ..EpochRecord::default() };
    record.loss = timed(&mut record.seconds, || learner.epoch(epoch))?;
    if options.loss && record.loss.is_none() {
        record.loss = timed(&mut record.loss_seconds, || learner.loss())?;
    }
    match record.loss {
        Some(loss) if !loss.is_finite() => Err(Error::Diverged { epoch, found: NotFinite::Loss(loss) }),
        _ => Ok(record),
    }
}

/// The best epoch so far; the first of equals.
#[derive(Default)]
pub(crate) struct Best {
    pub(crate) epoch: u32,
    pub(crate) score: f64,
    pub(crate) model: Option<Box<dyn Retriever>>,
}

impl Best {
    fn consider(&mut self, epoch: u32, score: f64, model: Box<dyn Retriever>) {
        // A NaN is never better, and anything is better than nothing.
        if self.model.is_none() || score > self.score || (self.score.is_nan() && !score.is_nan()) {
            *self = Self { epoch, score, model: Some(model) };
        }
    }

    fn epochs_without_improvement(&self, epoch: u32) -> u32 {
        if self.model.is_some() { epoch - self.epoch } else { 0 }
    }
}

/// Returns the deciding metric, turned so that larger is better.
fn score(validation: &dyn Validation, metrics: &BTreeMap<String, f64>) -> Result<f64> {
    let value = metrics.get(validation.metric()).ok_or_else(|| Error::UnknownMetric {
        metric: validation.metric().to_owned(),
        known: metrics.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
    })?;
    Ok(if validation.smaller_is_better() { -value } else { *value })
}

fn timed<T>(seconds: &mut f64, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let done = work();
    *seconds = start.elapsed().as_secs_f64();
    done
}

#[cfg(test)]
mod tests {
    use recmill_core::{Batch, Parameter, Parameters, Workspace};
    use recmill_kernels::Buffer;

    use super::*;

    /// A model that is one number: how many epochs it has learned.
    struct Counter(f32);

    impl Retriever for Counter {
        fn n_users(&self) -> usize {
            0
        }

        fn n_items(&self) -> usize {
            self.0 as usize
        }

        fn score(&self, _: &Batch, _: &mut Workspace) -> recmill_core::Result<()> {
            Ok(())
        }

        fn parameters(&self) -> recmill_core::Result<Parameters> {
            let mut parameters = Parameters::default();
            parameters.insert("count", Parameter::F32(Buffer::from_vec(vec![self.0], "a test")?));
            Ok(parameters)
        }
    }

    impl Learner for Counter {
        fn epoch(&mut self, _: u32) -> Result<Option<f64>> {
            self.0 += 1.0;
            Ok(None)
        }

        fn loss(&mut self) -> Result<Option<f64>> {
            Ok(Some(if self.0 < 90.0 { f64::from(self.0) } else { f64::NAN }))
        }

        fn snapshot(&self) -> Result<Box<dyn Retriever>> {
            Ok(Box::new(Counter(self.0)))
        }

        fn restore(&mut self, mut parameters: Parameters) -> Result<()> {
            self.0 = parameters.take_f32("count")?.cpu().unwrap()[0];
            Ok(())
        }

        fn finish(self: Box<Self>) -> Result<Box<dyn Retriever>> {
            Ok(self)
        }
    }

    /// Finds epoch 3 the best.
    struct ThreeIsBest(&'static str);

    impl Validation for ThreeIsBest {
        fn metric(&self) -> &str {
            self.0
        }

        fn smaller_is_better(&self) -> bool {
            self.0 == "distance"
        }

        fn measure(&mut self, model: &dyn Retriever) -> Result<BTreeMap<String, f64>> {
            let distance = (model.n_items() as f64 - 3.0).abs();
            Ok(BTreeMap::from([("distance".into(), distance), ("nearness".into(), -distance)]))
        }
    }

    fn run(epochs: u32, patience: Option<u32>, metric: Option<&'static str>, stop: bool) -> Result<Trained> {
        let mut validation = metric.map(ThreeIsBest);
        let validation = validation.as_mut().map(|v| v as &mut dyn Validation);
        let options = FitOptions { epochs, patience, loss: true };
        fit(Box::new(Counter(0.0)), &options, validation, &AtomicBool::new(stop), &mut ())
    }

    #[test]
    fn the_best_epoch_is_kept_and_patience_ends_training() {
        for metric in ["distance", "nearness"] {
            let trained = run(10, Some(2), Some(metric), false).unwrap();
            assert_eq!(
                (trained.kept_epoch, trained.epochs.len(), trained.ended),
                (3, 5, Ended::NoImprovement)
            );
            assert_eq!(trained.model.n_items(), 3);
            let trained = run(10, None, Some(metric), false).unwrap();
            assert_eq!((trained.kept_epoch, trained.epochs.len(), trained.ended), (3, 10, Ended::Epochs));
        }
        assert!(matches!(run(1, None, Some("recall@1"), false), Err(Error::UnknownMetric { .. })));
    }

    #[test]
    fn without_validation_the_last_epoch_is_kept() {
        let trained = run(4, Some(1), None, false).unwrap();
        assert_eq!((trained.kept_epoch, trained.model.n_items(), trained.ended), (4, 4, Ended::Epochs));
        assert_eq!(
            trained.epochs.iter().map(|record| record.loss).collect::<Vec<_>>(),
            [1.0, 2.0, 3.0, 4.0].map(Some)
        );
    }

    #[test]
    fn a_stop_ends_after_the_epoch() {
        let trained = run(4, None, None, true).unwrap();
        assert_eq!((trained.kept_epoch, trained.model.n_items(), trained.ended), (1, 1, Ended::Asked));
    }

    #[test]
    fn a_loss_that_is_no_number_is_an_error() {
        assert!(matches!(run(100, None, None, false), Err(Error::Diverged { epoch: 90, .. })));
    }
}

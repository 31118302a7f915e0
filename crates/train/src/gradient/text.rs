//! The text classifier as a task of the loop: the batch is bags of n-grams, the loss is that of a softmax.
//!
//! ```text
//! loss = 1 / n Σ_texts -w ln p_class            p = softmax(z);   of a text out of scope  -1 / K Σ_c ln p_c
//! ∂loss/∂z_c = w (p_c - y_c) / n                y: 1 for the class and 0 otherwise;  1 / K for each out of scope
//! w of a class with m texts ~ m^-class_balance  of mean 1 over the texts of classes;  1 out of scope
//! ```
//! The rows of a batch's n-grams are stepped by the configuration's optimizer ([`TableSteps`]), the biases by Adagrad. The derivative is
//! computed here, from scores that have been read back, so that a value that is not finite is found with its text before
//! anything is stepped.

use std::{collections::BTreeMap, sync::atomic::AtomicBool};

use recmill_core::{
    rankers::Schedule,
    text::{
        Classes, Encoded, NGramRows, NGrams, TextClassifier, TextColumns, TextConfig, TextRows,
        fit_temperature, fit_threshold, largest, scores, softmax,
    },
};
use recmill_kernels::{Bags, Buffer, Device, SparseStep, Table, philox};

use super::{
    collective::Alone,
    descend::{Checkpoints, Descent, DescentOptions, Learn, Step, Task, descend, not_finite},
    schedule::rate_at,
    tables::TableSteps,
};
use crate::{Error, Progress, Result};

/// Held-out texts that the temperature is fitted on, at most.
const CALIBRATED_ON: usize = 20_000;

/// Texts that are validated at a time.
const VALIDATED_AT_ONCE: usize = 1024;

/// The stream of the random numbers that decide which n-grams are left out.
const DROPOUT: u64 = 0x7465_7874;

/// Which of the texts are learned from, or validated on; all of them where none are listed.
#[derive(Clone, Copy, Debug)]
pub struct SomeTexts<'a> {
    /// The texts.
    pub rows: &'a TextRows,
    /// Which of them.
    pub which: Option<&'a [u64]>,
}

impl<'a> SomeTexts<'a> {
    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.which.map_or(self.rows.texts.len(), <[u64]>::len)
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn row(&self, at: usize) -> usize {
        self.which.map_or(at, |which| which[at] as usize)
    }

    fn text(&self, at: usize) -> &'a str {
        &self.rows.texts[self.row(at)]
    }

    fn label(&self, at: usize) -> &'a str {
        &self.rows.labels[self.row(at)]
    }
}

/// One training of a text classifier.
pub struct TextTraining<'a> {
    /// What is trained, and how.
    pub config: &'a TextConfig,
    /// The columns that the texts came from; part of the model.
    pub columns: &'a TextColumns,
    /// What it learns from.
    pub train: SomeTexts<'a>,
    /// What it is measured on after each epoch, and what temperature and threshold are chosen on.
    pub valid: Option<SomeTexts<'a>>,
    /// The source of every random number.
    pub seed: u64,
    /// The metric that decides which epoch is kept: accuracy or logloss.
    pub metric: &'a str,
    /// Stop after so many epochs in a row that did not improve the metric.
    pub patience: Option<u32>,
    /// Where the weights are while they learn.
    pub device: Device,
}

impl TextTraining<'_> {
    /// Trains, and chooses temperature and threshold.
    ///
    /// # Errors
    /// [`Error::NoData`] for fewer than two classes; [`Error::NotFiniteLoss`] with the step and the texts;
    /// [`Error::UnknownMetric`]; [`Error::Core`] for a configuration that is none; [`Error::Kernel`] when there is no memory.
    ///
    /// # Determinism
    /// The same bits for the same seed and texts on one device, for any number of threads.
    pub fn run(&self, stop: &AtomicBool, progress: &mut dyn Progress) -> Result<(TextClassifier, Descent)> {
        self.config.validate()?;
        let names = self.names();
        if names.len() < 2 {
            return Err(Error::NoData { what: "texts of two different classes" });
        }
        let texts: Vec<&str> = (0..self.train.len()).map(|at| self.train.text(at)).collect();
        let rows = NGramRows::fit(self.config, &texts);
        if rows.n_rows() == 0 {
            return Err(Error::NoData { what: "n-grams that are in as many texts as min_texts asks for" });
        }
        let targets = self.targets(&names, self.train);
        let task = TextTask {
            rows: &rows,
            config: self.config,
            texts: self.train,
            class_weights: class_weights(&targets, names.len(), self.config.class_balance),
            targets,
            dropout: philox::Draws::new(self.seed, DROPOUT),
        };
        let mut learner = TextLearner::new(self, &rows, &names)?;
        let options = DescentOptions {
            epochs: self.config.epochs as u32,
            batch_size: self.config.batch_size,
            seed: self.seed,
            metric: self.metric.to_owned(),
            patience: self.patience,
            loader_threads: 1,
        };
        let descent = descend(&task, &mut learner, &options, Checkpoints::default(), &Alone, stop, progress)?;
        let (temperature, threshold) = learner.calibrate()?;
        let TextLearner { weights, bias, .. } = learner;
        let columns = self.columns.clone();
        let classes = Classes { names, temperature, threshold, columns };
        let weights = weights.moved_to(Device::Cpu, "the weights of classes")?;
        Ok((TextClassifier::new(self.config.clone(), classes, rows, weights, bias)?, descent))
    }

    /// Returns the names of the classes, sorted.
    fn names(&self) -> Vec<String> {
        let labels = (0..self.train.len()).map(|at| self.train.label(at));
        let distinct: std::collections::BTreeSet<&str> =
            labels.filter(|label| *label != self.config.out_of_scope).collect();
        distinct.into_iter().map(str::to_owned).collect()
    }

    /// Returns what each text is about: nothing that is learned where it is out of scope, or of no class there is.
    fn targets(&self, names: &[String], texts: SomeTexts<'_>) -> Vec<Target> {
        let target = |at: usize| match names.binary_search_by(|name| name.as_str().cmp(texts.label(at))) {
            Ok(class) => Target::Class(class as u32),
            Err(_) if texts.label(at) == self.config.out_of_scope => Target::OutOfScope,
            Err(_) => Target::Unknown,
        };
        (0..texts.len()).map(target).collect()
    }
}

/// What a text is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Class(u32),
    OutOfScope,
    /// A label that training does not have.
    Unknown,
}

/// Returns how much a text of each class counts.
fn class_weights(targets: &[Target], n_classes: usize, balance: f64) -> Vec<f64> {
    let mut n = vec![0u64; n_classes];
    for target in targets {
        if let Target::Class(class) = target {
            n[*class as usize] += 1;
        }
    }
    let weights: Vec<f64> = n.iter().map(|&n| (n.max(1) as f64).powf(-balance)).collect();
    let sum: f64 = n.iter().zip(&weights).map(|(&n, weight)| n as f64 * weight).sum();
    let mean = sum / n.iter().sum::<u64>().max(1) as f64;
    weights.into_iter().map(|weight| weight / mean).collect()
}

/// Texts to learn from.
struct TextTask<'a> {
    rows: &'a NGramRows,
    config: &'a TextConfig,
    texts: SomeTexts<'a>,
    targets: Vec<Target>,
    class_weights: Vec<f64>,
    dropout: philox::Draws,
}

/// Texts made ready for a step.
#[derive(Default)]
struct TextBatch {
    /// Which of the texts.
    samples: Vec<u64>,
    targets: Vec<Target>,
    /// How much each text counts.
    weights: Vec<f64>,
    encoded: Encoded,
}

impl Task for TextTask<'_> {
    type Batch = TextBatch;

    fn n_samples(&self) -> u64 {
        self.texts.len() as u64
    }

    fn load(&self, epoch: u32, samples: &[u64], batch: &mut TextBatch) {
        batch.samples.clear();
        batch.samples.extend_from_slice(samples);
        batch.targets.clear();
        batch.weights.clear();
        batch.encoded.clear();
        let mut ngrams = NGrams::new(self.config);
        let dropout = self.config.dropout as f32;
        for &sample in samples {
            let target = self.targets[sample as usize];
            batch.targets.push(target);
            batch.weights.push(match target {
                Target::Class(class) => self.class_weights[class as usize],
                Target::OutOfScope | Target::Unknown => 1.0,
            });
            // A function of (seed, epoch, text, n-gram), never of the batch.
            let draws = self.dropout.nth_try(u64::from(epoch));
            let keep = |bucket: u32| {
                dropout == 0.0 || philox::unit(draws.block(sample << 28 | u64::from(bucket))[0]) >= dropout
            };
            self.rows.encode(&mut ngrams, self.texts.text(sample as usize), keep, &mut batch.encoded);
        }
    }
}

/// The weights while they learn.
struct TextLearner<'a> {
    training: &'a TextTraining<'a>,
    weights: Table,
    steps: TableSteps,
    bias: Vec<f32>,
    /// Sums of squares of the biases' gradients.
    sums: Vec<f32>,
    /// Held-out texts and what they are about.
    valid: Vec<(Encoded, Vec<Target>)>,
    kept: Option<(Table, Vec<f32>)>,
}

impl<'a> TextLearner<'a> {
    fn new(training: &'a TextTraining<'a>, rows: &NGramRows, names: &[String]) -> Result<Self> {
        let weights =
            Table::zeros(rows.n_rows() as u64, names.len(), training.device, "the weights of classes")?;
        let optimizer = training.config.optimizer.sparse();
        let mut valid = Vec::new();
        if let Some(texts) = training.valid {
            let targets = training.targets(names, texts);
            let mut ngrams = NGrams::new(training.config);
            for (block, targets) in targets.chunks(VALIDATED_AT_ONCE).enumerate() {
                let mut encoded = Encoded::default();
                for at in 0..targets.len() {
                    let text = texts.text(block * VALIDATED_AT_ONCE + at);
                    rows.encode(&mut ngrams, text, |_| true, &mut encoded);
                }
                valid.push((encoded, targets.to_vec()));
            }
        }
        Ok(Self {
            steps: TableSteps::new(optimizer, &weights)?,
            bias: vec![0.0; names.len()],
            sums: vec![0.0; names.len()],
            training,
            weights,
            valid,
            kept: None,
        })
    }

    /// Returns the scores of texts, `[texts, classes]`.
    fn scores(&self, encoded: &Encoded) -> Result<Vec<f32>> {
        let bags = Bags::new(&[&self.weights], &[encoded.bags(&self.weights)])?;
        Ok(scores(&self.weights, &self.bias, &bags)?)
    }

    /// Returns temperature and threshold by the held-out texts.
    fn calibrate(&self) -> Result<(f32, f32)> {
        let n = self.bias.len();
        let (mut z, mut classes) = (Vec::new(), Vec::new());
        for (encoded, targets) in &self.valid {
            for (row, target) in self.scores(encoded)?.chunks_exact(n).zip(targets) {
                if let Target::Class(class) = *target
                    && classes.len() < CALIBRATED_ON
                {
                    z.extend_from_slice(row);
                    classes.push(class);
                }
            }
        }
        let temperature = fit_temperature(&z, &classes, n);
        drop(z);
        if let Some(threshold) = self.training.config.threshold {
            return Ok((temperature, threshold));
        }
        let (mut in_scope, mut out_of_scope) = (Vec::new(), Vec::new());
        for (encoded, targets) in &self.valid {
            for (row, target) in self.scores(encoded)?.chunks_exact_mut(n).zip(targets) {
                softmax(row, temperature);
                let (class, probability) = largest(row);
                match *target {
                    Target::OutOfScope => out_of_scope.push(probability),
                    target => in_scope.push((probability, target == Target::Class(class as u32))),
                }
            }
        }
        Ok((temperature, fit_threshold(&in_scope, &out_of_scope)))
    }
}

/// Replaces the scores of texts by the derivatives of their mean loss, which it returns.
///
/// # Shapes
/// - `scores`: `[targets, n_classes]`, finite
/// - `weights`: `[targets]`
fn differentiate(scores: &mut [f32], targets: &[Target], weights: &[f64], n_classes: usize) -> f64 {
    let n = targets.len() as f64;
    let share = 1.0 / n_classes as f64;
    let mut loss = 0.0;
    for ((row, target), weight) in scores.chunks_exact_mut(n_classes).zip(targets).zip(weights) {
        let most = f64::from(largest(row).1);
        let log_sum = row.iter().map(|&z| (f64::from(z) - most).exp()).sum::<f64>().ln() + most;
        let of_class = |z: f32| log_sum - f64::from(z);
        loss += weight
            * match *target {
                Target::Class(class) => of_class(row[class as usize]),
                Target::OutOfScope | Target::Unknown => row.iter().map(|&z| of_class(z)).sum::<f64>() * share,
            };
        for (class, z) in row.iter_mut().enumerate() {
            let wanted = match *target {
                Target::Class(wanted) => f64::from(u8::from(wanted as usize == class)),
                Target::OutOfScope | Target::Unknown => share,
            };
            *z = (weight * ((-of_class(*z)).exp() - wanted) / n) as f32;
        }
    }
    loss / n
}

impl Learn<TextTask<'_>> for TextLearner<'_> {
    fn step(&mut self, batch: &TextBatch, at: Step) -> Result<f64> {
        let n_classes = self.bias.len();
        let config = self.training.config;
        let bags = Bags::new(&[&self.weights], &[batch.encoded.bags(&self.weights)])?;
        let mut scores = scores(&self.weights, &self.bias, &bags)?;
        if !scores.iter().all(|score| score.is_finite()) {
            let train = &self.training.train;
            let line = |text: usize| train.rows.line(train.row(batch.samples[text] as usize));
            return Err(not_finite(at, &scores, n_classes, line));
        }
        let loss = differentiate(&mut scores, &batch.targets, &batch.weights, n_classes);
        let mut of_bias = vec![0.0f64; n_classes];
        for row in scores.chunks_exact(n_classes) {
            of_bias.iter_mut().zip(row).for_each(|(sum, &slope)| *sum += f64::from(slope));
        }
        let rate = (rate_at(Schedule::Linear, 0, at.step, at.steps) * config.learning_rate) as f32;
        let step =
            SparseStep { learning_rate: rate, l2: config.regularization as f32, seed: self.training.seed };
        let gradient = Buffer::from_slice(&scores, self.weights.device(), "the gradient of scores")?;
        self.steps.step(&mut self.weights, &bags, &bags.segment(0)?, &gradient, &step)?;
        for ((bias, sum), slope) in self.bias.iter_mut().zip(&mut self.sums).zip(of_bias) {
            let slope = slope as f32;
            *sum += slope * slope;
            *bias -= rate * slope / (sum.sqrt() + 1e-8);
        }
        Ok(loss)
    }

    fn validate(&mut self) -> Result<Option<BTreeMap<String, f64>>> {
        let (mut right, mut texts, mut loss, mut known) = (0u64, 0u64, 0.0, 0u64);
        for (encoded, targets) in &self.valid {
            for (row, target) in self.scores(encoded)?.chunks_exact_mut(self.bias.len()).zip(targets) {
                let (class, _) = largest(row);
                texts += u64::from(*target != Target::OutOfScope);
                right += u64::from(*target == Target::Class(class as u32));
                if let Target::Class(class) = *target {
                    softmax(row, 1.0);
                    loss -= f64::from(row[class as usize].max(f32::EPSILON)).ln();
                    known += 1;
                }
            }
        }
        if known == 0 {
            return Ok(None);
        }
        let metrics = [("accuracy", right as f64 / texts as f64), ("logloss", loss / known as f64)];
        Ok(Some(metrics.map(|(name, value)| (name.to_owned(), value)).into()))
    }

    fn keep(&mut self) -> Result<()> {
        // The copy before is given up first, so that there are never three.
        self.kept = None;
        let weights = self.weights.try_copy(Device::Cpu, "the best epoch's weights")?;
        self.kept = Some((weights, self.bias.clone()));
        Ok(())
    }

    fn restore_kept(&mut self) {
        if let Some((weights, bias)) = self.kept.take() {
            (self.weights, self.bias) = (weights, bias);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_classes_count_more_and_the_mean_text_counts_1() {
        let targets =
            [[Target::Class(0)].repeat(16), vec![Target::OutOfScope], [Target::Class(1)].repeat(4)].concat();
        assert_eq!(class_weights(&targets, 2, 0.0), [1.0, 1.0]);
        // By hand: 16 x 1/4 + 4 x 1/2 = 6, over 20 texts.
        let half = class_weights(&targets, 2, 0.5);
        assert!((half[0] - 0.25 / 0.3).abs() < 1e-12 && (half[1] - 0.5 / 0.3).abs() < 1e-12, "{half:?}");
        let whole = class_weights(&targets, 2, 1.0);
        assert!((16.0 * whole[0] - 4.0 * whole[1]).abs() < 1e-12, "{whole:?}");
    }

    #[test]
    fn derivatives_agree_with_finite_differences() {
        let targets = [Target::Class(2), Target::OutOfScope, Target::Class(0)];
        let scores: Vec<f32> = [0.3, -1.0, 2.5, 1.0, 0.0, -0.5, 4.0, 4.25, -3.0].to_vec();
        let mut slopes = scores.clone();
        let weights = [1.5, 1.0, 0.25];
        let loss = differentiate(&mut slopes, &targets, &weights, 3);
        // By hand: ln Σ e^z - z of the class.
        let of = |row: usize, z: f64| {
            scores[row * 3..][..3].iter().map(|&z| f64::from(z).exp()).sum::<f64>().ln() - z
        };
        let mean_z = (1.0 + 0.0 - 0.5) / 3.0;
        assert!((loss - (1.5 * of(0, 2.5) + of(1, mean_z) + 0.25 * of(2, 4.0)) / 3.0).abs() < 1e-12);
        for at in 0..scores.len() {
            let shifted = |by: f32| {
                let mut scores = scores.clone();
                scores[at] += by;
                differentiate(&mut scores, &targets, &weights, 3)
            };
            let numeric = (shifted(1.0 / 256.0) - shifted(-1.0 / 256.0)) * 128.0;
            assert!((f64::from(slopes[at]) - numeric).abs() < 1e-5, "{at}: {} for {numeric}", slopes[at]);
        }
    }
}

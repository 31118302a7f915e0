//! Rankers as a task of the loop: the batch is rows of features, the loss is log loss.
//!
//! ```text
//! loss = 1 / (W K) Σ_rows w Σ_labels ln(1 + e^z) - y z          W: the batch's weights, K: labels, z: log-odds
//! ∂loss/∂z = w (σ(z) - y) / (W K)
//! ```
//!
//! The derivative is computed here, from log-odds that have been read back, so that a value that is not finite is found
//! with its row before anything is stepped.

use std::{collections::BTreeMap, sync::atomic::AtomicBool};

use burn::{
    backend::Autodiff,
    module::AutodiffModule,
    tensor::{Tensor, TensorData, backend::AutodiffBackend},
};
use recmill_core::{
    dense::{Cpu, DenseBackend, Dropout},
    features::{Examples, FeatureBatch, Features},
    rankers::{
        AnyNetwork, EmbeddingTables, Inputs, LearningConfig, Lookup, Measuring, Network, Ranker,
        RankerConfig, Shape, TableDims, log_odds, sigmoid,
    },
};
use recmill_kernels::{Device, SparseStep, Table};

use super::{
    dense::{DenseGradients, DenseSteps},
    descend::{Descent, DescentOptions, Learn, Step, Task, descend},
    schedule::rate_at,
    tables::TableSteps,
};
use crate::{Error, Progress, Result, factors};

/// Rows of a set of examples; all of them where none are listed.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// The examples.
    pub examples: &'a Examples,
    /// Which of them.
    pub rows: Option<&'a [u64]>,
}

impl Rows<'_> {
    /// Returns how many rows there are.
    pub fn len(&self) -> u64 {
        self.rows.map_or(self.examples.len(), <[u64]>::len) as u64
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn row(&self, sample: u64) -> u64 {
        self.rows.map_or(sample, |rows| rows[sample as usize])
    }
}

/// One training of a ranker.
pub struct RankTraining<'a> {
    /// How it learns.
    pub learning: &'a LearningConfig,
    /// How rows became features.
    pub features: &'a Features,
    /// What it learns from.
    pub train: Rows<'a>,
    /// What it is measured on after each epoch.
    pub valid: Option<Rows<'a>>,
    /// The source of every random number.
    pub seed: u64,
    /// The metric that decides which epoch is kept.
    pub metric: &'a str,
    /// Stop after so many epochs in a row that did not improve the metric.
    pub patience: Option<u32>,
    /// Threads that make batches ready.
    pub loader_threads: usize,
}

/// A network and its tables after training, and how it came about.
pub struct TrainedNetwork<N> {
    /// The network.
    pub network: N,
    /// The embedding tables.
    pub tables: EmbeddingTables,
    /// Epochs and what was kept.
    pub descent: Descent,
}

impl<'a> RankTraining<'a> {
    /// Describes a training on all of `examples` with seed 0, all epochs, and no validation.
    pub fn new(learning: &'a LearningConfig, features: &'a Features, examples: &'a Examples) -> Self {
        Self {
            learning,
            features,
            train: Rows { examples, rows: None },
            valid: None,
            seed: 0,
            metric: "auc",
            patience: None,
            loader_threads: 1,
        }
    }

    /// Trains the network of `config` on the CPU.
    ///
    /// # Errors
    /// As [`RankTraining::run_network`].
    pub fn run(
        &self,
        config: &RankerConfig,
        stop: &AtomicBool,
        progress: &mut dyn Progress,
    ) -> Result<(Ranker, Descent)> {
        let shape = Shape::of(self.features);
        let network = AnyNetwork::<Autodiff<Cpu>>::new(&config.model, &shape, self.seed, &Default::default());
        let dims = config.model.tables(&shape);
        let trained = self.run_network::<Cpu, _>(network, dims, stop, progress)?;
        let ranker = Ranker::new(config.clone(), self.features.clone(), trained.tables, trained.network);
        Ok((ranker, trained.descent))
    }

    /// Trains any network, such as one of the caller's own, over tables of these dimensions.
    ///
    /// # Errors
    /// [`Error::NoData`]; [`Error::NotFiniteLoss`] with the step and the rows; [`Error::UnknownMetric`];
    /// [`Error::Kernel`] when there is no memory.
    ///
    /// # Determinism
    /// The same bits for the same seed and data on one device, whatever the loader's threads.
    pub fn run_network<B: DenseBackend, N>(
        &self,
        network: N,
        dims: TableDims,
        stop: &AtomicBool,
        progress: &mut dyn Progress,
    ) -> Result<TrainedNetwork<N::InnerModule>>
    where
        N: Network<Autodiff<B>> + AutodiffModule<Autodiff<B>>,
        N::InnerModule: Network<B>,
    {
        if self.train.is_empty() {
            return Err(Error::NoData { what: "rows" });
        }
        let task = RankTask { train: self.train };
        let mut learner = RankLearner::<B, N>::new(self, network, dims)?;
        let options = DescentOptions {
            epochs: self.learning.epochs as u32,
            batch_size: self.learning.batch_size,
            seed: self.seed,
            metric: self.metric.to_owned(),
            patience: self.patience,
            loader_threads: self.loader_threads,
        };
        let descent = descend(&task, &mut learner, &options, stop, progress)?;
        Ok(TrainedNetwork { network: learner.network.valid(), tables: learner.tables, descent })
    }
}

/// Rows made ready for a step.
#[derive(Default)]
struct RankBatch {
    /// The row of the examples that each row is.
    rows: Vec<u64>,
    features: FeatureBatch,
}

/// Rows that are validated at a time.
const VALIDATED_AT_ONCE: u64 = 4096;

struct RankTask<'a> {
    train: Rows<'a>,
}

impl Task for RankTask<'_> {
    type Batch = RankBatch;

    fn n_samples(&self) -> u64 {
        self.train.len()
    }

    fn load(&self, samples: &[u64], batch: &mut RankBatch) {
        batch.rows.clear();
        batch.rows.extend(samples.iter().map(|&sample| self.train.row(sample)));
        self.train.examples.gather(&batch.rows, &mut batch.features);
    }
}

struct RankLearner<'a, B: DenseBackend, N> {
    training: &'a RankTraining<'a>,
    shape: Shape,
    network: N,
    dense: DenseSteps<B>,
    tables: EmbeddingTables,
    embedding: Option<TableSteps>,
    first_order: Option<TableSteps>,
    kept: Option<(N, Option<Table>, Option<Table>)>,
    device: B::Device,
}

impl<'a, B: DenseBackend, N> RankLearner<'a, B, N>
where
    N: Network<Autodiff<B>> + AutodiffModule<Autodiff<B>>,
{
    fn new(training: &'a RankTraining<'a>, network: N, dims: TableDims) -> Result<Self> {
        let (features, learning) = (training.features, training.learning);
        let rows = EmbeddingTables::rows(features);
        let optimizer = learning.sparse_optimizer();
        let table = |dim: Option<usize>, scale: f64| -> Result<Option<Table>> {
            let Some(dim) = dim.filter(|_| rows > 0) else { return Ok(None) };
            let (stream, what) = (factors::Stream::Embedding, "an embedding table");
            let deviation = scale * (dim as f64).sqrt();
            let drawn = factors::normal(rows as usize, dim, deviation, training.seed, stream, what)?;
            Ok(Some(drawn.to_row_type(learning.table_precision.row_type(), what)?))
        };
        let (embedding, first_order) =
            (table(dims.embedding, learning.init_scale)?, table(dims.first_order, 0.0)?);
        let steps = |table: &Option<Table>| -> Result<Option<TableSteps>> {
            table.as_ref().map(|table| TableSteps::new(optimizer, table)).transpose()
        };
        Ok(Self {
            shape: Shape::of(features),
            dense: DenseSteps::new(learning.optimizer, learning.weight_decay, learning.clip_norm),
            embedding: steps(&embedding)?,
            first_order: steps(&first_order)?,
            tables: EmbeddingTables::new(features, embedding, first_order),
            kept: None,
            device: Default::default(),
            training,
            network,
        })
    }

    /// Looks a batch up in both tables.
    fn look_up(&self, batch: &FeatureBatch) -> Result<[Option<Lookup>; 2]> {
        let look_up = |table: &Option<Table>| -> Result<Option<Lookup>> {
            Ok(table.as_ref().map(|table| self.tables.look_up(table, batch)).transpose()?)
        };
        Ok([look_up(&self.tables.embedding)?, look_up(&self.tables.first_order)?])
    }

    /// Names the file's rows whose log-odds are not finite.
    fn not_finite(&self, at: Step, rows: &[u64], log_odds: &[f32]) -> Error {
        let bad =
            log_odds.chunks(self.shape.n_labels).zip(rows).filter(|(z, _)| z.iter().any(|z| !z.is_finite()));
        let places: Vec<String> = bad
            .take(3)
            .map(|(_, &row)| {
                let (file, line) = self.training.train.examples.line(row);
                format!("{file}:{line}")
            })
            .collect();
        Error::NotFiniteLoss { epoch: at.epoch, step: at.step + 1, rows: places.join(", ") }
    }
}

/// A matrix of `columns` columns.
fn matrix<B: AutodiffBackend>(values: Vec<f32>, columns: usize, device: &B::Device) -> Tensor<B, 2> {
    let rows = values.len() / columns;
    Tensor::from_data(TensorData::new(values, [rows, columns]), device)
}

impl<B: DenseBackend, N> Learn<RankTask<'_>> for RankLearner<'_, B, N>
where
    N: Network<Autodiff<B>> + AutodiffModule<Autodiff<B>>,
    N::InnerModule: Network<B>,
{
    fn step(&mut self, batch: &RankBatch, at: Step) -> Result<f64> {
        let (learning, shape) = (self.training.learning, self.shape);
        let features = &batch.features;
        let lookups = self.look_up(features)?;
        let n = features.rows;
        let weight = |row: usize| features.weights.get(row).copied().map_or(1.0, f64::from);
        let total = (0..n).map(weight).sum::<f64>().max(f64::MIN_POSITIVE) * shape.n_labels as f64;
        let mut dense = DenseGradients::default();
        let mut of_tables = [Vec::new(), Vec::new()];
        let mut loss = 0.0;
        for rows in pieces(n, learning.accumulate) {
            let leaf = |lookup: &Option<Lookup>| {
                lookup.as_ref().map(|lookup| {
                    let width = lookup.bags.width();
                    let values =
                        lookup.values.cpu().map(|all| all[rows.start * width..rows.end * width].to_vec());
                    matrix::<Autodiff<B>>(values.unwrap_or_default(), width, &self.device).require_grad()
                })
            };
            let leaves = [leaf(&lookups[0]), leaf(&lookups[1])];
            let columns = shape.n_numeric;
            let numeric = &features.numeric[rows.start * columns..rows.end * columns];
            let inputs = Inputs {
                embedded: leaves[0].clone().map(|x| {
                    let [rows, width] = x.dims();
                    x.reshape([rows, shape.n_fields, width / shape.n_fields])
                }),
                first_order: leaves[1].clone(),
                numeric: (columns > 0).then(|| matrix(numeric.to_vec(), columns, &self.device)),
                dropout: Some(Dropout {
                    seed: self.training.seed,
                    epoch: at.epoch,
                    samples: batch.rows[rows.clone()].to_vec(),
                }),
            };
            let output = self.network.forward(&inputs);
            let log_odds = output.clone().inner().into_data().into_vec::<f32>().unwrap_or_default();
            let labels = &features.labels[rows.start * shape.n_labels..rows.end * shape.n_labels];
            let mut gradient = Vec::with_capacity(log_odds.len());
            for (place, (&z, &y)) in log_odds.iter().zip(labels).enumerate() {
                let w = weight(rows.start + place / shape.n_labels) / total;
                let (z, y) = (f64::from(z), f64::from(y));
                loss += w * (z.max(0.0) - y * z + (-z.abs()).exp().ln_1p());
                gradient.push((w * (1.0 / (1.0 + (-z).exp()) - y)) as f32);
            }
            if !loss.is_finite() {
                return Err(self.not_finite(at, &batch.rows[rows], &log_odds));
            }
            let gradient = matrix::<Autodiff<B>>(gradient, shape.n_labels, &self.device);
            let gradients = (output * gradient).sum().backward();
            dense.add(DenseGradients::of(&self.network, &gradients));
            for (all, leaf) in of_tables.iter_mut().zip(&leaves) {
                let found = leaf.as_ref().and_then(|leaf| leaf.grad(&gradients));
                if let Some(found) = found {
                    let found = found.into_data().into_vec::<f32>().unwrap_or_default();
                    if all.is_empty() { *all = found } else { all.extend(found) }
                }
            }
        }
        let factor = rate_at(learning.schedule, learning.warmup_steps as u64, at.step, at.steps);
        let network = self.network.clone();
        self.network = self.dense.step(network, dense, factor * learning.learning_rate);
        let step = SparseStep {
            learning_rate: (factor * learning.table_learning_rate.unwrap_or(learning.learning_rate)) as f32,
            l2: learning.embedding_l2 as f32,
            seed: self.training.seed,
        };
        let tables = [
            (&mut self.tables.embedding, &mut self.embedding),
            (&mut self.tables.first_order, &mut self.first_order),
        ];
        for (((table, steps), lookup), gradient) in tables.into_iter().zip(&lookups).zip(of_tables) {
            if let (Some(table), Some(steps), Some(lookup)) = (table, steps, lookup) {
                steps.step(table, lookup, gradient, &step)?;
            }
        }
        Ok(loss)
    }

    fn validate(&mut self) -> Result<Option<BTreeMap<String, f64>>> {
        let Some(valid) = self.training.valid.filter(|valid| !valid.is_empty()) else { return Ok(None) };
        let network = self.network.valid();
        let mut measuring = Measuring::new(self.training.features.labels());
        let (mut batch, mut rows) = (FeatureBatch::default(), Vec::new());
        for first in (0..valid.len()).step_by(VALIDATED_AT_ONCE as usize) {
            rows.clear();
            let last = (first + VALIDATED_AT_ONCE).min(valid.len());
            rows.extend((first..last).map(|sample| valid.row(sample)));
            valid.examples.gather(&rows, &mut batch);
            let mut scores = log_odds(&network, &self.tables, &self.shape, &batch, &self.device)?;
            scores.iter_mut().for_each(|x| *x = sigmoid(*x));
            measuring.add(&scores, &batch);
        }
        Ok(Some(measuring.finish()?.metrics))
    }

    fn keep(&mut self) -> Result<()> {
        let copy = |table: &Option<Table>| -> Result<Option<Table>> {
            Ok(table
                .as_ref()
                .map(|table| table.try_copy(Device::Cpu, "the best epoch's tables"))
                .transpose()?)
        };
        // The copy before is given up first, so that there are never three.
        self.kept = None;
        self.kept =
            Some((self.network.clone(), copy(&self.tables.embedding)?, copy(&self.tables.first_order)?));
        Ok(())
    }

    fn restore_kept(&mut self) {
        if let Some((network, embedding, first_order)) = self.kept.take() {
            (self.network, self.tables.embedding, self.tables.first_order) =
                (network, embedding, first_order);
        }
    }
}

/// Cuts `n` rows into so many runs of about equal length.
fn pieces(n: usize, pieces: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let length = n.div_ceil(pieces.max(1)).max(1);
    (0..n).step_by(length).map(move |first| first..(first + length).min(n))
}

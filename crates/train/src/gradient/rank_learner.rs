//! Rankers as a task of the loop: the batch is rows of features, the loss is log loss.
//!
//! ```text
//! loss = 1 / (W K) Σ_rows w Σ_labels ln(1 + e^z) - y z          W: the batch's weights, K: labels, z: log-odds
//! ∂loss/∂z = w (σ(z) - y) / (W K)
//! ```
//!
//! The derivative is computed here, from log-odds that have been read back, so that a value that is not finite is found
//! with its row before anything is stepped.

use std::{collections::BTreeMap, sync::Arc};

use burn::{
    backend::Autodiff,
    module::AutodiffModule,
    tensor::{Tensor, TensorData, backend::AutodiffBackend},
};
use recmill_core::{
    Parameter, Parameters,
    dense::{
        DeviceBackend, Dropout, InTraining, buffer_of, copy_values, load_parameters, matrix_of,
        put_parameters, with_products,
    },
    features::FeatureBatch,
    rankers::{
        EmbeddingTables, Inputs, Lookup, Measuring, Network, Shape, TableDims, copy_to, log_odds_of, sigmoid,
    },
};
use recmill_kernels::{Buffer, Device, SparseStep, Table};

use super::{
    collective::{Collective, all_gather, all_reduce, part},
    dense::{DenseGradients, DenseSteps},
    descend::{Learn, Step, Task, not_finite},
    norms::BatchStatistics,
    rank::{RankTraining, Rows},
    schedule::rate_at,
    shards::{Fetch, gather_shards, own_rows, shard_of},
    tables::TableSteps,
};
use crate::{Result, factors};

/// Rows made ready for a step.
#[derive(Default)]
pub(super) struct RankBatch {
    /// The row of the examples that each row is.
    rows: Vec<u64>,
    features: FeatureBatch,
}

/// Names in a checkpoint beside those of the model's own parameters.
const KEPT: &str = "kept_";
const OF_DENSE: &str = "state_dense_";
const OF_EMBEDDING: &str = "state_embedding_";
const OF_FIRST_ORDER: &str = "state_first_order_";
const STEPS: &str = "state_steps";

/// Rows that are validated at a time.
const VALIDATED_AT_ONCE: u64 = 4096;

/// Rows to learn from.
pub(super) struct RankTask<'a> {
    pub(super) train: Rows<'a>,
}

impl Task for RankTask<'_> {
    type Batch = RankBatch;

    fn n_samples(&self) -> u64 {
        self.train.len()
    }

    fn load(&self, _epoch: u32, samples: &[u64], batch: &mut RankBatch) {
        batch.rows.clear();
        batch.rows.extend(samples.iter().map(|&sample| self.train.row(sample)));
        self.train.examples.gather(&batch.rows, &mut batch.features);
    }
}

/// A network and its tables while they learn.
pub(super) struct RankLearner<'a, B: DeviceBackend, N> {
    training: &'a RankTraining<'a>,
    shape: Shape,
    pub(super) network: N,
    /// Values of each of the network's parameters.
    sizes: Vec<usize>,
    dense: DenseSteps<B>,
    pub(super) tables: EmbeddingTables,
    embedding: Option<TableSteps>,
    first_order: Option<TableSteps>,
    kept: Option<(N, EmbeddingTables)>,
    dims: TableDims,
    ranks: &'a dyn Collective,
    device: B::Device,
}

impl<'a, B: DeviceBackend, N> RankLearner<'a, B, N>
where
    N: Network<Autodiff<B>> + AutodiffModule<Autodiff<B>>,
{
    /// Draws the tables' first rows: those that this rank holds.
    pub(super) fn new(
        training: &'a RankTraining<'a>,
        network: N,
        dims: TableDims,
        ranks: &'a dyn Collective,
    ) -> Result<Self> {
        let (features, learning) = (training.features, training.learning);
        let (rank, size) = (ranks.rank(), ranks.size());
        let rows = own_rows(EmbeddingTables::rows(features), rank, size);
        let optimizer = learning.sparse_optimizer();
        let table = |dim: Option<usize>, scale: f64| -> Result<Option<Table>> {
            let Some(dim) = dim.filter(|_| rows > 0) else { return Ok(None) };
            let (stream, what) = (factors::Stream::Embedding, "an embedding table");
            let (rows, seed, scale) = (rows as usize, training.seed, scale * (dim as f64).sqrt());
            let normal = factors::Normal { rows, dim, scale, seed, stream };
            let whole_row = |own: u64| own * size as u64 + rank as u64;
            let drawn = normal.of_larger(learning.table_precision.row_type(), what, whole_row)?;
            Ok(Some(placed(drawn, training.device, what)?))
        };
        let (embedding, first_order) =
            (table(dims.embedding, learning.init_scale)?, table(dims.first_order, 0.0)?);
        let steps = |table: &Option<Table>| -> Result<Option<TableSteps>> {
            table.as_ref().map(|table| TableSteps::new(optimizer, table)).transpose()
        };
        Ok(Self {
            shape: Shape::of(features),
            sizes: copy_values(&network).iter().map(|(_, values)| values.len()).collect(),
            dense: DenseSteps::new(learning.optimizer, learning.weight_decay, learning.clip_norm),
            embedding: steps(&embedding)?,
            first_order: steps(&first_order)?,
            tables: EmbeddingTables::new(features, embedding, first_order),
            kept: None,
            dims,
            ranks,
            device: B::device(training.device)?,
            training,
            network,
        })
    }

    /// Asks the other ranks for the rows of a batch, where there are any.
    fn fetch(&self, batch: &FeatureBatch) -> Result<Option<Fetch<'a>>> {
        match self.ranks.size() {
            1 => Ok(None),
            _ => Fetch::new(self.ranks, batch, |field| self.tables.rows_of(field)).map(Some),
        }
    }

    /// Looks a batch up in both tables.
    fn look_up(&self, batch: &FeatureBatch, fetch: Option<&Fetch<'_>>) -> Result<[Option<Lookup>; 2]> {
        let look_up = |table: &Option<Table>| -> Result<Option<Lookup>> {
            let Some(table) = table else { return Ok(None) };
            Ok(Some(match fetch {
                Some(fetch) => fetch.look_up(table)?,
                None => self.tables.look_up(table, batch)?,
            }))
        };
        Ok([look_up(&self.tables.embedding)?, look_up(&self.tables.first_order)?])
    }
}

/// A matrix of `columns` columns.
fn matrix<B: AutodiffBackend>(values: Vec<f32>, columns: usize, device: &B::Device) -> Tensor<B, 2> {
    let rows = values.len() / columns;
    Tensor::from_data(TensorData::new(values, [rows, columns]), device)
}

impl<B: DeviceBackend, N> Learn<RankTask<'_>> for RankLearner<'_, B, N>
where
    N: Network<Autodiff<B>> + AutodiffModule<Autodiff<B>>,
    N::InnerModule: Network<B>,
{
    fn step(&mut self, batch: &RankBatch, at: Step) -> Result<f64> {
        let (learning, shape) = (self.training.learning, self.shape);
        let features = &batch.features;
        let fetch = self.fetch(features)?;
        let lookups = self.look_up(features, fetch.as_ref())?;
        // Both tables have the same rows, and what was looked up is the same in both.
        let segment = lookups.iter().flatten().next().map(|lookup| lookup.bags.segment(0)).transpose()?;
        let mut bags = [None, None];
        let mut values: [Option<Tensor<B, 2>>; 2] = [None, None];
        for (at, lookup) in lookups.into_iter().enumerate() {
            if let Some(lookup) = lookup {
                values[at] = Some(matrix_of(lookup.values, lookup.bags.width())?);
                bags[at] = Some(lookup.bags);
            }
        }
        let n = features.rows;
        let weight = |row: usize| features.weights.get(row).copied().map_or(1.0, f64::from);
        let mut total = [(0..n).map(weight).sum::<f64>()];
        all_reduce(self.ranks, &mut total)?;
        let total = total[0].max(f64::MIN_POSITIVE) * shape.n_labels as f64;
        let products = learning.dense_precision.products();
        let mut dense = DenseGradients::default();
        let mut statistics = BatchStatistics::default();
        let mut of_tables: [Vec<Tensor<B, 2>>; 2] = [Vec::new(), Vec::new()];
        let mut loss = 0.0;
        for rows in pieces(n, learning.accumulate) {
            let mut leaf = |at: usize| {
                let own = match rows.len() == n {
                    true => values[at].take()?,
                    false => values[at].clone()?.slice([rows.clone()]),
                };
                Some(Tensor::<Autodiff<B>, 2>::from_inner(own).require_grad())
            };
            let leaves = [leaf(0), leaf(1)];
            let columns = shape.n_numeric;
            let numeric = &features.numeric[rows.start * columns..rows.end * columns];
            let training = Arc::new(InTraining::new(Dropout {
                seed: self.training.seed,
                epoch: at.epoch,
                samples: batch.rows[rows.clone()].to_vec(),
            }));
            let inputs = Inputs {
                embedded: leaves[0].clone().map(|x| {
                    let [rows, width] = x.dims();
                    x.reshape([rows, shape.n_fields, width / shape.n_fields])
                }),
                first_order: leaves[1].clone(),
                numeric: (columns > 0).then(|| matrix(numeric.to_vec(), columns, &self.device)),
                training: Some(Arc::clone(&training)),
            };
            let output = with_products(products, || self.network.forward(&inputs));
            statistics.add(training.take_statistics(), rows.len());
            let log_odds = buffer_of(output.clone().inner())?.into_vec()?;
            B::check_answers(self.training.device)?;
            let labels = &features.labels[rows.start * shape.n_labels..rows.end * shape.n_labels];
            let mut gradient = Vec::with_capacity(log_odds.len());
            for (place, (&z, &y)) in log_odds.iter().zip(labels).enumerate() {
                let w = weight(rows.start + place / shape.n_labels) / total;
                let (z, y) = (f64::from(z), f64::from(y));
                loss += w * (z.max(0.0) - y * z + (-z.abs()).exp().ln_1p());
                gradient.push((w * (1.0 / (1.0 + (-z).exp()) - y)) as f32);
            }
            if !loss.is_finite() {
                let line = |row: usize| self.training.train.examples.line(batch.rows[rows.start + row]);
                return Err(not_finite(at, &log_odds, shape.n_labels, line));
            }
            let gradient = matrix::<Autodiff<B>>(gradient, shape.n_labels, &self.device);
            let gradients = with_products(products, || (output * gradient).sum().backward());
            dense.add(DenseGradients::of(&self.network, &gradients));
            for (all, leaf) in of_tables.iter_mut().zip(&leaves) {
                all.extend(leaf.as_ref().and_then(|leaf| leaf.grad(&gradients)));
            }
        }
        let mut loss = [loss];
        all_reduce(self.ranks, &mut loss)?;
        dense.all_reduce(self.ranks, &self.sizes, &self.device)?;
        statistics.all_reduce(self.ranks, &self.network, &self.device)?;
        let factor = rate_at(learning.schedule, learning.warmup_steps as u64, at.step, at.steps);
        let network = statistics.apply(self.network.clone(), learning.batch_size);
        self.network = self.dense.step(network, dense, factor * learning.learning_rate());
        let rate = factor * learning.table_learning_rate.unwrap_or(learning.learning_rate());
        let step =
            |l2: f64| SparseStep { learning_rate: rate as f32, l2: l2 as f32, seed: self.training.seed };
        // A category's own weight is to say all that it says alone; what is pulled to 0 is what it says with others.
        let l2 = learning.embedding_l2();
        let l2_alone = if self.tables.embedding.is_some() { 0.0 } else { l2 };
        let tables = [
            (&mut self.tables.embedding, &mut self.embedding, step(l2)),
            (&mut self.tables.first_order, &mut self.first_order, step(l2_alone)),
        ];
        for (((table, steps, step), bags), pieces) in tables.into_iter().zip(&bags).zip(of_tables) {
            if let (Some(table), Some(steps), Some(bags), Some(segment)) = (table, steps, bags, &segment) {
                // A rank without rows of the batch has no pieces.
                let joined = pieces.into_iter().reduce(|all, piece| Tensor::cat(vec![all, piece], 0));
                let gradient = match joined {
                    Some(gradient) => buffer_of(gradient)?,
                    None => Buffer::zeros(bags.n_bags() * bags.width(), bags.device(), "a gradient")?,
                };
                match &fetch {
                    Some(fetch) => fetch.step(table, steps, bags, segment, &gradient, &step)?,
                    None => steps.step(table, bags, segment, &gradient, &step)?,
                }
            }
        }
        Ok(loss[0])
    }

    fn validate(&mut self) -> Result<Option<BTreeMap<String, f64>>> {
        let Some(valid) = self.training.valid.filter(|valid| !valid.is_empty()) else { return Ok(None) };
        let network = self.network.valid();
        let mut measuring = Measuring::new(self.training.features.labels());
        let (mut batch, mut own_batch, mut rows) =
            (FeatureBatch::default(), FeatureBatch::default(), Vec::new());
        for first in (0..valid.len()).step_by(VALIDATED_AT_ONCE as usize) {
            rows.clear();
            let last = (first + VALIDATED_AT_ONCE).min(valid.len());
            rows.extend((first..last).map(|sample| valid.row(sample)));
            valid.examples.gather(&rows, &mut batch);
            // Each rank scores a part of them and tells the others.
            let own = part(rows.len(), self.ranks.rank(), self.ranks.size());
            valid.examples.gather(&rows[own], &mut own_batch);
            let fetch = self.fetch(&own_batch)?;
            let lookups = self.look_up(&own_batch, fetch.as_ref())?;
            let scores = log_odds_of(&network, lookups, &self.shape, &own_batch, &self.device)?;
            let mut scores = all_gather(self.ranks, &scores)?.concat();
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
        let (embedding, first_order) = (copy(&self.tables.embedding)?, copy(&self.tables.first_order)?);
        let tables = EmbeddingTables::new(self.training.features, embedding, first_order);
        self.kept = Some((self.network.clone(), tables));
        Ok(())
    }

    fn restore_kept(&mut self) {
        if let Some(kept) = self.kept.take() {
            (self.network, self.tables) = kept;
        }
    }

    fn take_state(&mut self) -> Result<Parameters> {
        let mut state = Parameters::default();
        put_parameters(&self.network, &mut state)?;
        let none = EmbeddingTables::new(self.training.features, None, None);
        std::mem::replace(&mut self.tables, none).put(&mut state);
        let (of_dense, dense_steps) = self.dense.take()?;
        state.extend_prefixed(OF_DENSE, of_dense);
        let mut steps = vec![dense_steps];
        for (prefix, of_table) in
            [(OF_EMBEDDING, &mut self.embedding), (OF_FIRST_ORDER, &mut self.first_order)]
        {
            let (of_table, of_steps) = of_table.take().map(TableSteps::take).unwrap_or_default();
            state.extend_prefixed(prefix, of_table);
            steps.push(of_steps);
        }
        state.insert(STEPS, Parameter::U64(Buffer::from_vec(steps, "steps")?));
        if let Some((network, tables)) = self.kept.take() {
            let mut kept = Parameters::default();
            put_parameters(&network, &mut kept)?;
            tables.put(&mut kept);
            state.extend_prefixed(KEPT, kept);
        }
        let (ranks, what) = (self.ranks, "a checkpoint");
        state.map_tables(|table| gather_shards(table.moved_to(Device::Cpu, what)?, ranks, what))
    }

    fn put_state(&mut self, mut state: Parameters) -> Result<()> {
        let whole_rows = EmbeddingTables::rows(self.training.features);
        if self.ranks.size() > 1 {
            // Who has been told of no others' rows has its own only.
            state = state.map_tables(|table| match table.rows() == whole_rows {
                true => shard_of(&table, self.ranks, "a checkpoint"),
                false => Ok(table),
            })?;
        }
        let own = own_rows(whole_rows, self.ranks.rank(), self.ranks.size());
        let read = |network: &N, from: &mut Parameters| -> Result<(N, EmbeddingTables)> {
            let tables = EmbeddingTables::take_rows(self.training.features, own, self.dims, from)?;
            Ok((load_parameters(network.clone(), from)?, tables))
        };
        let mut kept = state.take_prefixed(KEPT);
        self.kept = if kept.is_empty() { None } else { Some(read(&self.network, &mut kept)?) };
        (self.network, self.tables) = read(&self.network, &mut state)?;
        for table in [&mut self.tables.embedding, &mut self.tables.first_order] {
            let placed = |table| placed(table, self.training.device, "a checkpoint");
            *table = table.take().map(placed).transpose()?;
        }
        let steps = state.take_u64(STEPS)?.to_vec()?;
        let steps = |at: usize| steps.get(at).copied().unwrap_or(0);
        self.dense.put(state.take_prefixed(OF_DENSE), steps(0), self.sizes.len(), &self.device)?;
        let optimizer = self.training.learning.sparse_optimizer();
        let mut of_table = |table: &Option<Table>, prefix, at| -> Result<Option<TableSteps>> {
            let own = state.take_prefixed(prefix);
            table.as_ref().map(|table| TableSteps::put(optimizer, table, own, steps(at))).transpose()
        };
        self.embedding = of_table(&self.tables.embedding, OF_EMBEDDING, 1)?;
        self.first_order = of_table(&self.tables.first_order, OF_FIRST_ORDER, 2)?;
        Ok(())
    }
}

/// Returns the table on the device that it learns on: itself on the CPU, where tables are drawn and read.
fn placed(table: Table, device: Device, what: &'static str) -> Result<Table> {
    match device {
        Device::Cpu => Ok(table),
        device => Ok(copy_to(&table, device, what)?),
    }
}

/// Cuts `n` rows into so many runs of about equal length.
fn pieces(n: usize, pieces: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let length = n.div_ceil(pieces.max(1)).max(1);
    (0..n).step_by(length).map(move |first| first..(first + length).min(n))
}

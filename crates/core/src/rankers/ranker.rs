//! A trained ranker: features, tables and network, and how it scores.

use std::sync::Mutex;

use burn::tensor::{Tensor, TensorData};

use recmill_kernels::{Device, Table};

use super::{
    AnyNetwork, EmbeddingTables, Inputs, Lookup, Network, RankerConfig, Shape, copy_to,
    placed::{PlacedNetwork, network_of},
};
use crate::{
    Parameters, Result,
    dense::{Cpu, DeviceBackend, buffer_of, matrix_of},
    features::{FeatureBatch, Features, FieldValues},
};

/// Scores rows of features.
///
/// On the CPU a row's scores do not depend on the rows beside it. On a GPU they are within rounding of those: there the number of
/// rows may decide in which order a product is added up.
#[derive(Debug)]
pub struct Ranker {
    config: RankerConfig,
    features: Features,
    tables: EmbeddingTables,
    network: Mutex<PlacedNetwork>,
    device: Device,
}

/// Rows that are scored at a time: what bounds the memory of a large batch.
fn scored_at_once(device: Device) -> usize {
    if device == Device::Cpu { 4096 } else { 65_536 }
}

impl Ranker {
    /// Puts together what training made; it scores on the CPU until [`Ranker::score_on`] says otherwise.
    pub fn new(
        config: RankerConfig,
        features: Features,
        tables: EmbeddingTables,
        network: AnyNetwork<Cpu>,
    ) -> Self {
        let network = Mutex::new(PlacedNetwork::Cpu(network));
        Self { config, features, tables, network, device: Device::Cpu }
    }

    /// Opens a model from its parameters.
    ///
    /// # Errors
    /// [`crate::Error::MissingParameter`], [`crate::Error::MissingDense`], [`crate::Error::WrongSize`] when they are not of
    /// this configuration and these features.
    pub fn open(config: &RankerConfig, features: Features, mut parameters: Parameters) -> Result<Self> {
        let shape = Shape::of(&features);
        let tables = EmbeddingTables::take(&features, config.model.tables(&shape), &mut parameters)?;
        let network = network_of(&mut parameters, &config.model, &shape, Device::Cpu)?;
        Ok(Self::new(config.clone(), features, tables, network))
    }

    /// Moves tables and network to `device`, where rows are scored from now on.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] when the device cannot be used, or has not the memory; then all stays where it was.
    pub fn score_on(&mut self, device: Device) -> Result<()> {
        if device == self.device {
            return Ok(());
        }
        let shape = Shape::of(&self.features);
        let moved = |table: &Option<Table>| {
            table.as_ref().map(|table| copy_to(table, device, "an embedding table")).transpose()
        };
        let (embedding, first_order) = (moved(&self.tables.embedding)?, moved(&self.tables.first_order)?);
        let network =
            self.network.get_mut().map_err(|_| crate::Error::Inconsistent { what: "network", at: 0 })?;
        *network = network.moved_to(device, &self.config.model, &shape)?;
        self.tables = EmbeddingTables::new(&self.features, embedding, first_order);
        self.device = device;
        Ok(())
    }

    /// Returns which network it is and how it learned.
    pub fn config(&self) -> &RankerConfig {
        &self.config
    }

    /// Returns how rows become features.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Takes groups from another column than training named.
    pub fn group_by(&mut self, column: &str) {
        self.features.group_by(column);
    }

    /// Writes the probability of each label of each row to `out`, `[rows, labels]`.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] when a category is past its field, or a score is not finite.
    pub fn score(&self, batch: &FeatureBatch, out: &mut Vec<f32>) -> Result<()> {
        out.clear();
        let mut piece = FeatureBatch::default();
        let mut first = 0;
        while first < batch.rows {
            let rows = (batch.rows - first).min(scored_at_once(self.device));
            let piece = match rows == batch.rows {
                true => batch,
                false => {
                    slice(batch, first, rows, &mut piece);
                    &piece
                }
            };
            self.score_piece(piece, first, out)?;
            first += rows;
        }
        Ok(())
    }

    /// Returns a network that shares the parameters. It is not asked under the lock: a thread of rayon's that waits for a part
    /// of its work may take up another caller's, who would then wait for this one for ever.
    fn network(&self) -> Result<PlacedNetwork> {
        let network = self.network.lock();
        Ok(network.map_err(|_| crate::Error::Inconsistent { what: "network", at: 0 })?.clone())
    }

    fn score_piece(&self, batch: &FeatureBatch, first: usize, out: &mut Vec<f32>) -> Result<()> {
        let network = self.network()?;
        let shape = Shape::of(&self.features);
        let log_odds = network.log_odds(self.device, &self.tables, &shape, batch)?;
        for (at, x) in log_odds.iter().enumerate() {
            if !x.is_finite() {
                let row = (first + at / shape.n_labels) as u64;
                return Err(recmill_kernels::Error::NotFinite { op: "ranker", what: "a score", row }.into());
            }
            out.push(sigmoid(*x));
        }
        Ok(())
    }

    /// Returns what the model directory stores.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] when there is no memory for a copy.
    pub fn into_parts(mut self) -> Result<(RankerConfig, Features, Parameters)> {
        self.score_on(Device::Cpu)?;
        let mut parameters = Parameters::default();
        self.tables.put(&mut parameters);
        let network =
            self.network.into_inner().map_err(|_| crate::Error::Inconsistent { what: "network", at: 0 })?;
        network.put(&mut parameters)?;
        Ok((self.config, self.features, parameters))
    }
}

/// Returns the log-odds of each label of each row of `batch`, `[rows, labels]`, by any network.
///
/// # Errors
/// [`crate::Error::Kernel`] when a category is past its field, or there is no memory.
pub fn log_odds<B: DeviceBackend, N: Network<B>>(
    network: &N,
    tables: &EmbeddingTables,
    shape: &Shape,
    batch: &FeatureBatch,
    device: &B::Device,
) -> Result<Vec<f32>> {
    let look_up = |table: &Option<Table>| -> Result<Option<Lookup>> {
        table.as_ref().map(|table| tables.look_up(table, batch)).transpose()
    };
    let lookups = [look_up(&tables.embedding)?, look_up(&tables.first_order)?];
    log_odds_of(network, lookups, shape, batch, device)
}

/// As [`log_odds`], of rows that have been looked up already: in the embeddings and in the first-order weights.
///
/// # Errors
/// [`crate::Error::Kernel`] when there is no memory.
pub fn log_odds_of<B: DeviceBackend, N: Network<B>>(
    network: &N,
    lookups: [Option<Lookup>; 2],
    shape: &Shape,
    batch: &FeatureBatch,
    device: &B::Device,
) -> Result<Vec<f32>> {
    if batch.rows == 0 {
        return Ok(Vec::new());
    }
    let values = |lookup: Option<Lookup>| -> Result<Option<Tensor<B, 2>>> {
        lookup.map(|lookup| matrix_of(lookup.values, lookup.bags.width())).transpose()
    };
    let [embedded, first_order] = lookups;
    let embedded = values(embedded)?.map(|flat| {
        let [rows, width] = flat.dims();
        flat.reshape([rows, shape.n_fields, width / shape.n_fields])
    });
    let first_order = values(first_order)?;
    let numeric = (shape.n_numeric > 0).then(|| {
        let numbers = TensorData::new(batch.numeric.clone(), [batch.rows, shape.n_numeric]);
        Tensor::from_data(numbers, device)
    });
    let inputs = Inputs { embedded, first_order, numeric, training: None };
    Ok(buffer_of(network.forward(&inputs))?.into_vec()?)
}

/// Copies rows `first .. first + rows` of a batch's features, which is all that scoring reads.
fn slice(batch: &FeatureBatch, first: usize, rows: usize, out: &mut FeatureBatch) {
    let n_numeric = batch.numeric.len() / batch.rows.max(1);
    out.rows = rows;
    out.numeric.clear();
    out.numeric.extend_from_slice(&batch.numeric[first * n_numeric..(first + rows) * n_numeric]);
    out.fields.resize_with(batch.fields.len(), FieldValues::default);
    for (from, to) in batch.fields.iter().zip(&mut out.fields) {
        to.indices.clear();
        match &from.offsets {
            None => {
                to.offsets = None;
                to.indices.extend_from_slice(&from.indices[first..first + rows]);
            }
            Some(offsets) => {
                let offsets = &offsets[first..=first + rows];
                let (begin, end) = (offsets[0], offsets[rows]);
                to.indices.extend_from_slice(&from.indices[begin as usize..end as usize]);
                to.offsets = Some(offsets.iter().map(|offset| offset - begin).collect());
            }
        }
    }
}

/// Turns log-odds into a probability.
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

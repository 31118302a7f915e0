//! One side's tower: a table of vectors for categories and ids, and a network over those of a row.
//!
//! ```text
//! rows of the table     field 0 | field 1 | .. | whoever is new | id 0 | id 1 | ..
//! looked up             [rows, (fields + 1) factors]: a vector a field, that of the id last
//! ```
//!
//! Ids are last, so that a table that grows with its users or items begins with the one before.

use std::{ops::Range, sync::Arc};

use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData, backend::Backend},
};
use recmill_kernels::{RowType, Table};

use super::TwoTowerConfig;
use crate::{
    Error, Parameter, Parameters, Result, Side,
    dense::{
        Activation, Cpu, DenseBackend, DeviceBackend, InTraining, Initial, Linear, Mlp, beside, buffer_of,
        load_parameters, matrix_of, product, put_parameters,
    },
    features::{Described, FeatureBatch, Features, FieldValues},
    models::scale_to,
    rankers::{Lookup, look_up},
};

/// Rows that go through a tower at a time: what bounds the memory of all of them.
const AT_ONCE: usize = 4096;

/// Which rows of a tower's table are whose.
#[derive(Clone, Debug)]
pub struct TowerRows {
    features: Option<Arc<Features>>,
    /// Field `f` has the rows `starts[f] .. starts[f + 1]`, and ids those from the last.
    starts: Vec<u64>,
}

impl TowerRows {
    /// Lays out the rows of `features`' fields, where there are some, and then those of ids.
    pub fn new(features: Option<Arc<Features>>) -> Self {
        let mut starts = vec![0];
        for field in features.iter().flat_map(|features| features.fields()) {
            starts.push(starts[starts.len() - 1] + field.rows() as u64);
        }
        Self { features, starts }
    }

    /// Returns how columns become fields, where there are columns.
    pub fn features(&self) -> Option<&Arc<Features>> {
        self.features.as_ref()
    }

    /// Returns the rows of a table for `n_ids` ids.
    pub fn total(&self, n_ids: usize) -> u64 {
        self.starts[self.starts.len() - 1] + 1 + n_ids as u64
    }

    /// Returns the vectors that are looked up for one row: one a field, and the id's.
    pub fn parts(&self) -> usize {
        self.starts.len()
    }

    /// Returns the numbers that one row has beside.
    pub fn n_numeric(&self) -> usize {
        self.features.as_ref().map_or(0, |features| features.numeric().len())
    }

    /// Puts together what the tower reads of `rows`, which have the rows `ids` of the ids' field: 0 for one that is new, else one more
    /// than its index.
    pub fn batch(&self, described: Option<&Described>, rows: &[u32], ids: Vec<u32>) -> FeatureBatch {
        let mut batch = FeatureBatch { rows: ids.len(), ..FeatureBatch::default() };
        if let Some(described) = described {
            described.rows().gather(rows, &mut batch);
        }
        batch.fields.push(FieldValues { indices: ids, offsets: None });
        batch
    }

    /// Looks up what [`TowerRows::batch`] put together.
    ///
    /// # Errors
    /// [`Error::Kernel`] when an index is past its field, or there is no memory.
    pub fn look_up(&self, table: &Table, batch: &FeatureBatch) -> Result<Lookup> {
        look_up(table, batch, |field| self.rows_of(table, field))
    }

    fn rows_of(&self, table: &Table, field: usize) -> Range<u64> {
        self.starts[field]..self.starts.get(field + 1).copied().unwrap_or_else(|| table.rows())
    }
}

/// From what is looked up of a row to its vector, before that is scaled.
#[derive(Module, Debug)]
pub struct TowerNetwork<B: Backend> {
    /// Without hidden layers: a vector for each numeric column.
    of_numeric: Option<Param<Tensor<B, 2>>>,
    hidden: Mlp<B>,
    /// With hidden layers: from the last of them to the vector.
    out: Option<Linear<B>>,
    parts: usize,
}

impl<B: Backend> TowerNetwork<B> {
    /// Makes the network of one side with its first values.
    pub fn new(config: &TwoTowerConfig, rows: &TowerRows, side: Side, initial: &mut Initial<'_, B>) -> Self {
        let (factors, numeric) = (config.factors, rows.n_numeric());
        let width = rows.parts() * factors + numeric;
        let last = config.hidden.last();
        // About as long as the categories' vectors are at first.
        let of_numeric = (last.is_none() && numeric > 0).then(|| initial.uniform([numeric, factors], 0.02));
        let hidden = Mlp::new(width, &config.hidden, config.between(), side as u64, initial);
        let out = last.map(|&last| Linear::glorot(last, factors, initial));
        Self { of_numeric, hidden, out, parts: rows.parts() }
    }
}

impl<B: DenseBackend> TowerNetwork<B> {
    /// Returns the vectors of rows.
    ///
    /// # Shapes
    /// - `embedded`: `[rows, parts * factors]`; `numeric`: `[rows, numeric]`, where there are numbers
    /// - returns: `[rows, factors]`
    pub fn forward(
        &self,
        embedded: Tensor<B, 2>,
        numeric: Option<Tensor<B, 2>>,
        training: Option<&InTraining<B>>,
    ) -> Tensor<B, 2> {
        if let Some(out) = &self.out {
            let all = beside([embedded].into_iter().chain(numeric).collect());
            return out.forward(self.hidden.forward(all, training), Activation::Identity);
        }
        let sum = match self.parts {
            1 => embedded,
            parts => {
                let [rows, width] = embedded.dims();
                let by_part = embedded.reshape([rows, parts, width / parts]);
                by_part.sum_dim(1).squeeze_dim::<2>(1)
            }
        };
        match self.of_numeric.as_ref().zip(numeric) {
            Some((vectors, x)) => sum + product(x, vectors.val()),
            None => sum,
        }
    }
}

/// Returns the numeric columns of a batch as the network reads them, where there are some.
pub fn numeric_of<B: Backend>(batch: &FeatureBatch, device: &B::Device) -> Option<Tensor<B, 2>> {
    let columns = batch.numeric.len() / batch.rows.max(1);
    let values = || TensorData::new(batch.numeric.clone(), [batch.rows, columns]);
    (columns > 0).then(|| Tensor::from_data(values(), device))
}

/// Computes the vectors of rows `0 .. ids.len()` of `described`, scaled as they score, on the CPU; `ids` as for [`TowerRows::batch`].
///
/// # Errors
/// [`Error::Kernel`] when there is no memory.
pub fn vectors_of<B: DeviceBackend>(
    config: &TwoTowerConfig,
    (rows, table, network): (&TowerRows, &Table, &TowerNetwork<B>),
    described: Option<&Described>,
    ids: &[u32],
) -> Result<Table> {
    let mut values = Vec::with_capacity(ids.len() * config.factors);
    for (block, ids) in ids.chunks(AT_ONCE).enumerate() {
        let first = (block * AT_ONCE) as u32;
        let own: Vec<u32> = (first..first + ids.len() as u32).collect();
        let batch = rows.batch(described, &own, ids.to_vec());
        let lookup = rows.look_up(table, &batch)?;
        let embedded = matrix_of::<B>(lookup.values, lookup.bags.width())?;
        let numeric = numeric_of::<B>(&batch, &embedded.device());
        values.extend(buffer_of(network.forward(embedded, numeric, None))?.into_vec()?);
    }
    let scaled = |row: u64, out: &mut [f32]| {
        let raw = &values[row as usize * out.len()..][..out.len()];
        out.copy_from_slice(raw);
        if let Some(length) = config.length() {
            scale_to(length, out);
        }
        Ok(())
    };
    Ok(Table::from_rows(ids.len() as u64, config.factors, RowType::F32, "a tower's vectors", scaled)?)
}

/// One side's tower, to be asked.
#[derive(Debug)]
pub struct Tower {
    pub(super) rows: TowerRows,
    embedding: Table,
    network: TowerNetwork<Cpu>,
}

/// The names under which the parts of one side's tower are stored.
struct Names {
    embedding: &'static str,
    features: &'static str,
    network: &'static str,
}

impl Names {
    fn of(side: Side) -> Self {
        match side {
            Side::Users => {
                Self { embedding: "user_embedding", features: "user_features", network: "user_tower_" }
            }
            Side::Items => {
                Self { embedding: "item_embedding", features: "item_features", network: "item_tower_" }
            }
        }
    }
}

/// Puts one side's tower under the names that [`Tower::take`] knows.
///
/// # Errors
/// [`Error::Kernel`] when there is no memory for a copy.
pub fn put_tower<B: Backend>(
    side: Side,
    rows: &TowerRows,
    embedding: Table,
    network: &TowerNetwork<B>,
    parameters: &mut Parameters,
) -> Result<()> {
    let names = Names::of(side);
    parameters.insert(names.embedding, Parameter::Table(embedding));
    if let Some(features) = rows.features() {
        parameters.insert(names.features, Parameter::Features(Arc::clone(features)));
    }
    let mut dense = Parameters::default();
    put_parameters(network, &mut dense)?;
    parameters.extend_prefixed(names.network, dense);
    Ok(())
}

impl Tower {
    /// Makes a tower of ids alone.
    ///
    /// # Shapes
    /// - `embedding`: `[1 + n_ids, factors]`, the first row that of whoever is new
    ///
    /// # Errors
    /// [`Error::WrongSize`] when it is not.
    pub fn of_ids(config: &TwoTowerConfig, embedding: Table) -> Result<Self> {
        let rows = TowerRows::new(None);
        let network =
            TowerNetwork::new(config, &rows, Side::Users, &mut Initial::new(0, &Default::default()));
        Self::new(config, rows, embedding, network)
    }

    fn new(
        config: &TwoTowerConfig,
        rows: TowerRows,
        embedding: Table,
        network: TowerNetwork<Cpu>,
    ) -> Result<Self> {
        let wrong =
            |side, expected, got| Err(Error::WrongSize { what: "a tower's embedding", side, expected, got });
        if embedding.dim() != config.factors {
            return wrong("factors", config.factors, embedding.dim());
        }
        if embedding.rows() < rows.total(0) {
            return wrong("rows at least", rows.total(0) as usize, embedding.rows() as usize);
        }
        Ok(Self { rows, embedding, network: network.no_grad() })
    }

    /// Takes the tower of one side out of a model's parameters.
    ///
    /// # Errors
    /// [`Error::MissingParameter`], [`Error::MissingDense`]; [`Error::WrongSize`] when the parts do not fit each other.
    pub fn take(config: &TwoTowerConfig, side: Side, parameters: &mut Parameters) -> Result<Self> {
        let names = Names::of(side);
        let embedding = parameters.take_table(names.embedding)?;
        let rows = TowerRows::new(parameters.take_features(names.features));
        let mut dense = parameters.take_prefixed(names.network);
        let network = TowerNetwork::new(config, &rows, side, &mut Initial::new(0, &Default::default()));
        let network = load_parameters(network, &mut dense)?;
        match dense.iter().next() {
            None => Self::new(config, rows, embedding, network),
            Some(_) => {
                let (expected, got) = (config.hidden.len(), config.hidden.len() + 1);
                Err(Error::WrongSize { what: "a tower's network", side: "layers", expected, got })
            }
        }
    }

    /// Gives a copy of the tower to `parameters`.
    pub(super) fn put(
        &self,
        side: Side,
        precision: super::Precision,
        parameters: &mut Parameters,
    ) -> Result<()> {
        put_tower(side, &self.rows, precision.store(&self.embedding)?, &self.network, parameters)
    }

    /// Returns which rows of the table are whose, and how columns become fields.
    pub fn rows(&self) -> &TowerRows {
        &self.rows
    }

    /// Returns the vectors of categories and ids, `[rows, factors]`.
    pub fn embedding(&self) -> &Table {
        &self.embedding
    }

    /// Returns the network over them.
    pub fn network(&self) -> &TowerNetwork<Cpu> {
        &self.network
    }

    /// Returns how many ids have a vector.
    pub fn n_ids(&self) -> usize {
        (self.embedding.rows() - self.rows.total(0)) as usize
    }

    /// Computes the vectors of all rows of `described`, scaled as they score; `ids` has for each row 0 where it is new, else one more than
    /// its index.
    ///
    /// # Errors
    /// [`Error::Kernel`] when an id is past the last, or there is no memory.
    pub fn vectors(
        &self,
        config: &TwoTowerConfig,
        described: Option<&Described>,
        ids: &[u32],
    ) -> Result<Table> {
        vectors_of(config, (&self.rows, &self.embedding, &self.network), described, ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_counted_without_the_network() {
        for hidden in [vec![], vec![5], vec![5, 2, 7]] {
            let config = TwoTowerConfig { factors: 3, hidden, ..TwoTowerConfig::default() };
            let device = Default::default();
            let initial = &mut Initial::new(0, &device);
            let network = TowerNetwork::<Cpu>::new(&config, &TowerRows::new(None), Side::Users, initial);
            assert_eq!(network.num_params() as u64, config.n_parameters(0, 0), "{config:?}");
        }
    }
}

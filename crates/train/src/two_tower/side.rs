//! One side of two-tower while it learns: the tower of users, or that of items.

use std::sync::Arc;

use burn::{backend::Autodiff, module::AutodiffModule, tensor::Tensor};
use recmill_core::{
    Error as Core, Parameters, Side,
    dense::{
        DeviceBackend, Dropout, InTraining, Initial, buffer_of, load_parameters, matrix_of, put_parameters,
    },
    features::Described,
    models::{Tower, TowerNetwork, TowerRows, TwoTowerConfig, numeric_of, put_tower, vectors_of},
};
use recmill_kernels::{
    Bags, Device, SparseStep, Table,
    philox::{Draws, unit},
};

use crate::{
    Error, Result,
    factors::{Normal, Stream, take_over},
    gradient::DenseGradients,
    learned::{LearnedNetwork, LearnedTable, Part, put_parts, take_parts},
};

/// The streams that say whose id is taken for unknown, one an epoch; those of items begin where those of users end.
const UNKNOWN: u64 = 1 << 40;
const UNKNOWN_ITEMS: u64 = 1 << 32;

/// Where in training a batch is.
pub(super) struct At<'a> {
    pub(super) epoch: u32,
    /// What each row is a sample of; what is drawn for a row is a function of that.
    pub(super) samples: &'a [u64],
}

/// A batch's way through the tower.
pub(super) struct Pass<B: DeviceBackend> {
    bags: Bags,
    leaf: Tensor<Autodiff<B>, 2>,
    /// `[rows, factors]`, not scaled.
    pub(super) vectors: Tensor<Autodiff<B>, 2>,
}

/// A tower and what it learns with.
pub(super) struct SideLearner<'a, B: DeviceBackend> {
    config: &'a TwoTowerConfig,
    side: Side,
    described: Option<&'a Described>,
    /// Whether there is anything to learn an id's own vector from.
    known: Vec<bool>,
    seed: u64,
    rows: TowerRows,
    pub(super) embedding: LearnedTable,
    network: LearnedNetwork<B, TowerNetwork<Autodiff<B>>>,
}

impl<'a, B: DeviceBackend> SideLearner<'a, B> {
    pub(super) fn new(
        config: &'a TwoTowerConfig,
        side: Side,
        described: Option<&'a Described>,
        known: Vec<bool>,
        (seed, device): (u64, Device),
        initial: &mut Initial<'_, Autodiff<B>>,
    ) -> Result<Self> {
        if let Some(got) =
            described.map(|described| described.rows().rows).filter(|&rows| rows != known.len())
        {
            let (what, expected) = ("rows of features", known.len());
            return Err(Core::WrongSize { what, side: side.name(), expected, got }.into());
        }
        let rows = TowerRows::new(described.map(|described| Arc::clone(described.features())));
        let (stream, what) = match side {
            Side::Users => (Stream::UserTower, "users' embeddings"),
            Side::Items => (Stream::ItemTower, "items' embeddings"),
        };
        let (dim, scale) = (config.factors, config.init_scale);
        let drawn = Normal { rows: rows.total(known.len()) as usize, dim, scale, seed, stream };
        let table = drawn.on(device, what)?;
        Ok(Self {
            network: LearnedNetwork::new(TowerNetwork::new(config, &rows, side, initial)),
            config,
            side,
            described,
            known,
            seed,
            rows,
            embedding: LearnedTable::new(table)?,
        })
    }

    /// Sends users, or items, through the tower; some of them as if they were new, where there are features to know them by.
    pub(super) fn forward(&self, indices: &[u32], at: At<'_>) -> Result<Pass<B>> {
        let items = u64::from(self.side == Side::Items);
        let draws = Draws::new(self.seed, UNKNOWN + items * UNKNOWN_ITEMS + u64::from(at.epoch));
        let share = self.described.map_or(0.0, |_| self.config.id_dropout as f32);
        let unknown = |sample: u64| share > 0.0 && unit(draws.block(sample)[0]) < share;
        let ids = indices.iter().zip(at.samples);
        let ids = ids.map(|(&index, &sample)| if unknown(sample) { 0 } else { index + 1 }).collect();
        let batch = self.rows.batch(self.described, indices, ids);
        let lookup = self.rows.look_up(&self.embedding.table, &batch)?;
        let embedded = matrix_of::<B>(lookup.values, lookup.bags.width())?;
        let numeric = numeric_of(&batch, &embedded.device());
        let leaf = Tensor::<Autodiff<B>, 2>::from_inner(embedded).require_grad();
        let dropout = Dropout { seed: self.seed, epoch: at.epoch, samples: at.samples.to_vec() };
        let training = InTraining::new(dropout);
        let vectors = self.network.network.forward(leaf.clone(), numeric, Some(&training));
        Ok(Pass { bags: lookup.bags, leaf, vectors })
    }

    /// Steps network and table by the gradient of what [`SideLearner::forward`] returned.
    pub(super) fn step(&mut self, pass: Pass<B>, gradient: Tensor<B, 2>) -> Result<()> {
        let Pass { bags, leaf, vectors } = pass;
        let gradients = (vectors * Tensor::from_inner(gradient)).sum().backward();
        let of_network = DenseGradients::of(&self.network.network, &gradients);
        self.network.step(of_network, self.config.learning_rate);
        let Some(of_leaf) = leaf.grad(&gradients) else { return Ok(()) };
        let (learning_rate, l2) = (self.config.learning_rate as f32, self.config.regularization as f32);
        let step = SparseStep { learning_rate, l2, seed: self.seed };
        self.embedding.step(&bags, &bags.segment(0)?, &buffer_of(of_leaf)?, &step)
    }

    /// Returns the vectors of all users, or items, on the CPU. One that nothing was learned from is placed as a new one is.
    pub(super) fn vectors(&self) -> Result<Table> {
        let own = |&known: &bool| known || self.described.is_none();
        let ids: Vec<u32> =
            self.known.iter().zip(1..).map(|(known, id)| if own(known) { id } else { 0 }).collect();
        let network = self.network.network.valid();
        Ok(vectors_of(self.config, (&self.rows, &self.embedding.table, &network), self.described, &ids)?)
    }

    /// Gives the tower to `parameters`, with `table` for its own.
    pub(super) fn put(&self, table: Table, parameters: &mut Parameters) -> Result<()> {
        Ok(put_tower(self.side, &self.rows, table, &self.network.network.valid(), parameters)?)
    }

    /// Goes back, or on, to the tower of an earlier model.
    pub(super) fn restore(&mut self, parameters: &mut Parameters) -> Result<()> {
        let tower = Tower::take(self.config, self.side, parameters).map_err(|error| match error {
            Core::WrongSize { what, expected, got, .. } => {
                Error::Start { what, expected: expected.to_string(), got: got.to_string() }
            }
            Core::MissingDense { .. } => {
                let expected = self.config.hidden.len().to_string();
                Error::Start { what: "fewer", expected, got: "hidden layers".to_owned() }
            }
            other => other.into(),
        })?;
        if tower.rows().features() != self.rows.features() {
            let columns = |rows: &TowerRows| match rows.features() {
                None => "none".to_owned(),
                Some(features) => {
                    let names: Vec<&str> = features.fields().iter().map(|field| field.name()).collect();
                    names.join(", ")
                }
            };
            let what = match self.side {
                Side::Users => "user features",
                Side::Items => "item features",
            };
            return Err(Error::Start { what, expected: columns(&self.rows), got: columns(tower.rows()) });
        }
        take_over(&mut self.embedding.table, tower.embedding(), "embeddings")?;
        let mut dense = Parameters::default();
        put_parameters(tower.network(), &mut dense)?;
        self.network.network = load_parameters(self.network.network.clone(), &mut dense)?;
        Ok(())
    }
}

impl<B: DeviceBackend> Part for SideLearner<'_, B> {
    fn take_state(&mut self) -> Result<Parameters> {
        take_parts([("embedding_", &mut self.embedding), ("network_", &mut self.network)])
    }

    fn put_state(&mut self, state: Parameters) -> Result<()> {
        put_parts(state, [("embedding_", &mut self.embedding), ("network_", &mut self.network)])
    }
}

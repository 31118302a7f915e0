//! Shared bottom: several labels from one network, with a small tower of each label's own.
//!
//! ```text
//! b = MLP_bottom([e_1 .. e_F, x])        log-odds_k = h_k · MLP_k(b)
//! ```
//!
//! Source: Caruana 1997, "Multitask learning".

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{Inputs, Network, Shape, TableDims};
use crate::{
    dense::{Activation, DenseBackend, Initial, Linear, Mlp, MlpOptions, beside},
    models::Problems,
};

/// Hyper-parameters of [`SharedBottom`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct SharedBottomConfig {
    /// Length of a category's vector; 8 to 64 is usual.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().embedding_dim))]
    pub embedding_dim: usize,
    /// Widths of the shared network's hidden layers.
    #[cfg_attr(feature = "clap", arg(long, value_delimiter = ',', default_values_t = Self::default().hidden))]
    pub hidden: Vec<usize>,
    /// Widths of the hidden layers of each label's tower.
    #[cfg_attr(feature = "clap", arg(long, value_delimiter = ',', default_values_t = Self::default().tower))]
    pub tower: Vec<usize>,
    /// Share of the hidden values that are dropped in training.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().dropout))]
    pub dropout: f64,
    /// Whether hidden layers are normalized by the statistics of the batch (Ioffe, Szegedy 2015). Rows of many categories are often
    /// learnt faster and better with it.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().batch_norm, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true"))]
    pub batch_norm: bool,
}

impl Default for SharedBottomConfig {
    fn default() -> Self {
        Self { embedding_dim: 16, hidden: vec![400, 400], tower: vec![64], dropout: 0.2, batch_norm: false }
    }
}

impl SharedBottomConfig {
    fn between(&self) -> MlpOptions {
        MlpOptions { dropout: self.dropout, batch_norm: self.batch_norm }
    }

    pub(super) fn problems(&self, problems: &mut Problems) {
        problems.dimension("embedding_dim", self.embedding_dim);
        problems.widths("hidden", &self.hidden);
        problems.widths("tower", &self.tower);
        problems.share("dropout", self.dropout);
    }

    pub(super) fn tables(&self, _: &Shape) -> TableDims {
        TableDims { embedding: Some(self.embedding_dim), first_order: None }
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct SharedBottom<B: Backend> {
    bottom: Mlp<B>,
    towers: Vec<Tower<B>>,
}

/// What is one label's own.
#[derive(Module, Debug)]
pub(super) struct Tower<B: Backend> {
    mlp: Mlp<B>,
    head: Linear<B>,
}

impl<B: Backend> Tower<B> {
    /// `at` tells the network's towers apart.
    pub(super) fn new(
        width: usize,
        hidden: &[usize],
        options: MlpOptions,
        at: u64,
        initial: &mut Initial<'_, B>,
    ) -> Self {
        Self {
            mlp: Mlp::new(width, hidden, options, at, initial),
            head: Linear::glorot(hidden.last().copied().unwrap_or(width), 1, initial),
        }
    }
}

impl<B: DenseBackend> Tower<B> {
    pub(super) fn forward(&self, x: Tensor<B, 2>, inputs: &Inputs<B>) -> Tensor<B, 2> {
        self.head.forward(self.mlp.forward(x, inputs.training()), Activation::Identity)
    }
}

impl<B: Backend> SharedBottom<B> {
    /// Makes the network with its first values.
    pub fn new(config: &SharedBottomConfig, shape: &Shape, initial: &mut Initial<'_, B>) -> Self {
        let width = shape.flat_width(config.embedding_dim);
        let bottom = Mlp::new(width, &config.hidden, config.between(), 0, initial);
        let shared = config.hidden.last().copied().unwrap_or(width);
        let towers = (0..shape.n_labels as u64)
            .map(|label| Tower::new(shared, &config.tower, config.between(), 1 + label, initial));
        Self { bottom, towers: towers.collect() }
    }
}

impl<B: DenseBackend> Network<B> for SharedBottom<B> {
    fn forward(&self, inputs: &Inputs<B>) -> Tensor<B, 2> {
        let shared = self.bottom.forward(inputs.flat(), inputs.training());
        beside(self.towers.iter().map(|tower| tower.forward(shared.clone(), inputs)).collect())
    }
}

//! Wide & Deep: a linear model that memorises, beside a network that generalises.
//!
//! ```text
//! log-odds = b + Σ_f w_f + v · x   +   h · MLP([e_1 .. e_F, x])
//! ```
//!
//! Source: Cheng et al. 2016, "Wide & deep learning for recommender systems". Its crossed features are left to the caller.

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{Inputs, Network, Shape, TableDims, inputs::FirstOrder};
use crate::{
    dense::{Activation, DenseBackend, Initial, Linear, Mlp, MlpOptions},
    models::Problems,
};

/// Hyper-parameters of [`WideDeep`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct WideDeepConfig {
    /// Length of a category's vector; 8 to 64 is usual.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().embedding_dim))]
    pub embedding_dim: usize,
    /// Widths of the hidden layers.
    #[cfg_attr(feature = "clap", arg(long, value_delimiter = ',', default_values_t = Self::default().hidden))]
    pub hidden: Vec<usize>,
    /// Share of the hidden values that are dropped in training.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().dropout))]
    pub dropout: f64,
    /// Whether hidden layers are normalized by the statistics of the batch (Ioffe, Szegedy 2015). Rows of many categories are often
    /// learnt faster and better with it.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().batch_norm, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true"))]
    pub batch_norm: bool,
}

impl Default for WideDeepConfig {
    fn default() -> Self {
        Self { embedding_dim: 16, hidden: vec![400, 400, 400], dropout: 0.2, batch_norm: false }
    }
}

impl WideDeepConfig {
    fn between(&self) -> MlpOptions {
        MlpOptions { dropout: self.dropout, batch_norm: self.batch_norm }
    }

    pub(super) fn problems(&self, problems: &mut Problems) {
        problems.dimension("embedding_dim", self.embedding_dim);
        problems.widths("hidden", &self.hidden);
        problems.share("dropout", self.dropout);
    }

    pub(super) fn tables(&self, shape: &Shape) -> TableDims {
        TableDims { embedding: Some(self.embedding_dim), first_order: Some(shape.n_labels) }
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct WideDeep<B: Backend> {
    wide: FirstOrder<B>,
    deep: Mlp<B>,
    head: Linear<B>,
}

impl<B: Backend> WideDeep<B> {
    /// Makes the network with its first values.
    pub fn new(config: &WideDeepConfig, shape: &Shape, initial: &mut Initial<'_, B>) -> Self {
        let width = shape.flat_width(config.embedding_dim);
        Self {
            wide: FirstOrder::new(shape, initial),
            deep: Mlp::new(width, &config.hidden, config.between(), 0, initial),
            head: Linear::glorot(config.hidden.last().copied().unwrap_or(width), shape.n_labels, initial),
        }
    }
}

impl<B: DenseBackend> Network<B> for WideDeep<B> {
    fn forward(&self, inputs: &Inputs<B>) -> Tensor<B, 2> {
        let deep = self.deep.forward(inputs.flat(), inputs.training());
        self.wide.forward(inputs) + self.head.forward(deep, Activation::Identity)
    }
}

//! FM: a factorization machine, which gives every two features a weight out of their vectors.
//!
//! ```text
//! log-odds = b + Σ_i w_i x_i + Σ_i<j (v_i · v_j) x_i x_j        x_i = 1 for the row's categories, else the number
//! ```
//!
//! Source: Rendle 2010, "Factorization machines".

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{
    Inputs, Network, Shape, TableDims,
    inputs::{FirstOrder, Vectors},
};
use crate::{
    dense::{DenseBackend, Initial, second_order},
    models::Problems,
};

/// Hyper-parameters of [`Fm`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct FmConfig {
    /// Length of a feature's vector; 8 to 64 is usual.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().embedding_dim))]
    pub embedding_dim: usize,
}

impl Default for FmConfig {
    fn default() -> Self {
        Self { embedding_dim: 64 }
    }
}

impl FmConfig {
    pub(super) fn problems(&self, problems: &mut Problems) {
        problems.dimension("embedding_dim", self.embedding_dim);
    }

    pub(super) fn tables(&self, shape: &Shape) -> TableDims {
        TableDims { embedding: Some(self.embedding_dim), first_order: Some(shape.n_labels) }
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct Fm<B: Backend> {
    first_order: FirstOrder<B>,
    vectors: Vectors<B>,
}

impl<B: Backend> Fm<B> {
    /// Makes the network with its first values.
    pub fn new(config: &FmConfig, shape: &Shape, initial: &mut Initial<'_, B>) -> Self {
        Self {
            first_order: FirstOrder::new(shape, initial),
            vectors: Vectors::new(shape, config.embedding_dim, initial),
        }
    }
}

impl<B: DenseBackend> Network<B> for Fm<B> {
    fn forward(&self, inputs: &Inputs<B>) -> Tensor<B, 2> {
        self.first_order.forward(inputs) + second_order(self.vectors.forward(inputs))
    }
}

//! Logistic regression: a weight for each category and each number.
//!
//! ```text
//! log-odds = b + Σ_f w_f[category] + Σ_j v_j x_j
//! ```
//!
//! Source: McMahan et al. 2013, "Ad click prediction: a view from the trenches".

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{Inputs, Network, Shape, TableDims, inputs::FirstOrder};
use crate::dense::{DenseBackend, Initial};

/// Hyper-parameters of [`Logistic`]: none of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct LogisticConfig {}

impl LogisticConfig {
    pub(super) fn tables(&self, shape: &Shape) -> TableDims {
        TableDims { embedding: None, first_order: Some(shape.n_labels) }
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct Logistic<B: Backend> {
    first_order: FirstOrder<B>,
}

impl<B: Backend> Logistic<B> {
    /// Makes the network with its first values.
    pub fn new(_: &LogisticConfig, shape: &Shape, initial: &mut Initial<'_, B>) -> Self {
        Self { first_order: FirstOrder::new(shape, initial) }
    }
}

impl<B: DenseBackend> Network<B> for Logistic<B> {
    fn forward(&self, inputs: &Inputs<B>) -> Tensor<B, 2> {
        self.first_order.forward(inputs)
    }
}

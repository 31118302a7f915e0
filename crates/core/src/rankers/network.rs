//! What every network has in common, and any of them as one type.
// In the enum and in those that burn derives of it.
#![expect(clippy::large_enum_variant, reason = "there is one network a model; its numbers are elsewhere")]

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};

use super::{
    AutoInt, Dcn, DeepFm, Dlrm, FinalMlp, Fm, Inputs, Logistic, Mmoe, RankerModel, SharedBottom, WideDeep,
};
use crate::{
    dense::{DenseBackend, Initial},
    features::Features,
};

/// The sizes that a network is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Categorical fields.
    pub n_fields: usize,
    /// Numeric columns.
    pub n_numeric: usize,
    /// Labels that are predicted.
    pub n_labels: usize,
}

impl Shape {
    /// Returns the sizes that `features` make.
    pub fn of(features: &Features) -> Self {
        Self {
            n_fields: features.fields().len(),
            n_numeric: features.numeric().len(),
            n_labels: features.labels().len().max(1),
        }
    }

    /// Returns the columns of [`Inputs::flat`].
    pub fn flat_width(&self, embedding_dim: usize) -> usize {
        self.n_fields * embedding_dim + self.n_numeric
    }
}

/// A network that scores rows of features; one of the user's own is trained by the same loop.
pub trait Network<B: DenseBackend>: Module<B> {
    /// Returns the log-odds of each label, `[rows, labels]`.
    fn forward(&self, inputs: &Inputs<B>) -> Tensor<B, 2>;
}

macro_rules! any_network {
    ($($name:ident),* $(,)?) => {
        /// Any of the networks.
        #[derive(Module, Debug)]
        #[expect(missing_docs, reason = "each is documented where it is")]
        pub enum AnyNetwork<B: Backend> {
            $($name($name<B>),)*
        }

        impl<B: Backend> AnyNetwork<B> {
            /// Makes the network of `model` with its first values.
            pub fn new(model: &RankerModel, shape: &Shape, seed: u64, device: &B::Device) -> Self {
                let initial = &mut Initial::new(seed, device);
                match model {
                    $(RankerModel::$name(config) => Self::$name($name::new(config, shape, initial)),)*
                }
            }
        }

        impl<B: DenseBackend> Network<B> for AnyNetwork<B> {
            fn forward(&self, inputs: &Inputs<B>) -> Tensor<B, 2> {
                match self {
                    $(Self::$name(network) => network.forward(inputs),)*
                }
            }
        }
    };
}

any_network!(Logistic, Fm, WideDeep, DeepFm, Dcn, Dlrm, AutoInt, FinalMlp, SharedBottom, Mmoe);

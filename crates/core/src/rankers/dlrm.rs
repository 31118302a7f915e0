//! DLRM: the inner products of every two embeddings, and a network above them.
//!
//! ```text
//! d = MLP_bottom(x)        log-odds = h · MLP_top([d, z_i · z_j for every i > j])        z = d, e_1 .. e_F
//! ```
//!
//! Without numeric columns there is no `d`: the embeddings, side by side, take its place before the products.
//!
//! Source: Naumov et al. 2019, "Deep learning recommendation model for personalization and recommendation systems".

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{Inputs, Network, Shape, TableDims};
use crate::{
    dense::{Activation, DenseBackend, Initial, Linear, Mlp, MlpOptions, beside, pairwise_dots},
    models::Problems,
};

/// Hyper-parameters of [`Dlrm`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct DlrmConfig {
    /// Length of a category's vector, and of what the bottom network makes of the numbers; 8 to 128 is usual.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().embedding_dim))]
    pub embedding_dim: usize,
    /// Widths of the bottom network's hidden layers; the last one, of --embedding-dim, comes by itself.
    #[cfg_attr(feature = "clap", arg(long, value_delimiter = ',', default_values_t = Self::default().bottom))]
    pub bottom: Vec<usize>,
    /// Widths of the top network's hidden layers.
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

impl Default for DlrmConfig {
    fn default() -> Self {
        Self {
            embedding_dim: 16,
            bottom: vec![128],
            hidden: vec![400, 400, 400],
            dropout: 0.2,
            batch_norm: false,
        }
    }
}

impl DlrmConfig {
    fn between(&self) -> MlpOptions {
        MlpOptions { dropout: self.dropout, batch_norm: self.batch_norm }
    }

    pub(super) fn problems(&self, problems: &mut Problems) {
        problems.dimension("embedding_dim", self.embedding_dim);
        problems.widths("bottom", &self.bottom);
        problems.widths("hidden", &self.hidden);
        problems.share("dropout", self.dropout);
    }

    pub(super) fn tables(&self, _: &Shape) -> TableDims {
        TableDims { embedding: Some(self.embedding_dim), first_order: None }
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct Dlrm<B: Backend> {
    bottom: Option<Mlp<B>>,
    top: Mlp<B>,
    head: Linear<B>,
}

impl<B: Backend> Dlrm<B> {
    /// Makes the network with its first values.
    pub fn new(config: &DlrmConfig, shape: &Shape, initial: &mut Initial<'_, B>) -> Self {
        let dim = config.embedding_dim;
        let mut widths = config.bottom.clone();
        widths.push(dim);
        let bottom =
            (shape.n_numeric > 0).then(|| Mlp::new(shape.n_numeric, &widths, config.between(), 1, initial));
        let vectors = shape.n_fields + usize::from(bottom.is_some());
        let beside_dots = if bottom.is_some() { dim } else { shape.n_fields * dim };
        let width = vectors * vectors.saturating_sub(1) / 2 + beside_dots;
        Self {
            bottom,
            top: Mlp::new(width, &config.hidden, config.between(), 0, initial),
            head: Linear::glorot(config.hidden.last().copied().unwrap_or(width), shape.n_labels, initial),
        }
    }
}

impl<B: DenseBackend> Network<B> for Dlrm<B> {
    fn forward(&self, inputs: &Inputs<B>) -> Tensor<B, 2> {
        let training = inputs.training();
        let bottom = self.bottom.as_ref().zip(inputs.numeric.clone());
        let bottom = bottom.map(|(mlp, x)| mlp.forward(x, training));
        let vectors = bottom.clone().map(|d| d.unsqueeze_dim::<3>(1));
        let vectors: Vec<_> = vectors.into_iter().chain(inputs.embedded.clone()).collect();
        let first = bottom.unwrap_or_else(|| inputs.flat());
        // A single vector has no pairs, and burn joins nothing of no columns.
        let pairs = vectors.iter().map(|x| x.dims()[1]).sum::<usize>() > 1;
        let top = if pairs { beside(vec![first, pairwise_dots(beside(vectors))]) } else { first };
        self.head.forward(self.top.forward(top, training), Activation::Identity)
    }
}

//! AutoInt: fields that attend to each other, so that crosses of features are learned and not listed.
//!
//! ```text
//! head h:  a_ij = softmax_j (Q_h e_i · K_h e_j / √dim)       o_i = [Σ_j a_ij V_h e_j over the heads]
//! layer:   e_i <- max(0, o_i + R e_i)                        log-odds = w · [e_1 .. e_M] + h · MLP([e_1 .. e_F, x])
//! ```
//!
//! Numbers take part as vectors stretched by their value. With no `hidden` layers it is the paper's AutoInt, with them its
//! AutoInt+.
//!
//! Source: Song et al. 2019, "AutoInt: automatic feature interaction learning via self-attentive neural networks".

use burn::{
    module::Module,
    tensor::{
        Tensor,
        activation::{relu, softmax},
        backend::Backend,
    },
};
use serde::{Deserialize, Serialize};

use super::{Inputs, Network, Shape, TableDims, inputs::Vectors};
use crate::{
    dense::{Activation, DenseBackend, Initial, Linear, Mlp, MlpOptions},
    models::Problems,
};

/// Hyper-parameters of [`AutoInt`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct AutoIntConfig {
    /// Length of a feature's vector; 8 to 64 is usual.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().embedding_dim))]
    pub embedding_dim: usize,
    /// Layers of attention.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().attention_layers))]
    pub attention_layers: usize,
    /// Heads of each layer.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().heads))]
    pub heads: usize,
    /// Length of a head's vectors.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().attention_dim))]
    pub attention_dim: usize,
    /// Widths of the hidden layers beside the attention.
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

impl Default for AutoIntConfig {
    fn default() -> Self {
        Self {
            embedding_dim: 16,
            attention_layers: 2,
            heads: 2,
            attention_dim: 16,
            hidden: vec![400, 400],
            dropout: 0.2,
            batch_norm: false,
        }
    }
}

impl AutoIntConfig {
    fn between(&self) -> MlpOptions {
        MlpOptions { dropout: self.dropout, batch_norm: self.batch_norm }
    }

    pub(super) fn problems(&self, problems: &mut Problems) {
        problems.dimension("embedding_dim", self.embedding_dim);
        problems.at_least_one("attention_layers", self.attention_layers);
        problems.at_least_one("heads", self.heads);
        problems.dimension("attention_dim", self.attention_dim);
        problems.widths("hidden", &self.hidden);
        problems.share("dropout", self.dropout);
    }

    pub(super) fn tables(&self, _: &Shape) -> TableDims {
        TableDims { embedding: Some(self.embedding_dim), first_order: None }
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct AutoInt<B: Backend> {
    vectors: Vectors<B>,
    attention: Vec<Attention<B>>,
    of_attention: Linear<B>,
    deep: Mlp<B>,
    head: Linear<B>,
}

/// One layer.
#[derive(Module, Debug)]
struct Attention<B: Backend> {
    queries: Linear<B>,
    keys: Linear<B>,
    values: Linear<B>,
    residual: Linear<B>,
    heads: usize,
}

impl<B: Backend> AutoInt<B> {
    /// Makes the network with its first values.
    pub fn new(config: &AutoIntConfig, shape: &Shape, initial: &mut Initial<'_, B>) -> Self {
        let flat = shape.flat_width(config.embedding_dim);
        let vectors = Vectors::new(shape, config.embedding_dim, initial);
        let mut dim = config.embedding_dim;
        let attention = (0..config.attention_layers).map(|_| {
            let outputs = config.heads * config.attention_dim;
            let mut linear = || Linear::glorot(dim, outputs, initial);
            let layer = Attention {
                queries: linear(),
                keys: linear(),
                values: linear(),
                residual: linear(),
                heads: config.heads,
            };
            dim = outputs;
            layer
        });
        let attention = attention.collect();
        let attended = (shape.n_fields + shape.n_numeric) * dim;
        Self {
            vectors,
            attention,
            of_attention: Linear::glorot(attended, shape.n_labels, initial),
            deep: Mlp::new(flat, &config.hidden, config.between(), 0, initial),
            head: Linear::glorot(config.hidden.last().copied().unwrap_or(flat), shape.n_labels, initial),
        }
    }
}

impl<B: DenseBackend> Attention<B> {
    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let [rows, vectors, dim] = x.dims();
        let flat = x.reshape([rows * vectors, dim]);
        let project = |linear: &Linear<B>| linear.forward(flat.clone(), Activation::Identity);
        let split = |linear: &Linear<B>| {
            let projected = project(linear);
            let width = projected.dims()[1] / self.heads;
            projected.reshape([rows, vectors, self.heads, width]).swap_dims(1, 2)
        };
        let (queries, keys, values) = (split(&self.queries), split(&self.keys), split(&self.values));
        let width = keys.dims()[3];
        let scores = queries.matmul(keys.swap_dims(2, 3)).div_scalar((width as f64).sqrt());
        let attended = softmax(scores, 3).matmul(values).swap_dims(1, 2);
        let attended = attended.reshape([rows * vectors, self.heads * width]);
        relu(attended + project(&self.residual)).reshape([rows, vectors, self.heads * width])
    }
}

impl<B: DenseBackend> Network<B> for AutoInt<B> {
    fn forward(&self, inputs: &Inputs<B>) -> Tensor<B, 2> {
        let mut x = self.vectors.forward(inputs);
        for layer in &self.attention {
            x = layer.forward(x);
        }
        let attended = self.of_attention.forward(x.flatten::<2>(1, 2), Activation::Identity);
        if self.deep.is_empty() {
            return attended;
        }
        let deep = self.deep.forward(inputs.flat(), inputs.training());
        attended + self.head.forward(deep, Activation::Identity)
    }
}

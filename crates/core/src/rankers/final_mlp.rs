//! FinalMLP: two networks that see the features through gates of their own, joined by products of their outputs.
//!
//! ```text
//! f = [e_1 .. e_F, x]      f_1 = 2 σ(G_1) ⊙ f,  f_2 = 2 σ(G_2) ⊙ f        G_i = MLP_gate,i(learned vector)
//! o_1 = MLP_1(f_1),  o_2 = MLP_2(f_2)
//! log-odds = b + w_1 · o_1 + w_2 · o_2 + Σ_h o_1,h W_h o_2,h              h: the heads, equal pieces of o_1 and o_2
//! ```
//!
//! The gates have no context of their own here (the paper's case without user or item features).
//!
//! Source: Mao et al. 2023, "FinalMLP: an enhanced two-stream MLP model for CTR prediction".

use burn::{
    module::{Module, Param},
    tensor::{Tensor, activation::sigmoid, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{Inputs, Network, Shape, TableDims};
use crate::{
    dense::{Activation, DenseBackend, Initial, Linear, Mlp, MlpOptions, product},
    models::Problems,
};

/// Hyper-parameters of [`FinalMlp`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct FinalMlpConfig {
    /// Length of a category's vector; 8 to 64 is usual.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().embedding_dim))]
    pub embedding_dim: usize,
    /// Widths of the first network's hidden layers.
    #[cfg_attr(feature = "clap", arg(long, value_delimiter = ',', default_values_t = Self::default().hidden))]
    pub hidden: Vec<usize>,
    /// Widths of the second network's hidden layers.
    #[cfg_attr(feature = "clap", arg(long, value_delimiter = ',', default_values_t = Self::default().hidden2))]
    pub hidden2: Vec<usize>,
    /// Pieces that the outputs are cut into; it divides the last widths of both networks.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().heads))]
    pub heads: usize,
    /// Width of the gates' hidden layer; 0 for no gates.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().gate))]
    pub gate: usize,
    /// Share of the hidden values that are dropped in training.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().dropout))]
    pub dropout: f64,
    /// Whether hidden layers are normalized by the statistics of the batch (Ioffe, Szegedy 2015). Rows of many categories are often
    /// learnt faster and better with it.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().batch_norm, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true"))]
    pub batch_norm: bool,
}

impl Default for FinalMlpConfig {
    fn default() -> Self {
        Self {
            embedding_dim: 16,
            hidden: vec![400, 400, 400],
            hidden2: vec![800],
            heads: 10,
            gate: 64,
            dropout: 0.2,
            batch_norm: false,
        }
    }
}

impl FinalMlpConfig {
    fn between(&self) -> MlpOptions {
        MlpOptions { dropout: self.dropout, batch_norm: self.batch_norm }
    }

    pub(super) fn problems(&self, problems: &mut Problems) {
        problems.dimension("embedding_dim", self.embedding_dim);
        problems.widths("hidden", &self.hidden);
        problems.widths("hidden2", &self.hidden2);
        problems.share("dropout", self.dropout);
        problems.at_least_one("heads", self.heads);
        let divides = |hidden: &[usize]| hidden.last().is_some_and(|last| last % self.heads.max(1) == 0);
        if !divides(&self.hidden) || !divides(&self.hidden2) {
            problems.add("heads", "a divisor of the last widths of hidden and hidden2", self.heads);
        }
    }

    pub(super) fn tables(&self, _: &Shape) -> TableDims {
        TableDims { embedding: Some(self.embedding_dim), first_order: None }
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct FinalMlp<B: Backend> {
    first: Stream<B>,
    second: Stream<B>,
    of_first: Linear<B>,
    of_second: Linear<B>,
    /// `[heads, width of o_1's piece, width of o_2's piece * labels]`.
    products: Param<Tensor<B, 3>>,
    n_labels: usize,
}

/// A gate and a network.
#[derive(Module, Debug)]
struct Stream<B: Backend> {
    context: Option<Param<Tensor<B, 2>>>,
    gate: Vec<Linear<B>>,
    mlp: Mlp<B>,
}

impl<B: Backend> Stream<B> {
    fn new(
        width: usize,
        config: &FinalMlpConfig,
        hidden: &[usize],
        at: u64,
        initial: &mut Initial<'_, B>,
    ) -> Self {
        let gated = config.gate > 0;
        Self {
            context: gated.then(|| initial.uniform([1, config.embedding_dim], 0.1)),
            gate: match gated {
                true => vec![
                    Linear::glorot(config.embedding_dim, config.gate, initial),
                    Linear::glorot(config.gate, width, initial),
                ],
                false => Vec::new(),
            },
            mlp: Mlp::new(width, hidden, config.between(), at, initial),
        }
    }
}

impl<B: DenseBackend> Stream<B> {
    fn forward(&self, x: Tensor<B, 2>, inputs: &Inputs<B>) -> Tensor<B, 2> {
        let x = match (&self.context, self.gate.as_slice()) {
            (Some(context), [first, second]) => {
                let hidden = first.forward(context.val(), Activation::Relu);
                x * sigmoid(second.forward(hidden, Activation::Identity)).mul_scalar(2.0)
            }
            _ => x,
        };
        self.mlp.forward(x, inputs.training())
    }
}

impl<B: Backend> FinalMlp<B> {
    /// Makes the network with its first values.
    pub fn new(config: &FinalMlpConfig, shape: &Shape, initial: &mut Initial<'_, B>) -> Self {
        let width = shape.flat_width(config.embedding_dim);
        let last = |hidden: &[usize]| hidden.last().copied().unwrap_or(width);
        let (one, two) = (last(&config.hidden), last(&config.hidden2));
        let (first_piece, second_piece) = (one / config.heads, two / config.heads);
        let bound = (6.0 / (first_piece + second_piece) as f64).sqrt();
        Self {
            first: Stream::new(width, config, &config.hidden, 0, initial),
            second: Stream::new(width, config, &config.hidden2, 1, initial),
            of_first: Linear::glorot(one, shape.n_labels, initial),
            of_second: Linear::glorot(two, shape.n_labels, initial),
            products: initial.uniform([config.heads, first_piece, second_piece * shape.n_labels], bound),
            n_labels: shape.n_labels,
        }
    }
}

impl<B: DenseBackend> Network<B> for FinalMlp<B> {
    fn forward(&self, inputs: &Inputs<B>) -> Tensor<B, 2> {
        let flat = inputs.flat();
        let one = self.first.forward(flat.clone(), inputs);
        let two = self.second.forward(flat, inputs);
        let [heads, first_piece, wide] = self.products.val().dims();
        let (rows, second_piece) = (one.dims()[0], wide / self.n_labels);
        let mut products = Tensor::<B, 2>::zeros([rows, self.n_labels], &one.device());
        for head in 0..heads {
            let left = one.clone().slice([0..rows, head * first_piece..(head + 1) * first_piece]);
            let right = two.clone().slice([0..rows, head * second_piece..(head + 1) * second_piece]);
            let weight = self.products.val().slice([head..head + 1, 0..first_piece, 0..wide]);
            let mapped = product(left, weight.squeeze_dim::<2>(0));
            let mapped = mapped.reshape([rows, self.n_labels, second_piece]);
            let of_head = (mapped * right.unsqueeze_dim::<3>(1)).sum_dim(2);
            products = products + of_head.squeeze_dim::<2>(2);
        }
        self.of_first.forward(one, Activation::Identity)
            + self.of_second.forward(two, Activation::Identity)
            + products
    }
}
